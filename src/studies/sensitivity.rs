//! Which sites lose the prediction, both ways: what one costs by itself, and what the quantized run would gain without it.

use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Instant;

use rayon::prelude::*;
use schemars::JsonSchema;
use serde::Serialize;

use super::evaluate;
use super::perturbation::default_candidates;
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
#[derive(Debug, Clone, Copy, PartialEq, Serialize, JsonSchema)]
pub struct Level<T> {
    /// The bit-width (of activation and weight) or the group count.
    pub level: T,
    /// Mean KL in nats.
    pub kl: f64,
}

/// One site, both ways.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
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
    /// By itself at every bit-width, where asked for.
    pub by_bits: Vec<Level<BitWidth>>,
    /// By itself at several group counts, where asked for.
    pub by_groups: Vec<Level<GroupCount>>,
}

/// All sites, both ways.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
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

/// The effect of the whole plan, and every quantized site both ways, several at a time; `found` hears each.
///
/// # Errors
/// When `cancel` was called.
pub fn both_ways(
    network: &dyn Network,
    reference: &Reference,
    plan: &Plan,
    sites: &[SiteInfo],
    levels: &Levels,
    cancel: &Cancel,
    found: &(dyn Fn() + Sync),
) -> Result<(Divergence, Vec<SiteSensitivity>)> {
    let quantized = reference.under(network, plan, cancel)?;
    let float = Plan::float(sites);
    let whole = reference.compare(&Reference::predictions_of(&quantized)?);
    let look = |info: &SiteInfo| {
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
            by_bits: by_bits.collect::<Result<_>>()?,
            by_groups: by_groups.collect::<Result<_>>()?,
        };
        found();
        Ok(Some(site))
    };
    let mut looked: Vec<SiteSensitivity> = sites.par_iter().map(look).collect::<Result<Vec<_>>>()?.into_iter().flatten().collect();
    looked.sort_by(|a, b| b.gain.total_cmp(&a.gain));
    (1..).zip(&mut looked).for_each(|(rank, site)| site.rank_gain = rank);
    looked.sort_by(|a, b| b.only.kl.total_cmp(&a.only.kl));
    (1..).zip(&mut looked).for_each(|(rank, site)| site.rank_only = rank);
    Ok((whole, looked))
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

/// The float runs of the pictures that are looked at, and what they are: a folder's, or the calibration pictures.
///
/// # Errors
/// When a folder holds no pictures or one cannot be read; when there are no calibration pictures.
pub fn pictures(session: &Session, data: Option<&Path>, limit: Option<usize>, cancel: &Cancel) -> Result<(String, Arc<Reference>)> {
    let Some(folder) = data else {
        return Ok((format!("the calibration pictures ({})", session.calibration_report().source), session.reference(cancel)?));
    };
    let set = evaluate::data(session, Some(folder), limit)?;
    let opened = session.opened();
    let batches = batches::load_all(&set.pictures, &opened.preprocess)?;
    Ok((set.name, Arc::new(Reference::new(opened.model.network(), opened.model.sites(), &batches, cancel)?)))
}

/// Looks at every site both ways under `settings`.
///
/// # Errors
/// When the settings do not fit, or `cancel` was called.
pub fn report(
    session: &Session,
    settings: &Settings,
    (data, reference): &(String, Arc<Reference>),
    by: &[By],
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
    let total = plan.sites.values().filter(|p| p.is_quantized()).count();
    let looked = Counter::new("sensitivity of each site, both ways", total);
    let found = || progress(looked.add(1));
    let levels = Levels { bits: &bits, groups: &groups };
    let (whole, sites) = both_ways(network, reference, &plan, model.sites(), &levels, cancel, &found)?;
    let mut report = SensitivityReport {
        schema_version: SCHEMA_VERSION,
        model: model.name.clone(),
        notes: model.notes.clone(),
        settings: settings.clone(),
        calibration: session.calibration_report().clone(),
        data: data.clone(),
        images: reference.images(),
        whole,
        weights_only: of_part(network, reference, &plan, Part::Weights, cancel)?,
        activations_only: of_part(network, reference, &plan, Part::Activations, cancel)?,
        softmax_only: of_part(network, reference, &plan, Part::Softmax, cancel)?,
        sum_only: sites.iter().map(|s| s.only.kl).sum(),
        sites,
        verdict: String::new(),
        seconds: started.elapsed().as_secs_f64(),
    };
    report.verdict = verdict(&report);
    Ok(report)
}
