//! JSON as Python writes it. Python's `json` module writes the floats `NaN`, `Infinity` and `-Infinity`, which JSON does
//! not have, and Hugging Face's settings files are written with it.

use std::borrow::Cow;

use serde_json::Value;

/// The numbers that JSON does not have. A longer one comes before its own end.
const NUMBERS: [&str; 3] = ["-Infinity", "Infinity", "NaN"];

/// Parses JSON in which numbers may be `NaN`, `Infinity` or `-Infinity`. They become `{"__float__": "Infinity"}`, as
/// newer versions of transformers write and read them (`_FLOAT_TAG_KEY` in its `configuration_utils.py`), so a settings
/// file that is written again can be read. A byte order mark at the start, which some editors write, is skipped.
///
/// # Errors
/// Those of `serde_json`.
pub fn parse(text: &[u8]) -> serde_json::Result<Value> {
    let text = text.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(text);
    match serde_json::from_slice(text) {
        Ok(value) => Ok(value),
        Err(error) => match tagged(text) {
            Cow::Borrowed(_) => Err(error),
            Cow::Owned(text) => serde_json::from_slice(&text),
        },
    }
}

/// The text with a tag in place of each of [`NUMBERS`] outside of strings.
fn tagged(text: &[u8]) -> Cow<'_, [u8]> {
    let mut out: Vec<u8> = Vec::new();
    let (mut copied, mut at, mut in_string) = (0, 0, false);
    while at < text.len() {
        match text[at] {
            b'"' => in_string = !in_string,
            b'\\' if in_string => at += 1, // what follows is no end of the string
            b'N' | b'I' | b'-' if !in_string => {
                if let Some(number) = NUMBERS.iter().find(|n| text[at..].starts_with(n.as_bytes())) {
                    out.extend_from_slice(&text[copied..at]);
                    out.extend_from_slice(format!(r#"{{"__float__":"{number}"}}"#).as_bytes());
                    at += number.len();
                    copied = at;
                    continue;
                }
            }
            _ => {}
        }
        at += 1;
    }
    if copied == 0 {
        return Cow::Borrowed(text);
    }
    out.extend_from_slice(&text[copied..]);
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn numbers_that_json_lacks_are_tagged() {
        let text = br#"{"a": NaN, "b": [0.0, Infinity], "c": -Infinity, "d": -1, "NaN": "Infinity \" NaN"}"#;
        let float = |x: &str| json!({"__float__": x});
        assert_eq!(
            parse(text).unwrap(),
            json!({"a": float("NaN"), "b": [0.0, float("Infinity")], "c": float("-Infinity"), "d": -1,
                "NaN": "Infinity \" NaN"})
        );
        assert_eq!(parse(b"\xEF\xBB\xBF[NaN]").unwrap(), json!([float("NaN")]));
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
            assert!(parse(text.as_bytes()).is_err(), "{text}");
        }
    }
}
