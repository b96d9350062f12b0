//! Sets of pictures: the built-in ones, a file, a folder. A set knows where its pictures are and loads one at a time.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::builtin;
use super::classes::{self, Named};
use super::picture::Picture;
use crate::error::{Error, Result};
use crate::read;

/// How the files of a picture begin: PNG, JPEG, GIF, BMP; WebP is a RIFF with its name behind the length.
const MAGIC: [&[u8]; 4] = [b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"BM"];

/// Files that do not count, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LeftOut {
    /// Why.
    pub reason: String,
    /// How many.
    pub count: usize,
    /// One of them.
    pub example: String,
}

impl LeftOut {
    /// Counts one more file for `reason`.
    pub fn count(all: &mut Vec<Self>, reason: impl Into<String>, example: impl Into<String>) {
        let reason = reason.into();
        match all.iter_mut().find(|entry| entry.reason == reason) {
            Some(entry) => entry.count += 1,
            None => all.push(Self { reason, count: 1, example: example.into() }),
        }
    }
}

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
    /// Files of its folders that do not count.
    pub left_out: Vec<LeftOut>,
    /// Whether a damaged picture ends an evaluation instead of being left out.
    pub strict: bool,
}

impl PictureSet {
    /// The 1,000 labelled Fashion-MNIST test pictures.
    #[must_use]
    pub fn fashion_test() -> Self {
        let pictures = (0..builtin::TEST_PICTURES).map(PictureSource::FashionTest).collect();
        Self { name: "built-in Fashion-MNIST test pictures".into(), pictures, left_out: Vec::new(), strict: true }
    }

    /// The 32 Fashion-MNIST training pictures.
    #[must_use]
    pub fn fashion_calibration() -> Self {
        let pictures = (0..32).map(PictureSource::FashionCalibration).collect();
        Self { name: "32 built-in Fashion-MNIST training pictures".into(), pictures, left_out: Vec::new(), strict: true }
    }

    /// The built-in photographs.
    #[must_use]
    pub fn photographs() -> Self {
        let pictures = (0..builtin::PHOTOGRAPH_COUNT).map(PictureSource::Photograph).collect();
        Self { name: "built-in photographs".into(), pictures, left_out: Vec::new(), strict: true }
    }

    /// Files, folders (their pictures, sorted by name), patterns such as `*.jpg` (what they match, sorted) and `-` for standard input, in
    /// the order given.
    ///
    /// # Errors
    /// When a path does not exist, a folder holds no pictures, or a pattern matches none.
    pub fn from_paths(paths: &[PathBuf]) -> Result<Self> {
        let (mut pictures, mut left_out) = (Vec::new(), Vec::new());
        for path in paths {
            let pattern = path.to_str().filter(|text| text.contains(['*', '?', '[']) && !path.exists());
            if path.is_dir() || pattern.is_some() {
                let files = pattern.map_or_else(|| pictures_in(path, &mut left_out), matches)?;
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
        Ok(Self { name, pictures, left_out, strict: false })
    }

    /// A folder to evaluate on: one folder a class, named by its label, class number or synset id, pictures at any depth below it; or
    /// pictures with a `labels.csv` that names `file` and `class` (a number) or `label`; or pictures without labels. Hidden files and
    /// folders do not count, nor does what is no picture by its content: [`Self::left_out`].
    ///
    /// # Errors
    /// When there are no pictures, or a folder's name or an entry of `labels.csv` is no class of the model, or that of several.
    pub fn labelled(folder: &Path, labels: &[String], classes: usize) -> Result<Self> {
        let name = folder.display().to_string();
        let list = folder.join("labels.csv");
        if list.is_file() {
            let mut left_out = Vec::new();
            let pictures = listed(folder, &list, &|name| classes::named(name, labels, classes), &mut left_out)?;
            return Ok(Self { name, pictures, left_out, strict: false });
        }
        let (mut pictures, mut left_out) = (Vec::new(), Vec::new());
        let mut inside = entries(folder)?;
        inside.sort();
        for class_folder in inside.iter().filter(|path| path.is_dir()) {
            let called = class_folder.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
            if is_hidden(class_folder) {
                LeftOut::count(&mut left_out, "hidden folder", class_folder.display().to_string());
                continue;
            }
            let files = pictures_in(class_folder, &mut left_out)?;
            if files.is_empty() {
                continue;
            }
            let refuse = |problem: String, advice: &str| Err(Error::content(class_folder.display().to_string(), problem, advice));
            let class = match classes::named(&called, labels, classes) {
                Named::Class(class) => class,
                Named::Several(all) => {
                    let problem = format!("`{called}` is the name of classes {}", list_of(&all));
                    return refuse(problem, "name the folder by the number of the class");
                }
                Named::Nothing => {
                    let problem = format!("expected a folder named by one of the model's {classes} classes, found `{called}`");
                    return refuse(problem, "rename it to the label or the class number");
                }
            };
            pictures.extend(files.into_iter().map(|file| PictureSource::File(file, Some(class))));
        }
        if pictures.is_empty() {
            return Self::from_paths(&[folder.to_path_buf()]);
        }
        for file in inside.iter().filter(|path| path.is_file() && is_picture(path)) {
            LeftOut::count(&mut left_out, "picture beside the class folders", file.display().to_string());
        }
        Ok(Self { name, pictures, left_out, strict: false })
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

/// The pictures that a `labels.csv` names, in its order, each once; those of the folder that it does not name are left out.
fn listed(folder: &Path, list: &Path, class_of: &dyn Fn(&str) -> Named, left_out: &mut Vec<LeftOut>) -> Result<Vec<PictureSource>> {
    let name = list.display().to_string();
    let broken = |problem: String| Error::content(&name, problem, "give it the columns file and class (or label), or take it away");
    let text = read::text(list)?;
    let mut reader = csv::Reader::from_reader(text.as_bytes());
    let header = reader.headers().map_err(|e| broken(e.to_string()))?.clone();
    let columns = |title: &str| {
        let found = header.iter().enumerate().filter(|(_, h)| h.trim().eq_ignore_ascii_case(title));
        found.map(|(column, _)| column).collect::<Vec<_>>()
    };
    let classes = [columns("class"), columns("label")].concat();
    let files = columns("file");
    let ([file], false) = (files.as_slice(), classes.is_empty()) else {
        return Err(broken(format!("expected the columns file and class or label, found {:?}", header.iter().collect::<Vec<_>>())));
    };
    let mut seen: BTreeMap<PathBuf, (usize, usize)> = BTreeMap::new();
    let mut pictures = Vec::new();
    for (line, record) in reader.records().enumerate() {
        let (line, record) = (line + 2, record.map_err(|e| broken(e.to_string()))?);
        // Each column narrows the class down: a name that several classes have is told by the number beside it.
        let mut possible: Option<Vec<usize>> = None;
        for column in &classes {
            let class = record.get(*column).unwrap_or_default().trim();
            let here = match class_of(class) {
                Named::Class(class) => vec![class],
                Named::Several(all) => all,
                Named::Nothing => return Err(broken(format!("line {line}: expected a class of the model, found `{class}`"))),
            };
            let before = possible.take().unwrap_or_else(|| here.clone());
            let both: Vec<usize> = before.iter().copied().filter(|class| here.contains(class)).collect();
            if both.is_empty() {
                let problem = format!("line {line}: expected one class, found {} and {}", list_of(&before), list_of(&here));
                return Err(broken(problem));
            }
            possible = Some(both);
        }
        let possible = possible.unwrap_or_default();
        let [label] = possible[..] else {
            return Err(broken(format!("line {line}: the name is that of classes {}", list_of(&possible))));
        };
        let file = record.get(*file).unwrap_or_default().trim();
        let path = folder.join(file);
        let real = fs::canonicalize(&path).map_err(Error::io("read", &path))?;
        match seen.insert(real, (line, label)) {
            None => pictures.push(PictureSource::File(path, Some(label))),
            Some((_, other)) if other == label => LeftOut::count(left_out, "named twice in labels.csv", path.display().to_string()),
            Some((before, other)) => {
                return Err(broken(format!("line {line}: `{file}` has class {label}, in line {before} it has {other}")));
            }
        }
    }
    if pictures.is_empty() {
        return Err(broken("expected pictures, found only a header".into()));
    }
    for file in pictures_in(folder, &mut Vec::new())? {
        if !fs::canonicalize(&file).is_ok_and(|real| seen.contains_key(&real)) {
            LeftOut::count(left_out, "not in labels.csv", file.display().to_string());
        }
    }
    Ok(pictures)
}

/// `134 and 517`
fn list_of(classes: &[usize]) -> String {
    classes.iter().map(ToString::to_string).collect::<Vec<_>>().join(" and ")
}

fn no_pictures(folder: &Path) -> Error {
    let problem = "expected pictures (PNG, JPEG, WebP, GIF, BMP), found none";
    Error::content(folder.display().to_string(), problem, "name a folder that holds some")
}

fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    let read = fs::read_dir(folder).map_err(Error::io("read", folder))?;
    Ok(read.filter_map(|entry| entry.ok().map(|e| e.path())).collect())
}

/// What begins with a dot: resource forks of a Mac, folders of editors.
fn is_hidden(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'))
}

/// Whether the content of a regular file begins as a picture's does.
fn is_picture(path: &Path) -> bool {
    let mut start = [0_u8; 12];
    let read = |start: &mut [u8; 12]| -> std::io::Result<usize> { fs::File::open(path)?.read(start) };
    path.is_file()
        && read(&mut start)
            .is_ok_and(|n| MAGIC.iter().any(|m| start[..n].starts_with(m)) || (start.starts_with(b"RIFF") && start.ends_with(b"WEBP")))
}

/// The pictures that a pattern matches, sorted. What exists of its folders is taken literally, brackets included.
fn matches(pattern: &str) -> Result<Vec<PathBuf>> {
    let (mut literal, mut rest) = (PathBuf::new(), Vec::new());
    for part in Path::new(pattern) {
        if rest.is_empty() && literal.join(part).exists() {
            literal.push(part);
        } else {
            rest.push(part.to_string_lossy().into_owned());
        }
    }
    let rest = rest.join("/");
    let pattern = match literal.to_str() {
        Some("") | None => rest,
        Some(folder) => format!("{}/{rest}", glob::Pattern::escape(folder)),
    };
    let found = glob::glob(&pattern).map_err(|e| Error::setting("--image", &pattern, format!("a pattern such as holiday/*.jpg ({e})")))?;
    Ok(found.filter_map(std::result::Result::ok).filter(|path| is_picture(path)).collect())
}

/// The pictures of a folder and of all folders below it, sorted. A folder that several links lead to counts once,
/// one that a link in it leads up to not again.
fn pictures_in(folder: &Path, left_out: &mut Vec<LeftOut>) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    // Above it lie the pictures of other classes.
    let real = fs::canonicalize(folder).map_err(Error::io("read", folder))?;
    let mut seen = real.ancestors().skip(1).map(Path::to_path_buf).collect();
    collect(folder, &mut seen, &mut files, left_out)?;
    Ok(files)
}

/// Adds the pictures of a folder to `files`; `seen` are the folders that are there already, by their real paths.
fn collect(folder: &Path, seen: &mut BTreeSet<PathBuf>, files: &mut Vec<PathBuf>, left_out: &mut Vec<LeftOut>) -> Result<()> {
    if !seen.insert(fs::canonicalize(folder).map_err(Error::io("read", folder))?) {
        LeftOut::count(left_out, "folder that is there under another name", folder.display().to_string());
        return Ok(());
    }
    let mut inside = entries(folder)?;
    inside.sort();
    for path in inside {
        if is_hidden(&path) {
            LeftOut::count(left_out, if path.is_dir() { "hidden folder" } else { "hidden file" }, path.display().to_string());
        } else if path.is_dir() {
            collect(&path, seen, files, left_out)?;
        } else if is_picture(&path) {
            files.push(path);
        } else {
            LeftOut::count(left_out, "no picture by its content", path.display().to_string());
        }
    }
    Ok(())
}
