//! Mixed precision: bits of activations and weights and group counts of every site, chosen together under one budget of bit operations by the
//! same integer program, and judged on pictures that they were not found on beside uniform bits of no greater cost.
//!
//! What an activation loses at each width and count is estimated from gradients, what a weight loses is measured by runs on a few pictures with only
//! that weight quantized; for a product both are added \[D\].

use std::collections::BTreeMap;
use std::time::Instant;

use rayon::prelude::*;
use schemars::JsonSchema;
use serde::Serialize;

use super::fisher::{Candidates, fisher};
use super::judge::{Judge, Judged, Measured};
use super::perturbation::{Estimate, Pictures, Search};
use super::suggest::{Standing, Suggestion};
use crate::analysis::SCHEMA_VERSION;
use crate::analysis::report::CalibrationReport;
use crate::error::{Error, Result};
use crate::input::PictureSet;
use crate::model::{RightOperand, Site, SiteInfo, SiteKind};
use crate::progress::{Cancel, Counter, Progress};
use crate::quant::solve::{self, Choice};
use crate::quant::{BitWidth, GroupCount, Plan, Settings, SiteOverride, SitePlan, bops};
use crate::session::Session;

/// How the progress of a search on the screen begins.
pub const STAGE: &str = "mixed precision: ";
/// Bits that operands may get.
const BITS: [u8; 5] = [3, 4, 5, 6, 8];
/// Group counts that operands may get, where the method has groups.
const GROUPS: [u8; 3] = [4, 8, 16];
/// Calibration pictures that weights are measured on.
const PICTURES: usize = 4;

/// What a kind of sites got, on average.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct KindShare {
    /// The kind.
    pub kind: SiteKind,
    /// Mean bits of the activations.
    pub abits: f64,
    /// Mean bits of the weights; none where there are none.
    pub wbits: Option<f64>,
    /// Mean group count; none where the method has no groups.
    pub groups: Option<f64>,
}

/// One budget.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Mixed {
    /// Bit operations that were allowed: those of these bits everywhere.
    pub budget: u64,
    /// These bits.
    pub uniform: BitWidth,
    /// The settings: `--settings-file` takes them.
    pub settings: Settings,
    /// What the kinds got.
    pub kinds: Vec<KindShare>,
    /// These settings, and uniform bits of no greater cost.
    pub measured: Vec<Measured>,
    /// KL of the uniform bits less that of these settings, with its bootstrap 95 % interval: mean, low, high.
    pub gain: Option<(f64, f64, f64)>,
    /// Number of images that they were measured on.
    pub images: usize,
    /// Whether they are worth taking, in a sentence.
    pub verdict: String,
}

impl Mixed {
    /// As something to apply: reached where it is better than uniform bits beyond noise.
    #[must_use]
    pub fn suggestion(&self) -> Suggestion {
        let standing = |m: &Measured| Standing { images: self.images, kl: m.kl, agreement: m.agreement, bops: m.bops, margin: None };
        let same = self.measured.iter().skip(1).max_by_key(|m| m.bops);
        let after = self.measured.first().map_or(Standing::NONE, standing);
        let before = same.map_or(Standing::NONE, standing);
        let mean = |f: fn(&KindShare) -> Option<f64>| {
            let values: Vec<f64> = self.kinds.iter().filter_map(f).collect();
            values.iter().sum::<f64>() / values.len().max(1) as f64
        };
        let text = format!(
            "mixed precision at the cost of W{b}/A{b}, A {:.1} and W {:.1} on average: KL {:.4} to {:.4} by runs. {}",
            mean(|k| Some(k.abits)),
            mean(|k| k.wbits),
            before.kl,
            after.kl,
            self.verdict,
            b = self.uniform,
        );
        let reached = self.gain.is_some_and(|(_, low, _)| low > 0.0);
        Suggestion { settings: self.settings.clone(), changes: Vec::new(), before, after, reached, alternatives: Vec::new(), text }
    }
}

/// Bits whose cost is a bound on the screen: the usual ones, and the present ones.
#[must_use]
pub fn budgets(present: BitWidth) -> Vec<BitWidth> {
    let usual = [4, 6, 8].into_iter().filter_map(|bits| BitWidth::new(bits).ok());
    let mut budgets: Vec<BitWidth> = usual.chain(std::iter::once(present).filter(|bits| !bits.is_float())).collect();
    budgets.sort_unstable();
    budgets.dedup();
    budgets
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct MixedReport {
    /// Version of the form.
    pub schema_version: u32,
    /// Short name of the model.
    pub model: String,
    /// What was inferred or assumed about it.
    pub notes: Vec<String>,
    /// The settings of the first budget.
    pub settings: Settings,
    /// What the quantizers were fitted on.
    pub calibration: CalibrationReport,
    /// The pictures that everything was measured on.
    pub data: String,
    /// How many.
    pub images: usize,
    /// One for each budget.
    pub mixed: Vec<Mixed>,
    /// Wall time in seconds.
    pub seconds: f64,
}

/// The settings with all bits at `bits`, and nothing of a site's own but what the user gave.
fn uniform(settings: &Settings, bits: BitWidth) -> Settings {
    Settings { wbits: bits, abits: bits, sbits: bits, ..settings.clone() }
}

/// What one operand may be, and what each costs the prediction.
type Options = Vec<(SiteOverride, f64)>;

fn own(site: Site, abits: Option<BitWidth>, wbits: Option<BitWidth>, groups: Option<GroupCount>) -> SiteOverride {
    SiteOverride { sites: site.into(), wbits, abits, groups }
}

/// Sites whose operands are chosen: quantized, and not those that a preset holds at bits of its own.
fn chosen<'s>(sites: &'s [SiteInfo], settings: &Settings) -> Vec<&'s SiteInfo> {
    let free = |info: &&SiteInfo| {
        let usual = if info.site.kind.is_softmax() { settings.sbits } else { settings.abits };
        let bits = settings.activation_bits(info.site);
        !bits.is_float() && bits == usual
    };
    sites.iter().filter(free).collect()
}

/// Finds mixed precision within the cost of each of `budgets`, bits everywhere.
///
/// # Errors
/// When the method's bits are fixed by its format, nothing is quantized, a picture cannot be read, or `cancel` was called.
pub fn mixed(
    session: &Session,
    settings: &Settings,
    budgets: &[BitWidth],
    data: Option<&PictureSet>,
    cancel: &Cancel,
    progress: &(dyn Fn(Progress) + Sync),
) -> Result<MixedReport> {
    let started = Instant::now();
    let model = &session.opened().model;
    let (sites, network) = (model.sites(), model.network());
    let fixed_bits = settings.method.spec().format.and_then(crate::quant::format::Format::bits);
    let infos = chosen(sites, settings);
    if infos.is_empty() || fixed_bits.is_some() || settings.weight_scales.format().bits().is_some() {
        return Err(Error::setting("method", settings.describe(), "one with sites whose bits can be chosen: not a format of fixed bits"));
    }
    let pictures = if data.is_some() { Pictures::All } else { Pictures::EveryOther };
    let batches = Search { pictures, ..Search::new(Estimate::Fisher, &[]) }.batches(session)?;
    let widths = BITS.into_iter().map(BitWidth::new).collect::<Result<Vec<_>>>()?;
    let counts = if settings.method.uses_groups() {
        GROUPS.into_iter().map(|g| GroupCount::new(g).map(Some)).collect::<Result<Vec<_>>>()?
    } else {
        vec![None]
    };
    let with = |changes: &[SiteOverride]| {
        let mut changed = settings.clone();
        changed.overrides.extend_from_slice(changes);
        changed
    };

    // Activations, from gradients.
    let options: Vec<(Option<GroupCount>, BitWidth)> = counts.iter().flat_map(|&g| widths.iter().map(move |&b| (g, b))).collect();
    let fitted = Counter::new("fitting quantizers for every width and count", infos.len());
    let planned = |info: &&SiteInfo| {
        cancel.check()?;
        let plan = |&(groups, bits): &(Option<GroupCount>, BitWidth)| {
            let plan = session.site_plan(&with(&[own(info.site, Some(bits), None, groups)]), info)?;
            Ok(SitePlan { weight: None, ..plan })
        };
        let plans = options.iter().map(plan).collect::<Result<Vec<_>>>()?;
        progress(fitted.add(1));
        Ok(((*info).clone(), plans))
    };
    let candidates = infos.par_iter().map(planned).collect::<Result<Vec<Candidates>>>()?;
    let seen = Counter::new("gradients of the calibration images", batches.iter().map(|b| b.dim(0).unwrap_or(1)).sum());
    let estimated = fisher(network, &batches, &candidates, settings.seed, cancel, &|more| progress(seen.add(more)))?;
    let mut activations: BTreeMap<Site, Options> = BTreeMap::new();
    for found in &estimated {
        let of = |(&(groups, bits), &omega): (&(Option<GroupCount>, BitWidth), &f64)| (own(found.site, Some(bits), None, groups), omega);
        activations.insert(found.site, options.iter().zip(&found.omega).map(of).collect());
    }

    // Weights, by runs.
    let reference = session.reference(cancel)?.first(network, sites, PICTURES, cancel)?;
    let float = Plan::float(sites);
    let layers: Vec<&&SiteInfo> = infos.iter().filter(|info| info.layer.is_some()).collect();
    let measured = Counter::new("every weight at every width", layers.len());
    let look = |info: &&&SiteInfo| {
        let at = |&bits: &BitWidth| {
            let plan = session.site_plan(&with(&[own(info.site, None, Some(bits), None)]), info)?;
            let plan = SitePlan { quantizers: None, bits: BitWidth::FLOAT, ..plan };
            let omega = reference.kl(network, reference.traces(), info.step, &float.with(plan), cancel)?;
            Ok((own(info.site, None, Some(bits), None), omega))
        };
        let found = widths.iter().map(at).collect::<Result<Vec<_>>>()?;
        progress(measured.add(1));
        Ok((info.site, found))
    };
    let weights: BTreeMap<Site, Options> = layers.par_iter().map(look).collect::<Result<_>>()?;

    // Products: both operands together, because the cost takes the bits of both.
    let products: Vec<&&SiteInfo> = infos.iter().filter(|info| info.product.is_some()).collect();
    let unit = |info: &&&SiteInfo| {
        let right = match info.product.map(|p| p.right) {
            Some(RightOperand::Inner(site) | RightOperand::Columns(site)) => infos.iter().find(|i| i.site == site).copied(),
            _ => None,
        };
        let rights = right.map_or_else(|| weights.get(&info.site), |r| activations.get(&r.site));
        let mut unit = Vec::new();
        for (left, of_left) in activations.get(&info.site).into_iter().flatten() {
            for (other, of_right) in rights.into_iter().flatten() {
                let changes = if right.is_some() {
                    vec![left.clone(), other.clone()]
                } else {
                    vec![SiteOverride { wbits: other.wbits, ..left.clone() }]
                };
                let changed = with(&changes);
                let cost = |info: &SiteInfo| bops::of_site(info, sites, &changed).total();
                let bops = cost(info) + right.map_or(0, cost);
                unit.push((changes, Choice { bops, omega: of_left + of_right }));
            }
        }
        unit
    };
    let units: Vec<_> = products.par_iter().map(unit).collect();
    let choices: Vec<Vec<Choice>> = units.iter().map(|unit| unit.iter().map(|(_, choice)| *choice).collect()).collect();
    // The rest costs what it costs at any choice.
    let first = with(&units.iter().filter_map(|unit| unit.first()).flat_map(|(changes, _)| changes.clone()).collect::<Vec<_>>());
    let rest = bops::total(sites, &first) - choices.iter().filter_map(|c| c.first()).map(|c| c.bops).sum::<u64>();

    let judge = Judge::new(session, data, cancel)?;
    let look = |name: String, settings: &Settings, sum: Option<f64>| judge.look(session, (name, settings, sum), cancel, progress);
    let most = budgets.iter().max().copied().unwrap_or(BitWidth::EIGHT);
    let mut beside: Vec<Judged> = Vec::new();
    for bits in widths.iter().copied().chain(budgets.iter().copied().filter(|b| !widths.contains(b))).filter(|b| *b <= most) {
        beside.push(look(format!("W{bits}/A{bits}"), &uniform(settings, bits), None)?);
    }
    let mut found = Vec::new();
    for &bits in budgets {
        let budget = bops::total(sites, &uniform(settings, bits));
        // What has no say in the KL, as boxes and masks have none in that of classes, keeps the bits of the bound.
        let silent = |unit: &Vec<(Vec<SiteOverride>, Choice)>| unit.iter().all(|(_, choice)| choice.omega == 0.0);
        let usual = |(changes, _): &(Vec<SiteOverride>, Choice)| {
            changes.iter().all(|own| own.abits.is_none_or(|b| b == bits) && own.wbits.is_none_or(|b| b == bits))
        };
        let fixed: Vec<Option<usize>> = units.iter().map(|unit| if silent(unit) { unit.iter().position(usual) } else { None }).collect();
        let open: Vec<Vec<Choice>> =
            choices.iter().zip(&fixed).map(|(all, fixed)| fixed.map_or_else(|| all.clone(), |at| vec![all[at]])).collect();
        let picked = budget.checked_sub(rest).map(|room| solve::solve(&open, room)).transpose()?.flatten();
        let picked = picked.ok_or_else(|| Error::setting("budget", bits, "more than the narrowest choices cost"))?;
        let mut chosen_settings = settings.clone();
        let mut sum = 0.0;
        for ((unit, pick), fixed) in units.iter().zip(&picked).zip(&fixed) {
            let (changes, choice) = &unit[fixed.unwrap_or(*pick)];
            sum += choice.omega;
            chosen_settings.overrides.extend(changes.iter().cloned());
        }
        let judged = look(format!("mixed, cost of W{bits}/A{bits}"), &chosen_settings, Some(sum))?;
        let others: Vec<&Judged> = beside.iter().filter(|other| other.measured.bops <= budget).collect();
        // By the uniform bits whose cost is the bound: that narrower ones do better on few images is chance.
        let same: Vec<&Judged> = others.iter().copied().filter(|other| other.measured.bops == budget).collect();
        let (gain, verdict) = judged.against(&same);
        let measured = std::iter::once(&judged).chain(others).map(|judged| judged.measured.clone()).collect();
        let kinds = kinds(&infos, &chosen_settings);
        found.push(Mixed { images: judged.kl.len(), budget, uniform: bits, settings: chosen_settings, kinds, measured, gain, verdict });
    }
    let (data, images) = judge.describe();
    Ok(MixedReport {
        schema_version: SCHEMA_VERSION,
        model: model.name.clone(),
        notes: model.notes.clone(),
        settings: found.first().map_or_else(|| settings.clone(), |one| one.settings.clone()),
        calibration: session.calibration_report().clone(),
        data,
        images,
        mixed: found,
        seconds: started.elapsed().as_secs_f64(),
    })
}

/// What the kinds of sites got, in the order of the forward pass.
fn kinds(infos: &[&SiteInfo], settings: &Settings) -> Vec<KindShare> {
    let of_kind = |kind: SiteKind| {
        let members: Vec<&&SiteInfo> = infos.iter().filter(|info| info.site.kind == kind).collect();
        let mean = |values: Vec<u8>| values.iter().map(|&v| f64::from(v)).sum::<f64>() / values.len().max(1) as f64;
        let layers: Vec<u8> = members.iter().filter(|i| i.layer.is_some()).map(|i| settings.weight_bits(i.site).get()).collect();
        (!members.is_empty()).then(|| KindShare {
            kind,
            abits: mean(members.iter().map(|i| settings.activation_bits(i.site).get()).collect()),
            wbits: (!layers.is_empty()).then(|| mean(layers)),
            groups: settings.method.uses_groups().then(|| mean(members.iter().map(|i| settings.groups(i.site).get() as u8).collect())),
        })
    };
    SiteKind::ALL.into_iter().filter_map(of_kind).collect()
}
