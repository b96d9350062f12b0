//! What a convolution sees of a grid of tokens: the neighbourhood of every token, side by side.

use candle_core::Tensor;
use rayon::prelude::*;

use crate::error::Result;
use crate::model::kernels;

/// What a convolution sees of its input, with stride 1 and zeros around it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kernel {
    /// Rows and columns of the neighbourhood, odd.
    pub size: usize,
    /// Whether every channel is a convolution of its own.
    pub depthwise: bool,
}

impl Kernel {
    /// The neighbourhoods of tokens `(rows columns, C)` of one picture: `(rows columns, C size^2)`, of a depthwise one `(rows columns C,
    /// size^2)`, which is the same in memory.
    #[must_use]
    pub fn unfold(self, values: &[f32], (rows, columns): (usize, usize)) -> Vec<f32> {
        let (channels, k, half) = (values.len() / (rows * columns).max(1), self.size, self.size / 2);
        let mut out = vec![0.0; values.len() * k * k];
        out.par_chunks_mut((channels * k * k).max(1)).enumerate().for_each(|(token, out)| {
            let (row, column) = (token / columns, token % columns);
            for tap in 0..k * k {
                let (Some(y), Some(x)) = ((row + tap / k).checked_sub(half), (column + tap % k).checked_sub(half)) else { continue };
                if y >= rows || x >= columns {
                    continue;
                }
                let seen = &values[(y * columns + x) * channels..][..channels];
                out.iter_mut().skip(tap).step_by(k * k).zip(seen).for_each(|(out, value)| *out = *value);
            }
        });
        out
    }

    /// The same for a batch `(B, rows columns, C)`, where somebody may ask for gradients: `(B, rows columns, C, size^2)`.
    ///
    /// # Errors
    /// When the tensor has another shape.
    pub fn unfold_tensor(self, x: &Tensor, (rows, columns): (usize, usize)) -> Result<Tensor> {
        let ((b, n, channels), k, half) = (x.dims3()?, self.size, self.size / 2);
        if !x.track_op() {
            let values = kernels::with_values(x, |values| {
                values.chunks_exact(n * channels).flat_map(|picture| self.unfold(picture, (rows, columns))).collect::<Vec<_>>()
            })?;
            return Ok(Tensor::from_vec(values, (b, n, channels, k * k), x.device())?);
        }
        let map = x.reshape((b, rows, columns, channels))?.pad_with_zeros(1, half, half)?.pad_with_zeros(2, half, half)?;
        let tap = |tap: usize| map.narrow(1, tap / k, rows)?.narrow(2, tap % k, columns)?.reshape((b, n, channels));
        let taps = (0..k * k).map(tap).collect::<candle_core::Result<Vec<_>>>()?;
        Ok(Tensor::stack(&taps, 3)?)
    }

    /// A depthwise convolution of tokens `(rows columns, C)` of one picture with weights `(size^2, C)`: what the neighbourhoods would give,
    /// without them.
    #[must_use]
    pub fn depthwise(self, values: &[f32], weights: &[f32], (rows, columns): (usize, usize)) -> Vec<f32> {
        let (channels, k, half) = (values.len() / (rows * columns).max(1), self.size, self.size / 2);
        let mut out = vec![0.0; values.len()];
        out.par_chunks_mut((columns * channels).max(1)).enumerate().for_each(|(row, out)| {
            for (tap, weights) in weights.chunks_exact(channels).enumerate() {
                let Some(y) = (row + tap / k).checked_sub(half).filter(|y| *y < rows) else { continue };
                for (column, out) in out.chunks_exact_mut(channels).enumerate() {
                    let Some(x) = (column + tap % k).checked_sub(half).filter(|x| *x < columns) else { continue };
                    let seen = &values[(y * columns + x) * channels..][..channels];
                    out.iter_mut().zip(seen).zip(weights).for_each(|((out, value), weight)| *out += value * weight);
                }
            }
        });
        out
    }
}
