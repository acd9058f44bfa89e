//! The files of one run, by identity: what it reads is not written over, whatever the path that leads to it.

#![deny(unsafe_code)]

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use super::output::real_target;
use super::{InFile, NewFile, Output, Stamp, finish, folder, replaced_name, replaced_note};
use crate::error::{Error, Result};

/// The longest text that is read as a whole, in bytes: a prompt, a text to evaluate on, a calibration set.
const MOST_TEXT: u64 = 1 << 30;

/// All files that one run reads and writes. Whatever opens a file for a run does it here, and so does whatever creates
/// one: the two are compared by what the files are (device and inode, the real path), not by how they were named.
///
/// It belongs to one run. A clone is the same value; two runs in one process have one each, and know nothing of one
/// another. [`crate::open()`] makes one for the source that it opens, [`crate::pipeline::prepare`] one for its order.
#[derive(Debug, Clone, Default)]
pub struct RunFiles(Arc<Mutex<Known>>);

#[derive(Debug, Default)]
struct Known {
    read: Files<()>,
    /// Files whose bytes are read piece by piece, as long as the run goes on.
    pieces: Vec<(PathBuf, Stamp)>,
    /// Outputs that are not finished yet.
    claimed: Files<Output>,
    /// What these were before they were written, by the paths that name them.
    named: HashMap<PathBuf, Identity>,
}

/// Files by their identity, with something of each. A split model may have thousands.
#[derive(Debug)]
struct Files<T> {
    by_path: HashMap<PathBuf, T>,
    by_file: HashMap<(u64, u64), T>,
}

impl<T> Default for Files<T> {
    fn default() -> Self {
        Self { by_path: HashMap::new(), by_file: HashMap::new() }
    }
}

impl<T: Copy> Files<T> {
    fn insert(&mut self, identity: Identity, of: T) {
        if let Some(file) = identity.file {
            self.by_file.insert(file, of);
        }
        self.by_path.insert(identity.real, of);
    }

    fn get(&self, identity: &Identity) -> Option<T> {
        let by_file = || self.by_file.get(&identity.file?);
        self.by_path.get(&identity.real).or_else(by_file).copied()
    }

    fn remove(&mut self, identity: &Identity) {
        self.by_path.remove(&identity.real);
        if let Some(file) = identity.file {
            self.by_file.remove(&file);
        }
    }
}

/// An output that is claimed.
#[derive(Debug)]
#[must_use = "the user is told what is replaced"]
pub struct Claimed {
    /// What is replaced, in words, if a file is.
    pub note: Option<String>,
}

/// Whether a path names a folder by its end, whether or not there is one.
pub fn ends_in_slash(path: &Path) -> bool {
    path.as_os_str().as_encoded_bytes().last().is_some_and(|&b| std::path::is_separator(b.into()))
}

/// Which file a path leads to.
#[derive(Debug, Clone)]
struct Identity {
    /// The path without links, as far as it exists.
    real: PathBuf,
    /// Device and inode, on Unix, of a file that exists.
    file: Option<(u64, u64)>,
}

impl Identity {
    fn of(path: &Path) -> Self {
        let beside = || {
            let folder = fs::canonicalize(folder(path)).unwrap_or_else(|_| folder(path).to_path_buf());
            folder.join(path.file_name().unwrap_or_default())
        };
        let real = fs::canonicalize(path).unwrap_or_else(|_| beside());
        Self { real, file: Stamp::at(path).and_then(|stamp| stamp.file) }
    }
}

impl RunFiles {
    fn known(&self) -> MutexGuard<'_, Known> {
        // A panic elsewhere leaves lists that are whole.
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Opens a file whose bytes are read while the run goes on; see [`InFile::open`]. The run's results get their names
    /// only if it is not rewritten meanwhile.
    ///
    /// # Errors
    /// Those of [`InFile::open`]; [`Error::WouldOverwrite`] if the run is to write this file.
    pub fn open(&self, path: &Path, map: bool) -> Result<InFile> {
        self.note(path)?;
        let file = InFile::open(path, map)?;
        self.known().pieces.push((path.to_path_buf(), file.stamp.clone()));
        Ok(file)
    }

    /// Notes a file that is read by other means.
    ///
    /// # Errors
    /// [`Error::WouldOverwrite`] if the run is to write this file.
    pub fn note(&self, path: &Path) -> Result<()> {
        let identity = Identity::of(path);
        let mut known = self.known();
        if known.claimed.get(&identity).is_some() {
            return Err(Error::WouldOverwrite { path: path.to_path_buf() });
        }
        known.read.insert(identity, ());
        Ok(())
    }

    /// Reads a file of at most `most` bytes as a whole. It may be a pipe, but not a device, which need not end.
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be read; [`Error::Refused`] if it is longer; [`Error::NotAFile`] for a device;
    /// [`Error::WouldOverwrite`] if the run is to write this file.
    pub fn read(&self, path: &Path, most: u64) -> Result<Vec<u8>> {
        self.note(path)?;
        let bad = |e| Error::io(path, "read", e);
        let mut file = File::open(path).map_err(bad)?;
        let meta = file.metadata().map_err(bad)?;
        #[cfg(unix)]
        {
            use std::os::unix::fs::FileTypeExt;
            let kind = meta.file_type();
            if kind.is_char_device() || kind.is_block_device() {
                return Err(Error::NotAFile { path: path.to_path_buf() });
            }
        }
        let too_long = || Error::refused(format!("{}: has more than {most} bytes", path.display()));
        if meta.len() > most {
            return Err(too_long());
        }
        let mut bytes = Vec::new();
        bytes
            .try_reserve_exact(meta.len() as usize)
            .map_err(|_| bad(std::io::ErrorKind::OutOfMemory.into()))?;
        file.by_ref().take(most + 1).read_to_end(&mut bytes).map_err(bad)?;
        if bytes.len() as u64 > most { Err(too_long()) } else { Ok(bytes) }
    }

    /// Reads a text of at most 1 GiB: [`RunFiles::read`].
    ///
    /// # Errors
    /// Those of [`RunFiles::read`].
    pub fn read_text(&self, path: &Path) -> Result<Vec<u8>> {
        self.read(path, MOST_TEXT)
    }

    /// Refuses to write over what the run reads.
    ///
    /// # Errors
    /// [`Error::WouldOverwrite`] if `path` leads to a file that the run has read.
    pub fn refuse_input(&self, path: &Path) -> Result<()> {
        match self.known().read.get(&Identity::of(path)) {
            Some(()) => Err(Error::WouldOverwrite { path: path.to_path_buf() }),
            None => Ok(()),
        }
    }

    /// Refuses to write into a folder in which the run reads something, for files that are named by the program.
    ///
    /// # Errors
    /// [`Error::WouldOverwrite`] if a file that the run has read lies in `folder`.
    pub fn refuse_input_in(&self, folder: &Path) -> Result<()> {
        let Ok(folder) = fs::canonicalize(folder) else { return Ok(()) };
        match self.known().read.by_path.keys().filter(|path| path.parent() == Some(&folder)).min() {
            Some(path) => Err(Error::WouldOverwrite { path: path.clone() }),
            None => Ok(()),
        }
    }

    /// Claims a file that the run will write, before the work that makes it: files that the run has read, names that
    /// cannot be, folders that may not be written to, and models where something else is to be written are found now, and
    /// files that it reads later are not these. Tells what is replaced.
    ///
    /// # Errors
    /// [`Error::WouldOverwrite`]; [`Error::IsAFolder`]; [`Error::Usage`] if another option names the same file;
    /// [`Error::Refused`] if a result that is no model would replace one; [`Error::Io`] and [`Error::NotWritable`] if it
    /// cannot be written.
    pub fn claim(&self, path: &Path, output: Output) -> Result<Claimed> {
        let (target, claimed) = self.claim_for(path, output, true)?;
        NewFile::create(&target, 0)?;
        Ok(claimed)
    }

    /// As [`RunFiles::claim`], for a file that the run only says it would write.
    ///
    /// # Errors
    /// Those of [`RunFiles::claim`], but for what creating the file would show.
    pub fn pretend(&self, path: &Path, output: Output) -> Result<Claimed> {
        self.claim_for(path, output, true).map(|(_, claimed)| claimed)
    }

    fn claim_for(&self, path: &Path, output: Output, follow: bool) -> Result<(PathBuf, Claimed)> {
        if follow && is_dash(path) {
            return Err(no_standard_output());
        }
        self.refuse_input(path)?;
        // What is at a name that follows from another is no file in a folder of its own.
        if follow && (path.is_dir() || ends_in_slash(path)) {
            let (what, usual) = (output.what, output.usual);
            return Err(Error::IsAFolder { path: path.to_path_buf(), what, usual });
        }
        let target = real_target(path, follow)?;
        let identity = Identity::of(path);
        if let Some(other) = self.known().claimed.get(&identity) {
            return match other.option == output.option {
                true => Ok((target, Claimed { note: None })),
                false => {
                    let (other, option) = (other.option, output.option);
                    let why = format!("{}: is named by {other} and by {option}", path.display());
                    Err(Error::usage(why).or("give each result a file of its own"))
                }
            };
        }
        let replaced = output.replaces(&target, follow)?;
        let note = replaced.then(|| replaced_note(&replaced_name(path, follow), false));
        let mut known = self.known();
        known.named.insert(path.to_path_buf(), identity.clone());
        known.claimed.insert(identity, output);
        Ok((target, Claimed { note }))
    }

    /// Creates a file of `len` bytes (all zero) that the user has named, on the target's own file system, and reserves its
    /// space. What a symbolic link leads to is replaced, and the link kept.
    ///
    /// # Errors
    /// Those of [`RunFiles::claim`].
    pub fn create(&self, path: &Path, len: u64, output: Output) -> Result<NewFile> {
        self.created(path, len, output, true)
    }

    /// As [`RunFiles::create`], for a name that follows from what the user named: a file in a folder, or a part of a
    /// split model. A symbolic link of this name was not meant by the user, and is replaced itself.
    ///
    /// # Errors
    /// Those of [`RunFiles::claim`].
    pub fn create_derived(&self, path: &Path, len: u64, output: Output) -> Result<NewFile> {
        self.created(path, len, output, false)
    }

    fn created(&self, path: &Path, len: u64, output: Output, follow: bool) -> Result<NewFile> {
        let (target, _) = self.claim_for(path, output, follow)?;
        let mut new = NewFile::create(&target, len)?;
        new.run = Some((self.clone(), path.to_path_buf()));
        Ok(new)
    }

    /// Writes a file that appears complete or not at all.
    ///
    /// # Errors
    /// Those of [`RunFiles::create`] and [`finish`].
    pub fn write_whole(&self, path: &Path, bytes: &[u8], output: Output) -> Result<()> {
        let file = self.create(path, bytes.len() as u64, output)?;
        file.write(0, bytes)?;
        finish(vec![file])
    }

    /// Checks that no file that is read piece by piece was rewritten since it was opened: then what was computed would
    /// be of two states of it.
    ///
    /// # Errors
    /// [`Error::Changed`].
    pub fn unchanged(&self) -> Result<()> {
        let known = self.known();
        let changed =
            |(path, then): &&(PathBuf, Stamp)| Stamp::at(path).is_some_and(|now| then.rewritten(&now));
        match known.pieces.iter().find(changed) {
            Some((path, _)) => Err(Error::Changed { path: path.clone() }),
            None => Ok(()),
        }
    }

    /// A claimed file is finished: from now on it may be read.
    pub(super) fn written(&self, path: &Path) {
        let mut known = self.known();
        if let Some(identity) = known.named.remove(path) {
            known.claimed.remove(&identity);
        }
    }
}

/// Whether a path is `-`, by which other programs mean standard input or output.
pub(crate) fn is_dash(path: &Path) -> bool {
    path.as_os_str() == "-"
}

/// The answer to `-` as an output: results appear whole or not at all, and some are written at many offsets.
pub(crate) fn no_standard_output() -> Error {
    Error::usage("-: a result is written to a file, not to standard output")
        .or("name a file; ./- is one with this name")
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUT: Output = Output::model("OUT");
    const PAGE: Output = Output::result("--report", "the page", "report.html");

    #[test]
    fn what_is_read_is_not_written_whatever_the_path() {
        let dir = tempfile::tempdir().unwrap();
        let (model, text) = (dir.path().join("m"), dir.path().join("t"));
        fs::write(&model, b"model").unwrap();
        fs::write(&text, b"text").unwrap();
        let run = RunFiles::default();
        run.open(&model, true).unwrap();
        run.read_text(&text).unwrap();
        let dotted = dir.path().join(".").join("t");
        let mut paths = vec![model.clone(), text.clone(), dotted];
        #[cfg(unix)]
        {
            let link = dir.path().join("link");
            std::os::unix::fs::symlink("m", &link).unwrap();
            paths.push(link);
        }
        for path in &paths {
            for refused in [
                run.claim(path, PAGE).err(),
                run.write_whole(path, b"new", OUT).err(),
                run.refuse_input(path).err(),
            ] {
                assert!(matches!(refused, Some(Error::WouldOverwrite { .. })), "{refused:?}");
            }
        }
        assert_eq!(
            (fs::read(&model).unwrap(), fs::read(&text).unwrap()),
            (b"model".to_vec(), b"text".to_vec())
        );
        // Another run may.
        RunFiles::default().write_whole(&text, b"new", OUT).unwrap();
    }

    #[test]
    fn what_will_be_written_is_not_read_before() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        for exists in [false, true] {
            let run = RunFiles::default();
            assert_eq!(run.claim(&path, PAGE).unwrap().note.is_some(), exists);
            let refused = run.read_text(&path);
            assert!(matches!(refused, Err(Error::WouldOverwrite { .. })), "{exists}");
            // Nor written twice, by two options.
            assert!(matches!(run.claim(&path, OUT), Err(Error::Usage { .. })));
            run.write_whole(&path, b"done", PAGE).unwrap();
            assert_eq!(run.read_text(&path).unwrap(), b"done");
        }
    }

    #[test]
    fn a_result_of_a_file_that_changed_gets_no_name() {
        let dir = tempfile::tempdir().unwrap();
        let (model, out) = (dir.path().join("m"), dir.path().join("o"));
        for map in [true, false] {
            fs::write(&model, b"model").unwrap();
            let run = RunFiles::default();
            let _file = run.open(&model, map).unwrap();
            let new = run.create(&out, 3, OUT).unwrap();
            fs::write(&model, b"model two").unwrap();
            assert!(matches!(finish(vec![new]), Err(Error::Changed { path }) if path == model));
            assert!(!out.exists());
            // A file that is put into its place leaves the open one as it was.
            let run = RunFiles::default();
            let _file = run.open(&model, map).unwrap();
            fs::write(&out, b"third").unwrap();
            fs::rename(&out, &model).unwrap();
            #[cfg(unix)]
            run.write_whole(&out, b"new", OUT).unwrap();
            let _ = fs::remove_file(&out);
        }
    }

    #[test]
    fn what_need_not_end_is_not_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        fs::write(&path, b"12345").unwrap();
        let run = RunFiles::default();
        assert_eq!(run.read(&path, 5).unwrap(), b"12345");
        assert!(run.read(&path, 4).unwrap_err().to_string().ends_with("f: has more than 4 bytes"));
        #[cfg(unix)]
        assert!(matches!(run.read_text(Path::new("/dev/zero")), Err(Error::NotAFile { .. })));
    }

    #[test]
    fn a_folder_is_no_file_whether_or_not_it_is_there() {
        let dir = tempfile::tempdir().unwrap();
        for path in [dir.path().to_path_buf(), dir.path().join("new/"), dir.path().join("")] {
            let run = RunFiles::default();
            for e in [run.claim(&path, PAGE).unwrap_err(), run.pretend(&path, PAGE).unwrap_err()] {
                assert!(matches!(e, Error::IsAFolder { .. }) && e.exit_code() == 2, "{e}");
                let way = if path.is_dir() { "report.html" } else { "leave out the /" };
                assert!(e.hint().unwrap().contains(way), "{:?}", e.hint());
            }
        }
    }

    #[test]
    fn a_model_is_not_replaced_by_a_page() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("m.html");
        fs::write(&path, b"GGUF\x03\0").unwrap();
        let run = RunFiles::default();
        for refused in [run.claim(&path, PAGE).err(), run.write_whole(&path, b"x", PAGE).err()] {
            assert!(matches!(refused, Some(Error::Refused { .. })), "{refused:?}");
        }
        assert_eq!(fs::read(&path).unwrap(), b"GGUF\x03\0");
        run.write_whole(&path, b"new", OUT).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
    }
}
