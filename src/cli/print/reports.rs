//! Flipped pictures and differences of reports as text, JSON, CSV and Markdown.

use super::{csv, deliver, preset, table};
use crate::analysis::report::{ClassProbability, json};
use crate::clean::clean;
use crate::cli::{Format, Output};
use crate::error::Result;
use crate::studies::diff::{Changed, DiffReport};
use crate::studies::flips::{Flip, FlipReport};

/// Writes flipped pictures as asked.
///
/// # Errors
/// When it cannot be written.
pub fn flips(report: &FlipReport, output: &Output) -> Result<()> {
    const HEADER: &[&str] = &["index", "image", "truth", "KL", "float", "quantized"];
    let top = |classes: &[ClassProbability]| {
        classes.iter().map(|c| format!("{} {:.1}", c.label, 100.0 * c.probability)).collect::<Vec<_>>().join(", ")
    };
    let row = |f: &Flip| {
        let truth = f.truth.clone().unwrap_or_default();
        let p = &f.prediction;
        vec![f.index.to_string(), f.picture.clone(), truth, format!("{:.4}", p.kl), top(&p.float), top(&p.quantized)]
    };
    let rows = || report.flips.iter().map(row);
    let detects = report.flips.iter().any(|flip| flip.prediction.objects.is_some());
    let what = if detects { "objects; the five likeliest" } else { "class; the five most likely classes" };
    let text = match output.format {
        Format::Json => json(report)?,
        Format::Csv => csv(HEADER, rows())?,
        Format::Text | Format::Markdown => format!(
            "{}{}, {}\n{} of {} images of {} change their {what} in percent, the largest KL first{}\n\n{}\n",
            if report.partial { "PARTIAL, interrupted: " } else { "" },
            clean(&report.model),
            report.settings.describe(),
            report.flips.len(),
            report.images,
            clean(&report.data),
            if report.damaged > 0 { format!("; {} could not be read", report.damaged) } else { String::new() },
            table(preset(output.format), HEADER, rows())
        ),
    };
    deliver(output.output.as_deref(), &text)
}

/// Writes the difference of two reports as asked.
///
/// # Errors
/// When it cannot be written.
pub fn diff(report: &DiffReport, output: &Output) -> Result<()> {
    const HEADER: &[&str] = &["of", "what", "first", "second", "change"];
    let number = |value: Option<f64>| {
        value.map_or_else(
            || "-".into(),
            |v| if v.abs() >= 1e6 { format!("{v:.4e}") } else { format!("{v:.6}").trim_end_matches('0').trim_end_matches('.').into() },
        )
    };
    let row = |c: &Changed| {
        let change = c
            .first
            .zip(c.second)
            .map(|(a, b)| if a.abs() >= 1e6 { format!("{:+.1} %", 100.0 * (b / a - 1.0)) } else { format!("{:+.6}", b - a) });
        vec![c.of.clone(), c.what.clone(), number(c.first), number(c.second), change.unwrap_or_default()]
    };
    let rows = || report.numbers.iter().map(row);
    let text = match output.format {
        Format::Json => json(report)?,
        Format::Csv => csv(HEADER, rows())?,
        Format::Text | Format::Markdown => {
            let mut text = String::new();
            for warning in &report.warnings {
                text += &format!("not comparable, {}\n", clean(warning));
            }
            for (key, a, b) in &report.settings {
                text += &format!("{}: {} -> {}\n", clean(key), clean(a), clean(b));
            }
            if let Some((a, b)) = &report.classes {
                text += &format!("prediction: {} -> {}\n", clean(a), clean(b));
            }
            if report.numbers.is_empty() {
                text + "no number differs\n"
            } else {
                format!("{text}\n{}\n", table(preset(output.format), HEADER, rows()))
            }
        }
    };
    deliver(output.output.as_deref(), &text)
}
