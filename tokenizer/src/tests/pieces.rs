//! SentencePiece and unigram vocabularies.

use std::sync::LazyLock;

use proptest::prelude::*;

use super::super::Stream;
use super::*;

/// From 259 on, best first.
const PIECES: &[&str] =
    &["▁", "l", "o", "▁l", "lo", "▁lo", "w", "e", "r", "er", "▁low", "ow", "aa", "a", "é"];

fn id(piece: &str) -> u32 {
    259 + PIECES.iter().position(|p| *p == piece).unwrap() as u32
}

fn ids(pieces: &[&str]) -> Vec<u32> {
    pieces.iter().map(|p| id(p)).collect()
}

#[test]
fn the_best_score_is_joined_first() {
    let t = made(&sentencepiece(PIECES));
    // ▁l (-3) before lo (-4), then ▁lo (-5), then er (-9), then ▁low (-10).
    assert_eq!(t.encode("lower", false, false), ids(&["▁low", "er"]));
    // Without the space in front: lo, er, and ow comes too late.
    let bare = made(&with(sentencepiece(PIECES), "add_space_prefix", Value::Bool(false)));
    assert_eq!(bare.encode("lower", false, false), ids(&["lo", "w", "er"]));
    // Of equals, the leftmost.
    assert_eq!(bare.encode("aaa", false, false), ids(&["aa", "a"]));
    assert_eq!(bare.encode("aaaaa", false, false), ids(&["aa", "aa", "a"]));
    // Spaces are pieces; what has no piece is bytes: "z" is 0x7A, "ü" 0xC3 0xBC.
    assert_eq!(t.encode(" l", false, false), ids(&["▁", "▁l"]));
    assert_eq!(t.encode("zéü", false, false), [id("▁"), 3 + 0x7a, id("é"), 3 + 0xc3, 3 + 0xbc]);
    assert_eq!(t.encode("", false, false), [0u32; 0]);
}

#[test]
fn begin_and_end_are_added_as_the_vocabulary_says() {
    let m = sentencepiece(PIECES);
    let t = made(&m);
    assert_eq!((t.bos(), t.eos(), t.eot(), t.add_bos(), t.add_eos()), (Some(1), Some(2), None, true, false));
    assert_eq!(t.encode("l", true, false), [1, id("▁l")]);
    assert_eq!(t.encode("", true, false), [1]);
    let t = made(&with(with(m, "add_bos_token", Value::Bool(false)), "add_eos_token", Value::Bool(true)));
    assert_eq!(t.encode("l", true, false), [id("▁l"), 2]);
    assert!(t.is_end(2) && !t.is_end(1) && !t.is_end(u32::MAX));
    assert_eq!((&*t.token(261), t.len(), t.is_empty()), ("o", 274, false));
    assert_eq!(t.chat_template().unwrap(), None);
}

#[test]
fn special_tokens_are_seen_when_asked_for() {
    let t = made(&sentencepiece(PIECES));
    // After a special token, a space is put before the text again.
    assert_eq!(t.encode("<s>lo</s>lo", false, true), [1, id("▁lo"), 2, id("▁lo")]);
    let unseen = t.encode("<s>lo", false, false);
    assert_eq!(text(&t.decode(&unseen)), "<s>lo");
    assert!(!unseen.contains(&1));
    assert_eq!((t.piece(1, false).to_vec(), text(&t.piece(1, true))), (vec![], "<s>".into()));
    assert_eq!(text(&t.decode(&[1, id("▁lo"), 2])), "lo");
}

#[test]
fn unigrams_have_the_best_sum() {
    let tokens = [
        ("<pad>", 0.0, CONTROL),
        ("</s>", 0.0, CONTROL),
        ("<unk>", 0.0, UNKNOWN),
        ("▁", -2.0, NORMAL),
        ("a", -2.0, NORMAL),
        ("b", -2.0, NORMAL),
        ("ab", -3.5, NORMAL),
        ("▁a", -3.0, NORMAL),
        ("bb", -3.0, NORMAL),
        ("<x y>", 0.0, USER_DEFINED),
    ];
    let m = metadata("t5", &tokens.map(|(text, score, kind)| (text.to_string(), score, kind)));
    let m = with(m, "add_space_prefix", Value::Bool(true));
    let t = made(&m);
    assert_eq!((t.bos(), t.eos(), t.add_bos(), t.add_eos()), (None, Some(1), false, true));
    // ▁a + b: -5; ▁ + ab: -5.5; ▁ + a + b: -6.
    assert_eq!(t.encode("ab", true, false), [7, 5, 1]);
    // ▁a + bb: -6; ▁ + ab + b: -7.5.
    assert_eq!(t.encode("abb", false, false), [7, 8]);
    // A run of what is unknown is one token.
    assert_eq!(t.encode("axyzb", false, false), [7, 2, 5]);
    assert_eq!(t.encode("a  <x y>b", false, false), [7, 3, 3, 9, 5]);
    // Text behind an added token is a text of its own.
    let scores = (0..10).map(|id| Value::F32(if id == 9 { -1000.0 } else { t.tokens.scores[id] }));
    let added = made(&with(m.clone(), "scores", array(Kind::F32, scores)));
    assert_eq!(added.encode("a  <x y>b", false, false), [7, 3, 3, 9, 3, 5]);
    let merged = made(&with(m.clone(), "remove_extra_whitespaces", Value::Bool(true)));
    assert_eq!(merged.encode("  a   bb  ", false, false), [7, 3, 8]);
    assert_eq!(merged.encode("", false, false), [0u32; 0]);
    assert_eq!(text(&t.decode(&[7, 5])), "ab");

    let table = array(Kind::U8, [1, 2, 3, 4, 5].map(Value::U8));
    let refused = Tokenizer::from_metadata(&with(m.clone(), "precompiled_charsmap", table)).err().unwrap();
    assert!(refused.to_string().contains("precompiled_charsmap"), "{refused}");
    made(&with(m, "precompiled_charsmap", array(Kind::U8, [])));
}

fn unigram_with_bytes() -> Tokenizer {
    let bytes = (0..=255).map(|b| (format!("<0x{b:02X}>"), 0.0, BYTE));
    let words = [("<unk>", 0.0, UNKNOWN), ("▁", -2.0, NORMAL), ("a", -3.0, NORMAL), ("▁a", -4.0, NORMAL)];
    let words = words.map(|(text, score, kind)| (text.to_string(), score, kind));
    let m = metadata("t5", &words.into_iter().chain(bytes).collect::<Vec<_>>());
    let m = with(with(m, "unknown_token_id", Value::U32(0)), "add_eos_token", Value::Bool(false));
    made(&with(m, "add_space_prefix", Value::Bool(true)))
}

#[test]
fn a_unigram_vocabulary_with_bytes_has_nothing_unknown() {
    assert_eq!(unigram_with_bytes().encode("aé", false, false), [3, 4 + 0xc3, 4 + 0xa9]);
}

#[test]
fn phi_3_takes_the_whitespace_after_its_tokens() {
    let mut m = sentencepiece(PIECES);
    let lo = id("▁lo");
    // </s> takes the whitespace after it, <s> does not.
    assert_eq!(made(&m).encode("</s> \nlo<s> lo", false, true)[..3], [2, id("▁"), id("▁")]);
    m.set("general.name", Value::text("Phi-3 mini"));
    let t = made(&m);
    assert_eq!(t.encode("</s> \nlo<s> lo", false, true), [2, lo, 1, id("▁"), lo]);
    assert_eq!(t.encode("</s> \n", false, true), [2]);
}

#[test]
fn a_stream_gives_whole_characters() {
    let t = made(&sentencepiece(PIECES));
    let mut stream = t.stream();
    let mut pieces = Vec::new();
    for id in t.encode("lo ü", false, false) {
        pieces.push(stream.push(&t.piece(id, false)));
    }
    assert_eq!(pieces, ["lo", " ", "", "ü"]);
    assert_eq!(stream.push(b" \xe2\x82"), " ");
    assert_eq!(stream.clone().push(b"\xac!"), "€!");
    assert_eq!(stream.push(b"a\xffb\xf0\x9f"), "\u{fffd}a\u{fffd}b");
    assert_eq!(stream.finish(), "\u{fffd}");
    // In the middle of a text, a space is a space.
    assert_eq!(Stream::default().push(b" a"), " a");
    assert_eq!(Stream::default().finish(), "");
    let mut late = t.stream();
    assert_eq!((late.push(b""), late.push(b"  a")), (String::new(), " a".into()));
}

/// Text in which what the vocabularies know is frequent.
pub fn texts() -> impl Strategy<Value = String> {
    prop_oneof![any::<String>(), "[ \u{2581}lowera'\r\n\t0-9é]{0,40}", "\\PC{0,20}"]
}

static ALL: LazyLock<[Tokenizer; 3]> =
    LazyLock::new(|| [made(&sentencepiece(PIECES)), made(&sentencepiece(&["▁"])), unigram_with_bytes()]);

proptest! {
    #[test]
    fn text_comes_back_through_pieces(text in texts()) {
        // A unigram vocabulary puts its space before the first word; without one, the first of the text's own goes.
        prop_assume!(text.is_empty() || text.contains(|c| c != ' ' && c != '▁'));
        // U+2581 is how a space is written: it comes back as one.
        let expected = text.replace('▁', " ");
        for t in &*ALL {
            let ids = t.encode(&text, true, false);
            prop_assert_eq!(super::text(&t.decode(&ids)), expected.as_str());
            let mut stream = t.stream();
            let mut streamed: String = ids.iter().map(|id| stream.push(&t.piece(*id, false))).collect();
            streamed.push_str(&stream.finish());
            prop_assert_eq!(streamed, expected.as_str());
        }
    }
}
