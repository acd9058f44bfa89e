//! The long lists in tokenizer.json: tokens and merges. They are read value by value, with a limit of their number: a
//! list that no model has ends the reading before it has taken memory.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use serde::Deserialize;
use serde::de::{Deserializer, Error as _, MapAccess, SeqAccess, Visitor};

use crate::checkpoint::vocab::tokens::MOST_TOKENS;

/// The most merges that are read. The largest published vocabularies have some 600,000. Lower in unit tests, which go beyond
/// it.
pub const MOST_MERGES: usize = if cfg!(test) { 1 << 18 } else { 1 << 21 };

fn too_many<E: serde::de::Error>(what: &str, most: u64) -> E {
    E::custom(format!("there are more than {most} {what}, which no model has"))
}

/// The object of tokens and ids, in the order of the file, with duplicate keys.
pub struct Vocab<'a>(pub Vec<(Cow<'a, str>, u32)>);

/// A text that is borrowed from the file where it has no escapes.
#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Vocab<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = Vocab<'de>;
            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("an object of tokens and their ids")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Vocab<'de>, A::Error> {
                let mut entries = Vec::new();
                while let Some((Text(text), id)) = map.next_entry::<Text<'de>, u32>()? {
                    if entries.len() as u64 == MOST_TOKENS {
                        return Err(too_many("tokens", MOST_TOKENS));
                    }
                    entries.push((text, id));
                }
                Ok(Vocab(entries))
            }
        }
        deserializer.deserialize_map(Entries)
    }
}

/// A list of at most as many values as a vocabulary may have tokens.
pub struct Limited<T>(pub Vec<T>);

impl<T> Default for Limited<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Limited<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Values<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Values<T> {
            type Value = Limited<T>;
            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("a list")
            }
            fn visit_unit<E: serde::de::Error>(self) -> Result<Limited<T>, E> {
                Ok(Limited::default())
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Limited<T>, A::Error> {
                let mut values = Vec::new();
                while let Some(value) = seq.next_element()? {
                    if values.len() as u64 == MOST_TOKENS {
                        return Err(too_many("added tokens", MOST_TOKENS));
                    }
                    values.push(value);
                }
                Ok(Limited(values))
            }
        }
        deserializer.deserialize_any(Values(PhantomData))
    }
}

/// Merges as llama.cpp reads them, two tokens with a space between them, one after the other in one text.
#[derive(Debug, Default, PartialEq)]
pub struct Merges {
    text: String,
    /// Where each merge ends in the text.
    ends: Vec<usize>,
}

impl Merges {
    /// Adds a merge of two tokens. Spaces inside a token become U+0120, the space of the byte alphabet. False, and
    /// nothing is added, if one of the tokens is empty.
    pub fn push(&mut self, a: &str, b: &str) -> bool {
        if a.is_empty() || b.is_empty() {
            return false;
        }
        for (i, part) in [a, b].into_iter().enumerate() {
            self.text.push_str(if i > 0 { " " } else { "" });
            for (i, piece) in part.split(' ').enumerate() {
                self.text.push_str(if i > 0 { "\u{120}" } else { "" });
                self.text.push_str(piece);
            }
        }
        self.ends.push(self.text.len());
        true
    }

    /// The number of merges.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// The merges in order.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        starts.zip(&self.ends).map(|(start, end)| &self.text[start..*end])
    }
}

/// A merge: one text with a space in its middle, or (since transformers 4.45) a pair.
struct Merge<'a>(Cow<'a, str>, Option<Cow<'a, str>>);

impl<'de: 'a, 'a> Deserialize<'de> for Merge<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = Merge<'de>;
            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("a merge must be a pair of tokens, or two tokens with a space between them")
            }
            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Merge<'de>, E> {
                Ok(Merge(text.into(), None))
            }
            fn visit_str<E>(self, text: &str) -> Result<Merge<'de>, E> {
                Ok(Merge(text.to_string().into(), None))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Merge<'de>, A::Error> {
                let wrong = |_| A::Error::custom("a merge must be a pair of tokens");
                let mut next = || seq.next_element::<Text<'de>>().map_err(wrong);
                match (next()?, next()?, next()?) {
                    (Some(Text(a)), Some(Text(b)), None) => Ok(Merge(a, Some(b))),
                    _ => Err(A::Error::custom("a merge must be a pair of tokens")),
                }
            }
        }
        deserializer.deserialize_any(Either)
    }
}

impl<'de> Deserialize<'de> for Merges {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Pairs;
        impl<'de> Visitor<'de> for Pairs {
            type Value = Merges;
            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("a list of merges")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Merges, A::Error> {
                let mut merges = Merges::default();
                while let Some(merge) = seq.next_element::<Merge<'de>>()? {
                    if merges.len() == MOST_MERGES {
                        return Err(too_many("merges", MOST_MERGES as u64));
                    }
                    let pair = match &merge {
                        Merge(a, Some(b)) => Some((&**a, &**b)),
                        Merge(text, None) => text.split_once(' ').filter(|(_, b)| !b.contains(' ')),
                    };
                    if !pair.is_some_and(|(a, b)| merges.push(a, b)) {
                        let n = merges.len();
                        return Err(A::Error::custom(format!("merge {n} is not a pair of tokens")));
                    }
                }
                Ok(merges)
            }
        }
        deserializer.deserialize_seq(Pairs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The error of a list with this value so many times.
    fn error<'a, T: Deserialize<'a>>(text: &'a str) -> String {
        serde_json::from_str::<T>(text).err().expect("an error").to_string()
    }

    #[test]
    fn lists_that_no_model_has_end_the_reading() {
        let many = |value: &str, n: usize| format!("[{}]", vec![value; n].join(","));
        assert_eq!(serde_json::from_str::<Merges>(&many(r#""a b""#, 1000)).unwrap().len(), 1000);
        for value in [r#""a b""#, r#"["a","b"]"#] {
            assert!(
                error::<Merges>(&many(value, MOST_MERGES + 1))
                    .contains(&format!("more than {MOST_MERGES} merges"))
            );
        }
        let entries: Vec<String> = (0..=MOST_TOKENS).map(|i| format!("\"{i:x}\":{i}")).collect();
        assert!(
            error::<Vocab>(&format!("{{{}}}", entries.join(",")))
                .contains(&format!("more than {MOST_TOKENS} tokens"))
        );
        let more = MOST_TOKENS as usize + 1;
        assert!(error::<Limited<u8>>(&many("1", more)).contains(&format!("more than {MOST_TOKENS} added")));
    }

    #[test]
    fn merges_are_pairs_in_two_forms() {
        let merges: Merges = serde_json::from_str(r#"["a b", ["\u0041 x", "é"], ["Ġ", "c"]]"#).unwrap();
        assert_eq!(merges.iter().collect::<Vec<_>>(), ["a b", "AĠx é", "Ġ c"]);
    }
}
