//! Runs ahead of the user: while nobody waits for anything, the settings that are one key away are planned and run, so that the key is
//! answered at once.

use std::sync::PoisonError;

use super::answer::Request;
use super::core::{Ahead, Session};
use crate::analysis::Prediction;
use crate::cpu;
use crate::error::Result;
use crate::progress::Cancel;
use crate::quant::{Method, Settings};

/// Predictions that are kept.
const KEPT: usize = 32;

/// What one key makes of `settings`, the likeliest first.
fn neighbours(settings: &Settings) -> Vec<Settings> {
    let one = |change: &dyn Fn(&mut Settings)| {
        let mut other = settings.clone();
        change(&mut other);
        other
    };
    let shared = |change: &dyn Fn(&mut Settings)| {
        let mut other = settings.with_counts([]);
        change(&mut other);
        other
    };
    let all = Method::ALL;
    let at = all.iter().position(|m| *m == settings.method).unwrap_or(0);
    let mut found = vec![
        one(&|s| s.abits = s.abits.step(false)),
        one(&|s| s.wbits = s.wbits.step(false)),
        shared(&|s| s.groups = s.groups.step(true)),
        shared(&|s| s.groups = s.groups.step(false)),
        one(&|s| s.method = all[(at + 1) % all.len()]),
        one(&|s| s.abits = s.abits.step(true)),
        one(&|s| s.wbits = s.wbits.step(true)),
        one(&|s| s.sbits = s.sbits.step(false)),
        one(&|s| s.sbits = s.sbits.step(true)),
        shared(&|s| s.row_groups = s.row_groups.step(true)),
        shared(&|s| s.row_groups = s.row_groups.step(false)),
        one(&|s| s.weights = s.weights.next()),
        one(&|s| s.preset = s.preset.next()),
    ];
    found.retain(|other| other != settings);
    found
}

impl Session {
    /// Plans what is one key away from `request`, until `cancel` is called: fitting and quantizing weights takes longer than a run.
    /// `between` is called after each, for whoever waits for something else.
    ///
    /// # Errors
    /// When `cancel` was called; what was fitted until then is kept.
    pub fn plan_ahead(&self, request: &Request, cancel: &Cancel, between: &mut dyn FnMut()) -> Result<()> {
        for settings in neighbours(&request.settings) {
            cancel.check()?;
            // What cannot be planned is told when it is asked for.
            cpu::in_pool(|| self.plan_until(&settings, cancel)).ok();
            between();
        }
        Ok(())
    }

    /// Plans and runs what is one key away from `request`, until `cancel` is called.
    ///
    /// # Errors
    /// When `cancel` was called; what was run until then is kept.
    pub fn look_ahead(&self, request: &Request, cancel: &Cancel) -> Result<()> {
        let base = self.base(request.picture)?;
        for settings in neighbours(&request.settings) {
            cancel.check()?;
            if self.foreseen(request.picture, &settings).is_some() {
                continue;
            }
            // What cannot be planned, such as another method with quantizers from a file, is told when it is asked for.
            let Ok(plan) = self.plan_until(&settings, cancel) else { continue };
            let prediction = self.predict(&base, &plan, cancel)?;
            let mut ahead = self.ahead.lock().unwrap_or_else(PoisonError::into_inner);
            ahead.push_back(Ahead { picture: request.picture, settings, prediction });
            if ahead.len() > KEPT {
                ahead.pop_front();
            }
        }
        Ok(())
    }

    /// The prediction of a run that was made ahead.
    pub(super) fn foreseen(&self, picture: usize, settings: &Settings) -> Option<Prediction> {
        let ahead = self.ahead.lock().unwrap_or_else(PoisonError::into_inner);
        ahead.iter().find(|a| a.picture == picture && a.settings == *settings).map(|a| a.prediction.clone())
    }
}
