//! Models that are not merged, or do something to texts first.

use super::*;
use crate::checkpoint::vocab::testing::{model_with, piece};
use crate::tokenizer::Tokenizer;

/// "xyz" is xy + z by the sum of scores, and x + yz by the highest score.
fn pieces() -> Vec<Vec<u8>> {
    let list = [
        ("<unk>", 0.0, 2),
        ("<s>", 0.0, 3),
        ("</s>", 0.0, 3),
        ("▁", -9.0, 1),
        ("x", -9.0, 1),
        ("y", -9.0, 1),
        ("z", -2.0, 1),
        ("yz", -1.0, 1),
        ("xy", -1.5, 1),
        ("▁end", 0.0, 4),
    ];
    list.map(|(text, score, kind)| piece(text, score, kind)).to_vec()
}

fn made(dir: &TempDir, rows: u64) -> (Vocabulary, Tokenizer) {
    let v = vocab(dir, "llama", rows);
    let tokenizer = Tokenizer::from_metadata(&v.metadata).unwrap();
    (v, tokenizer)
}

fn of_model(bytes: &[u8]) -> TempDir {
    let dir = folder(false, &[]);
    fs::write(dir.path().join("tokenizer.model"), bytes).unwrap();
    dir
}

#[test]
fn the_algorithm_is_the_models() {
    // The default of the format is unigram.
    for trainer in [&[0x18, 1][..], &[]] {
        let dir = of_model(&model_with(&pieces(), trainer, &[0x20, 0]));
        let (v, t) = made(&dir, 10);
        assert_eq!(v.metadata.text("tokenizer.ggml.model"), Some("t5"));
        assert!(v.notes.iter().any(|n| n.contains("unigram") && n.contains("\"t5\"")), "{:?}", v.notes);
        assert!(!v.notes.iter().any(|n| n.contains("byte fallback")), "{:?}", v.notes);
        assert_eq!(t.encode("xyz", true, false), [1, 3, 8, 6]);
        assert_eq!((t.bos(), t.eos(), t.add_bos(), t.add_eos()), (Some(1), Some(2), true, false));
        // A user-defined piece is taken wherever it is, and what is unknown is one token.
        assert_eq!(t.encode("x end??", false, false), [3, 4, 9, 0]);
    }
    let dir = of_model(&model_with(&pieces(), &[0x18, 2], &[0x20, 0]));
    let (v, t) = made(&dir, 10);
    assert_eq!(v.metadata.text("tokenizer.ggml.model"), Some("llama"));
    assert!(v.notes[0].contains("no tokens of bytes"), "{:?}", v.notes);
    assert_eq!(t.encode("xyz", true, false), [1, 3, 4, 7]);
    let dir = of_model(&model_with(&pieces(), &[0x18, 3], &[]));
    assert!(fails(&dir, 10).contains("algorithm 3"));
}

#[test]
fn bytes_are_ours_and_a_note_says_what_others_do() {
    let mut pieces = pieces();
    pieces.extend((0..=255).map(|b| piece(&format!("<0x{b:02X}>"), 0.0, 6)));
    let (v, t) = made(&of_model(&model_with(&pieces, &[0x18, 1], &[0x20, 0])), 266);
    assert_eq!(t.encode("x\n", false, false), [3, 4, 10 + 0x0a]);
    let note = v.notes.iter().find(|n| n.contains("no byte fallback")).unwrap();
    // Hardly a character of the sample has a token.
    assert!(note.contains("for 34 of 34 lines"), "{note}");
}

#[test]
fn the_normalizer_is_the_models() {
    let table = ::tokenizer::testing::table(&[(b'X', "x"), (b'\n', " ")]);
    let len = table.len() as u32;
    let field = [&[0x12, 0x80 | (len & 0x7f) as u8, (len >> 7) as u8][..], &table].concat();
    for (algorithm, xyz) in [(1, [8, 6]), (2, [4, 7])] {
        // Extra spaces are removed by default.
        let dir = of_model(&model_with(&pieces(), &[0x18, algorithm], &field));
        let (v, t) = made(&dir, 10);
        assert_eq!(t.encode("  Xyz\n", false, false), [&[3][..], &xyz].concat());
        assert_eq!(get(&v, "remove_extra_whitespaces"), Some(&Meta::Bool(true)));
        let note = v.notes.iter().find(|n| n.contains("it does not replace characters"));
        assert_eq!(note.is_some(), algorithm == 2, "{:?}", v.notes);
        // No space before the text, and none removed.
        let dir = of_model(&model_with(&pieces(), &[0x18, algorithm], &[0x18, 0, 0x20, 0]));
        let (v, t) = made(&dir, 10);
        assert_eq!(t.encode("xyz ", false, false), [&xyz[..], &[3]].concat());
        assert_eq!(get(&v, "add_space_prefix"), Some(&Meta::Bool(false)));
    }
    // Settings that no GGUF can say.
    for (trainer, normalizer, what) in [
        (&[0x18, 2, 0xc0, 0x01, 1][..], &[][..], "treat_whitespace_as_suffix"),
        (&[0x18, 2], &[0x28, 0], "escape_whitespaces"),
    ] {
        let error = fails(&of_model(&model_with(&pieces(), trainer, normalizer)), 10);
        assert!(error.contains(what), "{error}");
    }
    let damaged = [0x12, 2, 1, 2];
    assert!(fails(&of_model(&model_with(&pieces(), &[], &damaged)), 10).contains("precompiled_charsmap"));
}

#[test]
fn a_unigram_model_in_tokenizer_json() {
    let file = json!({
        "added_tokens": [
            {"id": 0, "content": "<unk>", "special": true}, {"id": 1, "content": "<s>", "special": true},
        ],
        "normalizer": {"type": "Sequence", "normalizers": [{"type": "Lowercase"}]},
        "pre_tokenizer": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always"},
        "model": {"type": "Unigram", "unk_id": 0, "byte_fallback": false, "vocab": [
            ["<unk>", 0.0], ["<s>", 0.0], ["▁", -9.0], ["x", -9.0], ["z", -2.0], ["yz", -1.0], ["xy", -1.5],
        ]},
    });
    let config = json!({"bos_token": "<s>", "unk_token": "<unk>"});
    let dir = folder(false, &[("tokenizer.json", file), ("tokenizer_config.json", config)]);
    let (v, t) = made(&dir, 8);
    assert_eq!(v.metadata.text("tokenizer.ggml.model"), Some("t5"));
    assert_eq!(t.encode("xyz é", true, false), [1, 2, 6, 4, 2, 0]);
    assert!(v.notes.iter().any(|n| n.contains("Lowercase")), "{:?}", v.notes);
}

#[test]
fn a_space_before_texts_is_that_of_tokenizer_json() {
    let mut file = byte_fallback();
    let prefix = |file: &Value| {
        let v = vocab(&folder(false, &[("tokenizer.json", file.clone())]), "qwen2", 7);
        get(&v, "add_space_prefix").cloned()
    };
    assert_eq!(prefix(&file), None);
    file["normalizer"] = json!({"type": "Replace", "pattern": {"String": " "}, "content": "▁"});
    assert_eq!(prefix(&file), Some(Meta::Bool(false)));
    file["pre_tokenizer"] = json!({"type": "Metaspace", "prepend_scheme": "first", "split": false});
    assert_eq!(prefix(&file), None);
}
