//! What every network is made of: linear layers with a tap at their input, softmax, GELU, layer norm and the residual
//! sum. Where nobody asks for gradients they are kernels over slices, spread over threads row by row, in place where the tensor is the
//! operation's own; where somebody does they are composed of operations with a backward pass.

use std::f32::consts::{FRAC_1_SQRT_2, FRAC_2_SQRT_PI};
use std::sync::Arc;

use candle_core::{CpuStorage, CustomOp1, D, Layout, Shape, Tensor, bail};
use rten_simd::{SimdOp, SimdUnaryOp};
use rten_vecmath::{Erf, Exp, Gelu, Softmax, Swish};
use schemars::JsonSchema;
use serde::Serialize;

use crate::error::Result;
use crate::model::checkpoint::weights::Weights;
use crate::model::graph::{Graph, GraphTap, Setting, Value};
use crate::model::kernels::{self, Weight};
use crate::model::site::Site;
use crate::model::tap::Tap;

/// The softmax of `scale * scores + bias` over the last dimension; `bias` has the shape of one picture's scores, `(1, ..)`. Changes
/// `scores` in place, which must be nobody else's.
///
/// # Errors
/// When the shapes do not fit.
pub fn softmax(scores: Tensor, scale: f64, bias: Option<&Tensor>) -> Result<Tensor> {
    let row = scores.dim(D::Minus1)?;
    if scores.track_op() {
        let scores = (scores * scale)?;
        let scores = bias.map_or(Ok(scores.clone()), |bias| scores.broadcast_add(bias))?;
        return Ok(scores.contiguous()?.apply_op1(Vectorized::Softmax)?);
    }
    let scale = scale as f32;
    let normalize = |block: &mut [f32]| {
        for row in block.chunks_exact_mut(row) {
            Softmax::new_mut(row).dispatch();
        }
    };
    let Some(bias) = bias else {
        let work = |_: usize, block: &mut [f32]| {
            kernels::scale(block, scale);
            normalize(block);
        };
        return kernels::in_place(scores, row, work);
    };
    kernels::with_values(bias, |bias| {
        let work = |start: usize, block: &mut [f32]| {
            for (index, row_values) in block.chunks_exact_mut(row).enumerate() {
                let at = (start + index * row) % bias.len();
                kernels::scale_and_add(row_values, scale, &bias[at..at + row]);
            }
            normalize(block);
        };
        kernels::in_place(scores, row, work)
    })?
}

/// GELU as it is defined, with the error function, in place.
///
/// # Errors
/// Only when candle fails.
pub fn gelu(x: Tensor) -> Result<Tensor> {
    if x.track_op() {
        return Ok(x.contiguous()?.apply_op1(Vectorized::Gelu)?);
    }
    kernels::in_place(x, 1, |_, block| Gelu {}.map_mut(block))
}

/// `x + gamma branch`, the residual sum with its layer scale `(D)` where there is one. Changes `branch` in place, which must be nobody
/// else's.
///
/// # Errors
/// When the shapes differ.
pub fn residual(x: &Tensor, branch: Tensor, gamma: Option<&Tensor>) -> Result<Tensor> {
    if x.track_op() || branch.track_op() || !branch.is_contiguous() {
        let branch = gamma.map_or(Ok(branch.clone()), |gamma| branch.broadcast_mul(gamma))?;
        return Ok((x + branch)?);
    }
    let row = branch.dim(D::Minus1)?;
    let gamma = gamma.map(Tensor::to_vec1::<f32>).transpose()?;
    kernels::with_values(x, |stream| {
        let work = |start: usize, block: &mut [f32]| {
            let stream = &stream[start..start + block.len()];
            match &gamma {
                None => kernels::add(block, stream),
                Some(gamma) => kernels::scale_rows_and_add(block, gamma, stream),
            }
        };
        kernels::in_place(branch, row, work)
    })?
}

/// What stands between the two layers of an MLP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Activation {
    /// GELU with the error function.
    Gelu,
    /// GELU by its tanh approximation.
    GeluTanh,
    /// `x sigmoid(1.702 x)`
    QuickGelu,
    /// `silu(a) b` of the two halves of the first layer's output: a gated MLP (SwiGLU).
    SwiGlu,
}

impl Activation {
    /// `(.., C)` to the same shape, in place where it can be; for a gated MLP to `(.., C/2)`.
    ///
    /// # Errors
    /// Only when candle fails.
    pub fn apply(self, x: Tensor) -> Result<Tensor> {
        Ok(match self {
            Self::Gelu => gelu(x)?,
            Self::GeluTanh => x.gelu()?,
            Self::QuickGelu if x.track_op() => (&x * candle_nn::ops::sigmoid(&(&x * 1.702)?)?)?,
            Self::QuickGelu => kernels::in_place(x, 1, |_, block| Swish { alpha: 1.702 }.map_mut(block))?,
            Self::SwiGlu => {
                let half = x.dim(D::Minus1)? / 2;
                let (gate, value) = (x.narrow(D::Minus1, 0, half)?, x.narrow(D::Minus1, half, half)?);
                (gate.contiguous()?.silu()? * value.contiguous()?)?
            }
        })
    }
}

impl Activation {
    /// The same in a graph.
    pub fn draw(self, graph: &mut Graph, x: &Value) -> Value {
        let scaled = |graph: &mut Graph, x: &Value, by: f32| {
            let by = graph.float(by);
            graph.op("Mul", &[x, &by])
        };
        // `x (1 + f) / 2`
        let gated = |graph: &mut Graph, f: &Value| {
            let one = graph.float(1.0);
            let twice = graph.op("Add", &[f, &one]);
            let half = scaled(graph, x, 0.5);
            graph.op("Mul", &[&half, &twice])
        };
        match self {
            Self::Gelu => {
                let erf = scaled(graph, x, FRAC_1_SQRT_2);
                let erf = graph.op("Erf", &[&erf]);
                gated(graph, &erf)
            }
            Self::GeluTanh => {
                let square = graph.op("Mul", &[x, x]);
                let cube = graph.op("Mul", &[&square, x]);
                let cube = scaled(graph, &cube, 0.044_715);
                let inside = graph.op("Add", &[x, &cube]);
                let inside = scaled(graph, &inside, FRAC_2_SQRT_PI * FRAC_1_SQRT_2);
                let tanh = graph.op("Tanh", &[&inside]);
                gated(graph, &tanh)
            }
            Self::QuickGelu => {
                let gate = scaled(graph, x, 1.702);
                let gate = graph.op("Sigmoid", &[&gate]);
                graph.op("Mul", &[x, &gate])
            }
            Self::SwiGlu => {
                let halves = graph.parts(x, -1, 2);
                let gate = graph.op("Sigmoid", &[&halves[0]]);
                let gate = graph.op("Mul", &[&halves[0], &gate]);
                graph.op("Mul", &[&gate, &halves[1]])
            }
        }
    }
}

/// Operations with a backward pass whose inner loop is `rten-vecmath`'s: candle calls the scalar `erff` and `expf` for every value. They
/// differ from candle's by less than 1e-6.
#[derive(Debug, Clone, Copy)]
enum Vectorized {
    Softmax, // over the last dimension
    Gelu,
    GeluSlope,
}

impl CustomOp1 for Vectorized {
    fn name(&self) -> &'static str {
        match self {
            Self::Softmax => "softmax",
            Self::Gelu => "gelu",
            Self::GeluSlope => "slope of gelu",
        }
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        let (CpuStorage::F32(values), Some((start, end))) = (storage, layout.contiguous_offsets()) else {
            bail!("{} takes contiguous float32 values", self.name());
        };
        let mut values = values[start..end].to_vec();
        match self {
            Self::Softmax => {
                let row = layout.dims().last().copied().unwrap_or(1).max(1);
                for row in values.chunks_exact_mut(row) {
                    Softmax::new_mut(row).dispatch();
                }
            }
            Self::Gelu => Gelu {}.map_mut(&mut values),
            Self::GeluSlope => {
                let mut erf: Vec<f32> = values.iter().map(|x| x * FRAC_1_SQRT_2).collect();
                Erf {}.map_mut(&mut erf);
                let mut exp: Vec<f32> = values.iter().map(|x| -0.5 * x * x).collect();
                Exp {}.map_mut(&mut exp);
                let density = 0.5 * FRAC_1_SQRT_2 * FRAC_2_SQRT_PI;
                for (x, (erf, exp)) in values.iter_mut().zip(erf.iter().zip(&exp)) {
                    *x = 0.5 + 0.5 * erf + density * *x * exp;
                }
            }
        }
        Ok((CpuStorage::F32(values), layout.shape().clone()))
    }

    fn bwd(&self, x: &Tensor, y: &Tensor, gradient: &Tensor) -> candle_core::Result<Option<Tensor>> {
        Ok(match self {
            Self::Softmax => Some((y * gradient.broadcast_sub(&(gradient * y)?.sum_keepdim(D::Minus1)?)?)?),
            Self::Gelu => Some((gradient * x.apply_op1_no_bwd(&Self::GeluSlope)?)?),
            Self::GeluSlope => None,
        })
    }
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
        if x.track_op() {
            return Ok(candle_nn::ops::layer_norm_slow(x, &self.weight, &self.bias, self.eps)?);
        }
        let (weight, bias) = (self.weight.to_vec1::<f32>()?, self.bias.to_vec1::<f32>()?);
        if x.dim(D::Minus1)? != weight.len() {
            return Ok(candle_nn::ops::layer_norm(x, &self.weight, &self.bias, self.eps)?); // It says what is wrong.
        }
        let mut values = kernels::with_values(x, <[f32]>::to_vec)?;
        kernels::change_rows(&mut values, weight.len(), |_, block| kernels::normalize(block, &weight, &bias, self.eps));
        Ok(Tensor::from_vec(values, x.dims(), x.device())?)
    }
}

impl Norm {
    /// Divides its output by `factors` `(C)`.
    ///
    /// # Errors
    /// When there are more or fewer than its channels.
    fn divide(&mut self, factors: &Tensor) -> Result<()> {
        self.weight = (&self.weight / factors)?;
        self.bias = (&self.bias / factors)?;
        Ok(())
    }

    /// The same in a graph.
    ///
    /// # Errors
    /// Only when candle fails.
    pub fn draw(&self, graph: &mut Graph, x: &Value) -> Result<Value> {
        let (weight, bias) = (graph.tensor(&self.weight)?, graph.tensor(&self.bias)?);
        let settings = [Setting::Int("axis", -1), Setting::Float("epsilon", self.eps)];
        Ok(graph.op_with("LayerNormalization", &[x, &weight, &bias], &settings))
    }
}

/// What a layer's input is divided by, from its site and the largest weight of every input channel; `None` to leave it.
pub type Factors<'f> = dyn Fn(Site, &[f32]) -> Option<Vec<f32>> + 'f;

/// A linear layer `y = x W^T + b` whose input is a site.
#[derive(Debug)]
pub struct Linear {
    /// The site of its input.
    pub site: Site,
    /// `(C_out, C)`
    pub weight: Arc<Weight>,
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
            weight: Arc::new(Weight::new(weights.get(&format!("{name}.weight"), &[shape.0, shape.1])?)?),
            bias: bias.then(|| weights.get(&format!("{name}.bias"), &[shape.0])).transpose()?,
        })
    }

    /// Of a weight `(C_out, C)` and a bias `(C_out)`.
    ///
    /// # Errors
    /// When the weight does not have two dimensions.
    pub fn of(site: Site, weight: Tensor, bias: Option<Tensor>) -> Result<Self> {
        Ok(Self { site, weight: Arc::new(Weight::new(weight)?), bias })
    }

    /// `(B, N, C)` to `(B, N, C_out)`.
    ///
    /// # Errors
    /// When the input has another shape, or the tap refuses.
    pub fn forward(&self, x: Tensor, tap: &mut dyn Tap) -> Result<Tensor> {
        let x = tap.activation(self.site, x)?;
        if !x.track_op() {
            return tap.layer(self.site, &x, &self.weight, self.bias.as_ref());
        }
        let weight = tap.weight(self.site, &self.weight)?;
        self.multiply(&x, &weight)
    }

    /// `x W^T + b` for some weight of its shape, `(B, N, C)` to `(B, N, C_out)`, without a tap.
    ///
    /// # Errors
    /// When the shapes do not fit.
    pub fn multiply(&self, x: &Tensor, weight: &Weight) -> Result<Tensor> {
        if !x.track_op() {
            return kernels::linear(x, weight, self.bias.as_ref());
        }
        let (weight, (b, n, c)) = (weight.tensor()?, x.dims3()?);
        let y = x.reshape((b * n, c))?.matmul(&weight.t()?)?;
        self.shift(y.reshape((b, n, weight.dim(0)?))?)
    }

    /// `y + b`
    ///
    /// # Errors
    /// When the last dimension is not that of the outputs.
    pub fn shift(&self, y: Tensor) -> Result<Tensor> {
        Ok(match &self.bias {
            Some(bias) => y.broadcast_add(bias)?,
            None => y,
        })
    }

    /// Outputs and inputs.
    #[must_use]
    pub fn size(&self) -> (usize, usize) {
        self.weight.size()
    }
}

impl Linear {
    /// Divides the layer's input by factors `(C)` that `of` gives for its site and the largest weight of every input channel; `norm`, from
    /// which the input comes, and the weight absorb them, so that the output stays. Gives whether there were any.
    ///
    /// # Errors
    /// When there are more or fewer factors than channels.
    pub fn smooth(&mut self, norm: &mut Norm, of: &Factors<'_>) -> Result<bool> {
        let weight = self.weight.tensor()?;
        let largest = weight.abs()?.max(0)?.to_vec1::<f32>()?;
        let Some(factors) = of(self.site, &largest) else { return Ok(false) };
        let factors = Tensor::from_vec(factors, weight.dim(1)?, weight.device())?;
        self.weight = Arc::new(Weight::new(weight.broadcast_mul(&factors)?)?);
        norm.divide(&factors)?;
        Ok(true)
    }

    /// The same in a graph.
    ///
    /// # Errors
    /// When the tap refuses.
    pub fn draw(&self, graph: &mut Graph, x: Value, tap: &mut dyn GraphTap) -> Result<Value> {
        let x = tap.activation(graph, self.site, x)?;
        let weight = tap.weight(graph, self.site, &self.weight)?;
        let weight = graph.transpose(&weight, &[1, 0]);
        let y = graph.op("MatMul", &[&x, &weight]);
        match &self.bias {
            Some(bias) => {
                let bias = graph.tensor(bias)?;
                Ok(graph.op("Add", &[&y, &bias]))
            }
            None => Ok(y),
        }
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device, Var};

    use super::*;

    fn worst(a: &Tensor, b: &Tensor) -> f32 {
        (a - b).unwrap().abs().unwrap().max_all().unwrap().to_scalar().unwrap()
    }

    #[test]
    fn fused_norms_give_what_composed_ones_give() {
        let x = Tensor::randn(0f32, 2.0, (3, 5, 8), &Device::Cpu).unwrap();
        let norm = Norm {
            weight: Tensor::rand(0.5f32, 1.5, 8, &Device::Cpu).unwrap(),
            bias: Tensor::zeros(8, DType::F32, &Device::Cpu).unwrap(),
            eps: 1e-6,
        };
        let tracked = Var::from_tensor(&x).unwrap();
        assert!(worst(&norm.forward(&x).unwrap(), &norm.forward(tracked.as_tensor()).unwrap()) < 1e-5);
    }

    #[test]
    fn vectorized_operations_and_their_slopes_are_those_of_candle() {
        let x = Var::from_tensor(&Tensor::randn(0f32, 2.0, (3, 5, 37), &Device::Cpu).unwrap()).unwrap();
        let weights = Tensor::randn(0f32, 1.0, (3, 5, 37), &Device::Cpu).unwrap();
        let slope = |y: &Tensor| {
            let gradients = (y * &weights).unwrap().sum_all().unwrap().backward().unwrap();
            gradients.get(x.as_tensor()).unwrap().clone()
        };
        let own = || x.as_detached_tensor().copy().unwrap();
        let tracked = || x.as_tensor().clone();
        let softmaxes =
            [softmax(tracked(), 1.0, None).unwrap(), candle_nn::ops::softmax(&x, D::Minus1).unwrap(), softmax(own(), 1.0, None).unwrap()];
        let gelus = [gelu(tracked()).unwrap(), x.gelu_erf().unwrap(), gelu(own()).unwrap()];
        for [ours, candles, in_place] in [softmaxes, gelus] {
            assert!(worst(&ours, &candles) < 2e-6);
            assert!(worst(&in_place, &candles) < 2e-6);
            assert!(worst(&slope(&ours), &slope(&candles)) < 1e-5);
        }
    }
}
