//! The configuration file: how the screen looks, with only what differs from the usual. Nothing in it changes a number.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use etcetera::BaseStrategy;
use serde::{Deserialize, Deserializer};

pub use super::graphics::Pictures;
use super::theme::{Colors, Rgb, Theme};
use crate::error::{Error, Result};
use crate::read;

/// What a configuration file says.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The theme: one of igq's own, or of `themes`.
    pub theme: Option<String>,
    /// Draw with ASCII characters only.
    #[serde(default)]
    pub ascii: bool,
    /// Whether mouse events are taken; they are.
    pub mouse: Option<bool>,
    /// How pictures are drawn.
    pub pictures: Option<Pictures>,
    /// Themes by their names.
    #[serde(default, rename = "themes")]
    written: BTreeMap<String, Written>,
    /// The same, made.
    #[serde(skip)]
    pub themes: Vec<Theme>,
}

/// A theme: what differs from another one.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    base: Option<String>,
    ground: Option<Hex>,
    ink: Option<Hex>,
    dim: Option<Hex>,
    accent: Option<Hex>,
    good: Option<Hex>,
    bad: Option<Hex>,
    groups: Option<Vec<Hex>>,
    heat: Option<[Hex; 2]>,
    signed: Option<[Hex; 2]>,
}

/// `#rrggbb`
#[derive(Debug, Clone, Copy)]
struct Hex(Rgb);

impl<'de> Deserialize<'de> for Hex {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let digits = text.strip_prefix('#').filter(|d| d.len() == 6 && d.is_ascii());
        let part = |at: usize| digits.and_then(|d| u8::from_str_radix(&d[at..at + 2], 16).ok());
        match (part(0), part(2), part(4)) {
            (Some(r), Some(g), Some(b)) => Ok(Self((r, g, b))),
            _ => Err(serde::de::Error::custom(format!("`{text}` is no colour: expected #rrggbb, such as #78beff"))),
        }
    }
}

/// What `igq config` prints: every key with what it is where nothing is said.
pub const EXAMPLE: &str = r##"# igq's configuration: only what differs from the usual need stand here.
# theme = "dark"             # dark, light, contrast, colorblind, mono, or one of [themes]
# ascii = false              # ASCII characters only
# mouse = true               # false leaves the mouse to the terminal
# pictures = "auto"          # auto, half-blocks, kitty, sixel, iterm2

# [themes.night]             # a theme of one's own: what differs from its base
# base = "dark"
# ground = "#000000"         # of drawings; on the screen it is the terminal's
# ink = "#d7dae0"
# dim = "#828892"
# accent = "#ffb454"
# good = "#78d28c"
# bad = "#ff7864"
# groups = ["#5c54aa", "#fde73c"]     # from the narrowest group to the widest
# heat = ["#181a20", "#fff0be"]       # probabilities: nothing, the most
# signed = ["#5096ff", "#ff9632"]     # below zero, above
"##;

/// Where the file is looked for: `igq/config.toml` in the folder of configurations (`XDG_CONFIG_HOME`).
#[must_use]
pub fn path() -> Option<PathBuf> {
    Some(etcetera::choose_base_strategy().ok()?.config_dir().join("igq").join("config.toml"))
}

/// The user's configuration; the usual where there is no file.
///
/// # Errors
/// When the file cannot be read or says something that igq does not know; the message names the file and the key.
pub fn load() -> Result<Config> {
    path().filter(|path| path.exists()).map_or_else(|| Ok(Config::default()), |path| of_file(&path))
}

fn of_file(path: &Path) -> Result<Config> {
    let name = path.display().to_string();
    let broken = |problem: String| Error::content(name.clone(), problem, "`igq config` prints every key");
    let mut config: Config = toml::from_str(&read::text(path)?).map_err(|e| broken(e.to_string()))?;
    for (name, written) in &config.written {
        let base = Theme::named(written.base.as_deref().unwrap_or("dark"), &config.themes).map_err(|e| broken(e.to_string()))?;
        let colors = written.over(name, base.colors()).map_err(broken)?;
        config.themes.push(Theme::own(colors));
    }
    if let Some(theme) = &config.theme {
        Theme::named(theme, &config.themes).map_err(|e| broken(e.to_string()))?;
    }
    Ok(config)
}

impl Written {
    fn over(&self, name: &str, base: &Colors) -> std::result::Result<Colors, String> {
        let one = |own: Option<Hex>, base: Rgb| own.map_or(base, |hex| hex.0);
        let two = |own: Option<[Hex; 2]>, base: [Rgb; 2]| own.map_or(base, |ends| ends.map(|hex| hex.0));
        let groups = match &self.groups {
            Some(anchors) if anchors.len() < 2 => return Err(format!("themes.{name}.groups: expected two colours or more")),
            Some(anchors) => anchors.iter().map(|hex| hex.0).collect::<Vec<_>>().leak(),
            None => base.groups,
        };
        Ok(Colors {
            name: name.to_string().leak(),
            colored: base.colored,
            ground: one(self.ground, base.ground),
            ink: one(self.ink, base.ink),
            dim: one(self.dim, base.dim),
            accent: one(self.accent, base.accent),
            good: one(self.good, base.good),
            bad: one(self.bad, base.bad),
            groups,
            heat: two(self.heat, base.heat),
            signed: two(self.signed, base.signed),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Config> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("config.toml");
        std::fs::write(&file, text).unwrap();
        of_file(&file)
    }

    #[test]
    fn a_theme_is_its_base_with_what_differs() {
        let config = read("theme = \"night\"\nmouse = false\n[themes.night]\nbase = \"light\"\naccent = \"#010203\"\n").unwrap();
        let night = Theme::named("night", &config.themes).unwrap();
        assert_eq!((night.colors().accent, night.colors().good), ((1, 2, 3), Theme::LIGHT.colors().good));
        assert_eq!(config.mouse, Some(false));
    }

    #[test]
    fn the_example_is_understood_with_every_line_of_it() {
        let bare: Vec<&str> = EXAMPLE.lines().skip(1).map(|line| line.strip_prefix("# ").unwrap_or(line)).collect();
        let config = read(&bare.join("\n")).unwrap();
        assert_eq!((config.themes.len(), config.pictures), (1, Some(Pictures::Auto)));
    }

    #[test]
    fn what_is_not_known_is_refused_with_the_file_and_the_key() {
        for (text, named) in [
            ("bits = 3", "bits"),
            ("theme = \"pink\"", "pink"),
            ("[themes.a]\naccent = \"red\"", "#rrggbb"),
            ("[themes.a]\ngroups = [\"#000000\"]", "themes.a.groups"),
            ("pictures = \"oil\"", "oil"),
        ] {
            let refused = read(text).unwrap_err().to_string();
            assert!(refused.contains("config.toml") && refused.contains(named), "{text}: {refused}");
        }
    }
}
