//! Per-tensor dynamic: one range for the site, min and max of this picture.

use super::{MethodSpec, Parts};
use crate::quant::fit::{Rule, SiteQuantizers};

pub(super) const SPEC: MethodSpec = MethodSpec {
    name: "layer-dynamic",
    describe: "per-tensor dynamic: one range a layer, from this picture",
    parts: Parts::Whole,
    dynamic: true,
    instance_aware: false,
    depends_on_bits: false,
    at_softmax: None,
    format: None,
    stored: None,
    fit: |_| Some(SiteQuantizers { bounds: Vec::new(), rule: Rule::OwnRange }),
};
