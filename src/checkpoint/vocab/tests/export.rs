//! From a GGUF's vocabulary to the files of a checkpoint, and back.

use super::*;
use crate::checkpoint::vocab::testing::{model_with, piece};
use crate::tokenizer::Tokenizer;
use crate::tokenizer::pre::table::{Recognised, TABLE};

const TEXTS: [&str; 6] = [
    "the then there, 1234 the",
    "  two  spaces\n\nand lines\r\n",
    "<|user|> the <|end|>the",
    "é ü 漢字 🙂",
    "'S it's THE\tTHE",
    "",
];

/// The vocabulary that is read from the files that are made of this metadata.
fn back(metadata: &Metadata, rows: u64) -> Vocabulary {
    let dir = tempfile::tempdir().unwrap();
    for (name, bytes) in super::super::files(metadata, Some(64), &mut Vec::new()).unwrap() {
        fs::write(dir.path().join(name), bytes).unwrap();
    }
    read_as(dir.path(), "llama", rows, &json!({})).unwrap().unwrap()
}

fn same_ids(a: &Metadata, b: &Metadata, what: &str) {
    let (a, b) = (Tokenizer::from_metadata(a).unwrap(), Tokenizer::from_metadata(b).unwrap());
    for text in TEXTS {
        for special in [false, true] {
            assert_eq!(a.encode(text, true, special), b.encode(text, true, special), "{what}: {text:?}");
        }
    }
    assert_eq!((a.bos(), a.eos()), (b.bos(), b.eos()), "{what}");
    assert_eq!(a.chat_template().unwrap(), b.chat_template().unwrap(), "{what}");
    assert_eq!((a.add_bos(), a.add_eos()), (b.add_bos(), b.add_eos()), "{what}");
}

/// A byte-level vocabulary with a template and two special tokens.
fn bytes(pre: &str) -> Metadata {
    let merges = ["t h", "th e", "Ġ the", "1 2", "12 3", "Ġ Ġ", "' s", "Ċ Ċ", "T H"];
    let mut m = ::tokenizer::testing::byte_level(pre, &merges, &["<|user|>", "<|end|>"]);
    let end = 256 + merges.len() as u32 + 1;
    m.set("tokenizer.ggml.bos_token_id", Meta::U32(end - 1));
    m.set("tokenizer.ggml.eos_token_id", Meta::U32(end));
    m.set("tokenizer.chat_template", Meta::text("{{ messages }}"));
    m
}

#[test]
fn byte_level_vocabularies_of_every_pre_tokenizer() {
    let mut recognised = 0;
    for row in TABLE {
        let m = bytes(row.name);
        let Ok(_) = super::super::files(&m, None, &mut Vec::new()) else {
            assert!(
                row.splits.is_none() || row.raw || row.recognised != Recognised::BySplits,
                "{}",
                row.name
            );
            continue;
        };
        if !row.patterns_in_json().any(|list| list.iter().all(|pattern| !pattern.ends_with('…'))) {
            continue; // the files have llama.cpp's rules, which are not looked up
        }
        let v = back(&m, 267);
        assert_eq!(v.metadata.text("tokenizer.ggml.pre"), Some(row.name));
        assert_eq!(strings(&v.metadata, "ggml.tokens"), strings(&m, "ggml.tokens"));
        same_ids(&m, &v.metadata, row.name);
        recognised += 1;
    }
    assert!(recognised > 20, "{recognised}");
    let error = super::super::files(&bytes("kimi-k2"), None, &mut Vec::new()).unwrap_err();
    assert!(error.contains("kimi-k2"), "{error}");
}

#[test]
fn rows_without_a_token_stay_without() {
    let mut file = byte_level();
    file["model"]["vocab"]["<|end|>"] = json!(3);
    let dir = folder(false, &[("tokenizer.json", file)]);
    let v = vocab(&dir, "llama", 9);
    let made = super::super::files(&v.metadata, None, &mut Vec::new()).unwrap();
    let json: Value = serde_json::from_slice(&made[0].1).unwrap();
    assert_eq!(json["model"]["vocab"].as_object().unwrap().len(), 4);
    let again = back(&v.metadata, 9);
    assert_eq!(strings(&again.metadata, "ggml.tokens"), strings(&v.metadata, "ggml.tokens"));
}

/// A SentencePiece model with some words, bytes, a user-defined piece, and these settings.
fn model(unigram: bool, normalizer: &[u8]) -> TempDir {
    let mut pieces = vec![piece("<unk>", 0.0, 2), piece("<s>", 0.0, 3), piece("</s>", 0.0, 3)];
    pieces.extend((0..=255).map(|b| piece(&format!("<0x{b:02X}>"), 0.0, 6)));
    let words = ["th", "▁t", "▁th", "he", "the", "▁the", "12", "34", "▁▁", "re", "there", "▁there"];
    let letters = "▁thersandlipc1234,'é".chars().map(String::from);
    let all = words.map(String::from).into_iter().chain(letters);
    pieces.extend(all.enumerate().map(|(i, word)| piece(&word, -1.0 - i as f32, 1)));
    let dir = folder(false, &[]);
    let bytes = model_with(&pieces, &[0x18, 2 - u8::from(unigram)], normalizer);
    fs::write(dir.path().join("tokenizer.model"), bytes).unwrap();
    let added = json!({"291": {"content": "<|user|>", "special": true}, "292": {"content": "<|end|>", "special": true}});
    let config = json!({"added_tokens_decoder": added, "bos_token": "<s>", "eos_token": "</s>",
        "add_bos_token": true, "chat_template": [{"name": "default", "template": "D"}, {"name": "rag", "template": "R"}]});
    put(dir.path(), &[("tokenizer_config.json", config)]);
    dir
}

#[test]
fn sentencepiece_vocabularies() {
    let table = ::tokenizer::testing::table(&[(b'T', "t"), (b'H', "h"), (b'E', "e")]);
    let len = table.len() as u32;
    let table = [&[0x12, 0x80 | (len & 0x7f) as u8, (len >> 7) as u8][..], &table].concat();
    for unigram in [false, true] {
        for (n, normalizer) in [&[0x20, 0][..], &[0x18, 0, 0x20, 0], &[], &table].into_iter().enumerate() {
            let v = vocab(&model(unigram, normalizer), "llama", 295);
            let again = back(&v.metadata, 295);
            for key in ["tokenizer.ggml.model", "tokenizer.chat_template.rag"] {
                assert_eq!(v.metadata.get(key), again.metadata.get(key), "{key}");
            }
            assert_eq!(strings(&again.metadata, "ggml.tokens"), strings(&v.metadata, "ggml.tokens"));
            same_ids(&v.metadata, &again.metadata, &format!("unigram {unigram}, normalizer {n}"));
        }
    }
}
