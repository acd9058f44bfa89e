//! The scalar grids of the types.

use super::{Grid, Parts, Shape};
use crate::block::binary::{Q1_0, Q2_0};
use crate::block::fp4::{self, Mxfp4, Nvfp4, half_power, half_ue4m3, pack_short_nibbles};
use crate::block::iq4::{self, Iq4Nl, Iq4Xs};
use crate::block::kquant::{Q2K, Q3K, Q4K, Q5K, Q6K};
use crate::block::layout::{
    half, long_nibbles, nibbles, pack_nibbles, pairs, planes, six_bit_codes, sixes, sixteen_sixes,
};
use crate::block::legacy::{Affine, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Scaled, fifth_bits};
use crate::block::single;
use crate::block::ternary::{Tq1_0, Tq2_0, tq1_0_trits};

/// `N` integers from `FIRST` on.
struct Integers<const FIRST: i32, const N: usize>;

impl<const FIRST: i32, const N: usize> Integers<FIRST, N> {
    const ALL: [f32; N] = {
        let mut levels = [0.0; N];
        let mut k = 0;
        while k < N {
            levels[k] = (FIRST + k as i32) as f32;
            k += 1;
        }
        levels
    };
}

/// The values of E2M1 floats, doubled as in the decoder, whose steps are half the scales. Zero is there once.
const FLOATS: [f32; 15] = {
    let mut levels = [0.0; 15];
    let mut k = 0;
    while k < 15 {
        levels[k] = fp4::VALUES[float_bits(k as u8) as usize];
        k += 1;
    }
    levels
};

/// The four bits of the E2M1 float that is level `code`.
const fn float_bits(code: u8) -> u8 {
    if code < 7 { 15 - code } else { code - 7 }
}

/// The level of an E2M1 float.
const fn float_code(bits: u8) -> u8 {
    if bits < 8 { 7 + bits } else { 15 - bits }
}

/// The first `B` bytes, to read.
fn read<const B: usize>(bytes: &[u8]) -> &[u8; B] {
    &bytes.as_chunks().0[0]
}

/// The first `B` bytes, to write.
fn write<const B: usize>(bytes: &mut [u8]) -> &mut [u8; B] {
    &mut bytes.as_chunks_mut().0[0]
}

/// The numbers of a block with one scale, and perhaps an offset.
fn single_parts(d: f32, m: f32, codes: &[u8], parts: &mut Parts) {
    *parts = Parts { d, m, ..Parts::ZERO };
    parts.codes[..codes.len()].copy_from_slice(codes);
}

/// Scales or minimums as [`Parts`] has them.
fn wide<const G: usize, T: Copy + Into<i16>>(numbers: [T; G], out: &mut [i16; 16]) {
    for g in 0..G {
        out[g] = numbers[g].into();
    }
}

impl Grid for Q4_0 {
    fn shape(&self) -> &'static Shape {
        const { &Shape::single(32, &Integers::<-8, 16>::ALL) }
    }

    fn unpack(&self, bytes: &[u8], parts: &mut Parts) {
        single_parts(half(bytes), 0.0, &nibbles(&bytes[2..]), parts);
    }

    fn pack(&self, parts: &Parts, bytes: &mut [u8]) {
        <Self as Scaled<18>>::pack(parts.d, parts.first(), write(bytes));
    }
}

impl Grid for Q4_1 {
    fn shape(&self) -> &'static Shape {
        const { &Shape::single_affine(32, &Integers::<0, 16>::ALL) }
    }

    fn unpack(&self, bytes: &[u8], parts: &mut Parts) {
        single_parts(half(bytes), half(&bytes[2..]), &nibbles(&bytes[4..]), parts);
    }

    fn pack(&self, parts: &Parts, bytes: &mut [u8]) {
        <Self as Affine<15, 20>>::pack(parts.d, parts.m, parts.first(), write(bytes));
    }
}

impl Grid for Q5_0 {
    fn shape(&self) -> &'static Shape {
        const { &Shape::single(32, &Integers::<-16, 32>::ALL) }
    }

    fn unpack(&self, bytes: &[u8], parts: &mut Parts) {
        let mut codes = nibbles(&bytes[6..]);
        fifth_bits(&mut codes, &bytes[2..6]);
        single_parts(half(bytes), 0.0, &codes, parts);
    }

    fn pack(&self, parts: &Parts, bytes: &mut [u8]) {
        <Self as Scaled<22>>::pack(parts.d, parts.first(), write(bytes));
    }
}

impl Grid for Q5_1 {
    fn shape(&self) -> &'static Shape {
        const { &Shape::single_affine(32, &Integers::<0, 32>::ALL) }
    }

    fn unpack(&self, bytes: &[u8], parts: &mut Parts) {
        let mut codes = nibbles(&bytes[8..]);
        fifth_bits(&mut codes, &bytes[4..8]);
        single_parts(half(bytes), half(&bytes[2..]), &codes, parts);
    }

    fn pack(&self, parts: &Parts, bytes: &mut [u8]) {
        <Self as Affine<31, 24>>::pack(parts.d, parts.m, parts.first(), write(bytes));
    }
}

impl Grid for Q8_0 {
    fn shape(&self) -> &'static Shape {
        const { &Shape::single(32, &Integers::<-127, 255>::ALL) }
    }

    fn unpack(&self, bytes: &[u8], parts: &mut Parts) {
        let mut codes = [0; 32];
        for j in 0..32 {
            codes[j] = (i16::from(bytes[2 + j] as i8) + 127).max(0) as u8;
        }
        single_parts(half(bytes), 0.0, &codes, parts);
    }

    fn pack(&self, parts: &Parts, bytes: &mut [u8]) {
        <Self as Scaled<34>>::pack(parts.d, parts.first(), write(bytes));
    }
}

impl Grid for Q2K {
    fn shape(&self) -> &'static Shape {
        const { &Shape::affine(16, &Integers::<0, 4>::ALL, 15) }
    }

    fn unpack(&self, bytes: &[u8], parts: &mut Parts) {
        (parts.d, parts.m) = (half(&bytes[80..]), half(&bytes[82..]));
        for g in 0..16 {
            (parts.scales[g], parts.mins[g]) = (i16::from(bytes[g] & 15), i16::from(bytes[g] >> 4));
        }
        pairs(&bytes[16..80], &mut parts.codes);
    }

    fn pack(&self, parts: &Parts, bytes: &mut [u8]) {
        Self::lay_out(&parts.affine(), write(bytes));
    }
}

impl Grid for Q3K {
    fn shape(&self) -> &'static Shape {
        const { &Shape::scaled(256, 16, &Integers::<-4, 8>::ALL, [-32, 31]) }
    }

    fn unpack(&self, bytes: &[u8], parts: &mut Parts) {
        *parts = Parts { d: half(&bytes[108..]), ..Parts::ZERO };
        wide(sixteen_sixes(&bytes[96..108]).map(|s| s as i8 - 32), &mut parts.scales);
        pairs(&bytes[32..96], &mut parts.codes);
        planes(&bytes[..32], 2, &mut parts.codes);
    }

    fn pack(&self, parts: &Parts, bytes: &mut [u8]) {
        Self::lay_out(&parts.scaled(), write(bytes));
    }
}

/// The first bytes of [`Q4K`] and [`Q5K`]: halves, scales and minimums.
fn affine_head(bytes: &[u8], parts: &mut Parts) {
    *parts = Parts { d: half(bytes), m: half(&bytes[2..]), ..Parts::ZERO };
    let (scales, mins) = sixes(&bytes[4..16]);
    wide(scales, &mut parts.scales);
    wide(mins, &mut parts.mins);
}

impl Grid for Q4K {
    fn shape(&self) -> &'static Shape {
        const { &Shape::affine(32, &Integers::<0, 16>::ALL, 63) }
    }

    fn unpack(&self, bytes: &[u8], parts: &mut Parts) {
        affine_head(bytes, parts);
        long_nibbles(&bytes[16..144], &mut parts.codes);
    }

    fn pack(&self, parts: &Parts, bytes: &mut [u8]) {
        Self::lay_out(&parts.affine(), write(bytes));
    }
}

impl Grid for Q5K {
    fn shape(&self) -> &'static Shape {
        const { &Shape::affine(32, &Integers::<0, 32>::ALL, 63) }
    }

    fn unpack(&self, bytes: &[u8], parts: &mut Parts) {
        affine_head(bytes, parts);
        long_nibbles(&bytes[48..176], &mut parts.codes);
        planes(&bytes[16..48], 4, &mut parts.codes);
    }

    fn pack(&self, parts: &Parts, bytes: &mut [u8]) {
        Self::lay_out(&parts.affine(), write(bytes));
    }
}

impl Grid for Q6K {
    fn shape(&self) -> &'static Shape {
        const { &Shape::scaled(256, 16, &Integers::<-32, 64>::ALL, [-128, 127]) }
    }

    fn unpack(&self, bytes: &[u8], parts: &mut Parts) {
        *parts = Parts { d: half(&bytes[208..]), ..Parts::ZERO };
        wide(read::<16>(&bytes[192..208]).map(|s| s as i8), &mut parts.scales);
        six_bit_codes(&bytes[..128], &bytes[128..192], &mut parts.codes);
    }

    fn pack(&self, parts: &Parts, bytes: &mut [u8]) {
        Self::lay_out(&parts.scaled(), write(bytes));
    }
}

impl Grid for Iq4Nl {
    fn shape(&self) -> &'static Shape {
        const { &Shape::single(32, &iq4::VALUES) }
    }

    fn unpack(&self, bytes: &[u8], parts: &mut Parts) {
        single_parts(half(bytes), 0.0, &nibbles(&bytes[2..]), parts);
    }

    fn pack(&self, parts: &Parts, bytes: &mut [u8]) {
        <Self as single::Shape<32, 18>>::pack(parts.d, parts.first(), write(bytes));
    }
}

impl Grid for Iq4Xs {
    fn shape(&self) -> &'static Shape {
        const { &Shape::scaled(256, 32, &iq4::VALUES, [-32, 31]) }
    }

    fn unpack(&self, bytes: &[u8], parts: &mut Parts) {
        *parts = Parts { d: half(bytes), ..Parts::ZERO };
        for g in 0..8 {
            parts.scales[g] = i16::from(Self::scale(read(bytes), g));
            parts.codes[32 * g..32 * (g + 1)].copy_from_slice(&nibbles(&bytes[8 + 16 * g..]));
        }
    }

    fn pack(&self, parts: &Parts, bytes: &mut [u8]) {
        Self::lay_out(&parts.scaled(), write(bytes));
    }
}

impl Grid for Tq1_0 {
    fn shape(&self) -> &'static Shape {
        const { &Shape::single(256, &Integers::<-1, 3>::ALL) }
    }

    fn unpack(&self, bytes: &[u8], parts: &mut Parts) {
        *parts = Parts { d: half(&bytes[52..]), ..Parts::ZERO };
        tq1_0_trits(read(bytes), &mut parts.codes);
    }

    fn pack(&self, parts: &Parts, bytes: &mut [u8]) {
        Self::lay_out(parts.d, &parts.codes, write(bytes));
    }
}

impl Grid for Tq2_0 {
    fn shape(&self) -> &'static Shape {
        const { &Shape::single(256, &Integers::<-1, 3>::ALL) }
    }

    fn unpack(&self, bytes: &[u8], parts: &mut Parts) {
        *parts = Parts { d: half(&bytes[64..]), ..Parts::ZERO };
        pairs(&bytes[..64], &mut parts.codes);
        for code in &mut parts.codes {
            *code = (*code).min(2);
        }
    }

    fn pack(&self, parts: &Parts, bytes: &mut [u8]) {
        Self::lay_out(parts.d, &parts.codes, write(bytes));
    }
}

impl Grid for Q1_0 {
    fn shape(&self) -> &'static Shape {
        const { &Shape::single(128, &[-1.0, 1.0]) }
    }

    fn unpack(&self, bytes: &[u8], parts: &mut Parts) {
        *parts = Parts { d: half(bytes), ..Parts::ZERO };
        for j in 0..128 {
            parts.codes[j] = bytes[2 + j / 8] >> (j % 8) & 1;
        }
    }

    fn pack(&self, parts: &Parts, bytes: &mut [u8]) {
        Self::lay_out(parts.d, parts.first(), write(bytes));
    }
}

impl Grid for Q2_0 {
    fn shape(&self) -> &'static Shape {
        const { &Shape::single(64, &Integers::<-1, 4>::ALL) }
    }

    fn unpack(&self, bytes: &[u8], parts: &mut Parts) {
        *parts = Parts { d: half(bytes), ..Parts::ZERO };
        for j in 0..64 {
            parts.codes[j] = bytes[2 + j / 4] >> (2 * (j % 4)) & 3;
        }
    }

    fn pack(&self, parts: &Parts, bytes: &mut [u8]) {
        <Self as single::Shape<64, 18>>::pack(parts.d, parts.first(), write(bytes));
    }
}

/// The scale is the byte of the exponent. With the two largest, the largest levels are infinite.
impl Grid for Mxfp4 {
    fn shape(&self) -> &'static Shape {
        const { &Shape { free: false, ..Shape::scaled(32, 32, &FLOATS, [0, 254]) } }
    }

    fn unpack(&self, bytes: &[u8], parts: &mut Parts) {
        single_parts(1.0, 0.0, &nibbles(&bytes[1..]).map(float_code), parts);
        parts.scales[0] = i16::from(bytes[0].min(254));
    }

    fn pack(&self, parts: &Parts, bytes: &mut [u8]) {
        bytes[0] = parts.scales[0] as u8;
        pack_nibbles(&parts.first::<32>().map(float_bits), &mut bytes[1..]);
    }

    fn step(&self, _: f32, scale: i16) -> f32 {
        half_power(scale as u8)
    }
}

/// The scale is the byte of an E4M3 float, without its sign. The scale of the whole tensor is not part of it.
impl Grid for Nvfp4 {
    fn shape(&self) -> &'static Shape {
        const { &Shape { free: false, ..Shape::scaled(64, 16, &FLOATS, [0, 0x7E]) } }
    }

    fn unpack(&self, bytes: &[u8], parts: &mut Parts) {
        *parts = Parts { d: 1.0, ..Parts::ZERO };
        for g in 0..4 {
            // Of the two NaN patterns, the decoder reads the first as zero and the other as more than the largest.
            parts.scales[g] = match bytes[g] {
                0x7F => 0,
                0xFF => 0x7E,
                s => i16::from(s & 0x7F),
            };
            for j in 0..8 {
                let b = bytes[4 + 8 * g + j];
                parts.codes[16 * g + j] = float_code(b & 15);
                parts.codes[16 * g + 8 + j] = float_code(b >> 4);
            }
        }
    }

    fn pack(&self, parts: &Parts, bytes: &mut [u8]) {
        for g in 0..4 {
            bytes[g] = parts.scales[g] as u8;
            let codes = parts.codes.as_chunks::<16>().0[g].map(float_bits);
            pack_short_nibbles(&codes, &mut bytes[4 + 8 * g..]);
        }
    }

    fn step(&self, _: f32, scale: i16) -> f32 {
        half_ue4m3(scale as u8)
    }
}
