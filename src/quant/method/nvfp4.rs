//! NVFP4: E2M1 in blocks of 16 with an E4M3 scale over one float scale for the tensor, which is this picture's.

use super::{MethodSpec, Parts};
use crate::quant::format::Format;

pub(super) const SPEC: MethodSpec = MethodSpec {
    name: "nvfp4",
    describe: "NVFP4: 4-bit floats in blocks of 16 with an E4M3 scale",
    parts: Parts::Blocks(Some(16)),
    dynamic: true,
    instance_aware: false,
    depends_on_bits: true,
    at_softmax: None,
    format: Some(Format::NvFp4),
    stored: None,
    fit: |to| Some(to.tiles(Format::NvFp4, 16)),
};
