//! The mask head: the map, four times finer, goes through a block for each decoder layer; a mask is the product of a query with it.

use candle_core::{Device, Tensor};

use crate::error::Result;
use crate::model::checkpoint::config::RfDetrConfig;
use crate::model::checkpoint::weights::Weights;
use crate::model::conv::Conv;
use crate::model::layer::{LayerNamed, site};
use crate::model::network::SiteInfo;
use crate::model::ops::{Linear, Norm, gelu};
use crate::model::site::{Part, SiteKind};
use crate::model::tap::Tap;
use crate::model::tokens::TokenLayout;

/// A depthwise convolution, a norm and a layer with GELU, around which the map is passed.
#[derive(Debug)]
struct Block {
    depthwise: Conv,
    norm: Norm,
    pointwise: LayerNamed,
}

/// The whole head.
#[derive(Debug)]
pub struct Masks {
    blocks: Vec<Block>,
    map: Conv,
    norm: Norm,
    fc1: LayerNamed,
    fc2: LayerNamed,
    query: LayerNamed,
    bias: Tensor, // (1)
}

impl Masks {
    /// Takes the head of a checkpoint; `hidden` is the width of the queries' MLP.
    ///
    /// # Errors
    /// When a tensor is missing or has another shape.
    pub fn new(weights: &Weights, cfg: &RfDetrConfig, hidden: usize) -> Result<Self> {
        let d = cfg.dim;
        let at = |kind| site(Part::Mask, None, kind);
        let block = |index: usize| {
            let (name, at) = (format!("mask.blocks.{index}"), |kind| site(Part::Mask, Some(index), kind));
            Ok(Block {
                depthwise: Conv::depthwise(weights, &format!("{name}.dwconv"), at(SiteKind::Dw), d, 3, true)?,
                norm: Norm::new(weights, &format!("{name}.norm"), d, 1e-6)?,
                pointwise: LayerNamed::new(weights, &format!("{name}.pwconv1"), at(SiteKind::Pw), (d, d))?,
            })
        };
        Ok(Self {
            blocks: (0..cfg.layers).map(block).collect::<Result<_>>()?,
            map: Conv::new(weights, "mask.spatial_features_proj", at(SiteKind::Map), (d, d), 1, true)?,
            norm: Norm::new(weights, "mask.query_features_block.norm_in", d, 1e-5)?,
            fc1: LayerNamed::new(weights, "mask.query_features_block.layers.0", at(SiteKind::Fc1), (hidden, d))?,
            fc2: LayerNamed::new(weights, "mask.query_features_block.layers.2", at(SiteKind::Fc2), (d, hidden))?,
            query: LayerNamed::new(weights, "mask.query_features_proj", at(SiteKind::Query), (d, d))?,
            bias: weights.get("mask.bias", &[1])?,
        })
    }

    /// Queries `(B, Q, d)` and the map `(B, from.0 from.1, d)` to logits of masks `(B, Q, to.0 to.1)`.
    ///
    /// # Errors
    /// When the tap refuses.
    pub fn forward(&self, queries: &Tensor, map: &Tensor, from: (usize, usize), to: (usize, usize), tap: &mut dyn Tap) -> Result<Tensor> {
        let mut map = enlarge(map, from, to)?;
        for block in &self.blocks {
            let x = block.norm.forward(&block.depthwise.forward(map.clone(), to, tap)?)?;
            map = (gelu(block.pointwise.linear.forward(x, tap)?)? + map)?;
        }
        let map = self.map.forward(map, to, tap)?;
        let hidden = gelu(self.fc1.linear.forward(self.norm.forward(queries)?, tap)?)?;
        let queries = (self.fc2.linear.forward(hidden, tap)? + queries)?;
        let queries = self.query.linear.forward(queries, tap)?;
        Ok(queries.contiguous()?.matmul(&map.transpose(1, 2)?.contiguous()?)?.broadcast_add(&self.bias)?)
    }

    fn named(&self) -> [&LayerNamed; 3] {
        [&self.fc1, &self.fc2, &self.query]
    }

    /// Its layers.
    pub fn layers(&self) -> impl Iterator<Item = &Linear> {
        let blocks = self.blocks.iter().flat_map(|block| [&block.depthwise.linear, &block.pointwise.linear]);
        blocks.chain(std::iter::once(&self.map.linear)).chain(self.named().map(|layer| &layer.linear))
    }

    /// Its sites, in step `step`, for masks of a grid.
    #[must_use]
    pub fn sites(&self, step: usize, queries: usize, grid: (usize, usize)) -> Vec<SiteInfo> {
        let of_map = TokenLayout::grid(0, grid);
        let blocks = self.blocks.iter().flat_map(|block| [block.depthwise.site(step, grid), block.pointwise.site(step, of_map)]);
        let mut sites: Vec<SiteInfo> = blocks.collect();
        sites.push(self.map.site(step, grid));
        sites.extend(self.named().map(|layer| layer.site(step, TokenLayout::of_queries(queries))));
        sites
    }
}

/// A map `(B, from.0 from.1, d)` at another size, `(B, to.0 to.1, d)`: torch's `interpolate(mode="bilinear", align_corners=False)`.
fn enlarge(map: &Tensor, from: (usize, usize), to: (usize, usize)) -> Result<Tensor> {
    let (b, _, d) = map.dims3()?;
    let rows = matrix(from.0, to.0)?.broadcast_matmul(&map.reshape((b, from.0, from.1 * d))?)?; // (B, to.0, from.1 d)
    let columns = rows.reshape((b * to.0, from.1, d))?;
    Ok(matrix(from.1, to.1)?.broadcast_matmul(&columns)?.reshape((b, to.0 * to.1, d))?)
}

/// The interpolation of one axis as a matrix `(to, from)`.
fn matrix(from: usize, to: usize) -> Result<Tensor> {
    let mut weights = vec![0f32; to * from];
    let step = from as f32 / to as f32;
    for (target, row) in weights.chunks_mut(from).enumerate() {
        let at = (step * (target as f32 + 0.5) - 0.5).max(0.0);
        let first = (at as usize).min(from - 1);
        let share = at - first as f32;
        row[first] += 1.0 - share;
        row[(first + 1).min(from - 1)] += share;
    }
    Ok(Tensor::from_vec(weights, (to, from), &Device::Cpu)?)
}
