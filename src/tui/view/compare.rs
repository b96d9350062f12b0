//! Compare: methods by bit-widths on this picture and on the evaluation set; a pinned answer A against the present answer B.

use ratatui::buffer::Buffer;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Modifier, Style};

use super::{first_shown, wrap};
use crate::analysis::report::{ClassProbability, Report, SiteReport};
use crate::studies::compare::{Comparison, ComparisonRow};
use crate::tui::app::App;
use crate::tui::studies::grid;
use crate::tui::update::Hit;
use crate::tui::widget::{operations, panel, put, short};

/// Areas of the table and of A against B.
fn areas(app: &App, area: Rect) -> [Rect; 2] {
    if area.width >= 160 {
        return Layout::horizontal([Constraint::Length(100), Constraint::Fill(1)]).areas(area);
    }
    let half = (area.height / 2).min(16);
    let beside = if app.pinned.is_none() { 4 } else { area.height.saturating_sub(25).clamp(half, 16) };
    Layout::vertical([Constraint::Fill(1), Constraint::Length(beside)]).areas(area)
}

pub fn draw(app: &App, area: Rect, buf: &mut Buffer) {
    let [table, pinned] = areas(app, area);
    if let Some(comparison) = &app.studies.comparison {
        rows(app, comparison, table, buf);
    } else {
        let inner = panel(buf, table, "Methods and bits", app.look);
        let text = app.studies.line().unwrap_or_else(|| "no comparison yet; 6 asks for it".into());
        for (line, y) in wrap(&text, usize::from(inner.width.saturating_sub(2))).iter().zip(0..) {
            put(buf, inner, 1, y, line, app.look.dim());
        }
    }
    against(app, pinned, buf);
}

/// One column of the table.
struct Column {
    title: &'static str,
    width: u16,
    from: u16,
    text: fn(&ComparisonRow) -> String,
}

fn evaluated(row: &ComparisonRow, text: impl Fn(&crate::studies::evaluate::EvaluationRow) -> String) -> String {
    row.evaluation.as_ref().map_or_else(String::new, text)
}

const COLUMNS: &[Column] = &[
    Column { title: "method", width: 13, from: 0, text: |r| r.settings.method.to_string() },
    Column { title: "bits", width: 4, from: 0, text: |r| format!("{}/{}", r.settings.wbits, r.settings.abits) },
    Column { title: "BOPs", width: 7, from: 58, text: |r| operations(r.bops) },
    Column {
        title: "this picture",
        width: 14,
        from: 0,
        text: |r| r.prediction.quantized.first().map_or_else(String::new, |c| c.label.clone()),
    },
    Column { title: "", width: 4, from: 0, text: |r| if r.prediction.flipped { "FLIP".into() } else { String::new() } },
    Column { title: "KL", width: 6, from: 0, text: |r| short(r.prediction.kl) },
    Column { title: "set KL", width: 6, from: 66, text: |r| evaluated(r, |e| short(e.kl)) },
    Column { title: "as float", width: 8, from: 74, text: |r| evaluated(r, |e| format!("{:.1} %", e.agreement)) },
    Column { title: "top-1", width: 6, from: 0, text: |r| evaluated(r, |e| e.top1.map_or_else(|| "-".into(), |t| format!("{t:.1} %"))) },
    Column { title: "95 %", width: 11, from: 92, text: |r| evaluated(r, |e| format!("{:.1}-{:.1}", e.interval.0, e.interval.1)) },
];

/// First line and number of lines of the table.
fn shown(app: &App, comparison: &Comparison, inner: Rect) -> std::ops::Range<usize> {
    let height = usize::from(inner.height.saturating_sub(1));
    let first = first_shown(app.row, comparison.rows.len(), height);
    first..(first + height).min(comparison.rows.len())
}

fn rows(app: &App, comparison: &Comparison, area: Rect, buf: &mut Buffer) {
    let look = app.look;
    let stale = if comparison.settings == grid(&app.settings) && comparison.picture == app.picture { "" } else { " · stale, computing" };
    let title = format!("Methods and bits · {}: {} of {} pictures so far{stale}", comparison.data, comparison.seen, comparison.total);
    let inner = panel(buf, area, &title, look);
    let columns: Vec<&Column> = COLUMNS.iter().filter(|c| inner.width >= c.from).collect();
    let line = |buf: &mut Buffer, y: u16, style: Style, text: &dyn Fn(&Column) -> String| {
        let mut x = 1;
        for column in &columns {
            let width = usize::from(column.width);
            let text: String = text(column).chars().take(width).collect();
            let left = matches!(column.title, "method" | "this picture" | "");
            put(buf, inner, x, y, &if left { format!("{text:<width$}") } else { format!("{text:>width$}") }, style);
            x += column.width + 1;
        }
    };
    line(buf, 0, look.dim(), &|c| c.title.into());
    for (at, y) in shown(app, comparison, inner).zip(1..) {
        let row = &comparison.rows[at];
        let style = if row.prediction.flipped { look.bad() } else { Style::new() };
        line(buf, y, style, &|c| (c.text)(row));
        let s = &app.settings;
        let present =
            (row.settings.method, row.settings.wbits, row.settings.abits, row.settings.sbits) == (s.method, s.wbits, s.abits, s.sbits);
        if present {
            put(buf, inner, 0, y, look.glyph("▌", ">"), look.accent());
        }
        if at == app.row {
            let row = Rect { y: inner.y + y, height: 1, ..inner }.intersection(buf.area);
            buf.set_style(row, look.selected());
        }
    }
}

fn against(app: &App, area: Rect, buf: &mut Buffer) {
    let look = app.look;
    let inner = panel(buf, area, "A against B", look);
    let (Some(a), Some(b)) = (&app.pinned, &app.snapshot) else {
        let text =
            "Nothing is pinned: P pins what is shown as A (in any view); after a change of settings or picture, B stands against it here.";
        for (line, y) in wrap(text, usize::from(inner.width.saturating_sub(2))).iter().zip(0..) {
            put(buf, inner, 1, y, line, look.dim());
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
        a.prediction.margin_quantized,
        b.prediction.margin_quantized,
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
    let line = |c: &ClassProbability| {
        let label: String = c.label.chars().take(room).collect();
        format!("{label:<room$} {:5.1} %", c.probability * 100.0)
    };
    for (class, y) in report.prediction.quantized.iter().zip(1..) {
        put(buf, area, 0, y, &line(class), Style::new());
    }
}

/// The sites whose error changed most, by the larger of the two changes in dB.
fn changed(app: &App, a: &Report, b: &Report, area: Rect, buf: &mut Buffer) {
    // Where nothing is lost the ratio has no number: 80 dB stands for it when sorting.
    let db = |v: Option<f64>| v.unwrap_or(80.0);
    let most = |a: &SiteReport, b: &SiteReport| {
        let local = db(b.local.error.sqnr_db) - db(a.local.error.sqnr_db);
        let cumulative = db(b.cumulative.sqnr_db) - db(a.cumulative.sqnr_db);
        local.abs().max(cumulative.abs())
    };
    let mut pairs: Vec<(f64, &SiteReport, &SiteReport)> =
        b.sites.iter().filter_map(|site| a.site(site.site).map(|was| (most(was, site), was, site))).filter(|p| p.0 > 0.0).collect();
    pairs.sort_by(|x, y| y.0.total_cmp(&x.0));
    let name = usize::from(app.site_width());
    put(buf, area, 0, 0, &format!("{:<name$}   local dB      cumulative dB", "changed most"), app.look.dim());
    if pairs.is_empty() {
        put(buf, area, 0, 1, "nothing: no site differs", app.look.dim());
    }
    for ((_, was, is), y) in pairs.iter().zip(1..area.height) {
        let pair = |a: Option<f64>, b: Option<f64>| format!("{:>5} → {:<5}", crate::tui::widget::db(a), crate::tui::widget::db(b));
        let text = format!(
            "{:<name$} {}  {}",
            is.site.to_string(),
            pair(was.local.error.sqnr_db, is.local.error.sqnr_db),
            pair(was.cumulative.sqnr_db, is.cumulative.sqnr_db)
        );
        put(buf, area, 0, y, &text, Style::new());
    }
}

pub fn hit(app: &App, area: Rect, column: u16, row: u16) -> Option<Hit> {
    let comparison = app.studies.comparison.as_ref()?;
    let [table, _] = areas(app, area);
    let inner = table.inner(ratatui::layout::Margin::new(1, 1));
    let inside = inner.contains((column, row).into()) && row > inner.y;
    inside.then(|| shown(app, comparison, inner).nth(usize::from(row - inner.y - 1)).map(Hit::Row))?
}
