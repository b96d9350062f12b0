//! From a picture to the tensor a model takes: channels, resize, crop, normalise, all from the model's own preprocessing configuration.
//! The arithmetic is Pillow's (8-bit between steps, antialiased resampling), because that is what the models were trained behind.

use candle_core::{Device, Tensor};
use fast_image_resize as fir;
use schemars::JsonSchema;
use serde::Serialize;

use super::picture::{Picture, Raster};
use crate::error::{Error, Result};
use crate::memory;

/// Largest intermediate picture after resizing: guards against a 1 x 20000 strip whose short side is scaled up.
const MAX_RESIZED: usize = 200_000_000;

/// Resampling filter, by its name in Pillow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Interpolation {
    /// Nearest neighbour.
    Nearest,
    /// The mean of the covered pixels.
    Box,
    /// Linear.
    Bilinear,
    /// A Hamming window of the width of linear.
    Hamming,
    /// Cubic with a = -0.5.
    Bicubic,
    /// Lanczos with 3 lobes.
    Lanczos,
}

/// How a picture of any shape becomes one that the model can take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Resize {
    /// The shorter side to this length, the other in proportion, its fraction cut off.
    Shortest(usize),
    /// The longer side to this length, the other in proportion.
    Longest(usize),
    /// The shorter side to this length, or less where the longer side would become longer than the other length.
    Between(usize, usize),
    /// In proportion, so that it just fits into this height and width; fractions are cut off.
    Within(usize, usize),
    /// To exactly this height and width, whatever the proportions.
    Exact(usize, usize),
    /// In proportion, so that this height and width are just covered; sides are rounded.
    Cover(usize, usize),
    /// In proportion, so that it just fits into this height and width; sides are rounded.
    Fit(usize, usize),
    /// Of a detector: as [`Self::Between`], both sides then cut down to multiples of the last number; smaller where that does not fit into the
    /// input, and at its upper left. What is left of the input is 0 after normalisation.
    Canvas(usize, usize, usize),
    /// Of a detector of mmdet: the shorter side to the first length, or less where the longer one would become longer than the second, both sides
    /// rounded; at the upper left of an input whose sides are multiples of the last number. What is left of it is 0 after normalisation.
    Rounded(usize, usize, usize),
    /// As [`Self::Between`], at the upper left of the input; what is left of the input is black.
    Corner(usize, usize),
    /// Not at all.
    None,
}

/// Everything that happens between a decoded picture and the input tensor.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Preprocess {
    /// Height and width of the input tensor, cut from the middle; what is missing is filled.
    pub size: (usize, usize),
    /// Channels of the input tensor.
    pub channels: usize,
    /// The resize before the cut.
    pub resize: Resize,
    /// The filter of the resize.
    pub interpolation: Interpolation,
    /// Factor from 8-bit values to the scale of mean and std: 1/255.
    pub rescale: f64,
    /// Mean of each channel.
    pub mean: Vec<f32>,
    /// Standard deviation of each channel.
    pub std: Vec<f32>,
    /// Value of the pixels that the cut does not find in the picture, for each channel.
    #[serde(skip)]
    pub fill: Vec<u8>,
    /// Whether it goes as on torchvision's tensors (transformers) or as on Pillow's pictures (timm): half of an odd margin is cut off or
    /// goes to the even side; across first or in Pillow's order; the nearest neighbour in 32 or 64 bits.
    #[serde(skip)]
    pub on_tensors: bool,
    /// Which configuration this was read from.
    pub from: String,
}

/// A picture ready for the model.
#[derive(Debug, Clone)]
pub struct Prepared {
    /// `(1, C, height, width)`.
    pub tensor: Tensor,
    /// The same pixels before normalisation: what the model sees, for people.
    pub view: Raster,
    /// Rows and columns that the picture takes, from the upper left; the rest is padding. All of it but for a detector.
    pub inside: (usize, usize),
}

impl Preprocess {
    /// Channels, resize, crop, normalise.
    ///
    /// # Errors
    /// When the picture is so elongated that the resize would explode, or the model takes other channels than pictures have.
    pub fn apply(&self, picture: &Picture) -> Result<Prepared> {
        if self.channels != 1 && self.channels != 3 {
            let problem = format!("expected a model of 1 or 3 input channels for pictures, found one of {}", self.channels);
            return Err(Error::content(&picture.source, problem, "verify compares such a model on tensors"));
        }
        let raster = picture.raster.with_channels(self.channels);
        if let Resize::Canvas(..) | Resize::Corner(..) | Resize::Rounded(..) = self.resize {
            return self.on_canvas(&picture.source, raster);
        }
        let resized = self.resized(&picture.source, raster)?;
        let view = self.cut(&resized);
        Ok(Prepared { tensor: self.normalise(&view)?, view, inside: self.size })
    }

    /// Rows and columns of a picture as a detector's rule resizes it; none where the rule is another.
    #[must_use]
    pub fn detector_size(&self, rows: usize, columns: usize) -> Option<(usize, usize)> {
        let (short, long, multiple) = match self.resize {
            Resize::Canvas(short, long, multiple) => (short, long, multiple),
            Resize::Corner(short, long) => (short, long, 1),
            Resize::Rounded(short, long, _) => return Some(rounded(short, long, rows, columns)),
            _ => return None,
        };
        let cut = |side: usize| (side - side % multiple.max(1)).max(multiple);
        let (height, width) = between(short, long, rows, columns);
        Some((cut(height), cut(width)))
    }

    /// How many pictures run together at most. Of a detector of regions one: where its pictures have different numbers of regions, those that
    /// are not there would have a say in the groups of the others.
    #[must_use]
    pub fn together(&self) -> usize {
        if matches!(self.resize, Resize::Rounded(..)) { 1 } else { memory::together(self.size) }
    }

    /// Rows and columns of the input that a picture needs by a detector's rule; none where the rule is another.
    #[must_use]
    pub fn input_for(&self, rows: usize, columns: usize) -> Option<(usize, usize)> {
        let (height, width) = self.detector_size(rows, columns)?;
        let Resize::Rounded(_, _, multiple) = self.resize else { return Some((height, width)) };
        Some((height.next_multiple_of(multiple.max(1)), width.next_multiple_of(multiple.max(1))))
    }

    /// At the upper left of the input, as large as the detector's rule says or as fits.
    fn on_canvas(&self, source: &str, raster: Raster) -> Result<Prepared> {
        let (height, width) = self.size;
        let (rows, columns) = self.detector_size(raster.height, raster.width).unwrap_or(self.size);
        let ratio = (height as f64 / rows as f64).min(width as f64 / columns as f64).min(1.0);
        let fits = |side: usize| ((side as f64 * ratio) as usize).max(1);
        let inside = (fits(rows), fits(columns));
        let scaled = self.to_size(source, raster, inside)?;
        // The padding of a canvas is 0 behind the normalisation, which is the mean before it.
        let black = matches!(self.resize, Resize::Corner(..));
        let mean = |m: &f32| if black { 0 } else { (f64::from(*m) / self.rescale).round().clamp(0.0, 255.0) as u8 };
        let grey: Vec<u8> = self.mean.iter().map(mean).collect();
        let mut data = Vec::with_capacity(height * width * scaled.channels);
        for y in 0..height {
            for x in 0..width {
                if y < inside.0 && x < inside.1 {
                    data.extend_from_slice(&scaled.data[(y * inside.1 + x) * scaled.channels..][..scaled.channels]);
                } else {
                    data.extend_from_slice(&grey);
                }
            }
        }
        let view = Raster { width, height, channels: scaled.channels, data };
        let tensor = if black {
            self.normalise(&view)?
        } else {
            self.normalise(&scaled)?.pad_with_zeros(2, 0, height - inside.0)?.pad_with_zeros(3, 0, width - inside.1)?
        };
        Ok(Prepared { tensor, view, inside })
    }

    /// Whether torchvision's tensors are the reference: it has no box and no Hamming filter for them, for which transformers takes Pillow.
    fn by_torchvision(&self) -> bool {
        self.on_tensors && (self.resize == Resize::None || !matches!(self.interpolation, Interpolation::Box | Interpolation::Hamming))
    }

    /// The middle of the picture, filled where it is too small: half of what is missing is cut off, but not where
    /// transformers takes Pillow.
    fn cut(&self, raster: &Raster) -> Raster {
        let (height, width) = self.size;
        let c = raster.channels;
        let start = |length: usize, side: usize| -> isize {
            match length.checked_sub(side) {
                None => -(usize::midpoint(side - length, usize::from(self.on_tensors && !self.by_torchvision())) as isize),
                Some(margin) if self.on_tensors => (margin / 2) as isize,
                Some(margin) => (margin as f64 / 2.0).round_ties_even() as isize,
            }
        };
        let (top, left) = (start(raster.height, height), start(raster.width, width));
        let mut data = Vec::with_capacity(height * width * c);
        for y in 0..height {
            for x in 0..width {
                let (from_y, from_x) = (top.checked_add_unsigned(y), left.checked_add_unsigned(x));
                let inside = |at: Option<isize>, length: usize| at.and_then(|at| usize::try_from(at).ok()).filter(|at| *at < length);
                match (inside(from_y, raster.height), inside(from_x, raster.width)) {
                    (Some(y), Some(x)) => data.extend_from_slice(&raster.data[(y * raster.width + x) * c..][..c]),
                    _ => data.extend((0..c).map(|channel| self.fill.get(channel).copied().unwrap_or_default())),
                }
            }
        }
        Raster { width, height, channels: c, data }
    }

    /// 8-bit pixels to `(1, C, height, width)`.
    fn normalise(&self, view: &Raster) -> Result<Tensor> {
        let c = self.channels;
        let mut planes = Vec::with_capacity(view.data.len());
        for channel in 0..c {
            let (mean, std) = (self.mean[channel], self.std[channel]);
            let values = view.data.iter().skip(channel).step_by(c);
            planes.extend(values.map(|&v| ((f64::from(v) * self.rescale) as f32 - mean) / std));
        }
        Ok(Tensor::from_vec(planes, (1, c, view.height, view.width), &Device::Cpu)?)
    }

    fn resized(&self, source: &str, raster: Raster) -> Result<Raster> {
        let (rows, columns) = (raster.height as f64, raster.width as f64);
        let by = |ratio: f64| ((rows / ratio).round_ties_even().max(1.0) as usize, (columns / ratio).round_ties_even().max(1.0) as usize);
        let upright = raster.width <= raster.height;
        let (height, width) = match self.resize {
            Resize::None => return Ok(raster),
            Resize::Exact(height, width) => (height, width),
            Resize::Shortest(edge) if upright => ((edge * raster.height / raster.width).max(1), edge),
            Resize::Shortest(edge) => (edge, (edge * raster.width / raster.height).max(1)),
            Resize::Longest(edge) if upright => (edge, (edge * raster.width / raster.height).max(1)),
            Resize::Longest(edge) => ((edge * raster.height / raster.width).max(1), edge),
            Resize::Rounded(short, long, _) => rounded(short, long, raster.height, raster.width),
            Resize::Between(short, long) | Resize::Corner(short, long) | Resize::Canvas(short, long, _) => {
                between(short, long, raster.height, raster.width)
            }
            Resize::Within(height, width) => {
                let ratio = (height as f64 / rows).min(width as f64 / columns);
                (((rows * ratio) as usize).max(1), ((columns * ratio) as usize).max(1))
            }
            Resize::Cover(height, width) => by((rows / height as f64).min(columns / width as f64)),
            Resize::Fit(height, width) => by((rows / height as f64).max(columns / width as f64)),
        };
        self.to_size(source, raster, (height, width))
    }

    fn to_size(&self, source: &str, raster: Raster, (height, width): (usize, usize)) -> Result<Raster> {
        if (height, width) == (raster.height, raster.width) {
            return Ok(raster);
        }
        if height.max(raster.height).saturating_mul(width) > MAX_RESIZED {
            let problem = format!("expected a picture less elongated than {}x{}", raster.width, raster.height);
            return Err(Error::content(source, problem, "crop it first"));
        }
        if self.interpolation == Interpolation::Nearest {
            return Ok(self.nearest(&raster, width, height));
        }
        // One direction after the other, rounded to 8 bits in between, in the order of Pillow 13: across first, unless that leaves away less
        // than half as many columns as there are rows to leave away. The library alone would take another order.
        let down_first = !self.by_torchvision() && raster.height.saturating_sub(height) > 2 * raster.width.saturating_sub(width);
        let between = if down_first { (raster.width, height) } else { (width, raster.height) };
        let between = self.scaled(source, &raster, between.0, between.1)?;
        self.scaled(source, &between, width, height)
    }

    /// The nearest neighbour. Where the middle of a new pixel falls between two old ones, the rounding of the reference decides.
    fn nearest(&self, raster: &Raster, width: usize, height: usize) -> Raster {
        let places = |from: usize, to: usize| -> Vec<usize> {
            let step = from as f64 / to as f64;
            let mut at = step * 0.5;
            let mut place = |index: usize| {
                let pillow = at as usize;
                at += step;
                let tensor = ((index as f32 + 0.5) * (from as f32 / to as f32)) as usize;
                (if self.on_tensors { tensor } else { pillow }).min(from - 1)
            };
            (0..to).map(&mut place).collect()
        };
        let (columns, c) = (places(raster.width, width), raster.channels);
        let mut data = Vec::with_capacity(width * height * c);
        for row in places(raster.height, height) {
            for column in &columns {
                data.extend_from_slice(&raster.data[(row * raster.width + column) * c..][..c]);
            }
        }
        Raster { width, height, channels: c, data }
    }

    fn scaled(&self, source: &str, raster: &Raster, width: usize, height: usize) -> Result<Raster> {
        if self.interpolation == Interpolation::Box {
            return Ok(boxed(raster, width, height));
        }
        let data = if raster.channels == 3 {
            self.scaled_pixels::<fir::pixels::U8x3>(source, raster, width, height)?
        } else {
            self.scaled_pixels::<fir::pixels::U8>(source, raster, width, height)?
        };
        Ok(Raster { width, height, channels: raster.channels, data })
    }

    /// Of one type of pixel each: asked for a type at run time, the library is compiled into igq for all of its fourteen.
    fn scaled_pixels<P: fir::PixelTrait>(&self, source: &str, raster: &Raster, width: usize, height: usize) -> Result<Vec<u8>> {
        let failed = |e: &dyn std::fmt::Display| Error::content(source, format!("cannot be resized ({e})"), "name another picture");
        let side = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let from = fir::images::TypedImageRef::<P>::from_buffer(side(raster.width), side(raster.height), &raster.data);
        let mut data = vec![0; width * height * raster.channels];
        let to = fir::images::TypedImage::<P>::from_buffer(side(width), side(height), &mut data);
        let (from, mut to) = (from.map_err(|e| failed(&e))?, to.map_err(|e| failed(&e))?);
        let algorithm = match self.interpolation {
            // These two are done above.
            Interpolation::Nearest | Interpolation::Box => fir::ResizeAlg::Convolution(fir::FilterType::Box),
            Interpolation::Hamming => fir::ResizeAlg::Convolution(fir::FilterType::Hamming),
            Interpolation::Bilinear => fir::ResizeAlg::Convolution(fir::FilterType::Bilinear),
            Interpolation::Bicubic => fir::ResizeAlg::Convolution(fir::FilterType::CatmullRom),
            Interpolation::Lanczos => fir::ResizeAlg::Convolution(fir::FilterType::Lanczos3),
        };
        let options = fir::ResizeOptions::new().resize_alg(algorithm);
        fir::Resizer::new().resize_typed(&from, &mut to, &options).map_err(|e| failed(&e))?;
        Ok(data)
    }

    /// One line for people: `28x28, bicubic to 28, mean 0.286, std 0.353`.
    #[must_use]
    pub fn describe(&self) -> String {
        let list = |values: &[f32]| values.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
        let resize = match self.resize {
            Resize::Shortest(edge) => format!("short side to {edge}"),
            Resize::Longest(edge) => format!("long side to {edge}"),
            Resize::Between(short, long) => format!("short side to {short}, long side to at most {long}"),
            Resize::Within(height, width) => format!("within {width}x{height}"),
            Resize::Exact(height, width) => format!("to {width}x{height}"),
            Resize::Cover(height, width) => format!("to cover {width}x{height}"),
            Resize::Fit(height, width) => format!("to fit into {width}x{height}"),
            Resize::Canvas(short, long, 1) => format!("short side to {short}, long side to at most {long}, padded"),
            Resize::Canvas(short, long, multiple) => {
                format!("short side to {short}, long side to at most {long}, in steps of {multiple}, padded")
            }
            Resize::Rounded(short, long, multiple) => {
                format!("short side to {short}, long side to at most {long}, padded to multiples of {multiple}")
            }
            Resize::Corner(short, long) => format!("short side to {short}, long side to at most {long}, the rest black"),
            Resize::None => "not resized".into(),
        };
        let filter = if self.resize == Resize::None { String::new() } else { format!("{:?}", self.interpolation).to_lowercase() + " " };
        format!("{}x{}x{}, {filter}{resize}, mean {}, std {}", self.size.1, self.size.0, self.channels, list(&self.mean), list(&self.std))
    }
}

/// The shorter side to `short`, or less where the longer one would become longer than `long`: rows and columns.
fn between(short: usize, long: usize, rows: usize, columns: usize) -> (usize, usize) {
    let (least, most) = (rows.min(columns) as f64, rows.max(columns) as f64);
    let exact = if most / least * short as f64 > long as f64 { long as f64 * least / most } else { short as f64 };
    let (edge, other) = ((exact.round_ties_even() as usize).max(1), ((exact * most / least) as usize).max(1));
    if columns <= rows { (other, edge) } else { (edge, other) }
}

/// The same as mmdet has it: both sides rounded.
fn rounded(short: usize, long: usize, rows: usize, columns: usize) -> (usize, usize) {
    let (least, most) = (rows.min(columns) as f64, rows.max(columns) as f64);
    let scale = (long as f64 / most).min(short as f64 / least);
    let side = |side: usize| ((side as f64 * scale + 0.5) as usize).max(1);
    (side(rows), side(columns))
}

/// The box filter along the one direction that changes, in the steps of Pillow: where a box ends in the middle of a pixel, the rounding
/// of the reference decides whether it takes that pixel, which no other library repeats.
fn boxed(raster: &Raster, width: usize, height: usize) -> Raster {
    let across = width != raster.width;
    let (from, to) = if across { (raster.width, width) } else { (raster.height, height) };
    let scale = from as f64 / to as f64;
    let wide = scale.max(1.0);
    let taken = |index: usize| -> Vec<usize> {
        let centre = (index as f64 + 0.5) * scale;
        let first = (centre - 0.5 * wide + 0.5).max(0.0) as usize;
        let end = ((centre + 0.5 * wide + 0.5) as usize).min(from);
        let inside = |at: &usize| {
            let off = ((*at as f64) - centre + 0.5) * (1.0 / wide);
            off > -0.5 && off <= 0.5
        };
        (first..end).filter(inside).collect()
    };
    let taken: Vec<Vec<usize>> = (0..to).map(taken).collect();
    let c = raster.channels;
    let mut data = Vec::with_capacity(width * height * c);
    for y in 0..height {
        for x in 0..width {
            let all = &taken[if across { x } else { y }];
            for channel in 0..c {
                let at = |place: &usize| if across { y * raster.width + place } else { place * raster.width + x };
                let sum: u64 = all.iter().map(|place| u64::from(raster.data[at(place) * c + channel])).sum();
                let count = all.len().max(1) as u64;
                data.push(((2 * sum + count) / (2 * count)) as u8);
            }
        }
    }
    Raster { width, height, channels: c, data }
}
