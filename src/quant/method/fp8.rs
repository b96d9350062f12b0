//! E4M3 with a float scale for every token, as inference engines use it for activations.

use super::{MethodSpec, Parts};
use crate::quant::format::Format;

pub(super) const SPEC: MethodSpec = MethodSpec {
    name: "fp8-e4m3",
    describe: "FP8 E4M3: 8-bit floats, one scale for every token",
    parts: Parts::Tokens,
    dynamic: true,
    instance_aware: false,
    depends_on_bits: true,
    at_softmax: None,
    format: Some(Format::Fp8),
    stored: None,
    fit: |to| Some(to.rows(Format::Fp8)),
};
