//! `igq merge`: the report of a whole study from those of its parts.

use std::path::PathBuf;

use crate::cli::{Output, print};
use crate::error::{Error, Result};
use crate::studies::merge::{self, Merged};

/// Put the JSON reports that `--shard K/N` gave together: exactly the report of the whole, but for the seconds, which add up.
#[derive(Debug, clap::Args)]
pub struct Merge {
    /// The reports of all parts.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    #[command(flatten)]
    output: Output,
}

impl Merge {
    /// Merges and prints.
    pub(super) fn run(&self) -> Result<()> {
        if let Some(output) = self.output.output.as_ref().filter(|output| self.files.contains(output)) {
            return Err(Error::setting("--output", output.display(), "another file than the reports that are read"));
        }
        match merge::merge(&self.files)? {
            Merged::Evaluation(whole) => print::evaluation(&whole, &self.output),
            Merged::Sensitivity(whole) => print::sensitivity(&whole, &self.output),
            Merged::Perturbation(whole) => print::perturbations(&whole, &self.output),
        }
    }
}
