//! Pictures: decode, orient, flatten to 8-bit grey or colour, within a limit on pixels. No resizing here.

use std::io::{Cursor, Read};
use std::path::Path;

use image::{DynamicImage, ImageDecoder, ImageReader};

use crate::error::{Error, Result};
use crate::read;

/// Most pixels that a picture may have, checked before it is decoded: 100 million.
pub const MAX_PIXELS: u64 = 100_000_000;

/// 8-bit pixels, row by row, interleaved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Raster {
    /// Pixels a row.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// 1 (grey) or 3 (red, green, blue).
    pub channels: usize,
    /// `height * width * channels` values.
    pub data: Vec<u8>,
}

impl Raster {
    /// The same picture with 1 or 3 channels; grey is Rec. 601 luma in Pillow's integer arithmetic.
    #[must_use]
    pub fn with_channels(&self, channels: usize) -> Self {
        let data = match (self.channels, channels) {
            (3, 1) => self.data.as_chunks::<3>().0.iter().map(|&rgb| luma(rgb)).collect(),
            (1, 3) => self.data.iter().flat_map(|&v| [v; 3]).collect(),
            _ => self.data.clone(),
        };
        Self { channels, data, ..*self }
    }

    /// The rectangle at (`x`, `y`), which must lie inside.
    #[must_use]
    pub fn crop(&self, x: usize, y: usize, width: usize, height: usize) -> Self {
        let row = |r: usize| {
            let start = ((y + r) * self.width + x) * self.channels;
            &self.data[start..start + width * self.channels]
        };
        let data = (0..height).flat_map(row).copied().collect();
        Self { width, height, channels: self.channels, data }
    }

    /// Colour at (`x`, `y`).
    #[must_use]
    pub fn rgb(&self, x: usize, y: usize) -> [u8; 3] {
        let at = (y * self.width + x) * self.channels;
        if self.channels == 3 { [self.data[at], self.data[at + 1], self.data[at + 2]] } else { [self.data[at]; 3] }
    }
}

fn luma([r, g, b]: [u8; 3]) -> u8 {
    let sum = u32::from(r) * 19_595 + u32::from(g) * 38_470 + u32::from(b) * 7_471 + 0x8000;
    (sum >> 16) as u8
}

/// A decoded picture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Picture {
    /// Short name for people.
    pub name: String,
    /// Where it came from.
    pub source: String,
    /// Its pixels, upright.
    pub raster: Raster,
    /// Its class, where it is known.
    pub label: Option<usize>,
}

impl Picture {
    /// Reads PNG, JPEG, WebP, GIF (first frame) or BMP; the content decides, not the extension.
    ///
    /// # Errors
    /// When the file cannot be read, is not a picture, or has more than [`MAX_PIXELS`] pixels.
    pub fn open(path: &Path) -> Result<Self> {
        let bytes = read::bytes(path, read::PICTURE)?;
        let source = path.display().to_string();
        let name = path.file_name().map_or_else(|| source.clone(), |n| n.to_string_lossy().into());
        Ok(Self { name, raster: decode(&source, &bytes)?, source, label: None })
    }

    /// Reads one picture of the same kinds from standard input.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn from_stdin() -> Result<Self> {
        let (mut bytes, source) = (Vec::new(), "standard input");
        std::io::stdin().lock().take(read::PICTURE).read_to_end(&mut bytes).map_err(Error::io("read", Path::new(source)))?;
        Ok(Self { name: "stdin".into(), raster: decode(source, &bytes)?, source: source.into(), label: None })
    }
}

/// Decodes a picture held in memory; `source` is the name used in messages.
///
/// # Errors
/// As [`Picture::open`].
pub fn decode(source: &str, bytes: &[u8]) -> Result<Raster> {
    let unreadable = |e: image::ImageError| {
        Error::content(
            source,
            format!("expected a PNG, JPEG, WebP, GIF or BMP picture, found something else or a damaged one ({e})"),
            "name another picture",
        )
    };
    let reader = ImageReader::new(Cursor::new(bytes)).with_guessed_format().map_err(|e| unreadable(image::ImageError::IoError(e)))?;
    let mut decoder = reader.into_decoder().map_err(unreadable)?;
    let (width, height) = decoder.dimensions();
    if u64::from(width) * u64::from(height) > MAX_PIXELS {
        return Err(Error::content(source, format!("expected at most {MAX_PIXELS} pixels, found {width}x{height}"), "scale it down first"));
    }
    if width == 0 || height == 0 {
        return Err(Error::content(source, format!("expected at least one pixel, found {width}x{height}"), "name another picture"));
    }
    if bytes.starts_with(b"\xff\xd8") && !jpeg_ends(bytes) {
        return Err(Error::content(source, "expected a whole JPEG, found one whose end is missing", "copy or download it again"));
    }
    let orientation = decoder.orientation().map_err(unreadable)?;
    let mut image = DynamicImage::from_decoder(decoder).map_err(unreadable)?;
    image.apply_orientation(orientation);
    Ok(flatten(&image))
}

/// Whether the data of a JPEG's scans come to an end: the decoder fills what is missing with grey, without a word.
fn jpeg_ends(bytes: &[u8]) -> bool {
    let mut at = 2;
    // Segments up to the first scan; thumbnails with an end of their own lie inside of them.
    while let Some(&[0xff, marker]) = bytes.get(at..at + 2) {
        if marker == 0xda {
            return bytes[at..].windows(2).any(|pair| pair == [0xff, 0xd9]);
        }
        let Some(&[high, low]) = bytes.get(at + 2..at + 4) else { return false };
        at += 2 + usize::from(u16::from_be_bytes([high, low])).max(2);
    }
    bytes[at.min(bytes.len())..].windows(2).any(|pair| pair == [0xff, 0xd9])
}

fn flatten(image: &DynamicImage) -> Raster {
    let (width, height) = (image.width() as usize, image.height() as usize);
    let color = image.color();
    // Transparency is left away, as Pillow's `convert("RGB")` does, which timm and transformers call: what lies below it counts.
    if color.has_color() {
        Raster { width, height, channels: 3, data: image.to_rgb8().into_raw() }
    } else {
        Raster { width, height, channels: 1, data: image.to_luma8().into_raw() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn png(image: &DynamicImage) -> Vec<u8> {
        let mut bytes = Cursor::new(Vec::new());
        image.write_to(&mut bytes, image::ImageFormat::Png).unwrap();
        bytes.into_inner()
    }

    #[test]
    fn transparency_is_left_away() {
        let mut image = image::RgbaImage::new(2, 1);
        image.put_pixel(0, 0, image::Rgba([255, 0, 0, 255]));
        image.put_pixel(1, 0, image::Rgba([10, 20, 30, 0]));
        let raster = decode("test", &png(&image.into())).unwrap();
        assert_eq!(raster.data, [255, 0, 0, 10, 20, 30]);
    }

    #[test]
    fn grey_stays_grey_and_sixteen_bits_become_eight() {
        let image = image::ImageBuffer::from_raw(2, 1, vec![0_u16, 65_535]).unwrap();
        let raster = decode("test", &png(&DynamicImage::ImageLuma16(image))).unwrap();
        assert_eq!((raster.channels, raster.data), (1, vec![0, 255]));
    }

    #[test]
    fn text_is_not_a_picture_and_the_message_says_so() {
        let error = decode("notes.png", b"just text").unwrap_err().to_string();
        assert!(error.starts_with("notes.png: expected a PNG"), "{error}");
    }

    #[test]
    fn grey_is_the_luma_that_pillow_computes() {
        // Image.new("RGB", (1, 1), (10, 200, 30)).convert("L").getpixel((0, 0)) == 124
        assert_eq!(luma([10, 200, 30]), 124);
        assert_eq!(luma([255, 255, 255]), 255);
    }
}
