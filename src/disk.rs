//! Files: inputs are mapped into memory or read in pieces; outputs have no name until they are complete; and what one
//! run reads it does not write over ([`RunFiles`]).

#![allow(unsafe_code)]

mod content;
mod output;
mod parts;
mod run;
mod set;
#[cfg(unix)]
pub mod signals;

use std::borrow::Cow;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File, Metadata};
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use formats::Fault;
use formats::model::Input;

use crate::error::{Error, Result};
use crate::kind::{self, Kind};
#[cfg(target_os = "linux")]
use crate::text::visible;
pub use content::{Output, instead, replaced_name, replaced_note};
pub use output::{NewFile, replace};
pub use parts::{ADAPTER, CONFIG, Part, TEMPLATES, part};
pub use run::{Claimed, RunFiles, ends_in_slash};
pub(crate) use run::{is_dash, no_standard_output};
pub use set::{Replaces, aside_name, finish, finish_set, free_aside_name};

/// What tells whether a file is still what it was: its length, its times, and which file of the file system it is.
///
/// The time of the last change of the file's own record (`ctime` on Unix) is part of it, since tools that copy files
/// often set the modification time to what it was elsewhere.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Stamp {
    len: u64,
    modified: Option<SystemTime>,
    /// Seconds and nanoseconds of `ctime`, on Unix.
    changed: Option<(i64, i64)>,
    /// Device and inode, on Unix.
    file: Option<(u64, u64)>,
}

impl Stamp {
    fn of(meta: &Metadata) -> Self {
        #[cfg(unix)]
        let (changed, file) = {
            use std::os::unix::fs::MetadataExt;
            (Some((meta.ctime(), meta.ctime_nsec())), Some((meta.dev(), meta.ino())))
        };
        #[cfg(not(unix))]
        let (changed, file) = (None, None);
        Self { len: meta.len(), modified: meta.modified().ok(), changed, file }
    }

    /// The stamp of the file at a path; `None` if there is none, or it may not be looked at.
    pub fn at(path: &Path) -> Option<Self> {
        fs::metadata(path).ok().map(|meta| Self::of(&meta))
    }

    /// When the bytes were last changed, where the system tells.
    pub fn modified(&self) -> Option<SystemTime> {
        self.modified
    }

    /// Whether the bytes of the same file have changed. Another file at the path is not a change: who has the first one
    /// open still reads that.
    fn rewritten(&self, now: &Self) -> bool {
        self.file == now.file && (self.len, self.modified) != (now.len, now.modified)
    }
}

/// An input file.
pub struct InFile {
    /// Its path.
    pub path: PathBuf,
    /// Its length in bytes when it was opened.
    pub len: u64,
    /// What it was when it was opened.
    pub stamp: Stamp,
    name: String,
    bytes: Bytes,
}

/// A memory map outlives its file's descriptor, so a model may have more shards than a process may have open files.
enum Bytes {
    Mapped(Map),
    File(File),
}

/// A memory map, and its name for the message of a signal (dropped first).
struct Map {
    #[cfg(target_os = "linux")]
    _named: signals::Named,
    map: memmap2::Mmap,
}

impl Map {
    fn new(map: memmap2::Mmap, path: &Path) -> Self {
        #[cfg(target_os = "linux")]
        {
            let start = map.as_ptr() as usize;
            let name = visible(&path.display().to_string());
            let end = start.saturating_add(map.len());
            Self { _named: signals::Named::new(start..end, name), map }
        }
        #[cfg(not(target_os = "linux"))]
        {
            let _ = path;
            Self { map }
        }
    }
}

impl InFile {
    /// Opens a regular file; `map` maps it into memory where the address space allows. Runs open their inputs with
    /// [`RunFiles::open`], so that no result is written over them.
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
        let stamp = Stamp::of(&file.metadata().map_err(bad)?);
        let len = stamp.len;
        if is_pointer(&file, len) {
            return Err(Error::LfsPointer { path: path.to_path_buf() });
        }
        let map = if map && len > 0 && isize::try_from(len).is_ok() {
            // SAFETY: the map is only read, through `&[u8]`, whose bytes must stay as they are. That cannot be enforced here:
            // it is in the hands of every process that may write to the file, this one too, and of whoever serves it
            // where it lies on another machine. What happens if they do: bytes that are rewritten show up in the middle
            // of our work, and what was checked may no longer hold; reading behind the end of a file that was truncated
            // ends the process (SIGBUS; `signals` says why), and since results get their names last, none is left half.
            // It is accepted, as in other programs that map their inputs, since models are larger than memory and are
            // written once, and since no result gets its name if a source was rewritten meanwhile (`finish`).
            // `map: false` (--no-mmap) reads copies, for files whose writers are not trusted.
            unsafe { memmap2::Mmap::map(&file) }.ok()
        } else {
            None
        };
        let bytes = map.map_or(Bytes::File(file), |map| Bytes::Mapped(Map::new(map, path)));
        Ok(Self { path: path.to_path_buf(), len, stamp, name: path.display().to_string(), bytes })
    }

    /// Its path, as text for messages.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What the file is, by its content; `None` if that is not known.
    pub fn kind(&self) -> Option<Kind> {
        self.parse(kind::of).ok().flatten()
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
            Bytes::Mapped(Map { map, .. }) => {
                let bytes = ends.and_then(|(a, b)| map.get(a..b)).ok_or_else(shrunk);
                bytes.map(Cow::Borrowed).map_err(|e| Error::io(&self.path, "read", e))
            }
            Bytes::File(file) => {
                let len = usize::try_from(len).map_err(|_| {
                    Error::refused(format!("{}: cannot read {len} bytes at once on this machine", self.name))
                })?;
                let mut buffer = vec![0; len];
                let read = read_exact_at(file, &mut buffer, offset);
                let read =
                    read.map_err(|e| if e.kind() == io::ErrorKind::UnexpectedEof { shrunk() } else { e });
                read.map_err(|e| Error::io(&self.path, "read", e))?;
                Ok(Cow::Owned(buffer))
            }
        }
    }

    /// Advises the operating system that `len` bytes at `offset` of a mapped file will be read soon.
    pub fn will_read(&self, offset: u64, len: u64) {
        #[cfg(unix)]
        if let Bytes::Mapped(Map { map, .. }) = &self.bytes
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

/// The folder of a path; `.` for a bare file name.
pub fn folder(path: &Path) -> &Path {
    path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Whether a file's path leads out of the folder that it is in, by a symbolic link. The hub's cache keeps the files of
/// `snapshots/REVISION` in `blobs` beside `snapshots`; these links are meant, and do not lead out.
pub fn leads_out(folder: &Path, file: &Path) -> bool {
    let (Ok(folder), Ok(real)) = (fs::canonicalize(folder), fs::canonicalize(file)) else { return false };
    let snapshots = folder.ancestors().find(|a| a.file_name().is_some_and(|name| name == "snapshots"));
    let blobs = snapshots.and_then(Path::parent).map(|cache| cache.join("blobs"));
    !real.starts_with(&folder) && !blobs.is_some_and(|blobs| real.starts_with(blobs))
}

/// The name of part `no` (from 0) of `count` of a split model whose file name is `name`, with this ending. Bytes of the
/// name that are not UTF-8 stay as they are.
pub fn part_name(name: &OsStr, no: usize, count: usize, ending: &str) -> OsString {
    let mut part = split_stem(name);
    part.push(formats::container::part_stem("", no, count));
    part.push(".");
    part.push(ending);
    part
}

/// A file name without its extension and, if it is a part of a split model, without the part's number.
pub fn split_stem(name: &OsStr) -> OsString {
    let stem = Path::new(name).file_stem().unwrap_or_default();
    let text = stem.to_string_lossy();
    let Some((rest, ..)) = formats::container::parse_part_stem(&text) else { return stem.to_os_string() };
    without_end(stem, text.len() - rest.len()).unwrap_or_else(|| rest.into())
}

/// A name without its last `count` bytes, which are ASCII; `None` where names are not bytes, unless this one is UTF-8.
fn without_end(name: &OsStr, count: usize) -> Option<OsString> {
    #[cfg(unix)]
    {
        use std::os::unix::ffi::OsStrExt;
        let bytes = name.as_bytes();
        Some(OsStr::from_bytes(&bytes[..bytes.len().checked_sub(count)?]).to_os_string())
    }
    #[cfg(not(unix))]
    {
        let text = name.to_str()?;
        Some(text[..text.len().checked_sub(count)?].into())
    }
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

    #[test]
    fn names_of_parts_keep_their_bytes() {
        let part = |name: &str| part_name(OsStr::new(name), 0, 3, "gguf");
        assert_eq!(part("model.gguf"), "model-00001-of-00003.gguf");
        assert_eq!(part("model-00002-of-00002.gguf"), "model-00001-of-00003.gguf");
        assert_eq!(split_stem(OsStr::new("model-00004-of-00003.gguf")), "model-00004-of-00003");
        assert_eq!(split_stem(OsStr::new("model-1-of-3.gguf")), "model-1-of-3");
        #[cfg(unix)]
        {
            use std::os::unix::ffi::OsStrExt;
            let odd = OsStr::from_bytes(b"\xfe\xff-00001-of-00002.gguf");
            assert_eq!(split_stem(odd).as_bytes(), b"\xfe\xff");
            assert_eq!(part_name(odd, 1, 4, "gguf").as_bytes(), b"\xfe\xff-00002-of-00004.gguf");
        }
    }

    #[test]
    #[cfg(unix)]
    fn links_lead_out_of_a_folder_or_into_the_cache() {
        use std::os::unix::fs::symlink;
        let dir = tempfile::tempdir().unwrap();
        let snapshot = dir.path().join("models--a--b/snapshots/0123");
        let blobs = dir.path().join("models--a--b/blobs");
        fs::create_dir_all(&snapshot).unwrap();
        fs::create_dir_all(&blobs).unwrap();
        for path in [blobs.join("abc"), dir.path().join("secret"), snapshot.join("own")] {
            fs::write(path, b"x").unwrap();
        }
        symlink("../../blobs/abc", snapshot.join("blob")).unwrap();
        symlink("../../../secret", snapshot.join("out")).unwrap();
        symlink("own", snapshot.join("alias")).unwrap();
        let out = |name: &str| leads_out(&snapshot, &snapshot.join(name));
        assert_eq!(["blob", "alias", "own", "out"].map(out), [false, false, false, true]);
        // The folder itself may be reached by a link.
        let elsewhere = dir.path().join("elsewhere");
        symlink(&snapshot, &elsewhere).unwrap();
        assert!(
            !leads_out(&elsewhere, &elsewhere.join("own")) && leads_out(&elsewhere, &elsewhere.join("out"))
        );
    }
}
