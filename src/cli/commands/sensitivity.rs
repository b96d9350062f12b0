//! `igq sensitivity`: every site by itself, and all but each.

use std::path::PathBuf;

use crate::cli::args::one_of;
use crate::cli::bar::Bar;
use crate::cli::{Output, RunArgs, print};
use crate::cli::{interrupt, open};
use crate::error::Result;
use crate::studies::sensitivity::{self, By, Effort};
use crate::studies::shard::Shard;

/// Which sites lose the prediction: each by itself, and all but each.
#[derive(Debug, clap::Args)]
pub struct Sensitivity {
    #[command(flatten)]
    common: RunArgs,
    #[command(flatten)]
    output: Output,
    /// Vary the bits or the group count of each site too.
    #[arg(long, value_delimiter = ',', value_parser = one_of::<By>(By::ALL.map(By::name)))]
    by: Vec<By>,
    /// Look at the pictures of this folder instead of the calibration pictures.
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Look at this many of them only.
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// Look at every site on two pictures, and only at the five that lose most there on all.
    #[arg(long, conflicts_with = "shard")]
    fast: bool,
    /// Average over so many draws of quantizers whose bounds are shifted by up to 0.2 %: near a collapse one draw decides by chance.
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=100))]
    shifts: u16,
    /// Look at part K of N of the sites only, every N-th; `igq merge` puts the parts together.
    #[arg(long, value_name = "K/N")]
    shard: Option<Shard>,
}

impl Sensitivity {
    /// Does it and prints.
    pub(super) fn run(self) -> Result<()> {
        let Self { common, output, by, data, limit, fast, shifts, shard } = self;
        output.require_json_of_a_part(shard)?;
        let session = open::session(&common, common.settings()?)?;
        let settings = session.opened().settings.clone();
        let cancel = interrupt::cancel()?;
        let pictures = sensitivity::pictures(&session, data.as_deref(), limit, &cancel)?;
        let bar = Bar::default();
        let effort = Effort { shard, fast, shifts: shifts.into() };
        let report = sensitivity::report(&session, &settings, &pictures, &by, effort, &cancel, &|progress| bar.show(&progress))?;
        drop(bar);
        print::sensitivity(&report, &output)?;
        interrupt::end(report.partial)
    }
}
