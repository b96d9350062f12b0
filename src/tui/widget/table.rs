//! A table in a panel: columns that go where there is no room, a mark on the sorted one, the selected row with its bars, a scroll bar.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::{Color, Modifier, Style};
use ratatui::widgets::{Scrollbar, ScrollbarOrientation, ScrollbarState, StatefulWidget};

use super::text::{pad, pad_left, width};
use super::{bar, first_shown, panel, put};
use crate::tui::hit::{Hit, Hits};
use crate::tui::theme::Look;

/// What stands in a row and a column.
#[derive(Debug, Clone, PartialEq)]
pub enum Cell {
    /// Text; its style goes over the row's.
    Text(String, Style),
    /// A bar of 0 to 1 over the width of the column, in a colour.
    Bar(f64, Color),
}

impl From<String> for Cell {
    fn from(text: String) -> Self {
        Self::Text(text, Style::new())
    }
}

impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        text.to_string().into()
    }
}

/// One column of rows `R`.
pub struct Column<'a, R> {
    title: &'static str,
    width: u16,
    most: u16,
    from: u16,
    right: bool,
    header: Option<Hit>,
    cell: Box<dyn Fn(&R) -> Cell + 'a>,
}

impl<'a, R> Column<'a, R> {
    /// A column at whose left its text stands.
    pub fn new<C: Into<Cell>>(title: &'static str, width: u16, cell: impl Fn(&R) -> C + 'a) -> Self {
        Self { title, width, most: width, from: 0, right: false, header: None, cell: Box::new(move |row| cell(row).into()) }
    }

    /// Its text stands at its right, as numbers do.
    #[must_use]
    pub fn right(self) -> Self {
        Self { right: true, ..self }
    }

    /// It is seen where the table is at least so wide; of several that do not fit, those with the largest number go first.
    #[must_use]
    pub fn from(self, from: u16) -> Self {
        Self { from, ..self }
    }

    /// It takes room that is left, up to a width.
    #[must_use]
    pub fn up_to(self, most: u16) -> Self {
        Self { most, ..self }
    }

    /// What a click on its title does.
    #[must_use]
    pub fn click(self, header: Hit) -> Self {
        Self { header: Some(header), ..self }
    }

    fn place(&self, text: &str, width: u16) -> String {
        if self.right { pad_left(text, usize::from(width)) } else { pad(text, usize::from(width)) }
    }
}

/// What a click on a row lands on.
type Click<'a, R> = Box<dyn Fn(&R) -> Option<Hit> + 'a>;

/// A table of rows `R`.
pub struct Table<'a, R> {
    columns: Vec<Column<'a, R>>,
    rows: &'a [R],
    selected: Option<usize>,
    sorted: Option<(Hit, bool)>,
    by: Option<(&'static str, bool)>,
    style: Box<dyn Fn(&R) -> Style + 'a>,
    click: Click<'a, R>,
}

impl<'a, R> Table<'a, R> {
    /// A table of which no row is selected.
    #[must_use]
    pub fn new(columns: Vec<Column<'a, R>>, rows: &'a [R]) -> Self {
        Self { columns, rows, selected: None, sorted: None, by: None, style: Box::new(|_| Style::new()), click: Box::new(|_| None) }
    }

    /// The row under the cursor; it is always seen.
    #[must_use]
    pub fn selected(self, selected: Option<usize>) -> Self {
        Self { selected: selected.filter(|at| *at < self.rows.len()), ..self }
    }

    /// The column that the rows are sorted by, by what a click on it does, and whether its values grow downwards.
    #[must_use]
    pub fn sorted(self, by: Hit, ascends: bool) -> Self {
        Self { sorted: Some((by, ascends)), ..self }
    }

    /// Rows in the order of a column, by the numbers that stand in it; the largest first where it is `reversed`.
    #[must_use]
    pub fn by(self, column: Option<(&'static str, bool)>) -> Self {
        let known = |(title, _): &(&str, bool)| self.columns.iter().any(|c| c.title == *title);
        Self { by: column.filter(known), ..self }
    }

    /// The rows in the order in which they are drawn.
    fn order(&self) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.rows.len()).collect();
        let column = self.by.and_then(|(title, reversed)| Some((self.columns.iter().find(|c| c.title == title)?, reversed)));
        if let Some((column, reversed)) = column {
            let number = |at: usize| match (column.cell)(&self.rows[at]) {
                Cell::Text(text, _) => leading_number(&text),
                Cell::Bar(share, _) => share,
            };
            order.sort_by(|&a, &b| number(a).total_cmp(&number(b)));
            if reversed {
                order.reverse();
            }
        }
        order
    }

    /// How rows are drawn.
    #[must_use]
    pub fn style(self, style: impl Fn(&R) -> Style + 'a) -> Self {
        Self { style: Box::new(style), ..self }
    }

    /// What a click on a row does.
    #[must_use]
    pub fn click(self, click: impl Fn(&R) -> Option<Hit> + 'a) -> Self {
        Self { click: Box::new(click), ..self }
    }

    /// Draws it in a panel; what is inside of the panel, and what a click can land on.
    pub fn draw(&self, title: &str, look: Look, area: Rect, buf: &mut Buffer) -> (Rect, Hits) {
        let inner = panel(buf, area, title, look);
        let mut hits = Hits::default();
        let columns = self.fitting(inner.width);
        let mut x = 0;
        for (column, width) in &columns {
            let by = self.by.filter(|(title, _)| *title == column.title).map(|(_, reversed)| !reversed);
            let sorted = self.sorted.filter(|(by, _)| Some(*by) == column.header).map(|(_, ascends)| ascends).or(by);
            let arrow = sorted.map_or("", |ascends| if ascends { "↑" } else { "↓" });
            let style = if sorted.is_some() { look.accent() } else { look.dim() };
            put(buf, inner, x, 0, &column.place(&format!("{}{arrow}", column.title), *width), style);
            let hit = column.header.unwrap_or(Hit::Term(column.title));
            if !column.title.is_empty() {
                hits.add(Rect { x: inner.x + x, width: *width, height: 1, ..inner }.intersection(inner), hit);
            }
            x += width + 1;
        }
        let height = usize::from(inner.height.saturating_sub(1));
        let order = self.order();
        let selected = self.selected.and_then(|selected| order.iter().position(|&at| at == selected));
        let first = first_shown(selected.unwrap_or(0), self.rows.len(), height);
        for (&at, y) in order.iter().skip(first).take(height).zip(1..) {
            let row = &self.rows[at];
            let line = Rect { y: inner.y + y, height: 1, ..inner }.intersection(buf.area);
            let mut style = (self.style)(row);
            if self.selected == Some(at) {
                style = style.patch(look.selected());
                buf.set_style(line, style);
            }
            Self::line(row, &columns, style, inner, y, buf);
            if let Some(hit) = (self.click)(row) {
                hits.add(line, hit);
            }
        }
        self.place(selected, first, height, look, area, buf);
        (inner, hits)
    }

    fn line(row: &R, columns: &[(&Column<'a, R>, u16)], style: Style, inner: Rect, y: u16, buf: &mut Buffer) {
        let mut x = 0;
        for (column, width) in columns {
            match (column.cell)(row) {
                Cell::Text(text, own) => put(buf, inner, x, y, &column.place(&text, *width), style.patch(own)),
                // Reversed, a bar would be as long as what it is not.
                Cell::Bar(fraction, color) => {
                    let style = Style::new().fg(color).remove_modifier(Modifier::REVERSED);
                    put(buf, inner, x, y, &bar(fraction, usize::from(*width)), style);
                }
            }
            x += width + 1;
        }
    }

    /// Where the cursor is among all rows, in words and, if not all are seen, as a scroll bar.
    fn place(&self, selected: Option<usize>, first: usize, height: usize, look: Look, area: Rect, buf: &mut Buffer) {
        let area = area.intersection(buf.area);
        if area.width < 4 || area.height < 3 {
            return;
        }
        if let Some(at) = selected {
            let text = format!(" {} of {} ", at + 1, self.rows.len());
            let x = area.width.saturating_sub(width(&text) as u16 + 2);
            put(buf, Rect { width: area.width - 1, ..area }, x.max(1), area.height - 1, &text, look.dim());
        }
        if self.rows.len() > height {
            let bar = Rect { y: area.y + 1, height: area.height - 2, ..area };
            let mut state = ScrollbarState::new(self.rows.len() - height + 1).position(first).viewport_content_length(height);
            let bars = Scrollbar::new(ScrollbarOrientation::VerticalRight).begin_symbol(None).end_symbol(None);
            bars.track_symbol(Some("│")).thumb_symbol("█").style(look.dim()).render(bar, buf, &mut state);
        }
    }

    /// The columns that there is room for, and how wide each is.
    fn fitting(&self, room: u16) -> Vec<(&Column<'a, R>, u16)> {
        let mut order: Vec<usize> = (0..self.columns.len()).filter(|&c| self.columns[c].from <= room).collect();
        order.sort_by_key(|&c| self.columns[c].from);
        let mut used = 0;
        order.retain(|&c| {
            let fits = self.columns[c].from == 0 || used + self.columns[c].width <= room;
            used += if fits { self.columns[c].width + 1 } else { 0 };
            fits
        });
        order.sort_unstable();
        let mut left = (room + 1).saturating_sub(used);
        let wide = |c: &Column<'a, R>, left: &mut u16| {
            let more = (c.most - c.width).min(*left);
            *left -= more;
            c.width + more
        };
        order.into_iter().map(|c| (&self.columns[c], wide(&self.columns[c], &mut left))).collect()
    }
}

/// The number that a text begins with; below all others where there is none.
fn leading_number(text: &str) -> f64 {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.' && c != '-').unwrap_or(text.len());
    text[..end].parse().unwrap_or(f64::NEG_INFINITY)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tui::choice::Sort;
    use crate::tui::theme::{Depth, Theme};

    const LOOK: Look = Look { theme: Theme::DARK, own: &[], ascii: false, depth: Depth::True };
    const NAMES: [&str; 5] = ["shoe", "靴子和一只猫和狗", "👩‍👩‍👧 family", "e\u{301}te\u{301}", "a very long name of a class"];

    fn table<'a>(rows: &'a [(usize, &'a str)]) -> Table<'a, (usize, &'a str)> {
        let columns = vec![
            Column::new("name", 8, |r: &(usize, &str)| r.1).click(Hit::Sort(Sort::Order)),
            Column::new("", 4, |r: &(usize, &str)| Cell::Bar(r.0 as f64 / 4.0, Color::Blue)).from(20),
            Column::new("number", 7, |r: &(usize, &str)| r.0.to_string()).right().from(1),
        ];
        Table::new(columns, rows).selected(Some(2)).sorted(Hit::Sort(Sort::Order), false).click(|r| Some(Hit::Row(r.0)))
    }

    fn text(buf: &Buffer) -> Vec<String> {
        let lines = buf.content.chunks(usize::from(buf.area.width));
        lines.map(|line| line.iter().map(ratatui::buffer::Cell::symbol).collect()).collect()
    }

    #[test]
    fn columns_stand_in_one_place_whatever_the_names_are() {
        let rows: Vec<(usize, &str)> = NAMES.into_iter().enumerate().collect();
        let area = Rect::new(0, 0, 30, 8);
        let mut buf = Buffer::empty(area);
        let (inner, hits) = table(&rows).draw("names", LOOK, area, &mut buf);
        assert_eq!(inner, Rect::new(1, 1, 28, 6));
        assert!(text(&buf)[1].contains("name↓") && text(&buf)[7].contains(" 3 of 5 "), "{:#?}", text(&buf));
        for (at, y) in (2..7).enumerate() {
            assert_eq!(buf[(21, y)].symbol(), at.to_string(), "row {at}: {:#?}", text(&buf));
        }
        assert_eq!((buf[(8, 3)].symbol(), buf[(8, 6)].symbol()), (" ", "…"));
        assert_eq!((hits.at(1, 1), hits.at(9, 4)), (Some(Hit::Sort(Sort::Order)), Some(Hit::Row(2))));
        assert_eq!((hits.at(0, 4), hits.at(9, 7)), (None, None));
    }

    #[test]
    fn the_selected_row_is_reversed_and_its_bar_is_not() {
        let rows: Vec<(usize, &str)> = NAMES.into_iter().enumerate().collect();
        let area = Rect::new(0, 0, 30, 8);
        let mut buf = Buffer::empty(area);
        table(&rows).draw("names", LOOK, area, &mut buf);
        let reversed = |x: u16, y: u16| buf[(x, y)].modifier.contains(Modifier::REVERSED);
        assert!(reversed(1, 4) && reversed(20, 4) && !reversed(1, 3));
        for (row, y) in [(2, 4), (3, 5)] {
            let bar: Vec<(&str, Color, bool)> = (10..14).map(|x| (buf[(x, y)].symbol(), buf[(x, y)].fg, reversed(x, y))).collect();
            let expected: Vec<(&str, Color, bool)> = (0..4).map(|x| (if x < row { "█" } else { " " }, Color::Blue, false)).collect();
            assert_eq!(bar, expected, "row {row}");
        }
    }

    #[test]
    fn rows_stand_in_the_order_of_a_column_and_the_cursor_stays_on_its_row() {
        let rows: Vec<(usize, &str)> = [(3, "a"), (1, "b"), (20, "c")].to_vec();
        let area = Rect::new(0, 0, 30, 6);
        let mut buf = Buffer::empty(area);
        let (_, hits) = table(&rows).by(Some(("number", true))).draw("names", LOOK, area, &mut buf);
        let shown = text(&buf);
        assert!(shown[2].contains('c') && shown[3].contains('a') && shown[4].contains('b') && shown[1].contains("number↓"), "{shown:#?}");
        assert!(buf[(1, 2)].modifier.contains(Modifier::REVERSED) && shown[5].contains("1 of 3"));
        assert_eq!((hits.at(9, 3), hits.at(20, 1)), (Some(Hit::Row(3)), Some(Hit::Term("number"))));
    }

    #[test]
    fn what_does_not_fit_is_left_out_or_scrolled() {
        let rows: Vec<(usize, &str)> = (0..40).map(|n| (n, "row")).collect();
        for (width, height) in [(0, 0), (1, 1), (2, 3), (5, 4), (12, 3), (300, 2), (19, 10)] {
            let area = Rect::new(0, 0, width, height);
            table(&rows).selected(Some(39)).draw("rows", LOOK, area, &mut Buffer::empty(area));
        }
        let area = Rect::new(0, 0, 20, 10);
        let mut buf = Buffer::empty(area);
        table(&rows).selected(Some(39)).draw("rows", LOOK, area, &mut buf);
        let shown = text(&buf);
        assert!(shown[8].contains("39") && !shown[1].contains("█") && shown[9].contains("40 of 40"), "{shown:#?}");
        assert_eq!((buf[(19, 1)].symbol(), buf[(19, 8)].symbol()), ("│", "█"));
    }
}
