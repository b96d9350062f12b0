//! Groups of neighbouring channels, min and max over the calibration pictures.

use super::{Method, MethodSpec, Parts, Stored};
use crate::quant::bits::GroupCount;
use crate::quant::calibrate::SiteRanges;
use crate::quant::fit::{SiteQuantizers, covering};

pub(super) const SPEC: MethodSpec = MethodSpec {
    name: "contiguous",
    describe: "static groups: neighbouring channels share a range",
    parts: Parts::Groups,
    dynamic: false,
    instance_aware: false,
    depends_on_bits: false,
    at_softmax: Some(Method::Layer),
    format: None,
    stored: Some(Stored::Fixed),
    fit: |to| Some(fit(to.ranges, to.groups)),
};

fn fit(ranges: &SiteRanges, groups: GroupCount) -> SiteQuantizers {
    let merged = ranges.merged();
    let count = groups.get().min(merged.len());
    let assignment: Vec<u16> = (0..merged.len()).map(|c| (c * count / merged.len()) as u16).collect();
    SiteQuantizers::fixed(covering(&merged, &assignment, count), assignment)
}
