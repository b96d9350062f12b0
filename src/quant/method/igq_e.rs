//! Instance-aware groups by expected error instead of distance, beyond the paper \[D\].

use super::{MethodSpec, Parts, Stored};
use crate::quant::bits::{BitWidth, GroupCount};
use crate::quant::calibrate::SiteRanges;
use crate::quant::fit::{Rule, SiteQuantizers};
use crate::quant::group::{self, Cost};

pub(super) const SPEC: MethodSpec = MethodSpec {
    name: "igq-e",
    describe: "instance-aware groups by expected error instead of distance",
    parts: Parts::Groups,
    dynamic: true,
    instance_aware: true,
    depends_on_bits: true,
    at_softmax: None,
    stored: Some(Stored::LeastError),
    fit,
};

fn fit(ranges: &SiteRanges, groups: GroupCount, bits: BitWidth) -> Option<SiteQuantizers> {
    let cost = Cost::Error { alpha: ranges.alpha, max_code: f64::from(bits.max_code()?) };
    Some(SiteQuantizers { bounds: group::fit(&ranges.all(), groups.get(), cost), rule: Rule::LeastError(ranges.alpha) })
}
