//! Step 4 of the data flow: from two runs to a report of plain numbers.

pub mod arithmetic;
mod classes;
pub mod codes;
pub mod detail;
pub mod distribution;
pub mod findings;
pub mod lens;
pub mod mask;
pub mod measure;
pub mod metrics;
pub mod objects;
pub mod prediction;
pub mod report;
pub mod runs;
pub mod suffix;

pub use arithmetic::ArithmeticReport;
pub use prediction::{Divergence, Prediction};
pub use report::{Report, SCHEMA_VERSION, SiteReport};
pub use runs::{FloatRun, QuantizedRun, SiteRun};
