//! Masks of objects over a picture: every second cell of a mask is tinted; without colours it holds the number of its object, or the sign of
//! what became of it.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::{Color, Style};

use crate::analysis::mask::Mask;
use crate::tui::theme::Look;

/// What is tinted.
#[derive(Debug, Clone, Copy)]
pub enum Area<'m> {
    /// What is inside of a mask.
    Of(&'m Mask),
    /// What is inside of the first and not of the second, where there is one.
    Only(&'m Mask, Option<&'m Mask>),
}

/// One tint.
#[derive(Debug, Clone)]
pub struct Tint<'m> {
    /// Where it is.
    pub area: Area<'m>,
    /// A letter for terminals without colours.
    pub letter: char,
    /// Its colour.
    pub style: Style,
}

/// Tints the picture that fills `area` and shows `part` of the input: left, top, right and bottom as shares. Later ones lie on top.
pub fn draw(tints: &[Tint], part: [f64; 4], look: Look, area: Rect, buf: &mut Buffer) {
    let [left, top, right, bottom] = part;
    for y in 0..area.height {
        for x in (0..area.width).filter(|x| (x + y) % 2 == 0) {
            let across = left + (f64::from(x) + 0.5) / f64::from(area.width) * (right - left);
            let down = top + (f64::from(y) + 0.5) / f64::from(area.height) * (bottom - top);
            let inside = |tint: &&Tint| match tint.area {
                Area::Of(mask) => mask.is_inside(across, down),
                Area::Only(one, other) => one.is_inside(across, down) && !other.is_some_and(|other| other.is_inside(across, down)),
            };
            let (Some(tint), Some(cell)) = (tints.iter().rev().find(inside), buf.cell_mut((area.x + x, area.y + y))) else { continue };
            match (tint.style.fg, cell.fg, cell.bg) {
                (Some(colour @ Color::Rgb(..)), upper @ Color::Rgb(..), lower @ Color::Rgb(..)) if look.has_color() && !look.ascii => {
                    cell.set_fg(mean(colour, upper)).set_bg(mean(colour, lower));
                }
                _ => {
                    cell.set_char(tint.letter).set_style(tint.style);
                }
            }
        }
    }
}

/// Half of one colour and half of another.
const fn mean(one: Color, other: Color) -> Color {
    match (one, other) {
        (Color::Rgb(r, g, b), Color::Rgb(s, h, c)) => Color::Rgb(r.midpoint(s), g.midpoint(h), b.midpoint(c)),
        (one, _) => one,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tui::theme::{Depth, Theme};

    #[test]
    fn every_second_cell_of_a_mask_is_tinted_or_holds_its_letter() {
        let mask = Mask { size: (1, 2), logits: vec![1.0, -1.0], within: None };
        let area = Rect::new(0, 0, 8, 2);
        for (depth, ascii) in [(Depth::True, false), (Depth::Sixteen, true)] {
            let look = Look { theme: Theme::DARK, own: &[], ascii, depth };
            let mut buf = Buffer::empty(area);
            for cell in &mut buf.content {
                cell.set_char('▀').set_fg(Color::Rgb(0, 0, 0)).set_bg(Color::Rgb(100, 100, 100));
            }
            let style = Style::new().fg(Color::Rgb(200, 0, 0));
            draw(&[Tint { area: Area::Of(&mask), letter: '3', style }], [0.0, 0.0, 1.0, 1.0], look, area, &mut buf);
            let touched: Vec<(u16, u16)> = (0..2)
                .flat_map(|y| (0..8).map(move |x| (x, y)))
                .filter(|at| buf[*at].fg != Color::Rgb(0, 0, 0) || buf[*at].symbol() == "3")
                .collect();
            assert_eq!(touched, [(0, 0), (2, 0), (1, 1), (3, 1)], "{depth:?}");
            if !ascii {
                assert_eq!((buf[(0, 0)].fg, buf[(0, 0)].bg), (Color::Rgb(100, 0, 0), Color::Rgb(150, 50, 50)));
            }
            // What is only in one of two equal masks is nowhere.
            let before = buf.clone();
            draw(&[Tint { area: Area::Only(&mask, Some(&mask)), letter: '-', style }], [0.0, 0.0, 1.0, 1.0], look, area, &mut buf);
            assert_eq!(buf, before);
        }
    }
}
