//! The program in a pseudo-terminal.

use std::io::{Read, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use portable_pty::{Child, CommandBuilder, MasterPty, PtySize, native_pty_system};

/// A running igq and what its terminal shows.
pub struct Terminal {
    pub parser: Arc<Mutex<vt100::Parser>>,
    pub master: Box<dyn MasterPty + Send>,
    pub keys: Box<dyn Write + Send>,
    pub child: Box<dyn Child + Send + Sync>,
    /// The modes of the terminal before the program started.
    before: String,
    closing: Arc<AtomicBool>,
    reader: JoinHandle<()>,
}

/// How long anything may take.
pub const PATIENCE: Duration = Duration::from_mins(1);

/// A size for the terminal.
pub fn size(cols: u16, rows: u16) -> PtySize {
    PtySize { rows, cols, pixel_width: 0, pixel_height: 0 }
}

impl Terminal {
    /// igq as this test was built with; `IGQ_PROGRAM` is another build, by hand.
    pub fn program() -> std::ffi::OsString {
        std::env::var_os("IGQ_PROGRAM").unwrap_or_else(|| env!("CARGO_BIN_EXE_igq").into())
    }

    /// Starts igq.
    pub fn start(cols: u16, rows: u16, args: &[&str]) -> Self {
        Self::start_program(&Self::program(), cols, rows, args, &[])
    }

    /// Starts igq in another folder.
    pub fn start_in(folder: &std::path::Path, cols: u16, rows: u16, args: &[&str]) -> Self {
        Self::start_program(&Self::program(), cols, rows, args, &[("IGQ_TEST_FOLDER", folder.to_str().unwrap())])
    }

    /// Starts another program, or igq with variables.
    pub fn start_program(program: &std::ffi::OsStr, cols: u16, rows: u16, args: &[&str], variables: &[(&str, &str)]) -> Self {
        let pair = native_pty_system().openpty(size(cols, rows)).unwrap();
        let mut command = CommandBuilder::new(program);
        command.args(args);
        command.env("TERM", "xterm-256color");
        command.env("RUST_BACKTRACE", "0");
        command.env("XDG_CACHE_HOME", env!("CARGO_TARGET_TMPDIR"));
        for (name, value) in variables {
            command.env(name, value);
            if *name == "IGQ_TEST_FOLDER" {
                command.cwd(value);
            }
        }
        command.env("XDG_STATE_HOME", std::env::temp_dir().join("igq-test-state"));
        let before = format!("{:?}", pair.master.get_termios().unwrap());
        let child = pair.slave.spawn_command(command).unwrap();
        drop(pair.slave);
        let parser = Arc::new(Mutex::new(vt100::Parser::new(rows, cols, 0)));
        let (mut reader, shared) = (pair.master.try_clone_reader().unwrap(), Arc::clone(&parser));
        let closing = Arc::new(AtomicBool::new(false));
        let closed = Arc::clone(&closing);
        let reader = thread::spawn(move || {
            let mut bytes = [0; 8192];
            while let Ok(n) = reader.read(&mut bytes) {
                if n == 0 || closed.load(Ordering::SeqCst) {
                    break;
                }
                shared.lock().unwrap().process(&bytes[..n]);
            }
        });
        let keys = pair.master.take_writer().unwrap();
        Self { parser, master: pair.master, keys, child, before, closing, reader }
    }

    /// Closes the window: whatever is open of this end of the terminal.
    pub fn close(mut self) -> Box<dyn Child + Send + Sync> {
        self.closing.store(true, Ordering::SeqCst);
        // The reader holds a copy of the terminal until something comes.
        self.press(b"?");
        self.reader.join().unwrap();
        self.child
    }

    /// Sends the program a signal by its name.
    pub fn signal(&self, name: &str) {
        let id = self.child.process_id().unwrap().to_string();
        assert!(std::process::Command::new("kill").args([&format!("-{name}"), &id]).status().unwrap().success());
    }

    /// Whether the modes of the terminal are those before the start.
    pub fn has_modes_of_before(&self) -> bool {
        self.before == format!("{:?}", self.master.get_termios().unwrap())
    }

    /// Waits until the system says that the program is stopped.
    pub fn wait_for_stop(&self) {
        let (id, started) = (self.child.process_id().unwrap().to_string(), Instant::now());
        loop {
            let state = std::process::Command::new("ps").args(["-o", "stat=", "-p", &id]).output().unwrap().stdout;
            if state.starts_with(b"T") {
                break;
            }
            assert!(started.elapsed() < PATIENCE, "it did not stop: {}", state.escape_ascii());
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// What is on the screen.
    pub fn shown(&self) -> String {
        self.parser.lock().unwrap().screen().contents()
    }

    /// Waits until the screen is as it should be.
    pub fn wait_for(&self, what: &str, holds: impl Fn(&str) -> bool) {
        let started = Instant::now();
        while !holds(&self.shown()) {
            assert!(started.elapsed() < PATIENCE, "no {what} on:\n{}", self.shown());
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Types.
    pub fn press(&mut self, keys: &[u8]) {
        self.keys.write_all(keys).unwrap();
        self.keys.flush().unwrap();
    }

    /// Holds it to have left, and to have given back what it took.
    pub fn left_cleanly(&mut self) {
        let status = self.child.wait().unwrap();
        assert!(status.success(), "{status:?}");
        self.given_back();
    }

    /// Holds the terminal to be as it was.
    pub fn given_back(&self) {
        let started = Instant::now();
        while self.parser.lock().unwrap().screen().alternate_screen() {
            assert!(started.elapsed() < PATIENCE, "still on the alternate screen");
            thread::sleep(Duration::from_millis(20));
        }
        let parser = self.parser.lock().unwrap();
        assert!(!parser.screen().hide_cursor(), "the cursor is still hidden");
        assert_eq!(parser.screen().mouse_protocol_mode(), vt100::MouseProtocolMode::None);
        assert!(!parser.screen().bracketed_paste(), "pastes are still in brackets");
        assert!(self.has_modes_of_before(), "{:?} instead of {}", self.master.get_termios(), self.before);
    }
}
