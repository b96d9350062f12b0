//! What an allocation of group counts does by real runs, on pictures that it was not found on, beside the uniform counts that cost as much.

use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use schemars::JsonSchema;
use serde::Serialize;

use super::counts::{Allocation, Budget, Table, UNIFORM};
use super::judge::{Judge, Judged, Measured};
use super::perturbation::{Estimate, Perturbation, Pictures, Search, SitePerturbation, StudyUpdate, default_candidates, perturb};
use super::perturbation_report::PerturbationReport;
use super::shard::Shard;
use crate::analysis::SCHEMA_VERSION;
use crate::analysis::report::CalibrationReport;
use crate::error::{Error, Result};
use crate::input::PictureSet;
use crate::progress::{Cancel, Progress};
use crate::quant::{GroupCount, Settings, bops};
use crate::session::Session;

/// Perturbations as far as they are known, and what can be allocated from them.
#[derive(Debug, Clone, PartialEq)]
pub struct Perturbed {
    /// The settings they belong to.
    pub settings: Settings,
    /// The perturbations.
    pub perturbation: Perturbation,
    /// Everything that `Table::solve` needs: solving is instant, and can be done wherever the numbers are shown.
    pub table: Table,
    /// The fast estimate against these for each candidate; empty while that is not known.
    pub rank_correlation: Vec<(GroupCount, Option<f64>)>,
    /// Number of sites in all.
    pub total: usize,
    /// Whether nothing more will come.
    pub done: bool,
}

/// The fast estimate as the screen takes it.
///
/// # Errors
/// As [`perturb`].
pub fn estimated(session: &Session, settings: &Settings) -> Result<Perturbed> {
    let perturbation = perturb(session, settings, &Search::new(Estimate::Fisher, &default_candidates()), &[], &Cancel::default(), &|_| ())?;
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
    /// KL of the best of these uniform counts less that of the allocation, picture by picture, with its bootstrap 95 % interval: mean, low, high.
    pub gain: Option<(f64, f64, f64)>,
    /// Whether it is worth taking, in a sentence.
    pub verdict: String,
}

/// What `igq allocate` found.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct AllocationReport {
    /// Version of the form.
    pub schema_version: u32,
    /// Short name of the model.
    pub model: String,
    /// What was inferred or assumed about it.
    pub notes: Vec<String>,
    /// The settings with the counts of the first budget.
    pub settings: Settings,
    /// What the quantizers were fitted on.
    pub calibration: CalibrationReport,
    /// The pictures that everything was measured on: none that perturbations were found on.
    pub data: String,
    /// How many.
    pub images: usize,
    /// The perturbations.
    pub perturbation: Perturbation,
    /// Wall time of the perturbations in seconds; near zero where they came from the cache.
    pub perturbation_seconds: f64,
    /// The fast estimate against these, for each candidate.
    pub rank_correlation: Vec<RankCorrelation>,
    /// One for each budget.
    pub solved: Vec<Solved>,
    /// KL against bit operations, by runs: best allocations over a sweep of budgets.
    pub frontier: Vec<Measured>,
    /// Wall time in seconds.
    pub seconds: f64,
    /// Whether it was interrupted: the frontier has fewer points than asked for.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub partial: bool,
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
    /// Pictures to judge on. Without them perturbations are found on every other calibration picture, and the rest judge.
    pub data: Option<&'o PictureSet>,
    /// This part of the sites only, for `igq merge`.
    pub shard: Option<Shard>,
    /// Perturbations that are known from elsewhere.
    pub known: &'o [SitePerturbation],
}

impl Order<'_> {
    /// How perturbations are looked for.
    #[must_use]
    pub const fn search(&self) -> Search<'_> {
        let pictures = if self.data.is_some() { Pictures::All } else { Pictures::EveryOther };
        Search { estimate: self.estimate, candidates: self.candidates, pictures, shard: self.shard }
    }
}

/// The perturbations that an allocation stands on; those that there were when `cancel` was called.
///
/// # Errors
/// As [`perturb`].
pub fn perturbations(
    session: &Session,
    order: &Order,
    cancel: &Cancel,
    progress: &(dyn Fn(Progress) + Sync),
) -> Result<PerturbationReport> {
    let started = Instant::now();
    let search = order.search();
    let found = Mutex::new((order.known.to_vec(), 0));
    let told = |told: StudyUpdate| match told {
        StudyUpdate::Stage(stage) => progress(stage),
        StudyUpdate::Found(one, total) => {
            let (found, of) = &mut *found.lock().unwrap_or_else(PoisonError::into_inner);
            found.push(one);
            *of = total;
            progress(Progress { stage: format!("perturbation of each site, {}", search.estimate.name()), done: found.len(), total });
        }
    };
    let ended = perturb(session, order.settings, &search, order.known, cancel, &told);
    let (so_far, _) = found.into_inner().unwrap_or_else(PoisonError::into_inner);
    let perturbation = match ended {
        Err(Error::Cancelled) if !so_far.is_empty() => {
            let images = search.images(session.calibration_report().images);
            Perturbation { sites: so_far, ..Perturbation::empty(search.estimate, search.candidates.to_vec(), images) }
        }
        ended => ended?,
    };
    Ok(PerturbationReport::new(session, order.settings, &search, perturbation, cancel.is_cancelled(), started.elapsed().as_secs_f64()))
}

/// Finds counts for every budget and measures what they do on pictures that they were not found on. When `cancel` was called after the first
/// budget, the frontier ends early.
///
/// # Errors
/// When a budget is below the smallest counts, a picture cannot be read, or `cancel` was called.
pub fn allocate(
    session: &Session,
    order: &Order,
    found: PerturbationReport,
    cancel: &Cancel,
    progress: &(dyn Fn(Progress) + Sync),
) -> Result<AllocationReport> {
    let started = Instant::now();
    let model = &session.opened().model;
    let (search, perturbation) = (order.search(), found.perturbation);
    // The fast estimate is held against another one, not against itself.
    let fast = match order.estimate {
        Estimate::Fisher => Perturbation::empty(Estimate::Fisher, Vec::new(), 0),
        _ => perturb(session, order.settings, &Search { estimate: Estimate::Fisher, ..search }, &[], cancel, &|_| ())?,
    };
    let table = Table::new(model.sites(), order.settings, &perturbation);
    let judge = Judge::new(session, order.data, cancel)?;
    let look = |name: String, settings: &Settings, sum: Option<f64>| judge.look(session, (name, settings, sum), cancel, progress);
    let budgets: Vec<u64> = order.budgets.iter().map(|budget| budget.resolve(session, order.settings)).collect();
    let allocations = budgets.iter().map(|&budget| table.solve(budget)).collect::<Result<Vec<_>>>()?;
    // Uniform counts stand beside several budgets, but are run once.
    let most = budgets.iter().copied().max().unwrap_or_default();
    let mut uniform = Vec::new();
    for groups in UNIFORM.into_iter().filter_map(|g| GroupCount::new(g).ok()) {
        let settings = order.settings.uniform(groups);
        if bops::total(model.sites(), &settings) <= most {
            uniform.push(look(format!("uniform {groups}"), &settings, table.uniform(groups).map(|a| a.predicted))?);
        }
    }
    let mut solved = Vec::new();
    for (budget, allocation) in budgets.into_iter().zip(allocations) {
        let settings = order.settings.with_counts(allocation.counts());
        let judged = look("allocated".into(), &settings, Some(allocation.predicted))?;
        let beside: Vec<&Judged> = uniform.iter().filter(|u| u.measured.bops <= budget).collect();
        let (gain, verdict) = judged.against(&beside);
        let measured = std::iter::once(&judged).chain(beside).map(|judged| judged.measured.clone()).collect();
        solved.push(Solved { budget, allocation, settings, measured, gain, verdict });
    }
    let (mut frontier, mut partial) = (Vec::new(), false);
    if order.frontier > 0 {
        for point in table.frontier(order.frontier)? {
            match look("allocated".into(), &order.settings.with_counts(point.counts()), Some(point.predicted)) {
                Err(Error::Cancelled) => {
                    partial = true;
                    break;
                }
                judged => frontier.push(judged?.measured),
            }
        }
    }
    let (data, images) = judge.describe();
    Ok(AllocationReport {
        schema_version: SCHEMA_VERSION,
        model: model.name.clone(),
        notes: model.notes.clone(),
        settings: solved.first().map_or_else(|| order.settings.clone(), |s| s.settings.clone()),
        calibration: session.calibration_report().clone(),
        data,
        images,
        rank_correlation: fast
            .rank_correlation(&perturbation)
            .into_iter()
            .map(|(groups, spearman)| RankCorrelation { groups, spearman })
            .collect(),
        perturbation,
        perturbation_seconds: found.seconds,
        solved,
        frontier,
        seconds: found.seconds + started.elapsed().as_secs_f64(),
        partial,
    })
}
