//! What the quantizers of one site met in one picture: which codes were used, what was clipped, the error, in steps too. One pass over the
//! values just before and just after the quantizer and those of the float run, block by block of rows, with as many values side by side as a
//! vector holds.

use rayon::prelude::*;

use super::metrics::Sums;
use crate::model::kernels;
use crate::quant::{Grouping, Quantizer, UniformQuantizer};

/// Adding and subtracting 1.5 * 2^23 rounds to the nearest integer, ties to even; between the two the low bits are that integer.
const ROUND: f32 = 12_582_912.0;

/// What the quantizers of one site met.
#[derive(Debug, Clone, Default)]
pub(super) struct Met {
    /// Codes of each quantizer.
    pub codes: usize,
    /// For each group and code, whether it was used.
    pub used: Vec<bool>,
    /// Clipped values of each group.
    pub clipped: Vec<usize>,
    /// Values of each group.
    pub values: Vec<usize>,
    /// `sum ((x - x^) / s)^2` over all values whose quantizer has a step.
    pub squared_steps: f64,
    /// Just before against just after.
    pub local: Sums,
    /// The float run against just after.
    pub cumulative: Sums,
}

/// What one quantizer does, as numbers.
#[derive(Clone, Copy)]
struct Lane {
    scale: f32,
    low: f32,
    high: f32,
    /// Where the code of `round(x/s)` = 0 stands among all codes of all groups.
    origin: i32,
    /// 1, or 0 where the range is too narrow to quantize: then all is code 0, nothing is clipped and there is no step.
    counts: u32,
}

impl Lane {
    fn of(quantizer: &UniformQuantizer, group: usize, codes: usize) -> Self {
        let first = (group * codes) as i32;
        if quantizer.is_degenerate() {
            return Self { scale: 1.0, low: 0.0, high: 0.0, origin: first, counts: 0 };
        }
        let zero = quantizer.zero_point;
        Self { scale: quantizer.scale, low: -zero, high: quantizer.max_code - zero, origin: first + zero as i32, counts: 1 }
    }
}

/// Rows of one block, as they are looked at.
struct Block {
    used: Vec<bool>,
    /// Of every channel, or of every row of the block.
    clipped: Vec<u32>,
    squared_steps: f64,
    local: Sums,
    cumulative: Sums,
    places: Vec<u32>,
    squares: Vec<f32>,
}

impl Block {
    fn new(codes: usize, clipped: usize, columns: usize) -> Self {
        Self {
            used: vec![false; codes],
            clipped: vec![0; clipped],
            squared_steps: 0.0,
            local: Sums::default(),
            cumulative: Sums::default(),
            places: vec![0; columns],
            squares: vec![0.0; columns],
        }
    }

    /// One row, whose value in column `c` meets the quantizer `lane(c)`; `clipped(c, n)` hears of clipped values.
    #[inline(always)]
    #[allow(clippy::inline_always)] // What is not inlined is not compiled for the wider vectors.
    fn row(&mut self, before: &[f32], after: &[f32], lane: impl Fn(usize) -> Lane, mut clipped: impl FnMut(&mut [u32], usize, u32)) {
        let n = before.len();
        let (after, places, squares) = (&after[..n], &mut self.places[..n], &mut self.squares[..n]);
        for c in 0..n {
            let Lane { scale, low, high, origin, counts } = lane(c);
            // One beyond the limits is enough to see that a value is clipped.
            let rounded = ((before[c] / scale).max(low - 1.0).min(high + 1.0) + ROUND) - ROUND;
            clipped(&mut self.clipped, c, u32::from(rounded < low || rounded > high) & counts);
            let code = (rounded.max(low).min(high) + ROUND).to_bits().wrapping_sub(ROUND.to_bits()) as i32;
            places[c] = (origin + code) as u32;
            let steps = (before[c] - after[c]) / scale;
            squares[c] = steps * steps * counts as f32;
        }
        for &place in &*places {
            self.used[place as usize] = true;
        }
        self.squared_steps += f64::from(kernels::sum(squares, |x| x));
    }
}

impl Met {
    /// Looks at the values of one picture just before and just after the quantizers of `grouping` and in the float run, rows of `last`
    /// values.
    pub fn new(grouping: &Grouping, before: &[f32], after: &[f32], float: &[f32], last: usize) -> Self {
        let groups = grouping.quantizers.len();
        let codes = grouping.quantizers.first().map_or(0, Quantizer::codes);
        let mut met =
            Self { codes, used: vec![false; groups * codes], clipped: vec![0; groups], values: vec![0; groups], ..Self::default() };
        let rows = grouping.along.is_rows();
        let each = before.len() / grouping.assignment.len().max(1);
        for &group in &grouping.assignment {
            met.values[usize::from(group)] += each;
        }
        let lanes: Option<Vec<Lane>> =
            grouping.quantizers.iter().enumerate().map(|(g, q)| Some(Lane::of(q.as_uniform()?, g, codes))).collect();
        if lanes.is_none() {
            met.one_by_one(grouping, before, after, last);
        }
        let lanes = lanes.unwrap_or_default();
        let of: Vec<Lane> = grouping.assignment.iter().filter_map(|&group| lanes.get(usize::from(group)).copied()).collect();
        let size = kernels::block(last);
        let look = |(index, ((before, after), float)): (usize, ((&[f32], &[f32]), &[f32]))| {
            let first = index * size / last;
            let mut block = Block::new(groups * codes, if rows { before.len() / last } else { last }, last);
            pulp::Arch::new().dispatch(|| {
                (block.local, block.cumulative) = (Sums::of(before, after), Sums::of(float, after));
                if of.is_empty() {
                    return;
                }
                for (row, (before, after)) in before.chunks_exact(last).zip(after.chunks_exact(last)).enumerate() {
                    if rows {
                        let lane = of[first + row];
                        block.row(before, after, |_| lane, |clipped, _, n| clipped[row] += n);
                    } else {
                        let of = &of[..before.len()];
                        block.row(before, after, |c| of[c], |clipped, c, n| clipped[c] += n);
                    }
                }
            });
            (first, block)
        };
        let parts = before.par_chunks(size).zip(after.par_chunks(size)).zip(float.par_chunks(size));
        let blocks: Vec<(usize, Block)> = parts.enumerate().map(look).collect();
        for (first, block) in blocks {
            met.used.iter_mut().zip(&block.used).for_each(|(all, used)| *all |= used);
            met.squared_steps += block.squared_steps;
            (met.local, met.cumulative) = (met.local.and(block.local), met.cumulative.and(block.cumulative));
            let first = if rows { first } else { 0 };
            for (index, &clipped) in block.clipped.iter().enumerate() {
                met.clipped[usize::from(grouping.assignment[first + index])] += clipped as usize;
            }
        }
        met
    }

    /// For quantizers of other shapes.
    fn one_by_one(&mut self, grouping: &Grouping, before: &[f32], after: &[f32], last: usize) {
        for (row, (before, after)) in before.chunks_exact(last).zip(after.chunks_exact(last)).enumerate() {
            for (column, (&x, &y)) in before.iter().zip(after).enumerate() {
                let group = usize::from(grouping.assignment[if grouping.along.is_rows() { row } else { column }]);
                let quantizer = &grouping.quantizers[group];
                let (code, clipped) = quantizer.code(x);
                self.used[group * self.codes + code as usize] = true;
                self.clipped[group] += usize::from(clipped);
                if let Some(step) = quantizer.step_at(x) {
                    self.squared_steps += (f64::from(x - y) / f64::from(step)).powi(2);
                }
            }
        }
    }

    /// Number of codes of `group` that were used.
    pub fn used_by(&self, group: usize) -> usize {
        self.used[group * self.codes..(group + 1) * self.codes].iter().filter(|used| **used).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quant::BitWidth;
    use crate::quant::fit::SiteQuantizers;
    use crate::quant::ranges::{self, Along};
    use crate::quant::uniform::Bounds;

    #[test]
    fn side_by_side_sees_what_one_by_one_sees() {
        let mut random = fastrand::Rng::with_seed(9);
        for along in [Along::Channels, Along::SoftmaxRows, Along::Tokens] {
            for bits in [2, 4, 8] {
                let (rows, last) = (700, 37);
                let values: Vec<f32> = (0..rows * last).map(|i| (random.f32() - 0.4) * (1.0 + (i % last) as f32)).collect();
                let bounds = vec![Bounds::new(-1.0, 2.0), Bounds::new(0.0, 0.0), Bounds::new(-9.0, 30.0)];
                let count = if along.is_rows() { rows } else { last };
                let fitted = SiteQuantizers::fixed(bounds, (0..count).map(|i| (i % 3) as u16).collect());
                let grouping = fitted.group(ranges::of_picture(along, &values, last), along, BitWidth::new(bits).unwrap()).unwrap();
                let mut after = vec![0.0; values.len()];
                grouping.apply(&values, &mut after, last);
                let met = Met::new(&grouping, &values, &after, &values, last);
                let mut slow = Met { used: vec![false; met.used.len()], clipped: vec![0; 3], squared_steps: 0.0, ..met.clone() };
                slow.one_by_one(&grouping, &values, &after, last);
                assert_eq!((&met.used, &met.clipped, &met.values), (&slow.used, &slow.clipped, &slow.values));
                assert!((met.squared_steps / slow.squared_steps - 1.0).abs() < 1e-5, "{met:?} {slow:?}");
            }
        }
    }
}
