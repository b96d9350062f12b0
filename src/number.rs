//! Numbers for people: three significant digits, at most six decimals, never an exponent and never a negative zero.

/// A number in at most nine characters: `123`, `12.3`, `1.23`, `0.0123`, `0.00123`; `~0` for what is not zero and smaller than half of the last of six decimals.
#[must_use]
pub fn short(value: f64) -> String {
    let magnitude = value.abs();
    if value == 0.0 {
        return "0".into();
    }
    if !value.is_finite() {
        return value.to_string();
    }
    if magnitude < 0.000_000_5 {
        return "~0".into();
    }
    // Decimals that leave three digits; what rounds up to the next power of ten has one digit more, which is none too many.
    let decimals = (2 - magnitude.log10().floor() as i32).clamp(0, 6) as usize;
    let text = format!("{value:.decimals$}");
    if decimals > 3 { text.trim_end_matches('0').to_string() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_digits_and_no_exponent() {
        let cases = [
            (0.0, "0"),
            (-0.0, "0"),
            (1234.5, "1234"),
            (99.96, "100.0"),
            (12.34, "12.3"),
            (-1.234, "-1.23"),
            (0.1, "0.100"),
            (0.01234, "0.0123"),
            (0.001_234, "0.00123"),
            (0.0012, "0.0012"),
            (0.000_002, "0.000002"),
            (-0.000_000_1, "~0"),
        ];
        for (value, text) in cases {
            assert_eq!(short(value), text, "{value}");
        }
    }
}
