//! Perturbations as a file: of a part of the sites, of a study that was interrupted, or of the whole, to go on from.

use std::path::Path;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::evaluate::sorted_parts;
use super::perturbation::{Perturbation, Pictures, Search, SitePerturbation, without_counts};
use super::shard::{Shard, interleave};
use crate::analysis::SCHEMA_VERSION;
use crate::analysis::report::CalibrationReport;
use crate::error::{Error, Result};
use crate::quant::Settings;
use crate::read;
use crate::session::Session;

/// What `igq allocate` wrote when it looked at a part of the sites, or was interrupted; `--perturbation` takes it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PerturbationReport {
    /// Version of the form.
    pub schema_version: u32,
    /// Short name of the model.
    pub model: String,
    /// What they belong to.
    pub settings: Settings,
    /// What the quantizers were fitted on.
    pub calibration: CalibrationReport,
    /// Which of these pictures they were found on.
    pub pictures: Pictures,
    /// The perturbations.
    pub perturbation: Perturbation,
    /// Wall time in seconds.
    pub seconds: f64,
    /// Whether it was interrupted: sites are missing.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub partial: bool,
    /// Which part of the sites, in the order of the forward pass; none for all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shard: Option<Shard>,
}

impl PerturbationReport {
    /// That of `perturbation`, found as `search` says.
    #[must_use]
    pub fn new(session: &Session, settings: &Settings, search: &Search, perturbation: Perturbation, partial: bool, seconds: f64) -> Self {
        Self {
            schema_version: SCHEMA_VERSION,
            model: session.opened().model.name.clone(),
            settings: without_counts(settings, search.estimate),
            calibration: session.calibration_report().clone(),
            pictures: search.pictures,
            perturbation,
            seconds,
            partial,
            shard: search.shard.filter(|_| !partial),
        }
    }

    /// Reads one, and the perturbations in it that are those of the search.
    ///
    /// # Errors
    /// When the file is none, or of another model, other settings or another search.
    pub fn read(file: &Path, session: &Session, settings: &Settings, search: &Search) -> Result<Vec<SitePerturbation>> {
        let broken = |e: serde_json::Error| {
            let found = format!("expected the JSON report of the perturbations of `igq allocate` ({e})");
            Error::content(file.display().to_string(), found, "write it with --shard K/N or `igq merge`, --format json --output FILE")
        };
        let report: Self = serde_json::from_str(&read::text(file)?).map_err(broken)?;
        let empty = Perturbation::empty(search.estimate, search.candidates.to_vec(), search.images(session.calibration_report().images));
        let expected = Self::new(session, settings, search, empty, false, 0.0);
        let parts = [
            ("model", report.model == expected.model),
            ("settings", report.settings == expected.settings),
            ("calibration", report.calibration == expected.calibration),
            ("choice of images (with or without --data)", report.pictures == expected.pictures),
            ("estimate", report.perturbation.estimate == expected.perturbation.estimate),
            ("candidates", report.perturbation.candidates == expected.perturbation.candidates),
        ];
        if let Some((part, _)) = parts.into_iter().find(|(_, same)| !same) {
            let found = format!("its {part} is another than that of this run");
            return Err(Error::content(file.display().to_string(), found, "use the options that it was written with"));
        }
        Ok(report.perturbation.sites)
    }
}

/// The perturbations of all sites, from those of all parts.
///
/// # Errors
/// When a part is missing, is there twice, or belongs to another study.
pub fn merge(parts: Vec<PerturbationReport>) -> Result<PerturbationReport> {
    let (mut parts, shards) = sorted_parts(parts, |report| report.shard)?;
    let about = |r: &PerturbationReport| {
        let (p, settings) = (&r.perturbation, r.settings.clone());
        (r.model.clone(), settings, r.calibration.clone(), r.pictures, p.estimate, p.candidates.clone(), p.images)
    };
    if let Some(other) = (1..parts.len()).find(|&index| about(&parts[index]) != about(&parts[0])) {
        return Err(Error::setting("part", shards[other], "the same model, settings and search as in the first file"));
    }
    let sites = interleave(parts.iter_mut().map(|part| std::mem::take(&mut part.perturbation.sites).into_iter()).collect())?;
    let seconds = parts.iter().map(|part| part.seconds).sum();
    let Some(whole) = parts.into_iter().next() else { return Err(Error::setting("parts", 0, "at least one file")) };
    let perturbation = Perturbation { sites, ..whole.perturbation };
    Ok(PerturbationReport { perturbation, seconds, shard: None, ..whole })
}
