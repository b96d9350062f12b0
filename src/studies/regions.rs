//! Whether a detector of regions computes what a reference file says. What its first stage proposes and what is left of overlapping boxes are sets: they are
//! compared by matching. Logits of regions are those of the proposals of the file, which may be some of many; objects are those of all own proposals.

use candle_core::Tensor;
use schemars::JsonSchema;
use serde::Serialize;

use crate::error::Result;
use crate::model::{Model, Tap, Weights, trace};

/// How far in pixels a box may be from that of the reference.
const PIXELS: f32 = 0.02;

/// Sets of a detector of regions against those of a reference.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Regions {
    /// Proposals of the reference, and how many of them are proposed here.
    pub proposals: (usize, usize),
    /// Objects of the reference, and how many of them are found here: of one class, with boxes at most 0.02 pixels apart.
    pub objects: (usize, usize),
    /// Objects that are found here and not in the reference.
    pub more: usize,
    /// Largest distance of a side of a matched box, in pixels.
    pub largest_box_difference: f32,
    /// Largest difference of a probability of a matched object.
    pub largest_score_difference: f32,
}

impl Regions {
    /// Whether everything was matched.
    #[must_use]
    pub const fn all(&self) -> bool {
        self.proposals.0 == self.proposals.1 && self.objects.0 == self.objects.1 && self.more == 0
    }
}

/// What [`compare`] found: largest differences of logits and maps, of masks, the largest logit, and the sets.
pub(super) struct Compared {
    pub difference: f32,
    pub masks: Option<f32>,
    pub largest: f32,
    pub same: bool,
    pub regions: Regions,
}

/// Whether a reference file is that of a detector of regions.
pub(super) fn is_one(file: &Weights) -> bool {
    file.has("class_logits") && file.has("proposals")
}

/// Gives a network the proposals of a reference, each with the index of its own that is nearest.
struct Given<'g> {
    theirs: &'g [Vec<f32>],
    found: usize,
    largest: f32,
    done: bool,
}

/// The largest absolute value; infinite where one is not a number, which a maximum would pass over.
fn worst(values: impl Iterator<Item = f32>) -> f32 {
    values.fold(0.0, |most: f32, v| if v.is_nan() { f32::INFINITY } else { most.max(v.abs()) })
}

/// The largest distance of a side.
fn apart(a: &[f32], b: &[f32]) -> f32 {
    worst(a.iter().zip(b).map(|(a, b)| a - b))
}

impl Tap for Given<'_> {
    fn frees(&mut self) -> bool {
        !std::mem::replace(&mut self.done, true)
    }

    fn proposals(&mut self, chosen: Tensor) -> Result<Tensor> {
        if self.done {
            return Ok(chosen);
        }
        let ours = chosen.get(0)?.to_vec2::<f32>()?;
        let mut rows = Vec::new();
        for region in self.theirs {
            let near = ours.iter().filter(|row| row[0] >= 0.0).map(|row| (apart(&row[1..], region), row[0]));
            let Some((distance, index)) = near.min_by(|a, b| a.0.total_cmp(&b.0)) else { continue };
            if distance <= PIXELS {
                self.found += 1;
                self.largest = self.largest.max(distance);
            }
            rows.push(index);
            rows.extend(region);
        }
        Ok(Tensor::from_vec(rows, (1, self.theirs.len(), 5), chosen.device())?)
    }
}

/// Compares the run of one picture `pixels` with what `file` says of it.
pub(super) fn compare(model: &Model, file: &Weights, pixels: &Tensor) -> Result<Compared> {
    let network = model.network();
    let rows = |name: &str, width: usize| -> Result<Vec<Vec<f32>>> {
        let shape = file.shape(name, 2)?;
        Ok(file.get(name, &[shape[0], width])?.to_vec2::<f32>()?)
    };
    let theirs = rows("proposals", 4)?;
    let mut given = Given { theirs: &theirs, found: 0, largest: 0.0, done: false };
    let trace = trace(network, pixels, &mut given)?;
    let (found, mut largest_box_difference) = (given.found, given.largest);
    let output = &trace.output;
    let logits = file.get("class_logits", &[theirs.len(), output.logits.dim(2)?])?;
    let ours = output.logits.get(0)?;
    let mut difference = largest(&(&ours - &logits)?)?;
    let top = |logits: &Tensor| logits.argmax(1)?.to_vec1::<u32>();
    let same = top(&ours)? == top(&logits)?;

    // The maps of the pyramid stand one behind another in the stream before the first stage.
    if let Some(maps) = network.branch().and_then(|branch| trace.boundaries.get(branch)) {
        let mut start = 0;
        for level in 0.. {
            let name = format!("fpn{level}");
            if !file.has(&name) {
                break;
            }
            let shape = file.shape(&name, 4)?;
            let map = file.get(&name, &shape)?.flatten_from(2)?.transpose(1, 2)?;
            let cells = shape[2] * shape[3];
            difference = difference.max(largest(&(maps.narrow(1, start, cells)? - map)?)?);
            start += cells;
        }
    }

    let (mut objects, mut more, mut largest_score_difference, mut masks) = ((0, 0), 0, 0.0_f32, None);
    let own = output.free.as_ref().and_then(|own| own.objects.as_ref());
    if let (Some(objects_of_ours), true) = (own, file.has("boxes")) {
        let (height, width) = model.config.image_size();
        let ours = objects_of_ours.rows.get(0)?.to_vec2::<f32>()?;
        let corners = |row: &[f32]| {
            let ([x, y], [w, h]) = ([row[2] * width as f32, row[3] * height as f32], [row[4] * width as f32, row[5] * height as f32]);
            [x - w / 2.0, y - h / 2.0, x + w / 2.0, y + h / 2.0]
        };
        let theirs = rows("boxes", 4)?;
        let list = |name: &str| -> Result<Vec<f32>> { Ok(file.get(name, &[theirs.len()])?.to_vec1()?) };
        let (labels, scores) = (list("labels")?, list("scores")?);
        let of_masks = match (&objects_of_ours.masks, file.has("masks28")) {
            (Some(ours), true) => {
                let shape = file.shape("masks28", 3)?;
                Some((ours.get(0)?.flatten_from(1)?.to_vec2::<f32>()?, file.get("masks28", &shape)?.flatten_from(1)?.to_vec2::<f32>()?))
            }
            _ => None,
        };
        let mut free: Vec<bool> = ours.iter().map(|row| row[1] > 0.0).collect();
        for (at, (region, (label, score))) in theirs.iter().zip(labels.iter().zip(&scores)).enumerate() {
            let of_class = ours.iter().enumerate().filter(|(at, row)| free[*at] && (row[0] - label).abs() < 0.5);
            let near = of_class.map(|(index, row)| (apart(&corners(row), region), index));
            objects.0 += 1;
            let Some((distance, index)) = near.min_by(|a, b| a.0.total_cmp(&b.0)).filter(|(distance, _)| *distance <= PIXELS) else {
                continue;
            };
            objects.1 += 1;
            free[index] = false;
            largest_box_difference = largest_box_difference.max(distance);
            largest_score_difference = largest_score_difference.max((ours[index][1] - score).abs());
            if let Some((ours, theirs)) = of_masks.as_ref().and_then(|(ours, theirs)| Some((&ours[index], theirs.get(at)?))) {
                let apart = worst(ours.iter().zip(theirs).map(|(ours, theirs)| ours + 0.5 - theirs));
                masks = Some(masks.unwrap_or(0.0_f32).max(apart));
            }
        }
        more = free.iter().filter(|free| **free).count();
    }
    let regions = Regions { proposals: (theirs.len(), found), objects, more, largest_box_difference, largest_score_difference };
    Ok(Compared { difference: difference.max(largest_score_difference), masks, largest: largest(&logits)?, same, regions })
}

/// The largest absolute value; infinite where one is not a number.
fn largest(tensor: &Tensor) -> Result<f32> {
    Ok(worst(tensor.flatten_all()?.to_vec1::<f32>()?.into_iter()))
}
