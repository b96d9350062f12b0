//! A configuration of transformers read strictly: a key that may change the numbers and is not understood is refused by name.

use serde_json::{Map, Value};

use super::number;
use crate::error::{Error, Result};
use crate::model::checkpoint::Checkpoint;

/// Keys of every configuration of transformers that change nothing here.
const NEUTRAL: &[&str] = &[
    "model_type",
    "architectures",
    "id2label",
    "label2id",
    "num_labels",
    "dtype",
    "torch_dtype",
    "transformers_version",
    "problem_type",
    "output_attentions",
    "output_hidden_states",
    "return_dict",
    "chunk_size_feed_forward",
    "use_cache",
];

/// What reads the detectors of mmdet, beside which a configuration may only name classes.
pub(super) const MMDET: &str = "mmdet";

/// One object of the configuration.
pub(super) struct Part<'c> {
    /// The name of the checkpoint.
    pub file: &'c str,
    /// Its keys.
    pub keys: &'c Map<String, Value>,
    /// How its keys are called in messages.
    pub place: &'static str,
    /// The class that reads such a configuration.
    pub class: &'static str,
}

impl<'c> Part<'c> {
    /// The whole configuration of a checkpoint, without which `missing` is unknown.
    pub fn of(checkpoint: &'c Checkpoint, class: &'static str, missing: &str) -> Result<Self> {
        let none = || {
            let problem = format!("no config.json for transformers' {class}: {missing} are in no tensor");
            Error::content(&checkpoint.name, problem, "put the config.json of the checkpoint beside it")
        };
        let keys = checkpoint.config.as_ref().and_then(Value::as_object).ok_or_else(none)?;
        Ok(Self { file: &checkpoint.name, keys, place: "", class })
    }

    /// The object that a key holds, whose keys messages name with `place` before them.
    pub fn below(&self, key: &str, place: &'static str) -> Option<Self> {
        Some(Self { keys: self.keys.get(key)?.as_object()?, place, ..*self })
    }

    /// What is wrong with a key.
    pub fn wrong(&self, key: &str, expected: &str, found: &str) -> Error {
        let problem = format!("`{}{key}` of config.json: expected {expected}, found {found}", self.place);
        let advice = if self.class == MMDET {
            "mmdet has no config.json: take the key, or the file, away".to_string()
        } else {
            format!("it may change the numbers; name a checkpoint of transformers' {}", self.class)
        };
        Error::content(self.file, problem, advice)
    }

    /// A positive number; where it is missing, which means the default of transformers, that.
    pub fn number(&self, key: &str, default: usize) -> Result<usize> {
        let Some(value) = self.keys.get(key) else { return Ok(default) };
        number(value).filter(|n| *n > 0).ok_or_else(|| self.wrong(key, "a positive number", &value.to_string()))
    }

    /// Refuses keys that are neither known nor neutral, and those that must have a value and have another.
    pub fn check(&self, required: &[(&str, Value)], known: &[&str]) -> Result<()> {
        for (key, value) in self.keys {
            let same = |wanted: &Value| value == wanted || (value.as_f64().is_some() && value.as_f64() == wanted.as_f64());
            match required.iter().find(|(name, _)| name == key) {
                Some((_, wanted)) if same(wanted) => {}
                Some((_, wanted)) => return Err(self.wrong(key, &wanted.to_string(), &value.to_string())),
                None if known.contains(&key.as_str()) || NEUTRAL.contains(&key.as_str()) || key.starts_with('_') || value.is_null() => {}
                None if key.ends_with("_loss_coefficient") || key.ends_with("_cost") => {}
                None => return Err(self.wrong(key, "a key that igq knows", &value.to_string())),
            }
        }
        Ok(())
    }
}
