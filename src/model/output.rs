//! What a network says of a batch of pictures. A classifier is a detector with one query: the picture as a whole.

use candle_core::Tensor;

use crate::error::Result;

/// Logits of `Q` queries over `K` classes for each of `B` pictures.
#[derive(Debug, Clone)]
pub struct Output {
    /// `(B, Q, K)`; `Q` is 1 for a classifier.
    pub logits: Tensor,
}

impl Output {
    /// Of a classifier's logits `(B, K)`.
    ///
    /// # Errors
    /// When the tensor has not two dimensions.
    pub fn of_classes(logits: &Tensor) -> Result<Self> {
        let (pictures, classes) = logits.dims2()?;
        Ok(Self { logits: logits.reshape((pictures, 1, classes))? })
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
