//! What the first stage of a float run chose, pinned in other runs, so that every query means the same in both.

use candle_core::Tensor;

use crate::error::{Error, Result};
use crate::model::output::First;

/// What a tap pins.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pins<'p> {
    first: Option<&'p First>,
    looks: Looks,
    freed: bool,
}

/// What somebody looks at in a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Looks {
    /// How far its prediction is from that of the float run, and nothing else: it does not run a second time, and makes no masks.
    Kl,
    /// What it predicts, masks left out.
    Boxes,
    /// What it predicts.
    Prediction,
    /// Its operands too.
    Operands,
}

impl<'p> Pins<'p> {
    /// What this first stage chose, if there is one.
    pub const fn of(first: Option<&'p First>, looks: Looks) -> Self {
        Self { first, looks, freed: false }
    }

    /// The pinned proposals, or where there are none what was `chosen`.
    pub fn proposals(&self, chosen: Tensor) -> Result<Tensor> {
        match self.first.filter(|_| !self.freed).map(|first| &first.proposals) {
            // A detector of regions proposes fewer where more of them overlap.
            Some(pinned) if (pinned.dim(0)?, pinned.dim(2)?) == (chosen.dim(0)?, chosen.dim(2)?) => Ok(pinned.clone()),
            Some(pinned) => {
                let problem = format!("expected {:?} proposals, found {:?}", pinned.dims(), chosen.dims());
                Err(Error::content("pinned proposals", problem, "report this"))
            }
            None => Ok(chosen),
        }
    }

    /// The same of the objects that masks are made of. The masks of pinned ones are operands, and no prediction.
    pub fn objects(&self, found: Tensor) -> Option<Tensor> {
        let pinned = self.first.filter(|_| !self.freed);
        match (self.looks, pinned) {
            (Looks::Kl | Looks::Boxes, _) | (Looks::Prediction, Some(_)) => None,
            (Looks::Operands, Some(first)) => Some(first.objects.clone().unwrap_or(found)),
            (_, None) => Some(found),
        }
    }

    /// Whether some were pinned and no longer are.
    pub const fn free(&mut self) -> bool {
        let first = self.first.is_some() && !self.freed && !matches!(self.looks, Looks::Kl);
        self.freed = true;
        first
    }

    /// Whether this is the second pass, with proposals of its own.
    pub const fn freed(&self) -> bool {
        self.freed
    }
}
