//! Calibration: what the inputs of a model's matrices, measured on a text, are used for in quantization. Pure functions over
//! numbers: no disk, no threads, no models, no unsafe code.
//!
//! * [`statistics`]: the mean squares of the inputs of each matrix, and the importance of each weight that follows.
//! * [`imatrix`]: llama.cpp's importance matrix files, of both kinds, read and written.
//! * [`summary`]: figures about statistics, and warnings where too little was measured.
//! * [`feedback`]: GPTQ and coordinate descent for a panel of columns.
//! * [`panel`]: the columns of such a panel, taken out of a row's blocks and put back.
//! * [`factor`]: the Cholesky factorization of a Hessian, within a block of columns.
//! * [`rows`]: sums, differences and scales of rows of numbers.
//! * [`budget`]: the multiple-choice knapsack: a type for each tensor within a number of bytes.
//! * [`error`]: what is wrong with a file of statistics, or why it does not belong to a model.
//!
//! # Writing and reading an importance matrix
//!
//! ```
//! use calibration::{Entry, Statistics, imatrix};
//!
//! // The sums of the squared inputs of a matrix of four columns, over 100 tokens.
//! let entry = Entry::new(vec![100.0, 25.0, 400.0, 0.0], vec![100]).expect("finite sums that fit the counts");
//! let mut statistics = Statistics { file: "imatrix.gguf".into(), ..Statistics::default() };
//! statistics.entries.insert("blk.0.attn_q.weight".into(), entry.into());
//!
//! let bytes = imatrix::write(&statistics)?;
//! let read = imatrix::read("imatrix.gguf", &bytes)?;
//! assert_eq!(read.entries, statistics.entries);
//!
//! // The importance of the weights of the second row of that matrix, [3, 4].
//! let importance = read.importance("blk.0.attn_q.weight", &[3, 4])?.expect("it was measured");
//! assert_eq!(importance.columns().of(4..8), [1.0, 0.25, 4.0, 0.0]);
//! # Ok::<(), calibration::Error>(())
//! ```

#![forbid(unsafe_code)]

pub mod budget;
pub mod error;
pub mod factor;
pub mod feedback;
pub mod imatrix;
mod merge;
pub mod panel;
pub mod rows;
pub mod statistics;
pub mod summary;

pub use error::{Error, Fault, Result};
pub use statistics::{Columns, Entry, Importance, Statistics, Unit};
pub use summary::{Summary, Warning};

/// The examples of the README are tested with those of the documentation.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
pub struct Readme;
