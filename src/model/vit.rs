//! A plain ViT, top to bottom, with a tap at every operand. Names follow timm's checkpoints; nothing here knows of quantization.
//!
//! `B` pictures, `N` tokens, `D` width, `H` heads, `d = D/H` channels a head, `P` pixels of a patch in all colours, `K` classes.

use std::sync::Arc;

use candle_core::{D, Tensor};

use crate::error::{Error, Result};
use crate::model::checkpoint::config::{Pool, VitConfig};
use crate::model::checkpoint::weights::Weights;
use crate::model::detection::{ObjectHead, StoredPositions, prefix_first};
use crate::model::graph::{Graph, GraphTap, Setting, Value};
use crate::model::kernels::Weight;
use crate::model::network::{Network, SiteInfo};
use crate::model::ops::{Activation, Factors, Linear, Norm, residual, softmax};
use crate::model::output::Output;
use crate::model::patch_embed::PatchEmbed;
use crate::model::positions;
use crate::model::site::{Site, SiteKind};
use crate::model::tap::Tap;
use crate::model::tokens::TokenLayout;
pub use crate::model::vit_sites::sites;

fn norm(weights: &Weights, name: &str, cfg: &VitConfig) -> Result<Norm> {
    Norm::new(weights, name, cfg.embed_dim, cfg.norm_eps)
}

#[derive(Debug)]
struct Attention {
    qkv: Linear,
    proj: Linear,
    dim: usize,
    heads: usize,
    block: u16,
}

impl Attention {
    fn new(weights: &Weights, name: &str, cfg: &VitConfig, block: u16) -> Result<Self> {
        let dim = cfg.embed_dim;
        let qkv_site = Site::in_block(block, SiteKind::Qkv);
        let proj_site = Site::in_block(block, SiteKind::Proj);
        Ok(Self {
            qkv: Linear::new(weights, &format!("{name}.qkv"), qkv_site, (3 * dim, dim), cfg.qkv_bias)?,
            proj: Linear::new(weights, &format!("{name}.proj"), proj_site, (dim, dim), true)?,
            dim,
            heads: cfg.heads,
            block,
        })
    }

    /// `(B, N, D)` to `(B, N, D)`.
    fn forward(&self, x: Tensor, tap: &mut dyn Tap) -> Result<Tensor> {
        let (b, n, dim) = x.dims3()?;
        let head_dim = dim / self.heads;
        let site = |kind| Site::in_block(self.block, kind);
        let qkv = self.qkv.forward(x, tap)?; // (B, N, 3D)
        let mut operand = |index: usize, kind: SiteKind| -> Result<Tensor> {
            let part = qkv.narrow(D::Minus1, index * dim, dim)?.contiguous()?; // (B, N, D)
            let part = tap.activation(site(kind), part)?;
            Ok(part.reshape((b, n, self.heads, head_dim))?.transpose(1, 2)?) // (B, H, N, d)
        };
        let q = operand(0, SiteKind::Q)?;
        let k = operand(1, SiteKind::K)?;
        let v = operand(2, SiteKind::V)?;
        let scale = 1.0 / f64::sqrt(head_dim as f64);
        let scores = tap.product((site(SiteKind::Q), site(SiteKind::K)), &q, &k.transpose(2, 3)?)?; // (B, H, N, N)
        let attn = tap.activation(site(SiteKind::Attn), softmax(scores, scale, None)?)?;
        let mixed = tap.product((site(SiteKind::Attn), site(SiteKind::V)), &attn, &v)?.transpose(1, 2)?.reshape((b, n, dim))?;
        self.proj.forward(mixed, tap)
    }
}

impl Attention {
    /// The same in a graph.
    fn draw(&self, graph: &mut Graph, x: Value, tokens: usize, tap: &mut dyn GraphTap) -> Result<Value> {
        let site = |kind| Site::in_block(self.block, kind);
        let (n, heads) = (tokens as i64, self.heads as i64);
        let qkv = self.qkv.draw(graph, x, tap)?;
        let parts = graph.parts(&qkv, -1, 3);
        let mut operands = Vec::with_capacity(3);
        for (part, kind) in parts.into_iter().zip([SiteKind::Q, SiteKind::K, SiteKind::V]) {
            let part = tap.activation(graph, site(kind), part)?;
            let part = graph.reshape(&part, &[1, n, heads, -1]);
            operands.push(graph.transpose(&part, if kind == SiteKind::K { &[0, 2, 3, 1] } else { &[0, 2, 1, 3] }));
        }
        let head_dim = self.dim / self.heads;
        let scale = graph.float((1.0 / f64::sqrt(head_dim as f64)) as f32);
        let scores = graph.op("MatMul", &[&operands[0], &operands[1]]);
        let scores = graph.op("Mul", &[&scores, &scale]);
        let attn = graph.op_with("Softmax", &[&scores], &[Setting::Int("axis", -1)]);
        let attn = tap.activation(graph, site(SiteKind::Attn), attn)?;
        let mixed = graph.op("MatMul", &[&attn, &operands[2]]);
        let mixed = graph.transpose(&mixed, &[0, 2, 1, 3]);
        let mixed = graph.reshape(&mixed, &[1, n, -1]);
        self.proj.draw(graph, mixed, tap)
    }
}

/// `x + gamma branch` in a graph.
fn draw_residual(graph: &mut Graph, x: &Value, branch: Value, gamma: Option<&Tensor>) -> Result<Value> {
    let branch = match gamma {
        Some(gamma) => {
            let gamma = graph.tensor(gamma)?;
            graph.op("Mul", &[&branch, &gamma])
        }
        None => branch,
    };
    Ok(graph.op("Add", &[x, &branch]))
}

#[derive(Debug)]
struct Block {
    norm1: Norm,
    attn: Attention,
    ls1: Option<Tensor>, // (D)
    norm2: Norm,
    fc1: Linear,
    fc2: Linear,
    ls2: Option<Tensor>, // (D)
    activation: Activation,
    /// Norms stand behind attention and MLP, inside of the residual branch, and not before them.
    residual_post_norm: bool,
}

impl Block {
    fn new(weights: &Weights, cfg: &VitConfig, block: u16) -> Result<Self> {
        let name = |part: &str| format!("blocks.{block}.{part}");
        let (dim, hidden) = (cfg.embed_dim, cfg.mlp_dim);
        let scale = |part| cfg.layer_scale.then(|| weights.get(&name(part), &[dim])).transpose();
        let fc1_site = Site::in_block(block, SiteKind::Fc1);
        let fc2_site = Site::in_block(block, SiteKind::Fc2);
        Ok(Self {
            norm1: norm(weights, &name("norm1"), cfg)?,
            attn: Attention::new(weights, &name("attn"), cfg, block)?,
            ls1: scale("ls1.gamma")?,
            norm2: norm(weights, &name("norm2"), cfg)?,
            fc1: Linear::new(weights, &name("mlp.fc1"), fc1_site, (hidden, dim), true)?,
            fc2: Linear::new(weights, &name("mlp.fc2"), fc2_site, (dim, cfg.fc2_inputs()), true)?,
            ls2: scale("ls2.gamma")?,
            activation: cfg.activation,
            residual_post_norm: cfg.residual_post_norm,
        })
    }

    /// Its linear layers.
    const fn layers(&self) -> [&Linear; 4] {
        [&self.attn.qkv, &self.attn.proj, &self.fc1, &self.fc2]
    }

    /// `x + attention(norm(x))`, the first half of the block; `x + norm(attention(x))` where norms stand behind.
    fn attend(&self, x: &Tensor, tap: &mut dyn Tap) -> Result<Tensor> {
        let branch = if self.residual_post_norm {
            self.norm1.forward(&self.attn.forward(x.clone(), tap)?)?
        } else {
            self.attn.forward(self.norm1.forward(x)?, tap)?
        };
        residual(x, branch, self.ls1.as_ref())
    }

    /// `x + mlp(norm(x))`, the second half of the block; `x + norm(mlp(x))` where norms stand behind.
    fn mix(&self, x: &Tensor, tap: &mut dyn Tap) -> Result<Tensor> {
        let input = if self.residual_post_norm { x.clone() } else { self.norm2.forward(x)? };
        let hidden = self.activation.apply(self.fc1.forward(input, tap)?)?;
        let branch = self.fc2.forward(hidden, tap)?;
        let branch = if self.residual_post_norm { self.norm2.forward(&branch)? } else { branch };
        residual(x, branch, self.ls2.as_ref())
    }
}

impl Block {
    /// Both halves in a graph.
    fn draw(&self, graph: &mut Graph, x: &Value, tokens: usize, tap: &mut dyn GraphTap) -> Result<Value> {
        let before = |graph: &mut Graph, norm: &Norm, x: &Value| if self.residual_post_norm { Ok(x.clone()) } else { norm.draw(graph, x) };
        let behind = |graph: &mut Graph, norm: &Norm, x: Value| if self.residual_post_norm { norm.draw(graph, &x) } else { Ok(x) };
        let input = before(graph, &self.norm1, x)?;
        let branch = self.attn.draw(graph, input, tokens, tap)?;
        let branch = behind(graph, &self.norm1, branch)?;
        let x = draw_residual(graph, x, branch, self.ls1.as_ref())?;
        let input = before(graph, &self.norm2, &x)?;
        let hidden = self.fc1.draw(graph, input, tap)?;
        let hidden = self.activation.draw(graph, &hidden);
        let branch = self.fc2.draw(graph, hidden, tap)?;
        let branch = behind(graph, &self.norm2, branch)?;
        draw_residual(graph, &x, branch, self.ls2.as_ref())
    }
}

/// The whole network.
#[derive(Debug)]
pub struct Vit {
    cfg: VitConfig,
    patch_embed: PatchEmbed,
    prefix: Option<Tensor>, // (1, P, D), P tokens before the patches, with their positions
    pos_embed: Tensor,      // (1, N - P, D)
    norm_pre: Option<Norm>,
    blocks: Vec<Block>,
    norm: Option<Norm>,
    fc_norm: Option<Norm>,
    head: Head,
    /// Where it detects, the position embeddings as stored.
    stored: Option<StoredPositions>,
    /// Those behind the blocks for the present input, `(1, N, D)` each.
    mid: Vec<Tensor>,
}

/// What stands behind the last norm.
#[derive(Debug)]
enum Head {
    /// A classifier, and that of a distillation token.
    Classes(Linear, Option<Linear>),
    /// What gives detection tokens classes and boxes.
    Objects(ObjectHead),
}

impl Head {
    fn layers(&self) -> Vec<&Linear> {
        match self {
            Self::Classes(head, dist) => std::iter::once(head).chain(dist).collect(),
            Self::Objects(head) => head.layers().collect(),
        }
    }
}

/// The tokens before the patches: class, distillation, registers. The first ones have `positions` `(1, .., D)`.
fn prefix(weights: &Weights, cfg: &VitConfig, positions: &Tensor) -> Result<Option<Tensor>> {
    let detection = cfg.detection.map_or(0, |d| d.tokens);
    let counts = [
        ("cls_token", usize::from(cfg.class_token)),
        ("dist_token", usize::from(cfg.dist_token)),
        ("reg_token", cfg.registers),
        ("det_token", detection),
    ];
    let present = counts.iter().filter(|(_, count)| *count > 0);
    let tokens = present.map(|(name, count)| weights.get(name, &[1, *count, cfg.embed_dim])).collect::<Result<Vec<_>>>()?;
    if tokens.is_empty() {
        return Ok(None);
    }
    let positions = positions.pad_with_zeros(1, 0, cfg.prefix_tokens() - cfg.prefix_positions)?;
    Ok(Some((Tensor::cat(&tokens, 1)? + positions)?))
}

impl Vit {
    /// Takes the tensors of `cfg` from a checkpoint with timm's names.
    ///
    /// # Errors
    /// When a tensor is missing, has another shape, or is not finite.
    pub fn new(cfg: VitConfig, weights: &Weights) -> Result<Self> {
        let dim = cfg.embed_dim;
        let blocks = (0..cfg.depth).map(|i| Block::new(weights, &cfg, u16::try_from(i).unwrap_or(u16::MAX))).collect::<Result<Vec<_>>>()?;
        let (first, stored) = (cfg.prefix_positions, cfg.position_grid);
        let positions = weights.get("pos_embed", &[1, first + stored.0 * stored.1, dim])?;
        let positions = if cfg.detection.is_some() { prefix_first(&positions, stored.0 * stored.1)? } else { positions };
        let patches = positions.narrow(1, first, stored.0 * stored.1)?;
        let head = |name, kind, channels| Linear::new(weights, name, Site::outside(kind), (cfg.classes, channels), true);
        let kept = cfg.detection.map(|detection| {
            let blocks = if detection.mid_positions { cfg.depth.saturating_sub(1) } else { 0 };
            StoredPositions::new(weights, &patches, stored, (detection.tokens, blocks))
        });
        let kept = kept.transpose()?;
        Ok(Self {
            mid: kept.as_ref().map(|positions| positions.behind_blocks(cfg.grid())).transpose()?.unwrap_or_default(),
            stored: kept,
            patch_embed: PatchEmbed::new(weights, (dim, cfg.in_chans), cfg.patch_size, cfg.grid(), cfg.patch_bias)?,
            prefix: prefix(weights, &cfg, &positions.narrow(1, 0, first)?)?,
            pos_embed: positions::resample(&patches, stored, cfg.grid(), cfg.position_resampling)?,
            norm_pre: cfg.norm_pre.then(|| norm(weights, "norm_pre", &cfg)).transpose()?,
            blocks,
            norm: (cfg.final_norm && !cfg.fc_norm).then(|| norm(weights, "norm", &cfg)).transpose()?,
            fc_norm: cfg.fc_norm.then(|| norm(weights, "fc_norm", &cfg)).transpose()?,
            head: if let Some(detection) = cfg.detection {
                Head::Objects(ObjectHead::new(weights, dim, detection.tokens, cfg.classes)?)
            } else {
                let dist = cfg.head_dist.then(|| head("head_dist", SiteKind::HeadDist, dim)).transpose()?;
                Head::Classes(head("head", SiteKind::Head, cfg.head_dim())?, dist)
            },
            cfg,
        })
    }

    /// `(B, in_chans, height, width)` to `(B, N, D)`.
    fn embed(&self, pixels: &Tensor, tap: &mut dyn Tap) -> Result<Tensor> {
        let patches = self.patch_embed.forward(pixels, tap)?.broadcast_add(&self.pos_embed)?;
        let (b, _, dim) = patches.dims3()?;
        let tokens = match &self.prefix {
            Some(prefix) => Tensor::cat(&[&prefix.expand((b, prefix.dim(1)?, dim))?, &patches], 1)?,
            None => patches,
        };
        match &self.norm_pre {
            Some(norm) => norm.forward(&tokens),
            None => Ok(tokens),
        }
    }

    /// `(B, N, D)` to `(B, K)`; of a detector to `(B, T, K + 1 + 4)`.
    fn classify(&self, x: &Tensor, tap: &mut dyn Tap) -> Result<Tensor> {
        let x = match &self.norm {
            Some(norm) => norm.forward(x)?,
            None => x.clone(),
        };
        let (head, dist) = match &self.head {
            Head::Objects(head) => return head.forward(&x, tap),
            Head::Classes(head, dist) => (head, dist),
        };
        let (_, n, _) = x.dims3()?;
        let prefix = self.cfg.prefix_tokens();
        let token = |index| x.narrow(1, index, 1)?.contiguous(); // (B, 1, D)
        let mean = || x.narrow(1, prefix, n - prefix)?.mean_keepdim(1); // (B, 1, D)
        let pooled = match self.cfg.pool {
            Pool::Token => token(0)?,
            Pool::Avg => mean()?,
            Pool::TokenAndAvg => Tensor::cat(&[token(0)?, mean()?], 2)?, // (B, 1, 2D)
        };
        let pooled = match &self.fc_norm {
            Some(norm) => norm.forward(&pooled)?,
            None => pooled,
        };
        let logits = head.forward(pooled, tap)?;
        Ok(match dist {
            Some(head) => ((logits + head.forward(token(1)?, tap)?)? / 2.0)?,
            None => logits,
        }
        .squeeze(1)?)
    }
}

impl Network for Vit {
    fn steps(&self) -> usize {
        2 * self.blocks.len() + 2
    }

    fn step(&self, index: usize, x: &Tensor, tap: &mut dyn Tap) -> Result<Tensor> {
        let Some(half) = index.checked_sub(1) else { return self.embed(x, tap) };
        match self.blocks.get(half / 2) {
            Some(block) if half.is_multiple_of(2) => block.attend(x, tap),
            Some(block) => match self.mid.get(half / 2) {
                Some(positions) => Ok(block.mix(x, tap)?.broadcast_add(positions)?),
                None => block.mix(x, tap),
            },
            None => self.classify(x, tap),
        }
    }

    fn output(&self, last: &Tensor) -> Result<Output> {
        if self.cfg.detection.is_some() { Output::of_objects(last) } else { Output::of_classes(last) }
    }

    fn resize(&mut self, size: (usize, usize)) -> Result<bool> {
        let Some(stored) = &self.stored else { return Ok(false) };
        let (height, width) = self.cfg.patch_size;
        if !(size.0 >= height && size.1 >= width && size.0.is_multiple_of(height) && size.1.is_multiple_of(width)) {
            let expected = format!("sides that are multiples of the patch, {height}x{width}");
            return Err(Error::setting("--size", format!("{}x{}", size.1, size.0), expected));
        }
        self.cfg.image_size = size;
        self.patch_embed.over(self.cfg.grid());
        (self.pos_embed, self.mid) = (stored.of_patches(self.cfg.grid())?, stored.behind_blocks(self.cfg.grid())?);
        Ok(true)
    }

    fn sites(&self) -> Vec<SiteInfo> {
        sites(&self.cfg)
    }

    fn weight(&self, site: Site) -> Option<&Arc<Weight>> {
        let outside = std::iter::once(&self.patch_embed.proj).chain(self.head.layers());
        outside.chain(self.blocks.iter().flat_map(Block::layers)).find(|layer| layer.site == site).map(|layer| &layer.weight)
    }

    fn draw(&self, graph: &mut Graph, pixels: &Value, tap: &mut dyn GraphTap) -> Result<Value> {
        let Head::Classes(head, dist) = &self.head else {
            let expected = "a classifier: detectors are not drawn yet; their quantized weights can be exported";
            return Err(Error::setting("network", "YOLOS", expected));
        };
        let (n, prefix) = (self.tokens().tokens(), self.cfg.prefix_tokens());
        let patches = self.patch_embed.draw(graph, pixels, self.cfg.in_chans, tap)?;
        let positions = graph.tensor(&self.pos_embed)?;
        let mut x = graph.op("Add", &[&patches, &positions]);
        if let Some(tokens) = &self.prefix {
            let tokens = graph.tensor(tokens)?;
            x = graph.concat(&[tokens, x], 1);
        }
        if let Some(norm) = &self.norm_pre {
            x = norm.draw(graph, &x)?;
        }
        for block in &self.blocks {
            x = block.draw(graph, &x, n, tap)?;
        }
        if let Some(norm) = &self.norm {
            x = norm.draw(graph, &x)?;
        }
        let token = |graph: &mut Graph, index: i64| {
            let index = graph.integers(&[index]);
            graph.op_with("Gather", &[&x, &index], &[Setting::Int("axis", 1)]) // (1, 1, D)
        };
        let mean = |graph: &mut Graph| {
            let of_patches = graph.split(&x, 1, &[prefix, n - prefix]);
            graph.reduce("ReduceMean", &of_patches[1], &[1])
        };
        let mut pooled = match self.cfg.pool {
            Pool::Token => token(graph, 0),
            Pool::Avg if prefix == 0 => graph.reduce("ReduceMean", &x, &[1]),
            Pool::Avg => mean(graph),
            Pool::TokenAndAvg => {
                let both = [token(graph, 0), mean(graph)];
                graph.concat(&both, 2)
            }
        };
        if let Some(norm) = &self.fc_norm {
            pooled = norm.draw(graph, &pooled)?;
        }
        let mut logits = head.draw(graph, pooled, tap)?;
        if let Some(head) = dist {
            let distilled = token(graph, 1);
            let distilled = head.draw(graph, distilled, tap)?;
            let (sum, half) = (graph.op("Add", &[&logits, &distilled]), graph.float(0.5));
            logits = graph.op("Mul", &[&sum, &half]);
        }
        Ok(graph.reshape(&logits, &[1, -1]))
    }

    fn smooth(&mut self, of: &Factors<'_>) -> Result<usize> {
        let blocks = self.blocks.iter_mut().filter(|block| !block.residual_post_norm);
        let smoothed = blocks.map(|block| {
            let both = [block.attn.qkv.smooth(&mut block.norm1, of)?, block.fc1.smooth(&mut block.norm2, of)?];
            Ok(both.iter().filter(|&&done| done).count())
        });
        smoothed.sum()
    }

    fn tokens(&self) -> TokenLayout {
        TokenLayout::grid(self.cfg.prefix_tokens(), self.cfg.grid())
    }
}
