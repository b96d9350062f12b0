//! Kinds of quantized operands: which operand of a transformer a site is.

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::Error;

/// Which operand of a transformer a site is (method, section 2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum SiteKind {
    /// Input of the patch embedding, a linear layer over the pixels of a patch.
    Patch,
    /// Input of the fused query-key-value projection.
    Qkv,
    /// Queries with their positions, input of the query and key projections.
    Qk,
    /// Input of the value projection where queries and keys have another.
    #[serde(rename = "v_in")]
    VIn,
    /// Queries with their positions, input of the query projection of an attention to others.
    #[serde(rename = "q_in")]
    QIn,
    /// What they look at, with its positions, input of the key projection.
    #[serde(rename = "k_in")]
    KIn,
    /// Queries, left operand of `Q K^T`.
    Q,
    /// Keys, right operand of `Q K^T`.
    K,
    /// Values, right operand of `A V`.
    V,
    /// Softmax attention, left operand of `A V`; grouped over rows instead of channels.
    Attn,
    /// Input of the attention's output projection.
    Proj,
    /// The map that deformable attention samples, input of its projection.
    Value,
    /// Input of the layers that say where deformable attention samples, and with which weights.
    Sample,
    /// Input of an output projection: of deformable attention, of proposals.
    Out,
    /// Input of the first MLP layer.
    Fc1,
    /// Input of the second MLP layer (after GELU).
    Fc2,
    /// Input of the layer that merges two by two tokens into one between stages.
    Merge,
    /// Input of the first convolution of a pair.
    Cv1,
    /// Input of the second.
    Cv2,
    /// Input of the third convolution of a block.
    Cv3,
    /// Input of the convolution beside a block that makes its input fit its output.
    Down,
    /// Pixels, input of the first convolution.
    Stem,
    /// Sines of the reference boxes, input of the first layer of query positions.
    #[serde(rename = "ref.0")]
    Ref0,
    /// Input of the second layer of query positions.
    #[serde(rename = "ref.1")]
    Ref1,
    /// Input of the classifier.
    Head,
    /// Input of the second classifier of a distilled model.
    #[serde(rename = "head_dist")]
    HeadDist,
    /// Queries, input of the one layer that gives them their classes.
    Cls,
    /// Input of the first layer that gives detection tokens their classes.
    #[serde(rename = "cls.0")]
    Cls0,
    /// Input of the second.
    #[serde(rename = "cls.1")]
    Cls1,
    /// Input of the third.
    #[serde(rename = "cls.2")]
    Cls2,
    /// Input of the first layer that gives detection tokens or queries their boxes.
    #[serde(rename = "box.0")]
    Box0,
    /// Input of the second.
    #[serde(rename = "box.1")]
    Box1,
    /// Input of the third.
    #[serde(rename = "box.2")]
    Box2,
    /// Input of a depthwise convolution.
    Dw,
    /// Input of the layer behind it.
    Pw,
    /// Input of the layer that makes the map of which masks are products.
    Map,
    /// Input of the layer that makes the queries' side of masks.
    Query,
    /// A map of the backbone's, input of the convolution that gives it the width of the pyramid.
    Lateral,
    /// Input of a convolution of three by three.
    Conv,
    /// Flattened features of a region, or the output of the layer before: input of a fully connected layer.
    Fc,
    /// Input of the layer that gives regions their boxes.
    Reg,
    /// Input of the layer that gives the pixels of masks their logits.
    Logits,
}

impl SiteKind {
    /// All kinds, in the order of the forward pass.
    pub const ALL: [Self; 42] = [
        Self::Patch,
        Self::Qkv,
        Self::Qk,
        Self::VIn,
        Self::QIn,
        Self::KIn,
        Self::Q,
        Self::K,
        Self::V,
        Self::Attn,
        Self::Proj,
        Self::Value,
        Self::Sample,
        Self::Out,
        Self::Fc1,
        Self::Fc2,
        Self::Merge,
        Self::Cv1,
        Self::Cv2,
        Self::Cv3,
        Self::Down,
        Self::Stem,
        Self::Ref0,
        Self::Ref1,
        Self::Head,
        Self::HeadDist,
        Self::Cls,
        Self::Cls0,
        Self::Cls1,
        Self::Cls2,
        Self::Box0,
        Self::Box1,
        Self::Box2,
        Self::Dw,
        Self::Pw,
        Self::Map,
        Self::Query,
        Self::Lateral,
        Self::Conv,
        Self::Fc,
        Self::Reg,
        Self::Logits,
    ];

    /// The name used in addresses and flags.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Patch => "patch",
            Self::Qkv => "qkv",
            Self::Qk => "qk",
            Self::VIn => "v_in",
            Self::QIn => "q_in",
            Self::KIn => "k_in",
            Self::Q => "q",
            Self::K => "k",
            Self::V => "v",
            Self::Attn => "attn",
            Self::Proj => "proj",
            Self::Value => "value",
            Self::Sample => "sample",
            Self::Out => "out",
            Self::Fc1 => "fc1",
            Self::Fc2 => "fc2",
            Self::Merge => "merge",
            Self::Cv1 => "cv1",
            Self::Cv2 => "cv2",
            Self::Cv3 => "cv3",
            Self::Down => "down",
            Self::Stem => "stem",
            Self::Ref0 => "ref.0",
            Self::Ref1 => "ref.1",
            Self::Head => "head",
            Self::HeadDist => "head_dist",
            Self::Cls => "cls",
            Self::Cls0 => "cls.0",
            Self::Cls1 => "cls.1",
            Self::Cls2 => "cls.2",
            Self::Box0 => "box.0",
            Self::Box1 => "box.1",
            Self::Box2 => "box.2",
            Self::Dw => "dw",
            Self::Pw => "pw",
            Self::Map => "map",
            Self::Query => "query",
            Self::Lateral => "lateral",
            Self::Conv => "conv",
            Self::Fc => "fc",
            Self::Reg => "reg",
            Self::Logits => "logits",
        }
    }

    /// One sentence for people who meet the name for the first time.
    #[must_use]
    pub const fn describe(self) -> &'static str {
        match self {
            Self::Patch => "pixels of each patch, input of the patch embedding",
            Self::Qkv => "input of the query-key-value projection",
            Self::Qk => "queries with their positions, input of the query and key projections",
            Self::VIn => "input of the value projection, without positions",
            Self::QIn => "queries with positions, input of the query projection",
            Self::KIn => "the map with positions, input of the key projection",
            Self::Q => "queries, operand of Q·Kᵀ",
            Self::K => "keys, operand of Q·Kᵀ",
            Self::V => "values, operand of A·V",
            Self::Attn => "softmax attention, operand of A·V (grouped by row)",
            Self::Proj => "input of the attention's output projection",
            Self::Value => "the map that is sampled, input of its projection",
            Self::Sample => "input of the layers that say where and how to sample",
            Self::Out => "input of an output layer",
            Self::Fc1 => "input of the first MLP layer",
            Self::Fc2 => "input of the second MLP layer, after GELU",
            Self::Merge => "input of the layer that merges two by two tokens",
            Self::Cv1 => "input of the first convolution",
            Self::Cv2 => "input of the second convolution",
            Self::Cv3 => "input of the third convolution",
            Self::Down => "input of the convolution beside the block",
            Self::Stem => "pixels, input of the first convolution",
            Self::Ref0 => "sines of the boxes, input of the first layer of query positions",
            Self::Ref1 => "input of the second layer of query positions, after ReLU",
            Self::Head => "input of the classifier",
            Self::HeadDist => "input of the classifier on the distillation token",
            Self::Cls => "queries, input of the layer of their classes",
            Self::Cls0 => "detection tokens, input of the first layer of their classes",
            Self::Cls1 => "input of the second layer of the classes, after ReLU",
            Self::Cls2 => "input of the third layer of the classes, after ReLU",
            Self::Box0 => "input of the first layer of the boxes",
            Self::Box1 => "input of the second layer of the boxes, after ReLU",
            Self::Box2 => "input of the third layer of the boxes, after ReLU",
            Self::Dw => "input of the depthwise convolution",
            Self::Pw => "input of the layer behind the depthwise convolution",
            Self::Map => "input of the layer of the map of masks",
            Self::Query => "input of the layer of the queries' side of masks",
            Self::Lateral => "a map of the backbone, input of the convolution to the pyramid's width",
            Self::Conv => "input of a convolution of 3x3",
            Self::Fc => "input of a layer behind regions",
            Self::Reg => "input of the layer of the boxes of regions",
            Self::Logits => "input of the layer of the pixels of masks",
        }
    }

    /// Whether the site belongs to the first or the last layer of a network.
    #[must_use]
    pub const fn is_first_or_last(self) -> bool {
        matches!(self, Self::Patch | Self::Stem | Self::Head | Self::HeadDist | Self::Cls | Self::Cls2 | Self::Box2)
            || matches!(self, Self::Reg | Self::Logits)
    }

    /// Whether only detectors with a decoder have such sites.
    #[must_use]
    pub const fn is_of_decoders(self) -> bool {
        matches!(
            self,
            Self::Qk | Self::VIn | Self::Value | Self::Sample | Self::Out | Self::Cv1 | Self::Cv2 | Self::Ref0 | Self::Ref1 | Self::Cls
        ) || matches!(self, Self::Dw | Self::Pw | Self::Map | Self::Query | Self::QIn | Self::KIn | Self::Cv3 | Self::Down | Self::Stem)
            || matches!(self, Self::Lateral | Self::Conv | Self::Fc | Self::Reg | Self::Logits)
    }

    /// Whether it is the input of a convolution.
    #[must_use]
    pub const fn is_convolution(self) -> bool {
        matches!(self, Self::Cv1 | Self::Cv2 | Self::Cv3 | Self::Down | Self::Stem | Self::Dw | Self::Lateral | Self::Conv)
    }

    /// Whether the site is a softmax attention, whose groups are over rows (method, section 5).
    #[must_use]
    pub const fn is_softmax(self) -> bool {
        matches!(self, Self::Attn)
    }
}

impl fmt::Display for SiteKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for SiteKind {
    type Err = Error;

    fn from_str(s: &str) -> Result<Self, Error> {
        Self::ALL.into_iter().find(|kind| kind.name() == s).ok_or_else(|| {
            let names = Self::ALL.map(Self::name).join(", ");
            Error::setting("kind of site", s, format!("one of {names}"))
        })
    }
}
