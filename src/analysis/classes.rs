//! Probabilities of logits, and names of classes.

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
