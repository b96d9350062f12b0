//! How far long work is, on standard error: a bar, or plain lines where that is no terminal.

use std::io::IsTerminal;
use std::sync::{Mutex, PoisonError};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::progress::Progress;

/// A progress bar on standard error; where that is no terminal, a plain line at every tenth.
#[derive(Default)]
pub struct Bar(Mutex<(Option<ProgressBar>, usize)>);

impl Bar {
    /// Moves the bar to where `progress` is.
    pub fn show(&self, progress: &Progress) {
        let (slot, tenth) = &mut *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !std::io::stderr().is_terminal() {
            let now = (10 * progress.done).checked_div(progress.total).unwrap_or(0);
            if now > std::mem::replace(tenth, now) {
                crate::clean::tell(&format!("{}/{} {}", progress.done, progress.total, progress.stage));
            }
            return;
        }
        let bar = slot.get_or_insert_with(|| {
            let bar = ProgressBar::with_draw_target(Some(progress.total as u64), ProgressDrawTarget::stderr());
            let style = ProgressStyle::with_template("{bar:30} {pos}/{len} {eta} left  {msg}");
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
            bar
        });
        bar.set_length(progress.total as u64);
        bar.set_position(progress.done as u64);
        bar.set_message(progress.stage.clone());
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        if let Some(bar) = self.0.lock().unwrap_or_else(PoisonError::into_inner).0.take() {
            bar.finish_and_clear();
        }
    }
}
