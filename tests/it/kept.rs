//! What a model's files say besides its weights: it is kept in the other format, or a note names what is lost. And what a
//! result needs to run.

use std::fs;
use std::path::Path;

use formats::metadata::{Array, Kind, Metadata, Value};

use crate::common::{Dir, demo, fails, first_layers, gguf, ok, run};

fn metadata(path: &str) -> Metadata {
    ggufkit::open(Path::new(path), &Default::default()).unwrap().model.metadata
}

/// The same weights with other metadata.
fn changed(from: &str, to: &str, change: impl FnOnce(&mut Metadata)) {
    let source = ggufkit::open(Path::new(from), &Default::default()).unwrap();
    let tensors: Vec<_> = source
        .model
        .tensors
        .iter()
        .map(|t| (t.name.clone(), t.shape.clone(), crate::common::weights(from, &t.name)))
        .collect();
    let mut metadata = source.model.metadata.clone();
    change(&mut metadata);
    crate::common::write_gguf(to, &metadata, &tensors);
}

/// A checkpoint of one layer whose files say as much as they can.
fn checkpoint(dir: &Dir) -> String {
    let hub = first_layers(dir, 1);
    let card = "---\nlicense: [mit, apache-2.0]\nlanguage:\n- en\n- \"no\"\ntags: [a, 'b: c']\nname: A model\nversion: '1.10'\n\
                author: Nobody\ndescription: |\n  Of two\n  lines\nbase_model: mistralai/Mistral-7B-v0.1\n\
                datasets:\n- name: Mine\n  doi: 10.1/2\nmodel_type: x\nurl: https://a.example/#b\n---\n# Mine\n";
    fs::write(format!("{hub}/README.md"), card).unwrap();
    let generation = r#"{"bos_token_id": 1, "eos_token_id": [2, 300, 301], "do_sample": true, "temperature": 0.6, "top_k": 20,
        "repetition_penalty": 1.05}"#;
    fs::write(format!("{hub}/generation_config.json"), generation).unwrap();
    let path = format!("{hub}/tokenizer_config.json");
    let mut json: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    let templates =
        serde_json::json!([{"name": "default", "template": "D"}, {"name": "rag", "template": "R"}]);
    json["chat_template"] = templates;
    fs::write(&path, json.to_string()).unwrap();
    hub
}

#[test]
fn a_checkpoint_made_of_a_gguf_says_what_that_says() {
    let dir = Dir::new();
    let (first, second) = (dir.path("a.gguf"), dir.path("b.gguf"));
    ok(&["convert", &checkpoint(&dir), &first]);
    let said = ok(&["convert", &first, &dir.path("hub/")]);
    assert!(said.contains("hub/README.md") && !said.contains("left out"), "{said}");
    ok(&["convert", &dir.path("hub"), &second]);
    let (a, b) = (metadata(&first), metadata(&second));
    for (key, value) in
        a.iter().filter(|(key, _)| key.starts_with("general.") || key.contains("chat_template"))
    {
        assert_eq!(b.get(key), Some(value), "{key}");
    }
    assert_eq!(a.text("general.license"), Some("mit,apache-2.0"));
    for (key, id) in [("eos", 2), ("eot", 300), ("eom", 301)] {
        let key = format!("tokenizer.ggml.{key}_token_id");
        assert_eq!((a.get(&key), b.get(&key)), (Some(&Value::U32(id)), Some(&Value::U32(id))), "{key}");
    }
    let generation = String::from_utf8(dir.read("hub/generation_config.json")).unwrap();
    let generation: serde_json::Value = serde_json::from_str(&generation).unwrap();
    assert_eq!(generation["eos_token_id"], serde_json::json!([2, 300, 301]));
    assert_eq!((&generation["temperature"], &generation["do_sample"]), (&0.6.into(), &true.into()));
    // More ends than there are keys for.
    let config = dir.path("layers/generation_config.json");
    fs::write(config, r#"{"eos_token_id": [2, 300, 301, 302]}"#).unwrap();
    let said = ok(&["convert", &dir.path("layers"), &first]);
    assert!(said.contains("generation ends with more tokens than a GGUF has keys for"), "{said}");
}

#[test]
fn what_has_no_place_is_named() {
    let dir = Dir::new();
    let (plain, own) = (gguf(&dir), dir.path("own.gguf"));
    let texts = |all: &[&str]| Value::Array(Array::of_strings(all));
    changed(&plain, &own, |m| {
        m.set("general.license", Value::text("mit"));
        m.set("general.url", Value::text("https://a.example"));
        m.set("llama.attention.sliding_window", Value::U32(64));
        m.set("own.list", texts(&["x"]));
        m.set("tokenizer.chat_template", Value::text("D"));
        m.set("tokenizer.ggml.fim_pre_token_id", Value::U32(300));
        let mut types: Vec<Value> =
            m.get("tokenizer.ggml.token_type").and_then(Value::as_array).unwrap().values().collect();
        types[300] = Value::I32(4);
        m.set("tokenizer.ggml.token_type", Value::Array(Array::new(Kind::I32, types).unwrap()));
    });
    let said = ok(&["convert", &own, &dir.path("hub/")]);
    let names = "general.url, llama.attention.sliding_window, own.list and tokenizer.ggml.fim_pre_token_id";
    assert!(said.contains(&format!("which are left out: {names}")), "{said}");
    let said = ok(&["convert", &own, &dir.path("m.bin")]);
    let names = "general.license, general.url, llama.attention.sliding_window, own.list and 2 more";
    assert!(
        said.contains(&format!(
            "llama2.c's files have no place for these keys of the metadata, which are left out: {names}"
        )),
        "{said}"
    );
    assert!(said.contains(" is special, which a tokenizer.bin cannot say"), "{said}");
    // Other byte orders, shards and safetensors with GGUF's names keep every key.
    for (name, more) in [("be.gguf", &["--endian", "big"][..]), ("m.safetensors", &[])] {
        let out = dir.path(name);
        ok(&[&["convert", &own, &out][..], more].concat());
        let (a, b) = (metadata(&own), metadata(&out));
        assert!(a.iter().all(|(key, value)| b.get(key) == Some(value)), "{name}");
    }
    // Nothing to say.
    let said = ok(&["convert", &plain, &dir.path("plain/")]);
    assert!(!said.contains("left out"), "{said}");
    let bare = dir.path("bare.gguf");
    ok(&["convert", &demo("tiny.bin"), &bare]);
    let said = ok(&["convert", &bare, &dir.path("bare/")]);
    assert!(said.contains("the checkpoint has no tokenizer"), "{said}");
}

#[test]
fn merges_and_words_that_are_lost_are_named() {
    let dir = Dir::new();
    let hub = first_layers(&dir, 1);
    fs::remove_file(format!("{hub}/tokenizer.model")).unwrap();
    let vocab: serde_json::Map<String, serde_json::Value> =
        (0..1024u32).map(|id| (char::from_u32(0x4e00 + id).unwrap().to_string(), id.into())).collect();
    let word = char::from_u32(0x4e05).unwrap().to_string();
    let json = serde_json::json!({
        "added_tokens": [{"id": 5, "content": word, "special": false, "single_word": true}],
        "normalizer": null,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "use_regex": true},
        "model": {"type": "BPE", "vocab": vocab, "merges": ["\u{4e00} \u{4e01}"]},
    });
    fs::write(format!("{hub}/tokenizer.json"), json.to_string()).unwrap();
    let out = dir.path("m.gguf");
    let said = ok(&["convert", &hub, &out]);
    assert!(said.contains("(single_word)") && said.contains(&word), "{said}");
    // A merge that makes no token.
    let said = ok(&["convert", &out, &dir.path("back/")]);
    assert!(said.contains("1 of the tokenizer's merges are left out"), "{said}");
}

#[test]
fn templates_of_other_files_are_named() {
    let dir = Dir::new();
    let hub = checkpoint(&dir);
    fs::write(format!("{hub}/chat_template.jinja"), "D").unwrap();
    let out = dir.path("m.gguf");
    let said = ok(&["convert", &hub, &out]);
    assert!(said.contains("tokenizer_config.json: the chat template rag is left out"), "{said}");
    assert_eq!(metadata(&out).get("tokenizer.chat_template.rag"), None);
    // In the folder that transformers reads with the file, they are kept.
    fs::create_dir(format!("{hub}/additional_chat_templates")).unwrap();
    fs::write(format!("{hub}/additional_chat_templates/rag.jinja"), "R").unwrap();
    let said = ok(&["convert", &hub, &out]);
    assert!(!said.contains("is left out"), "{said}");
    assert_eq!(metadata(&out).text("tokenizer.chat_template.rag"), Some("R"));
}

#[test]
fn models_without_a_vocabulary_have_a_way_out() {
    let dir = Dir::new();
    let (bare, tokenizer) = (dir.path("bare.gguf"), demo("tiny-tokenizer.bin"));
    ok(&["convert", &demo("tiny.bin"), &bare]);
    // Tensors alone say how many tokens there are.
    let unsaid = dir.path("unsaid.gguf");
    changed(&bare, &unsaid, |m| {
        m.remove("llama.vocab_size");
        m.set("tokenizer.ggml.model", Value::text("llama"));
    });
    let (text, out) = (dir.path("t.txt"), dir.path("o"));
    fs::write(&text, &fs::read(demo("heldout.txt")).unwrap()[..4000]).unwrap();
    for model in [&bare, &unsaid] {
        for args in [
            &["eval", model, &text][..],
            &["calibrate", model, &text, "-o", &out],
            &["compare", model, model, "--text", &text],
        ] {
            let (code, why) = fails(args);
            assert!(code == 1 && why.contains(&format!("{model}: has no vocabulary")), "{args:?}: {why}");
            assert!(why.contains("  hint: add --tokenizer FILE"), "{why}");
        }
        ok(&["eval", model, &text, "--tokenizer", &tokenizer]);
        for (machine, name) in [
            ("llama.cpp", "x.gguf"),
            ("ollama", "x.gguf"),
            ("llama.cpp-tiger", "x.gguf"),
            ("bitnet.cpp", "x.gguf"),
            ("ullm", "x.bin"),
            ("runq.c", "x.bin"),
        ] {
            let path = dir.path(name);
            let kept = ["convert", model, &path, "--for", machine, "--type", "f32"];
            let kept = if matches!(machine, "runq.c" | "ullm") { &kept[..5] } else { &kept[..] };
            let kept = if machine == "runq.c" { [&["quantize"], &kept[1..]].concat() } else { kept.to_vec() };
            let said = ok(&kept);
            assert!(
                !said.contains("to run it") && said.contains("add --tokenizer FILE"),
                "{machine}: {said}"
            );
            let said = ok(&[&kept[..], &["--tokenizer", &tokenizer]].concat());
            assert!(said.contains("to run it: ") && !said.contains("no tokenizer"), "{machine}: {said}");
        }
    }
    // A vocabulary that is damaged is named with its file.
    let damaged = dir.path("damaged.gguf");
    changed(&gguf(&dir), &damaged, |m| m.set("tokenizer.ggml.scores", Value::text("x")));
    let (_, why) = fails(&["eval", &damaged, &text]);
    assert!(why.contains("damaged.gguf: tokenizer.ggml.scores must be") && why.contains("  hint: "), "{why}");
}

#[test]
fn files_that_nobody_named_replace_none_of_another_model() {
    let dir = Dir::new();
    let model = gguf(&dir);
    let (side, out) = (dir.path("m-tokenizer.bin"), dir.path("m.bin"));
    // In the other byte order, for a model that lies elsewhere.
    ok(&["convert", &demo("tiny-tokenizer.bin"), &side, "--endian", "big"]);
    let old = fs::read(&side).unwrap();
    let (code, why) = fails(&["convert", &model, &out, "--for", "run.c"]);
    assert!(code == 1 && why.contains("m-tokenizer.bin: is there already"), "{why}");
    assert!(!Path::new(&out).exists() && fs::read(&side).unwrap() == old);
    // The very bytes, and the tokenizer of the model that is replaced with it.
    let said = ok(&["convert", &model, &out, "--for", "ullm"]);
    assert!(said.contains("-c m.bin -t m-tokenizer.bin "), "{said}");
    let said = ok(&["convert", &model, &out, "--for", "run.c"]);
    assert!(said.contains("./run m.bin -z m-tokenizer.bin ") && fs::read(&side).unwrap() != old, "{said}");
    // Another name has a tokenizer of its own.
    let said = ok(&["convert", &model, &dir.path("be.bin"), "--for", "ullm"]);
    assert!(said.contains("-c be.bin -t be-tokenizer.bin "), "{said}");
    assert!(fs::read(dir.path("be-tokenizer.bin")).unwrap() == old && fs::read(&side).unwrap() != old);
    // Machines with files of fixed names, in the folder of something else.
    for name in ["config.bin", "tokenizer.bin"] {
        let folder = dir.path(&format!("{name}-folder/"));
        fs::create_dir(&folder).unwrap();
        fs::write(format!("{folder}{name}"), "mine").unwrap();
        for machine in ["c64", "psp"] {
            let (_, why) = fails(&["convert", &model, &folder, "--for", machine]);
            assert!(why.contains(&format!("{name}: is there already")), "{machine}: {why}");
        }
        assert_eq!(fs::read_to_string(format!("{folder}{name}")).unwrap(), "mine");
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 1);
    }
}

#[test]
fn what_no_option_changes_is_said_first() {
    let dir = Dir::new();
    let (plain, own, out) = (gguf(&dir), dir.path("own.gguf"), dir.path("x.gguf"));
    let (mut metadata, mut tensors) = crate::common::contents(&plain);
    tensors.insert(0, ("rope_freqs.weight".into(), vec![4], vec![1.0; 4]));
    metadata.set("tokenizer.ggml.model", Value::text("gpt2"));
    metadata.set("tokenizer.ggml.merges", Value::Array(Array::of_strings(["a b"])));
    crate::common::write_gguf(&own, &metadata, &tensors);
    // Neither its types nor another name would help.
    for command in ["convert", "quantize"] {
        let (_, why) = fails(&[command, &own, &out, "--for", "openvino"]);
        assert!(why.contains("a table of rotary frequencies") && !why.contains("--type"), "{why}");
    }
}

#[test]
fn a_number_in_a_name_is_not_believed() {
    let dir = Dir::new();
    let source = dir.path("m.safetensors");
    ok(&["convert", &demo("tiny.bin"), &source]);
    for (name, here) in [
        ("m-00001-of-9999999.safetensors", "1 of 9999999 is in "),
        ("m-00001-of-00003.safetensors", "1 of 3 is in "),
        ("p-0000005-of-9000000.safetensors", "1 of 9000000 is in "),
    ] {
        fs::copy(&source, dir.path(name)).unwrap();
        let out = run(&["inspect", &dir.path(name)]);
        let why = String::from_utf8_lossy(&out.stderr).into_owned();
        assert!(!out.status.success() && why.contains(here), "{name}: {why}");
    }
}
