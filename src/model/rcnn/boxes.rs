//! The second stage: what a region holds becomes classes and a box for each. In a cascade there are several, each from the boxes of the one before.

use candle_core::Tensor;

use crate::error::Result;
use crate::model::checkpoint::config::RcnnConfig;
use crate::model::checkpoint::config::rcnn::OBJECTS;
use crate::model::checkpoint::weights::Weights;
use crate::model::conv::Conv;
use crate::model::layer::{LayerNamed, site_in_stage};
use crate::model::neighbourhood::Grids;
use crate::model::network::SiteInfo;
use crate::model::ops::Linear;
use crate::model::output::BOX;
use crate::model::regions::{Region, suppress};
use crate::model::site::{Part, SiteKind};
use crate::model::tap::Tap;
use crate::model::tokens::TokenLayout;

/// Rows and columns of pixels that are not padding.
pub(super) type Extent = [f32; 2];

/// Rows and columns that are read of a region.
pub(super) const SIZE: usize = 7;
/// The largest change of a side, in logarithms.
const LARGEST: f32 = 4.135_166_6; // ln(1000 / 16)
/// Deviations by which changes of boxes are multiplied, of each stage of a cascade; the only stage of another has the first.
const DEVIATIONS: [[f32; BOX]; 3] = [[0.1, 0.1, 0.2, 0.2], [0.05, 0.05, 0.1, 0.1], [0.033, 0.033, 0.067, 0.067]];
/// Probability from which on a class of a region may be an object.
const LEAST: f32 = 0.05;
/// Overlap from which on the less likely of two objects of a class goes.
const OVERLAP: f32 = 0.5;

/// A box changed by what a layer says of it: centre by shares of the sides, sides by factors in logarithms, cut to the picture.
pub(super) fn changed([left, top, right, bottom]: Region, changes: &[f32], deviations: [f32; BOX], extent: Extent) -> Region {
    let of = |at: usize| changes[at] * deviations[at];
    let (width, height) = (right - left, bottom - top);
    let (x, y) = ((left + right) * 0.5 + width * of(0), (top + bottom) * 0.5 + height * of(1));
    let (width, height) = (width * of(2).clamp(-LARGEST, LARGEST).exp(), height * of(3).clamp(-LARGEST, LARGEST).exp());
    let [rows, columns] = extent;
    let (across, down) = (|at: f32| at.clamp(0.0, columns), |at: f32| at.clamp(0.0, rows));
    [across(x - width * 0.5), down(y - height * 0.5), across(x + width * 0.5), down(y + height * 0.5)]
}

/// What one stage says of the regions of a batch.
pub(super) struct Said {
    /// Logits of classes and of none, which is the last: `(B, R, K + 1)`.
    pub logits: Tensor,
    /// Changes of the box, for every class or for all alike: `(B, R, 4 K)` or `(B, R, 4)`.
    pub changes: Tensor,
}

/// An object of one picture.
#[derive(Debug, Clone, Copy)]
pub(super) struct Found {
    pub class: usize,
    pub probability: f32,
    pub region: Region,
    pub proposal: usize,
}

/// A stage.
#[derive(Debug)]
pub(super) struct Head {
    convs: Vec<Conv>,
    layers: Vec<LayerNamed>, // as many as there are, then those of classes and boxes
    of_classes: bool,        // whether every class has a box of its own
    deviations: [f32; BOX],
}

impl Head {
    /// The stage `stage` of a cascade, or the only one.
    pub fn new(weights: &Weights, cfg: &RcnnConfig, stage: Option<usize>) -> Result<Self> {
        let name = stage.map_or_else(|| "roi_head.bbox_head".into(), |stage| format!("roi_head.bbox_head.{stage}"));
        let site = |kind, block: Option<usize>| site_in_stage(Part::Boxes, stage, block, kind);
        let (d, hidden) = (cfg.dim, cfg.hidden);
        let conv = |index: usize| {
            let part = |part: &str| format!("{name}.shared_convs.{index}.{part}");
            Conv::with_norm(weights, (&part("conv"), &part("bn")), site(SiteKind::Conv, Some(index)), (d, d), (3, 1))
        };
        let layer = |index: usize| {
            let inputs = if index == 0 { d * SIZE * SIZE } else { hidden };
            LayerNamed::new(weights, &format!("{name}.shared_fcs.{index}"), site(SiteKind::Fc, Some(index)), (hidden, inputs))
        };
        let boxes = BOX * if cfg.box_of_class { cfg.classes } else { 1 };
        let mut layers = (0..cfg.layers).map(layer).collect::<Result<Vec<_>>>()?;
        layers.push(LayerNamed::new(weights, &format!("{name}.fc_cls"), site(SiteKind::Cls, None), (cfg.classes + 1, hidden))?);
        layers.push(LayerNamed::new(weights, &format!("{name}.fc_reg"), site(SiteKind::Reg, None), (boxes, hidden))?);
        Ok(Self {
            convs: (0..cfg.convs).map(conv).collect::<Result<_>>()?,
            layers,
            of_classes: cfg.box_of_class,
            deviations: DEVIATIONS[stage.unwrap_or(0).min(DEVIATIONS.len() - 1)],
        })
    }

    /// What it says of `count` regions a picture, of which `(B, count 7 7, d)` is what they hold.
    pub fn forward(&self, held: Tensor, count: usize, tap: &mut dyn Tap) -> Result<Said> {
        let (b, _, d) = held.dims3()?;
        let grids = Grids::of_regions(count, (SIZE, SIZE));
        let held = self.convs.iter().try_fold(held, |x, conv| Ok::<_, crate::Error>(conv.forward_over(x, &grids, tap)?.relu()?))?;
        // Channel by channel, as the weights have it.
        let mut x = held.reshape((b, count, SIZE * SIZE, d))?.transpose(2, 3)?.reshape((b, count, d * SIZE * SIZE))?;
        let hidden = self.layers.len() - 2;
        for layer in &self.layers[..hidden] {
            x = layer.linear.forward(x, tap)?.relu()?;
        }
        let logits = self.layers[hidden].linear.forward(x.clone(), tap)?;
        Ok(Said { logits, changes: self.layers[hidden + 1].linear.forward(x, tap)? })
    }

    /// The box of a region that a class says.
    fn of_class(&self, region: Region, changes: &[f32], class: usize, extent: Extent) -> Region {
        changed(region, if self.of_classes { &changes[class * BOX..][..BOX] } else { changes }, self.deviations, extent)
    }

    /// The regions of every picture as the likeliest class of each says: those of the next stage. What has no size stays so.
    pub fn next(&self, regions: &[Vec<Region>], said: &Said, extents: &[Extent]) -> Result<Vec<Vec<Region>>> {
        let (logits, changes) = (said.logits.detach().to_vec3::<f32>()?, said.changes.detach().to_vec3::<f32>()?);
        let of_picture = |picture: usize| {
            let rows = regions[picture].iter().zip(logits[picture].iter().zip(&changes[picture]));
            rows.map(|(region, (logits, changes))| {
                let classes = logits.len() - 1;
                let likeliest = (1..classes).fold(0, |best, class| if logits[class] > logits[best] { class } else { best });
                self.of_class(*region, changes, likeliest, extents[picture])
            })
            .collect()
        };
        Ok((0..regions.len()).map(of_picture).collect())
    }

    /// The objects of one picture, the likeliest first: of every class the regions that do not overlap a likelier one.
    pub fn objects(&self, regions: &[Region], logits: &[Vec<f32>], changes: &[Vec<f32>], extent: Extent) -> Vec<Found> {
        let probabilities: Vec<Vec<f32>> = logits.iter().map(|row| softmax(row)).collect();
        let classes = probabilities.first().map_or(0, |row| row.len() - 1);
        let mut all = Vec::new();
        for class in 0..classes {
            let of = |at: &usize| probabilities.get(*at).map_or(0.0, |row| row[class]);
            let likely: Vec<usize> = (0..regions.len()).filter(|at| of(at) > LEAST).collect();
            let boxes: Vec<Region> = likely.iter().map(|at| self.of_class(regions[*at], &changes[*at], class, extent)).collect();
            let scores: Vec<f32> = likely.iter().map(of).collect();
            all.extend(suppress(&boxes, &scores, OVERLAP).into_iter().map(|at| Found {
                class,
                probability: scores[at],
                region: boxes[at],
                proposal: likely[at],
            }));
        }
        all.sort_by(|a, b| b.probability.total_cmp(&a.probability).then((a.class, a.proposal).cmp(&(b.class, b.proposal))));
        all.truncate(OBJECTS);
        all
    }

    /// What stands in for objects where a picture has none, so that the layers of masks see a box: the likeliest class of a region, with
    /// probability 0.
    pub fn stand_in(&self, regions: &[Region], logits: &[Vec<f32>], changes: &[Vec<f32>], extent: Extent) -> Option<Found> {
        let of = |(proposal, row): (usize, &Vec<f32>)| {
            let classes = softmax(row).into_iter().take(row.len() - 1).enumerate();
            let (class, likely) = classes.max_by(|a, b| a.1.total_cmp(&b.1))?;
            Some((likely, class, proposal))
        };
        let (_, class, proposal) = logits.iter().enumerate().filter_map(of).max_by(|a, b| a.0.total_cmp(&b.0))?;
        let region = self.of_class(*regions.get(proposal)?, changes.get(proposal)?, class, extent);
        Some(Found { class, probability: 0.0, region, proposal })
    }

    pub fn layers(&self) -> impl Iterator<Item = &Linear> {
        self.convs.iter().map(|conv| &conv.linear).chain(self.layers.iter().map(|layer| &layer.linear))
    }

    pub fn sites(&self, step: usize, count: usize) -> Vec<SiteInfo> {
        let grids = Grids::of_regions(count, (SIZE, SIZE));
        let (of_cells, of_regions) = (TokenLayout::of_queries(grids.tokens()), TokenLayout::of_queries(count));
        let convs = self.convs.iter().map(|conv| conv.site_over(step, grids.clone(), of_cells));
        convs.chain(self.layers.iter().map(|layer| layer.site(step, of_regions))).collect()
    }
}

fn softmax(logits: &[f32]) -> Vec<f32> {
    let most = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let parts: Vec<f32> = logits.iter().map(|logit| (logit - most).exp()).collect();
    let sum: f32 = parts.iter().sum();
    parts.into_iter().map(|part| part / sum).collect()
}
