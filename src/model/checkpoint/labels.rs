//! Class names: from a checkpoint's configuration, from a file, or those of ImageNet-1k where a model has its 1,000 classes.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::error::{Error, Result};
use crate::model::checkpoint::config::lookup;

static IMAGENET: &str = include_str!("../../../assets/imagenet-classes.txt");

/// Class names from `label_names` (timm, ours) or `id2label` (transformers); none unless there is one for every class.
#[must_use]
pub fn of_config(config: Option<&Value>, classes: usize) -> Option<Vec<String>> {
    let text = |value: &Value| value.as_str().map(str::to_string);
    let listed = lookup(config, "label_names").and_then(Value::as_array).map(|list| list.iter().filter_map(text).collect::<Vec<_>>());
    let mapped = lookup(config, "id2label")
        .and_then(Value::as_object)
        .map(|map| (0..classes).filter_map(|class| map.get(&class.to_string()).and_then(text)).collect());
    // transformers numbers classes that nobody named: `LABEL_0`.
    let named = |names: &Vec<String>| names.len() == classes && !names.iter().all(|name| name.starts_with("LABEL_"));
    listed.filter(named).or(mapped.filter(named))
}

/// The names of ImageNet-1k, for a photograph model that has so many classes and no names of its own.
#[must_use]
pub fn of_imagenet(in_chans: usize, classes: usize) -> Option<Vec<String>> {
    (in_chans == 3 && classes == IMAGENET.lines().count()).then(|| IMAGENET.lines().map(str::to_string).collect())
}

/// Class names from a text file, one a line.
///
/// # Errors
/// When it cannot be read, or has not one name for every class.
pub fn of_file(path: &Path, classes: usize) -> Result<Vec<String>> {
    let text = fs::read_to_string(path).map_err(Error::io("read", path))?;
    let names: Vec<String> = text.trim_end().lines().map(|line| line.trim().to_string()).collect();
    let refuse = |found: String| {
        let problem = format!("expected {classes} class names, one a line, found {found}");
        Err(Error::content(path.display().to_string(), problem, "give every class of the model a line, in their order"))
    };
    match names.iter().position(String::is_empty) {
        _ if names.len() != classes => refuse(names.len().to_string()),
        Some(line) => refuse(format!("line {} empty", line + 1)),
        None => Ok(names),
    }
}
