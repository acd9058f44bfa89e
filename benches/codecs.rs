//! Weights per second of every codec on every instruction set of this processor.
//!
//!     cargo bench --bench codecs -- q8_0

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use formats::block::{Encode, TYPES};
use kernels::{Isa, codec_for};

/// Enough rows to leave the first cache, few enough to stay in the second.
const WEIGHTS: usize = 64 * 1024;

fn codecs(c: &mut Criterion) {
    let mut seed = 7u64;
    let mut next = || {
        seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (seed >> 40) as f32 / (1 << 24) as f32
    };
    // Sums of uniform numbers: near enough to the normal weights of a trained layer.
    let x: Vec<f32> = (0..WEIGHTS).map(|_| (0..6).map(|_| next() - 0.5).sum::<f32>() * 0.02).collect();
    let mut group = c.benchmark_group("codecs");
    group.throughput(Throughput::Elements(WEIGHTS as u64));
    for info in TYPES {
        for isa in Isa::available() {
            let Some(codec) = codec_for(info.dtype, isa) else { continue };
            let mut bytes = vec![0; info.dtype.bytes_for(WEIGHTS as u64).expect("whole blocks") as usize];
            let mut out = vec![0f32; WEIGHTS];
            let name = |what: &str| format!("{what} {} {}", info.name, isa.name());
            group.bench_function(name("encode"), |b| {
                b.iter(|| codec.encode(&x, &Encode::default(), &mut bytes))
            });
            group.bench_function(name("decode"), |b| b.iter(|| codec.decode(&bytes, &mut out)));
        }
    }
    group.finish();
}

criterion_group!(benches, codecs);
criterion_main!(benches);
