//! Files of Mask R-CNN and Cascade Mask R-CNN: variants that the tensors tell, and what is refused by name.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use candle_core::Tensor;
use common::{flat, stored};
use igq::model::{Identity, Model, forward};
use igq::session::{Options, Session};
use igq::studies::verify;

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/detection").join(name)
}

fn photographs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/photographs")
}

fn weights(name: &str) -> HashMap<String, Tensor> {
    common::tensors(folder(name).join("model.safetensors"))
}

fn input(name: &str) -> Tensor {
    common::tensors(folder(name).join("expected.safetensors"))["pixel_values"].clone()
}

fn open(folder: &tempfile::TempDir) -> Result<Model, String> {
    Model::open(folder.path().to_str().unwrap()).map_err(|e| e.to_string())
}

/// A model at the size of its reference.
fn sized(folder: &Path) -> Model {
    let mut model = Model::open(folder.to_str().unwrap()).unwrap();
    model.resize((96, 128), None).unwrap();
    model
}

/// One class is a class and none: there is something to compare.
#[test]
fn a_detector_of_one_class_opens() {
    let mut one = weights("mask_rcnn_swin");
    for (name, rows) in [("bbox_head.fc_cls", 2), ("bbox_head.fc_reg", 4), ("mask_head.conv_logits", 1)] {
        for part in ["weight", "bias"] {
            let key = format!("roi_head.{name}.{part}");
            let cut = one[&key].narrow(0, 0, rows).unwrap().contiguous().unwrap();
            one.insert(key, cut);
        }
    }
    let folder = stored(&one);
    let options = Options {
        model: folder.path().display().to_string(),
        images: vec![photographs()],
        calibration: Some(photographs()),
        calibration_images: 1,
        input_size: Some((64, 96)),
        ..Options::default()
    };
    let session = Session::open(&options, &|_| ()).unwrap();
    let outcome = session.run(0, &igq::quant::Settings::default(), &igq::progress::Cancel::default()).unwrap();
    assert!(outcome.report.prediction.objects.is_some());
}

/// A reference with fewer objects than are found here does not agree.
#[test]
fn objects_that_no_reference_has_are_counted() {
    let mut fewer = common::tensors(folder("mask_rcnn_swin").join("expected.safetensors"));
    for name in ["boxes", "labels", "scores"] {
        let cut = fewer[name].narrow(0, 0, 90).unwrap();
        fewer.insert(name.into(), cut);
    }
    let file = tempfile::tempdir().unwrap();
    let path = file.path().join("expected.safetensors");
    candle_core::safetensors::save(&fewer, &path).unwrap();
    let found = verify::verify(&mut Model::open(folder("mask_rcnn_swin").to_str().unwrap()).unwrap(), &path, 1e-4).unwrap();
    let regions = found.regions.unwrap();
    assert_eq!((regions.objects, regions.more, found.within), ((90, 90), 10, false));
}

#[test]
fn variants_that_the_tensors_tell_are_computed() {
    let all = weights("mask_rcnn_swin");
    // Without masks, and with one box for all classes.
    let mut plain: HashMap<String, Tensor> =
        all.iter().filter(|(key, _)| !key.contains("mask_head")).map(|(k, t)| (k.clone(), t.clone())).collect();
    for part in ["weight", "bias"] {
        let key = format!("roi_head.bbox_head.fc_reg.{part}");
        let four = plain[&key].narrow(0, 0, 4).unwrap().contiguous().unwrap();
        plain.insert(key, four);
    }
    let folder = stored(&plain);
    let model = sized(folder.path());
    assert!(model.describe().starts_with("Faster R-CNN"), "{}", model.describe());
    let output = forward(model.network(), &input("mask_rcnn_swin"), &mut Identity).unwrap();
    assert!(output.objects.as_ref().unwrap().masks.is_none());
    let whole = forward(sized(&self::folder("mask_rcnn_swin")).network(), &input("mask_rcnn_swin"), &mut Identity).unwrap();
    assert_eq!(flat(&output.logits), flat(&whole.logits), "classes are the same");
}

/// What is done to the tensors of a checkpoint.
type Change = fn(&mut HashMap<String, Tensor>);

#[test]
fn what_is_not_computed_is_refused_by_name() {
    let all = weights("cascade_mask_rcnn_swin");
    let cases: [(&str, Change); 8] = [
        ("neck.fpn_convs.4.conv.weight", |w| {
            let more = w["neck.fpn_convs.3.conv.weight"].clone();
            w.insert("neck.fpn_convs.4.conv.weight".into(), more);
        }),
        ("absolute_pos_embed", |w| {
            w.insert(
                "backbone.absolute_pos_embed".into(),
                Tensor::zeros((1, 16, 8, 8), candle_core::DType::F32, &candle_core::Device::Cpu).unwrap(),
            );
        }),
        ("roi_head.bbox_head.1", |w| w.retain(|key, _| !key.contains("_head.2."))),
        ("roi_head.bbox_head.0.shared_convs.0.bn.running_var", |w| w.retain(|key, _| !key.contains(".bn."))),
        ("neck.lateral_convs.1.conv.weight", |w| w.retain(|key, _| !key.contains("lateral_convs.1"))),
        ("roi_head.mask_iou_head.fc.weight", |w| {
            let more = w["roi_head.bbox_head.0.fc_cls.weight"].clone();
            w.insert("roi_head.mask_iou_head.fc.weight".into(), more);
        }),
        ("rpn_head.rpn_cls.weight", |w| {
            let nine = Tensor::zeros((9, 16, 1, 1), candle_core::DType::F32, &candle_core::Device::Cpu).unwrap();
            w.insert("rpn_head.rpn_cls.weight".into(), nine);
        }),
        ("roi_head.bbox_head.0.shared_fcs.0.weight", |w| {
            let other = Tensor::zeros((32, 256), candle_core::DType::F32, &candle_core::Device::Cpu).unwrap();
            w.insert("roi_head.bbox_head.0.shared_fcs.0.weight".into(), other);
        }),
    ];
    for (key, change) in cases {
        let mut changed = all.clone();
        change(&mut changed);
        let said = open(&stored(&changed)).map(|_| ()).unwrap_err();
        assert!(said.contains(key), "{key}: {said}");
    }
    // Windows of 300 would take 32 GB, whatever the input.
    let mut vast = all.clone();
    let table = Tensor::zeros((599 * 599, 1), candle_core::DType::F32, &candle_core::Device::Cpu).unwrap();
    vast.insert("backbone.layers.0.blocks.0.attn.relative_position_bias_table".into(), table);
    let said = open(&stored(&vast)).map(|_| ()).unwrap_err();
    assert!(said.contains("GiB of memory"), "{said}");
    // mmdet has no config.json: one beside the file may name classes, and nothing else.
    let folder = stored(&all);
    fs::write(folder.path().join("config.json"), r#"{"id2label": {"0": "a", "1": "b", "2": "c", "3": "d", "4": "e"}}"#).unwrap();
    assert_eq!(open(&folder).unwrap().labels, ["a", "b", "c", "d", "e"]);
    fs::write(folder.path().join("config.json"), r#"{"score_thr": 0.001}"#).unwrap();
    let said = open(&folder).map(|_| ()).unwrap_err();
    assert!(said.contains("score_thr"), "{said}");
    fs::remove_file(folder.path().join("config.json")).unwrap();
    fs::write(folder.path().join("preprocessor_config.json"), r#"{"size": 640}"#).unwrap();
    let options = Options { model: folder.path().display().to_string(), images: vec![photographs()], ..Options::default() };
    let said = Session::open(&options, &|_| ()).map(|_| ()).unwrap_err().to_string();
    assert!(said.contains("preprocessor_config.json"), "{said}");
}
