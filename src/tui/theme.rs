//! Colours and glyphs. Colour never carries meaning alone: groups have digits, flips have words, bars have lengths.

use std::str::FromStr;

use ratatui::style::{Color, Modifier, Style};

use crate::error::{Error, Result};

/// Names of the themes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ThemeName {
    /// For dark terminals.
    Dark,
    /// For light terminals.
    Light,
    /// Strong contrast on black.
    Contrast,
    /// Safe for colour-blind people: blue, orange and a map that reads in grey.
    Colorblind,
    /// No colours: bold, reverse and digits only.
    Mono,
}

impl ThemeName {
    /// All themes.
    pub const ALL: [Self; 5] = [Self::Dark, Self::Light, Self::Contrast, Self::Colorblind, Self::Mono];

    /// The name used in flags.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Dark => "dark",
            Self::Light => "light",
            Self::Contrast => "contrast",
            Self::Colorblind => "colorblind",
            Self::Mono => "mono",
        }
    }
}

impl FromStr for ThemeName {
    type Err = Error;
    fn from_str(s: &str) -> Result<Self> {
        let known = Self::ALL.into_iter().find(|theme| theme.name() == s);
        known.ok_or_else(|| Error::setting("theme", s, format!("one of {}", Self::ALL.map(Self::name).join(", "))))
    }
}

/// How many colours the terminal can show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// 16 colours.
    Sixteen,
    /// 256 colours.
    Indexed,
    /// 24 bits.
    True,
}

/// How the screen looks: theme, glyphs and colour depth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Look {
    /// The theme.
    pub theme: ThemeName,
    /// ASCII characters only.
    pub ascii: bool,
    /// Colour depth.
    pub depth: Depth,
}

impl Look {
    /// From flags and environment: `NO_COLOR` means mono unless a theme is named, `COLORTERM` and `TERM` tell the depth.
    #[must_use]
    pub fn resolve(theme: Option<ThemeName>, ascii: bool, true_color: bool) -> Self {
        let variable = |name: &str| std::env::var(name).unwrap_or_default();
        let no_color = !variable("NO_COLOR").is_empty();
        let depth = if true_color || matches!(variable("COLORTERM").as_str(), "truecolor" | "24bit") {
            Depth::True
        } else if variable("TERM").contains("256color") {
            Depth::Indexed
        } else {
            Depth::Sixteen
        };
        Self { theme: theme.unwrap_or(if no_color { ThemeName::Mono } else { ThemeName::Dark }), ascii, depth }
    }

    /// The next theme.
    #[must_use]
    pub fn next_theme(self) -> Self {
        let all = ThemeName::ALL;
        let at = all.iter().position(|t| *t == self.theme).unwrap_or(0);
        Self { theme: all[(at + 1) % all.len()], ..self }
    }

    /// Whether there are colours at all.
    #[must_use]
    pub fn has_color(self) -> bool {
        self.theme != ThemeName::Mono
    }

    fn color(self, rgb: (u8, u8, u8), sixteen: Color) -> Color {
        match (self.has_color(), self.depth) {
            (false, _) => Color::Reset,
            (true, Depth::Sixteen) => sixteen,
            (true, Depth::Indexed) => Color::Indexed(cube(rgb)),
            (true, Depth::True) => Color::Rgb(rgb.0, rgb.1, rgb.2),
        }
    }

    /// Any colour, as well as the terminal can; `None` without colours.
    #[must_use]
    pub fn rgb(self, rgb: (u8, u8, u8)) -> Color {
        self.color(rgb, nearest_of_sixteen(rgb))
    }

    /// Frames and hints.
    #[must_use]
    pub fn dim(self) -> Style {
        let grey = match self.theme {
            ThemeName::Light => (110, 110, 110),
            ThemeName::Contrast => (200, 200, 200),
            _ => (130, 136, 146),
        };
        let style = Style::new().fg(self.color(grey, Color::Gray));
        if self.has_color() { style } else { style.add_modifier(Modifier::DIM) }
    }

    /// Titles and the value that is chosen.
    #[must_use]
    pub fn accent(self) -> Style {
        let (rgb, sixteen) = match self.theme {
            ThemeName::Light => ((0, 90, 160), Color::Blue),
            ThemeName::Contrast => ((255, 255, 0), Color::Yellow),
            _ => ((120, 190, 255), Color::Cyan),
        };
        Style::new().fg(self.color(rgb, sixteen)).add_modifier(Modifier::BOLD)
    }

    /// The selected line.
    #[must_use]
    pub fn selected(self) -> Style {
        Style::new().add_modifier(Modifier::REVERSED)
    }

    /// What went well.
    #[must_use]
    pub fn good(self) -> Style {
        let (rgb, sixteen) = match self.theme {
            ThemeName::Light => ((0, 110, 60), Color::Green),
            ThemeName::Colorblind => ((90, 170, 255), Color::Blue),
            _ => ((120, 210, 140), Color::Green),
        };
        Style::new().fg(self.color(rgb, sixteen))
    }

    /// What went wrong.
    #[must_use]
    pub fn bad(self) -> Style {
        let (rgb, sixteen) = match self.theme {
            ThemeName::Light => ((180, 40, 20), Color::Red),
            ThemeName::Colorblind => ((255, 160, 40), Color::Yellow),
            _ => ((255, 120, 100), Color::Red),
        };
        Style::new().fg(self.color(rgb, sixteen)).add_modifier(Modifier::BOLD)
    }

    /// The colour of group `group` of `groups`: along a map that grows lighter and reads in grey, because groups are ordered by width.
    #[must_use]
    pub fn group(self, group: usize, groups: usize) -> Style {
        let t = if groups > 1 { group as f64 / (groups - 1) as f64 } else { 0.5 };
        let style = Style::new().fg(self.sequential(t));
        if self.has_color() || group.is_multiple_of(2) { style } else { style.add_modifier(Modifier::BOLD) }
    }

    /// A sequential map over 0 to 1 that reads in grey.
    #[must_use]
    pub fn sequential(self, t: f64) -> Color {
        // Anchors of a perceptually ordered map; on light grounds it runs from light to dark.
        const DARK: [(u8, u8, u8); 6] = [(92, 84, 170), (70, 130, 200), (50, 165, 175), (70, 195, 120), (170, 220, 70), (253, 231, 60)];
        const LIGHT: [(u8, u8, u8); 6] = [(150, 165, 30), (40, 150, 100), (20, 120, 140), (40, 85, 150), (70, 45, 130), (60, 0, 80)];
        let anchors = if self.theme == ThemeName::Light { &LIGHT } else { &DARK };
        let position = t.clamp(0.0, 1.0) * (anchors.len() - 1) as f64;
        let (at, share) = ((position.floor() as usize).min(anchors.len() - 2), position - position.floor());
        let share = if position >= (anchors.len() - 1) as f64 { 1.0 } else { share };
        self.rgb(blend(anchors[at], anchors[at + 1], share))
    }

    /// Heat over 0 to 1, from the ground to bright, in grey steps of one hue.
    #[must_use]
    pub fn heat(self, t: f64) -> Color {
        let (low, high) = if self.theme == ThemeName::Light { ((245, 245, 245), (10, 40, 110)) } else { ((24, 26, 32), (255, 240, 190)) };
        self.rgb(blend(low, high, t.clamp(0.0, 1.0).sqrt()))
    }

    /// Signed error over -1 to 1: blue against orange, the ground at zero.
    #[must_use]
    pub fn signed(self, t: f64) -> Color {
        let ground = if self.theme == ThemeName::Light { (245, 245, 245) } else { (24, 26, 32) };
        let end = if t < 0.0 { (80, 150, 255) } else { (255, 150, 50) };
        self.rgb(blend(ground, end, t.abs().min(1.0).sqrt()))
    }

    /// A glyph for 0 to 1, where there are no colours.
    #[must_use]
    pub fn ramp(self, t: f64) -> char {
        let glyphs: &[char] = if self.ascii { &[' ', '.', ':', '-', '=', '+', '*', '#', '@'] } else { &[' ', '░', '▒', '▓', '█'] };
        glyphs[((t.clamp(0.0, 1.0) * glyphs.len() as f64) as usize).min(glyphs.len() - 1)]
    }

    /// One of two glyphs, by whether only ASCII may be used.
    #[must_use]
    pub const fn glyph(self, unicode: &'static str, ascii: &'static str) -> &'static str {
        if self.ascii { ascii } else { unicode }
    }
}

/// The digit of a group: 0 to 9, then letters.
#[must_use]
pub fn group_digit(group: usize) -> char {
    const DIGITS: &[u8; 62] = b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
    DIGITS.get(group).map_or('+', |d| *d as char)
}

fn blend(a: (u8, u8, u8), b: (u8, u8, u8), share: f64) -> (u8, u8, u8) {
    let mix = |a: u8, b: u8| (f64::from(a) + (f64::from(b) - f64::from(a)) * share).round() as u8;
    (mix(a.0, b.0), mix(a.1, b.1), mix(a.2, b.2))
}

/// The nearest of the 6 x 6 x 6 cube or the grey ramp of 256-colour terminals.
fn cube((r, g, b): (u8, u8, u8)) -> u8 {
    if r.abs_diff(g) < 8 && g.abs_diff(b) < 8 {
        return match r {
            0..8 => 16,
            239.. => 231,
            v => 232 + (v - 8) / 10,
        };
    }
    let level = |v: u8| -> u8 {
        match v {
            0..48 => 0,
            48..115 => 1,
            v => (v - 35) / 40,
        }
    };
    16 + 36 * level(r) + 6 * level(g) + level(b)
}

fn nearest_of_sixteen((r, g, b): (u8, u8, u8)) -> Color {
    let (max, min) = (r.max(g).max(b), r.min(g).min(b));
    if max - min < 40 {
        return match max {
            0..60 => Color::Black,
            60..140 => Color::DarkGray,
            140..210 => Color::Gray,
            _ => Color::White,
        };
    }
    let on = |v: u8| v > max / 2 + min / 2;
    match (on(r), on(g), on(b)) {
        (true, true, false) => Color::Yellow,
        (true, false, true) => Color::Magenta,
        (false, true, true) => Color::Cyan,
        (true, _, _) => Color::Red,
        (_, true, _) => Color::Green,
        _ => Color::Blue,
    }
}
