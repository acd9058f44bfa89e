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

/// Parses a number of things of which there must be one.
pub fn at_least_one(text: &str) -> Result<usize, String> {
    let number = text.parse().ok().filter(|n| *n > 0);
    number.ok_or_else(|| format!("{text:?} must be an integer of at least 1"))
}
