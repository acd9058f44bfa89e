//! Files that belong to a model, given in its place: each is named, with what to give instead. And parts that are missing.

use formats::metadata::{Metadata, Value};

use crate::common::{Dir, demo, fails, gguf, ok, run, write_gguf};

/// The commands that take a model, on a file.
fn commands<'a>(file: &'a str, text: &'a str, out: &'a str) -> Vec<Vec<&'a str>> {
    vec![
        vec!["inspect", file],
        vec!["convert", file, out],
        vec!["quantize", file, out, "--type", "q8_0"],
        vec!["run", file, "--prompt", "Hello"],
        vec!["eval", file, text],
    ]
}

#[test]
fn files_beside_a_model_are_no_models() {
    let dir = Dir::new();
    let model = gguf(&dir);
    let (text, out) = (dir.path("t.txt"), dir.path("out.gguf"));
    std::fs::write(&text, "Once upon a time. ".repeat(300)).unwrap();
    let dat = dir.path("im.dat");
    ok(&["calibrate", &model, &text, "-o", &dat, "--context", "64", "--chunks", "2"]);
    ok(&["eval", &model, &text, "--context", "32", "--chunks", "2", "--save-logits", &dir.path("base.kld")]);
    // An archive that numpy.savez writes, as far as its first member's name.
    let mut npz = b"PK\x03\x04".to_vec();
    npz.resize(26, 0);
    npz.extend([5, 0, 0, 0]);
    npz.extend(b"a.npy\x93NUMPY");
    std::fs::write(dir.path("weights.npz"), npz).unwrap();
    std::fs::write(dir.path("a.npy"), b"\x93NUMPY\x01\x00v\x00{'descr': '<f4'}").unwrap();
    for (name, content) in [
        ("vocab.json", "{\"a\": 1}"),
        ("tokenizer.json", "{\"version\": \"1.0\", \"model\": {\"type\": \"BPE\"}}"),
        ("config.json", "{\"model_type\": \"llama\"}"),
        ("sens.json", "{\"format\": \"ggufkit sensitivity 1\"}"),
        ("merges.txt", "#version: 0.2\na b\n"),
        ("mine.toml", "base = \"q4_0\"\n"),
        ("chat_template.jinja", "{% for m in messages %}{% endfor %}"),
    ] {
        std::fs::write(dir.path(name), content).unwrap();
    }
    let tokenizer = demo("model/tokenizer.model");
    for (file, what, instead) in [
        (
            tokenizer.as_str(),
            "is a tokenizer (a SentencePiece model), not a model",
            "name the folder of the checkpoint",
        ),
        (&dat, "is an importance matrix, not a model", "--imatrix FILE"),
        (&dir.path("base.kld"), "is a file of logits, not a model", "--logits FILE"),
        (&dir.path("weights.npz"), "is an array of NumPy", "safetensors"),
        (&dir.path("a.npy"), "is an array of NumPy", "safetensors"),
        (&dir.path("vocab.json"), "is a part of a tokenizer", "name the folder"),
        (&dir.path("tokenizer.json"), "is a part of a tokenizer", "name the folder"),
        (&dir.path("config.json"), "is a file of settings", "name the folder"),
        (&dir.path("sens.json"), "is a file of sensitivities", "--sensitivity FILE"),
        (&dir.path("merges.txt"), "is a part of a tokenizer", "name the folder"),
        (&dir.path("mine.toml"), "is a recipe", "--recipe FILE"),
        (&dir.path("chat_template.jinja"), "is a chat template", "name the folder"),
        (&text, "is a text, not a model", "give the model first"),
    ] {
        for args in commands(file, &text, &out) {
            let (code, why) = fails(&args);
            assert!(code == 1 && why.contains(what) && why.contains(instead), "{args:?}: {why}");
        }
    }
    // The folder that is named is a model; so is the checkpoint with its tokenizer.
    ok(&["convert", &demo("model"), &out]);
    let tokens = demo("tiny-tokenizer.bin");
    for args in [vec!["run", tokens.as_str(), "--prompt", "Hello"], vec!["eval", &tokens, &text]] {
        let (code, why) = fails(&args);
        assert!(code == 1 && why.contains("is a tokenizer of llama2.c, not a model"), "{why}");
        assert!(
            why.contains("give the checkpoint that it belongs to as IN, and this file with --tokenizer FILE"),
            "{why}"
        );
    }
    ok(&["run", &demo("tiny.bin"), "--tokenizer", &tokens, "--prompt", "Hello", "--tokens", "2"]);
    assert!(ok(&["inspect", &tokens]).contains("llama2.c tokenizer"));
}

#[test]
fn ggufs_that_are_no_models_say_so() {
    let dir = Dir::new();
    let model = gguf(&dir);
    let (text, out) = (dir.path("t.txt"), dir.path("out.gguf"));
    std::fs::write(&text, "Once upon a time. ".repeat(300)).unwrap();
    let im = dir.path("im.gguf");
    ok(&["calibrate", &model, &text, "-o", &im, "--context", "64", "--chunks", "2"]);
    let source = ggufkit::open(model.as_ref(), &Default::default()).unwrap();
    // The vocabulary alone, as llama.cpp's converter writes it with --vocab-only.
    let vocabulary = dir.path("vocab.gguf");
    write_gguf(&vocabulary, &source.model.metadata, &[]);
    let of = |pairs: &[(&str, &str)]| {
        let mut metadata = Metadata::new();
        pairs.iter().for_each(|(key, value)| metadata.set(key, Value::text(value)));
        metadata
    };
    let tensor = |name: &str| (name.to_string(), vec![4u64, 32], vec![0.5f32; 128]);
    let (lora, mmproj, control) = (dir.path("lora.gguf"), dir.path("mmproj.gguf"), dir.path("control.gguf"));
    let adapter =
        of(&[("general.type", "adapter"), ("general.architecture", "llama"), ("adapter.type", "lora")]);
    write_gguf(&lora, &adapter, &[tensor("blk.0.attn_q.weight.lora_a")]);
    write_gguf(&mmproj, &of(&[("general.architecture", "clip")]), &[tensor("v.blk.0.attn_q.weight")]);
    write_gguf(&control, &of(&[("general.architecture", "controlvector")]), &[tensor("direction.1")]);
    for (file, what, instead, types) in [
        (&im, "is an importance matrix, not a model", "--imatrix FILE", false),
        (&vocabulary, "has a vocabulary and no weights", "give the GGUF that has the model's weights", false),
        (&lora, "is a LoRA adapter for llama.cpp, not a model", "--lora FILE", true),
        (&mmproj, "is the projector of a multimodal model (mmproj)", "--mmproj FILE", true),
        (&control, "is a control vector, not a model", "--control-vector FILE", false),
    ] {
        for args in [&["run", file, "--prompt", "Hello"][..], &["eval", file, &text], &["bench", file]] {
            let (code, why) = fails(args);
            assert!(code == 1 && why.contains(what) && why.contains(instead), "{args:?}: {why}");
            assert!(!why.contains("config.json"), "{why}");
        }
        // They can be looked at and copied, for machines of the other byte order for one.
        for args in [&["inspect", file][..], &["convert", file, &out, "--endian", "big"]] {
            let said = ok(args);
            assert!(
                said.contains("note: this ") && said.contains(what) && !said.contains("config.json"),
                "{said}"
            );
        }
        std::fs::remove_file(&out).unwrap();
        let quantize = run(&["quantize", file, &out, "--type", "q8_0"]);
        let said =
            String::from_utf8_lossy(if types { &quantize.stdout } else { &quantize.stderr }).into_owned();
        assert!(quantize.status.code() == Some(i32::from(!types)) && said.contains(what), "{file}: {said}");
        assert_eq!(std::path::Path::new(&out).exists(), types, "{file}");
        assert!(types || said.contains(instead), "{said}");
    }
}

#[test]
fn a_part_that_is_missing_is_named_with_its_number_and_its_folder() {
    let dir = Dir::new();
    let model = gguf(&dir);
    let folder = dir.path("parts");
    std::fs::create_dir(&folder).unwrap();
    let name = |stem: &str, no: usize, count: usize, ending: &str| {
        format!("{folder}/{stem}-{no:05}-of-{count:05}.{ending}")
    };
    ok(&["split", &model, &format!("{folder}/m.gguf"), "--max-tensors", "8"]);
    ok(&["convert", &demo("model"), &format!("{folder}/s.safetensors"), "--split-max-size", "2M"]);
    let parts = |stem: &str| {
        let names =
            std::fs::read_dir(&folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
        names.filter(|n| n.starts_with(stem) && n.contains("-of-")).count()
    };
    let out = dir.path("out.gguf");
    for (stem, ending) in [("m", "gguf"), ("s", "safetensors")] {
        let count = parts(&format!("{stem}-"));
        assert!(count >= 4, "{stem}: {count}");
        let aside = dir.path("aside");
        std::fs::rename(name(stem, 3, count, ending), &aside).unwrap();
        for opened in [1, 4] {
            let first = name(stem, opened, count, ending);
            for args in [
                &["merge", &first, &out][..],
                &["inspect", &first],
                &["quantize", &first, &out, "--type", "q8_0"],
            ] {
                let (code, why) = fails(args);
                let part =
                    format!("{}: part 3 of {count} of the model is missing\n", name(stem, 3, count, ending));
                let place = format!("{} of {count} are in {folder}\n", count - 1);
                assert!(code == 1 && why.contains(&part) && why.contains(&place), "{args:?}: {why}");
            }
        }
        // More than one, and no part but the one that was named; without the index, that of the folder says the same.
        std::fs::rename(name(stem, 2, count, ending), dir.path("second")).unwrap();
        let (_, why) = fails(&["merge", &name(stem, 1, count, ending), &out]);
        assert!(
            why.contains(&format!("part 2 of {count} of the model is missing, and 1 more of its parts")),
            "{why}"
        );
        let _ = std::fs::remove_file(format!("{folder}/{stem}.safetensors.index.json"));
        let (_, why) = fails(&["inspect", &name(stem, 1, count, ending)]);
        assert!(why.contains(&format!("part 2 of {count}")), "{why}");
        if ending == "safetensors" {
            let (_, why) = fails(&["inspect", &folder]);
            assert!(why.contains(&format!("part 2 of {count} of the model is missing, and 1 more")), "{why}");
        }
        // With all of them in their places, as the hint says, they are the model.
        std::fs::rename(dir.path("second"), name(stem, 2, count, ending)).unwrap();
        std::fs::rename(&aside, name(stem, 3, count, ending)).unwrap();
        ok(&["merge", &name(stem, 2, count, ending), &dir.path(&format!("whole.{ending}"))]);
    }
}
