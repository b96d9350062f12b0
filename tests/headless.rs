//! The commands without a terminal: forms of output, files and their way back, and bad input of every kind.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::fs;

use common::cli::{igq, refused_silently as refused, stdout};
use common::golden;
use serde_json::Value;

#[test]
fn the_report_has_its_keys() {
    let report: Value = serde_json::from_str(&stdout(&["run", "--format", "json", "--calibration-images", "4"])).unwrap();
    for key in ["schema_version", "model", "settings", "picture", "prediction", "sites", "seconds"] {
        assert!(!report[key].is_null(), "{key}");
    }
    for key in ["float", "quantized", "flipped", "kl", "margin_float", "margin_quantized"] {
        assert!(!report["prediction"][key].is_null(), "{key}");
    }
    for key in ["class", "label", "probability"] {
        assert!(!report["prediction"]["float"][0][key].is_null(), "{key}");
    }
    assert_eq!(report["prediction"]["float"].as_array().unwrap().len(), 5);
    let sites = report["sites"].as_array().unwrap();
    assert_eq!(sites.len(), 2 + 6 * 8);
    for site in sites {
        for key in ["site", "kind", "bits", "groups", "channels", "local", "cumulative", "quantizers", "assignment", "ranges"] {
            assert!(!site[key].is_null(), "{key} of {}", site["site"]);
        }
        assert_eq!(site["assignment"].as_array().unwrap().len() as u64, site["channels"].as_u64().unwrap());
        assert_eq!(site["quantizers"].as_array().unwrap().len() as u64, site["groups"].as_u64().unwrap());
        for key in ["mse", "sqnr_db", "cosine", "max_abs", "rmse_over_step", "clipped", "codes_used"] {
            assert!(!site["local"][key].is_null(), "{key} of {}", site["site"]);
        }
        for key in ["lower", "upper", "scale", "zero_point", "members", "clipped", "codes_used"] {
            assert!(!site["quantizers"][0][key].is_null(), "{key} of {}", site["site"]);
        }
    }
}

#[test]
fn csv_has_a_line_a_site_and_markdown_a_table() {
    let csv = stdout(&["run", "--format", "csv", "--calibration-images", "4"]);
    assert_eq!(csv.lines().count(), 1 + 50);
    assert!(csv.starts_with("site,bits,groups,channels,"), "{csv}");
    assert!(stdout(&["run", "--format", "markdown", "--calibration-images", "4"]).contains("| blocks.3.fc2 "));
    assert!(stdout(&["run", "--calibration-images", "4"]).contains("margin"));
}

#[test]
fn eval_reports_a_grid_with_intervals() {
    let args = [
        "eval",
        "--method",
        "float,layer,igq",
        "--bits",
        "4,8",
        "--groups",
        "4,8",
        "--limit",
        "20",
        "--format",
        "json",
        "--calibration-images",
        "4",
    ];
    let evaluation: Value = serde_json::from_str(&stdout(&args)).unwrap();
    assert_eq!(evaluation["images"], 20);
    let rows = evaluation["rows"].as_array().unwrap();
    assert_eq!(rows.len(), 1 + 2 + 4);
    for row in rows {
        for key in ["method", "wbits", "abits", "sbits", "groups", "row_groups", "top1", "agreement", "kl", "interval"] {
            assert!(row.get(key).is_some(), "{key}");
        }
        let (low, high, top1) = (row["interval"][0].as_f64().unwrap(), row["interval"][1].as_f64().unwrap(), row["top1"].as_f64().unwrap());
        assert!(low <= top1 && top1 <= high);
    }
    let unasked: Value = serde_json::from_str(&stdout(&["eval", "--limit", "5", "--format", "json", "--calibration-images", "2"])).unwrap();
    assert_eq!(unasked["rows"][0]["method"], "float", "float is always there to compare with");
    assert_eq!((rows[0]["kl"].as_f64(), rows[0]["agreement"].as_f64()), (Some(0.0), Some(100.0)));
}

#[test]
fn quantizers_go_to_a_file_and_come_back_unchanged() {
    let folder = tempfile::tempdir().unwrap();
    for method in ["igq", "igq-means", "igq-e", "layer", "channel", "contiguous", "sorted"] {
        let file = folder.path().join(format!("{method}.safetensors"));
        let file = file.to_str().unwrap();
        let common = ["--calibration-images", "4", "--method", method, "--groups", "6", "--row-groups", "3"];
        // A file of quantizers is about activations: without calibration pictures, weights have other ranges.
        let float = ["--wbits", "32"];
        igq(&[&["calibrate", "--output", file][..], &common].concat()).success();
        let fresh: Value = serde_json::from_str(&stdout(&[&["run", "--format", "json"][..], &common, &float].concat())).unwrap();
        let reused: Value = serde_json::from_str(&stdout(&["run", "--format", "json", "--wbits", "32", "--quantizers", file])).unwrap();
        assert_eq!(fresh["sites"], reused["sites"], "{method}");
        assert_eq!(fresh["prediction"], reused["prediction"], "{method}");
    }
    // What single sites had when the file was written belongs to the file, in every command.
    let file = folder.path().join("own.safetensors");
    let file = file.to_str().unwrap();
    let own = ["--calibration-images", "4", "--method", "igq-e", "--site-groups", "blocks.*.fc2=12", "--site-abits", "head=8"];
    igq(&[&["calibrate", "--keep-float", "patch", "--output", file][..], &own].concat())
        .success()
        .stderr(predicates::str::contains("wrote the quantizers of 49 sites"));
    let keep = ["--keep-float", "patch", "--wbits", "32", "--format", "json"];
    let fresh: Value = serde_json::from_str(&stdout(&[&["run"][..], &own, &keep].concat())).unwrap();
    let reused: Value = serde_json::from_str(&stdout(&[&["run", "--quantizers", file][..], &keep].concat())).unwrap();
    assert_eq!((&fresh["sites"], &fresh["bops"]), (&reused["sites"], &reused["bops"]));
    let rows: Value = serde_json::from_str(&stdout(&[&["eval", "--limit", "4", "--quantizers", file][..], &keep].concat())).unwrap();
    assert_eq!(rows["rows"][1]["bops"], fresh["bops"]["total"], "{rows}");
    let data = folder.path().join("data");
    fs::create_dir(&data).unwrap();
    fs::copy("tests/preprocess/grey.png", data.join("a.png")).unwrap();
    stdout(&[&["sensitivity", "--quantizers", file, "--data", data.to_str().unwrap()][..], &keep].concat());
    for (wrong, what) in [(["--softmax", "log2"], "softmax"), (["--site-groups", "head=2"], "site-groups")] {
        refused(&[&["run", "--quantizers", file][..], &keep, &wrong].concat(), 2, &[what, "--quantizers"]);
    }
    let by_groups = ["sensitivity", "--by", "groups", "--quantizers", file, "--data", data.to_str().unwrap()];
    refused(&[&by_groups[..], &keep].concat(), 2, &["those of the quantizer file"]);
    let tensors = common::tensors(folder.path().join("igq.safetensors"));
    assert_eq!(tensors["blocks.2.fc1.lower"].dims(), [6]);
    assert_eq!(tensors["blocks.2.fc1.upper"].dims(), [6]);
    assert_eq!(tensors["blocks.2.attn.row_upper"].dims(), [3]);
}

#[test]
fn a_frame_is_drawn_in_every_form_and_size() {
    for view in ["overview", "groups", "attention"] {
        let text = stdout(&["snapshot", "--view", view, "--size", "120x40", "--calibration-images", "4"]);
        assert_eq!(text.lines().count(), 40);
        assert!(text.contains("? help  q quit") && text.lines().all(|l| l.chars().count() <= 120), "{text}");
    }
    let compared = stdout(&["snapshot", "--view", "compare", "--size", "120x60", "--calibration-images", "4"]);
    let rows = compared.lines().filter(|l| l.contains("igq-e") && l.contains('%')).count();
    assert!(rows >= 3 && compared.contains("32 of 100 "), "{compared}");
    let svg = stdout(&["snapshot", "--format", "svg", "--calibration-images", "4"]);
    assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"));
    assert!(stdout(&["snapshot", "--format", "ansi", "--calibration-images", "4"]).contains("\x1b[0;1;38;2;"));
    let ascii = stdout(&["snapshot", "--view", "groups", "--ascii", "--theme", "mono", "--calibration-images", "4"]);
    assert!(ascii.is_ascii(), "{ascii}");
    stdout(&["snapshot", "--size", "1x1", "--calibration-images", "4"]);
}

#[test]
fn the_schema_and_completions_are_printed() {
    let schema: Value = serde_json::from_str(&stdout(&["schema"])).unwrap();
    assert!(schema["properties"]["sites"].is_object());
    assert!(stdout(&["completions", "bash"]).contains("igq"));
    assert!(stdout(&["inspect"]).contains("blocks.5.fc2"));
}

#[test]
fn bad_usage_is_refused_with_code_two() {
    refused(&["run", "--wbits", "9"], 2, &["--wbits", "9", "2 to 8"]);
    refused(&["run", "--groups", "0"], 2, &["--groups", "0", "1 to 64"]);
    refused(&["run", "--method", "magic"], 2, &["--method", "magic", "igq"]);
    refused(&["run", "--keep-float", "blocks.["], 2, &["--keep-float", "blocks.["]);
    refused(&["run", "--keep-float", "blocks.77.*"], 2, &["--keep-float", "blocks.77.*", "covers a site"]);
    refused(&["run", "--bits", "4,8"], 2, &["2 settings"]);
    refused(&["run", "--picture", "5000"], 2, &["picture", "5000", "0 to 999"]);
    refused(&["snapshot", "--site", "blocks.99.fc2"], 2, &["--site", "blocks.99.fc2"]);
    refused(&["calibrate", "--method", "layer-dynamic", "--output", "unused.safetensors"], 2, &["layer-dynamic"]);
    assert!(!std::path::Path::new("unused.safetensors").exists());
}

#[test]
fn missing_and_wrong_files_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_string();
    refused(&["run", "--model", "no/such/model.safetensors"], 1, &["no/such/model.safetensors", "no such file"]);
    refused(&["run", "--image", "no-such.png"], 1, &["no-such.png"]);
    fs::write(path("text.png"), "just text").unwrap();
    refused(&["run", "--image", &path("text.png")], 1, &["text.png", "expected a PNG"]);
    fs::create_dir(path("empty")).unwrap();
    refused(&["run", "--image", &path("empty")], 1, &["empty", "found none"]);
    refused(&["run", "--calibration", &path("empty")], 1, &["empty", "found none"]);
    refused(&["run", "--model", &path("empty")], 1, &["empty", "model.safetensors"]);
    refused(&["eval", "--data", &path("empty")], 1, &["empty", "found none"]);
    refused(&["run", "--output", &path("no/folder/report.json"), "--calibration-images", "2"], 1, &["report.json"]);
    refused(&["run", "--quantizers", &path("text.png")], 1, &["text.png", "safetensors"]);
}

/// A copy of a golden checkpoint with its tensors changed by `edit`.
fn broken(edit: impl FnOnce(&mut std::collections::HashMap<String, candle_core::Tensor>)) -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    let mut tensors = common::tensors(golden("timm_vit/model.safetensors"));
    edit(&mut tensors);
    candle_core::safetensors::save(&tensors, folder.path().join("model.safetensors")).unwrap();
    fs::copy(golden("timm_vit/config.json"), folder.path().join("config.json")).unwrap();
    let name = folder.path().to_str().unwrap().to_string();
    (folder, name)
}

#[test]
fn broken_checkpoints_are_named_with_the_tensor() {
    let zeros = |shape: &[usize]| candle_core::Tensor::zeros(shape, candle_core::DType::F32, &candle_core::Device::Cpu).unwrap();
    let (_folder, model) = broken(|t| drop(t.remove("blocks.1.mlp.fc2.weight")));
    refused(&["run", "--model", &model], 1, &["model.safetensors", "blocks.1.mlp.fc2.weight", "no such tensor"]);
    let (_folder, model) = broken(|t| drop(t.insert("blocks.1.attn.qkv.weight".into(), zeros(&[7, 48]))));
    refused(&["run", "--model", &model], 1, &["blocks.1.attn.qkv.weight", "[144, 48]", "[7, 48]"]);
    let (_folder, model) = broken(|t| drop(t.insert("patch_embed.proj.weight".into(), zeros(&[48, 64]))));
    refused(&["run", "--model", &model], 1, &["patch_embed.proj.weight", "4 dimensions"]);
    let (_folder, model) = broken(|t| {
        let nan = zeros(&[48]).affine(1.0, f64::NAN).unwrap();
        t.insert("blocks.2.norm1.bias".into(), nan);
    });
    refused(&["run", "--model", &model], 1, &["blocks.2.norm1.bias", "48 NaN"]);
    let (_folder, model) = broken(|t| drop(t.insert("blocks.0.attn.q_norm.weight".into(), zeros(&[16]))));
    refused(&["run", "--model", &model], 1, &["blocks.0.attn.q_norm.weight", "does not know"]);
    let (_folder, model) = broken(|t| t.retain(|k, _| k.starts_with("norm")));
    refused(&["run", "--model", &model], 1, &["not a vision transformer"]);
}

#[test]
fn truncated_and_foreign_files_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("model.safetensors");
    let name = file.to_str().unwrap();
    let whole = fs::read(golden("timm_vit/model.safetensors")).unwrap();
    for length in [0, 4, 100, whole.len() / 2, whole.len() - 1] {
        fs::write(&file, &whole[..length]).unwrap();
        refused(
            &["run", "--model", name],
            1,
            &["model.safetensors", if length == 0 { "0 bytes" } else { "not a complete safetensors file" }],
        );
    }
    fs::write(&file, b"PK\x03\x04rest of a torch file").unwrap();
    refused(&["run", "--model", name], 1, &["pickled"]);
}

#[test]
fn the_published_shapes_can_be_evaluated_as_a_grid() {
    let grid = [
        "eval",
        "--limit",
        "16",
        "--calibration-images",
        "4",
        "--method",
        "layer",
        "--softmax",
        "method,log2,log-sqrt2,twin",
        "--gelu",
        "method,twin",
    ];
    let table = stdout(&[&grid[..], &["--format", "csv"]].concat());
    assert_eq!(table.lines().count(), 1 + 1 + 8, "{table}");
    refused(&["eval", "--softmax", "log3"], 2, &["--softmax", "log-sqrt2"]);
}

#[test]
fn a_list_of_labels_beside_the_pictures_is_read_or_refused_by_line() {
    let folder = tempfile::tempdir().unwrap();
    let eval = |expected: &dyn Fn(&[&str])| {
        expected(&[
            "eval",
            "--method",
            "float",
            "--calibration-images",
            "2",
            "--format",
            "json",
            "--data",
            folder.path().to_str().unwrap(),
        ]);
    };
    for (name, shade) in [("a.png", 10_u8), ("b.png", 200)] {
        image::GrayImage::from_pixel(28, 28, image::Luma([shade])).save(folder.path().join(name)).unwrap();
    }
    fs::write(folder.path().join("labels.csv"), "file,class,label\nb.png,3,Dress\na.png,0,T-shirt/top\n").unwrap();
    eval(&|args| {
        let report: Value = serde_json::from_str(&stdout(args)).unwrap();
        assert_eq!(report["images"], 2);
        assert!(report["rows"][0]["top1"].is_number());
    });
    fs::write(folder.path().join("labels.csv"), "file,class\na.png,0\nb.png,12\n").unwrap();
    eval(&|args| refused(args, 1, &["labels.csv", "line 3", "12"]));
    fs::write(folder.path().join("labels.csv"), "picture,class\na.png,0\n").unwrap();
    eval(&|args| refused(args, 1, &["labels.csv", "file"]));
    fs::write(folder.path().join("labels.csv"), "file,class\nmissing.png,0\n").unwrap();
    eval(&|args| refused(args, 1, &["missing.png"]));
}
