//! From a key to the new prediction on the screen, in the real program in a pseudo-terminal: `cargo bench --bench keys -- [MODEL [PAUSE_MS]]`.
//! Prints the median and the 95th percentile, while nothing else runs and while Compare's study does. With a short pause the settings one
//! key away are not there yet: quantizers are fitted and weights quantized anew. Before that, from the start of the program with 32
//! calibration pictures to the filled screen, with an empty cache and with what that left in it.

#![allow(missing_docs, clippy::unwrap_used)]

use std::io::{Read, Write};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use portable_pty::{Child, CommandBuilder, MasterPty, PtySize, native_pty_system};

/// What the prediction panel says: its lines of classes and of the KL.
fn kl(screen: &str) -> Option<String> {
    let lines: Vec<&str> = screen.lines().collect();
    let at = lines.iter().position(|line| line.contains(" KL ") && line.contains("margin"))?;
    Some(lines[3..=at].join("\n"))
}

/// The program in a pseudo-terminal.
struct Screen {
    parser: Arc<Mutex<vt100::Parser>>,
    keys: Box<dyn Write + Send>,
    child: Box<dyn Child + Send + Sync>,
    /// Closing it would end the program.
    _terminal: Box<dyn MasterPty + Send>,
}

impl Screen {
    fn start(args: &[&str], cache: Option<&Path>) -> Self {
        let pair = native_pty_system().openpty(PtySize { rows: 40, cols: 120, pixel_width: 0, pixel_height: 0 }).unwrap();
        let mut command = CommandBuilder::new(env!("CARGO_BIN_EXE_igq"));
        command.args(args);
        command.env("TERM", "xterm-256color");
        if let Some(cache) = cache {
            command.env("XDG_CACHE_HOME", cache);
        }
        command.cwd(std::env::temp_dir());
        let child = pair.slave.spawn_command(command).unwrap();
        let parser = Arc::new(Mutex::new(vt100::Parser::new(40, 120, 0)));
        let (mut reader, shared) = (pair.master.try_clone_reader().unwrap(), Arc::clone(&parser));
        thread::spawn(move || {
            let mut bytes = [0; 8192];
            while let Ok(n) = reader.read(&mut bytes) {
                if n == 0 {
                    break;
                }
                shared.lock().unwrap().process(&bytes[..n]);
            }
        });
        Self { parser, keys: pair.master.take_writer().unwrap(), child, _terminal: pair.master }
    }

    fn shown(&self) -> String {
        self.parser.lock().unwrap().screen().contents()
    }

    fn wait(&self, seconds: u64, holds: impl Fn(&str) -> bool) -> Duration {
        let started = Instant::now();
        while !holds(&self.shown()) && started.elapsed() < Duration::from_secs(seconds) {
            thread::sleep(Duration::from_micros(500));
        }
        started.elapsed()
    }

    fn leave(&mut self) {
        self.keys.write_all(b"q").unwrap();
        self.child.wait().unwrap();
    }
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with("--")).collect();
    let model = args.first().map_or("fashion-vit", String::as_str);
    let pause = Duration::from_millis(args.get(1).and_then(|ms| ms.parse().ok()).unwrap_or(1500));
    let cache = tempfile::tempdir().unwrap();
    for name in ["empty", "warm"] {
        let started = Instant::now();
        let mut screen = Screen::start(&["--model", model], Some(cache.path()));
        screen.wait(60, |screen| kl(screen).is_some());
        println!("{model}: from the start to the filled screen {:.2} s, cache {name}", started.elapsed().as_secs_f64());
        // What a run leaves in the cache is there once its sweep is through.
        thread::sleep(Duration::from_secs(1));
        screen.leave();
    }
    let mut screen = Screen::start(&["--model", model, "--calibration-images", "8", "--no-cache"], None);
    screen.wait(60, |screen| kl(screen).is_some());
    for study in [false, true] {
        if study {
            screen.keys.write_all(b"6").unwrap();
            thread::sleep(Duration::from_millis(300));
            screen.keys.write_all(b"1").unwrap();
            screen.wait(5, |screen| kl(screen).is_some());
        }
        let mut times = Vec::new();
        for key in b"aA]wW[sSaaAAwwWW]][[".iter().copied() {
            thread::sleep(pause);
            let before = kl(&screen.shown());
            screen.keys.write_all(&[key]).unwrap();
            times.push(1000.0 * screen.wait(5, |screen| kl(screen).is_some() && kl(screen) != before).as_secs_f64());
        }
        times.sort_by(f64::total_cmp);
        let at = |share: f64| times[((times.len() - 1) as f64 * share).round() as usize];
        println!(
            "{model}, pause {} ms{}: key to new prediction {:.0} ms (median), {:.0} ms (95th percentile), {:.0} ms (longest)",
            pause.as_millis(),
            if study { ", Compare's study under way" } else { "" },
            at(0.5),
            at(0.95),
            at(1.0)
        );
    }
    screen.leave();
}
