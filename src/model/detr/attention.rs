//! Attention of a DETR: tokens look at one another or at others, with positions added to what makes queries and keys and not to values.

use candle_core::Tensor;

use crate::error::Result;
use crate::model::checkpoint::weights::Weights;
use crate::model::layer::{LayerNamed, site};
use crate::model::network::SiteInfo;
use crate::model::ops::{Linear, softmax};
use crate::model::site::{Part, Site, SiteKind};
use crate::model::tap::Tap;
use crate::model::tokens::TokenLayout;

/// What makes queries and keys.
#[derive(Debug)]
enum Projections {
    /// One input, one layer `(2d, d)`.
    Stacked(LayerNamed),
    /// One each.
    Apart([LayerNamed; 2]),
}

/// One attention.
#[derive(Debug)]
pub struct Attention {
    projections: Projections,
    value: LayerNamed,
    proj: LayerNamed,
    heads: usize,
    part: Part,
    index: usize,
}

impl Attention {
    /// Takes `{name}` of width `d` from a checkpoint; to others where `part` is [`Part::Cross`].
    ///
    /// # Errors
    /// When a tensor is missing or has another shape.
    pub fn new(weights: &Weights, name: &str, (part, index): (Part, usize), (d, heads): (usize, usize)) -> Result<Self> {
        let layer = |end: &str, kind, shape| LayerNamed::new(weights, &format!("{name}.{end}"), site(part, Some(index), kind), shape);
        let projections = if part == Part::Cross {
            Projections::Apart([layer("q_proj", SiteKind::QIn, (d, d))?, layer("k_proj", SiteKind::KIn, (d, d))?])
        } else {
            Projections::Stacked(layer("qk", SiteKind::Qk, (2 * d, d))?)
        };
        let (value, proj) = (layer("v_proj", SiteKind::VIn, (d, d))?, layer("out_proj", SiteKind::Proj, (d, d))?);
        Ok(Self { projections, value, proj, heads, part, index })
    }

    fn at(&self, kind: SiteKind) -> Site {
        site(self.part, Some(self.index), kind)
    }

    /// `x` `(B, N, d)`, what is made queries of, and keys and values `(B, M, d)`; `bias` `(B, H, N, M)` hides keys. Gives `(B, N, d)`.
    ///
    /// # Errors
    /// When the tap refuses.
    pub fn forward(&self, x: &Tensor, keys: &Tensor, values: &Tensor, bias: Option<&Tensor>, tap: &mut dyn Tap) -> Result<Tensor> {
        let ((b, n, d), m) = (x.dims3()?, values.dim(1)?);
        let head_dim = d / self.heads;
        let (q, k) = match &self.projections {
            Projections::Stacked(both) => {
                let both = both.linear.forward(x.clone(), tap)?;
                (both.narrow(2, 0, d)?, both.narrow(2, d, d)?)
            }
            Projections::Apart([query, key]) => (query.linear.forward(x.clone(), tap)?, key.linear.forward(keys.clone(), tap)?),
        };
        let v = self.value.linear.forward(values.clone(), tap)?;
        let mut operand = |part: Tensor, kind: SiteKind, tokens: usize| -> Result<Tensor> {
            let part = tap.activation(self.at(kind), part.contiguous()?)?;
            Ok(part.reshape((b, tokens, self.heads, head_dim))?.transpose(1, 2)?)
        };
        let (q, k, v) = (operand(q, SiteKind::Q, n)?, operand(k, SiteKind::K, m)?, operand(v, SiteKind::V, m)?);
        let scores = tap.product((self.at(SiteKind::Q), self.at(SiteKind::K)), &q, &k.transpose(2, 3)?)?; // (B, H, N, M)
        let attn = tap.activation(self.at(SiteKind::Attn), softmax(scores, 1.0 / f64::sqrt(head_dim as f64), bias)?)?;
        let mixed = tap.product((self.at(SiteKind::Attn), self.at(SiteKind::V)), &attn, &v)?.transpose(1, 2)?.reshape((b, n, d))?;
        self.proj.linear.forward(mixed, tap)
    }

    /// Its layers.
    pub fn layers(&self) -> impl Iterator<Item = &Linear> {
        let first: Vec<&LayerNamed> = match &self.projections {
            Projections::Stacked(both) => vec![both],
            Projections::Apart(apart) => apart.iter().collect(),
        };
        first.into_iter().chain([&self.value, &self.proj]).map(|layer| &layer.linear)
    }

    /// Its sites, in step `step`; `layout` says how its tokens lie and what they look at.
    #[must_use]
    pub fn sites(&self, step: usize, layout: TokenLayout) -> Vec<SiteInfo> {
        let (own, keys) = (TokenLayout { looks_at: None, ..layout }, layout.keys());
        let mut sites = match &self.projections {
            Projections::Stacked(both) => vec![both.site(step, own)],
            Projections::Apart([query, key]) => vec![query.site(step, own), key.site(step, keys)],
        };
        sites.push(self.value.site(step, keys));
        sites.extend(SiteInfo::of_attention(|kind| self.at(kind), step, layout, self.proj.linear.size().0, self.heads));
        sites.push(self.proj.site(step, own));
        sites
    }
}
