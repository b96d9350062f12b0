//! How much memory a run may take: absurd sizes are refused before anything is allocated, large operands are not kept, and fewer large
//! pictures run together.

use crate::error::{Error, Result};

/// Pictures that run together. Few, so that the operands of a layer stay in the processor's caches; what more there is to do runs as
/// further batches beside them, on other threads.
pub const BATCH: usize = 8;

/// Pixels up to which [`BATCH`] pictures run together. Attention grows with the square of the tokens, so the number falls with the square of
/// the pixels.
const PIXELS: usize = 518 * 518;

/// The values of a softmax above which a run does not keep it \[D\]: 16 MiB as floats, three times a block.
const KEPT_VALUES: u64 = 4 << 20;

/// How many pictures of `size` in rows and columns run together at most: [`BATCH`], fewer large ones.
#[must_use]
pub fn together(size: (usize, usize)) -> usize {
    let pixels = size.0.saturating_mul(size.1).max(1) as f64;
    ((BATCH as f64 * (PIXELS as f64 / pixels).powi(2)) as usize).clamp(1, BATCH)
}

/// Whether the softmax of one picture is kept, which has so many values.
#[must_use]
pub const fn is_kept(values: u64) -> bool {
    values <= KEPT_VALUES
}

/// What is assumed to be free where the system does not say.
const ASSUMED: u64 = 4 << 30;

/// Bytes that a program can get without swapping, as far as the system says.
fn available() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok()).map_or(ASSUMED, |kib| kib.saturating_mul(1024))
}

/// The bound that holds unless the user names another: half of what is free.
#[must_use]
pub fn default_limit() -> u64 {
    available() / 2
}

/// Refuses what needs more than `limit` bytes (or [`default_limit`]).
///
/// # Errors
/// Exactly then; the message names `what`, the need and the bound.
pub fn check(what: &str, needed: u64, limit: Option<u64>) -> Result<()> {
    let limit = limit.unwrap_or_else(default_limit);
    let giga = |bytes: u64| bytes as f64 / (1 << 30) as f64;
    if needed <= limit {
        return Ok(());
    }
    let problem = format!("a run needs about {:.1} GiB of memory, the limit is {:.1} GiB", giga(needed), giga(limit));
    Err(Error::content(
        what,
        problem,
        "name a smaller input size (--input-size for a detector) or model, or allow more with --max-memory GIB",
    ))
}
