//! bitnet.cpp's I2_S, end to end: made of every source that is ternary, of no other, run, and turned back.

mod checkpoints;

use std::path::Path;

use crate::common::{self, Dir, Numbers, demo, fails, json, noise, ok, stored, weights, write_gguf};
use formats::metadata::{Metadata, Value};

const VOCAB: u64 = 1024;
const QUANTIZE: [&str; 7] = ["attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"];

/// Signs and zeros without a pattern, times a magnitude.
fn trits(n: u64, seed: u64, magnitude: f32) -> Vec<f32> {
    noise(n as usize, seed).iter().map(|x| if x.abs() < 0.2 { 0.0 } else { x.signum() * magnitude }).collect()
}

/// The magnitude of tensor `i`, which bf16 and f16 hold.
fn magnitude(i: usize) -> f32 {
    (129 + i) as f32 / 8192.0
}

/// The settings and the vocabulary of a model of two layers.
fn settings(dir: &Dir, architecture: &str, hidden: u64, inner: u64) -> Metadata {
    let words = dir.path("words.gguf");
    if !Path::new(&words).exists() {
        ok(&["convert", &demo("model"), &words]);
    }
    let words = ggufkit::open(Path::new(&words), &Default::default()).unwrap();
    let mut m = Metadata::new();
    m.set("general.architecture", Value::text(architecture));
    for (key, value) in [
        ("block_count", 2),
        ("context_length", 256),
        ("embedding_length", hidden),
        ("feed_forward_length", inner),
        ("attention.head_count", 4),
        ("attention.head_count_kv", 2),
        ("vocab_size", VOCAB),
    ] {
        m.set(&format!("{architecture}.{key}"), Value::U32(value as u32));
    }
    m.set(&format!("{architecture}.attention.layer_norm_rms_epsilon"), Value::F32(1e-5));
    for (key, value) in words.model.metadata.iter().filter(|(key, _)| key.starts_with("tokenizer.")) {
        m.set(key, value.clone());
    }
    m
}

/// Its tensors, as floats.
fn tensors(hidden: u64, inner: u64) -> Vec<Numbers> {
    let mut all: Vec<Numbers> = vec![
        ("token_embd.weight".into(), vec![VOCAB, hidden], noise((VOCAB * hidden) as usize, 5)),
        ("output_norm.weight".into(), vec![hidden], vec![1.0; hidden as usize]),
    ];
    // The embedding is kept in halves.
    all[0].2.iter_mut().for_each(|x| *x = (*x * 256.0).round() / 256.0);
    for layer in 0..2 {
        for (name, n) in
            [("attn_norm", hidden), ("ffn_norm", hidden), ("attn_sub_norm", hidden), ("ffn_sub_norm", inner)]
        {
            all.push((format!("blk.{layer}.{name}.weight"), vec![n], vec![0.75; n as usize]));
        }
        for (name, [rows, cols]) in QUANTIZE.into_iter().zip([
            [hidden, hidden],
            [hidden / 2, hidden],
            [hidden / 2, hidden],
            [hidden, hidden],
            [inner, hidden],
            [inner, hidden],
            [hidden, inner],
        ]) {
            let x = trits(rows * cols, all.len() as u64, magnitude(all.len()));
            all.push((format!("blk.{layer}.{name}.weight"), vec![rows, cols], x));
        }
    }
    all
}

/// A ternary model in f32.
fn model(dir: &Dir, hidden: u64, inner: u64) -> String {
    let path = dir.path(&format!("f32-{hidden}.gguf"));
    write_gguf(&path, &settings(dir, "bitnet-b1.58", hidden, inner), &tensors(hidden, inner));
    path
}

/// What the layout says, weight by weight.
fn packed(x: &[f32], magnitude: f32) -> Vec<u8> {
    let mut bytes = vec![0; x.len() / 4];
    for (i, x) in x.iter().enumerate() {
        let code = if *x == 0.0 { 1 } else { 1 + x.signum() as i8 } as u8;
        bytes[i / 128 * 32 + i % 32] |= code << [6, 4, 2, 0][i % 128 / 32];
    }
    bytes.extend(magnitude.to_le_bytes());
    bytes.extend([0; 28]);
    bytes
}

fn types(path: &str) -> Vec<(String, String)> {
    let info = json(&["inspect", "--json", path]);
    let text = |t: &serde_json::Value, key: &str| t[key].as_str().unwrap().to_string();
    info["tensors"].as_array().unwrap().iter().map(|t| (text(t, "name"), text(t, "type"))).collect()
}

/// Whether all weights of two models are equal.
fn equal(one: &str, other: &str) {
    let found = json(&["verify", one, "--against", other, "--json"]);
    assert!(found["unmatched"].as_array().unwrap().is_empty());
    for t in found["tensors"].as_array().unwrap() {
        assert!(t["equal"] == true && t["not_finite"].is_null(), "{one} {other}: {t}");
    }
}

fn logits(dir: &Dir, model: &str, more: &[&str]) -> Vec<f32> {
    let out = dir.path("logits.safetensors");
    let ids = "1,17,400,403,9,1000,1,77";
    ok(&[&["logits", model, &out, "--ids", ids], more].concat());
    weights(&out, "logits")
}

fn distance(x: &[f32], y: &[f32]) -> f64 {
    let sum = |of: &dyn Fn(usize) -> f32| (0..x.len()).map(|i| f64::from(of(i)).powi(2)).sum::<f64>();
    (sum(&|i| x[i] - y[i]) / sum(&|i| x[i])).sqrt()
}

#[test]
fn a_ternary_model_is_packed_and_comes_back() {
    let dir = Dir::new();
    let plain = model(&dir, 256, 512);
    let i2s = dir.path("i2s.gguf");
    let report = ok(&["quantize", &plain, &i2s, "--type", "i2_s"]);
    assert!(report.contains("f32 → i2_s"), "{report}");
    for (name, kind) in types(&i2s) {
        let wanted = match () {
            () if name.contains("norm") => "f32",
            () if name.contains("token_embd") => "f16",
            () => "i2_s",
        };
        assert_eq!(kind, wanted, "{name}");
    }
    for (i, (name, shape, x)) in tensors(256, 512).iter().enumerate().filter(|(_, t)| t.1.len() > 1).skip(1) {
        assert!(stored(&i2s, name) == packed(x, magnitude(i)), "{name} {shape:?}");
    }
    let info = json(&["inspect", "--json", &i2s]);
    let metadata = info["metadata"].to_string();
    assert!(metadata.contains("general.file_type") && ok(&["inspect", &i2s]).contains("i2_s"), "{metadata}");
    assert!(ok(&["inspect", "--memory", &i2s]).contains("ggufkit"));
    ok(&["verify", &i2s]);
    equal(&i2s, &plain);

    // However the work is cut.
    let again = dir.path("again.gguf");
    ok(&["quantize", &plain, &again, "--type", "i2_s", "--threads", "3", "--memory", "512K", "--no-mmap"]);
    assert!(dir.read("again.gguf") == dir.read("i2s.gguf"));
    ok(&["convert", &i2s, &again]);
    assert!(dir.read("again.gguf") == dir.read("i2s.gguf"), "kept");
    ok(&["quantize", &i2s, &again, "--type", "i2_s"]);
    assert!(dir.read("again.gguf") == dir.read("i2s.gguf"), "asked for what it is");

    // The other ternary types, and floats, lose nothing.
    for kind in ["tq2_0", "tq1_0", "bf16", "f32", "f16"] {
        let other = dir.path(&format!("{kind}.gguf"));
        ok(&["quantize", &i2s, &other, "--type", kind, "--embedding-type", "f16"]);
        equal(&other, &i2s);
        ok(&["quantize", &other, &again, "--type", "i2_s"]);
        for (name, ..) in tensors(256, 512).iter().filter(|t| t.1.len() > 1) {
            assert!(stored(&again, name) == stored(&i2s, name), "{kind} {name}");
        }
        if kind.starts_with("tq") {
            assert!(dir.read("again.gguf") == dir.read("i2s.gguf"), "{kind}");
        }
    }
    // To types that round it takes leave.
    let (_, text) = fails(&["quantize", &i2s, &again, "--type", "q4_0", "--force"]);
    assert!(text.contains("--allow-requantize"), "{text}");
}

#[test]
fn the_other_byte_order_turns_the_scale_alone() {
    let dir = Dir::new();
    let plain = model(&dir, 256, 512);
    let (little, big, back) = (dir.path("little.gguf"), dir.path("big.gguf"), dir.path("back.gguf"));
    ok(&["quantize", &plain, &little, "--type", "i2_s"]);
    ok(&["convert", &little, &big, "--endian", "big"]);
    ok(&["quantize", &plain, &back, "--type", "i2_s", "--endian", "big"]);
    let name = "blk.1.ffn_down.weight";
    let (mut a, b) = (stored(&little, name), stored(&big, name));
    assert!(stored(&back, name) == b);
    let scale = a.len() - 32;
    a[scale..scale + 4].reverse();
    assert!(a == b);
    equal(&big, &little);
    equal(&big, &plain);
    ok(&["convert", &big, &back, "--endian", "little"]);
    assert!(dir.read("back.gguf") == dir.read("little.gguf"));
    assert_eq!(logits(&dir, &big, &[]), logits(&dir, &little, &[]));
    // In parts.
    ok(&["convert", &little, &dir.path("part.gguf"), "--split-max-size", "300K"]);
    let parts = dir.path(dir.names().iter().find(|n| n.starts_with("part-00002")).unwrap());
    equal(&parts, &little);
    ok(&["convert", &parts, &back]);
    assert!(dir.read("back.gguf") == dir.read("little.gguf"));
}

#[test]
fn it_runs_as_its_floats_do() {
    let dir = Dir::new();
    // Rows that TQ2_0's blocks divide, and such that they do not.
    for (hidden, inner) in [(256, 512), (128, 384)] {
        let plain = model(&dir, hidden, inner);
        let i2s = dir.path("i2s.gguf");
        ok(&["quantize", &plain, &i2s, "--type", "i2_s"]);
        for more in [&["--exact"][..], &[], &["--exact", "--batch", "1"], &["--batch", "1"], &["--no-mmap"]] {
            let (a, b) = (logits(&dir, &i2s, more), logits(&dir, &plain, more));
            // A code of the inputs may round the other way where sums differ in their last bit.
            let most = if more.contains(&"--exact") { 1e-5 } else { 3e-3 };
            assert!(distance(&a, &b) < most, "{hidden} {more:?}: {}", distance(&a, &b));
            assert!(a.iter().any(|x| x.abs() > 0.01));
        }
    }
    let i2s = dir.path("i2s.gguf");
    let text = ["--temperature", "0", "--tokens", "8", "--prompt", "Once"];
    let said = ok(&[&["run", &i2s][..], &text].concat());
    assert!(said.starts_with("Once"), "{said}");
    let heldout: String = std::fs::read_to_string(demo("heldout.txt")).unwrap().chars().take(3000).collect();
    std::fs::write(dir.path("text.txt"), heldout).unwrap();
    let beside = ["--reference", &dir.path("f32-128.gguf"), "--context", "64", "--exact", "--json"];
    let found = json(&[&["eval", &i2s, &dir.path("text.txt")][..], &beside].concat());
    let kld = found.pointer("/summary/against/kld/mean/value").unwrap().as_f64().unwrap();
    assert!(kld.abs() < 1e-6, "{kld}");
}

#[test]
fn what_is_not_ternary_under_one_magnitude_is_refused() {
    let dir = Dir::new();
    let refused = |change: &dyn Fn(&mut Vec<Numbers>), more: &[&str]| {
        let mut all = tensors(256, 512);
        change(&mut all);
        let (path, out) = (dir.path("m.gguf"), dir.path("out.gguf"));
        write_gguf(&path, &settings(&dir, "bitnet-b1.58", 256, 512), &all);
        let (code, text) = fails(&[&["quantize", &path, &out, "--type", "i2_s"][..], more].concat());
        assert!(code == 1 && !dir.names().iter().any(|n| n.starts_with("out")), "{text}");
        text
    };
    fn matrix<'a>(all: &'a mut [Numbers], name: &str) -> &'a mut Vec<f32> {
        &mut all.iter_mut().find(|t| t.0 == name).unwrap().2
    }
    let q = "blk.1.attn_q.weight";
    for more in [&[][..], &["--force"]] {
        let text = refused(&|all| *matrix(all, q) = noise(256 * 256, 1), more);
        assert!(text.contains(q) && text.contains("more than the three values"), "{text}");
        assert!(!text.contains("--force"), "{text}");
    }
    // One weight that the sample does not see.
    let other = |at: usize, x: f32| refused(&|all| matrix(all, q)[at] = x, &[]);
    let text = other(300, 0.5);
    assert!(text.contains(q) && text.contains("0.5") && text.contains("one scale"), "{text}");
    for x in [f32::NAN, f32::INFINITY] {
        let text = other(300, x);
        assert!(text.contains(q) && text.contains("300"), "{text}");
    }
    // Halves that have a magnitude each, in bands that see one only.
    let halves: &dyn Fn(&mut Vec<Numbers>) =
        &|all| matrix(all, q)[128 * 256..].iter_mut().for_each(|x| *x *= 1.003_906_3);
    for more in [&["--memory", "256K", "--threads", "2"][..], &[]] {
        let text = refused(halves, more);
        assert!(text.contains(q) && text.contains("one scale"), "{text}");
    }
    // TQ2_0 has a scale for each block.
    let (path, tq2, out) = (dir.path("m.gguf"), dir.path("tq2.gguf"), dir.path("out.gguf"));
    ok(&["quantize", &path, &tq2, "--type", "tq2_0"]);
    assert!(fails(&["quantize", &tq2, &out, "--type", "i2_s"]).1.contains("one scale"));

    // All zero is ternary.
    let mut all = tensors(256, 512);
    matrix(&mut all, q).fill(0.0);
    matrix(&mut all, q)[7] = -0.0;
    write_gguf(&path, &settings(&dir, "bitnet-b1.58", 256, 512), &all);
    ok(&["quantize", &path, &out, "--type", "i2_s"]);
    equal(&out, &path);
    assert!(stored(&out, q) == [vec![0x55; 256 * 64], vec![0; 32]].concat());
    ok(&["quantize", &out, &tq2, "--type", "tq2_0", "--force"]);
    equal(&dir.path("out.gguf"), &path);
}

#[test]
fn other_architectures_rows_and_containers_are_refused() {
    let dir = Dir::new();
    // What bitnet.cpp runs is I2_S without further words, and models of few architectures.
    let (own, out) = (model(&dir, 256, 256), dir.path("for.gguf"));
    let said = ok(&["quantize", &own, &out, "--for", "bitnet.cpp"]);
    assert!(
        said.contains("i2_s") && said.contains("to run it: python run_inference.py -m for.gguf"),
        "{said}"
    );
    let (code, why) = fails(&["quantize", &own, &out, "--for", "llama.cpp", "--type", "tq2_0"]);
    assert!(
        code == 1 && why.contains("the architecture is bitnet-b1.58, which --for llama.cpp does not support"),
        "{why}"
    );
    let (path, out) = (dir.path("m.gguf"), dir.path("out.gguf"));
    write_gguf(&path, &settings(&dir, "qwen2", 256, 512), &tensors(256, 512));
    let (code, why) = fails(&["quantize", &path, &out, "--for", "bitnet.cpp", "--type", "f16"]);
    assert!(
        code == 1 && why.contains("the architecture is qwen2, which --for bitnet.cpp does not support"),
        "{why}"
    );
    write_gguf(&path, &settings(&dir, "bitnet-b1.58", 64, 128), &tensors(64, 128));
    let text = fails(&["quantize", &path, &out, "--type", "i2_s"]).1;
    assert!(text.contains("rows of 64") && text.contains("attn_q"), "{text}");
    let tensor = ["--type", "f32", "--tensor", "ffn_down=I2_S"];
    ok(&[&["quantize", &path, &out][..], &tensor].concat());
    assert_eq!(types(&out).iter().filter(|t| t.1 == "i2_s").count(), 2);

    let plain = model(&dir, 256, 512);
    let i2s = dir.path("i2s.gguf");
    ok(&["quantize", &plain, &i2s, "--type", "i2_s"]);
    let (_, text) = fails(&["quantize", &plain, &dir.path("x.gguf"), "--type", "i2_s", "--pure"]);
    assert!(text.contains("--pure"), "{text}");
    let (_, text) = fails(&["convert", &i2s, &dir.path("x.safetensors")]);
    assert!(text.contains("safetensors cannot hold") && text.contains("--type f16"), "{text}");
    ok(&["convert", &i2s, &dir.path("x.safetensors"), "--type", "bf16"]);
    assert!(
        weights(&dir.path("x.safetensors"), "blk.0.attn_q.weight") == weights(&plain, "blk.0.attn_q.weight")
    );
    assert!(fails(&["convert", &i2s, &dir.path("x.bin")]).1.contains("bitnet"));
}

#[test]
fn damaged_files_are_named() {
    let dir = Dir::new();
    let plain = model(&dir, 256, 512);
    let i2s = dir.path("i2s.gguf");
    ok(&["quantize", &plain, &i2s, "--type", "i2_s"]);
    let (sound, name) = (dir.read("i2s.gguf"), "blk.0.ffn_up.weight");
    let info = json(&["inspect", "--json", &i2s]);
    let t = info["tensors"].as_array().unwrap().iter().find(|t| t["name"] == name).unwrap();
    let number = |key: &str| t[key].as_u64().unwrap() as usize;
    let (offset, scale) = (number("offset"), number("offset") + number("bytes") - 32);
    let (bad, out) = (dir.path("bad.gguf"), dir.path("out.gguf"));
    let with = |at: usize, bytes: &[u8]| {
        let mut all = sound.clone();
        all[at..at + bytes.len()].copy_from_slice(bytes);
        std::fs::write(&bad, all).unwrap();
    };
    // A code that means nothing, of weight 32 · 4 + 2 + 64.
    with(offset + 34, &[sound[offset + 34] | 0b1100]);
    let found = json_of_failure(&bad);
    assert_eq!(found["not_finite"], 194, "{found}");
    let logits = ["logits", &bad, &out, "--ids", "1,2"];
    assert!(fails(&logits).1.contains("weight 194 has the code 3"));
    for kind in ["tq2_0", "f32"] {
        let text = fails(&["quantize", &bad, &out, "--type", kind]).1;
        assert!(text.contains(name) && text.contains("194"), "{text}");
    }
    // A scale that is no number.
    with(scale, &f32::NAN.to_le_bytes());
    assert_eq!(json_of_failure(&bad)["not_finite"], 0);
    assert!(fails(&logits).1.contains("scale is NaN"));
    // Types of bitnet.cpp's that nobody reads.
    let at = sound.windows(name.len()).position(|w| w == name.as_bytes()).unwrap() + name.len() + 4 + 16;
    assert_eq!(sound[at], 36);
    for (id, kind) in [(37, "i8_s"), (38, "tl1"), (39, "tl2")] {
        with(at, &[id]);
        let text = fails(&["inspect", &bad]).1;
        assert!(text.contains(name) && text.contains(kind), "{text}");
    }
    // The same under another architecture: the length says what it is.
    let at = sound.windows(12).position(|w| w == b"bitnet-b1.58").unwrap();
    with(at, b"notnet-b1.58");
    assert!(ok(&["inspect", &bad]).contains("i2_s"));
    // Cut off.
    std::fs::write(&bad, &sound[..sound.len() - 40]).unwrap();
    assert!(fails(&["inspect", &bad]).1.contains("truncated"));
    // Any byte of the header.
    for i in (0..sound.len().min(4000)).step_by(97) {
        with(i, &[sound[i] ^ 0x55]);
        let out = common::run(&["verify", &bad]);
        assert!(out.status.code().is_some_and(|c| c < 3), "{i}: {}", String::from_utf8_lossy(&out.stderr));
    }
}

/// What `verify` finds in the one tensor that is wrong.
fn json_of_failure(path: &str) -> serde_json::Value {
    let out = common::run(&["verify", path, "--json"]);
    assert!(!out.status.success());
    let found: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
    let all = found["tensors"].as_array().unwrap();
    let mut wrong = all.iter().filter(|t| !t["not_finite"].is_null());
    let first = wrong.next().unwrap().clone();
    assert!(wrong.next().is_none());
    first
}

#[test]
fn a_scale_that_no_half_holds_is_kept() {
    // In tq2_0 it is rounded, and the codes stay.
    let dir = Dir::new();
    let mut all = tensors(256, 512);
    all.iter_mut().filter(|t| t.0.contains("ffn")).filter(|t| t.1.len() > 1).for_each(|t| {
        t.2.iter_mut().for_each(|x| *x = if *x == 0.0 { 0.0 } else { x.signum() * 0.1 });
    });
    let m = settings(&dir, "bitnet-b1.58", 256, 512);
    let (path, i2s, tq2) = (dir.path("m.gguf"), dir.path("i2s.gguf"), dir.path("tq2.gguf"));
    write_gguf(&path, &m, &all);
    ok(&["quantize", &path, &i2s, "--type", "i2_s"]);
    equal(&i2s, &path);
    ok(&["quantize", &i2s, &tq2, "--type", "tq2_0"]);
    let (a, b) = (weights(&i2s, "blk.0.ffn_up.weight"), weights(&tq2, "blk.0.ffn_up.weight"));
    assert!(a.iter().zip(&b).all(|(a, b)| (a - b).abs() <= a.abs() / 2048.0 && (*a == 0.0) == (*b == 0.0)));
}

#[test]
fn the_other_name_of_the_architecture_is_the_same_model() {
    let dir = Dir::new();
    let plain = model(&dir, 256, 512);
    let (other, i2s, packed) =
        (dir.path("bitnet-25.gguf"), dir.path("bitnet-25-i2s.gguf"), dir.path("i2s.gguf"));
    write_gguf(&other, &settings(&dir, "bitnet-25", 256, 512), &tensors(256, 512));
    ok(&["quantize", &other, &i2s, "--type", "i2_s"]);
    ok(&["quantize", &plain, &packed, "--type", "i2_s"]);
    for more in [&[][..], &["--exact"]] {
        assert!(logits(&dir, &other, more) == logits(&dir, &plain, more), "{more:?}");
        assert!(logits(&dir, &i2s, more) == logits(&dir, &packed, more), "{more:?}");
    }
    let (hub, back) = (dir.path("hub/"), dir.path("back.gguf"));
    ok(&["convert", &i2s, &hub]);
    ok(&["convert", &hub, &back, "--type", "f32"]);
    equal(&back, &plain);
    let info = json(&["inspect", "--json", &back]);
    assert!(info["metadata"].to_string().contains("bitnet-b1.58.block_count"), "{info}");
}

#[test]
fn a_note_says_which_programs_run_the_file() {
    let dir = Dir::new();
    let plain = model(&dir, 256, 512);
    let untied = dir.path("untied.gguf");
    let mut all = tensors(256, 512);
    all.push(("output.weight".into(), vec![VOCAB, 256], noise((VOCAB * 256) as usize, 9)));
    write_gguf(&untied, &settings(&dir, "bitnet-b1.58", 256, 512), &all);
    let out = dir.path("out.gguf");
    for (input, kind, says) in [
        (&plain, "bf16", "runs in bitnet.cpp and ik_llama.cpp"),
        (&plain, "i2_s", "iq2_bn"),
        (&plain, "tq2_0", "bitnet.cpp only"),
        (&untied, "bf16", "ik_llama.cpp only (bitnet.cpp ignores the output matrix"),
        (&untied, "i2_s", "ik_llama.cpp only, after"),
    ] {
        let text = ok(&["quantize", input, &out, "--type", kind]);
        assert!(text.contains(says), "{kind}: {text}");
    }
    ok(&["quantize", &plain, &out, "--for", "bitnet.cpp"]);
    let (_, text) = fails(&["quantize", &untied, &out, "--for", "bitnet.cpp"]);
    assert!(text.contains("untied embeddings") && text.contains("ik_llama.cpp"), "{text}");
}
