//! The values of config.json, with their types and limits. A value of a wrong type is an error, not a missing one; only
//! `null` is missing, as in Python's programs.

use serde_json::{Map, Value as Json};

use crate::text::visible;

/// The largest supported dimension of a tensor.
pub(super) const MOST: u64 = 1 << 31;

/// The key of the object that stands for a number that JSON does not have, as newer versions of transformers write them:
/// `{"__float__": "NaN"}`.
pub(crate) const FLOAT_TAG: &str = "__float__";

/// The longest text of a value in a message, in characters.
const MOST_SHOWN: usize = 60;

/// Reads values of a JSON object by their keys.
pub(crate) struct Reader<'a>(pub(crate) &'a Json);

impl<'a> Reader<'a> {
    /// A value, as `read` takes it; `None` if it is missing or null. `expected` says what `read` takes.
    fn get<T>(
        &self,
        key: &str,
        expected: &str,
        read: impl FnOnce(&'a Json) -> Option<T>,
    ) -> Result<Option<T>, String> {
        match self.0.get(key) {
            None | Some(Json::Null) => Ok(None),
            Some(v) => read(v).map(Some).ok_or_else(|| wrong(key, expected, v)),
        }
    }

    /// A positive integer that may be missing or null.
    pub(super) fn optional(&self, key: &str) -> Result<Option<u64>, String> {
        let expected = format!("a positive integer of at most {MOST}");
        self.get(key, &expected, |v| integer(v).filter(|n| (1..=MOST).contains(n)))
    }

    /// The tokens of sliding-window attention; some writers say 0, -1 or false where there is none.
    pub(super) fn window(&self) -> Result<Option<u64>, String> {
        let key = "sliding_window";
        let none = self.0.get(key).is_some_and(|v| v == 0 || v == -1 || v == false);
        if none { Ok(None) } else { self.optional(key) }
    }

    /// A positive integer that must be there.
    pub(super) fn count(&self, key: &str) -> Result<u64, String> {
        self.optional(key)?.ok_or_else(|| format!("{key} is missing"))
    }

    /// A positive number that may be missing or null.
    pub(super) fn float(&self, key: &str) -> Result<Option<f64>, String> {
        let in_range = |x: &f64| *x > 0.0 && (*x as f32).is_finite() && *x as f32 > 0.0;
        self.get(key, "a positive number in the range of f32", |v| v.as_f64().filter(in_range))
    }

    /// A number of either sign that may be missing or null.
    pub(super) fn number(&self, key: &str) -> Result<Option<f64>, String> {
        let in_range = |x: &f64| (*x as f32).is_finite();
        self.get(key, "a number in the range of f32", |v| v.as_f64().filter(in_range))
    }

    /// A text that may be missing or null.
    pub(crate) fn text(&self, key: &str) -> Result<Option<&'a str>, String> {
        self.get(key, "a string", Json::as_str)
    }

    /// A switch that may be missing or null.
    pub(crate) fn flag(&self, key: &str) -> Result<Option<bool>, String> {
        self.get(key, "true or false", Json::as_bool)
    }

    /// A list that may be missing or null.
    pub(crate) fn list(&self, key: &str) -> Result<Option<&'a Vec<Json>>, String> {
        self.get(key, "a list", Json::as_array)
    }

    /// An object that may be missing or null.
    pub(crate) fn object(&self, key: &str) -> Result<Option<&'a Map<String, Json>>, String> {
        self.get(key, "an object", |v| v.as_object().filter(|_| float_name(v).is_none()))
    }
}

/// An error about a value of a wrong type or out of range.
pub(crate) fn wrong(key: &str, expected: &str, found: &Json) -> String {
    format!("{key} must be {expected} (found {})", shown(found))
}

/// A value as messages show it: in one line, and no longer than one.
pub(crate) fn shown(value: &Json) -> String {
    let text = match (float_name(value), value) {
        (Some(name), _) => name.to_string(),
        (None, Json::Array(list)) if list.len() > MOST_SHOWN => format!("a list of {} values", list.len()),
        (None, Json::Object(map)) if map.len() > MOST_SHOWN => format!("an object of {} keys", map.len()),
        (None, value) => value.to_string(),
    };
    let mut letters = text.chars();
    let start: String = letters.by_ref().take(MOST_SHOWN).collect();
    visible(&if letters.next().is_some() { format!("{start}...") } else { start })
}

/// The name of a number that JSON does not have ("NaN"), of which the reader of settings files has made an object.
pub(crate) fn float_name(value: &Json) -> Option<&str> {
    let map = value.as_object().filter(|map| map.len() == 1)?;
    map.get(FLOAT_TAG)?.as_str()
}

/// A count, which Python's programs write as a float where it was computed: `4096.0`.
fn integer(v: &Json) -> Option<u64> {
    const EXACT: f64 = (1u64 << 53) as f64;
    v.as_u64()
        .or_else(|| v.as_f64().filter(|x| x.fract() == 0.0 && (0.0..EXACT).contains(x)).map(|x| x as u64))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_wrong_type_is_named_with_its_key_and_what_was_expected() {
        let json = json!({"a": 7, "b": "x", "c": [1], "d": {"__float__": "NaN"}, "n": null, "o": {}});
        let read = Reader(&json);
        assert_eq!(read.text("a").unwrap_err(), "a must be a string (found 7)");
        assert_eq!(read.flag("b").unwrap_err(), "b must be true or false (found \"x\")");
        assert_eq!(read.object("c").unwrap_err(), "c must be an object (found [1])");
        assert_eq!(read.object("d").unwrap_err(), "d must be an object (found NaN)");
        assert_eq!(read.number("d").unwrap_err(), "d must be a number in the range of f32 (found NaN)");
        assert_eq!(read.list("b").unwrap_err(), "b must be a list (found \"x\")");
        for key in ["n", "missing"] {
            assert_eq!((read.text(key), read.flag(key), read.number(key)), (Ok(None), Ok(None), Ok(None)));
            assert!(read.object(key).unwrap().is_none() && read.list(key).unwrap().is_none());
        }
        assert!(read.object("o").unwrap().is_some());
    }

    #[test]
    fn values_are_shown_in_one_short_line() {
        assert_eq!(shown(&json!(vec![0; 1000])), "a list of 1000 values");
        let long = shown(&json!("x".repeat(1000)));
        assert!(long.len() < 70 && long.ends_with("..."), "{long}");
        assert_eq!(shown(&json!({"a": 1})), "{\"a\":1}");
    }
}
