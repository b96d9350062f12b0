//! The difference of two saved reports, of `igq run` or of `igq eval`: what was set differently, and what came of it.

use std::path::Path;

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;

use crate::error::{Error, Result};
use crate::read;

/// A number in both reports.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Changed {
    /// The site, or the settings of a row; empty for what is of the whole.
    pub of: String,
    /// What it is.
    pub what: String,
    /// In the first report; none where it is not there.
    pub first: Option<f64>,
    /// In the second.
    pub second: Option<f64>,
}

/// Two reports.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct DiffReport {
    /// What is set differently: the key, and both values.
    pub settings: Vec<(String, String, String)>,
    /// What is not to be compared: another model, picture, set or calibration.
    pub warnings: Vec<String>,
    /// The most likely class of both, of reports on one picture.
    pub classes: Option<(String, String)>,
    /// Numbers that differ: of the whole first, then of sites and rows, the largest change of a kind first.
    pub numbers: Vec<Changed>,
}

/// Numbers of the whole report, by their path in `igq run`.
const OF_RUN: [(&str, &str); 3] = [("KL", "/prediction/kl"), ("margin", "/prediction/margin_quantized"), ("bit operations", "/bops/total")];
/// Numbers of a site.
const OF_SITE: [(&str, &str); 6] = [
    ("alone KL", "/only_this/kl"),
    ("local SQNR, dB", "/local/sqnr_db"),
    ("cumulative SQNR, dB", "/cumulative/sqnr_db"),
    ("clipped", "/local/clipped"),
    ("bits", "/bits"),
    ("groups", "/groups"),
];
/// Numbers of a row of `igq eval`.
const OF_ROW: [(&str, &str); 4] = [("KL", "/kl"), ("top-1 %", "/top1"), ("agreement %", "/agreement"), ("bit operations", "/bops")];
/// What makes a row of `igq eval` what it is.
const ROW_NAME: [&str; 12] =
    ["method", "wbits", "abits", "sbits", "groups", "row_groups", "softmax", "gelu", "weights", "weight_scales", "arithmetic", "preset"];

/// Compares two files.
///
/// # Errors
/// When one is no report of `igq run` or `igq eval`, or they are of different kinds.
pub fn diff(first: &Path, second: &Path) -> Result<DiffReport> {
    let open = |path: &Path| -> Result<Value> {
        let broken =
            |found: String| Error::content(path.display().to_string(), found, "write it with `igq run` or `igq eval`, --format json");
        let value: Value = serde_json::from_str(&read::text(path)?).map_err(|e| broken(format!("expected JSON ({e})")))?;
        let known = value.get("settings").is_some() && (value.get("sites").is_some_and(Value::is_array) || value.get("rows").is_some());
        if known { Ok(value) } else { Err(broken("expected the JSON report of `igq run` or `igq eval`".into())) }
    };
    let (a, b) = (open(first)?, open(second)?);
    let is_run = a.get("prediction").is_some();
    if is_run != b.get("prediction").is_some() {
        return Err(Error::setting("files", second.display(), "two reports of one command: of `igq run` or of `igq eval`"));
    }
    let mut numbers = Vec::new();
    let mut compare = |of: &str, what: &[(&str, &str)], a: Option<&Value>, b: Option<&Value>| {
        for (what, path) in what {
            let number = |value: Option<&Value>| value.and_then(|v| v.pointer(path)).and_then(Value::as_f64);
            let (first, second) = (number(a), number(b));
            if first != second {
                numbers.push(Changed { of: of.into(), what: (*what).into(), first, second });
            }
        }
    };
    if is_run {
        compare("", &OF_RUN, Some(&a), Some(&b));
        for (name, a, b) in paired(&a, &b, "/sites", |site| text(site.get("site"))) {
            compare(&name, &OF_SITE, a, b);
        }
    } else {
        let name = |row: &Value| {
            let parts = ROW_NAME.iter().filter_map(|key| row.get(key).filter(|v| !v.is_null()).map(|v| format!("{key} {}", text(Some(v)))));
            parts.collect::<Vec<_>>().join(", ")
        };
        for (name, a, b) in paired(&a, &b, "/rows", name) {
            compare(&name, &OF_ROW, a, b);
        }
    }
    // Of the whole first; then kind by kind, the largest change first.
    let kind = |c: &Changed| OF_SITE.iter().chain(&OF_ROW).position(|(what, _)| *what == c.what);
    let size = |c: &Changed| (c.second.unwrap_or(0.0) - c.first.unwrap_or(0.0)).abs();
    numbers.sort_by(|a, b| (!a.of.is_empty(), kind(a)).cmp(&(!b.of.is_empty(), kind(b))).then(size(b).total_cmp(&size(a))));
    let apart =
        [("model", "/model/name"), ("model", "/model"), ("picture", "/picture/source"), ("data", "/data"), ("calibration", "/calibration")];
    let warnings = apart.iter().filter_map(|(what, path)| {
        let (a, b) = (a.pointer(path)?, b.pointer(path)?);
        let whole = a.is_object() && *path == "/model"; // Its name is compared.
        (a != b && !whole).then(|| format!("another {what}: {} and {}", text(Some(a)), text(Some(b))))
    });
    let class = |value: &Value| value.pointer("/prediction/quantized/0").map(class_of);
    Ok(DiffReport {
        settings: settings(a.get("settings"), b.get("settings")),
        warnings: warnings.collect(),
        classes: class(&a).zip(class(&b)),
        numbers,
    })
}

fn class_of(top: &Value) -> String {
    let percent = 100.0 * top.get("probability").and_then(Value::as_f64).unwrap_or(0.0);
    format!("{} ({percent:.1} %)", text(top.get("label")))
}

/// A value as people read it.
fn text(value: Option<&Value>) -> String {
    match value {
        None => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    }
}

/// The entries of two lists that have one name; those of the first list first.
fn paired<'v>(
    a: &'v Value,
    b: &'v Value,
    path: &str,
    name: impl Fn(&Value) -> String,
) -> Vec<(String, Option<&'v Value>, Option<&'v Value>)> {
    let list = |value: &'v Value| value.pointer(path).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let (a, b) = (list(a), list(b));
    let there = |list: &'v [Value], wanted: &str| list.iter().find(|entry| name(entry) == wanted);
    let mut pairs: Vec<_> = a.iter().map(|entry| (name(entry), Some(entry), there(b, &name(entry)))).collect();
    pairs.extend(b.iter().filter(|entry| there(a, &name(entry)).is_none()).map(|entry| (name(entry), None, Some(entry))));
    pairs
}

/// The keys whose values differ.
fn settings(a: Option<&Value>, b: Option<&Value>) -> Vec<(String, String, String)> {
    let empty = serde_json::Map::new();
    let map = |value: Option<&'_ Value>| value.and_then(Value::as_object).cloned().unwrap_or_else(|| empty.clone());
    let (a, b) = (map(a), map(b));
    let mut keys: Vec<&String> = a.keys().chain(b.keys().filter(|key| !a.contains_key(*key))).collect();
    keys.sort();
    let differs = |key: &&String| a.get(*key) != b.get(*key);
    keys.into_iter().filter(differs).map(|key| (key.clone(), text(a.get(key)), text(b.get(key)))).collect()
}
