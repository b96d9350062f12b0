//! The paper: instance-aware groups, fixed quantizers, channels assigned by the ranges of this picture (section 3.2). Bounds hold most of the
//! ranges of their group, at a percentile of them \[D\].

use super::{Fit, MethodSpec, Parts, Stored};
use crate::quant::fit::{Rule, SiteQuantizers};
use crate::quant::group::{self, Cost};
use crate::quant::uniform::Bounds;

pub(super) const SPEC: MethodSpec = MethodSpec {
    name: "igq",
    describe: "instance-aware groups: channels grouped anew for every image",
    parts: Parts::Groups,
    dynamic: true,
    instance_aware: true,
    depends_on_bits: true,
    at_softmax: None,
    format: None,
    stored: Some(Stored::Nearest),
    fit,
};

/// Where a picture has one value for every channel, its ranges are points, and every group holds all of them: what a channel shows in another
/// picture is not near what it showed in calibration.
fn fit(to: &Fit) -> Option<SiteQuantizers> {
    let ranges = to.ranges.all();
    let centres = group::fit(&ranges, to.groups.get(), Cost::Distance);
    let bounds = if to.ranges.values == 1 {
        let whole = ranges.iter().copied().fold(Bounds::EMPTY, Bounds::union).with_zero();
        vec![whole; centres.len()]
    } else {
        group::at_percentile(&ranges, &centres, to.ranges.alpha, f64::from(to.bits.max_code()?))
    };
    Some(SiteQuantizers { bounds, rule: Rule::Nearest(Some(centres.into())) })
}
