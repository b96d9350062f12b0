//! The studies without a terminal: what they print, parts that are merged, reports that are compared, work that is interrupted.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::fs;

use common::cli::{igq, refused_silently as refused, stdout};
use serde_json::Value;

#[test]
fn an_allocation_is_printed_and_its_settings_can_be_used() {
    let few = ["--calibration-images", "4", "--candidates", "4,8", "--frontier", "3", "--estimate", "fisher"];
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("counts.json");
    let args = [&["allocate", "--budget", "6,1.2G", "--format", "json", "--output", file.to_str().unwrap()][..], &few[..]].concat();
    assert_eq!(stdout(&args), "");
    let report: Value = serde_json::from_str(&fs::read_to_string(&file).unwrap()).unwrap();
    let solved = report["solved"].as_array().unwrap();
    assert_eq!(solved.len(), 2);
    for one in solved {
        assert!(one["allocation"]["bops"].as_u64().unwrap() <= one["budget"].as_u64().unwrap());
    }
    assert!(solved.iter().all(|one| one["verdict"].as_str().unwrap().contains("uniform") && one["gain"].is_array()));
    assert_eq!(
        (report["images"].as_u64(), report["perturbation"]["images"].as_u64()),
        (Some(2), Some(2)),
        "found on half, judged on the rest"
    );
    assert!(report["rank_correlation"].as_array().unwrap().is_empty(), "the fast estimate is not held against itself");
    let exact =
        ["allocate", "--estimate", "alone", "--calibration-images", "2", "--candidates", "4,8", "--frontier", "0", "--format", "json"];
    let exact: Value = serde_json::from_str(&stdout(&exact)).unwrap();
    let ranks = exact["rank_correlation"].as_array().unwrap();
    assert!(ranks.len() == 2 && ranks.iter().all(|r| r["spearman"].as_f64().unwrap().abs() <= 1.0), "{ranks:?}");
    let run = stdout(&["run", "--format", "json", "--calibration-images", "4", "--settings-file", file.to_str().unwrap()]);
    let run: Value = serde_json::from_str(&run).unwrap();
    assert_eq!(run["bops"]["total"], solved[0]["allocation"]["bops"]);
    assert!(stdout(&[&["allocate"][..], &few[..]].concat()).contains("uniform 4"));
    refused(
        &["allocate", "--budget", "1M", "--calibration-images", "4", "--estimate", "fisher", "--candidates", "4"],
        2,
        &["budget", "at least"],
    );
    refused(&["allocate", "--method", "layer", "--calibration-images", "4"], 2, &["method", "igq"]);
    refused(&["run", "--settings-file", "Cargo.toml"], 1, &["Cargo.toml", "settings"]);
}

#[test]
fn sensitivities_and_suggestions_are_printed() {
    let few = ["--calibration-images", "2", "--format", "json"];
    let report: Value = serde_json::from_str(&stdout(&[&["sensitivity"][..], &few[..]].concat())).unwrap();
    assert_eq!(report["sites"].as_array().unwrap().len(), 50);
    assert!(report["sum_only"].as_f64().unwrap() > 0.0);
    let table = stdout(&["sensitivity", "--calibration-images", "2", "--format", "csv", "--by", "groups"]);
    assert_eq!(table.lines().count(), 51);
    assert!(table.starts_with("rank,site,alone_kl,") && table.lines().next().unwrap().ends_with("32_groups"));
    let one = stdout(&["suggest", "--one", "--bits", "4", "--calibration-images", "2"]);
    assert!(one.contains("before") && one.contains("after"), "{one}");
}

#[test]
fn two_reports_are_compared_and_flipped_images_listed() {
    let folder = tempfile::tempdir().unwrap();
    let report = |name: &str, args: &[&str]| {
        let path = folder.path().join(name).to_str().unwrap().to_string();
        igq(&[args, &["--calibration-images", "4", "--format", "json", "--output", &path]].concat()).success();
        path
    };
    let (four, three) = (report("4.json", &["run"]), report("3.json", &["run", "--bits", "3"]));
    let value = |args: &[&str]| -> Value { serde_json::from_str(&stdout(&[args, &["--format", "json"]].concat())).unwrap() };
    let same = value(&["diff", &four, &four]);
    assert!(same["numbers"].as_array().unwrap().is_empty() && same["settings"].as_array().unwrap().is_empty());
    let read = |path: &str| -> Value { serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap() };
    let found = value(&["diff", &four, &three]);
    assert_eq!(found["settings"][0], serde_json::json!(["abits", "4", "3"]));
    let kl = found["numbers"].as_array().unwrap().iter().find(|n| n["of"] == "" && n["what"] == "KL").unwrap().clone();
    assert_eq!((&kl["first"], &kl["second"]), (&read(&four)["prediction"]["kl"], &read(&three)["prediction"]["kl"]));
    assert!(stdout(&["diff", &four, &three]).contains("alone KL"));
    let sets = ["eval", "--limit", "64", "--method"];
    let (igq_alone, both) = (report("a.json", &[&sets[..], &["igq"]].concat()), report("b.json", &[&sets[..], &["igq,layer"]].concat()));
    let found = value(&["diff", &igq_alone, &both]);
    assert!(found["numbers"].as_array().unwrap().iter().all(|n| n["of"].as_str().unwrap().starts_with("method layer")));
    refused(&["diff", &four, &both], 2, &["one command"]);
    refused(&["diff", &four, "Cargo.toml"], 1, &["Cargo.toml", "JSON"]);

    // Flips are those that the evaluation counts, with what both runs say.
    let layer = ["--limit", "64", "--calibration-images", "4", "--method", "layer", "--format", "json"];
    let flips: Value = serde_json::from_str(&stdout(&[&["flips"][..], &layer].concat())).unwrap();
    let evaluated: Value = serde_json::from_str(&stdout(&[&["eval"][..], &layer].concat())).unwrap();
    let (found, agreement) = (flips["flips"].as_array().unwrap(), evaluated["rows"][1]["agreement"].as_f64().unwrap());
    assert_eq!(found.len(), (64.0 * (1.0 - agreement / 100.0)).round() as usize);
    assert!(!found.is_empty() && found.iter().all(|f| f["prediction"]["float"][0]["class"] != f["prediction"]["quantized"][0]["class"]));
    assert_eq!(found[0]["prediction"]["quantized"].as_array().unwrap().len(), 5);
}

/// The report at `path` without what no two runs have in common.
fn without_seconds(path: &std::path::Path) -> Value {
    let mut report: Value = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
    report.as_object_mut().unwrap().remove("seconds").unwrap();
    report
}

/// A small allocation.
const ALLOCATE: [&str; 11] =
    ["allocate", "--estimate", "alone", "--calibration-images", "4", "--candidates", "4,8", "--kinds", "fc2,proj", "--frontier", "2"];

#[test]
fn five_parts_merged_are_one_run_to_the_last_digit() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let json = |args: &[&str], name: &str| {
        let path = at(name);
        let output = ["--format", "json", "--output", path.to_str().unwrap()];
        igq(&[args, &output].concat()).success();
        path
    };
    let eval = ["eval", "--calibration-images", "4", "--limit", "23", "--method", "igq,layer", "--bits", "3", "--groups", "4"];
    let sensitivity = ["sensitivity", "--calibration-images", "3", "--limit", "2", "--kinds", "fc2,proj", "--bits", "3"];
    for (args, kind) in [(&eval[..], "eval"), (&sensitivity, "sensitivity")] {
        let whole = json(args, &format!("{kind}.json"));
        let part = |k: usize| json(&[args, &["--shard", &format!("{k}/5")]].concat(), &format!("{kind}.{k}.json"));
        let parts: Vec<_> = [4, 1, 5, 3, 2].map(part).into();
        let names: Vec<&str> = parts.iter().map(|part| part.to_str().unwrap()).collect();
        let merged = json(&[&["merge"], names.as_slice()].concat(), &format!("{kind}.merged.json"));
        assert_eq!(without_seconds(&merged), without_seconds(&whole));
        assert_eq!(without_seconds(&whole)["images"], if kind == "eval" { 23 } else { 2 });
        refused(&[&["merge"], &names[1..]].concat(), 2, &["part", "4/5"]);
        refused(&[&["merge"], names.as_slice(), &names[..1]].concat(), 2, &["part 4/5", "once"]);
        refused(&["merge", whole.to_str().unwrap()], 2, &["--shard"]);
    }
    // Perturbations: the merged parts are the whole, and an allocation goes on from them.
    let whole = json(&ALLOCATE, "allocate.json");
    let part = |k: usize| json(&[&ALLOCATE[..], &["--shard", &format!("{k}/3")]].concat(), &format!("allocate.{k}.json"));
    let parts: Vec<_> = [2, 3, 1].map(part).into();
    let names: Vec<&str> = parts.iter().map(|part| part.to_str().unwrap()).collect();
    let merged = json(&[&["merge"], names.as_slice()].concat(), "allocate.merged.json");
    assert_eq!(without_seconds(&merged)["perturbation"], without_seconds(&whole)["perturbation"]);
    let known = ["--perturbation", merged.to_str().unwrap()];
    let on = json(&[&ALLOCATE[..], &known].concat(), "allocate.on.json");
    assert_eq!(without_seconds(&on)["solved"], without_seconds(&whole)["solved"]);
    refused(&[&ALLOCATE[..], &["--bits", "3"], &known].concat(), 1, &["settings is another"]);
    refused(&[&["merge"], &names[1..]].concat(), 2, &["part", "2/3"]);
    refused(&["merge", at("eval.1.json").to_str().unwrap(), at("sensitivity.2.json").to_str().unwrap()], 2, &["one kind"]);
    refused(&["eval", "--shard", "6/5"], 2, &["K/N"]);
    refused(&["eval", "--shard", "1/5", "--limit", "5"], 2, &["--format json"]);
}

#[cfg(unix)]
#[test]
fn an_interrupted_evaluation_writes_what_it_has_and_says_so() {
    use std::process::Stdio;
    use std::time::{Duration, Instant};

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("report.json");
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_igq"));
    let grid = ["eval", "--calibration-images", "2", "--method", "layer,channel,igq,igq-e", "--bits", "3,4,5,6,7,8", "--format", "json"];
    let mut child = command.args(grid).args(["--output", path.to_str().unwrap()]).stderr(Stdio::piped()).spawn().unwrap();
    // A line of progress: the first pictures are through.
    let mut errors = std::io::BufRead::lines(std::io::BufReader::new(child.stderr.take().unwrap()));
    assert!(errors.by_ref().any(|line| line.unwrap().contains("/1000 ")));
    assert!(std::process::Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    let started = Instant::now();
    errors.for_each(drop);
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert!(started.elapsed() < Duration::from_secs(20));
    let report = without_seconds(&path);
    assert!(report["partial"] == true && report["images"].as_u64().unwrap() < 1000, "{}", report["images"]);
}

#[test]
fn a_page_of_a_run_is_whole_and_is_not_written_over() {
    let folder = tempfile::tempdir().unwrap();
    let page = folder.path().join("run.html");
    let args = ["report", "--calibration-images", "4", "--abits", "3", "--site", "blocks.2.fc2", "--output", page.to_str().unwrap()];
    assert_eq!(stdout(&args), "");
    let text = fs::read_to_string(&page).unwrap();
    for part in ["<!DOCTYPE html>", "igq run --calibration-images 4 --abits 3", "<h2>Lens</h2>", "<td>blocks.5.fc2</td>", "</html>"] {
        assert!(text.contains(part), "{part}");
    }
    assert_eq!((text.matches("<svg").count(), text.matches("</svg>").count()), (6, 6));
    assert!(!text.contains("http://") || text.contains("http://www.w3.org/2000/svg"), "nothing is loaded from elsewhere");
    refused(&args, 2, &["--force"]);
    assert_eq!(fs::read_to_string(&page).unwrap(), text);
}

#[test]
fn a_frame_after_commands_shows_what_they_did() {
    let few = ["snapshot", "--calibration-images", "4", "--view", "groups", "--do", "site blocks.2.qkv", "--do", "channel 5"];
    let shown = stdout(&[&few[..], &["--do", "abits 6"][..]].concat());
    assert!(shown.contains("A6 S6") && shown.contains("blocks.2.qkv") && shown.contains("channel 5 in numbers"), "{shown}");
    refused(&[&few[..], &["--do", "fly"][..]].concat(), 2, &["fly"]);
}
