//! Sizes of an EoMT, a plain ViT whose last blocks see queries too, each of which becomes a mask; and how they are told from a checkpoint.

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::json;

use super::strict::Part;
use super::vit::VitConfig;
use super::{pair, patch_embed};
use crate::error::Result;
use crate::model::checkpoint::Checkpoint;

/// Name of the tensor that tells an EoMT.
pub const QUERIES: &str = "query.weight";

/// Probability that an object must have to be shown: transformers' default for these networks.
pub const THRESHOLD: f64 = 0.8;

/// Sizes and variants of an EoMT.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct EomtConfig {
    /// The ViT, a DINOv2 with registers and without a head.
    pub backbone: VitConfig,
    /// Queries, `Q`: each gives one mask or none.
    pub queries: usize,
    /// How many of the last blocks see them.
    pub joined: usize,
    /// How often the map becomes twice as fine.
    pub upscales: usize,
    /// Number of classes.
    pub classes: usize,
}

impl EomtConfig {
    /// Rows and columns of a mask.
    #[must_use]
    pub const fn mask_grid(&self) -> (usize, usize) {
        let (rows, columns) = self.backbone.grid();
        (rows << self.upscales, columns << self.upscales)
    }

    /// One line for users.
    #[must_use]
    pub fn describe(&self) -> String {
        let ((height, width), vit) = (self.backbone.image_size, &self.backbone);
        format!(
            "EoMT, {} blocks of width {}, the last {} with {} queries, {} heads, {width}x{height}x{} in patches of {}x{}, {} classes",
            vit.depth, vit.embed_dim, self.joined, self.queries, vit.heads, vit.in_chans, vit.patch_size.1, vit.patch_size.0, self.classes
        )
    }
}

/// Keys that are read, told by the tensors, or change nothing at inference.
const KNOWN: &[&str] = &[
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "mlp_ratio",
    "image_size",
    "patch_size",
    "num_blocks",
    "num_queries",
    "num_register_tokens",
    "num_upscale_blocks",
    "layerscale_value",
    "drop_path_rate",
    "hidden_dropout_prob",
    "attention_dropout",
    "initializer_range",
    "no_object_weight",
    "class_weight",
    "mask_weight",
    "dice_weight",
    "train_num_points",
    "oversample_ratio",
    "importance_sample_ratio",
];

/// Reads what an EoMT is.
///
/// # Errors
/// When the tensors are not those of an EoMT, or contradict each other or the configuration.
pub fn infer(checkpoint: &Checkpoint, notes: &mut Vec<String>) -> Result<EomtConfig> {
    let weights = &checkpoint.weights;
    let own = Part::of(checkpoint, "EomtForUniversalSegmentation", "the numbers of heads and of blocks with queries")?;
    let keys = own.keys;
    let required =
        [("hidden_act", json!("gelu")), ("layer_norm_eps", json!(1e-6)), ("use_swiglu_ffn", json!(false)), ("num_channels", json!(3))];
    own.check(&required, KNOWN)?;
    let (embed_dim, _, patch_size) = patch_embed(weights)?;
    let depth = (0..usize::from(u16::MAX)).take_while(|i| weights.has(&format!("blocks.{i}.norm1.weight"))).count();
    if own.number("num_hidden_layers", 24)? != depth {
        return Err(own.wrong(
            "num_hidden_layers",
            &format!("{depth}, as the tensors have"),
            &own.number("num_hidden_layers", 24)?.to_string(),
        ));
    }
    let size = pair(keys.get("image_size").unwrap_or(&json!(640))).filter(|(h, w)| h == w && (1..=super::MAX_SIDE).contains(h));
    let size = size.ok_or_else(|| own.wrong("image_size", "a square in pixels", &json!(keys.get("image_size")).to_string()))?;
    let grid = (size.0 / patch_size.0, size.1 / patch_size.1);
    let positions = weights.shape("pos_embed.weight", 2)?[0];
    if grid.0 * grid.1 != positions || patch_size.0 != patch_size.1 {
        let expected = format!("{} positions, one for each of {}x{} patches", grid.0 * grid.1, grid.0, grid.1);
        return Err(weights.wrong("pos_embed.weight", expected, format!("{positions} positions")));
    }
    let heads = own.number("num_attention_heads", 16)?;
    if !embed_dim.is_multiple_of(heads) {
        return Err(own.wrong("num_attention_heads", &format!("a divisor of the width {embed_dim}"), &heads.to_string()));
    }
    let (queries, joined) = (weights.shape(QUERIES, 2)?[0], own.number("num_blocks", 4)?);
    if own.number("num_queries", 200)? != queries {
        return Err(own.wrong("num_queries", &format!("{queries}, as `{QUERIES}` has"), &own.number("num_queries", 200)?.to_string()));
    }
    if joined > depth {
        return Err(own.wrong("num_blocks", &format!("at most {depth}"), &joined.to_string()));
    }
    // Above zero they hide patches from queries by the masks of the block before, at random where below one.
    let hides = weights.get("attn_mask_probs", &[joined])?.to_vec1::<f32>()?;
    if let Some(share) = hides.iter().find(|share| **share > 0.0) {
        let found = format!("{share}: masks hide patches from queries, as in the middle of training");
        return Err(weights.wrong("attn_mask_probs", "zeros, as trained checkpoints have them".into(), found));
    }
    let registers = if weights.has("reg_token") { weights.shape("reg_token", 3)?[1] } else { 0 };
    let upscales = (0..usize::from(u16::MAX)).take_while(|i| weights.has(&format!("upscale_block.block.{i}.conv1.weight"))).count();
    let classes = weights.shape("class_predictor.weight", 2)?[0].saturating_sub(1);
    notes.push(format!(
        "from the tensors: {depth} blocks, width {embed_dim}, patch {}, {registers} registers, {queries} queries, {classes} classes and none, stored as {}",
        patch_size.0,
        weights.stored_as()
    ));
    Ok(EomtConfig {
        backbone: VitConfig { registers, prefix_positions: 0, ..VitConfig::dinov2(weights, size, grid, (depth, heads), classes)? },
        queries,
        joined,
        upscales,
        classes,
    })
}
