//! `igq report`: one self-contained HTML page of a run.

use std::fmt::Write;
use std::path::PathBuf;

use super::snapshot::{answered, furnish};
use crate::analysis::report::{ClassProbability, Report as RunReport};
use crate::clean::{clean, tell};
use crate::cli::{RunArgs, open};
use crate::error::{Error, Result};
use crate::number::short;
use crate::tui::app::App;
use crate::tui::{frame, theme};
use crate::{atomic_write, tui};

/// Columns and rows of the views in the page.
const SIZE: (u16, u16) = (150, 44);
/// Views that are drawn, in their order.
const VIEWS: [&str; 6] = ["overview", "groups", "distribution", "attention", "lens", "budget"];

/// Write one HTML page of a run: prediction, what is to blame, the views, every site, and the command line that gives it again.
#[derive(Debug, clap::Args)]
pub struct Report {
    #[command(flatten)]
    common: RunArgs,
    /// Site that the views show, such as blocks.3.fc2.
    #[arg(long, value_name = "SITE")]
    site: Option<String>,
    /// The page.
    #[arg(long, value_name = "FILE")]
    output: PathBuf,
    /// Write over a file that is there.
    #[arg(long)]
    force: bool,
}

impl Report {
    /// Runs, draws and writes.
    pub(super) fn run(&self) -> Result<()> {
        let Self { common, site, output, force } = self;
        common.refuse_overwriting(Some(output))?;
        if output.exists() && !force {
            return Err(Error::setting("--output", output.display(), "a file that is not there yet, or --force"));
        }
        let session = open::session(common, common.settings()?)?;
        let look = theme::Look::resolve(Some(theme::Theme::LIGHT), &[], false, true);
        let mut app = App::new(session.opened().info(), session.opened().settings.clone(), look);
        app.picture = common.picture;
        let outcome = answered(&session, &mut app)?;
        if let Some(site) = site {
            let site = site.parse()?;
            if !app.select(site) {
                return Err(Error::setting("--site", site, "a site of the model; `igq inspect` lists them"));
            }
        }
        let mut drawings = Vec::new();
        for name in VIEWS {
            let selected = app.site;
            app.view = name.parse::<tui::choice::View>()?;
            furnish(&session, &mut app, outcome.as_deref())?;
            drawings.push((app.view.title(), frame::to_svg(&frame::render(&app, SIZE.0, SIZE.1)?, app.look, &app.command())));
            // Attention selects the softmax of the block.
            app.view = tui::choice::View::default();
            app.select(selected);
        }
        let Some(snapshot) = &app.snapshot else { return Err(Error::Cancelled) };
        let report = app.report_with_sweep(&snapshot.report);
        atomic_write::write_whole(output, page(&report, &app.command(), &drawings)?.as_bytes())?;
        tell(&format!("wrote {}", output.display()));
        Ok(())
    }
}

/// Text as it may stand in a page.
fn text(raw: &str) -> String {
    frame::escaped(&clean(raw))
}

fn table(header: &[&str], rows: impl Iterator<Item = Vec<String>>) -> String {
    let cells = |tag: &str, cells: &[String]| cells.iter().map(|c| format!("<{tag}>{}</{tag}>", text(c))).collect::<Vec<_>>().concat();
    let head: Vec<String> = header.iter().map(ToString::to_string).collect();
    let body: Vec<String> = rows.map(|row| format!("<tr>{}</tr>\n", cells("td", &row))).collect();
    format!("<table><tr>{}</tr>\n{}</table>\n", cells("th", &head), body.concat())
}

const STYLE: &str = "body{font:16px/1.5 system-ui,sans-serif;max-width:1200px;margin:2em auto;padding:0 1em}\
    table{border-collapse:collapse;font-size:14px}td,th{padding:2px 10px;border-bottom:1px solid #ddd;text-align:left}\
    code{background:#f3f3f3;padding:2px 5px}svg{width:100%;height:auto;border:1px solid #ddd}";

fn page(report: &RunReport, command: &str, drawings: &[(&str, String)]) -> Result<String> {
    let failed = |_| Error::Output { what: "HTML", problem: "it could not be put together".into() };
    let p = &report.prediction;
    let mut html = String::new();
    write!(
        html,
        "<!DOCTYPE html>\n<html lang=\"en\"><meta charset=\"utf-8\"><title>igq: {model}, {picture}</title><style>{STYLE}</style>\n\
         <h1>{model}: {picture}</h1>\n<p>{about}<br>{settings}<br>calibrated on {calibration}<br>{preprocessing}</p>\n\
         <p><code>{command}</code></p>\n<h2>Prediction</h2>\n<p>{verdict}</p>\n<p>KL {kl}, margin {before:.2} to {after:.2}, \
         {bops:.3} GBOPs ({overhead:.1} % of it for groups)</p>\n",
        model = text(&report.model.name),
        picture = text(&report.picture.name),
        about = text(&report.model.description),
        settings = text(&report.settings.describe()),
        calibration = text(&report.calibration.source),
        preprocessing = text(&report.picture.preprocessing),
        command = text(command),
        verdict = text(&report.verdict),
        kl = short(p.kl),
        before = p.margin_float,
        after = p.margin_kept,
        bops = report.bops.total as f64 / 1e9,
        overhead = 100.0 * report.bops.overhead as f64 / report.bops.total.max(1) as f64,
    )
    .map_err(failed)?;
    let class = |c: Option<&ClassProbability>| c.map(|c| format!("{} {:.1} %", c.label, 100.0 * c.probability)).unwrap_or_default();
    html += &table(&["float", "quantized"], (0..p.float.len()).map(|i| vec![class(p.float.get(i)), class(p.quantized.get(i))]));
    for note in &report.model.notes {
        writeln!(html, "<p>note: {}</p>", text(note)).map_err(failed)?;
    }
    for (title, drawing) in drawings {
        writeln!(html, "<h2>{title}</h2>\n{drawing}").map_err(failed)?;
    }
    let db = |value: Option<f64>| value.map_or_else(|| "exact".to_string(), |v| format!("{v:.1}"));
    let rows = report.sites.iter().map(|s| {
        let alone = s.only_this.map(|only| short(only.kl)).unwrap_or_default();
        let clipped = format!("{:.2}", 100.0 * s.local.clipped);
        vec![
            s.site.to_string(),
            s.bits.to_string(),
            s.groups.to_string(),
            db(s.local.error.sqnr_db),
            db(s.cumulative.sqnr_db),
            clipped,
            alone,
        ]
    });
    html += "<h2>Sites</h2>\n";
    html += &table(&["site", "bits", "groups", "local SQNR dB", "cumulative SQNR dB", "clipped %", "KL alone"], rows);
    Ok(html + "</html>\n")
}
