//! Methods by bit-widths, on one picture and on the evaluation set.

use crate::analysis::report::PredictionReport;
use crate::error::{Error, Result};
use crate::progress::Cancel;
use crate::quant::format::Format;
use crate::quant::{BitWidth, Method, Settings, bops};
use crate::session::Session;
use crate::studies::evaluate;
use crate::studies::tally::{EvaluationRow, Looked};

/// Pictures of the evaluation set that are looked at between two partial results.
const STRIDE: usize = 32;
/// Pictures of the evaluation set that are looked at unless all are asked for.
pub const FIRST: usize = 100;

/// One row of a comparison.
#[derive(Debug, Clone, PartialEq)]
pub struct ComparisonRow {
    /// The settings of the row.
    pub settings: Settings,
    /// Bit operations of the whole network for one picture.
    pub bops: u64,
    /// Mean bits for each value, codes and scales, of weights and of activations.
    pub effective_bits: (f64, f64),
    /// The prediction for the picture.
    pub prediction: PredictionReport,
    /// What the evaluation set says so far; none before its first pictures.
    pub evaluation: Option<EvaluationRow>,
}

/// Methods by bit-widths.
#[derive(Debug, Clone, PartialEq)]
pub struct Comparison {
    /// The settings that the rows start from.
    pub settings: Settings,
    /// Index of the picture.
    pub picture: usize,
    /// Rows, method by method, narrow bits first.
    pub rows: Vec<ComparisonRow>,
    /// Name of the evaluation set.
    pub data: String,
    /// Pictures of it that were seen.
    pub seen: usize,
    /// Pictures of it that are to be seen.
    pub total: usize,
    /// Pictures of it in all.
    pub available: usize,
}

impl Comparison {
    /// Which method keeps most at the present bits on the pictures seen, what the present one keeps, and why where they differ; none before the
    /// first pictures.
    #[must_use]
    pub fn verdict(&self, present: &Settings) -> Option<String> {
        let evaluated = |row: &'_ ComparisonRow| row.evaluation.as_ref().map(|e| e.kl);
        let at = |row: &&ComparisonRow| (row.settings.wbits, row.settings.abits) == (present.wbits, present.abits);
        let rows: Vec<(&ComparisonRow, f64)> = self.rows.iter().filter(at).filter_map(|row| Some((row, evaluated(row)?))).collect();
        let (best, least) = rows.iter().min_by(|a, b| a.1.total_cmp(&b.1))?;
        let (mine, kl) = rows.iter().find(|(row, _)| row.settings.method == present.method)?;
        let told = |row: &ComparisonRow, kl: f64| {
            format!(
                "{} has KL {kl:.4} at {:.2} bits a value and {:.2} G bit operations",
                row.settings.method,
                row.effective_bits.1,
                row.bops as f64 / 1e9
            )
        };
        let head = format!("W{}/A{}, {} pictures: {}", present.wbits, present.abits, self.seen, told(best, *least));
        if best.settings.method == mine.settings.method {
            return Some(format!("{head}, the least of all methods."));
        }
        let of = |row: &ComparisonRow| row.settings.method.spec();
        let why = match (of(best).format.is_some(), of(mine).format.is_some()) {
            (true, false) => "its scales are those of every token of this picture, which one range for all tokens cannot follow",
            (true, true) if of(best).instance_aware => "its groups are channels that are alike in this picture, not neighbours",
            (true, true) => "its scales are for fewer values each",
            (false, _) if of(best).instance_aware => "its groups follow the channels of this picture",
            (false, _) => "here the difference is the rounding of single values more than the ranges",
        };
        Some(format!("{head}; {}. Why: {why}.", told(mine, *kl)))
    }
}

/// A comparison that has seen the first pictures of the evaluation set.
///
/// # Errors
/// When the settings do not fit or a picture cannot be read.
pub fn first(session: &Session, settings: &Settings, picture: usize) -> Result<Comparison> {
    let (cancel, mut first) = (Cancel::default(), None);
    let ended = stepwise(session, settings, picture, FIRST, &mut Vec::new(), &cancel, &mut |comparison| {
        if comparison.seen > 0 {
            first = Some(comparison.clone());
            cancel.cancel();
        }
    });
    first.map_or_else(|| ended.and(Err(Error::Cancelled)), Ok)
}

/// Tells a comparison first for the picture, then again and again for more of the evaluation set, up to `limit` pictures. `known` is what an
/// earlier comparison under the same settings has seen, and takes what this one sees.
///
/// # Errors
/// When the settings do not fit, a picture cannot be read, or `cancel` was called.
pub fn stepwise(
    session: &Session,
    settings: &Settings,
    picture: usize,
    limit: usize,
    known: &mut Vec<Looked>,
    cancel: &Cancel,
    tell: &mut dyn FnMut(&Comparison),
) -> Result<()> {
    let (model, base) = (&session.opened().model, session.base(picture)?);
    let mut rows = Vec::new();
    for method in Method::ALL.into_iter().filter(|m| *m != Method::Float) {
        // A block format has one width.
        let of_format = method.spec().format.and_then(Format::bits);
        let widths = [4, 6, 8].into_iter().filter_map(|b| BitWidth::new(b).ok());
        for bits in widths.filter(|bits| of_format.is_none_or(|own| own == *bits)) {
            let settings = Settings { method, wbits: bits, abits: bits, sbits: bits, ..settings.clone() };
            let prediction = session.predict(&base, &session.plan_until(&settings, cancel)?, cancel)?;
            rows.push(ComparisonRow {
                bops: bops::total(model.sites(), &settings),
                effective_bits: bops::mean_effective_bits(model.sites(), &settings),
                prediction: prediction.report(&base.float.prediction, &model.labels),
                settings,
                evaluation: None,
            });
        }
    }
    let set = evaluate::data(session, None, Some(limit))?;
    let available = session.opened().pictures.len();
    let grid: Vec<Settings> = rows.iter().map(|r| r.settings.clone()).collect();
    let mut comparison =
        Comparison { settings: settings.clone(), picture, rows, data: set.name.clone(), seen: 0, total: set.len(), available };
    tell(&comparison);
    evaluate::stepwise(session, &set, grid.as_slice().into(), STRIDE, known, cancel, &mut |seen, evaluated| {
        comparison.seen = seen;
        for (row, evaluation) in comparison.rows.iter_mut().zip(evaluated) {
            row.evaluation = Some(evaluation);
        }
        tell(&comparison);
    })
}
