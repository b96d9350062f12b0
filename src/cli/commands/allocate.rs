//! `igq allocate`: group counts under a budget of bit operations.

use std::path::PathBuf;

use crate::cli::args::one_of;
use crate::cli::bar::Bar;
use crate::cli::{JudgedOn, Output, RunArgs, print};
use crate::cli::{interrupt, open};
use crate::error::Result;
use crate::quant::GroupCount;
use crate::studies::allocate::{self, Order};
use crate::studies::counts::Budget;
use crate::studies::perturbation::{Estimate, default_candidates};
use crate::studies::perturbation_report::PerturbationReport;
use crate::studies::shard::Shard;

/// Find the group count of every site under a budget of bit operations.
#[derive(Debug, clap::Args)]
pub struct Allocate {
    #[command(flatten)]
    common: RunArgs,
    #[command(flatten)]
    output: Output,
    /// Bounds: a uniform group count, whose cost is the bound, or bit operations such as 2.5G.
    #[arg(long, value_delimiter = ',', default_value = "8", value_name = "N|BOPS")]
    budget: Vec<Budget>,
    /// How perturbations are found: fisher (fast, from gradients), alone (runs with only the site quantized), among (all others quantized too).
    #[arg(long, default_value = "fisher", value_parser = one_of::<Estimate>(Estimate::ALL.map(Estimate::name)))]
    estimate: Estimate,
    /// Counts to choose from.
    #[arg(long, value_delimiter = ',', value_name = "N")]
    candidates: Vec<GroupCount>,
    /// Points of the frontier of KL against bit operations.
    #[arg(long, default_value_t = 12, value_name = "N", value_parser = clap::value_parser!(u16).range(0..=200))]
    frontier: u16,
    #[command(flatten)]
    judged_on: JudgedOn,
    /// Find the perturbations of part K of N of the sites only and write them; `igq merge` puts the parts together.
    #[arg(long, value_name = "K/N")]
    shard: Option<Shard>,
    /// Perturbations that were written before: with --shard and `igq merge`, or by a run that was interrupted.
    #[arg(long, value_name = "FILE")]
    perturbation: Option<PathBuf>,
}

impl Allocate {
    /// Does it and prints.
    pub(super) fn run(self) -> Result<()> {
        let Self { common, output, budget, estimate, candidates, frontier, judged_on, shard, perturbation } = self;
        output.require_json_of_a_part(shard)?;
        common.refuse_overwriting(output.output.as_deref())?;
        let session = open::session(&common, common.settings()?)?;
        let settings = session.opened().settings.clone();
        let set = judged_on.set(&session)?;
        let candidates = if candidates.is_empty() { default_candidates() } else { candidates };
        let mut order = Order {
            settings: &settings,
            estimate,
            candidates: &candidates,
            budgets: &budget,
            frontier: usize::from(frontier),
            data: set.as_ref(),
            shard,
            known: &[],
        };
        let known = perturbation.map(|file| PerturbationReport::read(&file, &session, &settings, &order.search())).transpose()?;
        order.known = known.as_deref().unwrap_or_default();
        let (cancel, bar) = (interrupt::cancel()?, Bar::default());
        let found = allocate::perturbations(&session, &order, &cancel, &|progress| bar.show(&progress))?;
        if found.partial || shard.is_some() {
            drop(bar);
            let partial = found.partial;
            print::perturbations(&found, &output)?;
            return interrupt::end(partial);
        }
        let report = allocate::allocate(&session, &order, found, &cancel, &|progress| bar.show(&progress))?;
        drop(bar);
        print::allocation(&report, &output)?;
        interrupt::end(report.partial)
    }
}
