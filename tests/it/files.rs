//! The files of a run and the limits of the system: what is read is not written over, what changes meanwhile is noticed,
//! names and links are what they are, and no input ends the program with a signal.

use std::fs;
use std::path::Path;

use crate::common::{Dir, all_types, demo, fails, gguf, json, ok, program, run};

/// A folder with the small model, a text and a recipe.
fn inputs() -> Dir {
    let dir = Dir::new();
    gguf(&dir);
    fs::copy(dir.path("tiny.gguf"), dir.path("other.gguf")).unwrap();
    fs::copy(demo("tiny-tokenizer.bin"), dir.path("tok.bin")).unwrap();
    fs::copy(demo("tiny.bin"), dir.path("tiny.bin")).unwrap();
    let text = fs::read(demo("heldout.txt")).unwrap();
    fs::write(dir.path("t.txt"), &text[..20_000]).unwrap();
    fs::write(dir.path("recipe.toml"), "base = \"q4_0\"\n").unwrap();
    dir
}

/// Everything in a folder, by name.
fn contents(dir: &Dir) -> Vec<(String, Vec<u8>)> {
    dir.names()
        .into_iter()
        .filter(|n| Path::new(&dir.path(n)).is_file())
        .map(|n| (n.clone(), dir.read(&n)))
        .collect()
}

/// Arguments in which `@NAME` is the path of a file in the folder.
fn line(dir: &Dir, args: &str) -> Vec<String> {
    args.split(' ').map(|a| a.strip_prefix('@').map_or(a.to_string(), |name| dir.path(name))).collect()
}

fn refs(args: &[String]) -> Vec<&str> {
    args.iter().map(String::as_str).collect()
}

#[test]
fn no_result_is_written_over_what_its_run_reads() {
    let dir = inputs();
    let (model, text) = (dir.path("tiny.gguf"), dir.path("t.txt"));
    let short = ["--context", "32", "--chunks", "1"];
    ok(&[&["eval", &model, &text, "--save-logits", &dir.path("base.kld")], &short[..]].concat());
    ok(&[&["calibrate", &model, &text, "-o", &dir.path("i.dat")], &short[..]].concat());
    ok(&[&["sensitivity", &model, &text, "-o", &dir.path("s.json")], &short[..]].concat());
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink("tiny.gguf", dir.path("link.safetensors")).unwrap();
        fs::hard_link(dir.path("t.txt"), dir.path("same.txt")).unwrap();
    }
    fs::write(dir.path("name.gguf"), "a text with a strange name").unwrap();
    let before = contents(&dir);
    let eval = "--context 32 --chunks 1";
    let check = "--check-context 32 --check-chunks 1";
    let calibration = "--calibration-context 32 --calibration-chunks 2";
    let mut lines = vec![
        format!("eval @tiny.gguf @t.txt --logits @base.kld --save-logits @base.kld {eval}"),
        format!("eval @tiny.bin @t.txt --tokenizer @tok.bin --save-logits @tok.bin {eval}"),
        format!("compare @tiny.gguf @other.gguf --text @t.txt --report @other.gguf {eval}"),
        format!("compare @tiny.gguf @other.gguf --text @t.txt --sensitivity @s.json --report @s.json {eval}"),
        "frontier @tiny.gguf --sensitivity @s.json --report @s.json".into(),
        format!("sensitivity @tiny.gguf @t.txt --imatrix @i.dat -o @i.dat {eval}"),
        format!("calibrate @tiny.gguf @t.txt -o @t.txt {eval}"),
        "edit @tiny.gguf @name.gguf --set-file general.name:str=@name.gguf".into(),
        "convert @tiny.bin @tok.bin --tokenizer @tok.bin --format llama2c".into(),
        "quantize @tiny.gguf @recipe.toml --recipe @recipe.toml --format gguf".into(),
        "quantize @tiny.gguf @recipe.toml --recipe @recipe.toml --format gguf --dry-run".into(),
        "quantize @tiny.gguf @i.dat --imatrix @i.dat --type q4_0 --format gguf".into(),
        format!("quantize @tiny.gguf @t.txt --type q4_0 --format gguf --check @t.txt {check}"),
        format!("quantize @tiny.gguf @t.txt --type q4_0 --format gguf --calibration @t.txt {calibration}"),
        format!("quantize @tiny.gguf @new.gguf --size 400K --write-recipe @t.txt --check @t.txt {check}"),
        "quantize @tiny.gguf @new.gguf --size 400K --sensitivity @s.json --write-recipe @s.json".into(),
        "quantize @tiny.gguf @new.gguf --size 400K --write-recipe @new.gguf".into(),
        format!(
            "quantize @tiny.gguf @new.gguf --size 400K --sensitivity @new.gguf --calibration @t.txt {calibration}"
        ),
        "split @tiny.gguf @tiny.gguf --max-size 1G".into(),
        "merge @tiny.gguf @tiny.gguf".into(),
    ];
    if cfg!(unix) {
        lines.push("logits @tiny.gguf @link.safetensors --ids 1".into());
        lines.push(format!("compare @tiny.gguf @other.gguf --text @t.txt --report @same.txt {eval}"));
    }
    for args in lines {
        // `--set-file KEY=@FILE` has the path behind the key.
        let args = args.replace("=@", &format!("={}/", dir.0.path().display()));
        let (code, why) = fails(&refs(&line(&dir, &args)));
        assert!(code == 2, "{args}: {code} {why}");
        assert!(why.contains("is read in this run") || why.contains(": is named by "), "{args}: {why}");
        assert!(why.contains("hint: "), "{args}: {why}");
        assert!(contents(&dir) == before, "{args} changed something");
    }
    // What an importance matrix is added to may be what is written.
    ok(&refs(&line(&dir, &format!("calibrate @tiny.gguf @t.txt --merge @i.dat -o @i.dat {eval}"))));
    // And what has been read for itself is no input of the next run.
    ok(&refs(&line(&dir, "convert @other.gguf @tiny.gguf")));
}

/// Rewrites a file in place with one byte of its weights changed, and gives it its old time again, as `cp -p` and
/// `rsync -t` do with another file's.
#[cfg(unix)]
fn rewrite(path: &Path) {
    let modified = fs::metadata(path).unwrap().modified().unwrap();
    let mut bytes = fs::read(path).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(path, bytes).unwrap();
    fs::File::options().write(true).open(path).unwrap().set_modified(modified).unwrap();
}

#[test]
#[cfg(unix)]
fn a_state_is_of_every_file_of_its_model() {
    let dir = Dir::new();
    let (model, text) = (dir.path("parts/m.gguf"), dir.path("t.txt"));
    fs::create_dir(dir.path("parts")).unwrap();
    ok(&["split", &gguf(&dir), &model, "--max-tensors", "8"]);
    fs::write(&text, &fs::read(demo("heldout.txt")).unwrap()[..20_000]).unwrap();
    let parts: Vec<String> = fs::read_dir(dir.path("parts"))
        .unwrap()
        .map(|e| e.unwrap().path().to_str().unwrap().to_string())
        .collect();
    assert!(parts.len() > 2, "{parts:?}");
    let first = parts.iter().find(|p| p.contains("-00001-")).unwrap();
    let last = parts.iter().max().unwrap();
    let quantize = |out: &str| {
        run(&[
            "quantize",
            first,
            &dir.path(out),
            "--type",
            "q4_0",
            "--method",
            "gptq",
            "--calibration",
            &text,
            "--calibration-context",
            "32",
            "--calibration-chunks",
            "4",
            "--state",
            &dir.path("st"),
        ])
    };
    for out in ["a.gguf", "again.gguf"] {
        let made = quantize(out);
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    }
    assert_eq!(dir.read("a.gguf"), dir.read("again.gguf"));
    rewrite(Path::new(last));
    let other = quantize("b.gguf");
    let why = String::from_utf8_lossy(&other.stderr).into_owned();
    assert!(other.status.code() == Some(1) && why.contains("state of a different run"), "{why}");
    assert!(!Path::new(&dir.path("b.gguf")).exists());
}

#[test]
#[cfg(unix)]
fn a_state_does_not_follow_links() {
    let dir = Dir::new();
    let (model, text) = (gguf(&dir), dir.path("t.txt"));
    fs::write(&text, &fs::read(demo("heldout.txt")).unwrap()[..20_000]).unwrap();
    fs::create_dir(dir.path("st")).unwrap();
    for name in ["layer-0", "layer-0.part", "vectors-1-0", "state.json.part", "state.part"] {
        fs::write(dir.path("victim"), "precious").unwrap();
        std::os::unix::fs::symlink("../victim", dir.path(&format!("st/{name}"))).unwrap();
    }
    ok(&[
        "quantize",
        &model,
        &dir.path("o.gguf"),
        "--type",
        "q4_0",
        "--method",
        "gptq",
        "--calibration",
        &text,
        "--calibration-context",
        "32",
        "--calibration-chunks",
        "4",
        "--state",
        &dir.path("st"),
    ]);
    assert_eq!(dir.read("victim"), b"precious");
}

/// A model that is rewritten or truncated between being opened and being read: the program waits for its text, which
/// comes through a pipe.
#[test]
#[cfg(target_os = "linux")]
fn a_model_that_changes_while_it_is_read_is_noticed() {
    for (no_mmap, truncated, says) in [
        (false, false, "m.gguf: has changed while it was read"),
        (true, false, "m.gguf: has changed while it was read"),
        (false, true, "a file cannot be read any more: it became shorter"),
        (true, true, "m.gguf: "),
    ] {
        let dir = Dir::new();
        let (model, pipe) = (dir.path("m.gguf"), dir.path("pipe"));
        fs::rename(gguf(&dir), &model).unwrap();
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        let mut command = program();
        command.args(["eval", &model, &pipe, "--context", "32", "--chunks", "1"]);
        command.args(no_mmap.then_some("--no-mmap"));
        let child =
            command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::piped()).spawn().unwrap();
        // Opening waits for the reader, who has opened the model by then.
        let mut writer = fs::File::options().write(true).open(&pipe).unwrap();
        let file = fs::File::options().write(true).open(&model).unwrap();
        if truncated {
            file.set_len(4096).unwrap();
        } else {
            use std::os::unix::fs::FileExt;
            let len = file.metadata().unwrap().len();
            file.write_all_at(&[0; 64], len - 64).unwrap();
        }
        drop(file);
        std::io::Write::write_all(&mut writer, &fs::read(demo("heldout.txt")).unwrap()[..20_000]).unwrap();
        drop(writer);
        let out = child.wait_with_output().unwrap();
        let why = String::from_utf8_lossy(&out.stderr).into_owned();
        assert_eq!(out.status.code(), Some(1), "{no_mmap} {truncated}: {:?} {why}", out.status);
        assert!(why.contains(says) && why.contains("hint: "), "{no_mmap} {truncated}: {why}");
    }
}

/// The same where a result is written, with a model of several files.
#[test]
fn a_result_of_two_states_of_its_source_gets_no_name() {
    use ggufkit::plan::{PlanOptions, plan};
    let dir = Dir::new();
    ok(&["split", &gguf(&dir), &dir.path("m.gguf"), "--max-tensors", "9"]);
    let first = dir.names().into_iter().find(|n| n.starts_with("m-00001-of-")).unwrap();
    let second = first.replace("00001", "00002");
    for no_mmap in [false, true] {
        let options = ggufkit::Options { no_mmap, ..Default::default() };
        let source = ggufkit::open(Path::new(&dir.path(&first)), &options).unwrap();
        let out = dir.path("o.gguf").into();
        let scheme = ggufkit::scheme::find("q8_0");
        let plan = plan(&source, &PlanOptions { out, scheme, ..Default::default() }).unwrap();
        let mut bytes = dir.read(&second);
        let end = bytes.len() - 8;
        bytes[end..].fill(no_mmap.into());
        fs::write(dir.path(&second), bytes).unwrap();
        let found = ggufkit::pipeline::write(&source, &plan, None, Default::default(), &());
        let why = found.unwrap_err();
        assert!(matches!(&why, ggufkit::Error::Changed { path } if path.ends_with(&second)), "{why}");
        assert!(!dir.names().contains(&"o.gguf".to_string()));
    }
}

#[test]
#[cfg(unix)]
fn a_link_that_leads_out_of_a_checkpoint_is_not_published() {
    use std::os::unix::fs::symlink;
    let dir = Dir::new();
    fs::write(dir.path("secret"), "PRIVATE KEY").unwrap();
    let copy = |to: &str| {
        fs::create_dir_all(dir.path(to)).unwrap();
        for entry in fs::read_dir(demo("model")).unwrap() {
            let from = entry.unwrap().path();
            fs::copy(&from, Path::new(&dir.path(to)).join(from.file_name().unwrap())).unwrap();
        }
    };
    copy("m");
    for name in ["LICENSE", "chat_template.jinja", "added_tokens.json"] {
        symlink("../secret", dir.path(&format!("m/{name}"))).unwrap();
    }
    fs::remove_file(dir.path("m/added_tokens.json")).unwrap();
    symlink("README.md", dir.path("m/merges.txt")).unwrap(); // leads to a file of the folder
    let text = ok(&["convert", &dir.path("m"), &dir.path("out/"), "--type", "f16"]);
    for name in ["LICENSE", "chat_template.jinja"] {
        assert!(!Path::new(&dir.path(&format!("out/{name}"))).exists(), "{name}");
        assert!(text.contains(&format!("{name}: is a link that leads out of the folder")), "{text}");
    }
    assert_eq!(dir.read("out/merges.txt"), dir.read("m/README.md"));
    // Nor is it in a GGUF.
    ok(&["convert", &dir.path("m"), &dir.path("m.gguf")]);
    assert!(!dir.read("m.gguf").windows(11).any(|w| w == b"PRIVATE KEY"));

    // The hub's cache keeps all files of a snapshot in blobs.
    copy("models--a--b/blobs");
    fs::create_dir_all(dir.path("models--a--b/snapshots/0123")).unwrap();
    for entry in fs::read_dir(dir.path("models--a--b/blobs")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        symlink(format!("../../blobs/{name}"), dir.path(&format!("models--a--b/snapshots/0123/{name}")))
            .unwrap();
    }
    ok(&["convert", &dir.path("models--a--b/snapshots/0123"), &dir.path("hub/"), "--type", "f16"]);
    assert_eq!(dir.read("hub/tokenizer.model"), dir.read("m/tokenizer.model"));
}

#[test]
#[cfg(unix)]
fn links_in_an_output_folder_are_replaced() {
    let dir = Dir::new();
    let model = gguf(&dir);
    fs::create_dir(dir.path("out")).unwrap();
    for name in ["generation_config.json", "model.safetensors", "config.json"] {
        fs::write(dir.path("victim"), "precious").unwrap();
        let _ = fs::remove_file(dir.path(&format!("out/{name}")));
        std::os::unix::fs::symlink("../victim", dir.path(&format!("out/{name}"))).unwrap();
        // A folder with weights of another model may be refused; the link is not followed in either case.
        run(&["convert", &model, &dir.path("out"), "--type", "f16", "--format", "safetensors"]);
        assert_eq!(dir.read("victim"), b"precious", "{name}");
    }
    // Parts of a split model, too, have names that nobody wrote down.
    fs::write(dir.path("victim"), "precious").unwrap();
    std::os::unix::fs::symlink("victim", dir.path("s-00001-of-00002.gguf")).unwrap();
    ok(&["split", &model, &dir.path("s.gguf"), "--max-tensors", "15"]);
    assert!(dir.names().contains(&"s-00001-of-00002.gguf".to_string()), "{:?}", dir.names());
    assert_eq!(dir.read("victim"), b"precious");
}

#[test]
fn names_that_cannot_be_are_known_before_the_work() {
    let dir = inputs();
    for len in [240, 255] {
        let out = format!("{}.gguf", "a".repeat(len - 5));
        ok(&["quantize", &dir.path("tiny.gguf"), &dir.path(&out), "--type", "q4_0"]);
        assert!(dir.names().contains(&out));
    }
    let before = dir.names();
    let long = format!("@{}.gguf", "b".repeat(251));
    let split = format!("@{}.gguf", "b".repeat(240)); // its parts have 16 more
    let method = "--type q4_0 --method gptq --calibration @t.txt --calibration-context 32 --state @st";
    for args in [
        format!("quantize @tiny.gguf {long} {method}"),
        format!("quantize @tiny.gguf {split} --split-max-size 100K {method}"),
        format!("quantize @tiny.gguf @o.gguf --size 400K --write-recipe {long}"),
        format!(
            "quantize @tiny.gguf @o.gguf --size 400K --calibration @t.txt --calibration-context 32 --sensitivity {long}"
        ),
        format!("eval @tiny.gguf @t.txt --context 32 --save-logits {long}"),
        format!("logits @tiny.gguf {long} --ids 1"),
    ] {
        let (code, why) = fails(&refs(&line(&dir, &args)));
        assert!(code == 1 && why.contains("cannot create: File name too long"), "{args}: {why}");
        assert!(why.contains("hint: use a shorter name"), "{why}");
        assert_eq!(dir.names(), before, "{args}"); // nor was a state begun
    }
    // A folder that is not there: before the calibration.
    let args = "quantize @tiny.gguf @o.gguf --size 400K --calibration @t.txt --calibration-context 32 --sensitivity @no/s.json";
    let (_, why) = fails(&refs(&line(&dir, args)));
    assert!(why.contains("no/s.json: cannot create"), "{why}");
}

#[test]
#[cfg(target_os = "linux")]
fn bytes_of_a_name_stay_as_they_are() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    let dir = Dir::new();
    let model = gguf(&dir);
    let name = |bytes: &[u8]| dir.0.path().join(OsStr::from_bytes(bytes));
    let ok = |args: &[&OsStr]| {
        let out = program().args(args).output().unwrap();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8(out.stdout).unwrap()
    };
    let arg = OsStr::new;
    fs::rename(&model, name(b"\xff.gguf")).unwrap();
    let (whole, split) = (name(b"\xff.gguf"), name(b"a\xfe.gguf"));
    ok(&[arg("split"), whole.as_os_str(), split.as_os_str(), arg("--max-tensors"), arg("15")]);
    let part = name(b"a\xfe-00002-of-00002.gguf");
    assert!(name(b"a\xfe-00001-of-00002.gguf").exists() && part.exists());
    // And the parts are found again.
    let merged = name(b"\xfd.gguf");
    ok(&[arg("merge"), part.as_os_str(), merged.as_os_str()]);
    assert_eq!(fs::read(&merged).unwrap(), fs::read(&whole).unwrap());
    let single = name(b"\xfc.safetensors");
    ok(&[arg("convert"), whole.as_os_str(), single.as_os_str()]);
    assert!(single.exists());
    let text = demo("heldout.txt");
    let found = ok(&[
        arg("compare"),
        whole.as_os_str(),
        merged.as_os_str(),
        arg("--text"),
        arg(&text),
        arg("--context"),
        arg("32"),
        arg("--chunks"),
        arg("1"),
        arg("--json"),
    ]);
    let found: serde_json::Value = serde_json::from_str(&found).unwrap();
    assert!(found["candidates"][0]["path"].as_str().unwrap().ends_with("\u{fffd}.gguf"));
}

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
    ok(&["convert", &model, &gguf, "--set", &format!("k{odd}=str:v{odd}"), "--type", "q8_0"]);
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

#[test]
fn a_failed_run_leaves_no_recipe() {
    let dir = inputs();
    let (recipe, text) = (dir.path("r.toml"), dir.path("t.txt"));
    let args = [
        "quantize",
        &dir.path("tiny.gguf"),
        &dir.path("o.gguf"),
        "--size",
        "400K",
        "--write-recipe",
        &recipe,
    ];
    ok(&[&args[..], &["--dry-run"]].concat());
    fs::remove_file(&recipe).unwrap();
    // The check cannot work: the text is too short for its context.
    fails(&[&args[..], &["--check", &text, "--check-context", "100000"]].concat());
    assert!(!Path::new(&recipe).exists());
    // A model that cannot be written: the folder is gone by then, or there is no space.
    fails(&[
        "quantize",
        &dir.path("tiny.gguf"),
        &dir.path("no/o.gguf"),
        "--size",
        "400K",
        "--write-recipe",
        &recipe,
    ]);
    assert!(!Path::new(&recipe).exists());
    ok(&args);
    assert!(Path::new(&recipe).exists() && Path::new(&dir.path("o.gguf")).exists());
}
