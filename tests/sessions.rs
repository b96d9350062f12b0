//! What the screen writes and reads again: sessions, exports, the configuration file. Nothing is written over unasked.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::fs;
use std::path::PathBuf;

use assert_cmd::Command;
use common::screen::{answer, detail, filled, press, request, text, view};
use crossterm::event::KeyCode;
use igq::engine::{Event, Study};
use igq::progress::Cancel;
use igq::studies::{allocate, trials};
use igq::tui::app::App;
use igq::tui::hit::Hit;
use igq::tui::message::{Effect, Message};
use igq::tui::update::{palette, update};
use igq::tui::{export, glossary};

fn igq(arguments: &[&str]) -> String {
    let run = Command::cargo_bin("igq").unwrap().args(arguments).env("NO_COLOR", "1").output().unwrap();
    assert!(run.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&run.stderr));
    String::from_utf8(run.stdout).unwrap()
}

fn say(app: &mut App, line: &str) -> Vec<Effect> {
    palette::run(app, line).unwrap()
}

#[test]
fn a_saved_session_opens_at_the_same_screen_and_computes_the_same_run() {
    let session = common::built_in();
    let mut app = filled(&session);
    press(&mut app, KeyCode::Char('P'));
    let pinned = app.snapshot.clone().unwrap();
    let wanted = request(&mut app, 'a').unwrap();
    let outcome = answer(&mut app, &session, &wanted);
    say(&mut app, "view groups");
    say(&mut app, "site blocks.2.fc2");
    say(&mut app, "channel 17");
    let wanted = match say(&mut app, "image 3").as_slice() {
        [Effect::Request(wanted)] => wanted.clone(),
        other => panic!("{other:?}"),
    };
    drop(outcome);
    let outcome = answer(&mut app, &session, &wanted);
    detail(&mut app, &session, &outcome);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("lesson.toml");
    let [Effect::Save { file: named, over: false }] = &*say(&mut app, &format!("save {}", folder.path().join("lesson").display())) else {
        panic!()
    };
    assert_eq!(*named, file);
    assert!(!export::save(&app, named, false).is_error);
    // Not over what is there, unless that is asked for.
    assert!(export::save(&app, named, false).text.contains("save!"));
    assert!(!export::save(&app, named, true).is_error);
    let name = file.to_str().unwrap();
    let run: serde_json::Value = serde_json::from_str(&igq(&["run", "--session", name, "--format", "json", "--no-cache"])).unwrap();
    let kl = app.snapshot.as_ref().unwrap().report.prediction.kl;
    assert_eq!(run["prediction"]["kl"].as_f64().unwrap(), kl);
    assert_eq!(run["settings"]["abits"], 3);
    let shown = igq(&["snapshot", "--session", name, "--size", "120x40", "--no-cache"]);
    assert!(shown.contains("blocks.2.fc2") && shown.contains("channel 17") && shown.contains("picture 3 of"), "{shown}");
    let compared = igq(&["snapshot", "--session", name, "--view", "compare", "--size", "200x60", "--no-cache"]);
    assert!(compared.contains("A test 0") && compared.contains("B test 2"), "{compared}");
    // What is typed goes before what the file says.
    let other: serde_json::Value =
        serde_json::from_str(&igq(&["run", "--session", name, "--abits", "6", "--format", "json", "--no-cache"])).unwrap();
    assert_eq!((&other["settings"]["abits"], &other["picture"]["name"]), (&6.into(), &run["picture"]["name"]));
    assert_ne!(pinned.report.prediction.kl, kl);
}

#[test]
fn an_export_writes_every_form_and_never_over_another() {
    let session = common::built_in();
    let mut app = filled(&session);
    say(&mut app, "view budget");
    app.studies.learn(std::sync::Arc::new(allocate::estimated(&session, &app.settings.clone()).unwrap()));
    app.budget.renew(&app.settings.clone(), &app.studies.clone());
    let folder = tempfile::tempdir().unwrap();
    for stem in ["igq-budget-test-0", "igq-budget-test-0-2"] {
        let said = export::export_into(&app, folder.path()).unwrap();
        assert!(said.contains(stem), "{said}");
        let file = |extension: &str| -> PathBuf { folder.path().join(format!("{stem}.{extension}")) };
        let read = |extension: &str| fs::read_to_string(file(extension)).unwrap();
        let command = app.command();
        assert!(read("svg").contains(&format!("<desc>{command}</desc>")) && read("md").contains(&format!("```sh\n{command}\n```")));
        assert!(image::open(file("png")).unwrap().width() > 400);
        let report: serde_json::Value = serde_json::from_str(&read("json")).unwrap();
        assert_eq!(report["prediction"]["kl"].as_f64().unwrap(), app.snapshot.as_ref().unwrap().report.prediction.kl);
        let mut table = csv::Reader::from_reader(fs::File::open(file("csv")).unwrap());
        let rows: Vec<csv::StringRecord> = table.records().map(Result::unwrap).collect();
        let solved = app.budget.solved.as_ref().unwrap();
        assert_eq!(rows.iter().filter(|row| &row[0] == "site").count(), solved.allocation.sites.len());
        assert_eq!(rows.iter().filter(|row| &row[0] == "frontier").count(), solved.frontier.len());
        let cost: u64 = rows.iter().filter(|row| &row[0] == "site").map(|row| row[4].parse::<u64>().unwrap()).sum();
        assert!(cost > 0 && cost <= solved.allocation.bops);
    }
}

/// Before anybody applies the counts of a budget, a run has judged them; that run is what applying them gives.
#[test]
fn counts_are_judged_by_a_run_before_they_are_applied() {
    let session = common::built_in();
    let mut app = filled(&session);
    say(&mut app, "view budget");
    app.studies.learn(std::sync::Arc::new(allocate::estimated(&session, &app.settings.clone()).unwrap()));
    let effects = press(&mut app, KeyCode::Char('b'));
    let Some(Effect::Study(Study::Trial { settings, picture })) =
        effects.into_iter().find(|e| matches!(e, Effect::Study(Study::Trial { .. })))
    else {
        panic!("no trial is asked for");
    };
    assert_eq!(settings, app.budget.solved.as_ref().unwrap().apply(&app.settings));
    let kl = trials::kl(&session, &settings, picture, &Cancel::default()).unwrap();
    update(&mut app, Message::Engine(Event::Tried(Box::new(settings.clone()), picture, kl)));
    assert!(text(&app, 200, 60).contains("this image's run"), "{}", text(&app, 200, 60));
    let outcome = session.run(picture, &settings, &Cancel::default()).unwrap();
    assert!((outcome.report.prediction.kl - kl).abs() < 1e-12);
}

#[test]
fn keys_change_the_selected_site_alone() {
    let session = common::built_in();
    let mut app = filled(&session);
    let site = app.site;
    let wanted = request(&mut app, '+').unwrap();
    assert_eq!((wanted.settings.activation_bits(site).get(), wanted.settings.weight_bits(site).get()), (5, 5));
    assert_eq!(wanted.settings.abits.get(), 4);
    let wanted = request(&mut app, '(').unwrap();
    assert!(wanted.settings.groups(site) < wanted.settings.groups);
    assert!(app.notice.as_ref().unwrap().text.contains(&site.to_string()));
    assert!(app.command().contains("--site-abits") && app.command().contains("--site-groups"), "{}", app.command());
}

/// Every header of every table is a word of the glossary, and a click or the mouse over it says what it means.
#[test]
fn every_header_is_explained() {
    let session = common::built_in();
    let mut app = filled(&session);
    for name in ["overview", "groups", "attention", "distribution", "budget", "compare", "lens"] {
        app.view = view(name);
        let (_, hits) = igq::tui::frame::draw(&app, 200, 60);
        for (_, hit) in hits.iter() {
            let word = match hit {
                Hit::Term(word) => word,
                Hit::Sort(sort) => sort.column(),
                _ => continue,
            };
            assert!(glossary::explain(word).is_some(), "{name}: `{word}` is not explained");
        }
    }
    app.view = view("overview");
    press(&mut app, KeyCode::Char('?'));
    let help = text(&app, 120, 60);
    assert!(help.contains("cumulative SQNR"), "{help}");
    for key in "/zero p".chars() {
        press(&mut app, KeyCode::Char(key));
    }
    assert!(text(&app, 120, 40).contains("the code that stands for 0"));
    press(&mut app, KeyCode::Esc);
    assert!(app.help.is_some() && app.sought.is_none());
    press(&mut app, KeyCode::Esc);
    assert!(app.help.is_none());
}

#[test]
fn the_attention_of_all_heads_and_the_picture_under_it_are_drawn() {
    let session = common::built_in();
    let mut app = filled(&session);
    app.view = view("attention");
    press(&mut app, KeyCode::Char('o'));
    let heads = app.attention().unwrap().heads;
    assert!(text(&app, 120, 40).contains(&format!("all {heads} heads")));
    let (_, hits) = igq::tui::frame::draw(&app, 120, 40);
    assert_eq!(hits.iter().filter(|(_, hit)| matches!(hit, Hit::Head(_))).count(), heads);
    press(&mut app, KeyCode::Char('o'));
    assert!(text(&app, 120, 40).contains("under quantized"));
}

#[test]
fn a_configuration_file_is_read_and_a_wrong_one_is_named() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir_all(folder.path().join("igq")).unwrap();
    let run = |text: &str| {
        fs::write(folder.path().join("igq/config.toml"), text).unwrap();
        let arguments = ["snapshot", "--format", "svg", "--no-cache"];
        Command::cargo_bin("igq").unwrap().args(arguments).env("XDG_CONFIG_HOME", folder.path()).env_remove("NO_COLOR").output().unwrap()
    };
    let made = run("theme = \"paper\"\n[themes.paper]\nbase = \"light\"\nground = \"#fefaf0\"\n");
    assert!(made.status.success() && String::from_utf8_lossy(&made.stdout).contains("fill=\"#fefaf0\""));
    let refused = run("colour = \"blue\"\n");
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && said.contains("config.toml") && said.contains("colour"), "{said}");
    let page = igq(&["man"]);
    assert!(page.contains(".TH igq 1") && page.contains("\\-\\-session"));
}
