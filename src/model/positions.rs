//! Position embeddings for an input size other than the one they were trained at: bicubic resampling, as torch's
//! `interpolate(mode="bicubic", align_corners=False)` does it without antialiasing, which is what transformers' DINOv2 uses.

use candle_core::{Device, Tensor};

use crate::error::Result;

/// Resamples embeddings `(1, from.0 from.1, D)` of a patch grid to those `(1, to.0 to.1, D)` of another.
///
/// # Errors
/// When the embeddings are not those of the grid `from`.
pub fn resample(embeddings: &Tensor, from: (usize, usize), to: (usize, usize)) -> Result<Tensor> {
    if from == to {
        return Ok(embeddings.clone());
    }
    let (_, _, dim) = embeddings.dims3()?;
    let rows = matrix(from.0, to.0)?.matmul(&embeddings.reshape((from.0, from.1 * dim))?)?; // (to.0, from.1 D)
    let columns = rows.reshape((to.0, from.1, dim))?.transpose(0, 1)?.reshape((from.1, to.0 * dim))?;
    let both = matrix(from.1, to.1)?.matmul(&columns)?.reshape((to.1, to.0, dim))?;
    Ok(both.transpose(0, 1)?.reshape((1, to.0 * to.1, dim))?)
}

/// The resampling of one axis as a matrix `(to, from)`: four taps a row, clamped at the borders.
fn matrix(from: usize, to: usize) -> Result<Tensor> {
    let mut weights = vec![0f32; to * from];
    let scale = from as f32 / to as f32;
    for (target, row) in weights.chunks_mut(from).enumerate() {
        let source = scale * (target as f32 + 0.5) - 0.5;
        let floor = source.floor();
        for (tap, weight) in (-1..=2).zip(taps(source - floor)) {
            let index = (floor as isize + tap).clamp(0, from as isize - 1);
            row[index as usize] += weight;
        }
    }
    Ok(Tensor::from_vec(weights, (to, from), &Device::Cpu)?)
}

/// Weights of the four neighbours of a point `t` after the second: Keys' cubic kernel with torch's `a = -0.75`.
fn taps(t: f32) -> [f32; 4] {
    const A: f32 = -0.75;
    let near = |x: f32| ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0;
    let far = |x: f32| ((A * x - 5.0 * A) * x + 8.0 * A) * x - 4.0 * A;
    [far(t + 1.0), near(t), near(1.0 - t), far(2.0 - t)]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(values: &[f32], to: usize) -> Vec<f32> {
        let grid = Tensor::from_slice(values, (1, values.len(), 1), &Device::Cpu).unwrap();
        resample(&grid, (1, values.len()), (1, to)).unwrap().flatten_all().unwrap().to_vec1().unwrap()
    }

    #[test]
    fn a_constant_stays_constant_and_the_same_grid_stays_itself() {
        let constant = row(&[2.0; 5], 3);
        assert!(constant.iter().all(|v| (v - 2.0).abs() < 1e-5), "{constant:?}");
        assert_eq!(row(&[1.0, 5.0, 2.0], 3), [1.0, 5.0, 2.0]);
    }

    #[test]
    fn borders_are_clamped_and_the_kernel_is_the_one_with_three_quarters() {
        // Both points lie half way between two of the four: weights -0.09375, 0.59375, 0.59375, -0.09375.
        let halved = row(&[0.0, 1.0, 4.0, 9.0], 2);
        assert!((halved[0] - 0.21875).abs() < 1e-6 && (halved[1] - 6.78125).abs() < 1e-6, "{halved:?}");
    }
}
