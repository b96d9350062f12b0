//! Undo and redo of settings, as plain values. Pictures, views and cursors are no steps.

use crate::engine::command::Settings;

/// Most steps that can be taken back.
const MOST: usize = 200;

/// What lies before and after the present settings.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Steps {
    past: Vec<Settings>,
    future: Vec<Settings>,
}

/// The steps, and what they were at each request that may still fail.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct History {
    steps: Steps,
    asked: Vec<(u64, Steps)>,
}

impl History {
    /// The settings were changed from `before` by a person.
    pub fn changed(&mut self, before: Settings) {
        self.steps.past.push(before);
        self.steps.future.clear();
        if self.steps.past.len() > MOST {
            self.steps.past.remove(0);
        }
    }

    /// The settings before the last step; none at the start.
    pub fn undo(&mut self, present: &Settings) -> Option<Settings> {
        let before = self.steps.past.pop()?;
        self.steps.future.push(present.clone());
        Some(before)
    }

    /// The settings that the last undo left; none where there was no undo, or a change since.
    pub fn redo(&mut self, present: &Settings) -> Option<Settings> {
        let after = self.steps.future.pop()?;
        self.steps.past.push(present.clone());
        Some(after)
    }

    /// Number of steps that can be taken back, and that can be taken again.
    #[must_use]
    pub const fn len(&self) -> (usize, usize) {
        (self.steps.past.len(), self.steps.future.len())
    }

    /// Request `id` goes out with the steps as they are.
    pub fn asked(&mut self, id: u64) {
        self.asked.push((id, self.steps.clone()));
    }

    /// Request `id` was answered: older ones do not matter any more.
    pub fn answered(&mut self, id: u64) {
        self.asked.retain(|(asked, _)| *asked >= id);
    }

    /// A request failed and the screen goes back to answer `shown`: its steps are the steps again.
    pub fn failed(&mut self, shown: u64) {
        if let Some((_, steps)) = self.asked.iter().find(|(asked, _)| *asked == shown) {
            self.steps = steps.clone();
        }
        self.asked.retain(|(asked, _)| *asked <= shown);
    }
}
