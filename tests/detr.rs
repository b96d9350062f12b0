//! DETR: transformers' outputs in both layouts of names, padding, studies from start to end, the screen, and what is refused by name.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use assert_cmd::Command;
use common::screen::{LOOK, answer, detail, press, text, view};
use common::{difference, flat};
use crossterm::event::KeyCode;
use igq::analysis::{FloatRun, QuantizedRun};
use igq::input::Preprocess;
use igq::model::{Identity, Model, forward};
use igq::progress::Cancel;
use igq::quant::{Plan, Scope, Settings};
use igq::session::{Options, Session};
use igq::studies::verify;
use igq::tui::app::App;

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/detection").join(name)
}

fn photographs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/photographs")
}

fn open(name: &str) -> Model {
    Model::open(folder(name).to_str().unwrap()).unwrap()
}

#[test]
fn logits_and_boxes_are_those_of_transformers_whole_and_padded_in_both_layouts() {
    for name in ["detr_resnet", "detr_timm_names"] {
        let found = verify::verify(&mut open(name), &folder(name).join("expected.safetensors"), 1e-4).unwrap();
        assert!(found.within && found.pictures == 2 && found.same_top1 == 2 && found.largest_difference < 5e-5, "{found:?}");
    }
}

/// A picture gives the same on a canvas that is larger by whole places of the map; its boxes are shares of the canvas.
#[test]
fn padding_takes_no_part() {
    let mut model = open("detr_resnet");
    let whole = common::tensors(folder("detr_resnet").join("expected.safetensors"))["whole.pixel_values"].clone();
    model.resize((96, 128), None).unwrap();
    let alone = forward(model.network(), &whole, &mut Identity).unwrap();
    model.resize((160, 192), None).unwrap();
    let canvas = whole.pad_with_zeros(2, 0, 64).unwrap().pad_with_zeros(3, 0, 64).unwrap();
    let padded = forward(model.network(), &canvas, &mut Identity).unwrap();
    // The last places of a convolution see zeros either way.
    assert!(difference(&alone.logits, &padded.logits) < 1e-4, "{}", difference(&alone.logits, &padded.logits));
    assert!(difference(&alone.boxes.unwrap(), &padded.boxes.unwrap()) < 1e-4);
    // A batch with another padding for each picture is its pictures one by one.
    let large = canvas.affine(1.0, 0.5).unwrap();
    let both = forward(model.network(), &candle_core::Tensor::cat(&[&large, &canvas], 0).unwrap(), &mut Identity).unwrap();
    assert!(difference(&both.logits.narrow(0, 1, 1).unwrap(), &padded.logits) < 1e-5);
}

#[test]
fn float_against_itself_keeps_everything() {
    let mut model = open("detr_timm_names");
    model.resize((96, 128), None).unwrap();
    let input = common::tensors(folder("detr_resnet").join("expected.safetensors"))["padded.pixel_values"].clone();
    let float = FloatRun::new(model.network(), &input).unwrap();
    let same = QuantizedRun::new(model.network(), &float, &Plan::float(model.sites()), &Cancel::default()).unwrap();
    assert_eq!((same.prediction.against(&float.prediction).kl, &same.prediction), (0.0, &float.prediction));
    // Both layouts are one network.
    let mut other = open("detr_resnet");
    other.resize((96, 128), None).unwrap();
    assert_eq!(flat(&forward(other.network(), &input, &mut Identity).unwrap().logits), float.prediction.logits());
}

#[test]
fn sizes_keep_proportions_and_are_cut_to_nothing() {
    let config = serde_json::json!({"model_type": "detr"});
    let rule = Preprocess::from_config(Some(&config), None, 3, (800, 1066)).unwrap();
    // get_size_with_aspect_ratio of transformers, by hand.
    for ((rows, columns), wanted) in
        [((480, 640), (800, 1066)), ((640, 480), (1066, 800)), ((300, 900), (444, 1332)), ((500, 500), (800, 800))]
    {
        let (high, wide) = rule.detector_size(rows, columns).unwrap();
        assert!(high.abs_diff(wanted.0) <= 1 && wide.abs_diff(wanted.1) <= 1, "{rows}x{columns}: {high}x{wide}");
    }
}

fn igq(arguments: &[&str]) -> (bool, String, String) {
    let output = Command::cargo_bin("igq").unwrap().args(arguments).output().unwrap();
    (output.status.success(), String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap())
}

#[test]
fn it_is_quantized_from_start_to_end() {
    let (model, images) = (folder("detr_timm_names").display().to_string(), photographs().display().to_string());
    let common = ["--model", &model, "--image", &images, "--calibration", &images, "--calibration-images", "2", "--no-cache"];
    for study in [
        vec!["run", "--input-size", "128x96"],
        vec!["run", "--arithmetic", "integer", "--fast", "--input-size", "128x96"],
        vec!["sensitivity", "--limit", "2", "--kinds", "attn,stem,cv2", "--input-size", "128x96"],
        vec!["allocate", "--budget", "8", "--input-size", "128x96"],
        vec!["mixed", "--budget", "4", "--input-size", "128x96"],
        vec!["eval", "--data", &images, "--input-size", "128x96"],
    ] {
        let (good, out, err) = igq(&study.iter().copied().chain(common).collect::<Vec<_>>());
        assert!(good && !out.is_empty(), "{study:?}: {err}");
    }
}

#[test]
fn a_cross_attention_is_shown_over_the_picture_and_a_scope_leaves_the_resnet_in_float() {
    let options = Options {
        model: folder("detr_resnet").display().to_string(),
        images: vec![photographs()],
        calibration: Some(photographs()),
        calibration_images: 2,
        input_size: Some((128, 192)),
        ..Options::default()
    };
    let session = Session::open(&options, &|_| ()).unwrap();
    let mut app = App::new(session.opened().info(), Settings::default(), LOOK);
    let first = app.request();
    let outcome = answer(&mut app, &session, &first);
    let report = outcome.report.site("cross.layers.0.attn".parse().unwrap()).unwrap();
    // Rows of four heads and seven queries, each over the 4x6 places of the map.
    assert_eq!((report.channels, report.tokens, report.ranges.min.len()), (28, 7, 28));
    app.site = "cross.layers.0.attn".parse().unwrap();
    app.view = view("attention");
    detail(&mut app, &session, &outcome);
    for key in ['o', 'o', 'v', 'v', 'v', 'v', 'l', 'G', 'g'] {
        let shown = text(&app, 120, 40);
        assert!(shown.contains("row of query ") || shown.contains("RMSE"), "{shown}");
        press(&mut app, KeyCode::Char(key));
        for (width, height) in [(50, 16), (80, 24), (200, 60)] {
            text(&app, width, height);
        }
    }
    assert!(text(&app, 120, 40).contains("3,5") || text(&app, 120, 40).contains("0,0"));
    for name in ["overview", "groups", "distribution", "budget", "compare", "lens"] {
        app.view = view(name);
        text(&app, 120, 40);
    }
    let kept = |scope| {
        let settings = Settings { scope, ..Settings::default() };
        session.opened().model.sites().iter().filter(|info| settings.quantizes(info.site)).count()
    };
    let [backbone, transformer, all] = Scope::ALL.map(kept);
    assert_eq!((backbone, transformer, all), (17, 2 * 9 + 2 * (7 + 8 + 2) + 4, session.opened().model.sites().len()));
}

#[test]
fn a_panoptic_detr_is_taken_without_its_head_which_is_said() {
    let shell = tempfile::tempdir().unwrap();
    let tensors = common::tensors(folder("detr_resnet").join("model.safetensors")).into_iter();
    let mut tensors: std::collections::HashMap<String, candle_core::Tensor> =
        tensors.map(|(key, value)| (format!("detr.{key}"), value)).collect();
    let head = candle_core::Tensor::zeros((4, 4), candle_core::DType::F32, &candle_core::Device::Cpu).unwrap();
    tensors.insert("mask_head.lay1.weight".into(), head.clone());
    tensors.insert("bbox_attention.q_linear.weight".into(), head);
    candle_core::safetensors::save(&tensors, shell.path().join("model.safetensors")).unwrap();
    fs::copy(folder("detr_resnet/config.json"), shell.path().join("config.json")).unwrap();
    let mut model = Model::open(shell.path().to_str().unwrap()).unwrap();
    assert!(model.notes.iter().any(|note| note.contains("2 tensors of the panoptic head")), "{:?}", model.notes);
    assert!(verify::verify(&mut model, &folder("detr_resnet/expected.safetensors"), 1e-4).unwrap().within);
}

#[test]
fn configurations_of_another_network_are_refused_by_name() {
    let shell = tempfile::tempdir().unwrap();
    fs::copy(folder("detr_resnet/model.safetensors"), shell.path().join("model.safetensors")).unwrap();
    let config: serde_json::Value = serde_json::from_str(&fs::read_to_string(folder("detr_resnet/config.json")).unwrap()).unwrap();
    for (path, value) in [
        (vec!["position_embedding_type"], "learned".into()),
        (vec!["dilation"], true.into()),
        (vec!["num_queries"], 8.into()),
        (vec!["encoder_layers"], 3.into()),
        (vec!["decoder_attention_heads"], 5.into()),
        (vec!["something_new"], 1.into()),
        (vec!["backbone_config", "layer_type"], "basic".into()),
        (vec!["backbone_config", "downsample_in_bottleneck"], true.into()),
    ] {
        let mut changed = config.clone();
        *path.iter().fold(&mut changed, |at, key| &mut at[*key]) = value;
        fs::write(shell.path().join("config.json"), changed.to_string()).unwrap();
        let said = Model::open(shell.path().to_str().unwrap()).map(|_| ()).unwrap_err().to_string();
        assert!(said.contains(path.last().unwrap()), "{path:?}: {said}");
    }
}
