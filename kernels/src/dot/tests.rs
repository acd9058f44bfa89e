use super::*;
use crate::activations::Form;
use crate::weights;
use formats::block::{Encode, Number, TYPES};

/// Numbers that are everywhere between −1 and 1.
pub fn noise(seed: u32) -> impl FnMut() -> f32 {
    let mut seed = seed;
    move || {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (seed >> 8) as f32 / (1 << 23) as f32 - 1.0
    }
}

/// A row of random bytes whose scales are numbers, and some whose codes or integer scales are at their ends.
pub fn rows(dtype: DType, cols: usize, seed: u32) -> [Vec<u8>; 4] {
    let info = dtype.info();
    let len = dtype.bytes_for(cols as u64).unwrap() as usize;
    let mut next = noise(seed);
    let random: Vec<u8> = (0..len).map(|_| (next() * 128.0) as i32 as u8).collect();
    let (mut low, mut high, middle) = (vec![0u8; len], vec![255u8; len], vec![0x80; len]);
    if dtype == DType::Q8_0 {
        (low, high) = (vec![0x80; len], vec![0x7F; len]);
    }
    [random, low, high, middle].map(|mut row| {
        for block in row.chunks_exact_mut(info.bytes) {
            if dtype == DType::MXFP4 {
                block[0] = 112 + block[0] % 16;
            }
            if dtype == DType::IQ1_M {
                // A quarter of a small half in the upper bits of each word.
                for (i, nibble) in [0, 0, 4, 1].into_iter().enumerate() {
                    block[49 + 2 * i] = block[49 + 2 * i] & 15 | nibble << 4;
                }
            }
            for field in info.fields.iter().filter(|f| f.width == 2 && f.number == Number::F16) {
                for i in 0..field.count {
                    let x = formats::block::f32_to_f16(next() * 0.01).to_le_bytes();
                    block[field.at + i * field.stride..][..2].copy_from_slice(&x);
                }
            }
        }
        row
    })
}

#[test]
fn every_set_gives_the_same_bits() {
    for info in TYPES {
        let Some((group, offset)) = weights::integer(info.dtype) else { continue };
        let unit = info.weights;
        for cols in [unit, 3 * unit, 8 * unit, 9 * unit, 1024, 2048 + unit] {
            let mut next = noise(cols as u32);
            let mut x: Vec<f32> = (0..3 * cols).map(|_| next()).collect();
            // A vector with codes of ±127 only.
            for (i, x) in x[cols..2 * cols].iter_mut().enumerate() {
                *x = if i % 3 == 0 { 1.0 } else { -1.0 };
            }
            x[2 * cols..].fill(0.0);
            let mut a = Activations::default();
            a.set(Isa::PORTABLE, Form::Groups(group), offset, &x, cols);
            for row in rows(info.dtype, cols, 3) {
                for token in 0..3 {
                    let truth = integer(info.dtype, Isa::PORTABLE).unwrap().row(&row, &a, token);
                    for isa in Isa::all() {
                        let found = integer(info.dtype, isa).unwrap().row(&row, &a, token);
                        let name = format!("{} {cols} {token} {}", info.name, isa.name());
                        assert!(truth == found && truth.is_finite(), "{name}: {truth} {found}");
                    }
                }
            }
        }
    }
}

#[test]
fn integers_are_near_the_floats() {
    for info in TYPES {
        let Some((group, offset)) = weights::integer(info.dtype) else { continue };
        let cols = 2048;
        let mut next = noise(11);
        let x: Vec<f32> = (0..cols).map(|_| next()).collect();
        let mut a = Activations::default();
        a.set(Isa::PORTABLE, Form::Groups(group), offset, &x, cols);
        let [row, ..] = rows(info.dtype, cols, 5);
        let found = integer(info.dtype, Isa::current()).unwrap().row(&row, &a, 0);
        let codec = crate::codec(info.dtype).unwrap();
        let mut w = vec![0f32; cols];
        codec.decode(&row, &mut w);
        let truth: f64 = w.iter().zip(&x).map(|(w, x)| f64::from(*w) * f64::from(*x)).sum();
        let size: f64 = w.iter().zip(&x).map(|(w, x)| f64::from(*w * *x).powi(2)).sum::<f64>().sqrt();
        assert!((f64::from(found) - truth).abs() < 0.02 * size, "{}: {found} {truth} {size}", info.name);
    }
}

#[test]
fn float_rows() {
    for cols in [1, 31, 32, 33, 100, 1024] {
        let mut next = noise(cols as u32);
        let x: Vec<f32> = (0..cols).map(|_| next()).collect();
        let w: Vec<f32> = (0..cols).map(|_| next()).collect();
        for dtype in [DType::F32, DType::F16, DType::BF16] {
            let mut row = vec![0; dtype.bytes_for(cols as u64).unwrap() as usize];
            let codec = crate::codec(dtype).unwrap();
            codec.encode(&w, &Encode::default(), &mut row);
            let mut stored = vec![0f32; cols];
            codec.decode(&row, &mut stored);
            let exact: f64 = stored.iter().zip(&x).map(|(w, x)| f64::from(*w) * f64::from(*x)).sum();
            let truth = float(dtype, Isa::PORTABLE).unwrap().row(&row, &x);
            assert!((f64::from(truth) - exact).abs() < 1e-5 * (cols as f64).sqrt(), "{truth} {exact}");
            for isa in Isa::all() {
                assert_eq!(
                    truth,
                    float(dtype, isa).unwrap().row(&row, &x),
                    "{} {cols} {}",
                    dtype.name(),
                    isa.name()
                );
                assert_eq!(truth, decoded(isa, &*codec, &row, &mut Vec::new(), &x));
            }
        }
    }
}
