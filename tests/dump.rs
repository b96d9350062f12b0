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
        let method = report["settings"]["method"].as_str().unwrap();
        if let Some(tile) = tiles(method, site, &assignment, model) {
            check_tiles(name, method, bits, &flat(input), &flat(quantized), last, tile);
            checked += 1;
            continue;
        }
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

type Tile = Box<dyn Fn(usize, usize) -> (usize, usize)>;

/// For methods with scales of this picture: the tile of the value in a row and column; none for the others.
fn tiles(method: &str, site: &serde_json::Value, assignment: &[usize], model: Option<&str>) -> Option<Tile> {
    let length = match method {
        "block-int" | "mxfp4" | "mxint8" | "igq-token" => 32,
        "nvfp4" => 16,
        "per-token" | "fp8-e4m3" => usize::MAX,
        _ => return None,
    };
    assert_eq!(model, None, "heads of 32 channels are the built-in model's");
    let head = 32;
    Some(match site["kind"].as_str().unwrap() {
        _ if length == usize::MAX => Box::new(|row, _| (row, 0)),
        "attn" => Box::new(move |row, column| (row, column / length)),
        "v" => Box::new(move |row, column| (row / length, column)),
        _ if method == "igq-token" => {
            let groups = assignment.to_vec();
            Box::new(move |row, column| (row, groups[column]))
        }
        "q" | "k" => Box::new(move |row, column| (row, (column / head) * 100 + column % head / length)),
        _ => Box::new(move |row, column| (row, column / length)),
    })
}

/// Every tile once more in float64, its scale from its own values.
fn check_tiles(name: &str, method: &str, bits: i32, input: &[f32], quantized: &[f32], last: usize, tile: Tile) {
    let mut members: std::collections::BTreeMap<(usize, usize), Vec<usize>> = std::collections::BTreeMap::new();
    for i in 0..input.len() {
        members.entry(tile(i / last, i % last)).or_default().push(i);
    }
    let most = |values: &mut dyn Iterator<Item = f64>| values.map(f64::abs).fold(0.0, f64::max);
    let all = most(&mut input.iter().map(|&x| f64::from(x)));
    // What is rounded to another level, and the distance of levels, at the two places of a tie.
    let nearest = |levels: &[f64], x: f64| levels.iter().copied().min_by(|a, b| (a - x).abs().total_cmp(&(b - x).abs())).unwrap();
    let positive = |mantissa: i32, low: i32, high: i32, cut: f64| -> Vec<f64> {
        let m = 1 << mantissa;
        let normal = (low..=high).flat_map(|e| (0..m).map(move |k| (1.0 + f64::from(k) / f64::from(m)) * 2_f64.powi(e)));
        let subnormal = (0..m).map(|k| f64::from(k) / f64::from(m) * 2_f64.powi(low));
        subnormal.chain(normal).filter(|x| *x <= cut).collect()
    };
    let (e2m1, e4m3) = (positive(1, 0, 2, 6.0), positive(3, -6, 8, 448.0));
    let mut ties = 0;
    for places in members.values() {
        let values: Vec<f64> = places.iter().map(|&i| f64::from(input[i])).collect();
        let amax = most(&mut values.iter().copied());
        let lower = values.iter().copied().fold(0.0, f64::min);
        let upper = values.iter().copied().fold(0.0, f64::max);
        let own_bits = match method {
            "mxfp4" | "nvfp4" => 4,
            "mxint8" | "fp8-e4m3" => 8,
            _ => bits,
        };
        let signed =
            |levels: &[f64], scale: f64, x: f64| if scale == 0.0 { 0.0 } else { nearest(levels, x.abs() / scale) * scale * x.signum() };
        let expected = |x: f64| -> f64 {
            match method {
                // A site with bits that the format does not have, as the classifier's 8, has integers in the same tiles.
                _ if own_bits != bits => integer(x, lower, upper, bits),
                "mxfp4" => signed(&e2m1, 2_f64.powf(amax.log2().floor() - 2.0), x),
                "mxint8" => {
                    let s = 2_f64.powf(amax.log2().floor() - 6.0);
                    (x / s).round_ties_even().clamp(-128.0, 127.0) * s
                }
                "nvfp4" => {
                    let tensor = all / (6.0 * 448.0);
                    signed(&e2m1, nearest(&e4m3, amax / 6.0 / tensor) * tensor, x)
                }
                "fp8-e4m3" => signed(&e4m3, amax / 448.0, x),
                _ => integer(x, lower, upper, bits),
            }
        };
        for (&i, &x) in places.iter().zip(&values) {
            let got = f64::from(quantized[i]);
            if (got - expected(x)).abs() > 1e-5 * amax.max(1e-3) {
                // On a tie the other side is as near.
                assert!(
                    ((got - x).abs() - (expected(x) - x).abs()).abs() < 2e-4 * amax,
                    "{name}[{i}]: {x} became {got}, expected {}",
                    expected(x)
                );
                ties += 1;
            }
        }
    }
    assert!(ties * 100 <= input.len(), "{name}: {ties} of {} values on a tie", input.len());
}

/// The uniform quantizer of a tile: its scale is the next half-precision number.
fn integer(x: f64, lower: f64, upper: f64, bits: i32) -> f64 {
    let n = 2_f64.powi(bits) - 1.0;
    if upper - lower < 1e-8 {
        return x;
    }
    // The quotient is one of float32: where it is a half-precision number to the last bit, the next digit would decide.
    let single = (upper as f32 - lower as f32) / n as f32;
    let half = half::f16::from_f32(single);
    let half = if half.to_f32() < single { half::f16::from_bits(half.to_bits() + 1) } else { half };
    let s = half.to_f64();
    let z = (-lower / s).round_ties_even().clamp(0.0, n);
    ((x / s).round_ties_even() + z).clamp(0.0, n).mul_add(s, -z * s)
}

/// The groups of an instance-aware method once more, in float64: the nearest by the paper's distance, or the one of least expected error.
fn check_assignment(name: &str, site: &serde_json::Value, dump: &Dump, (lower, upper): (&[f64], &[f64]), n: f64, method: &str) {
    if !["igq", "igq-means", "igq-e"].contains(&method) {
        return;
    }
    let own = |part: &str, or: &[f64]| -> Vec<f64> {
        dump.get(&format!("{name}.{part}")).map_or_else(|| or.to_vec(), |t| flat(t).into_iter().map(f64::from).collect())
    };
    // `igq` goes by the distance to centres that are not its bounds.
    assert_eq!(dump.contains_key(&format!("{name}.centre_upper")), method == "igq", "{name}");
    let (centre_lower, centre_upper) = (own("centre_lower", lower), own("centre_upper", upper));
    let alpha = own("alpha", &[]);
    let cost = |min: f64, max: f64, g: usize| -> f64 {
        if method != "igq-e" {
            return (max - centre_upper[g]).powi(2) + (centre_lower[g] - min).powi(2);
        }
        let (over, under) = (max - upper[g], lower[g] - min);
        (upper[g] - lower[g]).powi(2) / (12.0 * n * n) + alpha[1] * over.max(0.0).powi(2) + alpha[0] * under.max(0.0).powi(2)
    };
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

/// Nearest rounding inside bounds that are a share of the range: of 1, 0.95 .. 0.35 the one of least error weighted with the mean square of
/// the inputs over the calibration pictures. Then GPTQ from the same pictures, with an inverse by elimination.
#[test]
fn weights_computed_again_from_the_checkpoint_and_the_calibration_pictures() {
    let session = common::built_in_on(2);
    let mut inputs: std::collections::HashMap<String, Vec<f64>> = std::collections::HashMap::new();
    for batch in session.calibration_batches().unwrap() {
        let mut recorder = igq::model::Recorder(|site: igq::model::Site, x: &Tensor| {
            inputs.entry(site.to_string()).or_default().extend(flat(x).into_iter().map(f64::from));
            Ok(())
        });
        igq::model::forward(session.opened().model.network(), batch, &mut recorder).unwrap();
    }
    let folder = tempfile::tempdir().unwrap();
    let checkpoint = tensors(concat!(env!("CARGO_MANIFEST_DIR"), "/assets/fashion-vit/model.safetensors"));
    for rounding in ["nearest", "gptq"] {
        let path = folder.path().join(rounding);
        let mut command = Command::cargo_bin("igq").unwrap();
        command.args(["run", "--bits", "3", "--preset", "all", "--calibration-images", "2", "--weights", rounding, "--dump"]);
        command.arg(&path).assert().success();
        let dump = tensors(&path);
        for (layer, stored) in [("blocks.2.fc1", "blocks.2.mlp.fc1"), ("blocks.0.qkv", "blocks.0.attn.qkv"), ("head", "head")] {
            let weight = checkpoint[&format!("{stored}.weight")].to_dtype(candle_core::DType::F32).unwrap();
            let columns = weight.dims()[1];
            let x: Vec<&[f64]> = inputs[layer].chunks(columns).collect();
            let product = |i: usize, j: usize| x.iter().map(|row| row[i] * row[j]).sum::<f64>() / x.len() as f64;
            let squares: Vec<f64> = (0..columns).map(|c| product(c, c)).collect();
            let rows: Vec<Vec<f64>> = flat(&weight).chunks(columns).map(|row| row.iter().map(|w| f64::from(*w)).collect()).collect();
            let bounds = |row: &[f64]| {
                let (low, high) = (row.iter().copied().fold(0.0, f64::min), row.iter().copied().fold(0.0, f64::max));
                let tried = (0..14).map(|k| 1.0 - 0.05 * f64::from(k)).map(|r| {
                    let error: f64 = row.iter().zip(&squares).map(|(w, h)| h * (w - quantize(*w, r * low, r * high, 3)).powi(2)).sum();
                    (error, (r * low, r * high))
                });
                tried.min_by(|a, b| a.0.total_cmp(&b.0)).unwrap().1
            };
            let bounds: Vec<(f64, f64)> = rows.iter().map(|row| bounds(row)).collect();
            let expected: Vec<Vec<f64>> = if rounding == "nearest" {
                rows.iter().zip(&bounds).map(|(row, (low, high))| row.iter().map(|w| quantize(*w, *low, *high, 3)).collect()).collect()
            } else {
                let mean = squares.iter().sum::<f64>() / columns as f64;
                let mut order: Vec<usize> = (0..columns).collect();
                order.sort_by(|a, b| squares[*b].total_cmp(&squares[*a]));
                let h = |i: usize, j: usize| product(order[i], order[j]) + if i == j { 0.01 * mean } else { 0.0 };
                let inverse = inverted((0..columns).map(|i| (0..columns).map(|j| h(i, j)).collect()).collect());
                gptq(&rows, &bounds, &order, inverse)
            };
            let dumped = flat(&dump[&format!("{layer}.weight")]);
            let off = dumped.iter().zip(expected.iter().flatten()).filter(|(a, b)| (f64::from(**a) - **b).abs() > 1e-5).count();
            // What float32 rounds to the other side goes on to change what comes after it.
            let allowed = if rounding == "nearest" { dumped.len() / 1000 } else { dumped.len() / 50 };
            assert!(off <= allowed, "{rounding} {layer}: {off} of {} values differ", dumped.len());
        }
    }
}

/// By elimination.
fn inverted(mut a: Vec<Vec<f64>>) -> Vec<Vec<f64>> {
    let n = a.len();
    for (i, row) in a.iter_mut().enumerate() {
        row.extend((0..n).map(|j| f64::from(u8::from(i == j))));
    }
    for i in 0..n {
        let pivot = a[i][i];
        a[i].iter_mut().for_each(|x| *x /= pivot);
        let row = a[i].clone();
        for (k, other) in a.iter_mut().enumerate() {
            if k != i {
                let factor = other[i];
                other.iter_mut().zip(&row).for_each(|(x, r)| *x -= factor * r);
            }
        }
    }
    a.into_iter().map(|row| row[n..].to_vec()).collect()
}

/// GPTQ as its paper writes it down, column after column in `order`, with the inverse of `H` and without a factor of it.
fn gptq(rows: &[Vec<f64>], bounds: &[(f64, f64)], order: &[usize], mut inverse: Vec<Vec<f64>>) -> Vec<Vec<f64>> {
    let mut left: Vec<Vec<f64>> = rows.iter().map(|row| order.iter().map(|c| row[*c]).collect()).collect();
    let mut done = rows.to_vec();
    for j in 0..order.len() {
        for ((left, done), (low, high)) in left.iter_mut().zip(&mut done).zip(bounds) {
            let q = quantize(left[j], *low, *high, 3);
            done[order[j]] = q;
            let error = (left[j] - q) / inverse[j][j];
            (j..order.len()).for_each(|k| left[k] -= error * inverse[j][k]);
        }
        let pivot = inverse[j].clone();
        for row in &mut inverse[j + 1..] {
            let factor = row[j] / pivot[j];
            row.iter_mut().zip(&pivot).for_each(|(x, p)| *x -= factor * p);
        }
    }
    done
}

#[test]
fn at_float_bits_the_dumped_logits_are_equal() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("dump.safetensors");
    Command::cargo_bin("igq").unwrap().args(["run", "--bits", "32", "--calibration-images", "2", "--dump"]).arg(&path).assert().success();
    let dump = tensors(&path);
    assert_eq!(difference(&dump["logits.float"], &dump["logits.quantized"]), 0.0);
}
