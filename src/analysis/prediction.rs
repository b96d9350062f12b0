//! What is predicted for a picture, and how far another prediction of it is: the only place that knows KL and top-1.

use std::sync::Arc;

use candle_core::Tensor;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::classes::{self, kl};
pub use super::classes::{class_name, softmax};
use super::mask::Mask;
use super::objects::{self, ObjectsReport, Seen, corners};
use super::report::{ClassProbability, PredictionReport, Sensitivity};
use crate::error::{Error, Result};
use crate::model::output::{Objects, THRESHOLD};
use crate::model::{Output, Scoring};

/// Number of classes listed for each run.
const TOP: usize = 5;

/// What a network says of one picture: a row of `K` logits for each of its `Q` queries. A classifier has one query.
#[derive(Debug, Clone, PartialEq)]
pub struct Prediction {
    /// `Q K` values, query by query.
    logits: Vec<f32>,
    /// `K`
    classes: usize,
    /// How they become probabilities.
    scoring: Scoring,
    /// The box of every query, where they have one: centre across and down, width and height, as shares of the input.
    boxes: Vec<[f32; 4]>,
    /// The mask of every query, where they have one.
    masks: Vec<Arc<Mask>>,
    /// What the probabilities of a query's classes are multiplied by: the certainty of its mask, where there is nothing but masks.
    certainties: Vec<f64>,
    /// Probability that an object must have to be shown, unless another is asked for.
    threshold: f64,
    /// The largest logit of a class at the place that a query started from, where there is a first stage.
    objectness: Vec<f32>,
    /// Of a detector of regions what is seen, without names: its queries are regions.
    found: Option<Vec<Seen>>,
    /// The same with proposals of its own, where those of the float run were pinned: what is seen.
    free: Option<Box<Self>>,
}

/// How far a prediction is from the float one of the same picture, or the mean over several pictures.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Divergence {
    /// Mean of `KL(p_float || p_quantized)` over queries and pictures, in nats.
    pub kl: f64,
    /// Number of pictures whose most likely class changed.
    #[serde(rename = "flips")]
    pub changed: usize,
    /// Number of pictures.
    #[serde(skip)]
    pub of: usize,
}

impl Divergence {
    /// Over pictures: the mean of the KL, the sum of the changes.
    #[must_use]
    pub fn mean(pictures: impl IntoIterator<Item = Self>) -> Self {
        let mut sum = Self::default();
        for one in pictures {
            sum.add(one);
        }
        Self { kl: sum.kl / sum.of.max(1) as f64, ..sum }
    }

    /// Adds up, the KL included: [`Self::mean`] of parts.
    pub fn add(&mut self, more: Self) {
        self.kl += more.kl * more.of.max(1) as f64;
        self.changed += more.changed;
        self.of += more.of;
    }

    /// Percent of the pictures whose most likely class did not change.
    #[must_use]
    pub fn agreement(&self) -> f64 {
        100.0 * (self.of - self.changed) as f64 / self.of.max(1) as f64
    }
}

impl From<Divergence> for Sensitivity {
    fn from(divergence: Divergence) -> Self {
        Self { kl: divergence.kl, flipped: divergence.changed > 0 }
    }
}

impl Prediction {
    /// Of every picture of a batch.
    ///
    /// # Errors
    /// Only when candle fails.
    pub fn of(output: &Output) -> Result<Vec<Self>> {
        let (pictures, _, classes) = output.logits.dims3()?;
        let mut free = match &output.free {
            Some(output) => Self::of(output)?.into_iter().map(|one| Some(Box::new(one))).collect(),
            None => vec![None; pictures],
        };
        let mut found = Vec::with_capacity(pictures);
        for (picture, logits) in output.logits.flatten_from(1)?.to_vec2::<f32>()?.into_iter().enumerate() {
            let boxes: Vec<[f32; 4]> = match &output.boxes {
                Some(boxes) => boxes.get(picture)?.to_vec2::<f32>()?.iter().filter_map(|b| b.as_slice().try_into().ok()).collect(),
                None => Vec::new(),
            };
            let masks: Vec<Arc<Mask>> = match &output.masks {
                Some(masks) => {
                    let (_, _, rows, columns) = masks.dims4()?;
                    let each = masks.get(picture)?.flatten_from(1)?.to_vec2::<f32>()?.into_iter();
                    each.map(|logits| Arc::new(Mask { size: (rows, columns), logits, within: None })).collect()
                }
                None => Vec::new(),
            };
            let objectness = match &output.first {
                Some(first) => first.objectness.get(picture)?.to_vec1::<f32>()?,
                None => Vec::new(),
            };
            let (logits, objectness) = present(output, picture, logits, objectness)?;
            let seen = output.objects.as_ref().map(|objects| of_regions(objects, picture)).transpose()?;
            let only = output.boxes.is_none() && !masks.is_empty();
            let (boxes, certainties) =
                if only { masks.iter().map(|mask| (mask.around(), mask.certainty())).unzip() } else { (boxes, Vec::new()) };
            let (scoring, threshold, free) = (output.scoring, output.threshold, free[picture].take());
            found.push(Self { logits, classes, scoring, boxes, masks, certainties, threshold, objectness, found: seen, free });
        }
        Ok(found)
    }

    /// Of a batch of one picture.
    ///
    /// # Errors
    /// When it is empty.
    pub fn of_one(output: &Output) -> Result<Self> {
        let none = || Error::content("prediction", "the batch is empty", "report this");
        Self::of(output)?.into_iter().next().ok_or_else(none)
    }

    /// A classifier's, from its logits.
    #[must_use]
    pub const fn of_logits(logits: Vec<f32>) -> Self {
        let classes = logits.len();
        Self {
            logits,
            classes,
            scoring: Scoring::Softmax,
            boxes: Vec::new(),
            masks: Vec::new(),
            certainties: Vec::new(),
            threshold: THRESHOLD,
            objectness: Vec::new(),
            found: None,
            free: None,
        }
    }

    /// `Q K` values, query by query.
    #[must_use]
    pub fn logits(&self) -> &[f32] {
        &self.logits
    }

    /// The same as a tensor `(Q, K)`.
    ///
    /// # Errors
    /// Only when candle fails.
    pub fn tensor(&self) -> Result<Tensor> {
        let shape = (self.logits.len() / self.classes.max(1), self.classes);
        Ok(Tensor::from_slice(&self.logits, shape, &candle_core::Device::Cpu)?)
    }

    fn queries(&self) -> impl Iterator<Item = &[f32]> {
        self.logits.chunks_exact(self.classes.max(1))
    }

    /// What every query of a detector says; nothing of a classifier.
    #[must_use]
    pub fn seen(&self, labels: &[String]) -> Vec<Seen> {
        if let Some(free) = &self.free {
            return free.seen(labels);
        }
        if let Some(found) = &self.found {
            return found.iter().map(|one| Seen { label: class_name(labels, one.class), ..one.clone() }).collect();
        }
        let mut seen = objects::seen(self.queries(), self.scoring, &self.boxes, labels);
        for (object, mask) in seen.iter_mut().zip(&self.masks) {
            object.mask = Some(Arc::clone(mask));
        }
        for (object, certainty) in seen.iter_mut().zip(&self.certainties) {
            object.score *= certainty;
        }
        seen
    }

    /// What an evaluation takes: of a detector whose classes exclude one another one object a query; else as many as queries of all pairs of
    /// query and class, the likeliest first.
    #[must_use]
    pub fn detections(&self, labels: &[String]) -> Vec<Seen> {
        let shown = self.free.as_deref().unwrap_or(self);
        let seen = shown.seen(labels);
        if shown.scoring == Scoring::Softmax {
            return seen;
        }
        let mut pairs: Vec<(f32, usize, usize)> = Vec::with_capacity(shown.logits.len());
        for (query, logits) in shown.queries().enumerate() {
            pairs.extend(logits.iter().enumerate().map(|(class, logit)| (*logit, query, class)));
        }
        pairs.sort_by(|a, b| b.0.total_cmp(&a.0).then((a.1, a.2).cmp(&(b.1, b.2))));
        let of = |(logit, query, class): (f32, usize, usize)| {
            let score = classes::of_objects(&[logit], Scoring::Sigmoid).first().copied().unwrap_or_default();
            Seen { class, label: class_name(labels, class), score, ..seen[query].clone() }
        };
        pairs.into_iter().take(seen.len()).map(of).collect()
    }

    /// Whether it is that of a detector.
    #[must_use]
    pub const fn detects(&self) -> bool {
        !self.boxes.is_empty() || self.found.is_some()
    }

    /// The most likely class, the first of equals; of a detector that of its most likely object.
    #[must_use]
    pub fn class(&self) -> usize {
        if self.detects() {
            return self.top(&[]).first().map_or(0, |best| best.class);
        }
        self.queries().next().map_or(0, argmax)
    }

    /// The probability of a class; of a detector that of its most likely object of it.
    #[must_use]
    pub fn probability_of(&self, class: usize) -> f64 {
        let shown = self.free.as_deref().unwrap_or(self);
        if let Some(found) = &shown.found {
            return found.iter().filter(|one| one.class == class).map(|one| one.score).fold(0.0, f64::max);
        }
        let of = |(query, logits): (usize, &[f32])| {
            let all = if shown.detects() { classes::of_objects(logits, shown.scoring) } else { softmax(logits) };
            all.get(class).copied().unwrap_or(0.0) * shown.certainties.get(query).copied().unwrap_or(1.0)
        };
        shown.queries().enumerate().map(of).fold(0.0, f64::max)
    }

    /// `KL(p_float || p_this)` of every query, in nats.
    fn each_kl(&self, float: &Self) -> Vec<f64> {
        float.queries().zip(self.queries()).map(|(float, this)| kl(float, this, self.scoring)).collect()
    }

    /// The mean over queries of the KL of the objectness of what they started from; 0 without a first stage \[D\]: with pinned proposals it
    /// is all that the first stage has a say in.
    fn first_kl(&self, float: &Self) -> f64 {
        let each = float.objectness.iter().zip(&self.objectness).map(|(p, q)| kl(&[*p], &[*q], Scoring::Sigmoid));
        each.sum::<f64>() / self.objectness.len().max(1) as f64
    }

    /// The mean of the KL of all queries, and what the first stage has a say in.
    fn kl_of(&self, each: &[f64], float: &Self) -> f64 {
        each.iter().sum::<f64>() / each.len().max(1) as f64 + self.first_kl(float)
    }

    /// `KL(p_float || p_this)` in nats, the mean over queries.
    #[must_use]
    pub fn kl(&self, float: &Self) -> f64 {
        self.kl_of(&self.each_kl(float), float)
    }

    /// The objects of this against those of the float prediction of the same picture; none of classifiers.
    #[must_use]
    pub fn objects(&self, float: &Self, labels: &[String]) -> Option<ObjectsReport> {
        self.detects().then(|| {
            ObjectsReport::new(float.seen(labels), self.seen(labels), self.each_kl(float), float.threshold)
                .pinned(!self.objectness.is_empty())
                .of_regions(self.found.is_some())
        })
    }

    /// How far this is from the float prediction of the same picture.
    #[must_use]
    pub fn against(&self, float: &Self) -> Divergence {
        let each = self.each_kl(float);
        let kl = self.kl_of(&each, float);
        let changed = if self.detects() {
            ObjectsReport::new(float.seen(&[]), self.seen(&[]), each, float.threshold).changed()
        } else {
            self.class() != float.class()
        };
        Divergence { kl, changed: usize::from(changed), of: 1 }
    }

    /// The most likely classes with their probabilities; of a detector those of its most likely objects.
    fn top(&self, labels: &[String]) -> Vec<ClassProbability> {
        if self.detects() {
            let mut seen = self.seen(labels);
            seen.sort_by(|a, b| b.score.total_cmp(&a.score));
            return seen.into_iter().take(TOP).map(|s| ClassProbability { class: s.class, label: s.label, probability: s.score }).collect();
        }
        let Some(logits) = self.queries().next() else { return Vec::new() };
        let probabilities = softmax(logits);
        let mut order: Vec<usize> = (0..logits.len()).collect();
        order.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]).then(a.cmp(&b)));
        let named = |class: usize| ClassProbability { class, label: class_name(labels, class), probability: probabilities[class] };
        order.into_iter().take(TOP).map(named).collect()
    }

    /// Probability of a class less that of the most likely other one: negative where it is not the most likely.
    #[must_use]
    pub fn margin_of(&self, class: usize) -> f64 {
        if self.detects() {
            let others = self.seen(&[]).into_iter().filter(|s| s.class != class).map(|s| s.score);
            return self.probability_of(class) - others.fold(0.0, f64::max);
        }
        let probabilities = self.queries().next().map(softmax).unwrap_or_default();
        let others = probabilities.iter().enumerate().filter(|(other, _)| *other != class).map(|(_, p)| *p);
        probabilities.get(class).copied().unwrap_or(0.0) - others.fold(0.0, f64::max)
    }

    /// Float against this one, for users.
    #[must_use]
    pub fn report(&self, float: &Self, labels: &[String]) -> PredictionReport {
        let (float_top, quantized_top) = (float.top(labels), self.top(labels));
        let Divergence { kl, changed, .. } = self.against(float);
        PredictionReport {
            flipped: changed > 0,
            kl,
            margin_float: margin(&float_top),
            margin_quantized: margin(&quantized_top),
            margin_kept: self.margin_of(float.class()),
            objects: self.objects(float, labels),
            float: float_top,
            quantized: quantized_top,
        }
    }
}

/// Logits and objectness of one picture without the slots that no proposal fills.
fn present(output: &Output, picture: usize, logits: Vec<f32>, objectness: Vec<f32>) -> Result<(Vec<f32>, Vec<f32>)> {
    let Some(first) = &output.first else { return Ok((logits, objectness)) };
    let classes = output.logits.dim(2)?;
    let index = first.proposals.get(picture)?.narrow(1, 0, 1)?.flatten_all()?.to_vec1::<f32>()?;
    let there = || index.iter().map(|index| *index >= 0.0);
    let logits = logits.chunks_exact(classes.max(1)).zip(there()).filter(|(_, there)| *there).flat_map(|(row, _)| row.iter().copied());
    Ok((logits.collect(), objectness.iter().copied().zip(there()).filter(|(_, there)| *there).map(|(one, _)| one).collect()))
}

/// The objects of one picture of a detector of regions.
fn of_regions(objects: &Objects, picture: usize) -> Result<Vec<Seen>> {
    let masks = objects.masks.as_ref().map(|masks| masks.get(picture)).transpose()?;
    let size = masks.as_ref().map(Tensor::dims3).transpose()?.map(|(_, rows, columns)| (rows, columns));
    let mut pixels = match masks {
        Some(masks) => masks.flatten_from(1)?.to_vec2::<f32>()?,
        None => Vec::new(),
    };
    let mut found = Vec::new();
    for (at, row) in objects.rows.get(picture)?.to_vec2::<f32>()?.into_iter().enumerate() {
        let [class, probability, x, y, width, height, query] = row[..] else { continue };
        if probability <= 0.0 {
            continue;
        }
        let corners = corners([x, y, width, height]);
        let of = |size| Arc::new(Mask::over(corners, size, pixels.get_mut(at).map(std::mem::take).unwrap_or_default()));
        let (query, class, score) = (query as usize, class as usize, f64::from(probability));
        found.push(Seen { query, class, label: String::new(), score, corners, mask: size.map(of) });
    }
    Ok(found)
}

fn margin(top: &[ClassProbability]) -> f64 {
    match top {
        [first, second, ..] => first.probability - second.probability,
        _ => 1.0,
    }
}

/// Index of the largest; the first of equals.
fn argmax(values: &[f32]) -> usize {
    (1..values.len()).fold(0, |best, i| if values[i] > values[best] { i } else { best })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_add_up_to_the_mean_over_all_pictures() {
        let of = |kl, changed| Divergence { kl, changed, of: 1 };
        let whole = Divergence::mean([of(1.0, 1), of(2.0, 0), of(6.0, 1)]);
        assert_eq!(whole, Divergence { kl: 3.0, changed: 2, of: 3 });
        let parts = Divergence::mean([Divergence::mean([of(1.0, 1), of(2.0, 0)]), of(6.0, 1)]);
        assert_eq!(parts, whole);
        assert!((whole.agreement() - 100.0 / 3.0).abs() < 1e-12);
    }

    #[test]
    fn a_prediction_with_several_queries_is_compared_query_by_query() {
        let two = |logits: Vec<f32>| Prediction { classes: 2, ..Prediction::of_logits(logits) };
        let float = two(vec![0.0, 0.0, 0.0, 0.0]);
        let other = two(vec![0.0, 3.0_f32.ln(), 0.0, 0.0]);
        let one = Prediction::of_logits(vec![0.0, 3.0_f32.ln()]).against(&Prediction::of_logits(vec![0.0, 0.0]));
        let both = other.against(&float);
        assert!((both.kl - one.kl / 2.0).abs() < 1e-12);
        assert_eq!((both.changed, both.of), (1, 1));
    }
}
