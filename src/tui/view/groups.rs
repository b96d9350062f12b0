//! Groups: every channel of the selected site as a bar from its min to its max for this picture, in the colour of its group; the group
//! quantizers beside it; a second picture beneath it, with the channels that moved.

use crossterm::event::KeyCode;
use ratatui::buffer::Buffer;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Modifier, Style};

use super::spec::{ViewSpec, all_sites, channel_walk, no_csv, waiting};
use crate::analysis::report::{QuantizerReport, SiteReport};
use crate::engine::Study;
use crate::engine::command::Method;
use crate::tui::app::App;
use crate::tui::groups::{self, group_of};
use crate::tui::hit::{Hit, Hits};
use crate::tui::keys::Key::{Char, Code};
use crate::tui::keys::{Action, bind};
use crate::tui::theme::group_digit;
use crate::tui::widget::bars::{self, Bar, Scale};
use crate::tui::widget::table::{Column, Table};
use crate::tui::widget::text::pad_left;
use crate::tui::widget::{bar, db, first_shown, panel, put, short};

pub const SPEC: ViewSpec = ViewSpec {
    name: "groups",
    title: "Groups",
    key: '2',
    help: &[
        "Each bar is one channel, from its smallest to its largest value here; the",
        "strip above holds all channels, several a column, the window marked under it.",
        "Shaded ends lie beyond the bounds of the group and are clipped.",
        "Its colour and digit are its group: channels of one group share a quantizer.",
        "Groups are numbered by width: 0 is the narrowest. The quantizers are fixed;",
        "which channel takes which is decided anew for every image: press c to see.",
    ],
    keys: &[
        bind(&[Char('c')], Action::Compare, "c", "compare the groups with a second picture, then with the pinned result", "c compare"),
        bind(&[Char('.'), Char('>')], Action::ComparePicture(true), ".", "next second picture", ""),
        bind(&[Char(','), Char('<')], Action::ComparePicture(false), ",", "previous second picture", ""),
        bind(&[Char('z')], Action::ChannelOrder, "z", "channels in their own order or by group", "z order"),
        bind(&[Char('v')], Action::Scale, "v", "linear or logarithmic scale", "v scale"),
        bind(&[Char('b')], Action::Dense, "b", "one column a channel, or half a column", "b bars"),
        bind(&[Char('Z')], Action::Zoom, "Z", "a scale for the channels shown, or for all", "Z zoom"),
        bind(&[Code(KeyCode::Enter)], Action::OnlyGroup, "Enter", "only the members of this channel's group, or all again", "Enter group"),
        bind(&[Char('l'), Code(KeyCode::Right)], Action::Cursor(true), "l →", "next channel", "h/l cursor"),
        bind(&[Char('h'), Code(KeyCode::Left)], Action::Cursor(false), "h ←", "previous channel", ""),
    ],
    draw,
    rows: all_sites,
    cursor: Some(channel_walk),
    study,
    detail: |app| Some(app.site),
    csv: no_csv,
};

/// The error against the number of groups, for the run that is shown.
fn study(app: &App) -> Option<Study> {
    let (settings, picture, site) = (app.settings.clone(), app.picture, app.site);
    let known = app.studies.curve.as_ref().is_some_and(|c| (&c.settings, c.picture, c.site) == (&settings, picture, site));
    let grouped = app.site_report().is_some_and(|report| report.groups > 0) && settings.method.uses_groups();
    (!app.is_stale() && grouped && !known).then_some(Study::Curve { settings, picture, site })
}

/// Width of the table of quantizers.
const TABLE: u16 = 58;
/// Columns left of the bars for the axis.
const AXIS: u16 = 7;
/// Lines that all channels take above the window: bars, groups, and where the window is.
const STRIP: u16 = 5;

/// Areas of the bars and of what stands beside them; beneath them where it is narrow.
fn areas(area: Rect, groups: usize, compared: bool) -> [Rect; 2] {
    if area.width >= 110 {
        Layout::horizontal([Constraint::Fill(1), Constraint::Length(TABLE)]).areas(area)
    } else {
        // Two rows of bars need the room more than the list does.
        let table = (groups as u16 + 3).min(area.height * if compared { 1 } else { 2 } / 5);
        Layout::vertical([Constraint::Fill(1), Constraint::Length(table)]).areas(area)
    }
}

fn draw(app: &App, area: Rect, buf: &mut Buffer) -> Hits {
    let Some(report) = app.site_report() else { return waiting(app, area, buf) };
    let other = other(app);
    let [plots, side] = areas(area, report.quantizers.len(), other.is_some());
    let mut hits = beside(app, report, other.as_ref(), side, buf);
    let [first, second] =
        if other.is_some() { Layout::vertical([Constraint::Fill(1), Constraint::Fill(1)]).areas(plots) } else { [plots, Rect::default()] };
    let picture = app.snapshot.as_ref().map(|s| s.report.picture.name.clone()).unwrap_or_default();
    let what = if report.kind.is_softmax() { "rows" } else { "channels" };
    let order = app.channel_order();
    let shown = window(app, &order, first);
    let only = app.only_group.map_or_else(String::new, |g| format!(" of group {}", group_digit(g)));
    let place = format!(
        "{what} {}-{} of {}{only}{}",
        shown.start + usize::from(!order.is_empty()),
        shown.end,
        order.len(),
        if app.by_group { ", by group" } else { "" }
    );
    let inner = panel(buf, first, &format!("{} · {picture} · {place}", app.site), app.look);
    let visible = &order[shown.clone()];
    let scale = scale(app, report, other.as_ref().map(|o| o.report), if app.zoomed { visible } else { &order });
    let mut top = 0;
    if inner.height >= STRIP + 9 && order.len() > visible.len() {
        let strip = Rect { x: inner.x + AXIS, width: inner.width.saturating_sub(AXIS), height: STRIP, ..inner };
        hits.extend(all_channels(app, report, &order, &shown, strip, buf));
        put(buf, inner, 0, 0, &format!("all {}", order.len()), app.look.dim());
        top = STRIP;
    }
    let rest = Rect { y: inner.y + top, height: inner.height.saturating_sub(top + 1), ..inner };
    hits.extend(channels(app, report, visible, &[], scale, rest, buf));
    cursor_line(app, report, other.as_ref(), inner, buf);
    if let Some(other) = &other {
        let moved = groups::moved(report, other.report);
        let title = format!("{} · {} of {} {what} in another group", other.name, moved.len(), report.assignment.len());
        let inner = panel(buf, second, &title, app.look);
        let plot = Rect { height: inner.height.saturating_sub(2), ..inner };
        hits.extend(channels(app, other.report, visible, &moved, scale, plot, buf));
        let marks: String =
            visible.chunks(if app.dense { 2 } else { 1 }).map(|c| if c.iter().any(|c| moved.contains(c)) { '^' } else { ' ' }).collect();
        put(buf, inner, AXIS, inner.height.saturating_sub(2), &marks, app.look.bad());
        put(buf, inner, 0, inner.height.saturating_sub(1), &groups::moves(report, other.report, &moved), Style::new());
    }
    hits
}

/// What the groups are compared with: a second picture, or the answer that was pinned.
struct Other<'a> {
    name: String,
    report: &'a SiteReport,
}

fn other(app: &App) -> Option<Other<'_>> {
    if app.against_pinned {
        let pinned = &app.pinned.as_ref()?.report;
        let name = format!("A, pinned: {} {}", pinned.picture.name, pinned.settings.describe());
        return Some(Other { name, report: pinned.site(app.site)? });
    }
    let second = &app.snapshot.as_ref()?.compare.as_ref()?.report;
    Some(Other { name: second.picture.name.clone(), report: second.site(app.site)? })
}

/// Channels that fit, around the cursor.
fn window(app: &App, order: &[usize], area: Rect) -> std::ops::Range<usize> {
    let width = usize::from(area.width.saturating_sub(2 + AXIS)) * if app.dense { 2 } else { 1 };
    let at = order.iter().position(|&c| c == app.channel).unwrap_or(0);
    let first = first_shown(at, order.len(), width);
    first..(first + width).min(order.len())
}

/// One scale for both, over the ranges of `seen` and the bounds of their groups.
fn scale(app: &App, report: &SiteReport, other: Option<&SiteReport>, seen: &[usize]) -> Scale {
    let mut ends = (0.0_f32, 0.0_f32);
    let mut take = |lower: f32, upper: f32| ends = (ends.0.min(lower), ends.1.max(upper));
    for site in std::iter::once(report).chain(other) {
        for &channel in seen {
            if let (Some(&min), Some(&max)) = (site.ranges.min.get(channel), site.ranges.max.get(channel)) {
                take(min, max);
            }
        }
        if !app.zoomed {
            site.quantizers.iter().for_each(|q| take(q.lower, q.upper));
        }
    }
    Scale { low: ends.0, high: ends.1, logarithmic: app.logarithmic }
}

/// All channels at once, several a column, and where the window beneath lies among them.
fn all_channels(app: &App, report: &SiteReport, order: &[usize], shown: &std::ops::Range<usize>, area: Rect, buf: &mut Buffer) -> Hits {
    let mut hits = Hits::default();
    let columns = usize::from(area.width).min(order.len()).max(1);
    let merged = groups::merged(report, order, columns);
    let focus = group_of(report, app.channel);
    let bars: Vec<Bar> = merged
        .iter()
        .map(|m| Bar { channel: m.channel, min: m.min, max: m.max, group: m.group, bounds: None, marked: m.group == focus })
        .collect();
    let plot = Rect { height: area.height - 1, ..area };
    bars::draw(&bars, report.quantizers.len(), scale(app, report, None, order), None, None, app.look, plot, buf);
    let at = |place: usize| (place * columns / order.len().max(1)).min(columns - 1);
    let (from, to) = (at(shown.start), at(shown.end.saturating_sub(1)));
    put(buf, area, 0, area.height - 1, &app.look.glyph("─", "-").repeat(columns), app.look.dim());
    put(buf, area, from as u16, area.height - 1, &app.look.glyph("━", "=").repeat(to - from + 1), app.look.accent());
    for (bar, x) in merged.iter().zip(plot.x..plot.right()) {
        hits.add(Rect { x, width: 1, ..plot }, Hit::Channel(bar.channel));
    }
    hits
}

fn channels(app: &App, report: &SiteReport, shown: &[usize], moved: &[usize], scale: Scale, area: Rect, buf: &mut Buffer) -> Hits {
    let mut hits = Hits::default();
    let focus = group_of(report, app.channel);
    let tiled = tiled(app, report);
    let bounds_of = |group: Option<usize>| group.and_then(|g| report.quantizers.get(g)).map(|q| (q.lower, q.upper));
    let bars: Vec<Bar> = shown
        .iter()
        .filter(|&&c| c < report.ranges.min.len())
        .map(|&channel| {
            let group = group_of(report, channel);
            let marked = if moved.is_empty() { group == focus } else { moved.contains(&channel) };
            let bounds = bounds_of(group).filter(|_| !tiled);
            Bar { channel, min: report.ranges.min[channel], max: report.ranges.max[channel], group, bounds, marked }
        })
        .collect();
    let plot = Rect { x: area.x + AXIS, width: area.width.saturating_sub(AXIS), ..area };
    let draw = if app.dense { bars::dense } else { bars::draw };
    draw(&bars, report.quantizers.len(), scale, Some(app.channel), bounds_of(focus), app.look, plot, buf);
    for (&channel, x) in shown.iter().step_by(if app.dense { 2 } else { 1 }).zip(plot.x..plot.right()) {
        hits.add(Rect { x, width: 1, ..plot }, Hit::Channel(channel));
    }
    let mut axis = |y: u16, value: f32| {
        let text = short(f64::from(value));
        put(buf, area, (AXIS - 1).saturating_sub(text.chars().count() as u16), y, &text, app.look.dim());
    };
    let last = area.height.saturating_sub(2);
    axis(0, scale.high);
    axis(last, scale.low);
    let zero = scale.row(0.0, last + 1);
    if zero > 0 && zero < last {
        axis(zero, 0.0);
    }
    hits
}

/// Whether every token has a scale of its own in each group.
fn tiled(app: &App, report: &SiteReport) -> bool {
    report.bits.max_code().is_some() && app.settings.method.spec().format.is_some()
}

/// The numbers of the channel under the cursor.
fn cursor_line(app: &App, report: &SiteReport, other: Option<&Other<'_>>, inner: Rect, buf: &mut Buffer) {
    let c = app.channel;
    if c >= report.ranges.min.len() {
        return;
    }
    let what = if report.kind.is_softmax() {
        let (head, token) = report.layout.head_and_token(report.channels / report.tokens.max(1), c);
        format!("row {c} (head {head}, token {token})")
    } else {
        format!("channel {c}")
    };
    // The groups come first: the end of the line is what is cut.
    let there = other.and_then(|o| group_of(o.report, c)).map_or_else(String::new, |group| format!(", there {}", group_digit(group)));
    let group = group_of(report, c).and_then(|g| report.quantizers.get(g).map(|q| (g, q)));
    let mut text = group.map_or_else(|| what.clone(), |(g, _)| format!("{what}, group {}{there}", group_digit(g)));
    text += &format!(": {} to {}", short(f64::from(report.ranges.min[c])), short(f64::from(report.ranges.max[c])));
    if let Some((_, q)) = group {
        text += &format!(" in [{}, {}]", short(f64::from(q.lower)), short(f64::from(q.upper)));
    }
    put(buf, inner, 0, inner.height.saturating_sub(1), &text, Style::new().add_modifier(Modifier::BOLD));
}

/// The quantizers, the channel under the cursor in numbers, and the error against the number of groups or where the channels went.
fn beside(app: &App, report: &SiteReport, other: Option<&Other<'_>>, area: Rect, buf: &mut Buffer) -> Hits {
    let groups = report.quantizers.len() as u16;
    let wide = area.width <= TABLE && area.height >= groups + 3 + 8;
    let list = groups + 3 + if area.height >= groups + 3 + 5 + 8 + 9 { 5 } else { 0 };
    let [table, cursor, below] = if wide && groups > 0 {
        Layout::vertical([Constraint::Length(list), Constraint::Length(7), Constraint::Fill(1)]).areas(area)
    } else {
        [area, Rect::default(), Rect::default()]
    };
    let hits = quantizers(app, report, table, buf);
    if cursor.is_empty() {
        return hits;
    }
    let what = if report.kind.is_softmax() { "row" } else { "channel" };
    let inner = panel(buf, cursor, &format!("{what} {} in numbers", app.channel), app.look);
    let detail = app.detail.as_ref().filter(|d| d.site == app.site && app.snapshot.as_ref().is_some_and(|s| s.id == d.id));
    let by_error = app.settings.method == Method::IgqE;
    let mut lines = groups::formula(report, app.channel, tiled(app, report));
    lines.extend(groups::reason(report, detail.map(AsRef::as_ref), app.channel, by_error));
    for (line, y) in lines.iter().zip(0..inner.height) {
        put(buf, inner, 0, y, line, Style::new());
    }
    match other {
        Some(other) => matrix(app, report, other, below, buf),
        None => curve(app, below, buf),
    }
    hits
}

/// How many channels go from which group to which.
fn matrix(app: &App, report: &SiteReport, other: &Other<'_>, area: Rect, buf: &mut Buffer) {
    if area.height < 4 {
        return;
    }
    let inner = panel(buf, area, "rows: group here; columns: group there", app.look);
    let counts = groups::migration(report, other.report);
    let columns = other.report.quantizers.len();
    let cell = ((inner.width.saturating_sub(9)) / (columns.max(1) as u16)).clamp(2, 5);
    let head = (0..columns).map(|g| pad_left(&group_digit(g).to_string(), usize::from(cell))).collect::<Vec<_>>().concat();
    put(buf, inner, 2, 0, &format!("{head}   all"), app.look.dim());
    for ((from, row), y) in counts.iter().enumerate().zip(1..inner.height) {
        let style = app.look.group(from, counts.len());
        put(buf, inner, 0, y, &group_digit(from).to_string(), style);
        for (to, &count) in row.iter().enumerate().filter(|(_, count)| **count > 0) {
            let text = format!("{count:>width$}", width = usize::from(cell));
            put(buf, inner, 2 + cell * to as u16, y, &text, if to == from { app.look.dim() } else { style.add_modifier(Modifier::BOLD) });
        }
        let all: usize = row.iter().sum();
        put(buf, inner, 2 + cell * columns as u16, y, &format!("{all:>6}"), app.look.dim());
    }
}

/// The error of this site against its number of groups, the present one marked.
fn curve(app: &App, area: Rect, buf: &mut Buffer) {
    if area.height < 4 {
        return;
    }
    let inner = panel(buf, area, "this site's local SQNR by number of groups", app.look);
    let found = app.studies.curve.as_ref().filter(|c| (&c.settings, c.picture, c.site) == (&app.settings, app.picture, app.site));
    let Some(found) = found.filter(|c| !c.points.is_empty()) else {
        let why = if app.settings.method.uses_groups() { "trying 1, 2, 4, 8, 16 and 32 groups" } else { "this method has no group counts" };
        put(buf, inner, 0, 0, why, app.look.dim());
        return;
    };
    let now = app.settings.groups(app.site);
    let most = found.points.iter().map(|(_, db)| *db).fold(0.0, f64::max);
    for ((count, db), y) in found.points.iter().zip(0..inner.height) {
        let room = usize::from(inner.width.saturating_sub(18));
        let text = format!("{count:>3} {db:6.1} dB {}", bar(db / most, room));
        let style = if *count == now { app.look.accent() } else { Style::new() };
        put(buf, inner, 0, y, &text, style);
    }
}

fn quantizers(app: &App, report: &SiteReport, area: Rect, buf: &mut Buffer) -> Hits {
    let look = app.look;
    let bits = if report.bits.is_float() { "float".into() } else { format!("{} bits", report.bits) };
    let codes = report.bits.max_code().map_or(0, |n| n + 1);
    let number = |v: f32| short(f64::from(v));
    let rows: Vec<(usize, &QuantizerReport)> = report.quantizers.iter().enumerate().collect();
    let columns = vec![
        Column::new("g", 1, |r: &(usize, &QuantizerReport)| group_digit(r.0).to_string()),
        Column::new("lower", 8, |r: &(usize, &QuantizerReport)| number(r.1.lower)).right(),
        Column::new("upper", 7, |r: &(usize, &QuantizerReport)| number(r.1.upper)).right(),
        Column::new("step", 7, |r: &(usize, &QuantizerReport)| number(r.1.scale)).right(),
        Column::new("zero", 4, |r: &(usize, &QuantizerReport)| format!("{:.0}", r.1.zero_point)).right(),
        Column::new("members", 7, |r: &(usize, &QuantizerReport)| r.1.members.to_string()).right(),
        Column::new("clipped", 7, |r: &(usize, &QuantizerReport)| format!("{:.1}%", r.1.clipped * 100.0)).right(),
        Column::new("codes", 8, move |r: &(usize, &QuantizerReport)| format!("{}/{codes}", r.1.codes_used)).right(),
    ];
    let table = Table::new(columns, &rows)
        .by(app.by)
        .selected(group_of(report, app.channel))
        .style(|r| look.group(r.0, report.quantizers.len()))
        .click(|r| Some(Hit::Group(r.0)));
    let (inner, hits) = table.draw(&format!("{} quantizers · {bits}", report.quantizers.len()), look, area, buf);
    if report.quantizers.is_empty() {
        put(buf, inner, 0, 1, "this site stays in float: nothing is grouped", look.dim());
        return hits;
    }
    let mut lines = vec![
        format!("local SQNR {} dB, cumulative {} dB", db(report.local.error.sqnr_db), db(report.cumulative.sqnr_db)),
        format!("RMSE/step {:.2} (rounding alone: 0.29)", report.local.rmse_over_step),
        format!("{:.2} % clipped, {:.0} % of the codes used", report.local.clipped * 100.0, report.local.codes_used * 100.0),
    ];
    if let Some(alike) = groups::alike(report) {
        lines.push(format!("on average a member spans {:.0} % of its group", 100.0 * alike));
    }
    lines.push(if tiled(app, report) {
        "ranges over all tokens; every token has its own scale".into()
    } else {
        report.kind.describe().to_string()
    });
    let y = report.quantizers.len() as u16 + 1;
    for (line, y) in lines.iter().zip(y..inner.height) {
        put(buf, inner, 0, y, line, look.dim());
    }
    hits
}
