//! Lessons: chapters as data, one file each, whose captions and formulas are filled with the numbers of the run that is shown. A step says in
//! commands of the palette what it needs; a question is answered by a run.

use std::path::Path;
use std::sync::{Arc, LazyLock};

use serde::Deserialize;

use super::choice::View;
use crate::error::{Error, Result};
use crate::read;

/// Numbers that a question may watch: KL, local SQNR of the selected site, bit operations.
pub const WATCHED: [&str; 3] = ["kl", "sqnr", "bops"];

/// A chapter.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Chapter {
    /// What it is about.
    pub title: String,
    /// Its steps.
    pub step: Vec<Step>,
    /// The question at its end.
    pub question: Option<Question>,
}

/// A step: what is said beside a view of the present model and picture.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// Commands of the palette that bring about what is spoken of.
    #[serde(default, rename = "do")]
    pub commands: Vec<String>,
    /// The view that is drawn beneath.
    pub panel: String,
    /// What is said, in at most three lines; `{name}` stands for a fact.
    pub caption: String,
    /// The formula with the numbers of this run.
    #[serde(default)]
    pub formula: String,
}

/// Predict, then reveal: what a change does to a number.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Question {
    /// What is asked: whether a number rises, falls or stays.
    pub ask: String,
    /// The change.
    #[serde(rename = "do")]
    pub commands: Vec<String>,
    /// The number: `kl`, `sqnr` or `bops`.
    pub watch: String,
    /// The view that is drawn beneath.
    pub panel: String,
    /// Why it is so.
    pub reveal: String,
}

const FILES: [&str; 8] = [
    include_str!("../../assets/lessons/1-from-patches-to-a-prediction.toml"),
    include_str!("../../assets/lessons/2-a-uniform-quantizer.toml"),
    include_str!("../../assets/lessons/3-why-one-range-a-layer-fails.toml"),
    include_str!("../../assets/lessons/4-ranges-change-from-image-to-image.toml"),
    include_str!("../../assets/lessons/5-groups-for-this-image.toml"),
    include_str!("../../assets/lessons/6-rows-of-the-softmax.toml"),
    include_str!("../../assets/lessons/7-what-groups-cost.toml"),
    include_str!("../../assets/lessons/8-where-the-accuracy-went.toml"),
];

static BUILT_IN: LazyLock<Arc<Vec<Chapter>>> =
    LazyLock::new(|| Arc::new(FILES.iter().filter_map(|text| chapter("built-in lesson", text).ok()).collect()));

/// The chapters that igq brings.
#[must_use]
pub fn built_in() -> Arc<Vec<Chapter>> {
    Arc::clone(&BUILT_IN)
}

/// A chapter from a file's text.
fn chapter(name: &str, text: &str) -> Result<Chapter> {
    let broken = |problem: String| Error::content(name, problem, "look at igq's own under assets/lessons");
    let chapter: Chapter = toml::from_str(text).map_err(|e| broken(e.to_string()))?;
    let panels = chapter.step.iter().map(|s| &s.panel).chain(chapter.question.iter().map(|q| &q.panel));
    for panel in panels {
        panel.parse::<View>().map_err(|e| broken(e.to_string()))?;
    }
    if chapter.step.is_empty() {
        return Err(broken("expected at least one [[step]], found none".into()));
    }
    if let Some(question) = chapter.question.as_ref().filter(|q| !WATCHED.contains(&q.watch.as_str())) {
        return Err(broken(format!("expected `watch` to be one of {}, found `{}`", WATCHED.join(", "), question.watch)));
    }
    Ok(chapter)
}

/// The chapters of a folder, in the order of their file names.
///
/// # Errors
/// When there are none, or one cannot be read.
pub fn of_folder(folder: &Path) -> Result<Arc<Vec<Chapter>>> {
    let entries = std::fs::read_dir(folder).map_err(Error::io("read", folder))?;
    let mut files: Vec<_> =
        entries.filter_map(|entry| entry.ok().map(|e| e.path())).filter(|p| p.extension().is_some_and(|e| e == "toml")).collect();
    files.sort();
    if files.is_empty() {
        let name = folder.display().to_string();
        return Err(Error::content(name, "expected lessons (*.toml), found none", "look at igq's own under assets/lessons"));
    }
    files.iter().map(|file| chapter(&file.display().to_string(), &read::text(file)?)).collect::<Result<Vec<_>>>().map(Arc::new)
}

/// What one guesses of a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Guess {
    /// It gets larger.
    Rise,
    /// It gets smaller.
    Fall,
    /// It stays within 2 %.
    Stay,
}

impl Guess {
    /// All of them, as they stand beside each other.
    pub const ALL: [Self; 3] = [Self::Rise, Self::Fall, Self::Stay];

    /// What became of a number.
    #[must_use]
    pub fn of(before: f64, after: f64) -> Self {
        match after - before {
            change if change.abs() <= 0.02 * before.abs() => Self::Stay,
            change if change > 0.0 => Self::Rise,
            _ => Self::Fall,
        }
    }

    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Rise => "rise",
            Self::Fall => "fall",
            Self::Stay => "stay",
        }
    }
}

/// Where one is in the lessons.
#[derive(Debug, Clone, PartialEq)]
pub struct Place {
    /// The chapter.
    pub chapter: usize,
    /// Its step; behind the last one the question, and behind that its answer.
    pub at: usize,
    /// What is guessed.
    pub guess: Guess,
    /// The number before the change, once it was made.
    pub before: Option<f64>,
}

impl Place {
    /// The start of a chapter.
    #[must_use]
    pub const fn start(chapter: usize) -> Self {
        Self { chapter, at: 0, guess: Guess::Rise, before: None }
    }
}

/// What is shown at a place.
#[derive(Debug, Clone, Copy)]
pub enum Shown<'l> {
    /// A step.
    Step(&'l Step),
    /// A question, not answered yet.
    Question(&'l Question),
    /// Its answer.
    Answer(&'l Question),
}

impl Shown<'_> {
    /// The view beneath.
    #[must_use]
    pub fn panel(&self) -> View {
        let (Shown::Step(Step { panel, .. }) | Shown::Question(Question { panel, .. }) | Shown::Answer(Question { panel, .. })) = self;
        panel.parse().unwrap_or_default()
    }
}

impl Chapter {
    /// Places in it: its steps, its question and the answer.
    #[must_use]
    pub fn places(&self) -> usize {
        self.step.len() + if self.question.is_some() { 2 } else { 0 }
    }

    /// What is shown at a place of it.
    #[must_use]
    pub fn shown(&self, at: usize) -> Option<Shown<'_>> {
        let question = self.question.as_ref();
        match at.checked_sub(self.step.len()) {
            None => self.step.get(at).map(Shown::Step),
            Some(0) => question.map(Shown::Question),
            Some(_) => question.map(Shown::Answer),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_lesson_can_be_read_and_has_a_question() {
        assert_eq!(built_in().len(), FILES.len());
        assert!(built_in().iter().all(|chapter| chapter.question.is_some()));
    }

    #[test]
    fn what_became_of_a_number() {
        assert_eq!([Guess::of(1.0, 2.0), Guess::of(1.0, 0.5), Guess::of(1.0, 1.01)], Guess::ALL);
    }

    #[test]
    fn a_broken_lesson_is_refused_by_what_is_wrong() {
        for (text, part) in [
            ("title = 1", "title"),
            ("title = 'a'\nstep = []", "step"),
            ("title = 'a'\n[[step]]\npanel = 'x'\ncaption = ''", "view"),
            ("title = 'a'\n[[step]]\npanel = 'groups'\ncaption = ''\nmore = 1", "more"),
            (
                "title = 'a'\n[[step]]\npanel = 'groups'\ncaption = ''\n[question]\nask=''\ndo=[]\nwatch='x'\npanel='groups'\nreveal=''",
                "watch",
            ),
        ] {
            let problem = chapter("a.toml", text).unwrap_err().to_string();
            assert!(problem.contains(part), "{problem}");
        }
    }
}
