//! Files that are wrong, damaged or made to do harm.

use proptest::prelude::*;

use super::*;

/// The error of a tokenizer.json that is changed so.
fn changed(change: impl FnOnce(&mut Value)) -> String {
    let mut file = byte_level();
    change(&mut file);
    fails(&folder(false, &[("tokenizer.json", file)]), 4)
}

#[test]
fn too_many_tokens() {
    let dir = folder(false, &[("tokenizer.json", byte_level())]);
    let error = fails(&dir, 2);
    assert!(error.contains("token id 2 ") && error.contains("2 rows"), "{error}");
    let error = changed(|f| f["model"]["vocab"]["far"] = json!(4_000_000_000u32));
    assert!(error.contains("token id 4000000000 is out of range"), "{error}");
    for rows in [0, u64::MAX] {
        assert!(fails(&dir, rows).contains("vocab_size must be from 1 to"));
    }
}

#[test]
fn ids_that_cannot_be() {
    let error = changed(|f| f["model"]["vocab"]["again"] = json!(2));
    assert!(error.contains(r#"the id 2 has the tokens "ab" and "again""#), "{error}");
    let error = changed(|f| f["added_tokens"][0]["id"] = json!(1));
    assert!(error.contains(r#"the id 1 has the tokens "b" and "<|end|>""#), "{error}");
    let error = changed(|f| f["added_tokens"][0]["content"] = json!("ab"));
    assert!(error.contains(r#"the token "ab" has the ids 2 and 3"#), "{error}");
    for id in [json!(-1), json!(1.5), json!("1"), json!(1u64 << 32)] {
        let error = changed(|f| f["model"]["vocab"]["a"] = id);
        assert!(error.contains("expected u32") && error.contains("(at byte "), "{error}");
    }
    let mut file = byte_fallback();
    file["model"]["vocab"]["x"] = json!(6);
    let error = fails(&folder(false, &[("tokenizer.json", file)]), 7);
    assert!(error.contains("has 6 tokens, but none with id 5"), "{error}");
}

#[test]
fn merges_that_are_no_pairs() {
    for merge in [json!("ab"), json!("a b a"), json!(" a"), json!(["", "a"])] {
        let error = changed(|f| f["model"]["merges"] = json!([merge]));
        assert!(error.contains("merge 0 is not a pair") && error.contains("(at byte "), "{error}");
    }
    for merge in [json!(["a"]), json!(["a", "b", "c"]), json!(1), json!([1, 2])] {
        assert!(changed(|f| f["model"]["merges"] = json!([merge])).contains("a merge must be a pair"));
    }
    assert!(changed(|f| f["model"]["merges"] = json!([])).contains("no merges"));
}

#[test]
fn a_damaged_model_beside_a_sound_tokenizer_is_passed_over() {
    let pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 499723\n".to_vec();
    let whole = small_model();
    for (name, bytes, says) in [
        ("a pointer", pointer, "Git LFS pointer"),
        ("cut", whole[..whole.len() - 9].to_vec(), "ends at byte"),
        ("an archive", b"PK\x03\x04\x14\0\0\0".to_vec(), "is a zip archive"),
        ("compressed", vec![0x1f, 0x8b, 8, 0, 1], "is compressed (gzip)"),
        ("noise", vec![0xff; 600], "tokenizer.model"),
        ("zeros", vec![0; 600], "tokenizer.model"),
    ] {
        let dir = folder(false, &[("tokenizer.json", byte_level())]);
        let path = dir.path().join("tokenizer.model");
        fs::write(&path, bytes).unwrap();
        let v = vocab(&dir, "llama", 4);
        assert_eq!(v.metadata.text("tokenizer.ggml.model"), Some("gpt2"), "{name}");
        let note = &v.notes[0];
        assert!(note.contains(says) && note.ends_with("not read; tokenizer.json is read instead"), "{note}");
        // Alone, or beside an empty file, it is an error.
        for sound in [None, Some("")] {
            fs::remove_file(dir.path().join("tokenizer.json")).unwrap();
            sound.iter().for_each(|text| fs::write(dir.path().join("tokenizer.json"), text).unwrap());
            assert!(fails(&dir, 4).contains(says), "{name}: {}", fails(&dir, 4));
            fs::write(dir.path().join("tokenizer.json"), "").unwrap();
        }
    }
    // A sound one comes first.
    assert_eq!(
        get(&vocab(&folder(true, &[("tokenizer.json", byte_fallback())]), "llama", 6), "model")
            .unwrap()
            .as_str(),
        Some("llama")
    );
}

#[test]
fn tokenizers_under_other_names_are_named() {
    for (name, bytes, says) in [
        (
            "tiktoken.model",
            b"IQ== 0\nIg== 1\n".to_vec(),
            "tiktoken.model without a tokenizer.json is not supported",
        ),
        ("kimi.tiktoken", b"IQ== 0\n".to_vec(), "kimi.tiktoken without a tokenizer.json"),
        ("source.model", small_model(), "source.model is a SentencePiece model"),
    ] {
        let dir = folder(false, &[]);
        fs::write(dir.path().join(name), bytes).unwrap();
        assert!(fails(&dir, 5).contains(says), "{}", fails(&dir, 5));
    }
    let dir = folder(false, &[]);
    fs::write(dir.path().join("other.model"), [0xff; 600]).unwrap();
    assert!(read_as(dir.path(), "llama", 5, &json!({})).unwrap().is_none());
}

#[test]
fn other_kinds_of_models() {
    for kind in ["WordPiece", "WordLevel"] {
        let error = changed(|f| f["model"]["type"] = json!(kind));
        assert!(
            error.contains(&format!("the model is {kind}; only BPE and Unigram are supported")),
            "{error}"
        );
    }
    assert!(changed(|f| f["model"] = json!({})).contains("without a type"));
    assert!(changed(|f| f["model"]["end_of_word_suffix"] = json!("</w>")).contains("</w>"));
    // Beside a tokenizer.model it does not matter.
    let mut file = byte_level();
    file["model"] = json!({"type": "Unigram", "vocab": [["a", -1.0]]});
    let v = vocab(&folder(true, &[("tokenizer.json", file)]), "llama", 5);
    assert_eq!(get(&v, "add_bos_token"), Some(&Meta::Bool(false)));
}

#[test]
fn faults_have_their_byte() {
    let dir = folder(false, &[]);
    let text = "{\n \"added_tokens\": [],\n \"model\": {\n  \"type\": \"BPE\",\n  \"vocab\": {\"a\": true} , \"merges\": []}}";
    fs::write(dir.path().join("tokenizer.json"), text).unwrap();
    let at: usize = fails(&dir, 4).rsplit_once("(at byte ").unwrap().1.trim_end_matches(')').parse().unwrap();
    let value = text.find("true").unwrap();
    assert!((value..value + 4).contains(&at), "{at}");
    fs::write(dir.path().join("tokenizer.json"), &text[..40]).unwrap();
    assert!(fails(&dir, 4).contains("EOF while parsing a"));
    fs::write(dir.path().join("tokenizer.json"), b"{\"a\": \"\xff\"}").unwrap();
    assert!(fails(&dir, 4).contains("not UTF-8 (at byte 7)"));
    fs::write(dir.path().join("tokenizer.json"), byte_level().to_string()).unwrap();
    for (name, text) in [
        ("tokenizer_config.json", "[]"),
        ("tokenizer_config.json", r#"{"added_tokens_decoder": {"x": {"content": "a"}}}"#),
        ("tokenizer_config.json", r#"{"added_tokens_decoder": {"1": {}}}"#),
        ("added_tokens.json", r#"{"a": -1}"#),
        ("added_tokens.json", "{"),
    ] {
        fs::write(dir.path().join(name), text).unwrap();
        let error = fails(&dir, 4);
        assert!(error.contains(name), "{error}");
        fs::remove_file(dir.path().join(name)).unwrap();
    }
}

/// Whatever is in the files, the answer is a value.
fn never_panics(name: &str, bytes: &[u8]) {
    let dir = tempfile::tempdir().unwrap();
    put(dir.path(), &[("tokenizer.json", byte_fallback())]);
    fs::write(dir.path().join(name), bytes).unwrap();
    let _ = read_as(dir.path(), "llama", 9, &json!({}));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn random_files_never_panic(bytes: Vec<u8>, which in 0usize..4) {
        never_panics(["tokenizer.model", "tokenizer.json", "tokenizer_config.json", "vocab.json"][which], &bytes);
    }

    #[test]
    fn mutated_files_never_panic(at: prop::sample::Index, byte: u8, cut: prop::sample::Index, level: bool) {
        let file = if level { byte_level() } else { byte_fallback() };
        let mut bytes = file.to_string().into_bytes();
        let n = bytes.len();
        bytes[at.index(n)] = byte;
        never_panics("tokenizer.json", &bytes);
        never_panics("tokenizer.json", &bytes[..cut.index(n)]);
    }

    #[test]
    fn odd_post_processors_never_panic(
        single in prop::collection::vec(0usize..4, 0..4),
        pair in prop::collection::vec(0usize..4, 0..6),
    ) {
        let parts = [
            json!({"SpecialToken": {"id": "<s>"}}), json!({"Sequence": {"id": "A"}}),
            json!({"Sequence": {"id": "B"}}), json!({"SpecialToken": {"id": "</s>"}}),
        ];
        let list = |which: &[usize]| which.iter().map(|&i| parts[i].clone()).collect::<Vec<_>>();
        let mut file = byte_fallback();
        file["post_processor"]["single"] = list(&single).into();
        file["post_processor"]["pair"] = list(&pair).into();
        never_panics("tokenizer.json", file.to_string().as_bytes());
    }
}
