//! The target of what a terminal sends: keys, mouse, pastes and sizes go into the screen's state, frames are drawn without a terminal, and the
//! session of a tiny model answers what is asked for.

use std::sync::Arc;

use crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers, MouseButton, MouseEvent, MouseEventKind};
use igq::engine::{Event, Request, Study};
use igq::progress::{Cancel, Progress};
use igq::quant::Settings;
use igq::session::{Outcome, Stage};
use igq::studies::{allocate, compare, curve, mixed, repair, trials};
use igq::tui::app::App;
use igq::tui::frame;
use igq::tui::message::{Effect, Message};
use igq::tui::theme::{Depth, Look, Theme};
use igq::tui::update::update;

use super::cases::session;

/// Most events of one input.
const EVENTS: usize = 160;
/// Most frames, and most answers, of one input.
const FRAMES: usize = 24;
const ANSWERS: usize = 6;

const CODES: [KeyCode; 18] = [
    KeyCode::Up,
    KeyCode::Down,
    KeyCode::Left,
    KeyCode::Right,
    KeyCode::Home,
    KeyCode::End,
    KeyCode::PageUp,
    KeyCode::PageDown,
    KeyCode::Enter,
    KeyCode::Esc,
    KeyCode::Backspace,
    KeyCode::Delete,
    KeyCode::Insert,
    KeyCode::Tab,
    KeyCode::BackTab,
    KeyCode::F(5),
    KeyCode::Null,
    KeyCode::Menu,
];

/// Reads an input from its start; behind its end everything is zero.
struct Input<'a>(&'a [u8]);

impl Input<'_> {
    fn byte(&mut self) -> u8 {
        let (first, rest) = self.0.split_first().unwrap_or((&0, &[]));
        self.0 = rest;
        *first
    }

    fn pair(&mut self) -> u16 {
        u16::from_le_bytes([self.byte(), self.byte()])
    }

    fn text(&mut self) -> String {
        let length = usize::from(self.byte()).min(self.0.len());
        let (text, rest) = self.0.split_at(length);
        self.0 = rest;
        String::from_utf8_lossy(text).into_owned()
    }
}

/// The screen, and what the engine still has for it.
struct Screen {
    app: App,
    request: Option<Request>,
    study: Option<Study>,
    outcome: Option<(u64, Arc<Outcome>)>,
}

impl Screen {
    fn new(choice: u8) -> Self {
        let theme = Theme::ALL[usize::from(choice) % Theme::ALL.len()];
        let depth = if choice & 64 == 0 { Depth::True } else { Depth::Sixteen };
        let look = Look { theme, own: &[], ascii: choice & 128 != 0, depth };
        let mut app = App::new(session().opened().info(), Settings::default(), look);
        let request = Some(app.request());
        Self { app, request, study: None, outcome: None }
    }

    fn tell(&mut self, message: Message) {
        for effect in update(&mut self.app, message) {
            match effect {
                Effect::Request(request) => self.request = Some(request),
                Effect::Study(study) => self.study = Some(study),
                Effect::StopStudy => self.study = None,
                Effect::Detail(wanted) => {
                    let known = self.outcome.as_ref().filter(|(id, _)| *id == wanted.id);
                    if let Some(detail) = known.and_then(|(id, outcome)| session().detail(outcome, *id, wanted.site)) {
                        self.tell(Message::Engine(Event::Detail(Arc::new(detail))));
                    }
                }
                Effect::Open(_) | Effect::Quit | Effect::Suspend | Effect::Export | Effect::Save { .. } | Effect::Copy(_) => {}
            }
        }
        let App { info, picture, site, settings, .. } = &self.app;
        assert!(*picture < info.picture_count.max(1), "picture {picture} of {}", info.picture_count);
        assert!(info.sites.contains(site), "{site} is no site");
        assert!(!settings.describe().is_empty());
    }

    /// Answers the newest request as far as the byte says: prediction, measures, sweep.
    fn answer(&mut self, stages: u8) {
        let Some(request) = self.request.take() else { return };
        let mut events = Vec::new();
        let cancel = Cancel::default();
        let ended = session().answer(&request, &cancel, &mut |stage| match stage {
            Stage::Predicted(predicted) => events.push(Event::Predicted(predicted)),
            Stage::Measured(snapshot, outcome) => {
                self.outcome = Some((request.id, outcome));
                events.push(Event::Snapshot(snapshot));
                if stages & 2 == 0 {
                    cancel.cancel();
                }
            }
            Stage::Lens(points) => events.push(Event::Lens(request.id, points)),
            Stage::Timed(report) => events.push(Event::Timed(request.id, report)),
            Stage::Swept(found, _, _) => events.push(Event::Sensitivity(request.id, found)),
            Stage::Blamed(blame) => events.push(Event::Blamed(request.id, blame)),
        });
        if let Err(e) = ended
            && !matches!(e, igq::Error::Cancelled)
        {
            events.push(Event::Failed(request.id, e.to_string()));
        }
        events.truncate(if stages & 1 == 0 { events.len() } else { 1 });
        for event in events {
            self.tell(Message::Engine(event));
        }
    }

    /// Carries out the newest study.
    fn study(&mut self) {
        let Some(study) = self.study.take() else { return };
        let done = match study {
            Study::Perturb { settings, .. } => allocate::estimated(session(), &settings).map(|found| Event::Perturbed(Arc::new(found))),
            Study::Compare { settings, picture, .. } => {
                compare::first(session(), &settings, picture).map(|found| Event::Compared(Arc::new(found)))
            }
            Study::Suggest { settings, picture } => {
                let found = repair::repair(session(), &settings, picture, repair::TARGET, &Cancel::default(), &|_| ());
                found.map(|found| Event::Suggested(Arc::new(found)))
            }
            Study::Curve { settings, picture, site } => {
                curve::curve(session(), &settings, picture, site, &Cancel::default()).map(|found| Event::Curve(Arc::new(found)))
            }
            Study::Trial { settings, picture } => {
                trials::kl(session(), &settings, picture, &Cancel::default()).map(|kl| Event::Tried(Box::new(settings), picture, kl))
            }
            Study::Mixed { settings } => mixed::mixed(session(), &settings, &[settings.abits], None, &Cancel::default(), &|_| ())
                .map(|found| Event::Mixed(Arc::new(found))),
        };
        self.tell(Message::Engine(done.unwrap_or_else(|e| Event::StudyFailed(e.to_string()))));
    }

    /// Draws a frame and keeps what it can be clicked on.
    fn draw(&mut self, width: u16, height: u16) {
        let (buf, hits) = frame::draw(&self.app, width, height);
        assert_eq!((buf.area.width, buf.area.height), (width, height));
        for (area, hit) in hits.iter() {
            assert!(area.right() <= width && area.bottom() <= height, "{hit:?} is drawn outside of {width}x{height}");
        }
        let text = frame::to_text(&buf);
        assert!(!text.chars().any(|c| c.is_control() && c != '\n'), "a control character is drawn:\n{text:?}");
        self.app.hits = hits;
    }
}

fn engine_says(input: &mut Input, screen: &mut Screen) -> Message {
    let id = screen.app.wanted.wrapping_sub(u64::from(input.byte() & 1));
    let progress = |input: &mut Input| Progress { stage: input.text(), done: usize::from(input.pair()), total: usize::from(input.pair()) };
    let event = match input.byte() % 7 {
        0 => Event::Failed(id, input.text()),
        1 => Event::StudyFailed(input.text()),
        2 => Event::PicturesFailed(input.text()),
        3 => {
            let before = screen.app.info.picture_count;
            // Opening pictures fails where there are none.
            Event::Pictures(before, before + usize::from(input.byte()).max(1))
        }
        4 => Event::Broken(input.text()),
        5 => return Message::Progress(progress(input)),
        _ => return Message::Study(progress(input), std::time::Duration::from_millis(u64::from(input.pair()))),
    };
    Message::Engine(event)
}

fn mouse(input: &mut Input) -> MouseEvent {
    const KINDS: [MouseEventKind; 7] = [
        MouseEventKind::Down(MouseButton::Left),
        MouseEventKind::Down(MouseButton::Right),
        MouseEventKind::Up(MouseButton::Left),
        MouseEventKind::Drag(MouseButton::Left),
        MouseEventKind::Moved,
        MouseEventKind::ScrollDown,
        MouseEventKind::ScrollUp,
    ];
    let kind = KINDS[usize::from(input.byte()) % KINDS.len()];
    // Mostly on the screen, sometimes far outside.
    let far = u16::from(kind == MouseEventKind::Moved) * 60_000;
    MouseEvent { kind, column: u16::from(input.byte()) + far, row: u16::from(input.byte()) + far, modifiers: KeyModifiers::NONE }
}

/// The next thing that happens; none where it was not a message.
fn message(input: &mut Input, screen: &mut Screen, left: &mut (usize, usize)) -> Option<Message> {
    let key = |code, modifiers| Some(Message::Key(KeyEvent::new(code, modifiers)));
    match input.byte() % 24 {
        0..=9 => key(KeyCode::Char(char::from(32 + input.byte() % 95)), KeyModifiers::NONE),
        10 => key(KeyCode::Char(char::from(b'a' + input.byte() % 26)), KeyModifiers::CONTROL),
        11 | 12 => key(CODES[usize::from(input.byte()) % CODES.len()], KeyModifiers::NONE),
        13 => key(
            KeyCode::Char(char::from_u32(u32::from(input.pair()) << 1).unwrap_or('\u{301}')),
            KeyModifiers::from_bits_truncate(input.byte()),
        ),
        14 => {
            let kind = KeyEventKind::Release;
            Some(Message::Key(KeyEvent::new_with_kind(KeyCode::Char(char::from(input.byte())), KeyModifiers::NONE, kind)))
        }
        15 | 16 => Some(Message::Mouse(mouse(input))),
        17 => Some(Message::Paste(input.text())),
        18 => Some(Message::Resize(input.pair(), input.pair())),
        19 => Some(engine_says(input, screen)),
        20 | 21 => {
            let size = (u16::from(input.byte()), u16::from(input.byte() % 80));
            if left.0 > 0 {
                left.0 -= 1;
                screen.draw(size.0, size.1);
            }
            None
        }
        22 => {
            let stages = input.byte();
            if left.1 > 0 {
                left.1 -= 1;
                screen.answer(stages);
            }
            None
        }
        _ => {
            // A study takes as long as all of the rest.
            if left.1 >= ANSWERS / 2 {
                left.1 -= ANSWERS / 2;
                screen.study();
            }
            None
        }
    }
}

/// A byte for the look, then events.
pub fn key_stream(data: &[u8]) {
    let Some((choice, events)) = data.split_first() else { return };
    let mut input = Input(events);
    let mut screen = Screen::new(*choice);
    let mut left = (FRAMES, ANSWERS);
    for _ in 0..EVENTS {
        if input.0.is_empty() {
            break;
        }
        if let Some(message) = message(&mut input, &mut screen, &mut left) {
            screen.tell(message);
        }
    }
    for (width, height) in [(80, 24), (1, 1), (0, 0), (131, 43)] {
        screen.draw(width, height);
    }
    // Whatever came before, Ctrl-C leaves.
    let leave = Message::Key(KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL));
    assert!(update(&mut screen.app, leave).contains(&Effect::Quit));
}
