//! `ggufkit run`, end to end: the same text from every container, on any number of threads and every processor;
//! what stops it; chats.

use std::io::{Read, Write};
use std::process::{Output, Stdio};

use crate::common::{Dir, demo, fails, gguf, ok, program, published};

/// A text that the bundled checkpoint goes on with.
const BEGIN: &str = "Once upon a time";

fn greedy<'a>(model: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    [&["run", model, "--temperature", "0", "--tokens", "60", "--prompt", BEGIN], more].concat()
}

fn tiny(more: &[&str]) -> String {
    ok(&greedy(&demo("tiny.bin"), &[&["--tokenizer", &demo("tiny-tokenizer.bin")], more].concat()))
}

fn with_input(args: &[&str], input: &str) -> Output {
    let mut child = program()
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

/// The bundled checkpoint as a GGUF with this chat template.
fn chatty(dir: &Dir, template: &str) -> String {
    let (plain, out) = (gguf(dir), dir.path("chat.gguf"));
    ok(&["edit", &plain, &out, "--set", &format!("tokenizer.chat_template=str:{template}")]);
    out
}

#[test]
fn every_container_gives_the_same_text() {
    let dir = Dir::new();
    let expected = tiny(&[]);
    assert!(expected.starts_with(BEGIN) && expected.len() > BEGIN.len() + 30, "{expected}");
    let gguf = gguf(&dir);
    let (big, tensors) = (dir.path("big.gguf"), dir.path("tiny.safetensors"));
    ok(&["convert", &gguf, &big, "--endian", "big"]);
    ok(&["convert", &gguf, &tensors]);
    for model in [&gguf, &big, &tensors] {
        assert_eq!(ok(&greedy(model, &[])), expected, "{model}");
        assert_eq!(ok(&greedy(model, &["--no-mmap"])), expected, "{model}");
    }
    // A checkpoint in bf16, with rows in another order.
    let (little, big) = (dir.path("model.gguf"), dir.path("model-big.gguf"));
    ok(&["convert", &demo("model"), &little]);
    ok(&["convert", &demo("model"), &big, "--endian", "big"]);
    let expected = ok(&greedy(&demo("model"), &[]));
    assert_eq!(ok(&greedy(&little, &[])), expected);
    assert_eq!(ok(&greedy(&big, &[])), expected);
    // And quantized.
    let (little, big) = (dir.path("q.gguf"), dir.path("q-big.gguf"));
    ok(&["quantize", &demo("model"), &little, "--type", "q4_0"]);
    ok(&["convert", &little, &big, "--endian", "big"]);
    assert_eq!(ok(&greedy(&little, &[])), ok(&greedy(&big, &[])));
}

#[test]
fn threads_and_processors_do_not_matter() {
    let model = demo("model");
    for temperature in ["0", "1.5"] {
        let prompt = "One day, a little girl went";
        let args = [
            "run",
            &model,
            "--tokens",
            "40",
            "--temperature",
            temperature,
            "--seed",
            "5",
            "--prompt",
            prompt,
        ];
        let expected = ok(&args);
        for threads in ["1", "2"] {
            assert_eq!(ok(&[&args[..], &["--threads", threads]].concat()), expected, "{threads}");
        }
        let portable = program().args(args).env("GGUFKIT_ISA", "portable").output().unwrap();
        assert!(portable.status.success());
        assert_eq!(String::from_utf8(portable.stdout).unwrap(), expected);
        // How many tokens of the prompt go together does not matter either.
        assert_eq!(ok(&[&args[..], &["--batch", "1"]].concat()), expected);
    }
}

#[test]
fn seeds_repeat_a_text() {
    let (bin, tokenizer) = (demo("tiny.bin"), demo("tiny-tokenizer.bin"));
    let model = ["run", &bin, "--tokenizer", &tokenizer, "--temperature", "1", "--tokens", "60"];
    let run = |seed| ok(&[&model[..], &["--seed", seed]].concat());
    assert_eq!(run("1"), run("1"));
    let others = ["2", "3", "4"].map(run);
    assert!(others.iter().any(|text| *text != run("1")));
    assert_eq!(tiny(&["--seed", "1"]), tiny(&["--seed", "2"]), "greedy");
}

#[test]
fn the_prompt_is_repeated_and_comes_from_a_file() {
    let dir = Dir::new();
    let file = dir.path("prompt.txt");
    std::fs::write(&file, format!("{BEGIN}\n")).unwrap();
    let (bin, tokenizer) = (demo("tiny.bin"), demo("tiny-tokenizer.bin"));
    let run = |more: &[&str]| {
        let model = ["run", &bin, "--tokenizer", &tokenizer, "--temperature", "0", "--tokens", "60"];
        ok(&[&model, more].concat())
    };
    let (whole, rest) = (tiny(&[]), tiny(&["--no-echo"]));
    assert_eq!(whole, format!("{BEGIN}{rest}"));
    assert_eq!(run(&["--prompt-file", &file]), whole);
    // Without a prompt, a text of the model's own.
    let own = run(&[]);
    assert!(!own.starts_with(' ') && own.len() > 20, "{own:?}");
    assert_eq!(run(&["--prompt", ""]), own);
}

#[test]
fn counts_and_speed_are_told_where_they_do_not_mix_with_the_text() {
    let (bin, tokenizer) = (demo("tiny.bin"), demo("tiny-tokenizer.bin"));
    let run = |more: &[&str]| {
        let model = ["run", &bin, "--tokenizer", &tokenizer, "--temperature", "0", "--prompt", BEGIN];
        let out = program().args([&model, more].concat()).output().unwrap();
        assert!(out.status.success());
        (String::from_utf8(out.stdout).unwrap(), String::from_utf8(out.stderr).unwrap())
    };
    let (quiet, nothing) = run(&["--tokens", "5"]);
    assert_eq!(nothing, "");
    let (text, told) = run(&["--tokens", "5", "--verbose", "--seed", "77"]);
    assert_eq!(text, quiet);
    for part in ["prompt: ", "text: 5 tokens", "tokens/s", "--tokens reached", "seed 77"] {
        assert!(told.contains(part), "{told}");
    }
    let (_, told) = run(&["--tokens", "500", "--ignore-eos", "--context", "24", "--verbose"]);
    assert!(told.contains("the context is full"), "{told}");
    // The context is the model's at most.
    let (_, told) = run(&["--tokens", "500", "--ignore-eos", "--verbose"]);
    assert!(told.contains("the context is full"), "{told}");
}

#[test]
fn wrong_arguments_are_told() {
    let (bin, tokenizer) = (demo("tiny.bin"), demo("tiny-tokenizer.bin"));
    let model = ["run", &bin, "--tokenizer", &tokenizer];
    for wrong in [
        &["--temperature", "-1"][..],
        &["--temperature", "nan"],
        &["--top-p", "2"],
        &["--min-p", "-0.5"],
        &["--top-k", "-1"],
        &["--context", "0"],
        &["--context", "129"],
        &["--system", "x"],
        &["--prompt", "a", "--prompt-file", "b"],
        &["--seed", "x"],
    ] {
        let (code, text) = fails(&[&model, wrong].concat());
        assert_eq!(code, 2, "{wrong:?}: {text}");
    }
    let (code, text) = fails(&["run", &bin]);
    assert!(
        code == 1
            && text.contains("no vocabulary")
            && text.contains("hint: ")
            && text.contains("--tokenizer")
    );
    let (code, text) = fails(&[&model, &["--prompt-file", "/nowhere/at all"][..]].concat());
    assert!(code == 1 && text.contains("/nowhere/at all"), "{text}");
    let long = "word ".repeat(300);
    let (code, text) = fails(&[&model, &["--prompt", &long][..]].concat());
    assert!(code == 1 && text.contains("context length of 128") && text.contains("hint"), "{text}");
    let (code, text) = fails(&[&model, &["--prompt", BEGIN, "--context", "3"][..]].concat());
    assert!(code == 1 && text.contains("context length of 3") && text.contains("128"), "{text}");
    // What is refused is not printed first.
    let out = program().args(model).args(["--prompt", &long]).output().unwrap();
    assert!(out.stdout.is_empty(), "{out:?}");
}

#[test]
fn a_tokenizer_that_is_larger_than_the_embedding_is_refused() {
    let dir = Dir::new();
    let (plain, tokens, large) = (gguf(&dir), dir.path("tokens.json"), dir.path("large.gguf"));
    let names: Vec<String> = (0..600).map(|i| format!("token {i}")).collect();
    std::fs::write(&tokens, serde_json::to_string(&names).unwrap()).unwrap();
    let set = format!("tokenizer.ggml.tokens={tokens}");
    ok(&[
        "edit",
        &plain,
        &large,
        "--force",
        "--remove",
        "tokenizer.ggml.scores",
        "--remove",
        "tokenizer.ggml.token_type",
        "--set-file",
        &set,
    ]);
    let (code, text) = fails(&["run", &large]);
    assert!(code == 1 && text.contains("600") && text.contains("512") && text.contains("hint"), "{text}");
}

#[test]
fn chats_go_through_the_template() {
    let dir = Dir::new();
    let template = "{{ bos_token }}{% for m in messages %}{% if m.role == 'system' %}{{ m.content.strip() }} {% else %}\
                    {{ m.content }}{% endif %}{% endfor %}";
    let model = chatty(&dir, template);
    let base = ["run", &model, "--chat", "--temperature", "0", "--tokens", "60"];
    let answer = |more: &[&str]| ok(&[&base, more].concat());
    // This template leaves the text as it is.
    let plain = ok(&greedy(&model, &["--no-echo"]));
    assert_eq!(answer(&["--prompt", BEGIN]).trim_start(), plain.trim_start());
    let told = answer(&["--system", " Once upon", "--prompt", "a time"]);
    assert_eq!(told.trim_start(), plain.trim_start());

    let (code, text) = fails(&["run", &gguf(&dir), "--chat", "--prompt", "x"]);
    assert!(code == 1 && text.contains("no chat template") && text.contains("hint: "), "{text}");
    let model = chatty(&dir, "{{ raise_exception('only in rhyme') }}");
    let (code, text) = fails(&["run", &model, "--chat", "--prompt", "x"]);
    assert!(code == 1 && text.contains("only in rhyme"), "{text}");
}

#[test]
fn a_chat_goes_on_until_the_input_ends() {
    let dir = Dir::new();
    // A template that forgets: answers are those to single messages, whatever is left from the last.
    let model = chatty(&dir, "{{ messages[-1].content }}");
    let base = ["run", &model, "--chat", "--temperature", "0", "--tokens", "30"];
    let single = |message: &str| ok(&[&base[..], &["--prompt", message]].concat());
    let out = with_input(&base, "Once upon a time\n\nOnce upon a day\r\nA dog");
    assert!(out.status.success() && out.stderr.is_empty());
    let expected: String = ["Once upon a time", "Once upon a day", "A dog"].map(single).concat();
    assert_eq!(String::from_utf8(out.stdout).unwrap(), expected);
    assert_eq!(with_input(&base, "").stdout, b"");

    // One that remembers: what came before changes the answer, and fills the context.
    let model = chatty(&dir, "{% for m in messages %}{{ m.content }} {% endfor %}");
    let base = ["run", &model, "--chat", "--temperature", "0", "--tokens", "30"];
    let out = with_input(&base, "Once upon a time\nA dog\n");
    let single = ok(&[&base[..], &["--prompt", "Once upon a time"]].concat());
    assert!(String::from_utf8(out.stdout).unwrap().starts_with(&single));
    let out = with_input(&base, &"Once upon a time\n".repeat(20));
    let text = String::from_utf8(out.stderr).unwrap();
    assert!(out.status.code() == Some(1) && text.contains("context length of 128"), "{text}");
}

#[test]
fn a_reader_that_goes_away_ends_it_quietly() {
    let (bin, tokenizer) = (demo("tiny.bin"), demo("tiny-tokenizer.bin"));
    let mut child = program()
        .args(["run", &bin, "--tokenizer", &tokenizer, "--prompt", BEGIN])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut first = [0];
    child.stdout.take().unwrap().read_exact(&mut first).unwrap();
    let out = child.wait_with_output().unwrap();
    assert!(out.status.success() && out.stderr.is_empty(), "{}", String::from_utf8_lossy(&out.stderr));
}

/// The text of llama2.c's run.c.
#[test]
#[ignore = "needs published files (see CONTRIBUTING.md)"]
fn a_published_checkpoint_goes_on_as_in_run_c() {
    let file = |name: &str| published(&format!("data/stories260K/{name}"));
    let expected = std::fs::read_to_string(file("run.c-greedy-256.txt")).unwrap();
    let dir = Dir::new();
    let (bin, tokenizer) = (file("stories260K.bin"), file("tok512.bin"));
    let (little, big, tensors) = (dir.path("l.gguf"), dir.path("b.gguf"), dir.path("x.safetensors"));
    ok(&["convert", &bin, &little, "--tokenizer", &tokenizer]);
    ok(&["convert", &bin, &big, "--tokenizer", &tokenizer, "--endian", "big"]);
    ok(&["convert", &little, &tensors]);
    for model in
        [&["run", &bin, "--tokenizer", &tokenizer][..], &["run", &little], &["run", &big], &["run", &tensors]]
    {
        let text = |n: &str| ok(&[model, &["--temperature", "0", "--tokens", n]].concat());
        assert_eq!(text("256").trim_end(), expected.trim_end(), "{model:?}");
        assert!(expected.starts_with(text("200").trim_end()), "{model:?}");
    }
}
