//! EoMT, top to bottom: a plain ViT whose last blocks see queries beside the patches; a query gives a class, and a mask by its product with
//! a finer map of the patches. Formulas follow transformers' `modeling_eomt.py`; nothing here knows of quantization.
//!
//! `B` pictures, `N` tokens of width `D`, `Q` queries. The queries stand behind the class token, where the order of tokens changes nothing:
//! class, queries, registers, patches.

use std::sync::Arc;

use candle_core::Tensor;

use crate::error::Result;
use crate::model::block::{Block, norm};
use crate::model::checkpoint::config::EomtConfig;
use crate::model::checkpoint::config::eomt::{QUERIES, THRESHOLD};
use crate::model::checkpoint::weights::Weights;
use crate::model::conv::{Conv, weight_of};
use crate::model::kernels::Weight;
use crate::model::network::{LayerShape, Network, SiteInfo};
use crate::model::ops::{Factors, Linear, Norm, gelu};
use crate::model::output::{Output, Scoring};
use crate::model::patch_embed::PatchEmbed;
use crate::model::site::{Part, Site, SiteKind};
use crate::model::stream::Stream;
use crate::model::tap::Tap;
use crate::model::tokens::TokenLayout;
use crate::model::vit_sites;

/// The map becomes twice as fine: two by two places of every one, GELU, a depthwise convolution and a norm.
#[derive(Debug)]
struct Upscale {
    four: Linear, // (4 D, D): the four places of one
    depthwise: Conv,
    norm: Norm,
}

impl Upscale {
    fn new(weights: &Weights, index: usize, dim: usize) -> Result<Self> {
        let name = format!("upscale_block.block.{index}");
        let at = |kind| Site { block: Some(u16::try_from(index).unwrap_or(u16::MAX)), ..Site::outside(kind) }.of_part(Part::Mask);
        // (D, D_out, 2, 2) to a row for each of four places and output channels.
        let kernel = weights.get(&format!("{name}.conv1.weight"), &[dim, dim, 2, 2])?;
        let bias = weights.get(&format!("{name}.conv1.bias"), &[dim])?;
        let four = kernel.permute((2, 3, 1, 0))?.reshape((4 * dim, dim))?.contiguous()?;
        Ok(Self {
            four: Linear::of(at(SiteKind::Cv1), four, Some(Tensor::cat(&[&bias, &bias, &bias, &bias], 0)?))?,
            depthwise: Conv::depthwise(weights, &format!("{name}.conv2"), at(SiteKind::Dw), dim, 3, false)?,
            norm: Norm::new(weights, &format!("{name}.layernorm2d"), dim, 1e-6)?,
        })
    }

    /// `(B, rows columns, D)` to `(B, 4 rows columns, D)`.
    fn forward(&self, x: Tensor, (rows, columns): (usize, usize), tap: &mut dyn Tap) -> Result<Tensor> {
        let (b, _, dim) = x.dims3()?;
        let fine = self.four.forward(x, tap)?.reshape((b, rows, columns, 2, 2, dim))?;
        let fine = fine.permute((0, 1, 3, 2, 4, 5))?.reshape((b, 4 * rows * columns, dim))?.contiguous()?;
        self.norm.forward(&self.depthwise.forward(gelu(fine)?, (2 * rows, 2 * columns), tap)?)
    }
}

/// The whole network.
#[derive(Debug)]
pub struct Eomt {
    cfg: EomtConfig,
    patch_embed: PatchEmbed,
    prefix: Tensor,    // (1, 1 + R, D): class token and registers
    pos_embed: Tensor, // (1, G, D)
    queries: Tensor,   // (1, Q, D)
    blocks: Vec<Block>,
    norm: Norm,
    class: Linear,
    mask: [Linear; 3],
    upscales: Vec<Upscale>,
}

/// The layers of the mask head by their names and sites.
const MASK: [(&str, SiteKind); 3] =
    [("mask_head.fc1", SiteKind::Fc1), ("mask_head.fc2", SiteKind::Fc2), ("mask_head.fc3", SiteKind::Query)];

impl Eomt {
    /// Takes the tensors of `cfg` from a checkpoint.
    ///
    /// # Errors
    /// When a tensor is missing, has another shape, or is not finite.
    pub fn new(cfg: EomtConfig, weights: &Weights) -> Result<Self> {
        let (vit, dim) = (&cfg.backbone, cfg.backbone.embed_dim);
        let cls = weights.get("cls_token", &[1, 1, dim])?;
        let prefix = match vit.registers {
            0 => cls,
            count => Tensor::cat(&[cls, weights.get("reg_token", &[1, count, dim])?], 1)?,
        };
        let mask = |(name, kind): (&str, SiteKind)| Linear::new(weights, name, Site::outside(kind).of_part(Part::Mask), (dim, dim), true);
        Ok(Self {
            patch_embed: PatchEmbed::new(weights, (dim, vit.in_chans), vit.patch_size, vit.grid(), vit.patch_bias)?,
            prefix,
            pos_embed: weights.get("pos_embed.weight", &[vit.grid().0 * vit.grid().1, dim])?.unsqueeze(0)?,
            queries: weights.get(QUERIES, &[cfg.queries, dim])?.unsqueeze(0)?,
            blocks: (0..vit.depth).map(|i| Block::new(weights, vit, u16::try_from(i).unwrap_or(u16::MAX))).collect::<Result<_>>()?,
            norm: norm(weights, "norm", vit)?,
            class: Linear::new(weights, "class_predictor", Site::outside(SiteKind::Cls), (cfg.classes + 1, dim), true)?,
            mask: [mask(MASK[0])?, mask(MASK[1])?, mask(MASK[2])?],
            upscales: (0..cfg.upscales).map(|index| Upscale::new(weights, index, dim)).collect::<Result<_>>()?,
            cfg,
        })
    }

    /// `(B, in_chans, height, width)` to `(B, N, D)`.
    fn embed(&self, pixels: &Tensor, tap: &mut dyn Tap) -> Result<Tensor> {
        let patches = self.patch_embed.forward(pixels, tap)?.broadcast_add(&self.pos_embed)?;
        let (b, _, dim) = patches.dims3()?;
        Ok(Tensor::cat(&[&self.prefix.expand((b, self.prefix.dim(1)?, dim))?.contiguous()?, &patches], 1)?)
    }

    /// Whether a block is the first that sees queries.
    const fn joins(&self, block: usize) -> bool {
        block + self.cfg.joined == self.blocks.len()
    }

    /// The queries behind the class token.
    fn join(&self, x: &Tensor) -> Result<Tensor> {
        let (b, n, dim) = x.dims3()?;
        let queries = self.queries.expand((b, self.cfg.queries, dim))?.contiguous()?;
        Ok(Tensor::cat(&[&x.narrow(1, 0, 1)?, &queries, &x.narrow(1, 1, n - 1)?], 1)?)
    }

    /// Logits of classes and of masks, side by side: `(B, Q, K + 1 + rows columns)`.
    fn answer(&self, x: &Tensor, tap: &mut dyn Tap) -> Result<Tensor> {
        let (x, vit) = (self.norm.forward(x)?, &self.cfg.backbone);
        let queries = x.narrow(1, 1, self.cfg.queries)?.contiguous()?;
        let logits = self.class.forward(queries.clone(), tap)?;
        let mut side = queries;
        for (index, layer) in self.mask.iter().enumerate() {
            side = layer.forward(side, tap)?;
            if index < 2 {
                side = gelu(side)?;
            }
        }
        let (rows, columns) = vit.grid();
        let mut map = x.narrow(1, 1 + self.cfg.queries + vit.registers, rows * columns)?.contiguous()?;
        for (index, upscale) in self.upscales.iter().enumerate() {
            map = upscale.forward(map, (rows << index, columns << index), tap)?;
        }
        let masks = side.contiguous()?.matmul(&map.transpose(1, 2)?.contiguous()?)?;
        Ok(Tensor::cat(&[logits, masks], 2)?)
    }

    fn layers(&self) -> impl Iterator<Item = &Linear> {
        let outside = [&self.patch_embed.proj, &self.class].into_iter().chain(&self.mask);
        let upscales = self.upscales.iter().flat_map(|upscale| [&upscale.four, &upscale.depthwise.linear]);
        outside.chain(upscales).chain(self.blocks.iter().flat_map(Block::layers))
    }
}

impl Eomt {
    /// What a step makes of the stream.
    fn advance(&self, index: usize, x: &Tensor, tap: &mut dyn Tap) -> Result<Tensor> {
        let Some(half) = index.checked_sub(1) else { return self.embed(x, tap) };
        match self.blocks.get(half / 2) {
            Some(block) if half.is_multiple_of(2) && self.joins(half / 2) => block.attend(&self.join(x)?, 1, tap),
            Some(block) if half.is_multiple_of(2) => block.attend(x, 1, tap),
            Some(block) => block.mix(x, tap),
            None => self.answer(x, tap),
        }
    }
}

impl Network for Eomt {
    fn steps(&self) -> usize {
        2 * self.blocks.len() + 2
    }

    fn step(&self, index: usize, stream: &Stream, tap: &mut dyn Tap) -> Result<Stream> {
        Ok(self.advance(index, stream, tap)?.into())
    }

    fn output(&self, last: &Stream) -> Result<Output> {
        Output::of_masks(last, self.cfg.classes + 1, self.cfg.mask_grid(), Scoring::Softmax, THRESHOLD)
    }

    fn sites(&self) -> Vec<SiteInfo> {
        let (cfg, vit) = (&self.cfg, &self.cfg.backbone);
        let prefix = |block: usize| 1 + vit.registers + if block + cfg.joined >= vit.depth { cfg.queries } else { 0 };
        let mut sites = vit_sites::of_backbone(vit, vit.depth, |block| TokenLayout::grid(prefix(block), vit.grid()));
        let (last, of_queries) = (self.steps() - 1, TokenLayout::of_queries(cfg.queries));
        let layer = |linear: &Linear, name: &str, layout: TokenLayout| {
            let (outputs, channels) = linear.size();
            SiteInfo::of_layer(linear.site, last, layout.tokens(), channels, LayerShape { name: name.into(), outputs }).over(layout)
        };
        sites.push(layer(&self.class, "class_predictor", of_queries));
        sites.extend(self.mask.iter().zip(MASK).map(|(linear, (name, _))| layer(linear, name, of_queries)));
        for (index, upscale) in self.upscales.iter().enumerate() {
            let grid = |more: usize| (vit.grid().0 << (index + more), vit.grid().1 << (index + more));
            sites.push(layer(&upscale.four, &format!("upscale_block.block.{index}.conv1"), TokenLayout::grid(0, grid(0))));
            sites.push(upscale.depthwise.site(last, grid(1)));
        }
        sites
    }

    fn weight(&self, site: Site) -> Option<&Arc<Weight>> {
        weight_of(self.layers(), site)
    }

    fn smooth(&mut self, of: &Factors<'_>) -> Result<usize> {
        self.blocks.iter_mut().map(|block| block.smooth(of)).sum()
    }

    fn tokens(&self) -> TokenLayout {
        TokenLayout::grid(1 + self.cfg.backbone.registers, self.cfg.backbone.grid())
    }
}
