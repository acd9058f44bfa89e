//! Reads GGUF files with the `gguf-rs` crate and compares what it sees with what `ggufkit inspect --json` said.
//!
//! `second-reader MODEL.gguf` prints what `gguf-rs` sees, as JSON; `second-reader MODEL.gguf INSPECT.json ...`
//! compares pairs. What the crate is known to get wrong is left out: see the README beside it.

use std::fmt::Display;
use std::process::ExitCode;

use gguf_rs::{GGMLType, GGUFModel, Tensor, get_gguf_container};
use serde_json::{Value, json};

/// GGUF numbers of types for which `gguf-rs` computes a wrong size: Q8_1, IQ4_NL, I8 to I64, F64, BF16, MXFP4.
const WRONG_SIZES: [u32; 9] = [9, 20, 24, 25, 26, 27, 28, 30, 39];

/// Alignments that are no multiple of this are taken for 32.
const LEAST_ALIGNMENT: u64 = 8;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if let [model] = args.as_slice() {
        return match read(model) {
            Ok(model) => {
                println!("{:#}", describe(&model));
                ExitCode::SUCCESS
            }
            Err(why) => fail(&[format!("{model}: {why}")]),
        };
    }
    if args.is_empty() || !args.len().is_multiple_of(2) {
        return fail(&["usage: second-reader MODEL.gguf [INSPECT.json [MODEL.gguf INSPECT.json]...]".into()]);
    }
    let mut found = Vec::new();
    let mut tensors = 0;
    for pair in args.chunks_exact(2) {
        match compare(&pair[0], &pair[1]) {
            Ok((n, differences)) => {
                tensors += n;
                found.extend(differences.into_iter().map(|d| format!("{}: {d}", pair[0])));
            }
            Err(why) => found.push(format!("{}: {why}", pair[0])),
        }
    }
    if !found.is_empty() {
        return fail(&found);
    }
    println!("{tensors} tensors agree in {} files", args.len() / 2);
    ExitCode::SUCCESS
}

fn fail(lines: &[String]) -> ExitCode {
    lines.iter().for_each(|line| eprintln!("{line}"));
    ExitCode::FAILURE
}

/// What the crate makes of a file. It panics on some valid files: that is a finding here, not an accident.
fn read(path: &str) -> Result<GGUFModel, String> {
    let decoded = std::panic::catch_unwind(|| get_gguf_container(path).and_then(|mut c| c.decode()));
    match decoded {
        Ok(model) => model.map_err(|e| format!("gguf-rs refuses it: {e}")),
        Err(_) => Err("gguf-rs panics on it".into()),
    }
}

/// The name of a type in our spelling.
fn type_name(t: &Tensor) -> String {
    GGMLType::try_from(t.kind).map_or_else(|_| t.kind.to_string(), |k| k.to_string().to_lowercase())
}

fn describe(model: &GGUFModel) -> Value {
    let tensors: Vec<Value> = model
        .tensors()
        .iter()
        .map(|t| {
            json!({
                "name": t.name,
                "shape": t.shape, // fastest dimension first, as in the file
                "kind": t.kind,
                "type": type_name(t),
                "offset": t.offset, // from the start of the data
                "size": t.size,
            })
        })
        .collect();
    json!({
        "version": model.get_version(),
        "kv": model.num_kv(),
        "alignment": model.alignment(),
        "data_offset": model.data_offset(),
        "tensors": tensors,
    })
}

/// The number of tensors that were compared, and what differs.
fn compare(model: &str, inspect: &str) -> Result<(usize, Vec<String>), String> {
    let text = std::fs::read_to_string(inspect).map_err(|e| format!("{inspect}: {e}"))?;
    let ours: Value = serde_json::from_str(&text).map_err(|e| format!("{inspect}: {e}"))?;
    let theirs = read(model)?;
    let mut d = Differences(Vec::new());

    let version = format!("GGUF {}", theirs.get_version());
    d.same("format", ours["format"].as_str(), Some(version.as_str()));
    d.same("byte order", ours["byte_order"].as_str(), Some("little"));
    let keys = ours["metadata"].as_array().map(Vec::len);
    d.same("number of metadata keys", keys, usize::try_from(theirs.num_kv()).ok());
    d.same("distinct metadata keys", keys, Some(theirs.metadata().len()));
    let alignment = ours["alignment"].as_u64();
    let aligned = alignment.is_none_or(|a| a.is_multiple_of(LEAST_ALIGNMENT));
    if aligned {
        d.same("alignment", alignment, Some(theirs.alignment()));
    }

    let own = ours["tensors"].as_array().ok_or_else(|| format!("{inspect}: has no list of tensors"))?;
    d.same("number of tensors", Some(own.len()), Some(theirs.tensors().len()));
    // Offsets in GGUF count from the start of the data, where the first tensor lies.
    let start = if aligned {
        Some(theirs.data_offset())
    } else {
        own.iter().filter_map(|t| t["offset"].as_u64()).min()
    };
    for (own, their) in own.iter().zip(theirs.tensors()) {
        tensor(&mut d, own, their, start);
    }
    Ok((own.len(), d.0))
}

fn tensor(d: &mut Differences, own: &Value, their: &Tensor, start: Option<u64>) {
    let name = &their.name;
    d.same(&format!("name of tensor {name}"), own["name"].as_str(), Some(name.as_str()));
    let shape = own["shape"].as_array();
    let shape = shape.map(|s| s.iter().rev().map(Value::to_string).collect::<Vec<_>>().join(" x "));
    let their_shape = their.shape.iter().map(u64::to_string).collect::<Vec<_>>().join(" x ");
    d.same(&format!("shape of tensor {name}"), shape, Some(their_shape));
    d.same(&format!("type of tensor {name}"), own["type"].as_str(), Some(type_name(their).as_str()));
    let offset = own["offset"].as_u64().zip(start).and_then(|(at, start)| at.checked_sub(start));
    d.same(&format!("offset of tensor {name}"), offset, Some(their.offset));
    if !WRONG_SIZES.contains(&their.kind) {
        d.same(&format!("size of tensor {name}"), own["bytes"].as_u64(), Some(their.size));
    }
}

struct Differences(Vec<String>);

impl Differences {
    fn same<T: PartialEq + Display>(&mut self, what: &str, ours: Option<T>, theirs: Option<T>) {
        if ours == theirs && ours.is_some() {
            return;
        }
        let text = |v: Option<T>| v.map_or_else(|| "missing".to_string(), |v| v.to_string());
        self.0.push(format!("{what}: ggufkit says {}, gguf-rs {}", text(ours), text(theirs)));
    }
}
