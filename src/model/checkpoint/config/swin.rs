//! Sizes and variants of a Swin Transformer, and how they are told from a checkpoint.

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Value, json};

use crate::error::{Error, Result};
use crate::model::checkpoint::Checkpoint;
use crate::model::checkpoint::config::{declared_blocks, declared_eps, declared_size, lookup, patch_embed};
use crate::model::checkpoint::names::Layout;
use crate::model::checkpoint::weights::Weights;

/// One stage: blocks of one width on one grid.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct SwinStage {
    /// Number of blocks.
    pub depth: usize,
    /// Width of the token vectors, `D`.
    pub dim: usize,
    /// Number of attention heads, `H`.
    pub heads: usize,
    /// Rows and columns of a window.
    pub window: usize,
    /// Width of the MLP's hidden layer.
    pub mlp_dim: usize,
}

/// How a library fills up windows that its grids do not fill, and which windows it shifts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum SwinPadding {
    /// timm: what is shifted is padded; shifted along an axis with several windows.
    Timm,
    /// transformers' classifiers: what is padded is shifted; shifted where both axes have several windows.
    Transformers,
    /// torchvision: what is padded is shifted; shifted along an axis with several windows.
    Torchvision,
    /// Backbones of detectors: what is padded is shifted, always.
    Detector,
}

/// Sizes and variants of a Swin Transformer.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct SwinConfig {
    /// Height and width of the input in pixels.
    pub image_size: (usize, usize),
    /// Colour channels of the input: 1 or 3.
    pub in_chans: usize,
    /// Height and width of a patch in pixels.
    pub patch_size: (usize, usize),
    /// The stages; each but the first begins with a merging of two by two tokens.
    pub stages: Vec<SwinStage>,
    /// Number of classes.
    pub classes: usize,
    /// Whether a norm stands behind the patch embedding.
    pub patch_norm: bool,
    /// Whether the fused projection has a bias.
    pub qkv_bias: bool,
    /// Epsilon of the layer norms of the blocks and of the last one.
    pub norm_eps: f64,
    /// How windows are filled up.
    pub padding: SwinPadding,
    /// Whether merged tokens stand channel by channel (torch's Unfold, mmdet 3) and not one behind another.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub unfolded: bool,
}

impl SwinConfig {
    /// Rows and columns of the grid of a stage: an odd one is filled up before its tokens are merged.
    #[must_use]
    pub const fn grid(&self, stage: usize) -> (usize, usize) {
        let (rows, columns) = (self.image_size.0.div_ceil(self.patch_size.0), self.image_size.1.div_ceil(self.patch_size.1));
        (rows.div_ceil(1 << stage), columns.div_ceil(1 << stage))
    }

    /// How far the windows of a block are shifted down and right: every second block, where the library does.
    #[must_use]
    pub fn shift(&self, stage: usize, block: usize) -> (usize, usize) {
        let (window, (rows, columns)) = (self.stages[stage].window, self.grid(stage));
        let along = |side: usize| {
            let several = match self.padding {
                SwinPadding::Timm | SwinPadding::Torchvision => side > window,
                SwinPadding::Transformers => rows.min(columns) > window,
                SwinPadding::Detector => true,
            };
            if block % 2 == 1 && several { window / 2 } else { 0 }
        };
        (along(rows), along(columns))
    }

    /// One line for people.
    #[must_use]
    pub fn describe(&self) -> String {
        let list = |value: fn(&SwinStage) -> usize| self.stages.iter().map(|s| value(s).to_string()).collect::<Vec<_>>().join("+");
        let windows = list(|s| s.window);
        let first = windows.split('+').next().unwrap_or_default();
        let windows = if windows.split('+').all(|window| window == first) { first } else { &windows };
        let ((height, width), (patch_height, patch_width)) = (self.image_size, self.patch_size);
        format!(
            "Swin, {} blocks, width {}, {} heads, windows of {windows}, {width}x{height}x{} in patches of {patch_width}x{patch_height}, {} classes",
            list(|s| s.depth),
            list(|s| s.dim),
            list(|s| s.heads),
            self.in_chans,
            self.classes
        )
    }
}

/// The stages that a checkpoint with timm's names has.
pub(super) fn stages(weights: &Weights) -> Result<Vec<SwinStage>> {
    let mut stages = Vec::new();
    while weights.has(&format!("layers.{}.blocks.0.norm1.weight", stages.len())) {
        let name = |block: usize, part: &str| format!("layers.{}.blocks.{block}.{part}", stages.len());
        let table = weights.shape(&name(0, "attn.relative_position_bias_table"), 2)?;
        let window = table[0].isqrt().div_ceil(2).max(1);
        if (2 * window - 1).pow(2) != table[0] {
            let expected = "a row for every offset in a square window".into();
            return Err(weights.wrong(&name(0, "attn.relative_position_bias_table"), expected, format!("{} rows", table[0])));
        }
        stages.push(SwinStage {
            depth: (0..usize::from(u16::MAX)).take_while(|block| weights.has(&name(*block, "norm1.weight"))).count(),
            dim: weights.shape(&name(0, "norm1.weight"), 1)?[0],
            heads: table[1],
            window,
            mlp_dim: weights.shape(&name(0, "mlp.fc1.weight"), 2)?[0],
        });
    }
    Ok(stages)
}

/// Reads what a Swin checkpoint is, whose tensors have timm's names by now. `notes` gets a line for all that was inferred.
///
/// # Errors
/// When the tensors are not those of a Swin Transformer, or contradict each other or the configuration.
pub fn infer(checkpoint: &Checkpoint, layout: Layout, notes: &mut Vec<String>) -> Result<SwinConfig> {
    let (weights, config) = (&checkpoint.weights, checkpoint.config.as_ref());
    let (_, in_chans, patch_size) = patch_embed(weights)?;
    let stages = stages(weights)?;
    let depths = json!(stages.iter().map(|stage| stage.depth).collect::<Vec<_>>());
    declared_blocks(checkpoint, "layers", &["depths"], &depths)?;
    if let Some(pool) = lookup(config, "global_pool").and_then(Value::as_str).filter(|pool| *pool != "avg") {
        let problem = format!("expected global_pool `avg` in config.json, found `{pool}`");
        return Err(Error::content(&checkpoint.name, problem, "use a classification checkpoint"));
    }
    let image_size = declared_size(checkpoint)?.unwrap_or_else(|| {
        // As published: the last stage is one window.
        let side = |patch| (stages.last().map_or(1, |stage| stage.window) * patch) << (stages.len() - 1);
        let size = (side(patch_size.0), side(patch_size.1));
        notes.push(format!("input size is not in config.json: {}x{} assumed, so that the last stage is one window", size.0, size.1));
        size
    });
    let head = weights.shape("head.fc.weight", 2)?;
    notes.push(format!(
        "from the tensors: {depths} blocks, {in_chans} input channel(s), {} classes, stored as {}",
        head[0],
        weights.stored_as()
    ));
    let norm_eps = declared_eps(checkpoint)?.unwrap_or(1e-5);
    if config.is_none() {
        notes.push(format!("no config.json beside the weights: norm epsilon 1e-5, the default of {}, is assumed", layout.name()));
    }
    let swin = SwinConfig {
        image_size,
        in_chans,
        patch_size,
        stages,
        classes: head[0],
        patch_norm: weights.has("patch_embed.norm.weight"),
        qkv_bias: weights.has("layers.0.blocks.0.attn.qkv.bias"),
        norm_eps,
        padding: match layout {
            Layout::Timm => SwinPadding::Timm,
            Layout::Transformers => SwinPadding::Transformers,
            Layout::Torchvision => SwinPadding::Torchvision,
            Layout::Mmdet | Layout::Mmdet3 => SwinPadding::Detector,
        },
        unfolded: layout == Layout::Mmdet3,
    };
    check_sizes(checkpoint, &swin)?;
    Ok(swin)
}

/// Refuses heads that do not divide a width, and sizes that no library runs or each runs in its own way: cut patches, and windows that are
/// larger than a grid.
pub(super) fn check_sizes(checkpoint: &Checkpoint, swin: &SwinConfig) -> Result<()> {
    let ((height, width), patch) = (swin.image_size, swin.patch_size);
    for (index, stage) in swin.stages.iter().enumerate() {
        if stage.heads == 0 || !stage.dim.is_multiple_of(stage.heads) {
            let key = format!("layers.{index}.blocks.0.attn.relative_position_bias_table");
            return Err(checkpoint.weights.wrong(&key, format!("heads that divide width {}", stage.dim), format!("{} heads", stage.heads)));
        }
    }
    let cut = !height.is_multiple_of(patch.0) || !width.is_multiple_of(patch.1);
    if cut && matches!(swin.padding, SwinPadding::Timm | SwinPadding::Torchvision) || height == 0 || width == 0 {
        let problem = format!("patches of {}x{} pixels do not fill an input of {width}x{height}", patch.1, patch.0);
        return Err(Error::content(&checkpoint.name, problem, "correct the input size in config.json"));
    }
    let fits = |(index, stage): (usize, &SwinStage)| swin.grid(index).0.min(swin.grid(index).1) >= stage.window;
    if matches!(swin.padding, SwinPadding::Timm | SwinPadding::Transformers)
        && let Some((index, stage)) = swin.stages.iter().enumerate().find(|stage| !fits(*stage))
    {
        let (rows, columns) = swin.grid(index);
        let problem = format!(
            "windows of {0}x{0} tokens are larger than the grid of stage {index}, {columns}x{rows}, of an input of {width}x{height} pixels",
            stage.window
        );
        return Err(Error::content(&checkpoint.name, problem, "use the input size that the checkpoint was trained at"));
    }
    Ok(())
}
