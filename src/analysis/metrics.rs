//! Numbers about two tensors or two rankings (method, section 8). No state, no models.

use multiversion::multiversion;
use rayon::prelude::*;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::model::kernels::GRAIN;

/// How far `x^` is from `x`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ErrorNumbers {
    /// Mean of `(x - x^)^2`.
    pub mse: f64,
    /// `10 log10(sum x^2 / sum (x - x^)^2)` in dB; none where the two are equal.
    pub sqnr_db: Option<f64>,
    /// Cosine of the angle between the two; 1 where both are zero.
    pub cosine: f64,
    /// Largest `|x - x^|`.
    pub max_abs: f64,
}

impl ErrorNumbers {
    /// Compares `values` with what became of them; both of one length.
    #[must_use]
    pub fn between(values: &[f32], became: &[f32]) -> Self {
        let parts = values.par_chunks(GRAIN).zip(became.par_chunks(GRAIN));
        let sums: Vec<Sums> = parts.map(|(x, y)| Sums::of(x, y)).collect();
        // In the order of the values, however many threads there were.
        sums.into_iter().fold(Sums::default(), Sums::and).numbers(values.len())
    }
}

/// Sums over pairs of values.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Sums {
    xx: f64,
    yy: f64,
    xy: f64,
    ee: f64,
    max: f64,
}

/// The same eight times.
#[derive(Default)]
struct Lanes {
    xx: [f64; 8],
    yy: [f64; 8],
    xy: [f64; 8],
    ee: [f64; 8],
    max: [f64; 8],
}

impl Lanes {
    #[inline(always)]
    #[allow(clippy::inline_always)]
    fn add(&mut self, x: &[f32; 8], y: &[f32; 8]) {
        for i in 0..8 {
            let (x, y) = (f64::from(x[i]), f64::from(y[i]));
            let e = x - y;
            self.xx[i] += x * x;
            self.yy[i] += y * y;
            self.xy[i] += x * y;
            self.ee[i] += e * e;
            self.max[i] = if e.abs() > self.max[i] { e.abs() } else { self.max[i] };
        }
    }
}

#[multiversion(targets = "simd")]
fn lanes(values: &[f32], became: &[f32]) -> Lanes {
    let mut lanes = Lanes::default();
    let (xs, x_rest) = values.as_chunks::<8>();
    let (ys, y_rest) = became.as_chunks::<8>();
    for (x, y) in xs.iter().zip(ys) {
        lanes.add(x, y);
    }
    // Zeros add nothing.
    let (mut x, mut y) = ([0.0; 8], [0.0; 8]);
    let n = x_rest.len().min(y_rest.len());
    x[..n].copy_from_slice(&x_rest[..n]);
    y[..n].copy_from_slice(&y_rest[..n]);
    lanes.add(&x, &y);
    lanes
}

impl Sums {
    /// As many pairs side by side as a vector holds.
    pub fn of(values: &[f32], became: &[f32]) -> Self {
        let Lanes { xx, yy, xy, ee, max } = lanes(values, became);
        Self {
            xx: xx.iter().sum(),
            yy: yy.iter().sum(),
            xy: xy.iter().sum(),
            ee: ee.iter().sum(),
            max: max.into_iter().fold(0.0, f64::max),
        }
    }

    pub fn and(self, more: Self) -> Self {
        Self { xx: self.xx + more.xx, yy: self.yy + more.yy, xy: self.xy + more.xy, ee: self.ee + more.ee, max: self.max.max(more.max) }
    }

    /// What they say of `count` pairs.
    pub fn numbers(self, count: usize) -> ErrorNumbers {
        let Self { xx, yy, xy, ee, max } = self;
        let norm = (xx * yy).sqrt();
        ErrorNumbers {
            mse: if count == 0 { 0.0 } else { ee / count as f64 },
            sqnr_db: (ee > 0.0 && xx > 0.0).then(|| 10.0 * (xx / ee).log10()),
            cosine: if norm > 0.0 {
                (xy / norm).min(1.0)
            } else if xx == yy {
                1.0
            } else {
                0.0
            },
            max_abs: max,
        }
    }
}

/// Spearman's rank correlation, equal values sharing the mean of their ranks; none for fewer than three pairs or constant values.
#[must_use]
pub fn spearman(a: &[f64], b: &[f64]) -> Option<f64> {
    let ranks = |values: &[f64]| -> Vec<f64> {
        let mut order: Vec<usize> = (0..values.len()).collect();
        order.sort_by(|&i, &j| values[i].total_cmp(&values[j]));
        let mut ranks = vec![0.0; values.len()];
        let mut at = 0;
        for tied in order.chunk_by(|&i, &j| values[i] == values[j]) {
            let mean = at as f64 + (tied.len() - 1) as f64 / 2.0;
            for &i in tied {
                ranks[i] = mean;
            }
            at += tied.len();
        }
        ranks
    };
    if a.len() < 3 || a.len() != b.len() {
        return None;
    }
    let (a, b) = (ranks(a), ranks(b));
    let mean = (a.len() - 1) as f64 / 2.0;
    let product = |x: &[f64], y: &[f64]| x.iter().zip(y).map(|(x, y)| (x - mean) * (y - mean)).sum::<f64>();
    let norm = (product(&a, &a) * product(&b, &b)).sqrt();
    (norm > 0.0).then(|| product(&a, &b) / norm)
}

/// The mean of `values` and its 95 % interval by the bootstrap (percentiles of 1,000 resampled means, always the same); none of fewer than two.
#[must_use]
pub fn bootstrap_mean(values: &[f64]) -> Option<(f64, f64, f64)> {
    const RESAMPLES: usize = 1000;
    if values.len() < 2 {
        return None;
    }
    let mut random = fastrand::Rng::with_seed(0);
    let n = values.len() as f64;
    let mut means: Vec<f64> =
        (0..RESAMPLES).map(|_| (0..values.len()).map(|_| values[random.usize(..values.len())]).sum::<f64>() / n).collect();
    means.sort_unstable_by(f64::total_cmp);
    let at = |percent: f64| means[(percent * (RESAMPLES - 1) as f64).round() as usize];
    Some((values.iter().sum::<f64>() / n, at(0.025), at(0.975)))
}

/// Wilson's 95 % interval for `hits` of `trials`, as shares.
#[must_use]
pub fn wilson(hits: usize, trials: usize) -> (f64, f64) {
    if trials == 0 {
        return (0.0, 1.0);
    }
    let (z, n) = (1.959_963_984_540_054_f64, trials as f64);
    let p = hits as f64 / n;
    let centre = p + z * z / (2.0 * n);
    let spread = z * (p * (1.0 - p) / n + z * z / (4.0 * n * n)).sqrt();
    let scale = 1.0 + z * z / n;
    (((centre - spread) / scale).max(0.0), ((centre + spread) / scale).min(1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hand_computed_errors() {
        let e = ErrorNumbers::between(&[3.0, 4.0], &[3.0, 3.0]);
        assert_eq!((e.mse, e.max_abs), (0.5, 1.0));
        assert!((e.sqnr_db.unwrap() - 10.0 * 25.0_f64.log10()).abs() < 1e-12);
        assert!((e.cosine - 21.0 / (5.0 * 18.0_f64.sqrt())).abs() < 1e-12);
        assert_eq!(ErrorNumbers::between(&[1.0], &[1.0]).sqnr_db, None);
    }

    #[test]
    fn rank_correlations_by_hand() {
        assert_eq!(spearman(&[1.0, 2.0, 3.0], &[10.0, 20.0, 90.0]), Some(1.0));
        assert_eq!(spearman(&[1.0, 2.0, 3.0], &[3.0, 2.0, 1.0]), Some(-1.0));
        // Ranks 0, 1.5, 1.5, 3 against 0, 1, 2, 3: 4.5 / sqrt(4.5 * 5).
        let tied = spearman(&[1.0, 2.0, 2.0, 3.0], &[1.0, 2.0, 3.0, 4.0]).unwrap();
        assert!((tied - 4.5 / 22.5_f64.sqrt()).abs() < 1e-12);
        assert_eq!(spearman(&[1.0, 1.0, 1.0], &[1.0, 2.0, 3.0]), None);
        assert_eq!(spearman(&[1.0], &[1.0]), None);
    }

    #[test]
    fn the_bootstrap_interval_of_a_mean_is_near_the_normal_one() {
        let mut random = fastrand::Rng::with_seed(4);
        let values: Vec<f64> = (0..400).map(|_| random.f64() + random.f64()).collect();
        let (mean, low, high) = bootstrap_mean(&values).unwrap();
        let sd = (values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / 399.0).sqrt();
        let half = 1.96 * sd / 20.0;
        assert!((low - (mean - half)).abs() < 0.2 * half && (high - (mean + half)).abs() < 0.2 * half, "{mean} {low} {high} {half}");
        assert_eq!(bootstrap_mean(&[1.0]), None);
    }

    #[test]
    fn the_interval_is_the_textbook_one() {
        // Wilson interval of 90 of 100: 0.8256 to 0.9448.
        let (low, high) = wilson(90, 100);
        assert!((low - 0.8256).abs() < 1e-4 && (high - 0.9448).abs() < 1e-4, "{low} {high}");
        assert_eq!(wilson(0, 0), (0.0, 1.0));
    }
}
