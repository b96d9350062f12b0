//! A frame as a PNG: letters from Noto Sans Mono, what tiles (blocks, lines, dots) drawn to the cell's edges.

use image::{ImageFormat, Rgb as Pixel, RgbImage};
use noto_sans_mono_bitmap::{FontWeight, RasterHeight, get_raster, get_raster_width};
use ratatui::buffer::Buffer;
use ratatui::style::Modifier;

use super::frame::{block, rgb, rows};
use super::theme::{Look, Rgb};
use super::widget::text::width;
use crate::error::{Error, Result};

const HEIGHT: RasterHeight = RasterHeight::Size20;
/// Rows of a cell.
const DOWN: u32 = 20;

/// Columns of a cell.
const fn across() -> u32 {
    get_raster_width(FontWeight::Regular, HEIGHT) as u32
}

/// A frame as the bytes of a PNG file.
///
/// # Errors
/// When it is empty.
pub fn encode(buf: &Buffer, look: Look) -> Result<Vec<u8>> {
    let mut bytes = std::io::Cursor::new(Vec::new());
    let drawn = draw(buf, look).write_to(&mut bytes, ImageFormat::Png);
    drawn.map_err(|e| Error::content("PNG", e.to_string(), "enlarge the terminal"))?;
    Ok(bytes.into_inner())
}

fn draw(buf: &Buffer, look: Look) -> RgbImage {
    let (ground, ink) = (look.theme.colors().ground, look.theme.colors().ink);
    let (r, g, b) = ground;
    let mut image = RgbImage::from_pixel(u32::from(buf.area.width) * across(), u32::from(buf.area.height) * DOWN, Pixel([r, g, b]));
    for (y, row) in rows(buf).enumerate() {
        for (x, cell) in row {
            let (mut front, mut back) = (rgb(cell.fg).unwrap_or(ink), rgb(cell.bg).unwrap_or(ground));
            if cell.modifier.contains(Modifier::REVERSED) {
                std::mem::swap(&mut front, &mut back);
            }
            let mut canvas = Canvas { image: &mut image, left: x as u32 * across(), top: y as u32 * DOWN, front, back };
            canvas.fill(0, 0, across() * width(cell.symbol()).max(1) as u32, DOWN, 255, true);
            let strength = if cell.modifier.contains(Modifier::DIM) { 153 } else { 255 };
            canvas.symbol(cell.symbol(), strength, cell.modifier.contains(Modifier::BOLD));
        }
    }
    image
}

/// One cell of the picture.
struct Canvas<'a> {
    image: &'a mut RgbImage,
    left: u32,
    top: u32,
    front: Rgb,
    back: Rgb,
}

impl Canvas<'_> {
    /// Mixes the front (or lays the back) into one pixel; 255 is all of it.
    fn dot(&mut self, x: u32, y: u32, strength: u32, ground: bool) {
        let (r, g, b) = if ground { self.back } else { self.front };
        let Some(pixel) = self.image.get_pixel_mut_checked(self.left + x, self.top + y) else { return };
        let mix = |under: u8, over: u8| ((u32::from(under) * (255 - strength) + u32::from(over) * strength) / 255) as u8;
        let Pixel([pr, pg, pb]) = *pixel;
        *pixel = Pixel([mix(pr, r), mix(pg, g), mix(pb, b)]);
    }

    fn fill(&mut self, x: u32, y: u32, width: u32, height: u32, strength: u32, ground: bool) {
        for dy in 0..height {
            for dx in 0..width {
                self.dot(x + dx, y + dy, strength, ground);
            }
        }
    }

    fn symbol(&mut self, symbol: &str, strength: u32, bold: bool) {
        let Some(character) = symbol.chars().next().filter(|c| *c != ' ') else { return };
        let (w, h) = (across() as f32, DOWN as f32);
        if let Some((x, y, bw, bh)) = block(symbol) {
            let edge = |part: f32, of: f32| (part * of).round() as u32;
            let (left, top) = (edge(x, w), edge(y, h));
            self.fill(left, top, edge(x + bw, w) - left, edge(y + bh, h) - top, strength, false);
        } else if let Some(share) = "░▒▓".chars().position(|c| c == character) {
            self.fill(0, 0, across(), DOWN, strength * (share as u32 + 1) / 4, false);
        } else if let Some((arms, thick)) = lines(character) {
            self.lines(arms, thick, strength);
        } else if ('\u{2800}'..='\u{28ff}').contains(&character) {
            self.braille(u32::from(character) - 0x2800, strength);
        } else {
            let weight = if bold { FontWeight::Bold } else { FontWeight::Regular };
            let plain = match character {
                '→' => '>',
                '←' => '<',
                '↑' => '^',
                '↓' => 'v',
                '…' => '~',
                '●' => 'o',
                '≠' => '!',
                'ᵀ' => '\'',
                other => other,
            };
            let Some(letter) = get_raster(plain, weight, HEIGHT).or_else(|| get_raster('?', weight, HEIGHT)) else { return };
            for (y, row) in letter.rows().enumerate() {
                for (x, value) in row.iter().enumerate().filter(|(_, value)| **value > 0) {
                    self.dot(x as u32, y as u32, u32::from(*value) * strength / 255, false);
                }
            }
        }
    }

    /// Arms from the middle of the cell: up, right, down, left.
    fn lines(&mut self, [up, right, down, left]: [bool; 4], thick: u32, strength: u32) {
        let (x, y) = (across() / 2, DOWN / 2);
        if up {
            self.fill(x, 0, thick, y, strength, false);
        }
        if down {
            self.fill(x, y, thick, DOWN - y, strength, false);
        }
        if left {
            self.fill(0, y, x, thick, strength, false);
        }
        if right {
            self.fill(x, y, across() - x, thick, strength, false);
        }
        self.fill(x, y, thick, thick, strength, false);
    }

    fn braille(&mut self, dots: u32, strength: u32) {
        const BITS: [[u32; 2]; 4] = [[0x01, 0x08], [0x02, 0x10], [0x04, 0x20], [0x40, 0x80]];
        for (row, bits) in (0_u32..).zip(BITS) {
            for (column, _) in (0_u32..).zip(bits).filter(|(_, bit)| dots & bit != 0) {
                let (x, y) = ((2 * column + 1) * across() / 4, (2 * row + 1) * DOWN / 8);
                self.fill(x.saturating_sub(1), y.saturating_sub(1), 2, 2, strength, false);
            }
        }
    }
}

/// The arms of a line character (up, right, down, left) and how thick they are.
const fn lines(character: char) -> Option<([bool; 4], u32)> {
    let (yes, no) = (true, false);
    Some(match character {
        '─' | '┈' | '╌' => ([no, yes, no, yes], 1),
        '│' | '┊' => ([yes, no, yes, no], 1),
        '━' | '═' | '┅' => ([no, yes, no, yes], 3),
        '╔' | '┏' => ([no, yes, yes, no], 3),
        '╗' | '┓' => ([no, no, yes, yes], 3),
        '╚' | '┗' => ([yes, yes, no, no], 3),
        '╝' | '┛' => ([yes, no, no, yes], 3),
        '┃' | '║' | '┇' => ([yes, no, yes, no], 3),
        '╭' | '┌' => ([no, yes, yes, no], 1),
        '╮' | '┐' => ([no, no, yes, yes], 1),
        '╰' | '└' => ([yes, yes, no, no], 1),
        '╯' | '┘' => ([yes, no, no, yes], 1),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use ratatui::layout::Rect;
    use ratatui::style::{Color, Style};

    use super::*;
    use crate::tui::theme::{Depth, Theme};

    #[test]
    fn letters_blocks_and_lines_leave_their_colour_where_they_stand() {
        let look = Look { theme: Theme::LIGHT, own: &[], ascii: false, depth: Depth::True };
        let mut buf = Buffer::empty(Rect::new(0, 0, 4, 1));
        buf.set_string(0, 0, "A█─⠁", Style::new().fg(Color::Rgb(200, 0, 0)));
        let picture = image::load_from_memory(&encode(&buf, look).unwrap()).unwrap().to_rgb8();
        assert_eq!(picture.dimensions(), (4 * across(), DOWN));
        let (r, g, b) = Theme::LIGHT.colors().ground;
        let share = |cell: u32| {
            let pixels = (0..DOWN).flat_map(|y| (0..across()).map(move |x| (x, y)));
            let inked = pixels.filter(|&(x, y)| *picture.get_pixel(cell * across() + x, y) != Pixel([r, g, b]));
            inked.count() as f32 / (across() * DOWN) as f32
        };
        assert_eq!(share(1), 1.0);
        assert!((0.1..0.6).contains(&share(0)) && (share(2) - 1.0 / DOWN as f32).abs() < 1e-6 && (0.005..0.1).contains(&share(3)));
    }
}
