//! Sizes, end to end: what errors cost is measured, types are chosen by it, and the file is what was asked for.

use crate::common::{Dir, demo, fails, gguf, json, ok};
use serde_json::Value;

const TYPES: &str = "q2_k,q3_k,q4_k,q6_k,f16";

/// The larger bundled model as GGUF.
fn model(dir: &Dir) -> String {
    let out = dir.path("model.gguf");
    ok(&["convert", &demo("model"), &out, "--type", "f16"]);
    out
}

/// Sensitivities of a model, measured on little.
fn measured(dir: &Dir, model: &str, types: &str, probes: &str) -> String {
    let out = dir.path("sensitivity.json");
    let few = ["--context", "64", "--chunks", "4", "--types", types, "--probes", probes, "-o", &out];
    ok(&[&["sensitivity", model, &demo("calibration.txt")][..], &few].concat());
    out
}

fn read(path: &str) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn length(path: &str) -> u64 {
    std::fs::metadata(path).unwrap().len()
}

/// The mean KL divergence of a model whose products are exact, over the whole text.
fn divergence(dir: &Dir, model: &str, other: &str, text: &str) -> (f64, Option<f64>) {
    measured_as(dir, model, other, text, &["--exact"])
}

/// The same with products of a kind.
fn measured_as(dir: &Dir, model: &str, other: &str, text: &str, kind: &[&str]) -> (f64, Option<f64>) {
    let sensitivity = dir.path("sensitivity.json");
    let how = ["--context", "64", "--no-floor", "--json", "--sensitivity", &sensitivity];
    let found = json(&[&["compare", model, other, "--text", text][..], &how, kind].concat());
    let at = |path: &str| found.pointer(path).and_then(Value::as_f64);
    let kld = at("/candidates/0/summary/against/kld/mean/value").unwrap_or_else(|| panic!("{found}"));
    (kld, at("/candidates/0/predicted_kld"))
}

#[test]
fn what_a_matrix_costs_is_what_comparing_shows() {
    let dir = Dir::new();
    for (model, probe, tensors) in [
        (
            model(&dir),
            "q3_k",
            &["token_embd", "blk.0.attn_k", "blk.1.ffn_down", "blk.3.attn_output", "output"][..],
        ),
        // One whose embedding is the output too, and whose rows 256 does not divide.
        (gguf(&dir), "q4_0", &["token_embd", "blk.1.ffn_up"][..]),
    ] {
        // All chunks of a short text, so that both see the same tokens.
        let text = dir.path("text.txt");
        let all = std::fs::read_to_string(demo("heldout.txt")).unwrap();
        std::fs::write(&text, all.chars().take(1500).collect::<String>()).unwrap();
        let out = dir.path("sensitivity.json");
        let how = ["--context", "64", "--chunks", "1000", "--types", probe, "--probes", probe, "-o", &out];
        ok(&[&["sensitivity", &model, &text][..], &how].concat());
        let imatrix = dir.path("imatrix.gguf");
        ok(&["calibrate", &model, &text, "-o", &imatrix, "--context", "64", "--output-matrix"]);
        for name in tensors {
            let one = dir.path("one.gguf");
            let only = format!("^{}\\.weight$={probe}", name.replace('.', "\\."));
            let how = ["--type", "f32", "--tensor", &only, "--allow-requantize"];
            // A tied embedding is measured without importances.
            let known: &[&str] = if *name == "token_embd" { &[] } else { &["--imatrix", &imatrix] };
            ok(&[&["quantize", &model, &one][..], &how, known].concat());
            // Inputs of that one matrix are in 8 bits, and the prediction knows.
            let (kld, predicted) = measured_as(&dir, &model, &one, &text, &["--kv", "f32"]);
            let predicted = predicted.unwrap();
            assert!((predicted / kld - 1.0).abs() < 0.1, "{name}: {predicted} {kld}");
        }
    }
}

#[test]
fn files_have_the_size_that_was_asked_for() {
    let dir = Dir::new();
    let model = model(&dir);
    let sensitivity = measured(&dir, &model, TYPES, "q3_k");
    let known = read(&sensitivity);
    assert_eq!(known["matrices"].as_array().unwrap().len(), 4 * 7 + 2);
    assert!(known["cache"]["q8_0"].as_f64().unwrap() < 0.01);

    let (out, recipe) = (dir.path("small.gguf"), dir.path("small.toml"));
    let fit = |size: u64, more: &[&str]| {
        let size = size.to_string();
        let by = ["--size", &size, "--sensitivity", &sensitivity, "--types", TYPES];
        ok(&[&["quantize", &model, &out][..], &by, more].concat())
    };
    let text = fit(2_500_000, &["--write-recipe", &recipe]);
    let large = length(&out);
    assert!((2_450_000..=2_500_000).contains(&large), "{large}");
    assert!(text.contains("predicted KL divergence") && text.contains("next larger"), "{text}");
    // The recipe alone makes the same tensors.
    let again = dir.path("again.gguf");
    ok(&["quantize", &model, &again, "--recipe", &recipe]);
    assert_eq!(std::fs::read(&out).unwrap(), std::fs::read(&again).unwrap());
    let text = dir.path("text.txt");
    let all = std::fs::read_to_string(demo("heldout.txt")).unwrap();
    std::fs::write(&text, all.chars().take(6000).collect::<String>()).unwrap();
    let (better, foretold) = divergence(&dir, &model, &out, &text);
    let foretold = foretold.unwrap();
    assert!((0.5..2.0).contains(&(better / foretold)), "{better} {foretold}");

    // It beats the scheme of no smaller size, and more bytes are better than fewer.
    let scheme = dir.path("scheme.gguf");
    ok(&["quantize", &model, &scheme, "--type", "q4_k_s"]);
    fit(length(&scheme), &[]);
    assert!(length(&out) <= length(&scheme));
    let ours = divergence(&dir, &model, &out, &text).0;
    let usual = divergence(&dir, &model, &scheme, &text).0;
    assert!(ours < usual, "{ours} {usual}");
    assert!((better < ours) == (large > length(&out)), "{better} {ours}");

    // What the user decides stays decided, and only what is allowed is taken.
    fit(2_500_000, &["--tensor", "attn_v=q6_k", "--output-type", "q6_k"]);
    let plan = json(&["inspect", &out, "--json"]);
    for t in plan["tensors"].as_array().unwrap() {
        let (name, dtype) = (t["name"].as_str().unwrap(), t["type"].as_str().unwrap());
        if name.contains("attn_v") || name == "output.weight" {
            assert_eq!(dtype, "q6_k", "{name}");
        }
        assert!(TYPES.split(',').any(|t| t == dtype) || dtype == "f32", "{name} {dtype}");
    }
    assert!(length(&out) <= 2_500_000);

    // A type with a price is taken where the others would be worse by as much, and what is foretold has no price in it.
    let foretold = |text: &str| -> f64 {
        let (_, rest) = text.split_once("predicted KL divergence ").unwrap();
        rest.split_whitespace().next().unwrap().parse().unwrap()
    };
    let free = fit(2_500_000, &[]);
    let dear = fit(2_500_000, &["--price", "q6_k=1000000,q3_k=1"]);
    let plan = json(&["inspect", &out, "--json"]);
    assert!(plan["tensors"].as_array().unwrap().iter().all(|t| t["type"] != "q6_k"), "{plan}");
    assert!(foretold(&free) < foretold(&dear) && foretold(&dear) < 1.0, "{free} {dear}");

    // So many bits a weight.
    ok(&[
        "quantize",
        &model,
        &out,
        "--bits-per-weight",
        "4.25",
        "--sensitivity",
        &sensitivity,
        "--types",
        TYPES,
    ]);
    let found = json(&["frontier", &out, "--json"]);
    let bits = found["schemes"].as_array().map_or(0, Vec::len);
    assert!(bits > 0, "{found}");
    let inspected = ok(&["inspect", &out]);
    assert!(inspected.contains("4.2"), "{inspected}");
}

#[test]
fn impossible_wishes_are_told_what_would_be_possible() {
    let dir = Dir::new();
    let (model, out) = (model(&dir), dir.path("out.gguf"));
    let refused = |args: &[&str]| fails(&[&["quantize", &model, &out][..], args].concat());
    let (code, why) = refused(&["--size", "300K"]);
    assert_eq!(code, 1);
    assert!(
        why.contains("300.00 KiB (307200 bytes) is too little: the smallest possible is 1.")
            && why.contains("hint"),
        "{why}"
    );
    // Smaller types are there, if it is known which weights count, but none as small as that.
    assert!(!why.contains("--imatrix"), "{why}");
    let (_, why) = refused(&["--size", "1M"]);
    assert!(why.contains("add --imatrix FILE") && why.contains("add --calibration TEXT"), "{why}");
    let (_, why) = refused(&["--size", "1500K", "--types", "q8_0,f16"]);
    assert!(why.contains("leave out --types"), "{why}");
    let (code, why) = refused(&["--bits-per-weight", "1.2"]);
    assert!(code == 1 && why.contains("the smallest possible is 2."), "{why}");
    let (code, why) = refused(&["--fit", "50M"]);
    assert_eq!(code, 1);
    for part in [
        "for the system",
        "the smallest choice needs",
        "less 25.00 MiB",
        "use --fit 0.1G or more",
        "use --reserve",
    ] {
        assert!(why.contains(part), "{part}: {why}");
    }
    // What would not help is not offered.
    let (_, why) = refused(&["--fit", "20M", "--kv", "f16", "--runtime", "ggufkit"]);
    assert!(!why.contains("--kv q8_0") && !why.contains("use --reserve"), "{why}");
    for (args, part) in [
        (&["--fit", "8G", "--type", "q4_k"][..], "--fit chooses the types itself"),
        (&["--fit", "8G", "--size", "1G"], "cannot be used with"),
        (&["--type", "q4_k", "--types", "q4_k"], "--types needs a size budget"),
        (&["--size", "3M", "--context", "64"], "--fit"),
        (&["--fit", "8G", "--context", "100000"], "the model's context length is 256 tokens"),
        (&["--size", "3M", "--types", "nvfp4"], "--types cannot contain nvfp4"),
        (&["--size", "3M", "--types", "q9"], "q9"),
        (&["--type", "q4_k", "--price", "q4_k=2"], "--price needs a size budget"),
        (&["--size", "3M", "--price", "q4_k"], "must have the form TYPE=X"),
        (&["--size", "3M", "--price", "q4_k=0"], "must be a number above 0"),
        (&["--size", "3M", "--price", "q4_k=2,q4_k=3"], "appears twice"),
    ] {
        let (code, why) = refused(args);
        assert!(code == 2 && why.contains(part), "{args:?}: {why}");
    }
    let (code, why) = fails(&["quantize", &model, &dir.path("out.bin"), "--size", "3M"]);
    assert!(code == 2 && why.contains("--size is for GGUF only"), "{why}");
    assert!(!std::path::Path::new(&out).exists());
}

#[test]
fn a_machine_gets_what_it_can_hold() {
    let dir = Dir::new();
    let (model, out) = (model(&dir), dir.path("out.gguf"));
    // All of it would fit with plenty to spare.
    let text = ok(&["quantize", &model, &out, "--fit", "8G", "--dry-run"]);
    assert!(text.contains("8.00 GiB of RAM, 1.00 GiB of it reserved for the system"), "{text}");
    assert!(
        text.contains("with a context of 256 tokens, KV cache f16") && text.contains("estimated"),
        "{text}"
    );
    assert!(!std::path::Path::new(&out).exists());
    // Little machines have little systems.
    let text = ok(&["quantize", &model, &out, "--fit", "512M", "--dry-run"]);
    assert!(text.contains("512.00 MiB of RAM, 256.00 MiB of it reserved"), "{text}");
    // A tight one: the memory that is foretold is what `inspect` says of the file.
    let how = ["--fit", "31M", "--reserve", "2500K", "--kv", "f16", "--runtime", "ggufkit"];
    let text = ok(&[&["quantize", &model, &out][..], &how].concat());
    let found = json(&["inspect", &out, "--memory", "--json"]);
    let of = |i: usize| found["memory"][i]["needed"].as_u64().unwrap();
    let (total, room) = (of(2), 31 * 1024 * 1024 - 2500 * 1024);
    assert_eq!(
        (found["memory"][2]["runtime"].as_str(), found["memory"][2]["kv"].as_str()),
        (Some("ggufkit"), Some("f16"))
    );
    assert!(total <= room && total + 65_536 > room, "{total} {room}\n{text}");
    assert!(of(3) < total);
    assert!(ok(&["inspect", &out, "--memory", "--context", "64"]).contains("64 tokens"), "{text}");
}

#[test]
fn what_is_written_beside_a_model_comes_with_it() {
    let dir = Dir::new();
    let (model, recipe) = (model(&dir), dir.path("mine.toml"));
    // A run that fails leaves no recipe.
    let size = ["--size", "3M", "--write-recipe", &recipe];
    let (code, why) = fails(&[&["quantize", &model, &dir.path("nowhere/out.gguf")][..], &size].concat());
    assert!(code == 1 && why.contains("nowhere"), "{why}");
    assert!(!std::path::Path::new(&recipe).exists());
    ok(&[&["quantize", &model, &dir.path("out.gguf")][..], &size].concat());
    assert!(std::path::Path::new(&recipe).exists());
    std::fs::remove_file(&recipe).unwrap();
    ok(&[&["quantize", &model, &dir.path("out.gguf"), "--dry-run"][..], &size].concat());
    assert!(std::path::Path::new(&recipe).exists());
    // A file of sensitivities that cannot be written is found out before they are measured.
    let text = dir.path("short.txt");
    std::fs::write(&text, "Once upon a time. ".repeat(40)).unwrap();
    let none = dir.path("nowhere/new.json");
    let how = ["--size", "3M", "--sensitivity", &none, "--calibration", &text, "--calibration-context", "16"];
    let (code, why) = fails(&[&["quantize", &model, &dir.path("b.gguf")][..], &how].concat());
    assert!(code == 1 && why.contains("new.json") && why.contains("cannot create"), "{why}");
}

#[test]
fn a_frontier_of_a_small_model_needs_no_option() {
    let dir = Dir::new();
    let tiny = gguf(&dir);
    // No row of this model is a multiple of 256.
    let text = ok(&["frontier", &tiny]);
    assert!(text.contains("q8_0") && !text.contains("-0.000000"), "{text}");
    let (code, why) = fails(&["frontier", &tiny, "--types", "q4_k,q8_0,f16"]);
    assert!(code == 2 && why.contains("--types q4_k: no tensor can get it"), "{why}");
    // A scheme that loses next to nothing is compared with nothing.
    for model in [model(&dir), demo("model")] {
        let text = ok(&["frontier", &model]);
        assert!(text.lines().all(|l| l.len() < 130) && !text.contains("-0.000000"), "{text}");
    }
    // A page is HTML, whatever its name would promise.
    for command in [&["frontier", &tiny][..], &["compare", &tiny, &tiny, "--text", &demo("heldout.txt")]] {
        let (code, why) = fails(&[command, &["--report", &dir.path("page.pdf")]].concat());
        assert!(code == 2 && why.contains("the page is HTML, not pdf") && why.contains("page.html"), "{why}");
        assert!(!dir.names().contains(&"page.pdf".into()));
    }
    ok(&["frontier", &tiny, "--report", &dir.path("page.HTM")]);
}

#[test]
fn the_frontier_is_below_every_scheme() {
    let dir = Dir::new();
    let (model, page) = (model(&dir), dir.path("page.html"));
    let found = json(&["frontier", &model, "--json", "--report", &page]);
    let points = found["points"].as_array().unwrap();
    let at = |p: &Value, key: &str| p[key].as_f64().unwrap();
    for pair in points.windows(2) {
        assert!(at(&pair[0], "bytes") < at(&pair[1], "bytes") && at(&pair[0], "kld") >= at(&pair[1], "kld"));
    }
    let schemes = found["schemes"].as_array().unwrap();
    assert!(schemes.len() > 15);
    for s in schemes {
        let least = s["least_in_no_more_bytes"].as_f64();
        assert!(least.is_none_or(|l| l <= at(s, "kld") + 1e-6), "{s}");
    }
    let page = std::fs::read_to_string(page).unwrap();
    assert!(page.contains("<svg") && page.contains("q4_k_m"));
    let text = ok(&["frontier", &model, "--rows", "5"]);
    // Schemes that lose nothing (f32) have a KL divergence of 0, and no share of it.
    assert!(!text.contains("-0.0") && text.lines().all(|line| line.chars().count() < 140), "{text}");
    assert!(text.contains("iq4_xs") && text.contains("best at this size"), "{text}");
}

#[test]
fn sensitivities_are_kept_and_do_not_depend_on_threads() {
    let dir = Dir::new();
    let model = gguf(&dir);
    let text = demo("calibration.txt");
    let one = |name: &str, more: &[&str]| {
        let out = dir.path(name);
        let how =
            ["--context", "32", "--chunks", "3", "--types", "q4_0,q8_0", "--probes", "q4_0", "-o", &out];
        ok(&[&["sensitivity", &model, &text][..], &how, more].concat());
        std::fs::read_to_string(out).unwrap()
    };
    let all = one("a.json", &["--threads", "1"]);
    assert_eq!(all, one("b.json", &["--threads", "3"]));
    // With vectors on the disk.
    assert_eq!(all, one("c.json", &["--memory", "64K"]));

    // With a calibration text, what is not there is measured and kept; then it is read.
    let (kept, out) = (dir.path("kept.json"), dir.path("out.gguf"));
    let fit = || {
        ok(&[
            "quantize",
            &model,
            &out,
            "--size",
            "180K",
            "--types",
            "q4_0,q5_0,q8_0,f16",
            "--calibration",
            &text,
            "--calibration-chunks",
            "4",
            "--calibration-context",
            "32",
            "--sensitivity",
            &kept,
        ])
    };
    assert!(fit().contains("measured on"));
    let first = std::fs::read(&kept).unwrap();
    fit();
    assert_eq!(first, std::fs::read(&kept).unwrap());
}

#[test]
fn broken_sensitivities_are_told() {
    let dir = Dir::new();
    let (model, out, path) = (gguf(&dir), dir.path("out.gguf"), dir.path("s.json"));
    let how = ["--context", "32", "--chunks", "2", "--types", "q4_0,q8_0", "--probes", "q4_0", "-o", &path];
    ok(&[&["sensitivity", &model, &demo("calibration.txt")][..], &how].concat());
    let good = std::fs::read_to_string(&path).unwrap();
    let refused = |text: &str| {
        std::fs::write(&path, text).unwrap();
        let args =
            ["quantize", &model, &out, "--size", "150K", "--types", "q4_0,q8_0", "--sensitivity", &path];
        fails(&args).1
    };
    for part in [0, 1, 10, good.len() / 2, good.len() - 3] {
        assert!(refused(&good[..part]).contains("not a sensitivity file"));
    }
    for (from, to, says) in [
        ("ggufkit sensitivity 1", "ggufkit sensitivity 9", "unsupported format"),
        ("\"q8_0\":", "\"q9_9\":", "is not a tensor type"),
        ("\"q4_0\":", "\"q4_0\": \"x\", \"q5_0\":", "is not a number"),
        ("\"kld\":", "\"kld\": 1, \"more\":", "unknown field"),
        ("\"cache\": {", "\"cache\": {\"f32\": 1e9,", "is not a KL divergence or error"),
        (
            "blk.0.attn_q.weight",
            "blk.0.attn_x.weight",
            "blk.0.attn_q.weight: its sensitivity to quantization errors is not known",
        ),
    ] {
        let why = refused(&good.replacen(from, to, if from == "blk.0.attn_q.weight" { 1 } else { 2 }));
        assert!(why.contains(says), "{from}: {why}");
    }
    let (code, why) =
        fails(&["quantize", &model, &out, "--size", "150K", "--sensitivity", &dir.path("none.json")]);
    assert!(code == 1 && why.contains("none.json"), "{why}");
}

#[test]
fn what_goes_with_weights_is_counted() {
    let dir = Dir::new();
    let (model, tiny, out) = (model(&dir), gguf(&dir), dir.path("out.gguf"));
    // Nothing is quantized in the end, so settings that would say how are not there.
    ok(&["quantize", &tiny, &out, "--fit", "8G", "--types", "f16"]);
    // Files of a split have headers of their own.
    let size = ["--size", "2500000", "--split-max-size", "600K"];
    ok(&[&["quantize", &model, &dir.path("split.gguf")][..], &size].concat());
    let parts: Vec<u64> =
        dir.names().iter().filter(|n| n.starts_with("split-")).map(|n| length(&dir.path(n))).collect();
    let all: u64 = parts.iter().sum();
    assert!(parts.len() > 3 && (2_300_000..=2_500_000).contains(&all), "{parts:?}");
    // Biases come with what is quantized.
    let text = demo("calibration.txt");
    let few = ["--calibration", &text, "--calibration-context", "32", "--calibration-chunks", "3"];
    let bias = ["--size", "2400000", "--types", "q4_k,f16", "--bias-correction", "--json"];
    let found = json(&[&["quantize", &model, &out][..], &few, &bias].concat());
    assert_eq!(found["fit"]["bytes"].as_u64(), Some(length(&out)));
    assert!(
        length(&out) <= 2_400_000 && found["fit"]["predicted_kld"].as_f64().unwrap() > 0.0,
        "{}",
        found["fit"]
    );
    // What is strict is the choice, not what is tried on the way.
    ok(&["quantize", &tiny, &out, "--bits-per-weight", "12", "--strict"]);
}

#[test]
fn what_is_quantized_already_stays_where_that_is_best() {
    let dir = Dir::new();
    let (model, small, out) = (model(&dir), dir.path("small.gguf"), dir.path("out.gguf"));
    ok(&["quantize", &model, &small, "--type", "q4_0"]);
    for more in [&[][..], &["--allow-requantize"]] {
        ok(&[&["quantize", &small, &out, "--fit", "8G"][..], more].concat());
        assert_eq!(length(&out), length(&small), "{more:?}");
    }
    let (code, why) = fails(&["quantize", &small, &out, "--size", "1200K"]);
    assert!(code == 1 && why.contains("too little"), "{why}");
    ok(&["quantize", &small, &out, "--size", "1250K", "--types", "q2_k,q3_k", "--allow-requantize"]);
    assert!(length(&out) <= 1250 << 10);
}

#[test]
fn nothing_is_written_over_what_is_read() {
    let dir = Dir::new();
    let (model, out) = (gguf(&dir), dir.path("out.gguf"));
    let text = demo("calibration.txt");
    let before = std::fs::read(&model).unwrap();
    let fit = ["quantize", &model, &out, "--fit", "8G"];
    for args in [
        vec!["sensitivity", &model, &text, "-o", &model],
        vec!["frontier", &model, "--report", &model],
        [&fit[..], &["--write-recipe", &model]].concat(),
        [&fit[..], &["--write-recipe", &out]].concat(),
    ] {
        let (code, why) = fails(&args);
        let says = why.contains("is read in this run") || why.contains("is named by OUT and by");
        assert!(code == 2 && says, "{args:?}: {why}");
    }
    let none = dir.path("none.json");
    let measuring =
        ["--sensitivity", &none, "--calibration", &text, "--calibration-context", "32", "--dry-run"];
    let (code, why) = fails(&[&fit[..], &measuring].concat());
    assert!(code == 2 && why.contains("a dry run does not measure it"), "{why}");
    assert_eq!(std::fs::read(&model).unwrap(), before);
    assert!(!std::path::Path::new(&none).exists() && !std::path::Path::new(&out).exists());
}

#[cfg(target_os = "linux")]
#[test]
fn a_model_runs_in_the_addresses_that_are_foretold() {
    let dir = Dir::new();
    let model = model(&dir);
    let found = json(&["inspect", &model, "--memory", "--json"]);
    let total = found["memory"][2]["total"].as_u64().unwrap();
    // The whole context, under a limit of addresses.
    let shell = format!(
        "ulimit -v {} && exec {} bench {model} --no-mmap --prompt 256 --generate 8 --repeats 1 --threads 2",
        total / 1024,
        env!("CARGO_BIN_EXE_ggufkit")
    );
    let out = std::process::Command::new("sh").args(["-c", &shell]).output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
}
