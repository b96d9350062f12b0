//! The paper: instance-aware groups, fixed quantizers, channels assigned by the ranges of this picture (section 3.2). Bounds hold most of the
//! ranges of their group, at a percentile of them \[D\].

use super::{Fit, MethodSpec, Parts, Stored};
use crate::quant::bits::BitWidth;
use crate::quant::fit::{Rule, SiteQuantizers, covering};
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
    fit: |to| Some(SiteQuantizers { bounds: bounds(to)?, rule: Rule::Nearest }),
};

/// Groups by distance, with bounds at the percentile of least expected error. Where a picture has one value for every channel, its ranges are
/// points, and bounds hold all of them.
pub(super) fn bounds(to: &Fit) -> Option<Vec<Bounds>> {
    let ranges = to.ranges.all();
    if to.ranges.values == 1 {
        let means = group::fit(&ranges, to.groups.get(), Cost::Distance);
        return Some(covering(&ranges, &group::assign(&ranges, &means, Cost::Distance), means.len()));
    }
    // The bits decide between percentiles; what is left in float needs none.
    let max_code = BitWidth::max_code(to.bits)?;
    Some(group::at_percentile(&ranges, to.groups.get(), to.ranges.alpha, f64::from(max_code)))
}
