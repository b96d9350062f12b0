//! The dependency table of `src/lib.rs`: which module may name which crate and which other module.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs;
use std::path::{Path, PathBuf};

/// A module and the words that its files may not hold.
const FORBIDDEN: &[(&str, &[&str])] = &[
    (
        "input",
        &["std::thread", "tokio", "ratatui", "crossterm", "crate::model", "crate::quant", "crate::analysis", "crate::engine", "crate::tui"],
    ),
    (
        "model",
        &["image::", "ratatui", "crossterm", "tokio", "crate::quant", "crate::analysis", "crate::engine", "crate::tui", "crate::input"],
    ),
    (
        "quant",
        &["crate::input", "tokio", "ratatui", "crossterm", "std::time", "println!", "crate::analysis", "crate::engine", "crate::tui"],
    ),
    ("analysis", &["tokio", "ratatui", "crossterm", "println!", "crate::input", "crate::engine", "crate::tui"]),
    ("engine", &["ratatui", "crossterm", "println!", "crate::tui"]),
    ("tui", &["candle", "crate::quant", "crate::input", "safetensors"]),
];

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
    found
}

/// The code of a file without comments and without its test module.
fn code(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap();
    let product = text.split("#[cfg(test)]").next().unwrap();
    product.lines().map(|line| line.split("//").next().unwrap()).collect::<Vec<_>>().join("\n")
}

#[test]
fn every_module_keeps_to_the_table() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut broken = Vec::new();
    for (module, words) in FORBIDDEN {
        let files = files(&src.join(module));
        assert!(!files.is_empty(), "src/{module} has no files");
        for file in files {
            let code = code(&file);
            for word in words.iter().filter(|word| code.contains(**word)) {
                broken.push(format!("{} names {word}", file.strip_prefix(&src).unwrap().display()));
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn every_file_has_one_subject_and_says_it() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    for file in files(&src) {
        let text = fs::read_to_string(&file).unwrap();
        assert!(text.starts_with("//!"), "{} does not open with what it is", file.display());
        assert!(text.lines().count() <= 450, "{} has {} lines", file.display(), text.lines().count());
    }
}
