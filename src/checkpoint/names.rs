//! Which stored tensor is which tensor of the architecture, where names differ from transformers' own.
//!
//! A checkpoint of the base model (`AutoModel`, embedding models) has `layers.0...` for `model.layers.0...`. Programs that
//! wrap a model put a prefix in front of every name: `_orig_mod.` (`torch.compile`), `module.` (DataParallel),
//! `base_model.model.` (PEFT), `language_model.` (models with vision). Some wrap single modules, and put the name of the
//! wrapper between two others. So the names of the tensors decide where the model begins: at the prefix with which most
//! of them are the architecture's.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

use formats::metadata::Metadata;
use formats::model::Tensor;

use crate::arch::{Expected, is_idle};

/// The beginning of the names of all tensors but the output matrix, in transformers' causal language models.
const BASE: &str = "model.";

/// Parts of names that stand for a wrapper around a module: of `torch.compile`, FSDP, activation checkpointing, DeepSpeed
/// and PEFT's adapters.
const WRAPPERS: [&str; 6] = [
    "_orig_mod",
    "_fsdp_wrapped_module",
    "_fpw_module",
    "_checkpoint_wrapped_module",
    "_forward_module",
    "base_layer",
];

/// The part of a name behind which PEFT puts the name of an adapter, for a module that was trained as a whole.
const TRAINED: &str = "modules_to_save";
/// The part for that module as it was before.
const BEFORE: &str = "original_module";

/// Parts of names that only training or guessing ahead needs, outside of layers: heads that value or judge a text, weights
/// of the loss, and heads for tokens after the next one.
const BESIDE: [&str; 10] = [
    "v_head",
    "value_head",
    "critic_head",
    "reward_head",
    "score",
    "classifier",
    "criterion",
    "loss_fct",
    "medusa_head",
    "mtp",
];

/// The deepest prefix that is looked for, in parts.
const DEPTH: usize = 8;

/// Where the tensors of an architecture are among the stored ones.
#[derive(Debug, PartialEq)]
pub struct Names {
    /// For each stored tensor, the index of the expected one that it is.
    pub place: Vec<Option<usize>>,
    /// Pairs of an expected tensor that is not stored, and the stored one that the file's metadata names for it.
    pub aliases: Vec<(usize, usize)>,
    /// Stored tensors that are no part of the model and may be left out.
    pub idle: Vec<usize>,
    /// What is in front of the names that the base model's tensors have: `model.` where names are transformers' own.
    pub prefix: String,
    /// What was taken off the names, for the user.
    pub notes: Vec<String>,
}

impl Names {
    /// Finds the tensors. `metadata` is that of the files, in which the `safetensors` library names the tensor that is
    /// stored for one that shares its memory (`save_model`).
    pub fn new(stored: &[Tensor], metadata: &Metadata, expected: &[Expected]) -> Self {
        let mut inner = HashMap::new();
        let mut outer = HashMap::new();
        for (i, e) in expected.iter().enumerate() {
            match e.hub.strip_prefix(BASE) {
                Some(rest) => inner.insert(rest, i),
                None => outer.insert(e.hub.as_str(), i),
            };
        }
        let trained: HashSet<String> = stored.iter().filter_map(|t| trained(&t.name)).collect();
        let plain: Vec<Cow<str>> = stored.iter().map(|t| without_wrappers(&t.name)).collect();
        let before = |name: &str| {
            let own = name.split('.').any(|part| part == BEFORE);
            own && trained.contains(&without(name, |part| part == BEFORE))
        };
        let prefix = prefix(&plain, &inner);
        // Outside of the base model, a name has a part of its prefix, or none.
        let find = |name: &str| {
            let own = name.strip_prefix(prefix.as_str()).and_then(|rest| inner.get(rest));
            own.or_else(|| {
                let mut cuts = ends(name, DEPTH + 1).filter(|(before, _)| prefix.starts_with(before));
                cuts.find_map(|(_, rest)| outer.get(rest))
            })
            .copied()
        };
        let place: Vec<Option<usize>> = plain.iter().map(|name| find(name)).collect();
        let beside = |name: &str| {
            name.split('.').take_while(|part| *part != "layers").any(|part| BESIDE.contains(&part))
        };
        let is_idle = |name: &str| is_idle(name) || beside(name) || before(name);
        let idle = (0..stored.len()).filter(|&i| place[i].is_none() && is_idle(&plain[i])).collect();
        let mut names = Self { place, aliases: Vec::new(), idle, prefix: prefix.clone(), notes: Vec::new() };
        names.aliases = aliases(stored, metadata, &names.place, find);
        names.note(stored, &plain);
        names
    }

    /// Whether the names are those of the base model, which has no output matrix.
    pub fn is_base(&self) -> bool {
        let own = self.prefix.strip_prefix("base_model.model.").unwrap_or(&self.prefix);
        own != BASE && !own.ends_with(&format!(".{BASE}"))
    }

    /// The name that a stored tensor would have for the expected one of this name, for messages.
    pub fn stored_name(&self, hub: &str) -> String {
        hub.strip_prefix(BASE).map_or_else(|| hub.to_string(), |rest| format!("{}{rest}", self.prefix))
    }

    fn note(&mut self, stored: &[Tensor], plain: &[Cow<str>]) {
        let own = self.prefix.strip_suffix(BASE).filter(|rest| rest.is_empty() || rest.ends_with('.'));
        let taken = own.unwrap_or(&self.prefix);
        if !taken.is_empty() {
            let of = "the prefix of a program that wrapped the model";
            self.notes.push(format!("names begin with {taken:?}, {of}, which is left out"));
        }
        let wrapped = stored.iter().zip(plain).find(|(t, plain)| t.name != **plain);
        if let Some((t, _)) = wrapped {
            let own = WRAPPERS.into_iter().chain([TRAINED]);
            let parts: Vec<&str> = own.filter(|w| t.name.split('.').any(|p| p == *w)).collect();
            let parts = parts.join(" and ");
            self.notes.push(format!("{parts} in names is left out: a wrapper's, as in {}", t.name));
        }
        if let [first, rest @ ..] = &self.idle[..] {
            let more = if rest.is_empty() { String::new() } else { format!(" and {} more", rest.len()) };
            let first = &stored[*first].name;
            self.notes.push(format!("left out, as no program needs it to run the model: {first}{more}"));
        }
    }
}

/// A name without the parts of [`WRAPPERS`], and without what PEFT adds to the name of a module that was trained.
fn without_wrappers(name: &str) -> Cow<'_, str> {
    let own = |part: &str| WRAPPERS.contains(&part) || part == TRAINED;
    if !name.split('.').any(own) {
        return Cow::Borrowed(name);
    }
    let name = trained(name).unwrap_or_else(|| name.into());
    Cow::Owned(without(&name, |part| WRAPPERS.contains(&part)))
}

/// A name without the parts that are to be left out.
fn without(name: &str, out: impl Fn(&str) -> bool) -> String {
    let parts: Vec<&str> = name.split('.').filter(|part| !out(part)).collect();
    parts.join(".")
}

/// The name of a module's tensor that was trained as a whole beside an adapter: `lm_head.weight` for
/// `lm_head.modules_to_save.default.weight`.
fn trained(name: &str) -> Option<String> {
    let (module, rest) = name.split_once(&format!(".{TRAINED}."))?;
    let (_adapter, tensor) = rest.split_once('.')?;
    Some(format!("{module}.{tensor}"))
}

/// The ways to cut a name between its parts: what is before (empty, or ending in a dot) and the rest, shortest first.
fn ends(name: &str, most: usize) -> impl Iterator<Item = (&str, &str)> {
    let cuts = name.match_indices('.').map(|(at, _)| at + 1);
    std::iter::once(0).chain(cuts).take(most).map(|at| name.split_at(at))
}

/// The prefix with which most names are those of `inner`. Of several, transformers' own, then the shortest.
fn prefix(names: &[Cow<str>], inner: &HashMap<&str, usize>) -> String {
    let mut counts: HashMap<&str, usize> = HashMap::new();
    for name in names {
        for (before, rest) in ends(name, DEPTH + 1) {
            if inner.contains_key(rest) {
                *counts.entry(before).or_default() += 1;
            }
        }
    }
    let best = counts.into_iter().max_by_key(|(prefix, count)| {
        (*count, *prefix == BASE, std::cmp::Reverse((prefix.len(), prefix.to_string())))
    });
    best.map_or(BASE, |(prefix, _)| prefix).to_string()
}

/// The tensors that the metadata names in place of expected ones that are not stored.
fn aliases(
    stored: &[Tensor],
    metadata: &Metadata,
    place: &[Option<usize>],
    find: impl Fn(&str) -> Option<usize>,
) -> Vec<(usize, usize)> {
    let has: HashSet<usize> = place.iter().flatten().copied().collect();
    let by_name: HashMap<&str, usize> =
        stored.iter().enumerate().map(|(i, t)| (t.name.as_str(), i)).collect();
    let mut found = Vec::new();
    for (name, kept) in metadata.iter() {
        let Some(&kept) = kept.as_str().and_then(|kept| by_name.get(kept)) else { continue };
        if let Some(e) = find(&without_wrappers(name)).filter(|e| !has.contains(e)) {
            found.push((e, kept));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arch::Config;
    use formats::block::DType;
    use formats::metadata::Value;
    use formats::model::{Encoding, Location};
    use serde_json::json;

    fn expected() -> Vec<Expected> {
        let config = Config::from_hub(&json!({
            "architectures": ["Qwen3ForCausalLM"], "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 12,
            "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 4, "vocab_size": 8,
        }))
        .unwrap();
        config.arch.expected(&config)
    }

    fn tensor(name: impl Into<String>) -> Tensor {
        let (encoding, location) = (Encoding::Blocks(DType::F32), Location::default());
        Tensor { name: name.into(), shape: vec![1], encoding, location }
    }

    /// The names of a model whose base has this prefix and whose output matrix has this name.
    fn stored(prefix: &str, head: &str) -> Vec<Tensor> {
        let name = |e: &Expected| match e.hub.strip_prefix(BASE) {
            Some(rest) => format!("{prefix}{rest}"),
            None => head.to_string(),
        };
        expected().iter().map(|e| tensor(name(e))).filter(|t| !t.name.is_empty()).collect()
    }

    fn names(stored: &[Tensor]) -> Names {
        Names::new(stored, &Metadata::new(), &expected())
    }

    #[test]
    fn a_prefix_of_all_names_is_found() {
        for (prefix, head, base, notes) in [
            ("model.", "lm_head.weight", false, 0),
            ("", "lm_head.weight", true, 0),
            ("", "", true, 0),
            ("_orig_mod.model.", "_orig_mod.lm_head.weight", false, 1),
            ("module.model.", "module.lm_head.weight", false, 1),
            ("module._orig_mod.model.", "module._orig_mod.lm_head.weight", false, 2),
            ("module.", "", true, 1),
            ("base_model.model.model.", "base_model.model.lm_head.weight", false, 1),
            ("base_model.model.", "", true, 1),
            ("language_model.model.", "language_model.lm_head.weight", false, 1),
            ("model.language_model.", "lm_head.weight", true, 1),
            ("student.policy.net.model.", "student.policy.net.lm_head.weight", false, 1),
        ] {
            let all = stored(prefix, head);
            let found = names(&all);
            let wanted = if head.is_empty() { expected().len() - 1 } else { expected().len() };
            let places: HashSet<_> = found.place.iter().flatten().collect();
            assert_eq!((places.len(), all.len()), (wanted, wanted), "{prefix}: {found:?}");
            assert_eq!((found.is_base(), found.notes.len()), (base, notes), "{prefix}: {:?}", found.notes);
        }
    }

    #[test]
    fn wrappers_of_single_modules_are_left_out() {
        let mut all = stored("model.", "lm_head.weight");
        for t in &mut all {
            t.name = t
                .name
                .replace("layers.3.", "layers.3._checkpoint_wrapped_module.")
                .replace("mlp.", "mlp._orig_mod.");
        }
        let found = names(&all);
        assert!(found.place.iter().all(Option::is_some) && found.notes.len() == 1, "{:?}", found.notes);
    }

    #[test]
    fn modules_that_were_trained_beside_an_adapter_are_read() {
        let mut all =
            stored("base_model.model.model.", "base_model.model.lm_head.modules_to_save.mine.weight");
        for t in &mut all {
            t.name = t.name.replace("k_proj.", "k_proj.base_layer.");
        }
        all.push(tensor("base_model.model.lm_head.original_module.weight"));
        let found = names(&all);
        let (before, own) = found.place.split_last().unwrap();
        assert!(before.is_none() && own.iter().all(Option::is_some), "{found:?}");
        assert_eq!(found.idle, [all.len() - 1]);
        assert!(found.notes.iter().any(|note| note.contains("base_layer")), "{:?}", found.notes);
        // Without the trained one, nothing is known of what the other stands for.
        all.retain(|t| !t.name.contains("modules_to_save"));
        assert!(names(&all).idle.is_empty());
    }

    #[test]
    fn two_models_in_one_file_leave_one_over() {
        let mut all = stored("student.model.", "student.lm_head.weight");
        all.extend(stored("teacher.model.", "teacher.lm_head.weight"));
        let left = names(&all).place.iter().filter(|p| p.is_none()).count();
        assert_eq!(left, expected().len());
        // A tensor that is there twice, too.
        let mut all = stored("model.", "lm_head.weight");
        all.push(tensor("embed_tokens.weight"));
        assert_eq!(names(&all).place.iter().filter(|p| p.is_none()).count(), 1);
    }

    #[test]
    fn buffers_and_value_heads_are_idle() {
        let mut all = stored("model.", "lm_head.weight");
        let n = all.len();
        for name in [
            "model.layers.3.self_attn.rotary_emb.inv_freq",
            "rotary_emb.cos_cached",
            "model.embeddings.position_ids",
            "position_ids",
            "v_head.summary.weight",
            "model.layers.0.attention.masked_bias",
            "model.causal_mask",
            "value_head.weight",
            "pretrained_model.score.weight",
            "mtp.layers.0.norm.weight",
        ] {
            all.push(tensor(name));
        }
        let idle = n..all.len();
        for name in [
            "model.vision.weight",
            "model.layers.0.attention.bias_k",
            "xposition_ids",
            "model.norm.bias",
            "model.layers.0.score.weight",
        ] {
            all.push(tensor(name));
        }
        let found = names(&all);
        assert_eq!(found.idle, idle.collect::<Vec<_>>());
        assert!(found.notes[0].contains("inv_freq and 9 more"), "{:?}", found.notes);
    }

    #[test]
    fn names_in_the_metadata_stand_for_stored_tensors() {
        let mut all = stored("module.model.", "module.lm_head.weight");
        all.retain(|t| !t.name.contains("embed_tokens"));
        let mut metadata = Metadata::new();
        metadata.set("format", Value::text("pt"));
        metadata.set("module.model.embed_tokens.weight", Value::text("module.lm_head.weight"));
        metadata.set("module.model.norm.weight", Value::text("module.lm_head.weight")); // is stored
        metadata.set("other", Value::text("module.lm_head.weight"));
        let found = Names::new(&all, &metadata, &expected());
        let [(e, kept)] = found.aliases[..] else { panic!("{:?}", found.aliases) };
        assert_eq!(
            (expected()[e].hub.as_str(), all[kept].name.as_str()),
            ("model.embed_tokens.weight", "module.lm_head.weight")
        );
    }
}
