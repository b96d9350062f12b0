//! What is on the screen while a model is opened, and the keys that it knows: how much of the model has come from the Hub.

use crossterm::event::{KeyCode, KeyEventKind, KeyModifiers};
use ratatui::buffer::Buffer;
use ratatui::layout::{Constraint, Flex, Layout, Rect};
use ratatui::style::Style;
use ratatui::widgets::{Gauge, Widget};

use super::message::{Effect, Message};
use super::theme::Look;
use super::widget::put;
use crate::progress::Progress;

/// The state of the screen as long as there is no session.
#[derive(Debug, Clone)]
pub struct Opening {
    /// What is opened.
    pub model: String,
    /// How the screen looks.
    pub look: Look,
    /// How much has come.
    pub progress: Progress,
}

impl Opening {
    /// What `message` does to it, and what it asks for.
    pub fn update(&mut self, message: Message) -> Vec<Effect> {
        match message {
            Message::Progress(progress) => self.progress = progress,
            Message::Key(key) if key.kind != KeyEventKind::Release => {
                let control = key.modifiers.contains(KeyModifiers::CONTROL);
                return match (key.code, control) {
                    (KeyCode::Char('q') | KeyCode::Esc, _) | (KeyCode::Char('c'), true) => vec![Effect::Quit],
                    (KeyCode::Char('z'), true) => vec![Effect::Suspend],
                    _ => Vec::new(),
                };
            }
            _ => {}
        }
        Vec::new()
    }

    /// Draws it, as large as `area` allows.
    pub fn draw(&self, area: Rect, buf: &mut Buffer) {
        let Self { model, look, progress } = self;
        let [area] = Layout::vertical([Constraint::Length(4)]).flex(Flex::Center).areas(area);
        let [area] = Layout::horizontal([Constraint::Max(60)]).flex(Flex::Center).areas(area);
        put(buf, area, 0, 0, &format!("opening {model}"), look.accent());
        if progress.total > 0 {
            put(buf, area, 0, 1, &format!("{} of {} {}", progress.done, progress.total, progress.stage), Style::new());
            let fraction = (progress.done as f64 / progress.total as f64).clamp(0.0, 1.0);
            let bar = Rect { y: area.y + 2, height: 1, ..area }.intersection(buf.area);
            Gauge::default().ratio(fraction).gauge_style(look.accent()).render(bar, buf);
        }
        put(buf, area, 0, 3, "q quits; finished files stay in the cache", look.dim());
    }
}

#[cfg(test)]
mod tests {
    use crossterm::event::KeyEvent;

    use super::*;
    use crate::tui::theme::{Depth, Theme};

    fn opening() -> Opening {
        let look = Look { theme: Theme::DARK, own: &[], ascii: false, depth: Depth::True };
        Opening { model: "owner/name".into(), look, progress: Progress::default() }
    }

    #[test]
    fn it_fits_every_size_and_says_how_much_has_come() {
        let mut state = opening();
        let progress = Progress { stage: "MB of model.safetensors received".into(), done: 11, total: 44 };
        assert!(state.update(Message::Progress(progress)).is_empty());
        for (width, height) in [(1, 1), (20, 3), (80, 24)] {
            let mut buf = Buffer::empty(Rect::new(0, 0, width, height));
            state.draw(buf.area, &mut buf);
            let text: String = buf.content.iter().map(ratatui::buffer::Cell::symbol).collect();
            assert!(width < 80 || (text.contains("opening owner/name") && text.contains("11 of 44 MB") && text.contains("25%")), "{text}");
        }
    }

    #[test]
    fn it_can_be_left_and_suspended_and_knows_no_other_key() {
        let press = |code, modifiers| opening().update(Message::Key(KeyEvent::new(code, modifiers)));
        let (none, control) = (KeyModifiers::NONE, KeyModifiers::CONTROL);
        for (code, modifiers) in [(KeyCode::Char('q'), none), (KeyCode::Esc, none), (KeyCode::Char('c'), control)] {
            assert_eq!(press(code, modifiers), [Effect::Quit]);
        }
        assert_eq!(press(KeyCode::Char('z'), control), [Effect::Suspend]);
        assert!(press(KeyCode::Char('c'), none).is_empty() && press(KeyCode::Enter, none).is_empty());
    }
}
