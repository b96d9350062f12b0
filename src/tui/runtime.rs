//! The loop: messages in, state, effects out, and a frame when something changed. Keys come first, and never wait for the engine.

use std::path::PathBuf;
use std::time::Duration;

use crossterm::event::{Event as TerminalEvent, EventStream};
use etcetera::BaseStrategy;
use futures_util::StreamExt;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::app::{App, Notice};
use super::message::{Effect, Message};
use super::terminal::{self, Screen};
use super::theme::Look;
use super::theme::ThemeName;
use super::update::update_all;
use super::{frame, opening, view};
use crate::analysis::report::json;
use crate::atomic_write::write_whole;
use crate::engine::Worker;
use crate::engine::worker::Reports;
use crate::error::{Error, Result};
use crate::session::Options;

/// Shortest time between two frames.
const FRAME: Duration = Duration::from_millis(16);

/// How the screen looks and what it listens to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ScreenOptions {
    /// The theme; none for what the environment says.
    pub theme: Option<ThemeName>,
    /// ASCII characters only.
    pub ascii: bool,
    /// Whether mouse events are taken.
    pub mouse: bool,
}

/// Opens the screen on what the command line names.
///
/// # Errors
/// When the model cannot be opened, there is no terminal, or the session could not be prepared.
pub fn run(options: Options, picture: usize, screen: ScreenOptions) -> Result<()> {
    let _log = log_to_file();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|e| Error::content("igq", format!("no event loop could be started ({e})"), "close other programs"))?;
    let colours = Look::resolve(screen.theme, screen.ascii, false);
    let leave = terminal::asked_to_leave()?;
    let Some((opened, screen)) = runtime.block_on(opening::open(options, colours, screen.mouse, &leave))? else {
        runtime.shutdown_background();
        return Ok(());
    };
    let mut app = App::new(opened.info(), opened.settings.clone(), colours);
    app.picture = picture.min(app.info.picture_count.saturating_sub(1));
    let (worker, reports) = Worker::spawn(opened)?;
    let ended = runtime.block_on(interact(&mut app, screen, &worker, reports, &leave));
    runtime.shutdown_background();
    ended
}

async fn interact(app: &mut App, mut screen: Screen, worker: &Worker, mut reports: Reports, leave: &Notify) -> Result<()> {
    let mut keys = EventStream::new();
    let mut leave = std::pin::pin!(leave.notified());
    let size = screen.terminal.size().map_err(lost)?;
    app.size = (size.width, size.height);
    worker.request(app.request());
    let mut studied = Instant::now();
    let mut dirty = true;
    let mut drawn = Instant::now().checked_sub(FRAME).unwrap_or_else(Instant::now);
    loop {
        if dirty && drawn.elapsed() >= FRAME {
            screen.terminal.draw(|f| view::draw(app, f)).map_err(lost)?;
            (dirty, drawn) = (false, Instant::now());
        }
        let message = tokio::select! {
            biased;
            () = &mut leave => return Ok(()),
            event = keys.next() => match event {
                Some(Ok(event)) => to_message(event),
                Some(Err(e)) => return Err(lost(e)),
                None => return Ok(()),
            },
            event = reports.events.recv() => match event {
                Some(event) => Some(Message::Engine(event)),
                None => return app.broken.take().map_or(Ok(()), |text| Err(Error::content("igq", text, "start again"))),
            },
            changed = reports.progress.changed(), if !dirty => changed.ok().map(|()| Message::Progress(reports.progress.borrow_and_update().clone())),
            changed = reports.study.changed(), if !dirty => {
                changed.ok().map(|()| Message::Study(reports.study.borrow_and_update().clone(), studied.elapsed()))
            }
            () = tokio::time::sleep_until(drawn + FRAME), if dirty => None,
        };
        // Keys that already wait are handled before the next frame.
        let mut messages: Vec<Message> = message.into_iter().collect();
        // Polled inside the task on purpose: the stream remembers the first waker that it is given.
        loop {
            tokio::select! {
                biased;
                event = keys.next() => match event {
                    Some(Ok(event)) => messages.extend(to_message(event)),
                    Some(Err(e)) => return Err(lost(e)),
                    None => return Ok(()),
                },
                () = std::future::ready(()) => break,
            }
        }
        dirty |= !messages.is_empty();
        for effect in update_all(app, messages) {
            match effect {
                Effect::Quit => return Ok(()),
                Effect::Request(request) => worker.request(request),
                Effect::Study(study) => {
                    studied = Instant::now();
                    worker.study(study);
                }
                Effect::Detail(detail) => worker.detail(detail),
                Effect::Open(paths) => worker.open_pictures(paths),
                Effect::StopStudy => worker.stop_study(),
                Effect::Suspend => {
                    drop(keys); // The reader must not hold the terminal while the shell has it.
                    screen.suspend()?;
                    keys = EventStream::new();
                }
                Effect::Copy(text) => screen.copy(&text)?,
                Effect::Export => app.notice = Some(export(app)),
            }
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

pub(super) fn lost(e: std::io::Error) -> Error {
    Error::content("terminal", format!("was lost ({e})"), "start igq again")
}

/// Writes the frame and its report into the current folder.
fn export(app: &App) -> Notice {
    let failed = |e: Error| Notice { text: e.to_string(), is_error: true };
    let Some(snapshot) = &app.snapshot else {
        return Notice { text: "nothing to export yet".into(), is_error: true };
    };
    let plain: String = snapshot.report.picture.name.chars().map(|c| if c.is_alphanumeric() { c } else { '-' }).collect();
    let stem = format!("igq-{}-{plain}", app.view.title().to_lowercase());
    let (drawing, numbers) = (PathBuf::from(format!("{stem}.svg")), PathBuf::from(format!("{stem}.json")));
    let written = frame::render(app, app.size.0, app.size.1)
        .and_then(|buffer| write_whole(&drawing, frame::to_svg(&buffer).as_bytes()))
        .and_then(|()| write_whole(&numbers, json(&app.report_with_sweep(&snapshot.report))?.as_bytes()));
    match written {
        Ok(()) => Notice { text: format!("wrote {} and {}", drawing.display(), numbers.display()), is_error: false },
        Err(e) => failed(e),
    }
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
