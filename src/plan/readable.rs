//! Whether programs can still read a model whose metadata was changed: the checks that its readers make, before the file is
//! written.

use formats::container::gguf;
use formats::metadata::{Metadata, Value};
use formats::model::{Model, Tensor};

use super::edit::{Edit, one_of};
use crate::arch::keys::{self, Form};
use crate::arch::{Blk, Config, by_name};
use crate::error::{Error, Result};
use crate::tokenizer::Tokenizer;

/// Kinds of tokenizers that llama.cpp reads and [`Tokenizer`] does not.
const OTHER_TOKENIZERS: [&str; 8] =
    ["none", "no_vocab", "bert", "hybriddna", "whitespace", "rwkv", "plamo2", "test"];

/// Something for which a program does not read a model.
#[derive(Debug)]
struct Problem {
    /// What it is, in a form that is the same before and after changes that have nothing to do with it.
    id: String,
    /// The key that it is about.
    key: String,
    /// What is wrong, as the rest of a sentence that begins with the key.
    why: String,
    /// The same, as a sentence of its own.
    alone: String,
}

impl Problem {
    fn new(id: impl Into<String>, key: impl Into<String>, why: impl Into<String>) -> Self {
        let (key, why) = (key.into(), why.into());
        Self { id: id.into(), alone: format!("{key}: {why}"), key, why }
    }
}

/// Refuses changes after which no program would read the model, or would read another one. What was wrong before is left
/// alone.
///
/// # Errors
/// [`Error::Usage`] with the change and what the key is needed for.
pub(super) fn check(model: &Model, after: &Metadata, edits: &[Edit]) -> Result<()> {
    // Reading a large vocabulary takes long.
    let vocabulary = edits.iter().flat_map(Edit::keys).any(|key| key.starts_with("tokenizer."));
    let found = problems(after, &model.tensors, vocabulary);
    if found.is_empty() {
        return Ok(());
    }
    let before = problems(&model.metadata, &model.tensors, vocabulary);
    let mut new = found.into_iter().filter(|p| !before.iter().any(|b| b.id == p.id));
    let Some(first) = new.next() else { return Ok(()) };
    let of = |key: &str| edits.iter().rev().find(|edit| edit.keys().any(|k| k == key));
    let what = match (of(&first.key), of("general.architecture"), edits) {
        (Some(edit), ..) => format!("{} {}: {}", edit.option(), first.key, first.why),
        (None, Some(edit), _) => format!("{} general.architecture: {}", edit.option(), first.alone),
        (None, None, [edit]) => {
            format!("{} {}: {}", edit.option(), edit.keys().next().unwrap_or_default(), first.alone)
        }
        _ => format!("with these changes: {}", first.alone),
    };
    Err(Error::usage(what)
        .or("no program would read the model as it is; `ggufkit edit` with --force writes it all the same"))
}

fn problems(metadata: &Metadata, tensors: &[Tensor], vocabulary: bool) -> Vec<Problem> {
    let arch = metadata.text("general.architecture").unwrap_or_default();
    let mut found = Vec::new();
    for (key, value) in metadata.iter() {
        if let Some(taken) = keys::forms(key, arch)
            && !taken.contains(&Form::of(value))
        {
            let why = format!("must be {} (found {})", one_of(taken), value.describe());
            found.push(Problem::new(format!("type {key}"), key, why));
        }
    }
    if let Some(&Value::U32(n)) = metadata.get(gguf::ALIGNMENT_KEY)
        && !n.is_power_of_two()
    {
        let why = format!("must be a power of two (found {n})");
        found.push(Problem::new("alignment", gguf::ALIGNMENT_KEY, why));
    }
    let missing = keys::needed(metadata).into_iter().filter(|n| metadata.get(&n.key).is_none());
    found.extend(missing.map(|n| {
        let (key, says) = (n.key, n.says);
        let why = format!("no program reads a model without it: it says {says}");
        let alone = format!("no program reads the model without {key}, which says {says}");
        Problem { id: format!("missing {}", n.part), key, why, alone }
    }));
    found.extend(layers(metadata, arch, tensors));
    if !found.iter().any(|p| p.key.starts_with(&format!("{arch}."))) {
        found.extend(shapes(metadata, tensors));
    }
    if vocabulary && metadata.get("tokenizer.ggml.model").is_some() {
        found.extend(tokens(metadata, tensors));
    }
    found
}

/// The key that an error names: of two, of which one is the beginning of the other, the longer one.
fn named<'m>(metadata: &'m Metadata, error: &str) -> Option<&'m str> {
    let keys = metadata.iter().map(|(key, _)| key);
    keys.filter(|key| error.contains(key)).max_by_key(|key| key.len())
}

/// Tensors of more or fewer layers than the metadata says.
fn layers(metadata: &Metadata, arch: &str, tensors: &[Tensor]) -> Option<Problem> {
    let key = format!("{arch}.block_count");
    let says = metadata.get(&key)?.as_u64()?;
    let there =
        tensors.iter().filter_map(|t| Blk::parse(&t.name)).map(|blk| blk.layer).max()?.saturating_add(1);
    let why = format!("must be {there}, as there are tensors of {there} layers (found {says})");
    (says != there).then(|| Problem::new("layers", key, why))
}

/// Settings that the architecture's reader refuses, or that ask for other shapes than the tensors have.
fn shapes(metadata: &Metadata, tensors: &[Tensor]) -> Option<Problem> {
    let arch = by_name(metadata.text("general.architecture")?)?;
    let find = |name: &str| tensors.iter().find(|t| t.name == name);
    let rows = find("token_embd.weight")?.rows();
    let config = match Config::from_gguf(metadata, rows, find("output.weight").is_none(), None) {
        Ok(config) => config,
        Err(e) => {
            let why = e.to_string();
            let named = named(metadata, &why).unwrap_or_default();
            return Some(Problem { id: "settings".into(), key: named.into(), alone: why.clone(), why });
        }
    };
    let vocab_size = format!("{}.vocab_size", config.name);
    if let Some(says) = metadata.get(&vocab_size).and_then(Value::as_u64).filter(|says| *says != rows) {
        let why = format!("must be {rows}, the rows of the token embedding (found {says})");
        return Some(Problem::new("vocab_size", vocab_size, why));
    }
    let by_name: std::collections::HashMap<&str, &Tensor> =
        tensors.iter().map(|t| (t.name.as_str(), t)).collect();
    let wrong = arch.expected(&config).into_iter().find_map(|e| {
        let t = by_name.get(e.gguf.as_str()).filter(|t| t.shape != e.shape)?;
        let (name, has, wants) = (&t.name, &t.shape, &e.shape);
        Some(format!("tensor {name} has the shape {has:?}, and the settings ask for {wants:?}"))
    })?;
    Some(Problem { id: "shapes".into(), key: String::new(), alone: wrong.clone(), why: wrong })
}

/// A vocabulary that cannot be read, or is not that of the token embedding.
fn tokens(metadata: &Metadata, tensors: &[Tensor]) -> Option<Problem> {
    let problem = |id: &str, why: String| {
        let named = named(metadata, &why);
        let key = named.unwrap_or("tokenizer.ggml.model").to_string();
        Some(Problem { id: id.into(), key, alone: why.clone(), why })
    };
    let kind = metadata.text("tokenizer.ggml.model").unwrap_or_default();
    if !OTHER_TOKENIZERS.contains(&kind)
        && let Err(e) = Tokenizer::from_metadata(metadata)
    {
        return problem("tokenizer", e.to_string());
    }
    let found = metadata.get("tokenizer.ggml.tokens").and_then(Value::as_array)?.len() as u64;
    let rows = tensors.iter().find(|t| t.name == "token_embd.weight").map(Tensor::rows);
    if let Some(rows) = rows.filter(|rows| *rows != found) {
        let why = format!(
            "tokenizer.ggml.tokens must have {rows} values, one for each row of the token embedding (found {found})"
        );
        return problem("tokens", why);
    }
    let ids =
        metadata.iter().filter(|(key, _)| key.starts_with("tokenizer.ggml.") && key.ends_with("_token_id"));
    let beyond = |value: &Value| value.as_u64().is_none_or(|id| id >= found);
    let (key, value) = ids.into_iter().find(|(_, value)| beyond(value))?;
    Some(Problem::new(
        format!("id {key}"),
        key,
        format!("there are {found} tokens (found {})", value.describe()),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::RunFiles;
    use crate::scheme::facts::tests::model;
    use formats::metadata::{Array, Kind};

    /// A model of two layers with a vocabulary of four tokens.
    fn two_layers() -> Model {
        let names: Vec<(String, Vec<u64>)> = (0..2)
            .flat_map(|l| {
                [("attn_norm", vec![8]), ("ffn_up", vec![16, 8])]
                    .map(|(n, s)| (format!("blk.{l}.{n}.weight"), s))
            })
            .chain([("token_embd.weight".to_string(), vec![4, 8])])
            .collect();
        let tensors: Vec<(&str, &[u64])> = names.iter().map(|(n, s)| (n.as_str(), &s[..])).collect();
        let mut model = model(&tensors, &[]);
        let m = &mut model.metadata;
        for (key, value) in [
            ("general.architecture", Value::text("llama")),
            ("llama.block_count", Value::U32(2)),
            ("llama.embedding_length", Value::U32(8)),
            ("llama.context_length", Value::U32(64)),
            ("llama.attention.head_count", Value::U32(2)),
            ("llama.feed_forward_length", Value::U32(16)),
            ("llama.attention.layer_norm_rms_epsilon", Value::F32(1e-5)),
            ("llama.vocab_size", Value::U32(4)),
            ("tokenizer.ggml.model", Value::text("llama")),
            ("tokenizer.ggml.tokens", Value::Array(Array::of_strings(["<unk>", "<s>", "</s>", "a"]))),
            ("tokenizer.ggml.scores", Value::Array(Array::new(Kind::F32, vec![Value::F32(0.0); 4]).unwrap())),
        ] {
            m.set(key, value);
        }
        model
    }

    fn changed(model: &Model, edits: &[Edit]) -> Result<()> {
        let mut after = model.metadata.clone();
        for edit in edits {
            edit.apply(&mut after, &RunFiles::default())?;
        }
        check(model, &after, edits)
    }

    #[test]
    fn a_model_stays_one() {
        let model = two_layers();
        let set = |text: &str| {
            let (key, value) = text.split_once('=').unwrap();
            Edit::Set(key.into(), value.into())
        };
        let remove = |key: &str| Edit::Remove(key.into());
        let rename = |key: &str, to: &str| Edit::Rename(key.into(), to.into());
        for (edits, says) in [
            (
                vec![remove("llama.block_count")],
                "--remove llama.block_count: no program reads a model without it: it says how many layers",
            ),
            (vec![remove("general.architecture")], "how the model is computed"),
            (vec![remove("tokenizer.ggml.tokens")], "--remove tokenizer.ggml.tokens: no program"),
            (vec![remove("tokenizer.ggml.model")], "which kind of tokenizer"),
            (
                vec![rename("llama.embedding_length", "llama.width")],
                "--rename llama.embedding_length: no program",
            ),
            (
                vec![set("general.architecture=x")],
                "--set general.architecture: no program reads the model without x.block_count",
            ),
            (
                vec![set("general.architecture=u32:7")],
                "--set general.architecture: must be str (found u32 7)",
            ),
            (vec![set("general.alignment=3")], "--set general.alignment: must be a power of two (found 3)"),
            (vec![set("general.alignment=u64:64")], "--set general.alignment: must be u32 (found u64 64)"),
            (vec![set("general.name=u32:7")], "--set general.name: must be str"),
            (
                vec![rename("llama.vocab_size", "llama.rope.freq_base")],
                "--rename llama.rope.freq_base: must be f32",
            ),
            (
                vec![set("llama.block_count=1")],
                "--set llama.block_count: must be 2, as there are tensors of 2 layers (found 1)",
            ),
            (vec![set("llama.block_count=3")], "must be 2"),
            (
                vec![set("llama.embedding_length=16")],
                "--set llama.embedding_length: tensor blk.0.attn_norm.weight has the shape [8]",
            ),
            (
                vec![set("general.name=x"), set("llama.feed_forward_length=8")],
                "with these changes: tensor blk.0.ffn_up.weight",
            ),
            (vec![set("llama.attention.head_count=0")], "--set llama.attention.head_count: "),
            (vec![set("llama.attention.layer_norm_rms_epsilon=0")], "must be a positive float"),
            (vec![set("llama.rope.scaling.type=str:ntk")], "\"ntk\" is not supported"),
            (vec![set("llama.vocab_size=5")], "must be 4, the rows of the token embedding"),
            (vec![set("tokenizer.ggml.tokens=[\"a\"]")], "tokenizer.ggml.tokens must have 4 values"),
            (vec![set("tokenizer.ggml.scores=[0]")], "tokenizer.ggml.scores must have 4 values"),
            (vec![set("tokenizer.ggml.token_type=[str]:[\"a\"]")], "must be [i32] or [u32]"),
            (
                vec![set("tokenizer.ggml.eos_token_id=4")],
                "--set tokenizer.ggml.eos_token_id: there are 4 tokens",
            ),
            (
                vec![set("tokenizer.ggml.model=gpt2")],
                "--set tokenizer.ggml.model: no program reads the model without tokenizer.ggml.merges",
            ),
            (vec![set("tokenizer.ggml.model=x")], "\"x\" is not supported"),
        ] {
            let why = changed(&model, &edits).unwrap_err();
            assert!(why.to_string().contains(says), "{edits:?}: {why}");
            assert_eq!(why.exit_code(), 2);
        }
        for edits in [
            vec![set("general.name=x"), remove("llama.vocab_size"), remove("tokenizer.ggml.scores")],
            vec![remove("llama.block_count"), set("llama.block_count=2")],
            vec![set("general.alignment=64"), set("llama.context_length=32"), set("own.key=u8:7")],
            vec![set("llama.rope.scaling.type=linear"), set("llama.rope.scaling.factor=4")],
            vec![set("tokenizer.ggml.eos_token_id=3"), set("tokenizer.ggml.pre=")],
            vec![set("tokenizer.ggml.model=no_vocab"), remove("tokenizer.ggml.tokens")],
            vec![rename("general.architecture", "general.old"), set("general.architecture=llama")],
        ] {
            changed(&model, &edits).unwrap_or_else(|e| panic!("{edits:?}: {e}"));
        }
    }

    #[test]
    fn what_was_wrong_before_is_left_alone_and_can_be_mended() {
        let mut model = two_layers();
        for (key, value) in [("llama.block_count", Value::U64(1)), ("general.version", Value::U32(2))] {
            model.metadata.set(key, value);
        }
        let set = |key: &str, value: &str| Edit::Set(key.into(), value.into());
        changed(&model, &[set("general.name", "x")]).unwrap();
        changed(&model, &[set("llama.block_count", "2")]).unwrap();
        assert!(
            changed(&model, &[set("llama.block_count", "2"), set("llama.embedding_length", "9")]).is_err()
        );
        // Tensors of which nothing is said.
        model.metadata = Metadata::new();
        changed(&model, &[set("general.architecture", "llama")]).unwrap();
        changed(&model, &[set("general.name", "x")]).unwrap();
    }
}
