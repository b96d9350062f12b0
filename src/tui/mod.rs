//! Step 8 of the data flow: the screen. State, messages and pure drawing; it reads reports and sends requests, and never touches a tensor.

pub mod app;
pub mod budget;
pub mod choice;
pub mod chrome;
pub mod config;
pub mod export;
pub mod facts;
pub mod frame;
pub mod glossary;
mod graphics;
pub mod groups;
mod help;
pub mod history;
pub mod hit;
pub mod keymap;
pub mod keys;
pub mod lessons;
pub mod message;
pub mod objects;
mod opening;
pub mod png;
pub mod runtime;
pub mod studies;
pub mod terminal;
pub mod theme;
pub mod update;
pub mod view;
pub mod widget;

pub use runtime::{ScreenOptions, Start, run};
pub use terminal::ending_signal;
