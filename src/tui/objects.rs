//! What the screen says of a detector's objects: signs and lines of their fates, the threshold, the object under the cursor.

use ratatui::style::Style;

use super::app::App;
use super::choice::Overlay;
use super::theme::Look;
use super::widget::boxes::{Frame, Line};
use super::widget::masks::{Area, Tint};
use crate::analysis::mask::Mask;
use crate::analysis::objects::{Fate, ObjectReport, ObjectsReport, Seen};

/// One step of the threshold.
const STEP: f64 = 0.05;

/// The threshold one step on, within 0.05 and 0.95.
#[must_use]
pub fn stepped(threshold: f64, up: bool) -> f64 {
    let next = if up { threshold + STEP } else { threshold - STEP };
    ((next / STEP).round() * STEP).clamp(STEP, 1.0 - STEP)
}

/// The objects of the newest prediction over the threshold of the screen; none of a classifier.
#[must_use]
pub fn of(app: &App) -> Option<ObjectsReport> {
    let found = app.prediction()?.objects.as_ref()?;
    Some(if (found.threshold - app.threshold).abs() < 1e-9 { found.clone() } else { found.at(app.threshold) })
}

/// The sign of a fate.
#[must_use]
pub const fn sign(fate: Fate, look: Look) -> &'static str {
    match fate {
        Fate::Kept => "=",
        Fate::Moved => "~",
        Fate::Relabelled => look.glyph("≠", "!"),
        Fate::Faded => "v",
        Fate::Lost => "-",
        Fate::New => "+",
    }
}

/// The colour of a fate, which only repeats its sign.
#[must_use]
pub fn style(fate: Fate, look: Look) -> Style {
    match fate {
        Fate::Kept => look.good(),
        Fate::Moved => look.accent(),
        _ => look.bad(),
    }
}

/// The digit or letter of an object.
#[must_use]
pub fn number(at: usize) -> String {
    const LETTERS: &[u8; 26] = b"abcdefghijklmnopqrstuvwxyz";
    if at < 9 { (at + 1).to_string() } else { LETTERS.get(at - 9).map_or_else(|| "*".into(), |l| char::from(*l).to_string()) }
}

/// The query of an object: the float run's, of a new one its own.
#[must_use]
pub fn query(object: &ObjectReport) -> Option<usize> {
    object.float.as_ref().or(object.quantized.as_ref()).map(|seen| seen.query)
}

/// The token of an object in Attention: its detection token, its query in a decoder, or else the one in the middle of its box.
#[must_use]
pub fn token(app: &App, object: &ObjectReport) -> Option<usize> {
    let layout = app.attention().map_or(app.info.tokens, |map| map.layout);
    let query = query(object)?;
    let queries = app.prediction()?.objects.as_ref()?.kl.len();
    if layout.queries || layout.prefix > queries {
        return Some(layout.prefix.min(1) + query);
    }
    let [left, top, right, bottom] = object.float.as_ref().or(object.quantized.as_ref())?.corners;
    let at = |share: f64, length: usize| ((share.clamp(0.0, 1.0) * length as f64) as usize).min(length.saturating_sub(1));
    layout.token_at(at(f64::midpoint(top, bottom), layout.grid.0), at(f64::midpoint(left, right), layout.grid.1))
}

/// Whether the objects have masks.
#[must_use]
pub fn have_masks(objects: &ObjectsReport) -> bool {
    objects.queries.0.first().is_some_and(|seen| seen.mask.is_some())
}

/// The masks of all objects, the one under the cursor last and so on top.
#[must_use]
pub fn tints<'o>(app: &App, objects: &'o ObjectsReport) -> Vec<Tint<'o>> {
    fn mask(seen: Option<&Seen>) -> Option<&Mask> {
        seen.and_then(|seen| seen.mask.as_deref())
    }
    let mut tints = Vec::new();
    for (at, object) in objects.objects.iter().enumerate() {
        // A faded object is under the threshold of the quantized run.
        let quantized = mask(object.quantized.as_ref().filter(|_| object.fate != Fate::Faded));
        let float = mask(object.float.as_ref());
        let of = |mask: Option<&'o Mask>| mask.map(|mask| (Area::Of(mask), number(at), style(object.fate, app.look)));
        let only = |one: Option<&'o Mask>, other, sign: &str, style| one.map(|one| (Area::Only(one, other), sign.to_string(), style));
        let shown = match app.overlay {
            Overlay::FloatMasks => vec![of(float)],
            Overlay::Masks => vec![of(quantized)],
            Overlay::Difference => {
                vec![only(float, quantized, "-", app.look.bad()), only(quantized, float, "+", app.look.accent())]
            }
            _ => Vec::new(),
        };
        let tint = |(area, letter, style): (Area<'o>, String, Style)| {
            (at == app.object, Tint { area, letter: letter.chars().next().unwrap_or('*'), style })
        };
        tints.extend(shown.into_iter().flatten().map(tint));
    }
    tints.sort_by_key(|(selected, _)| *selected);
    tints.into_iter().map(|(_, tint)| tint).collect()
}

/// The boxes of all objects, the one under the cursor last and so on top.
#[must_use]
pub fn frames(app: &App, objects: &ObjectsReport) -> Vec<Frame> {
    let mut frames = Vec::new();
    for (at, object) in objects.objects.iter().enumerate() {
        let (float, quantized) = (object.float.as_ref(), object.quantized.as_ref());
        let shown = match (app.overlay, object.fate) {
            // A faded object is under the threshold of the quantized run.
            (Overlay::None | Overlay::FloatMasks | Overlay::Masks | Overlay::Difference, _) | (Overlay::Quantized, Fate::Faded) => vec![],
            (Overlay::Float, _) => vec![(float, Line::Single)],
            (Overlay::Quantized, _) | (Overlay::Both, Fate::Kept | Fate::Relabelled) => vec![(quantized, Line::Single)],
            (Overlay::Both, Fate::Moved) => vec![(float, Line::Dotted), (quantized, Line::Single)],
            (Overlay::Both, Fate::Lost | Fate::Faded) => vec![(float, Line::Dotted)],
            (Overlay::Both, Fate::New) => vec![(quantized, Line::Double)],
        };
        frames.extend(shown.into_iter().filter_map(|(seen, line)| {
            let selected = at == app.object;
            Some(Frame { corners: seen?.corners, line, label: number(at), style: style(object.fate, app.look), selected })
        }));
    }
    frames.sort_by_key(|frame| frame.selected);
    frames
}
