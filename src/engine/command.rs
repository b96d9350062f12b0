//! What the screen may ask of the engine. The only thing that travels against the data flow.

use crate::model::Site;
pub use crate::quant::{BitWidth, GroupCount, Method, Settings, SoftmaxShape};
pub use crate::session::Request;
pub use crate::studies::perturbation::Estimate;

/// Details of one site of a run that was answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DetailRequest {
    /// The request that the run answered; details of older runs are not there any more.
    pub id: u64,
    /// The site.
    pub site: Site,
}

/// Work that takes longer than a run and goes on beside runs. A newer one ends the one that is under way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Study {
    /// Perturbation of every site at every candidate count: `Event::Perturbed`, again and again until `done`.
    Perturb {
        /// The settings whose counts are to be found.
        settings: Settings,
        /// How.
        estimate: Estimate,
    },
    /// Methods by bit-widths, on one picture and on the evaluation set: `Event::Compared`, again and again until its pictures are seen.
    Compare {
        /// The settings that the rows start from.
        settings: Settings,
        /// Index of the picture.
        picture: usize,
        /// Whether all pictures of the evaluation set are to be seen, and not only the first.
        all: bool,
    },
    /// What to keep in float so that the prediction of one picture comes back: `Event::Suggested`.
    Suggest {
        /// The settings that lose it.
        settings: Settings,
        /// Index of the picture.
        picture: usize,
    },
    /// The error of one site of the run that is shown against its number of groups: `Event::Curve`.
    Curve {
        /// The settings of the run.
        settings: Settings,
        /// Index of its picture.
        picture: usize,
        /// The site.
        site: Site,
    },
    /// What settings that are not applied yet would predict: `Event::Tried`.
    Trial {
        /// The settings.
        settings: Settings,
        /// Index of the picture.
        picture: usize,
    },
    /// Bits and group counts of every site within the cost of the same bits everywhere: `Event::Suggested`.
    Mixed {
        /// The settings; their activation bits everywhere are the bound.
        settings: Settings,
    },
}

impl Study {
    /// Whether it is short and goes on without a word.
    #[must_use]
    pub const fn is_quiet(&self) -> bool {
        matches!(self, Self::Curve { .. } | Self::Trial { .. })
    }
}
