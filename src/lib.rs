//! igq: see a vision transformer being quantized, live. This page is the architecture.
//!
//! One direction of data, and a reader can follow it folder by folder:
//!
//! picture → input tensor → activations at sites → calibration → grouping → quantized run → analysis → report → event → message → frame
//!
//! | folder | does | may not use |
//! |---|---|---|
//! | ground: [`error`], [`progress`], [`atomic_write`], [`memory`], [`mod@read`], [`mod@clean`], [`number`], [`cpu`] | errors; progress, counters, cancelling; whole files or none; how much memory a run may take; reading what a user names; foreign text; numbers for people; threads of a tensor operation | anything below |
//! | [`input`] | pictures: decode, orient, resize, crop, normalise; sets of pictures; [`input::batches`] alone loads and stacks | threads, terminal |
//! | [`model`] | networks, sites, taps; [`model::checkpoint`]: files, names, configuration, the Hub | image, terminal |
//! | [`quant`] | the method: calibrate, fit, assign, plan, bit operations, the integer program; [`mod@quant::run`] alone runs a plan | clock, stdout, input |
//! | [`analysis`] | [`analysis::prediction`] alone compares predictions; suffix runs, measures, details, the report | clock, stdout |
//! | [`session`] | one model, one calibration, some pictures; answers in stages; the cache | threads |
//! | [`studies`] | one question a file: evaluate, coco (detectors), perturbation, allocate, mixed, sensitivity, suggest, repair, compare, flips, diff, export, inspect, verify, dump; [`studies::judge`] alone says whether something found is worth taking | threads |
//! | [`engine`] | threads and channels and nothing else | terminal |
//! | [`tui`] | state, update, view, keys, themes, frames | candle, the inside of quant |
//! | [`cli`] | what was typed, the commands without a screen, what they print; alone names clap | |
//!
//! Each may use what stands above it and nothing below; no file stands on a circle. `tests/layering.rs` holds every file to that.
//!
//! What the rest stands on: a network hands every operand to a [`model::Tap`] and goes on with what comes back, so no network knows of
//! quantization; a pass is a row of steps and can start at any of them ([`model::forward_from`]), on which everything that varies one site
//! stands ([`analysis::suffix`]); every method is one file and one row ([`quant::method`]) and ends in bounds and a rule
//! ([`quant::SiteQuantizers`]), so one code path quantizes for all; group counts and bits are chosen by one integer program
//! ([`quant::solve`]); a classifier is a detector with one query and no boxes ([`model::Output`], [`analysis::objects`]), and sweeps, suggestions and tables know a
//! [`analysis::Divergence`] only; the screen is `update` and `view` over one state.
//!
//! Matrix products are `rten-gemm`'s, with weights packed once ([`model::kernels`]); what stands between them works on slices, in place where
//! the tensor is the operation's own, and is spread over rows and pictures by rayon, which steals work at every level: one picture uses all
//! cores, many pictures use one each. Candle remains the container of tensors, and its operations the way of gradients. Inner loops are
//! compiled for several levels of vector instructions and chosen at run time (`multiversion`); GELU and softmax are `rten-vecmath`'s, the
//! search for the nearest quantizer is written for pulp; GPTQ's factor is faer's. Products of codes ([`quant::integer`]) are `rten-gemm`'s too.
//!
//! A key comes first: studies run on threads of lowest priority and stand still at a [`progress::Gate`] until an answer is measured; a
//! run takes over from the one before what comes before the first difference of their plans ([`quant::Plan::first_change`]); while nobody
//! waits, the settings one key away are planned and run.
//!
//! A method is an assignment and a scale: groups of channels that are fixed, fitted or this picture's, and one scale a group
//! ([`quant::fit`]) or one for every token's values in it ([`quant::tiles`], [`mod@quant::format`]); block formats are the case of neighbouring channels. Weights
//! are rounded with what calibration keeps of a layer's inputs ([`quant::curvature`], [`quant::weight`]). A network draws itself into an ONNX graph beside
//! its forward pass ([`model::graph`]), and a plan draws its quantizers there ([`quant::onnx`]).
//!
//! Deviations from the design: a method's row and its fit stand in one file under `quant/method/` instead of a table beside a folder
//! `fit/`, because two places a method were one too many; [`quant::fit`] is the form in which all of them end. `quant::run` is three
//! functions over one private tap (logits only, every site shown, every boundary kept), because each caller keeps something else; its
//! arithmetic belongs to the plan, because every study runs in it. A detector with a first stage runs from
//! there twice where proposals are pinned ([`model::Output::free`]): once for the KL, once for the objects, in one pass and behind one tap.
//! What stands between two steps is a [`model::Stream`]: a detector of regions takes the maps of all stages along, which boundaries share instead of copying. Its slots are
//! regions and its objects what is left of them ([`model::output::Objects`]); the enlargement of its masks is no site, because no scope quantizes it.
//! The Hub is asked by a client of our own ([`model::checkpoint`]), because the crate `hf-hub` sends the access token wherever a redirect
//! leads, panics where an answer lacks a header, and sets no limit on time, size or redirects.
//! A second thread runs studies, so that a long one never delays a run.
//!
//! The whole program without a screen:
//!
//! ```
//! use igq::progress::Cancel;
//! use igq::session::{Options, Session};
//!
//! # fn main() -> igq::Result<()> {
//! let options = Options { calibration_images: 4, ..Options::default() };
//! let session = Session::open(&options, &|_| ())?;
//! let outcome = session.run(0, &options.settings, &Cancel::default())?;
//! println!("KL {:.4}. {}", outcome.report.prediction.kl, outcome.report.verdict);
//! # assert_eq!(outcome.report.sites.len(), 50);
//! # Ok(())
//! # }
//! ```

pub mod analysis;
pub mod atomic_write;
pub mod clean;
pub mod cli;
pub mod cpu;
pub mod engine;
pub mod error;
pub mod input;
pub mod memory;
pub mod model;
pub mod number;
pub mod progress;
pub mod quant;
pub mod read;
pub mod session;
pub mod studies;
pub mod tui;

pub use error::{Error, Result};
