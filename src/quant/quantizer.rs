//! One quantizer of any shape: the uniform one of the method, and the published ones for the softmax and for what follows GELU.

use super::bits::BitWidth;
use super::element::ElementQuantizer;
use super::uniform::{Bounds, UniformQuantizer};

/// A map from values to codes and back.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Quantizer {
    /// Evenly spaced levels (section 3.1).
    Uniform(UniformQuantizer),
    /// Levels at powers of 2 or of its root.
    Log(LogQuantizer),
    /// Two rows of evenly spaced levels.
    Twin(TwinQuantizer),
    /// Small floats times a scale.
    Element(ElementQuantizer),
}

impl Quantizer {
    /// `x^`
    #[must_use]
    pub fn apply(&self, x: f32) -> f32 {
        match self {
            Self::Uniform(q) => q.apply(x),
            Self::Log(q) => q.apply(x),
            Self::Twin(q) => q.apply(x),
            Self::Element(q) => q.apply(x),
        }
    }

    /// The code of `x`, and whether it had to be clipped.
    #[must_use]
    pub fn code(&self, x: f32) -> (u32, bool) {
        match self {
            Self::Uniform(q) => q.code(x),
            Self::Log(q) => q.code(x),
            Self::Twin(q) => q.code(x),
            Self::Element(q) => q.code(x),
        }
    }

    /// What a code stands for, where codes are integers or small floats; 0 for the others, whose codes do not tell all.
    #[must_use]
    pub fn value(&self, code: u32) -> f32 {
        match self {
            Self::Uniform(q) => (code as f32 - q.zero_point) * q.scale,
            Self::Element(q) => q.element.number(code) * q.scale,
            Self::Log(_) | Self::Twin(_) => 0.0,
        }
    }

    /// Quantizes all of `values` into `out`.
    pub fn apply_all(&self, values: &[f32], out: &mut [f32]) {
        match self {
            Self::Uniform(q) => q.apply_all(values, out),
            _ => values.iter().zip(out).for_each(|(&x, y)| *y = self.apply(x)),
        }
    }

    /// Smallest and largest value that it can stand for.
    #[must_use]
    pub fn bounds(&self) -> Bounds {
        match self {
            Self::Uniform(q) => q.bounds,
            Self::Log(q) => Bounds::new(0.0, q.scale),
            Self::Twin(q) => Bounds::new(if q.by_sign { -q.max_code * q.low_scale } else { 0.0 }, q.max_code * q.high_scale),
            Self::Element(q) => q.bounds(),
        }
    }

    /// `s`: the step; for log quantizers the largest level, for twins the wider of the two steps.
    #[must_use]
    pub const fn scale(&self) -> f32 {
        match self {
            Self::Uniform(q) => q.scale,
            Self::Log(q) => q.scale,
            Self::Twin(q) => q.high_scale,
            Self::Element(q) => q.scale,
        }
    }

    /// `z`; 0 where the shape has none.
    #[must_use]
    pub const fn zero_point(&self) -> f32 {
        match self {
            Self::Uniform(q) => q.zero_point,
            _ => 0.0,
        }
    }

    /// Number of codes, `2^b`.
    #[must_use]
    pub const fn codes(&self) -> usize {
        match self {
            Self::Uniform(q) => q.max_code as usize + 1,
            Self::Log(q) => q.codes as usize,
            Self::Twin(q) => 2 * (q.max_code as usize + 1),
            Self::Element(q) => q.codes(),
        }
    }

    /// Distance between the levels around `x`; none where the range is too narrow to quantize.
    #[must_use]
    pub fn step_at(&self, x: f32) -> Option<f32> {
        match self {
            Self::Uniform(q) => (!q.is_degenerate()).then_some(q.scale),
            Self::Log(q) => Some(q.step_at(x)),
            Self::Twin(q) => Some(q.step_at(x)),
            Self::Element(q) => q.step_at(x),
        }
    }

    /// The uniform quantizer, where it is one.
    #[must_use]
    pub const fn as_uniform(&self) -> Option<&UniformQuantizer> {
        match self {
            Self::Uniform(q) => Some(q),
            _ => None,
        }
    }
}

/// Logarithmic levels `s 2^(-q/k)` for values that are never negative.
///
/// `k = 1`, `s = 1`: log2 quantization of the softmax (FQ-ViT, Lin et al., IJCAI 2022, arXiv 2111.13824, section 3.3: "Log-Int-Softmax").
/// `k = 2`: log-sqrt2 (RepQ-ViT, Li et al., ICCV 2023, arXiv 2212.08254, section 3.3). Both papers clip the exponent to `2^b - 1`; the
/// code released with them sets what lies beyond the last exponent to zero, and so do we, because at 3 bits a row of 50 clipped values
/// would sum to more than the row.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LogQuantizer {
    /// `s`, the largest level.
    pub scale: f32,
    /// `k`, levels an octave.
    pub per_octave: f32,
    /// `2^b`
    pub codes: f32,
}

impl LogQuantizer {
    /// The quantizer of `bits`; `None` for float.
    #[must_use]
    pub fn new(scale: f32, per_octave: u8, bits: BitWidth) -> Option<Self> {
        Some(Self { scale, per_octave: f32::from(per_octave), codes: bits.max_code()? as f32 + 1.0 })
    }

    /// `-k log2(x/s)`, rounded; infinite for zero.
    fn exponent(&self, x: f32) -> f32 {
        if x > 0.0 { (-self.per_octave * (x / self.scale).log2()).round_ties_even() } else { f32::INFINITY }
    }

    fn level(&self, exponent: f32) -> f32 {
        self.scale * (-exponent / self.per_octave).exp2()
    }

    fn apply(&self, x: f32) -> f32 {
        let exponent = self.exponent(x);
        if exponent >= self.codes { 0.0 } else { self.level(exponent.max(0.0)) }
    }

    fn code(&self, x: f32) -> (u32, bool) {
        let exponent = self.exponent(x);
        let clipped = exponent < 0.0 || (exponent >= self.codes && x > 0.0);
        (exponent.clamp(0.0, self.codes - 1.0) as u32, clipped)
    }

    fn step_at(&self, x: f32) -> f32 {
        let exponent = self.exponent(x).clamp(0.0, self.codes - 1.0);
        self.level(exponent) - if exponent + 1.0 < self.codes { self.level(exponent + 1.0) } else { 0.0 }
    }
}

/// Twin uniform quantization (PTQ4ViT, Yuan et al., ECCV 2022, arXiv 2111.12293, section 3.1): one bit says which of two ranges a value is
/// in, the other `b - 1` bits are a uniform code with that range's step; the wider step is the narrower times a power of two, so that one
/// can be shifted onto the other.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TwinQuantizer {
    /// Step of the first range: small softmax values, or the negative values after GELU.
    pub low_scale: f32,
    /// Step of the second: large softmax values, or the positive ones after GELU.
    pub high_scale: f32,
    /// `2^(b-1) - 1`, the largest code of each range.
    pub max_code: f32,
    /// Whether the ranges are split at zero (GELU) and not at the end of the first (softmax).
    pub by_sign: bool,
}

/// Largest `m` of `high_scale = 2^m low_scale` that is tried.
const MAX_SHIFT: i32 = 12;

impl TwinQuantizer {
    /// For the softmax: the second range has step `1/2^(b-1)`; the first's is that over `2^m`, with the `m` of least squared error on
    /// `sample`. `None` for float.
    #[must_use]
    pub fn for_softmax(sample: &[f32], bits: BitWidth) -> Option<Self> {
        let max_code = (bits.max_code()? / 2) as f32;
        let high_scale = 1.0 / (max_code + 1.0);
        let shifted = |m: i32| Self { low_scale: high_scale * 0.5_f32.powi(m), high_scale, max_code, by_sign: false };
        Self::best(sample, shifted)
    }

    /// For values after GELU: the first range just covers the negative values of `sample`; the second's step is the first's times `2^m`,
    /// with the `m` of least squared error on `sample`. `None` for float.
    #[must_use]
    pub fn for_gelu(sample: &[f32], bits: BitWidth) -> Option<Self> {
        let max_code = (bits.max_code()? / 2) as f32;
        let low_scale = (-Bounds::of(sample).lower).max(1e-6) / max_code;
        Self::best(sample, |m| Self { low_scale, high_scale: low_scale * 2.0_f32.powi(m), max_code, by_sign: true })
    }

    fn best(sample: &[f32], shifted: impl Fn(i32) -> Self) -> Option<Self> {
        let error = |q: &Self| sample.iter().map(|&x| f64::from(x - q.apply(x)).powi(2)).sum::<f64>();
        (0..=MAX_SHIFT).map(shifted).min_by(|a, b| error(a).total_cmp(&error(b)))
    }

    fn is_low(&self, x: f32) -> bool {
        if self.by_sign { x < 0.0 } else { x < (self.max_code + 1.0) * self.low_scale }
    }

    fn step_at(&self, x: f32) -> f32 {
        if self.is_low(x) { self.low_scale } else { self.high_scale }
    }

    fn apply(&self, x: f32) -> f32 {
        let step = self.step_at(x);
        let least = if self.by_sign && x < 0.0 { -self.max_code } else { 0.0 };
        (x / step).round_ties_even().clamp(least, self.max_code) * step
    }

    fn code(&self, x: f32) -> (u32, bool) {
        let unclipped = (x / self.step_at(x)).abs().round_ties_even();
        let code = unclipped.min(self.max_code) as u32;
        (if self.is_low(x) { code } else { code + self.max_code as u32 + 1 }, unclipped > self.max_code)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Make = fn(&[f32], BitWidth) -> Quantizer;

    fn bits(b: u8) -> BitWidth {
        BitWidth::new(b).unwrap()
    }

    #[test]
    fn log_levels_are_powers_and_what_is_beyond_them_is_zero() {
        let q = Quantizer::Log(LogQuantizer::new(1.0, 1, bits(2)).unwrap());
        assert_eq!([1.0, 0.6, 0.26, 0.12, 0.06, 0.0].map(|x| q.apply(x)), [1.0, 0.5, 0.25, 0.125, 0.0, 0.0]);
        assert_eq!(q.code(0.06), (3, true));
        let root = Quantizer::Log(LogQuantizer::new(0.5, 2, bits(3)).unwrap());
        assert!((root.apply(0.36) - 0.5 / 2.0_f32.sqrt()).abs() < 1e-7);
        assert_eq!(root.apply(0.9), 0.5);
    }

    #[test]
    fn a_twin_spends_its_levels_where_the_values_are() {
        let sample: Vec<f32> = (0..200).map(|i| 0.0003 * i as f32).chain([0.7, 0.9]).collect();
        let q = TwinQuantizer::for_softmax(&sample, bits(4)).unwrap();
        assert_eq!((q.high_scale, q.max_code), (0.125, 7.0));
        assert!(q.low_scale < q.high_scale && (q.high_scale / q.low_scale).log2().fract() == 0.0);
        assert!((q.apply(0.9) - 0.875).abs() < 1e-7 && (q.apply(0.03) - 0.03).abs() <= q.low_scale / 2.0);
        let after_gelu: Vec<f32> = (0..100).map(|i| -0.17 + 0.04 * i as f32).collect();
        let q = TwinQuantizer::for_gelu(&after_gelu, bits(4)).unwrap();
        assert!((q.low_scale * 7.0 - 0.17).abs() < 1e-6 && q.high_scale > q.low_scale);
        assert!((q.apply(-0.17) + 0.17).abs() < 1e-6);
    }

    #[test]
    fn error_falls_as_bits_grow_zero_is_exact_and_codes_stay_in_range() {
        let softmax: Vec<f32> = (1..400).map(|i| (i as f32 / 400.0).powi(4)).collect();
        let gelu: Vec<f32> = (0..400).map(|i| -0.17 + 0.01 * i as f32).collect();
        let makes: [(Make, &[f32]); 4] = [
            (|_, b| Quantizer::Log(LogQuantizer::new(1.0, 1, b).unwrap()), &softmax),
            (|_, b| Quantizer::Log(LogQuantizer::new(1.0, 2, b).unwrap()), &softmax),
            (|s, b| Quantizer::Twin(TwinQuantizer::for_softmax(s, b).unwrap()), &softmax),
            (|s, b| Quantizer::Twin(TwinQuantizer::for_gelu(s, b).unwrap()), &gelu),
        ];
        for (make, sample) in makes {
            let mut last = f64::INFINITY;
            for b in 2..=8 {
                let q = make(sample, bits(b));
                let error: f64 = sample.iter().map(|&x| f64::from(x - q.apply(x)).powi(2)).sum();
                assert!(error <= last, "{q:?}: {error} after {last}");
                last = error;
                assert_eq!(q.apply(0.0), 0.0);
                assert_eq!(q.codes(), 1 << b);
                for &x in sample {
                    assert!((q.code(x).0 as usize) < q.codes());
                    let once = q.apply(x);
                    assert!((q.apply(once) - once).abs() <= 1e-6 * once.abs(), "{q:?} at {x}");
                }
            }
        }
    }
}
