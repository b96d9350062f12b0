//! `--session FILE`: the flags that a session holds take its place on the command line, those aside that were typed there too.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::Parser;

use super::RunArgs;
use crate::error::{Error, Result};
use crate::quant::Settings;
use crate::session::SavedSession;
use crate::tui::Start;

/// What was typed, with the flags of the session that it names.
///
/// # Errors
/// When the session cannot be read.
pub fn expanded(typed: Vec<OsString>) -> Result<Vec<OsString>> {
    let end = typed.iter().position(|word| word == "--").unwrap_or(typed.len());
    let named = typed[..end].iter().position(|word| word == "--session" || word.to_string_lossy().starts_with("--session="));
    let Some(at) = named else { return Ok(typed) };
    let (file, after) = match typed[at].to_string_lossy().strip_prefix("--session=") {
        Some(file) => (PathBuf::from(file), at + 1),
        None if at + 1 < typed.len() => (PathBuf::from(&typed[at + 1]), at + 2),
        None => return Ok(typed), // The parser says that a file is missing.
    };
    let flags: Vec<String> = typed.iter().map(|word| word.to_string_lossy().split('=').next().unwrap_or_default().to_string()).collect();
    let says = |name: &str| flags.iter().any(|flag| flag == name);
    let covered = |name: &str| match name {
        "--wbits" | "--abits" | "--sbits" => says(name) || says("--bits"),
        // A number among other pictures is another picture.
        "--picture" => says(name) || says("--image"),
        "--model" | "--image" => says(name),
        _ => says(name) || says("--settings-file") && of_settings(name),
    };
    let saved = SavedSession::read(&file)?;
    let mut kept = Vec::new();
    let mut keep = true;
    for word in &saved.run {
        if word.starts_with("--") {
            keep = !covered(word);
        }
        if keep {
            kept.push(OsString::from(word));
        }
    }
    let mut words = typed;
    words.splice(after..after, kept);
    Ok(words)
}

/// Whether a flag is one that a file of settings stands for.
fn of_settings(name: &str) -> bool {
    let session = ["--model", "--offline", "--labels", "--image", "--shuffle", "--picture", "--calibration", "--calibration-images"];
    !session.contains(&name) && !matches!(name, "--quantizers" | "--seed")
}

/// The flags of a run by themselves.
#[derive(Parser)]
struct Only {
    #[command(flatten)]
    common: RunArgs,
}

/// Where the screen begins: at the picture that was named, with what a session pinned and showed.
///
/// # Errors
/// When the session cannot be read, or has flags that igq does not know.
pub fn start(common: &RunArgs) -> Result<Start> {
    let start = Start::at(common.picture);
    let Some(file) = &common.session else { return Ok(start) };
    let saved = SavedSession::read(file)?;
    let pinned = (!saved.pinned.is_empty()).then(|| pinned(file, &saved.pinned)).transpose()?;
    Ok(Start { screen: saved.screen, pinned, ..start })
}

fn pinned(file: &Path, words: &[String]) -> Result<(Settings, usize)> {
    let parsed = Only::try_parse_from(std::iter::once("igq").chain(words.iter().map(String::as_str)));
    let common = parsed.map_err(|e| Error::content(file.display().to_string(), e.to_string(), "a session that `:save` wrote"))?.common;
    Ok((common.settings()?, common.picture))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_typed_goes_before_what_the_session_says() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("s.toml").display().to_string();
        let words = ["--model", "m", "--wbits", "3", "--abits", "4", "--smooth", "--picture", "2"].map(String::from).to_vec();
        let saved = SavedSession { igq: "0".into(), run: words, ..SavedSession::default() };
        std::fs::write(&file, saved.to_toml().unwrap()).unwrap();
        let full = |typed: &[&str]| {
            let words = expanded(typed.iter().map(OsString::from).collect()).unwrap();
            words.iter().map(|w| w.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ").replace(&file, "F")
        };
        assert_eq!(full(&["igq", "run"]), "igq run");
        assert_eq!(full(&["igq", "--session", &file]), "igq --session F --model m --wbits 3 --abits 4 --smooth --picture 2");
        assert_eq!(
            full(&["igq", "run", "--session", &file, "--abits=6"]),
            "igq run --session F --model m --wbits 3 --smooth --picture 2 --abits=6"
        );
        assert_eq!(
            full(&["igq", &format!("--session={file}"), "--bits", "5", "--image", "x.png"]),
            "igq --session=F --model m --smooth --bits 5 --image x.png"
        );
    }
}
