//! Finding a checkpoint: what `--model` names, its weight files (one or several shards), and the configuration beside them.

pub mod config;
#[cfg(feature = "hub")]
mod environment;
#[cfg(feature = "hub")]
mod http;
#[cfg_attr(not(feature = "hub"), path = "no_hub.rs")]
pub mod hub;
pub mod labels;
pub mod names;
pub mod names_detr;
pub mod names_rcnn;
pub mod names_rf_detr;
mod shards;
pub mod weights;
#[cfg(feature = "hub")]
mod whole;

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

pub use shards::{INDEX, WEIGHTS};

use shards::sharded;
use weights::Weights;

use crate::error::{Error, Result};
use crate::progress::Progress;
use crate::read;

/// A checkpoint as found: weights and, where they stand beside them, the configuration files.
#[derive(Debug)]
pub struct Checkpoint {
    /// Short name for people.
    pub name: String,
    /// Where it came from.
    pub source: String,
    /// The tensors.
    pub weights: Weights,
    /// `config.json`, if there is one.
    pub config: Option<Value>,
    /// transformers' `preprocessor_config.json`, if there is one.
    pub preprocessor: Option<Value>,
    /// What people should know of how it was found.
    pub note: Option<String>,
}

/// Name of the model that is compiled into the binary.
pub const BUILT_IN: &str = "fashion-vit";

impl Checkpoint {
    /// The built-in model (see `assets/SOURCES.md`).
    ///
    /// # Errors
    /// Only when the binary was built from broken assets.
    pub fn built_in() -> Result<Self> {
        let name = "built-in fashion-vit";
        let bytes: &'static [u8] = include_bytes!("../../../assets/fashion-vit/model.safetensors");
        let config = include_str!("../../../assets/fashion-vit/config.json");
        Ok(Self {
            name: BUILT_IN.into(),
            source: "built in".into(),
            weights: Weights::from_bytes(name, bytes)?,
            config: Some(parse_json(name, config)?),
            preprocessor: None,
            note: None,
        })
    }

    /// Opens what `--model` names: the built-in name, a safetensors file, the index of a sharded one, a folder that holds either, or an
    /// id on the Hugging Face Hub, whose cache is read before the network; `offline`: instead of it.
    ///
    /// # Errors
    /// When there is no such file, folder or model, or it is not a readable checkpoint.
    pub fn open(model: &str, offline: bool, progress: &dyn Fn(Progress)) -> Result<Self> {
        if model == BUILT_IN {
            return Self::built_in();
        }
        let path = Path::new(model);
        if !path.exists() {
            let Some(id) = hub_id(model) else {
                let advice = format!("name a safetensors file, a folder with {WEIGHTS}, a model of the Hub (OWNER/NAME), or `{BUILT_IN}`");
                return Err(Error::content(model, "no such file or folder", advice));
            };
            let (folder, note) = hub::fetch(&id, offline, progress)?;
            let opened = Self::from_path(&id, &folder)?;
            let name = id.split_once('/').map_or(id.as_str(), |(_, name)| name).into();
            return Ok(Self { name, source: format!("{id} on the Hugging Face Hub ({})", opened.source), note, ..opened });
        }
        Self::from_path(model, path)
    }

    fn from_path(model: &str, path: &Path) -> Result<Self> {
        let files = if path.is_dir() { weights_in(path)? } else { vec![path.to_path_buf()] };
        let file = files.first().cloned().unwrap_or_else(|| path.to_path_buf());
        let folder = file.parent().unwrap_or(Path::new("."));
        let source = file.display().to_string();
        let weights = if source.ends_with(".index.json") { sharded(&file, folder)? } else { Weights::open(&source, &files)? };
        let named_by = if path.is_dir() { path } else { file.as_path() };
        let name = named_by.file_stem().map_or_else(|| model.into(), |s| s.to_string_lossy().into());
        Ok(Self {
            name,
            source,
            weights,
            config: read_json(&folder.join("config.json"))?,
            preprocessor: read_json(&folder.join("preprocessor_config.json"))?,
            note: None,
        })
    }
}

/// Whether `model` can be a model's id on the Hugging Face Hub: `OWNER/NAME`, with `@REVISION` behind it or not, and not the name of a file.
#[must_use]
pub fn is_hub_id(model: &str) -> bool {
    let part = |part: &str| {
        let plain = part.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
        plain && part.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_') && !part.contains("..") && part.len() <= 96
    };
    let (model, revision) = model.split_once('@').unwrap_or((model, "main"));
    let ending = Path::new(model).extension().and_then(|e| e.to_str()).unwrap_or_default().to_lowercase();
    let file = ["safetensors", "json", "bin", "pt", "pth", "ckpt", "gguf", "onnx"].contains(&ending.as_str());
    !file
        && revision.split('/').all(part)
        && revision.len() <= 200
        && model.split_once('/').is_some_and(|(owner, name)| part(owner) && part(name))
}

/// What stands behind the prefixes of timm and the Hub's own addresses.
fn without_host(text: &str) -> Option<&str> {
    let strip = |text: &'_ str, start: &str| text.get(..start.len()).is_some_and(|s| s.eq_ignore_ascii_case(start)).then_some(start.len());
    if let Some(end) = ["hf_hub:", "hf-hub:", "hf://"].iter().find_map(|start| strip(text, start)) {
        return Some(&text[end..]);
    }
    let end = ["https://", "http://"].iter().find_map(|start| strip(text, start)).unwrap_or(0);
    let text = &text[end..];
    let text = &text[strip(text, "www.").unwrap_or(0)..];
    ["huggingface.co/", "hf.co/"].iter().find_map(|start| strip(text, start)).map(|end| &text[end..])
}

/// The id that a spelling of timm or a browser means: `hf_hub:OWNER/NAME`, `https://huggingface.co/OWNER/NAME/tree/REVISION`,
/// `OWNER/NAME/`; none where it means none.
#[must_use]
pub fn hub_id(spelling: &str) -> Option<String> {
    let text = spelling.trim();
    let endpoint = std::env::var("HF_ENDPOINT").unwrap_or_default();
    let endpoint = endpoint.trim_end_matches('/');
    let own = text.strip_prefix(endpoint).filter(|rest| !endpoint.is_empty() && rest.starts_with('/'));
    let known = own.or_else(|| without_host(text));
    // Only what is written as an address may end in a slash, or be longer: anything else may be a folder.
    if known.is_none() && text.starts_with('/') {
        return None; // The path of a folder that is not there.
    }
    let rest = known.unwrap_or(text).trim_matches('/');
    let mut parts = rest.split(['?', '#']).next()?.trim_end_matches('/').splitn(4, '/');
    let (owner, name) = (parts.next()?, parts.next()?);
    let id = match (parts.next(), parts.next()) {
        (None, _) => format!("{owner}/{name}"),
        // A pull request or a conversion has slashes in its name, which browsers write in another way.
        (Some("tree" | "resolve" | "blob"), Some(rest)) if known.is_some() => {
            let rest = rest.replace("%2F", "/").replace("%2f", "/");
            let mut folders = rest.match_indices('/').map(|(at, _)| at);
            let end = if rest.starts_with("refs/") { folders.nth(2) } else { folders.next() };
            format!("{owner}/{name}@{}", &rest[..end.unwrap_or(rest.len())])
        }
        // `OWNER/NAME@refs/pr/1`.
        (Some(more), last) if name.contains('@') => {
            let last = last.map(|last| format!("/{last}")).unwrap_or_default();
            format!("{owner}/{name}/{more}{last}")
        }
        _ => return None,
    };
    is_hub_id(&id).then_some(id)
}

/// The weight files of a folder: one, an index, or all shards where the index is missing.
fn weights_in(folder: &Path) -> Result<Vec<PathBuf>> {
    if let Some(file) = [WEIGHTS, INDEX].map(|name| folder.join(name)).into_iter().find(|file| file.is_file()) {
        return Ok(vec![file]);
    }
    let entries = fs::read_dir(folder).map_err(Error::io("read", folder))?;
    // What begins with a dot is a Mac's resource fork or an editor's.
    let hidden = |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
    let files: Vec<PathBuf> = entries.filter_map(|entry| entry.ok().map(|e| e.path())).filter(|path| !hidden(path)).collect();
    let with = |extensions: &[&str]| {
        let has = |file: &&PathBuf| file.extension().is_some_and(|e| extensions.iter().any(|wanted| e == *wanted));
        files.iter().filter(has).cloned().collect::<Vec<_>>()
    };
    let mut found = with(&["safetensors"]);
    found.sort();
    if found.len() > 1
        && let Some(complete) = shards::without_index(&found)
    {
        return complete.map(|()| found);
    }
    let pickled = with(&["bin", "pth", "pt", "ckpt"]);
    let (problem, advice) = match (found.len(), pickled.first()) {
        (1, _) => return Ok(found),
        (0, Some(pickle)) => (format!("found only {}, a pickle, which can run code when it is read", pickle.display()), weights::CONVERT),
        (n, _) => {
            (format!("expected model.safetensors or {INDEX} in the folder, found {n} other safetensors files"), "name the file itself")
        }
    };
    Err(Error::content(folder.display().to_string(), problem, advice))
}

fn read_json(path: &Path) -> Result<Option<Value>> {
    if fs::symlink_metadata(path).is_err_and(|e| e.kind() == std::io::ErrorKind::NotFound) {
        return Ok(None);
    }
    parse_json(&path.display().to_string(), &read::text(path)?).map(Some)
}

fn parse_json(name: &str, text: &str) -> Result<Value> {
    serde_json::from_str(text).map_err(|e| Error::content(name, format!("not valid JSON ({e})"), "correct or remove the file"))
}
