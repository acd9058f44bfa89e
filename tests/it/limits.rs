//! The limits of the system and of what is shown: no input ends the program with a signal or takes all memory, and no name
//! reaches the terminal raw.

use std::fs;

use crate::common::{Dir, all_types, demo, fails, gguf, inputs, json, line, ok, refs, run};

#[test]
#[cfg(target_os = "linux")]
fn files_without_an_end_are_not_read() {
    let dir = inputs();
    for args in [
        "eval @tiny.gguf /dev/zero --context 32",
        "compare @tiny.gguf @other.gguf --text /dev/zero",
        "run @tiny.gguf --prompt-file /dev/zero",
        "edit @tiny.gguf @o.gguf --set-file general.name:str=/dev/zero",
        "quantize @tiny.gguf @o.gguf --recipe /dev/zero",
        "quantize @tiny.gguf @o.gguf --type q4_0 --calibration /dev/urandom",
        "quantize @tiny.gguf @o.gguf --size 400K --sensitivity /dev/zero",
        "frontier @tiny.gguf --sensitivity /dev/zero",
        "calibrate @tiny.gguf /dev/zero -o @i.gguf",
        "calibrate --show /dev/zero",
        "sensitivity @tiny.gguf /dev/zero -o @s.json",
        "inspect /dev/zero",
    ] {
        let (code, why) = fails(&refs(&line(&dir, args)));
        assert!(code == 1 && why.contains(": is not a regular file"), "{args}: {why}");
    }
    // A pipe has an end: the text may come through one.
    let text = demo("heldout.txt");
    let command = format!("head -c 20000 '{text}' | \"$0\" eval \"$1\" /dev/stdin --context 32 --chunks 1");
    let out = std::process::Command::new("sh")
        .args(["-c", &command, env!("CARGO_BIN_EXE_ggufkit"), &dir.path("tiny.gguf")])
        .output()
        .unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
}

#[test]
#[cfg(target_os = "linux")]
fn a_limit_of_file_sizes_is_an_error() {
    let dir = inputs();
    let before = dir.names();
    for args in ["convert @tiny.gguf @o.gguf", "logits @tiny.gguf @o.safetensors --ids 1,2,3,4,5,6,7,8"] {
        let args = line(&dir, args);
        // One block of 512 or 1024 bytes, as the shell has it.
        let out = std::process::Command::new("sh")
            .args(["-c", "ulimit -f 1; exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_ggufkit")])
            .args(&args)
            .output()
            .unwrap();
        let why = String::from_utf8_lossy(&out.stderr).into_owned();
        assert_eq!(out.status.code(), Some(1), "{args:?}: {:?} {why}", out.status);
        assert!(why.contains("File too large") && why.contains("ulimit -f"), "{why}");
        assert_eq!(dir.names(), before);
    }
}

/// A list of short numbers takes many times the memory of its text as a tree of values.
#[test]
#[cfg(target_os = "linux")]
fn arrays_from_files_are_encoded_as_they_are_read() {
    let dir = inputs();
    fs::write(dir.path("v.json"), format!("[{}0]", "0,".repeat(3_000_000))).unwrap();
    let out = std::process::Command::new("sh")
        .args([
            "-c",
            "ulimit -v 120000; exec \"$0\" edit \"$1\" \"$2\" --threads 1 --set-file \"a.b:[u8]=$3\"",
        ])
        .args([
            env!("CARGO_BIN_EXE_ggufkit"),
            &dir.path("tiny.gguf"),
            &dir.path("o.gguf"),
            &dir.path("v.json"),
        ])
        .output()
        .unwrap();
    assert!(out.status.success(), "{:?} {}", out.status, String::from_utf8_lossy(&out.stderr));
    for (text, why) in [
        ("[1, 2, 256]", "\"256\" is not a valid u8"),
        ("[1, 2", "is not a JSON array: EOF"),
        ("[1] 2", "is not a JSON array: trailing characters"),
        ("{}", "is not a JSON array: invalid type: map, expected a sequence"),
        ("[[1]]", "\"[1]\" is not a valid u8"),
    ] {
        fs::write(dir.path("v.json"), text).unwrap();
        let option = format!("a.b:[u8]={}", dir.path("v.json"));
        let (code, said) =
            fails(&["edit", &dir.path("tiny.gguf"), &dir.path("p.gguf"), "--set-file", &option]);
        assert!(code == 2 && said.contains(why) && !said.contains('\u{0}'), "{text}: {said}");
    }
    let option = format!("a.b:[str]={}", dir.path("v.json"));
    fs::write(dir.path("v.json"), "[\"a\", 1]").unwrap();
    let (_, said) = fails(&["edit", &dir.path("tiny.gguf"), &dir.path("p.gguf"), "--set-file", &option]);
    assert!(said.lines().next().unwrap().ends_with(": 1 is not a string"), "{said}");
}

#[test]
#[cfg(target_os = "linux")]
fn importance_matrices_have_a_length() {
    let dir = inputs();
    let file = fs::File::create(dir.path("i.dat")).unwrap();
    file.set_len(5 << 30).unwrap(); // without taking any room
    for args in [
        "calibrate --show @i.dat",
        "calibrate --merge @i.dat --merge @i.dat -o @o.dat",
        "quantize @tiny.gguf @o.gguf --type q4_0 --imatrix @i.dat",
    ] {
        let (code, why) = fails(&refs(&line(&dir, args)));
        assert!(code == 1 && why.contains("must have at most") && why.contains("hint"), "{args}: {why}");
    }
}

/// Addresses run out in one place or another: in a thread's stack, in a map, in an allocation.
#[test]
#[cfg(target_os = "linux")]
fn too_little_memory_is_an_error() {
    let dir = inputs();
    for args in
        ["eval @tiny.gguf @t.txt --context 512 --threads 2", "quantize @tiny.gguf @o.gguf --type iq2_s"]
    {
        for limit in (80_000..200_000).step_by(15_000) {
            let out = std::process::Command::new("sh")
                .args(["-c", &format!("ulimit -v {limit}; exec \"$0\" \"$@\"")])
                .arg(env!("CARGO_BIN_EXE_ggufkit"))
                .args(line(&dir, args))
                .output()
                .unwrap();
            let why = String::from_utf8_lossy(&out.stderr).into_owned();
            assert!(matches!(out.status.code(), Some(0 | 1)), "{limit}: {:?} {why}", out.status);
            assert!(out.status.success() || why.contains("ggufkit: ") && !why.contains("panicked"), "{why}");
        }
    }
    // More than there is at once: the number is said.
    fs::File::create(dir.path("long.txt")).unwrap().set_len(300 << 20).unwrap();
    let shell = "ulimit -v 200000; exec \"$0\" eval \"$1\" \"$2\" --threads 2";
    let out = std::process::Command::new("sh")
        .args(["-c", shell, env!("CARGO_BIN_EXE_ggufkit"), &dir.path("tiny.gguf"), &dir.path("long.txt")])
        .output()
        .unwrap();
    let why = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(out.status.code() == Some(1) && why.contains("hint: "), "{:?} {why}", out.status);
    assert!(why.contains("out of memory: the system has no 314572800 more bytes"), "{why}");
}

#[test]
fn numbers_have_bounds() {
    let dir = inputs();
    let most = u64::MAX.to_string();
    for (args, code) in [
        ("bench @tiny.gguf --prompt N", 2),
        ("bench @tiny.gguf --generate N", 2),
        ("bench @tiny.gguf --repeats N", 2),
        ("eval @tiny.gguf @t.txt --context N", 1),
        ("eval @tiny.gguf @t.txt --context 32 --stride N", 2),
        ("compare @tiny.gguf @other.gguf --text @t.txt --context N", 1),
        ("quantize @tiny.gguf @o.gguf --type q4_0 --check @t.txt --check-context N", 1),
        ("calibrate @tiny.gguf @t.txt -o @i.dat --from-chunk N", 2),
    ] {
        let args =
            line(&dir, args).into_iter().map(|a| if a == "N" { most.clone() } else { a }).collect::<Vec<_>>();
        assert_eq!(fails(&refs(&args)).0, code, "{args:?}");
    }
    // More threads than there can be use for are not started.
    ok(&refs(&line(&dir, "quantize @tiny.gguf @many.gguf --type q4_0 --threads 999")));
    ok(&refs(&line(&dir, "quantize @tiny.gguf @one.gguf --type q4_0 --threads 1")));
    assert_eq!(dir.read("many.gguf"), dir.read("one.gguf"));
}

/// A safetensors file of f32 tensors without metadata.
fn safetensors(path: &str, tensors: &[(&str, Vec<u64>)]) {
    let mut at = 0;
    let entries: serde_json::Map<_, _> = tensors
        .iter()
        .map(|(name, shape)| {
            let len = 4 * shape.iter().product::<u64>();
            at += len;
            (
                name.to_string(),
                serde_json::json!({"dtype": "F32", "shape": shape, "data_offsets": [at - len, at]}),
            )
        })
        .collect();
    let header = serde_json::to_vec(&entries).unwrap();
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header);
    bytes.resize(bytes.len() + at as usize, 0);
    fs::write(path, bytes).unwrap();
}

#[test]
fn what_a_file_says_reaches_no_terminal_raw() {
    let dir = Dir::new();
    let odd = "x\u{1b}[2J\u{9b}31m\u{202e}\u{2066}\u{200b}\u{2028}\u{feff}\u{e0041}y";
    // In a tensor's name, in a key, in a value and in the file's own name.
    let model = dir.path(&format!("m{odd}.safetensors"));
    safetensors(&model, &[(&format!("{odd}.weight"), vec![2, 256]), ("b.weight", vec![1, 30])]);
    let gguf = dir.path(&format!("m{odd}.gguf"));
    let (key, named) = (format!("k{odd}=str:v{odd}"), "general.architecture=mine");
    ok(&["convert", &model, &gguf, "--set", &key, "--set", named, "--type", "q8_0"]);
    let out = dir.path(&format!("o{odd}.gguf"));
    for args in [
        vec!["inspect", "--tensors", &gguf],
        vec!["verify", &gguf],
        vec!["verify", &gguf, "--against", &model],
        vec!["convert", &gguf, &out],
        vec!["convert", &gguf, &out, "--dry-run"],
        vec!["quantize", &model, &out, "--type", "q4_k"],
        vec!["split", &gguf, &out, "--max-tensors", "1"],
        vec!["edit", &gguf, &out, "--set", "a=str:b"],
        vec!["bench", &gguf],
        vec!["logits", &gguf, &out, "--ids", "1"],
        vec!["eval", &gguf, &model],
    ] {
        for more in [None, Some("--json")] {
            if more.is_some() && ["logits", "edit", "split"].contains(&args[0]) && args[0] == "logits" {
                continue; // has no JSON
            }
            let found = run(&args.iter().copied().chain(more).collect::<Vec<_>>());
            let text = [found.stdout, found.stderr].map(|b| String::from_utf8(b).unwrap()).concat();
            let hidden = |c: char| ggufkit::text::is_hidden(c) && c != '\n';
            assert!(!text.chars().any(hidden), "{args:?} {more:?}: {text:?}");
            assert!(!text.contains("panicked"), "{text}");
        }
    }
    // JSON still says what the file says.
    let found = json(&["inspect", "--json", &gguf]);
    assert!(found["tensors"][0]["name"].as_str().unwrap().contains(odd), "{found}");
    assert!(found["metadata"].to_string().contains('\u{202e}'));
}

#[test]
fn what_is_long_is_cut() {
    let dir = Dir::new();
    let long = format!("{}.weight", "n".repeat(70_000));
    let deep = [vec![1; 30_000], vec![4]].concat();
    let (name, shape) = (dir.path("name.safetensors"), dir.path("shape.safetensors"));
    safetensors(&name, &[(&long, vec![2, 256])]);
    safetensors(&shape, &[("a", deep)]);
    fs::write(dir.path("recipe.toml"), format!("name = \"{long}\"\nbase = \"q8_0\"\n")).unwrap();
    let (out, recipe) = (dir.path("o.safetensors"), dir.path("recipe.toml"));
    let model = dir.path("m.gguf");
    all_types(&model);
    let small = gguf(&dir);
    for args in [
        vec!["inspect", "--tensors", &name],
        vec!["inspect", "--tensors", &shape],
        vec!["convert", &name, &out, "--dry-run"],
        vec!["verify", &name, "--against", &name],
        vec!["quantize", &small, "o.gguf", "--recipe", &recipe, "--dry-run"],
        vec!["convert", &name, "o.gguf", "--dry-run"],
        vec!["inspect", &model, "--tensors"],
    ] {
        let found = run(&args);
        let text = [found.stdout, found.stderr].map(|b| String::from_utf8(b).unwrap()).concat();
        assert!(!text.contains("panicked") && text.len() > 20, "{args:?}: {text}");
        let widest = text.lines().map(|l| l.chars().count()).max().unwrap();
        assert!(widest < 1000, "{args:?}: a line of {widest} characters");
    }
}

/// An array of two million bytes is not a tree of values in memory: that takes 72 bytes for each.
#[test]
#[cfg(target_os = "linux")]
fn json_is_written_as_it_is_made() {
    use formats::metadata::{Array, Metadata, Value};
    let dir = Dir::new();
    let model = dir.path("m.gguf");
    let mut metadata = Metadata::new();
    metadata.set("general.architecture", Value::text("unknown"));
    let many: Vec<Value> = (0..2_000_000).map(|i| Value::U8(i as u8)).collect();
    metadata.set("bytes", Value::Array(Array::new(formats::metadata::Kind::U8, &many).unwrap()));
    crate::common::write_gguf(&model, &metadata, &[("a.weight".into(), vec![2, 2], vec![1.0; 4])]);
    let out = std::process::Command::new("sh")
        .args([
            "-c",
            "ulimit -v 150000; exec \"$0\" inspect --json \"$1\"",
            env!("CARGO_BIN_EXE_ggufkit"),
            &model,
        ])
        .output()
        .unwrap();
    assert!(out.status.success(), "{:?} {}", out.status, String::from_utf8_lossy(&out.stderr));
    assert!(out.stdout.len() > 4_000_000 && out.stdout.ends_with(b"}\n"));
}
