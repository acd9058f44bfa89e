//! Checks whether the target machine (`--for`) can run what is planned, and says how to run it there.

use std::path::Path;

use formats::block::{DType, Family};
use formats::container::gguf;
use formats::metadata::{Metadata, Value};
use formats::model::{Encoding, Tensor};

use super::Plan;
use crate::arch::{Blk, llama_cpp};
use crate::error::{Error, Result};
use crate::machine::{Limit, MACHINES, Machine, Reads, Types};
use crate::scheme::{self, Container};
use crate::text::{self, shell_word};

/// Checks a plan against the limits of a machine, and adds notes to the plan.
///
/// # Errors
/// [`Error::Refused`] with the first limit that the plan exceeds, and a hint.
pub(super) fn check(machine: &Machine, plan: &mut Plan) -> Result<()> {
    // A tokenizer alone has no limits.
    if plan.layout.files.is_empty() {
        return Ok(());
    }
    check_architecture(machine, &plan.metadata)?;
    // What no option changes comes first, or following the hint of another refusal would lead to this one.
    let mut of_model = machine.limits.iter().filter(|limit| limit.is_of_model());
    if let Some(error) = of_model.find_map(|limit| exceeded(machine, *limit, plan)) {
        return Err(error);
    }
    if machine.reads == Reads::Gguf
        && let Some(why) = plan.layout.tensors.iter().find_map(gguf::beyond_ggml)
    {
        return Err(refuses(machine, why)
            .or("leave out --for: the programs that such models are made for read the GGUF"));
    }
    for (decision, t) in plan.decisions.iter().zip(&plan.layout.tensors) {
        let is_llama_cpp = machine.limits.contains(&Limit::NotForLlamaCpp);
        let is_vector = t.shape.len() < 2
            && !matches!(t.encoding, Encoding::Blocks(dtype) if dtype.info().family == Family::Integer);
        if is_llama_cpp && is_vector && t.encoding != Encoding::Blocks(DType::F32) {
            let why = format!(
                "tensor {} is {}, and norms and biases are computed in f32 alone",
                t.name,
                t.encoding.name()
            );
            return Err(refuses(machine, why).or(
                "leave out the --tensor that gives it another type; if the source has it so, add --tensor '(norm|bias)=f32'",
            ));
        }
        let takes = match t.encoding {
            // Every program reads vectors in f32.
            Encoding::Blocks(DType::F32) if t.shape.len() < 2 => true,
            Encoding::Blocks(dtype) => machine.takes(dtype),
            Encoding::I2S => machine.scheme == scheme::I2_S,
            Encoding::Int8Groups { .. } | Encoding::Foreign(_) => true,
        };
        if !takes {
            // A type of the source that is kept can only become another, with the errors of both where it is quantized.
            let kept = decision.from == t.encoding;
            let again = if kept && !t.encoding.is_plain() { " --allow-requantize" } else { "" };
            let usable: Vec<String> =
                usable(machine).iter().map(|name| format!("use --type {name}{again}")).collect();
            let original = if again.is_empty() { "" } else { "start from the original weights; or " };
            return Err(refuses(machine, format!("tensor {} is {}", t.name, t.encoding.name()))
                .or(format!("{original}{}", usable.join("; or "))));
        }
    }
    for limit in machine.limits {
        check_limit(machine, *limit, plan)?;
    }
    plan.notes.extend(tokenizer_note(machine, plan));
    plan.notes.extend(larger_note(machine, plan));
    Ok(())
}

/// Checks that a machine's program computes the architecture of a model. It comes before everything else, since no types and no
/// file names help where it does not.
///
/// # Errors
/// [`Error::Refused`] with the programs that compute it.
pub(super) fn check_architecture(machine: &Machine, metadata: &Metadata) -> Result<()> {
    let Some(own) = metadata.text("general.architecture").filter(|own| !machine.computes(own)) else {
        return Ok(());
    };
    let others = MACHINES.iter().filter(|other| other.order == machine.order && other.computes(own));
    let mut ways: Vec<String> =
        others.map(|other| format!("--for {} ({})", other.name, other.description)).collect();
    if ways.is_empty() {
        let others = MACHINES.iter().filter(|other| other.computes(own));
        ways = others.map(|other| format!("--for {} ({})", other.name, other.description)).collect();
    }
    let mut hint = format!("these run it: {}", ways.join("; "));
    if llama_cpp::NOT_LOADED.contains(&own) {
        hint += "; ik_llama.cpp, without --for. llama.cpp's bitnet computes another activation";
    }
    if let Some(all) = machine.architectures() {
        hint += &format!("; or use a model of architecture {}", all.join(", "));
    }
    Err(refuses(machine, format!("the architecture is {own}")).or(hint))
}

/// A note for the user if the machine's program reads f32 alone, the source has smaller weights, and another program on the
/// same machine reads int8.
fn larger_note(machine: &Machine, plan: &Plan) -> Option<String> {
    let wider = |(decision, t): (&super::Decision, &Tensor)| {
        t.shape.len() == 2 && t.encoding == Encoding::Blocks(DType::F32) && decision.from != t.encoding
    };
    let other = machine.alternatives().find(|other| other.is_int8() && can_run(other, plan))?;
    let becomes_larger = machine.reads == Reads::Llama2c { version: 0, fork: false }
        && plan.decisions.iter().zip(&plan.layout.tensors).any(wider);
    becomes_larger.then(|| {
        format!(
            "{} reads f32 alone, so the file is larger than the source: --for {} writes int8, about a quarter of it ({})",
            machine.name,
            other.name,
            other.description.replace(['(', ')'], "")
        )
    })
}

/// Whether another machine's program, which reads a file of the same kind, can run the model of a plan.
fn can_run(machine: &Machine, plan: &Plan) -> bool {
    machine.limits.iter().all(|limit| exceeded(machine, *limit, plan).is_none())
}

/// What to use instead of a program that cannot run a model: others on the same machine which can, or `otherwise`.
fn instead(machine: &Machine, plan: &Plan, otherwise: &str) -> String {
    let all: Vec<String> = machine
        .alternatives()
        .filter(|other| can_run(other, plan))
        .map(|other| format!("use --for {} ({})", other.name, other.description.replace(['(', ')'], "")))
        .chain((!otherwise.is_empty()).then(|| otherwise.to_string()))
        .collect();
    all.join("; or ")
}

/// The bytes of the largest file of a plan, if it were made for another machine: of f32 as it is, of int8 about a quarter.
fn length(machine: &Machine, plan: &Plan) -> u64 {
    let own = plan.layout.files.iter().map(|f| f.len).max().unwrap_or(0);
    let int8 = plan.layout.tensors.iter().any(|t| matches!(t.encoding, Encoding::Int8Groups { .. }));
    match (machine.is_int8(), int8) {
        // A byte for each weight, and four for each group, of which the smallest that are usual have 16 weights.
        (true, false) => own / 4 + own / 16,
        _ => own,
    }
}

/// The schemes to choose from for a machine that does not read all types: its own, and others whose types it reads.
pub(super) fn usable(machine: &Machine) -> Vec<&'static str> {
    let mut all = vec![machine.scheme];
    let more = match machine.types {
        Types::Only(types) => types.iter().map(|d| d.name()).collect(),
        _ => vec!["q4_k_m", "q4_0", "q8_0", "f16"],
    };
    all.extend(more.into_iter().filter(|name| *name != machine.scheme));
    all
}

/// The error for a limit of a machine that is exceeded; `problem` is a sentence without the period.
fn refuses(machine: &Machine, problem: String) -> Error {
    Error::refused(format!(
        "{problem}, which --for {} does not support ({})",
        machine.name, machine.description
    ))
}

/// Whether a plan writes the model's vocabulary: into a GGUF, or beside a llama2.c checkpoint.
fn has_vocabulary(plan: &Plan) -> bool {
    let tokens = plan.metadata.get("tokenizer.ggml.tokens").and_then(Value::as_array);
    match plan.target {
        Container::Gguf => tokens.is_some_and(|tokens| !tokens.is_empty()),
        _ => !plan.extra.is_empty(),
    }
}

/// A note for the user if the machine's program needs the tokenizer, and none is written.
fn tokenizer_note(machine: &Machine, plan: &Plan) -> Option<String> {
    (!has_vocabulary(plan)).then(|| {
        format!(
            "no tokenizer is written, since the source has none, and {} does not run the model without: add --tokenizer \
             FILE with the model's tokenizer.bin or tokenizer.model, or put the tokenizer files of a checkpoint next to its \
             weights",
            machine.name
        )
    })
}

/// How to run the files of a plan; `None` for a tokenizer alone, and for a model that cannot be run without one.
pub(super) fn run_hint(machine: &Machine, plan: &Plan) -> Option<String> {
    let name = |p: &Path| shell_word(p.file_name().unwrap_or_default());
    let model = name(plan.paths.first()?);
    if !has_vocabulary(plan) {
        return None;
    }
    let tokenizer = plan.extra.first().map_or(String::new(), |p| name(&p.0));
    Some(machine.run_hint.replace("{model}", &model).replace("{tokenizer}", &tokenizer))
}

/// A number from the model's metadata, or 0.
fn setting(plan: &Plan, key: &str) -> u128 {
    let arch = plan.metadata.text("general.architecture").unwrap_or("llama");
    plan.metadata.get(&format!("{arch}.{key}")).and_then(Value::as_common_u64).unwrap_or(0).into()
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
pub(super) fn longest_context(most: u128, fits: impl Fn(u128) -> bool) -> Option<u128> {
    let (mut low, mut high) = (0, most / 16);
    while low < high {
        let middle = (low + high).div_ceil(2);
        (low, high) = if fits(16 * middle) { (middle, high) } else { (low, middle - 1) };
    }
    (low > 0).then_some(16 * low)
}

/// The error for a limit that a plan exceeds; notes on limits that only need one are added to the plan.
fn check_limit(machine: &Machine, limit: Limit, plan: &mut Plan) -> Result<()> {
    if let Some(error) = exceeded(machine, limit, plan) {
        return Err(error);
    }
    let note = match limit {
        Limit::DefaultTokens(default) => {
            let seq = Sizes::of(plan).seq;
            (seq < default.into()).then(|| {
                format!(
                    "the model's context length is {seq}, below the {default} tokens that {} generates by default: ask for fewer",
                    machine.name
                )
            })
        }
        Limit::Heap98 => Some(format!(
            "{}, of the 96 MiB that {} allows",
            heap_text(&Sizes::of(plan), is_tied(plan)),
            machine.name
        )),
        Limit::PlainBpe if plan.metadata.text("tokenizer.ggml.model") == Some("gpt2") => Some(format!(
            "{} pre-tokenizes text for BPE as GPT-2 does, which gives wrong tokens for models with another \
             pre-tokenizer; SentencePiece vocabularies are not affected",
            machine.name
        )),
        _ => None,
    };
    plan.notes.extend(note);
    Ok(())
}

/// Whether the embeddings of a plan's model are tied.
fn is_tied(plan: &Plan) -> bool {
    !plan.layout.tensors.iter().any(|t| t.name == "output.weight")
}

/// What a model takes of llama98.c's heap, in words.
fn heap_text(s: &Sizes, tied: bool) -> String {
    let bytes = |n: u128| text::bytes(n.try_into().unwrap_or(u64::MAX));
    format!(
        "the model takes {} of heap ({} for the {} tokens of the vocabulary, {} for a context of {} tokens)",
        bytes(heap(s, tied)),
        bytes(s.vocab * ALLOCATION_UNIT),
        s.vocab,
        bytes(2 * heap_98(4 * s.layers * s.seq * s.kv)),
        s.seq
    )
}

/// The error for a limit that a plan exceeds, with every way out that works; `None` if it does not.
fn exceeded(machine: &Machine, limit: Limit, plan: &Plan) -> Option<Error> {
    let tensor = |name: &str| plan.layout.tensors.iter().find(|t| t.name == name);
    let gguf = machine.container() == Container::Gguf;
    let refuse = |why: String, hint: String| Some(refuses(machine, why).or(hint));
    match limit {
        Limit::File(most) => {
            let len = length(machine, plan);
            if len <= most {
                return None;
            }
            let why = format!("the file has {}, more than {most} bytes", text::bytes(len));
            // The smallest types that need no importance matrix have 3.44 bits per weight.
            let weights: u64 = plan.layout.tensors.iter().map(Tensor::elements).sum();
            let hint = match gguf {
                true if weights / 16 * 7 < most => format!(
                    "use ggufkit quantize, leave out --type and --recipe and add --size {most}, which chooses types that fit; or \
                     use a smaller model"
                ),
                true => "use a smaller model".into(),
                false => instead(machine, plan, "use a smaller model"),
            };
            refuse(why, hint)
        }
        Limit::OneFile if plan.layout.files.len() > 1 => refuse(
            format!("the model is split into {} files", plan.layout.files.len()),
            "leave out --split-max-size; ggufkit merge merges a model that is split already".into(),
        ),
        Limit::Elements => {
            let s = Sizes::of(plan);
            const MOST: u128 = (1 << 31) - 1;
            let matrix = (s.dim * s.dim.max(s.hidden)).max(s.vocab * s.dim);
            let cache = s.layers * s.seq * s.kv;
            if matrix.max(cache) <= MOST {
                return None;
            }
            let (what, shorter) = match matrix > MOST {
                true => ("a matrix", None),
                false => ("the KV cache", longest_context(s.seq, |n| s.layers * n * s.kv <= MOST)),
            };
            let why = format!("{what} has {} elements, at least 2^31", matrix.max(cache));
            refuse(why, format!("{}use a smaller model, or llama.cpp", shorter_context(shorter)))
        }
        Limit::TiedEmbeddingsOf(all) => {
            let own = plan.metadata.text("general.architecture").is_some_and(|own| all.contains(&own));
            if own { exceeded(machine, Limit::TiedEmbeddings, plan) } else { None }
        }
        Limit::TiedEmbeddings if !is_tied(plan) => {
            let why = "the model has untied embeddings (a separate output.weight)".into();
            refuse(why, match gguf {
                true => "use a model with tied embeddings; without --for, the file is for ik_llama.cpp".into(),
                false => instead(machine, plan, "use a model with tied embeddings"),
            })
        }
        Limit::Multiple(of) => {
            let s = Sizes::of(plan);
            let all = [("dim", s.dim), ("hidden_dim", s.hidden), ("kv_dim", s.kv)];
            let (name, n) = all.iter().find(|n| n.1 % u128::from(of) != 0)?;
            let why = format!("{name} is {n}, not a multiple of {of}");
            refuse(why, instead(machine, plan, "use a model of other sizes"))
        }
        Limit::Buffers => {
            let s = Sizes::of(plan);
            let (held, most) =
                ([s.dim, s.hidden, s.heads, s.layers * s.kv, s.kv, s.vocab], [64, 172, 8, 320, 64, 512]);
            let names = ["dim", "hidden_dim", "n_heads", "n_layers times kv_dim", "kv_dim", "vocab_size"];
            let i = (0..6).find(|&i| held[i] > most[i])?;
            let why = format!("{} is {}, more than the buffer size of {}", names[i], held[i], most[i]);
            refuse(why, instead(machine, plan, "use stories260K"))
        }
        Limit::Heap98 => {
            let (s, tied) = (Sizes::of(plan), is_tied(plan));
            if heap(&s, tied) <= HEAP {
                return None;
            }
            let shorter = longest_context(s.seq, |seq| heap(&Sizes { seq, ..s }, tied) <= HEAP);
            let others = instead(machine, plan, "use a smaller model or one with a smaller vocabulary");
            refuse(heap_text(&s, tied), format!("{}{others}", shorter_context(shorter)))
        }
        // A GGUF that names none; [`check_architecture`] has looked at the others.
        Limit::Architectures(all) if plan.metadata.text("general.architecture").is_none() => {
            refuse("the architecture is not known".into(), format!("use a model of architecture {}", all.join(", ")))
        }
        Limit::Vocabulary(kind) => {
            let own = plan.metadata.text("tokenizer.ggml.model").filter(|own| *own != kind)?;
            let why = format!("the vocabulary's kind is {own}");
            refuse(why, format!("use a model with a vocabulary of kind {kind}"))
        }
        Limit::NoFeedForwardBiases => {
            let is_ffn = |part: &str| ["ffn_gate.bias", "ffn_up.bias", "ffn_down.bias"].contains(&part);
            let is_bias = |t: &&Tensor| Blk::parse(&t.name).is_some_and(|blk| is_ffn(blk.part));
            let bias = plan.layout.tensors.iter().find(is_bias)?;
            let why = format!("feed-forward matrices have biases ({})", bias.name);
            refuse(why, match plan.search.bias {
                true => "leave out --bias-correction; or leave out --for, for a current llama.cpp".into(),
                false => "use a model without such biases; a current llama.cpp runs it".into(),
            })
        }
        Limit::NoFrequencies if tensor("rope_freqs.weight").is_some() => refuse(
            "the model has a table of rotary frequencies (rope_freqs.weight)".into(),
            "use a model without scaled rotary embeddings; the program ignores the table, so such models (e.g. Llama 3.1) \
             give wrong answers"
                .into(),
        ),
        _ => None,
    }
}

/// The beginning of a hint for models that would run with a shorter context.
pub(super) fn shorter_context(most: Option<u128>) -> String {
    most.map_or(String::new(), |n| {
        format!("add --set llama.context_length={n} to lower the context length; or ")
    })
}
