//! One picture under one setting, and what is counted of a setting over pictures.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::analysis::Prediction;
use crate::analysis::metrics::wilson;
use crate::model::SiteInfo;
use crate::quant::format::Format;
use crate::quant::{Arithmetic, BitWidth, GeluShape, GroupCount, Method, Rounding, Settings, SoftmaxShape, WeightScales, bops};

/// One picture under every setting, or why it could not be read.
pub type Looked = std::result::Result<Vec<Seen>, String>;

/// One picture under one setting.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Seen {
    /// `KL(p_float || p_quantized)` in nats.
    pub kl: f64,
    /// Whether the most likely class is another than that of the float run.
    pub changed: bool,
    /// Whether the most likely class is the true one; none without a label.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hit: Option<bool>,
}

impl Seen {
    /// `quantized` beside `float`, and the true class where there is one.
    #[must_use]
    pub fn of(float: &Prediction, quantized: &Prediction, label: Option<usize>) -> Self {
        let divergence = quantized.against(float);
        Self { kl: divergence.kl, changed: divergence.changed > 0, hit: label.map(|label| label == quantized.class()) }
    }
}

/// One setting.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct EvaluationRow {
    /// How values share quantizers.
    pub method: Method,
    /// Bits of weights; 32 is float.
    pub wbits: BitWidth,
    /// Bits of activations.
    pub abits: BitWidth,
    /// Bits of the softmax.
    pub sbits: BitWidth,
    /// Group count of channels; none where the method has no use for it.
    pub groups: Option<GroupCount>,
    /// Group count of softmax rows; none where the method has no use for it.
    pub row_groups: Option<GroupCount>,
    /// How the softmax is quantized.
    pub softmax: SoftmaxShape,
    /// How the values after GELU are quantized.
    pub gelu: GeluShape,
    /// What products were computed in.
    #[serde(default, skip_serializing_if = "Arithmetic::is_default")]
    pub arithmetic: Arithmetic,
    /// How weights became codes.
    #[serde(default)]
    pub weights: Rounding,
    /// What of a weight shares a scale.
    #[serde(default)]
    pub weight_scales: WeightScales,
    /// Mean bits for each value, codes and scales, of weights and of activations; 32 for float.
    #[serde(default)]
    pub effective_bits: (f64, f64),
    /// Bit operations of the whole network for one picture.
    pub bops: u64,
    /// Percent of pictures whose most likely class is the true one; none without labels.
    pub top1: Option<f64>,
    /// Percent of pictures whose most likely class is that of the float run.
    pub agreement: f64,
    /// Mean of `KL(p_float || p_quantized)` in nats.
    pub kl: f64,
    /// Wilson's 95 % interval in percent, of `top1`, or of `agreement` without labels.
    pub interval: (f64, f64),
    /// Standard deviation of the KL over draws of slightly shifted quantizers; none for a single draw.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jitter: Option<f64>,
    /// How much the KL lies above that of the row with the least, picture by picture, with its bootstrap 95 % interval: mean, low, high. None
    /// for that row itself, and where not all pictures were kept. Jitter of the calibration is not in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub behind_best: Option<(f64, f64, f64)>,
}

/// What is counted of one setting over pictures.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Tally {
    /// Sum of the KL.
    kl: f64,
    changed: usize,
    images: usize,
    labelled: usize,
    hits: usize,
}

impl Tally {
    /// Counts one more picture.
    pub fn add(&mut self, seen: Seen) {
        self.kl += seen.kl;
        self.changed += usize::from(seen.changed);
        self.images += 1;
        self.labelled += usize::from(seen.hit.is_some());
        self.hits += usize::from(seen.hit == Some(true));
    }

    /// Writes what was counted over `draws` of the same pictures into a row.
    pub fn write(draws: &[Self], row: &mut EvaluationRow) {
        let Self { images, labelled, .. } = draws.first().copied().unwrap_or_default();
        let mean = |count: fn(&Self) -> usize| draws.iter().map(count).sum::<usize>() as f64 / draws.len().max(1) as f64;
        let (hits, agree) = (mean(|draw| draw.hits), mean(|draw| draw.images - draw.changed));
        let percent = |part: f64, whole: usize| 100.0 * part / whole.max(1) as f64;
        let (low, high) = if labelled > 0 { wilson(hits.round() as usize, labelled) } else { wilson(agree.round() as usize, images) };
        let kls: Vec<f64> = draws.iter().map(|draw| draw.kl / images.max(1) as f64).collect();
        row.top1 = (labelled > 0).then(|| percent(hits, labelled));
        row.agreement = percent(agree, images);
        row.kl = kls.iter().sum::<f64>() / kls.len().max(1) as f64;
        let squares = kls.iter().map(|kl| (kl - row.kl).powi(2)).sum::<f64>();
        row.jitter = (kls.len() > 1).then(|| (squares / (kls.len() - 1) as f64).sqrt());
        row.interval = (100.0 * low, 100.0 * high);
    }

    /// A row of `settings` from what was counted over `draws` of the same pictures.
    pub fn row(draws: &[Self], settings: &Settings, sites: &[SiteInfo]) -> EvaluationRow {
        let is_float = settings.method == Method::Float;
        let bits = |bits: BitWidth| if is_float { BitWidth::FLOAT } else { bits };
        let of_format = |own: Option<BitWidth>, bits: BitWidth| own.filter(|_| !bits.is_float()).unwrap_or(bits);
        let activations = settings.method.spec().format.and_then(Format::bits);
        let counted = settings.method.uses_groups();
        let by_rows = settings.method.is_instance_aware();
        let mut row = EvaluationRow {
            method: settings.method,
            wbits: bits(of_format(settings.weight_scales.format().bits(), settings.wbits)),
            abits: bits(of_format(activations, settings.abits)),
            sbits: bits(of_format(activations, settings.sbits)),
            groups: counted.then_some(settings.groups),
            row_groups: by_rows.then_some(settings.row_groups),
            softmax: settings.softmax,
            gelu: settings.gelu,
            arithmetic: settings.arithmetic,
            weights: settings.weights,
            weight_scales: settings.weight_scales,
            effective_bits: bops::mean_effective_bits(sites, settings),
            bops: bops::total(sites, settings),
            top1: None,
            agreement: 0.0,
            kl: 0.0,
            interval: (0.0, 0.0),
            jitter: None,
            behind_best: None,
        };
        Self::write(draws, &mut row);
        row
    }
}
