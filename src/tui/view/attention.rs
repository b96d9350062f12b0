//! Attention: the rows of one head's softmax over the patches: the group of each query token, the row under the cursor in float and
//! quantized, its error, its values and codes.

use crossterm::event::KeyCode;
use ratatui::buffer::Buffer;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::Color;

use super::spec::{ViewSpec, no_csv, no_study, waiting};
use crate::analysis::detail::AttentionMap;
use crate::analysis::report::{QuantizerReport, SiteReport};
use crate::engine::command::SoftmaxShape;
use crate::model::TokenLayout;
use crate::session::PictureView;
use crate::tui::app::App;
use crate::tui::choice::{Beside, Map};
use crate::tui::hit::{Hit, Hits, Walk};
use crate::tui::keys::Key::{Char, Code};
use crate::tui::keys::{Action, bind};
use crate::tui::theme::group_digit;
use crate::tui::widget::patches::{self, Patch, Window};
use crate::tui::widget::table::{Column, Table};
use crate::tui::widget::{heat, panel, picture, put, short};

pub const SPEC: ViewSpec = ViewSpec {
    name: "attention",
    title: "Attention",
    key: '3',
    help: &[
        "Left, by o: groups, all heads, or the image as bright as it is attended to.",
        "Rows of the softmax share quantizers too, grouped by their largest value.",
        "Left: each query token's group. Right: what the selected token attends to.",
        "Attention within windows (Swin): its window, at its place in the image.",
    ],
    keys: &[
        bind(&[Char('.'), Char('>')], Action::Head(true), ".", "next head", "./, head"),
        bind(&[Char(','), Char('<')], Action::Head(false), ",", "previous head", ""),
        bind(&[Char('v')], Action::Map, "v", "map: float, quantized, difference, RMSE of each token", "v map"),
        bind(&[Char('o')], Action::Beside, "o", "left: groups of the rows, the maps of all heads, the picture under the map", "o left"),
        bind(&[Char('l'), Code(KeyCode::Right)], Action::Cursor(true), "l →", "next token", "h/l cursor"),
        bind(&[Char('h'), Code(KeyCode::Left)], Action::Cursor(false), "h ←", "previous token", ""),
    ],
    draw,
    rows: |app| Walk::over(app.info.sites.iter().copied().filter(|s| s.kind.is_softmax()).collect(), app.attention_site()),
    cursor: Some(tokens),
    study: no_study,
    detail: App::attention_site,
    csv: no_csv,
};

/// The tokens in the order in which they lie over the picture, padding behind them.
fn tokens(app: &App) -> Walk {
    let stops = app.attention().map_or_else(Vec::new, |map| {
        let (layout, padding) = (map.layout, map.layout.padding());
        (padding..layout.tokens()).chain(0..padding).map(|at| Hit::Token(layout.token_in_order(at))).collect()
    });
    Walk::new(stops, Some(Hit::Token(app.token)))
}

/// Areas of the group map, the attention map, the row's values and the quantizers.
fn areas(area: Rect) -> [Rect; 4] {
    let [upper, lower] = Layout::vertical([Constraint::Percentage(58), Constraint::Fill(1)]).areas(area);
    let [groups, map] = Layout::horizontal([Constraint::Fill(1), Constraint::Fill(1)]).areas(upper);
    let [row, quantizers] = Layout::horizontal([Constraint::Fill(1), Constraint::Fill(1)]).areas(lower);
    [groups, map, row, quantizers]
}

/// More tokens before the patches than registers are: those of a detector.
const MANY: usize = 9;

/// What is shown: the map, its report, and where its tokens lie.
struct Shown<'a> {
    map: &'a AttentionMap,
    report: &'a SiteReport,
    layout: TokenLayout,
}

fn shown(app: &App) -> Option<Shown<'_>> {
    let map = app.attention()?;
    Some(Shown { map, report: app.snapshot.as_ref()?.report.site(app.attention_site()?)?, layout: map.layout })
}

impl Shown<'_> {
    /// Index of a row among all heads' and windows'.
    const fn row(&self, app: &App, token: usize) -> usize {
        self.layout.softmax_row(self.map.heads, app.head, token)
    }

    /// What the map of a head shows by token, and the largest among the patches; none for tokens outside of the window, which the query does not see.
    fn map(&self, app: &App, head: usize) -> (Vec<Option<f64>>, f64) {
        let row_of = |token| self.layout.softmax_row(self.map.heads, head, token);
        let row = row_of(app.token);
        let (float, quantized) = (self.values(&self.map.float, row), self.values(&self.map.quantized, row));
        let mapped = self.mapped(app);
        let mut values = vec![None; mapped.tokens()];
        if app.map == Map::TokenError {
            values = (0..values.len()).map(|token| Some(self.row_error(row_of(token)))).collect();
        }
        for column in 0..float.len().min(quantized.len()) {
            let (before, after) = (f64::from(float[column]), f64::from(quantized[column]));
            let value = match app.map {
                Map::Float => before,
                Map::Quantized => after,
                Map::Difference => after - before,
                Map::TokenError => break,
            };
            values[self.layout.key(app.token, column)] = Some(value);
        }
        // The class token often takes most: beside it no patch would be seen.
        let placed = values.iter().enumerate().filter(|(token, _)| mapped.place(*token).is_some());
        let peak = placed.filter_map(|(_, value)| *value).fold(0.0_f64, |most, v| most.max(v.abs()));
        (values, peak)
    }

    /// One row of probabilities, a value for each token that the query sees.
    fn values<'v>(&self, all: &'v [f32], row: usize) -> &'v [f32] {
        let seen = self.layout.seen();
        all.get(row * seen..(row + 1) * seen).unwrap_or_default()
    }

    /// How the tokens of a map lie: those that the row looks at; of a map of errors those that look.
    fn mapped(&self, app: &App) -> TokenLayout {
        if app.map == Map::TokenError { self.layout } else { self.layout.keys() }
    }

    /// The part of the grid that a panel has room for.
    fn window(&self, app: &App, layout: TokenLayout, inner: Rect) -> Option<Window> {
        let cursor = if layout == self.layout { layout.place(app.token) } else { None };
        Window::of(layout.grid, cursor.unwrap_or_default(), map_area(inner))
    }

    /// Draws a patch for every token of a layout that lies somewhere.
    fn draw(&self, app: &App, layout: TokenLayout, patch: impl Fn(usize) -> Patch, inner: Rect, buf: &mut Buffer) -> Hits {
        let (rows, columns) = layout.grid;
        let mut hits = Hits::default();
        let tokens = (0..rows).flat_map(|row| (0..columns).filter_map(move |column| layout.token_at(row, column)));
        let patches: Vec<Patch> = tokens.map(patch).collect();
        if let Some(window) = self.window(app, layout, inner) {
            let area = map_area(inner);
            patches::draw(&patches, columns, window, app.look, area, buf);
            for ((row, column), cells) in window.patches(area) {
                if let Some(token) = layout.token_at(row, column).filter(|_| layout == self.layout) {
                    hits.add(cells, Hit::Token(token));
                }
            }
        }
        hits
    }

    fn group(&self, row: usize) -> Option<usize> {
        self.report.assignment.get(row).map(|&g| usize::from(g))
    }

    fn token_name(&self, token: usize) -> String {
        name_in(self.layout, token)
    }

    /// Root mean square of quantized less float along a row.
    fn row_error(&self, row: usize) -> f64 {
        let (float, quantized) = (self.values(&self.map.float, row), self.values(&self.map.quantized, row));
        let squares: f64 = float.iter().zip(quantized).map(|(a, b)| f64::from(a - b).powi(2)).sum();
        (squares / float.len().max(1) as f64).sqrt()
    }
}

fn name_in(layout: TokenLayout, token: usize) -> String {
    match layout.place(token) {
        Some(_) if layout.queries => format!("query {token}"),
        None if layout.padding() > 0 => format!("padding {}", layout.order_of(token)),
        None if layout.windows.is_some() => format!("class {}", layout.order_of(token)),
        None if token == 0 && layout.prefix != 0 => "class".into(),
        // Of a detector: as its objects name them.
        None if layout.prefix > MANY => format!("query {}", token - 1),
        None => format!("prefix {token}"),
        Some((row, column)) => format!("{row},{column}"),
    }
}

fn draw(app: &App, area: Rect, buf: &mut Buffer) -> Hits {
    if app.attention_site().is_none() {
        put(buf, area, 2, 2, "this model has no softmax attention", app.look.dim());
        return Hits::default();
    }
    let Some(shown) = shown(app) else { return waiting(app, area, buf) };
    let [groups, map, row, quantizers] = areas(area);
    let mut hits = match app.beside {
        Beside::Groups => draw_groups(app, &shown, groups, buf),
        Beside::Heads => draw_heads(app, &shown, groups, buf),
        Beside::Picture => draw_picture(app, &shown, groups, buf),
    };
    hits.extend(draw_map(app, &shown, map, buf));
    draw_row(app, &shown, row, buf);
    draw_quantizers(app, &shown, quantizers, buf);
    hits
}

/// The groups of tokens that lie nowhere: of many only that of the first or of the one under the cursor, and how many they are.
fn groups_outside(app: &App, shown: &Shown) -> String {
    let (many, padding) = (shown.layout.prefix > MANY, shown.layout.padding());
    let grouped = |token: usize| {
        let group = shown.group(shown.row(app, token)).map_or_else(|| "float".into(), |g| format!("group {}", group_digit(g)));
        format!("{}: {group}", shown.token_name(token))
    };
    if padding > 0 {
        let under_cursor = shown.layout.place(app.token).is_none();
        let all = format!("{padding} tokens of padding");
        return if under_cursor { format!("{}  ({all})", grouped(app.token)) } else { all };
    }
    let shown_ones = shown.layout.outside().filter(|t| !many || *t == 0 || *t == app.token);
    shown_ones.map(grouped).collect::<Vec<_>>().join("  ")
}

fn draw_groups(app: &App, shown: &Shown, area: Rect, buf: &mut Buffer) -> Hits {
    let count = shown.report.quantizers.len();
    let inner = panel(buf, area, &format!("groups · {} · head {} of {}", shown.report.site, app.head + 1, shown.map.heads), app.look);
    let style = if shown.layout.place(app.token).is_none() { app.look.selected() } else { app.look.dim() };
    let class = groups_outside(app, shown);
    put(buf, inner, 0, 0, &class, style);
    // The part of a grid that is too large, where there is room to say so.
    let part = shown.window(app, shown.layout, inner).map(|window| window.part(shown.layout.grid)).unwrap_or_default();
    if class.len() + part.len() < usize::from(inner.width) {
        put(buf, inner, inner.width - part.len() as u16, 0, &part, app.look.dim());
    }
    let patch = |token| {
        let group = shown.group(shown.row(app, token));
        let level = group.map_or(0.0, |g| g as f64 / count.saturating_sub(1).max(1) as f64);
        let ground = if group.is_some() { app.look.sequential(level) } else { Color::Reset };
        Patch { ground, level: 0.0, digit: group.map(group_digit), selected: token == app.token }
    };
    shown.draw(app, shown.layout, patch, inner, buf)
}

/// The map's area: one line is left for the class token.
const fn map_area(inner: Rect) -> Rect {
    Rect { y: inner.y + 1, height: inner.height.saturating_sub(1), ..inner }
}

fn draw_map(app: &App, shown: &Shown, area: Rect, buf: &mut Buffer) -> Hits {
    let title = if app.map == Map::TokenError {
        app.map.title().to_string()
    } else {
        format!("{} · row of {}", app.map.title(), shown.token_name(app.token))
    };
    let inner = panel(buf, area, &title, app.look);
    let (values, peak) = shown.map(app, app.head);
    let level = |v: f64| if peak > 0.0 { v / peak } else { 0.0 };
    let mapped = shown.mapped(app);
    let few = if mapped.prefix > MANY { 1 } else { mapped.prefix };
    let outside = mapped.outside().filter_map(|token| values[token]).take(few);
    let class: Vec<String> = outside.map(|v| format!("class {}", short(v))).collect();
    let words = format!("{}  largest {} {}", class.join("  "), if mapped.queries { "query" } else { "patch" }, short(peak));
    put(buf, inner, 0, 0, &words, app.look.dim());
    if inner.width as usize >= words.len() + 2 + heat::SCALE + 10 {
        heat::scale(
            app.look,
            app.map == Map::Difference,
            peak,
            Rect { x: inner.x + words.len() as u16 + 2, width: inner.width - words.len() as u16 - 2, height: 1, ..inner },
            buf,
        );
    }
    let patch = |token: usize| {
        let selected = token == app.token && mapped == shown.layout;
        let Some(v) = values[token] else { return Patch { ground: Color::Reset, level: 0.0, digit: None, selected } };
        let signed = app.map == Map::Difference;
        let ground = if signed { app.look.signed(level(v)) } else { app.look.heat(level(v)) };
        let digit = (signed && v != 0.0 && !app.look.has_color()).then_some(if v < 0.0 { '-' } else { '+' });
        Patch { ground, level: level(v).abs(), digit, selected }
    };
    shown.draw(app, mapped, patch, inner, buf)
}

/// The map of every head, half a cell high a patch, as many as there is room for around the present one.
fn draw_heads(app: &App, shown: &Shown, area: Rect, buf: &mut Buffer) -> Hits {
    let heads = shown.map.heads;
    let what = if app.map == Map::TokenError { "RMSE of each token" } else { app.map.title() };
    let title = format!("all {heads} heads · {what} · row of {}", shown.token_name(app.token));
    let inner = panel(buf, area, &title, app.look);
    let mapped = shown.mapped(app);
    let (rows, columns) = (mapped.grid.0.max(1), mapped.grid.1.max(1));
    // As many columns of thumbnails as make them largest.
    let size = |across: usize| {
        let down = heads.div_ceil(across);
        let (width, height) = (usize::from(inner.width) / across, usize::from(inner.height) / down);
        let (width, height) = (width.saturating_sub(1).min(columns * 2), height.saturating_sub(1).min(rows));
        let scale = (width as f64 / columns as f64).min(2.0 * height as f64 / rows as f64);
        ((columns as f64 * scale) as usize, (rows as f64 * scale) as usize / 2)
    };
    let Some(across) = (1..=heads.max(1)).max_by_key(|&across| size(across).0 * size(across).1) else { return Hits::default() };
    let (width, height) = size(across);
    let mut hits = Hits::default();
    if width == 0 || height == 0 {
        return hits;
    }
    for head in 0..heads {
        let (x, y) = ((head % across * (width + 1)) as u16, (head / across * (height + 1)) as u16);
        let place = Rect { x: inner.x + x, y: inner.y + y, width: width as u16, height: height as u16 + 1 }.intersection(inner);
        let (values, peak) = shown.map(app, head);
        let at = |column: usize, half: usize| {
            let token = mapped.token_at(half * rows / (2 * height), column * columns / width)?;
            values[token].map(|v| if peak > 0.0 { v / peak } else { 0.0 })
        };
        heat::thumbnail(
            app.look,
            app.map == Map::Difference,
            at,
            Rect { y: place.y + 1, height: place.height.saturating_sub(1), ..place },
            buf,
        );
        let style = if head == app.head { app.look.selected() } else { app.look.dim() };
        put(buf, place, 0, 0, &format!("{} {}", head + 1, short(peak)), style);
        hits.add(place, Hit::Head(head));
    }
    hits
}

/// The picture, each patch as bright as the row under the cursor attends to it.
fn draw_picture(app: &App, shown: &Shown, area: Rect, buf: &mut Buffer) -> Hits {
    let Some(snapshot) = &app.snapshot else { return Hits::default() };
    let title = format!("{} under {} · row of {}", snapshot.report.picture.name, app.map.title(), shown.token_name(app.token));
    let inner = panel(buf, area, &title, app.look);
    let (values, peak) = shown.map(app, app.head);
    let mapped = shown.mapped(app);
    let (rows, columns) = mapped.grid;
    if mapped.queries || rows * columns == 0 {
        put(buf, inner, 1, 1, "queries do not lie over the image; o shows their groups", app.look.dim());
        return Hits::default();
    }
    let view = &snapshot.view;
    let light = |row: usize, column: usize| {
        let level = mapped.token_at(row, column).and_then(|token| values[token]).map_or(0.0, |v| v.abs() / peak.max(1e-12));
        0.12 + 0.88 * level.sqrt()
    };
    let lights: Vec<f64> = (0..rows).flat_map(|row| (0..columns).map(move |column| light(row, column))).collect();
    let pixel = |at: usize| {
        let (x, y) = (at % view.width, at / view.width);
        let light = lights[y * rows / view.height * columns + x * columns / view.width];
        view.rgb[at].map(|v| (f64::from(v) * light) as u8)
    };
    let lit = PictureView { width: view.width, height: view.height, rgb: (0..view.rgb.len()).map(pixel).collect() };
    picture::draw(&lit, (1, 1), app.look, inner, buf);
    Hits::default()
}

/// The row under the cursor: for each key token, the largest first, its probability in float, before and after the quantizer, its code.
fn draw_row(app: &App, shown: &Shown, area: Rect, buf: &mut Buffer) {
    let row = shown.row(app, app.token);
    let float = shown.values(&shown.map.float, row);
    let before = shown.values(&shown.map.before, row);
    let after = shown.values(&shown.map.quantized, row);
    // Only of the method's own uniform quantizers is the code the value over the step.
    let uniform = app.snapshot.as_ref().is_some_and(|s| s.report.settings.softmax == SoftmaxShape::Method);
    let quantizer = shown.group(row).and_then(|g| shown.report.quantizers.get(g)).filter(|_| uniform);
    let step = quantizer.map_or(0.0, |q| q.scale);
    let mut order: Vec<usize> = (0..float.len()).collect();
    order.sort_by(|&a, &b| float[b].total_cmp(&float[a]));
    let probability = |all: &[f32], key: usize| all.get(key).map_or_else(String::new, |v| format!("{v:.4}"));
    let code =
        |key: usize| if step > 0.0 { after.get(key).map_or_else(String::new, |v| format!("{:.0}", v / step)) } else { String::new() };
    let columns = vec![
        // Short, so that the number of a token of padding is seen.
        Column::new("key", 8, |&key: &usize| name_in(shown.layout.keys(), shown.layout.key(app.token, key)).replace("padding", "pad")),
        Column::new("float", 7, |&key: &usize| probability(float, key)).right(),
        Column::new("before", 7, |&key: &usize| probability(before, key)).right(),
        Column::new("after", 7, |&key: &usize| probability(after, key)).right(),
        Column::new("code", 4, |&key: &usize| code(key)).right(),
    ];
    let title = format!("row of {} · RMSE {}", shown.token_name(app.token), short(shown.row_error(row)));
    Table::new(columns, &order).draw(&title, app.look, area, buf);
}

fn draw_quantizers(app: &App, shown: &Shown, area: Rect, buf: &mut Buffer) {
    let look = app.look;
    let report = shown.report;
    let bits = if report.bits.is_float() { "float".into() } else { format!("{} bits", report.bits) };
    let number = |v: f32| short(f64::from(v));
    let rows: Vec<(usize, &QuantizerReport)> = report.quantizers.iter().enumerate().collect();
    let columns = vec![
        Column::new("g", 1, |r: &(usize, &QuantizerReport)| group_digit(r.0).to_string()),
        Column::new("upper", 7, |r: &(usize, &QuantizerReport)| number(r.1.upper)).right(),
        Column::new("step", 7, |r: &(usize, &QuantizerReport)| number(r.1.scale)).right(),
        Column::new("rows", 5, |r: &(usize, &QuantizerReport)| r.1.members.to_string()).right(),
        Column::new("clipped", 7, |r: &(usize, &QuantizerReport)| format!("{:.1}%", r.1.clipped * 100.0)).right(),
        Column::new("codes", 5, |r: &(usize, &QuantizerReport)| r.1.codes_used.to_string()).right(),
    ];
    let table = Table::new(columns, &rows)
        .by(app.by)
        .selected(shown.group(shown.row(app, app.token)))
        .style(|r| look.group(r.0, report.quantizers.len()));
    let count = report.quantizers.len();
    let title = format!("{count} row quantizer{} · {bits} · all heads", if count == 1 { "" } else { "s" });
    let (inner, _) = table.draw(&title, look, area, buf);
    if report.quantizers.is_empty() {
        put(buf, inner, 0, 1, "this softmax stays in float: nothing is grouped", look.dim());
    }
}
