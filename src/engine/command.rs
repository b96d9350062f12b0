//! What the screen may ask of the engine. The only thing that travels against the data flow.

pub use crate::quant::{BitWidth, GroupCount, Method, Settings};

/// A run that a person asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Grows with every request; answers carry it, so that stale ones can be told.
    pub id: u64,
    /// The settings to run under.
    pub settings: Settings,
    /// Index of the picture in the session's set.
    pub picture: usize,
    /// A second picture whose grouping is to be compared.
    pub compare: Option<usize>,
}
