//! Step 1 of the data flow: from a picture file to the pixels a model takes.

pub mod batches;
pub mod builtin;
mod canvases;
pub mod classes;
pub mod picture;
pub mod preprocess;
mod processor_classes;
mod processor_keys;
mod processors;
pub mod set;

pub use picture::{Picture, Raster};
pub use preprocess::{Prepared, Preprocess};
pub use set::{LeftOut, PictureSet, PictureSource};
