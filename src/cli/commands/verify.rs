//! `igq verify`: float logits against a reference file.

use std::path::PathBuf;

use crate::clean::tell;
use crate::cli::args::parse_tolerance;
use crate::cli::open;
use crate::cli::{Output, Which, print};
use crate::error::{Error, Result};
use crate::studies::verify;

/// Compare the float logits with those of a reference file; exit code 1 when they differ by more than the tolerance.
#[derive(Debug, clap::Args)]
pub struct Verify {
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    output: Output,
    /// Safetensors file with the tensors `input` (B, C, height, width) and `logits` (B, classes).
    #[arg(long, value_name = "FILE")]
    expected: PathBuf,
    /// Largest absolute difference of a logit that passes.
    #[arg(long, default_value = "1e-4", value_name = "X", value_parser = parse_tolerance)]
    tolerance: f32,
}

impl Verify {
    /// Compares and prints.
    pub(super) fn run(&self) -> Result<()> {
        let Self { which, output, expected, tolerance } = self;
        let mut model = open::model(which)?;
        for note in &model.notes {
            tell(&format!("note: {note}"));
        }
        let found = verify::verify(&mut model, expected, *tolerance)?;
        print::verification(&found, output)?;
        if found.within {
            return Ok(());
        }
        if let Some(regions) = found.regions.as_ref().filter(|regions| !regions.all()) {
            let ((all, proposed), (objects, seen)) = (regions.proposals, regions.objects);
            let problem = format!(
                "{proposed} of {all} proposals and {seen} of {objects} objects of the reference are found, expected all; {} other objects, expected none",
                regions.more
            );
            return Err(Error::content(found.model, problem, "check that model and reference belong together"));
        }
        let masks = found.largest_mask_difference.filter(|_| found.largest_difference <= *tolerance);
        let problem = match masks {
            Some(masks) => format!("the masks differ by {masks:e}, expected at most ten times {tolerance:e}"),
            None => format!("the logits differ by {:e}, expected at most {tolerance:e}", found.largest_difference),
        };
        Err(Error::content(found.model, problem, "check that model and reference belong together, or give --tolerance"))
    }
}
