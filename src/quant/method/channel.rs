//! Per-channel static: a range for every channel, min and max over the calibration pictures. Not hardware-friendly, a reference.

use super::{Method, MethodSpec, Parts, Stored};
use crate::quant::calibrate::SiteRanges;
use crate::quant::fit::SiteQuantizers;
use crate::quant::uniform::Bounds;

pub(super) const SPEC: MethodSpec = MethodSpec {
    name: "channel",
    describe: "per-channel static: one range a channel, from calibration (reference)",
    parts: Parts::Channels,
    dynamic: false,
    instance_aware: false,
    depends_on_bits: false,
    at_softmax: Some(Method::Layer),
    format: None,
    stored: Some(Stored::Fixed),
    fit: |to| Some(fit(to.ranges)),
};

fn fit(ranges: &SiteRanges) -> SiteQuantizers {
    let bounds: Vec<Bounds> = ranges.merged().into_iter().map(Bounds::with_zero).collect();
    let assignment = (0..bounds.len()).map(|c| c as u16).collect();
    SiteQuantizers::fixed(bounds, assignment)
}
