//! What to change so that the prediction comes back, found by search and verified by a real run.

use schemars::JsonSchema;
use serde::Serialize;

use crate::model::Site;
use crate::quant::{BitWidth, Settings};

/// How settings do on a set of pictures, by a real run.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, JsonSchema)]
pub struct Standing {
    /// Number of pictures.
    pub images: usize,
    /// Mean of `KL(p_float || p_quantized)` in nats.
    pub kl: f64,
    /// Percent of pictures whose most likely class is that of the float run.
    pub agreement: f64,
    /// Bit operations of the whole network for one picture.
    pub bops: u64,
}

/// What one site gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Change {
    /// Its address.
    pub site: Site,
    /// Bits of its activation; 32 is float.
    pub abits: BitWidth,
    /// Bits of its layer's weight; none where there is no layer.
    pub wbits: Option<BitWidth>,
}

/// A change of settings that restores the prediction.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Suggestion {
    /// The settings as they should be: `--settings-file` takes them.
    pub settings: Settings,
    /// What changes, the most useful first.
    pub changes: Vec<Change>,
    /// Before.
    pub before: Standing,
    /// After, by a real run.
    pub after: Standing,
    /// Whether the aim was reached.
    pub reached: bool,
    /// In one sentence.
    pub text: String,
}
