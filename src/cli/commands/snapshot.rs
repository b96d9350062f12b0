//! `igq snapshot`: one frame of the screen to a file.

use std::path::PathBuf;
use std::sync::Arc;

use crate::cli::args::{one_of, parse_size};
use crate::cli::open;
use crate::cli::session;
use crate::cli::{FrameFormat, Look, RunArgs, print};
use crate::engine::Study;
use crate::error::{Error, Result};
use crate::progress::Cancel;
use crate::session::{Outcome, Request, Session, Stage};
use crate::studies::{allocate, compare, curve, trials};
use crate::tui::app::App;
use crate::tui::choice::View;
use crate::tui::{frame, png, theme, update, view};

/// Draw one frame of the screen to a file or to standard output.
#[derive(Debug, clap::Args)]
pub struct Snapshot {
    #[command(flatten)]
    common: RunArgs,
    #[command(flatten)]
    look: Look,
    /// Which view. Default: overview, or that of the session.
    #[arg(long, value_parser = one_of::<View>(View::all().map(View::name)))]
    view: Option<View>,
    /// Columns and rows.
    #[arg(long, default_value = "120x40", value_name = "WxH", value_parser = parse_size)]
    size: (u16, u16),
    /// Site that is selected, such as blocks.3.fc2.
    #[arg(long, value_name = "SITE")]
    site: Option<String>,
    /// Index of a second picture to compare the grouping with (Groups view).
    #[arg(long, value_name = "N")]
    compare: Option<usize>,
    /// Command of the palette to carry out first (`site blocks.3.fc2 abits 8`); may be repeated.
    #[arg(long = "do", value_name = "COMMAND")]
    commands: Vec<String>,
    /// Form of the frame.
    #[arg(long, default_value = "txt")]
    format: FrameFormat,
    /// File to write instead of standard output.
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
}

impl Snapshot {
    /// Runs, draws and writes.
    pub(super) fn run(&self) -> Result<()> {
        let Self { common, look, view, size, site, compare, commands, format, output } = self;
        let opened = open::session(common, common.settings()?)?;
        // Plain text has no colours: the mono theme shows pictures and maps with characters instead.
        let plain = matches!(format, FrameFormat::Txt | FrameFormat::Md);
        let screen = look.screen()?;
        let theme = if plain && look.theme.is_none() { Some(theme::Theme::MONO) } else { screen.theme };
        let settings = opened.opened().settings.clone();
        let mut app = App::new(opened.opened().info(), settings, theme::Look::resolve(theme, screen.own, screen.ascii, !plain));
        let start = session::start(common)?;
        app.picture = start.picture;
        carry_out(&mut app, "--session", &start.screen)?;
        app.view = view.unwrap_or(app.view);
        if let Some(site) = site {
            let site = site.parse()?;
            if !app.select(site) {
                return Err(Error::setting("--site", site, "a site of the model; `igq inspect` lists them"));
            }
        }
        app.compare = compare.or(app.compare);
        if app.view.name() == "learn" {
            update::start_lessons(&mut app);
        }
        carry_out(&mut app, "--do", commands)?;
        if let Some((settings, picture)) = start.pinned {
            let present = (app.settings.clone(), app.picture, app.compare.take());
            (app.settings, app.picture) = (settings, picture);
            let outcome = answered(&opened, &mut app)?;
            furnish(&opened, &mut app, outcome.as_deref())?;
            carry_out(&mut app, "--session", &["pin".into()])?;
            app.notice = None;
            (app.settings, app.picture, app.compare) = present;
        }
        let outcome = answered(&opened, &mut app)?;
        // What is selected among channels and tokens is there only now.
        let selects = |line: &&String| ["channel", "token", "head"].iter().any(|name| line.starts_with(name));
        let selections: Vec<String> = start.screen.iter().chain(commands).filter(selects).cloned().collect();
        carry_out(&mut app, "--do", &selections)?;
        furnish(&opened, &mut app, outcome.as_deref())?;
        let buffer = frame::render(&app, size.0, size.1)?;
        let verdict = app.verdict().unwrap_or_default();
        let bytes = match format {
            FrameFormat::Txt => frame::to_text(&buffer).into_bytes(),
            FrameFormat::Ansi => frame::to_ansi(&buffer).into_bytes(),
            FrameFormat::Svg => frame::to_svg(&buffer, app.look, &app.command()).into_bytes(),
            FrameFormat::Png => png::encode(&buffer, app.look)?,
            FrameFormat::Md => frame::to_markdown(&buffer, verdict, &app.command()).into_bytes(),
        };
        print::deliver_bytes(output.as_deref(), &bytes)
    }
}

/// Carries out commands of the palette.
fn carry_out(app: &mut App, from: &str, commands: &[String]) -> Result<()> {
    commands.iter().try_for_each(|line| {
        let done = update::palette::run(app, line);
        done.map(drop).map_err(|problem| Error::setting(from, line, problem))
    })
}

/// Runs what the screen wants, with its sweep, and shows it.
pub(super) fn answered(session: &Session, app: &mut App) -> Result<Option<Arc<Outcome>>> {
    app.wanted = 0;
    let request = Request { id: 0, settings: app.settings.clone(), picture: app.picture, compare: app.compare };
    let mut outcome = None;
    session.answer(&request, &Cancel::default(), &mut |stage| match stage {
        Stage::Predicted(predicted) => app.predicted = Some(predicted),
        Stage::Measured(snapshot, measured) => {
            app.show(snapshot);
            outcome = Some(measured);
        }
        Stage::Lens(points) => app.lens_of = Some((0, points)),
        Stage::Timed(_) => {} // Another time would be another picture.
        Stage::Swept(found, ..) => app.learn_sensitivity(&found),
        Stage::Blamed(blame) => app.learn_blame(blame),
    })?;
    Ok(outcome)
}

/// Computes what the present view shows besides.
pub(super) fn furnish(session: &Session, app: &mut App, outcome: Option<&Outcome>) -> Result<()> {
    if let (Some(wanted), Some(outcome)) = (view::wanted_detail(app), outcome) {
        app.detail = session.detail(outcome, wanted.id, wanted.site).map(Arc::new);
        app.clamp();
    }
    // One study may be what another one begins with.
    let mut last = None;
    while let Some(study) = (app.view.spec().study)(app).filter(|study| last.as_ref() != Some(study)) {
        carried_out(session, app, study.clone())?;
        last = Some(study);
    }
    Ok(())
}

/// Does what a study asks for.
fn carried_out(session: &Session, app: &mut App, study: Study) -> Result<()> {
    match study {
        Study::Perturb { settings, .. } => {
            app.studies.learn(Arc::new(allocate::estimated(session, &settings)?));
            app.budget.renew(&app.settings, &app.studies);
        }
        Study::Compare { settings, picture, .. } => {
            update::compared(app, Arc::new(compare::first(session, &settings, picture)?));
        }
        Study::Curve { settings, picture, site } => {
            app.studies.curve = Some(Arc::new(curve::curve(session, &settings, picture, site, &Cancel::default())?));
        }
        Study::Trial { settings, picture } => {
            let kl = trials::kl(session, &settings, picture, &Cancel::default())?;
            app.studies.tried = Some((settings, picture, kl));
        }
        Study::Suggest { .. } | Study::Mixed { .. } => {}
    }
    Ok(())
}
