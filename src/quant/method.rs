//! Methods by name: how values share quantizers, and the published shapes for the softmax and for what follows GELU. Names only.

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::model::SiteKind;

/// How the values of a site share quantizers (method, section 7).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Method {
    /// Nothing is quantized.
    Float,
    /// One quantizer for the site, min and max over the calibration pictures.
    Layer,
    /// One quantizer for the site, min and max of this picture.
    LayerDynamic,
    /// One quantizer for every channel, min and max over the calibration pictures; not hardware-friendly, a reference.
    Channel,
    /// Groups of neighbouring channels, min and max over the calibration pictures.
    Contiguous,
    /// Channels clustered once by their calibration ranges, the same groups for every picture.
    Sorted,
    /// Instance-aware groups: fixed quantizers, channels assigned by this picture's ranges (the paper). That the bounds of a group are the
    /// means of its members' is our reading of the paper's distance \[D\]; its published 6/6 results are nearly float, while means clip
    /// visibly at 6 bits on our models, so the authors' bounds may clip less than ours.
    Igq,
    /// Instance-aware groups by expected error instead of distance, beyond the paper \[D\].
    IgqE,
}

impl Method {
    /// All methods, the reference first, then the baselines, the paper's, and ours.
    pub const ALL: [Self; 8] =
        [Self::Float, Self::Layer, Self::LayerDynamic, Self::Channel, Self::Contiguous, Self::Sorted, Self::Igq, Self::IgqE];

    /// The name used in flags and reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Float => "float",
            Self::Layer => "layer",
            Self::LayerDynamic => "layer-dynamic",
            Self::Channel => "channel",
            Self::Contiguous => "contiguous",
            Self::Sorted => "sorted",
            Self::Igq => "igq",
            Self::IgqE => "igq-e",
        }
    }

    /// One sentence for people.
    #[must_use]
    pub const fn describe(self) -> &'static str {
        match self {
            Self::Float => "nothing is quantized",
            Self::Layer => "one range a layer, from calibration",
            Self::LayerDynamic => "one range a layer, from this picture",
            Self::Channel => "one range a channel, from calibration (reference)",
            Self::Contiguous => "neighbouring channels share a range",
            Self::Sorted => "channels grouped once, on calibration",
            Self::Igq => "channels grouped anew for every picture",
            Self::IgqE => "the same, by expected error instead of distance",
        }
    }

    /// Whether the group counts mean anything to it.
    #[must_use]
    pub const fn uses_groups(self) -> bool {
        matches!(self, Self::Contiguous | Self::Sorted | Self::Igq | Self::IgqE)
    }

    /// Whether channels are assigned by the ranges of the picture at hand.
    #[must_use]
    pub const fn is_instance_aware(self) -> bool {
        matches!(self, Self::Igq | Self::IgqE)
    }

    /// The method at one kind of site. Grouping softmax rows is part of IGQ (section 5); the static baselines quantize the softmax with
    /// one range a layer, as the published ones do \[D\].
    #[must_use]
    pub const fn at(self, kind: SiteKind) -> Self {
        match self {
            Self::Channel | Self::Contiguous | Self::Sorted if kind.is_softmax() => Self::Layer,
            method => method,
        }
    }

    /// The next or previous method, around the ends.
    #[must_use]
    pub fn step(self, forward: bool) -> Self {
        let n = Self::ALL.len();
        let at = Self::ALL.iter().position(|m| *m == self).unwrap_or(0);
        Self::ALL[(at + if forward { 1 } else { n - 1 }) % n]
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Method {
    type Err = Error;
    fn from_str(s: &str) -> Result<Self, Error> {
        Self::ALL
            .into_iter()
            .find(|m| m.name() == s)
            .ok_or_else(|| Error::setting("method", s, format!("one of {}", Self::ALL.map(Self::name).join(", "))))
    }
}

/// How the softmax attention is quantized.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum SoftmaxShape {
    /// As the method says.
    #[default]
    Method,
    /// Powers of 2 (FQ-ViT).
    Log2,
    /// Powers of the root of 2 (RepQ-ViT).
    LogSqrt2,
    /// Twin uniform (PTQ4ViT).
    Twin,
}

impl SoftmaxShape {
    /// All shapes.
    pub const ALL: [Self; 4] = [Self::Method, Self::Log2, Self::LogSqrt2, Self::Twin];

    /// The name used in flags and reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Method => "method",
            Self::Log2 => "log2",
            Self::LogSqrt2 => "log-sqrt2",
            Self::Twin => "twin",
        }
    }

    /// The next shape, around the end.
    #[must_use]
    pub fn next(self) -> Self {
        let at = Self::ALL.iter().position(|s| *s == self).unwrap_or(0);
        Self::ALL[(at + 1) % Self::ALL.len()]
    }
}

impl FromStr for SoftmaxShape {
    type Err = Error;
    fn from_str(s: &str) -> Result<Self, Error> {
        let known = Self::ALL.into_iter().find(|shape| shape.name() == s);
        known.ok_or_else(|| Error::setting("softmax quantizer", s, format!("one of {}", Self::ALL.map(Self::name).join(", "))))
    }
}

/// How the values after GELU (`fc2`) are quantized.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum GeluShape {
    /// As the method says.
    #[default]
    Method,
    /// Twin uniform (PTQ4ViT).
    Twin,
}

impl GeluShape {
    /// All shapes.
    pub const ALL: [Self; 2] = [Self::Method, Self::Twin];

    /// The name used in flags and reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Method => "method",
            Self::Twin => "twin",
        }
    }
}

impl FromStr for GeluShape {
    type Err = Error;
    fn from_str(s: &str) -> Result<Self, Error> {
        let known = Self::ALL.into_iter().find(|shape| shape.name() == s);
        known.ok_or_else(|| Error::setting("GELU quantizer", s, format!("one of {}", Self::ALL.map(Self::name).join(", "))))
    }
}

/// What one site is quantized with: its kind's share of the settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scheme {
    /// Uniform quantizers, shared as the method says.
    Shared(Method),
    /// One log quantizer: 1 or 2 levels an octave.
    Log(u8),
    /// One twin quantizer.
    Twin,
}

impl Scheme {
    /// The scheme of a kind of site.
    #[must_use]
    pub const fn of(method: Method, softmax: SoftmaxShape, gelu: GeluShape, kind: SiteKind) -> Self {
        match (kind, softmax, gelu) {
            (SiteKind::Attn, SoftmaxShape::Log2, _) => Self::Log(1),
            (SiteKind::Attn, SoftmaxShape::LogSqrt2, _) => Self::Log(2),
            (SiteKind::Attn, SoftmaxShape::Twin, _) | (SiteKind::Fc2, _, GeluShape::Twin) => Self::Twin,
            _ => Self::Shared(method.at(kind)),
        }
    }

    /// Whether group counts mean anything to it.
    #[must_use]
    pub const fn uses_groups(self) -> bool {
        matches!(self, Self::Shared(method) if method.uses_groups())
    }
}
