//! The folders of Hugging Face checkpoints: which of their files are the model, and which say so.

use crate::common::{self, Dir, fails, json, ok};
use crate::hub::{checkpoint, config, tensors};

#[test]
fn shards_and_their_index_must_agree() {
    let dir = Dir::new();
    let all = tensors(&[]);
    let hub = checkpoint(&dir, "hub", &config("LlamaForCausalLM"), &all);
    let split = format!("{}/", dir.path("split"));
    ok(&["convert", &hub, &split, "--split-max-size", "30K"]);
    ok(&["verify", &split, "--against", &hub]);
    let index = dir.path("split/model.safetensors.index.json");
    let text = std::fs::read_to_string(&index).unwrap();
    let more = text
        .replace("\"weight_map\": {", "\"weight_map\": {\n\"ghost\": \"model-00001-of-00003.safetensors\",");
    let mut shards = std::fs::read_dir(&split).unwrap().map(|e| e.unwrap().path());
    let shard = shards.find(|p| p.to_str().unwrap().contains("-00002-of-")).unwrap();
    let name = shard.file_name().unwrap().to_str().unwrap().replace("00002", "00001");
    std::fs::write(&index, more.replace("model-00001-of-00003.safetensors", &name)).unwrap();
    let (_, text_of) = fails(&["convert", &split, &dir.path("out.gguf")]);
    assert!(text_of.contains("ghost"), "{text_of}");
    std::fs::write(&index, text).unwrap();
    std::fs::remove_file(&shard).unwrap();
    let (_, text) = fails(&["convert", &split, &dir.path("out.gguf")]);
    assert!(text.contains("-00002-of-"), "{text}");
}

#[test]
fn a_cache_and_a_byte_order_mark_are_known() {
    let dir = Dir::new();
    std::fs::create_dir_all(dir.path("models--org--name/snapshots")).unwrap();
    let (code, text) = fails(&["convert", &dir.path("models--org--name"), &dir.path("x.gguf")]);
    assert!(code == 1 && text.contains("snapshots/"), "{text}");
    let hub = checkpoint(&dir, "hub", &config("LlamaForCausalLM"), &tensors(&[]));
    let settings = std::fs::read_to_string(format!("{hub}/config.json")).unwrap();
    std::fs::write(format!("{hub}/config.json"), format!("\u{feff}{settings}")).unwrap();
    ok(&["convert", &hub, &dir.path("x.gguf")]);
}

#[test]
fn settings_alone_make_a_plan() {
    let dir = Dir::new();
    let hub = dir.path("hub");
    std::fs::create_dir(&hub).unwrap();
    std::fs::write(format!("{hub}/config.json"), config("LlamaForCausalLM").to_string()).unwrap();
    let plan = json(&["quantize", &hub, &dir.path("m.gguf"), "--type", "q8_0", "--dry-run", "--json"]);
    assert_eq!(plan["tensors"].as_array().unwrap().len(), tensors(&[]).len());
    let (code, text) = fails(&["quantize", &hub, &dir.path("m.gguf"), "--type", "q8_0"]);
    assert!(code == 1 && text.contains("no weights"), "{text}");
    assert_eq!(dir.names(), ["hub"]);
}

#[test]
fn settings_without_weights_are_no_model_to_check_or_to_rewrite() {
    let dir = Dir::new();
    let hub = dir.path("hub");
    std::fs::create_dir(&hub).unwrap();
    std::fs::write(format!("{hub}/config.json"), config("LlamaForCausalLM").to_string()).unwrap();
    let whole = checkpoint(&dir, "whole", &config("LlamaForCausalLM"), &tensors(&[]));
    let out = dir.path("out.gguf");
    for args in [
        &["verify", &hub][..],
        &["verify", &hub, "--against", &whole],
        &["verify", &whole, "--against", &hub],
        &["edit", &hub, &out, "--set", "general.name=x"],
        &["merge", &hub, &out],
    ] {
        let (code, text) = fails(args);
        assert!(code == 1 && text.contains("no weights"), "{args:?}: {text}");
    }
}

#[test]
fn what_makes_a_folder_a_checkpoint_appears_last() {
    let dir = Dir::new();
    let hub = checkpoint(&dir, "hub", &config("LlamaForCausalLM"), &tensors(&[]));
    std::fs::write(format!("{hub}/README.md"), "hello").unwrap();
    let out = format!("{}/", dir.path("out"));
    let plan = json(&["convert", &hub, &out, "--split-max-size", "30K", "--dry-run", "--json"]);
    let files = plan["files"].as_array().unwrap();
    assert!(files.len() > 4, "{plan}");
    assert_eq!(files.last().unwrap()["path"], format!("{out}config.json"));
}

#[test]
fn the_single_file_is_read_where_parts_lie_beside_it() {
    let dir = Dir::new();
    let all = tensors(&[]);
    let hub = checkpoint(&dir, "hub", &config("LlamaForCausalLM"), &all);
    let both = format!("{}/", dir.path("both"));
    ok(&["convert", &hub, &both, "--split-max-size", "30K", "--type", "f32"]);
    std::fs::copy(format!("{hub}/model.safetensors"), format!("{both}model.safetensors")).unwrap();
    let text = ok(&["convert", &both, &dir.path("m.gguf")]);
    assert!(text.contains("bf16 ") && text.contains("are not read"), "{text}");
    // And nothing makes such a folder: not beside settings, which are another model's, nor without them.
    let shards = format!("{both}model.safetensors");
    let (_, text) =
        fails(&["convert", &dir.path("m.gguf"), &shards, "--split-max-size", "30K", "--overwrite"]);
    assert!(text.contains("with config.json and the tokenizer that are there"), "{text}");
    std::fs::remove_file(format!("{both}config.json")).unwrap();
    let (_, text) = fails(&["convert", &dir.path("m.gguf"), &shards, "--split-max-size", "30K"]);
    assert!(text.contains("model.safetensors instead of the new shards"), "{text}");
}

#[test]
fn a_pointer_of_git_lfs_is_no_file() {
    let dir = Dir::new();
    let pointer = format!(
        "version https://git-lfs.github.com/spec/v1\noid sha256:{}\nsize 988097824\n",
        "4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393"
    );
    for file in ["model.safetensors", "tokenizer.model", "tokenizer.json", "config.json"] {
        let hub = checkpoint(&dir, &format!("{file}-hub"), &config("LlamaForCausalLM"), &tensors(&[]));
        std::fs::write(format!("{hub}/{file}"), &pointer).unwrap();
        let (_, text) = fails(&["convert", &hub, &dir.path("out.gguf")]);
        assert!(text.contains(&format!("{file}: is a Git LFS pointer")), "{text}");
    }
}

#[test]
fn a_file_named_without_its_folder_gives_the_same() {
    let dir = Dir::new();
    let hub = checkpoint(&dir, "My-Model-7B", &config("LlamaForCausalLM"), &tensors(&[]));
    ok(&["convert", &hub, &dir.path("a.gguf")]);
    for (name, input) in [("b.gguf", "model.safetensors"), ("c.gguf", "."), ("d.gguf", "./")] {
        let run = common::program().args(["convert", input, &dir.path(name)]).current_dir(&hub).output();
        assert!(run.unwrap().status.success());
        assert!(dir.read(name) == dir.read("a.gguf"), "{input}");
    }
}
