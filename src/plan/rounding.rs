//! How weights are rounded where they are quantized: what an error counts, and how hard the best scales are looked
//! for.

use std::collections::HashSet;
use std::path::Path;

use calibration::imatrix::HASH;
use calibration::{Columns, Importance, Statistics};
use formats::block::{Effort, Objective};
use formats::metadata::{Metadata, Value};
use formats::model::{Encoding, Tensor};

use super::Step;
use super::edit::Edit;
use crate::error::{Error, Result};
use crate::scheme::{Role, role};

/// What the user asks for.
#[derive(Debug, Clone, Default)]
pub struct Rounding {
    /// What the model's activations say, if they were measured.
    pub importance: Option<Statistics>,
    /// What is made least; each type's own choice if not given.
    pub objective: Option<Objective>,
    /// How hard to look for it.
    pub effort: Effort,
    /// How matrices find their codes, where that is not each block by itself.
    pub method: Option<&'static str>,
    /// Whether quantized matrices get biases that make up for their mean error.
    pub bias: bool,
}

/// What encoders of a plan's tensors are told.
#[derive(Debug, Default)]
pub struct Search {
    /// What is made least; each type's own choice if not given.
    pub objective: Option<Objective>,
    /// How hard to look for it.
    pub effort: Effort,
    /// How matrices find their codes, where that is not each block by itself.
    pub method: Option<&'static str>,
    /// Whether quantized matrices get biases that make up for their mean error.
    pub bias: bool,
    /// What is known of the importance of columns, if it is used.
    pub known: Option<Known>,
    /// One for each tensor of the layout, or none at all.
    importance: Vec<Option<Importance>>,
}

/// Where importances come from, and how far they reach.
#[derive(Debug, Clone, PartialEq)]
pub struct Known {
    /// The file of statistics.
    pub file: String,
    /// Tensors that it has something about.
    pub entries: usize,
    /// Chunks of text that it was made of, if it says so.
    pub chunks: Option<u64>,
    /// The names of the texts; of those that were paths, the last part.
    pub datasets: Vec<String>,
    /// A hash of the texts, if the statistics have one.
    pub hash: Option<String>,
    /// Tensors that are quantized with importances.
    pub used: usize,
    /// Tensors that are quantized.
    pub quantized: usize,
}

impl Search {
    /// The importances of a tensor of the layout, to be read.
    pub fn columns(&self, tensor: usize) -> Option<Columns<'_>> {
        self.importance.get(tensor)?.as_ref().map(Importance::columns)
    }
}

impl Known {
    /// In words: "28 of 30 quantized tensors by imatrix.gguf (7 chunks of text.txt)".
    pub fn summary(&self) -> String {
        let chunks = self.chunks.map(|n| if n == 1 { "1 chunk".into() } else { format!("{n} chunks") });
        let texts = Some(self.datasets.join(", ")).filter(|t| !t.is_empty());
        let made = match (chunks, texts) {
            (Some(chunks), Some(texts)) => format!(" ({chunks} of {texts})"),
            (Some(one), None) | (None, Some(one)) => format!(" ({one})"),
            (None, None) => String::new(),
        };
        format!("{} of {} quantized tensors by {}{made}", self.used, self.quantized, self.file)
    }
}

/// Finds the importances of a plan's tensors.
///
/// # Errors
/// Statistics of another model: of other sizes, or without a name in common.
pub(super) fn search(
    options: &Rounding,
    steps: &[Step],
    tensors: &[Tensor],
    notes: &mut Vec<String>,
) -> Result<Search> {
    let Rounding { objective, effort, method, bias, .. } = *options;
    let search = Search { objective, effort, method, bias, ..Search::default() };
    let Some(statistics) = &options.importance else { return Ok(search) };
    let file = &statistics.file;
    notes.extend(statistics.notes.iter().cloned());
    let names: HashSet<&str> = tensors.iter().map(|t| t.name.as_str()).collect();
    let strange: Vec<_> = statistics.entries.keys().filter(|name| !names.contains(name.as_str())).collect();
    match strange.first() {
        Some(first) if strange.len() == statistics.entries.len() => {
            return Err(Error::refused(format!(
                "{file}: the model has none of its tensors, such as {first}"
            ))
            .or("an imatrix belongs to one model, or to others of the same shape and names"));
        }
        Some(first) => {
            notes.push(format!("{file}: the model has no {}", and_more(first, strange.len() - 1)));
        }
        None => {}
    }
    let (mut importance, mut quantized, mut missing) = (Vec::with_capacity(tensors.len()), 0, Vec::new());
    for (step, t) in steps.iter().zip(tensors) {
        // A wrong size is an error even where it would do no harm: the file is not of this model.
        let found = statistics.importance(&t.name, &t.shape)?;
        let rounded = step.from != t.encoding && !t.encoding.is_plain();
        let takes = rounded && matches!(t.encoding, Encoding::Blocks(_));
        quantized += usize::from(rounded);
        // Inputs of the embedding are not numbers, and those of the output are rarely measured.
        if takes && found.is_none() && !matches!(role(&t.name), Role::Embedding | Role::Output) {
            missing.push(&t.name);
        }
        importance.push(found.filter(|_| takes));
    }
    if let Some(first) = missing.first() {
        let names = and_more(first, missing.len() - 1);
        notes.push(format!("{file} says nothing about {names}: all columns count alike there"));
    }
    let used = importance.iter().flatten().count();
    if used == 0 {
        notes.push(format!("{file} is not used: no tensor that it knows is quantized"));
        return Ok(search);
    }
    let known = Known {
        file: file.clone(),
        entries: statistics.entries.len(),
        chunks: statistics.chunks,
        datasets: statistics.datasets.iter().map(|d| last_part(d)).collect(),
        hash: statistics.metadata.text(HASH).map(str::to_string),
        used,
        quantized,
    };
    Ok(Search { known: Some(known), importance, ..search })
}

/// "a", "a and 3 more".
fn and_more(first: &str, more: usize) -> String {
    if more == 0 { first.to_string() } else { format!("{first} and {more} more") }
}

/// The last part of a path, as any system writes it.
fn last_part(path: &str) -> String {
    path.rsplit(['/', '\\']).find(|part| !part.is_empty()).unwrap_or_default().to_string()
}

/// What a GGUF says about the importances that it was made with: the keys and types of llama-quantize.
pub(super) fn gguf_metadata(search: &Search, edits: &[Edit], metadata: &mut Metadata) {
    let Some(known) = &search.known else { return };
    let count = |n: u64| Value::U32(u32::try_from(n).unwrap_or(u32::MAX));
    // Names only: files are published, and where they lay on somebody's machine is nobody's business.
    let file = Path::new(&known.file).file_name().unwrap_or_default().to_string_lossy();
    let values = [
        ("quantize.imatrix.file", Some(Value::text(&file))),
        ("quantize.imatrix.dataset", known.datasets.first().map(|d| Value::text(d))),
        ("quantize.imatrix.entries_count", Some(count(known.entries as u64))),
        ("quantize.imatrix.chunks_count", known.chunks.map(count)),
        (HASH, known.hash.as_deref().map(Value::text)),
        ("ggufkit.method", search.method.map(Value::text)),
        ("ggufkit.bias_correction", search.bias.then_some(Value::Bool(true))),
    ];
    for (key, value) in values {
        if edits.iter().any(|e| matches!(e, Edit::Set(k, _) if k == key)) {
            continue;
        }
        match value {
            Some(value) => metadata.set(key, value),
            // What another file was made with.
            None => drop(metadata.remove(key)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_left_at_home() {
        for (path, name) in [
            ("/home/someone/texts/a.txt", "a.txt"),
            ("C:\\Users\\someone\\a.txt", "a.txt"),
            ("a.txt", "a.txt"),
            ("texts/", "texts"),
            ("", ""),
        ] {
            assert_eq!(last_part(path), name);
        }
    }

    #[test]
    fn what_is_known_is_said_in_a_line() {
        let mut known = Known {
            file: "i.dat".into(),
            entries: 28,
            chunks: Some(7),
            datasets: vec!["a".into(), "b".into()],
            hash: None,
            used: 28,
            quantized: 30,
        };
        assert_eq!(known.summary(), "28 of 30 quantized tensors by i.dat (7 chunks of a, b)");
        known.datasets.clear();
        assert_eq!(known.summary(), "28 of 30 quantized tensors by i.dat (7 chunks)");
        known.chunks = None;
        assert_eq!(known.summary(), "28 of 30 quantized tensors by i.dat");
    }
}
