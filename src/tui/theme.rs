//! Colours and glyphs. Colour never carries meaning alone: groups have digits, flips have words, bars have lengths.

use ratatui::style::{Color, Modifier, Style};

use crate::error::{Error, Result};

/// Red, green and blue.
pub type Rgb = (u8, u8, u8);

/// The colours of a theme.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Colors {
    /// Its name in flags.
    pub name: &'static str,
    /// Whether there are colours at all: without, bold, reverse and digits only.
    pub colored: bool,
    /// The ground and the text of drawings; on the screen they are the terminal's.
    pub ground: Rgb,
    /// The text of drawings.
    pub ink: Rgb,
    /// Frames and hints.
    pub dim: Rgb,
    /// Titles and the value that is chosen.
    pub accent: Rgb,
    /// What went well.
    pub good: Rgb,
    /// What went wrong.
    pub bad: Rgb,
    /// Anchors of the map of groups, in order of lightness: at least two.
    pub groups: &'static [Rgb],
    /// Both ends of the map of probabilities: nothing, and the most.
    pub heat: [Rgb; 2],
    /// The ends of a map of signed values: below zero, and above.
    pub signed: [Rgb; 2],
}

/// A theme: one of igq's own, or one of the configuration file.
#[derive(Debug, Clone, Copy)]
pub struct Theme(&'static Colors);

impl PartialEq for Theme {
    fn eq(&self, other: &Self) -> bool {
        self.0.name == other.0.name
    }
}

impl Eq for Theme {}

const DARK: Colors = Colors {
    name: "dark",
    colored: true,
    ground: (20, 22, 27),
    ink: (215, 218, 224),
    dim: (130, 136, 146),
    accent: (120, 190, 255),
    good: (120, 210, 140),
    bad: (255, 120, 100),
    groups: &[(92, 84, 170), (70, 130, 200), (50, 165, 175), (70, 195, 120), (170, 220, 70), (253, 231, 60)],
    heat: [(24, 26, 32), (255, 240, 190)],
    signed: [(80, 150, 255), (255, 150, 50)],
};
const LIGHT: Colors = Colors {
    name: "light",
    ground: (250, 250, 250),
    ink: (30, 32, 36),
    dim: (110, 110, 110),
    accent: (0, 70, 160),
    good: (0, 110, 50),
    bad: (180, 40, 20),
    groups: &[(150, 165, 30), (40, 150, 100), (20, 120, 140), (40, 85, 150), (70, 45, 130), (60, 0, 80)],
    heat: [(245, 245, 245), (10, 40, 110)],
    ..DARK
};
const CONTRAST: Colors =
    Colors { name: "contrast", ground: (0, 0, 0), ink: (255, 255, 255), dim: (200, 200, 200), accent: (255, 255, 0), ..DARK };
const COLORBLIND: Colors = Colors { name: "colorblind", good: (90, 170, 255), bad: (255, 160, 40), ..DARK };
const MONO: Colors = Colors { name: "mono", colored: false, ..DARK };

impl Theme {
    /// For dark terminals.
    pub const DARK: Self = Self(&DARK);
    /// For light terminals.
    pub const LIGHT: Self = Self(&LIGHT);
    /// Strong contrast on black.
    pub const CONTRAST: Self = Self(&CONTRAST);
    /// Safe for colour-blind people: blue, orange and a map that reads in grey.
    pub const COLORBLIND: Self = Self(&COLORBLIND);
    /// No colours: bold, reverse and digits only.
    pub const MONO: Self = Self(&MONO);
    /// All of igq's own.
    pub const ALL: [Self; 5] = [Self::DARK, Self::LIGHT, Self::CONTRAST, Self::COLORBLIND, Self::MONO];

    /// One of the configuration file; it lives as long as the program.
    #[must_use]
    pub fn own(colors: Colors) -> Self {
        Self(Box::leak(Box::new(colors)))
    }

    /// The name used in flags.
    #[must_use]
    pub const fn name(self) -> &'static str {
        self.0.name
    }

    /// Its colours.
    #[must_use]
    pub const fn colors(self) -> &'static Colors {
        self.0
    }

    /// The theme of a name among igq's own and those of the configuration file.
    ///
    /// # Errors
    /// When there is none of that name.
    pub fn named(name: &str, own: &[Self]) -> Result<Self> {
        let all = || own.iter().copied().chain(Self::ALL);
        let expected = || format!("one of {}", all().map(Self::name).collect::<Vec<_>>().join(", "));
        all().find(|theme| theme.name() == name).ok_or_else(|| Error::setting("theme", name, expected()))
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
    pub theme: Theme,
    /// Themes of the configuration file.
    pub own: &'static [Theme],
    /// ASCII characters only.
    pub ascii: bool,
    /// Colour depth.
    pub depth: Depth,
}

impl Look {
    /// From flags and environment: `NO_COLOR` means mono unless a theme is named, `COLORTERM` and `TERM` tell the depth.
    #[must_use]
    pub fn resolve(theme: Option<Theme>, own: &'static [Theme], ascii: bool, true_color: bool) -> Self {
        let variable = |name: &str| std::env::var(name).unwrap_or_default();
        let no_color = !variable("NO_COLOR").is_empty();
        let depth = if true_color || matches!(variable("COLORTERM").as_str(), "truecolor" | "24bit") {
            Depth::True
        } else if variable("TERM").contains("256color") {
            Depth::Indexed
        } else {
            Depth::Sixteen
        };
        Self { theme: theme.unwrap_or(if no_color { Theme::MONO } else { Theme::DARK }), own, ascii, depth }
    }

    /// The next theme.
    #[must_use]
    pub fn next_theme(self) -> Self {
        let all: Vec<Theme> = Theme::ALL.iter().chain(self.own).copied().collect();
        let at = all.iter().position(|t| *t == self.theme).unwrap_or(0);
        Self { theme: all[(at + 1) % all.len()], ..self }
    }

    /// Whether there are colours at all.
    #[must_use]
    pub fn has_color(self) -> bool {
        self.theme.0.colored
    }

    fn color(self, rgb: Rgb, sixteen: Color) -> Color {
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

    fn style(self, rgb: Rgb) -> Style {
        Style::new().fg(self.rgb(rgb))
    }

    /// Frames and hints.
    #[must_use]
    pub fn dim(self) -> Style {
        // The darkest grey of 16 colours cannot be read on black.
        let style = Style::new().fg(self.color(self.theme.0.dim, Color::Gray));
        if self.has_color() { style } else { style.add_modifier(Modifier::DIM) }
    }

    /// Titles and the value that is chosen.
    #[must_use]
    pub fn accent(self) -> Style {
        self.style(self.theme.0.accent).add_modifier(Modifier::BOLD)
    }

    /// The selected line.
    #[must_use]
    pub fn selected(self) -> Style {
        Style::new().add_modifier(Modifier::REVERSED)
    }

    /// What went well.
    #[must_use]
    pub fn good(self) -> Style {
        self.style(self.theme.0.good)
    }

    /// What went wrong.
    #[must_use]
    pub fn bad(self) -> Style {
        self.style(self.theme.0.bad).add_modifier(Modifier::BOLD)
    }

    /// The colour of group `group` of `groups`: along a map that grows lighter and reads in grey, because groups are ordered by width.
    #[must_use]
    pub fn group(self, group: usize, groups: usize) -> Style {
        let t = if groups > 1 { group as f64 / (groups - 1) as f64 } else { 0.5 };
        let style = Style::new().fg(self.sequential(t));
        if self.has_color() || group.is_multiple_of(2) { style } else { style.add_modifier(Modifier::BOLD) }
    }

    /// A colour of a map at 0 to 1: of 16 colours one of `steps`, which grow lighter.
    fn mapped(self, t: f64, rgb: Rgb, steps: &[Color]) -> Color {
        let at = ((t.clamp(0.0, 1.0) * steps.len() as f64) as usize).min(steps.len() - 1);
        self.color(rgb, if self.is_light() { steps[steps.len() - 1 - at] } else { steps[at] })
    }

    const fn is_light(self) -> bool {
        let (r, g, b) = self.theme.0.ground;
        r as u16 + g as u16 + b as u16 > 384
    }

    /// A sequential map over 0 to 1 that reads in grey; on light grounds it runs from light to dark.
    #[must_use]
    pub fn sequential(self, t: f64) -> Color {
        const STEPS: [Color; 5] = [Color::Blue, Color::Magenta, Color::Green, Color::Cyan, Color::Yellow];
        let anchors = self.theme.0.groups;
        let position = t.clamp(0.0, 1.0) * (anchors.len() - 1) as f64;
        let (at, share) = ((position.floor() as usize).min(anchors.len() - 2), position - position.floor());
        let share = if position >= (anchors.len() - 1) as f64 { 1.0 } else { share };
        self.mapped(t, blend(anchors[at], anchors[at + 1], share), &STEPS)
    }

    /// Heat over 0 to 1, from the ground to bright, in grey steps of one hue.
    #[must_use]
    pub fn heat(self, t: f64) -> Color {
        const STEPS: [Color; 4] = [Color::Black, Color::DarkGray, Color::Gray, Color::White];
        let [low, high] = self.theme.0.heat;
        let t = t.clamp(0.0, 1.0).sqrt();
        self.mapped(t, blend(low, high, t), &STEPS)
    }

    /// Signed error over -1 to 1: blue against orange, the ground at zero.
    #[must_use]
    pub fn signed(self, t: f64) -> Color {
        let (end, sixteen) = if t < 0.0 { (self.theme.0.signed[0], Color::Blue) } else { (self.theme.0.signed[1], Color::Yellow) };
        let t = t.abs().min(1.0).sqrt();
        let rgb = blend(self.theme.0.heat[0], end, t);
        let ground = if self.is_light() { Color::White } else { Color::Black };
        self.color(rgb, if t < 0.34 { ground } else { sixteen })
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Lightness of the 16 colours as terminals usually draw them.
    fn lightness(color: Color) -> u32 {
        let (r, g, b) = match color {
            Color::Rgb(r, g, b) => (r, g, b),
            Color::Black => (0, 0, 0),
            Color::Blue => (0, 0, 205),
            Color::Magenta => (205, 0, 205),
            Color::Green => (0, 205, 0),
            Color::Cyan => (0, 205, 205),
            Color::Yellow => (205, 205, 0),
            Color::DarkGray => (102, 102, 102),
            Color::Gray => (197, 197, 197),
            Color::White => (255, 255, 255),
            other => panic!("{other} has no place on a map"),
        };
        299 * u32::from(r) + 587 * u32::from(g) + 114 * u32::from(b)
    }

    #[test]
    fn maps_grow_lighter_on_dark_grounds_and_darker_on_light_ones() {
        for depth in [Depth::Sixteen, Depth::True] {
            for (theme, light) in [(Theme::DARK, false), (Theme::LIGHT, true), (Theme::CONTRAST, false), (Theme::COLORBLIND, false)] {
                let look = Look { theme, own: &[], ascii: false, depth };
                for map in [Look::heat, Look::sequential] {
                    let steps: Vec<u32> = (0..=100).map(|i| lightness(map(look, f64::from(i) / 100.0))).collect();
                    let ordered = steps.windows(2).all(|pair| if light { pair[0] >= pair[1] } else { pair[0] <= pair[1] });
                    assert!(ordered && steps.first() != steps.last(), "{depth:?} {}: {steps:?}", theme.name());
                }
            }
        }
    }
}
