//! Results as text, JSON, CSV and Markdown, all from the same structs that the screen reads.

use comfy_table::{Table, presets};

use crate::analysis::Report;
use crate::analysis::report::ClassProbability;
use crate::cli::{Format, Output};
use crate::engine::budget::{AllocationReport, Measured, RankCorrelation, Solved};
use crate::engine::evaluate::{Evaluation, EvaluationRow};
use crate::error::{Error, Result};
use crate::files::write_whole;

/// Writes `text` to the file that was named, as a whole or not at all, or to standard output.
///
/// # Errors
/// When it cannot be written.
pub fn deliver(output: Option<&std::path::Path>, text: &str) -> Result<()> {
    use std::io::Write;
    match output {
        Some(path) => write_whole(path, text.as_bytes()),
        None => match std::io::stdout().lock().write_all(text.as_bytes()) {
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
            let preset = if output.format == Format::Text { presets::UTF8_FULL_CONDENSED } else { presets::ASCII_MARKDOWN };
            format!(
                "{} on {} pictures of {}; quantizers fitted on {}; {:.1} s\n\n{}\n",
                evaluation.model,
                evaluation.images,
                evaluation.data,
                evaluation.calibration,
                evaluation.seconds,
                table(preset, EVALUATION_HEADER, rows)
            )
        }
    };
    deliver(output.output.as_deref(), &text)
}

/// Writes an allocation as asked.
///
/// # Errors
/// When it cannot be written.
pub fn allocation(report: &AllocationReport, output: &Output) -> Result<()> {
    let counts = || report.solved.iter().flat_map(count_rows);
    let text = match output.format {
        Format::Json => json(report)?,
        Format::Csv => csv(COUNT_HEADER, counts())?,
        Format::Text | Format::Markdown => {
            let preset = if output.format == Format::Text { presets::UTF8_FULL_CONDENSED } else { presets::ASCII_MARKDOWN };
            allocation_text(report, preset)
        }
    };
    deliver(output.output.as_deref(), &text)
}

const COUNT_HEADER: &[&str] = &["budget", "site", "groups", "MBOPs", "omega", "gain of more", "MBOPs of more"];
const MEASURED_HEADER: &[&str] = &["counts", "GBOPs", "sum of omega", "KL calibration", "KL test", "agreement %", "top-1 %"];

fn giga(bops: u64) -> String {
    format!("{:.4}", bops as f64 / 1e9)
}

fn count_rows(solved: &Solved) -> impl Iterator<Item = Vec<String>> {
    solved.allocation.sites.iter().map(|s| {
        vec![
            solved.budget.to_string(),
            s.site.to_string(),
            s.groups.to_string(),
            format!("{:.3}", s.bops as f64 / 1e6),
            format!("{:.6}", s.omega),
            s.more.map(|m| format!("{:.6}", m.gain)).unwrap_or_default(),
            s.more.map(|m| format!("{:.3}", m.bops as f64 / 1e6)).unwrap_or_default(),
        ]
    })
}

fn measured_row(m: &Measured) -> Vec<String> {
    let evaluated = |f: fn(&EvaluationRow) -> Option<String>| m.evaluation.as_ref().and_then(f).unwrap_or_default();
    vec![
        m.name.clone(),
        giga(m.bops),
        m.predicted.map(|p| format!("{p:.5}")).unwrap_or_default(),
        format!("{:.5}", m.calibration_kl),
        evaluated(|e| Some(format!("{:.5}", e.kl))),
        evaluated(|e| Some(format!("{:.1}", e.agreement))),
        evaluated(|e| e.top1.map(|t| format!("{t:.1}"))),
    ]
}

fn allocation_text(report: &AllocationReport, preset: &str) -> String {
    let p = &report.perturbation;
    let mut text = format!(
        "{}: {} sites, perturbations by `{}` on {} pictures in {:.2} s\n",
        report.model,
        p.sites.len(),
        p.estimate.name(),
        p.images,
        report.perturbation_seconds
    );
    if let Some(data) = &report.data {
        text += &format!("test: {data}\n");
    }
    for solved in &report.solved {
        text += &format!(
            "\nbudget {} GBOPs\n{}\n",
            giga(solved.budget),
            table(preset, MEASURED_HEADER, solved.measured.iter().map(measured_row))
        );
    }
    if let Some(first) = report.solved.first() {
        text +=
            &format!("\ncounts of the first budget\n{}\n", table(preset, &COUNT_HEADER[1..], count_rows(first).map(|r| r[1..].to_vec())));
    }
    if !report.frontier.is_empty() {
        let rows = report.frontier.iter().map(|m| measured_row(m)[1..4].to_vec());
        text += &format!("\nfrontier\n{}\n", table(preset, &MEASURED_HEADER[1..4], rows));
    }
    let rank = |r: &RankCorrelation| vec![r.groups.to_string(), r.spearman.map_or_else(|| "-".into(), |s| format!("{s:.3}"))];
    text += &format!(
        "\nSpearman of the fast estimate against `{}`\n{}\n",
        p.estimate.name(),
        table(preset, &["groups", "rho"], report.rank_correlation.iter().map(rank))
    );
    text + &format!("\n{:.1} s\n", report.seconds)
}

/// Pretty JSON with a newline at its end.
///
/// # Errors
/// When a number is not finite, which reports never hold.
pub fn json<T: serde::Serialize>(value: &T) -> Result<String> {
    let text = serde_json::to_string_pretty(value);
    text.map(|t| t + "\n").map_err(|e| Error::Output { what: "JSON", problem: e.to_string() })
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
    let mut text = format!("{heading}{} ({})\n\n", report.model.name, report.model.description);
    let truth = report.picture.truth.as_ref().map(|t| format!(", truly {}", t.label)).unwrap_or_default();
    text += &format!("picture: {}{truth}\nsettings: {}\n", report.picture.source, report.settings.describe());
    text += &format!("calibration: {}\npreprocessing: {}\n\n", report.calibration.source, report.picture.preprocessing);
    let cell = |c: Option<&ClassProbability>| c.map(|c| format!("{} {:.2} %", c.label, c.probability * 100.0)).unwrap_or_default();
    let rows = (0..p.float.len()).map(|i| vec![(i + 1).to_string(), cell(p.float.get(i)), cell(p.quantized.get(i))]);
    text += &table(preset, &["rank", "float", "quantized"], rows).to_string();
    text += &format!(
        "\n\nKL {:.5}, margin {:.4} float, {:.4} quantized{}\n{}\n\n",
        p.kl,
        p.margin_float,
        p.margin_quantized,
        if p.flipped { ", FLIPPED" } else { "" },
        report.verdict
    );
    text += &table(preset, SITE_HEADER, site_rows(report)).to_string();
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
    "top1",
    "agreement",
    "kl",
    "interval_low",
    "interval_high",
];

fn evaluation_row(row: &EvaluationRow) -> Vec<String> {
    let count = |c: Option<crate::quant::GroupCount>| c.map(|c| c.to_string()).unwrap_or_default();
    vec![
        row.method.to_string(),
        row.wbits.to_string(),
        row.abits.to_string(),
        row.sbits.to_string(),
        count(row.groups),
        count(row.row_groups),
        row.softmax.name().into(),
        row.gelu.name().into(),
        row.top1.map(|t| format!("{t:.1}")).unwrap_or_default(),
        format!("{:.1}", row.agreement),
        format!("{:.4}", row.kl),
        format!("{:.1}", row.interval.0),
        format!("{:.1}", row.interval.1),
    ]
}

fn table(preset: &str, header: &[&str], rows: impl Iterator<Item = Vec<String>>) -> Table {
    let mut table = Table::new();
    table.load_preset(preset).set_header(header).add_rows(rows);
    table
}

fn csv(header: &[&str], rows: impl Iterator<Item = Vec<String>>) -> Result<String> {
    let failed = |e: &dyn std::fmt::Display| Error::Output { what: "CSV", problem: e.to_string() };
    let mut writer = csv::Writer::from_writer(Vec::new());
    writer
        .write_record(header.iter().map(|h| h.replace([' ', '/'], "_").replace('%', "percent").to_lowercase()))
        .map_err(|e| failed(&e))?;
    for row in rows {
        writer.write_record(row).map_err(|e| failed(&e))?;
    }
    let bytes = writer.into_inner().map_err(|e| failed(&e))?;
    String::from_utf8(bytes).map_err(|e| failed(&e))
}
