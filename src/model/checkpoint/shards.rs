//! The files of a checkpoint: its weights in one file, or in shards that an index lists.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use super::weights::Weights;
use crate::error::{Error, Result};

/// The weights of a checkpoint in one file.
pub const WEIGHTS: &str = "model.safetensors";
/// The list of the shards of a large checkpoint.
pub const INDEX: &str = "model.safetensors.index.json";

/// Which shard has which tensor, as an index says. All shards are plain file names: a list from elsewhere must not reach files outside
/// of its folder.
fn weight_map(index: &Path) -> Result<BTreeMap<String, String>> {
    #[derive(serde::Deserialize)]
    struct Index {
        weight_map: BTreeMap<String, String>,
    }
    let name = index.display().to_string();
    let text = fs::read_to_string(index).map_err(Error::io("read", index))?;
    let Index { weight_map } =
        serde_json::from_str(&text).map_err(|e| Error::content(&name, format!("not a list of shards ({e})"), "download it again"))?;
    let plain = |shard: &&String| {
        let path = Path::new(shard);
        path.file_name().is_some_and(|file| file == shard.as_str()) && path.extension().is_some_and(|ending| ending == "safetensors")
    };
    match weight_map.values().find(|shard| !plain(shard)) {
        Some(shard) if Path::new(shard).file_name().is_some_and(|file| file == shard.as_str()) => {
            let problem = format!("expected shards that are safetensors files, found `{shard}` listed as one");
            Err(Error::content(&name, problem, "tell the authors of the model"))
        }
        Some(shard) => Err(no_shard(&name, shard)),
        None => Ok(weight_map),
    }
}

fn no_shard(index: &str, shard: &str) -> Error {
    let problem = format!("expected the shard `{shard}` in the same folder, found no such file");
    Error::content(index, problem, "download all shards")
}

/// The shards that an index lists.
#[cfg(feature = "hub")]
pub(super) fn shards(index: &Path) -> Result<BTreeSet<String>> {
    Ok(weight_map(index)?.into_values().collect())
}

/// Opens all shards that an index lists, and checks that each has the tensors it is listed for.
pub(super) fn sharded(index: &Path, folder: &Path) -> Result<Weights> {
    let (name, weight_map) = (index.display().to_string(), weight_map(index)?);
    let shards: BTreeSet<&String> = weight_map.values().collect();
    if let Some(shard) = shards.iter().find(|shard| !folder.join(shard).is_file()) {
        return Err(no_shard(&name, shard));
    }
    let weights = Weights::open(&name, &shards.iter().map(|shard| folder.join(shard)).collect::<Vec<_>>())?;
    match weight_map.iter().find(|(key, _)| !weights.has(key)) {
        Some((key, shard)) => {
            Err(weights.wrong(key, format!("a tensor in {shard}, as the index says"), "no such tensor in the shards".into()))
        }
        None => Ok(weights),
    }
}

/// Whether `files` are all shards of one checkpoint by their names, `NAME-00002-of-00005.safetensors`: all that there are, or which is
/// missing. `None` where they are something else.
pub(super) fn without_index(files: &[PathBuf]) -> Option<Result<()>> {
    let part = |file: &PathBuf| -> Option<(String, usize, usize)> {
        let stem = file.file_stem()?.to_str()?;
        let (rest, of) = stem.rsplit_once("-of-")?;
        let (name, index) = rest.rsplit_once('-')?;
        Some((name.to_string(), index.parse().ok()?, of.parse().ok()?))
    };
    let parts = files.iter().map(part).collect::<Option<Vec<_>>>()?;
    let (name, _, of) = parts.first()?;
    if parts.iter().any(|(other, _, others)| other != name || others != of) {
        return None;
    }
    let missing = (1..=*of).find(|wanted| !parts.iter().any(|(_, index, _)| index == wanted));
    let folder = files[0].parent().unwrap_or(Path::new(".")).display().to_string();
    Some(match missing {
        None => Ok(()),
        Some(index) => Err(no_shard(&folder, &format!("{name}-{index:05}-of-{of:05}.safetensors"))),
    })
}
