//! What a configuration says, looked up where the library that it belongs to reads it.

use serde_json::Value;

use super::lookup;
use crate::model::checkpoint::Checkpoint;

/// The configuration of a checkpoint, as the library that it belongs to reads it.
pub(super) struct Said<'a> {
    pub config: Option<&'a Value>,
    /// Whether it is one of timm.
    pub timm: bool,
}

impl<'a> Said<'a> {
    pub(super) fn of(checkpoint: &'a Checkpoint) -> Self {
        let config = checkpoint.config.as_ref();
        Self { config, timm: lookup(config, "architecture").is_some() }
    }

    /// The value of `key`, for timm that of `model_args`, whose arguments may be null and mean it.
    pub(super) fn get(&self, key: &str) -> Option<&'a Value> {
        if self.timm { self.config?.get("model_args")?.get(key) } else { lookup(self.config, key) }
    }
}
