//! What a network says of a batch of pictures. A classifier is a detector with one query: the picture as a whole.

use candle_core::Tensor;

use crate::error::Result;

/// Coordinates of a box: centre across and down, width and height, as shares of the input.
pub const BOX: usize = 4;

/// Probability that an object must have to be shown, unless another is asked for: transformers' default for most detectors.
pub const THRESHOLD: f64 = 0.5;

/// How logits become probabilities.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Scoring {
    /// Classes exclude one another; of a detector the last of them says that there is no object.
    #[default]
    Softmax,
    /// Every class is by itself, by a sigmoid; there is no class without an object.
    Sigmoid,
}

/// Logits of `Q` queries over `K` classes for each of `B` pictures.
#[derive(Debug, Clone)]
pub struct Output {
    /// `(B, Q, K)`; `Q` is 1 for a classifier.
    pub logits: Tensor,
    /// How they become probabilities.
    pub scoring: Scoring,
    /// `(B, Q, 4)`, where queries have boxes: centre across and down, width and height, as shares of the input.
    pub boxes: Option<Tensor>,
    /// Logits of masks `(B, Q, rows, columns)`, where queries have them.
    pub masks: Option<Tensor>,
    /// Of a detector with a first stage what its queries started from.
    pub first: Option<First>,
    /// Of a detector of regions what is seen: the objects that come of its slots.
    pub objects: Option<Objects>,
    /// The same with proposals of its own, where others were pinned.
    pub free: Option<Box<Output>>,
    /// Probability that an object must have to be shown, unless another is asked for.
    pub threshold: f64,
}

/// What the queries of a detector with two stages started from.
#[derive(Debug, Clone)]
pub struct First {
    /// `(B, Q, 5)`: index and box of the proposal.
    pub proposals: Tensor,
    /// `(B, Q)`: the largest logit of a class at the place of the proposal.
    pub objectness: Tensor,
    /// `(B, Q, 4)`: the reference box of the query.
    pub references: Tensor,
    /// Of a detector of regions the objects that masks are made of, `(B, D, 7)`: class, probability, box in pixels, and region.
    pub objects: Option<Tensor>,
}

/// The objects of a detector of regions, the likeliest first.
#[derive(Debug, Clone)]
pub struct Objects {
    /// `(B, D, 7)`: class, probability, box as shares of the input, and the slot that it came of. What is none has probability 0.
    pub rows: Tensor,
    /// Probabilities of the pixels of masks over the boxes, less a half: `(B, D, rows, columns)`.
    pub masks: Option<Tensor>,
}

/// Probability from which on an object of a detector of regions is shown, unless another is asked for.
pub const OF_REGIONS: f64 = 0.3;

/// Left, top, right and bottom in pixels, `(B, N, 4)`, to centre and sides as shares of an input of rows and columns.
fn shares(corners: &Tensor, (height, width): (usize, usize)) -> Result<Tensor> {
    let (upper, lower) = (corners.narrow(2, 0, 2)?, corners.narrow(2, 2, 2)?);
    let size = Tensor::new(&[[[width as f32, height as f32]]], corners.device())?;
    let (centre, sides) = (((&upper + &lower)? * 0.5)?, (lower - upper)?);
    Ok(Tensor::cat(&[centre.broadcast_div(&size)?, sides.broadcast_div(&size)?], 2)?)
}

impl Output {
    /// Of a detector of regions in inputs of `size`: the logits of regions `(B, R, K + 1)`, their proposals (index, and box in pixels) and logits of
    /// those, the objects (class, probability, box in pixels, region), and their masks.
    ///
    /// # Errors
    /// When a tensor has another shape.
    pub fn of_regions(
        logits: &Tensor,
        (chosen, objectness): (&Tensor, &Tensor),
        objects: &Tensor,
        masks: Option<Tensor>,
        size: (usize, usize),
    ) -> Result<Self> {
        let references = shares(&chosen.narrow(2, 1, BOX)?, size)?;
        let first = First { proposals: chosen.detach(), objectness: objectness.clone(), references, objects: Some(objects.detach()) };
        let boxes = shares(&objects.narrow(2, 2, BOX)?, size)?;
        let rows = Tensor::cat(&[objects.narrow(2, 0, 2)?, boxes, objects.narrow(2, 2 + BOX, 1)?], 2)?;
        let objects = Some(Objects { rows, masks });
        Ok(Self { first: Some(first), objects, threshold: OF_REGIONS, ..Self::of(logits.clone(), Scoring::Softmax, None) })
    }

    /// Of a classifier's logits `(B, K)`.
    ///
    /// # Errors
    /// When the tensor has not two dimensions.
    pub fn of_classes(logits: &Tensor) -> Result<Self> {
        let (pictures, classes) = logits.dims2()?;
        Ok(Self::of(logits.reshape((pictures, 1, classes))?, Scoring::Softmax, None))
    }

    /// Of a detector's `(B, Q, K + 4)`: logits and boxes side by side.
    ///
    /// # Errors
    /// When the tensor has not three dimensions.
    pub fn of_objects(both: &Tensor) -> Result<Self> {
        let (_, _, wide) = both.dims3()?;
        let classes = wide.saturating_sub(BOX);
        let boxes = both.narrow(2, classes, BOX)?.contiguous()?;
        Ok(Self::of(both.narrow(2, 0, classes)?.contiguous()?, Scoring::Softmax, Some(boxes)))
    }

    const fn of(logits: Tensor, scoring: Scoring, boxes: Option<Tensor>) -> Self {
        Self { logits, scoring, boxes, masks: None, first: None, objects: None, free: None, threshold: THRESHOLD }
    }

    /// Of a network that segments, `(B, Q, K + rows columns)`: logits of classes and of masks, side by side.
    ///
    /// # Errors
    /// When the tensor has another shape.
    pub fn of_masks(all: &Tensor, classes: usize, (rows, columns): (usize, usize), scoring: Scoring, threshold: f64) -> Result<Self> {
        let (b, queries, _) = all.dims3()?;
        let masks = all.narrow(2, classes, rows * columns)?.contiguous()?.reshape((b, queries, rows, columns))?;
        Ok(Self { masks: Some(masks), threshold, ..Self::of(all.narrow(2, 0, classes)?.contiguous()?, scoring, None) })
    }

    /// Of a detector of two stages, `(B, Q, K + 4 + 5 + 1 + 4 + mask)`: logits of sigmoids, boxes, index and box of the proposals, largest
    /// logits there, reference boxes, and logits of masks of rows and columns where there are any.
    ///
    /// # Errors
    /// When the tensor has another shape.
    pub fn of_queries(all: &Tensor, classes: usize, mask: Option<(usize, usize)>) -> Result<Self> {
        let (b, queries, _) = all.dims3()?;
        let mut start = 0;
        let mut part = |length: usize| {
            start += length;
            all.narrow(2, start - length, length)?.contiguous()
        };
        let (logits, boxes) = (part(classes)?, part(BOX)?);
        let first = First { proposals: part(1 + BOX)?, objectness: part(1)?.squeeze(2)?, references: part(BOX)?, objects: None };
        let masks = match mask {
            Some((rows, columns)) => Some(part(rows * columns)?.reshape((b, queries, rows, columns))?),
            None => None,
        };
        Ok(Self { masks, first: Some(first), ..Self::of(logits, Scoring::Sigmoid, Some(boxes)) })
    }

    /// The logits of the first query, `(B, K)`: all that a classifier says.
    ///
    /// # Errors
    /// Only when candle fails.
    pub fn classes(&self) -> Result<Tensor> {
        let (pictures, _, classes) = self.logits.dims3()?;
        Ok(self.logits.narrow(1, 0, 1)?.reshape((pictures, classes))?)
    }
}
