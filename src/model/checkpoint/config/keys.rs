//! Keys of a configuration: what would change the forward pass and is not understood is refused by name; what cannot is listed here.

use serde_json::{Map, Value};

use super::lookup;
use crate::error::{Error, Result};
use crate::model::checkpoint::Checkpoint;

/// Arguments of timm's models that are read here, or that change nothing at inference.
const TIMM: &[&str] = &[
    "img_size",
    "patch_size",
    "in_chans",
    "num_classes",
    "global_pool",
    "embed_dim",
    "depth",
    "depths",
    "num_heads",
    "mlp_ratio",
    "qkv_bias",
    "init_values",
    "class_token",
    "no_embed_class",
    "reg_tokens",
    "pre_norm",
    "fc_norm",
    "act_layer",
    "window_size",
    "dynamic_img_size",
    "drop_rate",
    "pos_drop_rate",
    "patch_drop_rate",
    "proj_drop_rate",
    "attn_drop_rate",
    "drop_path_rate",
    "weight_init",
    "pretrained",
    "pretrained_cfg",
    "pretrained_cfg_overlay",
    "checkpoint_path",
    "features_only",
    "strict_img_size",
    "drop_block_rate",
    "patch_norm",
    "distilled",
    "fix_init",
    "cache_dir",
    "scriptable",
    "exportable",
    "no_jit",
    // Names that others than timm put beside the weights.
    "num_labels",
    "image_size",
];

/// Keys of transformers' configurations of ViT, DeiT, DINOv2 and Swin that are read here, or that change nothing at inference.
const TRANSFORMERS: &[&str] = &[
    "model_type",
    "architectures",
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
    "hidden_act",
    "layer_norm_eps",
    "image_size",
    "patch_size",
    "num_channels",
    "qkv_bias",
    "mlp_ratio",
    "layerscale_value",
    "use_swiglu_ffn",
    "num_register_tokens",
    "embed_dim",
    "depths",
    "num_heads",
    "window_size",
    "num_layers",
    "patch_norm",
    "problem_type",
    "num_labels",
    "id2label",
    "label2id",
    "interpolate_antialias",
    "interpolate_offset",
    "interpolate_mode",
    "num_detection_tokens",
    "use_mid_position_embeddings",
    // How a detector was trained.
    "auxiliary_loss",
    "class_cost",
    "bbox_cost",
    "giou_cost",
    "bbox_loss_coefficient",
    "giou_loss_coefficient",
    "eos_coefficient",
    // Training, other tasks, and what transformers writes about itself.
    "attention_probs_dropout_prob",
    "hidden_dropout_prob",
    "drop_path_rate",
    "initializer_range",
    "encoder_stride",
    "pooler_act",
    "pooler_output_size",
    "out_features",
    "out_indices",
    "stage_names",
    "apply_layernorm",
    "reshape_hidden_states",
    "use_mask_token",
    "transformers_version",
    "torch_dtype",
    "dtype",
    "finetuning_task",
    "task_specific_params",
    "return_dict",
    "output_attentions",
    "output_hidden_states",
    "torchscript",
    "use_bfloat16",
    "use_cache",
    "tie_word_embeddings",
    "chunk_size_feed_forward",
    "is_encoder_decoder",
    "is_decoder",
    "cross_attention_hidden_size",
    "add_cross_attention",
    "tie_encoder_decoder",
    "max_length",
    "min_length",
    "do_sample",
    "early_stopping",
    "num_beams",
    "num_beam_groups",
    "diversity_penalty",
    "temperature",
    "top_k",
    "top_p",
    "typical_p",
    "repetition_penalty",
    "length_penalty",
    "no_repeat_ngram_size",
    "encoder_no_repeat_ngram_size",
    "bad_words_ids",
    "num_return_sequences",
    "output_scores",
    "return_dict_in_generate",
    "forced_bos_token_id",
    "forced_eos_token_id",
    "remove_invalid_values",
    "exponential_decay_length_penalty",
    "suppress_tokens",
    "begin_suppress_tokens",
    "tokenizer_class",
    "prefix",
    "bos_token_id",
    "pad_token_id",
    "eos_token_id",
    "sep_token_id",
    "decoder_start_token_id",
    "tf_legacy_loss",
    "classifier_dropout",
    "gradient_checkpointing",
    "attn_implementation",
    "license",
    "name_or_path",
    "label_names",
    "do_pooling",
    "auto_map",
    "num_classes",
    "loss_type",
    "output_past",
    // A slip in every published Swin, and what AutoTrain writes.
    "path_norm",
    "padding",
];

/// What a file that names neither an architecture of timm nor a type of transformers may have beside their keys.
const NEITHER: &[&str] = &["model_args", "label_names", "label_descriptions", "num_features", "mean", "std", "act_layer"];

/// What would change the forward pass where it is on, and has a name of its own.
const SWITCHES: &[(&str, &str)] = &[
    ("use_absolute_embeddings", "absolute position embeddings in a Swin"),
    ("ape", "absolute position embeddings in a Swin"),
    ("use_relative_position_bias", "relative position biases"),
    ("use_shared_relative_position_bias", "shared relative position biases"),
    ("use_rel_pos_bias", "relative position biases"),
    ("use_mean_pooling", "mean pooling as in BEiT"),
    ("use_qk_norm", "norms of queries and keys"),
    ("qk_norm", "norms of queries and keys"),
    ("scale_attn_norm", "a norm inside the attention"),
    ("scale_mlp_norm", "a norm inside the MLP"),
    ("rope_theta", "rotary position embeddings"),
    ("use_rot_pos_emb", "rotary position embeddings"),
    ("pruned_heads", "attention heads that were cut out"),
    ("always_partition", "windows that are shifted where one fills its grid"),
];

/// Refuses keys that are not understood.
///
/// # Errors
/// When there is one that may change the forward pass; the message names it.
pub(super) fn check(checkpoint: &Checkpoint) -> Result<()> {
    let Some(config) = checkpoint.config.as_ref() else { return Ok(()) };
    let refused =
        |problem: String| Err(Error::content(&checkpoint.name, problem, "it may change the numbers; name a checkpoint without it"));
    for (key, what) in SWITCHES {
        let empty = |value: &Value| value.as_object().is_some_and(Map::is_empty) || value.as_bool() == Some(false);
        let on = lookup(Some(config), key).is_some_and(|value| !empty(value));
        if on {
            return refused(format!("`{key}` of config.json: {what}, which igq does not compute"));
        }
    }
    let unknown = |keys: &Map<String, Value>, known: &[&str]| {
        let harmless = |key: &str, value: &Value| {
            known.contains(&key) || SWITCHES.iter().any(|(name, _)| *name == key) || key.starts_with('_') || value.is_null()
        };
        keys.iter().find(|(key, value)| !harmless(key, value)).map(|(key, value)| (key.clone(), value.clone()))
    };
    if let Some(args) = config.get("model_args").and_then(Value::as_object)
        && let Some((key, value)) = unknown(args, TIMM)
    {
        return refused(format!("`{key}` ({value}) in model_args of config.json is not known"));
    }
    // What timm does not read at the top is harmless there; transformers and whoever names neither may mean any key.
    let known = match config.get("model_type").and_then(Value::as_str) {
        Some("timm_wrapper") => return Ok(()),
        Some(_) => TRANSFORMERS.to_vec(),
        None if lookup(Some(config), "architecture").is_some() => return Ok(()),
        None => [TRANSFORMERS, TIMM, NEITHER].concat(),
    };
    match config.as_object().and_then(|keys| unknown(keys, &known)) {
        Some((key, value)) => refused(format!("`{key}` ({value}) of config.json is not known")),
        None => Ok(()),
    }
}

/// Detectors that are known by name and not computed.
const DETECTORS: &[(&str, &str)] = &[
    ("conditional_detr", "a DETR with conditional queries"),
    ("deformable_detr", "a DETR with deformable attention"),
    ("lw_detr", "an LW-DETR, a windowed ViT with a deformable decoder"),
    ("rt_detr", "an RT-DETR, a ResNet with a hybrid encoder"),
    ("mask2former", "a Mask2Former, which segments"),
    ("maskformer", "a MaskFormer, which segments"),
    ("owlvit", "an OWL-ViT, which looks for what a text says"),
];

/// Refuses what is no configuration, and the types of model that igq does not compute, each by its name.
///
/// # Errors
/// When it is one of these.
pub(super) fn check_type(checkpoint: &Checkpoint) -> Result<()> {
    let Some(config) = checkpoint.config.as_ref() else { return Ok(()) };
    let refused = |problem: String, advice: &str| Err(Error::content(&checkpoint.name, problem, advice));
    let Some(keys) = config.as_object() else {
        return refused("config.json: expected an object, with a value for every key".into(), "correct or remove the file");
    };
    for (key, wanted) in [("model_args", "an object"), ("pretrained_cfg", "an object"), ("architecture", "text"), ("model_type", "text")] {
        let fits = |value: &Value| value.is_null() || if wanted == "text" { value.is_string() } else { value.is_object() };
        if let Some(value) = keys.get(key).filter(|value| !fits(value)) {
            return refused(format!("`{key}` of config.json: expected {wanted}, found {value}"), "correct config.json");
        }
    }
    match config.get("model_type").and_then(Value::as_str) {
        None
        | Some("timm_wrapper" | "vit" | "deit" | "dinov2" | "dinov2_with_registers" | "swin" | "yolos" | "rf_detr" | "eomt" | "detr") => {
            Ok(())
        }
        Some(kind) => refused(
            match DETECTORS.iter().find(|(name, _)| *name == kind) {
                Some((_, what)) => format!("model_type `{kind}` of config.json: {what}, which igq does not compute yet"),
                None => {
                    format!(
                        "model_type `{kind}` of config.json: expected vit, deit, dinov2, dinov2_with_registers, swin, yolos, rf_detr or eomt"
                    )
                }
            },
            "name a ViT, DeiT, DINOv2 or Swin classifier of timm or transformers, or a YOLOS, DETR, RF-DETR or EoMT",
        ),
    }
}
