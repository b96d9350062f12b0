//! Foreign text: class names, file names, tensor names, what a server says. Made harmless where it is printed, so that no control character
//! reaches a terminal and no row of a table breaks.

use std::borrow::Cow;
use std::io::Write;

/// What stands where a control character was.
const PLACEHOLDER: char = '\u{fffd}';

/// Whether a terminal would obey a character instead of showing it: control characters, and marks that turn the direction of text around.
const fn is_foul(c: char) -> bool {
    matches!(c, '\0'..='\u{1f}' | '\u{7f}'..='\u{9f}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

/// `text` in one line, with a placeholder for every character that a terminal would obey.
#[must_use]
pub fn clean(text: &str) -> Cow<'_, str> {
    if text.chars().any(is_foul) {
        text.chars().map(|c| if is_foul(c) { PLACEHOLDER } else { c }).collect::<String>().into()
    } else {
        text.into()
    }
}

/// The same for text of several lines, whose breaks stay.
#[must_use]
pub fn clean_lines(text: &str) -> Cow<'_, str> {
    let foul = |c: char| is_foul(c) && c != '\n';
    if text.chars().any(foul) {
        text.chars().map(|c| if foul(c) { PLACEHOLDER } else { c }).collect::<String>().into()
    } else {
        text.into()
    }
}

/// Writes a line to standard error, clean; that nobody can read it is no reason to stop.
pub fn tell(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "igq: {}", clean_lines(text));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn controls_become_placeholders_and_letters_stay() {
        assert_eq!(clean("cat\u{1b}[31m\u{7}\u{8}\u{9b}x\u{202e}y\nz"), "cat\u{fffd}[31m\u{fffd}\u{fffd}\u{fffd}x\u{fffd}y\u{fffd}z");
        for name in ["靴子", "👩\u{200d}👩\u{200d}👧", "e\u{301}te\u{301}", "plain"] {
            assert_eq!(clean(name), name);
        }
        assert_eq!(clean_lines("a\nb\u{1b}"), "a\nb\u{fffd}");
    }
}
