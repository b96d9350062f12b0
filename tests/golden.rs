//! Float parity with timm on its own checkpoints, logits and every operand, within 1e-4.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::collections::HashMap;

use candle_core::Tensor;
use common::{difference, golden, tensors};
use igq::model::{Identity, Model, Recorder, SiteKind, forward};

fn check_logits(name: &str) {
    let model = Model::open(golden(name).to_str().unwrap()).unwrap();
    let expected = tensors(golden(&format!("{name}/expected.safetensors")));
    let logits = forward(model.network(), &expected["input"], &mut Identity).unwrap();
    let worst = difference(&logits, &expected["logits"]);
    eprintln!("{name}: logits differ by {worst}");
    assert!(worst < 1e-4, "{name}: logits differ by {worst}");
}

#[test]
fn logits_of_a_plain_vit() {
    check_logits("timm_vit");
}

#[test]
fn logits_with_average_pooling_and_fc_norm() {
    check_logits("timm_vit_avgpool_fcnorm");
}

#[test]
fn logits_without_qkv_bias() {
    check_logits("timm_vit_noqkvbias");
}

#[test]
fn logits_with_layer_scale() {
    check_logits("timm_dinov2");
}

#[test]
fn logits_of_dinov2_from_transformers() {
    check_logits("hf_dinov2");
}

#[test]
fn logits_of_a_real_dinov2_at_a_smaller_size() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/models/dinov2-small-proto");
    if !folder.exists() {
        eprintln!("skipped: {} is not there", folder.display());
        return;
    }
    let model = Model::open(folder.to_str().unwrap()).unwrap();
    assert_eq!((model.config.image_size, model.config.position_grid), ((224, 224), (37, 37)));
    assert!(model.notes.iter().any(|n| n.contains("from 37x37 to 16x16 patches")), "{:?}", model.notes);
    let expected = tensors(folder.join("expected.safetensors"));
    let logits = forward(model.network(), &expected["input"], &mut Identity).unwrap();
    let worst = difference(&logits, &expected["logits"]);
    eprintln!("dinov2-small-proto: logits differ by {worst}");
    assert!(worst < 2e-2, "logits differ by {worst}");
    let top = |logits: &Tensor| logits.argmax(1).unwrap().to_vec1::<u32>().unwrap();
    assert_eq!(top(&logits), top(&expected["logits"]));
}

#[test]
fn every_operand_of_a_plain_vit() {
    let model = Model::open(golden("timm_vit").to_str().unwrap()).unwrap();
    let expected = tensors(golden("timm_vit/expected.safetensors"));
    let mut seen: HashMap<String, Tensor> = HashMap::new();
    let mut recorder = Recorder(|site: igq::model::Site, x: &Tensor| {
        let name = match (site.block, site.kind) {
            (Some(block), SiteKind::Attn) => format!("blocks.{block}.attention"),
            _ => format!("{site}.input"),
        };
        seen.insert(name, x.clone());
        Ok(())
    });
    forward(model.network(), &expected["input"], &mut recorder).unwrap();
    let sites: Vec<&String> = expected.keys().filter(|k| k.starts_with("blocks.")).collect();
    assert_eq!(sites.len(), 3 * 5, "the golden file has five operands for each of three blocks");
    for name in sites {
        let worst = difference(&seen[name], &expected[name]);
        assert!(worst < 1e-4, "{name} differs by {worst}");
    }
}

#[test]
fn the_built_in_model_gives_the_logits_it_was_shipped_with() {
    let model = Model::open("fashion-vit").unwrap();
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/fashion-vit/expected.safetensors");
    let expected = tensors(path);
    let logits = forward(model.network(), &expected["input"], &mut Identity).unwrap();
    let worst = difference(&logits, &expected["logits"]);
    assert!(worst < 1e-4, "logits differ by {worst}");
}

#[test]
fn the_built_in_pictures_become_the_tensors_the_model_was_trained_on() {
    let session = common::built_in();
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/fashion-vit/expected.safetensors");
    let expected = tensors(path);
    for index in 0..8 {
        let prepared = session.base(index).unwrap().prepared;
        let worst = difference(&prepared.tensor, &expected["input"].narrow(0, index, 1).unwrap());
        assert!(worst < 1e-5, "picture {index} differs by {worst}");
    }
}

#[test]
fn what_was_inferred_is_said() {
    let model = Model::open(golden("timm_vit_avgpool_fcnorm").to_str().unwrap()).unwrap();
    assert_eq!((model.config.depth, model.config.heads, model.config.embed_dim, model.config.classes), (3, 3, 48, 7));
    assert!(model.config.fc_norm && model.config.pool == igq::model::Pool::Avg);
    assert!(model.notes.iter().any(|n| n.contains("3 blocks, width 48")), "{:?}", model.notes);
}
