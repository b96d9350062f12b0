//! What took long is kept in the user's cache folder: ranges of a calibration and perturbations, under keys made of the content of model,
//! pictures and settings. An entry that cannot be read is computed again and replaced.

use std::fs;
use std::path::{Path, PathBuf};

use candle_core::Tensor;
use etcetera::BaseStrategy;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::atomic_write::write_whole;
use crate::error::Result;
use crate::model::SiteInfo;
use crate::quant::Calibration;
use crate::quant::files::{read_calibration, write_calibration};

/// Grows when what is computed from the same content changes.
const VERSION: u32 = 1;

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

    fn path(&self, what: &str, key: &impl Serialize, ending: &str) -> PathBuf {
        let key = serde_json::to_string(key).unwrap_or_default();
        let hash = blake3::hash(format!("{} {what} {key}", self.content).as_bytes()).to_hex();
        self.folder.join(format!("{what}-{}.{ending}", &hash[..32]))
    }

    /// The ranges of the pictures, if they are there and whole.
    #[must_use]
    pub fn calibration(&self, sites: &[SiteInfo]) -> Option<Calibration> {
        let path = self.path("calibration", &(), "safetensors");
        Self::read(&path, |path| read_calibration(path, sites))
    }

    /// Keeps the ranges of the pictures.
    pub fn keep_calibration(&self, calibration: &Calibration) {
        let path = self.path("calibration", &(), "safetensors");
        self.write(&path, |path| write_calibration(path, calibration));
    }

    /// A value under a key, if it is there and whole.
    #[must_use]
    pub fn get<T: DeserializeOwned>(&self, what: &str, key: &impl Serialize) -> Option<T> {
        let parse = |path: &Path| {
            let text = fs::read(path).map_err(crate::Error::io("read", path))?;
            serde_json::from_slice(&text).map_err(|e| crate::Error::content("cache entry", e.to_string(), "it is computed again"))
        };
        Self::read(&self.path(what, key, "json"), parse)
    }

    /// Keeps a value under a key.
    pub fn keep<T: Serialize>(&self, what: &str, key: &impl Serialize, value: &T) {
        let Ok(text) = serde_json::to_vec(value) else { return };
        self.write(&self.path(what, key, "json"), |path| write_whole(path, &text));
    }

    fn read<T>(path: &Path, read: impl FnOnce(&Path) -> Result<T>) -> Option<T> {
        if !path.is_file() {
            return None;
        }
        read(path).inspect_err(|e| tracing::warn!("cache entry {} is not used: {e}", path.display())).ok()
    }

    /// A cache that cannot be written to costs time, not results.
    fn write(&self, path: &Path, write: impl FnOnce(&Path) -> Result<()>) {
        let made = fs::create_dir_all(&self.folder).map_err(crate::Error::io("make", &self.folder));
        if let Err(e) = made.and_then(|()| write(path)) {
            tracing::warn!("cache entry {} was not kept: {e}", path.display());
        }
    }
}
