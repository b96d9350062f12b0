//! The search for group counts, over a session: perturbations of all sites, the allocation, and what it does on pictures.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use rayon::prelude::*;
use schemars::JsonSchema;
use serde::Serialize;

use super::evaluate::{Evaluation, EvaluationRow, evaluate};
use super::event::{Counter, Perturbed, Progress};
use super::session::Session;
use crate::analysis::SCHEMA_VERSION;
use crate::analysis::allocation::{Allocation, Table, UNIFORM, uniformly};
use crate::analysis::perturbation::{self, Candidates, Estimate, Perturbation, SitePerturbation};
use crate::analysis::report::CalibrationReport;
use crate::error::{Error, Result};
use crate::input::PictureSet;
use crate::model::tap::Cancel;
use crate::quant::{GroupCount, Plan, Settings, bops};

/// A bound on bit operations, as people say it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Budget {
    /// What this count for every site costs.
    Uniform(GroupCount),
    /// So many bit operations.
    Bops(u64),
}

impl Budget {
    /// In bit operations.
    #[must_use]
    pub fn resolve(self, session: &Session, settings: &Settings) -> u64 {
        match self {
            Self::Uniform(groups) => bops::total(session.opened().model.sites(), &uniformly(settings, groups)),
            Self::Bops(bops) => bops,
        }
    }
}

impl std::str::FromStr for Budget {
    type Err = Error;
    fn from_str(s: &str) -> Result<Self> {
        if let Ok(groups) = s.parse::<GroupCount>() {
            return Ok(Self::Uniform(groups));
        }
        let (digits, unit) = match s.strip_suffix(['M', 'G', 'T']) {
            Some(digits) => (digits, [('M', 1e6), ('G', 1e9), ('T', 1e12)].into_iter().find(|(c, _)| s.ends_with(*c)).map_or(1.0, |u| u.1)),
            None => (s, 1.0),
        };
        let bops = digits.parse::<f64>().ok().map(|d| d * unit).filter(|b| b.is_finite() && *b > 64.0 && *b < 1e18);
        let expected = "a uniform group count (1 to 64), whose cost is the bound, or bit operations such as 2.5G";
        bops.map(|b| Self::Bops(b as u64)).ok_or_else(|| Error::setting("budget", s, expected))
    }
}

/// The counts that are tried unless others are named.
#[must_use]
pub fn default_candidates() -> Vec<GroupCount> {
    perturbation::CANDIDATES.into_iter().filter_map(|g| GroupCount::new(g).ok()).collect()
}

/// The settings that perturbations depend on: only [`Estimate::Among`] depends on the counts of other sites.
#[must_use]
pub fn without_counts(settings: &Settings, estimate: Estimate) -> Settings {
    match estimate {
        Estimate::Among => settings.clone(),
        Estimate::Alone | Estimate::Fisher => uniformly(settings, Settings::default().groups),
    }
}

/// What the entries of the cache are found by.
fn key(settings: &Settings, estimate: Estimate, candidates: &[GroupCount]) -> (Settings, Estimate, Vec<GroupCount>) {
    (without_counts(settings, estimate), estimate, candidates.to_vec())
}

/// Perturbations that an earlier session has left in the cache.
#[must_use]
pub fn stored(session: &Session, settings: &Settings, estimate: Estimate, candidates: &[GroupCount]) -> Vec<SitePerturbation> {
    let key = key(settings, estimate, candidates);
    let stored: Vec<SitePerturbation> = session.store().and_then(|s| s.get("perturbation", &key)).unwrap_or_default();
    stored.into_iter().filter(|s| s.omega.len() == candidates.len() && s.omega.iter().all(|o| o.is_finite())).collect()
}

/// What is told while perturbations are computed.
#[derive(Debug, Clone)]
pub enum Told {
    /// How far what comes before the first of them is.
    Stage(Progress),
    /// One of them, and the number of all.
    Found(SitePerturbation, usize),
}

/// Perturbations of the sites whose count matters under `settings`; `known` are not computed again. `tell` hears of each.
///
/// # Errors
/// When `cancel` was called, the method has no group counts, or there are no calibration pictures.
pub fn perturb(
    session: &Session,
    settings: &Settings,
    estimate: Estimate,
    candidates: &[GroupCount],
    known: &[SitePerturbation],
    cancel: &Cancel,
    tell: &(dyn Fn(Told) + Sync),
) -> Result<Perturbation> {
    let model = &session.opened().model;
    let network = model.network();
    let matters =
        |info: &&crate::model::SiteInfo| !settings.activation_bits(info.site).is_float() && settings.scheme(info.site).uses_groups();
    let stored = stored(session, settings, estimate, candidates).into_iter().filter(|s| known.iter().all(|k| k.site != s.site));
    let known: Vec<SitePerturbation> = known.iter().cloned().chain(stored).collect();
    let infos: Vec<_> = model.sites().iter().filter(matters).collect();
    if infos.is_empty() {
        return Err(Error::setting("method", settings.describe(), "one with group counts: igq, igq-e, contiguous or sorted"));
    }
    let total = infos.len();
    let missing: Vec<_> = infos.iter().filter(|info| !known.iter().any(|k| k.site == info.site)).collect();
    let fitted = Counter::new("fitting quantizers for every count", missing.len());
    let sites = missing
        .par_iter()
        .map(|info| {
            cancel.check()?;
            let at = |&count: &GroupCount| session.site_plan(&settings.with_counts([(info.site, count)]), info);
            let plans = candidates.iter().map(at).collect::<Result<Vec<_>>>()?;
            tell(Told::Stage(fitted.add(1)));
            // The layer's weight is the same for every count: alone, only the activation is quantized.
            let alone = |mut plan: crate::quant::run::SitePlan| {
                plan.weight = plan.weight.filter(|_| estimate == Estimate::Among);
                plan
            };
            Ok(((**info).clone(), plans.into_iter().map(alone).collect()))
        })
        .collect::<Result<Vec<Candidates>>>()?;
    let done = Mutex::new(known.clone());
    let found = |one: SitePerturbation| {
        let mut done = done.lock().unwrap_or_else(PoisonError::into_inner);
        done.push(one.clone());
        tell(Told::Found(one, total));
    };
    let computed = match estimate {
        _ if sites.is_empty() => Ok(()),
        Estimate::Fisher => {
            let pictures = Counter::new("gradients of the calibration pictures", session.calibration_report().images);
            let seen = |more| tell(Told::Stage(pictures.add(more)));
            let estimated = perturbation::fisher(network, session.calibration_batches()?, &sites, settings.seed, cancel, &seen);
            estimated.map(|all| all.into_iter().for_each(found))
        }
        Estimate::Alone => {
            let (base, reference) = (Plan::float(model.sites()), session.reference(cancel)?);
            perturbation::exact(network, &reference, &base, reference.traces(), &sites, cancel, &found)
        }
        Estimate::Among => {
            let (base, reference) = (session.plan(settings)?, session.reference(cancel)?);
            let before = reference.under(network, &base, cancel)?;
            perturbation::exact(network, &reference, &base, &before, &sites, cancel, &found)
        }
    };
    let mut sites = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    if let Some(store) = session.store().filter(|_| sites.len() > known.len()) {
        store.keep("perturbation", &key(settings, estimate, candidates), &sites);
    }
    computed?;
    sites.sort_by_key(|s| infos.iter().position(|info| info.site == s.site));
    Ok(Perturbation { estimate, candidates: candidates.to_vec(), images: session.calibration_report().images, sites })
}

/// The fast estimate as the screen takes it.
///
/// # Errors
/// As [`perturb`].
pub fn estimated(session: &Session, settings: &Settings) -> Result<Perturbed> {
    let perturbation = perturb(session, settings, Estimate::Fisher, &default_candidates(), &[], &Cancel::default(), &|_| ())?;
    let table = Table::new(session.opened().model.sites(), settings, &perturbation);
    let total = perturbation.sites.len();
    Ok(Perturbed { settings: settings.clone(), perturbation, table, rank_correlation: Vec::new(), total, done: true })
}

/// How well fast and exact agree on the order of the sites.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, JsonSchema)]
pub struct RankCorrelation {
    /// The candidate count.
    pub groups: GroupCount,
    /// Spearman's rho over the sites; none where it is not defined.
    pub spearman: Option<f64>,
}

/// An allocation or a uniform count, and what it does on pictures.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Measured {
    /// `allocated`, or `uniform 8`.
    pub name: String,
    /// Bit operations of the whole network.
    pub bops: u64,
    /// Sum of perturbations in nats; none where a uniform count is no candidate.
    pub predicted: Option<f64>,
    /// Mean KL on the calibration pictures, by a real run.
    pub calibration_kl: f64,
    /// The same settings on the evaluation set, where one was asked for.
    pub evaluation: Option<EvaluationRow>,
}

/// One budget.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Solved {
    /// Bit operations that were allowed.
    pub budget: u64,
    /// The counts.
    pub allocation: Allocation,
    /// The settings with these counts: `--settings-file` takes them.
    pub settings: Settings,
    /// The allocation, and the uniform counts of equal or smaller cost.
    pub measured: Vec<Measured>,
}

/// What `igq allocate` found.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct AllocationReport {
    /// Version of the form.
    pub schema_version: u32,
    /// Short name of the model.
    pub model: String,
    /// The settings with the counts of the first budget.
    pub settings: Settings,
    /// What the quantizers were fitted on.
    pub calibration: CalibrationReport,
    /// What was evaluated on.
    pub data: Option<String>,
    /// The perturbations.
    pub perturbation: Perturbation,
    /// Wall time of the perturbations in seconds; near zero where they came from the cache.
    pub perturbation_seconds: f64,
    /// The fast estimate against these, for each candidate.
    pub rank_correlation: Vec<RankCorrelation>,
    /// One for each budget.
    pub solved: Vec<Solved>,
    /// KL against bit operations: best allocations over a sweep of budgets.
    pub frontier: Vec<Measured>,
    /// Wall time in seconds.
    pub seconds: f64,
}

/// What to allocate.
#[derive(Debug, Clone)]
pub struct Order<'o> {
    /// The settings; their counts are what sites have while another is looked at.
    pub settings: &'o Settings,
    /// How perturbations are found.
    pub estimate: Estimate,
    /// The counts that are tried.
    pub candidates: &'o [GroupCount],
    /// The bounds.
    pub budgets: &'o [Budget],
    /// Points of the frontier; 0 for none.
    pub frontier: usize,
    /// Pictures to evaluate on, beside the calibration pictures.
    pub data: Option<&'o PictureSet>,
}

/// Finds counts for every budget and measures what they do.
///
/// # Errors
/// As [`perturb`]; when a budget is below the smallest counts.
pub fn allocate(session: &Session, order: &Order, cancel: &Cancel, progress: &(dyn Fn(Progress) + Sync)) -> Result<AllocationReport> {
    let started = Instant::now();
    let model = &session.opened().model;
    let perturbation = perturb_with_progress(session, order.settings, order.estimate, order.candidates, cancel, progress)?;
    let perturbation_seconds = started.elapsed().as_secs_f64();
    // The fast estimate is held against another one, not against itself.
    let fast = match order.estimate {
        Estimate::Fisher => Perturbation::empty(Estimate::Fisher, Vec::new(), 0),
        _ => perturb(session, order.settings, Estimate::Fisher, order.candidates, &[], cancel, &|_| ())?,
    };
    let table = Table::new(model.sites(), order.settings, &perturbation);
    let reference = session.reference(cancel)?;
    let measure = |name: String, settings: &Settings, predicted: Option<f64>| -> Result<Measured> {
        let calibration_kl = reference.effect_of(model.network(), &session.plan(settings)?, cancel)?.kl;
        Ok(Measured { name, bops: bops::total(model.sites(), settings), predicted, calibration_kl, evaluation: None })
    };
    let budgets: Vec<u64> = order.budgets.iter().map(|budget| budget.resolve(session, order.settings)).collect();
    let allocations = budgets.iter().map(|&budget| table.solve(budget)).collect::<Result<Vec<_>>>()?;
    // Uniform counts stand beside several budgets, but are run once; one pass over the set serves all.
    let most = budgets.iter().copied().max().unwrap_or_default();
    let mut runs = Vec::new();
    for allocation in &allocations {
        let settings = order.settings.with_counts(allocation.counts());
        runs.push((measure("allocated".into(), &settings, Some(allocation.predicted))?, settings));
    }
    for groups in UNIFORM.into_iter().filter_map(|g| GroupCount::new(g).ok()) {
        let settings = uniformly(order.settings, groups);
        if bops::total(model.sites(), &settings) <= most {
            let predicted = table.uniform(groups).map(|a| a.predicted);
            runs.push((measure(format!("uniform {groups}"), &settings, predicted)?, settings));
        }
    }
    if let Some(data) = order.data {
        let grid: Vec<Settings> = runs.iter().map(|(_, settings)| settings.clone()).collect();
        let Evaluation { rows, .. } = evaluate(session, data, &grid, &|p| progress(p))?;
        for ((measured, _), row) in runs.iter_mut().zip(rows) {
            measured.evaluation = Some(row);
        }
    }
    let (found, uniform) = runs.split_at(allocations.len());
    let beside = |budget: u64| uniform.iter().map(|(m, _)| m.clone()).filter(move |m| m.bops <= budget);
    let solved: Vec<Solved> = budgets
        .into_iter()
        .zip(allocations)
        .zip(found)
        .map(|((budget, allocation), (measured, settings))| Solved {
            budget,
            allocation,
            settings: settings.clone(),
            measured: std::iter::once(measured.clone()).chain(beside(budget)).collect(),
        })
        .collect();
    let mut frontier = Vec::new();
    if order.frontier > 0 {
        for point in table.frontier(order.frontier)? {
            let settings = order.settings.with_counts(point.counts());
            frontier.push(measure("allocated".into(), &settings, Some(point.predicted))?);
        }
    }
    Ok(AllocationReport {
        schema_version: SCHEMA_VERSION,
        model: model.name.clone(),
        settings: solved.first().map_or_else(|| order.settings.clone(), |s| s.settings.clone()),
        calibration: session.calibration_report().clone(),
        data: order.data.map(|d| d.name.clone()),
        rank_correlation: fast
            .rank_correlation(&perturbation)
            .into_iter()
            .map(|(groups, spearman)| RankCorrelation { groups, spearman })
            .collect(),
        perturbation,
        perturbation_seconds,
        solved,
        frontier,
        seconds: started.elapsed().as_secs_f64(),
    })
}

fn perturb_with_progress(
    session: &Session,
    settings: &Settings,
    estimate: Estimate,
    candidates: &[GroupCount],
    cancel: &Cancel,
    progress: &(dyn Fn(Progress) + Sync),
) -> Result<Perturbation> {
    let done = AtomicUsize::new(0);
    perturb(session, settings, estimate, candidates, &[], cancel, &|told| match told {
        Told::Stage(stage) => progress(stage),
        Told::Found(_, total) => {
            let done = done.fetch_add(1, Ordering::Relaxed) + 1;
            progress(Progress { stage: format!("perturbation of each site, {}", estimate.name()), done, total });
        }
    })
}
