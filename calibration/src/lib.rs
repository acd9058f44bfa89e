//! What activations say about weights: pure functions over numbers, without disk, threads, models or unsafe code.
//!
//! * [`statistics`]: what was measured, matrix by matrix, and how much it makes each weight count.
//! * [`imatrix`]: llama.cpp's files of such measurements, of both kinds.
//! * [`error`]: what is wrong with a file, or why it is not about a model.

#![forbid(unsafe_code)]

pub mod error;
pub mod imatrix;
pub mod statistics;

pub use error::{Error, Fault, Result};
pub use statistics::{Columns, Entry, Importance, Statistics};
