//! How well a detector finds what is annotated, in float and quantized: COCO's average precision, by `hotcoco`. Without annotations the
//! objects of the float run are the truth, and the numbers say how far the quantized runs agree with it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use hotcoco::{Annotation, COCO, COCOeval, Category, CompareOpts, Dataset, Image, IouType, Segmentation, compare};
use rayon::prelude::*;
use schemars::JsonSchema;
use serde::Serialize;

use super::tally::{EvaluationRow, Seen, Tally};
use crate::analysis::objects::{Fate, Seen as Object};
use crate::analysis::{Prediction, SCHEMA_VERSION};
use crate::error::{Error, Result};
use crate::input::{LeftOut, PictureSource};
use crate::model::{Config, Output, SiteInfo};
use crate::progress::{Cancel, Progress};
use crate::quant::{Method, Plan, Settings, Start, run};
use crate::session::Session;

/// Below so many pictures an average precision is noise.
const FEW: usize = 30;
/// Detections of a picture that COCO looks at.
const MOST: usize = 100;
/// Draws of the bootstrap over pictures.
const DRAWS: usize = 1000;

/// COCO's numbers in percent; none where nothing of that size is annotated.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, JsonSchema)]
pub struct Accuracy {
    /// Average precision, mean over overlaps of 0.5 to 0.95.
    pub ap: Option<f64>,
    /// At an overlap of 0.5.
    pub ap50: Option<f64>,
    /// At an overlap of 0.75.
    pub ap75: Option<f64>,
    /// Of objects smaller than 32x32 pixels.
    pub ap_small: Option<f64>,
    /// Of objects up to 96x96 pixels.
    pub ap_medium: Option<f64>,
    /// Of larger ones.
    pub ap_large: Option<f64>,
    /// Average recall with 100 detections a picture.
    pub ar100: Option<f64>,
}

/// One setting.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct ObjectsRow {
    /// The setting, its KL, and the share of pictures whose objects stay.
    #[serde(flatten)]
    pub row: EvaluationRow,
    /// COCO's numbers.
    pub accuracy: Accuracy,
    /// Average precision less that of the float run, with its paired bootstrap 95 % interval over pictures; none of the float run.
    pub difference: Option<(f64, f64, f64)>,
    /// COCO's numbers of the masks, where the model makes masks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mask_accuracy: Option<Accuracy>,
    /// Their average precision less that of the float run, likewise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mask_difference: Option<(f64, f64, f64)>,
    /// What became of the objects of the float run over the threshold, and the new ones, by the names of their fates.
    pub fates: BTreeMap<&'static str, usize>,
}

/// Settings on annotated pictures.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct ObjectsEvaluation {
    /// Version of this form.
    pub schema_version: u32,
    /// The model.
    pub model: String,
    /// What the quantizers were fitted on.
    pub calibration: String,
    /// What counts as truth.
    pub truth: String,
    /// What to keep in mind.
    pub notes: Vec<String>,
    /// Pictures that were looked at.
    pub images: usize,
    /// Annotated objects (or the float run's).
    pub objects: usize,
    /// Pictures that could not be read.
    pub left_out: Vec<LeftOut>,
    /// Every setting, float first.
    pub rows: Vec<ObjectsRow>,
    /// Wall time in seconds.
    pub seconds: f64,
}

/// What is to be found: pictures with their numbers, and the category of every class.
pub struct Truth {
    dataset: Dataset,
    pictures: Vec<(u64, PictureSource)>,
    /// By class of the model; none where the file has no such category.
    categories: Vec<Option<u64>>,
    about: String,
    annotated: bool,
}

/// The categories of a file for the classes of a model: by name, of a model without names by number, which are COCO's in most detectors.
fn categories(file: &[Category], labels: &[String], classes: usize) -> (Vec<Option<u64>>, &'static str) {
    let plain = |text: &str| text.trim().to_lowercase();
    let named: Vec<Option<u64>> = (0..classes)
        .map(|class| labels.get(class).and_then(|label| file.iter().find(|c| plain(&c.name) == plain(label)).map(|c| c.id)))
        .collect();
    // A number says nothing of a model whose classes have other names.
    if !labels.is_empty() {
        return (named, "by name");
    }
    ((0..classes as u64).map(|class| file.iter().find(|c| c.id == class).map(|c| c.id)).collect(), "by number")
}

/// Reads annotations in COCO's format.
fn annotated(session: &Session, file: &Path, folder: Option<&Path>, limit: Option<usize>) -> Result<Truth> {
    let name = file.display().to_string();
    let broken = |problem: String| Error::content(name.clone(), problem, "give annotations in COCO's format (instances.json)");
    // What cannot be read is told by the file's own name.
    let text = crate::read::text(file)?;
    let mut dataset: Dataset = serde_json::from_str(&text).map_err(|e| broken(format!("not such annotations ({e})")))?;
    let model = &session.opened().model;
    let (categories, how) = categories(&dataset.categories, &model.labels, model.config.classes());
    // mmdet's classes have no gaps, as COCO's numbers have: a number says nothing.
    if let (Config::Rcnn(_), true) = (&model.config, model.labels.is_empty()) {
        let problem = "the classes of the model have no names, and numbers of mmdet's classes are not those of the file";
        return Err(Error::content(&model.name, problem, "give their names, one a line, with --labels"));
    }
    let matched = categories.iter().flatten().count();
    if matched == 0 {
        let theirs: Vec<&str> = dataset.categories.iter().take(5).map(|c| c.name.as_str()).collect();
        let ours: Vec<&str> = model.labels.iter().take(5).map(String::as_str).collect();
        let problem = format!(
            "none of its {} categories ({}) is a class of the model ({})",
            dataset.categories.len(),
            theirs.join(", "),
            ours.join(", ")
        );
        return Err(Error::content(name, problem, "name the classes with --labels FILE, or give the annotations of this model's classes"));
    }
    dataset.images.sort_by_key(|image| image.id);
    dataset.images.truncate(limit.unwrap_or(usize::MAX));
    let kept: std::collections::BTreeSet<u64> = dataset.images.iter().map(|image| image.id).collect();
    dataset.annotations.retain(|a| kept.contains(&a.image_id));
    let beside = file.parent().unwrap_or(Path::new("."));
    let places = |image: &Image| -> Vec<PathBuf> {
        let given = folder.map(|folder| folder.join(&image.file_name));
        given.map_or_else(|| vec![beside.join(&image.file_name), beside.join("images").join(&image.file_name)], |path| vec![path])
    };
    let source = |image: &Image| {
        let places = places(image);
        let found = places.iter().find(|path| path.is_file()).or(places.first());
        found.map(|path| (image.id, PictureSource::File(path.clone(), None)))
    };
    let pictures = dataset.images.iter().filter_map(source).collect();
    let about = format!("{name}: {matched} of {} categories matched {how}", dataset.categories.len());
    Ok(Truth { dataset, pictures, categories, about, annotated: true })
}

/// Objects of the float run as truth, on pictures without annotations.
fn unannotated(session: &Session, folder: Option<&Path>, limit: Option<usize>) -> Result<Truth> {
    let set = super::evaluate::data(session, folder, limit)?;
    let model = &session.opened().model;
    let classes = model.config.classes() as u64;
    let named = |class: u64| Category {
        id: class + 1,
        name: crate::analysis::prediction::class_name(&model.labels, class as usize),
        ..Category::default()
    };
    let dataset = Dataset { categories: (0..classes).map(named).collect(), ..Dataset::default() };
    let threshold = model.config.threshold();
    let about = format!("the float run's own objects over {threshold} on {}: agreement with float, not COCO AP", set.name);
    let pictures = (1..).zip(set.pictures).collect();
    Ok(Truth { dataset, pictures, categories: (1..=classes).map(Some).collect(), about, annotated: false })
}

/// A detection in pixels of the picture.
fn detection(image: u64, category: u64, object: &Object, scale: (f64, f64)) -> Annotation {
    let [left, top, right, bottom] = object.corners;
    let bbox = [left * scale.0, top * scale.1, (right - left) * scale.0, (bottom - top) * scale.1];
    let area = Some(bbox[2].max(0.0) * bbox[3].max(0.0));
    Annotation { image_id: image, category_id: category, bbox: Some(bbox), area, score: Some(object.score), ..Annotation::default() }
}

/// The mask of a detection in pixels of the picture, as a run-length code; none where the model makes no masks. `inside` is what of the input
/// is the picture, as shares.
fn masked(one: &Annotation, object: &Object, (width, height): (usize, usize), inside: (f64, f64)) -> Result<Option<Annotation>> {
    let Some(mask) = &object.mask else { return Ok(None) };
    let share = |at: usize, length: usize, inside: f64| (at as f64 + 0.5) / length as f64 * inside;
    // Column by column, as COCO has it.
    let columns = (0..width).into_par_iter();
    let pixels: Vec<u8> = columns
        .flat_map_iter(|x| (0..height).map(move |y| u8::from(mask.is_inside(share(x, width, inside.0), share(y, height, inside.1)))))
        .collect();
    let rle = hotcoco::mask::encode(&pixels, height as u32, width as u32).map_err(failed)?;
    let area = Some(hotcoco::mask::area(&rle) as f64);
    let segmentation = Segmentation::UncompressedRle { size: [rle.h, rle.w], counts: rle.counts };
    Ok(Some(Annotation { segmentation: Some(segmentation), area, ..one.clone() }))
}

impl Truth {
    /// Of an annotation file, or of what the float run will see on pictures without one; a folder of pictures, and how many of them.
    ///
    /// # Errors
    /// When the annotations cannot be read or are of other classes, or there are no pictures.
    pub fn of(session: &Session, annotations: Option<&Path>, folder: Option<&Path>, limit: Option<usize>) -> Result<Self> {
        annotations.map_or_else(|| unannotated(session, folder, limit), |file| annotated(session, file, folder, limit))
    }

    /// Rows and columns of the input that the first of the pictures needs, by the rule of the model's processor.
    ///
    /// # Errors
    /// When that picture cannot be read.
    pub fn input_size(&self, session: &Session) -> Result<Option<(usize, usize)>> {
        let Some((_, first)) = self.pictures.first() else { return Ok(None) };
        let raster = first.load()?.raster;
        Ok(session.opened().preprocess.input_for(raster.height, raster.width))
    }
}

/// Runs every setting, the first of which is the float run, on annotated pictures, or on pictures whose truth is what the float run sees.
///
/// # Errors
/// When no picture can be read, a setting does not fit, or `cancel` was called.
pub fn evaluate(
    session: &Session,
    truth: Truth,
    grid: &[Settings],
    cancel: &Cancel,
    progress: &dyn Fn(Progress),
) -> Result<ObjectsEvaluation> {
    let started = std::time::Instant::now();
    let opened = session.opened();
    let network = opened.model.network();
    let plan = |settings: &Settings| {
        let float = settings.method == Method::Float;
        if float { Ok(Plan::float(opened.model.sites())) } else { session.plan_until(settings, cancel) }
    };
    let plans = grid.iter().map(plan).collect::<Result<Vec<Plan>>>()?;
    let Truth { mut dataset, pictures, categories, about, annotated } = truth;
    let mut found: Vec<Vec<Annotation>> = vec![Vec::new(); grid.len()];
    let mut masks: Vec<Vec<Annotation>> = vec![Vec::new(); grid.len()];
    let mut tallies = vec![Tally::default(); grid.len()];
    let mut fates: Vec<BTreeMap<&'static str, usize>> = vec![BTreeMap::new(); grid.len()];
    let (mut left_out, mut images, mut smaller) = (Vec::new(), 0, 0);
    let total = pictures.len();
    for (id, source) in pictures {
        cancel.check()?;
        progress(Progress { stage: format!("{} settings", grid.len()), done: images, total });
        let prepared = source.load().and_then(|picture| Ok((opened.preprocess.apply(&picture)?, picture)));
        let (prepared, picture) = match prepared {
            Ok(both) => both,
            Err(error) => {
                LeftOut::count(&mut left_out, "cannot be read", error.to_string());
                dataset.images.retain(|image| image.id != id);
                dataset.annotations.retain(|a| a.image_id != id);
                continue;
            }
        };
        images += 1;
        let wanted = opened.preprocess.detector_size(picture.raster.height, picture.raster.width);
        smaller += usize::from(wanted.is_some_and(|wanted| wanted != prepared.inside));
        // From shares of the input to pixels of the picture.
        let of = |side: usize, inside: usize, length: usize| side as f64 / inside as f64 * length as f64;
        let (height, width) = opened.preprocess.size;
        let scale = (of(width, prepared.inside.1, picture.raster.width), of(height, prepared.inside.0, picture.raster.height));
        let (mut float, mut base_output): (Option<Prediction>, Option<Output>) = (None, None);
        for (index, plan) in plans.iter().enumerate() {
            let start = Start::pixels(&prepared.tensor);
            let start = match &base_output {
                Some(output) => start.pinned(output),
                None => start,
            };
            let output = run(network, start, plan, cancel)?;
            let said = Prediction::of_one(&output)?;
            base_output.get_or_insert(output);
            let seen = said.detections(&opened.model.labels);
            let shares = (prepared.inside.1 as f64 / width as f64, prepared.inside.0 as f64 / height as f64);
            for (rank, object) in seen.iter().enumerate() {
                let Some(category) = categories.get(object.class).copied().flatten() else { continue };
                let one = detection(id, category, object, scale);
                // More than COCO looks at take time and change nothing.
                if rank < MOST {
                    masks[index].extend(masked(&one, object, (picture.raster.width, picture.raster.height), shares)?);
                }
                found[index].push(one);
            }
            let base = float.get_or_insert_with(|| said.clone());
            tallies[index].add(Seen::of(base, &said, None));
            if let Some(objects) = said.objects(base, &opened.model.labels) {
                for fate in Fate::ALL {
                    *fates[index].entry(fate.name()).or_default() += objects.count(fate);
                }
            }
        }
        if !annotated {
            let own = if masks[0].is_empty() { &found[0] } else { &masks[0] };
            let shown = own.iter().filter(|a| a.image_id == id && a.score.is_some_and(|score| score >= opened.model.config.threshold()));
            let first = dataset.annotations.len() as u64 + 1;
            let own = (first..).zip(shown).map(|(at, a)| Annotation { id: at, score: None, ..a.clone() }).collect::<Vec<_>>();
            dataset.annotations.extend(own);
            let (width, height) = (picture.raster.width as u32, picture.raster.height as u32);
            dataset.images.push(Image { id, file_name: picture.name.clone(), width, height, ..Image::default() });
        }
    }
    if images == 0 {
        let why = left_out.first().map(|l: &LeftOut| l.example.clone()).unwrap_or_default();
        return Err(Error::content(about, format!("no picture could be read ({why})"), "name their folder with --data"));
    }
    let objects = dataset.annotations.len();
    let segmented = if masks.iter().all(Vec::is_empty) { Vec::new() } else { scored(dataset.clone(), masks, IouType::Segm)? };
    let evaluations = scored(dataset, found, IouType::Bbox)?;
    let mut rows = Vec::new();
    for (index, settings) in grid.iter().enumerate() {
        let row = Tally::row(&tallies[index..=index], settings, opened.model.sites() as &[SiteInfo]);
        let apart = if index == 0 { None } else { Some(difference(&evaluations[0], &evaluations[index])?) };
        let accuracy = accuracy_of(evaluations[index].stats().unwrap_or_default());
        let mask_accuracy = segmented.get(index).map(|one| accuracy_of(one.stats().unwrap_or_default()));
        let mask_difference = match segmented.get(index).filter(|_| index > 0) {
            Some(one) => Some(difference(&segmented[0], one)?),
            None => None,
        };
        rows.push(ObjectsRow {
            row,
            accuracy,
            difference: apart,
            mask_accuracy,
            mask_difference,
            fates: std::mem::take(&mut fates[index]),
        });
    }
    let mut notes = Vec::new();
    if images < FEW {
        notes.push(format!("{images} pictures: an average precision on fewer than {FEW} is noise"));
    }
    if smaller > 0 {
        let (height, width) = opened.preprocess.size;
        notes.push(format!(
            "{smaller} of {images} pictures are smaller than the model's rule has them, to fit into {width}x{height} (--input-size)"
        ));
    }
    Ok(ObjectsEvaluation {
        schema_version: SCHEMA_VERSION,
        model: opened.model.name.clone(),
        calibration: session.calibration_report().source.clone(),
        truth: about,
        notes,
        images,
        objects,
        left_out,
        rows,
        seconds: started.elapsed().as_secs_f64(),
    })
}

fn failed(e: hotcoco::Error) -> Error {
    Error::content("annotations", e.to_string(), "check ids, boxes and categories of the file")
}

/// COCO's evaluation of what every setting found.
fn scored(truth: Dataset, found: Vec<Vec<Annotation>>, by: IouType) -> Result<Vec<COCOeval>> {
    let truth = std::sync::Arc::new(COCO::from_dataset(truth));
    let one = |detections: Vec<Annotation>| {
        let detections = truth.load_res_anns(detections).map_err(failed)?;
        let mut evaluation = COCOeval::new(std::sync::Arc::clone(&truth), detections, by);
        evaluation.evaluate().map_err(failed)?;
        evaluation.accumulate();
        // As `run` does it, whose summary goes to standard output.
        evaluation.summarize_lines();
        Ok(evaluation)
    };
    found.into_iter().map(one).collect()
}

/// The numbers of an evaluation, in percent.
fn accuracy_of(stats: &[f64]) -> Accuracy {
    // The order of pycocotools: AP, AP50, AP75, APs, APm, APl, AR1, AR10, AR100, ARs, ARm, ARl; -1 where there is none.
    let at = |index: usize| stats.get(index).copied().filter(|value| *value >= 0.0).map(|value| value * 100.0);
    Accuracy { ap: at(0), ap50: at(1), ap75: at(2), ap_small: at(3), ap_medium: at(4), ap_large: at(5), ar100: at(8) }
}

/// Average precision less that of the float run in points, with the paired bootstrap interval over pictures.
fn difference(float: &COCOeval, quantized: &COCOeval) -> Result<(f64, f64, f64)> {
    let asked = CompareOpts { n_bootstrap: DRAWS, seed: 0, confidence: 0.95 };
    let found = compare(float, quantized, &asked).map_err(failed)?;
    let delta = found.deltas.get("AP").copied().unwrap_or(0.0);
    let (low, high) = found.ci.as_ref().and_then(|ci| ci.get("AP")).map_or((delta, delta), |ci| (ci.lower, ci.upper));
    Ok((100.0 * delta, 100.0 * low, 100.0 * high))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn category(id: u64, name: &str) -> Category {
        Category { id, name: name.into(), ..Category::default() }
    }

    #[test]
    fn categories_are_matched_by_name_whatever_their_case_and_else_by_number() {
        let file = [category(1, "Person"), category(3, "car"), category(90, "toothbrush")];
        let labels = ["N/A", "person", "bicycle", "Car"].map(String::from);
        assert_eq!(categories(&file, &labels, 4), (vec![None, Some(1), None, Some(3)], "by name"));
        let (by_number, how) = categories(&file, &[], 91);
        assert_eq!((by_number[1], by_number[2], by_number[3], by_number[90], how), (Some(1), None, Some(3), Some(90), "by number"));
    }

    /// The twelve numbers of pycocotools 2.0.11 for made-up detections (tests/detection/coco_numbers.py).
    #[test]
    fn the_numbers_are_those_of_pycocotools() {
        let text = include_str!("../../tests/detection/made_up.json");
        let made: serde_json::Value = serde_json::from_str(text).unwrap();
        let truth: Dataset = serde_json::from_value(made["truth"].clone()).unwrap();
        let found: Vec<Annotation> = serde_json::from_value(made["found"].clone()).unwrap();
        let expected: Vec<f64> = serde_json::from_value(made["stats"].clone()).unwrap();
        // Truth against itself is found in full.
        let own = truth.annotations.iter().map(|a| Annotation { score: Some(1.0), ..a.clone() }).collect();
        let evaluations = scored(truth, vec![found, own], IouType::Bbox).unwrap();
        let stats = evaluations[0].stats().unwrap();
        assert_eq!(stats.len(), 12);
        assert!(stats.iter().zip(&expected).all(|(ours, theirs)| (ours - theirs).abs() < 1e-9), "{stats:?} {expected:?}");
        assert!((accuracy_of(evaluations[1].stats().unwrap()).ap.unwrap() - 100.0).abs() < 1e-9);
        let (delta, low, high) = difference(&evaluations[1], &evaluations[0]).unwrap();
        assert!(delta < 0.0 && low <= delta && delta <= high);
    }
}
