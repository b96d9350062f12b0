//! Smoothing: the input of a layer behind a norm is divided channel by channel by `s_c = sqrt(r_c / w_c)`, where `r_c` is the largest
//! magnitude of the channel over the calibration pictures and `w_c` the largest of its weights; the norm and the weight absorb the
//! factors, so that the network computes what it did (SmoothQuant, Xiao et al., ICML 2023, arXiv 2211.10438, with alpha 0.5).

use super::calibrate::Calibration;
use crate::model::Site;

/// The factors of one site; `None` where it was not calibrated. Channels that are always zero, or have no weight, stay as they are.
#[must_use]
pub fn factors(calibration: &Calibration, site: Site, largest_weights: &[f32]) -> Option<Vec<f32>> {
    let ranges = calibration.sites.get(&site)?.merged();
    let factor = |(range, &weight): (&super::uniform::Bounds, &f32)| {
        let factor = (range.lower.abs().max(range.upper.abs()) / weight).sqrt();
        if factor.is_normal() { factor } else { 1.0 }
    };
    (ranges.len() == largest_weights.len()).then(|| ranges.iter().zip(largest_weights).map(factor).collect())
}
