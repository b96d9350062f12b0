//! Studies as the screen sees them: which is under way and how far, and what was found.

use std::sync::Arc;
use std::time::Duration;

use super::message::Effect;
use crate::engine::Study;
use crate::engine::command::{Estimate, Settings};
use crate::progress::Progress;
use crate::studies::allocate::Perturbed;
use crate::studies::compare::Comparison;
use crate::studies::curve::Curve;
use crate::studies::mixed::MixedReport;
use crate::studies::perturbation::without_counts;
use crate::studies::suggest::Suggestion;
use crate::studies::{mixed, repair};

/// Perturbations that are kept for settings that the user comes back to.
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
    /// Stopped by the user or failed: a view does not ask for it again by itself.
    refused: Option<Study>,
    /// The exact sweep is wanted as soon as the fast estimate is there.
    pub exact_next: bool,
    /// Perturbations of the present and of earlier settings.
    known: Vec<Arc<Perturbed>>,
    /// The settings whose comparison is to see all pictures.
    pub all_for: Option<Settings>,
    /// The newest comparison.
    pub comparison: Option<Arc<Comparison>>,
    /// The newest error of a site against its number of groups.
    pub curve: Option<Arc<Curve>>,
    /// The KL of the picture under counts that are not applied, and what was tried.
    pub tried: Option<(Settings, usize, f64)>,
    /// The newest mixed precision, with the settings that it was asked for.
    pub mixed: Option<(Settings, Arc<MixedReport>)>,
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
        self.exact_next &= !matches!(study, Study::Perturb { estimate: Estimate::Alone, .. });
        self.running = Some(study.clone());
        Effect::Study(study)
    }

    /// Ends the study under way for good, until the user or other settings ask again.
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
        // A study that was replaced may still tell how far it was.
        let comparing = progress.stage.starts_with("comparing");
        let (searching, mixing) = (progress.stage == repair::STAGE, progress.stage.starts_with(mixed::STAGE));
        let of_this = match &self.running {
            None | Some(Study::Curve { .. } | Study::Trial { .. }) => false,
            Some(Study::Compare { .. }) => comparing,
            Some(Study::Suggest { .. }) => searching,
            Some(Study::Mixed { .. }) => mixing,
            Some(Study::Perturb { .. }) => !comparing && !searching && !mixing,
        };
        if !of_this || progress.stage.is_empty() {
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

    /// The mixed precision that was measured for `settings`, or that they come from.
    #[must_use]
    pub fn mixed_for(&self, settings: &Settings) -> Option<&MixedReport> {
        let (asked, report) = self.mixed.as_ref()?;
        (asked == settings || report.mixed.iter().any(|one| one.settings == *settings)).then_some(report)
    }

    /// Whether a study was stopped and is not asked for again by itself.
    #[must_use]
    pub fn is_refused(&self, study: &Study) -> bool {
        self.refused.as_ref() == Some(study)
    }

    /// Perturbations by one estimate.
    #[must_use]
    pub fn known(&self, base: &Settings, estimate: Estimate) -> Option<&Arc<Perturbed>> {
        self.known.iter().find(|k| k.settings == *base && k.perturbation.estimate == estimate)
    }

    /// The study under way in a few words, for a corner of the screen.
    #[must_use]
    pub fn corner(&self, wide: bool) -> Option<String> {
        let what = match self.running.as_ref().filter(|study| !study.is_quiet())? {
            Study::Perturb { estimate: Estimate::Fisher, .. } => "estimating counts",
            Study::Perturb { .. } => "measuring counts",
            Study::Compare { .. } => "comparing",
            Study::Suggest { .. } => "searching",
            Study::Mixed { .. } => "choosing bits",
            Study::Curve { .. } | Study::Trial { .. } => "",
        };
        let mut text = what.to_string();
        if self.progress.total > 0 {
            text += &format!(" {}/{}", self.progress.done, self.progress.total);
        }
        if let Some(left) = self.left.filter(|_| wide) {
            text += &format!(", {} s left", left.as_secs() + 1);
        }
        Some(text + if wide { ", Esc stops" } else { "" })
    }

    /// One line about the study under way.
    #[must_use]
    pub fn line(&self) -> Option<String> {
        let study = self.running.as_ref()?;
        let stage = match study {
            Study::Perturb { estimate: Estimate::Fisher, .. } => "estimating the effect of every group count on the prediction",
            Study::Perturb { .. } => "measuring the effect of every group count on the prediction, site by site",
            Study::Compare { .. } => "comparing methods on the evaluation set",
            Study::Suggest { .. } => "looking for what brings the prediction back",
            Study::Mixed { .. } => "choosing bits and group counts of every site",
            Study::Curve { .. } => "trying other numbers of groups at this site",
            Study::Trial { .. } => "running these counts",
        };
        let count = if self.progress.total > 0 { format!(": {} of {}", self.progress.done, self.progress.total) } else { String::new() };
        let left = self.left.map_or_else(String::new, |left| format!(", about {} s left", left.as_secs() + 1));
        Some(format!("{stage}{count}{left}; Esc stops it"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_of_the_study_before_is_not_that_of_this_one() {
        let mut studies = Studies::default();
        studies.start(Study::Compare { settings: Settings::default(), picture: 0, all: false });
        let told = |stage: &str, done| Progress { stage: stage.into(), done, total: 98 };
        studies.learn_progress(told("perturbations, fisher", 4), Duration::from_secs(1));
        assert_eq!(studies.corner(false).unwrap(), "comparing");
        studies.learn_progress(told("comparing on the evaluation set", 32), Duration::from_secs(2));
        assert_eq!(studies.corner(false).unwrap(), "comparing 32/98");
    }
}
