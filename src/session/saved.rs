//! A session as a file, and the command line that gives a run again. Both speak the languages that a user types: flags for what is run,
//! commands of the palette for what is on the screen.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::SessionInfo;
use crate::error::{Error, Result};
use crate::quant::Settings;
use crate::read;

/// A session as a file in TOML.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SavedSession {
    /// The version of igq that wrote it.
    pub igq: String,
    /// Flags of the run that was on the screen.
    pub run: Vec<String>,
    /// Flags of the run that was pinned as A; none where nothing was.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pinned: Vec<String>,
    /// Commands of the palette that bring the screen back.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub screen: Vec<String>,
}

/// Name and value of a flag; the value is empty where the flag takes none.
pub type Flag = (&'static str, String);

/// Flags as the words that a shell would hand over.
#[must_use]
pub fn words(flags: &[Flag]) -> Vec<String> {
    let one = |(name, value): &Flag| std::iter::once((*name).to_string()).chain((!value.is_empty()).then(|| value.clone()));
    flags.iter().flat_map(one).collect()
}

/// The flags that give the run of `settings` on the picture at `picture`. `opened` are the paths that were opened after the start: their
/// pictures, which lie behind the `first` ones of the start, are named alone, so that no order can come between.
#[must_use]
pub fn flags(info: &SessionInfo, opened: &[PathBuf], first: usize, settings: &Settings, picture: usize) -> Vec<Flag> {
    let later = picture >= first && !opened.is_empty();
    let mut flags: Vec<Flag> = info.flags.iter().filter(|(name, _)| !later || !matches!(*name, "--image" | "--shuffle")).cloned().collect();
    let mut picture = picture;
    if later {
        flags.extend(opened.iter().map(|path| ("--image", path.display().to_string())));
        picture -= first;
    }
    if picture > 0 {
        flags.push(("--picture", picture.to_string()));
    }
    // What a quantizer file decides is not said beside it.
    let fitted = flags.iter().any(|(name, _)| *name == "--quantizers");
    let own = settings.flags();
    flags.extend(own.into_iter().filter(|(name, _)| !fitted || !matches!(*name, "--method" | "--groups" | "--row-groups")));
    flags
}

/// The command line of flags, as a shell takes it.
#[must_use]
pub fn command(flags: &[Flag]) -> String {
    format!("igq run {}", Settings::command_line(flags)).trim_end().to_string()
}

/// Flags whose paths hold wherever the file is read.
fn anywhere(flags: Vec<Flag>) -> Result<Vec<Flag>> {
    let absolute = |(name, value): Flag| {
        let is_path = match name {
            "--model" => Path::new(&value).exists(),
            "--labels" | "--image" | "--calibration" | "--quantizers" => true,
            _ => false,
        };
        if name == "--image" && value == "-" {
            return Err(Error::setting("session", "-", "images that have a path: standard input cannot be read again"));
        }
        let path = is_path.then(|| std::path::absolute(&value).ok()).flatten();
        Ok((name, path.map_or(value, |path| path.display().to_string())))
    };
    flags.into_iter().map(absolute).collect()
}

impl SavedSession {
    /// A session of a run, perhaps one that was pinned, and what is on the screen.
    ///
    /// # Errors
    /// When a picture came from standard input.
    pub fn new(run: Vec<Flag>, pinned: Option<Vec<Flag>>, screen: Vec<String>) -> Result<Self> {
        let pinned = pinned.map(anywhere).transpose()?.map(|flags| {
            let words = words(&flags);
            // The run with the usual settings has no flags, and yet it was pinned.
            if words.is_empty() { vec!["--picture".into(), "0".into()] } else { words }
        });
        Ok(Self { igq: env!("CARGO_PKG_VERSION").into(), run: words(&anywhere(run)?), pinned: pinned.unwrap_or_default(), screen })
    }

    /// As the text of a file.
    ///
    /// # Errors
    /// Never today: words are text.
    pub fn to_toml(&self) -> Result<String> {
        let text = toml::to_string_pretty(self).map_err(|e| Error::content("session", e.to_string(), "save under another name"))?;
        Ok(format!(
            "# A session of igq: `igq --session FILE` opens it, `igq run --session FILE` computes its run without a screen.\n{text}"
        ))
    }

    /// Reads a file.
    ///
    /// # Errors
    /// When it cannot be read or is no session; the message names the file and the key.
    pub fn read(path: &Path) -> Result<Self> {
        let text = read::text(path)?;
        let broken = |e: toml::de::Error| Error::content(path.display().to_string(), e.to_string(), "a session that `:save` wrote");
        toml::from_str(&text).map_err(broken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_is_read_as_it_was_written_and_nothing_unknown_passes() {
        let run = vec![("--method", "igq-e".to_string()), ("--smooth", String::new()), ("--keep-float", "blocks.*.fc2".into())];
        let saved = SavedSession::new(run, Some(Vec::new()), vec!["view groups".into()]).unwrap();
        assert_eq!(saved.run, ["--method", "igq-e", "--smooth", "--keep-float", "blocks.*.fc2"]);
        assert_eq!(saved.pinned, ["--picture", "0"]);
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a.toml");
        std::fs::write(&file, saved.to_toml().unwrap()).unwrap();
        assert_eq!(SavedSession::read(&file).unwrap(), saved);
        std::fs::write(&file, saved.to_toml().unwrap() + "bits = 3\n").unwrap();
        let refused = SavedSession::read(&file).unwrap_err().to_string();
        assert!(refused.contains("a.toml") && refused.contains("bits"), "{refused}");
        let piped = SavedSession::new(vec![("--image", "-".into())], None, Vec::new()).unwrap_err().to_string();
        assert!(piped.contains("standard input"), "{piped}");
    }
}
