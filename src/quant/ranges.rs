//! Ranges of channels and rows for one picture: what calibration collects and what groups are made of.

use rayon::prelude::*;

use super::uniform::{Bounds, widen_channels};
use crate::model::{SiteKind, kernels};

/// What has a range of its own in the `(rows, last)` values of one picture at a site.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Along {
    /// Channels: the columns.
    Channels,
    /// Rows of a softmax, whose lower end is zero.
    SoftmaxRows,
}

impl Along {
    /// What is grouped at a site of this kind (sections 3.2 and 5).
    #[must_use]
    pub const fn of(kind: SiteKind) -> Self {
        if kind.is_softmax() { Self::SoftmaxRows } else { Self::Channels }
    }

    /// Whether a range belongs to a row and not to a column.
    #[must_use]
    pub const fn is_rows(self) -> bool {
        matches!(self, Self::SoftmaxRows)
    }
}

/// The ranges of one picture; `last` is the last dimension of the tensor.
#[must_use]
pub fn of_picture(along: Along, values: &[f32], last: usize) -> Vec<Bounds> {
    match along {
        Along::Channels => of_channels(values, last),
        Along::SoftmaxRows => of_rows(values, last, |range| Bounds::new(0.0, range.upper)),
    }
}

/// The range of every channel of one picture: `(N, C)` values to `C` bounds, min and max over the tokens (section 3.2).
#[must_use]
pub fn of_channels(values: &[f32], channels: usize) -> Vec<Bounds> {
    let of_block = |block: &[f32]| {
        let (mut lower, mut upper) = (vec![f32::INFINITY; channels], vec![f32::NEG_INFINITY; channels]);
        widen_channels(&mut lower, &mut upper, block);
        (lower, upper)
    };
    let widest = |(mut lower, mut upper): (Vec<f32>, Vec<f32>), (low, high): (Vec<f32>, Vec<f32>)| {
        lower.iter_mut().zip(low).for_each(|(l, low)| *l = l.min(low));
        upper.iter_mut().zip(high).for_each(|(u, high)| *u = u.max(high));
        (lower, upper)
    };
    let block = kernels::block(channels);
    let (lower, upper) = if values.len() <= block {
        of_block(values)
    } else {
        values.par_chunks(block).map(of_block).reduce_with(widest).unwrap_or_default()
    };
    lower.into_iter().zip(upper).map(|(l, u)| Bounds::new(l, u)).collect()
}

/// What `range` makes of the smallest and largest value of every row: `(rows, columns)` values to `rows` bounds. For softmax rows it is
/// `(0, max)` (method, section 5).
fn of_rows(values: &[f32], columns: usize, range: impl Fn(Bounds) -> Bounds + Sync) -> Vec<Bounds> {
    let mut bounds = vec![Bounds::EMPTY; values.len() / columns.max(1)];
    let fill = |(rows, block): (&mut [Bounds], &[f32])| {
        for (bounds, row) in rows.iter_mut().zip(block.chunks_exact(columns)) {
            *bounds = range(Bounds::of(row));
        }
    };
    let block = kernels::block(columns);
    bounds.par_chunks_mut(block / columns.max(1)).zip(values.par_chunks(block)).for_each(fill);
    bounds
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn channels_run_down_and_rows_run_along() {
        let values = [1.0, -2.0, 3.0, 4.0, 0.5, -6.0]; // 2 tokens of 3 channels
        assert_eq!(of_channels(&values, 3), [Bounds::new(1.0, 4.0), Bounds::new(-2.0, 0.5), Bounds::new(-6.0, 3.0)]);
        assert_eq!(of_picture(Along::SoftmaxRows, &values, 3), [Bounds::new(0.0, 3.0), Bounds::new(0.0, 4.0)]);
    }
}
