//! Tokens for which the embedding has no row, and files that are no tokenizer of the kind that their name says.

use super::*;

#[test]
fn added_tokens_without_a_row_are_left_out_whatever_the_form() {
    // The same three added tokens, of which one has a row, in every form of a tokenizer.
    let added = |first: u64| -> Vec<Value> {
        let one = |i: u64| json!({"id": first + i, "content": format!("<|new{i}|>"), "special": true});
        (0..3).map(one).collect()
    };
    let decoder = |first: u64| -> Value {
        let list = (0..3).map(|i| ((first + i).to_string(), json!({"content": format!("<|new{i}|>")})));
        json!({"added_tokens_decoder": list.collect::<serde_json::Map<_, _>>(), "tokenizer_class": "Qwen2Tokenizer"})
    };
    let (mut bytes, mut pieces) = (byte_level(), byte_fallback());
    bytes["added_tokens"] = json!(added(3));
    // Some writers list added tokens in the vocabulary too.
    for i in 0..3 {
        bytes["model"]["vocab"][format!("<|new{i}|>")] = json!(3 + i);
    }
    pieces["added_tokens"].as_array_mut().unwrap().extend(added(6));
    let parts = json!({"a": 0, "b": 1, "ab": 2});
    let dirs = [
        (4, folder(false, &[("tokenizer.json", bytes)])),
        (7, folder(false, &[("tokenizer.json", pieces)])),
        (6, folder(true, &[("tokenizer_config.json", decoder(5))])),
        (4, folder(false, &[("vocab.json", parts), ("tokenizer_config.json", decoder(3))])),
        (6, folder(true, &[("added_tokens.json", json!({"<|new0|>": 5, "x": 6, "y": 7}))])),
    ];
    fs::write(dirs[3].1.path().join("merges.txt"), "a b\n").unwrap();
    for (rows, dir) in &dirs {
        let v = vocab(dir, "llama", *rows);
        let tokens = strings(&v.metadata, "ggml.tokens");
        assert_eq!((tokens.len() as u64, tokens.last().unwrap().as_str()), (*rows, "<|new0|>"));
        let note = format!("beyond the embedding's {rows} rows are left out: id {rows}, 2 in all");
        assert!(v.notes.iter().any(|n| n.contains(&note)), "{:?}", v.notes);
    }
}

#[test]
fn tokens_of_the_vocabulary_without_a_row_are_an_error() {
    let parts = folder(false, &[("vocab.json", json!({"a": 0, "b": 1, "ab": 2}))]);
    fs::write(parts.path().join("merges.txt"), "a b\n").unwrap();
    put(parts.path(), &[("tokenizer_config.json", json!({"tokenizer_class": "Qwen2Tokenizer"}))]);
    for (rows, dir) in [
        (2, folder(false, &[("tokenizer.json", byte_level())])),
        (5, folder(false, &[("tokenizer.json", byte_fallback())])),
        (2, parts),
        (4, folder(true, &[])),
    ] {
        assert!(fails(&dir, rows).contains("is out of range"), "{}", fails(&dir, rows));
    }
}

/// What is called tokenizer.model and is none, and what must be said of it.
const OTHERS: [(&str, &str); 5] = [
    ("AA== 0\nAQ== 1\nIHRoZQ== 2\n", "tiktoken vocabulary (Llama 3's)"),
    ("", "is empty"),
    ("{\"version\": \"1.0\"}", "is JSON"),
    ("<!DOCTYPE html>\n<html></html>", "is a web page"),
    ("the quick brown fox\n", "is text"),
];

#[test]
fn content_says_what_a_tokenizer_model_is() {
    for (text, what) in OTHERS {
        let dir = folder(false, &[("tokenizer.json", byte_level())]);
        fs::write(dir.path().join("tokenizer.model"), text).unwrap();
        let v = vocab(&dir, "llama", 4);
        assert_eq!(v.metadata.text("tokenizer.ggml.model"), Some("gpt2"));
        let note = &v.notes[0];
        assert!(note.contains(what) && note.contains("tokenizer.json is read instead"), "{note}");
        fs::remove_file(dir.path().join("tokenizer.json")).unwrap();
        let error = read_as(dir.path(), "llama", 4, &json!({})).err().unwrap();
        assert!(error.to_string().contains(what), "{error}");
        assert!(error.hint().is_some(), "{error}");
    }
    // Beside a sound model, it is the tokenizer.json that is empty.
    let dir = folder(true, &[]);
    fs::write(dir.path().join("tokenizer.json"), "").unwrap();
    let v = vocab(&dir, "llama", 5);
    assert!(v.notes[0].contains("is empty: it is not read; tokenizer.model is read"), "{:?}", v.notes);
    // A damaged model is passed over and named.
    let dir = folder(true, &[("tokenizer.json", byte_level())]);
    fs::write(dir.path().join("tokenizer.model"), &small_model()[..20]).unwrap();
    let v = vocab(&dir, "llama", 4);
    assert!(v.notes[0].contains("tokenizer.model"), "{:?}", v.notes);
    fs::remove_file(dir.path().join("tokenizer.json")).unwrap();
    assert!(fails(&dir, 5).contains("tokenizer.model"));
}

#[test]
fn a_sentencepiece_model_by_its_other_names() {
    for name in ["spiece.model", "sentencepiece.bpe.model", "tokenizer.model.v3"] {
        let dir = folder(false, &[]);
        fs::write(dir.path().join(name), small_model()).unwrap();
        let v = vocab(&dir, "llama", 5);
        assert_eq!(strings(&v.metadata, "ggml.tokens")[4], "▁a");
        assert!(v.files[0].ends_with(name));
    }
    let dir = folder(false, &[]);
    fs::write(dir.path().join("qwen.tiktoken"), "AA== 0\n").unwrap();
    assert!(fails(&dir, 5).contains("qwen.tiktoken without a tokenizer.json"));
}

#[test]
fn long_files_of_json_are_refused_before_they_are_trees() {
    let dir = folder(true, &[]);
    for name in ["tokenizer_config.json", "added_tokens.json"] {
        fs::write(dir.path().join(name), format!("{{\"a\": [{}]}}", "[],".repeat(6 << 20))).unwrap();
        assert!(fails(&dir, 5).contains("at most 16777216"), "{}", fails(&dir, 5));
        fs::remove_file(dir.path().join(name)).unwrap();
    }
    let mut file = byte_level();
    file["normalizer"] =
        json!({"type": "Sequence", "normalizers": vec![json!("x".repeat(1 << 12)); 1 << 10]});
    assert!(fails(&folder(false, &[("tokenizer.json", file)]), 4).contains("at most 4194304"));
    let templates: Vec<Value> = (0..65).map(|i| json!({"name": format!("t{i}"), "template": "x"})).collect();
    put(dir.path(), &[("tokenizer_config.json", json!({"chat_template": templates}))]);
    let v = vocab(&dir, "llama", 5);
    assert!(v.notes.iter().any(|n| n.contains("has 65 chat templates")), "{:?}", v.notes);
    assert!(!v.metadata.iter().any(|(key, _)| key.contains("chat_template")));
    // Short ones take as much as trees.
    let many = format!("{{\"a\": [{}0]}}", "{\"\":0},".repeat(300_000));
    fs::write(dir.path().join("tokenizer_config.json"), many).unwrap();
    assert!(fails(&dir, 5).contains("more than 524288 values"), "{}", fails(&dir, 5));
}

#[test]
fn only_what_uses_a_chat_template_needs_a_sound_one() {
    let dir = folder(true, &[("tokenizer_config.json", json!({"chat_template": "C"}))]);
    let template = |name: &str, bytes: &[u8]| {
        fs::write(dir.path().join(name), bytes).unwrap();
        let v = vocab(&dir, "llama", 5);
        let text = v.metadata.text("tokenizer.chat_template").map(str::to_string);
        (text, v.notes.into_iter().find(|n| n.contains("chat template is left out")).unwrap_or_default())
    };
    let (text, note) = template("chat_template.json", b"{");
    assert!(text.as_deref() == Some("C") && note.contains("chat_template.json"), "{note}");
    fs::remove_file(dir.path().join("chat_template.json")).unwrap();
    let (text, note) = template("chat_template.jinja", b"\xff");
    assert!(
        text.as_deref() == Some("C") && note.contains("chat_template.jinja: the file is not UTF-8"),
        "{note}"
    );
}

#[test]
#[cfg(unix)]
fn links_that_are_not_followed_are_noted() {
    let outside = TempDir::new().unwrap();
    fs::write(outside.path().join("secret"), "PRIVATE KEY").unwrap();
    let dir = folder(true, &[]);
    fs::create_dir(dir.path().join("additional_chat_templates")).unwrap();
    for name in ["chat_template.jinja", "additional_chat_templates/rag.jinja"] {
        std::os::unix::fs::symlink(outside.path().join("secret"), dir.path().join(name)).unwrap();
        let v = vocab(&dir, "llama", 5);
        let said =
            |n: &String| n.contains(&format!("{name}: is a link that leads out of the folder: not read"));
        assert!(v.notes.iter().any(said), "{:?}", v.notes);
        assert!(!v.metadata.iter().any(|(key, _)| key.contains("chat_template")));
    }
}

#[test]
fn whitespace_that_tokens_take_is_noted() {
    let mut file = byte_fallback();
    let add = |file: &mut Value, id: u64, text: &str, side: &str| {
        let token = json!({"id": id, "content": text, "special": true, side: true});
        file["added_tokens"].as_array_mut().unwrap().push(token);
    };
    file["added_tokens"][2]["rstrip"] = json!(true);
    add(&mut file, 6, "<|user|>", "rstrip");
    let notes = |file: &Value, name| {
        let dir = folder(false, &[("tokenizer.json", file.clone())]);
        let config = json!({});
        let wanted = Wanted { arch: "llama", rows: 8, name, config: &config, pre: None };
        super::super::read(dir.path(), &wanted).unwrap().unwrap().notes
    };
    let note = |notes: &[String]| notes.iter().find(|n| n.contains("whitespace")).cloned();
    let found = note(&notes(&file, Some("A Llama"))).unwrap();
    assert!(found.starts_with("2 tokens take the whitespace behind them (rstrip)"), "{found}");
    assert!(
        found.contains("the first is </s>") && found.contains("--set general.name=phi-3-NAME"),
        "{found}"
    );
    assert_eq!(note(&notes(&file, Some("Phi-3 mini"))), None);
    // Where only some do, the name would be wrong for the others.
    add(&mut file, 7, "<mask>", "lstrip");
    let found = note(&notes(&file, Some("A Llama"))).unwrap();
    assert!(found.contains("(lstrip, rstrip)") && !found.contains("--set"), "{found}");
    assert!(note(&notes(&file, Some("Phi-3 mini"))).unwrap().contains("before them (lstrip)"));
    assert_eq!(note(&notes(&byte_fallback(), None)), None);
}
