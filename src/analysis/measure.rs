//! From a float run and a quantized run to the numbers of section 8.

use std::collections::BTreeMap;

use candle_core::{D, Tensor};
use rayon::prelude::*;

use super::codes::Met;
use super::metrics::ErrorNumbers;
use super::report::{LocalError, QuantizerReport, RangesReport, SiteReport, WeightReport};
use super::runs::{FloatRun, QuantizedRun, SiteRun};
use crate::error::Result;
use crate::model::{Network, Site, kernels};
use crate::progress::Cancel;
use crate::quant::bops::SiteBops;
use crate::quant::ranges::{self, Along};
use crate::quant::{Grouping, Plan, SitePlan};

/// Every site of a quantized run against the float run, in the order of `bops`.
///
/// # Errors
/// When `cancel` was called.
pub fn sites(
    network: &dyn Network,
    plan: &Plan,
    bops: &[(Site, SiteBops)],
    float: &FloatRun,
    quantized: &QuantizedRun,
    cancel: &Cancel,
) -> Result<Vec<SiteReport>> {
    let measured = |(site, bops): &&(Site, SiteBops)| {
        if let Err(cancelled) = cancel.check() {
            return Some(Err(cancelled));
        }
        let planned = plan.sites.get(site)?;
        let report = || {
            let run = quantized.at(network, plan, *site, cancel)?;
            measure(planned, &float.at(network, planned.info.step, *site)?, &run)
        };
        Some(report().map(|report| SiteReport { bops: *bops, ..report }))
    };
    // What has to be computed again is large: one at a time.
    let (kept, again): (Vec<_>, Vec<_>) = bops.iter().partition(|(site, _)| quantized.sites.contains_key(site));
    let mut reports = kept.par_iter().filter_map(measured).collect::<Result<Vec<_>>>()?;
    reports.extend(again.iter().filter_map(measured).collect::<Result<Vec<_>>>()?);
    let place: BTreeMap<Site, usize> = bops.iter().enumerate().map(|(place, (site, _))| (*site, place)).collect();
    reports.sort_by_key(|report| place.get(&report.site));
    Ok(reports)
}

fn measure(plan: &SitePlan, float: &Tensor, run: &SiteRun) -> Result<SiteReport> {
    let info = &plan.info;
    let last = run.before.dim(D::Minus1)?;
    let (local, cumulative, quantizers) = if let Some(grouping) = &run.grouping {
        codes(grouping, run, float, last)?
    } else {
        let error = between(&run.before, &run.after)?;
        (LocalError { error, rmse_over_step: 0.0, clipped: 0.0, codes_used: 0.0 }, between(float, &run.after)?, Vec::new())
    };
    let ranges = match &run.grouping {
        Some(grouping) => grouping.ranges.clone(),
        None => kernels::with_values(&run.before, |values| ranges::of_picture(Along::of(info.site.kind), values, last))?,
    };
    Ok(SiteReport {
        site: info.site,
        kind: info.site.kind,
        layer: info.layer.as_ref().map(|l| l.name.clone()),
        bits: plan.bits,
        groups: quantizers.len(),
        channels: info.channels,
        tokens: info.tokens,
        bops: SiteBops::default(),
        layout: info.layout,
        local,
        cumulative,
        quantizers,
        assignment: run.grouping.as_ref().map(|g| g.assignment.clone()).unwrap_or_default(),
        ranges: RangesReport { min: ranges.iter().map(|r| r.lower).collect(), max: ranges.iter().map(|r| r.upper).collect() },
        weight: plan.weight.as_ref().map(|w| WeightReport {
            bits: w.bits(),
            shrink: w.shrink,
            effective_bits: w.scheme.effective_bits(w.size.1),
            mse: w.mse,
            sqnr_db: Some(w.sqnr).filter(|s| s.is_finite()),
        }),
        only_this: None,
    })
}

fn between(values: &Tensor, became: &Tensor) -> Result<ErrorNumbers> {
    kernels::with_values(values, |values| kernels::with_values(became, |became| ErrorNumbers::between(values, became)))?
}

/// What the groups' quantizers met, and the errors just around them and against the float run.
fn codes(grouping: &Grouping, run: &SiteRun, float: &Tensor, last: usize) -> Result<(LocalError, ErrorNumbers, Vec<QuantizerReport>)> {
    let met = kernels::with_values(&run.before, |before| {
        kernels::with_values(&run.after, |after| kernels::with_values(float, |float| Met::new(grouping, before, after, float, last)))
    })???;
    let mut members = vec![0_usize; grouping.quantizers.len()];
    for &group in &grouping.assignment {
        members[usize::from(group)] += 1;
    }
    let share = |part: usize, whole: usize| if whole == 0 { 0.0 } else { part as f64 / whole as f64 };
    let quantizers: Vec<QuantizerReport> = grouping
        .quantizers
        .iter()
        .enumerate()
        .map(|(group, q)| QuantizerReport {
            lower: q.bounds().lower,
            upper: q.bounds().upper,
            scale: q.scale(),
            zero_point: q.zero_point(),
            members: members[group],
            clipped: share(met.clipped[group], met.values[group]),
            codes_used: met.used_by(group),
        })
        .collect();
    let inhabited = members.iter().filter(|m| **m > 0).count();
    let values = run.before.elem_count();
    let local = LocalError {
        error: met.local.numbers(values),
        rmse_over_step: (met.squared_steps / values.max(1) as f64).sqrt(),
        clipped: share(met.clipped.iter().sum(), values),
        codes_used: share(quantizers.iter().map(|q| q.codes_used).sum(), inhabited * met.codes),
    };
    Ok((local, met.cumulative.numbers(values), quantizers))
}
