//! The binary, end to end, on the bundled model: every command does its job.

use std::path::{Path, PathBuf};

use crate::common::{Dir, all_types, demo, fails, gguf, json, ok};
use serde_json::Value;

#[test]
fn a_checkpoint_goes_to_gguf_and_back() {
    let dir = Dir::new();
    let gguf = gguf(&dir);
    ok(&["convert", &gguf, &dir.path("back.bin")]);
    let (new, old) = (dir.read("back.bin"), std::fs::read(demo("tiny.bin")).unwrap());
    assert_eq!(new.len(), old.len());
    // The frequency tables, at the end, come from another machine's cosine.
    let tables = old.len() - 4 * 128 * 16;
    assert!(new[..tables] == old[..tables], "weights differ");
    for (a, b) in new[tables..].chunks_exact(4).zip(old[tables..].chunks_exact(4)) {
        let (a, b) = (f32::from_le_bytes(a.try_into().unwrap()), f32::from_le_bytes(b.try_into().unwrap()));
        assert!((a - b).abs() <= 1e-6, "{a} {b}");
    }
    assert!(dir.read("back-tokenizer.bin") == std::fs::read(demo("tiny-tokenizer.bin")).unwrap());
}

#[test]
fn rewriting_a_gguf_changes_nothing() {
    let dir = Dir::new();
    let gguf = gguf(&dir);
    ok(&["quantize", &gguf, &dir.path("q.gguf"), "--type", "q4_0"]);
    for name in ["tiny.gguf", "q.gguf"] {
        ok(&["convert", &dir.path(name), &dir.path("same.gguf")]);
        assert!(dir.read(name) == dir.read("same.gguf"));
        ok(&["convert", &dir.path(name), &dir.path("be.gguf"), "--endian", "big"]);
        assert!(dir.read(name) != dir.read("be.gguf"));
        assert_eq!(json(&["inspect", "--json", &dir.path("be.gguf")])["byte_order"], "big");
        ok(&["verify", &dir.path("be.gguf"), "--against", &dir.path(name)]);
        ok(&["convert", &dir.path("be.gguf"), &dir.path("le.gguf"), "--endian", "little", "--no-mmap"]);
        assert!(dir.read(name) == dir.read("le.gguf"));
    }
}

#[test]
fn quantizing_says_what_it_did() {
    let dir = Dir::new();
    let gguf = gguf(&dir);
    for (scheme, main, bits) in [
        ("q8_0", "q8_0", 8.5),
        ("int8", "q8_0", 8.5),
        ("q4_0", "q4_0", 4.5),
        ("int4", "q4_0", 4.5),
        ("q4_1", "q4_1", 5.0),
        ("q5_0", "q5_0", 5.5),
        ("q5_1", "q5_1", 6.0),
        ("fp16", "f16", 16.0),
        ("bf16", "bf16", 16.0),
    ] {
        let out = dir.path("out.gguf");
        let report = json(&["quantize", &gguf, &out, "--type", scheme, "--pure", "--json"]);
        let inspect = json(&["inspect", "--json", &out]);
        for (planned, found) in
            report["tensors"].as_array().unwrap().iter().zip(inspect["tensors"].as_array().unwrap())
        {
            assert_eq!(planned["name"], found["name"]);
            assert_eq!(planned["type"], found["type"]);
            assert_eq!(planned["bytes"], found["bytes"]);
            let name = found["name"].as_str().unwrap();
            let is = |t: &str| assert_eq!(found["type"], t, "{scheme} {name}");
            match name {
                // Rows of 176, which no block of 32 divides.
                _ if name.contains("ffn_down") && main.starts_with('q') => is("f16"),
                _ if name.contains("norm") => is("f32"),
                _ => is(main),
            }
        }
        let q = report["tensors"]
            .as_array()
            .unwrap()
            .iter()
            .find(|t| t["name"] == "blk.0.attn_q.weight")
            .unwrap();
        let elements = 64.0 * 64.0;
        assert_eq!(q["bytes"].as_f64().unwrap() * 8.0 / elements, bits);
        let error = q["relative_error"].as_f64().unwrap();
        assert!(error > 0.0 && error < 0.12, "{scheme}: {error}");
        ok(&["verify", &out, "--against", &gguf]);
    }
    let (code, text) = fails(&["quantize", &gguf, &dir.path("strict.gguf"), "--type", "q4_0", "--strict"]);
    assert!(code == 1 && text.contains("176") && text.contains("ffn_down"), "{text}");
    let text = ok(&["quantize", &gguf, &dir.path("q.gguf"), "--type", "q4_0"]);
    assert!(text.contains("rows of 176") && text.contains("f16 instead of q4_0"), "{text}");
    assert!(!dir.names().contains(&"strict.gguf".to_string()));
}

#[test]
fn the_users_rules_come_first() {
    let dir = Dir::new();
    let gguf = gguf(&dir);
    let plan = json(&[
        "quantize",
        &gguf,
        &dir.path("x.gguf"),
        "--type",
        "q4_0",
        "--dry-run",
        "--json",
        "--tensor",
        "attn_v=q8_0",
        "--tensor",
        r"blk\.0\..*=keep",
        "--embedding-type",
        "f16",
    ]);
    assert_eq!(plan["written"], false);
    assert!(dir.names() == ["tiny.gguf"], "a dry run writes nothing");
    let type_of = |name: &str| {
        let tensors = plan["tensors"].as_array().unwrap();
        tensors.iter().find(|t| t["name"] == name).unwrap()["type"].as_str().unwrap().to_string()
    };
    assert_eq!(type_of("blk.0.attn_v.weight"), "q8_0");
    assert_eq!(type_of("blk.0.attn_q.weight"), "f32");
    assert_eq!(type_of("blk.1.attn_q.weight"), "q4_0");
    assert_eq!(type_of("token_embd.weight"), "f16");
    let (code, text) =
        fails(&["quantize", &gguf, &dir.path("x.gguf"), "--type", "q4_0", "--tensor", "nothing=q8_0"]);
    assert!(code == 2 && text.contains("nothing"), "{text}");
}

#[test]
fn every_scheme_is_a_recipe_that_gives_the_same_plan() {
    let dir = Dir::new();
    let gguf = gguf(&dir);
    let recipe = dir.path("recipe.toml");
    let mut plans = Vec::new();
    // That of bitnet.cpp is for its architectures only.
    for scheme in ggufkit::scheme::all().iter().filter(|s| s.name != "i2_s") {
        std::fs::write(&recipe, ok(&["quantize", "--print-recipe", &scheme.name])).unwrap();
        for input in [&gguf, &demo("model")] {
            let plan = |how: &str, what: &str| {
                let plan = json(&[
                    "quantize",
                    input,
                    &dir.path("x.gguf"),
                    how,
                    what,
                    "--force",
                    "--dry-run",
                    "--json",
                ]);
                (plan["tensors"].clone(), plan["metadata"].clone(), plan["notes"].clone())
            };
            let by_name = plan("--type", &scheme.name);
            assert_eq!(by_name, plan("--recipe", &recipe), "{}", scheme.name);
            plans.push(by_name);
        }
    }
    assert!(plans.len() > 70);
    let of = |text: &str| std::fs::write(&recipe, text).unwrap();
    of(
        "base = \"q4_0\"\nrules = [\n  { tensor = \"attn_v\", layers = \"first 1\", type = \"q8_0\" },\n  \"q4_0\",\n]\n",
    );
    let plan = ok(&["convert", &gguf, &dir.path("x.gguf"), "--recipe", &recipe, "--dry-run"]);
    assert!(
        plan.lines().any(|l| l.contains("blk.0.attn_v") && l.contains("recipe: attn_v, layers first 1")),
        "{plan}"
    );
    of("base = \"q4_0\"\nrules = [\n  { tensor = \"attn_w\", type = \"q8_0\" },\n]\n");
    let (code, text) = fails(&["quantize", &gguf, &dir.path("x.gguf"), "--recipe", &recipe]);
    assert!(code == 1 && text.contains("recipe.toml: line 3: unknown kind of tensor \"attn_w\""), "{text}");
    for wrong in [
        &["quantize", "--type", "q4_0"][..],
        &["quantize", &gguf, &dir.path("x.gguf")],
        &["quantize", &gguf, &dir.path("x.gguf"), "--type", "q4_0", "--recipe", &recipe],
        &["quantize", &gguf, &dir.path("x.gguf"), "--print-recipe", "q4_0"],
        &["convert", &gguf, &dir.path("x.gguf"), "--type", "q4_0", "--recipe", &recipe],
    ] {
        assert_eq!(fails(wrong).0, 2, "{wrong:?}");
    }
}

#[test]
fn splitting_and_merging_are_inverse() {
    let dir = Dir::new();
    let gguf = gguf(&dir);
    for split in [["--max-size", "100K"], ["--max-tensors", "5"]] {
        std::fs::create_dir_all(dir.path("parts")).unwrap();
        ok(&["split", &gguf, &dir.path("parts/m.gguf"), split[0], split[1]]);
        let mut parts: Vec<PathBuf> =
            std::fs::read_dir(dir.path("parts")).unwrap().map(|e| e.unwrap().path()).collect();
        parts.sort();
        assert!(parts.len() > 2);
        for part in [&parts[0], &parts[1]] {
            ok(&["merge", part.to_str().unwrap(), &dir.path("merged.gguf")]);
            assert!(dir.read("merged.gguf") == dir.read("tiny.gguf"));
        }
        std::fs::rename(&parts[1], dir.path("parts/elsewhere")).unwrap();
        let (code, text) = fails(&["merge", parts[0].to_str().unwrap(), &dir.path("merged.gguf")]);
        assert!(code == 1 && text.contains("00002-of-"), "{text}");
        std::fs::remove_dir_all(dir.path("parts")).unwrap();
    }
}

#[test]
fn safetensors_come_in_and_go_out() {
    let dir = Dir::new();
    let gguf = gguf(&dir);
    ok(&["convert", &gguf, &dir.path("tiny.safetensors")]);
    ok(&["verify", &dir.path("tiny.safetensors"), "--against", &gguf]);
    ok(&["convert", &dir.path("tiny.safetensors"), &dir.path("back.gguf")]);
    ok(&["verify", &dir.path("back.gguf"), "--against", &gguf]);
    let metadata = |name: &str| json(&["inspect", "--json", &dir.path(name)])["metadata"].clone();
    assert_eq!(metadata("back.gguf"), metadata("tiny.gguf"));

    std::fs::create_dir(dir.path("hub")).unwrap();
    ok(&["convert", &gguf, &format!("{}/", dir.path("hub")), "--type", "f16", "--split-max-size", "100K"]);
    assert!(Path::new(&dir.path("hub/model.safetensors.index.json")).exists());
    assert_eq!(json(&["inspect", "--json", &dir.path("hub")])["tensors"].as_array().unwrap().len(), 29);
    ok(&["quantize", &dir.path("hub"), &dir.path("q.gguf"), "--type", "q8_0"]);
    let (code, text) = fails(&["convert", &dir.path("q.gguf"), &dir.path("q.safetensors")]);
    assert!(code == 1 && text.contains("q8_0"), "{text}");
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        std::fs::write(dir.path("plain"), b"").unwrap();
        let mode = |name: &str| std::fs::metadata(dir.path(name)).unwrap().mode();
        assert_eq!(mode("tiny.safetensors"), mode("plain"));
    }
}

#[test]
fn every_type_is_copied_turned_compared_and_quantized_again() {
    let dir = Dir::new();
    let all = dir.path("all.gguf");
    all_types(&all);
    ok(&["convert", &all, &dir.path("be.gguf"), "--endian", "big"]);
    assert!(dir.read("all.gguf") != dir.read("be.gguf"));
    ok(&["convert", &dir.path("be.gguf"), &dir.path("le.gguf"), "--endian", "little"]);
    assert!(dir.read("all.gguf") == dir.read("le.gguf"));
    ok(&["verify", &dir.path("be.gguf"), "--against", &all]);
    ok(&["split", &all, &dir.path("p.gguf"), "--max-tensors", "10"]);
    ok(&["merge", &dir.path("p-00003-of-00004.gguf"), &dir.path("m.gguf")]);
    assert!(dir.read("all.gguf") == dir.read("m.gguf"));
    // Every float and every packed type becomes another; from either byte order the same.
    for from in [&all, &dir.path("be.gguf")] {
        let out = dir.path("q.gguf");
        let (code, text) = fails(&["quantize", from, &out, "--type", "q8_0", "--pure"]);
        assert!(code == 1 && text.contains("--allow-requantize"), "{text}");
        let args = ["--type", "q8_0", "--pure", "--allow-requantize", "--json", "--endian", "little"];
        let report = json(&[&["quantize", from, &out][..], &args].concat());
        for t in report["tensors"].as_array().unwrap() {
            let name = t["name"].as_str().unwrap();
            // The rows of plain types are too short for a block, and integers stay integers.
            let wanted = match name.trim_end_matches(".weight") {
                i if i.starts_with('i') && !i.starts_with("iq") => i,
                "f32" | "f16" | "bf16" | "f64" => "f16",
                _ => "q8_0",
            };
            assert_eq!(t["type"], wanted, "{name}");
        }
        ok(&["verify", &out, "--against", &all]);
    }
    // One different byte is seen, and what it is worth.
    let info = json(&["inspect", "--json", &all]);
    let k = info["tensors"].as_array().unwrap().iter().find(|t| t["name"] == "q4_k.weight").unwrap().clone();
    let mut bytes = dir.read("all.gguf");
    bytes[k["offset"].as_u64().unwrap() as usize + 20] ^= 1;
    std::fs::write(dir.path("other.gguf"), bytes).unwrap();
    let found = json(&["verify", &dir.path("other.gguf"), "--against", &all, "--json"]);
    let differs: Vec<_> =
        found["tensors"].as_array().unwrap().iter().filter(|t| t["equal"] == false).collect();
    assert!(differs.len() == 1 && differs[0]["name"] == "q4_k.weight", "{differs:?}");
    let error = differs[0]["relative_error"].as_f64().unwrap();
    assert!(error > 0.0 && error < 0.1, "{error}");
    // Integers stay integers.
    let (code, text) = fails(&["convert", &all, &dir.path("q.gguf"), "--tensor", "^i32=f32"]);
    assert!(code == 1 && text.contains("i32.weight"), "{text}");
    assert_eq!(fails(&["convert", &all, &dir.path("q.gguf"), "--tensor", "^f32=i8"]).0, 2);
}

#[test]
fn types_for_activations_are_no_target() {
    let dir = Dir::new();
    let gguf = gguf(&dir);
    for name in ["q8_1", "Q8_K"] {
        let rule = format!("attn_q={name}");
        for how in [["--type", name], ["--tensor", &rule], ["--output-type", name]] {
            let mut args = vec!["quantize", &gguf, "q.gguf", how[0], how[1]];
            if how[0] != "--type" {
                args.extend(["--type", "q8_0"]);
            }
            let (code, text) = fails(&args);
            assert!(code == 2 && text.contains("activations") && text.contains("q8_0"), "{text}");
        }
        std::fs::write(dir.path("r.toml"), format!("base = \"{name}\"\n")).unwrap();
        let (code, text) = fails(&["quantize", &gguf, &dir.path("q.gguf"), "--recipe", &dir.path("r.toml")]);
        assert!(code == 1 && text.contains("activations"), "{text}");
    }
    // A source that has them keeps them.
    all_types(&dir.path("all.gguf"));
    let kept = json(&["convert", &dir.path("all.gguf"), &dir.path("copy.gguf"), "--json"]);
    let is = |t: &&Value| t["name"] == "q8_1.weight" && t["type"] == "q8_1";
    assert_eq!(kept["tensors"].as_array().unwrap().iter().filter(is).count(), 1);
}

#[test]
fn a_part_stands_for_the_whole_in_safetensors_too() {
    let dir = Dir::new();
    let gguf = gguf(&dir);
    ok(&["convert", &gguf, &dir.path("m.safetensors"), "--split-max-size", "200K"]);
    let parts: Vec<_> = dir.names().into_iter().filter(|n| n.starts_with("m-0")).collect();
    assert!(parts.len() > 1);
    ok(&["merge", &dir.path(&parts[1]), &dir.path("whole.safetensors")]);
    ok(&["verify", &dir.path("whole.safetensors"), "--against", &gguf]);
    std::fs::remove_file(dir.path("m.safetensors.index.json")).unwrap();
    ok(&["verify", &dir.path(&parts[0]), "--against", &gguf]);
    std::fs::remove_file(dir.path(&parts[0])).unwrap();
    assert!(fails(&["inspect", &dir.path(&parts[1])]).1.contains(&parts[0]));

    // A single file in place of a sharded model would not be read while the old index is there.
    let hub = format!("{}/", dir.path("hub"));
    ok(&["convert", &gguf, &hub, "--split-max-size", "200K"]);
    // Nor would it go with the settings that are there, if they are another model's.
    let (code, text) = fails(&["convert", &gguf, &format!("{hub}model.safetensors"), "--overwrite"]);
    assert!(code == 1 && text.contains("with config.json and the tokenizer that are there"), "{text}");
    std::fs::remove_file(format!("{hub}config.json")).unwrap();
    let (code, text) = fails(&["convert", &gguf, &format!("{hub}model.safetensors")]);
    assert!(code == 1 && text.contains("index.json instead of the new model"), "{text}");
    assert!(text.contains("--overwrite"), "{text}");
    ok(&["convert", &gguf, &format!("{hub}model.safetensors"), "--overwrite"]);
    let left: Vec<_> = std::fs::read_dir(&hub).unwrap().map(|e| e.unwrap().file_name()).collect();
    let weights = left.iter().filter(|n| n.to_string_lossy().contains("safetensors")).count();
    assert!(weights == 1 && left.iter().any(|n| n == "tokenizer.json"), "{left:?}");
}

#[test]
fn int8_checkpoints_have_groups_that_divide_every_row() {
    let dir = Dir::new();
    for endian in ["little", "big"] {
        let out = dir.path("q.bin");
        ok(&["quantize", &demo("tiny.bin"), &out, "--type", "int8", "--endian", endian]);
        let info = json(&["inspect", "--json", &out]);
        assert_eq!(info["format"], "llama2.c v2");
        assert_eq!(info["byte_order"], endian);
        // 64 would divide dim = 64, but not hidden_dim = 176.
        assert!(info["tensors"].as_array().unwrap().iter().any(|t| t["type"] == "int8/16"));
        ok(&["verify", &out, "--against", &demo("tiny.bin")]);
        ok(&["convert", &out, &dir.path("same.bin")]);
        assert!(dir.read("q.bin") == dir.read("same.bin"));
    }
    ok(&["quantize", &dir.path("q.bin"), &dir.path("f.bin"), "--type", "f32"]);
    assert_eq!(json(&["inspect", "--json", &dir.path("f.bin")])["format"], "llama2.c v0");
    assert_eq!(
        fails(&["quantize", &demo("tiny.bin"), &dir.path("s.bin"), "--type", "int8", "--strict"]).0,
        1
    );
    ok(&[
        "quantize",
        &demo("tiny.bin"),
        &dir.path("s.bin"),
        "--type",
        "int8",
        "--strict",
        "--group-size",
        "16",
    ]);
    ok(&["convert", &demo("tiny.bin"), &dir.path("v1.bin"), "--bin-version", "1"]);
    assert_eq!(json(&["inspect", "--json", &dir.path("v1.bin")])["format"], "llama2.c v1");
    ok(&["convert", &dir.path("v1.bin"), &dir.path("v0.bin"), "--bin-version", "0"]);
    ok(&["verify", &dir.path("v0.bin"), "--against", &demo("tiny.bin")]);
}

#[test]
fn big_endian_checkpoints_are_the_same_words_turned_round() {
    let dir = Dir::new();
    ok(&["convert", &demo("tiny.bin"), &dir.path("be.bin"), "--endian", "big"]);
    let (le, be) = (std::fs::read(demo("tiny.bin")).unwrap(), dir.read("be.bin"));
    let turned: Vec<u8> = be.chunks_exact(4).flat_map(|w| [w[3], w[2], w[1], w[0]]).collect();
    assert!(turned == le);
    ok(&["convert", &demo("tiny-tokenizer.bin"), &dir.path("tok.bin"), "--endian", "big"]);
    ok(&["convert", &dir.path("tok.bin"), &dir.path("tok-le.bin"), "--endian", "little"]);
    assert!(dir.read("tok-le.bin") == std::fs::read(demo("tiny-tokenizer.bin")).unwrap());
    assert!(dir.read("tok.bin") != dir.read("tok-le.bin"));
}

#[test]
fn metadata_is_edited_out_of_place() {
    let dir = Dir::new();
    let gguf = gguf(&dir);
    std::fs::write(dir.path("template"), "{{ 'x' }}\n").unwrap();
    std::fs::write(dir.path("types.json"), "[1, 2, 3]").unwrap();
    ok(&[
        "edit",
        &gguf,
        &dir.path("new.gguf"),
        "--set",
        "general.name=Tiny",
        "--set",
        "llama.context_length=64",
        "--set",
        "new.array=[str]:[\"a\",\"b\"]",
        "--set-file",
        &format!("tokenizer.chat_template={}", dir.path("template")),
        "--set-file",
        &format!("new.types:[i32]={}", dir.path("types.json")),
        "--rename",
        "llama.vocab_size=llama.words",
        "--remove",
        "llama.rope.freq_base",
    ]);
    let info = json(&["inspect", "--json", &dir.path("new.gguf")]);
    let get = |key: &str| info["metadata"].as_array().unwrap().iter().find(|m| m[0] == key).cloned();
    let is = |key: &str, kind: &str, value: Value| {
        assert_eq!(get(key), Some(serde_json::json!([key, kind, value])))
    };
    is("general.name", "str", "Tiny".into());
    is("llama.context_length", "u32", 64.into());
    is("tokenizer.chat_template", "str", "{{ 'x' }}\n".into());
    is("new.array", "array", serde_json::json!(["str", ["a", "b"]]));
    is("new.types", "array", serde_json::json!(["i32", [1, 2, 3]]));
    is("llama.words", "u32", 512.into());
    assert!(get("llama.vocab_size").is_none() && get("llama.rope.freq_base").is_none());
    for bad in [["--set", "llama.context_length=-1"], ["--rename", "x=y"], ["--set", "x"]] {
        assert_eq!(fails(&["edit", &gguf, &dir.path("bad.gguf"), bad[0], bad[1]]).0, 2, "{bad:?}");
    }
    assert_eq!(fails(&["edit", &gguf, &gguf, "--set", "a=1"]).0, 2);
}

#[test]
fn alignment_is_the_users() {
    let dir = Dir::new();
    let gguf = gguf(&dir);
    for align in ["1", "64", "4096"] {
        ok(&["convert", &gguf, &dir.path("a.gguf"), "--align", align]);
        let info = json(&["inspect", "--json", &dir.path("a.gguf")]);
        assert_eq!(info["alignment"], align.parse::<u64>().unwrap());
        ok(&["verify", &dir.path("a.gguf"), "--against", &gguf]);
        ok(&["quantize", &dir.path("a.gguf"), &dir.path("q.gguf"), "--type", "q8_0"]);
        assert_eq!(json(&["inspect", "--json", &dir.path("q.gguf")])["alignment"], info["alignment"]);
    }
}

#[test]
fn the_readme_shows_what_the_demo_prints() {
    let dir = Dir::new();
    let readme = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).unwrap();
    let kept = dir.path("kept");
    let text = ok(&["demo", &kept]);
    let (shown, place) = text.trim_end().rsplit_once("\n\n").unwrap();
    assert!(readme.contains(shown), "{shown}");
    assert!(place.contains(&kept));
    ok(&["verify", &format!("{kept}/Little-Stories-Q8_0.gguf"), "--against", &demo("model")]);
}

#[test]
#[ignore = "a second demo: half a minute without optimisation"]
fn the_demo_says_as_much_in_json() {
    let readme = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).unwrap();
    let found = json(&["demo", "--json"]);
    for scheme in found["schemes"].as_array().unwrap() {
        let name = scheme["scheme"].as_str().unwrap_or_else(|| panic!("{scheme}"));
        assert!(readme.contains(name), "{name}");
    }
}
