//! Files of an older result beside a new one. They are left alone, but a program that is given one of them reads the old
//! model, so a note names them.

use std::path::{Path, PathBuf};

use formats::container::parse_part_stem;

use crate::disk;

/// A note on files beside `paths` whose names are those of the same model, whole or in another number of parts. `read` are
/// the inputs, which nobody takes for results, and what is removed.
pub(super) fn note<'a>(paths: &[PathBuf], read: impl Iterator<Item = &'a Path>) -> Option<String> {
    let first = paths.first()?;
    let model = |name: &Path| {
        let stem = name.file_stem()?.to_str()?;
        let stem = parse_part_stem(stem).map_or(stem, |(stem, ..)| stem);
        Some((stem.to_string(), name.extension()?.to_os_string()))
    };
    let own = model(first)?;
    let real = |p: &Path| std::fs::canonicalize(p).ok();
    let mut ours: Vec<PathBuf> = paths.iter().filter_map(|p| real(p)).collect();
    ours.extend(read.filter_map(real));
    let names: Vec<_> = paths.iter().filter_map(|p| p.file_name()).collect();
    let entries = std::fs::read_dir(disk::folder(first)).ok()?;
    let mut old: Vec<String> = entries
        .filter_map(|e| Some(e.ok()?.path()))
        .filter(|p| model(p).as_ref() == Some(&own) && p.file_name().is_some_and(|n| !names.contains(&n)))
        .filter(|p| p.is_file() && real(p).is_none_or(|p| !ours.contains(&p)))
        .filter_map(|p| Some(p.file_name()?.to_string_lossy().into_owned()))
        .collect();
    old.sort();
    let one = old.len() == 1;
    let all = match &old[..] {
        [] => return None,
        [one] => one.clone(),
        [one, two] => format!("{one} and {two}"),
        [one, rest @ ..] => format!("{one} and {} more", rest.len()),
    };
    let (stays, it) = if one { ("stays", "it") } else { ("stay", "they") };
    let is = if one { "is" } else { "are" };
    Some(format!(
        "{all} {stays} beside the result: {it} {is} of an older one of this name, which programs may read instead"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn older_files_of_the_same_name_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        for name in ["m.gguf", "m-00001-of-00003.gguf", "m-2.gguf", "m.bin", "n-00001-of-00002.gguf"] {
            std::fs::write(path(name), "").unwrap();
        }
        let parts = [path("m-00001-of-00002.gguf"), path("m-00002-of-00002.gguf")];
        let said = note(&parts, std::iter::empty()).unwrap();
        assert!(said.starts_with("m-00001-of-00003.gguf and m.gguf stay beside"), "{said}");
        // The whole model that is split here is no older result.
        let source = path("m.gguf");
        let said = note(&parts, [source.as_path()].into_iter()).unwrap();
        assert!(said.starts_with("m-00001-of-00003.gguf stays beside"), "{said}");
        // A whole model where parts were.
        let said = note(&[path("n.gguf")], std::iter::empty()).unwrap();
        assert!(said.starts_with("n-00001-of-00002.gguf stays"), "{said}");
        assert_eq!(note(&[path("m.bin")], std::iter::empty()), None);
    }
}
