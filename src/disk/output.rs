//! Files that are written: they get their names when they are complete.

#![deny(unsafe_code)]

use std::ffi::OsStr;
use std::fs::{self, File};
use std::hash::{BuildHasher, RandomState};
use std::io::{self, BufWriter};
use std::path::{Path, PathBuf};

use super::{RunFiles, finish, folder, write_all_at};
use crate::error::{Error, Result};

/// How the names of incomplete files begin and end. Between them are random digits: the name cannot be foreseen by
/// whoever else may write to the folder, and it is not longer than the target's name may be.
const PARTIAL: (&str, &str) = (".ggufkit-", ".partial");

/// An output file that is being written. It gets its name when [`finish`] is called; dropped before, it leaves nothing.
/// [`RunFiles::create`] makes one.
pub struct NewFile {
    pub(super) target: PathBuf,
    pub(super) file: File,
    /// Its path until then, on systems that have no files without a name.
    temporary: Option<PathBuf>,
    /// The run that writes it, and the path that was named.
    pub(super) run: Option<(RunFiles, PathBuf)>,
}

impl NewFile {
    /// Creates a file of `len` bytes (all zero) for `target`, on the target's own file system, and reserves its space.
    ///
    /// # Errors
    /// [`Error::Io`] without a folder, permission or space.
    pub(super) fn create(target: &Path, len: u64) -> Result<Self> {
        let bad = |e| Error::io(target, "create", e);
        // A name that the file system cannot have is found here, since the file gets it only in the end.
        if let Err(e) = fs::symlink_metadata(target)
            && e.kind() != io::ErrorKind::NotFound
        {
            return Err(bad(e));
        }
        let (file, temporary) = match nameless(folder(target)) {
            Some(file) => (file.map_err(bad)?, None),
            None => {
                remove_abandoned(folder(target));
                let (file, path) = create_partial(folder(target)).map_err(bad)?;
                (file, Some(path))
            }
        };
        let new = Self { target: target.to_path_buf(), file, temporary, run: None };
        allocate(&new.file, len).map_err(|e| Error::io(&new.target, "write", e))?;
        Ok(new)
    }

    /// Writes bytes at a byte offset.
    ///
    /// # Errors
    /// [`Error::Io`] if they cannot be written.
    pub fn write(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        write_all_at(&self.file, bytes, offset).map_err(|e| Error::io(&self.target, "write", e))
    }

    /// Gives the file its name.
    pub(super) fn get_name(mut self) -> Result<()> {
        let bad = |e| Error::io(&self.target, "create", e);
        let from = match self.temporary.take() {
            Some(path) => path,
            None => give_some_name(&self.file, folder(&self.target)).map_err(bad)?,
        };
        // Who may read the file that is replaced may read the new one.
        if let Some(old) = fs::symlink_metadata(&self.target).ok().filter(|old| old.is_file()) {
            let _ = fs::set_permissions(&from, old.permissions());
        }
        if let Err(e) = fs::rename(&from, &self.target) {
            let _ = fs::remove_file(&from);
            return Err(bad(e));
        }
        sync(folder(&self.target));
        if let Some((run, named)) = &self.run {
            run.written(named);
        }
        Ok(())
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        if let Some(path) = &self.temporary {
            let _ = fs::remove_file(path);
        }
    }
}

/// Replaces a file by what `write` writes; a symbolic link is replaced itself. The file appears complete or not at all.
///
/// # Errors
/// [`Error::Io`] if it cannot be written; those of `write`.
pub fn replace(
    target: &Path,
    write: impl FnOnce(&mut BufWriter<&File>) -> Result<io::Result<()>>,
) -> Result<()> {
    let new = NewFile::create(target, 0)?;
    let bad = |e| Error::io(target, "write", e);
    let mut file = BufWriter::new(&new.file);
    write(&mut file)?.map_err(bad)?;
    file.into_inner().map_err(|e| bad(e.into_error()))?;
    finish(vec![new])
}

/// Makes what was renamed in a folder durable. Not every file system can sync one.
pub(super) fn sync(folder: &Path) {
    let _ = File::open(folder).and_then(|d| d.sync_all());
}

/// The path of the file to replace: what a symbolic link leads to, so that the link is kept.
///
/// # Errors
/// [`Error::NotWritable`] for a folder, a device or a pipe; [`Error::Refused`] for a link that leads nowhere; [`Error::Io`]
/// for one that cannot be followed.
pub(super) fn real_target(target: &Path, follow: bool) -> Result<PathBuf> {
    let path = match fs::symlink_metadata(target) {
        Ok(meta) if meta.is_symlink() && follow => fs::canonicalize(target).map_err(|e| match e.kind() {
            io::ErrorKind::NotFound => leads_nowhere(target),
            _ => Error::io(target, "follow", e),
        })?,
        _ => target.to_path_buf(),
    };
    let system = fs::canonicalize(folder(target)).is_ok_and(|f| {
        ["/dev", "/proc", "/sys"].iter().any(|s| f.starts_with(s)) && !f.starts_with("/dev/shm")
    });
    let found = if follow { fs::metadata(&path) } else { fs::symlink_metadata(&path) };
    if system || found.is_ok_and(|meta| !meta.is_file() && !meta.is_symlink()) {
        return Err(Error::NotWritable { path: target.to_path_buf() });
    }
    Ok(path)
}

/// The error for a symbolic link to what is not there. Nothing is written there unasked: it may be on a disk that is not
/// mounted at the moment.
fn leads_nowhere(link: &Path) -> Error {
    let to = fs::read_link(link).unwrap_or_default();
    let to = if to.is_relative() { folder(link).join(to) } else { to };
    let (link, to) = (link.display(), to.display());
    Error::refused(format!("{link}: is a symbolic link to {to}, which is not there"))
        .or(format!("name {to} itself, or remove the link"))
}

/// A new path in a folder for a file that is not complete yet.
fn partial(folder: &Path) -> PathBuf {
    // Each such state is made of random numbers of the system.
    let random = RandomState::new().hash_one(std::process::id());
    folder.join(format!("{}{random:016x}{}", PARTIAL.0, PARTIAL.1))
}

fn is_partial(name: &OsStr) -> bool {
    name.to_str().is_some_and(|name| name.starts_with(PARTIAL.0) && name.ends_with(PARTIAL.1))
}

/// Creates a file with a random name, locked, so that other runs know that somebody works on it. A link of that name is
/// never followed, since the file must not exist.
fn create_partial(folder: &Path) -> io::Result<(File, PathBuf)> {
    loop {
        let path = partial(folder);
        match File::options().read(true).write(true).create_new(true).open(&path) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
            Err(e) => return Err(e),
            Ok(file) => {
                // Not every file system has locks; there, abandoned files are not removed either.
                let _ = file.try_lock();
                // Another run may have taken it for abandoned before it was locked.
                if fs::symlink_metadata(&path).is_ok() {
                    return Ok((file, path));
                }
            }
        }
    }
}

/// Removes the incomplete files of runs that were killed. Those of runs that go on are locked.
fn remove_abandoned(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if is_partial(&entry.file_name())
            && entry.file_type().is_ok_and(|kind| kind.is_file())
            && let Ok(file) = File::open(entry.path())
            && file.try_lock().is_ok()
        {
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// A file without a name in `folder` (`O_TMPFILE`), with the permissions of any new file; `None` where the system has
/// no such files.
#[cfg(target_os = "linux")]
fn nameless(folder: &Path) -> Option<io::Result<File>> {
    use rustix::fs::{Mode, OFlags};
    if !Path::new("/proc/self/fd").exists() {
        return None;
    }
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    match rustix::fs::open(folder, flags, Mode::from_raw_mode(0o666)) {
        Ok(fd) => Some(Ok(fd.into())),
        Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::ISDIR | rustix::io::Errno::INVAL) => None,
        Err(e) => Some(Err(e.into())),
    }
}

#[cfg(not(target_os = "linux"))]
fn nameless(_: &Path) -> Option<io::Result<File>> {
    None
}

/// Links a file without a name to a new path in a folder, and gives the path.
#[cfg(target_os = "linux")]
fn give_some_name(file: &File, folder: &Path) -> io::Result<PathBuf> {
    use rustix::fs::{AtFlags, CWD};
    use std::os::fd::AsRawFd;
    let from = format!("/proc/self/fd/{}", file.as_raw_fd());
    loop {
        let path = partial(folder);
        match rustix::fs::linkat(CWD, &from, CWD, &path, AtFlags::SYMLINK_FOLLOW) {
            Err(rustix::io::Errno::EXIST) => {}
            Err(e) => return Err(e.into()),
            Ok(()) => return Ok(path),
        }
    }
}

#[cfg(not(target_os = "linux"))]
fn give_some_name(_: &File, _: &Path) -> io::Result<PathBuf> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Sets a file's length and reserves its space, so that a full disk is an error before the work.
fn allocate(file: &File, len: u64) -> io::Result<()> {
    #[cfg(target_os = "linux")]
    if len > 0 {
        use rustix::fs::{FallocateFlags, fallocate};
        use rustix::io::Errno;
        // Not every file system can reserve space; on others a full disk is an error while writing.
        if let Err(e @ (Errno::NOSPC | Errno::FBIG)) = fallocate(file, FallocateFlags::empty(), 0, len) {
            return Err(e.into());
        }
    }
    file.set_len(len)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUT: crate::disk::Output = crate::disk::Output::model("OUT");

    fn create(target: &Path, len: u64) -> Result<NewFile> {
        RunFiles::default().create(target, len, OUT)
    }

    #[test]
    fn a_file_has_no_name_until_it_is_whole() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("model.gguf");
        fs::write(&target, b"old").unwrap();
        let new = create(&target, 8).unwrap();
        new.write(4, b"data").unwrap();
        drop(new);
        assert_eq!(fs::read(&target).unwrap(), b"old");
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 1);

        let new = create(&target, 8).unwrap();
        new.write(4, b"data").unwrap();
        finish(vec![new]).unwrap();
        assert_eq!(fs::read(&target).unwrap(), b"\0\0\0\0data");
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 1);
    }

    #[test]
    #[cfg(unix)]
    fn a_link_that_was_named_is_kept_and_one_that_was_found_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let (real, link) = (dir.path().join("real"), dir.path().join("link"));
        fs::write(&real, b"old").unwrap();
        std::os::unix::fs::symlink("real", &link).unwrap();
        finish(vec![create(&link, 1).unwrap()]).unwrap();
        assert_eq!(fs::read(&real).unwrap(), b"\0");
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());

        let new = RunFiles::default().create_derived(&link, 2, OUT).unwrap();
        finish(vec![new]).unwrap();
        assert_eq!(fs::read(&real).unwrap(), b"\0");
        assert_eq!(fs::symlink_metadata(&link).unwrap().len(), 2);
        fs::remove_file(&link).unwrap();
        std::os::unix::fs::symlink("real", &link).unwrap();
        replace(&link, |file| Ok(io::Write::write_all(file, b"state"))).unwrap();
        assert_eq!((fs::read(&link).unwrap(), fs::read(&real).unwrap()), (b"state".to_vec(), b"\0".to_vec()));
    }

    #[test]
    fn devices_and_folders_are_not_written_to() {
        let dir = tempfile::tempdir().unwrap();
        assert!(create(dir.path(), 1).is_err());
        #[cfg(target_os = "linux")]
        for path in ["/dev/full", "/dev/nothing-of-this-name", "/proc/nothing"] {
            assert!(create(Path::new(path), 1).is_err(), "{path}");
        }
    }

    #[test]
    fn a_name_may_be_as_long_as_names_are() {
        let dir = tempfile::tempdir().unwrap();
        for len in [233, 240, 255] {
            let target = dir.path().join("a".repeat(len));
            finish(vec![create(&target, 1).unwrap()]).unwrap();
            assert_eq!(fs::metadata(&target).unwrap().len(), 1);
        }
        // Before anything is written.
        assert!(matches!(
            create(&dir.path().join("a".repeat(256)), 1),
            Err(Error::Io { what: "create", .. })
        ));
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 3);
    }

    #[test]
    fn incomplete_files_of_killed_runs_are_removed() {
        let dir = tempfile::tempdir().unwrap();
        let (own, path) = create_partial(dir.path()).unwrap();
        let (_other, kept) = create_partial(dir.path()).unwrap();
        fs::write(dir.path().join(".ggufkit-notes"), b"").unwrap();
        drop(own);
        remove_abandoned(dir.path());
        assert!(!path.exists() && kept.exists() && dir.path().join(".ggufkit-notes").exists());
    }

    #[test]
    #[cfg(unix)]
    fn an_incomplete_file_is_a_new_one() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("victim"), b"precious").unwrap();
        let (file, path) = create_partial(dir.path()).unwrap();
        assert!(path != partial(dir.path()), "names are random");
        write_all_at(&file, b"new", 0).unwrap();
        drop(file);
        fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink("victim", &path).unwrap();
        assert!(File::options().write(true).create_new(true).open(&path).is_err(), "links are not followed");
        remove_abandoned(dir.path());
        assert_eq!(fs::read(dir.path().join("victim")).unwrap(), b"precious");
    }
}
