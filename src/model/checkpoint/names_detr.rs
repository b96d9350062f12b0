//! Names of a DETR: the ResNet in timm's names, which Facebook's files have, or in transformers', become one set.

use super::names::Layout;
use super::weights::Weights;
use crate::error::Result;

/// Whether the names are those of a DETR that detects.
#[must_use]
pub fn is_one(weights: &Weights) -> bool {
    let has = |end: &str| weights.keys().any(|key| key.ends_with(end));
    has("query_position_embeddings.weight") && has("class_labels_classifier.weight")
}

/// Renames, and stacks the query and key projections that have one input.
///
/// # Errors
/// When two tensors would get one name, or a projection is missing beside another.
pub fn to_own(mut weights: Weights) -> Result<(Weights, Layout, Vec<String>)> {
    // A DETR that segments panoptically is one that detects, with a head behind it that changes neither classes nor boxes.
    let left = weights.keep(|key| !(key.starts_with("mask_head.") || key.starts_with("bbox_attention.")));
    let notes = (left > 0).then(|| format!("{left} tensors of the panoptic head are left out: igq computes its classes and boxes"));
    let mut weights = weights.renamed(own_name)?;
    weights.fuse_all(&[".self_attn.q_proj.", ".self_attn.k_proj."], ".self_attn.qk.")?;
    Ok((weights, Layout::Transformers, notes.into_iter().collect()))
}

fn own_name(key: &str) -> String {
    let key = key.strip_prefix("detr.").unwrap_or(key);
    for start in ["model.backbone.conv_encoder.model.", "model.backbone.model.", "backbone.conv_encoder.model."] {
        if let Some(rest) = key.strip_prefix(start) {
            return of_resnet(rest);
        }
    }
    let rest = key.strip_prefix("model.").unwrap_or(key);
    let name = rest.replace(".mlp.", ".").replace(".o_proj.", ".out_proj.");
    let starts = [("class_labels_classifier.", "cls."), ("bbox_predictor.layers.", "box.")];
    starts.into_iter().find_map(|(theirs, own)| Some(format!("{own}{}", name.strip_prefix(theirs)?))).unwrap_or(name)
}

/// timm's name for one of transformers' ResNet: `encoder.stages.0.layers.1.layer.2.convolution` is `layer1.1.conv3`.
fn of_resnet(key: &str) -> String {
    if let Some(rest) = key.strip_prefix("embedder.embedder.") {
        return rest.replace("convolution.", "conv1.").replace("normalization.", "bn1.");
    }
    let parts: Vec<&str> = key.split('.').collect();
    let number = |text: &str| text.parse::<usize>().ok();
    match parts.as_slice() {
        ["encoder", "stages", stage, "layers", block, rest @ ..] => {
            let stage = number(stage).map_or_else(|| "?".into(), |stage| (stage + 1).to_string());
            let tail = match rest {
                ["layer", index, "convolution", end] => format!("conv{}.{end}", number(index).unwrap_or(0) + 1),
                ["layer", index, "normalization", end] => format!("bn{}.{end}", number(index).unwrap_or(0) + 1),
                ["shortcut", "convolution", end] => format!("downsample.0.{end}"),
                ["shortcut", "normalization", end] => format!("downsample.1.{end}"),
                other => other.join("."),
            };
            format!("layer{stage}.{block}.{tail}")
        }
        _ => key.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_layouts_become_the_same() {
        let prefix = "model.backbone.conv_encoder.model.";
        for (timm, theirs, own) in [
            ("conv1.weight", "embedder.embedder.convolution.weight", "conv1.weight"),
            ("bn1.running_var", "embedder.embedder.normalization.running_var", "bn1.running_var"),
            ("layer1.2.conv3.weight", "encoder.stages.0.layers.2.layer.2.convolution.weight", "layer1.2.conv3.weight"),
            ("layer4.0.bn2.bias", "encoder.stages.3.layers.0.layer.1.normalization.bias", "layer4.0.bn2.bias"),
            ("layer2.0.downsample.1.weight", "encoder.stages.1.layers.0.shortcut.normalization.weight", "layer2.0.downsample.1.weight"),
        ] {
            assert_eq!((own_name(&format!("{prefix}{timm}")), own_name(&format!("{prefix}{theirs}"))), (own.into(), own.into()));
        }
        assert_eq!(own_name("model.decoder.layers.1.encoder_attn.o_proj.bias"), "decoder.layers.1.encoder_attn.out_proj.bias");
        assert_eq!(own_name("detr.model.encoder.layers.0.fc1.bias"), "encoder.layers.0.fc1.bias");
        assert_eq!(own_name("bbox_predictor.layers.2.weight"), "box.2.weight");
    }
}
