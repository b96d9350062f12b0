//! Names of an RF-DETR: those that its authors and `save_pretrained` write, and those of transformers' modules, become one set. The backbone
//! gets timm's names of a ViT.

use super::names::{Layout, bare, timm_name};
use super::weights::Weights;
use crate::error::Result;

/// Starts of names and what they become.
const STARTS: [(&str, &str); 18] = [
    ("projector.stages.0.0.", "projector."),
    ("projector.stages.0.1.", "projector.norm."),
    ("projector.projector_layer.", "projector."),
    ("projector.layer_norm.", "projector.norm."),
    ("reference_point_embed.", "refpoint_embed."),
    ("transformer.decoder.", "decoder."),
    ("transformer.enc_output.0.", "proposals.out."),
    ("transformer.enc_output_norm.0.", "proposals.norm."),
    ("transformer.enc_out_class_embed.0.", "proposals.cls."),
    ("transformer.enc_out_bbox_embed.0.layers.", "proposals.box."),
    ("class_embed.", "cls."),
    ("bbox_embed.layers.", "box."),
    ("segmentation_head.", "mask."),
    ("segmentation_bias", "mask.bias"),
    ("blocks.", "mask.blocks."),
    ("spatial_features_proj.", "mask.spatial_features_proj."),
    ("query_features_block.", "mask.query_features_block."),
    ("query_features_proj.", "mask.query_features_proj."),
];

/// Parts of the names of transformers' modules, each a run of whole segments, and what they become.
const PARTS: [(&str, &str); 16] = [
    (".bottlenecks.", ".m."),
    (".conv1.", ".cv1."),
    (".conv2.", ".cv2."),
    (".cv1.norm.", ".cv1.bn."),
    (".cv2.norm.", ".cv2.bn."),
    (".self_attn_layer_norm.", ".norm1."),
    (".cross_attn_layer_norm.", ".norm2."),
    (".layer_norm.", ".norm3."),
    (".layernorm.", ".norm."),
    (".self_attn.o_proj.", ".self_attn.out_proj."),
    (".depthwise_conv.", ".dwconv."),
    (".pointwise_conv.", ".pwconv1."),
    (".query_features_block.norm.", ".query_features_block.norm_in."),
    (".query_features_block.mlp.fc1.", ".query_features_block.layers.0."),
    (".query_features_block.mlp.fc2.", ".query_features_block.layers.2."),
    (".mlp.", "."),
];

/// Whether the names are those of an RF-DETR.
#[must_use]
pub fn is_one(weights: &Weights) -> bool {
    let has = |end: &str| weights.keys().any(|key| key.ends_with(end));
    has("query_feat.weight") && (has("refpoint_embed.weight") || has("reference_point_embed.weight"))
}

/// Renames and fuses; what only training uses goes. The last value says so.
///
/// # Errors
/// When two tensors would get one name, or a projection is missing beside others.
pub fn to_own(mut weights: Weights) -> Result<(Weights, Layout, Vec<String>)> {
    let left = weights.keep(|key| !of_other_group(key));
    let notes = vec![format!("{left} tensors of other groups of queries, which only training uses, are left out")];
    let mut weights = weights.renamed(own_name)?;
    weights.fuse_all(&[".attn.q.", ".attn.k.", ".attn.v."], ".attn.qkv.")?;
    weights.fuse_all(&[".self_attn.q_proj.", ".self_attn.k_proj.", ".self_attn.v_proj."], ".self_attn.in_proj_")?;
    Ok((weights, Layout::Transformers, notes))
}

/// Whether a name belongs to a group of queries that only training uses.
fn of_other_group(key: &str) -> bool {
    let after = ["enc_output.", "enc_output_norm.", "enc_out_class_embed.", "enc_out_bbox_embed."];
    let group = after.iter().find_map(|start| key.split_once(start)).and_then(|(_, rest)| rest.split('.').next());
    group.is_some_and(|group| group != "0" && group.parse::<u16>().is_ok())
}

fn own_name(key: &str) -> String {
    let key = ["module.", "_orig_mod."].into_iter().fold(key, |key, start| key.strip_prefix(start).unwrap_or(key));
    // Of the authors, and of transformers' modules.
    for start in ["backbone.0.encoder.encoder.", "backbone.backbone."] {
        if let Some((before, rest)) = key.split_once(start)
            && before.split_terminator('.').all(|part| part == "model")
        {
            return timm_name(bare(rest));
        }
    }
    let mut rest = key;
    while let Some(inner) = rest.strip_prefix("model.") {
        rest = inner;
    }
    let rest = ["backbone.0.", "backbone."].into_iter().find_map(|start| rest.strip_prefix(start)).unwrap_or(rest);
    let rest = match rest.split_once('.') {
        Some((first, _)) if first.starts_with("enc_out") => format!("transformer.{rest}"),
        _ => rest.to_string(),
    };
    let start = STARTS.iter().find_map(|(theirs, own)| Some(format!("{own}{}", rest.strip_prefix(theirs)?)));
    let name = start.unwrap_or(rest);
    let parts = PARTS.iter().fold(format!(".{name}."), |name, (theirs, own)| name.replace(theirs, own));
    let name = parts.trim_matches('.').to_string();
    // The layers of a decoder's MLP.
    if name.starts_with("decoder.layers.") { name.replace(".fc1.", ".linear1.").replace(".fc2.", ".linear2.") } else { name }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_the_authors_and_of_modules_become_the_same() {
        for (theirs, modules, own) in [
            ("backbone.0.encoder.encoder.embeddings.cls_token", "model.model.backbone.backbone.embeddings.cls_token", "cls_token"),
            (
                "backbone.0.encoder.encoder.encoder.layer.3.attention.attention.query.bias",
                "model.backbone.backbone.encoder.layer.3.attention.q_proj.bias",
                "blocks.3.attn.q.bias",
            ),
            (
                "backbone.0.encoder.encoder.encoder.layer.0.layer_scale1.lambda1",
                "model.backbone.backbone.encoder.layer.0.layer_scale1.lambda1",
                "blocks.0.ls1.gamma",
            ),
            ("backbone.0.encoder.encoder.layernorm.weight", "model.backbone.backbone.layernorm.weight", "norm.weight"),
            (
                "backbone.0.projector.stages.0.0.m.1.cv2.bn.bias",
                "model.backbone.projector.projector_layer.bottlenecks.1.conv2.norm.bias",
                "projector.m.1.cv2.bn.bias",
            ),
            ("backbone.0.projector.stages.0.1.weight", "model.backbone.projector.layer_norm.weight", "projector.norm.weight"),
            ("refpoint_embed.weight", "model.reference_point_embed.weight", "refpoint_embed.weight"),
            ("transformer.enc_output.0.bias", "model.enc_output.0.bias", "proposals.out.bias"),
            (
                "transformer.enc_out_bbox_embed.0.layers.2.weight",
                "model.model.enc_out_bbox_embed.0.layers.2.weight",
                "proposals.box.2.weight",
            ),
            (
                "transformer.decoder.layers.1.norm2.weight",
                "model.decoder.layers.1.cross_attn_layer_norm.weight",
                "decoder.layers.1.norm2.weight",
            ),
            ("transformer.decoder.layers.1.linear1.weight", "model.decoder.layers.1.mlp.fc1.weight", "decoder.layers.1.linear1.weight"),
            ("transformer.decoder.norm.weight", "model.decoder.layernorm.weight", "decoder.norm.weight"),
            ("class_embed.bias", "model.class_embed.bias", "cls.bias"),
            ("segmentation_head.blocks.0.dwconv.weight", "blocks.0.depthwise_conv.weight", "mask.blocks.0.dwconv.weight"),
            (
                "segmentation_head.query_features_block.layers.2.bias",
                "query_features_block.mlp.fc2.bias",
                "mask.query_features_block.layers.2.bias",
            ),
            ("segmentation_head.blocks.1.norm.bias", "blocks.1.layernorm.bias", "mask.blocks.1.norm.bias"),
            ("segmentation_head.bias", "segmentation_bias", "mask.bias"),
        ] {
            assert_eq!((own_name(theirs).as_str(), own_name(modules).as_str()), (own, own), "{theirs}");
        }
        assert!(of_other_group("transformer.enc_output.12.weight") && !of_other_group("transformer.enc_output.0.weight"));
    }
}
