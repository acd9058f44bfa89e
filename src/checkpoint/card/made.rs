//! A model card made of a GGUF's `general.*` keys, in the words that [`super::read`] takes for them: what is read from a
//! card is written into one.

use std::collections::HashSet;
use std::fmt::Write;

use formats::metadata::{Kind, Metadata, Value};

use super::{DESCRIBED, LISTS, PARTS, SOURCES, TEXTS, hub_id, source, yaml};

/// The longest value that is written, in bytes. Published descriptions have a few hundred.
const LONGEST: usize = 64 << 10;

/// A model card, and which keys are in it.
#[derive(Debug, Default, PartialEq)]
pub struct Made {
    /// The text of README.md; `None` if there is nothing to say.
    pub text: Option<String>,
    /// The keys whose values are in it.
    pub kept: HashSet<String>,
}

/// The model card of a model with `parameters` weights.
pub fn made(metadata: &Metadata, parameters: u64) -> Made {
    let mut front = Front { metadata, text: String::new(), kept: HashSet::new() };
    front.license();
    for (key, fields) in &TEXTS[1..] {
        if let Some(text) = front.take(key) {
            front.one(fields[0], text);
        }
    }
    for (key, _, field) in LISTS {
        let texts = front.texts(key);
        front.list(field, &texts);
    }
    for (key, fields) in DESCRIBED {
        front.sources(key, fields, parameters);
    }
    let Front { text, kept, .. } = front;
    // It could not be read again.
    if text.is_empty() || text.len() > yaml::LIMIT / 2 {
        return Made::default();
    }
    let get = |key: &str| metadata.text(key).filter(|_| kept.contains(key)).map(one_line);
    let title = get("general.name").unwrap_or_else(|| "Model".into());
    let about = get("general.description").map_or(String::new(), |text| format!("\n{text}\n"));
    Made { text: Some(format!("---\n{text}---\n\n# {title}\n{about}")), kept }
}

/// A text without what Markdown or a terminal would act on at its beginning or in it.
fn one_line(text: &str) -> String {
    crate::text::visible(&text.split_whitespace().collect::<Vec<_>>().join(" "))
}

/// The front matter while it is made.
struct Front<'a> {
    metadata: &'a Metadata,
    text: String,
    kept: HashSet<String>,
}

impl<'a> Front<'a> {
    /// The text under `general.KEY`, which counts as written; `None` for one that a card does not hold.
    fn take(&mut self, key: &str) -> Option<&'a str> {
        let key = format!("general.{key}");
        // What has no letter is not read from a card.
        let text =
            self.metadata.text(&key).filter(|text| text.len() <= LONGEST && !text.trim().is_empty())?;
        self.kept.insert(key);
        Some(text)
    }

    fn license(&mut self) {
        let Some(text) = self.take("license") else { return };
        let is_id =
            |id: &str| !id.is_empty() && id.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b));
        // Several are read as one text.
        match text.contains(',') && text.split(',').all(is_id) {
            true => self.list("license", &text.split(',').collect::<Vec<_>>()),
            false => self.one("license", text),
        }
    }

    /// The texts of the list under `general.KEY`.
    fn texts(&mut self, key: &str) -> Vec<&'a str> {
        let key = format!("general.{key}");
        let list =
            self.metadata.get(&key).and_then(Value::as_array).filter(|list| list.kind() == Kind::String);
        let texts: Option<Vec<&str>> =
            list.and_then(|list| list.strings().map(|text| str::from_utf8(text).ok()).collect());
        let Some(texts) = texts.filter(|texts| texts.iter().all(|text| text.len() <= LONGEST)) else {
            return Vec::new();
        };
        self.kept.insert(key);
        texts
    }

    /// The models or data sets under `general.KEY`: ids where these say all, or else descriptions.
    fn sources(&mut self, key: &str, fields: [&str; 3], parameters: u64) {
        let count = format!("general.{key}.count");
        let Some(n) = self.metadata.get(&count).and_then(Value::as_u64).filter(|n| *n > 0) else {
            // Earlier converters wrote a list of ids.
            let texts =
                if self.metadata.get(&count).is_none() { self.texts(&format!("{key}s")) } else { Vec::new() };
            self.list(fields[0], &texts);
            return;
        };
        self.kept.insert(count);
        let of = |front: &mut Self, i: u64| -> Vec<(&'static str, &'a str)> {
            PARTS
                .into_iter()
                .filter_map(|part| Some((part, front.take(&format!("{key}.{i}.{part}"))?)))
                .collect()
        };
        let all: Vec<_> = (0..n.min(SOURCES as u64)).map(|i| of(self, i)).collect();
        let ids: Option<Vec<&str>> = all.iter().map(|parts| id(parts, parameters)).collect();
        if let Some(ids) = ids {
            self.list(fields[0], &ids);
            return;
        }
        let _ = writeln!(self.text, "{}:", fields[2]);
        for parts in &all {
            let mut start = "- ";
            if parts.is_empty() {
                self.text += "- {}\n";
            }
            for (part, text) in parts {
                let _ = writeln!(self.text, "{start}{part}: {}", scalar(text));
                start = "  ";
            }
        }
    }

    fn one(&mut self, field: &str, text: &str) {
        let _ = writeln!(self.text, "{field}: {}", scalar(text));
    }

    fn list(&mut self, field: &str, texts: &[&str]) {
        if texts.is_empty() {
            return;
        }
        let _ = writeln!(self.text, "{field}:");
        for text in texts {
            let _ = writeln!(self.text, "- {}", scalar(text));
        }
    }
}

/// The id on the hub of which these parts follow, if there is one.
fn id<'a>(parts: &[(&'static str, &'a str)], parameters: u64) -> Option<&'a str> {
    let url = parts.iter().find(|(part, _)| *part == "repo_url")?.1;
    let id = hub_id(url)?;
    let of_id = source(id, parameters);
    let same = of_id.len() == parts.len()
        && parts.iter().all(|(part, text)| of_id.iter().any(|p| p.0 == *part && p.1 == *text));
    same.then_some(id)
}

/// A text as a YAML scalar: plain where no reader takes it for anything else than a text.
fn scalar(text: &str) -> String {
    const WORDS: [&str; 9] = ["y", "n", "yes", "no", "true", "false", "on", "off", "null"];
    let plain = text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._/+ ".contains(&b))
        && !text.ends_with(' ')
        && !WORDS.contains(&&*text.to_ascii_lowercase());
    if plain {
        return text.to_string();
    }
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            '\n' => out += "\\n",
            '\t' => out += "\\t",
            c if crate::text::is_hidden(c) || matches!(u32::from(c) & 0xffff, 0xfffe | 0xffff) => {
                let _ = write!(out, "\\U{:08X}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::card::{About, read};
    use formats::metadata::Array;
    use proptest::prelude::*;
    use serde_json::json;

    /// What is read from the card that is made of these keys, without notes.
    fn back(metadata: &Metadata) -> Metadata {
        let made = made(metadata, 7_000_000_000);
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("README.md"), made.text.unwrap_or_default()).unwrap();
        let mut config = json!({});
        crate::checkpoint::card::sampling::write(metadata, &mut config);
        std::fs::write(dir.path().join("generation_config.json"), config.to_string()).unwrap();
        // Without a name, that of the folder would be taken.
        let about =
            About { folder: dir.path(), config: &json!({}), parameters: 7_000_000_000, experts: None };
        let card = read(&about);
        assert_eq!(card.notes, [""; 0]);
        card.metadata
    }

    fn metadata(pairs: &[(&str, &str)]) -> Metadata {
        let mut m = Metadata::new();
        m.set("general.type", Value::text("model"));
        for (key, text) in pairs {
            m.set(&format!("general.{key}"), Value::text(text));
        }
        m
    }

    fn texts(list: &[&str]) -> Value {
        Value::Array(Array::of_strings(list))
    }

    #[test]
    fn all_that_a_card_says_comes_back() {
        let mut m = metadata(&[
            ("name", "A name: with \"quotes\" #1"),
            ("author", "no"),
            ("version", "1.10"),
            ("organization", "~"),
            ("finetune", "chat"),
            ("basename", "llama"),
            ("description", "Two\nlines\tand \u{202e}marks \u{1f600}\\\n---\n"),
            ("size_label", "7B"),
            ("license", "mit,apache-2.0"),
            ("license.name", "llama3"),
            ("license.link", "https://a.example/x#y"),
            ("source.url", "https://a.example"),
            ("source.doi", "10.1/2"),
            ("source.uuid", "5"),
            ("source.repo_url", "https://b.example"),
            ("base_model.0.name", "Mistral 7B v0.1"),
            ("base_model.0.version", "v0.1"),
            ("base_model.0.organization", "Mistralai"),
            ("base_model.0.repo_url", "https://huggingface.co/mistralai/Mistral-7B-v0.1"),
            ("dataset.1.name", "Mine"),
            ("dataset.1.doi", "10.3/4"),
        ]);
        m.set("general.base_model.count", Value::U32(1));
        m.set("general.dataset.count", Value::U32(2));
        m.set("general.tags", texts(&["text-generation", "on", "a b"]));
        m.set("general.languages", texts(&["en", "no"]));
        m.set("general.sampling.top_k", Value::I32(20));
        m.set("general.sampling.temp", Value::F32(0.6));
        m.set("general.sampling.penalty_repeat", Value::F32(1.05));
        let again = back(&m);
        for (key, value) in m.iter() {
            assert_eq!(again.get(key), Some(value), "{key}");
        }
        assert_eq!(again.len(), m.len());
        // Ids are written as the hub has them, and descriptions where an id does not say all.
        let text = made(&m, 7_000_000_000).text.unwrap();
        assert!(text.contains("base_model:\n- mistralai/Mistral-7B-v0.1\n"), "{text}");
        assert!(text.contains("dataset_sources:\n- {}\n- name: Mine\n  doi: \"10.3/4\"\n"), "{text}");
        assert!(
            text.contains("license:\n- mit\n- apache-2.0\n") && text.contains("\nauthor: \"no\"\n"),
            "{text}"
        );
        m.set("general.base_model.0.version", Value::text("another"));
        assert_eq!(back(&m).text("general.base_model.0.version"), Some("another"));
    }

    #[test]
    fn what_is_no_text_of_a_card_is_not_kept() {
        let mut m = metadata(&[("url", "https://a.example"), ("quantized_by", "me"), ("author", " ")]);
        m.set("general.license", Value::String(vec![0xff]));
        m.set("general.tags", Value::Array(Array::of_strings([[0xff]])));
        m.set("general.languages", Value::text("en"));
        m.set("general.description", Value::text(&"x".repeat(LONGEST + 1)));
        assert_eq!(made(&m, 0), Made::default());
        // A list of earlier converters.
        m.set("general.datasets", texts(&["a/b"]));
        let card = made(&m, 0);
        assert_eq!(card.kept, HashSet::from(["general.datasets".to_string()]));
        assert_eq!(card.text.as_deref(), Some("---\ndatasets:\n- a/b\n---\n\n# Model\n"));
        // More than could be read again.
        let many = vec!["x"; 200_000];
        m.set("general.tags", texts(&many));
        assert_eq!(made(&m, 0), Made::default());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn any_text_comes_back(
            text in "(\\PC|[-\\[\\]{}:?,&*!|>'\"%@`#~a/ \n\t\r\u{0}\u{85}\u{feff}\u{2028}\u{7f}]){1,30}",
            plain in "[a-zA-Z][-a-zA-Z0-9._/+ ]{0,6}",
        ) {
            prop_assume!(!text.trim().is_empty());
            let mut m = metadata(&[("name", &text), ("author", &plain), ("license", &text)]);
            m.set("general.tags", texts(&[&text, &plain]));
            let again = back(&m);
            for (key, value) in m.iter() {
                prop_assert_eq!(again.get(key), Some(value), "{}", key);
            }
        }
    }
}
