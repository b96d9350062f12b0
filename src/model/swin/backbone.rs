//! The stages of a Swin Transformer: patch embedding, blocks, and the mergings between them.

use candle_core::Tensor;

use super::attention::{WindowAttention, windows};
use crate::error::Result;
use crate::model::checkpoint::config::{SwinConfig, SwinStage};
use crate::model::checkpoint::weights::Weights;
use crate::model::network::{LayerShape, SiteInfo};
use crate::model::ops::{Factors, Linear, Norm, gelu, residual};
use crate::model::patch_embed::PatchEmbed;
use crate::model::site::{Site, SiteKind};
use crate::model::tap::Tap;
use crate::model::tokens::TokenLayout;

/// Epsilon of the norms behind the patch embedding and before a merging, which no configuration changes.
const EPS: f64 = 1e-5;

#[derive(Debug)]
struct Block {
    norm1: Norm,
    attn: WindowAttention,
    norm2: Norm,
    fc1: Linear,
    fc2: Linear,
}

impl Block {
    fn new(weights: &Weights, cfg: &SwinConfig, stage: usize, block: usize) -> Result<Self> {
        let name = |part: &str| format!("layers.{stage}.blocks.{block}.{part}");
        let site = |kind| in_block(stage, block, kind);
        let SwinStage { dim, mlp_dim, .. } = cfg.stages[stage];
        Ok(Self {
            norm1: Norm::new(weights, &name("norm1"), dim, cfg.norm_eps)?,
            attn: WindowAttention::new(weights, &name("attn"), cfg, (stage, block), &site)?,
            norm2: Norm::new(weights, &name("norm2"), dim, cfg.norm_eps)?,
            fc1: Linear::new(weights, &name("mlp.fc1"), site(SiteKind::Fc1), (mlp_dim, dim), true)?,
            fc2: Linear::new(weights, &name("mlp.fc2"), site(SiteKind::Fc2), (dim, mlp_dim), true)?,
        })
    }

    /// Its linear layers.
    const fn layers(&self) -> [&Linear; 4] {
        [&self.attn.qkv, &self.attn.proj, &self.fc1, &self.fc2]
    }

    /// `x + attention(norm(x))`, the first half of the block.
    fn attend(&self, x: &Tensor, tap: &mut dyn Tap) -> Result<Tensor> {
        residual(x, self.attn.forward(&self.norm1.forward(x)?, tap)?, None)
    }

    /// `x + mlp(norm(x))`, the second half of the block.
    fn mix(&self, x: &Tensor, tap: &mut dyn Tap) -> Result<Tensor> {
        let hidden = gelu(self.fc1.forward(self.norm2.forward(x)?, tap)?)?;
        residual(x, self.fc2.forward(hidden, tap)?, None)
    }
}

/// Two by two tokens become one of twice the width; what an odd grid lacks is zero.
#[derive(Debug)]
struct PatchMerging {
    norm: Norm,
    reduction: Linear,
    from: (usize, usize), // the grid before it
    unfolded: bool,       // whether the four stand channel by channel
}

impl PatchMerging {
    /// The merging before `stage`.
    fn new(weights: &Weights, cfg: &SwinConfig, stage: usize) -> Result<Self> {
        let name = |part| format!("layers.{stage}.downsample.{part}");
        let (from, to) = (cfg.stages[stage - 1].dim, cfg.stages[stage].dim);
        Ok(Self {
            norm: Norm::new(weights, &name("norm"), 4 * from, EPS)?,
            reduction: Linear::new(weights, &name("reduction"), merge(stage), (to, 4 * from), false)?,
            from: cfg.grid(stage - 1),
            unfolded: cfg.unfolded,
        })
    }

    /// `(B, N, D)` to `(B, N/4, D')`; of the four, those of the left column come first.
    fn forward(&self, x: &Tensor, tap: &mut dyn Tap) -> Result<Tensor> {
        let (b, _, dim) = x.dims3()?;
        let (rows, columns) = self.from;
        let x = x.reshape((b, rows, columns, dim))?.pad_with_zeros(1, 0, rows % 2)?.pad_with_zeros(2, 0, columns % 2)?;
        let (rows, columns) = (rows.div_ceil(2), columns.div_ceil(2));
        let fours = x.reshape((b, rows, 2, columns, 2, dim))?;
        let fours = if self.unfolded { fours.permute((0, 1, 3, 5, 2, 4))? } else { fours.permute((0, 1, 3, 4, 2, 5))? };
        let fours = fours.reshape((b, rows * columns, 4 * dim))?;
        self.reduction.forward(self.norm.forward(&fours)?, tap)
    }
}

/// One step of a pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Pixels to tokens.
    Embed,
    /// The merging before a stage.
    Merge(usize),
    /// The attention of a block of a stage.
    Attend(usize, usize),
    /// The MLP of a block of a stage.
    Mix(usize, usize),
}

/// All steps: embedding, then for each stage its merging and two halves of every block.
#[must_use]
pub fn steps(cfg: &SwinConfig) -> Vec<Step> {
    let mut steps = vec![Step::Embed];
    for (stage, SwinStage { depth, .. }) in cfg.stages.iter().enumerate() {
        steps.extend((stage > 0).then_some(Step::Merge(stage)));
        steps.extend((0..*depth).flat_map(|block| [Step::Attend(stage, block), Step::Mix(stage, block)]));
    }
    steps
}

fn in_block(stage: usize, block: usize, kind: SiteKind) -> Site {
    let id = |index| u16::try_from(index).unwrap_or(u16::MAX);
    Site::in_block(id(block), kind).in_stage(id(stage))
}

fn merge(stage: usize) -> Site {
    Site::outside(SiteKind::Merge).in_stage(u16::try_from(stage).unwrap_or(u16::MAX))
}

/// The stages.
#[derive(Debug)]
pub struct Backbone {
    patch_embed: PatchEmbed,
    patch_norm: Option<Norm>,
    merges: Vec<PatchMerging>, // before stage 1, 2, ..
    blocks: Vec<Vec<Block>>,   // of each stage
}

impl Backbone {
    /// Takes the tensors of `cfg` from a checkpoint with timm's names.
    ///
    /// # Errors
    /// When a tensor is missing, has another shape, or is not finite.
    pub fn new(cfg: &SwinConfig, weights: &Weights) -> Result<Self> {
        let first = cfg.stages.first().map_or(0, |stage| stage.dim);
        let blocks = |stage: usize| (0..cfg.stages[stage].depth).map(|block| Block::new(weights, cfg, stage, block)).collect();
        Ok(Self {
            patch_embed: PatchEmbed::new(weights, (first, cfg.in_chans), cfg.patch_size, cfg.grid(0), true)?,
            patch_norm: cfg.patch_norm.then(|| Norm::new(weights, "patch_embed.norm", first, EPS)).transpose()?,
            merges: (1..cfg.stages.len()).map(|stage| PatchMerging::new(weights, cfg, stage)).collect::<Result<_>>()?,
            blocks: (0..cfg.stages.len()).map(blocks).collect::<Result<_>>()?,
        })
    }

    /// Takes the input size of `cfg`, which else is the same.
    ///
    /// # Errors
    /// Only when candle fails.
    pub fn over(&mut self, cfg: &SwinConfig) -> Result<()> {
        self.patch_embed.over(cfg.grid(0));
        for (stage, blocks) in self.blocks.iter_mut().enumerate() {
            if let Some(merge) = stage.checked_sub(1).and_then(|index| self.merges.get_mut(index)) {
                merge.from = cfg.grid(stage - 1);
            }
            for (block, of_block) in blocks.iter_mut().enumerate() {
                of_block.attn.over(windows(cfg, stage, block))?;
            }
        }
        Ok(())
    }

    /// One step: pixels `(B, C, height, width)` or tokens `(B, N, D)` to tokens, row by row.
    ///
    /// # Errors
    /// When the input has another shape, or the tap refuses.
    pub fn step(&self, step: Step, x: &Tensor, tap: &mut dyn Tap) -> Result<Tensor> {
        match step {
            Step::Embed => {
                let patches = self.patch_embed.forward(x, tap)?;
                self.patch_norm.as_ref().map_or(Ok(patches.clone()), |norm| norm.forward(&patches))
            }
            Step::Merge(stage) => self.merges[stage - 1].forward(x, tap),
            Step::Attend(stage, block) => self.blocks[stage][block].attend(x, tap),
            Step::Mix(stage, block) => self.blocks[stage][block].mix(x, tap),
        }
    }

    /// Its linear layers.
    pub fn layers(&self) -> impl Iterator<Item = &Linear> {
        let outside = std::iter::once(&self.patch_embed.proj).chain(self.merges.iter().map(|merge| &merge.reduction));
        outside.chain(self.blocks.iter().flatten().flat_map(Block::layers))
    }

    /// As [`crate::model::Network::smooth`].
    ///
    /// # Errors
    /// When there are more or fewer factors than channels.
    pub fn smooth(&mut self, of: &Factors<'_>) -> Result<usize> {
        let smoothed = self.blocks.iter_mut().flatten().map(|block| {
            let both = [block.attn.qkv.smooth(&mut block.norm1, of)?, block.fc1.smooth(&mut block.norm2, of)?];
            Ok(both.iter().filter(|&&done| done).count())
        });
        smoothed.sum()
    }
}

/// The sites of the stages, from the configuration alone.
#[must_use]
pub fn sites(cfg: &SwinConfig) -> Vec<SiteInfo> {
    let over = |site, step, channels, name: String, outputs, layout: TokenLayout| {
        SiteInfo::of_layer(site, step, layout.tokens(), channels, LayerShape { name, outputs }).over(layout)
    };
    let mut sites = Vec::new();
    for (step, what) in steps(cfg).into_iter().enumerate() {
        match what {
            Step::Embed => {
                let pixels = cfg.in_chans * cfg.patch_size.0 * cfg.patch_size.1;
                let (site, width) = (Site::outside(SiteKind::Patch), cfg.stages.first().map_or(0, |s| s.dim));
                sites.push(over(site, step, pixels, "patch_embed.proj".into(), width, TokenLayout::grid(0, cfg.grid(0))));
            }
            Step::Merge(stage) => {
                let name = format!("layers.{stage}.downsample.reduction");
                let (from, to) = (cfg.stages[stage - 1].dim, cfg.stages[stage].dim);
                sites.push(over(merge(stage), step, 4 * from, name, to, TokenLayout::grid(0, cfg.grid(stage))));
            }
            Step::Attend(stage, block) => {
                let (SwinStage { dim, heads, .. }, layout) = (&cfg.stages[stage], windows(cfg, stage, block));
                let site = |kind| in_block(stage, block, kind);
                let name = |part| format!("layers.{stage}.blocks.{block}.attn.{part}");
                sites.push(over(site(SiteKind::Qkv), step, *dim, name("qkv"), 3 * dim, layout));
                sites.extend(SiteInfo::of_attention(site, step, layout, *dim, *heads));
                sites.push(over(site(SiteKind::Proj), step, *dim, name("proj"), *dim, layout));
            }
            Step::Mix(stage, block) => {
                let (SwinStage { dim, mlp_dim, .. }, layout) = (&cfg.stages[stage], TokenLayout::grid(0, cfg.grid(stage)));
                let name = |part| format!("layers.{stage}.blocks.{block}.mlp.{part}");
                sites.push(over(in_block(stage, block, SiteKind::Fc1), step, *dim, name("fc1"), *mlp_dim, layout));
                sites.push(over(in_block(stage, block, SiteKind::Fc2), step, *mlp_dim, name("fc2"), *dim, layout));
            }
        }
    }
    sites
}
