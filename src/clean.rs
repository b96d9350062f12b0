//! Foreign text: class names, file names, tensor names, what a server says. Made harmless where it is printed, so that no control character
//! reaches a terminal and no row of a table breaks.

use std::borrow::Cow;
use std::io::Write;

/// What stands where a control character was.
const REPLACEMENT: char = '\u{fffd}';

/// Whether a terminal would obey a character instead of showing it, or shows nothing where it stands: control characters, marks that turn
/// the direction of text around, what has no width. What joins letters and emoji stays.
const fn is_foul(c: char) -> bool {
    matches!(
        c,
        '\0'..='\u{1f}'
            | '\u{7f}'..='\u{9f}'
            | '\u{ad}'
            | '\u{61c}'
            | '\u{180e}'
            | '\u{200b}'
            | '\u{200e}'
            | '\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{feff}'
            | '\u{fff9}'..='\u{fffb}'
            | '\u{e0000}'..='\u{e007f}'
    )
}

/// `text` in one line, with U+FFFD for every character that a terminal would obey.
#[must_use]
pub fn clean(text: &str) -> Cow<'_, str> {
    if text.chars().any(is_foul) {
        text.chars().map(|c| if is_foul(c) { REPLACEMENT } else { c }).collect::<String>().into()
    } else {
        text.into()
    }
}

/// The same for text of several lines, whose breaks stay.
#[must_use]
pub fn clean_lines(text: &str) -> Cow<'_, str> {
    let foul = |c: char| is_foul(c) && c != '\n';
    if text.chars().any(foul) {
        text.chars().map(|c| if foul(c) { REPLACEMENT } else { c }).collect::<String>().into()
    } else {
        text.into()
    }
}

/// JSON whose strings hold escapes instead of such characters: the same values.
#[must_use]
pub fn escape_json(text: String) -> String {
    if !text.chars().any(|c| is_foul(c) && c != '\n') {
        return text;
    }
    let (mut escaped, mut units) = (String::with_capacity(text.len()), [0; 2]);
    for c in text.chars() {
        if is_foul(c) && c != '\n' {
            for unit in c.encode_utf16(&mut units) {
                escaped.push_str(&format!("\\u{unit:04x}"));
            }
        } else {
            escaped.push(c);
        }
    }
    escaped
}

/// Writes a line to standard error, clean; that nobody can read it is no reason to stop.
pub fn tell(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "igq: {}", clean(text));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn controls_are_replaced_and_letters_stay() {
        assert_eq!(clean("cat\u{1b}[31m\u{7}\u{8}\u{9b}x\u{202e}y\nz"), "cat\u{fffd}[31m\u{fffd}\u{fffd}\u{fffd}x\u{fffd}y\u{fffd}z");
        for name in ["靴子", "👩\u{200d}👩\u{200d}👧", "e\u{301}te\u{301}", "plain"] {
            assert_eq!(clean(name), name);
        }
        assert_eq!(clean_lines("a\nb\u{1b}"), "a\nb\u{fffd}");
        assert_eq!(clean("a\u{200b}b\u{61c}c\u{2063}d\u{e0041}"), "a\u{fffd}b\u{fffd}c\u{fffd}d\u{fffd}");
    }

    #[test]
    fn json_keeps_its_values() {
        let name = "x\u{202e}y\u{9b}\u{e0001}z\u{1b}\n";
        let text = escape_json(serde_json::to_string_pretty(&[name]).unwrap_or_default());
        assert!(text.chars().all(|c| c == '\n' || (c.is_ascii() && !c.is_control())), "{text}");
        assert_eq!(serde_json::from_str::<[String; 1]>(&text).ok(), Some([name.to_string()]));
    }
}
