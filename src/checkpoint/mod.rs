//! Checkpoints as Hugging Face's hub has them: a folder with config.json, safetensors and a tokenizer. Read, they
//! become a model under GGUF's names, in GGUF's order of rows; written, a model gets their names and order back.

mod bitnet;
pub mod card;
mod read;
pub mod vocab;
mod write;

use std::path::Path;

use formats::model::Tensor;
use serde_json::Value as Json;

use crate::arch::{Arch, Config, Heads, Rotary, Rule};
use crate::disk::InFile;
use crate::error::{Error, Result};
use crate::source::view::RowOrder;

pub use read::{CONFIG, Vocabulary, settings_only, translate};
pub use write::export;

/// The longest settings file that is read: tokenizers, which are longer, are read elsewhere.
const MOST_JSON: u64 = 16 << 20;

/// Reads a JSON file, if it is there.
///
/// # Errors
/// The system's; what is no JSON, with the line.
pub fn read_json(path: &Path) -> Result<Option<Json>> {
    let len = match std::fs::metadata(path) {
        Ok(m) => m.len(),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(Error::io(path, "read", e)),
    };
    if len > MOST_JSON {
        return Err(Error::refused(format!("{}: {len} bytes are too many for settings", path.display())));
    }
    let file = InFile::open(path, false)?;
    let text = file.read(0, file.len)?;
    // Some editors put a byte order mark first.
    let json = serde_json::from_slice(text.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(&text))
        .map_err(|e| Error::refused(format!("{}: is no JSON: {e}", path.display())))?;
    Ok(Some(json))
}

/// The order of a tensor's rows in GGUF, from Hugging Face's. Vectors have elements for rows.
fn rows(arch: &Arch, config: &Config, rule: &Rule) -> RowOrder {
    match (arch.rotary, rule.heads) {
        (Rotary::Halves, _) | (_, Heads::None) => RowOrder::Same,
        (Rotary::Pairs, _) => RowOrder::Interleave { head: config.head },
    }
}

/// The setting that says whether a checkpoint has this optional tensor, a bias: without it, transformers leaves the
/// tensor unread.
fn bias_switch(name: &str) -> &'static str {
    if name.contains(".mlp.") { "mlp_bias" } else { "attention_bias" }
}

/// A tensor's shape, if it is another than the settings ask for, in words.
fn misshapen(t: &Tensor, wanted: &[u64], config: &Config) -> Option<String> {
    if t.shape == wanted {
        return None;
    }
    let why = match t.shape.first().zip(wanted.first()) {
        Some((rows, vocab)) if *vocab == config.vocab && t.shape[1..] == wanted[1..] => {
            format!("it has {rows} rows, and the vocabulary (vocab_size) is {vocab}")
        }
        _ => format!("the settings ask for {wanted:?}"),
    };
    Some(format!("tensor {} has shape {:?}; {why}", t.name, t.shape))
}
