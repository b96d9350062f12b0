//! The help overlay: what the present view shows, what its words mean, its keys; with `/` a search over all views.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::widgets::{Clear, Widget};

use super::app::App;
use super::choice::View;
use super::glossary;
use super::hit::{Hit, Hits};
use super::keymap;
use super::widget::{panel, put};
use crate::tui::widget::text::{width, wrap};

/// Columns of a key or a word.
const LEFT: usize = 14;

/// Draws it over `area`, from line `scroll` on; `hits` tell which words the view shows.
pub fn draw(app: &App, scroll: u16, hits: &Hits, area: Rect, buf: &mut Buffer) {
    let width = 92.min(area.width);
    let room = usize::from(width.saturating_sub(4)).saturating_sub(LEFT).max(1);
    let lines: Vec<(String, String)> = match &app.sought {
        Some((text, _)) if !text.is_empty() => found(text).into_iter().flat_map(|line| folded(line, room)).collect(),
        _ => of_view(app, hits, room),
    };
    let height = (lines.len() as u16 + 2).clamp(3, area.height.max(3)).min(area.height);
    let window = Rect { x: area.x + (area.width - width) / 2, y: area.y + (area.height - height) / 2, width, height };
    Clear.render(window.intersection(buf.area), buf);
    let title = match &app.sought {
        Some((text, true)) => format!("Help · /{text}_  (Enter keeps it, Esc clears it)"),
        Some((text, false)) => format!("Help · /{text} · {} lines", lines.len()),
        None => format!("Help · {} · j/k scroll, / searches, any other key closes", app.view.title()),
    };
    let inner = panel(buf, window, &title, app.look);
    let most = (lines.len() as u16).saturating_sub(inner.height);
    for ((key, text), y) in lines.iter().skip(usize::from(scroll.min(most))).zip(0..inner.height) {
        put(buf, inner, 1, y, key, app.look.accent());
        put(buf, inner, if key.is_empty() && !text.starts_with(' ') { 1 } else { LEFT as u16 }, y, text.trim_start(), Style::new());
    }
}

/// A line folded into the room beside its word.
fn folded((word, text): (String, String), room: usize) -> Vec<(String, String)> {
    let mut lines = wrap(&text, room).into_iter();
    let first = lines.next().unwrap_or_default();
    // A word that is too long for its column stands on a line of its own.
    let head = if width(&word) >= LEFT { vec![(word, String::new()), (String::new(), format!(" {first}"))] } else { vec![(word, first)] };
    head.into_iter().chain(lines.map(|line| (String::new(), format!(" {line}")))).collect()
}

fn of_view(app: &App, hits: &Hits, room: usize) -> Vec<(String, String)> {
    let empty = || (String::new(), String::new());
    let mut lines: Vec<(String, String)> = app.view.spec().help.iter().map(|w| (String::new(), (*w).to_string())).collect();
    let mut words: Vec<&str> = hits
        .iter()
        .filter_map(|(_, hit)| match hit {
            Hit::Term(term) => Some(term),
            Hit::Sort(sort) => Some(sort.column()),
            _ => None,
        })
        .collect();
    words.dedup();
    lines.push(empty());
    lines.extend(
        words.into_iter().filter_map(|word| Some((word.to_string(), glossary::explain(word)?.to_string()))).flat_map(|l| folded(l, room)),
    );
    lines.push(empty());
    lines.extend(keymap::help(app.view));
    lines
}

/// Words, keys and texts of all views that hold `text`.
fn found(text: &str) -> Vec<(String, String)> {
    let text = text.to_lowercase();
    let words = glossary::TERMS.iter().map(|(term, meaning)| ((*term).to_string(), (*meaning).to_string()));
    let mut lines: Vec<(String, String)> = words.collect();
    for view in View::all() {
        for (key, help) in keymap::help(view) {
            let own = view.spec().keys.iter().any(|b| b.help == help);
            let line = (key, if own { format!("{help} ({})", view.title()) } else { help });
            if !lines.contains(&line) {
                lines.push(line);
            }
        }
    }
    lines.retain(|(word, meaning)| word.to_lowercase().contains(&text) || meaning.to_lowercase().contains(&text));
    lines
}
