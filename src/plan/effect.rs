//! Options that would have no effect on the result. Whoever gives one expects something of it, so they are refused, or where
//! the run is right all the same, noted.

use formats::block::{DType, Effort};
use formats::container::{Layout, gguf};
use formats::metadata::Metadata;
use formats::model::{Encoding, Format, Model, Tensor};

use super::rounding::Rounding;
use super::{Container, Decision, PlanOptions};
use crate::error::{Error, Result};
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

/// Refuses changes of metadata that are lost, because the format has no place for the key: those without which the files
/// would be the same, byte by byte, although they change a value. `place` gives the files of other metadata.
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
    // The others hold any key.
    if !matches!(target, Container::Llama2c | Container::Expansion) || options.edits.is_empty() {
        return Ok(());
    }
    let before = &source.model.metadata;
    let files = place(after)?;
    for edit in &options.edits {
        if edit.keys().all(|key| before.get(key) == after.get(key)) {
            continue; // it says what the source says
        }
        let mut without = after.clone();
        edit.keys().for_each(|key| match before.get(key) {
            Some(value) => without.set(key, value.clone()),
            None => drop(without.remove(key)),
        });
        if place(&without).is_ok_and(|found| found == files) {
            let (option, key) = (edit.option(), edit.keys().next().unwrap_or_default());
            let why = format!("{option} {key}: {} has no place for this key", target.files());
            return Err(Error::usage(why).or("leave it out; or use an output name that ends in .gguf"));
        }
    }
    Ok(())
}

/// What the files of a result consist of, but for the weights: their lengths, with headers and tables, and small files.
#[derive(PartialEq)]
pub(super) struct Files {
    files: Vec<formats::container::OutFile>,
    extra: Vec<Vec<u8>>,
}

impl Files {
    pub(super) fn of(layout: Layout, extra: Vec<(std::path::PathBuf, Vec<u8>)>) -> Self {
        Self { files: layout.files, extra: extra.into_iter().map(|(_, bytes)| bytes).collect() }
    }
}

/// A note on options for the search of scales, if no tensor's scales are searched.
pub(super) fn unused_search(
    options: &Rounding,
    decisions: &[Decision],
    tensors: &[Tensor],
) -> Option<String> {
    let given =
        [("--effort", options.effort != Effort::default()), ("--objective", options.objective.is_some())];
    let given: Vec<&str> = given.into_iter().filter(|option| option.1).map(|option| option.0).collect();
    let searched = |(decision, t): (&Decision, &Tensor)| {
        decision.from != t.encoding && matches!(t.encoding, Encoding::Blocks(_)) && !t.encoding.is_plain()
    };
    if given.is_empty() || decisions.iter().zip(tensors).any(searched) {
        return None;
    }
    let (given, has) = (listed(&given), if given.len() > 1 { "have" } else { "has" });
    Some(format!("{given} {has} no effect here: no tensor gets a type whose scales are searched"))
}

/// A note on an option that names another tokenizer, if the files of the source's own are copied.
pub(super) fn unused_tokenizer(source: &Source, target: Container) -> Option<String> {
    let option = source.tokenizer_option?;
    let copied = source.hub.is_some() || !source.filed.is_empty();
    (target == Container::Safetensors && copied).then(|| {
        format!("{option} has no effect here: the files of the source's own tokenizer are copied as they are")
    })
}
