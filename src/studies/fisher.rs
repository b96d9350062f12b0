//! Perturbations from gradients: what the error of every site costs the prediction, to second order, from one pass forward and one back.

use candle_core::{D, DType, Device, Tensor, Var};
use rayon::prelude::*;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::analysis::prediction;
use crate::error::Result;
use crate::input::batches;
use crate::memory::BATCH;
use crate::model::{Network, Output, Scoring, Site, SiteInfo, Stream, Tap, trace};
use crate::progress::Cancel;
use crate::quant::SitePlan;
use crate::quant::run::fake_quantize_picture;

/// A site and its plan at every candidate count.
pub type Candidates = (SiteInfo, Vec<SitePlan>);

/// The float run without masks, of which the KL is not.
struct Unmasked;

impl Tap for Unmasked {
    fn objects(&mut self, _found: Tensor) -> Result<Option<Tensor>> {
        Ok(None)
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

/// Pictures of one backward pass: fewer than of a forward pass, because it keeps every operand.
const BACKWARD: usize = BATCH / 4;

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

    fn proposals(&mut self, chosen: Tensor) -> Result<Tensor> {
        // The KL is that of pinned ones.
        Ok(chosen.detach())
    }

    fn objects(&mut self, _found: Tensor) -> Result<Option<Tensor>> {
        Ok(None)
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
    let trace = trace(network, part, &mut Unmasked)?;
    // The KL of a detector is the mean over its queries, each a row of its own.
    let queries = slots(&trace.output)?;
    let directions = statistics(&trace.output)
        .into_iter()
        .map(|(tensor, scoring)| {
            let rows = tensor.reshape(((), tensor.dim(D::Minus1)?))?.to_vec2::<f32>()?;
            let values: Vec<f32> = rows.iter().flat_map(|row| direction(row, scoring, &mut random)).collect();
            Ok(Tensor::from_vec(values, tensor.dims(), &Device::Cpu)?)
        })
        .collect::<Result<Vec<_>>>()?;
    let mut upper: Option<Vec<Tensor>> = None;
    let mut sums: Vec<Vec<f64>> = sites.iter().map(|(_, plans)| vec![0.0; plans.len()]).collect();
    for (step, boundary) in trace.boundaries.iter().enumerate().rev() {
        cancel.check()?;
        let mut probe = Probe { seen: Vec::new() };
        let starts = boundary.tensors().map(Var::from_tensor).collect::<candle_core::Result<Vec<_>>>()?;
        let Some(start) = Stream::of(starts.iter().map(|start| start.as_tensor().clone())) else { break };
        let end = network.step(step, &start, &mut probe)?;
        let scalar = if let Some(upper) = &upper {
            along(end.tensors().zip(upper))?
        } else {
            along(statistics(&network.output(&end)?).into_iter().map(|(tensor, _)| tensor).zip(&directions))?
        };
        let gradients = scalar.backward()?;
        let of_site = |((info, plans), sums): (&Candidates, &mut Vec<f64>)| {
            let seen = probe.seen.iter().find(|(site, ..)| *site == info.site);
            if let Some((x, gradient)) = seen.and_then(|(_, x, zero)| Some((x, gradients.get(zero.as_tensor())?))) {
                *sums = weighted_errors(info.site, x, gradient, plans)?.into_iter().map(|sum| sum / queries).collect();
            }
            cancel.check()
        };
        sites.par_iter().zip(&mut sums).filter(|((info, _), _)| info.step == step).try_for_each(of_site)?;
        let of_start = |start: &Var| gradients.get(start.as_tensor()).map_or_else(|| start.as_tensor().zeros_like(), |one| Ok(one.clone()));
        upper = Some(starts.iter().map(of_start).collect::<candle_core::Result<_>>()?);
    }
    Ok(sums)
}

/// Queries of a picture; of a detector of regions those that a proposal fills, the mean over the pictures.
fn slots(output: &Output) -> Result<f64> {
    let (pictures, queries, _) = output.logits.dims3()?;
    let filled = match &output.first {
        Some(first) => first.proposals.narrow(2, 0, 1)?.flatten_all()?.to_vec1::<f32>()?.iter().filter(|index| **index >= 0.0).count(),
        None => pictures * queries,
    };
    Ok(filled.max(1) as f64 / pictures.max(1) as f64)
}

/// The sum of all tensors, each along its direction.
fn along<'t>(pairs: impl Iterator<Item = (&'t Tensor, &'t Tensor)>) -> Result<Tensor> {
    let mut sum = Tensor::new(0f32, &Device::Cpu)?;
    for (tensor, direction) in pairs {
        sum = (sum + (tensor * direction)?.sum_all()?)?;
    }
    Ok(sum)
}

/// What the KL is of: logits of classes, and of a detector with a first stage those of its proposals.
fn statistics(output: &Output) -> Vec<(&Tensor, Scoring)> {
    let first = output.first.as_ref().map(|first| (&first.objectness, Scoring::Sigmoid));
    std::iter::once((&output.logits, output.scoring)).chain(first).collect()
}

/// `S r` for one row of logits: of one distribution over all classes, or of one each, where `S = diag(sqrt(p (1 - p)))`.
fn direction(logits: &[f32], scoring: Scoring, random: &mut fastrand::Rng) -> Vec<f32> {
    if scoring == Scoring::Sigmoid {
        let spread = |logit: &f32| 1.0 / (2.0 * (0.5 * logit).cosh());
        return logits.iter().map(|logit| if random.bool() { spread(logit) } else { -spread(logit) }).collect();
    }
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
