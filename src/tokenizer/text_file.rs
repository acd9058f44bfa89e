//! Text files as a run reads them.

use std::path::Path;

use crate::disk::RunFiles;
use crate::error::Result;

pub use crate::text_file::{Decoded, decode, strict};

/// Reads a text file.
///
/// # Errors
/// Those of [`RunFiles::read_text`] and [`decode`].
pub fn read(run: &RunFiles, path: &Path) -> Result<Decoded> {
    decode(&path.display().to_string(), &run.read_text(path)?)
}
