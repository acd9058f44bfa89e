//! How quantized weights are rounded: the importance of errors, what the scale search minimises, and how thoroughly it
//! searches.

use std::collections::HashSet;
use std::path::Path;

use calibration::imatrix::HASH;
use calibration::{Columns, Importance, Statistics};
use formats::block::{Effort, Objective};
use formats::metadata::{Metadata, Value};
use formats::model::{Encoding, Tensor};

use super::Decision;
use super::edit::Edit;
use crate::error::{Error, Result};
use crate::scheme::{Role, role};

/// The options for rounding.
#[derive(Debug, Clone, Default)]
pub struct Rounding {
    /// The importance matrix, if there is one.
    pub importance: Option<Statistics>,
    /// What the scale search minimises; by default the type's own choice.
    pub objective: Option<Objective>,
    /// How thoroughly it searches.
    pub effort: Effort,
    /// The name of the quantization algorithm, if not the search of each block.
    pub method: Option<&'static str>,
    /// Whether quantized matrices get biases that cancel their mean error.
    pub bias: bool,
}

/// The settings of the encoders for a plan's tensors.
#[derive(Debug, Default)]
pub struct Search {
    /// What the scale search minimises; by default the type's own choice.
    pub objective: Option<Objective>,
    /// How thoroughly it searches.
    pub effort: Effort,
    /// The name of the quantization algorithm, if not the search of each block.
    pub method: Option<&'static str>,
    /// Whether quantized matrices get biases that cancel their mean error.
    pub bias: bool,
    /// A summary of the importance matrix, if one is used.
    pub importance_summary: Option<ImportanceSummary>,
    /// The importance of each tensor of the layout; empty without an importance matrix.
    importance: Vec<Option<Importance>>,
}

/// The origin of an importance matrix, and how many tensors use it.
#[derive(Debug, Clone, PartialEq)]
pub struct ImportanceSummary {
    /// The file.
    pub file: String,
    /// Number of tensors in the file.
    pub entries: usize,
    /// Number of text chunks that it was measured on, if the file says so.
    pub chunks: Option<u64>,
    /// The names of the texts, without folders.
    pub datasets: Vec<String>,
    /// A hash of the texts, if the file has one.
    pub hash: Option<String>,
    /// Number of tensors that are quantized with importance.
    pub used: usize,
    /// Number of tensors that are quantized.
    pub quantized: usize,
}

impl Search {
    /// The importance of the columns of a tensor of the layout, if there is one.
    pub fn columns(&self, tensor: usize) -> Option<Columns<'_>> {
        self.importance.get(tensor)?.as_ref().map(Importance::columns)
    }
}

impl ImportanceSummary {
    /// A line of text: "28 of 30 quantized tensors by imatrix.gguf (7 chunks of text.txt)".
    pub fn text(&self) -> String {
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

/// Finds the importance of each of a plan's tensors.
///
/// # Errors
/// [`Error::Refused`] or [`Error::Statistics`] if the importance matrix belongs to another model: no tensor name in common,
/// or another size.
pub(super) fn search(
    options: &Rounding,
    decisions: &[Decision],
    tensors: &[Tensor],
    notes: &mut Vec<String>,
) -> Result<Search> {
    let Rounding { objective, effort, method, bias, .. } = *options;
    let search = Search { objective, effort, method, bias, ..Search::default() };
    let Some(statistics) = &options.importance else { return Ok(search) };
    let file = &statistics.file;
    notes.extend(statistics.notes.iter().cloned());
    let unknown = unknown(statistics, tensors);
    if let Some(first) = unknown.first().filter(|_| unknown.len() == statistics.entries.len()) {
        return Err(Error::refused(format!(
            "{file}: the model has none of the tensors in this importance matrix, such as {first}"
        ))
        .or("use an importance matrix of this model, or of one with the same shapes and tensor names"));
    }
    notes.extend(strangers(statistics, tensors));
    let (mut importance, mut quantized, mut missing) = (Vec::with_capacity(tensors.len()), 0, Vec::new());
    for (decision, t) in decisions.iter().zip(tensors) {
        // A wrong size is always an error, because it means that the file belongs to another model.
        let found = statistics.importance(&t.name, &t.shape)?;
        let rounded = decision.from != t.encoding && !t.encoding.is_plain();
        let searched = rounded && matches!(t.encoding, Encoding::Blocks(_));
        quantized += usize::from(rounded);
        // The embedding has no numeric inputs, and the output matrix's are rarely measured, so neither is reported.
        if searched && found.is_none() && !matches!(role(&t.name), Role::Embedding | Role::Output) {
            missing.push(&t.name);
        }
        importance.push(found.filter(|_| searched));
    }
    if let Some(first) = missing.first() {
        let names = and_more(first, missing.len() - 1);
        notes.push(format!("{file} has no entry for {names}: all columns have the same importance there"));
    }
    let used = importance.iter().flatten().count();
    if used == 0 {
        notes.push(format!("{file} is not used: none of its tensors is quantized"));
        return Ok(search);
    }
    let summary = ImportanceSummary {
        file: file.clone(),
        entries: statistics.entries.len(),
        chunks: statistics.chunks,
        datasets: statistics.datasets.iter().map(|d| last_part(d)).collect(),
        hash: statistics.metadata.text(HASH).map(str::to_string),
        used,
        quantized,
    };
    Ok(Search { importance_summary: Some(summary), importance, ..search })
}

/// The entries for tensors that a model does not have.
fn unknown<'s>(statistics: &'s Statistics, tensors: &[Tensor]) -> Vec<&'s str> {
    let names: HashSet<&str> = tensors.iter().map(|t| t.name.as_str()).collect();
    statistics.entries.keys().map(String::as_str).filter(|name| !names.contains(name)).collect()
}

/// A note on entries for tensors that the model does not have: the importance matrix may be of another one.
pub fn strangers(statistics: &Statistics, tensors: &[Tensor]) -> Option<String> {
    let unknown = unknown(statistics, tensors);
    let first = unknown.first()?;
    let names = and_more(first, unknown.len() - 1);
    Some(format!("{}: entries for tensors that the model does not have: {names}", statistics.file))
}

/// "a", "a and 3 more".
fn and_more(first: &str, more: usize) -> String {
    if more == 0 { first.to_string() } else { format!("{first} and {more} more") }
}

/// The last component of a path with either kind of separator.
fn last_part(path: &str) -> String {
    path.rsplit(['/', '\\']).find(|part| !part.is_empty()).unwrap_or_default().to_string()
}

/// Writes the origin of the importance matrix to a GGUF's metadata, with the keys and types of llama-quantize.
pub(super) fn gguf_metadata(search: &Search, edits: &[Edit], metadata: &mut Metadata) {
    let Some(summary) = &search.importance_summary else { return };
    let count = |n: u64| Value::U32(u32::try_from(n).unwrap_or(u32::MAX));
    // Only file names: the result may be published, and paths on the user's machine are private.
    let file = Path::new(&summary.file).file_name().unwrap_or_default().to_string_lossy();
    let values = [
        ("quantize.imatrix.file", Some(Value::text(&file))),
        ("quantize.imatrix.dataset", summary.datasets.first().map(|d| Value::text(d))),
        ("quantize.imatrix.entries_count", Some(count(summary.entries as u64))),
        ("quantize.imatrix.chunks_count", summary.chunks.map(count)),
        (HASH, summary.hash.as_deref().map(Value::text)),
        ("ggufkit.method", search.method.map(Value::text)),
        ("ggufkit.bias_correction", search.bias.then_some(Value::Bool(true))),
    ];
    for (key, value) in values {
        if edits.iter().any(|e| matches!(e, Edit::Set(k, _) if k == key)) {
            continue;
        }
        match value {
            Some(value) => metadata.set(key, value),
            // The key describes how the source was made.
            None => drop(metadata.remove(key)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_are_removed_from_paths() {
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
    fn a_summary_is_one_line() {
        let mut summary = ImportanceSummary {
            file: "i.dat".into(),
            entries: 28,
            chunks: Some(7),
            datasets: vec!["a".into(), "b".into()],
            hash: None,
            used: 28,
            quantized: 30,
        };
        assert_eq!(summary.text(), "28 of 30 quantized tensors by i.dat (7 chunks of a, b)");
        summary.datasets.clear();
        assert_eq!(summary.text(), "28 of 30 quantized tensors by i.dat (7 chunks)");
        summary.chunks = None;
        assert_eq!(summary.text(), "28 of 30 quantized tensors by i.dat");
    }
}
