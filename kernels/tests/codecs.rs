//! Decoders and encoders of every type, compared on all instruction sets. Here, and not beside the code: the crate is
//! compiled a second time for the tests beside the code, and encoders are most of it.

mod common;

use common::numbers;
use formats::block::{DType, Encode, TYPES};
use kernels::{Isa, codec_for};

#[test]
fn every_instruction_set_gives_the_same_bits() {
    for info in TYPES {
        let Some(portable) = codec_for(info.dtype, Isa::PORTABLE) else { continue };
        for isa in Isa::available() {
            let fast = codec_for(info.dtype, isa).unwrap();
            for seed in 0..20 {
                let mut x = numbers(1024, seed);
                match seed {
                    0 => x.fill(0.0),
                    1 => x.iter_mut().step_by(3).for_each(|x| *x = 0.0),
                    2 => x.iter_mut().for_each(|x| *x = x.signum() * 0.037),
                    3 => x.iter_mut().for_each(|x| *x *= 1e-30),
                    4 => x.iter_mut().for_each(|x| *x = (*x * 1e3).clamp(-6e4, 6e4)),
                    _ => {}
                }
                let w: Vec<f32> = numbers(1024, seed + 100).iter().map(|x| x * x).collect();
                let n = info.dtype.bytes_for(1024).unwrap() as usize;
                for importance in [None, Some(&w[..])] {
                    let how = Encode { importance, ..Encode::default() };
                    let (mut a, mut b) = (vec![0; n], vec![0; n]);
                    portable.encode(&x, &how, &mut a);
                    fast.encode(&x, &how, &mut b);
                    assert_eq!(a, b, "{} on {}, seed {seed}", info.name, isa.name());
                    let (mut y, mut z) = (vec![0f32; 1024], vec![0f32; 1024]);
                    portable.decode(&a, &mut y);
                    fast.decode(&a, &mut z);
                    let bits = |v: &[f32]| v.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
                    assert_eq!(bits(&y), bits(&z), "{} on {}, seed {seed}", info.name, isa.name());
                }
            }
        }
    }
}

/// Every pattern of bits that a half has, through the rows' route.
#[test]
fn halves_decode_as_in_the_half_crate_on_every_instruction_set() {
    let bytes: Vec<u8> = (0..=u16::MAX).flat_map(u16::to_le_bytes).collect();
    for isa in Isa::available() {
        let mut out = vec![0f32; 65536];
        codec_for(DType::F16, isa).unwrap().decode(&bytes, &mut out);
        for (h, x) in out.iter().enumerate() {
            assert_eq!(
                x.to_bits(),
                half::f16::from_bits(h as u16).to_f32().to_bits(),
                "{h:#x} on {}",
                isa.name()
            );
        }
    }
}
