//! `igq fetch`: a model of the Hub into its cache.

use crate::cli::bar::Bar;
use crate::cli::print;
use crate::error::{Error, Result};
use crate::model::checkpoint::{hub, hub_id};

/// Download a model of the Hugging Face Hub into its cache and print where it is.
#[derive(Debug, clap::Args)]
pub struct Fetch {
    /// OWNER/NAME, such as timm/deit_tiny_patch16_224.fb_in1k.
    #[arg(value_name = "ID")]
    id: String,
    /// Only say where it is in the cache.
    #[arg(long)]
    offline: bool,
}

impl Fetch {
    /// Does it and prints.
    pub(super) fn run(self) -> Result<()> {
        let Self { id, offline } = self;
        let Some(id) = hub_id(&id) else {
            return Err(Error::setting("model to fetch", id, "an id of the Hugging Face Hub: OWNER/NAME"));
        };
        let bar = Bar::default();
        let (folder, note) = hub::fetch(&id, offline, &|progress| bar.show(&progress))?;
        drop(bar);
        if let Some(note) = note {
            crate::clean::tell(&format!("note: {note}"));
        }
        print::deliver(None, &format!("{}\n", folder.display()))
    }
}
