//! The pictures whose most likely class changes, with the five most likely classes of both runs.

use rayon::prelude::*;
use schemars::JsonSchema;
use serde::Serialize;

use crate::analysis::report::PredictionReport;
use crate::analysis::{Prediction, SCHEMA_VERSION};
use crate::error::Result;
use crate::input::{PictureSet, PictureSource, batches};
use crate::progress::{Cancel, Counter, Progress};
use crate::quant::{Plan, Settings, Start, run};
use crate::session::Session;

/// One picture.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Flip {
    /// Its place in the set, for `--picture`.
    pub index: usize,
    /// Its name.
    pub picture: String,
    /// The true class; none without a label.
    pub truth: Option<String>,
    /// Both runs.
    pub prediction: PredictionReport,
}

/// All of them.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct FlipReport {
    /// Version of the form.
    pub schema_version: u32,
    /// Short name of the model.
    pub model: String,
    /// What the settings are.
    pub settings: Settings,
    /// What the pictures are.
    pub data: String,
    /// How many were looked at.
    pub images: usize,
    /// How many could not be read.
    pub damaged: usize,
    /// Those whose class changed, the largest KL first.
    pub flips: Vec<Flip>,
    /// Whether it was interrupted.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub partial: bool,
}

/// Looks for them in `set`; when `cancel` was called, in what was seen of it.
///
/// # Errors
/// When the settings do not fit.
pub fn flips(
    session: &Session,
    settings: &Settings,
    set: &PictureSet,
    cancel: &Cancel,
    progress: &(dyn Fn(Progress) + Sync),
) -> Result<FlipReport> {
    let opened = session.opened();
    let (network, labels) = (opened.model.network(), &opened.model.labels);
    let (plan, float) = (session.plan(settings)?, Plan::float(opened.model.sites()));
    let seen = Counter::new("both runs of every image", set.len());
    let look = |(index, source): (usize, &PictureSource)| -> Result<Option<Result<Option<Flip>>>> {
        if cancel.is_cancelled() {
            return Ok(None);
        }
        let batch = match batches::load(std::slice::from_ref(source), &opened.preprocess) {
            Ok(batch) => batch,
            Err(error) => return Ok(Some(Err(error))),
        };
        let (start, never) = (Start::pixels(&batch.tensor), Cancel::default());
        let base = run(network, start.clone(), &float, &never)?;
        let quantized = run(network, start.pinned(&base), &plan, &never)?;
        let prediction = Prediction::of_one(&quantized)?.report(&Prediction::of_one(&base)?, labels);
        progress(seen.add(1));
        let picture = &batch.pictures[0];
        let truth = picture.label.filter(|class| session.is_label(source, *class));
        let flip = Flip {
            index,
            picture: picture.name.clone(),
            truth: truth.map(|class| crate::analysis::prediction::class_name(labels, class)),
            prediction,
        };
        Ok(Some(Ok(Some(flip).filter(|flip| flip.prediction.flipped))))
    };
    let looked = set.pictures.par_iter().enumerate().map(|(index, source)| look((index, source))).collect::<Result<Vec<_>>>()?;
    let images = looked.iter().flatten().filter(|one| one.is_ok()).count();
    let damaged = looked.iter().flatten().filter(|one| one.is_err()).count();
    let mut flips: Vec<Flip> = looked.into_iter().flatten().flatten().flatten().collect();
    flips.sort_by(|a, b| b.prediction.kl.total_cmp(&a.prediction.kl).then(a.index.cmp(&b.index)));
    Ok(FlipReport {
        schema_version: SCHEMA_VERSION,
        model: opened.model.name.clone(),
        settings: settings.clone(),
        data: set.name.clone(),
        images,
        damaged,
        flips,
        partial: cancel.is_cancelled(),
    })
}
