//! What stands for the Hub in a build without the feature `hub`: a sentence.

use std::path::PathBuf;

use crate::error::{Error, Result};
use crate::progress::Progress;

/// Says that this build cannot.
///
/// # Errors
/// Always.
pub fn fetch(id: &str, _offline: bool, _progress: &dyn Fn(Progress)) -> Result<(PathBuf, Option<String>)> {
    let problem = "no such file or folder, and this igq was built without the Hugging Face Hub";
    Err(Error::content(id, problem, "name a file or folder, or build with the feature `hub`"))
}
