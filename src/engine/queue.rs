//! Studies: work that takes longer than a run and goes on beside runs on a thread of its own. What was computed is told as it arrives, and
//! stays when the study is stopped.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::command::Study;
use super::event::Event;
use super::guard::guarded;
use super::out::Out;
use crate::cpu;
use crate::error::{Error, Result};
use crate::progress::{Cancel, Gate, Progress};
use crate::quant::Settings;
use crate::session::Session;
use crate::studies::allocate::Perturbed;
use crate::studies::counts::Table;
use crate::studies::perturbation::{self, Estimate, Perturbation, Search, SitePerturbation, StudyUpdate};
use crate::studies::tally::Looked;
use crate::studies::{compare, curve, mixed, repair, trials};

/// Shortest time between two partial results.
const PARTIAL: Duration = Duration::from_millis(100);
/// Perturbations that are kept for settings that a user comes back to.
const KEPT: usize = 32;

/// The study that is wanted, the flag that ends the one under way, and whether the screen is gone.
#[derive(Default)]
pub(super) struct StudyQueue {
    /// Closed while somebody waits for an answer.
    pub gate: Arc<Gate>,
    state: Mutex<(Option<Study>, Cancel, bool)>,
    changed: Condvar,
}

impl StudyQueue {
    /// Asks for a study, or for none; ends the one under way.
    pub fn put(&self, study: Option<Study>) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.1.cancel();
        state.0 = study;
        self.changed.notify_one();
    }

    /// Ends everything.
    pub fn close(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.1.cancel();
        state.2 = true;
        self.changed.notify_one();
    }

    fn next(&self) -> Option<(Study, Cancel)> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if state.2 {
                return None;
            }
            if let Some(study) = state.0.take() {
                state.1 = Cancel::behind(&self.gate);
                return Some((study, state.1.clone()));
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// Answers studies until the desk is closed, on threads that give way to those of an answer.
pub(super) fn work(session: &Session, desk: &StudyQueue, out: &Out) {
    let pool = cpu::background_pool();
    let mut kept: Vec<(Settings, Perturbation)> = Vec::new();
    let mut compared: Vec<(Settings, Vec<Looked>)> = Vec::new();
    while let Some((study, cancel)) = desk.next() {
        let mut answer = || match &study {
            Study::Perturb { settings, estimate } => perturb(session, settings, *estimate, &mut kept, &cancel, out),
            Study::Compare { settings, picture, all } => comparison(session, settings, (*picture, *all), &mut compared, &cancel, out),
            Study::Suggest { settings, picture } => {
                let progress = |p| out.study.send_replace(p);
                let found = repair::repair(session, settings, *picture, repair::TARGET, &cancel, &|p| drop(progress(p)))?;
                out.tell(Event::Suggested(Arc::new(found)));
                Ok(())
            }
            Study::Curve { settings, picture, site } => {
                out.tell(Event::Curve(Arc::new(curve::curve(session, settings, *picture, *site, &cancel)?)));
                Ok(())
            }
            Study::Trial { settings, picture } => {
                out.tell(Event::Tried(Box::new(settings.clone()), *picture, trials::kl(session, settings, *picture, &cancel)?));
                Ok(())
            }
            Study::Mixed { settings } => {
                let progress = |p: Progress| drop(out.study.send_replace(Progress { stage: format!("{}{}", mixed::STAGE, p.stage), ..p }));
                let found = mixed::mixed(session, settings, &mixed::budgets(settings.abits), None, &cancel, &progress)?;
                out.tell(Event::Mixed(Arc::new(found)));
                Ok(())
            }
        };
        let answered = guarded(|| match &pool {
            Some(pool) => pool.install(answer),
            None => answer(),
        });
        match answered {
            Ok(()) | Err(Error::Cancelled) => {}
            Err(error) => out.tell(Event::StudyFailed(error.to_string())),
        }
        out.study.send_replace(Progress::default());
    }
}

/// Tells perturbations as they arrive; those of a study that was stopped are not computed again.
fn perturb(
    session: &Session,
    settings: &Settings,
    estimate: Estimate,
    kept: &mut Vec<(Settings, Perturbation)>,
    cancel: &Cancel,
    out: &Out,
) -> Result<()> {
    let settings = settings.with_counts([]); // Counts are what is looked for.
    let candidates = perturbation::default_candidates();
    let sites = session.opened().model.sites();
    let same = |(s, p): &(Settings, Perturbation), e: Estimate| {
        p.estimate == e && p.candidates == candidates && *s == perturbation::without_counts(&settings, e)
    };
    let stored = || perturbation::stored(session, &settings, &Search::new(estimate, &candidates));
    let known = kept.iter().find(|k| same(k, estimate)).map_or_else(stored, |(_, p)| p.sites.clone());
    let fast = kept.iter().find(|k| same(k, Estimate::Fisher)).map(|(_, p)| p.clone());
    let told = |perturbation: Perturbation, total: usize, done: bool| {
        let rank_correlation = match &fast {
            Some(fast) if estimate != Estimate::Fisher => fast.rank_correlation(&perturbation),
            _ => Vec::new(),
        };
        let table = Table::new(sites, &settings, &perturbation);
        out.tell(Event::Perturbed(Arc::new(Perturbed { settings: settings.clone(), perturbation, table, rank_correlation, total, done })));
    };
    let partial =
        Mutex::new((Perturbation { sites: known.clone(), ..Perturbation::empty(estimate, candidates.clone(), 0) }, Instant::now()));
    let found = |one: SitePerturbation, total: usize| {
        let (so_far, last) = &mut *partial.lock().unwrap_or_else(PoisonError::into_inner);
        so_far.sites.push(one);
        out.study.send_replace(Progress { stage: format!("perturbations, {}", estimate.name()), done: so_far.sites.len(), total });
        if last.elapsed() >= PARTIAL && estimate != Estimate::Fisher {
            *last = Instant::now();
            told(so_far.clone(), total, false);
        }
    };
    let tell = |told: StudyUpdate| match told {
        StudyUpdate::Stage(progress) => drop(out.study.send_replace(progress)),
        StudyUpdate::Found(one, total) => found(one, total),
    };
    let finished = perturbation::perturb(session, &settings, &Search::new(estimate, &candidates), &known, cancel, &tell);
    let result = match finished {
        Ok(whole) => {
            told(whole.clone(), whole.sites.len(), true);
            whole
        }
        Err(error) => {
            let (so_far, _) = partial.into_inner().unwrap_or_else(PoisonError::into_inner);
            if !matches!(error, Error::Cancelled) || so_far.sites.is_empty() {
                return Err(error);
            }
            told(so_far.clone(), so_far.sites.len(), true);
            so_far
        }
    };
    kept.retain(|k| !same(k, estimate));
    kept.push((perturbation::without_counts(&settings, estimate), result));
    if kept.len() > KEPT {
        kept.remove(0);
    }
    Ok(())
}

/// Tells a comparison first for the picture, then again and again for more of the evaluation set.
///
/// What the set showed under the same settings is kept, so that coming back goes on.
fn comparison(
    session: &Session,
    settings: &Settings,
    (picture, all): (usize, bool),
    kept: &mut Vec<(Settings, Vec<Looked>)>,
    cancel: &Cancel,
    out: &Out,
) -> Result<()> {
    let at = kept.iter().position(|(known, _)| known == settings);
    let mut known = at.map(|at| kept.remove(at).1).unwrap_or_default();
    let limit = if all { usize::MAX } else { compare::FIRST.max(known.len()) };
    let ended = compare::stepwise(session, settings, picture, limit, &mut known, cancel, &mut |comparison| {
        let (done, total) = (comparison.seen, comparison.total);
        out.study.send_replace(Progress { stage: "comparing on the evaluation set".into(), done, total });
        out.tell(Event::Compared(Arc::new(comparison.clone())));
    });
    kept.push((settings.clone(), known));
    if kept.len() > KEPT {
        kept.remove(0);
    }
    ended
}
