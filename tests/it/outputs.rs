//! What is there already where a command writes: another result is replaced with a note, a model is not, a folder is no file.

use std::fs;

use crate::common::{Dir, fails, inputs, line, ok, refs, run};

/// Every command that writes a file which is no model, by the option that names the file, `@OUT`.
const RESULTS: [(&str, &str); 8] = [
    ("calibrate @tiny.gguf @t.txt --context 32 --chunks 1 -o @OUT", "i.gguf"),
    ("calibrate --merge @one.gguf -o @OUT", "i.dat"),
    ("eval @tiny.gguf @t.txt --context 32 --chunks 1 --save-logits @OUT", "base.kld"),
    ("logits @tiny.gguf @OUT --ids 1,2", "l.safetensors"),
    ("sensitivity @tiny.gguf @t.txt --context 32 --chunks 1 -o @OUT", "s.json"),
    ("compare @tiny.gguf @other.gguf --text @t.txt --context 32 --chunks 1 --report @OUT", "r.html"),
    ("frontier @tiny.gguf --report @OUT", "f.html"),
    ("quantize @tiny.gguf @rq.gguf --size 400K --write-recipe @OUT", "mine.toml"),
];

/// Every command that writes a model.
const MODELS: [(&str, &str); 5] = [
    ("convert @tiny.gguf @OUT", "c.gguf"),
    ("convert @tiny.gguf @OUT", "c.safetensors"),
    ("quantize @tiny.gguf @OUT --type q8_0", "q.gguf"),
    ("merge @tiny.gguf @OUT", "m.gguf"),
    ("edit @tiny.gguf @OUT --set general.name=x", "e.gguf"),
];

fn arguments(dir: &Dir, args: &str, out: &str) -> Vec<String> {
    line(dir, &args.replace("@OUT", &format!("@{out}")))
}

/// What a run says, on both streams.
fn said(args: &[&str]) -> String {
    let out = run(args);
    assert!(out.status.success(), "{args:?}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8_lossy(&[out.stdout, out.stderr].concat()).into_owned()
}

fn with_an_importance_matrix() -> Dir {
    let dir = inputs();
    ok(&refs(&line(&dir, "calibrate @tiny.gguf @t.txt --context 32 --chunks 1 -o @one.gguf")));
    dir
}

#[test]
fn a_file_is_replaced_with_a_note() {
    let dir = with_an_importance_matrix();
    for (args, out) in RESULTS.iter().chain(&MODELS) {
        let (args, path) = (arguments(&dir, args, out), dir.path(out));
        let first = said(&refs(&args));
        assert!(!first.contains(&format!("is replaced when all is done: {path}")), "{args:?}: {first}");
        // An earlier result, and whatever else is no model.
        for other in [None, Some("a text of mine")] {
            other.iter().for_each(|text| fs::write(&path, text).unwrap());
            let again = said(&refs(&args));
            assert!(
                again.contains(&format!("note: an existing file is replaced when all is done: {path}\n")),
                "{args:?}: {again}"
            );
            assert_ne!(fs::read(&path).unwrap(), b"a text of mine");
        }
    }
}

#[test]
fn a_model_is_not_replaced_by_another_kind_of_result() {
    let dir = with_an_importance_matrix();
    ok(&refs(&line(&dir, "convert @tiny.gguf @w.safetensors")));
    fs::copy(crate::common::demo("model/tokenizer.model"), dir.path("sp")).unwrap();
    fs::copy(crate::common::demo("model/config.json"), dir.path("settings")).unwrap();
    // Copies, since what a run reads is refused by itself.
    let models = ["one-more.gguf", "w.safetensors", "more.bin", "more-tok.bin", "sp", "settings"];
    for (from, to) in [("tiny.gguf", models[0]), ("tiny.bin", models[2]), ("tok.bin", models[3])] {
        fs::copy(dir.path(from), dir.path(to)).unwrap();
    }
    for (i, (args, out)) in RESULTS.iter().enumerate() {
        for model in [models[i % models.len()], models[(i + 3) % models.len()]] {
            fs::copy(dir.path(model), dir.path(out)).unwrap();
            let before = dir.names();
            let (code, why) = fails(&refs(&arguments(&dir, args, out)));
            assert!(code == 1 && why.contains(&format!("{}: is ", dir.path(out))), "{why}");
            assert!(
                why.contains("would replace it") && why.contains("choose another name"),
                "{args} {model}: {why}"
            );
            assert_eq!(dir.read(out), dir.read(model), "{args}");
            assert_eq!(dir.names(), before, "{args}");
        }
    }
    // Models take the place of models.
    fs::copy(dir.path("other.gguf"), dir.path("c.gguf")).unwrap();
    ok(&refs(&line(&dir, "convert @tiny.gguf @c.gguf")));
}

#[test]
fn a_folder_is_no_file() {
    let dir = with_an_importance_matrix();
    for (args, out) in RESULTS {
        let before = dir.names();
        let refused = |out: &str| {
            let (code, why) = fails(&refs(&arguments(&dir, args, out)));
            let way = match std::path::Path::new(&dir.path(out)).is_dir() {
                true => "hint: name a file",
                false => "leave out the / to name a file",
            };
            assert!(code == 2 && why.contains("is a folder") && why.contains(way), "{args}: {why}");
        };
        // Only named like one, then there.
        refused(&format!("{out}/"));
        assert_eq!(dir.names(), before, "{args}");
        fs::create_dir(dir.path(out)).unwrap();
        refused(out);
        refused(&format!("{out}/"));
        fs::remove_dir(dir.path(out)).unwrap();
    }
}

#[test]
fn a_folder_with_the_name_of_a_file_is_not_filled_by_mistake() {
    let dir = inputs();
    ok(&refs(&line(&dir, "quantize @tiny.gguf @small.gguf --type q8_0")));
    let before = dir.names();
    let commands = [
        "convert @small.gguf @OUT",
        "quantize @tiny.gguf @OUT --type q4_0",
        "merge @small.gguf @OUT",
        "edit @small.gguf @OUT --set general.name=x",
        "split @small.gguf @OUT --max-size 100K",
    ];
    for args in commands {
        for name in ["x.gguf", "x.bin", "x.safetensors"] {
            let (code, why) = fails(&refs(&arguments(&dir, args, &format!("{name}/"))));
            assert!(
                code == 2 && why.contains("names a folder") && why.contains("leave out the /"),
                "{args}: {why}"
            );
            assert_eq!(dir.names(), before, "{args}");
            fs::create_dir(dir.path(name)).unwrap();
            for out in [name.to_string(), format!("{name}/")] {
                let (code, why) = fails(&refs(&arguments(&dir, args, &out)));
                assert!(
                    code == 2 && why.contains("is a folder") && why.contains("name a file in it"),
                    "{args}: {why}"
                );
            }
            fs::remove_dir(dir.path(name)).unwrap();
        }
        // A folder like any other gets a checkpoint, which does not hold these types.
        let (code, why) = fails(&refs(&arguments(&dir, args, "x/")));
        // Nor the settings that are changed.
        let edits = args.starts_with("edit");
        let is_folder = why.contains("x/ is a folder, which gets a checkpoint");
        assert!(code == if edits { 2 } else { 1 } && is_folder, "{args}: {why}");
        let way = if edits { "a GGUF (NEW.gguf)" } else { "x.gguf" };
        assert!(why.contains(way) && (edits || why.contains("--type f16")), "{args}: {why}");
        assert_eq!(dir.names(), before, "{args}");
    }
    // Who asks for a checkpoint by name gets it there.
    ok(&refs(&line(&dir, "convert @tiny.gguf @x.gguf/ --format safetensors --type f16")));
    assert!(fs::metadata(dir.path("x.gguf/config.json")).is_ok());
    let (code, why) = fails(&refs(&line(&dir, "convert @tiny.gguf @x.gguf/ --format gguf")));
    assert!(code == 2 && why.contains("is a folder") && why.contains("x.gguf/model.gguf"), "{why}");
}

/// Who may read the file that is replaced may read the new one.
#[test]
#[cfg(unix)]
fn a_private_file_stays_private() {
    use std::os::unix::fs::PermissionsExt;
    let dir = with_an_importance_matrix();
    for (args, out) in [RESULTS[0], RESULTS[3], MODELS[0], MODELS[1]] {
        let (args, path) = (arguments(&dir, args, out), dir.path(out));
        ok(&refs(&args));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        ok(&refs(&args));
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600, "{args:?}");
    }
}

/// Texts are named as results by mistake.
#[test]
fn a_text_is_not_replaced() {
    let dir = with_an_importance_matrix();
    fs::write(dir.path("notes.txt"), "mine").unwrap();
    fs::write(dir.path("README.md"), "mine").unwrap();
    for (args, _) in RESULTS.iter().chain(&MODELS) {
        if args.contains("--report") {
            continue; // wants a name that ends with .html
        }
        for name in ["notes.txt", "README.md"] {
            let more = if args.starts_with("convert") || args.starts_with("quantize @tiny.gguf @OUT") {
                " --format gguf"
            } else {
                ""
            };
            let (_, why) = fails(&refs(&arguments(&dir, &format!("{args}{more}"), name)));
            assert!(why.contains("is a text, and") || why.contains("ends in .gguf"), "{args}: {why}");
            assert_eq!(fs::read(dir.path(name)).unwrap(), b"mine");
        }
    }
}
