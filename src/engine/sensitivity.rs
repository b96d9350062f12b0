//! Sensitivity of every site over a set of pictures, from a session.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use candle_core::Tensor;
use clap::ValueEnum;

use super::evaluate;
use super::event::{Counter, Progress};
use super::session::{BATCH, Session};
use crate::analysis::SCHEMA_VERSION;
use crate::analysis::sensitivity::{Levels, SensitivityReport, both_ways, of_part, verdict};
use crate::analysis::suffix::Reference;
use crate::error::Result;
use crate::input::PictureSource;
use crate::model::SiteInfo;
use crate::model::tap::Cancel;
use crate::quant::run::Part;
use crate::quant::{BitWidth, GroupCount, Settings, SiteOverride};

/// What is varied for each site by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum By {
    /// Bits of activation and weight, 2 to 8.
    Bits,
    /// Group counts.
    Groups,
}

/// The float runs of the pictures that are looked at, and what they are: a folder's, or the calibration pictures.
///
/// # Errors
/// When a folder holds no pictures or one cannot be read; when there are no calibration pictures.
pub fn pictures(session: &Session, data: Option<&Path>, limit: Option<usize>, cancel: &Cancel) -> Result<(String, Arc<Reference>)> {
    let Some(folder) = data else {
        return Ok((format!("the calibration pictures ({})", session.calibration_report().source), session.reference(cancel)?));
    };
    let set = evaluate::data(session, Some(folder), limit)?;
    let opened = session.opened();
    let tensor = |source: &PictureSource| Ok(opened.preprocess.apply(&source.load()?)?.tensor);
    let tensors = set.pictures.iter().map(tensor).collect::<Result<Vec<_>>>()?;
    let batches = tensors.chunks(BATCH).map(|b| Ok(Tensor::cat(b, 0)?)).collect::<Result<Vec<_>>>()?;
    Ok((set.name, Arc::new(Reference::new(opened.model.network(), opened.model.sites(), &batches, cancel)?)))
}

/// Looks at every site both ways under `settings`.
///
/// # Errors
/// When the settings do not fit, or `cancel` was called.
pub fn report(
    session: &Session,
    settings: &Settings,
    (data, reference): &(String, Arc<Reference>),
    by: &[By],
    cancel: &Cancel,
    progress: &(dyn Fn(Progress) + Sync),
) -> Result<SensitivityReport> {
    let started = Instant::now();
    let model = &session.opened().model;
    let network = model.network();
    let plan = session.plan(settings)?;
    let at = |info: &SiteInfo, own: SiteOverride| {
        let mut settings = settings.clone();
        settings.overrides.push(own);
        session.site_plan(&settings, info)
    };
    let own = |info: &SiteInfo| SiteOverride { sites: info.site.into(), wbits: None, abits: None, groups: None };
    let bits = |info: &SiteInfo| {
        let widths = BitWidth::ALL.into_iter().filter(|b| !b.is_float() && by.contains(&By::Bits));
        widths.map(|b| Ok((b, at(info, SiteOverride { wbits: Some(b), abits: Some(b), ..own(info) })?))).collect()
    };
    let groups = |info: &SiteInfo| {
        let used = by.contains(&By::Groups) && settings.scheme(info.site).uses_groups();
        let counts = super::budget::default_candidates().into_iter().filter(|_| used);
        counts.map(|g: GroupCount| Ok((g, at(info, SiteOverride { groups: Some(g), ..own(info) })?))).collect()
    };
    let total = plan.sites.values().filter(|p| p.is_quantized()).count();
    let looked = Counter::new("sensitivity of each site, both ways", total);
    let found = || progress(looked.add(1));
    let levels = Levels { bits: &bits, groups: &groups };
    let (whole, sites) = both_ways(network, reference, &plan, model.sites(), &levels, cancel, &found)?;
    let mut report = SensitivityReport {
        schema_version: SCHEMA_VERSION,
        model: model.name.clone(),
        settings: settings.clone(),
        calibration: session.calibration_report().clone(),
        data: data.clone(),
        images: reference.images(),
        whole,
        weights_only: of_part(network, reference, &plan, Part::Weights, cancel)?,
        activations_only: of_part(network, reference, &plan, Part::Activations, cancel)?,
        softmax_only: of_part(network, reference, &plan, Part::Softmax, cancel)?,
        sum_only: sites.iter().map(|s| s.only.kl).sum(),
        sites,
        verdict: String::new(),
        seconds: started.elapsed().as_secs_f64(),
    };
    report.verdict = verdict(&report);
    Ok(report)
}
