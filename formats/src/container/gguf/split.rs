//! Split GGUFs: several files as one model. The first holds all metadata; the others hold their tensors and
//! three keys that say which part they are.

use std::ops::Range;

use crate::error::{Error, Fault, Result};
use crate::metadata::{Metadata, Value, WrongValue};
use crate::model::{Model, Tensor};

const NO: &str = "split.no";
const COUNT: &str = "split.count";
const TENSORS: &str = "split.tensors.count";

/// The keys that say which part of a split model a file is.
pub const SPLIT_KEYS: [&str; 3] = [NO, COUNT, TENSORS];

/// How tensors are divided among files.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub enum Split {
    /// All in one file.
    #[default]
    None,
    /// At most so many bytes of tensor data in a file. A larger tensor gets a file of its own.
    Bytes(u64),
    /// At most so many tensors in a file.
    Tensors(usize),
}

/// The tensors of each file. With a single file there is no split.
pub(crate) fn assign(tensors: &[Tensor], alignment: u64, split: Split) -> Vec<Range<usize>> {
    let mut shards = Vec::new();
    let (mut start, mut size) = (0, 0u64);
    for (i, t) in tensors.iter().enumerate() {
        let padded = t.location.len.saturating_add(alignment - 1) / alignment * alignment;
        let full = match split {
            Split::None => false,
            Split::Bytes(most) => size.saturating_add(padded) > most,
            Split::Tensors(most) => i - start >= most,
        };
        if full && i > start {
            shards.push(start..i);
            (start, size) = (i, 0);
        }
        size = size.saturating_add(padded);
    }
    shards.push(start..tensors.len());
    shards
}

/// Writes the three keys into a shard's metadata.
pub(super) fn annotate(
    m: &mut Metadata,
    no: usize,
    count: usize,
    tensors: usize,
) -> std::result::Result<(), Fault> {
    let too_many = || Fault::Split(format!("{count} files are too many for a split (at most 65535)"));
    m.set(NO, Value::U16(u16::try_from(no).map_err(|_| too_many())?));
    m.set(COUNT, Value::U16(u16::try_from(count).map_err(|_| too_many())?));
    m.set(TENSORS, Value::I32(i32::try_from(tensors).map_err(|_| too_many())?));
    Ok(())
}

/// Removes what the keys of a split say of another file than one that holds all of these many tensors: readers would look for
/// parts that there are not. What is true of it is kept. Gives the keys that were removed.
pub fn settle_alone(m: &mut Metadata, tensors: usize) -> Vec<&'static str> {
    let is = |key: &str, number: u64| m.get(key).is_none_or(|value| value.as_u64() == Some(number));
    match is(NO, 0) && is(COUNT, 1) && is(TENSORS, tensors as u64) {
        true => Vec::new(),
        false => SPLIT_KEYS.into_iter().filter(|key| m.remove(key).is_some()).collect(),
    }
}

/// Whether a file that says it is one of several parts holds all tensors of the model nevertheless, by the number of these
/// that it says the model has.
pub fn holds_all(model: &Model) -> bool {
    model.metadata.get(TENSORS).and_then(Value::as_u64) == Some(model.tensors.len() as u64)
}

/// The number of this part (from 0) and the number of parts, if the file is part of a split.
///
/// # Errors
/// [`WrongValue`] for numbers that are none.
pub fn split_of(metadata: &Metadata) -> std::result::Result<Option<(u64, u64)>, WrongValue> {
    let (no, count) = (metadata.read_count(NO)?, metadata.read_count(COUNT)?);
    Ok(no.zip(count).filter(|&(_, count)| count > 1))
}

/// Joins the parts of a split, given in order with their names, to one model. The three keys of the split are removed.
///
/// # Errors
/// [`Fault::Split`] if they are not all parts of one model in order, [`Fault::Duplicate`] for a tensor that is in two of
/// them, [`Fault::Metadata`] for keys of the split that are no numbers.
pub fn join(shards: Vec<(String, Model)>) -> Result<Model> {
    let count = shards.len();
    let first = shards.first().map(|s| s.0.clone()).unwrap_or_default();
    let mut names = std::collections::HashSet::new();
    let mut whole: Option<Model> = None;
    let mut declared = None;
    for (i, (name, mut shard)) in shards.into_iter().enumerate() {
        let bad = |why: String| Error::of(&name, Fault::Split(why));
        let own = split_of(&shard.metadata).map_err(|e| Error::of(&name, e.into()))?;
        if own != Some((i as u64, count as u64)) {
            let is = match own {
                Some((no, of)) => format!("is part {} of {of}", no + 1),
                None => "is not part of a split".into(),
            };
            return Err(bad(format!("{is}, expected part {} of {count}", i + 1)));
        }
        let total = shard.metadata.read_count(TENSORS).map_err(|e| Error::of(&name, e.into()))?;
        if *declared.get_or_insert(total) != total {
            return Err(bad(
                "its number of tensors of the whole model differs from the one in the first part".into(),
            ));
        }
        for t in &mut shard.tensors {
            t.location.file = i;
            if !names.insert(t.name.clone()) {
                return Err(Error::of(&name, Fault::Duplicate { what: "tensor", name: t.name.clone() }));
            }
        }
        match &mut whole {
            None => {
                SPLIT_KEYS.iter().for_each(|key| drop(shard.metadata.remove(key)));
                whole = Some(shard);
            }
            Some(w) if w.order != shard.order => {
                return Err(bad("its byte order differs from that of the first part".into()));
            }
            Some(w) => {
                w.notes.extend(shard.notes.iter().map(|note| format!("{name}: {note}")));
                w.tensors.append(&mut shard.tensors);
            }
        }
    }
    let whole = whole.ok_or_else(|| Error::of("", Fault::Split("no files".into())))?;
    match declared.flatten() {
        Some(n) if n != whole.tensors.len() as u64 => {
            let found = whole.tensors.len();
            let why = format!(
                "the split should have {n} tensors, its {count} parts have {found} (one of another split among them?)"
            );
            Err(Error::of(&first, Fault::Split(why)))
        }
        _ => Ok(whole),
    }
}
