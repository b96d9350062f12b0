//! What the first stage of a float run chose, pinned in other runs, so that every query means the same in both.

use candle_core::Tensor;

use crate::error::{Error, Result};
use crate::model::output::First;

/// What a tap pins.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pins<'p> {
    first: Option<&'p First>,
    freed: bool,
}

impl<'p> Pins<'p> {
    /// What this first stage chose, if there is one.
    pub const fn of(first: Option<&'p First>) -> Self {
        Self { first, freed: false }
    }

    /// The pinned proposals, or where there are none what was `chosen`.
    pub fn proposals(&self, chosen: Tensor) -> Result<Tensor> {
        self.pin(chosen, |first| Some(&first.proposals))
    }

    /// The same of the objects that masks are made of.
    pub fn objects(&self, found: Tensor) -> Result<Tensor> {
        self.pin(found, |first| first.objects.as_ref())
    }

    fn pin(&self, chosen: Tensor, of: impl Fn(&'p First) -> Option<&'p Tensor>) -> Result<Tensor> {
        match self.first.filter(|_| !self.freed).and_then(of) {
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
        let first = self.first.is_some() && !self.freed;
        self.freed = true;
        first
    }

    /// Whether this is the second pass, with proposals of its own.
    pub const fn freed(&self) -> bool {
        self.freed
    }
}
