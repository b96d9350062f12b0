//! Step 3 of the data flow: from calibration to a quantized run. The paper's steps are functions with the paper's names.

#![doc = include_str!("METHOD.md")]

pub mod bits;
pub mod bops;
pub mod calibrate;
pub mod choices;
pub mod curvature;
pub mod element;
pub mod fake;
pub mod files;
pub mod fit;
pub mod flags;
pub mod format;
pub mod group;
pub mod integer;
pub mod integer_weight;
pub mod method;
pub mod onnx;
mod pins;
pub mod plan;
pub mod quantizer;
pub mod ranges;
mod rounding;
pub mod run;
pub mod settings;
pub mod smooth;
pub mod solve;
pub mod tiles;
pub mod uniform;
pub mod weight;
pub mod weight_scheme;

pub use bits::{BitWidth, GroupCount};
pub use calibrate::{Calibration, calibrate};
pub use choices::{Arithmetic, Preset, Scope};
pub use fit::{Grouping, Rule, SiteQuantizers};
pub use method::{GeluShape, Method, Scheme, SoftmaxShape};
pub use plan::{FitCache, Part, Plan, SitePlan, plan};
pub use quantizer::Quantizer;
pub use run::{Observation, Start, run};
pub use settings::{Settings, SiteOverride};
pub use uniform::{Bounds, UniformQuantizer};
pub use weight_scheme::{Rounding, WeightScales};
