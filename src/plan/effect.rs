//! Options that would have no effect on the result. Whoever gives one expects something of it, so they are refused, or where
//! the run is right all the same, noted.

use formats::block::{DType, Effort, Objective};
use formats::container::{Layout, gguf};
use formats::metadata::{Metadata, Value};
use formats::model::{Encoding, Format, Model, Tensor};

use super::container::by_ending;
use super::edit::Edit;
use super::gone::gone;
use super::rounding::{Rounding, Search};
use super::{Container, Decision, PlanOptions, bias, is_folder};
use crate::error::{Error, Result};
use crate::scheme::role::{Role, role};
use crate::source::Source;
use crate::text::listed;

/// Refuses options that are for another format than the result's.
///
/// # Errors
/// [`Error::Usage`].
pub(super) fn refuse_other_formats(model: &Model, options: &PlanOptions, target: Container) -> Result<()> {
    let only = |wrong: bool, option: &str, container: &str| match wrong {
        true => Err(Error::usage(format!("{option} is only for {container}"))),
        false => Ok(()),
    };
    only(options.align.is_some() && target != Container::Gguf, "--align", "GGUF")?;
    only(options.bin_version.is_some() && target != Container::Llama2c, "--bin-version", "llama2.c files")?;
    only(
        options.split != gguf::Split::None && matches!(target, Container::Llama2c | Container::Expansion),
        "splitting",
        "GGUF and safetensors",
    )?;
    let grouped =
        target == Container::Llama2c && options.scheme.as_ref().is_none_or(|s| s.base == DType::Q8_0);
    only(options.group_size.is_some() && !grouped, "--group-size", "llama2.c files of --type q8_0")?;
    only(options.rounding.importance.is_some() && target != Container::Gguf, "--imatrix", "GGUF")?;
    only(options.pure && options.scheme.is_none(), "--pure", "a --type other than keep")?;
    if model.format != Format::Llama2cTokenizer {
        return Ok(());
    }
    // A machine's own type is not asked for.
    let typed = options.scheme.is_some() && options.machine.is_none();
    let given: Vec<&str> = [
        ("--type (or --recipe)", typed),
        ("--tensor", !options.tensors.is_empty()),
        ("--output-type", options.output.is_some()),
        ("--embedding-type", options.embedding.is_some()),
        ("--bin-version", options.bin_version.is_some()),
        ("--group-size", options.group_size.is_some()),
    ]
    .into_iter()
    .filter(|option| option.1)
    .map(|option| option.0)
    .collect();
    match given[..] {
        [] => Ok(()),
        _ => {
            let (given, is) = (listed(&given), if given.len() > 1 { "are" } else { "is" });
            let why = format!("{given} {is} for weights, and a tokenizer alone has none");
            Err(Error::usage(why).or(format!("leave out {given}")))
        }
    }
}

/// Refuses a size of int8 groups where none are made.
///
/// # Errors
/// [`Error::Usage`].
pub(super) fn refuse_group_size(options: &PlanOptions, version: u32, kept: Option<u32>) -> Result<()> {
    let Some(asked) = options.group_size else { return Ok(()) };
    let (why, instead) = match (version, kept) {
        (2, None) => return Ok(()),
        (2, Some(size)) if size == asked => return Ok(()),
        (2, Some(size)) => (
            format!(
                "--group-size {asked}: the groups of {size} weights in the source are copied as they are"
            ),
            "add --type q8_0 --allow-requantize",
        ),
        _ => (
            format!(
                "--group-size {asked}: there are no groups in llama2.c version {version}, which holds f32"
            ),
            "add --type q8_0",
        ),
    };
    Err(Error::usage(why).or(format!("leave out --group-size; or {instead}")))
}

/// Whether values of metadata that the user gave may be lost: GGUF and safetensors hold any key.
pub(super) fn may_lose_edits(options: &PlanOptions, target: Container) -> bool {
    matches!(target, Container::Llama2c | Container::Expansion) && !options.edits.is_empty()
}

/// Refuses values of metadata that are lost, because the format has no place for the key: those without which the files
/// would be the same, byte by byte, although they change a value. A key that was removed is not there either way, and a value
/// that the format's programs have built in needs no place. `place` gives the files of other metadata.
///
/// # Errors
/// [`Error::Usage`] with the first such key.
pub(super) fn refuse_lost_edits(
    source: &Source,
    options: &PlanOptions,
    target: Container,
    after: &Metadata,
    place: impl Fn(&Metadata) -> Result<Files>,
) -> Result<()> {
    if !may_lose_edits(options, target) {
        return Ok(());
    }
    let before = &source.model.metadata;
    let files = place(after)?;
    for edit in &options.edits {
        // What says what the source says.
        let same = edit.keys().all(|key| before.get(key) == after.get(key));
        if same || matches!(edit, Edit::Remove(_)) {
            continue;
        }
        let mut without = after.clone();
        edit.keys().for_each(|key| match before.get(key) {
            Some(value) => without.set(key, value.clone()),
            None => drop(without.remove(key)),
        });
        let lost = place(&without).is_ok_and(|found| found.is_same(&files));
        let is_meant = |key| is_built_in(key, after, &source.model.tensors, &files, &place);
        if lost && !edit.keys().all(is_meant) {
            let (option, key) = (edit.option(), edit.keys().last().unwrap_or_default());
            let why = format!("{option} {key}: there is no place for this key in {}", target.files());
            let alone = source.model.format == Format::Llama2cTokenizer;
            return Err(Error::usage(why).or(match options.container {
                // The format follows from the machine, or from the source.
                _ if options.machine.is_some() || alone => "leave it out",
                Some(_) => "leave it out; or leave out --format and use an output name that ends in .gguf",
                None => "leave it out; or use an output name that ends in .gguf",
            }));
        }
    }
    Ok(())
}

/// Whether programs that read the files have the value of `key` built in, or take it where no key says another: with another
/// value there would be no such files, or a note on what programs do otherwise, or programs would read another model without
/// the key. True of a key that is not there.
fn is_built_in(
    key: &str,
    after: &Metadata,
    tensors: &[Tensor],
    files: &Files,
    place: impl Fn(&Metadata) -> Result<Files>,
) -> bool {
    let Some(value) = after.get(key) else { return true };
    let Some(other) = another(value) else { return false };
    let (mut with, mut without) = (after.clone(), after.clone());
    with.set(key, other.clone());
    without.remove(key);
    place(&with).map_or(true, |found| found.notes.iter().any(|note| !files.notes.contains(note)))
        || gone(&without, key, value, tensors).is_none() && gone(&without, key, &other, tensors).is_some()
}

/// Another value of the same type; `None` for types that no format has built in.
fn another(value: &Value) -> Option<Value> {
    Some(match value {
        Value::Bool(switch) => Value::Bool(!switch),
        Value::U32(n) => Value::U32(n.wrapping_add(1)),
        Value::I32(n) => Value::I32(n.wrapping_add(1)),
        Value::U64(n) => Value::U64(n.wrapping_add(1)),
        Value::I64(n) => Value::I64(n.wrapping_add(1)),
        Value::F32(x) => Value::F32(2.0 * x + 1.0),
        Value::F64(x) => Value::F64(2.0 * x + 1.0),
        other => Value::text(&format!("another {}", other.as_str()?)),
    })
}

/// What the files of a result consist of, but for the weights: their lengths, with headers and tables, and small files.
pub(super) struct Files {
    files: Vec<formats::container::OutFile>,
    extra: Vec<Vec<u8>>,
    /// What is noted where they are laid out.
    notes: Vec<String>,
}

impl Files {
    pub(super) fn of(layout: Layout, extra: Vec<(std::path::PathBuf, Vec<u8>)>, notes: Vec<String>) -> Self {
        Self { files: layout.files, extra: extra.into_iter().map(|(_, bytes)| bytes).collect(), notes }
    }

    /// Whether these are the same bytes.
    fn is_same(&self, other: &Self) -> bool {
        (&self.files, &self.extra) == (&other.files, &other.extra)
    }
}

/// A note on a file that `--format` makes another than its name says.
pub(super) fn misnamed(options: &PlanOptions, target: Container) -> Option<String> {
    let out = &options.out;
    let says =
        by_ending(out).filter(|&says| options.container.is_some() && says != target && !is_folder(out))?;
    let (out, is, says) = (out.display(), target.files(), says.files());
    Some(format!(
        "{out}: gets {is} (--format), though its name is that of {says}: programs that go by names do not read it"
    ))
}

/// A note on options for how weights are rounded, where none of the types that tensors get is rounded otherwise for them.
/// That an importance matrix is not used is said where it is looked up.
pub(super) fn unused_rounding(
    options: &Rounding,
    search: &Search,
    decisions: &[Decision],
    tensors: &[Tensor],
) -> Vec<String> {
    let mut searched: Vec<(DType, bool)> = Vec::new();
    for (i, (decision, t)) in decisions.iter().zip(tensors).enumerate() {
        if let Encoding::Blocks(dtype) = t.encoding
            && decision.from != t.encoding
            && !t.encoding.is_plain()
        {
            let kind = (dtype, search.columns(i).is_some());
            searched.extend((!searched.contains(&kind)).then_some(kind));
        }
    }
    let mut notes = Vec::new();
    let mut note = |option: &str, matters: &dyn Fn(DType, bool) -> bool, why: &str| {
        let mut idle: Vec<&str> = Vec::new();
        for (dtype, _) in &searched {
            let name = dtype.name();
            let any = searched.iter().any(|&(other, weighted)| other == *dtype && matters(other, weighted));
            idle.extend((!any && !idle.contains(&name)).then_some(name));
        }
        match idle[..] {
            [] if searched.is_empty() => notes.push(format!(
                "{option} has no effect here: no tensor gets a type whose scales are searched"
            )),
            [] => {}
            _ => notes.push(format!("{option} has no effect on {}, {why}", listed(&idle))),
        }
    };
    // Error feedback has an effort of its own.
    if options.effort != Effort::default() && (options.method.is_none() || searched.is_empty()) {
        let matters = |dtype, weighted| options.effort.matters_to(dtype, weighted);
        note("--effort", &matters, "whose search gives the same with it as with the default");
    }
    if let Some(objective) = options.objective {
        let matters = |dtype: DType, _| objective == Objective::Error || dtype.has_prior();
        note("--objective", &matters, "whose search minimises the squared error alone");
    }
    let corrected = |(decision, t): (&Decision, &Tensor)| {
        decision.from != t.encoding && !t.encoding.is_plain() && bias::bias_name(&t.name).is_some()
    };
    if options.bias && !decisions.iter().zip(tensors).any(corrected) {
        notes.push("--bias-correction has no effect here: no matrix of a layer is quantized".into());
    }
    notes
}

/// Notes on options for the type of the output matrix and of the token embedding by which no tensor has its type: with tied
/// embeddings there is only one of these.
pub(super) fn unused_types(options: &PlanOptions, decisions: &[Decision], tensors: &[Tensor]) -> Vec<String> {
    let given =
        [("--output-type", options.output.is_some()), ("--embedding-type", options.embedding.is_some())];
    let by = |option: &str| decisions.iter().any(|decision| decision.rule.starts_with(option));
    let of =
        |wanted: Role| decisions.iter().zip(tensors).find(|(_, t)| role(&t.name) == wanted).map(|(d, _)| d);
    let shared = || {
        of(Role::Output).is_none()
            && of(Role::Embedding).is_some_and(|d| d.rule.starts_with("--embedding-type"))
    };
    let unused = given.into_iter().filter(|&(option, is_given)| is_given && !by(option));
    let why = |option| match option {
        "--output-type" if shared() => {
            "the output matrix is the token embedding, which has its type from --embedding-type"
        }
        _ => "no tensor has its type from it",
    };
    unused.map(|(option, _)| format!("{option} has no effect here: {}", why(option))).collect()
}

/// A note on an option that names another tokenizer, if the files of the source's own are copied, or none are written.
pub(super) fn unused_tokenizer(source: &Source, options: &PlanOptions, target: Container) -> Option<String> {
    let option = source.tokenizer_option?;
    let of_checkpoint = source.hub.is_some() || !source.filed.is_empty();
    // That an option is ignored may have been said where the vocabulary was read.
    let said = source.model.notes.iter().any(|note| note.starts_with(option));
    if target != Container::Safetensors || !of_checkpoint || said {
        return None;
    }
    let why = match is_folder(&options.out) {
        true => "the files of the source's own tokenizer are copied as they are",
        false => "no tokenizer is written with a single file of a checkpoint",
    };
    Some(format!("{option} has no effect here: {why}"))
}
