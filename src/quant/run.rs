//! The quantized run: a [`Plan`] says what every site does under the settings, and [`run`] does it.

use std::sync::Arc;

use candle_core::{D, Tensor};
use rayon::prelude::*;

use super::bits::BitWidth;
use super::fit::{Grouping, SiteQuantizers};
use super::plan::{Plan, SitePlan};
use super::ranges;
use crate::error::Result;
use crate::model::{Network, Output, Site, Tap, Trace, Weight, forward_from, kernels, trace_from};
use crate::progress::Cancel;

/// What a quantized run did at one site, for the whole batch.
pub struct Observation<'r> {
    /// The site and its plan.
    pub plan: &'r SitePlan,
    /// The tensor just before its quantizer.
    pub before: &'r Tensor,
    /// The tensor just after it.
    pub after: &'r Tensor,
    /// The groups of each picture; empty where the site stays in float.
    pub groupings: &'r [Grouping],
}

/// Where a pass starts: at the pixels, or at a boundary that an earlier pass left.
#[derive(Debug, Clone, Copy)]
pub struct Start<'s> {
    step: usize,
    stream: &'s Tensor,
}

impl<'s> Start<'s> {
    /// At the pixels `(B, C, height, width)`.
    #[must_use]
    pub const fn pixels(pixels: &'s Tensor) -> Self {
        Self { step: 0, stream: pixels }
    }

    /// At the input of `step`, which is `stream`.
    #[must_use]
    pub const fn stream(step: usize, stream: &'s Tensor) -> Self {
        Self { step, stream }
    }

    pub(super) const fn step(self) -> usize {
        self.step
    }

    pub(super) const fn residual(self) -> &'s Tensor {
        self.stream
    }

    /// At the input of `step`, as `trace` left it.
    #[must_use]
    pub fn at(trace: &'s Trace, step: usize) -> Self {
        Self { step, stream: &trace.boundaries[step] }
    }
}

/// Runs `network` from `start` on as `plan` says. With [`run_observed`] and [`run_traced_observed`], which keep more, the only place that puts a
/// plan into a network.
///
/// # Errors
/// When the plan does not cover a site, or `cancel` was called.
pub fn run(network: &dyn Network, start: Start, plan: &Plan, cancel: &Cancel) -> Result<Output> {
    run_observed(network, start, plan, cancel, |_| Ok(()))
}

/// The same, showing every site to `observe`.
///
/// # Errors
/// As [`run`], and what `observe` returns.
pub fn run_observed<F>(network: &dyn Network, start: Start, plan: &Plan, cancel: &Cancel, observe: F) -> Result<Output>
where
    F: FnMut(&Observation) -> Result<()>,
{
    forward_from(network, start.step, start.stream, &mut FakeQuantize { plan, cancel, observe })
}

/// The same from the pixels on, keeping the residual stream at every boundary.
///
/// # Errors
/// As [`run`].
pub fn run_traced(network: &dyn Network, pixels: &Tensor, plan: &Plan, cancel: &Cancel) -> Result<Trace> {
    run_traced_observed(network, Start::pixels(pixels), plan, cancel, |_| Ok(()))
}

/// The same from `start` on, showing every site to `observe` and keeping the residual stream at every boundary from there on.
///
/// # Errors
/// As [`run`], and what `observe` returns.
pub fn run_traced_observed<F>(network: &dyn Network, start: Start, plan: &Plan, cancel: &Cancel, observe: F) -> Result<Trace>
where
    F: FnMut(&Observation) -> Result<()>,
{
    trace_from(network, start.step, start.stream, &mut FakeQuantize { plan, cancel, observe })
}

/// Quantizes and dequantizes every operand as the plan says, and shows each to `observe`.
struct FakeQuantize<'p, F> {
    plan: &'p Plan,
    cancel: &'p Cancel,
    observe: F,
}

impl<F: FnMut(&Observation) -> Result<()>> Tap for FakeQuantize<'_, F> {
    fn activation(&mut self, site: Site, x: Tensor) -> Result<Tensor> {
        self.cancel.check()?;
        let plan = self.plan.site(site)?;
        let (after, groupings) = match &plan.quantizers {
            Some(quantizers) if !plan.bits.is_float() => fake_quantize(site, &x, quantizers, plan.bits)?,
            _ => (x.clone(), Vec::new()),
        };
        (self.observe)(&Observation { plan, before: &x, after: &after, groupings: &groupings })?;
        Ok(after)
    }

    fn weight(&mut self, site: Site, weight: &Arc<Weight>) -> Result<Arc<Weight>> {
        self.plan.weight(site, weight)
    }

    fn checkpoint(&mut self) -> Result<()> {
        self.cancel.check()
    }
}

/// Groups, quantizes and dequantizes each picture of a batch by itself.
///
/// # Errors
/// Only when candle fails.
pub fn fake_quantize(site: Site, x: &Tensor, quantizers: &SiteQuantizers, bits: BitWidth) -> Result<(Tensor, Vec<Grouping>)> {
    let last = x.dim(D::Minus1)?;
    let (values, groupings) = kernels::with_values(x, |values| {
        let mut quantized = vec![0.0; values.len()];
        let picture = values.len() / x.dim(0)?;
        let each = |(values, quantized): (&[f32], &mut [f32])| fake_quantize_picture(site, values, quantized, last, quantizers, bits);
        let pictures = values.par_chunks(picture).zip(quantized.par_chunks_mut(picture));
        let groupings = pictures.map(each).collect::<Option<Vec<_>>>().unwrap_or_default();
        Ok::<_, crate::Error>((quantized, groupings))
    })??;
    Ok((Tensor::from_vec(values, x.dims(), x.device())?, groupings))
}

/// Groups, quantizes and dequantizes the values of one picture at a site into `quantized`; `last` is the last dimension: channels, or the
/// tokens of a softmax row. `None` for float bits, for which nothing is written.
pub fn fake_quantize_picture(
    site: Site,
    values: &[f32],
    quantized: &mut [f32],
    last: usize,
    quantizers: &SiteQuantizers,
    bits: BitWidth,
) -> Option<Grouping> {
    let grouping = group(site, values, last, quantizers, bits)?;
    grouping.apply(values, quantized, last);
    Some(grouping)
}

/// Groups the values of one picture at a site. `None` for float bits.
pub(super) fn group(site: Site, values: &[f32], last: usize, quantizers: &SiteQuantizers, bits: BitWidth) -> Option<Grouping> {
    let along = quantizers.along(site.kind);
    quantizers.group(ranges::of_picture(along, values, last), along, bits)
}
