//! Mask R-CNN and Cascade Mask R-CNN on a Swin Transformer: mmdet's outputs, padding inside blocks, both versions of the names, pinned proposals,
//! studies from start to end, and the screen.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use assert_cmd::Command;
use candle_core::Tensor;
use common::screen::{LOOK, answer, detail, draw_every_view, press, text};
use common::{difference, stored};
use crossterm::event::KeyCode;
use igq::analysis::objects::{Fate, ObjectReport};
use igq::analysis::suffix::only_this;
use igq::analysis::{FloatRun, Prediction, QuantizedRun};
use igq::model::{Identity, Model, Site, Tap, forward, trace};
use igq::progress::Cancel;
use igq::quant::{BitWidth, Plan, Scope, Settings};
use igq::session::{Options, Session};
use igq::studies::verify;
use igq::tui::app::App;

const BOTH: [&str; 2] = ["mask_rcnn_swin", "cascade_mask_rcnn_swin"];

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/detection").join(name)
}

fn named(name: &str) -> String {
    folder(name).display().to_string()
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

/// A model at the size of its reference.
fn sized(name: &str) -> Model {
    let mut model = Model::open(name).unwrap();
    model.resize((96, 128), None).unwrap();
    model
}

fn session(name: &str) -> Session {
    let options = Options {
        model: named(name),
        images: vec![photographs()],
        calibration: Some(photographs()),
        calibration_images: 2,
        input_size: Some((96, 128)),
        ..Options::default()
    };
    Session::open(&options, &|_| ()).unwrap()
}

#[test]
fn maps_proposals_logits_objects_and_masks_are_those_of_mmdet() {
    for name in BOTH {
        let mut model = Model::open(&named(name)).unwrap();
        let found = verify::verify(&mut model, &folder(name).join("expected.safetensors"), 1e-4).unwrap();
        let regions = found.regions.unwrap();
        assert!(found.within && found.largest_difference < 5e-5, "{name}: {}", found.largest_difference);
        assert_eq!((regions.proposals, regions.objects), ((200, 200), (100, 100)), "{name}");
        assert!(regions.largest_box_difference < 0.005 && found.largest_mask_difference.unwrap() < 1e-4, "{name}: {regions:?}");
    }
}

/// transformers' `SwinBackbone`, which pads inside of every block as mmdet does.
#[test]
fn a_backbone_pads_windows_and_merges_as_the_reference() {
    let expected = common::tensors(folder("mask_rcnn_swin").join("backbone.safetensors"));
    for (tag, size) in [("a", (101, 75)), ("b", (20, 300))] {
        let mut model = Model::open(&named("mask_rcnn_swin")).unwrap();
        model.resize(size, None).unwrap();
        let run = trace(model.network(), &expected[&format!("{tag}.pixel_values")], &mut Identity).unwrap();
        // Beside the stream before the pyramid stand how much is no padding, and the maps of all stages.
        let taken = &run.boundaries[model.network().branch().unwrap() - 1].taken;
        for stage in 0..4 {
            let map = expected[&format!("{tag}.stage{stage}")].flatten_from(2).unwrap().transpose(1, 2).unwrap();
            let worst = difference(&taken[1 + stage], &map);
            assert!(worst < 2e-5, "{tag} {stage}: {worst}");
        }
    }
}

/// mmdet 3 names a Swin otherwise and merges channels in the order of torch's Unfold: `swin_converter` of its repository, done here.
#[test]
fn the_names_of_version_3_give_the_same() {
    let three: HashMap<String, Tensor> = weights("cascade_mask_rcnn_swin")
        .into_iter()
        .map(|(key, tensor)| {
            let unfolded = key.contains(".downsample.");
            let tensor = if unfolded {
                let last = *tensor.dims().last().unwrap();
                let order: Vec<u32> = (0..last).map(|at| ([0, 2, 1, 3][at % 4] * (last / 4) + at / 4) as u32).collect();
                tensor.index_select(&Tensor::new(order, tensor.device()).unwrap(), tensor.rank() - 1).unwrap()
            } else {
                tensor
            };
            let theirs = [
                ("backbone.layers.", "backbone.stages."),
                (".attn.", ".attn.w_msa."),
                (".mlp.fc1.", ".ffn.layers.0.0."),
                (".mlp.fc2.", ".ffn.layers.1."),
                ("patch_embed.proj.", "patch_embed.projection."),
            ];
            (theirs.iter().fold(key, |key, (two, three)| key.replace(two, three)), tensor)
        })
        .collect();
    let folder = stored(&three);
    let pixels = input("cascade_mask_rcnn_swin");
    let maps = |model: &Model| {
        let run = trace(model.network(), &pixels, &mut Identity).unwrap();
        run.boundaries[model.network().branch().unwrap()].x.clone()
    };
    let (two, three) = (sized(&named("cascade_mask_rcnn_swin")), sized(folder.path().to_str().unwrap()));
    assert!(three.notes.iter().any(|note| note.contains("mmdet 3")), "{:?}", three.notes);
    assert!(difference(&maps(&two), &maps(&three)) < 1e-5);
}

/// In float a run against itself keeps every object, its KL is zero, and pinned proposals are its own; 32 bits are the float run bit by bit.
#[test]
fn float_against_itself_keeps_everything() {
    for name in BOTH {
        let model = sized(&named(name));
        let float = FloatRun::new(model.network(), &input(name)).unwrap();
        let same = QuantizedRun::new(model.network(), &float, &Plan::float(model.sites()), &Cancel::default()).unwrap();
        let apart = same.prediction.against(&float.prediction);
        assert_eq!((apart.kl, apart.changed), (0.0, 0));
        assert_eq!((same.prediction.seen(&[]), same.prediction.logits()), (float.prediction.seen(&[]), float.prediction.logits()));
        let objects = same.prediction.objects(&float.prediction, &[]).unwrap();
        let all = |o: &ObjectReport| o.fate == Fate::Kept && o.iou == Some(1.0) && o.mask_iou.is_none_or(|iou| (iou - 1.0).abs() < 1e-9);
        assert!(objects.counts.0 > 10 && objects.objects.iter().all(all), "{name}: {:?}", objects.objects);
        // Objects lie within what is no padding: 88 rows and 120 columns of 96 and 128.
        let seen = float.prediction.seen(&[]);
        assert!(seen.iter().all(|s| s.corners[2] <= 120.0 / 128.0 + 1e-6 && s.corners[3] <= 88.0 / 96.0 + 1e-6));
        assert!(seen.iter().any(|s| s.corners[3] > 87.0 / 96.0), "and some reach its end");
    }
}

#[test]
fn pinned_proposals_keep_the_regions_and_the_first_stage_has_its_own_say() {
    let session = session("mask_rcnn_swin");
    let (model, cancel) = (&session.opened().model, Cancel::default());
    let settings = Settings { abits: BitWidth::new(3).unwrap(), ..Settings::default() };
    let plan = session.plan(&settings).unwrap();
    let base = session.base(0).unwrap();
    let alone = |site: &str| {
        let site: Site = site.parse().unwrap();
        QuantizedRun::new(model.network(), &base.float, &plan.only(site), &cancel).unwrap().prediction
    };
    let float = &base.float.prediction;
    let objects = |prediction: &Prediction| prediction.seen(&[]).iter().map(|seen| seen.corners).collect::<Vec<_>>();
    let first = alone("rpn.conv");
    assert_eq!(first.logits(), float.logits(), "every region is the float run's");
    assert!(first.against(float).kl > 0.0, "the objectness of the proposals is another");
    assert_ne!(objects(&first), objects(float), "and so are those it proposes itself");
    // Boxes have no say in the KL, masks neither; what is seen changes.
    let (boxes, masks) = (alone("boxes.reg"), alone("masks.conv.0"));
    assert_eq!((boxes.against(float).kl, masks.against(float).kl), (0.0, 0.0));
    assert_ne!(objects(&boxes), objects(float));
    assert_eq!(objects(&masks), objects(float));
    assert_ne!(masks.seen(&[])[0].mask, float.seen(&[])[0].mask);
    // Swept by itself, a site behind the first stage changes what is seen as in a run of its own.
    for (site, prediction) in [("masks.conv.0", &masks), ("boxes.reg", &boxes)] {
        let swept = only_this(model.network(), &plan, &base.float, site.parse().unwrap(), &cancel).unwrap().unwrap();
        assert_eq!(swept.kl, 0.0);
        assert_eq!(swept.flipped, prediction.against(float).changed > 0, "{site}");
    }
    // A later run that takes over the backbone says the same as one from the pixels.
    let whole = QuantizedRun::new(model.network(), &base.float, &plan, &cancel).unwrap();
    let mut changed = settings.clone();
    changed.set_own("boxes.fc.1".parse().unwrap(), |own| own.abits = BitWidth::new(8).ok());
    let later = session.plan(&changed).unwrap();
    let after = QuantizedRun::after(model.network(), &base.float, &later, Some((&plan, &whole)), &cancel).unwrap();
    let fresh = QuantizedRun::new(model.network(), &base.float, &later, &cancel).unwrap();
    assert_eq!(after.prediction, fresh.prediction);
    // Masks are compared over the objects of the float run, so that their sites can be measured.
    let shape = |run: &QuantizedRun| run.sites[&"masks.logits".parse::<Site>().unwrap()].before.dims().to_vec();
    assert_eq!(shape(&fresh), base.float.sites[&"masks.logits".parse::<Site>().unwrap()].dims());
}

/// Pins proposals in another order.
struct Reversed;

impl Tap for Reversed {
    fn proposals(&mut self, chosen: Tensor) -> igq::error::Result<Tensor> {
        Ok(reversed(&chosen))
    }
}

fn reversed(tensor: &Tensor) -> Tensor {
    let count = tensor.dim(1).unwrap() as u32;
    let order = Tensor::from_vec((0..count).rev().collect::<Vec<u32>>(), count as usize, &candle_core::Device::Cpu).unwrap();
    tensor.index_select(&order, 1).unwrap()
}

#[test]
fn regions_in_another_order_give_the_same_answers_in_that_order() {
    for name in BOTH {
        let model = sized(&named(name));
        let (pixels, network) = (input(name), model.network());
        let (a, b) = (forward(network, &pixels, &mut Identity).unwrap(), forward(network, &pixels, &mut Reversed).unwrap());
        assert!(difference(&a.logits, &reversed(&b.logits)) < 1e-5);
        let first = |output: &igq::model::Output| output.first.clone().unwrap().objectness;
        assert!(difference(&first(&a).unsqueeze(2).unwrap(), &reversed(&first(&b).unsqueeze(2).unwrap())) < 1e-6);
        let rows = |output: &igq::model::Output| output.objects.clone().unwrap().rows.get(0).unwrap().to_vec2::<f32>().unwrap();
        let near = |a: &[f32], b: &[f32]| a[..6].iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-4);
        let (a, b) = (rows(&a), rows(&b));
        assert!(a.iter().all(|row| b.iter().any(|other| near(row, other))), "the objects are the same");
    }
}

/// A batch gives what its pictures give one by one, however many proposals each has.
#[test]
fn a_batch_is_its_pictures() {
    let name = "mask_rcnn_swin";
    let model = sized(&named(name));
    let one = input(name);
    let other = (one.narrow(3, 0, 64).unwrap().pad_with_zeros(3, 0, 64).unwrap() * 0.7).unwrap();
    let together = Prediction::of(&forward(model.network(), &Tensor::cat(&[&one, &other], 0).unwrap(), &mut Identity).unwrap()).unwrap();
    for (prediction, pixels) in together.iter().zip([one, other]) {
        let alone = Prediction::of_one(&forward(model.network(), &pixels, &mut Identity).unwrap()).unwrap();
        assert_eq!(prediction.logits().len(), alone.logits().len(), "no region is one of the other picture");
        assert!(prediction.logits().iter().zip(alone.logits()).all(|(a, b)| (a - b).abs() < 1e-4));
        assert_eq!(prediction.seen(&[]).len(), alone.seen(&[]).len());
    }
}

fn igq(arguments: &[&str]) -> (bool, String, String) {
    let output = Command::cargo_bin("igq").unwrap().args(arguments).output().unwrap();
    (output.status.success(), String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap())
}

#[test]
fn every_study_takes_a_detector_of_regions() {
    let (model, images) = (named("mask_rcnn_swin"), photographs().display().to_string());
    let size = ["--input-size", "128x96", "--no-cache"];
    let set = ["--model", &model, "--image", &images, "--calibration", &images, "--calibration-images", "2"];
    let common: Vec<&str> = set.iter().chain(&size).copied().collect();
    for study in [
        vec!["run", "--fast"],
        vec!["run", "--arithmetic", "integer", "--fast"],
        vec!["sensitivity", "--limit", "2", "--kinds", "lateral,conv,fc,fc2"],
        vec!["mixed", "--budget", "4"],
        vec!["suggest", "--one", "--bits", "3"],
    ] {
        let arguments: Vec<&str> = study.iter().chain(&common).copied().collect();
        let (good, out, err) = igq(&arguments);
        assert!(good && !out.is_empty(), "{study:?}: {err}");
    }
    // Under a budget; what has no say in the KL keeps its counts.
    let arguments: Vec<&str> =
        ["allocate", "--budget", "6", "--frontier", "0", "--format", "json"].iter().chain(&common).copied().collect();
    let (good, out, err) = igq(&arguments);
    assert!(good, "{err}");
    let found: serde_json::Value = serde_json::from_str(&out).unwrap();
    let solved = &found["solved"][0];
    let sites = solved["allocation"]["sites"].as_array().unwrap();
    let count = |site: &str| sites.iter().find(|s| s["site"] == site).unwrap()["groups"].as_u64().unwrap();
    assert_eq!(["boxes.reg", "masks.conv.1", "masks.logits"].map(count), [6, 6, 6], "a budget below theirs takes them along");
    assert!(["neck.out.0", "rpn.conv", "boxes.fc.0"].map(count).iter().any(|count| *count != 8), "others are chosen");
    // The float run finds all of its own objects.
    let arguments: Vec<&str> = ["eval", "--data", &images, "--format", "json", "--method", "igq"].iter().chain(&common).copied().collect();
    let (good, out, err) = igq(&arguments);
    assert!(good, "{err}");
    let found: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(found["rows"][0]["accuracy"]["ap50"].as_f64().unwrap().round(), 100.0);
}

/// What calibration keeps of convolutions and of layers that are too wide for GPTQ is read back from the cache.
#[test]
fn a_second_session_reads_the_calibration_of_the_first() {
    let cache = tempfile::tempdir().unwrap();
    let options = Options {
        model: named("mask_rcnn_swin"),
        images: vec![photographs()],
        calibration: Some(photographs()),
        calibration_images: 1,
        input_size: Some((64, 96)),
        cache: Some(cache.path().to_path_buf()),
        ..Options::default()
    };
    let opened = || {
        let seen = std::sync::Mutex::new(Vec::new());
        let session = Session::open(&options, &|progress| seen.lock().unwrap().push(format!("{progress:?}"))).unwrap();
        let outcome = session.run(0, &Settings::default(), &Cancel::default()).unwrap();
        (outcome.report.prediction.kl, seen.into_inner().unwrap().len())
    };
    let (first, second) = (opened(), opened());
    assert_eq!(first.0, second.0);
    assert!(second.1 < first.1, "nothing is calibrated again: {} and {} words of progress", first.1, second.1);
}

#[test]
fn regions_are_on_the_screen() {
    let session = session("mask_rcnn_swin");
    let mut app = App::new(session.opened().info(), Settings::default(), LOOK);
    let first = app.request();
    let outcome = answer(&mut app, &session, &first);
    let shown = text(&app, 120, 40);
    for part in ["Objects over 0.30", "a region, mean of", "regions", "mask"] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    for title in ["boxes: float", "boxes: quantized", "float-masks", "masks", "mask-difference", "boxes: none", "boxes: both"] {
        press(&mut app, KeyCode::Char('v'));
        assert!(text(&app, 120, 40).contains(title), "{title}");
        text(&app, 80, 24);
    }
    for site in ["layers.0.blocks.0.attn", "layers.2.blocks.1.attn", "neck.out.0", "rpn.conv", "boxes.fc.0", "masks.conv.2"] {
        app.site = site.parse().unwrap();
        detail(&mut app, &session, &outcome);
        draw_every_view(&mut app);
    }
}

#[test]
fn a_scope_leaves_the_rest_in_float() {
    let session = session("cascade_mask_rcnn_swin");
    let sites = session.opened().model.sites();
    let quantized = |scope| {
        let settings = Settings { scope, ..Settings::default() };
        sites.iter().map(|info| info.site).filter(|site| settings.quantizes(*site)).map(|site| site.to_string()).collect::<Vec<_>>()
    };
    let [backbone, transformer, all] = Scope::ALL.map(quantized);
    assert!(backbone.iter().all(|site| site == "patch" || site.starts_with("layers.")));
    assert_eq!(all.len(), sites.len());
    let more: Vec<&String> = transformer.iter().filter(|site| !backbone.contains(site)).collect();
    assert_eq!(more.len(), 9, "one layer, classes and boxes of each of three stages: {more:?}");
    assert!(
        all.contains(&"boxes.2.conv.3".to_string()) && all.contains(&"masks.1.logits".to_string()) && all.contains(&"rpn.reg".to_string())
    );
}
