//! Weights: a quantizer for each output channel, or for each block of its inputs; ranges that least change the layer's output; rounding to the
//! nearest or by GPTQ. The paper cuts percentiles of each output channel (supplement A.1) and does not say which.

use std::sync::{Arc, OnceLock};

use candle_core::Tensor;
use multiversion::multiversion;
use rayon::prelude::*;

use super::bits::BitWidth;
use super::curvature::Curvature;
use super::format::Format;
use super::integer_weight::IntegerWeight;
use super::quantizer::Quantizer;
use super::rounding::{self, Scales};
use super::tiles;
use super::uniform::{Bounds, UniformQuantizer};
use super::weight_scheme::{Rounding, WeightScales, WeightScheme};
use crate::error::{Error, Result};
use crate::model::{Weight, kernels};

/// Shares of the range of an output channel (or block) that are tried as its bounds: the one of least `sum_c E[x_c^2] (w_c - w^_c)^2` is
/// taken \[D\].
pub const SHRINKS: [f32; 14] = [1.0, 0.95, 0.9, 0.85, 0.8, 0.75, 0.7, 0.65, 0.6, 0.55, 0.5, 0.45, 0.4, 0.35];

/// A layer's weight after quantization.
#[derive(Debug)]
pub struct QuantizedWeight {
    /// `(C_out, C)`, quantized and dequantized.
    pub weight: Arc<Weight>,
    /// How it was made.
    pub scheme: WeightScheme,
    /// `(C_out, C)`
    pub size: (usize, usize),
    /// The code of every value, row by row, input channels in the order of the network.
    pub codes: Vec<u8>,
    /// A quantizer for every output channel and block of inputs, row by row.
    pub quantizers: Vec<Quantizer>,
    /// The block of each input channel.
    pub blocks: Vec<u16>,
    /// Mean share of their range that the bounds keep.
    pub shrink: f64,
    /// Mean squared error against the float weight.
    pub mse: f64,
    /// `10 log10(sum w^2 / sum (w - w^)^2)`, dB; infinite if nothing changed.
    pub sqnr: f64,
    /// Its codes as the integer kernel takes them, made at the first product.
    integer: OnceLock<IntegerWeight>,
}

impl QuantizedWeight {
    /// The values `(C_out, C)` that the codes stand for.
    #[must_use]
    pub fn values(&self) -> Vec<f32> {
        values(&self.codes, self.scales(), self.size.1)
    }

    /// The quantizers of one block of inputs for each output channel, where all are uniform.
    #[must_use]
    pub fn per_channel(&self) -> Option<Vec<UniformQuantizer>> {
        let whole = self.quantizers.len() == self.size.0;
        self.quantizers.iter().filter(|_| whole).map(|q| q.as_uniform().copied()).collect::<Option<Vec<_>>>().filter(|_| whole)
    }

    fn scales(&self) -> Scales<'_> {
        Scales { quantizers: &self.quantizers, blocks: &self.blocks, count: self.quantizers.len() / self.size.0.max(1) }
    }

    /// Its codes as the integer kernel takes them; none where it does not have one scale for each output channel, or one of no step.
    ///
    /// # Errors
    /// Only when the kernel refuses the shapes.
    pub fn integer(&self) -> Result<Option<&IntegerWeight>> {
        if let Some(known) = self.integer.get() {
            return Ok(Some(known));
        }
        let Some(quantizers) = self.per_channel().filter(|q| !q.iter().any(UniformQuantizer::is_degenerate)) else { return Ok(None) };
        let made = IntegerWeight::new(&self.codes, self.size, &quantizers)?;
        Ok(Some(self.integer.get_or_init(|| made)))
    }

    /// Bits of its codes.
    #[must_use]
    pub const fn bits(&self) -> BitWidth {
        self.scheme.bits
    }
}

fn values(codes: &[u8], scales: Scales, columns: usize) -> Vec<f32> {
    let mut values = vec![0.0; codes.len()];
    values.par_chunks_mut(columns).zip(codes.par_chunks(columns)).enumerate().for_each(|(output, (values, codes))| {
        let row = &scales.quantizers[output * scales.count..(output + 1) * scales.count];
        for ((value, &code), &block) in values.iter_mut().zip(codes).zip(scales.blocks) {
            *value = row[usize::from(block)].value(code.into());
        }
    });
    values
}

/// Quantizes `weight` `(C_out, C)`. Without `curvature` all inputs count the same. `None` for float.
///
/// # Errors
/// When the tensor has not two dimensions, or GPTQ is asked for without `curvature`.
pub fn quantize(weight: &Tensor, scheme: WeightScheme, curvature: Option<&Curvature>) -> Result<Option<QuantizedWeight>> {
    if scheme.bits.is_float() {
        return Ok(None);
    }
    if scheme.rounding == Rounding::Gptq && curvature.is_none() {
        let expected = "nearest where there are no calibration pictures (--weights nearest): GPTQ needs the inputs of every layer";
        return Err(Error::setting("rounding of weights", "gptq", expected));
    }
    let size = weight.dims2()?;
    kernels::with_values(weight, |values| quantize_values(size, values, scheme, curvature).map(Some))?
}

fn quantize_values(size: (usize, usize), floats: &[f32], scheme: WeightScheme, curvature: Option<&Curvature>) -> Result<QuantizedWeight> {
    let (outputs, columns) = size;
    let blocks = tiles::blocks(columns, columns, scheme.scales.block(columns));
    let importance = curvature.map_or_else(|| vec![1.0; columns], |c| c.mean_squares.clone());
    let whole = Bounds::of(floats);
    let format = scheme.scales.format();
    let fitted: Vec<(Quantizer, f32)> = floats
        .par_chunks(columns)
        .flat_map_iter(|row| {
            let parts = row.chunk_by_blocks(&blocks).zip(importance.chunk_by_blocks(&blocks));
            let fit = |(row, importance): (&[f32], &[f32])| match format {
                Format::Int => least_error(row, importance, scheme),
                format => format.quantizer(Bounds::of(row), whole, scheme.bits).map(|quantizer| (quantizer, 1.0)),
            };
            parts.filter_map(fit).collect::<Vec<_>>()
        })
        .collect();
    let shrink = fitted.iter().map(|(_, r)| f64::from(*r)).sum::<f64>() / fitted.len().max(1) as f64;
    let quantizers: Vec<Quantizer> = fitted.into_iter().map(|(quantizer, _)| quantizer).collect();
    let scales = Scales { quantizers: &quantizers, blocks: &blocks, count: quantizers.len() / outputs.max(1) };
    let codes = match (scheme.rounding, curvature) {
        (Rounding::Gptq, Some(curvature)) => rounding::gptq(floats, columns, scales, curvature),
        _ => rounding::nearest(floats, columns, scales),
    };
    let quantized = values(&codes, scales, columns);
    let squares = |difference: f64| difference * difference;
    let error: f64 = floats.iter().zip(&quantized).map(|(&w, &q)| squares(f64::from(w) - f64::from(q))).sum();
    let energy: f64 = floats.iter().map(|&w| squares(w.into())).sum();
    Ok(QuantizedWeight {
        weight: Arc::new(Weight::packed_only(&quantized, size)?),
        scheme,
        size,
        codes,
        quantizers,
        blocks,
        shrink,
        mse: error / floats.len().max(1) as f64,
        sqnr: 10.0 * (energy / error).log10(),
        integer: OnceLock::new(),
    })
}

/// Rows cut where the block changes.
trait ChunkByBlocks {
    fn chunk_by_blocks<'s>(&'s self, blocks: &'s [u16]) -> impl Iterator<Item = &'s [f32]>;
}

impl ChunkByBlocks for [f32] {
    fn chunk_by_blocks<'s>(&'s self, blocks: &'s [u16]) -> impl Iterator<Item = &'s [f32]> {
        let mut start = 0;
        blocks.chunk_by(|a, b| a == b).map(move |block| {
            start += block.len();
            &self[start - block.len()..start]
        })
    }
}

/// The quantizer over the share of the range of `row` with the least error, weighted by `importance`, and that share.
fn least_error(row: &[f32], importance: &[f32], scheme: WeightScheme) -> Option<(Quantizer, f32)> {
    let range = Bounds::of(row).with_zero();
    let mut best: Option<(f64, UniformQuantizer, f32)> = None;
    for r in SHRINKS {
        let bounds = Bounds::new(r * range.lower, r * range.upper);
        let quantizer = match scheme.scales {
            WeightScales::Channel => UniformQuantizer::new(bounds, scheme.bits)?,
            _ => UniformQuantizer::in_half(bounds, scheme.bits)?,
        };
        if quantizer.is_degenerate() {
            return Some((Quantizer::Uniform(quantizer), 1.0));
        }
        let (low, high) = quantizer.limits();
        let error = weighted_error(row, importance, quantizer.scale, low, high);
        if best.is_none_or(|(least, ..)| error < least) {
            best = Some((error, quantizer, r));
        }
    }
    best.map(|(_, quantizer, r)| (Quantizer::Uniform(quantizer), r))
}

/// `sum_c h_c (w_c - w^_c)^2`
#[multiversion(targets = "simd")]
fn weighted_error(row: &[f32], importance: &[f32], scale: f32, low: f32, high: f32) -> f64 {
    let mut lanes = [0.0_f32; 16];
    let (parts, rest) = row.as_chunks::<16>();
    let (weights, weights_rest) = importance[..row.len()].as_chunks::<16>();
    let squared = |w: f32, h: f32| {
        // Adding and subtracting 1.5 * 2^23 rounds to the nearest integer, ties to even.
        let code = ((w / scale).max(low).min(high) + 12_582_912.0) - 12_582_912.0;
        let error = w - code * scale;
        h * error * error
    };
    for (part, weights) in parts.iter().zip(weights) {
        for (lane, (&w, &h)) in lanes.iter_mut().zip(part.iter().zip(weights)) {
            *lane += squared(w, h);
        }
    }
    let rest: f32 = rest.iter().zip(weights_rest).map(|(&w, &h)| squared(w, h)).sum();
    f64::from(lanes.iter().sum::<f32>() + rest)
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;
    use crate::quant::curvature::Gram;

    fn scheme(bits: u8, rounding: Rounding, scales: WeightScales) -> WeightScheme {
        WeightScheme { bits: BitWidth::new(bits).unwrap(), rounding, scales }
    }

    fn inputs(tokens: usize, channels: usize) -> Vec<f32> {
        let mut random = fastrand::Rng::with_seed(11);
        let shared: Vec<f32> = (0..tokens).map(|_| random.f32() - 0.5).collect();
        let one = |i: usize, random: &mut fastrand::Rng| (random.f32() - 0.3 + shared[i / channels]) * (1.0 + (i % channels % 5) as f32);
        (0..tokens * channels).map(|i| one(i, &mut random)).collect()
    }

    fn weight(outputs: usize, columns: usize) -> Tensor {
        let mut random = fastrand::Rng::with_seed(12);
        let values: Vec<f32> = (0..outputs * columns).map(|_| (random.f32() - 0.5).powi(3)).collect();
        Tensor::from_vec(values, (outputs, columns), &Device::Cpu).unwrap()
    }

    #[test]
    fn error_falls_as_bits_grow_and_float_is_left_alone() {
        let weight = weight(6, 100);
        for scales in [WeightScales::Channel, WeightScales::Block(32)] {
            let mse = |b| quantize(&weight, scheme(b, Rounding::Nearest, scales), None).unwrap().unwrap().mse;
            for bits in 2..8 {
                assert!(mse(bits + 1) < mse(bits), "{} bits", bits + 1);
            }
        }
        let float = WeightScheme { bits: BitWidth::FLOAT, rounding: Rounding::Nearest, scales: WeightScales::Channel };
        assert!(quantize(&weight, float, None).unwrap().is_none());
    }

    #[test]
    fn bounds_inside_the_range_are_taken_where_the_weighted_error_is_less() {
        let mut values: Vec<f32> = (0..1000).map(|i| ((i * 61 % 997) as f32 / 997.0 - 0.5) * 0.1).collect();
        values[7] = 0.4; // an outlier that is worth clipping
        let weight = Tensor::from_vec(values.clone(), (1, 1000), &Device::Cpu).unwrap();
        let chosen = quantize(&weight, scheme(4, Rounding::Nearest, WeightScales::Channel), None).unwrap().unwrap();
        let whole = UniformQuantizer::new(Bounds::of(&values), BitWidth::new(4).unwrap()).unwrap();
        assert!(chosen.shrink < 1.0 && chosen.mse * 1000.0 < values.iter().map(|&w| f64::from(w - whole.apply(w)).powi(2)).sum::<f64>());
        // An input that matters a thousand times more is not clipped.
        let importance = (0..1000).map(|c| if c == 7 { 1000.0 } else { 1.0 }).collect();
        let curvature = Curvature { mean_squares: importance, ..Curvature::default() };
        let weighted = quantize(&weight, scheme(4, Rounding::Nearest, WeightScales::Channel), Some(&curvature)).unwrap().unwrap();
        assert!(weighted.shrink > chosen.shrink, "{} {}", weighted.shrink, chosen.shrink);
    }

    #[test]
    fn gptq_is_an_independent_gptq_and_changes_the_output_less_than_rounding_to_nearest() {
        let (tokens, channels, outputs) = (300, 40, 24);
        let x = inputs(tokens, channels);
        let weight = weight(outputs, channels);
        let mut gram = Gram::default();
        gram.add(&x, channels).unwrap();
        let curvature = gram.finish().unwrap();
        let float = weight.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        let error = |quantized: &[f32]| -> f64 {
            let difference = |t: usize, o: usize| -> f64 {
                (0..channels)
                    .map(|c| f64::from(x[t * channels + c]) * f64::from(float[o * channels + c] - quantized[o * channels + c]))
                    .sum()
            };
            (0..tokens).map(|t| (0..outputs).map(|o| difference(t, o).powi(2)).sum::<f64>()).sum()
        };
        for scales in [WeightScales::Channel, WeightScales::Block(16), WeightScales::NvFp4] {
            let of = |rounding| quantize(&weight, scheme(4, rounding, scales), Some(&curvature)).unwrap().unwrap();
            let (nearest, gptq) = (of(Rounding::Nearest), of(Rounding::Gptq));
            assert_eq!(nearest.quantizers, gptq.quantizers);
            assert!(
                error(&gptq.values()) < 0.8 * error(&nearest.values()),
                "{scales}: {} {}",
                error(&gptq.values()),
                error(&nearest.values())
            );
            // The paper's algorithm as it is written, in float64, with an inverse by elimination.
            let mean = curvature.mean_squares.iter().map(|&h| f64::from(h)).sum::<f64>() / channels as f64;
            let mut order: Vec<usize> = (0..channels).collect();
            order.sort_by(|&a, &b| curvature.mean_squares[b].total_cmp(&curvature.mean_squares[a]));
            let h = |i: usize, j: usize| {
                (0..tokens).map(|t| f64::from(x[t * channels + order[i]]) * f64::from(x[t * channels + order[j]])).sum::<f64>()
                    / tokens as f64
                    + if i == j { 0.01 * mean } else { 0.0 }
            };
            let mut inverse: Vec<Vec<f64>> = invert((0..channels).map(|i| (0..channels).map(|j| h(i, j)).collect()).collect());
            let mut w: Vec<Vec<f64>> = (0..outputs).map(|o| order.iter().map(|&c| f64::from(float[o * channels + c])).collect()).collect();
            let mut differ = 0;
            for j in 0..channels {
                for (o, row) in w.iter_mut().enumerate() {
                    let at = o * channels + order[j];
                    let quantizer = &gptq.quantizers[o * gptq.quantizers.len() / outputs + usize::from(gptq.blocks[order[j]])];
                    let code = quantizer.code(row[j] as f32).0;
                    differ += usize::from(code != u32::from(gptq.codes[at])); // a tie, in float32
                    let q = f64::from(quantizer.value(gptq.codes[at].into()));
                    let error = (row[j] - q) / inverse[j][j];
                    (j..channels).for_each(|k| row[k] -= error * inverse[j][k]);
                }
                // Channel j is fixed: it leaves the inverse.
                let pivot = inverse[j].clone();
                for row in &mut inverse[j + 1..] {
                    let factor = row[j] / pivot[j];
                    row.iter_mut().zip(&pivot).for_each(|(x, p)| *x -= factor * p);
                }
            }
            assert!(differ <= 2, "{scales}: {differ} of {} codes differ", channels * outputs);
        }
    }

    /// By elimination.
    fn invert(mut a: Vec<Vec<f64>>) -> Vec<Vec<f64>> {
        let n = a.len();
        for (i, row) in a.iter_mut().enumerate() {
            row.extend((0..n).map(|j| f64::from(u8::from(i == j))));
        }
        for i in 0..n {
            let pivot = a[i][i];
            a[i].iter_mut().for_each(|x| *x /= pivot);
            let row = a[i].clone();
            for (k, other) in a.iter_mut().enumerate().filter(|(k, _)| *k != i) {
                let _ = k;
                let factor = other[i];
                other.iter_mut().zip(&row).for_each(|(x, r)| *x -= factor * r);
            }
        }
        a.into_iter().map(|row| row[n..].to_vec()).collect()
    }
}
