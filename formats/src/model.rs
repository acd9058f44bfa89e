//! What every container holds: settings, tensors, and where the tensors' bytes are.

use std::ops::Range;

use crate::block::{DType, Foreign, i2_s};
use crate::metadata::Metadata;

/// The order of the bytes of a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ByteOrder {
    /// Least significant byte first: x86, ARM, nearly every published file.
    Little,
    /// Most significant byte first: PowerPC, s390x, SPARC.
    Big,
}

impl ByteOrder {
    /// Converts the `N` bytes of a number from this order to little-endian, or back.
    pub fn le<const N: usize>(self, mut bytes: [u8; N]) -> [u8; N] {
        if self == Self::Big {
            bytes.reverse();
        }
        bytes
    }

    /// "little" or "big".
    pub fn name(self) -> &'static str {
        match self {
            Self::Little => "little",
            Self::Big => "big",
        }
    }
}

/// What a reader is given: a file's name for messages, its first bytes (all of them when it is memory-mapped), and its
/// length.
#[derive(Debug, Clone, Copy)]
pub struct Input<'a> {
    /// The name that errors carry.
    pub name: &'a str,
    /// The first bytes of the file.
    pub bytes: &'a [u8],
    /// The length of the whole file in bytes, at least `bytes.len()`.
    pub len: u64,
}

impl<'a> Input<'a> {
    /// A file of which all bytes are in memory.
    pub fn whole(name: &'a str, bytes: &'a [u8]) -> Self {
        Self { name, bytes, len: bytes.len() as u64 }
    }
}

/// A range of bytes in a file. The default is for tensors that are not laid out yet.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Location {
    /// Index of the file among those that make up the model.
    pub file: usize,
    /// The offset of the first byte in the file.
    pub offset: u64,
    /// Number of bytes.
    pub len: u64,
}

/// How a tensor's numbers are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// Rows of whole blocks.
    Blocks(DType),
    /// llama2.c version 2 (`QuantizedTensor` of `runq.c`): one i8 for each element of the whole tensor, then one f32 scale
    /// for each group of `size` elements of the flattened tensor. A group may cross rows.
    Int8Groups {
        /// Elements that share a scale; divides the number of elements.
        size: u32,
    },
    /// bitnet.cpp's ternary weights (I2_S): two bits each in rows of whole blocks, then one f32 scale for the whole tensor
    /// and 28 bytes of zeros; see [`i2_s`].
    I2S,
    /// A layout that holds the values of one of ggml's types. It is read, never written.
    Foreign(Foreign),
}

impl Encoding {
    /// The bytes that `elements` numbers take; `None` if that overflows or they are not whole blocks.
    pub fn bytes(self, elements: u64) -> Option<u64> {
        match self {
            Self::Blocks(t) => t.bytes_for(elements),
            Self::Int8Groups { size } => {
                let groups = elements.checked_div(size.into())?;
                (groups * u64::from(size) == elements)
                    .then(|| elements.checked_add(groups.checked_mul(4)?))?
            }
            Self::I2S => i2_s::tensor_bytes(elements),
            Self::Foreign(f) => f.bytes_for(elements),
        }
    }

    /// The fewest elements that can be stored by themselves: those of a block or of a group.
    pub fn unit(self) -> u64 {
        match self {
            Self::Blocks(t) => t.info().weights as u64,
            Self::Int8Groups { size } => size.into(),
            Self::I2S => i2_s::WEIGHTS as u64,
            Self::Foreign(f) => f.weights() as u64,
        }
    }

    /// The name that people use: "q4_0", "int8/64", "i2_s".
    pub fn name(self) -> String {
        match self {
            Self::Blocks(t) => t.name().to_string(),
            Self::Int8Groups { size } => format!("int8/{size}"),
            Self::I2S => "i2_s".into(),
            Self::Foreign(f) => f.name().into(),
        }
    }

    /// Whether every number is stored by itself, as a float or an integer: not quantized.
    pub fn is_plain(self) -> bool {
        matches!(self, Self::Blocks(t) if t.info().weights == 1)
    }
}

/// A named array in a file.
#[derive(Debug, Clone, PartialEq)]
pub struct Tensor {
    /// Its name. Tensors of llama2.c files, which have no names, get those of GGUF.
    pub name: String,
    /// Outermost dimension first, as in PyTorch: `[rows, cols]` with `cols` contiguous.
    pub shape: Vec<u64>,
    /// How its numbers are stored.
    pub encoding: Encoding,
    /// Where they are stored.
    pub location: Location,
}

impl Tensor {
    /// The number of elements.
    ///
    /// # Panics
    /// If the product of the dimensions overflows, which readers and writers have refused: see [`elements`].
    pub fn elements(&self) -> u64 {
        elements(&self.shape).expect("readers check the shape")
    }

    /// The length of a row: the last dimension (1 for a scalar).
    pub fn cols(&self) -> u64 {
        self.shape.last().copied().unwrap_or(1)
    }

    /// The parts of the tensor's data: byte ranges from its start, with the type of the numbers in each. Packed codes are
    /// [`DType::U8`].
    ///
    /// # Panics
    /// As [`Tensor::elements`].
    pub fn parts(&self) -> Vec<(Range<u64>, DType)> {
        match self.encoding {
            Encoding::Blocks(dtype) => vec![(0..self.location.len, dtype)],
            Encoding::Int8Groups { .. } => {
                let codes = self.elements();
                vec![(0..codes, DType::I8), (codes..self.location.len, DType::F32)]
            }
            Encoding::I2S => {
                let codes = self.elements() / 4;
                let (scale, end) = (codes + 4, codes + i2_s::TAIL);
                vec![(0..codes, DType::U8), (codes..scale, DType::F32), (scale..end, DType::U8)]
            }
            Encoding::Foreign(_) => vec![(0..self.location.len, DType::U8)],
        }
    }

    /// The number of rows: the product of all dimensions but the last.
    ///
    /// # Panics
    /// In builds with overflow checks, if the product overflows, which readers and writers have refused: see [`elements`].
    pub fn rows(&self) -> u64 {
        self.shape[..self.shape.len().saturating_sub(1)].iter().product()
    }
}

/// The product of a shape's dimensions, if it is below 2^63. The product of those that are not zero has to be as well, so
/// that [`Tensor::rows`] cannot overflow where the number of elements is zero.
pub fn elements(shape: &[u64]) -> Option<u64> {
    let whole = shape.iter().try_fold(1u64, |n, &d| n.checked_mul(d).filter(|&n| n < 1 << 63))?;
    shape.iter().try_fold(1u64, |n, &d| n.checked_mul(d.max(1)).filter(|&n| n < 1 << 63))?;
    Some(whole)
}

/// Which container a model came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// llama.cpp's container.
    Gguf {
        /// 1, 2 or 3; 0 from [`sniff`](crate::container::sniff), which does not read it.
        version: u32,
    },
    /// Hugging Face's container.
    Safetensors,
    /// PyTorch's container.
    PyTorch,
    /// karpathy/llama2.c's checkpoint.
    Llama2c {
        /// 0, 1 or 2.
        version: u32,
    },
    /// llama2.c's tokenizer.bin.
    Llama2cTokenizer,
}

impl std::fmt::Display for Format {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Gguf { version } => write!(f, "GGUF v{version}"),
            Self::Safetensors => write!(f, "safetensors"),
            Self::PyTorch => write!(f, "PyTorch"),
            Self::Llama2c { version } => write!(f, "llama2.c v{version}"),
            Self::Llama2cTokenizer => write!(f, "llama2.c tokenizer"),
        }
    }
}

/// A model as its files describe it.
#[derive(Debug, Clone, PartialEq)]
pub struct Model {
    /// The container it came from.
    pub format: Format,
    /// The byte order of the files.
    pub order: ByteOrder,
    /// The alignment of tensor data in the file, in bytes; 1 where the format has none.
    pub alignment: u64,
    /// Settings, under the keys of GGUF.
    pub metadata: Metadata,
    /// Tensors in the order of the files.
    pub tensors: Vec<Tensor>,
    /// What the reader corrected, for people to read.
    pub notes: Vec<String>,
}
