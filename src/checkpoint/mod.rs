//! Hugging Face checkpoints: a folder with config.json, safetensors and a tokenizer. Reading gives a model with GGUF's
//! tensor names and row order; writing gives a model Hugging Face's names and row order.

mod adapters;
mod bitnet;
pub mod card;
mod foreign;
mod fused;
mod json;
mod layouts;
pub mod left_out;
mod names;
mod other_models;
mod place;
mod quantized;
mod read;
pub mod vocab;
mod write;

use std::path::{Path, PathBuf};

use formats::model::Tensor;
use serde_json::Value as Json;

use crate::arch::{Arch, Config, Heads, Rotary, Rule};
pub use crate::disk::CONFIG;
use crate::disk::{self, InFile, Part};
use crate::error::{Error, Result};
use crate::order;
use crate::source::Source;
use crate::source::view::RowOrder;

pub use adapters::alone as adapter_alone;
pub use foreign::{is_other, pipeline, recognise};
pub use read::{Vocabulary, settings_only, translate};
pub use write::{copied, export};

/// The longest settings file that is read, in bytes. Tokenizer files, which are longer, are read by [`vocab`].
const MOST_JSON: u64 = 2 << 20;

/// The files in a checkpoint's folder that are such parts of it, sorted by name, the settings last.
pub fn beside(folder: &Path, wanted: impl Fn(Part) -> bool) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten();
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let mut names: Vec<String> = names.filter(|name| disk::part(name).is_some_and(&wanted)).collect();
    order::by_key(&mut names, |name| (name == CONFIG, name.clone()));
    names.into_iter().map(|name| folder.join(name)).filter(|path| path.is_file()).collect()
}

/// Reads a JSON file; `None` if there is no such file. Its numbers may be NaN or infinite, as Python writes them.
///
/// # Errors
/// [`Error::Io`] if it cannot be read; those of [`crate::text_file::strict`]; [`Error::InvalidConfig`] if it is too long or not
/// JSON, with the line.
pub fn read_json(path: &Path) -> Result<Option<Json>> {
    let len = match std::fs::metadata(path) {
        Ok(m) => m.len(),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(Error::io(path, "read", e)),
    };
    if len > MOST_JSON {
        let why = format!("a settings file must have at most {MOST_JSON} bytes (found {len})");
        return Err(Error::InvalidConfig { file: path.to_path_buf(), why });
    }
    let file = InFile::open(path, false)?;
    let text = json::text(file.name(), file.read(0, file.len)?.into_owned())?;
    let json = json::parse(text.as_bytes(), MOST_JSON).map_err(|e| {
        let why = if e.is_data() { e.to_string() } else { format!("is not JSON: {e}") };
        Error::InvalidConfig { file: path.to_path_buf(), why }
    })?;
    Ok(Some(json))
}

/// What the settings of a checkpoint that was left as it was filed say and nobody computes, for a command that shows it. Nothing
/// for settings that cannot be read: what needs them says why.
pub fn setting_notes(source: &Source) -> Vec<String> {
    let path = source.filed.last().filter(|path| path.ends_with(CONFIG));
    let json = path.and_then(|path| read_json(path).ok().flatten());
    let config = json.and_then(|json| Config::from_hub(&json).ok());
    config.map_or_else(Vec::new, |config| config.notes)
}

/// How Hugging Face's rows of a tensor are reordered for GGUF. Each element of a vector is a row.
fn rows(arch: &Arch, config: &Config, rule: &Rule) -> RowOrder {
    match (arch.rotary, rule.heads) {
        (Rotary::Halves, _) | (_, Heads::None) => RowOrder::Same,
        (Rotary::Pairs, _) => RowOrder::Interleave { head: config.head },
    }
}

/// The setting of config.json that says whether a checkpoint has this bias (by its Hugging Face name): without it,
/// transformers does not read the tensor.
fn bias_switch(name: &str) -> &'static str {
    if name.contains(".mlp.") { "mlp_bias" } else { "attention_bias" }
}

/// Checks that a tensor has the shape that the settings ask for.
fn check_shape(t: &Tensor, expected: &[u64]) -> Result<()> {
    if t.shape == expected {
        return Ok(());
    }
    if t.shape == [0] {
        return Err(Error::refused(format!(
            "tensor {}: is empty (expected shape {expected:?}), as DeepSpeed's ZeRO-3 leaves it in a file of one process",
            t.name
        ))
        .or(foreign::ZERO3));
    }
    Err(Error::WrongShape { tensor: t.name.clone(), expected: expected.to_vec(), found: t.shape.clone() })
}
