//! The method from top to bottom, in the paper's order: calibrate, fit group quantizers, quantize weights, plan. Fits and weights are
//! kept, because a user who steps through settings comes back to them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use rayon::prelude::*;

use super::baselines::SiteQuantizers;
use super::bits::{BitWidth, GroupCount};
use super::calibrate::Calibration;
use super::method::{Method, Scheme};
use super::run::{Plan, SitePlan};
use super::settings::Settings;
use super::weight::{self, QuantizedWeight};
use crate::error::{Error, Result};
use crate::model::{Model, Site, SiteInfo};

type Fitted = HashMap<(Site, Scheme, GroupCount, BitWidth), Option<Arc<SiteQuantizers>>>;
type Weights = HashMap<(Site, BitWidth), Option<Arc<QuantizedWeight>>>;

/// Fits and quantized weights of one model and one calibration, kept as they are asked for.
#[derive(Debug, Default)]
pub struct Cache {
    fitted: Mutex<Fitted>,
    weights: Mutex<Weights>,
    imported: HashMap<Site, Arc<SiteQuantizers>>,
}

impl Cache {
    /// A cache whose activation quantizers come from a file instead of a fit.
    #[must_use]
    pub fn with_quantizers(imported: HashMap<Site, Arc<SiteQuantizers>>) -> Self {
        Self { imported, ..Self::default() }
    }

    /// Whether activation quantizers come from a file.
    #[must_use]
    pub fn is_imported(&self) -> bool {
        !self.imported.is_empty()
    }

    /// The quantizers of `site` under `settings`.
    fn quantizers(&self, site: Site, calibration: &Calibration, settings: &Settings) -> Result<Option<Arc<SiteQuantizers>>> {
        if self.is_imported() {
            let missing = || Error::setting("quantizer file", site, "quantizers for every site that is quantized");
            return self.imported.get(&site).cloned().map(Some).ok_or_else(missing);
        }
        let (scheme, groups, bits) = (settings.scheme(site), settings.groups(site), settings.activation_bits(site));
        // Bounds that do not depend on bits are kept once for all of them.
        let keyed = if matches!(scheme, Scheme::Shared(method) if method != Method::IgqE) { BitWidth::FLOAT } else { bits };
        let key = (site, scheme, groups, keyed);
        if let Some(known) = self.fitted.lock().unwrap_or_else(PoisonError::into_inner).get(&key) {
            return Ok(known.clone());
        }
        let ranges = calibration.sites.get(&site);
        let ranges = ranges.ok_or_else(|| Error::setting("calibration", site, "ranges for every site of the model"))?;
        let fitted = SiteQuantizers::fit(ranges, scheme, groups, bits).map(Arc::new);
        self.fitted.lock().unwrap_or_else(PoisonError::into_inner).insert(key, fitted.clone());
        Ok(fitted)
    }

    fn weight(&self, model: &Model, site: Site, bits: BitWidth) -> Result<Option<Arc<QuantizedWeight>>> {
        let Some(float) = model.network().weight(site) else { return Ok(None) };
        if let Some(known) = self.weights.lock().unwrap_or_else(PoisonError::into_inner).get(&(site, bits)) {
            return Ok(known.clone());
        }
        let quantized = weight::quantize(float, bits)?.map(Arc::new);
        self.weights.lock().unwrap_or_else(PoisonError::into_inner).insert((site, bits), quantized.clone());
        Ok(quantized)
    }
}

/// What one site does under `settings`: fits and quantizes what is not yet.
///
/// # Errors
/// When the calibration or the quantizer file does not cover it.
pub fn site_plan(model: &Model, calibration: &Calibration, settings: &Settings, cache: &Cache, info: &SiteInfo) -> Result<SitePlan> {
    let bits = settings.activation_bits(info.site);
    let quantizers = if bits.is_float() { None } else { cache.quantizers(info.site, calibration, settings)? };
    let weight = cache.weight(model, info.site, settings.weight_bits(info.site))?;
    Ok(SitePlan { info: info.clone(), bits, quantizers, weight })
}

/// What every site does under `settings`: fits what is not fitted yet, quantizes the weights that are not quantized yet.
///
/// # Errors
/// When the calibration or the quantizer file does not cover a site that is quantized.
pub fn plan(model: &Model, calibration: &Calibration, settings: &Settings, cache: &Cache) -> Result<Plan> {
    let planned = |info: &SiteInfo| Ok((info.site, site_plan(model, calibration, settings, cache, info)?));
    let sites = model.sites().par_iter().map(planned).collect::<Result<_>>()?;
    Ok(Plan { sites })
}
