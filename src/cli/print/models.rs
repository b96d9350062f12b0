//! What a checkpoint is, and whether it computes what a reference says, as text, JSON, CSV and Markdown.

use super::{csv, deliver, preset, table};
use crate::analysis::report::json;
use crate::clean::clean;
use crate::cli::{Format, Output};
use crate::error::Result;
use crate::studies::export::ExportReport;
use crate::studies::inspect::{InspectedSite, Inspection};
use crate::studies::verify::Verification;

/// Writes what was exported as asked.
///
/// # Errors
/// When it cannot be written.
pub fn export(report: &ExportReport, output: &Output) -> Result<()> {
    let rows = || report.files.iter().map(|file| vec![file.display().to_string()]);
    let text = match output.format {
        Format::Json => json(report)?,
        Format::Csv => csv(&["file"], rows())?,
        Format::Text | Format::Markdown => {
            let rows = table(preset(output.format), &["file"], rows());
            format!("{}, {}\n{rows}\n", clean(&report.model), report.settings.describe())
        }
    };
    deliver(output.output.as_deref(), &text)
}

const SITE_HEADER: &[&str] = &["site", "tokens", "channels", "layer", "outputs"];

/// Writes what is known about a model as asked; the table of CSV and Markdown is that of its sites.
///
/// # Errors
/// When it cannot be written.
pub fn inspection(inspection: &Inspection, output: &Output) -> Result<()> {
    let rows = || inspection.sites.iter().map(site_row);
    let text = match output.format {
        Format::Json => json(inspection)?,
        Format::Csv => csv(SITE_HEADER, rows())?,
        Format::Text => inspection_head(inspection) + &site_lines(&inspection.sites),
        Format::Markdown => format!("{}\n{}\n", inspection_head(inspection), table(preset(output.format), SITE_HEADER, rows())),
    };
    deliver(output.output.as_deref(), &text)
}

fn inspection_head(i: &Inspection) -> String {
    let (mega, giga) = (|bytes: u64| bytes as f64 / 1e6, |bops: u64| bops as f64 / 1e9);
    let labels = if i.labels == 0 { "no names, classes are numbered".into() } else { format!("{} names", i.labels) };
    let mut text = format!("{}: {}\nsource: {}\n", clean(&i.name), i.description, clean(&i.source));
    text += &format!("preprocessing: {} (from {})\nlabels: {labels}\n", i.preprocessing.describe(), clean(&i.preprocessing.from));
    text += &format!("parameters: {}\n", i.parameters);
    text += &format!("weights: {:.1} MB in float32, {:.1} MB with 4-bit layers\n", mega(i.weight_bytes), mega(i.weight_bytes_4_bits));
    let share = 100.0 * i.bops_4_bits_8_groups as f64 / i.bops_float as f64;
    let (float, four) = (giga(i.bops_float), giga(i.bops_4_bits_8_groups));
    text += &format!("bit operations a picture: {float:.2} G in float, {four:.2} G at W4/A4 with 8 groups ({share:.1} %)\n");
    for note in &i.notes {
        text += &format!("- {}\n", clean(note));
    }
    text + &format!("sites: {}\n", i.sites.len())
}

fn site_lines(sites: &[InspectedSite]) -> String {
    let address = sites.iter().map(|s| s.site.to_string().len()).max().unwrap_or(0);
    let line = |s: &InspectedSite| {
        let what = if s.site.kind.is_softmax() { "rows" } else { "channels" };
        let layer = s.layer.as_ref().zip(s.outputs).map(|(name, outputs)| format!(", {name} with {outputs} outputs"));
        format!("  {:<address$}  {} tokens, {} {what}{}\n", s.site.to_string(), s.tokens, s.channels, layer.unwrap_or_default())
    };
    sites.iter().map(line).collect()
}

fn site_row(s: &InspectedSite) -> Vec<String> {
    let outputs = s.outputs.map(|n| n.to_string()).unwrap_or_default();
    vec![s.site.to_string(), s.tokens.to_string(), s.channels.to_string(), s.layer.clone().unwrap_or_default(), outputs]
}

/// Writes a comparison with a reference as asked.
///
/// # Errors
/// When it cannot be written.
pub fn verification(v: &Verification, output: &Output) -> Result<()> {
    const HEADER: &[&str] = &["model", "expected", "pictures", "largest difference", "largest logit", "tolerance", "same top1", "within"];
    let (difference, logit, tolerance) = (format!("{:e}", v.largest_difference), v.largest_logit.to_string(), format!("{:e}", v.tolerance));
    let counts = (v.pictures.to_string(), v.same_top1.to_string());
    let row = || {
        vec![v.model.clone(), v.expected.clone(), counts.0, difference.clone(), logit, tolerance.clone(), counts.1, v.within.to_string()]
    };
    let text = match output.format {
        Format::Json => json(v)?,
        Format::Csv => csv(HEADER, std::iter::once(row()))?,
        Format::Markdown => format!("{}\n", table(preset(output.format), HEADER, std::iter::once(row()))),
        Format::Text => {
            let sign = if v.largest_difference <= v.tolerance { "<=" } else { ">" };
            let masks = v.largest_mask_difference.map(|masks| format!(", of masks {masks:e} (ten times as much may be)"));
            let masks = masks.unwrap_or_default();
            let regions = v.regions.as_ref().map_or_else(String::new, |found| {
                format!(
                    ", {} of {} proposals and {} of {} objects found (boxes within {:e} pixels)",
                    found.proposals.1, found.proposals.0, found.objects.1, found.objects.0, found.largest_box_difference
                )
            });
            format!(
                "{} against {}: largest difference {difference} {sign} {tolerance}{masks} (logits up to {:.2}), same top-1 in {} of {}{regions}\n",
                clean(&v.model),
                clean(&v.expected),
                v.largest_logit,
                v.same_top1,
                v.pictures
            )
        }
    };
    deliver(output.output.as_deref(), &text)
}
