//! One choice for each site under a budget of bit operations: the paper's integer linear program (section 3.3), solved exactly by microlp.

use good_lp::{Expression, Solution, SolverModel, Variable, constraint, microlp, variable, variables};

use crate::error::{Error, Result};

/// What one choice for a site costs and does.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Choice {
    /// Bit operations, `BOP_s`.
    pub bops: u64,
    /// Perturbation of the prediction, `Omega_s`.
    pub omega: f64,
}

/// Minimises `sum Omega` over one choice for each row of `choices`, subject to `sum BOP <= budget`. Returns the index of each row's
/// choice; `None` where even the cheapest choices exceed the budget.
///
/// # Errors
/// When the solver gives up, which it does for no program of this form.
pub fn solve(choices: &[Vec<Choice>], budget: u64) -> Result<Option<Vec<usize>>> {
    let rows: Vec<Vec<usize>> = choices.iter().map(|row| worthwhile(row)).collect();
    if rows.iter().any(Vec::is_empty) {
        return Ok(None);
    }
    let cheapest: u64 = rows.iter().zip(choices).map(|(row, c)| c[row[0]].bops).sum();
    let Some(room) = budget.checked_sub(cheapest) else { return Ok(None) };
    let rows = core(choices, &rows, room);
    let cheapest: u64 = rows.iter().zip(choices).map(|(row, c)| c[row[0]].bops).sum();
    let room = budget.saturating_sub(cheapest);
    // Costs above the cheapest, as shares of the room: the numbers of a solver should be near one.
    let mut allowed = 1.0;
    for _ in 0..8 {
        let picked = program(choices, &rows, room.max(1) as f64, allowed)?;
        let cost: u64 = picked.iter().zip(choices).map(|(&pick, row)| row[pick].bops).sum();
        if cost <= budget {
            return Ok(Some(picked));
        }
        // A solver's tolerance let a hair too much through.
        allowed -= (cost - budget) as f64 / room.max(1) as f64 + 1e-9;
    }
    Ok(Some(rows.iter().map(|row| row[0]).collect()))
}

/// Indices of the choices that no cheaper choice matches, cheapest first: the others are in no best solution.
fn worthwhile(row: &[Choice]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..row.len()).filter(|&i| row[i].omega.is_finite()).collect();
    order.sort_by(|&a, &b| row[a].bops.cmp(&row[b].bops).then(row[a].omega.total_cmp(&row[b].omega)));
    let mut best = f64::INFINITY;
    order.retain(|&i| {
        let better = row[i].omega < best;
        best = best.min(row[i].omega);
        better
    });
    order
}

/// One step along the lower hull of a row.
struct Step {
    /// Perturbation that an operation takes away.
    rate: f64,
    row: usize,
    from: usize,
    to: usize,
}

/// The steps along the lower hulls of all rows, from their cheapest choice on, the most gain for an operation first.
fn steps(choices: &[Vec<Choice>], rows: &[Vec<usize>]) -> Vec<Step> {
    let mut steps = Vec::new();
    for (row, kept) in rows.iter().enumerate() {
        let rate = |from: usize, to: usize| {
            let (from, to) = (choices[row][from], choices[row][to]);
            (from.omega - to.omega) / (to.bops - from.bops) as f64
        };
        let mut at = 0;
        while let Some(next) = (at + 1..kept.len()).max_by(|&a, &b| rate(kept[at], kept[a]).total_cmp(&rate(kept[at], kept[b]))) {
            steps.push(Step { rate: rate(kept[at], kept[next]), row, from: kept[at], to: kept[next] });
            at = next;
        }
    }
    steps.sort_by(|a, b| b.rate.total_cmp(&a.rate));
    steps
}

/// Bit operations at which the best choices are known without a solver, with their summed perturbation: step by step what gains most for
/// its cost. Each point is the best for its own cost; between two points the best lies above the straight line.
#[must_use]
pub fn hull(choices: &[Vec<Choice>]) -> Vec<(u64, f64)> {
    let rows: Vec<Vec<usize>> = choices.iter().map(|row| worthwhile(row)).collect();
    let cheapest = || rows.iter().zip(choices).filter_map(|(row, choices)| row.first().map(|&at| choices[at]));
    let mut here = (cheapest().map(|c| c.bops).sum::<u64>(), cheapest().map(|c| c.omega).sum::<f64>());
    let mut points = vec![here];
    for Step { row, from, to, .. } in steps(choices, &rows) {
        let (from, to) = (choices[row][from], choices[row][to]);
        here = (here.0 + to.bops - from.bops, here.1 - (from.omega - to.omega));
        points.push(here);
    }
    points
}

/// The choices that a best solution can hold: the others are ruled out by a Lagrangian bound, so the program stays exact and gets small.
///
/// With a price `lambda` for each operation, no solution that takes choice `j` of row `i` is better than the sum of every other row's
/// cheapest priced choice and `j`, less the price of the budget. Where that is worse than a solution that is already known, `j` is out.
fn core(choices: &[Vec<Choice>], rows: &[Vec<usize>], room: u64) -> Vec<Vec<usize>> {
    // A good solution first: the steps that gain most, as long as they fit.
    let mut picked: Vec<usize> = rows.iter().map(|row| row[0]).collect();
    let (mut left, mut lambda) = (room, None);
    for Step { rate, row, from, to } in steps(choices, rows) {
        let cost = choices[row][to].bops - choices[row][from].bops;
        if picked[row] == from && cost <= left {
            (picked[row], left) = (to, left - cost);
        } else {
            lambda = lambda.or(Some(rate));
        }
    }
    let Some(lambda) = lambda else {
        return picked.into_iter().map(|best| vec![best]).collect(); // Everything fits.
    };
    let known: f64 = picked.iter().zip(choices).map(|(&pick, row)| row[pick].omega).sum();
    let priced = |row: usize, index: usize| {
        let above = choices[row][index].bops - choices[row][rows[row][0]].bops;
        choices[row][index].omega + lambda * above as f64
    };
    let least: Vec<f64> =
        rows.iter().enumerate().map(|(row, kept)| kept.iter().map(|&i| priced(row, i)).fold(f64::INFINITY, f64::min)).collect();
    let bound = least.iter().sum::<f64>() - lambda * room as f64;
    let slack = 1e-9 * known.abs();
    let possible = |(row, kept): (usize, &Vec<usize>)| {
        kept.iter().copied().filter(|&i| i == picked[row] || bound + priced(row, i) - least[row] <= known + slack).collect()
    };
    rows.iter().enumerate().map(possible).collect()
}

/// The integer program over the worthwhile choices. A row's cheapest choice is what is left when no other is taken.
fn program(choices: &[Vec<Choice>], rows: &[Vec<usize>], room: f64, allowed: f64) -> Result<Vec<usize>> {
    let gain = |row: usize, index: usize| choices[row][rows[row][0]].omega - choices[row][index].omega;
    let scale = (0..rows.len()).filter_map(|r| rows[r].last().map(|&i| gain(r, i))).fold(0.0, f64::max);
    if scale <= 0.0 {
        return Ok(rows.iter().map(|row| row[0]).collect());
    }
    let mut problem = variables!();
    let mut taken: Vec<Vec<(usize, Variable)>> = Vec::with_capacity(rows.len());
    let (mut objective, mut cost) = (Expression::default(), Expression::default());
    for (row, kept) in rows.iter().enumerate() {
        let mut of_row = Vec::new();
        for &index in &kept[1..] {
            let chosen = problem.add(variable().binary());
            objective += gain(row, index) / scale * chosen;
            cost += (choices[row][index].bops - choices[row][kept[0]].bops) as f64 / room * chosen;
            of_row.push((index, chosen));
        }
        taken.push(of_row);
    }
    let mut model = problem.maximise(objective).using(microlp).with(constraint!(cost <= allowed));
    for of_row in taken.iter().filter(|of_row| !of_row.is_empty()) {
        let sum: Expression = of_row.iter().map(|&(_, chosen)| Expression::from(chosen)).sum();
        model = model.with(constraint!(sum <= 1.0));
    }
    let solved = model.solve().map_err(|e| Error::content("allocation", format!("the solver gave up ({e})"), "change the budget"))?;
    let pick = |(row, of_row): (&Vec<usize>, &Vec<(usize, Variable)>)| {
        of_row.iter().find(|(_, chosen)| solved.value(*chosen) > 0.5).map_or(row[0], |(index, _)| *index)
    };
    Ok(rows.iter().zip(&taken).map(pick).collect())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn choice(bops: u64, omega: f64) -> Choice {
        Choice { bops, omega }
    }

    fn cost(choices: &[Vec<Choice>], picked: &[usize]) -> (u64, f64) {
        let chosen = || choices.iter().zip(picked).map(|(row, &i)| row[i]);
        (chosen().map(|c| c.bops).sum(), chosen().map(|c| c.omega).sum())
    }

    fn brute_force(choices: &[Vec<Choice>], budget: u64) -> Option<f64> {
        let mut sums = vec![(0_u64, 0.0_f64)];
        for row in choices {
            sums = sums.iter().flat_map(|&(b, o)| row.iter().map(move |c| (b + c.bops, o + c.omega))).collect();
        }
        sums.into_iter().filter(|(b, _)| *b <= budget).map(|(_, o)| o).min_by(f64::total_cmp)
    }

    #[test]
    fn a_hand_solved_allocation() {
        // 10 operations: the second site's step from 2 to 6 (gain 5 for 4) beats the first's from 3 to 6 (gain 4 for 3), both do not fit.
        let choices = [vec![choice(3, 9.0), choice(6, 5.0)], vec![choice(2, 8.0), choice(6, 3.0), choice(5, 9.0)]];
        assert_eq!(solve(&choices, 10).unwrap(), Some(vec![0, 1]));
        assert_eq!(solve(&choices, 8).unwrap(), Some(vec![1, 0]));
        assert_eq!(solve(&choices, 12).unwrap(), Some(vec![1, 1]));
        assert_eq!(solve(&choices, 5).unwrap(), Some(vec![0, 0]));
        assert_eq!(solve(&choices, 4).unwrap(), None);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]
        #[test]
        fn the_solver_finds_what_brute_force_finds_and_keeps_the_budget(
            rows in prop::collection::vec(prop::collection::vec((1_u64..5_000_000_000, 0.0_f64..1.0), 1..5), 1..6),
            share in 0.0_f64..1.2,
        ) {
            let choices: Vec<Vec<Choice>> = rows.iter().map(|row| row.iter().map(|&(b, o)| choice(b, o)).collect()).collect();
            let most: u64 = choices.iter().map(|row| row.iter().map(|c| c.bops).max().unwrap()).sum();
            let budget = (most as f64 * share) as u64;
            match (solve(&choices, budget).unwrap(), brute_force(&choices, budget)) {
                (Some(picked), Some(best)) => {
                    let (bops, omega) = cost(&choices, &picked);
                    prop_assert!(bops <= budget);
                    prop_assert!((omega - best).abs() < 1e-6, "{omega} instead of {best}");
                }
                (None, None) => {}
                (solved, best) => prop_assert!(false, "{solved:?} but {best:?}"),
            }
        }
    }

    #[test]
    fn the_size_of_a_real_network_is_no_trouble() {
        let mut random = fastrand::Rng::with_seed(7);
        let choices: Vec<Vec<Choice>> = (0..98)
            .map(|_| {
                let (worth, price) = (random.f64(), 1 + random.u64(1..50_000_000));
                (1..=10).map(|g| choice(g * price, worth * (1.0 + 0.3 * random.f64()) / g as f64)).collect()
            })
            .collect();
        let uniform: u64 = choices.iter().map(|row| row[3].bops).sum();
        let picked = solve(&choices, uniform).unwrap().unwrap();
        let (bops, omega) = cost(&choices, &picked);
        assert!(bops <= uniform);
        assert!(omega <= cost(&choices, &[3; 98]).1);
        // What the bound leaves for the solver is small.
        let rows: Vec<Vec<usize>> = choices.iter().map(|row| worthwhile(row)).collect();
        let cheapest: u64 = rows.iter().zip(&choices).map(|(row, c)| c[row[0]].bops).sum();
        let open = core(&choices, &rows, uniform - cheapest).iter().filter(|row| row.len() > 1).count();
        assert!(open <= 30, "{open} rows are open");
    }
}
