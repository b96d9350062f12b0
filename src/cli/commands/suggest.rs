//! `igq suggest`: what to change so that the prediction comes back.

use std::path::PathBuf;

use crate::cli::bar::Bar;
use crate::cli::open;
use crate::cli::{Output, RunArgs, print};
use crate::error::Result;
use crate::progress::Cancel;
use crate::studies::suggest::{self, Aim};
use crate::studies::{evaluate, repair};

/// What to change so that the prediction comes back: bits on a set of pictures, or sites in float for one picture.
#[derive(Debug, clap::Args)]
pub struct Suggest {
    #[command(flatten)]
    common: RunArgs,
    #[command(flatten)]
    output: Output,
    /// Only bring back the prediction of the picture (`--picture`): three changes that do, the cheapest first, each verified by a run.
    #[arg(long)]
    one: bool,
    /// Agreement with float within so many points of the same method with all bits at 8.
    #[arg(long, default_value_t = 1.0, value_name = "POINTS", conflicts_with = "kl")]
    within: f64,
    /// A mean KL no larger than this, instead of an agreement; with --one, of the picture (0.1).
    #[arg(long, value_name = "NATS")]
    kl: Option<f64>,
    /// Verify on the pictures of this folder; default: the built-in test set.
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Verify on this many pictures only.
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// Search with what two calibration pictures show, instead of all; the suggestion is verified on the set all the same.
    #[arg(long)]
    fast: bool,
}

impl Suggest {
    /// Does it and prints.
    pub(super) fn run(self) -> Result<()> {
        let Self { common, output, one, within, kl, data, limit, fast } = self;
        let session = open::session(&common, common.settings()?)?;
        let settings = session.opened().settings.clone();
        let (cancel, bar) = (Cancel::default(), Bar::default());
        let (suggestion, best) = if one {
            (
                repair::repair(&session, &settings, common.picture, kl.unwrap_or(repair::TARGET), &cancel, &|progress| {
                    bar.show(&progress);
                })?,
                None,
            )
        } else {
            let set = evaluate::data(&session, data.as_deref(), limit)?;
            let aim = kl.map_or(Aim::Within(within), Aim::Kl);
            let (found, best) = suggest::restore_set(&session, &settings, &set, (aim, fast), &cancel, &|progress| bar.show(&progress))?;
            (found, Some(best))
        };
        drop(bar);
        print::suggestion(&suggestion, best.as_ref(), &output)
    }
}
