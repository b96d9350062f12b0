//! The program: parse, run. Everything else is in the library.

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;
use igq::clean::tell;
use igq::cli::{self, Cli};
use igq::{cpu, tui};

/// Buffers of every layer come and go: this allocator keeps their pages, the system's gives them back and faults them in again.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    cpu::run_side_by_side();
    let (panics, reports) = color_eyre::config::HookBuilder::default().into_hooks();
    // A report that nobody can read must not end in a panic inside of a panic.
    std::panic::set_hook(Box::new(move |info| drop(writeln!(std::io::stderr().lock(), "{}", panics.panic_report(info)))));
    if let Err(error) = reports.install() {
        tell(&error.to_string());
        return ExitCode::FAILURE;
    }
    let typed = cli::expanded(std::env::args_os().collect());
    let done = typed.and_then(|typed| Cli::parse_from(typed).run());
    if let Err(error) = &done {
        tell(&error.to_string());
    }
    match (done, tui::ending_signal()) {
        (_, Some(signal)) => ExitCode::from(128_u8.saturating_add(signal)),
        (Ok(()), None) => ExitCode::SUCCESS,
        (Err(error), None) => ExitCode::from(error.exit_code()),
    }
}
