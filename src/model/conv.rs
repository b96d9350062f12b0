//! Convolutions over a grid of tokens `(B, rows columns, C)`, with a tap at their input: a layer over the neighbourhood of every token. The
//! input is grouped by its channels, as that of any layer; the neighbourhoods are made behind the tap.

use std::ops::Range;

use candle_core::{CpuStorage, CustomOp1, Device, Layout, Shape, Tensor, bail};
use rayon::prelude::*;

use crate::error::Result;
use crate::model::checkpoint::weights::Weights;
use crate::model::kernels::{self, Weight};
use crate::model::neighbourhood::{Grids, Kernel, Neighbourhoods};
use crate::model::network::{LayerShape, Product, RightOperand, SiteInfo};
use crate::model::ops::Linear;
use crate::model::site::Site;
use crate::model::tap::Tap;
use crate::model::tokens::TokenLayout;

/// A depthwise convolution with a backward pass: that of a convolution with stride 1 is the one with its weights turned around.
#[derive(Debug, Clone)]
struct Depthwise {
    kernel: Kernel,
    weights: Vec<f32>, // (k k, C)
    grid: (usize, usize),
}

impl CustomOp1 for Depthwise {
    fn name(&self) -> &'static str {
        "depthwise convolution"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        let (CpuStorage::F32(values), Some((start, end))) = (storage, layout.contiguous_offsets()) else {
            bail!("{} takes contiguous float32 values", self.name());
        };
        let (_, tokens, channels) = layout.shape().dims3()?;
        let each = |picture: &[f32]| self.kernel.depthwise(picture, &self.weights, self.grid);
        let out = values[start..end].chunks_exact((tokens * channels).max(1)).flat_map(each).collect();
        Ok((CpuStorage::F32(out), layout.shape().clone()))
    }

    fn bwd(&self, _x: &Tensor, _y: &Tensor, gradient: &Tensor) -> candle_core::Result<Option<Tensor>> {
        let channels = self.weights.len() / (self.kernel.size * self.kernel.size);
        let weights = self.weights.chunks_exact(channels.max(1)).rev().flatten().copied().collect();
        Ok(Some(gradient.contiguous()?.apply_op1_no_bwd(&Self { weights, ..self.clone() })?))
    }
}

/// Neighbourhoods that are there at once: those of a large map take nine times its memory.
const AT_ONCE: usize = 4096;

/// Pictures, and places of each, whose neighbourhoods are there at once, in order: all places of several pictures, or some of one.
fn pieces(pictures: usize, outputs: usize) -> impl Iterator<Item = (Range<usize>, Vec<usize>)> {
    let together = (AT_ONCE / outputs.max(1)).max(1);
    (0..pictures).step_by(together).flat_map(move |first| {
        let some = first..pictures.min(first + together);
        (0..outputs).step_by(AT_ONCE).map(move |start| (some.clone(), (start..outputs.min(start + AT_ONCE)).collect()))
    })
}

/// Makes the neighbourhoods of pictures of `n` tokens piece by piece.
fn in_pieces(
    kernel: Kernel,
    grid: (usize, usize),
    (values, n, channels): (&[f32], usize, usize),
    mut see: impl FnMut(Tensor) -> candle_core::Result<()>,
) -> candle_core::Result<()> {
    let ((high, wide), inner, size) = (kernel.over(grid), channels * kernel.size * kernel.size, n * channels);
    for (pictures, places) in pieces(values.len() / size.max(1), high * wide) {
        let count = places.len() * pictures.len();
        let some = &values[pictures.start * size..pictures.end * size];
        let near: Vec<Vec<f32>> = some.par_chunks(size.max(1)).map(|picture| kernel.unfold_at(picture, grid, &places)).collect();
        see(Tensor::from_vec(near.concat(), (count, inner), &Device::Cpu)?)?;
    }
    Ok(())
}

/// A convolution with a backward pass, both some neighbourhoods at a time.
#[derive(Debug, Clone)]
struct Convolution {
    kernel: Kernel,
    grid: (usize, usize),
    weight: Tensor, // (C_out, C k k)
}

impl CustomOp1 for Convolution {
    fn name(&self) -> &'static str {
        "convolution"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        let (CpuStorage::F32(values), Some((start, end))) = (storage, layout.contiguous_offsets()) else {
            bail!("{} takes contiguous float32 values", self.name());
        };
        let ((b, n, channels), (high, wide)) = (layout.shape().dims3()?, self.kernel.over(self.grid));
        let (mut out, weight) = (Vec::with_capacity(b * high * wide * self.weight.dim(0)?), self.weight.t()?);
        in_pieces(self.kernel, self.grid, (&values[start..end], n, channels), |near| {
            out.extend(near.matmul(&weight)?.flatten_all()?.to_vec1::<f32>()?);
            Ok(())
        })?;
        Ok((CpuStorage::F32(out), Shape::from((b, high * wide, self.weight.dim(0)?))))
    }

    fn bwd(&self, x: &Tensor, _y: &Tensor, gradient: &Tensor) -> candle_core::Result<Option<Tensor>> {
        let ((pictures, n, channels), outputs, gradient) = (x.dims3()?, gradient.dim(1)?, gradient.contiguous()?.flatten(0, 1)?);
        let (mut back, size, mut start) = (vec![0.0_f32; x.elem_count()], n * channels, 0);
        for (pictures, places) in pieces(pictures, outputs) {
            let count = pictures.len() * places.len();
            let near = gradient.narrow(0, start, count)?.matmul(&self.weight)?.flatten_all()?.to_vec1::<f32>()?;
            let some = back[pictures.start * size..pictures.end * size].par_chunks_mut(size.max(1));
            let of_each = near.par_chunks((near.len() / pictures.len().max(1)).max(1));
            some.zip(of_each).for_each(|(picture, near)| self.kernel.fold_at(near, picture, self.grid, &places));
            start += count;
        }
        Ok(Some(Tensor::from_vec(back, x.dims(), x.device())?))
    }
}

/// A convolution; with stride 1 its output has the size of its input.
#[derive(Debug)]
pub struct Conv {
    /// The layer `(C_out, C size^2)`, of a depthwise convolution `(C, size^2)`.
    pub linear: Linear,
    kernel: Kernel,
    name: String,
}

impl Conv {
    /// Takes `{name}.weight` of shape `(C_out, C, size, size)` and, where it has one, `{name}.bias` from a checkpoint.
    ///
    /// # Errors
    /// When one is missing or has another shape.
    pub fn new(weights: &Weights, name: &str, site: Site, (outputs, channels): (usize, usize), size: usize, bias: bool) -> Result<Self> {
        Self::read(weights, name, site, (outputs, channels), Kernel { size, stride: 1, depthwise: false }, bias)
    }

    /// A convolution without a bias and the frozen batch norm `norm` behind it, folded into one (epsilon 1e-5).
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn with_norm(
        weights: &Weights,
        (name, norm): (&str, &str),
        site: Site,
        (outputs, channels): (usize, usize),
        (size, stride): (usize, usize),
    ) -> Result<Self> {
        let part = |part: &str| weights.get(&format!("{norm}.{part}"), &[outputs]);
        let scale = (part("weight")? / (part("running_var")? + 1e-5)?.sqrt()?)?;
        let bias = (part("bias")? - (part("running_mean")? * &scale)?)?;
        let conv = Self::read(weights, name, site, (outputs, channels), Kernel { size, stride, depthwise: false }, false)?;
        let weight = conv.linear.weight.tensor()?.broadcast_mul(&scale.unsqueeze(1)?)?;
        Ok(Self { linear: Linear::of(site, weight, Some(bias))?, ..conv })
    }

    /// Rows and columns of its output over a grid.
    #[must_use]
    pub const fn over(&self, grid: (usize, usize)) -> (usize, usize) {
        self.kernel.over(grid)
    }

    /// A depthwise convolution of `channels` channels.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn depthwise(weights: &Weights, name: &str, site: Site, channels: usize, size: usize, bias: bool) -> Result<Self> {
        Self::read(weights, name, site, (channels, 1), Kernel { size, stride: 1, depthwise: true }, bias)
    }

    fn read(weights: &Weights, name: &str, site: Site, (outputs, inputs): (usize, usize), kernel: Kernel, bias: bool) -> Result<Self> {
        let Kernel { size, .. } = kernel;
        let weight = weights.get(&format!("{name}.weight"), &[outputs, inputs, size, size])?.reshape((outputs, inputs * size * size))?;
        let bias = bias.then(|| weights.get(&format!("{name}.bias"), &[outputs])).transpose()?;
        Ok(Self { linear: Linear::of(site, weight, bias)?, kernel, name: name.to_string() })
    }

    /// `(B, rows columns, C)` to `(B, outputs, C_out)`.
    ///
    /// # Errors
    /// When the input has another shape, or the tap refuses.
    pub fn forward(&self, x: Tensor, grid: (usize, usize), tap: &mut dyn Tap) -> Result<Tensor> {
        self.forward_over(x, &grid.into(), tap)
    }

    /// The same over grids one behind another, which it does not look out of; of a depthwise convolution one grid.
    ///
    /// # Errors
    /// As [`Self::forward`].
    pub fn forward_over(&self, x: Tensor, grids: &Grids, tap: &mut dyn Tap) -> Result<Tensor> {
        if self.is_layer() {
            return self.linear.forward(x, tap);
        }
        let x = tap.activation(self.linear.site, x)?;
        let (b, _, channels) = x.dims3()?;
        let taps = self.kernel.size * self.kernel.size;
        let weight = tap.weight(self.linear.site, &self.linear.weight)?;
        if !self.kernel.depthwise {
            let (mut parts, mut start) = (Vec::new(), 0);
            for (count, grid) in grids.runs() {
                let length = count * grid.0 * grid.1;
                let part = x.narrow(1, start, length)?.contiguous()?.reshape((b * count, grid.0 * grid.1, channels))?;
                parts.push(self.convolve(&part, grid, &weight)?.reshape((b, (), self.linear.size().0))?);
                start += length;
            }
            return if parts.len() == 1 { Ok(parts.remove(0)) } else { Ok(Tensor::cat(&parts, 1)?) };
        }
        let grid = grids.each().next().unwrap_or_default();
        // A weight may be there only in the form for products: the product with one is the weight.
        let one = Tensor::eye(taps, x.dtype(), x.device())?.unsqueeze(0)?;
        let weight = kernels::linear(&one, &weight, None)?.squeeze(0)?; // (k k, C)
        let weights = weight.flatten_all()?.to_vec1::<f32>()?;
        let sums = x.contiguous()?.apply_op1(Depthwise { kernel: self.kernel, weights, grid })?;
        self.linear.shift(sums)
    }

    /// `(B, rows columns, C)` to `(B, outputs, C_out)`.
    fn convolve(&self, x: &Tensor, grid: (usize, usize), weight: &Weight) -> Result<Tensor> {
        let ((b, n, channels), (high, wide)) = (x.dims3()?, self.kernel.over(grid));
        if x.track_op() {
            let of = Convolution { kernel: self.kernel, grid, weight: weight.tensor()?.clone() };
            return self.linear.shift(x.contiguous()?.apply_op1(of)?);
        }
        let mut parts = Vec::new();
        kernels::with_values(x, |values| {
            in_pieces(self.kernel, grid, (values, n, channels), |near| {
                let part = self.linear.multiply(&near.unsqueeze(0)?, weight).map_err(candle_core::Error::wrap)?;
                parts.push(part);
                Ok(())
            })
        })??;
        let all = if parts.len() == 1 { parts.remove(0) } else { Tensor::cat(&parts, 1)? };
        Ok(all.reshape((b, high * wide, ()))?)
    }

    /// Whether it is a layer over every token.
    const fn is_layer(&self) -> bool {
        self.kernel.size == 1 && self.kernel.stride == 1
    }

    /// What is known of its input over a grid, in step `step`.
    #[must_use]
    pub fn site(&self, step: usize, grid: (usize, usize)) -> SiteInfo {
        self.site_over(step, grid.into(), TokenLayout::grid(0, grid))
    }

    /// The same over grids one behind another, whose tokens lie as `layout` says.
    #[must_use]
    pub fn site_over(&self, step: usize, grids: Grids, layout: TokenLayout) -> SiteInfo {
        let (outputs, inner) = self.linear.size();
        let taps = self.kernel.size * self.kernel.size;
        let tokens = grids.tokens();
        let layer = LayerShape { name: self.name.clone(), outputs };
        let channels = if self.kernel.depthwise { outputs } else { inner / taps };
        let info = SiteInfo::of_layer(self.linear.site, step, tokens, channels, layer).over(layout);
        if self.is_layer() {
            return info;
        }
        let outside: usize = grids.each().map(|grid| self.kernel.over(grid)).map(|(high, wide)| high * wide).sum();
        let (count, columns) = if self.kernel.depthwise { (outputs, 1) } else { (1, outputs) };
        let product = Product { count, rows: outside, inner, columns, right: RightOperand::Weight };
        SiteInfo { product: Some(product), near: Some(Neighbourhoods { kernel: self.kernel, grids }), ..info }
    }
}

/// The float weight of a layer, where it is that of `site`.
#[must_use]
pub fn weight_of<'l>(mut layers: impl Iterator<Item = &'l Linear>, site: Site) -> Option<&'l std::sync::Arc<Weight>> {
    layers.find(|layer| layer.site == site).map(|layer| &layer.weight)
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Var};

    use super::*;
    use crate::model::site::SiteKind;
    use crate::model::tap::Identity;

    #[test]
    fn a_convolution_over_tokens_is_that_of_candle() {
        is_that_of_candle((2, 4, 5));
    }

    #[test]
    fn a_large_map_is_convolved_in_pieces() {
        is_that_of_candle((2, 70, 61));
    }

    fn is_that_of_candle((b, rows, columns): (usize, usize, usize)) {
        let (c, out) = (3, 6);
        let x = Tensor::randn(0f32, 1.0, (b, c, rows, columns), &Device::Cpu).unwrap();
        let tokens = x.flatten_from(2).unwrap().transpose(1, 2).unwrap().contiguous().unwrap();
        for (weight, stride, groups) in
            [((out, c, 3, 3), 1, 1), ((c, 1, 3, 3), 1, c), ((out, c, 3, 3), 2, 1), ((out, c, 7, 7), 2, 1), ((out, c, 1, 1), 2, 1)]
        {
            let size = weight.2;
            let weight = Tensor::randn(0f32, 1.0, weight, &Device::Cpu).unwrap();
            let expected = x.conv2d(&weight, size / 2, stride, 1, groups).unwrap().flatten_from(2).unwrap().transpose(1, 2).unwrap();
            let (outputs, inputs, ..) = weight.dims4().unwrap();
            let linear = Linear::of(Site::outside(SiteKind::Cv1), weight.reshape((outputs, inputs * size * size)).unwrap(), None).unwrap();
            let conv = Conv { linear, kernel: Kernel { size, stride, depthwise: groups > 1 }, name: String::new() };
            let tracked = Var::from_tensor(&tokens).unwrap();
            for input in [tokens.clone(), tracked.as_tensor().clone()] {
                let found = conv.forward(input.clone(), (rows, columns), &mut Identity).unwrap();
                if input.track_op() {
                    // A convolution is linear: what a weighted sum of its output grows by along another input is that of the other input.
                    let by = Tensor::randn(0f32, 1.0, found.dims(), &Device::Cpu).unwrap();
                    let sum = |output: &Tensor| (output * &by).unwrap().sum_all().unwrap();
                    let gradients = sum(&found).backward().unwrap();
                    let along = Tensor::randn(0f32, 1.0, tokens.dims(), &Device::Cpu).unwrap();
                    let grows = (gradients.get(tracked.as_tensor()).unwrap() * &along).unwrap().sum_all().unwrap();
                    let of_other = sum(&conv.forward(along, (rows, columns), &mut Identity).unwrap());
                    let (grows, of_other) = (grows.to_scalar::<f32>().unwrap(), of_other.to_scalar::<f32>().unwrap());
                    assert!((grows - of_other).abs() < 3e-3 * (1.0 + of_other.abs()), "{size} {stride} {groups}: {grows} {of_other}");
                }
                let worst = (found - &expected).unwrap().abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap();
                assert!(worst < 5e-5, "{size} {stride} {groups}: {worst}");
            }
        }
    }
}
