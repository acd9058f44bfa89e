//! Products of packed weights: rows times a vector (generating), panels times sixteen tokens (prompts), unpacking.
//!
//! `cargo bench --bench products`, with `GGUFKIT_ISA` for another set than the widest. Throughput is in weights, or
//! weights times tokens.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use formats::block::DType;
use kernels::activations::{Activations, Form, TOKENS};
use kernels::gemm::{Part, View, gemm};
use kernels::tile::{Panel, ROWS};
use kernels::{Isa, dot, integer, tile};

const COLS: usize = 4096;

fn products(c: &mut Criterion) {
    let isa = Isa::current();
    for dtype in formats::block::TYPES.iter().map(|t| t.dtype) {
        let Some((group, offset)) = integer(dtype) else { continue };
        let (rows, x) = data(dtype);
        let mut a = Activations::default();
        a.set(isa, Form::Groups(group), offset, &x, COLS);
        let rows: Vec<&[u8]> = rows.iter().map(|r| &r[..]).collect();
        let mut g = c.benchmark_group(dtype.name());
        g.sample_size(20).measurement_time(std::time::Duration::from_secs(1));
        let dot = dot::integer(dtype, isa).unwrap();
        g.throughput(Throughput::Elements((ROWS * COLS) as u64));
        g.bench_function("row", |b| {
            b.iter(|| rows.iter().map(|r| dot.row(black_box(r), &a, 0)).sum::<f32>())
        });
        let kernel = tile::integer(dtype, isa).unwrap();
        let mut panel = Panel::default();
        g.bench_function("unpack", |b| b.iter(|| kernel.unpack(black_box(&rows), &mut panel)));
        let mut out = [[0f32; ROWS]; TOKENS];
        g.throughput(Throughput::Elements((ROWS * COLS * TOKENS) as u64));
        g.bench_function("panel", |b| b.iter(|| kernel.multiply(black_box(&panel), &a, 0, &mut out)));
    }
}

/// Sixteen rows of a type, and sixteen tokens.
fn data(dtype: DType) -> (Vec<Vec<u8>>, Vec<f32>) {
    let mut seed = 1u64;
    let mut next = || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (seed >> 40) as f32 / (1 << 23) as f32 - 1.0
    };
    let codec = ggufkit::kernels::codec(dtype).unwrap();
    let rows = (0..ROWS).map(|_| {
        let w: Vec<f32> = (0..COLS).map(|_| next()).collect();
        let mut row = vec![0; dtype.bytes_for(COLS as u64).unwrap() as usize];
        codec.encode(&w, &formats::block::Encode::default(), &mut row);
        row
    });
    let rows = rows.collect();
    (rows, (0..TOKENS * COLS).map(|_| next()).collect())
}

/// A matrix of floats times a matrix of floats, on all cores.
fn floats(c: &mut Criterion) {
    let (m, n, k) = (1024, 1024, 2048);
    let a: Vec<f32> = (0..m * k).map(|i| (i % 251) as f32 - 125.0).collect();
    let b: Vec<f32> = (0..n * k).map(|i| (i % 241) as f32 - 120.0).collect();
    let mut out = vec![0f32; m * n];
    let mut g = c.benchmark_group("floats");
    g.sample_size(10).throughput(Throughput::Elements((m * n * k) as u64));
    g.bench_function("gemm", |bench| {
        bench.iter(|| {
            let (a, b) = (View::rows(&a, k), View::rows(black_box(&b), k).transposed());
            gemm(Isa::current(), Part::Whole, (m, n, k), 1.0, a, b, &mut out, n);
        });
    });
}

criterion_group!(benches, products, floats);
criterion_main!(benches);
