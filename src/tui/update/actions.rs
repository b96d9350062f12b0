//! What the actions of keys, clicks and commands do to the state.

use crate::analysis::findings;
use crate::engine::command::Settings;
use crate::tui::app::App;
use crate::tui::choice::View;
use crate::tui::glossary;
use crate::tui::groups;
use crate::tui::history::History;
use crate::tui::hit::{Hit, Walk};
use crate::tui::keys::Action;
use crate::tui::message::Effect;
use crate::tui::objects;
use crate::tui::update::settings;
use crate::tui::update::studies;

/// How far PgUp and PgDn go.
const PAGE: isize = 10;

/// Selects what a click or the arrow keys landed on.
pub(super) fn select(app: &mut App, hit: Hit) {
    match hit {
        Hit::View(view) => show(app, view),
        Hit::Site(site) => {
            app.select(site);
        }
        Hit::Channel(channel) => app.channel = channel,
        Hit::Group(group) => show_only(app, group),
        Hit::Action(_) | Hit::Picture => {} // Clicks carry an action out.
        Hit::Token(token) => app.token = token,
        Hit::Head(head) => app.head = head,
        Hit::Object(object) => select_object(app, object),
        Hit::Row(row) => app.row = row,
        Hit::Term(term) => {
            let again = app.by.is_some_and(|(by, reversed)| by == term && !reversed);
            app.by = Some((term, again));
            app.say(glossary::line(term));
        }
        Hit::Sort(sort) => {
            let reversed = app.sort == sort && !app.sort_reversed;
            (app.sort, app.sort_reversed) = (sort, reversed);
            app.say(glossary::line(sort.column()));
        }
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

/// Carries out one action; those of lessons are carried out where they are.
pub(super) fn act(app: &mut App, action: Action) -> Vec<Effect> {
    let before = (app.settings.clone(), app.picture, app.compare);
    match action {
        Action::Quit => return vec![Effect::Quit],
        Action::Suspend => return vec![Effect::Suspend],
        Action::Export => return vec![Effect::Export],
        Action::Copy => return copy(app),
        Action::Help => (app.help, app.sought) = (Some(0), None),
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
        Action::SiteBits(_) | Action::SiteGroups(_) => settings::of_site(app, action),
        Action::Object(_) | Action::Threshold(_) | Action::Overlay | Action::CloseUp => of_objects(app, action),
        Action::Beside => app.beside = app.beside.next(),
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
        Action::Sort => {
            app.sort = app.sort.next();
            app.say(glossary::line(app.sort.column()));
        }
        Action::SortOrder => app.sort_reversed = !app.sort_reversed,
        Action::Worst => {
            let worst = app.snapshot.as_ref().map(|s| app.report_with_sweep(&s.report));
            if let Some(site) = worst.as_ref().and_then(findings::costliest) {
                app.filter.clear();
                app.select(site);
                if let Some(shown) = (app.view.spec().detail)(app).filter(|shown| *shown != site) {
                    app.say(format!("{site} costs the prediction most; shown is {shown}, the softmax of its block"));
                }
            }
        }
        Action::Filter => app.filtering = true,
        Action::ChannelOrder => app.by_group = !app.by_group,
        Action::OnlyGroup => match app.site_report().and_then(|r| groups::group_of(r, app.channel)) {
            Some(group) => show_only(app, group),
            None => app.say("this site is not quantized: it has no groups"),
        },
        Action::Zoom => app.zoomed = !app.zoomed,
        Action::Dense => app.dense = !app.dense,
        Action::Lesson(_) | Action::Chapter(_) => {}
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
    if before.0 == app.settings && app.notice.is_none() {
        at_a_limit(app, action);
    }
    settled(app, before, !matches!(action, Action::Undo | Action::Redo))
}

/// Selects an object, and its token in Attention.
fn select_object(app: &mut App, object: usize) {
    let Some(found) = objects::of(app) else { return };
    app.object = object.min(found.objects.len().saturating_sub(1));
    if let Some(token) = found.objects.get(app.object).and_then(|object| objects::token(app, object)) {
        app.token = token;
    }
}

/// What the keys of a detector's objects do.
fn of_objects(app: &mut App, action: Action) {
    let Some(found) = objects::of(app) else { return app.say("this model classifies: it has no objects") };
    match action {
        Action::Object(forward) => {
            let at = around(app.object, forward, found.objects.len());
            select_object(app, at);
        }
        Action::Threshold(up) => {
            app.threshold = objects::stepped(app.threshold, up);
            app.say(format!("objects from {:.2} on", app.threshold));
            select_object(app, app.object);
        }
        Action::Overlay => {
            app.overlay = app.overlay.next(objects::have_masks(&found));
            app.say(format!("over the picture: {}", app.overlay.title()));
        }
        Action::CloseUp => app.close_up = !app.close_up,
        _ => {}
    }
}

/// Says that a key had no effect because there is no more or no less.
fn at_a_limit(app: &mut App, action: Action) {
    let settings = &app.settings;
    let (what, now) = match action {
        Action::WeightBits(_) => ("weights", format!("{} bits", settings.wbits)),
        Action::ActivationBits(_) => ("activations", format!("{} bits", settings.abits)),
        Action::SoftmaxBits(_) => ("the softmax", format!("{} bits", settings.sbits)),
        Action::Groups(_) => ("channels", format!("{} groups", settings.groups)),
        Action::RowGroups(_) => ("softmax rows", format!("{} groups", settings.row_groups)),
        _ => return,
    };
    app.say(format!("{what}: {now} is the end of the scale"));
}

/// What a change asks for: a run, where what is wanted is another; the settings of before are a step of the history where it is `kept`.
pub(super) fn settled(app: &mut App, before: (Settings, usize, Option<usize>), kept: bool) -> Vec<Effect> {
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

/// Opens a view.
pub(super) fn show(app: &mut App, view: View) {
    app.view = view;
    app.studies.allow_again();
}

/// One step back: the filter, the study, the second picture, the view.
fn back(app: &mut App) -> Vec<Effect> {
    if !app.filter.is_empty() {
        app.filter.clear();
    } else if app.studies.running.as_ref().is_some_and(|study| !study.is_quiet()) {
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

pub(super) fn pin(app: &mut App) {
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
