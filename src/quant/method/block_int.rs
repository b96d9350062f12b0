//! Integers in blocks of neighbouring channels of one token, with a scale in half precision and a zero point.

use super::{MethodSpec, Parts};
use crate::quant::format::Format;

pub(super) const SPEC: MethodSpec = MethodSpec {
    name: "block-int",
    describe: "blocks of neighbouring channels, each token and block with a scale of its own",
    parts: Parts::Blocks(None),
    dynamic: true,
    instance_aware: false,
    depends_on_bits: true,
    at_softmax: None,
    format: Some(Format::Int),
    stored: None,
    fit: |to| Some(to.tiles(Format::Int, to.block)),
};
