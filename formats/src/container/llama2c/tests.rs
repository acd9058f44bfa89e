//! Small files of all versions, hostile ones, published ones.

use super::config::{Config, Storage};
use super::*;
use crate::block::DType;
use crate::container::Layout;
use crate::error::{Fault, Result};
use crate::metadata::{Array, Kind, Metadata, Value};
use crate::model::{ByteOrder, Encoding, Format, Input, Location, Model, Tensor};
use proptest::prelude::*;

mod fork;
mod published;
mod refusals;
mod reu;
mod vocabulary;

const ORDERS: [ByteOrder; 2] = [ByteOrder::Little, ByteOrder::Big];

/// Sizes with grouped-query attention, all different.
const SMALL: Config = Config {
    dim: 16,
    hidden: 24,
    layers: 3,
    heads: 4,
    kv_heads: 2,
    vocab: 10,
    seq: 5,
    head: 4,
    shared: true,
};

/// A checkpoint, written field by field from the description of the format, with consecutive numbers as weights. The tables
/// of version 0 are consecutive numbers too.
fn checkpoint(c: Config, version: u32, group: u64, order: ByteOrder) -> Vec<u8> {
    let mut out = Vec::new();
    let number = |out: &mut Vec<u8>, n: u32| out.extend(order.le(n.to_le_bytes()));
    if version > 0 {
        number(&mut out, 0x616b_3432);
        number(&mut out, version);
    }
    for (i, n) in c.numbers().into_iter().enumerate() {
        let negative = i == 5 && version == 0 && !c.shared;
        number(&mut out, if negative { -(n as i32) as u32 } else { n as u32 });
    }
    if version > 0 {
        out.push(c.shared.into());
        if version == 2 {
            number(&mut out, group as u32);
        }
        out.resize(256, 0);
    }
    let Config { dim, hidden, layers: l, vocab, seq, .. } = c;
    let (head, kv) = (dim / c.heads, dim / c.heads * c.kv_heads);
    let own = u64::from(!c.shared);
    let matrices = [(l, dim * dim), (l, kv * dim), (l, kv * dim), (l, dim * dim)];
    let forward = [(l, hidden * dim), (l, hidden * dim), (l, hidden * dim)];
    // The number of tensors, their sizes, and whether version 2 quantizes them.
    let mut stacks = Vec::new();
    if version == 0 {
        stacks.extend([(1, vocab * dim), (l, dim)]);
        stacks.extend(matrices);
        stacks.push((l, dim));
        stacks.extend(forward);
        stacks.extend([(1, dim), (1, seq * head / 2), (1, seq * head / 2), (own, vocab * dim)]);
    } else {
        stacks.extend([(l, dim), (l, dim), (1, dim), (1, vocab * dim)]);
        stacks.extend(matrices);
        stacks.extend(forward);
        stacks.push((own, vocab * dim));
    }
    let mut running = 0u32;
    let mut float = |out: &mut Vec<u8>| {
        running += 1;
        out.extend(order.le((running as f32 * 0.37).to_le_bytes()));
    };
    for (i, (count, n)) in stacks.into_iter().enumerate() {
        for _ in 0..count {
            if version == 2 && i >= 3 {
                (0..n).for_each(|j| out.push((j * 7 + i as u64) as u8));
                (0..n / group).for_each(|_| float(&mut out));
            } else {
                (0..n).for_each(|_| float(&mut out));
            }
        }
    }
    out
}

/// Every small file: both kinds of classifier, all versions, both orders.
fn small_files() -> Vec<(u32, ByteOrder, Config, Vec<u8>)> {
    let mut files = Vec::new();
    for version in 0..3 {
        for shared in [true, false] {
            for order in ORDERS {
                let c = Config { shared, ..SMALL };
                files.push((version, order, c, checkpoint(c, version, 8, order)));
            }
        }
    }
    files
}

fn words_swapped(bytes: &[u8]) -> Vec<u8> {
    assert_eq!(bytes.len() % 4, 0);
    bytes.chunks_exact(4).flat_map(|w| [w[3], w[2], w[1], w[0]]).collect()
}

/// The bytes of a tensor in the order of another file.
fn data(source: &[u8], t: &Tensor, swap: bool) -> Vec<u8> {
    let bytes = &source[t.location.offset as usize..][..t.location.len as usize];
    let codes = if t.encoding == Encoding::Blocks(DType::F32) { 0 } else { t.elements() as usize };
    let (codes, floats) = bytes.split_at(codes);
    if swap { [codes, &words_swapped(floats)].concat() } else { bytes.to_vec() }
}

/// Makes the file of a layout from the file that its tensors come from, in the same order of tensors.
fn materialise(layout: &Layout, source: &[u8], model: &Model, order: ByteOrder) -> Vec<u8> {
    let mut out = vec![0; layout.files[0].len as usize];
    let mut put = |at: u64, bytes: &[u8]| out[at as usize..][..bytes.len()].copy_from_slice(bytes);
    layout.files[0].fixed.iter().for_each(|(at, bytes)| put(*at, bytes));
    for (to, from) in layout.tensors.iter().zip(&model.tensors) {
        assert_eq!((&to.name, to.location.len), (&from.name, from.location.len));
        put(to.location.offset, &data(source, from, order != model.order));
    }
    out
}

/// The offset of the tables of version 0, counted by hand, and their length.
fn tables(c: Config) -> std::ops::Range<usize> {
    let kv = c.dim / c.heads * c.kv_heads;
    let layer = 2 * c.dim + 2 * c.dim * c.dim + 2 * kv * c.dim + 3 * c.hidden * c.dim;
    let start = 28 + 4 * (c.vocab * c.dim + c.layers * layer + c.dim);
    start as usize..(start + 4 * c.seq * c.dim / c.heads) as usize
}

fn read_whole(bytes: &[u8]) -> Result<Model> {
    read(&Input::whole("test.bin", bytes))
}

#[test]
fn small_files_are_read_and_written_back() {
    for (version, order, c, bytes) in small_files() {
        let whole = Input::whole("test.bin", &bytes);
        assert_eq!(sniff(&whole), Some(Format::Llama2c { version }));
        assert_eq!(near_miss(&whole), None);
        let model = read(&whole).unwrap();
        assert_eq!((model.format, model.order), (Format::Llama2c { version }, order));
        assert_eq!(model.tensors.len(), 2 + 27 + usize::from(!c.shared));
        // Only the header is needed.
        let prefix = Input { bytes: &bytes[..256], ..whole };
        assert_eq!(sniff(&prefix), Some(Format::Llama2c { version }));
        assert_eq!(read(&prefix).as_ref(), Ok(&model));

        for to in ORDERS {
            let options = Options::new(version, to);
            let mut plan = layout("out.bin", &model.metadata, &model.tensors, options).unwrap();
            assert_eq!(plan.tensors, model.tensors);
            if version == 0 {
                // The tables of the test file are not real ones.
                let (at, made) = plan.files[0].fixed.pop().unwrap();
                assert_eq!((at as usize)..(at as usize + made.len()), tables(c));
                let kept = bytes[tables(c)].to_vec();
                let kept = if to == order { kept } else { words_swapped(&kept) };
                plan.files[0].fixed.push((at, kept));
            }
            let expected = checkpoint(c, version, 8, to);
            assert!(materialise(&plan, &bytes, &model, to) == expected, "{version} {order:?} {to:?}");
            // The order of the given tensors is kept, and does not change locations.
            let mut turned = model.tensors.clone();
            turned.reverse();
            let mut placed = layout("out.bin", &model.metadata, &turned, options).unwrap().tensors;
            placed.reverse();
            assert_eq!(placed, model.tensors);
        }
    }
}

#[test]
fn shapes_and_settings_have_ggufs_names() {
    let model = read_whole(&checkpoint(SMALL, 0, 0, ByteOrder::Big)).unwrap();
    let first: Vec<_> = model.tensors.iter().take(11).map(|t| (t.name.as_str(), &t.shape[..])).collect();
    assert_eq!(
        first,
        [
            ("token_embd.weight", &[10, 16][..]),
            ("blk.0.attn_norm.weight", &[16]),
            ("blk.0.attn_q.weight", &[16, 16]),
            ("blk.0.attn_k.weight", &[8, 16]),
            ("blk.0.attn_v.weight", &[8, 16]),
            ("blk.0.attn_output.weight", &[16, 16]),
            ("blk.0.ffn_norm.weight", &[16]),
            ("blk.0.ffn_gate.weight", &[24, 16]),
            ("blk.0.ffn_down.weight", &[16, 24]),
            ("blk.0.ffn_up.weight", &[24, 16]),
            ("blk.1.attn_norm.weight", &[16]),
        ]
    );
    assert_eq!(model.tensors.last().unwrap().name, "output_norm.weight");
    let get = |key: &str| model.metadata.get(key).unwrap();
    for (key, n) in [
        ("vocab_size", 10),
        ("context_length", 5),
        ("embedding_length", 16),
        ("block_count", 3),
        ("feed_forward_length", 24),
        ("attention.head_count", 4),
        ("attention.head_count_kv", 2),
        ("rope.dimension_count", 4),
    ] {
        assert_eq!(get(&format!("llama.{key}")), &Value::U32(n), "{key}");
    }
    assert_eq!(get("llama.attention.layer_norm_rms_epsilon"), &Value::F32(1e-5));
    assert_eq!(get("llama.rope.freq_base"), &Value::F32(10000.0));
    assert_eq!(get("general.architecture"), &Value::text("llama"));
}

#[test]
fn versions_convert_to_each_other() {
    for (version, order, c, bytes) in small_files().into_iter().filter(|f| f.0 < 2) {
        let model = read_whole(&bytes).unwrap();
        let other = Options::new(1 - version, order);
        let plan = layout("out.bin", &model.metadata, &model.tensors, other).unwrap();
        let made = materialise(&plan, &bytes, &model, order);
        let again = read_whole(&made).unwrap();
        assert_eq!(again.metadata, model.metadata);
        assert_eq!(again.tensors, plan.tensors);
        for (a, b) in again.tensors.iter().zip(&model.tensors) {
            assert_eq!(data(&made, a, false), data(&bytes, b, false), "{} {c:?}", a.name);
        }
    }
}

#[test]
fn cuts_and_flips_never_panic() {
    for (version, _, _, bytes) in small_files() {
        let everything = |bytes: &[u8]| {
            let input = Input::whole("test.bin", bytes);
            (sniff(&input), near_miss(&input), tokenizer::looks_like(&input).is_ok(), read(&input))
        };
        for end in (0..300).chain((300..bytes.len()).step_by(97)).chain([bytes.len() - 1]) {
            let (format, miss, _, model) = everything(&bytes[..end]);
            let fault = model.unwrap_err().fault;
            assert!(matches!(fault, Fault::Ends { .. }), "{end}: {fault}");
            assert_eq!(format.is_some(), version > 0 && end >= 8);
            assert_eq!(miss.is_some(), version == 0 && end >= 28);
            // A prefix is enough if it holds the header; otherwise more is asked for.
            if let Err(e) = read(&Input { name: "", bytes: &bytes[..end], len: bytes.len() as u64 }) {
                assert!(matches!(e.fault, Fault::More(n) if n <= 41 && n > end as u64), "{e}");
            }
        }
        for bit in 0..8 * 48 {
            let mut bytes = bytes.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            if let (_, _, _, Ok(model)) = everything(&bytes) {
                for t in &model.tensors {
                    assert_eq!(t.encoding.bytes(t.elements()), Some(t.location.len));
                    assert!(t.location.offset + t.location.len <= bytes.len() as u64);
                }
                let options = Options::new(version, model.order);
                assert_eq!(
                    layout("", &model.metadata, &model.tensors, options).unwrap().tensors,
                    model.tensors
                );
            }
        }
        let mut longer = bytes.clone();
        longer.extend([0; 4]);
        let (_, miss, _, model) = everything(&longer);
        let Fault::TooMany { found, most, .. } = model.unwrap_err().fault else { panic!("too long") };
        assert_eq!((found, most), (longer.len() as u64, bytes.len() as u64));
        assert_eq!(miss.is_some(), version == 0);
    }
}

#[test]
fn the_largest_numbers_overflow_nothing() {
    for version in [1u32, 2] {
        let mut bytes = [&MAGIC.to_le_bytes()[..], &version.to_le_bytes()].concat();
        for n in [i32::MAX, i32::MAX, 65535, 1, 1, i32::MAX, i32::MAX] {
            bytes.extend(n.to_le_bytes());
        }
        bytes.push(0);
        bytes.extend(1u32.to_le_bytes());
        // An odd head size, then a wrong length.
        assert!(matches!(read_whole(&bytes).unwrap_err().fault, Fault::Header(_)));
        bytes[8..12].copy_from_slice(&(i32::MAX - 1).to_le_bytes());
        assert!(matches!(read_whole(&bytes).unwrap_err().fault, Fault::Ends { end: u64::MAX, .. }));
        bytes[16..20].copy_from_slice(&65536u32.to_le_bytes());
        let e = read_whole(&bytes).unwrap_err();
        assert_eq!((e.at, matches!(e.fault, Fault::Header(_))), (Some(16), true));
    }
    let least = [i32::MIN.to_le_bytes(); 7].concat();
    assert_eq!(sniff(&Input::whole("", &least)), None);
}

proptest! {
    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..400), len: u64) {
        for len in [bytes.len() as u64, len.max(bytes.len() as u64)] {
            let input = Input { name: "", bytes: &bytes, len };
            let _ = (sniff(&input), near_miss(&input), read(&input));
            let _ = (tokenizer::looks_like(&input), tokenizer::read(&input));
        }
    }

    #[test]
    fn random_headers_never_panic(
        fields in prop::array::uniform7(prop_oneof![1i32..300, any::<i32>(), (0u32..31).prop_map(|b| 1 << b)]),
        version in 0u32..3, group in prop_oneof![1u32..9, any::<u32>()], big: bool, exact: bool, len: u64,
    ) {
        let order = ORDERS[usize::from(big)];
        let mut bytes = Vec::new();
        if version > 0 {
            bytes.extend(order.le(MAGIC.to_le_bytes()));
            bytes.extend(order.le(version.to_le_bytes()));
        }
        fields.iter().for_each(|f| bytes.extend(order.le(f.to_le_bytes())));
        bytes.push(1);
        bytes.extend(order.le(group.to_le_bytes()));
        let storage = Storage { version, group, fork: false };
        let right = Config::from_fields(fields).filter(|_| exact).and_then(|c| u64::try_from(c.len(storage)).ok());
        let len = right.unwrap_or(len).max(bytes.len() as u64);
        let input = Input { name: "", bytes: &bytes, len };
        let _ = near_miss(&input);
        if let (Ok(model), true) = (read(&input), sniff(&input).is_some()) {
            let end = model.tensors.iter().map(|t| t.location.offset + t.location.len).max();
            prop_assert!(end.unwrap() <= len);
        }
    }

    #[test]
    fn groups_are_exact_to_half_a_step(x in prop::collection::vec(any::<f32>(), 1..70)) {
        let mut codes = vec![1; x.len()];
        let scale = quantize_group(&x, &mut codes);
        for (w, q) in x.iter().zip(&codes) {
            prop_assert!(*q != -128);
            if scale.is_normal() && w.is_finite() {
                let error = (f64::from(*w) - f64::from(*q) * f64::from(scale)).abs();
                prop_assert!(error <= f64::from(scale) * 0.50001);
            }
        }
    }
}

#[test]
fn groups_round_half_to_even() {
    let mut codes = [0; 6];
    // The scale is 2, so multiples of a half are exact.
    assert_eq!(quantize_group(&[254.0, 1.0, 3.0, -1.0, -5.0, 0.0], &mut codes), 2.0);
    assert_eq!(codes, [127, 0, 2, 0, -2, 0]);
    assert_eq!(quantize_group(&[0.0, -0.0], &mut codes[..2]), 0.0);
    assert_eq!(codes[..2], [0, 0]);
    assert_eq!(quantize_group(&[f32::from_bits(1), -f32::from_bits(9)], &mut codes[..2]), 0.0);
    assert_eq!(codes[..2], [0, 0]);
    assert_eq!(
        quantize_group(&[f32::from_bits(190), -f32::from_bits(190)], &mut codes[..2]),
        f32::from_bits(1)
    );
    assert_eq!(codes[..2], [127, -127]);
}
