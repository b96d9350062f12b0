//! The first stage: on every level of the pyramid three boxes a cell, and the likeliest of them that do not overlap.

use candle_core::{DType, Device, Tensor};

use super::boxes::{self, Extent};
use crate::error::Result;
use crate::model::checkpoint::config::RcnnConfig;
use crate::model::checkpoint::weights::Weights;
use crate::model::conv::Conv;
use crate::model::layer::site;
use crate::model::neighbourhood::Grids;
use crate::model::network::SiteInfo;
use crate::model::ops::Linear;
use crate::model::output::BOX;
use crate::model::regions::{Region, suppress};
use crate::model::site::{Part, SiteKind};
use crate::model::tap::Tap;
use crate::model::tokens::TokenLayout;

/// Height to width of the boxes of a cell.
const RATIOS: [f32; 3] = [0.5, 1.0, 2.0];
/// The side of a square one in cells.
const CELLS: f32 = 8.0;
/// Boxes of a level that may propose.
const OF_LEVEL: usize = 1000;
/// Overlap from which on the less likely of two boxes of a level goes.
const OVERLAP: f32 = 0.7;
/// What the index of a proposal is that is not there.
pub(super) const NONE: f32 = -1.0;

/// The first stage.
#[derive(Debug)]
pub(super) struct Rpn {
    conv: Conv,
    class: Conv,
    boxes: Conv,
    stride: usize,
    most: usize,
    keeps_flat: bool,
}

impl Rpn {
    pub fn new(weights: &Weights, cfg: &RcnnConfig) -> Result<Self> {
        let (d, per_cell) = (cfg.dim, RATIOS.len());
        let conv = |name: &str, kind, outputs: usize, size: usize| {
            Conv::new(weights, &format!("rpn_head.{name}"), site(Part::Rpn, None, kind), (outputs, d), size, true)
        };
        Ok(Self {
            conv: conv("rpn_conv", SiteKind::Conv, d, 3)?,
            class: conv("rpn_cls", SiteKind::Cls, per_cell, 1)?,
            boxes: conv("rpn_reg", SiteKind::Reg, BOX * per_cell, 1)?,
            stride: cfg.backbone.patch_size.0,
            most: cfg.proposals,
            keeps_flat: cfg.keeps_flat,
        })
    }

    /// How many proposals a picture has at most on these levels.
    pub fn count(&self, levels: &[(usize, usize)]) -> usize {
        let all: usize = levels.iter().map(|(rows, columns)| OF_LEVEL.min(RATIOS.len() * rows * columns)).sum();
        self.most.min(all)
    }

    /// What the levels `(B, N, d)` propose in pictures of some extent: index and box in pixels `(B, R, 5)`, and the logit of an object
    /// `(B, R)`, `R` as many as the picture with the most has. Of the others the last ones have the index [`NONE`] and no size. A tap may pin them.
    pub fn forward(&self, maps: &Tensor, levels: &[(usize, usize)], extents: &[Extent], tap: &mut dyn Tap) -> Result<(Tensor, Tensor)> {
        let (b, ..) = maps.dims3()?;
        let grids = Grids::of_levels(levels);
        let x = self.conv.forward_over(maps.clone(), &grids, tap)?.relu()?;
        let logits = self.class.forward_over(x.clone(), &grids, tap)?.reshape((b, ()))?; // (B, 3 N)
        let changes = self.boxes.forward_over(x, &grids, tap)?.detach().reshape((b, (), BOX))?;
        let mut of_pictures = Vec::with_capacity(b);
        for (picture, extent) in extents.iter().enumerate() {
            let logits = logits.get(picture)?.detach().to_vec1::<f32>()?;
            let changes = changes.get(picture)?.flatten_all()?.to_vec1::<f32>()?;
            let mut chosen = self.choose(&logits, &changes, levels, *extent);
            chosen.truncate(self.most);
            of_pictures.push(chosen);
        }
        let count = of_pictures.iter().map(Vec::len).max().unwrap_or(0).max(1);
        let mut rows = Vec::new();
        for chosen in of_pictures {
            rows.extend(chosen.iter().flat_map(|(index, [left, top, right, bottom])| [*index as f32, *left, *top, *right, *bottom]));
            rows.extend((chosen.len()..count).flat_map(|_| [NONE, 0.0, 0.0, 0.0, 0.0]));
        }
        let chosen = tap.proposals(Tensor::from_vec(rows, (b, count, 1 + BOX), &Device::Cpu)?)?;
        let index = chosen.narrow(2, 0, 1)?.squeeze(2)?.contiguous()?;
        let there = index.ge(0.0)?.to_dtype(DType::F32)?;
        let objectness = logits.gather(&index.relu()?.to_dtype(DType::U32)?.contiguous()?, 1)?;
        Ok((chosen, (objectness * there)?))
    }

    /// The proposals of one picture, the likeliest first: the index among all boxes, and the box.
    fn choose(&self, logits: &[f32], changes: &[f32], levels: &[(usize, usize)], extent: Extent) -> Vec<(usize, Region)> {
        let (mut start, mut all) = (0, Vec::new());
        for (level, (rows, columns)) in levels.iter().enumerate() {
            let stride = (self.stride << level) as f32;
            let mut order: Vec<usize> = (start..start + RATIOS.len() * rows * columns).collect();
            order.sort_by(|a, b| logits[*b].total_cmp(&logits[*a]).then(a.cmp(b)));
            let of = |index: usize| {
                let (cell, ratio) = ((index - start) / RATIOS.len(), RATIOS[(index - start) % RATIOS.len()]);
                let (x, y) = ((cell % columns) as f32 * stride, (cell / columns) as f32 * stride);
                let (width, height) = (CELLS * stride / ratio.sqrt(), CELLS * stride * ratio.sqrt());
                let anchor = [x - width / 2.0, y - height / 2.0, x + width / 2.0, y + height / 2.0];
                (index, boxes::changed(anchor, &changes[index * BOX..][..BOX], [1.0; BOX], extent))
            };
            let large = |(_, [left, top, right, bottom]): &(usize, Region)| self.keeps_flat || right > left && bottom > top;
            let some: Vec<(usize, Region)> = order.into_iter().take(OF_LEVEL).map(of).filter(large).collect();
            let (regions, scores): (Vec<Region>, Vec<f32>) = some.iter().map(|(index, region)| (*region, logits[*index])).unzip();
            all.extend(suppress(&regions, &scores, OVERLAP).into_iter().map(|at| some[at]));
            start += RATIOS.len() * rows * columns;
        }
        all.sort_by(|a, b| logits[b.0].total_cmp(&logits[a.0]).then(a.0.cmp(&b.0)));
        all
    }

    fn convs(&self) -> [&Conv; 3] {
        [&self.conv, &self.class, &self.boxes]
    }

    pub fn layers(&self) -> impl Iterator<Item = &Linear> {
        self.convs().into_iter().map(|conv| &conv.linear)
    }

    pub fn sites(&self, step: usize, levels: &[(usize, usize)]) -> impl Iterator<Item = SiteInfo> {
        let grids = Grids::of_levels(levels);
        let layout = TokenLayout::of_queries(grids.tokens());
        self.convs().into_iter().map(move |conv| conv.site_over(step, grids.clone(), layout))
    }
}
