//! What a checkpoint is: sizes and variants read from its tensors first and its `config.json` second, with a note for everything that
//! had to be inferred. It builds nothing.

mod claims;
pub mod detr;
mod dinov2;
pub mod eomt;
mod keys;

pub mod rcnn;
pub mod rf_detr;
mod said;
mod strict;
mod swin;
pub mod timm;
pub mod vit;
mod yolos;

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;

pub use detr::DetrConfig;
pub use eomt::EomtConfig;
pub use rcnn::RcnnConfig;
pub use rf_detr::RfDetrConfig;
pub use swin::{SwinConfig, SwinPadding, SwinStage};
pub use vit::{Detection, Pool, VitConfig};

use crate::error::{Error, Result};
use crate::memory;
use crate::model::checkpoint::Checkpoint;
use crate::model::checkpoint::names::{self, Layout};
use crate::model::checkpoint::weights::Weights;
use crate::model::detection;

/// Sizes and variants of any network.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[serde(tag = "family", rename_all = "lowercase")]
pub enum Config {
    /// ViT, DeiT, DINOv2.
    Vit(VitConfig),
    /// Swin Transformer.
    Swin(SwinConfig),
    /// RF-DETR.
    #[serde(rename = "rf-detr")]
    RfDetr(Box<RfDetrConfig>),
    /// EoMT.
    Eomt(Box<EomtConfig>),
    /// DETR.
    Detr(Box<DetrConfig>),
    /// Mask R-CNN and its cascade, on a Swin Transformer.
    #[serde(rename = "r-cnn")]
    Rcnn(Box<RcnnConfig>),
}

impl Config {
    /// Reads what a checkpoint is, whose tensors have timm's names by now. The second value says, line by line, what was inferred and
    /// from where.
    ///
    /// # Errors
    /// When the tensors are not those of a network that igq knows, or contradict each other or the configuration.
    pub fn infer(checkpoint: &Checkpoint, layout: Layout) -> Result<(Self, Vec<String>)> {
        let weights = &checkpoint.weights;
        let mut notes = vec![format!("names as {} writes them", layout.name())];
        let swin = weights.has("layers.0.blocks.0.norm1.weight");
        if rcnn::is_one(weights) {
            let config = Self::Rcnn(Box::new(rcnn::infer(checkpoint, layout, &mut notes)?));
            return Ok((config, notes));
        }
        keys::check_type(checkpoint)?;
        if weights.has(rf_detr::QUERIES) {
            let config = Self::RfDetr(Box::new(rf_detr::infer(checkpoint, &mut notes)?));
            return Ok((config, notes));
        }
        if weights.has(detr::QUERIES) {
            let config = Self::Detr(Box::new(detr::infer(checkpoint, &mut notes)?));
            return Ok((config, notes));
        }
        if weights.has(eomt::QUERIES) && weights.has("attn_mask_probs") {
            let config = Self::Eomt(Box::new(eomt::infer(checkpoint, &mut notes)?));
            return Ok((config, notes));
        }
        let head = if swin {
            "head.fc.weight"
        } else if weights.has(detection::LAST_LAYER) {
            detection::LAST_LAYER
        } else {
            "head.weight"
        };
        require_classifier(weights, head)?;
        keys::check(checkpoint)?;
        timm::Architecture::of(checkpoint)?;
        let config = if swin {
            require_gelu(checkpoint)?;
            Self::Swin(swin::infer(checkpoint, layout, &mut notes)?)
        } else if head == detection::LAST_LAYER {
            Self::Vit(yolos::infer(checkpoint, layout, &mut notes)?)
        } else {
            Self::Vit(vit::infer(checkpoint, layout, &mut notes)?)
        };
        claims::check(checkpoint, layout, &config, &mut notes)?;
        Ok((config, notes))
    }

    /// Height and width of the input in pixels.
    #[must_use]
    pub const fn image_size(&self) -> (usize, usize) {
        match self {
            Self::Vit(vit) => vit.image_size,
            Self::Swin(swin) => swin.image_size,
            Self::RfDetr(detr) => detr.backbone.image_size,
            Self::Eomt(eomt) => eomt.backbone.image_size,
            Self::Detr(detr) => detr.image_size,
            Self::Rcnn(rcnn) => rcnn.backbone.image_size,
        }
    }

    /// Colour channels of the input: 1 or 3.
    #[must_use]
    pub const fn in_chans(&self) -> usize {
        match self {
            Self::Vit(vit) => vit.in_chans,
            Self::Swin(swin) => swin.in_chans,
            Self::RfDetr(detr) => detr.backbone.in_chans,
            Self::Eomt(eomt) => eomt.backbone.in_chans,
            Self::Detr(_) | Self::Rcnn(_) => 3,
        }
    }

    /// Number of classes.
    #[must_use]
    pub const fn classes(&self) -> usize {
        match self {
            Self::Vit(vit) => vit.classes,
            Self::Swin(swin) => swin.classes,
            Self::RfDetr(detr) => detr.classes,
            Self::Eomt(eomt) => eomt.classes,
            Self::Detr(detr) => detr.classes,
            Self::Rcnn(rcnn) => rcnn.classes,
        }
    }

    /// Queries of a detector, each of which gives one object or none; none of a classifier.
    #[must_use]
    pub fn queries(&self) -> Option<usize> {
        match self {
            Self::Vit(vit) => vit.detection.map(|detection| detection.tokens),
            Self::Swin(_) => None,
            Self::RfDetr(detr) => Some(detr.queries),
            Self::Eomt(eomt) => Some(eomt.queries),
            Self::Detr(detr) => Some(detr.queries),
            Self::Rcnn(rcnn) => Some(rcnn.proposals),
        }
    }

    /// Probability that an object must have to be shown, unless another is asked for.
    #[must_use]
    pub const fn threshold(&self) -> f64 {
        match self {
            Self::Eomt(_) => eomt::THRESHOLD,
            Self::Rcnn(_) => crate::model::output::OF_REGIONS,
            _ => crate::model::output::THRESHOLD,
        }
    }

    /// Whether it takes inputs of any size, which a session chooses.
    #[must_use]
    pub const fn takes_any_size(&self) -> bool {
        matches!(self, Self::Vit(VitConfig { detection: Some(_), .. }) | Self::Detr(_) | Self::Rcnn(_))
    }

    /// The same for another input size, in rows and columns of pixels.
    pub(crate) fn resize(&mut self, size: (usize, usize)) {
        match self {
            Self::Vit(vit) => vit.image_size = size,
            Self::Swin(swin) => swin.image_size = size,
            Self::RfDetr(detr) => detr.backbone.image_size = size,
            Self::Eomt(eomt) => eomt.backbone.image_size = size,
            Self::Detr(detr) => detr.image_size = size,
            Self::Rcnn(rcnn) => rcnn.backbone.image_size = size,
        }
    }

    /// The plain ViT, where it is one.
    #[must_use]
    pub const fn vit(&self) -> Option<&VitConfig> {
        if let Self::Vit(vit) = self { Some(vit) } else { None }
    }

    /// The Swin Transformer, where it is one.
    #[must_use]
    pub const fn swin(&self) -> Option<&SwinConfig> {
        if let Self::Swin(swin) = self { Some(swin) } else { None }
    }

    /// Bytes that calibration and sweeps take at most, beside the weights: operands of a batch on two threads, and the float and quantized
    /// run of one picture with all operands that are kept. An estimate from sizes alone.
    #[must_use]
    pub fn run_bytes(&self) -> u64 {
        // Values of a block: those of tokens by channels, and those of its softmax.
        let block = |tokens: usize, seen: usize, dim: usize, heads: usize, hidden: usize| -> (u64, u64) {
            let wide = (tokens as u64).saturating_mul((10 * dim + 2 * hidden) as u64);
            (wide, (tokens as u64).saturating_mul(seen as u64).saturating_mul(heads as u64))
        };
        let of_swin = |swin: &SwinConfig| -> Vec<(u64, (u64, u64))> {
            let stage = |(index, stage): (usize, &SwinStage)| {
                // With what fills the last windows up, of which one may be larger than its grid.
                let ((rows, columns), window) = (swin.grid(index), stage.window.max(1));
                let tokens = rows.next_multiple_of(window).saturating_mul(columns.next_multiple_of(window));
                (stage.depth as u64, block(tokens, window.saturating_mul(window), stage.dim, stage.heads, stage.mlp_dim))
            };
            swin.stages.iter().enumerate().map(stage).collect()
        };
        let blocks: Vec<(u64, (u64, u64))> = match self {
            Self::Vit(vit) => vec![(vit.depth as u64, block(vit.tokens(), vit.tokens(), vit.embed_dim, vit.heads, vit.mlp_dim))],
            Self::Swin(swin) => of_swin(swin),
            Self::Detr(detr) => {
                let tokens = detr.grid().0.saturating_mul(detr.grid().1);
                let maps = detr.grids().into_iter().skip(1).zip(&detr.stages).map(|((rows, columns), (depth, inside, outside))| {
                    let values = (rows as u64).saturating_mul(columns as u64).saturating_mul((12 * inside + 2 * outside) as u64);
                    (*depth as u64, (values, 0))
                });
                let of = |tokens: usize, (depth, heads, hidden): (usize, usize, usize)| {
                    (depth as u64, block(tokens, tokens, detr.dim, heads, hidden))
                };
                maps.chain([of(tokens, detr.encoder), of(detr.queries.max(tokens), detr.decoder)]).collect()
            }
            Self::Rcnn(rcnn) => {
                let cells: usize = rcnn.levels().iter().map(|(rows, columns)| rows.saturating_mul(*columns)).sum();
                let values = |tokens: usize| (tokens.saturating_mul(2 * rcnn.dim) as u64, 0);
                let (of_regions, of_masks) = (values(49 * rcnn.proposals), values(500 * rcnn::OBJECTS));
                let stages = rcnn.stages as u64;
                let heads = [(3, values(cells)), (stages * (1 + rcnn.convs as u64), of_regions), (stages * 2, of_masks)];
                of_swin(&rcnn.backbone).into_iter().chain(heads).collect()
            }
            Self::Eomt(eomt) => {
                let (vit, (rows, columns)) = (&eomt.backbone, eomt.mask_grid());
                let map = (rows as u64).saturating_mul(columns as u64).saturating_mul(4 * vit.embed_dim as u64);
                let tokens = vit.tokens() + eomt.queries;
                vec![(vit.depth as u64, block(tokens, tokens, vit.embed_dim, vit.heads, vit.mlp_dim)), (1, (map, 0))]
            }
            Self::RfDetr(detr) => {
                let (vit, (rows, columns)) = (&detr.backbone, detr.grid());
                let tokens = rows.saturating_mul(columns).saturating_add(detr.windows * detr.windows);
                // The neighbourhoods of the largest map: nine values each.
                let map = detr.mask_grid().map_or((rows, columns), |grid| grid);
                let near = (map.0 as u64).saturating_mul(map.1 as u64).saturating_mul(12 * detr.dim as u64);
                vec![
                    (detr.blocks() as u64, block(tokens, tokens, vit.embed_dim, vit.heads, vit.mlp_dim)),
                    (detr.layers as u64, (near, 0)),
                    (detr.layers as u64, block(detr.queries, detr.queries, detr.dim, detr.heads, detr.mlp_dim)),
                ]
            }
        };
        // Scores, softmax, and its quantized copy.
        let at_once = |(wide, softmax): (u64, u64)| softmax.saturating_mul(3).saturating_add(wide);
        let kept = |(wide, softmax): (u64, u64)| if memory::is_kept(softmax) { wide.saturating_add(softmax) } else { wide };
        let largest = blocks.iter().map(|(_, one)| at_once(*one)).max().unwrap_or(0);
        let all = blocks.iter().fold(0_u64, |all, (depth, one)| all.saturating_add(kept(*one).saturating_mul(*depth)));
        let together = if let Self::Rcnn(_) = self { 1 } else { memory::together(self.image_size()) };
        let batches = largest.saturating_mul(2 * together as u64);
        batches.saturating_add(all.saturating_mul(3)).saturating_mul(4)
    }

    /// One line for users.
    #[must_use]
    pub fn describe(&self) -> String {
        match self {
            Self::Vit(vit) => vit.describe(),
            Self::Swin(swin) => swin.describe(),
            Self::RfDetr(detr) => detr.describe(),
            Self::Eomt(eomt) => eomt.describe(),
            Self::Detr(detr) => detr.describe(),
            Self::Rcnn(rcnn) => rcnn.describe(),
        }
    }
}

/// Whether a checkpoint can be a vision transformer at all, with a classifier; a part that is missing from one that can be is named
/// later, exactly.
fn require_classifier(weights: &Weights, head: &str) -> Result<()> {
    // mmdet's names: a head beside the backbone that proposes regions.
    if let Some(name) = weights.names_in_file().find(|name| name.starts_with("rpn_head.") || name.starts_with("roi_head.")) {
        let problem = format!("`{name}`: a detector with mmdet's names and another head than a Mask R-CNN's or Cascade Mask R-CNN's");
        return Err(Error::content(weights.file(), problem, "name a Mask R-CNN or Cascade Mask R-CNN with a Swin Transformer"));
    }
    let needed = ["patch_embed.proj.weight", "blocks.0.attn.qkv.weight", "layers.0.blocks.0.attn.qkv.weight", "pos_embed"];
    if !needed.iter().any(|key| weights.has(key)) {
        const TOWERS: [(&str, &str); 3] = [
            ("vision_model.", "the image tower of a CLIP or SigLIP model of transformers"),
            ("transformer.resblocks.", "a CLIP model with the names of its first repository"),
            ("relative_position_bias_table", "a network with relative position biases (BEiT or another)"),
        ];
        let tower =
            |(part, what): &(&str, &'static str)| Some((weights.names_in_file().find(|name| name.contains(part))?.to_string(), *what));
        if let Some((name, what)) = TOWERS.iter().find_map(tower) {
            let problem = format!("`{name}`: {what}, which igq does not compute");
            return Err(Error::content(weights.file(), problem, "name a ViT, DeiT, DINOv2 or Swin classifier of timm or transformers"));
        }
        let some = weights.names_in_file().take(3).map(|name| format!("`{name}`")).collect::<Vec<_>>();
        return Err(names::not_a_vit(weights, &format!("{} tensors such as {}", weights.keys().count(), some.join(", "))));
    }
    if weights.has(head) {
        return Ok(());
    }
    let found = "none: this is a backbone, or a tensor is missing; name a classification checkpoint";
    Err(weights.wrong(head, "a classifier".into(), found.into()))
}

/// Width, input channels and patch size.
fn patch_embed(weights: &Weights) -> Result<(usize, usize, (usize, usize))> {
    let key = "patch_embed.proj.weight";
    let shape = weights.shape(key, 4)?;
    match shape[1] {
        1 | 3 | 4 => Ok((shape[0], shape[1], (shape[2], shape[3]))),
        other => Err(weights.wrong(key, "1, 3 or 4 input channels".into(), format!("{other}"))),
    }
}

/// Compares the number of blocks that the tensors have with what the configuration says under any of `keys`.
fn declared_blocks(checkpoint: &Checkpoint, missing: &str, keys: &[&str], found: &Value) -> Result<()> {
    match keys.iter().find_map(|key| lookup(checkpoint.config.as_ref(), key)) {
        Some(declared) if declared != found => {
            let expected = format!("{declared} blocks, as config.json says");
            Err(checkpoint.weights.wrong(missing, expected, format!("{found} blocks")))
        }
        _ => Ok(()),
    }
}

/// The epsilon that the configuration says.
fn declared_eps(checkpoint: &Checkpoint) -> Result<Option<f64>> {
    match lookup(checkpoint.config.as_ref(), "layer_norm_eps") {
        None => Ok(None),
        Some(value) => match value.as_f64() {
            Some(eps) if (0.0..=1.0).contains(&eps) => Ok(Some(eps)),
            _ => Err(Error::content(
                &checkpoint.name,
                format!("layer_norm_eps of config.json: expected a number from 0 to 1, found {value}"),
                "correct config.json",
            )),
        },
    }
}

/// A Swin's activation is GELU with the error function in every published one.
fn require_gelu(checkpoint: &Checkpoint) -> Result<()> {
    let text = |key| lookup(checkpoint.config.as_ref(), key).and_then(Value::as_str);
    match text("hidden_act").or_else(|| text("act_layer")).filter(|name| *name != "gelu") {
        Some(other) => {
            let problem = format!("expected the activation `gelu` in config.json, found `{other}`");
            Err(Error::content(&checkpoint.name, problem, "name a checkpoint with GELU"))
        }
        None => Ok(()),
    }
}

/// A value of `config.json`, looked up at the top level, in `model_args` and in `pretrained_cfg`.
pub(crate) fn lookup<'a>(config: Option<&'a Value>, key: &str) -> Option<&'a Value> {
    let config = config?;
    config
        .get("model_args")
        .and_then(|args| args.get(key))
        .or_else(|| config.get(key))
        .or_else(|| config.get("pretrained_cfg").and_then(|cfg| cfg.get(key)))
        .filter(|value| !value.is_null())
}

/// Largest side of an input, in pixels.
const MAX_SIDE: usize = 16_384;

/// The size of the input that the configuration says.
fn declared_size(checkpoint: &Checkpoint) -> Result<Option<(usize, usize)>> {
    let config = checkpoint.config.as_ref();
    let Some((key, value)) = ["img_size", "image_size", "input_size"].iter().find_map(|key| Some((key, lookup(config, key)?))) else {
        return Ok(None);
    };
    match pair(value) {
        Some((height, width)) if [height, width].iter().all(|side| (1..=MAX_SIDE).contains(side)) => Ok(Some((height, width))),
        _ => {
            let problem = format!("{key} of config.json: expected 1 to {MAX_SIDE} pixels a side, found {value}");
            Err(Error::content(&checkpoint.name, problem, "correct config.json"))
        }
    }
}

fn number(value: &Value) -> Option<usize> {
    value.as_u64().and_then(|n| usize::try_from(n).ok())
}

/// Height and width from `224`, `[224, 224]` or `[3, 224, 224]`.
fn pair(value: &Value) -> Option<(usize, usize)> {
    match value.as_array() {
        Some(list) if list.len() >= 2 => Some((number(&list[list.len() - 2])?, number(&list[list.len() - 1])?)),
        Some(_) => None,
        None => number(value).map(|n| (n, n)),
    }
}
