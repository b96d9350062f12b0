//! What the parts of an RF-DETR share: sites with a part, layers with a name, and how a box is refined.

use candle_core::Tensor;

use crate::error::Result;
use crate::model::checkpoint::weights::Weights;
use crate::model::network::{LayerShape, SiteInfo};
use crate::model::ops::Linear;
use crate::model::site::{Part, Site, SiteKind};
use crate::model::tokens::TokenLayout;

/// A site of a part.
#[must_use]
pub fn site(part: Part, block: Option<usize>, kind: SiteKind) -> Site {
    let block = block.map(|block| u16::try_from(block).unwrap_or(u16::MAX));
    Site { block, ..Site::outside(kind) }.of_part(part)
}

/// A layer with its name in the checkpoint.
#[derive(Debug)]
pub struct LayerNamed {
    /// The layer.
    pub linear: Linear,
    /// Its name.
    pub name: String,
}

impl LayerNamed {
    /// Takes `{name}` with a bias, `(C_out, C)`.
    ///
    /// # Errors
    /// When a tensor is missing or has another shape.
    pub fn new(weights: &Weights, name: &str, site: Site, shape: (usize, usize)) -> Result<Self> {
        Ok(Self { linear: Linear::new(weights, name, site, shape, true)?, name: name.to_string() })
    }

    /// What is known of its input, whose tokens lie as `layout` says.
    #[must_use]
    pub fn site(&self, step: usize, layout: TokenLayout) -> SiteInfo {
        let (outputs, channels) = self.linear.size();
        SiteInfo::of_layer(self.linear.site, step, layout.tokens(), channels, LayerShape { name: self.name.clone(), outputs }).over(layout)
    }
}

/// Boxes `(B, N, 4)` changed by `(B, N, 4)`: centres by shares of the sides, sides by factors in logarithms.
///
/// # Errors
/// When the shapes differ.
pub fn refine(boxes: &Tensor, changes: &Tensor) -> Result<Tensor> {
    let (centres, sides) = (boxes.narrow(2, 0, 2)?, boxes.narrow(2, 2, 2)?);
    let centres = ((changes.narrow(2, 0, 2)? * &sides)? + centres)?;
    let sides = (changes.narrow(2, 2, 2)?.exp()? * sides)?;
    Ok(Tensor::cat(&[centres, sides], 2)?)
}
