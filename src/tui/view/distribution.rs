//! Distribution: histograms of the selected site, group or channel before and after its quantizer and of the error between, the codes in use, and
//! the weights of its layer.

use crossterm::event::KeyCode;
use ratatui::buffer::Buffer;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::Style;

use super::spec::{ViewSpec, all_sites, channel_walk, no_study, waiting};
use crate::analysis::distribution::{Distribution, Histograms};
use crate::analysis::report::SiteReport;
use crate::tui::app::App;
use crate::tui::choice::Scope;
use crate::tui::hit::Hits;
use crate::tui::keys::Key::{Char, Code};
use crate::tui::keys::{Action, bind};
use crate::tui::theme::group_digit;
use crate::tui::widget::histogram::{self, Mark};
use crate::tui::widget::{db, panel, put};

pub const SPEC: ViewSpec = ViewSpec {
    name: "distribution",
    title: "Distribution",
    key: '4',
    help: &[
        "How the values of the site, of one group or of one channel are distributed:",
        "before the quantizer, after it, and the error between (after less before).",
        "[ and ] are the bounds of the groups shown; what lies beyond is clipped.",
        "Codes: how often each of the 2^bits codes stands for a value.",
        "P pins this result: its quantized values stay beside those of later changes.",
    ],
    keys: &[
        bind(&[Char('z')], Action::Scope, "z", "the whole site, the group of the channel, or the channel", "z scope"),
        bind(&[Char('v')], Action::Scale, "v", "linear or logarithmic counts", "v log"),
        bind(&[Char('l'), Code(KeyCode::Right)], Action::Cursor(true), "l →", "next channel", "h/l channel"),
        bind(&[Char('h'), Code(KeyCode::Left)], Action::Cursor(false), "h ←", "previous channel", ""),
    ],
    draw,
    rows: all_sites,
    cursor: Some(channel_walk),
    study: no_study,
    detail: |app| Some(app.site),
    csv,
};

/// The distribution of the selected site, as new as there is one.
fn shown(app: &App) -> Option<&Distribution> {
    app.detail.as_ref().filter(|d| d.site == app.site)?.distribution.as_ref()
}

/// The channels that are shown together, and what they are.
fn members(app: &App, report: &SiteReport, channels: usize) -> (Vec<usize>, String) {
    let what = if report.kind.is_softmax() { "row" } else { "channel" };
    let group = report.assignment.get(app.channel).copied();
    match (app.scope, group) {
        (Scope::Channel, _) => (vec![app.channel], format!("{what} {}", app.channel)),
        (Scope::Group, Some(group)) => {
            let of = report.assignment.iter().enumerate().filter(|(_, g)| **g == group).map(|(c, _)| c).collect::<Vec<_>>();
            let text = format!("group {} ({} {what}s)", group_digit(usize::from(group)), of.len());
            (of, text)
        }
        _ => ((0..channels).collect(), format!("all {channels} {what}s")),
    }
}

fn draw(app: &App, area: Rect, buf: &mut Buffer) -> Hits {
    let (Some(report), Some(found)) = (app.site_report(), shown(app)) else { return waiting(app, area, buf) };
    let look = app.look;
    let (channels, scope) = members(app, report, found.channels);
    let side = if area.width >= 100 { 44 } else { 0 };
    let [left, right] = Layout::horizontal([Constraint::Fill(1), Constraint::Length(side)]).areas(area);
    let pinned = app.pinned_detail.as_ref().filter(|d| d.site == app.site).and_then(|d| d.distribution.as_ref());
    let count = if pinned.is_some() { 4 } else { 3 };
    let panels = Layout::vertical(vec![Constraint::Fill(1); count]).split(left);
    let groups = report.quantizers.len();
    let marks: Vec<Mark> = report
        .quantizers
        .iter()
        .enumerate()
        .filter(|(g, q)| q.members > 0 && channels.iter().any(|&c| report.assignment.get(c).is_some_and(|&of| usize::from(of) == *g)))
        .flat_map(|(g, q)| {
            let style = look.group(g, groups);
            [(q.lower, "["), (q.upper, "]")].map(|(at, glyph)| Mark { at, glyph: glyph.into(), style })
        })
        .collect();
    let stale =
        if app.detail.as_ref().is_some_and(|d| app.snapshot.as_ref().is_some_and(|s| s.id == d.id)) { "" } else { " · stale, computing" };
    let scale = if app.logarithmic { ", log counts" } else { "" };
    let one = |buf: &mut Buffer, area: Rect, title: &str, of: &Histograms, marks: &[Mark], style: Style| {
        let inner = panel(buf, area, title, look);
        histogram::draw(&of.of(&channels), (of.low, of.high), app.logarithmic, marks, (style, look), inner, buf);
    };
    let title = format!("{} · before its quantizer · {scope}{scale}{stale}", app.site);
    one(buf, panels[0], &title, &found.before, &marks, look.good());
    let (below, above) = found.clipped_share(&channels);
    let used = found.occupancy(&channels).iter().filter(|count| **count > 0).count();
    let met = if found.codes == 0 {
        "float".to_string()
    } else {
        format!("{used} of {} codes, {:.2} % clipped", found.codes, 100.0 * (below + above))
    };
    one(buf, panels[1], &format!("after it · {met}"), &found.after, &marks, look.accent());
    one(buf, panels[2], "error: after less before", &found.error, &[], look.bad());
    if let Some(pinned) = pinned {
        one(buf, panels[3], "A, pinned: after its quantizer", &pinned.after, &[], look.accent());
    }
    if side > 0 {
        beside(app, report, found, &channels, right, buf);
    }
    Hits::default()
}

/// Codes, numbers and weights.
fn beside(app: &App, report: &SiteReport, found: &Distribution, channels: &[usize], area: Rect, buf: &mut Buffer) {
    let look = app.look;
    let [codes, numbers, weights] = Layout::vertical([Constraint::Fill(1), Constraint::Length(9), Constraint::Fill(1)]).areas(area);
    let used = found.occupancy(channels);
    let inhabited = used.iter().filter(|count| **count > 0).count();
    let inner = panel(buf, codes, &format!("codes · {inhabited} of {} in use", found.codes), look);
    if found.codes == 0 {
        put(buf, inner, 0, 0, "in float there are no codes", look.dim());
    }
    let end = found.codes.saturating_sub(1) as f32;
    histogram::draw(&used, (0.0, end), app.logarithmic, &[], (look.accent(), look), inner, buf);
    let inner = panel(buf, numbers, "in numbers", look);
    let all = (channels.len() * found.values) as u64;
    let (below, above) = found.clipped_share(channels);
    let entropy: f64 = used.iter().filter(|c| **c > 0).map(|&c| c as f64 / all.max(1) as f64).map(|p| -p * p.log2()).sum();
    let lines = [
        format!("{all} values, {} of {} channels", channels.len(), found.channels),
        format!("{:.2} % clipped below, {:.2} % above", below * 100.0, above * 100.0),
        format!("codes carry {entropy:.2} of {} bits", report.bits),
        format!("RMSE/step of the site {:.2} (rounding 0.29)", report.local.rmse_over_step),
        format!("local SQNR of the site {} dB", db(report.local.error.sqnr_db)),
        "clipped: beyond the last code on its side".to_string(),
    ];
    for (line, y) in lines.iter().zip(0..inner.height) {
        put(buf, inner, 0, y, line, if y == 5 { look.dim() } else { Style::new() });
    }
    let Some((float, quantized)) = &found.weights else {
        let inner = panel(buf, weights, "weights", look);
        put(buf, inner, 0, 0, "no layer of its own, or in float", look.dim());
        return;
    };
    let halves = Layout::vertical([Constraint::Fill(1), Constraint::Fill(1)]).split(weights);
    let bits = report.weight.map_or_else(String::new, |w| format!(" · {} bits, {} dB", w.bits, db(w.sqnr_db)));
    for (half, title, of, style) in [
        (halves[0], "weights of its layer, float".to_string(), float, look.good()),
        (halves[1], format!("quantized{bits}"), quantized, look.accent()),
    ] {
        let inner = panel(buf, half, &title, look);
        histogram::draw(&of.of(&[0]), (of.low, of.high), app.logarithmic, &[], (style, look), inner, buf);
    }
}

/// The histograms that are shown, a bin a line.
fn csv(app: &App) -> Option<String> {
    let (report, found) = (app.site_report()?, shown(app)?);
    let (channels, _) = members(app, report, found.channels);
    let mut text = "bin,low,high,float,before,after,error_low,error_high,error\n".to_string();
    let [float, before, after, error] = [&found.float, &found.before, &found.after, &found.error].map(|h| h.of(&channels));
    let ends = |h: &Histograms, bin: usize| {
        let width = (h.high - h.low) / float.len() as f32;
        ((h.low + bin as f32 * width).to_string(), (h.low + (bin + 1) as f32 * width).to_string())
    };
    for bin in 0..float.len() {
        let ((low, high), (error_low, error_high)) = (ends(&found.before, bin), ends(&found.error, bin));
        text += &format!("{bin},{low},{high},{},{},{},{error_low},{error_high},{}\n", float[bin], before[bin], after[bin], error[bin]);
    }
    Some(text)
}
