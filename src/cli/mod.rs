//! What was typed, and what it resolves to. Parsing only: nothing here opens a model or a picture.

mod common;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

pub use common::Common;

use crate::analysis::perturbation::Estimate;
use crate::engine::budget::Budget;
use crate::engine::sensitivity::By;
use crate::model::BUILT_IN;
use crate::quant::GroupCount;
use crate::tui::app::View;
use crate::tui::theme::ThemeName;

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
    pub common: Common,
    /// How the screen looks.
    #[command(flatten)]
    pub look: Look,
}

/// Commands that need no terminal. The shared flags are documented at their own types.
#[allow(missing_docs)]
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Quantize the model on one picture and report every site.
    Run {
        #[command(flatten)]
        common: Common,
        #[command(flatten)]
        output: Output,
        /// Write every tensor of the run (safetensors): input, logits, each site before and after, assignments, weights.
        #[arg(long, value_name = "FILE")]
        dump: Option<PathBuf>,
    },
    /// Top-1 (or agreement with float) on a set of pictures; lists of values make a grid.
    Eval {
        #[command(flatten)]
        common: Common,
        #[command(flatten)]
        output: Output,
        /// Folder with one folder a class, or unlabelled pictures; default: the built-in test set.
        #[arg(long, value_name = "DIR")]
        data: Option<PathBuf>,
        /// Look at this many pictures only.
        #[arg(long, value_name = "N")]
        limit: Option<usize>,
    },
    /// Find the group count of every site under a budget of bit operations.
    Allocate {
        #[command(flatten)]
        common: Common,
        #[command(flatten)]
        output: Output,
        /// Bounds: a uniform group count, whose cost is the bound, or bit operations such as 2.5G.
        #[arg(long, value_delimiter = ',', default_value = "8", value_name = "N|BOPS")]
        budget: Vec<Budget>,
        /// How perturbations are found: alone (only the site quantized), among (all others quantized too), fisher (fast).
        #[arg(long, default_value = "alone")]
        estimate: Estimate,
        /// Counts to choose from.
        #[arg(long, value_delimiter = ',', value_name = "N")]
        candidates: Vec<GroupCount>,
        /// Points of the frontier of KL against bit operations.
        #[arg(long, default_value_t = 12, value_name = "N", value_parser = clap::value_parser!(u16).range(0..=200))]
        frontier: u16,
        /// Measure the counts on the built-in test set too.
        #[arg(long)]
        evaluate: bool,
        /// Measure the counts on the pictures of this folder too.
        #[arg(long, value_name = "DIR")]
        data: Option<PathBuf>,
        /// Measure on this many pictures only.
        #[arg(long, value_name = "N")]
        limit: Option<usize>,
    },
    /// Which sites lose the prediction: each by itself, and all but each.
    Sensitivity {
        #[command(flatten)]
        common: Common,
        #[command(flatten)]
        output: Output,
        /// Vary the bits or the group count of each site too.
        #[arg(long, value_delimiter = ',')]
        by: Vec<By>,
        /// Look at the pictures of this folder instead of the calibration pictures.
        #[arg(long, value_name = "DIR")]
        data: Option<PathBuf>,
        /// Look at this many of them only.
        #[arg(long, value_name = "N")]
        limit: Option<usize>,
    },
    /// What to change so that the prediction comes back: bits on a set of pictures, or sites in float for one picture.
    Suggest {
        #[command(flatten)]
        common: Common,
        #[command(flatten)]
        output: Output,
        /// Only bring back the prediction of the picture (`--picture`), by keeping sites in float.
        #[arg(long)]
        one: bool,
        /// Agreement with float within so many points of the same method with all bits at 8.
        #[arg(long, default_value_t = 1.0, value_name = "POINTS", conflicts_with = "kl")]
        within: f64,
        /// A mean KL no larger than this, instead of an agreement.
        #[arg(long, value_name = "NATS")]
        kl: Option<f64>,
        /// Verify on the pictures of this folder; default: the built-in test set.
        #[arg(long, value_name = "DIR")]
        data: Option<PathBuf>,
        /// Verify on this many pictures only.
        #[arg(long, value_name = "N")]
        limit: Option<usize>,
    },
    /// Fit the group quantizers and write them to a file for `--quantizers`.
    Calibrate {
        #[command(flatten)]
        common: Common,
        /// The safetensors file: SITE.lower, SITE.upper, for the softmax SITE.row_upper, one value a group.
        #[arg(long, value_name = "FILE")]
        output: PathBuf,
    },
    /// Draw one frame of the screen to a file or to standard output.
    Snapshot {
        #[command(flatten)]
        common: Common,
        #[command(flatten)]
        look: Look,
        /// Which view.
        #[arg(long, default_value = "overview")]
        view: View,
        /// Columns and rows.
        #[arg(long, default_value = "120x40", value_name = "WxH", value_parser = parse_size)]
        size: (u16, u16),
        /// Site that is selected, such as blocks.3.fc2.
        #[arg(long, value_name = "SITE")]
        site: Option<String>,
        /// Index of a second picture to compare the grouping with (Groups view).
        #[arg(long, value_name = "N")]
        compare: Option<usize>,
        /// Form of the frame.
        #[arg(long, default_value = "txt")]
        format: FrameFormat,
        /// File to write instead of standard output.
        #[arg(long, value_name = "FILE")]
        output: Option<PathBuf>,
    },
    /// Say what a checkpoint is and what was inferred.
    Inspect {
        #[command(flatten)]
        which: Which,
        /// Class names, one a line, instead of those of the checkpoint.
        #[arg(long, value_name = "FILE")]
        labels: Option<PathBuf>,
        #[command(flatten)]
        output: Output,
    },
    /// Compare the float logits with those of a reference file; exit code 1 when they differ by more than the tolerance.
    Verify {
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
    },
    /// Download a model of the Hugging Face Hub into its cache and print where it is.
    Fetch {
        /// OWNER/NAME, such as timm/deit_tiny_patch16_224.fb_in1k.
        #[arg(value_name = "ID")]
        id: String,
        /// Only say where it is in the cache.
        #[arg(long)]
        offline: bool,
    },
    /// Print the JSON schema of the report of `run`.
    Schema,
    /// Print completions for a shell.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
}

/// The model of a command that looks at nothing else.
#[derive(Debug, Clone, Args)]
pub struct Which {
    /// Built-in name, safetensors file, folder with model.safetensors and config.json, or OWNER/NAME on the Hugging Face Hub.
    #[arg(value_name = "MODEL", default_value = BUILT_IN, conflicts_with = "named")]
    pub given: String,
    /// The same as a flag, as in the other commands.
    #[arg(long = "model", value_name = "MODEL")]
    pub named: Option<String>,
    /// Take models of the Hub from its cache only, as HF_HUB_OFFLINE=1 does.
    #[arg(long)]
    pub offline: bool,
}

impl Which {
    /// What was named, either way.
    #[must_use]
    pub fn model(&self) -> &str {
        self.named.as_deref().unwrap_or(&self.given)
    }
}

/// Where a result goes.
#[derive(Debug, Clone, Args)]
pub struct Output {
    /// Form of the result.
    #[arg(long, default_value = "text")]
    pub format: Format,
    /// File to write instead of standard output.
    #[arg(long, value_name = "FILE")]
    pub output: Option<PathBuf>,
}

/// How the screen looks.
#[derive(Debug, Clone, Default, Args)]
pub struct Look {
    /// Colours: dark, light, contrast, colorblind, mono. NO_COLOR means mono.
    #[arg(long)]
    pub theme: Option<ThemeName>,
    /// Draw with ASCII characters only.
    #[arg(long)]
    pub ascii: bool,
    /// Leave the mouse to the terminal.
    #[arg(long)]
    pub no_mouse: bool,
}

/// Forms of a result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Tables for people.
    Text,
    /// The whole report.
    Json,
    /// One line a row.
    Csv,
    /// Tables for documents.
    Markdown,
}

/// Forms of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum FrameFormat {
    /// Characters only.
    Txt,
    /// Characters with escape sequences for colour.
    Ansi,
    /// A picture for documents.
    Svg,
}

fn parse_size(text: &str) -> std::result::Result<(u16, u16), String> {
    let parsed = text.split_once('x').and_then(|(w, h)| Some((w.parse().ok()?, h.parse().ok()?)));
    match parsed {
        Some((w, h)) if (1..=1000).contains(&w) && (1..=1000).contains(&h) => Ok((w, h)),
        _ => Err("expected columns x rows from 1x1 to 1000x1000, such as 120x40".into()),
    }
}

fn parse_tolerance(text: &str) -> std::result::Result<f32, String> {
    let expected = || "expected a number that is not negative, such as 1e-4".to_string();
    text.parse().ok().filter(|t: &f32| t.is_finite() && *t >= 0.0).ok_or_else(expected)
}
