//! Which sites lose the prediction, both ways: what one costs by itself, and what the quantized run would gain without it.

use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Instant;

use rayon::prelude::*;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

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

/// KL of a site by itself at one bit-width or group count.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Level<T> {
    /// The bit-width (of activation and weight) or the group count.
    pub level: T,
    /// Mean KL in nats.
    pub kl: f64,
}

/// One site, both ways.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SiteSensitivity {
    /// Its address.
    pub site: Site,
    /// Place among the sites by `only`, from 1.
    pub rank_only: usize,
    /// Place among the sites by `gain`, from 1.
    pub rank_gain: usize,
    /// Only this site and its layer's weight quantized.
    pub only: Divergence,
    /// Only its activation.
    pub only_activation: Option<Divergence>,
    /// Only its layer's weight.
    pub only_weight: Option<Divergence>,
    /// All but this site.
    pub without: Divergence,
    /// KL of the whole less KL without this site, in nats.
    pub gain: f64,
    /// Pictures that it was measured on.
    pub images: usize,
    /// By itself at every bit-width, where asked for.
    pub by_bits: Vec<Level<BitWidth>>,
    /// By itself at several group counts, where asked for.
    pub by_groups: Vec<Level<GroupCount>>,
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
    /// Which part of the sites was looked at, in the order of the forward pass; none for all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shard: Option<Shard>,
}

/// The plans of a site at several levels of something.
pub type PlansAt<'l, T> = dyn Fn(&SiteInfo) -> Result<Vec<(T, SitePlan)>> + Sync + 'l;

/// What is looked at beside the settings as they are.
pub struct Levels<'l> {
    /// Plans of a site at every bit-width.
    pub bits: &'l PlansAt<'l, BitWidth>,
    /// Plans of a site at several group counts.
    pub groups: &'l PlansAt<'l, GroupCount>,
}

/// The effect of the whole plan, and every one of `sites` that is quantized both ways, several at a time, in their order and not yet ranked;
/// `found` hears each.
///
/// # Errors
/// When `cancel` was called.
pub fn both_ways(
    network: &dyn Network,
    reference: &Reference,
    plan: &Plan,
    sites: &[&SiteInfo],
    levels: &Levels,
    cancel: &Cancel,
    found: &(dyn Fn() + Sync),
) -> Result<(Divergence, Vec<SiteSensitivity>)> {
    let quantized = reference.under(network, plan, cancel)?;
    let float = plan.in_float();
    let whole = reference.compare(&Reference::predictions_of(&quantized)?);
    let look = |info: &&SiteInfo| {
        let Some(own) = plan.sites.get(&info.site).filter(|p| p.is_quantized()) else { return Ok(None) };
        let alone = |plan: SitePlan| reference.effect(network, reference.traces(), info.step, &float.with(plan), cancel);
        let part = |plan: SitePlan| if plan.is_quantized() { alone(plan).map(Some) } else { Ok(None) };
        let without = reference.effect(network, &quantized, info.step, &plan.without(info.site), cancel)?;
        let by_bits = (levels.bits)(info)?.into_iter().map(|(level, plan)| Ok(Level { level, kl: alone(plan)?.kl }));
        let by_groups = (levels.groups)(info)?.into_iter().map(|(level, plan)| Ok(Level { level, kl: alone(plan)?.kl }));
        let site = SiteSensitivity {
            site: info.site,
            rank_only: 0,
            rank_gain: 0,
            only: alone(own.clone())?,
            only_activation: part(SitePlan { weight: None, ..own.clone() })?,
            only_weight: part(SitePlan { quantizers: None, bits: BitWidth::FLOAT, ..own.clone() })?,
            without,
            gain: whole.kl - without.kl,
            images: reference.images(),
            by_bits: by_bits.collect::<Result<_>>()?,
            by_groups: by_groups.collect::<Result<_>>()?,
        };
        found();
        Ok(Some(site))
    };
    // What is through when the study is interrupted stays.
    let kept = |info: &&SiteInfo| match look(info) {
        Err(Error::Cancelled) => Ok(None),
        looked => looked,
    };
    let looked = sites.par_iter().map(kept).collect::<Result<Vec<_>>>()?.into_iter().flatten().collect();
    Ok((whole, looked))
}

/// Ranks sites in the order of the forward pass, the most sensitive by itself first.
fn ranked(mut sites: Vec<SiteSensitivity>) -> Vec<SiteSensitivity> {
    sites.sort_by(|a, b| b.gain.total_cmp(&a.gain));
    (1..).zip(&mut sites).for_each(|(rank, site)| site.rank_gain = rank);
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
    let mut text = format!(
        "Quantized alone, {} has the largest KL: {:.4}, {:.0} % of the sum over all sites.",
        worst.site,
        worst.only.kl,
        100.0 * worst.only.kl / report.sum_only.max(f64::MIN_POSITIVE)
    );
    if let Some(best) = report.sites.iter().find(|s| s.rank_gain == 1 && s.gain > 0.0) {
        text += &format!(" Left in float, {} would gain most: KL {:.4} to {:.4}.", best.site, report.whole.kl, best.without.kl);
    }
    let ratio = report.whole.kl / report.sum_only.max(f64::MIN_POSITIVE);
    let how = match ratio {
        r if r > 1.25 => "errors add up to more than their parts",
        r if r < 0.8 => "errors partly cancel",
        _ => "sites hardly interact",
    };
    text += &format!(" All sites together {:.4}, the sum of each alone {:.4} ({ratio:.2} times): {how}.", report.whole.kl, report.sum_only);
    let parts = [("weights", report.weights_only.kl), ("activations", report.activations_only.kl), ("the softmax", report.softmax_only.kl)];
    let (most, kl) = parts.into_iter().fold(("nothing", 0.0), |most, part| if part.1 > most.1 { part } else { most });
    if let Some(fewest) = report.sites.iter().map(|s| s.images).min().filter(|fewest| *fewest < report.images) {
        let all = report.sites.iter().filter(|s| s.images == report.images).count();
        text += &format!(" Only the {all} sites that lose most on the first {fewest} pictures are measured on all {}.", report.images);
    }
    text += &format!(" Of weights, activations and softmax alone, {most} costs most (KL {kl:.4}).");
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
const FAST: (usize, usize) = (2, 10);

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

/// Looks at every site both ways under `settings`; if `fast`, on the first pictures, and at those that lose most there on all. When `cancel` was called after the first sites, at those.
///
/// # Errors
/// When the settings do not fit, or `cancel` was called.
pub fn report(
    session: &Session,
    settings: &Settings,
    (data, reference): &(String, Arc<Reference>),
    by: &[By],
    (shard, fast): (Option<Shard>, bool),
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
    let levels = Levels { bits: &bits, groups: &groups };
    let part_of = |part: Part| of_part(network, reference, &plan, part, cancel);
    let (weights_only, activations_only, softmax_only) = (part_of(Part::Weights)?, part_of(Part::Activations)?, part_of(Part::Softmax)?);
    let first = reference.first(network, model.sites(), if fast { FAST.0 } else { usize::MAX }, cancel)?;
    let (mut whole, mut sites) = both_ways(network, &first, &plan, &part, &levels, cancel, &found)?;
    if first.images() < reference.images() {
        let mut most: Vec<(f64, Site)> = sites.iter().map(|s| (s.only.kl.max(s.gain), s.site)).collect();
        most.sort_by(|a, b| b.0.total_cmp(&a.0));
        let most: Vec<&SiteInfo> =
            part.iter().copied().filter(|info| most.iter().take(FAST.1).any(|(_, site)| *site == info.site)).collect();
        let looked = Counter::new("the sites that lose most, on all pictures", most.len());
        let (of_all, again) = both_ways(network, reference, &plan, &most, &levels, cancel, &|| progress(looked.add(1)))?;
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
        shard: shard.filter(|_| !cancel.is_cancelled()),
    };
    Ok(if report.shard.is_some() { report } else { finished(report) })
}
