//! Which of the published shapes the softmax and what follows GELU take, as a user says it.

use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::Error;

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
