//! What every network is made of: linear layers with a tap at their input, the patch embedding, softmax and layer norm. The last two take
//! candle's fused kernels where nobody asks for gradients and composed operations where somebody does: the fused ones have no backward
//! pass.

use candle_core::{D, Tensor};

use super::site::{Site, SiteKind};
use super::tap::Tap;
use super::weights::Weights;
use crate::error::Result;

/// Softmax over the last dimension.
///
/// # Errors
/// Only when candle fails.
pub fn softmax(x: &Tensor) -> Result<Tensor> {
    Ok(if x.track_op() { candle_nn::ops::softmax(x, D::Minus1)? } else { candle_nn::ops::softmax_last_dim(x)? })
}

/// A layer norm over the last dimension.
#[derive(Debug, Clone)]
pub struct Norm {
    weight: Tensor, // (C)
    bias: Tensor,   // (C)
    eps: f32,
}

impl Norm {
    /// Takes `{name}.weight` and `{name}.bias` from a checkpoint.
    ///
    /// # Errors
    /// When one is missing or does not have `channels` values.
    pub fn new(weights: &Weights, name: &str, channels: usize, eps: f64) -> Result<Self> {
        let part = |part| weights.get(&format!("{name}.{part}"), &[channels]);
        Ok(Self { weight: part("weight")?, bias: part("bias")?, eps: eps as f32 })
    }

    /// `(.., C)` to the same shape.
    ///
    /// # Errors
    /// When the last dimension is not `C`.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        Ok(if x.track_op() {
            candle_nn::ops::layer_norm_slow(x, &self.weight, &self.bias, self.eps)?
        } else {
            candle_nn::ops::layer_norm(&x.contiguous()?, &self.weight, &self.bias, self.eps)?
        })
    }
}

/// A linear layer `y = x W^T + b` whose input is a site.
#[derive(Debug)]
pub struct Linear {
    /// The site of its input.
    pub site: Site,
    /// `(C_out, C)`
    pub weight: Tensor,
    bias: Option<Tensor>, // (C_out)
}

impl Linear {
    /// Takes `{name}.weight` of shape `(C_out, C)` and, where it has one, `{name}.bias` from a checkpoint.
    ///
    /// # Errors
    /// When one is missing or has another shape.
    pub fn new(weights: &Weights, name: &str, site: Site, shape: (usize, usize), bias: bool) -> Result<Self> {
        Ok(Self {
            site,
            weight: weights.get(&format!("{name}.weight"), &[shape.0, shape.1])?,
            bias: bias.then(|| weights.get(&format!("{name}.bias"), &[shape.0])).transpose()?,
        })
    }

    /// `(B, N, C)` to `(B, N, C_out)`.
    ///
    /// # Errors
    /// When the input has another shape, or the tap refuses.
    pub fn forward(&self, x: Tensor, tap: &mut dyn Tap) -> Result<Tensor> {
        let x = tap.activation(self.site, x)?;
        let weight = tap.weight(self.site, &self.weight)?;
        let (b, n, c) = x.dims3()?;
        let y = x.reshape((b * n, c))?.matmul(&weight.t()?)?;
        let y = match &self.bias {
            Some(bias) => y.broadcast_add(bias)?,
            None => y,
        };
        Ok(y.reshape((b, n, weight.dim(0)?))?)
    }
}

/// Pixels to one token a patch.
#[derive(Debug)]
pub struct PatchEmbed {
    /// The projection of a patch's pixels.
    pub proj: Linear,
    grid: (usize, usize),
    patch: (usize, usize),
}

impl PatchEmbed {
    /// Takes `patch_embed.proj` from a checkpoint; `grid` and `patch` are rows and columns, of patches and of pixels.
    ///
    /// # Errors
    /// When a tensor is missing or has another shape.
    pub fn new(weights: &Weights, dim: usize, in_chans: usize, patch: (usize, usize), grid: (usize, usize)) -> Result<Self> {
        let name = "patch_embed.proj";
        let kernel = weights.get(&format!("{name}.weight"), &[dim, in_chans, patch.0, patch.1])?;
        let proj = Linear {
            site: Site::outside(SiteKind::Patch),
            weight: kernel.reshape((dim, in_chans * patch.0 * patch.1))?,
            bias: Some(weights.get(&format!("{name}.bias"), &[dim])?),
        };
        Ok(Self { proj, grid, patch })
    }

    /// `(B, in_chans, height, width)` to `(B, N, D)`: a convolution whose stride is its kernel is a linear layer over patches.
    ///
    /// # Errors
    /// When the input has another shape, or the tap refuses.
    pub fn forward(&self, pixels: &Tensor, tap: &mut dyn Tap) -> Result<Tensor> {
        let (b, c, _, _) = pixels.dims4()?;
        let ((rows, columns), (ph, pw)) = (self.grid, self.patch);
        let patches =
            pixels.reshape((b, c, rows, ph, columns, pw))?.permute((0, 2, 4, 1, 3, 5))?.reshape((b, rows * columns, c * ph * pw))?;
        self.proj.forward(patches, tap)
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Var};

    use super::*;

    #[test]
    fn composed_operations_give_what_the_fused_ones_give() {
        let x = Tensor::randn(0f32, 2.0, (3, 5, 8), &Device::Cpu).unwrap();
        let norm = Norm {
            weight: Tensor::rand(0.5f32, 1.5, 8, &Device::Cpu).unwrap(),
            bias: Tensor::zeros(8, candle_core::DType::F32, &Device::Cpu).unwrap(),
            eps: 1e-6,
        };
        let tracked = Var::from_tensor(&x).unwrap();
        let worst = |a: Tensor, b: Tensor| (a - b).unwrap().abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap();
        assert!(worst(softmax(&x).unwrap(), softmax(tracked.as_tensor()).unwrap()) < 1e-6);
        assert!(worst(norm.forward(&x).unwrap(), norm.forward(tracked.as_tensor()).unwrap()) < 1e-5);
        let loss = norm.forward(&softmax(tracked.as_tensor()).unwrap()).unwrap().sqr().unwrap().sum_all().unwrap();
        assert!(loss.backward().unwrap().get(tracked.as_tensor()).is_some());
    }
}
