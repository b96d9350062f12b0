//! Names of a Mask R-CNN or Cascade Mask R-CNN with a Swin Transformer, as mmdet writes them: those of version 2, which the published files of the paper's
//! systems have, and of version 3, whose Swin has other names and another order of merged channels.

use super::names::{Layout, swin_name};
use super::weights::Weights;
use crate::error::Result;

/// Whether the names are those of a detector of regions of mmdet.
#[must_use]
pub fn is_one(weights: &Weights) -> bool {
    let has = |part: &str| weights.keys().any(|key| key.contains(part));
    has("rpn_head.") && has("roi_head.bbox_head.")
}

/// What wrappers and training put before the names.
const BEFORE: [&str; 4] = ["module.", "model.", "state_dict.", "detector."];

/// Parts of mmdet 3's names of a Swin Transformer, and those of version 2.
const THREE: [(&str, &str); 5] = [
    (".attn.w_msa.", ".attn."),
    (".ffn.layers.0.0.", ".mlp.fc1."),
    (".ffn.layers.1.", ".mlp.fc2."),
    ("patch_embed.projection.", "patch_embed.proj."),
    ("stages.", "layers."),
];

/// Renames to timm's names of a Swin Transformer, with `norm0` to `norm3` behind its stages, and mmdet's of all else.
///
/// # Errors
/// When two tensors would get one name, or a merging has another shape.
pub fn to_own(mut weights: Weights) -> Result<(Weights, Layout, Vec<String>)> {
    let mut notes = Vec::new();
    // mmdet's EMA hook keeps averaged copies beside the weights, and swaps both when it saves: the weights are the averaged ones.
    let copies = weights.keep(|key| !key.starts_with("ema_"));
    if copies > 0 {
        notes.push(format!("{copies} copies that training keeps (EMA) are left out"));
    }
    let three = weights.keys().any(|key| key.contains("backbone.stages."));
    let mut weights = weights.renamed(own_name)?;
    let early = weights.has("layers.0.downsample.reduction.weight");
    if early {
        weights = weights.renamed(|key| swin_name(key, true, false))?;
    }
    if three {
        notes.push("names of mmdet 3, whose Swin merges channels in the order of torch's Unfold".into());
    }
    Ok((weights, if three { Layout::Mmdet3 } else { Layout::Mmdet }, notes))
}

fn own_name(key: &str) -> String {
    let mut rest = key;
    while let Some(inner) = BEFORE.iter().find_map(|before| rest.strip_prefix(before)) {
        rest = inner;
    }
    let Some(inner) = rest.strip_prefix("backbone.") else { return rest.to_string() };
    THREE.iter().fold(inner.to_string(), |name, (theirs, own)| name.replace(theirs, own))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_versions_of_mmdet_become_the_same() {
        for (two, three) in [
            ("backbone.layers.0.blocks.1.attn.qkv.weight", "backbone.stages.0.blocks.1.attn.w_msa.qkv.weight"),
            ("backbone.layers.0.blocks.1.mlp.fc1.bias", "backbone.stages.0.blocks.1.ffn.layers.0.0.bias"),
            ("backbone.layers.3.blocks.1.mlp.fc2.bias", "backbone.stages.3.blocks.1.ffn.layers.1.bias"),
            ("backbone.patch_embed.proj.weight", "backbone.patch_embed.projection.weight"),
            ("backbone.norm2.weight", "module.backbone.norm2.weight"),
            ("rpn_head.rpn_cls.bias", "rpn_head.rpn_cls.bias"),
        ] {
            assert_eq!(own_name(two), own_name(three));
        }
        assert_eq!(own_name("backbone.layers.0.downsample.norm.bias"), "layers.0.downsample.norm.bias");
    }
}
