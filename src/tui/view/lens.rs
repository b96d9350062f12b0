//! Lens: what float and quantized runs would answer if the network ended after each block, and where the two part.

use ratatui::buffer::Buffer;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};

use super::spec::{ViewSpec, all_sites, no_csv, no_detail, no_study, waiting};
use crate::analysis::lens::parting;
use crate::analysis::report::LensPoint;
use crate::model::Site;
use crate::tui::app::App;
use crate::tui::hit::{Hit, Hits};
use crate::tui::widget::table::{Cell, Column, Table};
use crate::tui::widget::text::wrap;
use crate::tui::widget::{panel, put, short};

pub const SPEC: ViewSpec = ViewSpec {
    name: "lens",
    title: "Lens",
    key: '8',
    help: &[
        "After every block the last norm, the pooling and the head are applied to the",
        "residual stream: a logit lens. Each line says what the float run and the",
        "quantized run would answer if the network ended there, and their KL. A block",
        "after which the classes differ to the end is where the two part.",
    ],
    keys: &[],
    draw,
    rows: all_sites,
    cursor: None,
    study: no_study,
    detail: no_detail,
    csv: no_csv,
};

/// The site of a block that a point of the lens stands behind: its last one.
fn site_of(app: &App, point: &LensPoint) -> Option<Site> {
    app.info.sites.iter().copied().find(|site| site.to_string() == format!("{}.fc2", point.after))
}

fn draw(app: &App, area: Rect, buf: &mut Buffer) -> Hits {
    if app.snapshot.is_none() {
        return waiting(app, area, buf);
    }
    let Some(points) = app.lens() else {
        let inner = panel(buf, area, "Lens", app.look);
        put(buf, inner, 1, 1, "computing what every block would answer", app.look.dim());
        return Hits::default();
    };
    let [table, words] = Layout::vertical([Constraint::Fill(1), Constraint::Length(5)]).areas(area);
    let hits = rows(app, points, table, buf);
    let inner = panel(buf, words, "Where it is lost", app.look);
    for (line, y) in wrap(&sentence(app, points), usize::from(inner.width.saturating_sub(2))).iter().zip(0..inner.height) {
        put(buf, inner, 1, y, line, Style::new());
    }
    hits
}

fn rows(app: &App, points: &[LensPoint], area: Rect, buf: &mut Buffer) -> Hits {
    let parts = parting(points);
    let look = app.look;
    let color = if look.has_color() { look.accent().fg.unwrap_or(Color::Reset) } else { Color::Reset };
    let class = |name: &str, p: f64| format!("{name} {:.1} %", p * 100.0);
    let name = (area.width.saturating_sub(if area.width >= 90 { 78 } else { 48 }) / 2).clamp(16, 34);
    let most = points.iter().map(|p| p.kl).fold(0.0, f64::max);
    let columns = vec![
        Column::new("block", 18, |p: &&LensPoint| p.after.clone()),
        Column::new("float", name, move |p: &&LensPoint| class(&p.float.label, p.float.probability)),
        Column::new("quantized", name, move |p: &&LensPoint| class(&p.quantized.label, p.quantized.probability)),
        Column::new("answer float", 12, |p: &&LensPoint| format!("{:.1} %", p.of_answer.0 * 100.0)).right().from(90),
        Column::new("answer quant", 12, |p: &&LensPoint| format!("{:.1} %", p.of_answer.1 * 100.0)).right().from(90),
        Column::new("KL", 9, |p: &&LensPoint| short(p.kl)).right(),
        Column::new("", 12, move |p: &&LensPoint| Cell::Bar(if most > 0.0 { p.kl / most } else { 0.0 }, color)).from(76),
    ];
    let rows: Vec<&LensPoint> = points.iter().collect();
    let here = |p: &&LensPoint| site_of(app, p).is_some_and(|site| (site.stage, site.block) == (app.site.stage, app.site.block));
    let bold = Style::new().add_modifier(Modifier::BOLD);
    let table = Table::new(columns, &rows)
        .selected(rows.iter().position(here))
        .style(|p| match parts {
            Some(part) if part.after == p.after => look.bad(),
            _ if p.float.class != p.quantized.class => bold,
            _ => Style::new(),
        })
        .click(|p| site_of(app, p).map(Hit::Site));
    table.draw("What the network would answer after each block", look, area, buf).1
}

/// Where the two part, or where the divergence grows most.
fn sentence(app: &App, points: &[LensPoint]) -> String {
    let steepest = points.windows(2).max_by(|a, b| (a[1].kl - a[0].kl).total_cmp(&(b[1].kl - b[0].kl)));
    let grows = steepest.filter(|pair| pair[1].kl > pair[0].kl).map_or_else(String::new, |pair| {
        format!(" The divergence grows most in {}: KL {} to {}.", pair[1].after, short(pair[0].kl), short(pair[1].kl))
    });
    let skipped = if points.len() < 2 { " Earlier stages have a stream of another shape, which the head cannot take." } else { "" };
    match (parting(points), points.last()) {
        (Some(part), _) => format!(
            "The two part after {}: float would answer {}, quantized {}, and they differ from there to the end.{grows}{skipped}",
            part.after, part.float.label, part.quantized.label
        ),
        (None, Some(end)) => {
            let crossed = points.iter().filter(|p| p.float.class != p.quantized.class).count();
            let on_the_way = match crossed {
                0 => "they agree after every block".to_string(),
                n => format!("they differ after {n} of {} on the way", points.len()),
            };
            format!("Both end with {}; {on_the_way}.{grows}{skipped}", end.quantized.label)
        }
        (None, None) => format!("{} has no stream that the head could take before its end.", app.info.model),
    }
}
