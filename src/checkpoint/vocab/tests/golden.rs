//! The ids that SentencePiece itself gives (tests/golden/sentencepiece, made by scripts/make_sentencepiece_golden.py), and folders
//! in which several files could be the tokenizer.

use super::*;
use crate::checkpoint::vocab::testing::{model, piece};
use crate::tokenizer::Tokenizer;

macro_rules! golden {
    ($file:literal) => {
        include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/sentencepiece/", $file))
    };
}

const MODELS: [(&str, &[u8]); 8] = [
    ("bpe-symbols", golden!("bpe-symbols.model")),
    ("bpe-symbols-merged", golden!("bpe-symbols-merged.model")),
    ("unigram-symbols", golden!("unigram-symbols.model")),
    ("unigram-symbols-merged", golden!("unigram-symbols-merged.model")),
    ("unigram-bare-merged", golden!("unigram-bare-merged.model")),
    ("bpe-no-bytes", golden!("bpe-no-bytes.model")),
    ("bpe-no-bos", golden!("bpe-no-bos.model")),
    ("bpe-other-ids", golden!("bpe-other-ids.model")),
];

/// A folder with this SentencePiece model, and the number of its pieces.
fn folder_of(bytes: &[u8]) -> (TempDir, u64) {
    let dir = folder(false, &[]);
    fs::write(dir.path().join("tokenizer.model"), bytes).unwrap();
    (dir, sentencepiece::whole("m", bytes).unwrap().0.len() as u64)
}

#[test]
fn ids_are_those_of_sentencepiece() {
    let golden: Value = serde_json::from_slice(golden!("ids.json")).unwrap();
    for (name, bytes) in MODELS {
        let (dir, rows) = folder_of(bytes);
        let v = vocab(&dir, "llama", rows);
        let t = Tokenizer::from_metadata(&v.metadata).unwrap();
        let of = &golden["models"][name];
        for (text, ids) in golden["texts"].as_array().unwrap().iter().zip(of["ids"].as_array().unwrap()) {
            let bos = of["bos"].as_i64().filter(|bos| *bos >= 0);
            let ids: Vec<i64> = bos
                .into_iter()
                .chain(ids.as_array().unwrap().iter().map(|id| id.as_i64().unwrap()))
                .collect();
            let own: Vec<i64> =
                t.encode(text.as_str().unwrap(), true, false).into_iter().map(i64::from).collect();
            assert_eq!(own, ids, "{name}: {text}");
        }
        let note = v.notes.join("\n");
        assert_eq!(note.contains("symbols, such as <|user|>"), name.contains("symbols"), "{name}: {note}");
        assert_eq!(note.contains("it puts a space before texts"), name.contains("bare"), "{name}: {note}");
        assert_eq!(note.contains("no tokens of bytes"), name.contains("no-bytes"), "{name}: {note}");
        assert!(!note.contains("ggufkit and llama.cpp split"), "{name}: {note}");
        let types = types(&v.metadata);
        assert_eq!(types.iter().filter(|&&t| t == 4).count(), if name.contains("symbols") { 3 } else { 0 });
    }
}

#[test]
fn symbols_stay_what_they_are_where_they_are_listed_too() {
    let one = |text: &str| json!({"content": text, "special": false});
    let decoder =
        json!({"3": one("<|user|>"), "5": one("foo_bar"), "4": {"content": "<|end|>", "special": true}});
    let (dir, rows) = folder_of(golden!("bpe-symbols.model"));
    let plain = vocab(&dir, "llama", rows);
    put(dir.path(), &[("tokenizer_config.json", json!({"added_tokens_decoder": decoder}))]);
    put(dir.path(), &[("added_tokens.json", json!({"foo_bar": 5}))]);
    let v = vocab(&dir, "llama", rows);
    assert_eq!(types(&v.metadata)[3..6], [4, 3, 4]);
    let [a, b] = [plain, v].map(|v| Tokenizer::from_metadata(&v.metadata).unwrap());
    let of = |t: &Tokenizer| t.encode("a<|user|>b foo_bar c", false, false);
    assert_eq!(of(&a), of(&b));
}

/// Pieces of these texts, and a tokenizer.json of a model with the same.
fn both(texts: &[&str]) -> (Vec<u8>, Value) {
    let head = [("<unk>", 2), ("<s>", 3), ("</s>", 3), ("<0x0A>", 6)];
    let all = head.into_iter().chain(texts.iter().map(|text| (*text, 1)));
    let pieces: Vec<_> = all.clone().map(|(text, kind)| piece(text, 0.0, kind)).collect();
    let mut json = byte_fallback();
    json["model"]["vocab"] = json!(
        all.zip(0..).map(|((text, _), id)| (text.to_string(), json!(id))).collect::<serde_json::Map<_, _>>()
    );
    json["model"]["merges"] = json!([]);
    (model(&pieces), json)
}

#[test]
fn added_tokens_of_tokenizer_json_beside_a_model() {
    let (bytes, mut json) = both(&["▁a", "b"]);
    json["added_tokens"].as_array_mut().unwrap().extend([
        json!({"id": 6, "content": "<|im_end|>", "special": true}),
        json!({"id": 7, "content": "note:", "special": false}),
        json!({"id": 5, "content": "<tool>", "special": false}), // in place of a piece
        json!({"id": 9, "content": "<far>", "special": true}),
    ]);
    let (dir, _) = folder_of(&bytes);
    put(
        dir.path(),
        &[("tokenizer.json", json), ("tokenizer_config.json", json!({"eos_token": "<|im_end|>"}))],
    );
    let v = vocab(&dir, "llama", 8);
    assert_eq!(strings(&v.metadata, "ggml.tokens")[4..], ["▁a", "<tool>", "<|im_end|>", "note:"]);
    assert_eq!(types(&v.metadata), [2, 3, 3, 6, 1, 4, 3, 4]);
    assert_eq!(get(&v, "eos_token_id"), Some(&Meta::U32(6)));
    assert!(v.notes[0].contains("id 9, 1 in all"), "{:?}", v.notes);
}

#[test]
fn of_two_vocabularies_that_of_tokenizer_json_is_taken() {
    let (bytes, same) = both(&["▁a", "b", "c"]);
    let mut unigram = same.clone();
    let vocab_of = |json: &Value| json["model"]["vocab"].as_object().unwrap().clone();
    let mut list: Vec<(String, Value)> = vocab_of(&same).into_iter().collect();
    list.sort_by_key(|(_, id)| id.as_u64());
    unigram["model"] = json!({"type": "Unigram", "unk_id": 0, "byte_fallback": true,
        "vocab": list.iter().map(|(text, _)| json!([text, -1.0])).collect::<Vec<_>>()});
    let (mut shorter, mut other) = (same.clone(), same.clone());
    shorter["model"]["vocab"].as_object_mut().unwrap().remove("c");
    other["model"]["vocab"] = json!({"<unk>": 0, "<s>": 1, "</s>": 2, "<0x0A>": 3, "▁a": 4, "c": 5, "b": 6});
    for (json, says, first) in [
        (byte_level(), "token 0 is \"a\" there and \"<unk>\" here", "a"),
        (both(&["▁a", "b", "c", "d"]).1, "token 7 is \"d\" there, and here are 7 tokens", "<unk>"),
        (shorter, "token 6 is nothing there and \"c\" here", "<unk>"),
        (other, "token 5 is \"c\" there and \"b\" here", "<unk>"),
        (unigram, "it is a unigram model there and merges (BPE) here", "<unk>"),
    ] {
        let (dir, _) = folder_of(&bytes);
        put(dir.path(), &[("tokenizer.json", json)]);
        let v = vocab(&dir, "llama", 8);
        assert!(v.notes[0].contains(says) && v.notes[0].contains("tokenizer.json is read"), "{:?}", v.notes);
        assert_eq!(strings(&v.metadata, "ggml.tokens")[0], first);
        assert!(!v.files.iter().any(|file| file.ends_with("tokenizer.model")));
    }
    // Converters write some bytes as characters.
    let mut bytes_differ = same;
    let list = bytes_differ["model"]["vocab"].as_object_mut().unwrap();
    list.remove("<0x0A>");
    list.insert("\n".into(), json!(3));
    let (dir, _) = folder_of(&bytes);
    put(dir.path(), &[("tokenizer.json", bytes_differ)]);
    assert!(vocab(&dir, "llama", 7).files.iter().any(|file| file.ends_with("tokenizer.model")));
    // vocab.json with merges.txt is a tokenizer of a byte-level class.
    let (dir, _) = folder_of(&bytes);
    put(dir.path(), &[("vocab.json", json!({"a": 0, "b": 1, "ab": 2}))]);
    fs::write(dir.path().join("merges.txt"), "a b\n").unwrap();
    for (class, kind) in [("Qwen2Tokenizer", "gpt2"), ("LlamaTokenizer", "llama")] {
        put(dir.path(), &[("tokenizer_config.json", json!({"tokenizer_class": class}))]);
        assert_eq!(vocab(&dir, "llama", 7).metadata.text("tokenizer.ggml.model"), Some(kind));
    }
}

#[test]
fn a_damaged_tokenizer_json_beside_a_sound_tokenizer_is_passed_over() {
    let sp = small_model();
    for (bytes, says) in [
        (&b""[..], "is empty"),
        (b" <!DOCTYPE html>", "is a web page"),
        (b"{\"model\": ", "EOF while parsing"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n", "Git LFS pointer"),
        (b"\0\x05\x16\x07\0\x02\0\0Mac OS X        ", "AppleDouble"),
        (&sp, "SentencePiece"),
        (b"{\"model\": {\"type\": \"WordPiece\", \"vocab\": {\"a\": 0}}}", "WordPiece"),
    ] {
        let dir = folder(true, &[]);
        let path = dir.path().join("tokenizer.json");
        fs::write(&path, bytes).unwrap();
        let v = vocab(&dir, "llama", 5);
        assert!(v.notes[0].contains(says), "{says}: {:?}", v.notes);
        fs::remove_file(dir.path().join("tokenizer.model")).unwrap();
        let error = read_as(dir.path(), "llama", 5, &json!({})).err().unwrap();
        assert!(error.to_string().contains(says), "{error}");
        let hint = error.hint().map(|hint| hint.to_string()).unwrap_or_default();
        assert!(!hint.contains("text file") && !hint.contains("text.txt"), "{hint}");
        put(
            dir.path(),
            &[
                ("vocab.json", json!({"a": 0, "b": 1, "ab": 2})),
                ("tokenizer_config.json", json!({"tokenizer_class": "Qwen2Tokenizer"})),
            ],
        );
        fs::write(dir.path().join("merges.txt"), "a b\n").unwrap();
        let v = vocab(&dir, "qwen2", 5);
        assert!(
            v.notes[0].contains(says) && v.notes[0].contains("vocab.json is read instead"),
            "{says}: {:?}",
            v.notes
        );
    }
}

#[test]
fn merges_of_characters_have_no_pre_tokenizer() {
    let mut file = byte_fallback();
    // Large vocabularies have this character too.
    file["model"]["vocab"]["\u{120}"] = json!(6);
    let named = |file: &Value, pre| {
        let dir = folder(false, &[("tokenizer.json", file.clone())]);
        super::super::read(
            dir.path(),
            &Wanted { arch: "llama", rows: 7, name: None, config: &json!({}), pre },
        )
    };
    // The decoder does not matter to how texts are split.
    for decoder in [Value::Null, json!({"type": "Metaspace", "replacement": "▁"})] {
        file["decoder"] = decoder;
        let v = named(&file, None).unwrap().unwrap();
        assert_eq!(v.metadata.text("tokenizer.ggml.model"), Some("llama"));
    }
    file["model"]["byte_fallback"] = json!(false);
    file["model"]["vocab"]["▁x"] = json!(7);
    for pre in [None, Some("default"), Some("gpt-2")] {
        let error = named(&file, pre).err().unwrap();
        assert!(error.to_string().contains("BPE over characters without byte fallback"), "{error}");
        assert!(error.hint().unwrap().contains("tokenizer.model"));
    }
    let parts = folder(false, &[("vocab.json", json!({"▁": 0, "a": 1, "▁a": 2}))]);
    fs::write(parts.path().join("merges.txt"), "▁ a\n").unwrap();
    let wanted = Wanted { arch: "llama", rows: 3, name: None, config: &json!({}), pre: Some("default") };
    assert!(
        super::super::read(parts.path(), &wanted).err().unwrap().to_string().contains("BPE over characters")
    );
}

#[test]
fn texts_begin_with_bos_as_in_the_models_own_tokenizer() {
    let mut file = byte_fallback();
    file["post_processor"] = Value::Null;
    for (class, config, add) in [
        (json!("PreTrainedTokenizerFast"), json!({"bos_token_id": 1}), Some(false)),
        (json!("LlamaTokenizerFast"), json!({"bos_token_id": 1}), None),
        (Value::Null, json!({"model_type": "qwen3", "bos_token_id": 1}), Some(false)),
        (Value::Null, json!({"model_type": "mistral"}), None),
    ] {
        let dir = folder(
            false,
            &[
                ("tokenizer.json", file.clone()),
                ("tokenizer_config.json", json!({"tokenizer_class": class, "bos_token": "<s>"})),
            ],
        );
        let v = read_as(dir.path(), "llama", 6, &config).unwrap().unwrap();
        assert_eq!(get(&v, "add_bos_token"), add.map(Meta::Bool).as_ref(), "{class} {config}");
    }
    // What is asked for and is not there.
    let (dir, rows) = folder_of(golden!("bpe-no-bos.model"));
    put(dir.path(), &[("tokenizer_config.json", json!({"add_bos_token": true}))]);
    let v = vocab(&dir, "llama", rows);
    assert_eq!(get(&v, "add_bos_token"), Some(&Meta::Bool(false)));
    assert!(v.notes.iter().any(|n| n.contains("it has no such token")), "{:?}", v.notes);
}

#[test]
fn a_role_without_a_row_is_noted_whatever_file_names_it() {
    let config = json!({"eos_token": "<|im_end|>", "tokenizer_class": "Qwen2Tokenizer"});
    let added = [("tokenizer_config.json", config), ("added_tokens.json", json!({"<|im_end|>": 9}))];
    let parts = folder(false, &added);
    put(parts.path(), &[("vocab.json", json!({"a": 0, "b": 1, "ab": 2}))]);
    fs::write(parts.path().join("merges.txt"), "a b\n").unwrap();
    for dir in [folder(true, &added), parts] {
        let v = read_as(dir.path(), "llama", 5, &json!({"eos_token_id": 2})).unwrap().unwrap();
        assert!(v.notes.iter().any(|n| n.contains("eos is token 9")), "{:?}", v.notes);
        assert_eq!(get(&v, "eos_token_id"), Some(&Meta::U32(2)));
    }
    let mut twice = byte_level();
    twice["added_tokens"]
        .as_array_mut()
        .unwrap()
        .push(json!({"id": 4, "content": "<|end|>", "special": true}));
    assert!(
        fails(&folder(false, &[("tokenizer.json", twice)]), 6).contains("\"<|end|>\" has the ids 3 and 4")
    );
}

#[test]
fn metaspace_puts_no_space_before_a_space() {
    let (_, mut json) = both(&["▁", "a", "▁a", "foo"]);
    json["normalizer"] = Value::Null;
    json["model"]["merges"] = json!([["▁", "a"]]);
    json["added_tokens"].as_array_mut().unwrap().push(json!({"id": 8, "content": "<x>", "special": false}));
    for (scheme, ids) in [("always", [[4, 6], [8, 6], [4, 6]]), ("first", [[4, 6], [8, 5], [4, 6]])] {
        json["pre_tokenizer"] = json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": scheme});
        let v = vocab(&folder(false, &[("tokenizer.json", json.clone())]), "llama", 9);
        let t = Tokenizer::from_metadata(&v.metadata).unwrap();
        let of = |text| t.encode(text, false, false);
        assert_eq!([of("  a"), of("<x>a"), of("  a")], ids.map(Vec::from), "{scheme}");
        assert_eq!((of("a"), of("<x> a")), (vec![6], vec![8, 6]));
        assert!(v.notes.iter().any(|n| n.contains("texts that begin with one")), "{:?}", v.notes);
    }
}
