//! Weights: one quantizer for each output channel, bounds from percentiles of that channel (supplement A.1).

use std::sync::{Arc, OnceLock};

use candle_core::Tensor;
use rayon::prelude::*;

use super::bits::BitWidth;
use super::integer_weight::IntegerWeight;
use super::uniform::{Bounds, UniformQuantizer, percentile};
use crate::error::Result;
use crate::model::{Weight, kernels};

/// Percentiles that are tried, in percent; the paper does not say which, the least weight MSE decides \[D\].
pub const EPSILONS: [f64; 5] = [0.0, 0.01, 0.1, 0.5, 1.0];

/// A layer's weight after quantization.
#[derive(Debug)]
pub struct QuantizedWeight {
    /// `(C_out, C)`, quantized and dequantized.
    pub weight: Arc<Weight>,
    /// The percentile that was chosen, in percent.
    pub epsilon: f64,
    /// One quantizer for each output channel.
    pub quantizers: Vec<UniformQuantizer>,
    /// Mean squared error against the float weight.
    pub mse: f64,
    /// `10 log10(sum w^2 / sum (w - w^)^2)`, dB; infinite if nothing changed.
    pub sqnr: f64,
    /// Its codes as the integer kernel takes them, made at the first product.
    integer: OnceLock<IntegerWeight>,
}

impl QuantizedWeight {
    /// `(C_out, C)`, quantized and dequantized; `float` is the weight that was quantized.
    ///
    /// # Errors
    /// When `float` does not have two dimensions.
    pub fn dequantized(&self, float: &Tensor) -> Result<Tensor> {
        let mut quantized = vec![0.0; float.elem_count()];
        let columns = float.dim(1)?;
        kernels::with_values(float, |values| {
            let rows = quantized.chunks_exact_mut(columns).zip(values.chunks_exact(columns)).zip(&self.quantizers);
            rows.for_each(|((out, row), quantizer)| quantizer.apply_all(row, out));
        })?;
        Ok(Tensor::from_vec(quantized, float.dims(), float.device())?)
    }

    /// Its codes as the integer kernel takes them; `float` is the weight that was quantized.
    ///
    /// # Errors
    /// When `float` does not have two dimensions.
    pub fn integer(&self, float: &Tensor) -> Result<&IntegerWeight> {
        if let Some(known) = self.integer.get() {
            return Ok(known);
        }
        let made = IntegerWeight::new(float, &self.quantizers)?;
        Ok(self.integer.get_or_init(|| made))
    }

    /// Bits of its codes.
    #[must_use]
    pub fn bits(&self) -> BitWidth {
        let codes = self.quantizers.first().map_or(0, |q| q.max_code as u32 + 1);
        BitWidth::ALL.into_iter().find(|b| b.max_code() == codes.checked_sub(1)).unwrap_or(BitWidth::FLOAT)
    }
}

/// Quantizes `weight` `(C_out, C)`, with the one of [`EPSILONS`] that has the least squared error over the layer.
/// `None` for float.
///
/// # Errors
/// When the tensor has not two dimensions.
pub fn quantize(weight: &Tensor, bits: BitWidth) -> Result<Option<QuantizedWeight>> {
    if bits.is_float() {
        return Ok(None);
    }
    kernels::with_values(weight, |values| quantize_values(weight.dims2()?, values, bits).map(Some))?
}

fn quantize_values((outputs, columns): (usize, usize), values: &[f32], bits: BitWidth) -> Result<QuantizedWeight> {
    // For every output channel: quantizer and squared error at every epsilon.
    let tried: Vec<Vec<(UniformQuantizer, f64)>> = values
        .par_chunks(columns)
        .map(|row| {
            let tails = with_sorted_tails(row);
            let trial = |&epsilon: &f64| {
                let bounds = Bounds::new(percentile(&tails, epsilon), percentile(&tails, 100.0 - epsilon));
                let quantizer = UniformQuantizer::new(bounds, bits)?;
                Some((quantizer, quantizer.squared_error(row)))
            };
            EPSILONS.iter().filter_map(trial).collect()
        })
        .collect();
    let total = |index: usize| tried.iter().map(|row| row[index].1).sum::<f64>();
    let errors = EPSILONS.iter().enumerate().map(|(index, _)| total(index)).collect::<Vec<_>>();
    let best = (0..EPSILONS.len()).fold(0, |best, i| if errors[i] < errors[best] { i } else { best });
    let quantizers: Vec<UniformQuantizer> = tried.iter().map(|row| row[best].0).collect();
    let mut quantized = vec![0.0; values.len()];
    let each = |((out, row), quantizer): ((&mut [f32], &[f32]), &UniformQuantizer)| {
        quantizer.apply_all(row, out);
    };
    quantized.par_chunks_mut(columns).zip(values.par_chunks(columns)).zip(&quantizers).for_each(each);
    let energy: f64 = values.iter().map(|&w| f64::from(w).powi(2)).sum();
    Ok(QuantizedWeight {
        weight: Arc::new(Weight::packed_only(&quantized, (outputs, columns))?),
        epsilon: EPSILONS[best],
        quantizers,
        mse: errors[best] / values.len() as f64,
        sqnr: 10.0 * (energy / errors[best]).log10(),
        integer: OnceLock::new(),
    })
}

/// The values with those at both ends in order, as far in as the widest of [`EPSILONS`] looks: all that its percentiles need.
fn with_sorted_tails(values: &[f32]) -> Vec<f32> {
    let mut ordered = values.to_vec();
    let widest = EPSILONS.iter().copied().fold(0.0, f64::max) / 100.0;
    let tail = (widest * ordered.len() as f64) as usize + 2;
    if 2 * tail >= ordered.len() {
        ordered.sort_unstable_by(f32::total_cmp);
        return ordered;
    }
    let from = ordered.len() - tail;
    ordered.select_nth_unstable_by(tail, f32::total_cmp);
    ordered[..tail].sort_unstable_by(f32::total_cmp);
    ordered[tail..].select_nth_unstable_by(from - tail, f32::total_cmp);
    ordered[from..].sort_unstable_by(f32::total_cmp);
    ordered
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    #[test]
    fn percentiles_are_those_of_numpy() {
        let sorted = [0.0, 1.0, 2.0, 10.0];
        assert_eq!(percentile(&sorted, 0.0), 0.0);
        assert_eq!(percentile(&sorted, 50.0), 1.5);
        assert!((percentile(&sorted, 99.0) - 9.76).abs() < 1e-5);
        assert_eq!(percentile(&sorted, 100.0), 10.0);
    }

    #[test]
    fn sorted_tails_give_the_percentiles_of_sorted_values() {
        let mut random = fastrand::Rng::with_seed(5);
        for len in [1, 3, 40, 384, 3000] {
            let values: Vec<f32> = (0..len).map(|_| random.f32() - 0.5).collect();
            let mut sorted = values.clone();
            sorted.sort_by(f32::total_cmp);
            let tails = with_sorted_tails(&values);
            for epsilon in EPSILONS.iter().flat_map(|e| [*e, 100.0 - e]) {
                assert_eq!(percentile(&tails, epsilon), percentile(&sorted, epsilon), "{len} values, {epsilon} %");
            }
        }
    }

    #[test]
    fn error_falls_as_bits_grow_and_float_is_left_alone() {
        let values: Vec<f32> = (0..600).map(|i| ((i * 37 % 101) as f32 / 50.0 - 1.0).powi(3)).collect();
        let weight = Tensor::from_vec(values, (6, 100), &Device::Cpu).unwrap();
        let mse = |b| quantize(&weight, BitWidth::new(b).unwrap()).unwrap().unwrap().mse;
        for bits in 2..8 {
            assert!(mse(bits + 1) < mse(bits), "{} bits", bits + 1);
        }
        assert!(quantize(&weight, BitWidth::FLOAT).unwrap().is_none());
    }

    #[test]
    fn a_chosen_percentile_is_never_worse_than_min_and_max() {
        let mut values: Vec<f32> = (0..1000).map(|i| ((i * 61 % 997) as f32 / 997.0 - 0.5) * 0.1).collect();
        values[7] = 4.0; // an outlier that is worth clipping
        let weight = Tensor::from_vec(values.clone(), (1, 1000), &Device::Cpu).unwrap();
        let bits = BitWidth::new(8).unwrap();
        let chosen = quantize(&weight, bits).unwrap().unwrap();
        let whole = UniformQuantizer::new(Bounds::of(&values), bits).unwrap();
        assert!(chosen.mse * 1000.0 <= whole.squared_error(&values));
    }
}
