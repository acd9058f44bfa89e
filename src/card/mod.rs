//! stand-in
#![allow(missing_docs)]
use formats::metadata::Metadata;
use std::path::{Path, PathBuf};
pub struct About<'a> {
    pub folder: &'a Path,
    pub config: &'a serde_json::Value,
    pub parameters: u64,
}
pub struct Card {
    pub metadata: Metadata,
    pub notes: Vec<String>,
    pub files: Vec<PathBuf>,
}
pub fn read(_: &About) -> Card {
    Card { metadata: Metadata::new(), notes: vec![], files: vec![] }
}
