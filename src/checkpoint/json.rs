//! JSON as Python writes it. Python's `json` module writes the floats `NaN`, `Infinity` and `-Infinity`, which JSON does
//! not have, and Hugging Face's settings files are written with it.

use std::borrow::Cow;

use serde::de::Error as _;
use serde_json::{Error as JsonError, Value};

use crate::arch::settings::FLOAT_TAG;
use crate::error::{Error, Result};
use crate::kind::Wanted;
use crate::text_file;

/// The numbers that JSON does not have. A longer one comes before its own end.
const NUMBERS: [&str; 3] = ["-Infinity", "Infinity", "NaN"];

/// The most of them in a file. The object that stands for one takes a hundred times the memory of its text; published
/// settings have two or three.
const MOST_NUMBERS: usize = 1024;

/// Bytes of the longest file that is read, for each value that it may have. In a tree, a value takes some 80 bytes, and
/// an object with one key some 500: so a tree takes at most about ten times as much memory as the longest file has bytes.
const BYTES_PER_VALUE: u64 = 32;

/// The text of a JSON file. `name` is the file's, for messages.
///
/// # Errors
/// What the file is instead, if it is no text, empty, or a web page, as a download without the right to it gives; those of
/// [`text_file::strict`].
pub fn text(name: &str, bytes: Vec<u8>) -> Result<String> {
    let text = match text_file::strict(name, bytes) {
        Ok(decoded) => decoded.text,
        // Its hint is about texts, where that of the kind says nothing.
        Err(Error::NotAText { what, hint, .. }) => {
            let hint = if hint == Wanted::TEXT.hint { AGAIN } else { &hint };
            return Err(Error::refused(format!("{name}: this is {what}, not JSON")).or(hint));
        }
        Err(error) => return Err(error),
    };
    match text.trim_start().as_bytes().first() {
        None => Err(Error::refused(format!("{name}: this file is empty")).or(AGAIN)),
        Some(b'<') => Err(Error::refused(format!("{name}: this file is a web page, not JSON")).or(AGAIN)),
        Some(_) => Ok(text),
    }
}

const AGAIN: &str = "download the file itself again from the model's Hugging Face folder";

/// Parses JSON in which numbers may be `NaN`, `Infinity` or `-Infinity`. They become `{"__float__": "Infinity"}`, as
/// newer versions of transformers write and read them (`_FLOAT_TAG_KEY` in its `configuration_utils.py`), so a settings
/// file that is written again can be read. A byte order mark at the start, which some editors write, is skipped. `most`
/// are the bytes of the longest file of this kind; a file of so many has at most a value for each 32 bytes.
///
/// # Errors
/// Those of `serde_json`; for more values than that, and for more numbers that JSON does not have than any settings.
pub fn parse(text: &[u8], most: u64) -> serde_json::Result<Value> {
    let text = text.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(text);
    // What cannot have so many values need not be counted.
    let most = usize::try_from(most / BYTES_PER_VALUE).unwrap_or(usize::MAX);
    if text.len() > most && values(text) > most {
        return Err(JsonError::custom(format!("it has more than {most} values, which no settings have")));
    }
    match serde_json::from_slice(text) {
        Ok(value) => Ok(value),
        Err(error) => match tagged(text)? {
            Cow::Borrowed(_) => Err(error),
            Cow::Owned(text) => serde_json::from_slice(&text),
        },
    }
}

/// At least the number of values in a JSON text: all but the first follow a comma, or are the first in a list or an object.
fn values(text: &[u8]) -> usize {
    let mut count = 1;
    outside_strings(text, |rest| {
        count += usize::from(matches!(rest[0], b',' | b'[' | b'{'));
        1
    });
    count
}

/// Calls `each` with the rest of the text at every byte outside of strings; it gives the number of bytes that it takes.
fn outside_strings(text: &[u8], mut each: impl FnMut(&[u8]) -> usize) {
    let (mut at, mut in_string) = (0, false);
    while at < text.len() {
        match text[at] {
            b'"' => in_string = !in_string,
            b'\\' if in_string => at += 1, // what follows is no end of the string
            _ if !in_string => {
                at += each(&text[at..]);
                continue;
            }
            _ => {}
        }
        at += 1;
    }
}

/// The text with a tag in place of each of [`NUMBERS`] outside of strings.
///
/// # Errors
/// More of them than [`MOST_NUMBERS`].
fn tagged(text: &[u8]) -> serde_json::Result<Cow<'_, [u8]>> {
    let mut out: Vec<u8> = Vec::new();
    let (mut copied, mut count) = (0, 0);
    outside_strings(text, |rest| {
        let number = NUMBERS.iter().find(|n| rest.starts_with(n.as_bytes()) && count <= MOST_NUMBERS);
        let Some(number) = number else { return 1 };
        let at = text.len() - rest.len();
        out.extend_from_slice(&text[copied..at]);
        out.extend_from_slice(format!(r#"{{"{FLOAT_TAG}":"{number}"}}"#).as_bytes());
        (copied, count) = (at + number.len(), count + 1);
        number.len()
    });
    if count > MOST_NUMBERS {
        return Err(JsonError::custom(format!(
            "it has more than {MOST_NUMBERS} numbers that are NaN or infinite, which no settings have"
        )));
    }
    if count == 0 {
        return Ok(Cow::Borrowed(text));
    }
    out.extend_from_slice(&text[copied..]);
    Ok(Cow::Owned(out))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_no_json_is_named() {
        let of = |bytes: &[u8]| text("config.json", bytes.to_vec());
        for (bytes, says) in [
            (&b"\n<html>"[..], "is a web page, not JSON"),
            (b" \n", "is empty"),
            (b"PK\x03\x04\x14\0\0\0\x08\0", "not JSON"),
            (b"\0\x05\x16\x07\0\x02\0\0Mac OS X        ", "AppleDouble"),
        ] {
            let error = of(bytes).unwrap_err();
            assert!(error.to_string().contains(says), "{error}");
            let hint = error.hint().map(|hint| hint.to_string()).unwrap_or_default();
            assert!(!hint.is_empty() && !hint.contains("text.txt"), "{says}: {hint}");
        }
        assert_eq!(of(b"\xEF\xBB\xBF{}").unwrap(), "{}");
    }

    #[test]
    fn numbers_that_json_lacks_are_tagged() {
        let text = br#"{"a": NaN, "b": [0.0, Infinity], "c": -Infinity, "d": -1, "NaN": "Infinity \" NaN"}"#;
        let float = |x: &str| json!({"__float__": x});
        assert_eq!(
            parse(text, 1 << 20).unwrap(),
            json!({"a": float("NaN"), "b": [0.0, float("Infinity")], "c": float("-Infinity"), "d": -1,
                "NaN": "Infinity \" NaN"})
        );
        assert_eq!(parse(b"\xEF\xBB\xBF[NaN]", 1 << 20).unwrap(), json!([float("NaN")]));
    }

    #[test]
    fn everything_else_is_strict() {
        for text in [
            "{\"a\": nan}",
            "[Nan]",
            "{\"a\": Infinit}",
            "[NaNNaN]",
            "{\"a\": \"",
            "\"\\",
            "Infinity1",
            "-",
            "",
        ] {
            assert!(parse(text.as_bytes(), 1 << 20).is_err(), "{text}");
        }
    }

    #[test]
    fn a_tree_takes_a_small_multiple_of_its_text() {
        let many = |one: &str, n: usize| format!("[{}0]", format!("{one},").repeat(n));
        let most = 1u64 << 20;
        for (one, says) in [
            ("NaN", "NaN or infinite"),
            ("-Infinity", "NaN or infinite"),
            ("0", "more than 32768 values"),
            ("{}", "more than 32768 values"),
            (r#"{"":0}"#, "more than 32768 values"),
            ("[[]]", "more than 32768 values"),
        ] {
            let n = if one.ends_with(['N', 'y']) { 2000 } else { 40_000 };
            let why = parse(many(one, n).as_bytes(), most).unwrap_err().to_string();
            assert!(why.contains(says), "{one}: {why}");
            assert!(parse(many(one, 1000).as_bytes(), most).is_ok(), "{one}");
        }
        // What is in strings is no value.
        let text = format!("[\"{}\"]", r#",:[{\""#.repeat(100_000));
        assert!(parse(text.as_bytes(), most).is_ok());
    }
}
