//! Whether a model computes what a reference file says: its logits against those that another library computed from the same input.

use std::path::Path;

use candle_core::{D, Tensor};
use schemars::JsonSchema;
use serde::Serialize;

use crate::error::Result;
use crate::input::batches::BATCH;
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

/// Runs the float network on the tensor `input` `(B, C, height, width)` of a safetensors file and compares with its `logits` `(B, K)`.
///
/// # Errors
/// When the file or one of the tensors is missing, or they do not fit the model.
pub fn verify(model: &Model, expected: &Path, tolerance: f32) -> Result<Verification> {
    let name = expected.display().to_string();
    let file = Weights::open(&name, &[expected])?;
    let (config, found) = (&model.config, file.shape("input", 4)?);
    let (height, width) = config.image_size();
    let one = [config.in_chans(), height, width];
    if found[1..] != one || found[0] == 0 {
        return Err(file.wrong("input", format!("pictures of shape {one:?}, as {} takes them", model.name), format!("shape {found:?}")));
    }
    let (pictures, input) = (found[0], file.get("input", &found)?);
    let logits = file.get("logits", &[pictures, config.classes()])?;
    let (mut largest_difference, mut same_top1) = (0.0_f32, 0);
    for start in (0..pictures).step_by(BATCH) {
        let count = BATCH.min(pictures - start);
        let ours = forward(model.network(), &input.narrow(0, start, count)?, &mut Identity)?.classes()?;
        let theirs = logits.narrow(0, start, count)?;
        let difference = largest(&(&ours - &theirs)?)?;
        // A maximum would pass over NaN.
        largest_difference = if difference.is_nan() { f32::INFINITY } else { largest_difference.max(difference) };
        let top = |logits: &Tensor| logits.argmax(D::Minus1)?.to_vec1::<u32>();
        same_top1 += top(&ours)?.iter().zip(top(&theirs)?).filter(|(a, b)| **a == *b).count();
    }
    Ok(Verification {
        model: model.name.clone(),
        notes: model.notes.clone(),
        expected: name,
        pictures,
        largest_difference,
        largest_logit: largest(&logits)?,
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
