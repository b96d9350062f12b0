//! The paper's groups with the mean of the members' ranges as bounds, our first reading of its distance \[D\].

use super::{MethodSpec, Parts, Stored};
use crate::quant::fit::{Rule, SiteQuantizers};
use crate::quant::group::{self, Cost};

pub(super) const SPEC: MethodSpec = MethodSpec {
    name: "igq-means",
    describe: "instance-aware groups, bounds at the mean of the members: about half of their ends are clipped, which costs at 6 and 8 bits",
    parts: Parts::Groups,
    dynamic: true,
    instance_aware: true,
    depends_on_bits: false,
    at_softmax: None,
    format: None,
    stored: Some(Stored::Nearest),
    fit: |to| Some(SiteQuantizers { bounds: group::fit(&to.ranges.all(), to.groups.get(), Cost::Distance), rule: Rule::Nearest(None) }),
};
