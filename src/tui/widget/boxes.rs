//! Boxes of objects over a picture: lines that tell what became of each, its number at its corner, the picture behind.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::{Color, Modifier, Style};

use crate::tui::theme::Look;

/// How a box is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Line {
    /// What is there.
    Single,
    /// What was there.
    Dotted,
    /// What is there alone.
    Double,
}

/// One box.
#[derive(Debug, Clone)]
pub struct Frame {
    /// Left, top, right and bottom as shares of the picture.
    pub corners: [f64; 4],
    /// Its line.
    pub line: Line,
    /// Its number, at its upper left.
    pub label: String,
    /// Its colour, which only repeats what line and list say.
    pub style: Style,
    /// Whether it is under the cursor.
    pub selected: bool,
}

impl Line {
    /// Across, down, and the four corners from the upper left on.
    const fn glyphs(self, ascii: bool, heavy: bool) -> [&'static str; 6] {
        match (self, ascii) {
            (Self::Single, false) if heavy => ["━", "┃", "┏", "┓", "┗", "┛"],
            (Self::Dotted, false) if heavy => ["┅", "┇", "┏", "┓", "┗", "┛"],
            (Self::Single, false) => ["─", "│", "┌", "┐", "└", "┘"],
            (Self::Dotted, false) => ["┈", "┊", "┌", "┐", "└", "┘"],
            (Self::Double, false) => ["═", "║", "╔", "╗", "╚", "╝"],
            (Self::Single, true) => ["-", "|", "+", "+", "+", "+"],
            (Self::Dotted, true) => [".", ":", ".", ".", ":", ":"],
            (Self::Double, true) => ["#"; 6],
        }
    }
}

/// Draws boxes over the picture that fills `area`; those later in the list lie on top. Gives the cells of each.
pub fn draw(frames: &[Frame], look: Look, area: Rect, buf: &mut Buffer) -> Vec<Rect> {
    frames.iter().map(|frame| one(frame, look, area, buf)).collect()
}

fn one(frame: &Frame, look: Look, area: Rect, buf: &mut Buffer) -> Rect {
    let [left, top, right, bottom] = frame.corners;
    if area.is_empty() || right <= 0.0 || bottom <= 0.0 || left >= 1.0 || top >= 1.0 {
        return Rect::default();
    }
    let place = |share: f64, length: u16| ((share.clamp(0.0, 1.0) * f64::from(length)) as u16).min(length - 1);
    let (x0, y0) = (area.x + place(left, area.width), area.y + place(top, area.height));
    let (x1, y1) = (area.x + place(right, area.width), area.y + place(bottom, area.height));
    let [across, down, tl, tr, bl, br] = frame.line.glyphs(look.ascii, frame.selected);
    let mut style = frame.style;
    if frame.selected {
        style = style.add_modifier(if look.ascii { Modifier::BOLD | Modifier::REVERSED } else { Modifier::BOLD });
    }
    for x in x0..=x1 {
        for (y, glyph) in [(y0, across), (y1, across)] {
            line(buf, x, y, glyph, style, look);
        }
    }
    for y in y0..=y1 {
        for (x, glyph) in [(x0, down), (x1, down)] {
            line(buf, x, y, glyph, style, look);
        }
    }
    for (x, y, glyph) in [(x0, y0, tl), (x1, y0, tr), (x0, y1, bl), (x1, y1, br)] {
        line(buf, x, y, glyph, style, look);
    }
    for (x, letter) in (x0..=x1).zip(frame.label.chars()) {
        line(buf, x, y0, &letter.to_string(), style.add_modifier(Modifier::BOLD), look);
    }
    Rect { x: x0, y: y0, width: x1 - x0 + 1, height: y1 - y0 + 1 }
}

/// A glyph over the picture, whose two half pixels become their mean behind it.
fn line(buf: &mut Buffer, x: u16, y: u16, glyph: &str, style: Style, look: Look) {
    let Some(cell) = buf.cell_mut((x, y)) else { return };
    let ground = match (cell.fg, cell.bg) {
        (Color::Rgb(r, g, b), Color::Rgb(s, h, c)) if cell.symbol() == "▀" => Color::Rgb(r.midpoint(s), g.midpoint(h), b.midpoint(c)),
        (_, ground) => ground,
    };
    cell.reset();
    cell.set_symbol(glyph).set_style(style);
    if look.has_color() {
        cell.set_bg(ground);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tui::theme::{Depth, Theme};

    #[test]
    fn a_box_lies_where_its_shares_say_and_keeps_the_picture_behind() {
        let look = Look { theme: Theme::DARK, own: &[], ascii: false, depth: Depth::True };
        let area = Rect::new(1, 1, 10, 6);
        let mut buf = Buffer::empty(Rect::new(0, 0, 12, 8));
        for y in 1..7 {
            for x in 1..11 {
                buf[(x, y)].set_char('▀').set_fg(Color::Rgb(100, 0, 0)).set_bg(Color::Rgb(0, 100, 0));
            }
        }
        let frame = |corners, line| Frame { corners, line, label: "7".into(), style: Style::new(), selected: false };
        let placed = draw(&[frame([0.2, 0.0, 0.7, 0.9], Line::Double)], look, area, &mut buf);
        assert_eq!(placed, [Rect::new(3, 1, 6, 6)]);
        let at = |x: u16, y: u16| buf[(x, y)].symbol();
        assert_eq!((at(3, 1), at(5, 1), at(8, 1), at(3, 3), at(8, 6), at(5, 3)), ("7", "═", "╗", "║", "╝", "▀"));
        assert_eq!(buf[(5, 1)].bg, Color::Rgb(50, 50, 0));
        // Outside of the picture nothing is drawn, and no size panics.
        for corners in [[-1.0, -1.0, -0.5, -0.5], [1.0, 0.0, 2.0, 1.0], [-3.0, -3.0, 5.0, 5.0], [0.5, 0.5, 0.5, 0.5]] {
            for (width, height) in [(1, 1), (10, 6), (0, 3)] {
                draw(&[frame(corners, Line::Dotted)], look, Rect::new(1, 1, width, height), &mut buf);
            }
        }
    }
}
