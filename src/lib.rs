//! Convert and quantize language-model weights: the tool as a library, so that tests, benches and fuzz targets
//! use what the binary uses.
//!
//! A conversion is a chain of stages, each of which makes one value that nobody changes afterwards:
//! [`source`] (files → model), [`plan`] (model, options → what every tensor becomes, and where it goes),
//! [`quantize`] (plan → bytes, in bands of rows), [`disk`] (bytes → whole files). [`pipeline`] is the chain.
//! [`verify`] looks at a finished file. Nothing here prints: that is left to the command line.

#![deny(unsafe_code)]

pub mod allocate;
pub mod arch;
pub mod calibrate;
#[cfg(feature = "chat")]
pub mod chat;
pub mod checkpoint;
pub mod disk;
pub mod error;
pub mod evaluate;
pub mod kind;
pub mod machine;
pub mod memory;
mod open;
mod order;
pub mod outcome;
pub mod pipeline;
pub mod plan;
pub mod quantize;
pub mod random;
pub mod report;
pub mod resources;
pub mod runner;
pub mod scheme;
pub mod score;
pub mod sensitivity;
pub mod source;
pub mod text;
pub mod text_file;
pub mod tokenizer;
pub mod verify;

pub use error::{Error, Result};
pub use open::{Options, open, open_in};
pub use {calibration, formats, kernels};
