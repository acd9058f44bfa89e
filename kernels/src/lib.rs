//! Vector code for packed language-model weights: conversions of whole rows, matrix products, attention, and the rest of a
//! forward pass, compiled for each instruction set and chosen once at run time.
//!
//! | module | what it computes |
//! |---|---|
//! | [`codec`], [`Codec`] | packs rows of floats into blocks of a type, and unpacks them |
//! | [`activations`] | vectors of some tokens, as floats or as 8-bit codes under scales |
//! | [`dot`] | dot products of a packed row and one vector: bound by memory |
//! | [`tile`] | sixteen packed rows times sixteen vectors: bound by arithmetic |
//! | [`gemm`] | products of matrices of floats |
//! | [`attention`] | attention over a KV cache |
//! | [`float`] | norms, activation functions, soft maximum, rotary embedding |
//! | [`feedback`] | error feedback for quantization |
//! | [`parallel`] | loops over the threads of a pool |
//!
//! ```
//! use formats::block::{DType, Encode};
//! use kernels::activations::{Activations, Form};
//! use kernels::{Isa, codec_for, dot, integer};
//!
//! // A matrix of two rows and 256 columns, quantized and decoded. A row of Q4_K is blocks of 256 weights in 144 bytes.
//! let (rows, cols) = (2, 256);
//! let weights: Vec<f32> = (0..rows * cols).map(|i| (i as f32 * 0.37).sin()).collect();
//! let isa = Isa::current();
//! let codec = codec_for(DType::Q4_K, isa).expect("Q4_K can be decoded");
//! let row_bytes = DType::Q4_K.bytes_for(cols as u64).expect("whole blocks") as usize;
//! let mut packed = vec![0; rows * row_bytes];
//! codec.encode(&weights, &Encode::default(), &mut packed);
//! let mut decoded = vec![0.0; rows * cols];
//! codec.decode(&packed, &mut decoded);
//! assert!(weights.iter().zip(&decoded).all(|(w, d)| (w - d).abs() < 0.15));
//!
//! // The dot product of the second row and a vector, which is rounded to 8-bit codes first.
//! let x: Vec<f32> = (0..cols).map(|i| (i as f32 * 0.11).cos()).collect();
//! let (group, offset) = integer(DType::Q4_K).expect("Q4_K is multiplied as integers");
//! let mut activations = Activations::default();
//! activations.set(isa, Form::Groups(group), offset, &x, cols);
//! let kernel = dot::integer(DType::Q4_K, isa).expect("as above");
//! let product = kernel.row(&packed[row_bytes..], &activations, 0);
//! let exact: f32 = decoded[cols..].iter().zip(&x).map(|(w, x)| w * x).sum();
//! assert!((product - exact).abs() < 0.3);
//! ```
//!
//! **The same bits everywhere.** The bodies of conversions are those of [`formats::block`]: plain loops over fixed arrays
//! without fused multiply-add and with fixed lanes, so that every build of them gives the same bits. The other kernels have
//! one plain definition each, with fixed lanes too and with multiply-adds that round once on every machine; builds for wider
//! sets, and those that are written in a processor's own instructions, give the same bits. `GGUFKIT_ISA` (portable, avx2,
//! avx512, amx, neon) forces a choice.
//!
//! **Safety.** All public functions are safe. That instructions are there is proven by a value of [`Isa`], which only
//! functions that look at the processor make. Sizes that do not agree are refused by panics, before anything is read or
//! written through a pointer.

#![allow(unsafe_code)]
// Lanes are counted: in bodies that become vector code, what is done with which is plainer so.
#![allow(clippy::needless_range_loop)]

pub mod activations;
mod aligned;
pub mod attention;
// Not for the tests beside the code, for which the crate is compiled a second time: they make do with the portable ones, and
// `tests/codecs.rs` compares these with them.
#[cfg(all(target_arch = "x86_64", not(test)))]
mod codecs;
pub mod dot;
pub mod feedback;
pub mod float;
pub mod gemm;
mod isa;
mod lanes;
pub mod logits;
pub mod parallel;
pub mod tile;
mod weights;

pub use aligned::Aligned;
pub use isa::Isa;
pub use weights::integer;

use formats::block::{DType, Encode};

/// Decodes and encodes rows of a type, little-endian.
pub trait Codec: Sync + Send {
    /// Unpacks whole blocks: `bytes` holds as many as fill `out`. What has no counterpart stays as it is.
    fn decode(&self, bytes: &[u8], out: &mut [f32]);
    /// Packs whole blocks of finite weights, as many as `bytes` has room for: each gets the bytes that it gets alone. What
    /// has no counterpart stays as it is.
    ///
    /// # Panics
    /// If there are importances, but fewer than weights.
    fn encode(&self, x: &[f32], how: &Encode<'_>, bytes: &mut [u8]);
}

/// The squared error Σ (x − y)² and the energy Σ x², on the set in use. Neither can overflow: they are finite if, and only
/// if, all numbers are.
///
/// # Panics
/// If one vector is longer than the other.
pub fn sums(x: &[f32], y: &[f32]) -> (f64, f64) {
    assert_eq!(x.len(), y.len(), "numbers without counterparts");
    sums_on(Isa::current(), x, y)
}

isa::per_isa! {
    fn sums_on(x: &[f32], y: &[f32]) -> (f64, f64) = sums_body
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
    codec_for(dtype, Isa::current())
}

/// The codec of a type on a set.
pub fn codec_for(dtype: DType, isa: Isa) -> Option<Box<dyn Codec>> {
    #[cfg(all(target_arch = "x86_64", not(test)))]
    if isa != Isa::PORTABLE {
        return dtype.visit(codecs::Build(isa));
    }
    // On 64-bit ARM, the target guarantees what the bodies need.
    let (decode, encode) = formats::block::portable(dtype)?;
    Some(Box::new(Compiled { decode, encode, _isa: isa }))
}

/// A type's conversions, compiled for a set.
struct Compiled {
    decode: Decoder,
    encode: Encoder,
    /// The set, or one that includes it: the proof.
    _isa: Isa,
}

impl Codec for Compiled {
    fn decode(&self, bytes: &[u8], out: &mut [f32]) {
        // SAFETY: `Build` took the function for `_isa`, which exists only where its features were found.
        unsafe { (self.decode)(bytes, out) }
    }
    fn encode(&self, x: &[f32], how: &Encode<'_>, bytes: &mut [u8]) {
        // SAFETY: as above.
        unsafe { (self.encode)(x, how, bytes) }
    }
}

/// [`Codec::decode`], compiled for a set.
///
/// # Safety
/// The processor has the set.
type Decoder = unsafe fn(&[u8], &mut [f32]);
/// [`Codec::encode`] likewise.
///
/// # Safety
/// The processor has the set.
type Encoder = unsafe fn(&[f32], &Encode<'_>, &mut [u8]);

#[cfg(test)]
mod tests;
