//! Folders as they are published, and some that nobody should publish.

use std::fs;

use formats::metadata::Kind;
use proptest::prelude::*;
use serde_json::{Value as Json, json};
use tempfile::TempDir;

use super::*;

/// Makes a folder of this name with these files and reads it.
fn card_in(name: &str, files: &[(&str, &[u8])], config: &Json, parameters: u64) -> Card {
    let dir = TempDir::new().unwrap();
    let folder = dir.path().join(name);
    fs::create_dir_all(&folder).unwrap();
    for (file, bytes) in files {
        fs::write(folder.join(file), bytes).unwrap();
    }
    read(&About { folder: &folder, config, parameters, experts: None })
}

/// The card of a folder called `m` with this front matter.
fn card(front: &str) -> Card {
    card_in("m", &[("README.md", format!("---\n{front}\n---\n# Title\n").as_bytes())], &json!({}), 0)
}

/// Every setting as "key=value", after `general.`.
fn shown(card: &Card) -> Vec<String> {
    let show = |value: &Value| match value {
        Value::String(s) => String::from_utf8_lossy(s).into_owned(),
        Value::Array(a) => format!("{:?}", a.strings().map(String::from_utf8_lossy).collect::<Vec<_>>()),
        Value::U32(n) => format!("u32 {n}"),
        Value::I32(n) => format!("i32 {n}"),
        Value::F32(x) => format!("f32 {x}"),
        other => format!("{other:?}"),
    };
    card.metadata
        .iter()
        .map(|(k, v)| format!("{}={}", k.strip_prefix("general.").unwrap(), show(v)))
        .collect()
}

/// The settings besides the type and the folder's name.
fn told(front: &str) -> Vec<String> {
    let card = card(front);
    assert!(card.notes.is_empty(), "{:?}", card.notes);
    shown(&card).into_iter().filter(|line| line != "type=model" && line != "name=M").collect()
}

#[test]
fn the_folders_name_is_taken_apart() {
    let card = card_in("TinyLlama-1.1B-Chat-v1.0", &[], &json!({}), 1_100_048_384);
    let expected = [
        "type=model",
        "name=TinyLlama 1.1B Chat v1.0",
        "version=v1.0",
        "finetune=Chat",
        "basename=TinyLlama",
        "size_label=1.1B",
    ];
    assert_eq!(shown(&card), expected);
    assert!(card.files.is_empty() && card.notes.is_empty());
}

#[test]
fn the_config_names_the_model_unless_it_has_a_path() {
    let name = |id: Json| {
        card_in("m", &[], &json!({ "_name_or_path": id }), 0)
            .metadata
            .text("general.name")
            .map(str::to_string)
    };
    assert_eq!(name(json!("meta-llama/Llama-2-7b-hf")).as_deref(), Some("Llama 2 7b Hf"));
    for nothing in [json!("/a/b/c"), json!("/data"), json!("C:\\models\\x"), json!(""), json!("."), json!(7)]
    {
        assert_eq!(name(nothing).as_deref(), Some("M"));
    }
    let card = card_in("x-8B", &[], &json!({ "_name_or_path": "meta-llama/Llama-2-7b-hf" }), 0);
    let all = shown(&card);
    for line in ["organization=Meta Llama", "basename=Llama-2", "finetune=hf", "size_label=7B"] {
        assert!(all.iter().any(|l| l == line), "{line}: {all:?}");
    }
}

#[test]
fn snapshots_and_dots_have_names() {
    let dir = TempDir::new().unwrap();
    let root = dir.path().canonicalize().unwrap();
    let name = |path: &Path| folder_id(path).unwrap();
    let snapshot =
        root.join("models--mistralai--Mistral-7B-v0.1/snapshots/26bca36bde8333b5d7f72e9ed20ccda6a618af24");
    fs::create_dir_all(snapshot.join("deeper")).unwrap();
    assert_eq!(name(&snapshot), "mistralai/Mistral-7B-v0.1");
    assert_eq!(name(&snapshot.join("deeper/..")), "mistralai/Mistral-7B-v0.1");
    assert_eq!(name(&root.join("models--gpt2/snapshots/main/")), "gpt2");
    assert_eq!(name(&root.join("mine/snapshots/step-1/.")), "step-1");
    assert_eq!(name(&root.join("models--a--b/refs/x")), "x");
    assert_eq!(Some(name(Path::new("."))), folder_id(&std::env::current_dir().unwrap()));
    assert_eq!(folder_id(Path::new("/")), None);
}

#[test]
fn sizes_are_counted_where_no_name_has_one() {
    let dir = TempDir::new().unwrap();
    let size = |parameters, experts| {
        let about = About { folder: dir.path(), config: &Json::Null, parameters, experts };
        read(&about).metadata.text("general.size_label").map(str::to_string)
    };
    assert_eq!(size(260_032, None).as_deref(), Some("260K"));
    assert_eq!(size(0, None), None);
    let experts = Experts { count: 8, shared: 1_600_000_000, each: 5_640_000_000 };
    assert_eq!(size(46_700_000_000, Some(experts)).as_deref(), Some("8x7.2B"));
    assert_eq!(size(46_700_000_000, Some(Experts { count: 0, ..experts })).as_deref(), Some("47B"));
}

#[test]
fn the_cards_words_come_first_and_in_order() {
    let front = "tags: [chat, 2024, no]\npipeline_tag: text-generation\nlanguage:\n- en\n- no\nlicense: other\n\
                 license_name: llama3\nlicense_link: LICENSE\nmodel_creator: Somebody\nname: ~\nmodel_name: A name\n\
                 model_type: llama\nversion: 1.10\nurl: https://a.example\nmodel_doi: 10.1/2\nuuid: 5\n\
                 repo_url: https://b.example\nsize_label: 3B\ndescription: |\n  Two\n  lines\nfinetune: chat\n\
                 organization: Org\nquantized_by: Nobody";
    let expected = [
        "type=model",
        "name=A name",
        "author=Somebody",
        "version=1.10",
        "organization=Org",
        "finetune=chat",
        "basename=llama",
        "description=Two\nlines\n",
        "size_label=3B",
        "license=other",
        "license.name=llama3",
        "license.link=LICENSE",
        "source.url=https://a.example",
        "source.doi=10.1/2",
        "source.uuid=5",
        "source.repo_url=https://b.example",
        "tags=[\"chat\", \"2024\", \"no\", \"text-generation\"]",
        "languages=[\"en\", \"no\"]",
    ];
    let card = card(front);
    assert_eq!(shown(&card), expected);
    assert!(card.notes.is_empty(), "{:?}", card.notes);
    assert_eq!(card.files.len(), 1);
}

#[test]
fn base_models_and_data_sets_are_listed() {
    let merge = told("base_model:\n\t- EmbeddedLLM/Mistral-7B-Merge-14-v0\n\t- janai-hq/trinity-v1");
    let expected = [
        "base_model.count=u32 2",
        "base_model.0.name=Mistral 7B Merge 14 v0",
        "base_model.0.version=14-v0",
        "base_model.0.organization=EmbeddedLLM",
        "base_model.0.repo_url=https://huggingface.co/EmbeddedLLM/Mistral-7B-Merge-14-v0",
        "base_model.1.name=Trinity v1",
        "base_model.1.version=v1",
        "base_model.1.organization=Janai Hq",
        "base_model.1.repo_url=https://huggingface.co/janai-hq/trinity-v1",
    ];
    assert_eq!(merge, expected);

    let expected = |key: &str| {
        let url = "https://huggingface.co/teknium/OpenHermes-2.5";
        [
            format!("{key}.count=u32 1"),
            format!("{key}.0.name=OpenHermes 2.5"),
            format!("{key}.0.version=2.5"),
            format!("{key}.0.organization=Teknium"),
            format!("{key}.0.repo_url={url}"),
        ]
    };
    for value in [
        "teknium/OpenHermes-2.5",
        "[https://huggingface.co/teknium/OpenHermes-2.5]",
        "{name: OpenHermes 2.5, organization: Teknium, version: 2.5, \
          repo_url: https://huggingface.co/teknium/OpenHermes-2.5}",
    ] {
        assert_eq!(told(&format!("base_model: {value}")), expected("base_model"));
        assert_eq!(told(&format!("dataset_sources: {value}")), expected("dataset"));
    }
    for (other, lines) in [
        (
            "https://a.example/b/c",
            &["base_model.count=u32 1", "base_model.0.repo_url=https://a.example/b/c"][..],
        ),
        ("gpt2", &["base_model.count=u32 1", "base_model.0.name=Gpt2"]),
        ("", &["base_model.count=u32 0"]),
    ] {
        assert_eq!(told(&format!("base_model: {other}")), lines);
    }
}

#[test]
fn licenses_can_be_several() {
    assert_eq!(told("license: [mit, apache-2.0]"), ["license=mit,apache-2.0"]);
    assert_eq!(told("license: []"), [""; 0]);
}

#[test]
fn odd_values_are_left_out_with_a_note() {
    for (front, note) in [
        ("- a\n- b", "not a mapping"),
        ("a: b: c", "front matter is left out"),
        ("name: [a]", "name is not text"),
        ("license: {a: b}", "license is not text"),
        ("tags: [a, [b], ~]", "2 of tags are not text"),
        ("language: {a: b}", "language is not a list"),
        ("base_model: [a/b, ~]", "is neither text nor a mapping"),
        ("datasets:\n- name: {a: b}", "name is not text"),
    ] {
        let card = card(front);
        assert_eq!(card.notes.len(), 1, "{front}: {:?}", card.notes);
        assert!(card.notes[0].contains(note), "{front}: {:?}", card.notes);
        assert_eq!(card.metadata.text("general.name"), Some("M"));
    }
    let many = card(&format!("datasets: [{}]", "a/b, ".repeat(100_000)));
    assert!(many.notes[0].contains("only the first 1000"));
    assert_eq!(many.metadata.get("general.dataset.count"), Some(&Value::U32(1000)));
    let odd = card(&format!("datasets: [{}]", "[], ".repeat(1000)));
    assert_eq!(odd.notes.len(), NOTES + 1);
    assert!(odd.notes[NOTES].contains("980 more"), "{}", odd.notes[NOTES]);
    let long = format!("---\nname: {}\n---\n", "x".repeat(yaml::LIMIT));
    let long = card_in("m", &[("README.md", long.as_bytes())], &json!({}), 0);
    assert!(long.notes[0].contains("does not end within"));
}

#[test]
fn sampling_has_kinds() {
    let text =
        br#"{"do_sample": true, "temperature": 1, "top_k": 50, "top_p": 0.9, "repetition_penalty": 1.05,
        "min_p": null, "sequence": "kp", "mirostat": 2, "penalty_last_n": -1, "transformers_version": "4"}"#;
    let card = card_in("m", &[("generation_config.json", text)], &json!({}), 0);
    let expected = [
        "type=model",
        "sampling.sequence=kp",
        "sampling.top_k=i32 50",
        "sampling.top_p=f32 0.9",
        "sampling.temp=f32 1",
        "sampling.penalty_last_n=i32 -1",
        "sampling.penalty_repeat=f32 1.05",
        "sampling.mirostat=i32 2",
        "name=M",
    ];
    assert_eq!(shown(&card), expected);
    assert_eq!(card.metadata.get("general.sampling.top_p").map(Value::kind), Some(Kind::F32));
    assert!(card.notes.is_empty(), "{:?}", card.notes);
}

#[test]
fn settings_of_generation_without_keys_are_named() {
    let text = br#"{"stop_strings": ["x"], "suppress_tokens": [], "no_repeat_ngram_size": 0, "forced_eos_token_id": 2,
        "bad_words_ids": null, "max_length": 20}"#;
    let card = card_in("m", &[("generation_config.json", text)], &json!({}), 0);
    assert!(card.notes.is_empty());
    let says =
        "a GGUF has no place for forced_eos_token_id and stop_strings: programs generate texts without";
    assert_eq!(card.of_gguf, [format!("generation_config.json: {says}")]);
}

#[test]
fn odd_sampling_is_left_out_with_a_note() {
    for (text, note) in [
        (r#"{"top_k": true}"#, "top_k is not a 32-bit integer"),
        (r#"{"top_k": 3000000000}"#, "top_k is not a 32-bit integer"),
        (r#"{"top_k": 50.5}"#, "top_k is not a 32-bit integer"),
        (r#"{"temperature": "hot"}"#, "temperature is not a number"),
        (r#"{"temperature": 1e300}"#, "temperature is not a number"),
        (r#"{"sequence": 1}"#, "sequence is not text"),
        (r#"{"temperature": NaN}"#, "temperature is not a number"),
        ("[]", "not a JSON object"),
        ("", "not JSON"),
    ] {
        let card = card_in("m", &[("generation_config.json", text.as_bytes())], &json!({}), 0);
        assert_eq!(card.notes.len(), 1, "{text}: {:?}", card.notes);
        assert!(card.notes[0].contains(note), "{text}: {:?}", card.notes);
        assert_eq!(shown(&card), ["type=model", "name=M"]);
    }
}

#[test]
fn a_folder_in_the_place_of_a_file_is_no_file() {
    let dir = TempDir::new().unwrap();
    fs::create_dir(dir.path().join("README.md")).unwrap();
    let card = read(&About { folder: dir.path(), config: &Json::Null, parameters: 0, experts: None });
    assert!(card.files.is_empty() && card.notes.is_empty());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_card_stops_a_conversion(
        key in "name|license|tags|language|base_model|datasets|version",
        text in "[-\\[\\]{}:?,&*!|>'\"%@`#~a/ \n\t]{0,30}",
        bytes: Vec<u8>,
    ) {
        let readme = [b"---\n", key.as_bytes(), b": ", text.as_bytes(), b"\n---\n"].concat();
        card_in("m", &[("README.md", &readme), ("generation_config.json", &bytes)], &json!({}), 1);
        card_in("m", &[("README.md", &[b"---\n", &bytes[..]].concat())], &json!({}), 1);
    }
}
