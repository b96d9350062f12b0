//! Sizes of a Mask R-CNN or Cascade Mask R-CNN on a Swin Transformer, told from its tensors: mmdet keeps its configuration elsewhere, and what no tensor
//! tells are the constants of its published configurations.

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;

use super::strict::{MMDET, Part};
use super::swin::{self, SwinConfig, SwinPadding};
use crate::error::{Error, Result};
use crate::model::checkpoint::Checkpoint;
use crate::model::checkpoint::names::Layout;
use crate::model::checkpoint::weights::Weights;

/// Names of tensors that tell a detector of regions.
const RPN: &str = "rpn_head.rpn_cls.weight";

/// The input size until a session chooses one: what mmdet makes of a square.
const SIDE: usize = 800;
/// Rows and columns that are read of a region.
const CELLS: usize = 7 * 7;
/// Proposals of a picture.
const PROPOSALS: usize = 1000;
/// Objects of a picture.
pub const OBJECTS: usize = 100;

/// Sizes and variants of a Mask R-CNN or Cascade Mask R-CNN.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct RcnnConfig {
    /// The Swin Transformer; it has no classes of its own.
    pub backbone: SwinConfig,
    /// Width of the pyramid, `d`.
    pub dim: usize,
    /// Stages that give regions classes and boxes: 1, or 3 of a cascade.
    pub stages: usize,
    /// Convolutions of each.
    pub convs: usize,
    /// Layers of each before those of classes and boxes.
    pub layers: usize,
    /// Their width.
    pub hidden: usize,
    /// Number of classes.
    pub classes: usize,
    /// Whether every class has a box of its own.
    pub box_of_class: bool,
    /// Whether objects get masks.
    pub makes_masks: bool,
    /// Convolutions of a mask.
    pub mask_convs: usize,
    /// Proposals of a picture at most.
    pub proposals: usize,
    /// Whether boxes without a height or width may propose: in mmdet 2.11, with which the paper's systems were measured, and not in version 3.
    pub keeps_flat: bool,
}

impl RcnnConfig {
    /// Rows and columns of the levels of the pyramid, the finest first: those of the stages, and half of the last.
    #[must_use]
    pub fn levels(&self) -> Vec<(usize, usize)> {
        let mut levels: Vec<(usize, usize)> = (0..self.backbone.stages.len()).map(|stage| self.backbone.grid(stage)).collect();
        levels.extend(levels.last().map(|(rows, columns)| (rows.div_ceil(2), columns.div_ceil(2))));
        levels
    }

    /// One line for users.
    #[must_use]
    pub fn describe(&self) -> String {
        let (height, width) = self.backbone.image_size;
        let list = |value: fn(&super::SwinStage) -> usize| {
            self.backbone.stages.iter().map(|stage| value(stage).to_string()).collect::<Vec<_>>().join("+")
        };
        let name = match (self.stages, self.makes_masks) {
            (1, true) => "Mask R-CNN",
            (1, false) => "Faster R-CNN",
            (_, true) => "Cascade Mask R-CNN",
            (_, false) => "Cascade R-CNN",
        };
        format!(
            "{name} on a Swin of {} blocks, width {}, pyramid of width {}, {width}x{height}x3, {} classes, {} proposals",
            list(|stage| stage.depth),
            list(|stage| stage.dim),
            self.dim,
            self.classes,
            self.proposals
        )
    }
}

/// Whether a checkpoint is one of a detector of regions.
#[must_use]
pub fn is_one(weights: &Weights) -> bool {
    weights.has(RPN)
}

/// How many of the numbered layers a checkpoint has.
fn count(weights: &Weights, name: impl Fn(usize) -> String) -> usize {
    (0..usize::from(u16::MAX)).take_while(|index| weights.has(&name(*index))).count()
}

/// Reads what a detector of regions is, whose Swin has timm's names by now.
///
/// # Errors
/// When the tensors are not those of one that igq computes, or a `config.json` beside them says anything that they do not.
pub fn infer(checkpoint: &Checkpoint, layout: Layout, notes: &mut Vec<String>) -> Result<RcnnConfig> {
    let weights = &checkpoint.weights;
    if let Some(config) = &checkpoint.config {
        // mmdet writes none; what somebody puts beside it may name classes.
        let none = || Error::content(&checkpoint.name, "config.json: expected an object", "correct or remove the file");
        let keys = config.as_object().ok_or_else(none)?;
        Part { file: &checkpoint.name, keys, place: "", class: MMDET }.check(&[("model_type", Value::Null)], &["label_names"])?;
    }
    let patch = weights.shape("patch_embed.proj.weight", 4)?;
    let stages = swin::stages(weights)?;
    if patch[1..] != [3, 4, 4] || stages.len() != 4 {
        let expected = "a Swin Transformer of four stages over patches of 4x4 pixels in three colours";
        return Err(weights.wrong("patch_embed.proj.weight", expected.into(), format!("shape {patch:?} and {} stages", stages.len())));
    }
    if weights.has("absolute_pos_embed") {
        return Err(weights.wrong("absolute_pos_embed", "no absolute positions".into(), "some, which igq does not compute".into()));
    }
    let swin = SwinConfig {
        image_size: (SIDE, SIDE),
        in_chans: 3,
        patch_size: (4, 4),
        stages,
        classes: 0,
        patch_norm: weights.has("patch_embed.norm.weight"),
        qkv_bias: weights.has("layers.0.blocks.0.attn.qkv.bias"),
        norm_eps: 1e-5,
        padding: SwinPadding::Detector,
        unfolded: layout == Layout::Mmdet3,
    };
    swin::check_sizes(checkpoint, &swin)?;
    let rpn = weights.shape(RPN, 4)?;
    if rpn[0] != 3 || rpn[2..] != [1, 1] {
        return Err(weights.wrong(RPN, "three boxes a cell, each an object or none".into(), format!("shape {rpn:?}")));
    }
    if let Some(other) =
        weights.keys().find(|key| key.starts_with("neck.") && !key.contains("lateral_convs.") && !key.contains("fpn_convs."))
    {
        return Err(weights.wrong(other, "a feature pyramid (FPN)".into(), "another neck".into()));
    }
    if let Some(other) = weights.keys().find(|key| key.starts_with("neck.") && !key.contains(".conv.")) {
        return Err(weights.wrong(other, "convolutions without norms in the neck".into(), "a norm".into()));
    }
    if weights.has("neck.fpn_convs.4.conv.weight") {
        return Err(weights.wrong("neck.fpn_convs.4.conv.weight", "four convolutions of the pyramid".into(), "a fifth".into()));
    }
    let cascade = weights.has("roi_head.bbox_head.0.fc_cls.weight");
    let first = if cascade { "roi_head.bbox_head.0" } else { "roi_head.bbox_head" };
    let of_stages = if cascade { count(weights, |stage| format!("roi_head.bbox_head.{stage}.fc_cls.weight")) } else { 1 };
    if cascade && of_stages != 3 {
        let key = format!("roi_head.bbox_head.{}.fc_cls.weight", of_stages - 1);
        return Err(weights.wrong(&key, "a cascade of three stages".into(), format!("{of_stages}")));
    }
    let key = format!("{first}.fc_cls.weight");
    let (class, boxes) = (weights.shape(&key, 2)?, weights.shape(&format!("{first}.fc_reg.weight"), 2)?);
    let classes = class[0].saturating_sub(1);
    if classes == 0 {
        return Err(weights.wrong(&key, "at least one class and none".into(), format!("{} rows", class[0])));
    }
    if boxes[0] != 4 && boxes[0] != 4 * classes {
        let expected = format!("{} rows, a box for each of {classes} classes, or 4, one for all", 4 * classes);
        return Err(weights.wrong(&format!("{first}.fc_reg.weight"), expected, format!("{}", boxes[0])));
    }
    let layers = count(weights, |index| format!("{first}.shared_fcs.{index}.weight"));
    let first_layer = format!("{first}.shared_fcs.0.weight");
    let (inputs, dim) = (weights.shape(&first_layer, 2)?[1], rpn[1]);
    if inputs != dim * CELLS {
        let expected = format!("{} inputs, 7x7 cells of {dim} channels", dim * CELLS);
        return Err(weights.wrong(&first_layer, expected, inputs.to_string()));
    }
    let mask = if cascade { "roi_head.mask_head.0" } else { "roi_head.mask_head" };
    let config = RcnnConfig {
        backbone: swin,
        dim,
        stages: of_stages,
        convs: count(weights, |index| format!("{first}.shared_convs.{index}.conv.weight")),
        layers,
        hidden: class[1],
        classes,
        box_of_class: boxes[0] != 4,
        makes_masks: weights.keys().any(|key| key.starts_with("roi_head.mask_head.")),
        mask_convs: count(weights, |index| format!("{mask}.convs.{index}.conv.weight")),
        proposals: PROPOSALS,
        keeps_flat: layout == Layout::Mmdet,
    };
    check_convs(weights, &config, first)?;
    notes.push(format!(
        "from the tensors: {:?} blocks, pyramid of width {dim}, {classes} classes and none, stored as {}",
        config.backbone.stages.iter().map(|stage| stage.depth).collect::<Vec<_>>(),
        weights.stored_as()
    ));
    notes.push(
        "as mmdet's published configurations have them: anchors, deviations of boxes, thresholds, 1000 proposals, 100 objects, norm epsilon 1e-5; masks are enlarged in float".into(),
    );
    Ok(config)
}

/// Refuses a head whose convolutions have another norm than the published ones: its formula is in no tensor.
fn check_convs(weights: &Weights, config: &RcnnConfig, first: &str) -> Result<()> {
    let norm = format!("{first}.shared_convs.0.bn.running_var");
    if config.convs > 0 && !weights.has(&norm) {
        return Err(weights.wrong(&norm, "a batch norm behind every convolution".into(), "none: another norm, or no norm".into()));
    }
    if config.layers == 0 {
        let problem = format!("`{first}`: no layer behind the regions, which igq does not compute");
        return Err(Error::content(weights.file(), problem, "name a Mask R-CNN or Cascade Mask R-CNN of mmdet's published configurations"));
    }
    Ok(())
}
