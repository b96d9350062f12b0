//! A falling curve in braille dots with marked points; whole characters where only ASCII may be used.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;

use super::{put, short};
use crate::tui::theme::Look;

/// A point that stands out.
#[derive(Debug, Clone, PartialEq)]
pub struct Mark {
    /// Its place: across, and up (more than 0).
    pub at: (f64, f64),
    /// What is written there.
    pub label: String,
    /// How.
    pub style: Style,
}

/// Draws `curve` and then `marks`. Up is logarithmic; across is the root of the distance from the left end, where such curves fall. `across` writes a value of the horizontal axis. Later marks win.
pub fn draw(curve: &[(f64, f64)], marks: &[Mark], across: impl Fn(f64) -> String, look: Look, area: Rect, buf: &mut Buffer) {
    let area = area.intersection(buf.area);
    let warp = |(x, y): (f64, f64)| (x, y.max(1e-12).log10());
    let points = || curve.iter().copied().chain(marks.iter().map(|m| m.at)).map(warp);
    if area.width < 8 || area.height < 4 || points().next().is_none() {
        return;
    }
    let fold = |pick: fn((f64, f64)) -> f64, best: fn(f64, f64) -> f64| points().map(pick).reduce(best).unwrap_or(0.0);
    let (left, right) = (fold(|p| p.0, f64::min), fold(|p| p.0, f64::max));
    let (bottom, top) = (fold(|p| p.1, f64::min), fold(|p| p.1, f64::max));
    let plot = Rect { height: area.height - 1, ..area };
    let (columns, rows) = (usize::from(plot.width) * 2, usize::from(plot.height) * 4);
    // The root of a share keeps the ends where they are.
    let share = |v: f64, low: f64, high: f64| if high > low { (v - low) / (high - low) } else { 0.5 };
    let dot = |p: (f64, f64)| {
        let (x, y) = warp(p);
        let across = share(x, left, right).sqrt() * (columns - 1) as f64;
        let down = (1.0 - share(y, bottom, top)) * (rows - 1) as f64;
        (across, down)
    };
    let mut dots = vec![0_u8; usize::from(plot.width) * usize::from(plot.height)];
    let mut set = |x: f64, y: f64| {
        const BITS: [[u8; 2]; 4] = [[0x01, 0x08], [0x02, 0x10], [0x04, 0x20], [0x40, 0x80]];
        let (x, y) = (x.round() as usize, y.round() as usize);
        if let Some(cell) = dots.get_mut(y / 4 * usize::from(plot.width) + x / 2) {
            *cell |= BITS[y % 4][x % 2];
        }
    };
    for pair in curve.windows(2) {
        let (from, to) = (dot(pair[0]), dot(pair[1]));
        let steps = (to.0 - from.0).abs().max((to.1 - from.1).abs()).ceil().max(1.0) as usize;
        for i in 0..=steps {
            let t = i as f64 / steps as f64;
            set(from.0 + (to.0 - from.0) * t, from.1 + (to.1 - from.1) * t);
        }
    }
    for (i, cell) in dots.iter().enumerate().filter(|(_, cell)| **cell != 0) {
        let glyph = if look.ascii { '.' } else { char::from_u32(0x2800 + u32::from(*cell)).unwrap_or('.') };
        let (x, y) = (i % usize::from(plot.width), i / usize::from(plot.width));
        put(buf, plot, x as u16, y as u16, &glyph.to_string(), Style::new());
    }
    let label = |buf: &mut Buffer, x: u16, y: u16, text: &str| put(buf, area, x, y, text, look.dim());
    label(buf, 0, 0, &short(10_f64.powf(top)));
    label(buf, 0, plot.height - 1, &short(10_f64.powf(bottom)));
    let (from, to) = (across(left), across(right));
    label(buf, 0, area.height - 1, &from);
    label(buf, area.width.saturating_sub(to.chars().count() as u16), area.height - 1, &to);
    for mark in marks {
        let (x, y) = dot(mark.at);
        let length = mark.label.chars().count() as u16;
        let x = ((x / 2.0) as u16).min(plot.width.saturating_sub(length));
        put(buf, plot, x, (y / 4.0) as u16, &mark.label, mark.style);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tui::theme::{Depth, Theme};

    #[test]
    fn a_curve_falls_from_the_left_to_the_right_and_marks_lie_on_it() {
        let area = Rect::new(0, 0, 20, 6);
        let mut buf = Buffer::empty(area);
        let look = Look { theme: Theme::DARK, own: &[], ascii: true, depth: Depth::True };
        let mark = Mark { at: (10.0, 0.001), label: "o".into(), style: Style::new() };
        draw(&[(1.0, 1.0), (10.0, 0.001)], &[mark], |v| format!("{v:.0}"), look, area, &mut buf);
        let line = |y: u16| (0..20).map(|x| buf[(x, y)].symbol()).collect::<String>();
        assert_eq!(line(4).trim_end().chars().last(), Some('o'));
        assert!(line(0).starts_with("1.00") && line(5).starts_with('1') && line(5).ends_with("10"), "{buf:?}");
        for (width, height) in [(0, 0), (1, 1), (8, 4), (300, 2)] {
            let area = Rect::new(0, 0, width, height);
            draw(&[(1.0, 0.0), (1.0, f64::NAN)], &[], |v| v.to_string(), look, area, &mut Buffer::empty(area));
        }
    }
}
