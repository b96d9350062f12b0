//! igq: see a vision transformer being quantized, live. This page is the architecture.
//!
//! One direction of data, and a reader can follow it folder by folder:
//!
//! picture → input tensor → activations at sites → calibration → grouping → quantized run → analysis → report → event → message → frame
//!
//! | module | does | may use | may not use |
//! |---|---|---|---|
//! | [`input`] | pictures: decode, orient, resize, crop, normalise; sets of pictures | image, `fast_image_resize`, candle-core | threads, terminal, the modules below |
//! | [`model`] | checkpoints, the network, sites and taps | candle, `rten-vecmath`, safetensors, serde | quant, image, terminal |
//! | [`quant`] | the method: calibrate, fit, assign, quantize, plan, bit operations, the integer program | model, candle-core, rayon, pulp | input, tokio, ratatui, clock, stdout |
//! | [`analysis`] | metrics, suffix runs, perturbation, allocation, sensitivity, verdicts, the report | quant, model | tokio, ratatui |
//! | [`engine`] | session, evaluation, studies, cache, dump; the only threads that compute, and channels | all above, tokio::sync, std::thread | ratatui, crossterm |
//! | [`tui`] | state, update, view, keys, themes, frames | engine's command and event, the report, site ids, ratatui, crossterm, tokio | candle, quant, input |
//!
//! `tests/layering.rs` holds every file to the table. Beside the row stand [`cli`] (what was typed), [`headless`] (the commands without a
//! screen), [`output`] (text, JSON, CSV, Markdown), [`bar`] (progress on
//! standard error), [`atomic_write`] (whole files or none) and [`error`].
//!
//! What the rest stands on: a network hands every operand to a [`model::Tap`] and goes on with what comes back, so no network knows of
//! quantization; a pass is a row of steps and can start at any of them ([`model::forward_from`]), on which everything that varies one site
//! stands ([`analysis::suffix`]); every method ends in bounds and a rule ([`quant::SiteQuantizers`]), so one code path quantizes for all;
//! group counts and bits are chosen by one integer program ([`quant::allocate`]); the screen is `update` and `view` over one state.
//!
//! Work is spread over pictures and sites, not over the elements of one tensor ([`cpu`]): two suffix runs side by side are twice as
//! fast as one after the other with all cores. Two inner loops are written for vector instructions, by libraries that choose them at run
//! time: GELU and softmax (`rten-vecmath`), and the search for the nearest quantizer (pulp).
//!
//! Deviations from the first design: a second thread for studies (sweeps, comparisons), so that a long one never delays a run; runs with
//! every operand kept ([`analysis::FloatRun`], [`analysis::QuantizedRun`]) live in `analysis`, because reports and dumps are their only
//! users; the softmax needs no module of its own in `quant`, because its rows take the path of channels with ranges `(0, max)`.

pub mod analysis;
pub mod atomic_write;
pub mod cli;
pub mod cpu;
pub mod engine;
pub mod error;
pub mod input;
pub mod model;
pub mod progress;
pub mod quant;
pub mod session;
pub mod studies;
pub mod tui;

pub use error::{Error, Result};
