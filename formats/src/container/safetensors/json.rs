//! JSON objects, entry by entry. No tree is built, so that memory stays within a few times the text, duplicate keys are
//! seen, and every fault has an offset.

use serde::Deserializer as _;
use serde::de::{DeserializeOwned, Error as _, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::error::{Error, Fault, Result};

/// JSON text and where it is in a file.
pub(super) struct Text<'a> {
    /// The file's name.
    pub file: &'a str,
    /// The text.
    pub text: &'a str,
    /// The offset of its first byte in the file.
    pub start: u64,
}

impl<'a> Text<'a> {
    /// The text in a file's bytes.
    pub fn new(file: &'a str, bytes: &'a [u8], start: u64) -> Result<Self> {
        let text = std::str::from_utf8(bytes).map_err(|e| {
            let at = start + e.valid_up_to() as u64;
            Error::at(file, at, Fault::Header("not UTF-8".into()))
        })?;
        Ok(Self { file, text, start })
    }

    /// A fault at a part of the text.
    pub fn fault(&self, part: &str, fault: Fault) -> Error {
        let at = (part.as_ptr() as usize).saturating_sub(self.text.as_ptr() as usize);
        Error::at(self.file, self.start + at as u64, fault)
    }

    /// The error of `serde_json` in a part of the text, with the offset instead of line and column.
    pub fn bad(&self, part: &str, e: &serde_json::Error) -> Error {
        let why = e.to_string();
        let place = format!(" at line {} column {}", e.line(), e.column());
        let why = why.strip_suffix(&place).unwrap_or(&why);
        let lines = part.split_inclusive('\n').take(e.line().saturating_sub(1));
        let at = lines.map(str::len).sum::<usize>() + e.column().saturating_sub(1);
        let mut error = self.fault(part, Fault::Header(why.to_string()));
        error.at = error.at.map(|start| start + at.min(part.len()) as u64);
        error
    }

    /// A part of the text as a value.
    pub fn parse<T: DeserializeOwned>(&self, part: &str) -> Result<T> {
        serde_json::from_str(part).map_err(|e| self.bad(part, &e))
    }

    /// Calls `f` with each key and value of an object, until it fails. `part` is the text of the object.
    pub fn entries(&self, part: &'a str, f: impl FnMut(&'a str, &'a str) -> Result<()>) -> Result<()> {
        let mut visitor = Entries { f, fault: None };
        let mut json = serde_json::Deserializer::from_str(part);
        let done = json.deserialize_map(&mut visitor).and_then(|()| json.end());
        match visitor.fault {
            Some(fault) => Err(fault),
            None => done.map_err(|e| self.bad(part, &e)),
        }
    }
}

struct Entries<F> {
    f: F,
    fault: Option<Error>,
}

impl<'a, F: FnMut(&'a str, &'a str) -> Result<()>> Visitor<'a> for &mut Entries<F> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'a>>(self, mut map: A) -> std::result::Result<(), A::Error> {
        while let Some((key, value)) = map.next_entry::<&'a RawValue, &'a RawValue>()? {
            if let Err(fault) = (self.f)(key.get(), value.get()) {
                self.fault = Some(fault);
                return Err(A::Error::custom("stopped"));
            }
        }
        Ok(())
    }
}
