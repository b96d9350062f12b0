//! Answers to a request, in stages: the prediction as soon as the quantized forward pass is through, then the measures of all sites, then
//! the sweep, one site at a time. A stage never waits for the next. Plain numbers, immutable.

use std::sync::Arc;

use super::core::{Outcome, Session};
use crate::analysis::report::LensPoint;
use crate::analysis::report::{Blame, BopsReport, PredictionReport, Sensitivity};
use crate::analysis::{ArithmeticReport, Report};
use crate::error::Result;
use crate::input::Raster;
use crate::model::Site;
use crate::progress::Cancel;
use crate::quant::{Arithmetic, Settings};

/// Sensitivities that are told at once.
const SWEEP_CHUNK: usize = 8;

/// Costliest sites that are left in float, one at a time, to see whether that helps.
pub const REPAIRED: usize = 5;

/// A run that a user asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Grows with every request; answers carry it, so that stale ones can be told.
    pub id: u64,
    /// The settings to run under.
    pub settings: Settings,
    /// Index of the picture in the session's set.
    pub picture: usize,
    /// A second picture whose grouping is to be compared.
    pub compare: Option<usize>,
}

/// The pixels that a model sees, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PictureView {
    /// Pixels a row.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// Colours, row by row.
    pub rgb: Vec<[u8; 3]>,
}

/// What a run predicts: the first stage of an answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Predicted {
    /// Which request it answers.
    pub id: u64,
    /// Index of the picture in the session's set.
    pub picture: usize,
    /// The settings of the run.
    pub settings: Settings,
    /// Float against quantized.
    pub prediction: PredictionReport,
    /// Bit operations of the whole network for the picture.
    pub bops: BopsReport,
}

/// Everything that one run leaves for the screen: the second stage of an answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Snapshot {
    /// Which request it answers.
    pub id: u64,
    /// Index of the picture in the session's set.
    pub picture: usize,
    /// The numbers.
    pub report: Report,
    /// What the model sees.
    pub view: PictureView,
    /// The same for the second picture, where one was asked for.
    pub compare: Option<Box<Snapshot>>,
}

impl Snapshot {
    /// What the screen needs of a run, as the answer to request `id`.
    #[must_use]
    pub fn of(outcome: &Outcome, id: u64, picture: usize) -> Self {
        Self { id, picture, report: outcome.report.clone(), view: PictureView::of(&outcome.base.prepared.view), compare: None }
    }
}

impl PictureView {
    fn of(raster: &Raster) -> Self {
        let pixels = (0..raster.height).flat_map(|y| (0..raster.width).map(move |x| (x, y)));
        Self { width: raster.width, height: raster.height, rgb: pixels.map(|(x, y)| raster.rgb(x, y)).collect() }
    }
}

/// One stage of an answer.
pub enum Stage {
    /// The quantized forward pass is through.
    Predicted(Arc<Predicted>),
    /// Every site is measured; the outcome serves [`Session::detail`].
    Measured(Arc<Snapshot>, Arc<Outcome>),
    /// What both runs would answer after every block.
    Lens(Vec<LensPoint>),
    /// What integers gain here, where products are computed in them.
    Timed(ArithmeticReport),
    /// Some more sites of the sweep, how many there are so far and how many there will be.
    Swept(Vec<(Site, Sensitivity)>, usize, usize),
    /// What is to blame for what the prediction lost.
    Blamed(Blame),
}

impl Session {
    /// Answers a request; `tell` hears every stage as it is done.
    ///
    /// # Errors
    /// When the picture cannot be read, the settings do not fit, or `cancel` was called. Stages that were told stay valid.
    pub fn answer(&self, request: &Request, cancel: &Cancel, tell: &mut dyn FnMut(Stage)) -> Result<()> {
        let Request { id, picture, .. } = *request;
        let predicted = |prediction| {
            let bops = self.bops(&request.settings);
            Stage::Predicted(Arc::new(Predicted { id, picture, settings: request.settings.clone(), prediction, bops }))
        };
        // A run that was made ahead is the same run: told now, and made again for what is to be measured.
        let foreseen = self.foreseen(picture, &request.settings);
        if let Some(foreseen) = &foreseen {
            let float = &self.base(picture)?.float.prediction;
            tell(predicted(foreseen.report(float, &self.opened().model.labels)));
        }
        let run = self.quantize(picture, &request.settings, cancel)?;
        if foreseen.is_none() {
            tell(predicted(self.prediction(&run)));
        }
        let outcome = Arc::new(self.measure(run, &request.settings, cancel)?);
        cancel.check()?;
        let mut snapshot = Snapshot::of(&outcome, id, picture);
        if let Some(second) = request.compare {
            let compared = self.run(second, &request.settings, cancel)?;
            snapshot.compare = Some(Box::new(Snapshot::of(&compared, id, second)));
        }
        tell(Stage::Measured(Arc::new(snapshot), Arc::clone(&outcome)));
        tell(Stage::Lens(self.lens(&outcome, cancel)?));
        if request.settings.arithmetic == Arithmetic::Integer {
            tell(Stage::Timed(self.time_arithmetics(picture, &request.settings, cancel)?));
        }
        let total = outcome.report.sites.iter().filter(|s| s.groups > 0 || s.weight.is_some()).count();
        let (mut found, mut done) = (Vec::new(), 0);
        let mut costs = Vec::new();
        self.sweep(&outcome, cancel, |site, value| {
            costs.push((value.kl, site));
            found.push((site, value));
            done += 1;
            if found.len() == SWEEP_CHUNK {
                tell(Stage::Swept(std::mem::take(&mut found), done, total));
            }
        })?;
        tell(Stage::Swept(found, done, total));
        costs.sort_by(|a, b| b.0.total_cmp(&a.0));
        let costliest: Vec<Site> = costs.into_iter().take(REPAIRED).map(|(_, site)| site).collect();
        tell(Stage::Blamed(self.blame(&outcome, &costliest, cancel)?));
        Ok(())
    }
}
