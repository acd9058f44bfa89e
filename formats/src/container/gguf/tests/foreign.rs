//! Types of other programs, and of earlier versions of ggml.

use super::*;
use crate::block::{FOREIGN, Foreign};

/// A file in which the tensors of a type, which is written in its stead, get another number.
fn renumbered(tensors: &[Tensor], dtype: DType, id: u32) -> Vec<u8> {
    let mut m = Metadata::new();
    m.set("general.architecture", Value::text("test"));
    let options = Options { order: ByteOrder::Little, split: Split::None };
    let layout = layout("x", &m, tensors, options).unwrap();
    let mut bytes = materialise(&layout).remove(0);
    for t in tensors.iter().filter(|t| t.encoding == Encoding::Blocks(dtype)) {
        let name = [&(t.name.len() as u64).to_le_bytes()[..], t.name.as_bytes()].concat();
        let at =
            bytes.windows(name.len()).position(|w| w == name).unwrap() + name.len() + 4 + 8 * t.shape.len();
        bytes[at..at + 4].copy_from_slice(&id.to_le_bytes());
    }
    bytes
}

fn encodings(bytes: &[u8]) -> Vec<Encoding> {
    read(&Input::whole("x", bytes)).unwrap().tensors.iter().map(|t| t.encoding).collect()
}

/// Tensors as long as if they had 34 bytes for 128 weights: those of q8_0, with a quarter of the weights.
fn long_blocks(names: &[&str]) -> Vec<u8> {
    let tensors: Vec<_> = names.iter().map(|n| tensor(n, &[6, 64], DType::Q8_0)).collect();
    let mut bytes = renumbered(&tensors, DType::Q8_0, 42);
    for name in names {
        let name = [&(name.len() as u64).to_le_bytes()[..], name.as_bytes()].concat();
        let at = bytes.windows(name.len()).position(|w| w == name).unwrap() + name.len() + 4;
        bytes[at..at + 8].copy_from_slice(&256u64.to_le_bytes());
    }
    bytes
}

#[test]
fn long_blocks_under_the_number_of_q2_0_are_recognised_by_their_length() {
    for names in [&["a"][..], &["a", "b"], &["a", "b", "c"]] {
        assert!(encodings(&long_blocks(names)).iter().all(|e| *e == Encoding::Foreign(Foreign::PQ2_0)));
    }
    let own = [tensor("a", &[6, 256], DType::Q2_0), tensor("b", &[6, 256], DType::Q2_0)];
    assert_eq!(encodings(&renumbered(&own, DType::Q2_0, 42)), [Encoding::Blocks(DType::Q2_0); 2]);
    // Both forms of a short tensor have the same padded length: ggml's is meant.
    let short = [tensor("a", &[1, 128], DType::Q2_0), tensor("b", &[1], DType::F32)];
    assert_eq!(encodings(&renumbered(&short, DType::Q2_0, 42))[0], Encoding::Blocks(DType::Q2_0));
    // Under the fork's own number.
    let mut bytes = long_blocks(&["a", "b"]);
    for name in [b"a", b"b"] {
        let name = [&1u64.to_le_bytes()[..], name].concat();
        let at = bytes.windows(9).position(|w| w == name).unwrap() + 9 + 4 + 16;
        bytes[at] = 142;
    }
    assert_eq!(encodings(&bytes), [Encoding::Foreign(Foreign::PQ2_0); 2]);
}

#[test]
fn blocks_of_two_rows_and_shapes_that_overflow() {
    // Rows of 64 weights, two in each block.
    let mut bytes = long_blocks(&["a", "b"]);
    let at = |bytes: &[u8], name: &[u8]| {
        let name = [&1u64.to_le_bytes()[..], name].concat();
        bytes.windows(9).position(|w| w == name).unwrap() + 13
    };
    for name in [b"a", b"b"] {
        let at = at(&bytes, name);
        bytes[at..at + 8].copy_from_slice(&64u64.to_le_bytes());
        bytes[at + 8..at + 16].copy_from_slice(&24u64.to_le_bytes());
    }
    assert_eq!(encodings(&bytes), [Encoding::Foreign(Foreign::PQ2_0); 2]);
    // The last tensor's place says nothing of its length, so its shape may be any.
    let tensors = [tensor("a", &[6, 64], DType::Q8_0), tensor("b", &[2, 3, 4, 64], DType::Q8_0)];
    let mut bytes = renumbered(&tensors, DType::Q8_0, 42);
    let first = at(&bytes, b"a");
    bytes[first..first + 8].copy_from_slice(&256u64.to_le_bytes());
    let last = at(&bytes, b"b");
    for dim in 1..4 {
        bytes[last + 8 * dim..last + 8 * dim + 8].copy_from_slice(&(1u64 << 40).to_le_bytes());
    }
    let e = read(&Input::whole("x", &bytes)).unwrap_err().to_string();
    assert!(e.contains("tensor b") && e.contains("overflow"), "{e}");
}

#[test]
fn interleaved_rows_are_read_where_the_length_is_right() {
    let some = |rows| [tensor("a", &[rows, 64], DType::Q4_0), tensor("norm", &[64], DType::F32)];
    for (id, f) in FOREIGN.into_iter().filter(|f| f.1 != Foreign::PQ2_0) {
        assert_eq!(encodings(&renumbered(&some(8), DType::Q4_0, id))[0], Encoding::Foreign(f));
        let e = read(&Input::whole("x", &renumbered(&some(9), DType::Q4_0, id))).unwrap_err().to_string();
        assert!(e.contains(f.name()) && e.contains("not a multiple of"), "{e}");
        // Another length.
        let other = [tensor("a", &[8, 64], DType::F32), tensor("b", &[64], DType::F16)];
        let e = read(&Input::whole("x", &renumbered(&other, DType::F32, id))).unwrap_err().to_string();
        assert!(e.contains(f.name()) && e.contains("take the model's q4_0"), "{e}");
    }
}

#[test]
fn other_numbers_are_named() {
    for (id, says) in [
        (142, "PrismML's pq2_0"),
        (143, "PrismML's ptq1_0"),
        (37, "iq4_nl_4_8"),
        (150, "ik_llama.cpp"),
        (500, "unknown"),
    ] {
        let some = [tensor("a", &[8, 64], DType::F16), tensor("b", &[64], DType::F32)];
        let e = read(&Input::whole("x", &renumbered(&some, DType::F16, id))).unwrap_err().to_string();
        assert!(e.contains(&format!("tensor a has type {id}: ")) && e.contains(says), "{e}");
    }
}

#[test]
fn foreign_layouts_are_not_written() {
    let t = Tensor { encoding: Encoding::Foreign(Foreign::Q4_0_4_4), ..tensor("a", &[8, 64], DType::Q4_0) };
    let options = Options { order: ByteOrder::Little, split: Split::None };
    let e = layout("x", &Metadata::new(), &[t], options).unwrap_err().to_string();
    assert!(e.contains("GGUF cannot hold q4_0_4_4"), "{e}");
}
