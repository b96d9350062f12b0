//! The decoder: queries look at one another, and each samples the map at a few points around its reference box.
//!
//! `Q` queries of width `d`, `G` places of the map, `H` heads that sample `P` points each.

use candle_core::{D, DType, Tensor};

use crate::error::Result;
use crate::model::checkpoint::config::RfDetrConfig;
use crate::model::checkpoint::weights::Weights;
use crate::model::layer::{LayerNamed, site};
use crate::model::network::SiteInfo;
use crate::model::ops::{Linear, Norm, softmax};
use crate::model::site::{Part, Site, SiteKind};
use crate::model::tap::Tap;
use crate::model::tokens::TokenLayout;

/// One layer.
#[derive(Debug)]
pub struct Layer {
    qk: LayerNamed, // queries and keys: (2d, d)
    v: LayerNamed,
    proj: LayerNamed,
    norm1: Norm,
    value: LayerNamed,
    sample: LayerNamed, // offsets and weights: (3 H P, d)
    out: LayerNamed,
    norm2: Norm,
    fc1: LayerNamed,
    fc2: LayerNamed,
    norm3: Norm,
    heads: usize,
    sampling: (usize, usize), // H, P
    index: usize,
}

impl Layer {
    /// Takes layer number `index` of a checkpoint.
    ///
    /// # Errors
    /// When a tensor is missing or has another shape.
    pub fn new(weights: &Weights, cfg: &RfDetrConfig, index: usize) -> Result<Self> {
        let (d, name) = (cfg.dim, format!("decoder.layers.{index}"));
        let at = |kind| site(Part::Decoder, Some(index), kind);
        let layer = |part: &str, kind, shape| LayerNamed::new(weights, &format!("{name}.{part}"), at(kind), shape);
        let norm = |part: &str| Norm::new(weights, &format!("{name}.{part}"), d, 1e-5);
        let (all, bias) = (format!("{name}.self_attn.in_proj_weight"), format!("{name}.self_attn.in_proj_bias"));
        let (all, bias) = (weights.get(&all, &[3 * d, d])?, weights.get(&bias, &[3 * d])?);
        let cut = |kind, start, count| -> Result<LayerNamed> {
            let (weight, bias) = (all.narrow(0, start, count)?.contiguous()?, bias.narrow(0, start, count)?.contiguous()?);
            let name = format!("{name}.self_attn.{}", if start == 0 { "qk" } else { "v" });
            Ok(LayerNamed { linear: Linear::of(at(kind), weight, Some(bias))?, name })
        };
        let (heads, points) = (cfg.sampling_heads, cfg.points);
        let sampled = |part: &str, count: usize| -> Result<(Tensor, Tensor)> {
            let name = format!("{name}.cross_attn.{part}");
            Ok((weights.get(&format!("{name}.weight"), &[count, d])?, weights.get(&format!("{name}.bias"), &[count])?))
        };
        let (offsets, shares) = (sampled("sampling_offsets", 2 * heads * points)?, sampled("attention_weights", heads * points)?);
        let sample =
            Linear::of(at(SiteKind::Sample), Tensor::cat(&[offsets.0, shares.0], 0)?, Some(Tensor::cat(&[offsets.1, shares.1], 0)?))?;
        Ok(Self {
            qk: cut(SiteKind::Qk, 0, 2 * d)?,
            v: cut(SiteKind::VIn, 2 * d, d)?,
            proj: layer("self_attn.out_proj", SiteKind::Proj, (d, d))?,
            norm1: norm("norm1")?,
            value: layer("cross_attn.value_proj", SiteKind::Value, (d, d))?,
            sample: LayerNamed { linear: sample, name: format!("{name}.cross_attn.sample") },
            out: layer("cross_attn.output_proj", SiteKind::Out, (d, d))?,
            norm2: norm("norm2")?,
            fc1: layer("linear1", SiteKind::Fc1, (cfg.mlp_dim, d))?,
            fc2: layer("linear2", SiteKind::Fc2, (d, cfg.mlp_dim))?,
            norm3: norm("norm3")?,
            heads: cfg.heads,
            sampling: (heads, points),
            index,
        })
    }

    fn at(&self, kind: SiteKind) -> Site {
        site(Part::Decoder, Some(self.index), kind)
    }

    /// Queries look at one another: `x` and their positions `(B, Q, d)` to `(B, Q, d)`.
    ///
    /// # Errors
    /// When the tap refuses.
    pub fn attend(&self, x: &Tensor, positions: &Tensor, tap: &mut dyn Tap) -> Result<Tensor> {
        let (b, n, d) = x.dims3()?;
        let head_dim = d / self.heads;
        let qk = self.qk.linear.forward((x + positions)?, tap)?;
        let v = self.v.linear.forward(x.clone(), tap)?;
        let mut operand = |part: Tensor, kind: SiteKind| -> Result<Tensor> {
            let part = tap.activation(self.at(kind), part.contiguous()?)?;
            Ok(part.reshape((b, n, self.heads, head_dim))?.transpose(1, 2)?) // (B, H, Q, d/H)
        };
        let q = operand(qk.narrow(2, 0, d)?, SiteKind::Q)?;
        let k = operand(qk.narrow(2, d, d)?, SiteKind::K)?;
        let v = operand(v, SiteKind::V)?;
        let scores = tap.product((self.at(SiteKind::Q), self.at(SiteKind::K)), &q, &k.transpose(2, 3)?)?;
        let attn = tap.activation(self.at(SiteKind::Attn), softmax(scores, 1.0 / f64::sqrt(head_dim as f64), None)?)?;
        let mixed = tap.product((self.at(SiteKind::Attn), self.at(SiteKind::V)), &attn, &v)?.transpose(1, 2)?.reshape((b, n, d))?;
        self.norm1.forward(&(x + self.proj.linear.forward(mixed, tap)?)?)
    }

    /// Every query samples the map `(B, G, d)` around its box `(B, Q, 4)`.
    ///
    /// # Errors
    /// When the tap refuses.
    pub fn sample(
        &self,
        x: &Tensor,
        positions: &Tensor,
        boxes: &Tensor,
        map: (&Tensor, (usize, usize)),
        tap: &mut dyn Tap,
    ) -> Result<Tensor> {
        let ((b, n, d), (heads, points)) = (x.dims3()?, self.sampling);
        let (memory, grid) = map;
        let both = self.sample.linear.forward((x + positions)?, tap)?;
        let value = self.value.linear.forward(memory.clone(), tap)?;
        let offsets = both.narrow(2, 0, 2 * heads * points)?.reshape((b, n, heads * points, 2))?;
        let shares = both.narrow(2, 2 * heads * points, heads * points)?.reshape((b, n, heads, points))?;
        // Two points a head as a rule: this softmax is no operand of a matrix product and stays in float.
        let shares = candle_nn::ops::softmax(&shares.contiguous()?, D::Minus1)?;
        let (centres, sides) = (boxes.narrow(2, 0, 2)?.unsqueeze(2)?, boxes.narrow(2, 2, 2)?.unsqueeze(2)?); // (B, Q, 1, 2)
        let places = (offsets / points as f64)?.broadcast_mul(&sides)?.affine(0.5, 0.0)?.broadcast_add(&centres)?; // (B, Q, H P, 2)
        let places = places.reshape((b, n, heads, points, 2))?;
        let sampled = bilinear(&value, grid, &places)?; // (B, Q, H, P, d/H)
        let mixed = sampled.broadcast_mul(&shares.unsqueeze(4)?)?.sum(3)?.reshape((b, n, d))?;
        self.norm2.forward(&(x + self.out.linear.forward(mixed, tap)?)?)
    }

    /// The MLP.
    ///
    /// # Errors
    /// When the tap refuses.
    pub fn mix(&self, x: &Tensor, tap: &mut dyn Tap) -> Result<Tensor> {
        let hidden = self.fc1.linear.forward(x.clone(), tap)?.relu()?;
        self.norm3.forward(&(x + self.fc2.linear.forward(hidden, tap)?)?)
    }

    /// Its layers.
    pub fn layers(&self) -> impl Iterator<Item = &Linear> {
        [&self.qk, &self.v, &self.proj, &self.value, &self.sample, &self.out, &self.fc1, &self.fc2].into_iter().map(|layer| &layer.linear)
    }

    /// Its sites; the first step is `step`.
    #[must_use]
    pub fn sites(&self, step: usize, queries: usize, grid: (usize, usize)) -> Vec<SiteInfo> {
        let (of_queries, of_map) = (TokenLayout::of_queries(queries), TokenLayout::grid(0, grid));
        let dim = self.v.linear.size().0;
        let mut sites = vec![self.qk.site(step, of_queries), self.v.site(step, of_queries)];
        sites.extend(SiteInfo::of_attention(|kind| self.at(kind), step, of_queries, dim, self.heads));
        sites.push(self.proj.site(step, of_queries));
        sites.extend([self.sample.site(step + 1, of_queries), self.value.site(step + 1, of_map), self.out.site(step + 1, of_queries)]);
        sites.extend([self.fc1.site(step + 2, of_queries), self.fc2.site(step + 2, of_queries)]);
        sites
    }
}

/// The map `(B, rows columns, d)` of `H` heads at places `(B, Q, H, P, 2)` across and down as shares of it, between the middles of its cells,
/// zero outside: `(B, Q, H, P, d/H)`. `grid_sample` of torch with `align_corners=False` and zeros.
fn bilinear(map: &Tensor, (rows, columns): (usize, usize), places: &Tensor) -> Result<Tensor> {
    let ((b, cells, d), (_, n, heads, points, _)) = (map.dims3()?, places.dims5()?);
    let width = d / heads;
    // One row of places for each picture and head.
    let map = map.reshape((b, cells, heads, width))?.transpose(1, 2)?.reshape((b * heads, cells, width))?;
    let axis = |axis: usize, length: usize| -> Result<Tensor> {
        let at = places.narrow(4, axis, 1)?.reshape((b, n, heads, points))?;
        Ok(at.affine(length as f64, -0.5)?.transpose(1, 2)?.reshape((b * heads, n * points))?)
    };
    let (x, y) = (axis(0, columns)?, axis(1, rows)?);
    let (left, top) = (x.detach().floor()?, y.detach().floor()?);
    let mut sum: Option<Tensor> = None;
    for (right, below) in [(0.0, 0.0), (1.0, 0.0), (0.0, 1.0), (1.0, 1.0)] {
        let (column, row) = (left.affine(1.0, right)?, top.affine(1.0, below)?);
        let inside = |at: &Tensor, length: usize| -> Result<Tensor> {
            Ok((at.ge(0.0)?.to_dtype(DType::F32)? * at.le(length as f64 - 1.0)?.to_dtype(DType::F32)?)?)
        };
        let share = |at: &Tensor, cell: &Tensor| -> Result<Tensor> { Ok((at - cell)?.abs()?.affine(-1.0, 1.0)?) };
        let within = (inside(&column, columns)? * inside(&row, rows)?)?;
        let weight = ((share(&x, &column)? * share(&y, &row)?)? * within)?;
        let (column, row) = (column.clamp(0.0, columns as f64 - 1.0)?, row.clamp(0.0, rows as f64 - 1.0)?);
        let index = row.affine(columns as f64, 0.0)?.add(&column)?.to_dtype(DType::U32)?;
        let index = index.unsqueeze(2)?.expand((b * heads, n * points, width))?.contiguous()?;
        let part = map.contiguous()?.gather(&index, 1)?.broadcast_mul(&weight.unsqueeze(2)?)?;
        sum = Some(match sum {
            Some(sum) => (sum + part)?,
            None => part,
        });
    }
    let sum = sum.map_or_else(|| map.zeros_like(), Ok)?;
    Ok(sum.reshape((b, heads, n, points, width))?.transpose(1, 2)?.contiguous()?)
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Var};

    use super::*;

    /// torch's `grid_sample(mode="bilinear", padding_mode="zeros", align_corners=False)`: inside, at the borders, outside.
    #[test]
    fn places_between_cells_are_sampled_as_torch_does_it() {
        let map: [f32; 24] = [
            -1.1, -0.3, 0.2, 2.0, -1.2, -2.1, 0.9, 0.1, -0.3, 0.5, -0.1, 0.6, -0.4, -0.2, -0.1, -0.4, 0.8, 1.4, 0.9, -0.8, 0.7, 0.3, 1.3,
            -2.3,
        ];
        let map = Tensor::from_slice(&map, (1, 6, 4), &Device::Cpu).unwrap();
        let places: [f32; 14] = [0.5, 0.5, 0.0, 0.0, 1.0, 1.0, -0.3, 0.4, 0.26, 0.9, 1.9, -2.0, 0.75, 1.0 / 6.0];
        // The same places for both heads.
        let places = Tensor::from_slice(&places, (1, 7, 1, 1, 2), &Device::Cpu).unwrap().expand((1, 7, 2, 1, 2)).unwrap();
        let expected: [f32; 28] = [
            -0.35, 0.15, -0.1, 0.1, -0.275, -0.075, 0.05, 0.5, 0.175, 0.075, 0.325, -0.575, 0.0, 0.0, 0.0, 0.0, 0.6384, 1.1024, 0.7264,
            -0.664, 0.0, 0.0, 0.0, 0.0, -1.2, -2.1, 0.9, 0.1,
        ];
        let places = Var::from_tensor(&places.contiguous().unwrap()).unwrap();
        let sampled = bilinear(&map, (3, 2), places.as_tensor()).unwrap();
        let found = sampled.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        assert!(found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-5), "{found:?}");
        // Gradients reach the places: half a cell to the right of the middle the left cell counts less.
        let gradients = sampled.sum_all().unwrap().backward().unwrap();
        assert!(gradients.get(places.as_tensor()).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap().iter().any(|g| *g != 0.0));
    }
}
