//! A float run and a quantized run of one picture, with every operand kept: what reports and dumps are made of.

use std::collections::BTreeMap;

use candle_core::Tensor;

use super::prediction::Prediction;
use crate::error::Result;
use crate::model::{Network, Recorder, Site, Trace, trace};
use crate::progress::Cancel;
use crate::quant::run::{Observation, Start, run_observed};
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
}

impl QuantizedRun {
    /// Runs the network over one picture `(1, C, height, width)` as `plan` says.
    ///
    /// # Errors
    /// When the picture has the wrong shape, or the run was cancelled.
    pub fn new(network: &dyn Network, pixels: &Tensor, plan: &Plan, cancel: &Cancel) -> Result<Self> {
        let mut sites = BTreeMap::new();
        let observe = |seen: &Observation| -> Result<()> {
            let (before, after, grouping) = (seen.before.clone(), seen.after.clone(), seen.groupings.first().cloned());
            sites.insert(seen.plan.info.site, SiteRun { before, after, grouping });
            Ok(())
        };
        let output = run_observed(network, Start::pixels(pixels), plan, cancel, observe)?;
        Ok(Self { prediction: Prediction::of_one(&output)?, sites })
    }
}
