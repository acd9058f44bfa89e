//! The fields of a protocol buffer, the format of SentencePiece's models.

use formats::{Error as FormatError, Fault};

use crate::checkpoint::vocab::files::wrong;
use crate::error::Result;

/// The value of a field. Bytes come with their offset in the file.
#[derive(Clone, Copy)]
pub enum Field<'a> {
    Number(u64),
    Word([u8; 4]),
    Bytes(&'a [u8], usize),
    /// Eight bytes, which no field that is read has.
    Other,
}

/// The fields of a message, one by one.
pub struct Fields<'a> {
    name: &'a str,
    bytes: &'a [u8],
    /// The next byte, counted in `bytes`.
    at: usize,
    /// Where the message begins in the file.
    start: usize,
}

impl<'a> Fields<'a> {
    pub fn new(name: &'a str, bytes: &'a [u8], start: usize) -> Self {
        Self { name, bytes, at: 0, start }
    }

    /// The next field: its number, its value and its byte offset in the file.
    pub fn next(&mut self) -> Result<Option<(u64, Field<'a>, usize)>> {
        if self.at == self.bytes.len() {
            return Ok(None);
        }
        let at = self.start + self.at;
        let tag = self.number()?;
        let value = match tag & 7 {
            0 => Field::Number(self.number()?),
            1 => {
                self.take(8)?;
                Field::Other
            }
            2 => {
                let len = self.number()?;
                let start = self.start + self.at;
                Field::Bytes(self.take(len)?, start)
            }
            5 => Field::Word(self.take(4)?.try_into().expect("four bytes were taken")),
            kind => {
                let what =
                    format!("not a SentencePiece model: wire type {kind} (truncated or damaged download?)");
                return Err(wrong(self.name, at, what));
            }
        };
        if tag >> 3 == 0 {
            return Err(wrong(
                self.name,
                at,
                "not a SentencePiece model: field 0 (truncated or damaged download?)",
            ));
        }
        Ok(Some((tag >> 3, value, at)))
    }

    /// A varint: seven bits a byte, the lowest first.
    fn number(&mut self) -> Result<u64> {
        let at = self.at;
        let mut number = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.take(1)?[0];
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                break;
            }
            number |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err(wrong(self.name, self.start + at, "not a SentencePiece model: a number of more than 64 bits"))
    }

    fn take(&mut self, n: u64) -> Result<&'a [u8]> {
        let rest = &self.bytes[self.at..];
        match usize::try_from(n).ok().and_then(|n| rest.get(..n)) {
            Some(taken) => {
                self.at += taken.len();
                Ok(taken)
            }
            None => {
                let at = (self.start + self.at) as u64;
                let (what, end) = ("an item".into(), at.saturating_add(n));
                let len = (self.start + self.bytes.len()) as u64;
                Err(FormatError::at(self.name, at, Fault::Ends { what, end, len }).into())
            }
        }
    }
}
