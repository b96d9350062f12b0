//! Screens without a terminal: keys change the state and ask for runs, every view is drawn at every size.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::sync::Arc;

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use igq::engine::command::Estimate;
use igq::engine::worker::Reports;
use igq::engine::{Event, Opened, Options, Request, Session, Study, Worker};
use igq::model::SiteKind;
use igq::model::tap::Cancel;
use igq::quant::Settings;
use igq::tui::app::{App, View};
use igq::tui::frame;
use igq::tui::message::{Effect, Message};
use igq::tui::theme::{Depth, Look, ThemeName};
use igq::tui::update::update;

const LOOK: Look = Look { theme: ThemeName::Dark, ascii: false, depth: Depth::True };

fn app(session: &Session) -> App {
    App::new(session.opened().info(), Settings::default(), LOOK)
}

fn press(app: &mut App, code: KeyCode) -> Vec<Effect> {
    update(app, Message::Key(KeyEvent::new(code, KeyModifiers::NONE)))
}

/// The request that a key asks for.
fn request(app: &mut App, key: char) -> Option<Request> {
    press(app, KeyCode::Char(key)).into_iter().find_map(|effect| if let Effect::Request(request) = effect { Some(request) } else { None })
}

fn answer(app: &mut App, session: &Session, request: &Request) {
    let cancel = Cancel::default();
    let mut snapshot = session.run(request.picture, &request.settings, &cancel).unwrap().snapshot(request.id, request.picture);
    if let Some(second) = request.compare {
        let compared = session.run(second, &request.settings, &cancel).unwrap();
        snapshot.compare = Some(Box::new(compared.snapshot(request.id, second)));
    }
    update(app, Message::Engine(Event::Snapshot(Arc::new(snapshot))));
}

fn filled(session: &Session) -> App {
    let mut app = app(session);
    let first = app.request();
    answer(&mut app, session, &first);
    app
}

fn text(app: &App, width: u16, height: u16) -> String {
    frame::to_text(&frame::render(app, width, height).unwrap())
}

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

/// The screen with the real engine behind it, without a terminal.
struct Live {
    app: App,
    worker: Worker,
    reports: Reports,
}

impl Live {
    fn start() -> Self {
        Self::start_with(Settings::default())
    }

    fn start_with(settings: Settings) -> Self {
        let opened = Opened::new(&Options { calibration_images: 8, settings: settings.clone(), ..Options::default() }).unwrap();
        let app = App::new(opened.info(), settings, LOOK);
        let (worker, reports) = Worker::spawn(opened).unwrap();
        let mut live = Self { app, worker, reports };
        let first = live.app.request();
        live.worker.request(first);
        live.until(|app| app.snapshot.is_some());
        live
    }

    fn tell(&mut self, message: Message) -> Vec<Effect> {
        let effects = update(&mut self.app, message);
        for effect in &effects {
            match effect {
                Effect::Request(request) => self.worker.request(request.clone()),
                Effect::Study(study) => self.worker.study(study.clone()),
                Effect::StopStudy => self.worker.stop_study(),
                _ => {}
            }
        }
        effects
    }

    fn press(&mut self, code: KeyCode) -> Vec<Effect> {
        self.tell(Message::Key(KeyEvent::new(code, KeyModifiers::NONE)))
    }

    fn key(&mut self, key: char) -> Vec<Effect> {
        self.press(KeyCode::Char(key))
    }

    fn until(&mut self, holds: impl Fn(&App) -> bool) {
        while !holds(&self.app) {
            let event = self.reports.events.blocking_recv().unwrap();
            self.tell(Message::Engine(event));
        }
    }

    fn solved(&self) -> &igq::tui::budget::Solved {
        self.app.budget.solved.as_ref().unwrap()
    }
}

fn every_size(app: &App) {
    for (width, height) in
        (1..70).map(|n| (n, n)).chain((1..250).step_by(7).map(|w| (w, 16))).chain([(1, 200), (300, 1), (80, 24), (120, 40), (200, 60)])
    {
        let shown = text(app, width, height);
        assert!(width < 50 || height < 16 || shown.contains("? help  q quit"), "{width}x{height}");
    }
}

#[test]
fn the_budget_asks_for_itself_solves_live_and_applies_as_one_step() {
    let mut live = Live::start();
    let asked = live.key('5');
    assert!(matches!(asked.as_slice(), [Effect::Study(Study::Perturb { estimate: Estimate::Fisher, .. })]), "{asked:?}");
    assert!(text(&live.app, 120, 40).contains("estimating what every group count does"));
    live.until(|app| app.budget.solved.is_some());
    assert!(live.app.studies.running.is_none());
    let counts = |live: &Live| live.solved().allocation.counts().map(|(_, g)| g.get()).collect::<Vec<_>>();
    let mut last = (live.solved().allocation.predicted, counts(&live));
    let uniform = live.solved().table.uniform(igq::quant::GroupCount::new(8).unwrap()).unwrap();
    assert!(last.0 <= uniform.predicted && live.solved().allocation.bops <= uniform.bops);
    // The frontier needs no solver, and agrees with it.
    for point in live.solved().frontier.iter().rev().step_by(60) {
        let best = live.solved().table.solve(point.0).unwrap();
        assert!((best.predicted - point.1).abs() < 1e-6, "{point:?}, {}", best.predicted);
    }
    // Less room: never cheaper than allowed, never better, and the counts move.
    for key in ['b', 'b', 'b'] {
        assert!(live.key(key).is_empty());
        let solved = live.solved();
        assert!(solved.allocation.bops <= solved.bound);
        let now = (solved.allocation.predicted, counts(&live));
        assert!(now.0 >= last.0 && now.1 != last.1, "{now:?}");
        last = now;
    }
    for _ in 0..100 {
        if live.solved().bound > live.solved().table.span().0 {
            live.key('b');
        }
    }
    let floor = live.solved().bound;
    live.key('b');
    assert_eq!((live.solved().bound, live.solved().table.span().0), (floor, floor));
    live.key('B');
    assert!(live.solved().bound > floor, "one step up is felt at once");
    live.press(KeyCode::Home);
    for (width, height) in [(80, 24), (120, 40), (200, 60)] {
        let shown = text(&live.app, width, height);
        assert!(shown.contains("blocks.0.qkv") && shown.contains("allowed") && shown.contains("u8"), "{shown}");
    }
    every_size(&live.app);
    let before = live.app.settings.clone();
    let asked = live.press(KeyCode::Enter);
    assert!(asked.iter().any(|e| matches!(e, Effect::Request(_))) && !asked.iter().any(|e| matches!(e, Effect::Study(_))), "{asked:?}");
    let id = live.app.wanted;
    live.until(|app| app.snapshot.as_ref().is_some_and(|s| s.id == id));
    let snapshot = live.app.snapshot.clone().unwrap();
    assert_eq!(snapshot.report.bops.total, live.solved().allocation.bops, "the run costs what was predicted");
    for share in &live.solved().allocation.sites {
        assert_eq!(snapshot.report.site(share.site).unwrap().groups, share.groups.get());
    }
    assert!(text(&live.app, 120, 40).contains("these counts are in force"));
    live.key('u');
    assert_eq!(live.app.settings, before);
}

#[test]
fn escape_stops_the_exact_sweep_and_keeps_what_was_measured() {
    // Few sites, because measuring takes its time.
    let mut live = Live::start_with(Settings { kinds: [SiteKind::Attn, SiteKind::V].into(), ..Settings::default() });
    live.key('5');
    // Too early: it follows the estimate by itself.
    live.key('X');
    live.until(|app| matches!(app.studies.running, Some(Study::Perturb { estimate: Estimate::Alone, .. })));
    live.until(|app| app.budget.solved.as_ref().is_some_and(|s| !s.exact.is_empty()) || app.studies.running.is_none());
    let measured = live.solved().exact.len();
    let stopped = live.press(KeyCode::Esc);
    assert_eq!(stopped, [Effect::StopStudy]);
    assert!(live.app.studies.running.is_none() && live.app.view == View::Budget);
    assert!(text(&live.app, 120, 40).contains("measured and stay"));
    let (exact, all) = (live.solved().exact.len(), live.solved().allocation.sites.len());
    assert!(exact >= measured && all == live.solved().table.sites.len() && live.solved().allocation.bops <= live.solved().bound);
    let shown = text(&live.app, 120, 40);
    assert!(exact == all || shown.contains(&format!("{exact} of {all} sites measured")), "{shown}");
    assert!(exact < 3 || shown.contains("Spearman"), "{shown}");
    // X goes on where it stopped.
    live.key('X');
    live.until(|app| app.studies.running.is_none());
    assert_eq!(live.solved().exact.len(), all);
    assert!(text(&live.app, 120, 40).contains("all sites measured"));
}

#[test]
fn a_method_without_counts_says_so_and_asks_for_nothing() {
    let mut live = Live::start();
    while live.app.settings.method.uses_groups() {
        live.key('m');
    }
    let asked = live.key('5');
    assert!(asked.is_empty(), "{asked:?}");
    assert!(text(&live.app, 80, 24).contains("has no group counts"));
    every_size(&live.app);
}

#[test]
fn the_comparison_fills_its_rows_and_a_row_can_be_taken_over() {
    let mut live = Live::start();
    let asked = live.key('6');
    assert!(matches!(asked.as_slice(), [Effect::Study(Study::Compare { picture: 0, .. })]), "{asked:?}");
    every_size(&live.app);
    live.until(|app| app.studies.comparison.as_ref().is_some_and(|c| c.seen > 0));
    let comparison = live.app.studies.comparison.clone().unwrap();
    for (width, height) in [(80, 24), (120, 40), (200, 60)] {
        let shown = text(&live.app, width, height);
        assert!(shown.contains(&format!("{} of {}", comparison.seen, comparison.total)) && shown.contains("P pins"), "{shown}");
    }
    let before = live.app.settings.clone();
    live.press(KeyCode::End);
    assert!(live.app.row + 1 == comparison.rows.len());
    live.press(KeyCode::Up);
    let asked = live.press(KeyCode::Enter);
    let row = &comparison.rows[comparison.rows.len() - 2];
    assert_eq!((live.app.settings.method, live.app.settings.abits), (row.settings.method, row.settings.abits));
    assert!(asked.iter().all(|e| !matches!(e, Effect::Study(_))), "methods and bits are in the rows: {asked:?}");
    live.key('u');
    assert_eq!(live.app.settings, before);
    // Other settings are another comparison; Esc ends it and leaves the view open.
    assert!(live.key(']').iter().any(|e| matches!(e, Effect::Study(Study::Compare { .. }))));
    assert!(text(&live.app, 120, 40).contains("stale, computing"));
    assert_eq!(live.press(KeyCode::Esc), [Effect::StopStudy]);
    assert!(live.app.view == View::Compare && live.app.studies.comparison.is_some());
}

#[test]
fn a_pinned_answer_stands_against_the_present_one() {
    let session = common::built_in();
    let mut app = filled(&session);
    press(&mut app, KeyCode::Char('P'));
    let wanted = request(&mut app, 'a').unwrap();
    answer(&mut app, &session, &wanted);
    app.view = View::Compare;
    let (a, b) = (app.pinned.clone().unwrap(), app.snapshot.clone().unwrap());
    assert!(a.report.settings.abits.get() == 4 && b.report.settings.abits.get() == 3);
    for (width, height) in [(120, 40), (200, 60)] {
        let shown = text(&app, width, height);
        assert!(shown.contains("W4 A4 S4") && shown.contains("W4 A3 S4") && shown.contains("changed most"), "{shown}");
        assert!(shown.contains(&b.report.prediction.quantized[0].label), "{shown}");
    }
    every_size(&app);
}

#[test]
fn undo_and_redo_walk_over_settings_and_over_nothing_else() {
    let session = common::built_in();
    let mut app = filled(&session);
    let start = app.settings.clone();
    let mut seen = vec![start.clone()];
    for key in ['a', 'n', 'w', '2', ']', 'd', 'f', 'm'] {
        press(&mut app, KeyCode::Char(key));
        if *seen.last().unwrap() != app.settings {
            seen.push(app.settings.clone());
        }
    }
    assert_eq!((seen.len(), app.picture, app.history.len()), (7, 1, (6, 0)));
    for settings in seen.iter().rev().skip(1) {
        assert_eq!(request(&mut app, 'u').unwrap().settings, *settings);
    }
    assert!(request(&mut app, 'u').is_none() && text(&app, 80, 24).contains("nothing to undo"));
    assert_eq!((app.picture, app.view), (1, View::Groups));
    for settings in &seen[1..] {
        assert_eq!(request(&mut app, 'U').unwrap().settings, *settings);
    }
    let redo = KeyEvent::new(KeyCode::Char('r'), KeyModifiers::CONTROL);
    assert!(update(&mut app, Message::Key(redo)).is_empty(), "nothing to redo");
    // A change after an undo ends what could be redone.
    press(&mut app, KeyCode::Char('u'));
    press(&mut app, KeyCode::Char('s'));
    assert_eq!(app.history.len().1, 0);
}

#[test]
fn a_failed_request_leaves_no_step() {
    let session = common::built_in();
    let mut app = filled(&session);
    let good = request(&mut app, 'a').unwrap();
    answer(&mut app, &session, &good);
    for key in ['w', 'w'] {
        press(&mut app, KeyCode::Char(key));
    }
    let failed = app.wanted;
    update(&mut app, Message::Engine(Event::Failed(failed, "no".into())));
    assert_eq!((app.settings.clone(), app.history.len()), (good.settings, (1, 0)));
    // A failed undo is no step back either.
    press(&mut app, KeyCode::Char('u'));
    let failed = app.wanted;
    update(&mut app, Message::Engine(Event::Failed(failed, "no".into())));
    assert_eq!(app.history.len(), (1, 0));
}

#[test]
fn a_suggestion_is_verified_shown_and_applied_as_one_step() {
    let mut live = Live::start();
    for _ in 0..2 {
        live.key('a');
    }
    // A picture whose prediction is lost at 2 bits.
    let settled = |live: &mut Live| {
        let id = live.app.wanted;
        live.until(|app| app.snapshot.as_ref().is_some_and(|s| s.id == id));
    };
    settled(&mut live);
    while !live.app.snapshot.as_ref().unwrap().report.prediction.flipped {
        live.key('n');
        settled(&mut live);
    }
    let before = live.app.settings.clone();
    assert!(matches!(live.key('F').as_slice(), [Effect::Study(Study::Suggest { .. })]));
    assert!(text(&live.app, 80, 24).contains("looking for what to keep in float"));
    live.until(|app| app.studies.running.is_none());
    let found = live.app.studies.suggestion.clone().expect("float everywhere brings it back, so something does");
    assert!(text(&live.app, 80, 24).contains("Y applies: "));
    assert!(live.key('Y').iter().any(|e| matches!(e, Effect::Request(_))));
    assert_eq!(live.app.settings, found.settings);
    settled(&mut live);
    assert!(!live.app.snapshot.as_ref().unwrap().report.prediction.flipped);
    live.key('u');
    assert_eq!(live.app.settings, before);
    assert!(live.app.studies.suggestion.is_none(), "it was for other settings");
}

#[test]
fn a_click_in_the_budget_selects_the_site() {
    use crossterm::event::{MouseButton, MouseEvent, MouseEventKind};
    let mut live = Live::start();
    live.key('5');
    live.until(|app| app.budget.solved.is_some());
    live.tell(Message::Resize(120, 40));
    live.press(KeyCode::Home);
    let shown = text(&live.app, 120, 40);
    let row = shown.lines().position(|l| l.contains("blocks.0.v ")).unwrap() as u16;
    let mouse = |kind| Message::Mouse(MouseEvent { kind, column: 5, row, modifiers: KeyModifiers::NONE });
    live.tell(mouse(MouseEventKind::Down(MouseButton::Left)));
    assert_eq!(live.app.site.to_string(), "blocks.0.v");
    live.tell(mouse(MouseEventKind::ScrollDown));
    assert_eq!(live.app.site.to_string(), "blocks.0.attn");
}
