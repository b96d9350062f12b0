//! What a key can mean, and one line of the table of keys.

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::choice::View;

/// What a key means; its line of the table says what it does.
#[allow(missing_docs)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    Quit,
    Suspend,
    Help,
    Back,
    Show(View),
    NextView,
    PreviousView,
    WeightBits(bool),
    ActivationBits(bool),
    SoftmaxBits(bool),
    Groups(bool),
    RowGroups(bool),
    Method(bool),
    Site(bool),
    Cursor(bool),
    Page(bool),
    First,
    Last,
    Picture(bool),
    ComparePicture(bool),
    Compare,
    Sort,
    SortOrder,
    Worst,
    Filter,
    KeepFloat,
    SiteBits(bool),
    SiteGroups(bool),
    Beside,
    Object(bool),
    Threshold(bool),
    Overlay,
    CloseUp,
    Kind,
    ChannelOrder,
    Lesson(bool),
    Chapter(bool),
    OnlyGroup,
    Zoom,
    Dense,
    Scope,
    Scale,
    Head(bool),
    Map,
    SoftmaxShape,
    Arithmetic,
    Rounding,
    WeightScales,
    Preset,
    Undo,
    Redo,
    Reset,
    BudgetStep(bool),
    Exact,
    AllPictures,
    Apply,
    TakeRow,
    Pin,
    Suggest,
    Mixed,
    TakeSuggestion,
    Theme,
    Export,
    Copy,
    CopyCommand,
    Palette,
}

/// One line of the table.
#[derive(Debug, Clone, Copy)]
pub struct Binding {
    /// The keys, all with one meaning.
    pub keys: &'static [Key],
    /// Their meaning.
    pub action: Action,
    /// How the keys are written.
    pub label: &'static str,
    /// What they do.
    pub help: &'static str,
    /// A word for the footer; empty to leave it out.
    pub footer: &'static str,
}

/// A key with its modifier.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Key {
    /// A character as typed, shift included.
    Char(char),
    /// A character with Ctrl.
    Ctrl(char),
    /// Any other key.
    Code(KeyCode),
}

impl Key {
    /// Whether `event` is this key.
    #[must_use]
    pub fn matches(self, event: &KeyEvent) -> bool {
        let ctrl = event.modifiers.contains(KeyModifiers::CONTROL);
        match self {
            Self::Char(c) => !ctrl && event.code == KeyCode::Char(c),
            Self::Ctrl(c) => ctrl && event.code == KeyCode::Char(c),
            Self::Code(code) => event.code == code,
        }
    }
}

/// One line of the table.
#[must_use]
pub const fn bind(keys: &'static [Key], action: Action, label: &'static str, help: &'static str, footer: &'static str) -> Binding {
    Binding { keys, action, label, help, footer }
}
