//! The picture in pixels, where the terminal has a protocol for them (kitty, sixel, iTerm2); half blocks are drawn beneath it always.
//!
//! Nothing is asked of the terminal: an answer would come among the keys, and waiting for one would hold the first frame. What it can is
//! told by its environment, the size of a cell by the system.

use std::str::FromStr;

use image::{DynamicImage, RgbImage};
use ratatui::buffer::Buffer;
use ratatui::layout::{Rect, Size};
use ratatui::widgets::Widget;
use ratatui_image::picker::{Picker, ProtocolType};
use ratatui_image::protocol::Protocol;
use ratatui_image::{FilterType, FontSize, Image, Resize};
use serde::Deserialize;

use super::app::App;
use super::hit::Hit;
use super::widget::picture;
use crate::error::{Error, Result};

/// How pictures are drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Pictures {
    /// As the terminal's environment says.
    #[default]
    Auto,
    /// In characters.
    HalfBlocks,
    /// By kitty's protocol.
    Kitty,
    /// As sixels.
    Sixel,
    /// By iTerm2's protocol.
    Iterm2,
}

impl Pictures {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Auto, Self::HalfBlocks, Self::Kitty, Self::Sixel, Self::Iterm2];

    /// The name used in flags.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::HalfBlocks => "half-blocks",
            Self::Kitty => "kitty",
            Self::Sixel => "sixel",
            Self::Iterm2 => "iterm2",
        }
    }

    /// The protocol, by what the environment says of the terminal; none for characters.
    fn protocol(self, variable: impl Fn(&str) -> String) -> Option<ProtocolType> {
        match self {
            Self::HalfBlocks => None,
            Self::Kitty => Some(ProtocolType::Kitty),
            Self::Sixel => Some(ProtocolType::Sixel),
            Self::Iterm2 => Some(ProtocolType::Iterm2),
            Self::Auto => {
                let (term, program) = (variable("TERM"), variable("TERM_PROGRAM"));
                // Multiplexers pass pictures on only where they are told to.
                if !variable("TMUX").is_empty() || !variable("STY").is_empty() || !variable("ZELLIJ").is_empty() {
                    None
                } else if term.contains("kitty") || term.contains("ghostty") || program == "ghostty" {
                    Some(ProtocolType::Kitty)
                } else if matches!(program.as_str(), "iTerm.app" | "WezTerm" | "mintty" | "rio") {
                    Some(ProtocolType::Iterm2)
                } else if ["foot", "mlterm", "contour", "sixel"].iter().any(|name| term.contains(name)) {
                    Some(ProtocolType::Sixel)
                } else {
                    None
                }
            }
        }
    }
}

impl FromStr for Pictures {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let known = Self::ALL.into_iter().find(|one| one.name() == text);
        known.ok_or_else(|| Error::setting("pictures", text, format!("one of {}", Self::ALL.map(Self::name).join(", "))))
    }
}

/// Pictures in pixels: the last one is kept as it was encoded.
pub struct Graphics {
    picker: Option<Picker>,
    last: Option<(Key, Protocol)>,
}

/// What an encoded picture shows: the answer, the picture, and how large.
type Key = (u64, usize, Size);

impl Graphics {
    /// As asked, where the system tells how large a cell is.
    #[must_use]
    pub fn new(asked: Pictures) -> Self {
        let protocol = asked.protocol(|name| std::env::var(name).unwrap_or_default());
        let cell = protocol.and_then(|_| crossterm::terminal::window_size().ok()).and_then(|size| {
            let (width, height) = (size.width.checked_div(size.columns)?, size.height.checked_div(size.rows)?);
            (width > 0 && height > 0).then_some(FontSize { width, height })
        });
        Self::of(protocol, cell)
    }

    fn of(protocol: Option<ProtocolType>, cell: Option<FontSize>) -> Self {
        let picker = protocol.zip(cell).map(|(protocol, cell)| {
            #[expect(deprecated, reason = "the other way asks the terminal and reads its answer from among the keys")]
            let mut picker = Picker::from_fontsize(cell);
            picker.set_protocol_type(protocol);
            picker
        });
        Self { picker, last: None }
    }

    /// Lays pixels over the picture that the last frame drew in characters.
    pub fn draw(&mut self, app: &App, buf: &mut Buffer) {
        let (Some(picker), Some(snapshot)) = (&self.picker, &app.snapshot) else { return };
        let Some((area, _)) = app.hits.iter().find(|(_, hit)| *hit == Hit::Picture) else { return };
        let key = (snapshot.id, snapshot.picture, area.as_size());
        if self.last.as_ref().is_none_or(|(known, _)| *known != key) {
            let view = &snapshot.view;
            let pixels = picture::tinted(view, snapshot.report.model.tokens.grid);
            let image = RgbImage::from_raw(view.width as u32, view.height as u32, pixels.into_iter().flatten().collect());
            let resize = Resize::Scale(Some(FilterType::Nearest));
            let encoded = image.and_then(|image| picker.new_protocol(DynamicImage::ImageRgb8(image), area.as_size(), resize).ok());
            self.last = encoded.map(|protocol| (key, protocol));
        }
        if let Some((_, protocol)) = &self.last {
            let size = protocol.size();
            let place = Rect { x: area.x + area.width.saturating_sub(size.width) / 2, width: size.width, height: size.height, ..area };
            Image::new(protocol).render(place.intersection(area), buf);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn auto(pairs: &[(&str, &str)]) -> Option<ProtocolType> {
        let find = |name: &str| pairs.iter().find(|(key, _)| *key == name).map_or(String::new(), |(_, value)| (*value).to_string());
        Pictures::Auto.protocol(find)
    }

    #[test]
    fn the_environment_tells_the_protocol_and_a_multiplexer_means_characters() {
        assert_eq!(auto(&[("TERM", "xterm-kitty")]), Some(ProtocolType::Kitty));
        assert_eq!(auto(&[("TERM", "foot")]), Some(ProtocolType::Sixel));
        assert_eq!(auto(&[("TERM_PROGRAM", "iTerm.app")]), Some(ProtocolType::Iterm2));
        assert_eq!(auto(&[("TERM", "xterm-kitty"), ("TMUX", "/tmp/tmux")]), None);
        assert_eq!(auto(&[("TERM", "xterm-256color")]), None);
        assert_eq!(Pictures::HalfBlocks.protocol(|_| "xterm-kitty".into()), None);
    }

    #[test]
    fn every_protocol_encodes_a_picture_of_the_size_asked_for() {
        let pixels = RgbImage::from_fn(32, 32, |x, y| image::Rgb([(x * 8) as u8, (y * 8) as u8, 90]));
        for (protocol, starts) in [(ProtocolType::Kitty, "\x1b_G"), (ProtocolType::Sixel, "\x1bP"), (ProtocolType::Iterm2, "\x1b]1337")] {
            let graphics = Graphics::of(Some(protocol), Some(FontSize { width: 8, height: 16 }));
            let picker = graphics.picker.unwrap();
            let size = Size { width: 20, height: 10 };
            let made =
                picker.new_protocol(DynamicImage::ImageRgb8(pixels.clone()), size, Resize::Scale(Some(FilterType::Nearest))).unwrap();
            let mut buf = Buffer::empty(Rect::new(0, 0, 20, 10));
            Image::new(&made).render(buf.area, &mut buf);
            let all: String = buf.content.iter().map(ratatui::buffer::Cell::symbol).collect();
            assert!(all.contains(starts), "{protocol:?}");
        }
    }
}
