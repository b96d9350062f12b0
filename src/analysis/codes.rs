//! What the quantizers of one site met in one picture: which codes were used, what was clipped, the error, in steps too. One pass over the
//! values just before and just after the quantizer and those of the float run, block by block of rows, with as many values side by side as a
//! vector holds.

use multiversion::multiversion;
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

/// What quantizers do, as numbers side by side: one for each column.
#[derive(Default)]
struct Lanes {
    scale: Vec<f32>,
    low: Vec<f32>,
    high: Vec<f32>,
    /// Where the code of `round(x/s)` = 0 stands among all codes of all groups.
    origin: Vec<i32>,
    /// 1, or 0 where the range is too narrow to quantize: then all is code 0, nothing is clipped and there is no step.
    counts: Vec<u32>,
}

/// One of them.
#[derive(Clone, Copy)]
struct Lane {
    scale: f32,
    low: f32,
    high: f32,
    origin: i32,
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

impl Lanes {
    fn of(lanes: impl Iterator<Item = Lane>) -> Self {
        let mut all = Self::default();
        for Lane { scale, low, high, origin, counts } in lanes {
            all.scale.push(scale);
            all.low.push(low);
            all.high.push(high);
            all.origin.push(origin);
            all.counts.push(counts);
        }
        all
    }

    /// The same quantizer for all columns.
    fn fill(&mut self, lane: Lane) {
        self.scale.fill(lane.scale);
        self.low.fill(lane.low);
        self.high.fill(lane.high);
        self.origin.fill(lane.origin);
        self.counts.fill(lane.counts);
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
    beyond: Vec<u32>,
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
            beyond: vec![0; columns],
        }
    }

    /// One row, value by value beside its quantizer. Leaves in `beyond` which were clipped.
    fn row(&mut self, before: &[f32], after: &[f32], lanes: &Lanes) {
        self.squared_steps += f64::from(look(before, after, lanes, &mut self.places, &mut self.squares, &mut self.beyond));
        for &place in &self.places[..before.len()] {
            if let Some(used) = self.used.get_mut(place as usize) {
                *used = true;
            }
        }
    }
}

/// Where the codes of a row stand, which of its values were clipped, and its summed squared error in steps.
#[multiversion(targets = "simd")]
fn look(before: &[f32], after: &[f32], lanes: &Lanes, places: &mut [u32], squares: &mut [f32], beyond: &mut [u32]) -> f32 {
    let n = before.len();
    let (after, places, squares, beyond) = (&after[..n], &mut places[..n], &mut squares[..n], &mut beyond[..n]);
    let Lanes { scale, low, high, origin, counts } = lanes;
    let (scale, low, high, origin, counts) = (&scale[..n], &low[..n], &high[..n], &origin[..n], &counts[..n]);
    for c in 0..n {
        // One beyond the limits is enough to see that a value is clipped.
        let rounded = ((before[c] / scale[c]).max(low[c] - 1.0).min(high[c] + 1.0) + ROUND) - ROUND;
        let within = rounded.max(low[c]).min(high[c]);
        beyond[c] = u32::from(rounded != within) & counts[c];
        places[c] = (origin[c] + (within + ROUND).to_bits().wrapping_sub(ROUND.to_bits()) as i32) as u32;
        let steps = (before[c] - after[c]) / scale[c];
        squares[c] = if counts[c] == 1 { steps * steps } else { 0.0 };
    }
    let (parts, rest) = squares.as_chunks::<16>();
    let mut sums = [0.0; 16];
    for part in parts {
        for (sum, x) in sums.iter_mut().zip(part) {
            *sum += x;
        }
    }
    sums.iter().sum::<f32>() + rest.iter().sum::<f32>()
}

impl Met {
    /// Looks at the values of one picture just before and just after the quantizers of `grouping` and in the float run, rows of `last`
    /// values.
    pub fn new<'v>(grouping: &Grouping, before: &'v [f32], after: &'v [f32], float: &'v [f32], last: usize) -> Self {
        let groups = grouping.quantizers.len();
        let codes = grouping.quantizers.first().map_or(0, Quantizer::codes);
        let mut met =
            Self { codes, used: vec![false; groups * codes], clipped: vec![0; groups], values: vec![0; groups], ..Self::default() };
        let rows = grouping.along.is_rows();
        let each = before.len() / grouping.assignment.len().max(1);
        for &group in &grouping.assignment {
            met.values[usize::from(group)] += each;
        }
        let lanes: Option<Vec<Lane>> = if grouping.tiles.is_some() {
            None
        } else {
            grouping.quantizers.iter().enumerate().map(|(g, q)| Some(Lane::of(q.as_uniform()?, g, codes))).collect()
        };
        if lanes.is_none() {
            met.one_by_one(grouping, before, after, last);
        }
        let lanes = lanes.unwrap_or_default();
        let of: Vec<Lane> = grouping.assignment.iter().filter_map(|&group| lanes.get(usize::from(group)).copied()).collect();
        let channels = Lanes::of(of.iter().copied().take(if rows { 0 } else { last }));
        let size = kernels::block(last);
        let look = |index: usize| {
            let first = index * size / last;
            let part = |values: &'v [f32]| &values[index * size..values.len().min((index + 1) * size)];
            let (before, after, float) = (part(before), part(after), part(float));
            let mut block = Block::new(groups * codes, if rows { before.len() / last } else { last }, last);
            (block.local, block.cumulative) = (Sums::of(before, after), Sums::of(float, after));
            if of.is_empty() {
                return (first, block);
            }
            let mut same = Lanes::of(of.first().copied().into_iter().cycle().take(if rows { last } else { 0 }));
            for (row, (before, after)) in before.chunks_exact(last).zip(after.chunks_exact(last)).enumerate() {
                if rows {
                    same.fill(of[first + row]);
                    block.row(before, after, &same);
                    block.clipped[row] += block.beyond.iter().sum::<u32>();
                } else {
                    block.row(before, after, &channels);
                    block.clipped.iter_mut().zip(&block.beyond).for_each(|(clipped, beyond)| *clipped += beyond);
                }
            }
            (first, block)
        };
        let blocks: Vec<(usize, Block)> = (0..before.len().div_ceil(size)).into_par_iter().map(look).collect();
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
        let group = |row: usize, column: usize| usize::from(grouping.assignment[if grouping.along.is_rows() { row } else { column }]);
        let mut see = |x: f32, y: f32, group: usize, quantizer: &Quantizer| {
            let (code, clipped) = quantizer.code(x);
            self.used[group * self.codes + code as usize] = true;
            self.clipped[group] += usize::from(clipped);
            if let Some(step) = quantizer.step_at(x) {
                self.squared_steps += (f64::from(x - y) / f64::from(step)).powi(2);
            }
        };
        if let Some(tiles) = &grouping.tiles {
            return tiles.each_row(before, last, |row, quantizers| {
                let values = before[row * last..].iter().zip(&after[row * last..]);
                for (column, ((&x, &y), quantizer)) in values.zip(quantizers).enumerate() {
                    see(x, y, group(row, column), quantizer);
                }
            });
        }
        for (row, (before, after)) in before.chunks_exact(last).zip(after.chunks_exact(last)).enumerate() {
            for (column, (&x, &y)) in before.iter().zip(after).enumerate() {
                let group = group(row, column);
                see(x, y, group, &grouping.quantizers[group]);
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
        for along in [Along::Channels, Along::SoftmaxRows] {
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
