//! GGUFs as people find them: cut, glued, of other programs, wider than llama.cpp reads, with more in them than their
//! architecture has; and what the runner takes from their metadata.

use std::path::Path;

use formats::block::DType;
use formats::container::gguf as container;
use formats::metadata::{Array, Kind, Metadata, Value};
use formats::model::{ByteOrder, Encoding, Location, Tensor};

use crate::common::{Dir, Numbers, fails, json, noise, ok, run, stored, write_gguf};

const HIDDEN: u64 = 128;
const INNER: u64 = 256;
const VOCAB: u64 = 64;

fn settings(architecture: &str) -> Metadata {
    let mut m = Metadata::new();
    m.set("general.architecture", Value::text(architecture));
    for (key, value) in [
        ("block_count", 1),
        ("context_length", 64),
        ("embedding_length", HIDDEN),
        ("feed_forward_length", INNER),
        ("attention.head_count", 4),
        ("attention.head_count_kv", 2),
    ] {
        m.set(&format!("{architecture}.{key}"), Value::U32(value as u32));
    }
    m.set(&format!("{architecture}.attention.layer_norm_rms_epsilon"), Value::F32(1e-5));
    m
}

/// The tensors of one layer, in f32; the projections have three values only.
fn tensors(biases: bool) -> Vec<Numbers> {
    let mut all: Vec<Numbers> = vec![
        ("token_embd.weight".into(), vec![VOCAB, HIDDEN], noise((VOCAB * HIDDEN) as usize, 1)),
        ("output_norm.weight".into(), vec![HIDDEN], vec![1.0; HIDDEN as usize]),
        ("blk.0.attn_norm.weight".into(), vec![HIDDEN], vec![1.0; HIDDEN as usize]),
        ("blk.0.ffn_norm.weight".into(), vec![HIDDEN], vec![0.75; HIDDEN as usize]),
    ];
    for (i, (part, rows, cols)) in [
        ("attn_q", HIDDEN, HIDDEN),
        ("attn_k", HIDDEN / 2, HIDDEN),
        ("attn_v", HIDDEN / 2, HIDDEN),
        ("attn_output", HIDDEN, HIDDEN),
        ("ffn_gate", INNER, HIDDEN),
        ("ffn_up", INNER, HIDDEN),
        ("ffn_down", HIDDEN, INNER),
    ]
    .into_iter()
    .enumerate()
    {
        let magnitude = (65 + i) as f32 / 512.0;
        let trit = |x: f32| if x.abs() < 0.2 { 0.0 } else { x.signum() * magnitude };
        let x = noise((rows * cols) as usize, 7 + i as u64).into_iter().map(trit).collect();
        all.push((format!("blk.0.{part}.weight"), vec![rows, cols], x));
        if biases && i < 3 {
            all.push((format!("blk.0.{part}.bias"), vec![rows], noise(rows as usize, 70 + i as u64)));
        }
    }
    all
}

/// A small Llama, and its path.
fn llama(dir: &Dir, name: &str) -> String {
    let path = dir.path(name);
    write_gguf(&path, &settings("llama"), &tensors(false));
    path
}

fn logits_args<'a>(model: &'a str, out: &'a str) -> [&'a str; 6] {
    ["logits", model, out, "--exact", "--ids", "1,2,3,4,5"]
}

fn logits(dir: &Dir, model: &str) -> Vec<f32> {
    let out = dir.path("logits.safetensors");
    ok(&logits_args(model, &out));
    let bytes = std::fs::read(out).unwrap();
    let floats = &bytes[bytes.len() - 4 * 5 * VOCAB as usize..];
    floats.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
}

/// Why a model is not run.
fn not_run(dir: &Dir, model: &str) -> String {
    let (code, why) = fails(&logits_args(model, &dir.path("none.safetensors")));
    assert_eq!(code, 1, "{why}");
    why
}

/// The notes of a run that must not fail.
fn said(args: &[&str]) -> String {
    let out = run(args);
    let text = String::from_utf8_lossy(&out.stderr).into_owned() + &String::from_utf8_lossy(&out.stdout);
    assert!(out.status.success(), "{args:?}: {text}");
    text
}

/// A GGUF of tensors with their bytes.
fn assemble(path: &str, metadata: &Metadata, tensors: &[(&str, &[u64], DType, Vec<u8>)]) -> Vec<u8> {
    let described: Vec<_> = tensors
        .iter()
        .map(|(name, shape, dtype, _)| Tensor {
            name: (*name).into(),
            shape: shape.to_vec(),
            encoding: Encoding::Blocks(*dtype),
            location: Location::default(),
        })
        .collect();
    let options = container::Options { order: ByteOrder::Little, split: container::Split::None };
    let layout = container::layout(path, metadata, &described, options).unwrap();
    let mut bytes = vec![0; layout.files[0].len as usize];
    let header = &layout.files[0].fixed[0].1;
    bytes[..header.len()].copy_from_slice(header);
    for (t, (.., data)) in layout.tensors.iter().zip(tensors) {
        bytes[t.location.offset as usize..][..data.len()].copy_from_slice(data);
    }
    bytes
}

/// Where a tensor's dimensions are in a GGUF.
fn dims_at(bytes: &[u8], name: &str) -> usize {
    let text = [&(name.len() as u64).to_le_bytes()[..], name.as_bytes()].concat();
    bytes.windows(text.len()).position(|w| w == text).unwrap() + text.len() + 4
}

#[test]
fn two_bit_weights_of_bitnet_cpp_are_read_run_and_written_in_other_architectures() {
    let dir = Dir::new();
    for (architecture, biases) in [("llama", false), ("qwen2", true)] {
        let (plain, packed) = (dir.path("f32.gguf"), dir.path("i2s.gguf"));
        write_gguf(&plain, &settings(architecture), &tensors(biases));
        let text = said(&["quantize", &plain, &packed, "--type", "i2_s", "--embedding-type", "f32"]);
        assert!(text.contains("i2_s is bitnet.cpp's type") && text.contains("tq2_0"), "{text}");
        let found = json(&["verify", &packed, "--against", &plain, "--json"]);
        assert!(found["tensors"].as_array().unwrap().iter().all(|t| t["equal"] == true), "{architecture}");
        assert_eq!(stored(&packed, "blk.0.ffn_down.weight").len() as u64, HIDDEN * INNER / 4 + 32);
        let (own, theirs) = (logits(&dir, &packed), logits(&dir, &plain));
        let most = theirs.iter().fold(0f32, |m, x| m.max(x.abs()));
        assert!(own.iter().zip(&theirs).all(|(a, b)| (a - b).abs() <= 1e-4 * most), "{architecture}");
        // In parts, of which only the first says the architecture.
        ok(&["split", &packed, &dir.path("part.gguf"), "--max-tensors", "5"]);
        let whole = dir.path("whole.gguf");
        ok(&["merge", &dir.path("part-00001-of-00003.gguf"), &whole]);
        assert!(dir.read("whole.gguf") == dir.read("i2s.gguf"));
        for name in dir.names().into_iter().filter(|n| n.starts_with("part-")) {
            std::fs::remove_file(dir.path(&name)).unwrap();
        }
    }
}

#[test]
fn layouts_of_other_programs_become_those_of_ggml() {
    let dir = Dir::new();
    let (plain, q4) = (llama(&dir, "f32.gguf"), dir.path("q4.gguf"));
    ok(&["quantize", &plain, &q4, "--type", "q4_0", "--pure"]);

    // The rows of every matrix interleaved, eight bytes of four rows in turn.
    let mut bytes = std::fs::read(&q4).unwrap();
    let source = ggufkit::open(Path::new(&q4), &Default::default()).unwrap();
    for t in source.model.tensors.iter().filter(|t| t.encoding == Encoding::Blocks(DType::Q4_0)) {
        let at = dims_at(&bytes, &t.name) + 16;
        bytes[at..at + 4].copy_from_slice(&32u32.to_le_bytes());
        let data = &mut bytes[t.location.offset as usize..][..t.location.len as usize];
        let blocks = t.cols() as usize / 32;
        for group in data.chunks_exact_mut(4 * blocks * 18) {
            let plain = group.to_vec();
            for (x, out) in group.chunks_exact_mut(72).enumerate() {
                let of = |row: usize| &plain[(row * blocks + x) * 18..][..18];
                for row in 0..4 {
                    out[2 * row..2 * row + 2].copy_from_slice(&of(row)[..2]);
                    for j in 0..16 {
                        out[8 + (j / 8 * 4 + row) * 8 + j % 8] = of(row)[2 + j] ^ 0x88;
                    }
                }
            }
        }
    }
    let odd = dir.path("interleaved.gguf");
    std::fs::write(&odd, bytes).unwrap();
    let text = said(&["inspect", &odd]);
    assert!(text.contains("q4_0_4_8 (q4_0 with interleaved rows") && text.contains("q4_0"), "{text}");
    assert_eq!(logits(&dir, &odd), logits(&dir, &q4));
    let back = dir.path("back.gguf");
    for more in [&[][..], &["--no-mmap", "--memory", "1M"]] {
        ok(&[&["convert", &odd, &back][..], more].concat());
        for t in &source.model.tensors {
            assert!(stored(&back, &t.name) == stored(&q4, &t.name), "{}", t.name);
        }
    }
    ok(&["convert", &odd, &back, "--type", "f16"]);
    ok(&["convert", &q4, &dir.path("f16.gguf"), "--type", "f16"]);
    assert!(stored(&back, "blk.0.ffn_up.weight") == stored(&dir.path("f16.gguf"), "blk.0.ffn_up.weight"));
    // On the way to a checkpoint, rows get another order.
    let (one, two) = (dir.path("one") + "/", dir.path("two") + "/");
    ok(&["convert", &odd, &one, "--type", "f32"]);
    ok(&["convert", &q4, &two, "--type", "f32"]);
    assert!(dir.read("one/model.safetensors") == dir.read("two/model.safetensors"));

    // One scale for 128 weights, under the number that ggml took for 64: blocks of 34 bytes, as those of q8_0 are.
    let long = |t: &Tensor| t.name.starts_with("blk.") && t.shape.len() == 2;
    let data = |t: &Tensor| -> Vec<u8> {
        let block =
            |b: usize| [&[b as u8, 0x2C][..], &[(b * 7) as u8; 16], &[(b * 13 + 1) as u8; 16]].concat();
        (0..t.elements() as usize / 128).flat_map(block).collect()
    };
    let parts: Vec<_> = source
        .model
        .tensors
        .iter()
        .map(|t| match long(t) {
            true => (t.name.as_str(), vec![t.shape[0], t.shape[1] / 4], DType::Q8_0, data(t)),
            false => (t.name.as_str(), t.shape.clone(), DType::F32, vec![0; 4 * t.elements() as usize]),
        })
        .collect();
    let given: Vec<_> = parts.iter().map(|(n, s, d, b)| (*n, &s[..], *d, b.clone())).collect();
    let whole = assemble("x", &source.model.metadata, &given);
    // Rows of whole blocks, and the same blocks as rows of half the length, so that some blocks have the weights of two.
    for narrow in [1, 2] {
        let mut bytes = whole.clone();
        for (name, shape, ..) in parts.iter().filter(|p| p.2 == DType::Q8_0) {
            let at = dims_at(&bytes, name);
            bytes[at..at + 8].copy_from_slice(&(4 * shape[1] / narrow).to_le_bytes());
            bytes[at + 8..at + 16].copy_from_slice(&(shape[0] * narrow).to_le_bytes());
            bytes[at + 16..at + 20].copy_from_slice(&42u32.to_le_bytes());
        }
        std::fs::write(&odd, bytes).unwrap();
        let text = said(&["convert", &odd, &back]);
        assert!(text.contains("7 tensors are pq2_0 (PrismML's q2_0"), "{text}");
        for t in source.model.tensors.iter().filter(|t| long(t)) {
            let (blocks, data) = (stored(&back, &t.name), data(t));
            let wanted: Vec<u8> =
                data.chunks(34).flat_map(|b| [&b[..2], &b[2..18], &b[..2], &b[18..]].concat()).collect();
            assert!(blocks == wanted, "{} {narrow}", t.name);
        }
    }
}

#[test]
fn raw_pieces_and_glued_parts_are_recognised() {
    let dir = Dir::new();
    let whole = llama(&dir, "m.gguf");
    let bytes = dir.read("m.gguf");
    let third = bytes.len() / 3;
    for (names, all) in [
        (["m.gguf.part1of3", "m.gguf.part2of3", "m.gguf.part3of3"], "of 3"),
        (["m.gguf-split-a", "m.gguf-split-b", "m.gguf-split-c"], ""),
        (["m.gguf.001", "m.gguf.002", "m.gguf.003"], ""),
        (["m.ggufaa", "m.ggufab", "m.ggufac"], ""),
        (["m.part1.gguf", "m.part2.gguf", "m.part3.gguf"], ""),
        (["m-split-01-of-03.gguf", "m-split-02-of-03.gguf", "m-split-03-of-03.gguf"], "of 3"),
    ] {
        let parts = [&bytes[..third], &bytes[third..2 * third], &bytes[2 * third..]];
        names.iter().zip(parts).for_each(|(n, b)| std::fs::write(dir.path(n), b).unwrap());
        let (_, first) = fails(&["inspect", &dir.path(names[0])]);
        let command = format!("cat {} > m.gguf", names.join(" "));
        assert!(first.contains("is the first") && first.contains(all) && first.contains(&command), "{first}");
        let (_, later) = fails(&["inspect", &dir.path(names[1])]);
        assert!(later.contains("is raw piece 2") && later.contains(&command), "{later}");
        // Without the last one, the command would make a broken file.
        std::fs::remove_file(dir.path(names[2])).unwrap();
        let (_, first) = fails(&["inspect", &dir.path(names[0])]);
        assert!(first.contains("missing pieces") && !first.contains(&command), "{first}");
        names[..2].iter().for_each(|n| std::fs::remove_file(dir.path(n)).unwrap());
    }
    // A file that is cut short, and is not named like a piece, is what it was.
    std::fs::write(dir.path("short.gguf"), &bytes[..third]).unwrap();
    assert!(fails(&["inspect", &dir.path("short.gguf")]).1.contains("truncated"));

    ok(&["split", &whole, &dir.path("s.gguf"), "--max-tensors", "4"]);
    let part = |i: usize| dir.read(&format!("s-0000{i}-of-00003.gguf"));
    let (glued, merged) = (dir.path("glued.gguf"), dir.path("merged.gguf"));
    for (order, more) in [
        ([2, 3, 1], &[][..]),
        ([3, 2, 1], &["--no-mmap"]),
        ([1, 3, 2], &[]),
        ([1, 2, 3], &[]),
        ([1, 2, 3], &["--no-mmap"]),
    ] {
        std::fs::write(&glued, order.map(part).concat()).unwrap();
        let text = said(&[&["merge", &glued, &merged][..], more].concat());
        assert!(text.contains("one behind the other") && text.contains("byte"), "{text}");
        assert!(dir.read("merged.gguf") == bytes);
    }
    assert_eq!(logits(&dir, &glued), logits(&dir, &whole));
    // Joined by programs for texts.
    for between in ["\n", "\r\n", "\u{1a}"] {
        let parts = [1, 2, 3].map(|i| [part(i), between.as_bytes().to_vec()].concat());
        std::fs::write(&glued, parts.concat()).unwrap();
        said(&["merge", &glued, &merged]);
        assert!(dir.read("merged.gguf") == bytes);
    }
    // Bytes of a download's header, or of a mistake.
    std::fs::write(&glued, [&[0; 16][..], &bytes].concat()).unwrap();
    let (_, why) = fails(&["inspect", &glued]);
    assert!(why.contains("a GGUF begins at byte 16") && why.contains("tail -c +17"), "{why}");
    for (parts, says) in [
        ([part(1), part(2)].concat(), "is 2 parts of a split of 3, one behind the other"),
        ([part(2), part(3)].concat(), "is 2 parts of a split of 3, one behind the other"),
        ([part(1), part(2), part(2)].concat(), "is part 2 of 3, expected part 3"),
        (
            [part(1), part(2), part(3), part(1)].concat(),
            "is a split of 3 parts with another GGUF behind them",
        ),
        (part(1), "is part 1 of 3 of a split model, but is not named like one"),
    ] {
        std::fs::write(&glued, parts).unwrap();
        let (_, why) = fails(&["inspect", &glued]);
        assert!(why.contains(says) && why.contains("hint: "), "{why}");
    }
    std::fs::write(&glued, [&bytes[..], &bytes].concat()).unwrap();
    let text = said(&["inspect", &glued]);
    assert!(text.contains(&format!("another GGUF begins at byte {}", bytes.len())), "{text}");
}

#[test]
fn a_name_that_promises_many_parts_is_not_believed() {
    let dir = Dir::new();
    let whole = llama(&dir, "m.gguf");
    ok(&["convert", &whole, &dir.path("m.safetensors")]);
    for count in ["99999", "9999999999", "18446744073709551615"] {
        let name = |no: &str, end: &str| dir.path(&format!("m-{no}-of-{count}.{end}"));
        std::fs::copy(dir.path("m.safetensors"), name("00001", "safetensors")).unwrap();
        let (_, why) = fails(&["inspect", &name("00001", "safetensors")]);
        assert!(why.contains(&format!("m-00002-of-{count}.safetensors")), "{why}");
        let mut m = settings("llama");
        // The writer leaves out what is untrue of one file.
        m.set("splat.no", Value::U64(0));
        m.set("splat.count", Value::U64(count.parse().unwrap()));
        let part = name("00001", "gguf");
        write_gguf(&part, &m, &tensors(false));
        let mut bytes = std::fs::read(&part).unwrap();
        for at in 0..bytes.len() - 6 {
            if bytes[at..].starts_with(b"splat.") {
                bytes[at..at + 6].copy_from_slice(b"split.");
            }
        }
        std::fs::write(&part, bytes).unwrap();
        let (_, why) = fails(&["inspect", &name("00001", "gguf")]);
        assert!(why.contains(&format!("m-00002-of-{count}.gguf")), "{why}");
    }
}

#[test]
fn shapes_and_names_that_only_llama_cpp_does_not_read_are_kept() {
    let dir = Dir::new();
    let (model, out) = (dir.path("wide.gguf"), dir.path("out.gguf"));
    let long = format!("transformer_blocks.0.{}.weight", "a_module_with_a_rather_long_name".repeat(3));
    let mut m = Metadata::new();
    m.set("general.architecture", Value::text("wan"));
    let all: [Numbers; 3] = [
        ("patch_embedding.weight".into(), vec![8, 4, 1, 2, 32], noise(2048, 1)),
        (long.clone(), vec![64, 64], noise(4096, 2)),
        ("norm.weight".into(), vec![64], noise(64, 3)),
    ];
    write_gguf(&model, &m, &all);
    ok(&["inspect", &model, "--tensors"]);
    ok(&["verify", &model]);
    let text = said(&["quantize", &model, &out, "--type", "q8_0"]);
    assert!(text.contains("has 5 dimensions, more than 4: llama.cpp"), "{text}");
    let info = json(&["inspect", "--json", &out]);
    let types: Vec<_> =
        info["tensors"].as_array().unwrap().iter().map(|t| t["type"].as_str().unwrap()).collect();
    assert_eq!(types, ["f32", "q8_0", "f32"]);
    for (path, more) in [("w.safetensors", &[][..]), ("be.gguf", &["--endian", "big"])] {
        ok(&[&["convert", &model, &dir.path(path)][..], more].concat());
        let found = json(&["verify", &dir.path(path), "--against", &model, "--json"]);
        assert!(found["tensors"].as_array().unwrap().iter().all(|t| t["equal"] == true), "{path}");
    }
    ok(&["quantize", &dir.path("w.safetensors"), &out, "--type", "q8_0"]);
    for machine in ["llama.cpp", "ollama"] {
        let (_, why) = fails(&["convert", &model, &out, "--for", machine]);
        assert!(
            why.contains(&format!("--for {machine} does not support")) && why.contains("5 dimensions"),
            "{why}"
        );
    }
}

#[test]
fn tensors_that_the_network_does_not_read_are_refused() {
    let dir = Dir::new();
    let plain = logits(&dir, &llama(&dir, "plain.gguf"));
    let (path, out) = (dir.path("more.gguf"), dir.path("out.gguf"));
    let with = |name: &str, n: u64| {
        let mut all = tensors(false);
        all.push((name.into(), vec![n], vec![0.5; n as usize]));
        write_gguf(&path, &settings("llama"), &all);
    };
    for name in [
        "blk.0.ffn_down_norm_in.weight",
        "blk.1.attn_norm.weight",
        "blk.0.post_attention_norm.weight",
        "cls.bias",
    ] {
        with(name, HIDDEN);
        let why = not_run(&dir, &path);
        assert!(
            why.contains(&format!("tensor {name} is no part of the architecture llama with 1 layers")),
            "{why}"
        );
        // What does not compute with it keeps it.
        ok(&["quantize", &path, &out, "--type", "q8_0"]);
        assert!(stored(&out, name).len() as u64 == 4 * HIDDEN);
    }
    for name in ["blk.0.attn_rot_embd.weight", "blk.0.rotary_emb.inv_freq"] {
        with(name, 16);
        assert_eq!(logits(&dir, &path), plain, "{name}");
    }
    with("rope_freqs.weight", 16);
    assert_ne!(logits(&dir, &path), plain);
    let mut all = tensors(false);
    all.push(("rope_freqs.weight".into(), vec![16], [vec![1.0; 15], vec![-2.0]].concat()));
    write_gguf(&path, &settings("llama"), &all);
    assert!(not_run(&dir, &path).contains("rope_freqs.weight must have positive numbers (found -2)"));
}

#[test]
fn settings_of_a_wrong_type_or_range_are_refused() {
    let dir = Dir::new();
    let path = dir.path("m.gguf");
    let with = |key: &str, value: Value| {
        let mut m = settings("llama");
        m.set(key, value);
        write_gguf(&path, &m, &tensors(false));
    };
    let list = |values: &[u32]| {
        let values: Vec<_> = values.iter().map(|&v| Value::U32(v)).collect();
        Value::Array(Array::new(Kind::U32, &values).unwrap())
    };
    for (key, value) in [
        ("llama.rope.freq_base", Value::text("10000")),
        ("llama.rope.scaling.type", Value::U32(1)),
        ("llama.rope.scaling.factor", Value::text("4")),
        ("llama.rope.scale_linear", Value::F32(f32::NAN)),
        ("llama.attention.layer_norm_rms_epsilon", Value::F32(-1e-5)),
        ("llama.attention.layer_norm_rms_epsilon", Value::F32(0.0)),
        ("llama.attention.head_count_kv", list(&[2, 2])),
        ("llama.context_length", Value::F32(64.0)),
    ] {
        with(key, value);
        let why = not_run(&dir, &path);
        assert!(why.contains(&format!("metadata key {key} must be ")), "{why}");
    }
    // A factor without a type is linear, and the older key counts where the newer is missing; all three go along to a
    // checkpoint.
    let mut found = Vec::new();
    let factor = || Value::F32(4.0);
    for keys in [
        &[("scaling.factor", factor())][..],
        &[("scale_linear", factor())],
        &[("scaling.type", Value::text("linear")), ("scaling.factor", factor())],
    ] {
        let mut m = settings("llama");
        keys.iter().for_each(|(key, value)| m.set(&format!("llama.rope.{key}"), value.clone()));
        write_gguf(&path, &m, &tensors(false));
        found.push(logits(&dir, &path));
        let folder = format!("hub-{}/", found.len());
        ok(&["convert", &path, &dir.path(&folder)]);
        let config: serde_json::Value =
            serde_json::from_slice(&dir.read(&format!("{folder}config.json"))).unwrap();
        assert_eq!(config["rope_scaling"]["factor"], 4.0);
    }
    assert!(found[0] == found[1] && found[1] == found[2]);
    assert_ne!(found[0], logits(&dir, &llama(&dir, "plain.gguf")));

    // Weights that are stored rotated.
    with("prism.hadamard.block_size", Value::U32(64));
    assert!(not_run(&dir, &path).contains("stored rotated (prism.hadamard.block_size)"));
    for out in ["x.safetensors", "x.bin", "folder/"] {
        let (_, why) = fails(&["convert", &path, &dir.path(out)]);
        assert!(why.contains("stored rotated"), "{out}: {why}");
    }
    assert!(
        said(&["quantize", &path, &dir.path("q.gguf"), "--type", "q8_0"]).contains("only PrismML's programs")
    );
}

#[test]
fn what_an_older_result_leaves_and_what_an_edit_misses_is_said() {
    let dir = Dir::new();
    let whole = llama(&dir, "w.gguf");
    ok(&["convert", &whole, &dir.path("m.gguf")]);
    let text = said(&["split", &whole, &dir.path("m.gguf"), "--max-tensors", "4"]);
    assert!(text.contains("m.gguf stays beside the result"), "{text}");
    let text = said(&["split", &whole, &dir.path("m.gguf"), "--max-tensors", "6"]);
    assert!(text.contains("m-00001-of-00003.gguf and 3 more stay beside the result"), "{text}");
    let text = said(&["split", &whole, &dir.path("other.gguf"), "--max-tensors", "6"]);
    assert!(!text.contains("beside the result"), "{text}");

    let out = dir.path("e.gguf");
    let text = said(&["edit", &whole, &out, "--set", "llama.contxt_length=7", "--remove", "general.url"]);
    assert!(
        text.contains("--set llama.contxt_length: the key is new")
            && text.contains("is llama.context_length meant?")
    );
    assert!(text.contains("--remove general.url: there is no such key"), "{text}");
    let text = said(&["edit", &whole, &out, "--set", "llama.context_length=32"]);
    assert!(!text.contains("--set"), "{text}");
}

#[test]
fn openvino_gets_no_types_that_it_computes_otherwise() {
    let dir = Dir::new();
    let path = dir.path("m.gguf");
    let mut m = settings("qwen2");
    m.set("tokenizer.ggml.model", Value::text("gpt2"));
    write_gguf(&path, &m, &tensors(true));
    let out = dir.path("o.gguf");
    let (_, why) = fails(&["quantize", &path, &out, "--for", "openvino", "--type", "q4_1"]);
    assert!(
        ["q4_0", "q8_0", "q6_k", "f16"].iter().all(|t| why.contains(&format!("use --type {t}"))),
        "{why}"
    );
    ok(&["quantize", &path, &out, "--for", "openvino"]);
}

/// More layers than any model has are chosen types for, in memory and time for a test.
#[test]
fn types_are_chosen_for_thousands_of_matrices() {
    let dir = Dir::new();
    let config = std::fs::read_to_string(crate::common::demo("model/config.json")).unwrap();
    let mut config: serde_json::Value = serde_json::from_str(&config).unwrap();
    config["num_hidden_layers"] = 300.into();
    std::fs::write(dir.path("config.json"), config.to_string()).unwrap();
    let folder = dir.path("");
    let text = said(&["quantize", &folder, &dir.path("o.gguf"), "--bits-per-weight", "4", "--dry-run"]);
    assert!(text.contains("bits per weight"), "{text}");
    let rows = ok(&["frontier", &folder]);
    assert!(rows.contains("q4_k_m"), "{rows}");
}
