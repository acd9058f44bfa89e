//! Measuring, as a user does it.

use crate::common::{Dir, demo, fails, gguf, json, ok, program, published, run};
use serde_json::Value;

fn number(v: &Value, path: &str) -> f64 {
    v.pointer(path).and_then(Value::as_f64).unwrap_or_else(|| panic!("{path} in {v:#}"))
}

/// The bundled model, the same in four bits, and a text.
fn models(dir: &Dir) -> [String; 3] {
    let (f16, q4) = (dir.path("f16.gguf"), dir.path("q4.gguf"));
    ok(&["convert", &demo("model"), &f16, "--type", "f16"]);
    ok(&["quantize", &demo("model"), &q4, "--type", "q4_0"]);
    let text: String = std::fs::read_to_string(demo("heldout.txt")).unwrap().chars().take(8_000).collect();
    std::fs::write(dir.path("text.txt"), text).unwrap();
    [f16, q4, dir.path("text.txt")]
}

#[test]
fn perplexity_and_divergence() {
    let dir = Dir::new();
    let [f16, q4, text] = models(&dir);
    let alone = json(&["eval", &f16, &text, "--context", "128", "--json"]);
    let perplexity = number(&alone, "/summary/perplexity/value");
    assert!((1.2..1.9).contains(&perplexity), "{perplexity}");
    assert_eq!(number(&alone, "/summary/tokens"), 63.0 * number(&alone, "/summary/chunks"));

    let beside = ["eval", &q4, &text, "--context", "128", "--reference", &f16, "--json"];
    let found = json(&beside);
    let kld = number(&found, "/summary/against/kld/mean/value");
    assert!((1e-4..3e-3).contains(&kld), "{kld}");
    assert_eq!(number(&found, "/summary/against/reference_perplexity/value"), perplexity);
    assert!(number(&found, "/kld_interval/low") < kld && kld < number(&found, "/kld_interval/high"));

    // A model beside itself.
    let few = ["--context", "128", "--chunks", "4", "--json"];
    let same = json(&[&["eval", &f16, &text, "--reference", &f16], &few[..]].concat());
    assert!(number(&same, "/summary/against/kld/max").abs() < 1e-9);
    assert_eq!(number(&same, "/summary/against/same_top/value"), 1.0);

    // The same numbers on one thread, with other instructions, in other batches of chunks.
    let beside = [&["eval", &q4, &text, "--reference", &f16], &few[..]].concat();
    let found = json(&beside);
    for more in
        ["--threads 1", "--batch 256", "--batch 128", "--batch 128 --threads 3", "--batch 96 --threads 3"]
    {
        let more: Vec<&str> = more.split(' ').collect();
        assert_eq!(json(&[&beside[..], &more].concat()), found, "{more:?}");
    }
    // Portable instructions are slow.
    let one = ["eval", &q4, &text, "--reference", &f16, "--context", "128", "--chunks", "1", "--json"];
    let out = program().args(one).env("GGUFKIT_ISA", "portable").output().unwrap();
    assert_eq!(serde_json::from_slice::<Value>(&out.stdout).unwrap(), json(&one));

    // A limit that is kept, and one that is not.
    let limited = |most: &'static str| [&beside[..], &["--max-kld", most]].concat();
    ok(&limited("0.01"));
    let (code, why) = fails(&limited("0.00001"));
    assert!(
        code == 3 && why.contains("above --max-kld"),
        "a limit that is missed has a status of its own: {why}"
    );
    // Without a reference, that is said before anything is read.
    let (code, why) = fails(&["eval", "/nowhere.gguf", &text, "--max-kld", "1"]);
    assert!(code == 2 && why.contains("--max-kld needs a reference") && why.contains("--reference"), "{why}");
}

#[test]
fn logits_files() {
    let dir = Dir::new();
    let [f16, q4, text] = models(&dir);
    let file = dir.path("base.kld");
    let options = ["--context", "128", "--chunks", "8", "--json"];
    let with = |args: &[&str]| json(&[args, &options].concat());
    with(&["eval", &f16, &text, "--save-logits", &file]);
    assert!(dir.read("base.kld").starts_with(b"_logits_"));
    // In the order of the text, also where threads have batches of their own.
    let again = dir.path("again.kld");
    with(&["eval", &f16, &text, "--save-logits", &again, "--batch", "128", "--threads", "3"]);
    assert!(dir.read("again.kld") == dir.read("base.kld"));
    let by_file = with(&["eval", &q4, &text, "--logits", &file]);
    let side_by_side = with(&["eval", &q4, &text, "--reference", &f16]);
    let kld = |v| number(v, "/summary/against/kld/mean/value");
    let (a, b) = (kld(&by_file), kld(&side_by_side));
    assert!((a / b - 1.0).abs() < 0.05, "{a} {b}");

    let bad = |args: &[&str]| fails(&[&["eval", &q4, &text, "--logits", &file], args].concat()).1;
    assert!(bad(&["--context", "64"]).contains("expected 64, found 128"));
    assert!(bad(&["--context", "128"]).contains("number of chunks"));
    std::fs::write(dir.path("other.txt"), "Once upon a time there was another text. ".repeat(300)).unwrap();
    let other = ["eval", &q4, &dir.path("other.txt"), "--logits", &file, "--context", "128", "--chunks", "8"];
    assert!(fails(&other).1.contains("different text"));
    let bytes = dir.read("base.kld");
    std::fs::write(&file, &bytes[..bytes.len() / 2]).unwrap();
    assert!(bad(&options).contains("base.kld"));
}

#[test]
fn strides_score_every_token() {
    let dir = Dir::new();
    let [f16, _, text] = models(&dir);
    let plain = json(&["eval", &f16, &text, "--context", "64", "--chunks", "20", "--json"]);
    let stride = json(&["eval", &f16, &text, "--context", "64", "--stride", "32", "--json"]);
    let tokens = number(&stride, "/summary/tokens");
    assert!(tokens > number(&plain, "/summary/tokens"));
    assert!((number(&stride, "/summary/chunks") - 1.0) * 32.0 + 63.0 == tokens);
    assert_eq!(fails(&["eval", &f16, &text, "--context", "64", "--stride", "64"]).0, 2);
}

/// Every form of a model is the same model.
#[test]
fn every_container_gives_the_same_numbers() {
    let dir = Dir::new();
    let little = gguf(&dir);
    let (big, safe, text) = (dir.path("big.gguf"), dir.path("tiny.safetensors"), dir.path("text.txt"));
    ok(&["convert", &little, &big, "--endian", "big"]);
    ok(&["convert", &little, &safe]);
    std::fs::write(&text, "a little text about nothing in particular, ".repeat(60)).unwrap();
    let eval = |model: &str, more: &[&str]| {
        let mut v = json(&[&["eval", model, &text, "--context", "32", "--json"], more].concat());
        v.as_object_mut().unwrap().remove("model");
        v
    };
    let truth = eval(&little, &[]);
    assert_eq!(eval(&big, &[]), truth);
    assert_eq!(eval(&safe, &[]), truth);
    assert_eq!(eval(&little, &["--no-mmap"]), truth);
    assert_eq!(eval(&demo("tiny.bin"), &["--tokenizer", &demo("tiny-tokenizer.bin")]), truth);
    for scheme in ["q8_0", "q4_0"] {
        let (one, other) = (dir.path("one.gguf"), dir.path("other.gguf"));
        ok(&["quantize", &little, &one, "--type", scheme]);
        ok(&["convert", &one, &other, "--endian", "big"]);
        assert_eq!(eval(&one, &[]), eval(&other, &[]), "{scheme}");
    }
    // Integers with their own scales, as llama2.c groups them.
    let groups = dir.path("int8.bin");
    ok(&["quantize", &demo("tiny.bin"), &groups, "--type", "int8"]);
    let found = eval(&groups, &["--tokenizer", &demo("tiny-tokenizer.bin")]);
    let (a, b) = (number(&found, "/summary/nll/value"), number(&truth, "/summary/nll/value"));
    assert!((a - b).abs() < 0.02, "{a} {b}");
}

#[test]
fn what_is_wrong_is_said() {
    let dir = Dir::new();
    let [f16, _, text] = models(&dir);
    let tiny = gguf(&dir);
    let says = |args: &[&str], what: &str| {
        let (_, message) = fails(args);
        assert!(message.contains(what), "{args:?}: {message}");
    };
    says(&["eval", &f16, &text, "--reference", &tiny], "1024 tokens and 512");
    says(&["eval", &f16, &text, "--context", "100000"], "need at least");
    says(&["eval", &f16, &dir.path("nothing.txt")], "nothing.txt");
    says(&["eval", &demo("tiny.bin"), &text], "--tokenizer FILE");
    says(
        &["logits", &f16, "--ids", "1,5000", &dir.path("x.safetensors")],
        "out of range: the vocabulary has",
    );
    says(&["bench", &demo("heldout.txt")], "heldout.txt");
    let cut = dir.path("cut.gguf");
    std::fs::write(&cut, &std::fs::read(&f16).unwrap()[..3_000_000]).unwrap();
    says(&["eval", &cut, &text], "truncated");
    assert!(!dir.names().contains(&"x.safetensors".to_string()));
    says(&["compare", &f16, &f16, "--text", &text, "--report", &dir.path("no/page.html")], "no/page.html");
    assert_eq!(fails(&["eval", &f16, &text, "--chunks", "0"]).0, 2);
}

#[test]
fn a_comparison_and_its_page() {
    let dir = Dir::new();
    let [_, q4, text] = models(&dir);
    let q8 = dir.path("q8 <&>.gguf");
    ok(&["quantize", &demo("model"), &q8, "--type", "q8_0"]);
    let page = dir.path("page.html");
    let args = ["compare", &demo("model"), &q8, &q4, "--text", &text, "--context", "128", "--report", &page];
    let table = ok(&args);
    assert!(table.contains("(floor)") && table.contains("q8 <&>"), "{table}");
    let html = String::from_utf8(dir.read("page.html")).unwrap();
    assert!(html.contains("<svg") && html.contains("q8 &lt;&amp;&gt;") && !html.contains("src=\"http"));
    let found = json(&[&args[..], &["--json"]].concat());
    let kld = |i: usize| number(&found, &format!("/candidates/{i}/summary/against/kld/mean/value"));
    assert!(kld(0) < kld(1) && number(&found, "/floor/against/kld/mean/value") < kld(0));
    assert!(number(&found, "/candidates/1/generate_tps") > 0.0);
    assert_eq!(found["candidates"][0]["tensors"].as_array().unwrap().len(), 30);
}

#[test]
fn quantizing_with_a_check() {
    let dir = Dir::new();
    let [_, _, text] = models(&dir);
    let out = dir.path("checked.gguf");
    let args =
        ["quantize", &demo("model"), &out, "--type", "q5_0", "--check", &text, "--check-context", "128"];
    assert!(ok(&args).contains("KLD"));
    std::fs::remove_file(&out).unwrap();
    let (code, why) = fails(&[&args[..], &["--max-kld", "1e-9"]].concat());
    assert!(code == 3 && why.contains("above --max-kld"), "{why}");
    assert!(
        why.contains(&format!("was written and kept: {out}")) && std::path::Path::new(&out).exists(),
        "{why}"
    );
    // A check that cannot be made is known before anything is written.
    let late =
        ["quantize", &demo("model"), &dir.path("late.gguf"), "--type", "q5_0", "--check", &dir.path("no")];
    fails(&late);
    assert!(!dir.names().contains(&"late.gguf".to_string()));
    // A folder gets a whole checkpoint, which is run; a file of its weights alone is not.
    let more = ["--type", "f16", "--check", &text, "--check-context", "128", "--check-chunks", "2"];
    let alone = dir.path("alone.safetensors");
    let (code, why) = fails(&[&["convert", &demo("model"), &alone][..], &more].concat());
    assert!(code == 2 && why.contains("no settings (config.json)") && why.contains("name a folder"), "{why}");
    assert!(!dir.names().contains(&"alone.safetensors".to_string()));
    let folder = dir.path("folder/");
    let printed = ok(&[&["convert", &demo("model"), &folder][..], &more].concat());
    assert!(printed.contains("KLD") && printed.contains("folder"), "{printed}");
    ok(&["verify", &folder, "--against", &demo("model")]);
    // From a GGUF, in shards, over what is there.
    let [f16, ..] = models(&dir);
    let more = [&more[..], &["--split-max-size", "2M", "--overwrite", "--json"]].concat();
    let found = json(&[&["convert", &f16, &folder][..], &more].concat());
    assert!(found["check"]["candidates"][0]["name"].as_str().unwrap().contains("folder"), "{found}");
}

#[test]
fn a_check_is_part_of_the_json() {
    let dir = Dir::new();
    let [_, _, text] = models(&dir);
    let out = dir.path("checked.gguf");
    let mut args = vec!["quantize", "", &out, "--type", "q5_0", "--check", &text, "--json"];
    args.extend(["--check-context", "128", "--check-chunks", "2"]);
    let model = demo("model");
    args[1] = &model;
    let found = json(&args);
    let kld = found["check"]["candidates"][0]["summary"]["against"]["kld"]["mean"]["value"].as_f64();
    assert!(found["written"] == true && kld.is_some_and(|kld| kld > 0.0), "{}", found["check"]);
    // A limit that is missed is said by the exit code and on standard error; the JSON is whole.
    args.extend(["--max-kld", "1e-9"]);
    let out = run(&args);
    assert_eq!(out.status.code(), Some(3));
    let again: Value = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!(again["check"]["chunks"], found["check"]["chunks"]);
    assert!(String::from_utf8_lossy(&out.stderr).contains("above --max-kld"));
}

/// What is said of the first model is said of those beside it.
#[test]
fn models_beside_another_have_notes_too() {
    let dir = Dir::new();
    let [f16, _, text] = models(&dir);
    let short = dir.path("short.gguf");
    ok(&["edit", &f16, &short, "--set", "llama.context_length=64"]);
    let rest = ["--context", "128", "--chunks", "2"];
    for command in
        [&["compare", &f16, &short, "--text", &text], &["eval", &f16, &text, "--reference", &short]]
    {
        let out = program().args(command).args(rest).output().unwrap();
        let said = String::from_utf8_lossy(&out.stderr).into_owned();
        assert!(out.status.success() && said.contains("context length is 64"), "{command:?}: {said}");
    }
}

#[test]
fn a_reference_of_fewer_bits_than_the_model_is_noted() {
    let dir = Dir::new();
    let [f16, q4, text] = models(&dir);
    let rest = ["--context", "128", "--chunks", "2"];
    // A checkpoint is an original, whatever its types.
    let (original, f32) = (demo("model"), dir.path("f32.gguf"));
    ok(&["convert", &original, &f32, "--type", "f32"]);
    let pairs = [(&q4, &f16, false), (&f16, &q4, true), (&f16, &f16, false), (&f32, &original, false)];
    for (model, reference, noted) in pairs {
        for command in [
            &["compare", reference, model, "--text", &text],
            &["eval", model, &text, "--reference", reference],
        ] {
            let out = program().args(command).args(rest).output().unwrap();
            let said = String::from_utf8_lossy(&out.stderr).into_owned();
            assert!(out.status.success(), "{command:?}: {said}");
            assert_eq!(said.contains("has fewer bits per weight"), noted, "{command:?}: {said}");
        }
    }
}

#[test]
fn speed_is_measured() {
    let found = json(&[
        "bench",
        &demo("model"),
        "--prompt",
        "40",
        "--generate",
        "3",
        "--repeats",
        "2",
        "--batch",
        "16",
        "--json",
    ]);
    for key in ["prompt_tokens_per_second", "generate_tokens_per_second", "weight_bytes_per_second"] {
        assert!(number(&found, &format!("/{key}/median")) > 0.0, "{key}");
    }
    assert!(number(&found, "/weight_bytes") > 6e6);
}

/// The logits that transformers computes for tiny checkpoints.
#[test]
#[ignore = "needs published files (see CONTRIBUTING.md)"]
fn logits_are_those_of_published_checkpoints() {
    let dir = Dir::new();
    for name in ["llama", "llama-tied-mha", "llama3-rope", "mistral", "qwen2", "qwen3"] {
        let checkpoint = published(&format!("data/reference-logits/{name}"));
        let reference = floats(&std::fs::read(format!("{checkpoint}/reference.safetensors")).unwrap());
        let ids: Vec<String> = reference.0.iter().map(u32::to_string).collect();
        let (f32, q8) = (dir.path(&format!("{name}.gguf")), dir.path(&format!("{name}-q8.gguf")));
        ok(&["convert", &checkpoint, &f32, "--type", "f32"]);
        ok(&["quantize", &checkpoint, &q8, "--type", "q8_0"]);
        let logits = |model: &str, more: &[&str]| {
            let out = dir.path("out.safetensors");
            ok(&[&["logits", model, &out, "--ids", &ids.join(",")], more].concat());
            floats(&std::fs::read(out).unwrap()).1
        };
        let exact = distance(&logits(&f32, &["--exact"]), &reference.1);
        assert!(exact < 1e-4, "{name}: {exact}");
        let direct = distance(&logits(&checkpoint, &["--exact"]), &reference.1);
        assert!(direct < 1e-4, "{name}: {direct}");
        let rounded = distance(&logits(&q8, &[]), &logits(&q8, &["--exact"]));
        assert!(rounded < 5e-2, "{name}: {rounded}");
    }
}

fn distance(a: &[f32], b: &[f32]) -> f64 {
    assert_eq!(a.len(), b.len());
    let error: f64 = a.iter().zip(b).map(|(a, b)| f64::from(a - b).powi(2)).sum();
    (error / b.iter().map(|b| f64::from(*b).powi(2)).sum::<f64>()).sqrt()
}

/// The ids and the logits of a safetensors file that has these two.
fn floats(bytes: &[u8]) -> (Vec<u32>, Vec<f32>) {
    let len = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let header: Value = serde_json::from_slice(&bytes[8..8 + len]).unwrap();
    let (mut ids, mut logits) = (Vec::new(), Vec::new());
    for (name, t) in header.as_object().unwrap().iter().filter(|(n, _)| *n != "__metadata__") {
        let at = |i: usize| t["data_offsets"][i].as_u64().unwrap() as usize;
        let data = &bytes[8 + len + at(0)..8 + len + at(1)];
        if name.contains("id") {
            let size = if t["dtype"] == "I64" { 8 } else { 4 };
            ids = data.chunks(size).map(|b| u32::from_le_bytes(b[..4].try_into().unwrap())).collect();
        } else if name.contains("logits") {
            logits = data.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
        }
    }
    (ids, logits)
}
