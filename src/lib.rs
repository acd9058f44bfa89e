//! Convert and quantize language-model weights: the tool as a library, so that tests, benches and fuzz targets
//! use what the binary uses.
//!
//! A conversion is a chain of stages, each of which makes one value that nobody changes afterwards:
//! [`source`] (files → model), [`plan`] (model, wishes → what every tensor becomes, and where it goes),
//! [`quantize`] (plan → bytes, in bands of rows), [`disk`] (bytes → whole files). [`pipeline`] is the chain.
//! [`verify`] looks at a finished file. [`cli`] is the only place that prints.

#![deny(unsafe_code)]

pub mod arch;
pub mod calibrate;
pub mod card;
pub mod chat;
pub mod cli;
pub mod compare;
pub mod disk;
pub mod error;
pub mod evaluate;
pub mod fit;
pub mod hub;
pub mod machine;
pub mod memory;
pub mod pipeline;
pub mod plan;
pub mod quantize;
pub mod random;
pub mod report;
pub mod runner;
pub mod score;
pub mod sensitivity;
pub mod source;
pub mod tokenizer;
pub mod verify;
pub mod vocab;

pub use error::{Error, Result};
pub use {calibration, formats, kernels};
