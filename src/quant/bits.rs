//! Bit-widths and group counts as types, so that a number can only be what it should be.

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::Error;

/// Bits of a quantized operand: 2 to 8, or 32 for "left in float" (method, section 1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "u8", into = "u8")]
pub struct BitWidth(u8);

impl BitWidth {
    /// Left in float, bit-exact.
    pub const FLOAT: Self = Self(32);
    /// 8 bits.
    pub const EIGHT: Self = Self(8);
    /// Every width, narrowest first; the last is float.
    pub const ALL: [Self; 8] = [Self(2), Self(3), Self(4), Self(5), Self(6), Self(7), Self(8), Self(32)];

    /// The width `bits`.
    ///
    /// # Errors
    /// When it is neither 2 to 8 nor 32.
    pub fn new(bits: u8) -> Result<Self, Error> {
        match bits {
            2..=8 | 32 => Ok(Self(bits)),
            _ => Err(Error::setting("bit-width", bits, "2 to 8, or 32 for float")),
        }
    }

    /// The number of bits.
    #[must_use]
    pub const fn get(self) -> u8 {
        self.0
    }

    /// Whether the operand stays in float.
    #[must_use]
    pub const fn is_float(self) -> bool {
        self.0 == 32
    }

    /// `n = 2^b - 1`, the largest code; `None` for float.
    #[must_use]
    pub const fn max_code(self) -> Option<u32> {
        if self.is_float() { None } else { Some((1 << self.0) - 1) }
    }

    /// The next width up or down, staying at the ends.
    #[must_use]
    pub fn step(self, up: bool) -> Self {
        let at = Self::ALL.iter().position(|b| *b == self).unwrap_or(0);
        let next = if up { (at + 1).min(Self::ALL.len() - 1) } else { at.saturating_sub(1) };
        Self::ALL[next]
    }
}

impl TryFrom<u8> for BitWidth {
    type Error = Error;
    fn try_from(bits: u8) -> Result<Self, Error> {
        Self::new(bits)
    }
}

impl From<BitWidth> for u8 {
    fn from(bits: BitWidth) -> Self {
        bits.0
    }
}

impl FromStr for BitWidth {
    type Err = Error;
    fn from_str(s: &str) -> Result<Self, Error> {
        let bits = s.parse().map_err(|_| Error::setting("bit-width", s, "2 to 8, or 32 for float"))?;
        Self::new(bits)
    }
}

impl fmt::Display for BitWidth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Number of groups of a site: 1 to 64. (The paper calls it "group size".)
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "u8", into = "u8")]
pub struct GroupCount(u8);

impl GroupCount {
    /// The largest count.
    pub const MAX: u8 = 64;
    /// The counts that the keys step through.
    pub const STEPS: [u8; 13] = [1, 2, 4, 6, 8, 10, 12, 14, 16, 24, 32, 48, 64];

    /// The count `groups`.
    ///
    /// # Errors
    /// When it is not 1 to 64.
    pub fn new(groups: u8) -> Result<Self, Error> {
        match groups {
            1..=Self::MAX => Ok(Self(groups)),
            _ => Err(Error::setting("group count", groups, "1 to 64")),
        }
    }

    /// The number of groups.
    #[must_use]
    pub const fn get(self) -> usize {
        self.0 as usize
    }

    /// The next of [`Self::STEPS`] up or down, staying at the ends.
    #[must_use]
    pub fn step(self, up: bool) -> Self {
        let mut steps = Self::STEPS.into_iter();
        let next = if up { steps.find(|s| *s > self.0) } else { steps.rfind(|s| *s < self.0) };
        next.map_or(self, Self)
    }
}

impl TryFrom<u8> for GroupCount {
    type Error = Error;
    fn try_from(groups: u8) -> Result<Self, Error> {
        Self::new(groups)
    }
}

impl From<GroupCount> for u8 {
    fn from(groups: GroupCount) -> Self {
        groups.0
    }
}

impl FromStr for GroupCount {
    type Err = Error;
    fn from_str(s: &str) -> Result<Self, Error> {
        let groups = s.parse().map_err(|_| Error::setting("group count", s, "1 to 64"))?;
        Self::new(groups)
    }
}

impl fmt::Display for GroupCount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_widths_of_the_method_exist() {
        for bits in 0..=u8::MAX {
            assert_eq!(BitWidth::new(bits).is_ok(), matches!(bits, 2..=8 | 32), "{bits}");
        }
        assert_eq!(BitWidth::new(2).unwrap().step(false).get(), 2);
        assert_eq!(BitWidth::new(8).unwrap().step(true), BitWidth::FLOAT);
    }

    #[test]
    fn group_counts_step_through_the_list_and_stay_at_its_ends() {
        let count = |n| GroupCount::new(n).unwrap();
        assert_eq!(count(8).step(true), count(10));
        assert_eq!(count(7).step(false), count(6));
        assert_eq!(count(1).step(false), count(1));
        assert_eq!(count(64).step(true), count(64));
        assert!(GroupCount::new(0).is_err() && GroupCount::new(65).is_err());
    }
}
