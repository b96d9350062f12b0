//! The lessons and the lens: every number that a lesson says comes from the run, and the lens is a run that is cut there.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::fs;
use std::sync::Arc;

use candle_core::{IndexOp, Tensor};
use common::screen::{LOOK, answer, press, text};
use common::{flat, golden, tensors};
use crossterm::event::KeyCode;
use igq::analysis::lens::parting;
use igq::engine::{Event, Study};
use igq::progress::Cancel;
use igq::quant::Settings;
use igq::session::{Options, Session};
use igq::studies::{allocate, curve};
use igq::tui::app::App;
use igq::tui::lessons::Shown;
use igq::tui::message::{Effect, Message};
use igq::tui::update::update;
use igq::tui::{facts, groups, lessons};

/// Carries out what a key asked for, as the engine does, and what the view then needs by itself.
fn carry_out(app: &mut App, session: &Session, effects: &[Effect]) {
    let cancel = Cancel::default();
    let request = effects.iter().rev().find_map(|e| if let Effect::Request(r) = e { Some(r.clone()) } else { None });
    if let Some(request) = request {
        let outcome = answer(app, session, &request);
        let lens = session.lens(&outcome, &cancel).unwrap();
        update(app, Message::Engine(Event::Lens(request.id, lens)));
        let blame = session.blame(&outcome, &app.info.sites[..3], &cancel).unwrap();
        update(app, Message::Engine(Event::Blamed(request.id, blame)));
    }
    let id = app.snapshot.as_ref().unwrap().id;
    let outcome = session.run(app.picture, &app.settings, &cancel).unwrap();
    if let Some(detail) = (app.view.spec().detail)(app).and_then(|site| session.detail(&outcome, id, site)) {
        update(app, Message::Engine(Event::Detail(Arc::new(detail))));
    }
    let event = match (app.view.spec().study)(app) {
        Some(Study::Curve { settings, picture, site }) => {
            Event::Curve(Arc::new(curve::curve(session, &settings, picture, site, &cancel).unwrap()))
        }
        Some(Study::Perturb { settings, .. }) => Event::Perturbed(Arc::new(allocate::estimated(session, &settings).unwrap())),
        _ => return,
    };
    update(app, Message::Engine(event));
}

#[test]
fn every_fact_of_every_lesson_is_there_and_every_question_is_answered_by_a_run() {
    let session = Session::open(&Options { calibration_images: 8, ..Options::default() }, &|_| ()).unwrap();
    let mut app = App::new(session.opened().info(), Settings::default(), LOOK);
    let first = app.request();
    carry_out(&mut app, &session, &[Effect::Request(first)]);
    let effects = press(&mut app, KeyCode::Char('7'));
    carry_out(&mut app, &session, &effects);
    let places: usize = lessons::built_in().iter().map(lessons::Chapter::places).sum();
    let (mut answered, mut seen) = (0, 0);
    loop {
        seen += 1;
        let texts: Vec<String> = match facts::shown(&app).expect("a place") {
            Shown::Step(step) => vec![step.caption.clone(), step.formula.clone()],
            Shown::Question(question) => vec![question.ask.clone()],
            Shown::Answer(question) => {
                answered += 1;
                let (before, after) = (app.lesson.as_ref().unwrap().before.unwrap(), facts::watched(&app, &question.watch).unwrap());
                let line = format!("{} to {}", facts::told(&question.watch, before), facts::told(&question.watch, after));
                assert!(text(&app, 120, 40).contains(&line), "{line}: {}", text(&app, 120, 40));
                assert!(before.is_finite() && after.is_finite() && before != after, "{}: {before} to {after}", question.ask);
                vec![question.reveal.clone()]
            }
        };
        for text in &texts {
            for name in facts::names(text) {
                assert!(facts::fact(&app, name).is_some(), "place {:?}: no fact `{name}`", app.lesson);
            }
        }
        for (width, height) in [(80, 24), (120, 40), (200, 60)] {
            assert!(!text(&app, width, height).contains('{'), "a name is left unfilled");
        }
        if seen == places {
            break;
        }
        let effects = press(&mut app, KeyCode::Char(' '));
        assert!(app.notice.as_ref().is_none_or(|n| !n.is_error), "{:?}", app.notice);
        carry_out(&mut app, &session, &effects);
    }
    assert_eq!(answered, lessons::built_in().len());
    // And all the way back.
    for _ in 1..places {
        press(&mut app, KeyCode::Backspace);
    }
    assert_eq!((app.lesson.as_ref().unwrap().chapter, app.lesson.as_ref().unwrap().at), (0, 0));
}

/// The formula on the screen is what the run did: code and value of the farthest value of many channels, from the run's own tensors.
#[test]
fn the_formula_is_what_the_run_did() {
    let session = common::built_in();
    let outcome = session.run(2, &Settings::default(), &Cancel::default()).unwrap();
    for name in ["blocks.0.fc2", "blocks.3.qkv", "blocks.5.k"] {
        let site = name.parse().unwrap();
        let report = outcome.report.site(site).unwrap();
        let run = &outcome.quantized.sites[&site];
        let (before, after) = (flat(&run.before), flat(&run.after));
        let channels = report.channels;
        for channel in (0..channels).step_by(7) {
            let value = groups::extreme(report, channel).unwrap();
            let at =
                (0..before.len()).find(|&i| i % channels == channel && before[i] == value).expect("the farthest value is one of the run");
            let quantizer = &report.quantizers[groups::group_of(report, channel).unwrap()];
            let (code, back) = groups::quantized(quantizer, 15, value).unwrap();
            assert!((back - after[at]).abs() <= 1e-6 * value.abs().max(1.0), "{name} {channel}: {back} against {}", after[at]);
            assert!((0.0..=15.0).contains(&code) && code.fract() == 0.0);
        }
    }
}

/// A checkpoint whose last blocks are taken away answers what the lens says after the block that is then the last.
#[test]
fn the_lens_is_a_run_that_ends_there() {
    let folder = golden("timm_vit");
    let whole = tensors(folder.join("model.safetensors"));
    let input = tensors(folder.join("expected.safetensors"))["input"].i(0..1).unwrap();
    let model = igq::model::Model::open(folder.to_str().unwrap()).unwrap();
    let float = igq::analysis::FloatRun::new(model.network(), &input).unwrap();
    let plan = igq::quant::Plan::float(model.sites());
    let quantized = igq::analysis::QuantizedRun::new(model.network(), &float, &plan, &Cancel::default()).unwrap();
    let points = igq::analysis::lens::lens(&model, &plan, &float, &quantized, &Cancel::default()).unwrap();
    assert_eq!(points.iter().map(|p| p.after.as_str()).collect::<Vec<_>>(), ["patch", "blocks.0", "blocks.1", "blocks.2"]);
    assert!(points.iter().all(|p| p.kl.abs() < 1e-9) && parting(&points).is_none());
    for (kept, point) in points.iter().enumerate().skip(1) {
        let cut = tempfile::tempdir().unwrap();
        let gone = |name: &str| (kept..3).any(|block| name.starts_with(&format!("blocks.{block}.")));
        let left: std::collections::HashMap<String, Tensor> =
            whole.iter().filter(|(name, _)| !gone(name)).map(|(n, t)| (n.clone(), t.clone())).collect();
        candle_core::safetensors::save(&left, cut.path().join("model.safetensors")).unwrap();
        let config = fs::read_to_string(folder.join("config.json")).unwrap().replace("\"depth\": 3", &format!("\"depth\": {kept}"));
        fs::write(cut.path().join("config.json"), config).unwrap();
        let short = igq::model::Model::open(cut.path().to_str().unwrap()).unwrap();
        let ended = igq::analysis::FloatRun::new(short.network(), &input).unwrap().prediction;
        let probability = igq::analysis::prediction::softmax(ended.logits())[ended.class()];
        assert_eq!(point.float.class, ended.class());
        assert!((point.float.probability - probability).abs() < 1e-6, "{kept}: {} against {probability}", point.float.probability);
    }
}

/// What timm itself answers where its forward pass ends after the first blocks: norm, pooling and head of its own (`lens.safetensors`, made
/// with timm 1.0.31; distilled models average two heads, others pool or take the class token).
#[test]
fn the_lens_answers_as_timm_does_after_the_first_blocks() {
    for name in ["timm_vit", "timm_vit_avgpool_fcnorm", "timm_deit_distilled"] {
        let folder = golden(name);
        let (expected, lens) = (tensors(folder.join("expected.safetensors")), tensors(folder.join("lens.safetensors")));
        let model = igq::model::Model::open(folder.to_str().unwrap()).unwrap();
        let plan = igq::quant::Plan::float(model.sites());
        for image in 0..2 {
            let input = expected["input"].i(image..=image).unwrap();
            let float = igq::analysis::FloatRun::new(model.network(), &input).unwrap();
            let quantized = igq::analysis::QuantizedRun::new(model.network(), &float, &plan, &Cancel::default()).unwrap();
            let points = igq::analysis::lens::lens(&model, &plan, &float, &quantized, &Cancel::default()).unwrap();
            assert_eq!(points.len(), 4);
            for (k, point) in points.iter().enumerate() {
                let logits: Vec<f32> = lens[&format!("lens.{k}")].i(image).unwrap().to_vec1().unwrap();
                let probabilities = igq::analysis::prediction::softmax(&logits);
                let most = (0..logits.len()).max_by(|&a, &b| logits[a].total_cmp(&logits[b])).unwrap();
                assert_eq!((point.float.class, point.quantized.class), (most, most), "{name}, image {image}, block {k}");
                let differ = (point.float.probability - probabilities[most]).abs();
                let of_answer = (point.of_answer.0 - probabilities[float.prediction.class()]).abs();
                assert!(differ < 1e-5 && of_answer < 1e-5, "{name}, image {image}, block {k}: {differ}, {of_answer}");
            }
        }
    }
}
