//! Everything that can happen to the screen, and everything that it can ask for in return.

use crossterm::event::{KeyEvent, MouseEvent};

use crate::engine::{Event, Progress, Request};

/// Something happened.
#[derive(Debug, Clone)]
pub enum Message {
    /// A key went down.
    Key(KeyEvent),
    /// The mouse was used.
    Mouse(MouseEvent),
    /// The terminal has a new size, in columns and rows.
    Resize(u16, u16),
    /// The engine told a fact.
    Engine(Event),
    /// The engine told how far it is.
    Progress(Progress),
}

/// Something to do outside of the state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Ask the engine for a run.
    Request(Request),
    /// Leave.
    Quit,
    /// Stop as a job of the shell (Ctrl-Z).
    Suspend,
    /// Write what is on screen to a file.
    Export,
    /// Put text on the clipboard.
    Copy(String),
}
