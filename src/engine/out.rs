//! The engine's end of the channels: facts in order, and how far work is.

use tokio::sync::{mpsc, watch};

use super::event::Event;
use crate::progress::Progress;

pub(super) struct Out {
    pub(super) events: mpsc::Sender<Event>,
    pub(super) progress: watch::Sender<Progress>,
    pub(super) study: watch::Sender<Progress>,
}

impl Out {
    pub(super) fn tell(&self, event: Event) {
        // The receiver is gone only when the program is leaving.
        let _ = self.events.blocking_send(event);
    }
}
