//! From a picture to the tensor a model takes: channels, resize, crop, normalise, all from the model's own preprocessing configuration.
//! The arithmetic is Pillow's (8-bit between steps, antialiased resampling), because that is what the models were trained behind.

use candle_core::{Device, Tensor};
use fast_image_resize as fir;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;

use super::picture::{Picture, Raster};
use crate::error::{Error, Result};

/// Largest intermediate picture after resizing: guards against a 1 x 20000 strip whose short side is scaled up.
const MAX_RESIZED: usize = 200_000_000;

/// Resampling filter, by its name in Pillow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Interpolation {
    /// Nearest neighbour.
    Nearest,
    /// Linear.
    Bilinear,
    /// Cubic with a = -0.5.
    Bicubic,
    /// Lanczos with 3 lobes.
    Lanczos,
}

/// How a picture of any shape becomes one that the model can take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Resize {
    /// The shorter side to this length, the other in proportion.
    Shortest(usize),
    /// To exactly this height and width, whatever the proportions.
    Exact(usize, usize),
}

/// Everything that happens between a decoded picture and the input tensor.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Preprocess {
    /// Height and width of the input tensor, cut from the middle.
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
}

impl Preprocess {
    /// Reads timm's `pretrained_cfg` or transformers' `preprocessor_config.json`.
    ///
    /// # Errors
    /// When a value is there but unusable, such as a standard deviation of zero.
    pub fn from_config(config: Option<&Value>, preprocessor: Option<&Value>, channels: usize, size: (usize, usize)) -> Result<Self> {
        // A preprocessor without mean is one that transformers wraps around timm's configuration.
        let own = preprocessor.filter(|p| p.get("image_mean").is_some());
        let timm = preprocessor.and_then(|p| p.get("pretrained_cfg")).or_else(|| config.and_then(|c| c.get("pretrained_cfg")));
        let made = match (own, timm) {
            (Some(hf), _) => Self::from_transformers(hf, channels, size)?,
            (None, Some(timm)) => Self::from_timm(timm, channels, size)?,
            (None, None) => Self {
                size,
                channels,
                resize: if size.0 == size.1 { Resize::Shortest(size.0) } else { Resize::Exact(size.0, size.1) },
                interpolation: Interpolation::Bicubic,
                rescale: 1.0 / 255.0,
                mean: vec![0.5; channels],
                std: vec![0.5; channels],
                from: "assumed (no configuration): mean and std 0.5".into(),
            },
        };
        Ok(made)
    }

    fn from_timm(cfg: &Value, channels: usize, size: (usize, usize)) -> Result<Self> {
        let crop_pct = cfg.get("crop_pct").and_then(Value::as_f64).unwrap_or(0.875);
        if !(crop_pct > 0.0 && crop_pct <= 1.0) {
            return Err(Error::setting("crop_pct of config.json", crop_pct, "a number in (0, 1]"));
        }
        let scaled = |side: usize| (side as f64 / crop_pct).floor() as usize;
        let resize = match cfg.get("crop_mode").and_then(Value::as_str) {
            Some("squash") => Resize::Exact(scaled(size.0), scaled(size.1)),
            _ if size.0 == size.1 => Resize::Shortest(scaled(size.0)),
            _ => Resize::Exact(scaled(size.0), scaled(size.1)),
        };
        let interpolation = match cfg.get("interpolation").and_then(Value::as_str) {
            Some("nearest") => Interpolation::Nearest,
            Some("bilinear") => Interpolation::Bilinear,
            Some("lanczos") => Interpolation::Lanczos,
            _ => Interpolation::Bicubic,
        };
        Ok(Self {
            size,
            channels,
            resize,
            interpolation,
            rescale: 1.0 / 255.0,
            mean: per_channel(cfg.get("mean"), "mean", channels, 0.5)?,
            std: positive(per_channel(cfg.get("std"), "std", channels, 0.5)?)?,
            from: "pretrained_cfg of config.json".into(),
        })
    }

    fn from_transformers(cfg: &Value, channels: usize, size: (usize, usize)) -> Result<Self> {
        let number = |v: &Value| v.as_u64().and_then(|n| usize::try_from(n).ok());
        let edge = |key: &str| cfg.get("size").and_then(|s| s.get(key)).and_then(number);
        let resize = match (edge("shortest_edge"), edge("height"), edge("width")) {
            (Some(edge), _, _) => Resize::Shortest(edge),
            (None, Some(height), Some(width)) => Resize::Exact(height, width),
            // A bare number is what the feature extractors of old wrote, which made a square of any picture.
            _ => cfg.get("size").and_then(number).map_or(Resize::Exact(size.0, size.1), |edge| Resize::Exact(edge, edge)),
        };
        let fits = match resize {
            Resize::Shortest(edge) => edge >= size.0.max(size.1),
            Resize::Exact(height, width) => height >= size.0 && width >= size.1,
        };
        let interpolation = match cfg.get("resample").and_then(Value::as_u64) {
            Some(0) => Interpolation::Nearest,
            Some(1) => Interpolation::Lanczos,
            Some(3) => Interpolation::Bicubic,
            _ => Interpolation::Bilinear,
        };
        Ok(Self {
            size,
            channels,
            resize: if fits { resize } else { Resize::Exact(size.0, size.1) },
            interpolation,
            rescale: cfg.get("rescale_factor").and_then(Value::as_f64).unwrap_or(1.0 / 255.0),
            mean: per_channel(cfg.get("image_mean"), "image_mean", channels, 0.5)?,
            std: positive(per_channel(cfg.get("image_std"), "image_std", channels, 0.5)?)?,
            from: "preprocessor_config.json".into(),
        })
    }

    /// Channels, resize, crop, normalise.
    ///
    /// # Errors
    /// When the picture is so elongated that the resize would explode.
    pub fn apply(&self, picture: &Picture) -> Result<Prepared> {
        let raster = picture.raster.with_channels(self.channels);
        let resized = self.resized(&picture.source, raster)?;
        let (height, width) = self.size;
        // torchvision's centre crop: half the margin, a tie to the even side.
        let middle = |length: usize, side: usize| ((length - side) as f64 / 2.0).round_ties_even() as usize;
        let (x, y) = (middle(resized.width, width), middle(resized.height, height));
        let view = resized.crop(x, y, width, height);
        Ok(Prepared { tensor: self.normalise(&view)?, view })
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
        let (height, width) = match self.resize {
            Resize::Exact(height, width) => (height, width),
            Resize::Shortest(edge) if raster.width <= raster.height => (edge * raster.height / raster.width, edge),
            Resize::Shortest(edge) => (edge, edge * raster.width / raster.height),
        };
        if (height, width) == (raster.height, raster.width) {
            return Ok(raster);
        }
        if height.max(raster.height).saturating_mul(width) > MAX_RESIZED {
            let problem = format!("expected a picture less elongated than {}x{}", raster.width, raster.height);
            return Err(Error::content(source, problem, "crop it first"));
        }
        // One direction after the other, rounded to 8 bits in between, in the order of Pillow 13: across first, unless that leaves away less
        // than half as many columns as there are rows to leave away. The library alone would take another order.
        let down_first = raster.height.saturating_sub(height) > 2 * raster.width.saturating_sub(width);
        let between = if down_first { (raster.width, height) } else { (width, raster.height) };
        let between = self.scaled(source, &raster, between.0, between.1)?;
        self.scaled(source, &between, width, height)
    }

    fn scaled(&self, source: &str, raster: &Raster, width: usize, height: usize) -> Result<Raster> {
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
            Interpolation::Nearest => fir::ResizeAlg::Nearest,
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
            Resize::Exact(height, width) => format!("to {width}x{height}"),
        };
        let filter = format!("{:?}", self.interpolation).to_lowercase();
        format!("{}x{}x{}, {filter} {resize}, mean {}, std {}", self.size.1, self.size.0, self.channels, list(&self.mean), list(&self.std))
    }
}

fn per_channel(value: Option<&Value>, name: &str, channels: usize, default: f32) -> Result<Vec<f32>> {
    let Some(value) = value.filter(|v| !v.is_null()) else { return Ok(vec![default; channels]) };
    let numbers: Vec<f32> = match value.as_array() {
        Some(list) => list.iter().filter_map(Value::as_f64).map(|v| v as f32).collect(),
        None => value.as_f64().map(|v| v as f32).into_iter().collect(),
    };
    match numbers.len() {
        n if n == channels => Ok(numbers),
        1 => Ok(vec![numbers[0]; channels]),
        _ => Err(Error::setting(format!("{name} of the preprocessing configuration"), value, format!("{channels} numbers"))),
    }
}

fn positive(std: Vec<f32>) -> Result<Vec<f32>> {
    match std.iter().find(|s| s.is_nan() || **s <= 0.0) {
        Some(bad) => Err(Error::setting("std of the preprocessing configuration", bad, "numbers above 0")),
        None => Ok(std),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_bare_size_of_an_old_feature_extractor_is_a_square() {
        let deit =
            json!({"size": 256, "crop_size": 224, "resample": 3, "image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]});
        let made = Preprocess::from_config(None, Some(&deit), 3, (224, 224)).unwrap();
        assert_eq!((made.resize, made.interpolation, made.mean[0]), (Resize::Exact(256, 256), Interpolation::Bicubic, 0.485));
    }

    #[test]
    fn without_a_configuration_no_picture_is_smaller_than_what_is_cut_from_it() {
        let raster = Raster { width: 300, height: 300, channels: 3, data: vec![9; 3 * 300 * 300] };
        let square = Picture { name: "square".into(), source: "square.png".into(), raster, label: None };
        for size in [(224, 448), (448, 224), (224, 224)] {
            let assumed = Preprocess::from_config(None, None, 3, size).unwrap();
            assert_eq!(assumed.apply(&square).unwrap().tensor.dims(), [1, 3, size.0, size.1]);
        }
    }

    #[test]
    fn what_transformers_wraps_around_timm_is_read_as_timm() {
        let timm = json!({"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225], "crop_pct": 0.9, "interpolation": "bicubic"});
        let (config, wrapper) = (json!({ "pretrained_cfg": timm }), json!({"image_processor_type": "TimmWrapperImageProcessor"}));
        let made = Preprocess::from_config(Some(&config), Some(&wrapper), 3, (224, 224)).unwrap();
        assert_eq!((made.resize, made.mean[0]), (Resize::Shortest(248), 0.485));
    }
}
