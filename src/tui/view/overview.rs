//! Overview: the picture, float against quantized, and the table of sites.

use crossterm::event::KeyCode;
use ratatui::buffer::Buffer;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};

use super::spec::{ViewSpec, no_csv, no_detail, no_study, waiting};
use crate::analysis::objects::{Fate, ObjectReport, ObjectsReport, Seen};
use crate::analysis::report::LensPoint;
use crate::analysis::report::{ClassProbability, SiteReport};
use crate::model::SiteKind;
use crate::session::{PictureView, Snapshot};
use crate::tui::app::App;
use crate::tui::choice::Sort;
use crate::tui::hit::{Hit, Hits, Walk};
use crate::tui::keys::Key::{Char, Code};
use crate::tui::keys::{Action, bind};
use crate::tui::objects;
use crate::tui::widget::boxes::{self, Frame};
use crate::tui::widget::masks;
use crate::tui::widget::table::{Cell, Column, Table};
use crate::tui::widget::text::pad;
use crate::tui::widget::{bar, db, panel, picture, put, short};

pub const SPEC: ViewSpec = ViewSpec {
    name: "overview",
    title: "Overview",
    key: '1',
    help: &[
        "Float against quantized for this image; every quantized operand (site).",
        "local dB: SQNR of the tensor after its own quantizer against before it.",
        "cum dB: SQNR of the quantized run against the float run at this place.",
        "RMSE/step: about 0.29 is rounding alone, more means clipping.",
        "alone KL: KL with only this site quantized; ! if the top-1 class changes.",
        "Click a column's title to sort by it, once more to reverse the order.",
        "Paste the path of an image, or drop it on the terminal, to open it.",
    ],
    keys: &[
        bind(&[Char('o')], Action::Sort, "o", "sort the sites by the next column", "o sort"),
        bind(&[Char('O')], Action::SortOrder, "O", "reverse the sort order", ""),
        bind(&[Char('/')], Action::Filter, "/", "filter sites by name", "/ filter"),
        bind(&[Char('l'), Code(KeyCode::Right)], Action::Object(true), "l →", "next object of a detector", ""),
        bind(&[Char('h'), Code(KeyCode::Left)], Action::Object(false), "h ←", "previous object", ""),
        bind(&[Char('.'), Char('>')], Action::Threshold(true), ".", "objects from a higher probability on", ""),
        bind(&[Char(','), Char('<')], Action::Threshold(false), ",", "objects from a lower probability on", ""),
        bind(&[Char('v')], Action::Overlay, "v", "over the picture: boxes of both runs or one, masks, nothing", ""),
        bind(&[Code(KeyCode::Enter)], Action::CloseUp, "Enter", "the picture around this object, or all of it", ""),
    ],
    draw,
    rows: |app| Walk::over(app.visible_sites(), Some(app.site)),
    cursor: None,
    study: no_study,
    detail: no_detail,
    csv: no_csv,
};

/// SQNR at which the bar is full, in dB.
const FULL_DB: f64 = 40.0;

/// Areas of the picture, the predictions and the table.
fn areas(area: Rect) -> [Rect; 3] {
    let top = (area.height * 2 / 5).clamp(9, 18).min(area.height.saturating_sub(4));
    let [upper, table] = Layout::vertical([Constraint::Length(top), Constraint::Fill(1)]).areas(area);
    let [image, prediction] = Layout::horizontal([Constraint::Length(top.saturating_sub(2) * 2 + 2), Constraint::Fill(1)]).areas(upper);
    [image, prediction, table]
}

fn draw(app: &App, area: Rect, buf: &mut Buffer) -> Hits {
    let Some(snapshot) = &app.snapshot else { return waiting(app, area, buf) };
    if let Some(objects) = objects::of(app) {
        return detector(app, snapshot, &objects, area, buf);
    }
    let [image, prediction, table] = areas(area);
    let inner = panel(buf, image, &snapshot.report.picture.name, app.look);
    picture::draw(&snapshot.view, snapshot.report.model.tokens.grid, app.look, inner, buf);
    predictions(app, prediction, buf);
    let mut hits = sites(app, table, buf);
    hits.add(inner, Hit::Picture);
    hits
}

/// A detector: its boxes over the picture, its objects, and the sites beneath.
fn detector(app: &App, snapshot: &Snapshot, objects: &ObjectsReport, area: Rect, buf: &mut Buffer) -> Hits {
    let top = (area.height * 3 / 5).clamp(9, 32).min(area.height.saturating_sub(4));
    let [upper, table] = Layout::vertical([Constraint::Length(top), Constraint::Fill(1)]).areas(area);
    let share = if area.width < 66 { 100 } else { 48 };
    let [image, list] = Layout::horizontal([Constraint::Percentage(share), Constraint::Fill(1)]).areas(upper);
    let (view, shift) = seen_part(app, snapshot, objects);
    let title = format!("{} · {}{}", snapshot.report.picture.name, app.overlay.title(), if app.close_up { ", close up" } else { "" });
    let inner = panel(buf, image, &title, app.look);
    picture::draw(&view, (1, 1), app.look, inner, buf);
    let frames: Vec<Frame> = objects::frames(app, objects)
        .into_iter()
        .map(|frame| {
            let [left, top, right, bottom] = frame.corners;
            let across = |x: f64| (x - shift[0]) / (shift[2] - shift[0]).max(1e-9);
            let down = |y: f64| (y - shift[1]) / (shift[3] - shift[1]).max(1e-9);
            Frame { corners: [across(left), down(top), across(right), down(bottom)], ..frame }
        })
        .collect();
    masks::draw(&objects::tints(app, objects), shift, app.look, picture::place(&view, inner), buf);
    boxes::draw(&frames, app.look, picture::place(&view, inner), buf);
    let mut hits = list_of_objects(app, snapshot, objects, list, buf);
    hits.extend(sites(app, table, buf));
    hits
}

/// The picture, or what of it lies around the object under the cursor, and where that is: left, top, right and bottom as shares.
fn seen_part(app: &App, snapshot: &Snapshot, objects: &ObjectsReport) -> (PictureView, [f64; 4]) {
    let object = objects.objects.get(app.object).filter(|_| app.close_up);
    let Some(seen) = object.and_then(|o| o.float.as_ref().or(o.quantized.as_ref())) else {
        return (snapshot.view.clone(), [0.0, 0.0, 1.0, 1.0]);
    };
    let [left, top, right, bottom] = seen.corners;
    let (wide, high) = ((right - left) * 0.25, (bottom - top) * 0.25);
    let around = [left - wide, top - high, right + wide, bottom + high].map(|share| share.clamp(0.0, 1.0));
    (picture::part(&snapshot.view, around), around)
}

fn list_of_objects(app: &App, snapshot: &Snapshot, objects: &ObjectsReport, area: Rect, buf: &mut Buffer) -> Hits {
    let look = app.look;
    let rows: Vec<(usize, &ObjectReport)> = objects.objects.iter().enumerate().collect();
    let percent = |seen: Option<&Seen>| seen.map_or_else(|| "--".into(), |s| format!("{:.0}", s.score * 100.0));
    let name = |o: &ObjectReport| match (&o.float, &o.quantized) {
        (Some(a), Some(b)) if a.label != b.label => format!("{} {} {}", a.label, look.glyph("→", ">"), b.label),
        (Some(a), _) => a.label.clone(),
        (None, Some(b)) => b.label.clone(),
        (None, None) => String::new(),
    };
    let masked = objects::have_masks(objects);
    let columns = vec![
        Column::new("", 1, |r: &(usize, &ObjectReport)| Cell::Text(objects::sign(r.1.fate, look).into(), objects::style(r.1.fate, look))),
        Column::new("#", 2, |r: &(usize, &ObjectReport)| objects::number(r.0)),
        Column::new("object", 10, |r: &(usize, &ObjectReport)| name(r.1)).up_to(30),
        Column::new("float %", 7, |r: &(usize, &ObjectReport)| percent(r.1.float.as_ref())).right(),
        Column::new("quant %", 7, |r: &(usize, &ObjectReport)| percent(r.1.quantized.as_ref())).right(),
        // The overlap that decides stands longest: that of the masks, where there are any.
        Column::new("IoU", 4, |r: &(usize, &ObjectReport)| r.1.iou.map_or_else(|| "--".into(), |iou| format!("{iou:.2}")))
            .right()
            .from(if masked { 42 } else { 36 }),
        Column::new("mask", 4, |r: &(usize, &ObjectReport)| r.1.mask_iou.map_or_else(|| "--".into(), |iou| format!("{iou:.2}")))
            .right()
            .from(if masked { 36 } else { u16::MAX }),
        Column::new("KL", 8, |r: &(usize, &ObjectReport)| r.1.kl.map_or_else(|| "--".into(), short)).right().from(48),
        Column::new("fate", 10, |r: &(usize, &ObjectReport)| r.1.fate.name()).from(58),
    ];
    let title = format!("Objects over {:.2}: {} float, {} quantized", objects.threshold, objects.counts.0, objects.counts.1);
    let detail = if area.height >= 16 { 5 } else { 1 };
    let [upper, lower] = Layout::vertical([Constraint::Fill(1), Constraint::Length(detail)]).areas(area);
    let table = Table::new(columns, &rows)
        .selected((!rows.is_empty()).then_some(app.object.min(rows.len().saturating_sub(1))))
        .click(|r| Some(Hit::Object(r.0)));
    let (inner, hits) = table.draw(&title, look, upper, buf);
    if rows.is_empty() {
        put(buf, inner, 1, 1, "nothing above the threshold; , lowers it", look.dim());
    }
    // Where it is narrow, words are cut to what still tells them apart.
    let (gap, letters) = if lower.width >= 50 { ("  ", 10) } else { (" ", 5) };
    let one = |fate: Fate| format!("{}{}", objects::sign(fate, look), fate.name().chars().take(letters).collect::<String>());
    let legend = Fate::ALL.map(one).join(gap);
    put(buf, lower, 1, 0, &legend, look.dim());
    let p = app.prediction().unwrap_or(&snapshot.report.prediction);
    let pixels = |seen: Option<&Seen>| {
        let (w, h) = (snapshot.view.width as f64, snapshot.view.height as f64);
        seen.map_or_else(
            || "none".into(),
            |s| {
                let [l, t, r, b] = s.corners;
                format!("{:.0},{:.0} {:.0}x{:.0}", l * w, t * h, (r - l) * w, (b - t) * h)
            },
        )
    };
    let (slot, slots) = objects.slot();
    let mut lines = vec![format!("KL {} a {slot}, mean of {} {slots}", short(p.kl), objects.kl.len())];
    if let Some((_, object)) = rows.get(app.object) {
        let query = objects::query(object).unwrap_or_default();
        lines.push(match objects::token(app, object) {
            Some(token) => format!("{slot} {query}: its row in Attention is token {token}"),
            None => format!("{slot} {query}"),
        });
        lines.push(format!("box float {}  quantized {}", pixels(object.float.as_ref()), pixels(object.quantized.as_ref())));
    }
    for (text, y) in lines.iter().zip(1..lower.height) {
        put(buf, lower, 1, y, text, Style::new());
    }
    hits
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
            let room = usize::from(area.width).saturating_sub(name + 10);
            let percent = class.probability * 100.0;
            let text = format!("{mark}{} {} {percent:5.1} %", pad(&class.label, name), bar(class.probability, room));
            put(buf, area, 0, 1 + row as u16, &text, style);
        }
    };
    column(buf, left, "float", &p.float, false);
    column(buf, right, "quantized", &p.quantized, p.flipped);
    let y = 1 + p.float.len().max(p.quantized.len()) as u16;
    let (text, style) = if p.flipped { ("FLIPPED", look.bad()) } else { ("same class", look.good()) };
    put(buf, inner, 0, y, text, style);
    let truth = truth.map(|t| format!("  * truth: {}", t.label)).unwrap_or_default();
    let line = format!("KL {}  margin {:.2} → {:.2}{truth}", short(p.kl), p.margin_float, p.margin_kept);
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

/// A number that only quantized activations have.
fn quantized(site: &SiteReport, text: impl Fn(&SiteReport) -> String) -> String {
    if site.groups == 0 { String::new() } else { text(site) }
}

/// The columns; addresses longer than a plain ViT's move the widths at which columns appear.
fn columns(app: &App) -> Vec<Column<'_, &SiteReport>> {
    let name = app.site_width();
    let at = |from: u16| from + name - 14;
    let look = app.look;
    let full = |s: &SiteReport| s.local.error.sqnr_db.map_or(1.0, |v| v / FULL_DB);
    let color = move |s: &SiteReport| if look.has_color() { look.sequential(full(s)) } else { Color::Reset };
    let alone = |s: &SiteReport| {
        app.sensitivity.get(&s.site).map(|v| format!("{}{}", short(v.kl), if v.flipped { " !" } else { "" })).unwrap_or_default()
    };
    let sorts = Hit::Sort;
    vec![
        Column::new("site", name, |s: &&SiteReport| s.site.to_string()).click(sorts(Sort::Order)),
        Column::new("bits", 5, |s: &&SiteReport| if s.bits.is_float() { "float".into() } else { s.bits.to_string() }).right(),
        Column::new("groups", 6, |s: &&SiteReport| quantized(s, |s| s.groups.to_string())).right(),
        Column::new("local dB", 9, |s: &&SiteReport| db(s.local.error.sqnr_db)).right().click(sorts(Sort::Local)),
        Column::new("", 8, move |s: &&SiteReport| Cell::Bar(full(s), color(s))).from(at(84)),
        Column::new("cum dB", 7, |s: &&SiteReport| db(s.cumulative.sqnr_db)).right().click(sorts(Sort::Cumulative)),
        Column::new("RMSE/step", 10, |s: &&SiteReport| quantized(s, |s| format!("{:.2}", s.local.rmse_over_step)))
            .right()
            .click(sorts(Sort::Steps)),
        Column::new("clipped", 8, |s: &&SiteReport| quantized(s, |s| format!("{:.2} %", s.local.clipped * 100.0)))
            .right()
            .from(at(68))
            .click(sorts(Sort::Clipped)),
        Column::new("alone KL", 10, move |s: &&SiteReport| alone(s)).right().from(at(58)).click(sorts(Sort::Alone)),
        Column::new("lens KL", 9, |s: &&SiteReport| lens(app, s)).right().from(at(128)),
        Column::new("codes", 6, |s: &&SiteReport| quantized(s, |s| format!("{:.0} %", s.local.codes_used * 100.0))).right().from(at(98)),
        Column::new("cosine", 8, |s: &&SiteReport| format!("{:.5}", s.cumulative.cosine)).right().from(at(108)),
        Column::new("weight dB", 9, |s: &&SiteReport| s.weight.map(|w| db(w.sqnr_db)).unwrap_or_default()).right().from(at(118)),
        Column::new("what it is", 20, move |s: &&SiteReport| Cell::Text(s.kind.describe().into(), look.dim())).from(at(140)).up_to(70),
    ]
}

/// The KL that the lens finds after the block that a site ends.
fn lens(app: &App, site: &SiteReport) -> String {
    let ends = |p: &&LensPoint| format!("{}.fc2", p.after) == site.site.to_string();
    let point = app.lens().and_then(|points| points.iter().find(ends)).filter(|_| site.kind == SiteKind::Fc2);
    point.map(|p| short(p.kl)).unwrap_or_default()
}

fn sites(app: &App, area: Rect, buf: &mut Buffer) -> Hits {
    let Some(snapshot) = &app.snapshot else { return Hits::default() };
    let rows: Vec<&SiteReport> = app.visible_sites().into_iter().filter_map(|site| snapshot.report.site(site)).collect();
    let title = format!("Sites by {}{}", app.sort.title(), if app.sort_reversed { ", reversed" } else { "" });
    let table = Table::new(columns(app), &rows)
        .selected(rows.iter().position(|s| s.site == app.site))
        .sorted(Hit::Sort(app.sort), app.sort.ascends() != app.sort_reversed)
        .click(|s| Some(Hit::Site(s.site)));
    table.draw(&title, app.look, area, buf).1
}
