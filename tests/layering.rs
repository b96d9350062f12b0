//! The dependency table of `src/lib.rs`: which folder may name which crate and which other folder, and no circles between files.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// The folders in the order of the data flow: each may use what stands before it, and nothing behind it.
const ORDER: [&str; 9] = ["input", "model", "quant", "analysis", "session", "studies", "engine", "tui", "cli"];

/// What a folder may not name, beside the folders behind it.
const FORBIDDEN: &[(&str, &[&str])] = &[
    ("input", &["std::thread", "tokio", "ratatui", "crossterm", "clap"]),
    ("model", &["image::", "tokio", "ratatui", "crossterm", "clap"]),
    ("quant", &["crate::input", "std::time", "println!", "tokio", "ratatui", "crossterm", "clap"]),
    ("analysis", &["std::time", "println!", "tokio", "ratatui", "crossterm", "clap"]),
    ("session", &["std::thread", "println!", "tokio", "ratatui", "crossterm", "clap"]),
    ("studies", &["std::thread", "println!", "tokio", "ratatui", "crossterm", "clap"]),
    ("engine", &["println!", "ratatui", "crossterm", "clap"]),
    ("tui", &["candle", "safetensors", "clap", "crate::input"]),
];

/// What the screen may name of `quant`.
const QUANT_OF_TUI: [&str; 3] = ["bits", "method", "settings"];

fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

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
    found.sort();
    found
}

/// The code of a file without comments, strings' contents kept, and without its test modules: from `#[cfg(test)]` to the brace that ends
/// the item.
fn code(text: &str) -> String {
    let plain: String = text.lines().map(|line| line.split("//").next().unwrap().to_string() + "\n").collect();
    let mut kept = String::new();
    let mut rest = plain.as_str();
    while let Some((before, behind)) = rest.split_once("#[cfg(test)]") {
        kept += before;
        let (mut depth, mut end) = (0_i32, behind.len());
        for (at, c) in behind.char_indices() {
            match c {
                '{' => depth += 1,
                '}' => {
                    depth -= 1;
                    if depth == 0 {
                        end = at + 1;
                        break;
                    }
                }
                ';' if depth == 0 => {
                    end = at + 1;
                    break;
                }
                _ => {}
            }
        }
        rest = &behind[end..];
    }
    kept + rest
}

/// A path with braces written out: `a::{b, c::{self, d}}` becomes `a::b`, `a::c`, `a::c::d`.
fn expand(path: &str) -> Vec<String> {
    let Some(open) = path.find('{') else {
        let plain = path.split(" as ").next().unwrap().trim().trim_end_matches("::self").to_string();
        return if plain.is_empty() { Vec::new() } else { vec![plain] };
    };
    let prefix = &path[..open];
    let inner = &path[open + 1..path.rfind('}').unwrap_or(path.len())];
    let (mut depth, mut start, mut parts) = (0, 0, Vec::new());
    for (at, c) in inner.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(&inner[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&inner[start..]);
    parts.into_iter().map(str::trim).filter(|p| !p.is_empty()).flat_map(|part| expand(&format!("{prefix}{part}"))).collect()
}

/// The module path of a file, `["model", "vit"]`.
fn module(file: &Path) -> Vec<String> {
    let relative = file.strip_prefix(source()).unwrap().with_extension("");
    let mut parts: Vec<String> = relative.iter().map(|p| p.to_str().unwrap().to_string()).collect();
    if parts.last().is_some_and(|last| ["mod", "lib", "main"].contains(&last.as_str())) {
        parts.pop();
    }
    parts
}

/// What stands between `use` and its semicolon, for every `use` that opens a line.
fn uses(code: &str) -> Vec<&str> {
    let mut found = Vec::new();
    for (at, _) in code.match_indices("use ") {
        let line = code[..at].rsplit('\n').next().unwrap().trim();
        if line.is_empty() || line == "pub" || (line.starts_with("pub(") && line.ends_with(')')) {
            found.push(code[at + 4..].split(';').next().unwrap());
        }
    }
    found
}

/// Every path of the crate that a file names, in and outside of `use`, `super::` and `self::` made whole.
fn named(file: &Path) -> BTreeSet<Vec<String>> {
    let code = code(&fs::read_to_string(file).unwrap());
    let own = module(file);
    let mut found = BTreeSet::new();
    let mut add = |path: &str| {
        let parts: Vec<String> = path.split("::").map(|p| p.trim().to_string()).collect();
        let mut base: Vec<String> = Vec::new();
        let mut at = 0;
        match parts[0].as_str() {
            "crate" => at = 1,
            "self" => (base, at) = (own.clone(), 1),
            "super" => {
                base.clone_from(&own);
                while parts.get(at).is_some_and(|p| p == "super") {
                    base.pop();
                    at += 1;
                }
            }
            // A module beside, as `mod.rs` files name their own.
            _ => base.clone_from(&own),
        }
        base.extend(parts[at..].iter().cloned());
        found.insert(base);
    };
    for statement in uses(&code) {
        for path in &expand(statement) {
            add(path);
        }
    }
    for start in ["crate::", "super::"] {
        for (at, _) in code.match_indices(start) {
            let path: String = code[at..].chars().take_while(|c| c.is_alphanumeric() || "_:".contains(*c)).collect();
            add(path.trim_end_matches(':'));
        }
    }
    found
}

#[test]
fn every_folder_uses_only_what_stands_before_it() {
    let mut broken = Vec::new();
    for (at, folder) in ORDER.iter().enumerate() {
        let all = files(&source().join(folder));
        assert!(!all.is_empty(), "src/{folder} has no files");
        for file in all {
            let name = file.strip_prefix(source()).unwrap().display().to_string();
            let text = code(&fs::read_to_string(&file).unwrap());
            let words = FORBIDDEN.iter().filter(|(f, _)| f == folder).flat_map(|(_, words)| *words);
            broken.extend(words.filter(|word| text.contains(**word)).map(|word| format!("{name} names {word}")));
            for path in named(&file) {
                let Some(used) = path.first().and_then(|first| ORDER.iter().position(|f| f == first)) else { continue };
                if used > at {
                    broken.push(format!("{name} names crate::{}", path.join("::")));
                }
                let inside = path.get(1).filter(|part| part.starts_with(char::is_lowercase));
                if *folder == "tui" && ORDER[used] == "quant" && inside.is_some_and(|part| !QUANT_OF_TUI.contains(&part.as_str())) {
                    broken.push(format!("{name} names the inside of quant: crate::{}", path.join("::")));
                }
            }
        }
    }
    // The ground stands under everything.
    for file in fs::read_dir(source()).unwrap().map(|e| e.unwrap().path()).filter(|p| p.is_file()) {
        let name = file.file_name().unwrap().to_str().unwrap().to_string();
        if ["lib.rs", "main.rs"].contains(&name.as_str()) {
            continue;
        }
        let used = named(&file).into_iter().filter(|path| path.first().is_some_and(|first| ORDER.contains(&first.as_str())));
        broken.extend(used.map(|path| format!("{name} is ground and names crate::{}", path.join("::"))));
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

/// For every file the files that it names, by the longest module path that is a file.
fn arrows() -> BTreeMap<Vec<String>, BTreeSet<Vec<String>>> {
    let all = files(&source());
    let modules: BTreeSet<Vec<String>> = all.iter().map(|file| module(file)).filter(|m| !m.is_empty()).collect();
    let mut arrows: BTreeMap<Vec<String>, BTreeSet<Vec<String>>> = BTreeMap::new();
    // What a module file passes on from another: `pub use loaded::LoadedModel`.
    let mut passed: BTreeMap<Vec<String>, Vec<String>> = BTreeMap::new();
    let target = |path: &[String]| (1..=path.len()).rev().map(|n| path[..n].to_vec()).find(|part| modules.contains(part));
    for file in all.iter().filter(|f| f.file_name().is_some_and(|n| n == "mod.rs")) {
        let (own, text) = (module(file), code(&fs::read_to_string(file).unwrap()));
        for statement in text.split("pub use ").skip(1) {
            for path in expand(statement.split(';').next().unwrap()) {
                let mut parts: Vec<String> = path.split("::").map(String::from).collect();
                let last = parts.last().unwrap().clone();
                if parts[0] == "crate" {
                    parts.remove(0);
                } else {
                    parts = own.iter().cloned().chain(parts).collect();
                }
                if let Some(from) = target(&parts) {
                    passed.insert(own.iter().cloned().chain([last]).collect(), from);
                }
            }
        }
    }
    for file in &all {
        let own = module(file);
        if own.is_empty() {
            continue;
        }
        let text = code(&fs::read_to_string(file).unwrap());
        let passes: Vec<String> = text.split("pub use ").skip(1).flat_map(|s| expand(s.split(';').next().unwrap())).collect();
        for path in named(file) {
            let passed_on = (1..=path.len()).rev().find_map(|n| passed.get(&path[..n]).cloned());
            let Some(used) = passed_on.or_else(|| target(&path)) else { continue };
            let only_passed = passes.iter().any(|p| path.ends_with(&p.split("::").map(String::from).collect::<Vec<_>>()));
            if used != own && !only_passed {
                arrows.entry(own.clone()).or_default().insert(used);
            }
        }
    }
    arrows
}

#[test]
fn no_circles_between_files() {
    let arrows = arrows();
    assert!(arrows.values().map(BTreeSet::len).sum::<usize>() > 200, "the imports were not read");
    // What can be taken away again and again because nothing of the rest is named by it lies on no circle.
    let mut left = arrows;
    loop {
        let ends: Vec<Vec<String>> =
            left.iter().filter(|(_, used)| used.iter().all(|u| !left.contains_key(u))).map(|(file, _)| file.clone()).collect();
        if ends.is_empty() {
            break;
        }
        for end in ends {
            left.remove(&end);
        }
    }
    let circle = |(file, used): (&Vec<String>, &BTreeSet<Vec<String>>)| {
        let on: Vec<String> = used.iter().filter(|u| left.contains_key(*u)).map(|u| u.join("::")).collect();
        format!("{} -> {}", file.join("::"), on.join(", "))
    };
    assert!(left.is_empty(), "files on a circle, or before one:\n{}", left.iter().map(circle).collect::<Vec<_>>().join("\n"));
}

#[test]
fn imports_are_read_as_they_are_written() {
    assert_eq!(expand("crate::{a, b::{self, c as d}}"), ["crate::a", "crate::b", "crate::b::c"]);
    let text = "fn one() {}\n#[cfg(test)]\nmod tests {\n    use crate::tui::x;\n}\nuse crate::cli::y;\n";
    assert!(!code(text).contains("tui") && code(text).contains("crate::cli::y"), "{}", code(text));
}

#[test]
fn every_file_has_one_subject_and_says_it() {
    for file in files(&source()) {
        let text = fs::read_to_string(&file).unwrap();
        assert!(text.starts_with("//!"), "{} does not open with what it is", file.display());
        assert!(text.lines().count() <= 450, "{} has {} lines", file.display(), text.lines().count());
    }
}
