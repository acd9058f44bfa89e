//! Every reader against damaged files: an error that names the file, or a model; never a panic, never much memory
//! beyond the file's own size, never long. Memory is counted for the whole process, so each test has one of its own.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use formats::block::TYPES;
use formats::container::{self, gguf, llama2c, safetensors};
use formats::metadata::{Metadata, Value};
use formats::model::{ByteOrder, Encoding, Input, Location, Model, Tensor};
use peak_alloc::PeakAlloc;

use crate::common::{alone, published};

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// Bytes that a reader may allocate beyond the file's size.
const MOST: usize = 64 << 20;

struct Lcg(u64);

impl Lcg {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        ((self.0 >> 33) as usize) % n.max(1)
    }
}

/// Processor time of this thread: what a busy machine does to the clock is not the reader's doing.
fn spent() -> Duration {
    #[cfg(unix)]
    {
        let t = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
        Duration::new(t.tv_sec as u64, t.tv_nsec as u32)
    }
    #[cfg(not(unix))]
    Duration::ZERO
}

/// One input: everything that a command would do with it before it reads weights.
fn try_it(name: &str, bytes: &[u8]) -> Option<Model> {
    let before = MEMORY.current_usage();
    MEMORY.reset_peak_usage();
    let start = spent();
    let input = Input::whole(name, bytes);
    let model = container::read(&input);
    let _ = llama2c::near_miss(&input);
    let _ = safetensors::read_index(name, bytes);
    let (took, used) = (spent() - start, MEMORY.peak_usage().saturating_sub(before));
    assert!(used <= bytes.len() + MOST, "{name}: {used} bytes for a file of {}", bytes.len());
    assert!(took < Duration::from_secs(1), "{name}: {took:?}");
    match model {
        Ok(m) => {
            for t in &m.tensors {
                let end = t.location.offset.checked_add(t.location.len).expect("places are in the file");
                assert!(t.location.len == 0 || end <= bytes.len() as u64, "{name}: {t:?}");
                assert!(t.rows().checked_mul(t.cols()).is_some());
            }
            Some(m)
        }
        Err(e) => {
            assert!(e.to_string().starts_with(name), "{e}");
            None
        }
    }
}

/// The first 4 KiB, and where tensors are described.
fn tables(model: Option<&Model>, len: usize) -> Vec<usize> {
    let mut at: Vec<usize> = (0..len.min(4096)).collect();
    if let Some(m) = model
        && let Some(data) = m.tensors.iter().map(|t| t.location.offset as usize).min()
    {
        let table: usize = m.tensors.iter().map(|t| 24 + t.name.len() + 8 * t.shape.len()).sum();
        at.extend(data.saturating_sub(table + m.alignment as usize).max(4096)..data.min(len));
    }
    at
}

fn torment(
    name: &str,
    file: &[u8],
    others: &[(String, Vec<u8>)],
    flips_every: usize,
    random: usize,
    seed: u64,
) {
    let model = try_it(name, file);
    for n in (0..file.len().min(4096)).step_by(flips_every) {
        try_it(name, &file[..n]);
    }
    let mut bytes = file.to_vec();
    for (i, at) in tables(model.as_ref(), file.len()).into_iter().enumerate() {
        for bit in (0..8).filter(|bit| (8 * i + bit) % flips_every == 0) {
            bytes[at] ^= 1 << bit;
            try_it(name, &bytes);
            bytes[at] ^= 1 << bit;
        }
    }
    let mut rng = Lcg(seed);
    for _ in 0..random {
        let mut bytes = file.to_vec();
        for _ in 0..1 + rng.below(4) {
            let at = rng.below(bytes.len().clamp(1, 8192));
            match rng.below(4) {
                0 => bytes.iter_mut().skip(at).take(1).for_each(|b| *b ^= 1 << rng.below(8)),
                1 => bytes.iter_mut().skip(at).take(8).for_each(|b| *b = [0, 0xFF, 0x7F, 0x80][rng.below(4)]),
                2 => {
                    let (_, other) = &others[rng.below(others.len())];
                    let from = rng.below(other.len());
                    let piece = other[from..(from + rng.below(64)).min(other.len())].to_vec();
                    let end = (at + rng.below(64)).min(bytes.len());
                    bytes.splice(at.min(end)..end, piece);
                }
                _ => bytes.truncate(rng.below(bytes.len())),
            }
        }
        try_it(name, &bytes);
    }
}

/// A file of every container, made here.
fn own_files() -> Vec<(String, Vec<u8>)> {
    let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("demo");
    let mut files: Vec<(String, Vec<u8>)> = ["tiny.bin", "tiny-tokenizer.bin"]
        .map(|n| (n.to_string(), std::fs::read(demo.join(n)).expect("the demo is in the tree")))
        .into();
    let torch = demo.with_file_name("formats/src/container/pytorch/vectors");
    for name in ["state.bin", "training.pt"] {
        files.push((name.into(), std::fs::read(torch.join(name)).expect("the vectors are in the tree")));
    }
    let mut m = Metadata::new();
    m.set("general.architecture", Value::text("test"));
    m.set("general.file_type", Value::U32(2));
    let names: Vec<String> = (0..40).map(|i| format!("token{i}")).collect();
    m.set("tokenizer.ggml.tokens", Value::Array(formats::metadata::Array::of_strings(&names)));
    let location = Location::default();
    let tensors = |gguf: bool| -> Vec<Tensor> {
        let types = TYPES.iter().filter(|t| if gguf { t.gguf.is_some() } else { t.safetensors.is_some() });
        let tensor = |t: &formats::block::Info| Tensor {
            name: format!("{}.weight", t.name),
            shape: vec![2, t.weights as u64],
            encoding: Encoding::Blocks(t.dtype),
            location,
        };
        types.map(tensor).collect()
    };
    let bytes = |layout: container::Layout| {
        let mut bytes = vec![0x3A; layout.files[0].len as usize];
        layout.files[0].fixed.iter().for_each(|(at, b)| bytes[*at as usize..][..b.len()].copy_from_slice(b));
        bytes
    };
    for order in [ByteOrder::Little, ByteOrder::Big] {
        let options = gguf::Options { order, split: gguf::Split::None };
        let layout = gguf::layout("x", &m, &tensors(true), options).unwrap();
        files.push((format!("{}.gguf", order.name()), bytes(layout)));
    }
    let options = safetensors::Options { split: gguf::Split::None };
    files.push((
        "typed.safetensors".into(),
        bytes(safetensors::layout("x", &m, &tensors(false), options, &|_, _| "x".into()).unwrap()),
    ));
    for version in [1, 2] {
        let v0 = llama2c::read(&Input::whole("tiny.bin", &files[0].1)).unwrap();
        let matrix = match version {
            2 => Encoding::Int8Groups { size: 16 },
            _ => Encoding::Blocks(formats::block::DType::F32),
        };
        let tensors: Vec<_> = v0
            .tensors
            .iter()
            .map(|t| Tensor { encoding: if t.shape.len() == 2 { matrix } else { t.encoding }, ..t.clone() })
            .collect();
        let options = llama2c::Options::new(version, ByteOrder::Big);
        files.push((
            format!("v{version}.bin"),
            bytes(llama2c::layout("x", &v0.metadata, &tensors, options).unwrap()),
        ));
    }
    files
}

#[test]
fn damaged_files_are_errors_not_panics() {
    if !alone("hostile::damaged_files_are_errors_not_panics") {
        return;
    }
    let files = own_files();
    for (i, (name, bytes)) in files.iter().enumerate() {
        assert!(try_it(name, bytes).is_some(), "{name} is sound");
        torment(name, bytes, &files, 29, 150, i as u64);
    }
}

/// Every cut, every flipped bit, and 100,000 seeded flips and splices with pieces of these and other files.
fn every_damage(files: &[(String, Vec<u8>)], others: &[(String, Vec<u8>)]) {
    let random = 100_000usize.div_ceil(files.len());
    let all = [files, others].concat();
    for (i, (name, bytes)) in files.iter().enumerate() {
        let start = Instant::now();
        torment(name, bytes, &all, 1, random, 1000 + i as u64);
        println!("{name}: {:.1} s", start.elapsed().as_secs_f64());
    }
}

#[test]
#[ignore = "slow"]
fn every_damage_is_an_error_or_a_model() {
    if alone("hostile::every_damage_is_an_error_or_a_model") {
        every_damage(&own_files(), &[]);
    }
}

/// Files that other people's tools wrote.
#[test]
#[ignore = "slow, and needs published files (see CONTRIBUTING.md)"]
fn every_damage_to_published_files_is_an_error_or_a_model() {
    if !alone("hostile::every_damage_to_published_files_is_an_error_or_a_model") {
        return;
    }
    let mut paths: Vec<PathBuf> = Vec::new();
    for folder in ["data/vintage", "data/stories260K", "data/llama2xs", "vectors"] {
        paths.extend(std::fs::read_dir(published(folder)).unwrap().map(|e| e.unwrap().path()));
    }
    paths.retain(|p| p.extension().is_some_and(|e| ["gguf", "bin", "safetensors"].iter().any(|x| e == *x)));
    paths.sort();
    assert!(paths.len() > 4, "{paths:?}");
    let read = |p: &PathBuf| {
        let name = p.file_name().expect("a file has a name").to_string_lossy().into_owned();
        (name, std::fs::read(p).expect("readable"))
    };
    every_damage(&paths.iter().map(read).collect::<Vec<_>>(), &own_files());
}
