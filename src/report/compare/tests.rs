use super::*;
use crate::evaluate::comparison::{
    Candidate, MatrixCost, Reference, SensitivitySummary, Setting, TensorError,
};
use crate::score::bootstrap::Bootstrap;
use crate::score::histogram::kld_histogram;
use crate::score::{Pair, Scores, TokenScore, ratio_interval};

const ROLES: [&str; 7] = ["attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"];

/// Scores of a made-up candidate: KLD around `level`.
fn scores(chunks: usize, level: f64) -> Scores {
    let mut scores = Scores::new();
    for chunk in 0..chunks {
        scores.push_chunk((0..100).map(|i| {
            let wave = f64::from((i * 37 + chunk as u32 as i32 * 11) % 101) / 50.0;
            let kld = level * wave.powi(4) * (1.0 + 0.3 * f64::from(chunk as u32 % 3));
            let pair = Pair { nll: 1.0 + wave, kld, same_top: wave < 1.8, dp: level * (wave - 1.0) };
            TokenScore { nll: 1.0 + wave + level * 0.5 * wave, pair: Some(pair) }
        }));
    }
    scores
}

/// A comparison of `candidates` models of `layers` layers.
pub fn made_up(candidates: usize, layers: u32, chunks: usize) -> Comparison {
    let names = ["q8_0", "q6_k", "q5_1", "q5_0", "q4_1", "q4_0", "q3_k", "q2_k"];
    let bits = [8.51, 6.6, 6.19, 5.73, 5.27, 4.8, 3.9, 2.9];
    let levels = [0.0005, 0.002, 0.006, 0.0075, 0.02, 0.021, 0.09, 0.4];
    let first = scores(chunks, levels[0]);
    let models = (0..candidates).map(|i| {
        let n = i % names.len();
        let s = scores(chunks, levels[n]);
        let error = 0.9 * 2f64.powf(-bits[n]);
        let mut tensors: Vec<_> = [("token_embd", 1.0), ("output", 0.4), ("output_norm", 0.0)]
            .map(|(role, factor)| TensorError {
                name: format!("{role}.weight"),
                layer: None,
                role: role.into(),
                dtype: names[n].into(),
                bytes: 1 << 20,
                relative_error: error * factor,
            })
            .to_vec();
        for layer in 0..layers {
            for (r, role) in ROLES.iter().chain(&["attn_norm"]).enumerate() {
                let wave = 1.0 + 0.1 * f64::from((layer * 7 + r as u32 * 5) % 11) / 11.0;
                tensors.push(TensorError {
                    name: format!("blk.{layer}.{role}.weight"),
                    layer: Some(layer),
                    role: (*role).into(),
                    dtype: names[n].into(),
                    bytes: 1 << 20,
                    relative_error: if *role == "attn_norm" { 0.0 } else { error * wave },
                });
            }
        }
        Candidate {
            name: format!("TinyLlama-1.1B-{}{}", names[n], if i == 1 { "-<imatrix>&\"calm\"" } else { "" }),
            path: format!("/models/{}.gguf", names[n]).into(),
            bytes: (bits[n] * 137e6) as u64,
            bits_per_weight: bits[n],
            summary: s.summary().unwrap(),
            kld_interval: Bootstrap::default().kld(&s),
            ratio_to_first: (i > 0).then(|| ratio_interval(&s, &first)).flatten(),
            predicted_kld: None,
            tensors,
            histogram: kld_histogram(&s),
            prompt_tps: Some(100.0 / bits[n]),
            generate_tps: Some(80.0 / bits[n]),
        }
    });
    let reference = scores(chunks, 0.0);
    Comparison {
        text: "wiki.test.raw".into(),
        context: 200,
        chunks,
        tokens: 100 * chunks as u64,
        kv: "f16".into(),
        activations: "int8".into(),
        bootstrap: Bootstrap::default(),
        settings: vec![Setting { name: "threads".into(), value: "2".into() }],
        reference: Reference {
            name: "TinyLlama-1.1B-bf16".into(),
            path: Some("/models/bf16.gguf".into()),
            bytes: Some(2_200_000_000),
            bits_per_weight: Some(16.01),
            perplexity: reference.summary().unwrap().perplexity,
            prompt_tps: None,
            generate_tps: Some(3.21),
        },
        floor: scores(chunks, 1e-5).summary(),
        sensitivity: None,
        candidates: models.collect(),
    }
}

#[test]
fn tables_fit_a_terminal() {
    for (candidates, chunks) in [(0, 6), (1, 6), (3, 2), (8, 20)] {
        let mut c = made_up(candidates, 2, chunks);
        for long in [false, true] {
            if long {
                c.reference.name = "x".repeat(90);
            }
            let text = table(&c);
            for line in text.lines() {
                assert!(line.chars().count() <= 100, "{line}");
            }
            assert_eq!(text.contains("95 %"), chunks >= FEWEST && candidates > 0, "{text}");
            assert_eq!(text.contains("no confidence intervals"), chunks < FEWEST, "{text}");
            assert!(text.contains("(floor)") && text.contains("16.01"));
        }
    }
    c_without_anything();
}

/// Costs of matrices, and predictions that follow from them.
pub fn with_sensitivity(mut c: Comparison, layers: u32) -> Comparison {
    let cost = |layer, role: &str, kld| MatrixCost { layer, role: role.into(), kld };
    let mut matrices = vec![cost(None, "token_embd", 0.003), cost(None, "output", 0.0)];
    for layer in 0..layers {
        matrices.extend(ROLES.iter().map(|r| cost(Some(layer), r, 1e-4 * f64::from(1 + layer))));
    }
    c.sensitivity = Some(SensitivitySummary { origin: "measured".into(), probe: "q3_k".into(), matrices });
    c.candidates.iter_mut().for_each(|m| m.predicted_kld = m.kld().map(|k| k.mean.value * 0.9));
    c
}

fn c_without_anything() {
    let mut c = made_up(1, 1, 1);
    c.floor = None;
    c.candidates[0].summary.against = None;
    c.candidates[0].generate_tps = None;
    c.reference = Reference {
        bytes: None,
        bits_per_weight: None,
        generate_tps: None,
        perplexity: Estimate { value: 5.0, error: None },
        ..c.reference
    };
    let text = table(&c);
    assert!(text.contains("5.000") && !text.contains("tok/s") && !text.contains("floor"), "{text}");
}

#[test]
fn overlapping_intervals_are_pointed_out() {
    let mut c = made_up(6, 2, 20);
    let notes = c.notes();
    assert_eq!(notes.len(), 1, "{notes:?}");
    assert!(notes[0].contains("q4_1 and TinyLlama-1.1B-q4_0: the intervals overlap"), "{notes:?}");
    assert!(notes[0].contains("is uncertain"));
    // Beside the first, the paired ratio says more.
    c.candidates.drain(..4);
    let ratio = |low, high| Some(Ratio { value: 1.05, interval: Some(Interval { low, high }) });
    c.candidates[1].ratio_to_first = ratio(1.04, 1.06);
    assert!(
        c.notes()[0]
            .contains("but compared chunk by chunk, the second diverges 1.05 times (1.04–1.06) as much")
    );
    c.candidates[1].ratio_to_first = ratio(0.99, 1.06);
    assert!(c.notes()[0].contains("the difference is not significant"));
    c.floor = c.candidates.last().map(|m| m.summary.clone());
    assert!(c.notes().iter().any(|n| n.contains("not above the noise floor")));
}

#[test]
fn numbers_have_the_digits_that_mean_something() {
    let cases =
        [(0.0, "0"), (3.21e-5, "3.2e-5"), (0.0013649, "0.00136"), (0.0153, "0.0153"), (0.2223, "0.222")];
    for (x, text) in cases {
        assert_eq!(nats(x), text);
    }
    assert_eq!(
        (nats(-1.234), nats(12.34), nats(f64::INFINITY)),
        ("-1.23".into(), "12.3".into(), "inf".into())
    );
    assert_eq!(
        (percent(0.8877), percent(0.0256), percent(0.0)),
        ("88.8 %".into(), "2.56 %".into(), "0.0 %".into())
    );
    assert_eq!(with_error(&Estimate { value: 39.9076, error: Some(4.969) }), "39.91 ±4.97");
    assert_eq!(with_error(&Estimate { value: 5.97861, error: Some(0.0336) }), "5.979 ±0.034");
    assert_eq!(with_error(&Estimate { value: 1e9, error: Some(4e8) }), "1.0e9");
    assert_eq!(shorten("abcdefghij", 5), "ab…ij");
    assert_eq!(shorten("abc\u{1b}", 20), "abc\\u{1b}");
}

#[test]
fn json_keeps_its_names() {
    let json = serde_json::to_value(made_up(2, 2, 6)).unwrap();
    for path in [
        "/text",
        "/bootstrap/seed",
        "/settings/0/name",
        "/reference/perplexity/value",
        "/floor/against/kld/mean/value",
        "/candidates/1/bits_per_weight",
        "/candidates/1/summary/against/kld/p99",
        "/candidates/1/kld_interval/low",
        "/candidates/1/ratio_to_first/interval/high",
        "/candidates/1/tensors/3/relative_error",
        "/candidates/1/histogram/0/1",
    ] {
        assert!(json.pointer(path).is_some_and(|v| !v.is_null()), "{path}");
    }
}
