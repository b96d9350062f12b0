//! What one site costs by itself: only this site (and its layer's weight) quantized, the rest in float, re-run from its block on.

use super::metrics;
use super::report::Sensitivity;
use super::runs::FloatRun;
use crate::error::Result;
use crate::model::tap::Cancel;
use crate::model::{Network, Site, forward_from};
use crate::quant::{FakeQuantize, Plan, unobserved};

/// The prediction with only `site` quantized as `plan` says, against float; `None` where `plan` leaves it in float.
///
/// # Errors
/// When the run was cancelled.
pub fn only_this(network: &dyn Network, plan: &Plan, float: &FloatRun, site: Site, cancel: &Cancel) -> Result<Option<Sensitivity>> {
    let Some(site_plan) = plan.sites.get(&site).filter(|s| s.quantizers.is_some() || s.weight.is_some()) else {
        return Ok(None);
    };
    let alone = plan.only(site);
    let step = site_plan.info.step;
    let tap = &mut FakeQuantize::new(&alone, cancel, unobserved);
    let logits = forward_from(network, step, &float.trace.boundaries[step], tap)?.flatten_all()?.to_vec1::<f32>()?;
    let kl = metrics::kl(&float.logits, &logits);
    Ok(Some(Sensitivity { kl, flipped: metrics::argmax(&float.logits) != metrics::argmax(&logits) }))
}
