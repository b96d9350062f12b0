//! A histogram as bars of eighths of a cell, with a line of marks beneath.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;

use super::{put, short};
use crate::tui::theme::Look;

/// A value to point at, under the bars.
#[derive(Debug, Clone, PartialEq)]
pub struct Mark {
    /// The value.
    pub at: f32,
    /// What stands there.
    pub glyph: String,
    /// How.
    pub style: Style,
}

/// Draws `counts` of even bins from `low` to `high`; heights are logarithms where `logarithmic`. The last two lines are the marks and the ends.
pub fn draw(
    counts: &[u64],
    (low, high): (f32, f32),
    logarithmic: bool,
    marks: &[Mark],
    (style, look): (Style, Look),
    area: Rect,
    buf: &mut Buffer,
) {
    let area = area.intersection(buf.area);
    if area.width < 4 || area.height < 3 || counts.is_empty() {
        return;
    }
    let columns = usize::from(area.width);
    // A column takes the bins that lie in it; where bins are wider than columns, several columns show one.
    let column = |x: usize| {
        let first = x * counts.len() / columns;
        let end = ((x + 1) * counts.len() / columns).max(first + 1);
        counts[first..end.min(counts.len())].iter().sum::<u64>()
    };
    let heights: Vec<u64> = (0..columns).map(column).collect();
    let most = heights.iter().copied().max().unwrap_or(0);
    let height = |count: u64| if logarithmic { (count as f64).ln_1p() } else { count as f64 };
    let rows = area.height - 2;
    for (x, &count) in heights.iter().enumerate().filter(|(_, count)| **count > 0) {
        // What is there at all is seen.
        let eighths = ((height(count) / height(most) * f64::from(rows) * 8.0).round() as usize).max(1);
        for row in 0..=((eighths - 1) / 8) {
            let part = (eighths - row * 8).min(8);
            let glyph = ["▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"][part - 1];
            put(buf, area, x as u16, rows.saturating_sub(1 + row as u16), glyph, style);
        }
    }
    put(buf, area, 0, 0, &format!("{most}"), look.dim());
    let width = high - low;
    put(buf, area, 0, rows, &look.glyph("─", "-").repeat(columns), look.dim());
    for mark in marks.iter().filter(|_| width > 0.0) {
        let x = ((mark.at - low) / width * columns as f32).floor().clamp(0.0, (columns - 1) as f32) as u16;
        put(buf, area, x, rows, &mark.glyph, mark.style);
    }
    let (from, to) = (short(f64::from(low)), short(f64::from(high)));
    put(buf, area, 0, rows + 1, &from, look.dim());
    put(buf, area, area.width.saturating_sub(to.chars().count() as u16), rows + 1, &to, look.dim());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tui::theme::{Depth, Theme};

    #[test]
    fn bars_are_as_high_as_their_counts_and_marks_stand_at_their_values() {
        let look = Look { theme: Theme::DARK, own: &[], ascii: false, depth: Depth::True };
        let area = Rect::new(0, 0, 4, 4);
        let mut buf = Buffer::empty(area);
        let mark = Mark { at: 2.5, glyph: "x".into(), style: Style::new() };
        draw(&[0, 8, 16, 1], (0.0, 4.0), false, &[mark], (Style::new(), look), area, &mut buf);
        let line = |y: u16| (0..4).map(|x| buf[(x, y)].symbol()).collect::<String>();
        assert_eq!((line(0).as_str(), line(1).as_str(), line(2).as_str()), ("16█ ", " ██▁", "──x─"));
        for (width, height) in [(0, 0), (3, 9), (300, 2)] {
            draw(&[1], (0.0, 0.0), true, &[], (Style::new(), look), Rect::new(0, 0, width, height), &mut Buffer::empty(area));
        }
    }
}
