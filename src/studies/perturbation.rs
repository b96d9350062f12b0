//! How much the prediction is perturbed by each group count of each site (section 3.3): exactly, by re-running the suffix of the network,
//! or fast, by a diagonal Fisher estimate from one forward and backward pass.

use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};

use candle_core::Tensor;
use rayon::prelude::*;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::fisher::fisher;
pub use super::fisher::{Candidates, SitePerturbation};
use super::shard::Shard;
use crate::analysis::metrics;
use crate::analysis::suffix::Reference;
use crate::error::{Error, Result};
use crate::input::batches;
use crate::model::{Network, Site, SiteInfo, Trace};
use crate::progress::{Cancel, Counter, Progress};
use crate::quant::method::Parts;
use crate::quant::{GroupCount, Plan, Settings};
use crate::quant::{Method, SitePlan};
use crate::session::Session;

/// Counts that are tried unless others are asked for \[D\].
pub const CANDIDATES: [u8; 10] = [2, 4, 6, 8, 10, 12, 14, 16, 24, 32];

/// How perturbations are found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Estimate {
    /// KL of the prediction with only this site quantized, the rest in float (section 3.3).
    Alone,
    /// KL of the prediction with this site at the count and every other site quantized as the settings say \[D\]: sites interact.
    Among,
    /// Half the squared gradient at the site times the squared quantization error \[D\].
    Fisher,
}

impl Estimate {
    /// All estimates.
    pub const ALL: [Self; 3] = [Self::Alone, Self::Among, Self::Fisher];

    /// The name used in flags and reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Alone => "alone",
            Self::Among => "among",
            Self::Fisher => "fisher",
        }
    }
}

impl FromStr for Estimate {
    type Err = Error;
    fn from_str(s: &str) -> Result<Self> {
        let known = Self::ALL.into_iter().find(|estimate| estimate.name() == s);
        known.ok_or_else(|| Error::setting("estimate", s, format!("one of {}", Self::ALL.map(Self::name).join(", "))))
    }
}

/// Perturbations of sites at candidate counts; a site that is missing was not computed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Perturbation {
    /// How they were found.
    pub estimate: Estimate,
    /// The counts.
    pub candidates: Vec<GroupCount>,
    /// Number of calibration pictures.
    pub images: usize,
    /// By site, in the order of the forward pass once all are there.
    pub sites: Vec<SitePerturbation>,
}

impl Perturbation {
    /// None computed yet.
    #[must_use]
    pub const fn empty(estimate: Estimate, candidates: Vec<GroupCount>, images: usize) -> Self {
        Self { estimate, candidates, images, sites: Vec::new() }
    }

    /// Perturbation of `site`.
    #[must_use]
    pub fn of(&self, site: Site) -> Option<&SitePerturbation> {
        self.sites.iter().find(|s| s.site == site)
    }

    /// Spearman's rank correlation with another estimate, for each candidate, over the sites that both have; none for fewer than three.
    #[must_use]
    pub fn rank_correlation(&self, other: &Self) -> Vec<(GroupCount, Option<f64>)> {
        let of = |candidate: GroupCount| {
            let at = other.candidates.iter().position(|c| *c == candidate)?;
            let here = self.candidates.iter().position(|c| *c == candidate)?;
            let both = self.sites.iter().filter_map(|s| Some((s.omega[here], other.of(s.site)?.omega[at])));
            let (a, b): (Vec<f64>, Vec<f64>) = both.unzip();
            metrics::spearman(&a, &b)
        };
        self.candidates.iter().map(|&c| (c, of(c))).collect()
    }
}

/// Exact perturbations of `sites`, several at a time; `found` hears each as it is done, in any order.
///
/// `base` is the plan of all other sites: float for [`Estimate::Alone`], quantized for [`Estimate::Among`]; `before` are the runs under it.
///
/// # Errors
/// When `cancel` was called; what `found` has heard stays valid.
pub fn exact(
    network: &dyn Network,
    reference: &Reference,
    base: &Plan,
    before: &[Trace],
    sites: &[Candidates],
    cancel: &Cancel,
    found: &(dyn Fn(SitePerturbation) + Sync),
) -> Result<()> {
    sites.par_iter().try_for_each(|(info, plans)| {
        let omega = plans.iter().map(|plan| {
            let plan = base.with(plan.clone());
            reference.kl(network, before, info.step, &plan, cancel)
        });
        found(SitePerturbation { site: info.site, omega: omega.collect::<Result<_>>()? });
        Ok(())
    })
}

/// The counts that are tried unless others are named.
#[must_use]
pub fn default_candidates() -> Vec<GroupCount> {
    CANDIDATES.into_iter().filter_map(|g| GroupCount::new(g).ok()).collect()
}

/// The settings that perturbations depend on: only [`Estimate::Among`] depends on the counts of other sites.
#[must_use]
pub fn without_counts(settings: &Settings, estimate: Estimate) -> Settings {
    match estimate {
        Estimate::Among => settings.clone(),
        Estimate::Alone | Estimate::Fisher => settings.uniform(Settings::default().groups),
    }
}

/// Which calibration pictures perturbations are found on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Pictures {
    /// All of them.
    All,
    /// The first, the third and so on: the rest judge what is found.
    EveryOther,
}

/// How perturbations are looked for.
#[derive(Debug, Clone, Copy)]
pub struct Search<'s> {
    /// How they are found.
    pub estimate: Estimate,
    /// The counts that are tried.
    pub candidates: &'s [GroupCount],
    /// What they are found on.
    pub pictures: Pictures,
    /// This part of the sites only.
    pub shard: Option<Shard>,
}

impl<'s> Search<'s> {
    /// All sites on all calibration pictures.
    #[must_use]
    pub const fn new(estimate: Estimate, candidates: &'s [GroupCount]) -> Self {
        Self { estimate, candidates, pictures: Pictures::All, shard: None }
    }

    /// How many of `images` calibration pictures are looked at.
    #[must_use]
    pub const fn images(&self, images: usize) -> usize {
        match self.pictures {
            Pictures::All => images,
            Pictures::EveryOther => images.div_ceil(2),
        }
    }

    /// The pictures, in batches.
    ///
    /// # Errors
    /// When there are none.
    pub fn batches(&self, session: &Session) -> Result<Vec<Tensor>> {
        match self.pictures {
            Pictures::All => Ok(session.calibration_batches()?.to_vec()),
            Pictures::EveryOther => every_other(session, 0),
        }
    }

    /// What the entries of the cache are found by.
    fn key(&self, settings: &Settings) -> (Settings, Estimate, Vec<GroupCount>, Pictures) {
        (without_counts(settings, self.estimate), self.estimate, self.candidates.to_vec(), self.pictures)
    }
}

/// Every second calibration picture, from number `first` on, in batches of one.
fn every_other(session: &Session, first: usize) -> Result<Vec<Tensor>> {
    Ok(batches::cut(session.calibration_batches()?, 1)?.into_iter().skip(first).step_by(2).collect())
}

/// The calibration pictures that [`Pictures::EveryOther`] leaves out.
///
/// # Errors
/// When there are fewer than two calibration pictures.
pub fn judges(session: &Session) -> Result<Vec<Tensor>> {
    let left = every_other(session, 1)?;
    let few = || Error::setting("--calibration-images", 1, "at least two, so that one of them can judge; or --data");
    if left.is_empty() { Err(few()) } else { Ok(left) }
}

/// Perturbations that an earlier session has left in the cache.
#[must_use]
pub fn stored(session: &Session, settings: &Settings, search: &Search) -> Vec<SitePerturbation> {
    let stored: Vec<SitePerturbation> = session.store().and_then(|s| s.get("perturbation", &search.key(settings))).unwrap_or_default();
    stored.into_iter().filter(|s| s.omega.len() == search.candidates.len() && s.omega.iter().all(|o| o.is_finite())).collect()
}

/// What is told while perturbations are computed.
#[derive(Debug, Clone)]
pub enum StudyUpdate {
    /// How far what comes before the first of them is.
    Stage(Progress),
    /// One of them, and the number of all.
    Found(SitePerturbation, usize),
}

/// Perturbations of the sites whose count matters under `settings`; `known` are not computed again. `tell` hears of each.
///
/// # Errors
/// When `cancel` was called, the method has no group counts, or there are no calibration pictures.
pub fn perturb(
    session: &Session,
    settings: &Settings,
    search: &Search,
    known: &[SitePerturbation],
    cancel: &Cancel,
    tell: &(dyn Fn(StudyUpdate) + Sync),
) -> Result<Perturbation> {
    let model = &session.opened().model;
    let network = model.network();
    let matters = |info: &&SiteInfo| !settings.activation_bits(info.site).is_float() && settings.scheme(info.site).uses_groups();
    let Search { estimate, candidates, .. } = *search;
    let stored = stored(session, settings, search).into_iter().filter(|s| known.iter().all(|k| k.site != s.site));
    let known: Vec<SitePerturbation> = known.iter().cloned().chain(stored).collect();
    let mut infos: Vec<_> = model.sites().iter().filter(matters).collect();
    if infos.is_empty() {
        return Err(Error::setting(
            "method",
            settings.describe(),
            format!("one with group counts: {}", Method::names_with(|spec| matches!(spec.parts, Parts::Groups | Parts::TokenGroups))),
        ));
    }
    if let Some(shard) = search.shard {
        infos = (0..).zip(infos).filter(|(index, _)| shard.takes(*index)).map(|(_, info)| info).collect();
    }
    let (known, others): (Vec<_>, Vec<_>) = known.into_iter().partition(|known| infos.iter().any(|info| info.site == known.site));
    let total = infos.len();
    let missing: Vec<_> = infos.iter().filter(|info| !known.iter().any(|k| k.site == info.site)).collect();
    let fitted = Counter::new("fitting quantizers for every count", missing.len());
    let sites = missing
        .par_iter()
        .map(|info| {
            cancel.check()?;
            let at = |&count: &GroupCount| session.site_plan(&settings.with_counts([(info.site, count)]), info);
            let plans = candidates.iter().map(at).collect::<Result<Vec<_>>>()?;
            tell(StudyUpdate::Stage(fitted.add(1)));
            // The layer's weight is the same for every count: alone, only the activation is quantized.
            let alone = |mut plan: SitePlan| {
                plan.weight = plan.weight.filter(|_| estimate == Estimate::Among);
                plan
            };
            Ok(((**info).clone(), plans.into_iter().map(alone).collect()))
        })
        .collect::<Result<Vec<Candidates>>>()?;
    let done = Mutex::new(known.clone());
    let found = |one: SitePerturbation| {
        let mut done = done.lock().unwrap_or_else(PoisonError::into_inner);
        done.push(one.clone());
        tell(StudyUpdate::Found(one, total));
    };
    let images = search.images(session.calibration_report().images);
    let reference = || match search.pictures {
        Pictures::All => session.reference(cancel),
        Pictures::EveryOther => Ok(Arc::new(Reference::new(network, model.sites(), &search.batches(session)?, cancel)?)),
    };
    let computed = match estimate {
        _ if sites.is_empty() => Ok(()),
        Estimate::Fisher => {
            let pictures = Counter::new("gradients of the calibration pictures", images);
            let seen = |more| tell(StudyUpdate::Stage(pictures.add(more)));
            let estimated = fisher(network, &search.batches(session)?, &sites, settings.seed, cancel, &seen);
            estimated.map(|all| all.into_iter().for_each(found))
        }
        Estimate::Alone => {
            let (base, reference) = (Plan::float(model.sites()), reference()?);
            exact(network, &reference, &base, reference.traces(), &sites, cancel, &found)
        }
        Estimate::Among => {
            let (base, reference) = (session.plan(settings)?, reference()?);
            let before = reference.under(network, &base, cancel)?;
            exact(network, &reference, &base, &before, &sites, cancel, &found)
        }
    };
    let mut sites = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    if let Some(store) = session.store().filter(|_| sites.len() > known.len()) {
        store.keep("perturbation", &search.key(settings), &[sites.clone(), others].concat());
    }
    computed?;
    sites.sort_by_key(|s| infos.iter().position(|info| info.site == s.site));
    Ok(Perturbation { estimate, candidates: candidates.to_vec(), images, sites })
}
