//! What a user chooses: bit-widths, group counts, method, and what stays in float. Values only; nothing here computes.

use std::collections::BTreeSet;
use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::bits::{BitWidth, GroupCount};
use super::choices::{Arithmetic, Preset, Scope};
use super::format::Format;
use super::method::{GeluShape, Method, Scheme, SoftmaxShape};
use super::weight_scheme::{Rounding, WeightScales, WeightScheme};
use crate::error::{Error, Result};
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

/// Neighbouring values that share a scale where nothing else is said.
pub const BLOCK: u16 = 32;

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
    /// How weights become codes.
    #[serde(default)]
    pub weights: Rounding,
    /// What of a weight shares a scale.
    #[serde(default, skip_serializing_if = "WeightScales::is_channel")]
    pub weight_scales: WeightScales,
    /// Neighbouring values of a block, for methods with blocks of any length.
    #[serde(default = "block", skip_serializing_if = "is_usual_block")]
    pub block: u16,
    /// What the first and the last layer do.
    #[serde(default)]
    pub preset: Preset,
    /// Whether the inputs of qkv and fc1 are smoothed before anything is quantized ([`super::smooth`]). A session is opened with it or without.
    #[serde(default, skip_serializing_if = "is_off")]
    pub smooth: bool,
    /// How much of the network is quantized.
    #[serde(default, skip_serializing_if = "Scope::is_default")]
    pub scope: Scope,
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
    /// What products are computed in.
    #[serde(default, skip_serializing_if = "Arithmetic::is_default")]
    pub arithmetic: Arithmetic,
    /// What single sites have of their own; of several that name one thing of one site, the last counts.
    #[serde(default)]
    pub overrides: Vec<SiteOverride>,
    /// Seed of the choice of calibration pictures from a larger folder.
    pub seed: u64,
}

const fn block() -> u16 {
    BLOCK
}

#[allow(clippy::trivially_copy_pass_by_ref)] // serde's form
const fn is_off(switch: &bool) -> bool {
    !*switch
}

#[allow(clippy::trivially_copy_pass_by_ref)] // serde's form
const fn is_usual_block(block: &u16) -> bool {
    *block == BLOCK
}

impl Default for Settings {
    /// The paper's hardest published setting, 4 bits and 8 groups for every kind, with the first and the last layer at 8 bits.
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
            weights: Rounding::default(),
            weight_scales: WeightScales::Channel,
            block: BLOCK,
            preset: Preset::default(),
            smooth: false,
            scope: Scope::All,
            kinds: SiteKind::ALL.into(),
            keep_float: Vec::new(),
            softmax: SoftmaxShape::Method,
            gelu: GeluShape::Method,
            arithmetic: Arithmetic::FakeQuantized,
            overrides: Vec::new(),
            seed: 0,
        }
    }
}

impl Settings {
    /// Settings from JSON. Those of before igq rounded by GPTQ and had presets say neither: they keep what they meant as far as it still exists,
    /// rounding to the nearest, the first and the last layer like the others, and means as bounds of `igq`.
    ///
    /// # Errors
    /// When they are no settings.
    pub fn read(mut value: serde_json::Value) -> serde_json::Result<Self> {
        if let Some(entries) = value.as_object_mut().filter(|entries| !entries.contains_key("preset")) {
            entries.insert("preset".into(), Preset::All.name().into());
            entries.entry("weights").or_insert(Rounding::Nearest.name().into());
            if entries.get("method").is_some_and(|method| method == Method::Igq.name()) {
                entries.insert("method".into(), Method::IgqMeans.name().into());
            }
        }
        let mut read: Self = serde_json::from_value(value)?;
        // All kinds there were before detectors with a decoder meant all kinds.
        let later = |kind: &SiteKind| kind.is_of_decoders();
        if !read.kinds.iter().any(later) && SiteKind::ALL.iter().filter(|kind| !later(kind)).all(|kind| read.kinds.contains(kind)) {
            read.kinds.extend(SiteKind::ALL.into_iter().filter(later));
        }
        Ok(read)
    }

    /// Whether `site` is quantized at all under these settings.
    #[must_use]
    pub fn quantizes(&self, site: Site) -> bool {
        let held = self.method != Method::Float && self.scope.holds(site) && self.kinds.contains(&site.kind);
        held && !self.keep_float.iter().any(|pattern| pattern.matches(site))
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
        if let Some(own) = self.own(site, |o| o.abits) {
            return own;
        }
        let bits = if site.kind.is_softmax() { self.sbits } else { self.abits };
        let of_format = self.method.spec().format.and_then(Format::bits);
        let bits = of_format.filter(|_| !bits.is_float() && matches!(self.scheme(site), Scheme::Shared(_))).unwrap_or(bits);
        self.preset.bits(site, bits)
    }

    /// Bits of the weight of the layer whose input is `site`.
    #[must_use]
    pub fn weight_bits(&self, site: Site) -> BitWidth {
        if !self.quantizes(site) {
            return BitWidth::FLOAT;
        }
        let of_format = self.weight_scales.format().bits().filter(|_| !self.wbits.is_float());
        self.own(site, |o| o.wbits).unwrap_or_else(|| self.preset.bits(site, of_format.unwrap_or(self.wbits)))
    }

    /// How the weight of the layer whose input is `site` is quantized. Bits that a block format does not have, as those of the classifier at
    /// 8 bits, are integers in blocks of the same length \[D\].
    #[must_use]
    pub fn weight_scheme(&self, site: Site) -> WeightScheme {
        let bits = self.weight_bits(site);
        let fits = self.weight_scales.format().bits().is_none_or(|own| own == bits);
        let scales = match self.weight_scales {
            scales if fits => scales,
            WeightScales::Fp8 => WeightScales::Channel,
            scales => WeightScales::Block(scales.block(usize::MAX) as u16),
        };
        WeightScheme { bits, rounding: self.weights, scales }
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

    /// Gives exactly `site` something of its own, and leaves what other overrides say of it.
    pub fn set_own(&mut self, site: Site, change: impl FnOnce(&mut SiteOverride)) {
        let sites = SitePattern::from(site);
        match self.overrides.iter_mut().rev().find(|o| o.sites.matches(site)) {
            // Behind an override that covers more sites stands a new one: what it does not name goes on to come from there.
            Some(last) if last.sites == sites => change(last),
            _ => {
                let mut own = SiteOverride { sites, wbits: None, abits: None, groups: None };
                change(&mut own);
                self.overrides.push(own);
            }
        }
        self.overrides.retain(|o| o.wbits.is_some() || o.abits.is_some() || o.groups.is_some());
    }

    /// Whether quantizers fitted under `fitted` serve `site` under these settings.
    #[must_use]
    pub fn same_fit(&self, fitted: &Self, site: Site) -> bool {
        let scheme = self.scheme(site);
        let counts = !scheme.uses_groups() || self.groups(site) == fitted.groups(site);
        let bits = !scheme.depends_on_bits() || self.activation_bits(site) == fitted.activation_bits(site);
        scheme == fitted.scheme(site) && counts && bits
    }

    /// `wanted` with what quantizers that were fitted under these settings decide: method, counts, for igq-e the activation bits.
    ///
    /// # Errors
    /// When `wanted` asks for a softmax or GELU quantizer or for counts of single sites: those belong to the fit.
    pub fn laid_over(&self, wanted: &Self) -> Result<Self> {
        let expected = || format!("nothing that changes the fitted quantizers, which are for {}", self.describe());
        if (wanted.softmax, wanted.gelu) != (self.softmax, self.gelu) {
            return Err(Error::setting("--softmax or --gelu beside --quantizers", wanted.describe(), expected()));
        }
        if wanted.overrides.iter().any(|o| o.groups.is_some() && !self.overrides.contains(o)) {
            return Err(Error::setting("--site-groups beside --quantizers", wanted.describe(), expected()));
        }
        let mut laid = Self { method: self.method, groups: self.groups, row_groups: self.row_groups, ..wanted.clone() };
        let by_bits = self.method.spec().depends_on_bits;
        if by_bits {
            (laid.abits, laid.sbits) = (self.abits, self.sbits);
            laid.overrides.iter_mut().for_each(|o| o.abits = None);
        }
        laid.overrides.iter_mut().for_each(|o| o.groups = None);
        laid.overrides.extend(self.overrides.iter().map(|o| SiteOverride { wbits: None, abits: o.abits.filter(|_| by_bits), ..o.clone() }));
        laid.overrides.retain(|o| o.wbits.is_some() || o.abits.is_some() || o.groups.is_some());
        Ok(laid)
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

    /// One group count for the channels and rows of all sites.
    #[must_use]
    pub fn uniform(&self, groups: GroupCount) -> Self {
        Self { groups, row_groups: groups, ..self.with_counts([]) }
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
        let bits = |bits: BitWidth| self.method.spec().format.and_then(Format::bits).filter(|_| !bits.is_float()).unwrap_or(bits);
        let weights = self.weight_scales.format().bits().filter(|_| !self.wbits.is_float()).unwrap_or(self.wbits);
        let mut text = format!("{} W{weights} A{} S{}", self.method, bits(self.abits), bits(self.sbits));
        if self.method.uses_groups() {
            text += &format!(", {} groups, {} row groups", self.groups, self.row_groups);
        }
        if self.method != Method::Float {
            text += &format!(", {} weights", self.weights.name());
            if !self.weight_scales.is_channel() {
                text += &format!(" {}", self.weight_scales);
            }
            text += &format!(", {}", self.preset.name());
        }
        if self.smooth {
            text += ", smoothed";
        }
        if self.scope != Scope::All {
            text += &format!(", {} only", self.scope.name());
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
        if self.arithmetic == Arithmetic::Integer {
            text += ", integers";
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

#[cfg(test)]
mod tests {
    use super::*;

    fn site(text: &str) -> Site {
        text.parse().unwrap()
    }

    fn own(pattern: &str, abits: Option<u8>, groups: Option<u8>) -> SiteOverride {
        let bits = |b| BitWidth::new(b).unwrap();
        let groups = groups.map(|g| GroupCount::new(g).unwrap());
        SiteOverride { sites: pattern.parse().unwrap(), wbits: None, abits: abits.map(bits), groups }
    }

    #[test]
    fn counts_of_single_sites_leave_the_order_of_other_overrides() {
        let fc2 = site("blocks.0.fc2");
        let overrides = vec![own("blocks.0.fc2", Some(8), None), own("blocks.*", Some(6), None)];
        let settings = Settings { overrides, ..Settings::default() };
        assert_eq!(settings.activation_bits(fc2).get(), 6, "the last counts");
        let mut counted = settings.with_counts([(fc2, GroupCount::new(16).unwrap())]);
        assert_eq!((counted.activation_bits(fc2).get(), counted.groups(fc2).get()), (6, 16));
        counted.set_own(fc2, |own| own.groups = GroupCount::new(4).ok());
        assert_eq!((counted.overrides.len(), counted.groups(fc2).get()), (3, 4), "one entry is changed again, none is added");
        assert_eq!(counted.with_counts([]), settings);
    }

    #[test]
    fn a_fit_decides_what_belongs_to_it_and_refuses_the_rest() {
        let (fc2, head) = (site("blocks.0.fc2"), site("head"));
        let base = Settings { method: Method::IgqMeans, preset: Preset::All, ..Settings::default() };
        let fitted = Settings { overrides: vec![own("blocks.*.fc2", None, Some(32)), own("head", Some(8), None)], ..base.clone() };
        let eight = BitWidth::new(8).unwrap();
        let wanted = Settings { abits: eight, wbits: eight, ..base };
        let laid = fitted.laid_over(&wanted).unwrap();
        assert_eq!((laid.groups(fc2).get(), laid.activation_bits(fc2), laid.activation_bits(head)), (32, eight, eight));
        assert!(laid.same_fit(&fitted, fc2) && !wanted.same_fit(&fitted, fc2));
        // The error-aware rule was fitted for its bits.
        let aware = Settings { method: Method::IgqE, ..fitted.clone() };
        let laid = aware.laid_over(&wanted).unwrap();
        assert_eq!((laid.wbits, laid.activation_bits(fc2).get(), laid.activation_bits(head)), (eight, 4, eight));
        assert!(laid.same_fit(&aware, fc2) && laid.same_fit(&aware, head));
        let log = Settings { softmax: SoftmaxShape::Log2, ..wanted.clone() };
        let counts = Settings { overrides: vec![own("head", None, Some(2))], ..wanted };
        for refused in [log, counts] {
            assert!(fitted.laid_over(&refused).unwrap_err().to_string().contains("--quantizers"));
        }
    }
}
