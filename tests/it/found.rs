//! What is found in a model's files and beside them that says something else than the model: settings of a quantization
//! that is undone, adapters, links that lead elsewhere, files of other models.

use std::fs;
use std::path::Path;

use crate::common::{Dir, demo, fails, gguf, json, ok, weights};
use crate::hub::{HIDDEN, INTERMEDIATE, Tensor, checkpoint, config, tensors, write};
use serde_json::{Value, json as of};

/// A byte-level tokenizer.json.
fn byte_level() -> Value {
    of!({
        "added_tokens": [{"id": 3, "content": "<|end|>", "special": true, "normalized": false}],
        "normalizer": null,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "use_regex": true},
        "post_processor": {"type": "ByteLevel", "add_prefix_space": false},
        "decoder": {"type": "ByteLevel"},
        "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": ["a b"]},
    })
}

fn llama(dir: &Dir, name: &str) -> String {
    checkpoint(dir, name, &config("LlamaForCausalLM"), &tensors(&[]))
}

/// Whether two models have equal numbers.
fn same(one: &str, other: &str) {
    let found = json(&["verify", one, "--against", other, "--json"]);
    assert!(found["tensors"].as_array().unwrap().iter().all(|t| t["equal"] == true), "{found}");
}

#[test]
fn floats_stay_floats_when_the_settings_still_speak_of_bitnet() {
    let dir = Dir::new();
    let plain = dir.path("plain.gguf");
    ok(&["convert", &llama(&dir, "plain"), &plain]);
    for (name, more) in [
        ("bare", of!({})),
        ("offline", of!({"quantization_mode": "offline", "linear_class": "autobitlinear"})),
        ("old", of!({"linear_class": "bitlinear", "use_rms_norm": true})),
    ] {
        let mut settings = config("LlamaForCausalLM");
        settings["quantization_config"] = more;
        settings["quantization_config"]["quant_method"] = of!("bitnet");
        let hub = checkpoint(&dir, name, &settings, &tensors(&[]));
        let out = dir.path(&format!("{name}.gguf"));
        let text = ok(&["convert", &hub, &out]);
        assert!(text.contains("quantized (bitnet), but all of them are bf16"), "{text}");
        same(&out, &plain);
    }
    let mut settings = config("LlamaForCausalLM");
    settings["quantization_config"] = of!({"quant_method": "bitnet", "quantization_mode": "online"});
    let out = dir.path("online.gguf");
    let text = ok(&["convert", &checkpoint(&dir, "online", &settings, &tensors(&[])), &out]);
    assert!(text.contains("rounded to three values, as transformers does"), "{text}");
    let mut values: Vec<u32> =
        weights(&out, "blk.0.ffn_up.weight").iter().map(|x| x.abs().to_bits()).collect();
    values.sort_unstable();
    values.dedup();
    assert!(values.len() <= 2, "{values:?}");
}

#[test]
fn a_checkpoint_without_the_name_of_its_pre_tokenizer_is_written_with_a_note() {
    let dir = Dir::new();
    let hub = llama(&dir, "hub");
    fs::write(format!("{hub}/tokenizer.json"), byte_level().to_string()).unwrap();
    let [full, without] = ["full.gguf", "without.gguf"].map(|name| dir.path(name));
    ok(&["convert", &hub, &full]);
    ok(&["edit", &full, &without, "--remove", "tokenizer.ggml.pre"]);
    let text = ok(&["convert", &without, &dir.path("a/")]);
    assert!(text.contains("tokenizer.ggml.pre is missing"), "{text}");
    for (model, more) in [(&full, &[][..]), (&without, &["--pre-tokenizer", "gpt-2"])] {
        let out = dir.path(&format!("b{}/", more.len()));
        let text = ok(&[&["convert", model, &out][..], more].concat());
        assert!(!text.contains("is missing"), "{text}");
    }
}

#[test]
fn adapters_are_no_models_in_any_format() {
    let dir = Dir::new();
    let module = "model.layers.0.self_attn.q_proj";
    let adapter: Vec<Tensor> = [("lora_a", vec![HIDDEN, 4]), ("lora_b", vec![4, HIDDEN])]
        .map(|(part, shape)| (format!("{module}.{part}"), "F32", shape, vec![0; 16 * HIDDEN]))
        .into();
    fs::create_dir(dir.path("mlx")).unwrap();
    let file = dir.path("mlx/adapters.safetensors");
    write(Path::new(&file), &adapter);
    for input in [dir.path("mlx"), file] {
        for (command, more) in [("convert", &[][..]), ("quantize", &["--type", "q8_0"])] {
            let (code, why) = fails(&[&[command, &input, &dir.path("o.gguf")][..], more].concat());
            assert!(code == 1 && why.contains("is a LoRA adapter") && why.contains("mlx_lm.fuse"), "{why}");
        }
    }
    // In a format that is not looked for in folders.
    fs::create_dir(dir.path("peft")).unwrap();
    let settings = of!({"peft_type": "LORA", "r": 4, "base_model_name_or_path": "acme/base"});
    fs::write(dir.path("peft/adapter_config.json"), settings.to_string()).unwrap();
    for name in ["adapter_model.bin", "adapters.npz"] {
        fs::write(dir.path(&format!("peft/{name}")), "x").unwrap();
        let (code, why) = fails(&["convert", &dir.path("peft"), &dir.path("o.gguf")]);
        assert!(code == 1 && why.contains("is a LoRA adapter (r 4, of acme/base), not a model"), "{why}");
    }
}

/// A chat answers, its model is rewritten, and it answers again; a measurement is running then.
#[test]
#[cfg(target_os = "linux")]
fn a_model_that_is_rewritten_while_it_runs_is_named() {
    use std::io::{Read, Write};
    use std::os::unix::fs::FileExt;
    use std::process::Stdio;
    let dir = Dir::new();
    let model = dir.path("m.gguf");
    let template = "tokenizer.chat_template=str:{% for m in messages %}{{ m.content }}{% endfor %}";
    let spawn = |args: &[&str]| {
        ok(&["edit", &gguf(&dir), &model, "--set", template]);
        let mut command = crate::common::program();
        command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().unwrap()
    };
    let rewrite = || {
        let file = fs::File::options().write(true).open(&model).unwrap();
        file.write_all_at(&[0; 64], file.metadata().unwrap().len() - 64).unwrap();
    };
    let mut chat = spawn(&["run", &model, "--chat", "--tokens", "4", "--ignore-eos", "--seed", "1"]);
    let mut input = chat.stdin.take().unwrap();
    input.write_all(b"Once\n").unwrap();
    let mut byte = [0];
    chat.stdout.as_mut().unwrap().read_exact(&mut byte).unwrap(); // it has opened the model
    rewrite();
    let _ = input.write_all(b"upon\n");
    drop(input);
    let named = |child: std::process::Child| {
        let out = child.wait_with_output().unwrap();
        let why = String::from_utf8_lossy(&out.stderr);
        assert_eq!(out.status.code(), Some(1), "{why}");
        assert!(why.contains("m.gguf: has changed while it was read") && why.contains("hint: "), "{why}");
    };
    named(chat);
    let mut bench = spawn(&["bench", &model, "--prompt", "16", "--generate", "16", "--repeats", "500"]);
    let maps = format!("/proc/{}/maps", bench.id());
    while !fs::read_to_string(&maps).unwrap_or_default().contains("m.gguf") {
        assert!(bench.try_wait().unwrap().is_none(), "it maps the model");
    }
    rewrite();
    named(bench);
}

#[test]
#[cfg(unix)]
fn what_links_lead_to_is_told_and_not_published() {
    use std::os::unix::fs::symlink;
    let dir = Dir::new();
    let private = "PRIVATE KEY";
    let hub = llama(&dir, "m");
    let plain = dir.path("plain.gguf");
    ok(&["convert", &hub, &plain]);
    fs::write(format!("{hub}/tokenizer.json"), byte_level().to_string()).unwrap();
    let mut settings = config("LlamaForCausalLM");
    settings["eos_token_id"] = of!([3, 4]);
    settings["comment"] = of!(private);
    let template = of!({"chat_template": private});
    for (name, text) in [
        ("config.json", settings.to_string()),
        ("tokenizer_config.json", template.to_string()),
        ("chat_template.json", template.to_string()),
        ("README.md", format!("---\nlicense: {private}\n---\n")),
        ("generation_config.json", of!({"temperature": 0.5}).to_string()),
    ] {
        fs::write(dir.path(name), text).unwrap();
        let _ = fs::remove_file(format!("{hub}/{name}"));
        symlink(format!("../{name}"), format!("{hub}/{name}")).unwrap();
    }
    let out = dir.path("m.gguf");
    let text = ok(&["convert", &hub, &out]);
    assert!(text.contains("README.md: is a link that leads out of the folder: not read"), "{text}");
    for name in ["tokenizer_config.json", "chat_template.json"] {
        let says = format!("{name}: is a link that leads out of the folder: its chat template is not read");
        assert!(text.contains(&says), "{text}");
    }
    assert!(text.contains("and 3 more are links that lead out of the folder"), "{text}");
    let has = |bytes: &[u8]| bytes.windows(private.len()).any(|w| w == private.as_bytes());
    assert!(!has(&dir.read("m.gguf")));
    same(&out, &plain);
    // Of config.json, what is known of it is written.
    ok(&["convert", &hub, &dir.path("new/")]);
    let new: Value = serde_json::from_slice(&dir.read("new/config.json")).unwrap();
    assert!(!has(&dir.read("new/config.json")) && new["eos_token_id"] == of!([3, 4]), "{new}");
    assert!(!Path::new(&dir.path("new/README.md")).exists());
    assert!(Path::new(&dir.path("new/tokenizer.json")).exists());
    ok(&["convert", &dir.path("new"), &out]);
    same(&out, &plain);
}

#[test]
fn files_of_another_model_in_the_folder_are_named() {
    let dir = Dir::new();
    for name in ["tekken.json", "hf_quant_config.json", "tokenizer.model.v7", "qwen.tiktoken", "vocab.txt"] {
        let out = dir.path(&format!("o-{name}/"));
        fs::create_dir(&out).unwrap();
        fs::write(format!("{out}{name}"), "{}").unwrap();
        let (code, why) = fails(&["convert", &demo("model"), &out]);
        assert!(code == 1 && why.contains(&format!("are not theirs ({name})")), "{why}");
        let text = ok(&["convert", &demo("model"), &out, "--overwrite"]);
        assert!(text.contains(&format!("is removed once the new one is in place: {name}")), "{text}");
        assert!(!Path::new(&format!("{out}{name}")).exists());
    }
    fs::create_dir(dir.path("notes")).unwrap();
    fs::write(dir.path("notes/results.json"), "{}").unwrap();
    ok(&["convert", &demo("model"), &dir.path("notes/")]);
}

#[test]
fn notes_on_a_gguf_s_vocabulary_are_of_the_gguf_that_is_written() {
    let dir = Dir::new();
    let hub = llama(&dir, "hub");
    let mut tokenizer = byte_level();
    tokenizer["added_tokens"][0]["rstrip"] = of!(true);
    fs::write(format!("{hub}/tokenizer.json"), tokenizer.to_string()).unwrap();
    let out = dir.path("o.gguf");
    let (taken, padded) = ("take the whitespace behind them", "rows have no token");
    let text = ok(&["convert", &hub, &out]);
    assert!(text.contains(taken) && text.contains(padded), "{text}");
    for command in ["convert", "edit"] {
        for name in ["phi-3-mini", "str:Phi-3"] {
            let text = ok(&[command, &hub, &out, "--set", &format!("general.name={name}")]);
            assert!(!text.contains(taken) && text.contains(padded), "{command} {name}: {text}");
        }
    }
    assert!(ok(&["convert", &hub, &out, "--set", "general.name=other"]).contains(taken));
    let text = ok(&["convert", &hub, &dir.path("new/")]);
    assert!(!text.contains(taken) && !text.contains(padded), "{text}");
}

#[test]
fn a_copy_says_where_it_runs() {
    let dir = Dir::new();
    let mut settings = config("BitNetForCausalLM");
    settings["quantization_config"] = of!({"quant_method": "bitnet", "quantization_mode": "online"});
    let norms = [("self_attn.attn_sub_norm.weight", HIDDEN), ("mlp.ffn_sub_norm.weight", INTERMEDIATE)];
    let hub = checkpoint(&dir, "hub", &settings, &tensors(&norms));
    let [first, copy] = ["first.gguf", "copy.gguf"].map(|name| dir.path(name));
    let says = "bitnet-b1.58 runs in ik_llama.cpp only";
    assert!(ok(&["convert", &hub, &first]).contains(says));
    let text = ok(&["convert", &first, &copy]);
    assert!(text.contains(says) && text.matches(says).count() == 1, "{text}");
    assert!(dir.read("copy.gguf") == dir.read("first.gguf"));
}

#[test]
#[cfg(unix)]
fn a_value_is_read_from_a_file_of_any_name() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    let dir = Dir::new();
    let model = gguf(&dir);
    let name = OsStr::from_bytes(b"t\xff=.txt");
    fs::write(dir.0.path().join(name), "hello").unwrap();
    let mut option = b"tokenizer.chat_template:str=".to_vec();
    option.extend(dir.0.path().join(name).as_os_str().as_bytes());
    let mut command = crate::common::program();
    command.args(["edit", &model, &dir.path("e.gguf"), "--set-file"]).arg(OsStr::from_bytes(&option));
    let out = command.output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    assert!(json(&["inspect", "--json", &dir.path("e.gguf")])["metadata"].to_string().contains("hello"));
    for wrong in ["x", "=x"] {
        let (code, why) = fails(&["edit", &model, &dir.path("e.gguf"), "--set-file", wrong]);
        assert!(code == 2 && why.contains("must have the form KEY="), "{why}");
    }
}
