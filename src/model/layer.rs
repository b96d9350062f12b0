//! What detectors with a decoder share: sites with a part, layers with a name, the layers of a box, and how a box is refined.

use candle_core::Tensor;

use crate::error::Result;
use crate::model::checkpoint::weights::Weights;
use crate::model::network::{LayerShape, SiteInfo};
use crate::model::ops::Linear;
use crate::model::output::BOX;
use crate::model::site::{Part, Site, SiteKind};
use crate::model::tap::Tap;
use crate::model::tokens::TokenLayout;

/// A site of a part.
#[must_use]
pub fn site(part: Part, block: Option<usize>, kind: SiteKind) -> Site {
    let block = block.map(|block| u16::try_from(block).unwrap_or(u16::MAX));
    Site { block, ..Site::outside(kind) }.of_part(part)
}

/// A site of a part with stages, such as those of a cascade; none of the only one.
#[must_use]
pub fn site_in_stage(part: Part, stage: Option<usize>, block: Option<usize>, kind: SiteKind) -> Site {
    let site = site(part, block, kind);
    stage.map_or(site, |stage| site.in_stage(u16::try_from(stage).unwrap_or(u16::MAX)))
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

/// The layers of a box: two with ReLU, and the last.
#[derive(Debug)]
pub struct BoxLayers([LayerNamed; 3]);

impl BoxLayers {
    /// Takes `{name}.0` to `{name}.2` of width `dim`.
    ///
    /// # Errors
    /// When a tensor is missing or has another shape.
    pub fn new(weights: &Weights, name: &str, part: Part, dim: usize) -> Result<Self> {
        let layer =
            |index: usize, kind, outputs| LayerNamed::new(weights, &format!("{name}.{index}"), site(part, None, kind), (outputs, dim));
        Ok(Self([layer(0, SiteKind::Box0, dim)?, layer(1, SiteKind::Box1, dim)?, layer(2, SiteKind::Box2, BOX)?]))
    }

    /// `(B, N, d)` to changes of boxes `(B, N, 4)`.
    ///
    /// # Errors
    /// When the tap refuses.
    pub fn forward(&self, x: &Tensor, tap: &mut dyn Tap) -> Result<Tensor> {
        let [first, second, last] = &self.0;
        let x = first.linear.forward(x.clone(), tap)?.relu()?;
        let x = second.linear.forward(x, tap)?.relu()?;
        last.linear.forward(x, tap)
    }

    /// Its layers.
    pub fn layers(&self) -> impl Iterator<Item = &LayerNamed> {
        self.0.iter()
    }
}
