//! See `keys::key_stream`.

#![no_main]
#![allow(dead_code)] // The parts of the other targets.

#[path = "../cases.rs"]
mod cases;
#[path = "../keys.rs"]
mod keys;

libfuzzer_sys::fuzz_target!(|data: &[u8]| keys::key_stream(data));
