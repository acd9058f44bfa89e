//! Checks whether the target machine (`--for`) can run what is planned, and says how to run it there.

use std::path::Path;

use formats::block::DType;
use formats::container::gguf;
use formats::metadata::Value;
use formats::model::Encoding;

use super::Plan;
use crate::arch::llama_cpp;
use crate::error::{Error, Result};
use crate::machine::{Limit, Machine, Reads, Types};
use crate::scheme::{self, Container};
use crate::text;

/// Checks a plan against the limits of a machine, and adds notes to the plan.
///
/// # Errors
/// [`Error::Refused`] with the first limit that the plan exceeds, and a hint.
pub(super) fn check(machine: &Machine, plan: &mut Plan) -> Result<()> {
    // A tokenizer alone has no limits.
    if plan.layout.files.is_empty() {
        return Ok(());
    }
    for t in &plan.layout.tensors {
        let usable = match t.encoding {
            // Every program reads vectors in f32.
            Encoding::Blocks(DType::F32) if t.shape.len() < 2 => true,
            Encoding::Blocks(dtype) => machine.takes(dtype),
            Encoding::I2S => machine.scheme == scheme::I2_S,
            Encoding::Int8Groups { .. } | Encoding::Foreign(_) => true,
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
                .or(format!("use one of these types: {}", usable.join(", "))));
        }
    }
    if machine.reads == Reads::Gguf
        && let Some(why) = plan.layout.tensors.iter().find_map(gguf::beyond_ggml)
    {
        return Err(refuses(machine, why)
            .or("leave out --for: the programs that such models are made for read the GGUF"));
    }
    for limit in machine.limits {
        check_limit(machine, *limit, plan)?;
    }
    plan.notes.extend(tokenizer_note(machine, plan));
    Ok(())
}

/// The error for a limit of a machine that is exceeded; `problem` is a sentence without the period.
fn refuses(machine: &Machine, problem: String) -> Error {
    Error::refused(format!(
        "{problem}, which --for {} does not support ({})",
        machine.name, machine.description
    ))
}

/// What stands in [`run_hint`] for the tokenizer's file where none is written.
const NO_TOKENIZER: &str = "TOKENIZER";

/// A note for the user if the machine's program needs a file with the tokenizer, and none is written.
fn tokenizer_note(machine: &Machine, plan: &Plan) -> Option<String> {
    let missing = machine.run_hint.contains("{tokenizer}") && plan.extra.is_empty();
    missing.then(|| {
        format!(
            "no tokenizer is written, since the source has none, but {} needs one: name the model's with --tokenizer \
             FILE, or put the name of its tokenizer.bin in the place of {NO_TOKENIZER}",
            machine.name
        )
    })
}

/// How to run the files of a plan; `None` for a tokenizer alone.
pub(super) fn run_hint(machine: &Machine, plan: &Plan) -> Option<String> {
    let name = |p: &Path| p.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let model = name(plan.paths.first()?);
    let tokenizer = plan.extra.first().map_or(NO_TOKENIZER.into(), |p| name(&p.0));
    Some(machine.run_hint.replace("{model}", &model).replace("{tokenizer}", &tokenizer))
}

/// A number from the model's metadata, or 0.
fn setting(plan: &Plan, key: &str) -> u128 {
    let arch = plan.metadata.text("general.architecture").unwrap_or("llama");
    plan.metadata.get(&format!("{arch}.{key}")).and_then(Value::as_u64).unwrap_or(0).into()
}

/// The dimensions of a llama2.c model, in a type wide enough for all their products.
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

/// The total size of llama98.c's heap, in bytes. Source of these three numbers: its `win.h`.
const HEAP: u128 = 96 << 20;
/// Small allocations are rounded up to a multiple of this, in bytes.
const ALLOCATION_UNIT: u128 = 16 << 10;
/// Allocations above this size, in bytes, go to the system and are not rounded.
const LARGE: u128 = 4 << 20;

/// The bytes of llama98.c's heap that an allocation takes.
fn heap_98(bytes: u128) -> u128 {
    if bytes > LARGE { bytes } else { bytes.next_multiple_of(ALLOCATION_UNIT) }
}

/// The bytes of llama98.c's heap that a model takes: weights, run state, and each token of the vocabulary separately.
fn heap(s: &Sizes, tied: bool) -> u128 {
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
        if tied { 0 } else { vocab * dim },
    ];
    let state = [dim, dim, dim, hidden, hidden, dim, l * seq * kv, l * seq * kv, heads * seq, vocab];
    let floats = weights.iter().chain(&state).filter(|n| **n > 0).map(|n| heap_98(4 * n));
    // The vocabulary: pointers, scores, and a separate allocation for each token's text.
    floats.sum::<u128>() + heap_98(4 * vocab) + heap_98(4 * vocab) + vocab * ALLOCATION_UNIT
}

/// The longest context below `most`, in steps of 16 tokens, that `fits`; `None` if not even the shortest does.
fn longest_context(most: u128, fits: impl Fn(u128) -> bool) -> Option<u128> {
    let (mut low, mut high) = (0, most / 16);
    while low < high {
        let middle = (low + high).div_ceil(2);
        (low, high) = if fits(16 * middle) { (middle, high) } else { (low, middle - 1) };
    }
    (low > 0).then_some(16 * low)
}

/// Checks one limit.
fn check_limit(machine: &Machine, limit: Limit, plan: &mut Plan) -> Result<()> {
    let tensor = |name: &str| plan.layout.tensors.iter().find(|t| t.name == name);
    match limit {
        Limit::File(most) => {
            let Some(file) = plan.layout.files.iter().find(|f| f.len > most) else { return Ok(()) };
            let why = format!("the file has {}, more than {most} bytes", text::bytes(file.len));
            Err(refuses(machine, why).or("use a type with fewer bits per weight, or a smaller model"))
        }
        Limit::OneFile if plan.layout.files.len() > 1 => {
            Err(refuses(machine, format!("the model is split into {} files", plan.layout.files.len()))
                .or("leave out --split-max-size; `ggufkit merge` merges an existing split"))
        }
        Limit::Elements => {
            let s = Sizes::of(plan);
            const MOST: u128 = (1 << 31) - 1;
            let matrix = (s.dim * s.dim.max(s.hidden)).max(s.vocab * s.dim);
            let cache = s.layers * s.seq * s.kv;
            if matrix.max(cache) <= MOST {
                return Ok(());
            }
            let (what, shorter) = match matrix > MOST {
                true => ("a matrix", None),
                false => ("the KV cache", longest_context(s.seq, |n| s.layers * n * s.kv <= MOST)),
            };
            let shorter = shorter.map_or(String::new(), |n| {
                format!("lower the context length: --set llama.context_length={n}; or ")
            });
            let why = format!("{what} has {} elements, at least 2^31", matrix.max(cache));
            Err(refuses(machine, why).or(format!("{shorter}use a smaller model, or llama.cpp")))
        }
        Limit::TiedEmbeddingsOf(all) => {
            match plan.metadata.text("general.architecture").is_some_and(|own| all.contains(&own)) {
                true => check_limit(machine, Limit::TiedEmbeddings, plan),
                false => Ok(()),
            }
        }
        Limit::TiedEmbeddings if tensor("output.weight").is_some() => {
            let why = "the model has untied embeddings (a separate output.weight)".into();
            Err(refuses(machine, why).or(match machine.container() {
                Container::Gguf => "use a model with tied embeddings; without --for, the file is for ik_llama.cpp",
                _ => "use a model with tied embeddings, or another program: --for run.c-big-endian or --for run.c",
            }))
        }
        Limit::Multiple(of) => {
            let s = Sizes::of(plan);
            match [("dim", s.dim), ("hidden_dim", s.hidden), ("kv_dim", s.kv)]
                .iter()
                .find(|n| n.1 % u128::from(of) != 0)
            {
                Some((name, n)) => {
                    Err(refuses(machine, format!("{name} is {n}, not a multiple of {of}")))
                }
                None => Ok(()),
            }
        }
        Limit::DefaultTokens(default) => {
            let seq = Sizes::of(plan).seq;
            if seq < default.into() {
                plan.notes.push(format!(
                    "the model's context length is {seq}, below the {default} tokens that {} generates by default: ask for fewer",
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
                    format!("{} is {}, more than the buffer size of {}", names[i], held[i], most[i]),
                )
                .or("use stories260K, or run larger models in ullm (--for ullm)")),
                None => Ok(()),
            }
        }
        Limit::Heap98 => {
            let s = Sizes::of(plan);
            let tied = tensor("output.weight").is_none();
            let need = heap(&s, tied);
            let bytes = |n: u128| text::bytes(n.try_into().unwrap_or(u64::MAX));
            let text = format!(
                "the model takes {} of heap ({} for the {} tokens of the vocabulary, {} for a context of {} tokens)",
                bytes(need),
                bytes(s.vocab * ALLOCATION_UNIT),
                s.vocab,
                bytes(2 * heap_98(4 * s.layers * s.seq * s.kv)),
                s.seq
            );
            if need <= HEAP {
                plan.notes.push(format!("{text}, of the 96 MiB that {} allows", machine.name));
                return Ok(());
            }
            let fits = |seq: u128| heap(&Sizes { seq, ..s }, tied) <= HEAP;
            let shorter = longest_context(s.seq, fits);
            let shorter = shorter.map_or(String::new(), |n| {
                format!("lower the context length: --set llama.context_length={n}; or ")
            });
            Err(refuses(machine, text).or(format!(
                "{shorter}use a smaller model or one with a smaller vocabulary; on systems without this heap limit, the same \
                 file runs in run.c (--for run.c)"
            )))
        }
        Limit::Architectures(all) => {
            let own = plan.metadata.text("general.architecture").unwrap_or("none");
            if all.contains(&own) {
                return Ok(());
            }
            Err(refuses(machine, format!("the architecture is {own}"))
                .or(format!("use a model of architecture {}", all.join(", "))))
        }
        Limit::NotForLlamaCpp => match plan.metadata.text("general.architecture") {
            Some(own) if llama_cpp::NOT_LOADED.contains(&own) => {
                Err(refuses(machine, format!("the architecture is {own}"))
                    .or("use bitnet.cpp or ik_llama.cpp; llama.cpp's bitnet computes another activation"))
            }
            _ => Ok(()),
        },
        Limit::PlainBpe if plan.metadata.text("tokenizer.ggml.model") == Some("gpt2") => {
            plan.notes.push(format!(
                "{} pre-tokenizes text for BPE as GPT-2 does, which gives wrong tokens for models with another \
                 pre-tokenizer; SentencePiece vocabularies are not affected",
                machine.name
            ));
            Ok(())
        }
        Limit::Vocabulary(kind) => match plan.metadata.text("tokenizer.ggml.model") {
            Some(own) if own != kind => {
                Err(refuses(machine, format!("the vocabulary's kind is {own}"))
                    .or(format!("use a model with a vocabulary of kind {kind}")))
            }
            _ => Ok(()),
        },
        Limit::NoFrequencies if tensor("rope_freqs.weight").is_some() => Err(refuses(
            machine,
            "the model has a table of rotary frequencies (rope_freqs.weight)".into(),
        )
        .or("use a model without scaled rotary embeddings; the program ignores the table, so such models (e.g. Llama 3.1) give wrong answers")),
        _ => Ok(()),
    }
}
