//! NVFP4 with a scale for each tensor, end to end.

use crate::common::{Dir, Numbers, demo, fails, json, noise, ok, stored, weights, write_gguf};
use formats::metadata::{Metadata, Value};

const MATRICES: &str = r"(attn_(q|k|v|output)|ffn_(up|down|gate)(_exps)?)\.weight=nvfp4";

fn names(path: &str) -> Vec<String> {
    let info = json(&["inspect", "--json", path]);
    info["tensors"].as_array().unwrap().iter().map(|t| t["name"].as_str().unwrap().to_string()).collect()
}

/// A model of two matrices, one of them stacked, all weights times `size`.
fn tiny(path: &str, architecture: &str, size: f32) {
    let mut metadata = Metadata::new();
    metadata.set("general.architecture", Value::text(architecture));
    let of = |n: usize, seed: u64| noise(n, seed).into_iter().map(|x| x * size).collect();
    let tensors: [Numbers; 2] = [
        ("blk.0.attn_q.weight".into(), vec![48, 256], of(48 * 256, 1)),
        ("blk.0.ffn_up_exps.weight".into(), vec![3, 8, 128], of(3 * 8 * 128, 2)),
    ];
    write_gguf(path, &metadata, &tensors);
}

#[test]
fn small_weights_lose_no_more_than_large_ones() {
    let dir = Dir::new();
    let mut errors = Vec::new();
    for (architecture, size) in [("llama", 1.0), ("llama", 1.0 / 65536.0), ("unknown", 1.0 / 65536.0)] {
        let (model, out) = (dir.path("m.gguf"), dir.path("q.gguf"));
        tiny(&model, architecture, size);
        let report = json(&["quantize", &model, &out, "--type", "q8_0", "--tensor", MATRICES, "--json"]);
        let error = &report["tensors"].as_array().unwrap()[0]["relative_error"];
        errors.push(error.as_f64().unwrap());
        let found = json(&["verify", &out, "--against", &model, "--json"]);
        assert!(found["unmatched"].as_array().unwrap().is_empty());
        let found = found["tensors"].as_array().unwrap()[0]["relative_error"].as_f64().unwrap();
        assert!((found / errors.last().unwrap() - 1.0).abs() < 1e-6);
        let scaled = names(&out).contains(&"blk.0.attn_q.scale".to_string());
        assert_eq!(scaled, architecture == "llama");
    }
    // Powers of two change nothing; without a scale such weights are nearly lost.
    assert_eq!(errors[0], errors[1]);
    assert!(errors[2] > 2.0 * errors[1], "{errors:?}");
}

#[test]
fn scales_stay_with_what_they_scale() {
    let dir = Dir::new();
    let (model, packed) = (demo("model"), dir.path("q.gguf"));
    ok(&["quantize", &model, &packed, "--type", "q8_0", "--tensor", MATRICES]);
    let all = names(&packed);
    assert_eq!(all.iter().filter(|n| n.ends_with(".scale")).count(), 28);
    assert_eq!(weights(&packed, "blk.0.attn_q.scale").len(), 1);

    // A copy is a copy, in either byte order.
    ok(&["convert", &packed, &dir.path("same.gguf")]);
    assert!(dir.read("same.gguf") == dir.read("q.gguf"));
    ok(&["convert", &packed, &dir.path("be.gguf"), "--endian", "big"]);
    ok(&["verify", &dir.path("be.gguf"), "--against", &packed]);
    ok(&["convert", &dir.path("be.gguf"), &dir.path("le.gguf"), "--endian", "little"]);
    assert!(dir.read("le.gguf") == dir.read("q.gguf"));

    // Other types hold the product, and nobody multiplies again.
    for out in ["f.gguf", "checkpoint/"] {
        let out = dir.path(out);
        ok(&["convert", &packed, &out, "--type", "f32"]);
        assert!(names(&out).iter().all(|n| !n.ends_with("scale")));
        ok(&["verify", &out, "--against", &packed]);
    }
    let (x, y) =
        (weights(&packed, "blk.1.ffn_down.weight"), weights(&dir.path("f.gguf"), "blk.1.ffn_down.weight"));
    assert!(x == y);

    // Every number of threads, any memory and reading instead of mapping give the same.
    for more in [&["--threads", "1"][..], &["--threads", "2", "--memory", "1K", "--no-mmap"]] {
        let out = dir.path("again.gguf");
        ok(&[&["quantize", &model, &out, "--type", "q8_0", "--tensor", MATRICES][..], more].concat());
        assert!(dir.read("again.gguf") == dir.read("q.gguf"), "{more:?}");
    }
}

#[test]
fn stacked_matrices_may_have_scales_of_their_own() {
    let dir = Dir::new();
    let (model, packed) = (dir.path("m.gguf"), dir.path("q.gguf"));
    let (weight, scale) = ("blk.0.ffn_up_exps.weight", "blk.0.ffn_up_exps.scale");
    tiny(&model, "llama", 1.0);
    ok(&["quantize", &model, &packed, "--type", "q8_0", "--tensor", MATRICES]);
    let before = weights(&packed, weight);
    let own = weights(&packed, scale);
    assert!(own.len() == 3 && own[0] == own[1] && own[1] == own[2]);

    let write_scale = |values: [f32; 3]| {
        let info = json(&["inspect", "--json", &packed]);
        let t = info["tensors"].as_array().unwrap().iter().find(|t| t["name"] == scale).unwrap().clone();
        let mut bytes = dir.read("q.gguf");
        let at = t["offset"].as_u64().unwrap() as usize;
        let values: Vec<u8> = values.iter().flat_map(|x| x.to_le_bytes()).collect();
        bytes[at..at + 12].copy_from_slice(&values);
        std::fs::write(dir.path("other.gguf"), bytes).unwrap();
    };
    write_scale([own[0], 2.0 * own[0], -own[0]]);
    let after = weights(&dir.path("other.gguf"), weight);
    for (k, factor) in [1.0, 2.0, -1.0].into_iter().enumerate() {
        let part = k * 8 * 128..(k + 1) * 8 * 128;
        assert!(before[part.clone()].iter().zip(&after[part]).all(|(x, y)| x * factor == *y), "{k}");
    }
    assert!(stored(&packed, weight) == stored(&dir.path("other.gguf"), weight));
    write_scale([1.0, f32::NAN, 1.0]);
    let (code, text) = fails(&["inspect", &dir.path("other.gguf")]);
    assert!(code == 1 && text.contains(scale), "{text}");
}

/// The logits of a few tokens.
fn logits(dir: &Dir, model: &str, more: &[&str]) -> Vec<f32> {
    let out = dir.path("out.safetensors");
    ok(&[&["logits", model, &out, "--ids", "1,40,400,77,1000,3,512,513,90,91"], more].concat());
    weights(&out, "logits")
}

fn distance(a: &[f32], b: &[f32]) -> f64 {
    assert_eq!(a.len(), b.len());
    let error: f64 = a.iter().zip(b).map(|(a, b)| f64::from(a - b).powi(2)).sum();
    (error / b.iter().map(|b| f64::from(*b).powi(2)).sum::<f64>()).sqrt()
}

/// The scale multiplies once: a model computes what the same weights do without one.
#[test]
fn models_are_computed_with_their_scales() {
    let dir = Dir::new();
    let (packed, plain, big) = (dir.path("q.gguf"), dir.path("f.gguf"), dir.path("b.gguf"));
    ok(&[
        "quantize",
        &demo("model"),
        &packed,
        "--type",
        "q8_0",
        "--output-type",
        "nvfp4",
        "--tensor",
        MATRICES,
    ]);
    assert!(names(&packed).iter().filter(|n| n.ends_with(".scale")).count() >= 28);
    ok(&["quantize", &packed, &plain, "--type", "f32", "--allow-requantize"]);
    ok(&["convert", &packed, &big, "--endian", "big"]);
    let truth = logits(&dir, &plain, &["--exact"]);
    for model in [&packed, &big] {
        let far = distance(&logits(&dir, model, &["--exact"]), &truth);
        assert!(far < 1e-5, "{far}");
        let far = distance(&logits(&dir, model, &[]), &truth);
        assert!(far < 5e-2, "{far}");
    }
    assert!(distance(&truth, &logits(&dir, &demo("model"), &["--exact"])) < 0.3);
}
