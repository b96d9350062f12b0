//! Evaluations of detectors as text, JSON, CSV and Markdown.

use super::{csv, deliver, preset, table};
use crate::analysis::objects::{Fate, ObjectReport, ObjectsReport, Seen};
use crate::analysis::report::json;
use crate::cli::{Format, Output};
use crate::error::Result;
use crate::studies::coco::{ObjectsEvaluation, ObjectsRow};

const HEADER: &[&str] = &[
    "method",
    "W/A",
    "groups",
    "GBOPs",
    "AP",
    "AP50",
    "AP75",
    "small",
    "medium",
    "large",
    "AR100",
    "AP - float",
    "95 %",
    "same %",
    "kept",
    "lost",
    "new",
    "KL",
];

/// The columns of a model that makes masks, behind those.
const OF_MASKS: &[&str] = &["mask AP", "mask AP50", "mask AP75", "mask AP - float", "mask 95 %"];

/// Writes an evaluation as asked.
///
/// # Errors
/// When it cannot be written.
pub fn objects(found: &ObjectsEvaluation, output: &Output) -> Result<()> {
    let masks = found.rows.iter().any(|row| row.mask_accuracy.is_some());
    let header = if masks { [HEADER, OF_MASKS].concat() } else { HEADER.to_vec() };
    let rows = || found.rows.iter().map(|r| if masks { [row(r), of_masks(r)].concat() } else { row(r) });
    let text = match output.format {
        Format::Json => json(found)?,
        Format::Csv => csv(&header, rows())?,
        Format::Text | Format::Markdown => format!(
            "{}: {} pictures, {} objects, {}\ncalibrated on {}; AP in percent, mean over IoU 0.5 to 0.95; same: pictures whose objects stay\n{}\n{:.1} s\n",
            found.model,
            found.images,
            found.objects,
            found.truth,
            found.calibration,
            table(preset(output.format), &header, rows()),
            found.seconds
        ),
    };
    deliver(output.output.as_deref(), &text)
}

fn percent(value: Option<f64>) -> String {
    value.map_or_else(|| "-".into(), |v| format!("{v:.1}"))
}

/// A difference and its interval.
fn apart(difference: Option<(f64, f64, f64)>) -> [String; 2] {
    difference.map_or_else(|| ["-".into(), "-".into()], |(mean, low, high)| [format!("{mean:+.1}"), format!("{low:+.1} to {high:+.1}")])
}

fn of_masks(r: &ObjectsRow) -> Vec<String> {
    let a = r.mask_accuracy.as_ref();
    let numbers = [a.and_then(|a| a.ap), a.and_then(|a| a.ap50), a.and_then(|a| a.ap75)].map(percent);
    numbers.into_iter().chain(apart(r.mask_difference)).collect()
}

fn row(r: &ObjectsRow) -> Vec<String> {
    let a = &r.accuracy;
    let count = |fates: &[Fate]| fates.iter().filter_map(|fate| r.fates.get(fate.name())).sum::<usize>().to_string();
    let [difference, interval] = apart(r.difference);
    vec![
        r.row.method.to_string(),
        format!("{}/{}", r.row.wbits, r.row.abits),
        r.row.groups.map(|g| g.to_string()).unwrap_or_default(),
        format!("{:.4}", r.row.bops as f64 / 1e9),
        percent(a.ap),
        percent(a.ap50),
        percent(a.ap75),
        percent(a.ap_small),
        percent(a.ap_medium),
        percent(a.ap_large),
        percent(a.ar100),
        difference,
        interval,
        format!("{:.1}", r.row.agreement),
        count(&[Fate::Kept, Fate::Moved]),
        count(&[Fate::Lost, Fate::Faded, Fate::Relabelled]),
        count(&[Fate::New]),
        format!("{:.5}", r.row.kl),
    ]
}

/// The objects of one picture as a table.
pub(super) fn table_of(found: &ObjectsReport, preset: &str) -> String {
    let seen = |seen: Option<&Seen>| seen.map_or_else(|| "-".into(), |s| format!("{} {:.1} %", s.label, s.score * 100.0));
    let row = |(at, object): (usize, &ObjectReport)| {
        let overlap = object.iou.map_or_else(|| "-".into(), |iou| format!("{iou:.2}"));
        vec![
            (at + 1).to_string(),
            object.fate.name().to_string(),
            seen(object.float.as_ref()),
            seen(object.quantized.as_ref()),
            overlap,
            object.kl.map_or_else(|| "-".into(), |kl| format!("{kl:.5}")),
        ]
    };
    let rows = found.objects.iter().enumerate().map(row);
    let head = format!("objects over {:.2}: {} float, {} quantized\n", found.threshold, found.counts.0, found.counts.1);
    head + &table(preset, &["#", "fate", "float", "quantized", "IoU", "KL"], rows).to_string()
}
