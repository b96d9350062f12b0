//! What stands between two steps of a network.

use std::ops::Deref;

use candle_core::Tensor;

/// The residual stream at a boundary between two steps, and beside it what a network took from it for later. A copy shares the values.
#[derive(Debug, Clone)]
pub struct Stream {
    /// What the next step goes on with.
    pub x: Tensor,
    /// What was taken for later steps: maps of earlier stages of a backbone, for example.
    pub taken: Vec<Tensor>,
}

impl Stream {
    /// All its tensors: the stream itself, then what was taken.
    pub fn tensors(&self) -> impl Iterator<Item = &Tensor> {
        std::iter::once(&self.x).chain(&self.taken)
    }

    /// The same with other tensors, in the order of [`Self::tensors`]; none where there is no first.
    #[must_use]
    pub fn of(tensors: impl IntoIterator<Item = Tensor>) -> Option<Self> {
        let mut tensors = tensors.into_iter();
        Some(Self { x: tensors.next()?, taken: tensors.collect() })
    }
}

impl From<Tensor> for Stream {
    fn from(x: Tensor) -> Self {
        Self { x, taken: Vec::new() }
    }
}

impl Deref for Stream {
    type Target = Tensor;

    fn deref(&self) -> &Tensor {
        &self.x
    }
}
