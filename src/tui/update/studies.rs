//! Studies and the screen: which the view needs by itself, which the user asks for, and what their results do to the state.

use std::sync::Arc;

use crate::engine::Study;
use crate::engine::command::Estimate;
use crate::session::Snapshot;
use crate::studies::compare::Comparison;
use crate::studies::mixed::MixedReport;
use crate::studies::repair;
use crate::studies::suggest::Suggestion;
use crate::tui::app::{App, Notice};
use crate::tui::message::Effect;
use crate::tui::studies::{base, grid};

/// The study that the view needs and nobody has asked for.
pub fn ask(app: &mut App) -> Option<Effect> {
    let wanted = (app.view.spec().study)(app)?;
    let present = base(&app.settings);
    let studies = &mut app.studies;
    // What the user asked for goes first, as long as it still is about the present settings.
    let by_hand = match &studies.running {
        Some(Study::Suggest { .. } | Study::Mixed { .. }) => !studies.exact_next,
        Some(Study::Perturb { settings, estimate }) => *estimate != Estimate::Fisher && *settings == present,
        _ => false,
    };
    let known = studies.running.as_ref() == Some(&wanted) || studies.is_refused(&wanted);
    (!by_hand && !known).then(|| studies.start(wanted))
}

/// Settings or picture changed: a suggestion for the old ones is worth nothing any more.
pub fn outdate(app: &mut App) -> Option<Effect> {
    app.studies.suggestion = None;
    app.studies.exact_next = false;
    let looking = matches!(app.studies.running, Some(Study::Suggest { .. } | Study::Mixed { .. }));
    looking.then(|| {
        app.studies.end();
        Effect::StopStudy
    })
}

/// Asks for the exact sweep of the present settings.
pub fn exact(app: &mut App) -> Vec<Effect> {
    let settings = base(&app.settings);
    if !settings.method.uses_groups() {
        app.say(format!("{} has no group counts; m goes to the next method", settings.method));
        return Vec::new();
    }
    let all = app.studies.known(&settings, Estimate::Fisher).map(|p| p.table.sites.len());
    match (all, app.studies.known(&settings, Estimate::Alone).map(|p| p.table.sites.len())) {
        (Some(all), Some(measured)) if all == measured => {
            app.say("every site is measured already");
            Vec::new()
        }
        (Some(_), _) => vec![app.studies.start(Study::Perturb { settings, estimate: Estimate::Alone })],
        (None, _) => {
            app.studies.exact_next = true;
            Vec::new()
        }
    }
}

/// Asks what brings the prediction back.
pub fn suggest(app: &mut App) -> Vec<Effect> {
    let kept = |s: &Snapshot| !s.report.prediction.flipped && s.report.prediction.kl <= repair::TARGET;
    if app.snapshot.as_deref().is_some_and(kept) && !app.is_stale() {
        app.say(format!("the class is kept with a KL of at most {}: nothing needs to change", repair::TARGET));
        return Vec::new();
    }
    let study = Study::Suggest { settings: app.settings.clone(), picture: app.picture };
    vec![app.studies.start(study)]
}

/// Asks for bits and group counts of every site within the cost of the present bits everywhere.
pub fn mixed(app: &mut App) -> Vec<Effect> {
    if app.settings.abits.is_float() {
        app.say("activations are in float: a gives them bits, whose cost is the bound of mixed precision");
        return Vec::new();
    }
    vec![app.studies.start(Study::Mixed { settings: app.settings.clone() })]
}

/// Ends the study under way and says what stays.
pub fn stop(app: &mut App) -> Vec<Effect> {
    let progress = app.studies.progress.clone();
    let text = match app.studies.end() {
        Some(Study::Perturb { estimate: Estimate::Fisher, .. }) => "stopped estimating; reopen the view to start it again".to_string(),
        Some(Study::Perturb { settings, estimate }) => {
            let sites = |estimate| app.studies.known(&settings, estimate).map_or(0, |p| p.table.sites.len());
            format!("stopped: {} of {} sites measured and kept; X resumes", sites(estimate), sites(Estimate::Fisher))
        }
        Some(Study::Compare { .. }) if progress.total == 0 => "stopped comparing; reopen the view to start it again".to_string(),
        Some(Study::Compare { .. }) => format!("stopped after {} of {} pictures; the results so far stay", progress.done, progress.total),
        Some(Study::Suggest { .. }) => "stopped looking for a suggestion".to_string(),
        Some(Study::Mixed { .. }) => "stopped choosing bits".to_string(),
        Some(Study::Curve { .. }) => "stopped trying other numbers of groups".to_string(),
        Some(Study::Trial { .. }) => "stopped running these counts".to_string(),
        None => return Vec::new(),
    };
    app.say(text);
    vec![Effect::StopStudy]
}

/// A comparison, as far as it is.
pub fn compared(app: &mut App, found: Arc<Comparison>) {
    if found.settings != grid(&app.settings) || found.picture != app.picture {
        return;
    }
    if found.seen == found.total && matches!(app.studies.running, Some(Study::Compare { .. })) {
        app.studies.running = None;
    }
    app.studies.comparison = Some(found);
    app.clamp();
}

/// Mixed precision; one for other settings was ended when they changed.
pub fn mixed_found(app: &mut App, found: Arc<MixedReport>) {
    if app.studies.running != Some(Study::Mixed { settings: app.settings.clone() }) {
        return;
    }
    let present = found.mixed.iter().find(|one| one.uniform == app.settings.abits).map(|one| Arc::new(one.suggestion()));
    app.studies.mixed = Some((app.settings.clone(), found));
    match present {
        Some(present) => suggested(app, present),
        None => app.studies.running = None,
    }
}

/// A suggestion; one for other settings was ended when they changed.
pub fn suggested(app: &mut App, found: Arc<Suggestion>) {
    let asked = [Study::Suggest { settings: app.settings.clone(), picture: app.picture }, Study::Mixed { settings: app.settings.clone() }];
    if app.studies.running.as_ref().is_none_or(|running| !asked.contains(running)) {
        return;
    }
    app.studies.running = None;
    if found.reached && found.settings != app.settings {
        app.studies.suggestion = Some(found);
    } else {
        app.notice = Some(Notice { text: found.text.clone(), is_error: !found.reached });
    }
}
