//! Facts of the run that is shown, by name: what lessons fill their captions and formulas with. Every one comes from the run.

use super::app::App;
use super::groups;
use super::lessons::Shown;
use super::widget::operations;
use crate::analysis::report::SiteReport;
use crate::model::{Site, SiteKind};
use crate::number::short;
use crate::tui::theme::group_digit;

/// What is shown now.
#[must_use]
pub fn shown(app: &App) -> Option<Shown<'_>> {
    let place = app.lesson.as_ref()?;
    app.lessons.get(place.chapter)?.shown(place.at)
}

/// A text with its facts filled in; `…` where one is not known yet.
#[must_use]
pub fn filled(app: &App, text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, behind)) = rest.split_once('{') {
        let (name, after) = behind.split_once('}').unwrap_or((behind, ""));
        out += before;
        out += &fact(app, name).unwrap_or_else(|| "…".into());
        rest = after;
    }
    out + rest
}

/// The names of the facts in a text.
pub fn names(text: &str) -> impl Iterator<Item = &str> {
    text.split('{').skip(1).filter_map(|part| part.split_once('}')).map(|(name, _)| name)
}

/// A number that a question watches.
#[must_use]
pub fn watched(app: &App, name: &str) -> Option<f64> {
    let snapshot = app.snapshot.as_ref().filter(|_| !app.is_stale())?;
    match name {
        "kl" => Some(snapshot.report.prediction.kl),
        "sqnr" => app.site_report()?.local.error.sqnr_db,
        "bops" => Some(snapshot.report.bops.total as f64),
        _ => None,
    }
}

/// A watched number for people.
#[must_use]
pub fn told(name: &str, value: f64) -> String {
    match name {
        "sqnr" => format!("SQNR {value:.1} dB"),
        "bops" => format!("bit operations {}", operations(value as u64)),
        _ => format!("KL {}", short(value)),
    }
}

/// The block that lessons speak of: the first of the last stage.
fn of_block(app: &App, kind: SiteKind) -> Option<Site> {
    let stage = app.info.sites.iter().filter(|s| s.kind == kind).map(|s| s.stage).max()?;
    app.info.sites.iter().copied().find(|s| s.kind == kind && s.stage == stage)
}

/// A fact by its name; none where it is not known (yet).
#[must_use]
pub fn fact(app: &App, name: &str) -> Option<String> {
    match name {
        "fc2" => return of_block(app, SiteKind::Fc2).map(|s| s.to_string()),
        "attention" => return of_block(app, SiteKind::Attn).map(|s| s.to_string()),
        "patches" => return Some((app.info.tokens.tokens() - app.info.tokens.prefix).to_string()),
        "tokens" => return Some(app.info.tokens.tokens().to_string()),
        "gives" => {
            let slots = app.prediction()?.objects.as_ref().map(|found| (found.kl.len(), found.slot().1));
            return Some(slots.map_or_else(
                || "a probability for each class".into(),
                |(count, slots)| format!("each of {count} {slots} a class, or none, and a box"),
            ));
        }
        "blocks" => return Some(app.info.sites.iter().filter(|s| s.kind == SiteKind::Fc2).count().to_string()),
        "site" => return Some(app.site.to_string()),
        "channel" => return Some(app.channel.to_string()),
        "token" => return Some(app.token.to_string()),
        "head" => return Some((app.head + 1).to_string()),
        "abits" => return Some(app.settings.abits.to_string()),
        _ => {}
    }
    of_prediction(app, name).or_else(|| of_site(app, name)).or_else(|| of_row(app, name)).or_else(|| of_whole(app, name))
}

fn percent(share: f64) -> String {
    format!("{:.1}", 100.0 * share)
}

fn of_prediction(app: &App, name: &str) -> Option<String> {
    let prediction = app.prediction()?;
    let (float, quantized) = (prediction.float.first()?, prediction.quantized.first()?);
    Some(match name {
        "float_class" => float.label.clone(),
        "float_p" => percent(float.probability),
        "class" => quantized.label.clone(),
        "p" => percent(quantized.probability),
        "kl" => short(prediction.kl),
        _ => return None,
    })
}

fn width(report: &SiteReport, channel: usize) -> f64 {
    f64::from(report.ranges.max[channel]) - f64::from(report.ranges.min[channel])
}

fn of_site(app: &App, name: &str) -> Option<String> {
    let report = app.site_report()?;
    let number = |v: f32| short(f64::from(v));
    let quantizer = groups::group_of(report, app.channel).and_then(|g| report.quantizers.get(g));
    let n = report.bits.max_code();
    let value = groups::extreme(report, app.channel);
    let mut widths: Vec<f64> = (0..report.ranges.min.len()).map(|c| width(report, c)).collect();
    widths.sort_by(f64::total_cmp);
    let (median, widest) = (*widths.get(widths.len() / 2)?, *widths.last()?);
    Some(match name {
        "channels" => report.channels.to_string(),
        "groups" => report.groups.to_string(),
        "codes" => (n? + 1).to_string(),
        "n" => n?.to_string(),
        "sqnr" => format!("{:.1}", report.local.error.sqnr_db?),
        "clipped" => format!("{:.2}", 100.0 * report.local.clipped),
        "rmse" => format!("{:.3}", report.local.rmse_over_step),
        "lower" => number(quantizer?.lower),
        "upper" => number(quantizer?.upper),
        "step" => number(quantizer?.scale),
        "zero" => format!("{:.0}", quantizer?.zero_point),
        "x" => number(value?),
        "q" => format!("{:.0}", groups::quantized(quantizer?, n?, value?)?.0),
        "back" => number(groups::quantized(quantizer?, n?, value?)?.1),
        "min" => number(*report.ranges.min.get(app.channel)?),
        "max" => number(*report.ranges.max.get(app.channel)?),
        "group" => group_digit(groups::group_of(report, app.channel)?).to_string(),
        "used" => quantizer?.codes_used.to_string(),
        "widest" => short(widest),
        "median" => short(median),
        "ratio" => short(widest / median),
        "nearest" => groups::reason(report, app.detail.as_deref().filter(|d| d.site == app.site), app.channel, false)?,
        "moved" => {
            let other = app.snapshot.as_ref()?.compare.as_ref()?.report.site(app.site)?;
            groups::moved(report, other).len().to_string()
        }
        "curve" => {
            let curve =
                app.studies.curve.as_ref().filter(|c| c.site == app.site && c.settings == app.settings && c.picture == app.picture)?;
            curve.points.iter().map(|(count, db)| format!("{count}: {db:.1} dB")).collect::<Vec<_>>().join("   ")
        }
        _ => return of_rounds(app, name),
    })
}

/// A round of the alternation that fitted the quantizers of the site: `round 1`, `round 2`, `round last`; `rounds` is how many.
fn of_rounds(app: &App, name: &str) -> Option<String> {
    let curve = app.studies.curve.as_ref().filter(|c| c.site == app.site && c.settings == app.settings && c.picture == app.picture)?;
    let all = curve.rounds.len();
    let at = match name.strip_prefix("round")? {
        "s" => return Some(all.to_string()),
        " last" => all.checked_sub(1)?,
        // Where it was over sooner, the last stands for those that never were.
        number => number.trim().parse::<usize>().ok()?.checked_sub(1)?.min(all.checked_sub(1)?),
    };
    let round = curve.rounds.get(at)?;
    let mut widths: Vec<f64> = round.bounds.iter().map(|b| f64::from(b.upper) - f64::from(b.lower)).collect();
    widths.sort_by(f64::total_cmp);
    let moved = match (at, round.moved) {
        (0, moved) => format!("{moved} ranges go to the nearest of {} seeds", widths.len()),
        (_, 0) => "no range moves: it is done".to_string(),
        (_, moved) => format!("{moved} ranges move to another group"),
    };
    let widths: Vec<String> = widths.into_iter().map(short).collect();
    Some(format!("round {}: {moved}; mean cost {}; widths {}", at + 1, short(round.cost), widths.join(" ")))
}

/// Of the softmax row under the cursor.
fn of_row(app: &App, name: &str) -> Option<String> {
    if !name.starts_with("row_") {
        return None;
    }
    let map = app.attention()?;
    let report = app.snapshot.as_ref()?.report.site(app.attention_site()?)?;
    let row = map.layout.softmax_row(map.heads, app.head, app.token);
    let seen = map.layout.seen();
    let values = map.before.get(row * seen..(row + 1) * seen)?;
    let group = groups::group_of(report, row);
    Some(match name {
        "row_most" => short(f64::from(values.iter().copied().fold(0.0, f32::max))),
        "row_sum" => short(values.iter().map(|&v| f64::from(v)).sum()),
        "row_group" => group_digit(group?).to_string(),
        "row_step" => short(f64::from(report.quantizers.get(group?)?.scale)),
        _ => return None,
    })
}

/// Of the whole run: cost, what is to blame, the lens.
fn of_whole(app: &App, name: &str) -> Option<String> {
    let report = &app.snapshot.as_ref()?.report;
    let blame = || app.blame.as_ref().map(|(blame, _)| blame);
    let best = || blame()?.repaired.iter().min_by(|a, b| a.kl.total_cmp(&b.kl));
    let block = |p: &crate::analysis::report::LensPoint| p.after.clone();
    Some(match name {
        "bops" => operations(report.bops.total),
        "overhead" => percent(report.bops.overhead as f64 / report.bops.total.max(1) as f64),
        "bound" => operations(app.budget.solved.as_ref()?.bound),
        "predicted" => short(app.budget.solved.as_ref()?.allocation.predicted),
        "weights_kl" => short(blame()?.weights),
        "activations_kl" => short(blame()?.activations),
        "softmax_kl" => short(blame()?.softmax),
        "best_site" => best()?.site.to_string(),
        "best_kl" => short(best()?.kl),
        "first_block" => block(app.lens()?.first()?),
        "first_class" => app.lens()?.first()?.float.label.clone(),
        "first_p" => percent(app.lens()?.first()?.float.probability),
        "last_block" => block(app.lens()?.last()?),
        "last_class" => app.lens()?.last()?.float.label.clone(),
        "last_p" => percent(app.lens()?.last()?.float.probability),
        "steepest" | "steepest_kl" => {
            let pair = app.lens()?.windows(2).max_by(|a, b| (a[1].kl - a[0].kl).total_cmp(&(b[1].kl - b[0].kl)))?;
            if name == "steepest" { block(&pair[1]) } else { format!("{} from {}", short(pair[1].kl), short(pair[0].kl)) }
        }
        _ => return None,
    })
}
