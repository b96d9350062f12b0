//! Step 5 of the data flow: one model, one calibration, a set of pictures, and what runs of them answer. No threads: the engine, the
//! studies and the headless commands all stand on it.

pub mod ahead;
mod answer;
pub mod cache;
pub mod core;
pub mod loaded;
pub mod options;
pub mod saved;
mod timing;

pub use answer::{PictureView, Predicted, REPAIRED, Request, Snapshot, Stage};
pub use core::{FloatBaseline, Outcome, Session};
pub use loaded::{LoadedModel, SessionInfo};
pub use options::Options;
pub use saved::SavedSession;
