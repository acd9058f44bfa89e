//! Which files of a folder are the model: whole sets and incomplete ones, several models, files of other kinds and formats, and
//! what is said where there are no weights.

use std::path::Path;

use crate::common::{Dir, fails, ok};
use crate::hub::{Tensor, checkpoint, config, tensors, write};
use crate::pytorch::saved;

/// The tensors of a checkpoint, and its GGUF.
fn whole(dir: &Dir) -> (Vec<Tensor>, Vec<u8>) {
    let all = tensors(&[]);
    let folder = checkpoint(dir, "whole", &config("LlamaForCausalLM"), &all);
    ok(&["convert", &folder, &dir.path("whole.gguf"), "--set", "general.name=x"]);
    (all, dir.read("whole.gguf"))
}

/// A folder with the settings and these files.
fn folder(dir: &Dir, name: &str, files: &[(&str, Vec<u8>)]) -> String {
    let path = checkpoint(dir, name, &config("LlamaForCausalLM"), &[]);
    std::fs::remove_file(format!("{path}/model.safetensors")).unwrap();
    for (file, bytes) in files {
        let file = Path::new(&path).join(file);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(file, bytes).unwrap();
    }
    path
}

/// A safetensors file of these tensors.
fn safe(tensors: &[Tensor]) -> Vec<u8> {
    let dir = Dir::new();
    write(Path::new(&dir.path("x")), tensors);
    dir.read("x")
}

/// An index that names a file for each range of tensors.
fn index(parts: &[(&str, &[Tensor])]) -> Vec<u8> {
    let names = parts.iter().flat_map(|(file, all)| all.iter().map(move |t| (t.0.clone(), (*file).into())));
    let map: serde_json::Map<String, serde_json::Value> = names.collect();
    serde_json::json!({"weight_map": map}).to_string().into_bytes()
}

/// Converts a model to the bytes of a GGUF, and what was said.
fn convert(dir: &Dir, model: &str) -> (Vec<u8>, String) {
    let text = ok(&["convert", model, &dir.path("out.gguf"), "--set", "general.name=x"]);
    (dir.read("out.gguf"), text)
}

#[test]
fn a_set_that_is_not_whole_gives_way_to_one_that_is() {
    let dir = Dir::new();
    let (all, plain) = whole(&dir);
    let (a, b) = all.split_at(7);
    let cut = safe(&all)[..2000].to_vec();
    let pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 98\n".to_vec();
    let halves = [("model-00001-of-00002.safetensors", a), ("model-00002-of-00002.safetensors", b)];
    let of_torch = [("pytorch_model-00001-of-00002.bin", a), ("pytorch_model-00002-of-00002.bin", b)];
    let torch = || of_torch.map(|(name, part)| (name, saved(part, "little"))).to_vec();
    let whole_parts = || halves.map(|(name, part)| (name, safe(part))).to_vec();
    let half = ("model-00002-of-00002.safetensors", safe(b));
    for (i, (mut files, lacks, reads)) in [
        (torch(), vec![half.clone()], "part 1 of 2 of the model is missing"),
        (
            torch(),
            vec![half, ("model.safetensors.index.json", index(&halves))],
            "part 1 of 2 of the model is missing",
        ),
        (torch(), vec![("model.safetensors", pointer)], "is a Git LFS pointer"),
        (whole_parts(), vec![("model.safetensors", cut.clone())], "truncated download?"),
        (
            whole_parts(),
            vec![("model.safetensors.index.json", b"{\"weight_map\": {".to_vec())],
            "index.json: malformed",
        ),
        (
            whole_parts(),
            vec![("model.safetensors.index.json", index(&[("model-00001-of-00003.safetensors", a)]))],
            "model-00001-of-00003.safetensors",
        ),
        (torch(), vec![("model.safetensors", Vec::new())], "but the file has 0 bytes"),
    ]
    .into_iter()
    .enumerate()
    {
        files.extend(lacks);
        let path = folder(&dir, &format!("hub{i}"), &files);
        let (made, text) = convert(&dir, &path);
        let from = format!("so the weights are read from {} and 1 more", files[0].0);
        assert!(text.contains(reads) && text.contains(&from), "{i}: {text}");
        assert!(made == plain, "{i}");
    }
    // Another name may be another model.
    let path = folder(&dir, "other", &[("model.safetensors", cut), ("mine.safetensors", safe(&all))]);
    let (_, text) = fails(&["convert", &path, &dir.path("x.gguf")]);
    assert!(
        text.contains("other/model.safetensors: the header ends") && text.contains("is not complete"),
        "{text}"
    );
    // An index that is wrong says what can be done, and that works.
    let mut files = whole_parts();
    files
        .push(("model.safetensors.index.json", index(&[halves[0], ("model-00002-of-00002.safetensors", a)])));
    let path = folder(&dir, "wrong", &files);
    let (_, text) = fails(&["convert", &path, &dir.path("x.gguf")]);
    assert!(text.contains("move it elsewhere and name the folder"), "{text}");
    std::fs::remove_file(format!("{path}/model.safetensors.index.json")).unwrap();
    assert!(convert(&dir, &path).0 == plain);
}

#[test]
fn of_several_models_one_must_be_named() {
    let dir = Dir::new();
    let (all, plain) = whole(&dir);
    let path = folder(
        &dir,
        "steps",
        &[
            ("best.safetensors", safe(&all)),
            ("last.safetensors", safe(&all)),
            ("swa.safetensors", safe(&all)),
        ],
    );
    let (code, text) = fails(&["convert", &path, &dir.path("x.gguf")]);
    assert!(code == 1 && text.contains("best.safetensors, last.safetensors and swa.safetensors"), "{text}");
    let named = format!("{path}/swa.safetensors");
    assert!(text.contains(&format!("or {named}")), "{text}");
    assert!(convert(&dir, &named).0 == plain);
    let (a, b) = all.split_at(5);
    let set = |stem: &str| {
        let name = |no| format!("{stem}-0000{no}-of-00002.safetensors");
        [(name(1), safe(a)), (name(2), safe(b))]
    };
    let files: Vec<(String, Vec<u8>)> = [set("a"), set("b")].concat();
    let files: Vec<(&str, Vec<u8>)> =
        files.iter().map(|(name, bytes)| (name.as_str(), bytes.clone())).collect();
    let path = folder(&dir, "sets", &files);
    let (_, text) = fails(&["convert", &path, &dir.path("x.gguf")]);
    let named = format!("{path}/a-00001-of-00002.safetensors");
    assert!(text.contains("two models") && text.contains(&named), "{text}");
    assert!(convert(&dir, &named).0 == plain);
    #[cfg(unix)]
    {
        let path = folder(&dir, "link", &[("mine.safetensors", safe(&all))]);
        std::os::unix::fs::symlink("mine.safetensors", format!("{path}/latest.safetensors")).unwrap();
        assert!(convert(&dir, &path).0 == plain);
    }
}

#[test]
fn contents_decide_whatever_the_names_say() {
    let dir = Dir::new();
    let (all, plain) = whole(&dir);
    let (a, b) = all.split_at(9);
    for (i, files) in [
        vec![("model.safetensors", saved(&all, "little"))],
        vec![("pytorch_model.bin", safe(&all))],
        vec![("MODEL.SafeTensors", safe(&all))],
        vec![("PyTorch_Model.BIN", saved(&all, "little"))],
        vec![("Model-00001-of-00002.safetensors", safe(a)), ("Model-00002-of-00002.SAFETENSORS", safe(b))],
        vec![
            ("model-00001-of-00002 (1).safetensors", safe(a)),
            ("model-00002-of-00002.safetensors", safe(b)),
        ],
    ]
    .into_iter()
    .enumerate()
    {
        let path = folder(&dir, &format!("hub{i}"), &files);
        let (made, text) = convert(&dir, &path);
        assert!(made == plain, "{i}: {text}");
        assert_eq!(text.contains("by its content, whatever its name"), i < 2, "{i}: {text}");
    }
    for (i, name) in ["model.safetensors", "pytorch_model.bin", "weights"].into_iter().enumerate() {
        let path = folder(&dir, &format!("gguf{i}"), &[(name, plain.clone())]);
        let (_, text) = fails(&["convert", &path, &dir.path("x.gguf")]);
        let named = format!("{path}/{name}");
        assert!(text.contains(&named) && text.contains("GGUF") && text.contains("itself"), "{text}");
        ok(&["convert", &named, &dir.path("out.gguf")]);
    }
    let path = folder(&dir, "text", &[("model.safetensors", b"Access to this model is restricted".to_vec())]);
    let (_, text) = fails(&["convert", &path, &dir.path("x.gguf")]);
    assert!(text.contains("but text: \"Access to this model"), "{text}");
    let old = b"\x80\x02\x8a\x0al\xfc\x9c\x46\xf9 \x6a\xa8\x50\x19\x2e\x80\x02".to_vec();
    for name in ["pytorch_model.bin", "model.safetensors"] {
        let path = folder(&dir, &format!("old-{name}"), &[(name, old.clone())]);
        let (_, text) = fails(&["convert", &path, &dir.path("x.gguf")]);
        assert!(text.contains("an older format") && text.contains("which is not read"), "{text}");
        assert!(text.contains("torch.load") && !text.contains("not a model"), "{text}");
    }
}

#[test]
fn what_is_known_to_be_no_part_of_the_model_is_left_out() {
    let dir = Dir::new();
    let (all, plain) = whole(&dir);
    let tensor = |name: &str| -> Tensor { (name.into(), "BF16", vec![4], vec![0; 8]) };
    for (i, (file, beside)) in [
        ("optim.safetensors", vec![tensor("0.exp_avg"), tensor("0.exp_avg_sq")]),
        ("clip.safetensors", vec![tensor("vision_tower.vision_model.encoder.layers.0.mlp.fc1.weight")]),
        ("projector.safetensors", vec![tensor("multi_modal_projector.linear_1.weight")]),
        ("bone.safetensors", vec![tensor("base_model.model.model.layers.0.mlp.up_proj.bone_block")]),
        ("z-00001-of-00002.safetensors", all[..3].to_vec()),
    ]
    .into_iter()
    .enumerate()
    {
        let path =
            folder(&dir, &format!("hub{i}"), &[("mine.safetensors", safe(&all)), (file, safe(&beside))]);
        let (made, text) = convert(&dir, &path);
        assert!(text.contains(&format!("{file} is not read: the weights are in mine.safetensors")), "{text}");
        assert!(made == plain, "{file}");
    }
    let files = [("mine.safetensors", safe(&all)), ("more.safetensors", safe(&[tensor("what.is.this")]))];
    let path = folder(&dir, "unknown", &files);
    let (_, text) = fails(&["convert", &path, &dir.path("x.gguf")]);
    let own = format!("{path}/mine.safetensors");
    assert!(text.contains("more.safetensors: none of its tensors") && text.contains(&own), "{text}");
    assert!(convert(&dir, &own).0 == plain);
    // Beside parts of which some are missing, those are what is missed.
    let adapter = safe(&[tensor("model.layers.0.mlp.up_proj.lora_A.weight")]);
    let half = ("model-00001-of-00002.safetensors", safe(&all[..3]));
    let path = folder(&dir, "half", &[half, ("adapter_model.safetensors", adapter)]);
    let (_, text) = fails(&["convert", &path, &dir.path("x.gguf")]);
    assert!(text.contains("part 2 of 2 of the model is missing"), "{text}");
}

#[test]
fn where_weights_are_elsewhere_the_way_to_them_works() {
    let dir = Dir::new();
    let (all, _) = whole(&dir);
    let settings = config("LlamaForCausalLM").to_string().into_bytes();
    for (i, (files, named)) in [
        (vec![("weights", safe(&all))], "weights"),
        (vec![("model.safetensors.bak2", safe(&all))], "model.safetensors.bak2"),
        (vec![("state.pt", saved(&all, "little"))], "state.pt"),
        (
            vec![
                ("checkpoint-9/model.safetensors", safe(&all[..2])),
                ("checkpoint-9/config.json", settings.clone()),
                ("checkpoint-20/model.safetensors", safe(&all)),
                ("checkpoint-20/config.json", settings.clone()),
            ],
            "checkpoint-20",
        ),
        (
            vec![
                ("snapshots/4f/model.safetensors", safe(&all)),
                ("snapshots/4f/config.json", settings.clone()),
            ],
            "snapshots/4f",
        ),
    ]
    .into_iter()
    .enumerate()
    {
        let path = folder(&dir, &format!("hub{i}"), &files);
        for config in [true, false] {
            let settings_of_parent = format!("{path}/config.json");
            if !config {
                std::fs::remove_file(&settings_of_parent).unwrap();
            }
            let (code, text) = fails(&["convert", &path, &dir.path("x.gguf")]);
            let named = format!("{path}/{named}");
            assert!(code == 1 && text.contains(&named), "{text}");
            if config || Path::new(&named).is_dir() {
                ok(&["convert", &named, &dir.path("named.gguf")]);
                ok(&["verify", &dir.path("named.gguf"), "--against", &dir.path("whole")]);
                std::fs::remove_file(dir.path("named.gguf")).unwrap();
            }
        }
    }
}

#[test]
fn weights_that_were_saved_while_they_were_spread_are_known() {
    let dir = Dir::new();
    let mut empty = tensors(&[]);
    for tensor in &mut empty {
        (tensor.2, tensor.3) = (vec![0], Vec::new());
    }
    let path = folder(&dir, "zero3", &[("model.safetensors", safe(&empty))]);
    let (_, text) = fails(&["convert", &path, &dir.path("x.gguf")]);
    assert!(text.contains("DeepSpeed's ZeRO-3") && text.contains("zero_to_fp32.py"), "{text}");
    let flat: Tensor = ("_fsdp_wrapped_module._flat_param".into(), "BF16", vec![4], vec![0; 8]);
    let path = folder(&dir, "flat", &[("model.safetensors", safe(&[flat]))]);
    let (_, text) = fails(&["convert", &path, &dir.path("x.gguf")]);
    assert!(text.contains("FSDP") && text.contains("FULL_STATE_DICT"), "{text}");
}
