//! A logit lens: the network's last norm, pooling and head on the residual stream after every block, in the float run and in the quantized run
//! of one picture. It says what each would answer if it ended there, and where the two part.
//!
//! Source: "interpreting GPT: the logit lens" (nostalgebraist, 2020), applied to class tokens and pooled tokens as the network pools them.

use rayon::prelude::*;

use super::prediction::{Prediction, class_name};
use super::report::{ClassProbability, LensPoint};
use super::runs::{FloatRun, QuantizedRun};
use crate::error::Result;
use crate::model::{Identity, Model, SiteKind};
use crate::progress::Cancel;
use crate::quant::{Plan, Start, run};

/// The lens after the embedding and after every block whose stream the classifier can take: all of a ViT, the last stage of a Swin Transformer.
///
/// # Errors
/// When `cancel` was called.
pub fn lens(model: &Model, plan: &Plan, float: &FloatRun, quantized: &QuantizedRun, cancel: &Cancel) -> Result<Vec<LensPoint>> {
    let network = model.network();
    let last = network.steps() - 1;
    let (of_float, of_quantized) = (&float.trace.boundaries, quantized.boundaries());
    let block_ends = model.sites().iter().filter(|info| info.site.kind == SiteKind::Fc2);
    let block_ends = block_ends.map(|info| {
        let address = info.site.to_string();
        (address.trim_end_matches(".fc2").to_string(), info.step + 1)
    });
    let ends: Vec<(String, usize)> = std::iter::once(("patch".to_string(), 1)).chain(block_ends).collect();
    let answer = float.prediction.class();
    let look = |(after, boundary): &(String, usize)| {
        let (Some(f), Some(q), Some(end)) = (of_float.get(*boundary), of_quantized.get(*boundary), of_float.get(last)) else {
            return Ok(None);
        };
        if f.dims() != end.dims() {
            return Ok(None);
        }
        cancel.check()?;
        let float = Prediction::of_one(&network.output(&network.step(last, f, &mut Identity)?)?)?;
        let quantized = Prediction::of_one(&run(network, Start::stream(last, q), plan, cancel)?)?;
        let class = |p: &Prediction| {
            let class = p.class();
            ClassProbability { class, label: class_name(&model.labels, class), probability: p.probability_of(class) }
        };
        let of_answer = (float.probability_of(answer), quantized.probability_of(answer));
        let kl = quantized.against(&float).kl;
        Ok(Some(LensPoint { after: after.clone(), float: class(&float), quantized: class(&quantized), of_answer, kl }))
    };
    let found: Vec<Option<LensPoint>> = ends.par_iter().map(look).collect::<Result<_>>()?;
    Ok(found.into_iter().flatten().collect())
}

/// Where the two runs part: the first point from which on their classes differ to the end. None where they end alike.
#[must_use]
pub fn parting(points: &[LensPoint]) -> Option<&LensPoint> {
    let differing = points.iter().rev().take_while(|p| p.float.class != p.quantized.class).count();
    (differing > 0).then(|| &points[points.len() - differing])
}
