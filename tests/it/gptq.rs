//! Layer by layer, end to end: codes that make up for each other's errors, scales that move, and runs that go on.

use std::path::Path;

use crate::common::{self, Dir, demo, fails, json, ok, refs, run, stored, weights};
use serde_json::Value;

/// A source, its result, a scheme, and the calibration text, cut short: the tests are to be quick.
fn arguments(model: &str, out: &str, scheme: &str, more: &[&str]) -> Vec<String> {
    let text = demo("calibration.txt");
    let mut all = vec!["quantize", model, out, "--type", scheme, "--calibration", &text];
    for (name, value) in [("--calibration-context", "64"), ("--calibration-chunks", "24")] {
        if !more.contains(&name) {
            all.extend([name, value]);
        }
    }
    all.extend(more);
    all.into_iter().map(String::from).collect()
}

fn quantize(model: &str, out: &str, scheme: &str, more: &[&str]) -> String {
    ok(&refs(&arguments(model, out, scheme, more)))
}

/// The status and the message of a run that must fail.
fn refused(model: &str, out: &str, scheme: &str, more: &[&str]) -> (i32, String) {
    fails(&refs(&arguments(model, out, scheme, more)))
}

/// The small bundled model as GGUF.
fn tiny(dir: &Dir) -> String {
    common::gguf(dir)
}

/// The mean KL divergence from `model` on a text that was not calibrated with.
fn divergence(model: &str, other: &str) -> f64 {
    divergence_over("8", model, other)
}

/// The same over so many chunks of 128 tokens.
fn divergence_over(chunks: &str, model: &str, other: &str) -> f64 {
    let text = demo("heldout.txt");
    let few = ["--context", "128", "--chunks", chunks, "--exact", "--no-floor", "--json"];
    let found = json(&[&["compare", model, other, "--text", &text][..], &few].concat());
    found
        .pointer("/candidates/0/summary/against/kld/mean/value")
        .and_then(Value::as_f64)
        .unwrap_or_else(|| panic!("{found}"))
}

fn names(folder: &str) -> Vec<String> {
    let files = std::fs::read_dir(folder).unwrap();
    let mut names: Vec<_> = files.map(|f| f.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn copy(from: &str, to: &str) {
    std::fs::create_dir_all(to).unwrap();
    for name in names(from) {
        std::fs::copy(format!("{from}/{name}"), format!("{to}/{name}")).unwrap();
    }
}

#[test]
fn feedback_keeps_more_of_the_model() {
    let dir = Dir::new();
    let (model, out) = (common::first_layers(&dir, 1), dir.path("q.gguf"));
    let kld = |method: &str| {
        let more = ["--method", method, "--calibration-context", "128", "--calibration-chunks", "20"];
        let text = quantize(&model, &out, "q4_0", &more);
        ok(&["verify", &out]);
        (divergence(&model, &out), text)
    };
    let (search, _) = kld("search");
    let (gptq, text) = kld("gptq");
    assert!(gptq < 0.8 * search, "{search} {gptq}");
    assert!(text.contains("gptq"), "{text}");
}

/// What each result is as a file, whatever it is made with.
#[test]
fn bytes_depend_on_the_words_alone() {
    let dir = Dir::new();
    let (model, plain) = (tiny(&dir), dir.path("plain.gguf"));
    for method in ["gptq", "auto"] {
        let make = |name: &str, more: &[&str]| {
            quantize(&model, &dir.path(name), "q4_0", &[&["--method", method][..], more].concat());
            dir.read(name)
        };
        let truth = make("plain.gguf", &["--threads", "1"]);
        assert!(truth == make("x.gguf", &["--threads", "3"]), "{method}");
        assert!(truth == make("x.gguf", &["--memory", "64K"]), "{method}");
        assert!(truth == make("x.gguf", &["--threads", "2", "--no-mmap"]), "{method}");
        let (big, back) = (dir.path("big.gguf"), dir.path("back.gguf"));
        make("big.gguf", &["--endian", "big"]);
        ok(&["verify", &big]);
        ok(&["convert", &big, &back, "--endian", "little"]);
        assert!(truth == dir.read("back.gguf"), "{method}");
        // A source in the other order is the same model.
        ok(&["convert", &model, &dir.path("source.gguf"), "--endian", "big"]);
        let more = ["--method", method, "--endian", "little"];
        quantize(&dir.path("source.gguf"), &dir.path("x.gguf"), "q4_0", &more);
        assert!(truth == dir.read("x.gguf"), "{method}");
    }
    // Nothing is left beside the results.
    let wanted = ["back.gguf", "big.gguf", "plain.gguf", "source.gguf", "tiny.gguf", "x.gguf"];
    assert_eq!(dir.names(), wanted);
    assert!(Path::new(&plain).exists());
}

#[test]
fn every_method_makes_a_model() {
    let dir = Dir::new();
    let (model, out) = (tiny(&dir), dir.path("q.gguf"));
    let mut made = Vec::new();
    for method in ["search", "awq", "gptq", "awq+gptq", "auto"] {
        let text = quantize(&model, &out, "q4_0", &["--method", method]);
        ok(&["verify", &out]);
        assert_eq!(text.contains("loss"), method != "search", "{text}");
        let kld = divergence(&model, &out);
        let report: Value =
            serde_json::from_str(&quantize(&model, &out, "q4_0", &["--method", method, "--json"])).unwrap();
        for t in report["tensors"].as_array().unwrap() {
            let name = t["name"].as_str().unwrap();
            // Rows of down are no whole blocks; they are plain numbers.
            let layered = name.starts_with("blk.") && t["type"] == "q4_0" && method != "search";
            assert!(t["method"].is_object() || !layered, "{method} {name}");
            if !layered {
                continue;
            }
            let (by, ratio) =
                (t["method"]["name"].as_str().unwrap(), t["method"]["loss_ratio"].as_f64().unwrap());
            let known = match method {
                "awq" => vec!["search", "awq"],
                "gptq" => vec!["search", "gptq"],
                "awq+gptq" => vec!["search", "gptq", "awq", "awq+gptq"],
                _ => vec!["search", "gptq", "awq", "awq+gptq"],
            };
            assert!(known.contains(&by) && ratio.is_finite(), "{method} {name}: {by} {ratio}");
            assert!(method != "gptq" || ratio <= 1.0, "{name}: {ratio}");
        }
        made.push(kld);
    }
    println!("{made:?}");
    let [search, awq, gptq, both, auto] = made[..] else { unreachable!() };
    assert!(
        awq < 1.1 * search && gptq < 0.9 * search && both < 0.9 * search && auto < 0.9 * search,
        "{made:?}"
    );
}

/// Types that mix, that need importances, that no row fits; tensors that stay as they are.
#[test]
fn every_kind_of_scheme() {
    let dir = Dir::new();
    let (model, out) = (common::first_layers(&dir, 1), dir.path("q.gguf"));
    for scheme in ["q4_k_m", "iq2_xs", "tq2_0", "mxfp4", "nvfp4"] {
        quantize(&model, &out, scheme, &["--method", "gptq", "--force", "--calibration-chunks", "6"]);
        ok(&["verify", &out]);
        assert!(divergence_over("1", &model, &out).is_finite(), "{scheme}");
    }
    let more =
        ["--method", "auto", "--tensor", "blk.0=keep", "--tensor", "attn_v=f16", "--tensor", "ffn_up=q6_k"];
    quantize(&tiny(&dir), &out, "q5_1", &more);
    ok(&["verify", &out]);
    let same = "blk.0.attn_q.weight";
    assert_eq!(weights(&out, same), weights(&tiny(&dir), same));
}

#[test]
fn what_is_copied_is_copied() {
    let dir = Dir::new();
    let (model, out) = (tiny(&dir), dir.path("x.gguf"));
    for method in ["gptq", "auto"] {
        quantize(&model, &out, "f32", &["--method", method]);
        for name in ["blk.0.attn_norm.weight", "blk.1.ffn_down.weight", "output_norm.weight"] {
            assert!(stored(&model, name) == stored(&out, name), "{method} {name}");
        }
    }
}

/// Where a run is cut off, another goes on.
#[test]
fn runs_that_are_cut_off_go_on() {
    let dir = Dir::new();
    let model = tiny(&dir);
    let (state, out) = (dir.path("state"), dir.path("x.gguf"));
    let more = ["--method", "auto", "--state", &state];
    quantize(&model, &dir.path("truth.gguf"), "q4_0", &more[..2]);
    let truth = dir.read("truth.gguf");
    // Killed as soon as it has said that it has a layer; whatever it has by then.
    let all = arguments(&model, &out, "q4_0", &more);
    let mut child = common::program().args(&all).stdout(std::process::Stdio::null()).spawn().unwrap();
    while !Path::new(&format!("{state}/state.json")).exists() && child.try_wait().unwrap().is_none() {
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    let _ = child.kill();
    child.wait().unwrap();
    let index: Value = serde_json::from_slice(&dir.read("state/state.json")).unwrap();
    println!("cut off after {}", index["layers"]);
    let kept = dir.path("kept");
    copy(&state, &kept);

    // Once to the end, and then with nothing left to do.
    for _ in 0..2 {
        quantize(&model, &out, "q4_0", &more);
        assert!(dir.read("x.gguf") == truth);
    }
    // Threads and memory may be others, and so may the byte order.
    let more = ["--method", "auto", "--state", &kept, "--threads", "3", "--memory", "64K", "--endian", "big"];
    quantize(&model, &out, "q4_0", &more);
    ok(&["convert", &out, &dir.path("back.gguf"), "--endian", "little"]);
    assert!(dir.read("back.gguf") == truth);
    // Cut off before the first layer was whole.
    let early = dir.path("early");
    std::fs::create_dir(&early).unwrap();
    for name in ["layer-0", "layer-0.part", "vectors-1-0", "state.part"] {
        std::fs::write(format!("{early}/{name}"), "x").unwrap();
    }
    quantize(&model, &out, "q4_0", &["--method", "auto", "--state", &early]);
    assert!(dir.read("x.gguf") == truth);
}

#[test]
fn states_of_other_runs_and_damaged_ones_are_refused() {
    let dir = Dir::new();
    let model = tiny(&dir);
    let (state, out) = (dir.path("state"), dir.path("x.gguf"));
    let few = ["--calibration-chunks", "5", "--method", "gptq", "--state", &state];
    let say = |scheme: &str, more: &[&str]| {
        let (code, text) = refused(&model, &dir.path("y.gguf"), scheme, &[&few, more].concat());
        assert!(code == 1 && text.contains("hint"), "{more:?}: {text}");
        text
    };
    quantize(&model, &out, "q4_0", &few);
    let truth = dir.read("x.gguf");
    let others: [(&str, &[&str]); 6] = [
        ("q4_1", &[]),
        ("q4_0", &["--symmetric"]),
        ("q4_0", &["--calibration-context", "32"]),
        ("q4_0", &["--effort", "thorough"]),
        ("q4_0", &["--damping", "0.02"]),
        ("q4_0", &["--tensor", "attn_v=q8_0"]),
    ];
    for (scheme, more) in others {
        let text = say(scheme, more);
        assert!(text.contains("different run"), "{more:?}: {text}");
    }

    let original = dir.path("original");
    copy(&state, &original);
    let mut damaged = 0;
    for name in names(&original) {
        let bytes = std::fs::read(format!("{original}/{name}")).unwrap();
        let path = format!("{state}/{name}");
        let mut tries =
            vec![Vec::new(), bytes[..bytes.len() / 2].to_vec(), bytes[..bytes.len() - 1].to_vec()];
        let places = [0, 3, 9, 20, bytes.len() / 3, bytes.len() - 1];
        for at in places.into_iter().filter(|at| *at < bytes.len()) {
            let mut other = bytes.clone();
            other[at] ^= 0x11;
            tries.push(other);
        }
        for bad in tries {
            std::fs::write(&path, bad).unwrap();
            let text = say("q4_0", &[]);
            assert!(text.contains(&state), "{name}: {text}");
            damaged += 1;
        }
        if name == "state.json" {
            // Longer than any index, and than the memory: it is not read.
            std::fs::File::create(&path).unwrap().set_len(1 << 40).unwrap();
            assert!(say("q4_0", &[]).contains(&format!("{path}: ")));
        }
        std::fs::remove_file(&path).unwrap();
        if name != "state.json" {
            let (code, text) = refused(&model, &dir.path("y.gguf"), "q4_0", &few);
            assert!(code == 1 && text.contains(&name), "{name}: {text}");
        }
        std::fs::write(&path, bytes).unwrap();
    }
    assert!(damaged > 40);
    // What the program has not written, with a checksum that is right: other tensors, other lengths, no file at all.
    let path = format!("{state}/layer-0");
    let bytes = std::fs::read(&path).unwrap();
    let len = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let (records, rest) = (&bytes[8..8 + len], &bytes[8 + len..bytes.len() - 8]);
    for (key, value) in [("tensor", 999), ("tensor", 0), ("bytes", 1)] {
        let mut records: Value = serde_json::from_slice(records).unwrap();
        records[0][key] = value.into();
        let own: u64 = records.as_array().unwrap().iter().map(|r| r["bytes"].as_u64().unwrap()).sum();
        let text = serde_json::to_vec(&records).unwrap();
        let mut bad = (text.len() as u64).to_le_bytes().to_vec();
        bad.extend(text);
        bad.extend(&rest[..own as usize]);
        let mut hash = std::hash::DefaultHasher::new();
        std::hash::Hasher::write(&mut hash, &bad);
        bad.extend(std::hash::Hasher::finish(&hash).to_le_bytes());
        std::fs::write(&path, bad).unwrap();
        let text = say("q4_0", &[]);
        assert!(text.contains("layer-0: damaged"), "{key} {value}: {text}");
    }
    std::fs::remove_file(&path).unwrap();
    std::fs::create_dir(&path).unwrap();
    assert!(say("q4_0", &[]).contains("layer-0: damaged"));
    std::fs::remove_dir(&path).unwrap();
    std::fs::write(&path, bytes).unwrap();
    assert!(!dir.names().contains(&"y.gguf".to_string()));
    quantize(&model, &out, "q4_0", &few);
    assert!(dir.read("x.gguf") == truth);

    // A folder that holds something else.
    std::fs::write(dir.path("original/notes.txt"), "mine").unwrap();
    std::fs::remove_file(dir.path("original/state.json")).unwrap();
    let (code, text) =
        refused(&model, &dir.path("y.gguf"), "q4_0", &["--method", "gptq", "--state", &original]);
    assert!(code == 1 && text.contains("notes.txt") && text.contains("hint"), "{text}");
    let (code, text) = refused(&model, &dir.path("y.gguf"), "q4_0", &["--method", "gptq", "--state", &model]);
    assert!(code == 1 && text.contains("tiny.gguf"), "{text}");
}

#[test]
fn what_cannot_be_done_is_said() {
    let dir = Dir::new();
    let (model, out) = (tiny(&dir), dir.path("x.gguf"));
    for method in ["awq", "gptq", "awq+gptq", "auto"] {
        let (code, text) = fails(&["quantize", &model, &out, "--type", "q4_0", "--method", method]);
        assert!(code == 2 && text.contains("--calibration"), "{text}");
    }
    let with = |model: &str, text: &str, more: &[&str]| {
        fails(
            &[
                &["quantize", model, &out, "--type", "q4_0", "--method", "gptq", "--calibration", text][..],
                more,
            ]
            .concat(),
        )
    };
    let (code, text) = with(&model, &dir.path("no.txt"), &[]);
    assert!(code == 1 && text.contains("no.txt"), "{text}");
    std::fs::write(dir.path("short.txt"), "Once upon a time").unwrap();
    std::fs::write(dir.path("empty.txt"), "").unwrap();
    for short in ["short.txt", "empty.txt"] {
        let (code, text) = with(&model, &dir.path(short), &[]);
        assert!(code == 1 && text.contains("128") && text.contains("--calibration-context"), "{text}");
    }
    let (code, text) = with(&demo("tiny.bin"), &demo("calibration.txt"), &[]);
    assert!(code == 1 && text.contains("tokenizer") && text.contains("hint"), "{text}");
    let text = demo("calibration.txt");
    assert_eq!(with(&model, &text, &["--calibration-context", "4"]).0, 2);
    assert_eq!(with(&model, &text, &["--calibration-chunks", "0"]).0, 2);
    assert_eq!(refused(&model, &out, "q4_0", &["--method", "best"]).0, 2);
    // What has no importance of its own does not need one twice.
    assert_eq!(with(&model, &text, &["--imatrix", &out]).0, 2);
    assert_eq!(fails(&["quantize", &model, &out, "--type", "q4_0", "--state", &dir.path("s")]).0, 2);
    // A model that nothing here computes.
    common::all_types(&dir.path("all.gguf"));
    assert_eq!(with(&dir.path("all.gguf"), &text, &[]).0, 1);
    assert_eq!(dir.names(), ["all.gguf", "empty.txt", "short.txt", "tiny.gguf"]);

    // A plan needs no more than the text.
    let plan = run(&refs(&arguments(&model, &out, "q4_0", &["--method", "gptq", "--dry-run"])));
    assert!(plan.status.success() && !Path::new(&out).exists());
}

/// Weights that are no numbers, and tokens that the model does not have, are said rather than computed with.
#[test]
fn broken_models_are_refused() {
    let dir = Dir::new();
    let (model, bad, out) = (tiny(&dir), dir.path("bad.gguf"), dir.path("x.gguf"));
    let mut bytes = dir.read("tiny.gguf");
    let source = ggufkit::open(Path::new(&model), &Default::default()).unwrap();
    let t = source.model.tensors.iter().find(|t| t.name == "blk.1.ffn_up.weight").unwrap();
    let at = t.location.offset as usize + 40;
    for odd in [f32::NAN, f32::INFINITY, 3e38] {
        bytes[at..at + 4].copy_from_slice(&odd.to_le_bytes());
        std::fs::write(&bad, &bytes).unwrap();
        for method in ["search", "gptq", "awq"] {
            let (code, text) =
                refused(&bad, &out, "q4_0", &["--method", method, "--calibration-chunks", "5"]);
            // The largest weights are numbers, and what comes of them is not.
            let later = odd == 3e38 && method == "search";
            let part = if later { "blk.1.ffn_down" } else { "blk.1.ffn_up" };
            assert!(code == 1 && text.contains(part), "{odd} {method}: {text}");
        }
    }
    // Letters that the embedding has no rows for.
    let letter = |i: u32| char::from_u32(u32::from('a') + i - 520).filter(char::is_ascii_lowercase);
    let name = |i: u32| (i >= 520).then(|| letter(i)).flatten().map_or(format!("token {i}"), String::from);
    let names: Vec<String> = (0..600).map(name).collect();
    std::fs::write(dir.path("tokens.json"), serde_json::to_string(&names).unwrap()).unwrap();
    let set = format!("tokenizer.ggml.tokens={}", dir.path("tokens.json"));
    let gone = ["--remove", "tokenizer.ggml.scores", "--remove", "tokenizer.ggml.token_type"];
    ok(&[&["edit", &model, &bad, "--force"][..], &gone, &["--set-file", &set]].concat());
    let (code, text) = refused(&bad, &out, "q4_0", &["--method", "gptq"]);
    assert!(code == 1 && text.contains("512"), "{text}");
    assert!(!Path::new(&out).exists());
}

/// What comes of the output matrix, and of scales of whole tensors.
#[test]
fn the_output_and_scaled_types_are_made_too() {
    let dir = Dir::new();
    let (model, out) = (common::first_layers(&dir, 1), dir.path("q.gguf"));
    let report = quantize(&model, &out, "nvfp4", &["--method", "gptq", "--output-type", "q4_k", "--json"]);
    let report: Value = serde_json::from_str(&report).unwrap();
    let made = |t: &Value| (t["method"]["name"] == "gptq").then(|| t["type"].as_str().unwrap().to_string());
    let all = report["tensors"].as_array().unwrap();
    let output = all.iter().find(|t| t["name"] == "output.weight").unwrap();
    assert_eq!(made(output).as_deref(), Some("q4_k"));
    assert!(all.iter().filter_map(made).filter(|t| t == "nvfp4").count() > 0, "{report}");
    let kld = divergence(&model, &out);
    quantize(&model, &out, "nvfp4", &["--output-type", "q4_k"]);
    let search = divergence(&model, &out);
    assert!(kld < 0.9 * search, "{kld} {search}");
}

#[test]
fn biases_make_up_for_mean_errors() {
    let dir = Dir::new();
    let (model, plain, out) = (common::first_layers(&dir, 1), dir.path("plain.gguf"), dir.path("q.gguf"));
    quantize(&model, &plain, "q4_0", &[]);
    let without = divergence(&model, &plain);
    for method in ["search", "gptq", "awq+gptq"] {
        quantize(&model, &out, "q4_0", &["--method", method, "--bias-correction"]);
        ok(&["verify", &out]);
        let names = json(&["inspect", &out, "--json"]);
        let biases = names.to_string().matches(".bias\"").count();
        assert!(biases >= 7, "{biases}");
        // Of so few tokens, means alone say little.
        let most = if method == "search" { 1.1 } else { 1.0 };
        let with = divergence(&model, &out);
        assert!(with < most * without, "{method}: {with} {without}");
    }
    let bytes = dir.read("q.gguf");
    quantize(&model, &out, "q4_0", &["--method", "awq+gptq", "--bias-correction", "--threads", "1"]);
    assert!(bytes == dir.read("q.gguf"));
    ok(&["verify", &out, "--against", &model]);
    for (target, more) in [("x.bin", "q8_0"), ("x/", "bf16")] {
        let (code, text) = refused(&model, &dir.path(target), more, &["--bias-correction"]);
        assert!(code == 2 && text.contains("GGUF"), "{text}");
    }
    let (code, text) = refused(&model, &dir.path("x.gguf"), "nvfp4", &["--bias-correction"]);
    assert!(code == 2 && text.contains("nvfp4"), "{text}");
    // A model that has biases, in whatever type: they are f32 in the end.
    let (more, half) = (["--method", "gptq", "--bias-correction"], ["--tensor", "bias=f16"]);
    quantize(&out, &plain, "q4_0", &[&more[..], &half, &["--allow-requantize"]].concat());
    ok(&["verify", &plain]);
    assert_eq!(fails(&["quantize", &model, &out, "--type", "q4_0", "--bias-correction"]).0, 2);
}

/// Chunks from all over a text, by a number.
#[test]
fn seeds_choose_chunks() {
    let dir = Dir::new();
    let (model, out) = (tiny(&dir), dir.path("x.gguf"));
    let make = |seed: &str| {
        let few = ["--calibration-chunks", "5", "--method", "gptq"];
        quantize(&model, &out, "q4_0", &[&few[..], &["--calibration-seed", seed]].concat());
        dir.read("x.gguf")
    };
    let one = make("1");
    assert!(one == make("1") && one != make("2"));
    let (code, text) = refused(&model, &dir.path("x.bin"), "q8_0", &[]);
    assert!(code == 2 && text.contains("--calibration") && text.contains("are for GGUF only"), "{text}");
}
