//! What the Hub's own tools read from the environment, read as they do.

use std::env;
use std::path::PathBuf;
use std::time::Duration;

use etcetera::home_dir;

/// How long a server may be silent where `HF_HUB_DOWNLOAD_TIMEOUT` does not say.
const SILENT: Duration = Duration::from_secs(30);

/// A variable that is set to something.
pub(super) fn variable(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.trim().is_empty())
}

/// The first of the variables that is set, as a path.
pub(super) fn folder(names: &[&str]) -> Option<PathBuf> {
    let home = home_dir().ok().and_then(|home| home.to_str().map(str::to_string));
    names.iter().find_map(|name| variable(name)).map(|value| expanded(&value, home.as_deref(), &|name| env::var(name).ok()).into())
}

/// Whether the network is not to be asked. The older name counts where the newer one is not set.
pub(super) fn offline() -> bool {
    let on = |value: String| ["1", "true", "yes", "on"].contains(&value.to_lowercase().as_str());
    ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"].iter().find_map(|name| variable(name)).is_some_and(on)
}

/// How long a server may be silent: `HF_HUB_DOWNLOAD_TIMEOUT`, in seconds.
pub(super) fn silent() -> Duration {
    let given = variable("HF_HUB_DOWNLOAD_TIMEOUT").and_then(|value| value.trim().parse::<f64>().ok());
    given.filter(|seconds| *seconds > 0.0 && *seconds <= 86_400.0).map_or(SILENT, Duration::from_secs_f64)
}

/// `~` at the beginning, `$NAME` and `${NAME}` anywhere; what is not set stays as it is written.
fn expanded(value: &str, home: Option<&str>, variable: &dyn Fn(&str) -> Option<String>) -> String {
    let (mut out, mut rest) = (String::new(), value);
    if let (Some(home), Some(behind)) = (home, value.strip_prefix('~'))
        && (behind.is_empty() || behind.starts_with('/'))
    {
        out.push_str(home);
        rest = behind;
    }
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        let behind = &rest[at + 1..];
        let plain = |text: &str| text.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(text.len());
        let (name, length) = match behind.strip_prefix('{').and_then(|braced| braced.split_once('}')) {
            Some((name, _)) => (name, name.len() + 2),
            None => (&behind[..plain(behind)], plain(behind)),
        };
        match variable(name).filter(|_| !name.is_empty()) {
            Some(found) => out.push_str(&found),
            None => out.push_str(&rest[at..=at + length]),
        }
        rest = &behind[length..];
    }
    out + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_home_folder_and_variables_stand_for_their_values() {
        let known = |name: &str| (name == "DATA").then(|| "/data".to_string());
        for (written, meant) in [
            ("~", "/home/a"),
            ("~/hub", "/home/a/hub"),
            ("~other/hub", "~other/hub"),
            ("$DATA/hub", "/data/hub"),
            ("/x/${DATA}y/$", "/x//datay/$"),
            ("$NOTHING/${ALSO}/ä", "$NOTHING/${ALSO}/ä"),
            ("/a~/b", "/a~/b"),
        ] {
            assert_eq!(expanded(written, Some("/home/a"), &known), meant);
        }
    }
}
