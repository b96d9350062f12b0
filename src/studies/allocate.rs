//! Group counts under a budget of bit operations: the choices of every site with what they cost and do, and the best of them (section 3.3).

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::evaluate::{Evaluation, EvaluationRow, evaluate};
use super::perturbation::{Estimate, Perturbation, StudyUpdate, default_candidates, perturb};
use crate::analysis::SCHEMA_VERSION;
use crate::analysis::report::CalibrationReport;
use crate::error::{Error, Result};
use crate::input::PictureSet;
use crate::model::{Site, SiteInfo};
use crate::progress::{Cancel, Progress};
use crate::quant::solve::{self, Choice};
use crate::quant::{GroupCount, Settings, bops};
use crate::session::Session;

/// The choices of one site.
#[derive(Debug, Clone, PartialEq)]
pub struct SiteChoices {
    /// Its address.
    pub site: Site,
    /// The counts, narrowest first.
    pub counts: Vec<GroupCount>,
    /// What each costs and does.
    pub choices: Vec<Choice>,
}

/// All that an allocation is solved from.
#[derive(Debug, Clone, PartialEq)]
pub struct Table {
    /// Sites whose perturbation is known.
    pub sites: Vec<SiteChoices>,
    /// Bit operations of everything else: other sites at the count of the settings.
    pub rest: u64,
    /// Bit operations of the uniform counts that people know.
    pub uniform: Vec<(GroupCount, u64)>,
}

/// Uniform counts that stand beside every allocation.
pub const UNIFORM: [u8; 4] = [4, 8, 12, 16];

/// What one step of a site's count would cost and gain.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Step {
    /// The next candidate.
    pub groups: GroupCount,
    /// Bit operations more; negative for fewer.
    pub bops: i64,
    /// Perturbation less; negative for more.
    pub gain: f64,
}

/// The count of one site.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SiteShare {
    /// Its address.
    pub site: Site,
    /// Its count.
    pub groups: GroupCount,
    /// Its bit operations.
    pub bops: u64,
    /// Its perturbation in nats.
    pub omega: f64,
    /// One candidate more.
    pub more: Option<Step>,
    /// One candidate fewer.
    pub fewer: Option<Step>,
}

/// Counts for all sites.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Allocation {
    /// Bit operations that were allowed.
    pub budget: u64,
    /// Bit operations of the whole network.
    pub bops: u64,
    /// Sum of the perturbations in nats.
    pub predicted: f64,
    /// By site, in the order of the forward pass.
    pub sites: Vec<SiteShare>,
}

impl Allocation {
    /// The counts by site.
    pub fn counts(&self) -> impl Iterator<Item = (Site, GroupCount)> {
        self.sites.iter().map(|s| (s.site, s.groups))
    }
}

impl Table {
    /// The choices under `settings`, as far as `perturbation` knows them.
    #[must_use]
    pub fn new(sites: &[SiteInfo], settings: &Settings, perturbation: &Perturbation) -> Self {
        let mut counts: Vec<(usize, GroupCount)> = perturbation.candidates.iter().copied().enumerate().collect();
        counts.sort_by_key(|(_, count)| *count);
        let choices = |info: &SiteInfo| {
            let found = perturbation.of(info.site)?;
            let at = |&(index, count): &(usize, GroupCount)| {
                let cost = bops::of_site(info, sites, &settings.with_counts([(info.site, count)]));
                Choice { bops: cost.total(), omega: found.omega[index] }
            };
            Some(SiteChoices {
                site: info.site,
                counts: counts.iter().map(|(_, count)| *count).collect(),
                choices: counts.iter().map(at).collect(),
            })
        };
        let rest = sites.iter().filter(|info| perturbation.of(info.site).is_none());
        let uniform = UNIFORM.into_iter().filter_map(|g| GroupCount::new(g).ok());
        Self {
            rest: rest.map(|info| bops::of_site(info, sites, settings).total()).sum(),
            sites: sites.iter().filter_map(choices).collect(),
            uniform: uniform.map(|g| (g, bops::total(sites, &settings.uniform(g)))).collect(),
        }
    }

    /// Least and most bit operations of the whole network.
    #[must_use]
    pub fn span(&self) -> (u64, u64) {
        let sum = |pick: fn(u64, u64) -> u64| -> u64 {
            self.sites.iter().filter_map(|s| s.choices.iter().map(|c| c.bops).reduce(pick)).sum::<u64>() + self.rest
        };
        (sum(u64::min), sum(u64::max))
    }

    /// The counts of least summed perturbation within `budget`.
    ///
    /// # Errors
    /// When even the smallest counts exceed it.
    pub fn solve(&self, budget: u64) -> Result<Allocation> {
        let choices = self.choices();
        let solved = match budget.checked_sub(self.rest) {
            Some(room) => solve::solve(&choices, room)?,
            None => None,
        };
        let picked = solved.ok_or_else(|| {
            let least = format!("at least {} bit operations, those of the smallest counts", self.span().0);
            Error::setting("budget", budget, least)
        })?;
        Ok(self.allocation(budget, &picked))
    }

    /// Budgets at which the best counts are known without a solver, and their sum of single-site KL in nats ([`solve::hull`]).
    #[must_use]
    pub fn hull(&self) -> Vec<(u64, f64)> {
        solve::hull(&self.choices()).into_iter().map(|(bops, predicted)| (self.rest + bops, predicted)).collect()
    }

    fn choices(&self) -> Vec<Vec<Choice>> {
        self.sites.iter().map(|s| s.choices.clone()).collect()
    }

    /// The allocation of one count for all sites; none where it is not a candidate.
    #[must_use]
    pub fn uniform(&self, groups: GroupCount) -> Option<Allocation> {
        let at = |s: &SiteChoices| s.counts.iter().position(|c| *c == groups);
        let picked = self.sites.iter().map(at).collect::<Option<Vec<_>>>()?;
        let mut same = self.allocation(0, &picked);
        same.budget = same.bops;
        Some(same)
    }

    fn allocation(&self, budget: u64, picked: &[usize]) -> Allocation {
        let share = |(s, &at): (&SiteChoices, &usize)| {
            let here = s.choices[at];
            let step = |to: usize| {
                let there = s.choices.get(to)?;
                Some(Step { groups: s.counts[to], bops: there.bops as i64 - here.bops as i64, gain: here.omega - there.omega })
            };
            let (more, fewer) = (step(at + 1), at.checked_sub(1).and_then(step));
            SiteShare { site: s.site, groups: s.counts[at], bops: here.bops, omega: here.omega, more, fewer }
        };
        let sites: Vec<SiteShare> = self.sites.iter().zip(picked).map(share).collect();
        Allocation {
            budget,
            bops: self.rest + sites.iter().map(|s| s.bops).sum::<u64>(),
            predicted: sites.iter().map(|s| s.omega).sum(),
            sites,
        }
    }

    /// Best allocations at `points` budgets from the least to the most that counts can cost.
    ///
    /// # Errors
    /// As [`Self::solve`].
    pub fn frontier(&self, points: usize) -> Result<Vec<Allocation>> {
        let (least, most) = self.span();
        // Evenly spaced in the logarithm of what counts add, because small counts cost little and change much.
        let ratio = (most - least).max(1) as f64;
        let budget = |i: usize| least + (ratio.powf(0.6 + 0.4 * i as f64 / (points.max(2) - 1) as f64)) as u64;
        (0..points).map(|i| self.solve(budget(i).min(most))).collect()
    }
}

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
            Self::Uniform(groups) => bops::total(session.opened().model.sites(), &settings.uniform(groups)),
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
    /// What was inferred or assumed about it.
    pub notes: Vec<String>,
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
        let settings = order.settings.uniform(groups);
        if bops::total(model.sites(), &settings) <= most {
            let predicted = table.uniform(groups).map(|a| a.predicted);
            runs.push((measure(format!("uniform {groups}"), &settings, predicted)?, settings));
        }
    }
    if let Some(data) = order.data {
        let grid: Vec<Settings> = runs.iter().map(|(_, settings)| settings.clone()).collect();
        let Evaluation { rows, .. } = evaluate(session, data, &grid, None, cancel, &|p| progress(p))?;
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
        notes: model.notes.clone(),
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
        StudyUpdate::Stage(stage) => progress(stage),
        StudyUpdate::Found(_, total) => {
            let done = done.fetch_add(1, Ordering::Relaxed) + 1;
            progress(Progress { stage: format!("perturbation of each site, {}", estimate.name()), done, total });
        }
    })
}
