//! The feature pyramid: maps of all stages of a backbone, made of one width, each with what the coarser ones know.

use candle_core::{Device, Tensor};

use crate::error::Result;
use crate::model::checkpoint::config::RcnnConfig;
use crate::model::checkpoint::weights::Weights;
use crate::model::conv::Conv;
use crate::model::layer::site;
use crate::model::network::SiteInfo;
use crate::model::ops::Linear;
use crate::model::site::{Part, SiteKind};
use crate::model::tap::Tap;

/// The feature pyramid.
#[derive(Debug)]
pub(super) struct Neck {
    lateral: Vec<Conv>,
    out: Vec<Conv>,
}

impl Neck {
    pub fn new(weights: &Weights, cfg: &RcnnConfig) -> Result<Self> {
        let d = cfg.dim;
        let conv = |name: &str, index: usize, kind, inputs: usize, size: usize| {
            Conv::new(weights, &format!("neck.{name}.{index}.conv"), site(Part::Neck, Some(index), kind), (d, inputs), size, true)
        };
        let stages = cfg.backbone.stages.iter().enumerate();
        Ok(Self {
            lateral: stages.map(|(i, s)| conv("lateral_convs", i, SiteKind::Lateral, s.dim, 1)).collect::<Result<_>>()?,
            out: (0..cfg.backbone.stages.len()).map(|i| conv("fpn_convs", i, SiteKind::Out, d, 3)).collect::<Result<_>>()?,
        })
    }

    /// The maps `(B, N, C)` of all stages, the finest first, to those of all `levels` one behind another: `(B, sum of N, d)`. The last level is every
    /// second cell of the one before.
    pub fn forward(&self, maps: &[Tensor], levels: &[(usize, usize)], tap: &mut dyn Tap) -> Result<Tensor> {
        let lateral = self.lateral.iter().zip(maps).zip(levels);
        let mut laterals = lateral.map(|((conv, map), grid)| conv.forward(map.clone(), *grid, tap)).collect::<Result<Vec<_>>>()?;
        for level in (1..laterals.len()).rev() {
            let above = enlarged(&laterals[level], levels[level], levels[level - 1])?;
            laterals[level - 1] = (&laterals[level - 1] + above)?;
        }
        let out = self.out.iter().zip(laterals).zip(levels);
        let mut outs = out.map(|((conv, map), grid)| conv.forward(map, *grid, tap)).collect::<Result<Vec<_>>>()?;
        if let (Some(last), Some((rows, columns))) = (outs.last(), levels.get(outs.len().saturating_sub(1))) {
            let seconds = (0..*rows).step_by(2).flat_map(|row| (0..*columns).step_by(2).map(move |column| (row * columns + column) as u32));
            outs.push(last.index_select(&Tensor::new(seconds.collect::<Vec<_>>(), &Device::Cpu)?, 1)?);
        }
        Ok(Tensor::cat(&outs, 1)?)
    }

    pub fn layers(&self) -> impl Iterator<Item = &Linear> {
        self.lateral.iter().chain(&self.out).map(|conv| &conv.linear)
    }

    pub fn sites(&self, step: usize, levels: &[(usize, usize)]) -> Vec<SiteInfo> {
        let of = |convs: &[Conv]| convs.iter().zip(levels).map(|(conv, grid)| conv.site(step, *grid)).collect::<Vec<_>>();
        [of(&self.lateral), of(&self.out)].concat()
    }
}

/// A map `(B, from.0 from.1, d)` at a larger size, each cell the nearest: torch's `interpolate(mode="nearest")`.
fn enlarged(map: &Tensor, from: (usize, usize), to: (usize, usize)) -> Result<Tensor> {
    let nearest = |at: usize, from: usize, to: usize| ((at as f32 * (from as f32 / to as f32)) as usize).min(from - 1);
    let of_row = |row: usize| (0..to.1).map(move |column| (nearest(row, from.0, to.0) * from.1 + nearest(column, from.1, to.1)) as u32);
    Ok(map.index_select(&Tensor::new((0..to.0).flat_map(of_row).collect::<Vec<_>>(), &Device::Cpu)?, 1)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_map_is_enlarged_to_any_size_by_its_nearest_cells() {
        let map = Tensor::new(&[[[1f32], [2.0], [3.0], [4.0], [5.0], [6.0]]], &Device::Cpu).unwrap(); // 2 rows, 3 columns
        let found = enlarged(&map, (2, 3), (3, 5)).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
        // torch.nn.functional.interpolate(torch.arange(1., 7.).view(1, 1, 2, 3), size=(3, 5), mode="nearest")
        assert_eq!(found, [1.0, 1.0, 2.0, 2.0, 3.0, 1.0, 1.0, 2.0, 2.0, 3.0, 4.0, 4.0, 5.0, 5.0, 6.0]);
    }
}
