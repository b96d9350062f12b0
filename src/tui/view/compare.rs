//! Compare: methods by bit-widths on this picture and on the evaluation set; a pinned answer A against the present answer B.

use crossterm::event::KeyCode;
use ratatui::buffer::Buffer;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Modifier, Style};

use super::spec::{ViewSpec, no_csv, no_detail};
use crate::analysis::objects::Fate;
use crate::analysis::report::{ClassProbability, Report, SiteReport};
use crate::engine::Study;
use crate::studies::compare::{Comparison, ComparisonRow};
use crate::studies::tally::EvaluationRow;
use crate::tui::app::App;
use crate::tui::hit::{Hit, Hits, Walk};
use crate::tui::keys::{Action, Key, bind};
use crate::tui::studies::grid;
use crate::tui::widget::table::{Cell, Column, Table};
use crate::tui::widget::text::{pad, wrap};
use crate::tui::widget::{db, operations, panel, put, short};

pub const SPEC: ViewSpec = ViewSpec {
    name: "compare",
    title: "Compare",
    key: '6',
    help: &[
        "Every method at 4, 6 and 8 bits, with your other settings: on this image, and",
        "on the evaluation set (set KL: mean KL; agree: same top-1 class as float;",
        "top-1: accuracy, 95 %: its interval). Below or beside: the pinned result A",
        "against the present result B.",
    ],
    keys: &[
        bind(&[Key::Code(KeyCode::Enter)], Action::TakeRow, "Enter", "apply this row's method and bit-widths", "Enter apply row"),
        bind(&[Key::Char('X')], Action::AllPictures, "X", "go on to all pictures of the evaluation set (Esc stops)", "X all pictures"),
    ],
    draw,
    rows: |app| Walk::new((0..comparison_rows(app).len()).map(Hit::Row).collect(), Some(Hit::Row(app.row))),
    cursor: None,
    study,
    detail: no_detail,
    csv: no_csv,
};

fn comparison_rows(app: &App) -> &[ComparisonRow] {
    app.studies.comparison.as_ref().map_or(&[], |c| &c.rows)
}

/// The comparison for the present settings and picture, unless all of it is there.
fn study(app: &App) -> Option<Study> {
    let settings = grid(&app.settings);
    let all = app.studies.all_for.as_ref() == Some(&settings);
    let enough = |c: &Comparison| c.seen == if all { c.available } else { c.total };
    let there = app.studies.comparison.as_deref().is_some_and(|c| c.settings == settings && c.picture == app.picture && enough(c));
    (!there).then_some(Study::Compare { settings, picture: app.picture, all })
}

/// Areas of the table and of A against B.
fn areas(app: &App, area: Rect) -> [Rect; 2] {
    if area.width >= 160 {
        return Layout::horizontal([Constraint::Length(100), Constraint::Fill(1)]).areas(area);
    }
    let half = (area.height / 2).min(16);
    let beside = if app.pinned.is_none() { 7 } else { area.height.saturating_sub(25).clamp(half, 16) };
    Layout::vertical([Constraint::Fill(1), Constraint::Length(beside)]).areas(area)
}

fn draw(app: &App, area: Rect, buf: &mut Buffer) -> Hits {
    let [table, pinned] = areas(app, area);
    against(app, pinned, buf);
    if let Some(comparison) = &app.studies.comparison {
        return rows(app, comparison, table, buf);
    }
    let inner = panel(buf, table, "Methods and bits", app.look);
    let text = app.studies.line().unwrap_or_else(|| format!("there is no comparison yet; {} starts it", SPEC.key));
    for (line, y) in wrap(&text, usize::from(inner.width.saturating_sub(2))).iter().zip(0..) {
        put(buf, inner, 1, y, line, app.look.dim());
    }
    Hits::default()
}

fn evaluated(row: &ComparisonRow, text: impl Fn(&EvaluationRow) -> String) -> String {
    row.evaluation.as_ref().map_or_else(String::new, text)
}

fn columns(app: &App) -> Vec<Column<'_, (usize, &ComparisonRow)>> {
    type Row<'r> = (usize, &'r ComparisonRow);
    let look = app.look;
    let s = &app.settings;
    let present = move |r: &Row| {
        let (row, mark) = (&r.1.settings, Cell::Text(look.glyph("▌", ">").into(), look.accent()));
        let is = (row.method, row.wbits, row.abits, row.sbits) == (s.method, s.wbits, s.abits, s.sbits);
        if is { mark } else { "".into() }
    };
    let first = |r: &Row| match &r.1.prediction.objects {
        Some(found) => {
            let stay = found.count(Fate::Kept) + found.count(Fate::Moved);
            format!("{stay}/{} kept +{}", found.counts.0, found.count(Fate::New))
        }
        None => r.1.prediction.quantized.first().map_or_else(String::new, |c| c.label.clone()),
    };
    let top1 = |e: &EvaluationRow| e.top1.map_or_else(|| "-".into(), |t| format!("{t:.1} %"));
    vec![
        Column::new("", 1, present),
        Column::new("method", 13, |r: &Row| r.1.settings.method.to_string()),
        Column::new("bits", 4, |r: &Row| format!("{}/{}", r.1.settings.wbits, r.1.settings.abits)).right(),
        Column::new("eff W/A", 9, |r: &Row| format!("{:.2}/{:.2}", r.1.effective_bits.0, r.1.effective_bits.1)).right().from(108),
        Column::new("BOPs", 7, |r: &Row| operations(r.1.bops)).right().from(60),
        Column::new("this image", 14, first).up_to(40),
        Column::new("", 4, |r: &Row| if r.1.prediction.flipped { "FLIP" } else { "" }),
        Column::new("KL", 8, |r: &Row| short(r.1.prediction.kl)).right(),
        Column::new("set KL", 8, |r: &Row| evaluated(r.1, |e| short(e.kl))).right().from(68),
        Column::new("agree", 7, |r: &Row| evaluated(r.1, |e| format!("{:.1} %", e.agreement))).right().from(76),
        Column::new("top-1", 7, move |r: &Row| evaluated(r.1, top1)).right(),
        Column::new("95 %", 11, |r: &Row| evaluated(r.1, |e| format!("{:.1}-{:.1}", e.interval.0, e.interval.1))).right().from(94),
    ]
}

fn rows(app: &App, comparison: &Comparison, area: Rect, buf: &mut Buffer) -> Hits {
    let look = app.look;
    let stale = if comparison.settings == grid(&app.settings) && comparison.picture == app.picture { "" } else { " · stale, computing" };
    let more = match comparison.available - comparison.total {
        0 => String::new(),
        more => format!(", X goes on to {more} more"),
    };
    let title = format!("Methods and bits · {}: {} of {} pictures{more}{stale}", comparison.data, comparison.seen, comparison.total);
    let rows: Vec<(usize, &ComparisonRow)> = comparison.rows.iter().enumerate().collect();
    let table = Table::new(columns(app), &rows)
        .selected(Some(app.row))
        .style(|r| if r.1.prediction.flipped { look.bad() } else { Style::new() })
        .click(|r| Some(Hit::Row(r.0)));
    table.draw(&title, look, area, buf).1
}

fn against(app: &App, area: Rect, buf: &mut Buffer) {
    let look = app.look;
    let inner = panel(buf, area, "A against B", look);
    let (Some(a), Some(b)) = (&app.pinned, &app.snapshot) else {
        let room = usize::from(inner.width.saturating_sub(2));
        let pin = "Nothing is pinned: P pins the present result as A, for B beside it.";
        let verdict = app.studies.comparison.as_ref().and_then(|comparison| comparison.verdict(&app.settings)).unwrap_or_default();
        let pin = wrap(pin, room).into_iter().map(|line| (line, look.dim()));
        let lines: Vec<(String, Style)> = pin.chain(wrap(&verdict, room).into_iter().map(|line| (line, Style::new()))).collect();
        for ((line, style), y) in lines.iter().zip(0..) {
            put(buf, inner, 1, y, line, *style);
        }
        return;
    };
    let (a, b) = (&a.report, &b.report);
    let bold = Style::new().add_modifier(Modifier::BOLD);
    put(buf, inner, 0, 0, &format!("A {} · {}", a.picture.name, a.settings.describe()), bold);
    put(buf, inner, 0, 1, &format!("B {} · {}", b.picture.name, b.settings.describe()), bold);
    let change = 100.0 * (b.bops.total as f64 / a.bops.total.max(1) as f64 - 1.0);
    let numbers = format!(
        "KL {} → {}   margin {:.2} → {:.2}   BOPs {} → {} ({change:+.1} %)",
        short(a.prediction.kl),
        short(b.prediction.kl),
        a.prediction.margin_kept,
        b.prediction.margin_kept,
        operations(a.bops.total),
        operations(b.bops.total)
    );
    put(buf, inner, 0, 2, &numbers, Style::new());
    let rest = Rect { y: inner.y + 3, height: inner.height.saturating_sub(3), ..inner };
    let beside = rest.width >= 100 || rest.height < 14;
    let [classes, sites] = if beside {
        Layout::horizontal([Constraint::Length(if rest.width >= 100 { 50 } else { 36 }), Constraint::Fill(1)]).spacing(2).areas(rest)
    } else {
        Layout::vertical([Constraint::Length(7), Constraint::Fill(1)]).areas(rest)
    };
    let [left, right] = Layout::horizontal([Constraint::Fill(1), Constraint::Fill(1)]).spacing(1).areas(classes);
    top5(app, "A", a, left, buf);
    top5(app, "B", b, right, buf);
    changed(app, a, b, sites, buf);
}

fn top5(app: &App, name: &str, report: &Report, area: Rect, buf: &mut Buffer) {
    let flipped = report.prediction.flipped;
    let title = format!("{name}{}", if flipped { " FLIPPED" } else { " same class" });
    put(buf, area, 0, 0, &title, if flipped { app.look.bad() } else { app.look.good() });
    let room = usize::from(area.width).saturating_sub(8);
    let line = |c: &ClassProbability| format!("{} {:5.1} %", pad(&c.label, room), c.probability * 100.0);
    for (class, y) in report.prediction.quantized.iter().zip(1..) {
        put(buf, area, 0, y, &line(class), Style::new());
    }
}

/// The sites with the largest change of SQNR, local or cumulative.
fn changed(app: &App, a: &Report, b: &Report, area: Rect, buf: &mut Buffer) {
    // Where nothing is lost the ratio has no number: 80 dB stands for it when sorting.
    let number = |v: Option<f64>| v.unwrap_or(80.0);
    let most = |a: &SiteReport, b: &SiteReport| {
        let local = number(b.local.error.sqnr_db) - number(a.local.error.sqnr_db);
        let cumulative = number(b.cumulative.sqnr_db) - number(a.cumulative.sqnr_db);
        local.abs().max(cumulative.abs())
    };
    let mut pairs: Vec<(f64, &SiteReport, &SiteReport)> =
        b.sites.iter().filter_map(|site| a.site(site.site).map(|was| (most(was, site), was, site))).filter(|p| p.0 > 0.0).collect();
    pairs.sort_by(|x, y| y.0.total_cmp(&x.0));
    let name = usize::from(app.site_width());
    put(buf, area, 0, 0, &format!("{:<name$}   local dB      cum dB", "largest change"), app.look.dim());
    if pairs.is_empty() {
        put(buf, area, 0, 1, "no site differs", app.look.dim());
    }
    for ((_, was, is), y) in pairs.iter().zip(1..area.height) {
        let pair = |a: Option<f64>, b: Option<f64>| format!("{:>5} → {:<5}", db(a), db(b));
        let text = format!(
            "{:<name$} {}  {}",
            is.site.to_string(),
            pair(was.local.error.sqnr_db, is.local.error.sqnr_db),
            pair(was.cumulative.sqnr_db, is.cumulative.sqnr_db)
        );
        put(buf, area, 0, y, &text, Style::new());
    }
}
