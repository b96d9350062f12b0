//! What the engine tells: facts as immutable snapshots of plain numbers, and progress.

use std::sync::Arc;

use crate::analysis::ArithmeticReport;
use crate::analysis::detail::SiteDetail;
use crate::analysis::report::LensPoint;
use crate::analysis::report::{Blame, Sensitivity};
use crate::model::Site;
use crate::quant::Settings;
use crate::session::{Predicted, Snapshot};
use crate::studies::allocate::Perturbed;
use crate::studies::compare::Comparison;
use crate::studies::curve::Curve;
use crate::studies::mixed::MixedReport;
use crate::studies::suggest::Suggestion;

/// A fact from the engine.
#[derive(Debug, Clone)]
pub enum Event {
    /// What a request predicts; its measures follow.
    Predicted(Arc<Predicted>),
    /// The measures of a request.
    Snapshot(Arc<Snapshot>),
    /// What integers gain here, for a request whose products are computed in them.
    Timed(u64, ArithmeticReport),
    /// What both runs of a request would answer after every block.
    Lens(u64, Vec<LensPoint>),
    /// Details of one site of an answered request.
    Detail(Arc<SiteDetail>),
    /// Single-site sensitivities of a request, as far as the sweep is.
    Sensitivity(u64, Vec<(Site, Sensitivity)>),
    /// What is to blame for what the prediction of a request lost.
    Blamed(u64, Blame),
    /// Perturbations, as far as the study is.
    Perturbed(Arc<Perturbed>),
    /// A comparison, as far as the study is.
    Compared(Arc<Comparison>),
    /// A suggestion, found and verified.
    Suggested(Arc<Suggestion>),
    /// The error of one site against its number of groups.
    Curve(Arc<Curve>),
    /// The KL of one picture under settings that were tried, with what they were.
    Tried(Box<Settings>, usize, f64),
    /// Mixed precision at the cost of several uniform bits, measured.
    Mixed(Arc<MixedReport>),
    /// More pictures are there: the index of the first of them, and the number of all.
    Pictures(usize, usize),
    /// They could not be opened.
    PicturesFailed(String),
    /// A study could not be finished.
    StudyFailed(String),
    /// A request could not be answered.
    Failed(u64, String),
    /// The session could not be prepared; nothing can run.
    Broken(String),
}
