//! The terminal's safety: enter, leave, and leave on a panic before anything is printed. Nothing here draws.

use std::io::{self, Stdout, Write};
use std::mem::ManuallyDrop;
use std::panic;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::thread;
use std::time::Duration;

use crossterm::clipboard::CopyToClipboard;
use crossterm::event::{DisableBracketedPaste, DisableMouseCapture, EnableBracketedPaste, EnableMouseCapture};
use crossterm::terminal::{Clear, ClearType, EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode};
use crossterm::{cursor, execute};
use ratatui::Terminal;
use ratatui::backend::CrosstermBackend;
use tokio::sync::Notify;

use crate::error::{Error, Result};

/// A terminal in raw mode on the alternate screen; dropping it gives back what was there.
pub struct Screen {
    /// What is drawn on. Never dropped: its own drop prints to standard error when the terminal is gone, and where that is gone too, panics.
    pub terminal: ManuallyDrop<Terminal<CrosstermBackend<Stdout>>>,
    mouse: bool,
}

fn failed(e: io::Error) -> Error {
    Error::content("terminal", format!("expected an interactive terminal ({e})"), "start igq in one, or use `igq run` or `igq snapshot`")
}

impl Screen {
    /// Takes the terminal, and makes sure that a panic gives it back.
    ///
    /// # Errors
    /// When standard output is no terminal.
    pub fn enter(mouse: bool) -> Result<Self> {
        install_panic_hook();
        // crossterm obeys NO_COLOR by dropping every colour by itself; here the theme decides on purpose.
        crossterm::style::force_color_output(true);
        take(mouse).map_err(|e| {
            give_back();
            failed(e)
        })?;
        let terminal = Terminal::new(CrosstermBackend::new(io::stdout())).map_err(|e| {
            give_back();
            failed(e)
        })?;
        Ok(Self { terminal: ManuallyDrop::new(terminal), mouse })
    }

    /// Stops as a job of the shell, and comes back with `fg`.
    ///
    /// # Errors
    /// When the terminal cannot be taken again.
    pub fn suspend(&mut self) -> Result<()> {
        give_back();
        #[cfg(unix)]
        signal_hook::low_level::emulate_default_handler(signal_hook::consts::SIGTSTP).map_err(failed)?;
        take(self.mouse).map_err(failed)?;
        self.anew()
    }

    /// Takes the terminal anew after a stop that did not ask (SIGSTOP): the shell has used it meanwhile, in its own modes.
    ///
    /// # Errors
    /// When the terminal cannot be taken again.
    pub fn resume(&mut self) -> Result<()> {
        // Left first: crossterm takes a terminal that it believes to have for taken.
        disable_raw_mode().and_then(|()| take(self.mouse)).map_err(failed)?;
        self.anew()
    }

    /// Forgets what was drawn. `Terminal::clear` asks the terminal where its cursor is, which not all of them answer.
    fn anew(&mut self) -> Result<()> {
        execute!(io::stdout(), Clear(ClearType::All)).map_err(failed)?;
        self.terminal = ManuallyDrop::new(Terminal::new(CrosstermBackend::new(io::stdout())).map_err(failed)?);
        Ok(())
    }

    /// Puts text on the clipboard of the terminal (OSC 52).
    ///
    /// # Errors
    /// When the terminal is gone.
    pub fn copy(&mut self, text: &str) -> Result<()> {
        execute!(io::stdout(), CopyToClipboard::to_clipboard_from(text)).map_err(failed)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        give_back();
    }
}

/// How long the program may take to leave once it was asked to.
const LEAVING: Duration = Duration::from_millis(600);

/// The signal that ended the program, 0 for none.
static ENDED_BY: AtomicU8 = AtomicU8::new(0);

/// The signal that the program was ended by, whose number is part of the exit code.
#[must_use]
pub fn ending_signal() -> Option<u8> {
    Some(ENDED_BY.load(Ordering::SeqCst)).filter(|signal| *signal != 0)
}

/// What the system asks of the program by signals.
#[derive(Debug, Default)]
pub struct Asked {
    /// To leave: every signal that ends a program and can be caught.
    pub leave: Notify,
    /// To stop as a job of the shell.
    pub stop: Notify,
    /// To go on after a stop.
    pub go_on: Notify,
}

/// Listens to what the system asks.
///
/// If the program has not left a moment after it was asked to, it is ended: crossterm reads a terminal that is gone for ever, and a run may
/// be deep in a product.
///
/// # Errors
/// When the system has no thread to give.
pub fn asked() -> Result<Arc<Asked>> {
    let asked = Arc::new(Asked::default());
    #[cfg(unix)]
    {
        use signal_hook::consts::{SIGALRM, SIGHUP, SIGINT, SIGPROF, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGVTALRM, SIGXCPU};
        use signal_hook::consts::{SIGCONT, SIGTSTP};
        let ending = [SIGTERM, SIGHUP, SIGINT, SIGQUIT, SIGUSR1, SIGUSR2, SIGALRM, SIGVTALRM, SIGPROF, SIGXCPU];
        let mut signals = signal_hook::iterator::Signals::new(ending.iter().chain(&[SIGTSTP, SIGCONT])).map_err(failed)?;
        let told = Arc::clone(&asked);
        let watch = move || {
            for signal in signals.forever() {
                match signal {
                    SIGTSTP => told.stop.notify_one(),
                    SIGCONT => told.go_on.notify_one(),
                    _ => {
                        ENDED_BY.store(u8::try_from(signal).unwrap_or(u8::MAX), Ordering::SeqCst);
                        told.leave.notify_one();
                        thread::sleep(LEAVING);
                        give_back();
                        std::process::exit(128 + signal);
                    }
                }
            }
        };
        thread::Builder::new().name("igq-signals".into()).spawn(watch).map_err(failed)?;
    }
    Ok(asked)
}

/// Ends the program a moment from now, with this code, whatever is still being read or computed: the terminal was given back before.
pub fn leave_soon(code: i32) {
    let end = move || {
        thread::sleep(LEAVING);
        let code = ending_signal().map_or(code, |signal| 128 + i32::from(signal));
        std::process::exit(code);
    };
    // Without a thread to give the program ends when its work does.
    drop(thread::Builder::new().name("igq-leave".into()).spawn(end));
}

/// Has Ctrl-C end the program as a signal in raw mode too: an escape sequence that is never finished would swallow it as a key.
fn signal_on_control_c() -> io::Result<()> {
    #[cfg(unix)]
    {
        use rustix::termios::{LocalModes, OptionalActions, SpecialCodeIndex, tcgetattr, tcsetattr};
        let stdin = io::stdin();
        let mut modes = tcgetattr(&stdin)?;
        modes.local_modes |= LocalModes::ISIG;
        modes.special_codes[SpecialCodeIndex::VINTR] = 3;
        // Ctrl-Z stays a key: the terminal is given back before the program stops. 0 is no key.
        for code in [SpecialCodeIndex::VSUSP, SpecialCodeIndex::VQUIT] {
            modes.special_codes[code] = 0;
        }
        tcsetattr(&stdin, OptionalActions::Now, &modes)?;
    }
    Ok(())
}

/// Whether the terminal is ours: giving it back twice would move the cursor over what a panic has printed since.
static TAKEN: AtomicBool = AtomicBool::new(false);

fn take(mouse: bool) -> io::Result<()> {
    TAKEN.store(true, Ordering::SeqCst);
    enable_raw_mode()?;
    // Where standard input is no terminal, keys come from elsewhere and Ctrl-C is one of them.
    let _ = signal_on_control_c();
    execute!(io::stdout(), EnterAlternateScreen, cursor::Hide, EnableBracketedPaste)?;
    if mouse {
        execute!(io::stdout(), EnableMouseCapture)?;
    }
    Ok(())
}

/// Gives the terminal back; failures are ignored because there is nothing left to do about them.
fn give_back() {
    if !TAKEN.swap(false, Ordering::SeqCst) {
        return;
    }
    let mut out = io::stdout();
    let _ = execute!(out, DisableMouseCapture, DisableBracketedPaste, LeaveAlternateScreen, cursor::Show);
    let _ = disable_raw_mode();
    let _ = out.flush();
}

/// On the main thread: give the terminal back, then print. On any other: only log, because the screen lives on.
fn install_panic_hook() {
    let main = thread::current().id();
    let inner = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        if thread::current().id() == main {
            give_back();
            inner(info);
        } else {
            tracing::error!("{info}");
        }
    }));
}
