//! Files: inputs are mapped into memory or read in pieces; outputs have no name until they are complete.

#![allow(unsafe_code)]

use std::borrow::Cow;
use std::fs::{self, File};
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use formats::Fault;
use formats::model::Input;

use crate::error::{Error, Result};

/// An input file.
pub struct InFile {
    /// Its path.
    pub path: PathBuf,
    /// Its length in bytes when it was opened.
    pub len: u64,
    name: String,
    bytes: Bytes,
}

/// A memory map outlives its file's descriptor, so a model may have more shards than a process may have open files.
enum Bytes {
    Mapped(memmap2::Mmap),
    File(File),
}

impl InFile {
    /// Opens a regular file; `map` maps it into memory where the address space allows.
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be opened; [`Error::NotAFile`]; [`Error::LfsPointer`].
    pub fn open(path: &Path, map: bool) -> Result<Self> {
        let bad = |e| Error::io(path, "open", e);
        let meta = fs::metadata(path).map_err(bad)?;
        if !meta.is_file() {
            return Err(Error::NotAFile { path: path.to_path_buf() });
        }
        let file = File::open(path).map_err(bad)?;
        let len = meta.len();
        if is_pointer(&file, len) {
            return Err(Error::LfsPointer { path: path.to_path_buf() });
        }
        let map = if map && len > 0 && isize::try_from(len).is_ok() {
            // SAFETY: the map is only read, through `&[u8]`, whose bytes must stay as they are. That cannot be enforced here:
            // it is in the hands of every process that may write to the file, this one too, and of whoever serves it
            // where it lies on another machine. What happens if they do: bytes that are rewritten show up in the middle
            // of our work, and what was checked may no longer hold; reading behind the end of a file that was truncated
            // ends the process (SIGBUS), and since results get their names last, none is left half. It is accepted, as
            // in other programs that map their inputs, since models are larger than memory and are written once.
            // `map: false` (--no-mmap) reads copies, for files whose writers are not trusted.
            unsafe { memmap2::Mmap::map(&file) }.ok()
        } else {
            None
        };
        let bytes = map.map_or(Bytes::File(file), Bytes::Mapped);
        Ok(Self { path: path.to_path_buf(), len, name: path.display().to_string(), bytes })
    }

    /// Its path, as text for messages.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Parses the file: calls `parse` with the start of the file, and with more of it for as long as that gives
    /// [`Fault::More`].
    ///
    /// # Errors
    /// [`Error::Format`] with the error of `parse`; [`Error::Io`] if the file cannot be read.
    pub fn parse<T>(&self, parse: impl Fn(&Input) -> formats::Result<T>) -> Result<T> {
        self.parse_range(0..self.len, parse)
    }

    /// Parses a range of the file as if it were a file: offsets count from its start.
    ///
    /// # Errors
    /// Those of [`InFile::parse`].
    pub fn parse_range<T>(
        &self,
        range: Range<u64>,
        parse: impl Fn(&Input) -> formats::Result<T>,
    ) -> Result<T> {
        let len = range.end - range.start;
        let mut want = if matches!(self.bytes, Bytes::Mapped(_)) { len } else { 1 << 20 };
        loop {
            let bytes = self.read(range.start, want.min(len))?;
            match parse(&Input { name: &self.name, bytes: &bytes, len }) {
                Err(formats::Error { fault: Fault::More(n), .. }) if (bytes.len() as u64) < len => {
                    want = n.max(2 * want);
                }
                other => return Ok(other?),
            }
        }
    }

    /// The `len` bytes at `offset`, borrowed where the file is mapped.
    ///
    /// # Errors
    /// [`Error::Io`] if the file cannot be read, or has become shorter; [`Error::Refused`] for more bytes than this
    /// machine can address.
    pub fn read(&self, offset: u64, len: u64) -> Result<Cow<'_, [u8]>> {
        let shrunk = || io::Error::new(io::ErrorKind::UnexpectedEof, "the file has shrunk");
        let end = offset.checked_add(len).and_then(|end| usize::try_from(end).ok());
        let ends = usize::try_from(offset).ok().zip(end);
        match &self.bytes {
            Bytes::Mapped(map) => {
                let bytes = ends.and_then(|(a, b)| map.get(a..b)).ok_or_else(shrunk);
                bytes.map(Cow::Borrowed).map_err(|e| Error::io(&self.path, "read", e))
            }
            Bytes::File(file) => {
                let len = usize::try_from(len).map_err(|_| {
                    Error::refused(format!("{}: cannot read {len} bytes at once on this machine", self.name))
                })?;
                let mut buffer = vec![0; len];
                read_exact_at(file, &mut buffer, offset).map_err(|e| Error::io(&self.path, "read", e))?;
                Ok(Cow::Owned(buffer))
            }
        }
    }

    /// Advises the operating system that `len` bytes at `offset` of a mapped file will be read soon.
    pub fn will_read(&self, offset: u64, len: u64) {
        #[cfg(unix)]
        if let Bytes::Mapped(map) = &self.bytes
            && let (Ok(offset), Ok(len)) = (usize::try_from(offset), usize::try_from(len))
        {
            // Advice only: without it the pages come one fault at a time.
            let _ = map.advise_range(memmap2::Advice::WillNeed, offset, len);
        }
        #[cfg(not(unix))]
        let _ = (offset, len);
    }
}

/// Whether a file is a Git LFS pointer, which a clone has in place of a large file where Git LFS is not installed.
fn is_pointer(file: &File, len: u64) -> bool {
    const START: &[u8] = b"version https://git-lfs.github.com/spec/";
    let mut start = [0; START.len()];
    // Real ones have some 130 bytes.
    (START.len() as u64..1024).contains(&len) && read_exact_at(file, &mut start, 0).is_ok() && start == START
}

#[cfg(unix)]
fn read_exact_at(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, buffer, offset)
}

#[cfg(windows)]
fn read_exact_at(file: &File, mut buffer: &mut [u8], mut offset: u64) -> io::Result<()> {
    while !buffer.is_empty() {
        let n = std::os::windows::fs::FileExt::seek_read(file, buffer, offset)?;
        if n == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        (buffer, offset) = (&mut buffer[n..], offset + n as u64);
    }
    Ok(())
}

#[cfg(unix)]
fn write_all_at(file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::write_all_at(file, bytes, offset)
}

#[cfg(windows)]
fn write_all_at(file: &File, mut bytes: &[u8], mut offset: u64) -> io::Result<()> {
    while !bytes.is_empty() {
        let n = std::os::windows::fs::FileExt::seek_write(file, bytes, offset)?;
        (bytes, offset) = (&bytes[n..], offset + n as u64);
    }
    Ok(())
}

/// A temporary file without a name, for what does not fit into memory. It is deleted when dropped.
pub struct Scratch {
    folder: PathBuf,
    file: File,
}

impl Scratch {
    /// Creates one in a folder.
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be created.
    pub fn new(folder: &Path) -> Result<Self> {
        let file = tempfile::tempfile_in(folder).map_err(|e| Error::io(folder, "create", e))?;
        Ok(Self { folder: folder.to_path_buf(), file })
    }

    /// Fills `bytes` from a byte offset.
    ///
    /// # Errors
    /// [`Error::Io`] if they cannot be read.
    pub fn read(&self, offset: u64, bytes: &mut [u8]) -> Result<()> {
        read_exact_at(&self.file, bytes, offset).map_err(|e| Error::io(&self.folder, "read", e))
    }

    /// Writes bytes at a byte offset.
    ///
    /// # Errors
    /// [`Error::Io`] if they cannot be written.
    pub fn write(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        write_all_at(&self.file, bytes, offset).map_err(|e| Error::io(&self.folder, "write", e))
    }
}

/// An output file that is being written. It gets its name when [`finish`] is called; dropped before, it leaves nothing.
pub struct NewFile {
    target: PathBuf,
    file: File,
    /// Its path until then, on systems that have no files without a name.
    temporary: Option<PathBuf>,
}

impl NewFile {
    /// Creates a file of `len` bytes (all zero) for `target`, on the target's own file system, and reserves its space.
    ///
    /// # Errors
    /// [`Error::Io`] without a folder, permission or space; [`Error::NotWritable`]; [`Error::Busy`].
    pub fn create(target: &Path, len: u64) -> Result<Self> {
        let target = real_target(target)?;
        let bad = |e| Error::io(&target, "create", e);
        let (file, temporary) = match nameless(folder(&target)) {
            Some(file) => (file.map_err(bad)?, None),
            None => {
                let path = partial(&target, "");
                let file = File::options()
                    .read(true)
                    .write(true)
                    .create(true)
                    .truncate(false)
                    .open(&path)
                    .map_err(bad)?;
                // The name is the same for every run, so that a file that an interrupted run left is reused by the
                // next; the lock keeps concurrent runs apart.
                file.try_lock().map_err(|_| Error::Busy { path: target.clone() })?;
                file.set_len(0).map_err(bad)?;
                (file, Some(path))
            }
        };
        let new = Self { target, file, temporary };
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
}

impl Drop for NewFile {
    fn drop(&mut self) {
        if let Some(path) = &self.temporary {
            let _ = fs::remove_file(path);
        }
    }
}

/// Writes a file that appears complete or not at all.
///
/// # Errors
/// Those of [`NewFile::create`] and [`finish`].
pub fn write_whole(target: &Path, bytes: &[u8]) -> Result<()> {
    let file = NewFile::create(target, bytes.len() as u64)?;
    file.write(0, bytes)?;
    finish(vec![file])
}

/// Gives files their names, in the order given, after all of them have been synced to disk.
///
/// # Errors
/// [`Error::Io`] if a file cannot be synced or renamed. Files that have been renamed by then stay.
pub fn finish(files: Vec<NewFile>) -> Result<()> {
    for f in &files {
        f.file.sync_all().map_err(|e| Error::io(&f.target, "write", e))?;
    }
    for mut f in files {
        let bad = |e| Error::io(&f.target, "create", e);
        let from = match f.temporary.take() {
            Some(path) => path,
            None => {
                // Concurrent runs must not use the same name.
                let path = partial(&f.target, &format!(".{}", std::process::id()));
                give_name(&f.file, &path).map_err(bad)?;
                path
            }
        };
        if let Err(e) = fs::rename(&from, &f.target) {
            let _ = fs::remove_file(&from);
            return Err(bad(e));
        }
        // The rename is durable when the folder is. Not every file system can sync one.
        let _ = File::open(folder(&f.target)).and_then(|d| d.sync_all());
    }
    Ok(())
}

/// The path of the file to replace: what a symbolic link leads to, so that the link is kept.
fn real_target(target: &Path) -> Result<PathBuf> {
    let path = match fs::symlink_metadata(target) {
        Ok(meta) if meta.is_symlink() => {
            fs::canonicalize(target).map_err(|e| Error::io(target, "follow", e))?
        }
        _ => target.to_path_buf(),
    };
    let system = fs::canonicalize(folder(target)).is_ok_and(|f| {
        ["/dev", "/proc", "/sys"].iter().any(|s| f.starts_with(s)) && !f.starts_with("/dev/shm")
    });
    if system || fs::metadata(&path).is_ok_and(|meta| !meta.is_file()) {
        return Err(Error::NotWritable { path: target.to_path_buf() });
    }
    Ok(path)
}

/// Refuses to overwrite an input of the same run.
///
/// # Errors
/// [`Error::WouldOverwrite`] if `out` is one of the files in `read`, whatever the path that leads to it.
pub fn refuse_overwriting<'a>(out: &Path, read: impl IntoIterator<Item = &'a Path>) -> Result<()> {
    let real = |p: &Path| std::fs::canonicalize(p).ok();
    let own = real(out);
    match read.into_iter().find(|p| own.is_some() && real(p) == own || *p == out) {
        Some(path) => Err(Error::WouldOverwrite { path: path.to_path_buf() }),
        None => Ok(()),
    }
}

/// The folder of a path; `.` for a bare file name.
pub fn folder(path: &Path) -> &Path {
    path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// The path of a file that is not complete yet, beside its target.
fn partial(target: &Path, run: &str) -> PathBuf {
    let name = target.file_name().unwrap_or_default().to_string_lossy();
    folder(target).join(format!(".{name}{run}.ggufkit-partial"))
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

/// Links a file without a name to a path.
#[cfg(target_os = "linux")]
fn give_name(file: &File, path: &Path) -> io::Result<()> {
    use rustix::fs::{AtFlags, CWD};
    use std::os::fd::AsRawFd;
    let from = format!("/proc/self/fd/{}", file.as_raw_fd());
    let link = || rustix::fs::linkat(CWD, &from, CWD, path, AtFlags::SYMLINK_FOLLOW);
    match link() {
        // Left by a run that was killed between linking and renaming.
        Err(rustix::io::Errno::EXIST) => {
            fs::remove_file(path)?;
            Ok(link()?)
        }
        other => Ok(other?),
    }
}

#[cfg(not(target_os = "linux"))]
fn give_name(_: &File, _: &Path) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Sets a file's length and reserves its space, so that a full disk is an error before the work.
fn allocate(file: &File, len: u64) -> io::Result<()> {
    #[cfg(target_os = "linux")]
    if len > 0 {
        use rustix::fs::{FallocateFlags, fallocate};
        use rustix::io::Errno;
        // Not every file system can reserve space; on others a full disk is an error while writing.
        if let Err(Errno::NOSPC) = fallocate(file, FallocateFlags::empty(), 0, len) {
            return Err(Errno::NOSPC.into());
        }
    }
    file.set_len(len)
}

/// Free bytes on the file system of the target's folder, where the operating system tells.
pub fn free_space(target: &Path) -> Option<u64> {
    #[cfg(unix)]
    {
        let s = rustix::fs::statvfs(folder(target)).ok()?;
        Some(s.f_bavail.saturating_mul(s.f_frsize))
    }
    #[cfg(not(unix))]
    {
        let _ = target;
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_has_no_name_until_it_is_whole() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("model.gguf");
        fs::write(&target, b"old").unwrap();
        let new = NewFile::create(&target, 8).unwrap();
        new.write(4, b"data").unwrap();
        drop(new);
        assert_eq!(fs::read(&target).unwrap(), b"old");
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 1);

        let new = NewFile::create(&target, 8).unwrap();
        new.write(4, b"data").unwrap();
        finish(vec![new]).unwrap();
        assert_eq!(fs::read(&target).unwrap(), b"\0\0\0\0data");
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 1);
    }

    #[test]
    #[cfg(unix)]
    fn symbolic_links_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        let (real, link) = (dir.path().join("real"), dir.path().join("link"));
        fs::write(&real, b"old").unwrap();
        std::os::unix::fs::symlink("real", &link).unwrap();
        let new = NewFile::create(&link, 1).unwrap();
        finish(vec![new]).unwrap();
        assert_eq!(fs::read(&real).unwrap(), b"\0");
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    }

    #[test]
    fn devices_and_folders_are_not_written_to() {
        let dir = tempfile::tempdir().unwrap();
        assert!(NewFile::create(dir.path(), 1).is_err());
        #[cfg(target_os = "linux")]
        for path in ["/dev/full", "/dev/nothing-of-this-name", "/proc/nothing"] {
            assert!(NewFile::create(Path::new(path), 1).is_err(), "{path}");
        }
    }

    #[test]
    fn mapped_and_plain_reads_agree() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        fs::write(&path, (0..=255).collect::<Vec<u8>>()).unwrap();
        for map in [true, false] {
            let f = InFile::open(&path, map).unwrap();
            assert_eq!(&f.read(10, 3).unwrap()[..], [10, 11, 12]);
            assert!(f.read(250, 10).is_err());
        }
    }
}
