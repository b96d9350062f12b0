//! What a person chooses: bit-widths, group counts, method, and what stays in float. Values only; nothing here computes.

use std::collections::BTreeSet;
use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::bits::{BitWidth, GroupCount};
use super::method::{GeluShape, Method, Scheme, SoftmaxShape};
use crate::model::{Site, SiteKind, SitePattern};

/// What the sites of a pattern have of their own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SiteOverride {
    /// Which sites.
    pub sites: SitePattern,
    /// Bits of their layers' weights.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wbits: Option<BitWidth>,
    /// Bits of their activations.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub abits: Option<BitWidth>,
    /// Their group count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub groups: Option<GroupCount>,
}

impl fmt::Display for SiteOverride {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.sites)?;
        self.wbits.map_or(Ok(()), |b| write!(f, " W{b}"))?;
        self.abits.map_or(Ok(()), |b| write!(f, " A{b}"))?;
        self.groups.map_or(Ok(()), |g| write!(f, " {g} groups"))
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
    /// How the softmax is quantized, where not as the method says.
    #[serde(default)]
    pub softmax: SoftmaxShape,
    /// How the values after GELU are quantized, where not as the method says.
    #[serde(default)]
    pub gelu: GeluShape,
    /// What single sites have of their own; of several that name one thing of one site, the last counts.
    #[serde(default)]
    pub overrides: Vec<SiteOverride>,
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
            softmax: SoftmaxShape::Method,
            gelu: GeluShape::Method,
            overrides: Vec::new(),
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

    /// What the overrides say of `site`.
    fn own<T>(&self, site: Site, part: impl Fn(&SiteOverride) -> Option<T>) -> Option<T> {
        self.overrides.iter().rev().filter(|o| o.sites.matches(site)).find_map(part)
    }

    /// Bits of the activation at `site`.
    #[must_use]
    pub fn activation_bits(&self, site: Site) -> BitWidth {
        if !self.quantizes(site) {
            return BitWidth::FLOAT;
        }
        self.own(site, |o| o.abits).unwrap_or(if site.kind.is_softmax() { self.sbits } else { self.abits })
    }

    /// Bits of the weight of the layer whose input is `site`.
    #[must_use]
    pub fn weight_bits(&self, site: Site) -> BitWidth {
        if self.quantizes(site) { self.own(site, |o| o.wbits).unwrap_or(self.wbits) } else { BitWidth::FLOAT }
    }

    /// Group count of `site`.
    #[must_use]
    pub fn groups(&self, site: Site) -> GroupCount {
        self.own(site, |o| o.groups).unwrap_or(if site.kind.is_softmax() { self.row_groups } else { self.groups })
    }

    /// What `site` is quantized with.
    #[must_use]
    pub const fn scheme(&self, site: Site) -> Scheme {
        Scheme::of(self.method, self.softmax, self.gelu, site.kind)
    }

    /// Gives exactly `site` something of its own.
    pub fn set_own(&mut self, site: Site, change: impl FnOnce(&mut SiteOverride)) {
        let sites = SitePattern::from(site);
        let mut own = SiteOverride { sites: sites.clone(), wbits: None, abits: None, groups: None };
        if let Some(at) = self.overrides.iter().position(|o| o.sites == sites) {
            own = self.overrides.remove(at);
        }
        change(&mut own);
        if own.wbits.is_some() || own.abits.is_some() || own.groups.is_some() {
            self.overrides.push(own);
        }
    }

    /// The same settings with these group counts, instead of any that single sites had before.
    #[must_use]
    pub fn with_counts(&self, counts: impl IntoIterator<Item = (Site, GroupCount)>) -> Self {
        let mut settings = self.clone();
        for own in &mut settings.overrides {
            own.groups = None;
        }
        settings.overrides.retain(|o| o.wbits.is_some() || o.abits.is_some());
        for (site, count) in counts {
            settings.set_own(site, |own| own.groups = Some(count));
        }
        settings
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
        if self.softmax != SoftmaxShape::Method {
            text += &format!(", softmax {}", self.softmax.name());
        }
        if self.gelu != GeluShape::Method {
            text += &format!(", GELU {}", self.gelu.name());
        }
        match self.overrides.as_slice() {
            [] => {}
            [one] => text += &format!(", {one}"),
            many => text += &format!(", {} sites with settings of their own", many.len()),
        }
        if !self.keep_float.is_empty() {
            let kept: Vec<&str> = self.keep_float.iter().map(SitePattern::as_str).collect();
            text += &format!(", float: {}", kept.join(" "));
        }
        text
    }
}
