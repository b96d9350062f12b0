//! Mask R-CNN and Cascade Mask R-CNN on a Swin Transformer, as mmdet has them: a feature pyramid over its stages, a first stage that proposes
//! regions on every level, one or three stages that give regions classes and boxes, and masks of what is left. Formulas follow mmdet 2; nothing here
//! knows of quantization.
//!
//! `B` pictures, `N` cells of all levels of width `d`, `R` regions, `K` classes. A region is one slot of the prediction: the logits `(B, R, K + 1)` are those
//! of regions, and what is seen are the objects that come of them. Beside the stream stand the maps of the stages, then those of the pyramid, what of
//! each input is not padding, the proposals, the logits of all stages, and the objects.

mod boxes;
mod masks;
mod neck;
mod rpn;

use std::sync::Arc;

use boxes::{Extent, Found, Head};
use candle_core::{DType, Device, Tensor};
use masks::{MASK, Masks};
use neck::Neck;
use rpn::{NONE, Rpn};

use crate::error::{Error, Result};
use crate::model::checkpoint::config::RcnnConfig;
use crate::model::checkpoint::config::rcnn::OBJECTS;
use crate::model::checkpoint::weights::Weights;
use crate::model::conv::weight_of;
use crate::model::extents::extents;
use crate::model::kernels::Weight;
use crate::model::network::{Network, SiteInfo};
use crate::model::ops::{Factors, Linear, Norm};
use crate::model::output::{BOX, Output};
use crate::model::regions::{Pool, Region};
use crate::model::site::Site;
use crate::model::stream::Stream;
use crate::model::swin::backbone::{self, Backbone, Step};
use crate::model::tap::Tap;
use crate::model::tokens::TokenLayout;

/// Epsilon of the norms behind the stages.
const EPS: f64 = 1e-5;
/// Values of an object: class, probability, left, top, right, bottom in pixels, and the index of its region.
const OBJECT: usize = 3 + BOX;

/// The whole network.
#[derive(Debug)]
pub struct Rcnn {
    cfg: RcnnConfig,
    backbone: Backbone,
    steps: Vec<Step>,
    norms: Vec<Norm>, // behind every stage
    neck: Neck,
    rpn: Rpn,
    heads: Vec<Head>,
    masks: Vec<Masks>,
}

impl Rcnn {
    /// Takes the tensors of `cfg` from a checkpoint.
    ///
    /// # Errors
    /// When a tensor is missing, has another shape, or is not finite.
    pub fn new(cfg: RcnnConfig, weights: &Weights) -> Result<Self> {
        let norm = |(stage, dim): (usize, usize)| Norm::new(weights, &format!("norm{stage}"), dim, EPS);
        let stages: Vec<Option<usize>> = if cfg.stages == 1 { vec![None] } else { (0..cfg.stages).map(Some).collect() };
        let masks = if cfg.makes_masks { stages.as_slice() } else { &[] };
        Ok(Self {
            backbone: Backbone::new(&cfg.backbone, weights)?,
            steps: backbone::steps(&cfg.backbone),
            norms: cfg.backbone.stages.iter().map(|stage| stage.dim).enumerate().map(norm).collect::<Result<_>>()?,
            neck: Neck::new(weights, &cfg)?,
            rpn: Rpn::new(weights, &cfg)?,
            heads: stages.iter().map(|stage| Head::new(weights, &cfg, *stage)).collect::<Result<_>>()?,
            masks: masks.iter().map(|stage| Masks::new(weights, &cfg, *stage)).collect::<Result<_>>()?,
            cfg,
        })
    }

    /// The stage of the backbone that ends with a step.
    fn ends(&self, index: usize) -> Option<usize> {
        match (self.steps.get(index)?, self.steps.get(index + 1)) {
            (Step::Mix(stage, _), None | Some(Step::Merge(_))) => Some(*stage),
            _ => None,
        }
    }

    /// The maps of the pyramid inside of regions, `(B, R size size, d)`.
    fn held(&self, maps: &Tensor, regions: &[Vec<Region>], size: usize) -> Result<Tensor> {
        let (stride, mut levels) = (self.cfg.backbone.patch_size.0, self.cfg.levels());
        // The coarsest level only proposes.
        levels.pop();
        Pool { levels, stride, regions: regions.to_vec(), size }.forward(maps)
    }

    fn look(&self, stage: usize, stream: &Stream, tap: &mut dyn Tap) -> Result<Stream> {
        let [maps, extent, chosen, objectness, logits] = taken(stream)?;
        let (regions, extents) = (regions(stream)?, extents_of(extent)?);
        let count = chosen.dim(1)?;
        let held = self.held(maps, &regions, boxes::SIZE)?;
        let said = self.heads[stage].forward(held, count, tap)?;
        let all = (logits + &said.logits)?;
        if stage + 1 < self.heads.len() {
            let next = self.heads[stage].next(&regions, &said, &extents)?;
            let taken = [maps.clone(), extent.clone(), chosen.clone(), objectness.clone(), all];
            return Ok(Stream { x: of_regions(&next)?, taken: taken.into() });
        }
        // The mean over the stages; what is no proposal says nothing.
        let there = chosen.detach().narrow(2, 0, 1)?.ne(f64::from(NONE))?.to_dtype(DType::F32)?;
        let logits = (all / self.heads.len() as f64)?.broadcast_mul(&there)?;
        let found = self.objects(stage, &regions, &logits, &said.changes, chosen, &extents)?;
        let taken = [maps.clone(), extent.clone(), chosen.clone(), objectness.clone(), logits];
        Ok(Stream { x: found, taken: taken.into() })
    }

    /// The objects of every picture, `(B, D, 7)`, as many as the picture with the most has; what is none has probability 0 and no size.
    fn objects(
        &self,
        stage: usize,
        regions: &[Vec<Region>],
        logits: &Tensor,
        changes: &Tensor,
        chosen: &Tensor,
        extents: &[Extent],
    ) -> Result<Tensor> {
        let (logits, changes) = (logits.detach().to_vec3::<f32>()?, changes.detach().to_vec3::<f32>()?);
        let chosen = chosen.to_vec3::<f32>()?;
        let mut of_pictures = Vec::with_capacity(regions.len());
        for (picture, regions) in regions.iter().enumerate() {
            let count = chosen[picture].iter().take_while(|row| row[0] > NONE).count();
            let (logits, changes) = (&logits[picture][..count], &changes[picture][..count]);
            let mut found = self.heads[stage].objects(&regions[..count], logits, changes, extents[picture]);
            if found.is_empty() {
                found.extend(self.heads[stage].stand_in(&regions[..count], logits, changes, extents[picture]));
            }
            of_pictures.push(found);
        }
        let count = of_pictures.iter().map(Vec::len).max().unwrap_or(0).max(1);
        let mut rows = Vec::with_capacity(regions.len() * count * OBJECT);
        for (picture, found) in of_pictures.iter().enumerate() {
            let row = |Found { class, probability, region: [left, top, right, bottom], proposal }: &Found| {
                [*class as f32, *probability, *left, *top, *right, *bottom, *proposal as f32]
            };
            rows.extend(found.iter().flat_map(row));
            rows.resize((picture + 1) * count * OBJECT, 0.0);
        }
        Ok(Tensor::from_vec(rows, (regions.len(), count, OBJECT), &Device::Cpu)?)
    }

    /// The masks of the objects, `(B, D, 28 28)`: the mean of all stages, less a half. None where nobody looks at them.
    fn mask(&self, stream: &Stream, tap: &mut dyn Tap) -> Result<Stream> {
        let [maps, _, chosen, objectness, logits] = taken(stream)?;
        let mut kept = vec![chosen.clone(), objectness.clone(), logits.clone()];
        let found = if self.masks.is_empty() { None } else { tap.objects(stream.x.clone())? };
        if let Some(found) = &found {
            let classes = found.detach().narrow(2, 0, 1)?.to_dtype(DType::U32)?.unsqueeze(3)?;
            let held = self.held(maps, &regions(&found.narrow(2, 2, BOX)?.contiguous()?.into())?, masks::SIZE)?;
            let each = self.masks.iter().map(|masks| masks.forward(held.clone(), &classes, tap)).collect::<Result<Vec<_>>>()?;
            let mean = (Tensor::stack(&each, 0)?.sum(0)? / each.len() as f64)?;
            kept.push((mean - 0.5)?);
        }
        Ok(Stream { x: found.unwrap_or_else(|| stream.x.clone()), taken: kept })
    }

    /// Slots of the prediction: regions of a picture.
    fn count(&self) -> usize {
        self.rpn.count(&self.cfg.levels())
    }
}

fn missing() -> Error {
    Error::content("this network", "a part of the stream is missing", "report this")
}

/// What stands beside the stream behind the first stage: maps, extents, proposals, their logits, and the sum of those of the stages.
fn taken(stream: &Stream) -> Result<[&Tensor; 5]> {
    let mut all = stream.taken.iter();
    let mut next = || all.next().ok_or_else(missing);
    Ok([next()?, next()?, next()?, next()?, next()?])
}

fn corner(row: Vec<f32>) -> Region {
    row.try_into().unwrap_or([0.0; BOX])
}

/// The regions of every picture, of `(B, R, 4)`.
fn regions(stream: &Stream) -> Result<Vec<Vec<Region>>> {
    Ok(stream.detach().to_vec3::<f32>()?.into_iter().map(|rows| rows.into_iter().map(corner).collect()).collect())
}

fn of_regions(regions: &[Vec<Region>]) -> Result<Tensor> {
    let count = regions.first().map_or(0, Vec::len);
    let values: Vec<f32> = regions.iter().flatten().flatten().copied().collect();
    Ok(Tensor::from_vec(values, (regions.len(), count, BOX), &Device::Cpu)?)
}

/// Rows and columns of every picture, of `(B, 1, 2)`.
fn extents_of(extents: &Tensor) -> Result<Vec<Extent>> {
    Ok(extents.detach().flatten_from(1)?.to_vec2::<f32>()?.into_iter().map(|one| [one[0], one[1]]).collect())
}

impl Network for Rcnn {
    fn steps(&self) -> usize {
        self.steps.len() + 3 + self.heads.len()
    }

    fn step(&self, index: usize, stream: &Stream, tap: &mut dyn Tap) -> Result<Stream> {
        let first = self.steps.len();
        if let Some(step) = self.steps.get(index) {
            let mut taken = if index == 0 { vec![extents(stream)?] } else { stream.taken.clone() };
            let x = self.backbone.step(*step, stream, tap)?;
            if let Some(norm) = self.ends(index).and_then(|stage| self.norms.get(stage)) {
                taken.push(norm.forward(&x)?);
            }
            return Ok(Stream { x, taken });
        }
        match index - first {
            0 => {
                let maps = stream.taken.get(1..).unwrap_or_default();
                let x = self.neck.forward(maps, &self.cfg.levels(), tap)?;
                Ok(Stream { x, taken: stream.taken.iter().take(1).cloned().collect() })
            }
            1 => {
                let extent = stream.taken.first().cloned().ok_or_else(missing)?;
                let (chosen, objectness) = self.rpn.forward(stream, &self.cfg.levels(), &extents_of(&extent)?, tap)?;
                let none = Tensor::zeros((chosen.dim(0)?, chosen.dim(1)?, self.cfg.classes + 1), DType::F32, &Device::Cpu)?;
                let x = chosen.narrow(2, 1, BOX)?.contiguous()?;
                Ok(Stream { x, taken: vec![stream.x.clone(), extent, chosen, objectness, none] })
            }
            at if at - 2 < self.heads.len() => self.look(at - 2, stream, tap),
            _ => self.mask(stream, tap),
        }
    }

    fn branch(&self) -> Option<usize> {
        Some(self.steps.len() + 1)
    }

    fn output(&self, last: &Stream) -> Result<Output> {
        let size = self.cfg.backbone.image_size;
        let mask = last.taken.get(3).map(|masks| masks.reshape((masks.dim(0)?, masks.dim(1)?, MASK, MASK))).transpose()?;
        match last.taken.as_slice() {
            [chosen, objectness, logits, ..] => Output::of_regions(logits, (chosen, objectness), &last.x, mask, size),
            _ => Err(missing()),
        }
    }

    fn sites(&self) -> Vec<SiteInfo> {
        let (first, levels, count) = (self.steps.len(), self.cfg.levels(), self.count());
        let mut sites = backbone::sites(&self.cfg.backbone);
        sites.extend(self.neck.sites(first, &levels));
        sites.extend(self.rpn.sites(first + 1, &levels));
        sites.extend(self.heads.iter().enumerate().flat_map(|(stage, head)| head.sites(first + 2 + stage, count)));
        sites.extend(self.masks.iter().flat_map(|masks| masks.sites(self.steps() - 1, OBJECTS)));
        sites
    }

    fn weight(&self, site: Site) -> Option<&Arc<Weight>> {
        weight_of(self.layers(), site)
    }

    fn smooth(&mut self, of: &Factors<'_>) -> Result<usize> {
        self.backbone.smooth(of)
    }

    fn resize(&mut self, size: (usize, usize)) -> Result<bool> {
        if size.0 < 16 || size.1 < 16 {
            return Err(Error::setting("--input-size", format!("{}x{}", size.1, size.0), "at least 16x16"));
        }
        self.cfg.backbone.image_size = size;
        self.backbone.over(&self.cfg.backbone)?;
        Ok(true)
    }

    fn tokens(&self) -> TokenLayout {
        TokenLayout::grid(0, self.cfg.backbone.grid(0))
    }
}

impl Rcnn {
    fn layers(&self) -> impl Iterator<Item = &Linear> {
        let heads = self.heads.iter().flat_map(Head::layers).chain(self.masks.iter().flat_map(Masks::layers));
        self.backbone.layers().chain(self.neck.layers()).chain(self.rpn.layers()).chain(heads)
    }
}
