//! Screens without a terminal: keys change the state and ask for runs, every view is drawn at every size.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::sync::Arc;

use common::screen::{LOOK, answer, click, detail, filled, press, request, text, view};
use crossterm::event::{KeyCode, KeyModifiers, MouseEvent, MouseEventKind};
use igq::engine::Event;
use igq::model::{Site, SiteKind};
use igq::quant::Settings;
use igq::session::{Options, Session, Snapshot};
use igq::tui::app::App;
use igq::tui::choice::{Beside, Sort, View};
use igq::tui::frame;
use igq::tui::hit::Hit;
use igq::tui::message::{Effect, Message};
use igq::tui::theme::{Depth, Look, Theme};
use igq::tui::update::{start_lessons, update};
use ratatui::layout::Rect;

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
    let effects = update(&mut app, Message::Engine(Event::Failed(wanted.id, "1.png: is damaged".into())));
    assert_eq!(app.picture, 0);
    // The failed request has ended the sweep of what is shown: it is asked for again.
    let [Effect::Request(again)] = effects.as_slice() else { panic!("{effects:?}") };
    assert_eq!((again.picture, &again.settings), (0, &app.settings));
    answer(&mut app, &session, again);
    assert!(!app.is_stale() && text(&app, 80, 24).contains("1.png: is damaged"));
    // Nothing is asked for twice when what is shown fails itself.
    assert!(update(&mut app, Message::Engine(Event::Failed(again.id, "gone".into()))).is_empty());
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
    assert!(app.help.is_none() && app.compare.is_none() && app.view == view("overview"));
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
    for view in View::all() {
        app.view = view;
        for help in [None, Some(0), Some(500)] {
            app.help = help;
            let small = (1..=30).flat_map(|width| (1..=10).map(move |height| (width, height)));
            for (width, height) in small.chain((1..70).map(|n| (n, n))).chain((1..250).step_by(7).map(|w| (w, 16))).chain([
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

/// The ways in which single views can be drawn: all heads, the picture, half columns, large type; with all glyphs and with ASCII only.
#[test]
fn no_size_panics_in_any_way_of_a_view_and_ascii_is_ascii() {
    let session = common::built_in();
    let mut app = filled(&session);
    app.dense = true;
    app.present = true;
    let sizes: Vec<(u16, u16)> = (1..90).map(|n| (n, n)).chain((50..250).step_by(9).flat_map(|w| [(w, 16), (w, 24), (w, 60)])).collect();
    for ascii in [false, true] {
        app.look.ascii = ascii;
        for beside in [Beside::Groups, Beside::Heads, Beside::Picture] {
            app.beside = beside;
            for view in View::all() {
                app.view = view;
                if view.name() == "learn" {
                    start_lessons(&mut app);
                }
                for &(width, height) in &sizes {
                    let shown = text(&app, width, height);
                    assert!(!ascii || shown.is_ascii(), "{} at {width}x{height}: {shown}", view.name());
                }
            }
        }
    }
}

#[test]
fn every_site_is_drawn_in_every_view_and_theme() {
    let session = common::built_in();
    let mut app = filled(&session);
    for theme in [Theme::DARK, Theme::LIGHT, Theme::CONTRAST, Theme::COLORBLIND, Theme::MONO] {
        for depth in [Depth::Sixteen, Depth::Indexed, Depth::True] {
            app.look = Look { theme, own: &[], ascii: false, depth };
            for view in View::all() {
                app.view = view;
                for site in app.info.sites.clone() {
                    assert!(app.select(site));
                    let buffer = frame::render(&app, 80, 24).unwrap();
                    if theme == Theme::MONO {
                        let colourless =
                            |c: &ratatui::buffer::Cell| c.fg == ratatui::style::Color::Reset && c.bg == ratatui::style::Color::Reset;
                        assert!(buffer.content.iter().all(colourless), "mono shows a colour in {}", view.name());
                    }
                }
            }
        }
    }
}

#[test]
fn a_click_selects_what_is_under_it() {
    let session = common::built_in();
    let mut app = filled(&session);
    let size = (120, 40);
    // The first cell of some text on the screen.
    let place = |app: &App, what: &str| {
        let shown = text(app, size.0, size.1);
        let row = shown.lines().position(|l| l.contains(what)).unwrap_or_else(|| panic!("no {what:?}:\n{shown}"));
        let column = shown.lines().nth(row).and_then(|l| l.find(what).map(|at| l[..at].chars().count())).unwrap();
        (column as u16, row as u16)
    };
    let click_on = |app: &mut App, what: &str| {
        let (column, row) = place(app, what);
        click(app, size, column, row)
    };
    click_on(&mut app, "blocks.0.v ");
    assert_eq!(app.site.to_string(), "blocks.0.v");
    // The title of a column sorts by it, and once more reverses the order.
    for reversed in [false, true] {
        click_on(&mut app, "cum dB");
        assert_eq!((app.sort, app.sort_reversed), (Sort::Cumulative, reversed));
        let shown = text(&app, size.0, size.1);
        assert!(shown.contains(if reversed { "cum dB↓" } else { "cum dB↑" }), "{shown}");
    }
    click_on(&mut app, "alone KL");
    assert_eq!((app.sort, app.sort_reversed), (Sort::Alone, false));
    // While the help is open nothing beneath it can be clicked, and the wheel scrolls it.
    press(&mut app, KeyCode::Char('?'));
    assert!(frame::draw(&app, 120, 40).1.iter().next().is_none());
    let wheel = MouseEvent { kind: MouseEventKind::ScrollDown, column: 5, row: 5, modifiers: KeyModifiers::NONE };
    update(&mut app, Message::Mouse(wheel));
    assert_eq!((app.help, app.site.to_string()), (Some(1), "blocks.0.v".into()));
    press(&mut app, KeyCode::Esc);
    click_on(&mut app, "2 Groups");
    assert_eq!(app.view, view("groups"));
    // A bar is a channel; a quantizer leads to its first channel.
    let bars = frame::draw(&app, 120, 40).1.iter().filter(|(area, hit)| matches!(hit, Hit::Channel(_)) && area.width == 1).count();
    assert!(bars > 20);
    let (area, hit) = frame::draw(&app, 120, 40).1.iter().filter(|(area, _)| area.width == 1).nth(17).unwrap();
    click(&mut app, size, area.x, area.y + 3);
    assert_eq!(Hit::Channel(app.channel), hit);
    let group = app.site_report().unwrap().assignment.iter().copied().max().unwrap();
    let (column, row) = place(&app, &format!("│{group} "));
    click(&mut app, size, column + 4, row);
    assert_eq!(app.site_report().unwrap().assignment[app.channel], group);
    press(&mut app, KeyCode::Char('3'));
    let tokens: Vec<(Rect, Hit)> = frame::draw(&app, 120, 40).1.iter().filter(|(_, hit)| matches!(hit, Hit::Token(_))).collect();
    assert_eq!(tokens.len(), 2 * 196_usize.min(app.info.tokens.grid.0 * app.info.tokens.grid.1));
    let (area, hit) = tokens[tokens.len() - 1];
    click(&mut app, size, area.x, area.y);
    assert_eq!(Hit::Token(app.token), hit);
}

#[test]
fn columns_stand_in_one_place_whatever_the_names_are() {
    let session = common::built_in();
    let mut app = filled(&session);
    let names = ["靴子和一只猫和狗和一棵很高的树木在山上", "👩‍👩‍👧 family of three", "e\u{301}te\u{301}", "boot", "🇩🇪"];
    let mut snapshot = Snapshot::clone(app.snapshot.as_ref().unwrap());
    for list in [&mut snapshot.report.prediction.float, &mut snapshot.report.prediction.quantized] {
        list.iter_mut().zip(names).for_each(|(class, name)| (class.label, class.probability) = (name.into(), 1.0));
    }
    snapshot.report.picture.name = "一张非常长的照片的名字一张非常长的照片的名字.png".into();
    app.predicted = None;
    app.snapshot = Some(Arc::new(snapshot));
    app.pinned.clone_from(&app.snapshot);
    for (width, height) in [(60, 20), (80, 24), (110, 30), (200, 60)] {
        app.view = view("overview");
        let buffer = frame::render(&app, width, height).unwrap();
        let ends = |y: u16| -> Vec<u16> { (0..width).filter(|&x| buffer[(x, y)].symbol() == "%").collect() };
        let first = (0..height).find(|&y| ends(y).len() == 2).unwrap();
        let rows: Vec<Vec<u16>> = (first..first + 5).map(ends).collect();
        assert!(rows.iter().all(|row| row == &rows[0]), "{width}x{height}: {rows:?}\n{}", frame::to_text(&buffer));
        let shown = frame::to_text(&buffer);
        assert_eq!(shown.matches("100.0 %").count(), 10, "{shown}");
        assert!(width < 110 || shown.contains("靴子和") && !shown.contains("靴 子"), "no blank behind a wide character:\n{shown}");
        // Every line ends where the panels end.
        let frames: Vec<usize> = shown.lines().filter(|l| l.starts_with('│')).map(unicode_width::UnicodeWidthStr::width).collect();
        assert!(frames.iter().all(|w| *w == usize::from(width)), "{frames:?}\n{shown}");
        app.view = view("compare");
        let shown = text(&app, width, height);
        assert!(width < 110 || shown.matches("100.0 %").count() == 10, "{shown}");
    }
}

#[test]
fn a_pasted_path_opens_a_picture_and_a_wrong_one_changes_nothing() {
    let session = common::built_in();
    let mut app = filled(&session);
    let before = (app.info.picture_count, app.picture);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("my cat's shoe.png");
    image::GrayImage::from_fn(28, 28, |x, y| image::Luma([(9 * x + y) as u8])).save(&path).unwrap();
    // As terminals quote a file that is dropped on them.
    let quoted = path.to_str().unwrap().replace(' ', "\\ ").replace('\'', "\\'");
    for text in [quoted.clone(), format!("file://{quoted} "), path.to_str().unwrap().replace(' ', "%20").replace('\'', "%27")] {
        let text = if text.contains("%20") { format!("file://{text}\n") } else { text };
        assert_eq!(update(&mut app, Message::Paste(text.clone())), [Effect::Open(vec![path.clone()])], "{text}");
    }
    let (first, count) = session.open_pictures(&[path]).unwrap();
    assert_eq!((first, count), (before.0, before.0 + 1));
    let effects = update(&mut app, Message::Engine(Event::Pictures(first, count)));
    let [Effect::Request(wanted)] = effects.as_slice() else { panic!("{effects:?}") };
    answer(&mut app, &session, wanted);
    assert!(app.snapshot.as_ref().unwrap().report.picture.name.contains("cat's shoe"));
    assert!(text(&app, 120, 40).contains(&format!("{count} of {count}")));
    // The first picture of the set comes after the last, also when the last was opened later.
    assert_eq!(request(&mut app, 'n').unwrap().picture, 0);
    for wrong in ["/no/such/picture.png", "tests/golden/timm_vit/config.json", "standard input"] {
        let path = if wrong == "standard input" { "-" } else { wrong };
        let error = session.open_pictures(&[path.into()]).unwrap_err().to_string();
        assert!(error.contains(wrong), "{error}");
        // What opening has ended goes on.
        let effects = update(&mut app, Message::Engine(Event::PicturesFailed(error.clone())));
        assert!(matches!(effects.as_slice(), [Effect::Request(again)] if again.picture == app.picture), "{effects:?}");
        assert!(text(&app, 200, 40).contains(wrong), "{error}");
    }
    assert_eq!(app.info.picture_count, count);
    // While a filter is typed, text that is pasted is typed.
    press(&mut app, KeyCode::Char('/'));
    assert!(update(&mut app, Message::Paste("fc2\n".into())).is_empty());
    assert_eq!(app.filter, "fc2");
}

#[test]
fn attention_within_windows_is_drawn_where_the_window_lies() {
    let model = common::golden("timm_swin").to_str().unwrap().to_string();
    let session = Session::open(&Options { model, calibration_images: 4, ..Options::default() }, &|_| ()).unwrap();
    let mut app = App::new(session.opened().info(), Settings::default(), LOOK);
    let first = app.request();
    let outcome = answer(&mut app, &session, &first);
    app.view = view("attention");
    // Windows of 4x4 on a grid of 16x16; in every second block they are shifted by 2, and come back at the other side.
    for (block, token, rows, columns) in [(0, (5, 9), [4, 5, 6, 7], [8, 9, 10, 11]), (1, (5, 9), [2, 3, 4, 5], [6, 7, 8, 9])] {
        let site = Site::in_block(block, SiteKind::Attn).in_stage(0);
        assert!(app.select(site));
        detail(&mut app, &session, &outcome);
        let map = app.attention().unwrap().clone();
        app.token = map.layout.token_at(token.0, token.1).unwrap();
        // Every query's probabilities sum to 1, whatever window and head it is in.
        assert!(map.float.chunks_exact(16).all(|row| (row.iter().sum::<f32>() - 1.0).abs() < 1e-5));
        let frame = frame::render(&app, 120, 60).unwrap();
        let text = frame::to_text(&frame);
        assert!(text.contains("row of 5,9") && !text.contains("needs 16x16"), "{text}");
        let coloured = |x: u16, y: u16| matches!(frame[(x, y)].bg, ratatui::style::Color::Rgb(..)) || (frame[(x, y)].symbol() == "[");
        let cells: Vec<(u16, u16)> = (60..120).flat_map(|x| (4..30).map(move |y| (x, y))).filter(|&(x, y)| coloured(x, y)).collect();
        let (left, top) = (61, 4); // Inside of the right panel, below the line of the class token.
        let mut seen: Vec<(u16, u16)> = cells.iter().map(|&(x, y)| ((y - top), (x - left) / 2)).collect();
        seen.dedup();
        seen.sort_unstable();
        seen.dedup();
        let expected: Vec<(u16, u16)> = rows.iter().flat_map(|&row| columns.iter().map(move |&column| (row, column))).collect();
        assert_eq!(seen, expected, "block {block}\n{text}");
    }
    // The cursor walks over the picture, not from window to window.
    app.token = 0;
    app.select(Site::in_block(0, SiteKind::Attn).in_stage(0));
    detail(&mut app, &session, &outcome);
    for (key, place) in [('l', (0, 1)), ('l', (0, 2)), ('h', (0, 1))] {
        app.select(Site::in_block(0, SiteKind::Attn).in_stage(0));
        press(&mut app, KeyCode::Char(key));
        assert_eq!(app.attention().unwrap().layout.place(app.token), Some(place));
    }
}

#[test]
fn padding_of_windows_is_counted_and_named_and_comes_last() {
    let model = common::golden("timm_swin_padded").to_str().unwrap().to_string();
    let session = Session::open(&Options { model, calibration_images: 4, ..Options::default() }, &|_| ()).unwrap();
    let mut app = App::new(session.opened().info(), Settings::default(), LOOK);
    let first = app.request();
    let outcome = answer(&mut app, &session, &first);
    app.view = view("attention");
    // A grid of 13x22 in windows of 4x4: 98 tokens of padding.
    assert!(app.select(Site::in_block(1, SiteKind::Attn).in_stage(0)));
    detail(&mut app, &session, &outcome);
    let layout = app.attention().unwrap().layout;
    let text = |app: &App, width, height| frame::to_text(&frame::render(app, width, height).unwrap());
    // What timm shifts before it pads has come to the last windows: two patches of them see 14 tokens of padding.
    app.token = layout.token_at(1, 1).unwrap();
    for (width, height) in [(80, 24), (120, 40)] {
        let text = text(&app, width, height);
        assert!(text.contains("row of 1,1 ") && text.contains("98 tokens of padding") && text.contains("pad 46"), "{text}");
        assert!(!text.contains("class 0:") && !text.contains("padding 1:"), "{text}");
    }
    app.token = layout.token_at(12, 21).unwrap();
    press(&mut app, KeyCode::Char('l'));
    assert_eq!((layout.place(app.token), layout.order_of(app.token)), (None, 0), "padding is behind the last patch");
    let text = text(&app, 120, 40);
    assert!(text.contains("row of padding 0") && text.contains("padding 0: group") && text.contains("(98 tokens of padding)"), "{text}");
}
