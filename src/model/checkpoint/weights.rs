//! The tensors of a checkpoint: safetensors headers read and checked at once, values only when a network asks for them. Nothing here
//! knows an architecture.

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use candle_core::{DType, Device, Tensor};
use safetensors::tensor::{Dtype, TensorInfo};

use crate::error::{Error, Result};

/// Largest header that is read, as in the safetensors library: a length beyond it means another kind of file.
const MAX_HEADER: u64 = 100_000_000;

/// Where the bytes of a file are.
#[derive(Debug)]
enum Bytes {
    Memory(Cow<'static, [u8]>),
    Disk(File),
}

impl Bytes {
    fn len(&self) -> std::io::Result<u64> {
        match self {
            Self::Memory(bytes) => Ok(bytes.len() as u64),
            Self::Disk(file) => Ok(file.metadata()?.len()),
        }
    }

    /// `length` bytes from `start` on, or what there is of them.
    fn read(&self, start: u64, length: u64) -> std::io::Result<Vec<u8>> {
        match self {
            Self::Memory(bytes) => {
                let at = |offset: u64| usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
                Ok(bytes[at(start)..at(start.saturating_add(length))].to_vec())
            }
            Self::Disk(file) => {
                let mut file = file;
                file.seek(SeekFrom::Start(start))?;
                let mut bytes = Vec::new();
                file.take(length).read_to_end(&mut bytes)?;
                Ok(bytes)
            }
        }
    }
}

/// One safetensors file.
#[derive(Debug)]
struct Source {
    name: String,
    bytes: Bytes,
}

/// A run of bytes of a source.
#[derive(Debug, Clone)]
struct Span {
    source: usize,
    start: u64,
    length: u64,
}

/// A tensor that has not been read: one span, or several stacked along the first dimension.
#[derive(Debug)]
struct Stored {
    /// The name in the file, for messages.
    name: String,
    dtype: Dtype,
    shape: Vec<usize>,
    spans: Vec<Span>,
}

/// The tensors of one checkpoint by name, given out in float32.
#[derive(Debug)]
pub struct Weights {
    file: String,
    sources: Vec<Source>,
    tensors: BTreeMap<String, Stored>,
    used: RefCell<BTreeSet<String>>,
    digest: RefCell<blake3::Hasher>,
}

impl Weights {
    /// Reads the headers of safetensors files that make up one checkpoint; `name` is that of the whole in messages.
    ///
    /// # Errors
    /// When a file cannot be read, is no complete safetensors file, or has a tensor that another has too.
    pub fn open(name: &str, files: &[impl AsRef<Path>]) -> Result<Self> {
        let open = |path: &Path| {
            if !std::fs::metadata(path).map_err(Error::io("read", path))?.is_file() {
                return Err(Error::content(path.display().to_string(), "expected a regular file", "name a safetensors file or its folder"));
            }
            let file = File::open(path).map_err(Error::io("read", path))?;
            Ok(Source { name: path.display().to_string(), bytes: Bytes::Disk(file) })
        };
        Self::read(name, files.iter().map(|file| open(file.as_ref())).collect::<Result<_>>()?)
    }

    /// The same for one file that is held in memory.
    ///
    /// # Errors
    /// When it is no complete safetensors file.
    pub fn from_bytes(name: &str, bytes: impl Into<Cow<'static, [u8]>>) -> Result<Self> {
        Self::read(name, vec![Source { name: name.into(), bytes: Bytes::Memory(bytes.into()) }])
    }

    fn read(name: &str, sources: Vec<Source>) -> Result<Self> {
        let mut tensors = BTreeMap::new();
        for (index, source) in sources.iter().enumerate() {
            for (key, mut stored) in headers(source)? {
                stored.spans[0].source = index;
                if tensors.insert(key.clone(), stored).is_some() {
                    let found = "one in another file of the checkpoint too".into();
                    return Err(Error::Tensor { file: source.name.clone(), key, expected: "one tensor of this name".into(), found });
                }
            }
        }
        Ok(Self { file: name.into(), sources, tensors, used: RefCell::default(), digest: RefCell::default() })
    }

    /// The name of the checkpoint in messages.
    #[must_use]
    pub fn file(&self) -> &str {
        &self.file
    }

    /// The types of the float tensors on disk, such as `f16`.
    #[must_use]
    pub fn stored_as(&self) -> String {
        let types: BTreeSet<&str> = self.tensors.values().filter_map(|stored| Some(float(stored.dtype)?.as_str())).collect();
        types.into_iter().collect::<Vec<_>>().join(", ")
    }

    /// Whether the checkpoint has `key`.
    #[must_use]
    pub fn has(&self, key: &str) -> bool {
        self.tensors.contains_key(key)
    }

    /// Names of all tensors.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// Names of all tensors as the files have them.
    pub fn names_in_file(&self) -> impl Iterator<Item = &str> {
        self.tensors.values().map(|stored| stored.name.as_str())
    }

    /// Shape of `key`, which must have `rank` dimensions.
    ///
    /// # Errors
    /// When the tensor is missing or has another rank.
    pub fn shape(&self, key: &str, rank: usize) -> Result<Vec<usize>> {
        let shape = &self.stored(key, "a tensor")?.shape;
        if shape.contains(&0) {
            return Err(self.wrong(key, "no empty dimension".into(), format!("shape {shape:?}")));
        }
        if shape.len() == rank { Ok(shape.clone()) } else { Err(self.wrong(key, format!("{rank} dimensions"), format!("shape {shape:?}"))) }
    }

    /// The tensor `key`, which must have exactly this shape and only finite values.
    ///
    /// # Errors
    /// When it is missing, has another shape or no floats, holds NaN or infinity, or cannot be read.
    pub fn get(&self, key: &str, shape: &[usize]) -> Result<Tensor> {
        let stored = self.stored(key, &format!("shape {shape:?}"))?;
        if stored.shape != shape {
            return Err(self.wrong(key, format!("shape {shape:?}"), format!("shape {:?}", stored.shape)));
        }
        let Some(dtype) = float(stored.dtype) else {
            let found = match stored.dtype {
                Dtype::I8 | Dtype::U8 => {
                    format!("{:?}: the weights are quantized already; name the float checkpoint they were made from", stored.dtype)
                }
                other => format!("{other:?}"),
            };
            return Err(self.wrong(key, "floats of 16, 32 or 64 bits".into(), found));
        };
        let mut bytes = Vec::new();
        for span in &stored.spans {
            let source = &self.sources[span.source];
            bytes.extend(source.bytes.read(span.start, span.length).map_err(Error::io("read", Path::new(&source.name)))?);
        }
        self.digest.borrow_mut().update(key.as_bytes()).update(&bytes);
        let tensor = Tensor::from_raw_buffer(&bytes, dtype, shape, &Device::Cpu)?.to_dtype(DType::F32)?;
        // One bad value makes the sum one; only then is it worth counting.
        if !tensor.sum_all()?.to_scalar::<f32>()?.is_finite() {
            let values = tensor.flatten_all()?.to_vec1::<f32>()?;
            let bad = values.iter().filter(|v| !v.is_finite()).count();
            if bad > 0 {
                return Err(self.wrong(key, "finite values".into(), format!("{bad} NaN or infinite values of {}", values.len())));
            }
        }
        self.used.borrow_mut().insert(key.to_string());
        Ok(tensor)
    }

    /// A digest of the names and the content of the tensors that were given out, in their order.
    #[must_use]
    pub fn digest(&self) -> String {
        self.digest.borrow().finalize().to_hex().to_string()
    }

    /// Number of values that the network took.
    #[must_use]
    pub fn parameters_used(&self) -> usize {
        self.used.borrow().iter().filter_map(|key| self.tensors.get(key)).map(|stored| stored.shape.iter().product::<usize>()).sum()
    }

    /// Names of the tensors that the network never asked for, but for counters: integers of one value.
    #[must_use]
    pub fn unused(&self) -> Vec<String> {
        let used = self.used.borrow();
        let counter = |stored: &Stored| float(stored.dtype).is_none() && stored.shape.iter().product::<usize>() <= 1;
        let unused = |(key, stored): &(&String, &Stored)| !counter(stored) && !used.contains(*key);
        self.tensors.iter().filter(unused).map(|(key, _)| key.clone()).collect()
    }

    /// Keeps only some tensors; gives the number of the others.
    pub fn keep(&mut self, wanted: impl Fn(&str) -> bool) -> usize {
        let before = self.tensors.len();
        self.tensors.retain(|key, _| wanted(key));
        before - self.tensors.len()
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
    /// When a part is missing, or their shapes or types differ.
    pub fn fuse(&mut self, parts: &[String], into: &str) -> Result<()> {
        let beside = parts.iter().find_map(|part| Some(format!("a tensor beside `{}`", self.tensors.get(part)?.name)));
        let expected = beside.unwrap_or_default();
        let found = parts.iter().map(|part| self.stored(part, &expected)).collect::<Result<Vec<_>>>()?;
        let first = found[0];
        if let Some((key, odd)) = parts.iter().zip(&found).find(|(_, odd)| (&odd.shape, odd.dtype) != (&first.shape, first.dtype)) {
            let expected = format!("{:?} {:?}, as `{}`", first.dtype, first.shape, first.name);
            return Err(self.wrong(key, expected, format!("{:?} {:?}", odd.dtype, odd.shape)));
        }
        let mut shape = first.shape.clone();
        if let Some(rows) = shape.first_mut() {
            *rows *= parts.len();
        }
        let fused = Stored {
            name: found.iter().map(|stored| stored.name.as_str()).collect::<Vec<_>>().join(" + "),
            dtype: first.dtype,
            shape,
            spans: found.iter().flat_map(|stored| stored.spans.clone()).collect(),
        };
        self.tensors.retain(|key, _| !parts.contains(key));
        self.tensors.insert(into.into(), fused);
        Ok(())
    }

    /// Fuses ([`Self::fuse`]) wherever a name has `parts[0]` in it: the tensors with each of `parts` in its place, to the name with `into` there.
    ///
    /// # Errors
    /// As [`Self::fuse`].
    pub fn fuse_all(&mut self, parts: &[&str], into: &str) -> Result<()> {
        let Some(first) = parts.first() else { return Ok(()) };
        let keys: Vec<String> = self.keys().filter(|key| key.contains(first)).map(str::to_string).collect();
        keys.iter().try_for_each(|key| {
            let parts: Vec<String> = parts.iter().map(|part| key.replace(first, part)).collect();
            self.fuse(&parts, &key.replace(first, into))
        })
    }

    fn stored(&self, key: &str, expected: &str) -> Result<&Stored> {
        self.tensors.get(key).ok_or_else(|| {
            let renamed = self.tensors.iter().any(|(key, stored)| *key != stored.name);
            let found =
                if renamed { "no such tensor in the file, nor another library's name for it" } else { "no such tensor in the file" };
            self.wrong(key, expected.into(), found.into())
        })
    }

    /// The tensor `key` is not what it should be.
    #[must_use]
    pub fn wrong(&self, key: &str, expected: String, found: String) -> Error {
        let stored = self.tensors.get(key);
        let file = stored.map_or(&self.file, |stored| &self.sources[stored.spans[0].source].name).clone();
        Error::Tensor { file, key: stored.map_or(key, |stored| stored.name.as_str()).into(), expected, found }
    }
}

/// The float types that a network can be read from.
fn float(dtype: Dtype) -> Option<DType> {
    match dtype {
        Dtype::F16 => Some(DType::F16),
        Dtype::BF16 => Some(DType::BF16),
        Dtype::F32 => Some(DType::F32),
        Dtype::F64 => Some(DType::F64),
        _ => None,
    }
}

/// What a file says that it holds, checked against its length.
fn headers(source: &Source) -> Result<Vec<(String, Stored)>> {
    let name = &source.name;
    let io = |e| Error::io("read", Path::new(name))(e);
    let length = source.bytes.len().map_err(io)?;
    let start = source.bytes.read(0, 32).map_err(io)?;
    refuse_other_formats(name, &start)?;
    let broken = |problem: String| {
        let problem = format!("not a complete safetensors file ({problem})");
        Error::content(name, problem, "copy or download it again, or name another file")
    };
    let header = start.first_chunk().map(|bytes| u64::from_le_bytes(*bytes));
    let Some(header) = header.filter(|header| *header <= MAX_HEADER && header + 8 <= length) else {
        return Err(broken(format!("{length} bytes, and the first eight are no length of a header")));
    };
    let text = source.bytes.read(8, header).map_err(io)?;
    let unreadable = |e| broken(format!("unreadable header: {e}"));
    let mut entries: BTreeMap<String, serde_json::Value> = serde_json::from_slice(&text).map_err(unreadable)?;
    entries.remove("__metadata__");
    let infos = entries.into_iter().map(|(key, value)| Ok((key, serde_json::from_value::<TensorInfo>(value).map_err(unreadable)?)));
    let mut infos = infos.collect::<Result<Vec<_>>>()?;
    infos.sort_by_key(|(_, info)| info.data_offsets);
    let mut expected = 0; // Tensors lie one behind the other, without gaps.
    let mut found = Vec::new();
    for (key, info) in infos {
        let (from, to) = info.data_offsets;
        let bits = info.shape.iter().try_fold(info.dtype.bitsize(), |bits, side| bits.checked_mul(*side));
        if from != expected || bits.is_none_or(|bits| from.checked_add(bits / 8) != Some(to)) {
            let expected = format!("{:?} {:?} from byte {expected} on", info.dtype, info.shape);
            return Err(Error::Tensor { file: name.clone(), key, expected, found: format!("bytes {from} to {to} in the header") });
        }
        expected = to;
        let span = Span { source: 0, start: 8 + header + from as u64, length: (to - from) as u64 };
        let stored = Stored { name: key.clone(), dtype: info.dtype, shape: info.shape, spans: vec![span] };
        found.push((key, stored));
    }
    if 8 + header + expected as u64 == length {
        Ok(found)
    } else {
        Err(broken(format!("{length} bytes, but the header describes {}", 8 + header + expected as u64)))
    }
}

/// How a pickle becomes what igq reads, in one line; a checkpoint of mmdet holds its weights under `state_dict`.
pub const CONVERT: &str = "convert it where you trust it, and pass the result: python -c \"import torch, safetensors.torch as s; d = torch.load('IN.pth', \
    map_location='cpu', weights_only=False); s.save_file({k: v.contiguous() for k, v in d.get('state_dict', d).items()}, 'OUT.safetensors')\" \
    (safetensors.torch.save_file)";

/// Names what is often found where a safetensors file should be.
fn refuse_other_formats(name: &str, start: &[u8]) -> Result<()> {
    // The length of a header may begin as a pickle does; the header behind it begins with a brace.
    if start.get(8) == Some(&b'{') {
        return Ok(());
    }
    let (found, advice) = match start {
        [] => ("0 bytes", "copy or download it again, or name another file"),
        [b'P', b'K', 3, 4, ..] | [0x80, 2..=5, ..] => {
            ("a pickled PyTorch file (or another archive), which can run code when it is read", CONVERT)
        }
        _ if start.starts_with(b"version https://git-lfs") => ("a Git LFS pointer", "fetch the file itself with `git lfs pull`"),
        _ if start.starts_with(b"GGUF") => ("a GGUF file", "name the safetensors file that it was made from"),
        _ => return Ok(()),
    };
    Err(Error::content(name, format!("expected a safetensors file, found {found}"), advice))
}
