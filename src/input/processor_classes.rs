//! The processor classes of transformers: what each takes where its file says nothing, and which of them do more than the others.

use serde_json::Value;

use super::preprocess::Resize;
use crate::error::{Error, Result};

/// The file that names a class.
pub(super) const FILE: &str = "preprocessor_config.json";
/// Mean and standard deviation of ImageNet.
pub(super) const IMAGENET: ([f32; 3], [f32; 3]) = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]);
const CLIP: ([f32; 3], [f32; 3]) = ([0.481_454_66, 0.457_827_5, 0.408_210_73], [0.268_629_54, 0.261_302_6, 0.275_777_1]);
const HALF: ([f32; 3], [f32; 3]) = ([0.5; 3], [0.5; 3]);

/// What a class does that the others do not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Own {
    /// Nothing.
    Nothing,
    /// Below 384 it resizes to the size over `crop_pct` and cuts the size; from there on it squashes.
    ConvNext,
    /// It resizes to 256/224 of the size.
    Levit,
    /// It resizes to the size over `crop_pct`.
    PoolFormer,
    /// It may move the values, and divides by the standard deviation once more.
    EfficientNet,
    /// It resizes floats: what a filter overshoots is not cut off.
    Floats,
    /// Of a detector: pictures keep their proportions, sides are cut down to multiples of the patch, batches are padded.
    Detector,
    /// Of a detector with one input size, to which every picture is stretched: padding a batch pads nothing.
    Stretched,
    /// Of a network that segments: pictures keep their proportions, and what is left of the input is black.
    Padded,
}

/// The defaults of a processor class.
#[derive(Debug, Clone, Copy)]
pub(super) struct Class {
    pub name: &'static str,
    pub resample: u64,
    pub mean_std: ([f32; 3], [f32; 3]),
    pub size: Resize,
    /// Whether a bare number as size means a square.
    pub square: bool,
    /// What is cut where that is on.
    pub crop: Option<usize>,
    /// Whether it is on.
    pub crops: bool,
    pub own: Own,
}

const fn class(name: &'static str, resample: u64, mean_std: ([f32; 3], [f32; 3]), size: Resize, crop: Option<usize>) -> Class {
    let square = matches!(size, Resize::Exact(..));
    Class { name, resample, mean_std, size, square, crop, crops: crop.is_some(), own: Own::Nothing }
}

const fn square(side: usize) -> Resize {
    Resize::Exact(side, side)
}

/// As transformers 5.24 has them.
const CLASSES: [Class; 19] = [
    class("ViTImageProcessor", 2, HALF, square(224), None),
    class("DeiTImageProcessor", 3, HALF, square(256), Some(224)),
    class("BitImageProcessor", 3, CLIP, Resize::Shortest(224), Some(224)),
    Class { own: Own::ConvNext, ..class("ConvNextImageProcessor", 3, HALF, Resize::Shortest(384), None) },
    class("CLIPImageProcessor", 3, CLIP, Resize::Shortest(224), Some(224)),
    class("ChineseCLIPImageProcessor", 3, CLIP, Resize::Shortest(224), Some(224)),
    Class { square: false, ..class("SiglipImageProcessor", 3, HALF, square(224), None) },
    Class { crops: false, own: Own::EfficientNet, ..class("EfficientNetImageProcessor", 3, HALF, square(346), Some(289)) },
    Class { crops: false, ..class("BeitImageProcessor", 3, HALF, square(224), Some(224)) },
    Class { own: Own::Levit, ..class("LevitImageProcessor", 3, IMAGENET, Resize::Shortest(224), Some(224)) },
    class("PvtImageProcessor", 3, IMAGENET, square(224), None),
    Class { own: Own::Floats, ..class("DINOv3ViTImageProcessor", 2, IMAGENET, square(224), None) },
    Class { own: Own::PoolFormer, ..class("PoolFormerImageProcessor", 3, IMAGENET, Resize::Shortest(224), Some(224)) },
    class("BlipImageProcessor", 3, CLIP, square(384), None),
    Class { own: Own::Detector, ..class("YolosImageProcessor", 2, IMAGENET, Resize::Between(800, 1333), None) },
    Class { own: Own::Detector, ..class("DetrImageProcessor", 2, IMAGENET, Resize::Between(800, 1333), None) },
    Class { own: Own::Stretched, ..class("RfDetrImageProcessor", 2, IMAGENET, Resize::Between(800, 1333), None) },
    Class { own: Own::Padded, ..class("EomtImageProcessor", 2, IMAGENET, Resize::Between(640, 640), None) },
    class("MobileNetV1ImageProcessor", 2, HALF, Resize::Shortest(256), Some(224)),
];

/// The class that a file names, or that transformers takes for the type of the model where it names none. A class that is not known is
/// refused, whatever the file gives: the class may turn channels around, cut first or pad without a key that says so.
pub(super) fn class_of(cfg: &Value, config: Option<&Value>) -> Result<Class> {
    let named = ["image_processor_type", "feature_extractor_type"].iter().find_map(|key| cfg.get(key).filter(|v| !v.is_null()));
    let name = match named {
        Some(value) => value.as_str().unwrap_or_default().trim_end_matches("Fast").trim_end_matches("Pil"),
        None => match config.and_then(|c| c.get("model_type")).and_then(Value::as_str) {
            Some("deit") => "DeiTImageProcessor",
            Some("dinov2" | "dinov2_with_registers" | "bit") => "BitImageProcessor",
            Some("beit" | "data2vec-vision") => "BeitImageProcessor",
            Some("siglip") => "SiglipImageProcessor",
            Some("yolos") => "YolosImageProcessor",
            Some("detr") => "DetrImageProcessor",
            Some("eomt") => "EomtImageProcessor",
            Some("rf_detr") => "RfDetrImageProcessor",
            Some("clip") => "CLIPImageProcessor",
            Some(_) => "ViTImageProcessor",
            // Of an old model, whose file names nothing: it cuts where it says what to.
            None => return Ok(Class { crops: cfg.get("crop_size").is_some(), ..CLASSES[0] }),
        },
    };
    let name = name.replace("FeatureExtractor", "ImageProcessor");
    CLASSES.into_iter().find(|class| class.name == name).ok_or_else(|| {
        let known = CLASSES.map(|class| class.name).join(", ");
        let found = named.map(ToString::to_string).unwrap_or_default();
        let problem = format!("the processor {found} is not known (known: {known})");
        Error::content(FILE, problem, "name a checkpoint whose preprocessing igq knows")
    })
}
