//! `ggufkit inspect`: a model's format, metadata, tensors and memory use.

use std::fmt::Write as _;

use clap::Args;
use formats::container::safetensors::typed;
use formats::metadata::Value;
use formats::model::Tensor;
use serde_json::json;

use super::args::{Input, notes};
use super::json::{Filled, List, print_json};
use super::{print, shown};
use ggufkit::Result;
use ggufkit::allocate::default_context;
use ggufkit::memory::{Memory, ModelShape, RunConfig, Runtime};
use ggufkit::runner::KvType;
use ggufkit::source::Source;
use ggufkit::text::{self, Table, visible};

/// `ggufkit inspect`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  ggufkit inspect model.gguf
  ggufkit inspect model-00001-of-00003.gguf --tensors
  ggufkit inspect model.safetensors --json | jq '.tensors[].name'")]
pub struct Inspect {
    #[command(flatten)]
    input: Input,
    /// List every tensor
    #[arg(long)]
    tensors: bool,
    /// Show how much memory it takes to run the model with a full context
    #[arg(long, conflicts_with = "tensors")]
    memory: bool,
    /// Context length in tokens for --memory [default: 4096, or the model's maximum if that is shorter]
    #[arg(long, value_name = "N", requires = "memory", value_parser = clap::value_parser!(u64).range(1..=1 << 30))]
    context: Option<u64>,
    /// Print everything as JSON, with complete arrays; with --memory, only the memory use
    #[arg(long)]
    json: bool,
}

impl Inspect {
    pub fn run(&self) -> Result<()> {
        if self.memory {
            return self.memory();
        }
        let source = self.input.open_as_filed()?;
        if self.json { print_source(&source) } else { print(&as_text(&source, self.tensors)) }
    }
}

impl Inspect {
    fn memory(&self) -> Result<()> {
        let source = self.input.open_noted()?;
        let tensors = &source.model.tensors;
        let vocab = tensors.iter().find(|t| t.name == "token_embd.weight").map_or(0, Tensor::rows);
        let shape = ModelShape::read(&source.model.metadata, vocab)?;
        let context = self.context.unwrap_or_else(|| default_context(&source));
        let weights = tensors.iter().map(|t| t.location.len).sum();
        let mut table = Table::new(&[
            "program",
            "KV type",
            "weights",
            "KV cache",
            "batch",
            "vocabulary",
            "process",
            "resident",
            "address space",
        ]);
        let mut all = Vec::new();
        for (runtime, name) in Runtime::ALL {
            for kv in [KvType::F16, KvType::Q8_0].into_iter().filter(|kv| shape.supports(*kv)) {
                let m = Memory::of(&shape, weights, RunConfig { runtime, context, kv });
                let parts =
                    [m.weights, m.kv_cache, m.compute, m.vocabulary, m.process, m.resident(), m.total()];
                table.row([name.into(), kv.name().into()].into_iter().chain(parts.map(text::bytes)));
                all.push(json!({
                    "runtime": name, "kv": kv.name(), "weights": m.weights, "cache": m.kv_cache, "compute": m.compute,
                    "vocabulary": m.vocabulary, "process": m.process, "resident": m.resident(), "needed": m.needed(), "total": m.total(),
                }));
            }
        }
        if self.json {
            return print_json(&json!({"context": context, "memory": all}));
        }
        let most = match shape.context {
            n if n > 0 && context > n => format!("note: the model's maximum context length is {n} tokens\n"),
            _ => String::new(),
        };
        let path = shown(&source.path);
        print(&format!(
            "{path}: memory with a full context of {context} tokens\n\n{table}\n\
             address space: what `ulimit -v` must allow; part of it is reserved but never used\n{most}"
        ))
    }
}

fn as_text(source: &Source, all: bool) -> String {
    let model = &source.model;
    let mut text = String::new();
    let weights: u64 = model.tensors.iter().map(Tensor::elements).sum();
    let data: u64 = model.tensors.iter().map(|t| t.location.len).sum();
    let _ = write!(text, "{}: {}, {}-endian", shown(&source.path), model.format, model.order.name());
    if model.alignment > 1 {
        let _ = write!(text, ", tensors aligned to {} bytes", model.alignment);
    }
    let files = match source.files.len() {
        1 => String::new(),
        n => format!(" in {n} files"),
    };
    let _ = writeln!(text, ", {}{files}", text::bytes(source.bytes()));
    if weights > 0 {
        let bits = 8.0 * data as f64 / weights as f64;
        let (tensors, weights) = (text::count(model.tensors.len() as u64), text::count(weights));
        let s = if model.tensors.len() == 1 { "" } else { "s" };
        let _ = writeln!(text, "{tensors} tensor{s}, {weights} weights, {bits:.2} bits per weight");
    }

    for note in notes(source) {
        let _ = writeln!(text, "note: {}", visible(&note));
    }

    let mut types: Vec<(String, u64, u64, u64)> = Vec::new();
    for t in &model.tensors {
        let name = t.encoding.name();
        match types.iter_mut().find(|r| r.0 == name) {
            Some(r) => (r.1, r.2, r.3) = (r.1 + 1, r.2 + t.elements(), r.3 + t.location.len),
            None => types.push((name, 1, t.elements(), t.location.len)),
        }
    }
    let mut table = Table::new(&["type", "tensors", "weights", "size"]);
    for (name, tensors, weights, bytes) in types {
        table.row([name, text::count(tensors), text::count(weights), text::bytes(bytes)]);
    }
    if !table.is_empty() {
        let _ = write!(text, "\n{table}");
    }

    let mut table = Table::new(&["key", "type", "value"]);
    for (key, value) in model.metadata.iter() {
        let kind = match value {
            Value::Array(a) => format!("[{}; {}]", a.kind().name(), a.len()),
            v => v.kind().name().to_string(),
        };
        table.row([key.to_string(), kind, show(value)]);
    }
    if !table.is_empty() {
        let _ = write!(text, "\n{table}");
    }
    if all {
        let mut table = Table::new(&["tensor", "shape", "type", "bytes", "file", "offset"]);
        for t in &model.tensors {
            let (bytes, offset) = (text::count(t.location.len), text::count(t.location.offset));
            let shape = text::shape(&t.shape);
            table.row([
                t.name.clone(),
                shape,
                t.encoding.name(),
                bytes,
                (t.location.file + 1).to_string(),
                offset,
            ]);
        }
        let _ = write!(text, "\n{table}");
    }
    text
}

/// The most characters of a value that are shown in a table.
const WIDTH: usize = 60;

fn show(value: &Value) -> String {
    let text = match value {
        Value::Array(a) => {
            let items: Vec<_> = a.values().take(8).map(|v| scalar(&v)).collect();
            let more = if a.len() > items.len() { ", …" } else { "" };
            format!("[{}{more}]", items.join(", "))
        }
        v => scalar(v),
    };
    match text.char_indices().nth(WIDTH) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text,
    }
}

fn scalar(value: &Value) -> String {
    match value {
        Value::String(s) => visible(&String::from_utf8_lossy(&s[..s.len().min(4 * WIDTH)])),
        Value::F32(x) => x.to_string(),
        Value::F64(x) => x.to_string(),
        Value::Bool(b) => b.to_string(),
        v => v.as_i128().map(|i| i.to_string()).unwrap_or_default(),
    }
}

/// Prints everything as JSON. Tensors and arrays are written one after another: as a whole, the answer takes many times the
/// memory of the file.
fn print_source(source: &Source) -> Result<()> {
    let model = &source.model;
    let tensor = |t: &Tensor| {
        json!({
            "name": t.name,
            "shape": t.shape,
            "type": t.encoding.name(),
            "file": t.location.file,
            "offset": t.location.offset,
            "bytes": t.location.len,
        })
    };
    let rest = json!({
        "format": model.format.to_string(),
        "byte_order": model.order.name(),
        "alignment": model.alignment,
        "files": source.files.iter().map(|f| json!({"path": f.name(), "bytes": f.len})).collect::<Vec<_>>(),
        "metadata": null,
        "tensors": null,
        "notes": notes(source),
    });
    let metadata =
        List(|| model.metadata.iter().map(|(key, value)| (key, value.kind().name(), Typed(value))));
    let tensors = List(|| model.tensors.iter().map(tensor));
    print_json(&Filled { rest: &rest, first: ("metadata", metadata), second: ("tensors", tensors) })
}

/// A value as [`typed::encode`] has it, with arrays written value by value.
struct Typed<'a>(&'a Value);

impl serde::Serialize for Typed<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        match self.0 {
            Value::Array(a) => (a.kind().name(), List(|| typed::items(a))).serialize(serializer),
            value => typed::encode(value).serialize(serializer),
        }
    }
}
