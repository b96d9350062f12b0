//! The published quantizers of another shape, fitted to a sample of calibration values: log2 (FQ-ViT) and log-sqrt2 (RepQ-ViT) for the
//! softmax, twin uniform (PTQ4ViT) for the softmax and for what follows GELU.

use crate::quant::bits::BitWidth;
use crate::quant::fit::SiteQuantizers;
use crate::quant::quantizer::{LogQuantizer, Quantizer, TwinQuantizer};
use crate::quant::uniform::percentile;

/// Levels at powers of 2 (`per_octave` 1, scale 1) or of its root, whose scale is fitted.
pub(super) fn log(sample: &[f32], per_octave: u8, bits: BitWidth) -> Option<SiteQuantizers> {
    let quantizer = if per_octave == 1 { LogQuantizer::new(1.0, 1, bits) } else { log_scale(sample, per_octave, bits) };
    quantizer.map(Quantizer::Log).map(SiteQuantizers::one)
}

/// Two uniform ranges; only the softmax is never negative.
pub(super) fn twin(sample: &[f32], bits: BitWidth) -> Option<SiteQuantizers> {
    let after_gelu = sample.iter().any(|x| *x < 0.0);
    let quantizer = if after_gelu { TwinQuantizer::for_gelu(sample, bits) } else { TwinQuantizer::for_softmax(sample, bits) };
    quantizer.map(Quantizer::Twin).map(SiteQuantizers::one)
}

/// The log quantizer whose largest level is the percentile of `sample` with the least squared error; the percentiles are those of the
/// code released with RepQ-ViT.
fn log_scale(sample: &[f32], per_octave: u8, bits: BitWidth) -> Option<LogQuantizer> {
    let mut sorted = sample.to_vec();
    sorted.sort_unstable_by(f32::total_cmp);
    let error = |q: &Quantizer| sample.iter().map(|&x| f64::from(x - q.apply(x)).powi(2)).sum::<f64>();
    let tried = [99.9, 99.99, 99.999].map(|percent| percentile(&sorted, percent).max(f32::MIN_POSITIVE));
    let quantizers = tried.into_iter().filter_map(|scale| LogQuantizer::new(scale, per_octave, bits));
    quantizers.min_by(|a, b| error(&Quantizer::Log(*a)).total_cmp(&error(&Quantizer::Log(*b))))
}
