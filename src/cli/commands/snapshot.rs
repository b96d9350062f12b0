//! `igq snapshot`: one frame of the screen to a file.

use std::path::PathBuf;
use std::sync::Arc;

use crate::cli::args::{one_of, parse_size};
use crate::cli::open;
use crate::cli::{FrameFormat, Look, RunArgs, print};
use crate::engine::Study;
use crate::error::{Error, Result};
use crate::progress::Cancel;
use crate::session::{Outcome, Request, Session, Stage};
use crate::studies::{allocate, compare, curve};
use crate::tui::app::App;
use crate::tui::choice::View;
use crate::tui::{frame, theme, update, view};

/// Draw one frame of the screen to a file or to standard output.
#[derive(Debug, clap::Args)]
pub struct Snapshot {
    #[command(flatten)]
    common: RunArgs,
    #[command(flatten)]
    look: Look,
    /// Which view.
    #[arg(long, default_value = "overview", value_parser = one_of::<View>(View::all().map(View::name)))]
    view: View,
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
        let session = open::session(common, common.settings()?)?;
        // Plain text has no colours: the mono theme shows pictures and maps with characters instead.
        let theme = look.theme.or((*format == FrameFormat::Txt).then_some(theme::ThemeName::Mono));
        let true_color = *format != FrameFormat::Txt;
        let settings = session.opened().settings.clone();
        let mut app = App::new(session.opened().info(), settings, theme::Look::resolve(theme, look.ascii, true_color));
        app.view = *view;
        app.picture = common.picture;
        if let Some(site) = site {
            let site = site.parse()?;
            if !app.select(site) {
                return Err(Error::setting("--site", site, "a site of the model; `igq inspect` lists them"));
            }
        }
        app.compare = *compare;
        if view.name() == "learn" {
            update::start_lessons(&mut app);
        }
        carry_out(&mut app, commands)?;
        let outcome = answered(&session, &mut app)?;
        // What is selected among channels and tokens is there only now.
        let selects = |line: &&String| ["channel", "token", "head"].iter().any(|name| line.starts_with(name));
        carry_out(&mut app, &commands.iter().filter(selects).cloned().collect::<Vec<_>>())?;
        furnish(&session, &mut app, outcome.as_deref())?;
        let buffer = frame::render(&app, size.0, size.1)?;
        let text = match format {
            FrameFormat::Txt => frame::to_text(&buffer),
            FrameFormat::Ansi => frame::to_ansi(&buffer),
            FrameFormat::Svg => frame::to_svg(&buffer),
        };
        print::deliver_as_is(output.as_deref(), &text)
    }
}

/// Carries out commands of the palette.
fn carry_out(app: &mut App, commands: &[String]) -> Result<()> {
    commands.iter().try_for_each(|line| {
        let done = update::palette::run(app, line);
        done.map(drop).map_err(|problem| Error::setting("--do", line, problem))
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
    match (app.view.spec().study)(app) {
        Some(Study::Perturb { settings, .. }) => {
            app.studies.learn(Arc::new(allocate::estimated(session, &settings)?));
            app.budget.renew(&app.settings, &app.studies);
        }
        Some(Study::Compare { settings, picture, .. }) => {
            update::compared(app, Arc::new(compare::first(session, &settings, picture)?));
        }
        Some(Study::Curve { settings, picture, site }) => {
            app.studies.curve = Some(Arc::new(curve::curve(session, &settings, picture, site, &Cancel::default())?));
        }
        Some(Study::Suggest { .. } | Study::Mixed { .. }) | None => {}
    }
    Ok(())
}
