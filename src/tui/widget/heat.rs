//! Maps of colours without patches: a small one, two values a cell, and the scale that says what the colours stand for.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::{Color, Style};

use super::{put, short};
use crate::tui::theme::Look;

/// Cells of the colour scale.
pub const SCALE: usize = 10;

/// What the colours of the map stand for: from 0 (or less than 0) to the largest.
pub fn scale(look: Look, signed: bool, peak: f64, area: Rect, buf: &mut Buffer) {
    let from = if signed { short(-peak) } else { "0".to_string() };
    put(buf, area, 0, 0, &from, look.dim());
    let left = from.len() as u16 + 1;
    for step in 0..SCALE as u16 {
        let share = f64::from(step) / (SCALE - 1) as f64;
        let at = if signed { 2.0 * share - 1.0 } else { share };
        let color = if signed { look.signed(at) } else { look.heat(at) };
        let glyph = if look.has_color() && !look.ascii { " ".to_string() } else { look.ramp(at.abs()).to_string() };
        put(buf, area, left + step, 0, &glyph, Style::new().bg(color));
    }
    put(buf, area, left + SCALE as u16 + 1, 0, &short(peak), look.dim());
}

/// A small map, two values a cell.
pub fn thumbnail(look: Look, signed: bool, at: impl Fn(usize, usize) -> Option<f64>, area: Rect, buf: &mut Buffer) {
    let color = |v: Option<f64>| v.map_or(Color::Reset, |v| if signed { look.signed(v) } else { look.heat(v) });
    for row in 0..area.height {
        for column in 0..area.width {
            let Some(cell) = buf.cell_mut((area.x + column, area.y + row)) else { continue };
            let (top, bottom) = (at(usize::from(column), 2 * usize::from(row)), at(usize::from(column), 2 * usize::from(row) + 1));
            if look.has_color() && !look.ascii {
                cell.set_char('▀').set_fg(color(top)).set_bg(color(bottom));
            } else {
                let level = top.unwrap_or(0.0).abs().max(bottom.unwrap_or(0.0).abs());
                cell.set_char(look.ramp(level));
            }
        }
    }
}
