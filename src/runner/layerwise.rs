//! Runs a model one layer at a time over any number of tokens, with the layer's weights as floats that the caller may
//! change: for measuring the inputs of matrices, and for quantizing matrices one after another.

use formats::block::DType;

use super::forward::{Run, add, add_bias, apply_rope, attend, each, norm, norm_in_place, rope_table};
use super::linear::{Inputs, Matrix, Precision, multiply};
use super::network::{Layer, Linear, Network};
use super::state::{Sequence, State};
use crate::arch::Blk;
use crate::error::Result;
use crate::source::view::RowOrder;
use kernels::attention::{KvHead, KvType};
use kernels::gemm::{View, product};
use kernels::{Isa, float, parallel};

/// The inputs of matrices in a layer, in the order of the computation. Matrices with the same input share a tap.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tap {
    /// The input of the query, key and value projections.
    Attention,
    /// The input of the attention's output projection.
    Output,
    /// The input of the gate and up projections.
    FeedForward,
    /// The input of the down projection.
    Down,
}

impl Tap {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Attention, Self::Output, Self::FeedForward, Self::Down];

    /// The names of the matrices with this input: the part of `blk.N.part.weight`.
    pub fn matrices(self) -> &'static [&'static str] {
        match self {
            Self::Attention => &["attn_q", "attn_k", "attn_v"],
            Self::Output => &["attn_output"],
            Self::FeedForward => &["ffn_gate", "ffn_up"],
            Self::Down => &["ffn_down"],
        }
    }
}

/// A decoded matrix, with its scale and bias.
#[derive(Debug, Clone)]
pub struct Dense {
    /// Its tensor's name.
    pub name: String,
    /// Rows.
    pub rows: usize,
    /// Columns.
    pub cols: usize,
    /// `[rows, cols]`.
    pub weights: Vec<f32>,
    scale: Option<f32>,
    bias: Option<Vec<f32>>,
}

impl Dense {
    fn new(linear: &Linear) -> Self {
        let m = &linear.matrix;
        let mut weights = vec![0f32; m.rows * m.cols];
        parallel::chunks_mut(&mut weights, m.cols, &|r, out| m.decode(r, out));
        let mut scale = linear.scale;
        // Plans read NVFP4 weights multiplied by their scales, and do not keep the scales for matrices of other types.
        if m.dtype == DType::NVFP4
            && let Some(scale) = scale.take()
        {
            parallel::chunks_mut(&mut weights, m.cols, &|_, row| row.iter_mut().for_each(|x| *x *= scale));
        }
        Self { name: m.name.clone(), rows: m.rows, cols: m.cols, weights, scale, bias: linear.bias.clone() }
    }

    /// Adds a correction of the products, `[rows]`, to the bias, which is created where there is none. Gives the new
    /// bias.
    pub fn add_bias(&mut self, more: &[f32]) -> &[f32] {
        let (bias, scale) =
            (self.bias.get_or_insert_with(|| vec![0.0; more.len()]), self.scale.unwrap_or(1.0));
        bias.iter_mut().zip(more).for_each(|(b, m)| *b += scale * m);
        bias
    }

    /// The products with inputs `[tokens, cols]`, with scale and bias: `[tokens, rows]`.
    pub fn apply(&self, isa: Isa, x: &[f32]) -> Vec<f32> {
        let tokens = x.len() / self.cols;
        let (a, b) = (View::rows(x, self.cols), View::rows(&self.weights, self.cols).transposed());
        let mut out = product(isa, (tokens, self.rows, self.cols), a, b);
        if let Some(scale) = self.scale {
            each(tokens, &mut out, |_, x| x.iter_mut().for_each(|x| *x *= scale));
        }
        if let Some(bias) = &self.bias {
            add_bias(isa, &mut out, bias);
        }
        out
    }
}

/// The decoded matrices of a tap, in the order of [`Tap::matrices`].
pub fn dense(network: &Network, layer: usize, tap: Tap) -> Vec<Dense> {
    linears(&network.layers[layer], tap).into_iter().map(Dense::new).collect()
}

fn linears<'n, 'a>(layer: &'n Layer<'a>, tap: Tap) -> Vec<&'n Linear<'a>> {
    match tap {
        Tap::Attention => vec![&layer.q, &layer.k, &layer.v],
        Tap::Output => vec![&layer.o],
        Tap::FeedForward => vec![&layer.gate, &layer.up],
        Tap::Down => vec![&layer.down],
    }
}

impl Network<'_> {
    /// The number of columns of the matrices of a tap.
    pub fn width(&self, tap: Tap) -> usize {
        linears(&self.layers[0], tap)[0].matrix.cols
    }

    /// Whether a tap's input comes from a sub-norm (BitNet's second norms).
    pub fn has_sub_norm(&self, layer: usize, tap: Tap) -> bool {
        let layer = &self.layers[layer];
        match tap {
            Tap::Output => layer.attn_sub_norm.is_some(),
            Tap::Down => layer.ffn_sub_norm.is_some(),
            Tap::Attention | Tap::FeedForward => false,
        }
    }

    /// The weights of the tensor `name` of layer `layer`, one of those that compute a tap's input: the weight of a
    /// norm, or the weight or bias of the value or the up projection.
    ///
    /// # Panics
    /// If it is another tensor.
    pub fn weights_of(&self, layer: usize, name: &str) -> Vec<f32> {
        let l = &self.layers[layer];
        let part = Blk::parse(name).filter(|blk| blk.layer == layer as u64).map_or(name, |blk| blk.part);
        let bias = |linear: &Linear| linear.bias.clone().expect("there is one");
        match part {
            "attn_norm.weight" => l.attn_norm.clone(),
            "ffn_norm.weight" => l.ffn_norm.clone(),
            "attn_v.weight" => Dense::new(&l.v).weights,
            "attn_v.bias" => bias(&l.v),
            "ffn_up.weight" => Dense::new(&l.up).weights,
            "ffn_up.bias" => bias(&l.up),
            _ => panic!("{name} makes no input"),
        }
    }

    /// The number of layers.
    pub fn depth(&self) -> usize {
        self.layers.len()
    }

    /// The hidden states of tokens before the first layer (their embeddings), `[tokens, hidden]`.
    ///
    /// # Panics
    /// If a token is out of range.
    pub fn embed(&self, tokens: &[u32]) -> Vec<f32> {
        let hidden = self.embedding.cols;
        let mut x = vec![0f32; tokens.len() * hidden];
        parallel::chunks_mut(&mut x, hidden, &|i, x| self.embedding.decode(tokens[i] as usize, x));
        x
    }

    /// Decoded rows of the output matrix, `[rows, hidden]`, with its name; `None` if embeddings are tied.
    pub fn output_rows(&self, rows: std::ops::Range<usize>) -> Option<(&str, Vec<f32>)> {
        let matrix = self.output.as_ref()?;
        let mut out = vec![0f32; rows.len() * matrix.cols];
        parallel::chunks_mut(&mut out, matrix.cols, &|r, out| matrix.decode(rows.start + r, out));
        Some((&matrix.name, out))
    }

    /// Name and shape of the token embedding; `None` if embeddings are tied.
    pub fn embedding_shape(&self) -> Option<(&str, [u64; 2])> {
        self.output.as_ref()?;
        let e = &self.embedding;
        Some((&e.name, [e.rows as u64, e.cols as u64]))
    }

    /// The output matrix, which gives the logits: the token embedding if embeddings are tied.
    pub fn logits_matrix(&self) -> &Matrix<'_> {
        self.output.as_ref().unwrap_or(&self.embedding)
    }

    /// A matrix `[rows, cols]` of little-endian blocks that is multiplied in floats.
    ///
    /// # Panics
    /// If the type cannot be decoded, or the bytes are not those of `rows` rows.
    pub fn exact<'m>(&self, name: &str, dtype: DType, bytes: Vec<u8>, shape: (usize, usize)) -> Matrix<'m> {
        Matrix::new(name.into(), dtype, bytes.into(), RowOrder::Same, shape, Precision::Exact, self.isa)
    }

    /// The products of a matrix with inputs `[tokens, cols]`: `[tokens, rows]`.
    pub fn logits(&self, matrix: &Matrix, x: &[f32]) -> Vec<f32> {
        let mut out = vec![0f32; x.len() / matrix.cols * matrix.rows];
        multiply(&mut Inputs::default(), x, vec![(matrix, &mut out[..])]);
        out
    }

    /// The input of [`Tap::Attention`] for hidden states `[tokens, hidden]`: their RMS norm.
    pub fn attention_input(&self, layer: usize, x: &[f32]) -> Vec<f32> {
        let mut out = vec![0f32; x.len()];
        norm(self.isa, x, &self.layers[layer].attn_norm, self.config.epsilon as f32, &mut out);
        out
    }

    /// The input of [`Tap::Output`]: attention over independent texts of `lens` tokens, with a KV cache of type `kind`.
    /// `input` is the input of [`Tap::Attention`] for all of them, `qkv` the decoded query, key and value projections.
    ///
    /// # Errors
    /// None at present.
    pub fn mix(
        &self,
        layer: usize,
        lens: &[usize],
        input: &[f32],
        qkv: &[Dense],
        kind: KvType,
    ) -> Result<Vec<f32>> {
        let [q, k, v] = qkv else { panic!("queries, keys and values") };
        let (isa, config, l) = (self.isa, &self.config, &self.layers[layer]);
        let (mut q, mut k, v) = (q.apply(isa, input), k.apply(isa, input), v.apply(isa, input));
        let count: usize = lens.iter().sum();
        let head = config.head as usize;
        // A state of this one layer.
        let heads = |most| (0..config.kv_heads).map(|_| KvHead::new(kind, head, most)).collect();
        let sequences = lens.iter().map(|&n| Sequence { len: 0, heads: vec![heads(n)] }).collect();
        let longest = lens.iter().copied().max().unwrap_or(0);
        let mut state = State { sequences, capacity: longest, inputs: Inputs::default() };
        let tokens = vec![0; count];
        let mut rest = &tokens[..];
        let runs: Vec<Run> = lens
            .iter()
            .enumerate()
            .map(|(sequence, &n)| {
                let (tokens, after) = rest.split_at(n);
                rest = after;
                Run { sequence, tokens }
            })
            .collect();
        let rope = rope_table(self, &state, &runs);
        each(count, &mut q, |t, q| apply_rope(self, l.q_norm.as_deref(), &rope[t * head..][..head], q));
        each(count, &mut k, |t, k| apply_rope(self, l.k_norm.as_deref(), &rope[t * head..][..head], k));
        let mut mixed = vec![0f32; q.len()];
        attend(self, &mut state, &runs, 0, &q, &k, &v, &mut mixed);
        if let Some(weight) = &l.attn_sub_norm {
            norm_in_place(isa, &mut mixed, weight, config.epsilon as f32);
        }
        Ok(mixed)
    }

    /// The input of [`Tap::FeedForward`] for hidden states `[tokens, hidden]`: their RMS norm.
    pub fn feed_forward_input(&self, layer: usize, x: &[f32]) -> Vec<f32> {
        let mut out = vec![0f32; x.len()];
        norm(self.isa, x, &self.layers[layer].ffn_norm, self.config.epsilon as f32, &mut out);
        out
    }

    /// The input of [`Tap::Down`]: the activation of the gate projection times the up projection.
    pub fn gated(&self, layer: usize, input: &[f32], matrices: &[Dense]) -> Vec<f32> {
        let [gate, up] = matrices else { panic!("gate and up") };
        let isa = self.isa;
        let (mut out, up) = (gate.apply(isa, input), up.apply(isa, input));
        let inner = gate.rows;
        let times = if self.relu2 { float::relu2_times } else { float::silu_times };
        each(out.len() / inner, &mut out, |t, gate| times(isa, gate, &up[t * inner..][..inner]));
        if let Some(weight) = &self.layers[layer].ffn_sub_norm {
            norm_in_place(isa, &mut out, weight, self.config.epsilon as f32);
        }
        out
    }

    /// Adds a matrix's products with `input` to hidden states `[tokens, hidden]`.
    pub fn add(&self, x: &mut [f32], matrix: &Dense, input: &[f32]) {
        add(self.isa, x, &matrix.apply(self.isa, input), matrix.rows);
    }

    /// The input of the output matrix for hidden states after the last layer: their RMS norm.
    pub fn output_input(&self, x: &[f32]) -> Vec<f32> {
        let mut out = vec![0f32; x.len()];
        norm(self.isa, x, &self.output_norm, self.config.epsilon as f32, &mut out);
        out
    }
}
