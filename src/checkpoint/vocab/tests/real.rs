//! Published tokenizers.

use std::path::PathBuf;

use proptest::prelude::*;

use super::*;

/// A folder with copies of these files under other names. They are in the folder of published files, which is beside
/// the repository or where `GGUFKIT_SHARED` says.
fn copies(files: &[(&str, &str)]) -> TempDir {
    let folder = std::env::var_os("GGUFKIT_SHARED").map(PathBuf::from);
    let folder = folder.unwrap_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../shared"));
    let dir = tempfile::tempdir().unwrap();
    for (from, to) in files {
        let from = folder.join("data/tokenizers").join(from);
        let why = "see CONTRIBUTING.md, or set GGUFKIT_SHARED";
        let bytes = fs::read(&from).unwrap_or_else(|e| panic!("{}: {e}: {why}", from.display()));
        fs::write(dir.path().join(to), bytes).unwrap();
    }
    dir
}

#[test]
#[ignore = "needs published files (see CONTRIBUTING.md)"]
fn published_llama2_both_ways() {
    // Phi-3 has Llama 2's pieces, and more behind them.
    let (model, json) =
        ([("llama2.model", "tokenizer.model")], [("phi-3-mini/tokenizer.json", "tokenizer.json")]);
    let (model, json) = (copies(&model), copies(&json));
    let (model, json) = (vocab(&model, "llama", 32000), vocab(&json, "llama", 32064));
    assert!(strings(&model.metadata, "ggml.tokens") == strings(&json.metadata, "ggml.tokens")[..32000]);
    let (types_of_model, types_of_json) = (types(&model.metadata), types(&json.metadata));
    assert_eq!((&types_of_model[..3], &types_of_json[..3]), (&[2, 3, 3][..], &[3, 3, 4][..]));
    assert!(types_of_model[3..] == types_of_json[3..32000]);
    let score = |vocab: &Vocabulary, id| get(vocab, "scores").unwrap().as_array().unwrap().values().nth(id);
    assert_eq!(score(&model, 31999), Some(Meta::F32(-31740.0)));
    // "▁t", made by the first merge, and a character that none makes.
    assert_eq!(score(&json, 260), Some(Meta::F32(0.0)));
    assert_eq!(score(&json, 31999), Some(Meta::F32(-61249.0)));
    // Beside one another they are one tokenizer.
    let both =
        copies(&[("llama2.model", "tokenizer.model"), ("phi-3-mini/tokenizer.json", "tokenizer.json")]);
    let both = vocab(&both, "llama", 32064);
    assert!(!both.notes.iter().any(|note| note.contains("another tokenizer")), "{:?}", both.notes);
    assert!(score(&both, 31999) == score(&model, 31999));
    assert_eq!(strings(&both.metadata, "ggml.tokens")[32010], "<|user|>");
    assert_eq!(types(&both.metadata)[..3], [2, 3, 3]);
}

#[test]
#[ignore = "needs published files (see CONTRIBUTING.md)"]
fn published_spaces_that_were_tidied_up_are_found() {
    // In this copy the no-break spaces of three merges have become spaces.
    let dir = copies(&[("llama2/tokenizer.json", "tokenizer.json")]);
    assert!(fails(&dir, 32000).contains("merge 18917 is not a pair"));
}

#[test]
#[ignore = "needs published files (see CONTRIBUTING.md)"]
fn published_phi3_has_added_tokens_and_padding() {
    let files = ["tokenizer.json", "tokenizer_config.json"];
    let files = files.map(|name| (format!("phi-3-mini/{name}"), name));
    let dir = copies(&files.each_ref().map(|(from, to)| (from.as_str(), *to)));
    let v = vocab(&dir, "llama", 32064);
    let tokens = strings(&v.metadata, "ggml.tokens");
    assert_eq!(
        (&tokens[32000][..], &tokens[32010][..], &tokens[32063][..]),
        ("<|endoftext|>", "<|user|>", "[PAD32063]")
    );
    let types = types(&v.metadata);
    assert_eq!([0, 1, 2, 3, 32000, 32010, 32011].map(|id| types[id]), [3, 3, 4, 6, 3, 3, 5]);
    assert_eq!(get(&v, "eos_token_id"), Some(&Meta::U32(32000)));
    assert!(v.metadata.text("tokenizer.chat_template").unwrap().starts_with("{% for message"));
    // Added tokens without a row are left out.
    let v = vocab(&dir, "llama", 32000);
    assert!(v.notes.iter().any(|note| note.contains("id 32000, 11 in all")), "{:?}", v.notes);
}

#[test]
#[ignore = "needs published files (see CONTRIBUTING.md)"]
fn published_byte_level_tokenizers_are_recognised() {
    for (file, rows, tokens, merges, pre) in [
        ("gpt2/tokenizer.json", 50257, 50257, 50000, "gpt-2"),
        ("falcon-tokenizer/tokenizer.json", 65024, 65024, 64784, "falcon"),
        ("gpt-neox-20b/20B_tokenizer.json", 50432, 50277, 50009, "olmo"),
    ] {
        let dir = copies(&[(file, "tokenizer.json")]);
        let v = vocab(&dir, "llama", rows);
        assert_eq!(v.metadata.text("tokenizer.ggml.pre"), Some(pre));
        let unused = types(&v.metadata).iter().filter(|t| **t == 5).count();
        assert_eq!(strings(&v.metadata, "ggml.tokens").len() - unused, tokens, "{file}");
        assert_eq!(strings(&v.metadata, "ggml.merges").len(), merges, "{file}");
    }
}

#[test]
#[ignore = "needs published files (see CONTRIBUTING.md)"]
fn published_gpt2_both_ways() {
    let files = [("gpt2/vocab.json", "vocab.json"), ("gpt2/merges.txt", "merges.txt")];
    let (parts, whole) = (copies(&files), copies(&[("gpt2/tokenizer.json", "tokenizer.json")]));
    put(parts.path(), &[("tokenizer_config.json", json!({"tokenizer_class": "GPT2Tokenizer"}))]);
    let (parts, whole) = (vocab(&parts, "llama", 50257), vocab(&whole, "llama", 50257));
    for key in ["ggml.tokens", "ggml.merges"] {
        assert!(strings(&parts.metadata, key) == strings(&whole.metadata, key), "{key}");
    }
    assert_eq!(parts.metadata.text("tokenizer.ggml.pre"), Some("gpt-2"));
}

#[test]
#[ignore = "needs published files (see CONTRIBUTING.md)"]
fn published_qwen2_of_its_parts() {
    let files = [("qwen2/vocab.json", "vocab.json"), ("qwen2/merges.txt", "merges.txt")];
    let dir = copies(&files);
    let added = json!({"<|endoftext|>": 151643, "<|im_start|>": 151644, "<|im_end|>": 151645});
    put(dir.path(), &[("added_tokens.json", added)]);
    let v = vocab(&dir, "qwen2", 151936);
    assert_eq!(v.metadata.text("tokenizer.ggml.pre"), Some("qwen2"));
    assert_eq!(strings(&v.metadata, "ggml.merges").len(), 151387);
    let types = types(&v.metadata);
    assert_eq!([0, 151642, 151643, 151645, 151646].map(|id| types[id]), [1, 1, 3, 3, 5]);
    assert!(matches!(&v.notes[..], [note] if note.starts_with("290 of")), "{:?}", v.notes);
}

#[test]
#[ignore = "needs published files (see CONTRIBUTING.md)"]
fn damaged_published_files_never_panic() {
    let dir = copies(&[("llama2.model", "tokenizer.model")]);
    let path = dir.path().join("tokenizer.model");
    let whole = fs::read(&path).unwrap();
    let places = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4);
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig::with_cases(32));
    let check = |(places, cut): (Vec<(prop::sample::Index, u8)>, prop::sample::Index)| {
        let mut bytes = whole.clone();
        for (at, byte) in places {
            bytes[at.index(whole.len())] = byte;
        }
        bytes.truncate(whole.len() - cut.index(1000));
        fs::write(&path, bytes).unwrap();
        let _ = read_as(dir.path(), "llama", 32000, &json!({}));
        Ok(())
    };
    runner.run(&(places, any::<prop::sample::Index>()), check).unwrap();
}
