//! Plain-language verdicts: one sentence made of a report's numbers, never of anything else.

use super::report::{PredictionReport, SiteReport};

/// What became of the prediction, and the site with the lowest local SQNR with the likeliest reason.
#[must_use]
pub fn verdict(prediction: &PredictionReport, sites: &[SiteReport]) -> String {
    let (Some(float), Some(quantized)) = (prediction.float.first(), prediction.quantized.first()) else {
        return "The model has no classes.".into();
    };
    let fate = if prediction.flipped {
        format!(
            "Flipped from {} ({:.0} %) to {} ({:.0} %).",
            float.label,
            float.probability * 100.0,
            quantized.label,
            quantized.probability * 100.0
        )
    } else {
        format!("Still {} ({:.0} % from {:.0} %).", quantized.label, quantized.probability * 100.0, float.probability * 100.0)
    };
    match worst(sites) {
        Some(site) => format!("{fate} {}", blame(site)),
        None => match worst_weight(sites) {
            Some((site, sqnr)) => format!("{fate} Only weights are quantized; that of {} has the lowest SQNR ({sqnr:.1} dB).", site.site),
            None => format!("{fate} Nothing is quantized."),
        },
    }
}

/// The quantized site with the lowest local SQNR.
#[must_use]
pub fn worst(sites: &[SiteReport]) -> Option<&SiteReport> {
    let quantized = sites.iter().filter(|s| s.local.error.sqnr_db.is_some());
    quantized.min_by(|a, b| a.local.error.sqnr_db.unwrap_or(f64::MAX).total_cmp(&b.local.error.sqnr_db.unwrap_or(f64::MAX)))
}

/// The layer whose weight has the lowest SQNR.
fn worst_weight(sites: &[SiteReport]) -> Option<(&SiteReport, f64)> {
    let weights = sites.iter().filter_map(|s| Some((s, s.weight?.sqnr_db?)));
    weights.min_by(|a, b| a.1.total_cmp(&b.1))
}

fn blame(site: &SiteReport) -> String {
    let sqnr = site.local.error.sqnr_db.unwrap_or_default();
    let what = if site.kind.is_softmax() { "row" } else { "channel" };
    let mut widths: Vec<f32> = site.ranges.min.iter().zip(&site.ranges.max).map(|(l, u)| u - l).collect();
    widths.sort_by(f32::total_cmp);
    let (median, widest) = (widths[widths.len() / 2], widths[widths.len() - 1]);
    let reason = if site.local.rmse_over_step > 0.4 && site.local.clipped > 0.005 {
        format!(
            "{:.1} % of its values clipped, RMSE/step {:.2} (rounding alone 0.29)",
            site.local.clipped * 100.0,
            site.local.rmse_over_step
        )
    } else if median > 0.0 && widest / median > 3.0 {
        format!("its widest {what} spans {:.1} times the median {what}", widest / median)
    } else {
        format!("at {} bits it uses {:.0} % of its codes", site.bits, site.local.codes_used * 100.0)
    };
    format!("{} has the lowest local SQNR ({sqnr:.1} dB): {reason}.", site.site)
}
