//! What each container asks of a plan.

use std::path::{Path, PathBuf};

use super::{
    ByteOrder, DType, Encoding, Error, Format, Layout, Metadata, Model, Place, Result, Source, Step, Target,
    Tensor, Value, Wishes, gguf, llama2c, safetensors,
};
use crate::plan::scheme;

/// The container, by wish or by the ending.
pub(super) fn choose(model: &Model, wishes: &Wishes) -> Result<Target> {
    let out = &wishes.out;
    let folder = out.is_dir() || out.to_string_lossy().ends_with('/');
    let by_ending = match out.extension().and_then(|e| e.to_str()).map(str::to_ascii_lowercase).as_deref() {
        _ if folder => Some(Target::Safetensors),
        Some("gguf") => Some(Target::Gguf),
        Some("safetensors") => Some(Target::Safetensors),
        Some("bin") => Some(Target::Llama2c),
        _ => None,
    };
    let target = wishes.target.or(by_ending).ok_or_else(|| {
        let out = out.display();
        Error::Usage(format!(
            "{out}: the ending tells no format\nend the name in .gguf, .safetensors or .bin, or say --format"
        ))
    })?;
    if folder && target != Target::Safetensors {
        return Err(Error::Usage(format!("{} is a folder; name a file in it", out.display())));
    }
    if model.format == Format::Llama2cTokenizer && target != Target::Llama2c {
        return Err(Error::Usage(
            "a tokenizer alone can only become another tokenizer.bin\ngive it with --tokenizer beside a checkpoint".into(),
        ));
    }
    let only = |wrong: bool, what: &str, whose: &str| match wrong {
        true => Err(Error::Usage(format!("{what} is for {whose} only"))),
        false => Ok(()),
    };
    only(wishes.align.is_some() && target != Target::Gguf, "--align", "GGUF")?;
    only(wishes.bin_version.is_some() && target != Target::Llama2c, "--bin-version", "llama2.c files")?;
    only(
        wishes.split != gguf::Split::None && target == Target::Llama2c,
        "splitting",
        "GGUF and safetensors",
    )?;
    let big = wishes.order == Some(ByteOrder::Big) && target == Target::Safetensors;
    only(big, "--endian big", "GGUF and llama2.c (safetensors are little-endian by definition)")?;
    Ok(target)
}

/// The version of a llama2.c checkpoint: by wish, by type, or the source's.
fn llama2c_version(model: &Model, wishes: &Wishes) -> Result<u32> {
    let own = match model.format {
        Format::Llama2c { version } => version,
        _ => 0,
    };
    match (wishes.scheme.map(|s| s.base), wishes.bin_version) {
        (None, version) => Ok(version.unwrap_or(own)),
        (Some(DType::F32), None) => Ok(own.min(1)),
        (Some(DType::Q8_0), None | Some(2)) => Ok(2),
        (Some(DType::F32), Some(version @ (0 | 1))) => Ok(version),
        (Some(DType::F32 | DType::Q8_0), Some(_)) => Err(Error::Usage(
            "llama2.c versions 0 and 1 hold f32 and version 2 holds q8_0; --type and --bin-version disagree"
                .into(),
        )),
        (Some(other), _) => Err(Error::Usage(format!(
            "llama2.c files hold f32 (versions 0 and 1) or q8_0 (version 2), not {}",
            other.name()
        ))),
    }
}

/// llama2.c has one type in a file: f32, or int8 groups with f32 norms (version 2).
pub(super) fn llama2c_steps(
    model: &Model,
    wishes: &Wishes,
    metadata: &Metadata,
    notes: &mut Vec<String>,
) -> Result<Vec<(Step, Tensor)>> {
    if !wishes.tensors.is_empty() || wishes.output.is_some() || wishes.embedding.is_some() {
        return Err(Error::Usage(
            "llama2.c files have one type for all tensors: no --tensor, --output-type, --embedding-type"
                .into(),
        ));
    }
    let version = llama2c_version(model, wishes)?;
    let kept = model.tensors.iter().find_map(|t| match t.encoding {
        Encoding::Int8Groups { size } if wishes.scheme.is_none() => Some(size),
        _ => None,
    });
    let size = match (version, kept) {
        (2, Some(size)) => size,
        (2, None) => llama2c::group_size(metadata, &model.tensors, wishes.group_size)?,
        _ => 0,
    };
    if version == 2 && kept.is_none() && size < wishes.group_size {
        let (bits, cost) =
            (8.0 + 32.0 / f64::from(size), 32.0 / f64::from(size) - 32.0 / f64::from(wishes.group_size));
        notes.push(format!(
            "groups of {} would not divide every row, so they have {size} weights: {bits:.2} bits per weight ({cost:+.2})",
            wishes.group_size
        ));
    }
    let step = |(i, t): (usize, &Tensor)| {
        let encoding = match t.shape.len() {
            2 if version == 2 => Encoding::Int8Groups { size },
            _ => Encoding::Blocks(DType::F32),
        };
        let step = Step { source: i, from: t.encoding, rule: format!("llama2.c v{version}"), wanted: None };
        (step, Tensor { encoding, place: Place { file: 0, offset: 0, len: 0 }, ..t.clone() })
    };
    Ok(model.tensors.iter().enumerate().map(step).collect())
}

/// Settings that every reader of GGUF wants and that follow from the types.
pub(super) fn gguf_metadata(
    model: &Model,
    wishes: &Wishes,
    tensors: &[Tensor],
    metadata: &mut Metadata,
    notes: &mut Vec<String>,
) {
    if let Some(align) = wishes.align {
        metadata.set(gguf::ALIGNMENT_KEY, Value::U32(align));
    }
    let from_gguf = matches!(model.format, Format::Gguf { .. });
    if from_gguf && wishes.scheme.is_none() {
        return; // kept as it is, byte by byte
    }
    if metadata.get("general.architecture").is_none() {
        notes.push(
            "the source names no architecture, so neither does the GGUF: tensors keep their names, and llama.cpp will \
             not run it (--set general.architecture=NAME if it should be named)"
                .into(),
        );
    } else if metadata.get("tokenizer.ggml.model").is_none() && !from_gguf {
        metadata.set("tokenizer.ggml.model", Value::text("no_vocab"));
        notes.push(
            "no vocabulary: give the checkpoint's tokenizer.bin with --tokenizer to have one in the file"
                .into(),
        );
    }
    let quantized = tensors.iter().any(|t| !t.encoding.is_plain());
    if quantized {
        metadata.set("general.quantization_version", Value::U32(2));
    }
    if let Some(file_type) = wishes.scheme.map(|s| s.file_type).or_else(|| main_type(tensors)) {
        metadata.set("general.file_type", Value::U32(file_type));
    }
}

/// The file type of the type that most weights have.
fn main_type(tensors: &[Tensor]) -> Option<u32> {
    let weights = |d: DType| -> u64 {
        tensors.iter().filter(|t| t.encoding == Encoding::Blocks(d)).map(Tensor::elements).sum()
    };
    let best = scheme::SCHEMES.iter().max_by_key(|s| weights(s.base))?;
    (weights(best.base) > 0).then_some(best.file_type)
}

type Placed = (Layout, Vec<PathBuf>, Vec<(PathBuf, Vec<u8>)>);

/// Lays the files out and names them.
pub(super) fn place(
    model: &Model,
    wishes: &Wishes,
    target: Target,
    order: ByteOrder,
    metadata: &Metadata,
    tensors: &[Tensor],
    notes: &mut Vec<String>,
) -> Result<Placed> {
    let out = &wishes.out;
    let name = out.display().to_string();
    match target {
        Target::Gguf => {
            let layout =
                gguf::layout(&name, metadata, tensors, gguf::Options { order, split: wishes.split })?;
            let count = layout.files.len();
            let paths = match count {
                1 => vec![out.clone()],
                _ => (0..count).map(|i| out.with_file_name(gguf::shard_name(&stem(out), i, count))).collect(),
            };
            Ok((layout, paths, Vec::new()))
        }
        Target::Safetensors => {
            let folder = out.is_dir() || out.to_string_lossy().ends_with('/');
            let (dir, stem) = match folder {
                true => (out.clone(), "model".to_string()),
                false => (out.parent().unwrap_or(Path::new("")).to_path_buf(), stem(out)),
            };
            let names = |i: usize, count: usize| match count {
                1 if folder => "model.safetensors".to_string(),
                1 => out.file_name().unwrap_or_default().to_string_lossy().into_owned(),
                _ => format!("{stem}-{:05}-of-{count:05}.safetensors", i + 1),
            };
            let options = safetensors::Options { split: wishes.split };
            let layout = safetensors::layout(&name, metadata, tensors, options, &names)?;
            let count = layout.files.len();
            let names: Vec<_> = (0..count).map(|i| names(i, count)).collect();
            let mut extra = Vec::new();
            if count > 1 {
                let index = dir.join(format!("{stem}.safetensors.index.json"));
                extra.push((index, safetensors::index(&layout, &names)));
            }
            Ok((layout, names.iter().map(|n| dir.join(n)).collect(), extra))
        }
        Target::Llama2c if model.format == Format::Llama2cTokenizer => {
            let bytes = llama2c::tokenizer::write(&name, metadata, order)?;
            Ok((Layout { files: Vec::new(), tensors: Vec::new() }, Vec::new(), vec![(out.clone(), bytes)]))
        }
        Target::Llama2c => {
            let version = llama2c_version(model, wishes)?;
            let layout = llama2c::layout(&name, metadata, tensors, llama2c::Options { version, order })?;
            let mut extra = Vec::new();
            match metadata.text("tokenizer.ggml.model") {
                None | Some("no_vocab") if matches!(model.format, Format::Llama2c { .. }) => {}
                None | Some("no_vocab") => {
                    notes.push(
                        "no vocabulary in the source, so no tokenizer.bin beside the checkpoint".into(),
                    );
                }
                Some(_) => {
                    let path = out.with_file_name(format!("{}-tokenizer.bin", stem(out)));
                    extra.push((path, llama2c::tokenizer::write(&name, metadata, order)?));
                }
            }
            Ok((layout, vec![out.clone()], extra))
        }
    }
}

/// llama2.c version 0 to version 0: the frequency tables, which are no tensors, are copied as the weights are, and
/// not computed again.
pub(super) fn keep_tables(source: &Source, order: ByteOrder, layout: &mut Layout) -> Result<()> {
    let model = &source.model;
    let (Format::Llama2c { version: 0 }, [file]) = (model.format, &mut layout.files[..]) else {
        return Ok(());
    };
    let same_places = model.tensors.iter().zip(&layout.tensors).all(|(a, b)| a.place == b.place);
    if file.len == source.files[0].len && same_places {
        for (offset, bytes) in file.fixed.iter_mut().filter(|(offset, _)| *offset > 0) {
            *bytes = source.files[0].read(*offset, bytes.len() as u64)?.into_owned();
            if order != model.order {
                DType::F32.swap(bytes);
            }
        }
    }
    Ok(())
}

/// The file name without its ending, and without the number of a shard.
fn stem(path: &Path) -> String {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let b = stem.as_bytes();
    let digits = |r: &[u8]| r.iter().all(u8::is_ascii_digit);
    match b.len().checked_sub(15) {
        Some(at)
            if b[at] == b'-'
                && digits(&b[at + 1..at + 6])
                && &b[at + 6..at + 10] == b"-of-"
                && digits(&b[at + 10..]) =>
        {
            stem[..at].to_string()
        }
        _ => stem,
    }
}

/// Writing over the source would be safe, but never meant.
pub(super) fn refuse_own_source<'a>(source: &Source, paths: impl Iterator<Item = &'a PathBuf>) -> Result<()> {
    for path in paths {
        let Ok(real) = path.canonicalize() else { continue };
        if source.files.iter().any(|f| f.path.canonicalize().is_ok_and(|p| p == real)) {
            return Err(Error::Usage(format!(
                "{} is the source itself; write to another name",
                path.display()
            )));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shard_number_is_not_part_of_the_stem() {
        assert_eq!(stem(Path::new("a/model.gguf")), "model");
        assert_eq!(stem(Path::new("a/model-00001-of-00003.gguf")), "model");
        assert_eq!(stem(Path::new("-00001-of-00003.gguf")), "");
        assert_eq!(stem(Path::new("model-1-of-3.gguf")), "model-1-of-3");
    }
}
