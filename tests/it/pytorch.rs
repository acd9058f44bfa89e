//! Checkpoints of torch.save: `pytorch_model.bin`, whole, in parts, and what is none.

use crate::common::{Dir, fails, json, ok};
use crate::hub::{Tensor, checkpoint, config, tensors};
use serde_json::json as of;

fn text(text: &str) -> Vec<u8> {
    [b"X", &(text.len() as u32).to_le_bytes()[..], text.as_bytes()].concat()
}

type Members = Vec<(String, Vec<u8>)>;

/// The pickle of a dictionary of these tensors, whose numbers become members of the archive.
fn dictionary(tensors: &[Tensor], members: &mut Members) -> Vec<u8> {
    let int = |n: usize| [b"J", &(n as u32).to_le_bytes()[..]].concat();
    let tuple =
        |n: &[usize]| [b"(".to_vec(), n.iter().flat_map(|&n| int(n)).collect(), b"t".to_vec()].concat();
    let mut pickle = b"ccollections\nOrderedDict\n)R(".to_vec();
    for (name, dtype, shape, bytes) in tensors {
        let key = members.len().to_string();
        let class = if *dtype == "BF16" { "BFloat16" } else { "Float" };
        let n: usize = shape.iter().product();
        let mut strides = vec![1; shape.len()];
        (1..shape.len()).rev().for_each(|d| strides[d - 1] = strides[d] * shape[d]);
        let parts: [&[u8]; 10] = [
            &text(name),
            b"ctorch._utils\n_rebuild_tensor_v2\n((",
            &text("storage"),
            &format!("ctorch\n{class}Storage\n").into_bytes(),
            &[text(&key), text("cpu"), int(n)].concat(),
            b"tQ",
            &int(0),
            &tuple(shape),
            &tuple(&strides),
            b"\x89NtR",
        ];
        pickle.extend(parts.concat());
        members.push((format!("m/data/{key}"), bytes.clone()));
    }
    pickle.extend(b"u");
    pickle
}

/// An archive as torch.save writes it: a dictionary of these tensors.
pub fn saved(tensors: &[Tensor], order: &str) -> Vec<u8> {
    let mut members = vec![("m/byteorder".to_string(), order.as_bytes().to_vec())];
    let pickle = [b"\x80\x02", &dictionary(tensors, &mut members)[..], b"."].concat();
    members.insert(0, ("m/data.pkl".into(), pickle));
    archive(&members)
}

/// The same of dictionaries in others: each with the keys that lead to it, separated by dots.
fn nested(parts: &[(&str, &[Tensor])]) -> Vec<u8> {
    let mut members = vec![("m/byteorder".to_string(), b"little".to_vec())];
    let mut pickle = b"\x80\x02}".to_vec();
    for (keys, tensors) in parts {
        let mut value = dictionary(tensors, &mut members);
        let keys: Vec<&str> = keys.split('.').collect();
        for key in keys[1..].iter().rev() {
            value = [b"}".to_vec(), text(key), value, b"s".to_vec()].concat();
        }
        pickle.extend([text(keys[0]), value, b"s".to_vec()].concat());
    }
    pickle.extend(b".");
    members.insert(0, ("m/data.pkl".into(), pickle));
    archive(&members)
}

#[test]
fn the_one_dictionary_of_tensors_is_found_wherever_it_is() {
    let dir = Dir::new();
    let (all, plain, folder) = twins(&dir);
    let file = format!("{folder}/pytorch_model.bin");
    let adam: Vec<Tensor> =
        ["exp_avg", "exp_avg_sq"].map(|name| (name.into(), "F32", vec![4], vec![0; 16])).into();
    let steps: Vec<Tensor> = vec![("steps".into(), "F32", vec![], vec![0; 4])];
    for (parts, note) in [
        (&[("weights", &all[..])][..], "under \"weights\""),
        (&[("model.decoder.net", &all[..])], "under [\"model\"][\"decoder\"][\"net\"]"),
        (&[("ema_model", &all[..]), ("optimizer.state.0", &adam)], "under \"ema_model\""),
        (&[("generator.params", &all[..]), ("opt.0", &adam)], "under [\"generator\"][\"params\"]"),
        (&[("count", &steps[..]), ("learner", &all)], "under \"learner\""),
        (&[("best", &all[..1]), ("state_dict", &all)], "under \"state_dict\""),
    ] {
        std::fs::write(&file, nested(parts)).unwrap();
        let text = ok(&["convert", &folder, &dir.path("out.gguf"), "--set", "general.name=x"]);
        assert!(text.contains(note), "{text}");
        assert!(dir.read("out.gguf") == plain, "{note}");
    }
    std::fs::write(&file, nested(&[("net", &all), ("ema", &all[..2])])).unwrap();
    let (code, text) = fails(&["convert", &folder, &dir.path("none.gguf")]);
    assert!(
        code == 1 && text.contains("[\"net\"], [\"ema\"]") && text.contains("torch.load(FILE)[\"net\"]"),
        "{text}"
    );
    std::fs::write(&file, nested(&[("optimizer.state.0", &adam)])).unwrap();
    let (_, text) = fails(&["convert", &folder, &dir.path("none.gguf")]);
    assert!(text.contains("expected a state dict"), "{text}");
}

/// A zip archive of stored members.
fn archive(members: &[(String, Vec<u8>)]) -> Vec<u8> {
    let (mut file, mut directory) = (Vec::new(), Vec::new());
    for (name, data) in members {
        let at = (file.len() as u32).to_le_bytes();
        let (len, name_len) = ((data.len() as u32).to_le_bytes(), (name.len() as u16).to_le_bytes());
        let about: [&[u8]; 5] = [&[0; 14], &len, &len, &name_len, &[0; 2]];
        file.extend([&b"PK\x03\x04"[..], &about.concat(), name.as_bytes(), data].concat());
        let entry: [&[u8]; 6] = [b"PK\x01\x02\0\0", &about.concat(), &[0; 10], &at, name.as_bytes(), &[]];
        directory.extend(entry.concat());
    }
    let (at, size) = ((file.len() as u32).to_le_bytes(), (directory.len() as u32).to_le_bytes());
    file.extend([&directory[..], b"PK\x05\x06", &[0; 8], &size, &at, &[0; 2]].concat());
    file
}

/// A checkpoint of safetensors and its GGUF, and a folder that has the settings alone.
fn twins(dir: &Dir) -> (Vec<Tensor>, Vec<u8>, String) {
    let all = tensors(&[]);
    let safe = checkpoint(dir, "safe", &config("LlamaForCausalLM"), &all);
    ok(&["convert", &safe, &dir.path("safe.gguf"), "--set", "general.name=x"]);
    let folder = checkpoint(dir, "torch", &config("LlamaForCausalLM"), &[]);
    std::fs::remove_file(format!("{folder}/model.safetensors")).unwrap();
    (all, dir.read("safe.gguf"), folder)
}

/// The GGUF of a model.
fn gguf(dir: &Dir, model: &str, more: &[&str]) -> Vec<u8> {
    let out = dir.path("out.gguf");
    ok(&[&["convert", model, &out, "--set", "general.name=x"], more].concat());
    dir.read("out.gguf")
}

fn index(folder: &str, parts: &[(&str, &[Tensor])]) {
    let names = parts.iter().flat_map(|(file, all)| all.iter().map(move |t| (t.0.clone(), of!(file))));
    let map: serde_json::Map<_, _> = names.collect();
    let json = of!({"metadata": {"total_size": 0}, "weight_map": map});
    std::fs::write(format!("{folder}/pytorch_model.bin.index.json"), json.to_string()).unwrap();
}

#[test]
fn a_checkpoint_of_torch_gives_the_same_file() {
    let dir = Dir::new();
    let (all, expected, folder) = twins(&dir);
    std::fs::write(format!("{folder}/training_args.bin"), saved(&[], "little")).unwrap();
    let bin = format!("{folder}/pytorch_model.bin");
    std::fs::write(&bin, saved(&all, "little")).unwrap();
    assert!(gguf(&dir, &folder, &[]) == expected);
    assert!(gguf(&dir, &folder, &["--no-mmap"]) == expected);
    assert!(gguf(&dir, &bin, &[]) == expected);
    assert_eq!(json(&["inspect", "--json", &folder])["format"], "PyTorch");
    ok(&["quantize", &folder, &dir.path("x.gguf"), "--type", "q8_0", "--dry-run"]);
    // Another name is read where it is named.
    std::fs::rename(&bin, format!("{folder}/mine.pt")).unwrap();
    assert!(gguf(&dir, &format!("{folder}/mine.pt"), &[]) == expected);
    let (_, text) = fails(&["convert", &folder, &dir.path("x.gguf")]);
    assert!(text.contains("mine.pt"), "{text}");
    // Numbers of the other byte order.
    let swapped = |t: &Tensor| {
        let bytes = t.3.chunks_exact(2).flat_map(|b| [b[1], b[0]]).collect();
        (t.0.clone(), t.1, t.2.clone(), bytes)
    };
    std::fs::write(&bin, saved(&all.iter().map(swapped).collect::<Vec<_>>(), "big")).unwrap();
    assert!(gguf(&dir, &folder, &["--endian", "little"]) == expected);
    // Without settings its tensors are copied under their own names.
    std::fs::write(dir.path("w.pt"), saved(&[("w".into(), "F32", vec![2, 2], vec![0; 16])], "little"))
        .unwrap();
    ok(&["convert", &dir.path("w.pt"), &dir.path("w.safetensors")]);
    assert_eq!(json(&["inspect", "--json", &dir.path("w.safetensors")])["tensors"][0]["name"], "w");
}

#[test]
fn parts_of_a_checkpoint_of_torch_are_read_together() {
    let dir = Dir::new();
    let (all, expected, folder) = twins(&dir);
    let (first, second) = all.split_at(5);
    let names = ["pytorch_model-00001-of-00002.bin", "pytorch_model-00002-of-00002.bin"];
    for (name, part) in names.iter().zip([first, second]) {
        std::fs::write(format!("{folder}/{name}"), saved(part, "little")).unwrap();
    }
    assert!(gguf(&dir, &folder, &[]) == expected);
    assert!(gguf(&dir, &format!("{folder}/{}", names[1]), &[]) == expected);
    index(&folder, &[(names[0], first), (names[1], second)]);
    assert!(gguf(&dir, &folder, &[]) == expected);
    assert!(gguf(&dir, &format!("{folder}/{}", names[0]), &[]) == expected);
    assert!(gguf(&dir, &format!("{folder}/pytorch_model.bin.index.json"), &["--no-mmap"]) == expected);
    // An index that names a tensor elsewhere, and a part that is missing.
    index(&folder, &[(names[1], first), (names[0], second)]);
    let (_, text) = fails(&["convert", &folder, &dir.path("x.gguf")]);
    assert!(text.contains("pytorch_model.bin.index.json it is in"), "{text}");
    std::fs::remove_file(format!("{folder}/pytorch_model.bin.index.json")).unwrap();
    std::fs::remove_file(format!("{folder}/{}", names[0])).unwrap();
    for model in [folder.clone(), format!("{folder}/{}", names[1])] {
        let (code, text) = fails(&["convert", &model, &dir.path("x.gguf")]);
        assert!(code == 1 && text.contains(names[0]), "{text}");
    }
    // Safetensors are preferred.
    std::fs::copy(dir.path("safe/model.safetensors"), format!("{folder}/model.safetensors")).unwrap();
    assert!(gguf(&dir, &folder, &[]) == expected);
}

#[test]
fn what_torch_saved_besides_weights_is_refused_with_a_way_out() {
    let dir = Dir::new();
    let (all, _, folder) = twins(&dir);
    let bin = format!("{folder}/pytorch_model.bin");
    let refused = |bytes: &[u8], says: &str| {
        std::fs::write(&bin, bytes).unwrap();
        let (code, text) = fails(&["convert", &folder, &dir.path("x.gguf")]);
        assert!(code == 1 && text.contains("pytorch_model.bin") && text.contains(says), "{says}: {text}");
    };
    refused(&saved(&[], "little"), "an empty dictionary");
    refused(&saved(&[], "little"), "save_pretrained");
    let hostile = b"\x80\x02cposix\nsystem\nX\x04\0\0\0true\x85R.".to_vec();
    refused(&archive(&[("m/data.pkl".into(), hostile)]), "posix.system would make, which is not executed");
    refused(&archive(&[("m/other".into(), vec![])]), "no PyTorch checkpoint");
    let whole = saved(&all, "little");
    refused(&whole[..whole.len() / 2], "truncated download");
    // Before version 1.6 there was no archive.
    refused(
        b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.\x80\x02}q\x00(X\x10\x00\x00\x00",
        "1.6",
    );
}
