//! Options that change metadata.

use clap::Args;
use ggufkit::plan::edit::{Edit, key_value};

/// Options that change metadata.
#[derive(Debug, Args)]
pub struct Edits {
    /// Set a metadata value; may be repeated. Examples: KEY=7, KEY=f32:1e-5, KEY=str:text, KEY='[str]:["a","b"]'. The
    /// types are u8 i8 u16 i16 u32 i32 u64 i64 f32 f64 bool str; a type in brackets takes a JSON array. Without a type,
    /// an existing key keeps its type, a new one gets the type that programs take for it, and a key of your own the type that
    /// the value looks like
    #[arg(long, value_name = "KEY=VALUE", value_parser = key_value)]
    pub set: Vec<(String, String)>,
}

impl Edits {
    /// The changes, in the order given.
    pub fn list(&self) -> Vec<Edit> {
        self.set.iter().map(|(k, v)| Edit::Set(k.clone(), v.clone())).collect()
    }
}
