//! The head of a detector on detection tokens (YOLOS): two small networks that give each token its classes and its box.
//!
//! `T` detection tokens, `D` width, `K` classes of objects; the last logit says that there is no object.

use candle_core::Tensor;

use crate::error::Result;
use crate::model::checkpoint::weights::Weights;
use crate::model::network::{LayerShape, SiteInfo};
use crate::model::ops::Linear;
use crate::model::output::BOX;
use crate::model::positions::{Resampling, resample};
use crate::model::site::{Site, SiteKind};
use crate::model::tap::Tap;
use crate::model::tokens::TokenLayout;

const CLASS: (&str, [SiteKind; 3]) = ("class_labels_classifier", [SiteKind::Cls0, SiteKind::Cls1, SiteKind::Cls2]);
const CORNERS: (&str, [SiteKind; 3]) = ("bbox_predictor", [SiteKind::Box0, SiteKind::Box1, SiteKind::Box2]);

/// Names of the last layers in a checkpoint: what tells a detector.
pub const LAST_LAYER: &str = "class_labels_classifier.layers.2.weight";

/// Both networks.
#[derive(Debug)]
pub struct ObjectHead {
    class: [Linear; 3],
    corners: [Linear; 3],
    tokens: usize,
}

impl ObjectHead {
    /// Takes the layers of a detector of `classes` classes with `tokens` detection tokens of width `dim`.
    ///
    /// # Errors
    /// When a tensor is missing or has another shape.
    pub fn new(weights: &Weights, dim: usize, tokens: usize, classes: usize) -> Result<Self> {
        let of = |(name, kinds): (&str, [SiteKind; 3]), outputs: usize| -> Result<[Linear; 3]> {
            let layer = |index: usize, outputs| {
                Linear::new(weights, &format!("{name}.layers.{index}"), Site::outside(kinds[index]), (outputs, dim), true)
            };
            Ok([layer(0, dim)?, layer(1, dim)?, layer(2, outputs)?])
        };
        Ok(Self { class: of(CLASS, classes + 1)?, corners: of(CORNERS, BOX)?, tokens })
    }

    /// Its layers.
    pub fn layers(&self) -> impl Iterator<Item = &Linear> {
        self.class.iter().chain(&self.corners)
    }

    /// Normed tokens `(B, N, D)` whose detection tokens stand behind the class token, to `(B, T, K + 1 + 4)`: logits, and the box as shares
    /// of the input.
    ///
    /// # Errors
    /// When the tap refuses.
    pub fn forward(&self, x: &Tensor, tap: &mut dyn Tap) -> Result<Tensor> {
        let x = x.narrow(1, 1, self.tokens)?.contiguous()?;
        let mut through = |layers: &[Linear; 3]| -> Result<Tensor> {
            let first = layers[0].forward(x.clone(), tap)?.relu()?;
            let second = layers[1].forward(first, tap)?.relu()?;
            layers[2].forward(second, tap)
        };
        let (logits, corners) = (through(&self.class)?, through(&self.corners)?);
        Ok(Tensor::cat(&[logits, candle_nn::ops::sigmoid(&corners)?], 2)?)
    }
}

/// The sites of the head, which are in step `step`.
#[must_use]
pub fn sites(step: usize, dim: usize, tokens: usize, classes: usize) -> Vec<SiteInfo> {
    let of = |(name, kinds): (&str, [SiteKind; 3]), outputs: usize| {
        let name = name.to_string();
        kinds.into_iter().enumerate().map(move |(index, kind)| {
            let layer = LayerShape { name: format!("{name}.layers.{index}"), outputs: if index == 2 { outputs } else { dim } };
            SiteInfo::of_layer(Site::outside(kind), step, tokens, dim, layer).over(TokenLayout::grid(tokens, (0, 0)))
        })
    };
    of(CLASS, classes + 1).chain(of(CORNERS, BOX)).collect()
}

/// Position embeddings as stored, for inputs of any size.
#[derive(Debug)]
pub struct StoredPositions {
    /// Rows and columns of patches that they are stored for.
    grid: (usize, usize),
    /// `(1, G, D)`
    patches: Tensor,
    /// For each block but the last those of the tokens before the patches and of the patches, where there are any.
    mid: Vec<(Tensor, Tensor)>,
}

impl StoredPositions {
    /// Those of `patches` `(1, G, D)`, and behind the first `blocks` blocks for `tokens` detection tokens.
    ///
    /// # Errors
    /// When a tensor is missing or has another shape.
    pub fn new(weights: &Weights, patches: &Tensor, grid: (usize, usize), (tokens, blocks): (usize, usize)) -> Result<Self> {
        let (_, count, dim) = patches.dims3()?;
        let mut mid = Vec::with_capacity(blocks);
        if blocks > 0 {
            let stored = weights.get("mid_pos_embed", &[blocks, 1, 1 + count + tokens, dim])?;
            for block in 0..blocks {
                let of_block = prefix_first(&stored.get(block)?, count)?;
                mid.push((of_block.narrow(1, 0, 1 + tokens)?, of_block.narrow(1, 1 + tokens, count)?.contiguous()?));
            }
        }
        Ok(Self { grid, patches: patches.contiguous()?, mid })
    }

    /// Those of the patches of a grid, `(1, G, D)`.
    ///
    /// # Errors
    /// Only when candle fails.
    pub fn of_patches(&self, grid: (usize, usize)) -> Result<Tensor> {
        resample(&self.patches, self.grid, grid, Resampling::Bicubic)
    }

    /// Those behind the blocks for a grid of patches, `(1, N, D)` each.
    ///
    /// # Errors
    /// Only when candle fails.
    pub fn behind_blocks(&self, grid: (usize, usize)) -> Result<Vec<Tensor>> {
        let over = |(prefix, patches): &(Tensor, Tensor)| {
            Ok(Tensor::cat(&[prefix, &resample(patches, self.grid, grid, Resampling::Bicubic)?], 1)?)
        };
        self.mid.iter().map(over).collect()
    }
}

/// Positions `(1, 1 + G + T, D)` of class token, patches and detection tokens with those of the detection tokens before the patches: the
/// order of tokens changes nothing but where they stand.
///
/// # Errors
/// When there are fewer positions.
pub fn prefix_first(positions: &Tensor, grid: usize) -> Result<Tensor> {
    let tokens = positions.dim(1)?.saturating_sub(1 + grid);
    let parts = [positions.narrow(1, 0, 1)?, positions.narrow(1, 1 + grid, tokens)?, positions.narrow(1, 1, grid)?];
    Ok(Tensor::cat(&parts, 1)?)
}
