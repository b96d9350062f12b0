//! Runs that start in the middle, over a set of pictures: the float pass is kept at every boundary, and what a plan does to the
//! predictions is computed from the step that holds the changed site on, never from the pixels.

use candle_core::Tensor;
use rayon::prelude::*;

use super::prediction::{Divergence, Prediction};
use super::report::Sensitivity;
use super::runs::FloatRun;
use crate::error::Result;
use crate::model::{Network, Part, Site, SiteInfo, Trace};
use crate::progress::Cancel;
use crate::quant::Plan;
use crate::quant::run::{Start, run, run_traced};

/// The float runs of a set of pictures, kept at every boundary.
#[derive(Debug, Clone)]
pub struct Reference {
    traces: Vec<Trace>,
    predictions: Vec<Prediction>,
}

impl Reference {
    /// Runs the float network over batches of pictures `(B, C, height, width)`.
    ///
    /// # Errors
    /// When a batch has the wrong shape, or `cancel` was called.
    pub fn new(network: &dyn Network, sites: &[SiteInfo], batches: &[Tensor], cancel: &Cancel) -> Result<Self> {
        let float = Plan::float(sites);
        let run = |part: &Tensor| run_traced(network, Start::pixels(part), &float, cancel);
        let traces = batches.par_iter().map(run).collect::<Result<Vec<_>>>()?;
        let predictions = Self::predictions_of(&traces)?;
        Ok(Self { traces, predictions })
    }

    /// Those of the first `images` pictures, one by one.
    ///
    /// # Errors
    /// When `cancel` was called.
    pub fn first(&self, network: &dyn Network, sites: &[SiteInfo], images: usize, cancel: &Cancel) -> Result<Self> {
        if self.images() <= images {
            return Ok(self.clone());
        }
        let mut pixels = Vec::with_capacity(images);
        for trace in &self.traces {
            for index in 0..trace.boundaries[0].dim(0)?.min(images - pixels.len()) {
                pixels.push(trace.boundaries[0].narrow(0, index, 1)?.contiguous()?);
            }
        }
        Self::new(network, sites, &pixels, cancel)
    }

    /// What traces say, a prediction for each picture.
    ///
    /// # Errors
    /// Only when candle fails.
    pub fn predictions_of(traces: &[Trace]) -> Result<Vec<Prediction>> {
        Ok(traces.iter().map(|trace| Prediction::of(&trace.output)).collect::<Result<Vec<_>>>()?.concat())
    }

    /// Number of pictures.
    #[must_use]
    pub const fn images(&self) -> usize {
        self.predictions.len()
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
        let run = |float: &Trace| run_traced(network, Start::at(float, 0), plan, cancel);
        self.traces.par_iter().map(run).collect()
    }

    /// What `plan` does to every picture from step `first` on, when everything before it ran as in `before` (one trace a batch).
    ///
    /// # Errors
    /// When `cancel` was called.
    pub fn each(&self, network: &dyn Network, before: &[Trace], first: usize, plan: &Plan, cancel: &Cancel) -> Result<Vec<Divergence>> {
        // What is seen comes of a second pass from the first stage on, which a run that starts behind it does not have.
        let first = network.branch().map_or(first, |branch| first.min(branch));
        let run = |trace: &Trace| Prediction::of(&run(network, Start::at(trace, first), plan, cancel)?);
        let predictions = before.par_iter().map(run).collect::<Result<Vec<_>>>()?.concat();
        Ok(self.compare_each(&predictions))
    }

    /// The mean KL alone, for which a detector runs once and makes no masks.
    ///
    /// # Errors
    /// When `cancel` was called.
    pub fn kl(&self, network: &dyn Network, before: &[Trace], first: usize, plan: &Plan, cancel: &Cancel) -> Result<f64> {
        let run = |trace: &Trace| Prediction::of(&run(network, Start::at(trace, first).for_kl(), plan, cancel)?);
        let predictions = before.par_iter().map(run).collect::<Result<Vec<_>>>()?.concat();
        let each = predictions.iter().zip(&self.predictions).map(|(this, float)| this.kl(float));
        Ok(each.sum::<f64>() / self.images().max(1) as f64)
    }

    /// The mean of [`Self::each`].
    ///
    /// # Errors
    /// When `cancel` was called.
    pub fn effect(&self, network: &dyn Network, before: &[Trace], first: usize, plan: &Plan, cancel: &Cancel) -> Result<Divergence> {
        Ok(Divergence::mean(self.each(network, before, first, plan, cancel)?))
    }

    /// What `plan` does to the float predictions as a whole.
    ///
    /// # Errors
    /// When `cancel` was called.
    pub fn effect_of(&self, network: &dyn Network, plan: &Plan, cancel: &Cancel) -> Result<Divergence> {
        self.effect(network, &self.traces, 0, plan, cancel)
    }

    /// Other predictions of the same pictures against the float ones.
    #[must_use]
    pub fn compare_each(&self, predictions: &[Prediction]) -> Vec<Divergence> {
        predictions.iter().zip(&self.predictions).map(|(this, float)| this.against(float)).collect()
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
    let step = network.branch().map_or(site_plan.info.step, |branch| site_plan.info.step.min(branch));
    let start = Start::at(&float.trace, step);
    // The masks of a detector of regions take longer than all before them, and only their own sites have a say in them alone.
    let start = if site.part == Part::Masks { start } else { start.without_masks() };
    let output = run(network, start, &alone, cancel)?;
    Ok(Some(Prediction::of_one(&output)?.against(&float.prediction).into()))
}
