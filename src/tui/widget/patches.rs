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

/// The part of a grid that an area has room for, and the cells of one patch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// Row and column of its first patch.
    pub first: (usize, usize),
    /// Its rows and columns.
    pub shown: (usize, usize),
    /// Cells that one patch takes, across and down.
    pub cell: (u16, u16),
}

impl Window {
    /// The whole grid where it fits, else the part around `focus`; `None` where there is no room at all.
    #[must_use]
    pub fn of(grid: (usize, usize), focus: (usize, usize), area: Rect) -> Option<Self> {
        let (rows, columns) = (grid.0.max(1) as u16, grid.1.max(1) as u16);
        if rows <= area.height && columns <= area.width {
            let down = (area.height / rows).min(area.width / (2 * columns)).max(1);
            let across = (area.width / columns).min(2 * down);
            return Some(Self { first: (0, 0), shown: grid, cell: (across, down) });
        }
        let room = (usize::from(area.height).min(grid.0), usize::from(area.width / 2).min(grid.1));
        let first = |focus: usize, room: usize, all: usize| focus.saturating_sub(room / 2).min(all - room);
        let first = (first(focus.0, room.0, grid.0), first(focus.1, room.1, grid.1));
        (room.0 > 0 && room.1 > 0).then_some(Self { first, shown: room, cell: (2, 1) })
    }

    /// `rows 0-27, columns 0-44`; nothing where all is seen.
    #[must_use]
    pub fn part(&self, grid: (usize, usize)) -> String {
        let one = |what: &str, first: usize, shown: usize| format!("{what} {first}-{}", first + shown - 1);
        if self.shown == grid {
            return String::new();
        }
        format!("{}, {}", one("rows", self.first.0, self.shown.0), one("columns", self.first.1, self.shown.1))
    }

    /// Row and column of every patch that is seen, with the cells that it takes in `area`.
    pub fn patches(self, area: Rect) -> impl Iterator<Item = ((usize, usize), Rect)> {
        let (width, height) = self.cell;
        let place = move |row: usize, column: usize| {
            let cells = Rect { x: area.x + column as u16 * width, y: area.y + row as u16 * height, width, height };
            ((self.first.0 + row, self.first.1 + column), cells.intersection(area))
        };
        (0..self.shown.0).flat_map(move |row| (0..self.shown.1).map(move |column| place(row, column)))
    }
}

/// Draws the part of `patches` (all of a grid, row by row) that `window` shows into `area`.
pub fn draw(patches: &[Patch], columns: usize, window: Window, look: Look, area: Rect, buf: &mut Buffer) {
    let area = area.intersection(buf.area);
    let (across, down) = window.cell;
    let inside = (0..window.shown.0).flat_map(|row| (0..window.shown.1).map(move |column| (row, column)));
    for (row, column) in inside {
        let Some(patch) = patches.get((window.first.0 + row) * columns + window.first.1 + column) else { continue };
        let (row, column) = (row as u16, column as u16);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grid_that_fits_is_whole_and_another_is_seen_around_the_cursor() {
        let area = Rect::new(0, 0, 58, 20);
        let whole = Window::of((16, 16), (15, 15), area).unwrap();
        assert_eq!((whole.first, whole.shown, whole.cell, whole.part((16, 16))), ((0, 0), (16, 16), (2, 1), String::new()));
        let under = |window: Window, x, y| window.patches(area).find(|(_, cells)| cells.contains((x, y).into())).map(|(place, _)| place);
        assert_eq!((under(whole, 31, 15), under(whole, 32, 0)), (Some((15, 15)), None));
        for (focus, first) in [((0, 0), (0, 0)), ((28, 30), (18, 16)), ((55, 55), (36, 27))] {
            let part = Window::of((56, 56), focus, area).unwrap();
            assert_eq!((part.first, part.shown), (first, (20, 29)));
            let (y, x) = ((focus.0 - first.0) as u16, 2 * (focus.1 - first.1) as u16);
            assert_eq!(under(part, x, y), Some(focus), "the cursor is inside");
        }
        assert_eq!(Window::of((56, 56), (0, 0), area).unwrap().part((56, 56)), "rows 0-19, columns 0-28");
        assert_eq!(Window::of((4, 4), (0, 0), Rect::new(0, 0, 1, 9)), None);
    }
}
