//! Channels clustered once by their calibration ranges, the same groups for every picture.

use super::{Method, MethodSpec, Parts, Stored};
use crate::quant::bits::GroupCount;
use crate::quant::calibrate::SiteRanges;
use crate::quant::fit::{SiteQuantizers, covering};
use crate::quant::group::{self, Cost};
use crate::quant::uniform::Bounds;

pub(super) const SPEC: MethodSpec = MethodSpec {
    name: "sorted",
    describe: "static groups: channels clustered once, on calibration",
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
    let clusters = group::assign(&merged, &group::fit(&merged, groups.get(), Cost::Distance), Cost::Distance);
    let (bounds, assignment) = narrowest_first(&covering(&merged, &clusters, groups.get()), &clusters);
    SiteQuantizers::fixed(bounds, assignment)
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
