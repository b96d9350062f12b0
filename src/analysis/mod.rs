//! Step 4 of the data flow: from two runs to a report of plain numbers.

pub mod allocation;
pub mod findings;
pub mod measure;
pub mod metrics;
pub mod perturbation;
pub mod report;
pub mod runs;
pub mod sensitivity;
pub mod suffix;
pub mod suggestion;
pub mod verify;

pub use report::{Report, SCHEMA_VERSION, SiteReport};
pub use runs::{FloatRun, QuantizedRun, SiteRun};
