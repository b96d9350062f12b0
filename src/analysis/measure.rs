//! From a float run and a quantized run to the numbers of section 8.

use rayon::prelude::*;

use super::metrics::ErrorNumbers;
use super::report::{LocalError, QuantizerReport, RangesReport, SiteReport, WeightReport};
use super::runs::{FloatRun, QuantizedRun, SiteRun};
use crate::model::Site;
use crate::quant::bops::SiteBops;
use crate::quant::ranges::{self, Along};
use crate::quant::{Grouping, Plan, Quantizer, SitePlan};

/// Every site of a quantized run against the float run, in the order of `bops`.
#[must_use]
pub fn sites(plan: &Plan, bops: &[(Site, SiteBops)], float: &FloatRun, quantized: &QuantizedRun) -> Vec<SiteReport> {
    let measured = |(site, bops): &(Site, SiteBops)| {
        let report = measure(plan.sites.get(site)?, float.sites.get(site)?, quantized.sites.get(site)?);
        Some(SiteReport { bops: *bops, ..report })
    };
    bops.par_iter().filter_map(measured).collect()
}

fn measure(plan: &SitePlan, float: &[f32], run: &SiteRun) -> SiteReport {
    let info = &plan.info;
    let error = ErrorNumbers::between(&run.before, &run.after);
    let (local, quantizers) = match &run.grouping {
        Some(grouping) => codes(grouping, run, error),
        None => (LocalError { error, rmse_over_step: 0.0, clipped: 0.0, codes_used: 0.0 }, Vec::new()),
    };
    let ranges = match &run.grouping {
        Some(grouping) => grouping.ranges.clone(),
        None => ranges::of_picture(Along::of(info.site.kind), &run.before, run.shape.last().copied().unwrap_or(1)),
    };
    SiteReport {
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
        cumulative: ErrorNumbers::between(float, &run.after),
        quantizers,
        assignment: run.grouping.as_ref().map(|g| g.assignment.clone()).unwrap_or_default(),
        ranges: RangesReport { min: ranges.iter().map(|r| r.lower).collect(), max: ranges.iter().map(|r| r.upper).collect() },
        weight: plan.weight.as_ref().map(|w| WeightReport {
            bits: w.bits(),
            epsilon: w.epsilon,
            mse: w.mse,
            sqnr_db: Some(w.sqnr).filter(|s| s.is_finite()),
        }),
        only_this: None,
    }
}

/// What the groups' quantizers met: members, clipping, codes, error in steps.
fn codes(grouping: &Grouping, run: &SiteRun, error: ErrorNumbers) -> (LocalError, Vec<QuantizerReport>) {
    let groups = grouping.quantizers.len();
    let codes = grouping.quantizers.first().map_or(0, Quantizer::codes);
    let mut seen = vec![false; groups * codes];
    let mut clipped = vec![0_usize; groups];
    let mut values = vec![0_usize; groups];
    let mut members = vec![0_usize; groups];
    for &group in &grouping.assignment {
        members[usize::from(group)] += 1;
    }
    let by_row = grouping.along.is_rows();
    let columns = if by_row { run.before.len() / grouping.assignment.len() } else { grouping.assignment.len() };
    let mut squared_steps = 0.0;
    for (row, (before, after)) in run.before.chunks_exact(columns).zip(run.after.chunks_exact(columns)).enumerate() {
        for (column, (&x, &y)) in before.iter().zip(after).enumerate() {
            let group = usize::from(grouping.assignment[if by_row { row } else { column }]);
            let quantizer = &grouping.quantizers[group];
            let (code, was_clipped) = quantizer.code(x);
            seen[group * codes + code as usize] = true;
            clipped[group] += usize::from(was_clipped);
            values[group] += 1;
            if let Some(step) = quantizer.step_at(x) {
                squared_steps += (f64::from(x - y) / f64::from(step)).powi(2);
            }
        }
    }
    let share = |part: usize, whole: usize| if whole == 0 { 0.0 } else { part as f64 / whole as f64 };
    let used = |group: usize| seen[group * codes..(group + 1) * codes].iter().filter(|s| **s).count();
    let quantizers = grouping.quantizers.iter().enumerate().map(|(group, q)| QuantizerReport {
        lower: q.bounds().lower,
        upper: q.bounds().upper,
        scale: q.scale(),
        zero_point: q.zero_point(),
        members: members[group],
        clipped: share(clipped[group], values[group]),
        codes_used: used(group),
    });
    let inhabited = members.iter().filter(|m| **m > 0).count();
    let local = LocalError {
        error,
        rmse_over_step: (squared_steps / run.before.len().max(1) as f64).sqrt(),
        clipped: share(clipped.iter().sum(), run.before.len()),
        codes_used: share((0..groups).map(used).sum(), inhabited * codes),
    };
    (local, quantizers.collect())
}
