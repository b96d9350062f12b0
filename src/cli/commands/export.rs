//! `igq export`: a configuration to take away.

use std::path::PathBuf;

use crate::clean::{clean, tell};
use crate::cli::bar::Bar;
use crate::cli::{Output, RunArgs, print};
use crate::cli::{interrupt, open};
use crate::error::Result;
use crate::session::Session;
use crate::studies::export;

/// Write the settings, the command line, the quantizers, the quantized weights and an ONNX graph of the quantized model into a folder.
#[derive(Debug, clap::Args)]
pub struct Export {
    #[command(flatten)]
    common: RunArgs,
    #[command(flatten)]
    output: Output,
    /// The folder.
    #[arg(long, value_name = "DIR")]
    to: PathBuf,
}

impl Export {
    /// Writes and says what.
    pub(super) fn run(&self) -> Result<()> {
        let Self { common, output, to } = self;
        let session = open::session(common, common.settings()?)?;
        let settings = session.opened().settings.clone();
        let bar = Bar::default();
        let command = command(common, &session);
        let report = export::export(&session, &settings, to, &command, &interrupt::cancel()?, &|progress| bar.show(&progress))?;
        drop(bar);
        for reason in &report.left_out {
            tell(&format!("left out: {}", clean(reason)));
        }
        print::export(&report, output)
    }
}

/// The run of the same settings, to be given where the export lies.
fn command(common: &RunArgs, session: &Session) -> String {
    let mut words = vec!["igq".to_string(), "run".into(), "--model".into(), common.model.clone()];
    let mut with = |flag: &str, value: Option<String>| words.extend(value.into_iter().flat_map(|value| [flag.into(), value]));
    // What the first picture asked for must not depend on another first picture.
    let size = |(rows, columns): (usize, usize)| format!("{columns}x{rows}");
    with("--input-size", session.opened().model.config.takes_any_size().then(|| size(session.opened().preprocess.size)));
    with("--labels", common.labels.as_ref().map(|path| path.display().to_string()));
    with("--calibration", common.calibration.as_ref().map(|path| path.display().to_string()));
    with("--calibration-images", Some(common.calibration_images.to_string()));
    with("--settings-file", Some("settings.json".into()));
    shlex::try_join(words.iter().map(String::as_str)).unwrap_or_else(|_| words.join(" "))
}
