//! How numbers are packed: every tensor type that a container can name, in one list.
//!
//! A type is a fixed number of weights in a fixed number of bytes. The list at the end of this file gives each
//! type's name, number, size and which of its bytes are multi-byte numbers; types that can be decoded and
//! encoded also name their [`Block`]. Adding a type is a file and a line.

// Lanes are counted: in bodies that become vector code, what is done with which is plainer so.
#![allow(clippy::needless_range_loop)]

mod activation;
mod affine;
mod binary;
mod float;
mod fp4;
pub mod grid;
mod groups;
mod how;
pub mod i2_s;
mod iq4;
mod kquant;
pub mod lattice;
pub mod layout;
mod legacy;
mod scaled;
mod search;
mod single;
mod survey;
mod team;
mod ternary;

pub use float::{f16_to_f32, f32_to_f16};
pub use fp4::{half_power, half_ue4m3};
pub use how::{Effort, Encode, Objective, Prior};

/// Blocks that go through a search together.
const TEAM: usize = 8;

/// Packs and unpacks one block: `W` weights in `B` bytes, little-endian. Plain scalar code over arrays; faster
/// builds of the same bodies are the caller's business.
pub trait Block<const W: usize, const B: usize>: 'static {
    /// How much more its larger weights count under [`Objective::Prior`].
    const PRIOR: Prior = Prior::Plain;

    /// Whether the objective that is taken where none is asked for has the prior in it, without and with importances:
    /// what gave the lesser KL divergence on real models.
    const PREFERS_PRIOR: [bool; 2] = [false, false];

    /// Whether blocks under [`Objective::Prior`] are amplified: see [`how::amplification`].
    const AMPLIFIED: bool = false;

    /// Whether the search takes over what weights count before it begins, and asks no more: then its code, which is much,
    /// is there once, and not for weights that count alike once more.
    const ASKS_ONCE: bool = false;

    /// Unpacks a block.
    fn decode(bytes: &[u8; B], out: &mut [f32; W]);

    /// Multiplies the halves under which all weights of a block stand, where [`Block::AMPLIFIED`].
    #[inline(always)]
    fn amplify(_bytes: &mut [u8; B], _by: f32) {}

    /// Packs finite weights with the least squared error that the type's search finds; with `w`, with the least
    /// sum of w × error². These are finite and not negative. A type defines this or [`Block::encode_all`].
    #[inline(always)]
    fn encode(x: &[f32; W], w: Option<&[f32; W]>, effort: Effort, bytes: &mut [u8; B]) {
        let w = match &w {
            Some(w) => Some(std::slice::from_ref(*w)),
            None => None,
        };
        Self::encode_all(std::slice::from_ref(x), w, effort, std::slice::from_mut(bytes));
    }

    /// Packs many blocks, each to the bytes that it gets alone.
    #[inline(always)]
    fn encode_all(x: &[[f32; W]], w: Option<&[[f32; W]]>, effort: Effort, bytes: &mut [[u8; B]]) {
        if const { Self::ASKS_ONCE } {
            for (b, (x, bytes)) in x.iter().zip(bytes).enumerate() {
                let w = match w {
                    Some(w) => Some(&w[b]),
                    None => None,
                };
                Self::encode(x, w, effort, bytes);
            }
            return;
        }
        // Two loops: with a choice inside, those over plain numbers would not become vector code. And loops, not
        // closures, which are compiled for the instruction set of the place where they are written.
        match w {
            None => {
                for (x, b) in x.iter().zip(bytes) {
                    Self::encode(x, None, effort, b);
                }
            }
            Some(w) => {
                for ((x, w), b) in x.iter().zip(w).zip(bytes) {
                    Self::encode(x, Some(w), effort, b);
                }
            }
        }
    }
}

/// Something to be done with the block of a type, whatever it is.
pub trait Visitor {
    /// What comes of it.
    type Out;
    /// Does it.
    fn visit<const W: usize, const B: usize, T: Block<W, B>>(self) -> Self::Out;
}

/// Unpacks whole blocks.
#[inline(always)]
pub fn decode_blocks<const W: usize, const B: usize, T: Block<W, B>>(bytes: &[u8], out: &mut [f32]) {
    for (b, x) in bytes.as_chunks::<B>().0.iter().zip(out.as_chunks_mut::<W>().0) {
        T::decode(b, x);
    }
}

/// Packs whole blocks.
#[inline(always)]
pub fn encode_blocks<const W: usize, const B: usize, T: Block<W, B>>(
    x: &[f32],
    how: &Encode<'_>,
    bytes: &mut [u8],
) {
    let (x, bytes) = (x.as_chunks::<W>().0, bytes.as_chunks_mut::<B>().0);
    let importance = how.importance.map(|i| i.as_chunks::<W>().0);
    let prior = match how.objective {
        Some(objective) => objective == Objective::Prior,
        None => T::PREFERS_PRIOR[usize::from(importance.is_some())],
    };
    let weighed = prior && T::PRIOR != Prior::Plain;
    // Blocks that are weighed go in teams, so that what counts stays in the first cache. A search is much code, and all of
    // it is compiled anew wherever it is called: so there is one call.
    let team = if weighed { TEAM } else { x.len().max(1) };
    let mut w = [[0.0; W]; TEAM];
    for (i, (x, bytes)) in x.chunks(team).zip(bytes.chunks_mut(team)).enumerate() {
        let mut counts = importance.map(|all| &all[i * team..][..x.len()]);
        if weighed {
            for b in 0..x.len() {
                T::PRIOR.weigh(&x[b], counts.map(|all| &all[b]), &mut w[b]);
            }
            counts = Some(&w[..x.len()]);
        }
        T::encode_all(x, counts, how.effort, bytes);
        if weighed && T::AMPLIFIED {
            for b in 0..x.len() {
                let mut y = [0.0; W];
                T::decode(&bytes[b], &mut y);
                T::amplify(&mut bytes[b], how::amplification(&x[b], &w[b], &y));
            }
        }
    }
}

/// What a multi-byte number in a block is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Number {
    /// An IEEE half.
    F16,
    /// The upper half of an f32.
    Bf16,
    /// An f32.
    F32,
    /// An f64.
    F64,
    /// An integer or a pattern of bits.
    Bits,
}

/// Numbers of more than one byte inside a block, `count` of them, `stride` bytes apart: what the other byte
/// order turns round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Field {
    /// Offset of the first in the block.
    pub at: usize,
    /// Bytes of each.
    pub width: usize,
    /// How many there are.
    pub count: usize,
    /// Distance from one to the next.
    pub stride: usize,
    /// What they are.
    pub number: Number,
}

const fn one(at: usize, width: usize, number: Number) -> Field {
    Field { at, width, count: 1, stride: width, number }
}

const fn half(at: usize) -> Field {
    one(at, 2, Number::F16)
}

const fn bits(at: usize, width: usize, count: usize, stride: usize) -> Field {
    Field { at, width, count, stride, number: Number::Bits }
}

/// A row of the list of types.
#[derive(Debug)]
pub struct Info {
    /// The type.
    pub dtype: DType,
    /// The name that people use, in lower case: "q4_k".
    pub name: &'static str,
    /// Its number in GGUF, if GGUF has it.
    pub gguf: Option<u32>,
    /// Its name in safetensors, if safetensors has it.
    pub safetensors: Option<&'static str>,
    /// Weights in a block.
    pub weights: usize,
    /// Bytes of a block.
    pub bytes: usize,
    /// The block's multi-byte numbers.
    pub fields: &'static [Field],
}

macro_rules! types {
    ($($name:ident $text:literal, gguf $gguf:expr, safetensors $st:expr, $weights:literal in $bytes:literal,
       [$($field:expr),*] $(, $block:ty)?;)*) => {
        /// A tensor type.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[allow(non_camel_case_types, missing_docs)]
        pub enum DType { $($name),* }

        /// Every type, in the order of its GGUF number; then those that only safetensors has.
        pub const TYPES: &[Info] = &[$(Info {
            dtype: DType::$name,
            name: $text,
            gguf: $gguf,
            safetensors: $st,
            weights: $weights,
            bytes: $bytes,
            fields: &[$($field),*],
        }),*];

        impl DType {
            /// Does something with the type's block; `None` if it can be copied but not decoded.
            pub fn visit<V: Visitor>(self, visitor: V) -> Option<V::Out> {
                match self {
                    $($(Self::$name => Some(visitor.visit::<$weights, $bytes, $block>()),)?)*
                    #[allow(unreachable_patterns)]
                    _ => { let _ = visitor; None }
                }
            }
        }
    };
}

types! {
    F32 "f32", gguf Some(0), safetensors Some("F32"), 1 in 4, [one(0, 4, Number::F32)], float::F32;
    F16 "f16", gguf Some(1), safetensors Some("F16"), 1 in 2, [half(0)], float::F16;
    Q4_0 "q4_0", gguf Some(2), safetensors None, 32 in 18, [half(0)], legacy::Q4_0;
    Q4_1 "q4_1", gguf Some(3), safetensors None, 32 in 20, [half(0), half(2)], legacy::Q4_1;
    Q5_0 "q5_0", gguf Some(6), safetensors None, 32 in 22, [half(0), bits(2, 4, 1, 4)], legacy::Q5_0;
    Q5_1 "q5_1", gguf Some(7), safetensors None, 32 in 24, [half(0), half(2), bits(4, 4, 1, 4)], legacy::Q5_1;
    Q8_0 "q8_0", gguf Some(8), safetensors None, 32 in 34, [half(0)], legacy::Q8_0;
    Q8_1 "q8_1", gguf Some(9), safetensors None, 32 in 36, [half(0), half(2)], activation::Q8_1;
    Q2_K "q2_k", gguf Some(10), safetensors None, 256 in 84, [half(80), half(82)], kquant::Q2K;
    Q3_K "q3_k", gguf Some(11), safetensors None, 256 in 110, [half(108)], kquant::Q3K;
    Q4_K "q4_k", gguf Some(12), safetensors None, 256 in 144, [half(0), half(2)], kquant::Q4K;
    Q5_K "q5_k", gguf Some(13), safetensors None, 256 in 176, [half(0), half(2)], kquant::Q5K;
    Q6_K "q6_k", gguf Some(14), safetensors None, 256 in 210, [half(208)], kquant::Q6K;
    Q8_K "q8_k", gguf Some(15), safetensors None, 256 in 292, [one(0, 4, Number::F32), bits(260, 2, 16, 2)], activation::Q8K;
    IQ2_XXS "iq2_xxs", gguf Some(16), safetensors None, 256 in 66, [half(0), bits(6, 4, 8, 8)], lattice::Iq2Xxs;
    IQ2_XS "iq2_xs", gguf Some(17), safetensors None, 256 in 74, [half(0), bits(2, 2, 32, 2)], lattice::Iq2Xs;
    IQ3_XXS "iq3_xxs", gguf Some(18), safetensors None, 256 in 98, [half(0), bits(66, 4, 8, 4)], lattice::Iq3Xxs;
    IQ1_S "iq1_s", gguf Some(19), safetensors None, 256 in 50, [half(0), bits(34, 2, 8, 2)], lattice::Iq1S;
    IQ4_NL "iq4_nl", gguf Some(20), safetensors None, 32 in 18, [half(0)], iq4::Iq4Nl;
    IQ3_S "iq3_s", gguf Some(21), safetensors None, 256 in 110, [half(0)], lattice::Iq3S;
    IQ2_S "iq2_s", gguf Some(22), safetensors None, 256 in 82, [half(0)], lattice::Iq2S;
    IQ4_XS "iq4_xs", gguf Some(23), safetensors None, 256 in 136, [half(0), bits(2, 2, 1, 2)], iq4::Iq4Xs;
    I8 "i8", gguf Some(24), safetensors Some("I8"), 1 in 1, [], float::I8;
    I16 "i16", gguf Some(25), safetensors Some("I16"), 1 in 2, [bits(0, 2, 1, 2)], float::I16;
    I32 "i32", gguf Some(26), safetensors Some("I32"), 1 in 4, [bits(0, 4, 1, 4)], float::I32;
    I64 "i64", gguf Some(27), safetensors Some("I64"), 1 in 8, [bits(0, 8, 1, 8)], float::I64;
    F64 "f64", gguf Some(28), safetensors Some("F64"), 1 in 8, [one(0, 8, Number::F64)], float::F64;
    IQ1_M "iq1_m", gguf Some(29), safetensors None, 256 in 56, [bits(48, 2, 4, 2)], lattice::Iq1M;
    BF16 "bf16", gguf Some(30), safetensors Some("BF16"), 1 in 2, [one(0, 2, Number::Bf16)], float::Bf16;
    TQ1_0 "tq1_0", gguf Some(34), safetensors None, 256 in 54, [half(52)], ternary::Tq1_0;
    TQ2_0 "tq2_0", gguf Some(35), safetensors None, 256 in 66, [half(64)], ternary::Tq2_0;
    MXFP4 "mxfp4", gguf Some(39), safetensors None, 32 in 17, [], fp4::Mxfp4;
    NVFP4 "nvfp4", gguf Some(40), safetensors None, 64 in 36, [], fp4::Nvfp4;
    Q1_0 "q1_0", gguf Some(41), safetensors None, 128 in 18, [half(0)], binary::Q1_0;
    Q2_0 "q2_0", gguf Some(42), safetensors None, 64 in 18, [half(0)], binary::Q2_0;
    Bool "bool", gguf None, safetensors Some("BOOL"), 1 in 1, [];
    U8 "u8", gguf None, safetensors Some("U8"), 1 in 1, [];
    U16 "u16", gguf None, safetensors Some("U16"), 1 in 2, [bits(0, 2, 1, 2)];
    U32 "u32", gguf None, safetensors Some("U32"), 1 in 4, [bits(0, 4, 1, 4)];
    U64 "u64", gguf None, safetensors Some("U64"), 1 in 8, [bits(0, 8, 1, 8)];
    F8_E4M3 "f8_e4m3", gguf None, safetensors Some("F8_E4M3"), 1 in 1, [];
    F8_E5M2 "f8_e5m2", gguf None, safetensors Some("F8_E5M2"), 1 in 1, [];
    F8_E8M0 "f8_e8m0", gguf None, safetensors Some("F8_E8M0"), 1 in 1, [];
    F8_E4M3FNUZ "f8_e4m3fnuz", gguf None, safetensors Some("F8_E4M3FNUZ"), 1 in 1, [];
    F8_E5M2FNUZ "f8_e5m2fnuz", gguf None, safetensors Some("F8_E5M2FNUZ"), 1 in 1, [];
    F6_E2M3 "f6_e2m3", gguf None, safetensors Some("F6_E2M3"), 4 in 3, [];
    F6_E3M2 "f6_e3m2", gguf None, safetensors Some("F6_E3M2"), 4 in 3, [];
    F4 "f4", gguf None, safetensors Some("F4"), 2 in 1, [];
    C64 "c64", gguf None, safetensors Some("C64"), 1 in 8,
        [Field { at: 0, width: 4, count: 2, stride: 4, number: Number::F32 }];
}

/// GGUF numbers whose types were taken out of ggml, with their former names.
pub const REMOVED: [(u32, &str); 8] = [
    (4, "q4_2"),
    (5, "q4_3"),
    (31, "q4_0_4_4"),
    (32, "q4_0_4_8"),
    (33, "q4_0_8_8"),
    (36, "iq4_nl_4_4"),
    (37, "iq4_nl_4_8"),
    (38, "iq4_nl_8_8"),
];

/// GGUF numbers that bitnet.cpp uses for types of its own, of which [`i2_s`] is read and written.
pub const BITNET_CPP: [(u32, &str); 4] = [(i2_s::GGUF, "i2_s"), (37, "i8_s"), (38, "tl1"), (39, "tl2")];

impl DType {
    /// Its row in the list.
    pub fn info(self) -> &'static Info {
        &TYPES[self as usize]
    }

    /// Its name, in lower case.
    pub fn name(self) -> &'static str {
        self.info().name
    }

    /// The type with this GGUF number.
    pub fn from_gguf(id: u32) -> Option<Self> {
        TYPES.iter().find(|t| t.gguf == Some(id)).map(|t| t.dtype)
    }

    /// The type with this name in safetensors.
    pub fn from_safetensors(name: &str) -> Option<Self> {
        TYPES.iter().find(|t| t.safetensors == Some(name)).map(|t| t.dtype)
    }

    /// The type with this name, in any case.
    pub fn from_name(name: &str) -> Option<Self> {
        TYPES.iter().find(|t| t.name.eq_ignore_ascii_case(name)).map(|t| t.dtype)
    }

    /// The bytes of `elements` weights; `None` if they do not fill whole blocks or overflow.
    pub fn bytes_for(self, elements: u64) -> Option<u64> {
        let info = self.info();
        let blocks = elements / info.weights as u64;
        (blocks * info.weights as u64 == elements).then(|| blocks.checked_mul(info.bytes as u64))?
    }

    /// Bits of a weight.
    pub fn bits_per_weight(self) -> f64 {
        8.0 * self.info().bytes as f64 / self.info().weights as f64
    }

    /// Turns whole blocks from one byte order into the other: every multi-byte number is reversed, all other
    /// bytes stay.
    pub fn swap(self, bytes: &mut [u8]) {
        let info = self.info();
        // Strips stay in the cache from one field to the next.
        for strip in bytes.chunks_mut(info.bytes * (1 + 8192 / info.bytes)) {
            for f in info.fields {
                match f.width {
                    2 => swap_field::<2>(strip, info.bytes, f),
                    4 => swap_field::<4>(strip, info.bytes, f),
                    _ => swap_field::<8>(strip, info.bytes, f),
                }
            }
        }
    }

    /// The index of the first block whose scales (or, for plain floats, whose number) are infinite or not a
    /// number, in little-endian bytes. Integers have no such values, nor have F4 and F6.
    pub fn first_not_finite(self, bytes: &[u8]) -> Option<usize> {
        let info = self.info();
        // Whole checkpoints of these go through here, and they have none.
        let none = match self {
            Self::F16 => !has_bits::<2>(bytes, 0x7C00),
            Self::BF16 => !has_bits::<2>(bytes, 0x7F80),
            Self::F32 => !has_bits::<4>(bytes, 0x7F80),
            _ => false,
        };
        if none {
            return None;
        }
        bytes.chunks_exact(info.bytes).position(|block| {
            let odd = match self {
                Self::MXFP4 | Self::F8_E8M0 => block[0] == 0xFF,
                Self::F8_E4M3 => block[0] & 0x7F == 0x7F,
                Self::F8_E5M2 => block[0] & 0x7C == 0x7C,
                Self::F8_E4M3FNUZ | Self::F8_E5M2FNUZ => block[0] == 0x80,
                Self::IQ1_M => {
                    let nibbles = [49, 51, 53, 55].map(|i: usize| u16::from(block[i] >> 4));
                    let d = nibbles[0] | nibbles[1] << 4 | nibbles[2] << 8 | nibbles[3] << 12;
                    d & 0x7C00 == 0x7C00
                }
                _ => false,
            };
            odd || info.fields.iter().any(|f| {
                (0..f.count).any(|i| {
                    let b = &block[f.at + i * f.stride..][..f.width];
                    let top = u16::from_le_bytes([b[f.width - 2], b[f.width - 1]]);
                    match f.number {
                        Number::F16 => top & 0x7C00 == 0x7C00,
                        Number::Bf16 | Number::F32 => top & 0x7F80 == 0x7F80,
                        Number::F64 => top & 0x7FF0 == 0x7FF0,
                        Number::Bits => false,
                    }
                })
            })
        })
    }
}

/// Whether the upper two bytes of a number have all of these bits set. Looks at every number, which is quicker than
/// to stop.
fn has_bits<const N: usize>(bytes: &[u8], bits: u16) -> bool {
    let set = |b: &[u8; N]| u16::from_le_bytes([b[N - 2], b[N - 1]]) & bits == bits;
    bytes.as_chunks::<N>().0.iter().fold(false, |any, b| any | set(b))
}

/// Turns one field round in every block.
fn swap_field<const N: usize>(bytes: &mut [u8], block: usize, f: &Field) {
    if N * f.count == block {
        bytes.as_chunks_mut::<N>().0.iter_mut().for_each(|b| b.reverse());
        return;
    }
    for block in bytes.chunks_exact_mut(block) {
        let field = &mut block[f.at..];
        if f.stride == N {
            field.as_chunks_mut::<N>().0[..f.count].iter_mut().for_each(|b| b.reverse());
        } else {
            for part in field.chunks_mut(f.stride).take(f.count) {
                part[..N].as_chunks_mut::<N>().0[0].reverse();
            }
        }
    }
}

#[cfg(test)]
mod tests;
