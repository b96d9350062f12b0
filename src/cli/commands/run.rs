//! `igq run`: one picture, every site, with the sweep.

use std::path::PathBuf;

use crate::analysis::findings;
use crate::cli::open;
use crate::cli::{Output, RunArgs, print};
use crate::error::Result;
use crate::progress::Cancel;
use crate::quant::Arithmetic;
use crate::session::REPAIRED;
use crate::studies::dump;

/// Quantize the model on one picture and report every site.
#[derive(Debug, clap::Args)]
pub struct Run {
    #[command(flatten)]
    common: RunArgs,
    #[command(flatten)]
    output: Output,
    /// Write every tensor of the run (safetensors): input, logits, each site before and after, assignments, weights.
    #[arg(long, value_name = "FILE")]
    dump: Option<PathBuf>,
    /// Only the run: not every site alone, nor what is to blame, nor the lens, which take many runs of a large model.
    #[arg(long)]
    fast: bool,
}

impl Run {
    /// Runs, sweeps and prints.
    pub(super) fn run(&self) -> Result<()> {
        let Self { common, output, dump: dump_to, fast } = self;
        common.refuse_overwriting(output.output.as_deref())?;
        common.refuse_overwriting(dump_to.as_deref())?;
        let session = open::session(common, common.settings()?)?;
        let outcome = session.run(common.picture, &session.opened().settings, &Cancel::default())?;
        if let Some(path) = dump_to {
            dump::write(path, session.opened().model.network(), &outcome)?;
        }
        let mut report = outcome.report.clone();
        if report.settings.arithmetic == Arithmetic::Integer {
            report.arithmetic = Some(session.time_arithmetics(common.picture, &report.settings, &Cancel::default())?);
        }
        if *fast {
            return print::report(&report, output);
        }
        session.sweep(&outcome, &Cancel::default(), |site, value| {
            if let Some(entry) = report.sites.iter_mut().find(|s| s.site == site) {
                entry.only_this = Some(value);
            }
        })?;
        report.lens = session.lens(&outcome, &Cancel::default())?;
        let costliest: Vec<_> = findings::by_cost(&report.sites).into_iter().take(REPAIRED).collect();
        report.blame = Some(session.blame(&outcome, &costliest, &Cancel::default())?);
        report.verdict = findings::verdict_after_sweep(&report);
        print::report(&report, output)
    }
}
