//! Methods: how values share quantizers, one file and one row each, and the published shapes for the softmax and for what follows GELU.
//!
//! A new method is a file beside this one and, here, its module, its variant and its place in the two lists: the compiler asks for the
//! second of them, a test for the first.

mod block_int;
mod channel;
mod contiguous;
mod float;
mod fp8;
mod igq;
mod igq_e;
mod igq_means;
mod igq_token;
mod layer;
mod layer_dynamic;
mod mxfp4;
mod mxint8;
mod nvfp4;
mod per_token;
mod shapes;
mod softmax_and_gelu;
mod sorted;

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use softmax_and_gelu::{GeluShape, SoftmaxShape};

use super::bits::{BitWidth, GroupCount};
use super::calibrate::SiteRanges;
use super::fit::{Rule, SiteQuantizers, Tiling};
use super::format::Format;
use crate::error::Error;
use crate::model::{SiteInfo, SiteKind};

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
    /// Per-token dynamic: min and max of every token of this picture.
    PerToken,
    /// Integers in blocks of neighbouring channels of one token.
    BlockInt,
    /// MXFP4 (OCP Microscaling Formats 1.0).
    #[serde(rename = "mxfp4")]
    MxFp4,
    /// MXINT8 (OCP Microscaling Formats 1.0).
    #[serde(rename = "mxint8")]
    MxInt8,
    /// NVFP4.
    #[serde(rename = "nvfp4")]
    NvFp4,
    /// E4M3 with a float scale for every token.
    #[serde(rename = "fp8-e4m3")]
    Fp8,
    /// Instance-aware groups: fixed quantizers, channels assigned by this picture's ranges (the paper). The paper's distance and assignment;
    /// bounds at a percentile of the members \[D\].
    Igq,
    /// The same with bounds at the mean of the members, our first reading of the paper's distance \[D\]. Its published 6/6 results are nearly
    /// float, while means clip visibly at 6 bits on our models.
    IgqMeans,
    /// Instance-aware groups by expected error instead of distance, beyond the paper \[D\].
    IgqE,
    /// Instance-aware groups with a scale for every token and group, beyond the paper \[D\].
    IgqToken,
}

/// What a method divides the values of a site into, each with a scale of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parts {
    /// Nothing: one scale for the site.
    Whole,
    /// As many groups of channels (or softmax rows) as the settings say.
    Groups,
    /// Every channel.
    Channels,
    /// Every token.
    Tokens,
    /// Every token and block of neighbouring channels: so many, or as many as the settings say.
    Blocks(Option<usize>),
    /// Every token and group of channels.
    TokenGroups,
}

/// What a fit is made from.
#[derive(Debug, Clone, Copy)]
pub struct Fit<'f> {
    /// Calibration of the site.
    pub ranges: &'f SiteRanges,
    /// The site.
    pub info: &'f SiteInfo,
    /// How many groups.
    pub groups: GroupCount,
    /// Bits of its activation.
    pub bits: BitWidth,
    /// Values of a block, where the method does not say.
    pub block: usize,
}

impl Fit<'_> {
    /// A scale for every block of `length` values along the inner dimension of the site's product. A site whose bits the format does not
    /// have, as the classifier at 8 bits, has integers of those in the same blocks \[D\].
    fn tiles(&self, format: Format, length: usize) -> SiteQuantizers {
        let (kind, tokens) = (self.info.site.kind, self.info.layout.seen());
        let unit = match kind {
            SiteKind::Attn | SiteKind::V => tokens,
            SiteKind::Q | SiteKind::K => self.info.channels / self.info.heads.max(1),
            _ => self.info.channels,
        };
        let tiling = Tiling { format: self.format(format), length: length.clamp(1, unit.max(1)), unit, down: kind == SiteKind::V };
        SiteQuantizers { bounds: Vec::new(), rule: Rule::Tiles(tiling) }
    }

    /// A scale for every token, or row of a softmax.
    fn rows(&self, format: Format) -> SiteQuantizers {
        let unit = if self.info.site.kind.is_softmax() { self.info.layout.seen() } else { self.info.channels };
        let tiling = Tiling { format: self.format(format), length: unit, unit, down: false };
        SiteQuantizers { bounds: Vec::new(), rule: Rule::Tiles(tiling) }
    }

    fn format(&self, format: Format) -> Format {
        if format.bits().is_none_or(|bits| bits == self.bits) { format } else { Format::Int }
    }
}

/// How a quantizer file tells the rule of a method ([`super::files`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stored {
    /// Bounds only: the nearest by the picture's ranges.
    Nearest,
    /// Bounds and `alpha`.
    LeastError,
    /// Bounds and members.
    Fixed,
}

/// All that is known of a method, in one row: its file in this folder. The cache of fits, the file format, bit operations, help and tests
/// read it.
pub struct MethodSpec {
    /// The name used in flags and reports.
    pub name: &'static str,
    /// One sentence for users.
    pub describe: &'static str,
    /// What has a scale of its own.
    pub parts: Parts,
    /// Whether the ranges of the picture at hand are needed.
    pub dynamic: bool,
    /// Whether channels are assigned to groups by those ranges.
    pub instance_aware: bool,
    /// Whether the fit reads the bit-width.
    pub depends_on_bits: bool,
    /// What takes its place at the softmax; none where it quantizes the softmax itself.
    pub at_softmax: Option<Method>,
    /// The number format of a block, where scales are those of this picture's blocks.
    pub format: Option<Format>,
    /// How a quantizer file tells its rule; none where there is nothing to store.
    pub stored: Option<Stored>,
    /// From calibration to quantizers; none for float.
    pub fit: fn(&Fit) -> Option<SiteQuantizers>,
}

impl Method {
    /// All methods, the reference first, then the baselines, today's formats, the paper's, and ours.
    pub const ALL: [Self; 16] = [
        Self::Float,
        Self::Layer,
        Self::LayerDynamic,
        Self::Channel,
        Self::Contiguous,
        Self::Sorted,
        Self::PerToken,
        Self::BlockInt,
        Self::MxFp4,
        Self::MxInt8,
        Self::NvFp4,
        Self::Fp8,
        Self::Igq,
        Self::IgqMeans,
        Self::IgqE,
        Self::IgqToken,
    ];

    /// Its row.
    #[must_use]
    pub const fn spec(self) -> &'static MethodSpec {
        match self {
            Self::Float => &float::SPEC,
            Self::Layer => &layer::SPEC,
            Self::LayerDynamic => &layer_dynamic::SPEC,
            Self::Channel => &channel::SPEC,
            Self::Contiguous => &contiguous::SPEC,
            Self::Sorted => &sorted::SPEC,
            Self::PerToken => &per_token::SPEC,
            Self::BlockInt => &block_int::SPEC,
            Self::MxFp4 => &mxfp4::SPEC,
            Self::MxInt8 => &mxint8::SPEC,
            Self::NvFp4 => &nvfp4::SPEC,
            Self::Fp8 => &fp8::SPEC,
            Self::Igq => &igq::SPEC,
            Self::IgqMeans => &igq_means::SPEC,
            Self::IgqE => &igq_e::SPEC,
            Self::IgqToken => &igq_token::SPEC,
        }
    }

    /// The name used in flags and reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        self.spec().name
    }

    /// One sentence for users.
    #[must_use]
    pub const fn describe(self) -> &'static str {
        self.spec().describe
    }

    /// Whether the group counts mean anything to it.
    #[must_use]
    pub const fn uses_groups(self) -> bool {
        matches!(self.spec().parts, Parts::Groups | Parts::TokenGroups)
    }

    /// Whether channels are assigned by the ranges of the picture at hand.
    #[must_use]
    pub const fn is_instance_aware(self) -> bool {
        self.spec().instance_aware
    }

    /// The method at one kind of site. Grouping softmax rows is part of IGQ (section 5); the static baselines quantize the softmax with
    /// one range a layer, as the published ones do \[D\].
    #[must_use]
    pub const fn at(self, kind: SiteKind) -> Self {
        match self.spec().at_softmax {
            Some(other) if kind.is_softmax() => other,
            _ => self,
        }
    }

    /// The names of the methods that have something, as a list for messages.
    #[must_use]
    pub fn names_with(what: fn(&MethodSpec) -> bool) -> String {
        Self::ALL.into_iter().filter(|m| what(m.spec())).map(Self::name).collect::<Vec<_>>().join(", ")
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

    /// Whether the fit reads the bit-width: fits are kept apart by it then.
    #[must_use]
    pub const fn depends_on_bits(self) -> bool {
        match self {
            Self::Shared(method) => method.spec().depends_on_bits,
            Self::Log(_) | Self::Twin => true,
        }
    }

    /// From calibration to the quantizers of a site; none for float.
    #[must_use]
    pub fn fit(self, to: &Fit) -> Option<SiteQuantizers> {
        match self {
            Self::Shared(method) => (method.spec().fit)(to),
            Self::Log(per_octave) => shapes::log(&to.ranges.sample, per_octave, to.bits),
            Self::Twin => shapes::twin(&to.ranges.sample, to.bits),
        }
    }

    /// Whether group counts mean anything to it.
    #[must_use]
    pub const fn uses_groups(self) -> bool {
        matches!(self, Self::Shared(method) if method.uses_groups())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_method_is_listed_and_its_name_is_its_serialised_one() {
        // The schema lists the variants of the enum itself: one that is missing in `ALL` is found here.
        let schema = serde_json::to_value(schemars::schema_for!(Method)).unwrap().to_string();
        for method in Method::ALL {
            let name = serde_json::to_value(method).unwrap();
            assert_eq!(name, method.name());
            assert_eq!(method.name().parse::<Method>().unwrap(), method);
            assert!(schema.contains(&format!("\"{}\"", method.name())), "{schema}");
        }
        assert_eq!(schema.matches("\"const\"").count(), Method::ALL.len(), "a method is missing in ALL: {schema}");
    }
}
