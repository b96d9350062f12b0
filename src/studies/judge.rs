//! What settings do on pictures that they were not found on, and whether they are worth taking.

use schemars::JsonSchema;
use serde::Serialize;

use super::evaluate::stepwise;
use super::perturbation::judges;
use crate::analysis::metrics;
use crate::analysis::suffix::Reference;
use crate::error::Result;
use crate::input::PictureSet;
use crate::progress::{Cancel, Progress};
use crate::quant::{Settings, bops};
use crate::session::Session;

/// Settings, and what they do on pictures that they were not found on.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Measured {
    /// `allocated`, or `uniform 8`.
    pub name: String,
    /// Bit operations of the whole network.
    pub bops: u64,
    /// Sum over the sites of the KL of each by itself in nats, which is no prediction of the whole; none where a uniform count is no candidate.
    pub sum_of_omega: Option<f64>,
    /// Mean KL in nats, by a run.
    pub kl: f64,
    /// Percent of the pictures whose most likely class is that of the float run.
    pub agreement: f64,
    /// Percent of the pictures whose most likely class is the true one; none without labels.
    pub top1: Option<f64>,
}

/// What settings do to every picture that judges.
pub struct Judged {
    /// The KL of each.
    pub kl: Vec<f64>,
    /// The means.
    pub measured: Measured,
}

/// The pictures that judge.
pub enum Judge<'j> {
    /// Those of a set.
    Set(&'j PictureSet),
    /// The calibration pictures that nothing was found on.
    Calibration(Reference),
}

impl<'j> Judge<'j> {
    /// `data`, or the calibration pictures that [`super::perturbation::Pictures::EveryOther`] leaves out.
    ///
    /// # Errors
    /// When there are none.
    pub fn new(session: &Session, data: Option<&'j PictureSet>, cancel: &Cancel) -> Result<Self> {
        let model = &session.opened().model;
        Ok(match data {
            Some(set) => Self::Set(set),
            None => Self::Calibration(Reference::new(model.network(), model.sites(), &judges(session)?, cancel)?),
        })
    }

    /// What the pictures are, and how many.
    #[must_use]
    pub fn describe(&self) -> (String, usize) {
        match self {
            Self::Set(set) => (set.name.clone(), set.len()),
            Self::Calibration(reference) => ("the calibration images that nothing was found on".into(), reference.images()),
        }
    }

    /// Runs settings on all of them; `sum` is what they would do if sites added up.
    ///
    /// # Errors
    /// When a picture cannot be read, the settings do not fit, or `cancel` was called.
    pub fn look(
        &self,
        session: &Session,
        (name, settings, sum): (String, &Settings, Option<f64>),
        cancel: &Cancel,
        progress: &(dyn Fn(Progress) + Sync),
    ) -> Result<Judged> {
        let model = &session.opened().model;
        let (kl, changed, top1) = match self {
            Self::Set(set) => {
                let (mut pictures, mut top1) = (Vec::new(), None);
                stepwise(session, set, std::slice::from_ref(settings).into(), 64, &mut pictures, cancel, &mut |done, rows| {
                    progress(Progress { stage: name.clone(), done, total: set.len() });
                    top1 = rows.first().and_then(|row| row.top1);
                })?;
                let seen: Vec<_> = pictures.iter().flatten().filter_map(|rows| rows.first()).copied().collect();
                (seen.iter().map(|seen| seen.kl).collect::<Vec<_>>(), seen.iter().filter(|seen| seen.changed).count(), top1)
            }
            Self::Calibration(reference) => {
                let each = reference.each(model.network(), reference.traces(), 0, &session.plan(settings)?, cancel)?;
                (each.iter().map(|one| one.kl).collect(), each.iter().map(|one| one.changed).sum(), None)
            }
        };
        let count = kl.len().max(1) as f64;
        let measured = Measured {
            name,
            bops: bops::total(model.sites(), settings),
            sum_of_omega: sum,
            kl: kl.iter().sum::<f64>() / count,
            agreement: 100.0 * (kl.len() - changed) as f64 / count,
            top1,
        };
        Ok(Judged { kl, measured })
    }
}

impl Judged {
    /// The KL of the best of `others` less that of this, picture by picture, with its interval, and whether this is worth taking.
    #[must_use]
    pub fn against(&self, others: &[&Self]) -> (Option<(f64, f64, f64)>, String) {
        let best = others.iter().min_by(|a, b| a.measured.kl.total_cmp(&b.measured.kl));
        let gain = best.and_then(|best| {
            let gains: Vec<f64> = best.kl.iter().zip(&self.kl).map(|(other, own)| other - own).collect();
            metrics::bootstrap_mean(&gains)
        });
        let Some((name, (mean, low, high))) = best.map(|best| &best.measured.name).zip(gain) else {
            let why = if best.is_some() {
                "One picture is too few to judge by: give more calibration pictures."
            } else {
                "Nothing uniform lies within the budget to hold it against."
            };
            return (None, why.into());
        };
        let by = format!("{mean:.4} [{low:.4}, {high:.4}] nats on {} images that it was not found on", self.kl.len());
        let verdict = match (low > 0.0, high < 0.0) {
            (true, _) => format!("Better than {name} by {by}."),
            (_, true) => format!("Worse than {name}: its gain is {by}. Take {name}."),
            _ => format!("Does not beat {name}: its gain is {by}, within noise."),
        };
        (gain, verdict)
    }
}
