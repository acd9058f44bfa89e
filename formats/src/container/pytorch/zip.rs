//! Zip archives, as far as PyTorch writes them: in one file, with stored members.

use std::borrow::Cow;
use std::collections::HashMap;
use std::ops::Range;

use crate::error::{Error, Fault, Result};

/// The length of the record at the end of an archive, without its comment.
const END: u64 = 22;
/// The longest comment.
const COMMENT: u64 = 65_535;
/// The length of the record that says where the 64-bit end record is. It comes before the end record.
const LOCATOR: u64 = 20;
/// The length of the 64-bit end record.
const END64: u64 = 56;
/// The length of a member's entry in the directory, without its name.
const ENTRY: usize = 46;
/// The length of the header before a member's bytes, without its name.
const LOCAL: u64 = 30;
/// The longest directory: that of two hundred thousand members.
const MAX_DIRECTORY: u64 = 16 << 20;

/// The directory of an archive.
pub struct Directory<'a> {
    bytes: Cow<'a, [u8]>,
    /// Where it is in the file. Members come before it.
    at: u64,
}

/// The members of an archive.
pub struct Archive<'d> {
    file: &'d str,
    members: HashMap<&'d str, Member>,
    /// The end of the members' bytes.
    end: u64,
}

#[derive(Debug, Clone, Copy)]
struct Member {
    /// The offset of its header.
    at: u64,
    /// The length of its bytes.
    len: u64,
    /// Whether its bytes are as they were: neither compressed nor encrypted.
    stored: bool,
}

fn u16_at(b: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(b[at..at + 2].try_into().expect("two bytes"))
}

fn u32_at(b: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(b[at..at + 4].try_into().expect("four bytes"))
}

fn u64_at(b: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(b[at..at + 8].try_into().expect("eight bytes"))
}

/// Reads the directory of the archive `file` of `len` bytes; `bytes` gives those of a range within it.
pub fn directory<'a, E: From<Error>>(
    file: &str,
    len: u64,
    bytes: &impl Fn(Range<u64>) -> std::result::Result<Cow<'a, [u8]>, E>,
) -> std::result::Result<Directory<'a>, E> {
    let from = len.saturating_sub(END + COMMENT);
    let tail = bytes(from..len)?;
    // The last record whose comment ends with the file.
    let is_end = |&at: &usize| {
        tail[at..].starts_with(b"PK\x05\x06")
            && at + END as usize + usize::from(u16_at(&tail, at + 20)) == tail.len()
    };
    let end = (0..(tail.len() + 1).saturating_sub(END as usize)).rev().find(is_end);
    let end = end.ok_or_else(|| {
        let why = "is a zip archive without its directory, which is at its end (truncated download?)";
        Error::of(file, Fault::Unsupported(why.into()))
    })?;
    let record = &tail[end..];
    let (mut size, mut at) = (u64::from(u32_at(record, 12)), u64::from(u32_at(record, 16)));
    let mut before = from + end as u64;
    let locator = before.saturating_sub(LOCATOR);
    let found = bytes(locator..before)?;
    if found.len() == LOCATOR as usize && found.starts_with(b"PK\x06\x07") {
        let end64 = u64_at(&found, 8);
        if end64.checked_add(END64).is_none_or(|end| end > locator) {
            return Err(Error::at(
                file,
                locator,
                malformed("the directory's end record is not before its locator"),
            )
            .into());
        }
        let record = bytes(end64..end64 + END64)?;
        if !record.starts_with(b"PK\x06\x06") {
            return Err(Error::at(file, end64, malformed("the directory's end record is missing")).into());
        }
        (size, at, before) = (u64_at(&record, 40), u64_at(&record, 48), end64);
    }
    if at.checked_add(size).is_none_or(|end| end > before) {
        return Err(Error::at(file, before, malformed("the directory is not before its end record")).into());
    }
    if size > MAX_DIRECTORY {
        let what = "the length of the archive's directory".into();
        return Err(Error::at(file, before, Fault::TooMany { what, found: size, most: MAX_DIRECTORY }).into());
    }
    Ok(Directory { bytes: bytes(at..at + size)?, at })
}

fn malformed(why: &str) -> Fault {
    Fault::Header(format!("of the zip archive: {why}"))
}

impl<'d> Archive<'d> {
    /// Reads the members' names and places from the directory of the archive `file`.
    pub fn new(file: &'d str, directory: &'d Directory<'_>) -> Result<Self> {
        let b = &directory.bytes[..];
        let mut members = HashMap::new();
        let mut at = 0;
        while at < b.len() {
            let fault = |why| Error::at(file, directory.at + at as u64, malformed(why));
            let entry = b[at..].split_at_checked(ENTRY).filter(|(entry, _)| entry.starts_with(b"PK\x01\x02"));
            let (entry, rest) = entry.ok_or_else(|| fault("an entry of the directory is malformed"))?;
            let lengths = [28, 30, 32].map(|field| usize::from(u16_at(entry, field)));
            let whole = lengths.iter().sum::<usize>();
            let variable = rest.get(..whole).ok_or_else(|| fault("an entry ends after the directory"))?;
            let (name, variable) = variable.split_at(lengths[0]);
            let name = std::str::from_utf8(name).map_err(|_| fault("a member's name is not UTF-8"))?;
            let [packed, len, offset] = wide(entry, &variable[..lengths[1]])
                .ok_or_else(|| fault("an entry has no room for its 64-bit numbers"))?;
            let stored = u16_at(entry, 10) == 0 && u16_at(entry, 8) & 1 == 0 && packed == len;
            if members.insert(name, Member { at: offset, len, stored }).is_some() {
                let name = name.to_string();
                return Err(Error::of(file, Fault::Duplicate { what: "member of the archive", name }));
            }
            at += ENTRY + whole;
        }
        Ok(Self { file, members, end: directory.at })
    }

    /// The names of all members, in no order.
    pub fn names(&self) -> impl Iterator<Item = &'d str> {
        self.members.keys().copied()
    }

    /// The range of a member's bytes in the file; `None` if there is no such member.
    pub fn find<'a, E: From<Error>>(
        &self,
        name: &str,
        bytes: &impl Fn(Range<u64>) -> std::result::Result<Cow<'a, [u8]>, E>,
    ) -> std::result::Result<Option<Range<u64>>, E> {
        let Some(&Member { at, len, stored }) = self.members.get(name) else { return Ok(None) };
        if !stored {
            let why =
                format!("{name} is compressed or encrypted in the zip archive, which PyTorch never does");
            return Err(Error::at(self.file, at, Fault::Unsupported(why)).into());
        }
        let ends = |end| {
            let (what, len) = (format!("{name} in the zip archive"), self.end);
            Error::at(self.file, at, Fault::Ends { what, end, len })
        };
        let start = at.saturating_add(LOCAL);
        if start > self.end {
            return Err(ends(start).into());
        }
        let header = bytes(at..start)?;
        if !header.starts_with(b"PK\x03\x04") {
            return Err(Error::at(self.file, at, malformed("a member's header is missing")).into());
        }
        let start = start + u64::from(u16_at(&header, 26)) + u64::from(u16_at(&header, 28));
        let end = start.saturating_add(len);
        if end > self.end {
            return Err(ends(end).into());
        }
        Ok(Some(start..end))
    }
}

/// The packed length, the length and the offset of a member. Numbers of 32 bits that are too small are in `extra`.
fn wide(entry: &[u8], extra: &[u8]) -> Option<[u64; 3]> {
    let mut numbers = [20, 24, 42].map(|field| u64::from(u32_at(entry, field)));
    let is_wide = |n: &u64| *n == u64::from(u32::MAX);
    if !numbers.iter().any(is_wide) {
        return Some(numbers);
    }
    let mut rest = extra;
    loop {
        let (head, after) = rest.split_at_checked(4)?;
        let (field, after) = after.split_at_checked(usize::from(u16_at(head, 2)))?;
        if u16_at(head, 0) == 1 {
            let mut eights = field.chunks_exact(8).map(|b| u64_at(b, 0));
            for i in [1, 0, 2] {
                if is_wide(&numbers[i]) {
                    numbers[i] = eights.next()?;
                }
            }
            return Some(numbers);
        }
        rest = after;
    }
}
