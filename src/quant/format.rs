//! Number formats whose scale comes from the values at hand: integers with a float scale, and the block formats that current hardware
//! multiplies, from their published definitions (OCP Microscaling Formats 1.0; NVIDIA's NVFP4; OCP FP8 for E4M3).

use super::bits::BitWidth;
use super::element::{Element, ElementQuantizer, power};
use super::quantizer::Quantizer;
use super::uniform::{Bounds, UniformQuantizer};

/// `floor(log2 x)`
fn binade(x: f32) -> i32 {
    x.log2().floor() as i32
}

/// How the values of one block become codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Format {
    /// Integers of as many bits as the settings say, with a scale in half precision and a zero point: the uniform quantizer of the
    /// block's own range.
    Int,
    /// E2M1 with a power of two (E8M0): `2^(floor(log2 amax) - 2)`.
    MxFp4,
    /// Integers of 8 bits in steps of 1/64 with a power of two: `2^floor(log2 amax)`.
    MxInt8,
    /// E2M1 with a scale in E4M3, `amax / 6`, over one float scale for the tensor, `amax / (6 448)`.
    NvFp4,
    /// E4M3 with a float scale, `amax / 448`.
    Fp8,
}

impl Format {
    /// Bits of one code where the format alone decides them.
    #[must_use]
    pub fn bits(self) -> Option<BitWidth> {
        match self {
            Self::Int => None,
            Self::MxFp4 | Self::NvFp4 => BitWidth::new(4).ok(),
            Self::MxInt8 | Self::Fp8 => BitWidth::new(8).ok(),
        }
    }

    /// Bits of what a block has of its own besides its codes of `bits`.
    #[must_use]
    pub const fn scale_bits(self, bits: BitWidth) -> u32 {
        match self {
            Self::Int => 16 + bits.get() as u32,
            Self::MxFp4 | Self::MxInt8 | Self::NvFp4 => 8,
            Self::Fp8 => 32,
        }
    }

    /// The quantizer of a block whose values lie in `range`, in a tensor whose values lie in `whole`. `None` for float bits.
    #[must_use]
    pub fn quantizer(self, range: Bounds, whole: Bounds, bits: BitWidth) -> Option<Quantizer> {
        let most = |b: Bounds| if b.lower.is_finite() && b.upper.is_finite() { b.upper.max(-b.lower) } else { 0.0 };
        let (largest, of_all) = (most(range), most(whole));
        let element = |element, scale: f32| Some(Quantizer::Element(ElementQuantizer { scale, element }));
        match self {
            Self::Int => UniformQuantizer::in_half(range, bits).map(Quantizer::Uniform),
            Self::MxFp4 if largest == 0.0 => element(Element::E2M1, 0.0),
            Self::MxFp4 => element(Element::E2M1, power(binade(largest) - Element::E2M1.most)),
            Self::MxInt8 => {
                Some(Quantizer::Uniform(UniformQuantizer::signed_byte(if largest == 0.0 { 0.0 } else { power(binade(largest) - 6) })))
            }
            Self::NvFp4 => {
                let tensor = of_all / (Element::E2M1.largest() * Element::E4M3.largest());
                let scale = if tensor == 0.0 { 0.0 } else { Element::E4M3.round(largest / Element::E2M1.largest() / tensor) };
                element(Element::E2M1, scale * tensor)
            }
            Self::Fp8 => element(Element::E4M3, largest / Element::E4M3.largest()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scales_are_those_of_the_definitions() {
        let four = BitWidth::new(4).unwrap();
        let (range, whole) = (Bounds::new(-1.0, 5.0), Bounds::new(-10.0, 20.0));
        let scale = |f: Format| f.quantizer(range, whole, four).unwrap().scale();
        assert_eq!(scale(Format::MxFp4), 1.0); // 2^(2 - 2)
        assert_eq!(scale(Format::MxInt8), 4.0 / 64.0);
        assert_eq!(scale(Format::Fp8), 5.0 / 448.0);
        let tensor = 20.0 / (6.0 * 448.0);
        assert_eq!(scale(Format::NvFp4), Element::E4M3.round(5.0 / 6.0 / tensor) * tensor);
        let q = Format::MxInt8.quantizer(Bounds::new(-2.0, 1.0), whole, four).unwrap();
        assert_eq!([1.0, -2.0, 0.03].map(|x| q.apply(x)), [1.0, -2.0, 0.03125]);
        let q = Format::Int.quantizer(range, whole, four).unwrap();
        assert!(q.bounds().upper - q.bounds().lower >= 6.0, "a rounded scale clips nothing: {q:?}");
    }

    #[test]
    fn a_block_of_zeros_stays_zero_in_every_format() {
        let four = BitWidth::new(4).unwrap();
        for format in [Format::Int, Format::MxFp4, Format::MxInt8, Format::NvFp4, Format::Fp8] {
            let q = format.quantizer(Bounds::new(0.0, 0.0), Bounds::new(0.0, 0.0), four).unwrap();
            assert_eq!(q.apply(0.0), 0.0, "{format:?}");
            assert!((q.code(0.0).0 as usize) < q.codes());
        }
    }
}
