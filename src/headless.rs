//! The commands that need no terminal: the same engine and the same report as the screen. Results go to standard output, all else to
//! standard error.

use std::path::Path;
use std::sync::Arc;

use clap::CommandFactory;

use crate::analysis::{Report, verify};
use crate::bar::Bar;
use crate::cli::{Cli, Command, Common, FrameFormat, Look, Output, Which};
use crate::engine::budget::{self, Order};
use crate::engine::suggest::{self, Aim};
use crate::engine::{Opened, Progress, Session, dump, evaluate, first_comparison, inspect, sensitivity};
use crate::error::{Error, Result};
use crate::model::tap::Cancel;
use crate::model::{Model, hub, is_hub_id};
use crate::output;
use crate::quant::{Method, Settings, file};
use crate::tui::app::{App, View};
use crate::tui::{frame, studies, theme};

/// Does what a command says.
///
/// # Errors
/// When it cannot be done.
pub fn run(command: Command) -> Result<()> {
    match command {
        Command::Run { common, output, dump } => run_one(&common, &output, dump.as_deref()),
        Command::Eval { common, output, data, limit } => eval(&common, &output, data.as_deref(), limit),
        Command::Allocate { common, output, budget, estimate, candidates, frontier, evaluate, data, limit } => {
            let session = open(&common, common.settings()?)?;
            let settings = session.opened().settings.clone();
            let set = if evaluate || data.is_some() { Some(evaluate::data(&session, data.as_deref(), limit)?) } else { None };
            let order = Order {
                settings: &settings,
                estimate,
                candidates: &if candidates.is_empty() { budget::default_candidates() } else { candidates },
                budgets: &budget,
                frontier: usize::from(frontier),
                data: set.as_ref(),
            };
            let bar = Bar::default();
            let report = budget::allocate(&session, &order, &Cancel::default(), &|progress| bar.show(&progress))?;
            drop(bar);
            output::allocation(&report, &output)
        }
        Command::Sensitivity { common, output, by, data, limit } => {
            let session = open(&common, common.settings()?)?;
            let settings = session.opened().settings.clone();
            let cancel = Cancel::default();
            let pictures = sensitivity::pictures(&session, data.as_deref(), limit, &cancel)?;
            let bar = Bar::default();
            let report = sensitivity::report(&session, &settings, &pictures, &by, &cancel, &|progress| bar.show(&progress))?;
            drop(bar);
            output::sensitivity(&report, &output)
        }
        Command::Suggest { common, output, one, within, kl, data, limit } => {
            let session = open(&common, common.settings()?)?;
            let settings = session.opened().settings.clone();
            let (cancel, bar) = (Cancel::default(), Bar::default());
            let (suggestion, best) = if one {
                (suggest::restore_picture(&session, &settings, common.picture, &cancel, &|progress| bar.show(&progress))?, None)
            } else {
                let set = evaluate::data(&session, data.as_deref(), limit)?;
                let aim = kl.map_or(Aim::Within(within), Aim::Kl);
                let (found, best) = suggest::restore_set(&session, &settings, &set, aim, &cancel, &|progress| bar.show(&progress))?;
                (found, Some(best))
            };
            drop(bar);
            output::suggestion(&suggestion, best.as_ref(), &output)
        }
        Command::Calibrate { common, output } => calibrate(&common, &output),
        Command::Snapshot { common, look, view, size, site, compare, format, output } => {
            let selection = Selection { view, size, site, compare };
            snapshot(&common, &look, &selection, format, output.as_deref())
        }
        Command::Inspect { which, labels, output } => {
            let mut model = model(&which)?;
            if let Some(path) = labels {
                model.name_classes(&path)?;
            }
            output::inspection(&inspect::inspect(&model)?, &output)
        }
        Command::Verify { which, output, expected, tolerance } => verify(&which, &expected, tolerance, &output),
        Command::Fetch { id, offline } => {
            if !is_hub_id(&id) {
                return Err(Error::setting("model to fetch", id, "an id of the Hugging Face Hub: OWNER/NAME"));
            }
            let bar = Bar::default();
            let folder = hub::fetch(&id, offline, &|received| bar.show(&Progress::received(&received)))?;
            drop(bar);
            output::deliver(None, &format!("{}\n", folder.display()))
        }
        Command::Schema => output::deliver(None, &output::json(&schemars::schema_for!(Report))?),
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "igq", &mut std::io::stdout());
            Ok(())
        }
    }
}

/// Says on standard error what will be run.
fn echo(common: &Common, settings: &Settings) {
    eprintln!("igq: model {}, {}, seed {}", common.model, settings.describe(), settings.seed);
}

fn open(common: &Common, settings: Settings) -> Result<Session> {
    let bar = Bar::default();
    let opened = Opened::fetched(&common.options_with(settings), &|progress| bar.show(&progress))?;
    echo(common, &opened.settings);
    opened.calibrate(&Cancel::default(), &|progress| bar.show(&progress))
}

fn run_one(common: &Common, output: &Output, dump_to: Option<&Path>) -> Result<()> {
    let session = open(common, common.settings()?)?;
    let outcome = session.run(common.picture, &session.opened().settings, &Cancel::default())?;
    if let Some(path) = dump_to {
        dump::write(path, &outcome)?;
    }
    let mut report = outcome.report.clone();
    session.sweep(&outcome, &Cancel::default(), |site, value| {
        if let Some(entry) = report.sites.iter_mut().find(|s| s.site == site) {
            entry.only_this = Some(value);
        }
    })?;
    output::report(&report, output)
}

fn eval(common: &Common, output: &Output, data: Option<&Path>, limit: Option<usize>) -> Result<()> {
    let mut grid = common.grid()?;
    let session = open(common, grid.first().cloned().unwrap_or_default())?;
    for settings in &mut grid {
        *settings = session.opened().with_fit(settings)?;
    }
    if !grid.iter().any(|settings| settings.method == Method::Float) {
        grid.insert(0, Settings { method: Method::Float, ..session.opened().settings.clone() });
    }
    let set = evaluate::data(&session, data, limit)?;
    let bar = Bar::default();
    let evaluation = evaluate::evaluate(&session, &set, &grid, &|progress| bar.show(&progress))?;
    drop(bar);
    output::evaluation(&evaluation, output)
}

fn calibrate(common: &Common, output: &Path) -> Result<()> {
    let session = open(common, common.settings()?)?;
    let settings = &session.opened().settings;
    let plan = session.plan(settings)?;
    file::write(output, &plan, settings)?;
    let written = plan.sites.values().filter(|site| site.quantizers.is_some()).count();
    eprintln!("igq: wrote the quantizers of {written} sites to {}", output.display());
    Ok(())
}

/// What a frame is to show.
struct Selection {
    view: View,
    size: (u16, u16),
    site: Option<String>,
    compare: Option<usize>,
}

fn snapshot(common: &Common, look: &Look, select: &Selection, format: FrameFormat, output: Option<&Path>) -> Result<()> {
    let session = open(common, common.settings()?)?;
    let settings = session.opened().settings.clone();
    // Plain text has no colours: the mono theme shows pictures and maps with characters instead.
    let theme = look.theme.or((format == FrameFormat::Txt).then_some(theme::ThemeName::Mono));
    let true_color = format != FrameFormat::Txt;
    let mut app = App::new(session.opened().info(), settings.clone(), theme::Look::resolve(theme, look.ascii, true_color));
    app.view = select.view;
    app.picture = common.picture;
    if let Some(site) = &select.site {
        let site = site.parse()?;
        if !app.select(site) {
            return Err(Error::setting("--site", site, "a site of the model; `igq inspect` lists them"));
        }
    }
    let outcome = session.run(common.picture, &settings, &Cancel::default())?;
    let mut snapshot = outcome.snapshot(0, common.picture);
    if let Some(second) = select.compare {
        let compared = session.run(second, &settings, &Cancel::default())?;
        snapshot.compare = Some(Box::new(compared.snapshot(0, second)));
        app.compare = Some(second);
    }
    app.show(Arc::new(snapshot));
    session.sweep(&outcome, &Cancel::default(), |site, value| app.learn_sensitivity(&[(site, value)]))?;
    if select.view == View::Budget && settings.method.uses_groups() {
        app.studies.learn(Arc::new(budget::estimated(&session, &studies::base(&settings))?));
        app.budget.renew(&settings, &app.studies);
    }
    if select.view == View::Compare {
        let grid = studies::grid(&settings);
        studies::compared(&mut app, Arc::new(first_comparison(&session, &grid, common.picture)?));
    }
    let buffer = frame::render(&app, select.size.0, select.size.1)?;
    let text = match format {
        FrameFormat::Txt => frame::to_text(&buffer),
        FrameFormat::Ansi => frame::to_ansi(&buffer),
        FrameFormat::Svg => frame::to_svg(&buffer),
    };
    output::deliver(output, &text)
}

/// Opens the model of a command that looks at nothing else.
fn model(which: &Which) -> Result<Model> {
    let bar = Bar::default();
    Model::fetched(which.model(), which.offline, &|received| bar.show(&Progress::received(&received)))
}

fn verify(which: &Which, expected: &Path, tolerance: f32, output: &Output) -> Result<()> {
    let found = verify::verify(&model(which)?, expected, tolerance)?;
    output::verification(&found, output)?;
    if found.within {
        return Ok(());
    }
    let problem = format!("the logits differ by {:e}, expected at most {tolerance:e}", found.largest_difference);
    Err(Error::content(found.model, problem, "check that model and reference belong together, or give --tolerance"))
}
