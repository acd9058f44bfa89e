use super::float::Floats;
use super::*;
use crate::activations::Form;
use crate::dot::tests::{noise, rows};
use crate::weights;
use formats::block::TYPES;

#[test]
fn every_set_gives_the_same_bits() {
    for info in TYPES {
        let Some((group, offset)) = weights::integer(info.dtype) else { continue };
        let unit = info.weights;
        for (cols, tokens, count) in [(unit, 1, 16), (3 * unit, 17, 16), (8 * unit, 33, 5), (1024, 40, 16)] {
            let mut next = noise(cols as u32);
            let mut x: Vec<f32> = (0..tokens * cols).map(|_| next()).collect();
            for (i, x) in x[..cols].iter_mut().enumerate() {
                *x = if i % 3 == 0 { 1.0 } else { -1.0 };
            }
            let mut a = Activations::default();
            a.set(Isa::PORTABLE, Form::Groups(group), offset, &x, cols);
            let packed: Vec<Vec<u8>> =
                (0..count).map(|i| rows(info.dtype, cols, i)[i as usize % 4].clone()).collect();
            let packed: Vec<&[u8]> = packed.iter().map(|r| &r[..]).collect();
            let run = |isa| {
                let kernel = integer(info.dtype, isa).unwrap();
                let mut panel = Panel::default();
                kernel.unpack(&packed, &mut panel);
                let mut all = Vec::new();
                for token in (0..tokens).step_by(TOKENS) {
                    let mut out = [[f32::NAN; ROWS]; TOKENS];
                    kernel.multiply(&panel, &a, token, &mut out);
                    all.extend_from_slice(&out[..TOKENS.min(tokens - token)]);
                }
                all
            };
            let truth = run(Isa::PORTABLE);
            assert!(truth.iter().flatten().all(|x| x.is_finite()));
            assert!(truth.iter().all(|t| t[count as usize..].iter().all(|&x| x == 0.0)), "missing rows");
            for isa in Isa::all() {
                assert_eq!(truth, run(isa), "{} {cols} {}", info.name, isa.name());
            }
            // The same numbers as one row at a time, but for the order of additions.
            let dot = super::super::dot::integer(info.dtype, Isa::PORTABLE).unwrap();
            for (r, row) in packed.iter().enumerate() {
                for t in 0..tokens {
                    let (one, many) = (dot.row(row, &a, t), truth[t][r]);
                    assert!((one - many).abs() < 1e-4 * (1.0 + one.abs()), "{} {one} {many}", info.name);
                }
            }
        }
    }
}

#[test]
fn floats() {
    for (cols, tokens, count) in [(1, 1, 1), (33, 3, 16), (1500, 21, 7)] {
        let mut next = noise(cols as u32);
        let x: Vec<f32> = (0..tokens * cols).map(|_| next()).collect();
        let w: Vec<f32> = (0..count * cols).map(|_| next()).collect();
        let run = |isa| {
            let mut panel = Floats::default();
            // Something to leave nothing of.
            panel.fill(isa, cols + 3, [&vec![f32::NAN; cols + 3][..]; ROWS].into_iter());
            panel.fill(isa, cols, w.chunks_exact(cols));
            let mut all = Vec::new();
            for x in x.chunks(TOKENS * cols) {
                let mut out = [[0.0; ROWS]; TOKENS];
                float::tile(isa, &panel, x, &mut out);
                all.extend_from_slice(&out[..x.len() / cols]);
            }
            all
        };
        let truth = run(Isa::PORTABLE);
        for isa in Isa::all() {
            assert_eq!(truth, run(isa), "{}", isa.name());
        }
        for (t, x) in x.chunks_exact(cols).enumerate() {
            for (r, w) in w.chunks_exact(cols).enumerate() {
                let exact: f64 = w.iter().zip(x).map(|(w, x)| f64::from(*w) * f64::from(*x)).sum();
                assert!((f64::from(truth[t][r]) - exact).abs() < 1e-4, "{} {exact}", truth[t][r]);
            }
        }
    }
}

/// Planes are for the matrix unit, but are made without it: upper · 2^low + lower is the product of code and scale.
#[cfg(target_arch = "x86_64")]
#[test]
#[allow(clippy::undocumented_unsafe_blocks)] // it has a comment, which is not seen through the macro
fn planes_are_the_products_of_pairs() {
    use crate::isa::Set;
    use crate::weights::{Nested, with_nested};

    // Once on processors with AVX-512; as the other sets, it can be compared only where it is.
    let wide = Isa::all().into_iter().filter(|isa| isa.set() == Set::Avx512).flat_map(|_| TYPES);
    for info in wide {
        let packed: Vec<Vec<u8>> = (0..5).map(|i| rows(info.dtype, 768, i)[i as usize % 4].clone()).collect();
        let packed: Vec<&[u8]> = packed.iter().map(|r| &r[..]).collect();
        let (mut pairs, mut planes) = (Panel::default(), Panel::default());
        let low = with_nested!(info.dtype, B, T => {
            nested::unpack::<B, T>(&packed, &mut pairs);
            // SAFETY: the processor has AVX-512, and with it AVX2, FMA and F16C.
            unsafe { nested512::unpack_planes::<B, T>(&packed, &mut planes) };
            <T as Nested<B>>::LOW
        });
        let Some(low) = low else { continue };
        for k in 0..768 {
            for r in 0..packed.len() {
                let at = (k / 4 * ROWS + r) * 4 + k % 4;
                let upper = if low > 0 { i16::from(planes.upper[at]) << low } else { 0 };
                let product = upper + i16::from(planes.codes[at]);
                assert_eq!(product, pairs.pairs[(k / 2 * ROWS + r) * 2 + k % 2], "{} {k} {r}", info.name);
            }
        }
        assert_eq!(planes.scales[..], pairs.scales[..], "{}", info.name);
        assert_eq!(planes.mins[..], pairs.mins[..], "{}", info.name);
        assert_eq!(planes.integers[..], pairs.integers[..], "{}", info.name);
    }
}
