//! What a checkpoint is, without running it: what was inferred, how pictures are prepared, sizes, sites, and what a picture costs.

use schemars::JsonSchema;
use serde::Serialize;

use crate::error::Result;
use crate::input::Preprocess;
use crate::model::{Config, Model, Site, SiteInfo};
use crate::quant::{Method, Settings, bops};
use crate::session::loaded::{CALIBRATION_ADVICE, preprocessing};

/// What is known about a model.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Inspection {
    /// Short name.
    pub name: String,
    /// Where the checkpoint came from.
    pub source: String,
    /// One line: `ViT, 6 blocks, width 128, ...`.
    pub description: String,
    /// Sizes and variants.
    pub config: Config,
    /// What was inferred, assumed or left aside.
    pub notes: Vec<String>,
    /// From picture to input.
    pub preprocessing: Preprocess,
    /// Class names that are known; none or one for every class.
    pub labels: usize,
    /// Values that the network uses.
    pub parameters: usize,
    /// Bytes of the weights as they are held, in float32.
    pub weight_bytes: u64,
    /// Bytes of the weights if those of the layers had 4 bits and the rest 32; scales not counted.
    pub weight_bytes_4_bits: u64,
    /// Bit operations of one picture in float.
    pub bops_float: u64,
    /// Bit operations of one picture at W4/A4 with 8 groups, grouping included.
    pub bops_4_bits_8_groups: u64,
    /// Every operand that can be quantized.
    pub sites: Vec<InspectedSite>,
}

/// One operand.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct InspectedSite {
    /// Its address.
    pub site: Site,
    /// Tokens of one picture.
    pub tokens: usize,
    /// What is grouped: channels, or rows of the softmax.
    pub channels: usize,
    /// Name of the layer behind it in the checkpoint; none for operands of matrix products.
    pub layer: Option<String>,
    /// Output channels of that layer.
    pub outputs: Option<usize>,
}

/// Puts together what is known about `model`.
///
/// # Errors
/// When its preprocessing configuration is unusable.
pub fn inspect(model: &Model) -> Result<Inspection> {
    let sites = model.sites();
    let of_layers: usize = sites.iter().filter_map(|info| Some(model.network().weight(info.site)?.tensor().ok()?.elem_count())).sum();
    let float = Settings { method: Method::Float, ..Settings::default() };
    let site = |info: &SiteInfo| InspectedSite {
        site: info.site,
        tokens: info.tokens,
        channels: info.channels,
        layer: info.layer.as_ref().map(|layer| layer.name.clone()),
        outputs: info.layer.as_ref().map(|layer| layer.outputs),
    };
    let mut notes = model.notes.clone();
    if model.config.in_chans() == 3 {
        notes.push(CALIBRATION_ADVICE.into());
    }
    Ok(Inspection {
        name: model.name.clone(),
        source: model.source.clone(),
        description: model.describe(),
        config: model.config.clone(),
        notes,
        preprocessing: preprocessing(model)?,
        labels: model.labels.len(),
        parameters: model.parameters,
        weight_bytes: 4 * model.parameters as u64,
        weight_bytes_4_bits: 4 * model.parameters.saturating_sub(of_layers) as u64 + of_layers as u64 / 2,
        bops_float: bops::total(sites, &float),
        bops_4_bits_8_groups: bops::total(sites, &Settings::default()),
        sites: sites.iter().map(site).collect(),
    })
}
