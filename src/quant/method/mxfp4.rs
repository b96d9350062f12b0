//! MXFP4 of the OCP Microscaling Formats 1.0: E2M1 in blocks of 32 with an E8M0 scale.

use super::{MethodSpec, Parts};
use crate::quant::format::Format;

pub(super) const SPEC: MethodSpec = MethodSpec {
    name: "mxfp4",
    describe: "MXFP4: 4-bit floats in blocks of 32 with a power of two (OCP Microscaling)",
    parts: Parts::Blocks(Some(32)),
    dynamic: true,
    instance_aware: false,
    depends_on_bits: true,
    at_softmax: None,
    format: Some(Format::MxFp4),
    stored: None,
    fit: |to| Some(to.tiles(Format::MxFp4, 32)),
};
