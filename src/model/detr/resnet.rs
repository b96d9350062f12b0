//! The backbone of a DETR: a ResNet of bottlenecks whose frozen batch norms are folded into the convolutions before them.

use candle_core::Tensor;

use crate::error::Result;
use crate::model::checkpoint::config::DetrConfig;
use crate::model::checkpoint::weights::Weights;
use crate::model::conv::Conv;
use crate::model::neighbourhood::Kernel;
use crate::model::network::SiteInfo;
use crate::model::ops::Linear;
use crate::model::site::{Site, SiteKind};
use crate::model::tap::Tap;

/// What the stem takes the largest value of.
const POOL: Kernel = Kernel { size: 3, stride: 2, depthwise: false };

/// Three convolutions, around which the map is passed.
#[derive(Debug)]
struct Bottleneck {
    convs: [Conv; 3],
    beside: Option<Conv>,
}

impl Bottleneck {
    fn new(weights: &Weights, (stage, block): (usize, usize), cfg: &DetrConfig) -> Result<Self> {
        let (_, inside, outside) = cfg.stages[stage];
        let before = if stage == 0 { cfg.stem } else { cfg.stages[stage - 1].2 };
        let (input, stride) = if block > 0 { (outside, 1) } else { (before, if stage == 0 { 1 } else { 2 }) };
        let name = |part: &str| format!("layer{}.{block}.{part}", stage + 1);
        let id = |index: usize| u16::try_from(index).unwrap_or(u16::MAX);
        let at = |kind| Site::in_block(id(block), kind).in_stage(id(stage));
        let conv = |index: usize, kind, shape, size| {
            Conv::with_norm(weights, (&name(&format!("conv{index}")), &name(&format!("bn{index}"))), at(kind), shape, size)
        };
        let beside = weights.has(&format!("{}.weight", name("downsample.0"))).then(|| {
            let names = (name("downsample.0"), name("downsample.1"));
            Conv::with_norm(weights, (&names.0, &names.1), at(SiteKind::Down), (outside, input), (1, stride))
        });
        Ok(Self {
            convs: [
                conv(1, SiteKind::Cv1, (inside, input), (1, 1))?,
                conv(2, SiteKind::Cv2, (inside, inside), (3, stride))?,
                conv(3, SiteKind::Cv3, (outside, inside), (1, 1))?,
            ],
            beside: beside.transpose()?,
        })
    }

    fn forward(&self, x: &Tensor, grid: (usize, usize), tap: &mut dyn Tap) -> Result<Tensor> {
        let [first, second, third] = &self.convs;
        let y = first.forward(x.clone(), grid, tap)?.relu()?;
        let y = second.forward(y, grid, tap)?.relu()?;
        let y = third.forward(y, second.over(grid), tap)?;
        let around = match &self.beside {
            Some(conv) => conv.forward(x.clone(), grid, tap)?,
            None => x.clone(),
        };
        Ok((y + around)?.relu()?)
    }
}

/// The whole ResNet.
#[derive(Debug)]
pub struct ResNet {
    stem: Conv,
    /// Every block with the index of its stage.
    blocks: Vec<(usize, Bottleneck)>,
}

impl ResNet {
    /// Takes the ResNet of a checkpoint with timm's names.
    ///
    /// # Errors
    /// When a tensor is missing or has another shape.
    pub fn new(weights: &Weights, cfg: &DetrConfig) -> Result<Self> {
        let all = cfg.stages.iter().enumerate().flat_map(|(stage, (depth, ..))| (0..*depth).map(move |block| (stage, block)));
        Ok(Self {
            stem: Conv::with_norm(weights, ("conv1", "bn1"), Site::outside(SiteKind::Stem), (cfg.stem, 3), (7, 2))?,
            blocks: all.map(|at| Ok((at.0, Bottleneck::new(weights, at, cfg)?))).collect::<Result<_>>()?,
        })
    }

    /// Number of blocks.
    #[must_use]
    pub const fn blocks(&self) -> usize {
        self.blocks.len()
    }

    /// Pixels `(B, 3, height, width)` to `(B, tokens, C)`.
    ///
    /// # Errors
    /// When the tap refuses.
    pub fn embed(&self, pixels: &Tensor, tap: &mut dyn Tap) -> Result<Tensor> {
        let (_, _, height, width) = pixels.dims4()?;
        let tokens = pixels.flatten_from(2)?.transpose(1, 2)?.contiguous()?;
        let x = self.stem.forward(tokens, (height, width), tap)?.relu()?;
        POOL.largest(&x, self.stem.over((height, width)))
    }

    /// The grid of the input of a block.
    fn grid(&self, block: usize, grids: &[(usize, usize)]) -> (usize, usize) {
        let stage = self.blocks[block].0;
        let first = block == 0 || self.blocks[block - 1].0 != stage;
        grids[if first { stage } else { stage + 1 }]
    }

    /// One block; `grids` are those behind the stem and behind every stage.
    ///
    /// # Errors
    /// When the tap refuses.
    pub fn block(&self, block: usize, x: &Tensor, grids: &[(usize, usize)], tap: &mut dyn Tap) -> Result<Tensor> {
        self.blocks[block].1.forward(x, self.grid(block, grids), tap)
    }

    fn convs(&self) -> impl Iterator<Item = &Conv> {
        std::iter::once(&self.stem).chain(self.blocks.iter().flat_map(|(_, block)| block.convs.iter().chain(&block.beside)))
    }

    /// Its layers.
    pub fn layers(&self) -> impl Iterator<Item = &Linear> {
        self.convs().map(|conv| &conv.linear)
    }

    /// Its sites: the stem in step 0, every block in a step of its own.
    #[must_use]
    pub fn sites(&self, image: (usize, usize), grids: &[(usize, usize)]) -> Vec<SiteInfo> {
        let mut sites = vec![self.stem.site(0, image)];
        for (index, (_, block)) in self.blocks.iter().enumerate() {
            let (step, grid) = (index + 1, self.grid(index, grids));
            let [first, second, third] = &block.convs;
            sites.extend([first.site(step, grid), second.site(step, grid), third.site(step, second.over(grid))]);
            sites.extend(block.beside.as_ref().map(|conv| conv.site(step, grid)));
        }
        sites
    }
}
