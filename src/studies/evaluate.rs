//! Evaluation on a set of pictures: top-1 with labels, or agreement with float without, under several settings in one go.

use std::path::Path;

use rayon::prelude::*;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::both_ways::SHIFT;
use super::tally::{EvaluationRow, Looked, Seen, Tally};
use crate::analysis::Prediction;
use crate::analysis::metrics::bootstrap_mean;
use crate::error::{Error, Result};
use crate::input::batches::{self, Batch};
use crate::input::{LeftOut, PictureSet};
use crate::memory::BATCH;
use crate::progress::Cancel;
use crate::progress::Progress;
use crate::quant::{Method, Plan, Settings, Start, run};
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
    /// Draws of slightly shifted quantizers that every row is the mean of; 1 for the quantizers as they are.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub draws: usize,
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

const fn one() -> usize {
    1
}

#[allow(clippy::trivially_copy_pass_by_ref)] // serde's form
const fn is_one(draws: &usize) -> bool {
    *draws == 1
}

/// Settings to look at, each as the mean over some draws of quantizers whose bounds are shifted by up to [`SHIFT`].
#[derive(Debug, Clone, Copy)]
pub struct Grid<'g> {
    /// One row each.
    pub settings: &'g [Settings],
    /// How many draws; 1 for the quantizers as they are.
    pub draws: usize,
}

impl<'g> From<&'g [Settings]> for Grid<'g> {
    fn from(settings: &'g [Settings]) -> Self {
        Self { settings, draws: 1 }
    }
}

/// A part of a set, picture by picture, for `igq merge`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct EvaluatedPart {
    /// Which part.
    pub shard: Shard,
    /// Pictures of the whole set.
    pub total: usize,
    /// For each picture of the part, in order, one entry for each row and draw; the reason where it could not be read.
    pub pictures: Vec<Looked>,
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
    grid: Grid<'_>,
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
        progress(Progress { stage: format!("{} settings", grid.settings.len()), done: seen, total: part.len() });
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
        draws: grid.draws,
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
    let count = rows.len();
    for (index, row) in rows.iter_mut().enumerate().filter(|(index, row)| *index != best && row.method != Method::Float) {
        let difference = |seen: &Vec<Seen>| {
            let draws = seen.len() / count;
            let mean = |row: usize| Some(seen.get(row * draws..(row + 1) * draws)?.iter().map(|seen| seen.kl).sum::<f64>() / draws as f64);
            Some(mean(index)? - mean(best)?)
        };
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
            jitter: None,
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
    let mut tallies = vec![Tally::default(); whole.rows.len() * whole.draws.max(1)];
    for picture in pictures.iter().flatten() {
        if picture.len() != tallies.len() {
            return Err(Error::setting("part", picture.len(), format!("{} values for each picture", tallies.len())));
        }
        tallies.iter_mut().zip(picture).for_each(|(tally, seen)| tally.add(*seen));
    }
    for (row, draws) in whole.rows.iter_mut().zip(tallies.chunks(whole.draws.max(1))) {
        Tally::write(draws, row);
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
    grid: Grid<'_>,
    stride: usize,
    pictures: &mut Vec<Looked>,
    cancel: &Cancel,
    told: &mut dyn FnMut(usize, Vec<EvaluationRow>),
) -> Result<()> {
    let opened = session.opened();
    let network = opened.model.network();
    let draws = grid.draws.max(1);
    let mut plans: Vec<Option<Plan>> = Vec::with_capacity(grid.settings.len() * draws);
    for settings in grid.settings {
        if settings.method == Method::Float {
            plans.extend((0..draws).map(|_| None));
            continue;
        }
        let plan = session.plan_until(settings, cancel)?;
        plans.extend((0..draws).map(|draw| Some(if draws > 1 { plan.shifted(draw as u64, SHIFT) } else { plan.clone() })));
    }
    let float_plan = Plan::float(opened.model.sites());
    let mut tallies = vec![Tally::default(); plans.len()];
    pictures.truncate(set.len());
    for seen in pictures.iter().flatten() {
        tallies.iter_mut().zip(seen).for_each(|(tally, seen)| tally.add(*seen));
    }
    let rows = |tallies: &[Tally]| {
        let row = |(settings, draws): (&Settings, &[Tally])| Tally::row(draws, settings, opened.model.sites());
        grid.settings.iter().zip(tallies.chunks(draws)).map(row).collect()
    };
    if !pictures.is_empty() {
        told(pictures.len(), rows(&tallies));
    }
    for chunk in set.pictures[pictures.len()..].chunks(stride.max(1)) {
        // Parts of a chunk run side by side, each setting by setting.
        let parts = chunk.par_chunks(opened.preprocess.together()).map(|part| {
            let (batch, kept, errors) = batches::load_readable(part, &opened.preprocess)?;
            if set.strict && !errors.is_empty() {
                return Err(errors.into_iter().next().unwrap_or(Error::Cancelled));
            }
            let mut errors = errors.into_iter().map(|error| Err(error.to_string()));
            let mut seen: Vec<Looked> = Vec::with_capacity(part.len());
            let Some(Batch { pictures, tensor }) = batch else { return Ok(errors.collect()) };
            let base = run(network, Start::pixels(&tensor), &float_plan, cancel)?;
            let under = |plan: &Plan| Prediction::of(&run(network, Start::pixels(&tensor).pinned(&base), plan, cancel)?);
            let float = Prediction::of(&base)?;
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
