//! Reading what a user names: regular files only, within a limit, so that a device or a pipe neither fills memory nor waits for ever.

use std::fs::{self, File};
use std::io::Read;
use std::path::Path;

use crate::error::{Error, Result};

/// Most bytes of a picture.
pub const PICTURE: u64 = 512 << 20;
/// Most bytes of a text: configurations, settings, names.
pub const TEXT: u64 = 64 << 20;
/// Most bytes of a file of quantizers.
pub const QUANTIZERS: u64 = 1 << 30;

/// The bytes of the regular file `path`, at most `limit` of them.
///
/// # Errors
/// When it cannot be read, is a folder, a device or a pipe, or is larger.
pub fn bytes(path: &Path, limit: u64) -> Result<Vec<u8>> {
    // Looked at before it is opened: opening a pipe waits for whoever writes to it.
    let about = fs::metadata(path).map_err(Error::io("read", path))?;
    let refuse = |problem: String| Error::content(path.display().to_string(), problem, "name another file");
    if !about.is_file() {
        let found = if about.is_dir() { "a folder" } else { "a device, pipe or socket" };
        return Err(refuse(format!("expected a regular file, found {found}")));
    }
    if about.len() > limit {
        return Err(refuse(format!("expected at most {limit} bytes, found {}", about.len())));
    }
    let mut bytes = Vec::new();
    File::open(path).and_then(|file| file.take(limit).read_to_end(&mut bytes)).map_err(Error::io("read", path))?;
    Ok(bytes)
}

/// The text of the regular file `path`, without the byte order mark that some editors write.
///
/// # Errors
/// As [`bytes`], and when it is no UTF-8.
pub fn text(path: &Path) -> Result<String> {
    let text = String::from_utf8(bytes(path, TEXT)?);
    let text = text.map_err(|_| Error::content(path.display().to_string(), "expected text in UTF-8", "save it as UTF-8"))?;
    Ok(text.strip_prefix('\u{feff}').map(str::to_string).unwrap_or(text))
}
