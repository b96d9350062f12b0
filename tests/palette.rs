//! Commands by name: what the palette knows, completes and refuses, and the command line that gives the run again.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::screen::{filled, press, text};
use crossterm::event::KeyCode;
use igq::quant::{BitWidth, Method};
use igq::tui::app::App;
use igq::tui::message::Effect;
use igq::tui::update::palette::{COMMANDS, completions, run};

fn type_in(app: &mut App, line: &str) -> Vec<Effect> {
    press(app, KeyCode::Char(':'));
    for c in line.chars() {
        press(app, KeyCode::Char(c));
    }
    press(app, KeyCode::Enter)
}

#[test]
fn settings_and_moves_by_name() {
    let session = common::built_in();
    let mut app = filled(&session);
    let asked = type_in(&mut app, "wbits 3");
    assert!(asked.iter().any(|e| matches!(e, Effect::Request(_))) && app.settings.wbits.get() == 3);
    type_in(&mut app, "site blocks.3.fc2 abits 8 groups 16");
    let site = "blocks.3.fc2".parse().unwrap();
    assert_eq!((app.site, app.settings.activation_bits(site), app.settings.groups(site).get()), (site, BitWidth::EIGHT, 16));
    type_in(&mut app, "site blocks.3.fc2 wbits 6");
    assert_eq!((app.settings.weight_bits(site).get(), app.settings.groups(site).get(), app.settings.overrides.len()), (6, 16, 1));
    type_in(&mut app, "method layer");
    type_in(&mut app, "image 5");
    type_in(&mut app, "view groups");
    assert_eq!((app.settings.method, app.picture, app.view.name()), (Method::Layer, 4, "groups"));
    // Undo takes back what was typed, step by step.
    type_in(&mut app, "undo");
    assert_eq!(app.settings.method, Method::Igq);
    assert!(type_in(&mut app, "quit").contains(&Effect::Quit));
}

#[test]
fn what_is_not_known_is_refused_and_changes_nothing() {
    let session = common::built_in();
    let mut app = filled(&session);
    let before = app.settings.clone();
    for line in [
        "wbits 9",
        "wbits",
        "wbits 3 4",
        "method magic",
        "site nowhere.fc2 abits 4",
        "site blocks.3.fc2 more 4",
        "image 0",
        "image 9999999",
        "fly",
        "\"",
        "site blocks.3.fc2 abits",
    ] {
        assert!(run(&mut app, line).is_err(), "{line}");
        assert_eq!(app.settings, before, "{line}");
    }
    type_in(&mut app, "fly");
    assert!(app.notice.as_ref().is_some_and(|n| n.is_error && n.text.contains("fly")));
}

#[test]
fn tab_completes_commands_and_their_values() {
    let session = common::built_in();
    let mut app = filled(&session);
    assert_eq!(completions(&app, "").len(), COMMANDS.len());
    assert_eq!(completions(&app, "weight-s"), ["weight-scales"]);
    assert!(completions(&app, "site blocks.3.f").contains(&"site blocks.3.fc2".to_string()));
    assert_eq!(completions(&app, "method igq-t"), ["method igq-token"]);
    press(&mut app, KeyCode::Char(':'));
    for key in ['m', 'e'] {
        press(&mut app, KeyCode::Char(key));
    }
    press(&mut app, KeyCode::Tab);
    assert_eq!(app.palette.as_deref(), Some("method "));
    assert!(text(&app, 120, 40).contains("layer-dynamic"), "the values are listed");
    press(&mut app, KeyCode::Esc);
    assert!(app.palette.is_none());
}

#[test]
fn the_command_line_of_the_run_is_copied() {
    let session = common::built_in();
    let mut app = filled(&session);
    type_in(&mut app, "abits 6");
    type_in(&mut app, "image 3");
    let copied = press(&mut app, KeyCode::Char('Y'));
    let line = copied.iter().find_map(|e| if let Effect::Copy(line) = e { Some(line.clone()) } else { None }).unwrap();
    assert!(line.starts_with("igq run") && line.contains("--abits 6") && line.contains("--picture 2"), "{line}");
    assert!(!line.contains("--sbits"), "as the activations: {line}");
}

#[test]
fn keys_that_do_nothing_say_why() {
    let session = common::built_in();
    let mut app = filled(&session);
    type_in(&mut app, "abits 2");
    press(&mut app, KeyCode::Char('a'));
    assert!(app.notice.as_ref().unwrap().text.contains("end of the scale"), "{:?}", app.notice);
    press(&mut app, KeyCode::Char('b'));
    assert!(app.notice.as_ref().unwrap().text.contains("Budget"), "{:?}", app.notice);
}

#[test]
fn every_command_of_the_table_is_one() {
    let session = common::built_in();
    let mut app = filled(&session);
    for command in COMMANDS {
        let problem = run(&mut app, &format!("{} nonsense", command.name)).err().unwrap_or_default();
        assert!(!problem.contains("is no command"), "{}: {problem}", command.name);
    }
}
