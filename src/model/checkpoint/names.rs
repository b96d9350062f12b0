//! Names: turns the tensor names of every known checkpoint layout into timm's, so that a network reads only those. Separate query, key
//! and value projections become the fused one. Nothing here knows sizes.

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
}

impl Layout {
    /// The name of the library.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Timm => "timm",
            Self::Transformers => "transformers",
        }
    }
}

/// What wrappers and transformers' task models put before a backbone's names.
const PREFIXES: [&str; 8] = ["timm_model.", "model.", "module.", "vit.", "deit.", "dinov2.", "dinov2_with_registers.", "swin."];

/// transformers' names and timm's, each a run of whole segments. The order matters: `attention.output.dense` before `output.dense`.
const NAMES: [(&str, &str); 34] = [
    (".embeddings.cls_token.", ".cls_token."),
    (".embeddings.distillation_token.", ".dist_token."),
    (".embeddings.register_tokens.", ".reg_token."),
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

/// Renames and fuses until every tensor that a network asks for has timm's name.
///
/// # Errors
/// When the names are those of another kind of model, two tensors would get one name, or a query projection has no key or value
/// projection beside it.
pub fn to_timm(weights: Weights) -> Result<(Weights, Layout)> {
    let foreign = |name: &str| FOREIGN.iter().find(|(part, _)| name.contains(part)).map(|(_, what)| format!("`{name}`, {what}"));
    if let Some(has) = weights.keys().find_map(foreign) {
        return Err(not_a_vit(&weights, &has));
    }
    let layout = if weights.keys().any(|key| key.contains("embeddings.")) { Layout::Transformers } else { Layout::Timm };
    let mut weights = weights.renamed(|key| match layout {
        Layout::Timm => bare(key).to_string(),
        Layout::Transformers => timm_name(bare(key)),
    })?;
    // transformers and the first Swin checkpoints put a merging at the end of a stage, timm at the start of the next; and timm's
    // classifier of a Swin is one deeper.
    let early = weights.has("layers.0.downsample.reduction.weight");
    let shallow = weights.has("layers.0.blocks.0.norm1.weight") && weights.has("head.weight");
    if early || shallow {
        weights = weights.renamed(|key| swin_name(key, early, shallow))?;
    }
    let queries: Vec<String> = weights.keys().filter(|key| key.contains(".attn.q.")).map(str::to_string).collect();
    for query in queries {
        let part = |letter: &str| query.replace(".attn.q.", &format!(".attn.{letter}."));
        weights.fuse(&["q", "k", "v"].map(part), &part("qkv"))?;
    }
    Ok((weights, layout))
}

/// A name without the prefixes of wrappers.
fn bare(key: &str) -> &str {
    PREFIXES.iter().find_map(|prefix| key.strip_prefix(prefix)).map_or(key, bare)
}

/// timm's name for one of transformers', without prefix.
fn timm_name(key: &str) -> String {
    let segments = NAMES.iter().fold(format!(".{key}."), |name, (theirs, timm)| name.replace(theirs, timm));
    let name = segments.trim_matches('.');
    match name.strip_prefix("layers.") {
        Some(rest) if !(rest.contains(".blocks.") || rest.contains(".downsample.")) => format!("blocks.{rest}"),
        _ => name.to_string(),
    }
}

/// timm's present name for one of a Swin checkpoint.
fn swin_name(key: &str, early: bool, shallow: bool) -> String {
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
    fn names_of_early_swins_become_those_of_timm() {
        assert_eq!(swin_name("layers.0.downsample.norm.bias", true, true), "layers.1.downsample.norm.bias");
        assert_eq!(swin_name("layers.1.downsample.norm.bias", false, true), "layers.1.downsample.norm.bias");
        assert_eq!(swin_name("head.weight", true, true), "head.fc.weight");
        assert_eq!(swin_name("layers.0.blocks.1.norm1.bias", true, true), "layers.0.blocks.1.norm1.bias");
    }
}
