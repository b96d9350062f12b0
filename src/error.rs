//! The one error type of the core: every message is a sentence that names the thing, what was expected, what was found and what to do.

use std::path::{Path, PathBuf};

/// What can go wrong between a command line and a frame.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file or folder could not be read or written.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was attempted: `read`, `write`, `create`.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file was read but is not what it should be.
    #[error("{name}: {problem}; {advice}")]
    Content {
        /// File, folder or built-in name.
        name: String,
        /// What was expected and found.
        problem: String,
        /// What to do about it.
        advice: String,
    },
    /// A tensor of a checkpoint or quantizer file is missing or wrong.
    #[error("{file}: tensor `{key}`: expected {expected}, found {found}")]
    Tensor {
        /// The file.
        file: String,
        /// The tensor's name.
        key: String,
        /// What the model needs.
        expected: String,
        /// What the file has.
        found: String,
    },
    /// A setting is out of its range or does not fit the model (bad usage).
    #[error("{what}: found `{found}`, expected {expected}")]
    Setting {
        /// Flag or setting.
        what: String,
        /// The given value.
        found: String,
        /// The values that work.
        expected: String,
    },
    /// The run was cancelled because a newer request replaced it or the user asked.
    #[error("cancelled")]
    Cancelled,
    /// A computation went wrong inside candle.
    #[error("computation failed: {0}")]
    Compute(#[from] candle_core::Error),
    /// A report could not be serialised or drawn.
    #[error("cannot write the {what}: {problem}")]
    Output {
        /// Which output.
        what: &'static str,
        /// Why not.
        problem: String,
    },
}

/// Shorthand for results of the core.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// A failed read, write or creation of `path`.
    pub fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::Io { action, path, source }
    }

    /// A file whose content is not usable.
    pub fn content(name: impl Into<String>, problem: impl Into<String>, advice: impl Into<String>) -> Self {
        Self::Content { name: name.into(), problem: problem.into(), advice: advice.into() }
    }

    /// A setting out of range.
    pub fn setting(what: impl Into<String>, found: impl ToString, expected: impl Into<String>) -> Self {
        Self::Setting { what: what.into(), found: found.to_string(), expected: expected.into() }
    }

    /// Exit code of the program: 2 for bad usage, 1 for everything else.
    #[must_use]
    pub const fn exit_code(&self) -> u8 {
        match self {
            Self::Setting { .. } => 2,
            Self::Cancelled => 130,
            _ => 1,
        }
    }
}
