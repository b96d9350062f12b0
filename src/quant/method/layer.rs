//! Per-tensor static: one range for the site, from a min-max observer over the calibration pictures.

use super::{MethodSpec, Parts, Stored};
use crate::quant::calibrate::SiteRanges;
use crate::quant::fit::SiteQuantizers;
use crate::quant::uniform::Bounds;

pub(super) const SPEC: MethodSpec = MethodSpec {
    name: "layer",
    describe: "per-tensor static: one range a layer, from calibration",
    parts: Parts::Whole,
    dynamic: false,
    instance_aware: false,
    depends_on_bits: false,
    at_softmax: None,
    format: None,
    stored: Some(Stored::Fixed),
    fit: |to| Some(fit(to.ranges)),
};

fn fit(ranges: &SiteRanges) -> SiteQuantizers {
    let merged = ranges.merged();
    let whole = merged.iter().copied().fold(Bounds::EMPTY, Bounds::union).with_zero();
    SiteQuantizers::fixed(vec![whole], vec![0; merged.len()])
}
