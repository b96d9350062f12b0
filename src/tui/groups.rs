//! What the Groups view says of a channel, of two assignments and of many channels at once: plain arithmetic on reports.

use crate::analysis::detail::SiteDetail;
use crate::analysis::report::{QuantizerReport, RangesReport, SiteReport};
use crate::number::short;
use crate::tui::theme::group_digit;

/// The group of a channel or row.
#[must_use]
pub fn group_of(report: &SiteReport, channel: usize) -> Option<usize> {
    report.assignment.get(channel).map(|&g| usize::from(g))
}

/// The value of a channel that lies farthest from zero.
#[must_use]
pub fn extreme(report: &SiteReport, channel: usize) -> Option<f32> {
    let (min, max) = (*report.ranges.min.get(channel)?, *report.ranges.max.get(channel)?);
    Some(if -min > max { min } else { max })
}

/// `(code, value)` that a uniform quantizer gives a value; none where its range is too narrow.
#[must_use]
pub fn quantized(quantizer: &QuantizerReport, max_code: u32, value: f32) -> Option<(f32, f32)> {
    let QuantizerReport { scale, zero_point, .. } = *quantizer;
    let code = ((value / scale).round_ties_even() + zero_point).clamp(0.0, max_code as f32);
    (scale > 0.0).then_some((code, (code - zero_point) * scale))
}

/// The quantizer's formula with the numbers of a channel's farthest value, in lines; `tiled` where every token has a scale of its own.
#[must_use]
pub fn formula(report: &SiteReport, channel: usize, tiled: bool) -> Vec<String> {
    let quantizer = group_of(report, channel).and_then(|group| report.quantizers.get(group));
    let (Some(quantizer), Some(value), Some(n)) = (quantizer, extreme(report, channel), report.bits.max_code()) else {
        return vec!["in float: nothing is rounded".into()];
    };
    if tiled {
        return vec!["every token has a scale of its own here:".into(), "s = (max - min of its members) / (2^b - 1)".into()];
    }
    let number = |v: f32| short(f64::from(v));
    let Some((code, back)) = quantized(quantizer, n, value) else { return vec!["its group's range is a point: the value stays".into()] };
    let beyond = value / quantizer.scale + quantizer.zero_point;
    let clipped = beyond.round_ties_even() > n as f32 || beyond.round_ties_even() < 0.0;
    vec![
        format!("x = {}, its value farthest from zero", number(value)),
        format!("q = clip(round({} / {}) + {:.0}, 0, {n}) = {code:.0}", number(value), number(quantizer.scale), quantizer.zero_point),
        format!(
            "back ({code:.0} - {:.0}) {} = {}: {} off{}",
            quantizer.zero_point,
            number(quantizer.scale),
            number(back),
            number((back - value).abs()),
            if clipped { ", clipped" } else { "" }
        ),
    ]
}

/// Why a channel is in its group and not in the next one: what both cost it.
#[must_use]
pub fn reason(report: &SiteReport, detail: Option<&SiteDetail>, channel: usize, by_error: bool) -> Option<String> {
    let group = group_of(report, channel)?;
    let costs = detail?.costs.get(channel)?;
    let next = costs.iter().enumerate().filter(|(g, _)| *g != group).min_by(|a, b| a.1.total_cmp(b.1))?;
    let what = if by_error { "expected error" } else { "distance" };
    let digit = |g: usize| group_digit(g);
    Some(format!("{what} {} to group {}, {} to {}", short(*costs.get(group)?), digit(group), short(*next.1), digit(next.0)))
}

/// How many channels go from each group of one assignment to each of another: a row for each of the first.
#[must_use]
pub fn migration(from: &SiteReport, to: &SiteReport) -> Vec<Vec<usize>> {
    let (rows, columns) = (from.quantizers.len(), to.quantizers.len());
    let mut counts = vec![vec![0; columns]; rows];
    for (&a, &b) in from.assignment.iter().zip(&to.assignment) {
        if let Some(count) = counts.get_mut(usize::from(a)).and_then(|row| row.get_mut(usize::from(b))) {
            *count += 1;
        }
    }
    counts
}

/// Several channels as one: from the least to the largest value, and the group that most of them are in.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Merged {
    /// The first of them.
    pub channel: usize,
    /// Smallest value.
    pub min: f32,
    /// Largest value.
    pub max: f32,
    /// The group of most; none in float.
    pub group: Option<usize>,
}

/// All channels of `order` in at most `columns` columns.
#[must_use]
pub fn merged(report: &SiteReport, order: &[usize], columns: usize) -> Vec<Merged> {
    let columns = columns.clamp(1, order.len().max(1));
    let part = |x: usize| &order[x * order.len() / columns..(x + 1) * order.len() / columns];
    let merge = |x: usize| {
        let part = part(x);
        let of =
            |values: &[f32], start: f32, best: fn(f32, f32) -> f32| part.iter().filter_map(|&c| values.get(c)).copied().fold(start, best);
        let mut counts = vec![0_usize; report.quantizers.len()];
        for group in part.iter().filter_map(|&c| group_of(report, c)) {
            if let Some(count) = counts.get_mut(group) {
                *count += 1;
            }
        }
        let group = counts.iter().enumerate().max_by_key(|(g, count)| (**count, std::cmp::Reverse(*g))).map(|(g, _)| g);
        Merged {
            channel: part.first().copied().unwrap_or(0),
            min: of(&report.ranges.min, f32::INFINITY, f32::min),
            max: of(&report.ranges.max, f32::NEG_INFINITY, f32::max),
            group: group.filter(|_| !report.assignment.is_empty()),
        }
    };
    (0..columns).map(merge).collect()
}

/// Channels whose group differs between the two.
#[must_use]
pub fn moved(report: &SiteReport, other: &SiteReport) -> Vec<usize> {
    let pairs = report.assignment.iter().zip(&other.assignment).enumerate();
    pairs.filter(|(_, (a, b))| a != b).map(|(channel, _)| channel).collect()
}

/// From where to where, the most frequent first.
#[must_use]
pub fn moves(report: &SiteReport, other: &SiteReport, moved: &[usize]) -> String {
    let mut counts = std::collections::BTreeMap::new();
    for &channel in moved {
        *counts.entry((report.assignment[channel], other.assignment[channel])).or_insert(0_usize) += 1;
    }
    let mut sorted: Vec<_> = counts.into_iter().collect();
    sorted.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(&b.0)));
    let digit = |g: u16| group_digit(usize::from(g));
    let list: Vec<String> = sorted.iter().map(|((a, b), n)| format!("{}→{}:{n}", digit(*a), digit(*b))).collect();
    if list.is_empty() { "every one is in the same group for both".into() } else { format!("moved {}", list.join(" ")) }
}

/// How wide a channel or row is on average, as a share of the range of all members of its group in this picture: how alike those are that share a
/// scale. None where nothing is grouped.
#[must_use]
pub fn alike(report: &SiteReport) -> Option<f64> {
    let RangesReport { min, max } = &report.ranges;
    let mut groups = vec![(0.0_f32, 0.0_f32); report.quantizers.len()];
    let member = |index: usize| report.assignment.get(index).map(|&group| usize::from(group));
    for (index, (&min, &max)) in min.iter().zip(max).enumerate() {
        if let Some((lower, upper)) = member(index).and_then(|group| groups.get_mut(group)) {
            (*lower, *upper) = (lower.min(min), upper.max(max));
        }
    }
    let share = |(index, (&min, &max)): (usize, (&f32, &f32))| {
        let (lower, upper) = *groups.get(member(index)?)?;
        (upper > lower).then(|| f64::from((max.max(0.0) - min.min(0.0)) / (upper - lower)))
    };
    let shares: Vec<f64> = min.iter().zip(max).enumerate().filter_map(share).collect();
    (!shares.is_empty()).then(|| shares.iter().sum::<f64>() / shares.len() as f64)
}
