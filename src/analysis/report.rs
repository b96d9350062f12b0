//! The report: plain numbers about one picture under one setting. The screen, JSON, CSV, Markdown and the tests all read this struct.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::arithmetic::ArithmeticReport;
use super::metrics::ErrorNumbers;
use super::objects::ObjectsReport;
use crate::clean::escape_json;
use crate::error::{Error, Result};
use crate::model::{Config, Site, SiteKind, TokenLayout};
use crate::quant::bops::SiteBops;
use crate::quant::{BitWidth, Settings};

/// Version of the report's form; grows when a key changes its meaning or goes away.
pub const SCHEMA_VERSION: u32 = 1;

/// Everything igq has to say about one picture under one setting.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Report {
    /// [`SCHEMA_VERSION`].
    pub schema_version: u32,
    /// What was quantized.
    pub model: ModelReport,
    /// The settings as resolved.
    pub settings: Settings,
    /// What the quantizers were fitted on.
    pub calibration: CalibrationReport,
    /// What was looked at.
    pub picture: PictureReport,
    /// Float against quantized.
    pub prediction: PredictionReport,
    /// Bit operations of the whole network for one picture.
    pub bops: BopsReport,
    /// Every site, in the order of the forward pass.
    pub sites: Vec<SiteReport>,
    /// The verdict in a few sentences.
    pub verdict: String,
    /// What is to blame for what the prediction lost, from runs of this picture; none until the sweep is through.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blame: Option<Blame>,
    /// What both runs would answer after every block; empty where nobody has looked.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lens: Vec<LensPoint>,
    /// What integers gain here; where products are computed in them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arithmetic: Option<ArithmeticReport>,
    /// Wall time of plan and quantized run, in seconds.
    pub seconds: f64,
}

/// What is to blame for what the prediction of a picture lost: `KL(p_float || p_quantized)` in nats of runs that quantize only a part, and of runs
/// that leave one site in float.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Blame {
    /// Only the weights.
    pub weights: f64,
    /// Only the activations, softmax included.
    pub activations: f64,
    /// Only the softmax attentions.
    pub softmax: f64,
    /// All but one site, for those that cost most by themselves.
    pub repaired: Vec<Repaired>,
}

/// A run with one site in float.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, JsonSchema)]
pub struct Repaired {
    /// The site, weight included.
    pub site: Site,
    /// KL of all the others, in nats.
    pub kl: f64,
}

/// What was quantized.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct ModelReport {
    /// Short name.
    pub name: String,
    /// Where it came from.
    pub source: String,
    /// One line.
    pub description: String,
    /// Number of values in the weights.
    pub parameters: usize,
    /// Sizes and variants.
    pub config: Config,
    /// What was inferred, line by line.
    pub notes: Vec<String>,
    /// How tokens lie over the picture.
    pub tokens: TokenLayout,
}

/// What the quantizers were fitted on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CalibrationReport {
    /// What the pictures are.
    pub source: String,
    /// How many.
    pub images: usize,
}

/// Bit operations of a whole network for one picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
pub struct BopsReport {
    /// Everything under these settings.
    pub total: u64,
    /// What grouping adds to the products.
    pub overhead: u64,
    /// Everything in float (32 by 32 bits).
    pub float: u64,
}

/// A class by number and name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct ClassName {
    /// Its number.
    pub class: usize,
    /// Its name.
    pub label: String,
}

/// What was looked at.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct PictureReport {
    /// Short name.
    pub name: String,
    /// Where it came from.
    pub source: String,
    /// Pixels a row, as decoded.
    pub width: usize,
    /// Rows, as decoded.
    pub height: usize,
    /// Its true class, where it is known.
    pub truth: Option<ClassName>,
    /// How it became the input tensor.
    pub preprocessing: String,
}

/// One class of a prediction.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct ClassProbability {
    /// Its number.
    pub class: usize,
    /// Its name.
    pub label: String,
    /// Its softmax probability.
    pub probability: f64,
}

/// What both runs would answer after one block.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct LensPoint {
    /// The block, such as `blocks.3`; `patch` for the embedding before the first.
    pub after: String,
    /// Most likely class of the float run there.
    pub float: ClassProbability,
    /// Most likely class of the quantized run there.
    pub quantized: ClassProbability,
    /// Probability there of the class that the whole float run answers: float, quantized.
    pub of_answer: (f64, f64),
    /// `KL(p_float || p_quantized)` in nats there.
    pub kl: f64,
}

/// Float against quantized.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct PredictionReport {
    /// The five most likely classes of the float run.
    pub float: Vec<ClassProbability>,
    /// The five most likely classes of the quantized run.
    pub quantized: Vec<ClassProbability>,
    /// Whether the most likely class changed.
    pub flipped: bool,
    /// `KL(p_float || p_quantized)` in nats.
    pub kl: f64,
    /// Probability of the first class less the second, float.
    pub margin_float: f64,
    /// The same, quantized.
    pub margin_quantized: f64,
    /// Probability of the float run's class in the quantized run less that of the most likely other class: negative after a flip.
    pub margin_kept: f64,
    /// The objects of a detector, float against quantized.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub objects: Option<ObjectsReport>,
}

/// One site of a quantized run.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct SiteReport {
    /// Its address.
    pub site: Site,
    /// Which operand.
    pub kind: SiteKind,
    /// The layer in the checkpoint whose input it is.
    pub layer: Option<String>,
    /// Bits of the activation; 32 is float.
    pub bits: BitWidth,
    /// Number of quantizers; 0 where it stays in float.
    pub groups: usize,
    /// Channels, or for the softmax rows.
    pub channels: usize,
    /// Tokens of the picture.
    pub tokens: usize,
    /// Where they lie, and which softmax row belongs to which head and token.
    pub layout: TokenLayout,
    /// Bit operations for one picture.
    pub bops: SiteBops,
    /// The tensor just before against just after its own quantizer, in the quantized run.
    pub local: LocalError,
    /// The float run against the quantized run (after the quantizer) at the same place.
    pub cumulative: ErrorNumbers,
    /// One for each group.
    pub quantizers: Vec<QuantizerReport>,
    /// The group of each channel or row.
    pub assignment: Vec<u16>,
    /// The range of each channel or row in the quantized run.
    pub ranges: RangesReport,
    /// The layer's weight; none for operands of matrix products and where it stays in float.
    pub weight: Option<WeightReport>,
    /// What happens when only this site (and its layer's weight) is quantized; filled in by the sweep.
    pub only_this: Option<Sensitivity>,
}

/// Local error of a site.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, JsonSchema)]
pub struct LocalError {
    /// The common numbers.
    #[serde(flatten)]
    pub error: ErrorNumbers,
    /// Root mean square of error over the value's own step; about 0.29 is plain rounding, more means clipping. 0 in float.
    pub rmse_over_step: f64,
    /// Share of values outside the codes of their quantizer.
    pub clipped: f64,
    /// Share of the `2^b` codes in use, over the groups that have members.
    pub codes_used: f64,
}

/// One group's quantizer and what it met.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, JsonSchema)]
pub struct QuantizerReport {
    /// `l`, zero included.
    pub lower: f32,
    /// `u`, zero included.
    pub upper: f32,
    /// `s`; 0 for a degenerate range, which quantizes to itself.
    pub scale: f32,
    /// `z`
    pub zero_point: f32,
    /// Channels or rows of this picture.
    pub members: usize,
    /// Share of the members' values that were clipped.
    pub clipped: f64,
    /// Number of different codes in use.
    pub codes_used: usize,
}

/// Ranges of channels or rows.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct RangesReport {
    /// Smallest value of each.
    pub min: Vec<f32>,
    /// Largest value of each.
    pub max: Vec<f32>,
}

/// A layer's quantized weight.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, JsonSchema)]
pub struct WeightReport {
    /// Its bits.
    pub bits: BitWidth,
    /// Mean share of their range that the bounds of output channels (or blocks) keep.
    pub shrink: f64,
    /// Bits for each value, scales included.
    pub effective_bits: f64,
    /// Mean squared error.
    pub mse: f64,
    /// Signal to quantization noise in dB; none where nothing changed.
    pub sqnr_db: Option<f64>,
}

/// A single-site run against float.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, JsonSchema)]
pub struct Sensitivity {
    /// `KL(p_float || p_quantized)` in nats.
    pub kl: f64,
    /// Whether the most likely class changed.
    pub flipped: bool,
}

impl Report {
    /// The report of one site.
    #[must_use]
    pub fn site(&self, site: Site) -> Option<&SiteReport> {
        self.sites.iter().find(|s| s.site == site)
    }
}

/// Pretty JSON with a newline at its end; a number that is not finite, which reports do not hold, would be `null`.
///
/// # Errors
/// When a value cannot be written as JSON.
pub fn json<T: serde::Serialize>(value: &T) -> Result<String> {
    let text = serde_json::to_string_pretty(value);
    text.map(|t| escape_json(t + "\n")).map_err(|e| Error::Output { what: "JSON", problem: e.to_string() })
}
