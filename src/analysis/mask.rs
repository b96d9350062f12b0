//! The mask of one query: where the logits of its pixels are above zero.

/// Logits of the pixels of a mask over the whole input.
#[derive(Debug, Clone, PartialEq)]
pub struct Mask {
    /// Rows and columns.
    pub size: (usize, usize),
    /// Row by row; of a mask over a box the probabilities less a half.
    pub logits: Vec<f32>,
    /// The box that it lies over, where that is not the whole input. Outside it is nowhere.
    pub within: Option<Within>,
}

/// The box of a mask that does not lie over the whole input.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Within {
    /// Left, top, right and bottom as shares of the input.
    pub corners: [f64; 4],
    /// How much of the input is inside of the mask.
    pub area: f64,
}

/// Samples a side by which masks over boxes are measured.
const SAMPLES: usize = 28;
/// The least intersection over union that is measured; below it an upper bound does.
const LEAST: f64 = 0.3;

impl Mask {
    /// Whether the pixel at shares `(across, down)` of the input is inside, between the middles of the mask's pixels; as
    /// `interpolate(mode="bilinear", align_corners=False)` has it.
    #[must_use]
    pub fn is_inside(&self, across: f64, down: f64) -> bool {
        if let Some(within) = self.within {
            return self.is_inside_box(within.corners, across, down);
        }
        let (rows, columns) = self.size;
        let axis = |share: f64, length: usize| {
            let at = (share * length as f64 - 0.5).clamp(0.0, length.saturating_sub(1) as f64);
            let first = at as usize;
            (first, (first + 1).min(length.saturating_sub(1)), (at - first as f64) as f32)
        };
        let ((left, right, x), (top, bottom, y)) = (axis(across, columns), axis(down, rows));
        let at = |row: usize, column: usize| self.logits.get(row * columns + column).copied().unwrap_or(f32::NEG_INFINITY);
        let upper = at(top, left) * (1.0 - x) + at(top, right) * x;
        let lower = at(bottom, left) * (1.0 - x) + at(bottom, right) * x;
        upper * (1.0 - y) + lower * y > 0.0
    }

    /// The same of a mask over a box, as mmdet pastes it: `grid_sample` of the probabilities, which are zero outside.
    fn is_inside_box(&self, [left, top, right, bottom]: [f64; 4], across: f64, down: f64) -> bool {
        if !(left..right).contains(&across) || !(top..bottom).contains(&down) {
            return false;
        }
        let (rows, columns) = self.size;
        // The pixel before and the one behind, counted from one before the first.
        let x = (across - left) / (right - left) * columns as f64 + 0.5;
        let y = (down - top) / (bottom - top) * rows as f64 + 0.5;
        let (column, row) = (x as usize, y as usize);
        let (dx, dy) = ((x - column as f64) as f32, (y - row as f64) as f32);
        let at = |row: usize, column: usize| {
            let inside = (1..=rows).contains(&row) && (1..=columns).contains(&column);
            if inside { self.logits.get((row - 1) * columns + column - 1).map_or(0.0, |value| value + 0.5) } else { 0.0 }
        };
        let upper = at(row, column) * (1.0 - dx) + at(row, column + 1) * dx;
        let lower = at(row + 1, column) * (1.0 - dx) + at(row + 1, column + 1) * dx;
        upper * (1.0 - dy) + lower * dy >= 0.5
    }

    /// The box around what is inside: centre across and down, width and height, as shares of the input; all zero where nothing is.
    #[must_use]
    pub fn around(&self) -> [f32; 4] {
        let (rows, columns) = (self.size.0.max(1) as f32, self.size.1.max(1) as f32);
        let (mut left, mut top, mut right, mut bottom) = (usize::MAX, usize::MAX, 0, 0);
        for (at, _) in self.logits.iter().enumerate().filter(|(_, logit)| **logit > 0.0) {
            let (row, column) = (at / self.size.1.max(1), at % self.size.1.max(1));
            (left, top, right, bottom) = (left.min(column), top.min(row), right.max(column + 1), bottom.max(row + 1));
        }
        if left == usize::MAX {
            return [0.0; 4];
        }
        let (left, right, top, bottom) = (left as f32 / columns, right as f32 / columns, top as f32 / rows, bottom as f32 / rows);
        [f32::midpoint(left, right), f32::midpoint(top, bottom), right - left, bottom - top]
    }

    /// The mean probability of the pixels inside; 0 where there are none.
    #[must_use]
    pub fn certainty(&self) -> f64 {
        let inside = self.logits.iter().filter(|logit| **logit > 0.0);
        let (sum, count) = inside.fold((0.0, 0_usize), |(sum, count), logit| (sum + 1.0 / (1.0 + f64::from(-logit).exp()), count + 1));
        sum / count.max(1) as f64
    }

    /// Intersection over union with a mask of the same size; none where both are empty.
    #[must_use]
    pub fn iou(&self, other: &Self) -> Option<f64> {
        if let (Some(a), Some(b)) = (self.within, other.within) {
            return self.iou_over((a, b), other);
        }
        let (mut both, mut either) = (0_usize, 0_usize);
        for (a, b) in self.logits.iter().zip(&other.logits) {
            let (a, b) = (*a > 0.0, *b > 0.0);
            both += usize::from(a && b);
            either += usize::from(a || b);
        }
        (either > 0).then(|| both as f64 / either as f64)
    }
}

impl Mask {
    /// A mask over a box (left, top, right, bottom as shares of the input), of the probabilities of its pixels less a half.
    #[must_use]
    pub fn over(corners: [f64; 4], size: (usize, usize), probabilities: Vec<f32>) -> Self {
        let mut mask = Self { size, logits: probabilities, within: Some(Within { corners, area: 0.0 }) };
        let area = share_inside(corners, |across, down| mask.is_inside(across, down));
        mask.within = Some(Within { corners, area });
        mask
    }

    /// Intersection over union of masks over boxes, at samples of what the boxes share.
    fn iou_over(&self, (a, b): (Within, Within), other: &Self) -> Option<f64> {
        let ([left, top, right, bottom], other_corners) = (a.corners, b.corners);
        let shared = [left.max(other_corners[0]), top.max(other_corners[1]), right.min(other_corners[2]), bottom.min(other_corners[3])];
        let of = |both: f64| (a.area + b.area > 0.0).then(|| both / (a.area + b.area - both));
        // More than this they cannot share; most pairs end here.
        let most = ((shared[2] - shared[0]).max(0.0) * (shared[3] - shared[1]).max(0.0)).min(a.area).min(b.area);
        if of(most).is_none_or(|most| most < LEAST) {
            return of(most);
        }
        of(share_inside(shared, |across, down| self.is_inside(across, down) && other.is_inside(across, down)).min(most))
    }
}

/// How much of the input, as a share, is inside of a box and of what `is_inside` says.
fn share_inside([left, top, right, bottom]: [f64; 4], is_inside: impl Fn(f64, f64) -> bool) -> f64 {
    let at = |index: usize, from: f64, to: f64| from + (index as f64 + 0.5) / SAMPLES as f64 * (to - from);
    let inside = (0..SAMPLES * SAMPLES).filter(|i| is_inside(at(i % SAMPLES, left, right), at(i / SAMPLES, top, bottom))).count();
    inside as f64 / (SAMPLES * SAMPLES) as f64 * ((right - left) * (bottom - top)).max(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// torch: `grid_sample` of [[0.9, 0.2], [0.8, 0.1]] over a box from 2 to 6 of 8 pixels, as mmdet pastes masks, at least a half.
    #[test]
    fn a_mask_over_a_box_is_where_it_is_pasted() {
        let of = |left: f64| Mask::over([left, 0.25, left + 0.5, 0.75], (2, 2), vec![0.4, -0.3, 0.3, -0.4]);
        let mask = of(0.25);
        let row = |y: usize| -> String {
            let inside = |x: usize| mask.is_inside((x as f64 + 0.5) / 8.0, (y as f64 + 0.5) / 8.0);
            (0..8).map(|x| if inside(x) { '#' } else { '.' }).collect()
        };
        let rows: Vec<String> = (0..8).map(row).collect();
        assert_eq!(rows, ["........", "........", "..##....", "..##....", "..##....", "........", "........", "........"], "{rows:?}");
        let with = |left: f64| mask.iou(&of(left)).unwrap();
        assert!((with(0.25) - 1.0).abs() < 1e-12 && with(0.3) > 0.5 && with(0.5) < 0.3 && with(0.8) == 0.0);
    }

    #[test]
    fn a_mask_is_inside_where_its_logits_are_and_overlaps_by_pixels() {
        let of = |logits: [f32; 4]| Mask { size: (2, 2), logits: logits.to_vec(), within: None };
        let left = of([1.0, -1.0, 1.0, -1.0]);
        assert!(left.is_inside(0.1, 0.5) && left.is_inside(0.49, 0.9) && !left.is_inside(0.51, 0.1) && !left.is_inside(1.0, 1.0));
        assert!((left.iou(&of([1.0, 1.0, -1.0, -1.0])).unwrap() - 1.0 / 3.0).abs() < 1e-12);
        assert_eq!((left.around(), of([-1.0; 4]).around()), ([0.25, 0.5, 0.5, 1.0], [0.0; 4]));
        assert!((left.certainty() - 1.0 / (1.0 + (-1f64).exp())).abs() < 1e-12 && of([-1.0; 4]).certainty() == 0.0);
        assert_eq!((left.iou(&left), of([-1.0; 4]).iou(&of([-1.0; 4]))), (Some(1.0), None));
    }
}
