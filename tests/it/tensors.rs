//! Which tensors are a model's: tied embeddings that are not, leftovers, names and layouts of other programs, and tensors
//! that are no model.

use std::fs;
use std::path::Path;

use crate::common::{Dir, demo, fails, gguf, ok, run};
use crate::hub::{self, Tensor, bf16, config, tensors, weights, write, write_with};
use serde_json::{Value, json as of};

const LAYER: &str = "model.layers.0.";

fn llama() -> Value {
    config("LlamaForCausalLM")
}

fn convert(hub: &str, out: &str) -> String {
    let made = run(&["convert", hub, out]);
    let text = format!("{}{}", String::from_utf8_lossy(&made.stdout), String::from_utf8_lossy(&made.stderr));
    assert!(made.status.success(), "{hub}: {text}");
    text
}

/// A checkpoint's folder, instead of an earlier one of its name.
fn checkpoint(dir: &Dir, name: &str, config: &Value, tensors: &[Tensor]) -> String {
    _ = fs::remove_dir_all(dir.path(name));
    hub::checkpoint(dir, name, config, tensors)
}

/// Checks that a checkpoint is the very model of the file `plain`.
fn same(hub: &str, dir: &Dir, says: &str) {
    let out = dir.path("made.gguf");
    let text = convert(hub, &out);
    assert!(text.contains(says), "{hub}: {text}");
    let stored = |path: &str| {
        let source = ggufkit::open(path.as_ref(), &Default::default()).unwrap();
        let all = source.model.tensors.iter().enumerate();
        let mut all: Vec<_> = all
            .map(|(i, t)| (t.name.clone(), source.read(i, 0..t.location.len).unwrap().into_owned()))
            .collect();
        all.sort();
        all
    };
    assert!(stored(&out) == stored(&dir.path("plain.gguf")), "{hub}");
}

fn plain(dir: &Dir) {
    let hub = checkpoint(dir, "plain", &llama(), &tensors(&[]));
    convert(&hub, &dir.path("plain.gguf"));
}

/// The names of the tensors of a GGUF.
fn names(path: &str) -> Vec<String> {
    let source = ggufkit::open(path.as_ref(), &Default::default()).unwrap();
    source.model.tensors.iter().map(|t| t.name.clone()).collect()
}

fn float(name: &str, n: usize) -> Tensor {
    (name.into(), "F32", vec![n], weights(n, 9).iter().flat_map(|x| x.to_le_bytes()).collect())
}

fn renamed(name: impl Fn(&str) -> String) -> Vec<Tensor> {
    tensors(&[]).into_iter().map(|t| (name(&t.0), t.1, t.2, t.3)).collect()
}

#[test]
fn tied_embeddings_are_one_only_if_they_are_equal() {
    let dir = Dir::new();
    let mut tied = llama();
    tied["tie_word_embeddings"] = true.into();
    let out = dir.path("o.gguf");
    let differ = checkpoint(&dir, "differ", &tied, &tensors(&[]));
    let text = convert(&differ, &out);
    assert!(
        text.contains("lm_head.weight is kept as the output matrix")
            && names(&out).contains(&"output.weight".into())
    );
    // As it does where config.json says nothing of it.
    plain(&dir);
    same(&differ, &dir, "its values are others");
    // A checkpoint that is made of it says so.
    ok(&["convert", &out, &format!("{}/", dir.path("again")), "--type", "f32"]);
    let settings: Value = serde_json::from_slice(&dir.read("again/config.json")).unwrap();
    assert_eq!(settings["tie_word_embeddings"], false);

    let mut all = tensors(&[]);
    let embedding = all.iter().find(|t| t.0 == "model.embed_tokens.weight").unwrap().clone();
    let head = all.iter_mut().find(|t| t.0 == "lm_head.weight").unwrap();
    (head.1, head.3) = (embedding.1, embedding.3.clone());
    let equal = checkpoint(&dir, "equal", &tied, &all);
    let text = convert(&equal, &out);
    assert!(text.contains("is left out: it is equal to model.embed_tokens.weight"), "{text}");
    assert!(!names(&out).contains(&"output.weight".into()));
    // One value in the last row.
    let head = all.iter_mut().find(|t| t.0 == "lm_head.weight").unwrap();
    *head.3.last_mut().unwrap() ^= 1;
    convert(&checkpoint(&dir, "one", &tied, &all), &out);
    assert!(names(&out).contains(&"output.weight".into()));
    // Equal values in another type are equal.
    let floats = |t: &mut Tensor, dtype: &'static str, x: &[f32]| {
        t.1 = dtype;
        t.3 = if dtype == "BF16" { bf16(x) } else { x.iter().flat_map(|x| x.to_le_bytes()).collect() };
    };
    let x: Vec<f32> = (0..embedding.2.iter().product()).map(|i| (i % 7) as f32).collect();
    for t in &mut all {
        match &*t.0 {
            "lm_head.weight" => floats(t, "F32", &x),
            "model.embed_tokens.weight" => floats(t, "BF16", &x),
            _ => {}
        }
    }
    convert(&checkpoint(&dir, "types", &tied, &all), &out);
    assert!(!names(&out).contains(&"output.weight".into()));
}

#[test]
fn tensors_that_are_no_model_become_none() {
    let dir = Dir::new();
    let file = dir.path("w.safetensors");
    let out = dir.path("o.gguf");
    let ids = |name: &str| -> Tensor { (name.into(), "I32", vec![4], vec![0; 16]) };
    for (all, says, named) in [
        (vec![], "has no tensors", false),
        (vec![ids("input_ids"), ids("labels")], "integers only", false),
        (vec![float("a.b.m", 4), float("a.b.v", 4)], "state of an optimizer", false),
        (vec![float("base_model.model.model.layers.3.mlp.up_proj.newest_u", 4)], "a PEFT adapter", false),
        (vec![float("x.waveft_spectrum", 4)], "a WaveFT adapter", false),
        (vec![float("<my-dog>", 4)], "its only tensor is <my-dog>", true),
        (vec![float("backbone.layers.0.mixer.in_proj.weight", 4)], "names of Mamba", true),
        (vec![float("rwkv.blocks.0.att.receptance.weight", 4)], "names of RWKV", true),
        (vec![float("a", 4), float("b", 4), float("c", 4), float("d", 4)], "a, b, c and 1 more", true),
        (vec![float("multi_modal_projector.linear_1.weight", 4)], "mmproj", true),
    ] {
        write(Path::new(&file), &all);
        for command in [&["convert"][..], &["quantize", "--type", "q8_0"]] {
            let (code, why) = fails(&[command, &[&file, &out]].concat());
            assert!(code == 1 && why.contains(says) && why.contains("hint: "), "{why}");
        }
        let (code, why) = fails(&["eval", &file, &demo("heldout.txt")]);
        assert!(code == 1 && why.contains(says), "{why}");
        let set = ["convert", &file, &out, "--set", "general.architecture=mine"];
        match named {
            true => _ = ok(&set),
            false => _ = fails(&set),
        }
        // Files of tensors are checked and copied as such.
        if all.is_empty() {
            assert!(fails(&["verify", &file]).1.contains("no tensors"));
        } else {
            ok(&["verify", &file]);
            ok(&["merge", &file, &dir.path("copy.safetensors")]);
        }
        _ = fs::remove_file(&out);
    }
    // What a GGUF was made into has its architecture in itself.
    ok(&["convert", &gguf(&dir), &dir.path("own.safetensors")]);
    ok(&["convert", &dir.path("own.safetensors"), &out]);
    let mut named = of!({"format": "pt"});
    write_with(Path::new(&file), named.clone(), &[float("w", 4)]);
    fails(&["convert", &file, &out]);
    named["general.architecture"] = "mine".into();
    write_with(Path::new(&file), named, &[float("w", 4)]);
    ok(&["convert", &file, &out]);
    // An adapter's settings decide, whatever the tensors are called.
    let adapter = dir.path("norms");
    fs::create_dir(&adapter).unwrap();
    write(&Path::new(&adapter).join("adapter_model.safetensors"), &[float("model.norm.weight", 64)]);
    for (settings, says, way) in [
        (of!({"peft_type": "LN_TUNING"}), "LN_TUNING adapter", "merge_and_unload"),
        (of!({"peft_type": "CPT"}), "CPT adapter", "convert the base model"),
        (of!({"fine_tune_type": "full"}), "finetune's adapter", "mlx_lm.fuse"),
    ] {
        fs::write(format!("{adapter}/adapter_config.json"), settings.to_string()).unwrap();
        let (_, why) = fails(&["convert", &adapter, &out]);
        assert!(why.contains(says) && why.contains(way), "{why}");
    }
    // Settings of something else beside tensors of something else.
    let part = checkpoint(&dir, "part", &of!({"in_features": 8}), &[float("linear.weight", 4)]);
    assert!(fails(&["convert", &part, &out]).1.contains("sentence-transformers"));
}

#[test]
fn what_training_leaves_beside_a_model_is_left_out() {
    let dir = Dir::new();
    plain(&dir);
    for name in [
        "value_head.summary.weight",
        "pretrained_model.score.weight",
        "critic_head.0.bias",
        "medusa_head.0.0.linear.weight",
        "mtp.layers.0.input_layernorm.weight",
        "model.layers.0.self_attn._extra_state",
        "model.layers.0.self_attn.rotary_emb._sin_cached",
        "model.layers.0.self_attn.rotary_emb.cos_sin_cache",
        "model.freqs_sin",
        "model.layers.0.attn.rope.cache",
        "model.layers.0.self_attn.attn.v_scale",
        "model.layers.0.mlp.down_proj.input_scale",
    ] {
        let mut all = tensors(&[]);
        all.push(float(name, 4));
        let hub = checkpoint(&dir, "left", &llama(), &all);
        same(&hub, &dir, &format!("left out, as no program needs it to run the model: {name}"));
    }
    // What may be a part of it is not.
    for name in
        ["logit_scale", "model.layers.0.mlp.gate.weight", "model.layers.0.self_attn.q_proj.weight_mask"]
    {
        let mut all = tensors(&[]);
        all.push(float(name, 4));
        let (_, why) = fails(&["convert", &checkpoint(&dir, "left", &llama(), &all), &dir.path("x.gguf")]);
        assert!(
            why.contains(&format!("tensor {name} is not part of")) && why.contains("save_pretrained"),
            "{why}"
        );
    }
}

#[test]
fn modules_of_an_adapter_s_state_are_read() {
    let dir = Dir::new();
    plain(&dir);
    let mut all = renamed(|name| {
        let name = name
            .replace("lm_head.", "lm_head.modules_to_save.mine.")
            .replace("up_proj.", "up_proj.base_layer.");
        format!("base_model.model.{name}")
    });
    let head = all.iter().find(|t| t.0.contains("lm_head")).unwrap().clone();
    all.push((
        "base_model.model.lm_head.original_module.weight".into(),
        head.1,
        head.2,
        vec![0; head.3.len()],
    ));
    same(&checkpoint(&dir, "peft", &llama(), &all), &dir, "modules_to_save");
    // With what was not merged, it is another model.
    all.push(float("base_model.model.model.layers.0.mlp.up_proj.lora_A.mine.weight", 4));
    let (_, why) = fails(&["convert", &checkpoint(&dir, "peft", &llama(), &all), &dir.path("x.gguf")]);
    assert!(why.contains("not merged") && why.contains("merge_and_unload"), "{why}");
}

#[test]
fn fused_projections_are_taken_apart() {
    let dir = Dir::new();
    plain(&dir);
    let mut all = tensors(&[]);
    for (block, parts, fused) in [
        ("self_attn", &["q_proj", "k_proj", "v_proj"][..], "qkv_proj"),
        ("mlp", &["gate_proj", "up_proj"], "gate_up_proj"),
    ] {
        for layer in 0..llama()["num_hidden_layers"].as_u64().unwrap() {
            let name = |part: &str| format!("model.layers.{layer}.{block}.{part}.weight");
            let own: Vec<Tensor> =
                parts.iter().map(|p| all.iter().find(|t| t.0 == name(p)).unwrap().clone()).collect();
            all.retain(|t| own.iter().all(|o| o.0 != t.0));
            let rows = own.iter().map(|t| t.2[0]).sum();
            let data = own.iter().flat_map(|t| t.3.clone()).collect();
            all.push((name(fused), own[0].1, vec![rows, own[0].2[1]], data));
        }
    }
    same(&checkpoint(&dir, "fused", &llama(), &all), &dir, "(qkv_proj)");
    // Of other sizes it is not known what the rows are.
    let t = all.iter_mut().find(|t| t.0.contains("gate_up_proj")).unwrap();
    let row = t.3.len() / t.2[0];
    t.2[0] -= 2;
    t.3.truncate(row * t.2[0]);
    let (_, why) = fails(&["convert", &checkpoint(&dir, "fused", &llama(), &all), &dir.path("x.gguf")]);
    assert!(why.contains("fused projections") && !why.contains("save_pretrained"), "{why}");
}

#[test]
fn names_of_other_programs_are_named_with_a_way_that_leads_on() {
    let dir = Dir::new();
    let out = dir.path("x.gguf");
    let why = |all: &[Tensor]| fails(&["convert", &checkpoint(&dir, "m", &llama(), all), &out]).1;
    for (from, to, says, way) in [
        ("model.layers.", "blk.", "GGUF's names", "MODEL.gguf"),
        ("self_attn.", "attn.", "torchtune's names", "FullModelHFCheckpointer"),
        ("self_attn.o_proj", "self_attention.linear_qkv", "Megatron's names", "export_ckpt"),
        ("mlp.", "feed_forward.", "are missing", "transformers' names"),
    ] {
        let text = why(&renamed(|name| name.replace(from, to)));
        assert!(
            text.contains(says) && text.contains(way) && !text.contains("save_pretrained"),
            "{to}: {text}"
        );
    }
    let mut fewer = llama();
    let layers = fewer["num_hidden_layers"].as_u64().unwrap();
    let mut all = tensors(&[]);
    let more = renamed(|name| name.replace("layers.0.", &format!("layers.{layers}.")));
    all.extend(more.into_iter().filter(|t| t.0.contains(&format!("layers.{layers}."))));
    let text = why(&all);
    assert!(
        text.contains(&format!("has {} layers", layers + 1)) && text.contains("num_hidden_layers"),
        "{text}"
    );
    // Empty tensors, as of one process of several.
    let empty: Vec<Tensor> = tensors(&[]).into_iter().map(|t| (t.0, t.1, vec![0], vec![])).collect();
    assert!(why(&empty).contains("zero_to_fp32.py"));
    // Settings for something else.
    fewer = of!({"_from_model_config": true, "eos_token_id": 2, "transformers_version": "4.40.0"});
    let (_, text) = fails(&["convert", &checkpoint(&dir, "g", &fewer, &tensors(&[])), &out]);
    assert!(text.contains("generation_config.json") && !text.contains("LlamaForCausalLM\"]"), "{text}");
}

#[test]
fn biases_that_nothing_speaks_of_are_noted() {
    let dir = Dir::new();
    let mut all = tensors(&[]);
    let q = all.iter().find(|t| t.0 == format!("{LAYER}self_attn.q_proj.weight")).unwrap().2[0];
    all.push(float(&format!("{LAYER}self_attn.q_proj.bias"), q));
    let hub = |config: &Value| checkpoint(&dir, "bias", config, &all);
    let mut settings = llama();
    settings.as_object_mut().unwrap().remove("attention_bias");
    let out = dir.path("o.gguf");
    assert!(convert(&hub(&settings), &out).contains("does not say attention_bias: true"));
    settings["attention_bias"] = true.into();
    assert!(!convert(&hub(&settings), &out).contains("attention_bias"));
}

#[test]
fn weights_that_are_no_numbers_are_an_error_from_every_format() {
    let dir = Dir::new();
    let mut all = tensors(&[]);
    let t = all.iter_mut().find(|t| t.0.ends_with("up_proj.weight")).unwrap();
    let nan = if t.1 == "F32" { f32::NAN.to_le_bytes().to_vec() } else { vec![0xc0, 0x7f] };
    t.3[..nan.len()].copy_from_slice(&nan);
    let hub = checkpoint(&dir, "nan", &llama(), &all);
    // The same in the weights of a GGUF and of a llama2.c checkpoint.
    let own = gguf(&dir);
    let mut bytes = fs::read(&own).unwrap();
    let end = bytes.len() - 4;
    bytes[end..].copy_from_slice(&f32::INFINITY.to_le_bytes());
    let odd = dir.path("odd.gguf");
    fs::write(&odd, &bytes).unwrap();
    let mut bytes = fs::read(demo("tiny.bin")).unwrap();
    bytes[28 + 64..][..4].copy_from_slice(&f32::NAN.to_le_bytes());
    fs::write(dir.path("odd.bin"), &bytes).unwrap();
    for input in [&hub, &odd, &dir.path("odd.bin")] {
        for out in ["o.gguf", "o.safetensors"] {
            let (code, why) = fails(&["convert", input, &dir.path(out)]);
            assert!(code == 1 && why.contains("NaN or infinite"), "{input} {out}: {why}");
            assert!(!Path::new(&dir.path(out)).exists());
        }
    }
    // Copies keep what is there.
    ok(&["edit", &odd, &dir.path("edited.gguf"), "--set", "general.name=odd"]);
    ok(&["split", &odd, &dir.path("part.gguf"), "--max-tensors", "20"]);
    assert!(fails(&["verify", &dir.path("edited.gguf")]).1.contains("infinities or NaNs"));
}
