//! Texts, and what makes tokens of them: encodings of files, pre-tokenizers, chat templates from strangers, contexts. What
//! would silently measure something else is said.

use crate::common::{Dir, demo, fails, gguf, json, ok, run};

/// What a command says, on both outputs together; it must end well.
fn said(args: &[&str]) -> String {
    let out = run(args);
    let text = format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    assert!(out.status.success(), "{args:?}: {text}");
    text
}

/// The little bundled model with a byte-level vocabulary, whose file says how texts are split, or does not.
fn byte_level(dir: &Dir, name: &str, pre: Option<&str>) -> String {
    // The byte alphabet of GPT-2: printable characters stand for themselves, the others for 256 and up.
    let mut extra = 256;
    let mut tokens: Vec<String> = (0u32..256)
        .map(|b| match b {
            0x21..=0x7E | 0xA1..=0xAC | 0xAE..=0xFF => char::from_u32(b).unwrap().to_string(),
            _ => {
                extra += 1;
                char::from_u32(extra - 1).unwrap().to_string()
            }
        })
        .collect();
    let merges = [("1", "2"), ("12", "3"), ("123", "4"), ("t", "h"), ("th", "e"), ("'", "s")];
    tokens.extend(merges.iter().map(|(a, b)| format!("{a}{b}")));
    tokens.extend((tokens.len()..510).map(|i| format!("unused {i}")));
    tokens.extend(["<begin>".to_string(), "<end>".into()]);
    let list = |texts: Vec<String>| format!("[str]:{}", serde_json::to_string(&texts).unwrap());
    let types: Vec<i32> = (0..512).map(|i| if i < 510 { 1 } else { 3 }).collect();
    let (plain, out) = (gguf(dir), dir.path(name));
    let mut args =
        vec!["edit".to_string(), plain, out.clone(), "--remove".into(), "tokenizer.ggml.scores".into()];
    let mut set =
        |key: &str, value: String| args.extend(["--set".into(), format!("tokenizer.ggml.{key}={value}")]);
    set("model", "str:gpt2".into());
    set("tokens", list(tokens));
    set("token_type", format!("[i32]:{}", serde_json::to_string(&types).unwrap()));
    set("merges", list(merges.iter().map(|(a, b)| format!("{a} {b}")).collect()));
    set("bos_token_id", "u32:510".into());
    set("eos_token_id", "u32:511".into());
    pre.into_iter().for_each(|name| set("pre", format!("str:{name}")));
    ok(&args.iter().map(String::as_str).collect::<Vec<_>>());
    out
}

#[test]
fn a_file_that_does_not_say_how_texts_are_split_is_told() {
    let dir = Dir::new();
    let (with, without) =
        (byte_level(&dir, "with.gguf", Some("llama-bpe")), byte_level(&dir, "without.gguf", None));
    let empty = byte_level(&dir, "empty.gguf", Some(""));
    let text = dir.path("text.txt");
    std::fs::write(&text, "the 1234 it's 12345 the (1234)\n".repeat(40)).unwrap();
    let out = dir.path("out.gguf");
    let few = ["--context", "32", "--chunks", "2"];
    let commands: Vec<Vec<&str>> = vec![
        vec!["inspect"],
        vec!["verify"],
        [&["eval", &text][..], &few].concat(),
        [&["compare", &with, "--no-floor", "--text", &text], &few[..]].concat(),
        [&["calibrate", &text, "-o", &out], &few[..]].concat(),
        [&["sensitivity", &text, "-o", &out], &few[..]].concat(),
        vec!["run", "--prompt", "the 1234", "--tokens", "1"],
        vec!["quantize", &out, "--type", "q8_0"],
        vec!["convert", &out],
        vec!["quantize", &out, "--type", "q8_0", "--dry-run"],
    ];
    for command in &commands {
        let of = |model: &str, more: &[&str]| said(&[&command[..1], &[model], &command[1..], more].concat());
        for model in [&without, &empty] {
            let text = of(model, &[]);
            let note = text
                .lines()
                .find(|l| l.contains("tokenizer.ggml.pre is missing"))
                .unwrap_or_else(|| panic!("{text}"));
            assert!(note.starts_with("note: ") && note.contains("--pre-tokenizer"), "{note}");
            let _ = std::fs::remove_file(&out);
        }
        for (model, more) in [(&with, &[][..]), (&without, &["--pre-tokenizer", "llama-bpe"])] {
            assert!(!of(model, more).contains("is missing"), "{command:?}");
            let _ = std::fs::remove_file(&out);
        }
    }
    // The name that is given is used, as if it were in the file.
    let measure = |model: &str, more: &[&str]| {
        json(&[&["eval", model, &text, "--context", "32", "--json"][..], more].concat())["summary"].clone()
    };
    let right = measure(&with, &[]);
    assert_ne!(measure(&without, &[]), right);
    assert_eq!(measure(&without, &["--pre-tokenizer", "llama-bpe"]), right);
    let other = said(&["eval", &with, &text, "--context", "32", "--pre-tokenizer", "gpt-2"]);
    assert!(other.contains("by gpt-2 (--pre-tokenizer), although the file says llama-bpe"), "{other}");
    assert!(fails(&["eval", &without, &text, "--pre-tokenizer", "nobody"]).1.contains("not supported"));
    // It is written into a copy, and both ways out that the note names lead out.
    ok(&["quantize", &without, &out, "--type", "q8_0", "--pre-tokenizer", "llama-bpe"]);
    assert!(said(&["inspect", &out]).contains("llama-bpe"));
    let edited =
        said(&["edit", &without, &dir.path("named.gguf"), "--set", "tokenizer.ggml.pre=str:llama-bpe"]);
    assert!(!edited.contains("is missing"), "{edited}");
    assert_eq!(measure(&dir.path("named.gguf"), &[]), right);
    // Other vocabularies have none.
    let plain = said(&["inspect", &gguf(&dir), "--pre-tokenizer", "llama-bpe"]);
    assert!(plain.contains("--pre-tokenizer is ignored") && !plain.contains("is missing"), "{plain}");
}

#[test]
fn texts_are_what_their_mark_says() {
    let dir = Dir::new();
    let model = gguf(&dir);
    let text = "Once upon a time there was a dog called Bär, and it ran.\r\n".repeat(60);
    let utf16 = |to: fn(u16) -> [u8; 2]| text.encode_utf16().flat_map(to).collect::<Vec<u8>>();
    let utf32: Vec<u8> = text.chars().flat_map(|c| (c as u32).to_be_bytes()).collect();
    let files = [
        ("utf8.txt", text.clone().into_bytes()),
        ("mark.txt", [b"\xEF\xBB\xBF", text.as_bytes()].concat()),
        ("le.txt", [b"\xFF\xFE".to_vec(), utf16(u16::to_le_bytes)].concat()),
        ("be.txt", [b"\xFE\xFF".to_vec(), utf16(u16::to_be_bytes)].concat()),
        ("utf32.txt", [b"\0\0\xFE\xFF".to_vec(), utf32].concat()),
    ];
    let out = dir.path("im.gguf");
    let mut figures = Vec::new();
    for (name, bytes) in &files {
        let path = dir.path(name);
        std::fs::write(&path, bytes).unwrap();
        let eval = ["eval", &model, &path, "--context", "64", "--json"];
        let compare = ["compare", &model, &model, "--text", &path, "--context", "64", "--no-floor", "--json"];
        ok(&["calibrate", &model, &path, "-o", &out, "--context", "64"]);
        let measured = json(&["calibrate", "--show", &out, "--json"])["entries"].clone();
        let compared = json(&compare)["reference"]["perplexity"].clone();
        figures.push((json(&eval)["summary"].clone(), compared, measured));
        assert_eq!(figures[0], figures[figures.len() - 1], "{name}");
        let marked = String::from_utf8_lossy(&run(&eval).stderr).contains("byte order mark");
        assert_eq!(marked, *name != "utf8.txt");
        let _ = std::fs::remove_file(&out);
    }
    // A prompt is read in the same way.
    std::fs::write(
        dir.path("prompt.txt"),
        [b"\xFF\xFE".to_vec(), "Once".encode_utf16().flat_map(u16::to_le_bytes).collect()].concat(),
    )
    .unwrap();
    let prompted =
        ["run", &model, "--prompt-file", &dir.path("prompt.txt"), "--tokens", "3", "--temperature", "0"];
    assert_eq!(
        ok(&prompted),
        ok(&["run", &model, "--prompt", "Once", "--tokens", "3", "--temperature", "0"])
    );
}

#[test]
fn no_command_measures_on_what_is_no_text() {
    let dir = Dir::new();
    let (model, out) = (gguf(&dir), dir.path("out.gguf"));
    let all = |path: &str| -> Vec<Vec<String>> {
        [
            &["eval", &model, path][..],
            &["compare", &model, &model, "--text", path],
            &["calibrate", &model, path, "-o", &out],
            &["sensitivity", &model, path, "-o", &out],
            &["quantize", &model, &out, "--type", "q8_0", "--calibration", path],
            &["quantize", &model, &out, "--type", "q8_0", "--check", path],
        ]
        .iter()
        .map(|command| command.iter().map(ToString::to_string).collect())
        .collect()
    };
    for (bytes, what) in [
        (&b"\x1f\x8b\x08\0 packed"[..], "gzip"),
        (b"\x28\xb5\x2f\xfd packed", "zstd"),
        (b"PK\x03\x04 packed", "zip"),
        (b"PAR1\x15\x04 columns PAR1", "Parquet"),
    ] {
        let path = dir.path("text.txt");
        std::fs::write(&path, bytes).unwrap();
        for command in all(&path) {
            let (code, text) = fails(&command.iter().map(String::as_str).collect::<Vec<_>>());
            assert!(code == 1 && text.contains(what) && text.contains("hint: "), "{command:?}: {text}");
            assert!(!std::path::Path::new(&out).exists(), "{command:?}");
        }
    }
    // Bytes that are no UTF-8 are counted, by each command.
    let path = dir.path("latin1.txt");
    std::fs::write(&path, b"Once upon a time\na caf\xE9. ".repeat(200)).unwrap();
    for command in all(&path) {
        let context = match command.iter().any(|a| a == "--check") {
            true => "--check-context",
            false if command.iter().any(|a| a == "--calibration") => "--calibration-context",
            false => "--context",
        };
        let args: Vec<&str> = command.iter().map(String::as_str).chain([context, "64"]).collect();
        let text = said(&args);
        let note =
            text.lines().find(|l| l.contains("not UTF-8")).unwrap_or_else(|| panic!("{args:?}: {text}"));
        assert!(note.contains("200 of 5000 bytes") && note.contains("0xE9 at byte 22, line 2"), "{note}");
        let _ = std::fs::remove_file(&out);
    }
}

#[test]
fn chunks_are_as_long_as_the_model_is_made_for() {
    let dir = Dir::new();
    let (model, out, text) = (gguf(&dir), dir.path("out.gguf"), demo("heldout.txt"));
    let commands: [(&str, Vec<&str>); 6] = [
        ("--context", vec!["eval", &model, &text, "--chunks", "2"]),
        ("--context", vec!["compare", &model, &model, "--text", &text, "--chunks", "2"]),
        ("--context", vec!["calibrate", &model, &text, "-o", &out, "--chunks", "2"]),
        ("--context", vec!["sensitivity", &model, &text, "-o", &out, "--chunks", "2"]),
        (
            "--check-context",
            vec!["quantize", &model, &out, "--type", "q8_0", "--check", &text, "--check-chunks", "2"],
        ),
        (
            "--calibration-context",
            vec![
                "quantize",
                &model,
                &out,
                "--type",
                "q8_0",
                "--calibration",
                &text,
                "--calibration-chunks",
                "2",
            ],
        ),
    ];
    for (option, command) in &commands {
        let default = said(command);
        let note = default.lines().find(|l| l.starts_with("note: the chunks have 128 tokens"));
        assert!(note.is_some_and(|n| n.contains(option)), "{command:?}: {default}");
        let _ = std::fs::remove_file(&out);
        let more = |n| said(&[&command[..], &[option, n]].concat());
        let long = more("160");
        assert!(
            long.contains("note: the chunks have 160 tokens") && long.contains(&format!("use {option} 128")),
            "{long}"
        );
        let _ = std::fs::remove_file(&out);
        assert!(!more("64").contains("note: the chunks"), "{command:?}");
        let _ = std::fs::remove_file(&out);
    }
    let found = json(&["eval", &model, &text, "--chunks", "2", "--json"]);
    assert_eq!(found["context"], 128);
    let found = json(&["compare", &model, &model, "--text", &text, "--chunks", "2", "--json"]);
    assert_eq!(found["context"], 128);
}

#[test]
fn the_process_of_a_chat_template_has_limits() {
    let dir = Dir::new();
    let plain = gguf(&dir);
    let (file, model) = (dir.path("t.jinja"), dir.path("m.gguf"));
    let with = |template: &str| {
        std::fs::write(&file, template).unwrap();
        let _ = std::fs::remove_file(&model);
        ok(&["edit", &plain, &model, "--set-file", &format!("tokenizer.chat_template:str={file}")]);
        ["run", &model, "--chat", "--prompt", "hi", "--tokens", "1"]
    };
    let set = |begin: &str, step: &str| {
        format!(
            "{{% set ns = namespace(x={begin}) %}}{{% for i in range(99999) %}}{{% set ns.x = {step} %}}{{% endfor %}}ok"
        )
    };
    for template in [
        set("{}", "{'a': ns.x}"),
        set("[]", "[[ns.x]]"),
        set("'a'", "ns.x + ns.x"),
        set("'a'", "'%s%s' % (ns.x, ns.x)"),
        set("'a'", &format!("ns.x|replace('a', '{}')", "a".repeat(64))),
        set("'a'", "[ns.x, ns.x]|join"),
        "{% set x %}0123456789{% endset %}".to_string()
            + &"{% set x %}{{ x }}{{ x }}{% endset %}".repeat(40)
            + "{{ x }}",
        "{% macro m(a) %}{{ a }}{{ a }}{% endmacro %}".to_string() + "{{ " + &"m(".repeat(60) + "'0123456789'"
            + &")".repeat(60) + " }}",
        "{{ 'a'|center(4000000000) }}{{ '%4000000000d'|format(1) }}".into(),
        "{% for i in range(99999) %}{% for j in range(999) %}{{ '0123456789' * 100 }}{% endfor %}{% endfor %}".into(),
        format!("{{{{ 1{} }}}}", " in [1]".repeat(2000)),
        format!("{{{{ ''{} }}}}", "|trim".repeat(2000)),
        "{#".to_string() + &"a".repeat(300_000) + "#}",
    ] {
        let (code, text) = fails(&with(&template));
        let start: String = template.chars().take(100).collect();
        assert!(code == 1 && text.starts_with("ggufkit: the chat template"), "{start}: {text}");
    }
    // Where there is a limit of processor time already, it is kept if it is lower: what takes long need not take as long here.
    let long = with(&set("'a'", "ns.x|indent(100000000)"));
    let limited = ["-c", "ulimit -t 1 && exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_ggufkit")];
    let out = std::process::Command::new("sh").args(limited).args(long).output().unwrap();
    let text = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.code() == Some(1) && text.contains("seconds of processor time"), "{out:?}");
    // The process is for templates alone.
    let out = run(&["__render-chat-template"]);
    assert!(out.status.success() && out.stdout.starts_with(b"!"), "{out:?}");
}

#[test]
fn the_newer_chat_template_is_converted() {
    let dir = Dir::new();
    let model = dir.path("model");
    std::fs::create_dir(&model).unwrap();
    for entry in std::fs::read_dir(demo("model")).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), format!("{model}/{}", entry.file_name().to_str().unwrap())).unwrap();
    }
    let config = format!("{model}/tokenizer_config.json");
    let mut json: serde_json::Value = serde_json::from_slice(&std::fs::read(&config).unwrap()).unwrap();
    json["chat_template"] = serde_json::json!({"default": "OLD", "rag": "RAG"});
    std::fs::write(&config, json.to_string()).unwrap();
    let out = dir.path("out.gguf");
    assert!(!said(&["convert", &model, &out]).contains("another one"));
    let shown = ok(&["inspect", &out]);
    let value = |key: &str| shown.lines().find(|l| l.trim_start().starts_with(key)).map(str::to_string);
    assert!(value("tokenizer.chat_template ").unwrap().contains("OLD"), "{shown}");
    assert!(value("tokenizer.chat_template.rag ").unwrap().contains("RAG"), "{shown}");
    std::fs::write(format!("{model}/chat_template.jinja"), "NEW").unwrap();
    let _ = std::fs::remove_file(&out);
    let text = said(&["convert", &model, &out]);
    assert!(text.contains("note: the chat template is that of chat_template.jinja"), "{text}");
    let shown = ok(&["inspect", &out]);
    assert!(shown.contains("NEW") && !shown.contains("OLD") && !shown.contains("RAG"), "{shown}");
}
