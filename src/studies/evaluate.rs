//! Evaluation on a set of pictures: top-1 with labels, or agreement with float without, under several settings in one go.

use std::path::Path;

use rayon::prelude::*;
use schemars::JsonSchema;
use serde::Serialize;

use crate::analysis::metrics::wilson;
use crate::analysis::{Divergence, Prediction};
use crate::error::{Error, Result};
use crate::input::batches::{self, BATCH, Batch};
use crate::input::{LeftOut, Picture, PictureSet};
use crate::progress::Cancel;
use crate::progress::Progress;
use crate::quant::{Arithmetic, BitWidth, GeluShape, GroupCount, Method, Plan, Settings, SoftmaxShape, Start, bops, run};
use crate::session::Session;

/// A table of settings against a set of pictures.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Evaluation {
    /// Version of the form.
    pub schema_version: u32,
    /// Short name of the model.
    pub model: String,
    /// What the rows have in common; bits, groups and method are those that the session was opened with.
    pub settings: Settings,
    /// What was inferred or assumed about the model.
    pub notes: Vec<String>,
    /// What the quantizers were fitted on.
    pub calibration: String,
    /// What the pictures are.
    pub data: String,
    /// How many were looked at.
    pub images: usize,
    /// Files that did not count, and why.
    pub left_out: Vec<LeftOut>,
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
    /// What products were computed in.
    #[serde(skip_serializing_if = "Arithmetic::is_default")]
    pub arithmetic: Arithmetic,
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
    if limit == Some(0) {
        return Err(Error::setting("--limit", 0, "at least one picture"));
    }
    set.pictures.truncate(limit.unwrap_or(usize::MAX));
    Ok(set)
}

/// Runs every one of `grid` on every picture of `set`.
///
/// # Errors
/// When a picture cannot be read or a setting does not fit.
pub fn evaluate(session: &Session, set: &PictureSet, grid: &[Settings], progress: &dyn Fn(Progress)) -> Result<Evaluation> {
    let started = std::time::Instant::now();
    let mut rows = Vec::new();
    let skipped = stepwise(session, set, grid, 4 * BATCH, &Cancel::default(), &mut |seen, so_far| {
        progress(Progress { stage: format!("{} settings", grid.len()), done: seen, total: set.len() });
        rows = so_far;
    })?;
    let mut left_out = set.left_out.clone();
    for why in &skipped {
        LeftOut::count(&mut left_out, "damaged", why.clone());
    }
    Ok(Evaluation {
        schema_version: crate::analysis::SCHEMA_VERSION,
        model: session.opened().model.name.clone(),
        settings: session.opened().settings.clone(),
        notes: session.opened().model.notes.clone(),
        calibration: session.calibration_report().source.clone(),
        data: set.name.clone(),
        images: set.len() - skipped.len(),
        left_out,
        rows,
        seconds: started.elapsed().as_secs_f64(),
    })
}

/// The same, telling after every `stride` pictures how many were seen and what the rows are so far. Returns why pictures were left out.
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
) -> Result<Vec<String>> {
    let opened = session.opened();
    let network = opened.model.network();
    let plans = grid
        .iter()
        .map(|settings| if settings.method == Method::Float { Ok(None) } else { session.plan(settings).map(Some) })
        .collect::<Result<Vec<Option<Plan>>>>()?;
    let float_plan = Plan::float(opened.model.sites());
    let mut tallies = vec![Tally::default(); grid.len()];
    let mut skipped = Vec::new();
    let mut seen = 0;
    for chunk in set.pictures.chunks(stride.max(1)) {
        // Parts of a chunk run side by side, each setting by setting.
        let parts = chunk.par_chunks(BATCH).map(|part| {
            let (batch, kept, errors) = batches::load_readable(part, &opened.preprocess)?;
            let (damaged, mut errors) = (errors.iter().map(ToString::to_string).collect::<Vec<_>>(), errors);
            if set.strict && !errors.is_empty() {
                return Err(errors.swap_remove(0));
            }
            let Some(Batch { pictures, tensor }) = batch else { return Ok((vec![Tally::default(); grid.len()], damaged)) };
            let label = |(index, picture): (&usize, &Picture)| picture.label.filter(|class| session.is_label(&part[*index], *class));
            let labels: Vec<Option<usize>> = kept.iter().zip(&pictures).map(label).collect();
            let under = |plan: &Plan| Prediction::of(&run(network, Start::pixels(&tensor), plan, cancel)?);
            let float = under(&float_plan)?;
            let tally = |plan: &Option<Plan>| match plan {
                Some(plan) => Ok(Tally::of(&float, &under(plan)?, &labels)),
                None => Ok(Tally::of(&float, &float, &labels)),
            };
            Ok((plans.iter().map(tally).collect::<Result<Vec<_>>>()?, damaged))
        });
        for (part, damaged) in parts.collect::<Result<Vec<_>>>()? {
            tallies.iter_mut().zip(part).for_each(|(all, part)| all.add(part));
            skipped.extend(damaged);
        }
        seen += chunk.len();
        told(
            seen,
            grid.iter().zip(&tallies).map(|(settings, tally)| tally.row(settings, bops::total(opened.model.sites(), settings))).collect(),
        );
    }
    match skipped.first() {
        Some(first) if skipped.len() == set.len() => {
            Err(Error::content(&set.name, format!("no picture of {} could be read ({first})", set.len()), "name another folder"))
        }
        _ => Ok(skipped),
    }
}

/// What is counted of one setting over pictures.
#[derive(Debug, Clone, Copy, Default)]
struct Tally {
    /// Sums over the pictures.
    sum: Divergence,
    labelled: usize,
    hits: usize,
}

impl Tally {
    /// Of some pictures: what float and quantized runs say, and their classes where these are known.
    fn of(float: &[Prediction], quantized: &[Prediction], labels: &[Option<usize>]) -> Self {
        let mut sum = Divergence::default();
        float.iter().zip(quantized).for_each(|(float, quantized)| sum.add(quantized.against(float)));
        let hits = quantized.iter().zip(labels).filter(|(q, label)| **label == Some(q.class())).count();
        Self { sum, labelled: labels.iter().flatten().count(), hits }
    }

    fn add(&mut self, more: Self) {
        self.sum.kl += more.sum.kl;
        self.sum.changed += more.sum.changed;
        self.sum.of += more.sum.of;
        self.labelled += more.labelled;
        self.hits += more.hits;
    }

    fn row(&self, settings: &Settings, bops: u64) -> EvaluationRow {
        let Self { sum, labelled, hits } = *self;
        let (images, agree) = (sum.of, sum.of - sum.changed);
        let percent = |part: usize, whole: usize| 100.0 * part as f64 / whole.max(1) as f64;
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
            arithmetic: settings.arithmetic,
            bops,
            top1: (labelled > 0).then(|| percent(hits, labelled)),
            agreement: percent(agree, images),
            kl: sum.kl / images.max(1) as f64,
            interval: (100.0 * low, 100.0 * high),
        }
    }
}
