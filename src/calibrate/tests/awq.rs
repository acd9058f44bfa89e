use std::path::PathBuf;

use formats::block::{DType, Encode, TYPES};

use super::*;
use crate::arch::Config;
use crate::calibrate::Chunks;
use crate::calibrate::awq;
use crate::calibrate::sequential::{ColumnScales, Method, Sequential};
use crate::outcome::Outcome;
use crate::pipeline;
use crate::plan::{self, PlanOptions};
use crate::resources::Limits;
use crate::runner::layerwise::Tap;
use crate::runner::{KvType, Network, Options, Run, State, forward};
use crate::scheme;

const EXACT: Options = Options { exact: true, isa: None };

fn logits(source: &Source, tokens: &[u32]) -> Vec<f32> {
    let network = Network::new(source, EXACT).unwrap();
    let mut state = State::new(&network, KvType::F32, 1, tokens.len()).unwrap();
    let all: Vec<usize> = (0..tokens.len()).collect();
    forward(&network, &mut state, &[Run { sequence: 0, tokens }], &all).unwrap()
}

fn vocab(source: &Source) -> usize {
    source.model.tensors.iter().find(|t| t.name == "token_embd.weight").unwrap().rows() as usize
}

/// Makes a file of a scheme that way; what became of its tensors, by name.
fn make(source: &Source, out: &str, name: &str, method: Method) -> (Source, Vec<(String, Outcome)>) {
    let folder = tempfile::tempdir().unwrap();
    let path: PathBuf = folder.path().join(out);
    let options = PlanOptions {
        out: path.clone(),
        scheme: Some(scheme::find(name).unwrap()),
        force: true,
        ..PlanOptions::default()
    };
    let plan = plan::plan(source, &options).unwrap();
    let tokens = chunks(6, 48, vocab(source), 11);
    let chunks = Chunks { tokens, ..Chunks::default() };
    let layer_by_layer = Sequential { method, chunks, state: None };
    let outcomes = pipeline::write(source, &plan, Some(&layer_by_layer), Limits::default(), &()).unwrap();
    let names = plan.layout.tensors.iter().map(|t| t.name.clone());
    let outcomes = names.zip(outcomes).collect();
    // Mapped: it outlives its name.
    (crate::open(&path, &crate::Options::default()).unwrap(), outcomes)
}

fn tensor(source: &Source, name: &str) -> Vec<f32> {
    let i = source.model.tensors.iter().position(|t| t.name == name).unwrap();
    let n = source.model.tensors[i].elements();
    let mut out = vec![0f32; n as usize];
    source.fetch(i, 0..n).unwrap().decode(name, source.model.order, &mut out).unwrap();
    out
}

fn has(source: &Source, name: &str) -> bool {
    source.model.tensors.iter().any(|t| t.name == name)
}

/// Root of the sum of squares.
fn norm(x: &[f32]) -> f64 {
    x.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt()
}

fn folds_everywhere(source: &Source) {
    let name = source.path.display().to_string();
    let tokens = &chunks(1, 24, vocab(source), 12)[0];
    let before = logits(source, tokens);
    let method = Method { feedback: false, column_scales: ColumnScales::Random(5), ..Method::default() };
    let (made, _) = make(source, "f32.gguf", "f32", method);
    let far = distance(&logits(&made, tokens), &before);
    assert!(far < 1e-4, "{name}: {far}");
    // Something has been moved, and only where nothing stands between.
    let network = Network::new(source, EXACT).unwrap();
    for layer in 0..network.depth() {
        for tap in Tap::ALL {
            let tensors = match tap {
                Tap::Attention => ["attn_norm.weight", "attn_k.weight"],
                Tap::Output => ["attn_v.weight", "attn_output.weight"],
                Tap::FeedForward => ["ffn_norm.weight", "ffn_gate.weight"],
                Tap::Down => ["ffn_up.weight", "ffn_down.weight"],
            };
            // Of rows that were multiplied by columns' scales too, what is left of them is their size.
            let moved = !network.has_sub_norm(layer, tap);
            let consumer = format!("blk.{layer}.{}", tensors[1]);
            let (x, y) = (tensor(source, &consumer), tensor(&made, &consumer));
            assert_eq!(moved, x != y, "{name} {consumer}");
            let producer = format!("blk.{layer}.{}", tensors[0]);
            assert!(tensor(source, &producer) != tensor(&made, &producer), "{name} {producer}");
        }
        for bias in ["attn_q.bias", "attn_k.bias"] {
            let bias = format!("blk.{layer}.{bias}");
            assert!(!has(source, &bias) || tensor(source, &bias) == tensor(&made, &bias), "{name} {bias}");
        }
        let bias = format!("blk.{layer}.attn_v.bias");
        if has(source, &bias) && norm(&tensor(source, &bias)) > 0.0 {
            assert!(tensor(source, &bias) != tensor(&made, &bias), "{name} {bias}");
        }
    }
    for same in ["token_embd.weight", "output_norm.weight"] {
        assert!(tensor(source, same) == tensor(&made, same), "{name} {same}");
    }
}

#[test]
fn a_model_computes_the_same_wherever_its_scales_are() {
    folds_everywhere(&demo("model"));
    folds_everywhere(&demo("tiny.bin"));
}

#[test]
#[ignore = "needs published files (see CONTRIBUTING.md)"]
fn published_checkpoints_compute_the_same_wherever_their_scales_are() {
    for source in published() {
        folds_everywhere(&source);
    }
}

/// Where matrices are of blocks, scales that suit nobody cost what blocks that span them cost, and nothing else.
#[test]
fn quantized_models_bear_any_scales() {
    let source = demo("model");
    let tokens = &chunks(1, 12, 1024, 13)[0];
    let before = logits(&source, tokens);
    for name in ["q8_0", "q6_k", "bf16"] {
        let run = |column_scales| {
            let method = Method { feedback: false, column_scales, ..Method::default() };
            distance(&logits(&make(&source, "x.gguf", name, method).0, tokens), &before)
        };
        let (plain, folded) = (run(ColumnScales::None), run(ColumnScales::Random(3)));
        assert!(folded < 6.0 * plain + 4e-3, "{name}: {plain} {folded}");
    }
}

#[test]
fn rows_are_divided_exactly_or_not_at_all() {
    let mut random = Random::new(14);
    let mut inexact = 0;
    for info in TYPES.iter().filter(|t| awq::is_scalable(t.dtype) && kernels::codec(t.dtype).is_some()) {
        let codec = kernels::codec(info.dtype).unwrap();
        // Such as a model has; such as come near the ends of what halves can say.
        for size in [0.02, 1e-4, 3e3] {
            let x: Vec<f32> = numbers(&mut random, 768).iter().map(|x| size * x).collect();
            let mut bytes = vec![0; info.dtype.bytes_for(768).unwrap() as usize];
            let importance = vec![1f32; 768];
            codec.encode(&x, &Encode { importance: Some(&importance), ..Encode::default() }, &mut bytes);
            let mut before = vec![0f32; 768];
            codec.decode(&bytes, &mut before);
            for by in [1.0 / 256.0, 0.25, 1.0, 2.0, 4.0, 256.0] {
                let mut row = bytes.clone();
                awq::divide(info.dtype, &mut row, by);
                let (mut after, wanted): (_, Vec<f32>) =
                    (vec![0f32; 768], before.iter().map(|x| x / by).collect());
                codec.decode(&row, &mut after);
                let exact = awq::divides_exactly(info.dtype, &bytes, by);
                assert!(!exact || after == wanted, "{} {size} {by}", info.name);
                assert!(exact || by != 1.0, "{} {size}", info.name);
                inexact += usize::from(!exact);
            }
        }
    }
    assert!(inexact > 10);
}

#[test]
fn scales_keep_within_what_rows_can_bear() {
    let source = demo("model");
    let config = Config::from_gguf(&source.model.metadata, 1024, true, None).unwrap();
    let head = config.head as usize;
    for tap in [Tap::Output, Tap::Down] {
        let width = if tap == Tap::Down { 768 } else { 256 };
        let s = awq::random(&config, tap, width, 4);
        let mut all = s.clone();
        awq::limit_scales(&config, tap, &mut all, |_, _| true);
        assert_eq!(all, s);
        awq::limit_scales(&config, tap, &mut all, |c, by| c % 2 == 0 || by <= 1.0);
        for (i, (new, old)) in all.iter().zip(&s).enumerate() {
            let wanted = if (i % head).is_multiple_of(2) { *old } else { old.min(1.0) };
            assert_eq!(*new, wanted, "{tap:?} {i}");
        }
        awq::limit_scales(&config, tap, &mut all, |_, _| false);
        assert!(all.iter().all(|s| *s == 1.0));
    }
}

#[test]
fn types_without_halves_are_left_alone() {
    for (dtype, scalable) in [
        (DType::Q4_0, true),
        (DType::Q6_K, true),
        (DType::IQ2_XS, true),
        (DType::F32, true),
        (DType::BF16, true),
        (DType::F16, true),
        (DType::TQ2_0, false),
        (DType::TQ1_0, false),
        (DType::MXFP4, false),
        (DType::NVFP4, false),
    ] {
        assert_eq!(awq::is_scalable(dtype), scalable, "{dtype:?}");
    }
}

#[test]
fn heads_that_share_values_share_scales() {
    for name in ["model", "tiny.bin"] {
        let source = demo(name);
        let config = Config::from_gguf(&source.model.metadata, vocab(&source) as u64, true, None).unwrap();
        let (head, heads, kv) = (config.head as usize, config.heads as usize, config.kv_heads as usize);
        assert!(heads > kv, "{name}");
        let s = awq::random(&config, Tap::Output, head * heads, 3);
        let rows = awq::producer_scales(&config, Tap::Output, &s);
        assert_eq!(rows.len(), head * kv);
        for (i, s) in s.iter().enumerate() {
            let (query, channel) = (i / head, i % head);
            assert_eq!(*s, rows[query / (heads / kv) * head + channel]);
            assert!(s.log2().fract() == 0.0 && (0.25..=4.0).contains(s));
        }
        let s = awq::random(&config, Tap::Attention, 64, 3);
        assert_eq!(awq::producer_scales(&config, Tap::Attention, &s), s);
        assert!(s.iter().all(|s| (0.25..=4.0).contains(s)) && s.iter().any(|s| s.log2().fract() != 0.0));
    }
}
