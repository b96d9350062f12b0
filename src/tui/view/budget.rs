//! Budget: bit operations against the bound, the group count of every site with what one step more or fewer would do, and the frontier.

use crossterm::event::KeyCode;
use ratatui::buffer::Buffer;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};

use super::spec::{ViewSpec, all_sites, no_detail, progress};
use crate::engine::Study;
use crate::engine::command::{Estimate, Method};
use crate::studies::counts::{SiteShare, Step};
use crate::studies::judge::Measured;
use crate::studies::mixed::{Mixed, MixedReport};
use crate::tui::app::App;
use crate::tui::budget::Solved;
use crate::tui::hit::{Hit, Hits, Walk};
use crate::tui::keys::Key::{Char, Code};
use crate::tui::keys::{Action, bind};
use crate::tui::studies::base;
use crate::tui::widget::plot::{self, Mark};
use crate::tui::widget::table::{Cell, Column, Table};
use crate::tui::widget::text::{width, wrap};
use crate::tui::widget::{bar, operations, panel, put, short};

pub const SPEC: ViewSpec = ViewSpec {
    name: "budget",
    title: "Budget",
    key: '5',
    help: &[
        "More groups cost bit operations (BOPs) and lower the error. omega: KL with",
        "only this site quantized, at this count. The counts are the best within the",
        "bound. +1 step: KL that the next count saves for each million BOPs; -1 step:",
        "KL that the count before adds for each million BOPs saved.",
        "omega is estimated from gradients; X measures it (*).",
        "z chooses bits of activations and weights and group counts of every site",
        "within the cost of the present bits, judged on images of its own.",
    ],
    keys: &[
        bind(
            &[Char('B'), Char('l'), Code(KeyCode::Right)],
            Action::BudgetStep(true),
            "B →",
            "a larger budget of bit operations (about 2 %)",
            "b/B budget",
        ),
        bind(&[Char('b'), Char('h'), Code(KeyCode::Left)], Action::BudgetStep(false), "b ←", "a smaller budget", ""),
        bind(&[Code(KeyCode::Enter)], Action::Apply, "Enter", "apply these counts to the settings", "Enter apply"),
        bind(&[Char('z')], Action::Mixed, "z", "mixed precision: bits and group counts of every site at the same cost", "z mixed"),
        bind(&[Char('X')], Action::Exact, "X", "measure every site instead of estimating (Esc stops, X resumes)", "X exact"),
    ],
    draw,
    rows,
    cursor: None,
    study,
    detail: no_detail,
    csv,
};

fn rows(app: &App) -> Walk {
    match &app.budget.solved {
        Some(solved) => Walk::over(solved.allocation.sites.iter().map(|s| s.site).collect(), Some(app.site)),
        None => all_sites(app),
    }
}

/// The fast estimate of the present settings, and then the exact sweep where the user has asked for it already.
fn study(app: &App) -> Option<Study> {
    let settings = base(&app.settings);
    let estimated = app.studies.known(&settings, Estimate::Fisher).is_some();
    let estimate = match (app.settings.method.uses_groups(), estimated, app.studies.exact_next) {
        (true, false, _) => Estimate::Fisher,
        (true, true, true) => Estimate::Alone,
        _ => return trial(app),
    };
    Some(Study::Perturb { settings, estimate })
}

/// A run of the counts that the bound gives, before anybody applies them.
fn trial(app: &App) -> Option<Study> {
    let solved = app.budget.solved.as_ref().filter(|solved| solved.base == base(&app.settings))?;
    let (settings, picture) = (solved.apply(&app.settings), app.picture);
    let known = settings == app.settings || measured(app, solved).is_some();
    (!known && !app.is_stale() && app.settings.method.uses_groups()).then_some(Study::Trial { settings, picture })
}

/// The KL of the picture under the counts: that of the run on the screen where they are applied, else of the trial.
fn measured(app: &App, solved: &Solved) -> Option<f64> {
    let settings = solved.apply(&app.settings);
    let shown = app.snapshot.as_ref().filter(|s| s.report.settings == settings && s.picture == app.picture);
    let tried = || app.studies.tried.as_ref().filter(|(tried, picture, _)| *tried == settings && *picture == app.picture);
    shown.map(|s| s.report.prediction.kl).or_else(|| tried().map(|(.., kl)| *kl))
}

/// Areas of the bound, the sites and the frontier; the frontier goes first where there is little room.
fn areas(area: Rect) -> [Rect; 3] {
    let [top, rest] = Layout::vertical([Constraint::Length(if area.height >= 28 { 7 } else { 5 }), Constraint::Fill(1)]).areas(area);
    let plot = match area.width {
        0..76 => 0,
        width @ 76..110 => width - 50,
        width => width - 76,
    };
    let [sites, frontier] = Layout::horizontal([Constraint::Fill(1), Constraint::Length(plot)]).areas(rest);
    [top, sites, frontier]
}

fn draw(app: &App, area: Rect, buf: &mut Buffer) -> Hits {
    let method = app.settings.method;
    if !method.uses_groups() {
        let grouped: Vec<&str> = Method::ALL.into_iter().filter(|m| m.uses_groups()).map(Method::name).collect();
        let text = format!(
            "The method {method} ({}) has no group counts, so there is nothing to spend a budget on. m goes to the next method; these have \
             group counts: {}.",
            method.describe(),
            grouped.join(", ")
        );
        return sentence(app, &text, area, buf);
    }
    let Some(solved) = &app.budget.solved else {
        let why = match (&app.studies.running, app.snapshot.is_some()) {
            (_, false) => progress(app),
            (Some(_), _) => app.studies.line().unwrap_or_default(),
            (None, _) => format!("There is no estimate for these settings; {} starts it again.", SPEC.key),
        };
        return sentence(app, &why, area, buf);
    };
    let [top, sites, frontier] = areas(area);
    bound(app, solved, top, buf);
    if frontier.width > 0 {
        curve(app, solved, frontier, buf);
    }
    table(app, solved, sites, buf)
}

fn sentence(app: &App, text: &str, area: Rect, buf: &mut Buffer) -> Hits {
    let inner = panel(buf, area, "Budget", app.look);
    for (line, y) in wrap(text, usize::from(inner.width.saturating_sub(2))).iter().zip(1..) {
        put(buf, inner, 1, y, line, Style::new());
    }
    Hits::default()
}

fn percent(part: u64, whole: u64) -> f64 {
    100.0 * part as f64 / whole.max(1) as f64
}

fn bound(app: &App, solved: &Solved, area: Rect, buf: &mut Buffer) {
    let allocation = &solved.allocation;
    let stale = if solved.base == base(&app.settings) { "" } else { " · stale, computing" };
    let inner = panel(buf, area, &format!("Budget · bit operations per image{stale}"), app.look);
    let text = format!(
        " {} of {} allowed ({:.1} %)",
        operations(allocation.bops),
        operations(solved.bound),
        percent(allocation.bops, solved.bound)
    );
    let room = usize::from(inner.width).saturating_sub(width(&text) + 2);
    // The bar runs from the smallest counts to the largest: both ends cost most of the network anyway.
    let (least, most) = solved.table.span();
    let fraction = |bops: u64| (bops.saturating_sub(least)) as f64 / (most - least).max(1) as f64;
    put(buf, inner, 0, 0, &format!("▕{}▏", bar(fraction(allocation.bops), room)), app.look.accent());
    let limit = 1 + (fraction(solved.bound) * room.saturating_sub(1) as f64).round() as u16;
    put(buf, inner, limit.min(room as u16), 0, "┃", app.look.bad());
    put(buf, inner, room as u16 + 2, 0, &text, Style::new().add_modifier(Modifier::BOLD));
    let wide = inner.width >= 110;
    let compared = solved.table.uniform.iter().filter(|(g, _)| wide || g.get() == 8);
    let mut parts: Vec<String> = compared.map(|(g, bops)| format!("{:.1} % of {g}", percent(allocation.bops, *bops))).collect();
    if let Some(first) = parts.first_mut() {
        *first = format!("cost: {first} groups everywhere");
    }
    let first = parts.join(", ");
    // Products cost the same whatever the counts: the run on the screen knows them, if it is one of these settings.
    let products = app.snapshot.as_ref().filter(|s| base(&s.report.settings) == solved.base).map(|s| &s.report.bops);
    let overhead = products
        .map(|b| format!("grouping adds {:.1} %", percent(allocation.bops - (b.total - b.overhead).min(allocation.bops), allocation.bops)))
        .unwrap_or_default();
    let from = format!("bar from {} (fewest groups) to {} (most)", operations(least), operations(most));
    let applied = if solved.apply(&app.settings) == app.settings { "counts applied" } else { "Enter applies these counts" };
    // What one site at a time cost on the calibration pictures is no prediction of the whole: beside it stands the run on the screen.
    let measured = measured(app, solved).map(|kl| format!(", this image's run {}", short(kl))).unwrap_or_default();
    // What was measured comes first: the end of the line is what is cut.
    let second = format!("sum of single-site KL {}{measured} · {applied} · {overhead}", short(allocation.predicted));
    let from = correlation(solved).unwrap_or(from);
    let lines = [(first, Style::new()), (second, Style::new()), (source(solved), app.look.dim()), (from, app.look.dim())];
    for ((text, style), y) in lines.iter().zip(1..inner.height) {
        put(buf, inner, 0, y, text, *style);
    }
}

/// Where the perturbations come from.
fn source(solved: &Solved) -> String {
    let (exact, all) = (solved.exact.len(), solved.allocation.sites.len());
    match exact {
        0 => "all sites estimated (diagonal Fisher); X measures them".to_string(),
        _ if exact == all => "all sites measured".to_string(),
        _ => format!("{exact} of {all} sites measured (*), the others estimated"),
    }
}

/// How well the estimate orders the sites that were measured.
fn correlation(solved: &Solved) -> Option<String> {
    let known: Vec<String> = solved.correlation.iter().filter_map(|(g, rho)| rho.map(|rho| format!("{g}: {rho:.2}"))).collect();
    (!known.is_empty()).then(|| format!("Spearman, estimated against measured, by count: {}", known.join("  ")))
}

/// What a step changes for each million bit operations.
fn rate(step: Option<Step>) -> String {
    match step {
        None => "-".into(),
        Some(step) if step.bops == 0 => format!("{} free", short(step.gain)),
        Some(step) => short(step.gain / (step.bops as f64 / 1e6)),
    }
}

fn table(app: &App, solved: &Solved, area: Rect, buf: &mut Buffer) -> Hits {
    let look = app.look;
    let title = if area.width >= 72 { "Group counts · ±1 step: KL saved per million BOPs" } else { "Group counts" };
    let most = solved.table.sites.iter().flat_map(|s| &s.counts).map(|c| c.get()).max().unwrap_or(1);
    // Behind an address stands the mark of sites that were measured.
    let name = app.site_width() + 2;
    let at = |from: u16| from + name - 16;
    let counts = |s: &SiteShare| {
        let now = app.settings.groups(s.site);
        if now == s.groups { s.groups.to_string() } else { format!("{now}→{}", s.groups) }
    };
    let columns = vec![
        Column::new("site", name, |s: &SiteShare| format!("{}{}", s.site, if solved.exact.contains(&s.site) { " *" } else { "" })),
        Column::new("groups", 6, counts).right(),
        Column::new("", 8, |s: &SiteShare| Cell::Bar(s.groups.get() as f64 / most as f64, Color::Reset)),
        Column::new("BOPs", 7, |s: &SiteShare| operations(s.bops)).right().from(at(46)),
        Column::new("omega", 8, |s: &SiteShare| short(s.omega)).right().from(at(46)),
        Column::new("+1 step", 10, |s: &SiteShare| rate(s.more)).right().from(at(70)),
        Column::new("-1 step", 10, |s: &SiteShare| rate(s.fewer)).right().from(at(70)),
    ];
    let sites = &solved.allocation.sites;
    let bold = Style::new().add_modifier(Modifier::BOLD);
    let table = Table::new(columns, sites)
        .selected(sites.iter().position(|s| s.site == app.site))
        .style(|s| if s.groups == app.settings.groups(s.site) { Style::new() } else { bold })
        .click(|s| Some(Hit::Site(s.site)));
    table.draw(title, look, area, buf).1
}

/// The counts of every site and the frontier, with how each number came about.
fn csv(app: &App) -> Option<String> {
    let solved = app.budget.solved.as_ref()?;
    let rate = |step: Option<Step>| step.map_or_else(String::new, |s| format!("{},{}", s.bops, s.gain));
    let mut text =
        "kind,site,groups now,groups,bit operations,omega,how,more: bit operations,more: KL saved,fewer: bit operations,fewer: KL added\n"
            .to_string();
    for s in &solved.allocation.sites {
        let how = if solved.exact.contains(&s.site) { "measured" } else { "estimated" };
        let more = Some(rate(s.more)).filter(|r| !r.is_empty()).unwrap_or_else(|| ",".into());
        let fewer = Some(rate(s.fewer)).filter(|r| !r.is_empty()).unwrap_or_else(|| ",".into());
        let now = app.settings.groups(s.site);
        text += &format!("site,{},{now},{},{},{},{how},{more},{fewer}\n", s.site, s.groups, s.bops, s.omega);
    }
    for (bops, kl) in &solved.frontier {
        text += &format!("frontier,,,,{bops},{kl},sum of single-site KL,,,,\n");
    }
    for (g, bops, kl) in solved.uniform() {
        let kl = kl.map(|kl| kl.to_string()).unwrap_or_default();
        text += &format!("uniform,,,{g},{bops},{kl},sum of single-site KL,,,,\n");
    }
    if let Some(kl) = measured(app, solved) {
        text += &format!("run,,,,{},{kl},this image,,,,\n", solved.allocation.bops);
    }
    Some(text)
}

/// Mixed precision against uniform bits, both measured: KL by runs on images of their own.
fn mixed_curve(app: &App, report: &MixedReport, area: Rect, buf: &mut Buffer) {
    let look = app.look;
    let point = |m: &Measured| (m.bops as f64, m.kl);
    let chosen = |one: &Mixed| one.measured.first().map(point);
    let curve: Vec<(f64, f64)> = report.mixed.iter().filter_map(chosen).collect();
    let uniform = report.mixed.iter().max_by_key(|one| one.measured.len()).map_or(&[][..], |one| one.measured.get(1..).unwrap_or_default());
    let mut marks: Vec<Mark> = uniform
        .iter()
        .map(|m| Mark { at: point(m), label: m.name.split('/').next().unwrap_or_default().to_string(), style: look.bad() })
        .collect();
    for one in &report.mixed {
        let applied = one.settings == app.settings;
        let style = if applied { look.accent().add_modifier(Modifier::REVERSED) } else { look.accent() };
        marks.extend(chosen(one).map(|at| Mark { at, label: look.glyph("●", "O").into(), style }));
    }
    let inner = panel(buf, area, "Mixed precision · measured KL", look);
    let [plot, words] = Layout::vertical([Constraint::Fill(1), Constraint::Length(report.mixed.len() as u16 + 1)]).areas(inner);
    plot::draw(&curve, &marks, |v| operations(v as u64), look, plot, buf);
    let legend = format!("{} mixed  W4: uniform  {} unseen images", look.glyph("●", "O"), report.images);
    put(buf, words, 0, 0, &legend, look.dim());
    for (one, y) in report.mixed.iter().zip(1..) {
        let same = one.measured.iter().skip(1).max_by_key(|m| m.bops).map_or(f64::NAN, |m| m.kl);
        let own = one.measured.first().map_or(f64::NAN, |m| m.kl);
        let gain = one.gain.map(|(_, low, high)| format!(", gain {} to {}", short(low), short(high))).unwrap_or_default();
        let text = format!("at W{b}/A{b}'s cost: {}, mixed {}{gain}", short(same), short(own), b = one.uniform);
        let now = if one.settings == app.settings { Style::new().add_modifier(Modifier::BOLD) } else { Style::new() };
        put(buf, words, 0, y, &text, now);
    }
}

fn curve(app: &App, solved: &Solved, area: Rect, buf: &mut Buffer) {
    if let Some(report) = app.studies.mixed_for(&app.settings) {
        return mixed_curve(app, report, area, buf);
    }
    let look = app.look;
    let title = if area.width >= 60 { "Sum of single-site KL, log scale, against BOPs, root scale" } else { "Sum of single-site KL" };
    let inner = panel(buf, area, title, look);
    let points: Vec<(f64, f64)> = solved.frontier.iter().map(|(bops, kl)| (*bops as f64, *kl)).collect();
    let mut marks: Vec<Mark> = solved
        .uniform()
        .into_iter()
        .filter_map(|(g, bops, kl)| Some(Mark { at: (bops as f64, kl?), label: format!("u{g}"), style: look.bad() }))
        .collect();
    let here = (solved.allocation.bops as f64, solved.allocation.predicted);
    marks.push(Mark { at: here, label: look.glyph("●", "O").into(), style: look.accent().add_modifier(Modifier::REVERSED) });
    let [plot, words] = Layout::vertical([Constraint::Fill(1), Constraint::Length(1)]).areas(inner);
    plot::draw(&points, &marks, |v| operations(v as u64), look, plot, buf);
    let text = format!("{} this budget   u8: 8 groups everywhere   curve: best counts", look.glyph("●", "O"));
    put(buf, words, 0, 0, &text, look.dim());
}
