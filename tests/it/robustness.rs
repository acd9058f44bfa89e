//! The binary on wrong usage, bad weights, odd names, and in the middle of which it is stopped.

use std::path::Path;
use std::process::Command;

use crate::common::{Dir, demo, fails, gguf, json, ok, program, run};

#[test]
fn large_and_small_weights_are_measured_as_they_are() {
    let dir = Dir::new();
    let gguf = gguf(&dir);
    let info = json(&["inspect", "--json", &gguf]);
    let t = &info["tensors"][5];
    let (at, len) = (t["offset"].as_u64().unwrap() as usize, t["bytes"].as_u64().unwrap() as usize);
    for (factor, scheme, low, high) in [(1e30, "bf16", 1e-4, 1e-2), (1e-25, "q8_0", 0.99, 1.01)] {
        let mut bytes = dir.read("tiny.gguf");
        for b in bytes[at..at + len].as_chunks_mut::<4>().0 {
            *b = (f32::from_le_bytes(*b) * factor).to_le_bytes();
        }
        std::fs::write(dir.path("scaled.gguf"), bytes).unwrap();
        let report = json(&[
            "quantize",
            &dir.path("scaled.gguf"),
            &dir.path("q.gguf"),
            "--type",
            scheme,
            "--pure",
            "--json",
        ]);
        let error = report["tensors"][5]["relative_error"].as_f64().unwrap();
        assert!(low < error && error < high, "{scheme}: {error}");
    }
}

#[test]
fn what_the_user_sets_stays() {
    let dir = Dir::new();
    let gguf = gguf(&dir);
    let out = dir.path("q.gguf");
    ok(&["quantize", &gguf, &out, "--type", "q4_0", "--set", "general.file_type=99", "--output-type", "f16"]);
    let info = json(&["inspect", "--json", &out]);
    assert!(info["metadata"].as_array().unwrap().iter().any(|m| m[0] == "general.file_type" && m[2] == 99));
    // The demo's embedding is its output.
    assert!(
        info["tensors"]
            .as_array()
            .unwrap()
            .iter()
            .any(|t| t["name"] == "token_embd.weight" && t["type"] == "f16")
    );
    for args in [
        &["--align", "64", "--set", "general.alignment=32"][..],
        &["--set", "split.count=3"],
        &["--pure"],
        &["--group-size", "32"],
        &["--threads", "0"],
    ] {
        let (code, text) = fails(&[&["convert", &gguf, &dir.path("x.gguf")][..], args].concat());
        assert_eq!(code, 2, "{args:?}: {text}");
    }
}

#[test]
fn names_from_files_do_not_reach_the_terminal_raw() {
    let dir = Dir::new();
    let gguf = gguf(&dir);
    let mut bytes = dir.read("tiny.gguf");
    let at = bytes.windows(19).position(|w| w == b"blk.0.attn_q.weight").unwrap();
    bytes[at..at + 4].copy_from_slice(b"\x1b[2J");
    bytes[at + 4] = b'\n';
    std::fs::write(dir.path("names.gguf"), bytes).unwrap();
    for args in [&["inspect", "--tensors"][..], &["verify", "--against", &gguf]] {
        let out = run(&[args, &[&dir.path("names.gguf")]].concat());
        for text in [out.stdout, out.stderr] {
            assert!(!text.contains(&0x1b), "{args:?}");
        }
    }
}

#[test]
fn wrong_usage_exits_with_2_and_bad_files_with_1() {
    let dir = Dir::new();
    let gguf = gguf(&dir);
    let out = dir.path("out.gguf");
    for args in [
        &["quantize", &gguf, &out][..],
        &["quantize", &gguf, &out, "--type", "q9_9"],
        &["convert", &gguf, &dir.path("out.xyz")],
        &["convert", &gguf, &out, "--tensor", "(=f16"],
        &["convert", &gguf, &out, "--tensor", "a=f17"],
        &["convert", &gguf, &out, "--align", "24"],
        &["convert", &gguf, &out, "--memory", "0"],
        &["convert", &gguf, &dir.path("x.safetensors"), "--endian", "big"],
        &["convert", &gguf, &dir.path("x.bin"), "--type", "q4_0"],
        &["convert", &gguf, &gguf],
        &["split", &gguf, &out],
        &["nonsense"],
    ] {
        let (code, text) = fails(args);
        assert_eq!(code, 2, "{args:?}: {text}");
    }
    let whole = dir.read("tiny.gguf");
    std::fs::write(dir.path("cut.gguf"), &whole[..whole.len() / 2]).unwrap();
    std::fs::write(dir.path("noise.gguf"), [7; 1000]).unwrap();
    std::fs::write(dir.path("empty.gguf"), []).unwrap();
    std::fs::create_dir(dir.path("folder")).unwrap();
    let bin = std::fs::read(demo("tiny.bin")).unwrap();
    std::fs::write(dir.path("cut.bin"), &bin[..bin.len() - 8]).unwrap();
    for name in ["cut.gguf", "noise.gguf", "empty.gguf", "missing.gguf", "folder", "cut.bin"] {
        let (code, text) = fails(&["convert", &dir.path(name), &out]);
        assert!(code == 1 && text.contains(name), "{name}: {text}");
    }
    assert!(fails(&["inspect", &dir.path("cut.gguf")]).1.contains("truncated"));
    assert!(fails(&["inspect", &dir.path("cut.bin")]).1.contains("truncated"));
    assert_eq!(fails(&["convert", &gguf, &dir.path("no/such/folder.gguf")]).0, 1);
    assert!(!Path::new(&out).exists());
    let out = program().env("GGUFKIT_ISA", "mmx").args(["inspect", &gguf]).output().unwrap();
    assert_eq!(out.status.code(), Some(2));
}

#[test]
fn quantized_weights_are_quantized_again_only_with_leave() {
    let dir = Dir::new();
    let gguf = gguf(&dir);
    let q8 = dir.path("q8.gguf");
    ok(&["quantize", &gguf, &q8, "--type", "q8_0"]);
    let (code, text) = fails(&["quantize", &q8, &dir.path("q4.gguf"), "--type", "q4_0"]);
    assert!(code == 1 && text.contains("--allow-requantize"), "{text}");
    ok(&["quantize", &q8, &dir.path("q4.gguf"), "--type", "q4_0", "--allow-requantize"]);
    ok(&["quantize", &q8, &dir.path("f16.gguf"), "--type", "f16"]);
    ok(&["quantize", &q8, &dir.path("again.gguf"), "--type", "q8_0"]);
    assert!(dir.read("again.gguf") == dir.read("q8.gguf"));
}

#[test]
fn weights_that_are_no_numbers_are_refused_and_found() {
    let dir = Dir::new();
    let gguf = gguf(&dir);
    let info = json(&["inspect", "--json", &gguf]);
    let t = &info["tensors"][5];
    let mut bytes = dir.read("tiny.gguf");
    let at = t["offset"].as_u64().unwrap() as usize + 40;
    bytes[at..at + 4].copy_from_slice(&f32::NAN.to_le_bytes());
    std::fs::write(dir.path("nan.gguf"), &bytes).unwrap();
    let name = t["name"].as_str().unwrap();
    let (code, text) = fails(&["quantize", &dir.path("nan.gguf"), &dir.path("q.gguf"), "--type", "q8_0"]);
    assert!(code == 1 && text.contains(name) && text.contains("weight 10"), "{text}");
    let out = run(&["verify", &dir.path("nan.gguf")]);
    assert_eq!(out.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&out.stdout).contains(name));
    let (code, text) = fails(&["logits", &dir.path("nan.gguf"), &dir.path("l.safetensors"), "--ids", "1,2"]);
    assert!(code == 1 && text.contains("infinite or NaN"), "{text}");
    let huge = 1e6f32.to_le_bytes();
    bytes[at..at + 4].copy_from_slice(&huge);
    std::fs::write(dir.path("huge.gguf"), &bytes).unwrap();
    let (code, text) = fails(&["convert", &dir.path("huge.gguf"), &dir.path("q.gguf"), "--type", "f16"]);
    assert!(code == 1 && text.contains(name) && text.contains("bf16"), "{text}");
    assert_eq!(dir.names(), ["huge.gguf", "nan.gguf", "tiny.gguf"]);
}

#[test]
fn bytes_do_not_depend_on_threads_memory_or_instructions() {
    let dir = Dir::new();
    let gguf = gguf(&dir);
    let isas = ggufkit::kernels::Isa::available();
    for scheme in ["q8_0", "q4_0", "q4_1", "q5_0", "q5_1", "tq1_0", "tq2_0", "f16", "bf16"] {
        let mut first = None;
        for isa in &isas {
            for extra in [["--threads", "1"], ["--threads", "2"], ["--threads", "7"], ["--memory", "1K"]] {
                let out = dir.path("out.gguf");
                let args = ["quantize", &gguf, &out, "--type", scheme, "--json", extra[0], extra[1]];
                let run = program().env("GGUFKIT_ISA", isa.name()).args(args).output().unwrap();
                assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
                let this = (dir.read("out.gguf"), run.stdout);
                let first = first.get_or_insert_with(|| this.clone());
                assert!(first.0 == this.0, "{scheme} on {} with {extra:?}", isa.name());
            }
        }
    }
}

/// A target on a full disk, in a folder that nobody may write to, and a run that is killed: the old file stays.
#[test]
#[cfg(target_os = "linux")]
fn an_interrupted_run_leaves_the_old_file() {
    let dir = Dir::new();
    let gguf = gguf(&dir);
    let (code, text) = fails(&["convert", &gguf, "/dev/full"]);
    assert_eq!(code, 2, "{text}");
    assert!(fails(&["convert", &gguf, "/dev/full", "--format", "gguf"]).1.contains("regular file"));
    let full = program()
        .args(["inspect", &gguf])
        .stdout(std::fs::File::create("/dev/full").unwrap())
        .output()
        .unwrap();
    assert_eq!(full.status.code(), Some(1));

    // Large enough that the signal comes while weights are written.
    let info = json(&["inspect", "--json", &gguf]);
    assert_eq!(info["format"], "GGUF v3");
    let big = dir.path("big.bin");
    big_checkpoint(&big);
    for signal in ["-INT", "-KILL"] {
        std::fs::write(dir.path("out.gguf"), b"old").unwrap();
        let args = ["quantize", &big, &dir.path("out.gguf"), "--type", "tq1_0", "--threads", "1"];
        let mut child = program().args(args).stdout(std::process::Stdio::null()).spawn().unwrap();
        std::thread::sleep(std::time::Duration::from_millis(150));
        let _ = Command::new("kill").args([signal, &child.id().to_string()]).status();
        child.wait().unwrap();
        // The old file, or, if the run was quicker than the signal, the new one; and nothing beside it.
        if dir.read("out.gguf") != b"old" {
            ok(&["verify", &dir.path("out.gguf")]);
        }
        assert_eq!(dir.names(), ["big.bin", "out.gguf", "tiny.gguf"]);
    }
}

/// A llama2.c checkpoint of 64 MB, all weights alike.
#[cfg(target_os = "linux")]
fn big_checkpoint(path: &str) {
    let (dim, hidden, layers, vocab, seq) = (512u64, 2048, 4, 512, 8);
    let mut header: Vec<u8> = Vec::new();
    for n in [dim, hidden, layers, 8, 8, vocab, seq] {
        header.extend((n as i32).to_le_bytes());
    }
    let floats = vocab * dim + layers * (2 * dim + 4 * dim * dim + 3 * dim * hidden) + dim + seq * (dim / 8);
    let body: Vec<u8> = (0..floats).flat_map(|i| ((i % 97) as f32 * 0.01 - 0.5).to_le_bytes()).collect();
    std::fs::write(path, [header, body].concat()).unwrap();
}

/// A safetensors file of one tensor.
fn one_tensor(path: &str, dtype: &str, shape: &[u64], data: &[u8]) {
    // What names its architecture becomes a GGUF.
    let named = r#""__metadata__":{"general.architecture":"mine"}"#;
    let header = format!(
        r#"{{{named},"w":{{"dtype":"{dtype}","shape":{shape:?},"data_offsets":[0,{}]}}}}"#,
        data.len()
    );
    let len = (header.len() as u64).to_le_bytes();
    std::fs::write(path, [&len[..], header.as_bytes(), data].concat()).unwrap();
}

#[test]
fn small_floats_are_copied_compared_and_checked() {
    let dir = Dir::new();
    // Rows of F4 that are no whole bytes, and more of them than one look takes.
    let (a, b) = (dir.path("a.safetensors"), dir.path("b.safetensors"));
    let mut data = vec![0x35; 2000 * 1049 / 2];
    one_tensor(&a, "F4", &[2000, 1049], &data);
    ok(&["verify", &a, "--against", &a]);
    data[1_000_000] ^= 1;
    one_tensor(&b, "F4", &[2000, 1049], &data);
    let found = json(&["verify", &b, "--against", &a, "--json"]);
    assert_eq!(found["tensors"][0]["equal"], false);
    for (dtype, nan) in [("F8_E4M3", 0x7F), ("F8_E5M2", 0x7D), ("F8_E8M0", 0xFF)] {
        one_tensor(&a, dtype, &[4], &[1, 2, nan, 3]);
        let out = run(&["verify", &a]);
        assert_eq!(out.status.code(), Some(1), "{dtype}");
        assert!(String::from_utf8_lossy(&out.stdout).contains("weight 2"), "{dtype}");
    }
}

#[test]
fn rows_longer_than_a_band_give_the_same_bytes() {
    let dir = Dir::new();
    let path = dir.path("a.safetensors");
    let data: Vec<u8> =
        (0..2u32 << 16).flat_map(|i| ((i % 1009) as f32 * 0.01 - 5.0).to_le_bytes()).collect();
    one_tensor(&path, "F32", &[2, 1 << 16], &data);
    for scheme in ["q4_0", "tq2_0", "bf16"] {
        let name = |memory: &str| format!("{scheme}-{memory}.gguf");
        for memory in ["1", "1G"] {
            let args = [
                "quantize",
                &path,
                &dir.path(&name(memory)),
                "--type",
                scheme,
                "--memory",
                memory,
                "--force",
            ];
            ok(&args);
        }
        assert!(dir.read(&name("1")) == dir.read(&name("1G")), "{scheme}");
    }
}

#[test]
fn ternary_types_are_for_ternary_weights() {
    let dir = Dir::new();
    let path = dir.path("a.safetensors");
    let mut told = Vec::new();
    for weights in [[-0.5f32, 0.0, 0.5, 0.5], [-0.5, 0.1, 0.3, 0.2]] {
        let data: Vec<u8> = (0..512).flat_map(|i| weights[i % 4].to_le_bytes()).collect();
        one_tensor(&path, "F32", &[2, 256], &data);
        let ternary = told.is_empty();
        if !ternary {
            let (code, text) = fails(&["quantize", &path, &dir.path("t.gguf"), "--type", "ternary"]);
            assert!(code == 1 && text.contains("three values") && text.contains("--force"), "{text}");
            ok(&["quantize", &path, &dir.path("t.gguf"), "--type", "ternary", "--dry-run", "--force"]);
        }
        let force: &[&str] = if ternary { &[] } else { &["--force"] };
        let text = ok(&[&["quantize", &path, &dir.path("t.gguf"), "--type", "ternary"], force].concat());
        told.push(text.contains("not ternary"));
        let found = json(&["verify", &dir.path("t.gguf"), "--against", &path, "--json"]);
        assert_eq!(found["tensors"][0]["relative_error"] == 0.0, !told[told.len() - 1]);
    }
    assert_eq!(told, [false, true]);
}

#[test]
fn weights_beyond_the_reach_of_a_scale_are_refused() {
    let dir = Dir::new();
    let path = dir.path("a.safetensors");
    for (weight, fits) in [(1e7f32, false), (4e5, true)] {
        let mut x = [1f32; 64];
        x[40] = weight;
        let data: Vec<u8> = x.iter().flat_map(|x| x.to_le_bytes()).collect();
        one_tensor(&path, "F32", &[2, 32], &data);
        let args = ["quantize", &path, &dir.path("q.gguf"), "--type", "q4_0"];
        if fits {
            ok(&args);
        } else {
            let (code, text) = fails(&args);
            assert!(code == 1 && text.contains("weight 40") && text.contains("cannot hold"), "{text}");
        }
    }
}
