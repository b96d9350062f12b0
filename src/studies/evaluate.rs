//! Evaluation on a set of pictures: top-1 with labels, or agreement with float without, under several settings in one go.

use std::path::Path;

use rayon::prelude::*;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::analysis::Prediction;
use crate::analysis::metrics::{bootstrap_mean, wilson};
use crate::error::{Error, Result};
use crate::input::batches::{self, BATCH, Batch};
use crate::input::{LeftOut, PictureSet};
use crate::model::SiteInfo;
use crate::progress::Cancel;
use crate::progress::Progress;
use crate::quant::format::Format;
use crate::quant::{
    Arithmetic, BitWidth, GeluShape, GroupCount, Method, Plan, Rounding, Settings, SoftmaxShape, Start, WeightScales, bops, run,
};
use crate::session::Session;
use crate::studies::shard::{Shard, interleave};

/// A table of settings against a set of pictures.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
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
    /// Whether it was interrupted: not all pictures were looked at.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub partial: bool,
    /// What a part of the set was looked at for; none for the whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub part: Option<EvaluatedPart>,
}

/// A part of a set, picture by picture, for `igq merge`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct EvaluatedPart {
    /// Which part.
    pub shard: Shard,
    /// Pictures of the whole set.
    pub total: usize,
    /// For each picture of the part, in order, one entry for each row; the reason where it could not be read.
    pub pictures: Vec<Looked>,
}

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
    /// How much the KL lies above that of the row with the least, picture by picture, with its bootstrap 95 % interval: mean, low, high. None
    /// for that row itself, and where not all pictures were kept. Jitter of the calibration is not in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub behind_best: Option<(f64, f64, f64)>,
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

/// Runs every one of `grid` on every picture of `set`, or on a part of it; when `cancel` was called after the first pictures, on those.
///
/// # Errors
/// When a picture cannot be read or a setting does not fit.
pub fn evaluate(
    session: &Session,
    set: &PictureSet,
    grid: &[Settings],
    shard: Option<Shard>,
    cancel: &Cancel,
    progress: &dyn Fn(Progress),
) -> Result<Evaluation> {
    let started = std::time::Instant::now();
    let mut part = set.clone();
    if let Some(shard) = shard {
        part.pictures = (0..).zip(&set.pictures).filter(|(index, _)| shard.takes(*index)).map(|(_, picture)| picture.clone()).collect();
    }
    let mut rows = Vec::new();
    let mut pictures = Vec::new();
    let ended = stepwise(session, &part, grid, 4 * BATCH, &mut pictures, cancel, &mut |seen, so_far| {
        progress(Progress { stage: format!("{} settings", grid.len()), done: seen, total: part.len() });
        rows = so_far;
    });
    let partial = matches!(ended, Err(Error::Cancelled)) && !rows.is_empty();
    if !partial {
        ended?;
    }
    beside_the_best(&mut rows, &pictures);
    let (left_out, images) = counted(&set.left_out, &pictures);
    Ok(Evaluation {
        schema_version: crate::analysis::SCHEMA_VERSION,
        model: session.opened().model.name.clone(),
        settings: session.opened().settings.clone(),
        notes: session.opened().model.notes.clone(),
        calibration: session.calibration_report().source.clone(),
        data: set.name.clone(),
        images,
        // What a part says of damaged pictures stands at the pictures.
        left_out: if shard.is_some() { set.left_out.clone() } else { left_out },
        rows,
        seconds: started.elapsed().as_secs_f64(),
        partial,
        part: shard.filter(|_| !partial).map(|shard| EvaluatedPart { shard, total: set.len(), pictures }),
    })
}

/// Compares every quantized row with the one of least KL, picture by picture.
pub fn beside_the_best(rows: &mut [EvaluationRow], pictures: &[Looked]) {
    let quantized = rows.iter().enumerate().filter(|(_, row)| row.method != Method::Float);
    let Some(best) = quantized.min_by(|a, b| a.1.kl.total_cmp(&b.1.kl)).map(|(index, _)| index) else { return };
    for (index, row) in rows.iter_mut().enumerate().filter(|(index, row)| *index != best && row.method != Method::Float) {
        let difference = |seen: &Vec<Seen>| Some(seen.get(index)?.kl - seen.get(best)?.kl);
        let differences: Vec<f64> = pictures.iter().flatten().filter_map(difference).collect();
        row.behind_best = bootstrap_mean(&differences);
    }
}

/// What was left out before and among the pictures, and how many pictures were looked at.
fn counted(before: &[LeftOut], pictures: &[Looked]) -> (Vec<LeftOut>, usize) {
    let mut left_out = before.to_vec();
    for why in pictures.iter().filter_map(|picture| picture.as_ref().err()) {
        LeftOut::count(&mut left_out, "damaged", why.clone());
    }
    (left_out, pictures.iter().filter(|picture| picture.is_ok()).count())
}

/// The evaluation of the whole set, from those of all its parts.
///
/// # Errors
/// When a part is missing, is there twice, or belongs to another evaluation.
pub fn merge(parts: Vec<Evaluation>) -> Result<Evaluation> {
    let (mut parts, shards) = sorted_parts(parts, |evaluation| evaluation.part.as_ref().map(|part| part.shard))?;
    let about = |e: &Evaluation| {
        let rows = e.rows.iter().map(|row| EvaluationRow {
            top1: None,
            agreement: 0.0,
            kl: 0.0,
            interval: (0.0, 0.0),
            behind_best: None,
            ..row.clone()
        });
        let total = e.part.as_ref().map_or(0, |part| part.total);
        (e.model.clone(), e.settings.clone(), e.calibration.clone(), e.data.clone(), rows.collect::<Vec<_>>(), total, e.left_out.clone())
    };
    if let Some(other) = (1..parts.len()).find(|&index| about(&parts[index]) != about(&parts[0])) {
        return Err(Error::setting("part", shards[other], "the same model, settings and pictures as in the first file"));
    }
    let pictures: Vec<_> = parts.iter_mut().map(|e| e.part.take().map(|part| part.pictures).unwrap_or_default().into_iter()).collect();
    let pictures = interleave(pictures)?;
    let seconds = parts.iter().map(|e| e.seconds).sum();
    let Some(mut whole) = parts.into_iter().next() else { return Err(Error::setting("parts", 0, "at least one file")) };
    let mut tallies = vec![Tally::default(); whole.rows.len()];
    for picture in pictures.iter().flatten() {
        if picture.len() != tallies.len() {
            return Err(Error::setting("part", picture.len(), format!("{} values for each picture", tallies.len())));
        }
        tallies.iter_mut().zip(picture).for_each(|(tally, seen)| tally.add(*seen));
    }
    for (row, tally) in whole.rows.iter_mut().zip(&tallies) {
        tally.write(row);
    }
    beside_the_best(&mut whole.rows, &pictures);
    (whole.left_out, whole.images) = counted(&whole.left_out, &pictures);
    whole.seconds = seconds;
    Ok(whole)
}

/// The parts in the order of their numbers, and the numbers.
///
/// # Errors
/// When one is no part, is missing or is there twice.
pub(super) fn sorted_parts<T>(parts: Vec<T>, shard: impl Fn(&T) -> Option<Shard>) -> Result<(Vec<T>, Vec<Shard>)> {
    let mut numbered = Vec::new();
    for part in parts {
        let Some(shard) = shard(&part) else {
            return Err(Error::setting("file", "a whole report", "the report of a part, which --shard K/N gives"));
        };
        numbered.push((shard, part));
    }
    numbered.sort_by_key(|(shard, _)| shard.number);
    let of = numbered.first().map_or(0, |(shard, _)| shard.of);
    for number in 1..=of {
        let wanted = Shard { number, of };
        match numbered.iter().filter(|(shard, _)| *shard == wanted).count() {
            1 => {}
            count => return Err(Error::setting("parts", format!("{count} files of part {wanted}"), "each part once")),
        }
    }
    if let Some((other, _)) = numbered.iter().find(|(shard, _)| shard.of != of) {
        return Err(Error::setting("part", other, format!("one of {of}")));
    }
    let (shards, parts) = numbered.into_iter().unzip();
    Ok((parts, shards))
}

/// The same, telling after every `stride` pictures how many were seen and what the rows are so far. `pictures` takes what is seen; what it
/// holds already is not looked at again.
///
/// # Errors
/// As [`evaluate`], and when `cancel` was called.
pub fn stepwise(
    session: &Session,
    set: &PictureSet,
    grid: &[Settings],
    stride: usize,
    pictures: &mut Vec<Looked>,
    cancel: &Cancel,
    told: &mut dyn FnMut(usize, Vec<EvaluationRow>),
) -> Result<()> {
    let opened = session.opened();
    let network = opened.model.network();
    let plans = grid
        .iter()
        .map(|settings| if settings.method == Method::Float { Ok(None) } else { session.plan_until(settings, cancel).map(Some) })
        .collect::<Result<Vec<Option<Plan>>>>()?;
    let float_plan = Plan::float(opened.model.sites());
    let mut tallies = vec![Tally::default(); grid.len()];
    pictures.truncate(set.len());
    for seen in pictures.iter().flatten() {
        tallies.iter_mut().zip(seen).for_each(|(tally, seen)| tally.add(*seen));
    }
    let rows = |tallies: &[Tally]| {
        let row = |(settings, tally): (&Settings, &Tally)| tally.row(settings, opened.model.sites());
        grid.iter().zip(tallies).map(row).collect()
    };
    if !pictures.is_empty() {
        told(pictures.len(), rows(&tallies));
    }
    for chunk in set.pictures[pictures.len()..].chunks(stride.max(1)) {
        // Parts of a chunk run side by side, each setting by setting.
        let parts = chunk.par_chunks(BATCH).map(|part| {
            let (batch, kept, errors) = batches::load_readable(part, &opened.preprocess)?;
            if set.strict && !errors.is_empty() {
                return Err(errors.into_iter().next().unwrap_or(Error::Cancelled));
            }
            let mut errors = errors.into_iter().map(|error| Err(error.to_string()));
            let mut seen: Vec<Looked> = Vec::with_capacity(part.len());
            let Some(Batch { pictures, tensor }) = batch else { return Ok(errors.collect()) };
            let under = |plan: &Plan| Prediction::of(&run(network, Start::pixels(&tensor), plan, cancel)?);
            let float = under(&float_plan)?;
            let quantized = plans.iter().map(|plan| plan.as_ref().map_or_else(|| Ok(float.clone()), &under)).collect::<Result<Vec<_>>>()?;
            let mut good = kept.iter().zip(&pictures).enumerate().peekable();
            for (index, source) in part.iter().enumerate() {
                let Some((at, (_, picture))) = good.next_if(|(_, (kept, _))| **kept == index) else {
                    seen.extend(errors.next());
                    continue;
                };
                let label = picture.label.filter(|class| session.is_label(source, *class));
                seen.push(Ok(quantized.iter().map(|quantized| Seen::of(&float[at], &quantized[at], label)).collect()));
            }
            Ok(seen)
        });
        // In the order of the pictures: the sums do not depend on how many were looked at together.
        for seen in parts.collect::<Result<Vec<_>>>()?.into_iter().flatten() {
            if let Ok(seen) = &seen {
                tallies.iter_mut().zip(seen).for_each(|(tally, seen)| tally.add(*seen));
            }
            pictures.push(seen);
        }
        told(pictures.len(), rows(&tallies));
    }
    match pictures.iter().find_map(|picture| picture.as_ref().err()) {
        Some(first) if pictures.iter().all(std::result::Result::is_err) => {
            Err(Error::content(&set.name, format!("no picture of {} could be read ({first})", set.len()), "name another folder"))
        }
        _ => Ok(()),
    }
}

impl Seen {
    fn of(float: &Prediction, quantized: &Prediction, label: Option<usize>) -> Self {
        let divergence = quantized.against(float);
        Self { kl: divergence.kl, changed: divergence.changed > 0, hit: label.map(|label| label == quantized.class()) }
    }
}

/// What is counted of one setting over pictures.
#[derive(Debug, Clone, Copy, Default)]
struct Tally {
    /// Sum of the KL.
    kl: f64,
    changed: usize,
    images: usize,
    labelled: usize,
    hits: usize,
}

impl Tally {
    fn add(&mut self, seen: Seen) {
        self.kl += seen.kl;
        self.changed += usize::from(seen.changed);
        self.images += 1;
        self.labelled += usize::from(seen.hit.is_some());
        self.hits += usize::from(seen.hit == Some(true));
    }

    /// Writes what was counted into a row.
    fn write(&self, row: &mut EvaluationRow) {
        let Self { kl, changed, images, labelled, hits } = *self;
        let agree = images - changed;
        let percent = |part: usize, whole: usize| 100.0 * part as f64 / whole.max(1) as f64;
        let (low, high) = if labelled > 0 { wilson(hits, labelled) } else { wilson(agree, images) };
        row.top1 = (labelled > 0).then(|| percent(hits, labelled));
        row.agreement = percent(agree, images);
        row.kl = kl / images.max(1) as f64;
        row.interval = (100.0 * low, 100.0 * high);
    }

    fn row(&self, settings: &Settings, sites: &[SiteInfo]) -> EvaluationRow {
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
            behind_best: None,
        };
        self.write(&mut row);
        row
    }
}
