//! A set of files that gets its names together, and takes the place of an older set: a checkpoint that is replaced.

#![deny(unsafe_code)]

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::output::sync;
use super::{NewFile, folder};
use crate::error::{Error, Result};

/// Gives files their names, in the order given, after all of them have been synced to disk.
///
/// # Errors
/// [`Error::Changed`] if a file that the run reads piece by piece was rewritten meanwhile; [`Error::Io`] if a file cannot
/// be synced or renamed. Files that have been renamed by then stay.
pub fn finish(files: Vec<NewFile>) -> Result<()> {
    finish_set(files, &Replaces::default())
}

/// What a set of new files takes the place of, besides files of the same names: a checkpoint that is replaced.
#[derive(Debug, Clone, Default)]
pub struct Replaces {
    /// The settings that make the folder a checkpoint (config.json). Files cannot be replaced all at once: meanwhile the
    /// settings have another name, so that a run that is killed leaves no folder that looks whole and has the weights of
    /// two models. They get their name back if there are no new ones, unless they are among what is removed.
    pub settings: Option<PathBuf>,
    /// What is left of the old model, which is removed when the new files are in their places, and before new settings are:
    /// an index before the files that it names, and a folder, if it is empty by then, behind the files in it.
    pub remove: Vec<PathBuf>,
    /// Texts for people, which are kept under another name: [`free_aside_name`].
    pub aside: Vec<PathBuf>,
}

/// As [`finish`], in the place of an older set of files.
///
/// # Errors
/// Those of [`finish`]; [`Error::Io`] if a file cannot be removed; [`Error::Refused`] if new and old files are mixed now,
/// with the name that the old settings have.
pub fn finish_set(files: Vec<NewFile>, replaces: &Replaces) -> Result<()> {
    for f in &files {
        f.file.sync_all().map_err(|e| Error::io(&f.target, "write", e))?;
    }
    if let Some((run, _)) = files.iter().find_map(|f| f.run.as_ref()) {
        run.unchanged()?;
    }
    // Of two runs that write the same names, the last one wins as a whole.
    let _alone = (files.len() > 1).then(|| alone(folder(&files[0].target)));
    let aside = match replaces.settings.as_deref() {
        Some(settings) => set_aside(settings)?,
        None => None,
    };
    // New settings make the folder a checkpoint again: that comes last.
    let (settings, others): (Vec<NewFile>, Vec<NewFile>) =
        files.into_iter().partition(|f| replaces.settings.as_ref() == Some(&f.target));
    let mut named = 0;
    let mut texts = Vec::new();
    let all = || -> Result<()> {
        for text in &replaces.aside {
            texts.extend(set_aside(text)?.map(|old| (text, old)));
        }
        let mut new = Vec::new();
        for f in others {
            let target = f.target.clone();
            f.get_name()?;
            named += 1;
            new.extend(fs::canonicalize(target));
        }
        for path in replaces.remove.iter().filter(|path| replaces.settings.as_ref() != Some(*path)) {
            // On some systems, names that differ in case are one file's.
            if fs::canonicalize(path).is_ok_and(|path| new.contains(&path)) {
                continue;
            }
            remove(path)?;
        }
        settings.into_iter().try_for_each(NewFile::get_name)
    };
    let done = all();
    if done.is_err() && named == 0 {
        // Nothing has changed yet, and nothing does.
        for (text, old) in texts {
            let _ = fs::rename(old, text);
        }
    }
    let Some((settings, old)) = replaces.settings.as_deref().zip(aside) else { return done };
    let rename = || fs::rename(&old, settings).map_err(|e| Error::io(settings, "create", e));
    let gone =
        || fs::symlink_metadata(settings).is_ok() || replaces.remove.iter().any(|path| path == settings);
    match done {
        Ok(()) if gone() => fs::remove_file(&old).map_err(|e| Error::io(&old, "remove", e)),
        Ok(()) => rename(),
        Err(e) if named == 0 => rename().and(Err(e)),
        Err(e) => Err(Error::refused(format!(
            "{e}; {} has files of two checkpoints now, and the settings of the old one are in {}",
            folder(settings).display(),
            old.display()
        ))
        .or("run again with --overwrite, which writes all files of the new one")),
    }
}

/// A lock of a folder in which files get their names, which lasts as long as the value. Where a folder cannot be locked, or
/// another program holds it for long, it is done without.
fn alone(folder: &Path) -> Option<fs::File> {
    let file = fs::File::open(folder).ok()?;
    for _ in 0..WAITS {
        match file.try_lock() {
            Ok(()) => return Some(file),
            Err(fs::TryLockError::WouldBlock) => std::thread::sleep(WAIT),
            Err(fs::TryLockError::Error(_)) => return None,
        }
    }
    None
}

/// How long, and how often, a run waits for another one to give its files their names.
const WAIT: std::time::Duration = std::time::Duration::from_millis(20);
const WAITS: usize = 500;

/// Removes a file, or a folder that is empty; one that is not empty has other files by now, and stays.
fn remove(path: &Path) -> Result<()> {
    let is_folder = fs::symlink_metadata(path).is_ok_and(|meta| meta.is_dir());
    let done = if is_folder { fs::remove_dir(path) } else { fs::remove_file(path) };
    match done {
        Err(e) if ![io::ErrorKind::NotFound, io::ErrorKind::DirectoryNotEmpty].contains(&e.kind()) => {
            Err(Error::io(path, "remove", e))
        }
        _ => {
            sync(folder(path));
            Ok(())
        }
    }
}

/// The name of settings while the checkpoint is replaced, if no file has it.
pub fn aside_name(settings: &Path) -> PathBuf {
    let mut name = settings.file_name().unwrap_or_default().to_os_string();
    name.push(".old");
    settings.with_file_name(name)
}

/// The first name that a file can be kept under, which no file has: [`aside_name`], or that with a number.
///
/// # Errors
/// [`Error::Io`] if there are a thousand of them.
pub fn free_aside_name(path: &Path) -> Result<PathBuf> {
    let first = aside_name(path);
    let others = (1..1000).map(|n| {
        let mut name = first.as_os_str().to_os_string();
        name.push(format!("-{n}"));
        PathBuf::from(name)
    });
    let free = |path: &PathBuf| fs::symlink_metadata(path).is_err();
    let taken = || Error::io(&first, "create", io::ErrorKind::AlreadyExists.into());
    std::iter::once(first.clone()).chain(others).find(free).ok_or_else(taken)
}

/// Gives a file another name, which no file has, and tells it; `None` if it is gone.
fn set_aside(path: &Path) -> Result<Option<PathBuf>> {
    let old = free_aside_name(path)?;
    match fs::rename(path, &old) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        done => done.map_err(|e| Error::io(path, "rename", e))?,
    }
    sync(folder(path));
    Ok(Some(old))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::{Output, RunFiles};

    fn create(target: &Path, len: u64) -> Result<NewFile> {
        RunFiles::default().create_derived(target, len, Output::model("OUT"))
    }

    /// What is in a folder, with the contents.
    fn contents(dir: &tempfile::TempDir) -> Vec<(String, String)> {
        let mut all: Vec<_> = fs::read_dir(dir)
            .unwrap()
            .map(|e| {
                let path = e.unwrap().path();
                let name = path.file_name().unwrap().to_string_lossy().into_owned();
                (name, fs::read_to_string(path).unwrap_or_default())
            })
            .collect();
        all.sort();
        all
    }

    /// A folder with an old checkpoint, and what replaces it.
    fn old_checkpoint() -> (tempfile::TempDir, Replaces) {
        let dir = tempfile::tempdir().unwrap();
        for name in ["config.json", "index", "w-1", "w-2", "notes"] {
            fs::write(dir.path().join(name), "old").unwrap();
        }
        let path = |name: &str| dir.path().join(name);
        let (settings, remove) = (Some(path("config.json")), vec![path("index"), path("w-2")]);
        (dir, Replaces { settings, remove, aside: Vec::new() })
    }

    fn new(dir: &tempfile::TempDir, name: &str) -> NewFile {
        let file = create(&dir.path().join(name), 3).unwrap();
        file.write(0, b"new").unwrap();
        file
    }

    #[test]
    fn a_set_of_files_takes_the_place_of_another() {
        let pairs = |all: &[(&str, &str)]| -> Vec<(String, String)> {
            all.iter().map(|(a, b)| (a.to_string(), b.to_string())).collect()
        };
        let (dir, replaces) = old_checkpoint();
        finish_set(vec![new(&dir, "w-1"), new(&dir, "config.json")], &replaces).unwrap();
        assert_eq!(contents(&dir), pairs(&[("config.json", "new"), ("notes", "old"), ("w-1", "new")]));
        // What is new is not removed as old, by whatever path.
        let (dir, mut replaces) = old_checkpoint();
        replaces.remove.push(dir.path().join(".").join("w-1"));
        finish_set(vec![new(&dir, "w-1"), new(&dir, "config.json")], &replaces).unwrap();
        assert_eq!(contents(&dir), pairs(&[("config.json", "new"), ("notes", "old"), ("w-1", "new")]));
        // Settings that are gone meanwhile are nothing to set aside.
        let (dir, replaces) = old_checkpoint();
        fs::remove_file(dir.path().join("config.json")).unwrap();
        finish_set(vec![new(&dir, "w-1"), new(&dir, "config.json")], &replaces).unwrap();
        assert_eq!(contents(&dir), pairs(&[("config.json", "new"), ("notes", "old"), ("w-1", "new")]));
        // Settings that are not written stay, and so does what others call that.
        let (dir, replaces) = old_checkpoint();
        fs::write(dir.path().join("config.json.old"), "mine").unwrap();
        finish_set(vec![new(&dir, "w-1")], &replaces).unwrap();
        let wanted = [("config.json", "old"), ("config.json.old", "mine"), ("notes", "old"), ("w-1", "new")];
        assert_eq!(contents(&dir), pairs(&wanted));
    }

    #[test]
    fn texts_are_kept_and_what_is_not_written_anew_is_removed() {
        let (dir, mut replaces) = old_checkpoint();
        fs::write(dir.path().join("notes.old"), "older").unwrap();
        fs::create_dir(dir.path().join("more")).unwrap();
        fs::write(dir.path().join("more/a"), "old").unwrap();
        replaces.remove.extend(["more/a", "more", "config.json"].map(|name| dir.path().join(name)));
        replaces.aside.push(dir.path().join("notes"));
        replaces.aside.push(dir.path().join("gone"));
        // Settings that are among what is removed do not come back.
        finish_set(vec![new(&dir, "w-1"), new(&dir, "notes")], &replaces).unwrap();
        let pairs = [("notes", "new"), ("notes.old", "older"), ("notes.old-1", "old"), ("w-1", "new")];
        assert_eq!(contents(&dir), pairs.map(|(a, b)| (a.to_string(), b.to_string())));
        // A folder that has other files by then stays.
        fs::create_dir(dir.path().join("more")).unwrap();
        fs::write(dir.path().join("more/b"), "mine").unwrap();
        finish_set(vec![new(&dir, "w-1")], &replaces).unwrap();
        assert!(dir.path().join("more/b").exists());
        // Where nothing gets its name, texts have theirs again.
        let (dir, mut replaces) = old_checkpoint();
        replaces.aside.push(dir.path().join("notes"));
        let before = contents(&dir);
        let files = vec![new(&dir, "x"), new(&dir, "notes")];
        fs::create_dir(dir.path().join("x")).unwrap();
        finish_set(files, &replaces).unwrap_err();
        fs::remove_dir(dir.path().join("x")).unwrap();
        assert_eq!(contents(&dir), before);
    }

    #[test]
    fn a_set_that_is_not_whole_is_no_checkpoint() {
        // The second file cannot get its name.
        let (dir, replaces) = old_checkpoint();
        let files = vec![new(&dir, "w-1"), new(&dir, "x"), new(&dir, "config.json")];
        fs::create_dir(dir.path().join("x")).unwrap();
        let e = finish_set(files, &replaces).unwrap_err();
        let says = e.to_string();
        assert!(says.contains("files of two checkpoints") && says.contains("config.json.old"), "{says}");
        let found = contents(&dir);
        let names: Vec<&str> = found.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["config.json.old", "index", "notes", "w-1", "w-2", "x"], "nothing is removed");
        // What is old cannot be removed: the new settings would make a checkpoint of both.
        let (dir, mut replaces) = old_checkpoint();
        replaces.remove.push(dir.path().join("notes/inside"));
        let e = finish_set(vec![new(&dir, "w-1"), new(&dir, "config.json")], &replaces).unwrap_err();
        assert!(e.to_string().contains("files of two checkpoints"), "{e}");
        assert!(!dir.path().join("config.json").exists());
        // Nor is anything changed if none can.
        let (dir, replaces) = old_checkpoint();
        let before = contents(&dir);
        let files = vec![new(&dir, "x"), new(&dir, "w-1")];
        fs::create_dir(dir.path().join("x")).unwrap();
        let e = finish_set(files, &replaces).unwrap_err();
        assert!(matches!(e, Error::Io { .. }), "{e}");
        fs::remove_dir(dir.path().join("x")).unwrap();
        assert_eq!(contents(&dir), before);
    }
}
