//! Vocabularies from end to end: of llama2.c checkpoints, and of checkpoints that are made of a GGUF.

use std::path::Path;

use formats::metadata::{Array, Metadata};
use ggufkit::tokenizer::Tokenizer;
use serde_json::Value as Json;

use crate::common::{Dir, demo, fails, ok, run};

fn metadata(path: &str) -> Metadata {
    ggufkit::open(Path::new(path), &Default::default()).unwrap().model.metadata
}

fn array(metadata: &Metadata, key: &str) -> Array {
    metadata.get(&format!("tokenizer.ggml.{key}")).unwrap().as_array().unwrap().clone()
}

/// The demo's llama2.c checkpoint with so many rows more in its embedding.
fn padded(path: &str, more: usize) {
    let mut bytes = std::fs::read(demo("tiny.bin")).unwrap();
    let number = |at: usize| i32::from_le_bytes(bytes[4 * at..][..4].try_into().unwrap());
    let (dim, vocab) = (number(0) as usize, number(5) as usize);
    bytes[20..24].copy_from_slice(&((vocab + more) as i32).to_le_bytes());
    let end = 28 + 4 * dim * vocab;
    bytes.splice(end..end, vec![0; 4 * dim * more]);
    std::fs::write(path, bytes).unwrap();
}

/// The SentencePiece model with the tokens of a vocabulary, trained as BPE, which leaves texts as they are.
fn sentencepiece(metadata: &Metadata) -> Vec<u8> {
    let field = |tag: u8, bytes: &[u8]| {
        let n = bytes.len() as u32;
        [&[tag, 0x80 | (n & 0x7f) as u8, (n >> 7) as u8], bytes].concat()
    };
    let (scores, types) = (array(metadata, "scores"), array(metadata, "token_type"));
    let mut out = Vec::new();
    let tokens = array(metadata, "tokens");
    for ((text, score), kind) in tokens.strings().zip(scores.values()).zip(types.values()) {
        let score = (score.as_f64().unwrap() as f32).to_le_bytes();
        let piece = [&field(0x0a, text)[..], &[0x15], &score, &[0x18, kind.as_u64().unwrap() as u8]].concat();
        // The first byte of a length is not zero in files of SentencePiece, and needs one byte only.
        out.extend([0x0a, piece.len() as u8]);
        out.extend(piece);
    }
    out.extend(field(0x12, &[0x18, 2]));
    // Extra spaces are left in texts, as by every reader of a tokenizer.bin.
    out.extend(field(0x1a, &[0x20, 0]));
    out
}

#[test]
fn a_padded_llama2c_checkpoint_takes_its_tokenizer_in_either_form() {
    let dir = Dir::new();
    let [bin, model, a, b] = ["padded.bin", "t.model", "a.gguf", "b.gguf"].map(|name| dir.path(name));
    padded(&bin, 9);
    let whole = dir.path("whole.gguf");
    ok(&["convert", &demo("tiny.bin"), &whole, "--tokenizer", &demo("tiny-tokenizer.bin")]);
    std::fs::write(&model, sentencepiece(&metadata(&whole))).unwrap();
    for (tokenizer, out) in [(&demo("tiny-tokenizer.bin"), &a), (&model, &b)] {
        let made = run(&["convert", &bin, out, "--tokenizer", tokenizer]);
        let text = [made.stdout, made.stderr].concat();
        let text = String::from_utf8_lossy(&text);
        assert!(made.status.success(), "{text}");
        assert!(text.contains("9 of the embedding's 521 rows have no token: they are padded"), "{text}");
    }
    assert!(dir.read("a.gguf") == dir.read("b.gguf"), "both forms give the same");
    let tokens = array(&metadata(&a), "tokens");
    assert_eq!((tokens.len(), tokens.strings().last().unwrap()), (521, &b"[PAD520]"[..]));
    ok(&["run", &a, "--prompt", "Once", "--tokens", "2"]);

    // A .bin gets a tokenizer.bin of all rows, which reads back as it was.
    ok(&["convert", &bin, &dir.path("c.bin"), "--tokenizer", &model]);
    ok(&["convert", &dir.path("c.bin"), &dir.path("c.gguf"), "--tokenizer", &dir.path("c-tokenizer.bin")]);
    for key in ["tokens", "scores", "token_type"] {
        assert_eq!(array(&metadata(&dir.path("c.gguf")), key), array(&metadata(&a), key), "{key}");
    }

    // More tokens than rows belong to another model; other files are named.
    let (code, text) = fails(&[
        "convert",
        &demo("tiny.bin"),
        &dir.path("d.gguf"),
        "--tokenizer",
        &dir.path("c-tokenizer.bin"),
    ]);
    assert!(code == 1 && text.contains("521 tokens but the model has a vocabulary of 512"), "{text}");
    std::fs::write(&model, "AA== 0\nAQ== 1\n").unwrap();
    let (code, text) = fails(&["convert", &bin, &dir.path("d.gguf"), "--tokenizer", &model]);
    assert!(code == 1 && text.contains("tiktoken") && text.contains("tokenizer.bin"), "{text}");
}

#[test]
fn a_llama2c_vocabulary_without_bytes_is_written_with_a_note() {
    let dir = Dir::new();
    let [gguf, none, bin] = ["a.gguf", "b.gguf", "c.bin"].map(|name| dir.path(name));
    ok(&["convert", &demo("tiny.bin"), &gguf, "--tokenizer", &demo("tiny-tokenizer.bin")]);
    // The bytes' tokens become words.
    let m = metadata(&gguf);
    let words = array(&m, "tokens");
    let words = words.strings().enumerate().map(|(i, text)| {
        let text = String::from_utf8_lossy(text).into_owned();
        if text.starts_with("<0x") { format!("word{i}") } else { text }
    });
    let words: Vec<String> = words.collect();
    let kinds = array(&m, "token_type");
    let kinds: Vec<u64> =
        kinds.values().map(|v| v.as_u64().unwrap()).map(|v| if v == 6 { 1 } else { v }).collect();
    for (file, json) in [("w.json", serde_json::json!(words)), ("k.json", serde_json::json!(kinds))] {
        std::fs::write(dir.path(file), json.to_string()).unwrap();
    }
    let set = |key: &str, file: &str| format!("tokenizer.ggml.{key}={}", dir.path(file));
    ok(&[
        "edit",
        &gguf,
        &none,
        "--set-file",
        &set("tokens", "w.json"),
        "--set-file",
        &set("token_type", "k.json"),
    ]);
    let made = run(&["convert", &none, &bin]);
    let text = String::from_utf8_lossy(&[made.stdout, made.stderr].concat()).into_owned();
    assert!(made.status.success() && text.contains("no tokens for bytes"), "{text}");
    assert!(dir.names().contains(&"c-tokenizer.bin".to_string()));
}

#[test]
fn a_checkpoint_made_of_a_gguf_has_its_tokenizer() {
    let dir = Dir::new();
    let [gguf, folder, again] = ["a.gguf", "back", "again.gguf"].map(|name| dir.path(name));
    ok(&["convert", &demo("model"), &gguf, "--set", "tokenizer.chat_template=a template"]);
    ok(&["convert", &gguf, &format!("{folder}/")]);
    let config = std::fs::read(format!("{folder}/tokenizer_config.json")).unwrap();
    let config: Json = serde_json::from_slice(&config).unwrap();
    assert_eq!((&config["chat_template"], &config["bos_token"]), (&"a template".into(), &"<s>".into()));
    ok(&["convert", &folder, &again]);
    let made = |path: &str| Tokenizer::from_metadata(&metadata(path)).unwrap();
    let (a, b) = (made(&gguf), made(&again));
    let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap();
    assert!(a.encode(&text, true, true) == b.encode(&text, true, true), "the same ids");
    assert_eq!(a.chat_template().unwrap(), b.chat_template().unwrap());
}

#[test]
fn a_gguf_with_more_tokens_than_rows_is_no_model() {
    let dir = Dir::new();
    let (model, more) = (crate::common::gguf(&dir), dir.path("more.gguf"));
    let mut tokens: Vec<String> =
        array(&metadata(&model), "tokens").strings().map(|t| String::from_utf8_lossy(t).into()).collect();
    tokens.push("<pad>".into());
    let list = format!("tokenizer.ggml.tokens=[str]:{}", serde_json::to_string(&tokens).unwrap());
    ok(&["edit", &model, &more, "--force", "--set", &list]);
    let out = dir.path("out.gguf");
    for args in [
        &["quantize", &more, &out, "--type", "q8_0"][..],
        &["run", &more, "--prompt", "a", "--tokens", "1"],
        &["eval", &more, &demo("heldout.txt"), "--chunks", "1"],
    ] {
        let (code, error) = fails(args);
        assert!(
            code == 1 && error.contains("a vocabulary of 513 tokens, more than the 512 rows"),
            "{args:?}: {error}"
        );
    }
    // It can be mended.
    tokens.pop();
    let list = format!("tokenizer.ggml.tokens=[str]:{}", serde_json::to_string(&tokens).unwrap());
    ok(&["edit", &more, &out, "--set", &list]);
    ok(&["verify", &out]);
}
