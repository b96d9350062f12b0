//! The commands that need no screen, one file each: what they take and what they do. The same session and the same report as the screen.
//! Results go to standard output, all else to standard error.

mod allocate;
mod calibrate;
mod diff;
mod eval;
mod export;
mod fetch;
mod flips;
mod inspect;
mod learn;
mod merge;
mod mixed;
mod report;
mod run;
mod sensitivity;
mod snapshot;
mod suggest;
mod verify;

use clap::{CommandFactory, Subcommand};

use super::{Cli, print};
use crate::analysis;
use crate::analysis::report::json;
use crate::error::{Error, Result};
use crate::tui::config;

/// Commands that need no terminal.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Quantize the model on one picture and report every site.
    Run(run::Run),
    /// Top-1 (or agreement with float) on a set of pictures; lists of values make a grid.
    Eval(eval::Eval),
    /// Find the group count of every site under a budget of bit operations.
    Allocate(allocate::Allocate),
    /// Mixed precision: bits and group counts of every site together, within the cost of uniform bits.
    Mixed(mixed::Mixed),
    /// Which sites lose the prediction: each by itself, and all but each.
    Sensitivity(sensitivity::Sensitivity),
    /// What to change so that the prediction comes back: bits on a set of pictures, or sites in float for one picture.
    Suggest(suggest::Suggest),
    /// Put the reports of the parts of one study together.
    Merge(merge::Merge),
    /// List the images whose most likely class changes, with the five most likely classes of both runs.
    Flips(flips::Flips),
    /// Compare two JSON reports of `igq run`, or two of `igq eval`.
    Diff(diff::Diff),
    /// Fit the group quantizers and write them to a file for `--quantizers`.
    Calibrate(calibrate::Calibrate),
    /// Write settings, quantizers, quantized weights and an ONNX graph of the quantized model into a folder.
    Export(export::Export),
    /// Draw one frame of the screen to a file or to standard output.
    Snapshot(snapshot::Snapshot),
    /// Write one HTML page of a run.
    Report(report::Report),
    /// Open the screen at the lessons: the method in eight chapters, over the model and the picture.
    Learn(learn::Learn),
    /// Say what a checkpoint is and what was inferred.
    Inspect(inspect::Inspect),
    /// Compare the float logits with those of a reference file; exit code 1 when they differ by more than the tolerance.
    Verify(verify::Verify),
    /// Download a model of the Hugging Face Hub into its cache and print where it is.
    Fetch(fetch::Fetch),
    /// Print the JSON schema of the report of `run`.
    Schema,
    /// Print the table of keys.
    Keys,
    /// Print where the configuration file is looked for, and every key that may stand in it.
    Config,
    /// Print the manual page; with a folder, write the pages of all commands into it.
    Man {
        /// The folder.
        #[arg(long, value_name = "DIR")]
        output: Option<std::path::PathBuf>,
    },
    /// Print completions for a shell.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
}

impl Command {
    /// Does what a command says.
    ///
    /// # Errors
    /// When it cannot be done.
    pub fn run(self) -> Result<()> {
        match self {
            Self::Run(command) => command.run(),
            Self::Eval(command) => command.run(),
            Self::Allocate(command) => command.run(),
            Self::Mixed(command) => command.run(),
            Self::Sensitivity(command) => command.run(),
            Self::Suggest(command) => command.run(),
            Self::Merge(command) => command.run(),
            Self::Flips(command) => command.run(),
            Self::Diff(command) => command.run(),
            Self::Calibrate(command) => command.run(),
            Self::Export(command) => command.run(),
            Self::Snapshot(command) => command.run(),
            Self::Report(command) => command.run(),
            Self::Learn(command) => command.run(),
            Self::Inspect(command) => command.run(),
            Self::Verify(command) => command.run(),
            Self::Fetch(command) => command.run(),
            Self::Schema => print::deliver(None, &json(&schemars::schema_for!(analysis::Report))?),
            Self::Keys => print::deliver(None, &crate::tui::keymap::markdown()),
            Self::Config => {
                let place = config::path().map_or_else(|| "nowhere: there is no home folder".into(), |path| path.display().to_string());
                print::deliver(None, &format!("# {place}\n{}", config::EXAMPLE))
            }
            Self::Man { output: Some(folder) } => clap_mangen::generate_to(Cli::command(), &folder).map_err(Error::io("write", &folder)),
            Self::Man { output: None } => {
                let mut page = Vec::new();
                let written = clap_mangen::Man::new(Cli::command()).render(&mut page);
                written.map_err(|e| Error::content("manual page", e.to_string(), "try again"))?;
                print::deliver(None, &String::from_utf8_lossy(&page))
            }
            Self::Completions { shell } => {
                let mut script = Vec::new();
                clap_complete::generate(shell, &mut Cli::command(), "igq", &mut script);
                print::deliver(None, &String::from_utf8_lossy(&script))
            }
        }
    }
}
