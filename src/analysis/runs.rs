//! A float run and a quantized run of one picture, with every operand kept: what reports and dumps are made of.

use std::collections::BTreeMap;

use candle_core::Tensor;

use super::prediction::Prediction;
use crate::error::Result;
use crate::model::{Network, Recorder, Site, Trace, trace};
use crate::progress::Cancel;
use crate::quant::run::{Observation, Start, run_traced_observed};
use crate::quant::{Grouping, Plan};

/// The float run of one picture.
#[derive(Debug, Clone)]
pub struct FloatRun {
    /// Residual stream at the boundaries.
    pub trace: Trace,
    /// What it says.
    pub prediction: Prediction,
    /// The tensor at every site.
    pub sites: BTreeMap<Site, Tensor>,
}

impl FloatRun {
    /// Runs the float network over one picture `(1, C, height, width)`.
    ///
    /// # Errors
    /// When the picture has the wrong shape.
    pub fn new(network: &dyn Network, pixels: &Tensor) -> Result<Self> {
        let mut sites = BTreeMap::new();
        let mut recorder = Recorder(|site, x: &Tensor| {
            sites.insert(site, x.clone());
            Ok(())
        });
        let trace = trace(network, pixels, &mut recorder)?;
        let prediction = Prediction::of_one(&trace.output)?;
        Ok(Self { trace, prediction, sites })
    }
}

/// What the quantized run of one picture did at one site.
#[derive(Debug, Clone)]
pub struct SiteRun {
    /// The tensor just before its quantizer.
    pub before: Tensor,
    /// The tensor just after.
    pub after: Tensor,
    /// Its groups; `None` where it stays in float.
    pub grouping: Option<Grouping>,
}

/// The quantized run of one picture.
#[derive(Debug, Clone)]
pub struct QuantizedRun {
    /// What it says.
    pub prediction: Prediction,
    /// What happened at every site.
    pub sites: BTreeMap<Site, SiteRun>,
    /// Residual stream at the boundaries; entry 0 is the pixels.
    boundaries: Vec<Tensor>,
}

impl QuantizedRun {
    /// Input of each step; entry 0 is the pixels.
    #[must_use]
    pub fn boundaries(&self) -> &[Tensor] {
        &self.boundaries
    }

    /// Runs the network over one picture `(1, C, height, width)` as `plan` says.
    ///
    /// # Errors
    /// When the picture has the wrong shape, or the run was cancelled.
    pub fn new(network: &dyn Network, pixels: &Tensor, plan: &Plan, cancel: &Cancel) -> Result<Self> {
        Self::after(network, pixels, plan, None, cancel)
    }

    /// The same, taking over from an earlier run of the same picture what comes before the first step at which the plans differ.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn after(network: &dyn Network, pixels: &Tensor, plan: &Plan, earlier: Option<(&Plan, &Self)>, cancel: &Cancel) -> Result<Self> {
        let (mut sites, mut boundaries, mut first) = (BTreeMap::new(), vec![pixels.clone()], 0);
        if let Some((old, run)) = earlier {
            let Some(step) = plan.first_change(old) else { return Ok(run.clone()) };
            let before = |(site, _): &(&Site, &SiteRun)| plan.sites.get(site).is_some_and(|p| p.info.step < step);
            sites.extend(run.sites.iter().filter(before).map(|(site, run)| (*site, run.clone())));
            (boundaries, first) = (run.boundaries[..=step].to_vec(), step);
        }
        let start = boundaries.pop().unwrap_or_else(|| pixels.clone());
        let observe = |seen: &Observation| -> Result<()> {
            let (before, after, grouping) = (seen.before.clone(), seen.after.clone(), seen.groupings.first().cloned());
            sites.insert(seen.plan.info.site, SiteRun { before, after, grouping });
            Ok(())
        };
        let trace = run_traced_observed(network, Start::stream(first, &start), plan, cancel, observe)?;
        boundaries.extend(trace.boundaries);
        Ok(Self { prediction: Prediction::of_one(&trace.output)?, sites, boundaries })
    }
}
