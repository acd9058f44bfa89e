//! `ggufkit calibrate`, end to end: what it measures on the bundled models, how it adds up, and what it refuses.

use std::path::Path;

use crate::common::{Dir, demo, fails, gguf, json, ok, program, stored};
use calibration::{Statistics, imatrix};

fn read(path: &str) -> Statistics {
    imatrix::read(path, &std::fs::read(path).unwrap()).unwrap()
}

/// The bundled model over the first chunks of its text, short ones.
const FEW: [&str; 4] = ["--context", "64", "--chunks", "12"];

fn calibrate(model: &str, out: &str, more: &[&str]) -> String {
    ok(&[&["calibrate", model, &demo("calibration.txt"), "-o", out][..], more].concat())
}

/// Whether sums are the same but for the rounding of f32.
fn near(a: &Statistics, b: &Statistics) {
    assert_eq!(a.entries.keys().collect::<Vec<_>>(), b.entries.keys().collect::<Vec<_>>());
    for (name, entry) in &a.entries {
        assert_eq!(entry.counts(), b.entries[name].counts(), "{name}");
        for (x, y) in entry.sums().iter().zip(b.entries[name].sums()) {
            assert!((x - y).abs() <= 3.0 * f32::EPSILON * x, "{name}: {x} {y}");
        }
    }
}

#[test]
fn a_file_says_what_was_measured_and_quantize_takes_it() {
    let dir = Dir::new();
    let (model, file, out) = (demo("model"), dir.path("i.gguf"), dir.path("q.gguf"));
    let text = calibrate(&model, &file, &FEW);
    let head = format!("{file}: 28 tensors, 12 chunks of 64 tokens of {}", demo("calibration.txt"));
    assert!(text.starts_with(&head) && text.contains("ffn_down"), "{text}");
    assert!(
        text.contains("warning: 28 tensors were measured on few tokens") && text.contains("only 768"),
        "{text}"
    );
    let s = read(&file);
    assert_eq!((s.chunks, s.chunk_size, s.entries.len()), (Some(12), Some(64), 28));
    assert_eq!(s.datasets, [demo("calibration.txt")]);
    for (name, entry) in &s.entries {
        assert_eq!(entry.counts(), [12 * 64], "{name}");
        assert_eq!(entry.cols(), if name.contains("ffn_down") { 768 } else { 256 }, "{name}");
        assert!(entry.sums().iter().all(|&x| x > 0.0), "{name}");
    }
    assert_eq!(s.entries["blk.1.attn_q.weight"], s.entries["blk.1.attn_v.weight"]);
    // What sha256sum says of the text.
    let hash = s.metadata.text(imatrix::HASH).unwrap();
    assert!(hash.starts_with("sha256:") && hash.len() == 7 + 64, "{hash}");
    let text = ok(&["quantize", &model, &out, "--type", "q4_0", "--imatrix", &file]);
    assert!(text.contains("importance: 28 of 30 quantized tensors") && !text.contains("note"), "{text}");
    // Two measurements are the same as one that quantize makes itself.
    let short = ["--calibration-context", "64", "--calibration-chunks", "12"];
    let (text, own) = (demo("calibration.txt"), dir.path("own.gguf"));
    ok(&[&["quantize", &model, &own, "--type", "q4_0", "--calibration", &text][..], &short].concat());
    for name in s.entries.keys() {
        assert!(stored(&out, name) == stored(&own, name), "{name}");
    }
}

#[test]
fn bytes_do_not_depend_on_memory_and_threads() {
    let dir = Dir::new();
    let (model, more) = (gguf(&dir), [&FEW[..], &["--output-matrix"]].concat());
    calibrate(&model, &dir.path("a.gguf"), &more);
    for (i, how) in
        [&["--memory", "64K"][..], &["--threads", "1"], &["--threads", "3", "--memory", "1K", "--no-mmap"]]
            .iter()
            .enumerate()
    {
        let out = dir.path(&format!("{i}.gguf"));
        calibrate(&model, &out, &[&more[..], how].concat());
        assert!(dir.read("a.gguf") == dir.read(&format!("{i}.gguf")), "{how:?}");
    }
    // Nothing else is left.
    assert_eq!(dir.names(), ["0.gguf", "1.gguf", "2.gguf", "a.gguf", "tiny.gguf"]);
    // This model's embedding makes its logits too.
    let s = read(&dir.path("a.gguf"));
    let output: Vec<_> = s.entries.keys().filter(|name| !name.starts_with("blk.")).collect();
    assert!(output == ["output.weight"] || output == ["token_embd.weight"], "{output:?}");
}

#[test]
fn halves_add_up_to_the_whole() {
    let dir = Dir::new();
    let (model, file) = (gguf(&dir), |name: &str| dir.path(name));
    let half = ["--context", "64", "--chunks", "5"];
    calibrate(&model, &file("whole.gguf"), &FEW);
    calibrate(&model, &file("first.gguf"), &half);
    // As one goes on after an interruption: into the same file.
    let rest = ["--context", "64", "--from-chunk", "5", "--chunks", "7", "--merge", &file("first.gguf")];
    calibrate(&model, &file("first.gguf"), &rest);
    let (whole, sum) = (read(&file("whole.gguf")), read(&file("first.gguf")));
    near(&whole, &sum);
    assert_eq!((whole.chunks, &whole.datasets, &whole.metadata), (sum.chunks, &sum.datasets, &sum.metadata));
    // And without a model.
    calibrate(&model, &file("a.gguf"), &half);
    calibrate(&model, &file("b.dat"), &["--context", "64", "--from-chunk", "5", "--chunks", "7"]);
    let (a, b, both) = (file("a.gguf"), file("b.dat"), file("both.gguf"));
    let text = ok(&["calibrate", "--merge", &a, "--merge", &b, "-o", &both]);
    assert!(text.contains("note: "), "{text}");
    let (whole, both) = (read(&file("whole.gguf")), read(&both));
    for (name, entry) in &whole.entries {
        for (x, y) in entry.means().iter().zip(both.entries[name].means()) {
            assert!((x - y).abs() <= 1e-5 * x, "{name}: {x} {y}");
        }
    }
}

#[test]
fn texts_are_cut_one_by_one() {
    let dir = Dir::new();
    let (model, a, b, joined) = (gguf(&dir), dir.path("a.txt"), dir.path("b.txt"), dir.path("ab.txt"));
    let text = std::fs::read_to_string(demo("calibration.txt")).unwrap();
    std::fs::write(&a, &text[..4000]).unwrap();
    std::fs::write(&b, &text[4000..9000]).unwrap();
    std::fs::write(&joined, &text[..9000]).unwrap();
    let run = |texts: &[&str], out: &str| {
        let out = dir.path(out);
        ok(&[&["calibrate", &model][..], texts, &["--context", "100", "-o", &out]].concat());
        read(&out)
    };
    let (mut one, two, both) = (run(&[&a], "a.gguf"), run(&[&b], "b.gguf"), run(&[&a, &b], "both.gguf"));
    one.merge(&two).unwrap();
    near(&one, &both);
    assert_eq!((both.datasets.as_slice(), both.chunks), (&[a, b][..], one.chunks));
    // The hash is that of what they hold, wherever it is cut.
    assert_eq!(both.metadata, run(&[&joined], "joined.gguf").metadata);
}

#[test]
fn both_kinds_of_file_say_the_same() {
    let dir = Dir::new();
    let model = gguf(&dir);
    let (new, old, other) = (dir.path("i.gguf"), dir.path("i.dat"), dir.path("i.imatrix"));
    calibrate(&model, &new, &FEW);
    calibrate(&model, &old, &FEW);
    calibrate(&model, &other, &[&FEW[..], &["--format", "dat"]].concat());
    assert!(dir.read("i.dat") == dir.read("i.imatrix") && dir.read("i.gguf").starts_with(b"GGUF"));
    let (s, d) = (read(&new), read(&old));
    assert_eq!((s.chunks, &s.datasets, s.entries.len()), (d.chunks, &d.datasets, d.entries.len()));
    for (name, entry) in &s.entries {
        for (x, y) in entry.means().iter().zip(d.entries[name].means()) {
            assert!((x - y).abs() <= 2.0 * f32::EPSILON * x, "{name}: {x} {y}");
        }
    }
    let shown = ok(&["calibrate", "--show", &new]);
    for name in s.entries.keys() {
        assert!(shown.contains(name.as_str()), "{shown}");
    }
    let value = json(&["calibrate", "--show", &new, "--json"]);
    let entries = value["entries"].as_array().unwrap();
    assert_eq!((entries.len(), &entries[0]["tokens"]), (s.entries.len(), &768.into()));
    assert_eq!(value["hash"].as_str(), s.metadata.text(imatrix::HASH));
    let measured =
        json(&[&["calibrate", &model, &demo("calibration.txt"), "-o", &new, "--json"][..], &FEW].concat());
    assert_eq!(measured, value);
}

#[test]
fn a_text_is_built_in() {
    let dir = Dir::new();
    let (model, out) = (gguf(&dir), dir.path("i.gguf"));
    let few = ["--chunks", "2", "--context", "128"];
    ok(&[&["calibrate", &model, "builtin", "-o", &out][..], &few].concat());
    assert_eq!((read(&out).datasets, read(&out).chunks), (vec!["builtin".to_string()], Some(2)));
    // A file of that name comes first.
    std::fs::copy(demo("calibration.txt"), dir.path("builtin")).unwrap();
    let arguments = [&["calibrate", &model, "builtin", "-o", "other.gguf"][..], &few].concat();
    assert!(program().args(arguments).current_dir(&dir.0).output().unwrap().status.success());
    assert!(read(&out).metadata != read(&dir.path("other.gguf")).metadata);
    ok(&[
        "quantize",
        &model,
        &dir.path("q.gguf"),
        "--type",
        "q4_0",
        "--calibration",
        "builtin",
        "--calibration-chunks",
        "1",
        "--calibration-context",
        "64",
    ]);
    // Varied enough to fill many chunks even of large vocabularies.
    assert!((120_000..200_000).contains(&ggufkit::calibrate::BUILTIN.len()));
}

#[test]
fn what_cannot_be_done_is_said_and_nothing_is_written() {
    let dir = Dir::new();
    let (model, text, out) = (gguf(&dir), demo("calibration.txt"), dir.path("i.gguf"));
    let says = |arguments: &[&str], status: i32, parts: &[&str]| {
        let (code, said) = fails(&[&["calibrate"][..], arguments].concat());
        assert_eq!(code, status, "{arguments:?}: {said}");
        for part in parts {
            assert!(said.contains(part), "{arguments:?}: {said}");
        }
        assert!(!Path::new(&out).exists(), "{arguments:?}");
    };
    says(&[&model, "-o", &out], 2, &["no calibration set", "hint"]);
    says(&["-o", &out], 2, &["no model", "hint"]);
    says(&[&model, &text], 2, &["--out"]);
    says(&[&model, &text, "-o", &out, "--context", "3"], 2, &["--context"]);
    says(&[&model, &text, "-o", &out, "--chunks", "0"], 2, &["--chunks <N>", "at least 1"]);
    says(
        &[&model, &text, "-o", &out, "--from-chunk", "100000"],
        2,
        &["--from-chunk 100000", "has only", "hint"],
    );
    says(&["--show", &text, &model], 2, &["--show"]);
    says(&[&model, &dir.path("none.txt"), "-o", &out], 1, &["none.txt: cannot read", "hint: check the path"]);
    says(&[&model, dir.0.path().to_str().unwrap(), "-o", &out], 1, &["is a folder, not a text"]);
    says(&[&demo("tiny.bin"), &text, "-o", &out], 1, &["has no vocabulary", "hint", "--tokenizer"]);
    std::fs::write(dir.path("short.txt"), "A word.").unwrap();
    let short = dir.path("short.txt");
    says(
        &[&model, &text, &short, "-o", &out],
        1,
        &["short.txt: has", "chunks of 128 tokens (--context)", "hint: give a text of at least 128 tokens"],
    );
    std::fs::write(dir.path("empty.txt"), "").unwrap();
    says(&[&model, &dir.path("empty.txt"), "-o", &out], 1, &["empty.txt: has", "hint"]);
    says(&["--show", &text], 1, &["not an importance matrix", "hint: `ggufkit calibrate"]);
    says(&["--show", &model], 1, &["not an importance matrix", "hint: `ggufkit calibrate"]);
    says(&["--show", &dir.path("none.gguf")], 1, &["none.gguf", "hint: check the path"]);
    says(&[&model, &text, "-o", dir.0.path().to_str().unwrap()], 2, &["is a folder", "hint: name a file"]);
    says(&[&model, &text, "-o", &dir.path("no/such.gguf")], 1, &["hint: check the path"]);
    says(&[&model, &text, "-o", &model], 2, &["tiny.gguf: is read in this run", "hint"]);
    says(&[&model, &short, "-o", &short], 2, &["short.txt: is a text, and", "hint: choose another name"]);

    // Files of another model, or of none, are known before the work.
    let (other, few) = (dir.path("other.gguf"), ["--context", "64", "--chunks", "1"]);
    calibrate(&demo("model"), &other, &few);
    says(&[&model, &text, "-o", &out, "--merge", &other], 1, &["other.gguf", "in the model it has", "hint"]);
    says(
        &[&model, &text, "-o", &out, "--merge", &text],
        1,
        &["calibration.txt: is a text, not an importance matrix"],
    );
    #[cfg(target_os = "linux")]
    {
        says(&[&model, &text, "-o", "/dev/full"], 1, &["/dev/full: cannot write a regular file here"]);
        let full = program()
            .args(["calibrate", "--show", &other])
            .stdout(std::fs::File::create("/dev/full").unwrap())
            .output()
            .unwrap();
        assert_eq!(full.status.code(), Some(1));
        let said = String::from_utf8_lossy(&full.stderr).into_owned();
        assert!(said.contains("standard output") && said.contains("hint: free some space"), "{said}");
    }
}

#[test]
fn a_text_of_which_no_chunk_is_taken_is_named() {
    let dir = Dir::new();
    let (model, first, second) = (demo("model"), demo("calibration.txt"), demo("heldout.txt"));
    let notes = |more: &[&str]| {
        let out = dir.path("imatrix.gguf");
        let args =
            [&["calibrate", &model, &first, &second, "-o", &out, "--context", "64"][..], more].concat();
        String::from_utf8_lossy(&program().args(&args).output().unwrap().stderr).into_owned()
    };
    let few = notes(&["--chunks", "2"]);
    assert!(few.contains("heldout.txt is not used") && !few.contains("calibration.txt is not used"), "{few}");
    let late = notes(&["--from-chunk", "400", "--chunks", "2"]);
    assert!(
        late.contains("calibration.txt is not used") && !late.contains("heldout.txt is not used"),
        "{late}"
    );
}

#[test]
fn nothing_counts_twice() {
    let dir = Dir::new();
    let (model, text) = (demo("model"), demo("calibration.txt"));
    let (a, b, out) = (dir.path("a.gguf"), dir.path("b.gguf"), dir.path("out.gguf"));
    calibrate(&model, &a, &FEW);
    calibrate(&model, &b, &["--context", "64", "--chunks", "4", "--from-chunk", "12"]);
    let (dat, copy, both) = (dir.path("a.dat"), dir.path("copy.gguf"), dir.path("both.gguf"));
    ok(&["calibrate", "--merge", &a, "-o", &dat]);
    std::fs::copy(&a, &copy).unwrap();
    ok(&["calibrate", "--merge", &a, "--merge", &b, "-o", &both]);
    let mut same = vec![&a, &dat, &copy];
    let link = dir.path("link.gguf");
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink(&a, &link).unwrap();
        same.push(&link);
    }
    for other in same {
        let (code, why) = fails(&["calibrate", "--merge", &a, "--merge", &b, "--merge", other, "-o", &out]);
        assert!(
            code == 2 && why.contains("would count twice") && why.contains("hint: leave out one"),
            "{why}"
        );
    }
    let (text_copy, twice) = (dir.path("copy.txt"), [&[&*model, &text][..], &["-o", &out], &FEW].concat());
    std::fs::copy(&text, &text_copy).unwrap();
    for second in [&text, &text_copy] {
        let (code, why) = fails(&[&["calibrate", &model, &text, second, "-o", &out][..], &FEW].concat());
        assert!(code == 2 && why.contains("would count twice"), "{why}");
    }
    // The same again, and a part of it.
    let (code, why) = fails(&[&["calibrate"][..], &twice[..], &["--merge", &a]].concat());
    assert!(code == 2 && why.contains("a.gguf holds what was measured now"), "{why}");
    assert!(!Path::new(&out).exists());
    let measured = |more: &[&str]| {
        let args =
            [&["calibrate", &model, &text, "--merge", &a, "-o", &out, "--context", "64"][..], more].concat();
        let done = program().args(args).output().unwrap();
        assert!(done.status.success());
        String::from_utf8(done.stderr).unwrap()
    };
    assert!(measured(&["--chunks", "3"]).contains("is of 12 chunks of the same text"));
    assert!(!measured(&["--chunks", "3", "--from-chunk", "12"]).contains("of the same text"));
}

#[test]
fn every_text_is_read_or_refused_by_name() {
    let dir = Dir::new();
    let (model, out) = (gguf(&dir), dir.path("i.gguf"));
    let plain = std::fs::read_to_string(demo("heldout.txt")).unwrap();
    let plain: String = plain.chars().take(4000).collect();
    let measured = |name: &str, bytes: Vec<u8>| {
        std::fs::write(dir.path(name), bytes).unwrap();
        let args = ["calibrate", &model, &dir.path(name), "-o", &out, "--context", "32", "--chunks", "8"];
        let done = program().args(args).output().unwrap();
        let said = String::from_utf8(done.stderr).unwrap();
        assert!(done.status.success(), "{name}: {said}");
        (read(&out).entries, said)
    };
    let (entries, said) = measured("plain.txt", plain.clone().into());
    assert!(!said.contains("plain.txt"), "{said}");
    let utf16 = |unit: fn(u16) -> [u8; 2]| -> Vec<u8> {
        [0xFEFF].into_iter().chain(plain.encode_utf16()).flat_map(unit).collect()
    };
    for (name, bytes) in [
        ("mark.txt", format!("\u{FEFF}{plain}").into_bytes()),
        ("le.txt", utf16(u16::to_le_bytes)),
        ("be.txt", utf16(u16::to_be_bytes)),
    ] {
        let (same, said) = measured(name, bytes);
        assert!(same == entries && said.contains("byte order mark"), "{name}: {said}");
    }
    // Other line ends are other tokens, and one line is a text.
    assert!(measured("crlf.txt", plain.replace('\n', "\r\n").into()).0.len() == entries.len());
    let line = plain.replace('\n', " ");
    assert!(measured("line.txt", line.repeat(1 + (1 << 18) / line.len()).into()).0.len() == entries.len());
    let le: Vec<u8> = plain.encode_utf16().flat_map(u16::to_le_bytes).collect();
    for (name, bytes, says) in [
        ("empty.txt", Vec::new(), "empty.txt: has"),
        ("short.txt", b"Once upon a time".to_vec(), "short.txt: has"),
        ("blank.txt", b"\n\n \n".to_vec(), "blank.txt: has"),
        ("bytes.bin", (0..=255u8).cycle().take(5000).collect(), "bytes.bin: "),
        ("zeros.bin", vec![0; 5000], "zeros.bin: "),
        ("unmarked.txt", le, "UTF-16LE without a byte order mark"),
    ] {
        std::fs::write(dir.path(name), bytes).unwrap();
        for args in [
            &["calibrate", &model, &dir.path(name), "-o", &dir.path("none.gguf"), "--context", "32"][..],
            &["sensitivity", &model, &dir.path(name), "-o", &dir.path("none.json"), "--context", "32"],
            &["quantize", &model, &dir.path("none.gguf"), "--type", "q8_0", "--calibration", &dir.path(name)],
        ] {
            let (code, why) = fails(args);
            assert!(code == 1 && why.contains(says) && why.contains("hint: "), "{args:?}: {why}");
        }
    }
    let folder = dir.0.path().to_str().unwrap();
    let (code, why) =
        fails(&["quantize", &model, &dir.path("q.gguf"), "--type", "q8_0", "--calibration", folder]);
    assert!(code == 1 && why.contains("is a folder, not a text"), "{why}");
}
