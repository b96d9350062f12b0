//! The projector: the maps of several blocks become one, by convolutions that each stand before a norm over channels and SiLU.

use candle_core::Tensor;

use crate::error::Result;
use crate::model::checkpoint::config::RfDetrConfig;
use crate::model::checkpoint::weights::Weights;
use crate::model::conv::Conv;
use crate::model::layer::site;
use crate::model::network::SiteInfo;
use crate::model::ops::{Linear, Norm};
use crate::model::site::{Part, SiteKind};
use crate::model::tap::Tap;

/// A convolution, its norm, and SiLU.
#[derive(Debug)]
struct ConvNorm {
    conv: Conv,
    norm: Norm,
}

impl ConvNorm {
    fn new(weights: &Weights, name: &str, at: (Option<usize>, SiteKind), shape: (usize, usize), size: usize) -> Result<Self> {
        Ok(Self {
            conv: Conv::new(weights, &format!("{name}.conv"), site(Part::Projector, at.0, at.1), shape, size, false)?,
            norm: Norm::new(weights, &format!("{name}.bn"), shape.0, 1e-5)?,
        })
    }

    fn forward(&self, x: Tensor, grid: (usize, usize), tap: &mut dyn Tap) -> Result<Tensor> {
        Ok(self.norm.forward(&self.conv.forward(x, grid, tap)?)?.silu()?)
    }
}

/// The whole projector.
#[derive(Debug)]
pub struct Projector {
    first: ConvNorm,
    pairs: Vec<[ConvNorm; 2]>,
    last: ConvNorm,
    norm: Norm,
    hidden: usize,
}

impl Projector {
    /// Takes the projector of a checkpoint.
    ///
    /// # Errors
    /// When a tensor is missing or has another shape.
    pub fn new(weights: &Weights, cfg: &RfDetrConfig) -> Result<Self> {
        let (h, maps) = (cfg.hidden, cfg.taken.len() * cfg.backbone.embed_dim);
        let pair = |index: usize| {
            let conv = |part: &str, kind| ConvNorm::new(weights, &format!("projector.m.{index}.{part}"), (Some(index), kind), (h, h), 3);
            Ok([conv("cv1", SiteKind::Cv1)?, conv("cv2", SiteKind::Cv2)?])
        };
        Ok(Self {
            first: ConvNorm::new(weights, "projector.cv1", (None, SiteKind::Cv1), (2 * h, maps), 1)?,
            pairs: (0..cfg.pairs).map(pair).collect::<Result<_>>()?,
            last: ConvNorm::new(weights, "projector.cv2", (None, SiteKind::Cv2), (cfg.dim, (2 + cfg.pairs) * h), 1)?,
            norm: Norm::new(weights, "projector.norm", cfg.dim, 1e-6)?,
            hidden: h,
        })
    }

    /// `(B, G, maps D)` to `(B, G, d)`.
    ///
    /// # Errors
    /// When the tap refuses.
    pub fn forward(&self, maps: Tensor, grid: (usize, usize), tap: &mut dyn Tap) -> Result<Tensor> {
        let first = self.first.forward(maps, grid, tap)?;
        let mut parts = vec![first.narrow(2, 0, self.hidden)?.contiguous()?, first.narrow(2, self.hidden, self.hidden)?.contiguous()?];
        for [one, two] in &self.pairs {
            let x = parts[parts.len() - 1].clone();
            parts.push(two.forward(one.forward(x, grid, tap)?, grid, tap)?);
        }
        self.norm.forward(&self.last.forward(Tensor::cat(&parts, 2)?, grid, tap)?)
    }

    fn convs(&self) -> impl Iterator<Item = &Conv> {
        let pairs = self.pairs.iter().flatten();
        std::iter::once(&self.first).chain(pairs).chain(std::iter::once(&self.last)).map(|part| &part.conv)
    }

    /// Its layers.
    pub fn layers(&self) -> impl Iterator<Item = &Linear> {
        self.convs().map(|conv| &conv.linear)
    }

    /// Its sites, in step `step`.
    pub fn sites(&self, step: usize, grid: (usize, usize)) -> impl Iterator<Item = SiteInfo> {
        self.convs().map(move |conv| conv.site(step, grid))
    }
}
