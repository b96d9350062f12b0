//! Groups: every channel of the selected site as a bar from its min to its max for this picture, in the colour of its group; the group
//! quantizers beside it; a second picture beneath it, with the channels that moved.

use crossterm::event::KeyCode;
use ratatui::buffer::Buffer;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Modifier, Style};

use super::spec::{ViewSpec, all_sites, no_detail, no_study, waiting};
use crate::analysis::report::{QuantizerReport, RangesReport, SiteReport};
use crate::tui::app::App;
use crate::tui::hit::{Hit, Hits, Walk};
use crate::tui::keys::Key::{Char, Code};
use crate::tui::keys::{Action, bind};
use crate::tui::theme::group_digit;
use crate::tui::widget::bars::{self, Bar, Scale};
use crate::tui::widget::table::{Column, Table};
use crate::tui::widget::{db, first_shown, panel, put, short};

pub const SPEC: ViewSpec = ViewSpec {
    name: "groups",
    title: "Groups",
    key: '2',
    help: &[
        "Each bar is one channel, from its smallest to its largest value here.",
        "Its colour and digit are its group: channels of one group share a quantizer.",
        "Groups are numbered by width: 0 is the narrowest. The quantizers are fixed;",
        "which channel takes which is decided anew for every image: press c to see.",
    ],
    keys: &[
        bind(&[Char('c')], Action::Compare, "c", "compare the groups with those of a second picture", "c compare"),
        bind(&[Char('.'), Char('>')], Action::ComparePicture(true), ".", "next second picture", ""),
        bind(&[Char(','), Char('<')], Action::ComparePicture(false), ",", "previous second picture", ""),
        bind(&[Char('z')], Action::ChannelOrder, "z", "channels in their own order or by group", "z order"),
        bind(&[Char('v')], Action::Scale, "v", "linear or logarithmic scale", "v scale"),
        bind(&[Char('l'), Code(KeyCode::Right)], Action::Cursor(true), "l →", "next channel", "h/l cursor"),
        bind(&[Char('h'), Code(KeyCode::Left)], Action::Cursor(false), "h ←", "previous channel", ""),
    ],
    draw,
    rows: all_sites,
    cursor: Some(|app| Walk::new(app.channel_order().into_iter().map(Hit::Channel).collect(), Some(Hit::Channel(app.channel)))),
    study: no_study,
    detail: no_detail,
};

/// Width of the table of quantizers.
const TABLE: u16 = 57;

/// Areas of the bars and the table: beside each other where there is room.
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
    let [plots, table] = areas(area, report.quantizers.len(), other.is_some());
    let mut hits = quantizers(app, report, table, buf);
    let [first, second] =
        if other.is_some() { Layout::vertical([Constraint::Fill(1), Constraint::Fill(1)]).areas(plots) } else { [plots, Rect::default()] };
    let picture = app.snapshot.as_ref().map(|s| s.report.picture.name.clone()).unwrap_or_default();
    let what = if report.kind.is_softmax() { "rows" } else { "channels" };
    let order = app.channel_order();
    let shown = window(app, &order, first);
    let place = format!(
        "{what} {}-{} of {}{}",
        shown.start + usize::from(!order.is_empty()),
        shown.end,
        order.len(),
        if app.by_group { ", by group" } else { "" }
    );
    let inner = panel(buf, first, &format!("{} · {picture} · {place}", app.site), app.look);
    let plot = Rect { height: inner.height.saturating_sub(1), ..inner };
    let scale = scale(app, report, other);
    channels(app, report, &order[shown.clone()], &[], scale, plot, buf);
    let add = |hits: &mut Hits, plot: Rect| {
        for (&channel, x) in order[shown.clone()].iter().zip(plot.x..plot.right()) {
            hits.add(Rect { x, width: 1, ..plot }, Hit::Channel(channel));
        }
    };
    add(&mut hits, plot);
    cursor_line(app, report, other, inner, buf);
    if let Some(other) = other {
        let moved = moved(report, other);
        let name = app.snapshot.as_ref().and_then(|s| s.compare.as_ref()).map(|c| c.report.picture.name.clone()).unwrap_or_default();
        let inner = panel(buf, second, &format!("{name} · {} of {} {what} in another group", moved.len(), order.len()), app.look);
        let plot = Rect { height: inner.height.saturating_sub(2), ..inner };
        channels(app, other, &order[shown.clone()], &moved, scale, plot, buf);
        add(&mut hits, plot);
        let marks: String = order[shown.clone()].iter().map(|c| if moved.contains(c) { '^' } else { ' ' }).collect();
        put(buf, inner, 0, inner.height.saturating_sub(2), &marks, app.look.bad());
        put(buf, inner, 0, inner.height.saturating_sub(1), &moves(report, other, &moved), Style::new());
    }
    hits
}

/// The same site for the second picture.
fn other(app: &App) -> Option<&SiteReport> {
    app.snapshot.as_ref()?.compare.as_ref()?.report.site(app.site)
}

/// Channels whose group differs between the two pictures.
fn moved(report: &SiteReport, other: &SiteReport) -> Vec<usize> {
    let pairs = report.assignment.iter().zip(&other.assignment).enumerate();
    pairs.filter(|(_, (a, b))| a != b).map(|(channel, _)| channel).collect()
}

/// From where to where, the most frequent first.
fn moves(report: &SiteReport, other: &SiteReport, moved: &[usize]) -> String {
    let mut counts = std::collections::BTreeMap::new();
    for &channel in moved {
        *counts.entry((report.assignment[channel], other.assignment[channel])).or_insert(0_usize) += 1;
    }
    let mut sorted: Vec<_> = counts.into_iter().collect();
    sorted.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(&b.0)));
    let digit = |g: u16| group_digit(usize::from(g));
    let list: Vec<String> = sorted.iter().map(|((a, b), n)| format!("{}→{}:{n}", digit(*a), digit(*b))).collect();
    if list.is_empty() { "every one is in the same group for both pictures".into() } else { format!("moved {}", list.join(" ")) }
}

/// Channels that fit, around the cursor.
fn window(app: &App, order: &[usize], area: Rect) -> std::ops::Range<usize> {
    let width = usize::from(area.width.saturating_sub(2));
    let at = order.iter().position(|&c| c == app.channel).unwrap_or(0);
    let first = first_shown(at, order.len(), width);
    first..(first + width).min(order.len())
}

/// One scale for both pictures, over ranges and bounds.
fn scale(app: &App, report: &SiteReport, other: Option<&SiteReport>) -> Scale {
    let sites = || std::iter::once(report).chain(other);
    let low = sites().flat_map(|s| &s.ranges.min).chain(report.quantizers.iter().map(|q| &q.lower)).copied().fold(0.0, f32::min);
    let high = sites().flat_map(|s| &s.ranges.max).chain(report.quantizers.iter().map(|q| &q.upper)).copied().fold(0.0, f32::max);
    Scale { low, high, logarithmic: app.logarithmic }
}

fn group_of(report: &SiteReport, channel: usize) -> Option<usize> {
    report.assignment.get(channel).map(|&g| usize::from(g))
}

fn channels(app: &App, report: &SiteReport, shown: &[usize], moved: &[usize], scale: Scale, area: Rect, buf: &mut Buffer) {
    let focus = group_of(report, app.channel);
    let bars: Vec<Bar> = shown
        .iter()
        .filter(|&&c| c < report.ranges.min.len())
        .map(|&channel| {
            let group = group_of(report, channel);
            let marked = if moved.is_empty() { group == focus } else { moved.contains(&channel) };
            Bar { channel, min: report.ranges.min[channel], max: report.ranges.max[channel], group, marked }
        })
        .collect();
    let bounds = focus.and_then(|g| report.quantizers.get(g)).map(|q| (q.lower, q.upper));
    bars::draw(&bars, report.quantizers.len(), scale, Some(app.channel), bounds, app.look, area, buf);
    let right = |buf: &mut Buffer, y: u16, value: f32| {
        let text = short(f64::from(value));
        put(buf, area, area.width.saturating_sub(text.len() as u16), y, &text, app.look.dim());
    };
    right(buf, 0, scale.high);
    right(buf, area.height.saturating_sub(2), scale.low);
}

/// The numbers of the channel under the cursor.
fn cursor_line(app: &App, report: &SiteReport, other: Option<&SiteReport>, inner: Rect, buf: &mut Buffer) {
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
    let mut text = format!("{what}: {} to {}", short(f64::from(report.ranges.min[c])), short(f64::from(report.ranges.max[c])));
    if let Some(q) = group_of(report, c).and_then(|g| report.quantizers.get(g).map(|q| (g, q))) {
        text += &format!(" → group {} [{}, {}]", group_digit(q.0), short(f64::from(q.1.lower)), short(f64::from(q.1.upper)));
    }
    if let Some(group) = other.and_then(|o| group_of(o, c)) {
        text += &format!("; second picture: group {}", group_digit(group));
    }
    put(buf, inner, 0, inner.height.saturating_sub(1), &text, Style::new().add_modifier(Modifier::BOLD));
}

fn quantizers(app: &App, report: &SiteReport, area: Rect, buf: &mut Buffer) -> Hits {
    let look = app.look;
    let bits = if report.bits.is_float() { "float".into() } else { format!("{} bits", report.bits) };
    let codes = report.bits.max_code().map_or(0, |n| n + 1);
    let number = |v: f32| short(f64::from(v));
    let rows: Vec<(usize, &QuantizerReport)> = report.quantizers.iter().enumerate().collect();
    let columns = vec![
        Column::new("g", 1, |r: &(usize, &QuantizerReport)| group_digit(r.0).to_string()),
        Column::new("lower", 7, |r: &(usize, &QuantizerReport)| number(r.1.lower)).right(),
        Column::new("upper", 7, |r: &(usize, &QuantizerReport)| number(r.1.upper)).right(),
        Column::new("step", 7, |r: &(usize, &QuantizerReport)| number(r.1.scale)).right(),
        Column::new("zero", 4, |r: &(usize, &QuantizerReport)| format!("{:.0}", r.1.zero_point)).right(),
        Column::new("members", 7, |r: &(usize, &QuantizerReport)| r.1.members.to_string()).right(),
        Column::new("clipped", 7, |r: &(usize, &QuantizerReport)| format!("{:.1}%", r.1.clipped * 100.0)).right(),
        Column::new("codes", 8, move |r: &(usize, &QuantizerReport)| format!("{}/{codes}", r.1.codes_used)).right(),
    ];
    let member = |group: usize| report.assignment.iter().position(|&g| usize::from(g) == group);
    let table = Table::new(columns, &rows)
        .selected(group_of(report, app.channel))
        .style(|r| look.group(r.0, report.quantizers.len()))
        .click(|r| member(r.0).map(Hit::Channel));
    let (inner, hits) = table.draw(&format!("{} quantizers · {bits}", report.quantizers.len()), look, area, buf);
    if report.quantizers.is_empty() {
        put(buf, inner, 0, 1, "this site stays in float: nothing is grouped", look.dim());
        return hits;
    }
    let tiled = report.bits.max_code().is_some() && app.settings.method.spec().format.is_some();
    let mut lines = vec![
        format!("local SQNR {} dB, cumulative {} dB", db(report.local.error.sqnr_db), db(report.cumulative.sqnr_db)),
        format!("RMSE/step {:.2} (rounding alone: 0.29)", report.local.rmse_over_step),
        format!("{:.2} % clipped, {:.0} % of the codes used", report.local.clipped * 100.0, report.local.codes_used * 100.0),
        report.kind.describe().to_string(),
    ];
    if let Some(alike) = alike(report) {
        lines.push(format!("on average a member spans {:.0} % of its group", 100.0 * alike));
    }
    if tiled {
        lines.push("every token has a scale of its own in each group;".into());
        lines.push("these are the ranges over all tokens".into());
    }
    let y = report.quantizers.len() as u16 + 2;
    for (line, y) in lines.iter().zip(y..inner.height) {
        put(buf, inner, 0, y, line, look.dim());
    }
    hits
}

/// How wide a channel or row is on average, as a share of the range of all members of its group in this picture: how alike those are that share a
/// scale. None where nothing is grouped.
fn alike(report: &SiteReport) -> Option<f64> {
    let RangesReport { min, max } = &report.ranges;
    let mut groups = vec![(0.0_f32, 0.0_f32); report.quantizers.len()];
    let member = |index: usize| report.assignment.get(index).map(|&group| usize::from(group));
    for (index, (&min, &max)) in min.iter().zip(max).enumerate() {
        if let Some((lower, upper)) = member(index).and_then(|group| groups.get_mut(group)) {
            (*lower, *upper) = (lower.min(min), upper.max(max));
        }
    }
    let share = |(index, (&min, &max)): (usize, (&f32, &f32))| {
        let (lower, upper) = *groups.get(member(index)?)?;
        (upper > lower).then(|| f64::from((max.max(0.0) - min.min(0.0)) / (upper - lower)))
    };
    let shares: Vec<f64> = min.iter().zip(max).enumerate().filter_map(share).collect();
    (!shares.is_empty()).then(|| shares.iter().sum::<f64>() / shares.len() as f64)
}
