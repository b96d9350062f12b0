//! Step 8 of the data flow: the screen. State, messages and pure drawing; it reads reports and sends requests, and never touches a tensor.

mod answers;
pub mod app;
pub mod budget;
pub mod frame;
pub mod history;
pub mod keymap;
pub mod message;
pub mod opening;
pub mod runtime;
pub mod studies;
pub mod terminal;
pub mod theme;
pub mod update;
pub mod view;
pub mod widget;

pub use runtime::{ScreenOptions, run};
