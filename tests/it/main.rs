//! The tests from end to end, as one binary: each module does what users do, with the program or the library, on files
//! that are in the tree or made here.

mod common;

mod answers;
mod arguments;
mod beside;
mod bitnet;
mod calibrate;
mod checkpoints;
mod cli;
mod edits;
mod effects;
mod eval;
mod files;
mod fit;
mod folders;
mod found;
mod gguf;
mod golden;
mod gptq;
mod hints;
mod hostile;
mod hub;
mod imatrix;
mod kept;
mod kinds;
mod limits;
mod machines;
mod meaning;
mod nvfp4;
mod outputs;
mod plans;
mod pytorch;
#[cfg(unix)]
mod readme;
mod replace;
mod robustness;
mod run;
mod sets;
mod settings;
mod stale;
mod structure;
mod tensors;
mod texts;
mod types;
mod usage;
mod values;
mod vocab;
