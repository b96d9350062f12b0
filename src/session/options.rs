//! What a session is made of, as resolved from the command line.

use std::path::PathBuf;

use crate::model::BUILT_IN;
use crate::quant::Settings;

/// What a session is made of, as resolved from the command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Built-in name, file, folder or id on the Hub.
    pub model: String,
    /// Never use the network.
    pub offline: bool,
    /// Bytes that a run may take; `None` for half of what is free.
    pub max_memory: Option<u64>,
    /// Rows and columns of the input of a detector; `None` for what its rule makes of the first picture.
    pub input_size: Option<(usize, usize)>,
    /// Class names, one a line; `None` for those of the checkpoint.
    pub labels: Option<PathBuf>,
    /// Pictures, folders of pictures, patterns, `-` for standard input; empty for the built-in ones.
    pub images: Vec<PathBuf>,
    /// Whether the pictures are put in an order by the seed of the settings.
    pub shuffle: bool,
    /// Folder of calibration pictures; `None` for the built-in ones.
    pub calibration: Option<PathBuf>,
    /// Most calibration pictures to take.
    pub calibration_images: usize,
    /// Fitted quantizers to use instead of a calibration.
    pub quantizers: Option<PathBuf>,
    /// The first settings.
    pub settings: Settings,
    /// Folder of the cache; `None` for none.
    pub cache: Option<PathBuf>,
}

impl Options {
    /// The flags that differ from the defaults, without those of the settings.
    #[must_use]
    pub fn flags(&self) -> Vec<(&'static str, String)> {
        let usual = Self::default();
        let path = |path: &PathBuf| path.display().to_string();
        let mut flags = Vec::new();
        if self.model != usual.model {
            flags.push(("--model", self.model.clone()));
        }
        flags.extend(self.offline.then(|| ("--offline", String::new())));
        flags.extend(self.input_size.map(|(rows, columns)| ("--input-size", format!("{columns}x{rows}"))));
        flags.extend(self.labels.iter().map(|labels| ("--labels", path(labels))));
        flags.extend(self.images.iter().map(|image| ("--image", path(image))));
        flags.extend(self.shuffle.then(|| ("--shuffle", String::new())));
        flags.extend(self.calibration.iter().map(|folder| ("--calibration", path(folder))));
        if self.calibration_images != usual.calibration_images {
            flags.push(("--calibration-images", self.calibration_images.to_string()));
        }
        flags.extend(self.quantizers.iter().map(|file| ("--quantizers", path(file))));
        flags
    }
}

impl Default for Options {
    fn default() -> Self {
        Self {
            model: BUILT_IN.into(),
            offline: false,
            max_memory: None,
            input_size: None,
            labels: None,
            images: Vec::new(),
            shuffle: false,
            calibration: None,
            calibration_images: 32,
            quantizers: None,
            settings: Settings::default(),
            cache: None,
        }
    }
}
