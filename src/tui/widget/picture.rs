//! The picture that the model sees, in half blocks, with its patches as a checkerboard of two tints.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Color;

use crate::session::PictureView;
use crate::tui::theme::Look;

/// The cells that a picture takes in an area.
#[must_use]
pub fn place(view: &PictureView, area: Rect) -> Rect {
    if area.is_empty() || view.width == 0 || view.height == 0 {
        return Rect::default();
    }
    let (across, down) = fit(view, area);
    Rect { x: area.x + (area.width - across as u16) / 2, y: area.y, width: across as u16, height: (down / 2) as u16 }
}

/// The part of a picture between left, top, right and bottom, as shares; at least a pixel.
#[must_use]
pub fn part(view: &PictureView, [left, top, right, bottom]: [f64; 4]) -> PictureView {
    let ends = |from: f64, to: f64, length: usize| {
        let first = ((from.clamp(0.0, 1.0) * length as f64) as usize).min(length.saturating_sub(1));
        (first, ((to.clamp(0.0, 1.0) * length as f64).ceil() as usize).clamp(first + 1, length.max(first + 1)))
    };
    let ((x0, x1), (y0, y1)) = (ends(left, right, view.width), ends(top, bottom, view.height));
    let rgb = (y0..y1).flat_map(|y| (x0..x1).filter_map(move |x| view.rgb.get(y * view.width + x).copied())).collect();
    PictureView { width: x1 - x0, height: y1 - y0, rgb }
}

/// Draws `view` into `area`, as large as its proportions allow; `grid` is rows and columns of patches.
pub fn draw(view: &PictureView, grid: (usize, usize), look: Look, area: Rect, buf: &mut Buffer) {
    let area = area.intersection(buf.area);
    if area.is_empty() || view.width == 0 || view.height == 0 {
        return;
    }
    let (across, down) = fit(view, area);
    let colour = |x: usize, y: usize| {
        let (px, py) = (x * view.width / across, y * view.height / down);
        let patch = px * grid.1 / view.width + py * grid.0 / view.height;
        tint(view.rgb[py * view.width + px], patch % 2 == 1)
    };
    let left = area.x + (area.width - across as u16) / 2;
    for row in 0..down / 2 {
        for x in 0..across {
            let (top, bottom) = (colour(x, 2 * row), colour(x, 2 * row + 1));
            let Some(cell) = buf.cell_mut((left + x as u16, area.y + row as u16)) else { continue };
            if look.has_color() && !look.ascii {
                cell.set_char('▀').set_fg(look.rgb(top)).set_bg(look.rgb(bottom));
            } else {
                let luma = |(r, g, b): (u8, u8, u8)| (f64::from(r) * 0.299 + f64::from(g) * 0.587 + f64::from(b) * 0.114) / 255.0;
                cell.set_char(look.ramp(luma(top).midpoint(luma(bottom)))).set_fg(Color::Reset);
            }
        }
    }
}

/// The picture's pixels, row by row, every other patch tinted; `grid` is rows and columns of patches.
#[must_use]
pub fn tinted(view: &PictureView, grid: (usize, usize)) -> Vec<[u8; 3]> {
    let pixels = (0..view.height).flat_map(|y| (0..view.width).map(move |x| (x, y)));
    let colour = |(x, y): (usize, usize)| {
        let patch = x * grid.1 / view.width + y * grid.0 / view.height;
        let (r, g, b) = tint(view.rgb[y * view.width + x], patch % 2 == 1);
        [r, g, b]
    };
    pixels.map(colour).collect()
}

/// Half-block pixels across and down (an even number) that keep the proportions.
fn fit(view: &PictureView, area: Rect) -> (usize, usize) {
    let (room_across, room_down) = (usize::from(area.width), usize::from(area.height) * 2);
    let across = room_across.min(room_down * view.width / view.height).max(1);
    let down = (across * view.height / view.width).clamp(2, room_down);
    (across, down / 2 * 2)
}

fn tint([r, g, b]: [u8; 3], odd: bool) -> (u8, u8, u8) {
    let lift = |v: u8, towards: u8| if odd { v + (f64::from(towards.saturating_sub(v)) * 0.16) as u8 } else { v };
    (lift(r, 120), lift(g, 170), lift(b, 255))
}
