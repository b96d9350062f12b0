//! The uniform quantizer of the paper's section 3.1. One quantizer, one range; which values share it is decided elsewhere.

use multiversion::multiversion;

use super::bits::BitWidth;

/// Ranges narrower than this quantize to themselves \[D\].
pub const DEGENERATE: f32 = 1e-8;
/// Adding and subtracting 1.5 * 2^23 rounds a float of magnitude below 2^22 to the nearest integer, ties to even, without a call.
const ROUND: f32 = 12_582_912.0;

/// Lower and upper end of a range of values.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bounds {
    /// `l`
    pub lower: f32,
    /// `u`
    pub upper: f32,
}

impl Bounds {
    /// The range that holds nothing yet.
    pub const EMPTY: Self = Self { lower: f32::INFINITY, upper: f32::NEG_INFINITY };

    /// Both ends.
    #[must_use]
    pub const fn new(lower: f32, upper: f32) -> Self {
        Self { lower, upper }
    }

    /// Smallest and largest of `values`; what is not a number is passed over.
    #[must_use]
    pub fn of(values: &[f32]) -> Self {
        let (lower, upper) = extremes(values);
        Self::new(lower, upper)
    }

    /// The range that covers both.
    #[must_use]
    pub fn union(self, other: Self) -> Self {
        Self::new(self.lower.min(other.lower), self.upper.max(other.upper))
    }

    /// The range widened to hold zero, as every quantizer's must \[D\].
    #[must_use]
    pub fn with_zero(self) -> Self {
        Self::new(self.lower.min(0.0), self.upper.max(0.0))
    }

    /// `u - l`
    #[must_use]
    pub fn width(self) -> f32 {
        self.upper - self.lower
    }

    /// The paper's distance between a channel's range and a quantizer: `(max - u)^2 + (min - l)^2` (section 3.2).
    ///
    /// In float64: a channel far from zero has one large term, beside which float32 would lose the other.
    #[must_use]
    pub fn distance(self, other: Self) -> f64 {
        let du = f64::from(self.upper) - f64::from(other.upper);
        let dl = f64::from(self.lower) - f64::from(other.lower);
        du * du + dl * dl
    }
}

/// Smallest and largest of `values`, side by side so that the compiler may use vectors.
#[multiversion(targets = "simd")]
fn extremes(values: &[f32]) -> (f32, f32) {
    let (parts, rest) = values.as_chunks::<16>();
    let (mut lower, mut upper) = ([f32::INFINITY; 16], [f32::NEG_INFINITY; 16]);
    for part in parts {
        widen(&mut lower, &mut upper, part);
    }
    widen(&mut lower, &mut upper, rest);
    (lower.into_iter().fold(f32::INFINITY, f32::min), upper.into_iter().fold(f32::NEG_INFINITY, f32::max))
}

#[inline(always)]
#[allow(clippy::inline_always)] // To be compiled for the vectors of whoever calls it.
fn widen(lower: &mut [f32], upper: &mut [f32], values: &[f32]) {
    for ((low, high), &v) in lower.iter_mut().zip(upper).zip(values) {
        *low = if v < *low { v } else { *low };
        *high = if v > *high { v } else { *high };
    }
}

/// Widens the range of every channel to hold `values`, rows of channels; what is not a number is passed over.
#[multiversion(targets = "simd")]
pub(super) fn widen_channels(lower: &mut [f32], upper: &mut [f32], values: &[f32]) {
    for row in values.chunks_exact(lower.len().max(1)) {
        widen(lower, upper, row);
    }
}

/// `x^ = s (q - z)` with `q = clip(round(x/s) + z, 0, n)`, `s = (u - l)/n`, `z = clip(round(-l/s), 0, n)`, `n = 2^b - 1`.
///
/// Rounding is to nearest, ties to even. Computed in float32.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct UniformQuantizer {
    /// The bounds, zero included.
    pub bounds: Bounds,
    /// `s`, the step; 0 for a degenerate range, which quantizes to itself.
    pub scale: f32,
    /// `z`
    pub zero_point: f32,
    /// `n`
    pub max_code: f32,
}

impl UniformQuantizer {
    /// The quantizer of `bits` over `bounds`, which are widened to hold zero. `None` for float.
    #[must_use]
    pub fn new(bounds: Bounds, bits: BitWidth) -> Option<Self> {
        let max_code = bits.max_code()? as f32;
        let bounds = bounds.with_zero();
        if bounds.width() < DEGENERATE {
            return Some(Self { bounds, scale: 0.0, zero_point: 0.0, max_code });
        }
        let scale = bounds.width() / max_code;
        // Subtracted from zero, so that a range from zero on has the zero point 0 and not -0.
        let zero_point = ((0.0 - bounds.lower) / scale).round_ties_even().clamp(0.0, max_code);
        Some(Self { bounds, scale, zero_point, max_code })
    }

    /// The same with a scale in half precision, no smaller than that of [`Self::new`], so that nothing is clipped: what a block of integers
    /// keeps of its own is then 16 bits and a zero point. `None` for float.
    #[must_use]
    pub fn in_half(bounds: Bounds, bits: BitWidth) -> Option<Self> {
        let mut this = Self::new(bounds, bits)?;
        let half = half::f16::from_f32(this.scale);
        let half = if half.to_f32() < this.scale { half::f16::from_bits(half.to_bits() + 1) } else { half };
        if !this.is_degenerate() && half.is_finite() {
            this.scale = half.to_f32();
            this.zero_point = ((0.0 - this.bounds.lower) / this.scale).round_ties_even().clamp(0.0, this.max_code);
        }
        Some(this)
    }

    /// Integers from -128 to 127 times `scale`; 0 for nothing to quantize.
    #[must_use]
    pub const fn signed_byte(scale: f32) -> Self {
        Self { bounds: Bounds::new(-128.0 * scale, 127.0 * scale), scale, zero_point: 128.0, max_code: 255.0 }
    }

    /// Whether the range is too narrow to quantize.
    #[must_use]
    pub fn is_degenerate(&self) -> bool {
        self.scale == 0.0
    }

    /// Smallest and largest code before the zero point is added: `-z` and `n - z`.
    pub(super) const fn limits(&self) -> (f32, f32) {
        (-self.zero_point, self.max_code - self.zero_point)
    }

    /// `x^`
    #[must_use]
    pub fn apply(&self, x: f32) -> f32 {
        if self.is_degenerate() {
            return x;
        }
        let (low, high) = self.limits();
        snap(x, self.scale, low, high)
    }

    /// The code `q` of `x`, and whether it had to be clipped. A degenerate range has only code 0 and clips nothing.
    #[must_use]
    pub fn code(&self, x: f32) -> (u32, bool) {
        if self.is_degenerate() {
            return (0, false);
        }
        let (low, high) = self.limits();
        let unclipped = (x / self.scale).round_ties_even();
        let clipped = unclipped < low || unclipped > high;
        ((unclipped.clamp(low, high) + self.zero_point) as u32, clipped)
    }

    /// The codes of `values`; only where the range has a step.
    pub(super) fn bytes(&self, values: &[f32], codes: &mut [u8]) {
        let (low, high) = self.limits();
        bytes(values, codes, self.scale, low, high);
    }

    /// Quantizes all of `values` into `out`.
    pub fn apply_all(&self, values: &[f32], out: &mut [f32]) {
        if self.is_degenerate() {
            return out.copy_from_slice(values);
        }
        let (low, high) = self.limits();
        snap_all(values, out, self.scale, low, high);
    }
}

#[multiversion(targets = "simd")]
fn snap_all(values: &[f32], out: &mut [f32], scale: f32, low: f32, high: f32) {
    for (y, &x) in out.iter_mut().zip(values) {
        *y = snap(x, scale, low, high);
    }
}

#[multiversion(targets = "simd")]
fn bytes(values: &[f32], codes: &mut [u8], scale: f32, low: f32, high: f32) {
    for (code, &x) in codes.iter_mut().zip(values) {
        *code = byte(x, scale, low, high);
    }
}

/// Clipping before rounding gives the same code as after it, because the limits are whole numbers.
#[inline(always)]
#[allow(clippy::inline_always)]
fn snap(x: f32, scale: f32, low: f32, high: f32) -> f32 {
    let clipped = (x / scale).max(low).min(high);
    ((clipped + ROUND) - ROUND) * scale
}

/// The code of `x`: what [`snap`] multiplies with the scale, less the smallest. Between the two roundings the low bits are the integer.
#[inline(always)]
#[allow(clippy::inline_always)]
fn byte(x: f32, scale: f32, low: f32, high: f32) -> u8 {
    let clipped = (x / scale).max(low).min(high);
    let rounded = (clipped + ROUND) - ROUND;
    (rounded - low + ROUND).to_bits() as u8
}

/// Quantizes rows of `C` values, channel `c` with its own quantizer.
#[derive(Debug)]
pub struct ChannelQuantizer {
    scale: Vec<f32>,
    low: Vec<f32>,
    high: Vec<f32>,
    degenerate: Vec<usize>,
}

impl ChannelQuantizer {
    /// One quantizer for each channel, in order.
    pub fn new<'q>(quantizers: impl Iterator<Item = &'q UniformQuantizer>) -> Self {
        let mut this = Self { scale: Vec::new(), low: Vec::new(), high: Vec::new(), degenerate: Vec::new() };
        for (channel, quantizer) in quantizers.enumerate() {
            let (low, high) = quantizer.limits();
            if quantizer.is_degenerate() {
                this.degenerate.push(channel);
            }
            this.scale.push(if quantizer.is_degenerate() { 1.0 } else { quantizer.scale });
            this.low.push(low);
            this.high.push(high);
        }
        this
    }

    /// The codes of tokens, rows of `C` values; only where every range has a step.
    pub(super) fn encode(&self, tokens: &[f32], codes: &mut [u8]) {
        bytes_of_channels(tokens, codes, &self.scale, &self.low, &self.high);
    }

    /// Quantizes tokens, rows of `C` values, into `out`.
    pub fn apply(&self, tokens: &[f32], out: &mut [f32]) {
        snap_channels(tokens, out, &self.scale, &self.low, &self.high);
        if !self.degenerate.is_empty() {
            let channels = self.scale.len();
            for (token, out) in tokens.chunks_exact(channels).zip(out.chunks_exact_mut(channels)) {
                for &channel in &self.degenerate {
                    out[channel] = token[channel];
                }
            }
        }
    }
}

#[multiversion(targets = "simd")]
fn snap_channels(tokens: &[f32], out: &mut [f32], scale: &[f32], low: &[f32], high: &[f32]) {
    for (token, out) in tokens.chunks_exact(scale.len()).zip(out.chunks_exact_mut(scale.len())) {
        for (((y, &x), &scale), (&low, &high)) in out.iter_mut().zip(token).zip(scale).zip(low.iter().zip(high)) {
            *y = snap(x, scale, low, high);
        }
    }
}

#[multiversion(targets = "simd")]
fn bytes_of_channels(tokens: &[f32], codes: &mut [u8], scale: &[f32], low: &[f32], high: &[f32]) {
    for (token, codes) in tokens.chunks_exact(scale.len()).zip(codes.chunks_exact_mut(scale.len())) {
        for (((code, &x), &scale), (&low, &high)) in codes.iter_mut().zip(token).zip(scale).zip(low.iter().zip(high)) {
            *code = byte(x, scale, low, high);
        }
    }
}

/// The `percent`-th percentile of sorted values, linear between neighbours (numpy's default); 0 of none.
pub(super) fn percentile(sorted: &[f32], percent: f64) -> f32 {
    if sorted.is_empty() {
        return 0.0;
    }
    let position = percent / 100.0 * (sorted.len() - 1) as f64;
    let (below, share) = (position.floor() as usize, position.fract());
    let low = f64::from(sorted[below]);
    let high = f64::from(sorted[(below + 1).min(sorted.len() - 1)]);
    (low + (high - low) * share) as f32
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn widths() -> impl Iterator<Item = BitWidth> {
        (2..=8).map(|b| BitWidth::new(b).unwrap())
    }

    proptest! {
        #[test]
        fn error_inside_the_bounds_is_at_most_half_a_step(l in -50.0_f32..0.0, u in 0.001_f32..50.0, t in 0.0_f32..=1.0) {
            for bits in widths() {
                let q = UniformQuantizer::new(Bounds::new(l, u), bits).unwrap();
                let x = l + t * (u - l);
                prop_assert!((x - q.apply(x)).abs() <= q.scale * 0.5001, "{bits} bits, {x} gave {}", q.apply(x));
            }
        }

        #[test]
        fn quantizing_twice_changes_nothing_more(l in -50.0_f32..50.0, w in 0.001_f32..50.0, x in -100.0_f32..100.0) {
            for bits in widths() {
                let q = UniformQuantizer::new(Bounds::new(l, l + w), bits).unwrap();
                prop_assert_eq!(q.apply(x), q.apply(q.apply(x)));
            }
        }

        #[test]
        fn zero_is_exact_and_codes_stay_in_range(l in -50.0_f32..50.0, w in 0.0_f32..50.0, x in -1e6_f32..1e6) {
            for bits in widths() {
                let q = UniformQuantizer::new(Bounds::new(l, l + w), bits).unwrap();
                prop_assert_eq!(q.apply(0.0), 0.0);
                let (code, _) = q.code(x);
                prop_assert!(code <= bits.max_code().unwrap());
                if !q.is_degenerate() {
                    prop_assert_eq!(q.apply(x), (code as f32 - q.zero_point) * q.scale);
                }
            }
        }
    }

    #[test]
    fn a_hand_computed_case() {
        // l = -1, u = 2, b = 2: n = 3, s = 1, z = 1; codes 0..3 stand for -1, 0, 1, 2.
        let q = UniformQuantizer::new(Bounds::new(-1.0, 2.0), BitWidth::new(2).unwrap()).unwrap();
        assert_eq!((q.scale, q.zero_point), (1.0, 1.0));
        assert_eq!([-5.0, -0.6, 0.4, 1.4, 9.0].map(|x| q.apply(x)), [-1.0, -1.0, 0.0, 1.0, 2.0]);
        assert_eq!(q.code(9.0), (3, true));
        assert_eq!(q.code(2.0), (3, false));
    }

    #[test]
    fn ties_go_to_the_even_code() {
        let q = UniformQuantizer::new(Bounds::new(0.0, 15.0), BitWidth::new(4).unwrap()).unwrap();
        assert_eq!([0.5, 1.5, 2.5].map(|x| q.apply(x)), [0.0, 2.0, 2.0]);
    }

    #[test]
    fn degenerate_ranges_quantize_to_themselves() {
        for bits in widths() {
            let q = UniformQuantizer::new(Bounds::new(0.0, 0.0), bits).unwrap();
            assert_eq!(q.apply(0.0), 0.0);
            assert_eq!(q.apply(3e-9), 3e-9);
            let mut token = [0.0; 3];
            let wide = UniformQuantizer::new(Bounds::new(-1.0, 1.0), bits).unwrap();
            ChannelQuantizer::new([&wide, &q, &wide].into_iter()).apply(&[1.0, 3e-9, -1.0], &mut token);
            assert_eq!(token, [wide.apply(1.0), 3e-9, wide.apply(-1.0)]);
        }
    }
}
