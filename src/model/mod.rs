//! Step 2 of the data flow: from a checkpoint to activations at sites.

pub mod block;
pub mod checkpoint;
pub mod conv;
pub mod detection;
pub mod detr;
pub mod eomt;
pub mod extents;
pub mod graph;
pub mod kernels;
pub mod layer;
pub mod neighbourhood;
pub mod network;
pub mod ops;
pub mod output;
pub mod patch_embed;
pub mod positions;
pub mod rcnn;
pub mod regions;
pub mod rf_detr;
pub mod site;
pub mod site_kind;
pub mod stream;
pub mod swin;
pub mod tap;
pub mod tokens;
pub mod vit;
pub mod vit_sites;

use std::path::Path;

use serde_json::Value;

pub use checkpoint::config::{Config, DetrConfig, EomtConfig, Pool, RcnnConfig, RfDetrConfig, SwinConfig, SwinStage, VitConfig};
pub use checkpoint::weights::Weights;
pub use checkpoint::{BUILT_IN, Checkpoint, is_hub_id};
pub use kernels::Weight;
pub use network::{Network, Product, RightOperand, SiteInfo, Trace, forward, forward_from, trace, trace_from};
pub use output::{Output, Scoring};
pub use site::{Part, Site, SiteKind, SitePattern};
pub use stream::Stream;
pub use tap::{Identity, Recorder, Tap};
pub use tokens::{TokenLayout, Windows};

use checkpoint::{labels, names, names_detr, names_rcnn, names_rf_detr};

use crate::error::{Error, Result};
use crate::memory;
use crate::progress::Progress;

/// A network ready to run, with what is known about its checkpoint.
pub struct Model {
    /// Short name for people.
    pub name: String,
    /// Where the checkpoint came from.
    pub source: String,
    /// Sizes and variants.
    pub config: Config,
    /// What was inferred, line by line.
    pub notes: Vec<String>,
    /// Values that the network uses.
    pub parameters: usize,
    /// Digest of the configuration and of all weights that the network uses.
    pub digest: String,
    /// Class names, if the checkpoint has them.
    pub labels: Vec<String>,
    /// Why its outputs are not the logits of classes that exclude one another, if they are not.
    pub not_classes: Option<String>,
    /// `config.json`, for the preprocessing.
    pub raw_config: Option<Value>,
    /// `preprocessor_config.json`, for the preprocessing.
    pub raw_preprocessor: Option<Value>,
    network: Box<dyn Network>,
    sites: Vec<SiteInfo>,
}

/// First parts of the names of tensors that are not used and change nothing: other tasks, and what training keeps.
const HARMLESS_STARTS: [&str; 8] =
    ["pooler", "criterion", "decoder", "optimizer", "optimizer_state", "optimizer_states", "optim", "rng_state"];

/// Parts of such names anywhere: masks and indices computed from sizes, training's counters. Any other tensor that is not used would
/// change the logits, and is refused by name.
const HARMLESS_PARTS: [&str; 6] =
    ["mask_token", "attn_mask", "relative_position_index", "relative_coords_table", "num_batches_tracked", "position_ids"];

/// Whether a tensor of this name changes nothing.
fn is_harmless(key: &str) -> bool {
    HARMLESS_STARTS.contains(&key.split('.').next().unwrap_or_default()) || key.split('.').any(|part| HARMLESS_PARTS.contains(&part))
}

/// The smallest side of an input of a detector that takes any.
const SMALLEST: usize = 16;

const ASSUMED_NAMES: &str = "1000 classes without names: those of ImageNet-1k are assumed (--labels FILE gives others)";

const ASSUMED_COCO: &str = "80 classes without names: those of COCO in their order are assumed (--labels FILE gives others)";

impl Model {
    /// Builds the network of a checkpoint.
    ///
    /// # Errors
    /// When it is not a vision transformer that igq knows, or a tensor is missing or wrong.
    pub fn from_checkpoint(checkpoint: Checkpoint) -> Result<Self> {
        Self::within(checkpoint, None)
    }

    /// The same where a run may take `max_memory` bytes instead of half of what is free.
    fn within(checkpoint: Checkpoint, max_memory: Option<u64>) -> Result<Self> {
        let to_own = if names_rf_detr::is_one(&checkpoint.weights) {
            names_rf_detr::to_own
        } else if names_detr::is_one(&checkpoint.weights) {
            names_detr::to_own
        } else if names_rcnn::is_one(&checkpoint.weights) {
            names_rcnn::to_own
        } else {
            names::to_timm
        };
        let (weights, layout, left_out) = to_own(checkpoint.weights)?;
        let checkpoint = Checkpoint { weights, ..checkpoint };
        let (config, mut notes) = Config::infer(&checkpoint, layout)?;
        notes.extend(left_out);
        notes.extend(checkpoint.note.clone());
        // A detector takes inputs of many sizes: what a run of one takes is looked at when that is known.
        if config.takes_any_size() {
            // What no size makes small: tables of windows.
            let mut smallest = config.clone();
            smallest.resize((SMALLEST, SMALLEST));
            memory::check(&checkpoint.name, smallest.run_bytes(), max_memory)?;
        } else {
            memory::check(&checkpoint.name, config.run_bytes(), max_memory)?;
        }
        let network: Box<dyn Network> = match &config {
            Config::Vit(vit) => Box::new(vit::Vit::new(vit.clone(), &checkpoint.weights)?),
            Config::Swin(swin) => Box::new(swin::Swin::new(swin.clone(), &checkpoint.weights)?),
            Config::Detr(detr) => Box::new(detr::Detr::new((**detr).clone(), &checkpoint.weights)?),
            Config::Eomt(eomt) => Box::new(eomt::Eomt::new((**eomt).clone(), &checkpoint.weights)?),
            Config::Rcnn(rcnn) => Box::new(rcnn::Rcnn::new((**rcnn).clone(), &checkpoint.weights)?),
            Config::RfDetr(detr) => Box::new(rf_detr::RfDetr::new((**detr).clone(), &checkpoint.weights)?),
        };
        let sites = network.sites();
        let unused = checkpoint.weights.unused();
        if let Some(key) = unused.iter().find(|key| !is_harmless(key)) {
            let found = "a part that this igq does not know, without which the logits would be wrong";
            return Err(checkpoint.weights.wrong(key, "a ViT or Swin Transformer".into(), found.into()));
        }
        if !unused.is_empty() {
            let some = unused.iter().take(3).map(String::as_str).collect::<Vec<_>>().join(", ");
            notes.push(format!("{} tensor(s) of the file are not used: {some}", unused.len()));
        }
        let (named, stale) = labels::of_config(checkpoint.config.as_ref(), config.classes());
        notes.extend(stale);
        let labels = named.or_else(|| {
            if let Config::Rcnn(_) = config {
                let assumed = labels::of_coco(config.classes())?;
                notes.push(ASSUMED_COCO.into());
                return Some(assumed);
            }
            let assumed = labels::of_imagenet(config.in_chans(), config.classes())?;
            notes.push(ASSUMED_NAMES.into());
            Some(assumed)
        });
        let problem = checkpoint.config.as_ref().and_then(|c| c.get("problem_type")).and_then(Value::as_str);
        let not_classes = match problem {
            Some(problem @ ("regression" | "multi_label_classification")) => Some(format!("config.json says problem_type `{problem}`")),
            _ if config.queries().is_none() && config.classes() == 1 => Some("its head has one output".to_string()),
            _ => None,
        };
        Ok(Self {
            not_classes,
            labels: labels.unwrap_or_default(),
            digest: blake3::hash(format!("{config:?} {}", checkpoint.weights.digest()).as_bytes()).to_hex().to_string(),
            parameters: checkpoint.weights.parameters_used(),
            name: checkpoint.name,
            source: checkpoint.source,
            raw_config: checkpoint.config,
            raw_preprocessor: checkpoint.preprocessor,
            config,
            notes,
            network,
            sites,
        })
    }

    /// Opens and builds what `--model` names.
    ///
    /// # Errors
    /// As [`Checkpoint::open`] and [`Self::from_checkpoint`].
    pub fn open(model: &str) -> Result<Self> {
        Self::fetched(model, false, None, &|_| ())
    }

    /// The same, never from the network if `offline`, and with a word on what has come from it.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn fetched(model: &str, offline: bool, max_memory: Option<u64>, progress: &dyn Fn(Progress)) -> Result<Self> {
        Self::within(Checkpoint::open(model, offline, progress)?, max_memory)
    }

    /// Takes another input size, in rows and columns of pixels, where the network can; whether it does.
    ///
    /// # Errors
    /// When patches do not fill it, or a run would take more than `max_memory` bytes (by default half of what is free).
    pub fn resize(&mut self, size: (usize, usize), max_memory: Option<u64>) -> Result<bool> {
        let mut config = self.config.clone();
        config.resize(size);
        memory::check(&format!("{} at {}x{}", self.name, size.1, size.0), config.run_bytes(), max_memory)?;
        if !self.network.resize(size)? {
            return Ok(false);
        }
        (self.config, self.sites) = (config, self.network.sites());
        self.digest = blake3::hash(format!("{} {}x{}", self.digest, size.0, size.1).as_bytes()).to_hex().to_string();
        Ok(true)
    }

    /// Takes the names of the classes from a file, one a line, instead of those that are known.
    ///
    /// # Errors
    /// When the file cannot be read, or does not have a line for every class.
    pub fn name_classes(&mut self, path: &Path) -> Result<()> {
        self.labels = labels::of_file(path, self.config.classes())?;
        self.notes.retain(|note| note != ASSUMED_NAMES && note != ASSUMED_COCO);
        Ok(())
    }

    /// Smooths the inputs of the layers that stand behind a norm; see [`Network::smooth`].
    ///
    /// # Errors
    /// When no layer of the network stands behind a norm that can absorb factors.
    pub fn smooth(&mut self, of: &ops::Factors<'_>) -> Result<()> {
        let mut hasher = blake3::Hasher::new();
        hasher.update(self.digest.as_bytes()).update(b"smooth");
        let layers = self.network.smooth(of)?;
        if layers == 0 {
            let expected = "a network with norms before its layers: here they stand behind them and cannot absorb factors";
            return Err(Error::setting("--smooth", &self.name, expected));
        }
        self.digest = hasher.finalize().to_hex().to_string();
        self.notes.push(format!(
            "the inputs of {layers} layers are smoothed (--smooth): the norms before them and their weights absorb the factors"
        ));
        Ok(())
    }

    /// The network.
    #[must_use]
    pub fn network(&self) -> &dyn Network {
        self.network.as_ref()
    }

    /// All sites, in the order of the forward pass.
    #[must_use]
    pub fn sites(&self) -> &[SiteInfo] {
        &self.sites
    }

    /// What is known about `site`.
    #[must_use]
    pub fn site(&self, site: Site) -> Option<&SiteInfo> {
        self.sites.iter().find(|info| info.site == site)
    }

    /// One line: `ViT, 6 blocks, width 128, 4 heads, 28x28x1 in patches of 4x4, 10 classes`.
    #[must_use]
    pub fn describe(&self) -> String {
        self.config.describe()
    }
}
