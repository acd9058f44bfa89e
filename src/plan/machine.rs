//! Whether the program that a file is for (`--for`) can use what is planned, and how to start it there.

use std::path::Path;

use formats::block::DType;
use formats::metadata::Value;
use formats::model::Encoding;

use super::Plan;
use crate::arch::llama_cpp;
use crate::error::{Error, Result};
use crate::machine::{Limit, Machine, Types};
use crate::scheme;
use crate::text;

/// Checks that the machine can use what is planned; what should be known beside that goes to the plan's notes.
///
/// # Errors
/// What it cannot use, with the way out.
pub(super) fn check(machine: &Machine, plan: &mut Plan) -> Result<()> {
    // A vocabulary alone is what it is.
    if plan.layout.files.is_empty() {
        return Ok(());
    }
    for t in &plan.layout.tensors {
        let usable = match t.encoding {
            // Vectors are f32 everywhere.
            Encoding::Blocks(DType::F32) if t.shape.len() < 2 => true,
            Encoding::Blocks(dtype) => machine.takes(dtype),
            Encoding::I2S => machine.scheme == scheme::I2_S,
            Encoding::Int8Groups { .. } => true,
        };
        if !usable {
            let mut usable: Vec<&str> = match machine.types {
                Types::Only(all) => all.iter().map(|d| d.name()).collect(),
                _ => vec!["q4_k_m", "q4_0", "q8_0", "f16"],
            };
            if machine.scheme == scheme::I2_S {
                usable.insert(0, scheme::I2_S);
            }
            return Err(refuses(machine, format!("tensor {} is {}", t.name, t.encoding.name()))
                .or(format!("take one of these: {}", usable.join(", "))));
        }
    }
    for limit in machine.limits {
        check_limit(machine, *limit, plan)?;
    }
    Ok(())
}

/// Says that it cannot use something.
fn refuses(machine: &Machine, why: String) -> Error {
    Error::refused(format!("{why}, which {} cannot use ({})", machine.name, machine.what))
}

/// What to do there with the files of a plan; nothing, if that is a vocabulary alone.
pub(super) fn run_hint(machine: &Machine, plan: &Plan) -> Option<String> {
    let name = |p: &Path| p.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let model = name(plan.paths.first()?);
    let tokenizer = plan.extra.first().map_or("tokenizer.bin".into(), |p| name(&p.0));
    Some(machine.there.replace("{model}", &model).replace("{tokenizer}", &tokenizer))
}

/// A setting of the model, or 0.
fn setting(plan: &Plan, key: &str) -> u128 {
    let arch = plan.metadata.text("general.architecture").unwrap_or("llama");
    plan.metadata.get(&format!("{arch}.{key}")).and_then(Value::as_u64).unwrap_or(0).into()
}

/// The sizes of a llama2.c model; wide enough that no product of them overflows.
struct Sizes {
    dim: u128,
    hidden: u128,
    layers: u128,
    heads: u128,
    kv: u128,
    vocab: u128,
    seq: u128,
}

impl Sizes {
    fn of(plan: &Plan) -> Self {
        let (dim, heads) = (setting(plan, "embedding_length"), setting(plan, "attention.head_count").max(1));
        let kv_heads = match setting(plan, "attention.head_count_kv") {
            0 => heads,
            n => n,
        };
        let embedding = plan.layout.tensors.iter().find(|t| t.name == "token_embd.weight");
        Self {
            dim,
            hidden: setting(plan, "feed_forward_length"),
            layers: setting(plan, "block_count"),
            heads,
            kv: dim / heads * kv_heads,
            vocab: embedding.map_or(0, |t| t.rows().into()),
            seq: setting(plan, "context_length"),
        }
    }
}

/// llama98.c's heap: what it allows in all, in what portions it gives out little, and from where on the system gives out
/// what is asked for. Source: its `win.h`.
const HEAP: u128 = 96 << 20;
const PORTION: u128 = 16 << 10;
const LARGE: u128 = 4 << 20;

/// What llama98.c's heap gives for an allocation of so many bytes.
fn heap_98(bytes: u128) -> u128 {
    if bytes > LARGE { bytes } else { bytes.next_multiple_of(PORTION) }
}

/// The bytes that it gives for a model: weights by kind, the state of a run, the vocabulary's tokens one by one.
fn heap(s: &Sizes, shared: bool) -> u128 {
    let Sizes { dim, hidden, layers: l, heads, kv, vocab, seq } = *s;
    let weights = [
        vocab * dim,
        l * dim,
        l * dim * dim,
        l * kv * dim,
        l * kv * dim,
        l * dim * dim,
        l * dim,
        l * hidden * dim,
        l * hidden * dim,
        l * hidden * dim,
        dim,
        if shared { 0 } else { vocab * dim },
    ];
    let state = [dim, dim, dim, hidden, hidden, dim, l * seq * kv, l * seq * kv, heads * seq, vocab];
    let floats = weights.iter().chain(&state).filter(|n| **n > 0).map(|n| heap_98(4 * n));
    // Pointers, scores, and each text by itself.
    floats.sum::<u128>() + heap_98(4 * vocab) + heap_98(4 * vocab) + vocab * PORTION
}

/// Checks one limit.
fn check_limit(machine: &Machine, limit: Limit, plan: &mut Plan) -> Result<()> {
    let tensor = |name: &str| plan.layout.tensors.iter().find(|t| t.name == name);
    match limit {
        Limit::File(most) => {
            let Some(file) = plan.layout.files.iter().find(|f| f.len > most) else { return Ok(()) };
            let why = format!("a file of {} is above the {most} bytes", text::bytes(file.len));
            Err(refuses(machine, why).or("take a smaller type, or a smaller model"))
        }
        Limit::OneFile if plan.layout.files.len() > 1 => {
            Err(refuses(machine, format!("a model in {} files", plan.layout.files.len()))
                .or("leave out --split-max-size; `ggufkit merge` makes one file of a split"))
        }
        Limit::Elements => {
            let s = Sizes::of(plan);
            let widest =
                [s.dim * s.dim.max(s.hidden), s.vocab * s.dim, s.layers * s.seq * s.kv].into_iter().max();
            match widest {
                Some(n) if n >= 1 << 31 => {
                    let why = format!("{n} numbers in one piece, which it counts in an int,");
                    Err(refuses(machine, why).or("lower llama.context_length with --set, take a smaller model, or a GGUF for llama.cpp"))
                }
                _ => Ok(()),
            }
        }
        Limit::Shared if tensor("output.weight").is_some() => {
            Err(refuses(machine, "a classifier that is not the embedding (output.weight)".into()).or(
                "take a model with tied embeddings, or another program: --for run.c-big-endian, --for run.c",
            ))
        }
        Limit::Multiple(of) => {
            let s = Sizes::of(plan);
            match [("dim", s.dim), ("hidden_dim", s.hidden), ("kv_dim", s.kv)]
                .iter()
                .find(|n| n.1 % u128::from(of) != 0)
            {
                Some((name, n)) => {
                    Err(refuses(machine, format!("{name} of {n}, which is no multiple of {of},")))
                }
                None => Ok(()),
            }
        }
        Limit::Steps(usual) => {
            let seq = Sizes::of(plan).seq;
            if seq < usual.into() {
                plan.notes.push(format!(
                    "the context of {seq} is below the {usual} tokens that {} writes if nothing is said: say fewer there",
                    machine.name
                ));
            }
            Ok(())
        }
        Limit::Buffers => {
            let s = Sizes::of(plan);
            let (held, most) =
                ([s.dim, s.hidden, s.heads, s.layers * s.kv, s.kv, s.vocab], [64, 172, 8, 320, 64, 512]);
            let names = ["dim", "hidden_dim", "n_heads", "n_layers times kv_dim", "kv_dim", "vocab_size"];
            match (0..6).find(|&i| held[i] > most[i]) {
                Some(i) => Err(refuses(
                    machine,
                    format!("{} of {}, above the {} of its buffers,", names[i], held[i], most[i]),
                )
                .or("it is built for stories260K; larger models run in ullm (--for ullm)")),
                None => Ok(()),
            }
        }
        Limit::Heap98 => {
            let s = Sizes::of(plan);
            let need = heap(&s, tensor("output.weight").is_none());
            let bytes = |n: u128| text::bytes(n.try_into().unwrap_or(u64::MAX));
            let text = format!(
                "{} of heap ({} of it for the {} tokens of the vocabulary, {} for a context of {})",
                bytes(need),
                bytes(s.vocab * PORTION),
                s.vocab,
                bytes(2 * heap_98(4 * s.layers * s.seq * s.kv)),
                s.seq
            );
            if need <= HEAP {
                plan.notes.push(format!("{text}, of the 96 MiB that {} allows itself", machine.name));
                return Ok(());
            }
            Err(refuses(machine, text)
                .or("take a model of fewer tokens, or lower llama.context_length with --set; \
                                          without Windows' heap the same file runs in run.c (--for run.c)"))
        }
        Limit::Architectures(all) => {
            let own = plan.metadata.text("general.architecture").unwrap_or("none");
            if all.contains(&own) {
                return Ok(());
            }
            Err(refuses(machine, format!("the architecture {own}")).or(format!("it has {}", all.join(", "))))
        }
        Limit::NotForLlamaCpp => match plan.metadata.text("general.architecture") {
            Some(own) if llama_cpp::NOT_LOADED.contains(&own) => {
                Err(refuses(machine, format!("the architecture {own}"))
                    .or("bitnet.cpp and ik_llama.cpp run it; llama.cpp's bitnet has another activation"))
            }
            _ => Ok(()),
        },
        Limit::PlainBpe if plan.metadata.text("tokenizer.ggml.model") == Some("gpt2") => {
            plan.notes.push(format!(
                "{} splits text for BPE as GPT-2 does, and other vocabularies' texts into other tokens than they were \
                 trained with; SentencePiece vocabularies are right",
                machine.name
            ));
            Ok(())
        }
        Limit::Vocabulary(kind) => match plan.metadata.text("tokenizer.ggml.model") {
            Some(own) if own != kind => {
                Err(refuses(machine, format!("a vocabulary of the kind {own}")).or(format!("it has {kind}")))
            }
            _ => Ok(()),
        },
        Limit::NoFrequencies if tensor("rope_freqs.weight").is_some() => Err(refuses(
            machine,
            "a table of rotary frequencies (rope_freqs.weight), which it overlooks,".into(),
        )
        .or("models with scaled rotary embeddings, Llama 3.1 for one, answer wrongly there")),
        _ => Ok(()),
    }
}
