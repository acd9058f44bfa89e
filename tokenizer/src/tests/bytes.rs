//! Byte-level vocabularies.

use std::sync::LazyLock;

use proptest::prelude::*;

use super::pieces::texts;
use super::*;

/// 256 "he", 257 "ll", 258 "hell", 259 "Ġhe", 260 "lo", 261 "Ġhell", 262 "Ġhello"
const MERGES: &[&str] = &["h e", "l l", "he ll", "Ġ he", "l o", "Ġhe ll", "Ġhell o"];

fn byte(c: char) -> u32 {
    c as u32
}

#[test]
fn merges_are_made_in_their_order() {
    let t = made(&byte_level("gpt-2", MERGES, &["<|endoftext|>"]));
    // he, ll, hell; o is left as ll was joined before lo.
    assert_eq!(t.encode("hello", false, false), [258, byte('o')]);
    // he and ll first; hell before Ġhe, and no merge joins Ġ to hell.
    assert_eq!(t.encode(" hello", false, false), [byte(' '), 258, byte('o')]);
    assert_eq!(t.encode(" he", false, false), [259]);
    assert_eq!(t.encode("lll", false, false), [257, byte('l')]);
    assert_eq!(t.encode("ü", false, false), [0xc3, 0xbc]);
    assert_eq!(t.encode("", true, false), [0u32; 0]);
    // The default ids of begin and end, and the end that is known by its text.
    assert_eq!((t.bos(), t.eos(), t.eot()), (Some(11), Some(11), Some(263)));
    assert!(t.is_end(11) && t.is_end(263) && !t.is_end(12));
    assert_eq!(t.encode("he<|endoftext|>he", false, true), [256, 263, 256]);
    assert_eq!(text(&t.decode(&t.encode("he<|endoftext|>", false, false))), "he<|endoftext|>");
}

#[test]
fn a_word_that_is_a_token_is_taken_whole_where_merges_are_ignored() {
    // No way leads to " hello" by merges.
    let m = byte_level("llama-bpe", MERGES, &["<|begin|>", "<|eot_id|>"]);
    let t = made(&with(m, "bos_token_id", Value::U32(263)));
    assert!(t.add_bos());
    assert_eq!(t.encode(" hello", true, false), [263, 262]);
    assert_eq!(t.encode(" hellos", false, false), [byte(' '), 258, byte('o'), byte('s')]);
    assert_eq!(t.eot(), Some(264));
    assert!(t.is_end(264));
}

#[test]
fn merges_need_no_tokens() {
    // "q x" joins in vain, as "qx" is no token: its characters are.
    let mut m = byte_level("gpt-2", &["h e", "l l"], &[]);
    let merges = ["q x", "h e", "nospace", " ", "a ", "l l", "q x", "qx y"];
    m.set("tokenizer.ggml.merges", Value::Array(Array::of_strings(merges)));
    let t = made(&m);
    assert_eq!(t.encode("qxhell", false, false), [byte('q'), byte('x'), 256, 257]);
    assert_eq!(t.encode("qxy", false, false), [byte('q'), byte('x'), byte('y')]);
}

#[test]
fn long_words_are_merged_quickly() {
    let t = made(&byte_level("gpt-2", &["a a", "aa aa", "aaaa aaaa"], &[]));
    let ids = t.encode(&"a".repeat(100_003), false, false);
    assert_eq!(ids.len(), 12_502);
    assert_eq!(ids[12_499..], [258, 256, byte('a')]);
    let t = made(&sentencepiece(&["▁", "a", "aa", "aaaa"]));
    assert_eq!(t.encode(&"a".repeat(100_000), false, false).len(), 25_001);
}

#[test]
fn user_defined_tokens_are_always_seen_and_the_longest_first() {
    let mut m = byte_level("gpt-2", MERGES, &["<a>", "<a><b>", "<b><a>"]);
    let types = (0..266).map(|i| Value::I32(if i < 263 { NORMAL } else { USER_DEFINED }));
    m.set("tokenizer.ggml.token_type", array(Kind::I32, types));
    let t = made(&m);
    for special in [false, true] {
        assert_eq!(t.encode("<a><b><a>", false, special), [264, 263]);
        assert_eq!(t.encode("<a>he<b><a>", false, special), [263, 256, 265]);
    }
    assert_eq!(text(&t.piece(264, false)), "<a><b>");
}

#[test]
fn vocabularies_are_compared_by_their_tokens() {
    let a = made(&byte_level("gpt-2", MERGES, &["<x>"]));
    let b = made(&byte_level("qwen2", MERGES, &["<x>"]));
    let c = made(&byte_level("gpt-2", MERGES, &["<y>"]));
    assert!(a.same_vocabulary(&b) && !a.same_vocabulary(&c));
    assert_eq!(a.fingerprint(), b.fingerprint());
    assert_ne!(a.fingerprint(), c.fingerprint());
    assert!(!a.same_vocabulary(&made(&sentencepiece(&[]))));
    // FNV-1a of a first byte alone.
    assert_eq!(super::super::tokens::Tokens::new(vec![], vec![], vec![]).hash(0), 0xaf63_bd4c_8601_b7df);
}

#[test]
fn raw_tokens_are_written_as_they_are() {
    let mut tokens: Vec<(String, f32, i32)> =
        ["<pad>", "<eos>", "<bos>"].map(|text| (text.to_string(), 0.0, CONTROL)).to_vec();
    tokens.extend((0..=255).map(|b| (format!("<0x{b:02X}>"), 0.0, BYTE)));
    tokens.extend(["▁", "a", "▁a", "\n", "\n\n"].map(|text| (text.to_string(), 0.0, NORMAL)));
    let mut m = with(metadata("gemma4", &tokens), "bos_token_id", Value::U32(2));
    assert!(Tokenizer::from_metadata(&m).is_err());
    m.set("tokenizer.ggml.merges", Value::Array(Array::of_strings(["▁ a"])));
    let t = made(&m);
    // Two line ends are a token without a merge.
    assert_eq!(t.encode(" aé\n\n a", true, false), [2, 261, 3 + 0xc3, 3 + 0xa9, 263, 261]);
    assert_eq!(text(&t.decode(&[261, 3 + 0xc3, 3 + 0xa9, 263, 261])), " aé\n\n a");
    assert!(t.is_end(1));
}

/// One for each way to split that differs.
static ALL: LazyLock<Vec<Tokenizer>> = LazyLock::new(|| {
    let names = "default gpt-2 llama-bpe qwen2 qwen35 gpt-4o tekken deepseek-llm deepseek-coder deepseek-v3 falcon \
                 starcoder tiny_aya jais-2 bloom chameleon exaone-moe";
    names.split(' ').map(|pre| made(&byte_level(pre, MERGES, &[]))).collect()
});

proptest! {
    // Each text goes through all of them.
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn text_comes_back_through_bytes(text in texts()) {
        for t in &*ALL {
            prop_assert_eq!(super::text(&t.decode(&t.encode(&text, false, false))), text.as_str());
        }
    }
}
