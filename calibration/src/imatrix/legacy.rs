//! The older kind of file, `.dat`, without a magic number and in the byte order of the machine that wrote it.
//!
//! * i32: the number of entries. For each of them:
//!   * i32 and so many bytes: the tensor's name;
//!   * i32: the number of chunks on which it was measured;
//!   * i32 and so many f32: the mean squares of the inputs times the number of chunks (not multiplied if that is 0), those
//!     of stacked matrices one after the other. A matrix that was never used has means of 1.
//! * In later files: i32, the number of chunks; i32 and so many bytes, the name of the text.

use std::collections::BTreeMap;
use std::sync::Arc;

use formats::model::ByteOrder;

use super::{check_count, values};
use crate::error::{Error, Fault, Result};
use crate::statistics::{CHUNK_SIZE, Entry, Statistics, Unit};

/// The fewest bytes of an entry: two lengths, a count, a letter and a value.
const LEAST: u64 = 4 + 1 + 4 + 4 + 4;

/// Reads a `.dat`, in the byte order in which the file can hold its number of entries.
///
/// # Errors
/// [`Fault::NotAnImatrix`], [`Fault::Sizes`] or [`Fault::Value`] for invalid content; [`Error::Format`] for a truncated file,
/// a text that is not UTF-8 or a duplicate name.
pub fn read(name: &str, bytes: &[u8]) -> Result<Statistics> {
    let possible = |order: ByteOrder| {
        let first = bytes.first_chunk::<4>().map_or(0, |b| u32::from_le_bytes(order.le(*b)));
        first > 0 && u64::from(first) <= (bytes.len() as u64 - 4) / LEAST
    };
    let order = [ByteOrder::Little, ByteOrder::Big].into_iter().find(|&order| possible(order));
    let order = order.ok_or_else(|| {
        let why = "it does not begin as a GGUF, nor with a number of entries as a .dat does";
        Error::new(name, None, Fault::NotAnImatrix(why.into()))
    })?;
    let mut r = Reader { name, bytes, at: 0, order };
    let count = r.number("the number of entries")?;
    check_count(name, count.into())?;
    let (mut entries, mut uncounted) = (BTreeMap::new(), Vec::new());
    for i in 0..count {
        let at = r.at;
        let entry = r.text(|| format!("the name of entry {i}"))?;
        let chunks = r.number("a number of chunks")?;
        let sized_at = r.at;
        let size = r.number("a number of values")?;
        let values_at = r.at;
        let values_bytes = r.take(4 * u64::from(size), || format!("the values of {entry}"))?;
        if size == 0 {
            let fault = Fault::Sizes { entry, values: 0, counts: 1 };
            return Err(Error::new(name, Some(sized_at as u64), fault));
        }
        let sums = values(name, &entry, values_at as u64, order, values_bytes)?;
        if chunks == 0 {
            uncounted.push(entry.clone());
        }
        // With a count of 0 the values are the means themselves, as with a count of 1.
        let value = Entry::new(sums, vec![chunks.max(1).into()]).expect("the values were checked");
        let value = Arc::new(value);
        if entries.insert(entry.clone(), value).is_some() {
            let fault = formats::Fault::Duplicate { what: "entry", name: entry };
            return Err(formats::Error::at(name, at as u64, fault).into());
        }
    }
    let notes = uncounted.first().map(|first| {
        let n = uncounted.len();
        format!(
            "{name}: {n} of {count} entries have no number of chunks (the first is {first}): their values are taken as they \
             are, but may never have been measured"
        )
    });
    let notes = notes.into_iter().collect();
    let mut statistics =
        Statistics { file: name.to_string(), entries, unit: Unit::Chunks, notes, ..Statistics::default() };
    if r.left() > 0 {
        statistics.chunks = Some(r.number("the number of chunks")?.into()).filter(|&n| n > 0);
    }
    if r.left() > 0 {
        let text = r.text_or_nothing(|| "the name of the text".into())?;
        statistics.datasets.extend(Some(text).filter(|t| !t.is_empty()));
    }
    if r.left() > 0 {
        let why = format!("{} bytes after its end", r.left());
        return Err(Error::new(name, Some(r.at as u64), Fault::NotAnImatrix(why)));
    }
    Ok(statistics)
}

/// Writes a little-endian `.dat`, with entries by name.
///
/// It cannot hold the counts of single matrices, the number of tokens, nor more than one text (the last one). A matrix that was
/// not measured has means of 1, and an entry without any measured matrix is omitted, all as in llama-imatrix. Means are
/// rounded once more, by up to one unit in the last place, unless counts are chunks already.
///
/// # Errors
/// [`Fault::Unwritable`] if nothing was measured, an entry has no name, or a number does not fit an i32.
pub fn write(statistics: &Statistics) -> Result<Vec<u8>> {
    let unwritable = |why: String| Error::new(&statistics.file, None, Fault::Unwritable(why));
    let fits = |n: u64, what: &str| match i32::try_from(n) {
        Ok(n) => Ok(n.to_le_bytes()),
        Err(_) => Err(unwritable(format!("{what} is {n}, expected at most {} in a .dat", i32::MAX))),
    };
    let measured: Vec<_> =
        statistics.entries.iter().filter(|(_, e)| e.counts().iter().any(|&c| c > 0)).collect();
    if measured.is_empty() {
        return Err(unwritable("nothing was measured".into()));
    }
    let mut bytes = fits(measured.len() as u64, "the number of entries")?.to_vec();
    for (name, entry) in measured {
        if name.is_empty() {
            return Err(unwritable("an entry has no name".into()));
        }
        bytes.extend(fits(name.len() as u64, "the length of a name")?);
        bytes.extend(name.as_bytes());
        let most = entry.counts().iter().copied().max().expect("an entry has counts");
        let chunks = match statistics.unit {
            Unit::Chunks => most,
            Unit::Tokens => most.div_ceil(statistics.chunk_size.unwrap_or(CHUNK_SIZE)),
        };
        bytes.extend(fits(chunks, &format!("the number of chunks of {name}"))?);
        bytes.extend(fits(entry.sums().len() as u64, &format!("the number of values of {name}"))?);
        for (sums, count) in entry.matrices() {
            let value = |&sum: &f32| match count {
                _ if count == chunks => sum, // in chunks already: stays exact
                0 => chunks as f32,
                _ => (sum / count as f32 * chunks as f32).min(f32::MAX),
            };
            bytes.extend(sums.iter().flat_map(|x| value(x).to_le_bytes()));
        }
    }
    bytes.extend(fits(statistics.chunks.unwrap_or(0), "the number of chunks")?);
    let text = statistics.datasets.last().map_or("", String::as_str);
    bytes.extend(fits(text.len() as u64, "the length of the text's name")?);
    bytes.extend(text.as_bytes());
    Ok(bytes)
}

struct Reader<'a> {
    name: &'a str,
    bytes: &'a [u8],
    at: usize,
    order: ByteOrder,
}

impl<'a> Reader<'a> {
    fn left(&self) -> usize {
        self.bytes.len() - self.at
    }

    fn fault(&self, at: usize, fault: formats::Fault) -> Error {
        formats::Error::at(self.name, at as u64, fault).into()
    }

    fn take(&mut self, n: u64, what: impl FnOnce() -> String) -> Result<&'a [u8]> {
        let rest = &self.bytes[self.at..];
        match usize::try_from(n).ok().and_then(|n| rest.get(..n)) {
            Some(found) => {
                self.at += found.len();
                Ok(found)
            }
            None => {
                let (end, len) = (self.at as u64 + n, self.bytes.len() as u64);
                Err(self.fault(self.at, formats::Fault::Ends { what: what(), end, len }))
            }
        }
    }

    /// A non-negative number.
    fn number(&mut self, what: &str) -> Result<u32> {
        let at = self.at;
        let bytes = self.take(4, || what.to_string())?.try_into().expect("four bytes were taken");
        let found = u32::from_le_bytes(self.order.le(bytes));
        let most = i32::MAX as u32;
        if found > most {
            let (found, most) = (found.into(), most.into());
            return Err(self.fault(at, formats::Fault::TooMany { what: what.to_string(), found, most }));
        }
        Ok(found)
    }

    fn text_or_nothing(&mut self, what: impl Fn() -> String) -> Result<String> {
        let at = self.at;
        let n = self.number(&format!("the length of {}", what()))?;
        String::from_utf8(self.take(n.into(), &what)?.to_vec())
            .map_err(|_| self.fault(at, formats::Fault::Text { what: what(), problem: "not UTF-8".into() }))
    }

    fn text(&mut self, what: impl Fn() -> String) -> Result<String> {
        let at = self.at;
        let text = self.text_or_nothing(&what)?;
        if text.is_empty() {
            return Err(self.fault(at, formats::Fault::Text { what: what(), problem: "empty".into() }));
        }
        Ok(text)
    }
}
