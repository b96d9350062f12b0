//! Allocations, sensitivities and suggestions as text, JSON, CSV and Markdown.

use super::{csv, deliver, preset, table};
use crate::analysis::Divergence;
use crate::analysis::report::json;
use crate::cli::{Format, Output};
use crate::error::Result;
use crate::studies::allocate::{AllocationReport, RankCorrelation, Solved};
use crate::studies::both_ways::SiteSensitivity;
use crate::studies::judge::Measured;
use crate::studies::mixed::{KindShare, Mixed, MixedReport};
use crate::studies::perturbation::SitePerturbation;
use crate::studies::perturbation_report::PerturbationReport;
use crate::studies::sensitivity::SensitivityReport;
use crate::studies::suggest::{Change, Standing, Suggestion};

/// Writes an allocation as asked.
///
/// # Errors
/// When it cannot be written.
pub fn allocation(report: &AllocationReport, output: &Output) -> Result<()> {
    let counts = || report.solved.iter().flat_map(count_rows);
    let text = match output.format {
        Format::Json => json(report)?,
        Format::Csv => csv(COUNT_HEADER, counts())?,
        Format::Text | Format::Markdown => allocation_text(report, preset(output.format)),
    };
    deliver(output.output.as_deref(), &text)
}

const COUNT_HEADER: &[&str] = &["budget", "site", "groups", "MBOPs", "omega", "gain of more", "MBOPs of more"];
const MEASURED_HEADER: &[&str] = &["counts", "GBOPs", "sum of omega", "KL", "agreement %", "top-1 %"];

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
    vec![
        m.name.clone(),
        giga(m.bops),
        m.sum_of_omega.map(|p| format!("{p:.5}")).unwrap_or_default(),
        format!("{:.5}", m.kl),
        format!("{:.1}", m.agreement),
        m.top1.map(|t| format!("{t:.1}")).unwrap_or_default(),
    ]
}

fn allocation_text(report: &AllocationReport, preset: &str) -> String {
    let p = &report.perturbation;
    let mut text = format!(
        "{}{}: {} sites, perturbations by `{}` on {} calibration images in {:.2} s\n",
        if report.partial { "PARTIAL, interrupted: " } else { "" },
        report.model,
        p.sites.len(),
        p.estimate.name(),
        p.images,
        report.perturbation_seconds
    );
    text += &format!("KL, agreement and top-1 by runs on {} images of {}; omega: KL with one site quantized\n", report.images, report.data);
    for solved in &report.solved {
        text += &format!(
            "\nbudget {} GBOPs\n{}\n{}\n",
            giga(solved.budget),
            table(preset, MEASURED_HEADER, solved.measured.iter().map(measured_row)),
            solved.verdict
        );
    }
    if let Some(first) = report.solved.first() {
        text +=
            &format!("\ncounts of the first budget\n{}\n", table(preset, &COUNT_HEADER[1..], count_rows(first).map(|r| r[1..].to_vec())));
    }
    if !report.frontier.is_empty() {
        let rows = report.frontier.iter().map(|m| measured_row(m)[1..].to_vec());
        text += &format!("\nfrontier, by runs\n{}\n", table(preset, &MEASURED_HEADER[1..], rows));
    }
    if report.rank_correlation.is_empty() {
        return text + &format!("\n{:.1} s\n", report.seconds);
    }
    let rank = |r: &RankCorrelation| vec![r.groups.to_string(), r.spearman.map_or_else(|| "-".into(), |s| format!("{s:.3}"))];
    text += &format!(
        "\nSpearman of the fast estimate against `{}`\n{}\n",
        p.estimate.name(),
        table(preset, &["groups", "rho"], report.rank_correlation.iter().map(rank))
    );
    text + &format!("\n{:.1} s\n", report.seconds)
}

/// Writes mixed precision as asked; CSV has a line for each kind of each budget.
///
/// # Errors
/// When it cannot be written.
pub fn mixed(report: &MixedReport, output: &Output) -> Result<()> {
    const KINDS: &[&str] = &["budget", "kind", "mean abits", "mean wbits", "mean groups"];
    let share = |value: Option<f64>| value.map(|v| format!("{v:.2}")).unwrap_or_default();
    let rows = |m: &Mixed| {
        let budget = giga(m.budget);
        let row = move |k: &KindShare| vec![budget.clone(), k.kind.to_string(), share(Some(k.abits)), share(k.wbits), share(k.groups)];
        m.kinds.iter().map(row).collect::<Vec<_>>()
    };
    let text = match output.format {
        Format::Json => json(report)?,
        Format::Csv => csv(KINDS, report.mixed.iter().flat_map(rows))?,
        Format::Text | Format::Markdown => {
            let mut text =
                format!("{}, {}\nby runs on {} images of {}\n", report.model, report.calibration.source, report.images, report.data);
            for one in &report.mixed {
                let measured = table(preset(output.format), MEASURED_HEADER, one.measured.iter().map(measured_row));
                let kinds = table(preset(output.format), &KINDS[1..], rows(one).into_iter().map(|row| row[1..].to_vec()));
                text += &format!(
                    "\nbudget {} GBOPs, the cost of W{b}/A{b}\n{measured}\n{}\n{kinds}\n",
                    giga(one.budget),
                    one.verdict,
                    b = one.uniform
                );
            }
            text + &format!("\n{:.1} s\n", report.seconds)
        }
    };
    deliver(output.output.as_deref(), &text)
}

/// Writes perturbations as asked: of a part of the sites, or of a study that was interrupted.
///
/// # Errors
/// When it cannot be written.
pub fn perturbations(report: &PerturbationReport, output: &Output) -> Result<()> {
    let p = &report.perturbation;
    let names: Vec<String> = std::iter::once("site".into()).chain(p.candidates.iter().map(|g| format!("{g} groups"))).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let row = |s: &SitePerturbation| std::iter::once(s.site.to_string()).chain(s.omega.iter().map(|o| format!("{o:.6}"))).collect();
    let rows = p.sites.iter().map(row);
    let text = match output.format {
        Format::Json => json(report)?,
        Format::Csv => csv(&names, rows)?,
        Format::Text | Format::Markdown => format!(
            "{}{}: KL with one site quantized, by `{}` on {} calibration images, in {:.1} s\n\n{}\n",
            if report.partial { "PARTIAL, interrupted: " } else { "" },
            report.model,
            p.estimate.name(),
            p.images,
            report.seconds,
            table(preset(output.format), &names, rows)
        ),
    };
    deliver(output.output.as_deref(), &text)
}

/// Writes a sensitivity report as asked.
///
/// # Errors
/// When it cannot be written.
pub fn sensitivity(report: &SensitivityReport, output: &Output) -> Result<()> {
    let header = sensitivity_header(report);
    let header: Vec<&str> = header.iter().map(String::as_str).collect();
    let rows = report.sites.iter().map(|s| sensitivity_row(s, report));
    let text = match output.format {
        Format::Json => json(report)?,
        Format::Csv => csv(&header, rows)?,
        Format::Text | Format::Markdown => {
            let whole = [
                ("everything", report.whole),
                ("weights only", report.weights_only),
                ("activations only", report.activations_only),
                ("softmax only", report.softmax_only),
            ];
            let wholes =
                whole.map(|(name, e)| vec![name.to_string(), format!("{:.5}", e.kl), format!("{} of {}", e.changed, report.images)]);
            format!(
                "{}{}, {}\non {} pictures of {}; {:.1} s\n\n{}\n\n{}\n\n{}\n",
                if report.partial { "PARTIAL, interrupted: " } else { "" },
                report.model,
                report.settings.describe(),
                report.images,
                report.data,
                report.seconds,
                report.verdict,
                table(preset(output.format), &["quantized", "KL", "flips"], wholes.into_iter()),
                table(preset(output.format), &header, rows)
            )
        }
    };
    deliver(output.output.as_deref(), &text)
}

fn sensitivity_header(report: &SensitivityReport) -> Vec<String> {
    let fixed =
        ["rank", "site", "alone KL", "% of sum", "flips", "activation KL", "weight KL", "without KL", "gain", "95 %", "rank of gain"];
    let first = report.sites.first();
    let bits = first.map(|s| s.by_bits.iter().map(|l| format!("{} bits", l.level)).collect()).unwrap_or_default();
    let groups = report.sites.iter().find(|s| !s.by_groups.is_empty());
    let groups = groups.map(|s| s.by_groups.iter().map(|l| format!("{} groups", l.level)).collect()).unwrap_or_default();
    [fixed.map(String::from).to_vec(), bits, groups].concat()
}

fn sensitivity_row(s: &SiteSensitivity, report: &SensitivityReport) -> Vec<String> {
    let part = |e: Option<Divergence>| e.map(|e| format!("{:.6}", e.kl)).unwrap_or_default();
    let mut row = vec![
        s.rank_only.to_string(),
        s.site.to_string(),
        format!("{:.6}", s.only.kl),
        format!("{:.1}", 100.0 * s.only.kl / report.sum_only.max(f64::MIN_POSITIVE)),
        s.only.changed.to_string(),
        part(s.only_activation),
        part(s.only_weight),
        format!("{:.6}", s.without.kl),
        format!("{:+.6}", s.gain),
        s.gain_interval.map(|[low, high]| format!("{low:+.6}..{high:+.6}")).unwrap_or_default(),
        s.rank_gain.map_or_else(|| "noise".into(), |rank| rank.to_string()),
    ];
    row.extend(s.by_bits.iter().map(|l| format!("{:.6}", l.kl)));
    row.extend(s.by_groups.iter().map(|l| format!("{:.6}", l.kl)));
    row.resize(sensitivity_header(report).len(), String::new());
    row
}

/// Writes a suggestion as asked; `best` is where all bits at 8 stand.
///
/// # Errors
/// When it cannot be written.
pub fn suggestion(suggestion: &Suggestion, best: Option<&Standing>, output: &Output) -> Result<()> {
    let change = |c: &Change| vec![c.site.to_string(), c.abits.to_string(), c.wbits.map(|w| w.to_string()).unwrap_or_default()];
    let changes = suggestion.changes.iter().map(change);
    let header = ["site", "abits", "wbits"];
    let text = match output.format {
        Format::Json => json(suggestion)?,
        Format::Csv => csv(&header, changes)?,
        Format::Text | Format::Markdown => {
            let mut stands = vec![("before", &suggestion.before)];
            match suggestion.alternatives.as_slice() {
                [] => stands.push(("after", &suggestion.after)),
                several => stands.extend(several.iter().map(|a| (a.name.as_str(), &a.after))),
            }
            stands.extend(best.map(|best| ("all bits at 8", best)));
            let row = |(name, s): (&str, &Standing)| {
                let agreement = format!("{:.1}", s.agreement);
                let cost = 100.0 * (s.bops as f64 / suggestion.before.bops.max(1) as f64 - 1.0);
                let margin = s.margin.map(|m| format!("{m:.3}")).unwrap_or_default();
                let (kl, bops) = (format!("{:.5}", s.kl), format!("{:.4}", s.bops as f64 / 1e9));
                vec![name.into(), s.images.to_string(), agreement, kl, margin, bops, format!("{cost:+.1}")]
            };
            let header_of = ["settings", "pictures", "agreement %", "KL", "margin", "GBOPs", "cost %"];
            let stands = table(preset(output.format), &header_of, stands.into_iter().map(row));
            format!("{}\n\n{stands}\n\n{}\n", suggestion.text, table(preset(output.format), &header, changes))
        }
    };
    deliver(output.output.as_deref(), &text)
}
