pub mod analysis;
pub mod error;
pub mod input;
pub mod model;
pub mod quant;
pub use error::{Error, Result};
