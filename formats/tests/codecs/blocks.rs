//! All types against the reference library's vectors, and what holds for every type.

use std::collections::HashSet;

use proptest::prelude::*;
use safetensors::SafeTensors;

use formats::block::{
    CodecError, DType, Effort, Encode, Family, Info, Number, Objective, REMOVED, Section, TYPES, f16_to_f32,
    f32_to_f16,
};

use crate::{decode, encode_with, published};

fn encode(dtype: DType, x: &[f32], importance: Option<&[f32]>) -> Vec<u8> {
    let how = Encode { importance, objective: Some(Objective::Error), effort: Effort::Normal };
    encode_with(dtype, x, &how).unwrap()
}

#[test]
fn wrong_lengths_are_errors() {
    let (x, mut bytes) = ([0.5; 64], [0; 36]);
    let q4_0 = DType::Q4_0;
    assert_eq!(q4_0.encode(&x, &Encode::default(), &mut bytes), Ok(()));
    assert_eq!(
        q4_0.encode(&x[1..], &Encode::default(), &mut bytes),
        Err(CodecError::Weights { dtype: q4_0, weights: 63 })
    );
    let fault = CodecError::Bytes { dtype: q4_0, weights: 32, found: 36, expected: 18 };
    assert_eq!(q4_0.decode(&bytes, &mut [0.0; 32]), Err(fault));
    assert_eq!(fault.to_string(), "32 weights of q4_0 take 18 bytes, found 36");
    let how = Encode { importance: Some(&x[..32]), ..Encode::default() };
    let fault = CodecError::Importance { weights: 64, found: 32 };
    assert_eq!(q4_0.encode(&x, &how, &mut bytes), Err(fault));
    assert_eq!(DType::F4.decode(&[0], &mut [0.0; 2]), Err(CodecError::NoCodec(DType::F4)));
}

fn error(x: &[f32], y: &[f32], importance: Option<&[f32]>) -> f64 {
    let weight = |j| importance.map_or(1.0, |w: &[f32]| f64::from(w[j]));
    (0..x.len()).map(|j| weight(j) * (f64::from(x[j]) - f64::from(y[j])).powi(2)).sum()
}

fn coded() -> impl Iterator<Item = &'static Info> {
    TYPES.iter().filter(|t| t.dtype.decode(&[], &mut []).is_ok())
}

/// Test vectors of the reference library (ggml).
fn vectors() -> Vec<u8> {
    published::read("vectors/ggml_blocks.safetensors")
}

fn floats(tensors: &SafeTensors, name: &str) -> Option<Vec<f32>> {
    let data = tensors.tensor(name).ok()?.data().as_chunks::<4>().0;
    Some(data.iter().map(|b| f32::from_le_bytes(*b)).collect())
}

#[test]
#[ignore = "needs published files (see CONTRIBUTING.md)"]
fn published_vectors_decode_to_the_reference_librarys_bits() {
    let file = vectors();
    let tensors = SafeTensors::deserialize(&file).unwrap();
    for info in coded() {
        let name = info.name.to_uppercase();
        for kind in ["", "imatrix.", "random_"] {
            let Some(expected) = floats(&tensors, &format!("{name}.{kind}dequantized")) else { continue };
            let bytes = tensors.tensor(&format!("{name}.{kind}bytes")).unwrap();
            let ours = decode(info.dtype, bytes.data());
            assert_eq!(ours.len(), expected.len(), "{name}");
            for (j, (a, b)) in ours.iter().zip(&expected).enumerate() {
                let same = a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan();
                assert!(same, "{name}.{kind} weight {j}: {a} for {b}");
            }
        }
    }
}

#[test]
#[ignore = "needs published files (see CONTRIBUTING.md)"]
fn published_vectors_are_encoded_no_worse_than_by_the_reference_library_in_any_row() {
    let file = vectors();
    let tensors = SafeTensors::deserialize(&file).unwrap();
    let input = floats(&tensors, "input").unwrap();
    let imatrix = floats(&tensors, "imatrix").unwrap();
    let mut worse = Vec::new();
    println!("error as a part of the reference's: worst row, mean of rows, normal rows");
    for info in coded() {
        let name = info.name.to_uppercase();
        for (kind, importance) in [("", None), ("imatrix.", Some(&imatrix[..]))] {
            let Some(reference) = floats(&tensors, &format!("{name}.{kind}dequantized")) else { continue };
            let mut ratios = Vec::new();
            for (row, x) in input.chunks(512).enumerate() {
                let ours = decode(info.dtype, &encode(info.dtype, x, importance));
                let ours = error(x, &ours, importance);
                let theirs = error(x, &reference[512 * row..][..512], importance);
                if ours > theirs {
                    worse.push(format!("{name}.{kind} row {row}: {ours:e} for {theirs:e}"));
                }
                if theirs > 0.0 {
                    ratios.push(ours / theirs);
                }
            }
            let worst = ratios.iter().fold(0.0, |a: f64, b| a.max(*b));
            let mean = ratios.iter().sum::<f64>() / ratios.len().max(1) as f64;
            if !ratios.is_empty() {
                let normal = (ratios[0] + ratios[1]) / 2.0;
                println!("{name:8} {kind:8} {worst:.4} {mean:.4} {normal:.4}");
            }
        }
    }
    assert!(worse.is_empty(), "{worse:#?}");
}

fn half(x: f32) -> [u8; 2] {
    f32_to_f16(x).to_le_bytes()
}

/// Decoding and encoding of blocks whose weights are represented exactly, with the smallest and the largest code in use.
#[test]
fn plain_vectors() {
    let check = |dtype: DType, bytes: &[u8], x: &[f32]| {
        assert_eq!(decode(dtype, bytes), x, "{dtype:?}");
        let ours = decode(dtype, &encode(dtype, x, None));
        assert!(error(x, &ours, None) <= 1e-12, "{dtype:?}: {ours:?}");
    };
    let counting: Vec<u8> = (0..16).collect();

    // Low nibbles count up from 0, high nibbles down from 15.
    let nibbles: Vec<u8> = counting.iter().map(|j| j | (15 - j) << 4).collect();
    let q: Vec<f32> = (0..16).chain((0..16).rev()).map(|q| q as f32).collect();
    let x: Vec<f32> = q.iter().map(|q| (q - 8.0) * -0.5).collect();
    check(DType::Q4_0, &[&half(-0.5)[..], &nibbles].concat(), &x);
    let x: Vec<f32> = q.iter().map(|q| q * 0.25 + 3.0).collect();
    check(DType::Q4_1, &[&half(0.25)[..], &half(3.0), &nibbles].concat(), &x);

    // The fifth bit is set for the weights 16 to 31, whose low bits count up too.
    let nibbles: Vec<u8> = counting.iter().map(|j| j | j << 4).collect();
    let x: Vec<f32> = (0..32).map(|q| (q as f32 - 16.0) * -0.125).collect();
    check(DType::Q5_0, &[&half(-0.125)[..], &[0, 0, 255, 255], &nibbles].concat(), &x);
    let x: Vec<f32> = (0..32).map(|q| q as f32 * 2.0 - 7.0).collect();
    check(DType::Q5_1, &[&half(2.0)[..], &half(-7.0), &[0, 0, 255, 255], &nibbles].concat(), &x);

    let q: Vec<i8> = (0..32).map(|j| if j == 0 { -127 } else { 4 * j }).collect();
    let x: Vec<f32> = q.iter().map(|&q| f32::from(q) * 0.5).collect();
    check(DType::Q8_0, &[&half(0.5)[..], &q.iter().map(|&q| q as u8).collect::<Vec<_>>()].concat(), &x);

    // Trits 2, 0, 1, 2, 0 are the number 2·81 + 0·27 + 1·9 + 2·3 + 0 = 177 of 243: 186.5 of 256, rounded up.
    // Trits 1, 0, 2, 1 and a zero: 81 + 0 + 18 + 3 = 102 of 243: 107.5 of 256, rounded up.
    let mut x = Vec::new();
    for (trits, count) in [(&[1.0f32, -1.0, 0.0, 1.0, -1.0][..], 32), (&[1.0, -1.0, 0.0, 1.0, -1.0], 16)] {
        trits.iter().for_each(|t| x.extend(vec![t * 0.75; count]));
    }
    [0.0f32, -1.0, 1.0, 0.0].iter().for_each(|t| x.extend([t * 0.75; 4]));
    let bytes = [&[187; 48][..], &[108; 4], &half(0.75)].concat();
    check(DType::TQ1_0, &bytes, &x);
    assert_eq!(encode(DType::TQ1_0, &x, None), bytes);

    // Codes 2, 1, 0, 1 from the lowest bits on.
    let x: Vec<f32> = (0..256).map(|j| [0.75, 0.0, -0.75, 0.0][j / 32 % 4]).collect();
    let bytes = [&[0b01_00_01_10; 64][..], &half(0.75)].concat();
    check(DType::TQ2_0, &bytes, &x);
    assert_eq!(encode(DType::TQ2_0, &x, None), bytes);
}

#[test]
fn zeros_give_scales_and_codes_of_zero() {
    for info in coded() {
        for x in [0.0, -0.0] {
            let x = vec![x; info.weights];
            for importance in [None, Some(vec![0.0; info.weights]), Some(vec![1.0; info.weights])] {
                let bytes = encode(info.dtype, &x, importance.as_deref());
                assert!(decode(info.dtype, &bytes).iter().all(|&x| x == 0.0), "{}", info.name);
                for f in info.fields.iter().filter(|f| f.number == Number::F16 && info.weights > 1) {
                    assert_eq!(bytes[f.at..][..2], [0, 0], "{}", info.name);
                }
            }
        }
    }
}

#[test]
fn ternary_weights_come_back() {
    for dtype in [DType::TQ1_0, DType::TQ2_0] {
        for s in [0.037f32, 1.0, 1.000_488_3, 3e-7, 60000.0] {
            let x: Vec<f32> = (0..256).map(|j| ((j * 7 + j / 5) % 3) as f32 * s - s).collect();
            let importance: Vec<f32> = (0..256).map(|j| 0.1 + (j % 11) as f32).collect();
            let stored = f16_to_f32(f32_to_f16(s));
            let expected: Vec<f32> =
                x.iter().map(|x| if *x == 0.0 { 0.0 } else { stored.copysign(*x) }).collect();
            for importance in [None, Some(&importance[..])] {
                assert_eq!(decode(dtype, &encode(dtype, &x, importance)), expected, "{dtype:?} {s}");
            }
        }
    }
}

/// The error of plain rounding, which gives the weight of largest magnitude the largest code.
fn plain_error(dtype: DType, x: &[f32], importance: Option<&[f32]>) -> Option<f64> {
    let peak = x.iter().fold(0.0, |p: f32, x| if x.abs() > p.abs() { *x } else { p });
    let least = x.iter().fold(f32::INFINITY, |a, b| a.min(*b));
    let range = x.iter().fold(f32::NEG_INFINITY, |a, b| a.max(*b)) - least;
    let (d, m, lo, hi) = match dtype {
        DType::Q4_0 => (peak / -8.0, 0.0, -8.0, 7.0),
        DType::Q5_0 => (peak / -16.0, 0.0, -16.0, 15.0),
        DType::Q8_0 => (peak / 127.0, 0.0, -127.0, 127.0),
        DType::Q4_1 => (range / 15.0, least, 0.0, 15.0),
        DType::Q5_1 => (range / 31.0, least, 0.0, 31.0),
        DType::TQ1_0 | DType::TQ2_0 => (peak.abs(), 0.0, -1.0, 1.0),
        _ => return None,
    };
    let stored = |x: f32| f16_to_f32(f32_to_f16(x.clamp(-65504.0, 65504.0)));
    let (d, m) = (stored(d), stored(m));
    let y: Vec<f32> = x
        .iter()
        .map(|x| if d == 0.0 { m } else { ((x - m) / d).round_ties_even().clamp(lo, hi) * d + m })
        .collect();
    Some(error(x, &y, importance))
}

fn weight() -> impl Strategy<Value = f32> {
    prop_oneof![
        8 => -1.0f32..1.0,
        2 => (-30i32..30, -1.0f32..1.0).prop_map(|(e, x)| x * 10f32.powi(e)),
        1 => Just(0.0f32),
        1 => Just(-0.0f32),
        1 => Just(1e30f32),
    ]
}

fn rows() -> impl Strategy<Value = (Vec<f32>, Option<Vec<f32>>)> {
    let scale = prop_oneof![3 => Just(1.0f32), 1 => Just(1e-7f32), 1 => Just(1e5f32), 1 => Just(0.0f32)];
    let offset = prop_oneof![2 => Just(0.0f32), 1 => -100.0f32..100.0];
    let row = prop_oneof![
        2 => (proptest::collection::vec(-1.0f32..1.0, 256), scale, offset)
            .prop_map(|(x, s, o)| x.iter().map(|x| x * s + o).collect()),
        1 => proptest::collection::vec(weight(), 256),
    ];
    let count = prop_oneof![4 => 0.0f32..10.0, 1 => Just(0.0f32), 1 => Just(1e30f32), 1 => Just(1e-30f32)];
    (row, proptest::option::of(proptest::collection::vec(count, 256)))
}

/// A block's bytes do not depend on the blocks that it is packed with.
fn check_alone(x: &[f32], importance: Option<&[f32]>) {
    for info in coded() {
        let n = if info.weights == 256 { 512 } else { 352 / info.weights * info.weights };
        let x = &x.repeat(2)[..n];
        let importance = importance.map(|w| w.repeat(2));
        let together = encode(info.dtype, x, importance.as_deref().map(|w| &w[..n]));
        let alone: Vec<u8> = (0..n / info.weights)
            .map(|j| j * info.weights..(j + 1) * info.weights)
            .flat_map(|at| encode(info.dtype, &x[at.clone()], importance.as_deref().map(|w| &w[at])))
            .collect();
        assert_eq!(together, alone, "{}", info.name);
    }
}

/// Blocks of many kinds in one batch. With infinities and NaN, encoding must not panic.
#[test]
fn odd_blocks_get_the_same_bytes_alone_and_in_batches() {
    let tops = [0.0, -0.0, 1e-45, -1e-40, 1e-7, 0.037, -1.0, 3e4, 1e30, f32::MAX];
    for (i, top) in tops.into_iter().enumerate() {
        let x: Vec<f32> = (0..256)
            .map(|j| match (i + j / 32) % 4 {
                0 => top,
                1 => top * (j % 3) as f32 - top,
                2 if j % 32 == 7 => top,
                2 => 0.01 * (j as f32).sin(),
                _ => tops[j % tops.len()],
            })
            .collect();
        check_alone(&x, None);
        check_alone(&x, Some(&[1.0; 256]));
        for odd in [f32::INFINITY, f32::NEG_INFINITY, f32::NAN] {
            let mut x = x.clone();
            x[37] = odd;
            coded().for_each(|info| assert!(!encode(info.dtype, &x, None).is_empty()));
        }
    }
}

proptest! {
    // Every case encodes eight blocks and more of every type twice.
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn blocks_get_the_same_bytes_alone_and_in_batches((x, importance) in rows()) {
        check_alone(&x, importance.as_deref());
    }
}

proptest! {
    #[test]
    fn encoding_is_finite_and_no_worse_than_plain_rounding((x, importance) in rows()) {
        for info in coded().filter(|t| t.weights > 1) {
            let bytes = encode(info.dtype, &x, importance.as_deref());
            prop_assert_eq!(info.dtype.first_not_finite(&bytes), None, "{}", info.name);
            let y = decode(info.dtype, &bytes);
            prop_assert!(y.iter().all(|y| y.is_finite()), "{}: {:?}", info.name, y);
            for (j, x) in x.chunks(info.weights).enumerate() {
                let at = j * info.weights..(j + 1) * info.weights;
                // If all importances of a block are zero, they are ignored.
                let w = importance.as_ref().map(|w| &w[at.clone()]).filter(|w| w.iter().any(|w| *w > 0.0));
                let Some(plain) = plain_error(info.dtype, x, w) else { continue };
                // Errors are compared as f32: of blocks whose weighted squares are beyond that, all are infinite.
                let weighted = |(i, x): (usize, &f32)| x * x * w.map_or(1.0, |w| w[i]);
                if !x.iter().enumerate().map(weighted).sum::<f32>().is_finite() {
                    continue;
                }
                let ours = error(x, &y[at], w);
                prop_assert!(ours <= plain * (1.0 + 1e-4), "{}: {:e} for {:e} {:?}", info.name, ours, plain, x);
            }
        }
    }

    #[test]
    fn any_bytes_decode(bytes in proptest::collection::vec(any::<u8>(), 512)) {
        for info in coded() {
            prop_assert_eq!(decode(info.dtype, &bytes).len(), 512 / info.bytes * info.weights);
        }
    }

    #[test]
    fn swapping_twice_restores_the_bytes(bytes in proptest::collection::vec(any::<u8>(), 700)) {
        for info in TYPES {
            let bytes = &bytes[..700 / info.bytes * info.bytes];
            let mut swapped = bytes.to_vec();
            info.dtype.swap(&mut swapped);
            for (j, (a, b)) in swapped.chunks(info.bytes).zip(bytes.chunks(info.bytes)).enumerate() {
                let mut expected = b.to_vec();
                for f in info.fields {
                    for i in 0..f.count {
                        expected[f.at + i * f.stride..][..f.width].reverse();
                    }
                }
                prop_assert_eq!(a, &expected[..], "{} block {}", info.name, j);
            }
            info.dtype.swap(&mut swapped);
            prop_assert_eq!(&swapped[..], bytes, "{}", info.name);
        }
    }
}

/// Every row of the list says what its consumers need: a row that forgets something fails here.
#[test]
fn rows_are_whole_and_agree_with_their_blocks() {
    let names: HashSet<_> = TYPES.iter().map(|t| t.name).collect();
    assert_eq!(names.len(), TYPES.len());
    let numbers: Vec<_> = TYPES.iter().filter_map(|t| t.gguf).collect();
    assert_eq!(numbers.iter().collect::<HashSet<_>>().len(), numbers.len());
    assert!(REMOVED.iter().all(|(id, _)| !numbers.contains(id)));
    for info in TYPES {
        let name = info.name;
        assert_eq!(name, name.to_lowercase());
        assert_eq!(info.dtype.info().name, name);
        assert_eq!(DType::from_name(&name.to_uppercase()), Some(info.dtype));
        assert!(info.gguf.is_some() || info.safetensors.is_some(), "{name} is in no container");
        for f in info.fields {
            assert!(f.count > 0 && f.stride >= f.width && [2, 4, 8].contains(&f.width), "{name}");
            assert!(f.at + (f.count - 1) * f.stride + f.width <= info.bytes, "{name}");
        }
        let coded = info.dtype.decode(&[], &mut []).is_ok();
        assert_eq!(info.section.is_some(), info.holds_weights(), "{name}: its section in help");
        assert!(coded || !info.holds_weights(), "{name} has no block to write weights with");
        assert!(!info.usual || info.error.is_some(), "{name} is chosen from, but its error is unknown");
        assert!(info.error.is_none_or(|e| (0.0..=100.0).contains(&e) && info.holds_weights()), "{name}");
        assert!(!info.needs_importance || info.bits_per_weight() < 3.1, "{name}");
        let by_itself = matches!(info.family, Family::Scalar | Family::Ternary);
        assert_eq!(
            info.grid.is_some(),
            by_itself,
            "{name}: codes of single weights have a grid, others do not"
        );
        assert!(info.grid.is_none_or(|g| g.shape().weights == info.weights), "{name}");
        assert!(info.weights <= 4 || !matches!(info.family, Family::Float | Family::Integer), "{name}");
        if info.weights > 1 && info.holds_weights() {
            let next = info.fallback.info();
            assert!(
                next.weights < info.weights && next.holds_weights(),
                "{name} falls back to {}",
                next.name
            );
            assert!(next.bits_per_weight() >= info.bits_per_weight(), "{name} falls back to {}", next.name);
        }
    }
    let titles: HashSet<_> = Section::ALL.iter().map(|s| s.1).collect();
    assert_eq!(titles.len(), Section::ALL.len());
    for (section, title) in Section::ALL {
        assert!(TYPES.iter().any(|t| t.section == Some(section)), "{title} is empty");
    }
    assert!(TYPES.iter().filter_map(|t| t.section).all(|s| Section::ALL.iter().any(|all| all.0 == s)));
}

#[test]
fn rows_that_are_not_whole_blocks_get_a_type_that_fits() {
    for info in TYPES.iter().filter(|t| t.holds_weights()) {
        for cols in [0, 1, 31, 32, 64, 128, 172, 256, 288, 512, u64::MAX] {
            let found = info.dtype.fitting(cols);
            assert!(cols.is_multiple_of(found.info().weights as u64), "{} {cols}", info.name);
            assert_eq!(found == info.dtype, cols.is_multiple_of(info.weights as u64), "{} {cols}", info.name);
        }
    }
}

#[test]
fn fields_have_the_offsets_of_the_formats() {
    use DType::*;
    let table: [(DType, &[(usize, usize)]); 20] = [
        (Q4_0, &[(0, 2)]),
        (Q4_1, &[(0, 2), (2, 2)]),
        (Q5_0, &[(0, 2), (2, 4)]),
        (Q5_1, &[(0, 2), (2, 2), (4, 4)]),
        (Q8_0, &[(0, 2)]),
        (Q2_K, &[(80, 2), (82, 2)]),
        (Q3_K, &[(108, 2)]),
        (Q4_K, &[(0, 2), (2, 2)]),
        (Q5_K, &[(0, 2), (2, 2)]),
        (Q6_K, &[(208, 2)]),
        (IQ4_NL, &[(0, 2)]),
        (IQ4_XS, &[(0, 2), (2, 2)]),
        (TQ1_0, &[(52, 2)]),
        (TQ2_0, &[(64, 2)]),
        (Q1_0, &[(0, 2)]),
        (MXFP4, &[]),
        (F32, &[(0, 4)]),
        (F16, &[(0, 2)]),
        (BF16, &[(0, 2)]),
        (IQ1_M, &[(48, 2), (50, 2), (52, 2), (54, 2)]),
    ];
    for (dtype, expected) in table {
        let fields = dtype.info().fields.iter();
        let fields: Vec<_> =
            fields.flat_map(|f| (0..f.count).map(|i| (f.at + i * f.stride, f.width))).collect();
        assert_eq!(fields, expected, "{dtype:?}");
    }
}

#[test]
fn the_first_block_that_is_not_finite_is_found() {
    let blocks = |dtype: DType, at: usize, value: &[u8]| {
        let bytes = dtype.info().bytes;
        let mut three = vec![0; 3 * bytes];
        assert_eq!(dtype.first_not_finite(&three), None);
        for block in [1, 2] {
            three[block * bytes + at..][..value.len()].copy_from_slice(value);
        }
        dtype.first_not_finite(&three)
    };
    for nan in [0x7C00u16, 0xFC00, 0x7E01] {
        assert_eq!(blocks(DType::Q4_0, 0, &nan.to_le_bytes()), Some(1));
        assert_eq!(blocks(DType::Q4_1, 2, &nan.to_le_bytes()), Some(1));
        assert_eq!(blocks(DType::TQ1_0, 52, &nan.to_le_bytes()), Some(1));
        assert_eq!(blocks(DType::Q8_0, 2, &nan.to_le_bytes()), None);
    }
    assert_eq!(blocks(DType::F16, 0, &half(65504.0)), None);
    assert_eq!(blocks(DType::F32, 0, &f32::NAN.to_le_bytes()), Some(1));
    assert_eq!(blocks(DType::F32, 0, &f32::MAX.to_le_bytes()), None);
    assert_eq!(blocks(DType::F64, 0, &f64::NEG_INFINITY.to_le_bytes()), Some(1));
    assert_eq!(blocks(DType::BF16, 0, &[0x80, 0x7F]), Some(1));
    assert_eq!(blocks(DType::I32, 0, &[255; 4]), None);
    assert_eq!(blocks(DType::MXFP4, 0, &[255]), Some(1));
    // The top nibbles of four numbers are one half: 0x7C00 has its exponent in the last two.
    assert_eq!(blocks(DType::IQ1_M, 53, &[0xC0, 0, 0x70]), Some(1));
    assert_eq!(blocks(DType::IQ1_M, 53, &[0xB0, 0, 0x70]), None);
}
