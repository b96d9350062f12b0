//! What a convolution sees of a grid of tokens: the neighbourhood of every token, side by side.

use candle_core::Tensor;
use rayon::prelude::*;

use crate::error::Result;

/// What a convolution sees of its input, with zeros around it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kernel {
    /// Rows and columns of the neighbourhood, odd.
    pub size: usize,
    /// Rows and columns from one neighbourhood to the next.
    pub stride: usize,
    /// Whether every channel is a convolution of its own.
    pub depthwise: bool,
}

/// Grids of tokens one behind another, none of which a convolution looks out of: levels of a pyramid, or regions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grids(Vec<(usize, (usize, usize))>);

impl From<(usize, usize)> for Grids {
    fn from(grid: (usize, usize)) -> Self {
        Self(vec![(1, grid)])
    }
}

impl Grids {
    /// Several grids of other sizes.
    #[must_use]
    pub fn of_levels(levels: &[(usize, usize)]) -> Self {
        Self(levels.iter().map(|grid| (1, *grid)).collect())
    }

    /// `count` grids of one size.
    #[must_use]
    pub fn of_regions(count: usize, grid: (usize, usize)) -> Self {
        Self(vec![(count, grid)])
    }

    /// Grids of one size that stand one behind another: how many, and their rows and columns.
    pub fn runs(&self) -> impl Iterator<Item = (usize, (usize, usize))> {
        self.0.iter().copied()
    }

    /// Rows and columns of every one.
    pub fn each(&self) -> impl Iterator<Item = (usize, usize)> {
        self.0.iter().flat_map(|(count, grid)| std::iter::repeat_n(*grid, *count))
    }

    /// Tokens of all.
    #[must_use]
    pub fn tokens(&self) -> usize {
        self.0.iter().map(|(count, (rows, columns))| count * rows * columns).sum()
    }
}

/// What a convolution sees of its input, and the grids of which that is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Neighbourhoods {
    /// What is seen from one place.
    pub kernel: Kernel,
    /// The grids.
    pub grids: Grids,
}

impl Neighbourhoods {
    /// The neighbourhoods of tokens `(N, C)` of one picture, `(outputs, C size^2)`; of more than `most` evenly spaced ones.
    #[must_use]
    pub fn sample(&self, values: &[f32], channels: usize, most: usize) -> Vec<f32> {
        let outputs: usize = self.grids.each().map(|grid| self.kernel.over(grid)).map(|(high, wide)| high * wide).sum();
        // A depthwise one has short neighbourhoods, one for each channel.
        let every = if self.kernel.depthwise { 1 } else { outputs.div_ceil(most.max(1)).max(1) };
        let (mut start, mut before, mut out) = (0_usize, 0_usize, Vec::new());
        for grid in self.grids.each() {
            // A picture may have fewer regions.
            if start >= values.len() {
                break;
            }
            let (high, wide) = self.kernel.over(grid);
            let first = before.next_multiple_of(every) - before;
            let places: Vec<usize> = (first..high * wide).step_by(every).collect();
            out.extend(self.kernel.unfold_at(&values[start..start + grid.0 * grid.1 * channels], grid, &places));
            (start, before) = (start + grid.0 * grid.1 * channels, before + high * wide);
        }
        out
    }
}

impl Kernel {
    /// Rows and columns of the output over a grid.
    #[must_use]
    pub const fn over(self, (rows, columns): (usize, usize)) -> (usize, usize) {
        (rows.div_ceil(self.stride), columns.div_ceil(self.stride))
    }

    /// The neighbourhoods of tokens `(rows columns, C)` of one picture, one for each output: `(outputs, C size^2)`, of a depthwise one `(outputs
    /// C, size^2)`, which is the same in memory.
    #[must_use]
    pub fn unfold(self, values: &[f32], grid: (usize, usize)) -> Vec<f32> {
        let (high, wide) = self.over(grid);
        self.unfold_at(values, grid, &(0..high * wide).collect::<Vec<_>>())
    }

    /// The same at some of the outputs.
    #[must_use]
    pub fn unfold_at(self, values: &[f32], (rows, columns): (usize, usize), places: &[usize]) -> Vec<f32> {
        let (channels, k, half) = (values.len() / (rows * columns).max(1), self.size, self.size / 2);
        let wide = self.over((rows, columns)).1;
        let mut out = vec![0.0; places.len() * channels * k * k];
        out.par_chunks_mut((channels * k * k).max(1)).zip(places).for_each(|(out, at)| {
            let (row, column) = (at / wide * self.stride, at % wide * self.stride);
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

    /// The way back: adds what stands in neighbourhoods `(places, C size^2)` to the tokens `(rows columns, C)` that they were made of.
    pub fn fold_at(self, near: &[f32], values: &mut [f32], (rows, columns): (usize, usize), places: &[usize]) {
        let (channels, k, half) = (values.len() / (rows * columns).max(1), self.size, self.size / 2);
        let wide = self.over((rows, columns)).1;
        for (near, at) in near.chunks_exact((channels * k * k).max(1)).zip(places) {
            let (row, column) = (at / wide * self.stride, at % wide * self.stride);
            for tap in 0..k * k {
                let (Some(y), Some(x)) = ((row + tap / k).checked_sub(half), (column + tap % k).checked_sub(half)) else { continue };
                if y >= rows || x >= columns {
                    continue;
                }
                let seen = &mut values[(y * columns + x) * channels..][..channels];
                seen.iter_mut().zip(near.iter().skip(tap).step_by(k * k)).for_each(|(sum, value)| *sum += value);
            }
        }
    }

    /// Each place of the neighbourhoods by itself, `(B, outputs, C)`, with `outside` around the grid.
    fn taps(self, x: &Tensor, (rows, columns): (usize, usize), outside: f64) -> Result<Vec<Tensor>> {
        let ((b, _, channels), k, half) = (x.dims3()?, self.size, self.size / 2);
        let (high, wide) = self.over((rows, columns));
        let map = x.reshape((b, rows, columns, channels))?;
        let map = if outside == 0.0 {
            map.pad_with_zeros(1, half, half)?.pad_with_zeros(2, half, half)?
        } else {
            map.affine(1.0, -outside)?.pad_with_zeros(1, half, half)?.pad_with_zeros(2, half, half)?.affine(1.0, outside)?
        };
        let every = |from: usize, count: usize| -> Result<Tensor> {
            let places: Vec<u32> = (0..count).map(|at| (from + at * self.stride) as u32).collect();
            Ok(Tensor::new(places, x.device())?)
        };
        let tap = |tap: usize| -> Result<Tensor> {
            let part = map.index_select(&every(tap / k, high)?, 1)?.index_select(&every(tap % k, wide)?, 2)?;
            Ok(part.reshape((b, high * wide, channels))?)
        };
        (0..k * k).map(tap).collect()
    }

    /// The largest value of every neighbourhood, channel by channel: `(B, rows columns, C)` to `(B, outputs, C)`. Values must be above -1e4.
    ///
    /// # Errors
    /// When the tensor has another shape.
    pub fn largest(self, x: &Tensor, grid: (usize, usize)) -> Result<Tensor> {
        let mut taps = self.taps(x, grid, -1e4)?.into_iter();
        let first = taps.next().map_or_else(|| x.zeros_like(), Ok)?;
        Ok(taps.try_fold(first, |most, tap| most.maximum(&tap))?)
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
