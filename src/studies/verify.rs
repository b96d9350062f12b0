//! Whether a model computes what a reference file says: its logits against those that another library computed from the same input.

use std::path::Path;

use candle_core::{D, Tensor};
use schemars::JsonSchema;
use serde::Serialize;

use crate::error::Result;
use crate::memory::BATCH;
use crate::model::output::BOX;
use crate::model::{Identity, Model, Weights, forward};

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
    /// Largest absolute logit of the reference, to judge the difference by.
    pub largest_logit: f32,
    /// What the difference may be.
    pub tolerance: f32,
    /// Pictures with the same top-1.
    pub same_top1: usize,
    /// Whether the difference is within the tolerance.
    pub within: bool,
}

/// Tensors of one input of a reference file.
struct Case {
    input: String,
    logits: String,
    /// Of a detector.
    boxes: Option<String>,
}

/// The inputs of a reference file: `input` with `logits`, or for each TAG `TAG.pixel_values` with `TAG.logits`; for a detector with the
/// boxes `pred_boxes` too.
fn cases(file: &Weights, detects: bool) -> Vec<Case> {
    let boxes = |start: &str| detects.then(|| format!("{start}pred_boxes"));
    let tags: Vec<String> = file.keys().filter_map(|key| key.strip_suffix("pixel_values").map(str::to_string)).collect();
    if tags.is_empty() {
        return vec![Case { input: "input".into(), logits: "logits".into(), boxes: boxes("") }];
    }
    tags.into_iter().map(|tag| Case { input: format!("{tag}pixel_values"), logits: format!("{tag}logits"), boxes: boxes(&tag) }).collect()
}

/// Runs the float network on the inputs `(B, C, height, width)` of a safetensors file and compares with what it says of them: logits, and the
/// boxes of a detector, which takes every size of its inputs.
///
/// # Errors
/// When the file or one of the tensors is missing, or they do not fit the model.
pub fn verify(model: &mut Model, expected: &Path, tolerance: f32) -> Result<Verification> {
    let name = expected.display().to_string();
    let file = Weights::open(&name, &[expected])?;
    let detection = model.config.detection();
    let (mut largest_difference, mut largest_logit, mut same_top1, mut all) = (0.0_f32, 0.0_f32, 0, 0);
    for case in cases(&file, detection.is_some()) {
        let found = file.shape(&case.input, 4)?;
        if detection.is_some() {
            model.resize((found[2], found[3]), None)?;
        }
        let (height, width) = model.config.image_size();
        let one = [model.config.in_chans(), height, width];
        if found[1..] != one || found[0] == 0 {
            let expected = format!("pictures of shape {one:?}, as {} takes them", model.name);
            return Err(file.wrong(&case.input, expected, format!("shape {found:?}")));
        }
        let (pictures, input) = (found[0], file.get(&case.input, &found)?);
        let classes = model.config.classes();
        let (shape, queries) = match detection {
            Some(detection) => (vec![pictures, detection.tokens, classes + 1], detection.tokens),
            None => (vec![pictures, classes], 1),
        };
        let logits = file.get(&case.logits, &shape)?;
        let boxes = case.boxes.map(|name| file.get(&name, &[pictures, queries, BOX])).transpose()?;
        largest_logit = largest_logit.max(largest(&logits)?);
        for start in (0..pictures).step_by(BATCH) {
            let count = BATCH.min(pictures - start);
            let ours = forward(model.network(), &input.narrow(0, start, count)?, &mut Identity)?;
            let theirs = logits.narrow(0, start, count)?.reshape(ours.logits.dims())?;
            let mut difference = largest(&(&ours.logits - &theirs)?)?;
            if let (Some(ours), Some(theirs)) = (&ours.boxes, &boxes) {
                let of_boxes = largest(&(ours - theirs.narrow(0, start, count)?)?)?;
                difference = if difference.is_nan() || of_boxes.is_nan() { f32::NAN } else { difference.max(of_boxes) };
            }
            // A maximum would pass over NaN.
            largest_difference = if difference.is_nan() { f32::INFINITY } else { largest_difference.max(difference) };
            let top = |logits: &Tensor| logits.argmax(D::Minus1)?.to_vec2::<u32>();
            same_top1 += top(&ours.logits)?.iter().zip(top(&theirs)?).filter(|(a, b)| **a == *b).count();
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
        within: largest_difference <= tolerance,
    })
}

/// The largest absolute value; NaN if there is one.
fn largest(tensor: &Tensor) -> Result<f32> {
    let values = tensor.flatten_all()?.to_vec1::<f32>()?;
    Ok(values.iter().fold(0.0, |most: f32, v| if most.is_nan() || v.is_nan() { f32::NAN } else { most.max(v.abs()) }))
}
