//! Nothing is quantized: the reference.

use super::{MethodSpec, Parts};

pub(super) const SPEC: MethodSpec = MethodSpec {
    name: "float",
    describe: "nothing is quantized",
    parts: Parts::Whole,
    dynamic: false,
    instance_aware: false,
    depends_on_bits: false,
    at_softmax: None,
    format: None,
    stored: None,
    fit: |_| None,
};
