//! Everything that can happen to the screen, and everything that it can ask for in return.

use std::path::PathBuf;
use std::time::Duration;

use crossterm::event::{KeyEvent, MouseEvent};

use crate::engine::{DetailRequest, Event, Request, Study};
use crate::progress::Progress;

/// Something happened.
#[derive(Debug, Clone)]
pub enum Message {
    /// A key went down.
    Key(KeyEvent),
    /// The mouse was used.
    Mouse(MouseEvent),
    /// Text was pasted, or a file was dropped on the terminal.
    Paste(String),
    /// The terminal has a new size, in columns and rows.
    Resize(u16, u16),
    /// The engine told a fact.
    Engine(Event),
    /// The engine told how far it is.
    Progress(Progress),
    /// The engine told how far a study is, so long after its start.
    Study(Progress, Duration),
}

/// Something to do outside of the state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Ask the engine for a run.
    Request(Request),
    /// Ask the engine for details of a site.
    Detail(DetailRequest),
    /// Ask the engine for more pictures.
    Open(Vec<PathBuf>),
    /// Ask the engine for a study, in place of the one under way.
    Study(Study),
    /// End the study under way.
    StopStudy,
    /// Leave.
    Quit,
    /// Stop as a job of the shell (Ctrl-Z).
    Suspend,
    /// Write what is on screen to files.
    Export,
    /// Write the session to a file, over what is there only where that was asked for.
    Save {
        /// The file.
        file: PathBuf,
        /// Whether a file of that name is written over.
        over: bool,
    },
    /// Put text on the clipboard.
    Copy(String),
}
