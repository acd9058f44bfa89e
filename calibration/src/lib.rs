//! What activations say about weights: pure functions over numbers, without disk, threads, models or unsafe code.
//!
//! * [`statistics`]: what was measured, matrix by matrix, and how much it makes each weight count.
//! * [`summary`]: what they look like, and where they are too little to go by.
//! * [`imatrix`]: llama.cpp's files of such measurements, of both kinds, read and written.
//! * [`budget`]: the best choice for each of many things within a budget.
//! * [`error`]: what is wrong with a file, or why it is not about a model.

#![forbid(unsafe_code)]

pub mod budget;
pub mod error;
pub mod feedback;
pub mod imatrix;
mod merge;
pub mod statistics;
pub mod summary;

pub use error::{Error, Fault, Result};
pub use statistics::{Columns, Entry, Importance, Statistics, Unit};
pub use summary::{Summary, Warning};
