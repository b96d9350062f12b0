//! Opening what a command names, with a bar on standard error.

use super::args::{RunArgs, Which};
use super::bar::Bar;
use crate::clean::tell;
use crate::error::Result;
use crate::model::Model;
use crate::progress::Cancel;
use crate::quant::Settings;
use crate::session::{LoadedModel, Session};

/// Says on standard error what will be run.
fn echo(common: &RunArgs, settings: &Settings) {
    tell(&format!("model {}, {}, seed {}", common.model, settings.describe(), settings.seed));
}

/// Opens and calibrates.
pub(super) fn session(common: &RunArgs, settings: Settings) -> Result<Session> {
    let bar = Bar::default();
    let opened = LoadedModel::fetched(&common.options_with(settings), &|progress| bar.show(&progress))?;
    for note in &opened.model.notes {
        tell(&format!("note: {note}"));
    }
    echo(common, &opened.settings);
    Session::calibrated(opened, &Cancel::default(), &|progress| bar.show(&progress))
}

/// Opens the model of a command that looks at nothing else.
pub(super) fn model(which: &Which) -> Result<Model> {
    let bar = Bar::default();
    Model::fetched(which.model(), which.offline, which.max_memory(), &|progress| bar.show(&progress))
}
