//! How detectors and networks that segment resize: in proportion, and padded to the input.

use serde_json::Value;

use super::preprocess::Resize;
use super::processor_classes::FILE;
use super::processor_keys::{refused, sides, switch};
use crate::error::Result;

/// The side that a YOLOS' sizes are cut down to multiples of.
pub(super) const MULTIPLE: usize = 16;

/// How a detector resizes: the shorter side, and what the longer one may become, in either of the two ways to write it.
pub(super) fn canvas(cfg: &Value, multiple: usize) -> Result<Resize> {
    let given = |key: &str| cfg.get(key).filter(|v| !v.is_null());
    if !switch(cfg, "do_resize", true)? || switch(cfg, "do_center_crop", false)? {
        return Err(refused(FILE, "expected do_resize on and do_center_crop off, as detectors have them".into()));
    }
    let longest = given("max_size").map(|value| sides(value, "max_size", false)).transpose()?;
    let longest = match longest {
        Some(Resize::Shortest(side)) => side,
        Some(_) => return Err(refused(FILE, format!("max_size: expected a number, found {}", cfg["max_size"]))),
        None => 1333,
    };
    match given("size").map(|value| sides(value, "size", false)).transpose()? {
        None => Ok(Resize::Canvas(800, longest, multiple)),
        Some(Resize::Shortest(short)) => Ok(Resize::Canvas(short, longest, multiple)),
        Some(Resize::Between(short, long)) => Ok(Resize::Canvas(short, long, multiple)),
        Some(_) => Err(refused(FILE, format!("size: expected shortest_edge and longest_edge, found {}", cfg["size"]))),
    }
}

/// How a network that segments resizes: both sides to at most its input, which is a square, the rest black.
pub(super) fn padded(cfg: &Value) -> Result<(Resize, Option<(usize, usize)>)> {
    if switch(cfg, "do_split_image", false)? {
        return Err(refused(
            FILE,
            "do_split_image is on: pictures are cut into windows for semantic segmentation, which igq does not do".into(),
        ));
    }
    if !switch(cfg, "do_resize", true)? || !switch(cfg, "do_pad", false)? {
        return Err(refused(FILE, "expected do_resize and do_pad on, without which only squares fit".into()));
    }
    match cfg.get("size").map_or(Ok(Resize::Between(640, 640)), |value| sides(value, "size", false))? {
        Resize::Between(short, long) if short == long => Ok((Resize::Corner(short, long), Some((short, long)))),
        _ => Err(refused(FILE, format!("size: expected shortest_edge and longest_edge of one length, found {}", cfg["size"]))),
    }
}
