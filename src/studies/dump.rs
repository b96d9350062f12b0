//! Every tensor of a run in one safetensors file, so that anyone can check igq's arithmetic with another library.
//!
//! `input`; `logits.float`, `logits.quantized`; for every site `SITE.float` (the float run), `SITE.input` (the quantized run, just before
//! the quantizer), `SITE.quantized` (just after), `SITE.assignment` (the group of each channel or row), `SITE.lower`, `SITE.upper`,
//! `SITE.scale`, `SITE.zero_point` (one value a group), for igq-e `SITE.alpha` (below, above), for igq
//! `SITE.centre_lower` and `SITE.centre_upper`; for every quantized layer `LAYER.weight`, `LAYER.weight.codes`
//! and `LAYER.weight.scale`, `.zero_point`, `.lower`, `.upper` (one value an output channel, or a row of blocks), where LAYER is the address of the layer's input, such as `blocks.3.fc2`.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use candle_core::{Device, Tensor};

use crate::error::Result;
use crate::model::Network;
use crate::progress::Cancel;
use crate::quant::files::write_tensors;
use crate::quant::{Quantizer, Rule};
use crate::session::Outcome;

/// Writes the tensors of `outcome`; the whole file or none.
///
/// # Errors
/// When the file cannot be written.
pub fn write(path: &Path, network: &dyn Network, outcome: &Outcome) -> Result<()> {
    let row = |values: Vec<f32>| -> Result<Tensor> {
        let length = values.len();
        Ok(Tensor::from_vec(values, length, &Device::Cpu)?)
    };
    let mut tensors = BTreeMap::from([
        ("input".to_string(), outcome.base.prepared.tensor.clone()),
        ("logits.float".to_string(), outcome.base.float.prediction.tensor()?),
        ("logits.quantized".to_string(), outcome.quantized.prediction.tensor()?),
    ]);
    for (site, plan) in &outcome.plan.sites {
        let run = outcome.quantized.at(network, &outcome.plan, *site, &Cancel::default())?;
        tensors.insert(format!("{site}.float"), outcome.base.float.at(network, plan.info.step, *site)?);
        tensors.insert(format!("{site}.input"), run.before.clone());
        tensors.insert(format!("{site}.quantized"), run.after.clone());
        if let Some(grouping) = &run.grouping {
            let groups: Vec<u32> = grouping.assignment.iter().map(|&g| u32::from(g)).collect();
            let length = groups.len();
            tensors.insert(format!("{site}.assignment"), Tensor::from_vec(groups, length, &Device::Cpu)?);
            let each = |f: fn(&Quantizer) -> f32| row(grouping.quantizers.iter().map(f).collect());
            tensors.insert(format!("{site}.lower"), each(|q| q.bounds().lower)?);
            tensors.insert(format!("{site}.upper"), each(|q| q.bounds().upper)?);
            tensors.insert(format!("{site}.scale"), each(Quantizer::scale)?);
            tensors.insert(format!("{site}.zero_point"), each(Quantizer::zero_point)?);
        }
    }
    let mut metadata = HashMap::from([("igq.settings".to_string(), outcome.report.settings.describe())]);
    for (site, plan) in &outcome.plan.sites {
        if let Some(Rule::LeastError(alpha)) = plan.quantizers.as_ref().map(|q| &q.rule) {
            tensors.insert(format!("{site}.alpha"), row(vec![alpha.lower as f32, alpha.upper as f32])?);
        }
        if let Some(Rule::Nearest(Some(centres))) = plan.quantizers.as_ref().map(|q| &q.rule) {
            tensors.insert(format!("{site}.centre_lower"), row(centres.iter().map(|b| b.lower).collect())?);
            tensors.insert(format!("{site}.centre_upper"), row(centres.iter().map(|b| b.upper).collect())?);
        }
        let Some(weight) = &plan.weight else { continue };
        let blocks = weight.quantizers.len() / weight.size.0.max(1);
        let each = |f: fn(&Quantizer) -> f32| {
            let values: Vec<f32> = weight.quantizers.iter().map(f).collect();
            let shape = if blocks == 1 { vec![weight.size.0] } else { vec![weight.size.0, blocks] };
            Tensor::from_vec(values, shape, &Device::Cpu)
        };
        tensors.insert(format!("{site}.weight"), Tensor::from_vec(weight.values(), weight.size, &Device::Cpu)?);
        tensors.insert(format!("{site}.weight.codes"), Tensor::from_slice(&weight.codes, weight.size, &Device::Cpu)?);
        tensors.insert(format!("{site}.weight.scale"), each(Quantizer::scale)?);
        tensors.insert(format!("{site}.weight.zero_point"), each(Quantizer::zero_point)?);
        tensors.insert(format!("{site}.weight.lower"), each(|q| q.bounds().lower)?);
        tensors.insert(format!("{site}.weight.upper"), each(|q| q.bounds().upper)?);
        if let Some(layer) = &plan.info.layer {
            metadata.insert(format!("igq.layer.{site}"), layer.name.clone());
        }
    }
    write_tensors(path, &tensors, metadata)
}
