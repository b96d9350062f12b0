//! A map over the patches of a picture: one block of cells a patch, coloured, with an optional digit.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::{Color, Modifier, Style};

use super::put;
use crate::tui::theme::Look;

/// How one patch is drawn.
#[derive(Debug, Clone, Copy)]
pub struct Patch {
    /// Its colour as ground.
    pub ground: Color,
    /// Its place between 0 and 1, for terminals without colours.
    pub level: f64,
    /// A character in its middle.
    pub digit: Option<char>,
    /// Whether it is under the cursor.
    pub selected: bool,
}

/// Cells that one patch takes, across and down; `None` where the grid does not fit.
#[must_use]
pub fn cell_size(grid: (usize, usize), area: Rect) -> Option<(u16, u16)> {
    let (rows, columns) = (grid.0.max(1) as u16, grid.1.max(1) as u16);
    let down = (area.height / rows).min(area.width / (2 * columns)).max(1);
    let across = (area.width / columns).min(2 * down);
    (rows <= area.height && across >= 1).then_some((across, down))
}

/// Draws `patches`, row by row, into `area`.
pub fn draw(patches: &[Patch], grid: (usize, usize), look: Look, area: Rect, buf: &mut Buffer) {
    let area = area.intersection(buf.area);
    let Some((across, down)) = cell_size(grid, area) else {
        put(buf, area, 0, 0, &format!("needs {}x{} cells", grid.1, grid.0), look.dim());
        return;
    };
    for (index, patch) in patches.iter().enumerate().take(grid.0 * grid.1) {
        let (row, column) = ((index / grid.1) as u16, (index % grid.1) as u16);
        let middle = patch.digit.map(String::from).unwrap_or_default();
        for dy in 0..down {
            for dx in 0..across {
                let (x, y) = (area.x + column * across + dx, area.y + row * down + dy);
                let Some(cell) = buf.cell_mut((x, y)) else { continue };
                if look.has_color() && !look.ascii {
                    cell.set_symbol(" ").set_style(Style::new().bg(patch.ground).fg(contrast(patch.ground)));
                } else {
                    cell.set_char(look.ramp(patch.level));
                }
            }
        }
        let (x, y) = (column * across + (across - 1) / 2, row * down + (down - 1) / 2);
        let style = Style::new().add_modifier(Modifier::BOLD);
        if patch.selected {
            let marker = if across >= 2 { format!("[{}]", if middle.is_empty() { " " } else { &middle }) } else { "X".into() };
            let marker: String = marker.chars().take(usize::from(across).max(1)).collect();
            put(buf, area, column * across, y, &marker, style.add_modifier(Modifier::REVERSED));
        } else if !middle.is_empty() {
            put(buf, area, x, y, &middle, style);
        }
    }
}

/// Black or white, whichever reads on `ground`.
fn contrast(ground: Color) -> Color {
    match ground {
        Color::Rgb(r, g, b) if u32::from(r) * 3 + u32::from(g) * 6 + u32::from(b) < 1300 => Color::Rgb(240, 240, 240),
        Color::Rgb(..) => Color::Rgb(15, 15, 15),
        Color::Black | Color::Blue | Color::DarkGray | Color::Indexed(16..=60 | 232..=243) => Color::White,
        _ => Color::Black,
    }
}
