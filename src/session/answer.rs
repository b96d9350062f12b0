//! What one run leaves for the screen: plain numbers, immutable.

use crate::analysis::Report;
use crate::analysis::detail::AttentionMap;

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
