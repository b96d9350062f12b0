//! The search for what to change so that a lost prediction comes back.

use crate::analysis::metrics::{argmax, kl};
use crate::analysis::suggestion::{Change, Standing, Suggestion};
use crate::error::Result;
use crate::model::Site;
use crate::model::tap::Cancel;
use crate::quant::{BitWidth, FakeQuantize, Plan, Settings, bops, unobserved};

use super::event::Progress;
use super::session::{Base, Session};

/// The smallest set of sites found that brings back the float prediction of picture `index` when they stay in float.
///
/// Sites are added one by one, each time the one whose absence from the quantized run lowers the KL most, until the most likely class is
/// the float run's; then every site that turns out not to be needed is taken back. Each step is a real run, from the step that holds the
/// site on.
///
/// # Errors
/// When `cancel` was called, or the picture or the settings do not fit.
pub fn restore_picture(
    session: &Session,
    settings: &Settings,
    index: usize,
    cancel: &Cancel,
    progress: &dyn Fn(Progress),
) -> Result<Suggestion> {
    let base = session.base(index)?;
    let sites = session.opened().model.sites();
    let float_class = argmax(&base.float.logits);
    let mut plan = session.plan(settings)?;
    let before = standing(session, settings, &base, &run(session, &base, &plan, cancel)?);
    let mut kept: Vec<Site> = Vec::new();
    let mut logits = run(session, &base, &plan, cancel)?;
    while argmax(&logits) != float_class {
        let quantized: Vec<Site> = sites.iter().map(|s| s.site).filter(|s| plan.sites.get(s).is_some_and(|p| p.is_quantized())).collect();
        progress(Progress { stage: "looking for what to keep in float".into(), done: kept.len(), total: sites.len() });
        let mut best: Option<(f64, Site, Vec<f32>)> = None;
        for site in quantized {
            let tried = run(session, &base, &plan.without(site), cancel)?;
            let distance = kl(&base.float.logits, &tried);
            if best.as_ref().is_none_or(|(least, ..)| distance < *least) {
                best = Some((distance, site, tried));
            }
        }
        let Some((_, site, tried)) = best else { break };
        plan = plan.without(site);
        kept.push(site);
        logits = tried;
    }
    // What later sites made unnecessary goes back, the least useful first.
    let whole = session.plan(settings)?;
    for site in kept.clone() {
        if kept.len() == 1 {
            break;
        }
        let Some(quantized) = whole.sites.get(&site) else { continue };
        let tried = plan.with(quantized.clone());
        let tried_logits = run(session, &base, &tried, cancel)?;
        if argmax(&tried_logits) == float_class {
            (plan, logits) = (tried, tried_logits);
            kept.retain(|s| *s != site);
        }
    }
    let mut suggested = settings.clone();
    kept.iter().for_each(|site| suggested.toggle_float(*site));
    // Verified by a run of the settings themselves, not of the plan that was searched with.
    let verified = run(session, &base, &session.plan(&suggested)?, cancel)?;
    debug_assert_eq!(verified, logits);
    let after = standing(session, &suggested, &base, &verified);
    let reached = argmax(&verified) == float_class;
    let has_layer = |site: &Site| sites.iter().any(|info| info.site == *site && info.layer.is_some());
    let changes = kept.iter().map(|&site| Change { site, abits: BitWidth::FLOAT, wbits: has_layer(&site).then_some(BitWidth::FLOAT) });
    let names = kept.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let text = match (kept.is_empty(), reached) {
        (true, _) => "The float prediction is not lost: nothing needs to stay in float.".into(),
        (false, true) => format!(
            "Keeping {names} in float brings the prediction back: KL {:.4} to {:.4}, {:+.1} % bit operations.",
            before.kl,
            after.kl,
            100.0 * (after.bops as f64 / before.bops as f64 - 1.0)
        ),
        (false, false) => "No set of sites in float brings the prediction back.".into(),
    };
    Ok(Suggestion { changes: changes.collect(), settings: suggested, before, after, reached, text })
}

fn run(session: &Session, base: &Base, plan: &Plan, cancel: &Cancel) -> Result<Vec<f32>> {
    let network = session.opened().model.network();
    let logits = crate::model::forward(network, &base.prepared.tensor, &mut FakeQuantize::new(plan, cancel, unobserved))?;
    Ok(logits.flatten_all()?.to_vec1()?)
}

fn standing(session: &Session, settings: &Settings, base: &Base, logits: &[f32]) -> Standing {
    let same = argmax(&base.float.logits) == argmax(logits);
    Standing {
        images: 1,
        kl: kl(&base.float.logits, logits),
        agreement: if same { 100.0 } else { 0.0 },
        bops: bops::total(session.opened().model.sites(), settings),
    }
}
