//! Layouts, as files, give the same model back: here and in the `safetensors` crate.

use proptest::prelude::*;

use super::typed::{any_metadata, bits};
use super::{materialise, tensor};
use crate::block::{DType, TYPES};
use crate::container::gguf::Split;
use crate::container::safetensors::{Options, join, layout, read};
use crate::error::Fault;
use crate::metadata::{Metadata, Value};
use crate::model::{Encoding, Input, Tensor};

fn any_tensor() -> impl Strategy<Value = Tensor> {
    let types: Vec<_> = TYPES.iter().filter(|t| t.safetensors.is_some()).collect();
    (prop::sample::select(types), ".{0,20}", prop::collection::vec(0u64..4, 0..4)).prop_map(
        |(info, name, mut shape)| {
            // Rows are whole bytes.
            if info.weights > 1 {
                shape.push(info.weights as u64);
            }
            tensor(&name, info.dtype, &shape)
        },
    )
}

fn any_tensors() -> impl Strategy<Value = Vec<Tensor>> {
    prop::collection::vec(any_tensor(), 0..10).prop_map(|mut tensors| {
        let mut names = std::collections::HashSet::new();
        tensors.retain(|t| names.insert(t.name.clone()) && t.name != "__metadata__");
        tensors
    })
}

fn text_metadata() -> impl Strategy<Value = Metadata> {
    prop::collection::vec((".{1,10}", ".{0,10}"), 0..5).prop_map(|entries| {
        let mut m = Metadata::new();
        entries.iter().for_each(|(k, v)| m.set(k, Value::text(v)));
        m
    })
}

fn any_split() -> impl Strategy<Value = Split> {
    prop_oneof![Just(Split::None), (1usize..4).prop_map(Split::Tensors), (0u64..64).prop_map(Split::Bytes)]
}

/// Tensors in the order of the layout, which differs from that in files.
fn by_name(tensors: &[Tensor]) -> Vec<Tensor> {
    let mut tensors = tensors.to_vec();
    tensors.sort_by(|a, b| a.name.cmp(&b.name));
    tensors
}

proptest! {
    #[test]
    fn files_round_trip(
        metadata in prop_oneof![any_metadata(), text_metadata()],
        tensors in any_tensors(),
        split in any_split(),
    ) {
        let name = |no: usize, count: usize| format!("{no} of {count}");
        let out = layout("out", &metadata, &tensors, Options { split }, &name).unwrap();
        prop_assert_eq!(out.tensors.len(), tensors.len());
        for (placed, given) in out.tensors.iter().zip(&tensors) {
            prop_assert_eq!((&placed.name, &placed.shape, placed.encoding), (&given.name, &given.shape, given.encoding));
        }
        let files = materialise(&out);
        let shards: Vec<_> = files
            .iter()
            .enumerate()
            .map(|(i, bytes)| (i.to_string(), read(&Input::whole("f", bytes)).unwrap()))
            .collect();
        let model = join(shards).unwrap();
        prop_assert_eq!(by_name(&model.tensors), by_name(&out.tensors));
        prop_assert_eq!(bits(&model.metadata), bits(&metadata));

        for (i, bytes) in files.iter().enumerate() {
            let theirs = safetensors::SafeTensors::deserialize(bytes).unwrap();
            let own: Vec<_> = out.tensors.iter().enumerate().filter(|(_, t)| t.location.file == i).collect();
            prop_assert_eq!(theirs.len(), own.len());
            for (index, t) in &own {
                let view = theirs.tensor(&t.name).unwrap();
                let Encoding::Blocks(dtype) = t.encoding else { unreachable!() };
                let name = view.dtype().to_string();
                prop_assert_eq!(Some(name.as_str()), dtype.info().safetensors);
                prop_assert_eq!(view.shape().iter().map(|&d| d as u64).collect::<Vec<_>>(), t.shape.clone());
                let data: Vec<u8> = (0..t.location.len as usize).map(|j| (index + j) as u8).collect();
                prop_assert_eq!(view.data(), data);
            }
            // The crate writes the same file, except for the order of metadata.
            if metadata.is_empty() {
                let views = own.iter().map(|(_, t)| (t.name.clone(), theirs.tensor(&t.name).unwrap()));
                prop_assert_eq!(&safetensors::serialize(views, None).unwrap(), bytes);
            }
            // Numbers are aligned.
            for (_, t) in own {
                let Encoding::Blocks(dtype) = t.encoding else { unreachable!() };
                let info = dtype.info();
                if info.weights == 1 && t.location.len > 0 {
                    prop_assert_eq!(t.location.offset % info.bytes as u64, 0);
                }
            }
        }
    }
}

fn fault(metadata: &Metadata, tensors: &[Tensor]) -> Fault {
    layout("out", metadata, tensors, Options::default(), &|_, _| "shard".into()).unwrap_err().fault
}

#[test]
fn models_that_the_format_cannot_hold_are_refused() {
    let none = Metadata::new();
    let mut groups = tensor("g", DType::F32, &[64]);
    groups.encoding = Encoding::Int8Groups { size: 64 };
    for (t, text) in [
        (tensor("q", DType::Q4_0, &[32]), "cannot hold q4_0 (tensor q)"),
        (groups, "cannot hold int8/64 (tensor g)"),
        (tensor("__metadata__", DType::F32, &[1]), "reserved for the metadata"),
        (tensor("odd", DType::F4, &[3]), "not whole bytes"),
        (tensor("big", DType::F32, &[1 << 40, 1 << 40]), "overflows"),
        (tensor("big", DType::F64, &[1 << 60]), "overflow"),
    ] {
        let fault = fault(&none, &[t]).to_string();
        assert!(fault.contains(text), "{fault}");
    }
    let twice = [tensor("a", DType::F32, &[1]), tensor("a", DType::F16, &[1])];
    assert_eq!(fault(&none, &twice), Fault::Duplicate { what: "tensor", name: "a".into() });
    let mut empty = Metadata::new();
    empty.set("", Value::U8(1));
    assert!(matches!(fault(&empty, &[]), Fault::Text { .. }));
    let mut long = Metadata::new();
    long.set("k", Value::text(&"x".repeat(100_000_000)));
    assert!(matches!(fault(&long, &[]), Fault::TooMany { .. }));
}

#[test]
fn a_text_under_the_key_of_typed_metadata_survives() {
    let mut m = Metadata::new();
    m.set("format", Value::text("np"));
    m.set("gguf.metadata", Value::text("[]"));
    let out = layout("out", &m, &[], Options::default(), &|_, _| String::new()).unwrap();
    assert_eq!(read(&Input::whole("f", &materialise(&out)[0])).unwrap().metadata, m);
}

#[test]
fn typed_metadata_is_under_one_key() {
    let mut m = Metadata::new();
    m.set("general.architecture", Value::text("llama"));
    m.set("llama.block_count", Value::U32(2));
    let tensors = [tensor("a", DType::F32, &[1]), tensor("b", DType::F32, &[1])];
    let options = Options { split: Split::Tensors(1) };
    let out = layout("out", &m, &tensors, options, &|_, _| String::new()).unwrap();
    let headers: Vec<&str> =
        out.files.iter().map(|f| std::str::from_utf8(&f.fixed[0].1[8..]).unwrap().trim_end()).collect();
    assert_eq!(
        headers,
        [
            concat!(
                r#"{"__metadata__":{"format":"pt","gguf.metadata":"[[\"general.architecture\",\"str\",\"llama\"],"#,
                r#"[\"llama.block_count\",\"u32\",2]]"},"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#
            ),
            concat!(
                r#"{"__metadata__":{"format":"pt","gguf.metadata":"[]"},"#,
                r#""b":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#
            ),
        ]
    );
}

#[test]
fn keys_added_by_other_programs_are_kept() {
    let header =
        r#"{"__metadata__":{"format":"pt","gguf.metadata":"[[\"a\",\"u8\",1]]","a":"no","b":"yes"}}"#;
    let model = read(&Input::whole("f", &super::file(header, 0))).unwrap();
    let seen: Vec<_> = model.metadata.iter().collect();
    assert_eq!(seen, [("a", &Value::U8(1)), ("b", &Value::text("yes"))]);
}
