//! Names: turns the tensor names of every known checkpoint layout into timm's, so that a network reads only those. Separate query, key
//! and value projections become the fused one. Nothing here knows sizes.

use std::collections::BTreeSet;

use serde::Serialize;

use crate::error::{Error, Result};
use crate::model::checkpoint::weights::Weights;

/// Who wrote a checkpoint, told by its names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Layout {
    /// timm, and what copies its names.
    Timm,
    /// transformers, version 4 or 5.
    Transformers,
    /// torchvision.
    Torchvision,
    /// mmdet, version 2.
    Mmdet,
    /// mmdet, version 3.
    Mmdet3,
}

impl Layout {
    /// The name of the library.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Timm => "timm",
            Self::Transformers => "transformers",
            Self::Torchvision => "torchvision",
            Self::Mmdet => "mmdet",
            Self::Mmdet3 => "mmdet 3",
        }
    }
}

/// What wrappers and transformers' task models put before a backbone's names.
const PREFIXES: [&str; 16] = [
    "timm_model.",
    "model.",
    "module.",
    "_orig_mod.",
    "backbone.",
    "visual.trunk.",
    "trunk.",
    "net.",
    "network.",
    "student.",
    "teacher.",
    "vit.",
    "deit.",
    "dinov2.",
    "dinov2_with_registers.",
    "swin.",
];

/// Names that other repositories give to the parts of a plain ViT, each a run of whole segments, and timm's.
const OTHERS: [(&str, &str); 10] = [
    (".register_tokens.", ".reg_token."),
    (".gamma_1.", ".ls1.gamma."),
    (".gamma_2.", ".ls2.gamma."),
    (".mlp.w12.", ".mlp.fc1."),
    (".mlp.down_proj.", ".mlp.fc2."),
    (".mlp.w3.", ".mlp.fc2."),
    (".mlp.weights_in.", ".mlp.fc1."),
    (".mlp.weights_out.", ".mlp.fc2."),
    (".norm_pre.", ".norm_pre."),
    (".ln_pre.", ".norm_pre."),
];

/// torchvision's names of a ViT.
const TORCHVISION_VIT: [(&str, &str); 14] = [
    (".class_token.", ".cls_token."),
    (".conv_proj.", ".patch_embed.proj."),
    (".encoder.pos_embedding.", ".pos_embed."),
    (".encoder.ln.", ".norm."),
    (".heads.head.", ".head."),
    (".ln_1.", ".norm1."),
    (".ln_2.", ".norm2."),
    (".self_attention.in_proj_weight.", ".attn.qkv.weight."),
    (".self_attention.in_proj_bias.", ".attn.qkv.bias."),
    (".self_attention.out_proj.", ".attn.proj."),
    (".mlp.linear_1.", ".mlp.fc1."),
    (".mlp.linear_2.", ".mlp.fc2."),
    (".mlp.0.", ".mlp.fc1."),
    (".mlp.3.", ".mlp.fc2."),
];

/// transformers' names and timm's, each a run of whole segments. The order matters: `attention.output.dense` before `output.dense`.
const NAMES: [(&str, &str); 37] = [
    (".embeddings.cls_token.", ".cls_token."),
    (".embeddings.distillation_token.", ".dist_token."),
    (".embeddings.register_tokens.", ".reg_token."),
    (".embeddings.detection_tokens.", ".det_token."),
    (".encoder.mid_position_embeddings.", ".mid_pos_embed."),
    (".embeddings.mask_token.", ".mask_token."),
    (".embeddings.position_embeddings.", ".pos_embed."),
    (".embeddings.patch_embeddings.projection.", ".patch_embed.proj."),
    (".embeddings.norm.", ".patch_embed.norm."),
    (".encoder.layer.", ".layers."),
    (".encoder.layers.", ".layers."),
    (".layer.", ".layers."),
    (".attention.attention.query.", ".attn.q."),
    (".attention.attention.key.", ".attn.k."),
    (".attention.attention.value.", ".attn.v."),
    (".attention.self.query.", ".attn.q."),
    (".attention.self.key.", ".attn.k."),
    (".attention.self.value.", ".attn.v."),
    (".attention.self.", ".attn."),
    (".relative_position_bias.relative_position_bias_table.", ".relative_position_bias_table."),
    (".attention.q_proj.", ".attn.q."),
    (".attention.k_proj.", ".attn.k."),
    (".attention.v_proj.", ".attn.v."),
    (".attention.o_proj.", ".attn.proj."),
    (".attention.out_proj.", ".attn.proj."),
    (".attention.output.dense.", ".attn.proj."),
    (".attention.", ".attn."),
    (".intermediate.dense.", ".mlp.fc1."),
    (".output.dense.", ".mlp.fc2."),
    (".layernorm_before.", ".norm1."),
    (".layernorm_after.", ".norm2."),
    (".layer_scale1.lambda1.", ".ls1.gamma."),
    (".layer_scale2.lambda1.", ".ls2.gamma."),
    (".layernorm.", ".norm."),
    (".classifier.", ".head."),
    (".cls_classifier.", ".head."),
    (".distillation_classifier.", ".head_dist."),
];

/// Parts of names that give away another kind of model, and what has them.
const FOREIGN: [(&str, &str); 7] = [
    ("embed_tokens", "a language model's word embedding"),
    ("word_embeddings", "a language model's word embedding"),
    ("wte.weight", "a language model's word embedding"),
    ("token_embedding", "a text encoder's word embedding"),
    ("lm_head", "a language model's head"),
    ("diffusion_model", "a part of a diffusion model"),
    ("lora_", "an adapter without the model it was made for"),
];

/// A checkpoint of something else, with what gave it away.
pub(crate) fn not_a_vit(weights: &Weights, has: &str) -> Error {
    let problem = format!("this is not a vision transformer, it has {has}");
    Error::content(weights.file(), problem, "name a ViT, DeiT, DINOv2 or Swin classifier of timm or transformers")
}

/// Copies of the weights that training keeps beside them, and what is left out for them; the first that is there is taken.
const COPIES: [&str; 10] = [
    "model_ema.",
    "ema.",
    "module_ema.",
    "ema_model.",
    "teacher_ema.",
    "state_dict_ema.",
    "ema_state_dict.",
    "averaged_model.",
    "swa_model.",
    "shadow.",
];

/// Names that end those of every network that igq knows: what stands before them is what wrappers put there.
const ANCHORS: [&str; 3] = ["patch_embed.proj.weight", "embeddings.patch_embeddings.projection.weight", "conv_proj.weight"];

/// Renames and fuses until every tensor that a network asks for has timm's name. The last value says what was left out.
///
/// # Errors
/// When the names are those of another kind of model, two tensors would get one name, or a query projection has no key or value
/// projection beside it.
pub fn to_timm(weights: Weights) -> Result<(Weights, Layout, Vec<String>)> {
    let foreign = |name: &str| FOREIGN.iter().find(|(part, _)| name.contains(part)).map(|(_, what)| format!("`{name}`, {what}"));
    if let Some(has) = weights.keys().find_map(foreign) {
        return Err(not_a_vit(&weights, &has));
    }
    let mut notes = Vec::new();
    let weights = without_copies(weights, &mut notes);
    let wrappers = wrappers(&weights);
    let bare = |key: &str| -> String {
        let mut rest = bare(key);
        while let Some(inner) = wrappers.iter().find_map(|wrapper| rest.strip_prefix(wrapper.as_str())) {
            rest = self::bare(inner);
        }
        rest.to_string()
    };
    let has_bare = |start: &str| weights.keys().any(|key| bare(key).starts_with(start));
    if has_bare("conv_proj.weight") && has_bare("encoder.layers.encoder_layer_0.") {
        let renamed = weights.renamed(|key| torchvision_vit(&bare(key)))?;
        return Ok((renamed, Layout::Torchvision, notes));
    }
    if has_bare("features.0.0.weight") && has_bare("features.1.0.attn.qkv.weight") {
        let renamed = weights.renamed(|key| torchvision_swin(&bare(key)))?;
        let renamed = renamed.renamed(|key| swin_name(key, false, true))?;
        return Ok((renamed, Layout::Torchvision, notes));
    }
    let layout = if weights.keys().any(|key| key.contains("embeddings.")) { Layout::Transformers } else { Layout::Timm };
    let mut weights = weights.renamed(|key| {
        let name = match layout {
            Layout::Transformers => timm_name(&bare(key)),
            _ => bare(key),
        };
        other_name(&name)
    })?;
    // transformers and the first Swin checkpoints put a merging at the end of a stage, timm at the start of the next; and timm's
    // classifier of a Swin is one deeper.
    let early = weights.has("layers.0.downsample.reduction.weight");
    let shallow = weights.has("layers.0.blocks.0.norm1.weight") && weights.has("head.weight");
    if early || shallow {
        weights = weights.renamed(|key| swin_name(key, early, shallow))?;
    }
    // Who trains a classifier on a backbone names it so.
    let own = ["classifier.", "head.fc.", "fc."].into_iter().find(|own| weights.has(&format!("{own}weight")));
    if let Some(own) = own.filter(|_| weights.has("blocks.0.norm1.weight") && !weights.has("head.weight")) {
        weights = weights.renamed(|key| key.strip_prefix(own).map_or_else(|| key.into(), |part| format!("head.{part}")))?;
        notes.push(format!("`{own}weight` is taken as the classifier"));
    }
    weights.fuse_all(&[".attn.q.", ".attn.k.", ".attn.v."], ".attn.qkv.")?;
    // A gated MLP whose gate and value are two layers.
    for (gate, value) in [(".mlp.fc1_g.", ".mlp.fc1_x."), (".mlp.gate_proj.", ".mlp.up_proj.")] {
        weights.fuse_all(&[gate, value], ".mlp.fc1.")?;
    }
    Ok((weights, layout, notes))
}

/// Without the averaged copies and the student that training writes beside the weights.
fn without_copies(mut weights: Weights, notes: &mut Vec<String>) -> Weights {
    let copy = |key: &str| COPIES.iter().any(|start| key.starts_with(start) || outside(key).starts_with(start));
    let both = weights.keys().any(copy) && weights.keys().any(|key| !copy(key) && key.contains("blocks.") | key.contains("layer"));
    if both {
        let left = weights.keep(|key| !copy(key));
        notes.push(format!("{left} tensors of averaged copies (EMA) are left out"));
    }
    let starts = |weights: &Weights, start: &str| weights.keys().any(|key| outside(key).starts_with(start));
    if starts(&weights, "student.") && starts(&weights, "teacher.") {
        let left = weights.keep(|key| !outside(key).starts_with("student."));
        notes.push(format!("{left} tensors of the student are left out: the teacher is what is evaluated"));
    }
    weights
}

/// A name without the wrappers around student and teacher.
fn outside(key: &str) -> &str {
    let around = PREFIXES.iter().filter(|prefix| !["student.", "teacher."].contains(prefix));
    around.into_iter().find_map(|prefix| key.strip_prefix(prefix)).map_or(key, outside)
}

/// The parts that wrappers which are not known by name put before the names of the only network of the file, the longest first.
fn wrappers(weights: &Weights) -> Vec<String> {
    let start = |key: &str| {
        let name = bare(key);
        ANCHORS
            .iter()
            .find_map(|anchor| name.strip_suffix(anchor))
            .filter(|start| start.is_empty() || start.ends_with('.'))
            .map(str::to_string)
    };
    let starts: BTreeSet<String> = weights.keys().filter_map(start).collect();
    let [start] = &starts.into_iter().collect::<Vec<_>>()[..] else { return Vec::new() };
    let unknown = |part: &String| part.len() > 1 && !PREFIXES.contains(&part.as_str());
    start.split_inclusive('.').map(str::to_string).filter(unknown).collect()
}

/// A name with its parts as timm names them, blocks of a chunk counted on.
fn other_name(key: &str) -> String {
    let segments = OTHERS.iter().fold(format!(".{key}."), |name, (theirs, timm)| name.replace(theirs, timm));
    let name = segments.trim_matches('.');
    // DINOv2 trains in chunks of blocks, each with the index of the whole network: `blocks.2.14.norm1` is block 14.
    let mut parts = name.split('.');
    match (parts.next(), parts.next(), parts.next()) {
        (Some("blocks"), Some(chunk), Some(block)) if chunk.parse::<u16>().is_ok() && block.parse::<u16>().is_ok() => {
            format!("blocks.{block}.{}", parts.collect::<Vec<_>>().join("."))
        }
        _ => name.into(),
    }
}

/// timm's name for one of torchvision's ViT.
fn torchvision_vit(key: &str) -> String {
    let segments = TORCHVISION_VIT.iter().fold(format!(".{key}."), |name, (theirs, timm)| name.replace(theirs, timm));
    segments.trim_matches('.').replace("encoder.layers.encoder_layer_", "blocks.")
}

/// timm's name for one of torchvision's Swin: odd features are stages, even ones mergings.
fn torchvision_swin(key: &str) -> String {
    let Some(rest) = key.strip_prefix("features.") else { return key.into() };
    let Some((index, part)) = rest.split_once('.') else { return key.into() };
    match (index.parse::<usize>(), part) {
        (Ok(0), _) => part.replacen("0.", "patch_embed.proj.", 1).replacen("2.", "patch_embed.norm.", 1),
        (Ok(index), part) if index % 2 == 1 => {
            let part = part.replace(".mlp.0.", ".mlp.fc1.").replace(".mlp.3.", ".mlp.fc2.");
            format!("layers.{}.blocks.{part}", index / 2)
        }
        (Ok(index), part) => format!("layers.{}.downsample.{part}", index / 2),
        _ => key.into(),
    }
}

/// A name without the prefixes of wrappers.
pub(super) fn bare(key: &str) -> &str {
    PREFIXES.iter().find_map(|prefix| key.strip_prefix(prefix)).map_or(key, bare)
}

/// timm's name for one of transformers', without prefix.
pub(super) fn timm_name(key: &str) -> String {
    let segments = NAMES.iter().fold(format!(".{key}."), |name, (theirs, timm)| name.replace(theirs, timm));
    let name = segments.trim_matches('.');
    match name.strip_prefix("layers.") {
        Some(rest) if !(rest.contains(".blocks.") || rest.contains(".downsample.")) => format!("blocks.{rest}"),
        _ => name.to_string(),
    }
}

/// timm's present name for one of a Swin checkpoint.
pub(super) fn swin_name(key: &str, early: bool, shallow: bool) -> String {
    let merging = key.strip_prefix("layers.").and_then(|rest| rest.split_once(".downsample."));
    if let Some((stage, part)) = merging.filter(|_| early)
        && let Ok(stage) = stage.parse::<u16>()
    {
        return format!("layers.{}.downsample.{part}", stage + 1);
    }
    match key.strip_prefix("head.").filter(|_| shallow) {
        Some(part) => format!("head.fc.{part}"),
        None => key.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_transformers_become_those_of_timm() {
        for (theirs, timm) in [
            ("vit.embeddings.position_embeddings", "pos_embed"),
            ("vit.encoder.layer.3.attention.attention.query.weight", "blocks.3.attn.q.weight"),
            ("vit.encoder.layer.3.attention.output.dense.bias", "blocks.3.attn.proj.bias"),
            ("vit.encoder.layer.3.output.dense.bias", "blocks.3.mlp.fc2.bias"),
            ("vit.layers.11.attention.o_proj.weight", "blocks.11.attn.proj.weight"),
            ("vit.layers.11.mlp.fc2.weight", "blocks.11.mlp.fc2.weight"),
            ("dinov2.encoder.layer.0.layer_scale1.lambda1", "blocks.0.ls1.gamma"),
            ("dinov2.layernorm.weight", "norm.weight"),
            ("swin.encoder.layers.1.blocks.0.attention.self.key.bias", "layers.1.blocks.0.attn.k.bias"),
            ("classifier.weight", "head.weight"),
        ] {
            assert_eq!(timm_name(bare(theirs)), timm, "{theirs}");
        }
    }

    #[test]
    fn names_of_other_repositories_become_those_of_timm() {
        for (theirs, timm) in [
            ("_orig_mod.module.backbone.blocks.2.14.norm1.weight", "blocks.14.norm1.weight"),
            ("register_tokens", "reg_token"),
            ("blocks.3.gamma_1", "blocks.3.ls1.gamma"),
            ("blocks.0.mlp.w12.bias", "blocks.0.mlp.fc1.bias"),
            ("visual.trunk.blocks.0.norm1.bias", "blocks.0.norm1.bias"),
        ] {
            assert_eq!(other_name(bare(theirs)), timm, "{theirs}");
        }
        assert_eq!(torchvision_vit("encoder.layers.encoder_layer_11.mlp.3.bias"), "blocks.11.mlp.fc2.bias");
        assert_eq!(torchvision_swin("features.3.1.mlp.0.weight"), "layers.1.blocks.1.mlp.fc1.weight");
        assert_eq!(torchvision_swin("features.2.reduction.weight"), "layers.1.downsample.reduction.weight");
        assert_eq!(torchvision_swin("features.0.2.bias"), "patch_embed.norm.bias");
    }

    #[test]
    fn names_of_early_swins_become_those_of_timm() {
        assert_eq!(swin_name("layers.0.downsample.norm.bias", true, true), "layers.1.downsample.norm.bias");
        assert_eq!(swin_name("layers.1.downsample.norm.bias", false, true), "layers.1.downsample.norm.bias");
        assert_eq!(swin_name("head.weight", true, true), "head.fc.weight");
        assert_eq!(swin_name("layers.0.blocks.1.norm1.bias", true, true), "layers.0.blocks.1.norm1.bias");
    }
}
