//! Attention: the rows of one head's softmax over the patches: the group of each query token, the row under the cursor in float and
//! quantized, its error, its values and codes.

use ratatui::buffer::Buffer;
use ratatui::layout::{Constraint, Layout, Margin, Rect};
use ratatui::style::{Color, Modifier, Style};

use super::{first_shown, waiting};
use crate::analysis::detail::AttentionMap;
use crate::analysis::report::SiteReport;
use crate::engine::command::SoftmaxShape;
use crate::model::TokenLayout;
use crate::tui::app::{App, Map};
use crate::tui::theme::group_digit;
use crate::tui::update::Hit;
use crate::tui::widget::patches::{self, Patch, Window};
use crate::tui::widget::{panel, put, short};

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
    fn draw(&self, app: &App, patch: impl Fn(usize) -> Patch, inner: Rect, buf: &mut Buffer) {
        let (rows, columns) = self.layout.grid;
        let tokens = (0..rows).flat_map(|row| (0..columns).filter_map(move |column| self.layout.token_at(row, column)));
        let patches: Vec<Patch> = tokens.map(patch).collect();
        if let Some(window) = self.window(app, inner) {
            patches::draw(&patches, columns, window, app.look, map_area(inner), buf);
        }
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

pub fn draw(app: &App, area: Rect, buf: &mut Buffer) {
    if app.attention_site().is_none() {
        return put(buf, area, 2, 2, "this model has no softmax attention", app.look.dim());
    }
    let Some(shown) = shown(app) else { return waiting(app, area, buf) };
    let [groups, map, row, quantizers] = areas(area);
    draw_groups(app, &shown, groups, buf);
    draw_map(app, &shown, map, buf);
    draw_row(app, &shown, row, buf);
    draw_quantizers(app, &shown, quantizers, buf);
}

fn draw_groups(app: &App, shown: &Shown, area: Rect, buf: &mut Buffer) {
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
    shown.draw(app, patch, inner, buf);
}

/// The map's area: one line is left for the class token.
const fn map_area(inner: Rect) -> Rect {
    Rect { y: inner.y + 1, height: inner.height.saturating_sub(1), ..inner }
}

fn draw_map(app: &App, shown: &Shown, area: Rect, buf: &mut Buffer) {
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
    shown.draw(app, patch, inner, buf);
}

fn draw_row(app: &App, shown: &Shown, area: Rect, buf: &mut Buffer) {
    let row = shown.row(app, app.token);
    let inner = panel(buf, area, &format!("row of {} · error {}", shown.token_name(app.token), short(shown.row_error(row))), app.look);
    put(buf, inner, 0, 0, "key       float  before   after code", app.look.dim());
    let float = shown.values(&shown.map.float, row);
    let before = shown.values(&shown.map.before, row);
    let after = shown.values(&shown.map.quantized, row);
    // Only of the method's own uniform quantizers is the code the value over the step.
    let uniform = app.snapshot.as_ref().is_some_and(|s| s.report.settings.softmax == SoftmaxShape::Method);
    let quantizer = shown.group(row).and_then(|g| shown.report.quantizers.get(g)).filter(|_| uniform);
    let step = quantizer.map_or(0.0, |q| q.scale);
    let mut order: Vec<usize> = (0..float.len()).collect();
    order.sort_by(|&a, &b| float[b].total_cmp(&float[a]));
    for (&column, y) in order.iter().zip(1..inner.height) {
        let code = if step > 0.0 { format!("{:.0}", after[column] / step) } else { String::new() };
        let name = shown.token_name(shown.layout.key(app.token, column));
        let text = format!("{name:<8}{:>7.4} {:>7.4} {:>7.4} {code:>4}", float[column], before[column], after[column]);
        put(buf, inner, 0, y, &text, Style::new());
    }
}

fn draw_quantizers(app: &App, shown: &Shown, area: Rect, buf: &mut Buffer) {
    let look = app.look;
    let report = shown.report;
    let bits = if report.bits.is_float() { "float".into() } else { format!("{} bits", report.bits) };
    let inner = panel(buf, area, &format!("{} row quantizers · {bits} · all heads", report.quantizers.len()), look);
    put(buf, inner, 0, 0, "g   upper    step  rows clipped codes", look.dim());
    let focus = shown.group(shown.row(app, app.token));
    let height = usize::from(inner.height.saturating_sub(1));
    let first = first_shown(focus.unwrap_or(0), report.quantizers.len(), height);
    for ((group, q), y) in report.quantizers.iter().enumerate().skip(first).take(height).zip(1..) {
        let text = format!(
            "{} {:>7} {:>7} {:>5} {:>6.1}% {:>5}",
            group_digit(group),
            short(f64::from(q.upper)),
            short(f64::from(q.scale)),
            q.members,
            q.clipped * 100.0,
            q.codes_used
        );
        let style = look.group(group, report.quantizers.len());
        put(buf, inner, 0, y, &text, if focus == Some(group) { style.add_modifier(Modifier::REVERSED) } else { style });
    }
    if report.quantizers.is_empty() {
        put(buf, inner, 0, 1, "this softmax stays in float: nothing is grouped", look.dim());
    }
}

pub fn hit(app: &App, area: Rect, column: u16, row: u16) -> Option<Hit> {
    let shown = shown(app)?;
    let [groups, map, ..] = areas(area);
    for panel in [groups, map] {
        let inner = map_area(panel.inner(Margin::new(1, 1)));
        if inner.contains((column, row).into()) {
            let window = shown.window(app, panel.inner(Margin::new(1, 1)))?;
            let (row, column) = window.patch_at(column - inner.x, row - inner.y)?;
            return shown.layout.token_at(row, column).map(Hit::Token);
        }
    }
    None
}
