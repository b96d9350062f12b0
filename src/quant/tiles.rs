//! Scales of this picture's own values: one for every tile, which is a token's values in one group of channels, or one channel's values in a
//! band of neighbouring tokens. Nothing is fitted but the groups.

use std::sync::Arc;

use multiversion::multiversion;

use super::bits::BitWidth;
use super::format::Format;
use super::quantizer::Quantizer;
use super::uniform::{Bounds, ChannelQuantizer, widen_channels};
use crate::model::kernels;

/// How the `(rows, columns)` values of one picture fall into tiles.
#[derive(Debug, Clone, PartialEq)]
pub struct Tiles {
    /// How the values of a tile become codes.
    pub format: Format,
    /// Bits of a code.
    pub bits: BitWidth,
    /// The range of all values: formats with two scales have one for the tensor.
    pub whole: Bounds,
    shape: Shape,
}

#[derive(Debug, Clone, PartialEq)]
enum Shape {
    /// A tile for every row and group of columns.
    Rows {
        /// Columns in the order of their groups; none where they stand so already.
        order: Option<Arc<[u32]>>,
        /// Where each group ends in that order.
        ends: Arc<[u32]>,
    },
    /// A tile for every column and band of rows.
    Columns {
        /// Rows of a band.
        band: usize,
        /// Bands begin anew after so many rows: the tokens of a window.
        unit: usize,
    },
}

/// Blocks of `length` neighbouring columns, beginning anew after every `unit`: where each ends.
fn ends(columns: usize, unit: usize, length: usize) -> Arc<[u32]> {
    let unit = unit.clamp(1, columns.max(1));
    let ends = (0..columns).step_by(unit).flat_map(|start| {
        let end = (start + unit).min(columns);
        (start..end).step_by(length.max(1)).map(move |first| first.saturating_add(length).min(end) as u32)
    });
    ends.collect()
}

/// The block of each of `columns` columns: blocks of `length`, beginning anew after every `unit`.
#[must_use]
pub fn blocks(columns: usize, unit: usize, length: usize) -> Vec<u16> {
    let mut blocks = Vec::with_capacity(columns);
    for (block, &end) in ends(columns, unit, length).iter().enumerate() {
        blocks.resize(end as usize, block as u16);
    }
    blocks
}

impl Tiles {
    /// A scale for every row and block of `length` columns, blocks beginning anew after every `unit` columns.
    #[must_use]
    pub fn blocks(format: Format, bits: BitWidth, whole: Bounds, columns: usize, unit: usize, length: usize) -> Self {
        Self { format, bits, whole, shape: Shape::Rows { order: None, ends: ends(columns, unit, length) } }
    }

    /// A scale for every column and band of `band` rows, bands beginning anew after every `unit` rows.
    #[must_use]
    pub const fn bands(format: Format, bits: BitWidth, whole: Bounds, band: usize, unit: usize) -> Self {
        Self { format, bits, whole, shape: Shape::Columns { band, unit } }
    }

    /// A scale for every row and group of columns.
    #[must_use]
    pub fn groups(format: Format, bits: BitWidth, whole: Bounds, assignment: &[u16]) -> Self {
        let mut order: Vec<u32> = (0..assignment.len() as u32).collect();
        order.sort_by_key(|&column| assignment[column as usize]);
        let group = |place: usize| assignment[order[place] as usize];
        let ends = (1..=order.len()).filter(|&place| place == order.len() || group(place) != group(place - 1)).map(|place| place as u32);
        let ends = ends.collect();
        Self { format, bits, whole, shape: Shape::Rows { order: Some(order.into()), ends } }
    }

    /// Quantizes and dequantizes the values of the picture that the tiles were made for into `quantized`, rows of `last` values.
    pub fn apply(&self, values: &[f32], quantized: &mut [f32], last: usize) {
        match &self.shape {
            Shape::Rows { order, ends } => {
                let of_block = |start: usize, quantized: &mut [f32]| {
                    let (mut sorted, mut done) = (vec![0.0; last], vec![0.0; last]);
                    let values = &values[start..start + quantized.len()];
                    for (row, out) in values.chunks_exact(last).zip(quantized.chunks_exact_mut(last)) {
                        let Some(order) = order else {
                            self.row(row, out, ends);
                            continue;
                        };
                        gather(row, order, &mut sorted);
                        self.row(&sorted, &mut done, ends);
                        scatter(&done, order, out);
                    }
                };
                kernels::change_rows(quantized, last, of_block);
            }
            Shape::Columns { band, unit } => {
                let unit_values = unit * last;
                for (values, out) in values.chunks(unit_values).zip(quantized.chunks_mut(unit_values)) {
                    for (values, out) in values.chunks(band * last).zip(out.chunks_mut(band * last)) {
                        self.band(values, out, last);
                    }
                }
            }
        }
    }

    /// One row whose groups stand side by side.
    fn row(&self, row: &[f32], out: &mut [f32], ends: &[u32]) {
        let mut start = 0;
        for &end in ends {
            let (values, out) = (&row[start..end as usize], &mut out[start..end as usize]);
            match self.format.quantizer(Bounds::of(values), self.whole, self.bits) {
                Some(quantizer) => quantizer.apply_all(values, out),
                None => out.copy_from_slice(values),
            }
            start = end as usize;
        }
    }

    fn band(&self, values: &[f32], out: &mut [f32], last: usize) {
        let quantizers = self.of_band(values, last);
        let uniform: Option<Vec<_>> = quantizers.iter().map(Quantizer::as_uniform).collect();
        if let Some(uniform) = uniform.filter(|uniform| uniform.len() == last) {
            return ChannelQuantizer::new(uniform.into_iter()).apply(values, out);
        }
        for (row, out) in values.chunks_exact(last).zip(out.chunks_exact_mut(last)) {
            row.iter().zip(out).zip(&quantizers).for_each(|((&x, y), quantizer)| *y = quantizer.apply(x));
        }
    }

    /// The quantizer of every column of a band; none for float bits.
    fn of_band(&self, values: &[f32], last: usize) -> Vec<Quantizer> {
        let (mut lower, mut upper) = (vec![f32::INFINITY; last], vec![f32::NEG_INFINITY; last]);
        widen_channels(&mut lower, &mut upper, values);
        let ranges = lower.into_iter().zip(upper).map(|(l, u)| Bounds::new(l, u));
        ranges.filter_map(|range| self.format.quantizer(range, self.whole, self.bits)).collect()
    }

    /// Shows the quantizer of every column of every row, in order, to `see`: `(row, quantizers)`.
    pub fn each_row(&self, values: &[f32], last: usize, mut see: impl FnMut(usize, &[Quantizer])) {
        let mut of_row = Vec::with_capacity(last);
        match &self.shape {
            Shape::Rows { order, ends } => {
                let mut sorted = vec![0.0; last];
                for (index, row) in values.chunks_exact(last).enumerate() {
                    match order {
                        Some(order) => gather(row, order, &mut sorted),
                        None => sorted.copy_from_slice(row),
                    }
                    of_row.clear();
                    let mut start = 0;
                    for &end in ends.iter() {
                        let range = Bounds::of(&sorted[start..end as usize]);
                        let Some(quantizer) = self.format.quantizer(range, self.whole, self.bits) else { return };
                        of_row.resize(end as usize, quantizer);
                        start = end as usize;
                    }
                    if let Some(order) = order {
                        let placed = of_row.clone();
                        order.iter().zip(placed).for_each(|(&column, quantizer)| of_row[column as usize] = quantizer);
                    }
                    see(index, &of_row);
                }
            }
            Shape::Columns { band, unit } => {
                let mut row = 0;
                for values in values.chunks(unit * last) {
                    for values in values.chunks(band * last) {
                        let quantizers = self.of_band(values, last);
                        for _ in values.chunks_exact(last).take_while(|_| quantizers.len() == last) {
                            see(row, &quantizers);
                            row += 1;
                        }
                    }
                }
            }
        }
    }
}

#[multiversion(targets = "simd")]
fn gather(row: &[f32], order: &[u32], sorted: &mut [f32]) {
    for (y, &column) in sorted.iter_mut().zip(order) {
        *y = row[column as usize];
    }
}

#[multiversion(targets = "simd")]
fn scatter(sorted: &[f32], order: &[u32], row: &mut [f32]) {
    for (&x, &column) in sorted.iter().zip(order) {
        row[column as usize] = x;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Place = fn(usize, usize) -> usize;

    fn values(n: usize) -> Vec<f32> {
        let mut random = fastrand::Rng::with_seed(3);
        (0..n).map(|i| (random.f32() - 0.3) * (1.0 + (i % 7) as f32)).collect()
    }

    #[test]
    fn every_tile_has_the_quantizer_of_its_own_values() {
        let (rows, last) = (13, 10);
        let values = values(rows * last);
        let bits = BitWidth::new(4).unwrap();
        let whole = Bounds::of(&values);
        let assignment: Vec<u16> = (0..last).map(|c| [2, 0, 1][c % 3]).collect();
        // Which values share a tile, told value by value.
        let cases: [(Tiles, Place); 3] = [
            (Tiles::blocks(Format::Int, bits, whole, last, 5, 3), |r, c| r * 100 + (c / 5) * 10 + (c % 5) / 3),
            (Tiles::bands(Format::Int, bits, whole, 4, 6), |r, c| ((r / 6) * 10 + (r % 6) / 4) * 100 + c),
            (Tiles::groups(Format::Int, bits, whole, &assignment), |r, c| r * 100 + c % 3),
        ];
        for (tiles, place) in cases {
            let mut out = vec![0.0; values.len()];
            tiles.apply(&values, &mut out, last);
            let mut seen = 0;
            tiles.each_row(&values, last, |row, quantizers| {
                assert_eq!(row, seen);
                seen += 1;
                for (column, quantizer) in quantizers.iter().enumerate() {
                    let mine = place(row, column);
                    let members = (0..values.len()).filter(|i| place(i / last, i % last) == mine).map(|i| values[i]);
                    let own = format_of(&members.collect::<Vec<_>>(), bits);
                    assert_eq!(*quantizer, own, "row {row}, column {column}");
                    let at = row * last + column;
                    assert_eq!(out[at], own.apply(values[at]));
                }
            });
            assert_eq!(seen, rows);
        }
    }

    fn format_of(values: &[f32], bits: BitWidth) -> Quantizer {
        Format::Int.quantizer(Bounds::of(values), Bounds::of(values), bits).unwrap()
    }

    #[test]
    fn blocks_begin_anew_with_every_unit() {
        assert_eq!(blocks(10, 5, 3), [0, 0, 0, 1, 1, 2, 2, 2, 3, 3]);
        assert_eq!(blocks(4, 4, usize::MAX), [0; 4]);
    }
}
