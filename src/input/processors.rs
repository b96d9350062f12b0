//! From a model's preprocessing configuration to [`Preprocess`], as timm and transformers read it: each processor class of transformers
//! has its own defaults; what may change the pixels and is not known is refused by name.

use serde_json::Value;

use super::canvases::{MULTIPLE, canvas, padded};
use super::preprocess::{Interpolation, Preprocess, Resize};
use super::processor_classes::{Class, FILE, IMAGENET, Own, class_of};
use super::processor_keys::{is_null, number, refused, sides, switch, text};
use crate::error::{Error, Result};

/// Keys of a detector's processor that are read here or change no pixel: batches are not padded, because all pictures share one input.
const OF_DETECTORS: [&str; 9] = [
    "do_split_image",
    "ignore_index",
    "max_size",
    "format",
    "annotation_format",
    "do_convert_annotations",
    "do_pad",
    "pad_size",
    "return_segmentation_masks",
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
        let timm = wrapped.or_else(|| config.and_then(|c| c.get("pretrained_cfg").or_else(|| flat(c).then_some(c))));
        match (own, timm) {
            (Some(hf), _) => from_transformers(hf, config, channels, size),
            (None, Some(timm)) => from_timm(timm, channels, size),
            // They take one size, which their configuration names.
            (None, None) if matches!(config.and_then(|c| c.get("model_type")).and_then(Value::as_str), Some("rf_detr" | "eomt")) => {
                let detects = config.is_some_and(|c| c["model_type"] == "rf_detr");
                let given = if detects {
                    serde_json::json!({"size": {"height": size.0, "width": size.1}})
                } else {
                    serde_json::json!({"size": {"shortest_edge": size.0, "longest_edge": size.1}, "do_pad": true})
                };
                let made = from_transformers(&given, config, channels, size)?;
                let class = if detects { "RfDetrImageProcessor" } else { "EomtImageProcessor" };
                Ok(Self { from: format!("assumed (no preprocessor_config.json): the input size of config.json, {class}"), ..made })
            }
            // What transformers takes for the type of the model where there is no file.
            (None, None) if matches!(config.and_then(|c| c.get("model_type")).and_then(Value::as_str), Some("yolos" | "detr")) => {
                let made = from_transformers(&serde_json::json!({}), config, channels, size)?;
                let class = if config.is_some_and(|c| c["model_type"] == "yolos") { "YolosImageProcessor" } else { "DetrImageProcessor" };
                Ok(Self { from: format!("assumed (no preprocessor_config.json): default of {class}"), ..made })
            }
            (None, None) => Ok(Self {
                size,
                channels,
                resize: if size.0 == size.1 { Resize::Shortest(size.0) } else { Resize::Cover(size.0, size.1) },
                interpolation: Interpolation::Bicubic,
                rescale: 1.0 / 255.0,
                mean: vec![0.5; channels],
                std: vec![0.5; channels],
                fill: vec![0; channels],
                on_tensors: false,
                from: "assumed (no configuration): mean and std 0.5".into(),
            }),
        }
    }
}

impl Preprocess {
    /// What mmdet's published configurations of Mask R-CNN do to pictures, for an input of rows and columns; there is no file that says it.
    ///
    /// # Errors
    /// When a preprocessing configuration stands beside the checkpoint.
    pub fn of_mmdet(preprocessor: Option<&Value>, size: (usize, usize)) -> Result<Self> {
        if preprocessor.is_some() {
            return Err(refused(FILE, "detectors of mmdet have no such file: what is meant by this one is not known".into()));
        }
        // (123.675, 116.28, 103.53) and (58.395, 57.12, 57.375) of 255.
        Ok(Self {
            size,
            channels: 3,
            resize: Resize::Rounded(800, 1333, 32),
            interpolation: Interpolation::Bilinear,
            rescale: 1.0 / 255.0,
            mean: IMAGENET.0.to_vec(),
            std: IMAGENET.1.to_vec(),
            fill: vec![0; 3],
            on_tensors: true,
            from: "mmdet's published configurations".into(),
        })
    }
}

/// Whether a configuration of timm is one of the first, which have no `pretrained_cfg` around what it holds.
fn flat(config: &Value) -> bool {
    const KEYS: [&str; 6] = ["mean", "std", "crop_pct", "crop_mode", "interpolation", "input_size"];
    let has = |key: &str| config.get(key).is_some_and(|value| !value.is_null());
    has("architecture") && !has("model_type") && (KEYS.into_iter().any(has) || !has("model_args"))
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
    let resize = match text(cfg, "crop_mode", FILE)? {
        Some("squash") => Resize::Exact(scale.0, scale.1),
        Some("border") => {
            fill = mean.iter().map(|m| (255.0 * m).round_ties_even().clamp(0.0, 255.0) as u8).collect();
            Resize::Fit(scale.0, scale.1)
        }
        None | Some("center") if scale.0 == scale.1 => Resize::Shortest(scale.0),
        None | Some("center") => Resize::Cover(scale.0, scale.1),
        Some(other) => return Err(refused(FILE, format!("crop_mode: expected center, squash or border, found `{other}`"))),
    };
    let interpolation = match text(cfg, "interpolation", FILE)? {
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
    Ok(Preprocess { size, channels, resize, interpolation, rescale: 1.0 / 255.0, mean, std, fill, on_tensors: false, from })
}

/// Refuses null where transformers takes it for itself and not for the default.
fn refuse_nulls(cfg: &Value, class: &Class) -> Result<()> {
    let (resizes, normalizes) = (switch(cfg, "do_resize", true)?, switch(cfg, "do_normalize", true)?);
    let needed = [
        ("size", resizes),
        ("resample", resizes),
        ("crop_pct", resizes && class.own == Own::ConvNext),
        ("crop_size", switch(cfg, "do_center_crop", class.crops)?),
        ("rescale_factor", switch(cfg, "do_rescale", true)?),
        ("image_mean", normalizes),
        ("image_std", normalizes || class.own == Own::EfficientNet),
    ];
    match needed.into_iter().find(|(key, needed)| *needed && is_null(cfg, key)) {
        Some((key, _)) => Err(refused(FILE, format!("{key}: expected a value, found null, which is not the default"))),
        None => Ok(()),
    }
}

/// The resize and the cut behind it.
fn geometry(cfg: &Value, class: &Class) -> Result<(Resize, Option<(usize, usize)>)> {
    let given = |key: &str| cfg.get(key).filter(|v| !v.is_null());
    let size = given("size").map(|value| sides(value, "size", switch(cfg, "default_to_square", class.square)?)).transpose()?;
    let size = size.unwrap_or(class.size);
    let crop = given("crop_size").map(|value| match sides(value, "crop_size", true)? {
        Resize::Exact(height, width) => Ok((height, width)),
        Resize::Shortest(edge) => Ok((edge, edge)),
        _ => Err(refused(FILE, format!("crop_size: expected a number, or height and width, found {value}"))),
    });
    let crop = crop.transpose()?.or_else(|| class.crop.map(|side| (side, side)));
    let uncut = || refused(FILE, "do_center_crop is on, but there is no crop_size".into());
    let cut = if switch(cfg, "do_center_crop", class.crops)? { Some(crop.ok_or_else(uncut)?) } else { None };
    if !switch(cfg, "do_resize", true)? {
        return Ok((Resize::None, cut));
    }
    // Null is no number to divide by: one class goes on without.
    if is_null(cfg, "crop_pct") && class.own == Own::PoolFormer {
        return Ok((size, cut));
    }
    let unfit = || refused(FILE, format!("size: the {} does not take {}", class.name, cfg["size"]));
    let pct = |default: f64| number(cfg, "crop_pct", default, (0.01, 4.0));
    Ok(match (class.own, size) {
        (Own::ConvNext, Resize::Shortest(edge) | Resize::Between(edge, _)) if edge < 384 => {
            // It cuts once of its own, to the size.
            if cut.is_some_and(|cut| cut != (edge, edge)) {
                return Err(refused(FILE, format!("crop_size: expected {edge}, which the size is, or no do_center_crop")));
            }
            (Resize::Shortest((edge as f64 / pct(224.0 / 256.0)?) as usize), Some((edge, edge)))
        }
        (Own::ConvNext, Resize::Shortest(edge) | Resize::Between(edge, _)) => (Resize::Exact(edge, edge), cut),
        (Own::Levit, Resize::Shortest(edge) | Resize::Between(edge, _)) => (Resize::Shortest((256.0 / 224.0 * edge as f64) as usize), cut),
        (Own::PoolFormer, Resize::Shortest(edge) | Resize::Between(edge, _)) => (Resize::Shortest((edge as f64 / pct(0.9)?) as usize), cut),
        (Own::PoolFormer, Resize::Exact(height, width)) => {
            let pct = pct(0.9)?;
            let over = |side: usize| (side as f64 / pct) as usize;
            (if height == width { Resize::Shortest(over(height)) } else { Resize::Exact(over(height), over(width)) }, cut)
        }
        (Own::ConvNext, _) | (Own::Levit | Own::PoolFormer, Resize::Longest(_) | Resize::Within(..)) => return Err(unfit()),
        (_, size) => (size, cut),
    })
}

fn from_transformers(cfg: &Value, config: Option<&Value>, channels: usize, size: (usize, usize)) -> Result<Preprocess> {
    let class = class_of(cfg, config)?;
    if let Some(keys) = cfg.as_object() {
        let of_detector = matches!(class.own, Own::Detector | Own::Stretched | Own::Padded);
        let known = |key: &str| KNOWN.contains(&key) || of_detector && OF_DETECTORS.contains(&key);
        let on = |value: &Value| !(value.is_null() || value.as_bool() == Some(false));
        if let Some((key, value)) = keys.iter().find(|(key, value)| !known(key) && !key.starts_with('_') && on(value)) {
            return Err(refused(FILE, format!("`{key}` ({value}) is not known and may change the pixels")));
        }
    }
    refuse_nulls(cfg, &class)?;
    let kind = config.and_then(|c| c.get("model_type")).and_then(Value::as_str);
    let of_kind = match kind {
        Some("yolos" | "detr") => Some(Own::Detector),
        Some("rf_detr") => Some(Own::Stretched),
        Some("eomt") => Some(Own::Padded),
        _ => None,
    };
    let special = matches!(class.own, Own::Detector | Own::Stretched | Own::Padded);
    if of_kind.is_some() != special || of_kind.is_some_and(|own| own != class.own) {
        let problem = format!("the {} is not the processor of this model", class.name);
        return Err(refused(FILE, problem));
    }
    let (resize, cut) = match class.own {
        Own::Detector => (canvas(cfg, if class.name == "DetrImageProcessor" { 1 } else { MULTIPLE })?, Some(size)),
        Own::Padded => padded(cfg)?,
        _ => geometry(cfg, &class)?,
    };
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
    let rescales = switch(cfg, "do_rescale", true)?;
    let overshoots = matches!(interpolation, Interpolation::Bicubic | Interpolation::Lanczos);
    if class.own == Own::Floats && rescales && overshoots && resize != Resize::None {
        return Err(refused(FILE, format!("the {} resizes floats; igq does so for resample 0, 2, 4 and 5 alone", class.name)));
    }
    let rescale = if rescales { number(cfg, "rescale_factor", 1.0 / 255.0, (1e-9, 1000.0))? } else { 1.0 };
    let image_std = || positive(per_channel(cfg.get("image_std"), "image_std", channels, class.mean_std.1)?);
    let (mut mean, mut std) = (vec![0.0; channels], vec![1.0; channels]);
    if switch(cfg, "do_normalize", true)? {
        mean = per_channel(cfg.get("image_mean"), "image_mean", channels, class.mean_std.0)?;
        std = image_std()?;
    }
    let (offset, again) = (switch(cfg, "rescale_offset", false)?, switch(cfg, "include_top", true)?);
    if class.own == Own::EfficientNet {
        if offset && rescales {
            for m in &mut mean {
                *m += 1.0;
            }
        }
        if again {
            std.iter_mut().zip(image_std()?).for_each(|(s, more)| *s *= more);
        }
    } else if offset {
        return Err(refused(FILE, format!("rescale_offset: the {} has none", class.name)));
    }
    let missing: Vec<&str> = ["size", "resample", "image_mean", "image_std"].into_iter().filter(|key| cfg.get(key).is_none()).collect();
    let from = match missing.as_slice() {
        [] => FILE.to_string(),
        missing => format!("{FILE}, {} missing there: default of {}", missing.join(", "), class.name),
    };
    Ok(Preprocess { size, channels, resize, interpolation, rescale, mean, std, fill: vec![0; channels], on_tensors: true, from })
}

fn per_channel(value: Option<&Value>, name: &str, channels: usize, default: [f32; 3]) -> Result<Vec<f32>> {
    let Some(value) = value.filter(|v| !v.is_null()) else {
        return Ok(if channels == 3 { default.to_vec() } else { vec![0.5; channels] });
    };
    let numbers: Vec<f32> = match value.as_array() {
        Some(list) => list.iter().map(|v| v.as_f64().unwrap_or(f64::NAN) as f32).collect(),
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
    fn the_first_configurations_of_timm_have_nothing_around_them() {
        let flat = json!({"architecture": "vit_tiny_patch16_224", "mean": [0.1, 0.2, 0.3], "crop_pct": 0.95, "interpolation": "bilinear"});
        let made = Preprocess::from_config(Some(&flat), None, 3, (32, 32)).unwrap();
        assert_eq!((made.mean, made.std, made.resize), (vec![0.1, 0.2, 0.3], IMAGENET.1.to_vec(), Resize::Shortest(33)));
        assert_eq!(made.interpolation, Interpolation::Bilinear);
        for key in ["crop_mode", "interpolation"] {
            let odd = json!({"pretrained_cfg": {key: 3}});
            assert!(Preprocess::from_config(Some(&odd), None, 3, (32, 32)).unwrap_err().to_string().contains(key));
        }
    }

    #[test]
    fn null_is_off_or_refused_and_not_the_default() {
        let with = |key: &str, value: Value| {
            let mut cfg = json!({"image_processor_type": "PoolFormerImageProcessor", "size": {"shortest_edge": 36}, "crop_size": 32});
            cfg[key] = value;
            Preprocess::from_config(None, Some(&cfg), 3, (32, 32))
        };
        assert_eq!(with("crop_pct", json!(0.9)).unwrap().resize, Resize::Shortest(40));
        assert_eq!(with("crop_pct", Value::Null).unwrap().resize, Resize::Shortest(36));
        assert_eq!(with("do_normalize", Value::Null).unwrap().mean, [0.0; 3]);
        assert!((with("do_rescale", Value::Null).unwrap().rescale - 1.0).abs() < 1e-12);
        assert_eq!(with("do_resize", Value::Null).unwrap().resize, Resize::None);
        for key in ["size", "resample", "rescale_factor", "image_mean", "image_std", "crop_size"] {
            assert!(with(key, Value::Null).unwrap_err().to_string().contains(key), "{key}");
        }
    }

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
