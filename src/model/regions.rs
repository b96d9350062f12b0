//! Regions of a picture: which of several boxes stand for one object, and what a map holds inside of a box. Both as torchvision has them
//! (`nms`; `roi_align` with `aligned=True`).

use candle_core::{CpuStorage, CustomOp1, Layout, Shape, Tensor, bail};
use rayon::prelude::*;

use crate::error::Result;

/// The boxes (left, top, right, bottom) that stay, the likeliest first: one goes where a likelier one overlaps it by more than `overlap`.
#[must_use]
pub fn suppress(boxes: &[[f32; 4]], scores: &[f32], overlap: f32) -> Vec<usize> {
    let area = |b: &[f32; 4]| (b[2] - b[0]) * (b[3] - b[1]);
    let mut order: Vec<usize> = (0..boxes.len().min(scores.len())).collect();
    order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]).then(a.cmp(&b)));
    let mut kept: Vec<usize> = Vec::new();
    for at in order {
        let this = &boxes[at];
        let covers = |other: &usize| {
            let other = &boxes[*other];
            let across = (this[2].min(other[2]) - this[0].max(other[0])).max(0.0);
            let down = (this[3].min(other[3]) - this[1].max(other[1])).max(0.0);
            let both = across * down;
            both / (area(this) + area(other) - both) > overlap
        };
        if !kept.iter().any(covers) {
            kept.push(at);
        }
    }
    kept
}

/// A box in pixels over a map: left, top, right, bottom.
pub type Region = [f32; 4];

/// The samples of a box over a map of `grid` whose cells are `1/scale` pixels wide: calls `see` with the part of the box (of `size` by `size`, row by
/// row), a cell, and its share. Each part is the mean of samples between cells, as many as it is cells wide and high; cells outside of the map are
/// zero.
fn samples((rows, columns): (usize, usize), region: Region, scale: f32, size: usize, mut see: impl FnMut(usize, usize, f32)) {
    let [left, top, right, bottom] = region.map(|side| side * scale - 0.5);
    let (wide, high) = ((right - left) / size as f32, (bottom - top) / size as f32);
    let count = |side: f32| side.ceil().max(0.0) as usize;
    let (across, down) = (count(wide), count(high));
    let each = 1.0 / (across * down).max(1) as f32;
    for bin in 0..size * size {
        for sample in 0..across * down {
            let y = top + (bin / size) as f32 * high + ((sample / across) as f32 + 0.5) * high / down as f32;
            let x = left + (bin % size) as f32 * wide + ((sample % across) as f32 + 0.5) * wide / across as f32;
            if y < -1.0 || x < -1.0 || y > rows as f32 || x > columns as f32 {
                continue;
            }
            let axis = |at: f32, length: usize| {
                let at = at.max(0.0);
                let first = at as usize;
                if first + 1 >= length { (length - 1, length - 1, 0.0) } else { (first, first + 1, at - first as f32) }
            };
            let ((y0, y1, dy), (x0, x1, dx)) = (axis(y, rows), axis(x, columns));
            for (row, column, weight) in
                [(y0, x0, (1.0 - dy) * (1.0 - dx)), (y0, x1, (1.0 - dy) * dx), (y1, x0, dy * (1.0 - dx)), (y1, x1, dy * dx)]
            {
                see(bin, row * columns + column, weight * each);
            }
        }
    }
}

/// What a map `(rows columns, C)` holds inside of a box: `(size size, C)`.
#[must_use]
pub fn align(map: &[f32], grid: (usize, usize), region: Region, scale: f32, size: usize) -> Vec<f32> {
    let channels = map.len() / (grid.0 * grid.1).max(1);
    let mut out = vec![0.0; size * size * channels];
    align_into(&mut out, map, grid, region, scale, size);
    out
}

/// The same, added to `out`.
fn align_into(out: &mut [f32], map: &[f32], grid: (usize, usize), region: Region, scale: f32, size: usize) {
    let channels = map.len() / (grid.0 * grid.1).max(1);
    samples(grid, region, scale, size, |bin, cell, share| {
        let (out, cell) = (&mut out[bin * channels..][..channels], &map[cell * channels..][..channels]);
        out.iter_mut().zip(cell).for_each(|(sum, value)| *sum += share * value);
    });
}

/// What the levels of a pyramid hold inside of boxes, each read from the level that suits its size.
#[derive(Debug, Clone)]
pub struct Pool {
    /// Rows and columns of the levels, the finest first; they stand one behind another.
    pub levels: Vec<(usize, usize)>,
    /// Pixels from one cell of the finest level to the next.
    pub stride: usize,
    /// The boxes of every picture.
    pub regions: Vec<Vec<Region>>,
    /// Rows and columns of what is read of each.
    pub size: usize,
}

/// The side of a box in pixels from which on it is read from the second level.
const FINEST: f32 = 112.0;

impl Pool {
    /// The level that a box is read from.
    fn level(&self, [left, top, right, bottom]: Region) -> usize {
        let side = ((right - left).max(0.0) * (bottom - top).max(0.0)).sqrt();
        let level = (side / (FINEST / 2.0) + 1e-6).log2().floor().max(0.0) as usize;
        level.min(self.levels.len().saturating_sub(1))
    }

    /// Where its level begins among the tokens, its grid, and cells a pixel.
    fn place(&self, region: Region) -> (usize, (usize, usize), f32) {
        let level = self.level(region);
        let start = self.levels[..level].iter().map(|(rows, columns)| rows * columns).sum();
        (start, self.levels[level], 1.0 / (self.stride << level) as f32)
    }

    /// `(B, N, C)` to `(B, R size size, C)`, `R` boxes a picture; what stands behind the levels is not read.
    ///
    /// # Errors
    /// When there are not so many tokens, or boxes of so many pictures.
    pub fn forward(self, maps: &Tensor) -> Result<Tensor> {
        Ok(if maps.track_op() { maps.contiguous()?.apply_op1(self)? } else { maps.contiguous()?.apply_op1_no_bwd(&self)? })
    }

    fn check(&self, shape: &Shape) -> candle_core::Result<(usize, usize)> {
        let (pictures, tokens, channels) = shape.dims3()?;
        let needed: usize = self.levels.iter().map(|(rows, columns)| rows * columns).sum();
        if self.regions.len() != pictures || tokens < needed || self.levels.is_empty() {
            bail!("boxes of {} pictures over {needed} tokens, found {pictures} pictures of {tokens}", self.regions.len());
        }
        Ok((tokens, channels))
    }
}

impl CustomOp1 for Pool {
    fn name(&self) -> &'static str {
        "RoIAlign"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        let (CpuStorage::F32(values), Some((start, end))) = (storage, layout.contiguous_offsets()) else {
            bail!("{} takes contiguous float32 values", self.name());
        };
        let (tokens, channels) = self.check(layout.shape())?;
        let (of_region, count) = (self.size * self.size * channels, self.regions.first().map_or(0, Vec::len));
        let mut out = vec![0.0; self.regions.len() * count * of_region];
        let parts = out.chunks_mut((count * of_region).max(1));
        for ((picture, regions), out) in values[start..end].chunks_exact((tokens * channels).max(1)).zip(&self.regions).zip(parts) {
            out.par_chunks_mut(of_region.max(1)).zip(regions).for_each(|(out, region)| {
                let (start, grid, scale) = self.place(*region);
                align_into(out, &picture[start * channels..][..grid.0 * grid.1 * channels], grid, *region, scale, self.size);
            });
        }
        Ok((CpuStorage::F32(out), Shape::from((self.regions.len(), count * self.size * self.size, channels))))
    }

    fn bwd(&self, maps: &Tensor, _out: &Tensor, gradient: &Tensor) -> candle_core::Result<Option<Tensor>> {
        let (tokens, channels) = self.check(maps.shape())?;
        let gradient = gradient.flatten_all()?.to_vec1::<f32>()?;
        let mut back = vec![0.0_f32; maps.elem_count()];
        let of_region = self.size * self.size * channels;
        let mut parts = gradient.chunks_exact(of_region.max(1));
        for (picture, regions) in back.chunks_exact_mut((tokens * channels).max(1)).zip(&self.regions) {
            for (region, gradient) in regions.iter().zip(&mut parts) {
                let (start, grid, scale) = self.place(*region);
                samples(grid, *region, scale, self.size, |bin, cell, share| {
                    let cell = &mut picture[(start + cell) * channels..][..channels];
                    cell.iter_mut().zip(&gradient[bin * channels..]).for_each(|(sum, value)| *sum += share * value);
                });
            }
        }
        Ok(Some(Tensor::from_vec(back, maps.dims(), maps.device())?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// torchvision 0.14.1: inside, over an edge, at a corner, of no size, smaller than a cell, outside, flat.
    #[test]
    fn what_a_map_holds_inside_of_a_box_is_what_torchvision_says() {
        let map = [
            -1.1, 0.9, -1.2, -0.8, -0.3, -0.6, -0.4, 0.0, 0.8, -0.5, 0.7, 0.2, -0.3, 0.4, -2.1, 0.1, 0.3, 0.6, -1.3, 0.4, 0.3, -0.1, 0.3,
            0.8, 0.1, -0.3, 1.2, 0.1, 1.1, 0.6, -0.2, 1.5, -1.4, 0.5, -1.7, -0.6, 0.6, -0.6, 0.8, 0.9, 0.6, 1.1, -1.6, 1.3, -0.3, -1.5,
            1.9, -0.2, 0.8, 0.4, -0.6, 1.3, -0.2, -1.6, 0.2, -0.5, 1.4, -0.5, 1.6, -0.5,
        ];
        let regions = [
            [0.0, 0.0, 24.0, 20.0],
            [3.3, 2.1, 17.7, 11.9],
            [-6.0, -4.0, 5.0, 5.0],
            [20.0, 15.0, 60.0, 50.0],
            [7.0, 7.0, 7.0, 7.0],
            [0.2, 0.2, 0.9, 0.8],
            [100.0, 100.0, 120.0, 130.0],
            [2.0, 18.0, 22.0, 19.5],
        ];
        let expected: [[f32; 18]; 8] = [
            [
                -1.168_75, 0.125, -0.406_25, 0.0, 0.581_25, 0.0375, 0.275, 0.025, 0.054_167, 0.966_667, -0.675, -0.133_333, 0.325, 0.5875,
                -0.1875, -0.206_25, 1.2375, -0.631_25,
            ],
            [
                -1.258_75, -0.167_875, -0.335, -0.055_042, -0.343_666, 0.010_833, -0.873_75, 0.179_688, 0.020_625, 0.572_188, -0.7325,
                0.471_875, 0.966_333, 0.118_583, 0.787, 0.772_667, -0.629_167, 1.122_667,
            ],
            [0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, -1.1, 0.9, -1.129_167, 0.404_167, 0.0, 0.0, -0.8, 0.7125, -1.015_104, 0.369_792],
            [0.540_085, -0.155_855, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0],
            [0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0],
            [-1.1, 0.9, -1.1, 0.9, -1.1, 0.9, -1.1, 0.9, -1.1, 0.9, -1.1, 0.9, -1.1, 0.9, -1.1, 0.9, -1.1, 0.9],
            [0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0],
            [
                -0.141_667, 0.675, -0.0, -1.05, 1.308_333, -0.5, -0.141_667, 0.675, -0.0, -1.05, 1.308_333, -0.5, -0.141_667, 0.675, -0.0,
                -1.05, 1.308_333, -0.5,
            ],
        ];
        for (region, expected) in regions.into_iter().zip(expected) {
            let found = align(&map, (5, 6), region, 0.25, 3);
            assert!(found.iter().zip(expected).all(|(a, b): (&f32, f32)| (a - b).abs() < 1e-5), "{region:?}: {found:?}");
        }
    }

    #[test]
    fn boxes_that_stand_for_one_object_are_those_of_torchvision() {
        let boxes = [
            [0.0, 0.0, 10.0, 10.0],
            [1.0, 1.0, 11.0, 11.0],
            [0.0, 0.0, 10.0, 10.0],
            [20.0, 20.0, 30.0, 30.0],
            [20.0, 20.0, 30.0, 25.0],
            [5.0, 5.0, 5.0, 5.0],
            [5.0, 5.0, 5.0, 5.0],
            [0.0, 5.0, 10.0, 15.0],
        ];
        let scores = [0.9, 0.8, 0.95, 0.7, 0.75, 0.6, 0.5, 0.65];
        for (overlap, expected) in [(0.3, vec![2, 4, 5, 6]), (0.5, vec![2, 4, 3, 7, 5, 6]), (0.7, vec![2, 1, 4, 3, 7, 5, 6])] {
            assert_eq!(suppress(&boxes, &scores, overlap), expected, "{overlap}");
        }
    }

    /// Reading is linear: what a weighted sum grows by along another map is the sum over that map.
    #[test]
    fn what_flows_back_through_boxes_is_what_was_read() {
        let (levels, channels) = (vec![(8, 10), (4, 5)], 3);
        let regions = vec![vec![[1.0, 2.0, 31.0, 30.0], [0.0, 0.0, 0.0, 0.0]], vec![[0.0, 0.0, 159.0, 130.0], [5.0, 5.0, 9.0, 60.0]]];
        let pool = Pool { levels, stride: 4, regions, size: 3 };
        assert_eq!([30.0, 111.0, 112.0, 500.0].map(|side: f32| pool.level([0.0, 0.0, side, side])), [0, 0, 1, 1]);
        let random = || Tensor::randn(0f32, 1.0, (2, 103, channels), &candle_core::Device::Cpu).unwrap();
        let (maps, along) = (candle_core::Var::from_tensor(&random()).unwrap(), random());
        let found = pool.clone().forward(maps.as_tensor()).unwrap();
        assert_eq!(found.dims(), [2, 2 * 9, channels]);
        let by = Tensor::randn(0f32, 1.0, found.dims(), &candle_core::Device::Cpu).unwrap();
        let sum = |output: &Tensor| (output * &by).unwrap().sum_all().unwrap();
        let gradient = sum(&found).backward().unwrap();
        let grows = (gradient.get(maps.as_tensor()).unwrap() * &along).unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap();
        let of_other = sum(&pool.forward(&along).unwrap()).to_scalar::<f32>().unwrap();
        assert!((grows - of_other).abs() < 1e-4 * (1.0 + of_other.abs()), "{grows} {of_other}");
    }
}
