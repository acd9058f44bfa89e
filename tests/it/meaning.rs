//! What a file's settings say about the computation, in every command that reads it: computed, refused by name, or noted.

use std::fs;

use crate::common::{Dir, Numbers, demo, fails, gguf, inputs, json, ok, run, weights, write_gguf};
use crate::hub::{checkpoint, config, tensors};
use formats::metadata::{Array, Kind, Metadata, Value};
use serde_json::json as of;

/// Writes a model again with other metadata and further tensors.
fn changed(model: &str, out: &str, change: impl Fn(&mut Metadata), more: &[Numbers]) {
    let source = ggufkit::open(model.as_ref(), &Default::default()).unwrap();
    let mut metadata = source.model.metadata.clone();
    change(&mut metadata);
    let mut tensors: Vec<Numbers> = source
        .model
        .tensors
        .iter()
        .map(|t| (t.name.clone(), t.shape.clone(), weights(model, &t.name)))
        .collect();
    tensors.extend(more.iter().cloned());
    write_gguf(out, &metadata, &tensors);
}

/// All that a command prints.
fn said(args: &[&str]) -> String {
    let out = run(args);
    assert!(out.status.success(), "{args:?}: {}", String::from_utf8_lossy(&out.stderr));
    [out.stdout, out.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat()
}

/// The logits after some tokens, as they are in the file.
fn logits(dir: &Dir, model: &str) -> Vec<u8> {
    let out = dir.path("logits.safetensors");
    ok(&["logits", model, &out, "--exact", "--ids", "1,5,6,7,8,9,10,11"]);
    fs::read(out).unwrap()
}

/// Every command that shows, copies or measures a model on the text of [`inputs`].
fn commands<'a>(model: &'a str, text: &'a str, out: &'a str) -> Vec<Vec<&'a str>> {
    vec![
        vec!["inspect", model],
        vec!["verify", model],
        vec!["quantize", model, out, "--type", "q8_0"],
        vec!["convert", model, out],
        vec!["eval", model, text, "--context", "32", "--chunks", "1"],
        vec!["run", model, "--prompt", "the", "--tokens", "1"],
    ]
}

#[test]
fn tokens_that_are_not_the_models_own_are_told_by_every_command() {
    let dir = inputs();
    let [text, out] = ["t.txt", "out.gguf"].map(|name| dir.path(name));
    let original = dir.path("tiny.gguf");
    let n = ggufkit::open(original.as_ref(), &Default::default()).unwrap().model.metadata;
    let n = n.get("tokenizer.ggml.tokens").and_then(Value::as_array).unwrap().len();
    let key = |name: &str| format!("tokenizer.ggml.{name}");
    let equal = Value::Array(Array::new(Kind::F32, vec![Value::F32(-7.0); n]).unwrap());
    for (name, value, says) in [
        ("scores", None, "tokenizer.ggml.scores is missing"),
        ("scores", Some(equal), "all tokens have the same score (-7, "),
        (
            "bos_token_id",
            Some(Value::U32(1 << 20)),
            "tokenizer.ggml.bos_token_id must be the u32 of one of the",
        ),
        ("bos_token_id", Some(Value::I32(-1)), "(found i32 -1)"),
        (
            "eos_token_id",
            Some(Value::U32(1 << 20)),
            "tokenizer.ggml.eos_token_id must be the u32 of one of the",
        ),
        ("llama.logit_scale", Some(Value::F32(8.0)), "the metadata has llama.logit_scale (f32 8"),
    ] {
        let model = dir.path("changed.gguf");
        let name = if name.contains('.') { name.to_string() } else { key(name) };
        let change = |m: &mut Metadata| match &value {
            Some(value) => m.set(&name, value.clone()),
            None => _ = m.remove(&name),
        };
        changed(&original, &model, change, &[]);
        for command in commands(&model, &text, &out) {
            let found = said(&command);
            assert!(found.contains(&format!("note: {says}")) || found.contains(says), "{command:?}: {found}");
            assert_eq!(found.matches(says).count(), 1, "{command:?}: {found}");
            let _ = fs::remove_file(&out);
        }
        for command in commands(&original, &text, &out) {
            assert!(!said(&command).contains(says), "{command:?}");
            let _ = fs::remove_file(&out);
        }
    }
}

#[test]
fn a_model_that_alone_would_split_the_text_otherwise_is_named() {
    let dir = inputs();
    let [text, original, other] = ["t.txt", "tiny.gguf", "changed.gguf"].map(|name| dir.path(name));
    let few = ["--context", "32", "--chunks", "1"];
    let compare = |other: &str| {
        said(&[&["compare", &original, other, "--text", &text, "--no-floor"], &few[..]].concat())
    };
    let eval = |other: &str| said(&[&["eval", &original, &text, "--reference", other], &few[..]].concat());
    for (name, value) in [
        ("add_bos_token", Value::Bool(false)),
        ("add_space_prefix", Value::Bool(false)),
        ("bos_token_id", Value::U32(5)),
    ] {
        let key = format!("tokenizer.ggml.{name}");
        changed(&original, &other, |m| m.set(&key, value.clone()), &[]);
        for (found, called) in [(compare(&other), "changed"), (eval(&other), "changed.gguf")] {
            let note =
                format!("{called} alone would split this text otherwise (it has other values of {key})");
            assert!(found.contains(&note), "{name}: {found}");
        }
    }
    // What differs and changes nothing on this text.
    changed(&original, &other, |m| m.set("tokenizer.ggml.mask_token_id", Value::U32(5)), &[]);
    for found in [compare(&other), eval(&other), compare(&original), eval(&original)] {
        assert!(!found.contains("otherwise"), "{found}");
    }
}

#[test]
fn a_factor_of_cosines_is_computed_and_no_checkpoint_drops_it() {
    let dir = Dir::new();
    let plain = gguf(&dir);
    let (changed_path, out) = (dir.path("changed.gguf"), dir.path("hub/"));
    let before = logits(&dir, &plain);
    let factor = "llama.rope.scaling.attn_factor";
    let kind = "llama.rope.scaling.type";
    for (kinds, same) in [
        (vec![(factor, Value::F32(1.0))], true),
        (vec![(factor, Value::F32(1.5))], false),
        (vec![(factor, Value::F32(1.5)), (kind, Value::text("none"))], false),
        (vec![(factor, Value::F32(0.5)), (kind, Value::text("linear"))], false),
    ] {
        changed(&plain, &changed_path, |m| kinds.iter().for_each(|(k, v)| m.set(k, v.clone())), &[]);
        assert_eq!(logits(&dir, &changed_path) == before, same, "{kinds:?}");
        if same {
            ok(&["convert", &changed_path, &out]);
            continue;
        }
        let (code, why) = fails(&["convert", &changed_path, &dir.path("other/")]);
        assert!(code == 1 && why.contains(factor) && why.contains(".safetensors"), "{why}");
        let why = fails(&["convert", &changed_path, &dir.path("x.bin")]).1;
        assert!(why.contains("attn_factor") || why.contains("scaled (linear)"), "{why}");
        ok(&["convert", &changed_path, &dir.path("whole.safetensors")]);
        assert_eq!(logits(&dir, &dir.path("whole.safetensors")), logits(&dir, &changed_path));
        fs::remove_file(dir.path("whole.safetensors")).unwrap();
    }
    // YaRN without the original context takes the model's, as in a config.json that has none.
    let yarn = |m: &mut Metadata| {
        m.set(kind, Value::text("yarn"));
        m.set("llama.rope.scaling.factor", Value::F32(4.0));
    };
    changed(&plain, &changed_path, yarn, &[]);
    let found = logits(&dir, &changed_path);
    ok(&["convert", &changed_path, &dir.path("yarn/")]);
    let mut settings: serde_json::Value = serde_json::from_slice(&dir.read("yarn/config.json")).unwrap();
    for key in ["rope_scaling", "rope_parameters"] {
        settings[key].as_object_mut().unwrap().remove("original_max_position_embeddings").unwrap();
    }
    fs::write(dir.path("yarn/config.json"), settings.to_string()).unwrap();
    assert!(logits(&dir, &dir.path("yarn")) == found && found != before);
}

#[test]
fn tensors_of_another_architecture_are_refused_by_name() {
    let dir = inputs();
    let plain = dir.path("tiny.gguf");
    let source = ggufkit::open(plain.as_ref(), &Default::default()).unwrap();
    let metadata = &source.model.metadata;
    let number = |key: &str| metadata.get(&format!("llama.{key}")).and_then(Value::as_u64).unwrap();
    let (hidden, inner) = (number("embedding_length"), number("feed_forward_length"));
    let head = hidden / number("attention.head_count");
    let [text, out, model] = ["t.txt", "out.gguf", "changed.gguf"].map(|name| dir.path(name));
    for (name, len) in [
        ("blk.0.attn_k_norm.weight", head),
        ("blk.0.attn_sub_norm.weight", hidden),
        ("blk.1.ffn_sub_norm.weight", inner),
        ("blk.0.post_attention_norm.weight", hidden),
        ("output_norm.bias", hidden),
    ] {
        changed(&plain, &model, |_| (), &[(name.into(), vec![len], vec![1.5; len as usize])]);
        for command in commands(&model, &text, &out) {
            if ["eval", "run"].contains(&command[0]) {
                let why = fails(&command).1;
                assert!(why.contains(name) && why.contains("no part of the architecture llama"), "{why}");
            } else {
                let found = said(&command);
                assert!(
                    found.contains(&format!("tensor {name} is no part of the architecture llama")),
                    "{found}"
                );
            }
            let _ = fs::remove_file(&out);
        }
        let why = fails(&["convert", &model, &dir.path("hub/")]).1;
        assert!(why.contains(name), "{why}");
    }
    // What the architecture has, it has: biases of every matrix, and norms of heads where they belong.
    let bias = [("blk.0.attn_output.bias".to_string(), vec![hidden], vec![0.5; hidden as usize])];
    changed(&plain, &model, |_| (), &bias);
    for command in commands(&model, &text, &out) {
        assert!(!said(&command).contains("no part of"), "{command:?}");
        let _ = fs::remove_file(&out);
    }
    // A norm that the architecture has, and the file has not.
    let rename = |m: &mut Metadata| {
        m.set("general.architecture", Value::text("qwen3"));
        let all: Vec<_> = m.iter().map(|(key, value)| (key.to_string(), value.clone())).collect();
        for (key, value) in all.iter().filter(|(key, _)| key.starts_with("llama.")) {
            m.set(&key.replacen("llama", "qwen3", 1), value.clone());
        }
    };
    changed(&plain, &model, rename, &[]);
    let why = fails(&["eval", &model, &text, "--context", "32"]).1;
    assert!(why.contains("blk.0.attn_q_norm.weight"), "{why}");
}

#[test]
fn lists_of_equal_numbers_run_and_lists_of_others_are_named() {
    let dir = Dir::new();
    let plain = gguf(&dir);
    let source = ggufkit::open(plain.as_ref(), &Default::default()).unwrap();
    let number = |key: &str| source.model.metadata.get(key).and_then(Value::as_u64).unwrap() as u32;
    let layers = number("llama.block_count") as usize;
    let keys = ["attention.head_count", "attention.head_count_kv", "feed_forward_length"];
    let model = dir.path("changed.gguf");
    let list = |m: &mut Metadata, key: &str, last: u32| {
        let key = format!("llama.{key}");
        let mut all = vec![Value::U32(number(&key)); layers];
        *all.last_mut().unwrap() = Value::U32(number(&key) + last);
        m.set(&key, Value::Array(Array::new(Kind::U32, all).unwrap()));
    };
    changed(&plain, &model, |m| keys.iter().for_each(|key| list(m, key, 0)), &[]);
    assert_eq!(logits(&dir, &model), logits(&dir, &plain));
    ok(&["convert", &model, &dir.path("hub/")]);
    ok(&["convert", &model, &dir.path("back.bin")]);
    assert_eq!(dir.read("back.bin"), {
        ok(&["convert", &plain, &dir.path("plain.bin")]);
        dir.read("plain.bin")
    });
    for key in keys {
        changed(&plain, &model, |m| list(m, key, 1), &[]);
        let out = dir.path("x.safetensors");
        let (code, why) = fails(&["logits", &model, &out, "--ids", "1"]);
        assert!(code == 1 && why.contains(&format!("llama.{key} differs between layers")), "{why}");
    }
}

#[test]
fn settings_of_other_classes_are_noted_by_every_command() {
    let dir = Dir::new();
    let mut settings = config("LlamaForCausalLM");
    settings["logits_scaling"] = of!(8.0);
    settings["no_rope_layers"] = of!([1, 0]);
    settings["rope_scaling"] = of!({"rope_type": "dynamic", "type": "linear", "factor": 2.0});
    settings["sliding_window"] = of!(16);
    let hub = checkpoint(&dir, "hub", &settings, &tensors(&[]));
    let notes = [
        "config.json has logits_scaling (8.0), no_rope_layers ([1,0]) and sliding_window (16), which are no settings",
        "dynamic RoPE scaling is left out",
        "\"rope_type\": \"dynamic\" and \"type\": \"linear\"",
    ];
    let [out, file] = ["out.gguf", "l.safetensors"].map(|name| dir.path(name));
    for command in [
        vec!["inspect", &hub],
        vec!["inspect", &hub, "--memory"],
        vec!["verify", &hub],
        vec!["convert", &hub, &out],
        vec!["quantize", &hub, &out, "--type", "q8_0", "--dry-run"],
        vec!["logits", &hub, &file, "--ids", "1,2"],
        vec!["bench", &hub, "--prompt", "4", "--generate", "1", "--repeats", "1"],
        vec!["frontier", &hub],
    ] {
        let found = said(&command);
        for note in notes {
            assert_eq!(found.matches(note).count(), 1, "{command:?}: {note}: {found}");
        }
        let _ = (fs::remove_file(&out), fs::remove_file(&file));
    }
    let shown = json(&["inspect", &hub, "--json"]);
    assert!(shown["notes"].to_string().contains("logits_scaling"));
    // What every llama has is no news.
    let hub = checkpoint(&dir, "plain", &config("LlamaForCausalLM"), &tensors(&[]));
    assert!(!said(&["verify", &hub]).contains("which is no setting"));
    assert!(!said(&["verify", &demo("model")]).contains("no setting"));
}
