//! The list of tensor types: one row each, with all that is known of a type.
//!
//! Sizes, byte swaps, finite checks, fallbacks, the types that are tried by default and the tables of types in help
//! texts are read from these rows, and tests walk them. `docs/adding-a-type.md` says how to add one.

use super::grid::Grid;
use super::{activation, binary, float, fp4, i2_s, iq4, kquant, lattice, legacy, ternary};
use Section::{EightBits, FiveBits, Floats, FourBitCodebooks, FourBits, ThreeBits, TwoBits};

/// What the bytes of a multi-byte number in a block encode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Number {
    /// IEEE 754 binary16 ("half").
    F16,
    /// bfloat16: the upper half of an f32.
    Bf16,
    /// IEEE 754 binary32.
    F32,
    /// IEEE 754 binary64.
    F64,
    /// An integer or a bit pattern.
    Bits,
}

/// Numbers of more than one byte inside a block, `count` of them, `stride` bytes apart: what is reversed in files of
/// the other byte order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Field {
    /// Offset of the first number in the block, in bytes.
    pub at: usize,
    /// Bytes of each number: 2, 4 or 8.
    pub width: usize,
    /// How many numbers there are.
    pub count: usize,
    /// Bytes from the start of one number to the start of the next.
    pub stride: usize,
    /// What the numbers are.
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

/// How the weights of a type are coded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Family {
    /// Floats, each stored by itself (or a few sharing bytes), without a scale.
    Float,
    /// Integers and booleans: indices and codes, not weights.
    Integer,
    /// Blocks in which every weight has a code of its own, under scales.
    Scalar,
    /// The same with three levels, −1, 0 and 1: for models that were trained with ternary weights.
    Ternary,
    /// Blocks in which groups of four or eight weights are one index into a codebook (a lattice grid).
    Lattice,
    /// What runtimes convert activations into. Nothing that runs models reads weights of such a type.
    Activations,
}

/// A group of types in help texts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Section {
    /// Floats.
    Floats,
    /// Six to eight bits.
    EightBits,
    /// Five bits.
    FiveBits,
    /// Four bits, with evenly spaced levels.
    FourBits,
    /// Four bits, with levels from a table or small floats.
    FourBitCodebooks,
    /// Three bits.
    ThreeBits,
    /// Two bits and less.
    TwoBits,
    /// Ternary types.
    Ternary,
}

impl Section {
    /// Every section in the order of help texts, with its title.
    pub const ALL: [(Self, &'static str); 8] = [
        (Floats, "floats"),
        (EightBits, "hardly any loss"),
        (FiveBits, "five bits"),
        (FourBits, "four bits; q4_k_m for most purposes"),
        (FourBitCodebooks, "four bits in other codes"),
        (ThreeBits, "three bits"),
        (TwoBits, "two bits and less"),
        (Self::Ternary, "for models trained with ternary weights"),
    ];
}

/// A row of the list of types.
#[derive(Clone, Copy)]
#[non_exhaustive]
pub struct Info {
    /// The type.
    pub dtype: DType,
    /// The name that people use, in lower case: "q4_k".
    pub name: &'static str,
    /// Its number in GGUF (`enum ggml_type`), if GGUF has it.
    pub gguf: Option<u32>,
    /// Its name in safetensors, if safetensors has it.
    pub safetensors: Option<&'static str>,
    /// Weights in a block. A row of a tensor consists of whole blocks.
    pub weights: usize,
    /// Bytes of a block.
    pub bytes: usize,
    /// The multi-byte numbers in a block.
    pub fields: &'static [Field],
    /// How its weights are coded.
    pub family: Family,
    /// The scalar grid of its blocks, for searches that choose codes themselves (GPTQ). `None` if weights are not coded
    /// one by one.
    pub grid: Option<&'static dyn Grid>,
    /// The type to take for rows that are not whole blocks: as in llama-quantize (`tensor_type_fallback`), a type of
    /// smaller blocks with at least as many bits per weight, at last half precision. [`DType::fitting`] follows these.
    pub fallback: DType,
    /// Whether the type has so few bits per weight that llama-quantize refuses to make it without an importance matrix.
    /// What holds in one scheme only (`q2_k_s`) is that scheme's.
    pub needs_importance: bool,
    /// Whether it is among the types to choose from where the user names none: those that llama.cpp and what is built on
    /// it have had for long, and that are the best choice somewhere.
    pub usual: bool,
    /// The squared error of a matrix's outputs, relative to that in [`DType::Q4_K`], with an importance matrix: the
    /// figures of a small model, measured with `ggufkit sensitivity` (docs/fitting.md). `None` if not measured.
    pub error: Option<f64>,
    /// Where help texts list it. `None` for types in which weights are not written.
    pub section: Option<Section>,
    /// Whether a block (little-endian) has an infinite or NaN scale or value that `fields` do not show.
    pub not_finite: fn(&[u8]) -> bool,
}

impl Info {
    /// Whether weights can be written in this type: GGUF has it, and it is for neither integers nor activations.
    pub fn holds_weights(&self) -> bool {
        self.gguf.is_some() && !matches!(self.family, Family::Integer | Family::Activations)
    }

    /// Bits per weight, scales included.
    pub fn bits_per_weight(&self) -> f64 {
        8.0 * self.bytes as f64 / self.weights as f64
    }
}

impl std::fmt::Debug for Info {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Info({}, {} weights in {} bytes)", self.name, self.weights, self.bytes)
    }
}

/// What rows do not have to say.
const NONE: Info = Info {
    dtype: DType::F32,
    name: "",
    gguf: None,
    safetensors: None,
    weights: 1,
    bytes: 1,
    fields: &[],
    family: Family::Integer,
    grid: None,
    fallback: DType::F16,
    needs_importance: false,
    usual: false,
    error: None,
    section: None,
    not_finite: |_| false,
};

/// Makes [`DType`], [`TYPES`] and [`DType::visit`] of rows. A row is `Variant(block) { facts }`: the implementation of
/// [`Block`](super::Block), which types that are only copied do not have, and the fields of [`Info`] that differ from
/// [`NONE`]; the first three are a name and two literals, which `visit` takes too.
macro_rules! types {
    ($($name:ident $(($block:ty))? {
        name: $text:literal, weights: $weights:literal, bytes: $bytes:literal, $($part:ident: $value:expr),* $(,)?
    })*) => {
        /// A tensor type. New ones come with new versions of ggml and safetensors.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[allow(non_camel_case_types, missing_docs)]
        #[non_exhaustive]
        pub enum DType { $($name),* }

        /// Every type, in the order of its GGUF number; then those that only safetensors has.
        pub const TYPES: &[Info] = &[$(Info {
            dtype: DType::$name,
            name: $text,
            weights: $weights,
            bytes: $bytes,
            $($part: $value,)*
            ..NONE
        }),*];

        impl DType {
            /// Calls the visitor with the type's [`Block`](super::Block); `None` if the type can be copied but not decoded.
            pub fn visit<V: super::Visitor>(self, visitor: V) -> Option<V::Out> {
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
    F32(float::F32) {
        name: "f32", weights: 1, bytes: 4, gguf: Some(0), safetensors: Some("F32"),
        fields: &[one(0, 4, Number::F32)],
        family: Family::Float, error: Some(0.0), section: Some(Floats),
    }
    F16(float::F16) {
        name: "f16", weights: 1, bytes: 2, gguf: Some(1), safetensors: Some("F16"), fields: &[half(0)],
        family: Family::Float, usual: true, error: Some(0.00001), section: Some(Floats),
    }
    Q4_0(legacy::Q4_0) {
        name: "q4_0", weights: 32, bytes: 18, gguf: Some(2), fields: &[half(0)],
        family: Family::Scalar, grid: Some(&legacy::Q4_0), usual: true, error: Some(1.42),
        section: Some(FourBits),
    }
    Q4_1(legacy::Q4_1) {
        name: "q4_1", weights: 32, bytes: 20, gguf: Some(3), fields: &[half(0), half(2)],
        family: Family::Scalar, grid: Some(&legacy::Q4_1), usual: true, error: Some(0.98),
        section: Some(FourBits),
    }
    Q5_0(legacy::Q5_0) {
        name: "q5_0", weights: 32, bytes: 22, gguf: Some(6), fields: &[half(0), bits(2, 4, 1, 4)],
        family: Family::Scalar, grid: Some(&legacy::Q5_0), usual: true, error: Some(0.343),
        section: Some(FiveBits),
    }
    Q5_1(legacy::Q5_1) {
        name: "q5_1", weights: 32, bytes: 24, gguf: Some(7), fields: &[half(0), half(2), bits(4, 4, 1, 4)],
        family: Family::Scalar, grid: Some(&legacy::Q5_1), usual: true, error: Some(0.229),
        section: Some(FiveBits),
    }
    Q8_0(legacy::Q8_0) {
        name: "q8_0", weights: 32, bytes: 34, gguf: Some(8), fields: &[half(0)],
        family: Family::Scalar, grid: Some(&legacy::Q8_0), usual: true, error: Some(0.0045),
        section: Some(EightBits),
    }
    Q8_1(activation::Q8_1) {
        name: "q8_1", weights: 32, bytes: 36, gguf: Some(9), fields: &[half(0), half(2)],
        family: Family::Activations,
    }
    Q2_K(kquant::Q2K) {
        name: "q2_k", weights: 256, bytes: 84, gguf: Some(10), fields: &[half(80), half(82)],
        family: Family::Scalar, grid: Some(&kquant::Q2K), fallback: DType::Q4_0, usual: true, error: Some(15.0),
        section: Some(TwoBits),
    }
    Q3_K(kquant::Q3K) {
        name: "q3_k", weights: 256, bytes: 110, gguf: Some(11), fields: &[half(108)],
        family: Family::Scalar, grid: Some(&kquant::Q3K), fallback: DType::Q4_0, usual: true, error: Some(4.5),
        section: Some(ThreeBits),
    }
    Q4_K(kquant::Q4K) {
        name: "q4_k", weights: 256, bytes: 144, gguf: Some(12), fields: &[half(0), half(2)],
        family: Family::Scalar, grid: Some(&kquant::Q4K), fallback: DType::Q5_0, usual: true, error: Some(1.0),
        section: Some(FourBits),
    }
    Q5_K(kquant::Q5K) {
        name: "q5_k", weights: 256, bytes: 176, gguf: Some(13), fields: &[half(0), half(2)],
        family: Family::Scalar, grid: Some(&kquant::Q5K), fallback: DType::Q5_1, usual: true, error: Some(0.237),
        section: Some(FiveBits),
    }
    Q6_K(kquant::Q6K) {
        name: "q6_k", weights: 256, bytes: 210, gguf: Some(14), fields: &[half(208)],
        family: Family::Scalar, grid: Some(&kquant::Q6K), fallback: DType::Q8_0, usual: true, error: Some(0.057),
        section: Some(EightBits),
    }
    Q8_K(activation::Q8K) {
        name: "q8_k", weights: 256, bytes: 292, gguf: Some(15),
        fields: &[one(0, 4, Number::F32), bits(260, 2, 16, 2)],
        family: Family::Activations,
    }
    IQ2_XXS(lattice::Iq2Xxs) {
        name: "iq2_xxs", weights: 256, bytes: 66, gguf: Some(16), fields: &[half(0), bits(6, 4, 8, 8)],
        family: Family::Lattice, fallback: DType::IQ4_NL, needs_importance: true, usual: true, error: Some(24.0),
        section: Some(TwoBits),
    }
    IQ2_XS(lattice::Iq2Xs) {
        name: "iq2_xs", weights: 256, bytes: 74, gguf: Some(17), fields: &[half(0), bits(2, 2, 32, 2)],
        family: Family::Lattice, fallback: DType::IQ4_NL, needs_importance: true, usual: true, error: Some(18.0),
        section: Some(TwoBits),
    }
    IQ3_XXS(lattice::Iq3Xxs) {
        name: "iq3_xxs", weights: 256, bytes: 98, gguf: Some(18), fields: &[half(0), bits(66, 4, 8, 4)],
        family: Family::Lattice, fallback: DType::IQ4_NL, needs_importance: true, usual: true, error: Some(6.5),
        section: Some(ThreeBits),
    }
    IQ1_S(lattice::Iq1S) {
        name: "iq1_s", weights: 256, bytes: 50, gguf: Some(19), fields: &[half(0), bits(34, 2, 8, 2)],
        family: Family::Lattice, fallback: DType::IQ4_NL, needs_importance: true, usual: true, error: Some(50.0),
        section: Some(TwoBits),
    }
    IQ4_NL(iq4::Iq4Nl) {
        name: "iq4_nl", weights: 32, bytes: 18, gguf: Some(20), fields: &[half(0)],
        family: Family::Scalar, grid: Some(&iq4::Iq4Nl), usual: true, error: Some(1.137),
        section: Some(FourBitCodebooks),
    }
    IQ3_S(lattice::Iq3S) {
        name: "iq3_s", weights: 256, bytes: 110, gguf: Some(21), fields: &[half(0)],
        family: Family::Lattice, fallback: DType::IQ4_NL, usual: true, error: Some(3.5),
        section: Some(ThreeBits),
    }
    IQ2_S(lattice::Iq2S) {
        name: "iq2_s", weights: 256, bytes: 82, gguf: Some(22), fields: &[half(0)],
        family: Family::Lattice, fallback: DType::IQ4_NL, needs_importance: true, usual: true, error: Some(13.0),
        section: Some(TwoBits),
    }
    IQ4_XS(iq4::Iq4Xs) {
        name: "iq4_xs", weights: 256, bytes: 136, gguf: Some(23), fields: &[half(0), bits(2, 2, 1, 2)],
        family: Family::Scalar, grid: Some(&iq4::Iq4Xs), fallback: DType::IQ4_NL, usual: true, error: Some(1.155),
        section: Some(FourBitCodebooks),
    }
    I8(float::I8) {
        name: "i8", weights: 1, bytes: 1, gguf: Some(24), safetensors: Some("I8"),
        family: Family::Integer,
    }
    I16(float::I16) {
        name: "i16", weights: 1, bytes: 2, gguf: Some(25), safetensors: Some("I16"), fields: &[bits(0, 2, 1, 2)],
        family: Family::Integer,
    }
    I32(float::I32) {
        name: "i32", weights: 1, bytes: 4, gguf: Some(26), safetensors: Some("I32"), fields: &[bits(0, 4, 1, 4)],
        family: Family::Integer,
    }
    I64(float::I64) {
        name: "i64", weights: 1, bytes: 8, gguf: Some(27), safetensors: Some("I64"), fields: &[bits(0, 8, 1, 8)],
        family: Family::Integer,
    }
    F64(float::F64) {
        name: "f64", weights: 1, bytes: 8, gguf: Some(28), safetensors: Some("F64"),
        fields: &[one(0, 8, Number::F64)],
        family: Family::Float, section: Some(Floats),
    }
    IQ1_M(lattice::Iq1M) {
        name: "iq1_m", weights: 256, bytes: 56, gguf: Some(29), fields: &[bits(48, 2, 4, 2)],
        family: Family::Lattice, fallback: DType::IQ4_NL, needs_importance: true, usual: true, error: Some(42.0),
        section: Some(TwoBits), not_finite: lattice::iq1_m_scale_is_not_finite,
    }
    BF16(float::Bf16) {
        name: "bf16", weights: 1, bytes: 2, gguf: Some(30), safetensors: Some("BF16"),
        fields: &[one(0, 2, Number::Bf16)],
        family: Family::Float, error: Some(0.0005), section: Some(Floats),
    }
    TQ1_0(ternary::Tq1_0) {
        name: "tq1_0", weights: 256, bytes: 54, gguf: Some(34), fields: &[half(52)],
        family: Family::Ternary, grid: Some(&ternary::Tq1_0), fallback: DType::Q4_0, section: Some(Section::Ternary),
    }
    TQ2_0(ternary::Tq2_0) {
        name: "tq2_0", weights: 256, bytes: 66, gguf: Some(35), fields: &[half(64)],
        family: Family::Ternary, grid: Some(&ternary::Tq2_0), fallback: DType::Q4_0, section: Some(Section::Ternary),
    }
    MXFP4(fp4::Mxfp4) {
        name: "mxfp4", weights: 32, bytes: 17, gguf: Some(39),
        family: Family::Scalar, grid: Some(&fp4::Mxfp4), section: Some(FourBitCodebooks),
        not_finite: |b| b[0] == 0xFF,
    }
    NVFP4(fp4::Nvfp4) {
        name: "nvfp4", weights: 64, bytes: 36, gguf: Some(40),
        family: Family::Scalar, grid: Some(&fp4::Nvfp4), fallback: DType::IQ4_NL,
        section: Some(FourBitCodebooks),
    }
    Q1_0(binary::Q1_0) {
        name: "q1_0", weights: 128, bytes: 18, gguf: Some(41), fields: &[half(0)],
        family: Family::Scalar, grid: Some(&binary::Q1_0), fallback: DType::Q2_0, section: Some(TwoBits),
    }
    Q2_0(binary::Q2_0) {
        name: "q2_0", weights: 64, bytes: 18, gguf: Some(42), fields: &[half(0)],
        family: Family::Scalar, grid: Some(&binary::Q2_0), fallback: DType::Q4_0, section: Some(TwoBits),
    }
    Bool {
        name: "bool", weights: 1, bytes: 1, safetensors: Some("BOOL"),
        family: Family::Integer,
    }
    U8 {
        name: "u8", weights: 1, bytes: 1, safetensors: Some("U8"),
        family: Family::Integer,
    }
    U16 {
        name: "u16", weights: 1, bytes: 2, safetensors: Some("U16"), fields: &[bits(0, 2, 1, 2)],
        family: Family::Integer,
    }
    U32 {
        name: "u32", weights: 1, bytes: 4, safetensors: Some("U32"), fields: &[bits(0, 4, 1, 4)],
        family: Family::Integer,
    }
    U64 {
        name: "u64", weights: 1, bytes: 8, safetensors: Some("U64"), fields: &[bits(0, 8, 1, 8)],
        family: Family::Integer,
    }
    F8_E4M3 {
        name: "f8_e4m3", weights: 1, bytes: 1, safetensors: Some("F8_E4M3"),
        family: Family::Float, not_finite: |b| b[0] & 0x7F == 0x7F,
    }
    F8_E5M2 {
        name: "f8_e5m2", weights: 1, bytes: 1, safetensors: Some("F8_E5M2"),
        family: Family::Float, not_finite: |b| b[0] & 0x7C == 0x7C,
    }
    F8_E8M0 {
        name: "f8_e8m0", weights: 1, bytes: 1, safetensors: Some("F8_E8M0"),
        family: Family::Float, not_finite: |b| b[0] == 0xFF,
    }
    F8_E4M3FNUZ {
        name: "f8_e4m3fnuz", weights: 1, bytes: 1, safetensors: Some("F8_E4M3FNUZ"),
        family: Family::Float, not_finite: |b| b[0] == 0x80,
    }
    F8_E5M2FNUZ {
        name: "f8_e5m2fnuz", weights: 1, bytes: 1, safetensors: Some("F8_E5M2FNUZ"),
        family: Family::Float, not_finite: |b| b[0] == 0x80,
    }
    F6_E2M3 {
        name: "f6_e2m3", weights: 4, bytes: 3, safetensors: Some("F6_E2M3"),
        family: Family::Float,
    }
    F6_E3M2 {
        name: "f6_e3m2", weights: 4, bytes: 3, safetensors: Some("F6_E3M2"),
        family: Family::Float,
    }
    F4 {
        name: "f4", weights: 2, bytes: 1, safetensors: Some("F4"),
        family: Family::Float,
    }
    C64 {
        name: "c64", weights: 1, bytes: 8, safetensors: Some("C64"),
        fields: &[Field { at: 0, width: 4, count: 2, stride: 4, number: Number::F32 }],
        family: Family::Float,
    }
}

/// GGUF numbers whose types were taken out of ggml, with their former names. Of some, [`FOREIGN`](super::FOREIGN) has the
/// layout.
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
