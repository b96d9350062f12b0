//! The budget of bit operations: what is known about group counts, the best counts within the bound, and the frontier. Plain arithmetic.

use std::collections::BTreeSet;

use super::studies::{Studies, base};
use crate::engine::command::{Estimate, GroupCount, Settings};
use crate::model::Site;
use crate::studies::counts::{Allocation, Table};

/// Solving takes a moment: while a sweep goes on, it is done for every so many sites in a hundred.
const SHARE: usize = 10;
/// Share of the uniform cost, or of the span where that is narrow, that one step moves the bound.
const STEP: f64 = 0.02;

/// The budget as wanted, and the counts that it gives.
#[derive(Debug, Clone, Default)]
pub struct Budget {
    /// Steps from what 8 groups everywhere cost.
    pub steps: i32,
    /// The counts, once perturbations are known.
    pub solved: Option<Solved>,
}

/// Counts within a bound.
#[derive(Debug, Clone)]
pub struct Solved {
    /// The settings that the counts are for.
    pub base: Settings,
    /// What they were solved from.
    pub table: Table,
    /// Sites whose perturbation was measured, not estimated.
    pub exact: BTreeSet<Site>,
    /// The fast estimate against the measured ones for each candidate.
    pub correlation: Vec<(GroupCount, Option<f64>)>,
    /// The bound.
    pub bound: u64,
    /// The counts.
    pub allocation: Allocation,
    /// Bit operations and sum of single-site KL of best counts.
    pub frontier: Vec<(u64, f64)>,
}

impl Budget {
    /// Solves anew where the settings or the perturbations changed; the old counts stay until there are new ones.
    pub fn renew(&mut self, settings: &Settings, studies: &Studies) {
        let base = base(settings);
        let (fast, exact) = (studies.known(&base, Estimate::Fisher), studies.known(&base, Estimate::Alone));
        let Some(mut table) = fast.or(exact).map(|p| p.table.clone()) else { return };
        let measured = exact.map_or(&[][..], |p| &p.table.sites);
        // Sites that are not measured yet keep their estimate.
        for site in measured {
            if let Some(slot) = table.sites.iter_mut().find(|s| s.site == site.site) {
                *slot = site.clone();
            }
        }
        let news = self.solved.as_ref().filter(|s| s.base == base).map(|s| measured.len().saturating_sub(s.exact.len()));
        let partial = exact.is_some_and(|p| !p.done);
        if self.solved.as_ref().is_some_and(|s| s.base == base && s.table == table)
            || partial && news.is_some_and(|news| news * 100 < table.sites.len() * SHARE)
        {
            return;
        }
        let bound = bound(&table, &mut self.steps);
        let Ok(allocation) = table.solve(bound) else { return };
        self.solved = Some(Solved {
            base,
            exact: measured.iter().map(|s| s.site).collect(),
            correlation: exact.map(|p| p.rank_correlation.clone()).unwrap_or_default(),
            bound,
            allocation,
            frontier: table.hull(),
            table,
        });
    }

    /// Moves the bound by one step; [`Self::settle`] finds the counts.
    pub fn step(&mut self, more: bool) {
        self.steps += if more { 1 } else { -1 };
        if let Some(solved) = &mut self.solved {
            solved.bound = bound(&solved.table, &mut self.steps);
        }
    }

    /// Solves for a bound that was moved: once for all keys that waited.
    pub fn settle(&mut self) {
        let Some(solved) = &mut self.solved else { return };
        if solved.allocation.budget == solved.bound {
            return;
        }
        if let Ok(allocation) = solved.table.solve(solved.bound) {
            solved.allocation = allocation;
        }
    }
}

/// The bound after `steps`, which stay within what counts can cost.
fn bound(table: &Table, steps: &mut i32) -> u64 {
    let (least, most) = table.span();
    let eight = table.uniform.iter().find(|(g, _)| g.get() == 8).map_or(least, |(_, bops)| *bops).clamp(least, most);
    let step = (STEP * (eight as f64).min((most - least) as f64)).max(1.0);
    let down = ((eight - least) as f64 / step).ceil() as i32;
    let up = ((most - eight) as f64 / step).ceil() as i32;
    *steps = (*steps).clamp(-down, up);
    ((eight as f64 + f64::from(*steps) * step).round() as u64).clamp(least, most)
}

impl Solved {
    /// The settings with the counts.
    #[must_use]
    pub fn apply(&self, settings: &Settings) -> Settings {
        settings.with_counts(self.allocation.counts())
    }

    /// Uniform counts with their bit operations and sum of single-site KL, where that is known.
    #[must_use]
    pub fn uniform(&self) -> Vec<(GroupCount, u64, Option<f64>)> {
        self.table.uniform.iter().map(|&(g, bops)| (g, bops, self.table.uniform(g).map(|a| a.predicted))).collect()
    }
}
