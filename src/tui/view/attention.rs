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
use crate::tui::app::App;
use crate::tui::choice::Map;
use crate::tui::hit::{Hit, Hits, Walk};
use crate::tui::keys::Key::{Char, Code};
use crate::tui::keys::{Action, bind};
use crate::tui::theme::group_digit;
use crate::tui::widget::patches::{self, Patch, Window};
use crate::tui::widget::table::{Column, Table};
use crate::tui::widget::{panel, put, short};

pub const SPEC: ViewSpec = ViewSpec {
    name: "attention",
    title: "Attention",
    key: '3',
    help: &[
        "Rows of the softmax share quantizers too, grouped by their largest value.",
        "Left: each query token's group. Right: what the selected token attends to.",
        "Attention within windows (Swin): its window, at its place in the image.",
    ],
    keys: &[
        bind(&[Char('.'), Char('>')], Action::Head(true), ".", "next head", "./, head"),
        bind(&[Char(','), Char('<')], Action::Head(false), ",", "previous head", ""),
        bind(&[Char('v')], Action::Map, "v", "map: float, quantized, difference, RMSE of each token", "v map"),
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

/// The tokens in the order in which they lie over the picture.
fn tokens(app: &App) -> Walk {
    let stops = app.attention().map_or_else(Vec::new, |map| {
        let layout = map.layout;
        (0..layout.tokens()).map(|at| Hit::Token(layout.token_in_order(at))).collect()
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

    /// One row of probabilities, a value for each token that the query sees.
    fn values<'v>(&self, all: &'v [f32], row: usize) -> &'v [f32] {
        let seen = self.layout.window_tokens();
        all.get(row * seen..(row + 1) * seen).unwrap_or_default()
    }

    /// The part of the grid that a panel has room for.
    fn window(&self, app: &App, inner: Rect) -> Option<Window> {
        Window::of(self.layout.grid, self.layout.place(app.token).unwrap_or_default(), map_area(inner))
    }

    /// Draws a patch for every token that lies somewhere.
    fn draw(&self, app: &App, patch: impl Fn(usize) -> Patch, inner: Rect, buf: &mut Buffer) -> Hits {
        let (rows, columns) = self.layout.grid;
        let mut hits = Hits::default();
        let tokens = (0..rows).flat_map(|row| (0..columns).filter_map(move |column| self.layout.token_at(row, column)));
        let patches: Vec<Patch> = tokens.map(patch).collect();
        if let Some(window) = self.window(app, inner) {
            let area = map_area(inner);
            patches::draw(&patches, columns, window, app.look, area, buf);
            for ((row, column), cells) in window.patches(area) {
                if let Some(token) = self.layout.token_at(row, column) {
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
        match self.layout.place(token) {
            None if self.layout.prefix == 1 => "class".into(),
            None => format!("prefix {token}"),
            Some((row, column)) => format!("{row},{column}"),
        }
    }

    /// Root mean square of quantized less float along a row.
    fn row_error(&self, row: usize) -> f64 {
        let (float, quantized) = (self.values(&self.map.float, row), self.values(&self.map.quantized, row));
        let squares: f64 = float.iter().zip(quantized).map(|(a, b)| f64::from(a - b).powi(2)).sum();
        (squares / float.len().max(1) as f64).sqrt()
    }
}

fn draw(app: &App, area: Rect, buf: &mut Buffer) -> Hits {
    if app.attention_site().is_none() {
        put(buf, area, 2, 2, "this model has no softmax attention", app.look.dim());
        return Hits::default();
    }
    let Some(shown) = shown(app) else { return waiting(app, area, buf) };
    let [groups, map, row, quantizers] = areas(area);
    let mut hits = draw_groups(app, &shown, groups, buf);
    hits.extend(draw_map(app, &shown, map, buf));
    draw_row(app, &shown, row, buf);
    draw_quantizers(app, &shown, quantizers, buf);
    hits
}

fn draw_groups(app: &App, shown: &Shown, area: Rect, buf: &mut Buffer) -> Hits {
    let count = shown.report.quantizers.len();
    let inner = panel(buf, area, &format!("groups · {} · head {} of {}", shown.report.site, app.head + 1, shown.map.heads), app.look);
    let class: Vec<String> = (0..shown.layout.prefix)
        .map(|t| {
            format!(
                "{}: {}",
                shown.token_name(t),
                shown.group(shown.row(app, t)).map_or_else(|| "float".into(), |g| format!("group {}", group_digit(g)))
            )
        })
        .collect();
    let style = if app.token < shown.layout.prefix { app.look.selected() } else { app.look.dim() };
    let class = class.join("  ");
    put(buf, inner, 0, 0, &class, style);
    // The part of a grid that is too large, where there is room to say so.
    let part = shown.window(app, inner).map(|window| window.part(shown.layout.grid)).unwrap_or_default();
    if class.len() + part.len() < usize::from(inner.width) {
        put(buf, inner, inner.width - part.len() as u16, 0, &part, app.look.dim());
    }
    let patch = |token| {
        let group = shown.group(shown.row(app, token));
        let level = group.map_or(0.0, |g| g as f64 / count.saturating_sub(1).max(1) as f64);
        let ground = if group.is_some() { app.look.sequential(level) } else { Color::Reset };
        Patch { ground, level: 0.0, digit: group.map(group_digit), selected: token == app.token }
    };
    shown.draw(app, patch, inner, buf)
}

/// The map's area: one line is left for the class token.
const fn map_area(inner: Rect) -> Rect {
    Rect { y: inner.y + 1, height: inner.height.saturating_sub(1), ..inner }
}

fn draw_map(app: &App, shown: &Shown, area: Rect, buf: &mut Buffer) -> Hits {
    let row = shown.row(app, app.token);
    let title = if app.map == Map::TokenError {
        app.map.title().to_string()
    } else {
        format!("{} · row of {}", app.map.title(), shown.token_name(app.token))
    };
    let inner = panel(buf, area, &title, app.look);
    let (float, quantized) = (shown.values(&shown.map.float, row), shown.values(&shown.map.quantized, row));
    let looks: Vec<f64> = match app.map {
        Map::Float => float.iter().map(|&v| f64::from(v)).collect(),
        Map::Quantized => quantized.iter().map(|&v| f64::from(v)).collect(),
        Map::Difference => float.iter().zip(quantized).map(|(a, b)| f64::from(b - a)).collect(),
        Map::TokenError => Vec::new(),
    };
    // By token; none for tokens outside of the window, which the query does not see.
    let mut values = vec![None; shown.layout.tokens()];
    looks.iter().enumerate().for_each(|(column, v)| values[shown.layout.key(app.token, column)] = Some(*v));
    if app.map == Map::TokenError {
        values = (0..values.len()).map(|token| Some(shown.row_error(shown.row(app, token)))).collect();
    }
    let peak = values.iter().flatten().fold(0.0_f64, |m, v| m.max(v.abs()));
    let level = |v: f64| if peak > 0.0 { v / peak } else { 0.0 };
    let class: Vec<String> = values.iter().take(shown.layout.prefix).flatten().map(|v| format!("class {}", short(*v))).collect();
    put(buf, inner, 0, 0, &format!("{}  largest {}", class.join("  "), short(peak)), app.look.dim());
    let patch = |token: usize| {
        let selected = token == app.token;
        let Some(v) = values[token] else { return Patch { ground: Color::Reset, level: 0.0, digit: None, selected } };
        let signed = app.map == Map::Difference;
        let ground = if signed { app.look.signed(level(v)) } else { app.look.heat(level(v)) };
        let digit = (signed && v != 0.0 && !app.look.has_color()).then_some(if v < 0.0 { '-' } else { '+' });
        Patch { ground, level: level(v).abs(), digit, selected }
    };
    shown.draw(app, patch, inner, buf)
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
        Column::new("key", 8, |&key: &usize| shown.token_name(shown.layout.key(app.token, key))),
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
    let table =
        Table::new(columns, &rows).selected(shown.group(shown.row(app, app.token))).style(|r| look.group(r.0, report.quantizers.len()));
    let title = format!("{} row quantizers · {bits} · all heads", report.quantizers.len());
    let (inner, _) = table.draw(&title, look, area, buf);
    if report.quantizers.is_empty() {
        put(buf, inner, 0, 1, "this softmax stays in float: nothing is grouped", look.dim());
    }
}
