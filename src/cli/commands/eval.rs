//! `igq eval`: settings on a set of pictures.

use std::path::PathBuf;

use crate::clean::tell;
use crate::cli::bar::Bar;
use crate::cli::{Output, RunArgs, print};
use crate::cli::{interrupt, open};
use crate::error::{Error, Result};
use crate::input::LeftOut;
use crate::quant::{Method, Settings};
use crate::studies::coco;
use crate::studies::evaluate::{self, Grid};
use crate::studies::shard::Shard;

/// Top-1 (or agreement with float) on a set of pictures; lists of values make a grid.
#[derive(Debug, clap::Args)]
pub struct Eval {
    #[command(flatten)]
    pub(crate) common: RunArgs,
    #[command(flatten)]
    output: Output,
    /// Annotations of a detector's pictures in COCO's format (instances.json): average precision of float and every setting. Without them the
    /// objects of the float run are the truth.
    #[arg(long, value_name = "FILE")]
    annotations: Option<PathBuf>,
    /// Folder with one folder a class, or unlabelled pictures; default: the built-in test set.
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Look at this many pictures only.
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// End at the first picture that cannot be read, instead of leaving it out.
    #[arg(long)]
    strict: bool,
    /// Run every row this many times with bounds shifted by up to 0.2 % and show means and the jitter of the KL.
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=64))]
    draws: u32,
    /// Look at part K of N of the pictures only, every N-th; `igq merge` puts the parts together.
    #[arg(long, value_name = "K/N")]
    shard: Option<Shard>,
}

impl Eval {
    /// Evaluates and prints.
    pub(super) fn run(&self) -> Result<()> {
        let Self { common, output, annotations, data, limit, strict, draws, shard } = self;
        output.require_json_of_a_part(*shard)?;
        common.refuse_overwriting(output.output.as_deref())?;
        let mut grid = common.grid()?;
        let session = open::session(common, grid.first().cloned().unwrap_or_default())?;
        for settings in &mut grid {
            *settings = session.opened().with_fit(settings)?;
        }
        if !grid.iter().any(|settings| settings.method == Method::Float) {
            grid.insert(0, Settings { method: Method::Float, ..session.opened().settings.clone() });
        }
        if session.opened().model.config.queries().is_some() {
            if shard.is_some() || *draws > 1 {
                return Err(Error::setting(
                    "--shard or --draws",
                    "a detector",
                    "a classifier: average precision is not put together of parts",
                ));
            }
            let truth = coco::Truth::of(&session, annotations.as_deref(), data.as_deref(), *limit)?;
            // The input is as the first of these pictures needs it, not as the first of the session's does.
            let wanted =
                truth.input_size(&session)?.filter(|size| common.input_size.is_none() && *size != session.opened().preprocess.size);
            let session = match wanted {
                Some(size) => open::session(&RunArgs { input_size: Some(size), ..common.clone() }, session.opened().settings.clone())?,
                None => session,
            };
            let bar = Bar::default();
            let found = coco::evaluate(&session, truth, &grid, &interrupt::cancel()?, &|progress| bar.show(&progress))?;
            drop(bar);
            for note in &found.notes {
                tell(&format!("note: {note}"));
            }
            for LeftOut { reason, count, example } in &found.left_out {
                tell(&format!("left out: {count} ({reason}), such as {example}"));
            }
            return print::objects(&found, output);
        }
        if let Some(file) = annotations {
            return Err(Error::setting("--annotations", file.display(), "a detector: this model classifies"));
        }
        let mut set = evaluate::data(&session, data.as_deref(), *limit)?;
        set.strict |= *strict;
        let asked = Grid { settings: &grid, draws: *draws as usize };
        let bar = Bar::default();
        let evaluation = evaluate::evaluate(&session, &set, asked, *shard, &interrupt::cancel()?, &|progress| bar.show(&progress))?;
        drop(bar);
        for LeftOut { reason, count, example } in &evaluation.left_out {
            tell(&format!("left out: {count} ({reason}), such as {example}"));
        }
        print::evaluation(&evaluation, output)?;
        interrupt::end(evaluation.partial)
    }
}
