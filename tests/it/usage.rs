//! The program as a part of a shell's line: commands that are none, exit codes, pipes, full disks, names of any kind.

use std::path::Path;
use std::process::Stdio;

use crate::common::{Dir, demo, fails, gguf, inputs, json, line, ok, program, refs, run};

#[test]
fn a_command_of_another_program_is_answered_with_ours() {
    for (args, says) in [
        (&["perplexity", "-m", "x.gguf", "-f", "t.txt"][..], "`ggufkit eval MODEL TEXT`"),
        (&["convert_hf_to_gguf.py", "x"], "`ggufkit convert IN OUT`"),
        (&["llama-imatrix"], "`ggufkit calibrate MODEL TEXT -o FILE`"),
        (&["help", "info"], "`ggufkit inspect MODEL`"),
        (&["-m", "x.gguf", "-ngl", "99"], "options follow the name of the command"),
        (&["x.gguf"], "a command comes first, for example `ggufkit inspect x.gguf`"),
    ] {
        let (code, why) = fails(args);
        assert!(code == 2 && why.contains(says) && !why.contains("subcommand exists"), "{args:?}: {why}");
    }
}

/// A folder with the model in shards, and their names.
fn shards(dir: &Dir) -> Vec<String> {
    let model = gguf(dir);
    ok(&["split", &model, &dir.path("m.gguf"), "--max-size", "300K"]);
    let names: Vec<String> = dir.names().into_iter().filter(|name| name.starts_with("m-0000")).collect();
    assert!(names.len() > 2, "{names:?}");
    names.iter().map(|name| dir.path(name)).collect()
}

#[test]
fn all_shards_may_be_named_for_a_merge() {
    let dir = Dir::new();
    let parts = shards(&dir);
    let mut args = vec!["merge"];
    args.extend(parts.iter().map(String::as_str));
    // As `*.gguf` names them, and with the output forgotten.
    let (code, why) = fails(&args);
    assert!(code == 2 && why.contains("no output is given") && why.contains("add the name"), "{why}");
    let out = dir.path("whole.gguf");
    args.push(&out);
    ok(&args);
    assert!(dir.read("whole.gguf") == dir.read("tiny.gguf"));
    // In any order, not all of them, by another name of the folder.
    let twice = Path::new(&parts[1]).parent().unwrap().join(".").join("m-00001-of-00003.gguf");
    let some = ["merge", &parts[2], twice.to_str().unwrap(), &out];
    if parts.len() == 3 {
        ok(&some);
        assert!(dir.read("whole.gguf") == dir.read("tiny.gguf"));
    }
    // A shard of another model is none of this one, and a model that is whole has no shards.
    std::fs::copy(&parts[1], dir.path("o-00002-of-00003.gguf")).unwrap();
    for strange in [&parts[0], &dir.path("tiny.gguf")] {
        let (code, why) = fails(&["merge", strange, &dir.path("o-00002-of-00003.gguf"), &dir.path("n.gguf")]);
        assert!(code == 2 && why.contains("are not shards of one model"), "{why}");
    }
    assert!(!dir.names().contains(&"n.gguf".to_string()));
    // Other commands take one.
    let (code, why) = fails(&["inspect", &parts[0], &parts[1]]);
    assert!(code == 2 && why.contains("one shard stands for all of a split model"), "{why}");
    assert!(ok(&["merge", "--help"]).contains("<IN> [SHARD]... <OUT>"));
}

#[test]
fn a_file_is_named_for_what_a_missing_folder_cannot_get() {
    let dir = Dir::new();
    let (model, q8) = (gguf(&dir), dir.path("q8.gguf"));
    ok(&["quantize", &model, &q8, "--type", "q8_0"]);
    for command in [&["merge"][..], &["convert"], &["split", "--max-size", "100K"]] {
        let (folder, file) = (dir.path("back/"), dir.path("back.gguf"));
        let args = |out: &str| [&command[..1], &[&q8, out], &command[1..]].concat().join("\n");
        let with = |out: &str| args(out).split('\n').map(String::from).collect::<Vec<_>>();
        let (code, why) = fails(&refs(&with(&folder)));
        assert!(code == 1 && why.contains(&format!("name a file to keep the types: {file};")), "{why}");
        ok(&refs(&with(&file)));
        let (code, why) = fails(&refs(&with(&dir.path("back"))));
        assert!(code == 2 && why.contains(&format!("ends in .gguf ({file})")), "{why}");
    }
}

/// Command lines of every command, with what each prints.
const ALL: [&str; 19] = [
    "convert @tiny.gguf @a.gguf",
    "convert @tiny.gguf @b.gguf --dry-run",
    "convert @tiny.gguf @c.gguf --check @t.txt --check-context 32 --check-chunks 1",
    "quantize @tiny.gguf @d.gguf --type q8_0",
    "quantize @tiny.gguf @e.gguf --size 400K --dry-run",
    "calibrate @tiny.gguf @t.txt --context 32 --chunks 1 -o @f.gguf",
    "calibrate --show @im.gguf",
    "sensitivity @tiny.gguf @t.txt --context 32 --chunks 1 -o @s.json",
    "frontier @tiny.gguf",
    "inspect @tiny.gguf --tensors",
    "inspect @tiny.gguf --memory",
    "verify @tiny.gguf",
    "verify @tiny.gguf --against @other.gguf",
    "eval @tiny.gguf @t.txt --context 32 --chunks 1",
    "compare @tiny.gguf @other.gguf --text @t.txt --context 32 --chunks 1",
    "bench @tiny.gguf --prompt 4 --generate 2 --repeats 1",
    "split @tiny.gguf @p.gguf --max-size 300K",
    "merge @tiny.gguf @g.gguf",
    "edit @tiny.gguf @h.gguf --set general.name=x",
];

fn files() -> Dir {
    let dir = inputs();
    ok(&refs(&line(&dir, "calibrate @tiny.gguf @t.txt --context 32 --chunks 1 -o @im.gguf")));
    dir
}

#[test]
fn with_json_standard_output_is_one_value_or_nothing() {
    let dir = files();
    for args in
        ALL.iter().filter(|args| !args.starts_with("sensitivity") && **args != "inspect @tiny.gguf --tensors")
    {
        json(&refs(&line(&dir, &format!("{args} --json"))));
    }
    // What fails says so on standard error alone.
    for (args, code) in [
        ("inspect @nothing.gguf --json", 1),
        ("verify @t.txt --json", 1),
        ("eval @tiny.gguf --json", 2),
        ("quantize @tiny.gguf @z.gguf --json", 2),
        ("convert @tiny.gguf @z --json", 2),
    ] {
        let out = run(&refs(&line(&dir, args)));
        assert_eq!(out.status.code(), Some(code), "{args}");
        assert!(out.stdout.is_empty() && !out.stderr.is_empty(), "{args}");
    }
}

#[test]
#[cfg(target_os = "linux")]
fn a_full_disk_at_standard_output_is_an_error_in_every_command() {
    let dir = files();
    let texts = [
        "--help",
        "--version",
        "help",
        "quantize --help",
        "quantize --print-recipe q4_0",
        "run @tiny.gguf --tokens 3",
    ];
    let all = ALL.iter().filter(|args| !args.starts_with("sensitivity")).chain(&texts);
    for args in all.map(|args| line(&dir, args)) {
        let out = program()
            .args(&args)
            .stdout(std::fs::File::create("/dev/full").unwrap())
            .stderr(Stdio::piped())
            .output()
            .unwrap();
        let why = String::from_utf8_lossy(&out.stderr);
        assert_eq!(out.status.code(), Some(1), "{args:?}: {why}");
        let lines: Vec<&str> = why.lines().filter(|line| !line.starts_with("note: ")).collect();
        assert!(
            lines[0] == "ggufkit: standard output: cannot write: No space left on device (os error 28)",
            "{args:?}: {why}"
        );
        // Standard error may be full too.
        let full = || std::fs::File::create("/dev/full").unwrap();
        let status = program().args(&args).stdout(full()).stderr(full()).status().unwrap();
        assert_eq!(status.code(), Some(1), "{args:?}");
    }
}

#[test]
#[cfg(unix)]
fn a_pipe_that_nobody_reads_is_no_error() {
    let dir = files();
    let texts = ["--help", "convert --help", "quantize --print-recipe q4_0", "run @tiny.gguf --tokens 3"];
    for args in ALL.iter().chain(&texts).map(|args| line(&dir, args)) {
        let mut child = program().args(&args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        let out = child.wait_with_output().unwrap();
        let why = String::from_utf8_lossy(&out.stderr);
        assert_eq!(out.status.code(), Some(0), "{args:?}: {why}");
        assert!(why.lines().all(|line| line.starts_with("note: ")), "{args:?}: {why}");
    }
}

#[test]
fn a_dash_is_no_standard_output_or_input() {
    let dir = files();
    for args in [
        "convert @tiny.gguf -",
        "convert @tiny.gguf - --format gguf",
        "calibrate @tiny.gguf @t.txt -o -",
        "eval @tiny.gguf @t.txt --save-logits -",
        "compare @tiny.gguf @other.gguf --text @t.txt --report -",
        "logits @tiny.gguf - --ids 1",
    ] {
        let (code, why) = fails(&refs(&line(&dir, args)));
        assert!(
            code == 2 && why.contains("not to standard output") && why.contains("name a file"),
            "{args}: {why}"
        );
    }
    for args in ["inspect -", "eval @tiny.gguf -", "run @tiny.gguf --prompt-file -"] {
        let (code, why) = fails(&refs(&line(&dir, args)));
        assert!(code == 1 && why.contains("-: cannot ") && why.contains("/dev/stdin"), "{args}: {why}");
    }
}

#[test]
#[cfg(unix)]
fn a_text_may_come_from_a_pipe_and_a_model_may_not() {
    use std::io::Write as _;
    let dir = files();
    let piped = |args: &str, file: &str| {
        let mut command = program();
        let command = command
            .args(line(&dir, args))
            .stdin(Stdio::piped())
            .stderr(Stdio::piped())
            .stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        // Who does not read it closes the pipe.
        let _ = child.stdin.take().unwrap().write_all(&dir.read(file));
        child.wait_with_output().unwrap()
    };
    assert!(piped("eval @tiny.gguf /dev/stdin --context 32 --chunks 1", "t.txt").status.success());
    let out = piped("inspect /dev/stdin", "tiny.gguf");
    let why = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.code() == Some(1) && why.contains("written into one first"), "{why}");
}

/// The command line between backticks in a message, as a shell runs it.
#[cfg(unix)]
fn follow(message: &str, folder: &Path) -> std::process::Output {
    let command = message.split('`').nth(1).unwrap_or_else(|| panic!("no command line: {message}"));
    let program = Path::new(env!("CARGO_BIN_EXE_ggufkit"));
    let command = command.replacen("ggufkit", program.to_str().unwrap(), 1).replace(" TEXT ", " t.txt ");
    std::process::Command::new("bash").args(["-c", &command]).current_dir(folder).output().unwrap()
}

#[test]
#[cfg(target_os = "linux")]
fn names_may_be_of_any_kind_and_are_quoted_in_command_lines() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt as _;
    let dir = files();
    std::fs::write(dir.path("t.txt"), &std::fs::read(demo("heldout.txt")).unwrap()[..3000]).unwrap();
    for name in [
        &b"my model"[..],
        b"it's \"one\"",
        b"a\nb",
        b"-x",
        b"$(touch no)",
        b"\xff\xfe",
        b"\xe6\xbc\xa2",
        b"a;b|c&d",
    ] {
        let named = |ending: &str| dir.0.path().join(OsStr::from_bytes(&[name, ending.as_bytes()].concat()));
        let (model, out, file) = (named(".gguf"), named("-2.gguf"), named(".json"));
        std::fs::copy(dir.path("tiny.gguf"), &model).unwrap();
        let run = |args: &[&OsStr]| program().args(args).current_dir(dir.0.path()).output().unwrap();
        let s = OsStr::new;
        for args in [
            &[s("inspect"), model.as_os_str()][..],
            &[s("convert"), model.as_os_str(), out.as_os_str()],
            &[s("verify"), out.as_os_str(), s("--against"), model.as_os_str(), s("--json")],
            &[s("split"), model.as_os_str(), out.as_os_str(), s("--max-size"), s("300K"), s("--json")],
        ] {
            let found = run(args);
            let why = String::from_utf8_lossy(&found.stderr);
            assert!(found.status.success(), "{args:?}: {why}");
            assert!(!String::from_utf8_lossy(&found.stdout).contains("\nb"), "{args:?}");
        }
        // The message names the model and a file that is to be made.
        let args = [
            s("quantize"),
            model.as_os_str(),
            out.as_os_str(),
            s("--size"),
            s("400K"),
            s("--sensitivity"),
            file.as_os_str(),
        ];
        let found = run(&args);
        let why = String::from_utf8_lossy(&found.stderr).into_owned();
        assert_eq!(found.status.code(), Some(1), "{why}");
        let followed = follow(&why, dir.0.path());
        assert!(
            followed.status.success() && file.exists(),
            "{why}: {}",
            String::from_utf8_lossy(&followed.stderr)
        );
        assert!(run(&args).status.success());
    }
    assert!(!Path::new(&dir.path("no")).exists());
    // A model that is given in the place of a command.
    std::fs::copy(dir.path("tiny.gguf"), dir.path("it's one.gguf")).unwrap();
    let (code, why) = fails(&[&dir.path("it's one.gguf")]);
    assert_eq!(code, 2);
    assert!(follow(&why, dir.0.path()).status.success(), "{why}");
}

#[test]
fn threads_are_a_number_that_can_be() {
    let dir = files();
    for threads in ["0", "-1", "10000", "x", "1.5", ""] {
        let mut args = line(&dir, "run @tiny.gguf --tokens 1 --threads");
        args.push(threads.into());
        let (code, why) = fails(&refs(&args));
        assert!(code == 2 && why.contains("--threads"), "{threads}: {why}");
    }
    ok(&refs(&line(&dir, "run @tiny.gguf --tokens 1 --threads 1024")));
}
