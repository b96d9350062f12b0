//! The program without a terminal, its cache in the folder of the build.

use std::process::Output;

use assert_cmd::Command;

/// The program, about to run.
pub fn command(args: &[&str]) -> Command {
    let mut command = Command::cargo_bin("igq").unwrap();
    command.env("XDG_CACHE_HOME", env!("CARGO_TARGET_TMPDIR")).args(args);
    command
}

/// Runs the program.
pub fn igq(args: &[&str]) -> assert_cmd::assert::Assert {
    command(args).assert()
}

/// What it prints when it succeeds.
pub fn stdout(args: &[&str]) -> String {
    String::from_utf8(igq(args).success().get_output().stdout.clone()).unwrap()
}

/// Holds standard error to `words`, an exit code and no panic.
pub fn refused(args: &[&str], code: i32, words: &[&str]) -> Output {
    let output = igq(args).code(code).get_output().clone();
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    for word in words {
        assert!(error.contains(word), "{args:?} said: {error}");
    }
    assert!(!error.contains("panicked"), "{error}");
    output
}

/// Refused with nothing on standard output.
pub fn refused_silently(args: &[&str], code: i32, words: &[&str]) {
    assert!(refused(args, code, words).stdout.is_empty());
}
