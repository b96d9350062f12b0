//! DETR, top to bottom: a ResNet, an encoder over its last map, and a decoder whose queries look at one another and at the map. Formulas follow
//! transformers' `modeling_detr.py`; nothing here knows of quantization.
//!
//! `B` pictures, `M` places of the map of width `d`, `Q` queries. The stream between steps is `(B, tokens + 1, C)`: behind the tokens of the map
//! (and in the decoder the queries) stands one that says how many rows and columns of the input are not padding. What is exactly zero at the right
//! and below is padding: no pixel of 8 bits is after normalisation.

mod attention;
mod resnet;

use std::f64::consts::PI;
use std::sync::Arc;

use attention::Attention;
use candle_core::{Device, Tensor};
use resnet::ResNet;

use crate::error::{Error, Result};
use crate::model::checkpoint::config::DetrConfig;
use crate::model::checkpoint::config::detr::QUERIES;
use crate::model::checkpoint::weights::Weights;
use crate::model::conv::{Conv, weight_of};
use crate::model::extents::extents;
use crate::model::kernels::Weight;
use crate::model::layer::{BoxLayers, LayerNamed, site};
use crate::model::network::{Network, SiteInfo};
use crate::model::ops::{Factors, Linear, Norm};
use crate::model::output::Output;
use crate::model::site::{Part, Site, SiteKind};
use crate::model::stream::Stream;
use crate::model::tap::Tap;
use crate::model::tokens::TokenLayout;

/// Base of the wavelengths of positions.
const TEMPERATURE: f64 = 10_000.0;
/// What hides padding from a softmax.
const HIDDEN: f32 = -1e9;
/// Epsilon of every norm.
const EPS: f64 = 1e-5;

/// Two layers with ReLU between, around which the tokens are passed, and a norm behind.
#[derive(Debug)]
struct Mlp {
    fc1: LayerNamed,
    fc2: LayerNamed,
    norm: Norm,
}

impl Mlp {
    fn new(weights: &Weights, name: &str, (part, index): (Part, usize), (d, hidden): (usize, usize)) -> Result<Self> {
        let layer = |end: &str, kind, shape| LayerNamed::new(weights, &format!("{name}.{end}"), site(part, Some(index), kind), shape);
        Ok(Self {
            fc1: layer("fc1", SiteKind::Fc1, (hidden, d))?,
            fc2: layer("fc2", SiteKind::Fc2, (d, hidden))?,
            norm: Norm::new(weights, &format!("{name}.final_layer_norm"), d, EPS)?,
        })
    }

    fn forward(&self, x: &Tensor, tap: &mut dyn Tap) -> Result<Tensor> {
        let hidden = self.fc1.linear.forward(x.clone(), tap)?.relu()?;
        self.norm.forward(&(x + self.fc2.linear.forward(hidden, tap)?)?)
    }

    fn layers(&self) -> [&Linear; 2] {
        [&self.fc1.linear, &self.fc2.linear]
    }
}

/// A layer of the encoder.
#[derive(Debug)]
struct EncoderLayer {
    attention: Attention,
    norm: Norm,
    mlp: Mlp,
}

/// A layer of the decoder.
#[derive(Debug)]
struct DecoderLayer {
    own: Attention,
    own_norm: Norm,
    cross: Attention,
    cross_norm: Norm,
    mlp: Mlp,
}

/// The whole network.
#[derive(Debug)]
pub struct Detr {
    cfg: DetrConfig,
    resnet: ResNet,
    projection: Conv,
    encoder: Vec<EncoderLayer>,
    decoder: Vec<DecoderLayer>,
    queries: Tensor, // (1, Q, d), their positions
    norm: Norm,
    class: LayerNamed,
    boxes: BoxLayers,
}

impl Detr {
    /// Takes the tensors of `cfg` from a checkpoint.
    ///
    /// # Errors
    /// When a tensor is missing, has another shape, or is not finite.
    pub fn new(cfg: DetrConfig, weights: &Weights) -> Result<Self> {
        let d = cfg.dim;
        let last = cfg.stages.last().map_or(0, |stage| stage.2);
        let norm = |name: String| Norm::new(weights, &name, d, EPS);
        let encoder = |index: usize| {
            let (name, at) = (format!("encoder.layers.{index}"), (Part::Encoder, index));
            Ok(EncoderLayer {
                attention: Attention::new(weights, &format!("{name}.self_attn"), at, (d, cfg.encoder.1))?,
                norm: norm(format!("{name}.self_attn_layer_norm"))?,
                mlp: Mlp::new(weights, &name, at, (d, cfg.encoder.2))?,
            })
        };
        let decoder = |index: usize| {
            let (name, at) = (format!("decoder.layers.{index}"), (Part::Decoder, index));
            Ok(DecoderLayer {
                own: Attention::new(weights, &format!("{name}.self_attn"), at, (d, cfg.decoder.1))?,
                own_norm: norm(format!("{name}.self_attn_layer_norm"))?,
                cross: Attention::new(weights, &format!("{name}.encoder_attn"), (Part::Cross, index), (d, cfg.decoder.1))?,
                cross_norm: norm(format!("{name}.encoder_attn_layer_norm"))?,
                mlp: Mlp::new(weights, &name, at, (d, cfg.decoder.2))?,
            })
        };
        Ok(Self {
            resnet: ResNet::new(weights, &cfg)?,
            projection: Conv::new(weights, "input_projection", site(Part::Projector, None, SiteKind::Cv1), (d, last), 1, true)?,
            encoder: (0..cfg.encoder.0).map(encoder).collect::<Result<_>>()?,
            decoder: (0..cfg.decoder.0).map(decoder).collect::<Result<_>>()?,
            queries: weights.get(QUERIES, &[cfg.queries, d])?.unsqueeze(0)?,
            norm: norm("decoder.layernorm".into())?,
            class: LayerNamed::new(weights, "cls", Site::outside(SiteKind::Cls), (cfg.classes + 1, d))?,
            boxes: BoxLayers::new(weights, "box", Part::Backbone, d)?,
            cfg,
        })
    }

    /// Tokens with the extents of the pictures behind them.
    fn join(tokens: &Tensor, extents: &Tensor) -> Result<Tensor> {
        let channels = tokens.dim(2)?;
        Ok(Tensor::cat(&[tokens, &extents.pad_with_zeros(2, 0, channels.saturating_sub(2))?], 1)?)
    }

    /// Tokens and the extents of the pictures.
    fn part(stream: &Tensor) -> Result<(Tensor, Tensor)> {
        let count = stream.dim(1)? - 1;
        Ok((stream.narrow(1, 0, count)?.contiguous()?, stream.narrow(1, count, 1)?.narrow(2, 0, 2)?.contiguous()?))
    }

    /// Rows and columns of the map that are not padding, for each picture.
    fn inside(&self, extents: &Tensor) -> Result<Vec<(usize, usize)>> {
        let ((height, width), (rows, columns)) = (self.cfg.image_size, self.cfg.grid());
        // The nearest pixel of every place, as torch's `interpolate` has it.
        let count = |extent: f32, pixels: usize, places: usize| {
            (0..places).filter(|at| ((*at as f32 * (pixels as f32 / places as f32)) as usize) < extent as usize).count()
        };
        let each = extents.detach().squeeze(1)?.to_vec2::<f32>()?;
        Ok(each.iter().map(|e| (count(e[0], height, rows), count(e[1], width, columns))).collect())
    }

    /// Positions of the map, `(B, M, d)`: sines and cosines down, then across.
    fn positions(&self, inside: &[(usize, usize)]) -> Result<Tensor> {
        let ((rows, columns), half) = (self.cfg.grid(), self.cfg.dim / 2);
        let mut values = Vec::with_capacity(inside.len() * rows * columns * 2 * half);
        let waves: Vec<f32> = (0..half).map(|i| TEMPERATURE.powf(2.0 * (i / 2) as f64 / half as f64) as f32).collect();
        for &(high, wide) in inside {
            for at in 0..rows * columns {
                let (row, column) = (at / columns, at % columns);
                let share = |place: usize, length: usize, within: bool| {
                    let (sum, all) = if within { ((place + 1).min(length), length) } else { (0, 0) };
                    sum as f32 / (all as f32 + 1e-6) * (2.0 * PI) as f32
                };
                for embed in [share(row, high, column < wide), share(column, wide, row < high)] {
                    values.extend(
                        waves.iter().enumerate().map(|(i, wave)| if i % 2 == 0 { (embed / wave).sin() } else { (embed / wave).cos() }),
                    );
                }
            }
        }
        Ok(Tensor::from_vec(values, (inside.len(), rows * columns, 2 * half), &Device::Cpu)?)
    }

    /// What hides the padding of the map from `count` tokens, `(B, H, count, M)`; none where there is none.
    fn bias(&self, inside: &[(usize, usize)], heads: usize, count: usize) -> Result<Option<Tensor>> {
        let (rows, columns) = self.cfg.grid();
        if inside.iter().all(|one| *one == (rows, columns)) {
            return Ok(None);
        }
        let hidden = |(high, wide): &(usize, usize)| {
            let (high, wide) = (*high, *wide);
            (0..rows * columns).map(move |at| if at / columns < high && at % columns < wide { 0.0 } else { HIDDEN })
        };
        let values: Vec<f32> = inside.iter().flat_map(hidden).collect();
        let bias = Tensor::from_vec(values, (inside.len(), 1, 1, rows * columns), &Device::Cpu)?;
        Ok(Some(bias.broadcast_as((inside.len(), heads, count, rows * columns))?.contiguous()?))
    }

    /// Half a layer of the encoder.
    fn encode(&self, at: usize, stream: &Tensor, tap: &mut dyn Tap) -> Result<Tensor> {
        let ((x, extents), layer) = (Self::part(stream)?, &self.encoder[at / 2]);
        let x = if at.is_multiple_of(2) {
            let inside = self.inside(&extents)?;
            let (placed, bias) = ((&x + self.positions(&inside)?)?, self.bias(&inside, self.cfg.encoder.1, x.dim(1)?)?);
            layer.norm.forward(&(&x + layer.attention.forward(&placed, &placed, &x, bias.as_ref(), tap)?)?)?
        } else {
            layer.mlp.forward(&x, tap)?
        };
        Self::join(&x, &extents)
    }

    /// A third of a layer of the decoder.
    fn decode(&self, at: usize, stream: &Tensor, tap: &mut dyn Tap) -> Result<Tensor> {
        let ((all, extents), layer) = (Self::part(stream)?, &self.decoder[at / 3]);
        let (b, places) = (all.dim(0)?, self.cfg.grid().0 * self.cfg.grid().1);
        let memory = all.narrow(1, 0, places)?.contiguous()?;
        // The queries start from nothing but their positions.
        let x = if at == 0 {
            self.queries.broadcast_as((b, self.cfg.queries, self.cfg.dim))?.zeros_like()?
        } else {
            all.narrow(1, places, self.cfg.queries)?.contiguous()?
        };
        let placed = x.broadcast_add(&self.queries)?;
        let x = match at % 3 {
            0 => layer.own_norm.forward(&(&x + layer.own.forward(&placed, &placed, &x, None, tap)?)?)?,
            1 => {
                let inside = self.inside(&extents)?;
                let (keys, bias) = ((&memory + self.positions(&inside)?)?, self.bias(&inside, self.cfg.decoder.1, self.cfg.queries)?);
                layer.cross_norm.forward(&(&x + layer.cross.forward(&placed, &keys, &memory, bias.as_ref(), tap)?)?)?
            }
            _ => layer.mlp.forward(&x, tap)?,
        };
        Self::join(&Tensor::cat(&[memory, x], 1)?, &extents)
    }

    /// What [`Output::of_objects`] reads.
    fn answer(&self, stream: &Tensor, tap: &mut dyn Tap) -> Result<Tensor> {
        let (all, _) = Self::part(stream)?;
        let x = all.narrow(1, all.dim(1)? - self.cfg.queries, self.cfg.queries)?.contiguous()?;
        let x = self.norm.forward(&x)?;
        let logits = self.class.linear.forward(x.clone(), tap)?;
        Ok(Tensor::cat(&[logits, candle_nn::ops::sigmoid(&self.boxes.forward(&x, tap)?)?], 2)?)
    }

    fn layers(&self) -> impl Iterator<Item = &Linear> {
        let encoder = self.encoder.iter().flat_map(|layer| layer.attention.layers().chain(layer.mlp.layers()));
        let decoder = self.decoder.iter().flat_map(|layer| layer.own.layers().chain(layer.cross.layers()).chain(layer.mlp.layers()));
        let heads = std::iter::once(&self.class.linear).chain(self.boxes.layers().map(|layer| &layer.linear));
        self.resnet.layers().chain(std::iter::once(&self.projection.linear)).chain(encoder).chain(decoder).chain(heads)
    }

    /// The step of the input projection.
    const fn first(&self) -> usize {
        1 + self.resnet.blocks()
    }
}

impl Detr {
    /// What a step makes of the stream.
    fn advance(&self, index: usize, x: &Tensor, tap: &mut dyn Tap) -> Result<Tensor> {
        let Some(block) = index.checked_sub(1) else { return Self::join(&self.resnet.embed(x, tap)?, &extents(x)?) };
        let first = self.first();
        if block < self.resnet.blocks() {
            let (x, extents) = Self::part(x)?;
            return Self::join(&self.resnet.block(block, &x, &self.cfg.grids(), tap)?, &extents);
        }
        match index - first {
            0 => {
                let (x, extents) = Self::part(x)?;
                Self::join(&self.projection.forward(x, self.cfg.grid(), tap)?, &extents)
            }
            at if at - 1 < 2 * self.encoder.len() => self.encode(at - 1, x, tap),
            at if at - 1 - 2 * self.encoder.len() < 3 * self.decoder.len() => self.decode(at - 1 - 2 * self.encoder.len(), x, tap),
            _ => self.answer(x, tap),
        }
    }
}

impl Network for Detr {
    fn steps(&self) -> usize {
        self.first() + 1 + 2 * self.encoder.len() + 3 * self.decoder.len() + 1
    }

    fn step(&self, index: usize, stream: &Stream, tap: &mut dyn Tap) -> Result<Stream> {
        Ok(self.advance(index, stream, tap)?.into())
    }

    fn output(&self, last: &Stream) -> Result<Output> {
        Output::of_objects(last)
    }

    fn resize(&mut self, size: (usize, usize)) -> Result<bool> {
        if size.0 < 32 || size.1 < 32 {
            return Err(Error::setting("--input-size", format!("{}x{}", size.1, size.0), "at least 32x32, one place of the last map"));
        }
        self.cfg.image_size = size;
        Ok(true)
    }

    fn sites(&self) -> Vec<SiteInfo> {
        let (cfg, grid, first) = (&self.cfg, self.cfg.grid(), self.first());
        let (of_map, of_queries) = (TokenLayout::grid(0, grid), TokenLayout::of_queries(cfg.queries));
        let mut sites = self.resnet.sites(cfg.image_size, &cfg.grids());
        sites.push(self.projection.site(first, grid));
        for (index, layer) in self.encoder.iter().enumerate() {
            let step = first + 1 + 2 * index;
            sites.extend(layer.attention.sites(step, of_map));
            sites.extend([layer.mlp.fc1.site(step + 1, of_map), layer.mlp.fc2.site(step + 1, of_map)]);
        }
        for (index, layer) in self.decoder.iter().enumerate() {
            let step = first + 1 + 2 * self.encoder.len() + 3 * index;
            sites.extend(layer.own.sites(step, of_queries));
            sites.extend(layer.cross.sites(step + 1, of_queries.looking_at(of_map)));
            sites.extend([layer.mlp.fc1.site(step + 2, of_queries), layer.mlp.fc2.site(step + 2, of_queries)]);
        }
        let last = self.steps() - 1;
        sites.push(self.class.site(last, of_queries));
        sites.extend(self.boxes.layers().map(|layer| layer.site(last, of_queries)));
        sites
    }

    fn weight(&self, site: Site) -> Option<&Arc<Weight>> {
        weight_of(self.layers(), site)
    }

    fn smooth(&mut self, _of: &Factors<'_>) -> Result<usize> {
        Ok(0)
    }

    fn tokens(&self) -> TokenLayout {
        TokenLayout::grid(0, self.cfg.grid())
    }
}
