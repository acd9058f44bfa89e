//! Which stored tensor becomes which of the model's: one for each, and one or two for the token embedding and the output
//! matrix.

use std::collections::HashMap;

use formats::model::Tensor;

use super::names::Names;
use super::quantized::is_float;
use crate::arch::{Config, Expected, Presence};
use crate::error::{Error, Result};
use crate::source::Source;

/// Pairs of a stored and an expected tensor, by their indices.
type Pairs = Vec<(usize, usize)>;

/// Which stored tensor is which expected one, in the order of the stored ones. Decides which tensor is the token embedding,
/// and which the output matrix, if there is one: the two may be one tensor, stored under either name. Gives notes on that.
pub fn placed(
    source: &Source,
    stored: &[Tensor],
    names: &Names,
    expected: &[Expected],
    config: &mut Config,
) -> Result<(Pairs, Vec<String>)> {
    let mut notes = Vec::new();
    let mut of: HashMap<usize, usize> = HashMap::new();
    for (i, e) in names.place.iter().enumerate().filter_map(|(i, e)| Some((i, (*e)?))) {
        if let Some(first) = of.insert(e, i) {
            let (a, b, hub) = (&stored[first].name, &stored[i].name, &expected[e].hub);
            return Err(Error::refused(format!("tensors {a} and {b} are both {hub}, and only one can be"))
                .or("save the checkpoint again without one of them"));
        }
    }
    let position = |test: &dyn Fn(&Expected) -> bool| expected.iter().position(test);
    let embedding = position(&|e| e.gguf == "token_embd.weight").expect("every model has an embedding");
    let output =
        position(&|e| e.rule.presence == Presence::Untied).expect("a model may have an output matrix");
    let head = &expected[output].hub;
    let mut one = false;
    for &(e, kept) in &names.aliases {
        match names.place[kept] {
            Some(place) if [e, place] == [output, embedding] || [e, place] == [embedding, output] => {
                one = true
            }
            _ => {
                of.entry(e).or_insert(kept);
            }
        }
    }
    let aliased = one && !config.tied;
    config.tied |= one;
    match (of.get(&embedding).copied(), of.get(&output).copied()) {
        (None, Some(i)) if config.tied => {
            of.remove(&output);
            of.insert(embedding, i);
            let name = &stored[i].name;
            notes.push(format!(
                "{name} is the token embedding too: embeddings are tied, and it is stored once"
            ));
        }
        (Some(first), Some(i)) if config.tied => {
            let (name, own) = (&stored[i].name, &stored[first].name);
            if same_values(source, stored, first, i)? {
                of.remove(&output);
                notes.push(format!(
                    "{name} is left out: it is equal to {own}, and config.json says that embeddings are tied \
                     (tie_word_embeddings)"
                ));
            } else {
                config.tied = false;
                notes.push(format!(
                    "{name} is kept as the output matrix: config.json says that embeddings are tied (tie_word_embeddings), but \
                     its values are others than those of {own}"
                ));
            }
        }
        (Some(_), None) if aliased => notes.push(format!(
            "embeddings are tied: the file says that {head} is the token embedding, whatever config.json says"
        )),
        (Some(_), None) if !config.tied && (config.base || names.is_base()) => {
            config.tied = true;
            notes.push(format!(
                "there is no output matrix ({head}), as in a base or embedding model: programs that generate text use the \
                 token embedding in its place"
            ));
        }
        _ => {}
    }
    let mut found: Pairs = of.into_iter().map(|(e, i)| (i, e)).collect();
    found.sort_unstable();
    Ok((found, notes))
}

/// Whether two stored tensors have the same values. Of packed ones, the scales and the like, which have their names in front,
/// have to be the same too.
fn same_values(source: &Source, stored: &[Tensor], first: usize, second: usize) -> Result<bool> {
    let module = |i: usize| stored[i].name.strip_suffix("weight").unwrap_or(&stored[i].name);
    let (own, other) = (module(first), module(second));
    let by_name: HashMap<&str, &Tensor> = stored.iter().map(|t| (t.name.as_str(), t)).collect();
    for t in stored {
        let Some(rest) = t.name.strip_prefix(own) else { continue };
        let Some(twin) = by_name.get(format!("{other}{rest}").as_str()) else { return Ok(false) };
        if !same_tensors(source, t, twin)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Whether two tensors have the same shape and the same numbers, if of several types of floats.
fn same_tensors(source: &Source, a: &Tensor, b: &Tensor) -> Result<bool> {
    /// Elements that are read together: whole blocks of any type.
    const STEP: u64 = 1 << 20;
    let same_type = a.encoding == b.encoding;
    if a.shape != b.shape || !(same_type || is_float(a.encoding) && is_float(b.encoding)) {
        return Ok(false);
    }
    let (order, mut x, mut y) = (source.model.order, Vec::new(), Vec::new());
    for start in (0..a.elements()).step_by(STEP as usize) {
        let range = start..a.elements().min(start + STEP);
        let count = (range.end - range.start) as usize;
        let (one, other) = (source.stored_fetch(a, range.clone())?, source.stored_fetch(b, range)?);
        let same = if same_type {
            one.little_endian(order) == other.little_endian(order)
        } else {
            x.resize(count, 0.0);
            y.resize(count, 0.0);
            one.decode(&a.name, order, &mut x)?;
            other.decode(&b.name, order, &mut y)?;
            x == y
        };
        if !same {
            return Ok(false);
        }
    }
    Ok(true)
}
