//! Groups of ranges: fitting the group quantizers from calibration, and assigning the channels of one picture to them (section 3.2).

use super::uniform::{Bounds, percentile};

/// Most rounds of the alternation \[D\].
const MAX_ROUNDS: usize = 50;
/// Quantiles of the members' extremes that are tried as bounds \[D\].
const QUANTILES: usize = 32;

/// How much of a channel's extreme its other values share, on each side: the mean squared excess of its values over a bound inside its range,
/// as a share of the squared excess of the extreme. After GELU the sides differ by a factor of ten and more.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Alpha {
    /// Below.
    pub lower: f64,
    /// Above.
    pub upper: f64,
}

impl Default for Alpha {
    /// All values as far out as the extreme.
    fn default() -> Self {
        Self { lower: 1.0, upper: 1.0 }
    }
}

/// What it costs to give a range to a quantizer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Cost {
    /// The paper's: squared distance of the bounds (section 3.2).
    Distance,
    /// The expected squared error of a value: `(u - l)^2 / (12 n^2)` for rounding, `alpha_u max(0, max - u)^2 + alpha_l max(0, l - min)^2`
    /// for clipping \[D\]; for the softmax rows `l` is 0.
    Error {
        /// Mean squared excess of the values of a channel, as a share of the squared excess of its extreme, on each side.
        alpha: Alpha,
        /// `n = 2^b - 1`
        max_code: f64,
    },
}

impl Cost {
    /// The cost of giving `range` to the quantizer of `bounds`.
    #[must_use]
    pub fn of(self, range: Bounds, bounds: Bounds) -> f64 {
        let (alpha, inside) = self.clipping();
        let above = (f64::from(range.upper) - f64::from(bounds.upper)).max(inside);
        let below = (f64::from(bounds.lower) - f64::from(range.lower)).max(inside);
        self.rounding(bounds) + (alpha.upper * (above * above) + alpha.lower * (below * below))
    }

    /// The part of the cost that does not depend on the range.
    fn rounding(self, bounds: Bounds) -> f64 {
        match self {
            Self::Distance => 0.0,
            Self::Error { max_code, .. } => (f64::from(bounds.width()) / max_code).powi(2) / 12.0,
        }
    }

    /// The weight of squared distances of the ends, and the least distance that counts: a range that ends inside the bounds costs
    /// nothing to clip, but is as far from them in the paper's distance as one that ends outside.
    const fn clipping(self) -> (Alpha, f64) {
        match self {
            Self::Distance => (Alpha { lower: 1.0, upper: 1.0 }, f64::NEG_INFINITY),
            Self::Error { alpha, .. } => (alpha, 0.0),
        }
    }
}

/// Fits the bounds of `groups` quantizers to `ranges`, which come from all channels of all calibration pictures, never merged.
///
/// Alternates (a) every range to the quantizer of least cost and (b) bounds of least cost for the members (the alternation is the paper's).
/// For [`Cost::Distance`] that is the mean of the members' bounds (our reading of the paper's distance, D); for [`Cost::Error`] the best of
/// the quantiles of their extremes \[D\]. Starts from quantiles of the range width; an empty group is re-seeded at the worst-fitted
/// range; stops when nothing moves or after 50 rounds; sorted, group 0 the narrowest; bounds hold zero \[D\].
///
/// Returns `groups` bounds, or none if there are no ranges.
#[must_use]
pub fn fit(ranges: &[Bounds], groups: usize, cost: Cost) -> Vec<Bounds> {
    alternate(ranges, groups, cost, |_, _, _| ())
}

/// One round of the alternation, after its step (a).
#[derive(Debug, Clone, PartialEq)]
pub struct Round {
    /// Ranges that take another quantizer than in the round before; all of them in the first.
    pub moved: usize,
    /// Mean cost of a range.
    pub cost: f64,
    /// The quantizers that the ranges were given to.
    pub bounds: Vec<Bounds>,
}

/// The rounds of [`fit`], the last of which moves nothing unless there were 50 of them.
#[must_use]
pub fn rounds(ranges: &[Bounds], groups: usize, cost: Cost) -> Vec<Round> {
    let mut rounds = Vec::new();
    alternate(ranges, groups, cost, |before, nearest, quantizers| {
        let moved = if before.is_empty() { nearest.len() } else { before.iter().zip(nearest).filter(|(a, b)| a != b).count() };
        let total: f64 = ranges.iter().zip(nearest).map(|(range, &group)| cost.of(*range, quantizers[usize::from(group)])).sum();
        rounds.push(Round { moved, cost: total / ranges.len() as f64, bounds: quantizers.to_vec() });
    });
    rounds
}

/// The alternation; `seen` is shown the assignment before, the new one, and the quantizers that it is to.
fn alternate(ranges: &[Bounds], groups: usize, cost: Cost, mut seen: impl FnMut(&[u16], &[u16], &[Bounds])) -> Vec<Bounds> {
    if ranges.is_empty() || groups == 0 {
        return Vec::new();
    }
    let mut quantizers = seeds(ranges, groups);
    let ends = Ends::of(ranges);
    let reaches = if cost == Cost::Distance { Reaches::default() } else { Reaches::of(ranges) };
    let mut assignment = Vec::new();
    for _ in 0..MAX_ROUNDS {
        let nearest = ends.nearest(&quantizers, cost);
        seen(&assignment, &nearest, &quantizers);
        if nearest == assignment {
            break;
        }
        assignment = nearest;
        update(ranges, &reaches, &assignment, &mut quantizers, cost);
    }
    quantizers.sort_by(|a, b| a.width().total_cmp(&b.width()).then(a.upper.total_cmp(&b.upper)));
    quantizers
}

/// Percentiles of the members' ends that [`at_percentile`] tries as bounds \[D\].
const PERCENTILES: [f64; 5] = [75.0, 85.0, 90.0, 95.0, 100.0];

/// For the groups of `centres`, which [`fit`] found by distance, bounds that hold most of their members' ranges instead of half: for each group at
/// the percentile of the members' reaches with the least expected error. Ranges still go to the nearest centre \[D\].
#[must_use]
pub fn at_percentile(ranges: &[Bounds], centres: &[Bounds], alpha: Alpha, max_code: f64) -> Vec<Bounds> {
    let mut reaches = vec![(Vec::new(), Vec::new()); centres.len()];
    for (range, group) in ranges.iter().zip(Ends::of(ranges).nearest(centres, Cost::Distance)) {
        let (lower, upper) = &mut reaches[usize::from(group)];
        lower.push((-range.lower).max(0.0));
        upper.push(range.upper.max(0.0));
    }
    for (lower, upper) in &mut reaches {
        sort_tail(lower);
        sort_tail(upper);
    }
    let (rounding, clipping) =
        (|width: f64| (width / max_code).powi(2) / 12.0, |reach: f32, bound: f32| f64::from((reach - bound).max(0.0)).powi(2));
    // All groups of a site at one percentile.
    let tried = PERCENTILES.map(|percent| {
        let mut cost = 0.0;
        let mut bounds = Vec::with_capacity(centres.len());
        for ((lower, upper), centre) in reaches.iter().zip(centres) {
            if upper.is_empty() {
                bounds.push(*centre);
                continue;
            }
            let (low, high) = (percentile(lower, percent), percentile(upper, percent));
            let beyond = |reaches: &[f32], bound: f32| reaches.iter().map(|&reach| clipping(reach, bound)).sum::<f64>();
            cost += upper.len() as f64 * rounding(f64::from(low + high));
            cost += alpha.upper * beyond(upper, high) + alpha.lower * beyond(lower, low);
            bounds.push(Bounds::new(-low, high));
        }
        (cost, bounds)
    });
    tried.into_iter().min_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, bounds)| bounds).unwrap_or_default()
}

/// Puts what the percentiles look at in order, and nothing else.
fn sort_tail(reaches: &mut [f32]) {
    let from = (PERCENTILES[0] / 100.0 * reaches.len().saturating_sub(1) as f64) as usize;
    if from > 0 {
        reaches.select_nth_unstable_by(from, f32::total_cmp);
    }
    reaches[from..].sort_unstable_by(f32::total_cmp);
}

/// Start of the alternation: the ranges at evenly spaced quantiles of the width.
fn seeds(ranges: &[Bounds], groups: usize) -> Vec<Bounds> {
    let mut sorted = ranges.to_vec();
    sorted.sort_by(|a, b| a.width().total_cmp(&b.width()).then(a.upper.total_cmp(&b.upper)));
    (0..groups).map(|g| sorted[(2 * g + 1) * sorted.len() / (2 * groups)].with_zero()).collect()
}

/// Step (b): the members' best bounds; an empty group takes the range that is worst fitted now.
fn update(ranges: &[Bounds], reaches: &Reaches, assignment: &[u16], quantizers: &mut [Bounds], cost: Cost) {
    let mut sizes = vec![0_usize; quantizers.len()];
    for &group in assignment {
        sizes[usize::from(group)] += 1;
    }
    match cost {
        Cost::Distance => means(ranges, assignment, &sizes, quantizers),
        Cost::Error { alpha, max_code } => {
            let by_group = |side: &[(f64, usize)]| {
                let mut groups: Vec<Vec<f64>> = sizes.iter().map(|&size| Vec::with_capacity(size)).collect();
                for &(reach, range) in side {
                    groups[usize::from(assignment[range])].push(reach);
                }
                groups
            };
            let (uppers, lowers) = (by_group(&reaches.upper), by_group(&reaches.lower));
            for ((quantizer, uppers), lowers) in quantizers.iter_mut().zip(&uppers).zip(&lowers).filter(|((_, u), _)| !u.is_empty()) {
                *quantizer = least_error(uppers, lowers, alpha, max_code);
            }
        }
    }
    let empty: Vec<usize> = (0..sizes.len()).filter(|&g| sizes[g] == 0).collect();
    if empty.is_empty() {
        return;
    }
    let misfit = |(range, &group): (&Bounds, &u16)| cost.of(*range, quantizers[usize::from(group)]);
    let mut by_misfit: Vec<(f64, usize)> = ranges.iter().zip(assignment).map(misfit).zip(0..).collect();
    by_misfit.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
    for (&group, &(_, worst)) in empty.iter().zip(&by_misfit) {
        quantizers[group] = ranges[worst].with_zero();
    }
}

/// The mean of the members' bounds, for groups that have members.
fn means(ranges: &[Bounds], assignment: &[u16], sizes: &[usize], quantizers: &mut [Bounds]) {
    let mut sums = vec![(0.0, 0.0); quantizers.len()];
    for (range, &group) in ranges.iter().zip(assignment) {
        let (lower, upper) = &mut sums[usize::from(group)];
        *lower += f64::from(range.lower);
        *upper += f64::from(range.upper);
    }
    for ((quantizer, (lower, upper)), &size) in quantizers.iter_mut().zip(sums).zip(sizes).filter(|(_, size)| **size > 0) {
        *quantizer = Bounds::new((lower / size as f64) as f32, (upper / size as f64) as f32).with_zero();
    }
}

/// How far every range reaches from zero on each side, the least first, with its index: sorted once, because every round needs the members
/// of every group sorted.
#[derive(Default)]
struct Reaches {
    upper: Vec<(f64, usize)>,
    lower: Vec<(f64, usize)>,
}

impl Reaches {
    fn of(ranges: &[Bounds]) -> Self {
        let side = |extreme: fn(&Bounds) -> f32| {
            let mut side: Vec<(f64, usize)> = ranges.iter().map(|range| f64::from(extreme(range)).max(0.0)).zip(0..).collect();
            side.sort_by(|a, b| a.0.total_cmp(&b.0));
            side
        };
        Self { upper: side(|r| r.upper), lower: side(|r| -r.lower) }
    }
}

/// The bounds among quantiles of the members' reaches (sorted) that minimise the members' summed [`Cost::Error`].
fn least_error(uppers: &[f64], lowers: &[f64], alpha: Alpha, max_code: f64) -> Bounds {
    let rounding = uppers.len() as f64 / (12.0 * max_code * max_code);
    // One side at a time; clipping costs of a side do not depend on the other.
    let side = |reach: &[f64], alpha: f64| -> Vec<(f64, f64)> {
        // Sums over the members beyond a bound, from the widest down.
        let (mut sum, mut squares) = (vec![0.0; reach.len() + 1], vec![0.0; reach.len() + 1]);
        for i in (0..reach.len()).rev() {
            sum[i] = sum[i + 1] + reach[i];
            squares[i] = squares[i + 1] + reach[i] * reach[i];
        }
        let clipped = |bound: f64| {
            let beyond = reach.partition_point(|&r| r <= bound);
            let count = (reach.len() - beyond) as f64;
            alpha * (squares[beyond] - 2.0 * bound * sum[beyond] + count * bound * bound).max(0.0)
        };
        let quantile = |i: usize| reach[i * (reach.len() - 1) / QUANTILES];
        let mut bounds: Vec<f64> = (0..=QUANTILES).map(quantile).collect();
        bounds.dedup();
        bounds.into_iter().map(|bound| (bound, clipped(bound))).collect()
    };
    let (uppers, lowers) = (side(uppers, alpha.upper), side(lowers, alpha.lower));
    let mut best = (f64::INFINITY, Bounds::new(0.0, 0.0));
    for &(upper, above) in &uppers {
        for &(lower, below) in &lowers {
            let cost = rounding * (upper + lower).powi(2) + above + below;
            if cost < best.0 {
                best = (cost, Bounds::new(-lower as f32, upper as f32));
            }
        }
    }
    best.1
}

/// Instance-aware assignment: each channel's range of *this* picture to the quantizer of least cost; a tie goes to the narrower one.
#[must_use]
pub fn assign(ranges: &[Bounds], quantizers: &[Bounds], cost: Cost) -> Vec<u16> {
    Ends::of(ranges).nearest(quantizers, cost)
}

/// The ends of ranges side by side, as vector instructions want them, with zeros up to a multiple of [`Ends::STRIDE`].
struct Ends {
    lower: Vec<f64>,
    upper: Vec<f64>,
    len: usize,
}

impl Ends {
    /// Two of the widest vectors of float64.
    const STRIDE: usize = 16;

    fn of(ranges: &[Bounds]) -> Self {
        let padded = ranges.len().next_multiple_of(Self::STRIDE);
        let side = |end: fn(&Bounds) -> f32| {
            let mut side: Vec<f64> = ranges.iter().map(|range| f64::from(end(range))).collect();
            side.resize(padded, 0.0);
            side
        };
        Self { lower: side(|r| r.lower), upper: side(|r| r.upper), len: ranges.len() }
    }

    /// Step (a): the quantizer of least cost for every range; of equal costs the first.
    fn nearest(&self, quantizers: &[Bounds], cost: Cost) -> Vec<u16> {
        let mut nearest = vec![0.0; self.lower.len()];
        pulp::Arch::new().dispatch(Search { ends: self, quantizers, cost, nearest: &mut nearest });
        nearest[..self.len].iter().map(|&index| index as u16).collect()
    }
}

/// The search, written for whatever vectors the processor has: it is most of the time of a fit.
struct Search<'s> {
    ends: &'s Ends,
    quantizers: &'s [Bounds],
    cost: Cost,
    nearest: &'s mut [f64], // indices
}

impl pulp::WithSimd for Search<'_> {
    type Output = ();

    #[allow(clippy::inline_always)] // `pulp` needs it: what is not inlined is not compiled for the wider vectors.
    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, simd: S) {
        let (alpha, inside) = self.cost.clipping();
        let (share_above, share_below) = (simd.splat_f64s(alpha.upper), simd.splat_f64s(alpha.lower));
        let inside = simd.splat_f64s(inside);
        let lower = S::as_simd_f64s(&self.ends.lower).0.chunks_exact(2);
        let upper = S::as_simd_f64s(&self.ends.upper).0.chunks_exact(2);
        let nearest = S::as_mut_simd_f64s(self.nearest).0.chunks_exact_mut(2);
        for ((nearest, lower), upper) in nearest.zip(lower).zip(upper) {
            let mut least = [simd.splat_f64s(f64::INFINITY); 2];
            let mut first = [simd.splat_f64s(0.0); 2];
            for (index, quantizer) in self.quantizers.iter().enumerate() {
                let index = simd.splat_f64s(index as f64);
                let rounding = simd.splat_f64s(self.cost.rounding(*quantizer));
                let (l, u) = (simd.splat_f64s(f64::from(quantizer.lower)), simd.splat_f64s(f64::from(quantizer.upper)));
                for i in 0..2 {
                    let above = simd.max_f64s(simd.sub_f64s(upper[i], u), inside);
                    let below = simd.max_f64s(simd.sub_f64s(l, lower[i]), inside);
                    let above = simd.mul_f64s(share_above, simd.mul_f64s(above, above));
                    let clipping = simd.add_f64s(above, simd.mul_f64s(share_below, simd.mul_f64s(below, below)));
                    let cost = simd.add_f64s(rounding, clipping);
                    let less = simd.less_than_f64s(cost, least[i]);
                    least[i] = simd.select_f64s(less, cost, least[i]);
                    first[i] = simd.select_f64s(less, index, first[i]);
                }
            }
            nearest.copy_from_slice(&first);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ranges() -> impl Strategy<Value = Vec<Bounds>> {
        prop::collection::vec((-9.0_f32..0.0, 0.0_f32..9.0).prop_map(|(l, u)| Bounds::new(l, u)), 1..60)
    }

    proptest! {
        #[test]
        fn the_first_of_the_cheapest_is_found(ranges in ranges(), twice in ranges(), lower in 0.01..1.0_f64, upper in 0.01..1.0_f64) {
            let quantizers = [twice.clone(), twice].concat();
            let alpha = Alpha { lower, upper };
            for cost in [Cost::Distance, Cost::Error { alpha, max_code: 15.0 }] {
                let of = |range: &Bounds, quantizer: &Bounds| match cost {
                    Cost::Distance => range.distance(*quantizer),
                    Cost::Error { alpha, max_code } => {
                        let above = (f64::from(range.upper) - f64::from(quantizer.upper)).max(0.0);
                        let below = (f64::from(quantizer.lower) - f64::from(range.lower)).max(0.0);
                        (f64::from(quantizer.width()) / max_code).powi(2) / 12.0
                            + (alpha.upper * (above * above) + alpha.lower * (below * below))
                    }
                };
                for (range, group) in ranges.iter().zip(assign(&ranges, &quantizers, cost)) {
                    let costs: Vec<f64> = quantizers.iter().map(|quantizer| of(range, quantizer)).collect();
                    let least = costs.iter().copied().fold(f64::INFINITY, f64::min);
                    prop_assert_eq!(costs.iter().position(|c| *c == least), Some(usize::from(group)));
                }
            }
        }

        #[test]
        fn one_group_is_the_mean_of_all(ranges in ranges()) {
            let n = ranges.len() as f32;
            let fitted = fit(&ranges, 1, Cost::Distance);
            let mean = |f: fn(&Bounds) -> f32| ranges.iter().map(f).sum::<f32>() / n;
            prop_assert!((fitted[0].lower - mean(|r| r.lower)).abs() < 1e-4);
            prop_assert!((fitted[0].upper - mean(|r| r.upper)).abs() < 1e-4);
        }

        #[test]
        fn as_many_groups_as_ranges_fit_each_range_exactly(ranges in ranges()) {
            for extra in [0, 5] {
                let fitted = fit(&ranges, ranges.len() + extra, Cost::Distance);
                for (range, group) in ranges.iter().zip(assign(&ranges, &fitted, Cost::Distance)) {
                    prop_assert_eq!(*range, fitted[usize::from(group)]);
                }
            }
        }

        #[test]
        fn groups_are_sorted_hold_zero_and_none_is_forgotten(ranges in ranges(), groups in 1_usize..20) {
            let fitted = fit(&ranges, groups, Cost::Distance);
            prop_assert_eq!(fitted.len(), groups);
            prop_assert!(fitted.is_sorted_by(|a, b| a.width() <= b.width()));
            prop_assert!(fitted.iter().all(|b| b.lower <= 0.0 && b.upper >= 0.0));
        }

        #[test]
        fn more_groups_never_leave_ranges_much_worse_off(ranges in ranges()) {
            let cost = |groups| {
                let fitted = fit(&ranges, groups, Cost::Distance);
                let nearest = assign(&ranges, &fitted, Cost::Distance);
                ranges.iter().zip(nearest).map(|(r, g)| r.distance(fitted[usize::from(g)])).sum::<f64>()
            };
            prop_assert!(cost(ranges.len()) <= cost(1));
        }
    }

    #[test]
    fn two_clear_clusters_are_found() {
        let ranges = [(-1.0, 1.0), (-1.2, 0.8), (-8.0, 9.0), (-8.2, 9.2)].map(|(l, u)| Bounds::new(l, u));
        let fitted = fit(&ranges, 2, Cost::Distance);
        assert_eq!(assign(&ranges, &fitted, Cost::Distance), [0, 0, 1, 1]);
        assert!((fitted[0].lower + 1.1).abs() < 1e-6 && (fitted[1].upper - 9.1).abs() < 1e-6);
    }
}
