//! What only one site on one view shows, made from an outcome when it is asked for: the attention of a softmax in both runs.

use candle_core::Tensor;

use super::distribution::Distribution;
use super::runs::SiteRun;
use crate::model::{Site, SiteInfo, TokenLayout, kernels};
use crate::quant::SitePlan;

/// The softmax attention of one site in both runs.
#[derive(Debug, Clone, PartialEq)]
pub struct AttentionMap {
    /// Number of heads, `H`.
    pub heads: usize,
    /// Where its tokens lie, and which of them see one another.
    pub layout: TokenLayout,
    /// Rows of the float run, in the order of [`TokenLayout::softmax_row`]; a row has as many values as tokens see one another.
    pub float: Vec<f32>,
    /// Those of the quantized run just before their quantizer.
    pub before: Vec<f32>,
    /// Those of the quantized run just after their quantizer.
    pub quantized: Vec<f32>,
}

/// Details of one site of one run.
#[derive(Debug, Clone, PartialEq)]
pub struct SiteDetail {
    /// Which request the run answered.
    pub id: u64,
    /// The site.
    pub site: Site,
    /// Its attention, where it is a softmax.
    pub attention: Option<AttentionMap>,
    /// For each channel or row what each group would cost it: the least is its group. Empty where groups do not depend on the picture.
    pub costs: Vec<Vec<f64>>,
    /// How its values are distributed.
    pub distribution: Option<Distribution>,
}

impl SiteDetail {
    /// Details of the site of `plan`, from the operand `float` and what the quantized run did to it in request `id`; `weight` is the float
    /// weight of its layer.
    #[must_use]
    pub fn new(id: u64, plan: &SitePlan, weight: Option<&Tensor>, both: Option<(&Tensor, &SiteRun)>) -> Self {
        let info = &plan.info;
        let values = |x: &Tensor| kernels::with_values(x, <[f32]>::to_vec).ok();
        let map = || {
            let (float, run) = both?;
            let SiteInfo { heads, layout, .. } = *info;
            let (float, before) = (values(float)?, values(&run.before)?);
            Some(AttentionMap { heads, layout, float, before, quantized: values(&run.after)? })
        };
        let run = both.map(|(_, run)| run);
        let distribution = both.and_then(|(float, run)| Distribution::new(plan, float, run, weight).ok());
        let costs = || {
            let (quantizers, grouping) = (plan.quantizers.as_ref()?, run?.grouping.as_ref()?);
            grouping.ranges.iter().map(|&range| quantizers.costs(range, plan.bits)).collect::<Option<Vec<_>>>()
        };
        let costs = costs().unwrap_or_default();
        Self { id, site: info.site, attention: info.site.kind.is_softmax().then(map).flatten(), costs, distribution }
    }
}
