//! Conversions of whole rows and the runner's arithmetic, compiled for each instruction set and chosen once at run
//! time.
//!
//! The bodies of conversions are those of [`formats::block`]: plain loops over fixed arrays without fused
//! multiply-add and with fixed lanes, so that every build of them gives the same bits. The runner's kernels
//! ([`dot`], [`tile`], [`float`], [`attention`]) have one plain definition each, with fixed lanes too and with
//! multiply-adds that round once on every machine; builds for wider sets, and those that are written in a
//! processor's own instructions, give the same bits. `GGUFKIT_ISA` (portable, avx2, avx512, amx, neon) forces a
//! choice.

#![allow(unsafe_code)]
// Lanes are counted: in bodies that become vector code, what is done with which is plainer so.
#![allow(clippy::needless_range_loop)]

pub mod activations;
mod aligned;
pub mod attention;
pub mod dot;
pub mod feedback;
pub mod float;
pub mod gemm;
mod isa;
mod lanes;
pub mod tile;
mod weights;

pub use aligned::Aligned;
pub use isa::Isa;
pub use weights::integer;

use formats::block::{Block, DType, Encode, Visitor, decode_blocks, encode_blocks};

/// Decodes and encodes rows of a type, little-endian.
pub trait Codec: Sync + Send {
    /// Unpacks whole blocks: `bytes` holds as many as fill `out`.
    fn decode(&self, bytes: &[u8], out: &mut [f32]);
    /// Packs whole blocks of finite weights.
    fn encode(&self, x: &[f32], how: &Encode<'_>, bytes: &mut [u8]);
}

/// Σ (x − y)² and Σ x², on the set in use. Neither can overflow: they are finite if, and only if, all numbers are.
pub fn sums(x: &[f32], y: &[f32]) -> (f64, f64) {
    sums_for(x, y, Isa::chosen().unwrap_or(Isa::Portable))
}

/// The same on a set that [`Isa::available`] lists.
fn sums_for(x: &[f32], y: &[f32], isa: Isa) -> (f64, f64) {
    match isa {
        Isa::Portable => sums_body(x, y),
        // SAFETY: `Isa::chosen` and `Isa::available` give only sets whose features were found.
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => unsafe { x86::sums_avx2(x, y) },
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 | Isa::Amx => unsafe { x86::sums_avx512(x, y) },
        #[cfg(target_arch = "aarch64")]
        Isa::Neon => sums_body(x, y),
    }
}

/// In lanes that are added up in a fixed order.
#[inline(always)]
fn sums_body(x: &[f32], y: &[f32]) -> (f64, f64) {
    const LANES: usize = 16;
    let (mut error, mut energy) = ([0f64; LANES], [0f64; LANES]);
    let ((xs, x_rest), (ys, y_rest)) = (x.as_chunks::<LANES>(), y.as_chunks::<LANES>());
    for (x, y) in xs.iter().zip(ys) {
        for i in 0..LANES {
            let e = f64::from(x[i]) - f64::from(y[i]);
            error[i] += e * e;
            energy[i] += f64::from(x[i]) * f64::from(x[i]);
        }
    }
    for i in 0..x_rest.len() {
        let e = f64::from(x_rest[i]) - f64::from(y_rest[i]);
        error[i] += e * e;
        energy[i] += f64::from(x_rest[i]) * f64::from(x_rest[i]);
    }
    (error.iter().sum(), energy.iter().sum())
}

/// The codec of a type on the set in use; `None` if the type can be copied but not decoded. The binary refuses a
/// wrong `GGUFKIT_ISA` before it comes here; a library user's falls back to the portable build.
pub fn codec(dtype: DType) -> Option<Box<dyn Codec>> {
    codec_for(dtype, Isa::chosen().unwrap_or(Isa::Portable))
}

/// The codec of a type on a set that [`Isa::available`] lists.
pub fn codec_for(dtype: DType, isa: Isa) -> Option<Box<dyn Codec>> {
    assert!(Isa::available().contains(&isa), "{} is not available here", isa.name());
    dtype.visit(Build(isa))
}

struct Build(Isa);

impl Visitor for Build {
    type Out = Box<dyn Codec>;
    fn visit<const W: usize, const B: usize, T: Block<W, B>>(self) -> Box<dyn Codec> {
        match self.0 {
            Isa::Portable => Box::new(Portable::<W, B, T>(std::marker::PhantomData)),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => Box::new(x86::Avx2::<W, B, T>(std::marker::PhantomData)),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 | Isa::Amx => Box::new(x86::Avx512::<W, B, T>(std::marker::PhantomData)),
            // The target guarantees what the bodies need.
            #[cfg(target_arch = "aarch64")]
            Isa::Neon => Box::new(Portable::<W, B, T>(std::marker::PhantomData)),
        }
    }
}

struct Portable<const W: usize, const B: usize, T>(std::marker::PhantomData<fn() -> T>);

impl<const W: usize, const B: usize, T: Block<W, B>> Codec for Portable<W, B, T> {
    fn decode(&self, bytes: &[u8], out: &mut [f32]) {
        decode_blocks::<W, B, T>(bytes, out);
    }
    fn encode(&self, x: &[f32], how: &Encode<'_>, bytes: &mut [u8]) {
        encode_blocks::<W, B, T>(x, how, bytes);
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::{Block, Codec, Encode, decode_blocks, encode_blocks, sums_body};
    use std::marker::PhantomData;

    macro_rules! set {
        ($name:ident $decode:ident $encode:ident $encode_many:ident $sums:ident $features:literal) => {
            /// Only [`super::codec_for`] makes one, after it has found the features.
            pub struct $name<const W: usize, const B: usize, T>(pub(super) PhantomData<fn() -> T>);

            impl<const W: usize, const B: usize, T: Block<W, B>> Codec for $name<W, B, T> {
                fn decode(&self, bytes: &[u8], out: &mut [f32]) {
                    // SAFETY: a value of this type exists only where the processor has the features.
                    unsafe { $decode::<W, B, T>(bytes, out) }
                }
                fn encode(&self, x: &[f32], how: &Encode<'_>, bytes: &mut [u8]) {
                    if W == 1 {
                        // SAFETY: as above.
                        unsafe { $encode::<W, B, T>(x, how, bytes) }
                    } else {
                        // SAFETY: as above; a processor with the wider set has the narrower too.
                        unsafe { $encode_many::<W, B, T>(x, how, bytes) }
                    }
                }
            }

            #[target_feature(enable = $features)]
            fn $decode<const W: usize, const B: usize, T: Block<W, B>>(bytes: &[u8], out: &mut [f32]) {
                decode_blocks::<W, B, T>(bytes, out);
            }

            #[target_feature(enable = $features)]
            fn $encode<const W: usize, const B: usize, T: Block<W, B>>(
                x: &[f32],
                how: &Encode<'_>,
                bytes: &mut [u8],
            ) {
                encode_blocks::<W, B, T>(x, how, bytes);
            }

            #[target_feature(enable = $features)]
            pub(super) fn $sums(x: &[f32], y: &[f32]) -> (f64, f64) {
                sums_body(x, y)
            }
        };
    }

    // The second name encodes types of many weights to a block: their short rows of lanes fill 256 bits, and in
    // 512 the search takes a tenth longer (measured: 616 and 556 million weights a second for Q8_0, 550 and 460
    // for Q4_0).
    set!(Avx2 decode_avx2 encode_avx2 encode_avx2 sums_avx2 "avx2,f16c");
    set!(Avx512 decode_avx512 encode_avx512 encode_avx2 sums_avx512 "avx512f,avx512bw,avx512vl,avx512dq,avx512cd,f16c");
}

#[cfg(test)]
mod tests;
