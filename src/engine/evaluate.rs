//! Evaluation on a set of pictures: top-1 with labels, or agreement with float without, under several settings in one go.

use std::path::Path;

use candle_core::Tensor;
use rayon::prelude::*;
use schemars::JsonSchema;
use serde::Serialize;

use super::event::Progress;
use super::session::{BATCH, Session};
use crate::analysis::metrics::{argmax, kl, wilson};
use crate::error::Result;
use crate::input::{PictureSet, PictureSource};
use crate::model::forward;
use crate::model::tap::{Cancel, Identity};
use crate::quant::{BitWidth, FakeQuantize, GeluShape, GroupCount, Method, Plan, Settings, SoftmaxShape, bops, unobserved};

/// Pictures that run together.
const PART: usize = 8;

/// A table of settings against a set of pictures.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Evaluation {
    /// Version of the form.
    pub schema_version: u32,
    /// Short name of the model.
    pub model: String,
    /// What the rows have in common; bits, groups and method are those that the session was opened with.
    pub settings: Settings,
    /// What the quantizers were fitted on.
    pub calibration: String,
    /// What the pictures are.
    pub data: String,
    /// How many.
    pub images: usize,
    /// One for each setting.
    pub rows: Vec<EvaluationRow>,
    /// Wall time in seconds.
    pub seconds: f64,
}

/// One setting.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
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
}

/// The set that `igq eval` looks at: a folder, the pictures that were named, or the built-in test set.
///
/// # Errors
/// When a folder holds no pictures, or one named by no class.
pub fn data(session: &Session, folder: Option<&Path>, limit: Option<usize>) -> Result<PictureSet> {
    let model = &session.opened().model;
    let mut set = match folder {
        Some(folder) => PictureSet::labelled(folder, &model.labels, model.config.classes())?,
        None => session.opened().pictures.clone(),
    };
    set.pictures.truncate(limit.unwrap_or(usize::MAX).max(1));
    Ok(set)
}

/// Runs every one of `grid` on every picture of `set`.
///
/// # Errors
/// When a picture cannot be read or a setting does not fit.
pub fn evaluate(session: &Session, set: &PictureSet, grid: &[Settings], progress: &dyn Fn(Progress)) -> Result<Evaluation> {
    let started = std::time::Instant::now();
    let mut rows = Vec::new();
    stepwise(session, set, grid, 2 * BATCH, &Cancel::default(), &mut |seen, so_far| {
        progress(Progress { stage: format!("{} settings", grid.len()), done: seen, total: set.len() });
        rows = so_far;
    })?;
    Ok(Evaluation {
        schema_version: crate::analysis::SCHEMA_VERSION,
        model: session.opened().model.name.clone(),
        settings: session.opened().settings.clone(),
        calibration: session.calibration_report().source.clone(),
        data: set.name.clone(),
        images: set.len(),
        rows,
        seconds: started.elapsed().as_secs_f64(),
    })
}

/// The same, telling after every `stride` pictures how many were seen and what the rows are so far.
///
/// # Errors
/// As [`evaluate`], and when `cancel` was called.
pub fn stepwise(
    session: &Session,
    set: &PictureSet,
    grid: &[Settings],
    stride: usize,
    cancel: &Cancel,
    told: &mut dyn FnMut(usize, Vec<EvaluationRow>),
) -> Result<()> {
    let opened = session.opened();
    let network = opened.model.network();
    let classes = opened.model.config.classes();
    let counts_labels = has_labels(session, set);
    let plans = grid
        .iter()
        .map(|settings| if settings.method == Method::Float { Ok(None) } else { session.plan(settings).map(Some) })
        .collect::<Result<Vec<Option<Plan>>>>()?;
    let mut labels = Vec::with_capacity(set.len());
    let mut float: Vec<Vec<f32>> = Vec::with_capacity(set.len());
    let mut quantized: Vec<Vec<Vec<f32>>> = vec![Vec::new(); grid.len()];
    for chunk in set.pictures.chunks(stride.max(1)) {
        // Parts of a chunk run side by side, each setting by setting.
        let parts = chunk.par_chunks(PART).map(|part| {
            let pictures = part.iter().map(PictureSource::load).collect::<Result<Vec<_>>>()?;
            let labels = pictures.iter().map(|p| p.label.filter(|class| counts_labels && *class < classes)).collect::<Vec<_>>();
            let tensors = pictures.iter().map(|p| Ok(opened.preprocess.apply(p)?.tensor)).collect::<Result<Vec<_>>>()?;
            let batch = Tensor::cat(&tensors, 0)?;
            let float = forward(network, &batch, &mut Identity)?.to_vec2::<f32>()?;
            let under = |plan: &Option<Plan>| {
                let Some(plan) = plan else { return Ok(float.clone()) };
                Ok(forward(network, &batch, &mut FakeQuantize::new(plan, cancel, unobserved))?.to_vec2::<f32>()?)
            };
            let quantized = plans.iter().map(under).collect::<Result<Vec<_>>>()?;
            Ok((labels, float, quantized))
        });
        for (part_labels, part_float, part_quantized) in parts.collect::<Result<Vec<_>>>()? {
            labels.extend(part_labels);
            float.extend(part_float);
            quantized.iter_mut().zip(part_quantized).for_each(|(all, part)| all.extend(part));
        }
        let sites = opened.model.sites();
        let row = |(settings, logits): (&Settings, &Vec<Vec<f32>>)| row(settings, bops::total(sites, settings), &float, logits, &labels);
        told(float.len(), grid.iter().zip(&quantized).map(row).collect());
    }
    Ok(())
}

/// Built-in labels belong to the built-in classes; a folder's were matched to the model's.
fn has_labels(session: &Session, set: &PictureSet) -> bool {
    let built_in = matches!(set.pictures.first(), Some(PictureSource::FashionTest(_)));
    !built_in || session.opened().model.labels.first().is_some_and(|l| l == "T-shirt/top")
}

fn row(settings: &Settings, bops: u64, float: &[Vec<f32>], quantized: &[Vec<f32>], labels: &[Option<usize>]) -> EvaluationRow {
    let images = float.len();
    let percent = |part: usize, whole: usize| 100.0 * part as f64 / whole.max(1) as f64;
    let agree = float.iter().zip(quantized).filter(|(f, q)| argmax(f) == argmax(q)).count();
    let labelled = labels.iter().flatten().count();
    let hits = quantized.iter().zip(labels).filter(|(q, label)| **label == Some(argmax(q))).count();
    let (low, high) = if labelled > 0 { wilson(hits, labelled) } else { wilson(agree, images) };
    let is_float = settings.method == Method::Float;
    let bits = |bits: BitWidth| if is_float { BitWidth::FLOAT } else { bits };
    let counted = settings.method.uses_groups();
    let by_rows = settings.method.is_instance_aware();
    EvaluationRow {
        method: settings.method,
        wbits: bits(settings.wbits),
        abits: bits(settings.abits),
        sbits: bits(settings.sbits),
        groups: counted.then_some(settings.groups),
        row_groups: by_rows.then_some(settings.row_groups),
        softmax: settings.softmax,
        gelu: settings.gelu,
        bops,
        top1: (labelled > 0).then(|| percent(hits, labelled)),
        agreement: percent(agree, images),
        kl: float.iter().zip(quantized).map(|(f, q)| kl(f, q)).sum::<f64>() / images.max(1) as f64,
        interval: (100.0 * low, 100.0 * high),
    }
}
