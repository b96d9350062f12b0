//! Writing files as a whole or not at all: through a temporary file beside the target, renamed when complete.

use std::fs;
use std::path::Path;

use crate::error::{Error, Result};

/// Writes `bytes` to `path`; a failure leaves what was there before.
///
/// # Errors
/// When the folder cannot be written to.
pub fn write_whole(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(".partial");
    let partial = path.with_file_name(name);
    let written = fs::write(&partial, bytes).and_then(|()| fs::rename(&partial, path));
    written.map_err(|e| {
        let _ = fs::remove_file(&partial); // The first error is the one to tell.
        Error::io("write", path)(e)
    })
}
