//! The DINOv2 that a detector or a segmenter stands on: a plain ViT whose variants are known and whose widths the tensors tell.

use super::patch_embed;
use super::vit::{Pool, VitConfig};
use crate::error::Result;
use crate::model::checkpoint::weights::Weights;
use crate::model::ops::Activation;
use crate::model::positions::Resampling;

impl VitConfig {
    /// The DINOv2 below a network that detects or segments, without a head: of an input size, positions stored for a grid, blocks and heads.
    ///
    /// # Errors
    /// When a tensor that tells a width is missing.
    pub fn dinov2(
        weights: &Weights,
        size: (usize, usize),
        position_grid: (usize, usize),
        (depth, heads): (usize, usize),
        classes: usize,
    ) -> Result<Self> {
        let (embed_dim, in_chans, patch_size) = patch_embed(weights)?;
        Ok(Self {
            // What patches do not fill is cut off, as the convolution does it.
            image_size: (size.0 / patch_size.0 * patch_size.0, size.1 / patch_size.1 * patch_size.1),
            in_chans,
            patch_size,
            position_grid,
            position_resampling: Resampling::BicubicAntialias,
            embed_dim,
            depth,
            heads,
            mlp_dim: weights.shape("blocks.0.mlp.fc1.weight", 2)?[0],
            classes,
            class_token: true,
            dist_token: false,
            registers: 0,
            prefix_positions: 1,
            pool: Pool::Token,
            fc_norm: false,
            head_dist: false,
            qkv_bias: weights.has("blocks.0.attn.qkv.bias"),
            layer_scale: weights.has("blocks.0.ls1.gamma"),
            patch_bias: weights.has("patch_embed.proj.bias"),
            norm_pre: false,
            final_norm: true,
            residual_post_norm: false,
            activation: Activation::Gelu,
            norm_eps: 1e-6,
            detection: None,
        })
    }
}
