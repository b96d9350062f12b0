//! What an answer of the engine does to the state.

use super::actions::pin;
use super::studies;
use crate::engine::{Event, Study};
use crate::studies::curve::Curve;
use crate::tui::app::App;
use crate::tui::message::Effect;

/// Takes a fact; what it asks for in turn.
pub(super) fn on_event(app: &mut App, event: Event) -> Vec<Effect> {
    let mut effects = take(app, event);
    effects.extend(resumed(app));
    effects
}

/// Pins the run that a session pinned, once all of it is there, and goes on to the session's own.
fn resumed(app: &mut App) -> Option<Effect> {
    let id = app.snapshot.as_ref().filter(|_| !app.is_stale())?.id;
    let detailed = (app.view.spec().detail)(app).is_none() || app.detail.as_ref().is_some_and(|detail| detail.id == id);
    let (settings, picture, compare) = app.resume.take_if(|_| detailed)?;
    pin(app);
    app.notice = None;
    (app.settings, app.picture, app.compare) = (settings, picture, compare);
    Some(Effect::Request(app.request()))
}

fn take(app: &mut App, event: Event) -> Vec<Effect> {
    match event {
        Event::Pictures(first, count) => {
            (app.info.picture_count, app.picture) = (count, first);
            app.opened.append(&mut app.opening);
            app.say(match count - first {
                1 => "opened one more picture".to_string(),
                more => format!("opened {more} more pictures"),
            });
            return vec![Effect::Request(app.request())];
        }
        Event::PicturesFailed(text) => {
            app.opening.clear();
            app.complain(text);
            // The run and its sweep, which opening ended, go on.
            return vec![Effect::Request(app.request())];
        }
        Event::Predicted(predicted) => {
            if app.predicted.as_ref().is_none_or(|shown| shown.id <= predicted.id) {
                app.predicted = Some(predicted);
            }
        }
        Event::Detail(detail) => {
            if app.snapshot.as_ref().is_some_and(|shown| shown.id == detail.id) {
                app.detail = Some(detail);
                app.clamp();
            }
        }
        Event::Snapshot(snapshot) => {
            if app.snapshot.as_ref().is_none_or(|shown| shown.id <= snapshot.id) {
                app.history.answered(snapshot.id);
                app.show(snapshot);
            }
        }
        Event::Lens(id, points) => app.lens_of = Some((id, points)),
        Event::Timed(id, report) => {
            if app.snapshot.as_ref().is_some_and(|shown| shown.id == id) {
                app.say(report.describe());
            }
        }
        Event::Sensitivity(id, found) => {
            if app.snapshot.as_ref().is_some_and(|shown| shown.id == id) {
                app.learn_sensitivity(&found);
            }
        }
        Event::Blamed(id, blame) => {
            if app.snapshot.as_ref().is_some_and(|shown| shown.id == id) {
                app.learn_blame(blame);
            }
        }
        Event::Failed(id, text) => {
            if id == app.wanted {
                // What is on the screen stays, and so do the settings that belong to it.
                let failed = (app.settings.clone(), app.picture);
                if let Some(shown) = app.snapshot.clone() {
                    app.settings = shown.report.settings.clone();
                    app.picture = shown.picture;
                    app.compare = shown.compare.as_ref().map(|c| c.picture);
                    app.wanted = shown.id;
                    app.history.failed(shown.id);
                    let all = shown.report.sites.iter().filter(|s| s.groups > 0 || s.weight.is_some()).count();
                    if app.sensitivity.len() < all && failed != (app.settings.clone(), app.picture) {
                        // The failed request has ended the sweep of what is shown.
                        app.complain(text);
                        return vec![Effect::Request(app.request())];
                    }
                }
                if app.snapshot.is_none() {
                    app.failure = Some(text.clone());
                }
                app.complain(text);
            }
        }
        Event::StudyFailed(text) => {
            app.studies.end();
            app.complain(text);
        }
        Event::Perturbed(found) => app.studies.learn(found),
        Event::Compared(found) => studies::compared(app, found),
        Event::Suggested(found) => studies::suggested(app, found),
        Event::Curve(found) => {
            let Curve { settings, picture, site, .. } = &*found;
            let asked = Study::Curve { settings: settings.clone(), picture: *picture, site: *site };
            if app.studies.running.as_ref() == Some(&asked) {
                app.studies.running = None;
            }
            app.studies.curve = Some(found);
        }
        Event::Tried(settings, picture, kl) => {
            if app.studies.running == Some(Study::Trial { settings: (*settings).clone(), picture }) {
                app.studies.running = None;
            }
            app.studies.tried = Some((*settings, picture, kl));
        }
        Event::Mixed(found) => studies::mixed_found(app, found),
        Event::Broken(text) => app.broken = Some(text),
    }
    Vec::new()
}
