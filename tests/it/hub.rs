//! Hugging Face checkpoints: in, out, and everything that can be wrong with one.

use std::path::Path;

use crate::common::{self, Dir, fails, json, ok, published};
use serde_json::{Value, json as of};

/// A tensor of a made-up checkpoint: name, type, shape, bytes.
pub type Tensor = (String, &'static str, Vec<usize>, Vec<u8>);

/// Numbers with eight significant bits, so that bf16 holds them, different for every seed.
pub fn weights(n: usize, seed: usize) -> Vec<f32> {
    (0..n).map(|i| (((i * 7919 + seed * 104_729) % 251) as f32 - 125.0) / 512.0).collect()
}

pub fn bf16(x: &[f32]) -> Vec<u8> {
    x.iter().flat_map(|x| x.to_le_bytes()[2..4].to_vec()).collect()
}

pub const HIDDEN: usize = 64;
pub const INTERMEDIATE: usize = 128;
pub const VOCAB: usize = 40;

pub fn config(class: &str) -> Value {
    of!({
        "architectures": [class], "model_type": "llama", "hidden_size": HIDDEN, "intermediate_size": INTERMEDIATE,
        "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": VOCAB,
        "max_position_embeddings": 32, "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "torch_dtype": "bfloat16",
        "tie_word_embeddings": false,
    })
}

/// The tensors of a two-layer model; `more` names further ones in a layer with their rows.
pub fn tensors(more: &[(&str, usize)]) -> Vec<Tensor> {
    let mut all = Vec::new();
    let mut add = |name: String, shape: Vec<usize>| {
        let n = shape.iter().product();
        let seed = all.len();
        all.push((name, "BF16", shape, bf16(&weights(n, seed))));
    };
    add("lm_head.weight".into(), vec![VOCAB, HIDDEN]);
    add("model.embed_tokens.weight".into(), vec![VOCAB, HIDDEN]);
    for layer in 0..2 {
        let mut add = |name: &str, shape: Vec<usize>| add(format!("model.layers.{layer}.{name}"), shape);
        add("input_layernorm.weight", vec![HIDDEN]);
        add("post_attention_layernorm.weight", vec![HIDDEN]);
        add("self_attn.q_proj.weight", vec![HIDDEN, HIDDEN]);
        add("self_attn.k_proj.weight", vec![HIDDEN / 2, HIDDEN]);
        add("self_attn.v_proj.weight", vec![HIDDEN / 2, HIDDEN]);
        add("self_attn.o_proj.weight", vec![HIDDEN, HIDDEN]);
        add("mlp.gate_proj.weight", vec![INTERMEDIATE, HIDDEN]);
        add("mlp.up_proj.weight", vec![INTERMEDIATE, HIDDEN]);
        add("mlp.down_proj.weight", vec![HIDDEN, INTERMEDIATE]);
        for (name, rows) in more {
            add(name, vec![*rows]);
        }
    }
    add("model.norm.weight".into(), vec![HIDDEN]);
    all
}

/// A safetensors file.
pub fn write(path: &Path, tensors: &[Tensor]) {
    write_with(path, of!({"format": "pt"}), tensors);
}

/// A safetensors file with this metadata.
pub fn write_with(path: &Path, metadata: Value, tensors: &[Tensor]) {
    let mut header = serde_json::Map::new();
    header.insert("__metadata__".into(), metadata);
    let mut at = 0;
    for (name, dtype, shape, bytes) in tensors {
        let end = at + bytes.len();
        header.insert(name.clone(), of!({"dtype": dtype, "shape": shape, "data_offsets": [at, end]}));
        at = end;
    }
    let header = Value::Object(header).to_string();
    let data = tensors.iter().flat_map(|t| t.3.clone());
    let bytes: Vec<u8> =
        (header.len() as u64).to_le_bytes().into_iter().chain(header.bytes()).chain(data).collect();
    std::fs::write(path, bytes).unwrap();
}

/// A checkpoint's folder.
pub fn checkpoint(dir: &Dir, name: &str, config: &Value, tensors: &[Tensor]) -> String {
    let path = dir.path(name);
    std::fs::create_dir(&path).unwrap();
    std::fs::write(format!("{path}/config.json"), config.to_string()).unwrap();
    write(Path::new(&format!("{path}/model.safetensors")), tensors);
    path
}

/// The stored bytes of a tensor in a file that ggufkit wrote.
fn stored(path: &str, name: &str) -> Vec<u8> {
    let info = json(&["inspect", "--json", path]);
    let all = info["tensors"].as_array().unwrap();
    let t = all.iter().find(|t| t["name"] == name).unwrap_or_else(|| panic!("no {name} in {path}"));
    let file = match Path::new(path).is_dir() {
        true => format!("{path}/model.safetensors"),
        false => path.to_string(),
    };
    let bytes = std::fs::read(file).unwrap();
    let (at, n) = (t["offset"].as_u64().unwrap() as usize, t["bytes"].as_u64().unwrap() as usize);
    bytes[at..at + n].to_vec()
}

/// Rows in the order of `order`, each of `bytes` bytes.
fn reordered(data: &[u8], bytes: usize, order: impl Iterator<Item = usize>) -> Vec<u8> {
    order.flat_map(|row| data[row * bytes..(row + 1) * bytes].to_vec()).collect()
}

#[test]
fn llama_goes_there_and_back() {
    let dir = Dir::new();
    let all = tensors(&[]);
    let hub = checkpoint(&dir, "hub", &config("LlamaForCausalLM"), &all);
    let gguf = dir.path("m.gguf");
    ok(&["convert", &hub, &gguf]);
    let info = json(&["inspect", "--json", &gguf]);
    assert_eq!(info["tensors"].as_array().unwrap().len(), all.len());
    let find = |name: &str| &all.iter().find(|t| t.0 == name).unwrap().3;
    // Heads of 16 rows: the halves are interleaved.
    let order = |rows: usize| (0..rows).map(|r| r / 16 * 16 + r % 16 / 2 + r % 2 * 8);
    let q = find("model.layers.1.self_attn.q_proj.weight");
    assert!(stored(&gguf, "blk.1.attn_q.weight") == reordered(q, 2 * HIDDEN, order(HIDDEN)));
    let k = find("model.layers.0.self_attn.k_proj.weight");
    assert!(stored(&gguf, "blk.0.attn_k.weight") == reordered(k, 2 * HIDDEN, order(HIDDEN / 2)));
    assert!(stored(&gguf, "blk.0.attn_v.weight") == *find("model.layers.0.self_attn.v_proj.weight"));
    assert_eq!(stored(&gguf, "blk.0.attn_norm.weight").len(), 4 * HIDDEN, "norms are f32");

    let back = format!("{}/", dir.path("back"));
    ok(&["convert", &gguf, &back]);
    for (name, _, _, bytes) in &all {
        assert!(stored(&back, name) == *bytes, "{name}");
    }
    let settings: Value = serde_json::from_slice(&dir.read("back/config.json")).unwrap();
    assert_eq!(settings["architectures"][0], "LlamaForCausalLM");
    assert_eq!(settings["dtype"], "bfloat16");
    assert_eq!((settings["rope_theta"].as_f64(), settings["rms_norm_eps"].as_f64()), (Some(1e4), Some(1e-5)));
    // Once more, and every file is the same; also from its own file, and read in pieces.
    ok(&["convert", &back, &dir.path("again.gguf")]);
    ok(&["verify", &dir.path("again.gguf"), "--against", &gguf]);
    ok(&["verify", &gguf, "--against", &hub]);
    ok(&[
        "convert",
        &format!("{hub}/model.safetensors"),
        &dir.path("pieces.gguf"),
        "--no-mmap",
        "--threads",
        "3",
    ]);
    ok(&["verify", &dir.path("pieces.gguf"), "--against", &gguf]);
    // A checkpoint to a checkpoint keeps the order.
    let half = format!("{}/", dir.path("half"));
    ok(&["convert", &hub, &half, "--type", "f16"]);
    ok(&["verify", &half, "--against", &hub]);
}

#[test]
fn llama2c_becomes_a_checkpoint_and_comes_back() {
    let dir = Dir::new();
    let hub = format!("{}/", dir.path("hub"));
    ok(&["convert", &common::demo("tiny.bin"), &hub]);
    ok(&["convert", &hub, &dir.path("back.bin")]);
    // The same weights; the tables of frequencies, which no reader uses, are computed anew.
    let found = json(&["verify", &dir.path("back.bin"), "--against", &common::demo("tiny.bin"), "--json"]);
    assert!(found["tensors"].as_array().unwrap().iter().all(|t| t["equal"] == true));
    ok(&["quantize", &common::demo("tiny.bin"), &dir.path("int8.bin"), "--type", "int8"]);
    let hub = format!("{}/", dir.path("from8"));
    ok(&["convert", &dir.path("int8.bin"), &hub]);
    ok(&["convert", &hub, &dir.path("f32.bin")]);
    ok(&["verify", &dir.path("f32.bin"), "--against", &dir.path("int8.bin")]);
}

#[test]
fn other_architectures_keep_the_order_of_rows() {
    let dir = Dir::new();
    let biases = [
        ("self_attn.q_proj.bias", HIDDEN),
        ("self_attn.k_proj.bias", HIDDEN / 2),
        ("self_attn.v_proj.bias", HIDDEN / 2),
    ];
    let norms = [("self_attn.q_norm.weight", 16), ("self_attn.k_norm.weight", 16)];
    for (class, more) in [("Qwen2ForCausalLM", &biases[..]), ("Qwen3ForCausalLM", &norms[..])] {
        let mut all = tensors(more);
        all.remove(0); // tied
        let mut settings = config(class);
        settings["tie_word_embeddings"] = of!(true);
        settings["head_dim"] = of!(16);
        let hub = checkpoint(&dir, class, &settings, &all);
        let gguf = dir.path(&format!("{class}.gguf"));
        ok(&["convert", &hub, &gguf]);
        let q = &all.iter().find(|t| t.0 == "model.layers.1.self_attn.q_proj.weight").unwrap().3;
        assert!(stored(&gguf, "blk.1.attn_q.weight") == *q);
        let back = format!("{}/", dir.path(&format!("{class}-back")));
        ok(&["convert", &gguf, &back]);
        for (name, _, _, bytes) in &all {
            assert!(stored(&back, name) == *bytes, "{name}");
        }
    }
}

/// Packs `[rows, cols]` of -1, 0, 1 as transformers does.
fn packed(t: &[i8], rows: usize, cols: usize) -> Vec<u8> {
    let quarter = rows / 4;
    let code = |row: usize, col: usize| (t[row * cols + col] + 1) as u8;
    let byte = |(r, c): (usize, usize)| (0..4).map(|i| code(r + i * quarter, c) << (2 * i)).sum();
    (0..quarter).flat_map(|r| (0..cols).map(move |c| (r, c))).map(byte).collect()
}

#[test]
fn ternary_checkpoints_give_their_own_magnitudes() {
    let dir = Dir::new();
    for (form, class, scale, magnitude) in [
        (of!({"quant_method": "bitnet", "linear_class": "autobitlinear"}), "BitNetForCausalLM", 0.25, 0.25),
        (of!({"quant_method": "bitnet", "linear_class": "bitlinear"}), "LlamaForCausalLM", 40.0, 1.0 / 40.0),
        (of!({"quant_method": "bitnet"}), "LlamaForCausalLM", 40.0, 1.0 / 40.0),
    ] {
        let mut settings = config(class);
        settings["quantization_config"] = form;
        let norms = [("self_attn.attn_sub_norm.weight", HIDDEN), ("mlp.ffn_sub_norm.weight", INTERMEDIATE)];
        let bitnet = class == "BitNetForCausalLM";
        let mut all = Vec::new();
        for t in tensors(if bitnet { &norms } else { &[] }) {
            if !t.0.contains("_proj") {
                all.push(t);
                continue;
            }
            let (rows, cols) = (t.2[0], t.2[1]);
            let signs: Vec<i8> = (0..rows * cols).map(|i| (i * 31 % 7 % 3) as i8 - 1).collect();
            all.push((t.0.clone(), "U8", vec![rows / 4, cols], packed(&signs, rows, cols)));
            all.push((format!("{}_scale", t.0), "BF16", vec![1], bf16(&[scale])));
        }
        let hub = checkpoint(&dir, &format!("{class}-{scale}-{}", dir.names().len()), &settings, &all);
        let gguf = format!("{hub}.gguf");
        ok(&["convert", &hub, &gguf, "--type", "f32"]);
        let v = stored(&gguf, "blk.1.attn_v.weight");
        let wanted = |i: usize| ((i * 31 % 7 % 3) as f32 - 1.0) * magnitude;
        let values = v.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b));
        assert!(values.enumerate().all(|(i, x)| x == wanted(i)), "{class}");
        let q = stored(&gguf, "blk.0.attn_q.weight");
        let row = |r: usize| if bitnet { r } else { r / 16 * 16 + r % 16 / 2 + r % 2 * 8 };
        let values = q.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b));
        assert!(values.enumerate().all(|(i, x)| x == wanted(row(i / HIDDEN) * HIDDEN + i % HIDDEN)));
        let info = json(&["inspect", "--json", &gguf]);
        let arch = &info["metadata"].as_array().unwrap()[0];
        assert!(arch.to_string().contains(if bitnet { "bitnet-b1.58" } else { "llama" }), "{arch}");
        // Kept, it is the smallest float type that loses nothing.
        ok(&["convert", &hub, &dir.path("kept.gguf")]);
        ok(&["verify", &dir.path("kept.gguf"), "--against", &gguf]);
    }
}

#[test]
fn master_weights_are_rounded_to_their_mean_and_ternary_ones_are_not() {
    let dir = Dir::new();
    let mut settings = config("BitNetForCausalLM");
    settings["quantization_config"] =
        of!({"quant_method": "bitnet", "linear_class": "autobitlinear", "quantization_mode": "online"});
    let mut all =
        tensors(&[("self_attn.attn_sub_norm.weight", HIDDEN), ("mlp.ffn_sub_norm.weight", INTERMEDIATE)]);
    let up = all.iter().position(|t| t.0 == "model.layers.0.mlp.up_proj.weight").unwrap();
    let ternary: Vec<f32> = (0..INTERMEDIATE * HIDDEN).map(|i| [0.5, 0.0, -0.5][i % 3]).collect();
    all[up].3 = bf16(&ternary);
    let hub = checkpoint(&dir, "hub", &settings, &all);
    let gguf = dir.path("m.gguf");
    ok(&["convert", &hub, &gguf]);
    let floats = |name: &str| -> Vec<f32> {
        stored(&gguf, name).as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
    };
    assert!(floats("blk.0.ffn_up.weight") == ternary, "its mean is a third of its magnitude");
    let at = all.iter().position(|t| t.0 == "model.layers.1.mlp.up_proj.weight").unwrap();
    let master = weights(INTERMEDIATE * HIDDEN, at);
    let mean = (master.iter().map(|x| f64::from(x.abs())).sum::<f64>() / master.len() as f64) as f32;
    for (x, w) in floats("blk.1.ffn_up.weight").iter().zip(&master) {
        assert_eq!(*x, (w / mean).round_ties_even().clamp(-1.0, 1.0) * mean);
    }
}

#[test]
fn what_is_wrong_with_a_checkpoint_is_said() {
    let dir = Dir::new();
    let llama = config("LlamaForCausalLM");
    let mut count = 0;
    let mut refused = |settings: &Value, tensors: &[Tensor], says: &[&str]| {
        count += 1;
        let hub = checkpoint(&dir, &format!("hub{count}"), settings, tensors);
        let (code, text) = fails(&["convert", &hub, &dir.path("out.gguf")]);
        assert_eq!(code, 1, "{text}");
        assert!(says.iter().all(|s| text.contains(s)), "{says:?}: {text}");
        assert!(!dir.names().iter().any(|n| n.starts_with("out")));
    };
    let with = |key: &str, value: Value| {
        let mut settings = llama.clone();
        settings[key] = value;
        settings
    };
    let all = tensors(&[]);
    let mut unnamed = with("architectures", of!(null));
    unnamed["model_type"] = of!(null);
    refused(&unnamed, &all, &["config.json", "\"architectures\": [\"LlamaForCausalLM\"]"]);
    refused(
        &with("architectures", of!(["GPT9LMHead"])),
        &all,
        &["GPT9LMHead", "Qwen2ForCausalLM", "LlamaFor"],
    );
    refused(&with("vocab_size", of!(41)), &all, &["expected shape [41, ", "found [40, "]);
    refused(&with("num_hidden_layers", of!(3)), &all, &["model.layers.2.", "missing"]);
    refused(
        &with("num_hidden_layers", of!(1)),
        &all,
        &["has 2 layers (tensor model.layers.1.", "num_hidden_layers: 1"],
    );
    let mut fp8 = all.clone();
    fp8.push(("model.layers.0.mlp.up_proj.weight_scale".into(), "F32", vec![1], vec![0; 4]));
    refused(&with("quantization_config", of!({"quant_method": "fp8"})), &fp8, &["fp8", "weight_scale"]);
    refused(&with("hidden_act", of!("gelu")), &all, &["gelu"]);
    refused(&of!([1, 2]), &all, &["architecture"]);
    refused(&llama, &all[1..], &["lm_head.weight is missing"]);
    let mut odd = all.clone();
    odd.push(("model.layers.0.self_attn.rotary_emb.inv_freq".into(), "BF16", vec![1], vec![0, 0]));
    odd.push(("model.vision.weight".into(), "BF16", vec![1], vec![0, 0]));
    refused(&llama, &odd, &["model.vision.weight is not part of the architecture"]);
    let mut nan = all.clone();
    let up = nan.iter().position(|t| t.0 == "model.layers.1.mlp.up_proj.weight").unwrap();
    nan[up].3[2 * 1000..2 * 1000 + 2].copy_from_slice(&[0xC0, 0x7F]);
    let hub = checkpoint(&dir, "nan", &llama, &nan);
    for kind in ["keep", "f16", "q8_0"] {
        let (_, text) = fails(&["convert", &hub, &dir.path("out.gguf"), "--type", kind]);
        assert!(text.contains("blk.1.ffn_up.weight") && text.contains("weight 1000"), "{text}");
    }
    // The two-bit code that means nothing.
    let mut ternary =
        with("quantization_config", of!({"quant_method": "bitnet", "linear_class": "bitlinear"}));
    ternary["num_hidden_layers"] = of!(2);
    let mut codes = Vec::new();
    for t in &all {
        if t.0.contains("_proj") {
            codes.push((t.0.clone(), "U8", vec![t.2[0] / 4, t.2[1]], vec![0xFF; t.2[0] * t.2[1] / 4]));
            codes.push((format!("{}_scale", t.0), "BF16", vec![1], bf16(&[8.0])));
        } else {
            codes.push(t.clone());
        }
    }
    let hub = checkpoint(&dir, "codes", &ternary, &codes);
    for kind in ["keep", "q8_0"] {
        let (_, text) = fails(&["convert", &hub, &dir.path("out.gguf"), "--type", kind]);
        assert!(text.contains("weight 0"), "{text}");
    }
}

/// Published models, by their settings alone: tensors and settings must be those that their conversions have.
#[test]
#[ignore = "needs published files (see CONTRIBUTING.md)"]
fn published_settings_give_the_tensors_of_published_conversions() {
    let read = |path: &str| -> Value {
        serde_json::from_slice(&std::fs::read(published(&format!("data/configs/{path}"))).unwrap()).unwrap()
    };
    let dir = Dir::new();
    // The settings of a sibling, with what differs between the two.
    for (expected, sibling, patch) in [
        (
            "Meta-Llama-3-8B-Instruct",
            "meta-llama--Meta-Llama-3.1-8B",
            of!({"rope_scaling": null, "max_position_embeddings": 8192}),
        ),
        ("Mistral-7B-Instruct-v0.2", "mlc--mistral_7b", of!({"rope_theta": 1000000.0})),
        ("Qwen2.5-0.5B-Instruct", "mlc--qwen2_0_5b", of!({})),
    ] {
        let mut settings = read(&format!("{sibling}/config.json"));
        settings.as_object_mut().unwrap().extend(patch.as_object().unwrap().clone());
        let hub = dir.path(expected);
        std::fs::create_dir(&hub).unwrap();
        std::fs::write(format!("{hub}/config.json"), settings.to_string()).unwrap();
        let plan = json(&["convert", &hub, &dir.path("x.gguf"), "--type", "f16", "--dry-run", "--json"]);
        let mut names: Vec<&str> =
            plan["tensors"].as_array().unwrap().iter().map(|t| t["name"].as_str().unwrap()).collect();
        names.sort_unstable();
        let wanted = read(&format!("_ollama-convert-expected/{expected}.json"));
        let wanted = wanted.as_object().unwrap();
        let is_tensor = |k: &&str| k.ends_with(".weight") || k.ends_with(".bias");
        let mut tensors: Vec<&str> = wanted.keys().map(String::as_str).filter(is_tensor).collect();
        tensors.sort_unstable();
        assert_eq!(names, tensors, "{expected}");
        for t in plan["tensors"].as_array().unwrap() {
            let vector = t["shape"].as_array().unwrap().len() == 1;
            assert_eq!(t["type"], if vector { "f32" } else { "f16" }, "{expected}: {}", t["name"]);
        }
        let metadata = plan["metadata"].as_array().unwrap();
        for (key, value) in
            wanted.iter().filter(|(k, _)| !is_tensor(&k.as_str()) && !k.starts_with("tokenizer."))
        {
            if key == "general.parameter_count" {
                continue; // ollama's own
            }
            let found =
                metadata.iter().find(|e| e[0] == **key).unwrap_or_else(|| panic!("{expected}: no {key}"));
            let number = |text: &str| text.parse::<f64>().map(|x| x as f32);
            match (value.as_str().unwrap(), found[2].as_f64()) {
                (text, Some(x)) => assert_eq!(number(text), Ok(x as f32), "{expected}: {key}"),
                (text, None) => assert_eq!(found[2], text, "{expected}: {key}"),
            }
        }
    }
}

#[test]
fn a_rewritten_checkpoint_has_the_names_of_its_format() {
    let dir = Dir::new();
    let hub = checkpoint(&dir, "hub", &config("LlamaForCausalLM"), &tensors(&[]));
    let (whole, edited) = (dir.path("whole.gguf"), dir.path("edited.gguf"));
    ok(&["convert", &hub, &whole]);
    ok(&["edit", &hub, &edited, "--set", "general.name=Other"]);
    ok(&["verify", &edited, "--against", &whole]);
    let info = json(&["inspect", "--json", &edited]);
    assert!(info["metadata"].as_array().unwrap().contains(&of!(["general.name", "str", "Other"])), "{info}");
    let one = dir.path("one.safetensors");
    ok(&["merge", &hub, &one]);
    assert!(stored(&one, "model.norm.weight") == stored(&hub, "model.norm.weight"));
}

#[test]
fn metadata_cannot_be_set_in_a_checkpoint() {
    let dir = Dir::new();
    let hub = checkpoint(&dir, "hub", &config("LlamaForCausalLM"), &tensors(&[]));
    let out = format!("{}/", dir.path("out"));
    let (code, text) = fails(&["convert", &hub, &out, "--set", "llama.rope.freq_base=f32:5"]);
    assert!(code == 2 && text.contains("config.json"), "{text}");
    assert_eq!(dir.names(), ["hub"]);
}

#[test]
fn biases_are_switched_on_in_config_json() {
    let dir = Dir::new();
    let biases = [("self_attn.q_proj.bias", HIDDEN), ("mlp.down_proj.bias", HIDDEN)];
    for (name, more, on) in [("with", &biases[..], Some(true)), ("without", &[], None)] {
        let hub = checkpoint(&dir, name, &config("LlamaForCausalLM"), &tensors(more));
        let (gguf, back) = (format!("{hub}.gguf"), format!("{hub}-back/"));
        ok(&["convert", &hub, &gguf]);
        ok(&["convert", &gguf, &back]);
        let settings: Value = serde_json::from_slice(&std::fs::read(back + "config.json").unwrap()).unwrap();
        assert_eq!((settings["attention_bias"].as_bool(), settings["mlp_bias"].as_bool()), (on, on));
    }
}

#[test]
fn modules_that_were_not_converted_keep_their_floats() {
    let dir = Dir::new();
    let mut settings = config("LlamaForCausalLM");
    settings["quantization_config"] = of!({"quant_method": "bitnet", "linear_class": "autobitlinear",
        "quantization_mode": "online", "modules_to_not_convert": ["model.layers.1"]});
    let all = tensors(&[]);
    let hub = checkpoint(&dir, "hub", &settings, &all);
    let gguf = dir.path("m.gguf");
    ok(&["convert", &hub, &gguf]);
    let up = |layer: usize| {
        &all.iter().find(|t| t.0 == format!("model.layers.{layer}.mlp.up_proj.weight")).unwrap().3
    };
    assert!(stored(&gguf, "blk.1.ffn_up.weight") == *up(1));
    assert!(stored(&gguf, "blk.0.ffn_up.weight").len() == 2 * up(0).len(), "rounded, in f32");
}

#[test]
fn llama2c_says_what_it_does_not_run() {
    let dir = Dir::new();
    let norms = [("self_attn.q_norm.weight", 16), ("self_attn.k_norm.weight", 16)];
    let mut settings = config("Qwen3ForCausalLM");
    settings["head_dim"] = of!(16);
    let hub = checkpoint(&dir, "hub", &settings, &tensors(&norms));
    for kind in ["f32", "int8"] {
        let (_, text) = fails(&["convert", &hub, &dir.path("m.bin"), "--type", kind]);
        assert!(text.contains("\"qwen3\""), "{text}");
    }
}
