//! `--for`, end to end: files as each machine's program reads them, and what that cannot use is refused.

use crate::common::{Dir, all_types, demo, fails, gguf, ok, run};

/// The little bundled checkpoint with its vocabulary, for a machine.
fn make(out: &str, machine: &str, more: &[&str]) -> String {
    let (model, tokenizer) = (demo("tiny.bin"), demo("tiny-tokenizer.bin"));
    ok(&[&["convert", &model, out, "--tokenizer", &tokenizer, "--for", machine][..], more].concat())
}

fn refused(out: &str, machine: &str, more: &[&str]) -> (i32, String) {
    let (model, tokenizer) = (demo("tiny.bin"), demo("tiny-tokenizer.bin"));
    fails(&[&["convert", &model, out, "--tokenizer", &tokenizer, "--for", machine][..], more].concat())
}

fn words(bytes: &[u8], big: bool) -> Vec<i32> {
    let word = |w: &[u8; 4]| if big { i32::from_be_bytes(*w) } else { i32::from_le_bytes(*w) };
    bytes.as_chunks::<4>().0.iter().map(word).collect()
}

#[test]
fn every_machine_gets_its_order_and_version() {
    let dir = Dir::new();
    let out = dir.path("x.bin");
    let source = words(&std::fs::read(demo("tiny.bin")).unwrap(), false);
    for (machine, big) in [
        ("ullm", true),
        ("run.c-big-endian", true),
        ("run.c", false),
        ("llama2ps3", false),
        ("llama98", false),
    ] {
        let said = make(&out, machine, &[]);
        assert!(said.contains("\nto run it: ") && said.contains("x.bin"), "{said}");
        // All words of version 0, and of nothing else, turned round or not.
        assert_eq!(words(&dir.read("x.bin"), big), source, "{machine}");
        let longest = words(&dir.read("x-tokenizer.bin")[..4], big)[0];
        assert!((1..100).contains(&longest), "{machine}");
    }
    for (machine, big) in [("runq.c", false), ("runq.c-big-endian", true)] {
        make(&out, machine, &[]);
        let bytes = dir.read("x.bin");
        assert_eq!(words(&bytes[..36], big)[..2], [0x616b_3432, 2], "{machine}");
        assert_eq!(words(&bytes[8..36], big)[..5], source[..5], "{machine}");
        let tied = bytes[36];
        assert_eq!(i32::from(tied), i32::from(source[5] > 0));
        // What is int8 already stays what it is.
        let again = dir.path("again.bin");
        ok(&["convert", &out, &again, "--for", machine]);
        assert_eq!(dir.read("again.bin"), bytes);
    }
    // Floats can be had of it again, for a loader that only knows these.
    let back = dir.path("back.bin");
    ok(&["convert", &out, &back, "--for", "run.c"]);
    assert_eq!(words(&dir.read("back.bin")[..28], false), source[..7]);
}

#[test]
fn a_vocabulary_alone_is_turned_round() {
    let dir = Dir::new();
    let (source, out) = (demo("tiny-tokenizer.bin"), dir.path("x.bin"));
    for (machine, big) in [
        ("ullm", true),
        ("imac-llm", true),
        ("runq.c-big-endian", true),
        ("runq.c", false),
        ("smollerlm", false),
        ("llama98", false),
    ] {
        let _ = std::fs::remove_file(&out);
        let said = ok(&["convert", &source, &out, "--for", machine]);
        assert!(!said.contains("to run it:") && !said.contains("note:"), "{said}");
        let bytes = dir.read("x.bin");
        assert_eq!(bytes == std::fs::read(&source).unwrap(), !big, "{machine}");
        assert!((1..100).contains(&words(&bytes[..4], big)[0]), "{machine}");
    }
}

#[test]
fn the_fork_has_the_size_of_heads() {
    let dir = Dir::new();
    let (fork, plain) = (dir.path("fork.bin"), dir.path("plain.bin"));
    make(&fork, "smollerlm", &[]);
    make(&plain, "runq.c", &[]);
    let (fork_bytes, plain_bytes) = (dir.read("fork.bin"), dir.read("plain.bin"));
    let header = words(&plain_bytes[8..36], false);
    assert_eq!(words(&fork_bytes[36..40], false)[0], header[0] / header[3]);
    assert_eq!((fork_bytes[40], &fork_bytes[41..45]), (plain_bytes[36], &plain_bytes[37..41]));
    assert_eq!(fork_bytes[256..], plain_bytes[256..]);
    // It is read like any other, and becomes llama2.c's own.
    assert!(ok(&["inspect", &fork]).contains("smollerlm"));
    let again = dir.path("again.bin");
    ok(&["convert", &fork, &again, "--for", "runq.c"]);
    assert_eq!(dir.read("again.bin"), plain_bytes);
}

#[test]
fn a_commodore_gets_three_files() {
    let dir = Dir::new();
    let out = dir.path("c64/");
    let said = make(&out, "c64", &[]);
    assert!(said.contains("weights.reu") && said.contains("to run it: build"), "{said}");
    let read = |name: &str| std::fs::read(format!("{out}{name}")).unwrap();
    let image = read("weights.reu");
    let source = std::fs::read(demo("tiny.bin")).unwrap();
    assert_eq!((&image[..4], image.len() % (2 << 20)), (&b"L264"[..], 0));
    // But for the rotary tables near the end, which are computed anew.
    let half = source.len() / 2;
    assert!(image[4..half - 24] == source[28..half]);
    assert!(image[source.len() - 24..].iter().all(|b| *b == 0));
    let fields: Vec<i32> =
        read("config.bin").as_chunks::<2>().0.iter().map(|b| i16::from_le_bytes(*b).into()).collect();
    assert_eq!((&fields[..7], fields[7]), (&words(&source[..28], false)[..], 1));
    assert_eq!(read("tokenizer.bin")[..2], (fields[5] as u16).to_le_bytes());
    make(&dir.path("psp/"), "psp", &[]);
    assert_eq!(std::fs::read(dir.path("psp/weights.psp")).unwrap(), image);
    // It is no single file.
    let (code, why) = refused(&dir.path("c64.bin"), "c64", &[]);
    assert!(code == 2 && why.contains("OUT/"), "{why}");
}

#[test]
fn what_a_program_cannot_use_is_refused() {
    let dir = Dir::new();
    let bin = dir.path("x.bin");
    for (machine, more, code, part) in [
        ("ullm", &["--endian", "little"][..], 2, "--for ullm needs big-endian files"),
        ("ullm", &["--bin-version", "2"], 2, "reads llama2.c version 0"),
        ("ullm", &["--type", "q8_0"], 2, "reads llama2.c version 0, which holds f32"),
        ("runq.c", &["--type", "f32"], 2, "reads llama2.c version 2, which holds q8_0"),
        ("llama.cpp", &[], 2, "use an output name that ends in .gguf"),
        ("c64", &[], 2, "OUT/"),
        ("llama98", &["--set", "llama.context_length=700000"], 1, "of heap"),
        ("abacus", &[], 2, "no target machine has this name"),
    ] {
        let (status, why) = refused(&bin, machine, more);
        assert!(status == code && why.contains(part), "{machine} {more:?}: {status} {why}");
    }
    // The iMac's buffers are for one model; this one is wider.
    let large = demo("model");
    for (machine, part) in [("imac-llm", "dim is 256, more than the buffer size of 64"), ("llama98", "")] {
        let made = run(&["convert", &large, &bin, "--for", machine]);
        let why = String::from_utf8_lossy(&made.stderr).into_owned();
        assert!(made.status.success() == part.is_empty() && why.contains(part), "{machine}: {why}");
    }
    // A classifier of its own.
    for machine in ["ullm", "llama2ps3", "llama2-mac68k"] {
        let (code, why) = fails(&["convert", &large, &bin, "--for", machine]);
        assert!(code == 1 && why.contains("output.weight"), "{why}");
    }
    for machine in ["c64", "psp"] {
        let (code, why) = fails(&["convert", &large, &dir.path("three/"), "--for", machine]);
        assert!(code == 1 && why.contains("only models with tied embeddings"), "{why}");
    }

    // GGUF: types, numbers of files, architectures.
    let model = gguf(&dir);
    let out = dir.path("out.gguf");
    let types = dir.path("types.gguf");
    all_types(&types);
    // A vocabulary of the kind that it reads.
    let bytes = dir.path("bytes.gguf");
    let gpt2 = ["--set", "tokenizer.ggml.model=gpt2", "--set", "tokenizer.ggml.merges=[\"a b\"]", "--force"];
    ok(&[&["edit", &model, &bytes][..], &gpt2].concat());
    for (args, part) in [
        (
            &["convert", &types, &out, "--for", "llama.cpp-big-endian"][..],
            "which --for llama.cpp-big-endian does not support",
        ),
        (&["convert", &types, &out, "--for", "llama.cpp-tiger"], "does not support"),
        (
            &["quantize", &bytes, &out, "--for", "openvino", "--type", "q5_0"],
            "is q5_0, which --for openvino does not support",
        ),
        (&["quantize", &model, &out, "--for", "llama.cpp-tiger", "--type", "iq4_nl"], "is iq4_nl"),
        (
            &["quantize", &model, &out, "--for", "ollama", "--split-max-size", "50K"],
            "files, which --for ollama does not support",
        ),
        (&["quantize", &model, &out, "--for", "openvino", "--type", "q5_0"], "vocabulary's kind is llama"),
    ] {
        let (code, why) = fails(args);
        assert!(code == 1 && why.contains(part), "{args:?}: {why}");
    }
    assert!(!std::path::Path::new(&out).exists());
}

#[test]
fn what_is_too_large_for_a_program_is_refused() {
    let dir = Dir::new();
    // The settings of a 7B are enough for a plan.
    let config = |context: u64, widths: [u64; 2]| {
        let text = format!(
            r#"{{"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": {}, "intermediate_size": {},
            "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 32, "vocab_size": 32000,
            "max_position_embeddings": {context}, "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "hidden_act": "silu",
            "tie_word_embeddings": true, "torch_dtype": "float16"}}"#,
            widths[0], widths[1]
        );
        std::fs::create_dir_all(dir.path("model")).unwrap();
        std::fs::write(dir.path("model/config.json"), text).unwrap();
    };
    let (model, bin, gguf) = (dir.path("model"), dir.path("x.bin"), dir.path("x.gguf"));
    let refused = |command: &str, out: &str, machine: &str, part: &str| {
        let (code, why) = fails(&[command, &model, out, "--for", machine, "--dry-run"]);
        assert!(code == 1 && why.contains(part) && why.contains(machine), "{machine}: {code} {why}");
    };
    config(4096, [4096, 11008]);
    for machine in ["ullm", "llama2ps3", "llama2-mac68k", "smollerlm"] {
        refused("convert", &bin, machine, "more than 2147483647 bytes");
    }
    refused("quantize", &gguf, "llama.cpp-tiger", "more than 2147483647 bytes");
    refused("convert", &bin, "imac-llm", "more than the buffer size");
    refused("convert", &bin, "llama98", "of heap");
    refused("convert", &dir.path("c64/"), "c64", "16 MiB");
    // A 7B in 16 or 8 bits a weight: for a machine with room for it that is no matter.
    for machine in ["run.c", "run.c-big-endian", "runq.c", "runq.c-big-endian"] {
        let said = ok(&["convert", &model, &bin, "--for", machine, "--dry-run"]);
        assert!(said.contains("nothing was written"), "{said}");
    }
    config(32768, [4096, 11008]);
    for machine in ["run.c", "run.c-big-endian", "runq.c", "runq.c-big-endian"] {
        refused("convert", &bin, machine, "has 4294967296 elements");
    }
    // Nor are widths that AltiVec cannot load whole.
    config(64, [64, 170]);
    refused("convert", &bin, "ullm", "hidden_dim is 170, not a multiple of 4");
}

#[test]
fn a_machine_brings_a_scheme_and_leaves_the_choice() {
    let dir = Dir::new();
    let (model, out) = (gguf(&dir), dir.path("out.gguf"));
    let said = ok(&["quantize", &model, &out, "--for", "llama.cpp-tiger"]);
    assert!(said.contains("q4_0") && said.contains("to run it: ./main -m out.gguf"), "{said}");
    assert!(ok(&["inspect", &out]).contains("big-endian"));
    ok(&["quantize", &model, &out, "--for", "llama.cpp-tiger", "--type", "q8_0"]);
    // What is fitted is fitted with types that are of use there.
    ok(&["quantize", &demo("model"), &out, "--for", "llama.cpp-big-endian", "--bits-per-weight", "4.3"]);
    let text = ok(&["inspect", &out]);
    assert!(text.contains("big-endian") && !text.contains("iq2") && !text.contains("iq3"), "{text}");
    let (code, why) =
        fails(&["quantize", &model, &out, "--for", "llama.cpp-tiger", "--size", "1M", "--types", "iq4_nl"]);
    assert!(code == 2 && why.contains("supports none of the types in --types"), "{why}");
    // Dry runs say the same.
    let said = ok(&["quantize", &model, &out, "--for", "llama.cpp", "--dry-run"]);
    assert!(said.contains("to run it: llama-cli -m out.gguf"), "{said}");
}

#[test]
fn what_a_machine_cannot_do_comes_with_a_way_out() {
    let dir = Dir::new();
    // Without a tokenizer there is no file to name, and that is said.
    let out = dir.path("x.bin");
    let said = ok(&["convert", &demo("tiny.bin"), &out, "--for", "ullm"]);
    assert!(!said.contains("to run it") && said.contains("note: no tokenizer is written"), "{said}");
    assert!(!make(&out, "ullm", &[]).contains("no tokenizer is written"));

    // A context that is too long for a heap or an int can be lowered; a model that is too large cannot.
    let long = dir.path("long.bin");
    let larger = ["--set", "llama.context_length=400000"];
    let (_, why) = refused(&long, "llama98", &larger);
    let shorter = why.split("--set ").nth(1).unwrap().split([';', ' ']).next().unwrap();
    make(&long, "llama98", &["--set", shorter]);
    let tokens: u64 = shorter.split('=').nth(1).unwrap().parse().unwrap();
    let over = format!("llama.context_length={}", tokens + 16);
    assert!(refused(&long, "llama98", &["--set", &over]).1.contains("of heap"));
    let larger =
        ["convert", &demo("model"), &long, "--for", "runq.c", "--set", "llama.context_length=40000000"];
    let (_, why) = fails(&larger);
    assert!(why.contains("the KV cache has") && why.contains("--set llama.context_length="), "{why}");

    // Names that are near, and all of them.
    for (name, near) in
        [("powerbook", "near: ullm ("), ("list", "takes the name of a program"), ("ulm", "near: ullm (")]
    {
        let (code, why) = refused(&out, name, &[]);
        assert!(code == 2 && why.contains(near) && why.contains("llama.cpp-tiger  "), "{why}");
    }
    assert!(run(&["convert", "--help"]).stdout.windows(9).any(|w| w == b"PowerBook"));
}

#[test]
fn an_output_matrix_that_is_the_embedding_is_left_out() {
    let dir = Dir::new();
    let (plain, out) = (gguf(&dir), dir.path("untied.gguf"));
    // The bundled model, untied: with its embedding twice, or with another matrix.
    let write = |change: f32| {
        let (metadata, mut tensors) = crate::common::contents(&plain);
        let mut output = tensors.iter().find(|t| t.0 == "token_embd.weight").unwrap().clone();
        output.0 = "output.weight".into();
        output.2[5] += change;
        tensors.push(output);
        crate::common::write_gguf(&out, &metadata, &tensors);
    };
    let (tied, made) = (dir.path("tied.bin"), dir.path("made.bin"));
    for machine in ["ullm", "llama2ps3", "llama98"] {
        write(0.0);
        ok(&["convert", &plain, &tied, "--for", machine]);
        let said = ok(&["convert", &out, &made, "--for", machine]);
        assert!(said.contains("note: output.weight has the very weights"), "{machine}: {said}");
        assert!(dir.read("tied.bin") == dir.read("made.bin"), "{machine}");
        write(1.0);
        let other = run(&["convert", &out, &made, "--for", machine]);
        assert_eq!(other.status.success(), machine == "llama98", "{machine}");
    }
    write(0.0);
    ok(&["convert", &out, &dir.path("c64/"), "--for", "c64"]);
}

#[test]
fn norms_are_f32_where_llama_cpp_computes() {
    let dir = Dir::new();
    let out = dir.path("out.gguf");
    let (model, odd) = (demo("model"), ["--tensor", "ffn_norm=bf16"]);
    let quantize = ["quantize", &model, &out, "--type", "q8_0"];
    let (_, why) = fails(&[&quantize[..], &odd, &["--for", "llama.cpp"]].concat());
    assert!(why.contains("blk.0.ffn_norm.weight is bf16") && why.contains("(norm|bias)=f32"), "{why}");
    ok(&[&quantize[..], &["--tensor", "(norm|bias)=f32", "--for", "llama.cpp"]].concat());
    // A rule that an earlier one leaves nothing is named as that.
    let (_, why) = fails(&[&quantize[..], &["--tensor", "norm=f32"], &odd].concat());
    assert!(
        why.contains("--tensor ffn_norm: every tensor that matches has its type from an earlier --tensor"),
        "{why}"
    );
    // Other programs may compute with them: a note.
    let notes = ok(&[&quantize[..], &odd].concat());
    assert!(notes.contains("blk.0.ffn_norm.weight and 3 more norms or biases are bf16"), "{notes}");
    assert!(!ok(&quantize).contains("norms or biases"));
}
