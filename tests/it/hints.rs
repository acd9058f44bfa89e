//! Hints, followed to the letter: each way out that a message names leads to a run that succeeds, and none in a circle.

use std::path::Path;

use ggufkit::machine::{MACHINES, Reads};

use crate::common::{Dir, demo, fails, gguf, ok, run};

/// What stands in hints for what only the user knows.
fn filled(dir: &Dir, option: &str, value: &str) -> String {
    match (option, value) {
        (_, "TEXT") => dir.path("t.txt"),
        ("--imatrix", "FILE") => dir.path("im.gguf"),
        ("--tokenizer", "FILE") => demo("tiny-tokenizer.bin"),
        (_, "RAM") => "8G".into(),
        (_, "BYTES") => "3M".into(),
        (_, "X") => "11".into(),
        (_, "N") => "4".into(),
        (_, "SCHEME") => "f32".into(),
        (_, value) => value.into(),
    }
}

/// The arguments without an option and its value.
fn without(args: &[String], option: &str) -> Vec<String> {
    let Some(at) = args.iter().position(|a| a == option) else { return args.to_vec() };
    let values = usize::from(args.get(at + 1).is_some_and(|next| !next.starts_with("--")));
    [&args[..at], &args[at + 1 + values..]].concat()
}

/// The options that a text names, each with the word after it if that is a value.
fn options(text: &str) -> Vec<(String, Option<String>)> {
    let words: Vec<&str> = text.split([' ', ',']).filter(|w| !w.is_empty()).collect();
    let value =
        |i: usize| words.get(i + 1).filter(|w| !w.starts_with("--") && !["and", "or", "in"].contains(w));
    let option = |(i, word): (usize, &&str)| {
        word.starts_with("--").then(|| (word.to_string(), value(i).map(|v| v.to_string())))
    };
    words.iter().enumerate().filter_map(option).collect()
}

/// The commands that the hint of a message names, one for each way out; prose names none.
fn ways(dir: &Dir, args: &[String], message: &str) -> Vec<Vec<String>> {
    let Some((_, hint)) = message.split_once("  hint: ") else { return Vec::new() };
    let brackets = regex::Regex::new(r" ?\([^)]*\)").unwrap();
    let hint = brackets.replace_all(hint.trim(), "");
    let mut all = Vec::new();
    for way in hint.split("; or ") {
        // Of a list of things to add, each is a way of its own: "add --a A, --b B or --c C".
        let (before, added) = way.split_once("add ").unwrap_or((way, ""));
        let mut new = args.to_vec();
        if let Some((_, names)) = before.split_once("leave out ") {
            let names = names.split(" use ").next().unwrap();
            options(names).iter().for_each(|(option, _)| new = without(&new, option));
        }
        if before.contains("use ggufkit quantize") {
            new[0] = "quantize".into();
        }
        if before.contains("an output name that ends in .gguf") {
            new[2] = dir.path("hinted.gguf");
        }
        if let Some((_, used)) = before.split_once("use --") {
            let used = format!("--{}", used.split(" in place").next().unwrap());
            for (option, value) in options(&used) {
                new = without(&new, &option);
                new.push(option.clone());
                new.extend(value.map(|v| filled(dir, &option, &v)));
            }
        }
        let variants: Vec<&str> = match added.contains(" or --") {
            true => added.split([',']).flat_map(|part| part.split(" or ")).collect(),
            false => vec![added],
        };
        for variant in variants {
            let mut new = new.clone();
            for (option, value) in options(variant.split(", which").next().unwrap()) {
                new = without(&new, &option);
                new.push(option.clone());
                new.extend(value.map(|v| filled(dir, &option, &v)));
            }
            if new != args {
                all.push(new);
            }
        }
    }
    all
}

fn said(args: &[String]) -> (bool, String) {
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let out = run(&args);
    let text = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(!text.contains("panicked"), "{args:?}: {text}");
    (out.status.success(), text)
}

/// Runs a command. If it fails, every way out of its hint must work at once, and there must be one.
fn every_way_works(dir: &Dir, args: &[String]) -> bool {
    let (success, message) = said(args);
    if success {
        return true;
    }
    let ways = ways(dir, args, &message);
    assert!(!ways.is_empty(), "{args:?}: no way out: {message}");
    for way in &ways {
        let (success, why) = said(way);
        assert!(success, "{args:?}: {message}\nfollowed: {way:?}: {why}");
    }
    false
}

/// The small model, a text, an importance matrix and a file of sensitivities of it.
fn folder() -> (Dir, String) {
    let dir = Dir::new();
    let model = gguf(&dir);
    let text = std::fs::read(demo("heldout.txt")).unwrap();
    std::fs::write(dir.path("t.txt"), &text[..6000]).unwrap();
    let (text, im) = (dir.path("t.txt"), dir.path("im.gguf"));
    ok(&["calibrate", &model, &text, "-o", &im, "--context", "64", "--chunks", "4"]);
    std::fs::write(dir.path("recipe.toml"), "base = \"q8_0\"\n").unwrap();
    (dir, model)
}

fn line(args: &[&str], more: &[&str]) -> Vec<String> {
    args.iter().chain(more).map(|a| a.to_string()).collect()
}

#[test]
fn methods_and_importance_have_one_answer() {
    let (dir, model) = folder();
    let (out, text, im, state) =
        (dir.path("x.gguf"), dir.path("t.txt"), dir.path("im.gguf"), dir.path("state"));
    let all: [&[&str]; 6] = [
        &["--imatrix", &im],
        &["--calibration", &text],
        &["--state", &state],
        &["--bias-correction"],
        &["--calibration-chunks", "4"],
        &["--calibration-seed", "1"],
    ];
    let (mut good, mut bad) = (0, 0);
    for method in ["search", "gptq"] {
        for chosen in 0..1 << all.len() {
            let mut args =
                line(&["quantize", &model, &out, "--type", "q4_0", "--dry-run", "--method", method], &[]);
            let some = all.iter().enumerate().filter(|(i, _)| chosen >> i & 1 == 1);
            args.extend(some.flat_map(|(_, options)| options.iter().map(|o| o.to_string())));
            *(if every_way_works(&dir, &args) { &mut good } else { &mut bad }) += 1;
        }
    }
    assert_eq!((good, bad), (23, 105));
    // The circle that there was: the answer names all three options.
    let (code, why) =
        fails(&["quantize", &model, &out, "--type", "q4_0", "--method", "gptq", "--imatrix", &im]);
    assert!(
        code == 2 && ["--method gptq", "--calibration", "--imatrix"].iter().all(|o| why.contains(o)),
        "{why}"
    );
}

#[test]
fn budgets_and_schemes_have_one_answer() {
    let (dir, model) = folder();
    let (out, recipe, sens) = (dir.path("x.gguf"), dir.path("recipe.toml"), dir.path("s.json"));
    ok(&["sensitivity", &model, &dir.path("t.txt"), "-o", &sens, "--context", "64", "--chunks", "2"]);
    let mut bad = 0;
    for scheme in [&[][..], &["--type", "q8_0"], &["--recipe", &recipe], &["--type", "q8_0", "--pure"]] {
        for budget in [&[][..], &["--fit", "8G"], &["--size", "3M"], &["--bits-per-weight", "11"]] {
            for more in [
                &[][..],
                &["--sensitivity", &sens],
                &["--context", "64", "--kv", "f16"],
                &["--types", "q8_0,f16", "--reserve", "1G"],
            ] {
                // Something must choose the types.
                if scheme.is_empty() && budget.is_empty() {
                    continue;
                }
                let args = line(&["quantize", &model, &out, "--dry-run"], &[scheme, budget, more].concat());
                bad += usize::from(!every_way_works(&dir, &args));
            }
        }
    }
    assert!(bad > 30, "{bad}");
    // A file of sensitivities that is not there.
    let none = dir.path("none.json");
    let (code, why) = fails(&["quantize", &model, &out, "--size", "3M", "--sensitivity", &none]);
    assert!(code == 1 && why.contains(&format!("`ggufkit sensitivity {model} TEXT -o {none}`")), "{why}");
    let args = line(&["quantize", &model, &out, "--size", "3M", "--sensitivity", &none], &[]);
    every_way_works(&dir, &args);
}

#[test]
fn what_is_for_gguf_only_is_said_once() {
    let (dir, model) = folder();
    let (text, im, state) = (dir.path("t.txt"), dir.path("im.gguf"), dir.path("state"));
    let gptq = [
        "--type",
        "q8_0",
        "--method",
        "gptq",
        "--calibration",
        &text,
        "--calibration-chunks",
        "4",
        "--state",
        &state,
    ];
    for (out, machine) in [
        ("x.bin", &[][..]),
        ("x.bin", &["--for", "runq.c"]),
        ("x.gguf", &["--for", "runq.c"]),
        ("x.bin", &["--for", "smollerlm"]),
        ("x.bin", &["--format", "llama2c"]),
        ("x.safetensors", &[]),
        ("x/", &[]),
        ("x/", &["--for", "c64"]),
    ] {
        for how in [
            &["--size", "3M"][..],
            &["--fit", "8G", "--context", "64", "--types", "q8_0,f16"],
            &["--bits-per-weight", "11"],
            &["--type", "q8_0", "--imatrix", &im],
            &gptq,
        ] {
            let args = line(&["quantize", &model, &dir.path(out), "--dry-run"], &[machine, how].concat());
            let (code, why) = fails(&args.iter().map(String::as_str).collect::<Vec<_>>());
            assert!(
                code == 2 && why.contains("for GGUF only") && why.contains(how[how.len() - 2]),
                "{args:?}: {why}"
            );
            if machine.is_empty() || how[0] != "--type" {
                let ways = ways(&dir, &args, &why);
                assert!(!ways.is_empty(), "{why}");
                // The name of the file may be wrong for the machine besides; then the next message says so.
                let ends = |way: &Vec<String>| {
                    let (success, why) = said(way);
                    success
                        || why.contains("an output name that ends in .bin")
                        || why.contains("safetensors cannot hold")
                };
                assert!(
                    ways.iter().all(ends) && ways.iter().any(|way| said(way).0 || out == "x.gguf"),
                    "{args:?}: {why}"
                );
            }
        }
    }
}

#[test]
fn texts_that_are_too_short_are_named_with_the_option() {
    let (dir, model) = folder();
    let text = std::fs::read(demo("heldout.txt")).unwrap();
    let short = dir.path("short.txt");
    std::fs::write(&short, &text[..150]).unwrap();
    let (q8, out, im, sens) =
        (dir.path("q8.gguf"), dir.path("x.gguf"), dir.path("i.gguf"), dir.path("s.json"));
    ok(&["quantize", &model, &q8, "--type", "q8_0"]);
    for (args, option) in [
        (line(&["eval", &model, &short], &[]), "--context"),
        (line(&["eval", &model, &short, "--stride", "8", "--context", "5000"], &[]), "--context"),
        (line(&["compare", &model, &q8, "--text", &short], &[]), "--context"),
        (line(&["calibrate", &model, &short, "-o", &im, "--context", "5000"], &[]), "--context"),
        (line(&["sensitivity", &model, &short, "-o", &sens, "--context", "5000"], &[]), "--context"),
        (line(&["quantize", &model, &out, "--type", "q8_0", "--check", &short], &[]), "--check-context"),
        (
            line(
                &["quantize", &model, &out, "--type", "q8_0", "--check", &short, "--check-context", "9999"],
                &[],
            ),
            "--check-context",
        ),
        (
            line(
                &["quantize", &model, &out, "--type", "q8_0", "--calibration", &short],
                &["--calibration-context", "5000"],
            ),
            "--calibration-context",
        ),
    ] {
        let (success, why) = said(&args);
        assert!(!success, "{args:?}");
        let why: String =
            why.lines().filter(|l| !l.starts_with("note: ")).map(|l| format!("{l}\n")).collect();
        let parts = ["short.txt: has ", " tokens, but chunks of ", &format!("({option})"), "need at least"];
        assert!(parts.iter().all(|p| why.contains(p)), "{args:?}: {why}");
        assert!(!why.contains("--context, or"), "{why}");
        let ways = ways(&dir, &args, &why);
        assert_eq!(ways.len(), 1, "{why}");
        let (success, after) = said(&ways[0]);
        assert!(success, "{args:?}: {why}\nfollowed {:?}: {after}", ways[0]);
        // One token more is one too many.
        let mut more = ways[0].clone();
        let at = more.iter().position(|a| a == option).unwrap() + 1;
        more[at] = (more[at].parse::<usize>().unwrap() + 1).to_string();
        assert!(!said(&more).0, "{more:?}");
    }
    // A text without words, and numbers of chunks that mean nothing.
    std::fs::write(dir.path("empty.txt"), "").unwrap();
    let (code, why) = fails(&["eval", &model, &dir.path("empty.txt")]);
    assert!(code == 1 && why.contains("empty.txt: has 1 token, ") && !why.contains("use --context"), "{why}");
    for (args, option) in [
        (&["eval", &model, &short, "--chunks", "0"][..], "--chunks"),
        (&["compare", &model, &q8, "--text", &short, "--chunks", "0"], "--chunks"),
        (&["calibrate", &model, &short, "-o", &im, "--chunks", "0"], "--chunks"),
        (
            &["quantize", &model, &out, "--type", "q8_0", "--check", &short, "--check-chunks", "0"],
            "--check-chunks",
        ),
        (
            &[
                "quantize",
                &model,
                &out,
                "--type",
                "q8_0",
                "--calibration",
                &short,
                "--calibration-chunks",
                "0",
            ],
            "--calibration-chunks",
        ),
        (&["eval", &model, &short, "--context", "2"], "--context"),
        (&["eval", &model, &short, "--context", "16", "--stride", "16"], "--stride"),
        (&["calibrate", &model, &short, "-o", &im, "--context", "32", "--from-chunk", "99"], "--from-chunk"),
    ] {
        let (code, why) = fails(args);
        assert!(code == 2 && why.contains(option), "{args:?}: {why}");
        let args = line(args, &[]);
        let ways = ways(&dir, &args, &why);
        assert!(
            why.contains("must be an integer of at least 1") || ways.iter().all(|way| said(way).0),
            "{why}"
        );
    }
}

#[test]
fn sizes_that_are_too_small_are_told_what_is_enough() {
    let (dir, _) = folder();
    let model = dir.path("m.gguf");
    ok(&["convert", &demo("model"), &model]);
    let im = dir.path("im.gguf");
    ok(&["calibrate", &model, &dir.path("t.txt"), "-o", &im, "--context", "64", "--chunks", "4"]);
    let out = dir.path("x.gguf");
    let ways_of = |args: &[&str]| {
        let args = line(&["quantize", &model, &out], &[args, &["--dry-run"]].concat());
        assert!(!every_way_works(&dir, &args), "{args:?}");
        said(&args).1
    };
    for (args, has, has_not) in [
        // No importance matrix gives types as small as that.
        (&["--size", "100K"][..], "use --size ", "--imatrix"),
        (&["--size", "1M"], "add --imatrix FILE", "--types"),
        (&["--bits-per-weight", "1"], "use --bits-per-weight ", "--imatrix"),
        (&["--bits-per-weight", "2.5"], "add --calibration TEXT", "--types"),
        (&["--size", "1500K", "--types", "q8_0"], "leave out --types", "--imatrix"),
        (&["--fit", "10M"], "use --fit 0.1G or more", "--reserve"),
        (&["--fit", "60M", "--runtime", "ggufkit", "--reserve", "50M"], "use --reserve ", "--imatrix"),
        (&["--fit", "10M", "--kv", "f16"], "use --fit ", "--kv"),
        (&["--fit", "1G", "--context", "100000"], "use --context 256 or less", "--imatrix"),
        (&["--bits-per-weight", "1", "--imatrix", &im], "use --bits-per-weight ", "--imatrix"),
    ] {
        let why = ways_of(args);
        let hint = why.split_once("hint: ").unwrap().1;
        assert!(hint.contains(has) && !hint.contains(has_not), "{args:?}: {why}");
    }
    // The smallest size that the frontier shows is one that quantize makes, with what it says is needed.
    let shown = ok(&["frontier", &model, "--rows", "2"]);
    let note = shown.lines().find(|l| l.contains("--imatrix FILE")).unwrap_or_else(|| panic!("{shown}"));
    assert!(note.contains("without"), "{note}");
    let smallest = crate::common::json(&["frontier", &model, "--json"])["points"][0]["bytes"].to_string();
    let bytes = (smallest.parse::<u64>().unwrap() + 1024).to_string();
    ok(&["quantize", &model, &out, "--size", &bytes, "--imatrix", &im, "--dry-run"]);
}

/// Follows hints until a run succeeds, at most three of them; false if a hint names no command.
fn ends_well(dir: &Dir, args: &[String], seen: &mut Vec<Vec<String>>) -> Result<(), String> {
    let (success, message) = said(args);
    if success {
        return Ok(());
    }
    assert!(!seen.contains(&args.to_vec()), "a circle: {seen:?}: {message}");
    seen.push(args.to_vec());
    // The tokenizer at hand is that of the small model.
    let other = message.contains("do not belong together");
    assert!(other || message.contains("  hint: "), "{args:?}: {message}");
    let mut last = message.clone();
    if seen.len() < 4 {
        for way in ways(dir, args, &message) {
            match ends_well(dir, &way, &mut seen.clone()) {
                Ok(()) => return Ok(()),
                Err(why) => last = why,
            }
        }
    }
    Err(last)
}

/// What no option changes.
const MODEL_ALONE: [&str; 3] =
    ["a table of rotary frequencies", "the vocabulary's kind is", "buffer size of"];

#[test]
fn every_machine_gets_a_file_or_a_plain_no() {
    let (dir, tiny) = folder();
    // Not tied, with more heads than imac-llm takes; quantized; of a 7B, with any vocabulary and context.
    let (q4, q4k) = (dir.path("q4.gguf"), dir.path("q4k.gguf"));
    ok(&["quantize", &demo("model"), &q4, "--type", "q4_0"]);
    ok(&["quantize", &tiny, &q4k, "--type", "q4_k_m"]);
    let config = |name: &str, vocab: u64, context: u64, widths: [u64; 2], layers: u64| {
        let text = format!(
            r#"{{"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": {}, "intermediate_size": {},
            "num_hidden_layers": {layers}, "num_attention_heads": 8, "num_key_value_heads": 8, "vocab_size": {vocab},
            "max_position_embeddings": {context}, "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "hidden_act": "silu",
            "tie_word_embeddings": true, "torch_dtype": "float16"}}"#,
            widths[0], widths[1]
        );
        std::fs::create_dir_all(dir.path(name)).unwrap();
        std::fs::write(dir.path(&format!("{name}/config.json")), text).unwrap();
        dir.path(name)
    };
    let words = config("words", 128_000, 256, [64, 172], 2);
    let long = config("long", 512, 1_000_000, [64, 172], 64);
    let large = config("large", 32_000, 2048, [4096, 11_008], 32);
    let medium = config("medium", 32_000, 2048, [4096, 11_008], 20);
    let (bare, tokenizer) = (demo("tiny.bin"), demo("tiny-tokenizer.bin"));
    let whole = demo("model");
    // With a table of rotary frequencies, which not every program reads, and none of whose types some programs read.
    let scaled = config("scaled", 512, 8192, [64, 172], 2);
    let json = std::fs::read_to_string(format!("{scaled}/config.json")).unwrap();
    let scaling = r#""rope_scaling": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 2048}, "rope_theta""#;
    let json = json.replace("\"rope_theta\"", scaling).replace("float16", "float32");
    std::fs::write(format!("{scaled}/config.json"), json).unwrap();
    let sources: [(&str, &[&str]); 10] = [
        ("the small model", &[&bare, "--tokenizer", &tokenizer]),
        ("the larger model", &[&whole]),
        ("a large vocabulary", &[&words]),
        ("a long context", &[&long]),
        ("a large model", &[&large]),
        ("a model that fits in small types", &[&medium]),
        ("q4_0", &[&q4]),
        ("q4_k_m", &[&q4k]),
        ("no tokenizer", &[&bare]),
        ("scaled frequencies", &[&scaled]),
    ];
    let mut refused = Vec::new();
    for machine in MACHINES {
        let out = match machine.reads {
            Reads::Gguf => dir.path("x.gguf"),
            Reads::Llama2c { .. } => dir.path("x.bin"),
            Reads::Expansion { .. } => dir.path("x/"),
        };
        for (i, (name, source)) in sources.into_iter().enumerate() {
            // Both take the same way, so that one is enough for some.
            for command in ["convert", "quantize"].into_iter().take(2 - i % 2) {
                let args =
                    line(&[command, source[0], &out, "--for", machine.name, "--dry-run"], &source[1..]);
                if let Err(why) = ends_well(&dir, &args, &mut Vec::new()) {
                    // It is said at once, not after a hint that leads to another refusal.
                    let first = said(&args).1;
                    let of_model = MODEL_ALONE.iter().any(|limit| why.contains(limit));
                    assert!(!of_model || first == why, "{} of {name}: {first}\nthen {why}", machine.name);
                    // It cannot be done, and the last message says so.
                    let plain = [
                        "smaller",
                        "use a model",
                        "stories260K",
                        "original weights",
                        "--tokenizer",
                        "do not belong together",
                    ];
                    assert!(plain.iter().any(|p| why.contains(p)), "{} of {name}: {why}", machine.name);
                    refused.push(format!("{} of {name}", machine.name));
                }
            }
        }
    }
    // Most of them can.
    for machine in
        MACHINES.iter().map(|m| m.name).filter(|name| !["openvino", "imac-llm", "c64", "psp"].contains(name))
    {
        for name in ["the small model", "the larger model", "no tokenizer"] {
            let both = format!("{machine} of {name}");
            assert!(!refused.contains(&both), "{both}");
        }
    }
    assert!(!refused.contains(&"llama.cpp-tiger of a model that fits in small types".into()), "{refused:?}");
}

#[test]
fn a_machine_that_reads_floats_alone_is_told_of_int8() {
    let dir = Dir::new();
    let out = dir.path("x.bin");
    for (machine, int8) in [("llama98", "smollerlm"), ("run.c", "runq.c"), ("ullm", "runq.c-big-endian")] {
        let q4 = dir.path("q4.gguf");
        ok(&["quantize", &gguf(&dir), &q4, "--type", "q4_0"]);
        let said = ok(&["convert", &q4, &out, "--for", machine]);
        assert!(said.contains(&format!("--for {int8} writes int8")), "{machine}: {said}");
        let floats = std::fs::metadata(&out).unwrap().len();
        ok(&["quantize", &q4, &out, "--for", int8, "--allow-requantize"]);
        assert!(std::fs::metadata(&out).unwrap().len() < floats / 2, "{machine}");
        // Floats that stay what they are have not grown.
        let said = ok(&["convert", &demo("tiny.bin"), &out, "--for", machine]);
        assert!(!said.contains("writes int8"), "{said}");
    }
    // A program for machines of one byte order is not replaced by one for those of the other.
    let (_, why) = fails(&["convert", &demo("model"), &out, "--for", "ullm"]);
    assert!(why.contains("use --for run.c-big-endian (") && !why.contains("--for run.c ("), "{why}");
}

#[test]
fn every_machine_is_in_the_documents() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = std::fs::read_to_string(root.join("docs/vintage.md")).unwrap();
    for machine in MACHINES {
        assert!(
            page.contains(&format!("| `{}`", machine.name)) || page.contains(&format!("`{}`", machine.name)),
            "{}",
            machine.name
        );
    }
    let readme = std::fs::read_to_string(root.join("README.md")).unwrap();
    assert!(readme.contains("--for list"), "the README says how to list all machines");
    let (_, shown) = fails(&["convert", "a", "b.gguf", "--for", "list"]);
    assert!(MACHINES.iter().all(|m| shown.contains(m.name)), "{shown}");
}
