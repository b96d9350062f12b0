//! Fitted quantizers of one site. Every method ends in this form, some bounds and a rule that says which channel takes which, so that one
//! code path quantizes for all.

use std::sync::Arc;

use super::bits::BitWidth;
use super::format::Format;
use super::group::{self, Alpha, Cost};
use super::quantizer::Quantizer;
use super::ranges::Along;
use super::tiles::{self, Tiles};
use super::uniform::{Bounds, ChannelQuantizer, UniformQuantizer};
use crate::model::{SiteKind, kernels};

/// Which channel (or softmax row) takes which quantizer.
#[derive(Debug, Clone, PartialEq)]
pub enum Rule {
    /// The nearest by this picture's range: instance-aware. Distances are to the centres where there are any, else to the bounds.
    Nearest(Option<Arc<[Bounds]>>),
    /// The one of least expected error for this picture's range: instance-aware, with how much of an extreme the other values share.
    LeastError(Alpha),
    /// The nearest, and within a group every token has a scale from its own values.
    NearestByToken,
    /// Decided on calibration, the same for every picture.
    Fixed(Arc<[u16]>),
    /// One quantizer whose bounds are this picture's own min and max.
    OwnRange,
    /// A scale for every tile of this picture, from the tile's own values.
    Tiles(Tiling),
    /// One quantizer of another shape for all.
    One(Quantizer),
}

/// Which values of a site share a scale, where scales are this picture's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tiling {
    /// How the values of a tile become codes.
    pub format: Format,
    /// Values of a tile, which lie side by side along the inner dimension of the product.
    pub length: usize,
    /// Values of the inner dimension after which tiles begin anew: those of a head or a window.
    pub unit: usize,
    /// Whether the inner dimension is that of the rows: the tokens of values (`v`), which the softmax weights.
    pub down: bool,
}

/// The fitted quantizers of one site.
#[derive(Debug, Clone, PartialEq)]
pub struct SiteQuantizers {
    /// Bounds of each group, narrowest first where groups have an order of their own; empty where they come from the picture alone.
    pub bounds: Vec<Bounds>,
    /// Who takes which.
    pub rule: Rule,
}

/// The groups of one picture at one site.
#[derive(Debug, Clone, PartialEq)]
pub struct Grouping {
    /// One quantizer for each group.
    pub quantizers: Vec<Quantizer>,
    /// The group of each channel, row or token.
    pub assignment: Vec<u16>,
    /// The range of each channel, row or token of this picture.
    pub ranges: Vec<Bounds>,
    /// Which of them it is.
    pub along: Along,
    /// Where a group has more than one scale: `quantizers` are then those of the groups' whole ranges, and these quantize.
    pub tiles: Option<Tiles>,
}

impl SiteQuantizers {
    /// One quantizer of any shape for all values.
    #[must_use]
    pub const fn one(quantizer: Quantizer) -> Self {
        Self { bounds: Vec::new(), rule: Rule::One(quantizer) }
    }

    /// Groups that are the same for every picture, from the range of every channel or row over the calibration pictures.
    #[must_use]
    pub fn fixed(bounds: Vec<Bounds>, assignment: Vec<u16>) -> Self {
        Self { bounds, rule: Rule::Fixed(assignment.into()) }
    }

    /// What has a range of its own at a site of `kind`.
    #[must_use]
    pub const fn along(&self, kind: SiteKind) -> Along {
        Along::of(kind)
    }

    /// The same with every bound shifted at random by up to `share` of itself, and the centres with it.
    #[must_use]
    pub fn shifted(&self, random: &mut fastrand::Rng, share: f32) -> Self {
        let mut by = |value: f32| value * (1.0 + share * (2.0 * random.f32() - 1.0));
        let mut shift = |bounds: &Bounds| Bounds::new(by(bounds.lower), by(bounds.upper));
        let bounds = self.bounds.iter().map(&mut shift).collect();
        let rule = match &self.rule {
            Rule::Nearest(Some(centres)) => Rule::Nearest(Some(centres.iter().map(&mut shift).collect())),
            rule => rule.clone(),
        };
        Self { bounds, rule }
    }

    /// What each group would cost a channel or row of `range`, the least of which is its group; none where groups are fixed or there is one.
    #[must_use]
    pub fn costs(&self, range: Bounds, bits: BitWidth) -> Option<Vec<f64>> {
        let (centres, cost) = match &self.rule {
            Rule::Nearest(centres) => (centres.as_deref().unwrap_or(&self.bounds), Cost::Distance),
            Rule::NearestByToken => (self.bounds.as_slice(), Cost::Distance),
            Rule::LeastError(alpha) => (self.bounds.as_slice(), Cost::Error { alpha: *alpha, max_code: f64::from(bits.max_code()?) }),
            Rule::Tiles(_) | Rule::Fixed(_) | Rule::OwnRange | Rule::One(_) => return None,
        };
        Some(centres.iter().map(|&centre| cost.of(range, centre)).collect())
    }

    /// The groups of one picture, from the ranges of its channels or rows. `None` for float bits.
    #[must_use]
    pub fn group(&self, ranges: Vec<Bounds>, along: Along, bits: BitWidth) -> Option<Grouping> {
        let whole = || ranges.iter().copied().fold(Bounds::EMPTY, Bounds::union);
        let mut tiles = None;
        let (bounds, assignment) = match &self.rule {
            Rule::Nearest(centres) => {
                let centres = centres.as_deref().unwrap_or(&self.bounds);
                (self.bounds.clone(), group::assign(&ranges, centres, Cost::Distance))
            }
            Rule::LeastError(alpha) => {
                let cost = Cost::Error { alpha: *alpha, max_code: f64::from(bits.max_code()?) };
                (self.bounds.clone(), group::assign(&ranges, &self.bounds, cost))
            }
            Rule::NearestByToken => {
                let assignment = group::assign(&ranges, &self.bounds, Cost::Distance);
                tiles = Some(Tiles::groups(Format::Int, bits, whole(), &assignment));
                (covering(&ranges, &assignment, self.bounds.len()), assignment)
            }
            Rule::Tiles(tiling) => {
                let columns = ranges.len();
                let along_columns = !along.is_rows() && !tiling.down;
                let assignment = if along_columns { tiles::blocks(columns, tiling.unit, tiling.length) } else { vec![0; columns] };
                let groups = assignment.last().map_or(0, |&last| usize::from(last) + 1);
                tiles = Some(match tiling {
                    Tiling { format, down: true, length, unit } => Tiles::bands(*format, bits, whole(), *length, *unit),
                    Tiling { format, length, unit, .. } => {
                        let columns = if along.is_rows() { *unit } else { columns };
                        Tiles::blocks(*format, bits, whole(), columns, *unit, *length)
                    }
                });
                (covering(&ranges, &assignment, groups), assignment)
            }
            Rule::Fixed(assignment) => (self.bounds.clone(), assignment.to_vec()),
            Rule::OwnRange => (vec![whole()], vec![0; ranges.len()]),
            Rule::One(quantizer) => {
                let assignment = vec![0; ranges.len()];
                return Some(Grouping { quantizers: vec![*quantizer], assignment, ranges, along, tiles: None });
            }
        };
        let of_group = |range: Bounds| match &tiles {
            Some(tiles) => tiles.format.quantizer(range, tiles.whole, bits),
            None => UniformQuantizer::new(range, bits).map(Quantizer::Uniform),
        };
        let quantizers = bounds.into_iter().map(of_group).collect::<Option<Vec<_>>>()?;
        Some(Grouping { quantizers, assignment, ranges, along, tiles })
    }
}

impl Grouping {
    /// Quantizes and dequantizes the values of the picture that it was made for into `quantized`, rows of `last` values.
    pub fn apply(&self, values: &[f32], quantized: &mut [f32], last: usize) {
        if let Some(tiles) = &self.tiles {
            return tiles.apply(values, quantized, last);
        }
        let of = |index: usize| self.assignment.get(index).and_then(|&group| self.quantizers.get(usize::from(group)));
        let channels = match self.quantizers.as_slice() {
            [_] => None,
            _ if self.along.is_rows() => None,
            quantizers => {
                let each = self.assignment.iter().filter_map(|&group| quantizers.get(usize::from(group))?.as_uniform());
                Some(ChannelQuantizer::new(each))
            }
        };
        let block = |start: usize, quantized: &mut [f32]| {
            let values = &values[start..start + quantized.len()];
            match &channels {
                Some(channels) => channels.apply(values, quantized),
                None => values.chunks_exact(last).zip(quantized.chunks_exact_mut(last)).enumerate().for_each(|(index, (row, out))| {
                    let quantizer = if self.along.is_rows() { of(start / last + index) } else { self.quantizers.first() };
                    match quantizer {
                        Some(quantizer) => quantizer.apply_all(row, out),
                        None => out.copy_from_slice(row),
                    }
                }),
            }
        };
        kernels::change_rows(quantized, last, block);
    }
}

/// For each group the range that covers all its members; a group without members is the point zero.
#[must_use]
pub fn covering(ranges: &[Bounds], assignment: &[u16], groups: usize) -> Vec<Bounds> {
    let mut bounds = vec![Bounds::new(0.0, 0.0); groups];
    for (range, &group) in ranges.iter().zip(assignment) {
        let group = &mut bounds[usize::from(group)];
        *group = group.union(*range);
    }
    bounds
}
