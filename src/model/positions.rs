//! Position embeddings for an input size other than the one they were trained at: torch's
//! `interpolate(mode="bicubic", align_corners=False)`, with and without `antialias`.

use candle_core::{Device, Tensor};
use schemars::JsonSchema;
use serde::Serialize;

use crate::error::Result;

/// How a library resamples position embeddings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Resampling {
    /// Four taps with `a = -0.75`: DINOv2 in transformers.
    Bicubic,
    /// As Pillow does it, `a = -0.5` and a kernel as wide as the step: timm, and DINOv2 with registers in transformers.
    BicubicAntialias,
}

/// Resamples embeddings `(1, from.0 from.1, D)` of a patch grid to those `(1, to.0 to.1, D)` of another.
///
/// # Errors
/// When the embeddings are not those of the grid `from`.
pub fn resample(embeddings: &Tensor, from: (usize, usize), to: (usize, usize), how: Resampling) -> Result<Tensor> {
    if from == to {
        return Ok(embeddings.clone());
    }
    let (_, _, dim) = embeddings.dims3()?;
    let rows = matrix(from.0, to.0, how)?.matmul(&embeddings.reshape((from.0, from.1 * dim))?)?; // (to.0, from.1 D)
    let columns = rows.reshape((to.0, from.1, dim))?.transpose(0, 1)?.reshape((from.1, to.0 * dim))?;
    let both = matrix(from.1, to.1, how)?.matmul(&columns)?.reshape((to.1, to.0, dim))?;
    Ok(both.transpose(0, 1)?.reshape((1, to.0 * to.1, dim))?)
}

/// The resampling of one axis as a matrix `(to, from)`.
fn matrix(from: usize, to: usize, how: Resampling) -> Result<Tensor> {
    let mut weights = vec![0f32; to * from];
    let step = from as f32 / to as f32;
    for (target, row) in weights.chunks_mut(from).enumerate() {
        let center = step * (target as f32 + 0.5);
        match how {
            // Taps outside of the axis count for its last element.
            Resampling::Bicubic => {
                let first = (center - 0.5).floor();
                for tap in -1..=2 {
                    let at = first as isize + tap;
                    row[at.clamp(0, from as isize - 1) as usize] += cubic(center - 0.5 - at as f32, -0.75);
                }
            }
            // Taps outside are left out, and the others made to sum to one.
            Resampling::BicubicAntialias => {
                let stretch = step.max(1.0);
                let low = (center - 2.0 * stretch + 0.5).max(0.0) as usize;
                let high = ((center + 2.0 * stretch + 0.5) as usize).min(from);
                for (at, weight) in row.iter_mut().enumerate().take(high).skip(low) {
                    *weight = cubic((at as f32 + 0.5 - center) / stretch, -0.5);
                }
                let sum: f32 = row.iter().sum();
                for weight in row {
                    *weight /= sum;
                }
            }
        }
    }
    Ok(Tensor::from_vec(weights, (to, from), &Device::Cpu)?)
}

/// Keys' cubic kernel.
fn cubic(x: f32, a: f32) -> f32 {
    match x.abs() {
        x if x < 1.0 => ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0,
        x if x < 2.0 => (((x - 5.0) * x + 8.0) * x - 4.0) * a,
        _ => 0.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(values: &[f32], to: usize, how: Resampling) -> Vec<f32> {
        let grid = Tensor::from_slice(values, (1, values.len(), 1), &Device::Cpu).unwrap();
        resample(&grid, (1, values.len()), (1, to), how).unwrap().flatten_all().unwrap().to_vec1().unwrap()
    }

    fn close(found: &[f32], expected: &[f32]) {
        assert!(found.len() == expected.len() && found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-5), "{found:?}");
    }

    #[test]
    fn a_constant_stays_constant_and_the_same_grid_stays_itself() {
        for how in [Resampling::Bicubic, Resampling::BicubicAntialias] {
            close(&row(&[2.0; 5], 3, how), &[2.0; 3]);
            close(&row(&[2.0; 5], 8, how), &[2.0; 8]);
            assert_eq!(row(&[1.0, 5.0, 2.0], 3, how), [1.0, 5.0, 2.0]);
        }
    }

    #[test]
    fn borders_are_clamped_and_the_kernel_is_the_one_with_three_quarters() {
        // Both points lie half way between two of the four: weights -0.09375, 0.59375, 0.59375, -0.09375.
        close(&row(&[0.0, 1.0, 4.0, 9.0], 2, Resampling::Bicubic), &[0.21875, 6.78125]);
    }

    #[test]
    fn antialiased_values_are_those_of_pillow() {
        // Image.fromarray(numpy.float32([[0, 1, 4, 9, 16, 25, 36]])).resize((3, 1), Image.BICUBIC), and to (9, 1)
        close(&row(&[0.0, 1.0, 4.0, 9.0, 16.0, 25.0, 36.0], 3, Resampling::BicubicAntialias), &[0.677_419, 9.363_858, 28.064_516]);
        close(
            &row(&[0.0, 1.0, 4.0, 9.0, 16.0, 25.0, 36.0], 9, Resampling::BicubicAntialias),
            &[-0.047_337, 0.464_286, 2.086_42, 4.938_272, 9.0, 14.271_605, 20.753_086, 29.178_572, 36.520_71],
        );
    }
}
