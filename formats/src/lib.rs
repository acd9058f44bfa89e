//! Model files as bytes: the tensor types of GGUF and safetensors, and the containers that hold them. The crate touches
//! no disk, starts no threads and has no unsafe code.
//!
//! * [`model`]: what a reader gives: tensors, and where their bytes are; [`metadata`]: the typed settings beside them.
//! * [`block`]: how weights are packed. One list of all tensor types, and one file for each family of codecs.
//! * [`container`]: GGUF, safetensors and llama2.c: a reader and a writer of each; a reader of PyTorch's files.
//! * [`error`]: what is wrong with a file, and at which byte.
//!
//! A reader is a pure function from the first bytes of a file and the file's length to a [`model::Model`] that says where
//! every tensor is; the caller chooses between a memory map and plain reads. A writer is a pure function from metadata
//! and tensor shapes to a [`container::Layout`]: the bytes that are known beforehand, and the location of each tensor.
//!
//! # Writing and reading a GGUF
//!
//! ```
//! use formats::block::DType;
//! use formats::container::gguf::{self, Options, Split};
//! use formats::metadata::{Metadata, Value};
//! use formats::model::{ByteOrder, Encoding, Input, Location, Tensor};
//!
//! let mut metadata = Metadata::new();
//! metadata.set("general.architecture", Value::text("llama"));
//! let tensors = [Tensor {
//!     name: "output_norm.weight".into(),
//!     shape: vec![4],
//!     encoding: Encoding::Blocks(DType::F32),
//!     location: Location::default(), // the writer decides
//! }];
//! let options = Options { order: ByteOrder::Little, split: Split::None };
//! let layout = gguf::layout("tiny.gguf", &metadata, &tensors, options)?;
//!
//! // Whoever writes the file puts the known bytes and the weights where the layout says.
//! let mut file = vec![0; layout.files[0].len as usize];
//! for (offset, bytes) in &layout.files[0].fixed {
//!     file[*offset as usize..][..bytes.len()].copy_from_slice(bytes);
//! }
//! let location = layout.tensors[0].location;
//! let weights: Vec<u8> = [1.0f32, 2.0, 3.0, 4.0].iter().flat_map(|x| x.to_le_bytes()).collect();
//! file[location.offset as usize..][..location.len as usize].copy_from_slice(&weights);
//!
//! let model = gguf::read(&Input::whole("tiny.gguf", &file))?;
//! assert_eq!(model.tensors, layout.tensors);
//! assert_eq!(model.metadata.text("general.architecture"), Some("llama"));
//! # Ok::<(), formats::Error>(())
//! ```
//!
//! [`DType::decode`](block::DType::decode) and [`DType::encode`](block::DType::encode) have examples of packing weights.

#![forbid(unsafe_code)]

pub mod block;
pub mod container;
pub mod error;
pub mod metadata;
pub mod model;
#[cfg(test)]
mod published;

pub use error::{Error, Fault, Result};

/// The examples of the README are tested with those of the documentation.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
pub struct Readme;
