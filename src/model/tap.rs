//! The one seam between a network and quantization: at every site the network hands its tensor to a [`Tap`] and goes on with what
//! comes back. The float run, calibration, the quantized run and single-site sweeps are all taps; no network knows which.

use std::sync::Arc;

use candle_core::Tensor;

use crate::error::Result;
use crate::model::kernels::{self, Weight};
use crate::model::site::Site;

/// Sees, and may replace, the operands of a forward pass.
pub trait Tap {
    /// The activation at `site`; what is returned is what the network goes on with.
    ///
    /// # Errors
    /// When the tap cannot take a tensor of this site.
    ///
    /// Shapes: `(B, N, C)` for every kind but the softmax, which is `(B, H, N, N)` (batch, heads, query tokens, key tokens), and
    /// `(B, W H, n, n)` within `W` windows of `n` tokens.
    fn activation(&mut self, _site: Site, x: Tensor) -> Result<Tensor> {
        Ok(x)
    }

    /// The weight `(C_out, C)` of the linear layer whose input is `site`.
    ///
    /// # Errors
    /// When the tap does not know the site.
    fn weight(&mut self, _site: Site, weight: &Arc<Weight>) -> Result<Arc<Weight>> {
        Ok(Arc::clone(weight))
    }

    /// `x W^T + b` of the layer whose input is `site`, `(B, N, C)` to `(B, N, C_out)`; `weight` is the float one. Here integers can take the
    /// place of floats.
    ///
    /// # Errors
    /// When the shapes do not fit.
    fn layer(&mut self, site: Site, x: &Tensor, weight: &Arc<Weight>, bias: Option<&Tensor>) -> Result<Tensor> {
        kernels::linear(x, &*self.weight(site, weight)?, bias)
    }

    /// The product of two activations, `left` from the site of a softmax or of queries, `right` from that of values or keys: `(.., M, K)` by
    /// `(.., K, P)`, either a view with any strides. Here integers can take the place of floats.
    ///
    /// # Errors
    /// When the tap cannot multiply what it is given.
    fn product(&mut self, _sites: (Site, Site), left: &Tensor, right: &Tensor) -> Result<Tensor> {
        if left.track_op() || right.track_op() {
            return Ok(left.contiguous()?.matmul(&right.contiguous()?)?);
        }
        kernels::product(left, right)
    }

    /// What the first stage of a detector chose, `(B, Q, 5)`: for each query the index of a place and its box. What is returned is what the
    /// queries start from: a KL of query against query needs them to mean the same in both runs.
    ///
    /// # Errors
    /// When what is pinned has another shape.
    fn proposals(&mut self, chosen: Tensor) -> Result<Tensor> {
        Ok(chosen)
    }

    /// The objects that a detector of regions makes masks of, `(B, D, 7)`: class, probability, box, and region. What is returned is what the masks are
    /// of; none where nobody looks at masks.
    ///
    /// # Errors
    /// When what is pinned has another shape.
    fn objects(&mut self, found: Tensor) -> Result<Option<Tensor>> {
        Ok(Some(found))
    }

    /// Called behind a pass: whether its proposals were pinned, so that it runs once more from the first stage on with those of its own.
    fn frees(&mut self) -> bool {
        false
    }

    /// Called before every step of the network; an error here ends the pass.
    ///
    /// # Errors
    /// [`crate::Error::Cancelled`] when nobody waits for the result any more.
    fn checkpoint(&mut self) -> Result<()> {
        Ok(())
    }
}

/// The float run: everything passes as it is.
#[derive(Debug, Clone, Copy, Default)]
pub struct Identity;

impl Tap for Identity {}

/// Shows every activation to a function and passes it on unchanged: calibration and measurements are made of this.
pub struct Recorder<F>(pub F);

impl<F: FnMut(Site, &Tensor) -> Result<()>> Tap for Recorder<F> {
    fn activation(&mut self, site: Site, x: Tensor) -> Result<Tensor> {
        (self.0)(site, &x)?;
        Ok(x)
    }
}
