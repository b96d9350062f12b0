//! What brings a lost prediction back at the least cost: changes of the whole settings, of kinds of sites and of single sites, each verified by a
//! run of the picture before it is offered.

use super::suggest::{Alternative, Change, Standing, Suggestion};
use super::trials::{Trial, grid, raised, wholes};
use crate::analysis::suffix;
use crate::error::Result;
use crate::model::{Site, SitePattern};
use crate::progress::{Cancel, Progress};
use crate::quant::{BitWidth, Settings, bops};
use crate::session::{FloatBaseline, Session};

/// What is aimed at unless something else is said: the class of the float run, and a KL of at most so many nats. A class that is only just kept is a
/// coin flip, and a probability may collapse without a flip.
pub const TARGET: f64 = 0.1;
/// What is said of how far it is.
pub const STAGE: &str = "running what may help, the cheapest first";
/// Alternatives that are shown.
const SHOWN: usize = 3;
/// Changes that are tried behind the first that does.
const BEHIND: usize = 24;
/// Sites that get more bits one after another, the costliest by themselves first.
const SITES: usize = 8;

/// The costliest sites by themselves get 8 bits, the first of them, the first two, and so on; then they stay in float.
fn sites(session: &Session, settings: &Settings, base: &FloatBaseline, cancel: &Cancel) -> Result<Vec<Trial>> {
    let (network, plan) = (session.opened().model.network(), session.plan_until(settings, cancel)?);
    let mut costs: Vec<(f64, Site)> = Vec::new();
    for info in session.opened().model.sites() {
        if let Some(only) = suffix::only_this(network, &plan, &base.float, info.site, cancel)? {
            costs.push((only.kl, info.site));
        }
    }
    costs.sort_by(|a, b| b.0.total_cmp(&a.0));
    let costliest: Vec<Site> = costs.into_iter().take(SITES).map(|(_, site)| site).collect();
    let names = |some: &[Site]| some.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let (mut trials, mut eight, mut float) = (Vec::new(), settings.clone(), settings.clone());
    for count in 1..=costliest.len() {
        let site = costliest[count - 1];
        if let Some(changed) = raised(session, &eight, &SitePattern::from(site), BitWidth::EIGHT) {
            eight = changed;
            trials.push((format!("{} at 8 bits", names(&costliest[..count])), eight.clone()));
        }
        float.toggle_float(site);
        trials.push((format!("{} in float", names(&costliest[..count])), float.clone()));
    }
    Ok(trials)
}

/// The cheapest changes found, by bit operations, that bring back the class of the float run of picture `index` with a KL of at most `target`.
/// Everything that is offered was run as it is offered.
///
/// # Errors
/// When `cancel` was called, or the picture or the settings do not fit.
pub fn repair(
    session: &Session,
    settings: &Settings,
    index: usize,
    target: f64,
    cancel: &Cancel,
    progress: &dyn Fn(Progress),
) -> Result<Suggestion> {
    let base = session.base(index)?;
    let standing = |settings: &Settings| -> Result<(Standing, bool)> {
        let prediction = session.predict(&base, &session.plan_until(settings, cancel)?, cancel)?;
        let divergence = prediction.against(&base.float.prediction);
        let bops = bops::total(session.opened().model.sites(), settings);
        let margin = Some(prediction.margin_of(base.float.prediction.class()));
        let reached = divergence.changed == 0 && divergence.kl <= target;
        Ok((Standing { images: 1, kl: divergence.kl, agreement: divergence.agreement(), bops, margin }, reached))
    };
    let (before, fine) = standing(settings)?;
    if fine {
        let text = format!("The float class is kept with KL {:.4}, at most the {target} aimed at: nothing needs to change.", before.kl);
        let (settings, changes, alternatives) = (settings.clone(), Vec::new(), Vec::new());
        return Ok(Suggestion { settings, changes, before, after: before, reached: true, alternatives, text });
    }
    let mut trials = wholes(session, settings);
    trials.extend(sites(session, settings, &base, cancel)?);
    for (name, changed) in grid(session, settings) {
        if !trials.iter().any(|(_, known)| *known == changed) {
            trials.push((name, changed));
        }
    }
    // The cheapest first; behind the first that does come those that cost more and do better.
    let cost = |trial: &Trial| bops::total(session.opened().model.sites(), &trial.1);
    trials.sort_by_cached_key(cost);
    let total = trials.len();
    let mut found: Vec<Alternative> = Vec::new();
    let mut spare: Vec<Alternative> = Vec::new();
    let mut nearest: Option<(f64, String)> = None;
    let mut last = total;
    for (done, (name, changed)) in trials.into_iter().enumerate() {
        if done > last {
            break;
        }
        progress(Progress { stage: STAGE.into(), done, total });
        // What a quantizer file cannot give is not offered.
        let (after, reached) = match standing(&changed) {
            Err(crate::Error::Cancelled) => return Err(crate::Error::Cancelled),
            Err(_) => continue,
            Ok(standing) => standing,
        };
        if reached {
            let alternative = Alternative { name, settings: changed, after };
            if found.last().is_some_and(|better| after.kl >= better.after.kl) {
                spare.push(alternative);
                continue;
            }
            found.push(alternative);
            if found.len() == SHOWN {
                break;
            }
            last = last.min(done + BEHIND);
        } else if nearest.as_ref().is_none_or(|(kl, _)| after.kl < *kl) {
            nearest = Some((after.kl, name));
        }
    }
    // Where fewer than three are better and better, what does as well stands beside them.
    found.extend(spare.into_iter().take(SHOWN - found.len()));
    found.sort_by_key(|alternative| alternative.after.bops);
    let percent = |bops: u64| 100.0 * (bops as f64 / before.bops as f64 - 1.0);
    let told = |a: &Alternative| {
        format!(
            "{}: KL {:.3} to {:.3}, margin {:.2} to {:.2}, {:+.1} % bit operations",
            a.name,
            before.kl,
            a.after.kl,
            before.margin.unwrap_or(0.0),
            a.after.margin.unwrap_or(0.0),
            percent(a.after.bops)
        )
    };
    let Some(cheapest) = found.first().cloned() else {
        let nearest = nearest.map(|(kl, name)| format!("; {name} comes nearest (KL {kl:.3})")).unwrap_or_default();
        let back = if session.opened().model.config.queries().is_some() { "all objects of the float run" } else { "the float class" };
        let text = format!("Nothing of {total} changes brings {back} back with a KL of {target}{nearest}.");
        let changes = Vec::new();
        return Ok(Suggestion { settings: settings.clone(), changes, before, after: before, reached: false, alternatives: found, text });
    };
    let others: Vec<String> = found[1..].iter().map(|a| format!("{} ({:+.1} %)", a.name, percent(a.after.bops))).collect();
    let others = if others.is_empty() { String::new() } else { format!("; also {}", others.join(", ")) };
    let text = format!("{}, by a run{others}.", told(&cheapest));
    let own = |settings: &Settings, site: Site| (settings.activation_bits(site), settings.weight_bits(site));
    let of_sites = session.opened().model.sites().iter().filter(|info| own(settings, info.site) != own(&cheapest.settings, info.site));
    let change = |info: &crate::model::SiteInfo| {
        let (abits, wbits) = own(&cheapest.settings, info.site);
        Change { site: info.site, abits, wbits: info.layer.is_some().then_some(wbits) }
    };
    let changes = of_sites.map(change).collect();
    Ok(Suggestion { settings: cheapest.settings, changes, before, after: cheapest.after, reached: true, alternatives: found, text })
}
