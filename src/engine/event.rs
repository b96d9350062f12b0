//! What the engine tells: facts as immutable snapshots of plain numbers, and progress.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::evaluate::EvaluationRow;
use crate::analysis::Report;
use crate::analysis::allocation::Table;
use crate::analysis::perturbation::Perturbation;
use crate::analysis::report::{Prediction, Sensitivity};
use crate::analysis::suggestion::Suggestion;
use crate::model::{Received, Site, TokenLayout};
use crate::quant::{GroupCount, Settings};

/// How far a long computation is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Progress {
    /// What is being computed; empty when nothing is.
    pub stage: String,
    /// Parts done.
    pub done: usize,
    /// Parts in all; 0 if unknown.
    pub total: usize,
}

impl Progress {
    /// How much of a file has come from the Hub, in megabytes.
    #[must_use]
    pub fn received(received: &Received) -> Self {
        let mega = |bytes: usize| bytes.div_ceil(1_000_000);
        Self { stage: format!("MB of {} received", received.file), done: mega(received.bytes), total: mega(received.of) }
    }
}

/// Counts up towards `total`, and makes a stage of every step.
pub(super) struct Counter {
    stage: &'static str,
    done: AtomicUsize,
    total: usize,
}

impl Counter {
    pub(super) const fn new(stage: &'static str, total: usize) -> Self {
        Self { stage, done: AtomicUsize::new(0), total }
    }

    pub(super) fn add(&self, more: usize) -> Progress {
        let done = self.done.fetch_add(more, Ordering::Relaxed) + more;
        Progress { stage: self.stage.into(), done, total: self.total }
    }
}

/// The pixels that a model sees, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PictureView {
    /// Pixels a row.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// Colours, row by row.
    pub rgb: Vec<[u8; 3]>,
}

/// The softmax attention of one site in both runs.
#[derive(Debug, Clone, PartialEq)]
pub struct AttentionMap {
    /// Its address.
    pub site: Site,
    /// Number of heads, `H`.
    pub heads: usize,
    /// Where its tokens lie, and which of them see one another.
    pub layout: TokenLayout,
    /// Rows of the float run, in the order of [`TokenLayout::softmax_row`]; a row has as many values as tokens see one another.
    pub float: Vec<f32>,
    /// Those of the quantized run just before their quantizer.
    pub before: Vec<f32>,
    /// Those of the quantized run just after their quantizer.
    pub quantized: Vec<f32>,
}

/// Everything that one run leaves for the screen.
#[derive(Debug, Clone, PartialEq)]
pub struct Snapshot {
    /// Which request it answers.
    pub id: u64,
    /// Index of the picture in the session's set.
    pub picture: usize,
    /// The numbers.
    pub report: Report,
    /// The softmax attentions, in the order of the forward pass.
    pub attention: Vec<AttentionMap>,
    /// What the model sees.
    pub view: PictureView,
    /// The same for the second picture, where one was asked for.
    pub compare: Option<Box<Snapshot>>,
}

/// What is known once a session is open, before any run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionInfo {
    /// Short name of the model.
    pub model: String,
    /// One line about the model.
    pub description: String,
    /// One line about the preprocessing.
    pub preprocessing: String,
    /// What was inferred.
    pub notes: Vec<String>,
    /// Name of the picture set.
    pub pictures: String,
    /// Number of pictures in it.
    pub picture_count: usize,
    /// How tokens lie over the picture.
    pub tokens: TokenLayout,
    /// All sites, in the order of the forward pass.
    pub sites: Vec<Site>,
}

/// Perturbations as far as they are known, and what can be allocated from them.
#[derive(Debug, Clone, PartialEq)]
pub struct Perturbed {
    /// The settings they belong to.
    pub settings: Settings,
    /// The perturbations.
    pub perturbation: Perturbation,
    /// Everything that `Table::solve` needs: solving is instant, and can be done wherever the numbers are shown.
    pub table: Table,
    /// The fast estimate against these for each candidate; empty while that is not known.
    pub rank_correlation: Vec<(GroupCount, Option<f64>)>,
    /// Number of sites in all.
    pub total: usize,
    /// Whether nothing more will come.
    pub done: bool,
}

/// One row of a comparison.
#[derive(Debug, Clone, PartialEq)]
pub struct ComparisonRow {
    /// The settings of the row.
    pub settings: Settings,
    /// Bit operations of the whole network for one picture.
    pub bops: u64,
    /// The prediction for the picture.
    pub prediction: Prediction,
    /// What the evaluation set says so far; none before its first pictures.
    pub evaluation: Option<EvaluationRow>,
}

/// Methods by bit-widths.
#[derive(Debug, Clone, PartialEq)]
pub struct Comparison {
    /// The settings that the rows start from.
    pub settings: Settings,
    /// Index of the picture.
    pub picture: usize,
    /// Rows, method by method, narrow bits first.
    pub rows: Vec<ComparisonRow>,
    /// Name of the evaluation set.
    pub data: String,
    /// Pictures of it that were seen.
    pub seen: usize,
    /// Pictures of it in all.
    pub total: usize,
}

/// A fact from the engine.
#[derive(Debug, Clone)]
pub enum Event {
    /// The answer to a request.
    Snapshot(Arc<Snapshot>),
    /// Single-site sensitivities of a request, as far as the sweep is.
    Sensitivity(u64, Vec<(Site, Sensitivity)>),
    /// Perturbations, as far as the study is.
    Perturbed(Arc<Perturbed>),
    /// A comparison, as far as the study is.
    Compared(Arc<Comparison>),
    /// A suggestion, found and verified.
    Suggested(Arc<Suggestion>),
    /// More pictures are there: the index of the first of them, and the number of all.
    Pictures(usize, usize),
    /// They could not be opened.
    PicturesFailed(String),
    /// A study could not be finished.
    StudyFailed(String),
    /// A request could not be answered.
    Failed(u64, String),
    /// The session could not be prepared; nothing can run.
    Broken(String),
}
