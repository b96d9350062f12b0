//! Step 9 of the data flow: what was typed, what it resolves to, the commands that need no screen, and how their results are printed. The
//! only place that names clap.

mod args;
pub mod bar;
mod commands;
mod grid;
mod interrupt;
mod open;
mod print;
mod session;

use clap::Parser;

pub use args::{Format, FrameFormat, JudgedOn, Look, Output, RunArgs, Which};
pub use commands::Command;
pub use session::expanded;

use crate::error::Result;
use crate::tui;

/// See a vision transformer being quantized, live (instance-aware group quantization, IGQ-ViT).
///
/// Without a command, the program opens on the model and the picture.
#[derive(Debug, Parser)]
#[command(version, about, max_term_width = 100)]
pub struct Cli {
    /// What to do without a screen.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// Flags of the screen.
    #[command(flatten)]
    pub common: RunArgs,
    /// How the screen looks.
    #[command(flatten)]
    pub look: Look,
}

impl Cli {
    /// Does what was typed: a command, or the screen.
    ///
    /// # Errors
    /// When it cannot be done.
    pub fn run(self) -> Result<()> {
        match self.command {
            Some(command) => command.run(),
            None => tui::run(self.common.options()?, session::start(&self.common)?, self.look.screen()?),
        }
    }
}
