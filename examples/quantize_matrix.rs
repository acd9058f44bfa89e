//! Quantizes a matrix of floats to every four-bit type and prints what that costs: `cargo run --release --example
//! quantize_matrix`. Columns whose inputs are larger can be given a larger importance.

use ggufkit::formats::block::{DType, Encode};
use ggufkit::kernels::codec;

const ROWS: usize = 64;
const COLS: usize = 1024;

fn main() {
    // Sums of uniform numbers, nearly normally distributed, as trained weights are.
    let mut seed = 1u32;
    let mut uniform = || {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (seed >> 8) as f32 / (1 << 24) as f32 - 0.5
    };
    let weights: Vec<f32> = (0..ROWS * COLS).map(|_| (0..6).map(|_| uniform()).sum::<f32>() * 0.02).collect();
    let energy: f32 = weights.iter().map(|w| w * w).sum();

    println!("{:8} {:>7} {:>10}", "type", "bits", "rel. error");
    for dtype in [DType::Q4_0, DType::Q4_1, DType::Q4_K, DType::IQ4_NL, DType::IQ4_XS, DType::MXFP4] {
        let codec = codec(dtype).expect("these types can be encoded");
        let len = dtype.bytes_for(weights.len() as u64).expect("rows are whole blocks") as usize;
        let (mut bytes, mut decoded) = (vec![0u8; len], vec![0f32; weights.len()]);
        codec.encode(&weights, &Encode::default(), &mut bytes);
        codec.decode(&bytes, &mut decoded);
        let error: f32 = weights.iter().zip(&decoded).map(|(w, d)| (w - d) * (w - d)).sum();
        println!(
            "{:8} {:7.2} {:9.2} %",
            dtype.name(),
            dtype.bits_per_weight(),
            100.0 * (error / energy).sqrt()
        );
    }
}
