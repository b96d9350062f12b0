//! Studies as the screen sees them: which is under way and how far, what has come of them, and which a view needs by itself.

use std::sync::Arc;
use std::time::Duration;

use super::app::{App, Notice, View};
use super::message::Effect;
use crate::engine::Study;
use crate::engine::command::{Estimate, Settings};
use crate::progress::Progress;
use crate::studies::allocate::Perturbed;
use crate::studies::compare::Comparison;
use crate::studies::perturbation::without_counts;
use crate::studies::suggest::Suggestion;

/// Perturbations that are kept for settings that a person comes back to.
const KEPT: usize = 16;

/// The study under way and what was found.
#[derive(Debug, Clone, Default)]
pub struct Studies {
    /// The study under way.
    pub running: Option<Study>,
    /// How far it is.
    pub progress: Progress,
    /// How long it will take at the pace so far.
    pub left: Option<Duration>,
    /// Parts and time when the first progress was told: what was known before costs no time.
    began: Option<(usize, Duration)>,
    /// Stopped by a person or failed: a view does not ask for it again by itself.
    refused: Option<Study>,
    /// The exact sweep is wanted as soon as the fast estimate is there.
    pub exact_next: bool,
    /// Perturbations of the present and of earlier settings.
    known: Vec<Arc<Perturbed>>,
    /// The newest comparison.
    pub comparison: Option<Arc<Comparison>>,
    /// The newest suggestion, while its settings and picture are the present ones.
    pub suggestion: Option<Arc<Suggestion>>,
}

/// The settings that perturbations belong to: counts are what is looked for, so they are the same for all counts.
#[must_use]
pub fn base(settings: &Settings) -> Settings {
    without_counts(settings, Estimate::Fisher)
}

/// The settings that a comparison belongs to: its rows have methods and bits of their own.
#[must_use]
pub fn grid(settings: &Settings) -> Settings {
    let Settings { method, wbits, abits, sbits, .. } = Settings::default();
    Settings { method, wbits, abits, sbits, ..settings.clone() }
}

impl Studies {
    /// Starts a study in place of the one under way.
    pub fn start(&mut self, study: Study) -> Effect {
        self.progress = Progress::default();
        (self.left, self.began, self.refused) = (None, None, None);
        self.running = Some(study.clone());
        Effect::Study(study)
    }

    /// Ends the study under way for good, until a person or other settings ask again.
    pub fn end(&mut self) -> Option<Study> {
        self.exact_next = false;
        self.refused = self.running.take();
        self.refused.clone()
    }

    /// A view was opened: what was stopped may be asked for again.
    pub fn allow_again(&mut self) {
        self.refused = None;
    }

    /// How far the study is, `elapsed` after its start.
    pub fn learn_progress(&mut self, progress: Progress, elapsed: Duration) {
        if self.running.is_none() || progress.stage.is_empty() {
            return;
        }
        if progress.stage != self.progress.stage {
            self.began = None; // Another stage goes at another pace.
        }
        let (first, since) = *self.began.get_or_insert((progress.done, elapsed));
        let (done, missing) = (progress.done.saturating_sub(first), progress.total.saturating_sub(progress.done));
        self.left = (done > 0).then(|| elapsed.saturating_sub(since).mul_f64(missing as f64 / done as f64));
        self.progress = progress;
    }

    /// Keeps perturbations, unless more is known already.
    pub fn learn(&mut self, found: Arc<Perturbed>) {
        let same = |k: &Arc<Perturbed>| k.settings == found.settings && k.perturbation.estimate == found.perturbation.estimate;
        // A sweep that was stopped tells its last part late: only the whole ends a sweep that goes on since.
        let all = self.known(&found.settings, Estimate::Fisher).map_or(0, |fast| fast.table.sites.len());
        if found.done
            && found.table.sites.len() >= all
            && self.running == Some(Study::Perturb { settings: found.settings.clone(), estimate: found.perturbation.estimate })
        {
            self.running = None;
        }
        if self.known.iter().any(|k| same(k) && k.table.sites.len() > found.table.sites.len()) {
            return;
        }
        self.known.retain(|k| !same(k));
        self.known.push(found);
        if self.known.len() > KEPT {
            self.known.remove(0);
        }
    }

    /// Perturbations by one estimate.
    #[must_use]
    pub fn known(&self, base: &Settings, estimate: Estimate) -> Option<&Arc<Perturbed>> {
        self.known.iter().find(|k| k.settings == *base && k.perturbation.estimate == estimate)
    }

    /// One line about the study under way.
    #[must_use]
    pub fn line(&self) -> Option<String> {
        let study = self.running.as_ref()?;
        let stage = match study {
            Study::Perturb { estimate: Estimate::Fisher, .. } => "estimating what every group count does to the prediction, fast",
            Study::Perturb { .. } => "measuring what every group count does to the prediction, site by site",
            Study::Compare { .. } => "comparing methods on the evaluation set",
            Study::Suggest { .. } => "looking for what to keep in float",
        };
        let count = if self.progress.total > 0 { format!(": {} of {}", self.progress.done, self.progress.total) } else { String::new() };
        let left = self.left.map_or_else(String::new, |left| format!(", about {} s left", left.as_secs() + 1));
        Some(format!("{stage}{count}{left}; Esc stops it"))
    }
}

/// The study that the view needs and nobody has asked for.
pub fn ask(app: &mut App) -> Option<Effect> {
    let present = base(&app.settings);
    let wanted = match app.view {
        View::Budget if app.settings.method.uses_groups() => {
            let fast = app.studies.known(&present, Estimate::Fisher).is_some();
            if fast && app.studies.exact_next {
                app.studies.exact_next = false;
                return Some(app.studies.start(Study::Perturb { settings: present, estimate: Estimate::Alone }));
            }
            (!fast).then(|| Study::Perturb { settings: present.clone(), estimate: Estimate::Fisher })
        }
        View::Compare => {
            let settings = grid(&app.settings);
            let whole = |c: &Arc<Comparison>| c.settings == settings && c.picture == app.picture && c.seen == c.total;
            (!app.studies.comparison.as_ref().is_some_and(whole)).then_some(Study::Compare { settings, picture: app.picture })
        }
        _ => None,
    }?;
    let studies = &mut app.studies;
    // What a person asked for goes first, as long as it still is about the present settings.
    let by_hand = match &studies.running {
        Some(Study::Suggest { .. }) => true,
        Some(Study::Perturb { settings, estimate }) => *estimate != Estimate::Fisher && *settings == present,
        _ => false,
    };
    let known = studies.running.as_ref() == Some(&wanted) || studies.refused.as_ref() == Some(&wanted);
    (!by_hand && !known).then(|| studies.start(wanted))
}

/// Settings or picture changed: a suggestion for the old ones is worth nothing any more.
pub fn outdate(app: &mut App) -> Option<Effect> {
    app.studies.suggestion = None;
    app.studies.exact_next = false;
    let looking = matches!(app.studies.running, Some(Study::Suggest { .. }));
    looking.then(|| {
        app.studies.end();
        Effect::StopStudy
    })
}

/// Asks for the exact sweep of the present settings.
pub fn exact(app: &mut App) -> Vec<Effect> {
    let settings = base(&app.settings);
    if !settings.method.uses_groups() {
        return say(app, format!("{} has no group counts; m goes to the next method", settings.method));
    }
    let all = app.studies.known(&settings, Estimate::Fisher).map(|p| p.table.sites.len());
    match (all, app.studies.known(&settings, Estimate::Alone).map(|p| p.table.sites.len())) {
        (Some(all), Some(measured)) if all == measured => say(app, "every site is measured already"),
        (Some(_), _) => vec![app.studies.start(Study::Perturb { settings, estimate: Estimate::Alone })],
        (None, _) => {
            app.studies.exact_next = true;
            Vec::new()
        }
    }
}

/// Asks what to keep in float.
pub fn suggest(app: &mut App) -> Vec<Effect> {
    if app.snapshot.as_ref().is_some_and(|s| !s.report.prediction.flipped) && !app.is_stale() {
        return say(app, "the float prediction is not lost: nothing needs to stay in float");
    }
    let study = Study::Suggest { settings: app.settings.clone(), picture: app.picture };
    vec![app.studies.start(study)]
}

/// Ends the study under way and says what stays.
pub fn stop(app: &mut App) -> Vec<Effect> {
    let progress = app.studies.progress.clone();
    let text = match app.studies.end() {
        Some(Study::Perturb { estimate: Estimate::Fisher, .. }) => "stopped estimating; opening the view again starts it again".to_string(),
        Some(Study::Perturb { settings, estimate }) => {
            let sites = |estimate| app.studies.known(&settings, estimate).map_or(0, |p| p.table.sites.len());
            format!("stopped: {} of {} sites are measured and stay; X goes on", sites(estimate), sites(Estimate::Fisher))
        }
        Some(Study::Compare { .. }) if progress.total == 0 => "stopped comparing; opening the view again starts it again".to_string(),
        Some(Study::Compare { .. }) => format!("stopped after {} of {} pictures; what was computed stays", progress.done, progress.total),
        Some(Study::Suggest { .. }) => "stopped looking for a suggestion".to_string(),
        None => return Vec::new(),
    };
    app.notice = Some(Notice { text, is_error: false });
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

/// A suggestion; one for other settings was ended when they changed.
pub fn suggested(app: &mut App, found: Arc<Suggestion>) {
    let asked = Study::Suggest { settings: app.settings.clone(), picture: app.picture };
    if app.studies.running.as_ref() != Some(&asked) {
        return;
    }
    app.studies.running = None;
    if found.reached && !found.changes.is_empty() {
        app.studies.suggestion = Some(found);
    } else {
        app.notice = Some(Notice { text: found.text.clone(), is_error: !found.reached });
    }
}

fn say(app: &mut App, text: impl Into<String>) -> Vec<Effect> {
    app.notice = Some(Notice { text: text.into(), is_error: false });
    Vec::new()
}
