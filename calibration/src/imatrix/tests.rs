//! Hand-made files of both kinds, whole and damaged in every place.

use formats::container::gguf::{Options, Split, layout};
use formats::metadata::{Array, Metadata, Value};
use formats::model::{ByteOrder, Encoding, Location, Tensor};
use proptest::prelude::*;

use super::*;

/// A tensor of a GGUF and its numbers.
type Numbers<'a> = (&'a str, &'a [u64], &'a [f32]);

fn described(tensors: &[Numbers<'_>]) -> Vec<Tensor> {
    let (encoding, location) = (Encoding::Blocks(DType::F32), Location::default());
    let one = |(name, shape, _): &Numbers<'_>| Tensor {
        name: name.to_string(),
        shape: shape.to_vec(),
        encoding,
        location,
    };
    tensors.iter().map(one).collect()
}

fn gguf_of(tensors: &[Numbers<'_>], metadata: &Metadata, order: ByteOrder) -> Vec<u8> {
    let layout = layout("x", metadata, &described(tensors), Options { order, split: Split::None }).unwrap();
    let mut bytes = vec![0; layout.files[0].len as usize];
    for (at, fixed) in &layout.files[0].fixed {
        bytes[*at as usize..][..fixed.len()].copy_from_slice(fixed);
    }
    for (t, (_, _, x)) in layout.tensors.iter().zip(tensors) {
        let data: Vec<u8> = x.iter().flat_map(|x| order.le(x.to_le_bytes())).collect();
        bytes[t.location.offset as usize..][..data.len()].copy_from_slice(&data);
    }
    bytes
}

fn metadata() -> Metadata {
    let mut m = Metadata::new();
    m.set("general.type", Value::text("imatrix"));
    m.set("imatrix.datasets", Value::Array(Array::of_strings(["some/text.txt", "b"])));
    m.set("imatrix.chunk_count", Value::U32(7));
    m.set("imatrix.chunk_size", Value::U32(512));
    m
}

const DENSE: [Numbers<'_>; 2] =
    [("blk.0.a.weight.in_sum2", &[1, 3], &[2.0, 4.0, 0.0]), ("blk.0.a.weight.counts", &[1, 1], &[2.0])];
const EXPERTS: [Numbers<'_>; 2] = [
    ("blk.0.e.weight.counts", &[3, 1], &[4.0, 0.0, 1.0]),
    ("blk.0.e.weight.in_sum2", &[3, 2], &[4.0, 8.0, 0.0, 0.0, 5.0, 6.0]),
];

fn example(order: ByteOrder) -> Vec<u8> {
    gguf_of(&[DENSE, EXPERTS].concat(), &metadata(), order)
}

/// The same as a `.dat`.
fn legacy_example(order: ByteOrder) -> Vec<u8> {
    let mut bytes = Vec::new();
    let number = |bytes: &mut Vec<u8>, n: i32| bytes.extend(order.le(n.to_le_bytes()));
    let text = |bytes: &mut Vec<u8>, s: &str| {
        number(bytes, s.len() as i32);
        bytes.extend(s.as_bytes());
    };
    number(&mut bytes, 2);
    for (name, calls, values) in [
        ("blk.0.a.weight", 2, &[2.0f32, 4.0, 0.0][..]),
        ("blk.0.e.weight", 0, &[1.0, 2.0, 1.0, 1.0, 5.0, 6.0]),
    ] {
        text(&mut bytes, name);
        number(&mut bytes, calls);
        number(&mut bytes, values.len() as i32);
        values.iter().for_each(|x| bytes.extend(order.le(x.to_le_bytes())));
    }
    number(&mut bytes, 7);
    text(&mut bytes, "some/text.txt");
    bytes
}

#[test]
fn both_kinds_and_byte_orders_read_the_same() {
    for order in [ByteOrder::Little, ByteOrder::Big] {
        let (new, old) = (example(order), legacy_example(order));
        let (new, old) = (read("new", &new).unwrap(), read("old", &old).unwrap());
        for (name, means) in
            [("blk.0.a.weight", &[1.0, 2.0, 0.0][..]), ("blk.0.e.weight", &[1.0, 2.0, 1.0, 1.0, 5.0, 6.0])]
        {
            assert_eq!(new.entries[name].means(), means);
            assert_eq!(old.entries[name].means(), means);
        }
        assert_eq!(new.entries["blk.0.e.weight"].counts(), [4, 0, 1]);
        assert_eq!(old.entries["blk.0.a.weight"].counts(), [2]);
        assert_eq!((new.chunks, new.chunk_size), (Some(7), Some(512)));
        assert_eq!((old.chunks, old.chunk_size), (Some(7), None));
        assert_eq!(new.datasets, ["some/text.txt", "b"]);
        assert_eq!(old.datasets, ["some/text.txt"]);
        assert_eq!(
            new.notes,
            [
                "new: 1 of 4 matrices (experts) were never used by the text; all their columns get the same importance"
            ]
        );
        assert_eq!(
            old.notes,
            [
                "old: 1 of 2 entries have no number of chunks (the first is blk.0.e.weight): their values are taken as \
                 they are, but may never have been measured"
            ]
        );
    }
}

#[test]
fn optional_parts_of_older_files() {
    let whole = legacy_example(ByteOrder::Little);
    let end = whole.len() - 4 - "some/text.txt".len() - 4;
    let bare = read("x", &whole[..end]).unwrap();
    assert!(bare.chunks.is_none() && bare.datasets.is_empty() && bare.entries.len() == 2);
    assert_eq!(read("x", &whole[..end + 4]).unwrap().chunks, Some(7));
    // A tensor of several matrices may have one count for all. A GGUF without metadata is recognised by its tensors.
    let stacked: [Numbers<'_>; 2] =
        [("s.in_sum2", &[2, 2], &[2.0, 4.0, 6.0, 8.0]), ("s.counts", &[1, 1], &[2.0])];
    let read = read("x", &gguf_of(&stacked, &Metadata::new(), ByteOrder::Little)).unwrap();
    assert_eq!(read.entries["s"].means(), [1.0, 2.0, 3.0, 4.0]);
    assert!(read.chunks.is_none() && read.datasets.is_empty());
}

#[test]
fn invalid_files_are_refused() {
    let fails = |tensors: &[Numbers<'_>], m: &Metadata| {
        read("x.gguf", &gguf_of(tensors, m, ByteOrder::Little)).unwrap_err().to_string()
    };
    let with = |key: &str, value: Value| {
        let mut m = metadata();
        m.set(key, value);
        m
    };
    let m = metadata();
    let is = |text: String, parts: &[&str]| {
        assert!(text.starts_with("x.gguf: ") && parts.iter().all(|p| text.contains(p)), "{text}");
    };
    is(fails(&DENSE[..1], &m), &["blk.0.a.weight has .in_sum2 but no .counts"]);
    is(fails(&DENSE[1..], &m), &["blk.0.a.weight has .counts but no .in_sum2"]);
    is(fails(&[("a.weight", &[2, 2], &[1.0; 4])], &m), &["not an imatrix", "NAME.in_sum2"]);
    is(fails(&DENSE, &with("general.type", Value::text("model"))), &["not an imatrix", "model"]);
    is(fails(&DENSE, &with("imatrix.chunk_count", Value::text("7"))), &["imatrix.chunk_count", "str"]);
    is(fails(&DENSE, &with("imatrix.datasets", Value::text("7"))), &["imatrix.datasets", "array"]);
    let two: Numbers<'_> = ("blk.0.a.weight.counts", &[2, 1], &[2.0, 2.0]);
    is(fails(&[DENSE[0], two], &m), &["3 values and 2 counts", "at byte"]);
    let none: Numbers<'_> = ("blk.0.a.weight.in_sum2", &[1, 0], &[]);
    is(fails(&[none, DENSE[1]], &m), &["0 values"]);
    for bad in [-1.0, f32::NAN, f32::INFINITY] {
        let sums: Numbers<'_> = ("blk.0.a.weight.in_sum2", &[1, 3], &[2.0, bad, 0.0]);
        is(fails(&[sums, DENSE[1]], &m), &["value 1 of blk.0.a.weight.in_sum2", "not negative", "at byte"]);
        let counts: Numbers<'_> = ("blk.0.a.weight.counts", &[1, 1], &[bad]);
        is(fails(&[DENSE[0], counts], &m), &["value 0 of blk.0.a.weight.counts"]);
    }

    let whole = legacy_example(ByteOrder::Little);
    let changed = |at: usize, to: [u8; 4]| {
        let mut bytes = whole.clone();
        bytes[at..at + 4].copy_from_slice(&to);
        read("x.gguf", &bytes).unwrap_err().to_string()
    };
    let values = 4 + 4 + "blk.0.a.weight".len() + 4 + 4;
    is(changed(values + 4, f32::NAN.to_le_bytes()), &["value 1 of blk.0.a.weight", "at byte 34"]);
    is(changed(values - 4, (-1i32).to_le_bytes()), &["a number of values", "at byte 26"]);
    is(
        changed(values - 4, i32::MAX.to_le_bytes()),
        &["the values of blk.0.a.weight", "truncated", "at byte 30"],
    );
    is(changed(values - 4, [0; 4]), &["0 values"]);
    is(changed(4, [0; 4]), &["the name of entry 0 is empty", "at byte 4"]);
    is(changed(0, [0; 4]), &["not an imatrix"]);
    let more = [&whole[..], &[0; 3]].concat();
    is(read("x.gguf", &more).unwrap_err().to_string(), &["3 bytes after its end"]);
    // The first entry again as a third one.
    let mut twice = whole[..values + 12].to_vec();
    twice.extend(&whole[4..values + 12]);
    twice[0] = 2;
    is(read("x.gguf", &twice).unwrap_err().to_string(), &["entry \"blk.0.a.weight\" appears twice"]);
    is(read("x.gguf", b"").unwrap_err().to_string(), &["not an imatrix"]);
    is(
        read("x.gguf", b"a text, perhaps the one that was meant to be read").unwrap_err().to_string(),
        &["not an"],
    );
}

#[test]
fn truncated_files_are_refused() {
    let whole = example(ByteOrder::Little);
    for len in 0..whole.len() {
        // After the last number there is only padding.
        let cut = read("x", &whole[..len]);
        assert!(cut.is_err() || len > whole.len() - 32, "{len}");
    }
    let whole = legacy_example(ByteOrder::Big);
    let optional = whole.len() - 4 - "some/text.txt".len() - 4;
    for len in 0..whole.len() {
        assert_eq!(read("x", &whole[..len]).is_ok(), [optional, optional + 4].contains(&len), "{len}");
    }
}

proptest! {
    #[test]
    fn damaged_files_give_errors_or_valid_numbers(
        (big, old) in (proptest::bool::ANY, proptest::bool::ANY),
        changes in proptest::collection::vec((0usize..4096, 0u8..=255), 1..4),
    ) {
        let order = if big { ByteOrder::Big } else { ByteOrder::Little };
        let mut bytes = if old { legacy_example(order) } else { example(order) };
        for (at, to) in changes {
            let at = at % bytes.len();
            bytes[at] = to;
        }
        if let Ok(s) = read("x", &bytes) {
            prop_assert!(!s.entries.is_empty());
            for entry in s.entries.values() {
                prop_assert!(!entry.means().is_empty() && !entry.counts().is_empty());
                prop_assert!(entry.means().iter().all(|x| x.is_finite() && x.is_sign_positive()));
            }
        }
    }
}

#[test]
fn more_entries_than_any_model_has_are_refused() {
    let file = |count: u32| {
        let mut bytes = count.to_le_bytes().to_vec();
        for i in 0..count {
            bytes.extend(7u32.to_le_bytes());
            bytes.extend(format!("{i:07}").as_bytes());
            [1u32.to_le_bytes(), 1u32.to_le_bytes(), 1f32.to_le_bytes()].iter().for_each(|b| bytes.extend(b));
        }
        bytes
    };
    assert_eq!(read("x.dat", &file(1000)).unwrap().entries.len(), 1000);
    let why = read("x.dat", &file((1 << 17) + 1)).unwrap_err().to_string();
    assert!(why.contains("the number of entries") && why.contains("131073"), "{why}");
}

#[test]
fn a_part_is_the_whole_or_refused() {
    let options = Options { order: ByteOrder::Little, split: Split::Tensors(2) };
    let parts = layout("x", &metadata(), &described(&[DENSE, EXPERTS].concat()), options).unwrap();
    let file = |i: usize| {
        let mut bytes = vec![0; parts.files[i].len as usize];
        for (at, fixed) in &parts.files[i].fixed {
            bytes[*at as usize..][..fixed.len()].copy_from_slice(fixed);
        }
        bytes
    };
    for (i, no) in [(0, 1), (1, 2)] {
        let why = read("x.gguf", &file(i)).unwrap_err().to_string();
        assert_eq!(why, format!("x.gguf: is part {no} of 2 of an importance matrix that was split"));
    }
    // One that says it has all two tensors.
    let mut whole = file(0);
    let key = b"split.tensors.count";
    let at = whole.windows(key.len()).position(|w| w == key).unwrap() + key.len() + 4;
    whole[at] = 2;
    let read = read("x.gguf", &whole).unwrap();
    assert!(read.notes[0].contains("says that it is one of 2 files"), "{:?}", read.notes);
    assert!(read.entries.len() == 1 && read.metadata.is_empty(), "{:?}", read.metadata);
}
