//! `igq inspect`: what a checkpoint is and what was inferred.

use std::path::PathBuf;

use crate::cli::open;
use crate::cli::{Output, Which, print};
use crate::error::Result;
use crate::studies::inspect;

/// Say what a checkpoint is and what was inferred.
#[derive(Debug, clap::Args)]
pub struct Inspect {
    #[command(flatten)]
    which: Which,
    /// Class names, one a line, instead of those of the checkpoint.
    #[arg(long, value_name = "FILE")]
    labels: Option<PathBuf>,
    #[command(flatten)]
    output: Output,
}

impl Inspect {
    /// Does it and prints.
    pub(super) fn run(self) -> Result<()> {
        let Self { which, labels, output } = self;
        let mut model = open::model(&which)?;
        if let Some(path) = labels {
            model.name_classes(&path)?;
        }
        print::inspection(&inspect::inspect(&model)?, &output)
    }
}
