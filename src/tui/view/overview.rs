//! Overview: the picture, float against quantized, and the table of sites.

use ratatui::buffer::Buffer;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Modifier, Style};

use super::{first_shown, waiting};
use crate::analysis::report::{ClassProbability, SiteReport};
use crate::model::Site;
use crate::tui::app::App;
use crate::tui::update::Hit;
use crate::tui::widget::{bar, db, panel, picture, put, short};

/// SQNR at which the bar is full, in dB.
const FULL_DB: f64 = 40.0;

/// Areas of the picture, the predictions and the table.
fn areas(area: Rect) -> [Rect; 3] {
    let top = (area.height * 2 / 5).clamp(9, 18).min(area.height.saturating_sub(4));
    let [upper, table] = Layout::vertical([Constraint::Length(top), Constraint::Fill(1)]).areas(area);
    let [image, prediction] = Layout::horizontal([Constraint::Length(top.saturating_sub(2) * 2 + 2), Constraint::Fill(1)]).areas(upper);
    [image, prediction, table]
}

pub fn draw(app: &App, area: Rect, buf: &mut Buffer) {
    let Some(snapshot) = &app.snapshot else { return waiting(app, area, buf) };
    let [image, prediction, table] = areas(area);
    let inner = panel(buf, image, &snapshot.report.picture.name, app.look);
    picture::draw(&snapshot.view, snapshot.report.model.tokens.grid, app.look, inner, buf);
    predictions(app, prediction, buf);
    sites(app, table, buf);
}

fn predictions(app: &App, area: Rect, buf: &mut Buffer) {
    let Some(snapshot) = &app.snapshot else { return };
    let look = app.look;
    let p = app.prediction().unwrap_or(&snapshot.report.prediction);
    let inner = panel(buf, area, "Prediction", look);
    let [left, right] = Layout::horizontal([Constraint::Fill(1), Constraint::Fill(1)]).spacing(2).areas(inner);
    let truth = snapshot.report.picture.truth.as_ref();
    let column = |buf: &mut Buffer, area: Rect, title: &str, classes: &[ClassProbability], flipped: bool| {
        put(buf, area, 0, 0, title, look.accent());
        let name = (usize::from(area.width) / 2).clamp(5, 31) - 1;
        for (row, class) in classes.iter().enumerate() {
            let mut style = if row == 0 { Style::new().add_modifier(Modifier::BOLD) } else { Style::new() };
            if row == 0 && flipped {
                style = look.bad();
            }
            let mark = if truth.is_some_and(|t| t.class == class.class) { "*" } else { " " };
            let label: String = class.label.chars().take(name).collect();
            let room = usize::from(area.width).saturating_sub(name + 10);
            let percent = class.probability * 100.0;
            let text = format!("{mark}{label:<name$} {} {percent:5.1} %", bar(class.probability, room));
            put(buf, area, 0, 1 + row as u16, &text, style);
        }
    };
    column(buf, left, "float", &p.float, false);
    column(buf, right, "quantized", &p.quantized, p.flipped);
    let y = 1 + p.float.len().max(p.quantized.len()) as u16;
    let (text, style) = if p.flipped { ("FLIPPED", look.bad()) } else { ("same class", look.good()) };
    put(buf, inner, 0, y, text, style);
    let truth = truth.map(|t| format!("  * truth: {}", t.label)).unwrap_or_default();
    let line = format!("KL {}  margin {:.2} → {:.2}{truth}", short(p.kl), p.margin_float, p.margin_quantized);
    put(buf, inner, text.len() as u16 + 2, y, &line, Style::new());
    let report = &snapshot.report;
    let more = [
        ("model", report.model.description.clone()),
        ("input", report.picture.preprocessing.clone()),
        ("calibrated", format!("on {}", report.calibration.source)),
        ("picture", format!("{} ({}x{})", report.picture.source, report.picture.width, report.picture.height)),
    ];
    let notes = report.model.notes.iter().map(|note| ("note", note.clone()));
    for ((what, line), y) in more.into_iter().chain(notes).zip(y + 2..inner.height) {
        put(buf, inner, 0, y, &format!("{what:<11}{line}"), look.dim());
    }
}

/// One column of the table: title, width, and the least width of the screen that shows it.
struct Column {
    title: &'static str,
    width: u16,
    from: u16,
    text: fn(&App, &SiteReport) -> String,
}

const COLUMNS: &[Column] = &[
    Column { title: "site", width: 14, from: 0, text: |_, s| s.site.to_string() },
    Column { title: "bits", width: 5, from: 0, text: |_, s| if s.bits.is_float() { "float".into() } else { s.bits.to_string() } },
    Column { title: "groups", width: 6, from: 0, text: |_, s| if s.groups == 0 { String::new() } else { s.groups.to_string() } },
    Column { title: "local dB", width: 8, from: 0, text: |_, s| db(s.local.error.sqnr_db) },
    Column { title: "", width: 8, from: 82, text: |_, s| bar(s.local.error.sqnr_db.map_or(1.0, |v| v / FULL_DB), 8) },
    Column { title: "cum dB", width: 6, from: 0, text: |_, s| db(s.cumulative.sqnr_db) },
    Column {
        title: "RMSE/step",
        width: 9,
        from: 0,
        text: |_, s| if s.groups == 0 { String::new() } else { format!("{:.2}", s.local.rmse_over_step) },
    },
    Column {
        title: "clipped",
        width: 8,
        from: 66,
        text: |_, s| if s.groups == 0 { String::new() } else { format!("{:.2} %", s.local.clipped * 100.0) },
    },
    Column {
        title: "alone KL",
        width: 9,
        from: 56,
        text: |app, s| {
            app.sensitivity.get(&s.site).map(|v| format!("{}{}", short(v.kl), if v.flipped { " !" } else { "" })).unwrap_or_default()
        },
    },
    Column {
        title: "codes",
        width: 6,
        from: 96,
        text: |_, s| if s.groups == 0 { String::new() } else { format!("{:.0} %", s.local.codes_used * 100.0) },
    },
    Column { title: "cosine", width: 8, from: 106, text: |_, s| format!("{:.5}", s.cumulative.cosine) },
    Column { title: "weight dB", width: 9, from: 116, text: |_, s| s.weight.map(|w| db(w.sqnr_db)).unwrap_or_default() },
    Column { title: "what it is", width: 60, from: 140, text: |_, s| s.kind.describe().to_string() },
];

/// The site at line `y` of the table, and how many lines it has.
fn shown(app: &App, inner: Rect) -> Vec<Site> {
    let sites = app.visible_sites();
    let height = usize::from(inner.height.saturating_sub(1));
    let selected = sites.iter().position(|s| *s == app.site).unwrap_or(0);
    let first = first_shown(selected, sites.len(), height);
    sites.into_iter().skip(first).take(height).collect()
}

/// The columns that a panel of this width has room for, and how wide each is: those that matter most first, by `from`.
fn fitting(app: &App, room: u16) -> Vec<(&'static Column, u16)> {
    let name = app.site_width();
    let wide = |column: &Column| if column.title == "site" { name } else { column.width };
    let longer = name - COLUMNS[0].width;
    let mut order: Vec<usize> = (0..COLUMNS.len()).filter(|&c| COLUMNS[c].from == 0 || room >= COLUMNS[c].from + longer).collect();
    order.sort_by_key(|&c| COLUMNS[c].from);
    let mut used = 0;
    order.retain(|&c| {
        used += wide(&COLUMNS[c]) + 1;
        used <= room + 1 || COLUMNS[c].from == 0 || COLUMNS[c].title == "what it is"
    });
    order.sort_unstable();
    order.into_iter().map(|c| (&COLUMNS[c], wide(&COLUMNS[c]))).collect()
}

fn sites(app: &App, area: Rect, buf: &mut Buffer) {
    let Some(snapshot) = &app.snapshot else { return };
    let look = app.look;
    let sorted = format!("Sites by {}{}", app.sort.title(), if app.sort_reversed { ", reversed" } else { "" });
    let count = app.visible_sites().len();
    let inner = panel(buf, area, &format!("{sorted} ({count})"), look);
    let columns = fitting(app, inner.width);
    let mut x = 0;
    for (column, width) in &columns {
        let right = column.title != "site" && column.title != "what it is";
        let title = if right { format!("{:>1$}", column.title, usize::from(*width)) } else { column.title.into() };
        put(buf, inner, x, 0, &title, look.dim());
        x += width + 1;
    }
    for (site, y) in shown(app, inner).iter().zip(1..) {
        let Some(report) = snapshot.report.site(*site) else { continue };
        let mut x = 0;
        for (column, columns) in &columns {
            let width = usize::from(*columns);
            let text = (column.text)(app, report);
            let left = matches!(column.title, "site" | "what it is" | "");
            let text = if left { format!("{text:<width$}") } else { format!("{text:>width$}") };
            let style = match column.title {
                "" if look.has_color() => Style::new().fg(look.sequential(report.local.error.sqnr_db.map_or(1.0, |v| v / FULL_DB))),
                "what it is" => look.dim(),
                _ => Style::new(),
            };
            put(buf, inner, x, y, &text, style);
            x += columns + 1;
        }
        if *site == app.site {
            let line = Rect { y: inner.y + y, height: 1, ..inner }.intersection(buf.area);
            buf.set_style(line, look.selected());
        }
    }
}

pub fn hit(app: &App, area: Rect, column: u16, row: u16) -> Option<Hit> {
    let [_, _, table] = areas(area);
    let inner = table.inner(ratatui::layout::Margin::new(1, 1));
    let inside = inner.contains((column, row).into()) && row > inner.y;
    inside.then(|| shown(app, inner).get(usize::from(row - inner.y - 1)).copied().map(Hit::Site))?
}
