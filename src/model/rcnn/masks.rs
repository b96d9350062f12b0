//! The masks of objects: what a box holds, through convolutions, to a logit for each class and pixel of 28 by 28 over the box.

use candle_core::{D, Tensor};

use crate::error::Result;
use crate::model::checkpoint::config::RcnnConfig;
use crate::model::checkpoint::weights::Weights;
use crate::model::conv::Conv;
use crate::model::layer::site_in_stage;
use crate::model::neighbourhood::Grids;
use crate::model::network::SiteInfo;
use crate::model::ops::Linear;
use crate::model::site::{Part, SiteKind};
use crate::model::tap::Tap;
use crate::model::tokens::TokenLayout;

/// Rows and columns that are read of a box.
pub(super) const SIZE: usize = 14;
/// Rows and columns of a mask.
pub(super) const MASK: usize = 2 * SIZE;

/// The masks of one stage.
#[derive(Debug)]
pub(super) struct Masks {
    convs: Vec<Conv>,
    up: Tensor,      // (d, 4 d): each cell to two by two
    up_bias: Tensor, // (d)
    logits: Conv,
}

impl Masks {
    pub fn new(weights: &Weights, cfg: &RcnnConfig, stage: Option<usize>) -> Result<Self> {
        let name = stage.map_or_else(|| "roi_head.mask_head".into(), |stage| format!("roi_head.mask_head.{stage}"));
        let d = cfg.dim;
        let site = |kind, block: Option<usize>| site_in_stage(Part::Masks, stage, block, kind);
        let conv =
            |index: usize| Conv::new(weights, &format!("{name}.convs.{index}.conv"), site(SiteKind::Conv, Some(index)), (d, d), 3, true);
        let up = weights.get(&format!("{name}.upsample.weight"), &[d, d, 2, 2])?;
        Ok(Self {
            convs: (0..cfg.mask_convs).map(conv).collect::<Result<_>>()?,
            up: up.permute((0, 2, 3, 1))?.reshape((d, 4 * d))?,
            up_bias: weights.get(&format!("{name}.upsample.bias"), &[d])?,
            logits: Conv::new(weights, &format!("{name}.conv_logits"), site(SiteKind::Logits, None), (cfg.classes, d), 1, true)?,
        })
    }

    /// Probabilities of the pixels `(B, count, 28 28)` of `count` boxes a picture, of which `(B, count 14 14, d)` is what they hold; `classes`
    /// `(B, count, 1, 1)` are theirs.
    pub fn forward(&self, held: Tensor, classes: &Tensor, tap: &mut dyn Tap) -> Result<Tensor> {
        let (b, count) = (classes.dim(0)?, classes.dim(1)?);
        let grids = Grids::of_regions(count, (SIZE, SIZE));
        let x = self.convs.iter().try_fold(held, |x, conv| Ok::<_, crate::Error>(conv.forward_over(x, &grids, tap)?.relu()?))?;
        // The enlargement stays in float, as the field has it.
        let (_, cells, d) = x.dims3()?;
        let x = x.reshape((b * cells, d))?.matmul(&self.up)?.reshape((b * count, SIZE, SIZE, 2, 2, d))?;
        let x = x.permute((0, 1, 3, 2, 4, 5))?.reshape((b, count * MASK * MASK, d))?.broadcast_add(&self.up_bias)?.relu()?;
        let logits = self.logits.forward_over(x, &Grids::of_regions(count, (MASK, MASK)), tap)?;
        let classes = classes.expand((b, count, MASK * MASK, 1))?.contiguous()?;
        let own = logits.reshape((b, count, MASK * MASK, ()))?.gather(&classes, D::Minus1)?.squeeze(3)?;
        Ok(candle_nn::ops::sigmoid(&own)?)
    }

    pub fn layers(&self) -> impl Iterator<Item = &Linear> {
        self.convs.iter().chain([&self.logits]).map(|conv| &conv.linear)
    }

    pub fn sites(&self, step: usize, count: usize) -> Vec<SiteInfo> {
        let site = |conv: &Conv, side: usize| {
            let grids = Grids::of_regions(count, (side, side));
            conv.site_over(step, grids.clone(), TokenLayout::of_queries(grids.tokens()))
        };
        self.convs.iter().map(|conv| site(conv, SIZE)).chain([site(&self.logits, MASK)]).collect()
    }
}
