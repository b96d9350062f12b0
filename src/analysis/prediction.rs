//! What is predicted for a picture, and how far another prediction of it is: the only place that knows KL and top-1.

use candle_core::Tensor;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::report::{ClassProbability, PredictionReport, Sensitivity};
use crate::error::Result;
use crate::model::Output;

/// Number of classes listed for each run.
const TOP: usize = 5;

/// What a network says of one picture: a row of `K` logits for each of its `Q` queries. A classifier has one query.
#[derive(Debug, Clone, PartialEq)]
pub struct Prediction {
    /// `Q K` values, query by query.
    logits: Vec<f32>,
    /// `K`
    classes: usize,
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
        let (_, _, classes) = output.logits.dims3()?;
        let rows = output.logits.flatten_from(1)?.to_vec2::<f32>()?;
        Ok(rows.into_iter().map(|logits| Self { logits, classes }).collect())
    }

    /// Of a batch of one picture.
    ///
    /// # Errors
    /// Only when candle fails.
    pub fn of_one(output: &Output) -> Result<Self> {
        let (_, _, classes) = output.logits.dims3()?;
        Ok(Self { logits: output.logits.flatten_all()?.to_vec1()?, classes })
    }

    /// A classifier's, from its logits.
    #[must_use]
    pub const fn of_logits(logits: Vec<f32>) -> Self {
        let classes = logits.len();
        Self { logits, classes }
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

    /// The most likely class of the first query; the first of equals.
    #[must_use]
    pub fn class(&self) -> usize {
        self.queries().next().map_or(0, argmax)
    }

    /// How far this is from the float prediction of the same picture.
    #[must_use]
    pub fn against(&self, float: &Self) -> Divergence {
        let queries = self.queries().count().max(1) as f64;
        let sum: f64 = float.queries().zip(self.queries()).map(|(float, this)| kl(float, this)).sum();
        Divergence { kl: sum / queries, changed: usize::from(self.class() != float.class()), of: 1 }
    }

    /// The most likely classes with their probabilities.
    fn top(&self, labels: &[String]) -> Vec<ClassProbability> {
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
            float: float_top,
            quantized: quantized_top,
        }
    }
}

fn margin(top: &[ClassProbability]) -> f64 {
    match top {
        [first, second, ..] => first.probability - second.probability,
        _ => 1.0,
    }
}

/// The name of `class`: its label, or `class 7`.
#[must_use]
pub fn class_name(labels: &[String], class: usize) -> String {
    labels.get(class).cloned().unwrap_or_else(|| format!("class {class}"))
}

/// Probabilities of logits.
#[must_use]
pub fn softmax(logits: &[f32]) -> Vec<f64> {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let exp: Vec<f64> = logits.iter().map(|&l| f64::from(l - max).exp()).collect();
    let sum: f64 = exp.iter().sum();
    exp.into_iter().map(|e| e / sum).collect()
}

/// `KL(p || q)` of two rows of logits, in nats.
fn kl(float: &[f32], quantized: &[f32]) -> f64 {
    let log_softmax = |logits: &[f32]| -> Vec<f64> {
        let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let log_sum = logits.iter().map(|&l| f64::from(l - max).exp()).sum::<f64>().ln();
        logits.iter().map(|&l| f64::from(l - max) - log_sum).collect()
    };
    let (p, q) = (log_softmax(float), log_softmax(quantized));
    p.iter().zip(&q).map(|(p, q)| p.exp() * (p - q)).sum::<f64>().max(0.0)
}

/// Index of the largest; the first of equals.
fn argmax(values: &[f32]) -> usize {
    (1..values.len()).fold(0, |best, i| if values[i] > values[best] { i } else { best })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kl_is_zero_for_equal_and_hand_computed_for_two_classes() {
        assert_eq!(kl(&[1.0, 2.0], &[1.0, 2.0]), 0.0);
        // p = (1/2, 1/2), q = (1/4, 3/4)
        let expected = 0.5 * (2.0_f64).ln() + 0.5 * (2.0_f64 / 3.0).ln();
        assert!((kl(&[0.0, 0.0], &[0.0, 3.0_f32.ln()]) - expected).abs() < 1e-7);
    }

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
        let float = Prediction { logits: vec![0.0, 0.0, 0.0, 0.0], classes: 2 };
        let other = Prediction { logits: vec![0.0, 3.0_f32.ln(), 0.0, 0.0], classes: 2 };
        let one = Prediction::of_logits(vec![0.0, 3.0_f32.ln()]).against(&Prediction::of_logits(vec![0.0, 0.0]));
        let both = other.against(&float);
        assert!((both.kl - one.kl / 2.0).abs() < 1e-12);
        assert_eq!((both.changed, both.of), (1, 1));
    }
}
