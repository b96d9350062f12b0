//! RF-DETR, top to bottom: a DINOv2 whose blocks see windows or the whole picture, a projector, a first stage that proposes boxes, a
//! deformable decoder, and where it segments a mask head. Formulas follow transformers' `modeling_rf_detr.py`; nothing here knows of quantization.
//!
//! `B` pictures, `N` tokens of width `D`, `G` places of the map of width `d`, `Q` queries, `K` classes. The stream between steps is `(B, N, D (1 +
//! maps))` in the backbone, and from the first stage on `(B, G + 3 Q, d)`: the map, the queries, their positions, and their references.

mod decoder;
mod masks;
mod projector;
mod proposals;

use std::sync::Arc;

use candle_core::{Device, Tensor};

use crate::error::{Error, Result};
use crate::model::block::{Block, norm};
use crate::model::checkpoint::config::RfDetrConfig;
use crate::model::checkpoint::config::rf_detr::QUERIES;
use crate::model::checkpoint::weights::Weights;
use crate::model::conv::weight_of;
use crate::model::kernels::Weight;
use crate::model::layer::{BoxLayers, LayerNamed, refine, site};
use crate::model::network::{Network, SiteInfo};
use crate::model::ops::{Factors, Linear, Norm};
use crate::model::output::{BOX, Output};
use crate::model::patch_embed::PatchEmbed;
use crate::model::positions;
use crate::model::site::{Part, Site, SiteKind};
use crate::model::stream::Stream;
use crate::model::tap::Tap;
use crate::model::tokens::{TokenLayout, Windows};
use crate::model::vit_sites;

/// Base of the wavelengths of query positions.
const TEMPERATURE: f64 = 10_000.0;
/// Values of a reference in the stream: the box, index and box of its proposal, and the largest logit there.
const REFERENCE: usize = BOX + 1 + BOX + 1;

/// Sines and cosines of boxes `(B, Q, 4)`, `(B, Q, 2 d)`: down, across, width, height, each `d/2` values.
fn sines(boxes: &Tensor, dim: usize) -> Result<Tensor> {
    let each = dim / 2;
    let pair = |i: usize| 2.0 * std::f64::consts::PI / TEMPERATURE.powf(2.0 * (i / 2) as f64 / each as f64);
    let (even, odd): (Vec<f32>, Vec<f32>) = (0..each / 2).map(|i| (pair(2 * i) as f32, pair(2 * i + 1) as f32)).unzip();
    let (b, n, _) = boxes.dims3()?;
    let waves = |steps: Vec<f32>| Tensor::from_vec(steps, (1, 1, each / 2), &Device::Cpu);
    let (even, odd) = (waves(even)?, waves(odd)?);
    let of = |coordinate: usize| -> Result<Tensor> {
        let at = boxes.narrow(2, coordinate, 1)?;
        let both = [at.broadcast_mul(&even)?.sin()?, at.broadcast_mul(&odd)?.cos()?];
        Ok(Tensor::stack(&both, 3)?.reshape((b, n, each))?)
    };
    Ok(Tensor::cat(&[of(1)?, of(0)?, of(2)?, of(3)?], 2)?)
}

/// The whole network.
#[derive(Debug)]
pub struct RfDetr {
    cfg: RfDetrConfig,
    patch_embed: PatchEmbed,
    class_token: Tensor, // (1, 1, D), with its position
    stored: Tensor,      // the positions of patches as stored, of another grid perhaps
    places: Places,
    blocks: Vec<Block>,
    norm: Norm,
    projector: projector::Projector,
    proposals: proposals::Proposals,
    shifts: Tensor,  // (1, Q, 4), what the references of queries are changed by
    queries: Tensor, // (1, Q, d)
    positions: [LayerNamed; 2],
    layers: Vec<decoder::Layer>,
    decoder_norm: Norm,
    class: LayerNamed,
    boxes: BoxLayers,
    masks: Option<masks::Masks>,
}

/// What follows from the size of the input.
#[derive(Debug)]
struct Places {
    pos_embed: Tensor, // (1, G, D)
    order: Tensor,     // (N): of class token and patches, what every token of the windows is
    reverse: Tensor,   // (G): the token of every place
}

impl Places {
    fn new(cfg: &RfDetrConfig, stored: &Tensor) -> Result<Self> {
        let (vit, tokens) = (&cfg.backbone, layout(cfg, false));
        let (rows, columns) = vit.grid();
        let place = |token: usize| tokens.place(token).map_or(0, |(row, column)| 1 + row * columns + column) as u32;
        let order: Vec<u32> = (0..tokens.tokens()).map(place).collect();
        let of_place = |at: usize| tokens.token_at(at / columns, at % columns).unwrap_or_default() as u32;
        let reverse: Vec<u32> = (0..rows * columns).map(of_place).collect();
        Ok(Self {
            pos_embed: positions::resample(stored, vit.position_grid, vit.grid(), vit.position_resampling)?,
            order: Tensor::new(order, &Device::Cpu)?,
            reverse: Tensor::new(reverse, &Device::Cpu)?,
        })
    }
}

/// How the tokens of a block lie: in windows with a class token each, which see only themselves or one another.
fn layout(cfg: &RfDetrConfig, all: bool) -> TokenLayout {
    let ((rows, columns), w) = (cfg.grid(), cfg.windows);
    let windows = Windows { all, ..Windows::new((rows / w, columns / w), (0, 0)) };
    TokenLayout::grid(1, (rows, columns)).in_windows(windows)
}

impl RfDetr {
    /// Takes the tensors of `cfg` from a checkpoint.
    ///
    /// # Errors
    /// When a tensor is missing, has another shape, or is not finite.
    pub fn new(cfg: RfDetrConfig, weights: &Weights) -> Result<Self> {
        let (vit, dim) = (&cfg.backbone, cfg.backbone.embed_dim);
        let positions = weights.get("pos_embed", &[1, 1 + vit.position_grid.0 * vit.position_grid.1, dim])?;
        let patches = positions.narrow(1, 1, vit.position_grid.0 * vit.position_grid.1)?;
        let patches = patches.contiguous()?;
        let rows = weights.shape(QUERIES, 2)?[0];
        let first = |name: &str, width: usize| -> Result<Tensor> {
            Ok(weights.get(name, &[rows, width])?.narrow(0, 0, cfg.queries)?.unsqueeze(0)?.contiguous()?)
        };
        let at = |kind| site(Part::Decoder, None, kind);
        let d = cfg.dim;
        Ok(Self {
            patch_embed: PatchEmbed::new(weights, (dim, vit.in_chans), vit.patch_size, vit.grid(), vit.patch_bias)?,
            class_token: (weights.get("cls_token", &[1, 1, dim])? + positions.narrow(1, 0, 1)?)?,
            places: Places::new(&cfg, &patches)?,
            stored: patches,
            blocks: (0..cfg.blocks()).map(|i| Block::new(weights, vit, u16::try_from(i).unwrap_or(u16::MAX))).collect::<Result<_>>()?,
            norm: norm(weights, "norm", vit)?,
            projector: projector::Projector::new(weights, &cfg)?,
            proposals: proposals::Proposals::new(weights, &cfg)?,
            shifts: first("refpoint_embed.weight", BOX)?,
            queries: first(QUERIES, d)?,
            positions: [
                LayerNamed::new(weights, "decoder.ref_point_head.layers.0", at(SiteKind::Ref0), (d, 2 * d))?,
                LayerNamed::new(weights, "decoder.ref_point_head.layers.1", at(SiteKind::Ref1), (d, d))?,
            ],
            layers: (0..cfg.layers).map(|index| decoder::Layer::new(weights, &cfg, index)).collect::<Result<_>>()?,
            decoder_norm: Norm::new(weights, "decoder.norm", d, 1e-5)?,
            class: LayerNamed::new(weights, "cls", Site::outside(SiteKind::Cls), (cfg.classes, d))?,
            boxes: BoxLayers::new(weights, "box", Part::Backbone, d)?,
            masks: cfg.masks.map(|(hidden, _)| masks::Masks::new(weights, &cfg, hidden)).transpose()?,
            cfg,
        })
    }

    /// Where the step of the projector is.
    const fn projection(&self) -> usize {
        1 + 2 * self.blocks.len()
    }

    /// `(B, in_chans, height, width)` to `(B, N, D)`.
    fn embed(&self, pixels: &Tensor, tap: &mut dyn Tap) -> Result<Tensor> {
        let patches = self.patch_embed.forward(pixels, tap)?.broadcast_add(&self.places.pos_embed)?;
        let (b, _, dim) = patches.dims3()?;
        let tokens = Tensor::cat(&[&self.class_token.expand((b, 1, dim))?.contiguous()?, &patches], 1)?;
        Ok(tokens.index_select(&self.places.order, 1)?)
    }

    /// One half of a block; what was taken before stays behind the stream.
    fn half(&self, half: usize, stream: &Tensor, tap: &mut dyn Tap) -> Result<Tensor> {
        let (index, dim) = (half / 2, self.cfg.backbone.embed_dim);
        let block = &self.blocks[index];
        let wide = stream.dim(2)?;
        let x = if wide == dim { stream.clone() } else { stream.narrow(2, 0, dim)?.contiguous()? };
        let after = if half.is_multiple_of(2) {
            let alone = !self.cfg.taken.contains(&index);
            block.attend(&x, if alone { self.cfg.windows * self.cfg.windows } else { 1 }, tap)?
        } else {
            block.mix(&x, tap)?
        };
        let mut parts = vec![after.clone()];
        if wide > dim {
            parts.push(stream.narrow(2, dim, wide - dim)?);
        }
        if !half.is_multiple_of(2) && self.cfg.taken.contains(&(index + 1)) {
            parts.push(after);
        }
        if parts.len() == 1 { Ok(parts.remove(0)) } else { Ok(Tensor::cat(&parts, 2)?) }
    }

    /// The maps `(B, N, D (1 + maps))` to one `(B, G, d)`.
    fn project(&self, stream: &Tensor, tap: &mut dyn Tap) -> Result<Tensor> {
        let dim = self.cfg.backbone.embed_dim;
        let map = |index: usize| -> Result<Tensor> {
            let taken = stream.narrow(2, dim * (1 + index), dim)?.contiguous()?;
            Ok(self.norm.forward(&taken)?.index_select(&self.places.reverse, 1)?)
        };
        let maps = (0..self.cfg.taken.len()).map(map).collect::<Result<Vec<_>>>()?;
        self.projector.forward(Tensor::cat(&maps, 2)?, self.cfg.grid(), tap)
    }

    /// The map to map, queries, positions and references.
    fn propose(&self, memory: &Tensor, tap: &mut dyn Tap) -> Result<Tensor> {
        let (b, _, d) = memory.dims3()?;
        let queries = self.cfg.queries;
        let found = self.proposals.forward(memory, self.cfg.grid(), tap)?; // index, box, logit
        let references = refine(&found.narrow(2, 1, BOX)?, &self.shifts.broadcast_as((b, queries, BOX))?)?;
        let [first, second] = &self.positions;
        let positions = first.linear.forward(sines(&references, d)?, tap)?.relu()?;
        let positions = second.linear.forward(positions, tap)?;
        let references = Tensor::cat(&[&references, &found], 2)?.pad_with_zeros(2, 0, d - REFERENCE)?;
        Ok(Tensor::cat(&[memory.clone(), self.queries.broadcast_as((b, queries, d))?.contiguous()?, positions, references], 1)?)
    }

    /// The stream of the decoder cut into map, queries, positions and references.
    fn cut(&self, stream: &Tensor) -> Result<[Tensor; 4]> {
        let (g, q) = (self.cfg.grid().0 * self.cfg.grid().1, self.cfg.queries);
        let part = |start, length| stream.narrow(1, start, length)?.contiguous();
        Ok([part(0, g)?, part(g, q)?, part(g + q, q)?, part(g + 2 * q, q)?])
    }

    fn decode(&self, index: usize, stream: &Tensor, tap: &mut dyn Tap) -> Result<Tensor> {
        let [memory, x, positions, references] = self.cut(stream)?;
        let layer = &self.layers[index / 3];
        let x = match index % 3 {
            0 => layer.attend(&x, &positions, tap)?,
            1 => {
                let boxes = references.narrow(2, 0, BOX)?;
                layer.sample(&x, &positions, &boxes, (&memory, self.cfg.grid()), tap)?
            }
            _ => layer.mix(&x, tap)?,
        };
        Ok(Tensor::cat(&[memory, x, positions, references], 1)?)
    }

    /// What [`Output::of_queries`] reads: logits, boxes, proposals, references and masks, side by side.
    fn answer(&self, stream: &Tensor, tap: &mut dyn Tap) -> Result<Tensor> {
        let [memory, x, _, references] = self.cut(stream)?;
        let x = self.decoder_norm.forward(&x)?;
        let logits = self.class.linear.forward(x.clone(), tap)?;
        let reference = references.narrow(2, 0, BOX)?;
        let boxes = refine(&reference, &self.boxes.forward(&x, tap)?)?;
        let mut parts = vec![logits, boxes, references.narrow(2, BOX, REFERENCE - BOX)?, reference];
        if let (Some(masks), Some(grid)) = (&self.masks, self.cfg.mask_grid()) {
            parts.push(masks.forward(&x, &memory, self.cfg.grid(), grid, tap)?);
        }
        Ok(Tensor::cat(&parts, 2)?)
    }

    fn layers(&self) -> impl Iterator<Item = &Linear> {
        let outside = [&self.patch_embed.proj, &self.class.linear, &self.positions[0].linear, &self.positions[1].linear];
        let heads = self.boxes.layers().map(|layer| &layer.linear).chain(self.masks.iter().flat_map(masks::Masks::layers));
        let decoder = self.proposals.layers().chain(self.layers.iter().flat_map(decoder::Layer::layers));
        let backbone = outside.into_iter().chain(self.blocks.iter().flat_map(Block::layers));
        backbone.chain(self.projector.layers()).chain(decoder).chain(heads)
    }
}

impl RfDetr {
    /// What a step makes of the stream.
    fn advance(&self, index: usize, x: &Tensor, tap: &mut dyn Tap) -> Result<Tensor> {
        let Some(half) = index.checked_sub(1) else { return self.embed(x, tap) };
        if half < 2 * self.blocks.len() {
            return self.half(half, x, tap);
        }
        match index - self.projection() {
            0 => self.project(x, tap),
            1 => self.propose(x, tap),
            at if at - 2 < 3 * self.layers.len() => self.decode(at - 2, x, tap),
            _ => self.answer(x, tap),
        }
    }
}

impl Network for RfDetr {
    fn steps(&self) -> usize {
        self.projection() + 2 + 3 * self.layers.len() + 1
    }

    fn step(&self, index: usize, stream: &Stream, tap: &mut dyn Tap) -> Result<Stream> {
        Ok(self.advance(index, stream, tap)?.into())
    }

    fn branch(&self) -> Option<usize> {
        Some(self.projection() + 1)
    }

    fn output(&self, last: &Stream) -> Result<Output> {
        Output::of_queries(last, self.cfg.classes, self.cfg.mask_grid())
    }

    fn sites(&self) -> Vec<SiteInfo> {
        let (cfg, grid) = (&self.cfg, self.cfg.grid());
        let of_block = |index: usize| layout(cfg, cfg.taken.contains(&index));
        let mut sites = vit_sites::of_backbone(&cfg.backbone, cfg.blocks(), of_block);
        let (projection, of_queries) = (self.projection(), TokenLayout::of_queries(cfg.queries));
        sites.extend(self.projector.sites(projection, grid));
        sites.extend(self.proposals.sites(projection + 1, grid));
        sites.extend(self.positions.iter().map(|layer| layer.site(projection + 1, of_queries)));
        for (index, layer) in self.layers.iter().enumerate() {
            sites.extend(layer.sites(projection + 2 + 3 * index, cfg.queries, grid));
        }
        let last = self.steps() - 1;
        sites.push(self.class.site(last, of_queries));
        sites.extend(self.boxes.layers().map(|layer| layer.site(last, of_queries)));
        if let (Some(masks), Some(grid)) = (&self.masks, cfg.mask_grid()) {
            sites.extend(masks.sites(last, cfg.queries, grid));
        }
        sites
    }

    fn weight(&self, site: Site) -> Option<&Arc<Weight>> {
        weight_of(self.layers(), site)
    }

    fn smooth(&mut self, of: &Factors<'_>) -> Result<usize> {
        self.blocks.iter_mut().map(|block| block.smooth(of)).sum()
    }

    fn resize(&mut self, size: (usize, usize)) -> Result<bool> {
        let (patch, windows) = (self.cfg.backbone.patch_size, self.cfg.windows);
        let (height, width) = (patch.0 * windows, patch.1 * windows);
        if !(size.0 >= height && size.1 >= width && size.0.is_multiple_of(height) && size.1.is_multiple_of(width)) {
            let expected = format!("sides that are multiples of {height}x{width}, the patch times the windows");
            return Err(Error::setting("--input-size", format!("{}x{}", size.1, size.0), expected));
        }
        self.cfg.backbone.image_size = size;
        self.patch_embed.over(self.cfg.grid());
        self.places = Places::new(&self.cfg, &self.stored)?;
        Ok(true)
    }

    fn tokens(&self) -> TokenLayout {
        TokenLayout::grid(1, self.cfg.grid())
    }
}
