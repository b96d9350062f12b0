//! How the values of one site are distributed in one picture, channel by channel: before its quantizer, in the float run, after it, and the error
//! between; which codes stand for them; and the weights of its layer. Counts, so that any set of channels is a sum.

use candle_core::{D, Tensor};
use rayon::prelude::*;

use super::runs::SiteRun;
use crate::error::Result;
use crate::model::kernels;
use crate::quant::ranges::Along;
use crate::quant::{Grouping, Quantizer, SitePlan};

/// Bins of a histogram.
pub const BINS: usize = 240;

/// Counts of values in even bins between two ends, for each of several channels.
#[derive(Debug, Clone, PartialEq)]
pub struct Histograms {
    /// The left end of the first bin.
    pub low: f32,
    /// The right end of the last.
    pub high: f32,
    /// [`BINS`] counts for each channel.
    pub counts: Vec<u32>,
}

impl Histograms {
    fn new(channels: usize, (low, high): (f32, f32)) -> Self {
        Self { low, high, counts: vec![0; channels * BINS] }
    }

    /// The bin of a value; what lies beyond the ends belongs to the last bin there.
    #[must_use]
    pub fn bin(&self, value: f32) -> usize {
        let width = self.high - self.low;
        if width > 0.0 { (((value - self.low) / width * BINS as f32) as usize).min(BINS - 1) } else { BINS / 2 }
    }

    /// The counts of some channels together.
    #[must_use]
    pub fn of(&self, channels: &[usize]) -> Vec<u64> {
        let mut sums = vec![0; BINS];
        for channel in channels {
            let counts = self.counts.get(channel * BINS..(channel + 1) * BINS).unwrap_or_default();
            sums.iter_mut().zip(counts).for_each(|(sum, &count)| *sum += u64::from(count));
        }
        sums
    }
}

/// The distribution of one site.
#[derive(Debug, Clone, PartialEq)]
pub struct Distribution {
    /// Channels, or rows of a softmax.
    pub channels: usize,
    /// Values of one of them.
    pub values: usize,
    /// The float run.
    pub float: Histograms,
    /// The quantized run just before the quantizer.
    pub before: Histograms,
    /// Just after it.
    pub after: Histograms,
    /// After less before.
    pub error: Histograms,
    /// Codes of a quantizer; 0 in float.
    pub codes: usize,
    /// How often each code stands for a value, `codes` counts for each channel.
    pub used: Vec<u32>,
    /// Values below and above all codes, for each channel.
    pub clipped: Vec<(u32, u32)>,
    /// The weights of the layer, float and quantized; none where there is no layer or it stays in float.
    pub weights: Option<(Histograms, Histograms)>,
}

impl Distribution {
    /// Of one site, from its operand in the float run and what the quantized run did to it; `weight` is the float weight of its layer.
    ///
    /// # Errors
    /// When a tensor cannot be read.
    pub fn new(plan: &SitePlan, float: &Tensor, run: &SiteRun, weight: Option<&Tensor>) -> Result<Self> {
        let last = run.before.dim(D::Minus1)?;
        let rows = Along::of(plan.info.site.kind).is_rows();
        let read = |x: &Tensor| kernels::with_values(x, <[f32]>::to_vec);
        let [float, before, after] = [read(float)?, read(&run.before)?, read(&run.after)?];
        let channels = if rows { before.len() / last.max(1) } else { last };
        let place = Place { rows, last };
        let span = ends([&float, &before, &after]);
        let errors: Vec<f32> = before.iter().zip(&after).map(|(x, y)| y - x).collect();
        let most = errors.iter().fold(0.0_f32, |most, e| most.max(e.abs()));
        let mut parts: Vec<Histograms> = [(&float, span), (&before, span), (&after, span), (&errors, (-most, most))]
            .into_par_iter()
            .map(|(values, span)| place.histograms(values, channels, span))
            .collect();
        let (codes, used, clipped) = match &run.grouping {
            Some(grouping) => place.codes(grouping, &before, channels),
            None => (0, Vec::new(), vec![(0, 0); channels]),
        };
        let weights = match (&plan.weight, weight) {
            (Some(quantized), Some(float)) => {
                let (float, quantized) = (read(float)?, quantized.values());
                let span = ends([&float, &quantized]);
                let whole = |values: &[f32]| Place { rows: true, last: values.len() }.histograms(values, 1, span);
                Some((whole(&float), whole(&quantized)))
            }
            _ => None,
        };
        let values = before.len() / channels.max(1);
        let mut next = || parts.remove(0);
        let (float, before, after, error) = (next(), next(), next(), next());
        Ok(Self { channels, values, float, before, after, error, codes, used, clipped, weights })
    }

    /// How often each code stands for a value of some channels.
    #[must_use]
    pub fn occupancy(&self, channels: &[usize]) -> Vec<u64> {
        let mut sums = vec![0; self.codes];
        for channel in channels {
            let counts = self.used.get(channel * self.codes..(channel + 1) * self.codes).unwrap_or_default();
            sums.iter_mut().zip(counts).for_each(|(sum, &count)| *sum += u64::from(count));
        }
        sums
    }

    /// Shares of the values of some channels that lie below and above all codes.
    #[must_use]
    pub fn clipped_share(&self, channels: &[usize]) -> (f64, f64) {
        let all = (channels.len() * self.values).max(1) as f64;
        let sum =
            |part: fn(&(u32, u32)) -> u32| channels.iter().filter_map(|&c| self.clipped.get(c)).map(|c| f64::from(part(c))).sum::<f64>();
        (sum(|c| c.0) / all, sum(|c| c.1) / all)
    }
}

/// The ends of all values together, zero included.
fn ends<const N: usize>(all: [&Vec<f32>; N]) -> (f32, f32) {
    let finite = || all.into_iter().flatten().copied().filter(|x| x.is_finite());
    (finite().fold(0.0, f32::min), finite().fold(0.0, f32::max))
}

/// Which channel a value belongs to.
#[derive(Clone, Copy)]
struct Place {
    rows: bool,
    last: usize,
}

impl Place {
    const fn channel(self, row: usize, column: usize) -> usize {
        if self.rows { row } else { column }
    }

    fn histograms(self, values: &[f32], channels: usize, span: (f32, f32)) -> Histograms {
        let mut histograms = Histograms::new(channels, span);
        for (row, values) in values.chunks_exact(self.last.max(1)).enumerate() {
            for (column, &value) in values.iter().enumerate() {
                let at = self.channel(row, column) * BINS + histograms.bin(value);
                if let Some(count) = histograms.counts.get_mut(at) {
                    *count += 1;
                }
            }
        }
        histograms
    }

    /// Number of codes, counts of every channel's codes, and what was clipped.
    fn codes(self, grouping: &Grouping, before: &[f32], channels: usize) -> (usize, Vec<u32>, Vec<(u32, u32)>) {
        let codes = grouping.quantizers.iter().map(Quantizer::codes).max().unwrap_or(0);
        let (mut used, mut clipped) = (vec![0; channels * codes], vec![(0, 0); channels]);
        let mut see = |channel: usize, quantizer: &Quantizer, value: f32| {
            let (code, beyond) = quantizer.code(value);
            if let Some(count) = used.get_mut(channel * codes + code as usize) {
                *count += 1;
            }
            if let Some((below, above)) = clipped.get_mut(channel).filter(|_| beyond) {
                *(if value < 0.0 { below } else { above }) += 1;
            }
        };
        if let Some(tiles) = &grouping.tiles {
            tiles.each_row(before, self.last, |row, quantizers| {
                let values = &before[row * self.last..(row + 1) * self.last];
                for (column, (&value, quantizer)) in values.iter().zip(quantizers).enumerate() {
                    see(self.channel(row, column), quantizer, value);
                }
            });
        } else {
            let quantizer =
                |channel: usize| grouping.assignment.get(channel).and_then(|&group| grouping.quantizers.get(usize::from(group)));
            for (row, values) in before.chunks_exact(self.last.max(1)).enumerate() {
                for (column, &value) in values.iter().enumerate() {
                    let channel = self.channel(row, column);
                    if let Some(quantizer) = quantizer(channel) {
                        see(channel, quantizer, value);
                    }
                }
            }
        }
        (codes, used, clipped)
    }
}
