//! One hand-made file for each thing that can be wrong, and every small accident to a good one.

use super::file;
use crate::container;
use crate::container::safetensors::{looks_like, read};
use crate::error::{Error, Fault};
use crate::model::{Format, Input};

const GOOD: &str = concat!(
    r#"{"__metadata__":{"format":"pt"},"b":{"dtype":"F16","shape":[2,3],"data_offsets":[4,16]},"#,
    r#""a":{"dtype":"F32","shape":[],"data_offsets":[0,4]},"#,
    r#""none":{"dtype":"I64","shape":[5,0],"data_offsets":[4,4]}}"#
);

fn fault(header: &str, data: usize) -> Error {
    read(&Input::whole("f", &file(header, data))).unwrap_err()
}

#[test]
fn a_file_is_read_in_the_order_of_its_data() {
    let bytes = file(GOOD, 16);
    let model = container::read(&Input::whole("f", &bytes)).unwrap();
    assert_eq!((model.format, model.alignment), (Format::Safetensors, 1));
    assert_eq!(model.metadata.text("format"), Some("pt"));
    let start = 8 + GOOD.len() as u64;
    let seen: Vec<_> =
        model.tensors.iter().map(|t| (t.name.as_str(), t.location.offset - start, t.location.len)).collect();
    assert_eq!(seen, [("a", 0, 4), ("none", 4, 0), ("b", 4, 12)]);
    assert!(model.tensors[0].shape.is_empty());
    assert_eq!(model.tensors[2].shape, [2, 3]);
}

#[test]
fn a_prefix_asks_for_more_bytes() {
    let bytes = file(GOOD, 16);
    let need = 8 + GOOD.len();
    let part = |n: usize| Input { name: "f", bytes: &bytes[..n], len: bytes.len() as u64 };
    assert_eq!(read(&part(7)).unwrap_err().fault, Fault::More(8));
    assert_eq!(read(&part(need - 1)).unwrap_err().fault, Fault::More(need as u64));
    assert!(read(&part(need)).is_ok());
}

#[test]
fn impossible_lengths_are_refused() {
    let short = read(&Input::whole("f", &[0; 7])).unwrap_err().fault;
    assert!(matches!(short, Fault::Ends { end: 8, len: 7, .. }));
    let long = [&100_000_001u64.to_le_bytes()[..], b"{"].concat();
    let fault = read(&Input::whole("f", &long)).unwrap_err();
    assert!(matches!(fault, Error { at: Some(0), fault: Fault::TooMany { most: 100_000_000, .. }, .. }));
    let huge = read(&Input::whole("f", &[0xFF; 20])).unwrap_err().fault;
    assert!(matches!(huge, Fault::TooMany { found: u64::MAX, .. }));

    // Truncated within its header, it is still recognised.
    let mut cut = file(GOOD, 16);
    cut.truncate(80);
    assert!(looks_like(&Input::whole("f", &cut)));
    let end = 8 + GOOD.len() as u64;
    let fault = Fault::Ends { what: "the header".into(), end, len: 80 };
    assert_eq!(container::read(&Input::whole("f", &cut)).unwrap_err(), Error::at("f", 8, fault));
    for other in [&b"GGUF\x03\0\0\0{"[..], b"\x10\0\0\0\0\0\0\0[", b"\x01\0\0\0\0\0\0\0{", b"{", b""] {
        assert!(!looks_like(&Input::whole("f", other)));
    }
}

#[test]
fn json_errors_have_an_offset() {
    let at = |header: &str| {
        let e = fault(header, 0);
        assert!(matches!(e.fault, Fault::Header(_)), "{e}");
        assert!(!e.to_string().contains("column"), "{e}");
        e.at.unwrap()
    };
    assert_eq!(at("[]"), 8);
    assert_eq!(at(" {}"), 8);
    assert_eq!(at(""), 8);
    assert_eq!(at(r#"{"a":}"#), 8 + 5);
    assert_eq!(at(r#"{}x"#), 8 + 2);
    assert_eq!(at("{\n\n  x}"), 8 + 5);
    assert_eq!(at(r#"{"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,0]}}"#), 8 + 30);
    assert_eq!(at(r#"{"a":3}"#), 8 + 5);
    assert_eq!(at(r#"{"\ud800":{}}"#), 8 + 8);
    assert_eq!(at(r#"{"a":{"dtype":"F32","shape":[0]}}"#), 8 + 31);
    let nested = format!("{{\"a\":{}", "[".repeat(100_000));
    assert!(at(&nested) > 100_000);
    let e = read(&Input::whole("f", b"\x08\0\0\0\0\0\0\0{\"\xFF\":{}}")).unwrap_err();
    assert_eq!(e, Error::at("f", 10, Fault::Header("not UTF-8".into())));
}

#[test]
fn duplicate_names_are_refused() {
    let entry = r#"{"dtype":"U8","shape":[1],"data_offsets":[0,1]}"#;
    let header = format!(r#"{{"a":{entry},"b":{entry},"\u0061":{entry}}}"#);
    let e = fault(&header, 1);
    let duplicate = |what, name: &str| Fault::Duplicate { what, name: name.into() };
    assert_eq!(e, Error::at("f", 8 + header.find(r#""\u"#).unwrap() as u64, duplicate("tensor", "a")));
    for (one, two) in [("{}", "{}"), ("null", "null"), ("null", r#"{"a":"b"}"#)] {
        let e = fault(&format!(r#"{{"__metadata__":{one},"__metadata__":{two}}}"#), 0);
        assert_eq!(e.fault, duplicate("key", "__metadata__"));
    }
    let e = fault(r#"{"__metadata__":{"k":"1","k":"2"}}"#, 0);
    assert_eq!(e, Error::at("f", 33, duplicate("metadata key", "k")));
    assert!(fault(r#"{"a":{"dtype":"U8","dtype":"U8","shape":[0],"data_offsets":[0,0]}}"#, 0).at.is_some());
}

#[test]
fn unknown_types_are_refused() {
    let e = fault(r#"{"a":{"dtype":"F3","shape":[0],"data_offsets":[0,0]}}"#, 0);
    let Fault::TensorType { tensor, id, why } = &e.fault else { panic!("{e}") };
    assert_eq!((tensor.as_str(), id.as_str(), e.at), ("a", "F3", Some(13)));
    assert!(why.contains("BF16") && why.contains("F8_E4M3"));
}

#[test]
fn data_fits_the_shape() {
    let shape = |dtype: &str, shape: &str, end: u64| {
        let header = format!(r#"{{"a":{{"dtype":"{dtype}","shape":{shape},"data_offsets":[0,{end}]}}}}"#);
        match fault(&header, 8).fault {
            Fault::Shape { why, .. } => why,
            other => panic!("{other}"),
        }
    };
    assert!(shape("F32", "[3]", 8).contains("takes 12 bytes, data_offsets give it 8"));
    assert!(shape("U8", "[4294967296,4294967296]", 8).contains("number of elements overflows"));
    assert!(shape("U8", "[4294967296,4294967296,0]", 0).contains("overflows"));
    assert!(shape("F64", "[4611686018427387904]", 8).contains("overflows"));
    assert!(shape("F4", "[3]", 2).contains("not whole bytes"));
    assert!(shape("F6_E2M3", "[2]", 2).contains("not whole bytes"));
    let e = fault(r#"{"a":{"dtype":"U8","shape":[0],"data_offsets":[4,2]}}"#, 4);
    assert!(matches!(e.fault, Fault::Header(ref why) if why.contains("ends before it starts")));
    let long = "1,".repeat(1 << 19);
    let e = fault(&format!(r#"{{"a":{{"dtype":"U8","shape":[{long}1],"data_offsets":[0,1]}}}}"#), 1);
    assert!(matches!(e.fault, Fault::TooMany { most: 1_048_576, .. }));
}

#[test]
fn data_is_contiguous() {
    let two = |from: u64, to: u64| {
        format!(
            r#"{{"a":{{"dtype":"U8","shape":[4],"data_offsets":[0,4]}},"b":{{"dtype":"U8","shape":[{}],"data_offsets":[{from},{to}]}}}}"#,
            to - from
        )
    };
    let offset = |found| Fault::Offset { tensor: "b".into(), found, expected: 4 };
    assert_eq!(fault(&two(5, 8), 8).fault, offset(5));
    assert_eq!(fault(&two(3, 8), 8).fault, offset(3));
    assert_eq!(fault(&two(u64::MAX - 1, u64::MAX), 8).fault, offset(u64::MAX - 1));
    let end = 8 + two(4, 8).len() as u64 + 8;
    let e = fault(&two(4, 8), 6);
    assert_eq!(e.fault, Fault::Ends { what: "tensor b".into(), end, len: end - 2 });
    let e = fault(&two(4, 8), 9);
    assert_eq!((e.at, e.to_string().contains("1 bytes follow")), (Some(end), true));
    assert!(fault("{}", 1).to_string().contains("1 bytes follow"));
}

#[test]
fn metadata_is_text() {
    let e = fault(r#"{"__metadata__":{"k":1}}"#, 0);
    assert_eq!(e.at, Some(8 + 21));
    assert!(e.to_string().contains("metadata key k: is not a string"), "{e}");
    let e = fault(r#"{"__metadata__":{"":"x"}}"#, 0);
    assert!(matches!(e.fault, Fault::Text { ref problem, .. } if problem == "empty"));
    assert!(matches!(fault(r#"{"__metadata__":[]}"#, 0).fault, Fault::Header(_)));
    assert!(matches!(fault(r#"{"__metadata__":{"k":"\uD800"}}"#, 0).fault, Fault::Header(_)));
    let e = fault(r#"{"__metadata__":{"gguf.metadata":"[[]]"}}"#, 0);
    assert!(matches!(e.fault, Fault::Metadata { ref key, .. } if key == "gguf.metadata"), "{e}");
    let many: Vec<String> = (0..=65536).map(|i| format!(r#""{i}":"""#)).collect();
    let e = fault(&format!(r#"{{"__metadata__":{{{}}}}}"#, many.join(",")), 0);
    assert!(matches!(e.fault, Fault::TooMany { most: 65536, .. }));
    for fine in [r#"{"__metadata__":null}"#, r#"{"__metadata__":{}}"#, "{}", "{}   "] {
        assert!(read(&Input::whole("f", &file(fine, 0))).unwrap().metadata.is_empty());
    }
}

/// Damaged files are refused or valid, and files that are accepted here are accepted by the `safetensors` crate.
#[test]
fn every_cut_and_every_flipped_bit() {
    let whole = file(GOOD, 16);
    for n in 0..whole.len() {
        assert!(read(&Input::whole("f", &whole[..n])).is_err(), "cut at {n}");
    }
    let mut stricter = 0;
    for bit in 0..whole.len() * 8 {
        let mut bytes = whole.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        let input = Input::whole("f", &bytes);
        let _ = container::sniff(&input);
        let theirs = safetensors::SafeTensors::deserialize(&bytes);
        match (read(&input), theirs) {
            (Ok(ours), Ok(theirs)) => {
                assert_eq!(ours.tensors.len(), theirs.len());
                for t in &ours.tensors {
                    assert!(t.location.offset + t.location.len <= bytes.len() as u64);
                    assert_eq!(theirs.tensor(&t.name).unwrap().data().len() as u64, t.location.len);
                }
            }
            (Ok(_), Err(e)) => panic!("bit {bit}: the crate says {e}"),
            (Err(_), Ok(_)) => stricter += 1,
            (Err(e), Err(_)) => assert!(e.at.is_some()),
        }
    }
    // For example, if one name became equal to another.
    assert!(stricter < 10, "{stricter}");
}
