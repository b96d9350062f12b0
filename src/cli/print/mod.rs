//! Results as text, JSON, CSV and Markdown, all from the same structs that the screen reads.

mod models;
mod objects;
mod reports;
mod studies;

use comfy_table::{Table, presets};

pub use models::{export, inspection, verification};
pub use objects::objects;
pub use reports::{diff, flips};
pub use studies::{allocation, mixed, perturbations, sensitivity, suggestion};

use crate::analysis::Report;
use crate::analysis::report::{ClassProbability, json};
use crate::atomic_write::write_whole;
use crate::clean::{clean, clean_lines};
use crate::cli::{Format, Output};
use crate::error::{Error, Result};
use crate::number::short;
use crate::studies::evaluate::Evaluation;
use crate::studies::tally::EvaluationRow;

/// Writes `text` to the file that was named, as a whole or not at all, or to standard output.
///
/// # Errors
/// When it cannot be written.
pub fn deliver(output: Option<&std::path::Path>, text: &str) -> Result<()> {
    // Tables were cleaned cell by cell; this is for the lines between them. JSON escapes by itself what breaks it.
    deliver_bytes(output, clean_lines(text).as_bytes())
}

/// The same for what is no text, or whose escape sequences are igq's own.
///
/// # Errors
/// As [`deliver`].
pub fn deliver_bytes(output: Option<&std::path::Path>, bytes: &[u8]) -> Result<()> {
    use std::io::Write;
    match output {
        Some(path) => write_whole(path, bytes),
        None => match std::io::stdout().lock().write_all(bytes) {
            Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => Ok(()), // The reader has had enough.
            written => written.map_err(Error::io("write", std::path::Path::new("standard output"))),
        },
    }
}

/// Writes a report as asked.
///
/// # Errors
/// When it cannot be written.
pub fn report(report: &Report, output: &Output) -> Result<()> {
    let text = match output.format {
        Format::Json => json(report)?,
        Format::Csv => csv(SITE_HEADER, site_rows(report))?,
        Format::Text => report_text(report, presets::UTF8_FULL_CONDENSED, ""),
        Format::Markdown => report_text(report, presets::ASCII_MARKDOWN, "## "),
    };
    deliver(output.output.as_deref(), &text)
}

/// Writes an evaluation as asked.
///
/// # Errors
/// When it cannot be written.
pub fn evaluation(evaluation: &Evaluation, output: &Output) -> Result<()> {
    let rows = evaluation.rows.iter().map(evaluation_row);
    let text = match output.format {
        Format::Json => json(evaluation)?,
        Format::Csv => csv(EVALUATION_HEADER, rows)?,
        Format::Text | Format::Markdown => {
            let preset = preset(output.format);
            format!(
                "{}{} on {} pictures of {}; quantizers fitted on {}; {:.1} s\n\n{}\n",
                if evaluation.partial { "PARTIAL, interrupted: " } else { "" },
                clean(&evaluation.model),
                evaluation.images,
                clean(&evaluation.data),
                clean(&evaluation.calibration),
                evaluation.seconds,
                table(preset, EVALUATION_HEADER, rows)
            )
        }
    };
    deliver(output.output.as_deref(), &text)
}

const SITE_HEADER: &[&str] = &[
    "site",
    "bits",
    "groups",
    "channels",
    "local SQNR dB",
    "cumulative SQNR dB",
    "cosine",
    "RMSE/step",
    "clipped %",
    "codes %",
    "weight bits",
    "weight SQNR dB",
];

fn decibel(value: Option<f64>) -> String {
    value.map_or_else(|| "exact".into(), |db| format!("{db:.2}"))
}

fn site_rows(report: &Report) -> impl Iterator<Item = Vec<String>> {
    report.sites.iter().map(|s| {
        vec![
            s.site.to_string(),
            s.bits.to_string(),
            s.groups.to_string(),
            s.channels.to_string(),
            decibel(s.local.error.sqnr_db),
            decibel(s.cumulative.sqnr_db),
            format!("{:.5}", s.cumulative.cosine),
            format!("{:.3}", s.local.rmse_over_step),
            format!("{:.3}", s.local.clipped * 100.0),
            format!("{:.1}", s.local.codes_used * 100.0),
            s.weight.map(|w| w.bits.to_string()).unwrap_or_default(),
            s.weight.map(|w| decibel(w.sqnr_db)).unwrap_or_default(),
        ]
    })
}

fn report_text(report: &Report, preset: &str, heading: &str) -> String {
    let p = &report.prediction;
    let mut text = format!("{heading}{} ({})\n\n", clean(&report.model.name), report.model.description);
    let truth = report.picture.truth.as_ref().map(|t| format!(", truly {}", clean(&t.label))).unwrap_or_default();
    text += &format!("picture: {}{truth}\nsettings: {}\n", clean(&report.picture.source), report.settings.describe());
    text += &format!("calibration: {}\npreprocessing: {}\n\n", clean(&report.calibration.source), clean(&report.picture.preprocessing));
    let cell = |c: Option<&ClassProbability>| c.map(|c| format!("{} {:.2} %", c.label, c.probability * 100.0)).unwrap_or_default();
    let rows = (0..p.float.len()).map(|i| vec![(i + 1).to_string(), cell(p.float.get(i)), cell(p.quantized.get(i))]);
    if let Some(found) = &p.objects {
        text += &objects::table_of(found, preset);
        text +=
            &format!("\n\nKL {:.5} a {}{}\n{}\n\n", p.kl, found.slot().0, if p.flipped { ", CHANGED" } else { "" }, clean(&report.verdict));
    } else {
        text += &table(preset, &["rank", "float", "quantized"], rows).to_string();
        text += &format!(
            "\n\nKL {:.5}, margin {:.4} float, {:.4} quantized{}\n{}\n\n",
            p.kl,
            p.margin_float,
            p.margin_kept,
            if p.flipped { ", FLIPPED" } else { "" },
            clean(&report.verdict)
        );
    }
    if let Some(arithmetic) = &report.arithmetic {
        text += &format!("{}\n\n", arithmetic.describe());
    }
    text += &table(preset, SITE_HEADER, site_rows(report)).to_string();
    if !report.lens.is_empty() {
        let cell = |c: &ClassProbability| format!("{} {:.1} %", c.label, c.probability * 100.0);
        let rows = report.lens.iter().map(|p| vec![p.after.clone(), cell(&p.float), cell(&p.quantized), short(p.kl)]);
        text += &format!("\n\n{}", table(preset, &["after", "float would answer", "quantized would answer", "KL"], rows));
    }
    text + &format!("\n\n{:.3} s\n", report.seconds)
}

const EVALUATION_HEADER: &[&str] = &[
    "method",
    "wbits",
    "abits",
    "sbits",
    "groups",
    "row_groups",
    "softmax",
    "gelu",
    "weights",
    "effective W",
    "effective A",
    "GBOPs",
    "top1",
    "agreement",
    "kl",
    "interval_low",
    "interval_high",
    "behind_best",
    "behind_low",
    "behind_high",
    "jitter",
];

fn evaluation_row(row: &EvaluationRow) -> Vec<String> {
    let count = |c: Option<crate::quant::GroupCount>| c.map(|c| c.to_string()).unwrap_or_default();
    let behind = |part: fn((f64, f64, f64)) -> f64| row.behind_best.map(|b| format!("{:.4}", part(b))).unwrap_or_default();
    vec![
        row.method.to_string(),
        row.wbits.to_string(),
        row.abits.to_string(),
        row.sbits.to_string(),
        count(row.groups),
        count(row.row_groups),
        row.softmax.name().into(),
        row.gelu.name().into(),
        if row.weight_scales.is_channel() { row.weights.name().into() } else { format!("{} {}", row.weights.name(), row.weight_scales) },
        format!("{:.2}", row.effective_bits.0),
        format!("{:.2}", row.effective_bits.1),
        format!("{:.3}", row.bops as f64 / 1e9),
        row.top1.map(|t| format!("{t:.1}")).unwrap_or_default(),
        format!("{:.1}", row.agreement),
        format!("{:.4}", row.kl),
        format!("{:.1}", row.interval.0),
        format!("{:.1}", row.interval.1),
        behind(|b| b.0),
        behind(|b| b.1),
        behind(|b| b.2),
        row.jitter.map(|jitter| format!("{jitter:.4}")).unwrap_or_default(),
    ]
}

/// The border of tables in a form for people.
const fn preset(format: Format) -> &'static str {
    match format {
        Format::Markdown => presets::ASCII_MARKDOWN,
        _ => presets::UTF8_FULL_CONDENSED,
    }
}

fn table(preset: &str, header: &[&str], rows: impl Iterator<Item = Vec<String>>) -> Table {
    let mut table = Table::new();
    let markdown = preset == presets::ASCII_MARKDOWN;
    let cell = |text: String| if markdown { clean(&text).replace('|', "\\|") } else { clean(&text).into_owned() };
    table.load_preset(preset).set_header(header).add_rows(rows.map(|row| row.into_iter().map(cell).collect::<Vec<_>>()));
    table
}

fn csv(header: &[&str], rows: impl Iterator<Item = Vec<String>>) -> Result<String> {
    let failed = |e: &dyn std::fmt::Display| Error::Output { what: "CSV", problem: e.to_string() };
    let mut writer = csv::Writer::from_writer(Vec::new());
    writer
        .write_record(header.iter().map(|h| h.replace([' ', '/'], "_").replace('%', "percent").to_lowercase()))
        .map_err(|e| failed(&e))?;
    for row in rows {
        writer.write_record(row.iter().map(|cell| clean(cell).into_owned())).map_err(|e| failed(&e))?;
    }
    let bytes = writer.into_inner().map_err(|e| failed(&e))?;
    String::from_utf8(bytes).map_err(|e| failed(&e))
}
