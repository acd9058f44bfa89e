//! Models of several files.

use super::{materialise, tensor};
use crate::block::DType;
use crate::container::gguf::Split;
use crate::container::safetensors::{Options, check_index, index, join, layout, read, read_index};
use crate::error::Fault;
use crate::metadata::{Metadata, Value};
use crate::model::{Format, Input, Model};

fn shard_name(no: usize, count: usize) -> String {
    format!("model-{:05}-of-{count:05}.safetensors", no + 1)
}

/// Three tensors in two files, and their index.
fn split_model() -> (Vec<u8>, Vec<(String, Model)>) {
    let mut metadata = Metadata::new();
    metadata.set("format", Value::text("pt"));
    let tensors =
        [tensor("c", DType::F16, &[2]), tensor("a", DType::F32, &[3]), tensor("b", DType::BF16, &[5])];
    let options = Options { split: Split::Bytes(16) };
    let out = layout("out", &metadata, &tensors, options, &shard_name).unwrap();
    let names: Vec<String> = (0..out.files.len()).map(|i| shard_name(i, out.files.len())).collect();
    let shards = materialise(&out)
        .iter()
        .zip(&names)
        .map(|(bytes, name)| (format!("dir/{name}"), read(&Input::whole(name, bytes)).unwrap()))
        .collect();
    (index(&out, &names), shards)
}

#[test]
fn the_index_names_the_files() {
    let (json, shards) = split_model();
    let expected = r#"{
  "metadata": {
    "total_size": 26
  },
  "weight_map": {
    "a": "model-00001-of-00002.safetensors",
    "b": "model-00002-of-00002.safetensors",
    "c": "model-00001-of-00002.safetensors"
  }
}
"#;
    assert_eq!(std::str::from_utf8(&json).unwrap(), expected);
    let names: Vec<String> = (0..2).map(|i| shard_name(i, 2)).collect();
    assert_eq!(read_index("index", &json).unwrap(), names);
    check_index("index", &json, &shards).unwrap();

    let model = join(shards).unwrap();
    let seen: Vec<_> = model.tensors.iter().map(|t| (t.name.as_str(), t.location.file)).collect();
    assert_eq!(seen, [("a", 0), ("c", 0), ("b", 1)]);
    assert_eq!((model.metadata.len(), model.metadata.text("format")), (1, Some("pt")));
}

#[test]
fn tensors_are_in_the_files_of_the_index() {
    let (json, shards) = split_model();
    let text = String::from_utf8(json).unwrap();
    let check = |text: &str, shards: &[(String, Model)]| {
        let e = check_index("index", text.as_bytes(), shards).unwrap_err();
        assert!(matches!(e.fault, Fault::Split(_)), "{e}");
        e.to_string()
    };
    let moved = text.replace(r#""b": "model-00002"#, r#""b": "model-00001"#);
    assert!(check(&moved, &shards).contains("tensor b is in this file, but by index it is in"));
    assert!(check(&text.replace(r#""b""#, r#""d""#), &shards).contains("tensor b is not in index"));
    assert!(check(&text, &shards[..1]).contains("tensor b is not in model-00002-of-00002.safetensors"));
    let more = text.replace("\"a\": ", "\"0\": \"x.safetensors\", \"a\": ");
    assert!(check(&more, &shards).contains("tensor 0 is not in x.safetensors"));
}

#[test]
fn an_index_cannot_name_files_elsewhere() {
    for file in [
        "../x.safetensors",
        "/x.safetensors",
        "a/x.safetensors",
        r"a\\x.safetensors",
        "C:x.safetensors",
        "..safetensors",
        "x.gguf",
        "",
    ] {
        let json = format!(r#"{{"weight_map":{{"t":"{file}"}}}}"#);
        let e = read_index("index", json.as_bytes()).unwrap_err();
        assert_eq!(e.at, Some(19));
        assert!(e.to_string().contains("same folder"), "{e}");
    }
}

#[test]
fn malformed_indexes_are_refused() {
    for (json, text) in [
        (r#"{"weight_map":{"t":"a.safetensors","t":"b.safetensors"}}"#, r#"tensor "t" appears twice"#),
        (r#"{"weight_map":{},"weight_map":{}}"#, "appears twice"),
        (r#"{"weight_map":{}}"#, "names no file"),
        (r#"{"weight_map":[]}"#, "expected an object"),
        (r#"{"weight_map":{"t":1}}"#, "expected a string"),
        ("{}", "no weight_map"),
        ("[]", "expected an object"),
        ("", "EOF"),
        ("\u{FEFF}{}", "expected value"),
    ] {
        let e = read_index("index", json.as_bytes()).unwrap_err().to_string();
        assert!(e.contains(text), "{json}: {e}");
    }
    assert!(read_index("index", b"{\xFF").is_err());
}

#[test]
fn files_that_do_not_belong_together() {
    let (_, shards) = split_model();
    let twice = vec![shards[0].clone(), ("second".into(), shards[0].1.clone())];
    let e = join(twice).unwrap_err();
    let why = format!("tensor a is in {} too", shards[0].0);
    assert_eq!((e.file.as_str(), e.fault), ("second", Fault::Split(why)));
    let mut other = shards.clone();
    other[1].1.format = Format::Gguf { version: 3 };
    assert!(join(other).unwrap_err().to_string().contains("is GGUF v3, the model is safetensors"));
    assert!(matches!(join(Vec::new()).unwrap_err().fault, Fault::Split(_)));
    let mut first = shards;
    first[0].1.metadata.set("k", Value::text("1"));
    first[1].1.metadata.set("k", Value::text("2"));
    first[1].1.metadata.set("l", Value::text("3"));
    let m = join(first).unwrap().metadata;
    assert_eq!((m.text("k"), m.text("l"), m.len()), (Some("1"), Some("3"), 3));
}
