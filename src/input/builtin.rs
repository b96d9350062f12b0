//! The pictures that are compiled into the binary (origin and licences: `assets/SOURCES.md`).

use std::sync::OnceLock;

use super::picture::{Picture, Raster, decode};
use crate::error::{Error, Result};

/// Side of a Fashion-MNIST picture.
const SIDE: usize = 28;
static TEST: &[u8] = include_bytes!("../../assets/fashion/test.png");
static CALIBRATION: &[u8] = include_bytes!("../../assets/fashion/calibration.png");
static TEST_LABELS: &str = include_str!("../../assets/fashion/test-labels.txt");
static CALIBRATION_LABELS: &str = include_str!("../../assets/fashion/calibration-labels.txt");
static PHOTOGRAPHS: [(&str, &[u8]); 4] = [
    ("chelsea", include_bytes!("../../assets/photographs/chelsea.jpg")),
    ("coffee", include_bytes!("../../assets/photographs/coffee.jpg")),
    ("rocket", include_bytes!("../../assets/photographs/rocket.jpg")),
    ("astronaut", include_bytes!("../../assets/photographs/astronaut.jpg")),
];

/// Number of Fashion-MNIST test pictures.
pub const TEST_PICTURES: usize = 1000;
/// Number of photographs.
pub const PHOTOGRAPH_COUNT: usize = PHOTOGRAPHS.len();

/// One of the 1,000 Fashion-MNIST test pictures.
///
/// # Errors
/// When `index` is 1,000 or more.
pub fn fashion_test(index: usize) -> Result<Picture> {
    static SHEET: OnceLock<Option<Raster>> = OnceLock::new();
    from_sheet("test", SHEET.get_or_init(|| decode("built-in test.png", TEST).ok()).as_ref(), TEST_LABELS, index)
}

/// One of the 32 Fashion-MNIST training pictures that calibrate the built-in model.
///
/// # Errors
/// When `index` is 32 or more.
pub fn fashion_calibration(index: usize) -> Result<Picture> {
    static SHEET: OnceLock<Option<Raster>> = OnceLock::new();
    let sheet = SHEET.get_or_init(|| decode("built-in calibration.png", CALIBRATION).ok());
    from_sheet("calibration", sheet.as_ref(), CALIBRATION_LABELS, index)
}

fn from_sheet(name: &str, sheet: Option<&Raster>, labels: &str, index: usize) -> Result<Picture> {
    let missing = || Error::setting(format!("built-in {name} picture"), index, "an index inside the sheet");
    let sheet = sheet.ok_or_else(missing)?;
    let columns = sheet.width / SIDE;
    let (x, y) = (index % columns * SIDE, index / columns * SIDE);
    let label = labels.lines().nth(index).and_then(|line| line.trim().parse().ok());
    if y + SIDE > sheet.height || label.is_none() {
        return Err(missing());
    }
    Ok(Picture {
        name: format!("{name} {index}"),
        source: format!("built-in Fashion-MNIST {name} picture {index}"),
        raster: sheet.crop(x, y, SIDE, SIDE).with_channels(1),
        label,
    })
}

/// One of the photographs.
///
/// # Errors
/// When there is no photograph `index`.
pub fn photograph(index: usize) -> Result<Picture> {
    let (name, bytes) =
        PHOTOGRAPHS.get(index).ok_or_else(|| Error::setting("built-in photograph", index, format!("0 to {}", PHOTOGRAPH_COUNT - 1)))?;
    let source = format!("built-in photograph {name}");
    Ok(Picture { name: (*name).into(), raster: decode(&source, bytes)?, source, label: None })
}

/// 32 crops of the photographs, 8 of each: what photograph models are calibrated on when no folder is given.
///
/// # Errors
/// Only when the binary was built from broken assets.
pub fn photograph_crops() -> Result<Vec<Picture>> {
    let mut crops = Vec::with_capacity(8 * PHOTOGRAPH_COUNT);
    for index in 0..PHOTOGRAPH_COUNT {
        let whole = photograph(index)?;
        let (width, height) = (whole.raster.width, whole.raster.height);
        // Two sizes of window at the four corners of the room that they leave.
        for share in [0.9, 0.6] {
            let side = (width.min(height) as f64 * share) as usize;
            for (right, down) in [(0, 0), (1, 0), (0, 1), (1, 1)] {
                let (x, y) = (right * (width - side), down * (height - side));
                let name = format!("{} {side} at {x},{y}", whole.name);
                let source = format!("crop of {}", whole.source);
                let raster = whole.raster.crop(x, y, side, side);
                crops.push(Picture { name, source, raster, label: None });
            }
        }
    }
    Ok(crops)
}
