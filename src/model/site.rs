//! Addresses of quantized operands: `blocks.3.fc2`. Only names; what a model has is asked of the model.

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::Error;

pub use super::site_kind::SiteKind;

/// The part of a network that a site belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Part {
    /// The backbone, and what stands directly on it: addresses without a prefix.
    Backbone,
    /// What makes one map of the backbone's.
    Projector,
    /// The first stage of a detector, which proposes boxes.
    Proposals,
    /// The encoder between a convolutional backbone and the decoder.
    Encoder,
    /// The decoder, whose queries become objects.
    Decoder,
    /// Where the queries of a decoder look at the map.
    Cross,
    /// What makes masks of queries.
    Mask,
    /// The feature pyramid: what makes maps of one width of those of a backbone's stages.
    Neck,
    /// What proposes regions on every level of the pyramid.
    Rpn,
    /// What gives regions their classes and boxes.
    Boxes,
    /// What gives regions their masks.
    Masks,
}

impl Part {
    /// All of them, in the order of the forward pass.
    pub const ALL: [Self; 11] = [
        Self::Backbone,
        Self::Projector,
        Self::Proposals,
        Self::Encoder,
        Self::Decoder,
        Self::Cross,
        Self::Mask,
        Self::Neck,
        Self::Rpn,
        Self::Boxes,
        Self::Masks,
    ];

    /// Whether it is a part of a detector of regions, whose addresses have their numbers in other places: `boxes.2.conv.3`.
    #[must_use]
    pub const fn is_of_regions(self) -> bool {
        matches!(self, Self::Neck | Self::Rpn | Self::Boxes | Self::Masks)
    }

    /// The first word of its addresses; the backbone's have none.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Backbone => "",
            Self::Projector => "projector",
            Self::Proposals => "proposals",
            Self::Encoder => "encoder",
            Self::Decoder => "decoder",
            Self::Cross => "cross",
            Self::Mask => "mask",
            Self::Neck => "neck",
            Self::Rpn => "rpn",
            Self::Boxes => "boxes",
            Self::Masks => "masks",
        }
    }
}

/// Address of one quantized operand. Its text form is stable: `patch`, `head`, `blocks.3.fc2`; in a network with stages
/// `layers.2.blocks.3.fc2` and `layers.1.merge`; in other parts than the backbone `decoder.layers.1.fc1` and `proposals.out`, and in those of a
/// detector of regions `neck.lateral.2`, `rpn.cls`, and with the stage of a cascade `boxes.1.conv.3`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Site {
    /// The part of the network.
    pub part: Part,
    /// Stage, counted from 0; `None` where there are none.
    pub stage: Option<u16>,
    /// Transformer block (of the stage) or layer of the part, counted from 0; `None` for sites outside of blocks.
    pub block: Option<u16>,
    /// Which operand.
    pub kind: SiteKind,
}

impl Site {
    /// A site outside of blocks: `patch`, `head`.
    #[must_use]
    pub const fn outside(kind: SiteKind) -> Self {
        Self { part: Part::Backbone, stage: None, block: None, kind }
    }

    /// A site of a block.
    #[must_use]
    pub const fn in_block(block: u16, kind: SiteKind) -> Self {
        Self { part: Part::Backbone, stage: None, block: Some(block), kind }
    }

    /// The same in a stage.
    #[must_use]
    pub const fn in_stage(self, stage: u16) -> Self {
        Self { stage: Some(stage), ..self }
    }

    /// The same in another part of the network.
    #[must_use]
    pub const fn of_part(self, part: Part) -> Self {
        Self { part, ..self }
    }
}

impl fmt::Display for Site {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.part.is_of_regions() {
            let number = |number: Option<u16>| number.map(|number| format!(".{number}")).unwrap_or_default();
            return f.pad(&format!("{}{}.{}{}", self.part.name(), number(self.stage), self.kind, number(self.block)));
        }
        let stage = self.stage.map(|stage| format!("layers.{stage}.")).unwrap_or_default();
        let (part, blocks) = match self.part {
            Part::Backbone => (String::new(), "blocks"),
            part => (format!("{}.", part.name()), "layers"),
        };
        let block = self.block.map(|block| format!("{blocks}.{block}.")).unwrap_or_default();
        f.pad(&format!("{part}{stage}{block}{}", self.kind))
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
        let parted = |part: &Part| s.strip_prefix(part.name()).and_then(|rest| Some((*part, rest.strip_prefix('.')?)));
        let parted = Part::ALL.iter().skip(1).find_map(parted);
        if let Some((part, rest)) = parted.filter(|(part, _)| part.is_of_regions()) {
            let number = |text: &str| text.parse::<u16>().ok();
            let (stage, rest) = match rest.split_once('.') {
                Some((first, rest)) if number(first).is_some() => (number(first), rest),
                _ => (None, rest),
            };
            let (kind, block) = match rest.rsplit_once('.') {
                Some((kind, last)) if number(last).is_some() => (kind, number(last)),
                _ => (rest, None),
            };
            return Ok(Self { part, stage, block, kind: kind.parse().map_err(|_| malformed())? });
        }
        let (part, stage, block, kind) = if let Some((part, rest)) = parted {
            let (block, kind) = numbered(rest, "layers.").ok_or_else(malformed)?;
            (part, None, block, kind)
        } else {
            let (stage, rest) = numbered(s, "layers.").ok_or_else(malformed)?;
            let (block, kind) = numbered(rest, "blocks.").ok_or_else(malformed)?;
            (Part::Backbone, stage, block, kind)
        };
        Ok(Self { part, stage, block, kind: kind.parse().map_err(|_| malformed())? })
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
        for text in [
            "patch",
            "head",
            "head_dist",
            "blocks.0.qkv",
            "blocks.11.fc2",
            "layers.1.merge",
            "layers.2.blocks.3.attn",
            "cls.2",
            "decoder.layers.1.fc1",
            "decoder.ref.0",
            "projector.layers.2.cv1",
            "proposals.box.2",
            "neck.lateral.2",
            "rpn.conv",
            "boxes.cls",
            "boxes.fc.0",
            "boxes.1.conv.3",
            "masks.2.logits",
        ] {
            let site: Site = text.parse().unwrap();
            assert_eq!(site.to_string(), text);
        }
        for text in [
            "",
            "blocks",
            "blocks.x.fc2",
            "blocks.1",
            "blocks.1.nothing",
            "fc9",
            "layers.1",
            "layers.x.merge",
            "decoder",
            "decoder.",
            "decoder.blocks.1.fc1",
            "mask.layers.x.dw",
            "boxes.1",
            "boxes.conv.x",
            "neck.1.2.3",
        ] {
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
