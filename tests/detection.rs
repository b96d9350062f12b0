//! Detectors: YOLOS against transformers' outputs, objects and their fates, the canvas, studies from start to end, the screen, COCO's numbers,
//! and refusals by name.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use assert_cmd::Command;
use common::flat;
use common::screen::{LOOK, answer, press, text, view};
use crossterm::event::KeyCode;
use igq::analysis::metrics::ErrorNumbers;
use igq::analysis::objects::Fate;
use igq::analysis::{FloatRun, Prediction, QuantizedRun};
use igq::input::{Picture, Preprocess, Raster};
use igq::model::{Identity, Model, forward};
use igq::progress::Cancel;
use igq::quant::run::{Observation, Start, run_observed};
use igq::quant::{BitWidth, Plan, Settings};
use igq::session::{Options, Session};
use igq::studies::verify;
use igq::tui::app::App;
use igq::tui::frame;
use igq::tui::hit::Hit;

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/detection").join(name)
}

fn named(name: &str) -> String {
    folder(name).display().to_string()
}

/// The trained detector of drawn shapes, on its own pictures.
fn shapes() -> Session {
    let images = vec![folder("shapes/images")];
    let options = Options { model: named("shapes"), images: images.clone(), calibration: Some(images[0].clone()), ..Options::default() };
    Session::open(&options, &|_| ()).unwrap()
}

#[test]
fn logits_and_boxes_are_those_of_transformers_at_every_size() {
    for name in ["yolos_tiny", "yolos_mid"] {
        let mut model = Model::open(&named(name)).unwrap();
        let found = verify::verify(&mut model, &folder(name).join("expected.safetensors"), 1e-4).unwrap();
        assert!(found.within && found.pictures == 3 && found.same_top1 == 3, "{name}: {}", found.largest_difference);
        assert!(found.largest_difference < 1e-5, "{name}: {}", found.largest_difference);
    }
}

/// In float a run against itself keeps every object, and its KL is zero; 32 bits are the float run bit by bit.
#[test]
fn float_against_itself_keeps_everything() {
    let mut model = Model::open(&named("yolos_mid")).unwrap();
    assert!(model.resize((48, 112), None).unwrap());
    let input = common::tensors(folder("yolos_mid").join("expected.safetensors"))["other.pixel_values"].clone();
    let float = FloatRun::new(model.network(), &input).unwrap();
    let plan = Plan::float(model.sites());
    let same = QuantizedRun::new(model.network(), &float, &plan, &Cancel::default()).unwrap();
    let apart = same.prediction.against(&float.prediction);
    assert_eq!((apart.kl, apart.changed), (0.0, 0));
    let output = forward(model.network(), &input, &mut Identity).unwrap();
    assert_eq!(Prediction::of_one(&output).unwrap(), float.prediction);
    let objects = same.prediction.objects(&float.prediction, &[]).unwrap().at(0.2);
    assert!(objects.counts.0 > 3 && objects.objects.iter().all(|o| o.fate == Fate::Kept && o.iou == Some(1.0) && o.kl == Some(0.0)));
}

/// A softmax of millions of values is not kept: it is computed again from the boundary before it, with the same bits.
#[test]
fn a_large_softmax_is_computed_again_and_measured_as_if_it_was_kept() {
    let images = vec![folder("shapes/images")];
    let options = Options { model: named("shapes"), images, input_size: Some((304, 304)), ..Options::default() };
    let options = Options { calibration: Some(folder("shapes/images")), calibration_images: 2, ..options };
    let (session, cancel) = (Session::open(&options, &|_| ()).unwrap(), Cancel::default());
    let (network, settings) = (session.opened().model.network(), Settings::default());
    let outcome = session.run(0, &settings, &cancel).unwrap();
    let later = Settings { abits: BitWidth::new(3).unwrap(), ..settings.clone() };
    for outcome in [outcome, session.run(0, &later, &cancel).unwrap()] {
        let (mut seen, pixels) = (0, Start::pixels(&outcome.base.prepared.tensor));
        let observe = |whole: &Observation| {
            let site = whole.plan.info.site;
            if !site.kind.is_softmax() {
                return Ok(());
            }
            assert!(!outcome.base.float.sites.contains_key(&site) && !outcome.quantized.sites.contains_key(&site), "{site} is kept");
            let again = outcome.quantized.at(network, &outcome.plan, site, &cancel)?;
            assert_eq!(again.grouping.as_ref(), whole.groupings.first(), "{site}");
            assert!(flat(&again.before) == flat(whole.before) && flat(&again.after) == flat(whole.after), "{site}");
            let float = outcome.base.float.at(network, whole.plan.info.step, site)?;
            let [local, cumulative] = [whole.before, &float].map(|from| ErrorNumbers::between(&flat(from), &flat(whole.after)));
            let report = outcome.report.sites.iter().find(|report| report.site == site).unwrap();
            let near = |a: f64, b: f64| (a - b).abs() <= 1e-9 * b;
            assert!(near(report.local.error.mse, local.mse) && near(report.cumulative.mse, cumulative.mse), "{site}: {report:?}");
            let detail = session.detail(&outcome, 1, site).unwrap();
            assert!(detail.attention.unwrap().float == flat(&float) && detail.distribution.is_some(), "{site}");
            seen += 1;
            Ok(())
        };
        run_observed(network, pixels, &outcome.plan, &cancel, observe).unwrap();
        assert_eq!(seen, 4);
        assert!(outcome.report.sites.iter().map(|report| report.site).eq(session.opened().model.sites().iter().map(|info| info.site)));
    }
}

#[test]
fn sizes_are_those_of_the_rule_and_the_rest_is_padding() {
    let config = serde_json::json!({"model_type": "yolos"});
    let rule = |cfg: Option<serde_json::Value>| Preprocess::from_config(Some(&config), cfg.as_ref(), 3, (800, 1056)).unwrap();
    // get_size_with_aspect_ratio of transformers' YolosImageProcessor, by hand.
    for ((rows, columns), wanted) in
        [((480, 640), (800, 1056)), ((640, 480), (1056, 800)), ((300, 900), (432, 1328)), ((500, 500), (800, 800))]
    {
        assert_eq!(rule(None).detector_size(rows, columns), Some(wanted), "{rows}x{columns}");
    }
    let old = rule(Some(serde_json::json!({"feature_extractor_type": "YolosFeatureExtractor", "size": 512, "max_size": 1333})));
    assert_eq!(old.detector_size(480, 640), Some((512, 672)));
    // A picture of another shape is fitted inside at the upper left; what is left is 0 behind the normalisation.
    let small = Preprocess { size: (64, 96), ..old };
    let raster = Raster { width: 60, height: 90, channels: 3, data: vec![200; 60 * 90 * 3] };
    let picture = Picture { name: "high".into(), source: "high.png".into(), raster, label: None };
    let made = small.apply(&picture).unwrap();
    assert_eq!((made.tensor.dims(), made.inside.0), (&[1, 3, 64, 96][..], 64));
    assert!(made.inside.1 < 96);
    let right = made.tensor.narrow(3, made.inside.1, 96 - made.inside.1).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
    let left = made.tensor.narrow(3, 0, made.inside.1).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
    assert!(right.iter().all(|v| *v == 0.0) && left.iter().all(|v| *v != 0.0));
    for odd in [serde_json::json!({"image_processor_type": "ViTImageProcessor"}), serde_json::json!({"size": {"height": 64, "width": 96}})]
    {
        assert!(Preprocess::from_config(Some(&config), Some(&odd), 3, (64, 96)).is_err(), "{odd}");
    }
}

#[test]
fn a_trained_detector_sees_its_shapes_and_loses_them_at_two_bits() {
    let session = shapes();
    let mut counts = Vec::new();
    for bits in [8, 4, 2] {
        let bits = BitWidth::new(bits).unwrap();
        let settings = Settings { abits: bits, sbits: bits, wbits: bits, ..Settings::default() };
        let (mut kept, mut changed, mut all) = (0, 0, 0);
        for picture in 0..8 {
            let outcome = session.run(picture, &settings, &Cancel::default()).unwrap();
            let objects = outcome.report.prediction.objects.as_ref().unwrap();
            assert_eq!(outcome.report.prediction.flipped, objects.changed());
            assert!(outcome.report.verdict.starts_with(&objects.describe()));
            kept += objects.count(Fate::Kept) + objects.count(Fate::Moved);
            changed += objects.objects.iter().filter(|o| o.fate.changes()).count();
            all += objects.counts.0;
        }
        assert!(all >= 8, "{all} objects in 8 pictures");
        counts.push((kept, changed));
    }
    assert!(counts[0].1 <= counts[2].1 && counts[0].0 > counts[2].0 && counts[2].1 > 3, "{counts:?}");
}

#[test]
fn objects_are_on_the_screen_and_follow_the_threshold() {
    let session = shapes();
    let mut app = App::new(session.opened().info(), Settings::default(), LOOK);
    let first = app.request();
    answer(&mut app, &session, &first);
    let found = igq::tui::objects::of(&app).unwrap();
    for (width, height) in [(80, 24), (120, 40), (200, 60)] {
        let shown = text(&app, width, height);
        assert!(shown.contains(&format!("Objects over 0.50: {} float", found.counts.0)), "{shown}");
        assert!(shown.contains(found.objects[0].float.as_ref().unwrap().label.as_str()) && shown.contains("site"), "{shown}");
    }
    let (_, hits) = frame::draw(&app, 120, 40);
    assert_eq!(hits.iter().filter(|(_, hit)| matches!(hit, Hit::Object(_))).count(), found.objects.len());
    press(&mut app, KeyCode::Char('l'));
    press(&mut app, KeyCode::Char('h'));
    // The object's token is the one that Attention shows.
    assert_eq!(app.token, 1 + igq::tui::objects::query(&found.objects[app.object]).unwrap());
    for _ in 0..7 {
        press(&mut app, KeyCode::Char(','));
    }
    assert!((app.threshold - 0.15).abs() < 1e-9 && text(&app, 120, 40).contains("Objects over 0.15"));
    for _ in 0..40 {
        press(&mut app, KeyCode::Char('.'));
    }
    assert!((app.threshold - 0.95).abs() < 1e-9);
    for key in ['v', 'v', 'v'] {
        press(&mut app, KeyCode::Char(key));
        text(&app, 80, 24);
    }
    press(&mut app, KeyCode::Enter);
    app.threshold = 0.5;
    for close in [true, false] {
        app.close_up = close;
        for ascii in [true, false] {
            app.look.ascii = ascii;
            for name in ["overview", "groups", "attention", "distribution", "budget", "compare", "lens"] {
                app.view = view(name);
                for (width, height) in [(50, 16), (65, 20), (80, 24), (120, 40), (200, 60), (20, 5)] {
                    text(&app, width, height);
                }
            }
        }
    }
}

fn igq(arguments: &[&str]) -> (bool, String, String) {
    let run = Command::cargo_bin("igq").unwrap().args(arguments).env("NO_COLOR", "1").output().unwrap();
    (run.status.success(), String::from_utf8(run.stdout).unwrap(), String::from_utf8(run.stderr).unwrap())
}

#[test]
fn every_study_takes_a_detector() {
    let (model, images) = (named("shapes"), named("shapes/images"));
    let common = ["--model", &model, "--image", &images, "--calibration", &images, "--calibration-images", "4", "--no-cache"];
    for study in [
        vec!["run"],
        vec!["sensitivity", "--limit", "4", "--kinds", "attn,fc2"],
        vec!["allocate", "--budget", "8"],
        vec!["suggest", "--one", "--bits", "3"],
        vec!["mixed", "--budget", "4"],
    ] {
        let arguments: Vec<&str> = study.iter().copied().chain(common).collect();
        let (good, out, err) = igq(&arguments);
        assert!(good && !out.is_empty(), "{study:?}: {err}");
    }
}

#[test]
fn average_precision_is_that_of_the_annotations_and_falls_with_the_bits() {
    let (model, annotations, images) = (named("shapes"), named("shapes/instances.json"), named("shapes/images"));
    let common = ["--model", &model, "--calibration", &images, "--no-cache", "--format", "json", "--method", "igq", "--bits", "8,2"];
    let asked: Vec<&str> = ["eval", "--annotations", &annotations].into_iter().chain(common).collect();
    let (good, out, err) = igq(&asked);
    assert!(good, "{err}");
    let found: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert!(found["truth"].as_str().unwrap().contains("3 of 3 categories matched by name") && err.contains("fewer than 30"));
    assert_eq!((found["images"].as_u64(), found["rows"].as_array().unwrap().len()), (Some(24), 3));
    let ap = |row: usize| found["rows"][row]["accuracy"]["ap"].as_f64().unwrap();
    assert!(ap(0) > 20.0 && (ap(1) - ap(0)).abs() < 10.0 && ap(2) < ap(0), "{} {} {}", ap(0), ap(1), ap(2));
    assert!(found["rows"][0]["difference"].is_null() && found["rows"][2]["difference"][0].as_f64().unwrap() < 0.0);
    // Without annotations the float run finds all of its own objects.
    let asked: Vec<&str> = ["eval", "--data", &images].into_iter().chain(common).collect();
    let (good, out, err) = igq(&asked);
    assert!(good, "{err}");
    let found: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert!(found["truth"].as_str().unwrap().contains("not COCO AP"));
    assert_eq!(found["rows"][0]["accuracy"]["ap50"].as_f64().unwrap().round(), 100.0);
    // The photographs that were annotated by hand have none of its classes.
    let ours = Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/objects/instances.json").display().to_string();
    let (good, _, err) = igq(&["eval", "--model", &model, "--annotations", &ours, "--no-cache", "--calibration", &images]);
    assert!(!good && err.contains("none of its 5 categories (person, cat, cup, spoon, dining table)"), "{err}");
}

#[test]
fn detectors_that_are_not_computed_say_what_they_are() {
    let shell = tempfile::tempdir().unwrap();
    let weights = folder("yolos_tiny").join("model.safetensors");
    fs::copy(weights, shell.path().join("model.safetensors")).unwrap();
    for (kind, says) in [("conditional_detr", "a DETR with conditional queries"), ("mask2former", "a Mask2Former")] {
        fs::write(shell.path().join("config.json"), format!("{{\"model_type\": \"{kind}\"}}")).unwrap();
        let (good, _, err) = igq(&["inspect", shell.path().to_str().unwrap()]);
        assert!(!good && err.contains(says) && err.contains("YOLOS"), "{err}");
    }
    // A configuration that says another number of detection tokens belongs to another model.
    let config = fs::read_to_string(folder("yolos_tiny").join("config.json")).unwrap();
    fs::write(shell.path().join("config.json"), config.replace("\"num_detection_tokens\": 10", "\"num_detection_tokens\": 12")).unwrap();
    let (good, _, err) = igq(&["inspect", shell.path().to_str().unwrap()]);
    assert!(!good && err.contains("num_detection_tokens"), "{err}");
    // A pickle is never read; the line that converts it is said.
    fs::remove_file(shell.path().join("model.safetensors")).unwrap();
    fs::write(shell.path().join("mask_rcnn_swin.pth"), "pickle").unwrap();
    let (good, _, err) = igq(&["inspect", shell.path().to_str().unwrap()]);
    assert!(!good && err.contains("save_file") && err.contains("state_dict"), "{err}");
    let (good, _, err) = igq(&["run", "--input-size", "64x64"]);
    assert!(!good && err.contains("--input-size"), "{err}");
    let (good, _, err) = igq(&["run", "--model", &named("yolos_tiny"), "--input-size", "100x64"]);
    assert!(!good && err.contains("multiples of the patch"), "{err}");
}
