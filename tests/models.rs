//! The commands about models: what they are, and whether they compute what their library does.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::fs;

use candle_core::{DType, Device, Tensor};
use common::cli::{command, igq, refused, stdout};
use common::{difference, edited, golden, tensors};
use igq::model::{Identity, Model, forward_from, trace};
use igq::progress::Cancel;
use igq::quant::Settings;
use igq::session::{Options, Session};
use serde_json::Value;

#[test]
fn every_golden_folder_verifies_within_a_ten_thousandth() {
    for entry in fs::read_dir(golden("")).unwrap() {
        let folder = entry.unwrap().path();
        let expected = folder.join("expected.safetensors");
        let (model, expected) = (folder.to_str().unwrap(), expected.to_str().unwrap());
        let found: Value = serde_json::from_str(&stdout(&["verify", model, "--expected", expected, "--format", "json"])).unwrap();
        assert_eq!((&found["within"], &found["same_top1"]), (&Value::Bool(true), &found["pictures"]), "{found}");
        assert!(found["largest_difference"].as_f64().unwrap() <= 1e-4, "{found}");
    }
}

/// Where windows do not fill a grid, in all three libraries: 32 bits are float bit for bit, fewer bits more wrong, and a pass that starts
/// at any step ends in the same logits.
#[test]
fn a_swin_with_padded_windows_obeys_the_laws() {
    // Tokens and padding of the first stage, which has one head and windows of 4x4.
    for (name, tokens, padding) in [
        ("timm_swin_padded", 16 * 24, 16 * 24 - 13 * 22),
        ("hf_swin_padded", 16 * 24, 16 * 24 - 13 * 22),
        ("torchvision_swin_padded", 16 * 12, 16 * 12 - 13 * 11),
    ] {
        let folder = golden(name);
        let options = Options { model: folder.to_str().unwrap().into(), ..Options::default() };
        let session = Session::open(&options, &|_| ()).unwrap();
        let run = |bits: u8| {
            let bits = bits.to_string().parse().unwrap();
            let settings = Settings { wbits: bits, abits: bits, sbits: bits, ..Settings::default() };
            session.run(0, &settings, &Cancel::default()).unwrap()
        };
        let float = run(32);
        assert_eq!(float.quantized.prediction, float.base.float.prediction, "{name}");
        let worst = [4, 8].map(|bits| {
            let outcome = run(bits);
            let attention = outcome.report.site("layers.0.blocks.1.attn".parse().unwrap()).unwrap();
            let layout = attention.layout;
            assert_eq!(
                (attention.channels, attention.assignment.len(), layout.tokens(), layout.padding()),
                (tokens, tokens, tokens, padding)
            );
            assert_eq!((layout.window_count(), layout.window_tokens()), (tokens / 16, 16), "{name}");
            outcome.report.sites.iter().filter_map(|site| site.local.error.sqnr_db).fold(f64::MAX, f64::min)
        });
        assert!(worst[0] < worst[1], "{name}: {worst:?} dB at 4 and 8 bits");

        let model = Model::open(folder.to_str().unwrap()).unwrap();
        let pixels = tensors(folder.join("expected.safetensors"))["input"].clone();
        let whole = trace(model.network(), &pixels, &mut Identity).unwrap();
        assert_eq!(whole.boundaries.len(), model.network().steps(), "{name}");
        for (step, boundary) in whole.boundaries.iter().enumerate() {
            let output = forward_from(model.network(), step, boundary, &mut Identity).unwrap();
            assert_eq!(difference(&output.logits, &whole.output.logits), 0.0, "{name}: step {step}");
        }
    }
}

#[test]
fn logits_that_differ_are_shown_and_end_with_code_one() {
    let expected = golden("timm_vit/expected.safetensors");
    let (model, expected) = (golden("timm_vit"), expected.to_str().unwrap());
    let verify =
        |more: &[&'static str]| [&["verify", "--model", model.to_str().unwrap(), "--expected", expected][..], more].concat().join("\n");
    let line = stdout(&verify(&[]).split('\n').collect::<Vec<_>>());
    assert!(line.contains("largest difference") && line.contains("<= 1e-4") && line.contains("same top-1 in"), "{line}");
    refused(
        &verify(&["--tolerance", "0"]).split('\n').collect::<Vec<_>>(),
        1,
        &["timm_vit", "the logits differ by", "at most 0", "--tolerance"],
    );
    refused(&verify(&["--tolerance=-1"]).split('\n').collect::<Vec<_>>(), 2, &["--tolerance"]);

    let other = edited("timm_vit", |mut t| {
        let bias = t["head.bias"].affine(1.0, 1.0).unwrap();
        t.insert("head.bias".into(), bias);
        t
    });
    let args = ["verify", other.path().to_str().unwrap(), "--expected", expected];
    let output = igq(&args).code(1).get_output().clone();
    let (said, error) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert!(said.contains("> 1e-4") && error.contains("the logits differ by"), "{said}{error}");
}

#[test]
fn references_that_do_not_fit_are_refused_by_tensor() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("expected.safetensors");
    let whole = tensors(golden("timm_vit/expected.safetensors"));
    let refused_with = |edit: &dyn Fn(&mut std::collections::HashMap<String, Tensor>), words: &[&str]| {
        let mut copy = whole.clone();
        edit(&mut copy);
        candle_core::safetensors::save(&copy, &file).unwrap();
        let args = ["verify", golden("timm_vit").to_str().unwrap(), "--expected", file.to_str().unwrap()].map(str::to_string);
        refused(&args.each_ref().map(String::as_str), 1, words);
    };
    let zeros = |shape: &[usize]| Tensor::zeros(shape, DType::F32, &Device::Cpu).unwrap();
    refused_with(&|t| drop(t.remove("input")), &["expected.safetensors", "`input`", "no such tensor"]);
    refused_with(&|t| drop(t.remove("logits")), &["`logits`", "no such tensor"]);
    refused_with(&|t| drop(t.insert("input".into(), zeros(&[2, 3, 28, 28]))), &["`input`", "[3, 32, 32]", "[2, 3, 28, 28]"]);
    refused_with(&|t| drop(t.insert("logits".into(), zeros(&[2, 9]))), &["`logits`", "[2, 9]"]);
    refused(&["verify", "fashion-vit", "--expected", "no-such.safetensors"], 1, &["no-such.safetensors"]);
}

#[test]
fn a_model_is_described_in_text_and_json() {
    let text = stdout(&["inspect", golden("timm_swin").to_str().unwrap()]);
    for words in ["Swin", "preprocessing: ", "parameters: ", "MB in float32", "at W4/A4 with 8 groups", "--calibration DIR", "sites: "] {
        assert!(text.contains(words), "`{words}` is not in {text}");
    }
    let columns: Vec<usize> = text.lines().filter_map(|line| line.find(" tokens, ")).collect();
    assert!(columns.len() > 10 && columns.iter().max().unwrap() - columns.iter().min().unwrap() <= 2, "{text}");

    let inspection: Value = serde_json::from_str(&stdout(&["inspect", "--format", "json"])).unwrap();
    assert_eq!((inspection["name"].as_str(), inspection["labels"].as_u64()), (Some("fashion-vit"), Some(10)));
    assert_eq!(inspection["sites"].as_array().unwrap().len(), 50);
    assert_eq!(inspection["weight_bytes"].as_u64(), inspection["parameters"].as_u64().map(|n| 4 * n));
    let report: Value = serde_json::from_str(&stdout(&["run", "--format", "json", "--calibration-images", "2"])).unwrap();
    assert_eq!(report["bops"]["total"], inspection["bops_4_bits_8_groups"], "one count of bit operations");
    assert!(inspection["bops_float"].as_u64() > inspection["bops_4_bits_8_groups"].as_u64());
    refused(&["inspect", "a", "--model", "b"], 2, &["--model"]);
}

#[test]
fn class_names_come_from_a_file_the_checkpoint_or_imagenet() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("names.txt");
    let labels = file.to_str().unwrap();
    let run = |more: &[&str]| -> Value {
        let args = ["run", "--format", "json", "--calibration-images", "1", "--no-cache"];
        serde_json::from_str(&stdout(&[&args[..], more].concat())).unwrap()
    };
    fs::write(&file, (0..10).map(|i| format!("class {i}")).collect::<Vec<_>>().join("\n") + "\n\n").unwrap();
    let top = &run(&["--labels", labels])["prediction"]["float"][0];
    assert_eq!(top["label"].as_str(), Some(format!("class {}", top["class"]).as_str()));
    fs::write(&file, "one\ntwo\n").unwrap();
    refused(&["run", "--labels", labels], 1, &["names.txt", "expected 10 class names", "found 2"]);
    refused(&["inspect", "--labels", labels], 1, &["names.txt", "expected 10 class names", "found 2"]);
    fs::write(&file, "1\n2\n3\n\n5\n6\n7\n8\n9\n10\n").unwrap();
    refused(&["run", "--labels", labels], 1, &["names.txt", "line 4 empty"]);
    refused(&["run", "--labels", "no-names.txt"], 1, &["no-names.txt"]);

    let thousand = edited("timm_vit", |mut t| {
        let grow = |t: &Tensor| Tensor::zeros([&[1000], &t.dims()[1..]].concat(), DType::F32, &Device::Cpu).unwrap();
        for key in ["head.weight", "head.bias"] {
            let grown = grow(&t[key]);
            t.insert(key.into(), grown);
        }
        t
    });
    let model = igq::model::Model::open(thousand.path().to_str().unwrap()).unwrap();
    assert_eq!((model.labels.len(), model.labels[281].as_str(), model.labels[999].as_str()), (1000, "tabby", "toilet tissue"));
    assert!(model.notes.iter().any(|note| note.contains("those of ImageNet-1k are assumed")), "{:?}", model.notes);
    let seven = golden("timm_vit");
    assert_eq!(igq::model::Model::open(seven.to_str().unwrap()).unwrap().labels.len(), 0, "7 classes have no names");
    let names = folder.path().join("seven.txt");
    fs::write(&names, "a\nb\nc\nd\ne\nf\ng\n").unwrap();
    let said = stdout(&["inspect", seven.to_str().unwrap(), "--labels", names.to_str().unwrap()]);
    assert!(said.contains("labels: 7 names"), "{said}");
}

#[test]
fn pictures_come_from_patterns_and_standard_input_and_are_shuffled_by_the_seed() {
    let folder = tempfile::tempdir().unwrap();
    for shade in 0..6_u8 {
        image::GrayImage::from_pixel(28, 28, image::Luma([40 * shade])).save(folder.path().join(format!("{shade}.png"))).unwrap();
    }
    fs::write(folder.path().join("text.txt"), "not a picture").unwrap();
    let pattern = |pattern: &str| folder.path().join(pattern).to_str().unwrap().to_string();
    let source = |more: &[&str]| {
        let args = ["run", "--format", "json", "--calibration-images", "1", "--no-cache"];
        let report: Value = serde_json::from_str(&stdout(&[&args[..], more].concat())).unwrap();
        report["picture"]["source"].as_str().unwrap().rsplit('/').next().unwrap().to_string()
    };
    assert_eq!(source(&["--image", &pattern("[2-4].png"), "--picture", "1"]), "3.png");
    assert_eq!(source(&["--image", &pattern("*"), "--picture", "5"]), "5.png");
    refused(&["run", "--image", &pattern("*.jpg")], 1, &["*.jpg", "found none"]);
    refused(&["run", "--image", &pattern("a[")], 2, &["--image", "a["]);
    let shuffled = |seed: &str| {
        (0..6).map(|i| source(&["--image", &pattern("*"), "--shuffle", "--seed", seed, "--picture", &i.to_string()])).collect::<Vec<_>>()
    };
    let (one, two) = (shuffled("1"), shuffled("2"));
    assert!(one == shuffled("1") && one != two, "{one:?} {two:?}");
    let sorted = |mut names: Vec<String>| {
        names.sort();
        names
    };
    assert_eq!(sorted(one), sorted(two));

    let args = ["run", "--image", "-", "--format", "json", "--calibration-images", "1", "--no-cache"];
    let piped = |bytes: Vec<u8>| command(&args).write_stdin(bytes).assert();
    let report = piped(fs::read(pattern("3.png")).unwrap()).success().get_output().stdout.clone();
    let report: Value = serde_json::from_slice(&report).unwrap();
    assert_eq!(report["picture"]["source"], "standard input");
    let error = String::from_utf8(piped(Vec::new()).code(1).get_output().stderr.clone()).unwrap();
    assert!(error.contains("standard input") && error.contains("expected a PNG"), "{error}");
}
