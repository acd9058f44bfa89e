//! Blocks of every type decode, whatever is in them; and finite weights, packed in whatever way, give blocks that are
//! as they should be and decode to finite weights.
#![no_main]
use formats::block::{Block, Effort, Encode, Objective, TYPES, Visitor, decode_blocks, encode_blocks};

struct There<'a>(&'a [u8]);

impl Visitor for There<'_> {
    type Out = Vec<f32>;
    fn visit<const W: usize, const B: usize, T: Block<W, B>>(self) -> Vec<f32> {
        let mut x = vec![0.0; self.0.len() / B * W];
        decode_blocks::<W, B, T>(self.0, &mut x);
        x
    }
}

struct Back<'a>(&'a [f32], Encode<'a>);

impl Visitor for Back<'_> {
    type Out = Vec<u8>;
    fn visit<const W: usize, const B: usize, T: Block<W, B>>(self) -> Vec<u8> {
        let mut bytes = vec![0; self.0.len() / W * B];
        encode_blocks::<W, B, T>(self.0, &self.1, &mut bytes);
        bytes
    }
}

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Some((&[kind, effort, objective, weighted], bytes)) = bytes.split_first_chunk() else { return };
    let types: Vec<_> = TYPES.iter().filter(|t| t.dtype.visit(There(&[])).is_some()).collect();
    let info = types[usize::from(kind) % types.len()];
    info.dtype.visit(There(&bytes[..bytes.len() / info.bytes * info.bytes])).expect("it can be decoded");

    let numbers: Vec<f32> = bytes.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
    let mut x: Vec<f32> = numbers.iter().map(|x| if x.is_finite() { *x } else { 0.0 }).collect();
    x.truncate(x.len() / info.weights * info.weights);
    let importance: Vec<f32> = x.iter().rev().map(|x| x.abs()).collect();
    let how = Encode {
        importance: (weighted % 2 == 1).then_some(&importance),
        objective: [None, Some(Objective::Error), Some(Objective::Prior)][usize::from(objective) % 3],
        effort: Effort::ALL[usize::from(effort) % 3].0,
    };
    let packed = info.dtype.visit(Back(&x, how)).expect("it can be encoded");
    // Plain floats of fewer bits reach less far.
    if info.weights > 1 {
        assert_eq!(info.dtype.first_not_finite(&packed), None, "{}", info.name);
        let back = info.dtype.visit(There(&packed)).expect("it can be decoded");
        assert!(back.iter().all(|x| x.is_finite()), "{}", info.name);
    }
});
