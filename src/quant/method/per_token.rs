//! Per-token dynamic: the min and max of every token of this picture.

use super::{MethodSpec, Parts};
use crate::quant::format::Format;

pub(super) const SPEC: MethodSpec = MethodSpec {
    name: "per-token",
    describe: "per-token dynamic: one range a token, from this picture",
    parts: Parts::Tokens,
    dynamic: true,
    instance_aware: false,
    depends_on_bits: true,
    at_softmax: None,
    format: Some(Format::Int),
    stored: None,
    fit: |to| Some(to.rows(Format::Int)),
};
