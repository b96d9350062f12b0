//! Calibration: the float model over some pictures, keeping the range of every channel and row of each picture apart. Ranges do not
//! depend on bits, groups or method, so one calibration serves every setting.

use std::collections::BTreeMap;
use std::sync::Arc;

use candle_core::{D, Tensor};
use multiversion::multiversion;
use rayon::prelude::*;

use super::curvature::{self, Curvature, Gram};
use super::group::Alpha;
use super::ranges::{self, Along};
use super::uniform::Bounds;
use crate::error::Result;
use crate::model::{Network, Recorder, Site, Tap, forward, kernels};
use crate::progress::Cancel;

/// Ranges of one site: `images[i][c]` is channel (or row) `c` of calibration picture `i`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SiteRanges {
    /// One list of ranges for each picture.
    pub images: Vec<Vec<Bounds>>,
    /// `alpha` of the error-aware rule (see [`super::group::Cost::Error`]).
    pub alpha: Alpha,
    /// Values that a range was taken from: tokens of a channel, columns of a softmax row.
    pub values: usize,
    /// Values at even distances, for quantizers that need the distribution and not only the range.
    pub sample: Vec<f32>,
    /// What rounding the weight of its layer needs; none where the site has no layer.
    pub curvature: Option<Arc<Curvature>>,
}

impl SiteRanges {
    /// All ranges of all pictures, in one row: what group quantizers are fitted to.
    #[must_use]
    pub fn all(&self) -> Vec<Bounds> {
        self.images.iter().flatten().copied().collect()
    }

    /// The range of every channel over all pictures: what static baselines are made of.
    #[must_use]
    pub fn merged(&self) -> Vec<Bounds> {
        let mut images = self.images.iter();
        let first = images.next().cloned().unwrap_or_default();
        images.fold(first, |merged, image| merged.iter().zip(image).map(|(a, b)| a.union(*b)).collect())
    }
}

/// What calibration found, for every site.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Calibration {
    /// Ranges by site.
    pub sites: BTreeMap<Site, SiteRanges>,
    /// Number of pictures.
    pub images: usize,
}

/// Runs the float network over batches of pictures `(B, C, height, width)`; `done` hears the number of pictures so far.
///
/// # Errors
/// When a batch has the wrong shape, or `cancel` was called.
pub fn calibrate(network: &dyn Network, batches: &[Tensor], cancel: &Cancel, mut done: impl FnMut(usize)) -> Result<Calibration> {
    let mut calibration = Calibration::default();
    let mut excess: BTreeMap<Site, Excess> = BTreeMap::new();
    let mut grams: BTreeMap<Site, Gram> = BTreeMap::new();
    let near_of: BTreeMap<Site, _> = network.sites().into_iter().filter_map(|info| Some((info.site, info.near?))).collect();
    for batch in batches {
        let sites = &mut calibration.sites;
        let recorder = Recorder(|site: Site, x: &Tensor| {
            let last = x.dim(D::Minus1)?;
            let picture = x.elem_count() / x.dim(0)?;
            let each = |values: &[f32]| values.par_chunks_exact(picture).map(|picture| see(site, picture, last)).collect();
            let seen: Vec<Seen> = kernels::with_values(x, each)?;
            let (ranges, excess) = (sites.entry(site).or_default(), excess.entry(site).or_default());
            for seen in seen {
                ranges.images.push(seen.ranges);
                ranges.sample.extend(seen.sample);
                ranges.values = seen.values;
                *excess = excess.and(seen.excess);
                ranges.alpha = excess.alpha(site);
            }
            let mut add = |values: &[f32], columns| grams.entry(site).or_default().add(values, columns);
            match (network.weight(site), near_of.get(&site)) {
                (None, _) => Ok(()),
                (Some(weight), _) if weight.size().1 > curvature::WIDEST => Ok(()),
                (Some(_), None) => kernels::with_values(x, |values| add(values, last))?,
                (Some(weight), Some(near)) => {
                    let near =
                        |values: &[f32]| values.chunks_exact(picture).flat_map(|one| near.sample(one, last, NEAR)).collect::<Vec<_>>();
                    add(&kernels::with_values(x, near)?, weight.size().1)
                }
            }
        });
        forward(network, batch, &mut Cancellable { inner: recorder, cancel })?;
        calibration.images += batch.dim(0)?;
        done(calibration.images);
    }
    let finished = |(site, gram): (Site, Gram)| {
        cancel.check()?;
        Ok((site, gram.finish()?))
    };
    let curvatures: Vec<(Site, Curvature)> = grams.into_par_iter().map(finished).collect::<Result<_>>()?;
    for (site, curvature) in curvatures {
        calibration.sites.entry(site).or_default().curvature = Some(Arc::new(curvature));
    }
    Ok(calibration)
}

/// Where inside a range the bound stands whose excess is measured, as a share of the extreme \[D\].
const INSIDE: f32 = 0.5;
/// Neighbourhoods of one picture that the rounding of a convolution's weights looks at \[D\].
const NEAR: usize = 4096;
/// Values of one picture and site that are kept.
const SAMPLE: usize = 512;

/// The least `alpha` at a softmax \[D\]: what is measured there, below 0.01, clips the few large weights that decide.
const SOFTMAX_FLOOR: f64 = 0.1;

/// Squared excess over bounds inside the ranges, summed over channels: (below, above).
#[derive(Clone, Copy, Default)]
struct Excess {
    /// Mean over the values of a channel.
    values: (f64, f64),
    /// Of the extreme.
    extremes: (f64, f64),
}

impl Excess {
    fn and(self, other: Self) -> Self {
        let add = |a: (f64, f64), b: (f64, f64)| (a.0 + b.0, a.1 + b.1);
        Self { values: add(self.values, other.values), extremes: add(self.extremes, other.extremes) }
    }

    fn alpha(self, site: Site) -> Alpha {
        let share = |values: f64, extremes: f64| if extremes > 0.0 { values / extremes } else { 1.0 };
        let (lower, upper) = (share(self.values.0, self.extremes.0), share(self.values.1, self.extremes.1));
        Alpha { lower, upper: if site.kind.is_softmax() { upper.max(SOFTMAX_FLOOR) } else { upper } }
    }
}

/// What one picture shows at one site.
struct Seen {
    ranges: Vec<Bounds>,
    values: usize,
    excess: Excess,
    sample: Vec<f32>,
}

/// Looks at the values of one picture: channels `(N, C)`, or softmax rows `(H N, N)`; `last` is the last dimension.
fn see(site: Site, values: &[f32], last: usize) -> Seen {
    let softmax = site.kind.is_softmax();
    let ranges = ranges::of_picture(Along::of(site.kind), values, last);
    let each = (values.len() / ranges.len().max(1)).max(1);
    let inside: Vec<(f32, f32)> = ranges.iter().map(|r| (INSIDE * r.lower.min(0.0), INSIDE * r.upper.max(0.0))).collect();
    let (lower, upper): (Vec<f32>, Vec<f32>) = inside.into_iter().unzip();
    let block = kernels::block(last);
    let of_block = |(index, values): (usize, &[f32])| -> (f64, f64) {
        let first = index * block / last;
        let mut sum = (0.0, 0.0);
        let (mut below, mut above) = (vec![0.0; last], vec![0.0; last]);
        for (row, values) in values.chunks_exact(last).enumerate() {
            let (low, high) = if softmax {
                below.fill(lower[first + row]);
                above.fill(upper[first + row]);
                squared_excess(values, &below, &above)
            } else {
                squared_excess(values, &lower, &upper)
            };
            sum = (sum.0 + low, sum.1 + high);
        }
        sum
    };
    let sums: Vec<(f64, f64)> = values.par_chunks(block).enumerate().map(of_block).collect();
    let mut excess = Excess::default();
    for (low, high) in sums {
        excess.values = (excess.values.0 + low / each as f64, excess.values.1 + high / each as f64);
    }
    for range in &ranges {
        let square = |extreme: f32| f64::from(extreme * (1.0 - INSIDE)).powi(2);
        excess.extremes.0 += square(range.lower.min(0.0));
        excess.extremes.1 += square(range.upper.max(0.0));
    }
    // An odd stride runs through all channels.
    let stride = (values.len() / SAMPLE).max(1) | 1;
    Seen { ranges, values: each, excess, sample: values.iter().copied().step_by(stride).collect() }
}

/// `sum max(0, l - x)^2` and `sum max(0, x - u)^2` of a row, with bounds of its own for every column.
#[multiversion(targets = "simd")]
fn squared_excess(values: &[f32], lower: &[f32], upper: &[f32]) -> (f64, f64) {
    let (parts, rest) = values.as_chunks::<8>();
    let (lowers, lower_rest) = lower[..values.len()].as_chunks::<8>();
    let (uppers, upper_rest) = upper[..values.len()].as_chunks::<8>();
    let (mut below, mut above) = ([0.0_f64; 8], [0.0_f64; 8]);
    for ((part, lower), upper) in parts.iter().zip(lowers).zip(uppers) {
        for lane in 0..8 {
            below[lane] += squared(lower[lane] - part[lane]);
            above[lane] += squared(part[lane] - upper[lane]);
        }
    }
    for (lane, ((&x, &lower), &upper)) in rest.iter().zip(lower_rest).zip(upper_rest).enumerate() {
        below[lane] += squared(lower - x);
        above[lane] += squared(x - upper);
    }
    (below.iter().sum(), above.iter().sum())
}

#[inline(always)]
#[allow(clippy::inline_always)]
fn squared(excess: f32) -> f64 {
    let excess = f64::from(excess.max(0.0));
    excess * excess
}

/// A tap that can be cancelled between steps.
struct Cancellable<'c, T> {
    inner: T,
    cancel: &'c Cancel,
}

impl<T: Tap> Tap for Cancellable<'_, T> {
    fn activation(&mut self, site: Site, x: Tensor) -> Result<Tensor> {
        self.inner.activation(site, x)
    }

    fn checkpoint(&mut self) -> Result<()> {
        self.cancel.check()
    }
}
