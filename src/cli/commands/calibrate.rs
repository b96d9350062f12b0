//! `igq calibrate`: fitted quantizers to a file.

use std::path::PathBuf;

use crate::clean::tell;
use crate::cli::RunArgs;
use crate::cli::open;
use crate::error::Result;
use crate::quant::files;

/// Fit the group quantizers and write them to a file for `--quantizers`.
#[derive(Debug, clap::Args)]
pub struct Calibrate {
    #[command(flatten)]
    common: RunArgs,
    /// The safetensors file: SITE.lower, SITE.upper, for the softmax SITE.row_upper, one value a group.
    #[arg(long, value_name = "FILE")]
    output: PathBuf,
}

impl Calibrate {
    /// Fits and writes.
    pub(super) fn run(&self) -> Result<()> {
        let Self { common, output } = self;
        common.refuse_overwriting(Some(output))?;
        let session = open::session(common, common.settings()?)?;
        let settings = &session.opened().settings;
        let plan = session.plan(settings)?;
        files::write(output, &plan, settings)?;
        let written = plan.sites.values().filter(|site| site.quantizers.is_some()).count();
        tell(&format!("wrote the quantizers of {written} sites to {}", output.display()));
        Ok(())
    }
}
