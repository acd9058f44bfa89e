//! What comes out wrong without a word: types and settings of an edited file, texts in other encodings, the types of norms,
//! measurements of another model, weights that are no language model.

use std::fs;
use std::path::Path;

use crate::common::{Dir, demo, fails, gguf, json, noise, ok, refs, run, stored, weights, write_gguf};
use crate::hub::{HIDDEN, Tensor, checkpoint, config, tensors, write, write_with};
use serde_json::{Value, json as of};

/// What a run that must succeed prints, with its notes.
fn said(args: &[&str]) -> String {
    let out = run(args);
    let text = String::from_utf8([out.stdout, out.stderr].concat()).unwrap();
    assert!(out.status.success(), "{args:?}: {text}");
    text
}

/// The type and the value of a key.
fn value(path: &str, key: &str) -> (String, Value) {
    let info = json(&["inspect", "--json", path]);
    let all = info["metadata"].as_array().unwrap();
    let found = all.iter().find(|m| m[0] == key).unwrap_or_else(|| panic!("no {key}"));
    (found[1].as_str().unwrap().into(), found[2].clone())
}

fn utf16(text: &str, unit: fn(u16) -> [u8; 2]) -> Vec<u8> {
    [0xFEFF].into_iter().chain(text.encode_utf16()).flat_map(unit).collect()
}

#[test]
fn an_edited_file_is_read_or_not_written() {
    let dir = Dir::new();
    let (model, out) = (gguf(&dir), dir.path("o.gguf"));
    for (option, change, says) in [
        ("--remove", "llama.block_count", "it says how many layers the model has"),
        ("--remove", "tokenizer.ggml.model", "which kind of tokenizer"),
        ("--rename", "llama.attention.head_count=llama.heads", "how many attention heads"),
        ("--set", "general.alignment=3", "must be a power of two (found 3)"),
        ("--set", "general.architecture=qwen9", "without qwen9.block_count"),
        ("--set", "general.architecture=qwen2", "without qwen2.block_count"),
        ("--set", "llama.block_count=1", "there are tensors of 3 layers"),
        ("--set", "llama.block_count=u64:3", "must be u32 (found u64 3)"),
        ("--set", "llama.feed_forward_length=175", "the settings ask for"),
        ("--set", "llama.attention.head_count_kv=[2]", "must have 3 values, one for each layer"),
        ("--set", "tokenizer.ggml.scores=[f32]:[1]", "must have 512 values"),
        ("--set", "tokenizer.ggml.bos_token_id=512", "there are 512 tokens"),
        ("--set", "split.count=3", "follow from the files"),
        ("--set", "llama.context_length=x", "programs take it as u32 only"),
    ] {
        let (code, why) = fails(&["edit", &model, &out, option, change]);
        assert!(code == 2 && why.contains(says) && why.contains("hint: "), "{change}: {why}");
        assert!(!Path::new(&out).exists());
    }
    let why = fails(&["edit", &model, &out, "--remove", "llama.block_count"]).1;
    assert!(why.contains("--force writes it all the same"), "{why}");
    // The same changes in commands that have no such option, or have one for other things.
    for command in [&["convert"][..], &["quantize", "--type", "q8_0"]] {
        let (code, why) = fails(&[command, &[&model, &out, "--set", "llama.block_count=2"]].concat());
        assert!(code == 2 && why.contains("`ggufkit edit`") && !why.contains("--force"), "{why}");
    }
    // What only this program does not run.
    for change in ["llama.rope.scaling.type=longrope", "tokenizer.ggml.padding_token_id=4294967295"] {
        for command in [&["edit"][..], &["convert"], &["quantize", "--type", "q8_0"]] {
            let new = dir.path("new.gguf");
            let text = said(&[command, &[&model, &new, "--set", change]].concat());
            let key = change.split('=').next().unwrap();
            let ours = "ggufkit does not run or measure the model like this, other programs may";
            let note =
                if key.ends_with("_id") { "programs read the model without such a token" } else { ours };
            let says = text.contains(&format!("--set {key}: ")) && text.contains(note);
            assert!(says && !text.contains("no program"), "{command:?} {change}: {text}");
            value(&new, key);
        }
    }
    ok(&["edit", &model, &out, "--force", "--remove", "llama.block_count"]);
    assert!(fails(&["run", &out]).1.contains("llama.block_count"));
    // A file that is not as it must be can be mended, and changed elsewhere.
    ok(&["edit", &out, &dir.path("named.gguf"), "--set", "general.name=x"]);
    let text = said(&["edit", &out, &dir.path("p.gguf"), "--set", "llama.block_count=3"]);
    assert!(text.contains("the key is new, with a value of type u32"), "{text}");
    ok(&["run", &dir.path("p.gguf"), "--prompt", "Once", "--tokens", "1"]);
}

#[test]
fn a_key_keeps_its_type_unless_another_is_named() {
    let dir = Dir::new();
    let (model, out) = (gguf(&dir), dir.path("o.gguf"));
    let sets =
        ["own.count=u8:7", "general.version=2", "llama.attention.scale=1", "general.tags=[\"a\", \"b\"]"];
    let sets: Vec<&str> = sets.into_iter().flat_map(|set| ["--set", set]).collect();
    ok(&[&["edit", &model, &out][..], &sets].concat());
    for (key, kind) in [
        ("own.count", "u8"),
        ("general.version", "str"),
        ("llama.attention.scale", "f32"),
        ("general.tags", "array"),
    ] {
        assert_eq!(value(&out, key).0, kind, "{key}");
    }
    let again = dir.path("p.gguf");
    let text = said(&["edit", &out, &again, "--set", "own.count=8", "--set", "llama.context_length=64"]);
    assert!(!text.contains("--set"), "{text}");
    assert_eq!(value(&again, "own.count"), ("u8".into(), 8.into()));
    let text = said(&["edit", &out, &again, "--set", "own.count=u64:8"]);
    assert!(text.contains("--set own.count: its type changes from u8 to u64"), "{text}");
    let (code, why) = fails(&["edit", &out, &again, "--set", "own.count=300"]);
    assert!(
        code == 2 && why.contains("\"300\" is not a valid u8") && why.contains("own.count=str:VALUE"),
        "{why}"
    );
}

#[test]
fn texts_from_files_are_in_their_encoding() {
    let dir = Dir::new();
    let (model, out, file) = (gguf(&dir), dir.path("o.gguf"), dir.path("t.jinja"));
    const TEMPLATE: &str = "{# Öfen → 😀 #}\r\n{{ 'x' }}\n";
    let call = |option: &str| -> Vec<String> {
        ["edit", &model, &out, "--set-file", &format!("{option}={file}")].map(String::from).to_vec()
    };
    for bytes in [
        TEMPLATE.as_bytes().to_vec(),
        format!("\u{FEFF}{TEMPLATE}").into_bytes(),
        utf16(TEMPLATE, u16::to_le_bytes),
        utf16(TEMPLATE, u16::to_be_bytes),
    ] {
        let noted = bytes[0] != b'{';
        fs::write(&file, bytes).unwrap();
        for option in ["tokenizer.chat_template", "tokenizer.chat_template:str"] {
            let text = said(&refs(&call(option)));
            assert_eq!(value(&out, "tokenizer.chat_template"), ("str".into(), TEMPLATE.into()));
            assert_eq!(text.contains("byte order mark"), noted, "{text}");
        }
    }
    fs::write(&file, utf16("[\"é\", \"b\"]", u16::to_le_bytes)).unwrap();
    ok(&refs(&call("own.list:[str]")));
    assert_eq!(value(&out, "own.list").1, of!(["str", ["é", "b"]]));
    let cut = utf16("abc", u16::to_le_bytes);
    for (bytes, says) in [
        (&b"caf\xE9"[..], "the file is not UTF-8"),
        (&cut[..cut.len() - 1], "not of the encoding"),
        (b"PK\x03\x04\x14\0", "a zip archive"),
        (&cut.repeat(4)[2..], "UTF-16LE without a byte order mark"),
    ] {
        fs::write(&file, bytes).unwrap();
        let (code, why) = fails(&refs(&call("tokenizer.chat_template")));
        assert!(code == 1 && why.contains("t.jinja") && why.contains(says), "{why}");
        assert!(why.contains("--set-file tokenizer.chat_template: ") && why.contains("hint: "), "{why}");
        assert_eq!(why.contains("iconv -f latin1 -t utf-8"), says.contains("not "), "{why}");
    }
}

#[test]
fn files_beside_weights_are_written_as_transformers_reads_them() {
    let dir = Dir::new();
    let hub = crate::common::first_layers(&dir, 1);
    let text = |name: &str| fs::read_to_string(format!("{hub}/{name}")).unwrap();
    fs::write(format!("{hub}/chat_template.jinja"), "{{ 'Öfen' }}").unwrap();
    let names =
        ["tokenizer_config.json", "generation_config.json", "chat_template.jinja", "special_tokens_map.json"];
    let all: Vec<(&str, String)> = names.into_iter().map(|name| (name, text(name))).collect();
    let marked = |(name, text): &(&str, String)| match *name {
        "tokenizer_config.json" => utf16(text, u16::to_le_bytes),
        "generation_config.json" => utf16(text, u16::to_be_bytes),
        _ => format!("\u{FEFF}{text}").into_bytes(),
    };
    all.iter().for_each(|file| fs::write(format!("{hub}/{}", file.0), marked(file)).unwrap());
    fs::write(format!("{hub}/merges.txt"), b"\xFF\xFEa").unwrap();
    let [converted, edited] = ["converted", "edited"].map(|name| format!("{}/", dir.path(name)));
    let text = said(&["edit", &hub, &edited, "--set", "own.key=1"]);
    assert!(text.contains("tokenizer_config.json: is written as UTF-8"), "{text}");
    assert!(text.contains("merges.txt: is not of the encoding"), "{text}");
    assert_eq!(fs::read(format!("{edited}merges.txt")).unwrap(), b"\xFF\xFEa");
    fs::remove_file(format!("{hub}/merges.txt")).unwrap();
    ok(&["convert", &hub, &converted, "--type", "f16"]);
    for folder in [&converted, &edited] {
        for (name, text) in &all {
            assert!(&fs::read_to_string(format!("{folder}{name}")).unwrap() == text, "{folder}{name}");
        }
    }
}

#[test]
fn settings_of_a_checkpoint_are_not_written_where_no_program_looks() {
    let dir = Dir::new();
    let hub = crate::common::first_layers(&dir, 1);
    for out in [format!("{}/", dir.path("out")), dir.path("out.safetensors")] {
        for change in [
            "--set general.architecture=llama",
            "--remove tokenizer.ggml.pre",
            "--rename own.x=llama.block_count",
        ] {
            let (option, change) = change.split_once(' ').unwrap();
            let (code, why) = fails(&["edit", &hub, &out, option, change]);
            let says = why.contains("config.json") && why.contains("ends in .gguf");
            assert!(says && code == 2, "{change}: {why}");
            assert!(!Path::new(&out).exists());
        }
        ok(&["edit", &hub, &out, "--set", "own.key=1"]);
    }
    ok(&["edit", &hub, &dir.path("named.gguf"), "--set", "general.name=x"]);
    // A checkpoint in which somebody else wrote an architecture is still one.
    let weights = fs::read(format!("{hub}/model.safetensors")).unwrap();
    let (head, data) = weights[8..].split_at(u64::from_le_bytes(weights[..8].try_into().unwrap()) as usize);
    let mut head: Value = serde_json::from_slice(head).unwrap();
    head["__metadata__"] = of!({"general.architecture": "llama"});
    let head = head.to_string().into_bytes();
    let all = [&(head.len() as u64).to_le_bytes()[..], &head, data].concat();
    ok(&["convert", &hub, &dir.path("plain.gguf")]);
    fs::write(format!("{hub}/model.safetensors"), all).unwrap();
    ok(&["convert", &hub, &dir.path("hidden.gguf")]);
    assert!(dir.read("plain.gguf") == dir.read("hidden.gguf"));
}

#[test]
fn settings_beside_weights_are_in_their_encoding() {
    let dir = Dir::new();
    let hub = crate::common::first_layers(&dir, 1);
    let text = |name: &str| fs::read_to_string(format!("{hub}/{name}")).unwrap_or_default();
    let plain = dir.path("plain.gguf");
    let names = ["config.json", "generation_config.json", "tokenizer_config.json", "special_tokens_map.json"];
    fs::write(format!("{hub}/chat_template.jinja"), "{{ 'Öfen' }}").unwrap();
    fs::write(format!("{hub}/README.md"), "---\nlicense: mit\nauthor: Bär\n---\n# Title\n").unwrap();
    ok(&["convert", &hub, &plain]);
    assert_eq!(value(&plain, "general.author").1, "Bär");
    let all: Vec<(String, String)> = names
        .into_iter()
        .chain(["chat_template.jinja", "README.md"])
        .map(|name| (format!("{hub}/{name}"), text(name)))
        .filter(|(_, text)| !text.is_empty())
        .collect();
    assert!(all.len() > 4, "{all:?}");
    for marked in [|t: &str| format!("\u{FEFF}{t}").into_bytes(), |t: &str| utf16(t, u16::to_le_bytes)] {
        all.iter().for_each(|(path, text)| fs::write(path, marked(text)).unwrap());
        let out = dir.path("marked.gguf");
        ok(&["convert", &hub, &out]);
        assert!(dir.read("marked.gguf") == dir.read("plain.gguf"));
    }
    // A recipe, and the index of shards.
    let recipe = dir.path("r.toml");
    fs::write(&recipe, utf16("base = \"q8_0\"\n", u16::to_le_bytes)).unwrap();
    ok(&["quantize", &plain, &dir.path("q.gguf"), "--recipe", &recipe]);
    ok(&["convert", &plain, &dir.path("s.safetensors"), "--split-max-size", "1M"]);
    let index = dir.path("s.safetensors.index.json");
    let json = fs::read_to_string(&index).unwrap();
    fs::write(&index, utf16(&json, u16::to_be_bytes)).unwrap();
    ok(&["convert", &index, &dir.path("back.gguf")]);
}

#[test]
fn errors_about_settings_name_the_file_as_it_is_opened() {
    let dir = Dir::new();
    let hub = crate::common::first_layers(&dir, 1);
    let path = |file: &str| format!("{hub}/{file}");
    let names = ["config.json", "generation_config.json", "tokenizer_config.json", "special_tokens_map.json"];
    let before: Vec<(String, Vec<u8>)> =
        names.iter().map(|n| (path(n), fs::read(path(n)).unwrap())).collect();
    for (file, text) in [
        ("config.json", r#"{"eos_token_id": "x"}"#),
        ("generation_config.json", r#"{"eos_token_id": ["x"]}"#),
        ("tokenizer_config.json", r#"{"add_bos_token": "yes"}"#),
        ("tokenizer_config.json", r#"{"add_prefix_space": 1}"#),
        ("tokenizer_config.json", r#"{"added_tokens_decoder": []}"#),
        ("special_tokens_map.json", "{"),
    ] {
        before.iter().for_each(|(path, bytes)| fs::write(path, bytes).unwrap());
        let read = |name: &str| -> Value { serde_json::from_slice(&fs::read(path(name)).unwrap()).unwrap() };
        if ["generation_config.json", "special_tokens_map.json"].contains(&file) {
            // They are looked into for what the others do not say.
            fs::remove_file(path("tokenizer_config.json")).unwrap();
            let mut config = read("config.json");
            config["eos_token_id"] = Value::Null;
            fs::write(path("config.json"), config.to_string()).unwrap();
        }
        let text = match serde_json::from_str::<Value>(text) {
            Ok(change) => {
                let mut json = read(file);
                json.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
                json.to_string()
            }
            Err(_) => text.into(),
        };
        fs::write(path(file), &text).unwrap();
        let (_, why) = fails(&["convert", &hub, &dir.path("x.gguf")]);
        assert!(why.contains(&path(file)), "{file} {text}: {why}");
    }
}

#[test]
fn norms_are_f32_in_every_gguf_that_is_made() {
    let dir = Dir::new();
    let hub = crate::common::first_layers(&dir, 2);
    let [first, through, back] = ["first.gguf", "t.safetensors", "back.gguf"].map(|name| dir.path(name));
    ok(&["convert", &hub, &first]);
    for kind in ["f16", "bf16"] {
        ok(&["convert", &first, &through, "--type", kind]);
        ok(&["convert", &through, &back]);
        let source = ggufkit::open(back.as_ref(), &Default::default()).unwrap();
        for t in &source.model.tensors {
            let wanted = if t.shape.len() == 1 { "f32" } else { kind };
            assert_eq!(t.encoding.name(), wanted, "{}", t.name);
            assert!(weights(&back, &t.name) == weights(&through, &t.name), "{}", t.name);
        }
        // As before, with --type; in shards; and by other commands that copy.
        ok(&["convert", &through, &dir.path("typed.gguf"), "--type", kind]);
        assert!(dir.read("typed.gguf") == dir.read("back.gguf"));
        ok(&["edit", &through, &dir.path("edited.gguf"), "--set", "own.key=1"]);
        assert_eq!(
            stored(&dir.path("edited.gguf"), "blk.0.attn_norm.weight").len(),
            4 * source_width(&first)
        );
    }
    // A GGUF is copied as it is, also where its norms are f16.
    let odd = dir.path("odd.gguf");
    ok(&["convert", &through, &odd, "--tensor", "norm=f16"]);
    let is_f16 = |path: &str| stored(path, "blk.0.attn_norm.weight").len() == 2 * source_width(&first);
    assert!(is_f16(&odd));
    ok(&["convert", &odd, &dir.path("copy.gguf")]);
    assert!(dir.read("copy.gguf") == dir.read("odd.gguf"));
    ok(&["convert", &odd, &dir.path("be.gguf"), "--endian", "big"]);
    ok(&["split", &odd, &dir.path("parts.gguf"), "--max-tensors", "8"]);
    assert!(is_f16(&dir.path("be.gguf")) && is_f16(&dir.path("parts-00001-of-00003.gguf")));
    // Tensors without a config.json, under names of their own.
    let bf16 = |n: usize| (0..2 * n).map(|i| (i % 2 * 63) as u8).collect::<Vec<u8>>();
    let all: Vec<Tensor> =
        [("layer.norm.weight", vec![8]), ("layer.bias", vec![4]), ("layer.weight", vec![4, 8])]
            .map(|(name, shape)| (name.into(), "BF16", shape.clone(), bf16(shape.iter().product())))
            .into();
    write_with(Path::new(&dir.path("own.safetensors")), of!({}), &all);
    let named = ["--set", "general.architecture=own"];
    ok(&[&["convert", &dir.path("own.safetensors"), &dir.path("own.gguf")], &named[..]].concat());
    let sizes =
        ["layer.norm.weight", "layer.bias", "layer.weight"].map(|n| stored(&dir.path("own.gguf"), n).len());
    assert_eq!(sizes, [32, 16, 64]);
}

/// The hidden size of a model.
fn source_width(path: &str) -> usize {
    weights(path, "output_norm.weight").len()
}

/// The same settings with other weights: those of the file, each tensor turned around.
fn other_model(path: &str, out: &str) {
    let source = ggufkit::open(path.as_ref(), &Default::default()).unwrap();
    let tensors: Vec<_> = source
        .model
        .tensors
        .iter()
        .map(|t| {
            let mut x = weights(path, &t.name);
            let n = x.len();
            if t.shape.len() == 2 {
                x = noise(n, 3).into_iter().map(|x| x / 8.0).collect();
            }
            (t.name.clone(), t.shape.clone(), x)
        })
        .collect();
    write_gguf(out, &source.model.metadata, &tensors);
}

#[test]
fn what_was_measured_on_another_model_is_refused() {
    let dir = Dir::new();
    let [model, half, small, other] =
        ["m.gguf", "half.gguf", "small.gguf", "other.gguf"].map(|n| dir.path(n));
    let hub = crate::common::first_layers(&dir, 2);
    ok(&["convert", &hub, &model]);
    ok(&["convert", &model, &half, "--type", "f16"]);
    ok(&["quantize", &model, &small, "--type", "q4_0"]);
    other_model(&model, &other);
    let [sensitivity, imatrix] = ["s.json", "i.gguf"].map(|n| dir.path(n));
    let few = ["--context", "32", "--chunks", "1"];
    let types = ["--types", "q4_0,q8_0", "--probes", "q4_0", "-o", &sensitivity];
    ok(&[&["sensitivity", &hub, "builtin"][..], &few, &types].concat());
    ok(&[&["calibrate", &hub, "builtin", "-o", &imatrix][..], &few].concat());
    let sized = |model: &str| {
        let args =
            ["quantize", model, "OUT", "--bits-per-weight", "6", "--types", "q4_0,q8_0", "--sensitivity"];
        let mut args: Vec<String> = args.map(String::from).into();
        args[2] = dir.path("q.gguf");
        args.push(sensitivity.clone());
        args.push("--allow-requantize".into());
        args
    };
    let weighted = |model: &str| {
        [
            "quantize",
            model,
            &dir.path("q.gguf"),
            "--type",
            "q4_0",
            "--allow-requantize",
            "--imatrix",
            &imatrix,
        ]
        .map(String::from)
        .to_vec()
    };
    let frontier = |model: &str| {
        ["frontier", model, "--types", "q4_0,q8_0", "--allow-requantize", "--sensitivity", &sensitivity]
            .map(String::from)
            .to_vec()
    };
    for (make, way) in [
        (&sized as &dyn Fn(&str) -> Vec<String>, "ggufkit sensitivity"),
        (&weighted, "ggufkit calibrate"),
        (&frontier, "ggufkit sensitivity"),
    ] {
        let text = |model: &str| said(&refs(&make(model)));
        // The checkpoint, and what was made of it.
        for same in [&hub, &model, &half] {
            let text = text(same);
            assert!(!text.contains("measured on layers,"), "{text}");
        }
        let noted = text(&small);
        assert!(noted.contains("were measured on layers, whose weights differ from these by"), "{noted}");
        let (code, why) = fails(&refs(&make(&other)));
        let says = "were measured on another model, layers: its weights are not those of";
        assert!(code == 1 && why.contains(says) && why.contains(way), "{why}");
    }
    // Files of earlier versions do not say what they are of.
    let mut json: Value = serde_json::from_slice(&fs::read(&sensitivity).unwrap()).unwrap();
    assert_eq!(json["origin"]["model"]["name"], "layers");
    json["origin"]["model"]["weights"] = "xyz".into();
    fs::write(&sensitivity, json.to_string()).unwrap();
    let why = fails(&["frontier", &model, "--sensitivity", &sensitivity]).1;
    assert!(why.contains("`weights` is no sample of weights"), "{why}");
    json["origin"].as_object_mut().unwrap().remove("model");
    fs::write(&sensitivity, json.to_string()).unwrap();
    ok(&["frontier", &other, "--types", "q4_0,q8_0", "--sensitivity", &sensitivity]);
}

#[test]
fn a_model_of_videos_becomes_a_gguf_for_other_programs() {
    let dir = Dir::new();
    let (video, out) = (dir.path("video.safetensors"), dir.path("o.gguf"));
    let tensor = |name: &str, shape: Vec<usize>| -> Tensor {
        (name.into(), "F32", shape.clone(), vec![0; 4 * shape.iter().product::<usize>()])
    };
    let all = [
        tensor("patch_embedding.weight", vec![8, 4, 1, 2, 32]),
        tensor("blocks.0.self_attn.q.weight", vec![64, 64]),
    ];
    write_with(Path::new(&video), of!({}), &all);
    let text = said(&["quantize", &video, &out, "--type", "q8_0"]);
    assert!(text.contains("makes images or videos, not a language model"), "{text}");
    assert!(text.contains("has 5 dimensions, more than 4: llama.cpp"), "{text}");
    let info = json(&["inspect", "--json", &out]);
    let types: Vec<_> =
        info["tensors"].as_array().unwrap().iter().map(|t| t["type"].as_str().unwrap()).collect();
    assert_eq!(types, ["f32", "q8_0"]);
    let why = fails(&["run", &video, "--prompt", "x"]).1;
    assert!(why.contains("makes images"), "{why}");
}

#[test]
fn weights_that_are_no_language_model_are_named() {
    let dir = Dir::new();
    let out = dir.path("o.gguf");
    let tensor = |name: &&str| -> Tensor { (name.to_string(), "F32", vec![4, 8], vec![0; 128]) };
    for (names, says, way) in [
        (&["a.exp_avg", "a.exp_avg_sq"][..], "the state of an optimizer", "model.safetensors"),
        (&["down_blocks.0.resnets.0.conv1.weight"], "a diffusion model", "stable-diffusion.cpp"),
        (&["encoder.down.0.block.0.conv1.weight"], "an autoencoder of images", "stable-diffusion.cpp"),
        (&["vision_model.encoder.layers.0.self_attn.q_proj.weight"], "a model of vision", "--mmproj"),
        (
            &["encoder.conv1.weight", "decoder.layers.0.self_attn.q_proj.weight"],
            "a Whisper model",
            "whisper.cpp",
        ),
        (&["quantizer.layers.0.codebook.embed"], "a model of sound", "--set general.architecture"),
    ] {
        let file = dir.path("w.safetensors");
        write(Path::new(&file), &names.iter().map(tensor).collect::<Vec<_>>());
        for command in [&["convert"][..], &["quantize", "--type", "q8_0"]] {
            let (code, why) = fails(&[command, &[&file, &out]].concat());
            assert!(code == 1 && why.contains(says) && why.contains(way), "{names:?}: {why}");
        }
        ok(&["inspect", &file]);
        let named = ["convert", &file, &out, "--set", "general.architecture=sd"];
        match says.contains("optimizer") {
            true => _ = fails(&named),
            false => _ = ok(&named),
        }
    }
    // By the settings beside them.
    let settings = of!({"_class_name": "FluxTransformer2DModel", "in_channels": 64});
    let flux = checkpoint(&dir, "flux", &settings, &[tensor(&"x_embedder.weight")]);
    let (_, why) = fails(&["convert", &flux, &out]);
    assert!(why.contains("FluxTransformer2DModel of diffusers"), "{why}");
    let whisper = of!({"architectures": ["WhisperForConditionalGeneration"], "model_type": "whisper"});
    let whisper = checkpoint(&dir, "whisper", &whisper, &[tensor(&"model.encoder.conv1.weight")]);
    assert!(fails(&["convert", &whisper, &out]).1.contains("is a Whisper model"));
    // Beside a language model: what is left over is named, and more of training too.
    let mut all = tensors(&[]);
    all.push(("optimizer.exp_avg.model.norm.weight".into(), "BF16", vec![HIDDEN], vec![0; 2 * HIDDEN]));
    let trained = checkpoint(&dir, "trained", &config("LlamaForCausalLM"), &all);
    let (_, why) = fails(&["convert", &trained, &out]);
    assert!(
        why.contains("the state of an optimizer beside its weights") && why.contains("save_pretrained"),
        "{why}"
    );
    all.pop();
    all.push(("visual.patch_embed.proj.weight".into(), "BF16", vec![4, 8], vec![0; 64]));
    let seeing = checkpoint(&dir, "seeing", &config("LlamaForCausalLM"), &all);
    let (_, why) = fails(&["convert", &seeing, &out]);
    assert!(why.contains("visual.patch_embed.proj.weight is not part of the architecture"), "{why}");
    ok(&["convert", &demo("model"), &out]);
}
