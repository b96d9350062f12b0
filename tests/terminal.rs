//! The real binary in a pseudo-terminal: it starts, draws, reacts to keys and to a new size, quits, and leaves the terminal as it was.

#![cfg(unix)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::thread;
use std::time::{Duration, Instant};

use common::terminal::{PATIENCE, Terminal, size};

#[test]
fn it_opens_filled_reacts_and_leaves() {
    let mut terminal = Terminal::start(80, 24, &[]);
    terminal.wait_for("filled overview", |s| s.contains("Ankle boot") && s.contains("A4") && s.contains("blocks.0."));
    terminal.press(b"a");
    terminal.wait_for("three bits", |s| s.contains("A3") && !s.contains("stale"));
    terminal.press(b"2c");
    terminal.wait_for("comparison", |s| s.contains("channels in another group"));
    terminal.press(b"3");
    terminal.wait_for("attention", |s| s.contains("row quantizers"));
    terminal.press(b"?");
    terminal.wait_for("help", |s| s.contains("any other key closes"));
    terminal.press(b"\x1b");
    terminal.wait_for("no help", |s| !s.contains("any other key closes"));
    terminal.press(b"q");
    terminal.left_cleanly();
}

#[test]
fn it_follows_the_size_down_to_one_cell_and_back() {
    let mut terminal = Terminal::start(120, 40, &[]);
    terminal.wait_for("filled overview", |s| s.contains("Ankle boot"));
    for (cols, rows) in [(200, 60), (60, 20), (1, 1), (3, 2), (80, 24)] {
        terminal.master.resize(size(cols, rows)).unwrap();
        // vt100 0.16 panics where a line wraps on a screen of one row or column.
        terminal.parser.lock().unwrap().screen_mut().set_size(rows.max(20), cols.max(60));
        terminal.press(b"a");
        thread::sleep(Duration::from_millis(60));
    }
    terminal.wait_for("the frame again", |s| s.contains("? help  q quit"));
    // Ctrl-C ends it as a signal.
    terminal.press(b"\x03");
    assert_eq!(terminal.child.wait().unwrap().exit_code(), 130);
    terminal.given_back();
}

#[test]
fn without_a_terminal_it_says_so() {
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_igq")).stdin(std::process::Stdio::null()).output().unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && error.contains("terminal") && !error.contains("panicked"), "{error}");
}

/// Set in the program that the test below starts: the test itself, which then panics.
const PANICS: &str = "IGQ_TEST_PANICS";

fn panic_with_the_terminal_taken() {
    println!("before the screen");
    color_eyre::install().unwrap();
    let ended = std::panic::catch_unwind(|| {
        let mut screen = igq::tui::terminal::Screen::enter(true).unwrap();
        screen.terminal.draw(|frame| frame.render_widget("on the screen", frame.area())).unwrap();
        thread::sleep(Duration::from_millis(200));
        panic!("the first line\nand the second of the message");
    });
    println!("prompt$ after the screen: {}", ended.is_err());
}

#[test]
fn a_panic_gives_the_terminal_back_before_it_prints() {
    if std::env::var_os(PANICS).is_some() {
        return panic_with_the_terminal_taken();
    }
    let this = std::env::current_exe().unwrap();
    let args = ["--nocapture", "--exact", "a_panic_gives_the_terminal_back_before_it_prints"];
    let mut terminal = Terminal::start_program(this.as_os_str(), 80, 40, &args, &[(PANICS, "1")]);
    terminal.wait_for("the prompt", |s| s.contains("prompt$ after the screen: true") && s.contains("test result"));
    terminal.left_cleanly();
    let shown = terminal.shown();
    let at = |text: &str| shown.find(text).unwrap_or_else(|| panic!("no {text:?} on:\n{shown}"));
    let order = [at("before the screen"), at("The application panicked"), at("the first line"), at("and the second"), at("prompt$")];
    assert!(order.is_sorted() && !shown.contains("on the screen"), "{shown}");
    // Nothing starts further right than its line: raw mode ended before the message.
    assert!(shown.lines().any(|line| line.starts_with("The application panicked")), "{shown}");
    assert_eq!(shown.matches("the first line").count(), 1, "{shown}");
}

/// How often endings are tried; `IGQ_REPEAT=20` by hand, alone on the machine, where each then has one second.
fn repeats() -> (u32, Duration) {
    let by_hand = std::env::var("IGQ_REPEAT").ok().map(|n| n.parse().unwrap());
    by_hand.map_or((1, Duration::from_secs(5)), |n| (n, Duration::from_secs(1)))
}

/// Ends a started program again and again; every time it leaves soon, with the code of the signal, and gives the terminal back.
fn ends_by(signal: &str, number: u32, start: &dyn Fn() -> Terminal) {
    let (times, limit) = repeats();
    let mut longest = Duration::ZERO;
    for _ in 0..times {
        let mut terminal = start();
        let started = Instant::now();
        terminal.signal(signal);
        let status = terminal.child.wait().unwrap();
        longest = longest.max(started.elapsed());
        assert_eq!(status.exit_code(), 128 + number, "{signal}");
        terminal.given_back();
    }
    eprintln!("{signal}: {times} times, the longest took {longest:?}");
    assert!(longest < limit, "{signal}: it took {longest:?}");
}

fn filled() -> Terminal {
    let terminal = Terminal::start(80, 24, &[]);
    terminal.wait_for("filled overview", |s| s.contains("Ankle boot"));
    terminal
}

#[test]
fn every_ending_signal_gives_the_terminal_back() {
    for (signal, number) in [("INT", 2), ("QUIT", 3), ("TERM", 15), ("HUP", 1), ("USR1", 10), ("ALRM", 14)] {
        ends_by(signal, number, &filled);
    }
}

#[test]
fn a_study_under_way_does_not_hold_it() {
    let comparing = || {
        let mut terminal = filled();
        terminal.press(b"6");
        terminal.wait_for("a comparison under way", |s| s.contains("comparing"));
        terminal
    };
    ends_by("TERM", 15, &comparing);
    ends_by("INT", 2, &comparing);
}

#[test]
fn a_model_that_never_comes_does_not_hold_it() {
    // A Hub that takes every connection and says nothing.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", silent.local_addr().unwrap());
    let home = tempfile::tempdir().unwrap();
    thread::spawn(move || silent.incoming().collect::<Vec<_>>());
    let opening = || {
        let variables = [("HF_ENDPOINT", address.as_str()), ("HF_HOME", home.path().to_str().unwrap())];
        let terminal = Terminal::start_program(&Terminal::program(), 80, 24, &["--model", "owner/name"], &variables);
        terminal.wait_for("the screen of an opening", |s| s.contains("opening owner/name"));
        terminal
    };
    ends_by("TERM", 15, &opening);
    ends_by("HUP", 1, &opening);
    let mut terminal = opening();
    let started = Instant::now();
    terminal.press(b"q");
    terminal.left_cleanly();
    assert!(started.elapsed() < repeats().1);
}

/// `IGQ_HUGE=FOLDER` is a model that takes long to open, by hand.
#[test]
fn a_huge_model_being_opened_does_not_hold_it() {
    let Ok(model) = std::env::var("IGQ_HUGE") else { return };
    let opening = || {
        let terminal = Terminal::start(80, 24, &["--model", &model]);
        terminal.wait_for("the screen of an opening", |s| s.contains("opening "));
        terminal
    };
    for (signal, number) in [("INT", 2), ("TERM", 15), ("HUP", 1)] {
        ends_by(signal, number, &opening);
    }
}

#[test]
fn it_ends_when_its_terminal_goes_away() {
    let (times, limit) = repeats();
    for _ in 0..times {
        let mut child = filled().close();
        let started = Instant::now();
        let status = loop {
            if let Some(status) = child.try_wait().unwrap() {
                break status;
            }
            assert!(started.elapsed() < limit, "still running after its terminal was closed");
            thread::sleep(Duration::from_millis(20));
        };
        assert_eq!(status.exit_code(), 129);
    }
}

#[test]
fn a_stop_gives_the_terminal_to_the_shell_and_takes_it_again() {
    let (times, _) = repeats();
    let mut terminal = filled();
    let taken = format!("{:?}", terminal.master.get_termios().unwrap());
    for _ in 0..times {
        for stop in ["TSTP", "STOP", "Ctrl-Z"] {
            match stop {
                "Ctrl-Z" => terminal.press(b"\x1a"),
                signal => terminal.signal(signal),
            }
            terminal.wait_for_stop();
            if stop == "STOP" {
                // Nobody asks before this one; a shell takes its terminal back as it wants it.
                let tty = std::fs::File::open(terminal.master.tty_name().unwrap()).unwrap();
                assert!(std::process::Command::new("stty").arg("sane").stdin(tty).status().unwrap().success());
                terminal.parser.lock().unwrap().process(b"\x1b[?1049l\x1b[?25h\x1b[2J");
            } else {
                terminal.given_back();
            }
            terminal.signal("CONT");
            terminal.wait_for("the screen again", |s| s.contains("Ankle boot") && s.contains("q quit"));
            let started = Instant::now();
            let again = |t: &Terminal| {
                let screen_taken = t.parser.lock().unwrap().screen().alternate_screen();
                screen_taken && format!("{:?}", t.master.get_termios().unwrap()) == taken
            };
            while !again(&terminal) {
                assert!(started.elapsed() < PATIENCE, "{stop}: {:?} instead of {taken}", terminal.master.get_termios());
                thread::sleep(Duration::from_millis(20));
            }
            // It hears keys.
            terminal.press(b"?");
            terminal.wait_for("help", |s| s.contains("any other key closes"));
            terminal.press(b"\x1b");
            terminal.wait_for("no help", |s| !s.contains("any other key closes"));
        }
    }
    terminal.press(b"q");
    terminal.left_cleanly();
}

#[test]
fn control_c_ends_it_whatever_came_before() {
    let mut terminal = Terminal::start(80, 24, &[]);
    terminal.wait_for("filled overview", |s| s.contains("Ankle boot"));
    // The beginning of a mouse report that never ends, which swallows keys.
    terminal.press(b"\x1b[<");
    thread::sleep(Duration::from_millis(100));
    let started = Instant::now();
    terminal.press(b"\x03");
    let status = terminal.child.wait().unwrap();
    assert!(started.elapsed() < Duration::from_secs(5) && [0, 130].contains(&status.exit_code()), "{status:?}");
    terminal.given_back();
}

#[test]
fn random_keys_mouse_events_pastes_and_sizes_do_not_end_it() {
    // IGQ_RANDOM_EVENTS=100000 is the long run, by hand.
    let events: usize = std::env::var("IGQ_RANDOM_EVENTS").ok().and_then(|n| n.parse().ok()).unwrap_or(1500);
    let mut random = fastrand::Rng::with_seed(std::env::var("IGQ_SEED").ok().and_then(|n| n.parse().ok()).unwrap_or(3));
    let folder = tempfile::tempdir().unwrap();
    // Keys that write files, or leave, are left out; they have tests of their own.
    let mut terminal = Terminal::start_in(folder.path(), 100, 30, &["--calibration-images", "2"]);
    terminal.wait_for("filled overview", |s| s.contains("Ankle boot"));
    // The parser stays larger than the terminal ever gets: vt100 0.16 panics where a line wraps on a screen of one row or column.
    terminal.parser.lock().unwrap().screen_mut().set_size(200, 200);
    for _ in 0..events {
        match random.u8(0..20) {
            0 => terminal
                .press(format!("\x1b[<{};{};{}M", [0, 2, 64, 65][random.usize(0..4)], random.u8(1..120), random.u8(1..40)).as_bytes()),
            1 => terminal.press(format!("\x1b[200~{}\x1b[201~", "x/".repeat(random.usize(0..200))).as_bytes()),
            2 => {
                let (cols, rows) = (random.u16(1..160), random.u16(1..60));
                terminal.master.resize(size(cols, rows)).unwrap();
            }
            3 => terminal.press([b"\x1b[A", b"\x1b[B", b"\x1b[C", b"\x1b[D", b"\x1b[H", b"\x1b[F"][random.usize(0..6)]),
            _ => {
                let key = random.u8(32..127);
                if !b"qe".contains(&key) {
                    terminal.press(&[key]);
                }
            }
        }
        if random.u8(..) < 8 {
            thread::sleep(Duration::from_millis(5));
        }
    }
    assert!(terminal.child.try_wait().unwrap().is_none(), "it ended:\n{}", terminal.shown());
    terminal.press(b"\x03");
    let status = terminal.child.wait().unwrap();
    assert!([0, 130].contains(&status.exit_code()), "{status:?}");
    terminal.given_back();
}
