//! What people run into with vision transformers, from public reports, and what broke under hostile input: every case as a small copy of its
//! input in `tests/reports` and `tests/faults`, with the right answer.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::path::{Path, PathBuf};

use assert_cmd::Command;
use common::{difference, tensors};

fn case(kind: &str, name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(kind).join(name)
}

/// Runs igq in the folder of a case: exit code, standard output, standard error.
fn igq(folder: &Path, args: &[&str]) -> (i32, String, String) {
    let mut command = Command::cargo_bin("igq").unwrap();
    let output = command.current_dir(folder).env_remove("HF_ENDPOINT").args(args).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap_or(-1), text(output.stdout), text(output.stderr))
}

/// Holds a case to its exit code and to words of what it says.
fn says(kind: &str, name: &str, args: &[&str], code: i32, words: &[&str]) -> String {
    let (got, out, error) = igq(&case(kind, name), args);
    assert!(got == code && !error.contains("panicked"), "{name}: code {got}\n{out}{error}");
    for word in words {
        assert!(out.contains(word) || error.contains(word), "{name}: `{word}` is not in\n{out}{error}");
    }
    out + &error
}

#[test]
fn logits_are_those_of_the_library_that_wrote_the_checkpoint() {
    for name in [
        "l01-compiled-prefix",
        "l03-backbone-prefix",
        "l06-torchvision-vit",
        "l07-swiglu-transformers",
        "l09-clip-pre-norm",
        "l10-layer-scale-other-name",
        "l13-four-channels",
        "p01-ema-beside",
        "p05-massive-activation",
        "p07-resampled-rectangle",
        "s01-residual-post-norm",
        "s02-register-tokens-first-names",
    ] {
        says("reports", name, &["verify", ".", "--expected", "expected.safetensors", "--tolerance", "1e-4"], 0, &["<= 1e-4"]);
    }
    says("reports", "p01-ema-beside", &["verify", ".", "--expected", "expected.safetensors"], 0, &["averaged copies (EMA) are left out"]);
}

#[test]
fn what_would_change_the_numbers_is_refused_by_name() {
    says("reports", "l11-rotary", &["inspect", "."], 1, &["eva02_tiny_patch14_224", "rotary or relative position embeddings"]);
    says("reports", "l14-int8", &["inspect", "."], 1, &["quantized already", "float checkpoint"]);
    says("reports", "s18-gelu-tanh-by-architecture", &["inspect", "."], 1, &["vit_base_patch16_siglip_gap_224", "act_layer"]);
    says("reports", "s10-one-output", &["eval", "--no-cache", "--model", ".", "--data", "pics"], 1, &["one output", "mean nothing"]);
    says("reports", "s11-nan-logits", &["eval", "--no-cache", "--model", ".", "--data", "pics"], 1, &["blocks.1.qkv", "NaN or infinite"]);
    says("reports", "s24-cut-jpeg", &["run", "--no-cache", "--model", ".", "--image", "cut.jpg"], 1, &["cut.jpg", "whole JPEG"]);
    for command in ["run", "verify"] {
        let more: &[&str] = if command == "run" { &["--no-cache", "--method", "float"] } else { &["--expected", "expected.safetensors"] };
        let said = igq(&case("reports", "s08-heads-not-64-wide"), &[&[command, "--model", "."], more].concat()).2;
        assert!(said.contains("note: number of heads") && said.contains("3 is a guess"), "{command}: {said}");
    }
}

#[test]
fn inputs_are_those_of_the_reference_preprocessing() {
    for (name, bound) in [
        ("s03-do-normalize-false", 1e-5),
        ("s05-crop-mode-border", 0.02),
        ("s06-rectangular-input", 0.02),
        ("s13-crop-larger-than-resize", 1e-5),
        ("s14-processor-defaults", 1e-5),
        ("s15b-resample-default-deit", 1e-5),
        ("s16-timm-without-mean", 0.02),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let dump = folder.path().join("dump.safetensors");
        let args = ["run", "--no-cache", "--model", ".", "--image", "photo.png", "--method", "float", "--dump", dump.to_str().unwrap()];
        says("reports", name, &args, 0, &[]);
        let (ours, theirs) = (tensors(&dump), tensors(case("reports", name).join("reference.safetensors")));
        let off = difference(&ours["input"], &theirs["input"]);
        assert!(off <= bound, "{name}: the input is off by {off}");
        let off = difference(&ours["logits.float"], &theirs["logits"]);
        assert!(off <= 0.002, "{name}: the logits are off by {off}");
    }
}

#[test]
fn an_evaluation_counts_what_it_saw() {
    let eval = |name: &str, more: &[&str]| {
        let args = [&["eval", "--no-cache", "--model", ".", "--data", "data", "--method", "float", "--format", "json"], more].concat();
        let (code, out, error) = igq(&case("reports", name), &args);
        assert_eq!(code, 0, "{name}: {error}");
        serde_json::from_str::<serde_json::Value>(&out).unwrap()
    };
    let two = eval("l15-resource-forks", &[]);
    assert_eq!((two["images"].as_u64(), two["left_out"][0]["reason"].as_str()), (Some(2), Some("hidden file")));
    let hidden = eval("l17-hidden-folder", &[]);
    assert_eq!(hidden["left_out"][0]["reason"], "hidden folder");
    assert!(eval("l18-byte-order-mark", &["--labels", "labels.txt"])["rows"][0]["top1"].is_number());
    assert!(eval("l19-synset-folders", &[])["rows"][0]["top1"].is_number());
    assert_eq!(eval("s22-nested-pictures", &[])["images"], 4);
    assert_eq!(eval("p03-numbered-folders", &[])["images"], 12);
    let args = ["eval", "--no-cache", "--model", ".", "--data", "data", "--method", "float"];
    says("reports", "s19-two-classes-one-name", &args, 1, &["crane", "134 and 517"]);
    says("reports", "s20-stale-class-names", &["inspect", "."], 0, &["no names", "another head"]);
    let args = ["run", "--no-cache", "--model", ".", "--image", "trip [2024]/*.png"];
    says("reports", "l30-bracket-folder", &args, 0, &["trip [2024]"]);
    says("reports", "l31-shards-without-index", &["inspect", "."], 0, &["parameters:"]);
}

#[test]
fn a_damaged_picture_is_left_out_and_counted_unless_it_is_strict() {
    let folder = tempfile::tempdir().unwrap();
    let good = case("reports", "s19-two-classes-one-name").join("data");
    let picture = walk(&good).into_iter().next().unwrap();
    std::fs::create_dir(folder.path().join("0")).unwrap();
    std::fs::copy(&picture, folder.path().join("0/good.png")).unwrap();
    let bytes = std::fs::read(&picture).unwrap();
    std::fs::write(folder.path().join("0/cut.png"), &bytes[..bytes.len() / 2]).unwrap();
    std::fs::write(folder.path().join("0/notes.txt"), "no picture").unwrap();
    let data = folder.path().to_str().unwrap();
    let args = ["eval", "--no-cache", "--method", "float", "--data", data];
    says(
        "reports",
        "s19-two-classes-one-name",
        &[&args[..], &["--model", "."]].concat(),
        0,
        &["on 1 pictures", "1 (damaged)", "1 (no picture by its content)"],
    );
    says("reports", "s19-two-classes-one-name", &[&args[..], &["--model", ".", "--strict"]].concat(), 1, &["cut.png"]);
}

fn walk(folder: &Path) -> Vec<PathBuf> {
    let inside = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    inside
        .flat_map(|path| if path.is_dir() { walk(&path) } else { vec![path] })
        .filter(|p| p.extension().is_some_and(|e| e == "png"))
        .collect()
}

#[test]
fn no_control_character_of_a_name_reaches_the_terminal() {
    for format in ["text", "markdown", "csv"] {
        let said = says(
            "reports",
            "l25-escape-in-names",
            &["run", "--no-cache", "--model", ".", "--image", "photo.png", "--format", format],
            0,
            &[],
        );
        let foul = said.chars().find(|c| (c.is_control() && *c != '\n') || ('\u{202a}'..='\u{202e}').contains(c));
        assert_eq!(foul, None, "{format}: {said:?}");
    }
    let said =
        says("reports", "l26-wide-names", &["snapshot", "--no-cache", "--model", ".", "--image", "photo.png", "--size", "110x30"], 0, &[]);
    // The bars of the predictions stand below one another.
    let bars: Vec<usize> = said.lines().filter(|l| l.contains(" %│")).map(|l| l.chars().count()).collect();
    assert!(bars.len() >= 3, "{said}");
}

#[test]
fn hostile_configurations_and_shapes_are_sentences() {
    for (name, words) in [
        ("capacity-overflow-2", &["memory"][..]),
        ("capacity-overflow", &["img_size", "1 to 16384"]),
        ("classes-0", &["head.weight", "[0, 48]"]),
        ("config-oom", &["img_size", "4294967296"]),
        ("eps-minus-1", &["layer_norm_eps", "-1"]),
        ("image-0", &["img_size", "found 0"]),
        ("image-100000", &["100000"]),
        ("mlp-0", &["mlp.fc1.weight"]),
        ("patch-0", &["patch_embed.proj.weight"]),
        ("patch-0-swin", &["patch_embed.proj.weight"]),
        ("pos-embed-0-rows", &["pos_embed"]),
        ("width-0", &["patch_embed.proj.weight"]),
    ] {
        says("faults", name, &["inspect", "--model", ".", "--max-memory", "4"], 1, words);
    }
    says("faults", "mean-inf", &["run", "--no-cache", "--model", "."], 2, &["mean", "finite"]);
    for name in ["nan-null-json", "nan-panic-sorted", "weights-1e38"] {
        for method in ["igq", "igq-e", "sorted"] {
            says("faults", name, &["run", "--no-cache", "--model", ".", "--method", method], 1, &["NaN or infinite"]);
        }
    }
    says("faults", "gif-0x0", &["run", "--no-cache", "--image", "zero.gif"], 1, &["zero.gif", "0x0"]);
    says("faults", "preprocessor-oom", &["run", "--no-cache", "--model", ".", "--max-memory", "4"], 1, &["memory"]);
}

#[cfg(unix)]
#[test]
fn what_is_no_regular_file_is_refused_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let pipe = folder.path().join("pipe.png");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let here = folder.path();
    for path in [pipe.to_str().unwrap(), "/dev/zero", here.join("nothing").to_str().unwrap()] {
        for flag in ["--image", "--quantizers", "--labels", "--settings-file"] {
            let (code, _, error) = igq(here, &["run", "--no-cache", flag, path]);
            assert!(code == 1 || code == 2, "{flag} {path}: {code} {error}");
            assert!(!error.contains("panicked"), "{error}");
        }
    }
}

#[test]
fn random_damage_to_checkpoints_and_configurations_never_panics() {
    // A seeded, bounded version of the fuzz targets.
    let mut random = fastrand::Rng::with_seed(7);
    let golden = common::golden("timm_vit");
    let (weights, config) = (std::fs::read(golden.join("model.safetensors")).unwrap(), std::fs::read(golden.join("config.json")).unwrap());
    let header = usize::try_from(u64::from_le_bytes(weights[..8].try_into().unwrap())).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let numbers = ["0", "-1", "1e39", "4294967296", "null", "\"x\"", "[]", "true", "18446744073709551616"];
    for round in 0..400 {
        let (mut weights, mut config) = (weights.clone(), config.clone());
        if round % 2 == 0 {
            for _ in 0..random.usize(1..6) {
                let at = if random.bool() { random.usize(0..8 + header) } else { random.usize(0..weights.len()) };
                weights[at] = random.u8(..);
            }
            if random.u8(..) < 40 {
                weights.truncate(random.usize(0..weights.len()));
            }
        } else {
            let text = String::from_utf8(config.clone()).unwrap();
            let digits: Vec<usize> = text.char_indices().filter(|(_, c)| c.is_ascii_digit()).map(|(at, _)| at).collect();
            let at = digits[random.usize(0..digits.len())];
            let end = text[at..].find(|c: char| !c.is_ascii_digit() && c != '.').map_or(text.len(), |end| at + end);
            config = format!("{}{}{}", &text[..at], numbers[random.usize(0..numbers.len())], &text[end..]).into_bytes();
        }
        std::fs::write(folder.path().join("model.safetensors"), &weights).unwrap();
        std::fs::write(folder.path().join("config.json"), &config).unwrap();
        // A panic fails the test; an error is as good as a model.
        if let Ok(model) = igq::model::Model::open(folder.path().to_str().unwrap()) {
            drop(igq::session::loaded::preprocessing(&model));
        }
    }
}

#[test]
fn random_damage_to_pictures_never_panics() {
    let mut random = fastrand::Rng::with_seed(11);
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let originals = [
        std::fs::read(folder.join("assets/photographs/coffee.jpg")).unwrap(),
        std::fs::read(folder.join("tests/preprocess/colour.png")).unwrap(),
        std::fs::read(folder.join("tests/faults/gif-0x0/zero.gif")).unwrap(),
    ];
    for round in 0..300 {
        let mut bytes = originals[round % originals.len()].clone();
        for _ in 0..random.usize(1..10) {
            let near = if random.bool() { bytes.len().min(200) } else { bytes.len() };
            let at = random.usize(0..near);
            bytes[at] = random.u8(..);
        }
        if random.u8(..) < 60 {
            bytes.truncate(random.usize(1..bytes.len()));
        }
        drop(igq::input::picture::decode("damaged", &bytes));
    }
}

#[test]
fn nothing_that_is_read_is_written_over() {
    let copy = common::edited("timm_vit", |tensors| tensors);
    let model = copy.path().to_str().unwrap();
    let before = std::fs::read(copy.path().join("model.safetensors")).unwrap();
    let weights = copy.path().join("model.safetensors");
    let config = copy.path().join("config.json");
    for (command, flag, output) in [("calibrate", "--output", &weights), ("run", "--dump", &weights), ("run", "--output", &config)] {
        let args = [command, "--no-cache", "--calibration-images", "1", "--model", model, flag, output.to_str().unwrap()];
        let (code, _, error) = igq(copy.path(), &args);
        assert!(code == 2 && error.contains("does not read"), "{command}: {code} {error}");
    }
    assert_eq!(std::fs::read(&weights).unwrap(), before);
    for flag in ["--site-abits", "--site-groups", "--site-wbits"] {
        let (code, _, error) = igq(copy.path(), &["run", "--no-cache", flag, "nosuch=4"]);
        assert!(code == 2 && error.contains("nosuch"), "{flag}: {error}");
    }
}

/// The output of `igq run` through names that lead elsewhere.
#[cfg(unix)]
#[test]
fn outputs_go_where_they_should() {
    let folder = tempfile::tempdir().unwrap();
    let run = |output: &str| igq(folder.path(), &["run", "--calibration-images", "1", "--no-cache", "--output", output]);
    let (code, out, error) = run("/dev/stdout");
    assert!(code == 0 && out.starts_with("fashion-vit"), "{error}");
    let pipe = folder.path().join("pipe");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let theirs = pipe.clone();
    let reader = std::thread::spawn(move || std::fs::read_to_string(theirs).unwrap());
    assert_eq!(run("pipe").0, 0);
    assert!(reader.join().unwrap().starts_with("fashion-vit"));
    std::os::unix::fs::symlink("real", folder.path().join("link")).unwrap();
    assert_eq!(run("link").0, 0);
    assert!(folder.path().join("link").is_symlink() && folder.path().join("real").is_file());
    for nowhere in ["/dev/full", "/proc/nowhere/report", "no/such/folder/report"] {
        let (code, _, error) = run(nowhere);
        assert!(code == 1 && error.contains("cannot write") && !error.contains("panicked"), "{nowhere}: {error}");
    }
    let left: Vec<_> = std::fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left.len(), 3, "{left:?}");
}
