//! Whether a model computes what a reference file says: its logits against those that another library computed from the same input.

use std::path::Path;

use candle_core::{D, Tensor};
use schemars::JsonSchema;
use serde::Serialize;

use super::regions::{self, Regions};
use crate::error::Result;
use crate::memory::BATCH;
use crate::model::{Identity, Model, Output, Weights, forward};

/// The float logits of a model against those of a reference.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Verification {
    /// Name of the model.
    pub model: String,
    /// What was inferred or assumed about it.
    pub notes: Vec<String>,
    /// The reference file.
    pub expected: String,
    /// Pictures that were compared.
    pub pictures: usize,
    /// Largest absolute difference of any logit.
    pub largest_difference: f32,
    /// Largest absolute difference of any logit of a mask, where the model makes masks; it may be ten times the tolerance.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub largest_mask_difference: Option<f32>,
    /// Largest absolute logit of the reference, to judge the difference by.
    pub largest_logit: f32,
    /// What the difference may be.
    pub tolerance: f32,
    /// What was matched of the sets of a detector of regions.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub regions: Option<Regions>,
    /// Pictures with the same top-1.
    pub same_top1: usize,
    /// Whether the difference is within the tolerance.
    pub within: bool,
}

/// The inputs of a reference file, each as what stands before its names: of `input` with `logits`, or for each TAG of `TAG.pixel_values` with
/// `TAG.logits`; of a detector with `pred_boxes`, and with `init_reference_points` and `pred_masks` where the file has them; of a network
/// that segments `class_queries_logits` and `masks_queries_logits` instead; of a detector of regions what [`regions`] reads.
fn cases(file: &Weights) -> Vec<(String, String)> {
    let tags: Vec<String> = file.keys().filter_map(|key| key.strip_suffix("pixel_values").map(str::to_string)).collect();
    if tags.is_empty() {
        return vec![(String::new(), "input".into())];
    }
    tags.into_iter().map(|tag| (tag.clone(), format!("{tag}pixel_values"))).collect()
}

/// What is compared beside the logits: its name, ours, and whether it is masks.
fn others(ours: &Output) -> Vec<(&'static str, &Tensor, bool)> {
    let mut others = Vec::new();
    others.extend(ours.boxes.as_ref().map(|boxes| ("pred_boxes", boxes, false)));
    others.extend(ours.first.as_ref().map(|first| ("init_reference_points", &first.references, false)));
    let name = if ours.boxes.is_some() { "pred_masks" } else { "masks_queries_logits" };
    others.extend(ours.masks.as_ref().map(|masks| (name, masks, true)));
    others
}

/// Runs the float network on the inputs `(B, C, height, width)` of a safetensors file and compares with what it says of them: logits, and the
/// boxes and masks of a detector, which takes every size of its inputs.
///
/// # Errors
/// When the file or one of the tensors is missing, or they do not fit the model.
pub fn verify(model: &mut Model, expected: &Path, tolerance: f32) -> Result<Verification> {
    let name = expected.display().to_string();
    let file = Weights::open(&name, &[expected])?;
    let queries = model.config.queries();
    let (mut largest_difference, mut largest_logit, mut same_top1, mut all) = (0.0_f32, 0.0_f32, 0, 0);
    let (mut masks, mut regions): (Option<f32>, Option<Regions>) = (None, None);
    for (tag, of_input) in cases(&file) {
        let found = file.shape(&of_input, 4)?;
        if queries.is_some() && (found[2], found[3]) != model.config.image_size() {
            model.resize((found[2], found[3]), None)?;
        }
        let (height, width) = model.config.image_size();
        let one = [model.config.in_chans(), height, width];
        if found[1..] != one || found[0] == 0 {
            let expected = format!("pictures of shape {one:?}, as {} takes them", model.name);
            return Err(file.wrong(&of_input, expected, format!("shape {found:?}")));
        }
        let (pictures, input) = (found[0], file.get(&of_input, &found)?);
        if regions::is_one(&file) && pictures == 1 && tag.is_empty() {
            let compared = regions::compare(model, &file, &input)?;
            (largest_difference, largest_logit, masks) = (compared.difference, compared.largest, compared.masks);
            (same_top1, all, regions) = (usize::from(compared.same), 1, Some(compared.regions));
            break;
        }
        for start in (0..pictures).step_by(BATCH) {
            let count = BATCH.min(pictures - start);
            let ours = forward(model.network(), &input.narrow(0, start, count)?, &mut Identity)?;
            let theirs = |name: &str, ours: &Tensor| -> Result<Tensor> {
                let mut shape = ours.dims().to_vec();
                shape[0] = pictures;
                if queries.is_none() {
                    shape.remove(1);
                }
                Ok(file.get(&format!("{tag}{name}"), &shape)?.narrow(0, start, count)?.reshape(ours.dims())?)
            };
            let segments = ours.masks.is_some() && ours.boxes.is_none();
            let logits = theirs(if segments { "class_queries_logits" } else { "logits" }, &ours.logits)?;
            largest_logit = largest_logit.max(largest(&logits)?);
            let mut worst = largest(&(&ours.logits - &logits)?)?;
            for (name, tensor, of_masks) in others(&ours) {
                if name != "pred_boxes" && !file.has(&format!("{tag}{name}")) {
                    continue;
                }
                let difference = largest(&(tensor - theirs(name, tensor)?)?)?;
                if of_masks {
                    masks = Some(larger(masks.unwrap_or(0.0), difference));
                } else {
                    worst = larger(worst, difference);
                }
            }
            largest_difference = larger(largest_difference, worst);
            let top = |logits: &Tensor| logits.argmax(D::Minus1)?.to_vec2::<u32>();
            same_top1 += top(&ours.logits)?.iter().zip(top(&logits)?).filter(|(a, b)| **a == *b).count();
        }
        all += pictures;
    }
    Ok(Verification {
        model: model.name.clone(),
        notes: model.notes.clone(),
        expected: name,
        pictures: all,
        largest_difference,
        largest_logit,
        tolerance,
        same_top1,
        within: largest_difference <= tolerance && masks.unwrap_or(0.0) <= MASKS * tolerance && regions.as_ref().is_none_or(Regions::all),
        regions,
        largest_mask_difference: masks,
    })
}

/// How many times the tolerance a logit of a mask may differ, which is a sum over the whole width.
const MASKS: f32 = 10.0;

/// The larger of both; what is not a number is infinite, because a maximum would pass over it.
fn larger(most: f32, more: f32) -> f32 {
    if more.is_nan() { f32::INFINITY } else { most.max(more) }
}

/// The largest absolute value; NaN if there is one.
fn largest(tensor: &Tensor) -> Result<f32> {
    let values = tensor.flatten_all()?.to_vec1::<f32>()?;
    Ok(values.iter().fold(0.0, |most: f32, v| if most.is_nan() || v.is_nan() { f32::NAN } else { most.max(v.abs()) }))
}
