//! The paper's groups with a scale for every token and group, from the token's own values \[D\]: what current hardware does with blocks of
//! neighbouring channels, done with channels whose ranges are alike in this picture.

use super::{Fit, MethodSpec, Parts};
use crate::model::SiteKind;
use crate::quant::fit::{Rule, SiteQuantizers};
use crate::quant::format::Format;
use crate::quant::group::{self, Cost};

pub(super) const SPEC: MethodSpec = MethodSpec {
    name: "igq-token",
    describe: "instance-aware groups with a scale for every token and group",
    parts: Parts::TokenGroups,
    dynamic: true,
    instance_aware: true,
    depends_on_bits: true,
    at_softmax: None,
    format: Some(Format::Int),
    stored: None,
    fit: |to| Some(fit(to)),
};

/// The softmax and the values that it weights meet along tokens, so that their scales are those of blocks of tokens.
fn fit(to: &Fit) -> SiteQuantizers {
    match to.info.site.kind {
        SiteKind::Attn | SiteKind::V => to.tiles(Format::Int, to.block),
        _ => {
            let centres = group::fit(&to.ranges.all(), to.groups.get(), Cost::Distance);
            SiteQuantizers { bounds: centres, rule: Rule::NearestByToken }
        }
    }
}
