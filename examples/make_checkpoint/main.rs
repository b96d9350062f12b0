//! Writes a checkpoint with random weights, in the names and with the configuration that timm writes: networks of real size to
//! measure with, and small ones for tests, without a download.
//!
//! `cargo run --release --example make_checkpoint -- deit_tiny OUT_DIR [SEED]`

mod detectors;
mod regions;

use std::collections::BTreeMap;
use std::path::Path;

use candle_core::{Device, Tensor};
use igq::{Error, Result};
use serde_json::{Value, json};

/// What is stacked on the patch embedding.
enum Body {
    /// Blocks of one width; a distillation token and head where `distilled`.
    Vit { depth: usize, heads: usize, distilled: bool },
    /// Stages, each twice as wide as the one before.
    Swin { depths: &'static [usize], heads: &'static [usize], window: usize },
    /// A detector with 100 detection tokens, whose positions are stored for a size in pixels; with positions behind every block where `mid`.
    Yolos { depth: usize, heads: usize, size: (usize, usize), mid: bool },
    /// A windowed DINOv2-S with a deformable decoder: the input size, windows along a side, layers and queries of the decoder; masks where `masks`.
    RfDetr { image: usize, windows: usize, layers: usize, queries: usize, masks: bool },
    /// A Mask R-CNN on a Swin Transformer, or its cascade of three stages.
    Rcnn { depths: &'static [usize], heads: &'static [usize], cascade: bool },
}

/// A network by name.
struct Variant {
    name: &'static str,
    architecture: &'static str,
    image: usize,
    patch: usize,
    width: usize,
    classes: usize,
    /// Mean and standard deviation of the preprocessing: ImageNet's or 0.5.
    imagenet: bool,
    body: Body,
}

const VIT: Variant = Variant {
    name: "vit_base",
    architecture: "vit_base_patch16_224",
    image: 224,
    patch: 16,
    width: 768,
    classes: 1000,
    imagenet: false,
    body: Body::Vit { depth: 12, heads: 12, distilled: false },
};
const SWIN: Variant = Variant {
    name: "swin_base",
    architecture: "swin_base_patch4_window7_224",
    patch: 4,
    width: 128,
    imagenet: true,
    body: Body::Swin { depths: &[2, 2, 18, 2], heads: &[4, 8, 16, 32], window: 7 },
    ..VIT
};
const MASK_RCNN: Variant = Variant {
    name: "mask_rcnn_swin_tiny",
    architecture: "MaskRCNN",
    patch: 4,
    width: 96,
    classes: 80,
    body: Body::Rcnn { depths: &[2, 2, 6, 2], heads: &[3, 6, 12, 24], cascade: false },
    ..VIT
};
const MINI: Variant = Variant {
    name: "vit_mini",
    architecture: "vit_tiny_patch16_224",
    image: 32,
    patch: 8,
    width: 48,
    classes: 7,
    body: Body::Vit { depth: 3, heads: 3, distilled: false },
    ..VIT
};
const VARIANTS: [Variant; 15] = [
    Variant {
        name: "deit_tiny",
        architecture: "deit_tiny_patch16_224",
        width: 192,
        imagenet: true,
        body: Body::Vit { depth: 12, heads: 3, distilled: false },
        ..VIT
    },
    Variant {
        name: "deit_tiny_distilled",
        architecture: "deit_tiny_distilled_patch16_224",
        width: 192,
        imagenet: true,
        body: Body::Vit { depth: 12, heads: 3, distilled: true },
        ..VIT
    },
    Variant {
        name: "vit_small",
        architecture: "vit_small_patch16_224",
        width: 384,
        body: Body::Vit { depth: 12, heads: 6, distilled: false },
        ..VIT
    },
    VIT,
    Variant {
        name: "yolos_tiny",
        architecture: "YolosForObjectDetection",
        width: 192,
        classes: 91,
        body: Body::Yolos { depth: 12, heads: 3, size: (800, 1333), mid: false },
        ..VIT
    },
    Variant {
        name: "yolos_small",
        architecture: "YolosForObjectDetection",
        width: 384,
        classes: 91,
        body: Body::Yolos { depth: 12, heads: 6, size: (512, 864), mid: true },
        ..VIT
    },
    Variant {
        name: "rf_detr_nano",
        architecture: "RfDetrForObjectDetection",
        width: 384,
        classes: 91,
        body: Body::RfDetr { image: 384, windows: 2, layers: 2, queries: 300, masks: false },
        ..VIT
    },
    Variant {
        name: "rf_detr_seg_nano",
        architecture: "RfDetrForInstanceSegmentation",
        patch: 12,
        width: 384,
        classes: 91,
        body: Body::RfDetr { image: 312, windows: 1, layers: 4, queries: 100, masks: true },
        ..VIT
    },
    MASK_RCNN,
    Variant {
        name: "cascade_mask_rcnn_swin_tiny",
        body: Body::Rcnn { depths: &[2, 2, 6, 2], heads: &[3, 6, 12, 24], cascade: true },
        ..MASK_RCNN
    },
    Variant {
        name: "swin_tiny",
        architecture: "swin_tiny_patch4_window7_224",
        width: 96,
        body: Body::Swin { depths: &[2, 2, 6, 2], heads: &[3, 6, 12, 24], window: 7 },
        ..SWIN
    },
    SWIN,
    MINI,
    Variant {
        name: "deit_mini_distilled",
        architecture: "deit_tiny_distilled_patch16_224",
        imagenet: true,
        body: Body::Vit { depth: 3, heads: 3, distilled: true },
        ..MINI
    },
    Variant {
        name: "swin_mini",
        architecture: "swin_tiny_patch4_window7_224",
        patch: 2,
        width: 24,
        imagenet: true,
        body: Body::Swin { depths: &[2, 2], heads: &[2, 4], window: 4 },
        ..MINI
    },
];

/// Names and shapes of all tensors, in timm's names.
struct Shapes(BTreeMap<String, Vec<usize>>);

impl Shapes {
    fn put(&mut self, name: &str, shape: &[usize]) {
        self.0.insert(name.into(), shape.to_vec());
    }

    fn linear(&mut self, name: &str, outputs: usize, inputs: usize) {
        self.put(&format!("{name}.weight"), &[outputs, inputs]);
        self.put(&format!("{name}.bias"), &[outputs]);
    }

    fn norm(&mut self, name: &str, width: usize) {
        self.put(&format!("{name}.weight"), &[width]);
        self.put(&format!("{name}.bias"), &[width]);
    }

    fn block(&mut self, name: &str, width: usize) {
        self.norm(&format!("{name}.norm1"), width);
        self.linear(&format!("{name}.attn.qkv"), 3 * width, width);
        self.linear(&format!("{name}.attn.proj"), width, width);
        self.norm(&format!("{name}.norm2"), width);
        self.linear(&format!("{name}.mlp.fc1"), 4 * width, width);
        self.linear(&format!("{name}.mlp.fc2"), width, 4 * width);
    }

    fn of(variant: &Variant) -> Self {
        let mut shapes = Self(BTreeMap::new());
        let (width, classes) = (variant.width, variant.classes);
        if shapes.detector(variant) {
            return shapes;
        }
        shapes.put("patch_embed.proj.weight", &[width, 3, variant.patch, variant.patch]);
        shapes.put("patch_embed.proj.bias", &[width]);
        match variant.body {
            Body::Vit { depth, distilled, .. } => {
                let heads: &[&str] = if distilled { &["head", "head_dist"] } else { &["head"] };
                let tokens: &[&str] = if distilled { &["cls_token", "dist_token"] } else { &["cls_token"] };
                for token in tokens {
                    shapes.put(token, &[1, 1, width]);
                }
                shapes.put("pos_embed", &[1, (variant.image / variant.patch).pow(2) + tokens.len(), width]);
                for block in 0..depth {
                    shapes.block(&format!("blocks.{block}"), width);
                }
                shapes.norm("norm", width);
                for head in heads {
                    shapes.linear(head, classes, width);
                }
            }
            Body::Swin { depths, heads, window } => {
                shapes.norm("patch_embed.norm", width);
                for (stage, (&depth, &heads)) in depths.iter().zip(heads).enumerate() {
                    let width = width << stage;
                    if stage > 0 {
                        shapes.norm(&format!("layers.{stage}.downsample.norm"), 2 * width);
                        shapes.put(&format!("layers.{stage}.downsample.reduction.weight"), &[width, 2 * width]);
                    }
                    for block in 0..depth {
                        let name = format!("layers.{stage}.blocks.{block}");
                        shapes.block(&name, width);
                        shapes.put(&format!("{name}.attn.relative_position_bias_table"), &[(2 * window - 1).pow(2), heads]);
                    }
                }
                let width = width << (depths.len() - 1);
                shapes.norm("norm", width);
                shapes.linear("head.fc", classes, width);
            }
            Body::Yolos { .. } | Body::RfDetr { .. } | Body::Rcnn { .. } => {}
        }
        shapes
    }
}

/// A normal value, drawn again beyond two standard deviations.
fn truncated_normal(random: &mut fastrand::Rng) -> f32 {
    loop {
        let (radius, angle) = ((-2.0 * (1.0 - random.f32()).ln()).sqrt(), std::f32::consts::TAU * random.f32());
        let value = radius * angle.cos();
        if value.abs() <= 2.0 {
            return value;
        }
    }
}

/// Norms scale channels by 0.4 to 2.7, so that channels differ as they do in trained networks; everything else is near zero.
fn values(name: &str, shape: &[usize], random: &mut fastrand::Rng) -> Vec<f32> {
    let is_norm = (name.contains("norm") || name.contains(".bn.") || name.contains("projector.stages.0.1")) && name.ends_with(".weight");
    let scales = is_norm || name.ends_with(".lambda1") || name.ends_with(".running_var");
    // What a detector that was never trained starts with: few objects.
    let rare = name.contains("class_embed") && shape.len() == 1;
    // Some classes of a region must be likely, or nothing would be masked.
    let spread = if name.ends_with("fc_cls.weight") { 0.3 } else { 0.02 };
    let value = |_| {
        if scales {
            (0.5 * truncated_normal(random)).exp()
        } else if rare {
            -(99f32.ln())
        } else {
            spread * truncated_normal(random)
        }
    };
    (0..shape.iter().product()).map(value).collect()
}

/// `config.json` as timm writes it; `model_args` only where the architecture's name does not say it all. mmdet writes none.
fn config(variant: &Variant) -> Option<Value> {
    if let Some(config) = detectors::config(variant) {
        return Some(config);
    }
    let (mean, std) = if variant.imagenet { ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]) } else { ([0.5; 3], [0.5; 3]) };
    let (pool, classifier, args, width) = match &variant.body {
        Body::Vit { depth, heads, distilled } => {
            let classifier = if *distilled { json!(["head", "head_dist"]) } else { json!("head") };
            ("token", classifier, json!({"depth": depth, "num_heads": heads}), variant.width)
        }
        Body::Swin { depths, heads, window } => {
            let args = json!({"window_size": window, "depths": depths, "num_heads": heads});
            ("avg", json!("head.fc"), args, variant.width << (depths.len() - 1))
        }
        Body::Yolos { .. } | Body::RfDetr { .. } => ("token", Value::Null, Value::Null, variant.width),
        Body::Rcnn { .. } => return None,
    };
    let mut config = json!({
        "architecture": variant.architecture,
        "num_classes": variant.classes,
        "num_features": width,
        "global_pool": pool,
        "pretrained_cfg": {
            "tag": "random",
            "custom_load": false,
            "input_size": [3, variant.image, variant.image],
            "fixed_input_size": true,
            "interpolation": "bicubic",
            "crop_pct": 0.9,
            "crop_mode": "center",
            "mean": mean,
            "std": std,
            "num_classes": variant.classes,
            "pool_size": null,
            "first_conv": "patch_embed.proj",
            "classifier": classifier,
        },
    });
    if variant.image != VIT.image {
        config["model_args"] = args;
        for (key, value) in [("img_size", variant.image), ("patch_size", variant.patch), ("embed_dim", variant.width)] {
            config["model_args"][key] = json!(value);
        }
    }
    Some(config)
}

/// Writes the network called `name` to `folder`; the same seed gives the same file.
///
/// # Errors
/// When there is no such network, or the folder cannot be written to.
pub fn make(name: &str, folder: &Path, seed: u64) -> Result<()> {
    let names = VARIANTS.iter().map(|variant| variant.name).collect::<Vec<_>>().join(", ");
    let variant = VARIANTS.iter().find(|variant| variant.name == name);
    let variant = variant.ok_or_else(|| Error::setting("network", name, format!("one of {names}")))?;
    let mut random = fastrand::Rng::with_seed(seed);
    let mut tensors = BTreeMap::new();
    for (name, shape) in Shapes::of(variant).0 {
        let values = values(&name, &shape, &mut random);
        tensors.insert(name, Tensor::from_vec(values, shape, &Device::Cpu)?);
    }
    std::fs::create_dir_all(folder).map_err(Error::io("create", folder))?;
    let metadata = [("format".to_string(), "pt".to_string())].into();
    igq::quant::files::write_tensors(&folder.join("model.safetensors"), &tensors, metadata)?;
    match config(variant) {
        Some(config) => igq::atomic_write::write_whole(&folder.join("config.json"), format!("{config:#}\n").as_bytes()),
        None => Ok(()),
    }
}

fn main() -> Result<()> {
    let usage = || Error::setting("arguments", "too few or unreadable ones", "a network, a folder and perhaps a seed");
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [name, folder, seed @ ..] = arguments.as_slice() else { return Err(usage()) };
    let seed = seed.first().map_or(Ok(0), |seed| seed.parse().map_err(|_| usage()))?;
    make(name, Path::new(folder), seed)?;
    println!("{name} with random weights (seed {seed}): {folder}");
    Ok(())
}
