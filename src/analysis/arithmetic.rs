//! What integers gain on this machine, as plain numbers.

use schemars::JsonSchema;
use serde::Serialize;

/// Times of one picture on this machine, in milliseconds, and which products are made of codes.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct ArithmeticReport {
    /// Rounds whose median the times are.
    pub rounds: usize,
    /// The float network.
    pub float_ms: f64,
    /// Every operand quantized and dequantized.
    pub fake_quantized_ms: f64,
    /// Products of codes.
    pub integer_ms: f64,
    /// Number of products that are made of codes.
    pub integer_products: usize,
    /// Sites whose product is made of floats, and why.
    pub float_products: Vec<(String, String)>,
}

impl ArithmeticReport {
    /// One line for people.
    #[must_use]
    pub fn describe(&self) -> String {
        let Self { rounds, float_ms, fake_quantized_ms, integer_ms, integer_products, float_products } = self;
        let mut text = format!(
            "float {float_ms:.1} ms, fake-quantized {fake_quantized_ms:.1} ms, integers {integer_ms:.1} ms ({:.2} of float) here, \
             median of {rounds}; {integer_products} of {} products in integers",
            integer_ms / float_ms,
            integer_products + float_products.len()
        );
        if let Some((site, why)) = float_products.first() {
            text += &format!("; floats: {site}{} ({why})", if float_products.len() > 1 { " and others" } else { "" });
        }
        text
    }
}
