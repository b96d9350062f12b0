//! EoMT: transformers' outputs, the padded square, studies from start to end, the screen, and what is refused by name.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use assert_cmd::Command;
use candle_core::Tensor;
use common::flat;
use common::screen::{LOOK, answer, press, text, view};
use crossterm::event::KeyCode;
use igq::analysis::objects::Fate;
use igq::analysis::{FloatRun, QuantizedRun};
use igq::input::{Picture, Preprocess, Raster};
use igq::model::Model;
use igq::progress::Cancel;
use igq::quant::{Plan, Settings};
use igq::session::{Options, Session};
use igq::studies::verify;
use igq::tui::app::App;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/detection/eomt")
}

fn photographs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/photographs")
}

#[test]
fn classes_and_masks_are_those_of_transformers() {
    let mut model = Model::open(folder().to_str().unwrap()).unwrap();
    let found = verify::verify(&mut model, &folder().join("expected.safetensors"), 1e-4).unwrap();
    assert!(found.within && found.pictures == 2 && found.same_top1 == 2 && found.largest_difference < 1e-5);
    assert!(found.largest_mask_difference.unwrap() < 1e-4);
}

#[test]
fn float_against_itself_keeps_every_mask() {
    let model = Model::open(folder().to_str().unwrap()).unwrap();
    let input = common::tensors(folder().join("expected.safetensors"))["own.pixel_values"].narrow(0, 1, 1).unwrap();
    let float = FloatRun::new(model.network(), &input).unwrap();
    let same = QuantizedRun::new(model.network(), &float, &Plan::float(model.sites()), &Cancel::default()).unwrap();
    assert_eq!((same.prediction.against(&float.prediction).kl, &same.prediction), (0.0, &float.prediction));
    let objects = same.prediction.objects(&float.prediction, &[]).unwrap();
    assert!((objects.threshold - 0.8).abs() < 1e-9);
    let objects = objects.at(0.05);
    assert!(objects.counts.0 > 1 && objects.objects.iter().all(|o| o.fate == Fate::Kept && o.mask_iou == Some(1.0)), "{objects:?}");
    // The box is that of the mask, and the certainty of the mask takes part in the score.
    let (seen, masks) = (&objects.queries.0, objects.queries.0.iter().filter_map(|seen| seen.mask.as_ref()));
    for (seen, mask) in seen.iter().zip(masks) {
        let [x, y, width, height] = mask.around().map(f64::from);
        let around = [x - width / 2.0, y - height / 2.0, x + width / 2.0, y + height / 2.0];
        assert!(seen.score <= mask.certainty() && seen.corners.iter().zip(around).all(|(a, b)| (a - b).abs() < 1e-6));
    }
}

#[test]
fn pictures_keep_their_proportions_in_a_black_square() {
    let config = serde_json::json!({"model_type": "eomt"});
    let given = serde_json::json!({
        "image_processor_type": "EomtImageProcessor", "do_pad": true, "size": {"shortest_edge": 64, "longest_edge": 64},
    });
    let made = Preprocess::from_config(Some(&config), Some(&given), 3, (64, 64)).unwrap();
    assert_eq!(Preprocess::from_config(Some(&config), None, 3, (64, 64)).unwrap().resize, made.resize);
    let raster = Raster { width: 200, height: 100, channels: 3, data: vec![255; 3 * 200 * 100] };
    let prepared = made.apply(&Picture { name: "wide".into(), source: "wide.png".into(), raster, label: None }).unwrap();
    assert_eq!((prepared.inside, prepared.tensor.dims()), ((32, 64), &[1, 3, 64, 64][..]));
    let values = flat(&prepared.tensor);
    // White above, black below, both normalised as transformers does it.
    let (white, black) = ((1.0 - 0.485) / 0.229, -0.485 / 0.229);
    assert!((values[0] - white).abs() < 1e-5 && (values[31 * 64 + 63] - white).abs() < 1e-5 && (values[32 * 64] - black).abs() < 1e-5);
    for (key, value) in
        [("do_pad", false.into()), ("do_split_image", true.into()), ("size", serde_json::json!({"shortest_edge": 32, "longest_edge": 64}))]
    {
        let mut other = given.clone();
        other[key] = value;
        let said = Preprocess::from_config(Some(&config), Some(&other), 3, (64, 64)).unwrap_err().to_string();
        assert!(said.contains(key), "{said}");
    }
}

#[test]
fn what_would_change_the_numbers_is_refused_by_name() {
    let other = tempfile::tempdir().unwrap();
    let mut weights = common::tensors(folder().join("model.safetensors"));
    let text = fs::read_to_string(folder().join("config.json")).unwrap();
    let open = |config: &str| {
        fs::write(other.path().join("config.json"), config).unwrap();
        Model::open(other.path().to_str().unwrap()).map(|_| ()).map_err(|e| e.to_string())
    };
    let save = |weights: &std::collections::HashMap<String, Tensor>| {
        candle_core::safetensors::save(weights, other.path().join("model.safetensors")).unwrap();
    };
    save(&weights);
    assert_eq!(open(&text), Ok(()));
    for (from, to) in [
        ("\"num_blocks\": 2", "\"num_blocks\": 5"),
        ("\"num_queries\": 8", "\"num_queries\": 9"),
        ("\"hidden_act\": \"gelu\"", "\"hidden_act\": \"relu\""),
        ("\"num_attention_heads\": 3", "\"num_attention_heads\": 5"),
        ("\"mask_weight\"", "\"another_weight\""),
    ] {
        let key = to.split('"').nth(1).unwrap();
        let said = open(&text.replace(from, to)).unwrap_err();
        assert!(said.contains(key), "{key}: {said}");
    }
    let hides = Tensor::new(&[0.0f32, 0.5], &candle_core::Device::Cpu).unwrap();
    weights.insert("attn_mask_probs".into(), hides);
    save(&weights);
    assert!(open(&text).unwrap_err().contains("attn_mask_probs"));
}

#[test]
fn it_is_quantized_from_start_to_end_and_shown() {
    let options = Options {
        model: folder().display().to_string(),
        images: vec![photographs()],
        calibration: Some(photographs()),
        calibration_images: 2,
        ..Options::default()
    };
    let session = Session::open(&options, &|_| ()).unwrap();
    let mut app = App::new(session.opened().info(), Settings::default(), LOOK);
    assert!((app.threshold - 0.8).abs() < 1e-9);
    let first = app.request();
    answer(&mut app, &session, &first);
    for _ in 0..15 {
        press(&mut app, KeyCode::Char(','));
    }
    for name in ["overview", "groups", "attention", "distribution", "budget", "compare", "lens"] {
        app.view = view(name);
        for (width, height) in [(50, 16), (80, 24), (120, 40), (200, 60)] {
            text(&app, width, height);
        }
    }
    app.view = view("overview");
    press(&mut app, KeyCode::Char('v'));
    assert!(text(&app, 120, 40).contains("Objects over 0.05"));
    let (model, images) = (folder().display().to_string(), photographs().display().to_string());
    let common = ["--model", &model, "--image", &images, "--calibration", &images, "--calibration-images", "2", "--no-cache"];
    for study in [vec!["run"], vec!["sensitivity", "--limit", "2", "--kinds", "attn,cv1,dw"], vec!["allocate", "--budget", "8"]] {
        let arguments: Vec<&str> = study.iter().copied().chain(common).collect();
        let output = Command::cargo_bin("igq").unwrap().args(arguments).output().unwrap();
        assert!(output.status.success(), "{study:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
}
