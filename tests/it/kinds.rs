//! Files of a wrong kind: each option and the place of the model say what a file is, and what belongs there.

use std::fs;
use std::path::Path;

use crate::common::{Dir, demo, fails, inputs, json, line, ok, refs};
use serde_json::json as of;

/// A safetensors file with one f32 tensor of each name.
fn safetensors(names: &[&str]) -> Vec<u8> {
    let tensor = |(i, name): (usize, &&str)| {
        format!(r#""{name}":{{"dtype":"F32","shape":[1],"data_offsets":[{},{}]}}"#, 4 * i, 4 * i + 4)
    };
    let header = format!("{{{}}}", names.iter().enumerate().map(tensor).collect::<Vec<_>>().join(","));
    [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &vec![0; 4 * names.len()]].concat()
}

/// A folder with files of many kinds, with what each is called.
fn files(dir: &Dir) -> Vec<(&'static str, &'static str)> {
    let all: Vec<(&str, Vec<u8>, &str)> = vec![
        ("a.png", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x01".to_vec(), "a PNG image"),
        (
            "a.zip",
            b"PK\x03\x04\x14\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x05\0\0\0a.txthello".to_vec(),
            "a zip archive",
        ),
        ("a.onnx", b"\x08\x08\x12\x07pytorch\x1a\x052.1.0:\0".to_vec(), "an ONNX model"),
        ("a.npy", b"\x93NUMPY\x01\0v\0".to_vec(), "an array of NumPy"),
        ("a.pkl", b"\x80\x04\x95\x05\0\0\0\0\0\0\0}\x94.".to_vec(), "a pickle of Python"),
        ("a.elf", b"\x7fELF\x02\x01\x01\0\0\0".to_vec(), "a program or a library (ELF)"),
        (
            "weights.safetensors",
            safetensors(&["decoder.conv_in.weight", "x"]),
            "a file of weights (safetensors)",
        ),
    ];
    all.into_iter()
        .map(|(name, bytes, what)| {
            fs::write(dir.path(name), bytes).unwrap();
            (name, what)
        })
        .collect()
}

#[test]
fn each_option_says_what_a_file_is_that_it_does_not_take() {
    let dir = inputs();
    let all = files(&dir);
    fs::create_dir(dir.path("folder")).unwrap();
    fs::write(dir.path("empty"), "").unwrap();
    let more = [("folder", "a folder"), ("empty", "empty"), ("tiny.gguf", "a model (GGUF)")];
    let (quantize, eval) = ("quantize @tiny.gguf @o.gguf", "eval @tiny.gguf @t.txt --context 64 --chunks 1");
    for (start, wanted, makes) in [
        (format!("{quantize} --type q4_k --imatrix"), "an importance matrix", "ggufkit calibrate"),
        (format!("{quantize} --recipe"), "a recipe", "--print-recipe"),
        (
            format!("{quantize} --bits-per-weight 5 --sensitivity"),
            "a sensitivity file",
            "ggufkit sensitivity",
        ),
        (format!("{eval} --logits"), "a logits file", "--save-logits"),
        ("convert @tiny.bin @o.gguf --tokenizer".into(), "a tokenizer of llama2.c", "tokenizer.bin"),
        ("calibrate --show".into(), "an importance matrix", "ggufkit calibrate"),
    ] {
        for (name, what) in all.iter().chain(&more) {
            let (code, why) = fails(&refs(&line(&dir, &format!("{start} @{name}"))));
            let says = format!("{name}: is {what}");
            assert!(code == 1 && why.contains(&says), "{start} {name}: {why}");
            assert!(why.contains(&format!("not {wanted}")), "{start} {name}: {why}");
            assert!(why.contains(makes) || why.contains("unpack it first"), "{start} {name}: {why}");
        }
    }
    // Texts to measure on.
    for (name, what) in all.iter().chain(&more[2..]) {
        let what = what.strip_suffix(" (GGUF)").unwrap_or(what);
        for start in ["eval @tiny.gguf", "run @tiny.gguf --tokens 1 --prompt-file", "sensitivity @tiny.gguf"]
        {
            let end = if start.starts_with("sens") { " -o @s.json" } else { "" };
            let (code, why) = fails(&refs(&line(&dir, &format!("{start} @{name}{end}"))));
            assert!(code == 1 && why.contains(&format!("this is {what}")), "{start} {name}: {why}");
        }
    }
    let (_, why) = fails(&refs(&line(&dir, "eval @tiny.gguf @folder")));
    assert!(why.contains("is a folder, not a text") && why.contains("cat FOLDER"), "{why}");
    // What was measured of another kind.
    ok(&refs(&line(&dir, "logits @tiny.gguf @l.safetensors --ids 1,2")));
    let (_, why) = fails(&refs(&line(&dir, &format!("{eval} --logits @l.safetensors"))));
    assert!(why.contains("is a file of logits that ggufkit logits wrote, not a logits file"), "{why}");
    let gptq =
        "quantize @tiny.gguf @o.gguf --type q4_k --method gptq --calibration @t.txt --calibration-context 32";
    let (_, why) = fails(&refs(&line(&dir, &format!("{gptq} --calibration-chunks 1 --state @a.png"))));
    assert!(why.contains("a.png: is a file, not a state folder"), "{why}");
}

#[test]
fn in_the_place_of_a_model_files_are_named() {
    let dir = inputs();
    for (name, what) in files(&dir) {
        if name.ends_with(".safetensors") {
            continue;
        }
        for command in
            [format!("inspect @{name}"), format!("convert @{name} @o.gguf"), format!("eval @{name} @t.txt")]
        {
            let (code, why) = fails(&refs(&line(&dir, &command)));
            assert!(code == 1 && why.contains(what) && why.contains("hint: "), "{command}: {why}");
        }
    }
    // A download that has not ended.
    let whole = dir.read("tiny.gguf");
    fs::write(dir.path("m.gguf.part"), &whole[..whole.len() / 2]).unwrap();
    let (_, why) = fails(&refs(&line(&dir, "inspect @m.gguf.part")));
    assert!(why.contains("let its download end"), "{why}");
    // A pipeline, whose models are in folders of their own.
    fs::create_dir_all(dir.path("pipe/unet")).unwrap();
    let index = of!({"_class_name": "AnyPipeline", "unet": ["diffusers", "UNet2DConditionModel"]});
    fs::write(dir.path("pipe/model_index.json"), index.to_string()).unwrap();
    let (code, why) = fails(&refs(&line(&dir, "convert @pipe @o.gguf")));
    assert!(
        code == 1 && why.contains("a pipeline of diffusers (AnyPipeline)") && why.contains("unet"),
        "{why}"
    );
}

#[test]
fn texts_of_two_and_four_bytes_for_each_character_are_told_without_a_mark() {
    let dir = inputs();
    let texts = [
        "Once upon a time, a bear.\n",
        "Жил-был медведь, он жил в лесу.\n",
        "从前有一只熊，它住在森林里。\n",
    ];
    for text in texts {
        let text = text.repeat(20);
        let le: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
        let be: Vec<u8> = text.encode_utf16().flat_map(u16::to_be_bytes).collect();
        let four: Vec<u8> = text.chars().flat_map(|c| u32::from(c).to_le_bytes()).collect();
        for (bytes, encoding) in [(le, "UTF-16LE"), (be, "UTF-16BE"), (four, "UTF-32LE")] {
            fs::write(dir.path("u.txt"), bytes).unwrap();
            for command in [
                "eval @tiny.gguf @u.txt",
                "calibrate @tiny.gguf @u.txt -o @i.gguf",
                "run @tiny.gguf --prompt-file @u.txt",
                "edit @tiny.gguf @o.gguf --set-file tokenizer.chat_template:str=",
                "quantize @tiny.gguf @o.gguf --recipe @u.txt",
            ] {
                let command = match command.strip_suffix('=') {
                    Some(start) => format!("{start}={}", dir.path("u.txt")),
                    None => command.to_string(),
                };
                let (_, why) = fails(&refs(&line(&dir, &command)));
                assert!(why.contains(&format!("{encoding} without a byte order mark")), "{command}: {why}");
                assert!(why.contains(&format!("iconv -f {encoding}")), "{why}");
            }
        }
        // The same as UTF-8 is read.
        fs::write(dir.path("u.txt"), &text[..text.find('\n').unwrap()]).unwrap();
        ok(&refs(&line(&dir, "run @tiny.gguf --tokens 1 --prompt-file @u.txt")));
    }
}

#[test]
fn what_is_quantized_is_quantized_again_only_where_that_is_asked_for() {
    let dir = inputs();
    let found = |args: &str| json(&refs(&line(&dir, args)));
    ok(&["quantize", &demo("model"), &dir.path("q.gguf"), "--type", "q5_0"]);
    let least = |v: &serde_json::Value| v["points"].as_array().unwrap()[0]["bytes"].as_u64().unwrap();
    let (kept, again) = (
        least(&found("frontier @q.gguf --json")),
        least(&found("frontier @q.gguf --json --allow-requantize")),
    );
    assert!(again < kept, "{again} {kept}");
    assert!(ok(&refs(&line(&dir, "frontier @q.gguf"))).contains("already quantized"));
    // What is listed can be made.
    ok(&refs(&line(&dir, &format!("quantize @q.gguf @o.gguf --size {}", kept + 1000))));
    let (_, why) = fails(&refs(&line(&dir, "quantize @q.gguf @o.gguf --bits-per-weight 4.5")));
    assert!(why.contains("or add --allow-requantize"), "{why}");
    ok(&refs(&line(&dir, "quantize @q.gguf @o.gguf --bits-per-weight 4.5 --allow-requantize")));
    assert!(Path::new(&dir.path("o.gguf")).exists());
}

#[test]
fn an_architecture_that_a_program_does_not_compute_is_said_first() {
    let dir = inputs();
    ok(&["quantize", &demo("model"), &dir.path("base.gguf"), "--type", "f16"]);
    let name = "--set general.architecture=qwen2";
    ok(&refs(&line(&dir, &format!("edit @base.gguf @q.gguf {name} --force"))));
    for (target, out) in
        [("ullm", "o.bin"), ("llama98", "o"), ("bitnet.cpp", "o.gguf"), ("llama.cpp-tiger", "o.gguf")]
    {
        let (code, why) =
            fails(&refs(&line(&dir, &format!("quantize @q.gguf @{out} --type q4_k --for {target}"))));
        let says = format!("the architecture is qwen2, which --for {target} does not support");
        assert!(code == 1 && why.contains(&says) && why.contains("these run it: --for llama.cpp"), "{why}");
    }
}
