//! Channels as thin vertical bars from their min to their max, coloured by group, with the group's digit beneath.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Modifier;

use super::put;
use crate::tui::theme::{Look, group_digit};

/// One channel to draw.
#[derive(Debug, Clone, Copy)]
pub struct Bar {
    /// Its number in the site.
    pub channel: usize,
    /// Smallest value of this picture.
    pub min: f32,
    /// Largest value of this picture.
    pub max: f32,
    /// Its group, where the site is quantized.
    pub group: Option<usize>,
    /// The bounds of its group's quantizer: what lies beyond is clipped, and drawn so.
    pub bounds: Option<(f32, f32)>,
    /// Whether it stands out: it moved to another group, or its group is under the cursor.
    pub marked: bool,
}

/// How values become heights.
#[derive(Debug, Clone, Copy)]
pub struct Scale {
    /// Value at the bottom.
    pub low: f32,
    /// Value at the top.
    pub high: f32,
    /// Whether heights grow with the logarithm of the distance from zero.
    pub logarithmic: bool,
}

impl Scale {
    fn warp(self, value: f32) -> f64 {
        let unit = f64::from(self.high.max(-self.low)).max(1e-12) / 100.0;
        let value = f64::from(value);
        if self.logarithmic { value.signum() * (value.abs() / unit).ln_1p() } else { value }
    }

    /// Height of `value` in eighths of a cell, of `rows` cells, from the bottom.
    fn eighths(self, value: f32, rows: u16) -> usize {
        let (low, high) = (self.warp(self.low), self.warp(self.high));
        let share = if high > low { (self.warp(value) - low) / (high - low) } else { 0.5 };
        (share.clamp(0.0, 1.0) * f64::from(rows) * 8.0).round() as usize
    }
}

impl Scale {
    /// The line, from the top, of `value` among `rows`.
    #[must_use]
    pub fn row(self, value: f32, rows: u16) -> u16 {
        let rows = rows.max(1);
        rows - 1 - ((self.eighths(value, rows) / 8) as u16).min(rows - 1)
    }
}

/// Draws one bar a column; the last row holds the groups' digits. `bounds` are lines of the group under the cursor.
pub fn draw(
    bars: &[Bar],
    groups: usize,
    scale: Scale,
    cursor: Option<usize>,
    bounds: Option<(f32, f32)>,
    look: Look,
    area: Rect,
    buf: &mut Buffer,
) {
    let area = area.intersection(buf.area);
    if area.height < 2 || area.width == 0 {
        return;
    }
    let rows = area.height - 1;
    let line = |buf: &mut Buffer, value: f32, glyph: &str, style| {
        put(buf, area, 0, scale.row(value, rows), &glyph.repeat(usize::from(area.width)), style);
    };
    if scale.low <= 0.0 && scale.high >= 0.0 {
        line(buf, 0.0, "┈", look.dim());
    }
    if let Some((lower, upper)) = bounds {
        line(buf, lower, "╌", look.accent());
        line(buf, upper, "╌", look.accent());
    }
    for (x, bar) in bars.iter().take(usize::from(area.width)).enumerate() {
        let x = x as u16;
        let mut style = bar.group.map_or(look.dim(), |group| look.group(group, groups));
        if bar.marked {
            style = style.add_modifier(Modifier::BOLD);
        }
        let bottom = scale.eighths(bar.min, rows);
        let top = scale.eighths(bar.max, rows).max(bottom + 1);
        for row in bottom / 8..=((top - 1) / 8) {
            let y = rows.saturating_sub(1 + row as u16);
            let (from, to) = (bottom.saturating_sub(row * 8), (top - row * 8).min(8));
            let clipped = bar.bounds.is_some_and(|(lower, upper)| {
                (bar.max > upper && row * 8 >= scale.eighths(upper, rows))
                    || (bar.min < lower && (row + 1) * 8 <= scale.eighths(lower, rows))
            });
            if clipped {
                put(buf, area, x, y, look.glyph("░", "'"), style);
                continue;
            }
            match (from, to) {
                (0, 8) => put(buf, area, x, y, "█", style),
                (0, part) => put(buf, area, x, y, lower_block(part), style),
                // A bar that ends above the cell's floor: the empty part is drawn in the ground's colour.
                (part, 8) => put(buf, area, x, y, lower_block(part), style.add_modifier(Modifier::REVERSED)),
                _ => put(buf, area, x, y, "━", style),
            }
        }
        let digit = bar.group.map_or('·', group_digit).to_string();
        let here = cursor == Some(bar.channel);
        put(buf, area, x, rows, &digit, if here { style.add_modifier(Modifier::REVERSED | Modifier::BOLD) } else { style });
        if here {
            for y in 0..rows {
                if let Some(cell) = buf.cell_mut((area.x + x, area.y + y))
                    && matches!(cell.symbol(), " " | "┈" | "╌")
                {
                    cell.set_symbol("┊").set_style(look.accent());
                }
            }
        }
    }
}

/// Draws two bars a column, in quarters of a cell; a cell that both share has the colour of the one on its left.
pub fn dense(
    bars: &[Bar],
    groups: usize,
    scale: Scale,
    cursor: Option<usize>,
    bounds: Option<(f32, f32)>,
    look: Look,
    area: Rect,
    buf: &mut Buffer,
) {
    // Of a bit each: upper left, upper right, lower left, lower right.
    const QUARTERS: [&str; 16] = [" ", "▘", "▝", "▀", "▖", "▌", "▞", "▛", "▗", "▚", "▐", "▜", "▄", "▙", "▟", "█"];
    let area = area.intersection(buf.area);
    if area.height < 2 || area.width == 0 {
        return;
    }
    // Axis, bounds and digits as ever, with the left bar of each pair; its bars are drawn over.
    let left: Vec<Bar> = bars.chunks(2).map(|pair| pair[0]).collect();
    let shown =
        cursor.and_then(|channel| bars.chunks(2).find(|pair| pair.iter().any(|bar| bar.channel == channel))).map(|pair| pair[0].channel);
    draw(&left, groups, scale, shown, bounds, look, area, buf);
    let rows = area.height - 1;
    for (x, pair) in (0_u16..).zip(bars.chunks(2)).take(usize::from(area.width)) {
        for y in 0..rows {
            let floor = usize::from(rows - 1 - y) * 2;
            let fills = |bar: &Bar, half: usize| {
                let bottom = scale.eighths(bar.min, rows) / 4;
                let top = scale.eighths(bar.max, rows).div_ceil(4).max(bottom + 1);
                (bottom..top).contains(&(floor + half))
            };
            let bits = pair
                .iter()
                .enumerate()
                .fold(0, |bits, (side, bar)| bits | (usize::from(fills(bar, 1)) << side) | (usize::from(fills(bar, 0)) << (side + 2)));
            let Some(cell) = buf.cell_mut((area.x + x, area.y + y)) else { continue };
            if bits == 0 {
                if !matches!(cell.symbol(), "┈" | "╌" | "┊") {
                    cell.set_symbol(" ");
                }
                continue;
            }
            let of_right = bits & 0b0101 == 0;
            let bar = if of_right { pair.last().unwrap_or(&pair[0]) } else { &pair[0] };
            let mut style = bar.group.map_or(look.dim(), |group| look.group(group, groups));
            if bar.marked {
                style = style.add_modifier(Modifier::BOLD);
            }
            cell.reset();
            cell.set_symbol(QUARTERS[bits]).set_style(style);
        }
    }
}

fn lower_block(eighths: usize) -> &'static str {
    ["▁", "▂", "▃", "▄", "▅", "▆", "▇"][eighths.clamp(1, 7) - 1]
}

#[cfg(test)]
mod tests {
    use ratatui::style::Color;

    use super::*;
    use crate::tui::theme::{Depth, Theme};

    #[test]
    fn bars_stand_where_their_values_are_in_their_groups_colour() {
        let look = Look { theme: Theme::DARK, own: &[], ascii: false, depth: Depth::True };
        let bar = |channel, min, max, group| Bar { channel, min, max, group: Some(group), bounds: None, marked: false };
        let bars = [bar(0, -1.0, 1.0, 1), bar(1, 0.0, 1.0, 0), bar(2, -1.0, 0.0, 0)];
        let area = Rect::new(0, 0, 3, 5);
        let mut buf = Buffer::empty(area);
        draw(&bars, 2, Scale { low: -1.0, high: 1.0, logarithmic: false }, None, None, look, area, &mut buf);
        let column = |x: u16| (0..5).map(|y| buf[(x, y)].symbol().to_string()).collect::<String>();
        assert_eq!(column(0), "████1");
        assert_eq!(&column(1)[..6], "██");
        assert_eq!(column(2).chars().nth(3), Some('█'));
        assert_eq!(buf[(0, 0)].fg, look.group(1, 2).fg.unwrap_or(Color::Reset));
        assert_ne!(buf[(0, 0)].fg, buf[(1, 0)].fg);
    }

    #[test]
    fn two_bars_share_a_column_each_in_its_half() {
        let look = Look { theme: Theme::DARK, own: &[], ascii: false, depth: Depth::True };
        let bar = |channel, min, max, group| Bar { channel, min, max, group: Some(group), bounds: None, marked: false };
        let bars = [bar(0, 0.0, 1.0, 0), bar(1, -1.0, 0.0, 1), bar(2, -1.0, 1.0, 1)];
        let area = Rect::new(0, 0, 2, 3);
        let mut buf = Buffer::empty(area);
        dense(&bars, 2, Scale { low: -1.0, high: 1.0, logarithmic: false }, None, None, look, area, &mut buf);
        let column = |x: u16| (0..3).map(|y| buf[(x, y)].symbol().to_string()).collect::<String>();
        assert_eq!((column(0).as_str(), column(1).as_str()), ("▌▐0", "▌▌1"));
        assert_eq!((buf[(0, 0)].fg, buf[(0, 1)].fg), (look.group(0, 2).fg.unwrap(), look.group(1, 2).fg.unwrap()));
    }
}
