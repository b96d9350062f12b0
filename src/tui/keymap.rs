//! The one table of keys: the footer, the help overlay, the README's list and the dispatch all come from it.

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::app::View;

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
    Kind,
    ChannelOrder,
    Scale,
    Head(bool),
    Map,
    SoftmaxShape,
    Undo,
    Redo,
    Reset,
    BudgetStep(bool),
    Exact,
    Apply,
    TakeRow,
    Pin,
    Suggest,
    TakeSuggestion,
    Theme,
    Export,
    Copy,
}

/// One line of the table.
#[derive(Debug, Clone, Copy)]
pub struct Binding {
    /// The keys, all with one meaning.
    pub keys: &'static [Key],
    /// Their meaning.
    pub action: Action,
    /// The views that know it; empty for all.
    pub views: &'static [View],
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
    fn matches(self, event: &KeyEvent) -> bool {
        let ctrl = event.modifiers.contains(KeyModifiers::CONTROL);
        match self {
            Self::Char(c) => !ctrl && event.code == KeyCode::Char(c),
            Self::Ctrl(c) => ctrl && event.code == KeyCode::Char(c),
            Self::Code(code) => event.code == code,
        }
    }
}

const ALL: &[View] = &[];
const OVERVIEW: &[View] = &[View::Overview];
const GROUPS: &[View] = &[View::Groups];
const ATTENTION: &[View] = &[View::Attention];
const BUDGET: &[View] = &[View::Budget];
const COMPARE: &[View] = &[View::Compare];
const CURSOR: &[View] = &[View::Groups, View::Attention];

const fn bind(
    keys: &'static [Key],
    action: Action,
    views: &'static [View],
    label: &'static str,
    help: &'static str,
    footer: &'static str,
) -> Binding {
    Binding { keys, action, views, label, help, footer }
}

use Key::{Char, Code, Ctrl};

/// Every key, in the order of the help overlay.
pub const BINDINGS: &[Binding] = &[
    bind(&[Char('a')], Action::ActivationBits(false), ALL, "a", "fewer bits for activations", "a/A act bits"),
    bind(&[Char('A')], Action::ActivationBits(true), ALL, "A", "more bits for activations (after 8: float)", ""),
    bind(&[Char('w')], Action::WeightBits(false), ALL, "w", "fewer bits for weights", "w/W weight bits"),
    bind(&[Char('W')], Action::WeightBits(true), ALL, "W", "more bits for weights", ""),
    bind(&[Char('s')], Action::SoftmaxBits(false), ALL, "s", "fewer bits for the softmax attention", "s/S softmax bits"),
    bind(&[Char('S')], Action::SoftmaxBits(true), ALL, "S", "more bits for the softmax attention", ""),
    bind(&[Char('[')], Action::Groups(false), ALL, "[", "fewer groups of channels", "[/] groups"),
    bind(&[Char(']')], Action::Groups(true), ALL, "]", "more groups of channels", ""),
    bind(&[Char('{')], Action::RowGroups(false), ALL, "{", "fewer groups of softmax rows", ""),
    bind(&[Char('}')], Action::RowGroups(true), ALL, "}", "more groups of softmax rows", ""),
    bind(&[Char('m')], Action::Method(true), ALL, "m", "next method", "m method"),
    bind(&[Char('M')], Action::Method(false), ALL, "M", "previous method", ""),
    bind(&[Char('d')], Action::SoftmaxShape, ALL, "d", "next quantizer for the softmax: as the method says, log2, log-sqrt2, twin", ""),
    bind(&[Char('f')], Action::KeepFloat, ALL, "f", "keep the selected site in float, or no longer", ""),
    bind(&[Char('x')], Action::Kind, ALL, "x", "switch the kind of the selected site off or on", ""),
    bind(&[Char('u')], Action::Undo, ALL, "u", "undo the last change of settings", "u undo"),
    bind(&[Char('U'), Ctrl('r')], Action::Redo, ALL, "U Ctrl-R", "redo what was undone", ""),
    bind(&[Char('r')], Action::Reset, ALL, "r", "back to the settings of the start", ""),
    bind(&[Char('n')], Action::Picture(true), ALL, "n", "next picture", "n/p picture"),
    bind(&[Char('p')], Action::Picture(false), ALL, "p", "previous picture", ""),
    bind(&[Char('j'), Code(KeyCode::Down)], Action::Site(true), ALL, "j ↓", "next site (Compare: row)", "j/k site"),
    bind(&[Char('k'), Code(KeyCode::Up)], Action::Site(false), ALL, "k ↑", "previous site (Compare: row)", ""),
    bind(
        &[Code(KeyCode::PageDown), Ctrl('d')],
        Action::Page(true),
        ALL,
        "PgDn",
        "ten sites (Groups, Attention: ten channels or tokens) on",
        "",
    ),
    bind(&[Code(KeyCode::PageUp), Ctrl('u')], Action::Page(false), ALL, "PgUp", "ten back", ""),
    bind(&[Char('g'), Code(KeyCode::Home)], Action::First, ALL, "g Home", "first site, channel or token", ""),
    bind(&[Char('G'), Code(KeyCode::End)], Action::Last, ALL, "G End", "last site, channel or token", ""),
    bind(&[Char('!')], Action::Worst, ALL, "!", "jump to the site that loses most", "! worst"),
    bind(&[Char('o')], Action::Sort, OVERVIEW, "o", "sort the sites by the next column", "o sort"),
    bind(&[Char('O')], Action::SortOrder, OVERVIEW, "O", "turn the order around", ""),
    bind(&[Char('/')], Action::Filter, OVERVIEW, "/", "show only sites that hold what you type", "/ filter"),
    bind(&[Char('c')], Action::Compare, GROUPS, "c", "compare the groups with those of a second picture", "c compare"),
    bind(&[Char('.'), Char('>')], Action::ComparePicture(true), GROUPS, ".", "next second picture", ""),
    bind(&[Char(','), Char('<')], Action::ComparePicture(false), GROUPS, ",", "previous second picture", ""),
    bind(&[Char('z')], Action::ChannelOrder, GROUPS, "z", "channels in their own order or by group", "z order"),
    bind(&[Char('v')], Action::Scale, GROUPS, "v", "linear or logarithmic scale", "v scale"),
    bind(&[Char('l'), Code(KeyCode::Right)], Action::Cursor(true), CURSOR, "l →", "next channel or token", "h/l cursor"),
    bind(&[Char('h'), Code(KeyCode::Left)], Action::Cursor(false), CURSOR, "h ←", "previous channel or token", ""),
    bind(&[Char('.'), Char('>')], Action::Head(true), ATTENTION, ".", "next head", "./, head"),
    bind(&[Char(','), Char('<')], Action::Head(false), ATTENTION, ",", "previous head", ""),
    bind(&[Char('v')], Action::Map, ATTENTION, "v", "map: float, quantized, difference, error of each token", "v map"),
    bind(
        &[Char('B'), Char('l'), Code(KeyCode::Right)],
        Action::BudgetStep(true),
        BUDGET,
        "B →",
        "a larger budget of bit operations (about 2 %)",
        "b/B budget",
    ),
    bind(&[Char('b'), Char('h'), Code(KeyCode::Left)], Action::BudgetStep(false), BUDGET, "b ←", "a smaller budget", ""),
    bind(&[Code(KeyCode::Enter)], Action::Apply, BUDGET, "Enter", "apply the counts to the settings", "Enter apply"),
    bind(&[Char('X')], Action::Exact, BUDGET, "X", "measure every site instead of estimating (Esc stops and keeps)", "X exact"),
    bind(&[Code(KeyCode::Enter)], Action::TakeRow, COMPARE, "Enter", "take over the row's method and bits", "Enter take row"),
    bind(&[Char('P')], Action::Pin, ALL, "P", "pin what is shown as A, to compare later answers with it", "P pin"),
    bind(&[Char('F')], Action::Suggest, ALL, "F", "suggest what to keep in float so that the prediction comes back", "F suggest"),
    bind(&[Char('Y')], Action::TakeSuggestion, ALL, "Y", "apply the suggestion", ""),
    bind(&[Char('1')], Action::Show(View::Overview), ALL, "1", "Overview", ""),
    bind(&[Char('2')], Action::Show(View::Groups), ALL, "2", "Groups", ""),
    bind(&[Char('3')], Action::Show(View::Attention), ALL, "3", "Attention", ""),
    bind(&[Char('5')], Action::Show(View::Budget), ALL, "5", "Budget", ""),
    bind(&[Char('6')], Action::Show(View::Compare), ALL, "6", "Compare", ""),
    bind(&[Code(KeyCode::Tab)], Action::NextView, ALL, "Tab", "next view", "Tab view"),
    bind(&[Code(KeyCode::BackTab)], Action::PreviousView, ALL, "Shift-Tab", "previous view", ""),
    bind(&[Char('e')], Action::Export, ALL, "e", "write the frame (SVG) and its report (JSON) to this folder", ""),
    bind(&[Char('y')], Action::Copy, ALL, "y", "copy the selected site's numbers to the clipboard", ""),
    bind(&[Char('t')], Action::Theme, ALL, "t", "next theme", ""),
    bind(&[Code(KeyCode::Esc)], Action::Back, ALL, "Esc", "stop a study; else one step back; never quits", ""),
    bind(&[Char('?')], Action::Help, ALL, "?", "this help", "? help"),
    bind(&[Char('q'), Ctrl('c')], Action::Quit, ALL, "q Ctrl-C", "quit", "q quit"),
    bind(&[Ctrl('z')], Action::Suspend, ALL, "Ctrl-Z", "stop; `fg` comes back", ""),
];

/// Whether a binding holds in `view`.
#[must_use]
pub fn applies(binding: &Binding, view: View) -> bool {
    binding.views.is_empty() || binding.views.contains(&view)
}

/// What `event` means in `view`.
#[must_use]
pub fn action(event: &KeyEvent, view: View) -> Option<Action> {
    let found = BINDINGS.iter().find(|b| applies(b, view) && b.keys.iter().any(|k| k.matches(event)));
    found.map(|b| b.action)
}

/// The key list as a Markdown table: `igq keys`.
#[must_use]
pub fn markdown() -> String {
    let mut text = "| key | in | what it does |\n|---|---|---|\n".to_string();
    for b in BINDINGS {
        let views = if b.views.is_empty() { "all".into() } else { b.views.iter().map(|v| v.title()).collect::<Vec<_>>().join(", ") };
        text += &format!("| `{}` | {views} | {} |\n", b.label, b.help);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_key_has_two_meanings_in_one_view() {
        for view in View::ALL {
            let mut seen: Vec<Key> = Vec::new();
            for key in BINDINGS.iter().filter(|b| applies(b, view)).flat_map(|b| b.keys) {
                assert!(!seen.contains(key), "{key:?} twice in {view:?}");
                seen.push(*key);
            }
        }
    }

    #[test]
    fn control_c_quits_and_plain_c_does_not() {
        let press = |code, modifiers| KeyEvent::new(code, modifiers);
        let ctrl_c = press(KeyCode::Char('c'), KeyModifiers::CONTROL);
        assert_eq!(action(&ctrl_c, View::Groups), Some(Action::Quit));
        assert_eq!(action(&press(KeyCode::Char('c'), KeyModifiers::NONE), View::Groups), Some(Action::Compare));
        assert_eq!(action(&press(KeyCode::Char('A'), KeyModifiers::SHIFT), View::Overview), Some(Action::ActivationBits(true)));
    }

    #[test]
    fn the_table_has_a_line_for_every_key() {
        let table = markdown();
        assert_eq!(table.lines().count(), 2 + BINDINGS.len());
        assert!(BINDINGS.iter().all(|b| !b.label.is_empty() && !b.help.is_empty() && table.contains(b.help)));
    }
}
