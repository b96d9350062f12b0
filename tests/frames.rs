//! Whole screens of a real session on the built-in model: every view at three sizes, and what colours mean in the dark theme.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::sync::Arc;

use common::screen::{LOOK, answer, filled, request, view};
use igq::progress::Cancel;
use igq::session::{Session, Snapshot, Stage};
use igq::studies::compare::Comparison;
use igq::studies::{allocate, compare, curve};
use igq::tui::app::App;
use igq::tui::choice::View;
use igq::tui::theme::group_digit;
use igq::tui::{frame, studies, update};
use ratatui::buffer::Buffer;
use ratatui::style::{Modifier, Style};

/// A screen with everything that views show: the run, its sweep, the estimate of the budget, the first part of the comparison.
fn whole(session: &Session) -> App {
    let mut app = filled(session);
    session
        .answer(
            &igq::engine::Request { id: 1, settings: app.settings.clone(), picture: 0, compare: None },
            &Cancel::default(),
            &mut |stage| match stage {
                Stage::Swept(found, ..) => app.learn_sensitivity(&found),
                Stage::Lens(points) => app.lens_of = Some((app.snapshot.as_ref().unwrap().id, points)),
                _ => {}
            },
        )
        .unwrap();
    timeless(&mut app);
    app.studies.learn(Arc::new(allocate::estimated(session, &studies::base(&app.settings)).unwrap()));
    app.budget.renew(&app.settings, &app.studies);
    let found = compare::first(session, &studies::grid(&app.settings), 0).unwrap();
    update::compared(&mut app, Arc::new(found));
    app.pinned.clone_from(&app.snapshot);
    app
}

/// The time that a run took is not the same twice.
fn timeless(app: &mut App) {
    let mut snapshot = Snapshot::clone(app.snapshot.as_ref().unwrap());
    snapshot.report.seconds = 0.05;
    app.snapshot = Some(Arc::new(snapshot));
}

/// Digits, parts of bars and dots of curves may differ between processors; so may the number of digits before a point (99.9 or 100.0), which
/// only the last one of stays where a number ends a column.
fn masked(text: &str) -> String {
    let mut out: Vec<char> = Vec::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '0'..='9' => {
                let n = out.len();
                let led = |n: usize| n == 0 || matches!(out[n - 1], ' ' | '\n');
                if n > 0 && out[n - 1] == '0' && led(n - 1) {
                    out[n - 1] = ' ';
                }
                out.push('0');
            }
            '▉'..='▏' | '▁'..='▇' => out.push('▄'),
            '\u{2801}'..='\u{28ff}' => out.push('⠿'),
            c => out.push(c),
        }
    }
    out.into_iter().collect()
}

#[test]
fn every_view_at_three_sizes() {
    let session = common::built_in();
    let mut app = whole(&session);
    let outcome = session.run(0, &app.settings, &Cancel::default()).unwrap();
    let curve = curve::curve(&session, &app.settings, 0, app.site, &Cancel::default()).unwrap();
    app.studies.curve = Some(Arc::new(curve));
    for view in View::all() {
        app.view = view;
        if view.name() == "learn" {
            update::start_lessons(&mut app);
            app.wanted = app.snapshot.as_ref().unwrap().id;
        }
        if let Some(wanted) = igq::tui::view::wanted_detail(&app) {
            app.detail = session.detail(&outcome, wanted.id, wanted.site).map(Arc::new);
        }
        for (width, height) in [(80, 24), (120, 40), (200, 60)] {
            let shown = frame::to_text(&frame::render(&app, width, height).unwrap());
            insta::assert_snapshot!(format!("{}_{width}x{height}", view.name()), masked(&shown));
        }
    }
}

#[test]
fn the_help_of_every_view() {
    let session = common::built_in();
    let mut app = filled(&session);
    timeless(&mut app);
    for view in View::all() {
        app.view = view;
        app.help = Some(0);
        insta::assert_snapshot!(format!("help_{}_120x60", view.name()), masked(&frame::to_text(&frame::render(&app, 120, 60).unwrap())));
    }
}

/// Column and row of the first cell of some text.
fn find(buffer: &Buffer, what: &str) -> (u16, u16) {
    let text = frame::to_text(buffer);
    // The header counts images, whose number may look like a row of group digits.
    let from = if what.starts_with(char::is_numeric) && !what.contains(' ') { 3 } else { 0 };
    let row = text.lines().skip(from).position(|l| l.contains(what)).map_or_else(|| panic!("no {what:?}:\n{text}"), |row| row + from);
    let line = text.lines().nth(row).unwrap();
    (line[..line.find(what).unwrap()].chars().count() as u16, row as u16)
}

fn has(buffer: &Buffer, at: (u16, u16), style: Style) {
    let cell = &buffer[at];
    let (fg, bg) = (style.fg.unwrap_or(cell.fg), style.bg.unwrap_or(cell.bg));
    assert!(cell.fg == fg && cell.bg == bg && cell.modifier.contains(style.add_modifier), "{at:?}: {cell:?} is not {style:?}");
}

#[test]
fn colours_mean_what_they_should_in_the_dark_theme() {
    let session = common::built_in();
    let mut app = whole(&session);
    let draw = |app: &App| frame::render(app, 120, 40).unwrap();
    let reversed = |buffer: &Buffer, at: (u16, u16)| buffer[at].modifier.contains(Modifier::REVERSED);

    let buffer = draw(&app);
    has(&buffer, find(&buffer, "1 Overview"), LOOK.selected());
    has(&buffer, find(&buffer, "2 Groups"), LOOK.dim());
    has(&buffer, find(&buffer, "same class"), LOOK.good());
    // The selected row is reversed; its bar has its own colour, as in the other rows.
    let (x, y) = find(&buffer, &format!("{} ", app.site));
    let bar = (0..120).find(|&x| buffer[(x, y)].symbol() == "█").unwrap();
    assert!(reversed(&buffer, (x, y)) && !reversed(&buffer, (bar, y)) && !reversed(&buffer, (x, y + 1)));
    let fraction = app.site_report().unwrap().local.error.sqnr_db.unwrap() / 40.0;
    has(&buffer, (bar, y), Style::new().fg(LOOK.sequential(fraction)));

    app.view = view("groups");
    let buffer = draw(&app);
    let report = app.site_report().unwrap();
    let groups = report.quantizers.len();
    // The digits of at least two groups in the colours of their groups.
    let coloured = |group: usize| {
        let cells = (3..40).flat_map(|y| (0..120).map(move |x| (x, y)));
        let digit = group_digit(group).to_string();
        cells.into_iter().filter(|&at| buffer[at].symbol() == digit && Some(buffer[at].fg) == LOOK.group(group, groups).fg).count()
    };
    assert!((0..groups).filter(|&group| coloured(group) > 3).count() >= 2);
    assert!(LOOK.group(0, groups).fg != LOOK.group(1, groups).fg);

    app.view = view("attention");
    let buffer = draw(&app);
    let (x, y) = find(&buffer, "class: group");
    let here = app.attention_site().and_then(|site| app.snapshot.as_ref()?.report.site(site)).unwrap();
    let layout = app.attention().unwrap().layout;
    let token = layout.token_at(0, 0).unwrap();
    let group = usize::from(here.assignment[layout.softmax_row(app.attention().unwrap().heads, app.head, token)]);
    let level = group as f64 / (here.quantizers.len() - 1) as f64;
    has(&buffer, (x, y + 1), Style::new().bg(LOOK.sequential(level)));

    // A row of the comparison that flips is red, and says so in words.
    app.view = view("compare");
    let mut comparison = Comparison::clone(app.studies.comparison.as_ref().unwrap());
    (0..2).for_each(|row| comparison.rows[row].prediction.flipped = row == 1);
    app.studies.comparison = Some(Arc::new(comparison));
    let buffer = draw(&app);
    let (x, y) = find(&buffer, "FLIP");
    has(&buffer, (x, y), LOOK.bad());
    has(&buffer, (4, y), LOOK.bad());
    assert_ne!(buffer[(4, y - 1)].fg, buffer[(4, y)].fg);
    app.view = view("overview");
    for _ in 0..2 {
        request(&mut app, 'a').unwrap();
    }
    let buffer = draw(&app);
    has(&buffer, find(&buffer, "stale, computing"), LOOK.bad());
    // A picture whose class is lost at 2 bits.
    while !app.snapshot.as_ref().unwrap().report.prediction.flipped {
        let wanted = request(&mut app, 'n').unwrap();
        answer(&mut app, &session, &wanted);
    }
    let buffer = draw(&app);
    has(&buffer, find(&buffer, "FLIPPED"), LOOK.bad());
}
