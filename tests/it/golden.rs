//! Logits of tiny models of every architecture, against those that transformers computes: `tests/golden`, which
//! `scripts/make_golden_logits.py` makes and describes. The checkpoints are written here, from the same function.
//!
//! The largest difference of any logit, relative to the standard deviation of all, was below 4e-6 where this was written,
//! with activations in 8 bits too: the texts for these are such that no sum is near the border between two codes.

use std::path::{Path, PathBuf};

use serde_json::{Value, json as of};

use crate::common::{Dir, ok, weights};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

/// FNV-1a of 64 bits.
fn hash(name: &str) -> u64 {
    name.bytes().fold(0xCBF2_9CE4_8422_2325, |h, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01B3))
}

/// The weights of a tensor: offset + scale · (k / 32768 − 1), with the upper 16 bits k of splitmix64's numbers.
fn made(name: &str, count: usize, offset: f32, scale: f32) -> Vec<f32> {
    let mut state = hash(name);
    let mut next = || {
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (state ^ state >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ z >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ z >> 31) >> 48
    };
    (0..count).map(|_| offset + scale * (next() as f32 / 32768.0 - 1.0)).collect()
}

/// What a difference may be, relative to the logits' deviation.
const LIMIT: f64 = 3e-5;

/// What a file of the folder says.
struct Golden {
    description: Value,
    logits: Vec<f32>,
}

impl Golden {
    fn read(name: &str) -> Self {
        let bytes = |end: &str| std::fs::read(folder().join(format!("{name}.{end}"))).unwrap();
        let description: Value = serde_json::from_slice(&bytes("json")).unwrap();
        let logits: Vec<f32> = bytes("f32").as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
        let golden = Self { description, logits };
        assert_eq!(golden.logits.len(), golden.numbers("positions").len() * golden.vocab());
        golden
    }

    fn numbers(&self, key: &str) -> Vec<usize> {
        self.description[key].as_array().unwrap().iter().map(|n| n.as_u64().unwrap() as usize).collect()
    }

    fn vocab(&self) -> usize {
        self.description["config"]["vocab_size"].as_u64().unwrap() as usize
    }

    fn int8(&self) -> bool {
        match self.description["activations"].as_str() {
            Some("int8") => true,
            Some("float") => false,
            other => panic!("activations are {other:?}"),
        }
    }

    /// Writes the checkpoint.
    fn checkpoint(&self, path: &str) {
        let (mut header, mut data) = (serde_json::Map::new(), Vec::new());
        for t in self.description["tensors"].as_array().unwrap() {
            let name = t["name"].as_str().unwrap();
            let count = t["shape"].as_array().unwrap().iter().map(|n| n.as_u64().unwrap() as usize).product();
            let number = |key: &str| t[key].as_f64().unwrap() as f32;
            let at = data.len();
            let x = made(name, count, number("offset"), number("scale"));
            data.extend(x.iter().flat_map(|x| x.to_le_bytes()));
            header.insert(
                name.into(),
                of!({"dtype": "F32", "shape": t["shape"], "data_offsets": [at, data.len()]}),
            );
        }
        std::fs::create_dir(path).unwrap();
        std::fs::write(format!("{path}/config.json"), self.description["config"].to_string()).unwrap();
        let header = Value::Object(header).to_string();
        let bytes = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &data].concat();
        std::fs::write(format!("{path}/model.safetensors"), bytes).unwrap();
    }

    /// The logits that a model gives at the same positions.
    fn of(&self, dir: &Dir, model: &str, more: &[&str]) -> Vec<f32> {
        let out = dir.path("logits.safetensors");
        let ids: Vec<String> = self.numbers("ids").iter().map(usize::to_string).collect();
        ok(&[&["logits", model, &out, "--ids", &ids.join(","), "--kv", "f32"], more].concat());
        let (all, vocab) = (weights(&out, "logits"), self.vocab());
        assert_eq!(all.len(), ids.len() * vocab);
        self.numbers("positions").iter().flat_map(|p| all[p * vocab..][..vocab].to_vec()).collect()
    }

    /// The largest difference of any logit, relative to the logits' deviation.
    fn distance(&self, found: &[f32]) -> f64 {
        assert_eq!(found.len(), self.logits.len());
        let n = found.len() as f64;
        let mean = self.logits.iter().map(|x| f64::from(*x)).sum::<f64>() / n;
        let deviation = (self.logits.iter().map(|x| (f64::from(*x) - mean).powi(2)).sum::<f64>() / n).sqrt();
        // `max` would leave out what is no number.
        assert!(found.iter().all(|x| x.is_finite()));
        let differences = found.iter().zip(&self.logits).map(|(a, b)| (f64::from(*a) - f64::from(*b)).abs());
        differences.fold(0.0, f64::max) / deviation
    }
}

fn check(name: &str) {
    let start = std::time::Instant::now();
    let golden = Golden::read(name);
    let dir = Dir::new();
    let (checkpoint, gguf) = (dir.path("checkpoint"), dir.path("model.gguf"));
    golden.checkpoint(&checkpoint);
    ok(&["convert", &checkpoint, &gguf, "--type", "f32"]);
    let mut models = vec![checkpoint, gguf];
    if golden.int8() {
        // Integers times integers; a type whose scale is a half would give other codes.
        let packed = dir.path("i2_s.gguf");
        let floats = ["--embedding-type", "f32", "--output-type", "f32"];
        ok(&[&["quantize", &models[0], &packed, "--type", "i2_s"][..], &floats].concat());
        models.push(packed);
    }
    let activations: &[&str] = if golden.int8() { &[] } else { &["--exact"] };
    for model in &models {
        // Many tokens are multiplied in panels, few of them one by one.
        for batch in ["512", "5", "1"] {
            let found =
                golden.distance(&golden.of(&dir, model, &[activations, &["--batch", batch]].concat()));
            println!("{name}, {model}, {batch} tokens at a time: {found:.1e}");
            assert!(found <= LIMIT, "{name}, {model}, {batch} tokens at a time: {found:e}");
        }
    }
    println!("{name}: {:.2} s", start.elapsed().as_secs_f64());
}

/// A test for each model, and a list of all.
macro_rules! models {
    ($($test:ident $name:literal)*) => {
        const NAMES: &[&str] = &[$($name),*];
        $(#[test]
        fn $test() {
            check($name);
        })*
    };
}

models! {
    llama "llama"
    llama_with_tied_embeddings "llama-tied"
    llama_with_biases "llama-biases"
    llama_with_linear_rope "llama-linear-rope"
    llama_with_llama3_rope "llama-llama3-rope"
    llama_with_yarn_rope "llama-yarn-rope"
    mistral "mistral"
    qwen2 "qwen2"
    qwen2_with_tied_embeddings "qwen2-tied"
    qwen2_with_yarn_rope "qwen2-yarn-rope"
    qwen3 "qwen3"
    qwen3_with_tied_embeddings "qwen3-tied"
    bitnet "bitnet"
    bitnet_with_tied_embeddings "bitnet-tied"
    bitnet_with_float_activations "bitnet-float"
}

#[test]
fn every_file_has_a_test() {
    let mut wanted: Vec<String> =
        NAMES.iter().flat_map(|n| [format!("{n}.f32"), format!("{n}.json")]).collect();
    // The folder in it belongs to the tests of vocabularies.
    let files = std::fs::read_dir(folder()).unwrap().map(Result::unwrap).filter(|e| e.path().is_file());
    let mut found: Vec<String> = files.map(|e| e.file_name().into_string().unwrap()).collect();
    wanted.sort();
    found.sort();
    assert_eq!(found, wanted);
}
