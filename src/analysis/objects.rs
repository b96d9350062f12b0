//! Objects of a detector: what each run sees over a threshold, and what became of every object of the float run. Matching is greedy, as COCO's
//! evaluation does it: the likeliest first, by overlap, within a class and then across classes.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::classes::{class_name, of_objects};
use super::mask::Mask;
use crate::model::Scoring;

/// Overlap from which on two boxes are of one object.
const SAME: f64 = 0.5;
/// Overlap from which on it has not moved.
const KEPT: f64 = 0.75;

/// What became of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Fate {
    /// Of one class in both runs, the boxes overlap by 0.75 or more.
    Kept,
    /// The boxes overlap by 0.5 to 0.75.
    Moved,
    /// The quantized run gives its box another class.
    Relabelled,
    /// The quantized run still holds it with at least half of the threshold.
    Faded,
    /// The quantized run does not hold it.
    Lost,
    /// The quantized run alone holds it.
    New,
}

impl Fate {
    /// All of them, in the order of their legend.
    pub const ALL: [Self; 6] = [Self::Kept, Self::Moved, Self::Relabelled, Self::Faded, Self::Lost, Self::New];

    /// Its word.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Kept => "kept",
            Self::Moved => "moved",
            Self::Relabelled => "relabelled",
            Self::Faded => "faded",
            Self::Lost => "lost",
            Self::New => "new",
        }
    }

    /// Whether the objects of the picture are others with it.
    #[must_use]
    pub const fn changes(self) -> bool {
        !matches!(self, Self::Kept | Self::Moved)
    }
}

/// What one query says.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Seen {
    /// Index of the query (detection token).
    pub query: usize,
    /// Index of its likeliest class, "no object" left out.
    pub class: usize,
    /// Its name.
    pub label: String,
    /// Its probability.
    pub score: f64,
    /// Left, top, right and bottom as shares of the input.
    pub corners: [f64; 4],
    /// Its mask, where the model makes masks.
    #[serde(skip)]
    pub mask: Option<Arc<Mask>>,
}

impl Seen {
    /// Overlap of both boxes, and of both masks where there are any.
    fn overlap(&self, other: &Self) -> Overlap {
        let masks = self.mask.as_ref().zip(other.mask.as_ref()).and_then(|(a, b)| a.iou(b));
        Overlap { boxes: iou(&self.corners, &other.corners), masks }
    }
}

/// How far what two runs see lies over one another.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Overlap {
    boxes: f64,
    masks: Option<f64>,
}

impl Overlap {
    /// What decides: that of the masks, where there are any that are not empty.
    fn decides(self) -> f64 {
        self.masks.unwrap_or(self.boxes)
    }
}

/// One object of either run or both.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct ObjectReport {
    /// What became of it.
    pub fate: Fate,
    /// What the float run sees; none of a new object.
    pub float: Option<Seen>,
    /// What the quantized run sees; none of a lost one.
    pub quantized: Option<Seen>,
    /// Intersection over union of both boxes, where there are two.
    pub iou: Option<f64>,
    /// The same of both masks, which then decides whether it is the same object.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mask_iou: Option<f64>,
    /// `KL(p_float || p_quantized)` in nats at the query of the float run, of a new object at its own; none for a new one of a detector with a
    /// first stage, whose queries start from other places in each run.
    pub kl: Option<f64>,
}

/// The objects of both runs.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct ObjectsReport {
    /// Probability from which on an object counts.
    pub threshold: f64,
    /// Objects of the float run, and of the quantized one.
    pub counts: (usize, usize),
    /// Mean overlap of the objects that both runs hold, of masks where there are any; none where there are none.
    pub mean_iou: Option<f64>,
    /// Every object: those of the float run, the likeliest first, then the new ones.
    pub objects: Vec<ObjectReport>,
    /// What every query says, float and quantized: from it another threshold is looked at.
    #[serde(skip)]
    pub queries: (Vec<Seen>, Vec<Seen>),
    /// KL at every query.
    #[serde(skip)]
    pub kl: Vec<f64>,
    /// Whether the KL is that of pinned proposals.
    #[serde(skip)]
    pinned: bool,
    /// Whether it is that of regions, of which objects are what is left, and not of queries.
    #[serde(skip)]
    of_regions: bool,
}

/// Centre and sides to left, top, right and bottom.
#[must_use]
pub fn corners([x, y, width, height]: [f32; 4]) -> [f64; 4] {
    let [x, y, w, h] = [x, y, width, height].map(f64::from);
    [x - w / 2.0, y - h / 2.0, x + w / 2.0, y + h / 2.0]
}

/// Intersection over union of two boxes as left, top, right and bottom.
#[must_use]
pub fn iou(a: &[f64; 4], b: &[f64; 4]) -> f64 {
    let area = |c: &[f64; 4]| (c[2] - c[0]).max(0.0) * (c[3] - c[1]).max(0.0);
    let across = (a[2].min(b[2]) - a[0].max(b[0])).max(0.0);
    let down = (a[3].min(b[3]) - a[1].max(b[1])).max(0.0);
    let both = across * down;
    let all = area(a) + area(b) - both;
    if all > 0.0 { both / all } else { 0.0 }
}

/// What every query of `Q` rows of logits says.
#[must_use]
pub fn seen<'l>(rows: impl Iterator<Item = &'l [f32]>, scoring: Scoring, boxes: &[[f32; 4]], labels: &[String]) -> Vec<Seen> {
    let one = |(query, (logits, corner)): (usize, (&[f32], &[f32; 4]))| {
        let objects = of_objects(logits, scoring);
        let (class, score) = objects.iter().enumerate().fold((0, 0.0), |best, (c, p)| if *p > best.1 { (c, *p) } else { best });
        Seen { query, class, label: class_name(labels, class), score, corners: corners(*corner), mask: None }
    };
    rows.zip(boxes).enumerate().map(one).collect()
}

impl ObjectsReport {
    /// The objects of both runs over a threshold; `kl` is that of every query.
    #[must_use]
    pub fn new(float: Vec<Seen>, quantized: Vec<Seen>, kl: Vec<f64>, threshold: f64) -> Self {
        let over = |seen: &[Seen], least: f64| {
            let mut found: Vec<Seen> = seen.iter().filter(|s| s.score >= least).cloned().collect();
            found.sort_by(|a, b| b.score.total_cmp(&a.score));
            found
        };
        let (ours, theirs) = (over(&float, threshold), over(&quantized, threshold));
        let mut free: Vec<bool> = vec![true; theirs.len()];
        let mut matched: Vec<Option<(usize, Overlap)>> = vec![None; ours.len()];
        // Within a class first, then across classes.
        for across in [false, true] {
            for (object, place) in ours.iter().zip(&mut matched).filter(|(_, place)| place.is_none()) {
                let candidates = theirs.iter().enumerate().filter(|(at, other)| free[*at] && (across || other.class == object.class));
                let overlaps = candidates.map(|(at, other)| (at, object.overlap(other))).filter(|(_, overlap)| overlap.decides() >= SAME);
                if let Some((at, overlap)) = overlaps.max_by(|a, b| a.1.decides().total_cmp(&b.1.decides())) {
                    free[at] = false;
                    *place = Some((at, overlap));
                }
            }
        }
        let at_query = |query: usize| kl.get(query).copied().unwrap_or(0.0);
        let mut objects: Vec<ObjectReport> = Vec::new();
        for (object, place) in ours.iter().zip(&matched) {
            let (fate, other, overlap) = match place {
                Some((at, overlap)) if theirs[*at].class != object.class => (Fate::Relabelled, Some(&theirs[*at]), Some(*overlap)),
                Some((at, overlap)) => {
                    (if overlap.decides() >= KEPT { Fate::Kept } else { Fate::Moved }, Some(&theirs[*at]), Some(*overlap))
                }
                None => {
                    let faint = quantized.iter().filter(|s| s.class == object.class && s.score < threshold && s.score > threshold / 2.0);
                    let faint = faint.map(|s| (s, object.overlap(s))).filter(|(_, overlap)| overlap.decides() >= SAME);
                    match faint.max_by(|a, b| a.0.score.total_cmp(&b.0.score)) {
                        Some((other, overlap)) => (Fate::Faded, Some(other), Some(overlap)),
                        None => (Fate::Lost, None, None),
                    }
                }
            };
            objects.push(ObjectReport {
                fate,
                float: Some(object.clone()),
                quantized: other.cloned(),
                iou: overlap.map(|overlap| overlap.boxes),
                mask_iou: overlap.and_then(|overlap| overlap.masks),
                kl: Some(at_query(object.query)),
            });
        }
        let new = theirs.iter().zip(&free).filter(|(_, free)| **free).map(|(object, _)| object);
        objects.extend(new.map(|object| ObjectReport {
            fate: Fate::New,
            float: None,
            quantized: Some(object.clone()),
            iou: None,
            mask_iou: None,
            kl: Some(at_query(object.query)),
        }));
        let overlaps: Vec<f64> = matched.iter().flatten().map(|(_, overlap)| overlap.decides()).collect();
        let mean_iou = (!overlaps.is_empty()).then(|| overlaps.iter().sum::<f64>() / overlaps.len() as f64);
        let counts = (ours.len(), theirs.len());
        Self { threshold, counts, mean_iou, objects, queries: (float, quantized), kl, pinned: false, of_regions: false }
    }

    /// The same where the KL is that of pinned proposals and the objects are not: the query of a new object says nothing of it.
    #[must_use]
    pub fn pinned(mut self, pinned: bool) -> Self {
        self.pinned = pinned;
        for object in self.objects.iter_mut().filter(|object| pinned && object.fate == Fate::New) {
            object.kl = None;
        }
        self
    }

    /// The same of a detector whose slots are regions.
    #[must_use]
    pub fn of_regions(self, of_regions: bool) -> Self {
        Self { of_regions, ..self }
    }

    /// What its KL is a mean over: one, and several.
    #[must_use]
    pub const fn slot(&self) -> (&'static str, &'static str) {
        if self.of_regions { ("region", "regions") } else { ("query", "queries") }
    }

    /// The same objects over another threshold.
    #[must_use]
    pub fn at(&self, threshold: f64) -> Self {
        Self::new(self.queries.0.clone(), self.queries.1.clone(), self.kl.clone(), threshold)
            .pinned(self.pinned)
            .of_regions(self.of_regions)
    }

    /// How many objects have a fate.
    #[must_use]
    pub fn count(&self, fate: Fate) -> usize {
        self.objects.iter().filter(|object| object.fate == fate).count()
    }

    /// Whether the objects of the picture are others: anything lost, faded, relabelled or new.
    #[must_use]
    pub fn changed(&self) -> bool {
        self.objects.iter().any(|object| object.fate.changes())
    }

    /// What became of the objects, in a sentence or two.
    #[must_use]
    pub fn describe(&self) -> String {
        let percent = |score: f64| format!("{:.0} %", score * 100.0);
        let closest = |seen: &[Seen]| seen.iter().max_by(|a, b| a.score.total_cmp(&b.score)).cloned();
        if self.objects.is_empty() {
            return match (closest(&self.queries.0), closest(&self.queries.1)) {
                (Some(float), Some(quantized)) => format!(
                    "Nothing above {} in either run; the closest is {} at {} (float) and {} at {} (quantized).",
                    percent(self.threshold),
                    float.label,
                    percent(float.score),
                    quantized.label,
                    percent(quantized.score)
                ),
                _ => "Neither run sees anything.".into(),
            };
        }
        let named = |fate: Fate| -> Vec<String> {
            let of = |object: &ObjectReport| match (fate, &object.float, &object.quantized) {
                (Fate::Relabelled, Some(float), Some(quantized)) => format!("{} to {}", float.label, quantized.label),
                (Fate::Lost, Some(float), _) => format!("{}, was {}", float.label, percent(float.score)),
                (Fate::Faded, Some(float), Some(quantized)) => {
                    format!("{} {} to {}", float.label, percent(float.score), percent(quantized.score))
                }
                (_, _, Some(quantized)) => format!("{} {}", quantized.label, percent(quantized.score)),
                _ => String::new(),
            };
            self.objects.iter().filter(|object| object.fate == fate).map(of).collect()
        };
        let part = |fate: Fate| match (self.count(fate), fate) {
            (0, _) => None,
            (n, Fate::Kept) => {
                let kept = self.objects.iter().filter(|object| object.fate == Fate::Kept);
                let sum: f64 = kept.filter_map(|object| object.mask_iou.or(object.iou)).sum();
                Some(format!("{n} kept (mean IoU {:.2})", sum / n as f64))
            }
            (n, Fate::Moved) => Some(format!("{n} moved")),
            (n, fate) => Some(format!("{n} {} ({}{})", fate.name(), named(fate)[..n.min(2)].join("; "), if n > 2 { "; .." } else { "" })),
        };
        let parts: Vec<String> = Fate::ALL.into_iter().filter_map(part).collect();
        format!("Of {} object{} {}.", self.counts.0, if self.counts.0 == 1 { "" } else { "s" }, parts.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::output::THRESHOLD;

    fn seen(query: usize, class: usize, score: f64, corners: [f64; 4]) -> Seen {
        Seen { query, class, label: format!("class {class}"), score, corners, mask: None }
    }

    #[test]
    fn every_fate_is_told_by_class_score_and_overlap() {
        let at = |x: f64| [x, 0.0, x + 0.1, 0.1];
        let float = vec![
            seen(0, 1, 0.9, at(0.0)),
            seen(1, 2, 0.8, at(0.2)),
            seen(2, 3, 0.7, at(0.4)),
            seen(3, 4, 0.6, at(0.6)),
            seen(4, 5, 0.55, at(0.8)),
            seen(5, 6, 0.2, at(0.9)),
        ];
        let quantized = vec![
            seen(0, 1, 0.85, at(0.0)),
            seen(1, 2, 0.7, at(0.23)),
            seen(2, 9, 0.65, at(0.4)),
            seen(3, 4, 0.3, at(0.6)),
            seen(4, 5, 0.1, at(0.8)),
            seen(5, 6, 0.9, at(0.9)),
        ];
        let report = ObjectsReport::new(float.clone(), quantized, vec![0.5; 6], THRESHOLD);
        let fates: Vec<Fate> = report.objects.iter().map(|o| o.fate).collect();
        assert_eq!(fates, Fate::ALL);
        assert_eq!((report.counts, report.changed()), ((5, 4), true));
        let told = report.describe();
        for part in
            ["Of 5 objects", "1 kept", "1 moved", "class 3 to class 9", "faded (class 4 60 % to 30 %)", "was 55 %", "new (class 6 90 %)"]
        {
            assert!(told.contains(part), "{part}: {told}");
        }
        // A run against itself: all kept, with an overlap of 1.
        let same = ObjectsReport::new(float.clone(), float, vec![0.0; 6], THRESHOLD);
        assert!(same.objects.iter().all(|o| o.fate == Fate::Kept && o.iou == Some(1.0)) && !same.changed());
        assert!(same.at(0.95).describe().contains("Nothing above 95 %"));
        assert_eq!(report.at(0.15).counts, (6, 5));
    }

    #[test]
    fn overlap_is_shared_area_over_all_area() {
        assert!((iou(&[0.0, 0.0, 2.0, 1.0], &[1.0, 0.0, 3.0, 1.0]) - 1.0 / 3.0).abs() < 1e-12);
        assert_eq!(iou(&[0.0, 0.0, 1.0, 1.0], &[2.0, 2.0, 3.0, 3.0]), 0.0);
        assert_eq!(iou(&[0.0, 0.0, 0.0, 0.0], &[0.0, 0.0, 0.0, 0.0]), 0.0);
        let [left, top, right, bottom] = corners([0.5, 0.5, 0.2, 0.4]);
        assert!([left - 0.4, top - 0.3, right - 0.6, bottom - 0.7].iter().all(|d| d.abs() < 1e-6));
    }
}
