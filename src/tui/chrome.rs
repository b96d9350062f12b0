//! The frame around the views: header, tabs, status line, footer and help. Reads the state, never changes it.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;

use super::app::App;
use super::choice::View;
use super::hit::{Hit, Hits};
use super::keys::Action;
use super::update::palette;
use super::view::spec::progress;
use super::widget::put;
use super::widget::text::{cut, width, wrap};
use super::{glossary, help, keymap};

/// Smallest terminal that the views are drawn on.
const FLOOR: (u16, u16) = (50, 16);

/// Draws the whole screen on a buffer and returns what a click can land on.
pub fn render(app: &App, area: Rect, buf: &mut Buffer) -> Hits {
    if area.width < FLOOR.0 || area.height < FLOOR.1 {
        let text = format!("igq needs {}x{}, this terminal is {}x{} (q quits)", FLOOR.0, FLOOR.1, area.width, area.height);
        for (y, line) in wrap(&text, usize::from(area.width)).iter().enumerate() {
            put(buf, area, 0, y as u16, line, Style::new());
        }
        return Hits::default();
    }
    if app.present && app.view.name() == "learn" && app.help.is_none() && app.palette.is_none() {
        let hits = (app.view.spec().draw)(app, area, buf);
        if app.look.ascii {
            to_ascii(buf);
        }
        return hits;
    }
    let mut hits = header(app, area, buf);
    let body = body(app, area);
    hits.extend((app.view.spec().draw)(app, body, buf));
    status(app, area, buf);
    hits.extend(footer(app, area, buf));
    if let Some(scroll) = app.help {
        help::draw(app, scroll, &hits, body, buf);
        hits = Hits::default();
    }
    if app.look.ascii {
        to_ascii(buf);
    }
    hits
}

fn body(app: &App, area: Rect) -> Rect {
    let frame = 3 + status_lines(app, area).len() as u16;
    Rect { x: area.x, y: area.y + 2, width: area.width, height: area.height.saturating_sub(frame) }
}

/// Least room for what stands left of the views' names.
const LEFT: usize = 24;

/// The names of the views with their columns, at the right end of the first line; where it is narrow only the present one is named.
fn tabs(present: View, area: Rect) -> Vec<(View, u16, String)> {
    let named = |short: bool| -> Vec<(View, String)> {
        let name = |view: View| {
            let (key, title) = (view.spec().key, view.title());
            match (view == present, short) {
                (true, _) => format!(" {key} {title} "),
                (false, true) => format!(" {key} "),
                (false, false) => format!(" {key} {title}"),
            }
        };
        View::all().map(|view| (view, name(view))).collect()
    };
    let all = named(false);
    let fits = all.iter().map(|(_, n)| n.len()).sum::<usize>() + LEFT <= usize::from(area.width);
    let names = if fits { all } else { named(true) };
    let mut x = area.width.saturating_sub(names.iter().map(|(_, n)| n.len() as u16).sum());
    let mut placed = Vec::new();
    for (view, name) in names {
        let length = name.len() as u16;
        placed.push((view, x, name));
        x += length;
    }
    placed
}

fn header(app: &App, area: Rect, buf: &mut Buffer) -> Hits {
    let mut hits = Hits::default();
    let look = app.look;
    let tabs = tabs(app.view, area);
    let room = tabs.first().map_or(0, |t| t.1);
    let left = Rect { width: room.saturating_sub(1), height: 1, ..area };
    put(buf, left, 0, 0, " igq ", look.accent());
    let picture = format!("{} of {}", app.picture + 1, app.info.picture_count);
    let rest = if area.width >= 130 {
        format!("{} · {} · picture {picture}", app.info.model, app.info.description)
    } else if width(&app.info.model) + picture.len() + 16 <= usize::from(left.width) {
        format!("{} · picture {picture}", app.info.model)
    } else if width(&app.info.model) + picture.len() + 8 <= usize::from(left.width) {
        format!("{} · {picture}", app.info.model)
    } else {
        format!("picture {picture}")
    };
    put(buf, left, 5, 0, &rest, Style::new());
    for (view, x, name) in tabs {
        put(buf, area, x, 0, &name, if view == app.view { look.selected() } else { look.dim() });
        hits.add(Rect { x: area.x + x, width: name.len() as u16, height: 1, ..area }, Hit::View(view));
    }
    let settings = format!(" {}", app.settings.describe());
    let state = state(app, area.width >= 100);
    let right = width(&state) as u16;
    let line = Rect { width: area.width.saturating_sub(right + 1), ..area };
    put(buf, line, 0, 1, &settings, Style::new());
    let used = width(&settings) as u16;
    let method = match app.history.len() {
        (0, 0) => "(W, A, S: bits of weights, activations, softmax)".to_string(),
        _ => format!("({})", app.settings.method.describe()),
    };
    if usize::from(line.width) >= usize::from(used) + 2 + width(&method) {
        put(buf, line, used + 2, 1, &method, look.dim());
    }
    let style = if app.is_stale() { look.bad() } else { look.dim() };
    put(buf, area, area.width.saturating_sub(right), 1, &state, style);
    hits
}

/// Whether the numbers belong to the settings, and what is being computed; a study has its place here, where it hides nothing.
fn state(app: &App, wide: bool) -> String {
    let run = match &app.snapshot {
        None => return "starting ".into(),
        Some(_) if app.is_stale() => "stale, computing ".into(),
        Some(snapshot) => format!("{:.0} ms ", snapshot.report.seconds * 1000.0),
    };
    app.studies.corner(wide).map_or_else(|| run.clone(), |study| format!("{study} · {run}"))
}

/// The lines above the footer: a notice, the filter, progress, or the verdict; two where one is too short.
fn status_lines(app: &App, area: Rect) -> Vec<String> {
    if let Some(line) = &app.palette {
        let room = usize::from(area.width.saturating_sub(2));
        return vec![cut(&palette::hint(app, line), room), cut(&format!(":{line}_"), room)];
    }
    let text = if let Some(notice) = &app.notice {
        notice.text.clone()
    } else if let Some(word) = app.hover {
        glossary::line(word)
    } else if app.filtering || !app.filter.is_empty() {
        format!("filter: {}{}", app.filter, if app.filtering { "_  (Enter keeps it, Esc clears it)" } else { "" })
    } else if let Some(found) = &app.studies.suggestion {
        format!("Y applies: {}", found.text)
    } else if let Some(verdict) = app.sentence() {
        verdict
    } else {
        progress(app)
    };
    let mut lines = wrap(&text, usize::from(area.width.saturating_sub(2)));
    // Of a verdict that is too long the reason in brackets goes first.
    if lines.len() > 2
        && let Some((short, _)) = text.strip_suffix(").").and_then(|text| text.rsplit_once(" ("))
    {
        lines = wrap(&format!("{short}."), usize::from(area.width.saturating_sub(2)));
    }
    if lines.len() > 2 {
        // The second line says itself that it goes on.
        let rest = lines.split_off(1).join(" ");
        lines.push(cut(&rest, usize::from(area.width.saturating_sub(2))));
    }
    // Two lines as long as the verdict needs two, so that nothing jumps when a notice comes and goes.
    let verdict = app.sentence().map_or(0, |verdict| width(&verdict));
    if verdict + 2 > usize::from(area.width) {
        lines.resize(2, String::new());
    }
    lines
}

fn status(app: &App, area: Rect, buf: &mut Buffer) {
    let look = app.look;
    let style = match &app.notice {
        Some(notice) if notice.is_error => look.bad(),
        Some(_) => look.good(),
        None if app.filtering || !app.filter.is_empty() || app.snapshot.is_none() => look.accent(),
        None if app.studies.running.as_ref().is_some_and(|study| !study.is_quiet()) => look.accent(),
        None if app.studies.suggestion.is_some() => look.good(),
        None => Style::new(),
    };
    let lines = status_lines(app, area);
    let top = area.height.saturating_sub(1 + lines.len() as u16);
    for (line, y) in lines.iter().zip(top..) {
        put(buf, area, 1, y, line, style);
    }
}

/// Keys of this view; help and quit never disappear.
fn footer(app: &App, area: Rect, buf: &mut Buffer) -> Hits {
    let mut hits = Hits::default();
    let look = app.look;
    let y = area.height.saturating_sub(1);
    let always = "? help  q quit";
    let fixed = always.len() as u16 + 1;
    put(buf, area, area.width.saturating_sub(fixed), y, always, look.accent());
    let mut x = 1;
    // What only this view knows comes first.
    for binding in keymap::bindings(app.view).filter(|b| !b.footer.is_empty() && !always.contains(b.footer)) {
        let length = binding.footer.len() as u16;
        if x + length + 2 + fixed > area.width {
            break;
        }
        let (key, word) = binding.footer.split_once(' ').unwrap_or((binding.footer, ""));
        put(buf, area, x, y, key, look.accent());
        put(buf, area, x + key.len() as u16 + 1, y, word, look.dim());
        hits.add(Rect { x: area.x + x, y: area.y + y, width: length, height: 1 }, Hit::Action(binding.action));
        x += length + 2;
    }
    let end = area.x + area.width.saturating_sub(fixed);
    // A click that went astray must not end a session: only the keys quit.
    hits.add(Rect { x: end, y: area.y + y, width: 6, height: 1 }, Hit::Action(Action::Help));
    hits
}

/// Replaces every character that is not ASCII by one that is.
fn to_ascii(buf: &mut Buffer) {
    for cell in &mut buf.content {
        if cell.symbol().is_ascii() {
            continue;
        }
        let plain = match cell.symbol() {
            "│" | "┊" => "|",
            "─" | "━" | "┈" | "╌" | "▀" | "·" | "▁" | "▂" => "-",
            "╭" | "╮" | "╰" | "╯" | "┌" | "┐" | "└" | "┘" => "+",
            "▏" | "▎" | "▍" | "░" | "▘" | "▝" | "▖" | "▗" | "▞" | "▚" => ".",
            "▌" | "▋" | "▒" | "▃" | "▄" | "▅" => ":",
            "→" => ">",
            "←" => "<",
            "↑" => "^",
            "↓" => "v",
            "…" => "~",
            "×" => "x",
            "═" | "║" | "╔" | "╗" | "╚" | "╝" | "▐" | "▛" | "▜" | "▙" | "▟" | "▊" | "▉" | "█" | "▓" | "▆" | "▇" => {
                "#"
            }
            _ => "?",
        };
        cell.set_symbol(plain);
    }
}
