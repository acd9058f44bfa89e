//! Metadata that nobody should have written.

use proptest::prelude::*;

use super::*;

fn refused(m: &Metadata) -> String {
    Tokenizer::from_metadata(m).err().expect("this must be refused").to_string()
}

#[test]
fn what_is_missing_is_named() {
    assert!(refused(&Metadata::new()).contains("has no vocabulary"));
    for (key, says) in [("tokens", "has no vocabulary"), ("merges", "tokenizer.ggml.merges is missing")] {
        let mut m = byte_level("gpt-2", &["a b"], &[]);
        m.remove(&format!("tokenizer.ggml.{key}"));
        assert!(refused(&m).contains(says), "{}", refused(&m));
    }
    let mut m = sentencepiece(&[]);
    m.set("tokenizer.ggml.model", Value::text("no_vocab"));
    assert!(refused(&m).contains("has no vocabulary"));
    let mut m = sentencepiece(&[]);
    m.set("tokenizer.ggml.model", Value::text("bert"));
    assert!(refused(&m).contains("\"bert\" is not supported"));
    m.set("tokenizer.ggml.model", Value::U8(1));
    assert!(refused(&m).contains("must be a string"));
    assert!(refused(&byte_level("nobody's", &["a b"], &[])).contains("nobody's"));
}

#[test]
fn arrays_of_another_kind_or_length_are_refused() {
    let short = || array(Kind::F32, [Value::F32(0.0)]);
    let m = sentencepiece(&["a"]);
    for (key, value) in [
        ("tokens", array(Kind::U8, [Value::U8(1)])),
        ("tokens", Value::U8(1)),
        ("tokens", Value::Array(Array::of_strings([""; 0]))),
        ("scores", short()),
        ("token_type", array(Kind::I32, [Value::I32(1)])),
        ("token_type", array(Kind::F32, (0..260).map(|_| Value::F32(1.0)))),
        ("scores", array(Kind::F32, (0..260).map(|_| Value::F32(f32::NAN)))),
        ("scores", Value::Array(Array::of_strings(["x"; 260]))),
        ("add_bos_token", Value::U8(1)),
        ("pre", Value::U8(1)),
        ("pre", Value::String(vec![0xff])),
    ] {
        assert!(refused(&with(m.clone(), key, value)).contains(key), "{key}");
    }
    let m = byte_level("gpt-2", &["a b"], &[]);
    assert!(refused(&with(m, "merges", short())).contains("merges"));
    // More values than tokens are in nobody's way; without scores, all are equal.
    let mut m = with(sentencepiece(&["▁"]), "scores", array(Kind::F32, (0..300).map(|_| Value::F32(0.0))));
    assert_eq!(made(&m).encode("", true, false), [1]);
    m.remove("tokenizer.ggml.scores");
    m.remove("tokenizer.ggml.token_type");
    assert_eq!(made(&m).encode("A", false, false), [259, 3 + 0x41]);
}

#[test]
fn ids_out_of_range_are_passed_over() {
    let mut m = sentencepiece(&["a"]);
    for part in ["bos", "eos", "eot", "eom", "unknown", "fim_pad"] {
        m = with(m, &format!("{part}_token_id"), Value::U64(u64::MAX - 7));
    }
    let t = made(&m);
    assert_eq!((t.bos(), t.eos(), t.eot()), (Some(1), Some(2), None));
    // A vocabulary that is too small for most default ids: of unknown characters, there is one for each.
    let t = made(&metadata("llama", &[("a".into(), 0.0, NORMAL)]));
    assert_eq!((t.bos(), t.eos(), t.encode("aba", true, false)), (None, None, vec![0; 4]));
    assert_eq!(
        (t.piece(7, true).len(), t.token(7).len(), t.decode(&[7, 0, u32::MAX])),
        (0, 0, b"a".to_vec())
    );
}

#[test]
fn odd_tokens_do_no_harm() {
    let long = "x".repeat(1 << 18);
    let tokens = [
        ("", 0.0, CONTROL),
        ("a", f32::INFINITY, NORMAL),
        ("a", f32::NEG_INFINITY, NORMAL),
        (&*long, 0.0, CONTROL),
        ("<0x", 0.0, BYTE),
        ("<0x\u{2581}>", 0.0, BYTE),
        ("<0xZZ>", 0.0, BYTE),
        ("aa", -0.0, 77),
    ];
    for model in ["llama", "t5", "gpt2"] {
        let tokens = tokens.map(|(text, score, kind)| (text.to_string(), score, kind));
        let merges = Value::Array(Array::of_strings(["a a", "aa aa", &format!("{long} {long}")]));
        let m = with(metadata(model, &tokens), "merges", merges);
        if model == "t5" {
            assert_eq!(refused(&m), "token 3 must have at most 4096 bytes (found 262144)");
            continue;
        }
        let t = made(&m);
        assert_eq!(&*t.token(0), "[EMPTY_0]");
        let all: Vec<u32> = (0..9).collect();
        t.decode(&all);
        let ids = t.encode("aaab [EMPTY_0]", true, true);
        assert!(ids.contains(&0) && ids.iter().all(|id| *id < 8), "{model}: {ids:?}");
        assert_eq!(t.encode(&format!("{long}x"), false, true)[0], 3);
    }
    let mut m = sentencepiece(&[]);
    m.set("tokenizer.ggml.tokens", Value::Array(Array::of_strings((0..259).map(|i| vec![0xff, i as u8]))));
    for odd in [Value::String(vec![0xff]), Value::U32(7), Value::Array(Array::of_strings(["x"]))] {
        m.set("tokenizer.chat_template", odd);
        let t = made(&m);
        assert_eq!(t.encode("é", false, true), [0]);
        let why = t.chat_template().unwrap_err().to_string();
        assert!(why.starts_with("metadata key tokenizer.chat_template must be a string in UTF-8"), "{why}");
        assert_eq!(&*t.token(65), "\u{fffd}A");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_small_vocabulary_works(
        tokens in proptest::collection::vec(("[ab▁Ġ ]{0,3}", -3i8..3, 0i32..8), 1..12),
        merges in proptest::collection::vec("[ab▁Ġ]{0,2} [ab▁Ġ]{0,2}", 0..8),
        text in "[ab▁ \n]{0,30}",
    ) {
        let tokens: Vec<_> = tokens.into_iter().map(|(text, s, kind)| (text, f32::from(s), kind)).collect();
        for model in ["llama", "gpt2", "gemma4", "t5"] {
            let m = with(metadata(model, &tokens), "merges", Value::Array(Array::of_strings(&merges)));
            let t = made(&with(m, "pre", Value::text("gpt-2")));
            for special in [false, true] {
                let ids = t.encode(&text, true, special);
                prop_assert!(ids.iter().all(|id| (*id as usize) < t.len()));
                t.decode(&ids);
            }
        }
    }
}
