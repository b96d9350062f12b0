//! Small drawings on a buffer: each takes plain data, an area and a look, and clips itself.

pub mod bars;
pub mod boxes;
pub mod heat;
pub mod histogram;
pub mod masks;
pub mod patches;
pub mod picture;
pub mod plot;
pub mod table;
pub mod text;

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::widgets::{Block, BorderType, Widget};

use super::theme::Look;
pub use crate::number::short;

/// Writes `text` at (`x`, `y`) inside `area`, cut at its right end, with an ellipsis where something was cut.
pub fn put(buf: &mut Buffer, area: Rect, x: u16, y: u16, text: &str, style: Style) {
    let area = area.intersection(buf.area);
    if x < area.width && y < area.height {
        let room = usize::from(area.width - x);
        buf.set_stringn(area.x + x, area.y + y, text::cut(text, room), room, style);
    }
}

/// Draws a frame with a title and returns what is inside.
pub fn panel(buf: &mut Buffer, area: Rect, title: &str, look: Look) -> Rect {
    let title = text::cut(&format!(" {title} "), usize::from(area.width.saturating_sub(2)));
    let block = Block::bordered().border_type(BorderType::Rounded).border_style(look.dim()).title(title).title_style(look.accent());
    let inner = block.inner(area);
    block.render(area, buf);
    inner
}

/// First shown line of a list of `length` so that `selected` is visible in `height` lines.
#[must_use]
pub fn first_shown(selected: usize, length: usize, height: usize) -> usize {
    selected.saturating_sub(height / 2).min(length.saturating_sub(height))
}

/// A horizontal bar of `width` cells for 0 to 1, in eighths of a cell.
#[must_use]
pub fn bar(fraction: f64, width: usize) -> String {
    const EIGHTHS: [&str; 8] = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];
    let eighths = (fraction.clamp(0.0, 1.0) * (width * 8) as f64).round() as usize;
    let full = eighths / 8;
    format!("{}{}{}", "█".repeat(full), EIGHTHS[eighths % 8], " ".repeat(width - full - usize::from(!eighths.is_multiple_of(8))))
}

/// Bit operations in at most seven characters: `123.4 M`, `1.234 G`.
#[must_use]
pub fn operations(count: u64) -> String {
    let scaled = [(1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")].into_iter().find(|(unit, _)| count as f64 >= *unit);
    scaled.map_or_else(
        || count.to_string(),
        |(unit, name)| {
            let value = count as f64 / unit;
            let digits = if value >= 100.0 {
                1
            } else if value >= 10.0 {
                2
            } else {
                3
            };
            format!("{value:.digits$} {name}")
        },
    )
}

/// A ratio in decibels; where nothing was lost it has no number.
#[must_use]
pub fn db(value: Option<f64>) -> String {
    value.map_or_else(|| "exact".into(), |v| format!("{v:.1}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_fills_its_width_and_no_more() {
        for share in [-1.0, 0.0, 0.01, 0.33, 0.5, 0.999, 1.0, 7.0, f64::NAN] {
            assert_eq!(bar(share, 5).chars().count(), 5, "{share}");
        }
        assert_eq!(bar(0.5, 4), "██  ");
        assert_eq!(bar(0.125, 1), "▏");
    }
}
