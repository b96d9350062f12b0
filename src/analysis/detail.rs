//! What only one site on one view shows: the attention of a softmax in both runs.

use crate::model::{Site, TokenLayout};

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
