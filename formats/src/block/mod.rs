//! How weights are packed: every tensor type of the containers, in one list.
//!
//! A type is a fixed number of weights in a fixed number of bytes. The list in `types.rs` has a row for each, with its
//! name, number, size and everything else that is known of it; types that can be decoded and encoded also name their
//! [`Block`]. Adding a type is a file and a row: see `docs/adding-a-type.md`.

// Loops over lanes have an index: in bodies that become vector code, that shows best which lane is combined with which.
#![allow(clippy::needless_range_loop)]

mod activation;
mod affine;
mod batch;
mod binary;
// Not for the tests beside the code, for which the crate is compiled a second time: encoders are most of it, and
// `tests/codecs` tests them.
#[cfg(not(test))]
mod codec;
mod float;
mod foreign;
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
#[cfg(not(test))]
mod portable;
mod scaled;
mod search;
mod single;
mod survey;
mod ternary;
mod types;

#[cfg(not(test))]
pub use codec::CodecError;
pub use float::{f16_to_f32, f32_to_f16};
pub use foreign::{FOREIGN, Foreign};
pub use fp4::{half_power, half_ue4m3};
pub use how::{Effort, Encode, Objective, Prior};
#[cfg(not(test))]
pub use portable::{DecodeRow, EncodeRow, portable};
pub use ternary::tq1_0_trits;
pub use types::{BITNET_CPP, DType, Family, Field, Info, Number, REMOVED, Section, TYPES};

/// Blocks that are searched together.
const BATCH: usize = 8;

/// Packs and unpacks one block: `W` weights in `B` bytes, little-endian. Bodies are plain scalar code over arrays, always
/// inlined, so that callers can compile them for an instruction set.
pub trait Block<const W: usize, const B: usize>: 'static {
    /// How much more larger weights count under [`Objective::Prior`].
    const PRIOR: Prior = Prior::Plain;

    /// Whether [`Objective::Prior`] is the default, without importances and with them: whichever gave the smaller KL
    /// divergence on real models (docs/encoders.md).
    const PREFERS_PRIOR: [bool; 2] = [false, false];

    /// Whether blocks are amplified under [`Objective::Prior`]: multiplied by up to 1.3, since codes and scales of least
    /// squared error make weights too small (docs/encoders.md).
    const AMPLIFIED: bool = false;

    /// Unpacks a block.
    fn decode(bytes: &[u8; B], out: &mut [f32; W]);

    /// Multiplies the scales of the block, which are IEEE halves, where [`Block::AMPLIFIED`].
    #[inline(always)]
    fn amplify(_bytes: &mut [u8; B], _by: f32) {}

    /// Packs finite weights, with the smallest squared error that the type's search finds; with `w`, with the smallest sum of
    /// w · error². The `w` are finite and not negative. A type defines this or [`Block::encode_all`].
    #[inline(always)]
    fn encode(x: &[f32; W], w: Option<&[f32; W]>, effort: Effort, bytes: &mut [u8; B]) {
        let w = match &w {
            Some(w) => Some(std::slice::from_ref(*w)),
            None => None,
        };
        Self::encode_all(std::slice::from_ref(x), w, effort, std::slice::from_mut(bytes));
    }

    /// Packs many blocks. Each gets the bytes that it would get alone.
    #[inline(always)]
    fn encode_all(x: &[[f32; W]], w: Option<&[[f32; W]]>, effort: Effort, bytes: &mut [[u8; B]]) {
        // One loop with a choice inside, not one for each choice: the body is a whole search, which is compiled once for
        // every call in the source. And no closure around it, which might not be compiled for the caller's instruction set.
        for b in 0..x.len() {
            Self::encode(&x[b], w.map(|w| &w[b]), effort, &mut bytes[b]);
        }
    }
}

/// A computation with the [`Block`] of any type, for [`DType::visit`].
pub trait Visitor {
    /// The result.
    type Out;
    /// Computes it with the block of a type.
    fn visit<const W: usize, const B: usize, T: Block<W, B>>(self) -> Self::Out;
}

/// Unpacks whole blocks, as many as fit both slices.
#[inline(always)]
pub fn decode_blocks<const W: usize, const B: usize, T: Block<W, B>>(bytes: &[u8], out: &mut [f32]) {
    for (b, x) in bytes.as_chunks::<B>().0.iter().zip(out.as_chunks_mut::<W>().0) {
        T::decode(b, x);
    }
}

/// Packs whole blocks, as many as fit both slices. [`DType::encode`] checks the lengths.
///
/// # Panics
/// If there are fewer importances than weights.
#[inline(always)]
pub fn encode_blocks<const W: usize, const B: usize, T: Block<W, B>>(
    x: &[f32],
    how: &Encode<'_>,
    bytes: &mut [u8],
) {
    let (x, bytes) = (x.as_chunks::<W>().0, bytes.as_chunks_mut::<B>().0);
    if W == 1 {
        // Plain numbers need no search, so importances change nothing. One loop over all of them becomes vector code.
        T::encode_all(x, None, how.effort, bytes);
        return;
    }
    let importance = how.importance.map(|i| i.as_chunks::<W>().0);
    let prior = T::PRIOR != Prior::Plain
        && match how.objective {
            Some(objective) => objective == Objective::Prior,
            None => T::PREFERS_PRIOR[usize::from(importance.is_some())],
        };
    // In batches, so that `w` stays in the first cache. The search is called once in this function only: with every further
    // call, all of it would be compiled again, for every type and instruction set.
    let mut w = [[0.0; W]; BATCH];
    for (i, (x, bytes)) in x.chunks(BATCH).zip(bytes.chunks_mut(BATCH)).enumerate() {
        let given = importance.map(|all| &all[i * BATCH..i * BATCH + x.len()]);
        if prior {
            for b in 0..x.len() {
                T::PRIOR.weigh(&x[b], given.map(|given| &given[b]), &mut w[b]);
            }
        }
        T::encode_all(x, if prior { Some(&w[..x.len()]) } else { given }, how.effort, bytes);
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
    /// The type's row in the list.
    pub fn info(self) -> &'static Info {
        &TYPES[self as usize]
    }

    /// The type's name, in lower case.
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

    /// The bytes of `elements` weights; `None` if they are not whole blocks or the number of bytes overflows.
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

    /// Converts whole blocks from one byte order to the other: the bytes of every multi-byte number are reversed. Bytes
    /// after the last whole block are left as they are.
    pub fn swap(self, bytes: &mut [u8]) {
        let info = self.info();
        // In strips that stay in the cache from one field to the next.
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

    /// The index of the first block with an infinite or NaN scale (of plain floats: the first such value), in little-endian
    /// bytes. Integers have no such values, nor have F4 and F6.
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

/// Whether the upper two bytes of any number have all of these bits set. It always reads to the end: without a branch in
/// the loop, that is faster than stopping early.
fn has_bits<const N: usize>(bytes: &[u8], bits: u16) -> bool {
    let set = |b: &[u8; N]| u16::from_le_bytes([b[N - 2], b[N - 1]]) & bits == bits;
    bytes.as_chunks::<N>().0.iter().fold(false, |any, b| any | set(b))
}

/// Reverses the bytes of a field in every block.
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
