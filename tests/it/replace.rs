//! A checkpoint that is replaced: its weights are one set with their index, and nothing else in the folder is lost.

use std::fs;
use std::path::Path;

use crate::common::{Dir, demo, fails, gguf, json, ok};
use crate::hub::{checkpoint, config, tensors};

/// Converts, and gives the report.
fn convert(hub: &str, out: &str) -> String {
    ok(&["convert", hub, out])
}

/// A folder with a checkpoint in shards, of another model than `hub`, and files of the user's.
fn in_shards(dir: &Dir, name: &str, most: &str) -> String {
    let whole = checkpoint(dir, &format!("{name}-whole"), &config("LlamaForCausalLM"), &tensors(&[]));
    let out = dir.path(name);
    ok(&["convert", &whole, &format!("{out}/"), "--type", "f32", "--split-max-size", most]);
    fs::write(format!("{out}/notes.txt"), "mine").unwrap();
    fs::write(format!("{out}/other.safetensors"), "mine too").unwrap();
    assert!(fs::metadata(format!("{out}/model.safetensors.index.json")).is_ok());
    out
}

fn names(folder: &str) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// The names of a checkpoint's files with so many shards, and the user's.
fn wanted(shards: usize) -> Vec<String> {
    let mut all = vec!["config.json".to_string(), "notes.txt".into(), "other.safetensors".into()];
    match shards {
        1 => all.push("model.safetensors".into()),
        n => {
            all.push("model.safetensors.index.json".into());
            all.extend((1..=n).map(|i| format!("model-{i:05}-of-{n:05}.safetensors")));
        }
    }
    all.sort();
    all
}

#[test]
fn weights_in_shards_are_replaced_as_a_set() {
    let dir = Dir::new();
    let hub = checkpoint(&dir, "hub", &config("LlamaForCausalLM"), &tensors(&[]));
    let (whole, parts) = (&[][..], &["--split-max-size", "100K"][..]);
    let shards = |folder: &str| names(folder).iter().filter(|n| n.contains("-of-")).count();
    for (i, (more, before)) in
        [(whole, "60K"), (parts, "60K"), (parts, "100K"), (parts, "1G")].into_iter().enumerate()
    {
        let out = match before {
            "1G" => {
                let out = dir.path("single");
                ok(&["convert", &hub, &format!("{out}/"), "--type", "f32"]);
                fs::write(format!("{out}/notes.txt"), "mine").unwrap();
                fs::write(format!("{out}/other.safetensors"), "mine too").unwrap();
                out
            }
            before => in_shards(&dir, &format!("old-{i}"), before),
        };
        let old = names(&out);
        let convert = [&["convert", &hub, &out, "--type", "bf16"], more].concat();
        let (code, why) = fails(&convert);
        assert!(code == 1 && why.contains("--overwrite"), "{why}");
        let said = ok(&[&convert[..], &["--overwrite", "--dry-run"]].concat());
        assert_eq!(names(&out), old, "a dry run changes nothing");
        assert!(said.contains("what is left of the older model would be removed"), "{said}");
        let text = ok(&[&convert[..], &["--overwrite"]].concat());
        let count = shards(&out).max(1);
        assert_eq!(names(&out), wanted(count), "{before}: {text}");
        assert_eq!(count > 1, !more.is_empty());
        assert!(text.contains("other.safetensors"), "what stays is named: {text}");
        assert_eq!(fs::read_to_string(format!("{out}/other.safetensors")).unwrap(), "mine too");
        assert_eq!(fs::read_to_string(format!("{out}/notes.txt")).unwrap(), "mine");
        fs::remove_file(format!("{out}/other.safetensors")).unwrap();
        assert_eq!(
            json(&["inspect", "--json", &out])["tensors"].as_array().unwrap().len(),
            tensors(&[]).len()
        );
    }
}

#[test]
fn every_command_that_writes_models_replaces_them_alike() {
    let dir = Dir::new();
    let hub = checkpoint(&dir, "hub", &config("LlamaForCausalLM"), &tensors(&[]));
    let gguf = dir.path("m.gguf");
    ok(&["convert", &hub, &gguf]);
    for (i, args) in [
        vec!["convert", &gguf, "OUT"],
        vec!["quantize", &gguf, "OUT", "--type", "f16"],
        vec!["merge", &hub, "OUT"],
        vec!["split", &hub, "OUT", "--max-size", "100K"],
        vec!["edit", &hub, "OUT", "--set", "own.a=str:b"],
    ]
    .into_iter()
    .enumerate()
    {
        let out = in_shards(&dir, &format!("old-{i}"), "60K");
        let old = names(&out);
        let line: Vec<&str> = args.iter().map(|a| if *a == "OUT" { &out } else { *a }).collect();
        let (code, why) = fails(&line);
        assert!(
            code == 1 && why.contains("holds a checkpoint already") && why.contains("--overwrite"),
            "{why}"
        );
        assert_eq!(names(&out), old);
        ok(&[&line[..], &["--overwrite"]].concat());
        let left = names(&out);
        let gone = old.iter().filter(|n| n.contains("-of-") && !left.contains(n)).count();
        assert!(gone > 0, "{args:?}: {left:?}");
        assert!(
            ["config.json", "notes.txt"].iter().all(|n| left.iter().any(|l| l == n)),
            "{args:?}: {left:?}"
        );
        let index = left.iter().any(|n| n.ends_with("index.json"));
        assert_eq!(index, args[0] == "split", "{left:?}");
        fs::remove_file(format!("{out}/other.safetensors")).unwrap();
        ok(&["inspect", &out]);
    }
}

#[test]
fn weights_that_are_read_are_not_removed() {
    let dir = Dir::new();
    let out = in_shards(&dir, "m", "60K");
    let old = names(&out);
    for args in [
        vec!["convert", &out, &out, "--type", "bf16", "--overwrite"],
        vec!["merge", &out, &out, "--overwrite"],
        vec!["split", &out, &out, "--max-size", "1G", "--overwrite"],
    ] {
        let (code, why) = fails(&args);
        assert!(code == 2 && why.contains("read"), "{why}");
        assert_eq!(names(&out), old);
    }
    // Nor are files that a damaged index names elsewhere.
    fs::write(dir.path("precious.safetensors"), "x").unwrap();
    let hub = checkpoint(&dir, "hub", &config("LlamaForCausalLM"), &tensors(&[]));
    for index in [
        r#"{"weight_map": {"a": "../precious.safetensors"}}"#,
        "{",
        r#"{"weight_map": {"a": "notes.txt/x"}}"#,
    ] {
        fs::write(format!("{out}/model.safetensors.index.json"), index).unwrap();
        ok(&["convert", &hub, &out, "--overwrite"]);
        assert!(Path::new(&dir.path("precious.safetensors")).exists());
        let left = names(&out);
        assert!(
            left.iter().any(|n| n == "notes.txt") && !left.iter().any(|n| n.ends_with("index.json")),
            "{left:?}"
        );
    }
}

#[test]
fn an_interrupted_replacement_is_noticed() {
    let dir = Dir::new();
    let out = in_shards(&dir, "m", "60K");
    fs::rename(format!("{out}/config.json"), format!("{out}/config.json.old")).unwrap();
    let text = String::from_utf8(crate::common::run(&["inspect", &out]).stdout).unwrap();
    assert!(text.contains("config.json.old") && text.contains("did not end"), "{text}");
}

#[test]
fn a_checkpoint_is_not_replaced_unasked() {
    let dir = Dir::new();
    let hub = checkpoint(&dir, "hub", &config("LlamaForCausalLM"), &tensors(&[]));
    std::fs::write(format!("{hub}/tokenizer_config.json"), "{}").unwrap();
    let gguf = dir.path("m.gguf");
    assert!(!convert(&hub, &gguf).contains("is replaced"));
    assert!(
        convert(&hub, &gguf).contains("an existing file is replaced when all is done: "),
        "a single file is"
    );
    let other = checkpoint(&dir, "other", &config("LlamaForCausalLM"), &tensors(&[]));
    let before = (dir.read("other/config.json"), dir.read("other/model.safetensors"));
    for out in [other.clone(), format!("{other}/")] {
        for more in [&[][..], &["--dry-run"]] {
            let (code, text) = fails(&[&["convert", &gguf, &out, "--type", "f16"], more].concat());
            assert!(
                code == 1 && text.contains("holds a checkpoint") && text.contains("--overwrite"),
                "{text}"
            );
        }
    }
    assert!(before == (dir.read("other/config.json"), dir.read("other/model.safetensors")));
    let text = ok(&["convert", &gguf, &other, "--type", "f16", "--overwrite"]);
    assert!(text.contains("config.json") || text.contains("is replaced"), "{text}");
    assert!(before.1 != dir.read("other/model.safetensors"));
    // Weights alone are a checkpoint too, as are settings alone.
    for file in ["model-00001-of-00002.safetensors", "pytorch_model.bin", "config.json"] {
        let out = dir.path(&format!("out-{file}"));
        std::fs::create_dir(&out).unwrap();
        std::fs::write(format!("{out}/{file}"), "x").unwrap();
        let (_, text) = fails(&["convert", &gguf, &out]);
        assert!(text.contains(file), "{text}");
    }
    let empty = dir.path("empty");
    std::fs::create_dir(&empty).unwrap();
    std::fs::write(format!("{empty}/notes.txt"), "mine").unwrap();
    convert(&gguf, &empty);
}

#[test]
fn weights_do_not_join_the_tokenizer_of_another_model() {
    let dir = Dir::new();
    let hub = checkpoint(&dir, "hub", &config("LlamaForCausalLM"), &tensors(&[]));
    for file in ["tokenizer.json", "chat_template.jinja", "vocab.json", "quantize_config.json"] {
        let out = dir.path(&format!("out-{file}"));
        std::fs::create_dir(&out).unwrap();
        std::fs::write(format!("{out}/{file}"), "{}").unwrap();
        let (code, text) = fails(&["convert", &hub, &out]);
        assert!(code == 1 && text.contains(file) && text.contains("--overwrite"), "{text}");
        let text = ok(&["convert", &hub, &out, "--overwrite"]);
        let kept = format!("{file}.old");
        assert!(text.contains(&format!("{file} is kept as {kept}")), "{text}");
        let mut wanted = ["config.json", "model.safetensors", &kept];
        wanted.sort();
        assert_eq!(names(&out), wanted);
    }
    // An adapter is somebody's work, and would be applied to the new weights.
    let out = dir.path("adapter");
    std::fs::create_dir(&out).unwrap();
    std::fs::write(format!("{out}/adapter_config.json"), "{}").unwrap();
    for more in [&[][..], &["--overwrite"]] {
        let (code, text) = fails(&[&["convert", &hub, &out], more].concat());
        assert!(code == 1 && text.contains("has an adapter") && text.contains("move the adapter"), "{text}");
        assert_eq!(names(&out), ["adapter_config.json"]);
    }
    // What the run writes itself is somebody's too, if it says something else.
    std::fs::write(format!("{hub}/special_tokens_map.json"), "{\"a\": 1}").unwrap();
    let out = dir.path("own");
    std::fs::create_dir(&out).unwrap();
    std::fs::write(format!("{out}/special_tokens_map.json"), "{}").unwrap();
    let (code, text) = fails(&["convert", &hub, &out]);
    assert!(code == 1 && text.contains("special_tokens_map.json") && text.contains("--overwrite"), "{text}");
    ok(&["convert", &hub, &out, "--overwrite"]);
    assert_eq!(dir.read("own/special_tokens_map.json"), b"{\"a\": 1}");
    assert_eq!(dir.read("own/special_tokens_map.json.old"), b"{}");
}

/// Writes files of an older model into a folder, under every kind of name that belongs to one, and files of the user's. Gives
/// the names of the former, without texts.
fn older_model(out: &str) -> Vec<&'static str> {
    const PARTS: [&str; 31] = [
        "config.json",
        "generation_config.json",
        "tokenizer.json",
        "tokenizer.model",
        "tokenizer.model.v3",
        "spiece.model",
        "sentencepiece.bpe.model",
        "tokenizer_config.json",
        "special_tokens_map.json",
        "added_tokens.json",
        "vocab.json",
        "vocab.txt",
        "merges.txt",
        "tekken.json",
        "qwen.tiktoken",
        "chat_template.jinja",
        "chat_template.json",
        "additional_chat_templates/rag.jinja",
        "preprocessor_config.json",
        "processor_config.json",
        "quantize_config.json",
        "params.json",
        "consolidated.00.pth",
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
        "extra-weights.safetensors",
        "model.safetensors.index.json",
        "model.fp16.safetensors",
        "pytorch_model-00001-of-00001.bin",
        "pytorch_model.bin.index.json",
        "tf_model.h5",
    ];
    fs::create_dir_all(format!("{out}/additional_chat_templates")).unwrap();
    PARTS.iter().for_each(|name| fs::write(format!("{out}/{name}"), "{}").unwrap());
    let index =
        r#"{"weight_map": {"a": "extra-weights.safetensors", "b": "model-00001-of-00002.safetensors"}}"#;
    fs::write(format!("{out}/model.safetensors.index.json"), index).unwrap();
    for name in ["notes.txt", "other.safetensors", "m.gguf", "training_args.bin", "README.md", "LICENSE"] {
        fs::write(format!("{out}/{name}"), "mine").unwrap();
    }
    PARTS.to_vec()
}

#[test]
fn nothing_of_an_older_model_is_left_that_is_read_with_the_new_one() {
    let dir = Dir::new();
    let hub = crate::common::first_layers(&dir, 1); // with a tokenizer.model and a README.md
    let whole = gguf(&dir); // becomes a tokenizer.json
    for (i, args) in [
        vec!["convert", &hub, "OUT"],
        vec!["convert", &whole, "OUT", "--type", "f16"],
        vec!["quantize", &hub, "OUT", "--type", "bf16"],
        vec!["quantize", &whole, "OUT", "--type", "f32", "--split-max-size", "200K"],
        vec!["merge", &hub, "OUT"],
        vec!["merge", &whole, "OUT"],
        vec!["split", &hub, "OUT", "--max-size", "1M"],
        vec!["edit", &hub, "OUT", "--set", "own.a=str:b"],
    ]
    .into_iter()
    .enumerate()
    {
        let (new, out) = (format!("{}/", dir.path(&format!("new-{i}"))), dir.path(&format!("out-{i}")));
        let line = |out: &str| -> Vec<String> {
            args.iter().map(|a| if *a == "OUT" { out.to_string() } else { a.to_string() }).collect()
        };
        ok(&crate::common::refs(&line(&new)));
        let old = older_model(&out);
        let mut line = line(&out);
        line.push("--overwrite".into());
        line.push("--dry-run".into());
        let plain = args[0] == "convert" || args[0] == "quantize";
        let before = names(&out);
        if plain {
            ok(&crate::common::refs(&line));
            assert_eq!(names(&out), before, "a dry run changes nothing");
        }
        line.pop();
        let text = ok(&crate::common::refs(&line));
        // What a fresh folder has, byte for byte, and what is the user's.
        let (written, mut wanted) = (names(&new), names(&new));
        let mut mine = vec!["notes.txt", "other.safetensors", "m.gguf", "training_args.bin"];
        mine.extend(["README.md.old", "LICENSE.old"]);
        wanted.extend(mine.iter().map(|name| name.to_string()));
        wanted.sort();
        assert_eq!(names(&out), wanted, "{args:?}: {text}");
        for name in &written {
            assert!(
                fs::read(format!("{out}/{name}")).unwrap() == fs::read(format!("{new}/{name}")).unwrap(),
                "{name}"
            );
        }
        mine.iter()
            .for_each(|name| assert_eq!(fs::read(format!("{out}/{name}")).unwrap(), b"mine", "{name}"));
        // Each is named, but for weights, of which there may be many.
        let is_weights =
            |name: &str| name.contains("model-0") || name.contains("weights") || name.contains("index");
        for name in old.iter().filter(|n| !written.iter().any(|w| w == *n) && !is_weights(n)) {
            let name = name.rsplit('/').next().unwrap();
            let weights = ["model.fp16.safetensors", "consolidated.00.pth", "tf_model.h5"];
            assert!(weights.contains(&name) || text.contains(name), "{args:?} {name}: {text}");
        }
        assert!(text.contains("README.md is kept as") && text.contains("README.md.old"), "{text}");
        ok(&["inspect", &out]);
    }
}

#[test]
fn a_copy_of_a_checkpoint_in_other_files_is_a_checkpoint() {
    let dir = Dir::new();
    let hub = crate::common::first_layers(&dir, 1);
    fs::write(format!("{hub}/preprocessor_config.json"), "{}").unwrap();
    let (parts, whole) = (dir.path("parts/"), dir.path("whole/"));
    ok(&["split", &hub, &parts, "--max-size", "1M"]);
    ok(&["merge", &parts, &whole]);
    assert_eq!(names(&whole), names(&hub));
    for name in names(&hub).iter().filter(|n| *n != "model.safetensors") {
        assert!(
            fs::read(format!("{hub}/{name}")).unwrap() == fs::read(format!("{whole}/{name}")).unwrap(),
            "{name}"
        );
    }
    for made in [&parts, &whole] {
        ok(&["verify", made, "--against", &hub]);
    }
}

#[test]
fn texts_for_people_are_kept() {
    let dir = Dir::new();
    let hub = checkpoint(&dir, "hub", &config("LlamaForCausalLM"), &tensors(&[]));
    fs::write(format!("{hub}/README.md"), "of the model").unwrap();
    let out = dir.path("out");
    fs::create_dir(&out).unwrap();
    fs::write(format!("{out}/README.md"), "mine").unwrap();
    // Also where there is no checkpoint yet, and once more without a loss.
    let text = convert(&hub, &out);
    assert!(text.contains("README.md is kept as"), "{text}");
    fs::write(format!("{out}/README.md"), "mine again").unwrap();
    ok(&["convert", &hub, &out, "--overwrite"]);
    let read = |name: &str| fs::read_to_string(format!("{out}/{name}")).unwrap();
    assert_eq!(
        [read("README.md"), read("README.md.old"), read("README.md.old-1")],
        ["of the model", "mine", "mine again"]
    );
    // The same text is no other.
    let text = ok(&["convert", &hub, &out, "--overwrite"]);
    assert!(!text.contains("is kept as") && names(&out).len() == 5, "{text}: {:?}", names(&out));
}

#[test]
fn settings_that_an_ended_run_has_left_are_named() {
    let dir = Dir::new();
    let hub = checkpoint(&dir, "hub", &config("LlamaForCausalLM"), &tensors(&[]));
    let out = in_shards(&dir, "m", "60K");
    fs::rename(format!("{out}/config.json"), format!("{out}/config.json.old")).unwrap();
    for _ in 0..2 {
        let text = ok(&["convert", &hub, &out, "--overwrite"]);
        assert!(text.contains("config.json.old stays") && text.contains("remove it"), "{text}");
    }
    assert!(names(&out).contains(&"config.json.old".to_string()));
    fs::remove_file(format!("{out}/config.json.old")).unwrap();
    let text = ok(&["convert", &hub, &out, "--overwrite"]);
    assert!(!text.contains("config.json.old"), "{text}");
}

/// What looks like a part of a checkpoint is its owner's where there is none, and so is whatever a link leads to.
#[test]
fn what_is_somebodys_own_is_not_removed() {
    let dir = Dir::new();
    let hub = checkpoint(&dir, "hub", &config("LlamaForCausalLM"), &tensors(&[]));
    // A folder without a checkpoint.
    let own = dir.path("own");
    fs::create_dir_all(format!("{own}/additional_chat_templates")).unwrap();
    let files = ["params.json", "vocab.txt", "additional_chat_templates/mine.jinja"];
    files.iter().for_each(|name| fs::write(format!("{own}/{name}"), "mine").unwrap());
    let line = ["convert", &hub, &own];
    let why = fails(&line).1;
    assert!(why.contains("NAME.old") && why.contains("--overwrite"), "{why}");
    let text = ok(&[&line[..], &["--overwrite"]].concat());
    for name in ["params.json.old", "vocab.txt.old", "additional_chat_templates.old/mine.jinja"] {
        assert_eq!(fs::read_to_string(format!("{own}/{name}")).unwrap(), "mine");
        assert!(text.contains(name.split('/').next().unwrap()), "{text}");
    }
    // Weights under names that nothing looks for, beside a checkpoint.
    let kept = ["model.mine.safetensors", "pytorch_model_backup.bin", "consolidated-old.safetensors"];
    kept.iter().for_each(|name| fs::write(format!("{own}/{name}"), "mine").unwrap());
    for name in ["model.fp16.safetensors", "consolidated.00.pth"] {
        fs::write(format!("{own}/{name}"), "old").unwrap();
    }
    fs::create_dir(format!("{own}/additional_chat_templates")).unwrap();
    for name in ["rag.jinja", "notes.txt"] {
        fs::write(format!("{own}/additional_chat_templates/{name}"), "old").unwrap();
    }
    let text = ok(&[&line[..], &["--overwrite"]].concat());
    kept.iter().for_each(|name| assert_eq!(fs::read_to_string(format!("{own}/{name}")).unwrap(), "mine"));
    let note = text.lines().find(|l| l.contains("what is left of the older model")).unwrap();
    assert!(
        note.contains(&format!("in {own}, ")) && note.contains("additional_chat_templates/rag.jinja"),
        "{note}"
    );
    assert!(note.contains("model.fp16.safetensors") && note.contains("consolidated.00.pth"), "{note}");
    assert!(
        !note.contains("additional_chat_templates,") && !note.contains("additional_chat_templates ("),
        "{note}"
    );
    assert!(!Path::new(&format!("{own}/consolidated.00.pth")).exists());
    assert!(Path::new(&format!("{own}/additional_chat_templates/notes.txt")).exists());
}

#[test]
#[cfg(unix)]
fn only_a_link_to_templates_is_removed() {
    let dir = Dir::new();
    let hub = checkpoint(&dir, "hub", &config("LlamaForCausalLM"), &tensors(&[]));
    let out = dir.path("out");
    ok(&["convert", &hub, &format!("{out}/")]);
    fs::create_dir(dir.path("shared")).unwrap();
    fs::write(dir.path("shared/rag.jinja"), "theirs").unwrap();
    std::os::unix::fs::symlink("../shared", format!("{out}/additional_chat_templates")).unwrap();
    ok(&["convert", &hub, &out, "--overwrite"]);
    assert!(Path::new(&format!("{out}/additional_chat_templates")).symlink_metadata().is_err());
    assert_eq!(fs::read_to_string(dir.path("shared/rag.jinja")).unwrap(), "theirs");
}

#[test]
fn a_model_of_another_form_takes_no_place_of_a_checkpoint_s_file() {
    let dir = Dir::new();
    let hub = checkpoint(&dir, "hub", &config("LlamaForCausalLM"), &tensors(&[]));
    let old = gguf(&dir);
    fs::write(format!("{hub}/tokenizer.model"), fs::read(demo("model/tokenizer.model")).unwrap()).unwrap();
    let named = [
        (format!("{hub}/model.safetensors"), "a file of a checkpoint's weights"),
        (format!("{hub}/config.json"), "the settings of a checkpoint"),
        (format!("{hub}/tokenizer.model"), "a file of a checkpoint"),
    ];
    for (out, what) in &named {
        let before = fs::read(out).unwrap();
        let (code, why) = fails(&["convert", &old, out, "--format", "gguf"]);
        assert_eq!(code, 1, "{why}");
        assert!(why.contains(what) && why.contains("would replace it"), "{why}");
        assert_eq!(fs::read(out).unwrap(), before);
    }
    // A link is followed to what it names.
    #[cfg(unix)]
    {
        let link = dir.path("link.gguf");
        std::os::unix::fs::symlink(format!("{hub}/model.safetensors"), &link).unwrap();
        assert!(fails(&["convert", &old, &link]).1.contains("a file of a checkpoint's weights"));
    }
    // Weights that lie alone are somebody's earlier result.
    let alone = dir.path("model.safetensors");
    fs::write(&alone, "old").unwrap();
    ok(&["convert", &old, &alone, "--format", "gguf"]);
}
