//! How numbers are packed: every tensor type that a container can name, in one list.
//!
//! A type is a fixed number of weights in a fixed number of bytes. The list in `types.rs` has a row for each, with its
//! name, number, size and everything else that is known of it; types that can be decoded and encoded also name their
//! [`Block`]. Adding a type is a file and a row: see `docs/adding-a-type.md`.

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
mod types;

pub use float::{f16_to_f32, f32_to_f16};
pub use fp4::{half_power, half_ue4m3};
pub use how::{Effort, Encode, Objective, Prior};
pub use types::{BITNET_CPP, DType, Family, Field, Info, Number, REMOVED, Section, TYPES};

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
        // One loop with a choice inside, not one for each: the body is a whole search, and is compiled where it is
        // written. And no closure, which would not be compiled for the instruction set of the caller.
        for b in 0..x.len() {
            let w = match w {
                Some(w) => Some(&w[b]),
                None => None,
            };
            Self::encode(&x[b], w, effort, &mut bytes[b]);
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
    if W == 1 {
        // Plain numbers: nothing is searched, so nothing counts more. One loop over all becomes vector code.
        T::encode_all(x, None, how.effort, bytes);
        return;
    }
    let importance = how.importance.map(|i| i.as_chunks::<W>().0);
    let prior = T::PRIOR != Prior::Plain
        && match how.objective {
            Some(objective) => objective == Objective::Prior,
            None => T::PREFERS_PRIOR[usize::from(importance.is_some())],
        };
    // In teams, so that what counts stays in the first cache. The search is named at one place only: each more would
    // compile all of it again, for every type and instruction set.
    let mut w = [[0.0; W]; TEAM];
    for (i, (x, bytes)) in x.chunks(TEAM).zip(bytes.chunks_mut(TEAM)).enumerate() {
        let team = match importance {
            Some(all) => Some(&all[i * TEAM..i * TEAM + x.len()]),
            None => None,
        };
        if prior {
            for b in 0..x.len() {
                let importance = match team {
                    Some(team) => Some(&team[b]),
                    None => None,
                };
                T::PRIOR.weigh(&x[b], importance, &mut w[b]);
            }
        }
        T::encode_all(x, if prior { Some(&w[..x.len()]) } else { team }, how.effort, bytes);
        if prior && T::AMPLIFIED {
            for b in 0..x.len() {
                let mut y = [0.0; W];
                T::decode(&bytes[b], &mut y);
                T::amplify(&mut bytes[b], how::amplification(&x[b], &w[b], &y));
            }
        }
    }
}

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

    /// Bits per weight, scales included.
    pub fn bits_per_weight(self) -> f64 {
        self.info().bits_per_weight()
    }

    /// The type itself where rows of `cols` weights are whole blocks of it, else the first such type along the rows'
    /// [`Info::fallback`].
    pub fn fitting(self, cols: u64) -> Self {
        let mut dtype = self;
        while !cols.is_multiple_of(dtype.info().weights as u64) {
            dtype = dtype.info().fallback;
        }
        dtype
    }

    /// The scalar grid of its blocks: [`Info::grid`].
    pub fn grid(self) -> Option<&'static dyn grid::Grid> {
        self.info().grid
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
        // Whole checkpoints of plain floats go through here, and nearly all of them are finite.
        if let ([Field { width, count: 1, number, .. }], 1) = (info.fields, info.weights) {
            let none = match (width, number) {
                (2, Number::F16) => !has_bits::<2>(bytes, 0x7C00),
                (2, Number::Bf16) => !has_bits::<2>(bytes, 0x7F80),
                (4, Number::F32) => !has_bits::<4>(bytes, 0x7F80),
                _ => false,
            };
            if none {
                return None;
            }
        }
        bytes.chunks_exact(info.bytes).position(|block| {
            let odd = (info.not_finite)(block);
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
mod snapshot;
#[cfg(test)]
mod tests;
