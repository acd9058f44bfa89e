//! What there is already where the result goes: a checkpoint's folder that has one, files that belong to another model.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::path::PathBuf;

use super::{Container, PlanOptions, is_folder};
use crate::checkpoint::CONFIG;
use crate::error::{Error, Result};

/// Files that transformers reads along with the weights of a folder, besides [`CONFIG`].
const READ_TOO: [&str; 12] = [
    "adapter_config.json",
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
    "generation_config.json",
    "merges.txt",
    "preprocessor_config.json",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "vocab.json",
];

/// Whether a file in a checkpoint's folder has weights, or an index of them.
fn is_weights(name: &str) -> bool {
    name.ends_with(".safetensors")
        || name.ends_with(".safetensors.index.json")
        || name.starts_with("pytorch_model") && (name.ends_with(".bin") || name.ends_with(".bin.index.json"))
}

/// Refuses to replace a checkpoint unless that was asked for, and to put weights beside the tokenizer of another model.
/// Tells which existing files are replaced, and which stay. `paths` are all files of the result.
///
/// # Errors
/// [`Error::Refused`]; [`Error::Io`] if the folder cannot be read.
pub(super) fn check(
    options: &PlanOptions,
    target: Container,
    paths: &[&PathBuf],
    notes: &mut Vec<String>,
) -> Result<()> {
    let folder = &options.out;
    if target == Container::Safetensors && is_folder(folder) && folder.is_dir() {
        let entries = std::fs::read_dir(folder).map_err(|e| Error::io(folder, "read", e))?;
        let mut names: Vec<String> = entries
            .filter_map(|e| e.ok()?.file_name().into_string().ok())
            .filter(|n| !n.starts_with('.'))
            .collect();
        names.sort();
        let shown = folder.display();
        let held: Vec<&String> = names.iter().filter(|n| is_weights(n) || *n == CONFIG).collect();
        if !held.is_empty() && !options.overwrite {
            return Err(Error::refused(format!("{shown}: holds a checkpoint already ({})", several(&held)))
                .or("name another folder; with --overwrite, convert and quantize replace the files of the same names"));
        }
        let written: HashSet<&OsStr> = paths.iter().filter_map(|p| p.file_name()).collect();
        let stays = |n: &&String| !written.contains(OsStr::new(n.as_str()));
        let read: Vec<&String> =
            names.iter().filter(|n| READ_TOO.contains(&n.as_str())).filter(stays).collect();
        if !read.is_empty() && !options.overwrite {
            return Err(Error::refused(format!(
                "{shown}: has files that would be read with the new weights and are not theirs ({})",
                several(&read)
            ))
            .or("name another folder, or move them away; if they are this model's, add --overwrite, which keeps them"));
        }
        let weights = held.into_iter().filter(|n| is_weights(n)).filter(stays);
        let kept: Vec<&String> = read.into_iter().chain(weights).collect();
        if !kept.is_empty() {
            notes.push(format!("in {shown}, files stay that this run does not write: {}", several(&kept)));
        }
    }
    let replaced: Vec<String> =
        paths.iter().filter(|p| p.is_file()).map(|p| p.display().to_string()).collect();
    if !replaced.is_empty() {
        notes
            .push(format!("an existing file is replaced: {}", several(&replaced.iter().collect::<Vec<_>>())));
    }
    Ok(())
}

/// The first of several names, and how many follow: "a and 2 more". At least one.
fn several(names: &[&String]) -> String {
    match names.len() {
        1 => names[0].clone(),
        n => format!("{} and {} more", names[0], n - 1),
    }
}
