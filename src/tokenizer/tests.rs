//! Vocabularies in files: the bundled model's, and llama.cpp's with the ids that it expects.

use std::path::Path;

use formats::container;
use formats::metadata::Metadata;
use formats::model::Input;

use crate::tokenizer::Tokenizer;

fn made(m: &Metadata) -> Tokenizer {
    Tokenizer::from_metadata(m).unwrap()
}

/// llama.cpp's vocabularies whose ids are all as expected.
const PEERS: &[&str] = &[
    "command-r",
    "deepseek-coder",
    "deepseek-llm",
    "falcon",
    "gemma-4",
    "gpt-2",
    "llama-bpe",
    "llama-spm",
    "mpt",
    "phi-3",
    "qwen2",
    "qwen35",
    "refact",
    "starcoder",
];

fn bundled(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("demo").join(name)
}

/// The bundled model's tokenizer, as its SentencePiece model and as llama2.c has it.
fn demo() -> [Metadata; 2] {
    let folder = bundled("model");
    let config = std::fs::read(folder.join("config.json")).unwrap();
    let config: serde_json::Value = serde_json::from_slice(&config).unwrap();
    let rows = config["vocab_size"].as_u64().unwrap();
    let wanted =
        crate::checkpoint::vocab::Wanted { arch: "llama", rows, name: None, config: &config, pre: None };
    let model = crate::checkpoint::vocab::read(&folder, &wanted).unwrap().unwrap().metadata;
    let bytes = std::fs::read(bundled("tiny-tokenizer.bin")).unwrap();
    let bin = container::read(&Input::whole("tiny-tokenizer.bin", &bytes)).unwrap().metadata;
    [model, bin]
}

#[test]
fn the_bundled_tokenizers_read_a_story() {
    let [model, bin] = demo().map(|m| made(&m));
    let story = std::fs::read_to_string(bundled("heldout.txt")).unwrap();
    for t in [&model, &bin] {
        let ids = t.encode(&story, true, false);
        assert_eq!(Some(ids[0]), t.bos());
        assert!(ids.len() < story.len(), "{} ids for {} bytes", ids.len(), story.len());
        assert_eq!(String::from_utf8(t.decode(&ids)).unwrap(), story);
    }
    assert!(!model.same_vocabulary(&bin));
}

#[test]
#[ignore = "needs llama.cpp's source (see CONTRIBUTING.md)"]
fn ids_are_those_published_by_llama_cpp() {
    let source = std::env::var_os("GGUFKIT_LLAMACPP").expect("GGUFKIT_LLAMACPP names llama.cpp's source");
    for name in PEERS {
        let path = Path::new(&source).join("models").join(format!("ggml-vocab-{name}.gguf"));
        let bytes = std::fs::read(&path).unwrap();
        let tokenizer = made(&container::gguf::read(&Input::whole(name, &bytes)).unwrap().metadata);
        let beside = |end: &str| std::fs::read_to_string(format!("{}{end}", path.display())).unwrap();
        let (texts, expected) = (beside(".inp"), beside(".out"));
        let texts: Vec<&str> = texts.split("\n__ggml_vocab_test__\n").collect();
        // What follows the last separator is no text.
        assert!(expected.lines().count() > 40 && texts.len() >= expected.lines().count());
        for (text, expected) in texts.iter().zip(expected.lines()) {
            let expected: Vec<u32> = expected.split_whitespace().map(|id| id.parse().unwrap()).collect();
            let ids = tokenizer.encode(text, false, false);
            assert_eq!(ids, expected, "{name}: {text:?}");
            if *name != "gemma-4" {
                assert_eq!(String::from_utf8_lossy(&tokenizer.decode(&ids)), *text, "{name}");
            }
        }
    }
}
