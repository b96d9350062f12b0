//! Calibration: the float model over some pictures, keeping the range of every channel and row of each picture apart. Ranges do not
//! depend on bits, groups or method, so one calibration serves every setting.

use std::collections::BTreeMap;

use candle_core::Tensor;

use super::ranges;
use super::uniform::Bounds;
use crate::error::Result;
use crate::model::tap::Cancel;
use crate::model::{Network, Recorder, Site, Tap, forward};

/// Ranges of one site: `images[i][c]` is channel (or row) `c` of calibration picture `i`.
#[derive(Debug, Clone, PartialEq)]
pub struct SiteRanges {
    /// One list of ranges for each picture.
    pub images: Vec<Vec<Bounds>>,
}

impl SiteRanges {
    /// All ranges of all pictures, in one row: what group quantizers are fitted to.
    #[must_use]
    pub fn all(&self) -> Vec<Bounds> {
        self.images.iter().flatten().copied().collect()
    }

    /// The range of every channel over all pictures: what static baselines are made of.
    #[must_use]
    pub fn merged(&self) -> Vec<Bounds> {
        let mut images = self.images.iter();
        let first = images.next().cloned().unwrap_or_default();
        images.fold(first, |merged, image| merged.iter().zip(image).map(|(a, b)| a.union(*b)).collect())
    }
}

/// What calibration found, for every site.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Calibration {
    /// Ranges by site.
    pub sites: BTreeMap<Site, SiteRanges>,
    /// Number of pictures.
    pub images: usize,
}

/// Runs the float network over batches of pictures `(B, C, height, width)`; `done` hears the number of pictures so far.
///
/// # Errors
/// When a batch has the wrong shape, or `cancel` was called.
pub fn calibrate(network: &dyn Network, batches: &[Tensor], cancel: &Cancel, mut done: impl FnMut(usize)) -> Result<Calibration> {
    let mut calibration = Calibration::default();
    for batch in batches {
        let sites = &mut calibration.sites;
        let recorder = Recorder(|site, x: &Tensor| {
            let entry = sites.entry(site).or_insert_with(|| SiteRanges { images: Vec::new() });
            entry.images.extend(ranges_of_batch(site, x)?);
            Ok(())
        });
        forward(network, batch, &mut Cancellable { inner: recorder, cancel })?;
        calibration.images += batch.dim(0)?;
        done(calibration.images);
    }
    Ok(calibration)
}

/// Ranges of each picture of a batch: of channels `(B, N, C)`, of softmax rows `(B, H, N, N)`.
fn ranges_of_batch(site: Site, x: &Tensor) -> Result<Vec<Vec<Bounds>>> {
    let pictures = x.dim(0)?;
    let last = x.dim(candle_core::D::Minus1)?;
    let values = x.flatten_all()?.to_vec1::<f32>()?;
    let of = |picture: &[f32]| if site.kind.is_softmax() { ranges::of_rows(picture, last) } else { ranges::of_channels(picture, last) };
    Ok(values.chunks_exact(values.len() / pictures).map(of).collect())
}

/// A tap that can be cancelled between steps.
struct Cancellable<'c, T> {
    inner: T,
    cancel: &'c Cancel,
}

impl<T: Tap> Tap for Cancellable<'_, T> {
    fn activation(&mut self, site: Site, x: Tensor) -> Result<Tensor> {
        self.inner.activation(site, x)
    }

    fn checkpoint(&mut self) -> Result<()> {
        self.cancel.check()
    }
}
