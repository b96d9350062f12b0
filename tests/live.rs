//! The screen with the real engine behind it, without a terminal: budgets, comparisons, suggestions, undo and redo.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::screen::{LOOK, answer, click, filled, press, request, text, view};
use crossterm::event::{KeyCode, KeyEvent, KeyModifiers, MouseEvent, MouseEventKind};
use igq::engine::command::Estimate;
use igq::engine::worker::Reports;
use igq::engine::{Event, Study, Worker};
use igq::model::SiteKind;
use igq::quant::Settings;
use igq::session::{LoadedModel, Options};
use igq::tui::app::App;
use igq::tui::message::{Effect, Message};
use igq::tui::update::update;

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
        let opened = LoadedModel::new(&Options { calibration_images: 8, settings: settings.clone(), ..Options::default() }).unwrap();
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
    assert!(text(&live.app, 120, 40).contains("estimating the effect of every group count"));
    live.until(|app| app.budget.solved.is_some());
    assert!(live.app.studies.running.as_ref().is_none_or(Study::is_quiet));
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
        // Nothing but a run of the new counts.
        assert!(live.key(key).iter().all(|effect| matches!(effect, Effect::Study(Study::Trial { .. }))));
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
    assert!(text(&live.app, 120, 40).contains("counts applied"));
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
    assert_eq!(stopped[0], Effect::StopStudy);
    assert!(stopped[1..].iter().all(|effect| matches!(effect, Effect::Study(study) if study.is_quiet())), "{stopped:?}");
    assert!(live.app.studies.running.as_ref().is_none_or(Study::is_quiet) && live.app.view == view("budget"));
    assert!(text(&live.app, 120, 40).contains("measured and kept"));
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
        assert!(shown.contains(&format!("{} of {}", comparison.seen, comparison.total)) && shown.contains("Nothing is pinned"), "{shown}");
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
    assert!(live.app.view == view("compare") && live.app.studies.comparison.is_some());
}

#[test]
fn a_pinned_answer_stands_against_the_present_one() {
    let session = common::built_in();
    let mut app = filled(&session);
    press(&mut app, KeyCode::Char('P'));
    let wanted = request(&mut app, 'a').unwrap();
    answer(&mut app, &session, &wanted);
    app.view = view("compare");
    let (a, b) = (app.pinned.clone().unwrap(), app.snapshot.clone().unwrap());
    assert!(a.report.settings.abits.get() == 4 && b.report.settings.abits.get() == 3);
    for (width, height) in [(120, 40), (200, 60)] {
        let shown = text(&app, width, height);
        assert!(shown.contains("W4 A4 S4") && shown.contains("W4 A3 S4") && shown.contains("largest change"), "{shown}");
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
    assert_eq!((app.picture, app.view), (1, view("groups")));
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
    assert!(text(&live.app, 80, 24).contains("searching"));
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
    let mut live = Live::start();
    live.key('5');
    live.until(|app| app.budget.solved.is_some());
    live.press(KeyCode::Home);
    let shown = text(&live.app, 120, 40);
    let row = shown.lines().position(|l| l.contains("blocks.0.v ")).unwrap() as u16;
    click(&mut live.app, (120, 40), 5, row);
    assert_eq!(live.app.site.to_string(), "blocks.0.v");
    let kind = MouseEventKind::ScrollDown;
    live.tell(Message::Mouse(MouseEvent { kind, column: 5, row, modifiers: KeyModifiers::NONE }));
    assert_eq!(live.app.site.to_string(), "blocks.0.attn");
}
