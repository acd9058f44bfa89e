//! Small tokenizers for the tests.

use std::path::Path;

use serde_json::{Value, json};

/// A piece of a SentencePiece model, as the bytes of a field of it.
pub fn piece(text: &str, score: f32, kind: u8) -> Vec<u8> {
    let mut inner = vec![0x0a, text.len() as u8];
    inner.extend(text.as_bytes());
    inner.push(0x15);
    inner.extend(score.to_le_bytes());
    inner.extend([0x18, kind]);
    [&[0x0a, inner.len() as u8][..], &inner].concat()
}

/// A SentencePiece model of these pieces, trained as BPE, which leaves texts as they are.
pub fn model(pieces: &[Vec<u8>]) -> Vec<u8> {
    model_with(pieces, &[0x18, 2], &[0x20, 0])
}

/// A SentencePiece model of these pieces, with these fields of the trainer and the normalizer.
pub fn model_with(pieces: &[Vec<u8>], trainer: &[u8], normalizer: &[u8]) -> Vec<u8> {
    let mut bytes = pieces.concat();
    for (tag, fields) in [(0x12, trainer), (0x1a, normalizer)] {
        let len = fields.len() as u32;
        bytes.extend([tag, 0x80 | (len & 0x7f) as u8, (len >> 7) as u8]);
        bytes.extend(fields);
    }
    bytes
}

/// `<unk>`, `<s>`, `</s>`, `<0x0A>`, `▁a`: five pieces.
pub fn small_model() -> Vec<u8> {
    let five = [("<unk>", 0.0, 2), ("<s>", 0.0, 3), ("</s>", 0.0, 3), ("<0x0A>", 0.0, 6), ("▁a", -1e9, 1)];
    model(&five.map(|(text, score, kind)| piece(text, score, kind)))
}

/// A byte-level tokenizer.json: `a`, `b`, `ab` and the special `<|end|>` with id 3.
pub fn byte_level() -> Value {
    json!({
        "added_tokens": [{"id": 3, "content": "<|end|>", "special": true, "normalized": false}],
        "normalizer": null,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "use_regex": true},
        "post_processor": {"type": "ByteLevel", "add_prefix_space": false},
        "decoder": {"type": "ByteLevel"},
        "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": ["a b"]},
    })
}

/// A tokenizer.json made of a SentencePiece model: `<unk>`, `<s>`, `</s>`, `<0x0A>`, `▁a`, `x`.
pub fn byte_fallback() -> Value {
    json!({
        "added_tokens": [
            {"id": 0, "content": "<unk>", "special": true},
            {"id": 1, "content": "<s>", "special": true},
            {"id": 2, "content": "</s>", "special": false},
        ],
        "normalizer": {"type": "Prepend", "prepend": "▁"},
        "pre_tokenizer": null,
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [
                {"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}},
                {"SpecialToken": {"id": "<s>", "type_id": 1}}, {"Sequence": {"id": "B", "type_id": 1}},
            ],
        },
        "decoder": {"type": "Sequence", "decoders": []},
        "model": {
            "type": "BPE", "byte_fallback": true, "merges": [["▁", "a"]],
            "vocab": {"<unk>": 0, "<s>": 1, "</s>": 2, "<0x0A>": 3, "▁a": 4, "x": 5},
        },
    })
}

/// Puts JSON files into a folder.
pub fn put(folder: &Path, files: &[(&str, Value)]) {
    for (name, json) in files {
        std::fs::write(folder.join(name), json.to_string()).unwrap();
    }
}
