//! Conversions of whole rows, compiled for each instruction set and chosen once at run time.
//!
//! The bodies are those of [`formats::block`]: plain loops over fixed arrays without fused multiply-add and with
//! fixed lanes, so that every build of them gives the same bits. `GGUFKIT_ISA` (portable, avx2, avx512) forces
//! a choice.

#![allow(unsafe_code)]

use std::sync::OnceLock;

use formats::block::{Block, DType, Visitor, decode_blocks, encode_blocks};

/// Decodes and encodes rows of a type, little-endian.
pub trait Codec: Sync + Send {
    /// Unpacks whole blocks: `bytes` holds as many as fill `out`.
    fn decode(&self, bytes: &[u8], out: &mut [f32]);
    /// Packs whole blocks of finite weights; `importance`, where given, has one value for each weight.
    fn encode(&self, x: &[f32], importance: Option<&[f32]>, bytes: &mut [u8]);
}

/// A set of instructions that the bodies are compiled for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Isa {
    /// Whatever the target guarantees.
    Portable,
    /// x86-64 with AVX2 (and F16C, FMA, BMI, which come with it; FMA is never used).
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// x86-64 with AVX-512 F, BW, VL, DQ, CD.
    #[cfg(target_arch = "x86_64")]
    Avx512,
}

impl Isa {
    /// Every set that this processor has, the widest last.
    pub fn available() -> Vec<Self> {
        #[allow(unused_mut)]
        let mut all = vec![Self::Portable];
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("f16c") {
                all.push(Self::Avx2);
                let wide = is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512vl")
                    && is_x86_feature_detected!("avx512dq")
                    && is_x86_feature_detected!("avx512cd");
                if wide {
                    all.push(Self::Avx512);
                }
            }
        }
        all
    }

    /// The name that `GGUFKIT_ISA` takes.
    pub fn name(self) -> &'static str {
        match self {
            Self::Portable => "portable",
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => "avx2",
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => "avx512",
        }
    }

    /// The set in use: the widest, or the one that `GGUFKIT_ISA` names.
    ///
    /// # Errors
    /// The names to choose from, if the variable names a set that this processor does not have.
    pub fn chosen() -> Result<Self, String> {
        static CHOSEN: OnceLock<Result<Isa, String>> = OnceLock::new();
        let choose = || {
            let all = Self::available();
            let Some(name) = std::env::var_os("GGUFKIT_ISA").filter(|n| !n.is_empty()) else {
                return Ok(*all.last().expect("portable is always there"));
            };
            all.iter().find(|i| i.name() == name).copied().ok_or_else(|| {
                let names: Vec<_> = all.iter().map(|i| i.name()).collect();
                format!("GGUFKIT_ISA={} is not one of {}", name.to_string_lossy(), names.join(", "))
            })
        };
        CHOSEN.get_or_init(choose).clone()
    }
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
        Isa::Avx512 => unsafe { x86::sums_avx512(x, y) },
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
            Isa::Avx512 => Box::new(x86::Avx512::<W, B, T>(std::marker::PhantomData)),
        }
    }
}

struct Portable<const W: usize, const B: usize, T>(std::marker::PhantomData<fn() -> T>);

impl<const W: usize, const B: usize, T: Block<W, B>> Codec for Portable<W, B, T> {
    fn decode(&self, bytes: &[u8], out: &mut [f32]) {
        decode_blocks::<W, B, T>(bytes, out);
    }
    fn encode(&self, x: &[f32], importance: Option<&[f32]>, bytes: &mut [u8]) {
        encode_blocks::<W, B, T>(x, importance, bytes);
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::{Block, Codec, decode_blocks, encode_blocks, sums_body};
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
                fn encode(&self, x: &[f32], importance: Option<&[f32]>, bytes: &mut [u8]) {
                    if W == 1 {
                        // SAFETY: as above.
                        unsafe { $encode::<W, B, T>(x, importance, bytes) }
                    } else {
                        // SAFETY: as above; a processor with the wider set has the narrower too.
                        unsafe { $encode_many::<W, B, T>(x, importance, bytes) }
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
                importance: Option<&[f32]>,
                bytes: &mut [u8],
            ) {
                encode_blocks::<W, B, T>(x, importance, bytes);
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
