//! The program: parse, resolve, run. Everything else is in the library.

use std::process::ExitCode;

use clap::Parser;
use igq::cli::Cli;
use igq::{headless, threads, tui};

fn main() -> ExitCode {
    threads::run_side_by_side();
    if let Err(error) = color_eyre::install() {
        eprintln!("igq: {error}");
        return ExitCode::FAILURE;
    }
    let cli = Cli::parse();
    let done = match cli.command {
        Some(command) => headless::run(command),
        None => tui::run(&cli.common, &cli.look),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("igq: {error}");
            ExitCode::from(error.exit_code())
        }
    }
}
