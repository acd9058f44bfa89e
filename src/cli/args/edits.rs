//! Changes of metadata.

use clap::Args;
use ggufkit::plan::edit::{Edit, key_value};

/// Changes of metadata.
#[derive(Debug, Args)]
pub struct Edits {
    /// Set a metadata value: KEY=7, KEY=f32:1e-5, KEY=str:text, KEY='[str]:["a","b"]'. Types: u8 i8 u16 i16 u32 i32
    /// u64 i64 f32 f64 bool str, and arrays of them in brackets with a JSON array; without one, the type that the key
    /// has already
    #[arg(long, value_name = "KEY=VALUE", value_parser = key_value)]
    pub set: Vec<(String, String)>,
}

impl Edits {
    pub fn list(&self) -> Vec<Edit> {
        self.set.iter().map(|(k, v)| Edit::Set(k.clone(), v.clone())).collect()
    }
}
