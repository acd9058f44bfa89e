//! Products and sums are written out, not fused: every instruction set gives the same bits.

use formats::block::{Encode, TYPES};

use super::*;
use crate::dot::tests::noise;
use crate::{Isa, codec_for};

fn numbers(random: &mut impl FnMut() -> f32, n: usize) -> Vec<f32> {
    (0..n).map(|_| (random() + random()) / 2.0).collect()
}

fn bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|x| x.to_bits()).collect()
}

#[test]
fn every_instruction_set_feeds_back_the_same() {
    let mut random = noise(8);
    for grid in TYPES.iter().filter_map(|t| t.dtype.grid()) {
        let levels = Levels::new(grid.shape().levels);
        for n in [1, 31, 128, 256] {
            let (targets, before) = (numbers(&mut random, n), numbers(&mut random, n));
            let (factor, offsets) = (numbers(&mut random, n * (n + 3)), numbers(&mut random, n));
            let steps: Vec<f32> = numbers(&mut random, n).iter().map(|x| 0.2 * x).collect();
            let run = |isa| {
                let (mut wanted, mut codes, mut errors) = (before.clone(), vec![0; n], vec![0.0; n]);
                feed_back(
                    isa,
                    &targets,
                    &mut wanted,
                    &factor,
                    n + 3,
                    &steps,
                    &offsets,
                    levels,
                    &mut codes,
                    &mut errors,
                );
                (codes, bits(&errors), bits(&wanted))
            };
            let truth = run(Isa::PORTABLE);
            for isa in Isa::all() {
                assert!(run(isa) == truth, "{} {n}", isa.name());
            }
        }
    }
}

#[test]
fn every_instruction_set_descends_to_the_same() {
    let mut random = noise(9);
    for (info, grid) in TYPES.iter().filter_map(|t| Some((t, t.dtype.grid()?))) {
        let shape = grid.shape();
        for blocks in [1, 256 / shape.weights] {
            let width = blocks * shape.weights;
            let x = numbers(&mut random, width * (width + 20));
            let mut h = vec![0f32; width * width];
            for row in x.chunks(width) {
                for (a, out) in row.iter().zip(h.chunks_mut(width)) {
                    out.iter_mut().zip(row).for_each(|(o, b)| *o += a * b);
                }
            }
            let sums = Panel::sums(&h, width, shape.group);
            let panel = Panel { h: &h, sums: &sums, width };
            let weights: Vec<f32> = numbers(&mut random, width).iter().map(|x| 0.04 * x).collect();
            let gradient = numbers(&mut random, width);
            let run = |isa| {
                let codec = codec_for(info.dtype, isa).unwrap();
                let mut bytes = vec![0; blocks * info.bytes];
                codec.encode(&weights, &Encode::default(), &mut bytes);
                let mut parts = vec![Parts::ZERO; blocks];
                bytes.chunks(info.bytes).zip(&mut parts).for_each(|(b, p)| grid.unpack(b, p));
                let mut values = vec![0.0; width];
                codec.decode(&bytes, &mut values);
                let mut gradient = gradient.clone();
                let levels = Levels::new(shape.levels);
                let any = descend(isa, grid, levels, &panel, 3, &mut parts, &mut values, &mut gradient);
                assert!(any, "{}", info.name);
                (parts, bits(&values), bits(&gradient))
            };
            let truth = run(Isa::PORTABLE);
            for isa in Isa::all() {
                assert!(run(isa) == truth, "{} on {}, {width}", info.name, isa.name());
            }
        }
    }
}
