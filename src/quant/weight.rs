//! Weights: one quantizer for each output channel, bounds from percentiles of that channel (supplement A.1).

use candle_core::Tensor;
use rayon::prelude::*;

use super::bits::BitWidth;
use super::uniform::{Bounds, UniformQuantizer, percentile};
use crate::error::Result;

/// Percentiles that are tried, in percent; the paper does not say which, the least weight MSE decides \[D\].
pub const EPSILONS: [f64; 5] = [0.0, 0.01, 0.1, 0.5, 1.0];

/// A layer's weight after quantization.
#[derive(Debug, Clone)]
pub struct QuantizedWeight {
    /// `(C_out, C)`, quantized and dequantized.
    pub tensor: Tensor,
    /// The percentile that was chosen, in percent.
    pub epsilon: f64,
    /// One quantizer for each output channel.
    pub quantizers: Vec<UniformQuantizer>,
    /// Mean squared error against the float weight.
    pub mse: f64,
    /// `10 log10(sum w^2 / sum (w - w^)^2)`, dB; infinite if nothing changed.
    pub sqnr: f64,
}

impl QuantizedWeight {
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
    let (_, columns) = weight.dims2()?;
    let values = weight.flatten_all()?.to_vec1::<f32>()?;
    // For every output channel: quantizer and squared error at every epsilon.
    let tried: Vec<Vec<(UniformQuantizer, f64)>> = values
        .par_chunks(columns)
        .map(|row| {
            let mut sorted = row.to_vec();
            sorted.sort_unstable_by(f32::total_cmp);
            let trial = |&epsilon: &f64| {
                let bounds = Bounds::new(percentile(&sorted, epsilon), percentile(&sorted, 100.0 - epsilon));
                let quantizer = UniformQuantizer::new(bounds, bits)?;
                Some((quantizer, squared_error(row, &quantizer)))
            };
            EPSILONS.iter().filter_map(trial).collect()
        })
        .collect();
    let total = |index: usize| tried.iter().map(|row| row[index].1).sum::<f64>();
    let errors = EPSILONS.iter().enumerate().map(|(index, _)| total(index)).collect::<Vec<_>>();
    let best = (0..EPSILONS.len()).fold(0, |best, i| if errors[i] < errors[best] { i } else { best });
    let quantizers: Vec<UniformQuantizer> = tried.iter().map(|row| row[best].0).collect();
    let mut quantized = values.clone();
    quantized.par_chunks_mut(columns).zip(&quantizers).for_each(|(row, quantizer)| quantizer.apply_all(row));
    let energy: f64 = values.iter().map(|&w| f64::from(w).powi(2)).sum();
    Ok(Some(QuantizedWeight {
        tensor: Tensor::from_vec(quantized, weight.dims(), weight.device())?,
        epsilon: EPSILONS[best],
        quantizers,
        mse: errors[best] / values.len() as f64,
        sqnr: 10.0 * (energy / errors[best]).log10(),
    }))
}

fn squared_error(values: &[f32], quantizer: &UniformQuantizer) -> f64 {
    values.iter().map(|&w| f64::from(w - quantizer.apply(w)).powi(2)).sum()
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
        assert!(chosen.mse * 1000.0 <= squared_error(&values, &whole));
    }
}
