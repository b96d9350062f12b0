//! Opening a model on a thread of its own, because it may have to come from the Hub first.

use std::thread;

use tokio::sync::{oneshot, watch};

use super::guard::guarded;
use crate::error::{Error, Result};
use crate::progress::Progress;
use crate::session::{LoadedModel, Options};

/// A model that is being opened on a thread of its own, because it may have to come from the Hub first.
pub struct Opening {
    /// How much of it has come.
    pub progress: watch::Receiver<Progress>,
    /// The model, or why there is none.
    pub opened: oneshot::Receiver<Result<LoadedModel>>,
}

impl Opening {
    /// Starts the thread.
    ///
    /// # Errors
    /// When the system has no thread to give.
    pub fn spawn(options: Options) -> Result<Self> {
        let (send_progress, progress) = watch::channel(Progress::default());
        let (send_opened, opened) = oneshot::channel();
        let open = move || {
            let result = guarded(|| LoadedModel::fetched(&options, &|progress| drop(send_progress.send_replace(progress))));
            // Nobody waits any more when the user has quit.
            drop(send_opened.send(result));
        };
        let started = thread::Builder::new().name("igq-open".into()).spawn(open);
        started.map_err(|e| Error::content("igq", format!("no thread could be started ({e})"), "close other programs"))?;
        Ok(Self { progress, opened })
    }
}
