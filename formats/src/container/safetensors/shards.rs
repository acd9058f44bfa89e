//! Models of several files, and the index that names each tensor's file:
//! `{"metadata": {"total_size": 24}, "weight_map": {"name": "model-00001-of-00002.safetensors"}}`. Checkpoints in PyTorch's
//! files have the same index.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use serde_json::json;

use super::json::Text;
use crate::container::Layout;
use crate::error::{Error, Fault, Result};
use crate::metadata::Metadata;
use crate::model::{ByteOrder, Format, Model};

/// The names of a model's files, sorted, from the bytes of its index. They are in the folder of the index: a name that
/// could lead out of it is refused.
///
/// # Errors
/// [`Fault::Header`] for an index that is malformed or names such a file, [`Fault::Duplicate`] for a tensor that is named
/// twice.
pub fn read_index(name: &str, json: &[u8]) -> Result<Vec<String>> {
    let map = weight_map(name, json)?;
    let files: BTreeSet<String> = map.into_values().collect();
    if files.is_empty() {
        return Err(Error::of(name, Fault::Header("weight_map names no file".into())));
    }
    Ok(files.into_iter().collect())
}

/// Checks that each tensor of the index is in the file that the index names, and that the files have no other tensors.
/// `shards` are the files with their names, of which only the last path component is compared.
///
/// # Errors
/// Those of [`read_index`], and [`Fault::Split`] with the first tensor that is in another file or in none.
pub fn check_index(name: &str, json: &[u8], shards: &[(String, Model)]) -> Result<()> {
    let map = weight_map(name, json)?;
    let mut seen: HashSet<(&str, &str)> = HashSet::new();
    for (path, shard) in shards {
        let file = path.rsplit(['/', '\\']).next().unwrap_or(path);
        for t in &shard.tensors {
            let why = match map.get(&t.name) {
                Some(named) if named == file => {
                    seen.insert((file, &t.name));
                    continue;
                }
                Some(named) => format!("tensor {} is in this file, but by {name} it is in {named}", t.name),
                None => format!("tensor {} is not in {name}", t.name),
            };
            return Err(Error::at(path, t.location.offset, Fault::Split(why)));
        }
    }
    match map.iter().filter(|(tensor, file)| !seen.contains(&(file.as_str(), tensor.as_str()))).min() {
        Some((tensor, file)) => {
            Err(Error::of(name, Fault::Split(format!("tensor {tensor} is not in {file}"))))
        }
        None => Ok(()),
    }
}

/// The file of each tensor.
fn weight_map(name: &str, json: &[u8]) -> Result<HashMap<String, String>> {
    const KEY: &str = "weight_map";
    let text = Text::new(name, json, 0)?;
    let mut found = None;
    text.entries(text.text, |at, value| {
        let key: String = text.parse(at)?;
        if key == KEY && found.replace(value).is_some() {
            return Err(text.fault(at, Fault::Duplicate { what: "key", name: key }));
        }
        Ok(())
    })?;
    let found = found.ok_or_else(|| Error::of(name, Fault::Header("has no weight_map".into())))?;
    let mut map = HashMap::new();
    text.entries(found, |at, value| {
        let tensor: String = text.parse(at)?;
        let file: String = text.parse(value)?;
        let weights = file.ends_with(".safetensors") || file.ends_with(".bin");
        if file.contains(['/', '\\', ':', '\0']) || file.contains("..") || !weights {
            let why = format!("{file:?} is not the name of a file with weights in the same folder");
            return Err(text.fault(value, Fault::Header(why)));
        }
        if map.contains_key(&tensor) {
            return Err(text.fault(at, Fault::Duplicate { what: "tensor", name: tensor }));
        }
        map.insert(tensor, file);
        Ok(())
    })?;
    Ok(map)
}

/// Joins several files of safetensors or of PyTorch, given with their names in order, to one model. Of a metadata key
/// that several files have, the first value is kept.
///
/// # Errors
/// [`Fault::Split`] for a tensor that is in two files, and for a file of another format or byte order;
/// [`Fault::Duplicate`] for a tensor that a file has twice.
pub fn join(shards: Vec<(String, Model)>) -> Result<Model> {
    let (format, order) = match shards.first() {
        Some((_, first)) if first.format == Format::PyTorch => (Format::PyTorch, first.order),
        Some(_) => (Format::Safetensors, ByteOrder::Little),
        None => return Err(Error::of("", Fault::Split("no files".into()))),
    };
    let mut names: HashMap<String, usize> = HashMap::new();
    let files: Vec<String> = shards.iter().map(|(name, _)| name.clone()).collect();
    let mut whole = Model {
        format,
        order,
        alignment: 1,
        metadata: Metadata::new(),
        tensors: Vec::new(),
        notes: Vec::new(),
    };
    for (i, (name, shard)) in shards.into_iter().enumerate() {
        if shard.format != format {
            let why = format!("is {}, the model is {format}", shard.format);
            return Err(Error::of(&name, Fault::Split(why)));
        }
        if shard.order != order {
            let why = format!("is {}-endian, the first part is {}-endian", shard.order.name(), order.name());
            return Err(Error::of(&name, Fault::Split(why)));
        }
        whole.notes.extend(
            shard.notes.iter().filter(|note| !whole.notes.contains(note)).cloned().collect::<Vec<_>>(),
        );
        for (key, value) in shard.metadata.iter() {
            if whole.metadata.get(key).is_none() {
                whole.metadata.push(key.to_string(), value.clone());
            }
        }
        for mut t in shard.tensors {
            if let Some(first) = names.insert(t.name.clone(), i) {
                let fault = match first == i {
                    true => Fault::Duplicate { what: "tensor", name: t.name },
                    false => Fault::Split(format!("tensor {} is in {} too", t.name, files[first])),
                };
                return Err(Error::at(&name, t.location.offset, fault));
            }
            t.location.file = i;
            whole.tensors.push(t);
        }
    }
    Ok(whole)
}

/// The bytes of `model.safetensors.index.json` for a layout whose files have these names, in order.
pub fn index(layout: &Layout, names: &[String]) -> Vec<u8> {
    let total_size: u64 = layout.tensors.iter().map(|t| t.location.len).sum();
    let weight_map: BTreeMap<&str, &str> = layout
        .tensors
        .iter()
        .filter_map(|t| Some((t.name.as_str(), names.get(t.location.file)?.as_str())))
        .collect();
    let json = json!({ "metadata": { "total_size": total_size }, "weight_map": weight_map });
    format!("{json:#}\n").into_bytes()
}
