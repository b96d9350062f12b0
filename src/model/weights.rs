//! Reading a checkpoint: find its files, open the safetensors, check every tensor that a network asks for. Nothing here knows an architecture.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use safetensors::SafeTensors;
use serde_json::Value;

use crate::error::{Error, Result};

/// A tensor and the name it has in the file, for messages.
#[derive(Debug)]
struct Stored {
    tensor: Tensor,
    name: String,
}

/// The tensors of one checkpoint in float32, by name.
#[derive(Debug)]
pub struct Weights {
    file: String,
    tensors: BTreeMap<String, Stored>,
    stored_as: BTreeSet<String>,
    used: RefCell<BTreeSet<String>>,
}

impl Weights {
    /// Reads a safetensors file held in memory; `file` is the name used in messages.
    ///
    /// # Errors
    /// When the bytes are not a complete safetensors file, or a tensor's type is not a float of 16, 32 or 64 bits.
    pub fn from_bytes(file: &str, bytes: &[u8]) -> Result<Self> {
        let broken = |problem: String| Error::content(file, problem, "copy or download it again, or name another file");
        if bytes.is_empty() {
            return Err(broken("expected a safetensors file, found 0 bytes".into()));
        }
        if bytes.starts_with(b"PK\x03\x04") || bytes.starts_with(b"\x80\x02") {
            return Err(Error::content(
                file,
                "expected a safetensors file, found a pickled PyTorch file, which can run code when it is read",
                "convert it with safetensors.torch.save_file and pass the result",
            ));
        }
        let parsed = SafeTensors::deserialize(bytes).map_err(|e| broken(format!("not a complete safetensors file ({e})")))?;
        let mut tensors = BTreeMap::new();
        let mut stored_as = BTreeSet::new();
        for (key, view) in parsed.tensors() {
            let dtype = match view.dtype() {
                safetensors::Dtype::F16 => DType::F16,
                safetensors::Dtype::BF16 => DType::BF16,
                safetensors::Dtype::F32 => DType::F32,
                safetensors::Dtype::F64 => DType::F64,
                // Integer buffers (Swin's index tables, step counters) are never operands.
                _ => continue,
            };
            stored_as.insert(dtype.as_str().to_string());
            let tensor = Tensor::from_raw_buffer(view.data(), dtype, view.shape(), &Device::Cpu)?.to_dtype(DType::F32)?;
            tensors.insert(key.clone(), Stored { tensor, name: key });
        }
        Ok(Self { file: file.into(), tensors, stored_as, used: RefCell::default() })
    }

    /// The name of the file in messages.
    #[must_use]
    pub fn file(&self) -> &str {
        &self.file
    }

    /// The types the tensors had on disk, such as `f16`.
    #[must_use]
    pub fn stored_as(&self) -> String {
        self.stored_as.iter().map(String::as_str).collect::<Vec<_>>().join(", ")
    }

    /// Whether the file has `key`.
    #[must_use]
    pub fn has(&self, key: &str) -> bool {
        self.tensors.contains_key(key)
    }

    /// Names of all tensors.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// Shape of `key`, which must have `rank` dimensions.
    ///
    /// # Errors
    /// When the tensor is missing or has another rank.
    pub fn shape(&self, key: &str, rank: usize) -> Result<Vec<usize>> {
        let tensor = &self.stored(key, "a tensor")?.tensor;
        if tensor.rank() == rank {
            Ok(tensor.dims().to_vec())
        } else {
            Err(self.wrong(key, format!("{rank} dimensions"), format!("{:?}", tensor.dims())))
        }
    }

    /// The tensor `key`, which must have exactly this shape and only finite values.
    ///
    /// # Errors
    /// When it is missing, has another shape, or holds NaN or infinity.
    pub fn get(&self, key: &str, shape: &[usize]) -> Result<Tensor> {
        let tensor = &self.stored(key, &format!("shape {shape:?}"))?.tensor;
        if tensor.dims() != shape {
            let found = format!("shape {:?}", tensor.dims());
            return Err(self.wrong(key, format!("shape {shape:?}"), found));
        }
        let values = tensor.flatten_all()?.to_vec1::<f32>()?;
        let bad = values.iter().filter(|v| !v.is_finite()).count();
        if bad > 0 {
            let found = format!("{bad} NaN or infinite values of {}", values.len());
            return Err(self.wrong(key, "finite values".into(), found));
        }
        self.used.borrow_mut().insert(key.to_string());
        Ok(tensor.clone())
    }

    /// Number of values that the network took.
    #[must_use]
    pub fn parameters_used(&self) -> usize {
        self.used.borrow().iter().filter_map(|k| self.tensors.get(k)).map(|stored| stored.tensor.elem_count()).sum()
    }

    /// Names of the tensors that the network never asked for.
    #[must_use]
    pub fn unused(&self) -> Vec<String> {
        let used = self.used.borrow();
        self.tensors.keys().filter(|key| !used.contains(*key)).cloned().collect()
    }

    /// Gives every tensor the name that `rename` makes of its own; messages go on naming it as the file does.
    ///
    /// # Errors
    /// When two tensors get the same name.
    pub fn renamed(mut self, rename: impl Fn(&str) -> String) -> Result<Self> {
        for (key, stored) in std::mem::take(&mut self.tensors) {
            let name = rename(&key);
            if let Some(other) = self.tensors.get(&name) {
                let expected = format!("one tensor for `{name}`");
                return Err(Error::Tensor { file: self.file, key: stored.name, expected, found: format!("`{}` too", other.name) });
            }
            self.tensors.insert(name, stored);
        }
        Ok(self)
    }

    /// Replaces `parts` by one tensor `into`, stacked along the first dimension.
    ///
    /// # Errors
    /// When a part is missing, or their other dimensions differ.
    pub fn fuse(&mut self, parts: &[String], into: &str) -> Result<()> {
        let found = parts.iter().map(|part| self.stored(part, "a tensor")).collect::<Result<Vec<_>>>()?;
        let (first, names) = (found[0].tensor.dims(), found.iter().map(|s| s.name.as_str()).collect::<Vec<_>>().join(" + "));
        if let Some(odd) = found.iter().find(|s| s.tensor.dims() != first) {
            return Err(self.wrong(
                &odd.name,
                format!("shape {first:?}, as `{}`", found[0].name),
                format!("shape {:?}", odd.tensor.dims()),
            ));
        }
        let tensor = Tensor::cat(&found.iter().map(|s| &s.tensor).collect::<Vec<_>>(), 0)?;
        self.tensors.retain(|key, _| !parts.contains(key));
        self.tensors.insert(into.into(), Stored { tensor, name: names });
        Ok(())
    }

    fn stored(&self, key: &str, expected: &str) -> Result<&Stored> {
        self.tensors.get(key).ok_or_else(|| self.wrong(key, expected.into(), "no such tensor in the file".into()))
    }

    /// The tensor `key` is not what it should be.
    #[must_use]
    pub fn wrong(&self, key: &str, expected: String, found: String) -> Error {
        let key = self.tensors.get(key).map_or(key, |stored| stored.name.as_str()).to_string();
        Error::Tensor { file: self.file.clone(), key, expected, found }
    }
}

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
        let bytes = include_bytes!("../../assets/fashion-vit/model.safetensors");
        let config = include_str!("../../assets/fashion-vit/config.json");
        Ok(Self {
            name: BUILT_IN.into(),
            source: "built in".into(),
            weights: Weights::from_bytes(name, bytes)?,
            config: Some(parse_json(name, config)?),
            preprocessor: None,
        })
    }

    /// Opens what `--model` names: the built-in name, a safetensors file, or a folder that holds `model.safetensors`.
    ///
    /// # Errors
    /// When there is no such file, or it is not a readable checkpoint.
    pub fn open(model: &str) -> Result<Self> {
        if model == BUILT_IN {
            return Self::built_in();
        }
        let path = Path::new(model);
        let file = if path.is_dir() { weights_in(path)? } else { path.to_path_buf() };
        let bytes = fs::read(&file).map_err(|source| {
            if source.kind() == std::io::ErrorKind::NotFound {
                Error::content(
                    model,
                    "no such file or folder",
                    format!("name a safetensors file, a folder with model.safetensors, or `{BUILT_IN}`"),
                )
            } else {
                Error::Io { action: "read", path: file.clone(), source }
            }
        })?;
        let folder = file.parent().unwrap_or(Path::new("."));
        let named_by = if path.is_dir() { path } else { file.as_path() };
        let name = named_by.file_stem().map_or_else(|| model.into(), |s| s.to_string_lossy().into());
        Ok(Self {
            name,
            source: file.display().to_string(),
            weights: Weights::from_bytes(&file.display().to_string(), &bytes)?,
            config: read_json(&folder.join("config.json"))?,
            preprocessor: read_json(&folder.join("preprocessor_config.json"))?,
        })
    }
}

fn weights_in(folder: &Path) -> Result<PathBuf> {
    let standard = folder.join("model.safetensors");
    if standard.is_file() {
        return Ok(standard);
    }
    let entries = fs::read_dir(folder).map_err(Error::io("read", folder))?;
    let mut found: Vec<PathBuf> = entries
        .filter_map(|entry| entry.ok().map(|e| e.path()))
        .filter(|path| path.extension().is_some_and(|e| e == "safetensors"))
        .collect();
    match found.len() {
        1 => Ok(found.remove(0)),
        n => Err(Error::content(
            folder.display().to_string(),
            format!("expected model.safetensors in the folder, found {n} other safetensors files"),
            "name the file itself",
        )),
    }
}

fn read_json(path: &Path) -> Result<Option<Value>> {
    match fs::read_to_string(path) {
        Ok(text) => parse_json(&path.display().to_string(), &text).map(Some),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(Error::io("read", path)(e)),
    }
}

fn parse_json(name: &str, text: &str) -> Result<Value> {
    serde_json::from_str(text).map_err(|e| Error::content(name, format!("not valid JSON ({e})"), "mend or remove the file"))
}
