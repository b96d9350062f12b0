//! Moves through the lessons: a step brings about what it speaks of, in commands of the palette.

use super::palette;
use crate::tui::app::App;
use crate::tui::facts;
use crate::tui::facts::{filled, shown};
use crate::tui::lessons::{Chapter, Guess, Place, Shown};
use crate::tui::message::Effect;

/// The lessons are opened: where one was, else at their start.
pub fn open(app: &mut App) -> Vec<Effect> {
    if app.lesson.is_some() {
        return Vec::new();
    }
    go(app, Place::start(0))
}

/// Opens the screen at the lessons; the request for what they begin with is the caller's.
pub fn start(app: &mut App) {
    if let Ok(view) = "learn".parse() {
        app.view = view;
        open(app);
    }
}

/// One step on or back.
pub fn step(app: &mut App, forward: bool) -> Vec<Effect> {
    let Some(place) = app.lesson.clone() else { return open(app) };
    let places = app.lessons.get(place.chapter).map_or(0, Chapter::places);
    match (forward, place.at) {
        (true, at) if at + 1 < places => go(app, Place { at: at + 1, ..place }),
        (true, _) => chapter(app, true),
        (false, 0) if place.chapter == 0 => {
            app.say("this is the first step");
            Vec::new()
        }
        (false, 0) => {
            let before = place.chapter - 1;
            let last = app.lessons.get(before).map_or(0, |c| c.places().saturating_sub(1));
            replay(app, Place { at: last, ..Place::start(before) })
        }
        (false, at) => replay(app, Place { at: at - 1, before: None, ..place }),
    }
}

/// The next or previous chapter.
pub fn chapter(app: &mut App, forward: bool) -> Vec<Effect> {
    let now = app.lesson.as_ref().map_or(0, |place| place.chapter);
    let to = if forward { now + 1 } else { now.saturating_sub(1) };
    if to >= app.lessons.len() {
        app.say("this is the end of the last chapter; < goes back, 1 to 8 open the views");
        return Vec::new();
    }
    go(app, Place::start(to))
}

/// The next or previous guess; whether there is a question to guess at.
pub fn guess(app: &mut App, forward: bool) -> bool {
    if !matches!(shown(app), Some(Shown::Question(_))) {
        return false;
    }
    if let Some(place) = &mut app.lesson {
        let at = Guess::ALL.iter().position(|g| *g == place.guess).unwrap_or(0);
        place.guess = Guess::ALL[(at + if forward { 1 } else { 2 }) % 3];
    }
    true
}

/// Goes to a place and does what it says.
fn go(app: &mut App, place: Place) -> Vec<Effect> {
    app.lesson = Some(place);
    let commands = match shown(app) {
        Some(Shown::Step(step)) => step.commands.clone(),
        Some(Shown::Answer(question)) => {
            let (before, commands) = (facts::watched(app, &question.watch), question.commands.clone());
            if let Some(place) = &mut app.lesson {
                place.before = before;
            }
            commands
        }
        Some(Shown::Question(_)) | None => Vec::new(),
    };
    carry_out(app, &commands)
}

/// Goes to a place by way of all steps of its chapter before it, so that it is as it was.
fn replay(app: &mut App, place: Place) -> Vec<Effect> {
    let chapter = app.lessons.get(place.chapter).cloned();
    let steps = chapter.iter().flat_map(|c| c.step.iter().take(place.at + 1)).flat_map(|step| step.commands.clone());
    let mut commands: Vec<String> = steps.collect();
    app.lesson = Some(place);
    if let Some(Shown::Answer(question)) = shown(app) {
        // The number before the change is not known any more; the change is shown as it is.
        commands.extend(question.commands.clone());
    }
    carry_out(app, &commands)
}

fn carry_out(app: &mut App, commands: &[String]) -> Vec<Effect> {
    let mut effects = Vec::new();
    for command in commands {
        let line = filled(app, command);
        match palette::run(app, &line) {
            Ok(more) => effects.extend(more),
            Err(problem) => app.complain(format!("{line}: {problem}")),
        }
    }
    effects
}
