//! What a network says of a batch of pictures. A classifier is a detector with one query: the picture as a whole.

use candle_core::Tensor;

use crate::error::Result;

/// Coordinates of a box: centre across and down, width and height, as shares of the input.
pub const BOX: usize = 4;

/// Logits of `Q` queries over `K` classes for each of `B` pictures.
#[derive(Debug, Clone)]
pub struct Output {
    /// `(B, Q, K)`; `Q` is 1 for a classifier. Of a detector the last of `K` says that there is no object.
    pub logits: Tensor,
    /// `(B, Q, 4)`, where queries have boxes: centre across and down, width and height, as shares of the input.
    pub boxes: Option<Tensor>,
}

impl Output {
    /// Of a classifier's logits `(B, K)`.
    ///
    /// # Errors
    /// When the tensor has not two dimensions.
    pub fn of_classes(logits: &Tensor) -> Result<Self> {
        let (pictures, classes) = logits.dims2()?;
        Ok(Self { logits: logits.reshape((pictures, 1, classes))?, boxes: None })
    }

    /// Of a detector's `(B, Q, K + 4)`: logits and boxes side by side.
    ///
    /// # Errors
    /// When the tensor has not three dimensions.
    pub fn of_objects(both: &Tensor) -> Result<Self> {
        let (_, _, wide) = both.dims3()?;
        let classes = wide.saturating_sub(BOX);
        Ok(Self { logits: both.narrow(2, 0, classes)?.contiguous()?, boxes: Some(both.narrow(2, classes, BOX)?.contiguous()?) })
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
