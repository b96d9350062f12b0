//! Ctrl-C and SIGTERM in a command without a screen: long work ends and writes what it has; a second signal ends the program at once.

use crate::error::{Error, Result};
use crate::progress::Cancel;

/// What ends the work of a command when the user or the system wants it to end.
///
/// # Errors
/// When the system does not let signals be watched.
pub fn cancel() -> Result<Cancel> {
    let cancel = Cancel::default();
    #[cfg(unix)]
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        let unwatched = |e: std::io::Error| Error::content("signals", format!("cannot be watched ({e})"), "run it in another shell");
        signal_hook::flag::register_conditional_shutdown(signal, 128 + signal, cancel.flag()).map_err(unwatched)?;
        signal_hook::flag::register(signal, cancel.flag()).map_err(unwatched)?;
    }
    Ok(cancel)
}

/// Says that a report is partial, and ends the command as one that was interrupted.
///
/// # Errors
/// Always where `partial` is true: the report is written, but not of the whole.
pub fn end(partial: bool) -> Result<()> {
    if partial { Err(Error::Cancelled) } else { Ok(()) }
}
