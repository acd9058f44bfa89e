//! A model's weights by their roles.

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::HashMap;

use formats::block::DType;
use formats::model::{ByteOrder, Encoding};

use super::linear::{Matrix, Precision};
use super::ternary;
use crate::arch::{Blk, Config, Rotary, is_idle};
use crate::error::{Error, Result};
use crate::source::view::{RowOrder, Values};
use crate::source::{Source, scales};
use kernels::{Isa, parallel};

/// How a network computes.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// Keep activations as floats, rather than as 8-bit codes.
    pub exact: bool,
    /// The instruction set to use; [`Isa::current`] if not given.
    pub isa: Option<Isa>,
}

/// A model that is ready to run.
pub struct Network<'a> {
    /// Its settings.
    pub config: Config,
    /// The instruction set that it uses.
    pub isa: Isa,
    pub(super) embedding: Matrix<'a>,
    /// `None` if embeddings are tied.
    pub(super) output: Option<Matrix<'a>>,
    pub(super) output_norm: Vec<f32>,
    pub(super) layers: Vec<Layer<'a>>,
    /// RoPE: the angle of each pair of dimensions of a head per position, and the factor of cosines and sines.
    pub(super) angles: (Vec<f64>, f64),
    /// Whether RoPE pairs the halves of a head, rather than neighbours.
    pub(super) halves: bool,
    /// Whether the activation is squared ReLU, rather than SiLU.
    pub(super) relu2: bool,
}

/// A matrix with the scale that its products are multiplied by, and the bias that is then added.
pub(super) struct Linear<'a> {
    pub matrix: Matrix<'a>,
    /// The scale of the whole tensor besides its blocks' scales (NVFP4).
    pub scale: Option<f32>,
    pub bias: Option<Vec<f32>>,
}

pub(super) struct Layer<'a> {
    pub attn_norm: Vec<f32>,
    pub q: Linear<'a>,
    pub k: Linear<'a>,
    pub v: Linear<'a>,
    pub q_norm: Option<Vec<f32>>,
    pub k_norm: Option<Vec<f32>>,
    pub attn_sub_norm: Option<Vec<f32>>,
    pub o: Linear<'a>,
    pub ffn_norm: Vec<f32>,
    pub gate: Linear<'a>,
    pub up: Linear<'a>,
    pub ffn_sub_norm: Option<Vec<f32>>,
    pub down: Linear<'a>,
}

impl<'a> Network<'a> {
    /// Finds the weights of an open model. They are used where they are (memory-mapped, or read), unless the kernels
    /// need another form: big-endian numbers are byte-swapped, and two-bit codes of a checkpoint or of bitnet.cpp are
    /// repacked.
    ///
    /// # Errors
    /// [`Error::NoWeights`]; [`Error::Refused`] for weights that are no model or are stored rotated;
    /// [`Error::UnknownArchitecture`] and [`Error::InvalidConfig`]; [`Error::MissingTensors`], [`Error::UnreadTensors`],
    /// [`Error::WrongShape`], [`Error::UnsupportedType`]; [`Error::NotFinite`] and [`Error::InvalidCode`] for ternary
    /// tensors; [`Error::Io`] if the file cannot be read.
    pub fn new(source: &'a Source, options: Options) -> Result<Self> {
        source.need_weights()?;
        source.need_model(false)?;
        source.refuse_rotated("run")?;
        let find = Finder::new(source, options.isa.unwrap_or_else(Isa::current));
        let embedding = find.index("token_embd.weight").ok_or_else(|| {
            let names = vec!["token_embd.weight".into()];
            Error::MissingTensors { file: source.path.clone(), names }
        })?;
        let vocab = source.model.tensors[embedding].rows();
        let tied = find.index("output.weight").is_none();
        let config = Config::from_gguf(&source.model.metadata, vocab, tied, None)
            .map_err(|e| e.in_file(&source.path))?;
        let invalid = |why: String| Error::InvalidConfig { file: source.path.clone(), why };
        if !config.causal {
            let key = format!("{}.attention.causal", config.name);
            let why = format!(
                "{key} is false: each token attends to those behind it too, as in models of embeddings, and only causal \
                 attention is computed here"
            );
            return Err(invalid(why));
        }
        let arch = config.arch;
        let (hidden, inner) = (config.hidden, config.intermediate);
        let (queries, keys) = (config.heads * config.head, config.kv_heads * config.head);
        if vocab == 0 {
            return Err(invalid("token_embd.weight has no rows".into()));
        }
        if !config.heads.is_multiple_of(config.kv_heads) {
            let (heads, kv) = (config.heads, config.kv_heads);
            let why =
                format!("attention.head_count {heads} is not a multiple of attention.head_count_kv {kv}");
            return Err(invalid(why));
        }
        let outer = if options.exact { Precision::Exact } else { Precision::Blocks };
        let inside = if arch.int8_activations && !options.exact { Precision::Token } else { outer };
        let layer = |i: u64| -> Result<Layer<'a>> {
            let name = |part: &str| Blk { layer: i, part }.to_string();
            let linear = |part: &str, rows: u64, cols: u64| -> Result<Linear<'a>> {
                let matrix = find.matrix(&name(&format!("{part}.weight")), rows, cols, inside, true)?;
                let scale = find.optional(&name(&format!("{part}.scale")), 1)?.map(|s| s[0]);
                // What the architecture does not have is not asked for, and so it is refused.
                let bias = match arch.has_bias(part) {
                    true => find.optional(&name(&format!("{part}.bias")), rows)?,
                    false => None,
                };
                Ok(Linear { matrix, scale, bias })
            };
            let norm = |part: &str, len: u64| -> Result<Option<Vec<f32>>> {
                let rule = arch.rule(&format!("blk.{{}}.{part}"));
                rule.map(|_| find.vector(&name(part), len)).transpose()
            };
            Ok(Layer {
                attn_norm: find.vector(&name("attn_norm.weight"), hidden)?,
                q: linear("attn_q", queries, hidden)?,
                k: linear("attn_k", keys, hidden)?,
                v: linear("attn_v", keys, hidden)?,
                q_norm: norm("attn_q_norm.weight", config.head)?,
                k_norm: norm("attn_k_norm.weight", config.head)?,
                attn_sub_norm: norm("attn_sub_norm.weight", queries)?,
                o: linear("attn_output", hidden, queries)?,
                ffn_norm: find.vector(&name("ffn_norm.weight"), hidden)?,
                gate: linear("ffn_gate", inner, hidden)?,
                up: linear("ffn_up", inner, hidden)?,
                ffn_sub_norm: norm("ffn_sub_norm.weight", inner)?,
                down: linear("ffn_down", hidden, inner)?,
            })
        };
        let layers = (0..config.layers).map(layer).collect::<Result<_>>()?;
        // Where llama.cpp does not look for it, it is a tensor that the architecture does not have.
        let divisors = match arch.rope_freqs {
            true => find.optional("rope_freqs.weight", config.head / 2)?,
            false => None,
        };
        if let Some(x) = divisors.iter().flatten().find(|&&x| !(x > 0.0 && x.is_finite())) {
            return Err(invalid(format!("rope_freqs.weight must have positive numbers (found {x})")));
        }
        let embedding = find.matrix("token_embd.weight", vocab, hidden, outer, false)?;
        let output = match tied {
            true => None,
            false => Some(find.matrix("output.weight", vocab, hidden, outer, false)?),
        };
        let output_norm = find.vector("output_norm.weight", hidden)?;
        find.refuse_unread(&config)?;
        Ok(Self {
            isa: find.isa,
            embedding,
            output,
            output_norm,
            layers,
            angles: config.scaling.angles(config.theta, config.head as usize, divisors.as_deref()),
            halves: arch.rotary == Rotary::Halves,
            relu2: arch.activation[0] == "relu2",
            config,
        })
    }

    /// The size of the vocabulary, which is the number of logits of a token.
    pub fn vocab(&self) -> usize {
        self.embedding.rows
    }

    /// All matrices that a token is multiplied with, the output matrix last.
    pub fn matrices(&self) -> impl Iterator<Item = &Matrix<'a>> {
        self.layers
            .iter()
            .flat_map(|l| [&l.q, &l.k, &l.v, &l.o, &l.gate, &l.up, &l.down])
            .map(|l| &l.matrix)
            .chain([self.output.as_ref().unwrap_or(&self.embedding)])
    }

    /// Bytes of weights that are read for each token.
    pub fn bytes_per_token(&self) -> u64 {
        self.matrices().map(|m| m.bytes() as u64).sum()
    }
}

/// Looks tensors up by name, and keeps account of which were asked for.
struct Finder<'a> {
    source: &'a Source,
    isa: Isa,
    indices: HashMap<&'a str, usize>,
    /// For each tensor, whether it is part of the network.
    read: RefCell<Vec<bool>>,
}

impl<'a> Finder<'a> {
    fn new(source: &'a Source, isa: Isa) -> Self {
        let tensors = &source.model.tensors;
        let indices = tensors.iter().enumerate().map(|(i, t)| (t.name.as_str(), i)).collect();
        let mut read = vec![false; tensors.len()];
        // Views multiply by these.
        scales::pairs(&source.model).into_iter().for_each(|(_, scale)| read[scale] = true);
        Self { source, isa, indices, read: RefCell::new(read) }
    }

    fn index(&self, name: &str) -> Option<usize> {
        let i = *self.indices.get(name)?;
        self.read.borrow_mut()[i] = true;
        Some(i)
    }

    /// Refuses a model with tensors that nobody asked for: it is a variant of the architecture that computes something
    /// else, or has more layers than it says.
    fn refuse_unread(&self, config: &Config) -> Result<()> {
        let read = self.read.borrow();
        let left = self
            .source
            .model
            .tensors
            .iter()
            .zip(read.iter())
            .filter(|(t, read)| !**read && !is_idle(&t.name));
        let names: Vec<String> = left.map(|(t, _)| t.name.clone()).collect();
        if names.is_empty() {
            return Ok(());
        }
        let (file, architecture) = (self.source.path.clone(), config.name.into());
        Err(Error::UnreadTensors { file, names, architecture, layers: config.layers })
    }

    /// The index of the tensor, which must have this shape.
    fn tensor(&self, name: &str, shape: &[u64]) -> Result<usize> {
        let missing = || Error::MissingTensors { file: self.source.path.clone(), names: vec![name.into()] };
        let i = self.index(name).ok_or_else(missing)?;
        let t = &self.source.model.tensors[i];
        if t.shape != shape {
            let (tensor, found) = (name.into(), t.shape.clone());
            return Err(Error::WrongShape { tensor, expected: shape.to_vec(), found });
        }
        Ok(i)
    }

    fn optional(&self, name: &str, len: u64) -> Result<Option<Vec<f32>>> {
        if self.index(name).is_none() { Ok(None) } else { self.vector(name, len).map(Some) }
    }

    fn vector(&self, name: &str, len: u64) -> Result<Vec<f32>> {
        let i = self.tensor(name, &[len])?;
        let mut out = vec![0.0; len as usize];
        self.source.fetch(i, 0..len)?.decode(name, self.source.model.order, &mut out)?;
        Ok(out)
    }

    /// A matrix. With `apart`, its tensor scale (NVFP4) is not part of the weights: the caller multiplies products by
    /// it.
    fn matrix(
        &self,
        name: &str,
        rows: u64,
        cols: u64,
        precision: Precision,
        apart: bool,
    ) -> Result<Matrix<'a>> {
        let i = self.tensor(name, &[rows, cols])?;
        let source = self.source;
        let size = |n: u64| {
            usize::try_from(n)
                .map_err(|_| Error::refused(format!("tensor {name}: is too large for this machine")))
        };
        let shape = (size(rows)?, size(cols)?);
        let view = source.views.get(i).and_then(Option::as_ref);
        let (stored, order) = match view {
            None => (Some(&source.model.tensors[i]), RowOrder::Same),
            Some(v) if matches!(v.values, Values::Stored) => (Some(&v.stored), v.rows),
            Some(v) if matches!(v.values, Values::Scaled { .. }) && apart => (Some(&v.stored), v.rows),
            Some(_) => (None, RowOrder::Same),
        };
        if let (Some(Values::Repacked(layout)), RowOrder::Same) = (view.map(|v| &v.values), order) {
            let t = &source.model.tensors[i];
            let mut bytes = source.read(i, 0..t.location.len)?.into_owned();
            if source.model.order == ByteOrder::Big {
                layout.dtype().swap(&mut bytes);
            }
            let bytes = Cow::Owned(bytes);
            return Ok(Matrix::new(name.into(), layout.dtype(), bytes, order, shape, precision, self.isa));
        }
        if let Some(t) = stored.filter(|t| t.encoding == Encoding::I2S) {
            let (dtype, bytes, scale) = ternary::repack(source, t)?;
            let bytes = Cow::Owned(bytes);
            let matrix = Matrix::new(name.into(), dtype, bytes, order, shape, precision, self.isa);
            return Ok(matrix.times(scale));
        }
        if let Some((t, dtype)) = stored.and_then(|t| match t.encoding {
            Encoding::Blocks(dtype) => Some((t, dtype)),
            Encoding::Int8Groups { .. } | Encoding::I2S | Encoding::Foreign(_) => None,
        }) {
            if kernels::codec(dtype).is_none() {
                let (tensor, dtype) = (name.into(), dtype.name().into());
                return Err(Error::UnsupportedType { tensor, dtype, operation: "decoded, only copied" });
            }
            if dtype.bytes_for(cols).is_none() {
                let (block, dtype) = (dtype.info().weights, dtype.name());
                let why = format!(
                    "tensor {name}: columns must be a multiple of {block} for {dtype} (found {cols})"
                );
                return Err(Error::refused(why));
            }
            let mut bytes = source.stored_read(t, 0..t.location.len)?;
            if source.model.order == ByteOrder::Big && !dtype.info().fields.is_empty() {
                let row = dtype.bytes_for(cols).unwrap_or(1).max(1) as usize;
                parallel::chunks_mut(bytes.to_mut(), row, &|_, row| dtype.swap(row));
            }
            return Ok(Matrix::new(name.into(), dtype, bytes, order, shape, precision, self.isa));
        }
        // A form that no kernel takes: decoded to floats.
        let mut bytes = vec![0u8; shape.0 * shape.1 * 4];
        let rows: Vec<&mut [u8]> = bytes.chunks_mut(shape.1 * 4).collect();
        parallel::try_map_items(rows, &|r, out| -> Result<()> {
            let mut row = vec![0f32; shape.1];
            let at = r as u64 * cols;
            // A group of codes may begin in the row before; the source handles that.
            source.fetch(i, at..at + cols)?.decode(name, source.model.order, &mut row)?;
            for (out, x) in out.as_chunks_mut::<4>().0.iter_mut().zip(row) {
                *out = x.to_le_bytes();
            }
            Ok(())
        })?;
        Ok(Matrix::new(name.into(), DType::F32, Cow::Owned(bytes), order, shape, precision, self.isa))
    }
}
