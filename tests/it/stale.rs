//! What a GGUF's metadata says of its file, and not of the model, is true of every file that is made of it.

use crate::common::{Dir, Numbers, demo, fails, noise, ok, write_gguf};
use formats::container::gguf;
use formats::metadata::{Metadata, Value};
use formats::model::Input;

/// Puts keys before a GGUF's metadata, as programs do that know the file to be one of several. The writer of this project
/// would leave out what is not true.
fn with_keys(path: &str, keys: &[(&str, u16)], to: &str) {
    const ALIGNMENT: usize = 32;
    let bytes = std::fs::read(path).unwrap();
    let number = |n: usize| (n as u64).to_le_bytes();
    let mut more = Vec::new();
    for (key, value) in keys {
        more.extend(number(key.len()));
        more.extend(key.as_bytes());
        more.extend(2u32.to_le_bytes()); // u16
        more.extend(value.to_le_bytes());
    }
    // A text that lets the data begin at a multiple of the alignment.
    more.extend(number(4));
    more.extend(b"text");
    more.extend(8u32.to_le_bytes());
    let len = (more.len() + 8).next_multiple_of(ALIGNMENT) - more.len() - 8;
    more.extend(number(len));
    more.resize(more.len() + len, b'.');
    let count = u64::from_le_bytes(bytes[16..24].try_into().unwrap()) + keys.len() as u64 + 1;
    std::fs::write(to, [&bytes[..16], &count.to_le_bytes(), &more, &bytes[24..]].concat()).unwrap();
}

/// The keys of a file that begin with one of these, with their values.
fn keys(path: &str, starts: &[&str]) -> Vec<(String, String)> {
    let bytes = std::fs::read(path).unwrap();
    let model = gguf::read(&Input::whole(path, &bytes)).unwrap();
    let text = |v: &Value| v.as_str().map_or_else(|| format!("{}", v.as_u64().unwrap()), str::to_string);
    let own = model.metadata.iter().filter(|(key, _)| starts.iter().any(|start| key.starts_with(start)));
    own.map(|(key, value)| (key.to_string(), text(value))).collect()
}

/// A small model of two matrices and a norm.
fn model(path: &str) {
    let mut metadata = Metadata::new();
    metadata.set("general.architecture", Value::text("unknown"));
    let tensors: [Numbers; 3] = [
        ("a.weight".into(), vec![8, 256], noise(2048, 1)),
        ("b.weight".into(), vec![4, 256], noise(1024, 2)),
        ("c_norm.weight".into(), vec![256], noise(256, 3)),
    ];
    write_gguf(path, &metadata, &tensors);
}

const SPLIT: [&str; 3] = ["split.no", "split.count", "split.tensors.count"];

#[test]
fn no_file_says_that_it_is_a_part_which_it_is_not() {
    let dir = Dir::new();
    let (plain, from, out) = (dir.path("plain.gguf"), dir.path("from.gguf"), dir.path("out.gguf"));
    model(&plain);
    for (given, true_of_it) in [
        (&[(SPLIT[0], 0), (SPLIT[1], 1), (SPLIT[2], 3)][..], true),
        (&[(SPLIT[1], 1)], true),
        (&[(SPLIT[0], 0), (SPLIT[1], 1), (SPLIT[2], 9)], false),
        (&[(SPLIT[1], 3)], false),
        (&[(SPLIT[0], 1), (SPLIT[2], 3)], false),
        (&[(SPLIT[1], 0)], false),
    ] {
        with_keys(&plain, given, &from);
        for command in
            [&["convert"][..], &["quantize", "--type", "q8_0"], &["edit", "--set", "general.name=x"]]
        {
            let args = [&command[..1], &[&*from, &*out], &command[1..]].concat();
            let text = ok(&args);
            let kept = keys(&out, &["split."]);
            assert_eq!(kept.len(), if true_of_it { given.len() } else { 0 }, "{args:?}: {kept:?}");
            assert_eq!(text.contains("left out: the result is no part"), !true_of_it, "{args:?}: {text}");
        }
        // Real parts say what they are, and are put together without it.
        ok(&["split", &from, &dir.path("parts.gguf"), "--max-tensors", "2"]);
        let part = dir.path("parts-00002-of-00002.gguf");
        assert_eq!(keys(&part, &["split."]).len(), 3);
        ok(&["merge", &part, &out]);
        assert!(keys(&out, &["split."]).is_empty());
    }
}

#[test]
fn how_weights_were_quantized_is_said_of_these_weights_alone() {
    let dir = Dir::new();
    let (from, imatrix, out) = (dir.path("q.gguf"), dir.path("i.gguf"), dir.path("out.gguf"));
    let short = ["--context", "64", "--chunks", "2"];
    ok(&[&["calibrate", &demo("model"), "builtin", "-o", &imatrix][..], &short].concat());
    ok(&["quantize", &demo("model"), &from, "--type", "q4_0", "--imatrix", &imatrix]);
    let made = ["quantize.imatrix", "ggufkit.", "general.file_type"];
    let before = keys(&from, &made);
    assert_eq!(before.len(), 6, "{before:?}");
    let after = |command: &[&str]| {
        ok(&[&command[..1], &[&*from, &*out], &command[1..]].concat());
        keys(&out, &made)
    };
    let file_type = |n: u32| vec![("general.file_type".to_string(), n.to_string())];
    // What is copied was made so.
    assert_eq!(after(&["convert"]), before);
    assert_eq!(after(&["edit", "--set", "general.name=x"]), before);
    assert_eq!(after(&["convert", "--tensor", "token_embd=f16"]), before);
    // What is made anew, or has no quantized weights, was not.
    assert_eq!(after(&["convert", "--type", "f16"]), file_type(1));
    assert_eq!(after(&["quantize", "--type", "q8_0", "--allow-requantize"]), file_type(7));
    assert_eq!(after(&["convert", "--tensor", ".weight=bf16"]), file_type(32));
    let set = after(&["convert", "--type", "f16", "--set", "quantize.imatrix.file=mine"]);
    assert!(set.iter().any(|(key, value)| key == "quantize.imatrix.file" && value == "mine"), "{set:?}");

    let tensors = dir.path("out.safetensors");
    ok(&["convert", &from, &tensors, "--type", "bf16"]);
    ok(&["convert", &tensors, &out]);
    assert_eq!(keys(&out, &made), file_type(32));
}

#[test]
fn an_importance_matrix_is_whole_or_refused() {
    let dir = Dir::new();
    let (from, part, out) = (dir.path("i.gguf"), dir.path("part.gguf"), dir.path("out.gguf"));
    ok(&["calibrate", &demo("model"), "builtin", "-o", &from, "--context", "64", "--chunks", "1"]);
    // 28 matrices have two tensors each.
    with_keys(&from, &[(SPLIT[0], 0), (SPLIT[1], 2), (SPLIT[2], 56)], &part);
    let text = ok(&["calibrate", "--merge", &part, "-o", &out]);
    assert!(text.contains("says that it is one of 2 files, and has all tensors"), "{text}");
    assert!(ok(&["calibrate", "--show", &out]).contains("blk.3.ffn_down"));
    assert!(keys(&out, &["split."]).is_empty());
    with_keys(&from, &[(SPLIT[0], 0), (SPLIT[1], 1), (SPLIT[2], 1)], &part);
    ok(&["calibrate", "--merge", &part, "-o", &out]);
    assert!(keys(&out, &["split."]).is_empty());
    for keys in [&[(SPLIT[0], 0), (SPLIT[1], 2), (SPLIT[2], 99)][..], &[(SPLIT[0], 1), (SPLIT[1], 3)]] {
        with_keys(&from, keys, &part);
        for args in [
            &["calibrate", "--merge", &part, "-o", &out][..],
            &["calibrate", "--show", &part],
            &["quantize", &demo("model"), &dir.path("q.gguf"), "--type", "q4_0", "--imatrix", &part],
        ] {
            let (code, why) = fails(args);
            assert!(
                code == 1 && why.contains("part.gguf: is part") && why.contains("hint: put the parts"),
                "{why}"
            );
        }
    }
}
