//! The one table of keys: those of every view and those of a view's own. The footer, the help, `igq keys` and the dispatch come from it.

use crossterm::event::{KeyCode, KeyEvent};

use super::choice::View;
use super::keys::Key::{Char, Code, Ctrl};
use super::keys::{Action, Binding, Key, bind};

/// The keys that every view knows, in the order of the help; the keys that open views stand behind them.
const BEFORE: &[Binding] = &[
    bind(&[Char('a')], Action::ActivationBits(false), "a", "fewer bits for activations", "a/A act bits"),
    bind(&[Char('A')], Action::ActivationBits(true), "A", "more bits for activations (after 8: float)", ""),
    bind(&[Char('w')], Action::WeightBits(false), "w", "fewer bits for weights", "w/W weight bits"),
    bind(&[Char('W')], Action::WeightBits(true), "W", "more bits for weights (after 8: float)", ""),
    bind(&[Char('s')], Action::SoftmaxBits(false), "s", "fewer bits for the softmax output", "s/S softmax bits"),
    bind(&[Char('S')], Action::SoftmaxBits(true), "S", "more bits for the softmax output (after 8: float)", ""),
    bind(&[Char('[')], Action::Groups(false), "[", "fewer channel groups", "[/] groups"),
    bind(&[Char(']')], Action::Groups(true), "]", "more channel groups", ""),
    bind(&[Char('{')], Action::RowGroups(false), "{", "fewer groups of softmax rows", ""),
    bind(&[Char('}')], Action::RowGroups(true), "}", "more groups of softmax rows", ""),
    bind(&[Char('m')], Action::Method(true), "m", "next method", "m method"),
    bind(&[Char('M')], Action::Method(false), "M", "previous method", ""),
    bind(&[Char('d')], Action::SoftmaxShape, "d", "next softmax quantizer: the method's own, log2, log-sqrt2, twin", ""),
    bind(&[Char('R')], Action::Rounding, "R", "weights to the nearest, or by GPTQ", ""),
    bind(&[Char('D')], Action::WeightScales, "D", "next scales of weights: output channel, blocks of 32, NVFP4, MXFP4", ""),
    bind(&[Char('T')], Action::Preset, "T", "first and last layer: 8 bits, float, like the others", ""),
    bind(&[Char('i')], Action::Arithmetic, "i", "products of codes in integers, or of dequantized floats", ""),
    bind(&[Char('f')], Action::KeepFloat, "f", "toggle: leave this site unquantized", ""),
    bind(&[Char('+'), Char('=')], Action::SiteBits(true), "+", "more bits for this site alone, its weight included", ""),
    bind(&[Char('-'), Char('_')], Action::SiteBits(false), "-", "fewer bits for this site alone", ""),
    bind(&[Char(')')], Action::SiteGroups(true), ")", "more groups for this site alone", ""),
    bind(&[Char('(')], Action::SiteGroups(false), "(", "fewer groups for this site alone", ""),
    bind(&[Char('x')], Action::Kind, "x", "toggle: quantize sites of this kind", ""),
    bind(&[Char('u')], Action::Undo, "u", "undo the last change of settings", "u undo"),
    bind(&[Char('U'), Ctrl('r')], Action::Redo, "U Ctrl-R", "redo", ""),
    bind(&[Char('r')], Action::Reset, "r", "reset to the initial settings", ""),
    bind(&[Char('n')], Action::Picture(true), "n", "next picture", "n/p picture"),
    bind(&[Char('p')], Action::Picture(false), "p", "previous picture", ""),
    bind(&[Char('j'), Code(KeyCode::Down)], Action::Site(true), "j ↓", "next site (Compare: row)", "j/k site"),
    bind(&[Char('k'), Code(KeyCode::Up)], Action::Site(false), "k ↑", "previous site (Compare: row)", ""),
    bind(&[Code(KeyCode::PageDown), Ctrl('d')], Action::Page(true), "PgDn", "ten sites, channels or tokens down", ""),
    bind(&[Code(KeyCode::PageUp), Ctrl('u')], Action::Page(false), "PgUp", "ten up", ""),
    bind(&[Char('g'), Code(KeyCode::Home)], Action::First, "g Home", "first site, channel or token", ""),
    bind(&[Char('G'), Code(KeyCode::End)], Action::Last, "G End", "last site, channel or token", ""),
    bind(&[Char('!')], Action::Worst, "!", "jump to the site that costs the prediction most", "! worst"),
    bind(&[Char('P')], Action::Pin, "P", "pin this result as A, to compare later results with it", "P pin"),
    bind(&[Char('F')], Action::Suggest, "F", "suggest what brings the float prediction back, the cheapest first", "F suggest"),
    bind(&[Char('Y')], Action::TakeSuggestion, "Y", "apply the suggestion that is offered; else copy the command line of this run", ""),
    bind(&[Char(':')], Action::Palette, ":", "type a command; Tab completes, Enter runs it", ": command"),
];

/// What stands behind the keys that open views.
const AFTER: &[Binding] = &[
    bind(&[Code(KeyCode::Tab)], Action::NextView, "Tab", "next view", "Tab view"),
    bind(&[Code(KeyCode::BackTab)], Action::PreviousView, "Shift-Tab", "previous view", ""),
    bind(&[Char('e')], Action::Export, "e", "export the screen (SVG) and its report (JSON) to this folder", ""),
    bind(&[Char('y')], Action::Copy, "y", "copy the selected site's numbers to the clipboard", ""),
    bind(&[Char('t')], Action::Theme, "t", "next theme", ""),
    bind(&[Code(KeyCode::Esc)], Action::Back, "Esc", "cancel the running study, else one step back; never quits", ""),
    bind(&[Char('?')], Action::Help, "?", "this help", "? help"),
    bind(&[Char('q'), Ctrl('c')], Action::Quit, "q Ctrl-C", "quit", "q quit"),
    bind(&[Ctrl('z')], Action::Suspend, "Ctrl-Z", "suspend; `fg` resumes", ""),
];

/// The keys of a view: its own first. Those that open a view are `opens`.
pub fn bindings(view: View) -> impl Iterator<Item = &'static Binding> {
    view.spec().keys.iter().chain(BEFORE).chain(AFTER)
}

/// What `event` means in `view`.
#[must_use]
pub fn action(event: &KeyEvent, view: View) -> Option<Action> {
    let found = bindings(view).find(|b| b.keys.iter().any(|k| k.matches(event))).map(|b| b.action);
    found.or_else(|| opens(event).map(Action::Show))
}

/// The views that a key belongs to, where it means nothing in `view`.
#[must_use]
pub fn belongs_to(event: &KeyEvent, view: View) -> Vec<View> {
    let own = |other: &View| other.spec().keys.iter().any(|b| b.keys.iter().any(|k| k.matches(event)));
    if action(event, view).is_some() { Vec::new() } else { View::all().filter(own).collect() }
}

/// The view that a key opens.
fn opens(event: &KeyEvent) -> Option<View> {
    View::all().find(|view| Key::Char(view.spec().key).matches(event))
}

/// The keys that open views, with what they do.
fn views() -> impl Iterator<Item = (String, String)> {
    View::all().map(|view| (view.spec().key.to_string(), view.title().to_string()))
}

fn words(bindings: &'static [Binding]) -> impl Iterator<Item = (String, String)> {
    bindings.iter().map(|b| (b.label.to_string(), b.help.to_string()))
}

/// Keys and what they do, for the help of a view.
#[must_use]
pub fn help(view: View) -> Vec<(String, String)> {
    words(view.spec().keys).chain(words(BEFORE)).chain(views()).chain(words(AFTER)).collect()
}

/// The key list as a Markdown table.
#[must_use]
pub fn markdown() -> String {
    let own = View::all().flat_map(|view| words(view.spec().keys).map(move |line| (view.title(), line)));
    let shared = words(BEFORE).chain(views()).chain(words(AFTER)).map(|line| ("all", line));
    let lines = shared.chain(own).map(|(place, (key, help))| format!("| `{key}` | {place} | {help} |\n"));
    "| key | in | what it does |\n|---|---|---|\n".to_string() + &lines.collect::<String>()
}

#[cfg(test)]
mod tests {
    use crossterm::event::KeyModifiers;

    use super::*;

    #[test]
    fn no_key_has_two_meanings_in_one_view() {
        for view in View::all() {
            let mut seen: Vec<Key> = View::all().map(|v| Key::Char(v.spec().key)).collect();
            assert!(seen.iter().enumerate().all(|(at, key)| !seen[..at].contains(key)), "two views have one key: {seen:?}");
            for key in bindings(view).flat_map(|b| b.keys) {
                assert!(!seen.contains(key), "{key:?} twice in {}", view.name());
                seen.push(*key);
            }
        }
    }

    #[test]
    fn control_c_quits_and_plain_c_does_not() {
        let view = |name: &str| name.parse::<View>().unwrap();
        let press = |code, modifiers| KeyEvent::new(code, modifiers);
        let ctrl_c = press(KeyCode::Char('c'), KeyModifiers::CONTROL);
        assert_eq!(action(&ctrl_c, view("groups")), Some(Action::Quit));
        assert_eq!(action(&press(KeyCode::Char('c'), KeyModifiers::NONE), view("groups")), Some(Action::Compare));
        assert_eq!(action(&press(KeyCode::Char('A'), KeyModifiers::SHIFT), view("overview")), Some(Action::ActivationBits(true)));
        assert_eq!(action(&press(KeyCode::Char('5'), KeyModifiers::NONE), view("overview")), Some(Action::Show(view("budget"))));
    }

    #[test]
    fn the_list_of_keys_holds_every_key_of_every_view() {
        let list = markdown();
        for view in View::all() {
            for (key, text) in help(view) {
                assert!(list.contains(&format!("| `{key}` |")) && list.contains(&format!("| {text} |")), "{key}: {text}");
            }
        }
    }
}
