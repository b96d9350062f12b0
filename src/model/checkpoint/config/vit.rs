//! Sizes and variants of a plain ViT, and how they are told from a checkpoint.

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Value, json};

use crate::error::{Error, Result};
use crate::model::checkpoint::Checkpoint;
use crate::model::checkpoint::config::said::Said;
use crate::model::checkpoint::config::timm::Architecture;
use crate::model::checkpoint::config::{declared_blocks, declared_eps, declared_size, lookup, number, pair, patch_embed};
use crate::model::checkpoint::names::Layout;
use crate::model::ops::Activation;
use crate::model::positions::Resampling;

/// How the tokens become the vector that the classifier sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Pool {
    /// The class token after the final norm.
    Token,
    /// The mean of the patch tokens.
    Avg,
    /// The class token and, behind it, the mean of the patch tokens: twice as wide.
    #[serde(rename = "token+avg")]
    TokenAndAvg,
}

/// What a ViT has that detects objects (YOLOS).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Detection {
    /// Detection tokens, `T`: each gives one object or none.
    pub tokens: usize,
    /// Whether position embeddings are added again behind every block but the last.
    pub mid_positions: bool,
}

/// Sizes and variants of a plain ViT.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct VitConfig {
    /// Height and width of the input in pixels.
    pub image_size: (usize, usize),
    /// Colour channels of the input: 1 or 3.
    pub in_chans: usize,
    /// Height and width of a patch in pixels.
    pub patch_size: (usize, usize),
    /// Rows and columns of the patch grid that the stored position embeddings are for.
    pub position_grid: (usize, usize),
    /// How they are resampled where the input has another grid.
    pub position_resampling: Resampling,
    /// Width of the token vectors, `D`.
    pub embed_dim: usize,
    /// Number of transformer blocks.
    pub depth: usize,
    /// Number of attention heads, `H`.
    pub heads: usize,
    /// Width of the MLP's hidden layer.
    pub mlp_dim: usize,
    /// Number of classes.
    pub classes: usize,
    /// Whether there is a class token.
    pub class_token: bool,
    /// Whether there is a distillation token, behind the class token.
    pub dist_token: bool,
    /// Number of register tokens, behind those.
    pub registers: usize,
    /// How many of the tokens before the patches have a position embedding.
    pub prefix_positions: usize,
    /// Pooling before the classifier.
    pub pool: Pool,
    /// Whether a norm stands after the pooling instead of before.
    pub fc_norm: bool,
    /// Whether the distillation token has a classifier of its own, whose logits are averaged with the other's.
    pub head_dist: bool,
    /// Whether the fused projection has a bias.
    pub qkv_bias: bool,
    /// Whether both halves of a block end in a factor for every channel.
    pub layer_scale: bool,
    /// Whether the patch embedding has a bias.
    #[serde(skip_serializing_if = "is_true")]
    pub patch_bias: bool,
    /// Whether a norm stands before the first block.
    #[serde(skip_serializing_if = "is_false")]
    pub norm_pre: bool,
    /// Whether a norm stands behind the last block, before or after the pooling.
    #[serde(skip_serializing_if = "is_true")]
    pub final_norm: bool,
    /// Whether norms stand behind attention and MLP, inside of the residual branch.
    #[serde(skip_serializing_if = "is_false")]
    pub residual_post_norm: bool,
    /// What stands between the two layers of an MLP.
    #[serde(skip_serializing_if = "is_gelu")]
    pub activation: Activation,
    /// Epsilon of every layer norm.
    pub norm_eps: f64,
    /// What it has where it detects objects and does not classify.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detection: Option<Detection>,
}

// What most models have is left out of reports.
#[allow(clippy::trivially_copy_pass_by_ref)]
const fn is_true(value: &bool) -> bool {
    *value
}

#[allow(clippy::trivially_copy_pass_by_ref)]
const fn is_false(value: &bool) -> bool {
    !*value
}

#[allow(clippy::trivially_copy_pass_by_ref)]
fn is_gelu(activation: &Activation) -> bool {
    *activation == Activation::Gelu
}

impl VitConfig {
    /// Rows and columns of the patch grid.
    #[must_use]
    pub const fn grid(&self) -> (usize, usize) {
        (self.image_size.0 / self.patch_size.0, self.image_size.1 / self.patch_size.1)
    }

    /// Tokens before the patches: class, distillation, registers.
    #[must_use]
    pub fn prefix_tokens(&self) -> usize {
        usize::from(self.class_token) + usize::from(self.dist_token) + self.registers + self.detection.map_or(0, |d| d.tokens)
    }

    /// Input channels of the MLP's second layer: half of what the first gives where the MLP is gated.
    #[must_use]
    pub fn fc2_inputs(&self) -> usize {
        if self.activation == Activation::SwiGlu { self.mlp_dim / 2 } else { self.mlp_dim }
    }

    /// Width of what the classifier sees.
    #[must_use]
    pub const fn head_dim(&self) -> usize {
        match self.pool {
            Pool::Token | Pool::Avg => self.embed_dim,
            Pool::TokenAndAvg => 2 * self.embed_dim,
        }
    }

    /// One line: `ViT, 6 blocks, width 128, 4 heads, 28x28x1 in patches of 4x4, 10 classes`.
    #[must_use]
    pub fn describe(&self) -> String {
        let ((height, width), (patch_height, patch_width)) = (self.image_size, self.patch_size);
        let kind = if self.detection.is_some() { "YOLOS" } else { "ViT" };
        let queries = self.detection.map(|d| format!(", {} detection tokens", d.tokens)).unwrap_or_default();
        format!(
            "{kind}, {} blocks, width {}, {} heads, {width}x{height}x{} in patches of {patch_width}x{patch_height}, {} classes{queries}",
            self.depth, self.embed_dim, self.heads, self.in_chans, self.classes
        )
    }

    /// Number of tokens, `N`.
    #[must_use]
    pub fn tokens(&self) -> usize {
        let (rows, columns) = self.grid();
        rows * columns + self.prefix_tokens()
    }
}

/// Reads what a ViT checkpoint is, whose tensors have timm's names by now. `notes` gets a line for all that was inferred.
///
/// # Errors
/// When the tensors are not those of a plain ViT, or contradict each other or the configuration.
pub fn infer(checkpoint: &Checkpoint, layout: Layout, notes: &mut Vec<String>) -> Result<VitConfig> {
    let weights = &checkpoint.weights;
    let config = checkpoint.config.as_ref();
    let (embed_dim, in_chans, patch_size) = patch_embed(weights)?;
    let depth = (0..usize::from(u16::MAX)).take_while(|i| weights.has(&format!("blocks.{i}.norm1.weight"))).count();
    declared_blocks(checkpoint, &format!("blocks.{depth}.norm1.weight"), &["depth", "num_hidden_layers"], &json!(depth))?;
    let mlp_dim = weights.shape("blocks.0.mlp.fc1.weight", 2)?[0];
    let head = weights.shape("head.weight", 2)?;
    let (class_token, dist_token) = (weights.has("cls_token"), weights.has("dist_token"));
    let registers = if weights.has("reg_token") { weights.shape("reg_token", 3)?[1] } else { 0 };
    let summary = usize::from(class_token) + usize::from(dist_token);
    let head_dist = weights.has("head_dist.weight");
    if head_dist && !(class_token && dist_token) {
        return Err(weights.wrong("head_dist.weight", "a class and a distillation token".into(), "no such tokens in the file".into()));
    }
    let known = Architecture::of(checkpoint)?;
    let known = known.as_ref();
    let said = Said::of(checkpoint);
    let unembedded = said.get("no_embed_class").and_then(Value::as_bool).or(known.map(|row| row.no_embed_class));
    let prefixes = match unembedded {
        Some(true) => vec![0],
        Some(false) => vec![summary + registers],
        None if lookup(config, "model_type").is_some() => vec![summary],
        None => vec![summary, summary + registers, 0],
    };
    let input = input(checkpoint, &prefixes, patch_size, notes)?;
    let (norm_pre, patch_bias) = (weights.has("norm_pre.weight"), weights.has("patch_embed.proj.bias"));
    if !(norm_pre || patch_bias) {
        return Err(weights.wrong("patch_embed.proj.bias", format!("shape [{embed_dim}]"), "no such tensor in the file".into()));
    }
    notes.push(format!(
        "from the tensors: {depth} blocks, width {embed_dim}, MLP {mlp_dim}, patch {}x{}, {in_chans} input channel(s), {} classes, stored as {}",
        patch_size.0, patch_size.1, head[0], weights.stored_as()
    ));
    let fc_norm = weights.has("fc_norm.weight");
    let fc2 = weights.shape("blocks.0.mlp.fc2.weight", 2)?[1];
    let activation = activation(checkpoint, known, fc2 * 2 == mlp_dim)?;
    let vit = VitConfig {
        image_size: input.size,
        in_chans,
        patch_size,
        position_grid: input.position_grid,
        position_resampling: input.resampling,
        embed_dim,
        depth,
        heads: heads(checkpoint, known, embed_dim, notes)?,
        mlp_dim,
        classes: head[0],
        class_token,
        dist_token,
        registers,
        prefix_positions: input.prefix_positions,
        pool: pool(checkpoint, known, head[1] == 2 * embed_dim, fc_norm, class_token)?,
        fc_norm,
        head_dist,
        qkv_bias: weights.has("blocks.0.attn.qkv.bias"),
        layer_scale: weights.has("blocks.0.ls1.gamma"),
        patch_bias,
        norm_pre,
        final_norm: !known.is_some_and(|row| row.no_final_norm),
        residual_post_norm: known.is_some_and(|row| row.residual_post_norm),
        activation,
        norm_eps: norm_eps(checkpoint, known, layout, notes)?,
        detection: None,
    };
    if dist_token && !head_dist {
        notes.push("the distillation token has no classifier: the class token alone decides, as transformers does it".into());
    }
    Ok(vit)
}

/// The pooling: what the configuration says, else what the architecture has, else what the tensors suggest.
fn pool(checkpoint: &Checkpoint, known: Option<&Architecture>, double: bool, fc_norm: bool, class_token: bool) -> Result<Pool> {
    let refuse = |problem: String, advice: &str| Err(Error::content(&checkpoint.name, problem, advice));
    match lookup(checkpoint.config.as_ref(), "global_pool") {
        Some(value) => match value.as_str() {
            Some("avg") => Ok(Pool::Avg),
            Some("token") => Ok(Pool::Token),
            _ => refuse(format!("expected global_pool `token` or `avg` in config.json, found {value}"), "use a classification checkpoint"),
        },
        None if double => Ok(Pool::TokenAndAvg),
        None if !class_token || known.is_some_and(|row| row.avg) => Ok(Pool::Avg),
        None => match known {
            // Of itself the norm stands behind the pooling where that is the mean.
            Some(row) if fc_norm && Said::of(checkpoint).get("fc_norm").and_then(Value::as_bool) != Some(true) => refuse(
                format!("a norm behind the pooling (`fc_norm`), which `{}` does not have with its class token", row.name),
                "put global_pool (`avg` or `token`) into model_args of config.json",
            ),
            None if fc_norm => Ok(Pool::Avg),
            _ => Ok(Pool::Token),
        },
    }
}

/// What stands between the two layers of an MLP: what the configuration says, else what the architecture has.
pub(super) fn activation(checkpoint: &Checkpoint, known: Option<&Architecture>, gated: bool) -> Result<Activation> {
    let config = checkpoint.config.as_ref();
    let text = |key| lookup(config, key).and_then(Value::as_str);
    let named = text("hidden_act").or_else(|| text("act_layer"));
    let swiglu = lookup(config, "use_swiglu_ffn").and_then(Value::as_bool) == Some(true)
        || known.is_some_and(|k| k.activation == Activation::SwiGlu);
    let plain = match named {
        Some("silu" | "swish") if gated => Activation::SwiGlu,
        // timm gives it to the gate; transformers' gate has its own.
        Some(other) if gated && text("hidden_act").is_none() => {
            let problem = format!("act_layer of config.json: expected `silu` for a gated MLP, found `{other}`");
            return Err(Error::content(&checkpoint.name, problem, "name a checkpoint with SwiGLU"));
        }
        Some("gelu") => Activation::Gelu,
        Some("gelu_tanh" | "gelu_new" | "gelu_pytorch_tanh") => Activation::GeluTanh,
        Some("quick_gelu") => Activation::QuickGelu,
        Some(other) => {
            let problem = format!("expected the activation `gelu`, `gelu_tanh` or `quick_gelu` in config.json, found `{other}`");
            return Err(Error::content(&checkpoint.name, problem, "name a checkpoint with one of these"));
        }
        None => match known {
            Some(k) if k.activation_unsure => {
                let problem =
                    format!("`{}`: SigLIP was trained with the tanh form of GELU, timm's code of this name has the other", k.name);
                return Err(Error::content(
                    &checkpoint.name,
                    problem,
                    "put act_layer (`gelu_tanh` or `gelu`) into model_args of config.json",
                ));
            }
            _ => known.map_or(Activation::Gelu, |k| k.activation),
        },
    };
    if gated && config.is_some() && !swiglu && plain != Activation::SwiGlu {
        let problem = "the MLP is gated (its first layer has twice the outputs that the second takes), and config.json does not say how";
        return Err(Error::content(&checkpoint.name, problem, "put `use_swiglu_ffn` into config.json if it is SwiGLU"));
    }
    Ok(if gated { Activation::SwiGlu } else { plain })
}

/// Epsilon of the layer norms: what config.json says, else what the architecture or the library that wrote the file has as its default.
pub(super) fn norm_eps(checkpoint: &Checkpoint, known: Option<&Architecture>, layout: Layout, notes: &mut Vec<String>) -> Result<f64> {
    if let Some(eps) = declared_eps(checkpoint)? {
        return Ok(eps);
    }
    if let Some(known) = known {
        return Ok(known.norm_eps);
    }
    let dinov2 = checkpoint.weights.has("blocks.0.ls1.gamma");
    let eps = if layout == Layout::Transformers && !dinov2 { 1e-12 } else { 1e-6 };
    notes.push(format!("norm epsilon is not in config.json: {eps:e}, the default of {}, is assumed", layout.name()));
    Ok(eps)
}

pub(super) fn heads(checkpoint: &Checkpoint, known: Option<&Architecture>, embed_dim: usize, notes: &mut Vec<String>) -> Result<usize> {
    let config = checkpoint.config.as_ref();
    let declared = ["num_heads", "num_attention_heads"].into_iter().find_map(|key| Some((key, lookup(config, key)?.clone())));
    // transformers has one number for all that do not say theirs.
    let of_type = matches!(lookup(config, "model_type").and_then(Value::as_str), Some("vit" | "deit" | "dinov2" | "dinov2_with_registers"))
        .then_some(12);
    let default = known.map(|k| k.heads).or(of_type).map(|heads| ("num_heads", json!(heads)));
    if let Some((key, value)) = declared.or(default) {
        return number(&value).filter(|heads| *heads > 0 && embed_dim.is_multiple_of(*heads)).ok_or_else(|| {
            let problem = format!("{key} of config.json: expected a divisor of the width {embed_dim}, found {value}");
            Error::content(&checkpoint.name, problem, "correct config.json")
        });
    }
    let usual = [(64, 2), (96, 3), (1152, 16), (1280, 16), (1408, 16), (1664, 16)].into_iter().find(|(width, _)| *width == embed_dim);
    let assumed = usual.map(|(_, heads)| heads).or_else(|| (embed_dim >= 192 && embed_dim.is_multiple_of(64)).then_some(embed_dim / 64));
    match assumed {
        Some(heads) => {
            notes.push(format!("number of heads is in no tensor nor in config.json: {heads} is a guess from width {embed_dim}; num_heads in config.json sets it"));
            Ok(heads)
        }
        None => Err(Error::content(
            checkpoint.weights.file(),
            format!("the number of heads is in no tensor, and width {embed_dim} does not suggest one"),
            "put config.json with num_heads beside the weights",
        )),
    }
}

/// What the input is, and what the position embeddings are stored for.
struct Input {
    size: (usize, usize),
    position_grid: (usize, usize),
    prefix_positions: usize,
    resampling: Resampling,
}

/// `prefixes` are the numbers of positions that may stand before those of the patches, the likeliest first.
fn input(checkpoint: &Checkpoint, prefixes: &[usize], patch: (usize, usize), notes: &mut Vec<String>) -> Result<Input> {
    let (weights, config) = (&checkpoint.weights, checkpoint.config.as_ref());
    let positions = weights.shape("pos_embed", 3)?[1];
    // DINOv2 in transformers resamples to whatever the preprocessing gives, timm to what its configuration says; the others refuse.
    let (resampling, by_preprocessing) = match lookup(config, "model_type").and_then(Value::as_str) {
        Some("dinov2") => (Some(Resampling::Bicubic), true),
        Some("dinov2_with_registers") => (Some(Resampling::BicubicAntialias), true),
        None | Some("timm_wrapper") => (Some(Resampling::BicubicAntialias), false),
        Some(_) => (None, false),
    };
    let squares = prefixes.iter().filter_map(|&prefix| {
        let side = positions.checked_sub(prefix)?.isqrt();
        (side * side + prefix == positions).then_some(((side, side), prefix))
    });
    let mut squares = squares.collect::<Vec<_>>();
    squares.dedup();
    let square = squares.first().copied();
    let prepared = checkpoint.preprocessor.as_ref().filter(|_| by_preprocessing).and_then(prepared_size);
    let declared = declared_size(checkpoint)?;
    let size = match (prepared.or(declared), square) {
        (Some(size), _) => size,
        (None, Some(((rows, columns), _))) => {
            let size = (rows * patch.0, columns * patch.1);
            notes.push(format!("input size is not in config.json: {}x{} inferred from {positions} positions", size.0, size.1));
            size
        }
        (None, None) => {
            return Err(weights.wrong(
                "pos_embed",
                "a square grid, or an input size in config.json".into(),
                format!("{positions} positions"),
            ));
        }
    };
    let (rows, columns) = (size.0 / patch.0, size.1 / patch.1);
    let shown = format!("{}x{} pixels in patches of {}x{}", size.0, size.1, patch.0, patch.1);
    if (rows * patch.0, columns * patch.1) != size {
        return Err(weights.wrong("patch_embed.proj.weight", "patches that fill the input".into(), shown));
    }
    let exact = prefixes.iter().copied().find(|prefix| rows * columns + prefix == positions).map(|prefix| ((rows, columns), prefix));
    let stored = if by_preprocessing { square.or(exact) } else { exact.or(square.filter(|_| resampling.is_some())) };
    let Some((position_grid, prefix_positions)) = stored else {
        let expected = format!("{} positions for {shown}", rows * columns + prefixes[0]);
        return Err(weights.wrong("pos_embed", expected, format!("{positions} positions")));
    };
    // With few patches a grid of one size and its tokens count as one of another size without.
    if squares.len() > 1 && squares.iter().any(|(grid, _)| *grid != position_grid) {
        let expected = "no_embed_class in config.json, which says whether the first tokens have positions".into();
        return Err(weights.wrong("pos_embed", expected, format!("{positions} positions, which may be either")));
    }
    if position_grid != (rows, columns) {
        let from = if prepared.is_some() { "preprocessor_config.json" } else { "config.json" };
        notes.push(format!(
            "input size {}x{} from {from}; the position embeddings are stored for {}x{} and are resampled from {}x{} to {rows}x{columns} patches",
            size.0,
            size.1,
            position_grid.0 * patch.0,
            position_grid.1 * patch.1,
            position_grid.0,
            position_grid.1
        ));
    }
    let resampling = resampling.unwrap_or(Resampling::BicubicAntialias);
    Ok(Input { size, position_grid, prefix_positions, resampling })
}

/// The size of what transformers' preprocessing gives: that of the crop, or of the resize where nothing is cropped.
fn prepared_size(preprocessor: &Value) -> Option<(usize, usize)> {
    let crops = preprocessor.get("do_center_crop").and_then(Value::as_bool).unwrap_or(true);
    let size = preprocessor.get("crop_size").filter(|_| crops).or_else(|| preprocessor.get("size"))?;
    let side = |key| size.get(key).and_then(number);
    side("height").zip(side("width")).or_else(|| pair(size))
}
