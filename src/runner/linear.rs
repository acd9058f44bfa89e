//! Matrices as they are stored, and their products with the activations of one or many tokens.

use std::borrow::Cow;
use std::cell::RefCell;

use formats::block::DType;

use crate::source::view::RowOrder;
use kernels::activations::{Activations, Form};
use kernels::tile::float::Floats;
use kernels::tile::{Panel, ROWS, TileKernel};
use kernels::{self, Codec, Isa, dot, parallel, tile};

/// A matrix `[rows, cols]`, whose rows are multiplied with vectors of `cols` activations.
pub struct Matrix<'a> {
    /// The tensor's name.
    pub name: String,
    /// Rows.
    pub rows: usize,
    /// Columns.
    pub cols: usize,
    /// The type of the packed weights.
    pub dtype: DType,
    /// A factor of all weights, and so of the products.
    scale: f32,
    bytes: Cow<'a, [u8]>,
    order: RowOrder,
    row_bytes: usize,
    codec: Box<dyn Codec>,
    form: Form,
    /// The code of the type that stands for zero.
    offset: i32,
    product: Product,
    isa: Isa,
}

/// How rows are multiplied.
enum Product {
    /// Weights and activations as integers.
    Integer { dot: dot::DotKernel, kernel: TileKernel },
    /// As floats, straight from stored floats.
    Float(dot::FloatDotKernel),
    /// As floats, after decoding.
    Decoded,
}

/// How activations are represented for a product.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Precision {
    /// As floats.
    Exact,
    /// As 8-bit codes with a scale for each block, where weights are packed; otherwise as floats.
    Blocks,
    /// As 8-bit codes with one scale for each token, whatever the weights are.
    Token,
}

impl<'a> Matrix<'a> {
    /// A matrix of `rows` rows of little-endian blocks. Row r is the stored row `order.source(r)`.
    ///
    /// # Panics
    /// If the type cannot be decoded, or the bytes are not those of `rows` rows.
    pub fn new(
        name: String,
        dtype: DType,
        bytes: Cow<'a, [u8]>,
        order: RowOrder,
        (rows, cols): (usize, usize),
        precision: Precision,
        isa: Isa,
    ) -> Self {
        let row_bytes = dtype.bytes_for(cols as u64).expect("whole blocks") as usize;
        assert_eq!(bytes.len(), rows * row_bytes, "{name}");
        let integer = tile::integer(dtype, isa).zip(dot::integer(dtype, isa)).zip(kernels::integer(dtype));
        let (form, offset, product) = match (precision, integer) {
            (Precision::Blocks, Some(((kernel, dot), (group, offset)))) => {
                (Form::Groups(group), offset, Product::Integer { dot, kernel })
            }
            (Precision::Token, Some(((kernel, dot), (group, offset)))) => {
                (Form::Token(group), offset, Product::Integer { dot, kernel })
            }
            (precision, _) => {
                let form = if precision == Precision::Token { Form::TokenFloat } else { Form::Float };
                (form, 0, dot::float(dtype, isa).map_or(Product::Decoded, Product::Float))
            }
        };
        let codec = kernels::codec_for(dtype, isa).expect("the type can be decoded");
        let scale = 1.0;
        Self { name, rows, cols, dtype, scale, bytes, order, row_bytes, codec, form, offset, product, isa }
    }

    /// The matrix with all weights multiplied by a number.
    pub fn times(mut self, scale: f32) -> Self {
        self.scale *= scale;
        self
    }

    /// The packed bytes of a row.
    pub fn row(&self, row: usize) -> &[u8] {
        let row = self.order.source(row as u64) as usize;
        &self.bytes[row * self.row_bytes..][..self.row_bytes]
    }

    /// Decodes a row into `out`, `[cols]`.
    pub fn decode(&self, row: usize, out: &mut [f32]) {
        self.codec.decode(self.row(row), out);
        if self.scale != 1.0 {
            out.iter_mut().for_each(|x| *x *= self.scale);
        }
    }

    /// The bytes of all rows, as they are stored.
    pub fn stored(&self) -> &[u8] {
        &self.bytes
    }

    /// The number of bytes of all rows.
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// The number of bytes in the memory of this process, rather than in a mapped file.
    pub fn owned(&self) -> usize {
        if let Cow::Owned(b) = &self.bytes { b.len() } else { 0 }
    }
}

/// Activations in the forms that matrices need; kept from one product to the next to reuse their memory.
#[derive(Default)]
pub struct Inputs(Vec<((Form, i32), Activations)>);

/// Fewer tokens than this are multiplied one by one, without unpacking panels.
const FEW: usize = 5;
/// Work (weights × tokens) below which one thread is faster than several.
const SMALL: usize = 1 << 17;
/// Bytes of weights of a task where rows are multiplied one by one.
const BAND: usize = 128 << 10;
/// Rows of a task where they are multiplied in panels.
const BLOCK: usize = 4 * ROWS;

/// A task: some rows of a matrix, and the output for each token.
struct Task<'a, 'm> {
    matrix: &'a Matrix<'m>,
    input: usize,
    first: usize,
    out: Vec<&'a mut [f32]>,
}

/// Multiplies matrices with the same activations `x`, `[tokens, cols]`; each output is `[tokens, rows]`.
///
/// # Panics
/// If the matrices differ in their number of columns, or an output has another size.
pub fn multiply(inputs: &mut Inputs, x: &[f32], jobs: Vec<(&Matrix, &mut [f32])>) {
    let Some(cols) = jobs.first().map(|(m, _)| m.cols) else { return };
    let tokens = x.len() / cols;
    if tokens == 0 {
        return;
    }
    let mut made = Vec::new();
    let work: usize = jobs.iter().map(|(m, _)| m.rows * cols * tokens).sum();
    let mut tasks = Vec::new();
    for (matrix, out) in jobs {
        assert!(matrix.cols == cols && out.len() == tokens * matrix.rows, "{}", matrix.name);
        let key = (matrix.form, matrix.offset);
        let input = inputs.0.iter().position(|(k, _)| *k == key).unwrap_or_else(|| {
            inputs.0.push((key, Activations::default()));
            inputs.0.len() - 1
        });
        if !made.contains(&input) {
            inputs.0[input].1.set(matrix.isa, matrix.form, matrix.offset, x, cols);
            made.push(input);
        }
        let rows = if tokens < FEW { (BAND / matrix.row_bytes.max(1)).clamp(1, 1024) } else { BLOCK };
        let outputs = tile::tasks(out, matrix.rows, rows).into_iter().enumerate();
        tasks.extend(outputs.map(|(i, out)| Task { matrix, input, first: i * rows, out }));
    }
    let inputs = &inputs.0;
    let run = |task: Task| {
        let x = &inputs[task.input].1;
        if tokens < FEW { one_by_one(task, x) } else { in_panels(task, x) }
    };
    if work < SMALL {
        tasks.into_iter().for_each(run);
    } else {
        parallel::items(tasks, &|_, task| run(task));
    }
}

/// A thread's memory for unpacking.
#[derive(Default)]
struct Scratch {
    row: Vec<f32>,
    rows: Vec<f32>,
    panels: Vec<Panel>,
    floats: Vec<Floats>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

fn one_by_one(task: Task, x: &Activations) {
    let matrix = task.matrix;
    SCRATCH.with_borrow_mut(|scratch| {
        for (t, out) in task.out.into_iter().enumerate() {
            for (r, out) in out.iter_mut().enumerate() {
                let row = matrix.row(task.first + r);
                let product = match &matrix.product {
                    Product::Integer { dot, .. } => dot.row(row, x, t),
                    Product::Float(dot) => dot.row(row, &x.floats()[t * x.cols()..][..x.cols()]),
                    Product::Decoded => {
                        let x = &x.floats()[t * x.cols()..][..x.cols()];
                        dot::decoded(matrix.isa, &*matrix.codec, row, &mut scratch.row, x)
                    }
                };
                *out = product * matrix.scale;
            }
        }
    });
}

fn in_panels(mut task: Task, x: &Activations) {
    let matrix = task.matrix;
    let rows = task.out[0].len();
    let panels = rows.div_ceil(ROWS);
    let rows_of = |p: usize| task.first + p * ROWS..task.first + rows.min((p + 1) * ROWS);
    SCRATCH.with_borrow_mut(|scratch| {
        if let Product::Integer { kernel, .. } = &matrix.product {
            scratch.panels.resize_with(panels.max(scratch.panels.len()), Panel::default);
            for p in 0..panels {
                let rows: Vec<&[u8]> = rows_of(p).map(|r| matrix.row(r)).collect();
                kernel.unpack(&rows, &mut scratch.panels[p]);
            }
        } else {
            scratch.floats.resize_with(panels.max(scratch.floats.len()), Floats::default);
            for p in 0..panels {
                scratch.rows.resize(ROWS * matrix.cols, 0.0);
                let n = rows_of(p).len();
                for (r, out) in rows_of(p).zip(scratch.rows.chunks_exact_mut(matrix.cols)) {
                    // Without the matrix' scale: products are multiplied by it, as where rows are multiplied one by
                    // one.
                    matrix.codec.decode(matrix.row(r), out);
                }
                let rows = scratch.rows.chunks_exact(matrix.cols).take(n);
                scratch.floats[p].fill(matrix.isa, matrix.cols, rows);
            }
        }
        match &matrix.product {
            Product::Integer { kernel, .. } => {
                kernel.multiply_all(&scratch.panels[..panels], x, matrix.scale, &mut task.out);
            }
            _ => {
                let (x, cols, panels) = (x.floats(), x.cols(), &scratch.floats[..panels]);
                tile::float::multiply_all(matrix.isa, panels, x, cols, matrix.scale, &mut task.out);
            }
        }
    });
}
