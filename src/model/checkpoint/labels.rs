//! Class names: from a checkpoint's configuration, from a file, or those of ImageNet-1k where a model has its 1,000 classes.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::Value;

use crate::error::{Error, Result as IgqResult};
use crate::model::checkpoint::config::lookup;
use crate::read;

static IMAGENET: &str = include_str!("../../../assets/imagenet-classes.txt");

/// Class names from `label_names` (timm, ours) or `id2label` (transformers, a map or a list); none unless they are those of a head with so
/// many classes. Classes between the named ones get their number. The second value says what is wrong with names that are not taken.
#[must_use]
pub fn of_config(config: Option<&Value>, classes: usize) -> (Option<Vec<String>>, Option<String>) {
    let (mut found, mut note) = (None, None);
    for key in ["label_names", "id2label"] {
        let Some(value) = lookup(config, key).filter(|_| found.is_none()) else { continue };
        match listed(value, classes) {
            // transformers numbers classes that nobody named: `LABEL_0`.
            Ok(names) if !names.iter().all(|name| name.starts_with("LABEL_") || name.starts_with("class ")) => found = Some(names),
            Ok(_) => {}
            Err(count) => {
                note = Some(format!(
                    "{key} of config.json has {count} names and the head {classes} classes: they belong to another head and are not used"
                ));
            }
        }
    }
    (found, note)
}

/// The names of a list or of a map from numbers, for every class; how many there are where they are not for so many classes.
fn listed(value: &Value, classes: usize) -> Result<Vec<String>, usize> {
    let text = |value: &Value| value.as_str().map(str::to_string);
    if let Some(list) = value.as_array() {
        let names: Vec<String> = list.iter().filter_map(text).collect();
        return if names.len() == classes && list.len() == classes { Ok(names) } else { Err(list.len()) };
    }
    let Some(map) = value.as_object() else { return Err(0) };
    let numbered: Vec<(usize, String)> = map.iter().filter_map(|(key, value)| Some((key.parse().ok()?, text(value)?))).collect();
    // Gaps are what COCO has; a number beyond the head, or a last one far before its end, is another head's.
    let last = numbered.iter().map(|(class, _)| *class).max();
    let different = numbered.iter().map(|(class, _)| class).collect::<BTreeSet<_>>().len();
    if numbered.len() != map.len() || different != map.len() || last.is_none_or(|last| last >= classes) || numbered.len() * 2 < classes {
        return Err(map.len());
    }
    let mut names: Vec<String> = (0..classes).map(|class| format!("class {class}")).collect();
    for (class, name) in numbered {
        names[class] = name;
    }
    Ok(names)
}

/// The classes of COCO in the order of their numbers there, without the gaps.
const COCO: &str = "person, bicycle, car, motorcycle, airplane, bus, train, truck, boat, traffic light, fire hydrant, stop sign, parking meter, bench, bird, cat, dog, horse, sheep, cow, elephant, bear, zebra, giraffe, backpack, umbrella, handbag, tie, suitcase, frisbee, skis, snowboard, sports ball, kite, baseball bat, baseball glove, skateboard, surfboard, tennis racket, bottle, wine glass, cup, fork, knife, spoon, bowl, banana, apple, sandwich, orange, broccoli, carrot, hot dog, pizza, donut, cake, chair, couch, potted plant, bed, dining table, toilet, tv, laptop, mouse, remote, keyboard, cell phone, microwave, oven, toaster, sink, refrigerator, book, clock, vase, scissors, teddy bear, hair drier, toothbrush";

/// The names of COCO, for a detector that has so many classes and no names of its own.
#[must_use]
pub fn of_coco(classes: usize) -> Option<Vec<String>> {
    let names: Vec<String> = COCO.split(", ").map(str::to_string).collect();
    (names.len() == classes).then_some(names)
}

/// The names of ImageNet-1k, for a photograph model that has so many classes and no names of its own.
#[must_use]
pub fn of_imagenet(in_chans: usize, classes: usize) -> Option<Vec<String>> {
    (in_chans == 3 && classes == IMAGENET.lines().count()).then(|| IMAGENET.lines().map(str::to_string).collect())
}

/// Class names from a text file, one a line, or from a JSON file with a list or a map from numbers.
///
/// # Errors
/// When it cannot be read, or has not one name for every class.
pub fn of_file(path: &Path, classes: usize) -> IgqResult<Vec<String>> {
    let text = read::text(path)?;
    if path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("json")) {
        let refuse = |problem: String| {
            Error::content(path.display().to_string(), problem, "give a list of names, or a map from class numbers to names")
        };
        let value: Value = serde_json::from_str(&text).map_err(|e| refuse(format!("not valid JSON ({e})")))?;
        return listed(&value, classes).map_err(|count| refuse(format!("expected names for {classes} classes, found {count}")));
    }
    let names: Vec<String> = text.trim_end().lines().map(|line| line.trim().to_string()).collect();
    let refuse = |found: String| {
        let problem = format!("expected {classes} class names, one a line, found {found}");
        Err(Error::content(path.display().to_string(), problem, "give every class of the model a line, in their order"))
    };
    match names.iter().position(String::is_empty) {
        _ if names.len() != classes => refuse(names.len().to_string()),
        Some(line) => refuse(format!("line {} empty", line + 1)),
        None => Ok(names),
    }
}
