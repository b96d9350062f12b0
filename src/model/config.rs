//! What a checkpoint is: sizes and variants read from its tensors first and its `config.json` second, with a note for everything that
//! had to be inferred. It builds nothing.

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;

use super::weights::{Checkpoint, Weights};
use crate::error::{Error, Result};

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

/// Sizes and variants of a plain ViT.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct VitConfig {
    /// Height and width of the input in pixels.
    pub image_size: (usize, usize),
    /// Colour channels of the input: 1 or 3.
    pub in_chans: usize,
    /// Height and width of a patch in pixels.
    pub patch_size: (usize, usize),
    /// Rows and columns of the patch grid that the stored position embeddings are for; resampled where the input has another.
    pub position_grid: (usize, usize),
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
    /// Pooling before the classifier.
    pub pool: Pool,
    /// Whether a norm stands after the pooling instead of before.
    pub fc_norm: bool,
    /// Whether the fused projection has a bias.
    pub qkv_bias: bool,
    /// Epsilon of every layer norm.
    pub norm_eps: f64,
}

impl VitConfig {
    /// Rows and columns of the patch grid.
    #[must_use]
    pub const fn grid(&self) -> (usize, usize) {
        (self.image_size.0 / self.patch_size.0, self.image_size.1 / self.patch_size.1)
    }

    /// Tokens before the patches: the class token.
    #[must_use]
    pub fn prefix_tokens(&self) -> usize {
        usize::from(self.class_token)
    }

    /// Width of what the classifier sees.
    #[must_use]
    pub const fn head_dim(&self) -> usize {
        match self.pool {
            Pool::Token | Pool::Avg => self.embed_dim,
            Pool::TokenAndAvg => 2 * self.embed_dim,
        }
    }

    /// Number of tokens, `N`.
    #[must_use]
    pub fn tokens(&self) -> usize {
        let (rows, columns) = self.grid();
        rows * columns + self.prefix_tokens()
    }
}

/// A value of `config.json`, looked up at the top level, in `model_args` and in `pretrained_cfg`.
pub(crate) fn lookup<'a>(config: Option<&'a Value>, key: &str) -> Option<&'a Value> {
    let config = config?;
    config
        .get("model_args")
        .and_then(|args| args.get(key))
        .or_else(|| config.get(key))
        .or_else(|| config.get("pretrained_cfg").and_then(|cfg| cfg.get(key)))
        .filter(|value| !value.is_null())
}

/// Reads what a ViT checkpoint is, whose tensors have timm's names by now. The second value says, line by line, what was inferred and from where.
///
/// # Errors
/// When the tensors are not those of a plain ViT, or contradict each other or the configuration.
pub fn infer_vit(checkpoint: &Checkpoint) -> Result<(VitConfig, Vec<String>)> {
    let weights = &checkpoint.weights;
    let config = checkpoint.config.as_ref();
    let mut notes = Vec::new();
    require_vit(weights)?;

    let embed = weights.shape("patch_embed.proj.weight", 4)?;
    let (embed_dim, in_chans, patch_size) = (embed[0], embed[1], (embed[2], embed[3]));
    if in_chans != 1 && in_chans != 3 {
        return Err(Error::Tensor {
            file: weights.file().into(),
            key: "patch_embed.proj.weight".into(),
            expected: "1 or 3 input channels".into(),
            found: format!("{in_chans}"),
        });
    }
    let depth = (0..usize::from(u16::MAX)).take_while(|i| weights.has(&format!("blocks.{i}.norm1.weight"))).count();
    let mlp_dim = weights.shape("blocks.0.mlp.fc1.weight", 2)?[0];
    let head = weights.shape("head.weight", 2)?;
    let classes = head[0];
    let class_token = weights.has("cls_token");

    let (image_size, position_grid) = input_size(checkpoint, usize::from(class_token), patch_size, &mut notes)?;
    let heads = heads(config, embed_dim, &mut notes)?;
    let fc_norm = weights.has("fc_norm.weight");
    let pool = match lookup(config, "global_pool").and_then(Value::as_str) {
        Some("avg") => Pool::Avg,
        Some("token") => Pool::Token,
        Some(other) => {
            return Err(Error::content(
                &checkpoint.name,
                format!("expected global_pool `token` or `avg` in config.json, found `{other}`"),
                "use a classification checkpoint",
            ));
        }
        None if head[1] == 2 * embed_dim => Pool::TokenAndAvg,
        None if fc_norm || !class_token => Pool::Avg,
        None => Pool::Token,
    };
    let norm_eps = lookup(config, "layer_norm_eps").and_then(Value::as_f64).unwrap_or(1e-6);
    if config.is_none() {
        notes.push("no config.json beside the weights: norm epsilon 1e-6 as in timm is assumed".into());
    }
    if let Some(declared) = ["depth", "num_hidden_layers"].iter().find_map(|key| lookup(config, key)).and_then(Value::as_u64)
        && declared != depth as u64
    {
        return Err(Error::Tensor {
            file: weights.file().into(),
            key: format!("blocks.{depth}.norm1.weight"),
            expected: format!("{declared} blocks, as config.json says"),
            found: format!("{depth} blocks"),
        });
    }
    notes.push(format!(
        "from the tensors: {depth} blocks, width {embed_dim}, MLP {mlp_dim}, patch {}x{}, {in_chans} input channel(s), {classes} classes, stored as {}",
        patch_size.0, patch_size.1, weights.stored_as()
    ));
    let vit = VitConfig {
        image_size,
        in_chans,
        patch_size,
        position_grid,
        embed_dim,
        depth,
        heads,
        mlp_dim,
        classes,
        class_token,
        pool,
        fc_norm,
        qkv_bias: weights.has("blocks.0.attn.qkv.bias"),
        norm_eps,
    };
    Ok((vit, notes))
}

fn require_vit(weights: &Weights) -> Result<()> {
    let needed = ["patch_embed.proj.weight", "blocks.0.attn.qkv.weight", "head.weight"];
    if needed.iter().any(|key| weights.has(key)) {
        return Ok(()); // A missing tensor among the others is then named exactly.
    }
    let some: Vec<&str> = weights.keys().take(3).collect();
    Err(Error::content(
        weights.file(),
        format!("not a vision transformer in timm layout: it has {} tensors such as {some:?}", weights.keys().count()),
        "name a ViT checkpoint with patch_embed, blocks and head",
    ))
}

fn heads(config: Option<&Value>, embed_dim: usize, notes: &mut Vec<String>) -> Result<usize> {
    let declared = ["num_heads", "num_attention_heads"].iter().find_map(|key| lookup(config, key));
    let heads = if let Some(value) = declared {
        value.as_u64().and_then(|h| usize::try_from(h).ok()).unwrap_or(0)
    } else {
        let heads = (embed_dim / 64).max(1);
        notes.push(format!("number of heads is not in config.json: {heads} assumed (64 channels a head, as every timm ViT has)"));
        heads
    };
    if heads == 0 || !embed_dim.is_multiple_of(heads) {
        return Err(Error::setting("num_heads of config.json", heads, format!("a divisor of the width {embed_dim}")));
    }
    Ok(heads)
}

/// Height and width of the input, and the grid that the position embeddings are stored for.
fn input_size(
    checkpoint: &Checkpoint,
    prefix: usize,
    patch: (usize, usize),
    notes: &mut Vec<String>,
) -> Result<((usize, usize), (usize, usize))> {
    let (weights, config) = (&checkpoint.weights, checkpoint.config.as_ref());
    let positions = weights.shape("pos_embed", 3)?[1];
    let side = positions.saturating_sub(prefix).isqrt();
    let stored = (side * patch.0, side * patch.1);
    // DINOv2 in transformers resamples its position embeddings to whatever the preprocessing gives; the other models refuse.
    let resampled = lookup(config, "model_type").and_then(Value::as_str).is_some_and(|name| name.starts_with("dinov2"));
    let prepared = checkpoint.preprocessor.as_ref().filter(|_| resampled).and_then(prepared_size);
    let declared = ["img_size", "image_size", "input_size"].iter().find_map(|key| lookup(config, key).and_then(pair));
    let size = prepared.or(declared).unwrap_or_else(|| {
        notes.push(format!("input size is not in config.json: {}x{} inferred from {positions} positions", stored.0, stored.1));
        stored
    });
    let grid = (size.0 / patch.0, size.1 / patch.1);
    let whole = size.0.is_multiple_of(patch.0) && size.1.is_multiple_of(patch.1);
    let shown = format!("{}x{} pixels in patches of {}x{}", size.0, size.1, patch.0, patch.1);
    if whole && resampled && side * side + prefix == positions {
        if prepared.is_some_and(|prepared| prepared != stored) {
            notes.push(format!(
                "input size {}x{} from preprocessor_config.json; the position embeddings are stored for {}x{} and are resampled from \
                 {side}x{side} to {}x{} patches (bicubic, as transformers does it)",
                size.0, size.1, stored.0, stored.1, grid.0, grid.1
            ));
        }
        return Ok((size, (side, side)));
    }
    if whole && grid.0 * grid.1 + prefix == positions {
        return Ok((size, grid));
    }
    let expected =
        if whole { format!("{} positions for {shown}", grid.0 * grid.1 + prefix) } else { format!("whole patches, not {shown}") };
    Err(weights.wrong("pos_embed", expected, format!("{positions} positions")))
}

/// The size of what transformers' preprocessing gives: that of the crop, or of the resize where nothing is cropped.
fn prepared_size(preprocessor: &Value) -> Option<(usize, usize)> {
    let crops = preprocessor.get("do_center_crop").and_then(Value::as_bool).unwrap_or(true);
    let size = preprocessor.get("crop_size").filter(|_| crops).or_else(|| preprocessor.get("size"))?;
    let side = |key| size.get(key).and_then(number);
    side("height").zip(side("width")).or_else(|| pair(size))
}

fn number(value: &Value) -> Option<usize> {
    value.as_u64().and_then(|n| usize::try_from(n).ok())
}

/// Height and width from `224`, `[224, 224]` or `[3, 224, 224]`.
fn pair(value: &Value) -> Option<(usize, usize)> {
    match value.as_array() {
        Some(list) if list.len() >= 2 => Some((number(&list[list.len() - 2])?, number(&list[list.len() - 1])?)),
        Some(_) => None,
        None => number(value).map(|n| (n, n)),
    }
}
