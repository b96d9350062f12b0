//! The patch embedding: a linear layer over the pixels of every patch, with a tap at its input.

use candle_core::Tensor;

use crate::error::Result;
use crate::model::checkpoint::weights::Weights;
use crate::model::graph::{Graph, GraphTap, Value};
use crate::model::ops::Linear;
use crate::model::site::{Site, SiteKind};
use crate::model::tap::Tap;

/// Pixels to one token a patch.
#[derive(Debug)]
pub struct PatchEmbed {
    /// The projection of a patch's pixels.
    pub proj: Linear,
    grid: (usize, usize),
    patch: (usize, usize),
}

impl PatchEmbed {
    /// Takes `patch_embed.proj` from a checkpoint; `grid` and `patch` are rows and columns, of patches and of pixels.
    ///
    /// # Errors
    /// When a tensor is missing or has another shape.
    pub fn new(
        weights: &Weights,
        (dim, in_chans): (usize, usize),
        patch: (usize, usize),
        grid: (usize, usize),
        bias: bool,
    ) -> Result<Self> {
        let name = "patch_embed.proj";
        let kernel = weights.get(&format!("{name}.weight"), &[dim, in_chans, patch.0, patch.1])?;
        let bias = bias.then(|| weights.get(&format!("{name}.bias"), &[dim])).transpose()?;
        let proj = Linear::of(Site::outside(SiteKind::Patch), kernel.reshape((dim, in_chans * patch.0 * patch.1))?, bias)?;
        Ok(Self { proj, grid, patch })
    }

    /// Takes pictures of another grid of patches.
    pub const fn over(&mut self, grid: (usize, usize)) {
        self.grid = grid;
    }

    /// `(B, in_chans, height, width)` to `(B, N, D)`: a convolution whose stride is its kernel is a linear layer over patches.
    ///
    /// # Errors
    /// When the input has another shape, or the tap refuses.
    pub fn forward(&self, pixels: &Tensor, tap: &mut dyn Tap) -> Result<Tensor> {
        let (b, c, height, width) = pixels.dims4()?;
        let ((rows, columns), (ph, pw)) = (self.grid, self.patch);
        // What the last patches lack is zero.
        let lacks = |side: usize, count: usize, patch: usize| (count * patch).saturating_sub(side) % patch;
        let pixels = pixels.pad_with_zeros(2, 0, lacks(height, rows, ph))?.pad_with_zeros(3, 0, lacks(width, columns, pw))?;
        let patches =
            pixels.reshape((b, c, rows, ph, columns, pw))?.permute((0, 2, 4, 1, 3, 5))?.reshape((b, rows * columns, c * ph * pw))?;
        self.proj.forward(patches, tap)
    }
}

impl PatchEmbed {
    /// The same in a graph, for a batch of one picture of `channels` colours.
    ///
    /// # Errors
    /// When the tap refuses.
    pub fn draw(&self, graph: &mut Graph, pixels: &Value, channels: usize, tap: &mut dyn GraphTap) -> Result<Value> {
        let ([rows, columns], [height, width]) =
            ([self.grid.0, self.grid.1].map(|n| n as i64), [self.patch.0, self.patch.1].map(|n| n as i64));
        let channels = channels as i64;
        let apart = graph.reshape(pixels, &[1, channels, rows, height, columns, width]);
        let apart = graph.transpose(&apart, &[0, 2, 4, 1, 3, 5]);
        let patches = graph.reshape(&apart, &[1, rows * columns, channels * height * width]);
        self.proj.draw(graph, patches, tap)
    }
}
