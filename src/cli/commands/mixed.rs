//! `igq mixed`: bits and group counts of every site under a budget.

use crate::cli::bar::Bar;
use crate::cli::{JudgedOn, Output, RunArgs, print};
use crate::cli::{interrupt, open};
use crate::error::Result;
use crate::quant::BitWidth;
use crate::studies::mixed;

/// Mixed precision: choose bits of activations and weights and group counts of every site together, within the cost of uniform bits.
#[derive(Debug, clap::Args)]
pub struct Mixed {
    #[command(flatten)]
    common: RunArgs,
    #[command(flatten)]
    output: Output,
    /// Uniform bits whose cost is the bound.
    #[arg(long, value_delimiter = ',', default_value = "4,6,8", value_name = "BITS")]
    budget: Vec<BitWidth>,
    #[command(flatten)]
    judged_on: JudgedOn,
}

impl Mixed {
    /// Does it and prints.
    pub(super) fn run(&self) -> Result<()> {
        let Self { common, output, budget, judged_on } = self;
        common.refuse_overwriting(output.output.as_deref())?;
        let session = open::session(common, common.settings()?)?;
        let settings = session.opened().settings.clone();
        let set = judged_on.set(&session)?;
        let bar = Bar::default();
        let report = mixed::mixed(&session, &settings, budget, set.as_ref(), &interrupt::cancel()?, &|progress| bar.show(&progress))?;
        drop(bar);
        print::mixed(&report, output)
    }
}
