//! Small folders, made here; real tokenizers are in [`real`].

use std::fs;

use formats::metadata::{Metadata, Value as Meta};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::testing::{byte_fallback, byte_level, put, small_model};
use super::*;

mod beyond;
mod damaged;
mod export;
mod golden;
mod real;
mod unigram;

/// A folder with these JSON files, and a tokenizer.model if wanted.
fn folder(model: bool, files: &[(&str, Value)]) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    put(dir.path(), files);
    if model {
        fs::write(dir.path().join("tokenizer.model"), small_model()).unwrap();
    }
    dir
}

fn read_as(dir: &Path, arch: &str, rows: u64, config: &Value) -> Result<Option<Vocabulary>> {
    super::read(dir, &Wanted { arch, rows, name: None, config, pre: None })
}

fn vocab(dir: &TempDir, arch: &str, rows: u64) -> Vocabulary {
    read_as(dir.path(), arch, rows, &json!({})).unwrap().unwrap()
}

fn fails(dir: &TempDir, rows: u64) -> String {
    read_as(dir.path(), "llama", rows, &json!({})).err().expect("an error").to_string()
}

fn strings(metadata: &Metadata, key: &str) -> Vec<String> {
    let array = metadata.get(&format!("tokenizer.{key}")).unwrap().as_array().unwrap();
    array.strings().map(|s| String::from_utf8(s.to_vec()).unwrap()).collect()
}

fn types(metadata: &Metadata) -> Vec<i128> {
    let array = metadata.get("tokenizer.ggml.token_type").unwrap().as_array().unwrap();
    array.values().map(|v| v.as_i128().unwrap()).collect()
}

fn get<'a>(vocab: &'a Vocabulary, key: &str) -> Option<&'a Meta> {
    vocab.metadata.get(&format!("tokenizer.ggml.{key}"))
}

#[test]
fn no_files_are_no_tokenizer() {
    let dir = folder(false, &[("tokenizer_config.json", json!({}))]);
    assert!(read_as(dir.path(), "llama", 5, &json!({})).unwrap().is_none());
    put(dir.path(), &[("tekken.json", json!({}))]);
    assert!(fails(&dir, 5).contains("tekken.json"));
}

#[test]
fn sentencepiece_comes_first_and_is_padded() {
    let config = json!({"add_prefix_space": false, "added_tokens_decoder": {
        "5": {"content": "<|im_end|>"}, "6": {"content": "x▁y", "special": false}, "9": {"content": "z"},
    }});
    let added = json!({"<new>": 7, "<far>": 4_000_000_000u32});
    // The same vocabulary, with other rules.
    let mut json = byte_fallback();
    json["model"]["vocab"].as_object_mut().unwrap().remove("x");
    json["post_processor"] = json!({"type": "ByteLevel"});
    let files = [("tokenizer_config.json", config), ("added_tokens.json", added), ("tokenizer.json", json)];
    let v = vocab(&folder(true, &files), "llama", 9);
    let tokens = strings(&v.metadata, "ggml.tokens");
    assert_eq!(tokens[3..], ["<0x0A>", "▁a", "<|im_end|>", "x y", "<new>", "[PAD8]"]);
    assert_eq!(types(&v.metadata), [2, 3, 3, 6, 1, 3, 4, 4, 5]);
    let scores: Vec<_> = get(&v, "scores").unwrap().as_array().unwrap().values().collect();
    assert_eq!(scores[4..], [-1e9, -1000.0, -1000.0, -1000.0, -10000.0].map(Meta::F32));
    let keys: Vec<_> = v.metadata.iter().map(|(k, _)| k.trim_start_matches("tokenizer.ggml.")).collect();
    let added = ["add_bos_token", "add_eos_token"];
    let expected = ["add_space_prefix", "model", "pre", "tokens", "scores", "token_type"];
    assert_eq!(keys, [&expected[..], &added].concat());
    assert_eq!(v.metadata.text("tokenizer.ggml.model"), Some("llama"));
    assert_eq!(v.metadata.text("tokenizer.ggml.pre"), Some("default"));
    assert!(v.notes[0].contains("id 9, 2 in all"), "{:?}", v.notes);
    assert_eq!(v.files.len(), 4);
    // Another architecture asks for no prefix.
    let v = vocab(&folder(true, &[("tokenizer_config.json", json!({"add_prefix_space": true}))]), "qwen2", 5);
    assert_eq!(get(&v, "add_space_prefix"), None);
}

#[test]
fn byte_level_tokens_and_merges() {
    let mut file = byte_level();
    file["added_tokens"].as_array_mut().unwrap().extend([
        json!({"id": 4, "content": "a▁b", "special": false}),
        json!({"id": 5, "content": "<|x|>", "special": false}),
    ]);
    for merges in [json!(["a b", "ab a"]), json!([["a", "b"], ["ab", "a"]])] {
        file["model"]["merges"] = merges;
        let v = vocab(&folder(false, &[("tokenizer.json", file.clone())]), "llama", 7);
        assert_eq!(
            strings(&v.metadata, "ggml.tokens"),
            ["a", "b", "ab", "<|end|>", "a b", "<|x|>", "[PAD6]"]
        );
        assert_eq!(types(&v.metadata), [1, 1, 1, 3, 4, 3, 5]);
        assert_eq!(strings(&v.metadata, "ggml.merges"), ["a b", "ab a"]);
        assert_eq!(v.metadata.text("tokenizer.ggml.model"), Some("gpt2"));
        assert_eq!(v.metadata.text("tokenizer.ggml.pre"), Some("gpt-2"));
        assert_eq!(get(&v, "scores"), None);
        assert_eq!(get(&v, "add_bos_token"), Some(&Meta::Bool(false)));
    }
    file["model"]["merges"] = json!([["a b", "c"]]);
    let v = vocab(&folder(false, &[("tokenizer.json", file)]), "llama", 7);
    assert_eq!(strings(&v.metadata, "ggml.merges"), ["aĠb c"]);
}

#[test]
fn tokens_of_a_finetune_do_not_matter_to_the_pre_tokenizer() {
    let mut file = byte_level();
    file["added_tokens"][0]["content"] = json!("<|something new|>");
    let v = vocab(&folder(false, &[("tokenizer.json", file)]), "qwen2", 4);
    assert_eq!(v.metadata.text("tokenizer.ggml.pre"), Some("gpt-2"));
}

#[test]
fn the_user_names_the_pre_tokenizer() {
    let mut file = byte_level();
    file["pre_tokenizer"] = json!({"type": "Whitespace"});
    let dir = folder(false, &[("tokenizer.json", file)]);
    assert!(fails(&dir, 4).contains("Whitespace"));
    let config = json!({});
    let named = |pre| {
        let wanted = Wanted { arch: "llama", rows: 4, name: None, config: &config, pre: Some(pre) };
        super::read(dir.path(), &wanted).unwrap().unwrap()
    };
    let v = named("smaug-bpe");
    assert_eq!((v.metadata.text("tokenizer.ggml.pre"), v.notes.len()), (Some("smaug-bpe"), 0));
    assert!(named("new-one").notes[0].contains("new-one"));
}

#[test]
fn a_sentencepiece_model_in_tokenizer_json() {
    let config = json!({"eos_token": "</s>", "bos_token": {"content": "<s>"}, "add_eos_token": false});
    let dir = folder(false, &[("tokenizer.json", byte_fallback()), ("tokenizer_config.json", config)]);
    let v = vocab(&dir, "llama", 7);
    assert_eq!(strings(&v.metadata, "ggml.tokens")[3..], ["<0x0A>", "▁a", "x", "[PAD6]"]);
    assert_eq!(types(&v.metadata), [3, 3, 3, 6, 1, 1, 5]);
    let scores: Vec<_> = get(&v, "scores").unwrap().as_array().unwrap().values().collect();
    assert_eq!(scores[2..], [-1000.0, 0.0, 0.0, -1.0, -10000.0].map(Meta::F32));
    assert_eq!(v.metadata.text("tokenizer.ggml.model"), Some("llama"));
    assert_eq!(get(&v, "bos_token_id"), Some(&Meta::U32(1)));
    assert_eq!(get(&v, "eos_token_id"), Some(&Meta::U32(2)));
    let flags = ["bos", "sep", "eos"].map(|r| get(&v, &format!("add_{r}_token")).cloned());
    assert_eq!(flags, [true, false, false].map(|f| Some(Meta::Bool(f))));
}

#[test]
fn vocab_json_and_merges_txt() {
    let config = json!({"tokenizer_class": "Qwen2TokenizerFast", "eos_token": "<|im_end|>",
        "added_tokens_decoder": {"3": {"content": "<|im_end|>", "special": true}}});
    let vocabulary = json!({"a": 0, "b": 1, "ab": 2});
    let dir = folder(false, &[("vocab.json", vocabulary), ("tokenizer_config.json", config)]);
    assert!(fails(&dir, 4).contains("no merges"));
    fs::write(dir.path().join("merges.txt"), "#version: 0.2\n# #\na b\r\n\n").unwrap();
    let v = vocab(&dir, "qwen2", 4);
    assert_eq!(v.metadata.text("tokenizer.ggml.pre"), Some("qwen2"));
    assert_eq!(strings(&v.metadata, "ggml.tokens"), ["a", "b", "ab", "<|im_end|>"]);
    assert_eq!(strings(&v.metadata, "ggml.merges"), ["# #", "a b"]);
    assert_eq!(types(&v.metadata), [1, 1, 1, 3]);
    assert_eq!(get(&v, "eos_token_id"), Some(&Meta::U32(3)));

    put(dir.path(), &[("tokenizer_config.json", json!({"tokenizer_class": "OddTokenizer"}))]);
    assert!(fails(&dir, 4).contains("OddTokenizer"));
    put(dir.path(), &[("tokenizer_config.json", json!({}))]);
    let v = read_as(dir.path(), "qwen3", 4, &json!({"model_type": "qwen3"})).unwrap().unwrap();
    assert_eq!(v.metadata.text("tokenizer.ggml.pre"), Some("qwen2"));
    fs::write(dir.path().join("merges.txt"), "a b\nab\n").unwrap();
    assert!(read_as(dir.path(), "qwen3", 4, &json!({})).err().unwrap().to_string().contains("(at byte 4)"));
}

#[test]
fn a_template_with_another_end_makes_the_named_end_a_turns_end() {
    let mut file = byte_level();
    file["added_tokens"] = json!([
        {"id": 3, "content": "<b>", "special": true}, {"id": 4, "content": "<e>", "special": true},
        {"id": 5, "content": "<t>", "special": true},
    ]);
    let token = |id: &str| json!({"SpecialToken": {"id": id, "type_id": 0}});
    let text = |id: &str| json!({"Sequence": {"id": id, "type_id": 0}});
    file["post_processor"] = json!({"type": "TemplateProcessing",
        "single": [token("<b>"), text("A"), token("<e>")],
        "pair": [token("<b>"), text("A"), token("<e>"), text("B"), token("<e>")]});
    let config = json!({"bos_token": "<b>", "eos_token": "<t>"});
    let dir = folder(false, &[("tokenizer.json", file), ("tokenizer_config.json", config)]);
    let v = vocab(&dir, "llama", 6);
    for (role, id) in [("bos", 3), ("eos", 4), ("eot", 5)] {
        assert_eq!(get(&v, &format!("{role}_token_id")), Some(&Meta::U32(id)), "{role}");
    }
    assert_eq!(get(&v, "add_eos_token"), Some(&Meta::Bool(true)));
    assert_eq!(get(&v, "add_sep_token"), Some(&Meta::Bool(false)));
}

#[test]
fn ids_by_precedence() {
    let config = json!({"eos_token": "<|end|>", "pad_token": "nowhere"});
    let dir = folder(false, &[("tokenizer.json", byte_level()), ("tokenizer_config.json", config)]);
    let ids = |config: Value| {
        let v = read_as(dir.path(), "llama", 4, &config).unwrap().unwrap();
        ["bos", "eos", "padding"].map(|r| get(&v, &format!("{r}_token_id")).and_then(Meta::as_u64))
    };
    assert_eq!(ids(json!({"eos_token_id": 1, "pad_token_id": 2})), [None, Some(3), Some(2)]);
    assert_eq!(ids(json!({"text_config": {"bos_token_id": 1}})), [Some(1), Some(3), None]);
    put(dir.path(), &[("tokenizer_config.json", json!({}))]);
    assert_eq!(ids(json!({"eos_token_id": [2, 1]})), [None, Some(2), None]);
    put(dir.path(), &[("generation_config.json", json!({"eos_token_id": [1, 2], "bos_token_id": 0}))]);
    assert_eq!(ids(json!({"eos_token_id": [2, 1]})), [Some(0), Some(1), None]);
    put(dir.path(), &[("special_tokens_map.json", json!({"bos_token": {"content": "<|end|>"}}))]);
    assert_eq!(ids(json!({"bos_token_id": null})), [Some(3), Some(1), None]);
    let error = read_as(dir.path(), "llama", 4, &json!({"bos_token_id": -2})).err().unwrap();
    assert!(error.to_string().contains("bos_token_id must be a token id (found -2)"));
    let v = read_as(dir.path(), "llama", 4, &json!({"sep_token_id": 4})).unwrap().unwrap();
    assert!(v.notes[0].contains("sep"), "{:?}", v.notes);
}

#[test]
fn minus_one_is_no_token() {
    let generation = json!({"bos_token_id": -1, "eos_token_id": [-1, 2], "pad_token_id": -1});
    let dir = folder(false, &[("tokenizer.json", byte_level()), ("generation_config.json", generation)]);
    let none = json!({"bos_token_id": -1, "eos_token_id": -1, "pad_token_id": -100, "unk_token_id": -1});
    let v = read_as(dir.path(), "llama", 4, &none).unwrap().unwrap();
    let ids = ["bos", "eos", "padding", "unknown"]
        .map(|r| get(&v, &format!("{r}_token_id")).and_then(Meta::as_u64));
    assert_eq!(ids, [None, Some(2), None, None]);
}

#[test]
fn sizes_that_stand_for_a_model() {
    let v = vocab(&folder(true, &[]), "llama", 32016);
    assert_eq!(get(&v, "fim_pre_token_id"), Some(&Meta::U32(32007)));
    assert_eq!(get(&v, "eot_token_id"), Some(&Meta::U32(32010)));
    assert!(v.notes[0].contains("32011 of"), "{:?}", v.notes);
    let v =
        vocab(&folder(true, &[("tokenizer_config.json", json!({"add_bos_token": true}))]), "llama", 49152);
    assert_eq!(get(&v, "add_bos_token"), Some(&Meta::Bool(false)));
    let v = vocab(&folder(true, &[]), "qwen2", 49152);
    assert_eq!(get(&v, "add_bos_token"), None);
}

/// The keys of chat templates that a folder gives, with their texts, and the notes.
fn templates(dir: &TempDir) -> (Vec<(String, String)>, Vec<String>) {
    let v = vocab(dir, "llama", 5);
    let all = v.metadata.iter().filter(|(key, _)| key.contains("chat_template"));
    let found = all.map(|(key, value)| (key.to_string(), value.as_str().unwrap_or("[]").to_string()));
    (found.collect(), v.notes)
}

#[test]
fn chat_templates() {
    let keys = |dir: &TempDir| templates(dir).0;
    let pair = |key: &str, text: &str| (format!("tokenizer.chat_template{key}"), text.to_string());
    let dir = folder(
        true,
        &[("tokenizer_config.json", json!({})), ("chat_template.json", json!({"chat_template": "J"}))],
    );
    assert_eq!(keys(&dir), [pair("", "J")]);
    put(dir.path(), &[("tokenizer_config.json", json!({"chat_template": "C"}))]);
    assert_eq!(keys(&dir), [pair("", "C")]);
    // Further templates alone leave the default where it is.
    fs::create_dir(dir.path().join("additional_chat_templates")).unwrap();
    fs::write(dir.path().join("additional_chat_templates/tool use.jinja"), "T").unwrap();
    assert_eq!(keys(&dir), [pair(".tool_use", "T"), pair("s", "[]"), pair("", "C")]);
    // The file is first.
    fs::write(dir.path().join("chat_template.jinja"), "F").unwrap();
    let (found, notes) = templates(&dir);
    assert_eq!(found, [pair(".tool_use", "T"), pair("s", "[]"), pair("", "F")]);
    let about: Vec<_> =
        notes.iter().filter(|n| n.contains("chat template is that of chat_template.jinja")).collect();
    assert!(about[0].contains("tokenizer_config.json has another one"), "{notes:?}");
    assert!(about[1].contains("chat_template.json has another one") && about.len() == 2, "{notes:?}");
    // An empty one is none; equal ones need no note.
    fs::write(dir.path().join("chat_template.jinja"), "\n").unwrap();
    assert_eq!(keys(&dir)[2], pair("", "C"));
    fs::write(dir.path().join("chat_template.jinja"), "C").unwrap();
    fs::remove_file(dir.path().join("chat_template.json")).unwrap();
    assert!(!templates(&dir).1.iter().any(|n| n.contains("another one")));
}

#[test]
fn chat_templates_with_names() {
    let pair = |key: &str, text: &str| (format!("tokenizer.chat_template{key}"), text.to_string());
    let named = |value: serde_json::Value| {
        templates(&folder(true, &[("tokenizer_config.json", json!({"chat_template": value}))]))
    };
    let list =
        json!([{"name": "default", "template": "D"}, {"name": "rag", "template": "R"}, {"name": "odd"}]);
    let (found, notes) = named(list);
    assert_eq!(found, [pair(".rag", "R"), pair("s", "[]"), pair("", "D")]);
    assert!(notes.iter().any(|n| n.contains("1 of the entries of chat_template is left out")), "{notes:?}");
    let (found, notes) = named(json!({"rag": "R", "default": "D", "tool-use": "T", "n": 1, "m": null}));
    assert_eq!(found, [pair(".rag", "R"), pair(".tool_use", "T"), pair("s", "[]"), pair("", "D")]);
    assert!(notes.iter().any(|n| n.contains("2 of the entries of chat_template are left out")), "{notes:?}");
    // Named ones alone.
    assert_eq!(named(json!({"rag": "R"})).0, [pair(".rag", "R"), pair("s", "[]")]);
    assert!(named(json!(7)).1.iter().any(|n| n.contains("1 of the entries")));
    assert!(named(serde_json::Value::Null).0.is_empty());
}
