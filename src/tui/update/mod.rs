//! State and message to new state and effects. Pure: no terminal, no clock, no engine.

mod actions;
mod answers;
mod lesson;
pub mod palette;
mod settings;
mod studies;

use std::path::PathBuf;

use crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers, MouseEvent, MouseEventKind};
use percent_encoding::percent_decode_str;

use super::app::App;
use super::hit::Hit;
use super::keymap;
use super::keys::Action;
use super::message::{Effect, Message};
use super::view::wanted_detail;

pub use self::lesson::start as start_lessons;
pub use self::studies::compared;

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
    // The site that a view shows in detail is the one that is selected: in Attention the softmax of the block.
    if let Some(site) = (app.view.spec().detail)(app) {
        app.select(site);
    }
    if app.view.name() == "learn" && app.lesson.is_none() {
        effects.extend(lesson::open(app));
    }
    let opened = effects.iter().filter_map(|effect| if let Effect::Open(paths) = effect { Some(paths.clone()) } else { None });
    app.opening.extend(opened.flatten());
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
        MouseEventKind::ScrollDown | MouseEventKind::ScrollUp => {
            if let Some(scroll) = &mut app.help {
                *scroll = if forward { scroll.saturating_add(1) } else { scroll.saturating_sub(1) };
                return Vec::new();
            }
            let over = app.hits.at(event.column, event.row);
            let along = matches!(over, Some(Hit::Channel(_))) && app.view.spec().cursor.is_some();
            return act(app, if along { Action::Cursor(forward) } else { Action::Site(forward) });
        }
        MouseEventKind::Moved => {
            app.hover = match app.hits.at(event.column, event.row) {
                Some(Hit::Term(term)) => Some(term),
                Some(Hit::Sort(sort)) => Some(sort.column()),
                _ => None,
            };
        }
        MouseEventKind::Down(_) => match app.hits.at(event.column, event.row) {
            Some(Hit::Action(action)) => return act(app, action),
            Some(hit) => actions::select(app, hit),
            None => {}
        },
        _ => {}
    }
    Vec::new()
}

fn on_key(app: &mut App, key: &KeyEvent) -> Vec<Effect> {
    app.notice = None;
    app.hover = None; // Where the mouse lies another view may be by now.
    if app.palette.is_some()
        && !matches!(keymap::action(key, app.view), Some(Action::Suspend))
        && !key.modifiers.contains(KeyModifiers::CONTROL)
    {
        return palette::typed(app, key);
    }
    if app.help.is_some() && typed_search(app, key) {
        return Vec::new();
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
    let owners = keymap::belongs_to(key, app.view);
    if !owners.is_empty() {
        let names: Vec<String> = owners.iter().map(|view| format!("{} ({})", view.title(), view.spec().key)).collect();
        app.say(format!("this key belongs to {}", names.join(" and ")));
    }
    action.map_or_else(Vec::new, |action| act(app, action))
}

/// A key while the help is open: whether it belongs to the search.
fn typed_search(app: &mut App, key: &KeyEvent) -> bool {
    let control = key.modifiers.contains(KeyModifiers::CONTROL);
    match (&mut app.sought, key.code) {
        (_, KeyCode::Char(_)) if control => return false,
        (Some((text, typing @ true)), code) => match code {
            KeyCode::Esc => app.sought = None,
            KeyCode::Enter => *typing = false,
            KeyCode::Backspace => drop(text.pop()),
            KeyCode::Char(c) if text.len() < PASTED => text.push(c),
            _ => return false,
        },
        (_, KeyCode::Char('/')) => app.sought = Some((String::new(), true)),
        _ => return false,
    }
    app.help = Some(0);
    true
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
        let room = palette::LONGEST.saturating_sub(line.len());
        line.extend(text.trim().chars().filter(|c| !c.is_control()).take(room));
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
    match action {
        Action::Lesson(forward) => lesson::step(app, forward),
        Action::Chapter(forward) => lesson::chapter(app, forward),
        Action::Cursor(forward) if app.view.name() == "learn" && lesson::guess(app, forward) => Vec::new(),
        action => actions::act(app, action),
    }
}
