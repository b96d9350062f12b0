//! The loop: messages in, state, effects out, and a frame when something changed. Keys come first, and never wait for the engine.

use std::sync::Arc;
use std::time::Duration;

use crossterm::event::{Event as TerminalEvent, EventStream};
use etcetera::BaseStrategy;
use futures_util::StreamExt;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use tokio::time::Instant;

use super::app::App;
use super::chrome;
use super::export;
use super::graphics::{Graphics, Pictures};
use super::lessons::Chapter;
use super::message::{Effect, Message};
use super::opening::Opening;
use super::terminal::{self, Asked, Screen};
use super::theme::Look;
use super::theme::Theme;
use super::update::palette;
use super::update::{start_lessons, update_all};
use crate::engine::worker::Reports;
use crate::engine::{self, Worker};
use crate::error::{Error, Result};
use crate::quant::Settings;
use crate::session::{LoadedModel, Options};

/// Shortest time between two frames.
const FRAME: Duration = Duration::from_millis(16);
/// How long a model may take before the screen says that it is being opened.
const AT_ONCE: Duration = Duration::from_millis(200);

/// How the screen looks and what it listens to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ScreenOptions {
    /// The theme; none for what the environment says.
    pub theme: Option<Theme>,
    /// ASCII characters only.
    pub ascii: bool,
    /// Whether mouse events are taken.
    pub mouse: bool,
    /// Themes of the configuration file.
    pub own: &'static [Theme],
    /// How pictures are drawn.
    pub pictures: Pictures,
}

/// Where the screen begins.
#[derive(Debug, Clone, Default)]
pub struct Start {
    /// Index of the picture.
    pub picture: usize,
    /// Lessons to begin at.
    pub lessons: Option<Arc<Vec<Chapter>>>,
    /// Nothing but a lesson and its panel, for a projector.
    pub present: bool,
    /// Commands that bring the screen of a session back.
    pub screen: Vec<String>,
    /// Settings and picture of the run that a session pinned.
    pub pinned: Option<(Settings, usize)>,
}

impl Start {
    /// At a picture.
    #[must_use]
    pub fn at(picture: usize) -> Self {
        Self { picture, ..Self::default() }
    }
}

/// Opens the screen on what the command line names.
///
/// # Errors
/// When the model cannot be opened, there is no terminal, or the session could not be prepared.
pub fn run(options: Options, start: Start, screen: ScreenOptions) -> Result<()> {
    let _log = log_to_file();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|e| Error::content("igq", format!("no event loop could be started ({e})"), "close other programs"))?;
    let look = Look::resolve(screen.theme, screen.own, screen.ascii, false);
    let asked = terminal::asked()?;
    let ended = runtime.block_on(interact(options, &start, look, screen, &asked));
    runtime.shutdown_background();
    ended
}

/// What is on the screen: a session, or that it is being opened.
enum State {
    Opening(Opening),
    Ready(Box<App>),
}

impl State {
    fn update(&mut self, messages: Vec<Message>) -> Vec<Effect> {
        match self {
            Self::Opening(opening) => messages.into_iter().flat_map(|message| opening.update(message)).collect(),
            Self::Ready(app) => update_all(app, messages),
        }
    }

    /// Draws it, and keeps what a click can land on until the next frame.
    fn draw(&mut self, graphics: &mut Graphics, area: Rect, buf: &mut Buffer) {
        match self {
            Self::Opening(opening) => opening.draw(area, buf),
            Self::Ready(app) => {
                app.hits = chrome::render(app, area, buf);
                graphics.draw(app, buf);
            }
        }
    }
}

/// Where facts come from: the thread that opens the model, then the engine.
enum Source {
    Opening(engine::Opening),
    Ready(Box<Engine>),
}

/// The engine, and when its study began.
struct Engine {
    worker: Worker,
    reports: Reports,
    studied: Instant,
}

/// What a source tells.
enum Told {
    Message(Message),
    Opened(Box<Result<LoadedModel>>),
    Ended,
}

impl Source {
    /// The next fact; how far things are only where there is time to draw it.
    async fn next(&mut self, idle: bool) -> Told {
        match self {
            Self::Opening(opening) => tokio::select! {
                biased;
                opened = &mut opening.opened => {
                    let ended = |_| Error::content("igq", "the thread that opens the model has ended", "start again");
                    Told::Opened(Box::new(opened.map_err(ended).flatten()))
                }
                Ok(()) = opening.progress.changed(), if idle => Told::Message(Message::Progress(opening.progress.borrow_and_update().clone())),
            },
            Self::Ready(engine) => {
                let Engine { reports, studied, .. } = engine.as_mut();
                tokio::select! {
                    biased;
                    event = reports.events.recv() => event.map_or(Told::Ended, |event| Told::Message(Message::Engine(event))),
                    Ok(()) = reports.progress.changed(), if idle => Told::Message(Message::Progress(reports.progress.borrow_and_update().clone())),
                    Ok(()) = reports.study.changed(), if idle => {
                        Told::Message(Message::Study(reports.study.borrow_and_update().clone(), studied.elapsed()))
                    }
                }
            }
        }
    }
}

/// A session on an opened model, its engine, and the first request.
fn session(opened: LoadedModel, start: &Start, look: Look, size: (u16, u16)) -> Result<(State, Source)> {
    let mut app = App::new(opened.info(), opened.settings.clone(), look);
    app.picture = start.picture.min(app.info.picture_count.saturating_sub(1));
    app.size = size;
    if let Some(lessons) = &start.lessons {
        (app.lessons, app.present) = (Arc::clone(lessons), start.present);
        start_lessons(&mut app);
    }
    for line in &start.screen {
        palette::run(&mut app, line).map_err(|problem| Error::setting("session", line, problem))?;
    }
    if let Some((settings, picture)) = start.pinned.clone() {
        app.resume = Some((app.settings.clone(), app.picture, app.compare.take()));
        (app.settings, app.picture) = (settings, picture);
    }
    let (worker, reports) = Worker::spawn(opened)?;
    worker.request(app.request());
    Ok((State::Ready(Box::new(app)), Source::Ready(Box::new(Engine { worker, reports, studied: Instant::now() }))))
}

async fn interact(options: Options, start: &Start, look: Look, options_of: ScreenOptions, asked: &Asked) -> Result<()> {
    let mut state = State::Opening(Opening { model: options.model.clone(), look, progress: crate::progress::Progress::default() });
    let mut source = Source::Opening(engine::Opening::spawn(options)?);
    // A model that opens at once, or cannot be opened, needs no screen that says so.
    let mut early = tokio::time::timeout(AT_ONCE, source.next(false)).await.ok();
    if let Some(Told::Opened(opened)) = &mut early
        && opened.is_err()
    {
        return std::mem::replace(opened.as_mut(), Err(Error::Cancelled)).map(drop);
    }
    let mut screen = Screen::enter(options_of.mouse)?;
    let mut graphics = Graphics::new(options_of.pictures);
    let mut keys = EventStream::new();
    let mut leave = std::pin::pin!(asked.leave.notified());
    let mut dirty = true;
    let mut drawn = Instant::now().checked_sub(FRAME).unwrap_or_else(Instant::now);
    loop {
        if dirty && early.is_none() && drawn.elapsed() >= FRAME {
            screen.terminal.draw(|frame| state.draw(&mut graphics, frame.area(), frame.buffer_mut())).map_err(lost)?;
            (dirty, drawn) = (false, Instant::now());
        }
        let mut messages = Vec::new();
        let told = if let Some(told) = early.take() {
            Some(told)
        } else {
            tokio::select! {
                biased;
                () = &mut leave => return Ok(()),
                () = asked.stop.notified() => {
                    keys = stopped(keys, &mut screen)?;
                    dirty = true;
                    None
                }
                () = asked.go_on.notified() => {
                    screen.resume()?;
                    dirty = true;
                    None
                }
                event = keys.next() => if let Some(event) = event {
                    messages.extend(to_message(event.map_err(lost)?));
                    None
                } else {
                    terminal::leave_soon(0);
                    return Ok(());
                },
                told = source.next(!dirty) => Some(told),
                () = tokio::time::sleep_until(drawn + FRAME), if dirty => None,
            }
        };
        match told {
            Some(Told::Message(message)) => messages.push(message),
            Some(Told::Opened(opened)) => {
                let size = screen.terminal.size().map_err(lost)?;
                (state, source) = session((*opened)?, start, look, (size.width, size.height))?;
                dirty = true;
            }
            Some(Told::Ended) => {
                let State::Ready(app) = &mut state else { return Ok(()) };
                return app.broken.take().map_or(Ok(()), |text| Err(Error::content("igq", text, "start again")));
            }
            None => {}
        }
        // Keys that already wait are handled before the next frame.
        // Polled inside the task on purpose: the stream remembers the first waker that it is given.
        loop {
            tokio::select! {
                biased;
                event = keys.next() => match event {
                    Some(event) => messages.extend(to_message(event.map_err(lost)?)),
                    None => return Ok(()),
                },
                () = std::future::ready(()) => break,
            }
        }
        dirty |= !messages.is_empty();
        for effect in state.update(messages) {
            match (effect, &mut source, &mut state) {
                (Effect::Quit, ..) => {
                    // The screen is dropped before the engine, which may be reading or computing for long.
                    terminal::leave_soon(0);
                    return Ok(());
                }
                (Effect::Suspend, ..) => keys = stopped(keys, &mut screen)?,
                (Effect::Copy(text), ..) => screen.copy(&text)?,
                (Effect::Export, _, State::Ready(app)) => app.notice = Some(export::export(app)),
                (Effect::Save { file, over }, _, State::Ready(app)) => app.notice = Some(export::save(app, &file, over)),
                (effect, Source::Ready(engine), _) => engine.carry_out(effect),
                // Before there is a session nothing is asked of an engine.
                _ => {}
            }
        }
    }
}

/// Stops as a job of the shell; the keys that come after it.
fn stopped(keys: EventStream, screen: &mut Screen) -> Result<EventStream> {
    drop(keys); // The reader must not hold the terminal while the shell has it.
    screen.suspend()?;
    Ok(EventStream::new())
}

impl Engine {
    /// Asks the engine for what an effect asks of it.
    fn carry_out(&mut self, effect: Effect) {
        match effect {
            Effect::Request(request) => self.worker.request(request),
            Effect::Study(study) => {
                self.studied = Instant::now();
                self.worker.study(study);
            }
            Effect::Detail(detail) => self.worker.detail(detail),
            Effect::Open(paths) => self.worker.open_pictures(paths),
            Effect::StopStudy => self.worker.stop_study(),
            Effect::Quit | Effect::Suspend | Effect::Export | Effect::Save { .. } | Effect::Copy(_) => {}
        }
    }
}

fn to_message(event: TerminalEvent) -> Option<Message> {
    match event {
        TerminalEvent::Key(key) => Some(Message::Key(key)),
        TerminalEvent::Mouse(mouse) => Some(Message::Mouse(mouse)),
        TerminalEvent::Paste(text) => Some(Message::Paste(text)),
        TerminalEvent::Resize(width, height) => Some(Message::Resize(width, height)),
        _ => None,
    }
}

fn lost(e: std::io::Error) -> Error {
    Error::content("terminal", format!("was lost ({e})"), "start igq again")
}

/// Logs go to a file, never to the screen. Where there is no such folder, there is no log.
fn log_to_file() -> Option<tracing_appender::non_blocking::WorkerGuard> {
    let folder = etcetera::choose_base_strategy().ok()?;
    let folder = folder.state_dir().unwrap_or_else(|| folder.cache_dir()).join("igq");
    std::fs::create_dir_all(&folder).ok()?;
    let appender =
        tracing_appender::rolling::Builder::new().filename_prefix("igq").filename_suffix("log").max_log_files(3).build(folder).ok()?;
    let (writer, guard) = tracing_appender::non_blocking(appender);
    tracing_subscriber::fmt().with_writer(writer).with_ansi(false).try_init().ok()?;
    Some(guard)
}
