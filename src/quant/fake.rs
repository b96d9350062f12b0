//! The fake-quantized arithmetic: every operand is quantized and dequantized, and products are made of floats.

use std::sync::Arc;

use candle_core::{D, Tensor};
use rayon::prelude::*;

use super::bits::BitWidth;
use super::fit::{Grouping, SiteQuantizers};
use super::pins::Pins;
use super::plan::{Plan, SitePlan};
use super::ranges;
use crate::error::Result;
use crate::model::{Site, Tap, Weight, kernels};
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

/// Quantizes and dequantizes every operand as the plan says, and shows each to `observe`.
pub(super) struct FakeQuantize<'p, F> {
    pub plan: &'p Plan,
    pub cancel: &'p Cancel,
    pub observe: F,
    pub pins: Pins<'p>,
}

impl<F: FnMut(&Observation) -> Result<()>> Tap for FakeQuantize<'_, F> {
    fn activation(&mut self, site: Site, x: Tensor) -> Result<Tensor> {
        self.cancel.check()?;
        let plan = self.plan.site(site)?;
        let (after, groupings) = match &plan.quantizers {
            Some(quantizers) if !plan.bits.is_float() => fake_quantize(site, &x, quantizers, plan.bits)?,
            _ => (x.clone(), Vec::new()),
        };
        if self.pins.freed() {
            return Ok(after);
        }
        (self.observe)(&Observation { plan, before: &x, after: &after, groupings: &groupings })?;
        Ok(after)
    }

    fn weight(&mut self, site: Site, weight: &Arc<Weight>) -> Result<Arc<Weight>> {
        self.plan.weight(site, weight)
    }

    fn proposals(&mut self, chosen: Tensor) -> Result<Tensor> {
        self.pins.proposals(chosen)
    }

    fn objects(&mut self, found: Tensor) -> Result<Option<Tensor>> {
        Ok(self.pins.objects(found))
    }

    fn frees(&mut self) -> bool {
        self.pins.free()
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
