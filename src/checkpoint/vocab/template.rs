//! Reads chat templates. A folder can have them in three places, and an updated one has an old and a new template in two of
//! them. The order is that of transformers (`PreTrainedTokenizerBase.from_pretrained`): chat_template.jinja with the files
//! beside it, then tokenizer_config.json, then chat_template.json, which was for processors. (llama.cpp's converter takes
//! tokenizer_config.json's first.)

use std::collections::BTreeMap;

use formats::metadata::{Array, Metadata, Value as Meta};
use serde_json::Value;

use crate::checkpoint::vocab::files::Folder;
use crate::disk::TEMPLATES;
use crate::error::Result;
use crate::text::{first_of, visible};

/// The most templates of one tokenizer. Published ones have up to four.
const MOST: usize = 64;

const FILE: &str = "chat_template.jinja";

/// The name of the template that is used unless another one is asked for.
const DEFAULT: &str = "default";

/// The templates of one place, with the names that they have in keys.
struct Place {
    file: &'static str,
    templates: Vec<(String, String)>,
}

impl Place {
    fn get(&self, name: &str) -> Option<&str> {
        // Of several with one name, the last counts, as in a mapping.
        self.templates.iter().rev().find(|(own, _)| own == name).map(|(_, text)| &**text)
    }
}

/// Writes the templates to the metadata: a single one, or several with names, where `default` gets the plain key. `notes`
/// gets what a user should know: templates that differ from the one that is written, and what is left out because it is
/// none. Only a chat needs a template, so a damaged one does not stop what needs the weights alone.
pub fn write(folder: &mut Folder, config: Option<&Value>, metadata: &mut Metadata, notes: &mut Vec<String>) {
    let json = folder.object("chat_template.json");
    let json = readable(json, notes).flatten();
    let mut places = vec![in_files(folder, notes)];
    for (file, object) in [("tokenizer_config.json", config), ("chat_template.json", json.as_ref())] {
        let mut entry = object.and_then(|object| object.get("chat_template"));
        // As for a template in a file of its own: it may say anything.
        if entry.is_some() && folder.leads_out(file) {
            notes.push(format!(
                "{}: is a link that leads out of the folder: its chat template is not read",
                folder.name(file)
            ));
            entry = None;
        }
        places.push(Place { file, templates: entry.map_or_else(Vec::new, |entry| all(file, entry, notes)) });
    }
    // A folder of further templates alone has no default: that is in another place.
    let mut used = match places.iter().find(|p| p.get(DEFAULT).is_some()) {
        Some(place) => place.templates.clone(),
        None => places.iter().map(|p| p.templates.clone()).find(|t| !t.is_empty()).unwrap_or_default(),
    };
    if places[0].get(DEFAULT).is_none() {
        let more = places[0].templates.iter().filter(|(name, _)| !used.iter().any(|(own, _)| own == name));
        used.extend(more.cloned().collect::<Vec<_>>());
    }
    if used.len() > MOST {
        let found = used.len();
        notes.push(format!(
            "the tokenizer has {found} chat templates, which no model has: all but the default one are left out"
        ));
        used.retain(|(name, _)| name == DEFAULT);
    }
    let used = Place { file: "", templates: used };
    for (i, place) in places.iter().enumerate() {
        let Some(first) = places[..i].iter().find(|p| p.get(DEFAULT).is_some()) else { continue };
        if place.get(DEFAULT).is_some_and(|text| Some(text) != used.get(DEFAULT)) {
            notes.push(format!(
                "the chat template is that of {}, as in transformers; {} has another one, which is left out",
                first.file, place.file
            ));
        }
    }
    let by_name = |place: &Place| -> BTreeMap<String, String> { place.templates.iter().cloned().collect() };
    let written = by_name(&used);
    for place in &places {
        let own = by_name(place);
        let lost: Vec<&str> = own
            .iter()
            .filter(|(name, text)| *name != DEFAULT && written.get(*name) != Some(text))
            .map(|(name, _)| &**name)
            .collect();
        // More than there may be were told of.
        if !lost.is_empty() && own.len() <= MOST {
            let (is, template) = if lost.len() == 1 { ("is", "template") } else { ("are", "templates") };
            let names = visible(&first_of(&lost, 4));
            notes.push(format!(
                "{}: the chat {template} {names} {is} left out, as transformers takes those of another file",
                place.file
            ));
        }
    }
    let mut names = Vec::new();
    for (name, _) in used.templates.iter().filter(|(name, _)| name != DEFAULT) {
        if !names.contains(name) {
            let text = used.get(name).unwrap_or_default();
            metadata.set(&format!("tokenizer.chat_template.{name}"), Meta::text(text));
            names.push(name.clone());
        }
    }
    if !names.is_empty() {
        metadata.set("tokenizer.chat_templates", Meta::Array(Array::of_strings(&names)));
    }
    if let Some(text) = used.get(DEFAULT) {
        metadata.set("tokenizer.chat_template", Meta::text(text));
    }
}

/// What was read, or a note on why it is left out.
fn readable<T>(read: Result<T>, notes: &mut Vec<String>) -> Option<T> {
    read.map_err(|why| notes.push(format!("a chat template is left out: {why}"))).ok()
}

/// The templates of a JSON value: one text; a list of names and texts; or a mapping of them. Empty ones are none.
fn all(file: &str, value: &Value, notes: &mut Vec<String>) -> Vec<(String, String)> {
    let entries: Vec<(Option<&str>, Option<&str>)> = match value {
        Value::String(text) => vec![(Some(DEFAULT), Some(text))],
        Value::Array(list) => list
            .iter()
            .map(|entry| ["name", "template"].map(|key| entry.get(key).and_then(Value::as_str)).into())
            .collect(),
        Value::Object(map) => map.iter().map(|(name, text)| (Some(&**name), text.as_str())).collect(),
        Value::Null => Vec::new(),
        _ => vec![(None, None)],
    };
    let (found, odd): (Vec<_>, Vec<_>) =
        entries.into_iter().partition(|(name, text)| name.is_some_and(|n| !n.is_empty()) && text.is_some());
    if !odd.is_empty() {
        notes.push(format!(
            "{file}: {} of the entries of chat_template {} left out: a template has a name and a text",
            odd.len(),
            if odd.len() == 1 { "is" } else { "are" }
        ));
    }
    found
        .into_iter()
        .filter_map(|(name, text)| Some((key_part(name?), text?.to_string())))
        .filter(|(_, text)| !text.trim().is_empty())
        .collect()
}

/// A name as part of a key: characters other than letters and digits become `_`.
fn key_part(name: &str) -> String {
    name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect()
}

/// The templates in files of their own.
fn in_files(folder: &mut Folder, notes: &mut Vec<String>) -> Place {
    let mut files = vec![(DEFAULT.to_string(), FILE.to_string())];
    for file in folder.list(TEMPLATES, ".jinja") {
        let stem = file.trim_start_matches(TEMPLATES).trim_start_matches('/').trim_end_matches(".jinja");
        files.push((key_part(stem), file));
    }
    let mut templates = Vec::new();
    for (name, file) in files {
        let text = folder.own_text(&file, notes);
        let text = readable(text, notes).flatten().filter(|text| !text.trim().is_empty());
        templates.extend(text.map(|text| (name, text)));
    }
    Place { file: FILE, templates }
}
