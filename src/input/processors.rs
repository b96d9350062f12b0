//! From a model's preprocessing configuration to [`Preprocess`], as timm and transformers read it: each processor class of transformers
//! has its own defaults; what may change the pixels and is not known is refused by name.

use serde_json::Value;

use super::preprocess::{Interpolation, Preprocess, Resize};
use crate::error::{Error, Result};

/// Largest side of a resize or a crop, in pixels.
const MAX_SIDE: u64 = 16_384;
const IMAGENET: ([f32; 3], [f32; 3]) = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]);
const CLIP: ([f32; 3], [f32; 3]) = ([0.481_454_66, 0.457_827_5, 0.408_210_73], [0.268_629_54, 0.261_302_6, 0.275_777_1]);
const HALF: ([f32; 3], [f32; 3]) = ([0.5; 3], [0.5; 3]);

/// The defaults of a processor class of transformers.
#[derive(Debug, Clone, Copy)]
struct Class {
    name: &'static str,
    resample: u64,
    mean_std: ([f32; 3], [f32; 3]),
    /// The default size, and whether a bare number or this means a square.
    size: u64,
    square: bool,
    crop: Option<u64>,
    normalizes: bool,
}

const fn class(name: &'static str, resample: u64, mean_std: ([f32; 3], [f32; 3]), size: u64, square: bool, crop: Option<u64>) -> Class {
    Class { name, resample, mean_std, size, square, crop, normalizes: true }
}

/// As transformers 5.24 has them.
const CLASSES: [Class; 14] = [
    class("ViTImageProcessor", 2, HALF, 224, true, None),
    class("DeiTImageProcessor", 3, HALF, 256, true, Some(224)),
    class("BitImageProcessor", 3, CLIP, 224, false, Some(224)),
    class("ConvNextImageProcessor", 3, HALF, 384, false, None),
    class("CLIPImageProcessor", 3, CLIP, 224, false, Some(224)),
    class("ChineseCLIPImageProcessor", 3, CLIP, 224, true, Some(224)),
    class("SiglipImageProcessor", 3, HALF, 224, true, None),
    class("EfficientNetImageProcessor", 3, HALF, 346, true, None),
    class("BeitImageProcessor", 3, HALF, 224, true, None),
    class("LevitImageProcessor", 3, IMAGENET, 224, false, Some(224)),
    class("PvtImageProcessor", 3, IMAGENET, 224, true, None),
    class("PerceiverImageProcessor", 3, IMAGENET, 224, true, Some(256)),
    class("DINOv3ViTImageProcessor", 2, IMAGENET, 224, true, None),
    class("PoolFormerImageProcessor", 3, IMAGENET, 224, false, Some(224)),
];

/// Keys that are read here or change no pixel.
const KNOWN: [&str; 25] = [
    "image_processor_type",
    "feature_extractor_type",
    "processor_class",
    "size",
    "crop_size",
    "resample",
    "rescale_factor",
    "image_mean",
    "image_std",
    "do_resize",
    "do_center_crop",
    "do_rescale",
    "do_normalize",
    "do_convert_rgb",
    "do_reduce_labels",
    "reduce_labels",
    "default_to_square",
    "crop_pct",
    "include_top",
    "rescale_offset",
    "data_format",
    "input_data_format",
    "return_tensors",
    "device",
    "disable_grouping",
];

impl Preprocess {
    /// Reads timm's `pretrained_cfg` or transformers' `preprocessor_config.json`.
    ///
    /// # Errors
    /// When a value is there but unusable, such as a standard deviation of zero, or a key that may change the pixels is not known.
    pub fn from_config(config: Option<&Value>, preprocessor: Option<&Value>, channels: usize, size: (usize, usize)) -> Result<Self> {
        // What transformers wraps around a model of timm says nothing itself.
        let type_of = |p: &Value| p.get("image_processor_type").and_then(Value::as_str) == Some("TimmWrapperImageProcessor");
        let wrapped = preprocessor.and_then(|p| p.get("pretrained_cfg"));
        let own = preprocessor.filter(|p| wrapped.is_none() && !type_of(p));
        let timm = wrapped.or_else(|| config.and_then(|c| c.get("pretrained_cfg")));
        match (own, timm) {
            (Some(hf), _) => from_transformers(hf, config, channels, size),
            (None, Some(timm)) => from_timm(timm, channels, size),
            (None, None) => Ok(Self {
                size,
                channels,
                resize: if size.0 == size.1 { Resize::Shortest(size.0) } else { Resize::Cover(size.0, size.1) },
                interpolation: Interpolation::Bicubic,
                rescale: 1.0 / 255.0,
                mean: vec![0.5; channels],
                std: vec![0.5; channels],
                fill: vec![0; channels],
                from: "assumed (no configuration): mean and std 0.5".into(),
            }),
        }
    }
}

fn refused(file: &str, problem: String) -> Error {
    Error::content(file, problem, "correct it, or name a checkpoint whose preprocessing igq knows")
}

fn from_timm(cfg: &Value, channels: usize, size: (usize, usize)) -> Result<Preprocess> {
    const FILE: &str = "pretrained_cfg of config.json";
    let crop_pct = match cfg.get("crop_pct").filter(|v| !v.is_null()) {
        None => 0.875,
        Some(value) => value
            .as_f64()
            .filter(|pct| *pct > 0.01 && *pct <= 4.0)
            .ok_or_else(|| refused(FILE, format!("crop_pct: expected a number above 0, found {value}")))?,
    };
    let scaled = |side: usize| ((side as f64 / crop_pct).floor() as usize).max(1);
    let scale = (scaled(size.0), scaled(size.1));
    let mean = per_channel(cfg.get("mean"), "mean", channels, IMAGENET.0)?;
    let mut fill = vec![0; channels];
    let resize = match cfg.get("crop_mode").and_then(Value::as_str) {
        Some("squash") => Resize::Exact(scale.0, scale.1),
        Some("border") => {
            fill = mean.iter().map(|m| (255.0 * m).round_ties_even().clamp(0.0, 255.0) as u8).collect();
            Resize::Fit(scale.0, scale.1)
        }
        None | Some("center") if scale.0 == scale.1 => Resize::Shortest(scale.0),
        None | Some("center") => Resize::Cover(scale.0, scale.1),
        Some(other) => return Err(refused(FILE, format!("crop_mode: expected center, squash or border, found `{other}`"))),
    };
    let interpolation = match cfg.get("interpolation").and_then(Value::as_str) {
        None | Some("bicubic") => Interpolation::Bicubic,
        // timm draws one for every training picture; linear is what it falls back on.
        Some("bilinear" | "random") => Interpolation::Bilinear,
        Some("nearest") => Interpolation::Nearest,
        Some("lanczos") => Interpolation::Lanczos,
        Some("box") => Interpolation::Box,
        Some("hamming") => Interpolation::Hamming,
        Some(other) => return Err(refused(FILE, format!("interpolation: expected a filter of Pillow, found `{other}`"))),
    };
    let std = positive(per_channel(cfg.get("std"), "std", channels, IMAGENET.1)?)?;
    let missing: Vec<&str> = ["mean", "std"].into_iter().filter(|key| cfg.get(key).is_none_or(Value::is_null)).collect();
    let from = if missing.is_empty() { FILE.into() } else { format!("{FILE}, {} missing there: timm's default", missing.join(" and ")) };
    Ok(Preprocess { size, channels, resize, interpolation, rescale: 1.0 / 255.0, mean, std, fill, from })
}

/// The class that a file names, or that transformers takes for the model where it names none.
fn class_of(cfg: &Value, config: Option<&Value>) -> Result<(Class, bool)> {
    const FILE: &str = "preprocessor_config.json";
    let named = ["image_processor_type", "feature_extractor_type"].iter().find_map(|key| cfg.get(key).and_then(Value::as_str));
    let name = match named {
        Some(name) => name.trim_end_matches("Fast").trim_end_matches("Pil").replace("FeatureExtractor", "ImageProcessor"),
        None => match config.and_then(|c| c.get("model_type")).and_then(Value::as_str) {
            Some("deit") => "DeiTImageProcessor",
            Some("dinov2" | "dinov2_with_registers") => "BitImageProcessor",
            _ => "ViTImageProcessor",
        }
        .into(),
    };
    if let Some(found) = CLASSES.into_iter().find(|class| class.name == name) {
        return Ok((found, named.is_some()));
    }
    let needed = ["size", "resample", "image_mean", "image_std", "do_center_crop"];
    match needed.iter().find(|key| cfg.get(key).is_none()) {
        Some(key) => {
            let known = CLASSES.map(|class| class.name).join(", ");
            Err(refused(FILE, format!("the processor `{name}` is not known (known: {known}) and the file does not give `{key}`")))
        }
        None => Ok((CLASSES[0], true)),
    }
}

fn from_transformers(cfg: &Value, config: Option<&Value>, channels: usize, size: (usize, usize)) -> Result<Preprocess> {
    const FILE: &str = "preprocessor_config.json";
    let (class, named) = class_of(cfg, config)?;
    if let Some(keys) = cfg.as_object() {
        let on = |value: &Value| !(value.is_null() || value.as_bool() == Some(false));
        if let Some((key, value)) = keys.iter().find(|(key, value)| !KNOWN.contains(&key.as_str()) && !key.starts_with('_') && on(value)) {
            return Err(refused(FILE, format!("`{key}` ({value}) is not known and may change the pixels")));
        }
    }
    let switch = |key: &str, default: bool| cfg.get(key).and_then(Value::as_bool).unwrap_or(default);
    if switch("rescale_offset", false) {
        return Err(refused(FILE, "`rescale_offset` moves the values, which igq does not do".into()));
    }
    let sides = |value: &Value, key: &str, square: bool| -> Result<Resize> {
        let number = |v: &Value| -> Result<usize> {
            let bad = || refused(FILE, format!("{key}: expected 1 to {MAX_SIDE} pixels, found {v}"));
            v.as_u64().filter(|n| (1..=MAX_SIDE).contains(n)).map(|n| n as usize).ok_or_else(bad)
        };
        let of = |name: &str| value.get(name).filter(|v| !v.is_null()).map(number).transpose();
        Ok(match (of("height")?, of("width")?, of("shortest_edge")?, of("longest_edge")?, value.as_array()) {
            (Some(height), Some(width), ..) => Resize::Exact(height, width),
            (None, None, Some(edge), None, _) => Resize::Shortest(edge),
            (None, None, None, Some(edge), _) => Resize::Longest(edge),
            (None, None, None, None, Some(list)) if list.len() == 2 => Resize::Exact(number(&list[0])?, number(&list[1])?),
            (None, None, None, None, None) if value.is_number() => {
                let edge = number(value)?;
                if square { Resize::Exact(edge, edge) } else { Resize::Shortest(edge) }
            }
            _ => {
                return Err(refused(
                    FILE,
                    format!("{key}: expected a number, height and width, shortest_edge or longest_edge, found {value}"),
                ));
            }
        })
    };
    let square = cfg.get("default_to_square").and_then(Value::as_bool).unwrap_or(class.square && class.name != "SiglipImageProcessor");
    let default_size =
        if class.square { Resize::Exact(class.size as usize, class.size as usize) } else { Resize::Shortest(class.size as usize) };
    let mut resize = match cfg.get("size").filter(|v| !v.is_null()) {
        Some(value) => sides(value, "size", square)?,
        None => default_size,
    };
    let crop = match cfg.get("crop_size").filter(|v| !v.is_null()) {
        Some(value) => match sides(value, "crop_size", true)? {
            Resize::Exact(height, width) => Some((height, width)),
            Resize::Shortest(edge) | Resize::Longest(edge) => Some((edge, edge)),
            _ => None,
        },
        None => class.crop.map(|side| (side as usize, side as usize)),
    };
    // A file that names no class cuts where it says what to.
    let crops = switch("do_center_crop", if named { class.crop.is_some() } else { cfg.get("crop_size").is_some() || class.crop.is_some() });
    let mut cut = crop.filter(|_| crops);
    if class.name == "ConvNextImageProcessor"
        && let Resize::Shortest(edge) = resize
    {
        let pct = cfg.get("crop_pct").and_then(Value::as_f64).unwrap_or(224.0 / 256.0);
        if edge < 384 {
            (resize, cut) = (Resize::Shortest((edge as f64 / pct) as usize), Some((edge, edge)));
        } else {
            (resize, cut) = (Resize::Exact(edge, edge), None);
        }
    }
    if !switch("do_resize", true) {
        resize = Resize::None;
    }
    let given = match (cut, resize) {
        (Some(cut), _) => Some(cut),
        (None, Resize::Exact(height, width)) => Some((height, width)),
        _ => None,
    };
    if given != Some(size) {
        let found = given.map_or_else(|| "pictures of any shape".to_string(), |(height, width)| format!("{width}x{height} pixels"));
        let problem = format!("the processor gives {found}, the model takes {}x{}", size.1, size.0);
        return Err(refused(FILE, problem));
    }
    let interpolation = match cfg.get("resample").filter(|v| !v.is_null()).map_or(Some(class.resample), Value::as_u64) {
        Some(0) => Interpolation::Nearest,
        Some(1) => Interpolation::Lanczos,
        Some(2) => Interpolation::Bilinear,
        Some(3) => Interpolation::Bicubic,
        Some(4) => Interpolation::Box,
        Some(5) => Interpolation::Hamming,
        _ => return Err(refused(FILE, format!("resample: expected 0 to 5, Pillow's filters, found {}", cfg["resample"]))),
    };
    let rescale = match cfg.get("rescale_factor").filter(|v| !v.is_null()) {
        _ if !switch("do_rescale", true) => 1.0,
        None => 1.0 / 255.0,
        Some(value) => value
            .as_f64()
            .filter(|f| *f > 0.0 && *f <= 1000.0)
            .ok_or_else(|| refused(FILE, format!("rescale_factor: expected a number above 0, found {value}")))?,
    };
    let (mut mean, mut std) = (vec![0.0; channels], vec![1.0; channels]);
    if switch("do_normalize", class.normalizes) {
        mean = per_channel(cfg.get("image_mean"), "image_mean", channels, class.mean_std.0)?;
        std = positive(per_channel(cfg.get("image_std"), "image_std", channels, class.mean_std.1)?)?;
    }
    if class.name == "EfficientNetImageProcessor" && switch("include_top", true) {
        std = std.iter().map(|s| s * s).collect(); // Divided by it twice.
    }
    let missing: Vec<&str> = ["size", "resample", "image_mean", "image_std"].into_iter().filter(|key| cfg.get(key).is_none()).collect();
    let from = match missing.as_slice() {
        [] => FILE.to_string(),
        missing => format!("{FILE}, {} missing there: default of {}", missing.join(", "), class.name),
    };
    Ok(Preprocess { size, channels, resize, interpolation, rescale, mean, std, fill: vec![0; channels], from })
}

fn per_channel(value: Option<&Value>, name: &str, channels: usize, default: [f32; 3]) -> Result<Vec<f32>> {
    let Some(value) = value.filter(|v| !v.is_null()) else {
        return Ok(if channels == 3 { default.to_vec() } else { vec![0.5; channels] });
    };
    let numbers: Vec<f32> = match value.as_array() {
        Some(list) => list.iter().filter_map(Value::as_f64).map(|v| v as f32).collect(),
        None => value.as_f64().map(|v| v as f32).into_iter().collect(),
    };
    let bad = || Error::setting(format!("{name} of the preprocessing configuration"), value, format!("{channels} finite numbers"));
    match numbers.len() {
        _ if numbers.iter().any(|n| !n.is_finite() || n.abs() > 1e6) => Err(bad()),
        n if n == channels => Ok(numbers),
        1 => Ok(vec![numbers[0]; channels]),
        _ => Err(bad()),
    }
}

fn positive(std: Vec<f32>) -> Result<Vec<f32>> {
    match std.iter().find(|s| s.is_nan() || **s < 1e-6) {
        Some(bad) => Err(Error::setting("std of the preprocessing configuration", bad, "numbers above 0")),
        None => Ok(std),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::input::{Picture, Raster};

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
