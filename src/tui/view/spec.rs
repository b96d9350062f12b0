//! What a view is: one row of the table in `view`, and what several views need for theirs.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

use crate::engine::Study;
use crate::model::Site;
use crate::tui::app::App;
use crate::tui::hit::{Hit, Hits, Walk};
use crate::tui::keys::Binding;
use crate::tui::widget::put;

/// Everything that the rest of the screen knows of a view. All of it reads the state; nothing changes it.
pub struct ViewSpec {
    /// Its name in flags; its file has this name too.
    pub name: &'static str,
    /// Its name on the screen.
    pub title: &'static str,
    /// The key that opens it.
    pub key: char,
    /// What is seen, in lines that 80 columns have room for.
    pub help: &'static [&'static str],
    /// Keys that only this view knows.
    pub keys: &'static [Binding],
    /// Draws it and returns what a click can land on.
    pub draw: fn(&App, Rect, &mut Buffer) -> Hits,
    /// What the keys for up and down walk over.
    pub rows: fn(&App) -> Walk,
    /// What the keys for left and right, PgUp, PgDn, Home and End walk over; the last four walk over the rows where it is absent.
    pub cursor: Option<fn(&App) -> Walk>,
    /// The study that it needs by itself.
    pub study: fn(&App) -> Option<Study>,
    /// The site whose details it shows.
    pub detail: fn(&App) -> Option<Site>,
    /// What it shows as comma-separated values, for an export.
    pub csv: fn(&App) -> Option<String>,
}

/// A view that needs no study.
#[must_use]
pub const fn no_study(_: &App) -> Option<Study> {
    None
}

/// A view that shows no details.
#[must_use]
pub const fn no_detail(_: &App) -> Option<Site> {
    None
}

/// A view without comma-separated values.
#[must_use]
pub const fn no_csv(_: &App) -> Option<String> {
    None
}

/// A walk over the channels of the selected site, in the order in which they stand.
#[must_use]
pub fn channel_walk(app: &App) -> Walk {
    Walk::new(app.channel_order().into_iter().map(Hit::Channel).collect(), Some(Hit::Channel(app.channel)))
}

/// A walk over all sites of the model.
#[must_use]
pub fn all_sites(app: &App) -> Walk {
    Walk::over(app.info.sites.clone(), Some(app.site))
}

/// What is shown while there is no answer yet.
pub fn waiting(app: &App, area: Rect, buf: &mut Buffer) -> Hits {
    let (text, style) = match &app.failure {
        Some(failure) => (failure.clone(), app.look.bad()),
        None => (progress(app), app.look.dim()),
    };
    put(buf, area, 2, area.height / 2, &text, style);
    Hits::default()
}

/// How far the run is.
#[must_use]
pub fn progress(app: &App) -> String {
    let p = &app.progress;
    match (p.stage.is_empty(), p.total) {
        (true, _) => "opening the model".into(),
        (false, 0) => p.stage.clone(),
        (false, total) => format!("{} {}/{total}", p.stage, p.done),
    }
}
