//! Sizes of a DETR, a ResNet whose last map an encoder and a decoder read, and how they are told from a checkpoint.

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Value, json};

use super::strict::Part;
use crate::error::Result;
use crate::model::checkpoint::Checkpoint;

/// Name of the tensor that tells a DETR.
pub const QUERIES: &str = "query_position_embeddings.weight";

/// The input size until a session chooses one: what transformers makes of a square.
const SIDE: usize = 800;

/// Sizes and variants of a DETR.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct DetrConfig {
    /// Height and width of the input in pixels; any.
    pub image_size: (usize, usize),
    /// Channels of the stem.
    pub stem: usize,
    /// Blocks, channels inside and channels of the output of each stage of the ResNet.
    pub stages: Vec<(usize, usize, usize)>,
    /// Width of encoder and decoder, `d`.
    pub dim: usize,
    /// Layers, heads and hidden width of the encoder.
    pub encoder: (usize, usize, usize),
    /// The same of the decoder.
    pub decoder: (usize, usize, usize),
    /// Queries, `Q`: each gives one object or none.
    pub queries: usize,
    /// Number of classes.
    pub classes: usize,
}

impl DetrConfig {
    /// Rows and columns behind the stem, and behind every stage.
    #[must_use]
    pub fn grids(&self) -> Vec<(usize, usize)> {
        let half = |(rows, columns): (usize, usize)| (rows.div_ceil(2), columns.div_ceil(2));
        let mut grids = vec![half(half(self.image_size))];
        for stage in 0..self.stages.len() {
            grids.push(if stage == 0 { grids[0] } else { half(grids[stage]) });
        }
        grids
    }

    /// Rows and columns of the last map.
    #[must_use]
    pub fn grid(&self) -> (usize, usize) {
        self.grids().last().copied().unwrap_or_default()
    }

    /// One line for users.
    #[must_use]
    pub fn describe(&self) -> String {
        let (height, width) = self.image_size;
        let depths = self.stages.iter().map(|stage| stage.0.to_string()).collect::<Vec<_>>().join("+");
        format!(
            "DETR, a ResNet of {depths} blocks, {} encoder and {} decoder layers of width {}, {width}x{height}x3, {} classes, {} queries",
            self.encoder.0, self.decoder.0, self.dim, self.classes, self.queries
        )
    }
}

/// Keys that are read, told by the tensors, or change nothing at inference.
const KNOWN: &[&str] = &[
    "backbone",
    "backbone_config",
    "backbone_kwargs",
    "use_timm_backbone",
    "use_pretrained_backbone",
    "d_model",
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "encoder_layers",
    "encoder_attention_heads",
    "encoder_ffn_dim",
    "encoder_layerdrop",
    "decoder_layers",
    "decoder_attention_heads",
    "decoder_ffn_dim",
    "decoder_layerdrop",
    "num_queries",
    "num_channels",
    "dropout",
    "attention_dropout",
    "activation_dropout",
    "init_std",
    "init_xavier_std",
    "auxiliary_loss",
    "eos_coefficient",
    "max_position_embeddings",
    "is_encoder_decoder",
    "classifier_dropout",
    "scale_embedding",
];

/// The same of the ResNet.
const KNOWN_OF_BACKBONE: &[&str] =
    &["depths", "hidden_sizes", "embedding_size", "num_channels", "out_indices", "stage_names", "is_encoder_decoder"];

/// Reads what a DETR is.
///
/// # Errors
/// When the tensors are not those of a DETR, or contradict each other or the configuration.
pub fn infer(checkpoint: &Checkpoint, notes: &mut Vec<String>) -> Result<DetrConfig> {
    let weights = &checkpoint.weights;
    let own = Part::of(checkpoint, "DetrForObjectDetection", "the numbers of heads")?;
    let keys = own.keys;
    let required = [("activation_function", json!("relu")), ("position_embedding_type", json!("sine")), ("dilation", json!(false))];
    own.check(&required, KNOWN)?;
    if let Some(below) = own.below("backbone_config", "backbone_config.") {
        let required = [
            ("hidden_act", json!("relu")),
            ("layer_type", json!("bottleneck")),
            ("downsample_in_bottleneck", json!(false)),
            ("downsample_in_first_stage", json!(false)),
            ("out_features", json!(["stage4"])),
        ];
        below.check(&required, KNOWN_OF_BACKBONE)?;
    } else if let Some(name) = keys.get("backbone").and_then(Value::as_str).filter(|name| !name.starts_with("resnet")) {
        return Err(own.wrong("backbone", "a resnet", &format!("`{name}`")));
    }
    let stem = weights.shape("conv1.weight", 4)?;
    if stem[1..] != [3, 7, 7] {
        return Err(weights.wrong("conv1.weight", "a convolution of 7x7 over three colours".into(), format!("shape {stem:?}")));
    }
    let mut stages = Vec::new();
    while weights.has(&format!("layer{}.0.conv1.weight", stages.len() + 1)) {
        let name = |block: usize, part: &str| format!("layer{}.{block}.{part}.weight", stages.len() + 1);
        let depth = (0..usize::from(u16::MAX)).take_while(|block| weights.has(&name(*block, "conv1"))).count();
        stages.push((depth, weights.shape(&name(0, "conv1"), 4)?[0], weights.shape(&name(0, "conv3"), 4)?[0]));
    }
    let layers = |part: &str| (0..usize::from(u16::MAX)).take_while(|i| weights.has(&format!("{part}.layers.{i}.fc1.weight"))).count();
    let (rows, projection) = (weights.shape(QUERIES, 2)?, weights.shape("input_projection.weight", 4)?);
    let (queries, dim) = (rows[0], rows[1]);
    if own.number("num_queries", 100)? != queries || projection[0] != dim || dim < 4 || !dim.is_multiple_of(4) {
        let expected =
            format!("{} queries (num_queries) of the width of the input projection, {}", own.number("num_queries", 100)?, projection[0]);
        return Err(weights.wrong(QUERIES, expected, format!("shape {rows:?}")));
    }
    let of = |part: &str, heads_key: &str, layers_key: &str| -> Result<(usize, usize, usize)> {
        let (found, heads) = (layers(part), own.number(heads_key, 8)?);
        if own.number(layers_key, 6)? != found || found == 0 {
            return Err(own.wrong(layers_key, &format!("{found}, as the tensors have"), &own.number(layers_key, 6)?.to_string()));
        }
        if !dim.is_multiple_of(heads) {
            return Err(own.wrong(heads_key, &format!("a divisor of the width {dim}"), &heads.to_string()));
        }
        Ok((found, heads, weights.shape(&format!("{part}.layers.0.fc1.weight"), 2)?[0]))
    };
    let (encoder, decoder) =
        (of("encoder", "encoder_attention_heads", "encoder_layers")?, of("decoder", "decoder_attention_heads", "decoder_layers")?);
    let classes = weights.shape("cls.weight", 2)?[0].saturating_sub(1);
    notes.push(format!(
        "from the tensors: stages {:?}, {} and {} layers of width {dim}, {queries} queries, {classes} classes and none, stored as {}; heads from config.json",
        stages.iter().map(|stage| stage.0).collect::<Vec<_>>(),
        encoder.0,
        decoder.0,
        weights.stored_as()
    ));
    Ok(DetrConfig { image_size: (SIDE, SIDE), stem: stem[0], stages, dim, encoder, decoder, queries, classes })
}
