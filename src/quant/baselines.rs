//! Methods side by side: from a site's calibration ranges to the quantizers of a method. All of them end in the same form, some bounds
//! and a rule that says which channel takes which, so that one code path quantizes for all.

use std::sync::Arc;

use super::bits::{BitWidth, GroupCount};
use super::calibrate::SiteRanges;
use super::group::{self, Cost};
use super::method::{Method, Scheme};
use super::quantizer::{LogQuantizer, Quantizer, TwinQuantizer};
use super::uniform::{Bounds, UniformQuantizer, percentile};

/// Which channel (or softmax row) takes which quantizer.
#[derive(Debug, Clone, PartialEq)]
pub enum Rule {
    /// The nearest by this picture's range: instance-aware.
    Nearest,
    /// The one of least expected error for this picture's range: instance-aware, with the share of clipped values near an extreme.
    LeastError(f64),
    /// Decided on calibration, the same for every picture.
    Fixed(Arc<[u16]>),
    /// One quantizer whose bounds are this picture's own min and max.
    OwnRange,
    /// One quantizer of another shape for all.
    One(Quantizer),
}

/// The fitted quantizers of one site.
#[derive(Debug, Clone, PartialEq)]
pub struct SiteQuantizers {
    /// Bounds of each group, narrowest first where groups have an order of their own; empty for [`Rule::OwnRange`] and [`Rule::One`].
    pub bounds: Vec<Bounds>,
    /// Who takes which.
    pub rule: Rule,
}

/// The groups of one picture at one site.
#[derive(Debug, Clone, PartialEq)]
pub struct Grouping {
    /// One quantizer for each group.
    pub quantizers: Vec<Quantizer>,
    /// The group of each channel or row.
    pub assignment: Vec<u16>,
    /// The range of each channel or row of this picture.
    pub ranges: Vec<Bounds>,
}

impl SiteQuantizers {
    /// Fits the quantizers of `scheme`; `None` for float. Only the error-aware rule and the shapes of others depend on `bits`.
    #[must_use]
    pub fn fit(ranges: &SiteRanges, scheme: Scheme, groups: GroupCount, bits: BitWidth) -> Option<Self> {
        match scheme {
            Scheme::Shared(method) => Self::fit_shared(ranges, method, groups, bits),
            Scheme::Log(1) => LogQuantizer::new(1.0, 1, bits).map(Quantizer::Log).map(Self::one),
            Scheme::Log(per_octave) => log_scale(&ranges.sample, per_octave, bits).map(Quantizer::Log).map(Self::one),
            // Only the softmax is never negative.
            Scheme::Twin if ranges.sample.iter().any(|x| *x < 0.0) => {
                TwinQuantizer::for_gelu(&ranges.sample, bits).map(Quantizer::Twin).map(Self::one)
            }
            Scheme::Twin => TwinQuantizer::for_softmax(&ranges.sample, bits).map(Quantizer::Twin).map(Self::one),
        }
    }

    const fn one(quantizer: Quantizer) -> Self {
        Self { bounds: Vec::new(), rule: Rule::One(quantizer) }
    }

    fn fit_shared(ranges: &SiteRanges, method: Method, groups: GroupCount, bits: BitWidth) -> Option<Self> {
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
                let clusters = group::assign(&merged, &group::fit(&merged, groups.get(), Cost::Distance), Cost::Distance);
                let (bounds, assignment) = narrowest_first(&covering(&merged, &clusters, groups.get()), &clusters);
                Self { bounds, rule: fixed(assignment) }
            }
            Method::Igq => Self { bounds: group::fit(&ranges.all(), groups.get(), Cost::Distance), rule: Rule::Nearest },
            Method::IgqE => {
                let cost = Cost::Error { alpha: ranges.alpha, max_code: f64::from(bits.max_code()?) };
                Self { bounds: group::fit(&ranges.all(), groups.get(), cost), rule: Rule::LeastError(ranges.alpha) }
            }
        })
    }

    /// The groups of one picture, from the ranges of its channels or rows. `None` for float bits.
    #[must_use]
    pub fn group(&self, ranges: Vec<Bounds>, bits: BitWidth) -> Option<Grouping> {
        let (bounds, assignment) = match &self.rule {
            Rule::Nearest => (self.bounds.clone(), group::assign(&ranges, &self.bounds, Cost::Distance)),
            Rule::LeastError(alpha) => {
                let cost = Cost::Error { alpha: *alpha, max_code: f64::from(bits.max_code()?) };
                (self.bounds.clone(), group::assign(&ranges, &self.bounds, cost))
            }
            Rule::Fixed(assignment) => (self.bounds.clone(), assignment.to_vec()),
            Rule::OwnRange => {
                let whole = ranges.iter().copied().fold(Bounds::EMPTY, Bounds::union);
                (vec![whole], vec![0; ranges.len()])
            }
            Rule::One(quantizer) => {
                let assignment = vec![0; ranges.len()];
                return Some(Grouping { quantizers: vec![*quantizer], assignment, ranges });
            }
        };
        let uniform = |b| UniformQuantizer::new(b, bits).map(Quantizer::Uniform);
        let quantizers = bounds.into_iter().map(uniform).collect::<Option<Vec<_>>>()?;
        Some(Grouping { quantizers, assignment, ranges })
    }
}

/// The log quantizer whose largest level is the percentile of `sample` with the least squared error; the percentiles are those of the
/// code released with RepQ-ViT.
fn log_scale(sample: &[f32], per_octave: u8, bits: BitWidth) -> Option<LogQuantizer> {
    let mut sorted = sample.to_vec();
    sorted.sort_unstable_by(f32::total_cmp);
    let error = |q: &Quantizer| sample.iter().map(|&x| f64::from(x - q.apply(x)).powi(2)).sum::<f64>();
    let tried = [99.9, 99.99, 99.999].map(|percent| percentile(&sorted, percent).max(f32::MIN_POSITIVE));
    let quantizers = tried.into_iter().filter_map(|scale| LogQuantizer::new(scale, per_octave, bits));
    quantizers.min_by(|a, b| error(&Quantizer::Log(*a)).total_cmp(&error(&Quantizer::Log(*b))))
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
