//! Softmax and layer norm for every network: candle's fused kernels where nobody asks for gradients, composed operations where somebody
//! does, because the fused ones have no backward pass.

use candle_core::{D, Tensor};

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
