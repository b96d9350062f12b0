//! Step 7 of the data flow, and the only place with threads and channels: commands in, events out.

pub mod command;
pub mod event;
mod guard;
pub mod opening;
mod out;
mod queue;
pub mod worker;

pub use command::{DetailRequest, Request, Study};
pub use event::Event;
pub use opening::Opening;
pub use worker::Worker;
