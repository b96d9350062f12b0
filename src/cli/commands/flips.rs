//! `igq flips`: the pictures whose class changes.

use std::path::PathBuf;

use crate::cli::bar::Bar;
use crate::cli::{Output, RunArgs, print};
use crate::cli::{interrupt, open};
use crate::error::Result;
use crate::studies::{evaluate, flips};

/// List the images whose most likely class changes, with the five most likely classes of both runs.
#[derive(Debug, clap::Args)]
pub struct Flips {
    #[command(flatten)]
    common: RunArgs,
    #[command(flatten)]
    output: Output,
    /// Folder with one folder a class, or unlabelled images; default: the built-in test set.
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Look at this many images only.
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
}

impl Flips {
    /// Looks and prints.
    pub(super) fn run(&self) -> Result<()> {
        let Self { common, output, data, limit } = self;
        common.refuse_overwriting(output.output.as_deref())?;
        let session = open::session(common, common.settings()?)?;
        let settings = session.opened().settings.clone();
        let set = evaluate::data(&session, data.as_deref(), *limit)?;
        let bar = Bar::default();
        let report = flips::flips(&session, &settings, &set, &interrupt::cancel()?, &|progress| bar.show(&progress))?;
        drop(bar);
        print::flips(&report, output)?;
        interrupt::end(report.partial)
    }
}
