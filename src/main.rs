//! The program: parse, run. Everything else is in the library.

use std::process::ExitCode;

use clap::Parser;
use igq::cli::Cli;
use igq::cpu;

fn main() -> ExitCode {
    cpu::run_side_by_side();
    if let Err(error) = color_eyre::install() {
        eprintln!("igq: {error}");
        return ExitCode::FAILURE;
    }
    match Cli::parse().run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("igq: {error}");
            ExitCode::from(error.exit_code())
        }
    }
}
