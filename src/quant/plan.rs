//! The plan of a quantized run: what every site does under the settings, from calibration by the paper's steps. Fits and quantized weights
//! are kept, because a user who steps through settings comes back to them.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use rayon::prelude::*;

use super::bits::{BitWidth, GroupCount};
use super::calibrate::Calibration;
use super::choices::Arithmetic;
use super::curvature::WIDEST;
use super::fit::SiteQuantizers;
use super::method::{Fit, Scheme};
use super::settings::Settings;
use super::weight::{self, QuantizedWeight};
use super::weight_scheme::{Rounding, WeightScheme};
use crate::error::{Error, Result};
use crate::model::{Model, Site, SiteInfo, Weight};
use crate::progress::Cancel;

/// What one site does in a quantized run.
#[derive(Debug, Clone)]
pub struct SitePlan {
    /// The site.
    pub info: SiteInfo,
    /// Bits of its activation; float sites pass through untouched.
    pub bits: BitWidth,
    /// Its quantizers; `None` for float.
    pub quantizers: Option<Arc<SiteQuantizers>>,
    /// The quantized weight of its layer; `None` where there is no layer or it stays in float.
    pub weight: Option<Arc<QuantizedWeight>>,
}

impl SitePlan {
    /// Left in float, weight included.
    #[must_use]
    pub const fn float(info: SiteInfo) -> Self {
        Self { info, bits: BitWidth::FLOAT, quantizers: None, weight: None }
    }

    /// Whether it does the same as `other`: fits and quantized weights are kept, so that the same are one.
    fn does_what(&self, other: &Self) -> bool {
        fn same<T>(one: Option<&Arc<T>>, other: Option<&Arc<T>>) -> bool {
            match (one, other) {
                (Some(one), Some(other)) => Arc::ptr_eq(one, other),
                (one, other) => one.is_none() && other.is_none(),
            }
        }
        self.bits == other.bits
            && same(self.quantizers.as_ref(), other.quantizers.as_ref())
            && same(self.weight.as_ref(), other.weight.as_ref())
    }

    /// Whether anything of it is quantized.
    #[must_use]
    pub const fn is_quantized(&self) -> bool {
        self.quantizers.is_some() || self.weight.is_some()
    }
}

/// A part of what is quantized.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// The weights.
    Weights,
    /// The activations, softmax included.
    Activations,
    /// The softmax attentions.
    Softmax,
}

/// What every site does in a quantized run.
#[derive(Debug, Clone, Default)]
pub struct Plan {
    /// By address.
    pub sites: BTreeMap<Site, SitePlan>,
    /// What its products are computed in.
    pub arithmetic: Arithmetic,
}

impl Plan {
    /// The same plan with every other site in float.
    #[must_use]
    pub fn only(&self, site: Site) -> Self {
        let alone = |(&address, plan): (&Site, &SitePlan)| {
            let kept = if address == site { plan.clone() } else { SitePlan::float(plan.info.clone()) };
            (address, kept)
        };
        Self { sites: self.sites.iter().map(alone).collect(), arithmetic: self.arithmetic }
    }

    /// Every site in float.
    #[must_use]
    pub fn float(sites: &[SiteInfo]) -> Self {
        let float = |info: &SiteInfo| (info.site, SitePlan::float(info.clone()));
        Self { sites: sites.iter().map(float).collect(), arithmetic: Arithmetic::FakeQuantized }
    }

    /// The same sites, all in float.
    #[must_use]
    pub fn in_float(&self) -> Self {
        let float = |(&site, plan): (&Site, &SitePlan)| (site, SitePlan::float(plan.info.clone()));
        Self { sites: self.sites.iter().map(float).collect(), arithmetic: self.arithmetic }
    }

    /// The same plan with one site's replaced.
    #[must_use]
    pub fn with(&self, plan: SitePlan) -> Self {
        let mut changed = self.clone();
        changed.sites.insert(plan.info.site, plan);
        changed
    }

    /// Only a part of the plan, the rest in float.
    #[must_use]
    pub fn part(&self, part: Part) -> Self {
        let kept = |(&site, plan): (&Site, &SitePlan)| {
            let mut plan = plan.clone();
            if part == Part::Weights || (part == Part::Softmax && !site.kind.is_softmax()) {
                (plan.quantizers, plan.bits) = (None, BitWidth::FLOAT);
            }
            if part != Part::Weights {
                plan.weight = None;
            }
            (site, plan)
        };
        Self { sites: self.sites.iter().map(kept).collect(), arithmetic: self.arithmetic }
    }

    /// The same with every fitted bound of an activation shifted at random by up to `share` of itself; the same `seed` shifts the same way.
    #[must_use]
    pub fn shifted(&self, seed: u64, share: f32) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut shift = |(&site, plan): (&Site, &SitePlan)| {
            let quantizers = plan.quantizers.as_ref().map(|quantizers| Arc::new(quantizers.shifted(&mut random, share)));
            (site, SitePlan { quantizers, ..plan.clone() })
        };
        Self { sites: self.sites.iter().map(&mut shift).collect(), arithmetic: self.arithmetic }
    }

    /// The same plan with `site` in float.
    #[must_use]
    pub fn without(&self, site: Site) -> Self {
        self.sites.get(&site).map_or_else(|| self.clone(), |plan| self.with(SitePlan::float(plan.info.clone())))
    }

    /// The first step of the network at which the two plans do different things; `None` where they do the same everywhere.
    #[must_use]
    pub fn first_change(&self, other: &Self) -> Option<usize> {
        if self.arithmetic != other.arithmetic {
            return Some(0);
        }
        let differs = |(site, plan): &(&Site, &SitePlan)| !other.sites.get(site).is_some_and(|known| plan.does_what(known));
        self.sites.iter().filter(differs).map(|(_, plan)| plan.info.step).min()
    }

    /// The weight that the layer of `site` multiplies with, which is `float` unless it is quantized.
    pub(super) fn weight(&self, site: Site, float: &Arc<Weight>) -> Result<Arc<Weight>> {
        Ok(Arc::clone(self.site(site)?.weight.as_ref().map_or(float, |w| &w.weight)))
    }

    /// What `site` does.
    ///
    /// # Errors
    /// When the plan has no such site.
    pub fn site(&self, site: Site) -> Result<&SitePlan> {
        self.sites.get(&site).ok_or_else(|| Error::setting("site", site, "a site of the model that was planned"))
    }
}

type Fitted = HashMap<(Site, Scheme, GroupCount, BitWidth, u16), Option<Arc<SiteQuantizers>>>;
type WeightsByScheme = HashMap<(Site, WeightScheme), Option<Arc<QuantizedWeight>>>;

/// Fits and quantized weights of one model and one calibration, kept as they are asked for.
#[derive(Debug, Default)]
pub struct FitCache {
    fitted: Mutex<Fitted>,
    weights: Mutex<WeightsByScheme>,
    imported: HashMap<Site, Arc<SiteQuantizers>>,
}

impl FitCache {
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

    /// The quantizers of a site under `settings`.
    fn quantizers(&self, info: &SiteInfo, calibration: &Calibration, settings: &Settings) -> Result<Option<Arc<SiteQuantizers>>> {
        let site = info.site;
        if self.is_imported() {
            let missing = || Error::setting("quantizer file", site, "quantizers for every site that is quantized");
            return self.imported.get(&site).cloned().map(Some).ok_or_else(missing);
        }
        let (scheme, groups, bits) = (settings.scheme(site), settings.groups(site), settings.activation_bits(site));
        // Bounds that do not depend on bits are kept once for all of them.
        let keyed = if scheme.depends_on_bits() { bits } else { BitWidth::FLOAT };
        let key = (site, scheme, groups, keyed, settings.block);
        if let Some(known) = self.fitted.lock().unwrap_or_else(PoisonError::into_inner).get(&key) {
            return Ok(known.clone());
        }
        let ranges = calibration.sites.get(&site);
        let ranges = ranges.ok_or_else(|| Error::setting("calibration", site, "ranges for every site of the model"))?;
        let fitted = scheme.fit(&Fit { ranges, info, groups, bits, block: settings.block.into() }).map(Arc::new);
        self.fitted.lock().unwrap_or_else(PoisonError::into_inner).insert(key, fitted.clone());
        Ok(fitted)
    }

    fn weight(&self, model: &Model, calibration: &Calibration, site: Site, scheme: WeightScheme) -> Result<Option<Arc<QuantizedWeight>>> {
        let Some(float) = model.network().weight(site) else { return Ok(None) };
        // Too many inputs for GPTQ; the model's notes say so.
        let scheme = if float.size().1 > WIDEST { WeightScheme { rounding: Rounding::Nearest, ..scheme } } else { scheme };
        if let Some(known) = self.weights.lock().unwrap_or_else(PoisonError::into_inner).get(&(site, scheme)) {
            return Ok(known.clone());
        }
        let curvature = calibration.sites.get(&site).and_then(|ranges| ranges.curvature.as_deref());
        let quantized = weight::quantize(float.tensor()?, scheme, curvature)?.map(Arc::new);
        self.weights.lock().unwrap_or_else(PoisonError::into_inner).insert((site, scheme), quantized.clone());
        Ok(quantized)
    }
}

/// What one site does under `settings`: fits and quantizes what is not yet.
///
/// # Errors
/// When the calibration or the quantizer file does not cover it.
pub fn site_plan(model: &Model, calibration: &Calibration, settings: &Settings, cache: &FitCache, info: &SiteInfo) -> Result<SitePlan> {
    let bits = settings.activation_bits(info.site);
    let quantizers = if bits.is_float() { None } else { cache.quantizers(info, calibration, settings)? };
    let weight = cache.weight(model, calibration, info.site, settings.weight_scheme(info.site))?;
    Ok(SitePlan { info: info.clone(), bits, quantizers, weight })
}

/// What every site does under `settings`: fits what is not fitted yet, quantizes the weights that are not quantized yet.
///
/// # Errors
/// When the calibration or the quantizer file does not cover a site that is quantized.
pub fn plan(model: &Model, calibration: &Calibration, settings: &Settings, cache: &FitCache) -> Result<Plan> {
    plan_until(model, calibration, settings, cache, &Cancel::default())
}

/// The same until `cancel` is called; what was fitted until then is kept.
///
/// # Errors
/// As [`plan`], and when `cancel` was called.
pub fn plan_until(model: &Model, calibration: &Calibration, settings: &Settings, cache: &FitCache, cancel: &Cancel) -> Result<Plan> {
    let planned = |info: &SiteInfo| {
        cancel.check()?;
        Ok((info.site, site_plan(model, calibration, settings, cache, info)?))
    };
    let sites = model.sites().par_iter().map(planned).collect::<Result<_>>()?;
    Ok(Plan { sites, arithmetic: settings.arithmetic })
}
