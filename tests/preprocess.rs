//! Pixels as Pillow gives them: every kind of picture file and every filter, decoded, turned upright, resized and cut, against what
//! Pillow 13 made of the same file. The references are pictures of 32x32 in `tests/preprocess/expected`.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs;
use std::path::PathBuf;

use igq::input::preprocess::{Interpolation, Resize};
use igq::input::{Picture, Preprocess, Raster};

fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/preprocess").join(name)
}

fn prepared(picture: &str, resize: Resize, interpolation: Interpolation) -> Raster {
    let picture = Picture::open(&path(picture)).unwrap();
    let (mean, std, from) = (vec![0.5; 3], vec![0.5; 3], "the test".into());
    let preprocess = Preprocess {
        size: (32, 32),
        channels: 3,
        resize,
        interpolation,
        rescale: 1.0 / 255.0,
        mean,
        std,
        fill: vec![0; 3],
        on_tensors: false,
        from,
    };
    preprocess.apply(&picture).unwrap().view
}

/// Mean and largest difference from the reference, in steps of 1/255.
fn difference(found: &Raster, expected: &str) -> (f64, u8) {
    let expected = Picture::open(&path(&format!("expected/{expected}.png"))).unwrap().raster.with_channels(3);
    assert_eq!((found.width, found.height, found.channels), (expected.width, expected.height, 3));
    let differences = found.data.iter().zip(&expected.data).map(|(a, b)| a.abs_diff(*b));
    let sum: f64 = differences.clone().map(f64::from).sum();
    (sum / found.data.len() as f64, differences.max().unwrap())
}

#[test]
fn every_kind_of_file_gives_pillows_pixels() {
    let mut bad = Vec::new();
    let mut seen = 0;
    for entry in fs::read_dir(path("")).unwrap().map(|entry| entry.unwrap().path()).filter(|path| {
        // Beside the pictures stand the scripts and what they have written.
        path.is_file() && !["py", "csv", "json", "safetensors"].contains(&path.extension().unwrap().to_str().unwrap())
    }) {
        let name = entry.file_name().unwrap().to_str().unwrap();
        let (mean, most) = difference(&prepared(name, Resize::Shortest(36), Interpolation::Bicubic), name);
        eprintln!("{name}: mean {mean:.3}, at most {most}");
        if mean > 1.0 || most > 3 {
            bad.push(format!("{name}: mean {mean:.3}, at most {most}"));
        }
        seen += 1;
    }
    assert!(bad.is_empty(), "{}", bad.join("\n"));
    assert_eq!(seen, 24, "all pictures were there");
}

#[test]
fn every_filter_gives_pillows_pixels_down_up_and_squashed() {
    let mut bad = Vec::new();
    for (name, filter) in [
        ("nearest", Interpolation::Nearest),
        ("bilinear", Interpolation::Bilinear),
        ("bicubic", Interpolation::Bicubic),
        ("lanczos", Interpolation::Lanczos),
    ] {
        for (way, resize) in [("down", Resize::Shortest(36)), ("squash", Resize::Exact(34, 40)), ("up", Resize::Shortest(150))] {
            let (mean, most) = difference(&prepared("colour.png", resize, filter), &format!("{way}-{name}"));
            if mean > 1.0 || most > 3 {
                bad.push(format!("{way} {name}: mean {mean:.3}, at most {most}"));
            }
        }
    }
    assert!(bad.is_empty(), "{}", bad.join("\n"));
}

#[test]
fn a_strip_that_would_explode_is_refused() {
    let raster = Raster { width: 8_000, height: 1, channels: 1, data: vec![7; 8_000] };
    let strip = Picture { name: "strip".into(), source: "strip.png".into(), raster, label: None };
    let exact = Preprocess::from_config(None, None, 3, (224, 224)).unwrap();
    let error = exact.apply(&strip).unwrap_err().to_string();
    assert!(error.contains("strip.png") && error.contains("8000x1"), "{error}");
}

#[test]
fn every_form_of_a_configuration_gives_the_input_of_the_reference() {
    let cases: Vec<serde_json::Value> = serde_json::from_str(&fs::read_to_string(path("processors.json")).unwrap()).unwrap();
    let expected = candle_core::safetensors::load(path("processors.safetensors"), &candle_core::Device::Cpu).unwrap();
    let picture = Picture::open(&path("colour.png")).unwrap();
    assert_eq!(cases.len(), expected.len());
    let mut bad = Vec::new();
    for (number, case) in cases.iter().enumerate() {
        let side = |at: usize| usize::try_from(case["size"][at].as_u64().unwrap()).unwrap();
        let timm = serde_json::json!({ "pretrained_cfg": case["config"] });
        let (config, own) = if case["timm"] == true { (Some(&timm), None) } else { (None, Some(&case["config"])) };
        let made = Preprocess::from_config(config, own, 3, (side(0), side(1))).unwrap();
        let found = made.apply(&picture).unwrap().tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        let expected = expected[&number.to_string()].flatten_all().unwrap().to_vec1::<f32>().unwrap();
        let plane = side(0) * side(1);
        let unit = |index: usize| f64::from(made.std[index / plane]) / made.rescale;
        let steps = found.iter().zip(&expected).enumerate().map(|(at, (a, b))| f64::from((a - b).abs()) * unit(at)).fold(0.0, f64::max);
        if found.len() != expected.len() || steps >= 3.0 {
            bad.push(format!("{steps:.2} steps of 1/255: {}", case["config"]));
        }
    }
    assert!(bad.is_empty(), "{}", bad.join("\n"));
}
