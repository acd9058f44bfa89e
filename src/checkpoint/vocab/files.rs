//! The files of a checkpoint's folder, and errors in them with their byte offset.

use std::path::{Path, PathBuf};

use formats::{Error as FormatError, Fault};
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::arch::settings::Reader;
use crate::checkpoint::json as tree;
use crate::disk::{self, InFile};
use crate::error::{Error, Result};
use crate::text_file;

/// The longest file that is read, in bytes. The largest published tokenizer.json has 35 MB.
const MAX_FILE: u64 = 256 << 20;
/// The longest JSON file that is read as a tree of values, in bytes: a tree takes many times the memory of its text. The
/// largest published tokenizer_config.json has 1.2 MB.
const MAX_TREE: u64 = 16 << 20;

/// The bytes by which a file's content is recognised.
const PEEK: u64 = 4096;

/// A folder, and the files that were read from it.
pub struct Folder<'a> {
    path: &'a Path,
    /// The files that were read, each once.
    pub read: Vec<PathBuf>,
}

impl<'a> Folder<'a> {
    pub fn new(path: &'a Path) -> Self {
        Self { path, read: Vec::new() }
    }

    /// Whether it has a file of this name.
    pub fn has(&self, name: &str) -> bool {
        self.path.join(name).is_file()
    }

    /// Whether it has a file of this name, without a byte in it.
    pub fn is_empty(&self, name: &str) -> bool {
        std::fs::metadata(self.path.join(name)).is_ok_and(|m| m.is_file() && m.len() == 0)
    }

    /// The path of one of its files, for messages.
    pub fn name(&self, file: &str) -> String {
        self.path.join(file).display().to_string()
    }

    /// A file's bytes; `None` if there is no such file.
    pub fn bytes(&mut self, name: &str) -> Result<Option<Vec<u8>>> {
        self.bytes_up_to(name, MAX_FILE)
    }

    /// A file's bytes, at most so many; `None` if there is no such file.
    fn bytes_up_to(&mut self, name: &str, most: u64) -> Result<Option<Vec<u8>>> {
        // Or it would stay where another model takes this one's place.
        debug_assert!(
            disk::part(name).is_some(),
            "{name} is read as a part of a model, and is none in disk::part"
        );
        let path = self.path.join(name);
        if !path.is_file() {
            return Ok(None);
        }
        let file = InFile::open(&path, false)?;
        limited(&file, most)?;
        let bytes = file.read(0, file.len)?.into_owned();
        if !self.read.contains(&path) {
            self.read.push(path);
        }
        Ok(Some(bytes))
    }

    /// The first bytes of a file; `None` if there is no such file. It does not count as read.
    pub fn peek(&self, name: &str) -> Result<Option<Vec<u8>>> {
        let path = self.path.join(name);
        if !path.is_file() {
            return Ok(None);
        }
        let file = InFile::open(&path, false)?;
        Ok(Some(file.read(0, file.len.min(PEEK))?.into_owned()))
    }

    /// A file's bytes; `None` if there is no such file. It does not count as read.
    pub fn look(&self, name: &str) -> Result<Option<Vec<u8>>> {
        let path = self.path.join(name);
        if !path.is_file() {
            return Ok(None);
        }
        let file = InFile::open(&path, false)?;
        limited(&file, MAX_FILE)?;
        Ok(Some(file.read(0, file.len)?.into_owned()))
    }

    /// The files whose names begin so, sorted.
    pub fn list_here(&self, beginning: &str) -> Vec<String> {
        let entries = std::fs::read_dir(self.path).into_iter().flatten();
        let mut names: Vec<String> = entries
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .filter(|name| name.starts_with(beginning) && self.has(name))
            .collect();
        names.sort();
        names
    }

    /// The path of the folder.
    pub fn path(&self) -> &Path {
        self.path
    }

    /// A file's text.
    pub fn text(&mut self, name: &str) -> Result<Option<String>> {
        let Some(bytes) = self.bytes(name)? else { return Ok(None) };
        text_file::strict(&self.name(name), bytes).map(|decoded| Some(decoded.text))
    }

    /// The text of a file that may say anything, so that nothing shows where it is from: `None`, with a note, for a link
    /// that leads out of the folder, which may lead to a private file.
    pub fn own_text(&mut self, name: &str, notes: &mut Vec<String>) -> Result<Option<String>> {
        match self.leads_out(name) {
            true => {
                let name = self.name(name);
                notes.push(format!("{name}: is a link that leads out of the folder: not read"));
                Ok(None)
            }
            false => self.text(name),
        }
    }

    /// Whether a file is a link that leads out of the folder.
    pub fn leads_out(&self, name: &str) -> bool {
        self.has(name) && disk::leads_out(self.path, &self.path.join(name))
    }

    /// The text of a JSON file.
    ///
    /// # Errors
    /// What the file is, if it is something else.
    pub fn json(&mut self, name: &str) -> Result<Option<String>> {
        self.json_up_to(name, MAX_FILE)
    }

    fn json_up_to(&mut self, name: &str, most: u64) -> Result<Option<String>> {
        let Some(bytes) = self.bytes_up_to(name, most)? else { return Ok(None) };
        tree::text(&self.name(name), bytes).map(Some)
    }

    /// A JSON file whose root is an object.
    pub fn object(&mut self, name: &str) -> Result<Option<Value>> {
        let Some(text) = self.json_up_to(name, MAX_TREE)? else { return Ok(None) };
        let value =
            tree::parse(text.as_bytes(), MAX_TREE).map_err(|e| located(&self.name(name), &text, 0, &e))?;
        if !value.is_object() {
            return Err(wrong(&self.name(name), 0, "the file is not a JSON object"));
        }
        Ok(Some(value))
    }

    /// The files with this ending in a subfolder, sorted, as paths relative to this folder.
    pub fn list(&self, folder: &str, ending: &str) -> Vec<String> {
        let mut names: Vec<String> = std::fs::read_dir(self.path.join(folder))
            .into_iter()
            .flatten()
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .filter(|name| name.ends_with(ending))
            .map(|name| format!("{folder}/{name}"))
            .collect();
        names.sort();
        names
    }
}

/// Refuses a file of more than `most` bytes.
fn limited(file: &InFile, most: u64) -> Result<()> {
    if file.len > most {
        let (what, found) = ("the length of this file of a tokenizer".into(), file.len);
        return Err(FormatError::of(file.name(), Fault::TooMany { what, found, most }).into());
    }
    Ok(())
}

/// The settings of a tokenizer beside its tokens.
pub const TOKENIZER_CONFIG: &str = "tokenizer_config.json";

/// A switch of the folder's tokenizer_config.json, which may be missing or null.
///
/// # Errors
/// [`Error::Format`] for a value of another type.
pub fn switch(folder: &Folder, config: Option<&Value>, key: &str) -> Result<Option<bool>> {
    let Some(config) = config else { return Ok(None) };
    Reader(config).flag(key).map_err(|why| unfit(&folder.name(TOKENIZER_CONFIG), why))
}

/// An error at a byte offset of a file.
pub fn wrong(file: &str, at: usize, what: impl Into<String>) -> Error {
    FormatError::at(file, at as u64, Fault::Unsupported(what.into())).into()
}

/// An error of a file as a whole.
pub fn unfit(file: &str, what: impl Into<String>) -> Error {
    FormatError::of(file, Fault::Unsupported(what.into())).into()
}

/// Parses JSON; errors have their byte offset.
pub fn parse<'de, T: Deserialize<'de>>(file: &str, text: &'de str) -> Result<T> {
    parse_at(file, text, 0)
}

/// Parses a part of a JSON file that was not parsed with the rest. `whole` is the text of the file.
pub fn parse_part<'de, T: Deserialize<'de>>(file: &str, whole: &str, part: &'de RawValue) -> Result<T> {
    let start = (part.get().as_ptr() as usize).saturating_sub(whole.as_ptr() as usize);
    parse_at(file, part.get(), start)
}

fn parse_at<'de, T: Deserialize<'de>>(file: &str, text: &'de str, start: usize) -> Result<T> {
    serde_json::from_str(text).map_err(|e| located(file, text, start, &e))
}

/// Parses a part of a JSON file, of at most `most` bytes, as a tree of values. `whole` is the text of the file.
pub fn parse_tree(file: &str, whole: &str, part: &RawValue, most: u64) -> Result<Value> {
    let start = (part.get().as_ptr() as usize).saturating_sub(whole.as_ptr() as usize);
    tree::parse(part.get().as_bytes(), most).map_err(|e| located(file, part.get(), start, &e))
}

/// An error of a JSON text that begins at a byte of a file.
fn located(file: &str, text: &str, start: usize, e: &serde_json::Error) -> Error {
    // The error counts lines from 1, and in the line the bytes that have been read.
    let before: usize = text.split_inclusive('\n').take(e.line().saturating_sub(1)).map(str::len).sum();
    let at = (before + e.column().saturating_sub(1)).min(text.len());
    let message = e.to_string();
    let what = message.rsplit_once(" at line ").map_or(message.as_str(), |(what, _)| what);
    wrong(file, start + at, what)
}
