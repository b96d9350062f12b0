//! The views: one file each, and one row each in this table.

mod attention;
mod budget;
mod compare;
mod distribution;
mod groups;
mod learn;
mod lens;
mod overview;
pub mod spec;

use std::str::FromStr;

use self::spec::ViewSpec;
use super::app::App;
use super::choice::View;
use crate::engine::DetailRequest;
use crate::error::{Error, Result};

/// All views, in the order of their keys.
pub const VIEWS: &[ViewSpec] =
    &[overview::SPEC, groups::SPEC, attention::SPEC, distribution::SPEC, budget::SPEC, compare::SPEC, learn::SPEC, lens::SPEC];

impl View {
    /// All views, in the order of their keys.
    pub fn all() -> impl ExactSizeIterator<Item = Self> {
        (0..VIEWS.len()).map(Self)
    }

    /// Its row of the table.
    #[must_use]
    pub const fn spec(self) -> &'static ViewSpec {
        &VIEWS[self.0]
    }

    /// The name used in flags.
    #[must_use]
    pub const fn name(self) -> &'static str {
        self.spec().name
    }

    /// Its name on the screen.
    #[must_use]
    pub const fn title(self) -> &'static str {
        self.spec().title
    }

    /// The next or previous view, around the ends.
    #[must_use]
    pub const fn step(self, forward: bool) -> Self {
        Self((self.0 + if forward { 1 } else { VIEWS.len() - 1 }) % VIEWS.len())
    }
}

impl FromStr for View {
    type Err = Error;
    fn from_str(s: &str) -> Result<Self> {
        let names = || Self::all().map(Self::name).collect::<Vec<_>>().join(", ");
        Self::all().find(|view| view.name() == s).ok_or_else(|| Error::setting("view", s, format!("one of {}", names())))
    }
}

/// Details that the present view needs and that nobody has asked for.
#[must_use]
pub fn wanted_detail(app: &App) -> Option<DetailRequest> {
    let wanted = DetailRequest { id: app.snapshot.as_ref()?.id, site: (app.view.spec().detail)(app)? };
    let there = app.detail.as_ref().is_some_and(|d| (d.id, d.site) == (wanted.id, wanted.site));
    (!there && app.asked_detail != Some(wanted)).then_some(wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_of_a_view_has_its_row_and_every_row_its_file() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/tui/view");
        let mut files: Vec<String> = std::fs::read_dir(folder)
            .unwrap()
            .map(|file| file.unwrap().path().file_stem().unwrap().to_str().unwrap().to_string())
            .filter(|name| !["mod", "spec"].contains(&name.as_str()))
            .collect();
        let mut rows: Vec<&str> = View::all().map(View::name).collect();
        files.sort_unstable();
        rows.sort_unstable();
        assert_eq!(files, rows);
    }

    #[test]
    fn every_row_is_whole() {
        for view in VIEWS {
            assert_eq!(view.name, view.title.to_lowercase());
            assert!(!view.help.is_empty() && view.help.iter().all(|line| line.chars().count() <= 77), "{}", view.name);
            assert!(view.key.is_ascii_digit());
        }
    }
}
