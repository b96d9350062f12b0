//! How far long work is, on standard error: a bar, or plain lines where that is no terminal.

use std::io::IsTerminal;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::clean::tell;
use crate::progress::Progress;

/// Longest silence where standard error is no terminal, as far as the work itself says how far it is.
const SILENCE: Duration = Duration::from_secs(8);
/// Work that takes less says nothing of it before.
const WORTH_SAYING: f64 = 10.0;

/// A progress bar on standard error; where that is no terminal, a plain line at every tenth and every few seconds. Says what long work will
/// take as soon as a first part of it is done.
#[derive(Default)]
pub struct Bar(Mutex<State>);

#[derive(Default)]
struct State {
    bar: Option<ProgressBar>,
    stage: String,
    tenth: usize,
    /// When the stage began, and how much of it was done already.
    began: Option<(Instant, usize)>,
    told: Option<Instant>,
    foretold: bool,
}

impl State {
    /// Seconds that are left at the pace so far.
    fn left(&self, progress: &Progress) -> Option<f64> {
        let (since, first) = self.began?;
        let done = progress.done.checked_sub(first).filter(|done| *done > 0)?;
        Some(since.elapsed().as_secs_f64() * progress.total.saturating_sub(progress.done) as f64 / done as f64)
    }
}

impl Bar {
    /// Moves the bar to where `progress` is.
    pub fn show(&self, progress: &Progress) {
        let state = &mut *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if state.stage != progress.stage || state.began.is_none() {
            *state = State { bar: state.bar.take(), stage: progress.stage.clone(), told: Some(Instant::now()), ..State::default() };
            state.began = Some((Instant::now(), progress.done));
        }
        let left = state.left(progress);
        if let Some(left) = left.filter(|left| *left >= WORTH_SAYING && !state.foretold) {
            tell(&format!("{}: about {left:.0} s for what is left of {}", progress.stage, progress.total));
            state.foretold = true;
        }
        if !std::io::stderr().is_terminal() {
            let now = (10 * progress.done).checked_div(progress.total).unwrap_or(0);
            let silent = state.told.is_none_or(|told| told.elapsed() >= SILENCE);
            if now > std::mem::replace(&mut state.tenth, now) || silent {
                let left = left.filter(|left| *left >= 1.0).map_or_else(String::new, |left| format!(", about {left:.0} s left"));
                tell(&format!("{}/{} {}{left}", progress.done, progress.total, progress.stage));
                state.told = Some(Instant::now());
            }
            return;
        }
        let bar = state.bar.get_or_insert_with(|| {
            let bar = ProgressBar::with_draw_target(Some(progress.total as u64), ProgressDrawTarget::stderr());
            let style = ProgressStyle::with_template("{bar:30} {pos}/{len} {eta} left  {msg}");
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
            bar.enable_steady_tick(Duration::from_secs(1));
            bar
        });
        bar.set_length(progress.total as u64);
        bar.set_position(progress.done as u64);
        bar.set_message(progress.stage.clone());
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        if let Some(bar) = self.0.lock().unwrap_or_else(PoisonError::into_inner).bar.take() {
            bar.finish_and_clear();
        }
    }
}
