//! Metadata that describes a file and not the model in it: its place among the parts of a split, its main type, how its
//! weights were quantized. The result is another file, so what such a key says is made true of that, or left out.

use calibration::imatrix::HASH;
use formats::container::gguf;
use formats::metadata::{Metadata, Value};
use formats::model::Tensor;

use super::container::main_type;
use super::edit::Edit;
use super::{Container, Decision, PlanOptions};
use crate::scheme;
use crate::text::listed;

/// The main type of a file, as a number of llama.cpp's.
pub(super) const FILE_TYPE: &str = "general.file_type";

/// How the quantized weights of a file were made, and by whom.
const MADE: [&str; 7] = [
    "quantize.imatrix.file",
    "quantize.imatrix.dataset",
    "quantize.imatrix.entries_count",
    "quantize.imatrix.chunks_count",
    HASH,
    "ggufkit.method",
    "general.quantized_by",
];

/// Makes the keys that describe the source's file true of a result with these tensors. What the user sets stays. Formats
/// without such keys have no metadata to be untrue.
pub(super) fn settle(
    options: &PlanOptions,
    target: Container,
    decisions: &[Decision],
    tensors: &[Tensor],
    metadata: &mut Metadata,
    notes: &mut Vec<String>,
) {
    if !matches!(target, Container::Gguf | Container::Safetensors) {
        return;
    }
    // Those of several files are written with these.
    let removed = gguf::settle_alone(metadata, tensors.len());
    if !removed.is_empty() {
        notes.push(format!(
            "{} of the source {} left out: the result is no part of such a split",
            listed(&removed),
            if removed.len() > 1 { "are" } else { "is" }
        ));
    }
    let pairs = || decisions.iter().zip(tensors);
    if pairs().all(|(decision, t)| decision.from == t.encoding) {
        return;
    }
    let by_user = |key: &str| options.edits.iter().any(|e| matches!(e, Edit::Set(k, _) if k == key));
    // What the source says of its quantized weights is told of the file, so it is to be true of most of these.
    let quantized = |copied: bool| -> u64 {
        let of = |(decision, t): &(&Decision, &Tensor)| {
            !t.encoding.is_plain() && (decision.from == t.encoding) == copied
        };
        pairs().filter(of).map(|(_, t)| t.elements()).sum()
    };
    if quantized(true) <= quantized(false) {
        MADE.iter().filter(|key| !by_user(key)).for_each(|key| drop(metadata.remove(key)));
    }
    // A GGUF gets the type of its scheme.
    if target == Container::Safetensors && metadata.get(FILE_TYPE).is_some() && !by_user(FILE_TYPE) {
        match main_type(tensors).and_then(scheme::file_type) {
            Some(number) => metadata.set(FILE_TYPE, Value::U32(number)),
            None => drop(metadata.remove(FILE_TYPE)),
        }
    }
}
