//! JSON on standard output, written as it is made, with nothing in it that a terminal would act on.

use std::io::{self, BufWriter, Write};

use ggufkit::text::is_hidden;
use ggufkit::{Error, Result};
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

/// Prints a value as JSON. It is written piece by piece: an answer may be many times as large as the file that it is
/// about. A closed pipe (`| head`) is not an error.
///
/// # Errors
/// [`Error::Io`] if it cannot be written; [`Error::Refused`] for a value that JSON cannot hold.
pub fn print_json(value: &impl Serialize) -> Result<()> {
    let mut out = BufWriter::with_capacity(1 << 16, io::stdout().lock());
    let written = match serde_json::to_writer_pretty(Visible(&mut out), value) {
        Ok(()) => out.write_all(b"\n").and_then(|()| out.flush()),
        Err(e) if e.is_io() => Err(e.into()),
        Err(e) => return Err(Error::refused(e.to_string())),
    };
    match written {
        Err(e) if e.kind() != io::ErrorKind::BrokenPipe => {
            Err(Error::io("standard output".as_ref(), "write", e))
        }
        _ => Ok(()),
    }
}

/// Writes JSON with hidden characters as JSON's own escapes. They can only be within strings: between them, JSON has
/// spaces and line breaks alone.
struct Visible<W>(W);

impl<W: Write> Write for Visible<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let plain = bytes.is_ascii() && !bytes.contains(&0x7f)
            || std::str::from_utf8(bytes).is_ok_and(|text| !text.chars().any(hidden));
        match std::str::from_utf8(bytes) {
            // serde_json writes whole characters; anything else would not be JSON, and passes as it is.
            Ok(text) if !plain => self.0.write_all(escaped(text).as_bytes())?,
            _ => self.0.write_all(bytes)?,
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

fn hidden(c: char) -> bool {
    is_hidden(c) && c != '\n'
}

fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(2 * text.len());
    for c in text.chars() {
        if hidden(c) {
            c.encode_utf16(&mut [0; 2]).iter().for_each(|unit| out += &format!("\\u{unit:04x}"));
        } else {
            out.push(c);
        }
    }
    out
}

/// A list whose entries are made one at a time, when they are written.
pub struct List<F>(pub F);

impl<F, I> Serialize for List<F>
where
    F: Fn() -> I,
    I: IntoIterator<Item: Serialize>,
{
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.collect_seq((self.0)())
    }
}

/// A JSON object in which two of the members, which are `null` in `rest`, are written piece by piece.
pub struct Filled<'a, A, B> {
    /// All members in their order.
    pub rest: &'a serde_json::Value,
    /// The name of a member, and what it is.
    pub first: (&'static str, A),
    /// That of another.
    pub second: (&'static str, B),
}

impl<A: Serialize, B: Serialize> Serialize for Filled<'_, A, B> {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for (key, value) in self.rest.as_object().into_iter().flatten() {
            match key.as_str() {
                name if name == self.first.0 => map.serialize_entry(key, &self.first.1)?,
                name if name == self.second.0 => map.serialize_entry(key, &self.second.1)?,
                _ => map.serialize_entry(key, value)?,
            }
        }
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(value: &impl Serialize) -> String {
        let mut out = Vec::new();
        serde_json::to_writer_pretty(Visible(&mut out), value).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn json_stays_json_and_shows_everything() {
        let odd = "a\u{9b}2J \u{202e}b\u{e0041}\u{2028}\u{1b}\u{7f} ünï 漢";
        let value = serde_json::json!({ odd: [odd, 1, {"x": odd}] });
        let text = written(&value);
        assert!(!text.chars().any(hidden), "{text:?}");
        assert!(text.contains("ünï 漢") && text.contains("\\udb40\\udc41"), "{text}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&text).unwrap(), value);
    }

    #[test]
    fn a_list_is_what_a_vector_is() {
        let list = List(|| (0..3).map(|i| serde_json::json!({ "i": i })));
        let all: Vec<_> = (0..3).map(|i| serde_json::json!({ "i": i })).collect();
        assert_eq!(written(&list), format!("{:#}", serde_json::Value::from(all.clone())));
        assert_eq!(written(&List(std::iter::empty::<u8>)), "[]");
        let rest = serde_json::json!({ "a": 1, "all": null, "z": [2], "more": null });
        let filled = Filled { rest: &rest, first: ("more", "text"), second: ("all", list) };
        let whole = serde_json::json!({ "a": 1, "all": all, "z": [2], "more": "text" });
        assert_eq!(written(&filled), format!("{whole:#}"));
    }
}
