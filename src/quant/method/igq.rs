//! The paper: instance-aware groups, fixed quantizers, channels assigned by the ranges of this picture (section 3.2).

use super::{MethodSpec, Parts, Stored};
use crate::quant::bits::GroupCount;
use crate::quant::calibrate::SiteRanges;
use crate::quant::fit::{Rule, SiteQuantizers};
use crate::quant::group::{self, Cost};

pub(super) const SPEC: MethodSpec = MethodSpec {
    name: "igq",
    describe: "instance-aware groups: channels grouped anew for every image",
    parts: Parts::Groups,
    dynamic: true,
    instance_aware: true,
    depends_on_bits: false,
    at_softmax: None,
    stored: Some(Stored::Nearest),
    fit: |ranges, groups, _| Some(fit(ranges, groups)),
};

fn fit(ranges: &SiteRanges, groups: GroupCount) -> SiteQuantizers {
    SiteQuantizers { bounds: group::fit(&ranges.all(), groups.get(), Cost::Distance), rule: Rule::Nearest }
}
