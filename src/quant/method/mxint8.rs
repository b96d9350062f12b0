//! MXINT8 of the OCP Microscaling Formats 1.0: INT8 in blocks of 32 with an E8M0 scale.

use super::{MethodSpec, Parts};
use crate::quant::format::Format;

pub(super) const SPEC: MethodSpec = MethodSpec {
    name: "mxint8",
    describe: "MXINT8: 8-bit integers in blocks of 32 with a power of two (OCP Microscaling)",
    parts: Parts::Blocks(Some(32)),
    dynamic: true,
    instance_aware: false,
    depends_on_bits: true,
    at_softmax: None,
    format: Some(Format::MxInt8),
    stored: None,
    fit: |to| Some(to.tiles(Format::MxInt8, 32)),
};
