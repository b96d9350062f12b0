//! The fuzz targets of `fuzz/`, bounded and seeded: each sees its seeds and a few hundred damaged copies of them. `IGQ_SEED` is another seed,
//! `IGQ_ROUNDS` another number of inputs, and `IGQ_CORPUS=FOLDER` writes the seeds there for libFuzzer (see CONTRIBUTING.md).

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../fuzz/cases.rs"]
mod cases;
#[path = "../fuzz/keys.rs"]
mod keys;

use std::fs;
use std::path::{Path, PathBuf};

use fastrand::Rng;
use igq::model::{Model, SiteKind};
use igq::progress::Cancel;
use igq::quant::{BitWidth, GroupCount, Method, Settings, SiteOverride, files};
use igq::studies::perturbation::SitePerturbation;

/// What takes the place of a number in a text.
const NUMBERS: [&str; 14] =
    ["0", "-1", "1", "3", "7", "64", "1e39", "1e-320", "4294967296", "18446744073709551616", "null", "\"x\"", "[]", "true"];

fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name}: expected a number, found `{text}`")))
}

fn tests() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests")
}

/// All files of a name in the folders of the cases.
fn of_cases(name: &str) -> Vec<Vec<u8>> {
    let folders = ["golden", "faults", "reports"].map(|kind| fs::read_dir(tests().join(kind)).unwrap());
    let mut paths: Vec<PathBuf> = folders.into_iter().flatten().map(|entry| entry.unwrap().path().join(name)).collect();
    paths.sort();
    paths.into_iter().filter_map(|path| fs::read(path).ok()).collect()
}

fn with(first: u8, bytes: &[u8]) -> Vec<u8> {
    [&[first], bytes].concat()
}

/// What igq's own commands write for the tiny model: one file a method that can be written.
fn quantizer_files() -> Vec<Vec<u8>> {
    let (session, folder) = (cases::session(), tempfile::tempdir().unwrap());
    let path = folder.path().join("quantizers");
    let written = Method::ALL.into_iter().filter_map(|method| {
        let settings = Settings { method, groups: GroupCount::new(2).unwrap(), ..Settings::default() };
        files::write(&path, &session.plan(&settings).ok()?, &settings).ok()?;
        fs::read(&path).ok()
    });
    written.collect()
}

fn settings_files() -> Vec<Vec<u8>> {
    let own = SiteOverride {
        sites: "blocks.*.fc2".parse().unwrap(),
        wbits: BitWidth::new(8).ok(),
        abits: BitWidth::new(3).ok(),
        groups: GroupCount::new(16).ok(),
    };
    let all = Settings { overrides: vec![own], keep_float: vec!["head".parse().unwrap()], ..Settings::default() };
    let few = Settings { kinds: [SiteKind::Fc2].into(), ..Settings::default() };
    let methods = Method::ALL.into_iter().map(|method| Settings { method, ..Settings::default() });
    let mut texts: Vec<Vec<u8>> = methods.chain([all.clone(), few]).map(|s| serde_json::to_vec(&s).unwrap()).collect();
    texts.push(serde_json::to_vec(&serde_json::json!({ "settings": all, "notes": [] })).unwrap());
    texts
}

fn cache_entries() -> Vec<Vec<u8>> {
    let session = cases::session();
    let model: &Model = &session.opened().model;
    let calibration = igq::quant::calibrate(model.network(), session.calibration_batches().unwrap(), &Cancel::default(), |_| ()).unwrap();
    let ranges = files::calibration_bytes(&calibration).unwrap();
    let found: Vec<_> = model.sites().iter().map(|info| SitePerturbation { site: info.site, omega: vec![0.5; 2] }).collect();
    let perturbation = serde_json::to_vec(&found).unwrap();
    let damage = [[0, 0, 7], [40, 0, 9], [200, 1, 255]].concat();
    vec![
        with(0, &ranges),
        with(1, &perturbation),
        with(2, &ranges),
        with(3, &perturbation),
        with(4, &damage),
        with(5, &damage),
        with(6, &damage),
        with(7, &damage),
        with(4, &[]),
    ]
}

/// Seeds of a target, made of the tests' own small files.
fn seeds(name: &str) -> Vec<Vec<u8>> {
    let halves = |bytes: &[u8]| bytes.iter().position(|b| *b == 0).unwrap();
    match name {
        "checkpoint" => cases::TINY.map(<[u8]>::to_vec).to_vec(),
        "configuration" => {
            let own = cases::TINY.iter().zip(0..).map(|(bytes, at)| with(at, &bytes[..halves(bytes)]));
            own.chain(of_cases("config.json").iter().zip(0..).map(|(text, at)| with(at, text))).collect()
        }
        "preprocessor" => {
            let mut seeds: Vec<_> = of_cases("preprocessor_config.json").iter().zip(0..8).map(|(text, at)| with(at, text)).collect();
            let wrapped = of_cases("config.json").into_iter().filter_map(|text| {
                let config: serde_json::Value = serde_json::from_slice(&text).ok()?;
                Some(with(9, config.get("pretrained_cfg")?.to_string().as_bytes()))
            });
            seeds.extend(wrapped);
            seeds
        }
        "picture" => {
            let files = fs::read_dir(tests().join("preprocess")).unwrap().map(|entry| entry.unwrap().path());
            let mut files: Vec<_> = files.chain([tests().join("faults/gif-0x0/zero.gif")]).filter(|path| path.is_file()).collect();
            files.sort();
            files.iter().map(|path| fs::read(path).unwrap()).collect()
        }
        "quantizers" => quantizer_files(),
        "settings" => settings_files(),
        "cache" => cache_entries(),
        "key_stream" => {
            // Answers and frames between keys of every view, a click, a paste, a filter, a size, a study.
            let view = |key: u8| vec![22, 2, 0, key - 32, 20, 120, 40, 15, 0, 30, 9, 11, 1, 11, 7, 20, 90, 30, 23];
            let mut seeds: Vec<_> = b"123456789".iter().map(|key| with(*key, &view(*key))).collect();
            seeds.push(with(1, &[22, 0, 0, b'/' - 32, 17, 3, b'f', b'c', b'2', 11, 8, 18, 0, 1, 50, 0, 19, 0, 3, 9, 20, 200, 60]));
            seeds.push(with(66, &[22, 3, 0, b'F' - 32, 23, 0, b'Y' - 32, 22, 3, 0, b'c' - 32, 22, 2, 20, 100, 30, 0, b'u' - 32]));
            seeds
        }
        _ => unreachable!("{name} has no seeds"),
    }
}

/// A damaged copy of one of the seeds.
fn damaged(seeds: &[Vec<u8>], random: &mut Rng) -> Vec<u8> {
    let mut bytes = seeds[random.usize(..seeds.len())].clone();
    for _ in 0..random.usize(1..6) {
        let length = bytes.len().max(1);
        // Heads of files matter more than what they announce.
        let at = if random.bool() { random.usize(..length.min(400)) } else { random.usize(..length) }.min(bytes.len());
        match random.u8(..9) {
            0 => bytes.truncate(at),
            1 | 2 if at < bytes.len() => bytes[at] = random.u8(..),
            3 if at < bytes.len() => bytes[at] ^= 1 << random.u8(..8),
            4 => bytes.insert(at, random.u8(..)),
            5 => {
                let other = &seeds[random.usize(..seeds.len())];
                bytes.truncate(at);
                bytes.extend_from_slice(&other[other.len().min(at)..]);
            }
            6 => {
                let end = bytes.len().min(at + random.usize(1..40));
                let piece = bytes[at..end].to_vec();
                bytes.splice(at..at, piece);
            }
            _ => {
                // A number in a text becomes another.
                let Some(start) = (at..bytes.len()).find(|i| bytes[*i].is_ascii_digit()) else { continue };
                let end = (start..bytes.len()).find(|i| !bytes[*i].is_ascii_digit() && bytes[*i] != b'.').unwrap_or(bytes.len());
                bytes.splice(start..end, NUMBERS[random.usize(..NUMBERS.len())].bytes());
            }
        }
    }
    bytes
}

/// Prints the input where a case panics.
struct Told<'a>(&'a str, usize, &'a [u8]);

impl Drop for Told<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let &mut Self(name, round, bytes) = self;
            let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{round}"));
            let kept = fs::write(&path, bytes).map_or_else(|e| e.to_string(), |()| path.display().to_string());
            let shown = bytes[..bytes.len().min(2000)].escape_ascii();
            eprintln!("{name}, round {round}, {} bytes (all of them: {kept}): {shown}", bytes.len());
        }
    }
}

fn bounded(name: &str, rounds: u64) {
    let (_, case) = cases::CASES.into_iter().find(|(known, _)| *known == name).unwrap();
    let seeds = seeds(name);
    assert!(!seeds.is_empty());
    if let Some(folder) = std::env::var_os("IGQ_CORPUS") {
        let folder = Path::new(&folder).join(name);
        fs::create_dir_all(&folder).unwrap();
        seeds.iter().enumerate().for_each(|(at, seed)| fs::write(folder.join(format!("seed-{at:02}")), seed).unwrap());
    }
    let mut random = Rng::with_seed(variable("IGQ_SEED").unwrap_or(7));
    let run = |round: usize, bytes: &[u8]| {
        let _told = Told(name, round, bytes);
        case(bytes);
    };
    seeds.iter().enumerate().for_each(|(at, seed)| run(at, seed));
    for round in 0..variable("IGQ_ROUNDS").unwrap_or(rounds) {
        run(seeds.len() + usize::try_from(round).unwrap(), &damaged(&seeds, &mut random));
    }
}

#[test]
fn damaged_checkpoints() {
    bounded("checkpoint", 1000);
}

#[test]
fn damaged_configurations() {
    bounded("configuration", 1000);
}

#[test]
fn damaged_preprocessors() {
    bounded("preprocessor", 4000);
}

#[test]
fn damaged_pictures() {
    bounded("picture", 600);
}

#[test]
fn damaged_quantizer_files() {
    bounded("quantizers", 400);
}

#[test]
fn damaged_settings_files() {
    bounded("settings", 500);
}

#[test]
fn damaged_cache_entries() {
    bounded("cache", 400);
}

#[test]
fn random_keys_without_a_terminal() {
    bounded("key_stream", 200);
}
