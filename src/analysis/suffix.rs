//! Runs that start in the middle, over a set of pictures: the float pass is kept at every boundary, and what a plan does to the
//! predictions is computed from the step that holds the changed site on, never from the pixels.

use candle_core::Tensor;
use rayon::prelude::*;
use schemars::JsonSchema;
use serde::Serialize;

use super::metrics;
use super::report::Sensitivity;
use super::runs::FloatRun;
use crate::error::Result;
use crate::model::{Network, Site, SiteInfo, Trace, forward_from, trace};
use crate::progress::Cancel;
use crate::quant::{FakeQuantize, Plan, unobserved};

/// Pictures that run together: few, so that their operands stay in the caches, and parts run side by side.
const PART: usize = 8;

/// Batches of pictures cut into parts of at most `size`.
///
/// # Errors
/// Only when candle fails.
pub fn parts(batches: &[Tensor], size: usize) -> Result<Vec<Tensor>> {
    let mut parts = Vec::new();
    for batch in batches {
        let pictures = batch.dim(0)?;
        for start in (0..pictures).step_by(size) {
            parts.push(batch.narrow(0, start, size.min(pictures - start))?.contiguous()?);
        }
    }
    Ok(parts)
}

/// What a plan does to the predictions of a set of pictures.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, JsonSchema)]
pub struct Effect {
    /// Mean of `KL(p_float || p_quantized)` over the pictures, in nats.
    pub kl: f64,
    /// Number of pictures whose most likely class changed.
    pub flips: usize,
}

/// The float runs of a set of pictures, kept at every boundary.
#[derive(Debug, Clone)]
pub struct Reference {
    traces: Vec<Trace>,
    logits: Vec<Vec<f32>>,
}

impl Reference {
    /// Runs the float network over batches of pictures `(B, C, height, width)`.
    ///
    /// # Errors
    /// When a batch has the wrong shape, or `cancel` was called.
    pub fn new(network: &dyn Network, sites: &[SiteInfo], batches: &[Tensor], cancel: &Cancel) -> Result<Self> {
        let float = Plan::float(sites);
        let parts = parts(batches, PART)?;
        let run = |part: &Tensor| trace(network, part, &mut FakeQuantize::new(&float, cancel, unobserved));
        let traces = parts.par_iter().map(run).collect::<Result<Vec<_>>>()?;
        let logits = Self::logits_of(&traces)?;
        Ok(Self { traces, logits })
    }

    /// The logits of traces, a row for each picture.
    ///
    /// # Errors
    /// Only when candle fails.
    pub fn logits_of(traces: &[Trace]) -> Result<Vec<Vec<f32>>> {
        Ok(traces.iter().map(|t| Ok(t.logits.to_vec2::<f32>()?)).collect::<Result<Vec<_>>>()?.concat())
    }

    /// Number of pictures.
    #[must_use]
    pub const fn images(&self) -> usize {
        self.logits.len()
    }

    /// Float logits, a row for each picture.
    #[must_use]
    pub fn logits(&self) -> &[Vec<f32>] {
        &self.logits
    }

    /// The float runs, one for each batch.
    #[must_use]
    pub fn traces(&self) -> &[Trace] {
        &self.traces
    }

    /// The same pictures under a plan, kept at every boundary.
    ///
    /// # Errors
    /// When `cancel` was called.
    pub fn under(&self, network: &dyn Network, plan: &Plan, cancel: &Cancel) -> Result<Vec<Trace>> {
        let run = |float: &Trace| trace(network, &float.boundaries[0], &mut FakeQuantize::new(plan, cancel, unobserved));
        self.traces.par_iter().map(run).collect()
    }

    /// What `plan` does from step `first` on, when everything before it ran as in `before` (one trace a batch).
    ///
    /// # Errors
    /// When `cancel` was called.
    pub fn effect(&self, network: &dyn Network, before: &[Trace], first: usize, plan: &Plan, cancel: &Cancel) -> Result<Effect> {
        let run = |trace: &Trace| {
            let tap = &mut FakeQuantize::new(plan, cancel, unobserved);
            Ok(forward_from(network, first, &trace.boundaries[first], tap)?.to_vec2::<f32>()?)
        };
        let logits = before.par_iter().map(run).collect::<Result<Vec<_>>>()?.concat();
        Ok(self.compare(&logits))
    }

    /// What `plan` does to the float predictions as a whole.
    ///
    /// # Errors
    /// When `cancel` was called.
    pub fn effect_of(&self, network: &dyn Network, plan: &Plan, cancel: &Cancel) -> Result<Effect> {
        self.effect(network, &self.traces, 0, plan, cancel)
    }

    /// Other logits of the same pictures against the float ones.
    #[must_use]
    pub fn compare(&self, logits: &[Vec<f32>]) -> Effect {
        let pairs = || self.logits.iter().zip(logits);
        let kl = pairs().map(|(float, other)| metrics::kl(float, other)).sum::<f64>() / self.images().max(1) as f64;
        Effect { kl, flips: pairs().filter(|(float, other)| metrics::argmax(float) != metrics::argmax(other)).count() }
    }
}

/// The prediction with only `site` quantized as `plan` says, against float; `None` where `plan` leaves it in float.
///
/// # Errors
/// When the run was cancelled.
pub fn only_this(network: &dyn Network, plan: &Plan, float: &FloatRun, site: Site, cancel: &Cancel) -> Result<Option<Sensitivity>> {
    let Some(site_plan) = plan.sites.get(&site).filter(|s| s.is_quantized()) else {
        return Ok(None);
    };
    let alone = plan.only(site);
    let step = site_plan.info.step;
    let tap = &mut FakeQuantize::new(&alone, cancel, unobserved);
    let logits = forward_from(network, step, &float.trace.boundaries[step], tap)?.flatten_all()?.to_vec1::<f32>()?;
    let kl = metrics::kl(&float.logits, &logits);
    Ok(Some(Sensitivity { kl, flipped: metrics::argmax(&float.logits) != metrics::argmax(&logits) }))
}
