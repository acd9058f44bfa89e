//! Importance, end to end: files of it come in by hand, and what they say reaches the bytes.

use std::path::Path;

use crate::common::{Dir, Numbers, demo, fails, json, noise, ok, stored, weights, write_gguf};
use formats::metadata::{Array, Metadata, Value};

/// A file of importances: names, matrices, and the mean squares of all columns.
fn imatrix(path: &str, entries: &[(&str, u64, Vec<f32>)]) {
    let mut metadata = Metadata::new();
    metadata.set("general.type", Value::text("imatrix"));
    metadata
        .set("imatrix.datasets", Value::Array(Array::of_strings(["/home/someone/held.txt", "other.txt"])));
    metadata.set("imatrix.chunk_count", Value::U32(3));
    metadata.set("imatrix.chunk_size", Value::U32(256));
    let tensors: Vec<Numbers> = entries
        .iter()
        .flat_map(|(name, matrices, means)| {
            let cols = means.len() as u64 / matrices;
            let sums = means.iter().map(|x| x * 4.0).collect();
            let counts = vec![4.0; *matrices as usize];
            [
                (format!("{name}.in_sum2"), vec![*matrices, cols], sums),
                (format!("{name}.counts"), vec![*matrices, 1], counts),
            ]
        })
        .collect();
    write_gguf(path, &metadata, &tensors);
}

/// Mean squares as activations have them: some columns count a thousand times what others do.
fn means(n: usize, seed: u64) -> Vec<f32> {
    noise(n, seed).into_iter().map(|x| (6.0 * x).exp()).collect()
}

const LAYERS: u64 = 4;

/// Importances of every matrix of the bundled model's layers.
fn demo_imatrix(path: &str) -> Vec<(String, Vec<f32>)> {
    let mut all = Vec::new();
    for layer in 0..LAYERS {
        for part in ["attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"] {
            let cols = if part == "ffn_down" { 768 } else { 256 };
            all.push((format!("blk.{layer}.{part}.weight"), means(cols, layer * 31 + cols as u64)));
        }
    }
    let entries: Vec<_> = all.iter().map(|(name, m)| (name.as_str(), 1, m.clone())).collect();
    imatrix(path, &entries);
    all
}

/// The sum of squared errors, each times its column's importance.
fn weighted(x: &[f32], y: &[f32], means: &[f32]) -> f64 {
    let one = |(i, (x, y)): (usize, (&f32, &f32))| {
        f64::from(means[i % means.len()]) * (f64::from(*x) - f64::from(*y)).powi(2)
    };
    x.iter().zip(y).enumerate().map(one).sum()
}

#[test]
fn what_counts_is_kept_better() {
    let dir = Dir::new();
    let (model, file) = (demo("model"), dir.path("imatrix.gguf"));
    let all = demo_imatrix(&file);
    for scheme in ["q4_0", "q5_1", "q8_0"] {
        let (plain, with) = (dir.path("plain.gguf"), dir.path("with.gguf"));
        let least = ["--objective", "error"];
        ok(&[&["quantize", &model, &plain, "--type", scheme][..], &least].concat());
        ok(&[&["quantize", &model, &with, "--type", scheme, "--imatrix", &file][..], &least].concat());
        for (name, means) in &all {
            let x = weights(&model, name);
            let error = |path: &str| weighted(&x, &weights(path, name), means);
            let (before, after) = (error(&plain), error(&with));
            // What holds for every block holds for their sums.
            assert!(after < before, "{scheme} {name}: {before} {after}");
        }
        // Nothing is known of these.
        for name in ["output.weight", "token_embd.weight"] {
            assert!(stored(&plain, name) == stored(&with, name), "{scheme} {name}");
        }
    }
}

#[test]
fn the_file_says_what_it_was_made_with() {
    let dir = Dir::new();
    let (model, file, out) = (demo("model"), dir.path("imatrix.gguf"), dir.path("q.gguf"));
    demo_imatrix(&file);
    let text = ok(&["quantize", &model, &out, "--type", "q4_0", "--imatrix", &file]);
    let line =
        format!("importance: 28 of 30 quantized tensors by {file} (3 chunks of held.txt, other.txt)\n");
    assert!(text.contains(&line) && !text.contains("note"), "{text}");
    let value = |path: &str, key: &str| {
        let info = json(&["inspect", "--json", path]);
        info["metadata"].as_array().unwrap().iter().find(|m| m[0] == key).cloned()
    };
    let is = |key: &str, kind: &str, wanted: serde_json::Value| {
        let key = format!("quantize.imatrix.{key}");
        assert_eq!(value(&out, &key), Some(serde_json::json!([key, kind, wanted])));
    };
    is("file", "str", "imatrix.gguf".into());
    is("dataset", "str", "held.txt".into());
    is("entries_count", "u32", 28.into());
    is("chunks_count", "u32", 3.into());

    // The plan says the same beforehand.
    let arguments =
        ["quantize", &model, &dir.path("x.gguf"), "--type", "q4_0", "--imatrix", &file, "--dry-run"];
    assert!(ok(&arguments).contains(&line));
    let plan = json(&[&arguments[..], &["--json"]].concat());
    assert_eq!((&plan["importance"]["used"], &plan["importance"]["quantized"]), (&28.into(), &30.into()));
    for t in plan["tensors"].as_array().unwrap() {
        let name = t["name"].as_str().unwrap();
        let wanted = name.starts_with("blk.") && !name.contains("norm");
        assert_eq!(t["importance"], wanted, "{name}");
    }
    assert!(
        json(&["quantize", &model, &out, "--type", "q4_0", "--dry-run", "--json"])["importance"].is_null()
    );

    // What the user sets stays; and what is not quantized was not made with importances.
    let set = "quantize.imatrix.dataset=secret";
    ok(&["quantize", &model, &out, "--type", "q4_0", "--imatrix", &file, "--set", set]);
    is("dataset", "str", "secret".into());
    let text = ok(&["convert", &model, &out, "--imatrix", &file]);
    assert!(text.contains("is not used: none of its tensors is quantized"), "{text}");
    assert!(value(&out, "quantize.imatrix.file").is_none());
}

#[test]
fn gaps_are_said_and_strangers_refused() {
    let dir = Dir::new();
    let (model, file, out) = (demo("model"), dir.path("i.gguf"), dir.path("q.gguf"));
    let quantize = ["quantize", &model, &out, "--type", "q4_0", "--imatrix", &file];
    let q = "blk.0.attn_q.weight";
    imatrix(&file, &[(q, 1, means(256, 1)), ("blk.9.attn_q.weight", 1, means(256, 1))]);
    let text = ok(&quantize);
    assert!(text.contains("importance: 1 of 30"), "{text}");
    assert!(text.contains("has no entry for blk.0.ffn_down.weight and 26 more"), "{text}");
    assert!(text.contains("tensors that the model does not have: blk.9.attn_q.weight"), "{text}");
    std::fs::remove_file(&out).unwrap();

    imatrix(&file, &[(q, 1, means(512, 1))]);
    let (code, text) = fails(&quantize);
    assert!(code == 1 && text.contains("has 512 values, but in the model it has 256"), "{text}");
    assert!(text.contains("i.gguf") && text.contains(q) && text.contains("hint"), "{text}");
    imatrix(&file, &[("blk.9.attn_q.weight", 1, means(256, 1))]);
    let (code, text) = fails(&quantize);
    assert!(code == 1 && text.contains("none of the tensors in this importance matrix"), "{text}");
    std::fs::write(&file, "a text").unwrap();
    let (code, text) = fails(&quantize);
    assert!(
        code == 1 && text.contains("i.gguf: is a text, not an importance matrix") && text.contains("hint"),
        "{text}"
    );
    std::fs::remove_file(&file).unwrap();
    let (code, text) = fails(&quantize);
    assert!(code == 1 && text.contains("i.gguf") && text.contains("hint"), "{text}");

    demo_imatrix(&file);
    let (code, text) = fails(&["quantize", &model, &file, "--type", "q4_0", "--imatrix", &file]);
    assert!(code == 2 && text.contains("is an importance matrix, and a model would replace it"), "{text}");
    let folder = format!("{}/", dir.path("hub"));
    let (code, text) = fails(&["convert", &model, &folder, "--type", "f16", "--imatrix", &file]);
    assert!(code == 2 && text.contains("--imatrix is for GGUF only"), "{text}");
    assert_eq!(fails(&["quantize", &model, &out, "--type", "q4_0", "--effort", "most"]).0, 2);
    assert!(!Path::new(&out).exists());
}

#[test]
fn bytes_do_not_depend_on_how_the_work_is_cut() {
    let dir = Dir::new();
    let (model, file) = (dir.path("m.gguf"), dir.path("i.gguf"));
    // Rows that are shorter than a piece of the work, that do not divide one, and that are longer than a band; and
    // stacked matrices, some of which end within a piece.
    let shapes: [(&str, &[u64]); 4] = [
        ("short.weight", &[40, 256]),
        ("odd.weight", &[9, 768]),
        ("long.weight", &[3, 16384]),
        ("ffn_up_exps.weight", &[3, 5, 512]),
    ];
    let sized = |shape: &[u64]| shape.iter().product::<u64>() as usize;
    let tensors: Vec<Numbers> = shapes
        .iter()
        .enumerate()
        .map(|(i, (name, shape))| (name.to_string(), shape.to_vec(), noise(sized(shape), i as u64)))
        .collect();
    let mut metadata = Metadata::new();
    metadata.set("general.architecture", Value::text("unknown"));
    write_gguf(&model, &metadata, &tensors);
    let matrices = |shape: &[u64]| if shape.len() == 3 { shape[0] } else { 1 };
    let entry = |(i, (name, shape)): (usize, &(&'static str, &[u64]))| {
        let n = matrices(shape) * shape.last().unwrap();
        (*name, matrices(shape), means(n as usize, 7 + i as u64))
    };
    let entries: Vec<_> = shapes.iter().enumerate().map(entry).collect();
    imatrix(&file, &entries);

    for dtype in ["q4_0", "q2_k", "q4_k", "q6_k", "iq4_xs"] {
        let rule = format!(".={dtype}");
        let run = |out: &str, more: &[&str]| {
            let out = dir.path(out);
            let start = ["quantize", &model, &out, "--type", "q8_0", "--tensor", &rule, "--imatrix", &file];
            ok(&[&start[..], more].concat());
            std::fs::read(out).unwrap()
        };
        let whole = run("a.gguf", &["--threads", "1"]);
        for more in [
            &["--threads", "2"][..],
            &["--threads", "2", "--memory", "1K"],
            &["--threads", "1", "--memory", "300K", "--no-mmap"],
        ] {
            assert!(run("b.gguf", more) == whole, "{dtype} {more:?}");
        }
        assert!(run("b.gguf", &["--effort", "fast", "--endian", "big"]) != whole);

        // Each of the stacked matrices is what it is alone.
        let (name, shape) = shapes[3];
        let (one, its) = (dir.path("one.gguf"), dir.path("its.gguf"));
        let stack = stored(&dir.path("a.gguf"), name);
        for (k, part) in stack.chunks(stack.len() / shape[0] as usize).enumerate() {
            let (len, cols) = (sized(&shape[1..]), shape[2] as usize);
            let x = tensors[3].2[k * len..(k + 1) * len].to_vec();
            write_gguf(&one, &metadata, &[(name.to_string(), shape[1..].to_vec(), x)]);
            imatrix(&its, &[(name, 1, entries[3].2[k * cols..(k + 1) * cols].to_vec())]);
            let out = dir.path("alone.gguf");
            ok(&["quantize", &one, &out, "--type", "q8_0", "--tensor", &rule, "--imatrix", &its]);
            assert!(stored(&out, name) == part, "{dtype} {k}");
        }
    }
}

#[test]
fn the_older_kind_of_file_gives_the_same_bytes() {
    let dir = Dir::new();
    let model = demo("model");
    let all = demo_imatrix(&dir.path("i.gguf"));
    let mut bytes = (all.len() as i32).to_le_bytes().to_vec();
    for (name, means) in &all {
        bytes.extend((name.len() as i32).to_le_bytes());
        bytes.extend(name.as_bytes());
        bytes.extend(2i32.to_le_bytes());
        bytes.extend((means.len() as i32).to_le_bytes());
        means.iter().for_each(|x| bytes.extend((2.0 * x).to_le_bytes()));
    }
    std::fs::write(dir.path("i.dat"), bytes).unwrap();
    for kind in ["gguf", "dat"] {
        let (out, file) = (dir.path(&format!("by-{kind}.gguf")), dir.path(&format!("i.{kind}")));
        ok(&["quantize", &model, &out, "--type", "q4_0", "--imatrix", &file, "--no-mmap"]);
    }
    for (name, _) in &all {
        assert!(stored(&dir.path("by-gguf.gguf"), name) == stored(&dir.path("by-dat.gguf"), name), "{name}");
    }
    let info = json(&["inspect", "--json", &dir.path("by-dat.gguf")]);
    let keys: Vec<_> = info["metadata"].as_array().unwrap().iter().map(|m| m[0].as_str().unwrap()).collect();
    assert!(keys.contains(&"quantize.imatrix.file") && !keys.contains(&"quantize.imatrix.chunks_count"));
}
