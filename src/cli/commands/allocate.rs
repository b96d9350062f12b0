//! `igq allocate`: group counts under a budget of bit operations.

use std::path::PathBuf;

use crate::cli::args::one_of;
use crate::cli::bar::Bar;
use crate::cli::open;
use crate::cli::{Output, RunArgs, print};
use crate::error::Result;
use crate::progress::Cancel;
use crate::quant::GroupCount;
use crate::studies::allocate::{self, Budget, Order};
use crate::studies::evaluate;
use crate::studies::perturbation::{Estimate, default_candidates};

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
    /// How perturbations are found: alone (only the site quantized), among (all others quantized too), fisher (fast).
    #[arg(long, default_value = "alone", value_parser = one_of::<Estimate>(Estimate::ALL.map(Estimate::name)))]
    estimate: Estimate,
    /// Counts to choose from.
    #[arg(long, value_delimiter = ',', value_name = "N")]
    candidates: Vec<GroupCount>,
    /// Points of the frontier of KL against bit operations.
    #[arg(long, default_value_t = 12, value_name = "N", value_parser = clap::value_parser!(u16).range(0..=200))]
    frontier: u16,
    /// Measure the counts on the built-in test set too.
    #[arg(long)]
    evaluate: bool,
    /// Measure the counts on the pictures of this folder too.
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Measure on this many pictures only.
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
}

impl Allocate {
    /// Does it and prints.
    pub(super) fn run(self) -> Result<()> {
        let Self { common, output, budget, estimate, candidates, frontier, evaluate, data, limit } = self;
        let session = open::session(&common, common.settings()?)?;
        let settings = session.opened().settings.clone();
        let set = if evaluate || data.is_some() { Some(evaluate::data(&session, data.as_deref(), limit)?) } else { None };
        let order = Order {
            settings: &settings,
            estimate,
            candidates: &if candidates.is_empty() { default_candidates() } else { candidates },
            budgets: &budget,
            frontier: usize::from(frontier),
            data: set.as_ref(),
        };
        let bar = Bar::default();
        let report = allocate::allocate(&session, &order, &Cancel::default(), &|progress| bar.show(&progress))?;
        drop(bar);
        print::allocation(&report, &output)
    }
}
