//! The help overlay: the key table of the present view, and a few words on what is seen.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::widgets::{Clear, Widget};

use super::app::App;
use super::keymap;
use super::widget::{panel, put};

/// Draws it over `area`, from line `scroll` on.
pub fn draw(app: &App, scroll: u16, area: Rect, buf: &mut Buffer) {
    let mut lines: Vec<(String, String)> = app.view.spec().help.iter().map(|w| (String::new(), (*w).to_string())).collect();
    lines.push((String::new(), String::new()));
    lines.extend(keymap::help(app.view));
    let width = 84.min(area.width);
    let height = (lines.len() as u16 + 2).min(area.height);
    let window = Rect { x: area.x + (area.width - width) / 2, y: area.y + (area.height - height) / 2, width, height };
    Clear.render(window.intersection(buf.area), buf);
    let inner = panel(buf, window, &format!("Help · {} · j/k scroll, any other key closes", app.view.title()), app.look);
    let most = (lines.len() as u16).saturating_sub(inner.height);
    for ((key, text), y) in lines.iter().skip(usize::from(scroll.min(most))).zip(0..inner.height) {
        put(buf, inner, 1, y, key, app.look.accent());
        put(buf, inner, if key.is_empty() { 1 } else { 11 }, y, text, Style::new());
    }
}
