//! A float run and a quantized run of one picture, with their operands: what reports and dumps are made of. An operand is kept, or, where it
//! is large, computed again from the boundary before it when somebody asks: the softmax of 4,300 tokens takes 0.2 GB in every block.

use std::borrow::Cow;
use std::collections::BTreeMap;

use candle_core::Tensor;

use super::prediction::Prediction;
use crate::error::{Error, Result};
use crate::memory;
use crate::model::output::First;
use crate::model::{Network, Recorder, Site, Stream, Trace, trace};
use crate::progress::Cancel;
use crate::quant::run::{Observation, Start, run_observed, run_traced_observed};
use crate::quant::{Grouping, Plan};

fn is_kept(site: Site, values: &Tensor) -> bool {
    !site.kind.is_softmax() || memory::is_kept(values.elem_count() as u64)
}

/// The float run of one picture.
#[derive(Debug, Clone)]
pub struct FloatRun {
    /// Residual stream at the boundaries.
    pub trace: Trace,
    /// What it says.
    pub prediction: Prediction,
    /// The tensor at every site whose tensor is kept.
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
            if is_kept(site, x) {
                sites.insert(site, x.clone());
            }
            Ok(())
        });
        let trace = trace(network, pixels, &mut recorder)?;
        let prediction = Prediction::of_one(&trace.output)?;
        Ok(Self { trace, prediction, sites })
    }

    /// The tensor at `site`, a site of step `step`.
    ///
    /// # Errors
    /// When the step has no such site.
    pub fn at(&self, network: &dyn Network, step: usize, site: Site) -> Result<Tensor> {
        if let Some(kept) = self.sites.get(&site) {
            return Ok(kept.clone());
        }
        let mut found = None;
        let mut recorder = Recorder(|seen, x: &Tensor| {
            if seen == site {
                found = Some(x.clone());
                return Err(Error::Cancelled);
            }
            Ok(())
        });
        let ended = network.step(step, &self.trace.boundaries[step], &mut recorder);
        match (found, ended) {
            (Some(found), _) => Ok(found),
            (None, Err(error)) => Err(error),
            (None, Ok(_)) => Err(no_site(site)),
        }
    }
}

fn no_site(site: Site) -> Error {
    Error::setting("site", site, "a site of the step that is run again")
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

impl SiteRun {
    fn of(seen: &Observation) -> Self {
        Self { before: seen.before.clone(), after: seen.after.clone(), grouping: seen.groupings.first().cloned() }
    }
}

/// The quantized run of one picture.
#[derive(Debug, Clone)]
pub struct QuantizedRun {
    /// What it says.
    pub prediction: Prediction,
    /// What happened at every site whose tensors are kept.
    pub sites: BTreeMap<Site, SiteRun>,
    /// Residual stream at the boundaries; entry 0 is the pixels.
    boundaries: Vec<Stream>,
    /// What the first stage of the float run chose, with which everything but the objects is computed.
    pinned: Option<First>,
}

impl QuantizedRun {
    /// Input of each step; entry 0 is the pixels.
    #[must_use]
    pub fn boundaries(&self) -> &[Stream] {
        &self.boundaries
    }

    /// Runs the network over the picture of a float run as `plan` says.
    ///
    /// # Errors
    /// When the run was cancelled.
    pub fn new(network: &dyn Network, float: &FloatRun, plan: &Plan, cancel: &Cancel) -> Result<Self> {
        Self::after(network, float, plan, None, cancel)
    }

    /// The same, taking over from an earlier run of the same picture what comes before the first step at which the plans differ.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn after(network: &dyn Network, float: &FloatRun, plan: &Plan, earlier: Option<(&Plan, &Self)>, cancel: &Cancel) -> Result<Self> {
        let pixels = &float.trace.boundaries[0];
        let (mut sites, mut boundaries, mut first) = (BTreeMap::new(), vec![pixels.clone()], 0);
        if let Some((old, run)) = earlier {
            let Some(step) = plan.first_change(old) else { return Ok(run.clone()) };
            // A second pass with proposals of its own begins at the first stage.
            let step = network.branch().map_or(step, |branch| step.min(branch));
            let before = |(site, _): &(&Site, &SiteRun)| plan.sites.get(site).is_some_and(|p| p.info.step < step);
            sites.extend(run.sites.iter().filter(before).map(|(site, run)| (*site, run.clone())));
            (boundaries, first) = (run.boundaries[..=step].to_vec(), step);
        }
        let start = boundaries.pop().unwrap_or_else(|| pixels.clone());
        let observe = |seen: &Observation| -> Result<()> {
            let site = seen.plan.info.site;
            if is_kept(site, seen.before) {
                sites.insert(site, SiteRun::of(seen));
            }
            Ok(())
        };
        let trace = run_traced_observed(network, Start::stream(first, &start).pinned(&float.trace.output), plan, cancel, observe)?;
        boundaries.extend(trace.boundaries);
        let pinned = float.trace.output.first.clone();
        Ok(Self { prediction: Prediction::of_one(&trace.output)?, sites, boundaries, pinned })
    }

    /// What happened at `site`; `plan` is that of this run.
    ///
    /// # Errors
    /// When the plan does not know the site, or the run was cancelled.
    pub fn at(&self, network: &dyn Network, plan: &Plan, site: Site, cancel: &Cancel) -> Result<Cow<'_, SiteRun>> {
        if let Some(kept) = self.sites.get(&site) {
            return Ok(Cow::Borrowed(kept));
        }
        let step = plan.site(site)?.info.step;
        let mut found = None;
        let observe = |seen: &Observation| {
            if seen.plan.info.site == site {
                found = Some(SiteRun::of(seen));
                return Err(Error::Cancelled);
            }
            Ok(())
        };
        let ended = run_observed(network, Start::stream(step, &self.boundaries[step]).with(self.pinned.as_ref()), plan, cancel, observe);
        match (found, ended) {
            (Some(found), _) => Ok(Cow::Owned(found)),
            (None, Err(error)) => Err(error),
            (None, Ok(_)) => Err(no_site(site)),
        }
    }
}
