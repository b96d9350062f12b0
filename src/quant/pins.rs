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
    AtKl,
    /// What it predicts, masks left out.
    AtBoxes,
    /// What it predicts.
    AtPrediction,
    /// Its operands too.
    AtOperands,
}

impl<'p> Pins<'p> {
    /// What this first stage chose, if there is one.
    pub const fn of(first: Option<&'p First>, looks: Looks) -> Self {
        Self { first, looks, freed: false }
    }

    /// The pinned proposals, or where there are none what was `chosen`.
    pub fn proposals(&self, chosen: Tensor) -> Result<Tensor> {
        self.pin(chosen, |first| Some(&first.proposals))
    }

    /// The same of the objects that masks are made of. The masks of pinned ones are operands, and no prediction.
    pub fn objects(&self, found: Tensor) -> Result<Option<Tensor>> {
        if matches!(self.looks, Looks::AtKl | Looks::AtBoxes) || self.looks == Looks::AtPrediction && self.first.is_some() && !self.freed {
            return Ok(None);
        }
        match self.first.filter(|_| !self.freed) {
            Some(first) => Ok(Some(first.objects.clone().unwrap_or(found))),
            None => Ok(Some(found)),
        }
    }

    fn pin(&self, chosen: Tensor, of: impl Fn(&'p First) -> Option<&'p Tensor>) -> Result<Tensor> {
        match self.first.filter(|_| !self.freed).and_then(of) {
            // A detector of regions proposes fewer where more of them overlap.
            Some(pinned) if (pinned.dim(0)?, pinned.dim(2)?) == (chosen.dim(0)?, chosen.dim(2)?) => Ok(pinned.clone()),
            Some(pinned) => {
                let problem = format!("expected {:?} proposals, found {:?}", pinned.dims(), chosen.dims());
                Err(Error::content("pinned proposals", problem, "report this"))
            }
            None => Ok(chosen),
        }
    }

    /// Whether some were pinned and no longer are.
    pub const fn free(&mut self) -> bool {
        let first = self.first.is_some() && !self.freed && !matches!(self.looks, Looks::AtKl);
        self.freed = true;
        first
    }

    /// Whether this is the second pass, with proposals of its own.
    pub const fn freed(&self) -> bool {
        self.freed
    }
}
