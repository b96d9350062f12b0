//! What a person chooses: bit-widths, group counts, method, and what stays in float. Values only; nothing here computes.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::bits::{BitWidth, GroupCount};
use crate::error::Error;
use crate::model::{Site, SiteKind, SitePattern};

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
    /// Instance-aware groups: fixed quantizers, channels assigned by this picture's ranges (the paper).
    Igq,
}

impl Method {
    /// All methods, the reference first and the paper's last.
    pub const ALL: [Self; 7] = [Self::Float, Self::Layer, Self::LayerDynamic, Self::Channel, Self::Contiguous, Self::Sorted, Self::Igq];

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
        }
    }

    /// Whether the group counts mean anything to it.
    #[must_use]
    pub const fn uses_groups(self) -> bool {
        matches!(self, Self::Contiguous | Self::Sorted | Self::Igq)
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

/// Everything that decides a quantized run, as resolved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Settings {
    /// How values share quantizers.
    pub method: Method,
    /// Bits of every linear layer's weight.
    pub wbits: BitWidth,
    /// Bits of every activation but the softmax.
    pub abits: BitWidth,
    /// Bits of the softmax attention.
    pub sbits: BitWidth,
    /// Groups of channels of a site.
    pub groups: GroupCount,
    /// Groups of rows of a softmax attention.
    pub row_groups: GroupCount,
    /// Kinds of sites that are quantized; a linear layer's weight goes with its input.
    pub kinds: BTreeSet<SiteKind>,
    /// Sites that stay in float, weight included.
    pub keep_float: Vec<SitePattern>,
    /// Seed of the choice of calibration pictures from a larger folder.
    pub seed: u64,
}

impl Default for Settings {
    /// The paper's hardest published setting: 4 bits for all, 8 groups, every kind.
    fn default() -> Self {
        let four = BitWidth::ALL[2];
        let eight = GroupCount::new(8).unwrap_or_else(|_| unreachable!("8 is a group count"));
        Self {
            method: Method::Igq,
            wbits: four,
            abits: four,
            sbits: four,
            groups: eight,
            row_groups: eight,
            kinds: SiteKind::ALL.into(),
            keep_float: Vec::new(),
            seed: 0,
        }
    }
}

impl Settings {
    /// Whether `site` is quantized at all under these settings.
    #[must_use]
    pub fn quantizes(&self, site: Site) -> bool {
        self.method != Method::Float && self.kinds.contains(&site.kind) && !self.keep_float.iter().any(|pattern| pattern.matches(site))
    }

    /// Bits of the activation at `site`.
    #[must_use]
    pub fn activation_bits(&self, site: Site) -> BitWidth {
        match (self.quantizes(site), site.kind.is_softmax()) {
            (false, _) => BitWidth::FLOAT,
            (true, true) => self.sbits,
            (true, false) => self.abits,
        }
    }

    /// Bits of the weight of the layer whose input is `site`.
    #[must_use]
    pub fn weight_bits(&self, site: Site) -> BitWidth {
        if self.quantizes(site) { self.wbits } else { BitWidth::FLOAT }
    }

    /// Group count of `site`.
    #[must_use]
    pub const fn groups(&self, site: Site) -> GroupCount {
        if site.kind.is_softmax() { self.row_groups } else { self.groups }
    }

    /// Keeps exactly this site in float, or no longer.
    pub fn toggle_float(&mut self, site: Site) {
        let pattern = SitePattern::from(site);
        let before = self.keep_float.len();
        self.keep_float.retain(|p| *p != pattern);
        if self.keep_float.len() == before {
            self.keep_float.push(pattern);
        }
    }

    /// Switches a kind off or on.
    pub fn toggle_kind(&mut self, kind: SiteKind) {
        if !self.kinds.remove(&kind) {
            self.kinds.insert(kind);
        }
    }

    /// One line: `igq W4 A4 S4, 8 groups, 8 row groups`.
    #[must_use]
    pub fn describe(&self) -> String {
        let mut text = format!("{} W{} A{} S{}", self.method, self.wbits, self.abits, self.sbits);
        if self.method.uses_groups() {
            text += &format!(", {} groups, {} row groups", self.groups, self.row_groups);
        }
        let off: Vec<&str> = SiteKind::ALL.into_iter().filter(|k| !self.kinds.contains(k)).map(SiteKind::name).collect();
        if !off.is_empty() {
            text += &format!(", off: {}", off.join(" "));
        }
        if !self.keep_float.is_empty() {
            let kept: Vec<&str> = self.keep_float.iter().map(SitePattern::as_str).collect();
            text += &format!(", float: {}", kept.join(" "));
        }
        text
    }
}
