//! `igq mixed`: bits and group counts of every site under a budget.

use std::path::PathBuf;

use crate::cli::bar::Bar;
use crate::cli::{Output, RunArgs, print};
use crate::cli::{interrupt, open};
use crate::error::Result;
use crate::quant::BitWidth;
use crate::studies::{evaluate, mixed};

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
    /// Judge on the built-in test set; default: found on every other calibration image, and the rest judge.
    #[arg(long)]
    evaluate: bool,
    /// Judge on the images of this folder.
    #[arg(long, visible_alias = "validate", value_name = "DIR")]
    data: Option<PathBuf>,
    /// Judge on this many images only.
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
}

impl Mixed {
    /// Does it and prints.
    pub(super) fn run(&self) -> Result<()> {
        let Self { common, output, budget, evaluate, data, limit } = self;
        common.refuse_overwriting(output.output.as_deref())?;
        let session = open::session(common, common.settings()?)?;
        let settings = session.opened().settings.clone();
        let set = if *evaluate || data.is_some() { Some(evaluate::data(&session, data.as_deref(), *limit)?) } else { None };
        let bar = Bar::default();
        let report = mixed::mixed(&session, &settings, budget, set.as_ref(), &interrupt::cancel()?, &|progress| bar.show(&progress))?;
        drop(bar);
        print::mixed(&report, output)
    }
}
