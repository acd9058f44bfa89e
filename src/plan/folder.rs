//! What there is already where the result goes: a checkpoint's folder that has one, files that belong to another model.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::path::PathBuf;

use formats::container::safetensors;

use super::container::stem;
use super::{Container, PlanOptions, is_folder};
use crate::checkpoint::CONFIG;
use crate::disk::{self, Replaces, RunFiles};
use crate::error::{Error, Result};
use crate::source::Source;
use crate::text::bytes;

/// The longest index that is read, in bytes.
const MOST_INDEX: u64 = 256 << 20;

/// What transformers, vLLM, llama.cpp's converter and others read along with the weights of a folder, besides [`CONFIG`].
const READ_TOO: [&str; 27] = [
    "adapter_config.json",
    "adapter_model.bin",
    "added_tokens.json",
    "additional_chat_templates",
    "chat_template.jinja",
    "chat_template.json",
    "generation_config.json",
    "hf_quant_config.json",
    "merges.txt",
    "modules.json",
    "params.json",
    "preprocessor_config.json",
    "processor_config.json",
    "quant_config.json",
    "quantize_config.json",
    "sentencepiece.bpe.model",
    "sentencepiece.model",
    "special_tokens_map.json",
    "spiece.model",
    "tekken.json",
    "tiktoken.model",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "video_preprocessor_config.json",
    "vocab.json",
    "vocab.txt",
];

/// Whether programs read such a file, or folder, along with the weights beside it.
fn is_read_too(name: &str) -> bool {
    // Versions of Mistral's tokenizers have a number behind the name.
    READ_TOO.contains(&name) || name.starts_with("tokenizer.model.v") || name.ends_with(".tiktoken")
}

/// Whether a file in a checkpoint's folder has weights, or an index of them.
fn is_weights(name: &str) -> bool {
    name.ends_with(".safetensors")
        || name.ends_with(".safetensors.index.json")
        || name.starts_with("pytorch_model") && (name.ends_with(".bin") || name.ends_with(".bin.index.json"))
}

/// Refuses to replace a checkpoint unless that was asked for, and to put weights beside the tokenizer of another model.
/// Tells which existing files are replaced, and which stay. `weights` are the files of the result that have weights, and
/// `paths` all. Gives what the result takes the place of.
///
/// # Errors
/// [`Error::Refused`]; [`Error::WouldOverwrite`] for old weights that the run reads; [`Error::Io`] if the folder or an index
/// in it cannot be read.
pub(super) fn check(
    source: &Source,
    options: &PlanOptions,
    target: Container,
    (weights, paths): (&[PathBuf], &[&PathBuf]),
    notes: &mut Vec<String>,
) -> Result<Replaces> {
    let folder = &options.out;
    let mut replaces = Replaces::default();
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
                .or("name another folder; with --overwrite, its weights, its settings and files of the same names are replaced"));
        }
        replaces = replaced(source, options, weights, paths)?;
        let written: HashSet<&OsStr> = paths.iter().filter_map(|p| p.file_name()).collect();
        let removed: HashSet<&OsStr> = replaces.remove.iter().filter_map(|p| p.file_name()).collect();
        let gone = |n: &OsStr| written.contains(n) || removed.contains(n);
        let stays = |n: &&String| !gone(OsStr::new(n.as_str()));
        let read: Vec<&String> = names.iter().filter(|n| is_read_too(n)).filter(stays).collect();
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
    } else if target == Container::Safetensors {
        replaces = replaced(source, options, weights, paths)?;
    }
    if !replaces.remove.is_empty() {
        let old: Vec<String> = replaces.remove.iter().map(|p| p.display().to_string()).collect();
        let size = replaces.remove.iter().filter_map(|p| Some(p.metadata().ok()?.len())).sum();
        notes.push(format!(
            "once the new weights are in place, what is left of the old ones is removed: {} ({})",
            several(&old.iter().collect::<Vec<_>>()),
            bytes(size)
        ));
    }
    let replaced: Vec<String> =
        paths.iter().filter(|p| p.is_file()).map(|p| p.display().to_string()).collect();
    if !replaced.is_empty() {
        notes
            .push(format!("an existing file is replaced: {}", several(&replaced.iter().collect::<Vec<_>>())));
    }
    Ok(replaces)
}

/// What the new weights take the place of, if that was asked for: the index that loaders would go by, with the shards that
/// it names, or the single file that they would read instead of the new shards.
///
/// # Errors
/// Those of [`check`].
fn replaced(
    source: &Source,
    options: &PlanOptions,
    weights: &[PathBuf],
    paths: &[&PathBuf],
) -> Result<Replaces> {
    let Some(first) = weights.first() else { return Ok(Replaces::default()) };
    let is_new = |path: &PathBuf| paths.contains(&path);
    let index = first.with_file_name(format!("{}.safetensors.index.json", stem(first)));
    let single = first.with_file_name("model.safetensors");
    let mut remove = Vec::new();
    let mut read_instead = |path: &PathBuf, what: String| {
        remove.push(path.clone());
        match options.overwrite {
            true => Ok(()),
            false => Err(Error::refused(what)
                .or("write to another folder, or add --overwrite, which removes the old weights when the new ones are in place")),
        }
    };
    if weights.len() > 1 && stem(first) == "model" && single.is_file() {
        let what = format!("loaders would read {} instead of the new shards", single.display());
        read_instead(&single, what)?;
    }
    if index.is_file() && !is_new(&index) {
        let what = format!("loaders would read the files of {} instead of the new model", index.display());
        read_instead(&index, what)?;
    }
    if !options.overwrite {
        return Ok(Replaces::default());
    }
    if index.is_file() {
        // It is no input of this run, which may remove it.
        let json = RunFiles::default().read(&index, MOST_INDEX)?;
        // A damaged index names no files, and nobody can have read any by it.
        let names = safetensors::read_index(&index.display().to_string(), &json).unwrap_or_default();
        let shards = names.into_iter().map(|name| first.with_file_name(name));
        remove.extend(shards.filter(|path| path.is_file() && !is_new(path)));
    }
    remove.iter().try_for_each(|path| source.run.refuse_input(path))?;
    let settings = disk::folder(first).join(CONFIG);
    let is_set = is_folder(&options.out) || !remove.is_empty();
    Ok(Replaces { settings: Some(settings).filter(|path| is_set && path.is_file()), remove })
}

/// The first of several names, and how many follow: "a and 2 more". At least one.
fn several(names: &[&String]) -> String {
    match names.len() {
        1 => names[0].clone(),
        n => format!("{} and {} more", names[0], n - 1),
    }
}
