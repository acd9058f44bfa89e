//! PyTorch's container (`torch.save` since version 1.6): `pytorch_model.bin`, `.pt` and `.pth` files. They are read only.
//!
//! Layout: a zip archive whose members are stored, not compressed. `NAME/data.pkl` is a Python pickle of what was saved,
//! usually a dictionary of tensors (a state dict); a tensor in it names its storage, an offset, a shape and strides. The
//! numbers of storage `KEY` are the member `NAME/data/KEY`, in the byte order that `NAME/byteorder` names.
//!
//! A pickle is a program that may call any function of Python. Here nothing is executed: `pickle` builds plain values,
//! knows the few functions that make tensors and dictionaries (`torch`), and passes over what others would make.
//!
//! Source: PyTorch's `torch/serialization.py` and `torch/_utils.py`, Python's `pickletools`, PKWARE's APPNOTE.

mod pickle;
mod torch;
mod zip;

use std::borrow::Cow;
use std::collections::{HashMap, HashSet, VecDeque};
use std::ops::Range;

use crate::error::{Error, Fault};
use crate::metadata::Metadata;
use crate::model::{ByteOrder, Encoding, Format, Input, Location, Model, Tensor, elements};
use pickle::{Id, Node, Pickle};
use zip::Archive;

/// The longest pickle, in bytes: that of a model of thirty thousand tensors is shorter.
const MAX_PICKLE: u64 = 8 << 20;

/// The most tensors. Many names may stand for one tensor.
const MAX_TENSORS: usize = 1 << 16;

/// Where a state dict usually is in what was saved: in a dictionary under one of these keys.
const INNER: [&str; 4] = ["state_dict", "model_state_dict", "model", "module"];

/// The deepest level at which a state dict is looked for.
const DEPTH: usize = 4;

/// Whether the file starts as a zip archive does.
pub fn looks_like(input: &Input) -> bool {
    input.bytes.starts_with(b"PK\x03\x04")
}

/// Reads a file of `len` bytes; `bytes` gives those of a range that is within it. The archive's directory is at the end
/// of the file, and only that, the pickle and the headers of the storages are asked for.
///
/// # Errors
/// Those of `bytes`. [`Fault::Unsupported`] for compressed archives, TorchScript programs, tensors with gaps and files
/// without a state dict; [`Fault::Header`], [`Fault::Ends`], [`Fault::TooMany`], [`Fault::Shape`], [`Fault::TensorType`]
/// and [`Fault::Duplicate`] for damaged files.
pub fn read<'a, E: From<Error>>(
    name: &str,
    len: u64,
    bytes: impl Fn(Range<u64>) -> Result<Cow<'a, [u8]>, E>,
) -> Result<Model, E> {
    let directory = zip::directory(name, len, &bytes)?;
    let archive = Archive::new(name, &directory)?;
    let pickle = |member: &&str| member.strip_suffix("data.pkl").is_some_and(|root| root.ends_with('/'));
    let mut pickles: Vec<&str> = archive.names().filter(pickle).collect();
    pickles.sort_unstable();
    let root = match pickles[..] {
        [one] => one.trim_end_matches("data.pkl").to_string(),
        [] => {
            let what = "a zip archive without data.pkl, so no PyTorch checkpoint";
            return Err(Error::of(name, Fault::NotAModel(what.into())).into());
        }
        [first, second, ..] => {
            let what = format!(
                "has several checkpoints in one zip archive ({first} and {second}), which PyTorch never writes"
            );
            return Err(Error::of(name, Fault::Unsupported(what)).into());
        }
    };
    if archive.names().any(|member| member.strip_prefix(&root).is_some_and(|m| m == "constants.pkl")) {
        let what = "is a TorchScript program; what is read is a state dict, as torch.save(model.state_dict(), FILE) writes it";
        return Err(Error::of(name, Fault::Unsupported(what.into())).into());
    }
    let order = match archive.find(&format!("{root}byteorder"), &bytes)? {
        Some(at) if at.end - at.start <= 16 && &*bytes(at.clone())? == b"big" => ByteOrder::Big,
        _ => ByteOrder::Little,
    };
    let at = archive.find(&format!("{root}data.pkl"), &bytes)?.expect("its name is in the archive");
    if at.end - at.start > MAX_PICKLE {
        let (what, found) = ("the length of data.pkl".into(), at.end - at.start);
        return Err(Error::at(name, at.start, Fault::TooMany { what, found, most: MAX_PICKLE }).into());
    }
    let text = bytes(at.clone())?;
    let pickle = pickle::read(name, at.start, &text)?;
    let mut notes = Vec::new();
    let found = state(name, &pickle, &mut notes)?;
    let mut storages: HashMap<&str, Range<u64>> = HashMap::new();
    let mut tensors = Vec::with_capacity(found.len());
    for (tensor, t) in found {
        let key = t.storage.key;
        let storage = match storages.get(key) {
            Some(at) => at.clone(),
            None => {
                let missing =
                    || Fault::Header(format!("the storage {key:?} of tensor {tensor} is not in the archive"));
                let found = archive.find(&format!("{root}data/{key}"), &bytes)?;
                let at = found.ok_or_else(|| Error::of(name, missing()))?;
                storages.insert(key, at.clone());
                at
            }
        };
        tensors.push(place(tensor, t, storage).map_err(|fault| Error::at(name, at.start, fault))?);
    }
    Ok(Model { format: Format::PyTorch, order, alignment: 1, metadata: Metadata::new(), tensors, notes })
}

/// A tensor in the range of bytes that is its storage.
fn place(name: &str, t: &torch::View, storage: Range<u64>) -> Result<Tensor, Fault> {
    let dtype = t.dtype.map_err(|id| {
        let (tensor, id) = (name.into(), id.to_string());
        Fault::TensorType { tensor, id, why: "not known to this program".into() }
    })?;
    let shape = t.shape.clone();
    let wrong = |why: String| Fault::Shape { tensor: name.into(), shape: t.shape.clone(), why };
    let size = || wrong(format!("as {} its size overflows", dtype.name()));
    let n = elements(&shape).ok_or_else(size)?;
    let len = dtype.bytes_for(n).ok_or_else(size)?;
    let mut step = 1;
    for (&dim, &stride) in shape.iter().zip(&t.strides).rev() {
        if n > 0 && dim > 1 && stride != step {
            return Err(Fault::Unsupported(format!(
                "tensor {name} is not stored row after row (strides {:?} for shape {shape:?}); save it with .contiguous()",
                t.strides
            )));
        }
        step *= dim.max(1); // cannot overflow: `elements` has checked the product
    }
    let offset = dtype.bytes_for(t.offset).ok_or_else(size)?;
    let end = offset.checked_add(len).ok_or_else(size)?;
    if end > storage.end - storage.start {
        let has = storage.end - storage.start;
        return Err(wrong(format!("it ends at byte {end} of its storage, which has {has}")));
    }
    let location = Location { file: 0, offset: storage.start + offset, len };
    Ok(Tensor { name: name.into(), shape, encoding: Encoding::Blocks(dtype), location })
}

/// Where tensors are that are no model's: in what optimizers, schedules and generators of random numbers keep. Parts of keys.
const TRAINERS: [&str; 4] = ["optim", "sched", "scaler", "rng"];

/// The names of what an optimizer keeps for a weight.
const KEPT: [&str; 5] = ["exp_avg", "exp_avg_sq", "max_exp_avg_sq", "momentum_buffer", "step"];

/// The most dictionaries and lists that are looked into.
const MOST_LOOKED_AT: usize = 1 << 16;

/// Whether these entries are a state dict: names of tensors. Single numbers, such as the number of steps, are none.
fn is_state(pickle: &Pickle, entries: &[(Id, Id)]) -> bool {
    entries.iter().any(|&(key, value)| match (pickle.node(key), pickle.node(value)) {
        (Node::Text(name), Node::Tensor(view)) => !view.shape.is_empty() && !KEPT.contains(name),
        _ => false,
    })
}

/// What leads to a value within another one.
#[derive(Debug, Clone, Copy)]
enum Key<'a> {
    Text(&'a str),
    Item(usize),
}

/// The longest key of a dictionary that is looked into, in bytes.
const LONGEST_KEY: usize = 100;

/// The keys that lead to a value, as Python writes them: `["model"]["net"]`.
fn subscripts(path: &[Key]) -> String {
    let one = |key: &Key| match key {
        Key::Text(text) => format!("[{text:?}]"),
        Key::Item(i) => format!("[{i}]"),
    };
    path.iter().map(one).collect()
}

/// The state dicts anywhere in a value, each with the keys that lead to it. Into what training keeps is not looked.
fn states<'a>(pickle: &Pickle<'a>, root: Id) -> Vec<(Vec<Key<'a>>, Id)> {
    let mut found = Vec::new();
    let mut seen = HashSet::from([root]);
    let mut next = VecDeque::from([(Vec::new(), root)]);
    while let Some((path, id)) = next.pop_front() {
        let holds = |id: Id| matches!(pickle.node(id), Node::Dict(_) | Node::List(_) | Node::Tuple(_));
        let mut look = |key: Key<'a>, id: Id| {
            if path.len() < DEPTH && holds(id) && seen.len() < MOST_LOOKED_AT && seen.insert(id) {
                next.push_back(([&path[..], &[key]].concat(), id));
            }
        };
        match pickle.node(id) {
            Node::Dict(entries) if is_state(pickle, entries) => found.push((path, id)),
            Node::Dict(entries) => {
                for &(key, value) in entries {
                    if let Node::Text(text) = pickle.node(key)
                        && text.len() <= LONGEST_KEY
                        && !TRAINERS.iter().any(|part| text.to_ascii_lowercase().contains(part))
                    {
                        look(Key::Text(text), value);
                    }
                }
            }
            Node::List(items) | Node::Tuple(items) => {
                items.iter().enumerate().for_each(|(i, &id)| look(Key::Item(i), id));
            }
            _ => {}
        }
    }
    found
}

/// The state dict in what was saved, with the keys that lead to it: under the usual keys, or else wherever the only one is.
fn find_state<'a>(name: &str, pickle: &Pickle<'a>) -> Result<(Vec<Key<'a>>, Id), Error> {
    let nothing = |id: Id| {
        let found = pickle.describe(id);
        let why = format!("expected a state dict (a dictionary of tensors by their names), found {found}");
        Error::of(name, Fault::Unsupported(why))
    };
    let (mut path, mut root) = (Vec::new(), pickle.root);
    while path.len() < DEPTH
        && let Node::Dict(entries) = pickle.node(root)
        && !is_state(pickle, entries)
    {
        let is = |id: Id, key: &str| matches!(pickle.node(id), Node::Text(text) if *text == key);
        let named = |key: &str| entries.iter().any(|&(k, _)| is(k, key));
        // What `optimizer.state_dict()` gives: its tensors are under the numbers of the weights.
        if named("param_groups") && named("state") {
            let what = "it is the state of an optimizer (\"state\" and \"param_groups\"), which training keeps beside the model";
            return Err(Error::of(name, Fault::NotAModel(what.into())));
        }
        let find = |key: &str| {
            let is_it = |&&(k, value): &&(Id, Id)| is(k, key) && matches!(pickle.node(value), Node::Dict(_));
            entries.iter().find(is_it).map(|&(_, value)| value)
        };
        let Some((key, inner)) = INNER.iter().find_map(|key| Some((key, find(key)?))) else { break };
        path.push(Key::Text(key));
        root = inner;
    }
    let all = states(pickle, root);
    // Where the usual keys lead nowhere, others may.
    let all = if all.is_empty() && !path.is_empty() {
        path.clear();
        root = pickle.root;
        states(pickle, root)
    } else {
        all
    };
    match &all[..] {
        [(inner, id)] => Ok(([&path[..], inner].concat(), *id)),
        [] => {
            let numbers = |id: Id| match pickle.node(id) {
                Node::Dict(entries) => entries.iter().any(|e| matches!(pickle.node(e.1), Node::Tensor(_))),
                _ => false,
            };
            if numbers(root) { Ok((path, root)) } else { Err(nothing(root)) }
        }
        several => {
            const NAMED: usize = 3;
            let keys = |(inner, _): &(Vec<Key>, Id)| subscripts(&[&path[..], inner].concat());
            let fault = Fault::SeveralStates {
                under: several.iter().take(NAMED).map(keys).collect(),
                more: several.len().saturating_sub(NAMED),
            };
            Err(Error::of(name, fault))
        }
    }
}

/// The tensors of the state dict, with their names.
fn state<'p, 'a>(
    name: &str,
    pickle: &'p Pickle<'a>,
    notes: &mut Vec<String>,
) -> Result<Vec<(&'a str, &'p torch::View<'a>)>, Error> {
    let (path, root) = find_state(name, pickle)?;
    if !path.is_empty() {
        // Of one key, the text; of several, as Python takes them.
        let under = match &path[..] {
            [Key::Text(text)] => format!("{text:?}"),
            path => subscripts(path),
        };
        notes.push(format!("the weights are what was saved under {under}; the rest of the file is not read"));
    }
    let nothing = |what: &str| {
        let why = format!("expected a state dict (a dictionary of tensors by their names), found {what}");
        Error::of(name, Fault::Unsupported(why))
    };
    let Node::Dict(entries) = pickle.node(root) else { return Err(nothing(&pickle.describe(root))) };
    let mut found = Vec::new();
    let mut others: (Option<String>, usize) = (None, 0);
    let mut names = HashSet::new();
    for &(key, value) in entries {
        match (pickle.node(key), pickle.node(value)) {
            (Node::Text(tensor), Node::Tensor(view)) => {
                if !names.insert(*tensor) {
                    let fault = Fault::Duplicate { what: "tensor", name: tensor.to_string() };
                    return Err(Error::of(name, fault));
                }
                if found.len() == MAX_TENSORS {
                    let (what, most) = ("the number of tensors".into(), MAX_TENSORS as u64);
                    return Err(Error::of(name, Fault::TooMany { what, found: most + 1, most }));
                }
                found.push((*tensor, &**view));
            }
            _ => {
                others.1 += 1;
                others.0.get_or_insert_with(|| match pickle.node(key) {
                    Node::Text(text) => format!("{text:?} ({})", pickle.describe(value)),
                    _ => format!("an entry that has no name ({})", pickle.describe(value)),
                });
            }
        }
    }
    if found.is_empty() {
        return Err(nothing(&pickle.describe(root)));
    }
    if let (Some(first), n) = others {
        let more = if n == 1 { String::new() } else { format!(" and {} more", n - 1) };
        notes.push(format!("not read, because it is no tensor: {first}{more}"));
    }
    Ok(found)
}

#[cfg(test)]
mod tests;
