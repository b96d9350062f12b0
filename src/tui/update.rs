//! State and message to new state and effects. Pure: no terminal, no clock, no engine.

use std::path::PathBuf;

use crossterm::event::{KeyCode, KeyEvent, KeyEventKind, MouseEventKind};

use percent_encoding::percent_decode_str;

use super::app::{App, Notice, View};
use super::history::History;
use super::keymap::{self, Action};
use super::message::{Effect, Message};
use super::{answers, studies};
use crate::analysis::findings;
use crate::engine::command::Settings;
use crate::model::Site;

/// How far PgUp and PgDn go.
const PAGE: usize = 10;

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
    effects.extend(app.wanted_detail().map(Effect::Detail));
    effects
}

fn on_message(app: &mut App, message: Message) -> Vec<Effect> {
    match message {
        Message::Key(key) if key.kind != KeyEventKind::Release => on_key(app, &key),
        Message::Mouse(event) => match event.kind {
            MouseEventKind::ScrollDown => act(app, Action::Site(true)),
            MouseEventKind::ScrollUp => act(app, Action::Site(false)),
            MouseEventKind::Down(_) => {
                if let Some(hit) = super::view::hit(app, event.column, event.row) {
                    return click(app, hit);
                }
                Vec::new()
            }
            _ => Vec::new(),
        },
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

/// Something that a click can land on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hit {
    /// The name of a view.
    View(View),
    /// A line of the table of sites.
    Site(Site),
    /// A channel's bar.
    Channel(usize),
    /// A token of the attention map.
    Token(usize),
    /// A row of the comparison.
    Row(usize),
}

fn click(app: &mut App, hit: Hit) -> Vec<Effect> {
    match hit {
        Hit::View(view) => return act(app, Action::Show(view)),
        Hit::Site(site) => {
            app.select(site);
        }
        Hit::Channel(channel) => app.channel = channel,
        Hit::Token(token) => app.token = token,
        Hit::Row(row) => app.row = row,
    }
    app.clamp();
    Vec::new()
}

fn on_key(app: &mut App, key: &KeyEvent) -> Vec<Effect> {
    app.notice = None;
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

/// Text that was pasted: typed where text is typed, else the paths of pictures, quoted as terminals quote what is dropped on them.
fn paste(app: &mut App, text: &str) -> Vec<Effect> {
    if app.filtering {
        text.trim().chars().for_each(|c| type_filter(app, &KeyEvent::from(KeyCode::Char(c))));
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
        Action::SoftmaxShape => app.settings.softmax = app.settings.softmax.next(),
        Action::Groups(up) => {
            share_counts(app);
            app.settings.groups = app.settings.groups.step(up);
        }
        Action::RowGroups(up) => {
            share_counts(app);
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
        Action::Site(forward) => move_site(app, if forward { 1 } else { -1 }),
        Action::Cursor(forward) => move_cursor(app, if forward { 1 } else { -1 }),
        Action::Page(forward) => {
            let by = if forward { PAGE as isize } else { -(PAGE as isize) };
            if has_cursor(app.view) { move_cursor(app, by) } else { move_site(app, by) }
        }
        Action::First => to_end(app, isize::MIN / 2),
        Action::Last => to_end(app, isize::MAX / 2),
        Action::Sort => app.sort = app.sort.next(),
        Action::SortOrder => app.sort_reversed = !app.sort_reversed,
        Action::Worst => {
            let worst = app.snapshot.as_ref().and_then(|s| findings::worst(&s.report.sites)).map(|s| s.site);
            if let Some(site) = worst {
                app.filter.clear();
                app.select(site);
            }
        }
        Action::Filter => app.filtering = true,
        Action::ChannelOrder => app.by_group = !app.by_group,
        Action::Scale => app.logarithmic = !app.logarithmic,
        Action::Head(forward) => {
            app.head = around(app.head, forward, app.attention().map_or(1, |m| m.heads));
        }
        Action::Map => app.map = app.map.next(),
        Action::BudgetStep(more) => app.budget.step(more),
        Action::Exact => return studies::exact(app),
        Action::Apply => apply_counts(app),
        Action::TakeRow => take_row(app),
        Action::Pin => pin(app),
        Action::Suggest => return studies::suggest(app),
        Action::TakeSuggestion => take_suggestion(app),
        Action::Theme => app.look = app.look.next_theme(),
    }
    app.clamp();
    if before.0 != app.settings && !matches!(action, Action::Undo | Action::Redo) {
        app.history.changed(before.0.clone());
    }
    if before == (app.settings.clone(), app.picture, app.compare) { Vec::new() } else { vec![Effect::Request(app.request())] }
}

/// One step of the history.
fn travel(app: &mut App, step: fn(&mut History, &Settings) -> Option<Settings>, at_end: &str) {
    match step(&mut app.history, &app.settings) {
        Some(settings) => app.settings = settings,
        None => say(app, at_end),
    }
}

/// Counts of single sites would hide a change of the count that all share.
fn share_counts(app: &mut App) {
    let shared = app.settings.with_counts([]);
    if shared != app.settings {
        app.settings = shared;
        say(app, "all sites share one count again; u takes it back");
    }
}

fn show(app: &mut App, view: View) {
    app.view = view;
    app.studies.allow_again();
}

pub(super) fn say(app: &mut App, text: impl Into<String>) {
    app.notice = Some(Notice { text: text.into(), is_error: false });
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
        app.view = View::Overview;
    }
    Vec::new()
}

fn apply_counts(app: &mut App) {
    app.budget.settle();
    match &app.budget.solved {
        Some(solved) if solved.base == studies::base(&app.settings) => {
            app.settings = solved.apply(&app.settings);
            say(app, "applied the counts of the budget; u takes them back");
        }
        _ => say(app, "there are no counts for these settings yet"),
    }
}

fn take_row(app: &mut App) {
    let row = app.studies.comparison.as_ref().and_then(|c| c.rows.get(app.row));
    let Some(row) = row.map(|r| r.settings.clone()) else { return say(app, "no row is there yet") };
    let Settings { method, wbits, abits, sbits, .. } = row;
    app.settings = Settings { method, wbits, abits, sbits, ..app.settings.clone() };
}

fn pin(app: &mut App) {
    if let Some(snapshot) = app.snapshot.clone() {
        say(app, format!("pinned as A: {}; 6 compares it with what comes", snapshot.report.settings.describe()));
        app.pinned = Some(snapshot);
    }
}

fn take_suggestion(app: &mut App) {
    match app.studies.suggestion.take() {
        Some(found) => {
            app.settings = found.settings.clone();
            say(app, "applied the suggestion; u takes it back");
        }
        None => say(app, "there is no suggestion; F looks for one"),
    }
}

fn toggle_compare(app: &mut App) {
    app.compare = match app.compare {
        Some(_) => None,
        None if app.info.picture_count < 2 => {
            app.notice = Some(Notice { text: "there is only one picture; open a folder with --image to compare".into(), is_error: true });
            None
        }
        None => Some(around(app.picture, true, app.info.picture_count)),
    };
}

fn copy(app: &mut App) -> Vec<Effect> {
    let Some(text) = app.site_report().and_then(|site| serde_json::to_string_pretty(site).ok()) else { return Vec::new() };
    say(app, format!("copied the numbers of {}", app.site));
    vec![Effect::Copy(text)]
}

fn move_site(app: &mut App, by: isize) {
    if app.view == View::Compare {
        let rows = app.studies.comparison.as_ref().map_or(0, |c| c.rows.len());
        app.row = shifted(app.row, by, rows);
        return;
    }
    let sites = app.listed_sites();
    let current = if app.view == View::Attention { app.attention_site() } else { Some(app.site) };
    let at = sites.iter().position(|s| Some(*s) == current);
    if let Some(site) = at.and_then(|at| sites.get(shifted(at, by, sites.len()))).or(sites.first()) {
        app.select(*site);
    }
}

fn move_cursor(app: &mut App, by: isize) {
    match app.view {
        View::Overview | View::Budget | View::Compare => {}
        View::Groups => {
            let order = app.channel_order();
            if let Some(at) = order.iter().position(|&c| c == app.channel) {
                app.channel = order[shifted(at, by, order.len())];
            }
        }
        View::Attention => {
            if let Some(layout) = app.attention().map(|m| m.layout) {
                app.token = layout.token_in_order(shifted(layout.order_of(app.token), by, layout.tokens()));
            }
        }
    }
}

const fn has_cursor(view: View) -> bool {
    matches!(view, View::Groups | View::Attention)
}

fn to_end(app: &mut App, by: isize) {
    if has_cursor(app.view) { move_cursor(app, by) } else { move_site(app, by) }
}

fn shifted(at: usize, by: isize, length: usize) -> usize {
    at.saturating_add_signed(by).min(length.saturating_sub(1))
}

fn around(at: usize, forward: bool, length: usize) -> usize {
    let length = length.max(1);
    (at + if forward { 1 } else { length - 1 }) % length
}
