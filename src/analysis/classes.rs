//! Probabilities of logits, how far two of them are apart, and names of classes.

use crate::model::Scoring;

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

/// Probabilities that a query is an object of each class.
#[must_use]
pub fn of_objects(logits: &[f32], scoring: Scoring) -> Vec<f64> {
    match scoring {
        Scoring::Sigmoid => logits.iter().map(|&l| 1.0 / (1.0 + f64::from(-l).exp())).collect(),
        Scoring::Softmax => {
            let mut all = softmax(logits);
            // The last class says that there is none.
            all.pop();
            all
        }
    }
}

/// `KL(p || q)` of two rows of logits, in nats: of one distribution over all classes, or the sum over classes of one each.
#[must_use]
pub fn kl(float: &[f32], quantized: &[f32], scoring: Scoring) -> f64 {
    match scoring {
        Scoring::Softmax => {
            let log_softmax = |logits: &[f32]| -> Vec<f64> {
                let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
                let log_sum = logits.iter().map(|&l| f64::from(l - max).exp()).sum::<f64>().ln();
                logits.iter().map(|&l| f64::from(l - max) - log_sum).collect()
            };
            let (p, q) = (log_softmax(float), log_softmax(quantized));
            p.iter().zip(&q).map(|(p, q)| p.exp() * (p - q)).sum::<f64>().max(0.0)
        }
        Scoring::Sigmoid => {
            // ln sigmoid(x), without overflow.
            let log = |x: f64| -(-x.abs()).exp().ln_1p() + x.min(0.0);
            let one = |(p, q): (&f32, &f32)| {
                let (p, q) = (f64::from(*p), f64::from(*q));
                let share = log(p).exp();
                share * (log(p) - log(q)) + (1.0 - share) * (log(-p) - log(-q))
            };
            float.iter().zip(quantized).map(one).sum::<f64>().max(0.0)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kl_is_zero_for_equal_and_hand_computed_for_two_classes() {
        assert_eq!(kl(&[1.0, 2.0], &[1.0, 2.0], Scoring::Softmax), 0.0);
        assert_eq!(kl(&[1.0, -90.0], &[1.0, -90.0], Scoring::Sigmoid), 0.0);
        // p = (1/2, 1/2), q = (1/4, 3/4); a sigmoid of a logit is a softmax of it beside zero.
        let expected = 0.5 * (2.0_f64).ln() + 0.5 * (2.0_f64 / 3.0).ln();
        assert!((kl(&[0.0, 0.0], &[0.0, 3.0_f32.ln()], Scoring::Softmax) - expected).abs() < 1e-7);
        assert!((kl(&[0.0, 0.0], &[3.0_f32.ln(), 0.0], Scoring::Sigmoid) - expected).abs() < 1e-7);
        let far = kl(&[100.0], &[-100.0], Scoring::Sigmoid);
        assert!((far - 100.0).abs() < 1e-6, "{far}");
    }
}
