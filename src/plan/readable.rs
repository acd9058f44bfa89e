//! Whether programs can still read a model whose metadata was changed: the checks that its readers make, before the file is
//! written.

use std::collections::{HashMap, HashSet};

use formats::container::gguf;
use formats::metadata::{Array, Kind, Metadata, Value};
use formats::model::{Model, Tensor};

use super::Unreadable;
use super::edit::{Edit, one_of};
use super::gone::gone;
use super::values;
use crate::arch::keys::{self, Form};
use crate::arch::{Blk, Config, by_name};
use crate::error::{Error, Result};
use crate::tokenizer::Tokenizer;

/// Kinds of tokenizers that llama.cpp reads and [`Tokenizer`] does not.
const OTHER_TOKENIZERS: [&str; 8] =
    ["none", "no_vocab", "bert", "hybriddna", "whitespace", "rwkv", "plamo2", "test"];

/// Lists of one value per layer, for which llama.cpp asks for as many values as there are layers.
const PER_LAYER: [&str; 3] = ["feed_forward_length", "attention.head_count", "attention.head_count_kv"];

/// What only this program's readers refuse.
const OURS: &str = "ggufkit does not run or measure the model like this, other programs may";

/// Something for which a program does not read a model.
#[derive(Debug)]
pub(super) struct Problem {
    /// What it is, in a form that is the same before and after changes that have nothing to do with it.
    pub id: String,
    /// The key that it is about.
    pub key: String,
    /// What is wrong, as the rest of a sentence that begins with the key.
    pub why: String,
    /// The same, as a sentence of its own.
    pub alone: String,
    /// For what is no reason to refuse the change: what readers of the model make of it, for a note.
    pub harmless: Option<&'static str>,
    /// For what is one: what programs do then.
    pub harm: &'static str,
}

/// What programs do with most models that are not as they must be.
const HARM: &str = "programs refuse such a model, or read another one";

impl Problem {
    pub(super) fn new(id: impl Into<String>, key: impl Into<String>, why: impl Into<String>) -> Self {
        let (key, why) = (key.into(), why.into());
        Self { id: id.into(), alone: format!("{key}: {why}"), key, why, harmless: None, harm: HARM }
    }

    /// What a reader says about the keys that it names; `key` counts where it names none.
    fn of_reader(id: &str, metadata: &Metadata, error: String, key: &str) -> Self {
        let key = named(metadata, &error).unwrap_or(key).to_string();
        Self { id: id.into(), key, alone: error.clone(), why: error, harmless: Some(OURS), harm: HARM }
    }

    /// The problem as a sentence that begins with the change that makes it.
    fn blamed_on(&self, edits: &[Edit]) -> String {
        let of = |key: &str| edits.iter().rev().find(|edit| edit.keys().any(|k| k == key));
        match (of(&self.key), of("general.architecture"), edits) {
            (Some(edit), ..) => format!("{} {}: {}", edit.option(), self.key, self.why),
            (None, Some(edit), _) => format!("{} general.architecture: {}", edit.option(), self.alone),
            (None, None, [edit]) => {
                format!("{} {}: {}", edit.option(), edit.keys().next().unwrap_or_default(), self.alone)
            }
            _ => format!("with these changes: {}", self.alone),
        }
    }
}

/// Refuses changes after which programs would refuse the model, or would read another one. What was wrong before is left
/// alone. Gives notes on what only this program does not read: others know more architectures, settings and tokenizers.
///
/// # Errors
/// [`Error::Usage`] with the change and what the key is needed for.
pub(super) fn check(
    model: &Model,
    after: &Metadata,
    edits: &[Edit],
    unreadable: Unreadable,
) -> Result<Vec<String>> {
    let found_gone = removed(model, after, edits);
    // Reading a large vocabulary takes long.
    let vocabulary = edits.iter().flat_map(Edit::keys).any(|key| key.starts_with("tokenizer."));
    let mut found = problems(after, &model.tensors, vocabulary);
    if found.is_empty() && found_gone.is_empty() {
        return Ok(Vec::new());
    }
    // What is wrong without a key says more than that it is gone.
    let wrong: HashSet<String> = found.iter().map(|problem| problem.key.clone()).collect();
    found.extend(found_gone.into_iter().filter(|problem| !wrong.contains(&problem.key)));
    let before = problems(&model.metadata, &model.tensors, vocabulary);
    let before: HashSet<&str> = before.iter().map(|p| p.id.as_str()).collect();
    let mut notes = Vec::new();
    for problem in found.iter().filter(|p| !before.contains(p.id.as_str())) {
        let what = problem.blamed_on(edits);
        let Some(readers) = problem.harmless else {
            let harm = problem.harm;
            return Err(Error::usage(what).or(match unreadable {
                Unreadable::RefusedUnlessForced => format!("{harm}; --force writes it all the same"),
                _ => {
                    format!(
                        "{harm}: leave out this change, or make it in the finished file with `ggufkit edit`"
                    )
                }
            }));
        };
        notes.push(format!("{what}; {readers}"));
    }
    Ok(notes)
}

/// Keys that are gone, where programs take other values for them than the model had.
fn removed(model: &Model, after: &Metadata, edits: &[Edit]) -> Vec<Problem> {
    let mut keys: Vec<&str> =
        edits.iter().flat_map(Edit::keys).filter(|key| after.get(key).is_none()).collect();
    keys.sort_unstable();
    keys.dedup();
    let of = |key: &str| {
        let found = gone(after, key, model.metadata.get(key)?, &model.tensors)?;
        Some(Problem { harmless: found.note, ..Problem::new(format!("gone {key}"), key, found.why) })
    };
    keys.into_iter().filter_map(of).collect()
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
    found.extend(layers(metadata, arch, tensors));
    found.extend(per_layer(metadata, arch));
    let typed: HashSet<String> = found.iter().map(|problem| problem.key.clone()).collect();
    let values = values::problems(metadata, tensors, vocabulary);
    // Of one key, one thing is said: a type that is wrong is more than the value of it.
    found.extend(values.into_iter().filter(|problem| !typed.contains(&problem.key)));
    let missing = keys::needed(metadata).into_iter().filter(|n| metadata.get(&n.key).is_none());
    found.extend(missing.map(|n| {
        let (key, says) = (n.key, n.says);
        let why = format!("no program reads a model without it: it says {says}");
        let alone = format!("no program reads the model without {key}, which says {says}");
        Problem { id: format!("missing {}", n.part), alone, ..Problem::new("", key, why) }
    }));
    if !found.iter().any(|p| p.key.starts_with(&format!("{arch}."))) {
        found.extend(shapes(metadata, tensors));
    }
    if vocabulary && metadata.get("tokenizer.ggml.model").is_some() {
        found.extend(tokens(metadata, tensors));
    }
    found
}

/// Lists per layer that have more or fewer values than there are layers.
fn per_layer(metadata: &Metadata, arch: &str) -> Option<Problem> {
    let layers = metadata.get(&format!("{arch}.block_count"))?.as_u64()?;
    PER_LAYER.iter().find_map(|end| {
        let key = format!("{arch}.{end}");
        let found = metadata.get(&key)?.as_array()?.len();
        let why = format!("must have {layers} values, one for each layer (found {found})");
        (found as u64 != layers).then(|| Problem::new(format!("per layer {key}"), key, why))
    })
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
        Err(e) => return Some(Problem::of_reader("settings", metadata, e.to_string(), "")),
    };
    let by_name: HashMap<&str, &Tensor> = tensors.iter().map(|t| (t.name.as_str(), t)).collect();
    let wrong = arch.expected(&config).into_iter().find_map(|e| {
        let t = by_name.get(e.gguf.as_str()).filter(|t| t.shape != e.shape)?;
        let (name, has, wants) = (&t.name, &t.shape, &e.shape);
        Some(format!("tensor {name} has the shape {has:?}, and the settings ask for {wants:?}"))
    })?;
    Some(Problem { alone: wrong.clone(), ..Problem::new("shapes", "", wrong) })
}

/// A vocabulary whose lists do not go together or do not fit the token embedding, or that this program cannot read.
fn tokens(metadata: &Metadata, tensors: &[Tensor]) -> Vec<Problem> {
    let list = |name: &str| metadata.get(&format!("tokenizer.ggml.{name}")).and_then(Value::as_array);
    let mut found = Vec::new();
    if let Some(n) = list("tokens").map(|tokens| tokens.len() as u64) {
        found.extend(lengths(n, &list, tensors));
        found.extend(ids(metadata, n));
        found.extend(twice(list("tokens")));
        found.extend(kinds(list("token_type")));
    }
    let kind = metadata.text("tokenizer.ggml.model").unwrap_or_default();
    if found.is_empty()
        && !OTHER_TOKENIZERS.contains(&kind)
        && let Err(e) = Tokenizer::from_metadata(metadata)
    {
        found.push(Problem::of_reader("tokenizer", metadata, e.to_string(), "tokenizer.ggml.model"));
    }
    found
}

/// The first list that has not one value for each of the `n` tokens, or the tokens, if they are not those of the embedding.
fn lengths<'m>(n: u64, list: &impl Fn(&str) -> Option<&'m Array>, tensors: &[Tensor]) -> Option<Problem> {
    let must = |name: &str, wanted: u64, one_for: &str, found: u64| {
        let why = format!("must have {wanted} values, one for each {one_for} (found {found})");
        Problem::new(format!("length {name}"), format!("tokenizer.ggml.{name}"), why)
    };
    let rows = tensors.iter().find(|t| t.name == "token_embd.weight").map(Tensor::rows);
    if let Some(rows) = rows.filter(|rows| *rows != n) {
        return Some(must("tokens", rows, "row of the token embedding", n));
    }
    // Programs read as many values as there are tokens.
    let short = |name: &&str| list(name).is_some_and(|values| (values.len() as u64) < n);
    let name = ["scores", "token_type"].into_iter().find(short)?;
    Some(must(name, n, "token", list(name)?.len() as u64))
}

/// Two tokens of one text, at which llama.cpp stops: it finds tokens by their texts.
fn twice(tokens: Option<&Array>) -> Option<Problem> {
    let tokens = tokens.filter(|tokens| tokens.kind() == Kind::String)?;
    let mut first = HashMap::new();
    let (text, one, other) = tokens.strings().enumerate().find_map(|(id, text)| {
        // An empty one gets a text of its own.
        let one = first.insert(text, id).filter(|_| !text.is_empty())?;
        Some((String::from_utf8_lossy(text), one, id))
    })?;
    let why = format!("tokens {one} and {other} have the same text, {text:?}");
    Some(Problem::new("same text", "tokenizer.ggml.tokens", why))
}

/// Kinds of tokens that there are not: 1 to 6 are normal, unknown, control, user-defined, unused and byte.
fn kinds(kinds: Option<&Array>) -> Option<Problem> {
    let (id, kind) = kinds?.values().enumerate().find(|(_, kind)| !matches!(kind.as_i128(), Some(1..=6)))?;
    let why = format!("the type of token {id} must be from 1 to 6 (found {})", kind.describe());
    let key = "tokenizer.ggml.token_type";
    Some(Problem {
        harmless: Some("programs give such tokens no type"),
        ..Problem::new("token types", key, why)
    })
}

/// Tokens with a role that are none of the `n` tokens. llama.cpp leaves them out with a warning, which does no harm but for
/// the beginning and the end of a text: it takes others for them, and does not find the end.
fn ids(metadata: &Metadata, n: u64) -> Vec<Problem> {
    let roles = metadata.iter().filter_map(|(key, value)| {
        let role = key.strip_prefix("tokenizer.ggml.")?.strip_suffix("_token_id")?;
        Some((key, value, matches!(role, "bos" | "eos")))
    });
    let beyond = roles.filter(|(_, value, _)| value.as_u64().is_none_or(|id| id >= n));
    let problems = beyond.map(|(key, value, needed)| {
        let why = format!("there are {n} tokens (found {})", value.describe());
        Problem {
            harmless: (!needed).then_some("programs read the model without such a token"),
            ..Problem::new(format!("id {key}"), key, why)
        }
    });
    problems.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::RunFiles;
    use crate::scheme::facts::tests::model;

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

    fn changed(model: &Model, edits: &[Edit]) -> Result<Vec<String>> {
        let mut after = model.metadata.clone();
        for edit in edits {
            edit.apply(&mut after, &RunFiles::default())?;
        }
        check(model, &after, edits, Unreadable::Refused)
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
                "--set llama.embedding_length: must be 8, the columns of the token embedding (found 16)",
            ),
            (
                vec![set("general.name=x"), set("llama.feed_forward_length=8")],
                "with these changes: tensor blk.0.ffn_up.weight",
            ),
            (vec![set("llama.vocab_size=5")], "must be 4, the rows of the token embedding"),
            (vec![set("tokenizer.ggml.tokens=[\"a\"]")], "tokenizer.ggml.tokens: must have 4 values"),
            (
                vec![set("tokenizer.ggml.tokens=[\"a\", \"b\", \"c\", \"a\"]")],
                "--set tokenizer.ggml.tokens: tokens 0 and 3 have the same text, \"a\"",
            ),
            (vec![set("tokenizer.ggml.scores=[0]")], "tokenizer.ggml.scores: must have 4 values"),
            (vec![set("tokenizer.ggml.token_type=[1]")], "tokenizer.ggml.token_type: must have 4 values"),
            (
                vec![set("llama.attention.layer_norm_rms_epsilon=0")],
                "--set llama.attention.layer_norm_rms_epsilon: must be a finite number above 0 (found 0)",
            ),
            (
                vec![set("llama.expert_count=8")],
                "--set llama.expert_count: must be 0, as there are no tensors of experts",
            ),
            (vec![set("general.type=adapter")], "--set general.type: the tensors are no LoRA adapter"),
            (
                vec![set("tokenizer.chat_template={{ x")],
                "--set tokenizer.chat_template: the chat template, line 1",
            ),
            (vec![set("llama.feed_forward_length=[16]")], "must have 2 values, one for each layer (found 1)"),
            (vec![set("tokenizer.ggml.token_type=[str]:[\"a\"]")], "must be [i32] or [u32]"),
            (
                vec![set("tokenizer.ggml.eos_token_id=4")],
                "--set tokenizer.ggml.eos_token_id: there are 4 tokens",
            ),
            (
                vec![set("tokenizer.ggml.model=gpt2")],
                "--set tokenizer.ggml.model: no program reads the model without tokenizer.ggml.merges",
            ),
        ] {
            let why = changed(&model, &edits).unwrap_err();
            assert!(why.to_string().contains(says), "{edits:?}: {why}");
            assert_eq!(why.exit_code(), 2);
        }
        for (edits, says) in [
            ("llama.attention.head_count=0", "--set llama.attention.head_count: "),
            ("llama.attention.head_count_kv=[1, 2]", "--set llama.attention.head_count_kv: "),
            ("llama.feed_forward_length=[i32]:[16, 8]", "--set llama.feed_forward_length: "),
            ("llama.rope.scaling.type=longrope", "\"longrope\" is not supported"),
            ("tokenizer.ggml.model=x", "\"x\" is not supported"),
            ("tokenizer.ggml.padding_token_id=4294967295", "there are 4 tokens (found u32 4294967295)"),
            ("tokenizer.ggml.eot_token_id=4", "there are 4 tokens"),
            (
                "tokenizer.ggml.token_type=[1, 2, 3, 7]",
                "the type of token 3 must be from 1 to 6 (found i32 7)",
            ),
        ] {
            let notes = changed(&model, &[set(edits)]).unwrap_or_else(|e| panic!("{edits}: {e}"));
            let [note] = &notes[..] else { panic!("{edits}: {notes:?}") };
            assert!(
                note.contains(says)
                    && (note.ends_with(OURS) || edits.contains("_token_id") || edits.contains("_type")),
                "{edits}: {note}"
            );
            assert!(note.starts_with("--set ") && !note.contains("no program"), "{note}");
        }
        for edits in [
            vec![set("general.name=x"), remove("llama.vocab_size"), remove("tokenizer.ggml.scores")],
            vec![remove("llama.block_count"), set("llama.block_count=2")],
            vec![set("general.alignment=64"), set("llama.context_length=32"), set("own.key=u8:7")],
            vec![set("llama.feed_forward_length=[i32]:[16, 16]")],
            vec![set("llama.rope.scaling.type=linear"), set("llama.rope.scaling.factor=4")],
            vec![set("tokenizer.ggml.eos_token_id=3"), set("tokenizer.ggml.pre=")],
            vec![set("tokenizer.ggml.model=no_vocab"), remove("tokenizer.ggml.tokens")],
            vec![rename("general.architecture", "general.old"), set("general.architecture=llama")],
        ] {
            let notes = changed(&model, &edits).unwrap_or_else(|e| panic!("{edits:?}: {e}"));
            assert!(notes.is_empty(), "{edits:?}: {notes:?}");
        }
    }

    #[test]
    fn names_of_pre_tokenizers_that_are_not_known_here_are_left_to_other_programs() {
        let mut model = two_layers();
        for (key, value) in [
            ("tokenizer.ggml.model", Value::text("gpt2")),
            ("tokenizer.ggml.pre", Value::text("llama-bpe")),
            ("tokenizer.ggml.merges", Value::Array(Array::of_strings(["< u"]))),
        ] {
            model.metadata.set(key, value);
        }
        for name in ["superbpe-of-tomorrow", "x"] {
            let notes = changed(&model, &[Edit::Set("tokenizer.ggml.pre".into(), name.into())]).unwrap();
            assert!(notes.len() == 1 && notes[0].contains(name), "{notes:?}");
        }
    }

    #[test]
    fn many_faults_take_no_longer_than_as_many_keys() {
        let mut model = two_layers();
        for i in 0..100_000 {
            model.metadata.set(&format!("tokenizer.ggml.x{i}_token_id"), Value::text("x"));
        }
        let edits = [Edit::Set("general.name".into(), "x".into())];
        assert_eq!(
            check(&model, &model.metadata, &edits, Unreadable::Refused).unwrap(),
            Vec::<String>::new()
        );
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
