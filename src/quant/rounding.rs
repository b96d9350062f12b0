//! From a weight's values and quantizers to codes: each value to the nearest, or GPTQ, which rounds one input channel after another and
//! lets the channels that are still to come make up for the error (arXiv 2210.17323, section 3).

use multiversion::multiversion;
use rayon::prelude::*;

use super::curvature::Curvature;
use super::quantizer::Quantizer;

/// Output channels that are rounded together, so that a row of the factor is read once for all of them.
const ROWS: usize = 16;

/// The quantizers of a weight `(C_out, C)`: one for every output channel and block of input channels.
#[derive(Clone, Copy)]
pub(super) struct Scales<'s> {
    /// Row by row.
    pub quantizers: &'s [Quantizer],
    /// The block of each input channel.
    pub blocks: &'s [u16],
    /// Blocks of a row.
    pub count: usize,
}

impl Scales<'_> {
    fn of(&self, output: usize, input: usize) -> &Quantizer {
        &self.quantizers[output * self.count + usize::from(self.blocks[input])]
    }
}

/// Every value to the nearest.
pub(super) fn nearest(values: &[f32], columns: usize, scales: Scales) -> Vec<u8> {
    let mut codes = vec![0; values.len()];
    codes.par_chunks_mut(columns).zip(values.par_chunks(columns)).enumerate().for_each(|(output, (codes, row))| {
        for (input, (code, &w)) in codes.iter_mut().zip(row).enumerate() {
            *code = scales.of(output, input).code(w).0 as u8;
        }
    });
    codes
}

/// GPTQ: channel by channel in the order of `curvature`, the error of each spread over those that come later.
pub(super) fn gptq(values: &[f32], columns: usize, scales: Scales, curvature: &Curvature) -> Vec<u8> {
    let mut codes = vec![0; values.len()];
    let tiles = codes.par_chunks_mut(ROWS * columns).zip(values.par_chunks(ROWS * columns)).enumerate();
    tiles.for_each(|(tile, (codes, values))| {
        let rows = values.len() / columns;
        let mut left: Vec<f32> = Vec::with_capacity(values.len());
        for row in values.chunks_exact(columns) {
            left.extend(curvature.order.iter().map(|&input| row[input as usize]));
        }
        for (place, &input) in curvature.order.iter().enumerate() {
            let input = input as usize;
            let upper = curvature.upper.row(place);
            for row in 0..rows {
                let left = &mut left[row * columns + place..(row + 1) * columns];
                let quantizer = scales.of(tile * ROWS + row, input);
                let code = quantizer.code(left[0]).0;
                codes[row * columns + input] = code as u8;
                let error = (left[0] - quantizer.value(code)) / upper[0];
                subtract(&mut left[1..], &upper[1..], error);
            }
        }
    });
    codes
}

/// `left - error upper`
#[multiversion(targets = "simd")]
fn subtract(left: &mut [f32], upper: &[f32], error: f32) {
    for (w, &u) in left.iter_mut().zip(upper) {
        *w -= error * u;
    }
}
