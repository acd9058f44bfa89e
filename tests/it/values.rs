//! What the values of metadata may say: settings that programs refuse or compute wrongly with, names that stand for something
//! else than the file has, and keys that no program looks at.

use std::fs;
use std::path::Path;

use crate::common::{Dir, fails, first_layers, gguf, json, ok, run};

/// What a run that must succeed prints, with its notes.
fn said(args: &[&str]) -> String {
    let out = run(args);
    let text = String::from_utf8([out.stdout, out.stderr].concat()).unwrap();
    assert!(out.status.success(), "{args:?}: {text}");
    text
}

#[test]
fn values_with_which_programs_stop_are_refused() {
    let dir = Dir::new();
    let (model, out) = (gguf(&dir), dir.path("o.gguf"));
    for (change, says) in [
        ("general.type=adapter", "the tensors are no LoRA adapter"),
        ("general.type=imatrix", "the tensors are no importance matrix"),
        ("adapter.type=lora", "the tensors are no LoRA adapter"),
        ("general.architecture=", "must be a name"),
        ("llama.rope.scaling.type=ntk-aware", "must be one of none, linear, yarn, longrope"),
        ("llama.rope.scaling.type=", "must be one of"),
        ("llama.rope.scaling.factor=-2", "must be a finite number of at least 0 (found -2)"),
        ("llama.attention.layer_norm_rms_epsilon=-1e-5", "must be a finite number above 0"),
        ("llama.attention.layer_norm_rms_epsilon=0", "must be a finite number above 0"),
        ("llama.rope.freq_base=0", "must be a finite number above 0"),
        ("llama.rope.freq_base=-10000", "must be a finite number above 0"),
        ("llama.context_length=0", "must be an integer of at least 1"),
        ("llama.attention.head_count=0", "as there are tensors of attention"),
        ("llama.attention.head_count=5", "must divide"),
        ("llama.attention.head_count_kv=3", "must divide"),
        ("llama.attention.key_length=6", "which are not"),
        ("llama.attention.value_length=6", "which are not"),
        ("llama.rope.dimension_count=2", "the length of a head (found 2)"),
        ("llama.expert_count=8", "there are no tensors of experts"),
        ("llama.expert_used_count=2", "the number of experts"),
        ("llama.embedding_length=32", "the columns of the token embedding"),
        ("llama.context_length=-1", "is not a valid u32"),
        ("tokenizer.ggml.eos_token_id=-1", "is not a valid u32"),
        ("llama.rope.freq_base=nan", "is not a valid f32"),
        ("tokenizer.ggml.model=", "must be a name"),
        ("tokenizer.chat_template={% if x %}", "the chat template"),
    ] {
        let (code, why) = fails(&["edit", &model, &out, "--set", change]);
        let key = change.split('=').next().unwrap();
        assert!(code == 2 && why.contains(says) && why.contains("hint: "), "{change}: {why}");
        assert!(why.contains(&format!("--set {key}: ")), "{change}: {why}");
        assert!(!Path::new(&out).exists());
        // The way that is named works, but for what is no value of its type.
        if why.contains("--force") {
            ok(&["edit", &model, &out, "--set", change, "--force"]);
            // A file that is wrong can be mended, and is otherwise left alone.
            let _ = std::fs::remove_file(dir.path("p.gguf"));
            ok(&["edit", &out, &dir.path("p.gguf"), "--set", "own.key=1"]);
            fs::remove_file(&out).unwrap();
        } else {
            assert!(why.contains("is not a valid"), "{change}: {why}");
        }
    }
    for (option, change, says) in [
        ("--rename", "llama.vocab_size=", "a key must have from 1 to 65535 bytes (found 0)"),
        ("--rename", "llama.rope.freq_base=own.base", "without it, programs compute with their default"),
        (
            "--rename",
            "llama.attention.layer_norm_rms_epsilon=llama.rope.scaling.factor",
            "no program reads a model without it",
        ),
    ] {
        let mut args = vec!["edit", &model, &out, option, change];
        if change.contains("freq_base") {
            ok(&["edit", &model, &dir.path("based.gguf"), "--set", "llama.rope.freq_base=50000"]);
        }
        let based = dir.path("based.gguf");
        if change.contains("freq_base") {
            args[1] = &based;
        }
        let (code, why) = fails(&args);
        assert!(code == 2 && why.contains(says), "{change}: {why}");
    }
}

#[test]
fn what_programs_do_not_look_at_is_noted() {
    let dir = Dir::new();
    let (model, out) = (gguf(&dir), dir.path("o.gguf"));
    for (change, says) in [
        ("general.type=modell", "programs do not know it"),
        ("general.file_type=15", "stands for q4_k_m, which no matrix of the file has"),
        ("general.file_type=12345", "is none of the numbers"),
        ("tokenizer.ggml.pre=qwen2", "only byte-level tokenizers have a pre-tokenizer"),
        ("tokenizer.ggml.mask_token_id=512", "there are 512 tokens"),
        ("rope_theta=1000", "(is llama.rope.freq_base meant?)"),
    ] {
        let text = said(&["edit", &model, &out, "--set", change]);
        assert!(text.contains(says), "{change}: {text}");
    }
    // The names of types are those of the result.
    let quantize = ["quantize", &model, &out, "--type", "q8_0", "--set"];
    let text = said(&[&quantize[..], &["general.file_type=7"]].concat());
    assert!(!text.contains("stands for"), "{text}");
    let text = said(&[&quantize[..], &["general.file_type=0"]].concat());
    assert!(text.contains("general.file_type 0 stands for f32"), "{text}");
}

#[test]
fn names_of_config_json_are_not_set_where_no_program_looks() {
    let dir = Dir::new();
    let hub = first_layers(&dir, 1);
    let (folder, file) = (format!("{}/", dir.path("out")), dir.path("out.safetensors"));
    for out in [&folder, &file] {
        for (option, change, says) in [
            ("--set", "rope_theta=1000", "the key is llama.rope.freq_base"),
            ("--set", "max_position_embeddings=64", "the key is llama.context_length"),
            ("--set", "tie_word_embeddings=false", "ggufkit inspect"),
            ("--set", "of_no_file=1", "config.json"),
            ("--remove", "hidden_act", "config.json"),
            ("--rename", "own.x=rope_scaling", "config.json"),
            ("--set", "mamba.block_count=3", "ends in .gguf"),
            ("--set", "architectures.0=x", "config.json"),
        ] {
            let (code, why) = fails(&["edit", &hub, out, option, change]);
            let says = why.contains(says) && why.contains("a copy of the folder") && why.contains("hint: ");
            assert!(code == 2 && says, "{option} {change}: {why}");
            assert!(!Path::new(out).exists());
        }
        // Texts in the header of the weights.
        ok(&["edit", &hub, out, "--set", "own.key=1", "--set", "format=pt"]);
    }
    // Both ways that are named.
    let (named, converted) = (dir.path("named.gguf"), dir.path("converted.gguf"));
    ok(&["edit", &hub, &named, "--set", "llama.rope.freq_base=1000"]);
    let config = format!("{hub}/config.json");
    let mut settings: serde_json::Value = serde_json::from_slice(&fs::read(&config).unwrap()).unwrap();
    settings["rope_theta"] = 1000.into();
    if let Some(rope) = settings.get_mut("rope_parameters") {
        rope["rope_theta"] = 1000.into();
    }
    fs::write(&config, settings.to_string()).unwrap();
    ok(&["convert", &hub, &converted]);
    let base = |path: &str| {
        let info = json(&["inspect", "--json", path]);
        let all = info["metadata"].as_array().unwrap().clone();
        all.into_iter().find(|m| m[0] == "llama.rope.freq_base").unwrap()[2].clone()
    };
    assert!(base(&named) == 1000.0 && base(&converted) == 1000.0);
}

#[test]
#[cfg(unix)]
fn a_link_that_leads_nowhere_is_said_to() {
    let dir = Dir::new();
    let (model, link) = (gguf(&dir), dir.path("link.gguf"));
    for to in [dir.path("gone/real.gguf"), "beside.gguf".into()] {
        std::os::unix::fs::symlink(&to, &link).unwrap();
        for args in [&["convert"][..], &["edit", "--set", "own.key=1"], &["quantize", "--type", "q8_0"]] {
            let (code, why) = fails(&[args, &[&model, &link]].concat());
            let real = if to.starts_with('/') { to.clone() } else { dir.path(&to) };
            let says = format!("is a symbolic link to {real}, which is not there");
            assert!(code == 1 && why.contains(&says) && why.contains("hint: name "), "{why}");
        }
        fs::remove_file(&link).unwrap();
    }
    ok(&["convert", &model, &dir.path("beside.gguf")]);
}

#[test]
fn a_format_that_the_name_contradicts_is_noted() {
    let dir = Dir::new();
    let model = gguf(&dir);
    for (name, format, noted) in [
        ("a.safetensors", "gguf", true),
        ("a.gguf", "safetensors", true),
        ("a.bin", "gguf", true),
        ("a.GGUF", "gguf", false),
        ("a.weights", "gguf", false),
    ] {
        let text = said(&["convert", &model, &dir.path(name), "--format", format]);
        assert_eq!(text.contains("though its name is that of"), noted, "{name} {format}: {text}");
    }
}

#[test]
fn a_key_for_which_programs_take_another_value_is_not_removed_in_silence() {
    let dir = Dir::new();
    let (whole, out) = (gguf(&dir), dir.path("o.gguf"));
    let theta = dir.path("theta.gguf");
    ok(&["edit", &whole, &theta, "--set", "llama.rope.freq_base=50000"]);
    for (source, key) in [
        (&whole, "tokenizer.ggml.scores"),
        (&whole, "tokenizer.ggml.token_type"),
        (&theta, "llama.rope.freq_base"),
    ] {
        for change in [["--remove", key], ["--rename", &format!("{key}=own.key")]] {
            let (code, why) = fails(&["edit", source, &out, change[0], change[1]]);
            assert!(code == 2 && why.contains("without it") && why.contains("--force"), "{key}: {why}");
            assert!(!Path::new(&out).exists());
        }
        ok(&["edit", source, &dir.path("forced.gguf"), "--force", "--remove", key]);
    }
    let begins = dir.path("begins.gguf");
    ok(&["edit", &whole, &begins, "--set", "tokenizer.ggml.add_bos_token=false"]);
    for (source, key, noted) in [
        (&whole, "llama.rope.freq_base", false),
        (&whole, "tokenizer.ggml.bos_token_id", false),
        (&whole, "llama.vocab_size", false),
        (&whole, "general.file_type", false),
        (&begins, "tokenizer.ggml.add_bos_token", true),
    ] {
        let text = said(&["edit", source, &out, "--remove", key]);
        assert_eq!(text.contains("without it, programs take their default"), noted, "{key}: {text}");
        assert_eq!(text.contains("without it"), noted, "{key}: {text}");
    }
    // A vocabulary that goes as a whole leaves nothing that is read otherwise.
    let lists = ["tokens", "scores", "token_type"].map(|list| format!("tokenizer.ggml.{list}"));
    let mut args = vec!["edit", &whole, &out, "--set", "tokenizer.ggml.model=no_vocab"];
    lists.iter().for_each(|list| args.extend(["--remove", list]));
    assert!(!said(&args).contains("without it"));
    ok(&["edit", &whole, &out, "--set", "tokenizer.ggml.add_space_prefix=false"]);
    let (code, why) =
        fails(&["edit", &out, &dir.path("p.gguf"), "--remove", "tokenizer.ggml.add_space_prefix"]);
    assert!(code == 2 && why.contains("treat spaces otherwise"), "{why}");
    ok(&["edit", &whole, &out, "--set", "tokenizer.ggml.eot_token_id=5"]);
    let text = said(&["edit", &out, &dir.path("p.gguf"), "--remove", "tokenizer.ggml.eot_token_id"]);
    assert!(text.contains("generation ends at other tokens"), "{text}");
    ok(&["edit", &whole, &out, "--set", "tokenizer.ggml.add_bos_token=false"]);
    let text = said(&["edit", &out, &dir.path("p.gguf"), "--remove", "tokenizer.ggml.add_bos_token"]);
    assert!(text.contains("take their default, which is another"), "{text}");
    // An architecture that is not computed here.
    let other = dir.path("mamba.gguf");
    let set = ["--set", "general.architecture=mamba", "--set", "mamba.expert_count=2"];
    ok(&[&["edit", &whole, &other, "--force"][..], &set].concat());
    let text = said(&["edit", &other, &dir.path("q.gguf"), "--remove", "mamba.expert_count"]);
    assert!(text.contains("trained with another value"), "{text}");
    ok(&["edit", &other, &out, "--set", "mamba.expert_count=0"]);
    assert!(
        !said(&["edit", &out, &dir.path("q.gguf"), "--remove", "mamba.expert_count"]).contains("without it")
    );
}
