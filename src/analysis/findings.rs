//! Plain-language verdicts: sentences made of a report's numbers, never of anything else.

use super::report::{Blame, PredictionReport, Report, SiteReport};
use crate::model::Site;
use crate::number::short;

/// What became of the prediction, and the site with the lowest local SQNR with the likeliest reason: what is known before the sweep.
#[must_use]
pub fn verdict(prediction: &PredictionReport, sites: &[SiteReport]) -> String {
    let Some(fate) = fate(prediction) else { return "The model has no classes.".into() };
    match worst(sites) {
        Some(site) => format!("{fate} {} has the lowest local SQNR ({}): {}.", site.site, decibels(site), reason(site)),
        None => match worst_weight(sites) {
            Some((site, sqnr)) => format!("{fate} Only weights are quantized; that of {} has the lowest SQNR ({sqnr:.1} dB).", site.site),
            None => format!("{fate} Nothing is quantized."),
        },
    }
}

fn fate(prediction: &PredictionReport) -> Option<String> {
    if let Some(objects) = &prediction.objects {
        return Some(objects.describe());
    }
    let (float, quantized) = (prediction.float.first()?, prediction.quantized.first()?);
    let (before, after) = (float.probability * 100.0, quantized.probability * 100.0);
    Some(if prediction.flipped {
        format!("Flipped from {} ({before:.0} %) to {} ({after:.0} %).", float.label, quantized.label)
    } else {
        format!("Still {} ({after:.0} % from {before:.0} %).", quantized.label)
    })
}

fn decibels(site: &SiteReport) -> String {
    format!("{:.1} dB", site.local.error.sqnr_db.unwrap_or_default())
}

/// The verdict once the sweep is through: which part is to blame, which single site is worth leaving in float, and whether errors compound. Every
/// number is that of a run of this picture. The verdict from before where no runs were made.
#[must_use]
pub fn verdict_after_sweep(report: &Report) -> String {
    let (Some(blame), Some(fate)) = (&report.blame, fate(&report.prediction)) else { return report.verdict.clone() };
    let kl = report.prediction.kl;
    if kl == 0.0 {
        return format!("{fate} Nothing was lost.");
    }
    let Blame { weights, activations, softmax, .. } = *blame;
    let [all, weights, activations, softmax] = [kl, weights, activations, softmax].map(short);
    let parts = format!("KL {all}; alone: weights {weights}, activations {activations}, softmax {softmax}.");
    let sum: f64 = report.sites.iter().filter_map(|s| s.only_this).map(|only| only.kl).sum();
    let sum = match sum / kl {
        share if share < 0.5 => format!(" Errors compound (single sites sum to {}).", short(sum)),
        share if share > 2.0 => format!(" Errors cancel (single sites sum to {}).", short(sum)),
        _ => String::new(),
    };
    let best = blame.repaired.iter().min_by(|a, b| a.kl.total_cmp(&b.kl)).filter(|best| best.kl < kl);
    let site = match best.and_then(|best| Some((best, report.site(best.site)?))) {
        Some((best, site)) => format!(" {} in float: {} ({}; {}).", best.site, short(best.kl), decibels(site), reason(site)),
        None if blame.repaired.is_empty() => String::new(),
        None => format!(" None of the {} costliest sites in float lowers it.", blame.repaired.len()),
    };
    format!("{fate} {parts}{sum}{site}")
}

/// The site that costs the prediction most: the one whose repair helps most, else the one that costs most by itself as far as that is known, else
/// the one with the lowest local SQNR.
#[must_use]
pub fn costliest(report: &Report) -> Option<Site> {
    let repaired = report.blame.iter().flat_map(|blame| &blame.repaired).min_by(|a, b| a.kl.total_cmp(&b.kl)).map(|best| best.site);
    repaired.or_else(|| by_cost(&report.sites).first().copied()).or_else(|| worst(&report.sites).map(|site| site.site))
}

/// Sites whose cost by themselves is known, the costliest first.
#[must_use]
pub fn by_cost(sites: &[SiteReport]) -> Vec<Site> {
    let mut known: Vec<(f64, Site)> = sites.iter().filter_map(|s| Some((s.only_this?.kl, s.site))).collect();
    known.sort_by(|a, b| b.0.total_cmp(&a.0));
    known.into_iter().map(|(_, site)| site).collect()
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

/// The likeliest reason for the error at a site.
fn reason(site: &SiteReport) -> String {
    let what = if site.kind.is_softmax() { "row" } else { "channel" };
    let mut widths: Vec<f32> = site.ranges.min.iter().zip(&site.ranges.max).map(|(l, u)| u - l).collect();
    widths.sort_by(f32::total_cmp);
    let (median, widest) = (widths[widths.len() / 2], widths[widths.len() - 1]);
    if site.local.rmse_over_step > 0.4 && site.local.clipped > 0.005 {
        format!(
            "{:.1} % of its values clipped, RMSE/step {:.2} (rounding alone 0.29)",
            site.local.clipped * 100.0,
            site.local.rmse_over_step
        )
    } else if median > 0.0 && widest / median > 3.0 {
        format!("its widest {what} spans {:.1} times the median {what}", widest / median)
    } else {
        format!("at {} bits it uses {:.0} % of its codes", site.bits, site.local.codes_used * 100.0)
    }
}
