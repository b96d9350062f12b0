//! A plain ViT, top to bottom, with a tap at every operand. Names follow timm's checkpoints; nothing here knows of quantization.
//!
//! `B` pictures, `N` tokens, `D` width, `H` heads, `d = D/H` channels a head, `P` pixels of a patch in all colours, `K` classes.

use std::sync::Arc;

use candle_core::Tensor;

use crate::error::{Error, Result};
use crate::model::block::{Block, norm};
use crate::model::checkpoint::config::{Pool, VitConfig};
use crate::model::checkpoint::weights::Weights;
use crate::model::detection::{ObjectHead, StoredPositions, prefix_first};
use crate::model::graph::{Graph, GraphTap, Setting, Value};
use crate::model::kernels::Weight;
use crate::model::network::{Network, SiteInfo};
use crate::model::ops::{Factors, Linear, Norm};
use crate::model::output::Output;
use crate::model::patch_embed::PatchEmbed;
use crate::model::positions;
use crate::model::site::{Site, SiteKind};
use crate::model::stream::Stream;
use crate::model::tap::Tap;
use crate::model::tokens::TokenLayout;
pub use crate::model::vit_sites::sites;

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

impl Vit {
    /// What a step makes of the stream.
    fn advance(&self, index: usize, x: &Tensor, tap: &mut dyn Tap) -> Result<Tensor> {
        let Some(half) = index.checked_sub(1) else { return self.embed(x, tap) };
        match self.blocks.get(half / 2) {
            Some(block) if half.is_multiple_of(2) => block.attend(x, 1, tap),
            Some(block) => match self.mid.get(half / 2) {
                Some(positions) => Ok(block.mix(x, tap)?.broadcast_add(positions)?),
                None => block.mix(x, tap),
            },
            None => self.classify(x, tap),
        }
    }
}

impl Network for Vit {
    fn steps(&self) -> usize {
        2 * self.blocks.len() + 2
    }

    fn step(&self, index: usize, stream: &Stream, tap: &mut dyn Tap) -> Result<Stream> {
        Ok(self.advance(index, stream, tap)?.into())
    }

    fn output(&self, last: &Stream) -> Result<Output> {
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
        self.blocks.iter_mut().map(|block| block.smooth(of)).sum()
    }

    fn tokens(&self) -> TokenLayout {
        TokenLayout::grid(self.cfg.prefix_tokens(), self.cfg.grid())
    }
}
