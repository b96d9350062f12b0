//! How weights are quantized, as a user says it: rounding, what shares a scale, bits. Values only; nothing here computes.

use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::bits::BitWidth;
use super::format::Format;
use crate::error::{Error, Result};

/// How weights become codes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Rounding {
    /// Each to the nearest.
    Nearest,
    /// One input channel after another, the error of each made up for by those that come later (GPTQ).
    #[default]
    Gptq,
}

impl Rounding {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Nearest, Self::Gptq];

    /// The name used in flags and reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Nearest => "nearest",
            Self::Gptq => "gptq",
        }
    }

    /// The other one.
    #[must_use]
    pub const fn next(self) -> Self {
        match self {
            Self::Nearest => Self::Gptq,
            Self::Gptq => Self::Nearest,
        }
    }
}

impl FromStr for Rounding {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|r| r.name() == text).ok_or_else(|| Error::setting("rounding of weights", text, "nearest or gptq"))
    }
}

/// What of a weight shares a scale.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum WeightScales {
    /// An output channel.
    #[default]
    Channel,
    /// So many neighbouring inputs of an output channel; integers with a scale in half precision and a zero point.
    Block(u16),
    /// As a block format says; the bits are the format's.
    MxFp4,
    /// As above.
    MxInt8,
    /// As above.
    NvFp4,
    /// As above, with a scale for each output channel.
    Fp8,
}

impl WeightScales {
    const EXPECTED: &'static str = "channel, block=N with N from 2 to 4096, mxfp4, mxint8, nvfp4 or fp8-e4m3";

    /// The number format.
    #[must_use]
    pub const fn format(self) -> Format {
        match self {
            Self::Channel | Self::Block(_) => Format::Int,
            Self::MxFp4 => Format::MxFp4,
            Self::MxInt8 => Format::MxInt8,
            Self::NvFp4 => Format::NvFp4,
            Self::Fp8 => Format::Fp8,
        }
    }

    /// Neighbouring inputs that share a scale, of `inputs`.
    #[must_use]
    pub fn block(self, inputs: usize) -> usize {
        let length = match self {
            Self::Channel | Self::Fp8 => inputs,
            Self::Block(length) => length.into(),
            Self::MxFp4 | Self::MxInt8 => 32,
            Self::NvFp4 => 16,
        };
        length.clamp(1, inputs.max(1))
    }

    /// Whether files leave it out.
    #[must_use]
    pub fn is_channel(&self) -> bool {
        *self == Self::Channel
    }

    /// The next of the usual ones, around the end.
    #[must_use]
    pub const fn next(self) -> Self {
        match self {
            Self::Channel => Self::Block(32),
            Self::Block(_) => Self::NvFp4,
            Self::NvFp4 => Self::MxFp4,
            _ => Self::Channel,
        }
    }
}

impl std::fmt::Display for WeightScales {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Channel => f.pad("channel"),
            Self::Block(length) => f.pad(&format!("block={length}")),
            Self::MxFp4 => f.pad("mxfp4"),
            Self::MxInt8 => f.pad("mxint8"),
            Self::NvFp4 => f.pad("nvfp4"),
            Self::Fp8 => f.pad("fp8-e4m3"),
        }
    }
}

impl FromStr for WeightScales {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let known = [Self::Channel, Self::MxFp4, Self::MxInt8, Self::NvFp4, Self::Fp8];
        let length = |text: &str| text.strip_prefix("block=")?.parse().ok().filter(|n| (2..=4096).contains(n));
        let named = known.into_iter().find(|scales| scales.to_string() == text);
        named.or_else(|| length(text).map(Self::Block)).ok_or_else(|| Error::setting("weight scales", text, Self::EXPECTED))
    }
}

impl Serialize for WeightScales {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for WeightScales {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for WeightScales {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "WeightScales".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "string", "description": format!("What of a weight shares a scale: {}.", Self::EXPECTED) })
    }
}

/// How one layer's weight is quantized.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct WeightScheme {
    /// Bits of a code; float for a weight that stays as it is.
    pub bits: BitWidth,
    /// To the nearest or by GPTQ.
    pub rounding: Rounding,
    /// What shares a scale.
    pub scales: WeightScales,
}

impl WeightScheme {
    /// Bits for each value: codes, and what blocks have of their own.
    #[must_use]
    pub fn effective_bits(&self, inputs: usize) -> f64 {
        if self.bits.is_float() {
            return 32.0;
        }
        let own = if self.scales.is_channel() { 32 + u32::from(self.bits.get()) } else { self.scales.format().scale_bits(self.bits) };
        f64::from(self.bits.get()) + f64::from(own) / self.scales.block(inputs) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_scales_read_back_and_nonsense_is_refused() {
        for text in ["channel", "block=32", "block=2", "mxfp4", "mxint8", "nvfp4", "fp8-e4m3"] {
            assert_eq!(text.parse::<WeightScales>().unwrap().to_string(), text);
        }
        for text in ["block", "block=", "block=1", "block=0", "block=99999", "int4"] {
            assert!(text.parse::<WeightScales>().is_err(), "{text}");
        }
    }
}
