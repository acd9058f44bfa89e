//! Notes on models that are measured beside another one.

use super::compare::bits_per_weight;
use crate::error::{Error, Result};
use crate::source::Source;
use crate::tokenizer::tokenizer_of;

/// A note for the user if `reference`, against which `model` is measured, is quantized and has fewer bits per weight, as if
/// they were given in the wrong order. A checkpoint is an original, whatever its types.
pub fn order_note(model: (&str, &Source), reference: (&str, &Source)) -> Option<String> {
    let quantized = |t: &formats::model::Tensor| t.shape.len() > 1 && !t.encoding.is_plain();
    let is_original = reference.1.hub.is_some() || reference.1.views.iter().any(Option::is_some);
    if is_original || !reference.1.model.tensors.iter().any(quantized) {
        return None;
    }
    let [bits, least] = [model, reference].map(|(_, source)| bits_per_weight(source));
    // Vectors, which some types leave in f32, and tied matrices make small differences.
    (bits > 1.2 * least).then(|| {
        format!(
            "the reference {} has fewer bits per weight ({least:.2}) than {} ({bits:.2}): figures tell what the model lost only if the \
             reference is the original",
            reference.0, model.0
        )
    })
}

/// A note for the user if `other`, alone, would split the text into other tokens than `own`, on whose tokens both are
/// measured: what it does with texts is then not what is measured. `name` is what `other` is called.
///
/// # Errors
/// Those of [`tokenizer_of`].
pub fn split_note(text: &str, own: &Source, name: &str, other: &Source) -> Result<Option<String>> {
    const KEYS: &str = "tokenizer.ggml.";
    let (a, b) = (&own.model.metadata, &other.model.metadata);
    let names = a.iter().chain(b.iter().filter(|(key, _)| a.get(key).is_none())).map(|(key, _)| key);
    let differ: Vec<&str> = names.filter(|key| key.starts_with(KEYS) && a.get(key) != b.get(key)).collect();
    if differ.is_empty() {
        return Ok(None);
    }
    let alone = match tokenizer_of(other) {
        // It does not split texts.
        Err(Error::Vocabulary { error: tokenizer::Error::NoTokenizer, .. }) => return Ok(None),
        found => found?,
    };
    if tokenizer_of(own)?.splits_as(&alone, text) {
        return Ok(None);
    }
    let own = own.path.display();
    Ok(Some(format!(
        "{name} alone would split this text otherwise (it has other values of {}): it is measured on the tokens of {own}",
        differ.join(", ")
    )))
}
