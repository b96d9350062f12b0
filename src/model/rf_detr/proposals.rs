//! The first stage: every place of the map proposes a box, and the likeliest ones become the references of the queries.

use candle_core::{D, DType, Device, Tensor};

use crate::error::Result;
use crate::model::checkpoint::config::RfDetrConfig;
use crate::model::checkpoint::weights::Weights;
use crate::model::layer::{BoxLayers, LayerNamed, refine, site};
use crate::model::network::SiteInfo;
use crate::model::ops::{Linear, Norm};
use crate::model::output::BOX;
use crate::model::site::{Part, SiteKind};
use crate::model::tap::Tap;
use crate::model::tokens::TokenLayout;

/// The side of every proposed box before it is refined, as a share of the input.
const SIDE: f32 = 0.05;
/// Proposals must lie within these shares of the input.
const WITHIN: (f32, f32) = (0.01, 0.99);
/// The logit of a place that may not propose.
const NEVER: f64 = -1e4;

/// The first stage.
#[derive(Debug)]
pub struct Proposals {
    out: LayerNamed,
    norm: Norm,
    class: LayerNamed,
    boxes: BoxLayers,
    queries: usize,
}

impl Proposals {
    /// Takes the first stage of a checkpoint.
    ///
    /// # Errors
    /// When a tensor is missing or has another shape.
    pub fn new(weights: &Weights, cfg: &RfDetrConfig) -> Result<Self> {
        let at = |kind| site(Part::Proposals, None, kind);
        Ok(Self {
            out: LayerNamed::new(weights, "proposals.out", at(SiteKind::Out), (cfg.dim, cfg.dim))?,
            norm: Norm::new(weights, "proposals.norm", cfg.dim, 1e-5)?,
            class: LayerNamed::new(weights, "proposals.cls", at(SiteKind::Cls), (cfg.classes, cfg.dim))?,
            boxes: BoxLayers::new(weights, "proposals.box", Part::Proposals, cfg.dim)?,
            queries: cfg.queries,
        })
    }

    /// What the map `(B, G, d)` proposes: for each of `Q` queries `(B, Q, 6)` the index of its place, its box, and the largest logit of a
    /// class there. A tap may pin the places and boxes; the logits are those of the places.
    ///
    /// # Errors
    /// When the tap refuses.
    pub fn forward(&self, memory: &Tensor, (rows, columns): (usize, usize), tap: &mut dyn Tap) -> Result<Tensor> {
        let (b, places, _) = memory.dims3()?;
        let mut priors = Vec::with_capacity(places * BOX);
        let mut valid = Vec::with_capacity(places);
        for place in 0..places {
            let (x, y) = (((place % columns) as f32 + 0.5) / columns as f32, ((place / columns) as f32 + 0.5) / rows as f32);
            let within = [x, y].iter().all(|at| *at > WITHIN.0 && *at < WITHIN.1);
            priors.extend(if within { [x, y, SIDE, SIDE] } else { [0.0; BOX] });
            valid.push(f32::from(u8::from(within)));
        }
        let priors = Tensor::from_vec(priors, (1, places, BOX), &Device::Cpu)?;
        let mask = Tensor::from_slice(&valid, (1, places, 1), &Device::Cpu)?;
        let memory = memory.broadcast_mul(&mask)?;
        let x = self.norm.forward(&self.out.linear.forward(memory, tap)?)?;
        let largest = self.class.linear.forward(x.clone(), tap)?.max(D::Minus1)?; // (B, G)
        let boxes = refine(&priors.broadcast_as((b, places, BOX))?, &self.boxes.forward(&x, tap)?)?;

        let mut indices = Vec::with_capacity(b * self.queries);
        for scores in largest.to_vec2::<f32>()? {
            let score = |place: &usize| if valid[*place] > 0.0 { scores[*place] } else { f32::NEG_INFINITY };
            let mut order: Vec<usize> = (0..places).collect();
            order.sort_by(|a, b| score(b).total_cmp(&score(a)).then(a.cmp(b)));
            indices.extend((0..self.queries).map(|query| order[query.min(places - 1)] as u32));
        }
        let indices = Tensor::from_vec(indices, (b, self.queries), &Device::Cpu)?;
        let of_box = indices.unsqueeze(2)?.expand((b, self.queries, BOX))?.contiguous()?;
        let chosen = boxes.gather(&of_box, 1)?;
        let chosen = tap.proposals(Tensor::cat(&[&indices.to_dtype(DType::F32)?.unsqueeze(2)?, &chosen], 2)?)?;
        let places = chosen.narrow(2, 0, 1)?.squeeze(2)?.detach().to_dtype(DType::U32)?.contiguous()?;
        // A place that may not propose says nothing.
        let never = mask.squeeze(2)?.affine(-NEVER, NEVER)?;
        let largest = (largest.broadcast_mul(&mask.squeeze(2)?)?.broadcast_add(&never)?).gather(&places, 1)?;
        Ok(Tensor::cat(&[&chosen, &largest.unsqueeze(2)?], 2)?)
    }

    fn named(&self) -> impl Iterator<Item = &LayerNamed> {
        [&self.out, &self.class].into_iter().chain(self.boxes.layers())
    }

    /// Its layers.
    pub fn layers(&self) -> impl Iterator<Item = &Linear> {
        self.named().map(|layer| &layer.linear)
    }

    /// Its sites, in step `step`.
    pub fn sites(&self, step: usize, grid: (usize, usize)) -> impl Iterator<Item = SiteInfo> {
        self.named().map(move |layer| layer.site(step, TokenLayout::grid(0, grid)))
    }
}
