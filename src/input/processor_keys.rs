//! Reading single keys of a preprocessing configuration.

use serde_json::Value;

use super::preprocess::Resize;
use super::processor_classes::FILE;
use crate::error::{Error, Result};

/// Largest side of a resize or a crop, in pixels.
const MAX_SIDE: u64 = 16_384;

pub(super) fn refused(file: &str, problem: String) -> Error {
    Error::content(file, problem, "correct it, or name a checkpoint whose preprocessing igq knows")
}

/// The text that `key` has.
pub(super) fn text<'a>(cfg: &'a Value, key: &str, file: &str) -> Result<Option<&'a str>> {
    match cfg.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(other) => Err(refused(file, format!("{key}: expected text, found {other}"))),
    }
}

/// A key that is on, off (null is), or left to `default`.
pub(super) fn switch(cfg: &Value, key: &str, default: bool) -> Result<bool> {
    match cfg.get(key) {
        None => Ok(default),
        Some(Value::Null) => Ok(false),
        Some(Value::Bool(on)) => Ok(*on),
        Some(other) => Err(refused(FILE, format!("{key}: expected true or false, found {other}"))),
    }
}

pub(super) fn is_null(cfg: &Value, key: &str) -> bool {
    cfg.get(key).is_some_and(Value::is_null)
}

/// A number of `low` to `high`, or `default`.
pub(super) fn number(cfg: &Value, key: &str, default: f64, (low, high): (f64, f64)) -> Result<f64> {
    match cfg.get(key).filter(|v| !v.is_null()) {
        None => Ok(default),
        Some(value) => value
            .as_f64()
            .filter(|n| (low..=high).contains(n))
            .ok_or_else(|| refused(FILE, format!("{key}: expected a number of {low} to {high}, found {value}"))),
    }
}

/// A size in any of the forms that transformers knows; `square`: what a bare number means.
pub(super) fn sides(value: &Value, key: &str, square: bool) -> Result<Resize> {
    let side = |v: &Value| -> Result<usize> {
        let bad = || refused(FILE, format!("{key}: expected 1 to {MAX_SIDE} pixels, found {v}"));
        v.as_u64().filter(|n| (1..=MAX_SIDE).contains(n)).map(|n| n as usize).ok_or_else(bad)
    };
    let of = |name: &str| side(&value[name]);
    let mut keys: Vec<&str> = value.as_object().into_iter().flatten().filter(|(_, v)| !v.is_null()).map(|(key, _)| key.as_str()).collect();
    keys.sort_unstable();
    Ok(match (keys.as_slice(), value) {
        (["height", "width"], _) => Resize::Exact(of("height")?, of("width")?),
        (["shortest_edge"], _) => Resize::Shortest(of("shortest_edge")?),
        (["longest_edge"], _) => Resize::Longest(of("longest_edge")?),
        (["longest_edge", "shortest_edge"], _) => Resize::Between(of("shortest_edge")?, of("longest_edge")?),
        (["max_height", "max_width"], _) => Resize::Within(of("max_height")?, of("max_width")?),
        ([], Value::Array(list)) if list.len() == 2 => Resize::Exact(side(&list[0])?, side(&list[1])?),
        ([], Value::Number(_)) if square => Resize::Exact(side(value)?, side(value)?),
        ([], Value::Number(_)) => Resize::Shortest(side(value)?),
        _ => {
            let forms = "a number, height and width, shortest_edge, longest_edge, both of these, or max_height and max_width";
            return Err(refused(FILE, format!("{key}: expected {forms}, found {value}")));
        }
    })
}
