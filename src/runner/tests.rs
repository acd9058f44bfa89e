use std::path::Path;

use formats::block::{DType, Encode, Info, TYPES};
use formats::model::Tensor;

use super::linear::{Inputs, Matrix, Precision, multiply};
use super::*;
use crate::arch::Config;
use crate::source::Source;
use crate::source::view::RowOrder;
use kernels::Isa;

fn demo() -> Source {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("demo/model");
    crate::open(&path, &crate::Options::default()).unwrap()
}

fn logits(source: &Source, options: Options, kv: KvType, parts: &[&[u32]]) -> Vec<f32> {
    let network = Network::new(source, options).unwrap();
    let mut state = State::new(&network, kv, 1, 64).unwrap();
    let mut all = Vec::new();
    for tokens in parts {
        let wanted: Vec<usize> = (0..tokens.len()).collect();
        all.extend(forward(&network, &mut state, &[Run { sequence: 0, tokens }], &wanted).unwrap());
    }
    all
}

/// Root mean square of the difference over that of the second.
fn distance(a: &[f32], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len());
    let error: f64 = a.iter().zip(b).map(|(a, b)| (f64::from(*a) - b).powi(2)).sum();
    (error / b.iter().map(|b| b * b).sum::<f64>()).sqrt()
}

const TOKENS: [u32; 12] = [1, 40, 400, 77, 1000, 3, 512, 513, 90, 91, 640, 2];

/// The bundled model written out a second time: in f64, token by token, nothing shared with the runner.
fn plainly(source: &Source, tokens: &[u32]) -> Vec<f64> {
    let config = Config::from_gguf(&source.model.metadata, 1024, true, None).unwrap();
    let (hidden, dim) = (config.hidden as usize, config.head as usize);
    let (heads, kv) = (config.heads as usize, config.kv_heads as usize);
    let tensor = |name: &str| -> Vec<f64> {
        let i = source.model.tensors.iter().position(|t: &Tensor| t.name == name);
        let i = i.unwrap_or_else(|| panic!("{name}"));
        let n = source.model.tensors[i].elements();
        let mut out = vec![0f32; n as usize];
        source.fetch(i, 0..n).unwrap().decode(name, source.model.order, &mut out).unwrap();
        out.into_iter().map(f64::from).collect()
    };
    let times = |w: &[f64], x: &[f64]| -> Vec<f64> {
        w.chunks(x.len()).map(|w| w.iter().zip(x).map(|(w, x)| w * x).sum()).collect()
    };
    let norm = |x: &[f64], w: &[f64]| -> Vec<f64> {
        let mean = x.iter().map(|x| x * x).sum::<f64>() / x.len() as f64;
        x.iter().zip(w).map(|(x, w)| x / (mean + config.epsilon).sqrt() * w).collect()
    };
    let turn = |x: &mut [f64], position: usize| {
        for head in x.chunks_mut(dim) {
            for i in 0..dim / 2 {
                let angle = position as f64 * config.theta.powf(-(2.0 * i as f64) / dim as f64);
                let (a, b) = (head[2 * i], head[2 * i + 1]);
                head[2 * i] = a * angle.cos() - b * angle.sin();
                head[2 * i + 1] = a * angle.sin() + b * angle.cos();
            }
        }
    };
    let embedding = tensor("token_embd.weight");
    let output = if source.model.tensors.iter().any(|t| t.name == "output.weight") {
        tensor("output.weight")
    } else {
        embedding.clone()
    };
    let mut xs: Vec<Vec<f64>> =
        tokens.iter().map(|&t| embedding[t as usize * hidden..][..hidden].to_vec()).collect();
    for l in 0..config.layers {
        let w = |part: &str| tensor(&format!("blk.{l}.{part}.weight"));
        let times = |part: &str, x: &[f64]| -> Vec<f64> {
            let scale = format!("blk.{l}.{part}.scale");
            let scaled = source.model.tensors.iter().any(|t| t.name == scale);
            let scale = if scaled { tensor(&scale)[0] } else { 1.0 };
            times(&w(part), x).into_iter().map(|x| x * scale).collect()
        };
        let (mut ks, mut vs) = (Vec::new(), Vec::new());
        for (t, x) in xs.iter_mut().enumerate() {
            let n = norm(x, &w("attn_norm"));
            let (mut q, mut k) = (times("attn_q", &n), times("attn_k", &n));
            turn(&mut q, t);
            turn(&mut k, t);
            ks.push(k);
            vs.push(times("attn_v", &n));
            let mut mixed = Vec::new();
            for h in 0..heads {
                let g = h / (heads / kv) * dim;
                let q = &q[h * dim..][..dim];
                let score = |k: &Vec<f64>| {
                    let dot: f64 = q.iter().zip(&k[g..]).map(|(q, k)| q * k).sum();
                    (dot / (dim as f64).sqrt()).exp()
                };
                let e: Vec<f64> = ks.iter().map(score).collect();
                let sum: f64 = e.iter().sum();
                mixed.extend(
                    (0..dim).map(|d| e.iter().zip(&vs).map(|(e, v)| e / sum * v[g + d]).sum::<f64>()),
                );
            }
            x.iter_mut().zip(times("attn_output", &mixed)).for_each(|(x, y)| *x += y);
            let n = norm(x, &w("ffn_norm"));
            let gate = times("ffn_gate", &n).into_iter().zip(times("ffn_up", &n));
            let gate: Vec<f64> = gate.map(|(g, u)| g / (1.0 + (-g).exp()) * u).collect();
            x.iter_mut().zip(times("ffn_down", &gate)).for_each(|(x, y)| *x += y);
        }
    }
    let last = tensor("output_norm.weight");
    xs.iter().flat_map(|x| times(&output, &norm(x, &last))).collect()
}

#[test]
fn logits_are_those_of_the_definition() {
    let source = demo();
    let truth = plainly(&source, &TOKENS);
    let exact = Options { exact: true, isa: None };
    let all = logits(&source, exact, KvType::F32, &[&TOKENS]);
    assert!(distance(&all, &truth) < 1e-5, "{}", distance(&all, &truth));
    let parts = logits(&source, exact, KvType::F32, &[&TOKENS[..1], &TOKENS[1..8], &TOKENS[8..]]);
    assert!(distance(&parts, &truth) < 1e-5);
    for (kv, near) in [(KvType::F16, 1e-2), (KvType::Q8_0, 5e-2)] {
        let found = logits(&source, exact, kv, &[&TOKENS]);
        assert!(distance(&found, &truth) < near, "{kv:?} {}", distance(&found, &truth));
    }
}

/// NVFP4 has a scale of a whole tensor beside it; any tensor may.
#[test]
fn tensors_with_scales_of_their_own() {
    let mut source = demo();
    let plain = plainly(&source, &TOKENS);
    for (i, part) in ["attn_q", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"].iter().enumerate()
    {
        // Any number of the file will do.
        let norm = source.model.tensors.iter().find(|t| t.name == "blk.2.ffn_norm.weight").unwrap();
        let mut scale = norm.clone();
        (scale.name, scale.shape) = (format!("blk.1.{part}.scale"), vec![1]);
        scale.location.len = norm.location.len / norm.elements();
        scale.location.offset += i as u64 * scale.location.len;
        let mut input = scale.clone();
        input.name = format!("blk.1.{part}.input_scale");
        source.model.tensors.extend([scale, input]);
    }
    let truth = plainly(&source, &TOKENS);
    assert!(truth.iter().zip(&plain).any(|(x, y)| (x - y).abs() > 0.1), "the scales change something");
    let found = logits(&source, Options { exact: true, isa: None }, KvType::F32, &[&TOKENS]);
    assert!(distance(&found, &truth) < 1e-5, "{}", distance(&found, &truth));
}

/// One by one and in panels, with integers and with floats.
#[test]
fn matrices_of_every_type() {
    let (rows, cols) = (20, 512);
    let mut seed = 1u32;
    let mut next = || {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (seed >> 8) as f32 / (1 << 23) as f32 - 1.0
    };
    let weights: Vec<f32> = (0..rows * cols).map(|_| next() * 0.1).collect();
    let x: Vec<f32> = (0..7 * cols).map(|_| next()).collect();
    let small = |t: &&Info| t.weights > 1 || matches!(t.dtype, DType::F32 | DType::F16 | DType::BF16);
    for info in TYPES.iter().filter(small) {
        let Some(codec) = kernels::codec(info.dtype) else { continue };
        let mut bytes = vec![0; info.dtype.bytes_for((rows * cols) as u64).unwrap() as usize];
        codec.encode(&weights, &Encode::default(), &mut bytes);
        let mut stored = vec![0f32; rows * cols];
        codec.decode(&bytes, &mut stored);
        for (precision, near) in
            [(Precision::Exact, 1e-5), (Precision::Blocks, 0.02), (Precision::Token, 0.03)]
        {
            let name = info.name.to_string();
            let bytes = (&bytes[..]).into();
            let matrix =
                Matrix::new(name, info.dtype, bytes, RowOrder::Same, (rows, cols), precision, Isa::current());
            for tokens in [1, 7] {
                let x = &x[..tokens * cols];
                let mut out = vec![0f32; tokens * rows];
                multiply(&mut Inputs::default(), x, vec![(&matrix, &mut out[..])]);
                let truth: Vec<f64> = x
                    .chunks(cols)
                    .flat_map(|x| stored.chunks(cols).map(move |w| (w, x)))
                    .map(|(w, x)| w.iter().zip(x).map(|(w, x)| f64::from(*w) * f64::from(*x)).sum())
                    .collect();
                let far = distance(&out, &truth);
                assert!(far < near, "{} {precision:?} {tokens}: {far}", info.name);
            }
        }
    }
}

#[test]
fn sequences_do_not_see_each_other() {
    let source = demo();
    let network = Network::new(&source, Options::default()).unwrap();
    let mut state = State::new(&network, KvType::F16, 2, 32).unwrap();
    let runs = [Run { sequence: 1, tokens: &TOKENS[..7] }, Run { sequence: 0, tokens: &TOKENS[3..] }];
    let both = forward(&network, &mut state, &runs, &[6, 15]).unwrap();
    assert_eq!((state.len(0), state.len(1)), (9, 7));
    for (run, both) in runs.iter().zip(both.chunks(network.vocab())) {
        let mut state = State::new(&network, KvType::F16, 1, 32).unwrap();
        let last = run.tokens.len() - 1;
        let alone =
            forward(&network, &mut state, &[Run { sequence: 0, tokens: run.tokens }], &[last]).unwrap();
        assert_eq!(alone, both);
    }
}

#[test]
fn every_set_and_any_number_of_threads_give_the_same_bits() {
    let source = demo();
    let run = |isa, exact| logits(&source, Options { exact, isa: Some(isa) }, KvType::F16, &[&TOKENS, &[5]]);
    for exact in [false, true] {
        let truth = run(Isa::PORTABLE, exact);
        for isa in Isa::available() {
            for threads in [1, 3] {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                assert!(truth == pool.install(|| run(isa, exact)), "{} {threads}", isa.name());
            }
        }
    }
}

#[test]
fn what_cannot_be_computed_is_said() {
    let source = demo();
    let network = Network::new(&source, Options::default()).unwrap();
    let mut state = State::new(&network, KvType::F16, 1, 4).unwrap();
    let mut run = |tokens: &[u32]| forward(&network, &mut state, &[Run { sequence: 0, tokens }], &[0]);
    assert!(run(&[1024]).unwrap_err().to_string().contains("out of range: the vocabulary has"));
    assert!(run(&[1; 5]).unwrap_err().to_string().contains("do not fit into a context of 4"));
    assert!(run(&[1; 4]).is_ok());
    assert!(run(&[1]).is_err());
    state.truncate(0, 2);
    assert!(!state.is_empty(0));
    assert!(forward(&network, &mut state, &[Run { sequence: 0, tokens: &[1] }], &[]).unwrap().is_empty());

    let mut broken = demo();
    broken.model.tensors.retain(|t| t.name != "blk.2.ffn_up.weight");
    broken.views.clear();
    let error = Network::new(&broken, Options::default()).err().unwrap().to_string();
    assert!(error.contains("tensor blk.2.ffn_up.weight is missing"), "{error}");
}
