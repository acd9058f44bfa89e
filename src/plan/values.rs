//! Values that say something else than the tensors or other keys, or that programs cannot work with: the kind of the file,
//! counts of heads and experts, lengths, names of types, chat templates.

use formats::block::DType;
use formats::metadata::{Metadata, Value};
use formats::model::{Encoding, Tensor};

use super::edit::Edit;
use super::readable::Problem;
use crate::arch::values::must;
use crate::arch::{Blk, by_name, llama_cpp};
use crate::scheme;

/// Everything that is wrong with values; with `vocabulary`, also with those of the tokenizer, which take longer to read.
pub(super) fn problems(metadata: &Metadata, tensors: &[Tensor], vocabulary: bool) -> Vec<Problem> {
    let arch = metadata.text("general.architecture").unwrap_or_default();
    let mut found: Vec<Problem> = out_of_range(metadata, arch).collect();
    found.extend(kind_of_file(metadata, tensors));
    let settings = Settings { metadata, arch, tensors };
    found.extend(settings.of_embedding());
    found.extend(settings.experts());
    found.extend(settings.heads());
    if by_name(arch).is_some() {
        found.extend(settings.head_lengths());
    }
    if vocabulary {
        found.extend(unused_pre_tokenizer(metadata));
        found.extend(templates(metadata));
    }
    found
}

/// Values that are out of their range.
fn out_of_range(metadata: &Metadata, arch: &str) -> impl Iterator<Item = Problem> {
    metadata.iter().filter_map(move |(key, value)| {
        let must = must(key, arch)?;
        let why = format!("must be {must} (found {})", found(value));
        (!must.holds(value)).then(|| Problem::new(format!("range {key}"), key, why))
    })
}

/// A value without its type, where that says nothing.
fn found(value: &Value) -> String {
    let text = value.describe();
    match value {
        Value::Array(_) => text,
        value => text.strip_prefix(value.kind().name()).map_or(text.clone(), |rest| rest.trim_start().into()),
    }
}

/// A file of weights that says of itself that it is something else, which programs believe.
fn kind_of_file(metadata: &Metadata, tensors: &[Tensor]) -> Option<Problem> {
    const KIND: &str = "general.type";
    const ADAPTER: &str = "adapter.type";
    let named = |part: &str| tensors.iter().any(|t| t.name.contains(part));
    let is_clip = metadata.text("general.architecture") == Some("clip");
    let adapter = "the tensors are no LoRA adapter, for which programs take such a file";
    let harm = "programs do not take the file for a model any more";
    let wrong = match metadata.text(KIND) {
        Some("adapter") if !named(".lora_a") => Some((KIND, adapter)),
        Some("imatrix") if !named(".in_sum2") => {
            Some((KIND, "the tensors are no importance matrix, for which programs take such a file"))
        }
        Some("mmproj") if !is_clip => Some((
            KIND,
            "the tensors are no projector of images or sound, for which programs take such a file",
        )),
        None | Some("model" | "adapter" | "imatrix" | "mmproj") => None,
        Some(_) => {
            let why = "is none of model, adapter, mmproj and imatrix";
            let note =
                Problem { harmless: Some("programs do not know it"), ..Problem::new("kind", KIND, why) };
            return Some(note);
        }
    };
    let as_adapter = metadata.get(ADAPTER).filter(|_| !named(".lora_a")).map(|_| (ADAPTER, adapter));
    let (key, why) = wrong.or(as_adapter)?;
    Some(Problem { harm, ..Problem::new("kind", key, why) })
}

/// The settings of an architecture beside the tensors that they describe.
struct Settings<'m> {
    metadata: &'m Metadata,
    arch: &'m str,
    tensors: &'m [Tensor],
}

impl Settings<'_> {
    fn key(&self, end: &str) -> String {
        format!("{}.{end}", self.arch)
    }

    /// An integer, or that of all layers, if a list has the same for each; `None` where there is none.
    fn count(&self, end: &str) -> Option<u64> {
        let value = self.metadata.get(&self.key(end))?;
        let Some(list) = value.as_array() else { return value.as_u64() };
        let mut values = list.values().map(|value| value.as_u64());
        let first = values.next()??;
        values.all(|value| value == Some(first)).then_some(first)
    }

    /// The integer of each layer.
    fn of_layers(&self, end: &str) -> impl Fn(u64) -> Option<u64> + use<> {
        let value = self.metadata.get(&self.key(end));
        let one = value.and_then(Value::as_u64);
        let each: Vec<_> = value
            .and_then(Value::as_array)
            .map_or(Vec::new(), |list| list.values().map(|value| value.as_u64()).collect());
        move |layer| one.or_else(|| *each.get(usize::try_from(layer).ok()?)?)
    }

    /// Whether a tensor's name has this part.
    fn named(&self, part: &str) -> bool {
        self.tensors.iter().any(|t| t.name.contains(part))
    }

    fn problem(&self, end: &str, why: impl Into<String>) -> Problem {
        Problem::new(format!("value {end}"), self.key(end), why)
    }

    /// Lengths that the token embedding has otherwise.
    fn of_embedding(&self) -> Vec<Problem> {
        let Some(embedding) = self.tensors.iter().find(|t| t.name == "token_embd.weight") else {
            return Vec::new();
        };
        let (rows, columns) = (embedding.rows(), embedding.shape.last().copied().unwrap_or(1));
        // WavTokenizer's embedding has another length, for which there is a key of its own.
        let other = self.count("features_length").is_some();
        [("vocab_size", rows, "rows", false), ("embedding_length", columns, "columns", other)]
            .into_iter()
            .filter_map(|(end, wanted, of, other)| {
                let says = self.count(end).filter(|says| *says != wanted && !other)?;
                let why = format!("must be {wanted}, the {of} of the token embedding (found {says})");
                Some(self.problem(end, why))
            })
            .collect()
    }

    /// Counts of experts that are not those of the tensors, or do not go together.
    fn experts(&self) -> Option<Problem> {
        let (count, used) =
            (self.count("expert_count").unwrap_or(0), self.count("expert_used_count").unwrap_or(0));
        let there = self.named("_exps.") || self.named("ffn_gate_inp");
        if count > 0 && !there {
            let why = format!("must be 0, as there are no tensors of experts (found {count})");
            return Some(self.problem("expert_count", why));
        }
        let stacked = self.tensors.iter().find(|t| t.name.contains("_exps.") && t.shape.len() == 3);
        if let Some(t) = stacked.filter(|t| t.shape[0] != count) {
            let why = format!("must be {}, the experts in {} (found {count})", t.shape[0], t.name);
            return Some(self.problem("expert_count", why));
        }
        let wanted = if count == 0 { 0..=0 } else { 1..=count };
        let why = format!(
            "must be from {} to {}, the number of experts (found {used})",
            wanted.start(),
            wanted.end()
        );
        (!wanted.contains(&used)).then(|| self.problem("expert_used_count", why))
    }

    /// Counts of attention heads that do not go together.
    fn heads(&self) -> Option<Problem> {
        let ends = ["attention.head_count", "attention.head_count_kv"];
        let [heads, shared] = ends.map(|end| self.count(end));
        let attends = self.named("attn_q") || self.named("attn_k");
        if let Some((end, _)) = ends.into_iter().zip([heads, shared]).find(|(_, n)| attends && *n == Some(0))
        {
            return Some(
                self.problem(end, "must be at least 1, as there are tensors of attention (found 0)"),
            );
        }
        let heads = heads.filter(|&n| n > 0)?;
        if let Some(shared) = shared.filter(|&n| n > 0 && !heads.is_multiple_of(n)) {
            let why = format!("must divide the number of attention heads, {heads} (found {shared})");
            return Some(self.problem(ends[1], why));
        }
        let hidden =
            self.count("embedding_length").filter(|hidden| attends && !hidden.is_multiple_of(heads))?;
        let why = format!(
            "must divide the embedding length, {hidden}, where no key says how long heads are (found {heads})"
        );
        self.count("attention.key_length").is_none().then(|| self.problem(ends[0], why))
    }

    /// Heads that are not those of the tensors, for architectures whose tensors are known.
    fn head_lengths(&self) -> Option<Problem> {
        const HEADS: &str = "attention.head_count";
        const SHARED: &str = "attention.head_count_kv";
        const KEY: &str = "attention.key_length";
        const VALUE: &str = "attention.value_length";
        let hidden = self.count("embedding_length")?;
        let (all, shared) = (self.of_layers(HEADS), self.of_layers(SHARED));
        // Not once for each tensor: as a list, one may be long.
        let (key_length, value_length) = (self.count(KEY), self.count(VALUE));
        for t in self.tensors {
            let Some(blk) = Blk::parse(&t.name) else { continue };
            let (count, length, stated) = match t.name.rsplit_once("attn_").map(|(_, name)| name) {
                Some("q.weight") => (HEADS, KEY, key_length),
                Some("k.weight") => (SHARED, KEY, key_length),
                Some("v.weight") => (SHARED, VALUE, value_length),
                _ => continue,
            };
            let Some(heads) = all(blk.layer).filter(|&n| n > 0) else { continue };
            let number = if count == HEADS { heads } else { shared(blk.layer).unwrap_or(heads) };
            let size = stated.unwrap_or(hidden / heads);
            if t.rows() != number.saturating_mul(size) {
                let why = format!("{} has {} rows, which are not {number} heads of {size}", t.name, t.rows());
                // Whoever changes a list of heads changes no length.
                let listed = [count, HEADS]
                    .into_iter()
                    .find(|end| self.metadata.get(&self.key(end)).is_some_and(|v| v.as_array().is_some()));
                let end = listed.unwrap_or(if stated.is_some() { length } else { count });
                return Some(Problem { alone: why.clone(), ..self.problem(end, why) });
            }
        }
        let heads = self.count(HEADS).filter(|&n| n > 0)?;
        let head = key_length.unwrap_or(hidden / heads);
        let rotary = self.count("rope.dimension_count")?;
        let whole = llama_cpp::rotates_whole_heads(self.arch);
        let why = match whole {
            true if rotary != head => format!("must be {}, the length of a head (found {rotary})", head),
            false if rotary > head || !rotary.is_multiple_of(2) || rotary == 0 => {
                format!("must be an even number from 2 to {}, the length of a head (found {rotary})", head)
            }
            _ => return None,
        };
        Some(self.problem("rope.dimension_count", why))
    }
}

/// A pre-tokenizer of a vocabulary that has none.
fn unused_pre_tokenizer(metadata: &Metadata) -> Option<Problem> {
    const KEY: &str = "tokenizer.ggml.pre";
    let kind = metadata.text("tokenizer.ggml.model")?;
    let name = metadata.text(KEY).filter(|name| !["", "default"].contains(name))?;
    let why =
        format!("only byte-level tokenizers have a pre-tokenizer, and this one is {kind} (found {name:?})");
    ["llama", "t5", "bert", "rwkv", "plamo2"].contains(&kind).then(|| Problem {
        harmless: Some("programs do not look at this key"),
        ..Problem::new("pre", KEY, why)
    })
}

/// Chat templates that are none.
#[cfg(feature = "chat")]
fn templates(metadata: &Metadata) -> Vec<Problem> {
    use crate::chat::{Fault, fault};
    const KEY: &str = "tokenizer.chat_template";
    let is_template =
        |key: &str| key.strip_prefix(KEY).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
    let texts = metadata.iter().filter(|(key, _)| is_template(key));
    let faults = texts.filter_map(|(key, value)| {
        let problem = |why| Problem::new(format!("template {key}"), key, why);
        Some(match fault(value.as_str()?)? {
            Fault::Syntax(why) => {
                Problem { harm: "programs that chat with the model refuse the template", ..problem(why) }
            }
            Fault::TooLarge(why) => {
                Problem { harmless: Some("ggufkit does not chat with it"), ..problem(why) }
            }
        })
    });
    faults.collect()
}

#[cfg(not(feature = "chat"))]
fn templates(_: &Metadata) -> Vec<Problem> {
    Vec::new()
}

/// Notes on names of types that the user has set and that are not those of the tensors. Nothing computes with them, but
/// programs and sites show them.
pub(super) fn named_types(edits: &[Edit], metadata: &Metadata, tensors: &[Tensor]) -> Vec<String> {
    const FILE: &str = "general.file_type";
    const VERSION: &str = "general.quantization_version";
    let set = |key: &str| edits.iter().flat_map(Edit::keys).any(|edited| edited == key);
    let number = |key: &str| metadata.get(key).and_then(Value::as_u64).filter(|_| set(key));
    let shown = "; programs compute the same, and show the wrong name";
    let mut notes = Vec::new();
    if let Some(n) = number(FILE) {
        let kinds: Vec<&Encoding> =
            tensors.iter().filter(|t| t.shape.len() > 1).map(|t| &t.encoding).collect();
        // The bit says that the number was guessed.
        match named(n & !1024) {
            None => notes.push(format!(
                "{FILE} {n} is none of the numbers that ggufkit knows: programs show no name of it"
            )),
            Some((name, own)) if !kinds.is_empty() && !kinds.iter().any(|kind| own.contains(kind)) => {
                notes.push(format!("{FILE} {n} stands for {name}, which no matrix of the file has{shown}"));
            }
            Some(_) => {}
        }
    }
    if let Some(n) = number(VERSION).filter(|&n| n != 2 && tensors.iter().any(|t| !t.encoding.is_plain())) {
        notes.push(format!("{VERSION} must be 2, the version of the blocks that are written (found {n}); programs do not look at it"));
    }
    notes
}

/// The name of a number of llama.cpp's list of file types, and the types that most matrices of such a file have.
fn named(number: u64) -> Option<(&'static str, Vec<Encoding>)> {
    const NVFP4: u64 = 39;
    if number == NVFP4 {
        return Some((DType::NVFP4.name(), vec![Encoding::Blocks(DType::NVFP4)]));
    }
    let mut schemes = scheme::all().iter().filter(|s| s.file_type.map(u64::from) == Some(number));
    let first = schemes.next()?;
    let of = |s: &scheme::Scheme| match s.name == scheme::I2_S {
        true => Encoding::I2S,
        false => Encoding::Blocks(s.base),
    };
    Some((&first.name, std::iter::once(of(first)).chain(schemes.map(|s| of(s))).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scheme::facts::tests::model;
    use formats::metadata::{Array, Kind};

    /// Some values that are right, beside tensors of two heads of 4 with one shared key/value head.
    const RIGHT: [(&str, Value); 7] = [
        ("block_count", Value::U32(1)),
        ("context_length", Value::U32(64)),
        ("embedding_length", Value::U32(8)),
        ("attention.head_count", Value::U32(2)),
        ("attention.head_count_kv", Value::U32(1)),
        ("attention.key_length", Value::U32(4)),
        ("rope.dimension_count", Value::U32(4)),
    ];

    fn metadata(arch: &str) -> Metadata {
        let mut metadata = Metadata::new();
        metadata.set("general.architecture", Value::text(arch));
        RIGHT.iter().for_each(|(end, value)| metadata.set(&format!("{arch}.{end}"), value.clone()));
        metadata
    }

    fn tensors(experts: Option<u64>) -> Vec<Tensor> {
        let mut all: Vec<(&str, Vec<u64>)> = vec![
            ("token_embd.weight", vec![4, 8]),
            ("blk.0.attn_q.weight", vec![8, 8]),
            ("blk.0.attn_k.weight", vec![4, 8]),
            ("blk.0.attn_v.weight", vec![4, 8]),
        ];
        if let Some(n) = experts {
            all.push(("blk.0.ffn_gate_inp.weight", vec![n, 8]));
            all.push(("blk.0.ffn_up_exps.weight", vec![n, 16, 8]));
        }
        let all: Vec<(&str, &[u64])> = all.iter().map(|(name, shape)| (*name, &shape[..])).collect();
        model(&all, &[]).tensors
    }

    /// What is wrong once these keys have these values; a value of `None` removes the key.
    fn wrong(arch: &str, experts: Option<u64>, changes: &[(&str, Option<Value>)]) -> Vec<String> {
        let mut metadata = metadata(arch);
        for (end, value) in changes {
            let of_other = end
                .split_once('.')
                .is_some_and(|(first, _)| ["general", "adapter", "tokenizer"].contains(&first));
            let key = if of_other { end.to_string() } else { format!("{arch}.{end}") };
            match value {
                Some(value) => metadata.set(&key, value.clone()),
                None => drop(metadata.remove(&key)),
            }
        }
        let is_note = |p: &Problem| if p.harmless.is_some() { "note: " } else { "" };
        problems(&metadata, &tensors(experts), true)
            .iter()
            .map(|p| format!("{}{}", is_note(p), p.alone))
            .collect()
    }

    #[test]
    fn values_are_compared_with_tensors_and_other_keys() {
        let count = |n| Some(Value::U32(n));
        let text = |text: &str| Some(Value::text(text));
        let list = |n: [u32; 1]| Some(Value::Array(Array::new(Kind::U32, n.map(Value::U32)).unwrap()));
        for arch in ["llama", "qwen2", "mamba"] {
            assert_eq!(wrong(arch, None, &[]), Vec::<String>::new(), "{arch}");
        }
        let experts = [("expert_count", count(4)), ("expert_used_count", count(2))];
        assert_eq!(wrong("qwen3moe", Some(4), &experts), Vec::<String>::new());
        for (arch, changes, says) in [
            (
                "mamba",
                vec![("embedding_length", count(9))],
                "must be 8, the columns of the token embedding (found 9)",
            ),
            ("mamba", vec![("vocab_size", count(5))], "must be 4, the rows of the token embedding (found 5)"),
            ("mamba", vec![("context_length", count(0))], "must be an integer of at least 1 (found 0)"),
            (
                "gpt-oss",
                vec![("attention.head_count_kv", count(0))],
                "must be at least 1, as there are tensors of attention",
            ),
            (
                "gpt-oss",
                vec![("attention.head_count_kv", count(3))],
                "must divide the number of attention heads, 2",
            ),
            (
                "gpt-oss",
                vec![("attention.head_count", count(3)), ("attention.key_length", None)],
                "must divide the embedding length, 8, where no key says how long heads are (found 3)",
            ),
            (
                "qwen2",
                vec![("attention.key_length", count(8)), ("rope.dimension_count", None)],
                "blk.0.attn_q.weight has 8 rows",
            ),
            (
                "qwen2",
                vec![("attention.head_count", list([4]))],
                "blk.0.attn_q.weight has 8 rows, which are not 4 heads",
            ),
            (
                "qwen2",
                vec![("attention.head_count_kv", list([2]))],
                "blk.0.attn_k.weight has 4 rows, which are not 2 heads",
            ),
            ("qwen2", vec![("attention.head_count", list([0]))], "must be at least 1"),
            (
                "qwen2",
                vec![("attention.value_length", count(2))],
                "blk.0.attn_v.weight has 4 rows, which are not 1 heads of 2",
            ),
            ("qwen2", vec![("rope.dimension_count", count(3))], "must be an even number from 2 to 4"),
            ("qwen2", vec![("rope.dimension_count", count(6))], "must be an even number from 2 to 4"),
            ("llama", vec![("rope.dimension_count", count(2))], "must be 4, the length of a head (found 2)"),
            (
                "llama",
                vec![("expert_count", count(8))],
                "must be 0, as there are no tensors of experts (found 8)",
            ),
            (
                "llama",
                vec![("expert_used_count", count(1))],
                "must be from 0 to 0, the number of experts (found 1)",
            ),
            ("mamba", vec![("general.type", text("imatrix"))], "the tensors are no importance matrix"),
            ("mamba", vec![("general.type", text("mmproj"))], "the tensors are no projector"),
            ("mamba", vec![("general.type", text("adapter"))], "the tensors are no LoRA adapter"),
            ("mamba", vec![("adapter.type", text("lora"))], "adapter.type: the tensors are no LoRA adapter"),
            ("mamba", vec![("general.type", text("modle"))], "note: general.type: is none of model"),
            (
                "mamba",
                vec![("rope.scaling.type", text("ntk"))],
                "must be one of none, linear, yarn, longrope (found \"ntk\")",
            ),
        ] {
            let found = wrong(arch, None, &changes);
            assert!(matches!(&found[..], [one] if one.contains(says)), "{arch} {changes:?}: {found:?}");
        }
        for (changes, says) in [
            (
                vec![("expert_count", count(5)), ("expert_used_count", count(2))],
                "must be 4, the experts in blk.0.ffn_up_exps.weight",
            ),
            (vec![("expert_count", count(4))], "expert_used_count: must be from 1 to 4"),
            (vec![("expert_count", count(4)), ("expert_used_count", count(5))], "(found 5)"),
            (vec![("expert_used_count", count(2))], "must be 4, the experts"),
        ] {
            let found = wrong("qwen3moe", Some(4), &changes);
            assert!(matches!(&found[..], [one] if one.contains(says)), "{changes:?}: {found:?}");
        }
        // One length of a rotation is right that is not whole, for others than llama.
        assert!(wrong("qwen2", None, &[("rope.dimension_count", count(2))]).is_empty());
    }

    #[test]
    fn texts_of_a_tokenizer_are_of_its_kind() {
        let text = |text: &str| Some(Value::text(text));
        for (kind, pre, noted) in [
            ("llama", "qwen2", true),
            ("llama", "default", false),
            ("t5", "x", true),
            ("gpt2", "qwen2", false),
        ] {
            let found = wrong(
                "mamba",
                None,
                &[("tokenizer.ggml.model", text(kind)), ("tokenizer.ggml.pre", text(pre))],
            );
            assert_eq!(found.len(), usize::from(noted), "{found:?}");
            assert!(found.iter().all(|note| note.starts_with("note: ")), "{found:?}");
        }
    }

    #[cfg(feature = "chat")]
    #[test]
    fn chat_templates_are_parsed() {
        let found = |key: &str, text: &str| wrong("mamba", None, &[(key, Some(Value::text(text)))]);
        const KEY: &str = "tokenizer.chat_template";
        for right in [
            "",
            "plain",
            "{{ messages[0]['content'] }}",
            "{% generation %}x{% endgeneration %}",
            "{% set x = namespace(a=1) %}",
        ] {
            assert_eq!(found(KEY, right), Vec::<String>::new(), "{right}");
        }
        for bad in ["{{ x", "{% if a %}b", "{% endfor %}", "a\n{{ 1 + }}", "{% for x in %}{% endfor %}"] {
            for key in [KEY, "tokenizer.chat_template.tool_use"] {
                let found = found(key, bad);
                assert!(
                    matches!(&found[..], [one] if one.contains("line") && !one.contains("note")),
                    "{bad}: {found:?}"
                );
            }
        }
        // Texts that others may read.
        let long = found(KEY, &"x".repeat(300_000));
        assert!(
            matches!(&long[..], [note] if note.starts_with("note: ") && note.contains("300000 bytes")),
            "{long:?}"
        );
    }

    #[test]
    fn names_of_types_are_those_of_the_tensors() {
        let mut quantized = tensors(None);
        for t in &mut quantized {
            t.encoding = Encoding::Blocks(DType::Q4_K);
        }
        let edit = |key: &str| [Edit::Set(key.into(), String::new())];
        for (key, n, says) in [
            ("general.file_type", 15, ""),
            ("general.file_type", 14 | 1024, ""),
            ("general.file_type", 7, "stands for q8_0, which no matrix of the file has"),
            ("general.file_type", 40, "stands for"),
            ("general.file_type", 39, "stands for nvfp4"),
            ("general.file_type", 999, "is none of the numbers"),
            ("general.quantization_version", 2, ""),
            ("general.quantization_version", 3, "must be 2"),
        ] {
            let mut metadata = Metadata::new();
            metadata.set(key, Value::U32(n));
            let notes = named_types(&edit(key), &metadata, &quantized);
            assert_eq!(notes.is_empty(), says.is_empty(), "{n} {notes:?}");
            assert!(notes.iter().all(|note| note.contains(says)), "{n} {notes:?}");
            // What the source says is not looked at.
            assert!(named_types(&edit("general.name"), &metadata, &quantized).is_empty());
        }
    }
}
