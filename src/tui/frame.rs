//! One frame without a terminal: drawn on a buffer, written as text, with escape sequences, or as SVG.

use ratatui::buffer::{Buffer, Cell};
use ratatui::layout::Rect;
use ratatui::style::{Color, Modifier};

use super::app::App;
use super::chrome;
use super::hit::Hits;
use super::theme::{Look, Rgb};
use super::widget::text;
use crate::error::Result;

/// Draws the screen at a size.
///
/// # Errors
/// Never today; drawing may need fonts one day.
pub fn render(app: &App, width: u16, height: u16) -> Result<Buffer> {
    Ok(draw(app, width, height).0)
}

/// The same, with what a click can land on.
#[must_use]
pub fn draw(app: &App, width: u16, height: u16) -> (Buffer, Hits) {
    let area = Rect::new(0, 0, width, height);
    let mut buf = Buffer::empty(area);
    let hits = chrome::render(app, area, &mut buf);
    (buf, hits)
}

/// The cells of every row, each with its column; cells that a wide character to their left covers are left out.
pub(super) fn rows(buf: &Buffer) -> impl Iterator<Item = Vec<(usize, &Cell)>> {
    buf.content.chunks(usize::from(buf.area.width).max(1)).map(|row| {
        let mut free = 0;
        let seen = row.iter().enumerate().filter(move |(x, cell)| {
            let seen = *x >= free;
            if seen {
                free = x + text::width(cell.symbol()).max(1);
            }
            seen
        });
        seen.collect()
    })
}

/// Characters only, spaces at the ends of lines cut.
#[must_use]
pub fn to_text(buf: &Buffer) -> String {
    let line = |row: Vec<(usize, &Cell)>| row.iter().map(|(_, cell)| cell.symbol()).collect::<String>().trim_end().to_string() + "\n";
    rows(buf).map(line).collect()
}

/// Characters with escape sequences for colour.
#[must_use]
pub fn to_ansi(buf: &Buffer) -> String {
    let mut text = String::new();
    for row in rows(buf) {
        let mut last = None;
        for (_, cell) in row {
            let style = (cell.fg, cell.bg, cell.modifier);
            if last != Some(style) {
                text += &sgr(cell);
                last = Some(style);
            }
            text += cell.symbol();
        }
        text += "\x1b[0m\n";
    }
    text
}

fn sgr(cell: &Cell) -> String {
    let mut codes = vec!["0".to_string()];
    for (modifier, code) in [(Modifier::BOLD, "1"), (Modifier::DIM, "2"), (Modifier::REVERSED, "7")] {
        if cell.modifier.contains(modifier) {
            codes.push(code.into());
        }
    }
    codes.extend(color_code(cell.fg, 38));
    codes.extend(color_code(cell.bg, 48));
    format!("\x1b[{}m", codes.join(";"))
}

fn color_code(color: Color, kind: u8) -> Option<String> {
    match color {
        Color::Reset => None,
        Color::Rgb(r, g, b) => Some(format!("{kind};2;{r};{g};{b}")),
        Color::Indexed(i) => Some(format!("{kind};5;{i}")),
        named => Some(format!("{kind};5;{}", sixteen(named))),
    }
}

const fn sixteen(color: Color) -> u8 {
    match color {
        Color::Black => 0,
        Color::Red => 1,
        Color::Green => 2,
        Color::Yellow => 3,
        Color::Blue => 4,
        Color::Magenta => 5,
        Color::Cyan => 6,
        Color::DarkGray => 8,
        Color::LightRed => 9,
        Color::LightGreen => 10,
        Color::LightYellow => 11,
        Color::LightBlue => 12,
        Color::LightMagenta => 13,
        Color::LightCyan => 14,
        Color::White => 15,
        _ => 7,
    }
}

/// Width and height of a cell in the SVG.
const CELL: (f32, f32) = (8.4, 17.0);

/// Text as it may stand in XML and HTML.
#[must_use]
pub fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// A page in Markdown: the verdict, the frame as it stands, and the command line that gives the run again.
#[must_use]
pub fn to_markdown(buf: &Buffer, verdict: &str, command: &str) -> String {
    format!("{verdict}\n\n```text\n{}```\n\n```sh\n{command}\n```\n", to_text(buf))
}

/// A picture for documents in the colours of the theme: blocks as rectangles, the rest as text; `command` is its description.
#[must_use]
pub fn to_svg(buf: &Buffer, look: Look, command: &str) -> String {
    let (columns, lines) = (buf.area.width, buf.area.height);
    let (width, height) = (f32::from(columns) * CELL.0, f32::from(lines) * CELL.1);
    let colors = look.theme.colors();
    let (ground, ink) = (hex(colors.ground), hex(colors.ink));
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width:.0}\" height=\"{height:.0}\" viewBox=\"0 0 {width:.1} {height:.1}\" font-family=\"DejaVu Sans Mono, Menlo, Consolas, monospace\" font-size=\"14\" xml:space=\"preserve\">\n<desc>{}</desc>\n<rect width=\"100%\" height=\"100%\" fill=\"{ground}\"/>\n",
        escaped(command)
    );
    for (y, row) in rows(buf).enumerate() {
        let top = y as f32 * CELL.1;
        let mut run: Option<Run> = None;
        for (x, cell) in row {
            let (mut front, mut back) = (rgb(cell.fg).map_or_else(|| ink.clone(), hex), rgb(cell.bg).map_or_else(|| ground.clone(), hex));
            if cell.modifier.contains(Modifier::REVERSED) {
                std::mem::swap(&mut front, &mut back);
            }
            let left = x as f32 * CELL.0;
            let symbol = cell.symbol();
            if back != ground {
                svg += &rect(left, top, CELL.0 * text::width(symbol).max(1) as f32, CELL.1, &back);
            }
            let boxed = block(symbol);
            if let Some((bx, by, bw, bh)) = boxed {
                svg += &rect(left + bx * CELL.0, top + by * CELL.1, bw * CELL.0, bh * CELL.1, &front);
            }
            let look = (front, cell.modifier.contains(Modifier::BOLD), cell.modifier.contains(Modifier::DIM));
            let shown = if boxed.is_some() { " " } else { symbol };
            match &mut run {
                Some(open) if open.look == look => open.text.push_str(shown),
                _ => {
                    svg += &run.take().map(|r| r.write(top)).unwrap_or_default();
                    run = Some(Run { left, text: shown.into(), look });
                }
            }
        }
        svg += &run.take().map(|r| r.write(top)).unwrap_or_default();
    }
    svg + "</svg>\n"
}

/// Neighbouring characters of one look.
struct Run {
    left: f32,
    text: String,
    look: (String, bool, bool),
}

impl Run {
    fn write(self, top: f32) -> String {
        if self.text.trim().is_empty() {
            return String::new();
        }
        let (color, bold, dim) = self.look;
        let lead = self.text.chars().take_while(|c| *c == ' ').count();
        let plain = self.text.trim();
        let length = text::width(plain) as f32 * CELL.0;
        let escaped = escaped(plain);
        let weight = if bold { " font-weight=\"bold\"" } else { "" };
        let faint = if dim { " opacity=\"0.6\"" } else { "" };
        format!(
            "<text x=\"{:.1}\" y=\"{:.1}\" textLength=\"{length:.1}\" lengthAdjust=\"spacing\" fill=\"{color}\"{weight}{faint}>{escaped}</text>\n",
            self.left + lead as f32 * CELL.0,
            top + 13.0
        )
    }
}

fn rect(x: f32, y: f32, width: f32, height: f32, color: &str) -> String {
    // A hair wider than the cell, so that neighbours leave no seam.
    format!("<rect x=\"{x:.2}\" y=\"{y:.2}\" width=\"{:.2}\" height=\"{:.2}\" fill=\"{color}\"/>\n", width + 0.15, height + 0.15)
}

/// Block characters as a rectangle of the cell: left, top, width, height.
pub(super) fn block(symbol: &str) -> Option<(f32, f32, f32, f32)> {
    let character = symbol.chars().next()?;
    match character {
        '█' => Some((0.0, 0.0, 1.0, 1.0)),
        '▀' => Some((0.0, 0.0, 1.0, 0.5)),
        '▁'..='▇' => {
            let part = (u32::from(character) - 0x2580) as f32 / 8.0;
            Some((0.0, 1.0 - part, 1.0, part))
        }
        '▉'..='▏' => {
            let part = (0x2590 - u32::from(character)) as f32 / 8.0;
            Some((0.0, 0.0, part, 1.0))
        }
        _ => None,
    }
}

fn hex((r, g, b): Rgb) -> String {
    format!("#{r:02x}{g:02x}{b:02x}")
}

/// A colour of the screen; none for that of the ground or of text.
pub(super) fn rgb(color: Color) -> Option<Rgb> {
    // The usual 16 colours of terminals.
    const NAMED: [Rgb; 16] = [
        (0, 0, 0),
        (205, 49, 49),
        (13, 188, 121),
        (229, 229, 16),
        (36, 114, 200),
        (188, 63, 188),
        (17, 168, 205),
        (197, 200, 198),
        (102, 102, 102),
        (241, 76, 76),
        (35, 209, 139),
        (245, 245, 67),
        (59, 142, 234),
        (214, 112, 214),
        (41, 184, 219),
        (255, 255, 255),
    ];
    match color {
        Color::Reset => None,
        Color::Rgb(r, g, b) => Some((r, g, b)),
        Color::Indexed(i @ 0..16) => Some(NAMED[usize::from(i)]),
        Color::Indexed(i @ 16..232) => {
            let level = |v: u8| if v == 0 { 0 } else { 55 + 40 * v };
            let i = i - 16;
            Some((level(i / 36), level(i / 6 % 6), level(i % 6)))
        }
        Color::Indexed(i) => Some((8 + 10 * (i - 232), 8 + 10 * (i - 232), 8 + 10 * (i - 232))),
        named => Some(NAMED[usize::from(sixteen(named))]),
    }
}
