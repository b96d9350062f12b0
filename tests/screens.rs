//! Screens without a terminal: keys change the state and ask for runs, every view is drawn at every size.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::screen::{answer, app, filled, press, request, text};
use crossterm::event::{KeyCode, KeyModifiers};
use igq::engine::Event;
use igq::tui::app::{App, View};
use igq::tui::frame;
use igq::tui::message::{Effect, Message};
use igq::tui::theme::{Depth, Look, ThemeName};
use igq::tui::update::update;

#[test]
fn every_step_of_the_activation_bits_changes_what_is_seen() {
    let session = common::built_in();
    let mut app = filled(&session);
    for _ in 0..4 {
        let wanted = request(&mut app, 'A').unwrap();
        answer(&mut app, &session, &wanted);
    }
    assert_eq!(app.settings.abits.get(), 8);
    let mut last = text(&app, 120, 40);
    for bits in (2..8).rev() {
        let wanted = request(&mut app, 'a').unwrap();
        assert_eq!(wanted.settings.abits.get(), bits);
        // The old numbers stay, marked stale, until the answer is there.
        assert!(text(&app, 120, 40).contains("stale, computing"));
        answer(&mut app, &session, &wanted);
        let now = text(&app, 120, 40);
        assert!(!now.contains("stale") && now.contains(&format!("A{bits}")));
        let numbers = |t: &str| t.lines().skip(2).map(str::to_string).collect::<Vec<_>>();
        assert_ne!(numbers(&last), numbers(&now), "at {bits} bits");
        last = now;
    }
    assert!(request(&mut app, 'a').is_none(), "2 bits is the end");
}

#[test]
fn a_stale_answer_does_not_replace_a_newer_one() {
    let session = common::built_in();
    let mut app = filled(&session);
    let old = request(&mut app, 'a').unwrap();
    let new = request(&mut app, 'a').unwrap();
    answer(&mut app, &session, &new);
    answer(&mut app, &session, &old);
    assert_eq!(app.snapshot.as_ref().unwrap().id, new.id);
    assert!(!app.is_stale());
}

#[test]
fn a_failed_run_keeps_the_session_and_goes_back_to_what_is_shown() {
    let session = common::built_in();
    let mut app = filled(&session);
    let wanted = request(&mut app, 'n').unwrap();
    assert_eq!(app.picture, 1);
    update(&mut app, Message::Engine(Event::Failed(wanted.id, "1.png: is damaged".into())));
    assert_eq!(app.picture, 0);
    assert!(!app.is_stale() && text(&app, 80, 24).contains("1.png: is damaged"));
}

#[test]
fn comparing_two_pictures_says_which_channels_moved() {
    let session = common::built_in();
    let mut app = filled(&session);
    press(&mut app, KeyCode::Char('2'));
    let wanted = request(&mut app, 'c').unwrap();
    assert_eq!(wanted.compare, Some(1));
    answer(&mut app, &session, &wanted);
    let shown = text(&app, 120, 40);
    let snapshot = app.snapshot.clone().unwrap();
    let (a, b) = (snapshot.report.site(app.site).unwrap(), snapshot.compare.as_ref().unwrap().report.site(app.site).unwrap());
    let moved = a.assignment.iter().zip(&b.assignment).filter(|(a, b)| a != b).count();
    assert!(moved > 0 && shown.contains(&format!("{moved} of 512 channels in another group")), "{shown}");
    assert!(request(&mut app, '.').unwrap().compare == Some(2));
    assert!(press(&mut app, KeyCode::Esc).len() == 1 && app.compare.is_none());
}

#[test]
fn escape_goes_back_and_never_quits() {
    let session = common::built_in();
    let mut app = filled(&session);
    for key in ['2', 'c', '?'] {
        press(&mut app, KeyCode::Char(key));
    }
    for _ in 0..8 {
        assert!(!press(&mut app, KeyCode::Esc).contains(&Effect::Quit));
    }
    assert!(app.help.is_none() && app.compare.is_none() && app.view == View::Overview);
    assert_eq!(press(&mut app, KeyCode::Char('q')), [Effect::Quit]);
}

#[test]
fn the_filter_takes_letters_that_are_keys_elsewhere() {
    let session = common::built_in();
    let mut app = filled(&session);
    for key in "/qkv".chars() {
        assert!(press(&mut app, KeyCode::Char(key)).is_empty());
    }
    press(&mut app, KeyCode::Enter);
    let sites = app.visible_sites();
    assert!(sites.len() == 6 && sites.contains(&app.site));
    assert!(text(&app, 80, 24).contains("filter: qkv"));
    press(&mut app, KeyCode::Esc);
    assert_eq!(app.visible_sites().len(), 50);
}

#[test]
fn no_size_panics_and_help_and_quit_are_always_there() {
    let session = common::built_in();
    let mut app = filled(&session);
    let wanted = {
        press(&mut app, KeyCode::Char('2'));
        request(&mut app, 'c').unwrap()
    };
    answer(&mut app, &session, &wanted);
    for view in View::ALL {
        app.view = view;
        for help in [None, Some(0), Some(500)] {
            app.help = help;
            for (width, height) in (1..70).map(|n| (n, n)).chain((1..250).step_by(7).map(|w| (w, 16))).chain([
                (1, 200),
                (300, 1),
                (80, 24),
                (120, 40),
                (200, 60),
            ]) {
                let shown = text(&app, width, height);
                if width >= 50 && height >= 16 {
                    assert!(shown.contains("? help  q quit"), "{width}x{height}");
                }
            }
        }
    }
}

#[test]
fn every_site_is_drawn_in_every_view_and_theme() {
    let session = common::built_in();
    let mut app = filled(&session);
    for theme in [ThemeName::Dark, ThemeName::Light, ThemeName::Contrast, ThemeName::Colorblind, ThemeName::Mono] {
        for depth in [Depth::Sixteen, Depth::Indexed, Depth::True] {
            app.look = Look { theme, ascii: false, depth };
            for view in View::ALL {
                app.view = view;
                for site in app.info.sites.clone() {
                    assert!(app.select(site));
                    let buffer = frame::render(&app, 80, 24).unwrap();
                    if theme == ThemeName::Mono {
                        let colourless =
                            |c: &ratatui::buffer::Cell| c.fg == ratatui::style::Color::Reset && c.bg == ratatui::style::Color::Reset;
                        assert!(buffer.content.iter().all(colourless), "mono shows a colour in {view:?}");
                    }
                }
            }
        }
    }
}

#[test]
fn the_help_of_every_view() {
    let session = common::built_in();
    let mut app = app(&session);
    for (view, width, height) in
        [(View::Overview, 80, 24), (View::Groups, 120, 40), (View::Attention, 200, 60), (View::Budget, 120, 40), (View::Compare, 120, 40)]
    {
        app.view = view;
        app.help = Some(0);
        insta::assert_snapshot!(format!("help_{}_{width}x{height}", view.title().to_lowercase()), text(&app, width, height));
    }
}

#[test]
fn a_click_selects_what_is_under_it() {
    use crossterm::event::{MouseButton, MouseEvent, MouseEventKind};
    let session = common::built_in();
    let mut app = filled(&session);
    update(&mut app, Message::Resize(120, 40));
    let click = |app: &mut App, column, row| {
        let kind = MouseEventKind::Down(MouseButton::Left);
        update(app, Message::Mouse(MouseEvent { kind, column, row, modifiers: KeyModifiers::NONE }));
    };
    let shown = text(&app, 120, 40);
    let row = shown.lines().position(|l| l.contains("blocks.0.v ")).unwrap();
    click(&mut app, 10, row as u16);
    assert_eq!(app.site.to_string(), "blocks.0.v");
    let column = shown.lines().next().unwrap().find("2 Groups").unwrap();
    click(&mut app, column as u16, 0);
    assert_eq!(app.view, View::Groups);
}
