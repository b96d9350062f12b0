//! State and message to new state and effects. Pure: no terminal, no clock, no engine.

mod answers;
pub mod palette;
mod settings;
mod studies;

use std::path::PathBuf;

use crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers, MouseEvent, MouseEventKind};
use percent_encoding::percent_decode_str;

use super::app::App;
use super::choice::View;
use super::groups;
use super::history::History;
use super::hit::{Hit, Walk};
use super::keymap;
use super::keys::Action;
use super::message::{Effect, Message};
use super::view::wanted_detail;
use crate::analysis::findings;
use crate::engine::command::Settings;

pub use self::studies::compared;

/// How far PgUp and PgDn go.
const PAGE: isize = 10;

/// What `message` does to the screen, and what it asks for.
pub fn update(app: &mut App, message: Message) -> Vec<Effect> {
    update_all(app, vec![message])
}

/// The same for messages that came together: what takes a moment is done once for all.
pub fn update_all(app: &mut App, messages: Vec<Message>) -> Vec<Effect> {
    let mut effects = Vec::new();
    for message in messages {
        let before = (app.settings.clone(), app.picture);
        effects.extend(on_message(app, message));
        if before != (app.settings.clone(), app.picture) {
            effects.extend(studies::outdate(app));
        }
    }
    app.budget.settle();
    app.budget.renew(&app.settings, &app.studies);
    effects.extend(studies::ask(app));
    if let Some(wanted) = wanted_detail(app) {
        app.asked_detail = Some(wanted);
        effects.push(Effect::Detail(wanted));
    }
    effects
}

fn on_message(app: &mut App, message: Message) -> Vec<Effect> {
    match message {
        Message::Key(key) if key.kind != KeyEventKind::Release => on_key(app, &key),
        Message::Mouse(event) => on_mouse(app, event),
        Message::Key(_) => Vec::new(),
        Message::Paste(text) => paste(app, &text),
        Message::Resize(width, height) => {
            app.size = (width, height);
            Vec::new()
        }
        Message::Engine(event) => answers::on_event(app, event),
        Message::Progress(progress) => {
            app.progress = progress;
            Vec::new()
        }
        Message::Study(progress, elapsed) => {
            app.studies.learn_progress(progress, elapsed);
            Vec::new()
        }
    }
}

fn on_mouse(app: &mut App, event: MouseEvent) -> Vec<Effect> {
    let forward = matches!(event.kind, MouseEventKind::ScrollDown);
    match event.kind {
        MouseEventKind::ScrollDown | MouseEventKind::ScrollUp => match &mut app.help {
            Some(scroll) => *scroll = if forward { scroll.saturating_add(1) } else { scroll.saturating_sub(1) },
            None => {
                let over = app.hits.at(event.column, event.row);
                let along = matches!(over, Some(Hit::Channel(_))) && app.view.spec().cursor.is_some();
                return act(app, if along { Action::Cursor(forward) } else { Action::Site(forward) });
            }
        },
        MouseEventKind::Down(_) => match app.hits.at(event.column, event.row) {
            Some(Hit::Action(action)) => return act(app, action),
            Some(hit) => select(app, hit),
            None => {}
        },
        _ => {}
    }
    Vec::new()
}

/// Selects what a click or the arrow keys landed on.
fn select(app: &mut App, hit: Hit) {
    match hit {
        Hit::View(view) => show(app, view),
        Hit::Site(site) => {
            app.select(site);
        }
        Hit::Channel(channel) => app.channel = channel,
        Hit::Group(group) => show_only(app, group),
        Hit::Action(_) => {} // Clicks carry it out.
        Hit::Token(token) => app.token = token,
        Hit::Row(row) => app.row = row,
        Hit::Sort(sort) => (app.sort, app.sort_reversed) = (sort, app.sort == sort && !app.sort_reversed),
    }
    app.clamp();
}

/// Goes `by` stops along a walk.
fn go(app: &mut App, walk: fn(&App) -> Walk, by: isize) {
    if let Some(hit) = walk(app).moved(by) {
        select(app, hit);
    }
}

/// What PgUp, PgDn, Home and End walk over.
fn long_walk(app: &App) -> fn(&App) -> Walk {
    let spec = app.view.spec();
    spec.cursor.unwrap_or(spec.rows)
}

fn on_key(app: &mut App, key: &KeyEvent) -> Vec<Effect> {
    app.notice = None;
    if app.palette.is_some() && !matches!(keymap::action(key, app.view), Some(Action::Suspend)) && key.modifiers != KeyModifiers::CONTROL {
        return palette::typed(app, key);
    }
    let action = keymap::action(key, app.view);
    if matches!(action, Some(Action::Quit | Action::Suspend)) && !(app.filtering && key.code == KeyCode::Char('q')) {
        return act(app, action.unwrap_or(Action::Quit));
    }
    if app.filtering {
        type_filter(app, key);
        return Vec::new();
    }
    if let Some(scroll) = app.help {
        match action {
            Some(Action::Site(true)) => app.help = Some(scroll.saturating_add(1)),
            Some(Action::Site(false)) => app.help = Some(scroll.saturating_sub(1)),
            Some(Action::Page(true)) => app.help = Some(scroll.saturating_add(10)),
            Some(Action::Page(false)) => app.help = Some(scroll.saturating_sub(10)),
            _ => app.help = None,
        }
        return Vec::new();
    }
    action.map_or_else(Vec::new, |action| act(app, action))
}

fn type_filter(app: &mut App, key: &KeyEvent) {
    match key.code {
        KeyCode::Esc => {
            app.filter.clear();
            app.filtering = false;
        }
        KeyCode::Enter => app.filtering = false,
        KeyCode::Backspace => {
            app.filter.pop();
        }
        KeyCode::Char(c) => app.filter.push(c),
        _ => {}
    }
    let visible = app.visible_sites();
    if !visible.contains(&app.site)
        && let Some(first) = visible.first()
    {
        app.select(*first);
    }
}

/// Most characters of a filter that was pasted.
const PASTED: usize = 200;
/// Most characters of paths that are pasted.
const PATHS: usize = 100_000;

/// Text that was pasted: typed where text is typed, else the paths of pictures, quoted as terminals quote what is dropped on them.
fn paste(app: &mut App, text: &str) -> Vec<Effect> {
    if let Some(line) = &mut app.palette {
        line.extend(text.trim().chars().filter(|c| !c.is_control()).take(PASTED));
        return Vec::new();
    }
    if app.filtering {
        // Names of sites are short: what is longer was not meant for here.
        app.filter.extend(text.trim().chars().filter(|c| !c.is_control()).take(PASTED));
        app.filter = app.filter.chars().take(PASTED).collect();
        type_filter(app, &KeyEvent::from(KeyCode::Null));
        return Vec::new();
    }
    if text.len() > PATHS {
        app.say("too much was pasted: expected paths of images");
        return Vec::new();
    }
    let paths = shlex::split(text.trim()).unwrap_or_else(|| vec![text.trim().into()]);
    let path = |path: String| match path.strip_prefix("file://") {
        Some(address) => PathBuf::from(percent_decode_str(address).decode_utf8_lossy().as_ref()),
        None => PathBuf::from(path),
    };
    vec![Effect::Open(paths.into_iter().map(path).collect())]
}

/// Carries out one action.
fn act(app: &mut App, action: Action) -> Vec<Effect> {
    let before = (app.settings.clone(), app.picture, app.compare);
    match action {
        Action::Quit => return vec![Effect::Quit],
        Action::Suspend => return vec![Effect::Suspend],
        Action::Export => return vec![Effect::Export],
        Action::Copy => return copy(app),
        Action::Help => app.help = Some(0),
        Action::Back => return back(app),
        Action::Show(view) => show(app, view),
        Action::NextView => show(app, app.view.step(true)),
        Action::PreviousView => show(app, app.view.step(false)),
        Action::WeightBits(up) => app.settings.wbits = app.settings.wbits.step(up),
        Action::ActivationBits(up) => app.settings.abits = app.settings.abits.step(up),
        Action::SoftmaxBits(up) => app.settings.sbits = app.settings.sbits.step(up),
        Action::Arithmetic => app.settings.arithmetic = app.settings.arithmetic.next(),
        Action::Rounding => app.settings.weights = app.settings.weights.next(),
        Action::WeightScales => app.settings.weight_scales = app.settings.weight_scales.next(),
        Action::Preset => {
            app.settings.preset = app.settings.preset.next();
            app.say(app.settings.preset.describe());
        }
        Action::SoftmaxShape => app.settings.softmax = app.settings.softmax.next(),
        Action::Groups(up) => {
            settings::share_counts(app);
            app.settings.groups = app.settings.groups.step(up);
        }
        Action::RowGroups(up) => {
            settings::share_counts(app);
            app.settings.row_groups = app.settings.row_groups.step(up);
        }
        Action::Undo => travel(app, History::undo, "nothing to undo"),
        Action::Redo => travel(app, History::redo, "nothing to redo"),
        Action::Method(forward) => app.settings.method = app.settings.method.step(forward),
        Action::KeepFloat => app.settings.toggle_float(app.site),
        Action::Kind => app.settings.toggle_kind(app.site.kind),
        Action::Reset => app.settings = app.initial.clone(),
        Action::Picture(forward) => app.picture = around(app.picture, forward, app.info.picture_count),
        Action::Compare => toggle_compare(app),
        Action::ComparePicture(forward) => {
            let from = app.compare.unwrap_or(app.picture);
            app.compare = Some(around(from, forward, app.info.picture_count));
        }
        Action::Site(forward) => go(app, app.view.spec().rows, if forward { 1 } else { -1 }),
        Action::Cursor(forward) => {
            if let Some(walk) = app.view.spec().cursor {
                go(app, walk, if forward { 1 } else { -1 });
            }
        }
        Action::Page(forward) => go(app, long_walk(app), if forward { PAGE } else { -PAGE }),
        Action::First => go(app, long_walk(app), isize::MIN / 2),
        Action::Last => go(app, long_walk(app), isize::MAX / 2),
        Action::Sort => app.sort = app.sort.next(),
        Action::SortOrder => app.sort_reversed = !app.sort_reversed,
        Action::Worst => {
            let worst = app.snapshot.as_ref().map(|s| app.report_with_sweep(&s.report));
            if let Some(site) = worst.as_ref().and_then(findings::costliest) {
                app.filter.clear();
                app.select(site);
            }
        }
        Action::Filter => app.filtering = true,
        Action::ChannelOrder => app.by_group = !app.by_group,
        Action::OnlyGroup => match app.site_report().and_then(|r| groups::group_of(r, app.channel)) {
            Some(group) => show_only(app, group),
            None => app.say("this site is not quantized: it has no groups"),
        },
        Action::Zoom => app.zoomed = !app.zoomed,
        Action::Scope => app.scope = app.scope.next(),
        Action::Scale => app.logarithmic = !app.logarithmic,
        Action::Head(forward) => {
            app.head = around(app.head, forward, app.attention().map_or(1, |m| m.heads));
        }
        Action::Map => app.map = app.map.next(),
        Action::BudgetStep(more) => app.budget.step(more),
        Action::Exact => return studies::exact(app),
        Action::AllPictures => app.studies.all_for = Some(crate::tui::studies::grid(&app.settings)),
        Action::Apply => settings::apply_counts(app),
        Action::TakeRow => settings::take_row(app),
        Action::Pin => pin(app),
        Action::Suggest => return studies::suggest(app),
        Action::Mixed => return studies::mixed(app),
        Action::TakeSuggestion if app.studies.suggestion.is_none() => return act(app, Action::CopyCommand),
        Action::TakeSuggestion => settings::take_suggestion(app),
        Action::CopyCommand => {
            let command = app.command();
            app.say(format!("copied: {command}"));
            return vec![Effect::Copy(command)];
        }
        Action::Palette => app.palette = Some(String::new()),
        Action::Theme => app.look = app.look.next_theme(),
    }
    settled(app, before, !matches!(action, Action::Undo | Action::Redo))
}

/// What a change asks for: a run, where what is wanted is another; the settings of before are a step of the history where it is `kept`.
fn settled(app: &mut App, before: (Settings, usize, Option<usize>), kept: bool) -> Vec<Effect> {
    app.clamp();
    if before.0 != app.settings && kept {
        app.history.changed(before.0.clone());
    }
    if before == (app.settings.clone(), app.picture, app.compare) { Vec::new() } else { vec![Effect::Request(app.request())] }
}

/// One step of the history.
fn travel(app: &mut App, step: fn(&mut History, &Settings) -> Option<Settings>, at_end: &str) {
    match step(&mut app.history, &app.settings) {
        Some(settings) => app.settings = settings,
        None => app.say(at_end),
    }
}

/// Shows the members of one group only, or all again.
fn show_only(app: &mut App, group: usize) {
    app.only_group = if app.only_group == Some(group) { None } else { Some(group) };
    let order = app.channel_order();
    if !order.contains(&app.channel) {
        app.channel = order.first().copied().unwrap_or(0);
    }
}

fn show(app: &mut App, view: View) {
    app.view = view;
    app.studies.allow_again();
}

/// One step back: the filter, the study, the second picture, the view.
fn back(app: &mut App) -> Vec<Effect> {
    if !app.filter.is_empty() {
        app.filter.clear();
    } else if app.studies.running.is_some() {
        return studies::stop(app);
    } else if app.studies.suggestion.is_some() {
        app.studies.suggestion = None;
    } else if app.compare.is_some() {
        app.compare = None;
        return vec![Effect::Request(app.request())];
    } else {
        app.view = View::default();
    }
    Vec::new()
}

fn pin(app: &mut App) {
    if let Some(snapshot) = app.snapshot.clone() {
        app.say(format!("pinned as A: {}; the Compare view shows it beside later results", snapshot.report.settings.describe()));
        app.pinned_detail = app.detail.clone().filter(|detail| detail.id == snapshot.id);
        app.pinned = Some(snapshot);
    }
}

/// The next picture, then the pinned answer where there is one, then nothing.
fn toggle_compare(app: &mut App) {
    if app.against_pinned {
        app.against_pinned = false;
        return;
    }
    if app.pinned.is_some() && (app.compare.is_some() || app.info.picture_count < 2) {
        (app.compare, app.against_pinned) = (None, true);
        return;
    }
    app.compare = match app.compare {
        Some(_) => None,
        None if app.info.picture_count < 2 => {
            app.complain("there is only one picture; open a folder with --image to compare");
            None
        }
        None => Some(around(app.picture, true, app.info.picture_count)),
    };
}

fn copy(app: &mut App) -> Vec<Effect> {
    let Some(text) = app.site_report().and_then(|site| serde_json::to_string_pretty(site).ok()) else { return Vec::new() };
    app.say(format!("copied the numbers of {}", app.site));
    vec![Effect::Copy(text)]
}

fn around(at: usize, forward: bool, length: usize) -> usize {
    let length = length.max(1);
    (at + if forward { 1 } else { length - 1 }) % length
}
