//! From pictures to batches `(B, C, height, width)`: the only place that loads, preprocesses and stacks.

use candle_core::Tensor;

use super::{Picture, PictureSource, Preprocess};
use crate::error::{Error, Result};

/// Pictures that were loaded together, and what the model takes for them.
#[derive(Debug, Clone)]
pub struct Batch {
    /// As decoded, with their labels.
    pub pictures: Vec<Picture>,
    /// `(B, C, height, width)`
    pub tensor: Tensor,
}

/// Loads `sources`, at least one, as one batch.
///
/// # Errors
/// When a picture cannot be read.
pub fn load(sources: &[PictureSource], preprocess: &Preprocess) -> Result<Batch> {
    let pictures = sources.iter().map(PictureSource::load).collect::<Result<Vec<_>>>()?;
    let tensor = tensor(&pictures, preprocess)?;
    Ok(Batch { pictures, tensor })
}

/// Loads what of `sources` can be read as one batch; the last value names the others and says why.
///
/// # Errors
/// Only when candle fails.
pub fn load_readable(sources: &[PictureSource], preprocess: &Preprocess) -> Result<(Option<Batch>, Vec<usize>, Vec<Error>)> {
    let (mut pictures, mut tensors, mut kept, mut errors) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for (index, source) in sources.iter().enumerate() {
        match source.load().and_then(|picture| Ok((preprocess.apply(&picture)?.tensor, picture))) {
            Ok((tensor, picture)) => {
                tensors.push(tensor);
                pictures.push(picture);
                kept.push(index);
            }
            Err(error) => errors.push(error),
        }
    }
    let batch = if tensors.is_empty() { None } else { Some(Batch { pictures, tensor: Tensor::cat(&tensors, 0)? }) };
    Ok((batch, kept, errors))
}

/// Loads all of `sources` in batches of at most [`Preprocess::together`].
///
/// # Errors
/// When a picture cannot be read.
pub fn load_all(sources: &[PictureSource], preprocess: &Preprocess) -> Result<Vec<Tensor>> {
    sources.chunks(preprocess.together()).map(|part| Ok(load(part, preprocess)?.tensor)).collect()
}

/// Decoded pictures in batches of at most [`Preprocess::together`].
///
/// # Errors
/// Only when candle fails.
pub fn stack(pictures: &[Picture], preprocess: &Preprocess) -> Result<Vec<Tensor>> {
    pictures.chunks(preprocess.together()).map(|part| tensor(part, preprocess)).collect()
}

fn tensor(pictures: &[Picture], preprocess: &Preprocess) -> Result<Tensor> {
    let tensors = pictures.iter().map(|picture| Ok(preprocess.apply(picture)?.tensor)).collect::<Result<Vec<_>>>()?;
    Ok(Tensor::cat(&tensors, 0)?)
}

/// Batches cut into batches of at most `size` pictures.
///
/// # Errors
/// Only when candle fails.
pub fn cut(batches: &[Tensor], size: usize) -> Result<Vec<Tensor>> {
    let mut parts = Vec::new();
    for batch in batches {
        let pictures = batch.dim(0)?;
        for start in (0..pictures).step_by(size.max(1)) {
            parts.push(batch.narrow(0, start, size.min(pictures - start))?.contiguous()?);
        }
    }
    Ok(parts)
}
