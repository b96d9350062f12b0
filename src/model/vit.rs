//! A plain ViT, top to bottom, with a tap at every operand. Names follow timm's checkpoints; nothing here knows of quantization.
//!
//! `B` pictures, `N` tokens, `D` width, `H` heads, `d = D/H` channels a head, `P` pixels of a patch in all colours, `K` classes.

use candle_core::{D, Tensor};

use super::config::{Pool, VitConfig};
use super::network::{LayerShape, Network, Product, RightOperand, SiteInfo, TokenLayout};
use super::ops::{Norm, softmax};
use super::positions;
use super::site::{Site, SiteKind};
use super::tap::Tap;
use super::weights::Weights;
use crate::error::Result;

/// A linear layer `y = x W^T + b` whose input is a site.
#[derive(Debug)]
struct Linear {
    site: Site,
    weight: Tensor,       // (C_out, C)
    bias: Option<Tensor>, // (C_out)
}

impl Linear {
    fn new(weights: &Weights, name: &str, site: Site, shape: (usize, usize), bias: bool) -> Result<Self> {
        Ok(Self {
            site,
            weight: weights.get(&format!("{name}.weight"), &[shape.0, shape.1])?,
            bias: bias.then(|| weights.get(&format!("{name}.bias"), &[shape.0])).transpose()?,
        })
    }

    /// `(B, N, C)` to `(B, N, C_out)`.
    fn forward(&self, x: Tensor, tap: &mut dyn Tap) -> Result<Tensor> {
        let x = tap.activation(self.site, x)?;
        let weight = tap.weight(self.site, &self.weight)?;
        let (b, n, c) = x.dims3()?;
        let y = x.reshape((b * n, c))?.matmul(&weight.t()?)?;
        let y = match &self.bias {
            Some(bias) => y.broadcast_add(bias)?,
            None => y,
        };
        Ok(y.reshape((b, n, weight.dim(0)?))?)
    }
}

fn norm(weights: &Weights, name: &str, cfg: &VitConfig) -> Result<Norm> {
    Norm::new(weights, name, cfg.embed_dim, cfg.norm_eps)
}

#[derive(Debug)]
struct PatchEmbed {
    proj: Linear,
    grid: (usize, usize),
    patch: (usize, usize),
}

impl PatchEmbed {
    fn new(weights: &Weights, cfg: &VitConfig) -> Result<Self> {
        let name = "patch_embed.proj";
        let (ph, pw) = cfg.patch_size;
        let pixels = cfg.in_chans * ph * pw;
        let kernel = weights.get(&format!("{name}.weight"), &[cfg.embed_dim, cfg.in_chans, ph, pw])?;
        let proj = Linear {
            site: Site::outside(SiteKind::Patch),
            weight: kernel.reshape((cfg.embed_dim, pixels))?,
            bias: Some(weights.get(&format!("{name}.bias"), &[cfg.embed_dim])?),
        };
        Ok(Self { proj, grid: cfg.grid(), patch: cfg.patch_size })
    }

    /// `(B, in_chans, height, width)` to `(B, N, D)`: a convolution whose stride is its kernel is a linear layer over patches.
    fn forward(&self, pixels: &Tensor, tap: &mut dyn Tap) -> Result<Tensor> {
        let (b, c, _, _) = pixels.dims4()?;
        let ((rows, columns), (ph, pw)) = (self.grid, self.patch);
        let patches =
            pixels.reshape((b, c, rows, ph, columns, pw))?.permute((0, 2, 4, 1, 3, 5))?.reshape((b, rows * columns, c * ph * pw))?;
        self.proj.forward(patches, tap)
    }
}

#[derive(Debug)]
struct Attention {
    qkv: Linear,
    proj: Linear,
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
            Ok(part.reshape((b, n, self.heads, head_dim))?.transpose(1, 2)?.contiguous()?) // (B, H, N, d)
        };
        let q = operand(0, SiteKind::Q)?;
        let k = operand(1, SiteKind::K)?;
        let v = operand(2, SiteKind::V)?;
        let scale = 1.0 / f64::sqrt(head_dim as f64);
        let scores = (q.matmul(&k.transpose(2, 3)?.contiguous()?)? * scale)?; // (B, H, N, N)
        let attn = tap.activation(site(SiteKind::Attn), softmax(&scores)?)?;
        let mixed = attn.matmul(&v)?.transpose(1, 2)?.reshape((b, n, dim))?;
        self.proj.forward(mixed, tap)
    }
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
}

/// Layer scale: `x * gamma`, where the checkpoint has it.
fn scaled(x: Tensor, gamma: Option<&Tensor>) -> Result<Tensor> {
    Ok(match gamma {
        Some(gamma) => x.broadcast_mul(gamma)?,
        None => x,
    })
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
            fc2: Linear::new(weights, &name("mlp.fc2"), fc2_site, (dim, hidden), true)?,
            ls2: scale("ls2.gamma")?,
        })
    }

    /// `x + attention(norm(x))`, the first half of the block.
    fn attend(&self, x: &Tensor, tap: &mut dyn Tap) -> Result<Tensor> {
        Ok((x + scaled(self.attn.forward(self.norm1.forward(x)?, tap)?, self.ls1.as_ref())?)?)
    }

    /// `x + mlp(norm(x))`, the second half of the block.
    fn mix(&self, x: &Tensor, tap: &mut dyn Tap) -> Result<Tensor> {
        let hidden = self.fc1.forward(self.norm2.forward(x)?, tap)?.gelu_erf()?;
        Ok((x + scaled(self.fc2.forward(hidden, tap)?, self.ls2.as_ref())?)?)
    }
}

/// The whole network.
#[derive(Debug)]
pub struct Vit {
    cfg: VitConfig,
    patch_embed: PatchEmbed,
    prefix: Option<Tensor>, // (1, P, D), P tokens before the patches, with their positions
    pos_embed: Tensor,      // (1, N - P, D)
    blocks: Vec<Block>,
    norm: Option<Norm>,
    fc_norm: Option<Norm>,
    head: Linear,
    head_dist: Option<Linear>,
}

/// The tokens before the patches: class, distillation, registers. The first ones have `positions` `(1, .., D)`.
fn prefix(weights: &Weights, cfg: &VitConfig, positions: &Tensor) -> Result<Option<Tensor>> {
    let counts = [("cls_token", usize::from(cfg.class_token)), ("dist_token", usize::from(cfg.dist_token)), ("reg_token", cfg.registers)];
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
        let patches = positions.narrow(1, first, stored.0 * stored.1)?;
        let head = |name, kind, channels| Linear::new(weights, name, Site::outside(kind), (cfg.classes, channels), true);
        Ok(Self {
            patch_embed: PatchEmbed::new(weights, &cfg)?,
            prefix: prefix(weights, &cfg, &positions.narrow(1, 0, first)?)?,
            pos_embed: positions::resample(&patches, stored, cfg.grid(), cfg.position_resampling)?,
            blocks,
            norm: (!cfg.fc_norm).then(|| norm(weights, "norm", &cfg)).transpose()?,
            fc_norm: cfg.fc_norm.then(|| norm(weights, "fc_norm", &cfg)).transpose()?,
            head: head("head", SiteKind::Head, cfg.head_dim())?,
            head_dist: cfg.head_dist.then(|| head("head_dist", SiteKind::HeadDist, dim)).transpose()?,
            cfg,
        })
    }

    /// `(B, in_chans, height, width)` to `(B, N, D)`.
    fn embed(&self, pixels: &Tensor, tap: &mut dyn Tap) -> Result<Tensor> {
        let patches = self.patch_embed.forward(pixels, tap)?.broadcast_add(&self.pos_embed)?;
        let (b, _, dim) = patches.dims3()?;
        Ok(match &self.prefix {
            Some(prefix) => Tensor::cat(&[&prefix.expand((b, prefix.dim(1)?, dim))?, &patches], 1)?,
            None => patches,
        })
    }

    /// `(B, N, D)` to `(B, K)`.
    fn classify(&self, x: &Tensor, tap: &mut dyn Tap) -> Result<Tensor> {
        let x = match &self.norm {
            Some(norm) => norm.forward(x)?,
            None => x.clone(),
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
        let logits = self.head.forward(pooled, tap)?;
        Ok(match &self.head_dist {
            Some(head) => ((logits + head.forward(token(1)?, tap)?)? / 2.0)?,
            None => logits,
        }
        .squeeze(1)?)
    }
}

/// The sites of a plain ViT, from its configuration alone.
#[must_use]
pub fn sites(cfg: &VitConfig) -> Vec<SiteInfo> {
    let (rows, columns) = cfg.grid();
    let (tokens, dim, heads) = (cfg.tokens(), cfg.embed_dim, cfg.heads);
    let layer = |name: String, outputs| LayerShape { name, outputs };
    let pixels = cfg.in_chans * cfg.patch_size.0 * cfg.patch_size.1;
    let patch = Site::outside(SiteKind::Patch);
    let mut sites = vec![SiteInfo::of_layer(patch, 0, rows * columns, pixels, layer("patch_embed.proj".into(), dim))];
    for block in 0..cfg.depth {
        let step = 1 + 2 * block;
        let site = |kind| Site::in_block(u16::try_from(block).unwrap_or(u16::MAX), kind);
        let linear = |kind, step, channels, part: &str, outputs| {
            SiteInfo::of_layer(site(kind), step, tokens, channels, layer(format!("blocks.{block}.{part}"), outputs))
        };
        let operand = |kind, channels, product| SiteInfo { site: site(kind), step, tokens, channels, heads, layer: None, product };
        let product = |inner, columns, right| Some(Product { count: heads, rows: tokens, inner, columns, right });
        sites.push(linear(SiteKind::Qkv, step, dim, "attn.qkv", 3 * dim));
        sites.push(operand(SiteKind::Q, dim, product(dim / heads, tokens, RightOperand::Inner(site(SiteKind::K)))));
        sites.push(operand(SiteKind::K, dim, None));
        sites.push(operand(SiteKind::V, dim, None));
        sites.push(operand(SiteKind::Attn, heads * tokens, product(tokens, dim / heads, RightOperand::Columns(site(SiteKind::V)))));
        sites.push(linear(SiteKind::Proj, step, dim, "attn.proj", dim));
        sites.push(linear(SiteKind::Fc1, step + 1, dim, "mlp.fc1", cfg.mlp_dim));
        sites.push(linear(SiteKind::Fc2, step + 1, cfg.mlp_dim, "mlp.fc2", dim));
    }
    let mut head = |kind: SiteKind, channels| {
        let layer = layer(kind.name().into(), cfg.classes);
        sites.push(SiteInfo::of_layer(Site::outside(kind), 1 + 2 * cfg.depth, 1, channels, layer));
    };
    head(SiteKind::Head, cfg.head_dim());
    if cfg.head_dist {
        head(SiteKind::HeadDist, dim);
    }
    sites
}

impl Network for Vit {
    fn steps(&self) -> usize {
        2 * self.blocks.len() + 2
    }

    fn step(&self, index: usize, x: &Tensor, tap: &mut dyn Tap) -> Result<Tensor> {
        let Some(half) = index.checked_sub(1) else { return self.embed(x, tap) };
        match self.blocks.get(half / 2) {
            Some(block) if half.is_multiple_of(2) => block.attend(x, tap),
            Some(block) => block.mix(x, tap),
            None => self.classify(x, tap),
        }
    }

    fn sites(&self) -> Vec<SiteInfo> {
        sites(&self.cfg)
    }

    fn weight(&self, site: Site) -> Option<&Tensor> {
        let layer = match (site.block, site.kind) {
            (None, SiteKind::Patch) => Some(&self.patch_embed.proj),
            (None, SiteKind::Head) => Some(&self.head),
            (None, SiteKind::HeadDist) => self.head_dist.as_ref(),
            (Some(index), kind) => self.blocks.get(usize::from(index)).and_then(|block| match kind {
                SiteKind::Qkv => Some(&block.attn.qkv),
                SiteKind::Proj => Some(&block.attn.proj),
                SiteKind::Fc1 => Some(&block.fc1),
                SiteKind::Fc2 => Some(&block.fc2),
                _ => None,
            }),
            _ => None,
        };
        layer.map(|layer| &layer.weight)
    }

    fn tokens(&self) -> TokenLayout {
        TokenLayout { prefix: self.cfg.prefix_tokens(), grid: self.cfg.grid() }
    }
}
