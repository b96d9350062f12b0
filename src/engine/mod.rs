//! Step 5 of the data flow, and the only place with threads and channels: commands in, events out.

pub mod budget;
pub mod cache;
pub mod command;
pub mod dump;
pub mod evaluate;
pub mod event;
pub mod inspect;
pub mod opened;
pub mod options;
pub mod sensitivity;
pub mod session;
mod study;
pub mod suggest;
pub mod worker;

pub use command::{Request, Study};
pub use event::{AttentionMap, Event, PictureView, Progress, Snapshot};
pub use opened::{Opened, Opening};
pub use options::Options;
pub use session::{Outcome, Session};
pub use study::first_comparison;
pub use worker::Worker;
