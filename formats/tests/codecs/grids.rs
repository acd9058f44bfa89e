//! Every grid against the type's decoder and encoder.

use proptest::prelude::*;

use formats::block::grid::{Grid, Parts, Shape};
use formats::block::{DType, Effort, Encode, Info, Number, Objective, TYPES, f16_to_f32};

fn decode(info: &Info, bytes: &[u8]) -> Vec<f32> {
    crate::decode(info.dtype, bytes)
}

fn grids() -> impl Iterator<Item = (&'static Info, &'static dyn Grid)> {
    TYPES.iter().filter_map(|t| Some((t, t.dtype.grid()?)))
}

/// Values that unpacking has to overwrite.
const USED: Parts = Parts { d: f32::NAN, m: f32::NAN, scales: [999; 16], mins: [999; 16], codes: [255; 256] };

fn values(grid: &dyn Grid, parts: &Parts) -> Vec<f32> {
    let shape = grid.shape();
    let value = |j: usize| {
        let g = j / shape.group;
        let step = grid.step(parts.d, parts.scales[g]);
        step * shape.levels[usize::from(parts.codes[j])] + grid.offset(parts.m, parts.mins[g])
    };
    (0..shape.weights).map(value).collect()
}

/// The bits of numbers, with -0.0 as 0.0.
fn bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|x| (x + 0.0).to_bits()).collect()
}

fn check_within(info: &Info, shape: &Shape, parts: &Parts) {
    let groups = shape.weights / shape.group;
    let within = |numbers: &[i16; 16], range: Option<[i16; 2]>| {
        let [least, most] = range.unwrap_or_default();
        numbers[..groups].iter().all(|n| (least..=most).contains(n))
            && numbers[groups..].iter().all(|n| *n == 0)
    };
    assert!(within(&parts.scales, shape.scales), "{}: {parts:?}", info.name);
    assert!(within(&parts.mins, shape.mins), "{}: {parts:?}", info.name);
    let (codes, rest) = parts.codes.split_at(shape.weights);
    assert!(codes.iter().all(|c| usize::from(*c) < shape.levels.len()), "{}: {parts:?}", info.name);
    assert!(rest.iter().all(|c| *c == 0), "{}", info.name);
    assert!(shape.free || parts.d == 1.0, "{}", info.name);
    assert!(shape.offset || shape.mins.is_some() || parts.m == 0.0, "{}", info.name);
}

/// Parts have the values that the decoder gives, also after packing them again.
fn check_blocks(info: &Info, grid: &dyn Grid, bytes: &[u8]) {
    let decoded = decode(info, bytes);
    for (bytes, x) in bytes.chunks_exact(info.bytes).zip(decoded.chunks_exact(info.weights)) {
        let mut parts = USED;
        grid.unpack(bytes, &mut parts);
        check_within(info, grid.shape(), &parts);
        assert_eq!(bits(&values(grid, &parts)), bits(x), "{}: {parts:?}", info.name);
        let mut again = vec![0xA5; info.bytes];
        grid.pack(&parts, &mut again);
        let y = decode(info, &again);
        assert_eq!(bits(&y), bits(x), "{}: {parts:?}", info.name);
        // Zeros of small floats and bytes of trits can be stored in several ways.
        if ![DType::TQ1_0, DType::MXFP4, DType::NVFP4].contains(&info.dtype) {
            assert_eq!(again, bytes, "{}", info.name);
        }
    }
}

/// Replaces values that encoders do not write.
fn normalize(info: &Info, block: &mut [u8]) {
    for f in info.fields.iter().filter(|f| f.number == Number::F16) {
        let top = &mut block[f.at + 1];
        *top = if *top & 0x7C == 0x7C { *top & !0x40 } else { *top };
    }
    match info.dtype {
        DType::Q8_0 => block[2..].iter_mut().for_each(|b| *b = if *b == 0x80 { 0x81 } else { *b }),
        DType::TQ2_0 => block[..64].iter_mut().for_each(|b| *b &= !(*b >> 1 & 0x55)),
        DType::MXFP4 => block[0] = block[0].min(0xFE),
        DType::NVFP4 => block[..4].iter_mut().for_each(|b| *b = (*b).min(0xFE)),
        _ => {}
    }
}

#[test]
fn shapes_agree_with_the_list_of_types() {
    let names: Vec<_> = grids().map(|(info, _)| info.name).collect();
    let expected = [
        "q4_0", "q4_1", "q5_0", "q5_1", "q8_0", "q2_k", "q3_k", "q4_k", "q5_k", "q6_k", "iq4_nl", "iq4_xs",
        "tq1_0", "tq2_0", "mxfp4", "nvfp4", "q1_0", "q2_0",
    ];
    assert_eq!(names, expected);
    for (info, grid) in grids() {
        let shape = grid.shape();
        assert_eq!(shape.weights, info.weights, "{}", info.name);
        assert_eq!(shape.weights % shape.group, 0, "{}", info.name);
        assert!(shape.weights / shape.group <= 16 && shape.levels.len() <= 256, "{}", info.name);
        assert!(shape.scales.is_some() || shape.group == shape.weights, "{}", info.name);
        assert!(shape.levels.is_sorted_by(|a, b| a < b), "{}", info.name);
        assert!(!(shape.offset && shape.mins.is_some()), "{}", info.name);
        // One half for d and one for m, if the shape has these.
        let halves = info.fields.iter().filter(|f| f.number == Number::F16).count();
        let offset = shape.offset || shape.mins.is_some();
        assert_eq!(halves, if shape.free { 1 + usize::from(offset) } else { 0 }, "{}", info.name);
    }
}

#[test]
fn steps_grow_with_the_scale() {
    for (info, grid) in grids() {
        let Some([least, most]) = grid.shape().scales else { continue };
        for scale in least..most {
            let (step, next) = (grid.step(1.0, scale), grid.step(1.0, scale + 1));
            assert!(step < next && next.is_finite(), "{} {scale}", info.name);
        }
    }
}

#[test]
fn unpacking_maps_unusual_values_to_the_nearest_usual_ones() {
    let unpack = |dtype: DType, bytes: &[u8]| {
        let mut parts = USED;
        dtype.grid().unwrap().unpack(bytes, &mut parts);
        check_within(dtype.info(), dtype.grid().unwrap().shape(), &parts);
        parts
    };
    assert_eq!(unpack(DType::Q8_0, &[&[0, 0x3C][..], &[0x80; 32]].concat()).codes[..32], [0; 32]);
    assert_eq!(unpack(DType::TQ2_0, &[&[0xFF; 64][..], &[0, 0x3C]].concat()).codes, [2; 256]);
    let parts = unpack(DType::MXFP4, &[&[0xFF][..], &[0x08; 16]].concat());
    assert_eq!((parts.scales[0], &parts.codes[..32]), (254, &[7; 32][..]));
    let parts = unpack(DType::NVFP4, &[&[0xFF, 0x7F, 0x80, 0x81][..], &[0x88; 32]].concat());
    assert_eq!((&parts.scales[..4], &parts.codes[..64]), (&[0x7E, 0, 0, 1][..], &[7; 64][..]));
}

fn finite_half() -> impl Strategy<Value = f32> {
    any::<u16>().prop_map(|h| f16_to_f32(if h & 0x7C00 == 0x7C00 { h & !0x4000 } else { h }))
}

proptest! {
    #[test]
    fn encoded_blocks_round_trip_through_parts(
        x in proptest::collection::vec(-1.0f32..1.0, 512),
        scale in prop_oneof![Just(1.0f32), Just(0.02), Just(1e-7), Just(3e4), Just(1e30), Just(0.0)],
        offset in prop_oneof![2 => Just(0.0f32), 1 => -3.0f32..3.0],
        objective in prop_oneof![Just(Objective::Error), Just(Objective::Prior)],
    ) {
        let x: Vec<f32> = x.iter().map(|x| (x + offset) * scale).collect();
        for (info, grid) in grids() {
            let how = Encode { objective: Some(objective), effort: Effort::Fast, ..Encode::default() };
            check_blocks(info, grid, &crate::encode_with(info.dtype, &x, &how).unwrap());
        }
    }

    #[test]
    fn random_blocks_round_trip_through_parts(bytes in proptest::collection::vec(any::<u8>(), 420)) {
        for (info, grid) in grids() {
            let mut bytes = bytes[..420 / info.bytes * info.bytes].to_vec();
            bytes.chunks_exact_mut(info.bytes).for_each(|block| normalize(info, block));
            check_blocks(info, grid, &bytes);
        }
    }

    #[test]
    fn parts_round_trip(
        (d, m) in (finite_half(), finite_half()),
        scales in proptest::array::uniform16(any::<u16>()),
        mins in proptest::array::uniform16(any::<u16>()),
        codes in proptest::collection::vec(any::<u8>(), 256),
    ) {
        for (info, grid) in grids() {
            let shape = grid.shape();
            let mut parts = Parts::ZERO;
            parts.d = if shape.free { d } else { 1.0 };
            parts.m = if shape.offset || shape.mins.is_some() { m } else { 0.0 };
            let fold = |n: u16, range: Option<[i16; 2]>| {
                range.map_or(0, |[least, most]| least + (n % (most - least + 1) as u16) as i16)
            };
            for g in 0..shape.weights / shape.group {
                parts.scales[g] = fold(scales[g], shape.scales);
                parts.mins[g] = fold(mins[g], shape.mins);
            }
            for (j, stored) in parts.codes[..shape.weights].iter_mut().enumerate() {
                *stored = (usize::from(codes[j]) % shape.levels.len()) as u8;
            }
            let mut bytes = vec![0xA5; info.bytes];
            grid.pack(&parts, &mut bytes);
            let mut back = USED;
            grid.unpack(&bytes, &mut back);
            prop_assert_eq!(&back, &parts, "{}", info.name);
            let x = decode(info, &bytes);
            prop_assert_eq!(bits(&values(grid, &parts)), bits(&x), "{}", info.name);
        }
    }
}
