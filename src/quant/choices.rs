//! Choices of a quantized run as a whole: what its products are computed in, what its first and last layer do, and how much of a detector is
//! quantized.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::bits::BitWidth;
use crate::error::{Error, Result};
use crate::model::{Part, Site, SiteKind};

/// What the products of a quantized run are computed in.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Arithmetic {
    /// Floats that were quantized and dequantized.
    #[default]
    FakeQuantized,
    /// Codes, with sums of 32 bits, wherever that can be ([`super::integer`]).
    Integer,
}

impl Arithmetic {
    /// Both.
    pub const ALL: [Self; 2] = [Self::FakeQuantized, Self::Integer];

    /// The name on the command line and in files.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::FakeQuantized => "fake-quantized",
            Self::Integer => "integer",
        }
    }

    /// Whether files leave it out.
    #[must_use]
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// The other one.
    #[must_use]
    pub const fn next(self) -> Self {
        match self {
            Self::FakeQuantized => Self::Integer,
            Self::Integer => Self::FakeQuantized,
        }
    }
}

impl std::str::FromStr for Arithmetic {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|a| a.name() == text).ok_or_else(|| Error::setting("arithmetic", text, "fake-quantized or integer"))
    }
}

/// How much of a network is quantized.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Scope {
    /// The backbone alone: patch embedding and blocks.
    Backbone,
    /// All transformers: the backbone, and of a detector first stage, decoder and heads, without its convolutions and masks.
    Transformer,
    /// Every linear layer and convolution, as the field has it.
    #[default]
    All,
}

impl Scope {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Backbone, Self::Transformer, Self::All];

    /// The name on the command line and in files.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Backbone => "backbone",
            Self::Transformer => "transformer",
            Self::All => "all",
        }
    }

    /// Whether files leave it out.
    #[must_use]
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// Whether it holds `site`.
    #[must_use]
    pub const fn holds(self, site: Site) -> bool {
        match self {
            Self::All => true,
            Self::Transformer => {
                !(matches!(site.part, Part::Projector | Part::Mask | Part::Neck | Part::Rpn | Part::Masks) || site.kind.is_convolution())
            }
            Self::Backbone => {
                matches!(site.part, Part::Backbone)
                    && (site.block.is_some() || matches!(site.kind, SiteKind::Patch | SiteKind::Merge | SiteKind::Stem))
            }
        }
    }
}

impl std::str::FromStr for Scope {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let known = Self::ALL.into_iter().find(|scope| scope.name() == text);
        known.ok_or_else(|| Error::setting("scope", text, format!("one of {}", Self::ALL.map(Self::name).join(", "))))
    }
}

/// What the first and the last layer of a network do, whose sites are `patch`, `head` and `head_dist`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Preset {
    /// As all others.
    All,
    /// They stay in float.
    Inside,
    /// They have 8 bits, the field's usual convention.
    #[default]
    #[serde(rename = "first-last-8")]
    FirstLast8,
}

impl Preset {
    /// All presets.
    pub const ALL: [Self; 3] = [Self::FirstLast8, Self::Inside, Self::All];

    /// The name used in flags and reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Inside => "inside",
            Self::FirstLast8 => "first-last-8",
        }
    }

    /// What it says, for the screen.
    #[must_use]
    pub const fn describe(self) -> &'static str {
        match self {
            Self::All => "first and last layer like the others",
            Self::Inside => "first and last layer in float",
            Self::FirstLast8 => "first and last layer at 8 bits",
        }
    }

    /// The next one, around the end.
    #[must_use]
    pub fn next(self) -> Self {
        let at = Self::ALL.iter().position(|p| *p == self).unwrap_or(0);
        Self::ALL[(at + 1) % Self::ALL.len()]
    }

    /// The bits that it gives a site in place of `bits`.
    pub(super) fn bits(self, site: Site, bits: BitWidth) -> BitWidth {
        match self {
            Self::All => bits,
            _ if !site.kind.is_first_or_last() || bits.is_float() => bits,
            Self::Inside => BitWidth::FLOAT,
            Self::FirstLast8 => BitWidth::EIGHT.max(bits),
        }
    }
}

impl std::str::FromStr for Preset {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let known = Self::ALL.into_iter().find(|p| p.name() == text);
        known.ok_or_else(|| Error::setting("preset", text, format!("one of {}", Self::ALL.map(Self::name).join(", "))))
    }
}
