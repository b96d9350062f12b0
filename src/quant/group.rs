//! Groups of ranges: fitting the group quantizers from calibration, and assigning the channels of one picture to them (section 3.2).

use super::uniform::Bounds;

/// Most rounds of the alternation \[D\].
const MAX_ROUNDS: usize = 50;

/// Fits the bounds of `groups` quantizers to `ranges`, which come from all channels of all calibration pictures, never merged.
///
/// Alternates (a) every range to the nearest quantizer and (b) bounds to the mean of the members' (the alternation is the paper's, the
/// mean is our reading of its distance, D). Starts from quantiles of the range width; an empty group is re-seeded at the worst-fitted
/// range; stops when nothing moves or after 50 rounds; sorted, group 0 the narrowest; bounds hold zero \[D\].
///
/// Returns `groups` bounds, or none if there are no ranges.
#[must_use]
pub fn fit(ranges: &[Bounds], groups: usize) -> Vec<Bounds> {
    if ranges.is_empty() || groups == 0 {
        return Vec::new();
    }
    let mut quantizers = seeds(ranges, groups);
    let mut assignment = vec![usize::MAX; ranges.len()];
    for _ in 0..MAX_ROUNDS {
        let mut moved = false;
        for (range, group) in ranges.iter().zip(&mut assignment) {
            let nearest = nearest(*range, &quantizers);
            moved |= nearest != *group;
            *group = nearest;
        }
        if !moved {
            break;
        }
        update(ranges, &assignment, &mut quantizers);
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

/// Step (b): the mean of the members' bounds; an empty group takes the range that is worst fitted now.
fn update(ranges: &[Bounds], assignment: &[usize], quantizers: &mut [Bounds]) {
    let mut sums = vec![(0.0_f64, 0.0_f64, 0_usize); quantizers.len()];
    for (range, &group) in ranges.iter().zip(assignment) {
        let (lower, upper, members) = &mut sums[group];
        *lower += f64::from(range.lower);
        *upper += f64::from(range.upper);
        *members += 1;
    }
    for (quantizer, &(lower, upper, members)) in quantizers.iter_mut().zip(&sums) {
        if members > 0 {
            let n = members as f64;
            *quantizer = Bounds::new((lower / n) as f32, (upper / n) as f32).with_zero();
        }
    }
    let empty: Vec<usize> = (0..sums.len()).filter(|&g| sums[g].2 == 0).collect();
    if empty.is_empty() {
        return;
    }
    let mut by_misfit: Vec<(f64, usize)> = ranges.iter().zip(assignment).map(|(r, &g)| r.distance(quantizers[g])).zip(0..).collect();
    by_misfit.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
    for (&group, &(_, worst)) in empty.iter().zip(&by_misfit) {
        quantizers[group] = ranges[worst].with_zero();
    }
}

/// Instance-aware assignment: each channel's range of *this* picture to the nearest quantizer; a tie goes to the narrower one.
#[must_use]
pub fn assign(ranges: &[Bounds], quantizers: &[Bounds]) -> Vec<u16> {
    ranges.iter().map(|range| nearest(*range, quantizers) as u16).collect()
}

fn nearest(range: Bounds, quantizers: &[Bounds]) -> usize {
    let mut best = (f64::INFINITY, 0);
    for (index, quantizer) in quantizers.iter().enumerate() {
        let distance = range.distance(*quantizer);
        if distance < best.0 {
            best = (distance, index);
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
            let fitted = fit(&ranges, 1);
            let mean = |f: fn(&Bounds) -> f32| ranges.iter().map(f).sum::<f32>() / n;
            prop_assert!((fitted[0].lower - mean(|r| r.lower)).abs() < 1e-4);
            prop_assert!((fitted[0].upper - mean(|r| r.upper)).abs() < 1e-4);
        }

        #[test]
        fn as_many_groups_as_ranges_fit_each_range_exactly(ranges in ranges()) {
            for extra in [0, 5] {
                let fitted = fit(&ranges, ranges.len() + extra);
                for (range, group) in ranges.iter().zip(assign(&ranges, &fitted)) {
                    prop_assert_eq!(*range, fitted[usize::from(group)]);
                }
            }
        }

        #[test]
        fn groups_are_sorted_hold_zero_and_none_is_forgotten(ranges in ranges(), groups in 1_usize..20) {
            let fitted = fit(&ranges, groups);
            prop_assert_eq!(fitted.len(), groups);
            prop_assert!(fitted.is_sorted_by(|a, b| a.width() <= b.width()));
            prop_assert!(fitted.iter().all(|b| b.lower <= 0.0 && b.upper >= 0.0));
        }

        #[test]
        fn more_groups_never_leave_ranges_much_worse_off(ranges in ranges()) {
            let cost = |groups| {
                let fitted = fit(&ranges, groups);
                let nearest = assign(&ranges, &fitted);
                ranges.iter().zip(nearest).map(|(r, g)| r.distance(fitted[usize::from(g)])).sum::<f64>()
            };
            prop_assert!(cost(ranges.len()) <= cost(1));
        }
    }

    #[test]
    fn two_clear_clusters_are_found() {
        let ranges = [(-1.0, 1.0), (-1.2, 0.8), (-8.0, 9.0), (-8.2, 9.2)].map(|(l, u)| Bounds::new(l, u));
        let fitted = fit(&ranges, 2);
        assert_eq!(assign(&ranges, &fitted), [0, 0, 1, 1]);
        assert!((fitted[0].lower + 1.1).abs() < 1e-6 && (fitted[1].upper - 9.1).abs() < 1e-6);
    }
}
