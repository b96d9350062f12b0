//! Small floats, as block formats hold them: E2M1 and E4M3 (OCP Microscaling Formats 1.0, OCP 8-bit Floating Point 1.0).

use super::uniform::Bounds;

/// A small float: a sign, an exponent and a mantissa, rounded to nearest, ties to even, clipped at the largest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Element {
    /// Bits of the mantissa.
    mantissa: i32,
    /// Exponent of the smallest normal number.
    least: i32,
    /// Exponent of the largest number.
    pub(super) most: i32,
    /// Largest number, in quarters: 24 is 6.
    quarters: u16,
    /// Number of codes.
    codes: u16,
}

impl Element {
    /// E2M1: 0, 0.5, 1, 1.5, 2, 3, 4, 6.
    pub const E2M1: Self = Self { mantissa: 1, least: 0, most: 2, quarters: 24, codes: 16 };
    /// E4M3: up to 448.
    pub const E4M3: Self = Self { mantissa: 3, least: -6, most: 8, quarters: 1792, codes: 256 };

    /// The largest number.
    #[must_use]
    pub fn largest(self) -> f32 {
        f32::from(self.quarters) / 4.0
    }

    /// Exponent of the binade of `x`, subnormal numbers counted to the smallest.
    fn exponent(self, x: f32) -> i32 {
        // The exponent of a float32 is what its bits say; of 0 and of its own subnormal numbers it lies below every element's.
        let exponent = (x.to_bits() >> 23 & 0xff) as i32 - 127;
        exponent.clamp(self.least, self.most)
    }

    /// Distance between the numbers around `x`.
    fn step(self, x: f32) -> f32 {
        power(self.exponent(x) - self.mantissa)
    }

    /// The nearest number.
    #[must_use]
    pub fn round(self, x: f32) -> f32 {
        let step = self.step(x);
        ((x / step).round_ties_even() * step).clamp(-self.largest(), self.largest())
    }

    /// The code of a number that [`Self::round`] gave: its place among the positive ones, behind half of the codes where it is negative.
    fn code(self, number: f32) -> u32 {
        let exponent = self.exponent(number);
        let within = (number.abs() / power(exponent - self.mantissa)) as i32;
        let place = within + (exponent - self.least) * (1 << self.mantissa);
        place as u32 + if number < 0.0 { u32::from(self.codes) / 2 } else { 0 }
    }
}

impl Element {
    /// The number of a code.
    #[must_use]
    pub fn number(self, code: u32) -> f32 {
        let half = u32::from(self.codes) / 2;
        let (sign, place) = if code >= half { (-1.0, code - half) } else { (1.0, code) };
        let size = 1 << self.mantissa;
        let binade = (place as i32 / size - 1).max(0);
        let within = place as i32 - binade * size;
        sign * within as f32 * power(binade + self.least - self.mantissa)
    }
}

/// `2^exponent`, for what float32 holds.
pub(super) fn power(exponent: i32) -> f32 {
    f32::from_bits(((exponent.clamp(-126, 127) + 127) as u32) << 23)
}

/// A small float times a scale.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ElementQuantizer {
    /// What the numbers are multiplied with; 0 where there is nothing to quantize.
    pub scale: f32,
    /// The numbers.
    pub element: Element,
}

impl ElementQuantizer {
    /// `x^`
    #[must_use]
    pub fn apply(&self, x: f32) -> f32 {
        if self.scale == 0.0 { 0.0 } else { self.element.round(x / self.scale) * self.scale }
    }

    /// The code of `x`, and whether it had to be clipped.
    #[must_use]
    pub fn code(&self, x: f32) -> (u32, bool) {
        if self.scale == 0.0 {
            return (0, x != 0.0);
        }
        let rounded = self.element.round(x / self.scale);
        let clipped = (x / self.scale).abs() >= self.element.largest() + self.element.step(self.element.largest()) / 2.0;
        (self.element.code(rounded), clipped)
    }

    /// Distance between the levels around `x`.
    #[must_use]
    pub fn step_at(&self, x: f32) -> Option<f32> {
        (self.scale != 0.0).then(|| self.element.step(self.element.round(x / self.scale)) * self.scale)
    }

    /// Smallest and largest value that it stands for.
    #[must_use]
    pub fn bounds(&self) -> Bounds {
        let most = self.element.largest() * self.scale;
        Bounds::new(-most, most)
    }

    /// Number of codes.
    #[must_use]
    pub const fn codes(&self) -> usize {
        self.element.codes as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn e2m1_has_the_published_numbers_and_ties_go_to_the_even_mantissa() {
        let e = Element::E2M1;
        let given = [0.0, 0.24, 0.25, 0.26, 0.75, 0.76, 1.2, 1.25, 1.75, 2.5, 3.5, 4.9, 5.0, 5.1, 7.0, -2.6, -0.3];
        let expected = [0.0, 0.0, 0.0, 0.5, 1.0, 1.0, 1.0, 1.0, 2.0, 2.0, 4.0, 4.0, 4.0, 6.0, 6.0, -3.0, -0.5];
        assert_eq!(given.map(|x| e.round(x)), expected);
        let numbers = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0];
        assert_eq!(numbers.map(|x| e.code(x)), [0, 1, 2, 3, 4, 5, 6, 7]);
        assert_eq!(numbers.map(|x| e.code(-x))[1..], [9, 10, 11, 12, 13, 14, 15]);
    }

    #[test]
    fn e4m3_has_the_published_numbers() {
        let e = Element::E4M3;
        let tiny = 2.0_f32.powi(-9); // the smallest subnormal number
        assert_eq!(
            [tiny, 0.4 * tiny, 0.6 * tiny, 448.0, 1000.0, 17.0, 19.0].map(|x| e.round(x)),
            [tiny, 0.0, tiny, 448.0, 448.0, 16.0, 20.0]
        );
        // All 127 positive codes in order, each its own.
        let mut numbers = vec![0.0_f32];
        for exponent in -6..=8 {
            numbers.extend((0..8).filter(|m| (exponent, *m) != (8, 7)).map(|m| (1.0 + m as f32 / 8.0) * 2.0_f32.powi(exponent)));
        }
        numbers.splice(1..1, (1..8).map(|m| m as f32 * tiny));
        assert_eq!(numbers.len(), 127);
        for (place, &x) in numbers.iter().enumerate() {
            assert_eq!((e.round(x), e.code(x)), (x, place as u32));
            assert_eq!((e.number(place as u32), e.number(e.code(-x))), (x, -x));
        }
    }
}
