//! Budget: bit operations against the bound, the group count of every site with what one step more or fewer would do, and the frontier.

use ratatui::buffer::Buffer;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Modifier, Style};

use super::{first_shown, wrap};
use crate::studies::allocate::{SiteShare, Step};
use crate::tui::app::App;
use crate::tui::budget::Solved;
use crate::tui::studies::base;
use crate::tui::update::Hit;
use crate::tui::widget::plot::{self, Mark};
use crate::tui::widget::{bar, operations, panel, put, short};

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

pub fn draw(app: &App, area: Rect, buf: &mut Buffer) {
    let method = app.settings.method;
    if !method.uses_groups() {
        let text = format!(
            "The method {method} ({}) has no group counts, so there is nothing to spend a budget on. m goes to the next method; contiguous, \
             sorted, igq and igq-e have group counts.",
            method.describe()
        );
        return sentence(app, &text, area, buf);
    }
    let Some(solved) = &app.budget.solved else {
        let why = match (&app.studies.running, app.snapshot.is_some()) {
            (_, false) => super::progress(app),
            (Some(_), _) => app.studies.line().unwrap_or_default(),
            (None, _) => "There is no estimate for these settings; 5 asks for it again.".into(),
        };
        return sentence(app, &why, area, buf);
    };
    let [top, sites, frontier] = areas(area);
    bound(app, solved, top, buf);
    table(app, solved, sites, buf);
    if frontier.width > 0 {
        curve(app, solved, frontier, buf);
    }
}

fn sentence(app: &App, text: &str, area: Rect, buf: &mut Buffer) {
    let inner = panel(buf, area, "Budget", app.look);
    for (line, y) in wrap(text, usize::from(inner.width.saturating_sub(2))).iter().zip(1..) {
        put(buf, inner, 1, y, line, Style::new());
    }
}

fn percent(part: u64, whole: u64) -> f64 {
    100.0 * part as f64 / whole.max(1) as f64
}

fn bound(app: &App, solved: &Solved, area: Rect, buf: &mut Buffer) {
    let allocation = &solved.allocation;
    let stale = if solved.base == base(&app.settings) { "" } else { " · stale, computing" };
    let inner = panel(buf, area, &format!("Budget · bit operations of one picture{stale}"), app.look);
    let text = format!(
        " {} of {} allowed ({:.1} %)",
        operations(allocation.bops),
        operations(solved.bound),
        percent(allocation.bops, solved.bound)
    );
    let room = usize::from(inner.width).saturating_sub(text.chars().count() + 2);
    // The bar runs from the smallest counts to the largest: both ends cost most of the network anyway.
    let (least, most) = solved.table.span();
    let share = |bops: u64| (bops.saturating_sub(least)) as f64 / (most - least).max(1) as f64;
    put(buf, inner, 0, 0, &format!("▕{}▏", bar(share(allocation.bops), room)), app.look.accent());
    let limit = 1 + (share(solved.bound) * room.saturating_sub(1) as f64).round() as u16;
    put(buf, inner, limit.min(room as u16), 0, "┃", app.look.bad());
    put(buf, inner, room as u16 + 2, 0, &text, Style::new().add_modifier(Modifier::BOLD));
    let wide = inner.width >= 110;
    let compared = solved.table.uniform.iter().filter(|(g, _)| wide || g.get() == 8);
    let shares: Vec<String> = compared.map(|(g, bops)| format!("{:.1} % of {g}", percent(allocation.bops, *bops))).collect();
    let first = format!("uses {} groups everywhere", shares.join(", "));
    // Products cost the same whatever the counts: the run on the screen knows them, if it is one of these settings.
    let products = app.snapshot.as_ref().filter(|s| base(&s.report.settings) == solved.base).map(|s| &s.report.bops);
    let overhead = products
        .map(|b| format!("grouping adds {:.1} %", percent(allocation.bops - (b.total - b.overhead).min(allocation.bops), allocation.bops)))
        .unwrap_or_default();
    let from = format!("bar from {} (fewest groups) to {} (most)", operations(least), operations(most));
    let applied = if solved.apply(&app.settings) == app.settings { "these counts are in force" } else { "Enter applies these counts" };
    let second = format!("{overhead} · {applied} · predicted KL {}", short(allocation.predicted));
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
        0 => "all sites by the fast estimate (diagonal Fisher); X measures them".to_string(),
        _ if exact == all => "all sites measured".to_string(),
        _ => format!("{exact} of {all} sites measured (*), the others by the fast estimate"),
    }
}

/// How well the fast estimate orders the sites that were measured.
fn correlation(solved: &Solved) -> Option<String> {
    let known: Vec<String> = solved.correlation.iter().filter_map(|(g, rho)| rho.map(|rho| format!("{g}: {rho:.2}"))).collect();
    (!known.is_empty()).then(|| format!("Spearman, fast against measured, by count: {}", known.join("  ")))
}

/// One column of the table: title, width, the least width of the panel that shows it, and its text.
struct Column {
    title: &'static str,
    width: u16,
    from: u16,
    text: fn(&App, &Solved, &SiteShare, u16) -> String,
}

/// What a step changes for each million bit operations.
fn rate(step: Option<Step>) -> String {
    match step {
        None => "-".into(),
        Some(step) if step.bops == 0 => format!("{} free", short(step.gain)),
        Some(step) => short(step.gain / (step.bops as f64 / 1e6)),
    }
}

const COLUMNS: &[Column] = &[
    Column {
        title: "site",
        width: 16,
        from: 0,
        text: |_, solved, s, _| format!("{}{}", s.site, if solved.exact.contains(&s.site) { " *" } else { "" }),
    },
    Column {
        title: "groups",
        width: 6,
        from: 0,
        text: |app, _, s, _| {
            let now = app.settings.groups(s.site);
            if now == s.groups { s.groups.to_string() } else { format!("{now}→{}", s.groups) }
        },
    },
    Column { title: "", width: 8, from: 0, text: |_, _, s, most| bar(s.groups.get() as f64 / f64::from(most), 8) },
    Column { title: "BOPs", width: 7, from: 46, text: |_, _, s, _| operations(s.bops) },
    Column { title: "omega", width: 6, from: 46, text: |_, _, s, _| short(s.omega) },
    Column { title: "+1 step", width: 10, from: 70, text: |_, _, s, _| rate(s.more) },
    Column { title: "-1 step", width: 10, from: 70, text: |_, _, s, _| rate(s.fewer) },
];

/// The shares that are seen.
fn shown<'s>(app: &App, solved: &'s Solved, inner: Rect) -> &'s [SiteShare] {
    let sites = &solved.allocation.sites;
    let height = usize::from(inner.height.saturating_sub(1));
    let selected = sites.iter().position(|s| s.site == app.site).unwrap_or(0);
    let first = first_shown(selected, sites.len(), height);
    &sites[first.min(sites.len())..(first + height).min(sites.len())]
}

fn table(app: &App, solved: &Solved, area: Rect, buf: &mut Buffer) {
    let look = app.look;
    let title = if area.width >= 72 { "Group counts · ±1 step: KL less for each million BOPs" } else { "Group counts" };
    let inner = panel(buf, area, title, look);
    let most = solved.table.sites.iter().flat_map(|s| &s.counts).map(|c| c.get() as u16).max().unwrap_or(1);
    // Behind an address stands the mark of sites that were measured.
    let name = app.site_width() + 2;
    let wide = |column: &Column| if column.title == "site" { name } else { column.width };
    let columns: Vec<&Column> = COLUMNS.iter().filter(|c| c.from == 0 || inner.width + COLUMNS[0].width >= c.from + name).collect();
    let line = |buf: &mut Buffer, y: u16, style: Style, text: &dyn Fn(&Column) -> String| {
        let mut x = 0;
        for column in &columns {
            let (width, text) = (usize::from(wide(column)), text(column));
            let left = matches!(column.title, "site" | "");
            put(buf, inner, x, y, &if left { format!("{text:<width$}") } else { format!("{text:>width$}") }, style);
            x += wide(column) + 1;
        }
    };
    line(buf, 0, look.dim(), &|c| c.title.into());
    for (share, y) in shown(app, solved, inner).iter().zip(1..) {
        let selected = share.site == app.site;
        let changed = share.groups != app.settings.groups(share.site);
        let style = if changed { Style::new().add_modifier(Modifier::BOLD) } else { Style::new() };
        line(buf, y, style, &|c| (c.text)(app, solved, share, most));
        if selected {
            let row = Rect { y: inner.y + y, height: 1, ..inner }.intersection(buf.area);
            buf.set_style(row, look.selected());
        }
    }
}

fn curve(app: &App, solved: &Solved, area: Rect, buf: &mut Buffer) {
    let look = app.look;
    let title = if area.width >= 60 { "Predicted KL (sum of omega), log scale, against BOPs, root scale" } else { "Predicted KL, BOPs" };
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

pub fn hit(app: &App, area: Rect, column: u16, row: u16) -> Option<Hit> {
    let solved = app.budget.solved.as_ref().filter(|_| app.settings.method.uses_groups())?;
    let [_, sites, _] = areas(area);
    let inner = sites.inner(ratatui::layout::Margin::new(1, 1));
    let inside = inner.contains((column, row).into()) && row > inner.y;
    inside.then(|| shown(app, solved, inner).get(usize::from(row - inner.y - 1)).map(|s| Hit::Site(s.site)))?
}
