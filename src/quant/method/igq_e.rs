//! Instance-aware groups by expected error instead of distance, beyond the paper \[D\].

use super::{Fit, MethodSpec, Parts, Stored};
use crate::quant::fit::{Rule, SiteQuantizers};
use crate::quant::group::{self, Alpha, Cost};

pub(super) const SPEC: MethodSpec = MethodSpec {
    name: "igq-e",
    describe: "instance-aware groups by expected error instead of distance",
    parts: Parts::Groups,
    dynamic: true,
    instance_aware: true,
    depends_on_bits: true,
    at_softmax: None,
    format: None,
    stored: Some(Stored::LeastError),
    fit,
};

fn fit(to: &Fit) -> Option<SiteQuantizers> {
    // Where a picture has one value for every channel, what is clipped is that value itself.
    let alpha = if to.ranges.values == 1 { Alpha::default() } else { to.ranges.alpha };
    let cost = Cost::Error { alpha, max_code: f64::from(to.bits.max_code()?) };
    Some(SiteQuantizers { bounds: group::fit(&to.ranges.all(), to.groups.get(), cost), rule: Rule::LeastError(alpha) })
}
