//! What several test files need.

#![allow(dead_code, clippy::unwrap_used, clippy::expect_used)] // Test code: a failure here is a failed test.

pub mod cli;
pub mod screen;
#[cfg(unix)]
pub mod terminal;

use std::collections::HashMap;
use std::path::PathBuf;

use candle_core::{Device, Tensor};
use igq::session::{Options, Session};

/// A file under `tests/golden`.
pub fn golden(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(path)
}

/// A file or folder of the material beside the project that is too large for it; none, and a line that no capture hides, where it is absent.
pub fn shared(path: &str) -> Option<PathBuf> {
    use std::io::Write;
    let found = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../shared").join(path);
    if found.exists() {
        return Some(found);
    }
    let test = std::thread::current().name().unwrap_or("a test").to_string();
    writeln!(std::io::stderr().lock(), "SKIPPED: {test} needs ../shared/{path}, which is not there").ok();
    None
}

/// Tensors of a safetensors file.
pub fn tensors(path: impl AsRef<std::path::Path>) -> HashMap<String, Tensor> {
    candle_core::safetensors::load(path, &Device::Cpu).expect("a readable safetensors file")
}

/// All values in one row.
pub fn flat(tensor: &Tensor) -> Vec<f32> {
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

/// Largest difference between two tensors of one shape.
pub fn difference(a: &Tensor, b: &Tensor) -> f32 {
    assert_eq!(a.dims(), b.dims());
    flat(a).iter().zip(flat(b)).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

/// A checkpoint in a folder of its own.
pub fn stored(weights: &HashMap<String, Tensor>) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    candle_core::safetensors::save(weights, folder.path().join("model.safetensors")).unwrap();
    folder
}

/// A copy of the golden checkpoint `name` with its tensors changed by `edit`.
pub fn edited(name: &str, edit: impl FnOnce(HashMap<String, Tensor>) -> HashMap<String, Tensor>) -> tempfile::TempDir {
    let folder = stored(&edit(tensors(golden(&format!("{name}/model.safetensors")))));
    for config in ["config.json", "preprocessor_config.json"] {
        std::fs::copy(golden(&format!("{name}/{config}")), folder.path().join(config)).ok();
    }
    folder
}

/// A session on the built-in model with few calibration pictures, so that tests are quick.
pub fn built_in() -> Session {
    built_in_on(8)
}

/// The same on so many calibration pictures.
pub fn built_in_on(calibration_images: usize) -> Session {
    Session::open(&Options { calibration_images, ..Options::default() }, &|_| ()).unwrap()
}
