//! Comparison of quantized models with their original: KL divergence on a text, errors of tensors, size and speed.

use std::path::Path;

use formats::block::DType;
use formats::container::parse_part_stem;
use formats::model::Encoding;

use super::comparison::{self, Candidate, Comparison, MatrixCost, SensitivitySummary, Setting, TensorError};
use crate::arch::Blk;
use crate::disk;
use crate::error::{Error, Result};
use crate::evaluate::{self, Cut, CutNames, Evaluation, Reference};
use crate::runner::bench::{Plan, measure};
use crate::runner::{KvType, Network, Options};
use crate::score::Scores;
use crate::score::bootstrap::Bootstrap;
use crate::score::histogram::kld_histogram;
use crate::sensitivity::{Matrix, Sensitivity};
use crate::source::Source;
use crate::tokenizer::{Text, tokenizer_of};
use crate::verify::verify;

/// The settings of a comparison.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The text's name.
    pub text: String,
    /// How the text is cut into chunks.
    pub cut: Cut,
    /// Whether activations are kept as floats instead of 8-bit codes.
    pub exact: bool,
    /// The type of the KV cache.
    pub kv: KvType,
    /// Tokens per batch.
    pub batch: usize,
    /// Whether the reference is also compared with itself, run with the other setting of `exact`.
    pub floor: bool,
    /// Tokens to generate in order to measure the speed; 0 to skip that.
    pub generate: usize,
    /// The reference's sensitivity, for predicted divergences.
    pub sensitivity: Option<Sensitivity>,
}

impl Settings {
    /// How `quantize --check` and the demo compare: activations and the KV cache as llama.cpp has them, with the noise floor
    /// and without measuring the speed of generating.
    pub fn new(text: impl Into<String>, cut: Cut) -> Self {
        Self {
            text: text.into(),
            cut,
            exact: false,
            kv: KvType::F16,
            batch: 512,
            floor: true,
            generate: 0,
            sensitivity: None,
        }
    }
}

/// Compares open models with a reference. `on_chunk` is given the number of finished chunks and of all.
///
/// # Errors
/// [`Error::OtherVocabulary`] for models with different vocabularies; those of [`Network::new`], [`tokenizer_of`],
/// [`evaluate::cut`], [`Evaluation::run`] and [`verify`].
pub fn compare(
    reference: (&str, &Source),
    candidates: &[(String, Source)],
    text: &str,
    settings: &Settings,
    on_chunk: &mut dyn FnMut(usize, usize),
) -> Result<Comparison> {
    let options = Options { exact: settings.exact, isa: None };
    let (name, source) = reference;
    let truth = Network::new(source, options)?;
    let other = Options { exact: !settings.exact, isa: None };
    let floor = if settings.floor { Some(Network::new(source, other)?) } else { None };
    let networks: Vec<Network> =
        candidates.iter().map(|(_, s)| Network::new(s, options)).collect::<Result<_>>()?;
    for ((_, candidate), network) in candidates.iter().zip(&networks) {
        evaluate::same_vocabulary((source, &truth), (candidate, network))?;
    }
    let tokenizer = tokenizer_of(source)?;
    let text = Text::new(text, &tokenizer)?;
    let chunks = evaluate::cut(&text.tokens, text.first, settings.cut, CutNames::usual(&settings.text))?;

    let other_kv = if settings.exact { KvType::F16 } else { KvType::F32 };
    let mut models: Vec<_> = networks.iter().map(|n| (n, settings.kv)).collect();
    models.extend(floor.as_ref().map(|n| (n, other_kv)));
    let evaluation = Evaluation {
        models,
        reference: Reference::Model(&truth),
        kv: settings.kv,
        batch: settings.batch,
        record: None,
    };
    let mut found =
        evaluation.run(&chunks, &mut |s| on_chunk(s.last().map_or(0, |s| s.chunks().len()), chunks.len()))?;
    let (own, own_seconds) = found.reference.expect("the reference is a model");
    let own = own.summary().ok_or_else(|| Error::refused("no tokens were scored"))?;
    let floor = floor.and_then(|_| found.models.pop()).and_then(|s| s.summary());

    let tokens: usize = chunks.iter().map(|c| c.tokens.len()).sum();
    let speed = |network: &Network| -> Result<Option<f64>> {
        let (generate, kv) = (settings.generate, settings.kv);
        let plan = Plan { prompt: 0, generate, repeats: 1, batch: settings.batch, kv };
        let measured = if generate > 0 { Some(measure(network, plan, &|| ())?) } else { None };
        Ok(measured.and_then(|m| m.generate_tokens_per_second).map(|s| s.median))
    };
    let bootstrap = Bootstrap::default();
    let mut all = Vec::new();
    for (i, ((name, candidate), scores)) in candidates.iter().zip(&found.models).enumerate() {
        all.push(Candidate {
            name: name.clone(),
            path: candidate.path.clone(),
            bytes: candidate.bytes(),
            bits_per_weight: bits_per_weight(candidate),
            summary: scores.summary().ok_or_else(|| Error::refused("no tokens were scored"))?,
            kld_interval: bootstrap.kld(scores),
            ratio_to_first: ratio(&bootstrap, i, scores, &found.models[0]),
            predicted_kld: settings.sensitivity.as_ref().and_then(|s| predicted(s, candidate, source)),
            tensors: tensor_errors(candidate, source)?,
            histogram: kld_histogram(scores),
            prompt_tps: Some(tokens as f64 / found.seconds[i]),
            generate_tps: speed(&networks[i])?,
        });
    }
    let setting = |name: &str, value: String| Setting { name: name.into(), value };
    Ok(Comparison {
        text: settings.text.clone(),
        context: settings.cut.context,
        chunks: chunks.len(),
        tokens: own.tokens,
        kv: settings.kv.name().into(),
        activations: if settings.exact { "exact" } else { "int8" }.into(),
        bootstrap,
        settings: vec![
            setting("instructions", truth.isa.name().into()),
            setting("threads", rayon::current_num_threads().to_string()),
        ],
        reference: comparison::Reference {
            name: name.into(),
            path: Some(source.path.clone()),
            bytes: Some(source.bytes()),
            bits_per_weight: Some(bits_per_weight(source)),
            perplexity: own.perplexity,
            prompt_tps: Some(tokens as f64 / own_seconds),
            generate_tps: speed(&truth)?,
        },
        floor,
        sensitivity: settings.sensitivity.as_ref().map(sensitive),
        candidates: all,
    })
}

/// The KL divergence that is predicted from a model's types, if the errors of all of them are known. The KV cache does not
/// count, since both models have the same.
fn predicted(s: &Sensitivity, candidate: &Source, reference: &Source) -> Option<f64> {
    let mut changed = Vec::new();
    for t in candidate.model.tensors.iter().filter(|t| t.shape.len() > 1) {
        let own = reference.model.tensors.iter().find(|r| r.name == t.name)?;
        // Converting any float type to f32 is exact.
        let widened = own.encoding.is_plain() && t.encoding == Encoding::Blocks(DType::F32);
        if own.encoding == t.encoding || widened {
            continue;
        }
        let Encoding::Blocks(dtype) = t.encoding else { return None };
        s.matrix(&t.name).filter(|m| m.shape == t.shape)?;
        changed.push((t.name.as_str(), dtype));
    }
    s.predict(changed)
}

/// The measured sensitivities, for the report.
fn sensitive(s: &Sensitivity) -> SensitivitySummary {
    let mut probes: Vec<&str> =
        s.matrices.iter().filter_map(|m| Some(m.probes.first()?.dtype.name())).collect();
    probes.sort_unstable();
    probes.dedup();
    let cost = |m: &Matrix| {
        let (layer, role) = layer_and_role(&m.name);
        MatrixCost { layer, role: role.into(), kld: m.probes.first().map_or(0.0, |p| p.kld) }
    };
    SensitivitySummary {
        origin: s.summary(),
        probe: probes.join(" or "),
        matrices: s.matrices.iter().map(cost).collect(),
    }
}

/// The layer of a tensor, and its name without the layer and without `.weight`.
fn layer_and_role(name: &str) -> (Option<u32>, &str) {
    let blk = Blk::parse(name);
    let role = blk.map_or(name, |blk| blk.part);
    (blk.and_then(|blk| blk.layer.try_into().ok()), role.strip_suffix(".weight").unwrap_or(role))
}

fn ratio(bootstrap: &Bootstrap, i: usize, scores: &Scores, first: &Scores) -> Option<crate::score::Ratio> {
    if i == 0 { None } else { bootstrap.kld_ratio(scores, first) }
}

/// Bits per weight of a model, over all tensors.
pub fn bits_per_weight(source: &Source) -> f64 {
    let tensors = &source.model.tensors;
    let stored = |(i, t): (usize, &formats::model::Tensor)| {
        // A view's stored tensor counts; tensors that are computed from settings are not in the file.
        let view = source.views.get(i).and_then(Option::as_ref);
        view.map_or(t.location.len, |v| v.stored.location.len)
    };
    let bytes: u64 = tensors.iter().enumerate().map(stored).sum();
    let weights: u64 = tensors.iter().map(|t| t.elements()).sum();
    8.0 * bytes as f64 / weights.max(1) as f64
}

/// The relative error of each matrix.
fn tensor_errors(candidate: &Source, reference: &Source) -> Result<Vec<TensorError>> {
    let findings = verify(candidate, Some(reference))?;
    let all = findings.into_iter().zip(&candidate.model.tensors).filter_map(|(f, t)| {
        if t.shape.len() < 2 {
            return None;
        }
        let outcome = f.comparison?.outcome?;
        let (layer, role) = layer_and_role(&t.name);
        Some(TensorError {
            name: t.name.clone(),
            layer,
            role: role.into(),
            dtype: f.encoding.name(),
            bytes: t.location.len,
            relative_error: outcome.relative(),
        })
    });
    Ok(all.collect())
}

/// A model's name in a comparison with the model `of`: without the part that the names have in common.
pub fn name_of(path: &Path, of: &Path) -> String {
    let (name, of) = (short_name(path), short_name(of));
    let rest = name.strip_prefix(&of).and_then(|r| r.strip_prefix(['-', '.', '_']));
    rest.filter(|r| !r.is_empty()).map_or(name.clone(), str::to_string)
}

/// A model's name in tables: the name of its file without `.gguf` or the number of a part, or of its folder where the file
/// has the name that all checkpoints' files have.
pub fn short_name(path: &Path) -> String {
    // `.` and `..` have no name of their own.
    let real = if path.file_name().is_none() { std::fs::canonicalize(path).ok() } else { None };
    let path = real.as_deref().unwrap_or(path);
    let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy();
    let whole = |stem: &str| parse_part_stem(stem).map_or(stem, |(stem, ..)| stem).to_string();
    let ends = |ending: &str| name.strip_suffix(ending).map(whole);
    if let Some(stem) = ends(".gguf") {
        return stem;
    }
    let shard = ends(".safetensors.index.json").or_else(|| {
        let stem = name.strip_suffix(".safetensors")?;
        parse_part_stem(stem).map(|(stem, ..)| stem.to_string())
    });
    match shard {
        Some(stem) if stem != "model" => stem,
        Some(_) => {
            let folder = std::fs::canonicalize(disk::folder(path)).ok();
            let folder =
                folder.as_deref().and_then(Path::file_name).map(|n| n.to_string_lossy().into_owned());
            folder.unwrap_or_else(|| name.into_owned())
        }
        None => name.into_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn models_are_named_by_what_is_theirs_alone() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("Tiny-1B");
        std::fs::create_dir(&folder).unwrap();
        for (path, name) in [
            ("a/m-Q4_0.gguf", "m-Q4_0"),
            ("a/m-00002-of-00003.gguf", "m"),
            ("a/tiny.safetensors", "tiny.safetensors"),
            ("a/tiny.safetensors.index.json", "tiny"),
            ("a/tiny-00001-of-00002.safetensors", "tiny"),
            ("a/Tiny", "Tiny"),
            ("a/tiny.bin", "tiny.bin"),
        ] {
            assert_eq!(short_name(Path::new(path)), name, "{path}");
        }
        for name in ["model.safetensors.index.json", "model-00001-of-00002.safetensors", "."] {
            assert_eq!(short_name(&folder.join(name)), "Tiny-1B", "{name}");
        }
        assert_eq!(name_of(Path::new("m-Q4_0.gguf"), &folder.join("../m.gguf")), "Q4_0");
    }
}
