//! A Swin Transformer, top to bottom, with a tap at every operand. Names follow timm's checkpoints; nothing here knows of quantization.
//!
//! `B` pictures, `N` tokens of a stage, `D` its width, `H` its heads, `d = D/H` channels a head, `W` windows of `n` tokens each
//! (`W n = N`), `P` pixels of a patch in all colours, `K` classes. The residual stream keeps its tokens row by row; what belongs to
//! attention (`qkv`, `q`, `k`, `v`, `attn`, `proj`) has them window by window, as [`TokenLayout`] says.

use std::sync::Arc;

use candle_core::{D, Device, Tensor};

use crate::error::Result;
use crate::model::checkpoint::config::{SwinConfig, SwinStage};
use crate::model::checkpoint::weights::Weights;
use crate::model::kernels::Weight;
use crate::model::network::{LayerShape, Network, SiteInfo};
use crate::model::ops::{Factors, Linear, Norm, gelu, residual, softmax};
use crate::model::patch_embed::PatchEmbed;
use crate::model::site::{Site, SiteKind};
use crate::model::stream::Stream;
use crate::model::tap::Tap;
use crate::model::tokens::{TokenLayout, Windows};

/// Epsilon of the norms behind the patch embedding and before a merging, which no configuration changes.
const EPS: f64 = 1e-5;

/// What hides the tokens that a shift has brought into a window from the other side of the picture.
const HIDDEN: f32 = -100.0;

/// Where the tokens of a block's attention lie: windows, shifted in every second block.
fn windows(cfg: &SwinConfig, stage: usize, block: usize) -> TokenLayout {
    let window = cfg.stages[stage].window;
    TokenLayout::grid(0, cfg.grid(stage)).in_windows(Windows::new((window, window), cfg.shift(stage, block)))
}

/// Attention within windows, with a bias for every offset between two tokens.
#[derive(Debug)]
struct WindowAttention {
    qkv: Linear,
    proj: Linear,
    heads: usize,
    layout: TokenLayout,
    order: Tensor,   // (N) u32: for each token in the order of windows, its index row by row
    reverse: Tensor, // (N) u32: the way back
    bias: Tensor,    // (1, W H, n, n): relative position bias, and the mask of shifted windows
}

impl WindowAttention {
    fn new(weights: &Weights, name: &str, cfg: &SwinConfig, stage: usize, block: usize, site: &dyn Fn(SiteKind) -> Site) -> Result<Self> {
        let SwinStage { dim, heads, window, .. } = cfg.stages[stage];
        let layout = windows(cfg, stage, block);
        let columns = layout.grid.1;
        let order: Vec<u32> = (0..layout.tokens()).filter_map(|token| layout.place(token).map(|(r, c)| (r * columns + c) as u32)).collect();
        let mut reverse = vec![0; order.len()];
        for (token, &place) in order.iter().enumerate() {
            reverse[place as usize] = token as u32;
        }
        let table = weights.get(&format!("{name}.relative_position_bias_table"), &[(2 * window - 1).pow(2), heads])?;
        Ok(Self {
            qkv: Linear::new(weights, &format!("{name}.qkv"), site(SiteKind::Qkv), (3 * dim, dim), cfg.qkv_bias)?,
            proj: Linear::new(weights, &format!("{name}.proj"), site(SiteKind::Proj), (dim, dim), true)?,
            heads,
            layout,
            order: Tensor::new(order, &Device::Cpu)?,
            reverse: Tensor::new(reverse, &Device::Cpu)?,
            bias: (position_bias(&table, window)?.broadcast_add(&mask(&layout)?)?).flatten(0, 1)?.unsqueeze(0)?.contiguous()?,
        })
    }

    /// `(B, N, D)` to `(B, N, D)`, both row by row.
    fn forward(&self, x: &Tensor, tap: &mut dyn Tap) -> Result<Tensor> {
        let (b, tokens, dim) = x.dims3()?;
        let (w, h, n) = (self.layout.window_count(), self.heads, self.layout.window_tokens());
        let head_dim = dim / h;
        let at = |kind| Site { kind, ..self.qkv.site };
        let qkv = self.qkv.forward(x.index_select(&self.order, 1)?, tap)?; // (B, N, 3D)
        let mut operand = |index: usize, kind: SiteKind| -> Result<Tensor> {
            let part = qkv.narrow(D::Minus1, index * dim, dim)?.contiguous()?; // (B, N, D)
            let part = tap.activation(at(kind), part)?;
            Ok(part.reshape((b * w, n, h, head_dim))?.transpose(1, 2)?) // (B W, H, n, d)
        };
        let q = operand(0, SiteKind::Q)?;
        let k = operand(1, SiteKind::K)?;
        let v = operand(2, SiteKind::V)?;
        let scale = 1.0 / f64::sqrt(head_dim as f64);
        let scores = tap.product((at(SiteKind::Q), at(SiteKind::K)), &q, &k.transpose(2, 3)?)?; // (B W, H, n, n)
        let attn = softmax(scores.reshape((b, w * h, n, n))?, scale, Some(&self.bias))?;
        let attn = tap.activation(at(SiteKind::Attn), attn)?;
        let mixed = tap.product((at(SiteKind::Attn), at(SiteKind::V)), &attn.reshape((b * w, h, n, n))?, &v)?;
        let mixed = mixed.transpose(1, 2)?.reshape((b, tokens, dim))?;
        Ok(self.proj.forward(mixed, tap)?.index_select(&self.reverse, 1)?)
    }
}

/// The bias between all tokens of a window, `(1, H, n, n)`, from the table of offsets `((2 window - 1)^2, H)`.
fn position_bias(table: &Tensor, window: usize) -> Result<Tensor> {
    let n = window * window;
    let offset = |from: usize, to: usize| from + window - 1 - to;
    let index = |q: usize, k: usize| offset(q / window, k / window) * (2 * window - 1) + offset(q % window, k % window);
    let indices: Vec<u32> = (0..n * n).map(|pair| index(pair / n, pair % n) as u32).collect();
    let bias = table.index_select(&Tensor::new(indices, &Device::Cpu)?, 0)?;
    Ok(bias.reshape((n, n, ()))?.permute((2, 0, 1))?.unsqueeze(0)?)
}

/// `(W, 1, n, n)`: zero where two tokens of a window are neighbours in the picture too, [`HIDDEN`] where only the shift made them so.
fn mask(layout: &TokenLayout) -> Result<Tensor> {
    let (n, count) = (layout.window_tokens(), layout.window_count());
    // What wrapped around along an axis are its first `shift` places; only the last windows of the axis have such tokens.
    let wrapped = |token: usize| match (layout.place(token), layout.windows) {
        (Some((row, column)), Some(Windows { shift, .. })) => (row < shift.0, column < shift.1),
        _ => (false, false),
    };
    let hidden = |query: usize, key: usize| if wrapped(query) == wrapped(key) { 0.0 } else { HIDDEN };
    let values: Vec<f32> = (0..count * n * n).map(|i| hidden(i / n, i / (n * n) * n + i % n)).collect();
    Ok(Tensor::from_vec(values, (count, 1, n, n), &Device::Cpu)?)
}

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
            attn: WindowAttention::new(weights, &name("attn"), cfg, stage, block, &site)?,
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

/// Two by two tokens become one of twice the width.
#[derive(Debug)]
struct PatchMerging {
    norm: Norm,
    reduction: Linear,
    grid: (usize, usize),
}

impl PatchMerging {
    /// The merging before `stage`.
    fn new(weights: &Weights, cfg: &SwinConfig, stage: usize) -> Result<Self> {
        let name = |part| format!("layers.{stage}.downsample.{part}");
        let (from, to) = (cfg.stages[stage - 1].dim, cfg.stages[stage].dim);
        Ok(Self {
            norm: Norm::new(weights, &name("norm"), 4 * from, EPS)?,
            reduction: Linear::new(weights, &name("reduction"), merge(stage), (to, 4 * from), false)?,
            grid: cfg.grid(stage),
        })
    }

    /// `(B, N, D)` to `(B, N/4, D')`; of the four, those of the left column come first.
    fn forward(&self, x: &Tensor, tap: &mut dyn Tap) -> Result<Tensor> {
        let (b, _, dim) = x.dims3()?;
        let (rows, columns) = self.grid;
        let fours = x.reshape((b, rows, 2, columns, 2, dim))?.permute((0, 1, 3, 4, 2, 5))?.reshape((b, rows * columns, 4 * dim))?;
        self.reduction.forward(self.norm.forward(&fours)?, tap)
    }
}

/// One step of a pass.
#[derive(Debug, Clone, Copy)]
enum Step {
    Embed,
    Merge(usize),
    Attend(usize, usize),
    Mix(usize, usize),
    Classify,
}

/// All steps: embedding, then for each stage its merging and two halves of every block, then the classifier.
fn steps(cfg: &SwinConfig) -> Vec<Step> {
    let mut steps = vec![Step::Embed];
    for (stage, SwinStage { depth, .. }) in cfg.stages.iter().enumerate() {
        steps.extend((stage > 0).then_some(Step::Merge(stage)));
        steps.extend((0..*depth).flat_map(|block| [Step::Attend(stage, block), Step::Mix(stage, block)]));
    }
    steps.push(Step::Classify);
    steps
}

fn in_block(stage: usize, block: usize, kind: SiteKind) -> Site {
    let id = |index| u16::try_from(index).unwrap_or(u16::MAX);
    Site::in_block(id(block), kind).in_stage(id(stage))
}

fn merge(stage: usize) -> Site {
    Site::outside(SiteKind::Merge).in_stage(u16::try_from(stage).unwrap_or(u16::MAX))
}

/// The whole network.
#[derive(Debug)]
pub struct Swin {
    cfg: SwinConfig,
    steps: Vec<Step>,
    patch_embed: PatchEmbed,
    patch_norm: Option<Norm>,
    merges: Vec<PatchMerging>, // before stage 1, 2, ..
    blocks: Vec<Vec<Block>>,   // of each stage
    norm: Norm,
    head: Linear,
}

impl Swin {
    /// Takes the tensors of `cfg` from a checkpoint with timm's names.
    ///
    /// # Errors
    /// When a tensor is missing, has another shape, or is not finite.
    pub fn new(cfg: SwinConfig, weights: &Weights) -> Result<Self> {
        let width = |stage: Option<&SwinStage>| stage.map_or(0, |stage| stage.dim);
        let (first, last) = (width(cfg.stages.first()), width(cfg.stages.last()));
        let blocks = |stage: usize| (0..cfg.stages[stage].depth).map(|block| Block::new(weights, &cfg, stage, block)).collect();
        Ok(Self {
            patch_embed: PatchEmbed::new(weights, (first, cfg.in_chans), cfg.patch_size, cfg.grid(0), true)?,
            patch_norm: cfg.patch_norm.then(|| Norm::new(weights, "patch_embed.norm", first, EPS)).transpose()?,
            merges: (1..cfg.stages.len()).map(|stage| PatchMerging::new(weights, &cfg, stage)).collect::<Result<_>>()?,
            blocks: (0..cfg.stages.len()).map(blocks).collect::<Result<_>>()?,
            norm: Norm::new(weights, "norm", last, cfg.norm_eps)?,
            head: Linear::new(weights, "head.fc", Site::outside(SiteKind::Head), (cfg.classes, last), true)?,
            steps: steps(&cfg),
            cfg,
        })
    }

    /// `(B, in_chans, height, width)` to `(B, N, D)`.
    fn embed(&self, pixels: &Tensor, tap: &mut dyn Tap) -> Result<Tensor> {
        let patches = self.patch_embed.forward(pixels, tap)?;
        match &self.patch_norm {
            Some(norm) => norm.forward(&patches),
            None => Ok(patches),
        }
    }

    /// `(B, N, D)` to `(B, K)`.
    fn classify(&self, x: &Tensor, tap: &mut dyn Tap) -> Result<Tensor> {
        let pooled = self.norm.forward(x)?.mean_keepdim(1)?; // (B, 1, D)
        Ok(self.head.forward(pooled, tap)?.squeeze(1)?)
    }
}

/// The sites of a Swin Transformer, from its configuration alone.
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
            Step::Classify => {
                let width = cfg.stages.last().map_or(0, |s| s.dim);
                let pooled = TokenLayout::grid(1, (0, 0));
                sites.push(over(Site::outside(SiteKind::Head), step, width, "head.fc".into(), cfg.classes, pooled));
            }
        }
    }
    sites
}

impl Swin {
    /// What a step makes of the stream.
    fn advance(&self, index: usize, x: &Tensor, tap: &mut dyn Tap) -> Result<Tensor> {
        match self.steps.get(index).copied().unwrap_or(Step::Classify) {
            Step::Embed => self.embed(x, tap),
            Step::Merge(stage) => self.merges[stage - 1].forward(x, tap),
            Step::Attend(stage, block) => self.blocks[stage][block].attend(x, tap),
            Step::Mix(stage, block) => self.blocks[stage][block].mix(x, tap),
            Step::Classify => self.classify(x, tap),
        }
    }
}

impl Network for Swin {
    fn steps(&self) -> usize {
        self.steps.len()
    }

    fn step(&self, index: usize, stream: &Stream, tap: &mut dyn Tap) -> Result<Stream> {
        Ok(self.advance(index, stream, tap)?.into())
    }

    fn sites(&self) -> Vec<SiteInfo> {
        sites(&self.cfg)
    }

    fn weight(&self, site: Site) -> Option<&Arc<Weight>> {
        let outside = [&self.patch_embed.proj, &self.head].into_iter().chain(self.merges.iter().map(|merge| &merge.reduction));
        let blocks = self.blocks.iter().flatten().flat_map(Block::layers);
        outside.chain(blocks).find(|layer| layer.site == site).map(|layer| &layer.weight)
    }

    fn smooth(&mut self, of: &Factors<'_>) -> Result<usize> {
        let smoothed = self.blocks.iter_mut().flatten().map(|block| {
            let both = [block.attn.qkv.smooth(&mut block.norm1, of)?, block.fc1.smooth(&mut block.norm2, of)?];
            Ok(both.iter().filter(|&&done| done).count())
        });
        smoothed.sum()
    }

    fn tokens(&self) -> TokenLayout {
        TokenLayout::grid(0, self.cfg.grid(0))
    }
}
