//! The report of a whole study from the reports of its parts.

use std::path::PathBuf;

use super::evaluate::{self, Evaluation};
use super::perturbation_report::{self, PerturbationReport};
use super::sensitivity::{self, SensitivityReport};
use crate::error::{Error, Result};
use crate::read;

/// A merged report.
#[derive(Debug, Clone, PartialEq)]
pub enum Merged {
    /// Of `igq eval`.
    Evaluation(Box<Evaluation>),
    /// Of `igq sensitivity`.
    Sensitivity(Box<SensitivityReport>),
    /// Of the perturbations of `igq allocate`.
    Perturbation(Box<PerturbationReport>),
}

/// Reads the reports of all parts of one study and puts them together.
///
/// # Errors
/// When a file is no report of a part, a part is missing or is there twice, or the parts are of different studies.
pub fn merge(files: &[PathBuf]) -> Result<Merged> {
    let (mut evaluations, mut sensitivities, mut perturbations) = (Vec::new(), Vec::new(), Vec::new());
    for file in files {
        let broken = |e: serde_json::Error| {
            let found = format!("expected the JSON report of a part of `igq eval`, `igq sensitivity` or `igq allocate` ({e})");
            Error::content(file.display().to_string(), found, "write it with --shard K/N --format json --output FILE")
        };
        let value: serde_json::Value = serde_json::from_str(&read::text(file)?).map_err(broken)?;
        if value.get("rows").is_some() {
            evaluations.push(serde_json::from_value::<Evaluation>(value).map_err(broken)?);
        } else if value.get("perturbation").is_some() {
            perturbations.push(serde_json::from_value::<PerturbationReport>(value).map_err(broken)?);
        } else {
            sensitivities.push(serde_json::from_value::<SensitivityReport>(value).map_err(broken)?);
        }
    }
    match (evaluations.is_empty(), sensitivities.is_empty(), perturbations.is_empty()) {
        (false, true, true) => Ok(Merged::Evaluation(Box::new(evaluate::merge(evaluations)?))),
        (true, false, true) => Ok(Merged::Sensitivity(Box::new(sensitivity::merge(sensitivities)?))),
        (true, true, false) => Ok(Merged::Perturbation(Box::new(perturbation_report::merge(perturbations)?))),
        _ => Err(Error::setting("files", files.len(), "reports of one kind: of `igq eval`, of `igq sensitivity` or of `igq allocate`")),
    }
}
