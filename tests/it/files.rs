//! The files of a run and the limits of the system: what is read is not written over, what changes meanwhile is noticed,
//! names and links are what they are, and no input ends the program with a signal.

use std::fs;
use std::path::Path;

use crate::common::{Dir, demo, fails, gguf, inputs, line, ok, program, refs, run};

/// Everything in a folder, by name.
fn contents(dir: &Dir) -> Vec<(String, Vec<u8>)> {
    dir.names()
        .into_iter()
        .filter(|n| Path::new(&dir.path(n)).is_file())
        .map(|n| (n.clone(), dir.read(&n)))
        .collect()
}

#[test]
fn no_result_is_written_over_what_its_run_reads() {
    let dir = inputs();
    let (model, text) = (dir.path("tiny.gguf"), dir.path("t.txt"));
    let short = ["--context", "32", "--chunks", "1"];
    ok(&[&["eval", &model, &text, "--save-logits", &dir.path("base.kld")], &short[..]].concat());
    ok(&[&["calibrate", &model, &text, "-o", &dir.path("i.dat")], &short[..]].concat());
    ok(&[&["sensitivity", &model, &text, "-o", &dir.path("s.json")], &short[..]].concat());
    // Under a name that says nothing: what is called a text is not written over whether it is read or not.
    fs::copy(&text, dir.path("t.words")).unwrap();
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink("tiny.gguf", dir.path("link.safetensors")).unwrap();
        fs::hard_link(dir.path("t.words"), dir.path("same.words")).unwrap();
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
        lines.push(format!("compare @tiny.gguf @other.gguf --text @t.txt --report @same.words {eval}"));
    }
    for args in lines {
        // `--set-file KEY=@FILE` has the path behind the key.
        let args = args.replace("@t.txt", "@t.words").replace("=@", &format!("={}/", dir.0.path().display()));
        let (code, why) = fails(&refs(&line(&dir, &args)));
        assert!(code == 2, "{args}: {code} {why}");
        let says = ["is read in this run", ": is named by ", "would replace it"];
        assert!(says.iter().any(|says| why.contains(says)), "{args}: {why}");
        assert!(why.contains("hint: "), "{args}: {why}");
        assert!(contents(&dir) == before, "{args} changed something");
    }
    // What an importance matrix is added to may be what is written.
    ok(&refs(&line(
        &dir,
        &format!("calibrate @tiny.gguf @t.txt --merge @i.dat -o @i.dat {eval} --from-chunk 1"),
    )));
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

/// Arguments that quantize a model layer by layer with the text `t.txt`, and keep the state in `st`.
#[cfg(unix)]
fn in_layers(dir: &Dir, model: &str, out: &str) -> Vec<String> {
    let how = "--type q4_0 --method gptq --calibration-context 32 --calibration-chunks 4";
    line(dir, &format!("quantize {model} @{out} {how} --calibration @t.txt --state @st"))
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
    let quantize = |out: &str| run(&refs(&in_layers(&dir, first, out)));
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
    ok(&refs(&in_layers(&dir, &model, "o.gguf")));
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
        (false, true, "m.gguf: cannot be read any more: it became shorter"),
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
