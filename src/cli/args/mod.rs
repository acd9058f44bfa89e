//! Options that several commands share.

mod container;
mod edits;
mod fit;
mod input;
mod output;
mod resources;
mod rounding;
mod scheme;
mod types;

pub use container::{Endian, FormatName, machines};
pub use edits::Edits;
pub use fit::SizeBudget;
pub use input::{Input, notes};
pub use output::Output;
pub use resources::{KvTypeName, Resources, Running};
pub use rounding::Rounding;
pub use scheme::{find_scheme, scheme_or_keep, tensor_rule};
pub use types::{Types, types};
