mod foreign;
mod i2_s;
mod wide;

use proptest::prelude::*;

use super::*;
use crate::block::{DType, TYPES};
use crate::container::Layout;
use crate::container::testing::materialise;
use crate::error::Fault;
use crate::metadata::{Array, Kind, Metadata, Value};
use crate::model::{ByteOrder, Encoding, Format, Input, Location, Model, Tensor};

fn tensor(name: &str, shape: &[u64], dtype: DType) -> Tensor {
    let location = Location::default();
    Tensor { name: name.into(), shape: shape.into(), encoding: Encoding::Blocks(dtype), location }
}

fn sample() -> (Metadata, Vec<Tensor>) {
    let mut m = Metadata::new();
    for (kind, _, size) in crate::metadata::KINDS {
        if size > 0 {
            let le: Vec<u8> = [1, 0, 0, 0, 0, 0, 0, 0][..size].to_vec();
            m.set(&format!("scalar.{}", kind.name()), Value::from_le(kind, &le).unwrap());
            let array = Array::from_encoded(kind, 3, [&le[..], &le, &le].concat());
            m.set(&format!("array.{}", kind.name()), Value::Array(array));
        }
    }
    m.set("general.architecture", Value::text("test"));
    m.set("bytes", Value::String(vec![0xFF, 0, 0x80]));
    m.set("strings", Value::Array(Array::of_strings(["", "a", "▁Lily"])));
    m.set("empty", Value::Array(Array::new(Kind::I32, &[]).unwrap()));
    let mut tensors: Vec<_> = TYPES
        .iter()
        .filter(|t| t.gguf.is_some())
        .map(|t| tensor(&format!("{}.weight", t.name), &[3, 2, 2 * t.weights as u64], t.dtype))
        .collect();
    tensors.push(tensor("scalar", &[], DType::F32));
    tensors.push(tensor("none", &[0, 32], DType::Q4_0));
    tensors.push(tensor("last", &[5], DType::I8));
    (m, tensors)
}

fn model(m: &Metadata, layout: &Layout, order: ByteOrder, alignment: u64) -> Model {
    let tensors = layout.tensors.clone();
    Model {
        format: Format::Gguf { version: 3 },
        order,
        alignment,
        metadata: m.clone(),
        tensors,
        notes: Vec::new(),
    }
}

#[test]
fn written_files_read_back_the_same() {
    for order in [ByteOrder::Little, ByteOrder::Big] {
        for alignment in [1, 8, 32, 64, 4096] {
            let (mut m, tensors) = sample();
            if alignment != 32 {
                m.set(ALIGNMENT_KEY, Value::U32(alignment));
            }
            let layout = layout("x", &m, &tensors, Options { order, split: Split::None }).unwrap();
            let bytes = materialise(&layout).remove(0);
            let input = Input::whole("x", &bytes);
            assert_eq!(read(&input).unwrap(), model(&m, &layout, order, alignment.into()));
            for t in &layout.tensors {
                assert_eq!(t.location.offset % u64::from(alignment), 0);
            }
        }
    }
}

#[test]
fn prefixes_ask_for_more_bytes_until_the_header_is_complete() {
    let (m, tensors) = sample();
    let layout = layout("x", &m, &tensors, Options { order: ByteOrder::Little, split: Split::None }).unwrap();
    let bytes = materialise(&layout).remove(0);
    let (mut n, mut asked) = (0, 0);
    loop {
        let input = Input { name: "x", bytes: &bytes[..n], len: bytes.len() as u64 };
        match read(&input) {
            Ok(m) => break assert_eq!(m.tensors, layout.tensors),
            Err(e) => match e.fault {
                Fault::More(more) => (n, asked) = (more as usize, asked + 1),
                other => panic!("{other}"),
            },
        }
    }
    assert!(asked > 100 && n <= layout.files[0].fixed[0].1.len());
}

/// Versions 1 and 2, written by hand: version 1 has 32-bit lengths, version 2 is version 3 with another number.
#[test]
fn old_versions_are_read() {
    for (version, order) in
        [(1u32, ByteOrder::Little), (1, ByteOrder::Big), (2, ByteOrder::Little), (2, ByteOrder::Big)]
    {
        let num = |n: u64, size: usize| {
            let le = n.to_le_bytes()[..size].to_vec();
            if order == ByteOrder::Big { le.into_iter().rev().collect() } else { le }
        };
        let len = |n: u64| num(n, if version == 1 { 4 } else { 8 });
        let string = |s: &str| [len(s.len() as u64), s.as_bytes().to_vec()].concat();
        let mut b = b"GGUF".to_vec();
        b.extend(num(version.into(), 4));
        b.extend([len(1), len(2)].concat());
        b.extend([string("a"), num(4, 4), num(7, 4)].concat());
        b.extend([string("b"), num(9, 4), num(8, 4), len(2), string("x"), string("yz")].concat());
        b.extend([string("t"), num(2, 4), len(4), len(3), num(0, 4), num(0, 8)].concat());
        b.resize(b.len().next_multiple_of(32), 0);
        let start = b.len() as u64;
        b.resize(b.len() + 48, 7);
        let m = read(&Input::whole("x", &b)).unwrap();
        assert_eq!((m.format, m.order), (Format::Gguf { version }, order));
        assert_eq!(m.metadata.get("a"), Some(&Value::U32(7)));
        assert_eq!(m.metadata.get("b"), Some(&Value::Array(Array::of_strings(["x", "yz"]))));
        assert_eq!(m.tensors[0].shape, [3, 4]);
        assert_eq!(m.tensors[0].location, Location { file: 0, offset: start, len: 48 });
    }
}

#[test]
fn a_file_alone_does_not_say_that_it_is_a_part() {
    let (mut m, tensors) = sample();
    let keys = |m: &Metadata| m.iter().filter(|(key, _)| key.starts_with("split.")).count();
    let n = tensors.len() as u64;
    for (no, count, of, kept) in [(0, 1, n, 3), (0, 1, n + 1, 0), (0, 2, n, 0), (1, 1, n, 0), (0, 0, n, 0)] {
        for (key, value) in SPLIT_KEYS.into_iter().zip([no, count, of]) {
            m.set(key, Value::U64(value));
        }
        let mut alone = m.clone();
        assert_eq!((settle_alone(&mut alone, tensors.len()).len(), keys(&alone)), (3 - kept, kept));
        let layout =
            layout("x", &m, &tensors, Options { order: ByteOrder::Little, split: Split::None }).unwrap();
        let read = read(&Input::whole("x", &materialise(&layout)[0])).unwrap();
        assert_eq!(keys(&read.metadata), kept, "{no} {count} {of}");
    }
    let mut text = Metadata::new();
    text.set("split.count", Value::text("1"));
    assert_eq!(settle_alone(&mut text, 0), ["split.count"]);
}

#[test]
fn splits_round_trip() {
    let (m, tensors) = sample();
    let whole = layout("x", &m, &tensors, Options { order: ByteOrder::Big, split: Split::None }).unwrap();
    for split in [Split::Tensors(1), Split::Tensors(7), Split::Bytes(1), Split::Bytes(3000)] {
        let parts = layout("x", &m, &tensors, Options { order: ByteOrder::Big, split }).unwrap();
        assert!(parts.files.len() > 1);
        if let Split::Bytes(most) = split {
            for i in 0..parts.files.len() {
                let of = parts.tensors.iter().filter(|t| t.location.file == i);
                let sizes: Vec<_> = of.map(|t| t.location.len.next_multiple_of(32)).collect();
                assert!(sizes.len() == 1 || sizes.iter().sum::<u64>() <= most);
            }
        }
        let files = materialise(&parts);
        let read_all = || files.iter().map(|b| ("x".to_string(), read(&Input::whole("x", b)).unwrap()));
        let joined = join(read_all().collect()).unwrap();
        assert_eq!(joined, model(&m, &parts, ByteOrder::Big, 32));
        let again = layout(
            "x",
            &joined.metadata,
            &joined.tensors,
            Options { order: ByteOrder::Big, split: Split::None },
        );
        assert_eq!(again.unwrap(), whole);

        let mut swapped: Vec<_> = read_all().collect();
        swapped.swap(0, 1);
        assert!(matches!(join(swapped).unwrap_err().fault, Fault::Split(_)));
        assert!(matches!(join(read_all().skip(1).collect()).unwrap_err().fault, Fault::Split(_)));

        // A part with fewer tensors than it should have: the error names the split, by its first part.
        let mut short: Vec<_> = read_all().collect();
        short.iter_mut().enumerate().for_each(|(i, part)| part.0 = format!("part {i}"));
        short[1].1.tensors.clear();
        let e = join(short).unwrap_err().to_string();
        assert!(e.starts_with("part 0: the split should have "), "{e}");
        // A count of the wrong type is no missing one.
        let mut odd: Vec<_> = read_all().collect();
        odd[0].1.metadata.set("split.count", Value::text("2"));
        let e = join(odd).unwrap_err().to_string();
        assert!(e.contains("split.count: must be an integer"), "{e}");
    }
}

/// Faults and the bytes that cause them.
#[test]
fn faults_are_reported() {
    let kv = |key: &[u8], kind: u32, value: &[u8]| {
        [&(key.len() as u64).to_le_bytes()[..], key, &kind.to_le_bytes(), value].concat()
    };
    let info = |name: &str, dims: &[u64], kind: u32, offset: u64| {
        let mut b = [&(name.len() as u64).to_le_bytes()[..], name.as_bytes()].concat();
        b.extend((dims.len() as u32).to_le_bytes());
        dims.iter().for_each(|d| b.extend(d.to_le_bytes()));
        [&b[..], &kind.to_le_bytes(), &offset.to_le_bytes()].concat()
    };
    let file = |kvs: &[Vec<u8>], infos: &[Vec<u8>]| {
        let mut b = b"GGUF\x03\0\0\0".to_vec();
        b.extend((infos.len() as u64).to_le_bytes());
        b.extend((kvs.len() as u64).to_le_bytes());
        b.extend([kvs.concat(), infos.concat()].concat());
        b.resize(b.len().next_multiple_of(32) + 64, 0);
        b
    };
    let u32_kv = |key: &[u8], v: u32| kv(key, 4, &v.to_le_bytes());
    let long = "x".repeat(65536);
    type Is = fn(&Fault) -> bool;
    let cases: [(&str, Vec<u8>, Is); 21] = [
        ("magic", b"GGML\x03\0\0\0".to_vec(), |f| matches!(f, Fault::NotAModel(_))),
        ("version 0", b"GGUF\0\0\0\0".to_vec(), |f| matches!(f, Fault::Version { found: 0, .. })),
        ("version 4", b"GGUF\x04\0\0\0".to_vec(), |f| matches!(f, Fault::Version { found: 4, .. })),
        ("cut", b"GGUF\x03\0\0\0\x01".to_vec(), |f| matches!(f, Fault::Ends { .. })),
        ("count", [&b"GGUF\x03\0\0\0"[..], &[0xFF; 16]].concat(), |f| matches!(f, Fault::Ends { .. })),
        ("duplicate key", file(&[u32_kv(b"a", 1), u32_kv(b"a", 2)], &[]), |f| {
            matches!(f, Fault::Duplicate { .. })
        }),
        ("empty key", file(&[u32_kv(b"", 1)], &[]), |f| matches!(f, Fault::Text { .. })),
        ("key not UTF-8", file(&[u32_kv(b"\xFF", 1)], &[]), |f| matches!(f, Fault::Text { .. })),
        ("kind", file(&[kv(b"a", 13, &[0; 8])], &[]), |f| matches!(f, Fault::ValueType { found: 13, .. })),
        ("nested", file(&[kv(b"a", 9, &[9, 0, 0, 0])], &[]), |f| matches!(f, Fault::NestedArray(_))),
        ("array", file(&[kv(b"a", 9, &[0xFF; 12])], &[]), |f| matches!(f, Fault::ValueType { .. })),
        ("array length", file(&[kv(b"a", 9, &[&[0; 4][..], &[0xFF; 8]].concat())], &[]), |f| {
            matches!(f, Fault::TooMany { .. })
        }),
        ("alignment 24", file(&[u32_kv(b"general.alignment", 24)], &[]), |f| {
            matches!(f, Fault::Alignment(24))
        }),
        ("alignment 0", file(&[u32_kv(b"general.alignment", 0)], &[]), |f| matches!(f, Fault::Alignment(0))),
        ("name", file(&[], &[info(&long, &[1], 0, 0)]), |f| matches!(f, Fault::TooMany { .. })),
        ("dims", file(&[], &[info("a", &[1; 65], 0, 0)]), |f| matches!(f, Fault::TooMany { .. })),
        ("overflow", file(&[], &[info("a", &[1 << 32, 1 << 32], 0, 0)]), |f| {
            matches!(f, Fault::Shape { .. })
        }),
        ("type", file(&[], &[info("a", &[1], 99, 0)]), |f| matches!(f, Fault::TensorType { .. })),
        (
            "removed",
            file(&[], &[info("a", &[1], 36, 0)]),
            |f| matches!(f, Fault::TensorType { why, .. } if why.contains("i2_s")),
        ),
        ("row", file(&[], &[info("a", &[31], 2, 0)]), |f| matches!(f, Fault::Shape { .. })),
        ("offset", file(&[], &[info("a", &[1], 0, 4)]), |f| matches!(f, Fault::Offset { expected: 0, .. })),
    ];
    for (what, bytes, is) in cases {
        let e = read(&Input::whole("bad.gguf", &bytes)).expect_err(what);
        assert!(is(&e.fault), "{what}: {e}");
        assert!(e.to_string().starts_with("bad.gguf: ") && e.at.is_some(), "{what}: {e}");
    }
    let twice = file(&[], &[info("a", &[1], 0, 0), info("a", &[1], 0, 32)]);
    assert!(matches!(read(&Input::whole("x", &twice)).unwrap_err().fault, Fault::Duplicate { .. }));
    let beyond = file(&[], &[info("a", &[100], 0, 0)]);
    assert!(matches!(read(&Input::whole("x", &beyond)).unwrap_err().fault, Fault::Ends { .. }));
    let truth = read(&Input::whole("x", &file(&[kv(b"a", 7, &[2])], &[]))).unwrap();
    assert!(truth.metadata.get("a") == Some(&Value::Bool(true)) && truth.notes.len() == 1);
    let same = file(&[u32_kv(b"a", 1), u32_kv(b"a", 1)], &[]);
    let same = read(&Input::whole("x", &same)).unwrap();
    assert!(same.metadata.len() == 1 && same.notes.len() == 1);
    let fine = file(&[u32_kv(b"a", 1)], &[info("a", &[8], 0, 0), info("b", &[8], 0, 32)]);
    assert_eq!(read(&Input::whole("x", &fine)).unwrap().tensors.len(), 2);
}

#[test]
fn the_writer_refuses_what_the_reader_refuses() {
    let (m, _) = sample();
    let try_it = |m: &Metadata, t: &[Tensor]| {
        layout("x", m, t, Options { order: ByteOrder::Little, split: Split::None }).map(|_| ())
    };
    for t in [
        tensor(&"x".repeat(65536), &[1], DType::F32),
        tensor("", &[1], DType::F32),
        tensor("a", &[1; 65], DType::F32),
        tensor("a", &[31], DType::Q4_0),
        tensor("a", &[64, 31], DType::Q4_0),
        tensor("a", &[1], DType::U8),
        tensor("a", &[1 << 40, 1 << 40], DType::F32),
        tensor("a", &[(1 << 61) - 1], DType::F64),
    ] {
        assert!(try_it(&m, std::slice::from_ref(&t)).is_err(), "{t:?}");
    }
    let twice = [tensor("a", &[1], DType::F32), tensor("a", &[1], DType::F32)];
    assert!(try_it(&m, &twice).is_err());
    let mut odd = m.clone();
    odd.set(ALIGNMENT_KEY, Value::U32(24));
    assert!(try_it(&odd, &[]).is_err());
    odd.set(ALIGNMENT_KEY, Value::U64(32));
    assert!(try_it(&odd, &[]).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_never_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..200), order: bool) {
        let _ = read(&Input::whole("x", &bytes));
        let head = if order { *b"GGUF\x03\0\0\0" } else { *b"GGUF\0\0\0\x03" };
        bytes.splice(0..0, head);
        let _ = read(&Input::whole("x", &bytes));
    }

    #[test]
    fn damage_to_a_valid_file_never_panics(at in 0usize..4000, with: u8, cut in 0usize..6000) {
        let (m, tensors) = sample();
        let layout = layout("x", &m, &tensors, Options { order: ByteOrder::Little, split: Split::None }).unwrap();
        let mut bytes = materialise(&layout).remove(0);
        let at = at % bytes.len();
        bytes[at] ^= with;
        let _ = read(&Input::whole("x", &bytes));
        bytes.truncate(cut);
        let _ = read(&Input::whole("x", &bytes));
    }
}
