//! How much the prediction is perturbed by each group count of each site (section 3.3): exactly, by re-running the suffix of the network,
//! or fast, by a diagonal Fisher estimate from one forward and backward pass.

use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};

use candle_core::{D, DType, Device, Tensor, Var};
use rayon::prelude::*;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::shard::Shard;
use crate::analysis::suffix::Reference;
use crate::analysis::{metrics, prediction};
use crate::error::{Error, Result};
use crate::input::batches;
use crate::memory::BATCH;
use crate::model::{Identity, Network, Site, SiteInfo, Tap, Trace, trace};
use crate::progress::{Cancel, Counter, Progress};
use crate::quant::method::Parts;
use crate::quant::run::fake_quantize_picture;
use crate::quant::{GroupCount, Plan, Settings};
use crate::quant::{Method, SitePlan};
use crate::session::Session;

/// Counts that are tried unless others are asked for \[D\].
pub const CANDIDATES: [u8; 10] = [2, 4, 6, 8, 10, 12, 14, 16, 24, 32];
/// Pictures of one backward pass: fewer than of a forward pass, because it keeps every operand.
const BACKWARD: usize = BATCH / 4;

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

/// Perturbation of one site.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SitePerturbation {
    /// Its address.
    pub site: Site,
    /// `Omega(g)` in nats, one for each candidate.
    pub omega: Vec<f64>,
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

/// A site and its plan at every candidate count.
pub type Candidates = (SiteInfo, Vec<SitePlan>);

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
            Ok(reference.effect(network, before, info.step, &plan, cancel)?.kl)
        });
        found(SitePerturbation { site: info.site, omega: omega.collect::<Result<_>>()? });
        Ok(())
    })
}

/// Adds a zero that gradients can be asked of to every operand, and keeps the operand.
struct Probe {
    seen: Vec<(Site, Tensor, Var)>,
}

impl Tap for Probe {
    fn activation(&mut self, site: Site, x: Tensor) -> Result<Tensor> {
        let zero = Var::zeros(x.dims(), DType::F32, x.device())?;
        let probed = (&x + zero.as_tensor())?;
        self.seen.push((site, x.detach(), zero));
        Ok(probed)
    }
}

/// Fast perturbations of all `sites` from one forward and one backward pass over the pictures.
///
/// To second order `KL(p || q) = e' F e / 2`, where `F` is the Fisher matrix of the prediction at the site and `e` the quantization error.
/// Its diagonal is estimated by `g^2`, where `g` is the gradient of `logits . S r`, `S = diag(sqrt p) - p sqrt(p)'`, and `r` has random
/// signs: `S S'` is the Fisher matrix of the logits, so the estimate has no bias \[D\].
///
/// `seen` hears how many pictures every part had.
///
/// # Errors
/// When `cancel` was called.
pub fn fisher(
    network: &dyn Network,
    batches: &[Tensor],
    sites: &[Candidates],
    seed: u64,
    cancel: &Cancel,
    seen: &(dyn Fn(usize) + Sync),
) -> Result<Vec<SitePerturbation>> {
    let mut random = fastrand::Rng::with_seed(seed);
    let parts: Vec<_> = batches::cut(batches, BACKWARD)?.into_iter().map(|part| (part, random.fork())).collect();
    let estimated = parts.into_par_iter().map(|(part, random)| {
        let sums = fisher_of_part(network, &part, sites, random, cancel)?;
        seen(part.dim(0)?);
        Ok(sums)
    });
    let estimated = estimated.collect::<Result<Vec<_>>>()?;
    let images = batches.iter().map(|batch| batch.dim(0)).sum::<candle_core::Result<usize>>()?.max(1) as f64;
    let omega = |site: usize, plan: usize| 0.5 * estimated.iter().map(|part| part[site][plan]).sum::<f64>() / images;
    let of_site = |(index, (info, plans)): (usize, &Candidates)| SitePerturbation {
        site: info.site,
        omega: (0..plans.len()).map(|plan| omega(index, plan)).collect(),
    };
    Ok(sites.iter().enumerate().map(of_site).collect())
}

/// `sum g^2 e^2` over a few pictures, for every site and plan. Step by step from the last one back, each run again from its boundary, so that
/// only what one step computes waits for its gradient.
fn fisher_of_part(
    network: &dyn Network,
    part: &Tensor,
    sites: &[Candidates],
    mut random: fastrand::Rng,
    cancel: &Cancel,
) -> Result<Vec<Vec<f64>>> {
    cancel.check()?;
    let trace = trace(network, part, &mut Identity)?;
    // The KL of a detector is the mean over its queries, each a row of its own.
    let queries = trace.output.logits.dim(1)?.max(1) as f64;
    let rows = trace.output.logits.flatten_to(1)?.to_vec2::<f32>()?;
    let directions: Vec<f32> = rows.iter().flat_map(|row| direction(row, &mut random)).collect();
    let mut upper = Tensor::from_vec(directions, trace.output.logits.dims(), &Device::Cpu)?;
    let mut sums: Vec<Vec<f64>> = sites.iter().map(|(_, plans)| vec![0.0; plans.len()]).collect();
    for (step, boundary) in trace.boundaries.iter().enumerate().rev() {
        cancel.check()?;
        let (mut probe, start) = (Probe { seen: Vec::new() }, Var::from_tensor(boundary)?);
        let end = network.step(step, start.as_tensor(), &mut probe)?;
        let end = if step + 1 == trace.boundaries.len() { network.output(&end)?.logits } else { end };
        let gradients = (&end * upper)?.sum_all()?.backward()?;
        let of_site = |((info, plans), sums): (&Candidates, &mut Vec<f64>)| {
            let seen = probe.seen.iter().find(|(site, ..)| *site == info.site);
            if let Some((x, gradient)) = seen.and_then(|(_, x, zero)| Some((x, gradients.get(zero.as_tensor())?))) {
                *sums = weighted_errors(info.site, x, gradient, plans)?.into_iter().map(|sum| sum / queries).collect();
            }
            cancel.check()
        };
        sites.par_iter().zip(&mut sums).filter(|((info, _), _)| info.step == step).try_for_each(of_site)?;
        upper = match gradients.get(start.as_tensor()) {
            Some(gradient) => gradient.clone(),
            None => boundary.zeros_like()?,
        };
    }
    Ok(sums)
}

/// `S r` for one row of logits.
fn direction(logits: &[f32], random: &mut fastrand::Rng) -> Vec<f32> {
    let p = prediction::softmax(logits);
    let signed: Vec<f64> = p.iter().map(|p| if random.bool() { p.sqrt() } else { -p.sqrt() }).collect();
    let along: f64 = signed.iter().sum();
    p.iter().zip(signed).map(|(p, s)| (s - p * along) as f32).collect()
}

/// `sum g^2 e^2` over the tensor of a site, for every plan.
fn weighted_errors(site: Site, x: &Tensor, gradient: &Tensor, plans: &[SitePlan]) -> Result<Vec<f64>> {
    let last = x.dim(D::Minus1)?;
    let (x, gradient, pictures) = (x.flatten_all()?.to_vec1::<f32>()?, gradient.flatten_all()?.to_vec1::<f32>()?, x.dim(0)?);
    let size = x.len() / pictures;
    let mut sums = vec![0.0; plans.len()];
    let mut after = vec![0.0; size];
    // One picture at a time, so that its values stay in the caches for all plans.
    for (x, gradient) in x.chunks_exact(size).zip(gradient.chunks_exact(size)) {
        for (sum, plan) in sums.iter_mut().zip(plans) {
            let Some(quantizers) = &plan.quantizers else { continue };
            if fake_quantize_picture(site, x, &mut after, last, quantizers, plan.bits).is_none() {
                continue;
            }
            let term = |((x, y), g): ((&f32, &f32), &f32)| f64::from((x - y) * g).powi(2);
            *sum += x.iter().zip(&after).zip(gradient).map(term).sum::<f64>();
        }
    }
    Ok(sums)
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
