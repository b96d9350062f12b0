//! `igq diff`: two saved reports.

use std::path::PathBuf;

use crate::cli::{Output, print};
use crate::error::{Error, Result};
use crate::studies::diff;

/// Compare two JSON reports of `igq run`, or two of `igq eval`: settings, predictions, and every site or row.
#[derive(Debug, clap::Args)]
pub struct Diff {
    /// The first report.
    first: PathBuf,
    /// The second.
    second: PathBuf,
    #[command(flatten)]
    output: Output,
}

impl Diff {
    /// Compares and prints.
    pub(super) fn run(&self) -> Result<()> {
        let Self { first, second, output } = self;
        if let Some(output) = output.output.as_ref().filter(|output| [first, second].contains(output)) {
            return Err(Error::setting("--output", output.display(), "another file than the reports that are read"));
        }
        print::diff(&diff::diff(first, second)?, output)
    }
}
