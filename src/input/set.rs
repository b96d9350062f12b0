//! Sets of pictures: the built-in ones, a file, a folder. A set knows where its pictures are and loads one at a time.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::builtin;
use super::picture::Picture;
use crate::error::{Error, Result};

/// Endings of the files that a folder contributes.
const ENDINGS: [&str; 6] = ["png", "jpg", "jpeg", "webp", "gif", "bmp"];

/// Where one picture is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PictureSource {
    /// Built-in Fashion-MNIST test picture.
    FashionTest(usize),
    /// Built-in Fashion-MNIST training picture.
    FashionCalibration(usize),
    /// Built-in photograph.
    Photograph(usize),
    /// A file, and its class where the set is labelled.
    File(PathBuf, Option<usize>),
    /// A picture that came once and cannot be read again: standard input.
    Held(Arc<Picture>),
}

impl PictureSource {
    /// Decodes the picture.
    ///
    /// # Errors
    /// When the file is missing or is not a picture.
    pub fn load(&self) -> Result<Picture> {
        match self {
            Self::FashionTest(index) => builtin::fashion_test(*index),
            Self::FashionCalibration(index) => builtin::fashion_calibration(*index),
            Self::Photograph(index) => builtin::photograph(*index),
            Self::Held(picture) => Ok(Picture::clone(picture)),
            Self::File(path, label) => Ok(Picture { label: *label, ..Picture::open(path)? }),
        }
    }
}

/// A row of pictures with a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PictureSet {
    /// What it is, for people.
    pub name: String,
    /// Its pictures, in order; never empty.
    pub pictures: Vec<PictureSource>,
}

impl PictureSet {
    /// The 1,000 labelled Fashion-MNIST test pictures.
    #[must_use]
    pub fn fashion_test() -> Self {
        let pictures = (0..builtin::TEST_PICTURES).map(PictureSource::FashionTest).collect();
        Self { name: "built-in Fashion-MNIST test pictures".into(), pictures }
    }

    /// The 32 Fashion-MNIST training pictures.
    #[must_use]
    pub fn fashion_calibration() -> Self {
        let pictures = (0..32).map(PictureSource::FashionCalibration).collect();
        Self { name: "32 built-in Fashion-MNIST training pictures".into(), pictures }
    }

    /// The built-in photographs.
    #[must_use]
    pub fn photographs() -> Self {
        let pictures = (0..builtin::PHOTOGRAPH_COUNT).map(PictureSource::Photograph).collect();
        Self { name: "built-in photographs".into(), pictures }
    }

    /// Files, folders (their pictures, sorted by name), patterns such as `*.jpg` (what they match, sorted) and `-` for standard input, in
    /// the order given.
    ///
    /// # Errors
    /// When a path does not exist, a folder holds no pictures, or a pattern matches none.
    pub fn from_paths(paths: &[PathBuf]) -> Result<Self> {
        let mut pictures = Vec::new();
        for path in paths {
            let pattern = path.to_str().filter(|text| text.contains(['*', '?', '[']) && !path.exists());
            if path.is_dir() || pattern.is_some() {
                let files = pattern.map_or_else(|| pictures_in(path), matches)?;
                if files.is_empty() {
                    return Err(no_pictures(path));
                }
                pictures.extend(files.into_iter().map(|file| PictureSource::File(file, None)));
            } else if path.as_os_str() == "-" {
                pictures.push(PictureSource::Held(Arc::new(Picture::from_stdin()?)));
            } else {
                fs::metadata(path).map_err(Error::io("read", path))?;
                pictures.push(PictureSource::File(path.clone(), None));
            }
        }
        let name = match paths {
            [one] => one.display().to_string(),
            many => format!("{} paths", many.len()),
        };
        Ok(Self { name, pictures })
    }

    /// A folder to evaluate on: one folder a class, named by its label or class number; or pictures with a `labels.csv` that names `file`
    /// and `class` (a number) or `label`; or pictures without labels.
    ///
    /// # Errors
    /// When there are no pictures, or a folder's name or an entry of `labels.csv` is no class of the model.
    pub fn labelled(folder: &Path, labels: &[String], classes: usize) -> Result<Self> {
        let class_of = |name: &str| {
            let same = |label: &String| label.eq_ignore_ascii_case(name) || label.replace(['/', ' '], "_").eq_ignore_ascii_case(name);
            labels.iter().position(same).or_else(|| name.parse().ok().filter(|class| *class < classes))
        };
        let list = folder.join("labels.csv");
        if list.is_file() {
            let pictures = listed(folder, &list, &|name| class_of(name))?;
            return Ok(Self { name: folder.display().to_string(), pictures });
        }
        let mut folders = folders_in(folder)?;
        folders.sort();
        let mut pictures = Vec::new();
        for class_folder in &folders {
            let name = class_folder.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
            let files = pictures_in(class_folder)?;
            if files.is_empty() {
                continue;
            }
            let class = class_of(&name).ok_or_else(|| {
                Error::content(
                    class_folder.display().to_string(),
                    format!("expected a folder named by one of the model's {classes} classes, found `{name}`"),
                    "rename it to the label or the class number",
                )
            })?;
            pictures.extend(files.into_iter().map(|file| PictureSource::File(file, Some(class))));
        }
        if pictures.is_empty() {
            return Self::from_paths(&[folder.to_path_buf()]);
        }
        Ok(Self { name: folder.display().to_string(), pictures })
    }

    /// Number of pictures.
    #[must_use]
    pub fn len(&self) -> usize {
        self.pictures.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.pictures.is_empty()
    }
}

/// The pictures that a `labels.csv` names, in its order.
fn listed(folder: &Path, list: &Path, class_of: &dyn Fn(&str) -> Option<usize>) -> Result<Vec<PictureSource>> {
    let name = list.display().to_string();
    let broken = |problem: String| Error::content(&name, problem, "give it the columns file and class (or label), or take it away");
    let mut reader = csv::Reader::from_path(list).map_err(|e| broken(e.to_string()))?;
    let header = reader.headers().map_err(|e| broken(e.to_string()))?.clone();
    let column = |title: &str| header.iter().position(|h| h.trim().eq_ignore_ascii_case(title));
    let (Some(file), Some(class)) = (column("file"), column("class").or(column("label"))) else {
        return Err(broken(format!("expected the columns file and class or label, found {:?}", header.iter().collect::<Vec<_>>())));
    };
    let mut pictures = Vec::new();
    for (line, record) in reader.records().enumerate() {
        let record = record.map_err(|e| broken(e.to_string()))?;
        let (file, class) = (record.get(file).unwrap_or_default().trim(), record.get(class).unwrap_or_default().trim());
        let label = class_of(class).ok_or_else(|| broken(format!("line {}: expected a class of the model, found `{class}`", line + 2)))?;
        let path = folder.join(file);
        fs::metadata(&path).map_err(Error::io("read", &path))?;
        pictures.push(PictureSource::File(path, Some(label)));
    }
    if pictures.is_empty() { Err(broken("expected pictures, found only a header".into())) } else { Ok(pictures) }
}

fn no_pictures(folder: &Path) -> Error {
    Error::content(
        folder.display().to_string(),
        format!("expected pictures ({}), found none", ENDINGS.join(", ")),
        "name a folder that holds some",
    )
}

fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    let read = fs::read_dir(folder).map_err(Error::io("read", folder))?;
    Ok(read.filter_map(|entry| entry.ok().map(|e| e.path())).collect())
}

fn folders_in(folder: &Path) -> Result<Vec<PathBuf>> {
    Ok(entries(folder)?.into_iter().filter(|path| path.is_dir()).collect())
}

fn is_picture(path: &Path) -> bool {
    let ending = path.extension().map(|e| e.to_string_lossy().to_lowercase()).unwrap_or_default();
    path.is_file() && ENDINGS.contains(&ending.as_str())
}

/// The pictures that a pattern matches, sorted.
fn matches(pattern: &str) -> Result<Vec<PathBuf>> {
    let found = glob::glob(pattern).map_err(|e| Error::setting("--image", pattern, format!("a pattern such as holiday/*.jpg ({e})")))?;
    Ok(found.filter_map(std::result::Result::ok).filter(|path| is_picture(path)).collect())
}

fn pictures_in(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files: Vec<PathBuf> = entries(folder)?.into_iter().filter(|path| is_picture(path)).collect();
    files.sort();
    Ok(files)
}
