//! Text files as a run reads them.

use std::path::Path;

use crate::disk::{RunFiles, instead};
use crate::error::Result;
use crate::kind::Wanted;

pub use crate::text_file::{Decoded, decode, strict};

/// Reads a text file.
///
/// # Errors
/// Those of [`RunFiles::read_text`] and [`decode`].
pub fn read(run: &RunFiles, path: &Path) -> Result<Decoded> {
    let bytes = run.read_text(path).map_err(|e| instead(path, Wanted::TEXT, e))?;
    decode(&path.display().to_string(), &bytes)
}
