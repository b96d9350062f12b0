//! Proposals of a first stage that are pinned to those of a float run, so that every query means the same in both.

use candle_core::Tensor;

use crate::error::{Error, Result};

/// The proposals that a tap pins.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pins<'p> {
    chosen: Option<&'p Tensor>,
    freed: bool,
}

impl<'p> Pins<'p> {
    /// These, if there are any.
    pub const fn of(chosen: Option<&'p Tensor>) -> Self {
        Self { chosen, freed: false }
    }

    /// The pinned proposals, or where there are none what was `chosen`.
    pub fn pin(&self, chosen: Tensor) -> Result<Tensor> {
        match self.chosen.filter(|_| !self.freed) {
            Some(pinned) if pinned.dims() == chosen.dims() => Ok(pinned.clone()),
            Some(pinned) => {
                let problem = format!("expected {:?} proposals, found {:?}", pinned.dims(), chosen.dims());
                Err(Error::content("pinned proposals", problem, "report this"))
            }
            None => Ok(chosen),
        }
    }

    /// Whether some were pinned and no longer are.
    pub const fn free(&mut self) -> bool {
        let first = self.chosen.is_some() && !self.freed;
        self.freed = true;
        first
    }

    /// Whether this is the second pass, with proposals of its own.
    pub const fn freed(&self) -> bool {
        self.freed
    }
}
