//! `igq run --dump` computed again, by a second and plain implementation that shares no code with the product.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use assert_cmd::Command;
use candle_core::Tensor;
use common::{difference, flat, golden, tensors};
use igq::quant::Method;

type Dump = std::collections::HashMap<String, Tensor>;

fn numbers(value: &serde_json::Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect()
}

/// `x^ = s (clip(round(x/s) + z, 0, n) - z)`, in float64, written down from the paper.
fn quantize(x: f64, lower: f64, upper: f64, bits: i32) -> f64 {
    let n = 2_f64.powi(bits) - 1.0;
    if upper - lower < 1e-8 {
        return x;
    }
    let s = (upper - lower) / n;
    let z = (-lower / s).round().clamp(0.0, n);
    ((x / s).round() + z).clamp(0.0, n).mul_add(s, -z * s)
}

/// Values may land on either side of a tie in float32 and float64: such a one must be a whole step off, and there may be hardly any.
fn compare(what: &str, got: &[f32], input: &[f32], expected: impl Fn(usize, f64) -> (f64, f64)) {
    let mut ties = 0;
    for (i, (&got, &x)) in got.iter().zip(input).enumerate() {
        let (want, step) = expected(i, f64::from(x));
        let off = (f64::from(got) - want).abs();
        if off > 1e-5 {
            let part = (f64::from(x) / step).fract().abs();
            assert!((part - 0.5).abs() < 1e-3 && (off - step).abs() < 1e-5, "{what}[{i}]: {x} became {got}, expected {want}");
            ties += 1;
        }
    }
    assert!(ties * 1000 <= got.len(), "{what}: {ties} of {} values on a tie", got.len());
}

fn check(extra: &[&str], model: Option<&str>) {
    let folder = tempfile::tempdir().unwrap();
    let (dump, json) = (folder.path().join("dump.safetensors"), folder.path().join("report.json"));
    let mut command = Command::cargo_bin("igq").unwrap();
    command.args(["run", "--format", "json", "--calibration-images", "8", "--output"]).arg(&json).arg("--dump").arg(&dump).args(extra);
    if let Some(model) = model {
        command.arg("--model").arg(golden(model));
    }
    command.assert().success();
    let report: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(&json).unwrap()).unwrap();
    let dump = tensors(&dump);
    let mut checked = 0;
    for site in report["sites"].as_array().unwrap() {
        let name = site["site"].as_str().unwrap();
        let bits = i32::try_from(site["bits"].as_i64().unwrap()).unwrap();
        let (input, quantized) = (&dump[&format!("{name}.input")], &dump[&format!("{name}.quantized")]);
        if bits == 32 {
            assert_eq!(flat(input), flat(quantized));
            continue;
        }
        let assignment: Vec<usize> = numbers(&site["assignment"]).iter().map(|g| *g as usize).collect();
        let dumped: Vec<u32> = dump[&format!("{name}.assignment")].to_vec1().unwrap();
        assert!(dumped.iter().zip(&assignment).all(|(a, b)| *a as usize == *b));
        let quantizers = site["quantizers"].as_array().unwrap();
        let bound = |key: &str| -> Vec<f64> { quantizers.iter().map(|q| q[key].as_f64().unwrap()).collect() };
        let (lower, upper) = (bound("lower"), bound("upper"));
        let last = *input.dims().last().unwrap();
        let n = 2_f64.powi(bits) - 1.0;
        compare(name, &flat(quantized), &flat(input), |i, x| {
            let member = if site["kind"] == "attn" { i / last } else { i % last };
            let g = assignment[member];
            (quantize(x, lower[g], upper[g], bits), (upper[g] - lower[g]) / n)
        });
        check_assignment(name, site, &dump, (&lower, &upper), n, report["settings"]["method"].as_str().unwrap());
        checked += 1;
    }
    assert!(checked > 0 || extra.contains(&"float"));
    check_logits(&dump, model);
}

/// The groups of an instance-aware method once more, in float64: the nearest by the paper's distance, or the one of least expected error.
fn check_assignment(name: &str, site: &serde_json::Value, dump: &Dump, (lower, upper): (&[f64], &[f64]), n: f64, method: &str) {
    let cost = |min: f64, max: f64, g: usize| -> f64 {
        let (over, under) = (max - upper[g], lower[g] - min);
        if method == "igq" {
            return over.powi(2) + under.powi(2);
        }
        let alpha = f64::from(flat(&dump[&format!("{name}.alpha")])[0]);
        (upper[g] - lower[g]).powi(2) / (12.0 * n * n) + alpha * (over.max(0.0).powi(2) + under.max(0.0).powi(2))
    };
    if !["igq", "igq-e"].contains(&method) {
        return;
    }
    let input = flat(&dump[&format!("{name}.input")]);
    let last = *dump[&format!("{name}.input")].dims().last().unwrap();
    let softmax = site["kind"] == "attn";
    for (member, group) in numbers(&site["assignment"]).into_iter().enumerate() {
        let own: Vec<f64> = if softmax {
            input[member * last..(member + 1) * last].iter().map(|x| f64::from(*x)).collect()
        } else {
            input.iter().skip(member).step_by(last).map(|x| f64::from(*x)).collect()
        };
        let max = own.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let min = if softmax { 0.0 } else { own.iter().copied().fold(f64::INFINITY, f64::min) };
        let least = (0..lower.len()).map(|g| cost(min, max, g)).fold(f64::INFINITY, f64::min);
        let chosen = cost(min, max, group as usize);
        assert!(chosen <= least * (1.0 + 1e-5) + 1e-12, "{name} member {member}: group {group} costs {chosen}, the best {least}");
    }
}

/// The head once more in float64, from its dumped input and weight and the bias of the checkpoint: the logits of both runs.
fn check_logits(dump: &Dump, model: Option<&str>) {
    let folder = model.map_or_else(|| concat!(env!("CARGO_MANIFEST_DIR"), "/assets/fashion-vit").into(), golden);
    let checkpoint = tensors(folder.join("model.safetensors"));
    let stored = |name: &str| checkpoint[name].to_dtype(candle_core::DType::F32).unwrap();
    let (weight, bias) = (stored("head.weight"), flat(&stored("head.bias")));
    let quantized_weight = dump.get("head.weight").unwrap_or(&weight);
    for (logits, input, weight) in [("logits.float", "head.float", &weight), ("logits.quantized", "head.quantized", quantized_weight)] {
        let (logits, input, weight) = (flat(&dump[logits]), flat(&dump[input]), flat(weight));
        assert_eq!((logits.len(), weight.len()), (bias.len(), bias.len() * input.len()), "{model:?}");
        for (class, &got) in logits.iter().enumerate() {
            let row = &weight[class * input.len()..(class + 1) * input.len()];
            let sum: f64 = row.iter().zip(&input).map(|(w, x)| f64::from(*w) * f64::from(*x)).sum();
            let want = sum + f64::from(bias[class]);
            assert!((f64::from(got) - want).abs() < 1e-4, "class {class}: {got}, computed again {want}");
        }
    }
}

#[test]
fn every_site_of_the_built_in_model_computed_again() {
    for bits in ["2", "4", "8"] {
        check(&["--bits", bits], None);
    }
}

#[test]
fn every_method_computed_again() {
    for method in Method::ALL.into_iter().filter(|m| *m != Method::Float).map(Method::name) {
        check(&["--method", method, "--bits", "5", "--picture", "3"], None);
    }
}

#[test]
fn a_photograph_model_computed_again() {
    check(&["--bits", "6", "--groups", "4"], Some("timm_vit"));
}

#[test]
fn weights_computed_again_from_the_checkpoint_with_the_best_percentile() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("dump.safetensors");
    Command::cargo_bin("igq").unwrap().args(["run", "--bits", "3", "--calibration-images", "2", "--dump"]).arg(&path).assert().success();
    let dump = tensors(&path);
    let checkpoint = tensors(concat!(env!("CARGO_MANIFEST_DIR"), "/assets/fashion-vit/model.safetensors"));
    for (layer, stored) in [("blocks.2.fc1", "blocks.2.mlp.fc1"), ("blocks.0.qkv", "blocks.0.attn.qkv"), ("head", "head")] {
        let weight = checkpoint[&format!("{stored}.weight")].to_dtype(candle_core::DType::F32).unwrap();
        let columns = weight.dims()[1];
        let values = flat(&weight);
        let trial = |epsilon: f64| -> (Vec<f64>, f64) {
            let mut all = Vec::new();
            let mut error = 0.0;
            for row in values.chunks(columns) {
                let mut sorted: Vec<f64> = row.iter().map(|v| f64::from(*v)).collect();
                sorted.sort_by(f64::total_cmp);
                let percentile = |p: f64| {
                    let at = p / 100.0 * (columns - 1) as f64;
                    let low = sorted[at as usize];
                    low + (sorted[(at as usize + 1).min(columns - 1)] - low) * at.fract()
                };
                let (lower, upper) = (percentile(epsilon).min(0.0), percentile(100.0 - epsilon).max(0.0));
                for &w in row {
                    let w = f64::from(w);
                    let q = quantize(w, lower, upper, 3);
                    error += (w - q).powi(2);
                    all.push(q);
                }
            }
            (all, error)
        };
        let best = [0.0, 0.01, 0.1, 0.5, 1.0].map(trial).into_iter().min_by(|a, b| a.1.total_cmp(&b.1)).unwrap().0;
        let dumped = flat(&dump[&format!("{layer}.weight")]);
        let off = dumped.iter().zip(&best).filter(|(a, b)| (f64::from(**a) - **b).abs() > 1e-5).count();
        assert!(off * 1000 <= dumped.len(), "{layer}: {off} of {} values differ", dumped.len());
    }
}

#[test]
fn at_float_bits_the_dumped_logits_are_equal() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("dump.safetensors");
    Command::cargo_bin("igq").unwrap().args(["run", "--bits", "32", "--calibration-images", "2", "--dump"]).arg(&path).assert().success();
    let dump = tensors(&path);
    assert_eq!(difference(&dump["logits.float"], &dump["logits.quantized"]), 0.0);
}
