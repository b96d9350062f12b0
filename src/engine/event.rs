//! What the engine tells: facts as immutable snapshots of plain numbers, and progress.

use std::sync::Arc;

use crate::analysis::Report;
use crate::analysis::report::Sensitivity;
use crate::model::{Site, TokenLayout};

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
    /// Number of tokens, `N`.
    pub tokens: usize,
    /// `(H, N, N)` of the float run.
    pub float: Vec<f32>,
    /// `(H, N, N)` of the quantized run just before its quantizer.
    pub before: Vec<f32>,
    /// `(H, N, N)` of the quantized run just after its quantizer.
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

/// A fact from the engine.
#[derive(Debug, Clone)]
pub enum Event {
    /// The answer to a request.
    Snapshot(Arc<Snapshot>),
    /// Single-site sensitivities of a request, as far as the sweep is.
    Sensitivity(u64, Vec<(Site, Sensitivity)>),
    /// A request could not be answered.
    Failed(u64, String),
    /// The session could not be prepared; nothing can run.
    Broken(String),
}
