//! Sizes of an RF-DETR, a windowed DINOv2 whose maps a deformable decoder reads, and how they are told from a checkpoint.

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Value, json};

use super::strict::Part;
use super::vit::VitConfig;
use super::{number, pair, patch_embed};
use crate::error::Result;
use crate::model::checkpoint::Checkpoint;

/// Name of the tensor that tells an RF-DETR.
pub const QUERIES: &str = "query_feat.weight";

/// Sizes and variants of an RF-DETR.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct RfDetrConfig {
    /// The backbone, a DINOv2 without a head.
    pub backbone: VitConfig,
    /// Windows along each side of the picture; each has its own copy of the class token.
    pub windows: usize,
    /// After how many blocks a map is taken: those blocks see all windows, the others one.
    pub taken: Vec<usize>,
    /// Width of the decoder, `d`.
    pub dim: usize,
    /// Pairs of convolutions in the projector.
    pub pairs: usize,
    /// Channels of these convolutions.
    pub hidden: usize,
    /// Layers of the decoder.
    pub layers: usize,
    /// Queries, `Q`: each gives one object.
    pub queries: usize,
    /// Heads of the self-attention of the decoder.
    pub heads: usize,
    /// Heads of the deformable attention.
    pub sampling_heads: usize,
    /// Points that a head samples.
    pub points: usize,
    /// Hidden width of the decoder's MLPs.
    pub mlp_dim: usize,
    /// Number of classes.
    pub classes: usize,
    /// What it has where it makes masks: the hidden width of the queries' MLP and by how much a mask is smaller than the input.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub masks: Option<(usize, usize)>,
}

impl RfDetrConfig {
    /// Rows and columns of the maps.
    #[must_use]
    pub const fn grid(&self) -> (usize, usize) {
        self.backbone.grid()
    }

    /// Rows and columns of a mask.
    #[must_use]
    pub fn mask_grid(&self) -> Option<(usize, usize)> {
        let (height, width) = self.backbone.image_size;
        self.masks.map(|(_, ratio)| (height / ratio.max(1), width / ratio.max(1)))
    }

    /// Blocks that are computed.
    #[must_use]
    pub fn blocks(&self) -> usize {
        self.taken.last().copied().unwrap_or_default()
    }

    /// One line for users.
    #[must_use]
    pub fn describe(&self) -> String {
        let ((height, width), vit) = (self.backbone.image_size, &self.backbone);
        let masks = if self.masks.is_some() { "-Seg" } else { "" };
        format!(
            "RF-DETR{masks}, {} blocks of width {} in {}x{} windows, {} decoder layers of width {}, {width}x{height}x{} in patches of {}x{}, {} classes, {} queries",
            self.blocks(),
            vit.embed_dim,
            self.windows,
            self.windows,
            self.layers,
            self.dim,
            vit.in_chans,
            vit.patch_size.1,
            vit.patch_size.0,
            self.classes,
            self.queries
        )
    }
}

/// Keys whose value must be this one: another would change the forward pass in a way that is not computed.
fn required() -> [(&'static str, Value); 7] {
    [
        ("activation_function", json!("silu")),
        ("decoder_activation_function", json!("relu")),
        ("segmentation_head_activation_function", json!("gelu")),
        ("num_feature_levels", json!(1)),
        ("attention_bias", json!(true)),
        ("layer_norm_eps", json!(1e-5)),
        ("hidden_expansion", json!(0.5)),
    ]
}

/// The same of the backbone.
fn required_of_backbone() -> [(&'static str, Value); 6] {
    [
        ("hidden_act", json!("gelu")),
        ("layer_norm_eps", json!(1e-6)),
        ("use_swiglu_ffn", json!(false)),
        ("apply_layernorm", json!(true)),
        ("reshape_hidden_states", json!(true)),
        ("num_channels", json!(3)),
    ]
}

/// Keys that are read, told by the tensors, or change nothing at inference.
const KNOWN: &[&str] = &[
    "backbone_config",
    "d_model",
    "decoder_layers",
    "decoder_n_points",
    "decoder_self_attention_heads",
    "decoder_cross_attention_heads",
    "decoder_ffn_dim",
    "num_queries",
    "group_detr",
    "c2f_num_blocks",
    "intermediate_size",
    "mask_downsample_ratio",
    "dropout",
    "attention_dropout",
    "activation_dropout",
    "auxiliary_loss",
    "disable_custom_kernels",
    "init_std",
    "initializer_range",
    "focal_alpha",
    "mask_point_sample_ratio",
    "eos_coefficient",
    "is_encoder_decoder",
];

/// The same of the backbone.
const KNOWN_OF_BACKBONE: &[&str] = &[
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "mlp_ratio",
    "image_size",
    "patch_size",
    "qkv_bias",
    "layerscale_value",
    "drop_path_rate",
    "hidden_dropout_prob",
    "attention_probs_dropout_prob",
    "initializer_range",
    "num_windows",
    "out_features",
    "out_indices",
    "stage_names",
    "window_block_indexes",
    "use_mask_token",
    "is_encoder_decoder",
];

/// Reads what an RF-DETR is.
///
/// # Errors
/// When the tensors are not those of an RF-DETR, or contradict each other or the configuration.
pub fn infer(checkpoint: &Checkpoint, notes: &mut Vec<String>) -> Result<RfDetrConfig> {
    let weights = &checkpoint.weights;
    let own = Part::of(checkpoint, "RfDetr", "the numbers of heads and windows")?;
    let below = own.below("backbone_config", "backbone_config.").ok_or_else(|| own.wrong("backbone_config", "an object", "none"))?;
    let keys = below.keys;
    // What is not there has the default of transformers, which is the required value.
    own.check(&required(), KNOWN)?;
    below.check(&required_of_backbone(), KNOWN_OF_BACKBONE)?;

    let (embed_dim, _, patch_size) = patch_embed(weights)?;
    let depth = (0..usize::from(u16::MAX)).take_while(|i| weights.has(&format!("blocks.{i}.norm1.weight"))).count();
    let size = pair(keys.get("image_size").unwrap_or(&json!(224)))
        .filter(|(h, w)| [h, w].iter().all(|side| (1..=super::MAX_SIDE).contains(*side)));
    let size = size.ok_or_else(|| below.wrong("image_size", "a size in pixels", &json!(keys.get("image_size")).to_string()))?;
    let grid = (size.0 / patch_size.0, size.1 / patch_size.1);
    let positions = weights.shape("pos_embed", 3)?[1];
    let side = (positions.saturating_sub(1) as f64).sqrt() as usize;
    if 1 + side * side != positions || patch_size.0 != patch_size.1 {
        return Err(weights.wrong("pos_embed", "a class token and a square grid".into(), format!("{positions} positions")));
    }
    let windows = below.number("num_windows", 4)?;
    if !(grid.0 > 0 && grid.1 > 0 && grid.0.is_multiple_of(windows) && grid.1.is_multiple_of(windows)) {
        return Err(below.wrong("num_windows", &format!("a divisor of the grid {}x{}", grid.0, grid.1), &windows.to_string()));
    }
    let indices = keys.get("out_indices").cloned().unwrap_or_else(|| json!([depth]));
    let taken: Vec<usize> = indices.as_array().into_iter().flatten().filter_map(number).collect();
    if taken.is_empty() || !taken.is_sorted_by(|a, b| a < b) || taken[0] == 0 || taken.last().is_some_and(|last| *last > depth) {
        return Err(below.wrong("out_indices", &format!("increasing numbers of blocks up to {depth}"), &indices.to_string()));
    }
    let windowed: Vec<usize> = (0..=taken.last().copied().unwrap_or_default()).filter(|block| !taken.contains(block)).collect();
    let stored: Option<Vec<usize>> =
        keys.get("window_block_indexes").and_then(Value::as_array).map(|list| list.iter().filter_map(number).collect());
    if let Some(mut stored) = stored {
        stored.sort_unstable();
        if stored != windowed {
            return Err(below.wrong(
                "window_block_indexes",
                &format!("{windowed:?}, the blocks that are not in out_indices"),
                &format!("{stored:?}"),
            ));
        }
    }
    let heads = below.number("num_attention_heads", 12)?;
    if !embed_dim.is_multiple_of(heads) {
        return Err(below.wrong("num_attention_heads", &format!("a divisor of the width {embed_dim}"), &heads.to_string()));
    }

    let (queries, rows) = (own.number("num_queries", 300)?, weights.shape(QUERIES, 2)?);
    let dim = rows[1];
    let groups = own.number("group_detr", 13)?;
    if queries.saturating_mul(groups) != rows[0] || dim < 16 {
        let expected = format!("{queries} queries in {groups} groups (num_queries, group_detr), of width 16 or more");
        return Err(weights.wrong(QUERIES, expected, format!("shape {rows:?}")));
    }
    let layers = (0..usize::from(u16::MAX)).take_while(|i| weights.has(&format!("decoder.layers.{i}.norm1.weight"))).count();
    if own.number("decoder_layers", 3)? != layers {
        return Err(own.wrong("decoder_layers", &format!("{layers}, as the tensors have"), &own.number("decoder_layers", 3)?.to_string()));
    }
    let (heads_of_decoder, sampling_heads) =
        (own.number("decoder_self_attention_heads", 8)?, own.number("decoder_cross_attention_heads", 16)?);
    for (key, heads) in [("decoder_self_attention_heads", heads_of_decoder), ("decoder_cross_attention_heads", sampling_heads)] {
        if !dim.is_multiple_of(heads) {
            return Err(own.wrong(key, &format!("a divisor of the width {dim}"), &heads.to_string()));
        }
    }
    let key = "decoder.layers.0.cross_attn.attention_weights.weight";
    let points = weights.shape(key, 2)?[0] / sampling_heads;
    if points == 0 || own.number("decoder_n_points", 4)? != points {
        return Err(own.wrong(
            "decoder_n_points",
            &format!("{points}, as `{key}` has for {sampling_heads} heads"),
            &own.number("decoder_n_points", 4)?.to_string(),
        ));
    }
    let pairs = (0..usize::from(u16::MAX)).take_while(|i| weights.has(&format!("projector.m.{i}.cv1.conv.weight"))).count();
    let masks = if weights.has("mask.query_features_proj.weight") {
        Some((weights.shape("mask.query_features_block.layers.0.weight", 2)?[0], own.number("mask_downsample_ratio", 4)?))
    } else {
        None
    };
    let classes = weights.shape("cls.weight", 2)?[0];
    notes.push(format!(
        "from the tensors: {depth} blocks, width {embed_dim}, patch {}, {layers} decoder layers, width {dim}, {classes} classes, stored as {}",
        patch_size.0,
        weights.stored_as()
    ));
    notes.push(format!("heads, windows and queries from config.json; maps of blocks {taken:?}"));
    Ok(RfDetrConfig {
        backbone: VitConfig::dinov2(weights, size, (side, side), (depth, heads), classes)?,
        windows,
        taken,
        dim,
        pairs,
        hidden: weights.shape("projector.cv1.conv.weight", 4)?[0] / 2,
        layers,
        queries,
        heads: heads_of_decoder,
        sampling_heads,
        points,
        mlp_dim: weights.shape("decoder.layers.0.linear1.weight", 2)?[0],
        classes,
        masks,
    })
}
