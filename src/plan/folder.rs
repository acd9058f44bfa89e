//! What there is already where the result goes: a checkpoint's folder that has one, files that belong to another model.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use formats::container::{parse_part_stem, safetensors};

use super::container::stem;
use super::{Container, PlanOptions, is_folder};
use crate::checkpoint::CONFIG;
use crate::disk::{self, ADAPTER, Part, Replaces, RunFiles, TEMPLATES, part};
use crate::error::{Error, Result};
use crate::source::Source;
use crate::text::bytes;

/// The longest index that is read, in bytes.
const MOST_INDEX: u64 = 256 << 20;

/// The longest text that is compared with a new one, in bytes.
const MOST_TEXT: u64 = 16 << 20;

/// The longest tokenizer that is compared with a new one, in bytes.
const MOST_TOKENIZER: u64 = 256 << 20;

/// The end of an index's name.
const INDEX: &str = ".index.json";

/// Whether a file in a checkpoint's folder has weights, or an index of them, under a name of whatever kind.
fn is_weights(name: &str) -> bool {
    part(name) == Some(Part::Weights)
        || name.ends_with(".safetensors")
        || name.ends_with(&format!(".safetensors{INDEX}"))
}

/// Refuses to replace a checkpoint unless that was asked for, and to put weights beside the tokenizer of another model.
/// Tells which existing files are replaced, removed and kept under another name, and which stay. `weights` are the files of
/// the result that have weights, and `extra` the others with their contents. Gives what the result takes the place of.
///
/// # Errors
/// [`Error::Refused`]; [`Error::WouldOverwrite`] for old weights that the run reads; [`Error::Io`] if the folder or a file in
/// it cannot be read.
pub(super) fn check(
    source: &Source,
    options: &PlanOptions,
    target: Container,
    (weights, extra): (&[PathBuf], &[(PathBuf, Vec<u8>)]),
    notes: &mut Vec<String>,
) -> Result<Replaces> {
    // A tokenizer alone, turned to another byte order, may replace an earlier one.
    if !is_folder(&options.out) && !source.model.tensors.is_empty() {
        weights.iter().try_for_each(|path| refuse_part(path, target))?;
    }
    let paths: Vec<&PathBuf> = weights.iter().chain(extra.iter().map(|(path, _)| path)).collect();
    let replaces = match target {
        Container::Safetensors if is_folder(&options.out) && options.out.is_dir() => {
            Folder::read(&options.out, &paths)?.replaced(source, options, extra, notes)?
        }
        Container::Safetensors => {
            let replaces = replaced(source, options, weights, &paths)?;
            let folder = weights.first().map_or(Path::new("."), |first| disk::folder(first));
            notes.extend(removal(folder, &replaces.remove, options.dry_run));
            replaces
        }
        _ => {
            extra.iter().try_for_each(|(path, bytes)| refuse_other_side(options, weights, path, bytes))?;
            Replaces::default()
        }
    };
    let replaced: Vec<String> = paths
        .iter()
        .filter(|path| path.is_file() && !replaces.aside.contains(path))
        .map(|path| disk::replaced_name(path, **path == options.out))
        .collect();
    if !replaced.is_empty() {
        notes.push(disk::replaced_note(&several(&replaced.iter().collect::<Vec<_>>()), options.dry_run));
    }
    Ok(replaces)
}

/// Refuses to replace a file that a checkpoint cannot be read without by a model of another form: its settings or tokenizer,
/// or weights that lie beside the settings. A link is followed to what it names.
///
/// # Errors
/// [`Error::Refused`].
fn refuse_part(path: &Path, target: Container) -> Result<()> {
    let real = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf());
    if !real.is_file() {
        return Ok(());
    }
    let what = match real.file_name().and_then(OsStr::to_str).and_then(part) {
        Some(Part::Settings) => "the settings of a checkpoint",
        Some(Part::Companion | Part::AsFiled) => "a file of a checkpoint (its tokenizer or settings)",
        // As weights of the checkpoint's own form, `replaced` sees to them.
        Some(Part::Weights)
            if target != Container::Safetensors && disk::folder(&real).join(CONFIG).is_file() =>
        {
            "a file of a checkpoint's weights"
        }
        _ => return Ok(()),
    };
    Err(Error::refused(format!("{}: is {what}, and a model would replace it", path.display()))
        .or("give the file another name or folder, or remove the old one first"))
}

/// Refuses to replace a file that the user did not name (a tokenizer or settings that are written beside the weights) by
/// another, unless it is replaced with its model: in another byte order, or of another model, it belongs to what lies there.
///
/// # Errors
/// [`Error::Refused`].
fn refuse_other_side(options: &PlanOptions, weights: &[PathBuf], path: &Path, new: &[u8]) -> Result<()> {
    // It is no input of the run.
    let same = || RunFiles::default().read(path, MOST_TOKENIZER).is_ok_and(|old| old == new);
    let with_model = weights.first().is_some_and(|model| model.is_file());
    if path == options.out || with_model || !path.is_file() || same() {
        return Ok(());
    }
    let path = path.display();
    Err(Error::refused(format!("{path}: is there already, with other contents than the new model's"))
        .or("give the model another name or folder, or move this file away first"))
}

/// A note on what is removed from a folder, or would be in a dry run, if anything is. Only parts of one model count as one.
fn removal(folder: &Path, remove: &[PathBuf], dry_run: bool) -> Option<String> {
    // A folder is removed if nothing else is in it, and says nothing of its own.
    let is_folder = |path: &Path| std::fs::symlink_metadata(path).is_ok_and(|meta| meta.is_dir());
    let files: Vec<&PathBuf> = remove.iter().filter(|path| !is_folder(path)).collect();
    let size =
        files.iter().filter_map(|path| Some(path.metadata().ok().filter(|m| m.is_file())?.len())).sum();
    let name = |path: &&PathBuf| path.strip_prefix(folder).unwrap_or(path).to_string_lossy().into_owned();
    let model = |name: &str| Some(parse_part_stem(name.strip_suffix(".safetensors")?)?.0.to_string());
    let mut names: Vec<String> = Vec::new();
    let mut parts: Vec<(String, Vec<String>)> = Vec::new();
    for name in files.iter().map(name) {
        match model(&name) {
            None => names.push(name),
            Some(of) => match parts.iter_mut().find(|(model, _)| *model == of) {
                Some((_, parts)) => parts.push(name),
                None => parts.push((of, vec![name])),
            },
        }
    }
    names.extend(parts.iter().map(|(_, parts)| several(&parts.iter().collect::<Vec<_>>())));
    if names.is_empty() {
        return None;
    }
    Some(format!(
        "in {}, what is left of the older model {} removed once the new one is in place: {} ({})",
        folder.display(),
        if dry_run { "would be" } else { "is" },
        names.join(", "),
        bytes(size)
    ))
}

/// A folder that a checkpoint is written into.
struct Folder<'a> {
    path: &'a Path,
    /// The names in it, but for hidden ones, sorted.
    names: Vec<String>,
    /// The names of the files that are written into it.
    written: HashSet<&'a OsStr>,
}

impl<'a> Folder<'a> {
    fn read(path: &'a Path, written: &[&'a PathBuf]) -> Result<Self> {
        let entries = std::fs::read_dir(path).map_err(|e| Error::io(path, "read", e))?;
        let mut names: Vec<String> = entries
            .filter_map(|e| e.ok()?.file_name().into_string().ok())
            .filter(|n| !n.starts_with('.'))
            .collect();
        names.sort();
        Ok(Self { path, names, written: written.iter().filter_map(|p| p.file_name()).collect() })
    }

    /// What the new checkpoint takes the place of: all that belongs to an older one, of which nothing may be left that is read
    /// with the new weights.
    fn replaced(
        &self,
        source: &Source,
        options: &PlanOptions,
        extra: &[(PathBuf, Vec<u8>)],
        notes: &mut Vec<String>,
    ) -> Result<Replaces> {
        let shown = self.path.display();
        let stays = |name: &&String| !self.written.contains(OsStr::new(name.as_str()));
        let held: Vec<&String> = self.names.iter().filter(|n| is_weights(n) || *n == CONFIG).collect();
        if !held.is_empty() && !options.overwrite {
            return Err(Error::refused(format!("{shown}: holds a checkpoint already ({})", several(&held))).or(
                "name another folder; --overwrite replaces the checkpoint as a whole, with its settings, tokenizer and chat \
                 templates",
            ));
        }
        let read_too =
            |n: &&String| matches!(part(n), Some(Part::Companion | Part::AsFiled)) || *n == TEMPLATES;
        // Where there is no checkpoint, those that the new one has too are somebody's own as well, if they say something else.
        let differs = |name: &&String| {
            let new = extra.iter().find(|(path, _)| path.file_name() == Some(OsStr::new(name.as_str())));
            let old = || RunFiles::default().read(&self.path.join(name), MOST_TOKENIZER);
            held.is_empty() && new.is_some_and(|(_, new)| !old().is_ok_and(|old| old == *new))
        };
        let read = self.names.iter().filter(read_too).filter(|name| stays(name) || differs(name));
        let read: Vec<&String> = read.collect();
        if !read.is_empty() && !options.overwrite {
            return Err(Error::refused(format!(
                "{shown}: has files that would be read with the new weights and are not theirs ({})",
                several(&read)
            ))
            .or("name another folder, or move them away; --overwrite gives them other names (NAME.old)"));
        }
        // Somebody may have trained it, and nothing here could make it again.
        if self.path.join(ADAPTER).is_file() {
            return Err(Error::refused(format!(
                "{shown}: has an adapter ({ADAPTER}), which programs would apply to the new weights"
            ))
            .or("name another folder, or move the adapter's files away"));
        }
        let mut replaces = Replaces { aside: self.texts(extra, !held.is_empty())?, ..Replaces::default() };
        // Without a checkpoint, they are somebody's own, whatever their names.
        if held.is_empty() && options.overwrite {
            replaces.aside.extend(read.iter().map(|name| self.path.join(name)));
        }
        for old in &replaces.aside {
            let name = old.file_name().unwrap_or_default().display();
            let kept = disk::free_aside_name(old)?;
            let is = if options.dry_run { "would be" } else { "is" };
            notes.push(format!(
                "in {shown}, {name} {is} kept as {}",
                kept.file_name().unwrap_or_default().display()
            ));
        }
        if !options.overwrite {
            return Ok(replaces);
        }
        replaces.settings = Some(self.path.join(CONFIG));
        if !held.is_empty() {
            replaces.remove = self.old()?;
        }
        let mut changed = replaces.remove.iter().chain(&replaces.aside);
        changed.try_for_each(|path| source.run.refuse_input(path))?;
        notes.extend(removal(self.path, &replaces.remove, options.dry_run));
        let removed: HashSet<&OsStr> = replaces.remove.iter().filter_map(|p| p.file_name()).collect();
        let weights = held.into_iter().filter(|n| is_weights(n) && !removed.contains(OsStr::new(n.as_str())));
        let kept: Vec<&String> = weights.filter(stays).collect();
        if !kept.is_empty() {
            let stay = if options.dry_run { "would stay" } else { "stay" };
            notes.push(format!("in {shown}, files {stay} that this run does not write: {}", several(&kept)));
        }
        let aside = disk::aside_name(Path::new(CONFIG)).display().to_string();
        let left: Vec<&String> = self.names.iter().filter(|n| n.starts_with(&aside)).collect();
        if !left.is_empty() {
            notes.push(format!(
                "in {shown}, {} stays, which nothing reads: a run that was ended while it replaced a checkpoint leaves the older \
                 settings under this name; remove it if you do not need it",
                several(&left)
            ));
        }
        Ok(replaces)
    }

    /// The texts for people that are kept under other names: those that would be replaced by others, and where a checkpoint
    /// is replaced, all of them.
    fn texts(&self, extra: &[(PathBuf, Vec<u8>)], of_old: bool) -> Result<Vec<PathBuf>> {
        let mut aside = Vec::new();
        for name in self.names.iter().filter(|n| part(n) == Some(Part::Text)) {
            let path = self.path.join(name);
            let new =
                extra.iter().find(|(new, _)| new.file_name() == path.file_name()).map(|(_, bytes)| bytes);
            // The text is no input, and has another name before anything is written.
            let same =
                |bytes: &Vec<u8>| RunFiles::default().read(&path, MOST_TEXT).is_ok_and(|old| old == *bytes);
            let is_kept = match new {
                Some(bytes) => !same(bytes),
                None => of_old,
            };
            if is_kept && path.is_file() {
                aside.push(path);
            }
        }
        Ok(aside)
    }

    /// The files of an older checkpoint that are not written anew: indexes, what they name, then everything else.
    fn old(&self) -> Result<Vec<PathBuf>> {
        let mut names: Vec<String> = Vec::new();
        let is_part = |n: &&String| part(n).is_some_and(|part| part != Part::Text);
        let (indexes, parts): (Vec<&String>, Vec<&String>) =
            self.names.iter().filter(is_part).partition(|n| n.ends_with(INDEX));
        for index in indexes {
            names.push(index.clone());
            names.extend(named_by(&self.path.join(index))?);
        }
        names.extend(parts.into_iter().cloned());
        // Behind a link are somebody else's: it is removed alone.
        let templates = self.path.join(TEMPLATES);
        let linked = templates.is_symlink();
        names.extend(linked.then(|| TEMPLATES.to_string()));
        if let Some(templates) = (!linked).then(|| std::fs::read_dir(templates).ok()).flatten() {
            let own = templates.filter_map(|e| e.ok()?.file_name().into_string().ok());
            let mut own: Vec<String> =
                own.map(|n| format!("{TEMPLATES}/{n}")).filter(|n| part(n).is_some()).collect();
            own.sort();
            names.extend(own);
            names.push(TEMPLATES.into());
        }
        let mut seen = HashSet::new();
        names.retain(|n| seen.insert(n.clone()) && !self.written.contains(OsStr::new(n)));
        let there = |path: &PathBuf| {
            path.is_file() || path.is_symlink() || path.ends_with(TEMPLATES) && path.is_dir()
        };
        Ok(names.into_iter().map(|name| self.path.join(name)).filter(there).collect())
    }
}

/// The weights that an index names, all in its own folder. A damaged index names none, and nobody can have read any by it.
fn named_by(index: &Path) -> Result<Vec<String>> {
    if !index.is_file() {
        return Ok(Vec::new());
    }
    // It is no input of this run, which may remove it.
    let json = RunFiles::default().read(index, MOST_INDEX)?;
    Ok(safetensors::read_index(&index.display().to_string(), &json).unwrap_or_default())
}

/// What new weights under a name of their own take the place of, if that was asked for: the index that loaders would go by, with
/// the shards that it names, or the single file that they would read instead of the new shards.
///
/// # Errors
/// Those of [`check`].
fn replaced(
    source: &Source,
    options: &PlanOptions,
    weights: &[PathBuf],
    paths: &[&PathBuf],
) -> Result<Replaces> {
    let Some(first) = weights.first() else { return Ok(Replaces::default()) };
    let is_new = |path: &PathBuf| paths.contains(&path);
    // Under such a name, programs read weights with the settings of the folder.
    let name = first.file_name().and_then(OsStr::to_str).unwrap_or_default();
    let (folder, settings) = (disk::folder(first), disk::folder(first).join(CONFIG));
    if part(name) == Some(Part::Weights) && settings.is_file() && !is_new(&settings) {
        return Err(Error::refused(format!(
            "{}: programs would read {name} with {CONFIG} and the tokenizer that are there, which are not the new model's",
            folder.display()
        ))
        .or("name the folder itself with --overwrite, which replaces the whole checkpoint; or give the file another name or folder"));
    }
    let index = first.with_file_name(format!("{}.safetensors.index.json", stem(first)));
    let single = first.with_file_name("model.safetensors");
    let mut remove = Vec::new();
    let mut read_instead = |path: &PathBuf, what: String| {
        remove.push(path.clone());
        match options.overwrite {
            true => Ok(()),
            false => Err(Error::refused(what)
                .or("write to another folder, or add --overwrite, which removes the old weights when the new ones are in place")),
        }
    };
    if weights.len() > 1 && stem(first) == "model" && single.is_file() {
        let what = format!("loaders would read {} instead of the new shards", single.display());
        read_instead(&single, what)?;
    }
    if index.is_file() && !is_new(&index) {
        let what = format!("loaders would read the files of {} instead of the new model", index.display());
        read_instead(&index, what)?;
    }
    if !options.overwrite {
        return Ok(Replaces::default());
    }
    let shards = named_by(&index)?.into_iter().map(|name| first.with_file_name(name));
    remove.extend(shards.filter(|path| path.is_file() && !is_new(path)));
    remove.iter().try_for_each(|path| source.run.refuse_input(path))?;
    let settings = disk::folder(first).join(CONFIG);
    let is_set = !remove.is_empty();
    Ok(Replaces {
        settings: Some(settings).filter(|path| is_set && path.is_file()),
        remove,
        aside: Vec::new(),
    })
}

/// The first of several names, and how many follow: "a and 2 more". At least one.
fn several(names: &[&String]) -> String {
    match names.len() {
        1 => names[0].clone(),
        n => format!("{} and {} more", names[0], n - 1),
    }
}
