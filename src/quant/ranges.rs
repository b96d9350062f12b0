//! Ranges of channels and rows for one picture: what calibration collects and what groups are made of.

use super::uniform::Bounds;
use crate::model::SiteKind;

/// What has a range of its own in the `(rows, last)` values of one picture at a site.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Along {
    /// Channels: the columns.
    Channels,
    /// Rows of a softmax, whose lower end is zero.
    SoftmaxRows,
    /// Tokens: the rows.
    Tokens,
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
        matches!(self, Self::SoftmaxRows | Self::Tokens)
    }
}

/// The ranges of one picture; `last` is the last dimension of the tensor.
#[must_use]
pub fn of_picture(along: Along, values: &[f32], last: usize) -> Vec<Bounds> {
    match along {
        Along::Channels => of_channels(values, last),
        Along::SoftmaxRows => of_rows(values, last),
        Along::Tokens => values.chunks_exact(last).map(Bounds::of).collect(),
    }
}

/// The range of every channel of one picture: `(N, C)` values to `C` bounds, min and max over the tokens (section 3.2).
#[must_use]
pub fn of_channels(values: &[f32], channels: usize) -> Vec<Bounds> {
    let mut lower = vec![f32::INFINITY; channels];
    let mut upper = vec![f32::NEG_INFINITY; channels];
    for token in values.chunks_exact(channels) {
        for ((low, high), &v) in lower.iter_mut().zip(&mut upper).zip(token) {
            *low = low.min(v);
            *high = high.max(v);
        }
    }
    lower.into_iter().zip(upper).map(|(l, u)| Bounds::new(l, u)).collect()
}

/// The range of every softmax row of one picture: `(rows, N)` values to `rows` bounds `(0, max)` (method, section 5).
#[must_use]
pub fn of_rows(values: &[f32], columns: usize) -> Vec<Bounds> {
    values.chunks_exact(columns).map(|row| Bounds::new(0.0, Bounds::of(row).upper)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn channels_run_down_and_rows_run_along() {
        let values = [1.0, -2.0, 3.0, 4.0, 0.5, -6.0]; // 2 tokens of 3 channels
        assert_eq!(of_channels(&values, 3), [Bounds::new(1.0, 4.0), Bounds::new(-2.0, 0.5), Bounds::new(-6.0, 3.0)]);
        assert_eq!(of_rows(&values, 3), [Bounds::new(0.0, 3.0), Bounds::new(0.0, 4.0)]);
    }
}
