//! What is on the screen while a model is opened: how much of it has come from the Hub.

use std::time::Duration;

use crossterm::event::{Event as TerminalEvent, EventStream, KeyCode, KeyEventKind, KeyModifiers};
use futures_util::StreamExt;
use ratatui::buffer::Buffer;
use ratatui::layout::{Constraint, Flex, Layout, Rect};
use ratatui::style::Style;
use ratatui::widgets::{Gauge, Widget};
use tokio::sync::Notify;

use super::runtime::lost;
use super::terminal::Screen;
use super::theme::Look;
use super::widget::put;
use crate::engine::Opening;
use crate::error::{Error, Result};
use crate::progress::Progress;
use crate::session::{LoadedModel, Options};

/// How long a model may take before the screen says that it is being opened.
const AT_ONCE: Duration = Duration::from_millis(200);

/// Opens the model, and the screen as soon as that takes longer than a moment; `None` when the person quits meanwhile.
///
/// # Errors
/// When the model cannot be opened, or there is no terminal.
pub async fn open(options: Options, look: Look, mouse: bool, leave: &Notify) -> Result<Option<(LoadedModel, Screen)>> {
    let name = options.model.clone();
    let ended = || Error::content("igq", "the thread that opens the model has ended", "start again");
    let Opening { mut progress, mut opened } = Opening::spawn(options)?;
    if let Ok(opened) = tokio::time::timeout(AT_ONCE, &mut opened).await {
        return Ok(Some((opened.map_err(|_| ended())??, Screen::enter(mouse)?)));
    }
    let mut screen = Screen::enter(mouse)?;
    let mut keys = EventStream::new();
    loop {
        let state = progress.borrow_and_update().clone();
        screen.terminal.draw(|frame| draw(&name, &state, look, frame.area(), frame.buffer_mut())).map_err(lost)?;
        tokio::select! {
            () = leave.notified() => return Ok(None),
            opened = &mut opened => return Ok(Some((opened.map_err(|_| ended())??, screen))),
            event = keys.next() => match event {
                Some(Ok(event)) if quits(&event) => return Ok(None),
                Some(Ok(_)) => {}
                Some(Err(e)) => return Err(lost(e)),
                None => return Ok(None),
            },
            // The sender is gone when the model is there: the next turn takes it.
            _ = progress.changed() => {}
        }
    }
}

fn quits(event: &TerminalEvent) -> bool {
    let TerminalEvent::Key(key) = event else { return false };
    let control = key.modifiers.contains(KeyModifiers::CONTROL);
    key.kind != KeyEventKind::Release && matches!((key.code, control), (KeyCode::Char('q') | KeyCode::Esc, _) | (KeyCode::Char('c'), true))
}

fn draw(name: &str, progress: &Progress, look: Look, area: Rect, buf: &mut Buffer) {
    let [area] = Layout::vertical([Constraint::Length(4)]).flex(Flex::Center).areas(area);
    let [area] = Layout::horizontal([Constraint::Max(60)]).flex(Flex::Center).areas(area);
    put(buf, area, 0, 0, &format!("opening {name}"), look.accent());
    if progress.total > 0 {
        put(buf, area, 0, 1, &format!("{} of {} {}", progress.done, progress.total, progress.stage), Style::new());
        let share = (progress.done as f64 / progress.total as f64).clamp(0.0, 1.0);
        let bar = Rect { y: area.y + 2, height: 1, ..area }.intersection(buf.area);
        Gauge::default().ratio(share).gauge_style(look.accent()).render(bar, buf);
    }
    put(buf, area, 0, 3, "q quits; what has come is kept", look.dim());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tui::theme::{Depth, ThemeName};

    #[test]
    fn it_fits_every_size_and_says_how_much_has_come() {
        let look = Look { theme: ThemeName::Dark, ascii: false, depth: Depth::True };
        let progress = Progress { stage: "MB of model.safetensors received".into(), done: 11, total: 44 };
        for (width, height) in [(1, 1), (20, 3), (80, 24)] {
            let mut buf = Buffer::empty(Rect::new(0, 0, width, height));
            draw("owner/name", &progress, look, buf.area, &mut buf);
            let text: String = buf.content.iter().map(ratatui::buffer::Cell::symbol).collect();
            assert!(width < 80 || (text.contains("opening owner/name") && text.contains("11 of 44 MB") && text.contains("25%")), "{text}");
        }
    }
}
