//! Which sites lose the prediction, both ways: what one costs by itself, and what the quantized run would gain without it.

use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Instant;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::both_ways::{Look, SHIFT, SiteSensitivity, both_ways};
use super::evaluate::{self, sorted_parts};
use super::perturbation::default_candidates;
use super::shard::{Shard, interleave};
use crate::analysis::Divergence;
use crate::analysis::SCHEMA_VERSION;
use crate::analysis::report::CalibrationReport;
use crate::analysis::suffix::Reference;
use crate::error::{Error, Result};
use crate::input::batches;
use crate::model::{Network, Site, SiteInfo};
use crate::progress::{Cancel, Counter, Progress};
use crate::quant::{BitWidth, GroupCount, Plan, Settings, SiteOverride};
use crate::quant::{Part, SitePlan};
use crate::session::Session;

/// What reports of before meant.
const fn one() -> usize {
    1
}

/// All sites, both ways.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SensitivityReport {
    /// Version of the form.
    pub schema_version: u32,
    /// Short name of the model.
    pub model: String,
    /// What was inferred or assumed about it.
    pub notes: Vec<String>,
    /// The settings as resolved.
    pub settings: Settings,
    /// What the quantizers were fitted on.
    pub calibration: CalibrationReport,
    /// What was looked at.
    pub data: String,
    /// Number of pictures.
    pub images: usize,
    /// Everything quantized.
    pub whole: Divergence,
    /// Only the weights.
    pub weights_only: Divergence,
    /// Only the activations.
    pub activations_only: Divergence,
    /// Only the softmax attentions.
    pub softmax_only: Divergence,
    /// Sum of `only` over the sites, in nats, to hold against `whole`.
    pub sum_only: f64,
    /// Quantized sites, the most sensitive by itself first.
    pub sites: Vec<SiteSensitivity>,
    /// In a few sentences.
    pub verdict: String,
    /// Wall time in seconds.
    pub seconds: f64,
    /// Whether it was interrupted: not all sites were looked at.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub partial: bool,
    /// Draws of quantizers, slightly shifted, that every effect is the mean of; 1: the quantizers as they are.
    #[serde(default = "one")]
    pub shifts: usize,
    /// Which part of the sites was looked at, in the order of the forward pass; none for all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shard: Option<Shard>,
}

/// Ranks sites in the order of the forward pass, the most sensitive by itself first.
fn ranked(mut sites: Vec<SiteSensitivity>) -> Vec<SiteSensitivity> {
    sites.sort_by(|a, b| b.gain.total_cmp(&a.gain));
    for site in &mut sites {
        site.rank_gain = None;
    }
    (1..).zip(sites.iter_mut().filter(|site| !site.is_noise())).for_each(|(rank, site)| site.rank_gain = Some(rank));
    sites.sort_by(|a, b| b.only.kl.total_cmp(&a.only.kl));
    (1..).zip(&mut sites).for_each(|(rank, site)| site.rank_only = rank);
    sites
}

/// The report on all sites, from those on all parts.
///
/// # Errors
/// When a part is missing, is there twice, or belongs to another study.
pub fn merge(parts: Vec<SensitivityReport>) -> Result<SensitivityReport> {
    let (mut parts, shards) = sorted_parts(parts, |report| report.shard)?;
    let about = |r: &SensitivityReport| (r.model.clone(), r.settings.clone(), r.calibration.clone(), r.data.clone(), r.images, r.whole);
    if let Some(other) = (1..parts.len()).find(|&index| about(&parts[index]) != about(&parts[0])) {
        return Err(Error::setting("part", shards[other], "the same model, settings and pictures as in the first file"));
    }
    let sites = interleave(parts.iter_mut().map(|part| std::mem::take(&mut part.sites).into_iter()).collect())?;
    let seconds = parts.iter().map(|part| part.seconds).sum();
    let Some(whole) = parts.into_iter().next() else { return Err(Error::setting("parts", 0, "at least one file")) };
    Ok(finished(SensitivityReport { sites, seconds, shard: None, ..whole }))
}

/// Ranks the sites of a report, adds up and says it in words.
fn finished(report: SensitivityReport) -> SensitivityReport {
    let sites = ranked(report.sites);
    let mut report = SensitivityReport { sum_only: sites.iter().map(|s| s.only.kl).sum(), sites, ..report };
    report.verdict = verdict(&report);
    report
}

/// The effect of a part of `plan` by itself.
///
/// # Errors
/// When `cancel` was called.
pub fn of_part(network: &dyn Network, reference: &Reference, plan: &Plan, part: Part, cancel: &Cancel) -> Result<Divergence> {
    reference.effect_of(network, &plan.part(part), cancel)
}

/// The report in a few sentences.
#[must_use]
pub fn verdict(report: &SensitivityReport) -> String {
    let Some(worst) = report.sites.first() else { return "Nothing is quantized.".into() };
    let parts = [("weights", report.weights_only.kl), ("activations", report.activations_only.kl), ("the softmax", report.softmax_only.kl)];
    let (most, kl) = parts.into_iter().fold(("nothing", 0.0), |most, part| if part.1 > most.1 { part } else { most });
    let mut text = format!(
        "Of weights, activations and softmax alone, {most} costs most (KL {kl:.4}). Quantized alone, {} has the largest KL of a site: {:.4}, {:.0} % of the sum over all.",
        worst.site,
        worst.only.kl,
        100.0 * worst.only.kl / report.sum_only.max(f64::MIN_POSITIVE)
    );
    let gains = |s: &&SiteSensitivity| s.rank_gain.is_some() && s.gain > 0.0;
    let best = report.sites.iter().filter(gains).min_by_key(|s| s.rank_gain);
    if let Some(best) = best {
        let interval = best.gain_interval.map(|[low, high]| format!(", 95 % of the gain {low:.4} to {high:.4}")).unwrap_or_default();
        let whole = best.without.kl + best.gain;
        text += &format!(" Left in float, {} gains most: KL {whole:.4} to {:.4}{interval}.", best.site, best.without.kl);
    }
    let noise = report.sites.iter().filter(|s| s.is_noise()).count();
    if noise > 0 {
        let nothing = if best.is_none() {
            ": no single site is known to be worth leaving in float; --shifts or more images may settle it"
        } else {
            ""
        };
        text += &format!(" For {noise} of {} sites the gain is within noise{nothing}.", report.sites.len());
    }
    let ratio = report.whole.kl / report.sum_only.max(f64::MIN_POSITIVE);
    let how = match ratio {
        r if r > 1.25 => "errors compound, they add up to more than their parts",
        r if r < 0.8 => "errors partly cancel",
        _ => "sites hardly interact",
    };
    text += &format!(" All sites together {:.4}, the sum of each alone {:.4} ({ratio:.2} times): {how}.", report.whole.kl, report.sum_only);
    if report.shifts > 1 {
        text += &format!(" Means over {} draws of quantizers with bounds shifted by up to {} %.", report.shifts, 100.0 * SHIFT);
    }
    if let Some(fewest) = report.sites.iter().map(|s| s.images).min().filter(|fewest| *fewest < report.images) {
        let all = report.sites.iter().filter(|s| s.images == report.images).count();
        text += &format!(" Only the {all} sites that lose most on the first {fewest} images are measured on all {}.", report.images);
    }
    text
}

/// What is varied for each site by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    /// Bits of activation and weight, 2 to 8.
    Bits,
    /// Group counts.
    Groups,
}

impl By {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Bits, Self::Groups];

    /// The name used in flags.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Bits => "bits",
            Self::Groups => "groups",
        }
    }
}

impl FromStr for By {
    type Err = Error;
    fn from_str(s: &str) -> Result<Self> {
        let known = Self::ALL.into_iter().find(|by| by.name() == s);
        known.ok_or_else(|| Error::setting("what is varied", s, format!("one of {}", Self::ALL.map(Self::name).join(", "))))
    }
}

/// Pictures that every site is measured on where the study is to be fast, and sites that are measured on all of them.
const FAST: (usize, usize) = (2, 5);
/// The float runs of the pictures that are looked at, and what they are: a folder's, or the calibration pictures; at most `limit`.
///
/// # Errors
/// When a folder holds no pictures or one cannot be read; when there are no calibration pictures.
pub fn pictures(session: &Session, data: Option<&Path>, limit: Option<usize>, cancel: &Cancel) -> Result<(String, Arc<Reference>)> {
    let opened = session.opened();
    let Some(folder) = data else {
        let source = &session.calibration_report().source;
        let Some(limit) = limit else {
            return Ok((format!("the calibration pictures ({source})"), session.reference(cancel)?));
        };
        let batches = batches::cut(session.calibration_batches()?, 1)?;
        let first = &batches[..limit.clamp(1, batches.len())];
        let reference = Reference::new(opened.model.network(), opened.model.sites(), first, cancel)?;
        return Ok((format!("the first {} calibration pictures ({source})", first.len()), Arc::new(reference)));
    };
    let set = evaluate::data(session, Some(folder), limit)?;
    let batches = batches::load_all(&set.pictures, &opened.preprocess)?;
    Ok((set.name, Arc::new(Reference::new(opened.model.network(), opened.model.sites(), &batches, cancel)?)))
}

/// How much of it is done.
#[derive(Debug, Clone, Copy)]
pub struct Effort {
    /// This part of the sites only.
    pub shard: Option<Shard>,
    /// Every site on the first pictures, and only those that lose most there on all.
    pub fast: bool,
    /// Draws of quantizers that effects are averaged over.
    pub shifts: usize,
}

impl Default for Effort {
    fn default() -> Self {
        Self { shard: None, fast: false, shifts: 1 }
    }
}

/// Looks at every site both ways under `settings`. When `cancel` was called after the first sites, at those.
///
/// # Errors
/// When the settings do not fit, or `cancel` was called.
pub fn report(
    session: &Session,
    settings: &Settings,
    (data, reference): &(String, Arc<Reference>),
    by: &[By],
    Effort { shard, fast, shifts }: Effort,
    cancel: &Cancel,
    progress: &(dyn Fn(Progress) + Sync),
) -> Result<SensitivityReport> {
    let started = Instant::now();
    let model = &session.opened().model;
    let network = model.network();
    let plan = session.plan(settings)?;
    let at = |info: &SiteInfo, own: SiteOverride| {
        let mut settings = settings.clone();
        settings.overrides.push(own);
        session.site_plan(&settings, info)
    };
    let own = |info: &SiteInfo| SiteOverride { sites: info.site.into(), wbits: None, abits: None, groups: None };
    let bits = |info: &SiteInfo| {
        let widths = BitWidth::ALL.into_iter().filter(|b| !b.is_float() && by.contains(&By::Bits));
        widths.map(|b| Ok((b, at(info, SiteOverride { wbits: Some(b), abits: Some(b), ..own(info) })?))).collect()
    };
    let groups = |info: &SiteInfo| {
        let used = by.contains(&By::Groups) && settings.scheme(info.site).uses_groups();
        let counts = default_candidates().into_iter().filter(|_| used);
        counts.map(|g: GroupCount| Ok((g, at(info, SiteOverride { groups: Some(g), ..own(info) })?))).collect()
    };
    let quantized = model.sites().iter().filter(|info| plan.sites.get(&info.site).is_some_and(SitePlan::is_quantized));
    let part: Vec<&SiteInfo> = (0..).zip(quantized).filter(|(i, _)| shard.is_none_or(|s| s.takes(*i))).map(|(_, info)| info).collect();
    let looked = Counter::new("sensitivity of each site, both ways", part.len());
    let found = || progress(looked.add(1));
    let look = Look { bits: &bits, groups: &groups, parts: true, shifts };
    let (no_bits, no_groups) = (|_: &SiteInfo| Ok(Vec::new()), |_: &SiteInfo| Ok(Vec::new()));
    let glance = Look { bits: &no_bits, groups: &no_groups, parts: false, shifts: 1 };
    let part_of = |part: Part| of_part(network, reference, &plan, part, cancel);
    let (weights_only, activations_only, softmax_only) = (part_of(Part::Weights)?, part_of(Part::Activations)?, part_of(Part::Softmax)?);
    let first = reference.first(network, model.sites(), if fast { FAST.0 } else { usize::MAX }, cancel)?;
    let (mut whole, mut sites) = both_ways(network, &first, &plan, &part, if fast { &glance } else { &look }, cancel, &found)?;
    if fast {
        let mut most: Vec<(f64, Site)> = sites.iter().map(|s| (s.only.kl.max(s.gain), s.site)).collect();
        most.sort_by(|a, b| b.0.total_cmp(&a.0));
        let most: Vec<&SiteInfo> =
            part.iter().copied().filter(|info| most.iter().take(FAST.1).any(|(_, site)| *site == info.site)).collect();
        let looked = Counter::new("the sites that lose most, on all pictures", most.len());
        let (of_all, again) = both_ways(network, reference, &plan, &most, &look, cancel, &|| progress(looked.add(1)))?;
        whole = of_all;
        for site in again {
            if let Some(known) = sites.iter_mut().find(|known| known.site == site.site) {
                *known = site;
            }
        }
    }
    let report = SensitivityReport {
        schema_version: SCHEMA_VERSION,
        model: model.name.clone(),
        notes: model.notes.clone(),
        settings: settings.clone(),
        calibration: session.calibration_report().clone(),
        data: data.clone(),
        images: reference.images(),
        whole,
        weights_only,
        activations_only,
        softmax_only,
        sum_only: sites.iter().map(|s| s.only.kl).sum(),
        sites,
        verdict: String::new(),
        seconds: started.elapsed().as_secs_f64(),
        partial: cancel.is_cancelled(),
        shifts: shifts.max(1),
        shard: shard.filter(|_| !cancel.is_cancelled()),
    };
    Ok(if report.shard.is_some() { report } else { finished(report) })
}
