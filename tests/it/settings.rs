//! Settings of a model that are of a wrong type, or say what is not computed; and options that cannot both count.

use std::fs;

use crate::common::{Dir, demo, fails, gguf, ok, run};
use crate::hub::{checkpoint, config, tensors};
use formats::metadata::Value;
use serde_json::json;

/// Writes the model again with another value, which programs may not read.
fn with(model: &str, out: &str, key: &str, value: Value) {
    let source = ggufkit::open(model.as_ref(), &Default::default()).unwrap();
    let mut metadata = source.model.metadata.clone();
    metadata.set(key, value);
    let tensors: Vec<_> = source
        .model
        .tensors
        .iter()
        .map(|t| (t.name.clone(), t.shape.clone(), crate::common::weights(model, &t.name)))
        .collect();
    crate::common::write_gguf(out, &metadata, &tensors);
}

#[test]
fn settings_of_a_wrong_type_are_errors() {
    let dir = Dir::new();
    let hub = checkpoint(&dir, "hub", &config("LlamaForCausalLM"), &tensors(&[]));
    let with = |key: &str, value: &str| {
        let mut json = config("LlamaForCausalLM");
        json[key] = json!("VALUE");
        fs::write(format!("{hub}/config.json"), json.to_string().replace("\"VALUE\"", value)).unwrap();
    };
    for (key, value, says) in [
        ("rope_scaling", "NaN", "rope_scaling must be an object (found NaN)"),
        ("rope_scaling", "[\"linear\", 2.0]", "rope_scaling must be an object"),
        ("rope_parameters", "4.0", "rope_parameters must be an object (found 4.0)"),
        (
            "rope_scaling",
            "{\"rope_type\": \"linear\", \"factor\": Infinity}",
            "factor must be a positive number",
        ),
        ("rope_scaling", "{\"factor\": 4.0}", "without a \"rope_type\""),
        ("quantization_config", "\"gptq\"", "quantization_config must be an object (found \"gptq\")"),
        ("quantization_config", "[]", "quantization_config must be an object (found [])"),
        ("quantization_config", "{\"quant_method\": 4}", "quant_method must be a string (found 4)"),
        ("architectures", "7", "architectures must be a list of names of classes (found 7)"),
        ("tie_word_embeddings", "\"false\"", "tie_word_embeddings must be true or false"),
        ("use_sliding_window", "1", "use_sliding_window must be true or false"),
        ("rope_theta", "NaN", "rope_theta must be a positive number in the range of f32 (found NaN)"),
    ] {
        with(key, value);
        let (code, why) = fails(&["convert", &hub, &dir.path("x.gguf")]);
        assert!(code == 1 && why.contains("config.json: ") && why.contains(says), "{key} {value}: {why}");
    }
    for (key, value) in [
        ("rope_scaling", "null"),
        ("quantization_config", "null"),
        ("use_sliding_window", "null"),
        ("time_step_limit", "[0.0, Infinity]"),
        ("some_other_list", "[1]"),
    ] {
        with(key, value);
        ok(&["convert", &hub, &dir.path("x.gguf")]);
    }
    with("a", &format!("[{}NaN]", "NaN,".repeat(2_000)));
    let (_, why) = fails(&["convert", &hub, &dir.path("x.gguf")]);
    assert!(why.contains("NaN or infinite"), "{why}");
}

#[test]
fn divisors_and_a_scaling_count_both() {
    let dir = Dir::new();
    let mut llama3 = config("LlamaForCausalLM");
    llama3["rope_scaling"] = json!({"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
        "high_freq_factor": 4.0, "original_max_position_embeddings": 8});
    let hub = checkpoint(&dir, "hub", &llama3, &tensors(&[]));
    let plain = dir.path("plain.gguf");
    ok(&["convert", &hub, &plain]);
    let logits = |name: &str| {
        let out = dir.path("l.safetensors");
        ok(&["logits", &dir.path(name), &out, "--exact", "--ids", "5,6,7,8,9,10,11,12"]);
        fs::read(out).unwrap()
    };
    let mut all = vec![logits("plain.gguf")];
    for kind in ["linear", "yarn"] {
        let out = format!("{kind}.gguf");
        let set = ["llama.rope.scaling.factor=f32:4", "llama.rope.scaling.original_context_length=u32:8"];
        let kind = format!("llama.rope.scaling.type=str:{kind}");
        ok(&["edit", &plain, &dir.path(&out), "--set", set[0], "--set", set[1], "--set", &kind]);
        all.push(logits(&out));
    }
    assert!(all[0] != all[1] && all[0] != all[2] && all[1] != all[2]);
    // Architectures for which no program computes them.
    let mut qwen = llama3.clone();
    qwen["architectures"] = json!(["Qwen2ForCausalLM"]);
    fs::write(format!("{hub}/config.json"), qwen.to_string()).unwrap();
    let why = fails(&["convert", &hub, &dir.path("x.gguf")]).1;
    assert!(why.contains("\"llama3\" is not supported for qwen2"), "{why}");
}

#[test]
fn what_is_not_causal_is_not_measured_as_if_it_were() {
    let dir = Dir::new();
    let mut settings = config("LlamaForCausalLM");
    settings["is_causal"] = json!(false);
    let hub = checkpoint(&dir, "hub", &settings, &tensors(&[]));
    let gguf = dir.path("m.gguf");
    ok(&["convert", &hub, &gguf]);
    assert!(ok(&["inspect", &gguf]).contains("llama.attention.causal"));
    let ids = ["--ids", "1,2,3"];
    for model in [&hub, &gguf] {
        let why = fails(&[&["logits", model, &dir.path("l.safetensors")][..], &ids].concat()).1;
        assert!(why.contains("attention.causal is false"), "{why}");
    }
    let back = dir.path("back");
    ok(&["convert", &gguf, &format!("{back}/")]);
    let config: serde_json::Value = serde_json::from_slice(&dir.read("back/config.json")).unwrap();
    assert_eq!(config["is_causal"], false);
    ok(&["edit", &gguf, &dir.path("c.gguf"), "--set", "llama.attention.causal=true"]);
    ok(&[&["logits", &dir.path("c.gguf"), &dir.path("l.safetensors")][..], &ids].concat());
}

#[test]
fn biases_that_are_switched_off_are_named() {
    let dir = Dir::new();
    let mut settings = config("LlamaForCausalLM");
    let biases = [("self_attn.q_proj.bias", 64)];
    for (switch, note) in [(json!(false), true), (json!(true), false), (json!(null), false)] {
        settings["attention_bias"] = switch;
        let hub = checkpoint(
            &dir,
            &format!("hub-{note}-{}", settings["attention_bias"]),
            &settings,
            &tensors(&biases),
        );
        let text = ok(&["convert", &hub, &dir.path("x.gguf")]);
        assert_eq!(text.contains("attention_bias: false, but model.layers.0"), note, "{text}");
    }
}

#[test]
fn options_of_which_one_has_no_effect_are_refused() {
    let tokenizer = demo("tiny-tokenizer.bin");
    for model in [demo("tiny.bin"), demo("model")] {
        let (code, why) =
            fails(&["inspect", &model, "--tokenizer", &tokenizer, "--pre-tokenizer", "llama-bpe"]);
        assert!(
            code == 2 && why.contains("--pre-tokenizer has no effect") && why.contains("leave out"),
            "{why}"
        );
    }
}

#[test]
fn only_a_chat_needs_a_chat_template() {
    let dir = Dir::new();
    let plain = gguf(&dir);
    let text = fs::read(demo("heldout.txt")).unwrap();
    fs::write(dir.path("t.txt"), &text[..4000]).unwrap();
    let odd = dir.path("odd.gguf");
    for value in [Some("u32:7"), Some("[str]:[\"x\"]"), None] {
        match value {
            Some(value) => {
                let set = format!("tokenizer.chat_template={value}");
                ok(&["edit", &plain, &odd, "--force", "--set", &set]);
            }
            None => with(&plain, &odd, "tokenizer.chat_template", Value::String(b"{{ x \xff }}".to_vec())),
        }
        ok(&["eval", &odd, &dir.path("t.txt"), "--context", "32", "--chunks", "1"]);
        ok(&["run", &odd, "--prompt", "Once", "--tokens", "1"]);
        let out = run(&["run", &odd, "--chat", "--prompt", "Hi"]);
        let why = String::from_utf8_lossy(&out.stderr).into_owned();
        assert!(
            !out.status.success() && why.contains("tokenizer.chat_template must be a string in UTF-8"),
            "{why}"
        );
    }
}

#[test]
fn a_file_is_called_what_it_calls_itself() {
    let dir = Dir::new();
    let mut settings = config("BitNetForCausalLM");
    settings["hidden_act"] = json!("relu2");
    let more = [("self_attn.attn_sub_norm.weight", 64), ("mlp.ffn_sub_norm.weight", 128)];
    let mut all = tensors(&more);
    all.retain(|t| t.0 != "lm_head.weight");
    settings["tie_word_embeddings"] = json!(true);
    let hub = checkpoint(&dir, "hub", &settings, &all);
    let gguf = dir.path("m.gguf");
    ok(&["convert", &hub, &gguf]);
    let source = ggufkit::open(gguf.as_ref(), &Default::default()).unwrap();
    let metadata = &source.model.metadata;
    // The same model under the architecture's other name.
    let mut other = formats::metadata::Metadata::new();
    for (key, value) in metadata.iter() {
        other.set(&key.replace("bitnet-b1.58.", "bitnet-25."), value.clone());
    }
    other.set("general.architecture", formats::metadata::Value::text("bitnet-25"));
    let tensors: Vec<_> = source
        .model
        .tensors
        .iter()
        .map(|t| (t.name.clone(), t.shape.clone(), crate::common::weights(&gguf, &t.name)))
        .collect();
    let path = dir.path("other.gguf");
    crate::common::write_gguf(&path, &other, &tensors);
    let text = ok(&["convert", &path, &dir.path("f16.gguf"), "--type", "f16"]);
    assert!(text.contains("bitnet-25 runs") && !text.contains("bitnet-b1.58"), "{text}");
    let why = fails(&["run", &path, "--context", "4096", "--prompt", "x"]).1;
    assert!(!why.contains("bitnet-b1.58"), "{why}");
}
