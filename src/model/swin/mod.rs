//! A Swin Transformer, top to bottom, with a tap at every operand. Names follow timm's checkpoints; nothing here knows of quantization.
//!
//! `B` pictures, `N` tokens of a stage, `D` its width, `H` its heads, `d = D/H` channels a head, `W` windows of `n` tokens each
//! (`W n = N`, with those that fill the last windows up), `P` pixels of a patch in all colours, `K` classes. The residual stream keeps its
//! tokens row by row; what belongs to attention (`qkv`, `q`, `k`, `v`, `attn`, `proj`) has them window by window, as [`TokenLayout`] says.

mod attention;
pub mod backbone;

use std::sync::Arc;

use candle_core::Tensor;

use crate::error::Result;
use crate::model::checkpoint::config::SwinConfig;
use crate::model::checkpoint::weights::Weights;
use crate::model::conv::weight_of;
use crate::model::kernels::Weight;
use crate::model::network::{LayerShape, Network, SiteInfo};
use crate::model::ops::{Factors, Linear, Norm};
use crate::model::site::{Site, SiteKind};
use crate::model::stream::Stream;
use crate::model::tap::Tap;
use crate::model::tokens::TokenLayout;

use backbone::{Backbone, Step};

/// The whole network.
#[derive(Debug)]
pub struct Swin {
    cfg: SwinConfig,
    steps: Vec<Step>,
    backbone: Backbone,
    norm: Norm,
    head: Linear,
}

impl Swin {
    /// Takes the tensors of `cfg` from a checkpoint with timm's names.
    ///
    /// # Errors
    /// When a tensor is missing, has another shape, or is not finite.
    pub fn new(cfg: SwinConfig, weights: &Weights) -> Result<Self> {
        let last = cfg.stages.last().map_or(0, |stage| stage.dim);
        Ok(Self {
            backbone: Backbone::new(&cfg, weights)?,
            norm: Norm::new(weights, "norm", last, cfg.norm_eps)?,
            head: Linear::new(weights, "head.fc", Site::outside(SiteKind::Head), (cfg.classes, last), true)?,
            steps: backbone::steps(&cfg),
            cfg,
        })
    }

    /// `(B, N, D)` to `(B, K)`.
    fn classify(&self, x: &Tensor, tap: &mut dyn Tap) -> Result<Tensor> {
        let pooled = self.norm.forward(x)?.mean_keepdim(1)?; // (B, 1, D)
        Ok(self.head.forward(pooled, tap)?.squeeze(1)?)
    }
}

/// The sites of a Swin Transformer, from its configuration alone.
#[must_use]
pub fn sites(cfg: &SwinConfig) -> Vec<SiteInfo> {
    let mut sites = backbone::sites(cfg);
    let (width, layer) = (cfg.stages.last().map_or(0, |s| s.dim), LayerShape { name: "head.fc".into(), outputs: cfg.classes });
    let head = SiteInfo::of_layer(Site::outside(SiteKind::Head), backbone::steps(cfg).len(), 1, width, layer);
    sites.push(head.over(TokenLayout::grid(1, (0, 0))));
    sites
}

impl Network for Swin {
    fn steps(&self) -> usize {
        self.steps.len() + 1
    }

    fn step(&self, index: usize, stream: &Stream, tap: &mut dyn Tap) -> Result<Stream> {
        Ok(match self.steps.get(index) {
            Some(step) => self.backbone.step(*step, stream, tap)?,
            None => self.classify(stream, tap)?,
        }
        .into())
    }

    fn sites(&self) -> Vec<SiteInfo> {
        sites(&self.cfg)
    }

    fn weight(&self, site: Site) -> Option<&Arc<Weight>> {
        weight_of(self.backbone.layers().chain([&self.head]), site)
    }

    fn smooth(&mut self, of: &Factors<'_>) -> Result<usize> {
        self.backbone.smooth(of)
    }

    fn tokens(&self) -> TokenLayout {
        TokenLayout::grid(0, self.cfg.grid(0))
    }
}
