//! Group counts under a budget of bit operations: the choices of every site with what they cost and do, and the best of them (section 3.3).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::perturbation::Perturbation;
use crate::error::{Error, Result};
use crate::model::{Site, SiteInfo};
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
    /// The count that it keeps where no count changes the KL.
    pub keeps: Option<GroupCount>,
}

impl SiteChoices {
    /// The place of the count that it keeps, or of the largest that is no larger than `level`; none where counts change the KL.
    fn kept(&self, level: Option<GroupCount>) -> Option<usize> {
        let keeps = self.keeps?;
        let most = level.map_or(keeps, |level| level.min(keeps));
        Some(self.counts.iter().rposition(|count| *count <= most).unwrap_or(0))
    }
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
            // What has no say in the KL, as boxes and masks have none in that of classes, keeps its count while the budget bears it: no count
            // would be too small.
            let own = settings.groups(info.site);
            let silent = found.omega.iter().all(|omega| *omega == 0.0) && counts.iter().any(|(_, count)| *count == own);
            let at = |&(index, count): &(usize, GroupCount)| {
                let cost = bops::of_site(info, sites, &settings.with_counts([(info.site, count)]));
                Choice { bops: cost.total(), omega: found.omega[index] }
            };
            Some(SiteChoices {
                site: info.site,
                counts: counts.iter().map(|(_, count)| *count).collect(),
                choices: counts.iter().map(at).collect(),
                keeps: silent.then_some(own),
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
        // What has no say in the KL gives way together, from the largest of its counts down.
        let mut levels: Vec<GroupCount> = self.sites.iter().filter(|s| s.keeps.is_some()).flat_map(|s| s.counts.clone()).collect();
        levels.sort_by(|a, b| b.cmp(a));
        levels.dedup();
        // It takes no more than its share: what a count for all sites within the budget would give it.
        let all_at = |level: GroupCount| -> u64 {
            let of = |s: &SiteChoices| s.choices[s.counts.iter().rposition(|count| *count <= level).unwrap_or(0)].bops;
            self.rest + self.sites.iter().map(of).sum::<u64>()
        };
        let fair = levels.iter().position(|level| all_at(*level) <= budget).unwrap_or(levels.len().saturating_sub(1));
        let levels = if levels.is_empty() { vec![None] } else { levels.into_iter().skip(fair).map(Some).collect() };
        let Some(room) = budget.checked_sub(self.rest) else { return Err(self.too_small(budget)) };
        for level in levels {
            let kept: Vec<Option<usize>> = self.sites.iter().map(|s| s.kept(level)).collect();
            let choices = |(s, kept): (&SiteChoices, &Option<usize>)| kept.map_or_else(|| s.choices.clone(), |at| vec![s.choices[at]]);
            let choices: Vec<Vec<Choice>> = self.sites.iter().zip(&kept).map(choices).collect();
            if let Some(picked) = solve::solve(&choices, room)? {
                let picked: Vec<usize> = picked.iter().zip(&kept).map(|(at, kept)| kept.unwrap_or(*at)).collect();
                return Ok(self.allocation(budget, &picked));
            }
        }
        Err(self.too_small(budget))
    }

    fn too_small(&self, budget: u64) -> Error {
        Error::setting("budget", budget, format!("at least {} bit operations, those of the smallest counts", self.span().0))
    }

    /// Budgets at which the best counts are known without a solver, and their sum of single-site KL in nats ([`solve::hull`]).
    #[must_use]
    pub fn hull(&self) -> Vec<(u64, f64)> {
        solve::hull(&self.choices()).into_iter().map(|(bops, predicted)| (self.rest + bops, predicted)).collect()
    }

    fn choices(&self) -> Vec<Vec<Choice>> {
        self.sites.iter().map(|s| s.kept(None).map_or_else(|| s.choices.clone(), |at| vec![s.choices[at]])).collect()
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
