//! `igq learn`: the screen, opened at the lessons.

use std::path::PathBuf;

use crate::cli::{Look, RunArgs};
use crate::error::Result;
use crate::tui::{self, Start, lessons};

/// Open the screen at the lessons: the method in eight chapters, over the model and the picture.
#[derive(Debug, clap::Args)]
pub struct Learn {
    #[command(flatten)]
    common: RunArgs,
    #[command(flatten)]
    look: Look,
    /// Folder of lessons (*.toml) instead of igq's own.
    #[arg(long, value_name = "DIR")]
    lessons: Option<PathBuf>,
    /// For a projector: nothing but the lesson and its panel.
    #[arg(long)]
    present: bool,
}

impl Learn {
    /// Opens the screen.
    pub(super) fn run(&self) -> Result<()> {
        let Self { common, look, lessons: folder, present } = self;
        let chapters = folder.as_deref().map_or_else(|| Ok(lessons::built_in()), lessons::of_folder)?;
        let start = Start { lessons: Some(chapters), present: *present, ..Start::at(common.picture) };
        tui::run(common.options()?, start, look.screen()?)
    }
}
