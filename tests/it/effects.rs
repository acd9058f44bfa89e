//! Options that change nothing: whoever gives one is told so.

use crate::common::{Dir, demo, fails, first_layers, ok, program, run};
use crate::hub::{checkpoint, config, tensors};

/// What a dry run of `quantize` notes with these options, of the bundled model.
fn notes(more: &[&str]) -> String {
    let model = demo("model");
    let args = [&["quantize", &model, "none.gguf", "--dry-run"][..], more].concat();
    ok(&args).lines().filter(|line| line.starts_with("note:")).collect::<Vec<_>>().join("\n")
}

#[test]
fn options_of_the_search_name_the_types_that_ignore_them() {
    let dir = Dir::new();
    let imatrix = dir.path("i.gguf");
    ok(&["calibrate", &demo("model"), "builtin", "-o", &imatrix, "--context", "64", "--chunks", "1"]);
    // Without importances, and in the types of other tensors, the search would do something else.
    let matrices_alone = |dtype, effort| {
        [
            "--type",
            dtype,
            "--effort",
            effort,
            "--imatrix",
            &imatrix,
            "--output-type",
            "f16",
            "--embedding-type",
            "f16",
        ]
    };
    for (given, idle) in [
        (&["--type", "mxfp4", "--effort", "thorough"][..], "--effort has no effect on mxfp4"),
        (&["--type", "mxfp4", "--effort", "fast"], "--effort has no effect on mxfp4"),
        (&["--type", "nvfp4", "--effort", "thorough", "--pure"], "--effort has no effect on nvfp4"),
        (&["--type", "q1_0", "--effort", "fast"], "--effort has no effect on q1_0"),
        (&matrices_alone("iq4_nl", "thorough"), "--effort has no effect on iq4_nl"),
        (&matrices_alone("q5_0", "fast"), "--effort has no effect on q5_0"),
        (&["--type", "q8_0", "--objective", "prior"], "--objective has no effect on q8_0"),
        (&["--type", "mxfp4", "--objective", "prior"], "--objective has no effect on"),
        (
            &["--type", "f16", "--effort", "fast", "--objective", "error"],
            "no tensor gets a type whose scales are searched",
        ),
        (&["--type", "bf16", "--imatrix", &imatrix], "is not used: none of its tensors is quantized"),
        (&["--type", "q8_0", "--pure"], "--pure has no effect here"),
        (&["--type", "q8_0", "--split-max-size", "1G"], "the result is not split"),
    ] {
        let text = notes(given);
        assert!(text.contains(idle), "{given:?}: {text}");
    }
    for given in [
        &["--type", "q4_k_m", "--effort", "thorough", "--objective", "prior"][..],
        &["--type", "q4_0", "--effort", "fast", "--objective", "error"],
        &["--type", "nvfp4", "--effort", "fast"],
        &["--type", "mxfp4"],
        &["--type", "mxfp4", "--objective", "error"],
        &["--type", "q4_k_m", "--pure"],
        &["--type", "q4_k_m", "--split-max-size", "1M"],
    ] {
        let text = notes(given);
        assert!(!text.contains("effect") && !text.contains("not split"), "{given:?}: {text}");
    }
}

#[test]
fn types_that_no_tensor_gets_are_noted() {
    let both = ["--type", "q4_0", "--output-type", "q8_0", "--embedding-type", "q6_k"];
    assert!(!notes(&both).contains("no effect"));
    let first = ["--type", "q4_0", "--output-type", "q8_0", "--tensor", "^output.weight=f16"];
    assert!(notes(&first).contains("--output-type has no effect here: no tensor has its type from it"));
    let untied = [&first[..], &["--embedding-type", "q6_k"]].concat();
    assert!(notes(&untied).contains("--output-type has no effect here: no tensor has its type from it"));
    let dir = Dir::new();
    let mut settings = config("LlamaForCausalLM");
    settings["tie_word_embeddings"] = true.into();
    let tied = checkpoint(&dir, "tied", &settings, &tensors(&[])[1..]);
    let said = |more: &[&str]| ok(&[&["quantize", &tied, "o.gguf", "--dry-run", "--type"], more].concat());
    assert!(!said(&["q4_0", "--output-type", "q8_0"]).contains("no effect"));
    let text = said(&["q4_0", "--output-type", "q8_0", "--embedding-type", "f16"]);
    assert!(text.contains("the output matrix is the token embedding, which has its type from"), "{text}");
}

#[test]
fn biases_are_for_programs_that_load_them() {
    let dir = Dir::new();
    let (model, out) = (first_layers(&dir, 1), dir.path("q.gguf"));
    let short = ["--calibration", "builtin", "--calibration-context", "64", "--calibration-chunks", "2"];
    let quantize =
        |more: &[&str]| run(&[&["quantize", &model, &out, "--bias-correction"][..], &short, more].concat());
    let text = String::from_utf8(quantize(&["--type", "f16"]).stdout).unwrap();
    assert!(text.contains("--bias-correction has no effect here"), "{text}");
    let done = quantize(&["--type", "q4_0", "--for", "llama.cpp-tiger"]);
    let why = String::from_utf8(done.stderr).unwrap();
    assert!(done.status.code() == Some(1) && why.contains("blk.0.ffn_down.bias"), "{why}");
    assert!(why.contains("hint: leave out --bias-correction"), "{why}");
    let done = quantize(&["--type", "q4_0", "--for", "llama.cpp"]);
    assert!(done.status.success() && !String::from_utf8(done.stdout).unwrap().contains("no effect"));
    // A file that has such biases already.
    let (code, why) = fails(&["convert", &out, &dir.path("be.gguf"), "--for", "llama.cpp-tiger"]);
    assert!(code == 1 && why.contains("have biases") && why.contains("current llama.cpp runs it"), "{why}");
}

#[test]
fn options_for_something_else_are_refused() {
    let dir = Dir::new();
    let (model, a, out) = (demo("model"), dir.path("a.gguf"), dir.path("out.gguf"));
    ok(&["calibrate", &model, "builtin", "-o", &a, "--context", "64", "--chunks", "1"]);
    for (args, says) in [
        (&["calibrate", "--merge", &a, "-o", &out, "--context", "64"][..], "--context is for measuring"),
        (
            &["calibrate", "--merge", &a, "-o", &out, "--threads", "2", "--memory", "1G"],
            "--threads and --memory are for",
        ),
        (&["calibrate", "--show", &a, "--output-matrix"], "--output-matrix is for measuring"),
        (&["calibrate", "--show", &a, "--no-mmap", "--chunks", "2"], "are for measuring"),
        (
            &[
                "quantize",
                &model,
                &out,
                "--bits-per-weight",
                "6",
                "--types",
                "q4_0,q8_0",
                "--price",
                "q8_0=2,q5_0=2",
            ],
            "--price q5_0: has no effect",
        ),
        (&["quantize", &model, &out, "--size", "4M", "--price", "mxfp4=2"], "--price mxfp4: has no effect"),
    ] {
        let (code, why) = fails(args);
        assert!(code == 2 && why.contains(says) && why.contains("hint: leave "), "{args:?}: {why}");
    }
    let seed = ["--calibration-seed", "3", "--calibration-chunks", "9999", "--calibration-context", "64"];
    let text = notes(&[&["--type", "q8_0", "--calibration", "builtin"][..], &seed].concat());
    assert!(text.contains("--calibration-seed has no effect here: all"), "{text}");
    let done = program().args(["frontier", &model, "--json", "--rows", "3"]).output().unwrap();
    let said = String::from_utf8(done.stderr).unwrap();
    assert!(done.status.success() && said.contains("--rows has no effect here"), "{said}");
}

#[test]
fn sizes_are_read_as_people_write_them() {
    let dir = Dir::new();
    let model = demo("model");
    for size in ["8 GB", "8GiB", "8g", "0.5T", "8000000000"] {
        ok(&["quantize", &model, "none.gguf", "--dry-run", "--fit", size]);
        ok(&["quantize", &model, "none.gguf", "--dry-run", "--size", size]);
    }
    for reserve in ["0", "0G", "1M"] {
        ok(&["quantize", &model, "none.gguf", "--dry-run", "--fit", "64M", "--reserve", reserve]);
    }
    for option in ["--fit", "--size"] {
        for (size, code, says) in [
            ("0", 2, "less than a byte"),
            ("-1", 2, "less than nothing"),
            ("-4G", 2, "less than nothing"),
            ("1e30", 2, "more than any machine"),
            ("4,5G", 2, "decimal point"),
            ("four", 2, "not a size such as"),
            ("", 2, "not a size such as"),
            ("8", 1, "in bytes: is "),
            ("1", 1, "1 byte"),
        ] {
            let (found, why) = fails(&["quantize", &model, "none.gguf", "--dry-run", option, size]);
            assert!(found == code && why.contains(says), "{option} {size}: {found} {why}");
        }
    }
    let text = ok(&["frontier", &model, "--rows", "2"]);
    assert!(text.contains("memory in llama.cpp, 256 tokens"), "{text}");

    // A folder for finished layers is one of its own.
    let (file, folder) = (dir.path("file"), dir.path("folder"));
    std::fs::write(&file, "some text").unwrap();
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(format!("{folder}/state.json"), "{\"run\": 1}").unwrap();
    let mut others =
        vec![(model.clone(), "is a folder of other files"), (file, "is a file"), (folder, "not the state")];
    if cfg!(unix) {
        others.push(("/dev/null".into(), "is a file"));
    }
    for (state, says) in others {
        let (code, why) = fails(&[
            "quantize",
            &model,
            &dir.path("q.gguf"),
            "--type",
            "q4_0",
            "--method",
            "gptq",
            "--calibration",
            "builtin",
            "--calibration-context",
            "64",
            "--calibration-chunks",
            "1",
            "--state",
            &state,
        ]);
        assert!(code == 1 && why.contains(says), "{why}");
        assert!(why.contains("hint: name an empty or new folder"), "{why}");
    }
}
