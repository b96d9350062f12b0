//! Groups of ranges: fitting the group quantizers from calibration, and assigning the channels of one picture to them (section 3.2).

use super::uniform::Bounds;

/// Most rounds of the alternation \[D\].
const MAX_ROUNDS: usize = 50;
/// Quantiles of the members' extremes that are tried as bounds \[D\].
const QUANTILES: usize = 32;

/// What it costs to give a range to a quantizer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Cost {
    /// The paper's: squared distance of the bounds (section 3.2).
    Distance,
    /// The expected squared error of a value: `(u - l)^2 / (12 n^2)` for rounding, `alpha (max(0, max - u)^2 + max(0, l - min)^2)` for
    /// clipping \[D\]; for the softmax rows `l` is 0.
    Error {
        /// Mean squared excess of the values of a channel, as a share of the squared excess of its extreme.
        alpha: f64,
        /// `n = 2^b - 1`
        max_code: f64,
    },
}

impl Cost {
    /// The cost of giving `range` to the quantizer of `bounds`.
    #[must_use]
    pub fn of(self, range: Bounds, bounds: Bounds) -> f64 {
        match self {
            Self::Distance => range.distance(bounds),
            Self::Error { alpha, max_code } => {
                let above = (f64::from(range.upper) - f64::from(bounds.upper)).max(0.0);
                let below = (f64::from(bounds.lower) - f64::from(range.lower)).max(0.0);
                let step = f64::from(bounds.width()) / max_code;
                step * step / 12.0 + alpha * (above * above + below * below)
            }
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
    if ranges.is_empty() || groups == 0 {
        return Vec::new();
    }
    let mut quantizers = seeds(ranges, groups);
    let mut assignment = vec![usize::MAX; ranges.len()];
    for _ in 0..MAX_ROUNDS {
        let mut moved = false;
        for (range, group) in ranges.iter().zip(&mut assignment) {
            let nearest = nearest(*range, &quantizers, cost);
            moved |= nearest != *group;
            *group = nearest;
        }
        if !moved {
            break;
        }
        update(ranges, &assignment, &mut quantizers, cost);
    }
    quantizers.sort_by(|a, b| a.width().total_cmp(&b.width()).then(a.upper.total_cmp(&b.upper)));
    quantizers
}

/// Start of the alternation: the ranges at evenly spaced quantiles of the width.
fn seeds(ranges: &[Bounds], groups: usize) -> Vec<Bounds> {
    let mut sorted = ranges.to_vec();
    sorted.sort_by(|a, b| a.width().total_cmp(&b.width()).then(a.upper.total_cmp(&b.upper)));
    (0..groups).map(|g| sorted[(2 * g + 1) * sorted.len() / (2 * groups)].with_zero()).collect()
}

/// Step (b): the members' best bounds; an empty group takes the range that is worst fitted now.
fn update(ranges: &[Bounds], assignment: &[usize], quantizers: &mut [Bounds], cost: Cost) {
    let mut members: Vec<Vec<Bounds>> = vec![Vec::new(); quantizers.len()];
    for (range, &group) in ranges.iter().zip(assignment) {
        members[group].push(*range);
    }
    for (quantizer, members) in quantizers.iter_mut().zip(&members).filter(|(_, members)| !members.is_empty()) {
        *quantizer = match cost {
            Cost::Distance => mean(members),
            Cost::Error { alpha, max_code } => least_error(members, alpha, max_code),
        };
    }
    let empty: Vec<usize> = (0..members.len()).filter(|&g| members[g].is_empty()).collect();
    if empty.is_empty() {
        return;
    }
    let misfit = |(range, &group): (&Bounds, &usize)| cost.of(*range, quantizers[group]);
    let mut by_misfit: Vec<(f64, usize)> = ranges.iter().zip(assignment).map(misfit).zip(0..).collect();
    by_misfit.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
    for (&group, &(_, worst)) in empty.iter().zip(&by_misfit) {
        quantizers[group] = ranges[worst].with_zero();
    }
}

fn mean(members: &[Bounds]) -> Bounds {
    let n = members.len() as f64;
    let sum = |f: fn(&Bounds) -> f32| members.iter().map(|r| f64::from(f(r))).sum::<f64>();
    Bounds::new((sum(|r| r.lower) / n) as f32, (sum(|r| r.upper) / n) as f32).with_zero()
}

/// The bounds among quantiles of the members' extremes (zero included) that minimise the members' summed [`Cost::Error`].
fn least_error(members: &[Bounds], alpha: f64, max_code: f64) -> Bounds {
    let rounding = members.len() as f64 / (12.0 * max_code * max_code);
    // One side at a time, as distances from zero; clipping costs of a side do not depend on the other.
    let side = |extreme: fn(&Bounds) -> f32| -> Vec<(f64, f64)> {
        let mut reach: Vec<f64> = members.iter().map(|r| f64::from(extreme(r)).max(0.0)).collect();
        reach.sort_by(f64::total_cmp);
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
    let (uppers, lowers) = (side(|r| r.upper), side(|r| -r.lower));
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
    ranges.iter().map(|range| nearest(*range, quantizers, cost) as u16).collect()
}

fn nearest(range: Bounds, quantizers: &[Bounds], cost: Cost) -> usize {
    let mut best = (f64::INFINITY, 0);
    for (index, quantizer) in quantizers.iter().enumerate() {
        let cost = cost.of(range, *quantizer);
        if cost < best.0 {
            best = (cost, index);
        }
    }
    best.1
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
