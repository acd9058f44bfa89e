//! Checkpoints as they are found: saved by other programs than transformers, with settings that say something else than
//! the tensors, with other files beside them, or no checkpoints at all.

use std::path::Path;

use crate::common::{Dir, fails, json, ok, weights};
use crate::hub::{HIDDEN, INTERMEDIATE, Tensor, VOCAB, bf16, checkpoint, config, tensors, write, write_with};
use serde_json::{Value, json as of};

/// The tensors under other names; those without one are left out.
fn renamed(all: &[Tensor], name: impl Fn(&str) -> Option<String>) -> Vec<Tensor> {
    let one = |t: &Tensor| Some((name(&t.0)?, t.1, t.2.clone(), t.3.clone()));
    all.iter().filter_map(one).collect()
}

/// Converts, and gives the report.
fn convert(hub: &str, out: &str) -> String {
    ok(&["convert", hub, out])
}

/// Whether two models have the same tensors, names and numbers.
fn same(one: &str, other: &str) {
    ok(&["verify", one, "--against", other]);
    let found = json(&["verify", one, "--against", other, "--json"]);
    assert!(found["tensors"].as_array().unwrap().iter().all(|t| t["equal"] == true), "{found}");
}

fn settings(path: &str) -> Value {
    serde_json::from_slice(&std::fs::read(format!("{path}/config.json")).unwrap()).unwrap()
}

#[test]
fn names_of_wrappers_and_of_base_models_are_understood() {
    let dir = Dir::new();
    let all = tensors(&[]);
    let plain = dir.path("plain.gguf");
    convert(&checkpoint(&dir, "plain", &config("LlamaForCausalLM"), &all), &plain);
    for (name, prefix, says) in [
        ("ddp", "module._orig_mod.", "\"module.\""),
        ("fsdp", "_fsdp_wrapped_module.", "_fsdp_wrapped_module in names"),
        ("policy", "actor.policy.", "\"actor.policy.\""),
        ("peft", "base_model.model.", "\"base_model.model.\""),
    ] {
        let wrapped = renamed(&all, |n| Some(format!("{prefix}{n}")));
        let out = dir.path(&format!("{name}.gguf"));
        let text = convert(&checkpoint(&dir, name, &config("LlamaForCausalLM"), &wrapped), &out);
        assert!(text.contains(says), "{name}: {text}");
        same(&out, &plain);
    }
    // Without "model.", with a head and a value head beside it.
    let mut base = renamed(&all, |n| Some(n.strip_prefix("model.").unwrap_or(n).to_string()));
    base.push(("v_head.summary.weight".into(), "BF16", vec![1, HIDDEN], vec![0; 2 * HIDDEN]));
    base.push(("rotary_emb.cos_cached".into(), "BF16", vec![4], vec![0; 8]));
    let out = dir.path("base.gguf");
    let text = convert(&checkpoint(&dir, "base", &config("LlamaForCausalLM"), &base), &out);
    assert!(text.contains("v_head.summary.weight and 1 more"), "{text}");
    same(&out, &plain);
}

#[test]
fn a_base_model_has_no_output_matrix() {
    let dir = Dir::new();
    let all = tensors(&[]);
    let tied = dir.path("tied.gguf");
    let mut of_tied = config("LlamaForCausalLM");
    of_tied["tie_word_embeddings"] = of!(true);
    convert(&checkpoint(&dir, "tied", &of_tied, &all[1..]), &tied);
    let bare = renamed(&all[1..], |n| n.strip_prefix("model.").map(String::from));
    for (name, class, stored) in [
        ("headless", "LlamaForCausalLM", &bare),
        ("class", "LlamaModel", &bare),
        ("named", "LlamaModel", &all[1..].to_vec()),
    ] {
        let hub = checkpoint(&dir, name, &config(class), stored);
        let out = dir.path(&format!("{name}.gguf"));
        let text = convert(&hub, &out);
        assert!(text.contains("no output matrix (lm_head.weight)"), "{name}: {text}");
        same(&out, &tied);
        // What is written again can be read again, by this program and by transformers.
        let again = format!("{}/", dir.path(&format!("{name}-again")));
        convert(&hub, &again);
        let written = settings(&again);
        assert_eq!(written["architectures"][0], class);
        assert_eq!(written["tie_word_embeddings"], class == "LlamaForCausalLM");
        convert(&again, &dir.path(&format!("{name}-again.gguf")));
        same(&dir.path(&format!("{name}-again.gguf")), &tied);
    }
    // A causal language model that should have one is refused.
    let hub = checkpoint(&dir, "missing", &config("LlamaForCausalLM"), &all[1..]);
    let (_, text) = fails(&["convert", &hub, &dir.path("x.gguf")]);
    assert!(text.contains("lm_head.weight is missing") && text.contains("tie_word_embeddings"), "{text}");
}

#[test]
fn tied_embeddings_are_stored_under_either_name() {
    let dir = Dir::new();
    let all = tensors(&[]);
    let mut tied = config("LlamaForCausalLM");
    tied["tie_word_embeddings"] = of!(true);
    let plain = dir.path("plain.gguf");
    convert(&checkpoint(&dir, "plain", &tied, &all[1..]), &plain);
    // The embedding's numbers under the output matrix's name.
    let mut head = all[1..].to_vec();
    head[0].0 = "lm_head.weight".into();
    let out = dir.path("head.gguf");
    assert!(convert(&checkpoint(&dir, "head", &tied, &head), &out).contains("embeddings are tied"));
    same(&out, &plain);
    // safetensors' save_model keeps one of two tensors that share memory, and names the other in the metadata.
    for (name, stored, alias, kept) in [
        ("a", &head, "model.embed_tokens.weight", "lm_head.weight"),
        ("b", &all[1..].to_vec(), "lm_head.weight", "model.embed_tokens.weight"),
    ] {
        let hub = checkpoint(&dir, name, &config("LlamaForCausalLM"), &[]);
        write_with(
            Path::new(&format!("{hub}/model.safetensors")),
            of!({"format": "pt", alias: kept}),
            stored,
        );
        let out = format!("{hub}.gguf");
        assert!(convert(&hub, &out).contains("tied"), "{name}");
        same(&out, &plain);
    }
}

#[test]
fn settings_left_behind_do_not_decide() {
    let dir = Dir::new();
    let all = tensors(&[]);
    let plain = dir.path("plain.gguf");
    convert(&checkpoint(&dir, "plain", &config("LlamaForCausalLM"), &all), &plain);
    for (name, key, value) in [
        ("gptq", "quantization_config", of!({"quant_method": "gptq", "bits": 4, "group_size": 128})),
        ("compressed", "compression_config", of!({"quant_method": "compressed-tensors"})),
        ("mlx", "quantization", of!({"group_size": 32, "bits": 8})),
    ] {
        let mut settings_of = config("LlamaForCausalLM");
        settings_of[key] = value;
        let hub = checkpoint(&dir, name, &settings_of, &all);
        let out = dir.path(&format!("{name}.gguf"));
        let text = convert(&hub, &out);
        assert!(
            text.contains("config.json says that the weights are quantized") && text.contains("bf16"),
            "{text}"
        );
        same(&out, &plain);
        let again = format!("{}/", dir.path(&format!("{name}-again")));
        convert(&hub, &again);
        assert!(settings(&again)[key].is_null(), "{name}");
    }
    // No class: the kind of model decides, and the copy names the class.
    let mut unnamed = config("LlamaForCausalLM");
    unnamed.as_object_mut().unwrap().remove("architectures");
    unnamed["model_type"] = of!("mistral");
    let hub = checkpoint(&dir, "unnamed", &unnamed, &all);
    assert!(convert(&hub, &dir.path("unnamed.gguf")).contains("MistralForCausalLM"));
    same(&dir.path("unnamed.gguf"), &plain);
    let again = format!("{}/", dir.path("unnamed-again"));
    convert(&hub, &again);
    assert_eq!(settings(&again)["architectures"], of!(["MistralForCausalLM"]));
}

#[test]
fn numbers_as_python_writes_them_are_read() {
    let dir = Dir::new();
    let hub = checkpoint(&dir, "hub", &config("LlamaForCausalLM"), &tensors(&[]));
    let text = config("LlamaForCausalLM").to_string();
    let odd =
        text.replacen('{', "{\"time_step_limit\": [0.0, Infinity], \"loss\": NaN, \"low\": -Infinity, ", 1);
    std::fs::write(format!("{hub}/config.json"), &odd).unwrap();
    std::fs::write(format!("{hub}/generation_config.json"), "{\"top_k\": 7, \"temperature\": NaN}").unwrap();
    let out = dir.path("m.gguf");
    convert(&hub, &out);
    let info = json(&["inspect", "--json", &out]);
    assert!(
        info["metadata"].as_array().unwrap().contains(&of!(["general.sampling.top_k", "i32", 7])),
        "{info}"
    );
    // What is written again is JSON that transformers understands.
    let again = format!("{}/", dir.path("again"));
    convert(&hub, &again);
    assert_eq!(settings(&again)["time_step_limit"], of!([0.0, {"__float__": "Infinity"}]));
    // A setting that counts has to be a number.
    std::fs::write(format!("{hub}/config.json"), text.replace("10000.0", "NaN")).unwrap();
    let (_, text) = fails(&["convert", &hub, &out]);
    assert!(text.contains("rope_theta") && text.contains("NaN"), "{text}");
}

/// Weights as MLX packs them: codes, scales and offsets, and the numbers that they stand for.
fn mlx(
    rows: usize,
    cols: usize,
    bits: usize,
    group: usize,
    seed: usize,
) -> (Vec<u8>, Vec<f32>, Vec<f32>, Vec<f32>) {
    let codes: Vec<usize> = (0..rows * cols).map(|i| (i * 7919 + seed * 31 + i / 5) % (1 << bits)).collect();
    let groups = rows * cols / group;
    let scales: Vec<f32> = (0..groups).map(|g| (1 + (g + seed) % 7) as f32 / 128.0).collect();
    let biases: Vec<f32> = (0..groups).map(|g| -((g % 5) as f32) / 16.0).collect();
    let mut bytes = vec![0u8; rows * cols * bits / 8];
    for (i, code) in codes.iter().enumerate() {
        for b in (0..bits).filter(|b| code >> b & 1 == 1) {
            let at = i * bits + b;
            bytes[at / 8] |= 1 << (at % 8);
        }
    }
    let x =
        codes.iter().enumerate().map(|(i, c)| scales[i / group] * *c as f32 + biases[i / group]).collect();
    (bytes, scales, biases, x)
}

#[test]
fn weights_that_mlx_quantized_are_read() {
    let dir = Dir::new();
    for (bits, group) in [(2, 32), (3, 64), (4, 32), (5, 32), (6, 64), (8, 64)] {
        let (mut all, mut wanted) = (Vec::new(), Vec::new());
        for (i, t) in tensors(&[]).into_iter().enumerate() {
            // The embedding stays a float, as in some checkpoints.
            if t.2.len() != 2 || t.0.contains("embed_tokens") {
                all.push(t);
                continue;
            }
            let (rows, cols) = (t.2[0], t.2[1]);
            let (codes, scales, biases, x) = mlx(rows, cols, bits, group, i);
            let module = t.0.strip_suffix(".weight").unwrap();
            all.push((t.0.clone(), "U32", vec![rows, cols * bits / 32], codes));
            for (name, numbers) in [("scales", &scales), ("biases", &biases)] {
                all.push((format!("{module}.{name}"), "BF16", vec![rows, cols / group], bf16(numbers)));
            }
            wanted.push((t.0.clone(), x));
        }
        let mut settings_of = config("Qwen2ForCausalLM"); // whose rows keep their order
        settings_of["quantization"] = of!({"group_size": group, "bits": bits});
        for layer in 0..2 {
            for (name, n) in [("q", HIDDEN), ("k", HIDDEN / 2), ("v", HIDDEN / 2)] {
                let name = format!("model.layers.{layer}.self_attn.{name}_proj.bias");
                all.push((name, "BF16", vec![n], vec![0; 2 * n]));
            }
        }
        let hub = checkpoint(&dir, &format!("mlx{bits}"), &settings_of, &all);
        let out = format!("{hub}.gguf");
        let text = convert(&hub, &out);
        assert!(text.contains(&format!("MLX ({bits} bits in groups of {group})")), "{text}");
        let back = format!("{hub}-back/");
        convert(&hub, &back);
        assert!(settings(&back)["quantization"].is_null());
        for (name, x) in &wanted {
            let gguf = name
                .replace("lm_head", "output")
                .replace("model.layers", "blk")
                .replace("self_attn.o_proj", "attn_output")
                .replace("self_attn.q_proj", "attn_q")
                .replace("self_attn.k_proj", "attn_k")
                .replace("self_attn.v_proj", "attn_v")
                .replace("mlp.", "ffn_")
                .replace("_proj", "");
            assert!(weights(&out, &gguf) == *x, "{bits} bits: {name}");
        }
    }
    // Llama's rows get GGUF's order, and a band may begin within a row.
    let all = tensors(&[]);
    let mut packed = Vec::new();
    let q = "model.layers.1.self_attn.q_proj.weight";
    let (codes, scales, biases, x) = mlx(HIDDEN, HIDDEN, 6, 32, 3);
    for t in all {
        if t.0 != q {
            packed.push(t);
            continue;
        }
        packed.push((q.into(), "U32", vec![HIDDEN, HIDDEN * 6 / 32], codes.clone()));
        for (name, numbers) in [("scales", &scales), ("biases", &biases)] {
            packed.push((q.replace("weight", name), "BF16", vec![HIDDEN, HIDDEN / 32], bf16(numbers)));
        }
    }
    let hub = checkpoint(&dir, "llama", &config("LlamaForCausalLM"), &packed);
    ok(&["convert", &hub, &dir.path("llama.gguf"), "--memory", "1"]);
    let found = weights(&dir.path("llama.gguf"), "blk.1.attn_q.weight");
    let row = |r: usize| r / 16 * 16 + r % 16 / 2 + r % 2 * 8;
    assert!((0..HIDDEN * HIDDEN).all(|i| found[i] == x[row(i / HIDDEN) * HIDDEN + i % HIDDEN]));
}

#[test]
fn what_is_inconsistent_in_mlx_weights_is_said() {
    let dir = Dir::new();
    let all = tensors(&[]);
    let refused = |name: &str, more: Vec<Tensor>, mode: &str, says: &[&str]| {
        let mut settings_of = config("LlamaForCausalLM");
        settings_of["quantization"] = of!({"group_size": 64, "bits": 4, "mode": mode});
        let mut stored = all.clone();
        stored.retain(|t| more.iter().all(|m| m.0 != t.0));
        stored.extend(more);
        let hub = checkpoint(&dir, name, &settings_of, &stored);
        let (code, text) = fails(&["convert", &hub, &dir.path("x.gguf")]);
        assert!(code == 1 && says.iter().all(|s| text.contains(s)), "{name}: {text}");
    };
    let scale = |module: &str, rows, cols| {
        let n: usize = rows * cols;
        let name = |part: &str| format!("{module}.{part}");
        let part = |p: &str| (name(p), "BF16", vec![rows, cols], vec![0; 2 * n]);
        vec![part("scales"), part("biases")]
    };
    refused("left", scale("lm_head", VOCAB, 1), "affine", &["lm_head.scales", "MLX", "--dequantize"]);
    let up = "model.layers.0.mlp.up_proj";
    let mut packed = scale(up, INTERMEDIATE, 1);
    packed.push((format!("{up}.weight"), "U32", vec![INTERMEDIATE, 8], vec![0; 4 * 8 * INTERMEDIATE]));
    refused("mode", packed.clone(), "mxfp4", &["MLX", "mxfp4"]);
    packed[1].2 = vec![INTERMEDIATE / 2, 2];
    refused("shape", packed.clone(), "affine", &["up_proj.biases", "expected shape"]);
    packed.remove(1);
    refused("alone", packed, "affine", &["quantized", "up_proj"]);
}

#[test]
fn what_is_no_model_is_named() {
    let dir = Dir::new();
    let lora = |name: &str| -> Vec<Tensor> {
        let tensor = |part: &str| (format!("{name}.{part}.weight"), "BF16", vec![2, 4], vec![0; 16]);
        ["lora_A", "lora_B"].map(tensor).to_vec()
    };
    let adapter = dir.path("adapter");
    std::fs::create_dir(&adapter).unwrap();
    let about = of!({"peft_type": "LORA", "r": 2, "base_model_name_or_path": "acme/base"});
    std::fs::write(format!("{adapter}/adapter_config.json"), about.to_string()).unwrap();
    write(
        Path::new(&format!("{adapter}/adapter_model.safetensors")),
        &lora("base_model.model.model.layers.0.self_attn.q_proj"),
    );
    let native: Vec<Tensor> =
        ["tok_embeddings", "layers.0.attention.wq", "layers.0.attention.wk", "norm", "output"]
            .map(|n| (format!("{n}.weight"), "BF16", vec![4, 4], vec![0; 32]))
            .to_vec();
    // A folder of Mistral's with its own settings, one with transformers' settings too.
    let params = dir.path("params");
    std::fs::create_dir(&params).unwrap();
    std::fs::write(format!("{params}/params.json"), "{}").unwrap();
    write(Path::new(&format!("{params}/consolidated.safetensors")), &native);
    let both = checkpoint(&dir, "both", &config("MistralForCausalLM"), &native);
    let bare = dir.path("bare.safetensors");
    write(Path::new(&bare), &tensors(&[]));
    for (input, says) in [
        (&adapter, &["a LoRA adapter (r 2, of acme/base), not a model", "merge"][..]),
        (&format!("{adapter}/adapter_model.safetensors"), &["a LoRA adapter (r 2, of acme/base)"]),
        (&params, &["Mistral's own layout (params.json", "transformers' layout"]),
        (&both, &["Mistral's own layout (names"]),
        (&bare, &["without its config.json", "config.json"]),
    ] {
        for args in [
            &["convert", input, &dir.path("out.gguf")][..],
            &["quantize", input, &dir.path("out.gguf"), "--type", "q8_0"],
            &["quantize", input, &dir.path("out.gguf"), "--type", "q8_0", "--dry-run"],
            &["convert", input, &dir.path("out.bin")],
            &["convert", input, &format!("{}/", dir.path("out"))],
            &["logits", input, "--ids", "1,2", &dir.path("out.safetensors")],
        ] {
            let (code, text) = fails(args);
            assert!(code == 1 && says.iter().all(|s| text.contains(s)), "{args:?}: {text}");
        }
    }
    assert!(!dir.names().iter().any(|n| n.starts_with("out")));
    // It can be looked at and copied.
    assert!(ok(&["inspect", &adapter]).contains("LoRA adapter"));
    ok(&["verify", &adapter]);
    ok(&["merge", &adapter, &dir.path("copy.safetensors")]);
    // Tensors of a whole model can be converted under their own names by who asks for it; an adapter cannot.
    let named = ["--set", "general.architecture=str:mine"];
    ok(&[&["convert", &bare, &dir.path("named.gguf")], &named[..]].concat());
    fails(&[&["convert", &adapter, &dir.path("x.gguf")], &named[..]].concat());
    // An adapter within the model's own file.
    let mut unmerged = tensors(&[]);
    unmerged.extend(lora("model.layers.0.self_attn.q_proj"));
    let hub = checkpoint(&dir, "unmerged", &config("LlamaForCausalLM"), &unmerged);
    let (_, text) = fails(&["convert", &hub, &dir.path("x.gguf")]);
    assert!(text.contains("not merged") && text.contains("merge_and_unload"), "{text}");
}

/// A checkpoint in two parts, without an index.
fn in_parts(dir: &Dir, name: &str, stem: &str) -> String {
    let all = tensors(&[]);
    let hub = checkpoint(dir, name, &config("LlamaForCausalLM"), &[]);
    std::fs::remove_file(format!("{hub}/model.safetensors")).unwrap();
    write(Path::new(&format!("{hub}/{stem}-00001-of-00002.safetensors")), &all[..7]);
    write(Path::new(&format!("{hub}/{stem}-00002-of-00002.safetensors")), &all[7..]);
    hub
}

#[test]
fn the_weights_of_a_folder_are_found_among_other_files() {
    let dir = Dir::new();
    let plain = dir.path("plain.gguf");
    convert(&checkpoint(&dir, "plain", &config("LlamaForCausalLM"), &tensors(&[])), &plain);
    let apple = [&b"\x00\x05\x16\x07\x00\x02\x00\x00Mac OS X        "[..], &[0; 4072]].concat();
    let adapter: [Tensor; 1] = [("base_model.x.lora_A.weight".into(), "BF16", vec![1], vec![0; 2])];

    let hub = in_parts(&dir, "hub", "model");
    for name in ["._model-00001-of-00002.safetensors", "._model-00002-of-00002.safetensors"] {
        std::fs::write(format!("{hub}/{name}"), &apple).unwrap();
    }
    write(Path::new(&format!("{hub}/consolidated.safetensors")), &tensors(&[])[..2]);
    write(Path::new(&format!("{hub}/old-00001-of-00003.safetensors")), &tensors(&[])[..1]);
    std::fs::create_dir(format!("{hub}/onnx.safetensors")).unwrap();
    let text = convert(&hub, &dir.path("hub.gguf"));
    assert!(text.contains("consolidated.safetensors and 3 more are not read"), "{text}");
    same(&dir.path("hub.gguf"), &plain);

    // Where names say nothing, contents do.
    let hub = checkpoint(&dir, "odd", &config("LlamaForCausalLM"), &[]);
    std::fs::remove_file(format!("{hub}/model.safetensors")).unwrap();
    write(Path::new(&format!("{hub}/pytorch_model.safetensors")), &tensors(&[]));
    write(Path::new(&format!("{hub}/finetune.safetensors")), &adapter);
    let text = convert(&hub, &dir.path("odd.gguf"));
    assert!(text.contains("finetune.safetensors is not read"), "{text}");
    same(&dir.path("odd.gguf"), &plain);

    // An index decides, and what it does not name is named.
    let split = format!("{}/", dir.path("split"));
    ok(&["convert", &dir.path("plain"), &split, "--split-max-size", "30K"]);
    write(Path::new(&format!("{split}adapter_model.safetensors")), &adapter);
    let text = convert(&split, &dir.path("split.gguf"));
    assert!(text.contains("adapter_model.safetensors is not read"), "{text}");

    let two = in_parts(&dir, "two", "first");
    write(Path::new(&format!("{two}/second-00001-of-00001.safetensors")), &tensors(&[]));
    let (_, text) = fails(&["convert", &two, &dir.path("x.gguf")]);
    assert!(text.contains("two models") && text.contains("second-00001-of-00001"), "{text}");
    let lacks = in_parts(&dir, "lacks", "model");
    std::fs::remove_file(format!("{lacks}/model-00001-of-00002.safetensors")).unwrap();
    let (_, text) = fails(&["convert", &lacks, &dir.path("x.gguf")]);
    assert!(text.contains("model-00001-of-00002.safetensors: part 1 of 2 of the model is missing"), "{text}");

    std::fs::write(dir.path("._m.gguf"), &apple).unwrap();
    let (_, text) = fails(&["convert", &dir.path("._m.gguf"), &dir.path("x.gguf")]);
    assert!(text.contains("AppleDouble"), "{text}");
}

#[test]
fn weights_of_other_formats_are_seen() {
    let dir = Dir::new();
    for (file, says) in [
        ("tf_model.h5", "take the model's .safetensors"),
        ("model.Q4_K_M.gguf", "model.Q4_K_M.gguf"),
        ("consolidated.00.pth", "save_pretrained"),
        ("model.pt", "name the file itself"),
        ("model.safetensors.incomplete", "download is not complete"),
    ] {
        let hub = dir.path(&format!("hub-{file}"));
        std::fs::create_dir(&hub).unwrap();
        std::fs::write(format!("{hub}/{file}"), b"nothing").unwrap();
        let (_, text) = fails(&["convert", &hub, &dir.path("x.gguf")]);
        assert!(text.contains(&format!("only {file}")) && text.contains(says), "{text}");
        std::fs::write(format!("{hub}/config.json"), config("LlamaForCausalLM").to_string()).unwrap();
        std::fs::write(format!("{hub}/training_args.bin"), b"nothing").unwrap();
        let (_, text) = fails(&["convert", &hub, &dir.path("x.gguf")]);
        assert!(text.contains(&format!("no weights, only {file}")) && text.contains(says), "{text}");
        ok(&["convert", &hub, &dir.path("x.gguf"), "--dry-run"]);
    }
}
