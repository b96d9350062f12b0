//! What the screen writes: the frame as a drawing, its report and its table, and the session. Nothing is written over unasked.

use std::path::Path;

use super::app::{App, Notice};
use super::frame;
use super::png;
use crate::analysis::report::json;
use crate::atomic_write::write_whole;
use crate::error::{Error, Result};
use crate::session::{SavedSession, saved};

fn told(written: Result<String>) -> Notice {
    match written {
        Ok(text) => Notice { text, is_error: false },
        Err(e) => Notice { text: e.to_string(), is_error: true },
    }
}

/// Writes the frame, its report and its table into the current folder.
#[must_use]
pub fn export(app: &App) -> Notice {
    told(export_into(app, Path::new("")))
}

/// Writes the frame, its report and its table into a folder; what was written, in a sentence.
///
/// # Errors
/// When there is no result yet, or a file cannot be written.
pub fn export_into(app: &App, folder: &Path) -> Result<String> {
    let nothing = || Error::content("export", "there is no result yet", "wait for the first run");
    let snapshot = app.snapshot.as_ref().ok_or_else(nothing)?;
    let plain: String = snapshot.report.picture.name.chars().map(|c| if c.is_alphanumeric() { c } else { '-' }).collect();
    let stem = free(folder, &format!("igq-{}-{plain}", app.view.title().to_lowercase()));
    let buffer = frame::render(app, app.size.0, app.size.1)?;
    let report = app.report_with_sweep(&snapshot.report);
    let mut files = vec![
        ("svg", frame::to_svg(&buffer, app.look, &app.command()).into_bytes()),
        ("png", png::encode(&buffer, app.look)?),
        ("md", frame::to_markdown(&buffer, &report.verdict, &app.command()).into_bytes()),
        ("json", json(&report)?.into_bytes()),
    ];
    files.extend((app.view.spec().csv)(app).map(|csv| ("csv", csv.into_bytes())));
    for (extension, bytes) in &files {
        write_whole(&folder.join(format!("{stem}.{extension}")), bytes)?;
    }
    let names: Vec<&str> = files.iter().map(|(extension, _)| *extension).collect();
    Ok(format!("wrote {stem}. {}", names.join(", ")))
}

/// A stem under which no file stands yet: the wanted one, or with a number behind it.
fn free(folder: &Path, wanted: &str) -> String {
    let taken = |stem: &String| ["svg", "png", "md", "json", "csv"].iter().any(|e| folder.join(format!("{stem}.{e}")).exists());
    let numbered = (2..10_000).map(|n| format!("{wanted}-{n}"));
    std::iter::once(wanted.to_string()).chain(numbered).find(|stem| !taken(stem)).unwrap_or_else(|| wanted.to_string())
}

/// Writes the session to a file.
#[must_use]
pub fn save(app: &App, file: &Path, over: bool) -> Notice {
    told(session(app).and_then(|saved| {
        if file.exists() && !over {
            let name = file.display().to_string();
            return Err(Error::content(name, "it exists", format!("`:save! {}` writes over it", file.display())));
        }
        write_whole(file, saved.to_toml()?.as_bytes())?;
        Ok(format!("saved: igq --session {} opens it again", file.display()))
    }))
}

/// What is on the screen, as a session.
fn session(app: &App) -> Result<SavedSession> {
    let of = |snapshot: &crate::session::Snapshot| {
        saved::flags(&app.info, &app.opened, app.first_count, &snapshot.report.settings, snapshot.picture)
    };
    let mut screen = vec![format!("view {}", app.view.name()), format!("site {}", app.site), format!("channel {}", app.channel)];
    screen.extend([format!("token {}", app.token), format!("head {}", app.head)]);
    // The second picture has its number among those that the flags name.
    let later = app.picture >= app.first_count && !app.opened.is_empty();
    let skipped = if later { app.first_count } else { 0 };
    let same_side = |at: usize| later == (at >= app.first_count && !app.opened.is_empty());
    screen.extend(app.compare.filter(|at| same_side(*at)).map(|at| format!("compare {}", at + 1 - skipped)));
    screen.push(format!("theme {}", app.look.theme.name()));
    SavedSession::new(app.flags(), app.pinned.as_deref().map(of), screen)
}
