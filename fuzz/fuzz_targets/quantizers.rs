//! See `cases::quantizers`.

#![no_main]
#![allow(dead_code)] // The parts of the other targets.

#[path = "../cases.rs"]
mod cases;
#[path = "../keys.rs"]
mod keys;

libfuzzer_sys::fuzz_target!(|data: &[u8]| cases::quantizers(data));
