//! Addresses of quantized operands: `blocks.3.fc2`. Only names; what a model has is asked of the model.

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
    /// Input of the first MLP layer.
    Fc1,
    /// Input of the second MLP layer (after GELU).
    Fc2,
    /// Input of the layer that merges two by two tokens into one between stages.
    Merge,
    /// Input of the classifier.
    Head,
    /// Input of the second classifier of a distilled model.
    #[serde(rename = "head_dist")]
    HeadDist,
    /// Input of the first layer that gives detection tokens their classes.
    #[serde(rename = "cls.0")]
    Cls0,
    /// Input of the second.
    #[serde(rename = "cls.1")]
    Cls1,
    /// Input of the third.
    #[serde(rename = "cls.2")]
    Cls2,
    /// Input of the first layer that gives detection tokens their boxes.
    #[serde(rename = "box.0")]
    Box0,
    /// Input of the second.
    #[serde(rename = "box.1")]
    Box1,
    /// Input of the third.
    #[serde(rename = "box.2")]
    Box2,
}

impl SiteKind {
    /// All kinds, in the order of the forward pass.
    pub const ALL: [Self; 18] = [
        Self::Patch,
        Self::Qkv,
        Self::Q,
        Self::K,
        Self::V,
        Self::Attn,
        Self::Proj,
        Self::Fc1,
        Self::Fc2,
        Self::Merge,
        Self::Head,
        Self::HeadDist,
        Self::Cls0,
        Self::Cls1,
        Self::Cls2,
        Self::Box0,
        Self::Box1,
        Self::Box2,
    ];

    /// The name used in addresses and flags.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Patch => "patch",
            Self::Qkv => "qkv",
            Self::Q => "q",
            Self::K => "k",
            Self::V => "v",
            Self::Attn => "attn",
            Self::Proj => "proj",
            Self::Fc1 => "fc1",
            Self::Fc2 => "fc2",
            Self::Merge => "merge",
            Self::Head => "head",
            Self::HeadDist => "head_dist",
            Self::Cls0 => "cls.0",
            Self::Cls1 => "cls.1",
            Self::Cls2 => "cls.2",
            Self::Box0 => "box.0",
            Self::Box1 => "box.1",
            Self::Box2 => "box.2",
        }
    }

    /// One sentence for people who meet the name for the first time.
    #[must_use]
    pub const fn describe(self) -> &'static str {
        match self {
            Self::Patch => "pixels of each patch, input of the patch embedding",
            Self::Qkv => "input of the query-key-value projection",
            Self::Q => "queries, operand of Q·Kᵀ",
            Self::K => "keys, operand of Q·Kᵀ",
            Self::V => "values, operand of A·V",
            Self::Attn => "softmax attention, operand of A·V (grouped by row)",
            Self::Proj => "input of the attention's output projection",
            Self::Fc1 => "input of the first MLP layer",
            Self::Fc2 => "input of the second MLP layer, after GELU",
            Self::Merge => "input of the layer that merges two by two tokens",
            Self::Head => "input of the classifier",
            Self::HeadDist => "input of the classifier on the distillation token",
            Self::Cls0 => "detection tokens, input of the first layer of their classes",
            Self::Cls1 => "input of the second layer of the classes, after ReLU",
            Self::Cls2 => "input of the third layer of the classes, after ReLU",
            Self::Box0 => "detection tokens, input of the first layer of their boxes",
            Self::Box1 => "input of the second layer of the boxes, after ReLU",
            Self::Box2 => "input of the third layer of the boxes, after ReLU",
        }
    }

    /// Whether the site belongs to the first or the last layer of a network.
    #[must_use]
    pub const fn is_first_or_last(self) -> bool {
        matches!(self, Self::Patch | Self::Head | Self::HeadDist | Self::Cls2 | Self::Box2)
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

/// Address of one quantized operand. Its text form is stable: `patch`, `head`, `blocks.3.fc2`; in a network with stages
/// `layers.2.blocks.3.fc2` and `layers.1.merge`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Site {
    /// Stage, counted from 0; `None` where there are none.
    pub stage: Option<u16>,
    /// Transformer block (of the stage), counted from 0; `None` for sites outside of blocks.
    pub block: Option<u16>,
    /// Which operand.
    pub kind: SiteKind,
}

impl Site {
    /// A site outside of blocks: `patch`, `head`.
    #[must_use]
    pub const fn outside(kind: SiteKind) -> Self {
        Self { stage: None, block: None, kind }
    }

    /// A site of a block.
    #[must_use]
    pub const fn in_block(block: u16, kind: SiteKind) -> Self {
        Self { stage: None, block: Some(block), kind }
    }

    /// The same in a stage.
    #[must_use]
    pub const fn in_stage(self, stage: u16) -> Self {
        Self { stage: Some(stage), ..self }
    }
}

impl fmt::Display for Site {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stage = self.stage.map(|stage| format!("layers.{stage}.")).unwrap_or_default();
        let block = self.block.map(|block| format!("blocks.{block}.")).unwrap_or_default();
        f.pad(&format!("{stage}{block}{}", self.kind))
    }
}

/// `3` and `fc2` from `blocks.3.fc2`; all of the text where it does not begin with the prefix.
fn numbered<'a>(text: &'a str, prefix: &str) -> Option<(Option<u16>, &'a str)> {
    let Some(rest) = text.strip_prefix(prefix) else { return Some((None, text)) };
    let (number, rest) = rest.split_once('.')?;
    Some((Some(number.parse().ok()?), rest))
}

impl FromStr for Site {
    type Err = Error;

    fn from_str(s: &str) -> Result<Self, Error> {
        let malformed = || Error::setting("site", s, "an address such as `blocks.3.fc2`, `layers.2.blocks.3.fc2` or `head`");
        let (stage, rest) = numbered(s, "layers.").ok_or_else(malformed)?;
        let (block, kind) = numbered(rest, "blocks.").ok_or_else(malformed)?;
        Ok(Self { stage, block, kind: kind.parse().map_err(|_| malformed())? })
    }
}

impl Serialize for Site {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Site {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for Site {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Site".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "type": "string",
            "description": "Address of a quantized operand, such as `blocks.3.fc2`, `layers.2.blocks.3.fc2` or `head`.",
        })
    }
}

/// A glob over site addresses: `blocks.*.fc2`, `blocks.[0-2].*`, `head`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SitePattern(glob::Pattern);

impl SitePattern {
    /// Whether the pattern covers `site`.
    #[must_use]
    pub fn matches(&self, site: Site) -> bool {
        self.0.matches(&site.to_string())
    }

    /// The pattern as typed.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

impl SitePattern {
    /// Every site of a kind, wherever it stands.
    #[must_use]
    pub fn of_kind(kind: SiteKind) -> Self {
        let outside = kind.is_first_or_last();
        let text = if outside { kind.name().to_string() } else { format!("*.{kind}") };
        Self(glob::Pattern::new(&text).unwrap_or_default())
    }
}

impl From<Site> for SitePattern {
    fn from(site: Site) -> Self {
        // An address holds no glob characters, so it is a pattern of itself.
        Self(glob::Pattern::new(&site.to_string()).unwrap_or_default())
    }
}

impl FromStr for SitePattern {
    type Err = Error;

    fn from_str(s: &str) -> Result<Self, Error> {
        let valid = glob::Pattern::new(s).ok().filter(|_| !s.is_empty());
        valid.map(Self).ok_or_else(|| Error::setting("site pattern", s, "a glob over addresses, such as `blocks.*.fc2`"))
    }
}

impl fmt::Display for SitePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for SitePattern {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for SitePattern {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for SitePattern {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "SitePattern".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "string", "description": "Glob over site addresses." })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_reads_back_as_itself() {
        for text in ["patch", "head", "head_dist", "blocks.0.qkv", "blocks.11.fc2", "layers.1.merge", "layers.2.blocks.3.attn"] {
            let site: Site = text.parse().unwrap();
            assert_eq!(site.to_string(), text);
        }
        for text in ["", "blocks", "blocks.x.fc2", "blocks.1", "blocks.1.nothing", "fc9", "layers.1", "layers.x.merge"] {
            assert!(text.parse::<Site>().is_err(), "{text} is no address");
        }
    }

    #[test]
    fn a_pattern_covers_what_a_glob_covers() {
        let pattern: SitePattern = "blocks.*.fc2".parse().unwrap();
        assert!(pattern.matches("blocks.3.fc2".parse().unwrap()));
        assert!(!pattern.matches("blocks.3.fc1".parse().unwrap()));
        assert!(SitePattern::from(Site::outside(SiteKind::Head)).matches("head".parse().unwrap()));
        assert!("blocks.[".parse::<SitePattern>().is_err());
    }
}
