//! What took long is kept in the user's cache folder: ranges of a calibration and perturbations, under keys made of the content of model,
//! pictures and settings. An entry that cannot be read is computed again and replaced.

use std::fs;
use std::path::{Path, PathBuf};

use candle_core::Tensor;
use etcetera::BaseStrategy;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::atomic_write::write_whole;
use crate::error::{Error, Result};
use crate::model::SiteInfo;
use crate::quant::Calibration;
use crate::quant::files::{calibration_bytes, read_calibration};
use crate::read;

/// Grows when what is computed from the same content changes.
const VERSION: u32 = 4;
/// What becomes of a damaged entry.
const AGAIN: &str = "it is computed again";

/// The folder that igq keeps entries in; none where the system has no place for it.
#[must_use]
pub fn user_folder() -> Option<PathBuf> {
    etcetera::choose_base_strategy().ok().map(|base| base.cache_dir().join("igq"))
}

/// Entries that belong to one model and one set of calibration pictures.
#[derive(Debug, Clone)]
pub struct Store {
    folder: PathBuf,
    content: String,
}

impl Store {
    /// A store in `folder` for the model of `digest` and the pictures as the model takes them.
    ///
    /// # Errors
    /// Only when candle fails.
    pub fn new(folder: &Path, digest: &str, pictures: &[Tensor]) -> Result<Self> {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&VERSION.to_le_bytes()).update(digest.as_bytes());
        for picture in pictures {
            for value in picture.flatten_all()?.to_vec1::<f32>()? {
                hasher.update(&value.to_le_bytes());
            }
        }
        Ok(Self { folder: folder.into(), content: hasher.finalize().to_hex().to_string() })
    }

    fn path(&self, what: &str, key: &impl Serialize) -> PathBuf {
        let key = serde_json::to_string(key).unwrap_or_default();
        let hash = blake3::hash(format!("{} {what} {key}", self.content).as_bytes()).to_hex();
        self.folder.join(format!("{what}-{}.entry", &hash[..32]))
    }

    /// The ranges of the pictures, if they are there and whole.
    #[must_use]
    pub fn calibration(&self, sites: &[SiteInfo]) -> Option<Calibration> {
        self.read("calibration", &(), |name, bytes| read_calibration(name, bytes, sites))
    }

    /// Keeps the ranges of the pictures.
    pub fn keep_calibration(&self, calibration: &Calibration) {
        self.write("calibration", &(), calibration_bytes(calibration));
    }

    /// A value under a key, if it is there and whole.
    #[must_use]
    pub fn get<T: DeserializeOwned>(&self, what: &str, key: &impl Serialize) -> Option<T> {
        self.read(what, key, |name, bytes| serde_json::from_slice(bytes).map_err(|e| Error::content(name, e.to_string(), AGAIN)))
    }

    /// Keeps a value under a key.
    pub fn keep<T: Serialize>(&self, what: &str, key: &impl Serialize, value: &T) {
        self.write(what, key, serde_json::to_vec(value).map_err(|e| Error::Output { what: "cache entry", problem: e.to_string() }));
    }

    /// An entry: the digest of its content, then the content. One that does not match is damaged.
    fn read<T>(&self, what: &str, key: &impl Serialize, parse: impl FnOnce(String, &[u8]) -> Result<T>) -> Option<T> {
        let path = self.path(what, key);
        if !path.is_file() {
            return None;
        }
        let name = path.display().to_string();
        let whole = || {
            let bytes = read::bytes(&path, read::QUANTIZERS)?;
            let (digest, content) = bytes.split_at_checked(blake3::OUT_LEN).unwrap_or_default();
            if blake3::hash(content).as_bytes() != digest {
                return Err(Error::content(&name, "the content does not match its digest", AGAIN));
            }
            parse(name.clone(), content)
        };
        whole().inspect_err(|e| tracing::warn!("cache entry is not used: {e}")).ok()
    }

    /// A cache that cannot be written to costs time, not results.
    fn write(&self, what: &str, key: &impl Serialize, content: Result<Vec<u8>>) {
        let path = self.path(what, key);
        let written = content.and_then(|content| {
            fs::create_dir_all(&self.folder).map_err(Error::io("make", &self.folder))?;
            write_whole(&path, &[blake3::hash(&content).as_bytes().as_slice(), &content].concat())
        });
        if let Err(e) = written {
            tracing::warn!("cache entry {} was not kept: {e}", path.display());
        }
    }
}
