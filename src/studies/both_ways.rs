//! One site both ways: what it costs by itself, and what the quantized run would gain without it, with the uncertainty of the gain.

use rayon::prelude::*;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::analysis::suffix::Reference;
use crate::analysis::{Divergence, metrics};
use crate::error::{Error, Result};
use crate::model::{Network, Site, SiteInfo};
use crate::progress::Cancel;
use crate::quant::{BitWidth, GroupCount, Plan, SitePlan};

/// How far bounds are shifted where effects are averaged over draws, as a share of each: what another calibration changes.
pub const SHIFT: f32 = 0.002;

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
    /// Place among the sites by `gain`, from 1; none where the gain is within noise.
    pub rank_gain: Option<usize>,
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
    /// 95 % of `gain` by the bootstrap, picture by picture; none for one picture.
    pub gain_interval: Option<[f64; 2]>,
    /// Pictures that it was measured on.
    pub images: usize,
    /// By itself at every bit-width, where asked for.
    pub by_bits: Vec<Level<BitWidth>>,
    /// By itself at several group counts, where asked for.
    pub by_groups: Vec<Level<GroupCount>>,
}

impl SiteSensitivity {
    /// Whether the sign of the gain is open: its interval holds zero.
    #[must_use]
    pub fn is_noise(&self) -> bool {
        self.gain_interval.is_some_and(|[low, high]| low <= 0.0 && high >= 0.0)
    }
}

/// The plans of a site at several levels of something.
pub type PlansAt<'l, T> = dyn Fn(&SiteInfo) -> Result<Vec<(T, SitePlan)>> + Sync + 'l;

/// How closely sites are looked at.
pub struct Look<'l> {
    /// Plans of a site at every bit-width.
    pub bits: &'l PlansAt<'l, BitWidth>,
    /// Plans of a site at several group counts.
    pub groups: &'l PlansAt<'l, GroupCount>,
    /// Whether activation and weight are looked at by themselves too.
    pub parts: bool,
    /// Draws of quantizers: 1 for the quantizers as they are, more for as many that are slightly shifted ([`Plan::shifted`]).
    pub shifts: usize,
}

/// Effects on every picture, under one draw after another.
type Draws = Vec<Vec<Divergence>>;

/// Effects on the same pictures under several draws: the mean over draws for every picture, so that the noise of a draw is averaged before
/// pictures are compared.
fn over_draws(draws: Draws) -> Vec<Divergence> {
    let count = draws.len().max(1);
    let mean = |picture: usize| {
        let kl = draws.iter().map(|draw| draw[picture].kl).sum::<f64>() / count as f64;
        let changed = draws.iter().map(|draw| draw[picture].changed).sum::<usize>();
        Divergence { kl, changed: usize::from(2 * changed > count), of: 1 }
    };
    (0..draws.first().map_or(0, Vec::len)).map(mean).collect()
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
    look: &Look,
    cancel: &Cancel,
    found: &(dyn Fn() + Sync),
) -> Result<(Divergence, Vec<SiteSensitivity>)> {
    let draw = |seed: usize| if look.shifts > 1 { plan.shifted(seed as u64, SHIFT) } else { plan.clone() };
    let float = plan.in_float();
    // One draw after another: the traces of one are as many as memory should hold.
    let (mut wholes, mut kept) = (Draws::new(), vec![<[Draws; 2]>::default(); sites.len()]);
    for seed in 0..look.shifts.max(1) {
        let plan = draw(seed);
        let quantized = match reference.under(network, &plan, cancel) {
            Err(Error::Cancelled) if seed > 0 => break,
            quantized => quantized?,
        };
        wholes.push(reference.compare_each(&Reference::predictions_of(&quantized)?));
        let both = |info: &&SiteInfo| {
            let Some(own) = plan.sites.get(&info.site).filter(|p| p.is_quantized()) else { return Ok(None) };
            let without = reference.each(network, &quantized, info.step, &plan.without(info.site), cancel)?;
            let only = reference.each(network, reference.traces(), info.step, &float.with(own.clone()), cancel)?;
            Ok(Some([without, only]))
        };
        // What is through when the study is interrupted stays.
        let looked = |info: &&SiteInfo| match both(info) {
            Err(Error::Cancelled) => Ok(None),
            looked => looked.inspect(|_| {
                if seed + 1 == look.shifts.max(1) {
                    found();
                }
            }),
        };
        for (kept, looked) in kept.iter_mut().zip(sites.par_iter().map(looked).collect::<Result<Vec<_>>>()?) {
            kept.iter_mut().zip(looked.into_iter().flatten()).for_each(|(kept, looked)| kept.push(looked));
        }
    }
    let draws = wholes.len();
    let whole = over_draws(wholes);
    let mean = |effects: &[Divergence]| Divergence::mean(effects.iter().copied());
    let site = |(info, [without, only]): (&&SiteInfo, [Draws; 2])| {
        let Some(own) = plan.sites.get(&info.site).filter(|_| without.len() == draws) else { return Ok(None) };
        let alone = |plan: SitePlan| reference.effect(network, reference.traces(), info.step, &float.with(plan), cancel);
        let part = |plan: SitePlan| if look.parts && plan.is_quantized() { alone(plan).map(Some) } else { Ok(None) };
        let (without, only) = (over_draws(without), over_draws(only));
        let gains: Vec<f64> = whole.iter().zip(&without).map(|(whole, without)| whole.kl - without.kl).collect();
        let by_bits = (look.bits)(info)?.into_iter().map(|(level, plan)| Ok(Level { level, kl: alone(plan)?.kl }));
        let by_groups = (look.groups)(info)?.into_iter().map(|(level, plan)| Ok(Level { level, kl: alone(plan)?.kl }));
        Ok(Some(SiteSensitivity {
            site: info.site,
            rank_only: 0,
            rank_gain: None,
            only: mean(&only),
            only_activation: part(SitePlan { weight: None, ..own.clone() })?,
            only_weight: part(SitePlan { quantizers: None, bits: BitWidth::FLOAT, ..own.clone() })?,
            without: mean(&without),
            gain: mean(&whole).kl - mean(&without).kl,
            gain_interval: metrics::bootstrap_mean(&gains).map(|(_, low, high)| [low, high]),
            images: reference.images(),
            by_bits: by_bits.collect::<Result<_>>()?,
            by_groups: by_groups.collect::<Result<_>>()?,
        }))
    };
    let of_site = |entry| match site(entry) {
        Err(Error::Cancelled) => Ok(None),
        looked => looked,
    };
    let looked = sites.par_iter().zip(kept).map(of_site).collect::<Result<Vec<_>>>()?.into_iter().flatten().collect();
    Ok((mean(&whole), looked))
}
