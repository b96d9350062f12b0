//! What `config.json` claims of a network against what its tensors are. Where they disagree one of them belongs to another model, and a
//! library that builds from the configuration would compute something else; neither is guessed.

use serde_json::{Value, json};

use super::said::Said;
use super::{Config, SwinConfig, VitConfig, lookup, number, pair};
use crate::error::{Error, Result};
use crate::model::checkpoint::Checkpoint;
use crate::model::ops::Activation;
use crate::model::{Pool, checkpoint::names::Layout};

/// Keys that timm reads in `model_args` alone, so that anywhere else they say something that no library does.
const ARGUMENTS: [&str; 14] = [
    "act_layer",
    "hidden_act",
    "layer_norm_eps",
    "norm_layer",
    "num_heads",
    "num_attention_heads",
    "qkv_bias",
    "class_token",
    "no_embed_class",
    "reg_tokens",
    "pre_norm",
    "fc_norm",
    "init_values",
    "window_size",
];

/// What a configuration claims, and the name of the checkpoint in messages.
struct Claims<'a> {
    name: &'a str,
    said: Said<'a>,
}

impl<'a> Claims<'a> {
    fn get(&self, key: &str) -> Option<&'a Value> {
        self.said.get(key)
    }

    fn kind(&self) -> Option<&'a str> {
        lookup(self.said.config, "model_type").and_then(Value::as_str).filter(|kind| *kind != "timm_wrapper")
    }

    fn disagree(&self, key: &str, claimed: &Value, found: &Value) -> Error {
        let problem = format!("`{key}` of config.json: {claimed}, but by the tensors it is {found}");
        Error::content(self.name, problem, "one of them belongs to another model; put the right config.json beside the weights")
    }

    /// The first of `keys` that is there must be `found`.
    fn same(&self, keys: &[&str], found: &Value) -> Result<()> {
        match keys.iter().find_map(|key| Some((key, self.get(key).filter(|value| !value.is_null())?))) {
            Some((key, claimed)) if claimed != found && claimed.as_f64().zip(found.as_f64()).is_none_or(|(a, b)| a != b) => {
                Err(self.disagree(key, claimed, found))
            }
            _ => Ok(()),
        }
    }

    fn patch(&self, found: (usize, usize)) -> Result<()> {
        match self.get("patch_size").filter(|value| !value.is_null()) {
            Some(claimed) if pair(claimed) != Some(found) => Err(self.disagree("patch_size", claimed, &json!([found.0, found.1]))),
            _ => Ok(()),
        }
    }

    /// `mlp_ratio` and the width of the MLP that `of` makes of the width that it asks for.
    fn ratio(&self, dim: usize, found: usize, of: impl Fn(usize) -> usize) -> Result<()> {
        match self.get("mlp_ratio").and_then(Value::as_f64) {
            Some(ratio) if of((dim as f64 * ratio) as usize) != found => {
                Err(self.disagree("mlp_ratio", &json!(ratio), &json!(found as f64 / dim as f64)))
            }
            _ => Ok(()),
        }
    }

    /// What the code of transformers says of a type of model, whatever its configuration has.
    fn fits_type(&self, vit: &VitConfig) -> Result<()> {
        let Some(kind) = self.kind() else { return Ok(()) };
        let dinov2 = kind.starts_with("dinov2");
        let parts = [
            (vit.dist_token, kind == "deit", "a distillation token"),
            (vit.layer_scale, dinov2, "layer scales"),
            (vit.pool == Pool::TokenAndAvg, dinov2, "a classifier of class token and mean"),
            (vit.class_token, true, "a class token"),
            (vit.fc_norm, false, "a norm behind the pooling"),
            (vit.norm_pre, false, "a norm before the blocks"),
        ];
        let without = |has: bool| if has { "" } else { "not " };
        if let Some((has, _, what)) = parts.into_iter().find(|(has, wanted, _)| has != wanted) {
            let problem = format!("model_type `{kind}` of config.json does {}have {what}, the tensors do {}", without(!has), without(has));
            return Err(Error::content(self.name, problem.trim_end().to_string(), "put the right config.json beside the weights"));
        }
        if vit.detection.is_some() != (kind == "yolos") {
            let found = if vit.detection.is_some() { "yolos, with detection tokens" } else { "a classifier" };
            return Err(self.disagree("model_type", &json!(kind), &json!(found)));
        }
        if let Some(detection) = vit.detection {
            self.same(&["num_detection_tokens"], &json!(detection.tokens))?;
        }
        if vit.registers > 0 && kind != "dinov2_with_registers" {
            return Err(self.disagree("model_type", &json!(kind), &json!("dinov2_with_registers, with register tokens")));
        }
        if matches!(kind, "vit" | "deit" | "yolos") {
            self.same(&["intermediate_size"], &json!(vit.mlp_dim))?;
        }
        Ok(())
    }

    fn vit(&self, vit: &VitConfig) -> Result<()> {
        self.patch(vit.patch_size)?;
        self.same(&["embed_dim", "hidden_size"], &json!(vit.embed_dim))?;
        self.same(&["in_chans", "num_channels"], &json!(vit.in_chans))?;
        self.same(&["reg_tokens", "num_register_tokens"], &json!(vit.registers))?;
        for (key, found) in [
            ("qkv_bias", vit.qkv_bias),
            ("class_token", vit.class_token),
            ("pre_norm", vit.norm_pre),
            ("use_swiglu_ffn", vit.activation == Activation::SwiGlu),
        ] {
            self.same(&[key], &json!(found))?;
        }
        if vit.final_norm {
            self.same(&["fc_norm"], &json!(vit.fc_norm))?;
        }
        // A factor of nothing, as of null, is none.
        if let Some(value) = self.get("init_values")
            && value.as_f64().is_some_and(|factor| factor != 0.0) != vit.layer_scale
        {
            return Err(self.disagree("init_values", value, &json!(if vit.layer_scale { "a layer scale" } else { "no layer scale" })));
        }
        let gated = vit.activation == Activation::SwiGlu;
        // A ViT of transformers has no such key; timm's gated MLPs take it in two ways.
        let of_ratio = self.kind().map_or(!gated, |kind| kind.starts_with("dinov2"));
        if of_ratio {
            self.ratio(vit.embed_dim, vit.mlp_dim, |width| if gated { 2 * (width * 2 / 3).div_ceil(8) * 8 } else { width })?;
        }
        if vit.head_dist && (vit.fc_norm || vit.pool != Pool::Token) {
            let problem = "a distillation token with a classifier, and pooling by mean or a norm behind it: timm has no such model";
            return Err(Error::content(self.name, problem, "name a DeiT as published"));
        }
        if vit.dist_token && vit.registers > 0 {
            let problem = "a distillation token and register tokens: their order is not known";
            return Err(Error::content(self.name, problem, "name a DeiT or DINOv2 as published"));
        }
        if vit.pool != Pool::Avg && !vit.class_token {
            return Err(self.disagree("global_pool", &json!("token"), &json!("without a class token")));
        }
        self.fits_type(vit)
    }

    fn swin(&self, swin: &SwinConfig) -> Result<()> {
        self.patch(swin.patch_size)?;
        self.same(&["in_chans", "num_channels"], &json!(swin.in_chans))?;
        self.same(&["embed_dim"], &json!(swin.stages.first().map_or(0, |stage| stage.dim)))?;
        self.same(&["num_heads"], &json!(swin.stages.iter().map(|stage| stage.heads).collect::<Vec<_>>()))?;
        self.same(&["qkv_bias"], &json!(swin.qkv_bias))?;
        for (index, stage) in swin.stages.iter().enumerate() {
            self.ratio(stage.dim, stage.mlp_dim, |width| width)?;
            let (rows, columns) = swin.grid(index);
            // timm makes a window that is larger than its grid as large as the grid.
            let clipped = |wanted: usize| if self.said.timm { wanted.min(rows.min(columns)) } else { wanted };
            if let Some(claimed) = self.get("window_size").filter(|value| !value.is_null())
                && pair(claimed) != Some((stage.window, stage.window))
                && pair(claimed).is_none_or(|(a, b)| a != b || clipped(a) != stage.window)
            {
                return Err(self.disagree("window_size", claimed, &json!(stage.window)));
            }
        }
        match self.kind() {
            Some(kind) if kind != "swin" => Err(self.disagree("model_type", &json!(kind), &json!("swin"))),
            _ => Ok(()),
        }
    }
}

/// Refuses a configuration that is not one of these tensors.
///
/// # Errors
/// When they disagree; the message names the key.
pub(super) fn check(checkpoint: &Checkpoint, layout: Layout, config: &Config, notes: &mut Vec<String>) -> Result<()> {
    let claims = Claims { name: &checkpoint.name, said: Said::of(checkpoint) };
    match config {
        Config::Vit(vit) => claims.vit(vit)?,
        Config::Swin(swin) => claims.swin(swin)?,
        // Their configurations are read strictly, key by key.
        Config::RfDetr(_) | Config::Eomt(_) | Config::Detr(_) | Config::Rcnn(_) => return Ok(()),
    }
    if claims.said.timm && layout != Layout::Transformers {
        let outside = |key: &&&str| {
            let places = [claims.said.config, claims.said.config.and_then(|c| c.get("pretrained_cfg"))];
            places.into_iter().flatten().any(|place| place.get(**key).is_some_and(|v| !v.is_null() && Some(v) != claims.get(key)))
        };
        if let Some(key) = ARGUMENTS.iter().find(outside) {
            let problem = format!("`{key}` of config.json stands outside of model_args, where timm does not read it");
            return Err(Error::content(&checkpoint.name, problem, "put it into model_args, or take it away"));
        }
    }
    let classes = ["num_classes", "num_labels"].into_iter().find_map(|key| Some((key, lookup(claims.said.config, key)?)));
    if let Some((key, value)) = classes.filter(|(_, value)| number(value) != Some(config.classes())) {
        notes.push(format!("{key} of config.json is {value}, the head has {} classes, which counts", config.classes()));
    }
    Ok(())
}
