//! What calibration keeps of a linear layer's inputs for the rounding of its weights: the mean square of every channel, and a triangular
//! factor of the inverse of `H = X^T X` (GPTQ, Frantar et al., ICLR 2023, arXiv 2210.17323, section 3).

use faer::{Mat, Par, Side, linalg::triangular_inverse::invert_lower_triangular};

use crate::error::{Error, Result};
use crate::model::kernels;

/// What is added to the diagonal of `H`, as a share of its mean: GPTQ's.
const DAMPING: f64 = 0.01;

/// Inputs of a layer above which its weights are rounded to nearest \[D\]: the factor grows with their square, the time with their cube. The first
/// layer behind regions has 12,544.
pub const WIDEST: usize = 8192;

/// The upper triangle of a square matrix, row by row.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Triangle {
    /// Rows and columns.
    pub size: usize,
    /// Row `i` has `size - i` values.
    pub values: Vec<f32>,
}

impl Triangle {
    fn zero(size: usize) -> Self {
        Self { size, values: vec![0.0; size * (size + 1) / 2] }
    }

    /// Where row `row` begins.
    const fn start(&self, row: usize) -> usize {
        row * (2 * self.size + 1 - row) / 2
    }

    /// Row `row`, from the diagonal on.
    #[must_use]
    pub fn row(&self, row: usize) -> &[f32] {
        &self.values[self.start(row)..self.start(row + 1)]
    }

    fn at(&self, row: usize, column: usize) -> f32 {
        let (row, column) = (row.min(column), row.max(column));
        self.values[self.start(row) + column - row]
    }
}

/// `X^T X` of one layer's inputs, summed picture by picture.
#[derive(Debug, Clone, Default)]
pub(super) struct Gram {
    sums: Triangle,
    tokens: usize,
}

impl Gram {
    /// Adds tokens, rows of `channels` values.
    ///
    /// # Errors
    /// Only when the kernel refuses the shapes.
    pub fn add(&mut self, tokens: &[f32], channels: usize) -> Result<()> {
        if self.sums.size != channels {
            *self = Self { sums: Triangle::zero(channels), tokens: 0 };
        }
        let product = kernels::gram(tokens, channels)?;
        for (row, values) in product.chunks_exact(channels).enumerate() {
            let start = self.sums.start(row);
            self.sums.values[start..].iter_mut().zip(&values[row..]).for_each(|(sum, x)| *sum += x);
        }
        self.tokens += tokens.len() / channels;
        Ok(())
    }

    /// What the rounding of weights needs of it.
    ///
    /// # Errors
    /// When the inputs were not finite.
    pub fn finish(self) -> Result<Curvature> {
        let (n, tokens) = (self.sums.size, self.tokens.max(1) as f64);
        let mean_squares: Vec<f32> = (0..n).map(|c| (f64::from(self.sums.at(c, c)) / tokens) as f32).collect();
        let mut order: Vec<u32> = (0..n as u32).collect();
        order.sort_by(|&a, &b| mean_squares[b as usize].total_cmp(&mean_squares[a as usize]).then(a.cmp(&b)));
        let mean = mean_squares.iter().map(|&x| f64::from(x)).sum::<f64>() / n.max(1) as f64;
        // Inputs that are always zero have no say in anything.
        let damping = if mean > 0.0 { DAMPING * mean } else { 1.0 };
        // In the reverse order a lower factor L of H gives H^-1 = U^T U with U = L^-1 turned around both ways.
        let channel = |place: usize| order[n - 1 - place] as usize;
        let h =
            Mat::<f64>::from_fn(n, n, |i, j| f64::from(self.sums.at(channel(i), channel(j))) / tokens + if i == j { damping } else { 0.0 });
        let indefinite =
            |_| Error::content("calibration", "the inputs of a layer are not finite", "look at the pictures and the checkpoint");
        let lower = h.llt(Side::Lower).map_err(indefinite)?;
        let mut inverse = Mat::<f64>::zeros(n, n);
        invert_lower_triangular(inverse.as_mut(), lower.L(), Par::Seq);
        let mut upper = Triangle::zero(n);
        for row in 0..n {
            let start = upper.start(row);
            for column in row..n {
                upper.values[start + column - row] = inverse[(n - 1 - row, n - 1 - column)] as f32;
            }
        }
        Ok(Curvature { mean_squares, order, upper })
    }
}

/// How much the output of a layer changes with its weights.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Curvature {
    /// `E[x_c^2]` of every input channel.
    pub mean_squares: Vec<f32>,
    /// The channels in the order in which their weights are rounded: the largest mean square first.
    pub order: Vec<u32>,
    /// `U` of `(H + damping)^-1 = U^T U`, channels in that order.
    pub upper: Triangle,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_factor_is_that_of_the_damped_inverse() {
        let mut random = fastrand::Rng::with_seed(2);
        let (tokens, channels) = (40, 9);
        let mut x: Vec<f32> = (0..tokens * channels).map(|i| (random.f32() - 0.4) * (1 + i % channels) as f32).collect();
        x.iter_mut().skip(4).step_by(channels).for_each(|x| *x = 0.0); // a dead channel
        let mut gram = Gram::default();
        for part in x.chunks(10 * channels) {
            gram.add(part, channels).unwrap();
        }
        let curvature = gram.finish().unwrap();
        let at = |t: usize, place: usize| f64::from(x[t * channels + curvature.order[place] as usize]);
        let h = |i: usize, j: usize| (0..tokens).map(|t| at(t, i) * at(t, j)).sum::<f64>() / tokens as f64;
        let mean = (0..channels).map(|i| h(i, i)).sum::<f64>() / channels as f64;
        let u = |i: usize, j: usize| if j >= i { f64::from(curvature.upper.at(i, j)) } else { 0.0 };
        for i in 0..channels {
            for j in 0..channels {
                // (H + damping) U^T U = 1
                let damped = |k: usize| h(i, k) + if i == k { 0.01 * mean } else { 0.0 };
                let product: f64 = (0..channels).map(|k| damped(k) * (0..channels).map(|r| u(r, k) * u(r, j)).sum::<f64>()).sum();
                assert!((product - f64::from(u8::from(i == j))).abs() < 1e-3, "({i}, {j}): {product}");
            }
        }
        assert_eq!(*curvature.order.last().unwrap(), 4, "the dead channel comes last");
    }
}
