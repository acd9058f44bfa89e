//! What is said of what was asked for: options that another command has, or that have no effect; what
//! was compared; what a dry run would do.

use std::fs;
use std::path::Path;

use crate::common::{Dir, demo, fails, gguf, json, ok, run};
use crate::hub::{checkpoint, config, tensors};

/// What a run that must succeed says.
fn said(args: &[&str]) -> String {
    let out = run(args);
    let text = String::from_utf8([out.stdout, out.stderr].concat()).unwrap();
    assert!(out.status.success(), "{args:?}: {text}");
    text
}

fn names(folder: &str) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_folder_made_of_a_gguf_is_a_checkpoint_whatever_command_makes_it() {
    let dir = Dir::new();
    let whole = gguf(&dir);
    let through = dir.path("through.safetensors");
    let text = said(&["convert", &whole, &through]);
    assert!(text.contains("keep GGUF's names") && text.contains("name a folder"), "{text}");
    let converted = dir.path("converted/");
    ok(&["convert", &whole, &converted]);
    for (i, source) in [&whole, &through, &demo("tiny.bin")].into_iter().enumerate() {
        for args in [vec!["merge"], vec!["split", "--max-size", "200K"]] {
            let out = dir.path(&format!("{}-{i}/", args[0]));
            let text = said(&[&args[..1], &[source, &out], &args[1..]].concat());
            assert!(!text.contains("GGUF's names"), "{text}");
            ok(&["verify", &out, "--against", &converted]);
            let found = names(&out);
            assert!(found.iter().any(|name| name == "config.json"), "{found:?}");
            assert_eq!(found.iter().any(|n| n == "tokenizer.json"), i < 2, "{found:?}");
            assert_eq!(found.iter().any(|n| n.ends_with("index.json")), args[0] == "split", "{found:?}");
        }
        // What `edit` changes has no place there.
        let out = dir.path(&format!("edit-{i}/"));
        for change in [["--set", "llama.context_length=64"], ["--remove", "llama.rope.freq_base"]] {
            let (code, why) = fails(&["edit", source, &out, change[0], change[1]]);
            assert!(code == 2 && why.contains(change[0]) && why.contains("config.json"), "{why}");
            assert!(why.contains("(NEW.gguf)") && !Path::new(&out).exists(), "{why}");
        }
        // What is not there is gone.
        let without = dir.path(&format!("without-{i}/"));
        let text = said(&["edit", source, &without, "--remove", "general.license"]);
        assert!(text.contains("--remove general.license: there is no such key"), "{text}");
        ok(&["verify", &without, "--against", &converted]);
        let changed = dir.path("changed.gguf");
        ok(&["edit", source, &changed, "--set", "llama.context_length=64"]);
        ok(&["convert", &changed, &out]);
        assert_eq!(json(&["inspect", "--json", &out])["tensors"].as_array().unwrap().len(), 29);
    }
    // Types that a checkpoint cannot hold, and what is none.
    let small = dir.path("small.gguf");
    ok(&["quantize", &whole, &small, "--type", "q8_0"]);
    for out in ["x/", "x.safetensors"] {
        let (code, why) = fails(&["merge", &small, &dir.path(out)]);
        assert!(
            code == 1 && why.contains("safetensors cannot hold") && why.contains("`ggufkit convert`"),
            "{why}"
        );
    }
    ok(&["convert", &small, &dir.path("x/"), "--type", "f16"]);
    // Weights under names of their own are copied as they are.
    let hub = checkpoint(&dir, "hub", &config("LlamaForCausalLM"), &tensors(&[]));
    fs::remove_file(format!("{hub}/config.json")).unwrap();
    let copy = dir.path("copy/");
    ok(&["merge", &hub, &copy]);
    assert_eq!(names(&copy), ["model.safetensors"]);
}

/// The options that a hint names, outside of the commands that it names.
fn options(hint: &str) -> Vec<String> {
    let named = regex::Regex::new("--[a-z][a-z-]*[a-z]").unwrap();
    named.find_iter(hint).map(|found| found.as_str().to_string()).collect()
}

#[test]
fn hints_name_options_that_the_command_has_or_the_command_that_has_them() {
    let dir = Dir::new();
    let (whole, small) = (gguf(&dir), dir.path("small.gguf"));
    ok(&["quantize", &whole, &small, "--type", "q8_0"]);
    let hub = checkpoint(&dir, "hub", &config("LlamaForCausalLM"), &tensors(&[]));
    let unweighted = dir.path("settings");
    fs::create_dir(&unweighted).unwrap();
    fs::copy(format!("{hub}/config.json"), format!("{unweighted}/config.json")).unwrap();
    fs::write(dir.path("recipe.toml"), "base = \"q8_0\"\n").unwrap();
    let (odd, none, recipe) = (dir.path("odd"), dir.path("none.safetensors"), dir.path("recipe.toml"));
    let bin = dir.path("x.bin");
    let commands = regex::Regex::new("ggufkit ([a-z]+)").unwrap();
    let mut named = 0;
    for source in [&whole, &small, &hub, &unweighted, &recipe, &demo("tiny-tokenizer.bin")] {
        for args in [
            vec!["convert", source, &odd],
            vec!["merge", source, &odd],
            vec!["merge", source, &none],
            vec!["merge", source, &bin],
            vec!["split", source, &odd, "--max-size", "1M"],
            vec!["split", source, &bin, "--max-size", "1M"],
            vec!["split", source, &none],
            vec!["edit", source, &odd, "--set", "a=1"],
            vec!["edit", source, &none, "--set", "general.name=x"],
            vec!["verify", source, "--against", &recipe],
            vec!["inspect", source, "--memory"],
            vec!["bench", source, "--prompt", "1", "--generate", "1", "--repeats", "1"],
            vec!["logits", source, &none, "--ids", "1000000"],
            vec!["frontier", source, "--types", "q8_0"],
        ] {
            let out = run(&args);
            let text = String::from_utf8_lossy(&out.stderr).into_owned();
            let help = ok(&[args[0], "--help"]);
            for line in text.lines().filter(|line| line.contains("hint: ")) {
                for option in options(line) {
                    named += 1;
                    let elsewhere = || {
                        let mut all = commands.captures_iter(line).map(|found| found[1].to_string());
                        all.any(|command| ok(&[&command, "--help"]).contains(&option))
                    };
                    let others = ["--lora", "--mmproj", "--control-vector"].contains(&&*option);
                    assert!(help.contains(&option) || others || elsewhere(), "{args:?} {option}: {line}");
                }
            }
            let _ = fs::remove_file(&none);
            let _ = fs::remove_file(&bin);
        }
    }
    assert!(named > 10, "{named}");
    let (_, why) = fails(&["merge", &whole, &odd]);
    assert!(why.contains("add --format FORMAT (`ggufkit convert` has --format)"), "{why}");
    let (_, why) = fails(&["convert", &whole, &odd]);
    assert!(why.ends_with("or add --format FORMAT\n"), "{why}");
}

#[test]
fn what_was_given_is_not_advised_again() {
    let dir = Dir::new();
    let (whole, hub) = (gguf(&dir), checkpoint(&dir, "hub", &config("LlamaForCausalLM"), &tensors(&[])));
    let inside = format!("{hub}/model.safetensors");
    fs::create_dir(dir.path("adapter")).unwrap();
    fs::write(dir.path("adapter/adapter_config.json"), "{}").unwrap();
    fs::write(dir.path("notes.txt"), "mine").unwrap();
    for args in [
        vec!["convert", &whole, &whole],
        vec!["convert", &hub, &hub],
        vec!["merge", &hub, &hub],
        vec!["convert", &whole, &inside],
        vec!["merge", &whole, &inside],
        vec!["convert", &whole, &dir.path("adapter")],
        vec!["convert", &whole, &dir.path("notes.txt"), "--format", "gguf"],
    ] {
        let (_, why) = fails(&[&args[..], &["--overwrite"]].concat());
        assert!(why.contains("hint: ") && !why.contains("--overwrite"), "{args:?}: {why}");
    }
    // A way to name another output stays, without what was given.
    for command in ["convert", "merge"] {
        let (_, why) = fails(&[command, &whole, &inside, "--overwrite"]);
        assert!(
            why.contains("hint: name the folder itself, which replaces the whole checkpoint; or "),
            "{why}"
        );
        let (_, why) = fails(&[command, &whole, &inside]);
        assert!(why.contains("hint: name the folder itself with --overwrite, which"), "{why}");
    }
    // Where it helps, it is named.
    assert!(fails(&["merge", &whole, &hub]).1.contains("--overwrite"));
    // A switch does nothing without the option that it goes with.
    let (groups, small) = (dir.path("groups.bin"), dir.path("small.gguf"));
    ok(&["convert", &whole, &groups, "--type", "q8_0", "--group-size", "16"]);
    ok(&["quantize", &whole, &small, "--type", "iq4_nl"]);
    let bin = dir.path("again.bin");
    let (_, why) = fails(&["convert", &groups, &bin, "--group-size", "8", "--allow-requantize"]);
    assert!(why.contains("leave out --group-size; or add --type q8_0 --allow-requantize"), "{why}");
    ok(&["convert", &groups, &bin, "--group-size", "8", "--allow-requantize", "--type", "q8_0"]);
    let other = dir.path("other.gguf");
    let (_, why) = fails(&["convert", &small, &other, "--for", "llama.cpp-tiger", "--allow-requantize"]);
    let ways = why.split("hint: ").nth(1).unwrap().trim_end().split("; or ");
    let again = ways.filter(|way| way.starts_with("use --type ") && way.ends_with(" --allow-requantize"));
    assert!(again.count() > 1, "{why}");
}

#[test]
fn notes_about_a_source_name_the_command_that_has_an_option() {
    let dir = Dir::new();
    let (whole, hub) = (gguf(&dir), dir.path("hub/"));
    ok(&["convert", &whole, &hub]);
    let path = format!("{hub}tokenizer.json");
    let mut tokenizer: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    for token in tokenizer["added_tokens"].as_array_mut().unwrap() {
        token["rstrip"] = true.into();
    }
    fs::write(&path, tokenizer.to_string()).unwrap();
    for more in [&[][..], &["--json"]] {
        let text = ok(&[&["verify", &hub, "--against", &whole][..], more].concat());
        assert!(text.contains("--set general.name=phi-3-NAME (`ggufkit convert` has --set)"), "{text}");
    }
    // The command that has it.
    let text = said(&["convert", &hub, &dir.path("x.gguf")]);
    assert!(text.contains("--set general.name=phi-3-NAME") && !text.contains("has --set"), "{text}");
}

#[test]
fn options_without_an_effect_are_refused_or_noted() {
    let dir = Dir::new();
    let (whole, bin, tokenizer) = (gguf(&dir), demo("tiny.bin"), demo("tiny-tokenizer.bin"));
    let out = dir.path("x.bin");
    for source in [&whole, &bin] {
        for (command, change) in [
            ("convert", ["--set", "general.name=x"]),
            ("convert", ["--set", "tokenizer.chat_template=x"]),
            ("edit", ["--set", "own.key=7"]),
            ("edit", ["--set", "general.url=x"]),
        ] {
            let (code, why) = fails(&[command, source, &out, change[0], change[1]]);
            let key = change[1].split('=').next().unwrap();
            let says = format!("{} {key}: there is no place for this key in a llama2.c file", change[0]);
            assert!(code == 2 && why.contains(&says) && why.contains("ends in .gguf"), "{why}");
            assert!(!Path::new(&out).exists());
        }
        // Of several, the one that is lost.
        let both = ["--set", "llama.context_length=64", "--set", "general.name=x"];
        assert!(fails(&[&["convert", source, &out][..], &both].concat()).1.contains("--set general.name"));
    }
    // What has a place, and what says what is so.
    ok(&["convert", &whole, &out, "--set", "llama.context_length=64"]);
    let found = json(&["inspect", "--json", &out]);
    assert!(
        found["metadata"].to_string().contains("[\"llama.context_length\",\"u32\",64]"),
        "{}",
        found["metadata"]
    );
    ok(&["convert", &whole, &out, "--set", "general.architecture=llama"]);
    let file = dir.path("template");
    fs::write(&file, "x").unwrap();
    let (_, why) =
        fails(&["edit", &whole, &out, "--set-file", &format!("tokenizer.chat_template:str={file}")]);
    assert!(why.contains("--set-file tokenizer.chat_template: there is no place"), "{why}");
    let (_, why) = fails(&["edit", &whole, &out, "--rename", "llama.rope.freq_base=own.base"]);
    assert!(why.contains("--rename own.base: there is no place"), "{why}");
    // What is removed is not there either way, and what programs have built in or take without a key needs no place.
    let (more, bare) = (dir.path("more.gguf"), dir.path("bare.gguf"));
    ok(&["edit", &whole, &more, "--set", "general.license=mit", "--set", "own.key=7"]);
    ok(&[
        "edit",
        &whole,
        &bare,
        "--remove",
        "llama.rope.freq_base",
        "--remove",
        "tokenizer.ggml.bos_token_id",
    ]);
    for (source, change) in [
        (&more, ["--remove", "general.license"]),
        (&more, ["--remove", "own.key"]),
        (&more, ["--remove", "absent.key"]),
        (&bare, ["--set", "llama.rope.freq_base=10000"]),
        (&bare, ["--set", "tokenizer.ggml.bos_token_id=1"]),
        (&bare, ["--set", "llama.attention.causal=true"]),
        (&bare, ["--set", "llama.attention.key_length=16"]),
        (&bare, ["--set", "llama.expert_count=0"]),
        (&bare, ["--set", "tokenizer.ggml.add_bos_token=true"]),
        (&bare, ["--set", "tokenizer.ggml.remove_extra_whitespaces=false"]),
    ] {
        let (one, two) = (dir.path("one.bin"), dir.path("two.bin"));
        ok(&["convert", source, &one]);
        ok(&["edit", source, &two, change[0], change[1]]);
        assert!(fs::read(&one).unwrap() == fs::read(&two).unwrap(), "{change:?}");
    }
    for change in ["tokenizer.ggml.add_bos_token=false", "tokenizer.ggml.add_space_prefix=false"] {
        assert!(fails(&["edit", &bare, &out, "--set", change]).1.contains("there is no place"));
    }
    // Where the format is given otherwise, no other name helps.
    let (_, why) = fails(&["convert", &whole, &dir.path("c64/"), "--for", "c64", "--set", "general.name=x"]);
    let says =
        "--set general.name: there is no place for this key in the three files of a memory expansion\n";
    assert!(why.contains(says) && why.ends_with("hint: leave it out\n"), "{why}");
    let (_, why) = fails(&["convert", &whole, &out, "--format", "llama2c", "--set", "general.name=x"]);
    assert!(why.contains("leave out --format and use an output name that ends in .gguf"), "{why}");
    // A tokenizer has no weights.
    for option in [
        &["--type", "f32"][..],
        &["--tensor", "a=f32"],
        &["--bin-version", "2"],
        &["--output-type", "f32"],
        &["--group-size", "16"],
    ] {
        let (code, why) = fails(&[&["convert", &tokenizer, &out][..], option].concat());
        assert!(code == 2 && why.contains(option[0]) && why.contains("leave out"), "{option:?}: {why}");
    }
    let (_, why) = fails(&["convert", &tokenizer, &out, "--set", "own.key=1"]);
    assert!(why.contains("no place") && why.ends_with("hint: leave it out\n"), "{why}");
    // Groups where there are none, and groups that are copied.
    let (_, why) = fails(&["convert", &whole, &out, "--group-size", "16"]);
    assert!(why.contains("--group-size 16: there are no groups in llama2.c version 0"), "{why}");
    ok(&["convert", &whole, &out, "--group-size", "16", "--type", "q8_0"]);
    let again = dir.path("again.bin");
    let (_, why) = fails(&["convert", &out, &again, "--group-size", "8"]);
    assert!(why.contains("groups of 16 weights in the source are copied"), "{why}");
    ok(&["convert", &out, &again, "--group-size", "8", "--type", "q8_0", "--allow-requantize"]);
    ok(&["convert", &out, &again, "--group-size", "16"]);
    // A search without anything to search.
    let to = dir.path("y.gguf");
    for (more, noted) in [
        (&["--effort", "fast", "--type", "f16"][..], true),
        (&["--effort", "fast", "--objective", "prior"], true),
        (&["--effort", "fast", "--type", "q8_0"], false),
        (&["--type", "f16"], false),
    ] {
        let text = said(&[&["convert", &whole, &to][..], more].concat());
        assert_eq!(text.contains("no effect here: no tensor gets"), noted, "{more:?}: {text}");
    }
    // Another tokenizer for a checkpoint whose own is copied.
    let model = demo("model/tokenizer.model");
    let text = said(&["convert", &demo("model"), &dir.path("c/"), "--tokenizer", &model]);
    assert!(text.contains("--tokenizer has no effect here: the files"), "{text}");
    let single = dir.path("single.safetensors");
    let text = said(&["convert", &demo("model"), &single, "--tokenizer", &model]);
    assert!(text.contains("--tokenizer has no effect here: no tokenizer is written"), "{text}");
    let text = said(&["convert", &demo("model"), &single, "--pre-tokenizer", "llama-bpe"]);
    assert_eq!(text.matches("note: --pre-tokenizer").count(), 1, "{text}");
    assert!(!said(&["convert", &demo("model"), &to, "--tokenizer", &model]).contains("no effect"));
}

#[test]
fn a_dry_run_says_what_would_be_done() {
    let dir = Dir::new();
    let whole = gguf(&dir);
    let (out, hub) = (dir.path("x.gguf"), dir.path("hub/"));
    ok(&["convert", &whole, &out]);
    ok(&["convert", &whole, &hub, "--split-max-size", "200K"]);
    fs::write(format!("{hub}README.md"), "mine").unwrap();
    fs::write(format!("{hub}other.safetensors"), "mine").unwrap();
    for (args, would) in [
        (vec!["convert", &whole, &out], &["would be replaced when all is done"][..]),
        (vec!["quantize", &whole, &out, "--type", "q4_0"], &["would be replaced when all is done"]),
        (
            vec!["convert", &whole, &hub, "--overwrite"],
            &["would be replaced", "would be removed", "README.md would be kept as", "files would stay"],
        ),
    ] {
        for more in [&[][..], &["--json"]] {
            let text = said(&[&args[..], &["--dry-run"], more].concat());
            assert!(would.iter().all(|words| text.contains(words)), "{args:?}: {text}");
            let done =
                ["is replaced", "is removed", "is kept", "files stay", "became", "was written", "were kept"];
            let said = done.iter().find(|words| text.replace("nothing was written", "").contains(*words));
            assert_eq!(said, None, "{args:?}: {text}");
        }
        let text = said(&args);
        assert!(
            text.contains("is replaced when all is done") && !text.contains("would be"),
            "{args:?}: {text}"
        );
    }
}

#[test]
fn nothing_compared_is_no_pass() {
    let dir = Dir::new();
    let (whole, tokenizer) = (gguf(&dir), demo("tiny-tokenizer.bin"));
    let other = dir.path("other.gguf");
    ok(&["convert", &demo("model"), &other]);
    let hub = checkpoint(&dir, "hub", &config("LlamaForCausalLM"), &tensors(&[]));
    fs::remove_file(format!("{hub}/config.json")).unwrap();
    for (one, two, says) in [
        (&tokenizer, &tokenizer, "has no tensors"),
        (&whole, &tokenizer, "tiny-tokenizer.bin has no tensors"),
        (&whole, &other, "29 of the 29 tensors"),
        (&whole, &hub, "no tensor has the same name in both"),
    ] {
        let out = run(&["verify", one, "--against", two]);
        let (text, why) = (String::from_utf8(out.stdout).unwrap(), String::from_utf8(out.stderr).unwrap());
        assert!(
            out.status.code() == Some(1) && why.contains("nothing was compared") && why.contains(says),
            "{why}"
        );
        assert!(
            !text.contains("all tensors") && !text.contains("error\n") && text.lines().count() < 12,
            "{text}"
        );
        let out = run(&["verify", one, "--against", two, "--json"]);
        assert_eq!(out.status.code(), Some(1));
        serde_json::from_slice::<serde_json::Value>(&out.stdout).unwrap();
    }
    assert!(ok(&["verify", &whole, "--against", &whole]).contains("all tensors: 0"));
    // Of a part, the figure is that of the part.
    let layers = crate::common::first_layers(&dir, 3);
    let out = run(&["verify", &layers, "--against", &other]);
    let text = String::from_utf8(out.stdout).unwrap();
    assert!(out.status.code() == Some(1) && text.contains(" tensors that were compared: 0"), "{text}");
    assert!(!text.contains("all tensors"), "{text}");
}

#[test]
fn the_tensors_that_were_compared_are_counted() {
    let dir = Dir::new();
    let (weights, settings) = (tensors(&[]), config("LlamaForCausalLM"));
    let mut other = tensors(&[]);
    other.iter_mut().find(|t| t.2.len() == 2 && t.2[0] != t.2[1]).unwrap().2.reverse();
    let one = checkpoint(&dir, "one", &settings, &weights);
    let two = checkpoint(&dir, "two", &settings, &other);
    for folder in [&one, &two] {
        fs::remove_file(format!("{folder}/config.json")).unwrap();
    }
    let out = run(&["verify", &one, "--against", &two]);
    let text = String::from_utf8(out.stdout).unwrap();
    let says = format!("the {} tensors that were compared: 0", weights.len() - 1);
    assert!(out.status.code() == Some(1) && text.contains(&says), "{text}");
}

#[test]
fn json_is_whole_whatever_the_exit_code() {
    let dir = Dir::new();
    let (whole, small, text) = (gguf(&dir), dir.path("q.gguf"), dir.path("t.txt"));
    ok(&["quantize", &whole, &small, "--type", "q4_0"]);
    fs::write(&text, &fs::read(demo("heldout.txt")).unwrap()[..3000]).unwrap();
    let out = dir.path("o.gguf");
    for (args, code) in [
        (vec!["eval", &small, &text, "--reference", &whole, "--max-kld", "0"], 3),
        (vec!["eval", &small, &text, "--reference", &whole, "--max-kld", "100"], 0),
        (vec!["verify", &small, "--against", &whole], 0),
        (vec!["verify", &small, "--against", &demo("model")], 1),
        (vec!["compare", &whole, &small, "--text", &text, "--context", "64", "--chunks", "2"], 0),
        (vec!["convert", &whole, &out, "--dry-run"], 0),
        (vec!["quantize", &whole, &out, "--size", "400K"], 0),
        (vec!["merge", &whole, &out], 0),
        (vec!["split", &whole, &out, "--max-size", "400K"], 0),
        (vec!["edit", &whole, &out, "--set", "own.key=1"], 0),
    ] {
        let found = run(&[&args[..], &["--json"]].concat());
        let errors = String::from_utf8_lossy(&found.stderr);
        assert_eq!(found.status.code(), Some(code), "{args:?}: {errors}");
        let text = String::from_utf8_lossy(&found.stdout);
        serde_json::from_str::<serde_json::Value>(&text).unwrap_or_else(|e| panic!("{args:?}: {e}: {text}"));
    }
}

#[test]
#[cfg(unix)]
fn what_a_link_leads_to_is_replaced_in_every_command_with_a_note() {
    let dir = Dir::new();
    let (whole, text) = (gguf(&dir), dir.path("t.txt"));
    fs::write(&text, &fs::read(demo("heldout.txt")).unwrap()[..3000]).unwrap();
    let few = ["--context", "64", "--chunks", "1"];
    for (i, args) in [
        vec!["convert", &whole, "LINK.gguf"],
        vec!["quantize", &whole, "LINK.gguf", "--type", "q8_0"],
        vec!["merge", &whole, "LINK.gguf"],
        vec!["split", &whole, "LINK.gguf", "--max-size", "10M"],
        vec!["edit", &whole, "LINK.gguf", "--set", "own.key=1"],
        vec!["calibrate", &whole, &text, "-o", "LINK.gguf", few[0], few[1], few[2], few[3]],
        vec!["sensitivity", &whole, &text, "-o", "LINK.json", few[0], few[1], few[2], few[3]],
        vec!["eval", &whole, &text, "--save-logits", "LINK.kld", few[0], few[1], few[2], few[3]],
        vec![
            "compare",
            &whole,
            &whole,
            "--text",
            &text,
            "--report",
            "LINK.html",
            few[0],
            few[1],
            few[2],
            few[3],
        ],
        vec!["frontier", &whole, "--types", "q8_0,f16", "--report", "LINK.html"],
        vec!["logits", &whole, "LINK.safetensors", "--ids", "1"],
        vec!["quantize", &whole, "OUT.gguf", "--size", "400K", "--write-recipe", "LINK.toml"],
    ]
    .into_iter()
    .enumerate()
    {
        let (real, link) = (dir.path(&format!("real-{i}")), dir.path(&format!("link-{i}")));
        fs::write(&real, "").unwrap();
        let args: Vec<String> = args
            .iter()
            .map(|arg| match arg.strip_prefix("LINK") {
                Some(ending) => {
                    std::os::unix::fs::symlink(&real, format!("{link}{ending}")).unwrap();
                    format!("{link}{ending}")
                }
                None => arg.replace("OUT", &dir.path("out")),
            })
            .collect();
        let link = args.iter().find(|arg| arg.starts_with(&link)).unwrap();
        let said = said(&crate::common::refs(&args));
        assert!(said.contains(&format!("{link} (a link to {real})")), "{args:?}: {said}");
        assert!(fs::symlink_metadata(link).unwrap().is_symlink(), "{args:?}");
        assert!(fs::metadata(&real).unwrap().len() > 0, "{args:?}");
    }
}
