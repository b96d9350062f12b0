//! Text by the cells that it takes on a screen: Chinese and emoji take two, combining marks none.

use ratatui::style::Style;
use ratatui::text::Span;
use unicode_width::UnicodeWidthStr;

use crate::clean::clean;

/// What stands where text was cut.
const ELLIPSIS: char = '…';

/// Cells that `text` takes.
#[must_use]
pub fn width(text: &str) -> usize {
    if text.bytes().all(|b| matches!(b, b' '..=b'~')) { text.len() } else { pieces(text).map(|(_, width)| width).sum() }
}

/// Characters as they are seen (a letter with its marks, an emoji of several parts), each with its cells.
fn pieces(text: &str) -> impl Iterator<Item = (String, usize)> + '_ {
    // The same cutting and measuring as on ratatui's buffers.
    let graphemes = Span::raw(text).styled_graphemes(Style::new()).map(|g| g.symbol.to_string()).collect::<Vec<_>>();
    graphemes.into_iter().map(|symbol| {
        let width = symbol.width();
        (symbol, width)
    })
}

/// `text` in at most `room` cells; an ellipsis stands where something was cut. Blanks at the end are no loss.
#[must_use]
pub fn cut(text: &str, room: usize) -> String {
    let text = &*clean(text);
    if width(text) <= room {
        return text.to_string();
    }
    if width(text.trim_end()) <= room {
        return pad(text.trim_end(), room);
    }
    let (mut kept, mut used) = (String::new(), 0);
    for (symbol, width) in pieces(text) {
        if used + width + 1 > room {
            break;
        }
        kept += &symbol;
        used += width;
    }
    if room > 0 {
        kept.push(ELLIPSIS);
    }
    kept
}

/// `text` in exactly `room` cells, at their left.
#[must_use]
pub fn pad(text: &str, room: usize) -> String {
    let text = cut(text, room);
    let blank = room.saturating_sub(width(&text));
    text + &" ".repeat(blank)
}

/// `text` in exactly `room` cells, at their right.
#[must_use]
pub fn pad_left(text: &str, room: usize) -> String {
    let text = cut(text, room);
    " ".repeat(room.saturating_sub(width(&text))) + &text
}

/// Breaks text into lines of at most `room` cells, between words where there are some.
#[must_use]
pub fn wrap(text: &str, room: usize) -> Vec<String> {
    let room = room.max(1);
    let mut lines = vec![String::new()];
    let mut used = 0;
    for word in text.split(' ') {
        let long = width(word);
        if used > 0 && used + 1 + long <= room {
            let last = lines.len() - 1;
            lines[last] += &format!(" {word}");
            used += 1 + long;
            continue;
        }
        if used > 0 {
            lines.push(String::new());
            used = 0;
        }
        for (symbol, width) in pieces(word) {
            if used + width > room && used > 0 {
                lines.push(String::new());
                used = 0;
            }
            let last = lines.len() - 1;
            lines[last] += &symbol;
            used += width;
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: [&str; 6] = ["shoe", "靴子和一只猫", "👩‍👩‍👧 family", "e\u{301}te\u{301}", "🇩🇪 flag", ""];

    #[test]
    fn padded_text_takes_exactly_its_room() {
        for name in NAMES {
            for room in 0..20 {
                for text in [pad(name, room), pad_left(name, room)] {
                    assert_eq!(width(&text), room, "{name:?} in {room}: {text:?}");
                }
                assert!(width(&cut(name, room)) <= room);
                assert!(wrap(name, room).iter().all(|line| width(line) <= room.max(2)), "{name:?} in {room}");
            }
        }
    }

    #[test]
    fn an_ellipsis_says_that_something_was_cut_and_nothing_is_cut_in_half() {
        assert_eq!((cut("靴子和", 5), cut("靴子和", 6), cut("靴子和", 4)), ("靴子…".into(), "靴子和".into(), "靴…".into()));
        assert_eq!((cut("shoes", 4), cut("shoe   ", 4), cut("shoe", 0)), ("sho…".into(), "shoe".into(), String::new()));
        assert_eq!(cut("e\u{301}te\u{301}s", 3), "e\u{301}t…");
    }

    #[test]
    fn lines_break_between_words() {
        assert_eq!(wrap("one two three", 7), ["one two", "three"]);
        assert_eq!(wrap("abcdefgh ij", 3), ["abc", "def", "gh", "ij"]);
    }
}
