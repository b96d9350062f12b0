//! Methods side by side: from a site's calibration ranges to the quantizers of a method. All of them end in the same form, some bounds
//! and a rule that says which channel takes which, so that one code path quantizes for all.

use std::sync::Arc;

use super::bits::{BitWidth, GroupCount};
use super::calibrate::SiteRanges;
use super::group;
use super::settings::Method;
use super::uniform::{Bounds, UniformQuantizer};

/// Which channel (or softmax row) takes which quantizer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rule {
    /// The nearest by this picture's range: instance-aware.
    Nearest,
    /// Decided on calibration, the same for every picture.
    Fixed(Arc<[u16]>),
    /// One quantizer whose bounds are this picture's own min and max.
    OwnRange,
}

/// The fitted quantizers of one site, before bits are known.
#[derive(Debug, Clone, PartialEq)]
pub struct SiteQuantizers {
    /// Bounds of each group, narrowest first where groups have an order of their own; empty for [`Rule::OwnRange`].
    pub bounds: Vec<Bounds>,
    /// Who takes which.
    pub rule: Rule,
}

/// The groups of one picture at one site.
#[derive(Debug, Clone, PartialEq)]
pub struct Grouping {
    /// One quantizer for each group.
    pub quantizers: Vec<UniformQuantizer>,
    /// The group of each channel or row.
    pub assignment: Vec<u16>,
    /// The range of each channel or row of this picture.
    pub ranges: Vec<Bounds>,
}

impl SiteQuantizers {
    /// Fits the quantizers of `method`; `None` for float.
    #[must_use]
    pub fn fit(ranges: &SiteRanges, method: Method, groups: GroupCount) -> Option<Self> {
        let fixed = |assignment: Vec<u16>| Rule::Fixed(assignment.into());
        Some(match method {
            Method::Float => return None,
            Method::LayerDynamic => Self { bounds: Vec::new(), rule: Rule::OwnRange },
            Method::Layer => {
                let merged = ranges.merged();
                let whole = merged.iter().copied().fold(Bounds::EMPTY, Bounds::union).with_zero();
                Self { bounds: vec![whole], rule: fixed(vec![0; merged.len()]) }
            }
            Method::Channel => {
                let bounds: Vec<Bounds> = ranges.merged().into_iter().map(Bounds::with_zero).collect();
                let assignment = (0..bounds.len()).map(|c| c as u16).collect();
                Self { bounds, rule: fixed(assignment) }
            }
            Method::Contiguous => {
                let merged = ranges.merged();
                let count = groups.get().min(merged.len());
                let assignment: Vec<u16> = (0..merged.len()).map(|c| (c * count / merged.len()) as u16).collect();
                Self { bounds: covering(&merged, &assignment, count), rule: fixed(assignment) }
            }
            Method::Sorted => {
                let merged = ranges.merged();
                let clusters = group::assign(&merged, &group::fit(&merged, groups.get()));
                let (bounds, assignment) = narrowest_first(&covering(&merged, &clusters, groups.get()), &clusters);
                Self { bounds, rule: fixed(assignment) }
            }
            Method::Igq => Self { bounds: group::fit(&ranges.all(), groups.get()), rule: Rule::Nearest },
        })
    }

    /// The groups of one picture, from the ranges of its channels or rows. `None` for float bits.
    #[must_use]
    pub fn group(&self, ranges: Vec<Bounds>, bits: BitWidth) -> Option<Grouping> {
        let (bounds, assignment) = match &self.rule {
            Rule::Nearest => (self.bounds.clone(), group::assign(&ranges, &self.bounds)),
            Rule::Fixed(assignment) => (self.bounds.clone(), assignment.to_vec()),
            Rule::OwnRange => {
                let whole = ranges.iter().copied().fold(Bounds::EMPTY, Bounds::union);
                (vec![whole], vec![0; ranges.len()])
            }
        };
        let quantizers = bounds.into_iter().map(|b| UniformQuantizer::new(b, bits)).collect::<Option<Vec<_>>>()?;
        Some(Grouping { quantizers, assignment, ranges })
    }
}

/// For each group the range that covers all its members; a group without members is the point zero.
fn covering(ranges: &[Bounds], assignment: &[u16], groups: usize) -> Vec<Bounds> {
    let mut bounds = vec![Bounds::new(0.0, 0.0); groups];
    for (range, &group) in ranges.iter().zip(assignment) {
        let group = &mut bounds[usize::from(group)];
        *group = group.union(*range);
    }
    bounds
}

/// Renumbers groups by width.
fn narrowest_first(bounds: &[Bounds], assignment: &[u16]) -> (Vec<Bounds>, Vec<u16>) {
    let mut order: Vec<usize> = (0..bounds.len()).collect();
    order.sort_by(|&a, &b| bounds[a].width().total_cmp(&bounds[b].width()));
    let mut rank = vec![0_u16; bounds.len()];
    for (new, &old) in order.iter().enumerate() {
        rank[old] = new as u16;
    }
    let renumbered = assignment.iter().map(|&g| rank[usize::from(g)]).collect();
    (order.into_iter().map(|old| bounds[old]).collect(), renumbered)
}
