//! How much of an input is padding: what is exactly zero at the right and below. No pixel of 8 bits is after normalisation.

use candle_core::{Device, Tensor};

use crate::error::Result;

/// How many rows and columns of pixels `(B, C, height, width)` are not padding, `(B, 1, 2)`.
///
/// # Errors
/// When the tensor has not four dimensions.
pub fn extents(pixels: &Tensor) -> Result<Tensor> {
    let (b, _, height, width) = pixels.dims4()?;
    let any = pixels.detach().abs()?.max(1)?.to_vec3::<f32>()?;
    let extent = |picture: &Vec<Vec<f32>>| {
        let rows = picture.iter().rposition(|row| row.iter().any(|v| *v != 0.0)).map_or(height, |last| last + 1);
        let columns = picture.iter().filter_map(|row| row.iter().rposition(|v| *v != 0.0)).max().map_or(width, |last| last + 1);
        [rows as f32, columns as f32]
    };
    Ok(Tensor::from_vec(any.iter().flat_map(extent).collect::<Vec<_>>(), (b, 1, 2), &Device::Cpu)?)
}
