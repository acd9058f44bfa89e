//! What the end-to-end tests share: a folder, the program, the bundled model.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

pub struct Dir(pub tempfile::TempDir);

impl Dir {
    pub fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }
    pub fn path(&self, name: &str) -> String {
        self.0.path().join(name).to_str().unwrap().to_string()
    }
    pub fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.0.path().join(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
    }
    pub fn names(&self) -> Vec<String> {
        let mut names: Vec<_> = std::fs::read_dir(&self.0)
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}

pub fn demo(name: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("demo").join(name).to_str().unwrap().to_string()
}

/// The path of a file or folder in the folder of published files, which is beside the repository or where
/// `GGUFKIT_SHARED` says.
pub fn published(name: &str) -> String {
    let folder = std::env::var_os("GGUFKIT_SHARED").map(PathBuf::from);
    let folder = folder.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared"));
    let path = folder.join(name);
    assert!(path.exists(), "there is no {}: see CONTRIBUTING.md, or set GGUFKIT_SHARED", path.display());
    path.to_str().unwrap().to_string()
}

pub fn program() -> Command {
    let mut c = Command::new(env!("CARGO_BIN_EXE_ggufkit"));
    c.env_remove("GGUFKIT_ISA");
    c
}

pub fn run(args: &[&str]) -> Output {
    program().args(args).output().unwrap()
}

pub fn ok(args: &[&str]) -> String {
    let out = run(args);
    assert!(out.status.success(), "{args:?}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).unwrap()
}

pub fn json(args: &[&str]) -> Value {
    serde_json::from_str(&ok(args)).unwrap()
}

/// The exit status and the message of a run that must fail without panicking.
pub fn fails(args: &[&str]) -> (i32, String) {
    let out = run(args);
    let text = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(!out.status.success() && !text.contains("panicked"), "{args:?}: {text}");
    (out.status.code().expect("no signal"), text)
}

/// Runs this test, whose path is `test`, again in a process of its own: for what other tests in the same process would
/// disturb. True is said there, where the test does its work; here false, once it has passed there.
pub fn alone(test: &str) -> bool {
    const ALONE: &str = "GGUFKIT_TEST_ALONE";
    if std::env::var_os(ALONE).is_some() {
        return true;
    }
    let out = Command::new(std::env::current_exe().unwrap())
        .args([test, "--exact", "--include-ignored", "--nocapture", "--test-threads=1"])
        .env(ALONE, "1")
        .output()
        .unwrap();
    let (text, errors) = (String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    println!("{text}{errors}");
    assert!(out.status.success(), "{test} failed in its own process: {errors}");
    assert!(text.contains(" 1 passed; 0 failed;"), "{test} is no test: {text}");
    false
}

/// The demo as f32 GGUF.
pub fn gguf(dir: &Dir) -> String {
    let out = dir.path("tiny.gguf");
    ok(&["convert", &demo("tiny.bin"), &out, "--tokenizer", &demo("tiny-tokenizer.bin")]);
    out
}

/// The first layers of the larger bundled model, as a checkpoint of its own: all that is done layer by layer is done to
/// it in a part of the time.
pub fn first_layers(dir: &Dir, layers: usize) -> String {
    let (from, to) = (demo("model"), dir.path("layers"));
    std::fs::create_dir_all(&to).unwrap();
    for entry in std::fs::read_dir(&from).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), Path::new(&to).join(entry.file_name())).unwrap();
    }
    let config = format!("{to}/config.json");
    let mut json: Value = serde_json::from_slice(&std::fs::read(&config).unwrap()).unwrap();
    json["num_hidden_layers"] = layers.into();
    std::fs::write(config, json.to_string()).unwrap();

    let bytes = std::fs::read(format!("{from}/model.safetensors")).unwrap();
    let (length, rest) = bytes.split_first_chunk::<8>().unwrap();
    let (header, data) = rest.split_at(u64::from_le_bytes(*length) as usize);
    let mut header: serde_json::Map<String, Value> = serde_json::from_slice(header).unwrap();
    let layer = |name: &str| name.strip_prefix("model.layers.")?.split('.').next()?.parse::<usize>().ok();
    header.retain(|name, _| layer(name).is_none_or(|layer| layer < layers));
    let mut kept = Vec::new();
    for (_, tensor) in header.iter_mut().filter(|(name, _)| *name != "__metadata__") {
        let at = |i: usize| tensor["data_offsets"][i].as_u64().unwrap() as usize;
        let (first, own) = (kept.len(), &data[at(0)..at(1)]);
        kept.extend_from_slice(own);
        tensor["data_offsets"] = serde_json::json!([first, kept.len()]);
    }
    let header = serde_json::to_vec(&header).unwrap();
    let parts = [&(header.len() as u64).to_le_bytes()[..], &header, &kept];
    std::fs::write(format!("{to}/model.safetensors"), parts.concat()).unwrap();
    to
}

/// A GGUF with a tensor of every type that GGUF has.
pub fn all_types(path: &str) {
    use formats::container::gguf::{Options, Split, layout};
    use formats::model::{ByteOrder, Encoding, Location, Tensor};
    let types = formats::block::TYPES.iter().filter(|t| t.gguf.is_some());
    let tensors: Vec<_> = types
        .map(|t| Tensor {
            name: format!("{}.weight", t.name),
            shape: vec![3, 2 * t.weights as u64],
            encoding: Encoding::Blocks(t.dtype),
            location: Location::default(),
        })
        .collect();
    let mut metadata = formats::metadata::Metadata::new();
    metadata.set("general.architecture", formats::metadata::Value::text("unknown"));
    let options = Options { order: ByteOrder::Little, split: Split::None };
    let layout = layout(path, &metadata, &tensors, options).unwrap();
    let mut bytes = vec![0; layout.files[0].len as usize];
    let header = &layout.files[0].fixed[0].1;
    bytes[..header.len()].copy_from_slice(header);
    for t in &layout.tensors {
        // Any two of these bytes are a finite half, any eight a finite f64.
        let data = &mut bytes[t.location.offset as usize..][..t.location.len as usize];
        data.iter_mut().enumerate().for_each(|(i, b)| *b = [0x11, 0x2E, 0x35, 0x22, 0x09][i % 5]);
    }
    std::fs::write(path, bytes).unwrap();
}

/// A tensor's name, shape and numbers.
pub type Numbers = (String, Vec<u64>, Vec<f32>);

/// Writes a GGUF of f32 tensors.
pub fn write_gguf(path: &str, metadata: &formats::metadata::Metadata, tensors: &[Numbers]) {
    use formats::container::gguf::{Options, Split, layout};
    use formats::model::{ByteOrder, Encoding, Location, Tensor};
    let described: Vec<_> = tensors
        .iter()
        .map(|(name, shape, _)| Tensor {
            name: name.clone(),
            shape: shape.clone(),
            encoding: Encoding::Blocks(formats::block::DType::F32),
            location: Location::default(),
        })
        .collect();
    let options = Options { order: ByteOrder::Little, split: Split::None };
    let layout = layout(path, metadata, &described, options).unwrap();
    let mut bytes = vec![0; layout.files[0].len as usize];
    for (at, fixed) in &layout.files[0].fixed {
        bytes[*at as usize..][..fixed.len()].copy_from_slice(fixed);
    }
    for (t, (.., x)) in layout.tensors.iter().zip(tensors) {
        let data: Vec<u8> = x.iter().flat_map(|x| x.to_le_bytes()).collect();
        bytes[t.location.offset as usize..][..data.len()].copy_from_slice(&data);
    }
    std::fs::write(path, bytes).unwrap();
}

/// Numbers without a pattern, equal in every run.
pub fn noise(n: usize, seed: u64) -> Vec<f32> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1u64 << 24) as f32 - 0.5
    };
    (0..n).map(|_| next() + next() + next()).collect()
}

/// A tensor's weights.
pub fn weights(path: &str, name: &str) -> Vec<f32> {
    let source = ggufkit::open(Path::new(path), &Default::default()).unwrap();
    let i = source.model.tensors.iter().position(|t| t.name == name).unwrap();
    let n = source.model.tensors[i].elements();
    let mut x = vec![0.0; n as usize];
    source.fetch(i, 0..n).unwrap().decode(name, source.model.order, &mut x).unwrap();
    x
}

/// The metadata of a model, and the names, shapes and numbers of its tensors, as [`write_gguf`] takes them.
pub fn contents(path: &str) -> (formats::metadata::Metadata, Vec<Numbers>) {
    let source = ggufkit::open(Path::new(path), &Default::default()).unwrap();
    let one = |t: &formats::model::Tensor| (t.name.clone(), t.shape.clone(), weights(path, &t.name));
    let tensors = source.model.tensors.iter().map(one).collect();
    (source.model.metadata, tensors)
}

/// A tensor's stored bytes.
pub fn stored(path: &str, name: &str) -> Vec<u8> {
    let source = ggufkit::open(Path::new(path), &Default::default()).unwrap();
    let i = source.model.tensors.iter().position(|t| t.name == name).unwrap();
    source.read(i, 0..source.model.tensors[i].location.len).unwrap().into_owned()
}

/// A folder with the small model, a text and a recipe.
pub fn inputs() -> Dir {
    let dir = Dir::new();
    gguf(&dir);
    std::fs::copy(dir.path("tiny.gguf"), dir.path("other.gguf")).unwrap();
    std::fs::copy(demo("tiny-tokenizer.bin"), dir.path("tok.bin")).unwrap();
    std::fs::copy(demo("tiny.bin"), dir.path("tiny.bin")).unwrap();
    let text = std::fs::read(demo("heldout.txt")).unwrap();
    std::fs::write(dir.path("t.txt"), &text[..20_000]).unwrap();
    std::fs::write(dir.path("recipe.toml"), "base = \"q4_0\"\n").unwrap();
    dir
}

/// Arguments in which `@NAME` is the path of a file in the folder.
pub fn line(dir: &Dir, args: &str) -> Vec<String> {
    args.split(' ').map(|a| a.strip_prefix('@').map_or(a.to_string(), |name| dir.path(name))).collect()
}

/// Arguments as the commands here take them.
pub fn refs(args: &[String]) -> Vec<&str> {
    args.iter().map(String::as_str).collect()
}
