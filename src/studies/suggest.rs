//! The search for what to change so that a lost prediction comes back.

use std::collections::HashMap;

use rayon::prelude::*;
use schemars::JsonSchema;
use serde::Serialize;

use super::evaluate;
use super::tally::EvaluationRow;
use super::trials::{Trial, wholes};
use crate::error::{Error, Result};
use crate::input::PictureSet;
use crate::model::{RightOperand, Site, SiteInfo};
use crate::progress::{Cancel, Counter, Progress};
use crate::quant::solve::{self, Choice};
use crate::quant::{BitWidth, Plan, Settings, SiteOverride, SitePlan, bops};
use crate::session::Session;

/// How settings do on a set of pictures, by a real run.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, JsonSchema)]
pub struct Standing {
    /// Number of pictures.
    pub images: usize,
    /// Mean of `KL(p_float || p_quantized)` in nats.
    pub kl: f64,
    /// Percent of pictures whose most likely class is that of the float run.
    pub agreement: f64,
    /// Bit operations of the whole network for one picture.
    pub bops: u64,
    /// Probability of the most likely class less that of the next, of one picture.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub margin: Option<f64>,
}

impl Standing {
    /// Nothing was looked at.
    pub const NONE: Self = Self { images: 0, kl: 0.0, agreement: 100.0, bops: 0, margin: None };
}

/// A change that does, verified by a run.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Alternative {
    /// What it is.
    pub name: String,
    /// The settings with it.
    pub settings: Settings,
    /// How they do.
    pub after: Standing,
}

/// What one site gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Change {
    /// Its address.
    pub site: Site,
    /// Bits of its activation; 32 is float.
    pub abits: BitWidth,
    /// Bits of its layer's weight; none where there is no layer.
    pub wbits: Option<BitWidth>,
}

/// A change of settings that restores the prediction.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Suggestion {
    /// The settings as they should be: `--settings-file` takes them.
    pub settings: Settings,
    /// What changes, the most useful first.
    pub changes: Vec<Change>,
    /// Before.
    pub before: Standing,
    /// After, by a real run.
    pub after: Standing,
    /// Whether the aim was reached.
    pub reached: bool,
    /// Changes that reach it, this one first, the cheapest first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub alternatives: Vec<Alternative>,
    /// In one sentence.
    pub text: String,
}

/// What settings should reach on a set of pictures.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Aim {
    /// Agreement with float within so many points of the same method with all bits at 8.
    Within(f64),
    /// A mean KL no larger than this.
    Kl(f64),
}

/// Calibration pictures that operands are measured on, one by one, where the search is to be fast; what is suggested is verified on the set all the same.
const FAST: usize = 2;
/// Bits that products may get.
const LADDER: [u8; 5] = [3, 4, 5, 6, 8];
/// Alternatives that are shown.
const SHOWN: usize = 3;
/// Changes of the whole settings that are tried.
const WHOLES: usize = 12;
/// Budgets between the settings as they are and all bits at 8.
const BUDGETS: usize = 64;

/// What a product is made of, for a search over bits: its cost takes the bits of both operands, so both are chosen together.
struct Unit {
    /// Sites of the operands: one for a layer, two for a product of activations.
    sites: Vec<Site>,
    /// Overrides of each option, with its cost and what it does alone.
    options: Vec<(Vec<SiteOverride>, Choice)>,
}

/// The cheapest bits found that reach `aim` on `set`.
///
/// Every product by itself is measured at every pair of bits on the calibration pictures; an integer program finds the best bits for a
/// budget of bit operations; bisection finds the least budget whose bits reach the aim by a real run on the set.
///
/// # Errors
/// When a picture cannot be read, the settings do not fit, or `cancel` was called.
pub fn restore_set(
    session: &Session,
    settings: &Settings,
    set: &PictureSet,
    (aim, fast): (Aim, bool),
    cancel: &Cancel,
    progress: &(dyn Fn(Progress) + Sync),
) -> Result<(Suggestion, Standing)> {
    let eight = BitWidth::new(8)?;
    let mut full = settings.clone();
    for bits in [&mut full.wbits, &mut full.abits, &mut full.sbits] {
        *bits = eight.max(*bits);
    }
    for own in &mut full.overrides {
        (own.wbits, own.abits) = (own.wbits.map(|b| b.max(eight)), own.abits.map(|b| b.max(eight)));
    }
    let stands = |settings: &Settings, row: &EvaluationRow| Standing {
        images: set.len(),
        kl: row.kl,
        agreement: row.agreement,
        bops: bops::total(session.opened().model.sites(), settings),
        margin: None,
    };
    let measure = |grid: &[Settings], stage: &str| -> Result<Vec<Standing>> {
        let mut last = Vec::new();
        evaluate::stepwise(session, set, grid.into(), 64, &mut Vec::new(), cancel, &mut |done, rows| {
            progress(Progress { stage: stage.into(), done, total: set.len() });
            last = rows;
        })?;
        Ok(grid.iter().zip(&last).map(|(settings, row)| stands(settings, row)).collect())
    };
    let ends = measure(&[settings.clone(), full.clone()], "the settings as they are, and all bits at 8")?;
    let &[before, best] = ends.as_slice() else { return Err(Error::setting("pictures", &set.name, "at least one")) };
    let reaches = |s: &Standing| match aim {
        Aim::Within(points) => s.agreement >= best.agreement - points,
        Aim::Kl(bound) => s.kl <= bound,
    };
    if reaches(&before) {
        let text = "The settings reach the aim as they are.".to_string();
        let same = Suggestion {
            settings: settings.clone(),
            changes: Vec::new(),
            before,
            after: before,
            reached: true,
            alternatives: Vec::new(),
            text,
        };
        return Ok((same, best));
    }
    let units = units(session, settings, fast, cancel, progress)?;
    let choices: Vec<Vec<Choice>> = units.iter().map(|u| u.options.iter().map(|(_, c)| *c).collect()).collect();
    let fixed = bops::total(session.opened().model.sites(), settings) - units.iter().map(|u| u.options[0].1.bops).sum::<u64>();
    let budget = |step: usize| {
        let (low, high) = (before.bops as f64, best.bops as f64);
        (low + (high - low) * step as f64 / BUDGETS as f64) as u64
    };
    let with_budget = |budget: u64| -> Result<Settings> {
        let picked = solve::solve(&choices, budget.saturating_sub(fixed))?.unwrap_or_else(|| vec![0; units.len()]);
        let own = units.iter().zip(picked).flat_map(|(unit, pick)| unit.options[pick].0.clone());
        let mut changed = settings.clone();
        changed.overrides.extend(own);
        Ok(changed)
    };
    // Least budget that reaches the aim; more bits may by chance be worse, so the end of the search is what was measured there.
    let (mut failing, mut reaching) = (0, BUDGETS);
    let mut found = (full.clone(), best);
    while reaching - failing > 1 {
        let middle = usize::midpoint(failing, reaching);
        let tried = with_budget(budget(middle))?;
        let measured = measure(std::slice::from_ref(&tried), &format!("{:.3} GBOPs", budget(middle) as f64 / 1e9))?;
        let Some(&standing) = measured.first() else { break };
        if reaches(&standing) {
            (reaching, found) = (middle, (tried, standing));
        } else {
            failing = middle;
        }
    }
    let changed = changes(session, settings, &found.0).len();
    let of_bits = format!("more bits for {changed} of {} sites", session.opened().model.sites().len());
    let mut alternatives = Vec::new();
    if reaches(&found.1) {
        alternatives.push(Alternative { name: of_bits.clone(), settings: found.0.clone(), after: found.1 });
    }
    // Changes of the whole that cost less, in one pass over the set.
    let cost = |settings: &Settings| bops::total(session.opened().model.sites(), settings);
    let mut tried: Vec<Trial> = wholes(session, settings);
    // What a quantizer file or a format cannot give is not offered.
    let most = if reaches(&found.1) { found.1.bops } else { best.bops };
    tried.retain(|(_, changed)| cost(changed) < most && session.plan_until(changed, cancel).is_ok());
    tried.sort_by_cached_key(|(_, changed)| cost(changed));
    // The cheapest and the dearest of them: small changes that may do, and large ones that may still cost less than bits of sites.
    if tried.len() > WHOLES {
        tried.drain(WHOLES / 2..tried.len() - WHOLES / 2);
    }
    cancel.check()?;
    let grid: Vec<Settings> = tried.iter().map(|(_, changed)| changed.clone()).collect();
    if !grid.is_empty() {
        let standings = measure(&grid, "other changes, each by a run")?;
        let reached = tried.into_iter().zip(standings).filter(|(_, standing)| reaches(standing));
        alternatives.extend(reached.map(|((name, settings), after)| Alternative { name, settings, after }));
    }
    alternatives.sort_by_key(|a| a.after.bops);
    alternatives.truncate(SHOWN);
    let (name, suggested, after) = match alternatives.first() {
        Some(first) => (first.name.clone(), first.settings.clone(), first.after),
        None => (of_bits, found.0, found.1),
    };
    let changes = changes(session, settings, &suggested);
    let reached = reaches(&after);
    let percent = |bops: u64| 100.0 * (bops as f64 / before.bops as f64 - 1.0);
    let others: Vec<String> = alternatives.iter().skip(1).map(|a| format!("{} ({:+.1} %)", a.name, percent(a.after.bops))).collect();
    let text = format!(
        "{}{name}: agreement {:.1} to {:.1} % ({:.1} % with all bits at 8), KL {:.4} to {:.4}, bit operations {:+.1} % ({:+.0} % with all bits at 8), by a run{}.",
        if reached { "" } else { "Nothing reaches the aim; nearest is " },
        before.agreement,
        after.agreement,
        best.agreement,
        before.kl,
        after.kl,
        percent(after.bops),
        percent(best.bops),
        if others.is_empty() { String::new() } else { format!("; also {}", others.join(", ")) },
    );
    Ok((Suggestion { settings: suggested, changes, before, after, reached, alternatives, text }, best))
}

/// Every product with its options, the settings as they are first.
fn units(session: &Session, settings: &Settings, fast: bool, cancel: &Cancel, progress: &(dyn Fn(Progress) + Sync)) -> Result<Vec<Unit>> {
    let sites = session.opened().model.sites();
    let network = session.opened().model.network();
    let reference = session.reference(cancel)?.first(network, sites, if fast { FAST } else { usize::MAX }, cancel)?;
    let float = Plan::float(sites);
    let products: Vec<&SiteInfo> =
        sites.iter().filter(|info| info.product.is_some() && !settings.activation_bits(info.site).is_float()).collect();
    let measured =
        Counter::new(if fast { "every operand at every bit-width" } else { "every product at every pair of bits" }, products.len());
    let unit = |info: &&SiteInfo| {
        let right = match info.product.map(|p| p.right) {
            Some(RightOperand::Inner(site) | RightOperand::Columns(site)) => sites.iter().find(|i| i.site == site),
            _ => None,
        };
        let left_now = settings.activation_bits(info.site);
        let right_now = right.map_or_else(|| settings.weight_bits(info.site), |r| settings.activation_bits(r.site));
        let above =
            |now: BitWidth| std::iter::once(now).chain(LADDER.into_iter().filter_map(|b| BitWidth::new(b).ok()).filter(move |b| *b > now));
        let option = |left_bits: BitWidth, right_bits: BitWidth| {
            let own = |site: Site| SiteOverride { sites: site.into(), wbits: None, abits: None, groups: None };
            let overrides = match right {
                Some(r) => {
                    vec![SiteOverride { abits: Some(left_bits), ..own(info.site) }, SiteOverride { abits: Some(right_bits), ..own(r.site) }]
                }
                None => vec![SiteOverride { abits: Some(left_bits), wbits: Some(right_bits), ..own(info.site) }],
            };
            let mut changed = settings.clone();
            changed.overrides.extend(overrides.clone());
            let own = session.site_plan(&changed, info)?;
            let mut cost = bops::of_site(info, sites, &changed).total();
            // The operands: a layer's activation and weight, or two activations.
            let (left, right) = match right {
                Some(r) => {
                    cost += bops::of_site(r, sites, &changed).total();
                    (own, session.site_plan(&changed, r)?)
                }
                None => (SitePlan { weight: None, ..own.clone() }, SitePlan { quantizers: None, bits: BitWidth::FLOAT, ..own }),
            };
            Ok::<_, Error>((overrides, cost, left, right))
        };
        let effect = |plan: &Plan| reference.kl(network, reference.traces(), info.step, plan, cancel);
        let both = |left: SitePlan, right: SitePlan| {
            if left.info.site == right.info.site {
                return float.with(SitePlan { weight: right.weight, ..left });
            }
            float.with(left).with(right)
        };
        let (lefts, rights): (Vec<_>, Vec<_>) = (above(left_now).collect(), above(right_now).collect());
        let mut options = Vec::with_capacity(lefts.len() * rights.len());
        // Fast: each operand by itself, and the sum for both.
        let (mut of_left, mut of_right) = (HashMap::new(), HashMap::new());
        for &l in &lefts {
            for &r in &rights {
                let (overrides, bops, left, right) = option(l, r)?;
                let omega = if fast {
                    let alone = |known: &mut HashMap<BitWidth, f64>, bits: BitWidth, plan: SitePlan| match known.get(&bits) {
                        Some(omega) => Ok::<_, Error>(*omega),
                        None => Ok(*known.entry(bits).or_insert(effect(&float.with(plan))?)),
                    };
                    alone(&mut of_left, l, left)? + alone(&mut of_right, r, right)?
                } else {
                    effect(&both(left, right))?
                };
                options.push((overrides, Choice { bops, omega }));
            }
        }
        progress(measured.add(1));
        Ok(Unit { sites: std::iter::once(info.site).chain(right.map(|r| r.site)).collect(), options })
    };
    let mut units = products.par_iter().map(unit).collect::<Result<Vec<_>>>()?;
    units.retain(|u| !u.options.is_empty() && !u.sites.is_empty());
    Ok(units)
}

/// What sites get that they did not have, the most bits first.
fn changes(session: &Session, before: &Settings, after: &Settings) -> Vec<Change> {
    let bits = |settings: &Settings, info: &SiteInfo| {
        (settings.activation_bits(info.site), info.layer.as_ref().map(|_| settings.weight_bits(info.site)))
    };
    let changed = session.opened().model.sites().iter().filter(|info| bits(before, info) != bits(after, info));
    let change = |info: &SiteInfo| {
        let (abits, wbits) = bits(after, info);
        Change { site: info.site, abits, wbits }
    };
    let mut changes: Vec<Change> = changed.map(change).collect();
    changes.sort_by_key(|c| std::cmp::Reverse((c.abits, c.wbits)));
    changes
}
