//! RF-DETR: transformers' outputs, pinned proposals, masks, studies from start to end, the screen, and configurations that are refused by name.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use assert_cmd::Command;
use candle_core::Tensor;
use common::screen::{LOOK, answer, detail, draw_every_view, press, text, view};
use common::{difference, flat};
use crossterm::event::KeyCode;
use igq::analysis::objects::Fate;
use igq::analysis::{FloatRun, Prediction, QuantizedRun};
use igq::model::{Identity, Model, Site, SiteKind, Tap, forward};
use igq::progress::Cancel;
use igq::quant::{BitWidth, Plan, Scope, Settings};
use igq::session::{Options, Session};
use igq::studies::verify;
use igq::tui::app::App;

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/detection").join(name)
}

fn named(name: &str) -> String {
    folder(name).display().to_string()
}

fn photographs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/photographs")
}

fn input(name: &str, tag: &str) -> Tensor {
    common::tensors(folder(name).join("expected.safetensors"))[&format!("{tag}.pixel_values")].narrow(0, 0, 1).unwrap()
}

/// The segmenting one, on photographs.
fn session() -> Session {
    let options = Options {
        model: named("rf_detr_seg"),
        images: vec![photographs()],
        calibration: Some(photographs()),
        calibration_images: 2,
        ..Options::default()
    };
    Session::open(&options, &|_| ()).unwrap()
}

#[test]
fn logits_boxes_references_and_masks_are_those_of_transformers() {
    for (name, pictures) in [("rf_detr", 3), ("rf_detr_seg", 1)] {
        let mut model = Model::open(&named(name)).unwrap();
        let found = verify::verify(&mut model, &folder(name).join("expected.safetensors"), 1e-4).unwrap();
        assert!(found.within && found.pictures == pictures && found.same_top1 == pictures, "{name}: {}", found.largest_difference);
        assert!(found.largest_difference < 5e-5, "{name}: {}", found.largest_difference);
        assert_eq!(found.largest_mask_difference.is_some(), name == "rf_detr_seg");
        assert!(found.largest_mask_difference.unwrap_or(0.0) < 1e-3);
    }
}

/// In float a run against itself keeps every object, its KL is zero, and pinned proposals are its own; 32 bits are the float run bit by bit.
#[test]
fn float_against_itself_keeps_everything() {
    let model = Model::open(&named("rf_detr_seg")).unwrap();
    let float = FloatRun::new(model.network(), &input("rf_detr_seg", "own")).unwrap();
    let same = QuantizedRun::new(model.network(), &float, &Plan::float(model.sites()), &Cancel::default()).unwrap();
    let apart = same.prediction.against(&float.prediction);
    assert_eq!((apart.kl, apart.changed), (0.0, 0));
    assert_eq!((same.prediction.seen(&[]), same.prediction.logits()), (float.prediction.seen(&[]), float.prediction.logits()));
    let objects = same.prediction.objects(&float.prediction, &[]).unwrap().at(0.2);
    let all = |o: &igq::analysis::objects::ObjectReport| (o.fate, o.iou, o.mask_iou, o.kl) == (Fate::Kept, Some(1.0), Some(1.0), Some(0.0));
    assert!(objects.counts.0 > 3 && objects.objects.iter().all(all), "{:?}", objects.objects);
}

/// What only the first stage loses changes no query whose proposal is pinned, but the objectness of its proposal; the objects are those of a
/// run with proposals of its own.
#[test]
fn pinned_proposals_keep_the_queries_and_the_first_stage_has_its_own_say() {
    let session = session();
    let (model, cancel) = (&session.opened().model, Cancel::default());
    let settings = Settings { abits: BitWidth::new(2).unwrap(), ..Settings::default() };
    let plan = session.plan(&settings).unwrap();
    let base = session.base(0).unwrap();
    let first: Site = "proposals.out".parse().unwrap();
    let alone = QuantizedRun::new(model.network(), &base.float, &plan.only(first), &cancel).unwrap();
    assert_eq!(alone.prediction.logits(), base.float.prediction.logits(), "every query starts from the float run's proposal");
    let kl = alone.prediction.against(&base.float.prediction).kl;
    assert!(kl > 0.0, "the objectness of the proposals is another");
    let free = |run: &QuantizedRun| run.prediction.seen(&[]).iter().map(|seen| seen.corners).collect::<Vec<_>>();
    assert_ne!(free(&alone), base.float.prediction.seen(&[]).iter().map(|seen| seen.corners).collect::<Vec<_>>());
    // A later run that takes over the backbone says the same as one from the pixels.
    let whole = QuantizedRun::new(model.network(), &base.float, &plan, &cancel).unwrap();
    let mut changed = settings.clone();
    changed.set_own("decoder.layers.1.fc1".parse().unwrap(), |own| own.abits = BitWidth::new(8).ok());
    let later = session.plan(&changed).unwrap();
    let after = QuantizedRun::after(model.network(), &base.float, &later, Some((&plan, &whole)), &cancel).unwrap();
    let fresh = QuantizedRun::new(model.network(), &base.float, &later, &cancel).unwrap();
    assert_eq!(after.prediction, fresh.prediction);
    assert_eq!(after.boundaries().len(), fresh.boundaries().len());
}

/// Pins proposals in another order.
struct Reversed;

impl Tap for Reversed {
    fn proposals(&mut self, chosen: Tensor) -> igq::error::Result<Tensor> {
        Ok(chosen.index_select(&reversed(chosen.dim(1)? as u32), 1)?)
    }
}

fn reversed(count: u32) -> Tensor {
    Tensor::from_vec((0..count).rev().collect::<Vec<u32>>(), count as usize, &candle_core::Device::Cpu).unwrap()
}

#[test]
fn queries_in_another_order_give_the_same_answers_in_that_order() {
    let (pixels, queries) = (input("rf_detr_seg", "own"), 6);
    let one = Model::open(&named("rf_detr_seg")).unwrap();
    let mut weights = common::tensors(folder("rf_detr_seg").join("model.safetensors"));
    for name in ["query_feat.weight", "refpoint_embed.weight"] {
        let rows = weights[name].clone();
        let rest = rows.narrow(0, queries, rows.dim(0).unwrap() - queries).unwrap();
        let first = rows.narrow(0, 0, queries).unwrap().index_select(&reversed(queries as u32), 0).unwrap();
        weights.insert(name.into(), Tensor::cat(&[first, rest], 0).unwrap());
    }
    let other = tempfile::tempdir().unwrap();
    candle_core::safetensors::save(&weights, other.path().join("model.safetensors")).unwrap();
    fs::copy(folder("rf_detr_seg/config.json"), other.path().join("config.json")).unwrap();
    let other = Model::open(other.path().to_str().unwrap()).unwrap();
    let (a, b) = (forward(one.network(), &pixels, &mut Identity).unwrap(), forward(other.network(), &pixels, &mut Reversed).unwrap());
    let turned = |tensor: &Tensor| tensor.index_select(&reversed(queries as u32), 1).unwrap();
    assert!(difference(&a.logits, &turned(&b.logits)) < 1e-5);
    assert!(difference(&a.boxes.unwrap(), &turned(&b.boxes.unwrap())) < 1e-5);
    assert!(difference(&a.masks.unwrap(), &turned(&b.masks.unwrap())) < 1e-4);
}

fn igq(arguments: &[&str]) -> (bool, String, String) {
    let output = Command::cargo_bin("igq").unwrap().args(arguments).output().unwrap();
    (output.status.success(), String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap())
}

#[test]
fn every_study_takes_a_detector_with_masks() {
    let (model, images) = (named("rf_detr_seg"), photographs().display().to_string());
    let common = ["--model", &model, "--image", &images, "--calibration", &images, "--calibration-images", "2", "--no-cache"];
    for study in [
        vec!["run"],
        vec!["run", "--arithmetic", "integer", "--fast"],
        vec!["sensitivity", "--limit", "2", "--kinds", "cv1,value,fc2"],
        vec!["allocate", "--budget", "8"],
        vec!["mixed", "--budget", "4"],
        vec!["suggest", "--one", "--bits", "3"],
    ] {
        let arguments: Vec<&str> = study.iter().copied().chain(common).collect();
        let (good, out, err) = igq(&arguments);
        assert!(good && !out.is_empty(), "{study:?}: {err}");
    }
    // The float run finds all of its own objects, and its own masks.
    let arguments = ["eval", "--data", &images, "--format", "json", "--method", "igq"].into_iter().chain(common);
    let (good, out, err) = igq(&arguments.collect::<Vec<_>>());
    assert!(good, "{err}");
    let found: serde_json::Value = serde_json::from_str(&out).unwrap();
    let rows = found["rows"].as_array().unwrap();
    for part in ["accuracy", "mask_accuracy"] {
        assert_eq!(rows[0][part]["ap50"].as_f64().unwrap().round(), 100.0, "{part}");
    }
    assert!(rows[0]["mask_difference"].is_null() && rows[1]["mask_difference"][0].as_f64().unwrap() <= 0.0);
}

/// Boxes and masks have no say in the KL of classes: an allocation does not rob them of their groups.
#[test]
fn what_has_no_say_keeps_its_counts() {
    let (model, images) = (named("rf_detr_seg"), photographs().display().to_string());
    let common = ["--model", &model, "--image", &images, "--calibration", &images, "--calibration-images", "2", "--no-cache"];
    let arguments = ["allocate", "--budget", "8", "--frontier", "0", "--format", "json"].into_iter().chain(common).collect::<Vec<_>>();
    let (good, out, err) = igq(&arguments);
    assert!(good, "{err}");
    let found: serde_json::Value = serde_json::from_str(&out).unwrap();
    let sites = found["solved"][0]["allocation"]["sites"].as_array().unwrap();
    let count = |site: &str| sites.iter().find(|s| s["site"] == site).unwrap()["groups"].as_u64().unwrap();
    assert_eq!(["box.1", "mask.map", "mask.layers.0.dw"].map(count), [8, 8, 8]);
}

#[test]
fn masks_are_on_the_screen_and_decide_what_is_the_same() {
    let session = session();
    let mut app = App::new(session.opened().info(), Settings::default(), LOOK);
    let first = app.request();
    let outcome = answer(&mut app, &session, &first);
    let shown = text(&app, 120, 40);
    assert!(shown.contains("boxes: both") && shown.contains("mask") && shown.contains("Objects over 0.50"), "{shown}");
    for title in ["boxes: float", "boxes: quantized", "float-masks", "masks", "mask-difference", "boxes: none", "boxes: both"] {
        press(&mut app, KeyCode::Char('v'));
        for ascii in [false, true] {
            app.look.ascii = ascii;
            assert!(text(&app, 120, 40).contains(title), "{title}");
            text(&app, 80, 24);
        }
        app.look.ascii = false;
    }
    // The rows of a decoder are queries.
    app.site = "decoder.layers.0.attn".parse().unwrap();
    app.view = view("attention");
    detail(&mut app, &session, &outcome);
    press(&mut app, KeyCode::Char('l'));
    for key in ['o', 'o', 'o'] {
        let shown = text(&app, 120, 40);
        assert!(shown.contains("row of query "), "{shown}");
        press(&mut app, KeyCode::Char(key));
    }
    // Every window has a class token of its own.
    app.site = "blocks.0.attn".parse().unwrap();
    detail(&mut app, &session, &outcome);
    assert!(text(&app, 200, 60).contains("class 3"), "{}", text(&app, 200, 60));
    draw_every_view(&mut app);
}

#[test]
fn configurations_of_another_network_are_refused_by_name() {
    let shell = tempfile::tempdir().unwrap();
    fs::copy(folder("rf_detr/model.safetensors"), shell.path().join("model.safetensors")).unwrap();
    let text = fs::read_to_string(folder("rf_detr/config.json")).unwrap();
    let config: serde_json::Value = serde_json::from_str(&text).unwrap();
    let open = |config: &serde_json::Value| {
        fs::write(shell.path().join("config.json"), config.to_string()).unwrap();
        Model::open(shell.path().to_str().unwrap()).map(|_| ()).map_err(|e| e.to_string())
    };
    assert_eq!(open(&config), Ok(()));
    let changed = |path: &[&str], value: serde_json::Value| {
        let mut config = config.clone();
        let place = path.iter().fold(&mut config, |at, key| &mut at[*key]);
        *place = value;
        open(&config).unwrap_err()
    };
    for (path, value) in [
        (vec!["activation_function"], "relu".into()),
        (vec!["num_feature_levels"], 2.into()),
        (vec!["num_queries"], 7.into()),
        (vec!["decoder_layers"], 3.into()),
        (vec!["decoder_cross_attention_heads"], 3.into()),
        (vec!["decoder_n_points"], 4.into()),
        (vec!["something_new"], 1.into()),
        (vec!["backbone_config", "use_swiglu_ffn"], true.into()),
        (vec!["backbone_config", "num_windows"], 5.into()),
        (vec!["backbone_config", "out_indices"], serde_json::json!([1, 2, 9])),
        (vec!["backbone_config", "window_block_indexes"], serde_json::json!([0])),
        (vec!["backbone_config", "num_attention_heads"], 7.into()),
        (vec!["backbone_config", "register_tokens"], 4.into()),
    ] {
        let key = *path.last().unwrap();
        let said = changed(&path, value);
        assert!(said.contains(key), "{key}: {said}");
    }
    fs::remove_file(shell.path().join("config.json")).unwrap();
    let said = Model::open(shell.path().to_str().unwrap()).map(|_| ()).unwrap_err().to_string();
    assert!(said.contains("config.json"), "{said}");
}

#[test]
fn a_scope_leaves_the_rest_in_float() {
    let session = session();
    let sites = session.opened().model.sites();
    let quantized = |scope| {
        let settings = Settings { scope, ..Settings::default() };
        sites.iter().map(|info| info.site).filter(|site| settings.quantizes(*site)).map(|site| site.to_string()).collect::<Vec<_>>()
    };
    let [backbone, transformer, all] = Scope::ALL.map(quantized);
    assert_eq!((backbone.len(), all.len()), (1 + 4 * 8, sites.len()));
    assert!(backbone.iter().all(|site| site == "patch" || site.starts_with("blocks.")));
    let convolutions = |site: &String| site.starts_with("projector.") || site.starts_with("mask.");
    assert!(all.iter().filter(|site| !convolutions(site)).eq(transformer.iter()) && transformer.len() < all.len());
    // Settings that were written before there were decoders mean all kinds.
    let mut written = serde_json::to_value(Settings::default()).unwrap();
    written["kinds"].as_array_mut().unwrap().retain(|kind| !["cv1", "cls", "out", "value"].contains(&kind.as_str().unwrap()));
    assert!(!Settings::read(written.clone()).unwrap().quantizes("proposals.out".parse().unwrap()), "some were turned off");
    let later = |kind: &serde_json::Value| kind.as_str().unwrap().parse::<SiteKind>().unwrap().is_of_decoders();
    written["kinds"].as_array_mut().unwrap().retain(|kind| !later(kind));
    assert_eq!(Settings::read(written).unwrap(), Settings::default());
}

/// A batch gives what its pictures give one by one.
#[test]
fn a_batch_is_its_pictures() {
    let model = Model::open(&named("rf_detr")).unwrap();
    let both = common::tensors(folder("rf_detr").join("expected.safetensors"))["own.pixel_values"].clone();
    let together = Prediction::of(&forward(model.network(), &both, &mut Identity).unwrap()).unwrap();
    for (index, prediction) in together.iter().enumerate() {
        let one = forward(model.network(), &both.narrow(0, index, 1).unwrap().contiguous().unwrap(), &mut Identity).unwrap();
        let alone = flat(&one.logits);
        assert!(prediction.logits().iter().zip(alone).all(|(a, b)| (a - b).abs() < 1e-5));
    }
}
